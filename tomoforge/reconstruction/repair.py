"""Pixels and values that flat-fielding cannot mend: wild pixels, zingers, rows without any usable pixel.

Everything here works along a detector row, over angles: the result for a row is the same bytes whatever other
rows lie in the slab.
"""

import logging

import numpy as np
import scipy.ndimage

from tomoforge.errors import InputError, ScanError
from tomoforge.reconstruction.normalise import bad_pixels, interpolate_along_rows

logger = logging.getLogger(__name__)

# Zingers are told from their neighbours in the same row and in this many angles on each side.
ZINGER_ANGLE_MARGIN = 2
ZINGER_MARGIN = 0  # rows a slab needs beside it
_ZINGER_REACH = 4  # columns on each side that tell what is usual
_LEAST_SCATTER = 1e-6
_MAD = 1.482602218505602  # σ of a normal distribution over its median absolute deviation
_WINDOW, _NEAR_WINDOW = (
    25,
    9,
)  # columns that say how restless a pixel usually is; up to two of nine may be wild
_LEAST_FRAMES = 8  # to tell a restless pixel


def remove_zingers(
    transmission: np.ndarray, *, least: float = 0.1, sigmas: float = 8.0
) -> tuple[np.ndarray, int]:
    """Replace flashes of single frames (cosmic rays, scattered photons in the chip) by what is usual there.

    Parameters
    ----------
    transmission : (angle, y, x) float32, angles in the order they were measured
    least : least excess over both neighbouring frames, in units of the flat field
    sigmas : least excess over the neighbourhood, in units of its scatter

    Returns
    -------
    transmission : (angle, y, x) float32, a copy; count : values replaced

    Raises
    ------
    InputError
        If the array is not (angle, y, x), or a threshold is not positive.

    Notes
    -----
    A zinger is bright, lasts one frame and is a few pixels wide. A value is taken for one where it exceeds the
    frames before and after by ``least``, and the median of its neighbourhood (two angles and four columns each
    way, the same row) by ``sigmas`` times the scatter there; it becomes the mean of those two frames. Edges make
    their own scatter and are left alone. Each row stands alone (``ZINGER_MARGIN`` = 0); a batch of angles
    needs ``ZINGER_ANGLE_MARGIN`` frames on both sides to give the same bytes. The ends of the scan compare with
    the two frames next to them.
    """
    if transmission.ndim != 3 or 0 in transmission.shape:
        raise InputError(f"transmission must be a non-empty (angle, y, x) array, got {transmission.shape}")
    if not (least > 0 and sigmas > 0):
        raise InputError(f"least and sigmas must be positive, got {least!r} and {sigmas!r}")
    repaired = np.array(transmission, dtype=np.float32)
    if len(repaired) < 3:
        return repaired, 0
    count = 0
    for row in range(repaired.shape[1]):
        count += _remove_row_zingers(repaired[:, row], least, sigmas)
    if count:
        logger.info("%d zingers replaced", count)
    return repaired, count


def remove_reference_zingers(frames: np.ndarray, *, sigmas: float = 8.0) -> tuple[np.ndarray, int]:
    """Flats or darks without flashes of single frames, which the average would turn into rings.

    Parameters
    ----------
    frames : (n, y, x) any real dtype, counts; fewer than five cannot tell a zinger and pass unchanged
    sigmas : least excess over the median of the frames, in units of the scatter that is usual in the row

    Returns
    -------
    frames : (n, y, x) float32, a copy; count : values replaced by the median of their pixel
    """
    if frames.ndim != 3:
        raise InputError(f"frames must be (n, y, x), got {frames.shape}")
    repaired = np.array(frames, dtype=np.float32)
    if len(repaired) < 5:
        return repaired, 0
    usual = np.median(repaired, axis=0)
    excess = repaired - usual
    # One scatter for each row: that of a pixel is as wild as the few frames it rests on.
    scatter = _MAD * np.median(np.abs(excess), axis=(0, 2))[:, np.newaxis]
    flashes = excess > sigmas * np.maximum(scatter, _LEAST_SCATTER * np.abs(usual)) + 1.0
    repaired[flashes] = np.broadcast_to(usual, repaired.shape)[flashes]
    return repaired, int(np.count_nonzero(flashes))


def wild_pixels(transmission: np.ndarray, *, ratio: float = 5.0) -> np.ndarray:
    """Pixels that answer to something other than the beam: flickering, saturated or stuck over the scan.

    Parameters
    ----------
    transmission : (angle, y, x) float32, flat-corrected
    ratio : how many times more, or less, restless from angle to angle than its neighbours in the row

    Returns
    -------
    wild : (y, x) bool, to be given to ``repair_pixels``
    """
    if transmission.ndim != 3 or 0 in transmission.shape:
        raise InputError(f"transmission must be a non-empty (angle, y, x) array, got {transmission.shape}")
    if not ratio > 1:
        raise InputError(f"ratio must be greater than 1, got {ratio!r}")
    wild = np.zeros(transmission.shape[1:], bool)
    for row in range(transmission.shape[1]):
        wild[row] = _wild_columns(np.asarray(transmission[:, row], np.float32), ratio)
    return wild


