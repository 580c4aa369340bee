"""Points where a reflection's light is: cells of the crystal, split until the error is small enough.

Where absorption is strong only a skin of the crystal lets anything through, on a side of its own for each
reflection, and points spread evenly fall into the dark. Here each reflection starts from some hundred cells of an
octree with four points in each, splits those that add most to its error, and draws anew, until the error is as wanted.
The last draw alone makes the estimate. Its cells, and that it is to be the last, come from earlier draws: so its mean
is unbiased, and the spread within cells an honest measure of its error. To stop at any draw that happens to look
good would favour those that missed some of the light.

References: W. G. Cochran, Sampling Techniques, 3rd ed. (1977), 5.5 (Neyman's allocation); J. M. Hammersley,
K. W. Morton, Proc. Camb. Phil. Soc. 52 (1956) 449–475 (antithetic variates).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tomoforge.absorption.octree import POINTS_IN_CELL, Cells, CrystalOctree, crystal_octree
from tomoforge.absorption.path_kernels import depth_table
from tomoforge.absorption.traced_sample import TracedSample
from tomoforge.backend import to_host
from tomoforge.seeds import component_rng

_FIRST_CELLS = 128
_GROWTH = 4  # times as many cells in one step at most, lest a poor first look decide all
_MOST_HALVINGS = 12  # of one cell in one step, likewise
_MARGIN = 1.2  # in points, so that few draws miss the target
_DOUBT = 0.25  # of the expected spread, the least that a claimed error may be
_GOLDEN = (np.sqrt(5) - 1) / 2
_MOST_STEPS = 12  # four times as many cells in each would be 10⁹


@dataclass(frozen=True)
class AdaptiveEstimates:
    """a, standard_error : (reflection,) float64; n_points : (reflection,) int64, of the last draw; illuminated :
    (reflection,) float64, mean weight of the beam's profile over the crystal, 1 without one."""

    a: np.ndarray
    standard_error: np.ndarray
    n_points: np.ndarray
    illuminated: np.ndarray


def adaptive_estimates(
    sample: TracedSample,
    beams: np.ndarray,
    exits: np.ndarray,
    target_error: float,
    cap: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> AdaptiveEstimates:
    """A for beams and exits (reflection, 3), each to a standard error of ``target_error`` · A.

    At most ``cap`` points, 512 at least, lie in one draw. A reflection's estimate depends on ``seed``, on its two
    rays and on nothing else of the others. ``progress`` is called with the reflections finished.
    """
    count = len(exits)
    found = AdaptiveEstimates(
        np.empty(count), np.empty(count), np.empty(count, dtype=np.int64), np.empty(count)
    )
    octree = crystal_octree(sample.strata)
    for r in range(count):
        found.a[r], found.standard_error[r], found.n_points[r], found.illuminated[r] = _estimate(
            sample, octree, beams[r], exits[r], target_error, cap, seed
        )
        if progress is not None:
            progress(r + 1)
    return found


def _estimate(
    sample: TracedSample,
    octree: CrystalOctree,
    beam: np.ndarray,
    exit_ray: np.ndarray,
    target_error: float,
    cap: int,
    seed: int,
) -> tuple[float, float, int, float]:
    """A, its standard error, points and lit fraction of one reflection."""
    cells, foreseen, last = octree.cells(_FIRST_CELLS), False, False
    most = cap // POINTS_IN_CELL
    step = 0
    while True:
        rng = component_rng(seed, "absorption.cells", step)
        depth, weight = _traced(sample, beam, exit_ray, octree.draw(cells, rng))
        share = cells.volume / octree.volume
        lit = float((share * weight.mean(axis=0)).sum())
        a = float((share * (weight * np.exp(-depth)).mean(axis=0)).sum()) / lit if lit > 0 else 0.0
        # Half the difference of the two antithetic pairs, of the ratio Σ w T / Σ w to first order.
        rest = (weight * (np.exp(-depth) - a)).reshape(2, 2, -1).mean(axis=1)
        spread = np.abs(rest[0] - rest[1]) / 2
        expected = _expected_spread(cells, depth, weight, 2 * sample.mu.max())
        # Mostly two to three times the spread; where it is far more, four points agree by chance.
        claimed = [float(np.sqrt(((share * part) ** 2).sum())) for part in (spread, _DOUBT * expected)]
        error = max(claimed) / lit if lit > 0 else np.inf
        if (foreseen and error <= target_error * a) or last:
            return a, error, POINTS_IN_CELL * len(share), lit
        # An error falls as one over the points, or faster, where they go where it comes from.
        needed = _MARGIN * len(share) * error / (target_error * a) if a > 0 else np.inf
        # The cap is reached in two steps: after the first it is known where the last cells are wanted.
        ceiling = most if len(share) >= most / 2 else 0.8 * most
        wanted = min(max(needed, len(share)), _GROWTH * len(share), ceiling)
        foreseen, last = needed <= wanted, wanted == most or step + 2 >= _MOST_STEPS
        cells = octree.split(cells, _halvings(share * np.maximum(spread, expected), int(wanted)))
        step += 1


def _traced(
    sample: TracedSample, beam: np.ndarray, exit_ray: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Optical depth in and out and the beam's weight, both (4, cell), at points (4, cell, 3)."""
    flat = points.reshape(-1, 3)
    depth = sum(to_host(depth_table(sample.grid, sample.mu, flat, ray[None]))[0] for ray in (-beam, exit_ray))
    weight = sample.beam_weights(beam[None], flat)[0] if sample.profile is not None else np.ones(len(flat))
    return depth.reshape(points.shape[:2]), weight.reshape(points.shape[:2])


def _expected_spread(cells: Cells, depth: np.ndarray, weight: np.ndarray, slope: float) -> np.ndarray:
    """What a cell's spread may well be, (cell,), where four points happen to agree or to miss the light.

    ``slope`` is the optical depth that one voxel makes, in and out.
    """
    across = slope * cells.edge
    brightest = weight.max(axis=0) * np.exp(-np.maximum(depth.min(axis=0) - across / 2, 0))
    across = np.minimum(across, 1)
    # Of a slope g across a uniform cell: g/√12; in full boxes, where it drops out, a part of the curvature.
    return brightest * np.where(cells.is_full, across**2 / 16, across / np.sqrt(12))


def _halvings(spread: np.ndarray, most: int) -> np.ndarray:
    """How often to halve each cell, (cell,) int64, for ``most`` cells in all.

    ``spread`` is that of each cell, times its volume.
    """
    # A slope's spread falls as m^(−1/3) and the variance of m cells as m^(−5/3): m ∝ spread^(3/4) makes it least.
    wanted = 0.75 * np.log2(np.maximum(spread, np.finfo(float).tiny))
    # Rounded up and down in turn, since alike cells would all be halved or none.
    wanted += np.arange(len(spread)) * _GOLDEN % 1 - 0.5
    low, high = -float(wanted.max()), -float(wanted.min()) + _MOST_HALVINGS
    halvings = np.zeros(len(spread), dtype=np.int64)
    for _ in range(30):
        middle = (low + high) / 2
        tried = np.clip(np.rint(wanted + middle), 0, _MOST_HALVINGS).astype(np.int64)
        if (1 << tried).sum() <= most:
            low, halvings = middle, tried
        else:
            high = middle
    return halvings
