"""Path length of every material behind every detector pixel.

Joseph's method (IEEE Trans. Med. Imaging 1, 192 (1982)) on the indicator function of each label: a ray visits
each voxel row (or column) once and shares its step linearly between the two nearest voxels. Interpolating
indicators, never label values, keeps the materials apart. No volume is rotated and no float volume made.
"""

import numba
import numpy as np

from tomoforge.errors import InputError


def project_thickness(
    labels: np.ndarray,
    voxel_size: float,
    angles: np.ndarray,
    n_materials: int,
    *,
    n_columns: int | None = None,
    rotation_centre: float | None = None,
    oversampling: int = 1,
) -> np.ndarray:
    """Path length of every material for every detector pixel and angle, for a parallel beam.

    Parameters
    ----------
    labels : (z, y, x) uint8, label m is material m, 0 the background.
    voxel_size : float [m], also the detector pixel.
    angles : (angle,) [rad], convention of ``tomoforge.geometry``.
    n_materials : number of materials with the background, so that labels run from 0 to n_materials − 1.
    n_columns : detector columns, the width of the volume if None.
    rotation_centre : detector column [pixels] on which the axis (the centre of the volume) falls; the
        middle if None.
    oversampling : columns a pixel is divided into; rays run through the centres of the divisions.

    Returns
    -------
    (angle, material, y, x) float32 [m]; y is the volume's z, x has n_columns·oversampling entries. Material 0
    is the way through background inside the volume.

    Raises
    ------
    InputError
        For a label that has no material, an empty volume, an angle that is not finite, sizes that are not
        positive.
    """
    labels = check_labels(labels, n_materials)
    angles = np.atleast_1d(np.asarray(angles, dtype=np.float64))
    if angles.ndim != 1 or angles.size == 0 or not np.isfinite(angles).all():
        raise InputError(f"angles must be a non-empty list of finite radians, got {angles!r}")
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be positive metres, got {voxel_size!r}")
    if oversampling < 1:
        raise InputError(f"oversampling must be at least 1, got {oversampling}")
    columns = labels.shape[2] if n_columns is None else n_columns
    if columns < 1:
        raise InputError(f"n_columns must be at least 1, got {n_columns}")
    centre = (columns - 1) / 2 if rotation_centre is None else rotation_centre
    fine = (np.arange(columns * oversampling) + 0.5) / oversampling - 0.5 - centre  # u in pixels
    along_z = np.ascontiguousarray(labels.transpose(1, 2, 0))  # a ray reads whole z columns
    first, last = _occupied_range(along_z)
    out = np.empty((angles.size, n_materials, labels.shape[0], fine.size), dtype=np.float32)
    for n, angle in enumerate(angles):
        _project(along_z, first, last, np.cos(angle), np.sin(angle), fine, voxel_size, out[n])
    return out


def check_labels(labels: np.ndarray, n_materials: int) -> np.ndarray:
    """``labels`` as uint8 if it is a (z, y, x) volume of labels below ``n_materials``; else InputError."""
    array = np.asarray(labels)
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(f"labels must be a non-empty (z, y, x) volume, got shape {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"labels must be integers, got {array.dtype}; was a µ volume passed?")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= n_materials:
        raise InputError(
            f"labels must lie in 0…{n_materials - 1}, one for each of the {n_materials} materials with the "
            f"background, got labels from {low} to {high}; give the further labels a material"
        )
    return array.astype(np.uint8, copy=False)


@numba.njit(parallel=True, cache=True)
def _occupied_range(along_z):
    """First and one past the last z with a label other than 0, for each (y, x)."""
    ny, nx, nz = along_z.shape
    first = np.zeros((ny, nx), np.int32)
    last = np.zeros((ny, nx), np.int32)
    for iy in numba.prange(ny):
        for ix in range(nx):
            lo, hi = nz, 0
            for iz in range(nz):
                if along_z[iy, ix, iz] != 0:
                    if lo == nz:
                        lo = iz
                    hi = iz + 1
            first[iy, ix] = lo
            last[iy, ix] = hi
    return first, last


@numba.njit(parallel=True, cache=True)
def _project(along_z, first, last, cosine, sine, fine, voxel_size, out):
    ny, nx, nz = along_z.shape
    n_materials = out.shape[0]
    cx, cy = (nx - 1) / 2, (ny - 1) / 2
    over_rows = abs(cosine) >= abs(sine)  # step along y, else along x
    steps = ny if over_rows else nx
    across = nx if over_rows else ny
    step = voxel_size / max(abs(cosine), abs(sine))
    for column in numba.prange(fine.size):  # no two threads share a column: same bytes for any number
        u = fine[column]
        path = np.zeros((n_materials, nz), np.float32)
        inside = np.float32(0)
        for k in range(steps):
            # The point of the ray on this voxel row: u = x cosθ + y sinθ solved for the other coordinate.
            if over_rows:
                position = (u - (k - cy) * sine) / cosine + cx
            else:
                position = (u - (k - cx) * cosine) / sine + cy
            low = int(np.floor(position))
            for side in range(2):
                at = low + side
                if at < 0 or at >= across:
                    continue
                weight = np.float32(position - low) if side == 1 else np.float32(1 - (position - low))
                weight *= np.float32(step)
                inside += weight
                iy, ix = (k, at) if over_rows else (at, k)
                for iz in range(first[iy, ix], last[iy, ix]):
                    path[along_z[iy, ix, iz], iz] += weight
        for iz in range(nz):
            filled = np.float32(0)
            for m in range(1, n_materials):
                out[m, iz, column] = path[m, iz]
                filled += path[m, iz]
            out[0, iz, column] = max(inside - filled, np.float32(0))
