"""Compiled sums over crystal points of transmissions interpolated from a table of directions.

Tables are (direction, 2, pair) float32: first points of all pairs, then second ones, so that the points of
one direction lie in a row. Each reflection belongs to one thread: the bytes are the same for any number of threads.
Sums may be reordered when a kernel is compiled, which is what fills vector registers: no infinity or NaN comes here.
Where the table lies on a GPU, so do ``into`` and the interpolated rows; sums stay on the host.
"""

from typing import Any

import numba
import numpy as np

from tomoforge.absorption import kernels_cuda
from tomoforge.absorption.direction_grid import Stencils
from tomoforge.absorption.quadrature import Sums
from tomoforge.backend import array_module
from tomoforge.compilation import compiled

_TASK = 64  # reflections that share a thread's buffers


def mixed_rows(table: np.ndarray, stencils: Stencils) -> np.ndarray:
    """(direction, 2, pair) float32: the table (node, 2, pair) float32 interpolated."""
    if (xp := array_module(table)) is not np:
        return kernels_cuda.mixed_rows(xp, table, stencils)
    rows = np.empty((len(stencils.corner), *table.shape[1:]), dtype=np.float32)
    if rows.size:
        _mixed_rows(table, stencils.corner, stencils.fraction, stencils.place, stencils.side, rows)
    return rows


def add_table_sums(
    sums: Sums,
    rows: np.ndarray,
    table: np.ndarray,
    out: Stencils,
    into: np.ndarray,
    weight: np.ndarray,
    row: np.ndarray,
    lift: np.ndarray,
) -> None:
    """Add to ``sums`` of the reflections ``rows`` what ``path_kernels.pair_sums`` gives, the way out interpolated.

    table : (node, 2, pair) float32; out : stencils of all reflections; into, weight : (beam, 2, pair)
    float32, or weight (0, 0, 0); row : (reflection,) int64, beam of each; lift : (K, pair) float32.
    """
    if (xp := array_module(table)) is not np:
        found = kernels_cuda.table_sums(xp, rows, table, out, into, weight, row, lift)
        for have, more in zip((sums.total, sums.squares, sums.lifted, sums.cross), found, strict=True):
            have[rows] += more
    elif len(rows):
        _add_table_sums(
            rows, table, out.corner, out.fraction, out.place, out.side, into, weight, row, lift,
            sums.total, sums.squares, sums.lifted, sums.cross,
        )  # fmt: skip


def add_weighted_sums(
    result: np.ndarray,
    table: np.ndarray,
    out: Stencils,
    into: np.ndarray,
    row: np.ndarray,
    weights: np.ndarray,
) -> None:
    """Add to ``result`` (reflection,) Σ weights · in · out, ``weights`` (2, pair) float32 the quadrature's."""
    if (xp := array_module(table)) is not np:
        result += kernels_cuda.weighted_sums(xp, table, out, into, row, weights)
    elif len(result):
        _add_weighted_sums(table, out.corner, out.fraction, out.place, out.side, into, row, weights, result)


@compiled(reassociate=True)
def _expand(
    corner: int,
    fraction: np.ndarray,
    place: np.ndarray,
    side: int,
    index: np.ndarray,
    coefficient: np.ndarray,
) -> None:
    """Numbers and Lagrange coefficients of the 16 nodes of one direction."""
    for i in range(4):
        p = lagrange(i, fraction[0])
        for j in range(4):
            index[4 * i + j] = place[corner + i * side + j]
            coefficient[4 * i + j] = p * lagrange(j, fraction[1])


@compiled(reassociate=True)
def lagrange(i: int, t: float) -> Any:
    """Weight of the node at i − 1 for the place t, 0 … 1, in a cubic through −1, 0, 1, 2."""
    if i == 0:
        return -t * (t - 1) * (t - 2) / 6
    if i == 1:
        return (t + 1) * (t - 1) * (t - 2) / 2
    if i == 2:
        return -(t + 1) * t * (t - 2) / 2
    return (t + 1) * t * (t - 1) / 6


