"""Comparison of factors by hand-made numbers, and its picture."""

import io

import numpy as np
import pytest
from PIL import Image

from tomoforge.absorption.compare import compare_factors
from tomoforge.absorption.pictures import factor_histograms
from tomoforge.errors import InputError


def test_compare_factors__hand_made_numbers():
    got = compare_factors(np.array([0.5, 0.4, 0.8, 0.2]), np.array([0.55, 0.36, 0.8, 0.24]))
    # Relative differences +10, −10, 0 and +20 %.
    assert got.count == 4
    assert got.mean_absolute == pytest.approx(0.1, rel=1e-12)
    assert got.largest == pytest.approx(0.2, rel=1e-12)
    assert got.mean_signed == pytest.approx(0.05, rel=1e-12)
    assert got.rms == pytest.approx(np.sqrt(0.015), rel=1e-12)
    assert got.relative_spread == pytest.approx(np.sqrt(0.015 - 0.0025), rel=1e-12)
    want = np.corrcoef([0.5, 0.4, 0.8, 0.2], [0.55, 0.36, 0.8, 0.24])[0, 1]
    assert got.correlation == pytest.approx(want, rel=1e-12)


def test_compare_factors__equal_sets_differ_by_nothing():
    a = np.linspace(0.1, 0.9, 9)
    got = compare_factors(a, a)
    assert (got.mean_absolute, got.largest, got.rms) == (0, 0, 0)
    assert got.correlation == pytest.approx(1, abs=1e-12)


def test_compare_factors__a_common_scale_leaves_no_spread():
    a = np.linspace(0.1, 0.9, 9)
    got = compare_factors(a, 0.97 * a)
    assert got.mean_signed == pytest.approx(-0.03, rel=1e-9)
    assert got.relative_spread < 1e-8  # the root of a difference of rounding


def test_compare_factors__correlation_of_a_constant_is_not_a_number():
    assert np.isnan(compare_factors(np.full(3, 0.3), np.array([0.1, 0.2, 0.3])).correlation)


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([], [], "equally long"),
        ([0.5], [0.5, 0.6], "equally long"),
        ([[0.5]], [[0.5]], "equally long"),
        ([0.5, 0.0], [0.5, 0.5], "truth must lie"),
        ([0.5, 0.5], [0.5, 1.5], "is it 1/A"),
        ([0.5, 0.5], [0.5, np.nan], "predicted must lie"),
    ],
)
def test_compare_factors__refuses(truth, predicted, message):
    with pytest.raises(InputError, match=message):
        compare_factors(np.array(truth), np.array(predicted))
    with pytest.raises(InputError, match=message):
        factor_histograms(np.array(truth), np.array(predicted))


def test_factor_histograms__is_a_png_with_equal_bytes_for_equal_numbers():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.2, 0.8, 500)
    predicted = truth * rng.normal(1, 0.02, 500)
    first, second = (factor_histograms(truth, predicted) for _ in "ab")
    assert first == second
    picture = Image.open(io.BytesIO(first))
    picture.load()
    assert picture.format == "PNG"
    assert not {"Software", "Creation Time"} & set(picture.info)
    assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 10  # not blank


def test_factor_histograms__constant_and_single_factors_are_drawn():
    assert factor_histograms(np.array([0.5]), np.array([0.5]))
    assert factor_histograms(np.full(10, 0.4), np.full(10, 0.4))


def test_factor_histograms__refuses_no_bins():
    with pytest.raises(InputError, match="bins"):
        factor_histograms(np.array([0.5]), np.array([0.5]), bins=0)
