"""A rotation axis that leans in the detector's plane: measured from opposite frames, taken out by turning them."""

import logging
from collections.abc import Callable

import numpy as np
import scipy.ndimage

from tomoforge.errors import InputError
from tomoforge.reconstruction.arcs import FULL_TURN, fold_turn, turn_span
from tomoforge.reconstruction.normalise import line_integrals as to_line_integrals
from tomoforge.reconstruction.normalise import normalise
from tomoforge.reconstruction.opposite import opposite_pairs, pair_centre
from tomoforge.scan import Scan

logger = logging.getLogger(__name__)

_LEAST_BANDS = 3  # below that a slope is a guess
_LEAST_BAND_ROWS = 4
_LEAST_CONTRAST = 0.25  # of the best band: air has no axis
_MOST_TILT = np.radians(5.0)  # an axis that leans more is a mistake, not a misalignment
_LEAST_OVERLAP, _LEAST_TURN_OVERLAP = (
    0.25,
    0.04,
)  # shared columns; of full turns, whose axis may be near an edge
# A lean also moves features up and down, oppositely in the two frames: the first slope is a few percent short.
_REFINEMENTS = 2


def find_tilt(
    scan: Scan, *, bounds: tuple[float, float] | None = None, bands: int = 16, floor: float = 1e-4
) -> float:
    """Lean of the rotation axis in the detector's plane, from frames half a turn apart.

    Parameters
    ----------
    scan : Scan with at least one pair of projections half a turn apart
    bounds : (lowest, highest) column [pixels] of the axis; None for all where a quarter of the columns overlap
    bands : how many bands of rows to find the axis in
    floor : least transmission that is believed

    Returns
    -------
    tilt : float [rad], positive where the axis runs to higher columns in lower rows (towards larger row index);
        0 where no pair is there or too few bands show the sample, which is logged

    Raises
    ------
    InputError
        If ``bands`` is below 3.
    ScanError
        If the scan cannot be normalised.

    Notes
    -----
    In each band of rows the mirrored opposite frame is registered with the first; the slope of the axis's column
    against the row is tan(tilt). Theil–Sen's median of slopes, so that a band without contrast has no say. Good to
    about a tenth of a pixel over the height of the sample. An axis that leans along the beam is not seen.
    """
    if bands < _LEAST_BANDS:
        raise InputError(f"bands must be at least {_LEAST_BANDS} to give a slope, got {bands}")
    pairs = opposite_pairs(fold_turn(scan.angles))
    if not pairs:
        logger.warning("no two projections are half a turn apart: the tilt of the axis is taken as zero")
        return 0.0
    overlap = _LEAST_TURN_OVERLAP if turn_span(scan.angles) >= FULL_TURN else _LEAST_OVERLAP
    tilts = []
    for pair in pairs:
        counts = np.stack([scan.projections[int(index)] for index in pair])
        frames, _ = to_line_integrals(normalise(counts, scan.flats, scan.darks), floor)
        tilt = _pair_tilt(frames, bounds, bands, overlap)
        if tilt is not None:
            tilts.append(tilt)
    if not tilts:
        logger.warning(
            "too little of the sample's height shows contrast: the tilt of the axis is taken as zero"
        )
        return 0.0
    return float(np.median(tilts))


def _pair_tilt(
    frames: np.ndarray, bounds: tuple[float, float] | None, bands: int, overlap: float
) -> float | None:
    """Tilt [rad] from two opposite frames, refined on frames that were turned back by the tilt found so far."""
    tilt, middle = 0.0, (frames.shape[2] - 1) / 2
    for _ in range(_REFINEMENTS):
        first, opposite = untilt(frames, tilt, middle)
        slope = pair_slope(first, opposite, bounds=bounds, bands=bands, least_overlap=overlap)
        if slope is None:
            return None
        tilt += float(np.arctan(slope))
        if abs(tilt) > _MOST_TILT:
            return None
    return tilt


def pair_slope(
    first: np.ndarray,
    opposite: np.ndarray,
    *,
    bounds: tuple[float, float] | None = None,
    bands: int = 16,
    least_overlap: float = _LEAST_OVERLAP,
) -> float | None:
    """Columns by which the axis moves from row to row, from two (y, x) line integrals half a turn apart.

    None where fewer than three bands show contrast, or the slopes make no axis (more than 5°).
    """
    rows, columns = first.shape
    limits = (0.0, columns - 1.0) if bounds is None else bounds
    smooth = [scipy.ndimage.gaussian_filter(frame.astype(np.float64), 1.0) for frame in (first, opposite)]
    parts = np.array_split(np.arange(rows), max(1, min(bands, rows // _LEAST_BAND_ROWS)))
    contrast = np.array([smooth[0][part].std() for part in parts])
    used = np.flatnonzero((contrast > 0) & (contrast >= _LEAST_CONTRAST * contrast.max()))
    if used.size < _LEAST_BANDS:
        return None
    # A band alone may find another likeness; it must lie where an axis of at most 5° can be.
    whole = pair_centre(smooth[0], smooth[1], limits, least_overlap)
    reach = 0.5 * rows * np.tan(_MOST_TILT) + 2
    near = (max(limits[0], whole - reach), min(limits[1], whole + reach))
    middles = np.array([parts[band].mean() for band in used])
    centres = np.array([
        pair_centre(smooth[0][parts[band]], smooth[1][parts[band]], near, least_overlap) for band in used
    ])  # fmt: skip
    slope = _theil_sen(middles, centres)
    return slope if abs(slope) <= np.tan(_MOST_TILT) else None


def untilt(
    frames: np.ndarray, tilt: float, centre: float, *, progress: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Frames turned in their plane so that the axis runs along the detector's columns.

    Parameters
    ----------
    frames : (angle, y, x) float32, whole frames: transmission or line integrals
    tilt : float [rad], from ``find_tilt``
    centre : float [pixels], column of the axis in the middle row, which stays where it is
    progress : called with (frames done, frames in all)

    Returns
    -------
    frames : (angle, y, x) float32, by cubic splines, edge values held beyond the frame; a copy where tilt is 0. A
        frame's bytes do not depend on which others are given with it.

    Raises
    ------
    InputError
        If the array is not (angle, y, x) or the tilt is not below 5°.
    """
    if frames.ndim != 3 or 0 in frames.shape:
        raise InputError(f"frames must be a non-empty (angle, y, x) array, got {frames.shape}")
    if not abs(tilt) <= _MOST_TILT:
        raise InputError(f"tilt must be within {np.degrees(_MOST_TILT):g} degrees, in radians, got {tilt!r}")
    if tilt == 0:
        return np.array(frames, dtype=np.float32)
    rows, columns = frames.shape[1:]
    y = np.arange(rows)[:, np.newaxis] - (rows - 1) / 2
    x = np.arange(columns) - centre
    # A point (y, x) of the straight frame lies on the leaning one turned by the tilt: the axis (y, 0) at x = y sin.
    source = np.stack([
        y * np.cos(tilt) - x * np.sin(tilt) + (rows - 1) / 2,
        y * np.sin(tilt) + x * np.cos(tilt) + centre,
    ])  # fmt: skip
    straight = np.empty(frames.shape, np.float32)
    for index in range(len(frames)):
        frame = np.asarray(frames[index], np.float32)
        straight[index] = scipy.ndimage.map_coordinates(frame, source, order=3, mode="nearest")
        if progress is not None:
            progress(index + 1, len(frames))
    return straight


def _theil_sen(x: np.ndarray, y: np.ndarray) -> float:
    """Median of the slopes between all pairs of points."""
    first, second = np.triu_indices(x.size, 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))
