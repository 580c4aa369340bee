"""Occupied fractions of voxels: volumes, exact halves, overlaps, priority."""

import numpy as np
import pytest

from tests.library.samples.inside import OCTAHEDRON, VOXEL, box, centroid, joined, sphere, turned
from tomoforge.samples.mesh import TriangleMesh
from tomoforge.samples.voxelize import PRIORITY, Solid, fractions, voxelize


def test_fraction__volume_is_that_of_the_mesh():
    ball = turned(sphere(25.3 * VOXEL, 5000), 3, (0.31, -0.17, 0.23))
    share = Solid([ball], (64, 64, 64), VOXEL).fraction(0, 64)
    assert share.sum(dtype=float) * VOXEL**3 == pytest.approx(ball.volume, rel=1e-4)
    np.testing.assert_allclose(centroid(share), (0.31, -0.17, 0.23), atol=1e-3)
    # 4/3 r³, independent of ``TriangleMesh.volume``.
    diamond = turned(TriangleMesh(OCTAHEDRON.vertices * 0.35, OCTAHEDRON.triangles), 4)
    share = Solid([diamond], (64, 64, 64), VOXEL).fraction(0, 64)
    assert share.sum(dtype=float) == pytest.approx(4 / 3 * 28**3, rel=1e-4)


@pytest.mark.parametrize("samples", [1, 3, 4])
def test_fraction__is_exact_along_x(samples):
    share = Solid([box((-2.3, -2, -2), (1.6, 2, 2))], (8, 8, 8), VOXEL).fraction(0, 8, samples)
    # x from −2.3 to 1.6 around the corner of voxel 4; lengths are in steps of 2^-30.
    expected = np.zeros((8, 8, 8))
    expected[2:6, 2:6, 1:6] = [0.3, 1, 1, 1, 0.6]
    np.testing.assert_allclose(share, expected, atol=1e-7)


def test_fraction__box_over_half_a_voxel_is_exactly_half():
    for axis in range(3):
        high = np.full(3, 2.0)
        high[axis] = 1.5
        share = Solid([box((-2, -2, -2), high)], (8, 8, 8), VOXEL).fraction(0, 8)
        expected = np.zeros((8, 8, 8), dtype=np.float32)
        expected[2:6, 2:6, 2:6] = 1
        np.moveaxis(expected, 2 - axis, 0)[5] /= 2
        np.testing.assert_array_equal(share, expected)


def test_fraction__overlap_within_a_voxel_is_counted_once():
    # Both parts hold the same 0.4 of each voxel: clipping sums to 1 would give 0.8.
    part = box((-0.3, -2, -2), (0.1, 2, 2))
    one = Solid([part], (5, 5, 5), VOXEL).fraction(0, 5)
    assert one[2, 2, 2] == pytest.approx(0.4)
    np.testing.assert_array_equal(Solid([part, part], (5, 5, 5), VOXEL).fraction(0, 5), one)
    np.testing.assert_array_equal(Solid([joined(part, part)], (5, 5, 5), VOXEL).fraction(0, 5), one)


def test_fractions__go_to_crystal_then_loop_then_liquor():
    meshes = {
        "liquor": [box((-3, -3, -3), (3, 3, 3))],
        "loop": [box((-0.25, -4, -4), (1.5, 4, 4))],
        "crystal": [box((-0.5, -4, -4), (0.25, 4, 4))],
    }
    found = fractions(meshes, (9, 9, 9), VOXEL)
    row = {name: share[4, 4] for name, share in found.items()}
    # Around voxel 4: crystal −0.5 … 0.25, loop 0.25 … 1.5, liquor the rest of −3 … 3.
    np.testing.assert_allclose(row["crystal"], [0, 0, 0, 0, 0.75, 0, 0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(row["loop"], [0, 0, 0, 0, 0.25, 1, 0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(row["liquor"], [0, 0.5, 1, 1, 0, 0, 1, 0.5, 0], atol=1e-7)


def test_fractions__sum_is_the_union_and_at_most_one():
    meshes = {
        "crystal": [turned(box((-6, -5, -7), (6, 5, 7)), 1)],
        "loop": [turned(sphere(9 * VOXEL, 200), 2, (4, 0, 0))],
        "liquor": [turned(sphere(11 * VOXEL, 200), 3, (0, 3, 0))],
    }
    found = fractions(meshes, (28, 29, 30), VOXEL)
    total = sum(found[name].astype(float) for name in PRIORITY)
    union = Solid([part for parts in meshes.values() for part in parts], (28, 29, 30), VOXEL).fraction(0, 28)
    # float32 steps at 1 are 6e-8, three of them.
    np.testing.assert_allclose(total, union, atol=2e-7)
    assert total.max() <= 1 + 2e-7
    np.testing.assert_array_equal(
        found["crystal"], Solid(meshes["crystal"], (28, 29, 30), VOXEL).fraction(0, 28)
    )
    assert all(share.dtype == np.float32 and share.min() >= 0 for share in found.values())


def test_fractions__absent_bodies_are_zero():
    found = fractions({"loop": [box((-1, -1, -1), (1, 1, 1))], "liquor": []}, (4, 4, 4), VOXEL)
    assert {name: float(share.sum()) for name, share in found.items()} == {
        "liquor": 0,
        "loop": 8,
        "crystal": 0,
    }
    assert not voxelize({}, (4, 4, 4), VOXEL).any()
