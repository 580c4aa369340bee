"""Exact path lengths of straight rays through a label volume, by voxel traversal.

Rays start at points inside the volume and run to its edge. Every crossing of a voxel face is visited, so
the only error is that of the voxels themselves: no step length, no interpolation. With ``surface="smooth"`` so is
every crossing of the planes that cut voxels (``tomoforge.absorption.smooth_surface``).

Points are index coordinates in array order (z, y, x) as in ``tomoforge.geometry``: voxel (i, j, k) has its
centre at (i, j, k) and fills i ± ½, j ± ½, k ± ½. Directions are unit vectors (z, y, x).

References: J. Amanatides, A. Woo, "A fast voxel traversal algorithm for ray tracing", Eurographics 1987.
"""

from typing import Any

import numpy as np

from tomoforge.absorption import kernels_cuda
from tomoforge.absorption.path_kernels import Grid, MixedGrid, depth_table, material_lengths
from tomoforge.absorption.smooth_surface import Surface, cut_box, smooth_surface
from tomoforge.backend import array_module, to_host
from tomoforge.errors import InputError

# A direction whose length is further from 1 than this is refused: float32 rounds to 1e-7, a forgotten
# normalisation or a wavelength left in s0 is off by far more.
_UNIT_TOLERANCE = 1e-6


def path_lengths(
    labels: np.ndarray,
    voxel_size: float,
    points: np.ndarray,
    directions: np.ndarray,
    n_materials: int,
    surface: Surface = "voxels",
) -> np.ndarray:
    """Length in each material of the ray from every point along every direction to the volume's edge.

    Parameters
    ----------
    labels : (z, y, x) integers 0 … n_materials − 1
    voxel_size : float [m]
    points : (point, 3) float, index coordinates (z, y, x), inside the volume
    directions : (direction, 3) float, unit vectors (z, y, x)
    n_materials : int
    surface : "voxels" traces the labels as they are, steps and all; "smooth" the smooth body behind them

    Returns
    -------
    (point, direction, material) float64 [m]; the sum over materials is the chord to the volume's edge. On the
    GPU of the labels, if they lie on one.

    Raises
    ------
    InputError
        for labels outside 0 … n_materials − 1, points outside the volume, directions not of unit
        length, a voxel size that is not positive.

    Notes
    -----
    The result has the same bytes for any number of threads: each ray belongs to one thread.
    """
    grid = label_grid(labels)
    size = positive_size(voxel_size)
    start = checked_points(points, grid.shape)
    rays = unit_vectors("directions", directions)
    if grid.size and int(grid.max()) >= n_materials:
        raise InputError(
            f"n_materials must exceed the largest label {int(grid.max())}, got {n_materials}; "
            "is there a label of another file's convention?"
        )
    if (xp := array_module(labels)) is not np and surface == "voxels":
        return kernels_cuda.material_lengths(xp, xp.asarray(grid), n_materials, start, rays) * size
    inner, origin = traced_box(grid, np.arange(256) > 0, surface)
    lengths = np.zeros((len(start), len(rays), n_materials))
    if start.size and rays.size:
        material_lengths(inner, start - origin, rays, np.array(grid.shape), np.array(origin), lengths)
    return lengths * size


def optical_depths(
    labels: np.ndarray,
    voxel_size: float,
    mu: np.ndarray,
    points: np.ndarray,
    directions: np.ndarray,
    surface: Surface = "voxels",
) -> np.ndarray:
    """Optical depth Σ µ_m L_m of the ray from every point along every direction to the volume's edge.

    labels : (z, y, x) integers; voxel_size : float [m]; mu : (label,) float64 [1/m]; points : (point, 3)
    index coordinates; directions : (direction, 3) unit vectors; surface : as for ``path_lengths``.
    Returns (direction, point) float64, on the GPU of the labels, if they lie on one. Raises InputError as
    ``path_lengths`` does.

    Notes: the product of ``path_lengths`` with ``mu``, without keeping the lengths.
    """
    grid = label_grid(labels)
    table = np.ascontiguousarray(mu, dtype=np.float64) * positive_size(voxel_size)
    start = checked_points(points, grid.shape)
    rays = unit_vectors("directions", directions)
    if grid.size and int(grid.max()) >= table.size:
        raise InputError(f"mu must have an entry for label {int(grid.max())}, got {table.size} entries")
    matters = np.zeros(256, dtype=bool)
    matters[: table.size] = table[:256] != 0
    inner, origin = traced_box(grid, matters, surface)
    return depth_table(beside(labels, inner), table, start - origin, rays)


