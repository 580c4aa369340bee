"""Directions are orthonormal, turn with the angle and agree with the formulas of the module's text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomoforge.errors import InputError
from tomoforge.geometry import ScanGeometry, beam_direction, detector_axis, uniform_angles

ANGLES = st.floats(-10, 10)
ROUNDING = 1e-14  # products of sines and cosines in float64


@given(angle=ANGLES)
def test_directions__orthonormal_and_right_handed(angle: float) -> None:
    u, w = detector_axis(angle)[::-1], beam_direction(angle)[::-1]  # to (x, y, z)
    z = np.array([0.0, 0.0, 1.0])
    np.testing.assert_allclose([u @ u, w @ w, u @ w, u @ z, w @ z], [1, 1, 0, 0, 0], atol=ROUNDING)
    np.testing.assert_allclose(np.cross(u, w), z, atol=ROUNDING)


@given(angle=ANGLES, x=st.floats(-1, 1), y=st.floats(-1, 1))
def test_directions__give_detector_coordinate_and_depth(angle: float, x: float, y: float) -> None:
    point = np.array([0.3, y, x])  # array order; z falls on neither
    u = x * np.cos(angle) + y * np.sin(angle)
    w = -x * np.sin(angle) + y * np.cos(angle)
    assert point @ detector_axis(angle) == pytest.approx(u, abs=ROUNDING)
    assert point @ beam_direction(angle) == pytest.approx(w, abs=ROUNDING)


def test_directions__at_zero_and_a_quarter_turn() -> None:
    np.testing.assert_array_equal(beam_direction(0.0), [0, 1, 0])
    np.testing.assert_array_equal(detector_axis(0.0), [0, 0, 1])
    np.testing.assert_allclose(beam_direction(np.pi / 2), [0, 0, -1], atol=ROUNDING)
    np.testing.assert_allclose(detector_axis(np.pi / 2), [0, 1, 0], atol=ROUNDING)


def test_uniform_angles__even_and_without_the_end() -> None:
    np.testing.assert_array_equal(uniform_angles(4), np.array([0, 1, 2, 3]) * np.pi / 4)
    np.testing.assert_allclose(np.diff(uniform_angles(7, -2 * np.pi)), -2 * np.pi / 7, rtol=1e-14)


@pytest.mark.parametrize(("count", "arc", "name"), [(0, np.pi, "count"), (4, 0.0, "arc"), (4, np.nan, "arc")])
def test_uniform_angles__refuses(count: int, arc: float, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be"):
        uniform_angles(count, arc)


def test_scan_geometry__centre_column() -> None:
    geometry = ScanGeometry(np.array([0.0]), 1e-6)
    assert (geometry.centre_column(8), geometry.centre_column(9)) == (3.5, 4.0)
    assert ScanGeometry(np.array([0.0]), 1e-6, rotation_centre=2.25).centre_column(8) == 2.25


@pytest.mark.parametrize(
    ("angles", "pixel_size", "distance", "name"),
    [
        ([], 1e-6, 0.0, "angles"),
        ([[0.0]], 1e-6, 0.0, "angles"),
        ([0.0, np.nan], 1e-6, 0.0, "angles .* 1 not finite"),
        ([0.0], 0.0, 0.0, "pixel_size"),
        ([0.0], np.inf, 0.0, "pixel_size"),
        ([0.0], 1e-6, -1.0, "propagation_distance"),
        ([0.0], 1e-6, np.nan, "propagation_distance"),
    ],
)
def test_scan_geometry__refuses(angles: list, pixel_size: float, distance: float, name: str) -> None:
    with pytest.raises(InputError, match=name):
        ScanGeometry(np.array(angles), pixel_size, distance)
