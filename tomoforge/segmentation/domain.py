"""Does a volume look like those that a model was trained on?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tomoforge.errors import InputError
from tomoforge.segmentation.fingerprint import VolumeFingerprint, volume_fingerprint
from tomoforge.segmentation.model import read_model
from tomoforge.units import m_to_um

# Percentiles may leave the trained range by a quarter of the trained contrast (least 0.5 % to greatest
# 99.5 % percentile) before anyone is told: samples differ by less from one another.
_MU_MARGIN = 0.25
_NOISE_FACTOR = 1.5
_VOXEL_MARGIN = 0.02
# µ falls about as E⁻³: 2 % in energy is 6 % in µ.
_ENERGY_MARGIN = 0.02


def domain_warnings(
    model_directory: str | Path,
    volume: np.ndarray,
    voxel_size: float,
    energy_kev: float | None = None,
) -> list[str]:
    """Sentences on how a volume differs from the training volumes; empty where it does not.

    Parameters
    ----------
    model_directory : a trained model
    volume : (z, y, x) float [1/m]
    voxel_size : float [m]
    energy_kev : of the scan [keV]; compared if the model recorded ``extra["energy_kev"]``, a number or a list

    Raises
    ------
    InputError
        The volume is not finite, constant or not (z, y, x); energy_kev is not positive; no model.
    """
    model = read_model(model_directory)
    measured = volume_fingerprint(volume, voxel_size)
    found = [
        *_mu_warnings(measured, model.fingerprint),
        *_noise_warnings(measured, model.fingerprint),
        *_voxel_warnings(measured, model.fingerprint),
    ]
    if energy_kev is not None:
        if not (np.isfinite(energy_kev) and energy_kev > 0):
            raise InputError(f"energy_kev must be a positive number of keV, got {energy_kev!r}")
        found += _energy_warnings(energy_kev, model.extra.get("energy_kev"))
    return found


def _mu_warnings(measured: VolumeFingerprint, trained: Mapping[str, Any]) -> list[str]:
    ranges = trained["mu"]
    contrast = max(high for _, high in ranges.values()) - min(low for low, _ in ranges.values())
    found = []
    for percentile, (low, high) in ranges.items():
        value = measured.mu[percentile]
        if not low - _MU_MARGIN * contrast <= value <= high + _MU_MARGIN * contrast:
            found.append(
                f"The {percentile} % percentile of µ is {value:.4g} 1/m; the training volumes had "
                f"{low:.4g} to {high:.4g} 1/m."
            )
    return found


def _noise_warnings(measured: VolumeFingerprint, trained: Mapping[str, Any]) -> list[str]:
    low, high = trained["noise"]
    # Less noise than in training is named only where it is far less: it rarely harms.
    if low / _NOISE_FACTOR**2 <= measured.noise <= high * _NOISE_FACTOR:
        return []
    return [f"The noise is {measured.noise:.3g} 1/m; the training volumes had {low:.3g} to {high:.3g} 1/m."]


def _voxel_warnings(measured: VolumeFingerprint, trained: Mapping[str, Any]) -> list[str]:
    low, high = trained["voxel_size"]
    if low * (1 - _VOXEL_MARGIN) <= measured.voxel_size <= high * (1 + _VOXEL_MARGIN):
        return []
    return [
        f"The voxel size is {m_to_um(measured.voxel_size):.4g} µm; the training volumes had "
        f"{m_to_um(low):.4g} to {m_to_um(high):.4g} µm. Slices are resampled to the training's pixel size."
    ]


def _energy_warnings(energy_kev: float, trained: Any) -> list[str]:
    if trained is None:
        return []
    values = np.atleast_1d(np.asarray(trained, dtype=float))
    low, high = float(values.min()), float(values.max())
    if low * (1 - _ENERGY_MARGIN) <= energy_kev <= high * (1 + _ENERGY_MARGIN):
        return []
    return [f"The energy is {energy_kev:.4g} keV; the training volumes had {low:.4g} to {high:.4g} keV."]
