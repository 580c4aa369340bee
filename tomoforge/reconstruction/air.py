"""Air at 1 for scans whose beam changed after the flats: found in the picture, divided out for each angle."""

import logging
from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from tomoforge.errors import InputError, ScanError
from tomoforge.reconstruction.normalise import normalise
from tomoforge.reconstruction.repair import lit_rows
from tomoforge.scan import Scan

logger = logging.getLogger(__name__)

_MOST_ROWS = 32  # looked at: enough for three coefficients
_LEAST_AIR = 0.05  # a transmission below it is no air, whatever the flats
_LEAST_FOUND = 0.5  # below it nobody would believe, unasked, that it is air
_DROP = 0.02  # below the air further out: where the sample begins
_UNEVEN = 0.15  # sides and middle of a beam that changed since its flats differ by less
_LEAST_BEND = 4  # columns on both sides to fit a parabola
_KEPT = 0.8  # of the columns found: fringes reach a little beyond the sample


@dataclass(frozen=True)
class AirLevels:
    """Transmission of the air at each angle, so that any slab is divided by the same numbers.

    coefficients : (angle, 4) float64: level in the middle of the detector, its change towards the right edge and
    towards the bottom, and the bend across;
    rows, columns : of the detector [pixels]; left, right : columns of air at the sides.
    """

    coefficients: np.ndarray
    rows: int
    columns: int
    left: int
    right: int

    @property
    def median(self) -> float:
        """Median level over angles, unitless: 1 where flats and beam agree."""
        return float(np.median(self.coefficients[:, 0]))


