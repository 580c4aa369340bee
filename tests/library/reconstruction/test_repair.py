"""Zingers, wild pixels and dead rows: found where they are forged, nowhere else, whatever the slab."""

import numpy as np
import pytest

from tests.library.reconstruction.phantoms import disc_sinogram, scaled_discs
from tomoforge.errors import InputError, ScanError
from tomoforge.geometry import uniform_angles
from tomoforge.reconstruction.repair import (
    ZINGER_ANGLE_MARGIN,
    ZINGER_MARGIN,
    remove_reference_zingers,
    remove_zingers,
    repair_pixels,
    stand_in_rows,
    wild_pixels,
)

N, ANGLES = 96, uniform_angles(60)


def frames(noise: float = 0.01) -> np.ndarray:
    """(angle, 4, x) transmission of discs with noise."""
    discs = [(x, y, radius, value / N) for x, y, radius, value in scaled_discs(N)]
    clean = np.exp(-disc_sinogram(N, ANGLES, (N - 1) / 2 + 2, discs))[:, np.newaxis].repeat(4, axis=1)
    return (clean + np.random.default_rng(6).normal(0, noise, clean.shape)).astype(np.float32)


def test_remove_zingers__takes_flashes_and_nothing_else() -> None:
    clean = frames()
    flashes = [(0, 0, 50), (17, 1, 30), (17, 1, 31), (40, 2, 70), (59, 3, 12), (31, 0, 0), (32, 0, N - 1)]
    struck = clean.copy()
    for index in flashes:
        struck[index] += 0.6
    mended, count = remove_zingers(struck)
    assert count == len(flashes)
    changed = np.argwhere(mended != struck)
    assert sorted(map(tuple, changed)) == sorted(flashes)
    for index in flashes:
        # Between the frames beside it; half of the sample's change from angle to angle, and noise.
        assert mended[index] == pytest.approx(clean[index], abs=0.1)


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05])
def test_remove_zingers__leaves_a_clean_scan_alone(noise: float) -> None:
    values = frames(noise)
    mended, count = remove_zingers(values)
    # Of 23 000 values none is a flash; at 5 % noise one in ten thousand may look like one.
    assert count <= (2 if noise == 0.05 else 0)
    assert np.count_nonzero(mended != values) == count


def test_remove_zingers__bytes_do_not_depend_on_slab_or_batch() -> None:
    values = frames(0.03)
    struck = np.random.default_rng(8).uniform(size=values.shape) < 0.004
    values[struck] += 0.5
    whole, _ = remove_zingers(values)
    assert ZINGER_MARGIN == 0
    for row in range(4):
        assert remove_zingers(values[:, row : row + 1])[0].tobytes() == whole[:, row : row + 1].tobytes()
    for size in (1, 7, 20):
        for start in range(0, len(values), size):
            stop = min(start + size, len(values))
            low, high = max(0, start - ZINGER_ANGLE_MARGIN), min(len(values), stop + ZINGER_ANGLE_MARGIN)
            part = remove_zingers(values[low:high])[0][start - low : stop - low]
            assert part.tobytes() == whole[start:stop].tobytes()


def test_remove_reference_zingers__mends_flats_before_they_are_averaged() -> None:
    clean = np.random.default_rng(9).poisson(5000, (10, 6, 40)).astype(np.uint16)
    struck = clean.copy()
    struck[3, 2, 17] = 60000
    mended, count = remove_reference_zingers(struck)
    assert count == 1
    assert mended[3, 2, 17] == np.median(struck[:, 2, 17])
    np.testing.assert_array_equal(np.delete(mended, 3, axis=0), np.delete(clean, 3, axis=0))
    few, none = remove_reference_zingers(struck[:4])
    assert none == 0 and few.shape == (4, 6, 40)


def test_wild_pixels__finds_flickering_and_stuck_pixels_and_not_the_sample() -> None:
    values = frames()
    assert not wild_pixels(values).any()
    rng = np.random.default_rng(10)
    values[:, 1, 44] += rng.normal(0, 0.3, ANGLES.size).astype(np.float32)
    values[:, 2, 20] = 0.7
    expected = np.zeros((4, N), bool)
    expected[1, 44] = expected[2, 20] = True
    found = wild_pixels(values)
    np.testing.assert_array_equal(found, expected)
    mended = repair_pixels(values, found)
    assert (
        np.abs(mended[:, 1, 44] - frames()[:, 1, 44]).max() < 0.15
    )  # a column's width of the sample, and noise
    np.testing.assert_array_equal(mended[:, ~found], values[:, ~found])
    for row in range(4):
        np.testing.assert_array_equal(wild_pixels(values[:, row : row + 1])[0], found[row])


@pytest.mark.parametrize("noise", [0.0005, 0.005])
def test_wild_pixels__edges_and_opaque_samples_are_not_wild(noise: float) -> None:
    rng = np.random.default_rng(19)
    for discs in (
        [(2.0, 1.0, 30.0, 0.05)],
        [(1.0, 0.5, 30.0, 1.0)],
        [(20.0, 10.0, 3.0, 2.0), (0.0, 0.0, 1.0, 1.0)],
    ):
        clean = np.exp(-disc_sinogram(N, ANGLES, (N - 1) / 2, discs))[:, np.newaxis]
        # Shot noise: still where nothing comes through.
        values = clean + rng.normal(0, noise, clean.shape) * np.sqrt(clean)
        assert not wild_pixels(values.astype(np.float32)).any(), discs


def test_stand_in_rows__a_dead_row_reads_the_nearest_of_the_whole_detector() -> None:
    flats, darks = np.full((2, 6, 5), 100.0), np.zeros((2, 6, 5))
    flats[:, [0, 3, 4]] = 0
    assert stand_in_rows(flats, darks).tolist() == [1, 1, 2, 2, 5, 5]
    with pytest.raises(ScanError, match="swapped"):
        stand_in_rows(darks, flats)


def test_repair__refuses_with_the_reason() -> None:
    with pytest.raises(InputError, match=r"\(angle, y, x\)"):
        remove_zingers(np.zeros((4, 5), np.float32))
    with pytest.raises(InputError, match="least and sigmas"):
        remove_zingers(frames(), sigmas=0)
    with pytest.raises(InputError, match="wild must be"):
        repair_pixels(frames(), np.zeros((2, 2), bool))
    with pytest.raises(ScanError, match="no usable pixel"):
        repair_pixels(frames(), np.ones((4, N), bool))
