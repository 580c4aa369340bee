"""Compiled traversal of label volumes, and the sums over crystal points that need it.

Checked input throughout: ``grid`` (z, y, x) uint8 or a ``MixedGrid``; ``mu`` (label,) float64 per voxel length;
``points`` (point, 3) float64 corner coordinates (voxel i fills i … i + 1), rays (ray, 3) float64 unit vectors.
Points 2k and 2k + 1 are two draws from one stratum. Each ray or reflection belongs to one thread, so that
the bytes are the same for any number of threads. Where ``grid`` lies on a GPU, so do the tables and ``into``.
"""

from typing import Any, NamedTuple

import numba
import numpy as np

from tomoforge.absorption import kernels_cuda
from tomoforge.backend import array_module
from tomoforge.compilation import compiled

_NO_PLANES = np.zeros((0, 7))


class MixedGrid(NamedTuple):
    """Labels whose voxels may be cut in two by a plane, or by two or three that meet in an edge.

    codes : (z, y, x) int32, a label below 256, else 256 + row of ``planes``; planes : (row, 7) float64, unit normal
    (z, y, x), normal · point on the plane in corner coordinates, the label of what lies behind this plane and all
    further ones, the label of the rest of the voxel, the row of the voxel's next plane or −1.
    """

    codes: np.ndarray
    planes: np.ndarray


Grid = np.ndarray | MixedGrid


