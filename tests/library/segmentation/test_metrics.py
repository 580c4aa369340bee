"""Confusion matrix and ratios against closed forms."""

import math

import numpy as np
import pytest

from tomoforge.errors import InputError
from tomoforge.segmentation.metrics import confusion_matrix, segmentation_metrics

NAMES = {"background": 0, "crystal": 1, "loop": 2}


def test_confusion_matrix__counts_each_pair_once():
    truth = np.array([[[0, 0, 1], [1, 1, 2]]], dtype=np.uint8)
    predicted = np.array([[[0, 1, 1], [1, 2, 2]]], dtype=np.uint8)
    np.testing.assert_array_equal(confusion_matrix(truth, predicted, 3), [[1, 1, 0], [0, 2, 1], [0, 0, 1]])


def test_confusion_matrix__sum_is_voxels_and_transposes_with_its_arguments():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, (2, 5, 6, 7), dtype=np.uint8)
    matrix = confusion_matrix(truth, predicted, 3)
    assert matrix.sum() == truth.size
    np.testing.assert_array_equal(matrix.T, confusion_matrix(predicted, truth, 3))


def test_segmentation_metrics__shifted_box_has_closed_form():
    # Two boxes of 4×4×8 voxels overlapping in 4×4×6: TP 96, FP 32, FN 32.
    truth, predicted = np.zeros((2, 8, 8, 16), dtype=np.uint8)
    truth[2:6, 2:6, 2:10] = 1
    predicted[2:6, 2:6, 4:12] = 1
    truth[0, 0, 0] = predicted[0, 0, 0] = 2
    crystal = segmentation_metrics(truth, predicted, NAMES)["crystal"]
    assert crystal.recall == crystal.precision == crystal.f1 == crystal.f2 == 0.75
    assert crystal.iou == 96 / 160


def test_segmentation_metrics__f2_weighs_recall_four_times():
    truth, predicted = np.zeros((2, 1, 1, 10), dtype=np.uint8)
    truth[..., :4] = 1
    predicted[..., 2:9] = 1  # TP 2, FP 5, FN 2
    crystal = segmentation_metrics(truth, predicted, {"background": 0, "crystal": 1})["crystal"]
    assert crystal.recall == 0.5
    assert crystal.precision == 2 / 7
    assert crystal.f1 == 4 / 11
    assert crystal.f2 == 10 / 23


def test_segmentation_metrics__class_absent_in_both_is_nan_and_in_one_is_zero():
    truth, predicted = np.zeros((2, 2, 2, 2), dtype=np.uint8)
    predicted[0] = 1
    found = segmentation_metrics(truth, predicted, NAMES)
    assert all(math.isnan(v) for v in vars(found["loop"]).values())
    assert math.isnan(found["crystal"].recall)
    assert found["crystal"].precision == found["crystal"].iou == found["crystal"].f1 == 0


def test_segmentation_metrics__perfect_prediction_is_one():
    labels = np.random.default_rng(1).integers(0, 3, (4, 5, 6), dtype=np.uint8)
    for metrics in segmentation_metrics(labels, labels, NAMES).values():
        assert set(vars(metrics).values()) == {1.0}


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.uint8), "one shape"),
        (np.zeros((2, 2, 2), np.uint8), np.full((2, 2, 2), 3, np.uint8), "predicted must hold labels 0 … 2"),
        (np.full((2, 2, 2), -1, np.int16), np.zeros((2, 2, 2), np.int16), "truth must hold labels"),
        (np.zeros((2, 2, 2)), np.zeros((2, 2, 2), np.uint8), "integer labels"),
    ],
)
def test_segmentation_metrics__refuses_what_it_cannot_count(truth, predicted, message):
    with pytest.raises(InputError, match=message):
        segmentation_metrics(truth, predicted, NAMES)


def test_segmentation_metrics__refuses_class_names_with_gaps():
    labels = np.zeros((1, 1, 1), np.uint8)
    with pytest.raises(InputError, match="without gaps"):
        segmentation_metrics(labels, labels, {"background": 0, "crystal": 2})
