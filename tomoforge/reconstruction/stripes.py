"""Rings begin as stripes: columns of a sinogram whose gain the flats did not catch. Removed by algotom."""

from contextlib import suppress
from typing import Literal, get_args

import numpy as np
from algotom.prep import removal
from algotom.util.utility import detect_stripe, sort_backward, sort_forward
from scipy.ndimage import binary_dilation, gaussian_filter1d, median_filter

from tomoforge.errors import InputError

StripeMethod = Literal["none", "sorting", "filtering", "fitting", "large", "all"]

# Stripes are a few columns wide; wider windows take the sample with them. The share of the width is algotom's
# default (21 and 51 columns) on a detector of 2048, where it was tuned.
_SMALL_SHARE, _SMALL_LEAST = 100, 5
_LARGE_SHARE, _LARGE_LEAST = 40, 9
_FIT_SHARE, _FIT_LEAST = 12, 20  # of the width: frequencies that the fitted sinogram keeps along x
_LEAST_ANGLES, _LEAST_COLUMNS = 8, 32
# algotom divides by a fitted sinogram, which in air is zero but for noise. With this much added to every line
# integral the division becomes a subtraction.
_OFFSET = 100.0
_DROPPED = 0.1  # of a column's sorted values, algotom's default
_LEAST_GAIN = 0.003  # that is a stripe where there is no noise to compare with
_SNR = 3.0  # algotom's default for telling a stripe from the noise


def remove_stripes(sinogram: np.ndarray, method: StripeMethod = "none") -> np.ndarray:
    """Sinogram without the stripes that would become rings.

    Parameters
    ----------
    sinogram : (angle, x) float32, line integrals −ln(transmission), unitless
    method : "none" changes nothing; "sorting" (partial stripes, the mildest), "filtering" (stripes that drift
        slowly), "fitting" (low-contrast stripes of smooth samples), "large" (wide and strong ones), "all" (dead
        columns, then large, then sorting)

    Returns
    -------
    sinogram : (angle, x) float32

    Raises
    ------
    InputError
        If the sinogram is not (angle, x), finite and large enough, or the method is unknown.

    Notes
    -----
    No method knows a ring from a sample that is round about the axis, and where the sinogram is steep from column to
    column stripes hide: at 128 columns all methods add more than they take once the sample has details of a few
    pixels. "none" is therefore the default for samples that are to be quantitative. Deterministic, and each row
    stands alone.

    References
    ----------
    Vo, Atwood, Drakopoulos, Opt. Express 26, 28396 (2018), algorithms 1–3, 5, 6.
    """
    if method not in get_args(StripeMethod):
        raise InputError(f"method must be one of {', '.join(get_args(StripeMethod))}; got {method!r}")
    if sinogram.ndim != 2 or not np.isfinite(sinogram).all():
        raise InputError(f"sinogram must be (angle, x) and finite, got shape {sinogram.shape}")
    rows = np.array(sinogram, dtype=np.float32, order="C")
    if method == "none":
        return rows
    if rows.shape[0] < _LEAST_ANGLES or rows.shape[1] < _LEAST_COLUMNS:
        raise InputError(
            f"sinogram must have {_LEAST_ANGLES} angles and {_LEAST_COLUMNS} columns to tell stripes from the "
            f"sample, got {rows.shape}; use method='none'"
        )
    return np.ascontiguousarray(_METHODS[method](rows), dtype=np.float32)


def _small_window(n_columns: int) -> int:
    return max(_SMALL_LEAST, n_columns // _SMALL_SHARE) | 1


def _large_window(n_columns: int) -> int:
    return max(_LARGE_LEAST, n_columns // _LARGE_SHARE) | 1


def _sorting(sinogram: np.ndarray) -> np.ndarray:
    return removal.remove_stripe_based_sorting(sinogram, _small_window(sinogram.shape[1]))


def _filtering(sinogram: np.ndarray) -> np.ndarray:
    return removal.remove_stripe_based_filtering(sinogram, 3, _small_window(sinogram.shape[1]))


def _fitting(sinogram: np.ndarray) -> np.ndarray:
    n_columns = sinogram.shape[1]
    lifted = sinogram.astype(np.float64) + _OFFSET
    sigma = max(_FIT_LEAST, n_columns // _FIT_SHARE)
    change = removal.remove_stripe_based_fitting(lifted, order=2, sigma=sigma) - lifted
    # Stripes are narrow: what is broad in the change is the sample's level, and stays.
    change -= gaussian_filter1d(change, _small_window(n_columns), axis=1, mode="nearest")
    return sinogram + change


def _large(sinogram: np.ndarray) -> np.ndarray:
    """Algorithm 5: columns whose sorted values stand out take those of their neighbours."""
    # On transmission, where a gain is a factor and nothing is divided by zero.
    transmission = np.exp(-sinogram.astype(np.float64))
    ordered, index = sort_forward(transmission, axis=0)
    smooth = median_filter(ordered, (1, _large_window(sinogram.shape[1])))
    drop = int(
        0.5 * _DROPPED * len(ordered)
    )  # the ends of a column are the sample's as often as the stripe's
    middle = slice(drop, len(ordered) - drop)
    gain = ordered[middle].mean(axis=0) / smooth[middle].mean(axis=0)
    try:
        stripe = detect_stripe(gain, _SNR) > 0
    except ValueError:  # algotom will not judge a profile without noise, as in a small or forged scan
        stripe = np.abs(gain - 1) > _LEAST_GAIN
    stripe = binary_dilation(stripe)
    transmission /= gain
    transmission[:, stripe] = sort_backward(smooth, index, axis=0)[:, stripe]
    return -np.log(np.maximum(transmission, np.finfo(np.float32).tiny)).astype(np.float32)


def _dead(sinogram: np.ndarray) -> np.ndarray:
    if np.median(np.abs(np.diff(sinogram, axis=0)).sum(axis=0)) == 0:
        return sinogram  # most columns never change: none is dead by comparison
    with suppress(ValueError):
        return removal.remove_dead_stripe(sinogram, _SNR, _large_window(sinogram.shape[1]), residual=False)
    return sinogram


def _all(sinogram: np.ndarray) -> np.ndarray:
    return _sorting(_large(_dead(sinogram)))


_METHODS = {"sorting": _sorting, "filtering": _filtering, "fitting": _fitting, "large": _large, "all": _all}
