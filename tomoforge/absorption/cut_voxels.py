"""Compiled volumes and moments of the parts that planes cut from voxels.

``planes`` (row, 7) are those of a ``MixedGrid`` with offsets from their voxels' centres, ``heads`` (voxel,)
int64 the first row of each voxel. Closed along one axis, Gauss's rule over the other two.
"""

from typing import Any

import numba
import numpy as np

from tomoforge.compilation import compiled


@compiled()
def _clip(planes: np.ndarray, head: int, shift: float, axis: int, v: float, w: float) -> Any:
    """The part low … high of a column along ``axis`` through a voxel's (v, w) that is behind all its planes."""
    b, c = (axis + 1) % 3, (axis + 2) % 3
    low, high = -0.5, 0.5
    row = head
    while row >= 0:
        left = planes[row, 3] + shift - planes[row, b] * v - planes[row, c] * w
        slope = planes[row, axis]
        if slope > 0.0:
            high = min(high, left / slope)
        elif slope < 0.0:
            low = max(low, left / slope)
        elif left < 0.0:
            high = low
        row = int(planes[row, 6])
    return low, max(low, high)


@compiled()
def _steepest(plane: np.ndarray) -> int:
    axis = 0
    for k in (1, 2):
        if abs(plane[k]) > abs(plane[axis]):
            axis = k
    return axis


@compiled(parallel=True)
def plane_shares(
    planes: np.ndarray,
    heads: np.ndarray,
    shifts: np.ndarray,
    nodes: np.ndarray,
    weights: np.ndarray,
    shares: np.ndarray,
) -> None:
    """Volume (voxel,) of the first label's part of voxels, offsets more by ``shifts``."""
    for n in numba.prange(len(heads)):
        axis = _steepest(planes[heads[n]])
        total = 0.0
        for j in range(len(nodes)):
            for k in range(len(nodes)):
                low, high = _clip(planes, heads[n], shifts[n], axis, nodes[j], nodes[k])
                total += weights[j] * weights[k] * (high - low)
        shares[n] = total


@compiled()
def part_moments(
    planes: np.ndarray,
    heads: np.ndarray,
    middles: np.ndarray,
    parts: np.ndarray,
    scale: np.ndarray,
    nodes: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """Σ over parts of voxels of ∫ z^p y^q x^r, p, q, r = 0 … 3, of coordinates divided by ``scale``: (4, 4, 4).

    middles : (voxel, 3) voxel centres; parts : (voxel, 2) bool, whether the first and the second label's part counts.
    """
    sums = np.zeros((4, 4, 4))
    power = np.empty((3, 4))
    ends = np.empty((3, 2))
    for index in range(len(heads)):
        a = _steepest(planes[heads[index]])
        b, c = (a + 1) % 3, (a + 2) % 3
        for m in range(len(nodes)):
            for n in range(len(nodes)):
                low, high = _clip(planes, heads[index], 0.0, a, nodes[m], nodes[n])
                for axis, node in ((b, nodes[m]), (c, nodes[n])):
                    u = (middles[index, axis] + node) / scale[axis]
                    power[axis, 0], power[axis, 1], power[axis, 2], power[axis, 3] = 1.0, u, u * u, u * u * u
                ends[0, 0], ends[0, 1] = low, high
                ends[1, 0], ends[1, 1] = -0.5, low
                ends[2, 0], ends[2, 1] = high, 0.5
                for piece in range(3):
                    if not parts[index, min(piece, 1)] or ends[piece, 1] <= ends[piece, 0]:
                        continue
                    u, v = (
                        (middles[index, a] + ends[piece, 0]) / scale[a],
                        (middles[index, a] + ends[piece, 1]) / scale[a],
                    )
                    d = (v - u) * scale[
                        a
                    ]  # v^p − u^p by the difference: the powers themselves are nearly equal
                    power[a, 0], power[a, 1] = d, d * (u + v) / 2
                    power[a, 2] = d * (u * u + u * v + v * v) / 3
                    power[a, 3] = d * (u + v) * (u * u + v * v) / 4
                    weight = weights[m] * weights[n]
                    for p in range(4):
                        for q in range(4):
                            for r in range(4):
                                sums[p, q, r] += weight * power[0, p] * power[1, q] * power[2, r]
    return sums
