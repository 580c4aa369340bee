"""Where the rotation axis meets the detector, by several witnesses that may disagree."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage
from algotom.prep.calculation import find_center_vo, find_overlap

from tomoforge.errors import InputError
from tomoforge.reconstruction.angles import checked_angles
from tomoforge.reconstruction.arcs import (
    FULL_TURN,
    fold_turn,
    opposite_halves,
    stitch_half_acquisition,
    turn_kind,
    turn_span,
)
from tomoforge.reconstruction.fbp import fbp
from tomoforge.reconstruction.normalise import line_integrals as to_line_integrals
from tomoforge.reconstruction.normalise import normalise
from tomoforge.reconstruction.opposite import opposite_pairs, pair_centre
from tomoforge.reconstruction.repair import lit_rows
from tomoforge.scan import Scan

# Vo's method compares a sinogram with its mirror image half a turn on; a few degrees may be missing.
_LEAST_ARC = np.radians(175.0)
_LEAST_CONTRAST = 0.25  # of the best row: rows that miss the sample only add noise to the vote
_LEAST_OVERLAP = 0.25  # of the columns that a projection and its mirrored opposite must share
_LEAST_TURN_OVERLAP = 0.04  # the same for full turns, whose axis may be near the edge on purpose
_MOST_FRAME_ROWS = 256  # of opposite frames: more rows find the same axis more slowly
_MOST_TURN_ANGLES = 128  # of each half of a full turn, likewise


@dataclass(frozen=True)
class CentreEstimate:
    """The rotation axis and how far to trust it.

    centre : detector column, 0-based [pixels]: the median over rows, or for a full turn whose witnesses agree the
    registration of its halves; spread : interquartile range over rows
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
    angles : (angle,) float, radians, any order, covering half a turn or more
    bounds : (lowest, highest) column [pixels] to search; None for the middle ± an eighth of the width, and for
        full turns everything where the halves still overlap. Unbounded, Vo's method follows any symmetry
        that a sparse sinogram happens to have.
    rows : how many rows to choose by contrast, or which rows to use
    tolerance : float [pixels], disagreement above which ``agreed`` is False

    Returns
    -------
    estimate : CentreEstimate; check ``agreed`` before trusting ``centre``

    Raises
    ------
    InputError
        If shapes or bounds do not fit, or the angles span less than half a turn.

    Notes
    -----
    Half turns: the first half turn of each row goes to Vo's method, pairs of frames half a turn apart to
    registration. Full turns: the two halves of the rows are registered with each other, which tells an axis near
    the middle from one near the edge; in the first case Vo's method runs on both halves of each row, in the second
    (half acquisition) Vo's overlap search does.

    References
    ----------
    Vo et al., Opt. Express 22, 19078 (2014); Vo et al., Opt. Express 29, 17849 (2021), for the overlap.
    """
    if line_integrals.ndim != 3 or 0 in line_integrals.shape:
        raise InputError(f"line_integrals must be (angle, y, x) and not empty, got {line_integrals.shape}")
    angles = checked_angles(angles, line_integrals.shape[0])
    chosen = choose_rows(line_integrals, rows) if isinstance(rows, int) else _checked_rows(
        rows, line_integrals.shape[1]
    )  # fmt: skip
    return _estimate(
        angles, line_integrals.shape[2], chosen, bounds, tolerance,
        sinogram=lambda row: line_integrals[:, row],
        frames=lambda indices: line_integrals[indices],
    )  # fmt: skip


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
    n_rows, n_columns = scan.projections.shape[1:]

    def integrals(counts: np.ndarray, band: slice) -> np.ndarray:
        return to_line_integrals(normalise(counts, scan.flats[:, band], scan.darks[:, band]))[0]

    def frames(indices: np.ndarray) -> np.ndarray:
        counts = np.stack([scan.projections[int(index)] for index in indices])
        return integrals(counts, slice(None))

    def sinogram(row: int) -> np.ndarray:
        return integrals(scan.rows(row, row + 1), slice(row, row + 1))[:, 0]

    if isinstance(rows, int):
        half = _half_turn(fold_turn(scan.angles))
        looks = frames(half[:: max(1, half.size // 8)])
        looks[:, ~lit_rows(scan.flats, scan.darks)] = (
            0  # copies of their neighbours, which cannot be read alone
        )
        chosen = choose_rows(looks, rows)
    else:
        chosen = _checked_rows(rows, n_rows)
    return _estimate(
        scan.angles, n_columns, chosen, bounds, tolerance, sinogram=sinogram, frames=frames
    )  # fmt: skip


def try_centres(scan: Scan, centres: Sequence[float], row: int) -> np.ndarray:
    """One slice reconstructed about each of several axes, for the eye to choose from.

    Parameters
    ----------
    scan : Scan; centres : detector columns [pixels]; row : the detector row

    Returns
    -------
    slices : (centre, y, x) float32, µ [1/m], by ``fbp`` with the ramp filter

    Raises
    ------
    InputError
        If ``row`` or a centre lies outside the detector, or there are no centres.
    """
    n_columns = scan.projections.shape[2]
    (row,) = _checked_rows([row], scan.projections.shape[1])
    if len(centres) == 0:
        raise InputError("centres must name at least one detector column, got none")
    band = slice(row, row + 1)
    transmission = normalise(scan.rows(row, row + 1), scan.flats[:, band], scan.darks[:, band])
    sinogram, _ = to_line_integrals(transmission)
    slices = []
    for centre in centres:
        if turn_kind(scan.angles, n_columns, centre) == "half acquisition":
            wide, angles, middle = stitch_half_acquisition(sinogram, scan.angles, centre)
            image = fbp(wide, angles, scan.pixel_size, middle)[0]
            # All pictures alike in size: the middle part, about the axis.
            cut = (image.shape[0] - n_columns) // 2
            slices.append(image[cut : cut + n_columns, cut : cut + n_columns])
        else:
            slices.append(fbp(sinogram, scan.angles, scan.pixel_size, centre)[0])
    return np.stack(slices)


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


def _estimate(
    angles: np.ndarray,
    n_columns: int,
    rows: tuple[int, ...],
    bounds: tuple[float, float] | None,
    tolerance: float,
    *,
    sinogram: Callable[[int], np.ndarray],
    frames: Callable[[np.ndarray], np.ndarray],
) -> CentreEstimate:
    """The axis from ``sinogram(row)`` (angle, x) and ``frames(indices)`` (frame, y, x) line integrals."""
    full = turn_span(angles) >= FULL_TURN
    limits = _checked_bounds(bounds, n_columns, full)
    turned = fold_turn(angles)
    half = _half_turn(turned)
    if not full:
        by_row = tuple(_vo(sinogram(row)[half], limits) for row in rows)
        return _vote(
            rows, by_row, _opposite_centre(frames, opposite_pairs(turned), limits), limits, tolerance
        )
    sinograms = np.stack([sinogram(row) for row in rows], axis=1)
    first, second = opposite_halves(sinograms, turned)
    thin = slice(None, None, max(1, len(first) // _MOST_TURN_ANGLES))
    opposite = pair_centre(
        scipy.ndimage.gaussian_filter1d(first[thin], 1.0, axis=-1),
        scipy.ndimage.gaussian_filter1d(second[thin], 1.0, axis=-1),
        limits, _LEAST_TURN_OVERLAP,
    )  # fmt: skip
    if turn_kind(angles, n_columns, opposite) == "half acquisition":
        by_row = tuple(
            _overlap_centre(first[:, index], second[:, index], opposite, limits) for index in range(len(rows))
        )
    else:
        # Vo's method would be misled far from the middle, where the wide limits of a full turn reach.
        near = _checked_bounds(None, n_columns, False) if bounds is None else limits
        later = _second_half_turn(turned)
        by_row = tuple(
            0.5 * (_vo(sinograms[half, index], near) + _vo(sinograms[later, index], near))
            for index in range(len(rows))
        )
    vote = _vote(rows, by_row, opposite, limits, tolerance)
    # The registration rests on all rows and angles at once and is not held to quarters of a pixel.
    return replace(vote, centre=opposite) if vote.agreed else vote


def _opposite_centre(
    frames: Callable[[np.ndarray], np.ndarray], pairs: list[tuple[int, int]], bounds: tuple[float, float]
) -> float | None:
    if not pairs:
        return None
    centres = []
    for pair in pairs:
        # A little blur: independent noise of the two frames would otherwise flatten the peak.
        blurred = scipy.ndimage.gaussian_filter(frames(np.array(pair)).astype(np.float32), (0, 1, 1))
        thin = slice(None, None, max(1, blurred.shape[1] // _MOST_FRAME_ROWS))
        centres.append(pair_centre(blurred[0, thin], blurred[1, thin], bounds, _LEAST_OVERLAP))
    return float(np.median(centres))


def _vo(sinogram: np.ndarray, bounds: tuple[float, float]) -> float:
    """Vo's estimate [pixels] for an (angle, x) half-turn sinogram, kept within ``bounds``."""
    with warnings.catch_warnings():
        # It warns where the minimum lies on a bound; the vote below says so in the result instead.
        warnings.simplefilter("ignore")
        centre = find_center_vo(np.ascontiguousarray(sinogram), start=bounds[0], stop=bounds[1], ncore=1)
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


