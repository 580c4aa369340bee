"""Structural similarity and peak signal-to-noise ratio of simulated images against real ones.

Nothing is registered and nothing fitted, but for one global factor where the caller asks for it: a simulation in
the wrong place, of the wrong size or the wrong way round is to score badly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from tomoforge.errors import InputError

WINDOW_SIGMA = 1.5  # [pixels], of Wang et al.
WINDOW = 11  # [pixels], the Gaussian is cut here
_K1, _K2 = 0.01, 0.03
_PERCENTILES = (0.1, 99.9)


@dataclass(frozen=True)
class Fidelity:
    """How alike two stacks are: ssim, mean over all images (1 alike); psnr [dB]; rmse, in the images' unit.

    data_range : the peak of PSNR and the scale of SSIM's constants; scale : factor that the simulated images were
    multiplied by; images : how many were compared.
    """

    ssim: float
    psnr: float
    rmse: float
    data_range: float
    scale: float
    images: int


def compare_images(
    reference: np.ndarray, simulated: np.ndarray, data_range: float, *, scale: float = 1.0
) -> Fidelity:
    """SSIM, PSNR and RMSE of a stack of images against a reference stack.

    Parameters
    ----------
    reference, simulated : (image, y, x) float, in one unit, at least 11 × 11 pixels
    data_range : float, in that unit; ``reference_range`` of all of the reference
    scale : float, ``simulated`` is multiplied by it first; see ``intensity_scale``

    Returns
    -------
    Fidelity; ``psnr`` is 10·log10(data_range²/MSE) of the whole stack's mean squared error, infinite if it is 0

    Raises
    ------
    InputError
        For stacks that differ in shape, are too small or hold values that are not finite.

    References
    ----------
    Wang, Bovik, Sheikh & Simoncelli, IEEE Trans. Image Process. 13, 600 (2004).
    """
    similarity = ssim_map(reference, simulated, data_range, scale=scale)
    difference = scale * np.asarray(simulated, np.float64) - reference
    rmse = float(np.sqrt(np.mean(difference**2)))
    return Fidelity(
        float(similarity.mean()), _psnr(rmse, data_range), rmse, data_range, scale, len(reference)
    )


def pool(parts: Sequence[Fidelity]) -> Fidelity:
    """The Fidelity of all images together, from those of parts compared with one range and one scale."""
    if not parts or len({(part.data_range, part.scale) for part in parts}) != 1:
        raise InputError("parts must be at least one Fidelity, all with the same data_range and scale")
    weights = np.array([part.images for part in parts], np.float64)
    ssim = float(np.average([part.ssim for part in parts], weights=weights))
    rmse = float(np.sqrt(np.average([part.rmse**2 for part in parts], weights=weights)))
    first = parts[0]
    return Fidelity(
        ssim, _psnr(rmse, first.data_range), rmse, first.data_range, first.scale, int(weights.sum())
    )


def ssim_map(
    reference: np.ndarray, simulated: np.ndarray, data_range: float, *, scale: float = 1.0
) -> np.ndarray:
    """Structural similarity around each pixel, without the rim where the window leaves the image.

    reference, simulated : (image, y, x) float; data_range : float in their unit; scale : of ``simulated``.

    Returns (image, y − 10, x − 10) float64, at most 1. Gaussian window of σ = 1.5 pixels cut to 11 × 11,
    K₁ = 0.01, K₂ = 0.03, moments of the population, images one by one (Wang et al. 2004, eq. 13).
    """
    _check_stacks(reference, simulated, data_range)
    x, y = np.asarray(reference, np.float64), scale * np.asarray(simulated, np.float64)
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = _windowed(x * x) - mean_x**2
    variance_y = _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    return ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )


def intensity_scale(reference: np.ndarray, simulated: np.ndarray) -> float:
    """The one factor for all of ``simulated`` that brings it nearest to ``reference`` in least squares."""
    power = float(np.sum(np.square(simulated, dtype=np.float64)))
    if not power > 0:
        raise InputError("simulated must not be zero everywhere: no factor brings it to the reference")
    return float(np.sum(np.multiply(reference, simulated, dtype=np.float64))) / power


def reference_range(reference: np.ndarray) -> float:
    """The span of the middle 99.8 % of the reference: its range, without single bright or dead pixels."""
    low, high = np.percentile(reference, _PERCENTILES)
    if not high > low:
        raise InputError("reference must not be the same everywhere: it has no range to measure against")
    return float(high - low)


def _windowed(images: np.ndarray) -> np.ndarray:
    radius = WINDOW // 2
    blurred = gaussian_filter(images, (0, WINDOW_SIGMA, WINDOW_SIGMA), radius=(0, radius, radius))
    return blurred[:, radius:-radius, radius:-radius]


def _psnr(rmse: float, data_range: float) -> float:
    return float(20 * np.log10(data_range / rmse)) if rmse > 0 else float("inf")


def _check_stacks(reference: np.ndarray, simulated: np.ndarray, data_range: float) -> None:
    if reference.ndim != 3 or min(reference.shape[1:]) < WINDOW or len(reference) == 0:
        raise InputError(
            f"reference must be (image, y, x) of at least {WINDOW} × {WINDOW} pixels, got {reference.shape}"
        )
    if simulated.shape != reference.shape:
        raise InputError(
            f"simulated must have the shape of the reference, {reference.shape}, got {simulated.shape}; "
            "simulate in the geometry of the real scan"
        )
    if not (np.isfinite(data_range) and data_range > 0):
        raise InputError(f"data_range must be positive and finite, got {data_range!r}; see reference_range")
    for name, images in (("reference", reference), ("simulated", simulated)):
        if not np.isfinite(images).all():
            raise InputError(f"{name} has {np.sum(~np.isfinite(images))} values that are not finite")
