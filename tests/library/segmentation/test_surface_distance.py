"""Surface distances against closed forms, distance transforms and symmetries."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError
from tomoforge.segmentation.surface_distance import surface_distances, surface_voxels, symmetric_distances
from tomoforge.volumes import LABEL_NAMES

VOXEL = 0.5e-6  # [m]
CRYSTAL = {"crystal": 1}
ROUNDING = 1e-12  # sums and means of a few thousand float64


def both(truth: np.ndarray, prediction: np.ndarray, voxel_size: float = VOXEL) -> tuple[float, float]:
    """Mean and 95 % distance of label 1 [m]."""
    found = surface_distances(truth, prediction, CRYSTAL, voxel_size).loc["crystal"]
    return found["mean_surface_distance"], found["surface_distance_95"]


def box(shape: tuple[int, int, int], *ranges: tuple[int, int]) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(*r) for r in ranges)] = 1
    return labels


def ball(radius: float, size: int = 48) -> np.ndarray:
    z, y, x = np.meshgrid(*[np.arange(size) - (size - 1) / 2] * 3, indexing="ij", sparse=True)
    return (z**2 + y**2 + x**2 < radius**2).astype(np.uint8)


def by_distance_transform(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The distances of label 1 once more, by another way to find surfaces and another to measure [voxels]."""
    edges = [m & ~ndimage.binary_erosion(m, border_value=1) for m in (truth == 1, prediction == 1)]
    there, back = (ndimage.distance_transform_edt(~edge) for edge in edges)
    return np.concatenate([back[edges[0]], there[edges[1]]])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_surface_distances__plate_through_the_volume_is_off_by_its_shift(axis, shift):
    # The plate leaves the volume on four sides, where it has no surface: every distance is the shift.
    truth = np.moveaxis(box((24, 9, 10), (6, 14), (0, 9), (0, 10)), 0, axis)
    mean, high = both(truth, np.roll(truth, shift, axis))
    assert mean == pytest.approx(shift * VOXEL, rel=ROUNDING)
    assert high == pytest.approx(shift * VOXEL, rel=ROUNDING)


def test_surface_distances__shifted_cube_has_closed_form():
    # A cube of 8³ voxels, 8³ − 6³ = 296 of them on its surface, moved by one along x. What it keeps of its surface has
    # distance 0: the sides, two planes of which (the faces across x) were or become inside. Of the true surface the
    # face at low x (64 voxels) is 1 from the other; at high x its rim (28) is shared and its inside (36) is 1 away.
    truth = box((12, 12, 12), (2, 10), (2, 10), (2, 10))
    mean, high = both(truth, np.roll(truth, 1, axis=2))
    assert len(surface_voxels(truth, 1)) == 296
    assert mean == pytest.approx(VOXEL * (64 + 36) / 296, rel=ROUNDING)
    assert high == pytest.approx(VOXEL, rel=ROUNDING)


@pytest.mark.parametrize(("inner", "outer"), [(10.5, 12.5), (8.0, 15.0), (20.0, 20.5)])
def test_surface_distances__concentric_balls_are_apart_by_their_radii(inner, outer):
    mean, high = both(ball(inner), ball(outer))
    # Surface voxels lie up to one voxel within their sphere, on average alike for both: half a voxel of doubt in the
    # mean, and one at either end in the percentile.
    assert mean == pytest.approx((outer - inner) * VOXEL, abs=0.5 * VOXEL)
    assert high == pytest.approx((outer - inner) * VOXEL, abs=1.0 * VOXEL)


@pytest.mark.parametrize("seed", [0, 1])
def test_surface_distances__agree_with_a_distance_transform(seed):
    _, truth = phantom(seed, 28)
    _, prediction = phantom(seed + 10, 28)
    found = surface_distances(truth, prediction, LABEL_NAMES, VOXEL)
    for name, value in LABEL_NAMES.items():
        expected = by_distance_transform(truth == value, prediction == value) * VOXEL
        assert found.loc[name, "mean_surface_distance"] == pytest.approx(expected.mean(), rel=ROUNDING)
        assert found.loc[name, "surface_distance_95"] == pytest.approx(
            np.percentile(expected, 95), rel=ROUNDING
        )


