"""Other reconstructors under the same call: ASTRA's filtered back-projection, and TomoPy where it is installed."""

import importlib
import importlib.util
import logging
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import scipy.fft

from tomoforge.errors import InputError, MissingComponentError
from tomoforge.reconstruction.angles import angle_weights
from tomoforge.reconstruction.iterative import AstraSlice, Projector, checked_problem, seen_mask

logger = logging.getLogger(__name__)

AstraFilter = Literal["ram-lak", "shepp-logan", "cosine", "hamming", "hann", "parzen"]
TomopyAlgorithm = Literal["gridrec", "art", "bart", "mlem", "osem", "sirt", "tv"]
Progress = Callable[[int, int], None]

_ITERATIVE = ("art", "bart", "mlem", "osem", "sirt", "tv")
_GET_TOMOPY = (
    "TomoPy is not installed here (it is not on PyPI as a wheel): `conda install -c conda-forge tomopy`, or use "
    "method 'fbp', which is faster and quantitative"
)


def astra_fbp(
    line_integrals: np.ndarray,
    angles: np.ndarray,
    pixel_size: float,
    rotation_centre: float | None = None,
    filter: AstraFilter = "ram-lak",
    *,
    projector: Projector = "linear",
    zero_outside: bool = True,
    progress: Progress | None = None,
) -> np.ndarray:
    """µ by ASTRA's filtered back-projection on the CPU, for comparison with ``fbp``.

    Parameters
    ----------
    line_integrals : (angle, y, x) float32, −ln(transmission), unitless
    angles : (angle,) float, radians, any order and spacing
    pixel_size : float [m]
    rotation_centre : float [pixels], 0-based detector column of the axis; None for (columns − 1)/2
    filter : ASTRA's name of the filter
    projector : "linear" or "strip", the footprint of a pixel in the back-projection
    zero_outside : zero the pixels that some angle does not see, as ``fbp`` does
    progress : called with (slices done, slices in all)

    Returns
    -------
    volume : (z, y, x) float32, µ [1/m]; the grid and the orientation of ``fbp``

    Raises
    ------
    InputError
        If shapes do not fit, a value is not finite or an argument is out of bounds.

    Notes
    -----
    ASTRA filters only detectors centred on the axis, so projections are padded and, for the fraction of a pixel,
    shifted by their spectrum. It counts every angle alike: projections are weighted by ``angle_weights`` first.
    """
    if filter not in get_args(AstraFilter):
        raise InputError(f"filter must be one of {', '.join(get_args(AstraFilter))}; got {filter!r}")
    angles, centre = checked_problem(line_integrals, angles, pixel_size, rotation_centre)
    n_angles, n_rows, n_columns = line_integrals.shape
    share = (angle_weights(angles) * (n_angles / np.pi)).astype(np.float32)[:, np.newaxis]
    wide = _centred_width(n_columns, centre)
    seen = seen_mask(n_columns, centre) if zero_outside else None
    volume = np.empty((n_rows, n_columns, n_columns), np.float32)
    with AstraSlice(n_columns, angles, None, projector, n_detectors=wide) as slices:
        for row in range(n_rows):
            centred = _centred(line_integrals[:, row], centre, wide)
            volume[row] = slices.run("FBP", centred * share, options={"FilterType": filter})
            if progress is not None:
                progress(row + 1, n_rows)
    if seen is not None:
        volume[:, ~seen] = 0.0
    volume /= np.float32(pixel_size)
    return volume


def tomopy_reconstruct(
    line_integrals: np.ndarray,
    angles: np.ndarray,
    pixel_size: float,
    rotation_centre: float | None = None,
    algorithm: TomopyAlgorithm = "gridrec",
    *,
    iterations: int = 50,
    progress: Progress | None = None,
) -> np.ndarray:
    """µ by TomoPy, where it is installed.

    Parameters
    ----------
    line_integrals, angles, pixel_size, rotation_centre : as for ``fbp``
    algorithm : "gridrec", or one of TomoPy's iterative ones
    iterations : of an iterative algorithm; gridrec has none
    progress : called with (slices done, slices in all)

    Returns
    -------
    volume : (z, y, x) float32, µ [1/m]

    Raises
    ------
    MissingComponentError
        If TomoPy is not installed.
    InputError
        If shapes do not fit, a value is not finite or an argument is out of bounds.

    Notes
    -----
    Known of TomoPy, measured before this was written or reported to its authors: gridrec is not quantitative (a
    unit disc comes out at 1.09–1.12, unpadded with an error fifty times that of ``fbp``; the projections are
    padded to twice their width here); its ``fbp`` does not filter and is therefore not offered; its default
    centre is half a pixel off (tomopy 409), so the axis is always given.
    """
    if algorithm not in get_args(TomopyAlgorithm):
        raise InputError(
            f"algorithm must be one of {', '.join(get_args(TomopyAlgorithm))}; got {algorithm!r}"
        )
    if iterations < 1:
        raise InputError(f"iterations must be at least 1, got {iterations!r}")
    angles, centre = checked_problem(line_integrals, angles, pixel_size, rotation_centre)
    if importlib.util.find_spec("tomopy") is None:
        raise MissingComponentError(_GET_TOMOPY)
    tomopy = importlib.import_module("tomopy")
    n_rows, n_columns = line_integrals.shape[1:]
    pad = n_columns // 2
    options = {"num_iter": iterations} if algorithm in _ITERATIVE else {}
    volume = np.empty((n_rows, n_columns, n_columns), np.float32)
    for row in range(n_rows):
        sinogram = np.pad(np.asarray(line_integrals[:, row], np.float32), ((0, 0), (pad, pad)), mode="edge")
        image = tomopy.recon(
            sinogram[:, np.newaxis], angles, center=centre + pad, algorithm=algorithm, sinogram_order=False,
            ncore=1, **options,
        )[0]  # fmt: skip
        # TomoPy's rows run against y (its point falls on x cos θ − y sin θ).
        volume[row] = image[::-1][pad : pad + n_columns, pad : pad + n_columns]
        if progress is not None:
            progress(row + 1, n_rows)
    volume /= np.float32(pixel_size)
    return volume


def _centred_width(n_columns: int, centre: float) -> int:
    """Columns of a detector of the same parity, centred on the axis, that holds all of ours."""
    return n_columns + 2 * int(np.ceil(abs(centre - (n_columns - 1) / 2)))


def _centred(sinogram: np.ndarray, centre: float, wide: int) -> np.ndarray:
    """(angle, wide) float32 with the axis in the middle: padded by zeros, shifted by the fraction of a pixel."""
    n = sinogram.shape[1]
    wanted = (wide - 1) / 2 - centre
    start = int(np.clip(np.floor(wanted + 0.5), 0, wide - n))
    length = int(scipy.fft.next_fast_len(2 * wide, real=True))
    padded = np.zeros((sinogram.shape[0], length))
    padded[:, start : start + n] = sinogram
    fraction = wanted - start
    if fraction != 0:
        spectrum = scipy.fft.rfft(padded, axis=-1)
        spectrum *= np.exp(-2j * np.pi * fraction * scipy.fft.rfftfreq(length))
        padded = scipy.fft.irfft(spectrum, length, axis=-1)
    return padded[:, :wide].astype(np.float32)