def find_air(scan: Scan, *, least: int = 4) -> tuple[int, int]:
    """Columns at the left and the right of the detector that show air at every angle.

    Parameters
    ----------
    scan : Scan; least : least columns at each side that are worth using

    Returns
    -------
    left, right : columns [pixels]; (0, 0), which is logged, where either side has less than ``least``

    Raises
    ------
    ScanError
        If the scan cannot be normalised.

    Notes
    -----
    Conservative, because a sample taken for air is a wrong µ everywhere. From each side inwards, the mean over rows
    must not fall 2 % below the columns further out at any angle; the sides must let at least half of the flat
    field through, agree within 15 %, and nothing in the picture may be brighter by more than that. A fifth of
    what is found is given away.
    """
    sinograms = np.mean(_sampled_rows(scan, slice(None)), axis=1, dtype=np.float64)  # (angle, x)
    smooth = scipy.ndimage.median_filter(sinograms, (1, 3), mode="nearest")
    n = smooth.shape[1]
    band = max(least, n // 50)
    left_level, right_level = (np.median(part, axis=1) for part in (smooth[:, :band], smooth[:, n - band :]))
    if min(left_level.min(), right_level.min()) < _LEAST_FOUND:
        return _no_air("a side lets less than half of the flat field through at some angle")
    uneven = float(np.abs(left_level / right_level - 1).max())
    if uneven > _UNEVEN:
        return _no_air(f"the sides differ by {uneven:.1%} at some angle")
    brightest = scipy.ndimage.uniform_filter1d(smooth, band, axis=1, mode="nearest").max(axis=1)
    if (brightest / np.maximum(left_level, right_level)).max() > 1 + _UNEVEN:
        return _no_air("the middle is brighter than the sides")
    found = (_air_columns(smooth), _air_columns(smooth[:, ::-1]))
    left, right = (int(_KEPT * width) for width in found)
    if min(left, right) < least:
        return _no_air(f"only {found[0]} and {found[1]} columns show it at every angle")
    return left, right


def measure_air(scan: Scan, left: int, right: int) -> AirLevels:
    """Level of the air at each angle, from the columns at the sides of the detector that show it.

    Parameters
    ----------
    scan : Scan; left, right : columns of air [pixels], one of them may be 0

    Returns
    -------
    levels : AirLevels, from up to 32 rows of the scan: linear down the rows, and a parabola across
        where both sides show air

    Raises
    ------
    InputError
        If ``left`` and ``right`` are both 0, negative, or leave no room for the sample.
    ScanError
        If what they show is dark: the sample or its mount reaches into them.

    Notes
    -----
    A beam that moved between flats and projections leaves the ratio of two smooth bells. The parabola from the sides
    can be wrong by 1.5 % in the middle; the straight line is wrong by more (by 6 % on a real scan).
    """
    rows, columns = scan.projections.shape[1:]
    if min(left, right) < 0 or left + right == 0 or left + right >= columns:
        raise InputError(
            f"left and right must leave room for the sample between air on {columns} columns, got {left}, {right}"
        )
    air = np.r_[0:left, columns - right : columns]
    samples = _sampled_rows(scan, air).astype(np.float64)
    y = _rows_from_middle(rows)[_sample_of_rows(scan)]
    x = np.linspace(-1, 1, columns)[air]
    levels = AirLevels(_fit(samples, y, x, min(left, right)), rows, columns, left, right)
    least = min(float(_level(levels, angle, np.array([0, rows - 1])).min()) for angle in range(len(samples)))
    if not least >= _LEAST_AIR:
        raise ScanError(
            f"{left} and {right} columns of air let only {least:.3f} through at some angle: that is no air; "
            "take fewer columns, or leave the scan unscaled (0)"
        )
    return levels


def scale_air(transmission: np.ndarray, levels: AirLevels, start: int = 0) -> np.ndarray:
    """Transmission over the air's level: air at 1.

    Parameters
    ----------
    transmission : (angle, y, x) float32, of the detector rows from ``start`` on
    levels : from ``measure_air``, for the same angles and the whole detector

    Returns
    -------
    transmission : (angle, y, x) float32. A row's bytes do not depend on the slab it is in.

    Raises
    ------
    InputError
        If the shape is not that of the levels.
    """
    n_angles, n_rows, n_columns = transmission.shape
    if n_angles != len(levels.coefficients) or n_columns != levels.columns or start + n_rows > levels.rows:
        raise InputError(
            f"transmission must be (angle, y, x) = ({len(levels.coefficients)}, up to {levels.rows - start}, "
            f"{levels.columns}), got {transmission.shape}"
        )
    rows = np.arange(start, start + n_rows)
    scaled = np.empty(transmission.shape, np.float32)
    for angle in range(n_angles):
        scaled[angle] = transmission[angle] / _level(levels, angle, rows).astype(np.float32)
    return scaled


def _level(levels: AirLevels, angle: int, rows: np.ndarray) -> np.ndarray:
    """(y, x) float64 level of the air in detector ``rows`` at one angle."""
    middle, across, down, bend = levels.coefficients[angle]
    x = np.linspace(-1, 1, levels.columns)
    return middle + across * x + bend * x**2 + (down * _rows_from_middle(levels.rows)[rows])[:, np.newaxis]


def _no_air(reason: str) -> tuple[int, int]:
    logger.warning("no air was found at the sides of the detector, so the scan is not scaled: %s", reason)
    return (0, 0)


def _air_columns(profiles: np.ndarray) -> int:
    """How many columns from the first on do not fall below those before them, at any angle of (angle, x)."""
    outside = np.maximum.accumulate(profiles, axis=1)
    dark = (profiles < (1 - _DROP) * outside).any(axis=0)
    return int(np.argmax(dark)) if dark.any() else profiles.shape[1] // 4


def _sample_of_rows(scan: Scan) -> np.ndarray:
    """Up to 32 detector rows, spread over those that the beam reaches."""
    rows = np.flatnonzero(lit_rows(scan.flats, scan.darks))
    return rows[np.unique(np.linspace(0, rows.size - 1, min(rows.size, _MOST_ROWS)).round().astype(int))]


def _rows_from_middle(rows: int) -> np.ndarray:
    return np.linspace(-1, 1, rows) if rows > 1 else np.zeros(1)


def _sampled_rows(scan: Scan, columns: slice | np.ndarray) -> np.ndarray:
    """Transmission of a few rows and of ``columns``: (angle, y, x) float32, read a row at a time."""
    parts = []
    for row in _sample_of_rows(scan):
        band = slice(row, row + 1)
        frames = normalise(scan.rows(row, row + 1), scan.flats[:, band], scan.darks[:, band])
        parts.append(frames[:, :, columns])
    return np.concatenate(parts, axis=1)


def _fit(samples: np.ndarray, y: np.ndarray, x: np.ndarray, narrower: int) -> np.ndarray:
    """Middle, across, down and bend of the level for each angle of (angle, y, x) ``samples``: (angle, 4)."""
    across = np.broadcast_to(x, samples.shape[1:]).ravel()
    down = np.broadcast_to(y[:, np.newaxis], samples.shape[1:]).ravel()
    terms = [np.ones_like(across), across, down, across**2]
    # One side alone gives a level; a parabola wants some width on both.
    used = np.array([True, narrower > 0, y.size > 1, narrower >= _LEAST_BEND])
    basis = np.stack([term for term, wanted in zip(terms, used, strict=True) if wanted], axis=1)
    values = samples.reshape(len(samples), -1).T
    fitted = np.linalg.lstsq(basis, values, rcond=None)[0]
    for _ in range(2):  # without dust and zingers
        wild = np.abs(values - basis @ fitted)
        values = np.where(wild > 5 * wild.mean(axis=0), basis @ fitted, values)
        fitted = np.linalg.lstsq(basis, values, rcond=None)[0]
    coefficients = np.zeros((len(samples), used.size))
    coefficients[:, used] = fitted.T
    return coefficients
