"""Where the rotation axis meets the detector, by several witnesses that may disagree."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from algotom.prep.calculation import find_center_vo

from tomoforge.errors import InputError
from tomoforge.reconstruction.angles import checked_angles
from tomoforge.reconstruction.normalise import line_integrals as to_line_integrals
from tomoforge.reconstruction.normalise import normalise
from tomoforge.scan import Scan

# A pair further from opposite than this is turned enough to move features at the edge of 1000 columns.
_OPPOSITE_TOLERANCE = np.radians(0.1)
# Vo's method compares a sinogram with its mirror image half a turn on; a few degrees may be missing.
_LEAST_ARC = np.radians(175.0)
_LEAST_CONTRAST = 0.25  # of the best row: rows that miss the sample only add noise to the vote
_MOST_PAIRS = 5
_LEAST_OVERLAP = 0.25  # of the columns that a projection and its mirrored opposite must share


@dataclass(frozen=True)
class CentreEstimate:
    """The rotation axis and how far to trust it.

    centre : detector column, 0-based [pixels], median over rows; spread : interquartile range over rows
    [pixels]; agreed : rows agree with each other, with the opposite pair where there is one, and none
    stopped at a bound; rows, by_row : the detector rows and their estimates [pixels]; opposite : estimate
    from projections half a turn apart [pixels], None where no two are; bounds : columns searched [pixels].
    """

    centre: float
    spread: float
    agreed: bool
    rows: tuple[int, ...]
    by_row: tuple[float, ...]
    opposite: float | None
    bounds: tuple[float, float]


def find_integrals_centre(
    line_integrals: np.ndarray,
    angles: np.ndarray,
    *,
    bounds: tuple[float, float] | None = None,
    rows: int | Sequence[int] = 5,
    tolerance: float = 1.0,
) -> CentreEstimate:
    """Rotation axis from line integrals: Vo's sinogram method on several rows, checked by opposite pairs.

    Parameters
    ----------
    line_integrals : (angle, y, x) float32, −ln(transmission)
    angles : (angle,) float, radians, any order, covering half a turn or more; only the first half turn
        goes to Vo's method, all opposite pairs to the registration
    bounds : (lowest, highest) column [pixels] to search; None for the middle ± an eighth of the width.
        Unbounded, Vo's method follows any symmetry that a sparse sinogram happens to have.
    rows : how many rows to choose by contrast, or which rows to use
    tolerance : float [pixels], disagreement above which ``agreed`` is False

    Returns
    -------
    estimate : CentreEstimate; check ``agreed`` before trusting ``centre``

    Raises
    ------
    InputError
        If shapes or bounds do not fit, or the angles span less than half a turn.

    References
    ----------
    Vo et al., Opt. Express 22, 19078 (2014).
    """
    if line_integrals.ndim != 3 or 0 in line_integrals.shape:
        raise InputError(f"line_integrals must be (angle, y, x) and not empty, got {line_integrals.shape}")
    angles = checked_angles(angles, line_integrals.shape[0])
    limits = _checked_bounds(bounds, line_integrals.shape[2])
    chosen = choose_rows(line_integrals, rows) if isinstance(rows, int) else _checked_rows(
        rows, line_integrals.shape[1]
    )  # fmt: skip
    half = _half_turn(angles)
    by_row = tuple(_vo(line_integrals[half, row], limits) for row in chosen)
    opposite = _opposite_centre(line_integrals, opposite_pairs(angles), limits)
    return _vote(chosen, by_row, opposite, limits, tolerance)


def find_centre(
    scan: Scan,
    *,
    bounds: tuple[float, float] | None = None,
    rows: int | Sequence[int] = 5,
    tolerance: float = 1.0,
) -> CentreEstimate:
    """Rotation axis of a scan, reading only a few whole frames and a few detector rows of it.

    Parameters and result as in ``find_integrals_centre``; ``bounds`` and ``tolerance`` in pixels.

    Raises
    ------
    InputError
        As ``find_integrals_centre``.
    ScanError
        If the scan cannot be normalised.
    """
    limits = _checked_bounds(bounds, scan.projections.shape[2])
    half = _half_turn(scan.angles)
    if isinstance(rows, int):
        sparse = half[:: max(1, half.size // 8)]
        looks, _ = to_line_integrals(normalise(_frames(scan, sparse), scan.flats, scan.darks))
        chosen = choose_rows(looks, rows)
    else:
        chosen = _checked_rows(rows, scan.projections.shape[1])
    by_row = []
    for row in chosen:
        band = slice(row, row + 1)
        counts = scan.rows(row, row + 1)[half]
        sinogram, _ = to_line_integrals(normalise(counts, scan.flats[:, band], scan.darks[:, band]))
        by_row.append(_vo(sinogram[:, 0], limits))
    pairs = opposite_pairs(scan.angles)
    opposite = None
    if pairs:
        used = np.unique(pairs)
        frames, _ = to_line_integrals(normalise(_frames(scan, used), scan.flats, scan.darks))
        within = [(int(np.searchsorted(used, i)), int(np.searchsorted(used, j))) for i, j in pairs]
        opposite = _opposite_centre(frames, within, limits)
    return _vote(chosen, tuple(by_row), opposite, limits, tolerance)


def choose_rows(line_integrals: np.ndarray, count: int) -> tuple[int, ...]:
    """The most contrasted row in each of ``count`` equal bands of (angle, y, x), empty bands left out.

    Raises
    ------
    InputError
        If ``count`` is below 1.
    """
    if count < 1:
        raise InputError(f"rows must be at least 1 row to look at, got {count}")
    contrast = line_integrals.std(axis=(0, 2))
    bands = np.array_split(np.arange(contrast.size), min(count, contrast.size))
    best = [int(band[np.argmax(contrast[band])]) for band in bands]
    return tuple(row for row in best if contrast[row] >= _LEAST_CONTRAST * contrast.max())


def opposite_pairs(angles: np.ndarray) -> list[tuple[int, int]]:
    """Up to five pairs (i, j), spread over the scan, with angles[j] half a turn after angles[i]."""
    order = np.argsort(angles, kind="stable")
    ordered = angles[order]
    nearest = np.searchsorted(ordered, ordered + np.pi - _OPPOSITE_TOLERANCE)
    pairs = [
        (int(order[i]), int(order[j]))
        for i, j in enumerate(nearest)
        if j < angles.size and abs(ordered[j] - ordered[i] - np.pi) <= _OPPOSITE_TOLERANCE
    ]
    keep = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), _MOST_PAIRS)).round().astype(int))
    return [pairs[k] for k in keep]


def pair_centre(first: np.ndarray, opposite: np.ndarray, bounds: tuple[float, float]) -> float:
    """Axis column [pixels] that best mirrors the projection half a turn on onto the first.

    Parameters
    ----------
    first, opposite : (y, x) float, line integrals half a turn apart
    bounds : (lowest, highest) column [pixels]

    Notes
    -----
    opposite(c) = first(2·centre − c), so the mirrored opposite is ``first`` shifted by
    2·centre − (columns − 1). Correlation (mean and scale removed) over the shared columns, at every whole
    shift, which is every half pixel of the centre; a parabola through the peak gives the rest.
    """
    n = first.shape[1]
    mirrored = opposite[:, ::-1]
    lowest = max(int(np.floor(2 * bounds[0])) - (n - 1), -int((1 - _LEAST_OVERLAP) * n))
    highest = min(int(np.ceil(2 * bounds[1])) - (n - 1), int((1 - _LEAST_OVERLAP) * n))
    shifts = np.arange(lowest, highest + 1)
    # mirrored(c) = first(c + shift)
    scores = np.array([
        _correlation(first[:, max(0, d) : n + min(0, d)], mirrored[:, max(0, -d) : n - max(0, d)])
        for d in shifts
    ])  # fmt: skip
    peak = int(np.argmax(scores))
    shift = float(shifts[peak])
    if 0 < peak < scores.size - 1:
        left, top, right = scores[peak - 1 : peak + 2]
        bend = left - 2 * top + right
        shift += 0.5 * (left - right) / bend if bend < 0 else 0.0
    return 0.5 * (shift + n - 1)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    a, b = first - first.mean(), second - second.mean()
    scale = np.sqrt(np.sum(a * a, dtype=np.float64) * np.sum(b * b, dtype=np.float64))
    return float(np.sum(a * b, dtype=np.float64) / scale) if scale > 0 else -1.0


def _opposite_centre(
    line_integrals: np.ndarray, pairs: list[tuple[int, int]], bounds: tuple[float, float]
) -> float | None:
    if not pairs:
        return None
    # A little blur: independent noise of the two frames would otherwise flatten the peak.
    blurred = {
        index: scipy.ndimage.gaussian_filter(line_integrals[index].astype(np.float32), 1.0)
        for index in {k for pair in pairs for k in pair}
    }
    return float(np.median([pair_centre(blurred[i], blurred[j], bounds) for i, j in pairs]))


def _vo(sinogram: np.ndarray, bounds: tuple[float, float]) -> float:
    """Vo's estimate [pixels] for an (angle, x) half-turn sinogram, kept within ``bounds``."""
    with warnings.catch_warnings():
        # It warns where the minimum lies on a bound; the vote below says so in the result instead.
        warnings.simplefilter("ignore")
        centre = find_center_vo(np.asarray(sinogram), start=bounds[0], stop=bounds[1], ncore=1)
    return float(np.clip(centre, *bounds))


