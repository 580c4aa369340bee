"""Varied crystals against Steiner's formula, inside tests of their own, and each switch alone."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.ndimage import label

from tomoforge.errors import ConfigError, InputError
from tomoforge.samples.crystal import crystal_polyhedron
from tomoforge.samples.habits import PROTEIN_HABITS
from tomoforge.samples.variation import CrystalVariation, draw_variation, vary_crystal

D = 50e-6
CUBE = crystal_polyhedron((100, 100, 100, 90, 90, 90), "m-3m", {(1, 0, 0): D})
LYSOZYME = crystal_polyhedron((79.1, 79.1, 37.9, 90, 90, 90), "422", {(1, 1, 0): D, (1, 0, 1): 1.05 * D})
PLATE = crystal_polyhedron((61, 61, 110, 90, 90, 120), "6", {(1, 0, 0): D, (0, 0, 1): 5e-6, (0, 0, -1): 8e-6})
NEEDLE = crystal_polyhedron((94.1, 94.1, 131.4, 90, 90, 120), "622", {(1, 0, 0): 8e-6, (1, 0, 1): 2 * D})
# Its origin lies next to the base.
PYRAMID = crystal_polyhedron((79.1, 79.1, 37.9, 90, 90, 90), "4mm", {(1, 0, 1): D, (0, 0, -1): 0.02 * D})
SOLIDS = {"cube": CUBE, "lysozyme": LYSOZYME, "plate": PLATE, "needle": NEEDLE, "pyramid": PYRAMID}
EVERYTHING = CrystalVariation(
    face_jitter=0.08,
    rounding=0.02,
    chips=3,
    satellites=3,
    intergrowths=1,
    cracks=2,
    crack_width=1e-6,
    dissolution=0.4,
)
on_all = pytest.mark.parametrize("solid", SOLIDS.values(), ids=SOLIDS.keys())


def beyond(mesh, points):
    """How far points (p, 3) lie beyond the farthest plane of a convex mesh [m]: negative inside."""
    a, b, c = (mesh.vertices[mesh.triangles[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    areas = np.linalg.norm(normals, axis=1)
    normals, a = normals[areas > 1e-9 * areas.max()], a[areas > 1e-9 * areas.max()]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return (points @ normals.T - np.einsum("ij,ij->i", normals, a)).max(axis=1)


def within(mesh, points):
    """Inside test for any closed mesh: the solid angles of its triangles add up to 4π (van Oosterom &
    Strackee, IEEE Trans. Biomed. Eng. 30 (1983) 125); for a sphere, its planes."""
    if len(mesh.triangles) > 500:
        return beyond(mesh, points) < 0
    low, high = mesh.bounds
    found = np.zeros(len(points), dtype=bool)
    near = np.flatnonzero(((points > low) & (points < high)).all(axis=1))
    points = points[near]
    total = np.zeros(len(points))
    for triangle in mesh.vertices[mesh.triangles]:
        a, b, c = (corner - points for corner in triangle)
        la, lb, lc = (np.linalg.norm(x, axis=1) for x in (a, b, c))
        dot_ab, dot_bc, dot_ca = ((x * y).sum(axis=1) for x, y in ((a, b), (b, c), (c, a)))
        over = (a * np.cross(b, c)).sum(axis=1)
        total += 2 * np.arctan2(over, la * lb * lc + dot_ab * lc + dot_bc * la + dot_ca * lb)
    found[near] = np.abs(total) > 2 * np.pi
    return found


def lattice(low, high, cells):
    """Centres of cubes that fill a box: points (p, 3), shape, edge [m]."""
    step = (high - low).max() / cells
    axes = [np.arange(a + step / 2, b, step) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return grid.reshape(-1, 3), grid.shape[:3], step


def crystal_voxels(body, cells):
    """Solids less voids on a grid: bool (x, y, z) and the edge of a voxel [m]."""
    points, shape, step = lattice(*body.bounds, cells)
    inside = np.zeros(len(points), dtype=bool)
    for mesh in body.solids:
        inside |= beyond(mesh, points) < 0
    for void in body.voids:
        inside[inside] = ~within(void, points[inside])
    return inside.reshape(shape), step


def same(first, second):
    return (
        first.vertices.tobytes() == second.vertices.tobytes()
        and first.triangles.tobytes() == second.triangles.tobytes()
    )


@on_all
def test_vary_crystal__without_flaws_is_the_polyhedron_itself(solid):
    body = vary_crystal(solid, CrystalVariation(), 3)
    assert len(body.solids) == 1 and body.voids == ()
    assert same(body.solids[0], solid.mesh())


@on_all
def test_vary_crystal__all_flaws_together_leave_closed_meshes_that_face_outwards(solid):
    for seed in range(2):
        body = vary_crystal(solid, replace(EVERYTHING, crack_width=0.01 * solid.diameter), seed)
        assert len(body.solids) == 1 + 1 + 3
        assert len(body.voids) >= 2 + 8  # cracks, pits, and those of the chips that are conchoidal
        assert all(mesh.is_closed() and mesh.volume > 0 for mesh in (*body.solids, *body.voids))


def test_vary_crystal__every_habit_can_be_varied():
    for index, habit in enumerate(PROTEIN_HABITS):
        solid = habit.polyhedron()
        solid = solid.scaled(150e-6 / solid.diameter)
        body = vary_crystal(solid, EVERYTHING, index)
        assert all(mesh.is_closed() and mesh.volume > 0 for mesh in (*body.solids, *body.voids))


def test_vary_crystal__same_seed_same_bytes_and_another_seed_another_crystal():
    first, again, other = (vary_crystal(LYSOZYME, EVERYTHING, seed) for seed in (5, 5, 6))
    pairs = list(zip((*first.solids, *first.voids), (*again.solids, *again.voids), strict=True))
    assert all(same(a, b) for a, b in pairs)
    assert not any(same(a, b) for a, b in zip(first.solids, other.solids, strict=True))


# --- each flaw ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.05, 0.15])
def test_vary_crystal__rounded_cube_has_steiners_volume(share):
    body = vary_crystal(CUBE, CrystalVariation(rounding=share), 0)
    r = share * 2 * np.sqrt(3) * D
    b = 2 * (D - r)
    steiner = b**3 + 6 * b**2 * r + 3 * np.pi * b * r**2 + 4 / 3 * np.pi * r**3
    # The mesh is inscribed, by at most the 0.1 % of a chord of 8° in the rounded part alone.
    assert steiner * (1 - 0.005) < body.solids[0].volume < steiner
    # Its faces stay where they were.
    assert np.allclose(body.bounds, [[-D] * 3, [D] * 3], rtol=1e-9)


@on_all
def test_vary_crystal__rounded_solids_are_convex_inside_the_sharp_one_and_shrink_with_the_radius(solid):
    volumes = []
    for share in (0.0, 0.02, 0.1, 0.3):
        mesh = vary_crystal(solid, CrystalVariation(rounding=share), 0).solids[0]
        assert beyond(mesh, mesh.vertices).max() < 1e-6 * solid.diameter
        assert beyond(solid.mesh(), mesh.vertices).max() < 1e-9 * solid.diameter
        volumes.append(mesh.volume)
    # The radius is bounded by the inscribed sphere, which a plate reaches first.
    assert volumes[0] > volumes[1] >= volumes[2] >= volumes[3] > 0.3 * volumes[0]


@on_all
@pytest.mark.parametrize("spread", [0.05, 0.3])
def test_vary_crystal__jitter_breaks_the_symmetry_and_keeps_size_and_normals(solid, spread):
    for seed in range(5):
        mesh = vary_crystal(solid, CrystalVariation(face_jitter=spread), seed).solids[0]
        assert mesh.is_closed()
        apart = np.linalg.norm(mesh.vertices[:, None] - mesh.vertices[None], axis=2)
        assert apart.max() == pytest.approx(solid.diameter, rel=1e-9)
        a, b, c = (mesh.vertices[mesh.triangles[:, k]] for k in range(3))
        normals = np.cross(b - a, c - a)
        sizes = np.linalg.norm(normals, axis=1)
        large = sizes > 1e-6 * solid.diameter**2
        towards = (normals[large] / sizes[large, None]) @ solid.normals.T
        assert np.allclose(towards.max(axis=1), 1, atol=1e-9)
        # The inversion or the two-fold axes would put the middle of the corners at the origin.
        assert np.abs(mesh.vertices.mean(axis=0)).max() > 1e-3 * D * spread


@on_all
def test_vary_crystal__chips_take_corners_away_and_little_else(solid):
    flat, scooped = 0, 0
    for seed in range(4):
        body = vary_crystal(solid, CrystalVariation(chips=2), seed)
        assert len(body.solids) == 1
        points, _, _ = lattice(*solid.mesh().bounds, 24)
        whole = beyond(solid.mesh(), points) < 1e-9 * D  # rounding, for points in the plane of a face
        left = beyond(body.solids[0], points) < 0
        for void in body.voids:
            left[left] = ~within(void, points[left])
        assert not (left & ~whole).any()
        assert 0.6 * whole.sum() < left.sum() < whole.sum()
        scooped += len(body.voids)
        flat += 2 - len(body.voids)
        if not body.voids:
            assert body.solids[0].volume < solid.volume
    assert flat > 0 and scooped > 0


@on_all
def test_vary_crystal__satellites_and_intergrowths_are_grown_into_the_host_and_stand_out(solid):
    rng = np.random.default_rng(1)
    for seed in range(5):
        body = vary_crystal(solid, CrystalVariation(satellites=3, intergrowths=1, face_jitter=0.05), seed)
        host, second, *small = body.solids
        for mesh in (second, *small):
            # Points of the convex solid, mixed from its corners, densest about its middle.
            middle = mesh.vertices.mean(axis=0)
            points = rng.dirichlet(np.full(len(mesh.vertices), 0.3), 4000) @ mesh.vertices
            points = middle + rng.random((4000, 1)) ** 2 * (points - middle)
            depth = beyond(host, points)
            # Well inside, by its own thickness: the two stay connected when they become voxels.
            assert depth.min() < 0.3 * beyond(mesh, points).min()
            assert depth.max() > 0
        assert 0.05 * solid.volume < second.volume < 1.2 * solid.volume
        assert all(mesh.volume < 0.05 * solid.volume for mesh in small)


@on_all
def test_vary_crystal__cracks_are_thin_reach_the_surface_and_never_cut_the_crystal_in_two(solid):
    width = 0.03 * solid.diameter  # wider than a voxel (1/36), so that a cut would show
    for seed in range(2):
        body = vary_crystal(solid, CrystalVariation(cracks=3, crack_width=width), seed)
        assert len(body.voids) == 3
        for void in body.voids:
            points = lattice(*void.bounds, 24)[0]
            points = points[within(void, points)]
            inside = beyond(body.solids[0], points) < 0
            assert inside.any() and not inside.all()
        voxels, _ = crystal_voxels(body, 36)
        parts, count = label(voxels)
        # Specks of a voxel or two may hang between a crack's mouth and an edge.
        sizes = np.bincount(parts.ravel())[1:]
        assert count >= 1 and sizes.max() > 0.995 * sizes.sum()


@on_all
def test_vary_crystal__cracks_of_real_width_take_little_volume(solid):
    body = vary_crystal(solid, CrystalVariation(cracks=3, crack_width=0.01 * solid.diameter), 2)
    assert sum(void.volume for void in body.voids) < 0.03 * solid.volume


@on_all
def test_vary_crystal__etch_pits_are_shallow_and_open_to_the_surface(solid):
    body = vary_crystal(solid, CrystalVariation(dissolution=0.5), 4)
    host = body.solids[0]
    reach = -beyond(solid.mesh(), solid.vertices.mean(axis=0)[None])[0]
    for pit in body.voids:
        depth = beyond(host, pit.vertices)
        assert depth.min() > -0.3 * reach
        assert depth.min() < 0 < depth.max()
    assert len(body.voids) == 10
    assert sum(pit.volume for pit in body.voids) < 0.03 * solid.volume


@on_all
def test_vary_crystal__dissolution_rounds_more_and_more(solid):
    volumes = [
        vary_crystal(solid, CrystalVariation(dissolution=d), 0).solids[0].volume for d in (0, 0.3, 0.9)
    ]
    assert volumes[0] > volumes[1] > volumes[2]


# --- switches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flaw", ["satellites", "intergrowths", "cracks"])
def test_vary_crystal__switching_one_addition_off_leaves_all_else_the_same_bytes(flaw):
    full, less = (vary_crystal(LYSOZYME, v, 9) for v in (EVERYTHING, replace(EVERYTHING, **{flaw: 0})))
    meshes, left = ((*body.solids, *body.voids) for body in (full, less))
    assert len(left) == len(meshes) - getattr(EVERYTHING, flaw)
    assert all(any(same(mesh, other) for other in meshes) for mesh in left)


def test_vary_crystal__one_more_of_a_kind_leaves_the_others_in_place():
    full, more = (vary_crystal(LYSOZYME, replace(EVERYTHING, cracks=c, satellites=c), 9) for c in (2, 4))
    assert all(any(same(mesh, other) for other in more.solids) for mesh in full.solids)
    assert all(any(same(mesh, other) for other in more.voids) for mesh in full.voids)


def test_vary_crystal__chips_off_leaves_satellites_their_size_and_turn():
    sharp = CrystalVariation(satellites=4, intergrowths=1)
    without, chipped = (vary_crystal(LYSOZYME, v, 2) for v in (sharp, replace(sharp, chips=4)))
    for a, b in zip(without.solids[1:], chipped.solids[1:], strict=True):
        shift = b.vertices - a.vertices
        # Rigidly moved, at most by what was chipped away under it.
        assert np.abs(shift - shift[0]).max() < 1e-9 * D
        assert np.linalg.norm(shift[0]) < 0.13 * LYSOZYME.diameter


def test_vary_crystal__rounding_and_dissolution_off_leave_the_fractures_where_they_are():
    chipped = CrystalVariation(chips=8, face_jitter=0.05)
    sharp, rounded = (vary_crystal(LYSOZYME, v, 2) for v in (chipped, replace(chipped, rounding=0.03)))
    assert len(sharp.voids) == len(rounded.voids) > 0
    assert all(same(a, b) for a, b in zip(sharp.voids, rounded.voids, strict=True))


# --- the draw -----------------------------------------------------------------------------------------


def test_draw_variation__half_are_clean_few_have_many_flaws_and_every_flaw_occurs():
    drawn = [draw_variation(seed, 150e-6) for seed in range(600)]
    gross = [len(set(v.flaws()) - {"face_jitter", "rounding"}) for v in drawn]
    # Expected 0.51 clean and 0.02 with three or more; four standard deviations of 600 draws.
    assert 0.43 < np.mean(np.array(gross) == 0) < 0.59
    assert np.mean(np.array(gross) > 2) < 0.05
    seen = {flaw for v in drawn for flaw in v.flaws()}
    assert seen == set(asdict(EVERYTHING)) - {"crack_width"}
    assert all(v.crack_width <= 0.02 * 150e-6 for v in drawn)
    assert drawn == [draw_variation(seed, 150e-6) for seed in range(600)]


def test_draw_variation__goes_through_json():
    for seed in range(20):
        variation = draw_variation(seed, 1e-4)
        assert CrystalVariation(**json.loads(json.dumps(asdict(variation)))) == variation


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"face_jitter": -0.1}, "face_jitter"),
        ({"face_jitter": float("nan")}, "face_jitter"),
        ({"rounding": 0.5}, "rounding"),
        ({"dissolution": 1.5}, "dissolution"),
        ({"chips": -1}, "chips"),
        ({"satellites": 1.5}, "satellites"),
        ({"cracks": 1}, "crack_width"),
        ({"crack_width": -1e-6}, "crack_width"),
    ],
)
def test_crystal_variation__bad_values_are_refused_by_name(values, message):
    with pytest.raises(ConfigError, match=message):
        CrystalVariation(**values)


def test_vary_crystal__a_crack_wider_than_the_crystal_allows_is_refused():
    with pytest.raises(InputError, match="tenth"):
        vary_crystal(CUBE, CrystalVariation(cracks=1, crack_width=1e-4), 0)
    with pytest.raises(InputError, match="crystal_size"):
        draw_variation(1, 0.0)
