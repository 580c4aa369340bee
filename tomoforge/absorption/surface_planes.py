"""Compiled choice of the patches that suit each voxel on a surface, and the planes that they put into it.

Input as for ``tomoforge.absorption.surface_patches``; its two helpers stand here once more, for kernels that call each
other live in one file.
"""

from typing import Any

import numba
import numpy as np

from tomoforge.compilation import compiled

_REACH = 8  # voxels from which a patch is borrowed
_MARGIN = 0.1  # voxels by which a centre may lie on the wrong side
_FAR = 0.5  # of a patch's radius is lost for each voxel that it is away
_PLENTY = 8.0  # a radius, less its losses, beyond which no better patch is looked for
_CROWD = 1.5  # of a patch's radius is lost for each neighbour on the wrong side
_MOST_WRONG = 9  # neighbours on the wrong side: those behind one more edge


@compiled()
def _polynomial(c: np.ndarray, i: float, j: float) -> Any:
    return c[0] + c[1] * i + c[2] * j + c[3] * i * i + c[4] * i * j + c[5] * j * j


@compiled()
def _is_in(label: int, kind: int, below: int, above: int) -> Any:
    """Kind 0: ``below`` against all others; kind 1: all others against ``above``."""
    return label == below if kind == 0 else label != above


@compiled()
def _pair(labels: np.ndarray, anchor: np.ndarray, axis: int) -> Any:
    """The labels below and above the face that anchors a patch."""
    z, y, x = anchor[0], anchor[1], anchor[2]
    return labels[z, y, x], labels[z + (axis == 0), y + (axis == 1), x + (axis == 2)]


@compiled()
def _distances(
    labels: np.ndarray, at: np.ndarray, anchor: np.ndarray, code: int, patch: np.ndarray, off: np.ndarray
) -> None:
    """How far a patch leaves the 27 centres about voxel ``at`` on the other side than that voxel's label: (27,)."""
    axis, kind = code % 3, code // 3
    b, c = (axis + 1) % 3, (axis + 2) % 3
    below, above = _pair(labels, anchor, axis)
    i0, j0 = float(at[b] - anchor[b]), float(at[c] - anchor[c])
    slope_i = patch[1] + 2 * patch[3] * i0 + patch[4] * j0
    slope_j = patch[2] + 2 * patch[5] * j0 + patch[4] * i0
    outwards = 1.0 if _is_in(labels[at[0], at[1], at[2]], kind, below, above) else -1.0
    cosine = outwards / np.sqrt(1.0 + slope_i**2 + slope_j**2)
    stride = (9, 3, 1)
    for i in range(-1, 2):
        for j in range(-1, 2):
            height = anchor[axis] - at[axis] + _polynomial(patch, i0 + i, j0 + j)
            for k in range(-1, 2):
                off[13 + k * stride[axis] + i * stride[b] + j * stride[c]] = (k - height) * cosine


@compiled()
def _wrong(off: np.ndarray, own: np.ndarray, stride: int) -> int:
    """Centres of 27 that lie on the wrong side, those along the patch's axis (± stride) counted four times.

    own : (27,) int8: 1 where the middle one's label is, 0 where another is, −1 outside the volume.
    """
    count = 0
    for k in range(27):
        if (own[k] == 1 and off[k] > _MARGIN) or (own[k] == 0 and off[k] < -_MARGIN):
            count += 100 if k == 13 else (4 if abs(k - 13) == stride else 1)
    return count


@compiled()
def _companion(labels: np.ndarray, at: np.ndarray, kind: int, below: int, above: int) -> int:
    """The commonest label among the 26 neighbours across the surface; −1 if there is none."""
    votes = np.zeros(256, dtype=np.int64)
    inside = _is_in(labels[at[0], at[1], at[2]], kind, below, above)
    for z in range(max(at[0] - 1, 0), min(at[0] + 2, labels.shape[0])):
        for y in range(max(at[1] - 1, 0), min(at[1] + 2, labels.shape[1])):
            for x in range(max(at[2] - 1, 0), min(at[2] + 2, labels.shape[2])):
                label = labels[z, y, x]
                if _is_in(label, kind, below, above) != inside:
                    away = abs(z - at[0]) + abs(y - at[1]) + abs(x - at[2])
                    votes[label] += 8 >> away
    best = int(np.argmax(votes))
    return best if votes[best] > 0 else -1


