"""The surface of a label as a triangle mesh, in micrometres, and its files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from skimage.measure import marching_cubes

from tomoforge.errors import InputError
from tomoforge.storage import replacing
from tomoforge.units import m_to_um

MeshFormat = Literal["ply", "stl"]


@dataclass(frozen=True)
class SurfaceMesh:
    """A closed surface.

    vertices : (vertex, 3) float32, x, y, z [µm] from the centre of voxel (0, 0, 0); faces : (face, 3) int32, corners
    anticlockwise seen from outside.
    """

    vertices: np.ndarray
    faces: np.ndarray

    def volume_um3(self) -> float:
        """What the surface encloses [µm³], by the divergence theorem; negative if it were inside out."""
        a, b, c = (self.vertices[self.faces[:, corner]].astype(np.float64) for corner in range(3))
        return float(np.einsum("fi,fi->f", a, np.cross(b, c)).sum() / 6)


def surface_mesh(labels: np.ndarray, label: int, voxel_size: float) -> SurfaceMesh:
    """The surface of one label by marching cubes.

    Parameters
    ----------
    labels : (z, y, x) uint8
    label : whose surface
    voxel_size : float [m]

    Returns
    -------
    SurfaceMesh
        Watertight, normals outward: every edge is run through as often one way as the other, once where the label
        does not touch itself along it. Where the label reaches the edge of the field, the surface is closed by a cap
        half a voxel outside the last voxel's centre: at the field's edge.

    Raises
    ------
    InputError
        labels is not (z, y, x) uint8, holds no such label, or voxel_size is not positive.

    Notes
    -----
    Of a label the surface runs half-way between voxels and shows their steps; nothing is smoothed, since smoothing
    shrinks thin films and wires.

    References
    ----------
    T. Lewiner, H. Lopes, A. W. Vieira and G. Tavares, J. Graphics Tools 8 (2003) 1: marching cubes without holes.
    """
    labels = np.asarray(labels)
    if labels.ndim != 3 or labels.dtype != np.uint8:
        raise InputError(f"labels must be (z, y, x) uint8, got {labels.dtype} of shape {labels.shape}")
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be positive metres, got {voxel_size!r}")
    mask = labels == label
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not spans[0].size:
        raise InputError(f"labels must hold the label {label}, there are {np.unique(labels).tolist()}")
    box = tuple(slice(int(where[0]), int(where[-1]) + 1) for where in spans)
    # Marching cubes takes float32: this is the largest array, so nothing else of its size is made beside it.
    inner = np.zeros([part.stop - part.start + 2 for part in box], dtype=np.float32)
    inner[1:-1, 1:-1, 1:-1] = mask[box]
    del mask
    # Its default, gradient_direction="descent", winds outward once z, y, x are put in the order x, y, z.
    vertices, faces, _, _ = marching_cubes(inner, level=0.5)
    origin = np.array([part.start for part in box]) - 1.0
    places = (vertices + origin)[:, ::-1] * m_to_um(voxel_size)
    return SurfaceMesh(places.astype(np.float32), faces.astype(np.int32))


def write_mesh(path: str | Path, mesh: SurfaceMesh, format: MeshFormat) -> None:
    """Write a mesh as binary little-endian PLY or STL, in micrometres; the same mesh gives the same bytes.

    Raises InputError for an unknown format.
    """
    if format not in ("ply", "stl"):
        raise InputError(f"format must be ply or stl, got {format!r}")
    data = _ply(mesh) if format == "ply" else _stl(mesh)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _ply(mesh: SurfaceMesh) -> bytes:
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment unit: micrometre\n"
        f"element vertex {len(mesh.vertices)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(mesh.faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    faces = np.empty(len(mesh.faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.faces
    return header.encode("ascii") + mesh.vertices.astype("<f4").tobytes() + faces.tobytes()


def _stl(mesh: SurfaceMesh) -> bytes:
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    triangles = np.zeros(
        len(mesh.faces), dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")]
    )
    triangles["normal"] = normals / np.where(length > 0, length, 1)
    triangles["corners"] = corners
    return b"unit: micrometre".ljust(80, b" ") + np.uint32(len(triangles)).tobytes() + triangles.tobytes()
