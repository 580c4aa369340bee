"""Closed meshes to a label volume."""

from collections.abc import Mapping, Sequence

import numpy as np

from tomoforge.errors import InputError
from tomoforge.samples.mesh import TriangleMesh
from tomoforge.volumes import LABEL_NAMES

# Where bodies overlap the later one wins: crystal > loop > liquor.
PRIORITY = ("liquor", "loop", "crystal")

# Slices that are asked of Open3D at once: memory stays at a few times 12 bytes × slab voxels.
_SLAB = 16
# Rays along each query: with three, one that grazes a shared edge is outvoted.
_SAMPLES = 3
# Voxel centres are moved by this part of a voxel, so that they do not lie on faces of aligned
# bodies.
_OFFSET = 1.2345e-4

# The origin is either given or such that the field's middle is at (0, 0, 0).
Origin = tuple[float, float, float]


def voxelize(
    meshes: Mapping[str, Sequence[TriangleMesh]],
    shape: tuple[int, int, int],
    voxel_size: float,
    origin: Origin | None = None,
) -> np.ndarray:
    """Label each voxel by the body that holds its centre.

    Parameters
    ----------
    meshes : 'liquor', 'loop', 'crystal' -> closed meshes [m], united; overlaps go to crystal, then
        loop, then liquor
    shape : voxels along z, y, x
    voxel_size : float [m]
    origin : x, y, z [m] of the centre of voxel (0, 0, 0); None puts the middle of the field at (0,
        0, 0)

    Returns
    -------
    (z, y, x) uint8: 0 background · 1 liquor · 2 loop · 3 crystal

    Raises
    ------
    InputError
        for an unknown label, a mesh that is not closed, a shape or voxel size that is not positive.
    """
    unknown = sorted(set(meshes) - set(PRIORITY))
    if unknown:
        raise InputError(f"meshes must be named {', '.join(PRIORITY)}, got {', '.join(unknown)}")
    labels = np.zeros(checked_shape(shape), dtype=np.uint8)
    for name in PRIORITY:
        if meshes.get(name):
            inside = occupancy(meshes[name], shape, voxel_size, origin)
            labels[inside] = LABEL_NAMES[name]
    return labels


def occupancy(
    meshes: Sequence[TriangleMesh],
    shape: tuple[int, int, int],
    voxel_size: float,
    origin: Origin | None = None,
) -> np.ndarray:
    """Which voxel centres lie in any of the closed meshes: (z, y, x) bool. Arguments as in
    ``voxelize``."""
    n = checked_shape(shape)
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be positive metres, got {voxel_size!r}")
    first = field_origin(n, voxel_size) if origin is None else np.array(origin, dtype=np.float64)
    inside = np.zeros(n, dtype=bool)
    for i, mesh in enumerate(meshes):
        if not mesh.is_closed():
            raise InputError(
                f"meshes[{i}] must be closed, each edge shared by two triangles that run along it "
                f"in opposite senses, got an open or self-touching one of {len(mesh.triangles)} "
                "triangles; split it into closed parts"
            )
        _fill(inside, mesh, voxel_size, first)
    return inside


def field_origin(shape: tuple[int, int, int], voxel_size: float) -> np.ndarray:
    """Centre (3,) [m], x, y, z, of voxel (0, 0, 0) when the field's middle is at the origin."""
    return -(np.array(shape[::-1]) - 1) / 2 * voxel_size


def checked_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """``shape`` as three positive ints, or InputError."""
    sizes = tuple(shape)
    if len(sizes) != 3 or any(int(n) != n or n < 1 for n in sizes):
        raise InputError(f"shape must be three positive numbers of voxels (z, y, x), got {sizes}")
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def _fill(inside: np.ndarray, mesh: TriangleMesh, voxel_size: float, first: np.ndarray) -> None:
    """Set the voxels inside one mesh, slab by slab, within its bounding box."""
    # Imported here: it takes two seconds, and recipes and tables do without it.
    import open3d as o3d

    low, high = mesh.bounds
    start = np.maximum(np.floor((low - first) / voxel_size).astype(int), 0)
    stop = np.minimum(np.ceil((high - first) / voxel_size).astype(int) + 1, inside.shape[::-1])
    if (start >= stop).any():
        return
    # Voxel units around the field's corner: float32 coordinates in metres would be coarse in
    # Open3D's tests.
    vertices = ((mesh.vertices - first) / voxel_size).astype(np.float32)
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(o3d.core.Tensor(vertices), o3d.core.Tensor(mesh.triangles.astype(np.uint32)))
    x, y = (np.arange(start[i], stop[i], dtype=np.float32) + _OFFSET for i in (0, 1))
    for z0 in range(start[2], stop[2], _SLAB):
        z1 = min(z0 + _SLAB, stop[2])
        z = np.arange(z0, z1, dtype=np.float32) + _OFFSET
        grid = np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1], axis=-1).astype(np.float32)
        found = scene.compute_occupancy(o3d.core.Tensor(grid), nsamples=_SAMPLES).numpy() > 0
        inside[z0:z1, start[1] : stop[1], start[0] : stop[0]] |= found
