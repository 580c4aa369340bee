"""Counts to transmission to line integrals, with bad pixels repaired and clipping counted."""

import logging

import numpy as np

from tomoforge.errors import InputError, ScanError

logger = logging.getLogger(__name__)

# Rows beside the beam have flats like darks, on half their pixels below by noise. More is swapped references.
_MOST_BAD = 0.9
_WITHOUT = {"flats": "projections are taken for transmission", "darks": "the offset is taken as zero"}
# Fringes and noise lift single pixels above 1, never the middle of a frame.
_MOST_TRANSMISSION = 2.0


def mean_frame(frames: np.ndarray) -> np.ndarray:
    """Average of ``frames`` (n, y, x), any real dtype: (y, x) float64. Signed and unsigned counts alike."""
    return np.mean(frames, axis=0, dtype=np.float64)


def bad_pixels(flats: np.ndarray, darks: np.ndarray) -> np.ndarray:
    """Pixels that cannot be normalised: average flat not above average dark, or not finite.

    Parameters
    ----------
    flats, darks : (n, y, x) any real dtype, counts

    Returns
    -------
    bad : (y, x) bool
    """
    span = _flat(flats, darks) - _dark(darks)
    return ~(np.isfinite(span) & (span > 0))  # NaN compares false


def normalise(projections: np.ndarray, flats: np.ndarray, darks: np.ndarray) -> np.ndarray:
    """Transmission (projection − dark) / (flat − dark), bad pixels repaired from their neighbours.

    Parameters
    ----------
    projections : (angle, y, x) any real dtype, counts
    flats, darks : (n, y, x) any real dtype, counts; averaged over n. No darks: an offset of zero. No
        flats: the projections are taken for transmission already. Both are logged, since only a caller
        who waived them by name gets a Scan without.

    Returns
    -------
    transmission : (angle, y, x) float32, unitless, finite; noise can take it below 0 and above 1

    Raises
    ------
    InputError
        If shapes do not fit.
    ScanError
        If flats do not exceed darks on a tenth of the pixels, a frame has no usable pixel, or
        projections without flats are plainly counts.

    Notes
    -----
    Dead and hot pixels (``bad_pixels``) and single values that are not finite are interpolated along their
    own row of their own frame: a slice then does not depend on which other rows are normalised with it. A
    row without any usable pixel copies the nearest row that has one.
    """
    _check_frames(projections, flats, darks)
    bad = bad_pixels(flats, darks)
    if bad.mean() > _MOST_BAD:
        raise ScanError(
            f"flats must exceed darks, but on {bad.sum()} of {bad.size} pixels they do not; were flats and "
            "darks swapped, or the shutter closed during the flats?"
        )
    dark = _dark(darks)
    span = np.where(bad, 1.0, _flat(flats, darks) - dark).astype(np.float32)
    # Converted before subtracting: unsigned counts below the dark would wrap round to 65 thousand.
    transmission = projections.astype(np.float32)
    transmission -= np.where(np.isfinite(dark), dark, 0.0).astype(np.float32)
    transmission /= span
    if bad.any():
        logger.info("%d bad pixels repaired from their neighbours", bad.sum())
    _repair(transmission, bad)
    if len(flats) == 0 and np.median(transmission[0]) > _MOST_TRANSMISSION:
        raise ScanError(
            f"flats has no frames and projections are not transmission: half of the first is above "
            f"{np.median(transmission[0]):g}; give flats"
        )
    return transmission


