"""Full turns and half acquisition against an ordinary scan of the same discs."""

import numpy as np
import pytest

from tests.library.reconstruction.phantoms import disc_sinogram, within
from tomoforge.errors import InputError
from tomoforge.geometry import uniform_angles
from tomoforge.reconstruction import fbp
from tomoforge.reconstruction.arcs import (
    full_turn_kind,
    opposite_halves,
    stitch_half_acquisition,
    turn_kind,
    turn_span,
)
from tomoforge.scan import Scan

WIDE, NARROW = 96, 60
DISCS = [(0.0, 0.0, 38.0, 1.0), (22.0, 10.0, 8.0, 0.5), (-16.0, 14.0, 6.0, -0.6)]


def narrow(angles: np.ndarray, centre: float) -> np.ndarray:
    """(angle, 2, x) line integrals on a detector too narrow for the sample."""
    return np.repeat(disc_sinogram(NARROW, angles, centre, DISCS)[:, np.newaxis], 2, axis=1)


@pytest.mark.parametrize("centre", [10.0, 12.5, 48.2])
@pytest.mark.parametrize("count", [240, 241])
def test_stitch__gives_the_mu_of_an_ordinary_scan(centre: float, count: int) -> None:
    turn = uniform_angles(count, 2 * np.pi)
    wide, angles, middle = stitch_half_acquisition(narrow(turn, centre), turn, centre)
    half = uniform_angles(120)
    ordinary = fbp(disc_sinogram(WIDE, half, (WIDE - 1) / 2, DISCS)[:, np.newaxis], half, 1.0)[0]
    stitched = fbp(wide, angles, 1.0, middle)[0]
    # Both are centred on the axis.
    size, n = stitched.shape[0], WIDE
    for x, y, radius, _ in DISCS:
        level = stitched[within(size, x, y, radius - 3)].mean()
        # The agreed 1 % of the sample's µ of 1.
        assert level == pytest.approx(ordinary[within(n, x, y, radius - 3)].mean(), abs=0.01)
    assert np.all(np.diff(angles) > 0)
    assert angles[-1] - angles[0] < np.pi


def test_stitch__order_and_direction_of_the_angles_do_not_matter() -> None:
    turn = uniform_angles(120, 2 * np.pi)
    expected = stitch_half_acquisition(narrow(turn, 12.5), turn, 12.5)
    order = np.random.default_rng(3).permutation(120)
    shuffled = stitch_half_acquisition(narrow(turn, 12.5)[order], turn[order], 12.5)
    np.testing.assert_array_equal(shuffled[0], expected[0])
    assert shuffled[2] == expected[2]


def test_opposite_halves__interpolates_between_uneven_angles() -> None:
    turned = np.sort(np.random.default_rng(20).uniform(0, 2 * np.pi, 80))
    turned -= turned[0]
    ramp = turned.astype(np.float32)[:, np.newaxis, np.newaxis]
    first, second = opposite_halves(ramp, turned)
    inside = first < turned[-1] - np.pi  # beyond, the last angle and the first are the neighbours
    np.testing.assert_allclose((second - first)[inside], np.pi, atol=1e-5)  # single precision


def test_stitch__a_row_does_not_depend_on_the_rows_beside_it() -> None:
    turn = uniform_angles(41, 2 * np.pi)
    values = np.random.default_rng(4).normal(size=(41, 5, 30)).astype(np.float32)
    whole = stitch_half_acquisition(values, turn, 7.3)[0]
    for row in range(5):
        assert stitch_half_acquisition(values[:, row : row + 1], turn, 7.3)[0].tobytes() == (
            whole[:, row : row + 1].tobytes()
        )


def test_stitch__a_bright_voxel_lands_where_it_must() -> None:
    turn = uniform_angles(240, 2 * np.pi)
    spot = [(30.0, -12.0, 2.0, 1.0)]
    wide, angles, middle = stitch_half_acquisition(
        disc_sinogram(NARROW, turn, 14.0, spot)[:, np.newaxis], turn, 14.0
    )
    image = fbp(wide, angles, 1.0, middle)[0]
    row, column = np.unravel_index(np.argmax(image), image.shape)
    half = (image.shape[0] - 1) / 2
    assert (column - half, row - half) == (pytest.approx(30, abs=1), pytest.approx(-12, abs=1))


def test_turn_kind__goes_by_arc_and_axis() -> None:
    assert turn_kind(uniform_angles(90), 100, 10.0) == "half turn"
    assert turn_kind(uniform_angles(90, 2 * np.pi), 100, 51.0) == "full turn"
    assert turn_kind(-uniform_angles(90, 2 * np.pi), 100, 90.0) == "half acquisition"
    empty = np.empty((0, 2, 100))
    scan = Scan(np.ones((90, 2, 100)), empty, empty, uniform_angles(90, 2 * np.pi), 10.0, 1e-6)
    assert full_turn_kind(scan, 10.0) == "half acquisition"
    assert turn_span(uniform_angles(90, 2 * np.pi)) == pytest.approx(2 * np.pi)


def test_stitch__refuses_with_the_reason() -> None:
    half = uniform_angles(30)
    with pytest.raises(InputError, match="full turn"):
        stitch_half_acquisition(np.zeros((30, 1, 40), np.float32), half, 5.0)
    with pytest.raises(InputError, match="both halves"):
        stitch_half_acquisition(np.zeros((30, 1, 40), np.float32), 2 * half, 0.5)
