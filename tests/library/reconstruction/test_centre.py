"""The rotation axis: forged scans with a known axis, and the real scan whose default search fails."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.library.reconstruction.phantoms import disc_sinogram
from tomoforge.errors import InputError
from tomoforge.geometry import uniform_angles
from tomoforge.reconstruction.centre import (
    choose_rows,
    find_centre,
    find_integrals_centre,
    opposite_pairs,
    pair_centre,
)
from tomoforge.scan import Scan


def stack(n: int, angles: np.ndarray, centre: float, noise: float = 0.01) -> np.ndarray:
    """(angle, 6, x) line integrals of a crystal-like sample, a little different in each row; row 0 is air."""
    rng = np.random.default_rng(7)
    rows = [np.zeros((angles.size, n), np.float32)]
    for row in range(1, 6):
        discs = [
            (0.05 * n, 0.02 * n, 0.25 * n, 1 / n),
            (-0.1 * n, 0.05 * n, 0.06 * n, (2 + 0.3 * row) / n),
            (0.1 * n, (0.02 * row - 0.1) * n, 0.04 * n, 3 / n),
        ]
        rows.append(disc_sinogram(n, angles, centre, discs, fine=4))
    return np.stack(rows, axis=1) + rng.normal(0, noise, (angles.size, 6, n)).astype(np.float32)


@pytest.mark.parametrize("offset", [0.0, 0.5, 6.0, -7.5])
@pytest.mark.parametrize("n", [128, 129])
def test_find_centre__finds_the_axis_of_a_half_turn(n: int, offset: float) -> None:
    angles = uniform_angles(90)
    centre = (n - 1) / 2 + offset
    found = find_integrals_centre(stack(n, angles, centre), angles, rows=3)
    assert found.centre == pytest.approx(centre, abs=0.25)  # the agreed quarter of a pixel
    assert found.agreed
    assert 0 not in found.rows  # air has no say


def test_find_centre__uses_half_of_a_full_turn_and_its_opposite_pairs() -> None:
    angles = uniform_angles(180, 2 * np.pi)
    order = np.random.default_rng(0).permutation(180)
    found = find_integrals_centre(stack(128, angles, 67.5)[order], angles[order], rows=2)
    assert found.centre == pytest.approx(67.5, abs=0.25)
    assert found.opposite == pytest.approx(67.5, abs=0.25)
    assert found.agreed


def test_find_centre__a_sample_outside_the_bounds_is_flagged() -> None:
    angles = np.linspace(0, np.pi, 91)
    found = find_integrals_centre(stack(128, angles, 80.0), angles, bounds=(55.0, 70.0), rows=2)
    assert not found.agreed


def test_find_centre__rows_that_disagree_are_flagged() -> None:
    angles = uniform_angles(90)
    mixed = stack(128, angles, 60.0)
    mixed[:, 3:] = stack(128, angles, 70.0)[:, 3:]
    found = find_integrals_centre(mixed, angles, rows=(1, 2, 4, 5))
    assert found.spread > 5
    assert not found.agreed


def test_pair_centre__is_exact_to_a_tenth_between_half_pixels() -> None:
    for centre in (60.0, 63.5, 66.3):
        frames = stack(128, np.array([0.3, 0.3 + np.pi]), centre, noise=0.002)
        assert pair_centre(*frames, (50.0, 80.0)) == pytest.approx(centre, abs=0.1)


def test_opposite_pairs__are_half_a_turn_apart() -> None:
    angles = np.random.default_rng(2).permutation(uniform_angles(40, 2 * np.pi))
    pairs = opposite_pairs(angles)
    assert len(pairs) == 5
    assert all(angles[j] - angles[i] == pytest.approx(np.pi) for i, j in pairs)
    assert opposite_pairs(uniform_angles(40)) == []
    assert opposite_pairs(np.linspace(0, np.pi, 41)) == [(0, 40)]


def test_choose_rows__takes_the_most_contrasted_of_each_band() -> None:
    values = np.zeros((3, 8, 5), np.float32)
    for row, level in ((1, 0.5), (2, 4.0), (5, 3.0), (7, 0.1)):
        values[:, row, 2] = level
    assert choose_rows(values, 2) == (2, 5)
    assert choose_rows(values, 4) == (2, 5)  # bands (0, 1) and (6, 7) hold too little


def test_find_centre__refuses_with_the_reason() -> None:
    angles = uniform_angles(90)
    values = np.zeros((90, 2, 32), np.float32)
    with pytest.raises(InputError, match="half a turn"):
        find_integrals_centre(values, angles / 2)
    with pytest.raises(InputError, match="bounds must be columns"):
        find_integrals_centre(values, angles, bounds=(20.0, 10.0))
    with pytest.raises(InputError, match="rows must be detector rows"):
        find_integrals_centre(values, angles, rows=[2])


def test_find_centre__real_scan_needs_its_bounds(shared_data: Path) -> None:
    with h5py.File(shared_data / "scans" / "diamond_24737.nxs") as file:
        entry = file["entry/tomo_entry"]
        frames, keys = entry["data/data"][()], entry["data/image_key"][()]
        angles = np.radians(entry["data/rotation_angle"][()])
    scan = Scan(frames[keys == 0], frames[keys == 1], frames[keys == 2], angles[keys == 0], 20.0, 5e-6)
    found = find_centre(scan)
    assert 85.5 <= found.centre <= 86.0
    assert found.agreed
    assert found.opposite == pytest.approx(85.75, abs=0.5)
    assert found.centre == find_centre(scan, rows=found.rows).centre
