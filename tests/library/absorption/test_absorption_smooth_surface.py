"""Smooth surfaces behind voxel steps: where they lie, what they keep, and the factors that come of them."""

import json
import math

import numba
import numpy as np
import pytest

from tomoforge.absorption.factors import absorption_factors
from tomoforge.absorption.path_kernels import MixedGrid, depth_table
from tomoforge.absorption.path_table import path_table
from tomoforge.absorption.paths import optical_depths, path_lengths
from tomoforge.absorption.smooth_crystal import smooth_strata
from tomoforge.absorption.smooth_surface import smooth_surface
from tomoforge.errors import InputError

VOXEL = 1e-6
_MIDDLE = np.array([0.13, 0.29, 0.41])
_BEAM = np.array([0.2, np.cos(0.3), np.sin(0.3)]) / np.linalg.norm([0.2, np.cos(0.3), np.sin(0.3)])
_TURN = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]


def _around(n: int) -> np.ndarray:
    """(n, n, n, 3) voxel centres about a middle off the lattice."""
    return np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 - m for m in _MIDDLE], indexing="ij"), axis=-1)


def _ball(radius: float, label: int = 3) -> np.ndarray:
    return np.where((_around(2 * int(radius) + 7) ** 2).sum(-1) <= radius**2, label, 0).astype(np.uint8)


def _volumes(grid: MixedGrid, shape: tuple[int, ...], labels: int = 4) -> np.ndarray:
    """Volume of each label by rays through the whole volume, three to a voxel's edge."""
    y, x = np.meshgrid((np.arange(3 * shape[1]) + 0.5) / 3, (np.arange(3 * shape[2]) + 0.5) / 3)
    points = np.stack([np.zeros(y.size), y.ravel(), x.ravel()], axis=1)
    return np.array(
        [depth_table(grid, np.eye(256)[m], points, np.array([[1.0, 0, 0]])).sum() / 9 for m in range(labels)]
    )


def _chords(grid: np.ndarray | MixedGrid, n: int, step: float = 0.61) -> tuple[np.ndarray, np.ndarray]:
    """Chords of label 3 along ``_BEAM`` and where their rays start, about the body's middle."""
    u = np.cross(_BEAM, [1.0, 0, 0])
    u /= np.linalg.norm(u)
    v = np.cross(_BEAM, u)
    along = np.arange(-0.9 * n, 0.9 * n, step)
    a, b = np.meshgrid(along, along + 0.07)
    starts = a.reshape(-1, 1) * u + b.reshape(-1, 1) * v - 3 * n * _BEAM
    mu = np.zeros(256)
    mu[3] = 1
    return depth_table(grid, mu, starts + n / 2 + _MIDDLE, _BEAM[None])[0], starts


def _prism_chords(starts: np.ndarray, normals: np.ndarray, heights: np.ndarray) -> np.ndarray:
    down = normals @ _BEAM
    at = (heights - starts @ normals.T) / down
    first = np.where(down < 0, at, -np.inf).max(axis=1)
    return np.maximum(np.where(down > 0, at, np.inf).min(axis=1) - first, 0)


def _relative_error(chord: np.ndarray, exact: np.ndarray, mu: float) -> float:
    """Of the transmission straight on, Σ L e^{−µL}/Σ L."""
    a, b = ((length * np.exp(-mu * length)).sum() / length.sum() for length in (chord, exact))
    return abs(a / b - 1)


def test_smooth_surface__lies_on_the_sphere_behind_the_steps():
    radius = 32.0
    labels = _ball(radius)
    grid = smooth_surface(labels)
    here = np.argwhere(grid.codes >= 256)
    plane = grid.planes[grid.codes[tuple(here.T)] - 256]
    middle = here + 0.5 - (np.array(labels.shape) / 2 + _MIDDLE)
    foot = middle - ((plane[:, :3] * (here + 0.5)).sum(1) - plane[:, 3])[:, None] * plane[:, :3]
    inside = (np.abs(foot - middle) <= 0.5).all(axis=1)
    volume_radius = (3 * (labels == 3).sum() / (4 * np.pi)) ** (1 / 3)
    off = np.linalg.norm(foot[inside], axis=1) - volume_radius
    # 0.04 rms at this radius, where steps are 0.3 off; 0.02 at 64.
    assert np.sqrt(np.mean(off**2)) < 0.06
    assert np.abs(off).max() < 0.5


