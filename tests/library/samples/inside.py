"""Which points lie inside: tests that share nothing with the voxelizer, and bodies to put to them.

Points are (n, 3) float64 [m], x, y, z.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from tomoforge.samples.crystal import crystal_polyhedron
from tomoforge.samples.mesh import TriangleMesh
from tomoforge.samples.voxelize import field_origin

VOXEL = 2e-6  # of the bodies below
# Open3D computes in float32: bodies are given to it at about this size, so that none of its fixed
# tolerances meets micrometres.
_SIZE = 100.0


def centres(shape, voxel_size, origin=None):
    """Voxel centres (n, 3) [m], in the order of a raveled (z, y, x) array."""
    first = field_origin(shape, voxel_size) if origin is None else np.array(origin)
    return np.indices(shape).reshape(3, -1).T[:, ::-1] * voxel_size + first


def open3d_inside(meshes: Sequence[TriangleMesh], points: np.ndarray, nsamples: int = 3) -> np.ndarray:
    """(n,) bool: inside more connected parts that face outwards than parts that face inwards.

    Open3D counts crossings by parity, which would call the overlap of two parts outside, so each part is
    asked for alone. float32: not to be trusted within 1e-4 of the body's size / 100 of a surface.
    """
    depth = np.zeros(len(points), dtype=int)
    for mesh in meshes:
        for part in connected_parts(mesh):
            scene, placed = _scene([part], points)
            found = scene.compute_occupancy(placed, nsamples=nsamples).numpy() > 0
            depth += np.where(found, 1 if part.volume > 0 else -1, 0)
    return depth > 0


def surface_distance(meshes: Sequence[TriangleMesh], points: np.ndarray) -> np.ndarray:
    """Distance [m] of each point from the nearest triangle: (n,) float64.

    Plain geometry in float64: Open3D's float32 is wrong by 0.01 voxel at faces a tenth of a voxel wide.
    """
    nearest = np.full(len(points), np.inf)
    corners = np.concatenate([mesh.vertices[mesh.triangles] for mesh in meshes])
    for part in np.array_split(np.arange(len(points)), len(points) * len(corners) // 1_000_000 + 1):
        p = points[part, np.newaxis]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        area = np.linalg.norm(normal, axis=1)
        over = np.tile(area > 0, (len(part), 1))
        for k in range(3):
            start, along = corners[:, k], corners[:, (k + 1) % 3] - corners[:, k]
            t = np.einsum("ptk,tk->pt", p - start, along) / np.maximum((along**2).sum(axis=1), 1e-300)
            foot = start + np.clip(t, 0, 1)[..., np.newaxis] * along
            nearest[part] = np.minimum(nearest[part], np.linalg.norm(p - foot, axis=2).min(axis=1))
            over &= np.einsum("ptk,tk->pt", p - start, np.cross(normal, along)) >= 0
        height = abs(np.einsum("ptk,tk->pt", p - corners[:, 0], normal)) / np.where(area > 0, area, 1)
        nearest[part] = np.minimum(nearest[part], np.where(over, height, np.inf).min(axis=1))
    return nearest


def disagreements(
    found: np.ndarray, meshes: Sequence[TriangleMesh], points: np.ndarray, tolerance: float
) -> int:
    """How many of ``found`` (n,) bool differ from Open3D further than ``tolerance`` [m] from a surface."""
    wrong = np.flatnonzero(found != open3d_inside(meshes, points))
    return int((surface_distance(meshes, points[wrong]) > tolerance).sum()) if len(wrong) else 0


def halfspace_excess(normals: np.ndarray, offsets: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(n,) float64: greatest n·p − d over the faces of a convex body, negative inside, positive outside."""
    chunks = np.array_split(points, len(points) * len(offsets) // 5_000_000 + 1)
    return np.concatenate([(chunk @ normals.T - offsets).max(axis=1) for chunk in chunks])


def halfspace_inside(normals: np.ndarray, offsets: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(n,) bool: behind every face, n·p < d, of a convex body."""
    return halfspace_excess(normals, offsets, points) < 0


def winding_inside(meshes: Sequence[TriangleMesh], points: np.ndarray) -> np.ndarray:
    """(n,) bool: winding number from solid angles above 1/2, in float64, also for bodies that cut themselves.

    Reference: A. van Oosterom, J. Strackee, IEEE Trans. Biomed. Eng. BME-30 (1983) 125, eq. 8.
    """
    total = np.zeros(len(points))
    for mesh in meshes:
        corners = mesh.vertices[mesh.triangles]
        for part in np.array_split(np.arange(len(points)), len(points) * len(corners) // 2_000_000 + 1):
            a, b, c = (corners[:, k] - points[part, np.newaxis] for k in range(3))
            la, lb, lc = (np.linalg.norm(v, axis=2) for v in (a, b, c))
            top = np.einsum("ptk,ptk->pt", a, np.cross(b, c))
            ab, bc, ca = (np.einsum("ptk,ptk->pt", u, v) for u, v in ((a, b), (b, c), (c, a)))
            total[part] += np.arctan2(top, la * lb * lc + ab * lc + bc * la + ca * lb).sum(axis=1)
    return total / (2 * np.pi) > 0.5


def connected_parts(mesh: TriangleMesh) -> list[TriangleMesh]:
    """The pieces of a mesh that share no vertex."""
    t, n = mesh.triangles, len(mesh.vertices)
    links = coo_matrix(
        (np.ones(2 * len(t)), (np.r_[t[:, 0], t[:, 1]], np.r_[t[:, 1], t[:, 2]])), shape=(n, n)
    )
    part = connected_components(links, directed=False)[1][t[:, 0]]
    return [TriangleMesh(mesh.vertices, t[part == i]) for i in np.unique(part)]


def convex_mesh(points: np.ndarray) -> TriangleMesh:
    """The convex hull of points (n, 3) as a closed mesh that faces outwards."""
    hull = ConvexHull(points)
    used, triangles = np.unique(hull.simplices, return_inverse=True)
    vertices, triangles = hull.points[used], triangles.reshape(-1, 3)
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), hull.equations[:, :3]) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    return TriangleMesh(vertices, triangles)


def halfspaces(mesh: TriangleMesh) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals (f, 3) and offsets (f,) [m] of the planes of a convex mesh."""
    equations = ConvexHull(mesh.vertices).equations
    return equations[:, :3], -equations[:, 3]


def _frame(meshes):
    low = np.min([m.vertices[m.triangles].min(axis=(0, 1)) for m in meshes], axis=0)
    high = np.max([m.vertices[m.triangles].max(axis=(0, 1)) for m in meshes], axis=0)
    return (low + high) / 2, (high - low).max() / _SIZE


def _scene(meshes, points):
    # Imported here: it takes two seconds, and most tests do without it.
    import open3d as o3d

    middle, scale = _frame(meshes)
    scene = o3d.t.geometry.RaycastingScene()
    for mesh in meshes:
        scene.add_triangles(
            o3d.core.Tensor(((mesh.vertices - middle) / scale).astype(np.float32)),
            o3d.core.Tensor(mesh.triangles.astype(np.uint32)),
        )
    return scene, o3d.core.Tensor(((points - middle) / scale).astype(np.float32))


def box(low, high):
    """The box between two corners (x, y, z) in voxels around the field's middle."""
    cube = crystal_polyhedron((1, 1, 1, 90, 90, 90), "m-3m", {(1, 0, 0): 0.5}).mesh()
    low, high = np.array(low, float), np.array(high, float)
    return TriangleMesh((cube.vertices * (high - low) + (low + high) / 2) * VOXEL, cube.triangles)


def sphere(radius, points=3000):
    """A convex mesh of 2 × points − 4 triangles with its vertices on a sphere of ``radius`` [m]."""
    i = np.arange(points) + 0.5
    z, turn = 1 - 2 * i / points, np.pi * (1 + np.sqrt(5)) * i
    ring = np.sqrt(1 - z * z)
    return convex_mesh(radius * np.c_[ring * np.cos(turn), ring * np.sin(turn), z])


def turned(mesh, seed, shift=(0, 0, 0)):
    """A mesh turned at random, then shifted by voxels (x, y, z)."""
    return mesh.moved(Rotation.random(random_state=seed).as_matrix(), np.array(shift) * VOXEL)


def joined(*meshes):
    """Several parts as one mesh."""
    starts = np.cumsum([0, *(len(m.vertices) for m in meshes)])
    return TriangleMesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.triangles + n for m, n in zip(meshes, starts, strict=False)]),
    )


def reversed_(mesh):
    return TriangleMesh(mesh.vertices, mesh.triangles[:, ::-1])


def centroid(weights):
    """Centre of mass (x, y, z) [voxels] from the middle of the field."""
    total = weights.sum(dtype=float)
    sums = (weights.sum(axis=axes, dtype=float) for axes in ((0, 1), (0, 2), (1, 2)))
    return np.array([s @ (np.arange(len(s)) - (len(s) - 1) / 2) for s in sums]) / total


OCTAHEDRON = crystal_polyhedron((1, 1, 1, 90, 90, 90), "m-3m", {(1, 1, 1): 80 * VOXEL / np.sqrt(3)}).mesh()