@compiled()
def _nearby(
    codes: np.ndarray, at: np.ndarray, radii: np.ndarray, reach: int, found: np.ndarray, likely: np.ndarray
) -> int:
    """The patches about a voxel, and their radii less what distance costs. Returns how many."""
    count = 0
    for z in range(max(at[0] - reach, 0), min(at[0] + reach + 1, codes.shape[0])):
        for y in range(max(at[1] - reach, 0), min(at[1] + reach + 1, codes.shape[1])):
            for x in range(max(at[2] - reach, 0), min(at[2] + reach + 1, codes.shape[2])):
                m = codes[z, y, x] - 256
                if m >= 0 and radii[m] > 0.0:
                    far = np.sqrt(float((z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2))
                    if far <= radii[m] + 1.0:
                        found[count], likely[count] = m, radii[m] - _FAR * far
                        count += 1
    return count


@compiled()
def _membership(labels: np.ndarray, at: np.ndarray, code: int, anchor: np.ndarray, own: np.ndarray) -> None:
    """Which of the 27 centres about a voxel are on its side of a patch's surface by their labels; see ``_wrong``."""
    below, above = _pair(labels, anchor, code % 3)
    inside = _is_in(labels[at[0], at[1], at[2]], code // 3, below, above)
    for k in range(27):
        z, y, x = at[0] + k // 9 - 1, at[1] + (k // 3) % 3 - 1, at[2] + k % 3 - 1
        own[k] = -1
        if 0 <= z < labels.shape[0] and 0 <= y < labels.shape[1] and 0 <= x < labels.shape[2]:
            own[k] = 1 if _is_in(labels[z, y, x], code // 3, below, above) == inside else 0


@compiled()
def _bend(a: float, b: float, sense: int) -> float:
    return max(a, b) if sense == 1 else min(a, b)


@compiled()
def _choose(
    labels: np.ndarray,
    codes: np.ndarray,
    at: np.ndarray,
    voxels: np.ndarray,
    axes: np.ndarray,
    radii: np.ndarray,
    patches: np.ndarray,
    chosen: np.ndarray,
) -> Any:
    """One voxel's ``choose_patches``: ``chosen`` (3,) is filled; returns the bend and the other label."""
    chosen[:] = -1
    strides = (9, 3, 1)
    room = (2 * _REACH + 1) ** 3
    own, off, total, trial = np.empty(27, dtype=np.int8), np.empty(27), np.empty(27), np.empty(27)
    found, likely = np.empty(room, dtype=np.int32), np.empty(room)
    best, first, wrong, count = -1e9, -1, 0, 0
    most, strongest, trouble = -1e9, -1, 0
    for reach in (1, _REACH):
        count = _nearby(codes, at, radii, reach, found, likely)
        for k in range(count):
            if likely[k] <= best:
                continue
            m = found[k]
            _membership(labels, at, axes[m], voxels[m], own)
            _distances(labels, at, voxels[m], axes[m], patches[m], off)
            misses = _wrong(off, own, strides[axes[m] % 3])
            if misses >= 100:
                continue
            if likely[k] > most:
                most, strongest, trouble = likely[k], m, misses
            if likely[k] - _CROWD * misses > best:
                best, first, wrong = likely[k] - _CROWD * misses, m, misses
        if best > _PLENTY:
            break
    if first < 0:
        return 1, 0
    # At an edge a small patch bends around it and agrees with everything; two large ones that meet are better.
    bend = 0
    for start in (strongest, first):
        chosen[:] = -1
        bend = 0
        chosen[0] = start
        left = trouble if start == strongest else wrong
        worst = most
        code = axes[start]
        below, above = _pair(labels, voxels[start], code % 3)
        _membership(labels, at, code, voxels[start], own)
        _distances(labels, at, voxels[start], code, patches[start], total)
        for further in (1, 2):
            fewest, at_best, second, way = left, -1e9, -1, 0
            for k in range(count):
                m = found[k]
                low, high = _pair(labels, voxels[m], axes[m] % 3)
                same = (low == below and high == above) or (low == above and high == below)
                if left == 0 or not same or m == start:
                    continue
                _distances(labels, at, voxels[m], axes[m], patches[m], off)
                for sense in (1, -1):
                    if bend * sense < 0:
                        continue
                    for q in range(27):
                        trial[q] = _bend(total[q], off[q], sense)
                    misses = _wrong(trial, own, strides[code % 3])
                    if misses < fewest or (misses == fewest and misses < left and likely[k] > at_best):
                        fewest, at_best, second, way = misses, likely[k], m, sense
            if second < 0:
                break
            _distances(labels, at, voxels[second], axes[second], patches[second], off)
            for q in range(27):
                total[q] = _bend(total[q], off[q], way)
            chosen[further], bend, left = second, way, fewest
            worst = min(worst, at_best)
        if start == first or worst - _CROWD * left > best:
            wrong = left
            break
    code, m = axes[chosen[0]], chosen[0]
    below, above = _pair(labels, voxels[m], code % 3)
    other = _companion(labels, at, code // 3, below, above)
    if wrong > _MOST_WRONG or other < 0:
        chosen[:] = -1
    return -1 if bend < 0 else 1, max(other, 0)


@compiled(parallel=True)
def choose_patches(
    labels: np.ndarray,
    codes: np.ndarray,
    voxels: np.ndarray,
    axes: np.ndarray,
    radii: np.ndarray,
    patches: np.ndarray,
    chosen: np.ndarray,
    bends: np.ndarray,
    others: np.ndarray,
) -> None:
    """For every candidate the patch that suits it best, or the two or three that meet in it at an edge.

    chosen : (candidate, 3) int32, −1 for none; bends : (candidate,) int8, 1 where the voxel's own label is behind all
    of them, −1 where the other one is; others : (candidate,) uint8, the label beyond.
    """
    for n in numba.prange(len(voxels)):
        bends[n], others[n] = _choose(labels, codes, voxels[n], voxels, axes, radii, patches, chosen[n])


@compiled(parallel=True)
def fill_planes(
    labels: np.ndarray,
    voxels: np.ndarray,
    anchors: np.ndarray,
    axes: np.ndarray,
    patches: np.ndarray,
    chosen: np.ndarray,
    bends: np.ndarray,
    others: np.ndarray,
    heads: np.ndarray,
    planes: np.ndarray,
) -> None:
    """The tangent planes of the chosen patches (of ``anchors``) in ``voxels``.

    heads : (voxel,) int64 first row of each; planes : (row, 7) float64 as those of a
    ``MixedGrid``, but with offsets from the voxel's centre.
    """
    for n in numba.prange(len(voxels)):
        at = voxels[n]
        own = labels[at[0], at[1], at[2]]
        for turn in range(3):
            m = chosen[n, turn]
            if m < 0:
                break
            row = planes[heads[n] + turn]
            anchor, patch, axis, kind = anchors[m], patches[m], axes[m] % 3, axes[m] // 3
            b, c = (axis + 1) % 3, (axis + 2) % 3
            below, above = _pair(labels, anchor, axis)
            i0, j0, k0 = float(at[b] - anchor[b]), float(at[c] - anchor[c]), float(at[axis] - anchor[axis])
            i, j = i0, j0
            length, over, slope_i, slope_j = 1.0, 0.0, 0.0, 0.0
            # Tangent where the patch is nearest to the voxel's middle; one step is enough for a voxel's way.
            for step in range(2):
                slope_i = patch[1] + 2 * patch[3] * i + patch[4] * j
                slope_j = patch[2] + 2 * patch[5] * j + patch[4] * i
                length = np.sqrt(1.0 + slope_i**2 + slope_j**2)
                height = _polynomial(patch, i, j) + slope_i * (i0 - i) + slope_j * (j0 - j)
                over = (k0 - height) / length
                if step == 0:
                    shift = min(max(over, -0.9), 0.9) / length
                    i, j = i0 + shift * slope_i, j0 + shift * slope_j
            # The mean of a bent patch over the voxel's width, not its tangent.
            over -= (patch[3] + patch[5]) / 12.0 / length
            sign = float(bends[n]) if _is_in(own, kind, below, above) else -float(bends[n])
            row[axis], row[b], row[c] = sign / length, -sign * slope_i / length, -sign * slope_j / length
            row[3] = -sign * over
            row[4] = own if bends[n] == 1 else others[n]
            row[5] = others[n] if bends[n] == 1 else own
            row[6] = heads[n] + turn + 1 if turn < 2 and chosen[n, turn + 1] >= 0 else -1.0
