"""Metrics of classes against closed forms, scikit-learn and (where it is installed) MONAI."""

import warnings

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn_metrics

from tomoforge.errors import InputError
from tomoforge.segmentation.metrics import (
    METRICS,
    check_class_names,
    class_counts,
    class_metrics,
    confusion_matrix,
    mean_metrics,
    metrics_of_confusion,
)
from tomoforge.volumes import LABEL_NAMES

NAMES = {"background": 0, "crystal": 1, "loop": 2}
EXACT = 1e-15  # both sides divide the same integers; only the order of a sum may differ


def random_pair(seed: int, classes: int = 4, shape=(9, 10, 11)) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and a prediction that is right in about half of the voxels."""
    rng = np.random.default_rng(seed)
    truth, other = rng.integers(0, classes, (2, *shape), dtype=np.uint8)
    return truth, np.where(rng.random(shape) < 0.5, truth, other)


def test_confusion_matrix__counts_each_pair_once():
    truth = np.array([[[0, 0, 1], [1, 1, 2]]], dtype=np.uint8)
    prediction = np.array([[[0, 1, 1], [1, 2, 2]]], dtype=np.uint8)
    found = confusion_matrix(truth, prediction, NAMES)
    np.testing.assert_array_equal(found, [[1, 1, 0], [0, 2, 1], [0, 0, 1]])
    assert list(found.index) == list(found.columns) == list(NAMES)
    assert found.loc["background", "crystal"] == 1  # truth in the rows


def test_confusion_matrix__sum_is_voxels_and_transposes_with_its_arguments():
    truth, prediction = random_pair(0, classes=3)
    matrix = confusion_matrix(truth, prediction, NAMES)
    assert matrix.to_numpy().sum() == truth.size
    np.testing.assert_array_equal(matrix.T, confusion_matrix(prediction, truth, NAMES))


def test_class_metrics__shifted_box_has_closed_form():
    # Two boxes of 4×4×8 voxels overlapping in 4×4×6: TP 96, FP 32, FN 32.
    truth, prediction = np.zeros((2, 8, 8, 16), dtype=np.uint8)
    truth[2:6, 2:6, 2:10] = 1
    prediction[2:6, 2:6, 4:12] = 1
    truth[0, 0, 0] = prediction[0, 0, 0] = 2
    found = class_metrics(truth, prediction, NAMES)
    assert found.loc["crystal"].to_dict() == {
        "recall": 0.75,
        "iou": 96 / 160,
        "f1": 0.75,
        "f2": 0.75,
        "precision": 0.75,
    }
    assert (found.loc["loop"] == 1).all()


def test_class_metrics__hand_computed_ratios():
    truth, prediction = np.zeros((2, 1, 1, 10), dtype=np.uint8)
    truth[..., :4] = 1
    prediction[..., 2:9] = 1  # TP 2, FP 5, FN 2
    crystal = class_metrics(truth, prediction, {"background": 0, "crystal": 1}).loc["crystal"]
    assert crystal["recall"] == 0.5
    assert crystal["precision"] == 2 / 7
    assert crystal["iou"] == 2 / 9
    assert crystal["f1"] == 4 / 11
    assert crystal["f2"] == 10 / 23


@pytest.mark.parametrize("seed", range(5))
def test_class_metrics__f2_is_the_formula_of_precision_and_recall(seed):
    found = class_metrics(*random_pair(seed), LABEL_NAMES)
    p, r = found["precision"], found["recall"]
    np.testing.assert_allclose(found["f2"], (1 + 4) * p * r / (4 * p + r), rtol=1e-14)  # three roundings
    np.testing.assert_allclose(found["f1"], 2 * p * r / (p + r), rtol=1e-14)


@pytest.mark.parametrize("absent", [None, "truth", "prediction", "both"])
@pytest.mark.parametrize("seed", range(3))
def test_class_metrics__agrees_with_scikit_learn(seed, absent):
    truth, prediction = random_pair(seed)
    if absent in ("truth", "both"):
        truth[truth == 2] = 1
    if absent in ("prediction", "both"):
        prediction[prediction == 2] = 1
    t, p = truth.ravel(), prediction.ravel()
    found = class_metrics(truth, prediction, LABEL_NAMES)
    options = {"labels": list(LABEL_NAMES.values()), "average": None}
    theirs = {
        "recall": sklearn_metrics.recall_score(t, p, zero_division=np.nan, **options),
        "precision": sklearn_metrics.precision_score(t, p, zero_division=np.nan, **options),
        "f1": sklearn_metrics.f1_score(t, p, zero_division=np.nan, **options),
        "f2": sklearn_metrics.fbeta_score(t, p, beta=2, zero_division=np.nan, **options),
    }
    for name, values in theirs.items():
        np.testing.assert_allclose(found[name], values, rtol=EXACT, err_msg=name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has no NaN for an empty class, and warns that it takes 0
        iou = sklearn_metrics.jaccard_score(t, p, **options)
    iou = np.where(found["iou"].isna(), np.nan, iou)
    np.testing.assert_allclose(found["iou"], iou, rtol=EXACT)
    assert found["iou"].isna().to_dict() == {
        name: absent == "both" and name == "loop" for name in LABEL_NAMES
    }
    np.testing.assert_array_equal(
        confusion_matrix(truth, prediction, LABEL_NAMES),
        sklearn_metrics.confusion_matrix(t, p, labels=options["labels"]),
    )


def test_class_metrics__agrees_with_monai():
    monai = pytest.importorskip("monai.metrics", reason="MONAI is not a dependency")
    torch = pytest.importorskip("torch")
    truth, prediction = random_pair(7)
    one_hot = [
        torch.from_numpy(np.eye(4, dtype=np.float32)[a].transpose(3, 0, 1, 2)[None])
        for a in (prediction, truth)
    ]
    found = class_metrics(truth, prediction, LABEL_NAMES)
    dice = monai.compute_dice(*one_hot, include_background=True)[0]
    iou = monai.compute_iou(*one_hot, include_background=True)[0]
    np.testing.assert_allclose(found["f1"], dice, rtol=1e-6)  # theirs in float32
    np.testing.assert_allclose(found["iou"], iou, rtol=1e-6)


def test_class_metrics__empty_classes_are_as_documented():
    truth, prediction = np.zeros((2, 2, 2, 2), dtype=np.uint8)
    names = {**LABEL_NAMES, "ice": 4}
    truth[0, 0] = 1  # missed by the prediction
    prediction[1] = 3  # invented by it; loop and ice are in neither
    found = class_metrics(truth, prediction, names)
    nan = float("nan")
    expected = {
        "liquor": [0, 0, 0, 0, nan],
        "crystal": [nan, 0, 0, 0, 0],
        "loop": [nan] * 5,
        "ice": [nan] * 5,
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(found.loc[name, list(METRICS)], values, err_msg=name)


def test_class_metrics__perfect_prediction_is_one():
    labels, _ = random_pair(1)
    assert (class_metrics(labels, labels, LABEL_NAMES) == 1).all(axis=None)


def test_class_metrics__rows_and_columns_are_those_promised():
    labels, prediction = random_pair(2)
    found = class_metrics(labels, prediction, LABEL_NAMES)
    assert list(found.columns) == ["recall", "iou", "f1", "f2", "precision"]
    assert list(found.index) == list(LABEL_NAMES)
    assert found.index.name == "class"
    assert (found.dtypes == np.float64).all()


def test_class_metrics__labels_may_have_gaps_any_order_and_no_background():
    truth, prediction = random_pair(3)
    usual = class_metrics(truth, prediction, LABEL_NAMES)
    sparse = np.array([0, 17, 255, 40], dtype=np.uint8)
    names = {"crystal": 40, "liquor": 17, "loop": 255}
    found = class_metrics(sparse[truth], sparse[prediction], names)
    pd.testing.assert_frame_equal(found, usual.loc[list(names)], check_exact=True)


def test_class_metrics__every_value_of_a_byte_may_have_a_name():
    names = {f"class {value}": value for value in range(256)}
    truth = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    assert (class_metrics(truth, truth, names) == 1).all(axis=None)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.int64, ">i4"])
def test_class_metrics__does_not_depend_on_the_integer_type_or_memory_order(dtype):
    truth, prediction = random_pair(4)
    expected = class_metrics(truth, prediction, LABEL_NAMES)
    found = class_metrics(np.asfortranarray(truth.astype(dtype)), prediction[:, ::-1][:, ::-1], LABEL_NAMES)
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_class_metrics__masks_of_one_class_are_labels():
    truth, prediction = random_pair(5, classes=2)
    found = class_metrics(truth.astype(bool), prediction.astype(bool), {"crystal": 1})
    pd.testing.assert_frame_equal(found, class_metrics(truth, prediction, {"crystal": 1}), check_exact=True)


def test_class_metrics__reads_stored_volumes_slab_by_slab(monkeypatch):
    monkeypatch.setattr("tomoforge.segmentation.metrics._SLAB_VOXELS", 1)  # then slabs are one chunk thick
    truth, prediction = random_pair(6, shape=(70, 5, 6))
    read: list[int] = []

    class Watched:
        """A Zarr array that notes how many slices are asked for."""

        def __init__(self, array: np.ndarray) -> None:
            self.stored = zarr.array(array, chunks=(32, 5, 6))
            self.shape, self.dtype = self.stored.shape, self.stored.dtype

        def __getitem__(self, part: slice) -> np.ndarray:
            read.append(part.stop - part.start)
            return self.stored[part]

    found = class_metrics(Watched(truth), Watched(prediction), LABEL_NAMES)
    pd.testing.assert_frame_equal(found, class_metrics(truth, prediction, LABEL_NAMES), check_exact=True)
    assert read == [32, 32, 32, 32, 6, 6]


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 3)),
    st.randoms(use_true_random=False),
)
def test_class_metrics__ranges_and_order_hold_for_any_labels(truth, random):
    flat = truth.ravel().tolist()
    random.shuffle(flat)
    prediction = np.array(flat, dtype=np.uint8).reshape(truth.shape)
    found = class_metrics(truth, prediction, LABEL_NAMES)
    present = found[[(truth == value).any() for value in LABEL_NAMES.values()]]
    assert ((present >= 0) & (present <= 1)).all(axis=None)
    assert (present["iou"] <= present["f1"]).all()
    # A shuffled volume has as many voxels of each class: FP = FN, and all F measures coincide.
    np.testing.assert_allclose(present["f2"], present["recall"], rtol=EXACT)
    np.testing.assert_allclose(present["precision"], present["recall"], rtol=EXACT)


def test_metrics_of_confusion__of_a_sum_are_those_of_the_joined_volumes():
    first, second = random_pair(8), random_pair(9)
    total = confusion_matrix(*first, LABEL_NAMES) + confusion_matrix(*second, LABEL_NAMES)
    joined = class_metrics(*(np.concatenate(pair) for pair in zip(first, second, strict=True)), LABEL_NAMES)
    pd.testing.assert_frame_equal(metrics_of_confusion(total), joined, check_exact=True)
    counts = class_counts(total)
    assert (counts["tp"] + counts["fn"]).sum() == first[0].size + second[0].size


def test_mean_metrics__leaves_out_background_and_what_was_not_there():
    nan = float("nan")
    metrics = pd.DataFrame(
        {"recall": [1.0, 0.5, nan], "iou": [1.0, 0.2, 0.4]}, index=["background", "crystal", "loop"]
    )
    assert mean_metrics(metrics).to_dict() == {"recall": 0.5, "iou": pytest.approx(0.3, rel=EXACT)}
    assert mean_metrics(metrics, without=())["recall"] == 0.75
    assert mean_metrics(metrics, without=("background", "crystal")).isna().to_dict() == {
        "recall": True,
        "iou": False,
    }


ZEROS = np.zeros((2, 2, 2), np.uint8)


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (ZEROS, np.zeros((2, 2, 3), np.uint8), r"one shape, got \(2, 2, 2\) and \(2, 2, 3\)"),
        (ZEROS, np.full((2, 2, 2), 7, np.uint8), "prediction must hold the labels .* got also 7"),
        (np.full((2, 2, 2), -1, np.int16), ZEROS, "truth must hold the labels .* got also -1"),
        (np.full((2, 2, 2), 300), ZEROS, "truth must hold the labels .* got also 300"),
        (np.arange(10, 18).reshape(2, 2, 2), ZEROS, "got also 10, 11, 12, 13, 14, …"),
        (
            np.full((2, 2, 2), np.nan),
            ZEROS,
            "truth must hold integer labels, got float64 with 8 values that are NaN",
        ),
        (ZEROS, np.full((2, 2, 2), 0.5), "prediction must hold integer labels, .* 8 that are not whole"),
        (ZEROS, ZEROS.astype(np.float32), "integer labels, got float32"),
        (ZEROS, ZEROS.astype(complex), "integer labels, got complex128"),
        (ZEROS[:0], ZEROS[:0], "must hold voxels"),
        (np.uint8(0), np.uint8(0), "must hold voxels"),
        ([[0]], ZEROS, "truth must be an array"),
    ],
)
def test_class_metrics__refuses_what_it_cannot_count(truth, prediction, message):
    with pytest.raises(InputError, match=message):
        class_metrics(truth, prediction, LABEL_NAMES)


@pytest.mark.parametrize(
    "labels",
    [{}, {"crystal": -1}, {"crystal": 256}, {"crystal": 1.0}, {"crystal": True}, {"a": 1, "b": 1}],
)
def test_class_metrics__refuses_odd_numbers_of_classes(labels):
    with pytest.raises(InputError, match="value of its own from 0 to 255"):
        class_metrics(ZEROS, ZEROS, labels)


def test_class_metrics__refuses_a_background_that_is_not_zero():
    with pytest.raises(InputError, match="background 0"):
        class_metrics(ZEROS, ZEROS, {"background": 1})


def test_check_class_names__refuses_gaps_and_another_background():
    check_class_names(LABEL_NAMES)
    with pytest.raises(InputError, match="without gaps"):
        check_class_names({"background": 0, "crystal": 2})
    with pytest.raises(InputError, match="label 0 'background'"):
        check_class_names({"air": 0, "crystal": 1})
