"""Wetting relaxation against the shapes that capillarity dictates."""

import numpy as np
import pytest

from tomoforge.errors import InputError
from tomoforge.samples.liquor import Relaxed, place_bubbles, relax_wetting, sample_level, without_splashes


def coordinates(n):
    axis = np.arange(n) - (n - 1) / 2
    return np.meshgrid(axis, axis, axis, indexing="ij")


def test_relax_wetting__a_free_cube_becomes_a_ball_of_the_same_volume():
    z, y, x = coordinates(40)
    cube = np.maximum(np.maximum(abs(z), abs(y)), abs(x)) < 9
    found = relax_wetting(cube, [], 3.0, 60)
    relaxed, level = found.wet, found.level
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
    found = relax_wetting(drop, [(solid, np.radians(angle_deg))], 2.5, 300)
    relaxed, level = found.wet, found.level
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
    wetted = [
        (relax_wetting(drop, [(solid, np.radians(a))], 2.0, 80).wet & shell).sum() for a in (20, 70, 130)
    ]
    assert wetted[0] > wetted[1] > wetted[2]


def test_relax_wetting__liquor_between_two_walls_goes_to_the_one_that_it_wets():
    index = np.arange(36)[:, None, None] * np.ones((1, 30, 30))
    _, y, x = (part[3:33, 3:33, 3:33] for part in coordinates(36))
    y, x = (np.broadcast_to(part[0], (36, 30, 30)) for part in (y, x))
    floor, ceiling = index < 8, index >= 28
    column = ~floor & ~ceiling & (x**2 + y**2 < 7**2)
    found = relax_wetting(column, [(floor, np.radians(20)), (ceiling, np.radians(120))], 2.0, 200)
    assert found.wet[8].sum() > 1.5 * found.wet[27].sum()
    assert found.wet.sum() == column.sum()


def test_relax_wetting__is_repeatable_and_ignores_liquor_in_the_solid():
    z, y, x = coordinates(24)
    solid, drop = z < -4, (abs(x) < 5) & (abs(y) < 5) & (z < 5)
    first = relax_wetting(drop, [(solid, 0.4)], 1.5, 10)
    second = relax_wetting(drop & ~solid, [(solid, 0.4)], 1.5, 10)
    assert np.array_equal(first.level, second.level)
    assert first.wet.sum() == (drop & ~solid).sum()


def test_without_splashes__drops_small_and_unheld_pieces_and_lowers_their_level():
    wet = np.zeros((30, 30, 30), bool)
    wet[10:20, 10:20, 10:20] = True  # on the solid
    wet[25:28, 25:28, 25:28] = True  # a splash, 27 of 1000 voxels, in the air
    wet[3, 3, 3] = True
    solid = np.zeros_like(wet)
    solid[:10, 12:18, 12:18] = True
    kept = without_splashes(Relaxed(wet, np.where(wet, 1.0, -0.2).astype(np.float32), 3), solid)
    assert kept.wet.sum() == 1000
    assert np.array_equal(kept.level >= 0, kept.wet)


def test_place_bubbles__lie_in_the_liquor_clear_of_each_other_and_of_its_surface():
    z, y, x = coordinates(48)
    wet = x**2 + y**2 + z**2 < 20**2
    solid = np.zeros_like(wet)
    bubbles = place_bubbles(wet, solid, [4.0, 6.0, 30.0, 3.0], np.random.default_rng(1))
    assert [radius for _, radius in bubbles] == [6.0, 4.0, 3.0]  # the largest finds no room
    for i, (centre, radius) in enumerate(bubbles):
        assert np.linalg.norm(centre - 23.5) + radius < 20
        for other, size in bubbles[:i]:
            assert np.linalg.norm(centre - other) > radius + size


@pytest.mark.parametrize("turn", [0.0, 0.7])
def test_sample_level__a_plane_stays_a_plane_under_turn_shift_and_scale(turn):
    c, s = np.cos(turn), np.sin(turn)
    matrix = 0.4 * np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])
    offset = np.array([4.0, 9.0, 7.0])
    z, y, x = np.meshgrid(*(np.arange(20.0),) * 3, indexing="ij")
    level = (0.3 * z - 0.5 * y + 0.2 * x).astype(np.float32)
    out = np.empty((6, 10, 9), np.float32)
    sample_level(level, matrix, offset, out)
    at = np.stack(np.meshgrid(*map(np.arange, out.shape), indexing="ij"), -1) @ matrix.T + offset
    # float32 of numbers below 10.
    assert out == pytest.approx(at @ [0.3, -0.5, 0.2], abs=1e-5)
    sample_level(level, matrix, offset + 100, out)
    assert (out == -1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"walls": [(np.zeros((4, 4, 5), bool), 0.5)]}, "one shape"),
        ({"walls": [(np.zeros((4, 4, 4), bool), 20.0)]}, "contact angles"),
        ({"kernel_width": 0.2}, "kernel_width"),
        ({"iterations": 0}, "iterations"),
        ({"liquor": np.zeros((4, 4, 4), bool)}, "liquor"),
    ],
)
def test_relax_wetting__bad_input_is_refused_by_name(change, message):
    liquor = np.zeros((4, 4, 4), bool)
    liquor[1, 1, 1] = True
    given = {"liquor": liquor, "walls": [(np.zeros((4, 4, 4), bool), 0.5)]}
    with pytest.raises(InputError, match=message):
        relax_wetting(**{**given, "kernel_width": 2.0, "iterations": 3, **change})
