"""The simulator's detector against the real one: flats and darks forged by a calibration, measured as the real ones."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tomoforge.optics.calibration import DetectorCalibration, calibrate
from tomoforge.optics.detector import Detector, draw_detector_state, expose
from tomoforge.optics.photon_transfer import Estimate
from tomoforge.seeds import component_rng

_MOST_FRAMES, _MOST_PIXELS = (
    20,
    512,
)  # frames of a kind, pixels of a side: enough for every figure, and seconds
_BINS = 60
# What is compared, with its unit; a share and a rate are of pixels and frames.
_UNITS = {
    "gain": "counts a photon",
    "photons": "a pixel and flat",
    "offset": "counts",
    "read_noise": "counts",
    "offset_pattern": "counts",
    "column_gain": "of the light",
    "beam_ripple": "of the light",
    "flat_structure": "of the light",
    "beam_falloff": "of the light",
    "column_drift": "of the light",
    "flat_drift": "of the light",
    "beam_motion": "px",
    "beam_flicker": "of the light",
    "dead_fraction": "of the pixels",
    "hot_fraction": "of the pixels",
    "hot_counts": "counts",
    "zinger_rate": "a frame",
    "zinger_counts": "counts",
}


@dataclass(frozen=True)
class CalibrationCheck:
    """parameters : parameter, unit, real, real_error, simulated, simulated_error, a row each that one of them tells;
    counts : frames (flats, darks), low, high [counts], real, simulated [% of the pixels]; warnings : of the real
    frames, what they do not tell."""

    parameters: pd.DataFrame
    counts: pd.DataFrame
    warnings: tuple[str, ...]


def check_calibration(flats: np.ndarray, darks: np.ndarray, seed: int) -> CalibrationCheck | None:
    """Calibrate the simulator's detector on real frames, forge as many with it and calibrate on those.

    Parameters
    ----------
    flats, darks : (n, y, x) counts, of one scan; at most 20 of each count, and their middle 512 × 512 pixels
    seed : of the forged frames

    Returns
    -------
    CalibrationCheck, or None where the frames do not tell how many photons there were (fewer than two flats,
    saturated ones, averages): nothing can be forged like them then.

    Raises InputError as ``calibrate``.
    """
    flats, darks = _few(np.asarray(flats)), _few(np.asarray(darks))
    real = calibrate(flats, darks, seed=seed)
    if real.gain is None or real.photons is None:
        return None
    forged = _forge(real, len(flats), len(darks), seed)
    simulated = calibrate(*forged, seed=seed)
    counts = [
        _counts(name, *pair) for name, pair in (("flats", (flats, forged[0])), ("darks", (darks, forged[1])))
    ]
    return CalibrationCheck(_parameters(real, simulated), pd.concat(counts, ignore_index=True), real.warnings)


def _few(frames: np.ndarray) -> np.ndarray:
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), _MOST_FRAMES)).round().astype(int))
    rows, columns = (
        slice(max((n - _MOST_PIXELS) // 2, 0), max((n - _MOST_PIXELS) // 2, 0) + _MOST_PIXELS)
        for n in frames.shape[1:]
    )
    return frames[chosen][:, rows, columns]


def _forge(real: DetectorCalibration, flats: int, darks: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Flats all through a scan and darks, of the detector and the light that were measured."""
    # What the real frames do not tell is not there, rather than as a usual detector has it.
    quiet = Detector(column_gain_sigma=0.0, column_drift_sigma=0.0, beam_ripple=0.0)
    detector = real.detector(quiet)
    # Drawn, as forging has it. The very light that was measured holds the noise of its measurement, and would come
    # back with twice of it.
    state = draw_detector_state(detector, real.shape, seed)
    assert real.photons is not None  # ``check_calibration`` asks first
    photons = real.photons.value
    frames = [
        np.stack(
            [
                expose(
                    light, photons, detector, state, progress, component_rng(seed, f"calibration.{name}", n)
                )
                for n, progress in enumerate(np.linspace(0, light, number))
            ]
        )
        for name, light, number in (("flats", 1.0, flats), ("darks", 0.0, darks))
    ]
    return frames[0], frames[1]


def _parameters(real: DetectorCalibration, simulated: DetectorCalibration) -> pd.DataFrame:
    rows = []
    for name, unit in _UNITS.items():
        first, second = (getattr(found, name) for found in (real, simulated))
        if first is not None or second is not None:
            rows.append((name, unit, *_figures(first), *_figures(second)))
    return pd.DataFrame(
        rows, columns=["parameter", "unit", "real", "real_error", "simulated", "simulated_error"]
    )


def _figures(found: Estimate | None) -> tuple[float, float]:
    return (float("nan"), float("nan")) if found is None else (found.value, found.error)


def _counts(name: str, real: np.ndarray, simulated: np.ndarray) -> pd.DataFrame:
    """How the counts of both are spread over the same bins; a few wild pixels do not widen them."""
    both = np.concatenate([real.ravel(), simulated.ravel()])
    low, high = np.floor(np.percentile(both, 0.05)), np.ceil(np.percentile(both, 99.95)) + 1
    # Whole counts a bin: half a count would leave every second bin empty.
    width = max(1.0, np.ceil((high - low) / _BINS))
    edges = np.arange(low, high + width, width)
    shares = [100 * np.histogram(values, edges)[0] / values.size for values in (real, simulated)]
    return pd.DataFrame(
        {"frames": name, "low": edges[:-1], "high": edges[1:], "real": shares[0], "simulated": shares[1]}
    )
