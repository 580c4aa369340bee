"""Joseph's projector on a GPU: one thread for one ray's column of four voxels along z.

Threads that lie side by side hold neighbouring z of the same ray, so they read whole cache lines of labels and never
diverge; path lengths of all materials stay in registers; all angles of a batch are one launch, so that they share
what the L2 cache holds. The source is plain C apart from the CUDA names that ``tests`` stand in for: the same text
is compiled for the host and compared with the CPU's kernels there.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

THREADS = (32, 8)  # along z in fours, along detector columns

# LABELS is defined for labels, undefined for fractions; MATERIALS counts the background; PLANES as in the call.
SOURCE = r"""
#ifdef LABELS
typedef unsigned char voxel_t;
#define SOLID 1
#else
typedef float voxel_t;
#define SOLID (MATERIALS - 1)
#endif

__device__ __forceinline__ void put(float* out, float path[MATERIALS][4], size_t apart, float unit)
{
    float rest[4];
    for (int j = 0; j < 4; ++j) rest[j] = path[0][0];  /* the way through the field is the same for all four */
    #pragma unroll
    for (int m = 1; m < MATERIALS; ++m) {
        float4 values;
        values.x = path[m][0] * unit; values.y = path[m][1] * unit;
        values.z = path[m][2] * unit; values.w = path[m][3] * unit;
        *(float4*)(out + m * apart) = values;
        for (int j = 0; j < 4; ++j) rest[j] -= path[m][j];
    }
    float4 values;
    values.x = fmaxf(rest[0], 0.0f) * unit; values.y = fmaxf(rest[1], 0.0f) * unit;
    values.z = fmaxf(rest[2], 0.0f) * unit; values.w = fmaxf(rest[3], 0.0f) * unit;
    *(float4*)out = values;
}

__device__ __forceinline__ void add(float path[MATERIALS][4], const voxel_t* voxels, float weight, size_t apart)
{
    path[0][0] += weight;
#ifdef LABELS
    const uchar4 label = *(const uchar4*)voxels;
    #pragma unroll
    for (int m = 1; m < MATERIALS; ++m) {  /* no array of registers is indexed by a label */
        path[m][0] += label.x == m ? weight : 0.0f;
        path[m][1] += label.y == m ? weight : 0.0f;
        path[m][2] += label.z == m ? weight : 0.0f;
        path[m][3] += label.w == m ? weight : 0.0f;
    }
#else
    #pragma unroll
    for (int m = 1; m < MATERIALS; ++m) {
        const float4 part = *(const float4*)(voxels + (m - 1) * apart);
        path[m][0] += weight * part.x; path[m][1] += weight * part.y;
        path[m][2] += weight * part.z; path[m][3] += weight * part.w;
    }
#endif
}

/* volume (y, x, [material,] z) with nz a multiple of 4; turns (angle, 2) cosine and sine; fine (column,) u [voxel];
   out (angle, plane, material, column, z), zero before the launch. */