def label_grid(labels: np.ndarray) -> np.ndarray:
    """``labels`` as a contiguous (z, y, x) uint8 array on the host. Raises InputError for anything else."""
    array = to_host(labels)
    if array.ndim != 3 or array.size == 0:
        raise InputError(f"labels must be a non-empty volume (z, y, x), got shape {array.shape}")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"labels must be integers, got {array.dtype}; is this a volume of µ instead of labels?"
        )
    if array.dtype != np.uint8 and (array.min() < 0 or array.max() > 255):
        raise InputError(f"labels must lie in 0 … 255, got {array.min()} … {array.max()}")
    return np.ascontiguousarray(array, dtype=np.uint8)


def present_labels(grid: np.ndarray) -> list[int]:
    """The labels that occur in a (z, y, x) uint8 volume, ascending."""
    # By slices: unique() would sort the volume and bincount() copy it as int64.
    counts = sum(np.bincount(plane.reshape(-1), minlength=256) for plane in grid)
    return np.flatnonzero(counts).tolist()


def positive_size(voxel_size: float) -> float:
    """``voxel_size`` [m] as a float. Raises InputError unless positive and finite."""
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be positive metres, got {voxel_size!r}")
    return float(voxel_size)


def unit_vectors(name: str, vectors: np.ndarray) -> np.ndarray:
    """``vectors`` as (n, 3) float64 of length 1 to the last bit or two; ``name`` is for the message."""
    array = np.ascontiguousarray(vectors, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 3:
        raise InputError(f"{name} must be (n, 3) unit vectors (z, y, x), got shape {array.shape}")
    length = np.linalg.norm(array, axis=1)
    wrong = ~(np.abs(length - 1) <= _UNIT_TOLERANCE)  # so written that NaN is wrong too
    if wrong.any():
        first = int(np.argmax(wrong))
        raise InputError(
            f"{name} must be finite unit vectors, got length {length[first]!r} at index {first} "
            f"({int(wrong.sum())} of {len(array)} are wrong); divide by their length first"
        )
    return array / length[:, None]


def checked_points(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """``points`` (n, 3) moved to corner coordinates, where voxel i fills i … i + 1. Raises InputError."""
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 3:
        raise InputError(f"points must be (n, 3) index coordinates (z, y, x), got shape {array.shape}")
    corner = array + 0.5
    inside = (corner >= 0) & (corner <= np.array(shape))
    if not inside.all():
        first = int(np.argmin(inside.all(axis=1)))
        raise InputError(
            f"points must lie inside the volume {shape}, −½ … n − ½ on each axis, got "
            f"{array[first].tolist()} at index {first}; are they in metres?"
        )
    return corner


def traced_box(grid: np.ndarray, matters: np.ndarray, surface: Surface) -> tuple[Grid, np.ndarray]:
    """What rays are traced through, cropped to the labels of the mask ``matters`` (256,), and its origin (3,).

    Raises InputError for another ``surface`` than "voxels" and "smooth".
    """
    if surface == "smooth":
        return cut_box(smooth_surface(grid), matters)
    if surface != "voxels":
        raise InputError(f'surface must be "voxels" or "smooth", got {surface!r}')
    return crop(grid, matters[grid])


def beside(labels: Any, box: Grid) -> Any:
    """``box`` on the GPU of ``labels``, if they lie on one; what planes cut is traced on the host."""
    return box if isinstance(box, MixedGrid) else array_module(labels).asarray(box)


def crop(grid: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest box of ``grid`` that holds every voxel of the mask ``keep``, and its origin (3,)."""
    planes = [np.flatnonzero(keep.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if planes[0].size == 0:  # nothing absorbs: a box of one voxel gives every ray the depth it has
        return np.ascontiguousarray(grid[:1, :1, :1]), np.zeros(3, dtype=np.int64)
    low = np.array([p[0] for p in planes])
    high = np.array([p[-1] + 1 for p in planes])
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return np.ascontiguousarray(grid[box]), low
