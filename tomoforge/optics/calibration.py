"""A detector's parameters from the flats and darks of a real scan, by photon transfer.

What a scan cannot tell stays None, with a warning that says why; nothing is guessed.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from tomoforge.errors import InputError
from tomoforge.optics.calibration_study import (
    CalibrationMaps,
    CalibrationStudy,
    checked_frames,
    checked_progress,
)
from tomoforge.optics.detector import Detector, DetectorState, draw_detector_state
from tomoforge.optics.photon_transfer import Estimate
from tomoforge.seeds import component_rng


@dataclass(frozen=True)
class DetectorCalibration:
    """What flats and darks say of a detector; None for what they do not tell.

    gain [counts a photon]; photons : mean a pixel in a flat; offset, read_noise, offset_pattern (rms over pixels)
    [counts]; noise_correlation : of neighbours in x and in y, in differences of flats; column_gain, beam_ripple,
    flat_structure : rms of the fixed pattern of columns (pixel to pixel), of rows, and of the rest in two dimensions;
    flat_structure_size : rms width of its grains [pixels]; beam_falloff : part of the light lost at the sides;
    column_drift : rms of the relative change of a column from progress 0 to 1, column_drifts : of each (x,), noise
    included; flat_drift : the same of the rest, on tiles; beam_motion : shift of the rows' pattern [pixels];
    beam_flicker : rms of the frames' means from one to the next; hot_counts : mean dark excess [counts];
    zinger_rate : a frame, zinger_counts : mean height; psf_sigma [pixels]; bits : fewest that hold the counts,
    bits_certain : whether saturation shows that there are no more; saturated_fraction : of the flats' pixels.
    maps : arrays, not part of JSON.

    Notes: a "photon" is a quantum with the statistics that the camera sees. Behind a scintillator it is an effective
    number, between the X-ray photons absorbed and the electrons collected; forged noise then has the right size.
    """

    shape: tuple[int, int]
    n_flats: int
    n_darks: int
    bits: int
    bits_certain: bool
    saturated_fraction: float
    gain: Estimate | None = None
    photons: Estimate | None = None
    offset: Estimate | None = None
    read_noise: Estimate | None = None
    offset_pattern: Estimate | None = None
    noise_correlation: tuple[float, float] | None = None
    column_gain: Estimate | None = None
    beam_ripple: Estimate | None = None
    beam_falloff: Estimate | None = None
    flat_structure: Estimate | None = None
    flat_structure_size: float | None = None
    column_drift: Estimate | None = None
    column_drifts: tuple[float, ...] | None = None
    flat_drift: Estimate | None = None
    beam_motion: Estimate | None = None
    beam_flicker: Estimate | None = None
    dead_fraction: Estimate | None = None
    hot_fraction: Estimate | None = None
    hot_counts: Estimate | None = None
    zinger_rate: Estimate | None = None
    zinger_counts: Estimate | None = None
    psf_sigma: Estimate | None = None
    warnings: tuple[str, ...] = ()
    maps: CalibrationMaps = field(default_factory=CalibrationMaps, compare=False, repr=False)

    @property
    def undetermined(self) -> tuple[str, ...]:
        """Parameters of a Detector that ``detector`` takes from its base, and "photons" if that is not known."""
        return tuple(name for name in (*_DETECTOR_FIELDS, "photons") if getattr(self, name) is None)

    def detector(self, base: Detector | None = None) -> Detector:
        """The detector that forges such frames; what was not determined comes from ``base``."""
        base = Detector() if base is None else base
        known = {
            target: max(getattr(self, name).value, 0.0)
            for name, target in _DETECTOR_FIELDS.items()
            if getattr(self, name) is not None
        }
        if self.flat_structure_size is not None:
            known["flat_structure_size"] = self.flat_structure_size
        return replace(base, bits=self.bits if self.bits_certain else max(self.bits, base.bits), **known)

    def state(
        self, seed: int, shape: tuple[int, int] | None = None, base: Detector | None = None
    ) -> DetectorState:
        """This very detector: its light, dark level and bad pixels as measured, its drift drawn anew.

        shape : (y, x) of a part about the centre, the whole if None. Forge with ``detector()`` and this state.

        Raises InputError if the maps were not measured (or read from JSON), or are smaller than ``shape``.
        """
        shape = self.shape if shape is None else shape
        if self.maps.light is None:
            raise InputError(
                "this calibration has no map of the light (saturated flats, or read from JSON); "
                "use draw_detector_state(calibration.detector(), shape, seed)"
            )
        if any(part > whole for part, whole in zip(shape, self.shape, strict=True)):
            raise InputError(
                f"shape must lie within the calibrated detector {self.shape}, got {shape}; "
                "use draw_detector_state(calibration.detector(), shape, seed)"
            )
        low = [(whole - part) // 2 for part, whole in zip(shape, self.shape, strict=True)]
        window = tuple(slice(start, start + part) for start, part in zip(low, shape, strict=True))
        drawn = draw_detector_state(self.detector(base), shape, seed)
        light = self.maps.light[window]
        dead = np.zeros(self.shape, bool)
        dead.reshape(-1)[self.maps.dead] = True
        return DetectorState(
            column_gain=np.ones(shape[1]),
            column_drift=drawn.column_drift,
            illumination=(light / light.mean()).astype(np.float32),
            beam_shift=drawn.beam_shift,
            response_drift=drawn.response_drift,
            offsets=None if self.maps.offsets is None else self.maps.offsets[window].astype(np.float32),
            dead=np.flatnonzero(dead[window]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the maps, for JSON."""
        return asdict(replace(self, maps=CalibrationMaps())) | {"maps": None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DetectorCalibration":
        """The inverse of ``to_dict``, without maps. Raises InputError for keys that are not its own."""
        known = {f.name for f in fields(cls)}
        if strange := sorted(set(values) - known):
            raise InputError(f"a calibration has no {strange}; it holds {sorted(known)}")
        taken: dict[str, Any] = {
            name: Estimate(**value)
            if isinstance(value, Mapping)
            else tuple(value)
            if isinstance(value, list)
            else value
            for name, value in values.items()
            if name != "maps"
        }
        return cls(**taken)


# Name in the calibration → field of Detector.
_DETECTOR_FIELDS = {
    "gain": "gain",
    "offset": "offset",
    "read_noise": "read_noise",
    "offset_pattern": "offset_pattern",
    "column_gain": "column_gain_sigma",
    "beam_ripple": "beam_ripple",
    "beam_falloff": "beam_falloff",
    "flat_structure": "flat_structure",
    "column_drift": "column_drift_sigma",
    "flat_drift": "flat_drift",
    "beam_motion": "beam_motion",
    "beam_flicker": "beam_flicker",
    "dead_fraction": "dead_fraction",
    "hot_fraction": "hot_fraction",
    "hot_counts": "hot_counts",
    "zinger_rate": "zinger_rate",
    "zinger_counts": "zinger_counts",
    "psf_sigma": "psf_sigma",
}


def calibrate(
    flats: np.ndarray,
    darks: np.ndarray | None = None,
    *,
    flat_progress: np.ndarray | None = None,
    edge: np.ndarray | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> DetectorCalibration:
    """A detector's parameters from flats and darks.

    Parameters
    ----------
    flats : (n, y, x) counts, single frames of the open beam (at least two for gain, three for drifts).
    darks : (n, y, x) counts without beam, or None.
    flat_progress : (n,) of each flat through the scan, 0…1; evenly from 0 to 1 if None, so that drifts mean
        "over the series of flats".
    edge : (y, x) flat-corrected image of one sharp edge, for the point spread.
    resamples : of the bootstrap over pairs of frames and bands of rows; seed : of it.

    Raises
    ------
    InputError
        For frames that are not (n, y, x), do not match, are empty, negative or not finite.

    Notes
    -----
    gain = Σ[(f₁ − s f₂)² − r²(1 + s²)] / Σ 2f̄(1 + s)/2 over pixels of pairs of flats less the dark level, with s the
    ratio of their means, r the read noise, and what is smooth in the difference (rows, columns, tiles of 16 pixels)
    taken out: fixed patterns cancel, drifts hardly show. It assumes noise without correlation between pixels; where
    there is (light spread after the photon), the variance of a pixel, and with it ``gain``, is what a forged pixel
    needs, but not the camera's true gain.

    References
    ----------
    J. R. Janesick, Photon Transfer (SPIE Press, 2007), ch. 5; EMVA Standard 1288, release 4.0, §6.
    """
    flats = checked_frames(flats, "flats")
    dark_frames = np.zeros((0, *flats.shape[1:])) if darks is None else checked_frames(darks, "darks")
    if dark_frames.shape[1:] != flats.shape[1:]:
        raise InputError(
            f"darks must have the flats' frame size {flats.shape[1:]}, got {dark_frames.shape[1:]}; "
            "was one of them binned or cropped?"
        )
    progress = checked_progress(flat_progress, len(flats))
    if resamples < 2:
        raise InputError(f"resamples must be at least 2, got {resamples}")
    study = CalibrationStudy(flats, dark_frames, progress, resamples, component_rng(seed, "calibration"))
    study.converter()
    study.bad_pixels()
    study.darkness()
    if study.exposed_enough():
        study.noise()
        study.fixed_patterns()
        study.drifts()
    study.zingers()
    if edge is not None:
        study.edge(edge)
    return DetectorCalibration(
        shape=(flats.shape[1], flats.shape[2]),
        n_flats=len(flats),
        n_darks=len(dark_frames),
        warnings=tuple(study.warnings),
        maps=study.maps,
        **study.found,
    )