def repair_pixels(transmission: np.ndarray, wild: np.ndarray) -> np.ndarray:
    """A copy of ``transmission`` (angle, y, x) with the ``wild`` (y, x) pixels interpolated along their rows.

    Raises
    ------
    InputError
        If the shapes do not fit.
    ScanError
        If a row has no usable pixel.
    """
    if wild.shape != transmission.shape[1:]:
        raise InputError(f"wild must be (y, x) = {transmission.shape[1:]}, got {wild.shape}")
    if wild.all(axis=1).any():
        raise ScanError(f"row {int(np.argmax(wild.all(axis=1)))} has no usable pixel; leave it out")
    repaired = np.array(transmission, dtype=np.float32)
    interpolate_along_rows(repaired, wild)
    return repaired


def stand_in_rows(flats: np.ndarray, darks: np.ndarray) -> np.ndarray:
    """Which detector row to read for each slice: itself, or the nearest one with a usable pixel.

    Parameters
    ----------
    flats, darks : (n, y, x) counts, of the whole detector

    Returns
    -------
    rows : (y,) int64. Chosen from the whole detector, so that it does not depend on slabs, as copying from
        the nearest row inside the slab would.
    """
    usable = np.flatnonzero(~bad_pixels(flats, darks).all(axis=1))
    if usable.size == 0:
        raise ScanError("flats exceed darks nowhere; were they swapped, or the shutter closed?")
    rows = np.arange(flats.shape[1])
    after = np.clip(np.searchsorted(usable, rows), 0, usable.size - 1)
    below, above = usable[np.maximum(after - 1, 0)], usable[after]
    return np.where(np.abs(rows - below) <= np.abs(above - rows), below, above).astype(np.int64)


def lit_rows(flats: np.ndarray, darks: np.ndarray) -> np.ndarray:
    """(y,) bool: rows where at least half of the pixels can be normalised; all where none are, for the error's sake.

    flats, darks : (n, y, x) counts, of the whole detector.
    """
    lit = bad_pixels(flats, darks).mean(axis=1) <= 0.5
    return lit if lit.any() else ~lit


def _remove_row_zingers(sinogram: np.ndarray, least: float, sigmas: float) -> int:
    """Replace, in place, the zingers of an (angle, x) sinogram of transmission; how many there were."""
    n_angles, n_columns = sinogram.shape
    index = np.arange(n_angles)
    before, after = index - 1, index + 1
    before[0], after[-1] = 2, n_angles - 3
    brighter = np.maximum(sinogram[before], sinogram[after])
    angle, column = np.nonzero(sinogram > brighter + np.float32(least))
    if angle.size == 0:
        return 0
    steps = np.array([step for step in range(-ZINGER_ANGLE_MARGIN, ZINGER_ANGLE_MARGIN + 1) if step != 0])
    rows = angle[:, np.newaxis] + steps
    # At the ends of the scan the other side stands in, no further away than the margin.
    outside = (rows < 0) | (rows >= n_angles)
    rows = np.where(outside, angle[:, np.newaxis] - steps, rows).clip(0, n_angles - 1)
    columns = (column[:, np.newaxis] + np.arange(-_ZINGER_REACH, _ZINGER_REACH + 1)).clip(0, n_columns - 1)
    around = sinogram[rows[:, :, np.newaxis], columns[:, np.newaxis, :]].reshape(angle.size, -1)
    middle = np.median(around, axis=1)
    scatter = _MAD * np.median(np.abs(around - middle[:, np.newaxis]), axis=1)
    flash = sinogram[angle, column] - middle > sigmas * np.maximum(scatter, _LEAST_SCATTER)
    angle, column = angle[flash], column[flash]
    usual = 0.5 * (sinogram[before[angle], column] + sinogram[after[angle], column])
    sinogram[angle, column] = usual
    return int(angle.size)


def _wild_columns(sinogram: np.ndarray, ratio: float) -> np.ndarray:
    """(x,) bool: columns of (angle, x) whose changes from angle to angle are unlike those around them."""
    if len(sinogram) < _LEAST_FRAMES:
        return np.zeros(sinogram.shape[1], bool)
    # Second differences: an edge that sweeps past moves evenly, noise does not.
    restless = np.median(np.abs(np.diff(sinogram, 2, axis=0)), axis=0)
    usual = scipy.ndimage.median_filter(restless, min(_WINDOW, restless.size), mode="nearest")
    # Edges of the sample, and what lies behind something opaque, are restless or still several columns wide.
    upper, lower = (
        scipy.ndimage.percentile_filter(restless, share, _NEAR_WINDOW, mode="nearest") for share in (75, 25)
    )
    flickers = restless > ratio * np.maximum(usual, upper)
    stuck = restless < np.minimum(usual, lower) / (4 * ratio)
    return flickers | stuck
