"""A leaning axis: balls, whose shadows are discs of known chord at any lean."""

import logging

import numpy as np
import pytest

from tomoforge.errors import InputError
from tomoforge.reconstruction.tilt import find_tilt, pair_slope, untilt
from tomoforge.scan import Scan

N, CENTRE = 96, 49.5
MIDDLE = (N - 1) / 2
# (x, y, z, radius, µ) [pixels] at several heights, off the axis
BALLS = [(14, 5, -34, 9, 0.02), (-18, 10, -16, 10, 0.02), (8, -20, 0, 11, 0.02), (20, 14, 18, 9, 0.03),
         (-10, -16, 35, 9, 0.02), (0, 0, 0, 6, 0.04)]  # fmt: skip


def frames(angles: np.ndarray, tilt: float) -> np.ndarray:
    """(angle, y, x) line integrals of the balls; a straight (z, u) is seen at (z cos − u sin, z sin + u cos)."""
    row = np.arange(N)[:, np.newaxis] - MIDDLE
    column = np.arange(N) - CENTRE
    seen = np.zeros((angles.size, N, N))
    for x, y, z, radius, mu in BALLS:
        for index, angle in enumerate(angles):
            u = x * np.cos(angle) + y * np.sin(angle)
            down, across = z * np.cos(tilt) - u * np.sin(tilt), z * np.sin(tilt) + u * np.cos(tilt)
            square = radius**2 - (row - down) ** 2 - (column - across) ** 2
            seen[index] += mu * 2 * np.sqrt(np.maximum(square, 0))
    return seen.astype(np.float32)


def scan(angles: np.ndarray, tilt: float) -> Scan:
    counts = 10_000 * np.exp(-frames(angles, tilt))
    noisy = np.random.default_rng(11).poisson(counts).astype(np.uint16)
    return Scan(noisy, np.full((1, N, N), 10_000), np.zeros((1, N, N)), angles, 10.0, 1e-6)


@pytest.mark.parametrize("tilt", [0.0, 0.01, -0.03])
def test_find_tilt__gives_back_the_lean(tilt: float) -> None:
    # A tenth of a pixel over the height of 96 rows.
    assert find_tilt(scan(np.array([0.3, 0.3 + np.pi, 0.9, 0.9 + np.pi]), tilt)) == pytest.approx(
        tilt, abs=0.1 / 80
    )


def test_find_tilt__of_a_half_acquisition() -> None:
    angles, tilt, cut = np.linspace(0, 2 * np.pi, 12, endpoint=False), 0.02, 40
    whole = scan(angles, tilt)
    # The same frames on a detector whose edge is ten columns beside the axis.
    narrow = Scan(
        whole.projections[:, :, cut:], whole.flats[:, :, cut:], whole.darks[:, :, cut:], angles, 10.0, 1e-6
    )
    assert find_tilt(narrow) == pytest.approx(tilt, abs=0.2 / 80)  # twice the error on a fifth of the columns


def test_untilt__makes_the_leaning_frames_straight() -> None:
    angles, tilt = np.array([0.3, 0.3 + np.pi]), 0.03
    straight, leaning = frames(angles, 0.0), frames(angles, tilt)
    mended = untilt(leaning, tilt, CENTRE)
    inner = np.s_[:, 6:-6, 6:-6]
    # A spline rounds the rim of a ball, where the chord starts vertically; elsewhere it is exact to a thousandth.
    error = np.abs(mended - straight)[inner]
    assert np.sqrt(np.mean(error**2)) < 0.3 * np.sqrt(np.mean((leaning - straight)[inner] ** 2))
    assert np.median(error) < 1e-3
    assert pair_slope(mended[0], mended[1]) == pytest.approx(0, abs=0.1 / 80)


def test_untilt__a_frame_does_not_depend_on_its_batch() -> None:
    values = np.random.default_rng(12).uniform(size=(4, 20, 30)).astype(np.float32)
    whole = untilt(values, 0.02, 14.0)
    for index in range(4):
        assert untilt(values[index : index + 1], 0.02, 14.0).tobytes() == whole[index].tobytes()
    np.testing.assert_array_equal(untilt(values, 0.0, 14.0), values)


def test_find_tilt__says_when_it_cannot_tell(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert find_tilt(scan(np.array([0.0, 1.0]), 0.02)) == 0.0
    assert "half a turn apart" in caplog.text
    empty = Scan(np.full((2, 20, 20), 100), np.full((1, 20, 20), 100), np.zeros((1, 20, 20)),
                 np.array([0.0, np.pi]), 10.0, 1e-6)  # fmt: skip
    with caplog.at_level(logging.WARNING):
        assert find_tilt(empty) == 0.0
    assert "too little" in caplog.text


def test_tilt__refuses_with_the_reason() -> None:
    with pytest.raises(InputError, match="radians"):
        untilt(np.zeros((1, 8, 8), np.float32), 2.0, 4.0)
    with pytest.raises(InputError, match=r"\(angle, y, x\)"):
        untilt(np.zeros((8, 8), np.float32), 0.01, 4.0)
    with pytest.raises(InputError, match="bands"):
        find_tilt(scan(np.array([0.0, np.pi]), 0.0), bands=2)
