"""Voxels against analytic volumes, orientation, priority and bad input."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from tomoforge.errors import InputError
from tomoforge.samples.crystal import crystal_polyhedron
from tomoforge.samples.mesh import TriangleMesh
from tomoforge.samples.voxelize import voxelize

VOXEL = 2e-6


def box(low, high):
    """The box between two corners (x, y, z) in voxels around the field's middle."""
    cube = crystal_polyhedron((1, 1, 1, 90, 90, 90), "m-3m", {(1, 0, 0): 0.5}).mesh()
    low, high = np.array(low, float), np.array(high, float)
    return TriangleMesh((cube.vertices * (high - low) + (low + high) / 2) * VOXEL, cube.triangles)


def sphere(radius, points=3000):
    """A convex mesh with its vertices on a sphere of ``radius`` [m]."""
    i = np.arange(points) + 0.5
    z, turn = 1 - 2 * i / points, np.pi * (1 + np.sqrt(5)) * i
    ring = np.sqrt(1 - z * z)
    on_sphere = radius * np.c_[ring * np.cos(turn), ring * np.sin(turn), z]
    hull = ConvexHull(on_sphere)
    triangles = hull.simplices.copy()
    a, b, c = (on_sphere[triangles[:, k]] for k in range(3))
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), a) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    return TriangleMesh(on_sphere, triangles)


def test_voxelize__sphere_has_its_volume():
    radius = 20 * VOXEL
    labels = voxelize({"crystal": [sphere(radius)]}, (48, 48, 48), VOXEL)
    # The lattice-point error of a sphere of 20 voxels is below 0.3 %, the 3000-point hull lacks 0.2
    # %.
    assert (labels == 3).sum() * VOXEL**3 == pytest.approx(4 / 3 * np.pi * radius**3, rel=5e-3)


@pytest.mark.parametrize("shape", [(16, 16, 16), (15, 16, 17)])
def test_voxelize__box_is_exact_and_centred(shape):
    labels = voxelize({"crystal": [box((-3, -4, -5), (3, 4, 5))]}, shape, VOXEL)
    inside = np.argwhere(labels == 3)
    for axis, half in ((0, 5), (1, 4), (2, 3)):
        centre = (shape[axis] - 1) / 2
        expected = [i for i in range(shape[axis]) if -half <= i + 1e-4 - centre < half]
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


def test_voxelize__body_across_the_edge_is_cut():
    labels = voxelize({"loop": [box((-1, -1, -100), (1, 1, 0))]}, (8, 8, 8), VOXEL)
    assert (labels == 2).sum() == 2 * 2 * 4
    assert not labels[4:].any()
    outside = voxelize({"loop": [box((50, 50, 50), (60, 60, 60))]}, (8, 8, 8), VOXEL)
    assert not outside.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (0, 8, 8)}, "shape"),
        ({"shape": (8, 8)}, "shape"),
        ({"voxel_size": 0.0}, "voxel_size"),
        ({"voxel_size": float("nan")}, "voxel_size"),
        ({"meshes": {"ice": []}}, "ice"),
    ],
)
def test_voxelize__bad_input_is_refused_by_name(arguments, message):
    given = {"meshes": {"crystal": [box((-1, -1, -1), (1, 1, 1))]}, "shape": (8, 8, 8)}
    with pytest.raises(InputError, match=message):
        voxelize(**{**given, "voxel_size": VOXEL, **arguments})


def test_voxelize__open_mesh_is_refused():
    cube = box((-1, -1, -1), (1, 1, 1))
    holed = TriangleMesh(cube.vertices, cube.triangles[1:])
    with pytest.raises(InputError, match="closed"):
        voxelize({"crystal": [holed]}, (8, 8, 8), VOXEL)


def test_triangle_mesh__indices_out_of_range_are_refused():
    with pytest.raises(InputError, match="triangles"):
        TriangleMesh(np.zeros((3, 3)), np.array([[0, 1, 3]]))
