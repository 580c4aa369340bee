"""Counts to line integrals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomoforge.errors import InputError, ScanError
from tomoforge.reconstruction.normalise import bad_pixels, line_integrals, normalise


def references(dtype: str = "uint16", shape: tuple[int, int] = (6, 7)) -> tuple[np.ndarray, np.ndarray]:
    return np.full((3, *shape), 1100, dtype), np.full((2, *shape), 100, dtype)


@given(st.sampled_from(["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]))
@settings(max_examples=7, deadline=None)
def test_normalise__is_the_ratio_for_every_dtype(dtype: str) -> None:
    flats, darks = np.full((3, 4, 5), 120, dtype), np.full((2, 4, 5), 20, dtype)
    # 10 lies below the dark: in unsigned arithmetic it would wrap to a huge transmission.
    projections = np.array([10, 20, 70, 120], dtype)[:, None, None] * np.ones((4, 5), dtype)
    transmission = normalise(projections, flats, darks)
    assert transmission.dtype == np.float32
    np.testing.assert_allclose(transmission[:, 0, 0], [-0.1, 0.0, 0.5, 1.0], atol=1e-6)  # float32


def test_normalise__there_and_back_recovers_line_integrals() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 3, (4, 6, 7))
    flats, darks = rng.uniform(900, 1100, (5, 6, 7)), rng.uniform(90, 110, (5, 6, 7))
    counts = np.exp(-truth) * (flats.mean(0) - darks.mean(0)) + darks.mean(0)
    values, clipped = line_integrals(normalise(counts, flats, darks))
    assert clipped == 0
    # float32 counts of 150 over a dark of 100: 2e-7 · 3 of relative error in the smallest signal.
    np.testing.assert_allclose(values, truth, atol=1e-5)


def test_normalise__repairs_dead_pixels_from_neighbours() -> None:
    flats, darks = references()
    projections = np.tile(np.arange(100, 800, 100, dtype=np.uint16), (2, 6, 1))
    flats[:, 0, 0] = 0  # dead corner
    flats[:, 3, 3] = 100  # stuck at the dark
    transmission = normalise(projections, flats, darks)
    assert np.argwhere(bad_pixels(flats, darks)).tolist() == [[0, 0], [3, 3]]
    # A ramp along x is interpolated exactly; at the edge the neighbour is held.
    assert transmission[0, 3, 3] == pytest.approx(0.3)
    assert transmission[0, 0, 0] == pytest.approx(0.1)


def test_normalise__a_row_does_not_depend_on_the_rows_beside_it() -> None:
    rng = np.random.default_rng(8)
    flats, darks = rng.uniform(900, 1100, (5, 6, 7)), rng.uniform(90, 110, (5, 6, 7))
    flats[:, 2, 3] = flats[:, 3, 4:6] = 0
    projections = rng.uniform(100, 900, (4, 6, 7))
    projections[1, 2, 4] = np.nan
    whole = normalise(projections, flats, darks)
    for row in range(6):
        band = slice(row, row + 1)
        alone = normalise(projections[:, band], flats[:, band], darks[:, band])
        assert alone.tobytes() == np.ascontiguousarray(whole[:, band]).tobytes()


def test_normalise__a_dead_row_copies_the_nearest() -> None:
    flats, darks = references()
    flats[:, 0] = 0
    projections = np.tile(np.arange(100, 700, 100, dtype=np.uint16)[:, np.newaxis], (2, 1, 7))
    np.testing.assert_array_equal(normalise(projections, flats, darks)[:, 0], np.float32(0.1))


def test_normalise__repairs_a_cluster_wider_than_its_neighbours() -> None:
    flats, darks = references(shape=(9, 9))
    flats[:, 2:7, 2:7] = 0
    transmission = normalise(np.full((1, 9, 9), 600, np.uint16), flats, darks)
    np.testing.assert_allclose(transmission, 0.5)


def test_normalise__repairs_values_that_are_not_finite_in_their_own_frame() -> None:
    flats, darks = references("float32")
    flats[:, 0, 0] = np.nan
    projections = np.stack([np.full((6, 7), 600.0), np.full((6, 7), 1100.0), np.full((6, 7), 350.0)])
    projections[1, 2, 2] = np.inf
    projections[2, 2:4, 2:4] = np.nan
    transmission = normalise(projections, flats, darks)
    np.testing.assert_allclose(transmission[:, 2, 2], [0.5, 1.0, 0.25])
    np.testing.assert_allclose(transmission[:, 0, 0], [0.5, 1.0, 0.25])


def test_normalise__does_not_touch_its_arguments() -> None:
    flats, darks = references("float32")
    projections = np.full((2, 6, 7), 600, np.float32)
    flats[:, 1, 1] = 0
    before = projections.copy(), flats.copy(), darks.copy()
    normalise(projections, flats, darks)
    for array, copy in zip((projections, flats, darks), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_normalise__without_darks_or_flats_says_what_it_assumes(caplog: pytest.LogCaptureFixture) -> None:
    none = np.empty((0, 6, 7), np.uint16)
    flats = np.full((1, 6, 7), 1000, np.uint16)
    np.testing.assert_allclose(normalise(np.full((1, 6, 7), 500, np.uint16), flats, none), 0.5)
    assert "there are no darks" in caplog.text
    np.testing.assert_allclose(normalise(np.full((1, 6, 7), 0.25), none, none), 0.25)
    assert "there are no flats" in caplog.text
    with pytest.raises(ScanError, match="not transmission"):
        normalise(np.full((1, 6, 7), 500, np.uint16), none, none)


def test_normalise__refuses_swapped_references() -> None:
    flats, darks = references()
    with pytest.raises(ScanError, match="swapped"):
        normalise(np.full((1, 6, 7), 500, np.uint16), darks, flats)


def test_normalise__refuses_a_frame_without_a_finite_pixel() -> None:
    flats, darks = references()
    with pytest.raises(ScanError, match="projection 1 has no usable pixel"):
        normalise(np.stack([np.ones((6, 7)), np.full((6, 7), np.nan)]), flats, darks)


@pytest.mark.parametrize("role", ["flats", "darks"])
def test_normalise__names_the_argument_whose_shape_does_not_fit(role: str) -> None:
    flats, darks = references()
    arguments = {"flats": flats, "darks": darks} | {role: np.ones((2, 3, 7), np.uint16)}
    with pytest.raises(InputError, match=rf"{role} must be \(n, y, x\) matching projections \(6, 7\)"):
        normalise(np.ones((1, 6, 7), np.uint16), **arguments)


def test_line_integrals__counts_what_it_clips() -> None:
    values, clipped = line_integrals(np.array([[[1.0, 0.5, 0.0, -0.2, 1e-5]]]), floor=1e-3)
    assert clipped == 3
    np.testing.assert_allclose(values[0, 0], [0, np.log(2), *[-np.log(1e-3)] * 3], rtol=1e-6)
    assert values.dtype == np.float32


def test_line_integrals__refuses_nonsense() -> None:
    with pytest.raises(InputError, match="floor"):
        line_integrals(np.ones((1, 1, 1)), floor=0.0)
    with pytest.raises(InputError, match="not finite"):
        line_integrals(np.full((1, 1, 2), np.nan))
