"""What ``path_kernels`` and ``table_kernels`` do, on a GPU: one thread for one ray.

Points come in Morton order, so that the threads of a warp walk side by side along one direction and read the same
cache lines of labels. Depths and lengths are summed in float64, as on the CPU; tables and their interpolation are
float32, as there, with sums over points in float64. What is left of the work is small and done by the array module:
exponentials, and the sums over pairs, as matrix products. The last bits may differ from one card to another.

The source is plain C++ apart from the CUDA names that ``tests`` stand in for: the same text is compiled for the host
and compared with the CPU's kernels there.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from tomoforge.absorption.direction_grid import Stencils

_THREADS = 128
_BYTES = 2**28  # products of transmissions kept at once

# MATERIALS and LENGTH, the type of the results, are for ``lengths`` alone.
SOURCE = r"""
#ifndef MATERIALS
#define MATERIALS 1
#define LENGTH float
#endif
#define FAR 1e300  /* [voxels], beyond any face and yet finite */

struct Axis { double next, apart; int voxel, left, sign; };  /* t of the next face, t per voxel, voxels to the edge */

__device__ __forceinline__ Axis axis_of(double start, double step, int size)
{
    /* A point on the far face belongs to the last voxel; on an inner face to the voxel above it, from where a ray
       going down takes one step of length zero. */
    const int whole = (int)start, voxel = whole < 0 ? 0 : whole > size - 1 ? size - 1 : whole;
    if (step > 0) return {(voxel + 1 - start) / step, 1 / step, voxel, size - voxel, 1};
    if (step < 0) return {(voxel - start) / step, -1 / step, voxel, voxel + 1, -1};
    return {FAR, FAR, voxel, 1, 0};
}

/* Gives ``kept`` every piece of one ray inside the grid, as label and length in voxels. start, ray: (z, y, x). */
template <class Kept>
__device__ __forceinline__ void walk(const unsigned char* grid, int nz, int ny, int nx, const double* start,
                                     const double* ray, Kept& kept)
{
    const int size[3] = {nz, ny, nx};
    double place[3] = {start[0], start[1], start[2]};
    bool inside = true;
    for (int a = 0; a < 3; ++a) inside = inside && place[a] >= 0 && place[a] <= size[a];
    if (!inside) {
        double begin = 0, end = FAR;
        for (int a = 0; a < 3; ++a) {
            if (ray[a] == 0) {
                if (start[a] < 0 || start[a] > size[a]) return;
            } else {
                const double low = -start[a] / ray[a], high = (size[a] - start[a]) / ray[a];
                begin = fmax(begin, fmin(low, high));
                end = fmin(end, fmax(low, high));
            }
        }
        if (end <= begin) return;
        for (int a = 0; a < 3; ++a) place[a] = fmin(fmax(start[a] + begin * ray[a], 0.0), (double)size[a]);
    }
    Axis z = axis_of(place[0], ray[0], nz), y = axis_of(place[1], ray[1], ny), x = axis_of(place[2], ray[2], nx);
    const unsigned char* at = grid + ((size_t)z.voxel * ny + y.voxel) * nx + x.voxel;
    const long long stride_z = (long long)z.sign * ny * nx, stride_y = (long long)y.sign * nx;
    double t = 0;
    for (int left = 1; left > 0;) {
        const int label = *at;
        double ahead;
        if (x.next < y.next && x.next < z.next) {
            ahead = x.next; x.next += x.apart; at += x.sign; left = --x.left;
        } else if (y.next < z.next) {
            ahead = y.next; y.next += y.apart; at += stride_y; left = --y.left;
        } else {
            ahead = z.next; z.next += z.apart; at += stride_z; left = --z.left;
        }
        kept.add(label, ahead - t);
        t = ahead;
    }
}

struct Depth {
    const double* mu;
    double sum;
    __device__ __forceinline__ void add(int label, double length) { sum += mu[label] * length; }
};

