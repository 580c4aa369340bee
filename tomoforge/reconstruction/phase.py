"""Phase retrieval for propagated images of one material: Paganin's filter."""

from collections.abc import Callable

import numpy as np
import scipy.fft

from tomoforge.errors import InputError
from tomoforge.units import kev_to_wavelength

# The filter's kernel falls as exp(−r/ℓ): seven lengths leave 0.1 % of it beyond the padding.
_KERNEL_LENGTHS = 7.0


def paganin(
    transmission: np.ndarray,
    pixel_size: float,
    distance: float,
    delta_beta: float,
    energy_kev: float,
    *,
    floor: float = 1e-4,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Line integrals of µ from propagated images of a sample of one material.

    Parameters
    ----------
    transmission : (angle, y, x) float32, flat-corrected intensity at the detector, whole frames
    pixel_size : float [m], at the sample; square pixels
    distance : float [m], sample to detector (divided by the magnification where the beam diverges); 0 gives −ln
    delta_beta : δ/β of the material at this energy, unitless
    energy_kev : float [keV]
    floor : least filtered transmission that is believed, as in ``line_integrals``
    progress : called with (frames done, frames in all)

    Returns
    -------
    line_integrals : (angle, y, x) float32, µ times path, unitless. A frame's bytes do not depend on which others
        are given with it.

    Raises
    ------
    InputError
        If the array is not (angle, y, x) and finite, or a number is out of bounds.

    Notes
    -----
    −ln F⁻¹{ F[I/I₀] / (1 + π λ z (δ/β) |f|²) }: Paganin's eq. 10 with (2πf)² and δ/µ = (δ/β) λ/4π, so that the
    result is µT rather than T. It solves the transport-of-intensity equation, hence for near-field images
    (λz much smaller than the square of the smallest feature; Fresnel number of a pixel about 1 or more), a
    homogeneous sample with known δ/β, and a plane monochromatic wave. Where several materials are present, edges
    between them are too smooth or keep fringes, while wide interiors are still µ. Frames are padded by their
    edge values by seven lengths √(λ z δ/β / 4π) of the filter's kernel.

    References
    ----------
    Paganin, Mayo, Gureyev, Miller, Wilkins, J. Microsc. 206, 33 (2002), eq. 10.
    """
    wavelength = kev_to_wavelength(energy_kev)
    _check(transmission, pixel_size, distance, delta_beta, floor)
    strength = np.pi * wavelength * distance * delta_beta  # [m²], on |f|²
    result = np.empty(transmission.shape, np.float32)
    filtered = _EdgePaddedFilter(transmission.shape[1:], pixel_size, strength)
    for index in range(len(transmission)):
        frame = np.array(transmission[index], np.float32)
        if not np.isfinite(frame).all():
            raise InputError(
                f"transmission has {np.sum(~np.isfinite(frame))} values that are not finite in frame {index}; "
                "normalise() repairs them"
            )
        result[index] = -np.log(np.maximum(filtered(frame), floor))
        if progress is not None:
            progress(index + 1, len(transmission))
    return result


class _EdgePaddedFilter:
    """Division of a frame's spectrum by 1 + strength·|f|², with edge values held beyond the frame."""

    def __init__(self, shape: tuple[int, ...], pixel_size: float, strength: float) -> None:
        self.strength = strength
        if strength == 0:
            return
        reach = int(np.ceil(_KERNEL_LENGTHS * np.sqrt(strength) / (2 * np.pi) / pixel_size)) + 1
        self._padding = []
        for size in shape:
            length = scipy.fft.next_fast_len(size + 2 * reach, real=True)
            before = (length - size) // 2
            self._padding.append((before, length - size - before))
        rows, columns = (size + sum(pad) for size, pad in zip(shape, self._padding, strict=True))
        fy = scipy.fft.fftfreq(rows, pixel_size)[:, np.newaxis]
        fx = scipy.fft.rfftfreq(columns, pixel_size)
        self._response = (1.0 / (1.0 + strength * (fy**2 + fx**2))).astype(np.float32)
        self._inside = tuple(
            slice(pad[0], pad[0] + size) for size, pad in zip(shape, self._padding, strict=True)
        )
        self._shape = (rows, columns)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """``frame`` (y, x) float32, filtered."""
        if self.strength == 0:
            return frame
        # The departure from 1, so that single precision is spent on the sample and not on the air.
        padded = np.pad(frame - 1.0, self._padding, mode="edge")
        spectrum = scipy.fft.rfft2(padded)
        spectrum *= self._response
        return scipy.fft.irfft2(spectrum, s=self._shape)[self._inside] + np.float32(1.0)


def _check(
    transmission: np.ndarray, pixel_size: float, distance: float, delta_beta: float, floor: float
) -> None:
    if transmission.ndim != 3 or 0 in transmission.shape:
        raise InputError(f"transmission must be a non-empty (angle, y, x) array, got {transmission.shape}")
    if not (np.isfinite(pixel_size) and pixel_size > 0):
        raise InputError(f"pixel_size must be positive metres, got {pixel_size!r}")
    if not (np.isfinite(distance) and distance >= 0):
        raise InputError(f"distance must be zero or positive metres, got {distance!r}")
    if not (np.isfinite(delta_beta) and delta_beta > 0):
        raise InputError(
            f"delta_beta must be the positive ratio δ/β of the sample's material, got {delta_beta!r}"
        )
    if not 0 < floor < 1:
        raise InputError(f"floor must be a transmission between 0 and 1, got {floor!r}")
