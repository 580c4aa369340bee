"""What a detector would have measured of a crystal inside an absorbing sample, with the truth beside it.

measured = true intensity × A × scale of the frame + noise. The table keeps every factor, so that a correction
can be scored against what it should have found.

Sample frame, angles and beam are those of ``tomoforge.geometry``. The laboratory of the table's ``s1`` columns is
the one DIALS uses: (X, Y, Z) = (−z, u, −w), so that the rotation axis is +X with a right-handed sense, and the
beam travels along −Z, the source at +Z.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy.special import ndtr

from tomoforge.absorption.goniometer import Beam, Crystal, Experiment, Goniometer, Sweep
from tomoforge.absorption.orientation import Orientation
from tomoforge.absorption.twin import (
    Reflections,
    checked_cell,
    named_space_group,
    rotation_experiment,
    rotation_matrix,
)
from tomoforge.errors import InputError
from tomoforge.seeds import component_rng
from tomoforge.units import ANGSTROM

# Rows X, Y, Z of the laboratory in (u, w, z), where the sample turns by −φ about z: that is +φ about −z = X.
LABORATORY = np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
TWIN_ORIENTATION = Orientation(LABORATORY.T, "twin")


@dataclass(frozen=True)
class TwinSweep:
    """One turn of the goniometer's spindle, with the sample held on it in a given way.

    start, stop : float [rad]; mounting : (3, 3) rotation acting on (x, y, z), from the sample frame, in which the
    labels are, to the spindle's frame at angle 0: what the inner axes of a multi-axis goniometer do. The identity
    where the tomography's axis is the spindle.

    Raises InputError for an empty range or a mounting that is no rotation.
    """

    start: float = 0.0
    stop: float = 2 * np.pi
    mounting: np.ndarray = field(default_factory=lambda: np.eye(3))

    def __post_init__(self) -> None:
        if not (np.isfinite(self.start) and np.isfinite(self.stop) and self.start < self.stop):
            raise InputError(f"a sweep must have start < stop in radians, got {self.start!r} … {self.stop!r}")
        object.__setattr__(self, "mounting", rotation_matrix("mounting", self.mounting))


@dataclass(frozen=True)
class Measurement:
    """How intensities become counts and counts become numbers.

    photons_per_unit : counts for a unit of intensity; background_photons : counts under a spot, known from four
    times as many pixels around it; fractional_error : of each observation, what the instrument adds whatever the
    counts; frame_width [rad]; beam_drift : relative amplitude of a slow change of the frames' scale; rocking_width
    [rad] : standard deviation of the mosaic rocking curve at speed 1, 0 for a perfect crystal.
    """

    photons_per_unit: float = 1e4
    background_photons: float = 500.0
    fractional_error: float = 0.02
    frame_width: float = np.pi / 1800
    beam_drift: float = 0.0
    rocking_width: float = 0.0

    def __post_init__(self) -> None:
        for name in ("photons_per_unit", "frame_width"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{name} must be positive, got {getattr(self, name)!r}")
        for name in ("background_photons", "fractional_error", "beam_drift", "rocking_width"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"{name} must be zero or positive, got {getattr(self, name)!r}")


def sweep_reflections(
    cell: Sequence[float],
    space_group: str,
    orientation: np.ndarray,
    wavelength: float,
    resolution: float,
    sweep: TwinSweep,
) -> Reflections:
    """Reflections of one sweep, their rays in the sample frame whatever the mounting.

    Arguments as of ``rotation_experiment``; orientation : (3, 3) from the crystal's Cartesian frame to the sample
    frame. Returns Reflections in order of angle. Raises InputError as ``rotation_experiment`` does.
    """
    turned = sweep.mounting @ rotation_matrix("orientation", orientation)
    found = rotation_experiment(cell, space_group, turned, wavelength, resolution, (sweep.start, sweep.stop))
    # (z, y, x) rows: v ↦ M⁻¹ v in (x, y, z) is a product with M from the right.
    to_sample = sweep.mounting[::-1, ::-1]
    return replace(found, incoming=found.incoming @ to_sample, outgoing=found.outgoing @ to_sample)


def sweep_experiment(
    cell: Sequence[float],
    space_group: str,
    orientation: np.ndarray,
    wavelength: float,
    sweep: TwinSweep,
    measurement: Measurement,
) -> Experiment:
    """The sweep as a diffraction program describes it: beam, goniometer, images and crystal in the laboratory.

    Arguments as of ``sweep_reflections``. Returns Experiment, the mounting being the goniometer's fixed rotation, so
    that ``TWIN_ORIENTATION`` leads from it to the sample frame. Raises InputError as ``sweep_reflections`` does.
    """
    group = named_space_group(space_group)
    reciprocal = np.array(checked_cell(cell, group).frac.mat.tolist()).T  # columns a*, b*, c* [1/Å]
    return Experiment(
        beam=Beam(direction=np.array([0.0, 0.0, -1.0]), wavelength=wavelength),
        goniometer=Goniometer(
            rotation_axis=np.array([1.0, 0.0, 0.0]),
            fixed_rotation=LABORATORY @ sweep.mounting @ LABORATORY.T,
            setting_rotation=np.eye(3),
        ),
        sweep=Sweep((1, _frames(sweep, measurement)), sweep.start, measurement.frame_width),
        crystal=Crystal(LABORATORY @ rotation_matrix("orientation", orientation) @ reciprocal, group.xhm()),
    )


def observe(
    reflections: Reflections,
    sweep: TwinSweep,
    true_intensity: np.ndarray,
    true_factor: np.ndarray,
    measurement: Measurement = Measurement(),
    *,
    seed: int = 0,
    dataset: int = 0,
) -> pd.DataFrame:
    """Measure the reflections of a sweep: the common table of reflections, with the truth beside it.

    Parameters
    ----------
    reflections : Reflections, from ``sweep_reflections``
    sweep : TwinSweep
    true_intensity : (reflection,) float, ≥ 0, e.g. from ``wilson_intensities``
    true_factor : (reflection,) float, 0 < A ≤ 1, by the true labels and µ
    measurement : Measurement
    seed : int
    dataset : int, number of the sweep; its noise is its own

    Returns
    -------
    DataFrame, a row for each reflection in the same order: h, k, l (int32); intensity, sigma; d_angstrom;
    angle_rad; frame (int64, from 0); s1_x, s1_y, s1_z [1/Å] in the laboratory; dataset (int32); and the truth:
    true_intensity, true_factor, frame_scale, partiality, free_intensity, free_sigma. The last two are the same
    crystal, instrument and frames without any absorption, so with the photons that it took.

    Raises
    ------
    InputError
        for sizes that differ, intensities that are negative, factors outside 0 < A ≤ 1.

    Notes
    -----
    Intensities are as after Lorentz and polarisation corrections, and divided by the partiality; frame scales are
    left in. Counts are Poisson over a background that is taken off as its own surroundings estimate it. sigma is
    the true standard deviation of the noise, not an estimate from the counts: weak reflections measured too low
    get no smaller sigma, so that weighted means are unbiased. The instrument's error of an observation is the
    same with and without absorption.
    """
    truth = _column("true_intensity", true_intensity, len(reflections))
    factor = _column("true_factor", true_factor, len(reflections))
    if np.any(truth < 0):
        raise InputError(f"true_intensity must not be negative, got {truth.min()!r}")
    if np.any((factor <= 0) | (factor > 1)):
        raise InputError(
            f"true_factor must lie in 0 < A ≤ 1, got {factor.min()!r} … {factor.max()!r}; is it 1/A?"
        )
    frame = ((reflections.angle - sweep.start) / measurement.frame_width).astype(np.int64)
    scale = frame_scales(frame, _frames(sweep, measurement), measurement.beam_drift, seed, dataset)
    partiality = _partiality(reflections, sweep, measurement.rocking_width)
    deviate = component_rng(seed, "twin.instrument", dataset).standard_normal(len(truth))
    light = scale * partiality
    counts_rng = component_rng(seed, "twin.counts", dataset)
    free_rng = component_rng(seed, "twin.counts.free", dataset)
    intensity, sigma = _measured(truth * factor * light, measurement, deviate, counts_rng)
    free, free_sigma = _measured(truth * light, measurement, deviate, free_rng)
    s1 = _laboratory_rays(reflections, sweep)
    return pd.DataFrame(
        {
            "h": reflections.hkl[:, 0].astype(np.int32),
            "k": reflections.hkl[:, 1].astype(np.int32),
            "l": reflections.hkl[:, 2].astype(np.int32),
            "intensity": intensity / partiality,
            "sigma": sigma / partiality,
            "d_angstrom": reflections.spacing / ANGSTROM,
            "angle_rad": reflections.angle,
            "frame": frame,
            "s1_x": s1[:, 0],
            "s1_y": s1[:, 1],
            "s1_z": s1[:, 2],
            "dataset": np.full(len(truth), dataset, dtype=np.int32),
            "true_intensity": truth,
            "true_factor": factor,
            "frame_scale": scale,
            "partiality": partiality,
            "free_intensity": free / partiality,
            "free_sigma": free_sigma / partiality,
        }
    )


def apply_correction(table: pd.DataFrame, a: np.ndarray) -> pd.DataFrame:
    """The table with intensity and sigma divided by absorption factors, kept beside them as ``applied_factor``.

    table : the common table of reflections; a : (row,) float, 0 < A ≤ 1. Returns a new DataFrame without the
    column ``absorption_factor``, which stands for a correction still to be made. Raises InputError for a table
    corrected before, or factors that do not fit.
    """
    if "applied_factor" in table.columns:
        raise InputError(
            "table must not be corrected twice, but it holds applied_factor; start from the measured one"
        )
    factor = _column("a", a, len(table))
    if np.any((factor <= 0) | (factor > 1)):
        raise InputError(f"a must lie in 0 < A ≤ 1, got {factor.min()!r} … {factor.max()!r}; is it 1/A?")
    corrected = table.assign(
        intensity=table["intensity"].to_numpy() / factor,
        sigma=table["sigma"].to_numpy() / factor,
        applied_factor=factor,
    )
    return corrected.drop(columns="absorption_factor", errors="ignore")


def frame_scales(frame: np.ndarray, frames: int, drift: float, seed: int, dataset: int) -> np.ndarray:
    """Scale of each frame number: (row,) float64 around 1, a wave and a half over the sweep of amplitude ``drift``."""
    phase = component_rng(seed, "twin.beam_drift", dataset).uniform(0, 2 * np.pi)
    return np.exp(drift * np.sin(3 * np.pi * (frame + 0.5) / frames + phase))


def _measured(
    expected: np.ndarray, measurement: Measurement, deviate: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Intensity and sigma of expected intensities as ``measurement`` would give them."""
    per_unit, under = measurement.photons_per_unit, measurement.background_photons
    wobble = np.maximum(1 + measurement.fractional_error * deviate, 0)
    counts = rng.poisson(expected * per_unit * wobble + under)
    around = rng.poisson(4 * under, len(expected)) / 4
    variance = expected * per_unit + under * (1 + 1 / 4)
    variance = variance + (measurement.fractional_error * expected * per_unit) ** 2
    # A spot without a single expected photon has sigma 0 otherwise, and an infinite weight.
    return (counts - around) / per_unit, np.sqrt(np.maximum(variance, 1.0)) / per_unit