@compiled(reassociate=True)
def _mix(
    table: np.ndarray, half: int, index: np.ndarray, coefficient: np.ndarray, values: np.ndarray
) -> None:
    """values[s] = Σ_i coefficient[i] · table[index[i], half, s] over 16 nodes."""
    pairs = values.shape[0]
    for i in range(0, 16, 4):
        a, b = table[index[i], half], table[index[i + 1], half]
        c, d = table[index[i + 2], half], table[index[i + 3], half]
        ca, cb, cc, cd = coefficient[i], coefficient[i + 1], coefficient[i + 2], coefficient[i + 3]
        if i == 0:
            for s in range(pairs):
                values[s] = ca * a[s] + cb * b[s] + cc * c[s] + cd * d[s]
        else:
            for s in range(pairs):
                values[s] += ca * a[s] + cb * b[s] + cc * c[s] + cd * d[s]


@compiled(parallel=True, reassociate=True)
def _mixed_rows(
    table: np.ndarray,
    corner: np.ndarray,
    fraction: np.ndarray,
    place: np.ndarray,
    side: int,
    rows: np.ndarray,
) -> None:
    for task in numba.prange((len(corner) + _TASK - 1) // _TASK):
        index, coefficient = np.empty(16, dtype=np.int64), np.empty(16, dtype=np.float32)
        for r in range(task * _TASK, min((task + 1) * _TASK, len(corner))):
            if side == 0:
                rows[r] = table[corner[r]]
            else:
                _expand(corner[r], fraction[r], place, side, index, coefficient)
                for half in range(2):
                    _mix(table, half, index, coefficient, rows[r, half])


@compiled(reassociate=True)
def _dot(a: np.ndarray, b: np.ndarray) -> Any:
    result = np.float32(0.0)
    for s in range(a.shape[0]):
        result += a[s] * b[s]
    return result


@compiled(parallel=True, reassociate=True)
def _add_table_sums(
    rows: np.ndarray,
    table: np.ndarray,
    corner: np.ndarray,
    fraction: np.ndarray,
    place: np.ndarray,
    side: int,
    into: np.ndarray,
    weight: np.ndarray,
    row: np.ndarray,
    lift: np.ndarray,
    total: np.ndarray,
    squares: np.ndarray,
    lifted: np.ndarray,
    cross: np.ndarray,
) -> None:
    pairs = table.shape[2]
    for task in numba.prange((len(rows) + _TASK - 1) // _TASK):
        first, second = np.empty(pairs, dtype=np.float32), np.empty(pairs, dtype=np.float32)
        index, coefficient = np.empty(16, dtype=np.int64), np.empty(16, dtype=np.float32)
        for which in range(task * _TASK, min((task + 1) * _TASK, len(rows))):
            r = rows[which]
            _expand(corner[r], fraction[r], place, side, index, coefficient)
            _mix(table, 0, index, coefficient, first)
            _mix(table, 1, index, coefficient, second)
            before, after = into[row[r], 0], into[row[r], 1]
            sum_ = np.float32(0.0)
            for s in range(pairs):
                one, two = before[s] * first[s], after[s] * second[s]
                sum_ += one + two
                first[s] = one - two
            total[r] += sum_
            squares[r] += _dot(first, first)
            for k in range(lift.shape[0]):
                lifted[r, k] += _dot(first, lift[k])
            if weight.size > 0:
                before, after = weight[row[r], 0], weight[row[r], 1]
                for s in range(pairs):
                    second[s] = before[s] - after[s]
                cross[r] += _dot(first, second)


@compiled(parallel=True, reassociate=True)
def _add_weighted_sums(
    table: np.ndarray,
    corner: np.ndarray,
    fraction: np.ndarray,
    place: np.ndarray,
    side: int,
    into: np.ndarray,
    row: np.ndarray,
    weights: np.ndarray,
    result: np.ndarray,
) -> None:
    pairs = table.shape[2]
    for task in numba.prange((len(result) + _TASK - 1) // _TASK):
        values = np.empty(pairs, dtype=np.float32)
        index, coefficient = np.empty(16, dtype=np.int64), np.empty(16, dtype=np.float32)
        for r in range(task * _TASK, min((task + 1) * _TASK, len(result))):
            if side > 0:
                _expand(corner[r], fraction[r], place, side, index, coefficient)
            for half in range(2):
                if side > 0:
                    _mix(table, half, index, coefficient, values)
                else:
                    values[:] = table[corner[r], half]
                before, share = into[row[r], half], weights[half]
                for s in range(pairs):
                    values[s] *= before[s]
                result[r] += _dot(values, share)