def test_smooth_surface__keeps_the_volume_of_each_label():
    square = (_around(43) ** 2).sum(-1)
    labels = np.where(square <= 9.3**2, 3, np.where(square <= 16.6**2, 1, 0)).astype(np.uint8)
    labels[:12] = np.where(labels[:12] == 0, 2, labels[:12])
    grid = smooth_surface(labels)
    counts = np.bincount(labels.ravel(), minlength=4)
    # Each pair's planes are shifted to it; rays three to a voxel see volumes to 1e-4 of these surfaces.
    np.testing.assert_allclose(_volumes(grid, labels.shape), counts, rtol=5e-4)


@pytest.mark.parametrize("corner", [(0, 0, 0), (5, 4, 3)])
def test_smooth_surface__lattice_boxes_stay_exact(corner):
    labels = np.zeros((24, 20, 22), dtype=np.uint8)
    labels[corner[0] : 18, corner[1] : 15, corner[2] : 16] = 1
    labels[8:14, 7:12, 6:12] = 3
    grid = smooth_surface(labels)
    assert len(grid.planes) == 0
    np.testing.assert_array_equal(grid.codes, labels)


def test_smooth_surface__thin_walls_gaps_and_single_voxels_stay():
    labels = np.zeros((30, 30, 30), dtype=np.uint8)
    labels[4:26, 4:26, 12] = 2  # a wall of one voxel
    labels[4:26, 4:26, 16:20] = 1
    labels[4:26, 4:26, 21:25] = 1  # a gap of one voxel
    labels[2, 2, 2] = 3
    tilted = np.abs(_around(30) @ _TURN[0]) < 0.5
    for volume in (labels, np.where(tilted, 2, 0).astype(np.uint8)):
        grid = smooth_surface(volume)
        counts = np.bincount(volume.ravel(), minlength=4)
        np.testing.assert_allclose(_volumes(grid, volume.shape), counts, atol=0.02 * counts[2] + 1e-9)
    np.testing.assert_array_equal(smooth_surface(labels).codes, labels)


@pytest.mark.parametrize("thickness", [2.3, 3.4])
def test_smooth_surface__a_tilted_plate_keeps_its_thickness(thickness):
    across = _around(41) @ _TURN[0]
    labels = np.where(np.abs(across) < thickness / 2, 3, 0).astype(np.uint8)
    mu = np.zeros(256)
    mu[3] = 1
    points = np.random.default_rng(0).uniform(12, 29, (500, 3))
    rays = np.stack([_TURN[0], -_TURN[0]])
    sides = depth_table(smooth_surface(labels), mu, points, rays).sum(axis=0)
    steps = depth_table(labels, mu, points, rays).sum(axis=0)
    outside = np.abs((points - 20.5 - _MIDDLE) @ _TURN[0]) < 0.3
    assert np.sqrt(np.mean((sides[outside] - thickness) ** 2)) < 0.5 * np.sqrt(
        np.mean((steps[outside] - thickness) ** 2)
    )


_BOX = np.concatenate([_TURN, -_TURN]), np.array([13.0, 17.0, 21.0] * 2)
_HEXAGON = np.array([[0, np.cos(a), np.sin(a)] for a in np.arange(6) * np.pi / 3] + [[1, 0, 0], [-1, 0, 0]])


@pytest.mark.parametrize(
    ("normals", "heights"),
    [_BOX, (_HEXAGON @ _TURN, np.array([15.0] * 6 + [20.0] * 2))],
    ids=["box", "hexagonal prism"],
)
def test_smooth_surface__oblique_prisms_have_better_chords_than_steps(normals, heights):
    labels = np.where((_around(65) @ normals.T <= heights).all(-1), 3, 0).astype(np.uint8)
    steps, starts = _chords(labels, 65)
    smooth, _ = _chords(smooth_surface(labels), 65)
    exact = _prism_chords(starts, normals, heights)
    hit = exact > 0
    assert np.std((smooth - exact)[hit]) < 0.7 * np.std((steps - exact)[hit])
    assert abs(smooth.sum() / exact.sum() - 1) < 1e-3