def _parts(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    return (grid.codes, grid.planes) if isinstance(grid, MixedGrid) else (grid, _NO_PLANES)


def depth_table(grid: Grid, mu: np.ndarray, points: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """(ray, point) float64 optical depths."""
    if (xp := array_module(grid)) is not np:
        return kernels_cuda.depth_table(xp, grid, mu, points, rays)
    depths = np.empty((len(rays), len(points)))
    if depths.size:
        _depth_table(*_parts(grid), mu, points, rays, depths)
    return depths


def transmission_table(grid: Grid, mu: np.ndarray, points: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """(ray, 2, pair) float32 transmissions exp(−Σ µ L): first points of all pairs, then second ones."""
    if (xp := array_module(grid)) is not np:
        return kernels_cuda.transmission_table(xp, grid, mu, points, rays)
    table = np.empty((len(rays), 2, len(points) // 2), dtype=np.float32)
    if table.size:
        _transmission_table(*_parts(grid), mu, points, rays, table)
    return table


def length_table(grid: Grid, used: np.ndarray, points: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """(material, ray, 2, pair) float32 path lengths in voxels, of the labels ``used`` and no others."""
    if (xp := array_module(grid)) is not np:
        return kernels_cuda.length_table(xp, grid, used, points, rays)
    table = np.empty((len(used), len(rays), 2, len(points) // 2), dtype=np.float32)
    if table.size:
        _length_table(*_parts(grid), used, points, rays, table)
    return table


def pair_sums(
    grid: Grid,
    mu: np.ndarray,
    points: np.ndarray,
    into: np.ndarray,
    weight: np.ndarray,
    row: np.ndarray,
    outgoing: np.ndarray,
    lift: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sums over points of f = transmission in × out, for each outgoing ray.

    into : (beam, point) transmissions of the way in, times the beam's weight where there is a profile;
    weight : (beam, point), or (0, 0) without one; row : (r,) which beam belongs to which reflection;
    outgoing : (r, 3); lift : (pair, K). Returns Σ f (r,), Σ (f₁ − f₂)² (r,), Σ (f₁ − f₂) lift (r, K), and
    Σ (f₁ − f₂)(w₁ − w₂) (r,), zero without weights. All float64.
    """
    if (xp := array_module(grid)) is not np:
        return kernels_cuda.pair_sums(xp, grid, mu, points, into, weight, row, outgoing, lift)
    total, squares, cross = np.empty(len(outgoing)), np.empty(len(outgoing)), np.zeros(len(outgoing))
    lifted = np.zeros((len(outgoing), lift.shape[1]))
    if len(outgoing):
        _pair_sums(
            *_parts(grid), mu, points, into, weight, row, outgoing, lift, total, squares, lifted, cross
        )
    return total, squares, lifted, cross


def material_lengths(
    grid: Grid,
    points: np.ndarray,
    rays: np.ndarray,
    full_shape: np.ndarray,
    origin: np.ndarray,
    lengths: np.ndarray,
) -> None:
    """Add to ``lengths`` (point, ray, material), in voxels; the rest of the chord to the full box is label 0."""
    _material_lengths(*_parts(grid), points, rays, full_shape, origin, lengths)


@compiled(inline=True)
def _axis(start: float, step: float, size: int) -> Any:
    """One axis of a ray: voxel, its direction ±1/0, t of the next face, t per voxel, voxels to the edge."""
    # A point on the far face belongs to the last voxel; on an inner face to the voxel above it, from
    # where a ray going down takes one step of length zero.
    voxel = min(max(int(start), 0), size - 1)
    if step > 0.0:
        return voxel, 1, (voxel + 1 - start) / step, 1.0 / step, size - voxel
    if step < 0.0:
        return voxel, -1, (voxel - start) / step, -1.0 / step, voxel + 1
    return voxel, 0, np.inf, np.inf, 1


@compiled(inline=True)
def _box_interval(start: np.ndarray, ray: np.ndarray, low: Any, high: Any) -> Any:
    """t at which the ray enters and leaves the box low … high; it misses where leaves ≤ enters."""
    enters, leaves = 0.0, np.inf
    for axis in range(3):
        if ray[axis] == 0.0:
            if start[axis] < low[axis] or start[axis] > high[axis]:
                leaves = -1.0
        else:
            a = (low[axis] - start[axis]) / ray[axis]
            b = (high[axis] - start[axis]) / ray[axis]
            enters = max(enters, min(a, b))
            leaves = min(leaves, max(a, b))
    return enters, leaves


@compiled()
def _walk(
    codes: np.ndarray,
    planes: np.ndarray,
    start: np.ndarray,
    ray: np.ndarray,
    mu: np.ndarray,
    lengths: np.ndarray,
) -> Any:
    """Walk one ray to the edge of the grid. Returns (Σ µ L, t on entry, t on exit), all in voxels.

    With ``lengths`` of size 0 only the depth is summed; else length per label is added to it.
    """
    nz, ny, nx = codes.shape
    z, y, x = start[0], start[1], start[2]
    begin = 0.0
    if not (0.0 <= z <= nz and 0.0 <= y <= ny and 0.0 <= x <= nx):
        begin, end = _box_interval(start, ray, (0, 0, 0), (nz, ny, nx))
        if end <= begin:
            return 0.0, 0.0, 0.0
        z = min(max(z + begin * ray[0], 0.0), float(nz))
        y = min(max(y + begin * ray[1], 0.0), float(ny))
        x = min(max(x + begin * ray[2], 0.0), float(nx))
    iz, sz, tz, pz, left_z = _axis(z, ray[0], nz)
    iy, sy, ty, py, left_y = _axis(y, ray[1], ny)
    ix, sx, tx, px, left_x = _axis(x, ray[2], nx)
    flat = codes.reshape(-1)
    at = (iz * ny + iy) * nx + ix
    stride_z, stride_y = sz * ny * nx, sy * nx
    keep = lengths.size > 0
    t = depth = 0.0
    while True:
        label = flat[at]
        if tx < ty and tx < tz:
            ahead = tx
            tx += px
            at += sx
            left_x -= 1
            left = left_x
        elif ty < tz:
            ahead = ty
            ty += py
            at += stride_y
            left_y -= 1
            left = left_y
        else:
            ahead = tz
            tz += pz
            at += stride_z
            left_z -= 1
            left = left_z
        if label >= 256:  # never in uint8, and the compiler knows
            row = label - 256
            first, second = int(planes[row, 4]), int(planes[row, 5])
            low, high = t, ahead
            while row >= 0:  # what is behind all planes is of the first label
                off = planes[row, 0] * z + planes[row, 1] * y + planes[row, 2] * x - planes[row, 3]
                slope = planes[row, 0] * ray[0] + planes[row, 1] * ray[1] + planes[row, 2] * ray[2]
                if slope > 0.0:
                    high = min(high, -off / slope)
                elif slope < 0.0:
                    low = max(low, -off / slope)
                elif off > 0.0:
                    high = low
                row = int(planes[row, 6])
            behind = max(high - low, 0.0)
            depth += mu[first] * behind + mu[second] * (ahead - t - behind)
            if keep:
                lengths[first] += behind
                lengths[second] += ahead - t - behind
        else:
            depth += mu[label] * (ahead - t)
            if keep:
                lengths[label] += ahead - t
        t = ahead
        if left == 0:
            return depth, begin, begin + t


@compiled(parallel=True)
def _material_lengths(
    codes: np.ndarray,
    planes: np.ndarray,
    points: np.ndarray,
    rays: np.ndarray,
    full_shape: np.ndarray,
    origin: np.ndarray,
    lengths: np.ndarray,
) -> None:
    no_mu = np.zeros(256)
    for index in numba.prange(len(points) * len(rays)):
        p, d = index // len(rays), index % len(rays)
        _, enters, leaves = _walk(codes, planes, points[p], rays[d], no_mu, lengths[p, d])
        # Outside the crop there is background only: its share is the rest of the chord.
        _, chord = _box_interval(points[p], rays[d], -origin, full_shape - origin)
        lengths[p, d, 0] += max(chord - (leaves - enters), 0.0)


@compiled(parallel=True)
def _depth_table(
    codes: np.ndarray,
    planes: np.ndarray,
    mu: np.ndarray,
    points: np.ndarray,
    rays: np.ndarray,
    depths: np.ndarray,
) -> None:
    nothing = np.zeros(0)
    for index in numba.prange(len(rays) * len(points)):
        d, p = index // len(points), index % len(points)
        depth, _, _ = _walk(codes, planes, points[p], rays[d], mu, nothing)
        depths[d, p] = depth


@compiled(parallel=True)
def _transmission_table(
    codes: np.ndarray,
    planes: np.ndarray,
    mu: np.ndarray,
    points: np.ndarray,
    rays: np.ndarray,
    table: np.ndarray,
) -> None:
    nothing = np.zeros(0)
    for index in numba.prange(len(rays) * len(points)):
        d, p = index // len(points), index % len(points)
        depth, _, _ = _walk(codes, planes, points[p], rays[d], mu, nothing)
        table[d, p % 2, p // 2] = np.exp(-depth)


@compiled(parallel=True)
def _length_table(
    codes: np.ndarray,
    planes: np.ndarray,
    used: np.ndarray,
    points: np.ndarray,
    rays: np.ndarray,
    table: np.ndarray,
) -> None:
    no_mu = np.zeros(256)
    for d in numba.prange(len(rays)):
        lengths = np.empty(256)
        for p in range(len(points)):
            lengths[:] = 0.0
            _walk(codes, planes, points[p], rays[d], no_mu, lengths)
            for m in range(len(used)):
                table[m, d, p % 2, p // 2] = lengths[used[m]]


@compiled(parallel=True)
def _pair_sums(
    codes: np.ndarray,
    planes: np.ndarray,
    mu: np.ndarray,
    points: np.ndarray,
    into: np.ndarray,
    weight: np.ndarray,
    row: np.ndarray,
    outgoing: np.ndarray,
    lift: np.ndarray,
    total: np.ndarray,
    squares: np.ndarray,
    lifted: np.ndarray,
    cross: np.ndarray,
) -> None:
    nothing = np.zeros(0)
    # A reflection's sum is made by one thread in the order of the points: no reduction across threads.
    for r in numba.prange(len(outgoing)):
        sum_, sum_squares, sum_cross = 0.0, 0.0, 0.0
        beam = row[r]
        for s in range(len(points) // 2):
            depth, _, _ = _walk(codes, planes, points[2 * s], outgoing[r], mu, nothing)
            first = into[beam, 2 * s] * np.exp(-depth)
            depth, _, _ = _walk(codes, planes, points[2 * s + 1], outgoing[r], mu, nothing)
            second = into[beam, 2 * s + 1] * np.exp(-depth)
            difference = first - second
            sum_ += first + second
            sum_squares += difference**2
            for k in range(lift.shape[1]):
                lifted[r, k] += difference * lift[s, k]
            if weight.size > 0:
                sum_cross += difference * (weight[beam, 2 * s] - weight[beam, 2 * s + 1])
        total[r] = sum_
        squares[r] = sum_squares
        cross[r] = sum_cross
