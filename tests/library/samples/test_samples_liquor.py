"""Wetting relaxation against the shapes that capillarity dictates."""

import numpy as np
import pytest

from tomoforge.errors import InputError
from tomoforge.samples.liquor import largest_component, relax_wetting, upsample_liquor


def coordinates(n):
    axis = np.arange(n) - (n - 1) / 2
    return np.meshgrid(axis, axis, axis, indexing="ij")


def test_relax_wetting__a_free_cube_becomes_a_ball_of_the_same_volume():
    z, y, x = coordinates(40)
    cube = np.maximum(np.maximum(abs(z), abs(y)), abs(x)) < 9
    relaxed, level, _ = relax_wetting(cube, np.zeros_like(cube), 0.5, 3.0, 60)
    assert relaxed.sum() == cube.sum()
    radius = (3 * cube.sum() / (4 * np.pi)) ** (1 / 3)
    distance = np.sqrt(x**2 + y**2 + z**2)
    # Within about half a voxel of the sphere, the grid's own resolution.
    assert distance[relaxed].max() < radius + 0.8
    assert distance[~relaxed].min() > radius - 0.8
    assert ((level >= 0) == relaxed).mean() > 0.999


@pytest.mark.parametrize("angle_deg", [60.0, 90.0, 120.0])
def test_relax_wetting__a_drop_on_a_plane_is_the_cap_of_its_contact_angle(angle_deg):
    n, floor = 52, 16
    _, y, x = coordinates(n)
    index = np.arange(n)[:, None, None] * np.ones((1, n, n))
    solid = index < floor
    drop = (index >= floor) & (index < floor + 11) & (abs(x) < 9) & (abs(y) < 9)
    relaxed, level, _ = relax_wetting(drop, solid, np.radians(angle_deg), 2.5, 300)
    # Cap of volume V and angle θ: V = π R³ (2 − 3 cos θ + cos³ θ)/3, height R (1 − cos θ).
    c = np.cos(np.radians(angle_deg))
    radius = (3 * drop.sum() / (np.pi * (2 - 3 * c + c**3))) ** (1 / 3)
    column = level[floor:, n // 2 - 1 : n // 2 + 1, n // 2 - 1 : n // 2 + 1].mean(axis=(1, 2))
    top = int(np.flatnonzero(column >= 0).max())
    height = top + column[top] / (column[top] - column[top + 1]) + 0.5
    # Threshold dynamics carries a contact-line error of order σ; 8 % of 10–19 voxels is about one
    # voxel.
    assert height == pytest.approx(radius * (1 - c), rel=0.08)
    assert not (relaxed & solid).any()


def test_relax_wetting__smaller_angle_wets_more_of_the_solid():
    z, y, x = coordinates(40)
    solid = x**2 + y**2 + z**2 < 9**2
    drop = ((x - 11) ** 2 + y**2 + z**2 < 7**2) & ~solid
    shell = (x**2 + y**2 + z**2 < 10.5**2) & ~solid
    wetted = [(relax_wetting(drop, solid, np.radians(a), 2.0, 80)[0] & shell).sum() for a in (20, 70, 130)]
    assert wetted[0] > wetted[1] > wetted[2]


def test_relax_wetting__is_repeatable_and_ignores_liquor_in_the_solid():
    z, y, x = coordinates(24)
    solid, drop = z < -4, (abs(x) < 5) & (abs(y) < 5) & (z < 5)
    first = relax_wetting(drop, solid, 0.4, 1.5, 10)
    second = relax_wetting(drop & ~solid, solid, 0.4, 1.5, 10)
    assert np.array_equal(first[1], second[1])
    assert first[0].sum() == (drop & ~solid).sum()


@pytest.mark.parametrize("shape", [(48, 48, 48), (40, 48, 31)])
def test_upsample_liquor__a_ball_stays_a_ball_in_the_middle(shape):
    coarseness = 1.5
    coarse = tuple(int(np.ceil(n / coarseness)) for n in shape)
    middle = [(np.arange(n) - (n - 1) / 2) * coarseness for n in coarse]
    z, y, x = np.meshgrid(*middle, indexing="ij")
    radius = 11.0
    level = (radius - np.sqrt(x**2 + y**2 + z**2)).astype(np.float32)
    volume = round(4 / 3 * np.pi * radius**3)
    fine = upsample_liquor(level, np.zeros(shape, bool), coarseness, volume)
    assert fine.sum() == volume
    # Centred to a twentieth of a voxel, whatever the parity of the two grids.
    assert np.argwhere(fine).mean(axis=0) == pytest.approx((np.array(shape) - 1) / 2, abs=0.05)


def test_largest_component__drops_the_splashes():
    mask = np.zeros((8, 8, 8), bool)
    mask[1:4, 1:4, 1:4] = mask[6, 6, 6] = True
    assert largest_component(mask).sum() == 27
    assert not largest_component(np.zeros((2, 2, 2), bool)).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"solid": np.zeros((4, 4, 5), bool)}, "one shape"),
        ({"contact_angle": 20.0}, "contact_angle"),
        ({"kernel_width": 0.2}, "kernel_width"),
        ({"iterations": 0}, "iterations"),
        ({"liquor": np.zeros((4, 4, 4), bool)}, "liquor"),
    ],
)
def test_relax_wetting__bad_input_is_refused_by_name(change, message):
    liquor = np.zeros((4, 4, 4), bool)
    liquor[1, 1, 1] = True
    given = {"liquor": liquor, "solid": np.zeros((4, 4, 4), bool), "contact_angle": 0.5}
    with pytest.raises(InputError, match=message):
        relax_wetting(**{**given, "kernel_width": 2.0, "iterations": 3, **change})