def test_smooth_surface__an_ellipsoid_transmits_what_it_should():
    matrix = np.diag(1 / np.array([14.0, 22.0, 30.0])) @ _TURN
    labels = np.where(((_around(75) @ matrix.T) ** 2).sum(-1) <= 1, 3, 0).astype(np.uint8)
    steps, starts = _chords(labels, 75)
    smooth, _ = _chords(smooth_surface(labels), 75)
    a, b, c = (
        ((matrix @ _BEAM) ** 2).sum(),
        (starts @ matrix.T) @ (matrix @ _BEAM),
        ((starts @ matrix.T) ** 2).sum(1),
    )
    exact = 2 * np.sqrt(np.maximum(b**2 - a * (c - 1), 0)) / a
    mu = 3 / (exact.max() / 2)
    assert _relative_error(smooth, exact, mu) < 5e-3
    assert _relative_error(smooth, exact, mu) < _relative_error(steps, exact, mu) / 4  # 3 % by steps


@pytest.mark.parametrize("mu_r", ["1.0", "3.0"])
def test_absorption_factors__smooth_cylinder_and_sphere_match_the_tables(shared_data, mu_r):
    tables = json.loads((shared_data / "absorption/absorption_oracles.json").read_text())
    sphere, y, x = _ball(32.0), *np.moveaxis(_around(71)[0, :, :, 1:], -1, 0)
    disc = np.where(y**2 + x**2 <= 32.0**2, 3, 0).astype(np.uint8)
    bodies = {
        "sphere": (sphere, (3 * (sphere == 3).sum() / (4 * np.pi)) ** (1 / 3)),
        "cylinder": (np.repeat(disc[None], 3, axis=0), math.sqrt((disc == 3).sum() / np.pi)),
    }
    for body, (labels, radius) in bodies.items():
        oracle = tables[f"{body}_Astar"][mu_r]
        angles = 2 * np.radians(oracle["theta_deg"])[::3]
        want = 1 / np.array(oracle["Astar"])[::3]
        exits = np.stack([0 * angles, np.cos(angles + 0.3), np.sin(angles + 0.3)], axis=1)
        got = absorption_factors(
            labels, VOXEL, {3: float(mu_r) / (radius * VOXEL)}, np.array([0, np.cos(0.3), np.sin(0.3)]), exits,
            target_error=2e-3, max_points=2**15, surface="smooth",
        )  # fmt: skip
        # The surface's part on 32 voxels is 0.1 %, a fifth of a per cent at 3 (steps: 1.5 % … 4 %).
        allowed = {"1.0": 1e-3, "3.0": 3e-3}[mu_r] + 3 * got.standard_error / got.a
        assert np.all(np.abs(got.a / want - 1) < allowed)


def test_absorption_factors__smooth_surface_of_two_materials_in_concentric_spheres():
    outer, inner, mu_coat, mu_crystal = 30.0, 16.0, 0.014, 0.04
    square = (_around(67) ** 2).sum(-1)
    labels = np.where(square <= inner**2, 3, np.where(square <= outer**2, 1, 0)).astype(np.uint8)
    node, weight = np.polynomial.legendre.leggauss(200)
    b, w = inner * (node + 1) / 2, weight * inner / 2
    inside, whole = 2 * np.sqrt(inner**2 - b**2), 2 * np.sqrt(outer**2 - b**2)
    light = np.exp(-mu_crystal * inside - mu_coat * (whole - inside))
    want = np.sum(w * 2 * np.pi * b * inside * light) / (4 / 3 * np.pi * inner**3)
    beam = np.array([0, 1.0, 0])
    got = absorption_factors(
        labels, VOXEL, {1: mu_coat / VOXEL, 3: mu_crystal / VOXEL}, beam, beam[None], surface="smooth"
    )
    assert got.a[0] == pytest.approx(
        want, rel=2e-3
    )  # voxel counts miss the volumes by 1e-3; 1e-3 of sampling


