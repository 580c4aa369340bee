"""The table method: transmissions of each crystal point on a grid of directions, interpolated for reflections.

Rays are traced for the nodes of a grid in the sample frame, as many as the directions visited need, and not
for reflections: the cost of tracing stops growing once the reflections outnumber the nodes. For each point
the transmissions in and out are interpolated and multiplied, so that A stays the mean of the product.
Transmissions and not depths are interpolated: no exponential is left for the sums, and the error is as small.

Only a piece of the table exists at a time: all nodes for some of the points.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tomoforge.absorption.direction_grid import Stencils, distinct_rows, exact_stencils, grid_stencils
from tomoforge.absorption.path_kernels import transmission_table
from tomoforge.absorption.quadrature import Quadrature, no_sums
from tomoforge.absorption.table_kernels import add_table_sums, mixed_rows
from tomoforge.absorption.traced_sample import TracedSample
from tomoforge.backend import array_module, to_host

LEVELS = (8, 12, 18, 27, 40, 60, 90)  # cells to a right angle that may be tried, 11° … 1°
CHECKS = 64  # reflections traced directly, on the same points, to see what interpolation does
DARK = 1e-15  # A below which squares in single precision run out: for the direct method
_TABLE_BYTES = 2**27
_MAX_PAIRS = 4096  # summed in float32 at once
_BEAM_BLOCK = 4096  # beams whose transmissions lie in memory together


@dataclass(frozen=True)
class TableEstimate:
    """a, standard_error : (reflection,) float64, the error from sampling; bias : float, relative to A, rms
    over the checked reflections of what interpolation adds beyond the standard error."""

    a: np.ndarray
    standard_error: np.ndarray
    bias: float


def table_estimate(
    sample: TracedSample, beams: np.ndarray, exits: np.ndarray, quadrature: Quadrature, cells: int
) -> TableEstimate:
    """A, its standard error and the error of interpolation, for beams and exits (reflection, 3)."""
    distinct, row = distinct_rows(beams)
    out, into = grid_stencils(exits, cells), beam_stencils(distinct, cells)
    # By blocks of beams, inside which the reflections of one cell come together: their nodes stay in the cache.
    block = row // _BEAM_BLOCK
    order = np.lexsort((out.corner, block))
    ends = np.searchsorted(block[order], np.arange(-(-len(distinct) // _BEAM_BLOCK) + 1))
    checked = np.unique(np.linspace(0, len(exits) - 1, min(CHECKS, len(exits))).astype(np.int64))
    fitted, pairs = quadrature.lift.shape[1], len(quadrature.lift)
    sums, lit = no_sums(len(exits), fitted, np.float32), no_sums(len(distinct), fitted)
    wrong = no_sums(len(checked), fitted)
    step = min(_MAX_PAIRS, max(64, _TABLE_BYTES // (8 * (len(out.nodes) + len(into.nodes)))))
    for start in range(0, pairs, step):
        points = quadrature.points[2 * start : 2 * min(start + step, pairs)]
        lift = np.ascontiguousarray(quadrature.lift[start : start + step].T, dtype=np.float32)
        table = transmission_table(sample.grid, sample.mu, points, out.nodes)
        source = transmission_table(sample.grid, sample.mu, points, into.nodes)
        for number, (low, high) in enumerate(pairwise(ends)):
            some = slice(number * _BEAM_BLOCK, (number + 1) * _BEAM_BLOCK)
            arriving = mixed_rows(source, into.select(some))
            weight = _profile(sample, distinct[some], points)
            if weight.size:
                arriving *= array_module(arriving).asarray(weight)
                lit.add(some, quadrature.sums(weight[:, 0], weight[:, 1], start))
            add_table_sums(sums, order[low:high], table, out, arriving, weight, row - some.start, lift)
        error = _interpolation_errors(
            sample, points, (table, out.select(checked)), (source, into.select(row[checked])),
            beams[checked], exits[checked],
        )  # fmt: skip
        wrong.add(slice(None), quadrature.sums(error[:, 0], error[:, 1], start))
    if sample.profile is None:
        a, standard_error = quadrature.positive_mean(sums)
        scale = a[checked]
    else:
        a, standard_error = quadrature.ratio(sums, lit.select(row))
        scale = a[checked] * quadrature.mean(lit.select(row[checked]))[0]
    return TableEstimate(a, standard_error, _bias(*quadrature.mean(wrong), scale))


def beam_stencils(distinct: np.ndarray, cells: int) -> Stencils:
    """Stencils of the way in, traced backwards from the point towards the source: whichever needs fewer rays."""
    exact = exact_stencils(-distinct)
    interpolated = grid_stencils(-distinct, cells)
    return exact if len(exact.nodes) <= len(interpolated.nodes) else interpolated


def _profile(sample: TracedSample, beams: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(beam, 2, pair) float32 weights of the beam's profile, or (0, 0, 0)."""
    weight = sample.beam_weights(beams, points).astype(np.float32)
    if weight.size == 0:
        return np.zeros((0, 0, 0), dtype=np.float32)
    return np.ascontiguousarray(weight.reshape(len(beams), -1, 2).transpose(0, 2, 1))


def _interpolation_errors(
    sample: TracedSample,
    points: np.ndarray,
    out: tuple[np.ndarray, Stencils],
    into: tuple[np.ndarray, Stencils],
    beams: np.ndarray,
    exits: np.ndarray,
) -> np.ndarray:
    """Interpolated less traced transmission (r, 2, pair) float64 of some reflections, point by point."""
    interpolated = mixed_rows(*out) * mixed_rows(*into)
    traced = transmission_table(sample.grid, sample.mu, points, exits)
    traced *= transmission_table(sample.grid, sample.mu, points, -beams)
    difference = to_host(interpolated - traced).astype(np.float64)
    if sample.profile is not None:
        difference *= _profile(sample, beams, points)
    return difference


def _bias(mean: np.ndarray, error: np.ndarray, a: np.ndarray) -> float:
    """Rms of mean/a beyond what its own ``error`` explains."""
    # Voxel faces make each point's transmission rough in direction; what interpolation makes of that differs
    # from point to point and so is in the spread within pairs already. Only the rest is added to it.
    bright = a > DARK
    if not bright.any():
        return 0.0
    mean, error = mean[bright] / a[bright], error[bright] / a[bright]
    return float(np.sqrt(max(np.mean(mean**2) - np.mean(error**2), 0.0)))
