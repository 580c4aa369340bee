"""Absorption factors: what a reflection keeps of its intensity on the way in and out of the sample.

A_h = (1/V) ∫ exp(−Σ_m µ_m (L_in,m + L_out,m)) dV over the crystal, the mean of the product and never the
product of means: a point deep on the way in may be shallow on the way out.

References: W. R. Busing, H. A. Levy, Acta Cryst. 10 (1957) 180–182, eq. (1).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tomoforge.absorption import paths
from tomoforge.absorption.sampling import CrystalStrata, crystal_strata
from tomoforge.errors import InputError, MaterialError
from tomoforge.seeds import component_rng

_log = logging.getLogger(__name__)

PILOT_POINTS = 512
MAX_POINTS = 2**17
_TABLE_BYTES = 2**26  # incoming depths kept at once: what a last-level cache and a laptop both bear

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class AbsorptionFactors:
    """Absorption factors and how well they are known.

    a : (reflection,) float64, 0 < A ≤ 1; standard_error : (reflection,) float64, of A, from sampling alone
    (voxels that miss the true shape, a wrong µ or a wrong label are not in it); n_points : (reflection,)
    int64, crystal points used; converged : (reflection,) bool, standard_error ≤ target_error · A;
    target_error : float, relative; max_points : int, the cap on points; crystal_voxels : int.
    """

    a: np.ndarray
    standard_error: np.ndarray
    n_points: np.ndarray
    converged: np.ndarray
    target_error: float
    max_points: int
    crystal_voxels: int


@dataclass(frozen=True)
class _Sample:
    """The traced box: labels cropped to what absorbs or diffracts, µ per voxel length, strata."""

    grid: np.ndarray
    mu: np.ndarray
    strata: CrystalStrata


def absorption_factors(
    labels: np.ndarray,
    voxel_size: float,
    mu: Mapping[int, float] | Sequence[float] | np.ndarray,
    incoming: np.ndarray,
    outgoing: np.ndarray,
    *,
    crystal_label: int = 3,
    target_error: float = 1e-3,
    max_points: int = MAX_POINTS,
    seed: int = 0,
    progress: Progress | None = None,
) -> AbsorptionFactors:
    """A_h = mean over crystal points of exp(−Σ µ_m (L_in,m + L_out,m)) for each reflection.

    Parameters
    ----------
    labels : (z, y, x) integers 0 … 255
    voxel_size : float [m]
    mu : label → µ [1/m], or a sequence indexed by label; background (0) is 0 unless given
    incoming : (reflection, 3) or (3,) unit vectors (z, y, x) in the sample frame, the way the beam travels
    outgoing : (reflection, 3) unit vectors (z, y, x) in the sample frame, the way the diffracted ray travels
    crystal_label : int
    target_error : float, wanted standard error relative to A
    max_points : int, crystal points at most for one reflection; an odd number is rounded down
    seed : int
    progress : called with (reflections finished, reflections)

    Returns
    -------
    AbsorptionFactors; reflections that reach ``max_points`` first have ``converged`` False.

    Raises
    ------
    InputError
        for labels without crystal, vectors that are not finite and of unit length, sizes that do not
        match, a voxel size or target that is not positive, a transmission that vanishes altogether.
    MaterialError
        for a label without µ, a µ that is negative or not finite.

    Notes
    -----
    Points come in pairs from strata of equal volume; the spread within pairs gives an unbiased standard
    error. A pilot of 512 points tells how many each reflection needs (error ∝ n^(−5/6) in three
    dimensions). A reflection's factor depends on the seed and on nothing else in the call, neither on the
    other reflections nor on the number of threads. Reflections with
    equally many points share them, so that the errors within one call go together like one draw.
    """
    beams, exits = _ray_pairs(incoming, outgoing)
    if not (np.isfinite(target_error) and target_error > 0):
        raise InputError(f"target_error must be a positive relative error, got {target_error!r}")
    if max_points < 2:
        raise InputError(f"max_points must be at least 2 (a pair), got {max_points}")
    sample = _prepare(labels, voxel_size, mu, crystal_label)
    return _refine(sample, beams, exits, target_error, max_points, seed, progress)


def attenuation_table(
    labels: np.ndarray, mu: Mapping[int, float] | Sequence[float] | np.ndarray
) -> np.ndarray:
    """µ [1/m] by label, (label,) float64, complete for the labels that occur.

    Raises MaterialError for a label without µ or a µ that is negative or not finite.
    """
    present = paths.present_labels(paths.label_grid(labels))
    given = _by_label(mu)
    given.setdefault(0, 0.0)
    missing = [label for label in present if label not in given]
    if missing:
        raise MaterialError(
            f"mu must give every label of the volume, labels {missing} have none (given: "
            f"{sorted(given)}); add them, or 0 for a material that does not absorb"
        )
    wrong = {label: value for label, value in given.items() if not (np.isfinite(value) and value >= 0)}
    if wrong:
        raise MaterialError(f"mu must be finite µ ≥ 0 in 1/m, got {wrong} (label: µ)")
    table = np.zeros(max(max(given), max(present)) + 1)
    for label, value in given.items():
        table[label] = value
    return table


def _by_label(mu: Mapping[int, float] | Sequence[float] | np.ndarray) -> dict[int, float]:
    pairs = mu.items() if isinstance(mu, Mapping) else enumerate(mu)
    given = {}
    for label, value in pairs:
        if not isinstance(label, (int, np.integer)) or not 0 <= label <= 255:
            raise MaterialError(f"mu must be keyed by labels 0 … 255, got {label!r}; is it a name?")
        given[int(label)] = float(value)
    return given


def _ray_pairs(incoming: np.ndarray, outgoing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    exits = paths.unit_vectors("outgoing", outgoing)
    beams = np.asarray(incoming, dtype=np.float64)
    beams = paths.unit_vectors("incoming", beams[None] if beams.ndim == 1 else beams)
    if len(beams) not in (1, len(exits)):
        raise InputError(
            f"incoming must be one vector or as many as outgoing ({len(exits)}), got {len(beams)}"
        )
    return np.broadcast_to(beams, exits.shape), exits


def _prepare(
    labels: np.ndarray,
    voxel_size: float,
    mu: Mapping[int, float] | Sequence[float] | np.ndarray,
    crystal_label: int,
) -> _Sample:
    grid = paths.label_grid(labels)
    table = attenuation_table(grid, mu) * paths.positive_size(voxel_size)
    matters = np.zeros(256, dtype=bool)
    matters[: table.size] = table > 0
    if 0 <= crystal_label < 256:
        matters[crystal_label] = True
    box, _ = paths.crop(grid, matters[grid])
    return _Sample(box, table, crystal_strata(box, crystal_label))


def _refine(
    sample: _Sample,
    beams: np.ndarray,
    exits: np.ndarray,
    target_error: float,
    max_points: int,
    seed: int,
    progress: Progress | None,
) -> AbsorptionFactors:
    count = len(exits)
    a, error = np.full(count, np.nan), np.full(count, np.inf)
    used = np.zeros(count, dtype=np.int64)
    cap = max_points - max_points % 2
    sizes = _sizes(cap)
    wanted = np.full(count, sizes[0], dtype=np.int64)
    while True:
        todo = np.flatnonzero(wanted > used)
        if todo.size == 0:
            break
        # The smallest size first; a reflection climbs until its error is small or the cap is reached.
        size = int(wanted[todo].min())
        todo = todo[wanted[todo] == size]
        a[todo], error[todo] = _estimate(sample, beams[todo], exits[todo], size, seed)
        used[todo] = size
        _refuse_darkness(a[todo])
        wanted[todo] = _next_size(size, error[todo] / a[todo], target_error, sizes)
        if progress is not None:
            progress(int(np.sum(wanted <= used)), count)
    converged = error <= target_error * a
    if not converged.all():
        _log.warning(
            "%d of %d reflections did not reach the target error %g with %d points",
            int(np.sum(~converged)), count, target_error, cap,
        )  # fmt: skip
    return AbsorptionFactors(a, error, used, converged, target_error, cap, sample.strata.voxels)


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


def _estimate(
    sample: _Sample, beams: np.ndarray, exits: np.ndarray, size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """A and its standard error (reflection,) from ``size`` points, two in each of size/2 strata."""
    points = np.empty((size, 3))
    for half in (0, 1):
        rng = component_rng(seed, "absorption.points", size, half)
        points[half::2] = sample.strata.draw(size // 2, rng) + 0.5
    total, squares = np.empty(len(exits)), np.empty(len(exits))
    distinct, row = np.unique(beams, axis=0, return_inverse=True)
    row = row.reshape(-1)
    by_beam = np.argsort(row, kind="stable")
    step = max(1, _TABLE_BYTES // (8 * size))
    for first in range(0, len(distinct), step):
        low, high = np.searchsorted(row[by_beam], (first, first + step))
        batch = by_beam[low:high]
        # The way in is traced backwards, from the point towards the source, once for each beam.
        depths_in = paths.depth_table(sample.grid, sample.mu, points, -distinct[first : first + step])
        total[batch], squares[batch] = paths.pair_sums(
            sample.grid, sample.mu, points, depths_in, row[batch] - first, exits[batch]
        )
    # Two draws of one stratum differ by twice its variance: se² = Σ (f₁ − f₂)²/size².
    return total / size, np.sqrt(squares) / size