struct Lengths {
    const unsigned char* slot;
    double length[MATERIALS];
    __device__ __forceinline__ void add(int label, double more)
    {
        const int slot_of = slot[label];
        #pragma unroll
        for (int m = 0; m < MATERIALS; ++m) length[m] += slot_of == m ? more : 0.0;  /* stays in registers */
    }
};

/* grid (z, y, x); points (point, 3) corner coordinates; rays (ray, 3); mu by label, per voxel; out (ray, point) */
extern "C" __global__ void depths(const unsigned char* grid, int nz, int ny, int nx, const double* points,
                                  int n_points, const double* rays, const double* mu, double* out)
{
    const int ray = blockIdx.x, point = blockIdx.y * blockDim.x + threadIdx.x;
    if (point >= n_points) return;
    Depth kept = {mu, 0.0};
    walk(grid, nz, ny, nx, points + 3 * (size_t)point, rays + 3 * (size_t)ray, kept);
    out[(size_t)ray * n_points + point] = kept.sum;
}

/* slot (256,): the row of ``out`` for each label, 255 for none; out (material, ray, point) [voxels] */
extern "C" __global__ void lengths(const unsigned char* grid, int nz, int ny, int nx, const double* points,
                                   int n_points, const double* rays, const unsigned char* slot, LENGTH* out)
{
    const int ray = blockIdx.x, point = blockIdx.y * blockDim.x + threadIdx.x;
    if (point >= n_points) return;
    Lengths kept = {slot, {0.0}};
    walk(grid, nz, ny, nx, points + 3 * (size_t)point, rays + 3 * (size_t)ray, kept);
    const size_t apart = (size_t)gridDim.x * n_points;
    for (int m = 0; m < MATERIALS; ++m) out[m * apart + (size_t)ray * n_points + point] = (LENGTH)kept.length[m];
}

/* Weights of the nodes -1, 0, 1, 2 for the place t, 0 to 1, in the cubic through them. */
__device__ __forceinline__ void lagrange(float t, float* weight)
{
    weight[0] = -t * (t - 1) * (t - 2) / 6;
    weight[1] = (t + 1) * (t - 1) * (t - 2) / 2;
    weight[2] = -(t + 1) * t * (t - 2) / 2;
    weight[3] = (t + 1) * t * (t - 1) / 6;
}

/* table (node, value) interpolated for each row by its stencil, times into (beam, value) of its beam:
   out (row, value). With side 0 corner names the node itself. */
