"""The rotation axis: forged scans with a known axis, and the real scan whose default search fails."""

import numpy as np
import pytest

from tests.library.reconstruction.phantoms import disc_sinogram
from tomoforge.errors import InputError
from tomoforge.geometry import uniform_angles
from tomoforge.reconstruction import fbp, line_integrals, normalise
from tomoforge.reconstruction.centre import (
    choose_rows,
    find_centre,
    find_integrals_centre,
    try_centres,
)
from tomoforge.reconstruction.opposite import opposite_pairs, pair_centre
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


@pytest.mark.parametrize("noise", [0.01, 0.2])
@pytest.mark.parametrize("centre", [64.0, 56.5])
def test_find_centre__serves_every_order_and_direction_of_angles(centre: float, noise: float) -> None:
    golden = np.arange(180) * np.pi * (np.sqrt(5) - 1) / 2
    orders = {
        "descending": np.linspace(np.pi, 0, 91) - 1.2,
        "golden ratio, folded": np.mod(golden, np.pi),
        "golden ratio, unfolded": 2 * golden,
        "full turn": uniform_angles(181, 2 * np.pi),
        "full turn, descending": -uniform_angles(180, 2 * np.pi),
    }
    for name, angles in orders.items():
        found = find_integrals_centre(stack(128, angles, centre, noise), angles, rows=3)
        # A quarter of a pixel; Vo's steps are as large, and heavy noise costs half turns two of them.
        assert found.centre == pytest.approx(centre, abs=0.25 if noise < 0.1 or "turn" in name else 0.5), name
        assert found.agreed, name


@pytest.mark.parametrize("noise", [0.01, 0.2])
@pytest.mark.parametrize("centre", [12.0, 100.25])
def test_find_centre__half_acquisition_is_told_from_its_overlap(centre: float, noise: float) -> None:
    for count in (180, 181):
        angles = uniform_angles(count, 2 * np.pi)
        found = find_integrals_centre(stack(128, angles, centre, noise), angles, rows=3)
        assert found.centre == pytest.approx(centre, abs=0.25)
        assert found.agreed


def test_find_centre__half_acquisition_of_a_scan_and_its_try_centres() -> None:
    angles, centre = uniform_angles(120, 2 * np.pi), 20.5
    counts = np.round(20_000 * np.exp(-stack(128, angles, centre)))
    scan = Scan(counts, np.full((1, 6, 128), 20_000), np.zeros((1, 6, 128)), angles, 10.0, 1e-6)
    found = find_centre(scan, rows=2)
    assert found.centre == pytest.approx(centre, abs=0.25)
    tries = try_centres(scan, (found.centre - 3, found.centre, found.centre + 3), 2)
    assert tries.shape == (3, 128, 128)
    # The right axis gives the sharpest slice.
    sharpness = [float(np.square(np.diff(image[20:-20, 20:-20], axis=1)).sum()) for image in tries]
    assert int(np.argmax(sharpness)) == 1


def test_find_centre__rows_beside_the_beam_have_no_say() -> None:
    angles, centre = np.linspace(0, np.pi, 91), 66.0
    counts = np.round(20_000 * np.exp(-stack(128, angles, centre)))
    flats = np.full((1, 6, 128), 20_000)
    flats[:, [3, 5]] = 0
    flats[:, 4, :100] = 0
    scan = Scan(counts, flats, np.zeros((1, 6, 128)), angles, 10.0, 1e-6)
    found = find_centre(scan, rows=6)
    assert found.rows == (1, 2)
    assert found.centre == pytest.approx(centre, abs=0.25)


def test_try_centres__are_the_slices_of_fbp() -> None:
    angles = uniform_angles(60)
    counts = np.round(20_000 * np.exp(-stack(64, angles, 33.0)))
    scan = Scan(counts, np.full((1, 6, 64), 20_000), np.zeros((1, 6, 64)), angles, 10.0, 1e-6)
    tries = try_centres(scan, [32.0, 33.0], 3)
    integrals, _ = line_integrals(normalise(scan.rows(3, 4), scan.flats[:, 3:4], scan.darks[:, 3:4]))
    np.testing.assert_array_equal(tries[1], fbp(integrals, angles, 1e-6, 33.0)[0])
    with pytest.raises(InputError, match="rows must be"):
        try_centres(scan, [32.0], 9)
    with pytest.raises(InputError, match="at least one"):
        try_centres(scan, [], 3)


def test_find_centre__real_scan_needs_its_bounds(real_scan: Scan) -> None:
    found = find_centre(real_scan)
    assert 85.5 <= found.centre <= 86.0
    assert found.agreed
    assert found.opposite == pytest.approx(85.75, abs=0.5)
    assert found.centre == find_centre(real_scan, rows=found.rows).centre
