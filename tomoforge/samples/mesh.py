"""Closed triangle meshes in the sample frame: the common currency of crystal, loop, liquor and
voxels."""

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