extern "C" __global__ void mix(const float* table, int n_values, const int* corner, const float* fraction,
                               const int* place, int side, const float* into, const long long* beam, float* out)
{
    const size_t row = blockIdx.x;
    const float* before = into + (size_t)beam[row] * n_values;
    float* result = out + row * n_values;
    if (side == 0) {
        const float* node = table + (size_t)corner[row] * n_values;
        for (int s = threadIdx.x; s < n_values; s += blockDim.x) result[s] = node[s] * before[s];
        return;
    }
    float down[4], along[4];
    lagrange(fraction[2 * row], down);
    lagrange(fraction[2 * row + 1], along);
    float weight[16];
    const float* node[16];
    #pragma unroll
    for (int k = 0; k < 16; ++k) {
        weight[k] = down[k / 4] * along[k % 4];
        node[k] = table + (size_t)place[corner[row] + k / 4 * side + k % 4] * n_values;
    }
    for (int s = threadIdx.x; s < n_values; s += blockDim.x) {
        float value = 0;
        #pragma unroll
        for (int k = 0; k < 16; ++k) value += weight[k] * node[k][s];
        result[s] = value * before[s];
    }
}
"""

_FourSums = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def depth_table(xp: ModuleType, grid: Any, mu: np.ndarray, points: np.ndarray, rays: np.ndarray) -> Any:
    """(ray, point) float64 optical depths on the GPU.

    xp : CuPy; grid : (z, y, x) uint8 on the GPU; mu, points, rays : on the host, as for ``path_kernels``.
    """
    depths = xp.empty((len(rays), len(points)), dtype=np.float64)
    _trace(xp, "depths", (), grid, points, rays, (xp.asarray(mu), depths))
    return depths


def transmission_table(
    xp: ModuleType, grid: Any, mu: np.ndarray, points: np.ndarray, rays: np.ndarray
) -> Any:
    """(ray, 2, pair) float32 transmissions on the GPU: first points of all pairs, then second ones."""
    depths = depth_table(xp, grid, mu, _halves(points), rays)
    return xp.exp(-depths).astype(np.float32).reshape(len(rays), 2, len(points) // 2)


def length_table(xp: ModuleType, grid: Any, used: np.ndarray, points: np.ndarray, rays: np.ndarray) -> Any:
    """(material, ray, 2, pair) float32 path lengths in voxels on the GPU, of the labels ``used`` and no others."""
    lengths = _lengths(xp, grid, used, _halves(points), rays, np.float32)
    return lengths.reshape(len(used), len(rays), 2, len(points) // 2)


def material_lengths(
    xp: ModuleType, grid: Any, n_materials: int, points: np.ndarray, rays: np.ndarray
) -> Any:
    """(point, ray, material) float64 path lengths in voxels on the GPU, of the labels below ``n_materials``."""
    return _lengths(xp, grid, np.arange(n_materials), points, rays, np.float64).transpose(2, 1, 0)


def pair_sums(
    xp: ModuleType,
    grid: Any,
    mu: np.ndarray,
    points: np.ndarray,
    into: Any,
    weight: np.ndarray,
    row: np.ndarray,
    outgoing: np.ndarray,
    lift: np.ndarray,
) -> _FourSums:
    """As ``path_kernels.pair_sums``: ``grid`` and ``into`` (beam, point) on the GPU, the results on the host."""
    found = _no_sums(len(outgoing), lift.shape[1], np.float64)
    columns, spread = xp.asarray(lift), xp.asarray(weight[:, 0::2] - weight[:, 1::2])
    for some in _chunks(len(outgoing), 8 * len(points)):
        beam = xp.asarray(row[some])
        values = xp.exp(-depth_table(xp, grid, mu, points, outgoing[some]))
        values *= into[beam]
        tilt = spread[beam] if weight.size else None
        _put_sums(found, some, values[:, 0::2], values[:, 1::2], columns, tilt)
    return found


def mixed_rows(xp: ModuleType, table: Any, stencils: Stencils) -> Any:
    """(direction, 2, pair) float32 on the GPU: the table (node, 2, pair) float32 interpolated."""
    ones = xp.ones((1, *table.shape[1:]), dtype=np.float32)
    return _mix(xp, table, stencils, ones, np.zeros(len(stencils.corner), np.int64))


def table_sums(
    xp: ModuleType,
    rows: np.ndarray,
    table: Any,
    out: Stencils,
    into: Any,
    weight: np.ndarray,
    row: np.ndarray,
    lift: np.ndarray,
) -> _FourSums:
    """What ``table_kernels.add_table_sums`` adds for ``rows``: ``table`` and ``into`` on the GPU, the results not."""
    found = _no_sums(len(rows), len(lift), np.float32)
    columns = xp.asarray(np.ascontiguousarray(lift.T))
    spread = xp.asarray(weight[:, 0] - weight[:, 1]) if weight.size else None
    for some in _chunks(len(rows), 8 * table.shape[2]):
        beam = row[rows[some]]
        values = _mix(xp, table, out.select(rows[some]), into, beam)
        tilt = None if spread is None else spread[xp.asarray(beam)]
        _put_sums(found, some, values[:, 0], values[:, 1], columns, tilt)
    return found


def weighted_sums(
    xp: ModuleType, table: Any, out: Stencils, into: Any, row: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """What ``table_kernels.add_weighted_sums`` adds, (reflection,) float64 on the host."""
    found, share = np.zeros(len(row)), xp.asarray(weights)
    for some in _chunks(len(row), 8 * table.shape[2]):
        values = _mix(xp, table, out.select(some), into, row[some])
        found[some] = (values * share).sum(axis=(1, 2), dtype=np.float64).get()
    return found


def _chunks(count: int, size: int) -> Iterator[slice]:
    """Slices of ``count`` rows of ``size`` bytes each, ``_BYTES`` together."""
    step = max(1, _BYTES // max(size, 1))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def _no_sums(count: int, fitted: int, dtype: type) -> _FourSums:
    return np.zeros(count), np.zeros(count), np.zeros((count, fitted), dtype), np.zeros(count)


def _put_sums(found: _FourSums, rows: slice, first: Any, second: Any, lift: Any, tilt: Any) -> None:
    """Sums over pairs of values (r, pair) on the GPU; lift : (pair, K); tilt : (r, pair) of the weights, or None."""
    total, squares, lifted, cross = found
    difference = first - second
    total[rows] = (first.sum(axis=1, dtype=np.float64) + second.sum(axis=1, dtype=np.float64)).get()
    squares[rows] = (difference * difference).sum(axis=1, dtype=np.float64).get()
    if lift.size:
        lifted[rows] = (difference @ lift).get()
    if tilt is not None:
        cross[rows] = (difference * tilt).sum(axis=1, dtype=np.float64).get()


def _halves(points: np.ndarray) -> np.ndarray:
    """Points with the first ones of all pairs before the second ones."""
    return np.concatenate([points[0::2], points[1::2]])


def _lengths(
    xp: ModuleType, grid: Any, used: np.ndarray, points: np.ndarray, rays: np.ndarray, dtype: type
) -> Any:
    """(material, ray, point) lengths in voxels of the labels ``used``, as ``dtype``; zeros beyond label 255."""
    lengths = xp.zeros((len(used), len(rays), len(points)), dtype=dtype)
    # 255 stands for none; with 256 labels it is the last one's row, and every label has one.
    slot, possible = np.full(256, 255, np.uint8), used[:256]
    slot[possible] = np.arange(len(possible))
    kind = "float" if dtype is np.float32 else "double"
    options = (f"-DMATERIALS={len(possible)}", f"-DLENGTH={kind}")
    _trace(xp, "lengths", options, grid, points, rays, (xp.asarray(slot), lengths))
    return lengths


def _trace(
    xp: ModuleType,
    name: str,
    options: tuple[str, ...],
    grid: Any,
    points: np.ndarray,
    rays: np.ndarray,
    last: tuple[Any, Any],
) -> None:
    """Launch a kernel for each ray from each point; ``last`` are its last arguments, the results at the end."""
    if last[-1].size == 0:
        return
    kernel = xp.RawKernel(SOURCE, name, options=options)
    nz, ny, nx = (np.int32(n) for n in grid.shape)
    blocks = (len(rays), -(-len(points) // _THREADS), 1)
    arguments = (grid, nz, ny, nx, xp.asarray(points), np.int32(len(points)), xp.asarray(rays), *last)
    kernel(blocks, (_THREADS, 1, 1), arguments)


def _mix(xp: ModuleType, table: Any, stencils: Stencils, into: Any, beam: np.ndarray) -> Any:
    """(row, 2, pair) float32: the table at each row's direction, times ``into`` (beam, 2, pair) of its beam."""
    values = xp.empty((len(beam), *table.shape[1:]), dtype=np.float32)
    if values.size:
        kernel = xp.RawKernel(SOURCE, "mix", options=())
        arguments = (
            table, np.int32(table.shape[1] * table.shape[2]), xp.asarray(stencils.corner),
            xp.asarray(stencils.fraction), xp.asarray(stencils.place), np.int32(stencils.side), into,
            xp.asarray(beam), values,
        )  # fmt: skip
        kernel((len(beam), 1, 1), (_THREADS, 1, 1), arguments)
    return values
