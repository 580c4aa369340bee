"""Air at 1 after the beam has changed: the level is found where there is air, and only there."""

import logging

import numpy as np
import pytest

from tests.library.reconstruction.phantoms import disc_sinogram
from tomoforge.errors import InputError, ScanError
from tomoforge.geometry import uniform_angles
from tomoforge.reconstruction.air import find_air, measure_air, scale_air
from tomoforge.reconstruction.normalise import normalise
from tomoforge.scan import Scan

ROWS, N, ANGLES = 12, 100, uniform_angles(40)
MIDDLE = (N - 1) / 2


def sample(radius: float, x: float = 4.0) -> np.ndarray:
    """(angle, y, x) true transmission of a disc, the same in every row."""
    row = np.exp(-disc_sinogram(N, ANGLES, MIDDLE, [(x, 2.0, radius, 1 / 40)]))
    return row[:, np.newaxis].repeat(ROWS, axis=1)


def beam() -> np.ndarray:
    """(angle, y, x) factor by which the beam changed since the flats: weaker, moving, and bent by a few percent."""
    x, y = np.linspace(-1, 1, N), np.linspace(-1, 1, ROWS)[:, np.newaxis]
    drift = np.linspace(-1, 1, ANGLES.size)[:, np.newaxis, np.newaxis]
    return 0.73 + 0.02 * drift + 0.02 * drift * x - 0.03 * x**2 + 0.02 * y


def scan(transmission: np.ndarray) -> Scan:
    counts = np.random.default_rng(13).poisson(20_000 * transmission).astype(np.uint16)
    return Scan(counts, np.full((1, ROWS, N), 20_000), np.zeros((1, ROWS, N)), ANGLES, 10.0, 1e-6)


def test_scale_air__gives_the_transmission_before_the_beam_changed() -> None:
    true = sample(25.0)
    changed = scan(true * beam())
    left, right = find_air(changed)
    assert 8 <= left <= 22 and 8 <= right <= 20  # of the 20 and more that the disc leaves
    levels = measure_air(changed, left, right)
    assert levels.median == pytest.approx(0.73, abs=0.01)
    scaled = scale_air(normalise(changed.projections, changed.flats, changed.darks), levels)
    error = scaled / true - 1
    # 1 % is the noise of a pixel at these counts; the level itself is better by the number of pixels.
    assert np.abs(error.mean(axis=(0, 1))).max() < 0.01
    assert np.abs(error.mean(axis=(0, 2))).max() < 0.005
    assert np.abs(error.mean()) < 0.003


def test_scale_air__a_row_does_not_depend_on_its_slab() -> None:
    changed = scan(sample(25.0) * beam())
    levels = measure_air(changed, 10, 10)
    transmission = normalise(changed.projections, changed.flats, changed.darks)
    whole = scale_air(transmission, levels)
    for row in range(ROWS):
        assert scale_air(transmission[:, row : row + 1], levels, row).tobytes() == (
            whole[:, row : row + 1].tobytes()
        )


def test_measure_air__one_side_gives_a_level() -> None:
    changed = scan(np.full((ANGLES.size, ROWS, N), 0.8))
    levels = measure_air(changed, 0, 6)
    np.testing.assert_allclose(levels.coefficients[:, 0], 0.8, atol=0.005)  # 72 pixels of 0.8 % each
    assert not levels.coefficients[:, [1, 3]].any()


@pytest.mark.parametrize(
    ("radius", "x", "reason"),
    [(70.0, 0.0, "less than half|at every angle"), (40.0, 12.0, "differ|at every angle")],
)
def test_find_air__a_sample_that_leaves_the_field_has_none(
    radius: float, x: float, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert find_air(scan(sample(radius, x))) == (0, 0)
    assert "no air was found" in caplog.text


def test_find_air__real_scan_has_some(real_scan: Scan) -> None:
    left, right = find_air(real_scan)
    # The capillary comes as near as 33 and 27 columns to the sides (seen in the pictures).
    assert 10 <= left <= 30 and 10 <= right <= 25
    levels = measure_air(real_scan, left, right)
    assert levels.median == pytest.approx(0.73, abs=0.01)
    top = normalise(real_scan.projections[:, :15], real_scan.flats[:, :15], real_scan.darks[:, :15])
    # The rows above the sample are air all across: the parabola from the sides is right there to 1.5 %.
    assert np.abs(np.median(scale_air(top, levels), axis=(0, 1)) - 1).max() < 0.02


def test_air__refuses_with_the_reason() -> None:
    ordinary = scan(sample(25.0))
    with pytest.raises(InputError, match="left and right"):
        measure_air(ordinary, 0, 0)
    with pytest.raises(InputError, match="left and right"):
        measure_air(ordinary, 60, 60)
    with pytest.raises(InputError, match="transmission must be"):
        scale_air(np.ones((3, 1, N), np.float32), measure_air(ordinary, 5, 5))
    with pytest.raises(ScanError, match="no air"):
        measure_air(scan(np.full((ANGLES.size, ROWS, N), 0.01)), 5, 5)