def _partiality(reflections: Reflections, sweep: TwinSweep, rocking_width: float) -> np.ndarray:
    """Part of each rocking curve that lies within the sweep: (reflection,) float64, at least a half."""
    if rocking_width == 0:
        return np.ones(len(reflections))
    # λ²|s₁ × s₀| = sin 2θ turns the Lorentz factor into 1/|ζ| (W. Kabsch, Acta Cryst. D66 (2010) 125–132).
    cosine = np.sum(reflections.incoming * reflections.outgoing, axis=1)
    sine = np.sqrt(np.maximum(1 - cosine**2, 0))
    width = rocking_width * np.minimum(reflections.lorentz * sine, 1e6)
    width = np.maximum(width, 1e-12)
    return ndtr((sweep.stop - reflections.angle) / width) - ndtr((sweep.start - reflections.angle) / width)


def _laboratory_rays(reflections: Reflections, sweep: TwinSweep) -> np.ndarray:
    """s₁ of each reflection in the laboratory: (reflection, 3) float64 (x, y, z), [1/Å]."""
    x, y, z = (reflections.outgoing[:, ::-1] @ sweep.mounting.T).T
    cosine, sine = np.cos(reflections.angle), np.sin(reflections.angle)
    u, w = x * cosine + y * sine, -x * sine + y * cosine
    return np.stack([u, w, z], axis=1) @ LABORATORY.T * (ANGSTROM / reflections.wavelength)


def _frames(sweep: TwinSweep, measurement: Measurement) -> int:
    return max(1, int(np.ceil((sweep.stop - sweep.start) / measurement.frame_width - 1e-6)))


def _column(name: str, values: np.ndarray, count: int) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (count,):
        raise InputError(f"{name} must have one value for each of {count} reflections, got {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite, {int(np.sum(~np.isfinite(array)))} of {count} are not")
    return array
