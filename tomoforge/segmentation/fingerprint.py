"""What a volume looks like in a few numbers: grey values, noise, voxel size."""

import math
from dataclasses import dataclass

import numpy as np

from tomoforge.errors import InputError
from tomoforge.segmentation.source import Readable

# The tails rather than the middle: the median jumps between air and sample as the sample fills more or
# less of the field of view, while the tails stay with the materials, the fringes and the noise.
PERCENTILES = (0.5, 95.0, 99.5)

_MOST_VOXELS = 1 << 26  # sorted at a time; a larger volume gives every second, third, … slice


@dataclass(frozen=True)
class VolumeFingerprint:
    """Grey values of one volume. mu : percentile → µ [1/m]; noise : standard deviation [1/m];
    voxel_size [m]."""

    mu: dict[str, float]
    noise: float
    voxel_size: float


def volume_fingerprint(volume: np.ndarray, voxel_size: float) -> VolumeFingerprint:
    """Percentiles and noise of a volume.

    Parameters
    ----------
    volume : (z, y, x) float [1/m]
    voxel_size : float [m]

    Raises
    ------
    InputError
        As ``check_volume``.

    Notes
    -----
    The noise is the median absolute difference of neighbours along x, scaled for a normal
    distribution: edges are few and do not move a median. Noise that neighbours share counts less.
    """
    check_volume(volume, voxel_size)
    volume = thinned(volume)
    values = np.percentile(volume, PERCENTILES)
    differences = np.abs(np.diff(volume, axis=2))
    # |a − b| of two normal draws has the median 0.6745 √2 σ.
    noise = float(np.median(differences)) / (0.6744897501960817 * np.sqrt(2)) if differences.size else 0.0
    return VolumeFingerprint(
        {f"{p:g}": float(v) for p, v in zip(PERCENTILES, values, strict=True)},
        float(noise),
        float(voxel_size),
    )


def thinned(volume: Readable) -> np.ndarray:
    """Of a volume, stored or in memory, the slices that a fingerprint is taken of: all, or every second, third, …"""
    return np.asarray(volume[:: max(1, math.ceil(math.prod(volume.shape) / _MOST_VOXELS))])


def check_volume(volume: np.ndarray, voxel_size: float, name: str = "volume") -> None:
    """Raise InputError unless volume is (z, y, x), finite and not constant, with a positive voxel_size [m]."""
    if volume.ndim != 3 or min(volume.shape) < 1:
        raise InputError(f"{name} must be (z, y, x), got shape {volume.shape}")
    if not np.issubdtype(volume.dtype, np.floating):
        raise InputError(
            f"{name} must hold floating-point µ in 1/m, got {volume.dtype}; was it scaled to integers?"
        )
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size of {name} must be positive metres, got {voxel_size!r}")
    # Two passes without a mask array: min and max carry NaN and infinities along.
    low, high = float(volume.min()), float(volume.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int(volume.size - np.isfinite(volume).sum())
        raise InputError(
            f"{name} must be finite, got {bad} voxels that are NaN or infinite; reconstruct it again"
        )
    if low == high:
        raise InputError(
            f"{name} must not be constant, got {low:g} 1/m everywhere; did its reconstruction fail?"
        )
