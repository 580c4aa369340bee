"""Voxels against closed forms, half-space tests, Open3D and exact tilings; memory, cuts and bad input."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial import Delaunay
from scipy.spatial.transform import Rotation

from tests.library.samples.inside import (
    OCTAHEDRON,
    VOXEL,
    box,
    centres,
    centroid,
    convex_mesh,
    disagreements,
    halfspace_excess,
    halfspaces,
    joined,
    reversed_,
    sphere,
    turned,
    winding_inside,
)
from tomoforge.errors import InputError, StageError
from tomoforge.samples import voxelize as room
from tomoforge.samples.mesh import TriangleMesh
from tomoforge.samples.scan_conversion import paint, surface
from tomoforge.samples.voxelize import Bodies, Solid, fractions, occupancy, voxelize

# Vertices are put on a lattice of 2^-32 = 2.3e-10 voxel; planes through them move by a few of these.
TIE = 1e-9 * VOXEL
# Open3D has float32 coordinates of up to 50 in bodies of 100 units: steps of 4e-6 unit, 1e-4 with the
# products of its tests, and bodies here are at most 200 voxels wide.
TIE_OPEN3D = 2e-4 * VOXEL


@pytest.mark.parametrize(
    ("mesh", "volume"),
    [
        # The hull of 30 000 points on the sphere lacks 0.02 % of it.
        (sphere(90.3 * VOXEL, 30000), 4 / 3 * np.pi * 90.3**3),
        (box((-60, -60, -60), (60, 60, 60)), 120.0**3),
        (turned(box((-55.2, -55.2, -55.2), (55.2, 55.2, 55.2)), 1), 110.4**3),
        (turned(OCTAHEDRON, 2), 4 / 3 * 80.0**3),
    ],
    ids=["sphere", "cube", "turned cube", "turned octahedron"],
)
def test_voxelize__volume_and_centroid_at_256(mesh, volume):
    # An aligned cube keeps its faces between the voxel centres, or its volume would be a matter of luck.
    shift = np.array([3.0, -5.0, 7.0]) if volume == 120.0**3 else np.array([3.3, -5.7, 7.1])
    labels = voxelize({"crystal": [mesh.moved(np.eye(3), shift * VOXEL)]}, (256, 256, 256), VOXEL)
    assert (labels == 3).sum() == pytest.approx(volume, rel=2e-3)
    np.testing.assert_allclose(centroid(labels == 3), shift, atol=0.05)


@pytest.mark.parametrize("shape", [(16, 16, 16), (15, 16, 17)])
def test_voxelize__box_is_exact_and_centred(shape):
    labels = voxelize({"crystal": [box((-3, -4, -5), (3, 4, 5))]}, shape, VOXEL)
    inside = np.argwhere(labels == 3)
    # Half open: in odd fields the faces lie on voxel centres, of which the lower belong to the box.
    for axis, half in ((0, 5), (1, 4), (2, 3)):
        centre = (shape[axis] - 1) / 2
        expected = [i for i in range(shape[axis]) if -half <= i - centre < half]
        assert sorted(set(inside[:, axis])) == expected
    assert len(inside) == np.prod([len(set(inside[:, axis])) for axis in range(3)])


def test_voxelize__asymmetric_body_lands_at_its_z_y_x():
    # In an even field of 20, x = 7 voxels from the middle is index 9.5 + 7.
    labels = voxelize({"crystal": [box((6, -4, 1), (8, -2, 3))]}, (20, 20, 20), VOXEL)
    where = np.argwhere(labels)
    assert where.mean(axis=0) == pytest.approx([9.5 + 2, 9.5 - 3, 9.5 + 7])
    assert len(where) == 8


def test_voxelize__origin_is_the_centre_of_the_first_voxel():
    labels = voxelize({"liquor": [box((-0.4, 0.6, 1.6), (0.4, 1.4, 2.4))]}, (4, 4, 4), VOXEL, (0.0, 0.0, 0.0))
    assert np.argwhere(labels).tolist() == [[2, 1, 0]]
    assert labels[2, 1, 0] == 1


def test_voxelize__crystal_over_loop_over_liquor_and_parts_are_united():
    meshes = {
        "crystal": [box((-2, -2, -2), (2, 2, 2))],
        # Two overlapping parts: one ray-parity test over both would leave the overlap empty.
        "loop": [box((-4, -4, -4), (4, 4, 1)), box((-4, -4, -1), (4, 4, 4))],
        "liquor": [box((-6, -6, -6), (6, 6, 6))],
    }
    labels = voxelize(meshes, (16, 16, 16), VOXEL)
    assert np.bincount(labels.ravel()).tolist() == [16**3 - 12**3, 12**3 - 8**3, 8**3 - 4**3, 4**3]
    as_one = voxelize({**meshes, "loop": [joined(*meshes["loop"])]}, (16, 16, 16), VOXEL)
    np.testing.assert_array_equal(as_one, labels)


def test_voxelize__body_across_the_edge_is_cut():
    labels = voxelize({"loop": [box((-1, -1, -100), (1, 1, 0))]}, (8, 8, 8), VOXEL)
    assert (labels == 2).sum() == 2 * 2 * 4
    assert not labels[4:].any()
    outside = voxelize({"loop": [box((50, 50, 50), (60, 60, 60))]}, (8, 8, 8), VOXEL)
    assert not outside.any()


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("side", [-1, 1])
def test_voxelize__cut_at_each_side_is_the_larger_field_cropped(axis, side):
    mesh = turned(box((-9, -6, -4), (9, 6, 4)), 5, side * 8 * np.eye(3)[axis])
    large = occupancy([mesh], (48, 48, 48), VOXEL)
    small = occupancy([mesh], (16, 16, 16), VOXEL)
    assert small.any()
    np.testing.assert_array_equal(small, large[16:32, 16:32, 16:32])
    np.testing.assert_array_equal(
        Solid([mesh], (16, 16, 16), VOXEL).fraction(0, 16),
        Solid([mesh], (48, 48, 48), VOXEL).fraction(16, 32)[:, 16:32, 16:32],
    )


def test_voxelize__field_within_a_body_is_full():
    meshes = {"liquor": [box((-100, -90, -80), (80, 90, 100))]}
    assert (voxelize(meshes, (5, 6, 7), VOXEL) == 1).all()
    assert (fractions(meshes, (5, 6, 7), VOXEL)["liquor"] == 1).all()


# Against independent inside tests. Bodies in voxels, in fields that put voxel centres on integers.

AWKWARD = {
    "box with faces on centres": box((-5, -7, -3), (5, 7, 3)),
    "box turned by 45 degrees, edges along rays": box((-6, -6, -9), (6, 6, 9)).moved(
        Rotation.from_euler("x", 45, degrees=True).as_matrix(), np.zeros(3)
    ),
    "octahedron with vertices on rays": convex_mesh(
        9 * VOXEL * np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1.0]])
    ),
    "sliver": turned(box((-12, -12, -0.05), (12, 12, 0.05)), 11),
    "needle": turned(box((-0.15, -0.15, -13), (0.15, 0.15, 13)), 12),
    "aligned sliver around a plane of centres": box((-12, -12, -0.05), (12, 12, 0.05)),
    "sphere of 10 000 triangles": turned(sphere(14 * VOXEL, 5002), 13, (0.3, 0.1, -0.2)),
    **{
        f"polyhedron {seed}": turned(
            convex_mesh(np.random.default_rng(seed).normal(0, 6, (12, 3)) * VOXEL),
            seed,
            np.random.default_rng(seed).uniform(-3, 3, 3),
        )
        for seed in range(12)
    },
}


@pytest.mark.parametrize("name", AWKWARD)
def test_occupancy__agrees_with_the_half_space_test(name):
    mesh, shape = AWKWARD[name], (33, 33, 33)
    # Half spaces tell inside to 1e-16: what lies closer to a face than the vertices' lattice is left out.
    points = centres(shape, VOXEL)
    near = np.linalg.norm(points, axis=1) < np.linalg.norm(mesh.vertices, axis=1).max() + VOXEL
    if len(mesh.triangles) > 1000:
        near &= np.linalg.norm(points, axis=1) > 12 * VOXEL
    excess = halfspace_excess(*halfspaces(mesh), points[near])
    found, clear = occupancy([mesh], shape, VOXEL).ravel()[near], abs(excess) > TIE
    np.testing.assert_array_equal(found[clear], excess[clear] < 0)
    assert found.any()


@pytest.mark.parametrize("name", AWKWARD)
def test_occupancy__agrees_with_open3d(name):
    mesh, shape = AWKWARD[name], (33, 32, 31)
    found = occupancy([mesh], shape, VOXEL).ravel()
    assert disagreements(found, [mesh], centres(shape, VOXEL), TIE_OPEN3D) == 0


def test_occupancy__overlapping_parts_in_one_mesh_agree_with_open3d_and_with_solid_angles():
    mesh = joined(
        turned(sphere(8 * VOXEL, 300), 1, (2, 0, 0)),
        turned(box((-9, -3, -3), (9, 3, 3)), 2),
        # A bubble in the box.
        reversed_(turned(sphere(2 * VOXEL, 60), 3, (-6, 0, 0))),
    )
    found, points = occupancy([mesh], (33, 33, 33), VOXEL).ravel(), centres((33, 33, 33), VOXEL)
    assert disagreements(found, [mesh], points, TIE_OPEN3D) == 0
    some = np.random.default_rng(0).choice(len(points), 4000, replace=False)
    # No centre lies on this body: the two float64 tests agree everywhere.
    np.testing.assert_array_equal(found[some], winding_inside([mesh], points[some]))


@pytest.mark.parametrize("seed", range(20))
def test_occupancy__polytopes_on_voxel_centres_are_exact(seed):
    # Integer vertices: every vertex on a ray, faces through many centres, and the half spaces exact in integers.
    corners = np.random.default_rng(seed).integers(1, 14, (9, 3))
    mesh = convex_mesh(corners.astype(float))
    a, b, c = (np.rint(mesh.vertices[mesh.triangles[:, k]]).astype(int) for k in range(3))
    normals = np.cross(b - a, c - a)
    points = np.indices((16, 16, 16)).reshape(3, -1).T[:, ::-1]
    excess = (points @ normals.T - np.einsum("ij,ij->i", normals, a)).max(axis=1)
    scaled = TriangleMesh(mesh.vertices * VOXEL, mesh.triangles)
    found = occupancy([scaled], (16, 16, 16), VOXEL, (0.0, 0.0, 0.0)).ravel()
    assert found[excess < 0].all()
    assert not found[excess > 0].any()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("on_lattice", [True, False])
def test_occupancy__tiles_neither_overlap_nor_leave_gaps(seed, on_lattice):
    # Tetrahedra that fill a cube: each voxel centre belongs to exactly one, also on shared faces and edges.
    rng = np.random.default_rng(seed)
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * 12.0
    inner = rng.integers(1, 12, (20, 3)) if on_lattice else rng.uniform(0, 12, (20, 3))
    points = np.concatenate([corners, np.unique(inner, axis=0)])
    # Joggled tetrahedra would not tile; flat ones on lattice points hold nothing and have no outside.
    tiles = Delaunay(points).simplices
    size = np.linalg.det(points[tiles[:, 1:]] - points[tiles[:, :1]])
    faces = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])
    count = np.zeros((14, 14, 14), dtype=int)
    for tile, six_volumes in zip(tiles, size, strict=True):
        if abs(six_volumes) > 1e-9:
            mesh = TriangleMesh(points[tile] * VOXEL, faces[:, ::-1] if six_volumes > 0 else faces)
            mesh = mesh if mesh.volume > 0 else reversed_(mesh)
            count += occupancy([mesh], (14, 14, 14), VOXEL, (-VOXEL, -VOXEL, -VOXEL))
    expected = np.zeros_like(count)
    expected[1:13, 1:13, 1:13] = 1
    np.testing.assert_array_equal(count, expected)


@pytest.mark.parametrize("seed", range(6))
def test_occupancy__nothing_outside_the_bounding_box_and_every_row_closes(seed):
    rng = np.random.default_rng(seed)
    # A crumpled sphere: vertices thrown about, so that it cuts itself and turns inside out in places.
    ball = sphere(10.0, 400)
    vertices = ball.vertices + rng.normal(0, 1.5, ball.vertices.shape)
    if seed % 2:
        vertices = np.rint(vertices)
    mesh = TriangleMesh(vertices * VOXEL, ball.triangles)
    shape = (40, 41, 42)
    found = occupancy([mesh], shape, VOXEL)
    points = centres(shape, VOXEL).reshape(*shape, 3)[found]
    low, high = mesh.bounds
    assert (points >= low - TIE).all() and (points <= high + TIE).all()
    out = np.zeros(shape, dtype=np.uint8)
    parts = [(0, (mesh.vertices - room.field_origin(shape, VOXEL)) / VOXEL, mesh.triangles)]
    assert paint(surface(parts, shape), 0, np.array([1], np.uint8), out) == 0
    np.testing.assert_array_equal(out.astype(bool), found)
    if seed % 2 == 0:
        # Solid angles tell the winding number of such a body; crossing parity does not.
        some = rng.choice(found.size, 3000, replace=False)
        expected = winding_inside([mesh], centres(shape, VOXEL)[some])
        np.testing.assert_array_equal(found.ravel()[some], expected)


def test_solid__a_leak_is_an_error(monkeypatch):
    ball = sphere(10 * VOXEL, 400)
    monkeypatch.setattr(room, "_is_closed", lambda mesh: True)
    solid = Solid([TriangleMesh(ball.vertices, ball.triangles[1:])], (128, 128, 128), VOXEL / 4)
    with pytest.raises(StageError, match="rows"):
        solid.inside(0, 128)
    with pytest.raises(StageError, match="rows"):
        solid.fraction(0, 128, 1)


def test_occupancy__parts_that_share_an_edge_or_a_vertex_are_taken():
    cube = box((-4, -4, -4), (0, 0, 0))
    for shift in ((4, 4, 0), (4, 4, 4)):
        two = joined(cube, cube.moved(np.eye(3), np.array(shift) * VOXEL))
        vertices, index = np.unique(np.rint(two.vertices / VOXEL), axis=0, return_inverse=True)
        welded = TriangleMesh(vertices * VOXEL, index.ravel()[two.triangles])
        assert occupancy([welded], (12, 12, 12), VOXEL).sum() == 2 * 4**3


def test_occupancy__inward_part_is_a_hole():
    outer, inner = box((-5, -5, -5), (5, 5, 5)), reversed_(box((-2, -2, -2), (2, 2, 2)))
    for meshes in ([outer, inner], [joined(outer, inner)]):
        assert occupancy(meshes, (12, 12, 12), VOXEL).sum() == 10**3 - 4**3


# Slabs


@pytest.mark.parametrize("slab", [1, 7, 32, 1000])
def test_voxelize__slab_changes_no_byte(slab):
    meshes = {
        "crystal": [turned(box((-6, -5, -7), (6, 5, 7)), 1, (0.2, 0.1, 0.7))],
        "liquor": [turned(sphere(14 * VOXEL, 900), 3, (0, 6, 0))],
    }
    shape, size, origin = (37, 30, 25), 1.1 * VOXEL, (-3e-5, -2.9e-5, -3.3e-5)
    whole = voxelize(meshes, shape, size, origin, slab=37)
    np.testing.assert_array_equal(voxelize(meshes, shape, size, origin, slab=slab), whole)
    bodies = Bodies(meshes, shape, size, origin)
    bounds = [(z0, min(z0 + slab, 37)) for z0 in range(0, 37, slab)]
    # Slabs in any order: nothing is carried from one to the next.
    labels = {z0: bodies.labels(z0, z1) for z0, z1 in reversed(bounds)}
    np.testing.assert_array_equal(np.concatenate([labels[z0] for z0, _ in bounds]), whole)
    shares = {z0: bodies.fractions(z0, z1)["liquor"] for z0, z1 in reversed(bounds)}
    np.testing.assert_array_equal(
        np.concatenate([shares[z0] for z0, _ in bounds]), fractions(meshes, shape, size, origin)["liquor"]
    )


def test_solid__gives_the_slabs_of_occupancy():
    mesh = turned(sphere(9 * VOXEL, 500), 2)
    solid = Solid([mesh], (24, 20, 22), VOXEL)
    assert solid.shape == (24, 20, 22)
    assert solid.inside(5, 5).shape == (0, 20, 22)
    np.testing.assert_array_equal(solid.inside(5, 17), occupancy([mesh], (24, 20, 22), VOXEL)[5:17])


def test_voxelize__needs_little_more_than_its_result():
    # 512³ uint8 is 128 MiB, a slab of 32 planes 8 MiB: room for two slabs beside the result.
    program = (
        "import re, sys\n"
        "from tomoforge.samples.crystal import crystal_polyhedron\n"
        "from tomoforge.samples.voxelize import voxelize\n"
        "cube = crystal_polyhedron((1, 1, 1, 90, 90, 90), 'm-3m', {(1, 0, 0): 2e-4}).mesh()\n"
        "voxelize({'crystal': [cube]}, (8, 8, 8), 1e-6)\n"
        # ru_maxrss would start at that of the parent.
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 2**10\n"
        "before = peak()\n"
        "labels = voxelize({'crystal': [cube], 'liquor': [cube.moved([[2, 0, 0], [0, 2, 0], [0, 0, 2]], 0)]},\n"
        "                  (512, 512, 512), 1e-6)\n"
        "assert labels.all()\n"
        "assert 'open3d' not in sys.modules\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 128 + 16


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (0, 8, 8)}, "shape"),
        ({"shape": (8, 8)}, "shape"),
        ({"voxel_size": 0.0}, "voxel_size"),
        ({"voxel_size": float("nan")}, "voxel_size"),
        ({"origin": (0.0, float("inf"), 0.0)}, "origin"),
        ({"origin": (0.0, 0.0)}, "origin"),
        ({"meshes": {"ice": []}}, "ice"),
        ({"slab": 0}, "slab"),
    ],
)
def test_voxelize__bad_input_is_refused_by_name(arguments, message):
    given = {"meshes": {"crystal": [box((-1, -1, -1), (1, 1, 1))]}, "shape": (8, 8, 8)}
    with pytest.raises(InputError, match=message):
        voxelize(**{**given, "voxel_size": VOXEL, **arguments})


def test_voxelize__open_mesh_is_refused():
    cube = box((-1, -1, -1), (1, 1, 1))
    holed = TriangleMesh(cube.vertices, cube.triangles[1:])
    with pytest.raises(InputError, match=r"meshes\['crystal'\]\[1\] must be closed"):
        voxelize({"crystal": [cube, holed]}, (8, 8, 8), VOXEL)
    turned_face = cube.triangles.copy()
    turned_face[0] = turned_face[0, ::-1]
    with pytest.raises(InputError, match="closed"):
        occupancy([TriangleMesh(cube.vertices, turned_face)], (8, 8, 8), VOXEL)


def test_voxelize__body_that_faces_inwards_is_refused():
    with pytest.raises(InputError, match="outwards"):
        voxelize({"loop": [reversed_(box((-1, -1, -1), (1, 1, 1)))]}, (8, 8, 8), VOXEL)


def test_solid__planes_and_samples_out_of_range_are_refused():
    solid = Solid([box((-1, -1, -1), (1, 1, 1))], (8, 8, 8), VOXEL)
    for z0, z1 in ((-1, 4), (0, 9), (5, 4)):
        with pytest.raises(InputError, match="planes"):
            solid.inside(z0, z1)
        with pytest.raises(InputError, match="planes"):
            solid.fraction(z0, z1)
    with pytest.raises(InputError, match="samples"):
        solid.fraction(0, 8, 0)
    with pytest.raises(InputError, match="out must be uint8"):
        Bodies({}, (8, 8, 8), VOXEL).label_into(np.zeros((2, 8, 7), np.uint8), 0)


def test_triangle_mesh__indices_out_of_range_are_refused():
    with pytest.raises(InputError, match="triangles"):
        TriangleMesh(np.zeros((3, 3)), np.array([[0, 1, 3]]))