def _vote(
    rows: tuple[int, ...],
    by_row: tuple[float, ...],
    opposite: float | None,
    bounds: tuple[float, float],
    tolerance: float,
) -> CentreEstimate:
    centre = float(np.median(by_row))
    spread = float(np.subtract(*np.percentile(by_row, [75, 25])))
    inside = bounds[0] + 0.5 < centre < bounds[1] - 0.5
    paired = opposite is None or abs(opposite - centre) <= tolerance
    agreed = bool(inside and paired and spread <= tolerance)
    return CentreEstimate(centre, spread, agreed, rows, by_row, opposite, bounds)


def _half_turn(angles: np.ndarray) -> np.ndarray:
    """Indices of the projections of the first half turn, by growing angle."""
    order = np.argsort(angles, kind="stable")
    ordered = angles[order] - angles[order[0]]
    if ordered[-1] < _LEAST_ARC:
        raise InputError(
            f"angles must span half a turn to find the axis, got {np.degrees(ordered[-1]):.1f} degrees; "
            "give rotation_centre instead"
        )
    half_step = 0.5 * np.pi / np.count_nonzero(ordered <= np.pi)
    return order[ordered <= np.pi + half_step]


def _frames(scan: Scan, indices: np.ndarray) -> np.ndarray:
    return np.stack([scan.projections[int(index)] for index in indices])


def _checked_bounds(bounds: tuple[float, float] | None, n_columns: int) -> tuple[float, float]:
    if bounds is None:
        middle = (n_columns - 1) / 2
        return (middle - n_columns / 8, middle + n_columns / 8)
    lowest, highest = float(bounds[0]), float(bounds[1])
    if not 0 <= lowest < highest <= n_columns - 1:
        raise InputError(
            f"bounds must be columns 0 ≤ lowest < highest ≤ {n_columns - 1}, got {bounds}; they are in pixels"
        )
    return (lowest, highest)


def _checked_rows(rows: Sequence[int], n_rows: int) -> tuple[int, ...]:
    chosen = tuple(int(row) for row in rows)
    if not chosen or min(chosen) < 0 or max(chosen) >= n_rows:
        raise InputError(f"rows must be detector rows in 0…{n_rows - 1}, got {list(rows)}")
    return chosen