def test_absorption_factors__smooth_slab_and_single_voxel_are_exact():
    slab = np.zeros((20, 5, 20), dtype=np.uint8)
    slab[:, 1:4] = 3
    voxel = np.zeros((3, 3, 3), dtype=np.uint8)
    voxel[1, 1, 1] = 3
    beam = np.array([0, 1.0, 0])
    for labels, length in ((slab, 3), (voxel, 1)):
        got = absorption_factors(labels, VOXEL, {3: 0.5 / VOXEL}, beam, beam[None], surface="smooth")
        assert got.a[0] == pytest.approx(math.exp(-0.5 * length), rel=1e-12)
        assert got.crystal_voxels == (labels == 3).sum()


def test_smooth_strata__points_lie_in_the_crystal_and_fill_it_evenly():
    labels = _ball(7.4)
    labels[labels == 0] = 1
    grid = smooth_surface(labels)
    strata = smooth_strata(grid, 3)
    assert strata.voxels == (labels == 3).sum()
    count = 40_000
    points = strata.draw(count, np.random.default_rng(4))
    off = points - (np.array(labels.shape) - 1) / 2 - _MIDDLE
    square = (off**2).sum(axis=1)
    radius = (3 * (labels == 3).sum() / (4 * np.pi)) ** (1 / 3)
    assert np.sqrt(square.max()) < radius + 0.5
    # Independent points would give 0.5 % for these means.
    assert square.mean() == pytest.approx(0.6 * radius**2, rel=1e-2)
    np.testing.assert_allclose(off.mean(axis=0), 0, atol=0.03)
    # Strata are equal: eight pieces of the list hold equally many points and volume.
    again = strata.draw(count, np.random.default_rng(5))
    pieces = [half.reshape(8, -1, 3).mean(axis=1) for half in (points, again)]
    np.testing.assert_allclose(pieces[0], pieces[1], atol=0.15)


def test_path_functions__take_the_smooth_surface_too():
    labels = _ball(12.0)
    middle = ((np.array(labels.shape) - 1) / 2 + _MIDDLE)[None]
    rays = np.random.default_rng(2).normal(size=(200, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    radius = (3 * (labels == 3).sum() / (4 * np.pi)) ** (1 / 3)
    smooth = path_lengths(labels, VOXEL, middle, rays, 4, surface="smooth")
    steps = path_lengths(labels, VOXEL, middle, rays, 4)
    np.testing.assert_allclose(smooth.sum(axis=2), steps.sum(axis=2), rtol=1e-12)
    assert np.std(smooth[0, :, 3]) < 0.4 * np.std(steps[0, :, 3])
    np.testing.assert_allclose(smooth[0, :, 3], radius * VOXEL, atol=0.4 * VOXEL)
    mu = np.array([0, 0, 0, 1e5])
    depths = optical_depths(labels, VOXEL, mu, middle, rays, surface="smooth")
    np.testing.assert_allclose(depths[:, 0], 1e5 * smooth[0, :, 3], rtol=1e-12)
    table = path_table(labels, VOXEL, rays[0], rays[:4], n_points=512, surface="smooth")
    want = absorption_factors(labels, VOXEL, {3: 5e4}, rays[0], rays[:4], surface="smooth", target_error=5e-3)
    np.testing.assert_allclose(table.factors({3: 5e4}), want.a, rtol=1e-2)


def test_smooth_surface__same_bytes_for_any_number_of_threads():
    labels = _ball(15.0)
    first = smooth_surface(labels)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        second = smooth_surface(labels)
    finally:
        numba.set_num_threads(threads)
    assert first.codes.tobytes() == second.codes.tobytes()
    assert first.planes.tobytes() == second.planes.tobytes()


def test_absorption_factors__unknown_surface_is_refused():
    beam = np.array([0, 1.0, 0])
    with pytest.raises(InputError, match=r'surface must be "voxels" or "smooth"'):
        absorption_factors(_ball(3.0), VOXEL, {3: 1.0}, beam, beam[None], surface="round")
