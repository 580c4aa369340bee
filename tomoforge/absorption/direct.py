"""The direct method: every ray of every reflection traced, nothing interpolated."""

import numpy as np

from tomoforge.absorption.direction_grid import distinct_rows
from tomoforge.absorption.path_kernels import depth_table, pair_sums
from tomoforge.absorption.quadrature import Quadrature, Sums
from tomoforge.absorption.traced_sample import TracedSample
from tomoforge.backend import array_module

_TABLE_BYTES = 2**26  # transmissions kept at once: what a last-level cache and a laptop both bear


def direct_estimate(
    sample: TracedSample, beams: np.ndarray, exits: np.ndarray, quadrature: Quadrature
) -> tuple[np.ndarray, np.ndarray]:
    """A and its standard error, both (reflection,), for beams and exits (reflection, 3)."""
    points = quadrature.points
    a, error = np.empty(len(exits)), np.empty(len(exits))
    distinct, row = distinct_rows(beams)
    by_beam = np.argsort(row, kind="stable")
    step = max(1, _TABLE_BYTES // (8 * len(points)))
    for first in range(0, len(distinct), step):
        low, high = np.searchsorted(row[by_beam], (first, first + step))
        batch = by_beam[low:high]
        some = distinct[first : first + step]
        # The way in is traced backwards, from the point towards the source, once for each beam.
        into = np.exp(-depth_table(sample.grid, sample.mu, points, -some))
        weight = sample.beam_weights(some, points)
        if weight.size:
            into *= array_module(into).asarray(weight)
        sums = Sums(
            *pair_sums(
                sample.grid,
                sample.mu,
                points,
                into,
                weight,
                row[batch] - first,
                exits[batch],
                quadrature.lift,
            )
        )
        if weight.size:
            under = quadrature.sums(weight[:, 0::2], weight[:, 1::2])
            a[batch], error[batch] = quadrature.ratio(sums, under.select(row[batch] - first))
        else:
            a[batch], error[batch] = quadrature.positive_mean(sums)
    return a, error
