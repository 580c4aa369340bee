"""Joseph's projector on the CPU: over runs of equal labels along z, or over occupied fractions.

A ray (u, z) visits each voxel row once and shares its step between the two nearest voxel columns. All rays of one
u, over all z, visit the same voxel columns with the same weights, so a run of equal labels from z0 to z1 adds its
weight at z0 and takes it away at z1 in a difference array, and one running sum over z ends the detector column:
the cost goes with the number of runs, not with the number of voxels.

Weights are whole numbers of 2⁻³⁰ step: sums are exact in any order, so nothing cancels badly and nothing depends on
threads, and the planes of a voxel add up to the whole.
"""

import numba
import numpy as np

from tomoforge.compilation import compiled

ONE = 1 << 30  # a whole step; 2²⁰ of them still fit the accumulator ten times over
TENT_BITS = 20
TENT = 1 << TENT_BITS  # a whole share of a plane; ONE·TENT < 2⁶³
BLOCK = 16  # neighbouring columns, whose results go out as whole cache lines


@compiled(parallel=True)
def count_runs(labels):
    """Number of runs of a label other than 0 along z in each column: (y, x) int32."""
    nz, ny, nx = labels.shape
    counts = np.zeros((ny, nx), np.int32)
    for iy in numba.prange(ny):
        count = counts[iy]
        for ix in range(nx):
            count[ix] = labels[0, iy, ix] != 0
        for iz in range(1, nz):
            above, here = labels[iz - 1, iy], labels[iz, iy]
            for ix in range(nx):
                count[ix] += (here[ix] != 0) & (here[ix] != above[ix])
    return counts