def _overlap_centre(
    first: np.ndarray, opposite: np.ndarray, near: float, bounds: tuple[float, float]
) -> float:
    """Axis [pixels] of (angle, x) halves of a full turn, by Vo's overlap search on the side of ``near``."""
    n = first.shape[1]
    side = 1 if near > (n - 1) / 2 else 0
    shared = 2 * min(near, n - 1 - near) + 1
    window = max(6, int(0.6 * shared))
    overlap, _, _ = find_overlap(first, opposite[:, ::-1], window, side=side, ncore=1)
    centre = overlap / 2 - 0.5 if side == 0 else n - overlap / 2 - 0.5
    return float(np.clip(centre, *bounds))


def _half_turn(angles: np.ndarray) -> np.ndarray:
    """Indices of the projections of the first half turn, by growing angle."""
    order = np.argsort(angles, kind="stable")
    ordered = angles[order] - angles[order[0]]
    # The last of a half turn cut into equal steps is one step short of it.
    if ordered[-1] + np.median(np.diff(ordered)) < _LEAST_ARC:
        raise InputError(
            f"angles must span half a turn to find the axis, got {np.degrees(ordered[-1]):.1f} degrees; "
            "give rotation_centre instead"
        )
    half_step = 0.5 * np.pi / np.count_nonzero(ordered <= np.pi)
    return order[ordered <= np.pi + half_step]


def _second_half_turn(angles: np.ndarray) -> np.ndarray:
    """Indices of the last half turn of a full one, by growing angle."""
    return _half_turn(angles.max() - angles)[::-1]


def _checked_bounds(
    bounds: tuple[float, float] | None, n_columns: int, full_turn: bool
) -> tuple[float, float]:
    middle = (n_columns - 1) / 2
    if bounds is None:
        reach = 0.5 * (1 - _LEAST_TURN_OVERLAP) * n_columns if full_turn else n_columns / 8
        return (max(middle - reach, 0.0), min(middle + reach, n_columns - 1.0))
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