def line_integrals(transmission: np.ndarray, floor: float = 1e-4) -> tuple[np.ndarray, int]:
    """−ln(transmission), with transmission below ``floor`` raised to it.

    Parameters
    ----------
    transmission : (angle, y, x) float, unitless
    floor : float, least transmission that is believed; 1e-4 is about one photon in an exposure of 10⁴.
        Thick samples at 3 keV transmit 0.002, so a floor of 1e-4 meets noise only.

    Returns
    -------
    integrals : (angle, y, x) float32, unitless; slightly negative where noise exceeds the flat, on
        purpose: cutting at zero would bias the empty parts upwards
    clipped : int, number of pixels that were raised; where it is not small, µ is too low

    Raises
    ------
    InputError
        If ``floor`` is not in (0, 1), or a transmission is not finite.
    """
    if not 0 < floor < 1:
        raise InputError(f"floor must be a transmission between 0 and 1, got {floor!r}")
    if not np.isfinite(transmission).all():
        raise InputError(
            f"transmission has {np.sum(~np.isfinite(transmission))} values that are not finite; "
            "normalise() repairs them"
        )
    low = transmission < floor
    clipped = int(np.count_nonzero(low))
    if clipped:
        logger.info("%d of %d transmissions below %g were clipped", clipped, low.size, floor)
    return -np.log(np.where(low, floor, transmission)).astype(np.float32), clipped


def _dark(darks: np.ndarray) -> np.ndarray:
    return mean_frame(darks) if len(darks) else np.zeros(darks.shape[1:])


def _flat(flats: np.ndarray, darks: np.ndarray) -> np.ndarray:
    # One above the dark, so that the span is 1 and the projections pass unscaled.
    return mean_frame(flats) if len(flats) else _dark(darks) + 1.0


def _check_frames(projections: np.ndarray, flats: np.ndarray, darks: np.ndarray) -> None:
    if projections.ndim != 3 or 0 in projections.shape:
        raise InputError(f"projections must be a non-empty (angle, y, x) array, got {projections.shape}")
    for name, frames in (("flats", flats), ("darks", darks)):
        if frames.ndim != 3 or frames.shape[1:] != projections.shape[1:]:
            raise InputError(
                f"{name} must be (n, y, x) matching projections {projections.shape[1:]}, got "
                f"{frames.shape}; was binning or cropping applied to only one?"
            )
        if frames.shape[0] == 0:
            logger.warning("there are no %s: %s", name, _WITHOUT[name])
    for name, frames in (("projections", projections), ("flats", flats), ("darks", darks)):
        if frames.dtype.kind not in "uif":
            raise InputError(f"{name} must be real counts, got dtype {frames.dtype}")


def _repair(frames: np.ndarray, bad: np.ndarray) -> None:
    """Overwrite, in place, the ``bad`` (y, x) pixels of all frames and whatever else is not finite."""
    frames[~np.isfinite(frames)] = np.nan  # infinities times a weight of zero would warn
    frames[:, bad] = np.nan
    if bad.any() and not bad.all():
        interpolate_along_rows(frames, bad)
    for index in np.flatnonzero(np.isnan(frames).any(axis=(1, 2))):
        missing = np.isnan(frames[index])
        if missing.all():
            raise ScanError(f"projection {index} has no usable pixel in these rows; leave it out")
        interpolate_along_rows(frames[index : index + 1], missing)


def interpolate_along_rows(frames: np.ndarray, missing: np.ndarray) -> None:
    """Fill, in place, the ``missing`` (y, x) pixels of all frames: linearly along the row, ends held."""
    for row in np.flatnonzero(missing.any(axis=1) & ~missing.all(axis=1)):
        gaps, good = np.flatnonzero(missing[row]), np.flatnonzero(~missing[row])
        after = np.searchsorted(good, gaps)
        left, right = good[np.maximum(after - 1, 0)], good[np.minimum(after, good.size - 1)]
        share = np.where(right > left, (gaps - left) / np.maximum(right - left, 1), 0.0).astype(np.float32)
        frames[:, row, gaps] = frames[:, row, left] * (1 - share) + frames[:, row, right] * share
    whole = np.flatnonzero(~missing.all(axis=1))
    for row in np.flatnonzero(missing.all(axis=1)):
        frames[:, row] = frames[:, whole[np.argmin(np.abs(whole - row))]]