extern "C" __global__ void project(const voxel_t* volume, int nz, int ny, int nx, const double* turns,
                                   const double* fine, int n_columns, double first_depth, double spacing,
                                   double voxel_size, float* out)
{
    const int z = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    const int column = blockIdx.y * blockDim.y + threadIdx.y;
    const int angle = blockIdx.z;
    if (z >= nz || column >= n_columns) return;
    const double cosine = turns[2 * angle], sine = turns[2 * angle + 1], u = fine[column];
    const double cx = 0.5 * (nx - 1), cy = 0.5 * (ny - 1);
    const bool over_rows = fabs(cosine) >= fabs(sine);
    const int steps = over_rows ? ny : nx, across = over_rows ? nx : ny;
    const double growth = over_rows ? -sine / cosine : -cosine / sine;
    const double deeper = over_rows ? 1 / cosine : -1 / sine;
    const double position = over_rows ? u / cosine + cx - cy * growth : u / sine + cy - cx * growth;
    const float unit = (float)(voxel_size / (over_rows ? fabs(cosine) : fabs(sine)));
    const size_t apart = (size_t)n_columns * nz;  /* from one material to the next in out */
    float* plane_out = out + ((size_t)angle * PLANES * MATERIALS * n_columns + column) * nz + z;
    const size_t row_stride = (size_t)(over_rows ? nx : 1) * SOLID * nz;
    const size_t across_stride = (size_t)(over_rows ? 1 : nx) * SOLID * nz;
    float near[MATERIALS][4] = {{0.0f}};
#if PLANES > 1
    float far[MATERIALS][4] = {{0.0f}};
    const double depth = over_rows ? -u * sine / cosine - cy * deeper : u * cosine / sine - cx * deeper;
    int plane = 0;
#endif
    for (int step = 0; step < steps; ++step) {
        const int k = deeper > 0 ? step : steps - 1 - step;  /* downstream, so that planes come in order */
        const double at = position + k * growth;
        if (!(at > -1 && at < across)) continue;
        const int low = (int)floor(at);
        const float upper = (float)(at - low);
        const voxel_t* here = volume + k * row_stride + (long long)low * (long long)across_stride + z;
#if PLANES > 1
        double place = (depth + k * deeper - first_depth) / spacing;
        place = place < 0 ? 0 : place > PLANES - 1 ? PLANES - 1 : place;
        const int lower = (int)place < PLANES - 2 ? (int)place : PLANES - 2;
        const float tent = (float)(place - lower);
        for (; plane < lower; ++plane) {
            put(plane_out + plane * MATERIALS * apart, near, apart, unit);
            for (int m = 0; m < MATERIALS; ++m)
                for (int j = 0; j < 4; ++j) { near[m][j] = far[m][j]; far[m][j] = 0.0f; }
        }
        if (low >= 0) { add(near, here, (1 - upper) * (1 - tent), nz); add(far, here, (1 - upper) * tent, nz); }
        if (low + 1 < across) {
            add(near, here + across_stride, upper * (1 - tent), nz);
            add(far, here + across_stride, upper * tent, nz);
        }
#else
        if (low >= 0) add(near, here, 1 - upper, nz);
        if (low + 1 < across) add(near, here + across_stride, upper, nz);
#endif
    }
#if PLANES > 1
    put(plane_out + plane * MATERIALS * apart, near, apart, unit);
    put(plane_out + (plane + 1) * MATERIALS * apart, far, apart, unit);
#else
    put(plane_out, near, apart, unit);
#endif
}
"""


def options(labels: bool, n_materials: int, planes: int) -> tuple[str, ...]:
    """Compiler options that choose the kind of volume and the sizes that live in registers."""
    kind = ("-DLABELS",) if labels else ()
    return (*kind, f"-DMATERIALS={n_materials}", f"-DPLANES={planes}")


@dataclass(frozen=True)
class DeviceColumns:
    """A volume on a GPU with z innermost; read by every angle.

    shape : (z, y, x) voxels; values : labels (y, x, z) uint8 or fractions (y, x, material from 1, z) float32, z filled
    with 0 to fours; n_materials : with the background.
    """

    shape: tuple[int, int, int]
    values: Any
    n_materials: int


def device_columns(xp: ModuleType, volume: Any, n_materials: int) -> DeviceColumns:
    """Checked labels (z, y, x) or fractions (material, z, y, x) on the GPU in the kernel's layout, a copy there."""
    labels = volume.ndim == 3
    turned = volume.transpose(1, 2, 0) if labels else volume[-(n_materials - 1) :].transpose(2, 3, 0, 1)
    ny, nx, rows = turned.shape[0], turned.shape[1], turned.shape[-1]
    out = xp.zeros((*turned.shape[:-1], -(-rows // 4) * 4), dtype=np.uint8 if labels else np.float32)
    out[..., :rows] = turned
    return DeviceColumns((rows, ny, nx), out, n_materials)


def project(
    xp: ModuleType,
    volume: DeviceColumns,
    angles: np.ndarray,
    fine: np.ndarray,
    planes: int,
    spread: tuple[float, float],
    voxel_size: float,
) -> Any:
    """Path lengths on the GPU: (angle, plane, material, y, x) float32 [m] there.

    xp : CuPy; fine : (column,) u [voxel]; spread : first plane and spacing of planes [voxel].
    """
    rows, ny, nx = volume.shape
    labels, nz = volume.values.ndim == 3, volume.values.shape[-1]
    turns = xp.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    # Planes that no ray reaches are not written.
    out = xp.zeros((angles.size, planes, volume.n_materials, fine.size, nz), dtype=np.float32)
    kernel = xp.RawKernel(SOURCE, "project", options=options(labels, volume.n_materials, planes))
    threads_z, threads_u = THREADS
    blocks = (-(-nz // (4 * threads_z)), -(-fine.size // threads_u), angles.size)
    arguments = (
        volume.values, np.int32(nz), np.int32(ny), np.int32(nx), turns, xp.asarray(fine), np.int32(fine.size),
        np.float64(spread[0]), np.float64(spread[1]), np.float64(voxel_size), out,
    )  # fmt: skip
    kernel(blocks, (threads_z, threads_u, 1), arguments)
    return xp.ascontiguousarray(out.swapaxes(3, 4)[:, :, :, :rows])
