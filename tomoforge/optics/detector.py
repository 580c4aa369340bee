"""From intensity to counts: blur, pixel integration, photons, gains that drift, offset, noise, digits.

Order (DESIGN): source blur and PSF → pixel integration → Poisson → gain per column → dark offset → read noise →
quantisation. Each frame draws from a generator of its own, so that batching and workers never change a pixel.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from tomoforge.errors import InputError
from tomoforge.seeds import component_rng


@dataclass(frozen=True)
class Detector:
    """An area detector behind a scintillator.

    gain : counts a photon; offset : dark level [counts]; read_noise : rms [counts]; bits : of the converter;
    psf_sigma : of the point spread [pixels]; column_gain_sigma : rms of the fixed gain pattern;
    column_drift_sigma : rms of the gain change of a column over the whole scan, which flats taken at the start
    cannot cancel and which shows as rings; beam_ripple : rms of the uneven illumination.
    """

    gain: float = 2.0
    offset: float = 100.0
    read_noise: float = 3.0
    bits: int = 16
    psf_sigma: float = 0.4
    column_gain_sigma: float = 0.02
    column_drift_sigma: float = 0.0005
    beam_ripple: float = 0.05

    def __post_init__(self) -> None:
        if not self.gain > 0:
            raise InputError(f"gain must be positive counts a photon, got {self.gain!r}")
        if not 8 <= self.bits <= 16:
            raise InputError(f"bits must be 8 to 16, got {self.bits!r}")
        for name in (
            "offset",
            "read_noise",
            "psf_sigma",
            "column_gain_sigma",
            "column_drift_sigma",
            "beam_ripple",
        ):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"{name} must be zero or positive, got {value!r}")


@dataclass(frozen=True)
class DetectorState:
    """What stays the same through one scan: the columns' gains and drifts, and the illumination.

    column_gain, column_drift : (x,); illumination : (y, x), mean 1.
    """

    column_gain: np.ndarray
    column_drift: np.ndarray
    illumination: np.ndarray

    def gains(self, progress: float) -> np.ndarray:
        """Gain of each column at ``progress`` through the scan (0 at its start, when flats are taken): (x,)."""
        return self.column_gain * (1 + progress * self.column_drift)


def draw_detector_state(detector: Detector, shape: tuple[int, int], seed: int) -> DetectorState:
    """The fixed pattern of one scan on a detector of ``shape`` (y, x)."""
    rows, columns = shape
    gain = 1 + detector.column_gain_sigma * component_rng(seed, "column_gain").standard_normal(columns)
    drift = detector.column_drift_sigma * component_rng(seed, "column_drift").standard_normal(columns)
    # Ripple of a multilayer monochromator: horizontal stripes, broad and narrow.
    rng = component_rng(seed, "illumination")
    ripple = sum(
        gaussian_filter1d(rng.standard_normal(rows), width, mode="reflect") * np.sqrt(width)
        for width in (rows / 8, rows / 40)
    )
    spread = float(np.std(ripple))
    profile = 1 + detector.beam_ripple * ripple / spread if spread > 0 else np.ones(rows)
    illumination = np.clip(profile, 0.1, None)[:, None] * np.ones(columns)
    return DetectorState(np.clip(gain, 0.1, None), drift, illumination / illumination.mean())


def blur_and_bin(intensity: np.ndarray, oversampling: int, sigma_pixels: float) -> np.ndarray:
    """Blur by a Gaussian of ``sigma_pixels`` and average ``oversampling``² samples into each pixel."""
    if sigma_pixels > 0:
        intensity = gaussian_filter(intensity, sigma_pixels * oversampling, mode="nearest", truncate=4)
    rows, columns = (n // oversampling for n in intensity.shape)
    return intensity.reshape(rows, oversampling, columns, oversampling).mean(axis=(1, 3))


def expose(
    transmission: np.ndarray | float,
    photons: float,
    detector: Detector,
    state: DetectorState,
    progress: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Counts of one frame.

    transmission : (y, x) intensity over the incident one, already blurred and binned, 1 for a flat, 0 for a
    dark; photons : mean number a pixel in the open beam; progress : 0…1 through the scan.

    Returns (y, x) uint16.
    """
    mean = photons * state.illumination * transmission
    counts = rng.poisson(mean) * (detector.gain * state.gains(progress))
    counts += detector.offset + detector.read_noise * rng.standard_normal(mean.shape)
    return np.clip(np.rint(counts), 0, 2**detector.bits - 1).astype(np.uint16)
