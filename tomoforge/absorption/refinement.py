"""How many crystal points and which grid of directions: refined until the wanted error is reached.

Reflections share points that are spread evenly, by a table of directions or traced. Those of which a few thousand such
points would not be enough, since little of the crystal lets their light through, get points of their own where
that is (``tomoforge.absorption.adaptive``); by the table, with thousands of reflections to the ray, many points are
cheap, and only what these leave over does.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tomoforge.absorption.adaptive import adaptive_estimates
from tomoforge.absorption.direct import direct_estimate
from tomoforge.absorption.direction_grid import count_nodes, distinct_rows
from tomoforge.absorption.quadrature import Quadrature
from tomoforge.absorption.table import DARK, LEVELS, beam_stencils, table_estimate
from tomoforge.absorption.traced_sample import TracedSample
from tomoforge.errors import InputError

_log = logging.getLogger(__name__)

CONFIDENCE = 2.0  # standard errors that the target covers: 95 of 100 factors lie within it
PILOT_POINTS = 512
MOST_SHARED = 2**13  # points traced for all alike; where more are needed a reflection's own are fewer
_PILOT_ROWS = 48  # reflections that choose the grid
_BIAS_SHARE = 0.3  # of the target, for interpolation: in quadrature it takes 5 % of the error away
_MOST_BIAS = 0.7  # of the target; beyond it a finer grid is taken

Method = Literal["auto", "table", "direct"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Estimates:
    """a, sampling_error : (reflection,) float64; bias : (reflection,) float64, relative to A, from
    interpolation; n_points : (reflection,) int64; illuminated_fraction : (reflection,) float64 or None."""

    a: np.ndarray
    sampling_error: np.ndarray
    bias: np.ndarray
    n_points: np.ndarray
    method: Literal["table", "direct", "mixed"]
    illuminated_fraction: np.ndarray | None


def refine(
    sample: TracedSample,
    beams: np.ndarray,
    exits: np.ndarray,
    target_error: float,
    cap: int,
    seed: int,
    method: Method,
    progress: Progress | None,
) -> Estimates:
    """Factors of all reflections, each with as many points as its target takes, ``cap`` at most.

    ``target_error`` is the wanted standard error relative to A.
    """
    count = len(exits)
    a, error, bias = np.full(count, np.nan), np.full(count, np.inf), np.zeros(count)
    used = np.zeros(count, dtype=np.int64)
    traced = np.zeros(count, dtype=bool)
    sizes = _sizes(cap)
    wanted = np.full(count, sizes[0], dtype=np.int64)
    cells = _grid(sample, beams, exits, target_error, sizes[0], seed, method)
    while True:
        todo = np.flatnonzero(wanted > used)
        if todo.size == 0:
            break
        by_table = cells is not None and (method == "table" or _pays(beams[todo], exits[todo], cells))
        if by_table:
            # One table for nine tenths of them: rays for a few thousand nodes cost less than rungs of their own.
            size = int(np.quantile(wanted[todo], 0.9, method="higher"))
            todo = todo[wanted[todo] <= size]
        else:
            # The smallest size first; a reflection climbs until its error is small or the cap is reached.
            size = int(wanted[todo].min())
            if size > MOST_SHARED:
                break
            todo = todo[wanted[todo] == size]
        quadrature = sample.quadrature(size, seed)
        if by_table:
            assert cells is not None
            found = table_estimate(sample, beams[todo], exits[todo], quadrature, cells)
            finer = [level for level in LEVELS if level > cells]
            if found.bias > _MOST_BIAS * target_error and (finer or method == "auto"):
                cells = finer[0] if finer else None
                continue
            # A ≤ 1, whatever rounding and interpolation make of a sample that hardly absorbs.
            a[todo], error[todo], bias[todo] = np.minimum(found.a, 1.0), found.standard_error, found.bias
            traced[todo] = False
            dark = todo[~(found.a > DARK)]
        else:
            dark = todo
        if dark.size:
            a[dark], error[dark] = direct_estimate(sample, beams[dark], exits[dark], quadrature)
            bias[dark], traced[dark] = 0.0, True
        used[todo] = size
        _refuse_darkness(a[todo])
        share = np.sqrt(np.maximum(target_error**2 - bias[todo] ** 2, (target_error / 2) ** 2))
        wanted[todo] = _next_size(size, error[todo] / a[todo] * target_error / share, target_error, sizes)
        if progress is not None:
            progress(int(np.sum(wanted <= used)), count)
    late = np.flatnonzero(np.hypot(error, bias * a) > target_error * a)
    if (
        cells is not None
        and method == "auto"
        and cap > MOST_SHARED
        and not _pays(beams[late], exits[late], cells)
    ):
        todo = late
    shared, lit = used.copy(), np.ones(count)
    if todo.size:
        tell = None if progress is None else lambda done: progress(count - len(todo) + done, count)
        own = adaptive_estimates(sample, beams[todo], exits[todo], target_error, cap, seed, tell)
        _refuse_darkness(own.a)
        a[todo], error[todo], bias[todo], traced[todo] = own.a, own.standard_error, 0.0, True
        used[todo], shared[todo], lit[todo] = own.n_points, 0, own.illuminated
    late = np.flatnonzero(np.hypot(error, bias * a) > target_error * a)
    if late.size:
        _log.warning(
            "%d of %d reflections did not reach the target error %g with %d points",
            late.size, count, target_error, cap,
        )  # fmt: skip
    kind: Literal["table", "direct", "mixed"] = "mixed"
    if traced.all():
        kind = "direct"
    elif not traced.any():
        kind = "table"
    return Estimates(a, error, bias, used, kind, _illuminated(sample, beams, shared, lit, seed))


def _grid(
    sample: TracedSample,
    beams: np.ndarray,
    exits: np.ndarray,
    target_error: float,
    size: int,
    seed: int,
    method: Method,
) -> int | None:
    """Cells to a right angle of the coarsest grid that serves a few reflections well; None for no table."""
    if method == "direct" or len(exits) == 0:
        return None
    if method == "auto" and not _pays(beams, exits, LEVELS[0]):
        return None
    some = np.unique(np.linspace(0, len(exits) - 1, min(_PILOT_ROWS, len(exits))).astype(np.int64))
    quadrature = sample.quadrature(size, seed)
    for cells in LEVELS:
        if method == "auto" and not _pays(beams, exits, cells):
            return None
        pilot = table_estimate(sample, beams[some], exits[some], quadrature, cells)
        if pilot.bias <= _BIAS_SHARE * target_error:
            break
    _log.debug("directions on a grid of %.1f°", 90 / cells)
    return cells


def _pays(beams: np.ndarray, exits: np.ndarray, cells: int) -> bool:
    """Whether a table needs fewer rays than tracing each reflection."""
    distinct, _ = distinct_rows(beams)
    if len(exits) + len(distinct) < 500:  # the least grid has as many nodes
        return False
    # Half as many again: the pilots and checks of the table, and its sums, are not free.
    nodes = count_nodes(exits, cells) + len(beam_stencils(distinct, cells).nodes)
    return 1.5 * nodes < len(exits) + len(distinct)


def _sizes(cap: int) -> np.ndarray:
    """The numbers of points that may be used, (n,) int64: even, in half octaves from the pilot to ``cap``."""
    # A ladder and not any number: reflections of one rung share points and incoming depths.
    steps = np.arange(2 * max(int(np.ceil(np.log2(cap / PILOT_POINTS))), 0) + 1)
    rungs = 2 * np.round(PILOT_POINTS / 2 * 2.0 ** (steps / 2)).astype(np.int64)
    return np.append(rungs[rungs < cap], cap)


def _next_size(size: int, relative: np.ndarray, target_error: float, sizes: np.ndarray) -> np.ndarray:
    """Points that each reflection needs: ``size`` where it is done or at the cap, else a higher rung."""
    # Strata shrink as n^(−1/3) and so does the spread inside one: error ∝ n^(−1/2 − 1/3). 5 % allow for
    # the error's own error.
    needed = size * np.maximum(1.05 * relative / target_error, 1.0) ** 1.2
    rung = np.maximum(np.searchsorted(sizes, needed), np.searchsorted(sizes, size, side="right"))
    larger = sizes[np.minimum(rung, len(sizes) - 1)]
    return np.where(relative <= target_error, size, larger)


def _refuse_darkness(a: np.ndarray) -> None:
    if np.any(a <= 0):
        raise InputError(
            "mu and voxel_size give a transmission of zero for "
            f"{int(np.sum(a <= 0))} reflections; is mu in 1/m and voxel_size in m?"
        )


def _illuminated(
    sample: TracedSample, beams: np.ndarray, shared: np.ndarray, own: np.ndarray, seed: int
) -> np.ndarray | None:
    """Mean weight (reflection,) of the beam's profile over the crystal, with each reflection's own points.

    ``shared`` : how many these are where they are shared, else 0; there ``own`` is the answer.
    """
    if sample.profile is None:
        return None
    fraction = own.copy()
    for size in np.unique(shared[shared > 0]):
        rows = np.flatnonzero(shared == size)
        quadrature: Quadrature = sample.quadrature(int(size), seed)
        distinct, row = distinct_rows(beams[rows])
        for start in range(0, len(distinct), 1024):
            weight = sample.beam_weights(distinct[start : start + 1024], quadrature.points)
            mean, _ = quadrature.mean(quadrature.sums(weight[:, 0::2], weight[:, 1::2]))
            here = (row >= start) & (row < start + 1024)
            fraction[rows[here]] = mean[row[here] - start]
    return fraction