def test_symmetric_distances__percentile_is_not_moved_by_one_stray_voxel():
    truth = box((30, 30, 30), (5, 15), (5, 15), (5, 15))
    stray = truth.copy()
    stray[28, 28, 28] = 1
    distances = symmetric_distances(surface_voxels(truth, 1), surface_voxels(stray, 1))
    assert distances.max() == pytest.approx(14 * math.sqrt(3), rel=ROUNDING)  # from corner 14 to 28
    mean, high = both(truth, stray)
    assert mean == pytest.approx(VOXEL * distances.max() / len(distances), rel=ROUNDING)
    assert high == 0


@settings(max_examples=25, deadline=None)
@given(
    corner=st.tuples(*[st.integers(2, 5)] * 3),
    size=st.tuples(*[st.integers(1, 6)] * 3),
    shift=st.tuples(*[st.integers(-2, 2)] * 3),
    voxel_size=st.floats(1e-7, 1e-5),
)
def test_surface_distances__shifted_boxes_keep_their_symmetries(corner, size, shift, voxel_size):
    shape = (14, 15, 16)
    truth = box(shape, *((a, a + n) for a, n in zip(corner, size, strict=True)))
    prediction = np.roll(truth, shift, (0, 1, 2))
    mean, high = both(truth, prediction, voxel_size)
    length = math.dist((0, 0, 0), shift) * voxel_size
    assert 0 <= mean <= length * (1 + ROUNDING) and 0 <= high <= length * (
        1 + ROUNDING
    )  # no point moved further
    assert both(prediction, truth, voxel_size) == pytest.approx((mean, high), rel=ROUNDING)
    assert both(truth[::-1, :, ::-1], prediction[::-1, :, ::-1], voxel_size) == pytest.approx(
        (mean, high), rel=1e-9
    )
    assert both(truth, prediction, 2 * voxel_size) == pytest.approx((2 * mean, 2 * high), rel=ROUNDING)
    turned = both(truth.transpose(2, 0, 1), prediction.transpose(2, 0, 1), voxel_size)
    assert turned == pytest.approx((mean, high), rel=1e-9)


@pytest.mark.parametrize("dtype", [bool, np.int16, ">i4", np.uint16])
def test_surface_distances__do_not_depend_on_the_type(dtype):
    truth, prediction = ball(8, 20), ball(6, 20)
    assert both(truth.astype(dtype), np.asfortranarray(prediction)) == both(truth, prediction)


def test_surface_distances__classes_that_are_missing_or_everywhere():
    empty, full, some = np.zeros((6, 6, 6), np.uint8), np.ones((6, 6, 6), np.uint8), ball(2, 6)
    assert np.isnan(both(empty, empty)).all()
    assert np.isnan(both(full, full)).all()
    for pair in ((empty, some), (some, empty), (full, some), (full, empty), (empty, full)):
        assert both(*pair) == (math.inf, math.inf)
    assert both(some, some) == (0, 0)


def test_surface_voxels__is_what_an_erosion_takes_away():
    _, labels = phantom(3, 20)
    for value in LABEL_NAMES.values():
        mask = labels == value
        expected = np.argwhere(mask & ~ndimage.binary_erosion(mask, border_value=1))
        np.testing.assert_array_equal(surface_voxels(labels, value), expected)


@pytest.mark.parametrize(
    ("truth", "prediction", "voxel_size", "message"),
    [
        (ball(2, 6), ball(2, 7), VOXEL, "one shape"),
        (ball(2, 6)[0], ball(2, 6)[0], VOXEL, r"\(z, y, x\) integer labels, got uint8 of shape \(6, 6\)"),
        (ball(2, 6) * np.nan, ball(2, 6), VOXEL, "truth must be .* got float64"),
        (ball(2, 6)[:0], ball(2, 6)[:0], VOXEL, "must hold voxels"),
        (ball(2, 6), ball(2, 6), 0.0, "positive metres"),
        (ball(2, 6), ball(2, 6), math.inf, "positive metres"),
    ],
)
def test_surface_distances__refuse_what_they_cannot_measure(truth, prediction, voxel_size, message):
    with pytest.raises(InputError, match=message):
        surface_distances(truth, prediction, CRYSTAL, voxel_size)