@compiled(parallel=True)
def fill_runs(labels, offsets, runs):
    """Write the runs of column (y, x) into ``runs`` from ``offsets[y·nx + x]`` on."""
    nz, ny, nx = labels.shape
    for iy in numba.prange(ny):
        cursor = offsets[iy * nx : (iy + 1) * nx].copy()  # the run that is next to open
        above, beyond = np.zeros(nx, np.uint8), np.zeros(nx, np.uint8)
        differs = np.zeros((nx + 7) // 8 * 8, np.uint8)
        eights = differs.view(np.uint64)
        for iz in range(nz + 1):
            here = labels[iz, iy] if iz < nz else beyond
            for ix in range(nx):  # vectorised, and most stretches continue the row above
                differs[ix] = here[ix] != above[ix]
            for eight in range(eights.size):
                if eights[eight] == 0:
                    continue
                for ix in range(8 * eight, min(8 * eight + 8, nx)):
                    if here[ix] != above[ix]:
                        if above[ix] != 0:
                            runs[cursor[ix] - 1, 1] = above[ix] * (nz + 1) + iz
                        if here[ix] != 0:
                            runs[cursor[ix], 0] = here[ix] * (nz + 1) + iz
                            cursor[ix] += 1
            above = here


@compiled(inline=True)
def _add_runs(sums, runs, low, high, weight):
    for run in range(low, high):
        sums[runs[run, 0]] += weight
        sums[runs[run, 1]] -= weight


@compiled()
def _add_shifted_runs(sums, runs, low, high, weight, shift, stride):
    for run in range(low, high):
        for side in range(2):
            label = np.int64(runs[run, side]) // stride
            z = np.int64(runs[run, side]) - label * stride - shift
            z = min(max(z, 0), stride - 1)  # a run that leaves the field ends at its edge
            sums[np.uint64(label * stride + z)] += weight if side == 0 else -weight


@compiled()
def _add_column(sums, runs, low, high, weight, shift, part, stride):
    """One voxel column seen ``shift + part`` voxels higher, the whole field as a run of label 0."""
    for side in range(2):
        share = np.int64(weight * part) if side == 1 else weight - np.int64(weight * part)
        moved = shift + side
        sums[np.uint64(min(max(-moved, 0), stride - 1))] += share
        sums[np.uint64(min(max(stride - 1 - moved, 0), stride - 1))] -= share
        _add_shifted_runs(sums, runs, low, high, share, moved, stride)


@compiled()
def _finish(sums, occurs, scale, tile, column):
    """Running sums over z of one plane into ``tile[material, z, column]``; leaves ``sums`` at zero."""
    n_materials, nz, _ = tile.shape
    stride = nz + 1
    rest = sums[:stride]
    level = np.int64(0)
    for iz in range(nz):
        level += rest[iz]
        rest[iz] = level
    for m in range(1, n_materials):
        if m >= occurs.size or not occurs[m]:
            for iz in range(nz):
                tile[m, iz, column] = 0
            continue
        own = sums[m * stride : (m + 1) * stride]
        level = np.int64(0)
        for iz in range(nz):
            level += own[iz]
            own[iz] = 0
            rest[iz] -= level
            tile[m, iz, column] = np.float32(level * scale)
        own[nz] = 0
    for iz in range(nz):
        tile[0, iz, column] = np.float32(rest[iz] * scale)
        rest[iz] = 0
    rest[nz] = 0


@compiled(inline=True)
def _line(u, cosine, sine, ny, nx):
    """A ray's course: over rows?, steps, voxels across, position at step 0 and its growth, depth likewise."""
    cx, cy = (nx - 1) / 2, (ny - 1) / 2
    if abs(cosine) >= abs(sine):  # x and w where the ray crosses voxel row y
        growth, deeper = -sine / cosine, 1 / cosine
        return True, ny, nx, u / cosine + cx - cy * growth, growth, -u * sine / cosine - cy * deeper, deeper
    growth, deeper = -cosine / sine, -1 / sine
    return False, nx, ny, u / sine + cy - cx * growth, growth, u * cosine / sine - cx * deeper, deeper


@compiled(parallel=True)
def project_runs(offsets, runs, occurs, shape, cosines, sines, fine, depths, slope, scale, out):
    """Path lengths from runs.

    offsets, runs, occurs, shape : of ``LabelRuns``; cosines, sines : (angle,); fine : (column,) u [voxel]; depths :
    (first plane, spacing of planes) [voxel]; slope : growth of z along the ray; scale : (angle,) length of a
    step [m]; out : (angle, plane, material, z, column) float32.
    """
    nz, ny, nx = shape
    n_angles, n_planes, n_materials, _, n_columns = out.shape
    stride = nz + 1
    blocks = (n_columns + BLOCK - 1) // BLOCK
    for job in numba.prange(n_angles * blocks):  # jobs share nothing
        angle, start = job // blocks, (job % blocks) * BLOCK
        width = min(BLOCK, n_columns - start)
        unit = scale[angle] / ONE
        tile = np.empty((n_planes, n_materials, nz, BLOCK), np.float32)
        near = np.zeros(occurs.size * stride, np.int64)  # sums of plane ``plane``
        far = np.zeros(occurs.size * stride if n_planes > 1 else 0, np.int64)  # of the next one
        for column in range(width):
            over_rows, steps, across, position, growth, depth, deeper = _line(
                fine[start + column], cosines[angle], sines[angle], ny, nx
            )
            plane = 0
            for step in range(steps):
                k = step if deeper > 0 else steps - 1 - step  # downstream, so that planes come in order
                at = position + k * growth
                if not (-1 < at < across):
                    continue
                w = depth + k * deeper
                low = int(np.floor(at))
                upper = np.int64((at - low) * ONE + 0.5)
                tent = np.int64(0)
                if n_planes > 1:
                    place = min(max((w - depths[0]) / depths[1], 0.0), n_planes - 1.0)
                    lower_plane = min(int(place), n_planes - 2)
                    tent = np.int64((place - lower_plane) * TENT + 0.5)
                    while plane < lower_plane:
                        _finish(near, occurs, unit, tile[plane], column)
                        near, far = far, near
                        plane += 1
                shift = int(np.floor(w * slope))
                part = w * slope - shift
                for side in range(2):
                    i = low + side
                    weight = upper if side == 1 else ONE - upper
                    if i < 0 or i >= across or weight == 0:
                        continue
                    voxel = k * nx + i if over_rows else i * nx + k
                    first, last = offsets[voxel], offsets[voxel + 1]
                    beyond = (weight * tent) >> TENT_BITS
                    weight -= beyond
                    if slope == 0:
                        near[0] += weight
                        _add_runs(near, runs, first, last, weight)
                        if beyond != 0:
                            far[0] += beyond
                            _add_runs(far, runs, first, last, beyond)
                    else:
                        _add_column(near, runs, first, last, weight, shift, part, stride)
                        if beyond != 0:
                            _add_column(far, runs, first, last, beyond, shift, part, stride)
            _finish(near, occurs, unit, tile[plane], column)
            for later in range(plane + 1, n_planes):
                _finish(far, occurs, unit, tile[later], column)  # zero after the first
        for plane in range(n_planes):
            for m in range(n_materials):
                for iz in range(nz):
                    for column in range(width):
                        out[angle, plane, m, iz, start + column] = tile[plane, m, iz, column]


@compiled(parallel=True)
def occupied_range(fractions):
    """First and one past the last z where any material is, from (y, x, material, z): two (y, x) int32."""
    ny, nx, n_materials, nz = fractions.shape
    first = np.full((ny, nx), nz, np.int32)
    last = np.zeros((ny, nx), np.int32)
    for iy in numba.prange(ny):
        for ix in range(nx):
            for m in range(n_materials):
                for iz in range(nz):
                    if fractions[iy, ix, m, iz] != 0:
                        first[iy, ix] = min(first[iy, ix], iz)
                        last[iy, ix] = max(last[iy, ix], iz + 1)
    return first, last


@compiled()
def _add_fractions(paths, inside, column, first, last, weight, shift):
    """``weight`` times a voxel column seen ``shift`` voxels higher onto (material, z)."""
    nz = inside.size
    for iz in range(max(0, -shift), min(nz, nz - shift)):
        inside[iz] += weight
    for m in range(column.shape[0]):
        path, values = paths[m], column[m]
        for iz in range(max(first - shift, 0), min(last - shift, nz)):
            path[iz] += weight * values[iz + shift]


@compiled()
def _finish_fractions(paths, inside, scale, tile, column):
    """One plane into ``tile[material, z, column]``; leaves the sums at zero."""
    for m in range(paths.shape[0]):
        for iz in range(inside.size):
            tile[m + 1, iz, column] = np.float32(paths[m, iz] * scale)
            inside[iz] -= paths[m, iz]
            paths[m, iz] = 0
    for iz in range(inside.size):
        tile[0, iz, column] = np.float32(max(inside[iz], 0.0) * scale)
        inside[iz] = 0


@compiled(parallel=True)
def project_fractions(fractions, first, last, cosines, sines, fine, depths, slope, scale, out):
    """Path lengths from fractions (y, x, material from 1 on, z) float32; the rest as for ``project_runs``.

    Each ray sums in float64 and in the order of its steps, whatever the threads.
    """
    ny, nx, n_solid, nz = fractions.shape
    n_angles, n_planes, n_materials, _, n_columns = out.shape
    blocks = (n_columns + BLOCK - 1) // BLOCK
    for job in numba.prange(n_angles * blocks):
        angle, start = job // blocks, (job % blocks) * BLOCK
        width = min(BLOCK, n_columns - start)
        tile = np.empty((n_planes, n_materials, nz, BLOCK), np.float32)
        near, near_inside = np.zeros((n_solid, nz)), np.zeros(nz)
        far, far_inside = np.zeros((n_solid, nz)), np.zeros(nz)
        for column in range(width):
            over_rows, steps, across, position, growth, depth, deeper = _line(
                fine[start + column], cosines[angle], sines[angle], ny, nx
            )
            plane = 0
            for step in range(steps):
                k = step if deeper > 0 else steps - 1 - step
                at = position + k * growth
                if not (-1 < at < across):
                    continue
                w = depth + k * deeper
                low = int(np.floor(at))
                tent = 0.0
                if n_planes > 1:
                    place = min(max((w - depths[0]) / depths[1], 0.0), n_planes - 1.0)
                    lower_plane = min(int(place), n_planes - 2)
                    tent = place - lower_plane
                    while plane < lower_plane:
                        _finish_fractions(near, near_inside, scale[angle], tile[plane], column)
                        near, far = far, near
                        near_inside, far_inside = far_inside, near_inside
                        plane += 1
                shift = int(np.floor(w * slope))
                part = w * slope - shift
                for corner in range(4):  # the two columns, each between two z where the axis is tilted
                    i = low + corner % 2
                    weight = at - low if corner % 2 == 1 else 1 - (at - low)
                    weight *= part if corner >= 2 else 1 - part
                    if i < 0 or i >= across or weight == 0:
                        continue
                    iy, ix = (k, i) if over_rows else (i, k)
                    moved = shift + corner // 2
                    if tent < 1:
                        _add_fractions(
                            near, near_inside, fractions[iy, ix], first[iy, ix], last[iy, ix],
                            weight * (1 - tent), moved,
                        )  # fmt: skip
                    if tent > 0:
                        _add_fractions(
                            far,
                            far_inside,
                            fractions[iy, ix],
                            first[iy, ix],
                            last[iy, ix],
                            weight * tent,
                            moved,
                        )
            _finish_fractions(near, near_inside, scale[angle], tile[plane], column)
            for later in range(plane + 1, n_planes):
                _finish_fractions(far, far_inside, scale[angle], tile[later], column)
        for plane in range(n_planes):
            for m in range(n_materials):
                for iz in range(nz):
                    for column in range(width):
                        out[angle, plane, m, iz, start + column] = tile[plane, m, iz, column]


@compiled(parallel=True)
def turn_images(images, fine, pitch, start, cosine, sine, stretch, out):
    """Turn the detector against the axis: bilinear, zero beyond the images' rows.

    images : (image, z, column) with columns at u = start + n·pitch [voxel]; out : (image, y, column) with columns
    at ``fine``; cosine, sine : of the axis' lean towards growing u; stretch : rows of ``images`` a row of ``out``.
    """
    n_images, nz, n_wide = images.shape
    centre = (nz - 1) / 2
    for job in numba.prange(n_images * nz):
        image, row = job // nz, job % nz
        for column in range(fine.size):
            height = row - centre
            u = (fine[column] * cosine - height * sine - start) / pitch
            z = (fine[column] * sine + height * cosine) * stretch + centre
            z0, u0 = int(np.floor(z)), min(max(int(np.floor(u)), 0), n_wide - 2)
            across = u - u0
            value = 0.0
            for side in range(2):
                if 0 <= z0 + side < nz:
                    line = images[image, z0 + side]
                    weight = z - z0 if side == 1 else 1 - (z - z0)
                    value += weight * (line[u0] * (1 - across) + line[u0 + 1] * across)
            out[image, row, column] = value
