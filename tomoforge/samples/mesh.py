"""Closed triangle meshes in the sample frame: the common currency of crystal, loop, liquor and
voxels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tomoforge.errors import InputError


@dataclass(frozen=True, eq=False)
class TriangleMesh:
    """A closed surface.

    vertices : (v, 3) float64 [m], columns x, y, z
    triangles : (t, 3) int64 indices into vertices, counter-clockwise seen from outside
    """

    vertices: np.ndarray
    triangles: np.ndarray

    def __post_init__(self) -> None:
        vertices = np.asarray(self.vertices, dtype=np.float64)
        triangles = np.asarray(self.triangles, dtype=np.int64)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
            raise InputError(f"vertices must be finite and of shape (v, 3) in x, y, z, got {vertices.shape}")
        if triangles.ndim != 2 or triangles.shape[1] != 3:
            raise InputError(f"triangles must be of shape (t, 3), got {triangles.shape}")
        if triangles.size and not 0 <= triangles.min() <= triangles.max() < len(vertices):
            raise InputError(
                f"triangles must index the {len(vertices)} vertices, got indices "
                f"{triangles.min()} to {triangles.max()}"
            )
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "triangles", triangles)

    @property
    def volume(self) -> float:
        """Signed volume [m³] by the divergence theorem: positive where the triangles face
        outwards."""
        a, b, c = (self.vertices[self.triangles[:, k]] for k in range(3))
        return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest corner (3,) [m], x, y, z."""
        return self.vertices.min(axis=0), self.vertices.max(axis=0)

    def is_closed(self) -> bool:
        """True when every edge is shared by exactly two triangles that run along it in opposite
        senses."""
        edges = np.concatenate([self.triangles[:, [i, (i + 1) % 3]] for i in range(3)])
        n = len(self.vertices)
        forward = np.sort(edges[:, 0] * n + edges[:, 1])
        backward = np.sort(edges[:, 1] * n + edges[:, 0])
        return bool(len(edges) > 0 and np.array_equal(forward, backward) and (np.diff(forward) > 0).all())

    def moved(self, rotation: np.ndarray, translation: np.ndarray) -> "TriangleMesh":
        """The mesh turned by ``rotation`` (3, 3), then shifted by ``translation`` (3,) [m], x, y,
        z."""
        return TriangleMesh(self.vertices @ np.asarray(rotation).T + translation, self.triangles)


def ellipsoid(centre: Sequence[float], semi_axes: Sequence[float], subdivisions: int = 4) -> TriangleMesh:
    """An ellipsoid of an icosahedron whose triangles are quartered ``subdivisions`` times; lengths [m], x, y, z.

    Its vertices lie on the ellipsoid, so that it lacks some of the volume: 0.4 % at 4.
    """
    golden = (1 + 5**0.5) / 2
    corners = [(0.0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    points = [c[-i:] + c[:-i] for i in range(3) for c in corners]
    vertices = np.array(points) / np.linalg.norm(points[0])
    # The 20 triples of mutual neighbours, turned outwards.
    near = np.linalg.norm(vertices[:, None] - vertices, axis=2) < 1.1
    triples = [
        (i, j, k)
        for i in range(12)
        for j in range(i)
        for k in range(j)
        if near[i, j] and near[j, k] and near[i, k]
    ]
    triangles = np.array(
        [t if np.linalg.det(vertices[list(t)]) > 0 else (t[0], t[2], t[1]) for t in triples], dtype=np.int64
    )
    for _ in range(subdivisions):
        vertices, triangles = _quartered(vertices, triangles)
    return TriangleMesh(vertices * np.asarray(semi_axes) + np.asarray(centre), triangles)


def surface_points(meshes: Sequence[TriangleMesh], count: int) -> np.ndarray:
    """About ``count`` points (p, 3) [m] spread evenly over the meshes' surfaces, the same each time."""
    corners = np.concatenate([mesh.vertices[mesh.triangles] for mesh in meshes])
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    reached = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=1))
    # Even steps over the area, and within a triangle the R2 sequence (M. Roberts 2018): no random draw.
    chosen = np.searchsorted(reached, (np.arange(count) + 0.5) / count * reached[-1])
    u, v = ((np.arange(count) * step) % 1.0 for step in (0.7548776662466927, 0.5698402909980532))
    folded = u + v > 1
    u, v = np.where(folded, 1 - u, u)[:, None], np.where(folded, 1 - v, v)[:, None]
    return a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen]


def _quartered(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each triangle of a unit sphere as four, with the middles of its edges pushed out to the sphere."""
    edges = np.sort(
        np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1
    )
    unique, where = np.unique(edges, axis=0, return_inverse=True)
    middles = vertices[unique].sum(axis=1)
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    ab, bc, ca = (len(vertices) + part for part in np.split(where.ravel(), 3))
    a, b, c = triangles.T
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return np.concatenate([vertices, middles]), np.concatenate([np.stack(part, axis=1) for part in parts])
