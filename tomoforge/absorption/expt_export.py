"""DIALS experiment files (.expt) written without DIALS: the counterpart of ``expt_file``.

Every version since DIALS 2 reads what is written here: the scan is in the older of its two forms (oscillation as start
and width), which newer ones convert. There are no images behind such a file, so no image set is named.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gemmi
import numpy as np

from tomoforge.absorption.detector import Panel
from tomoforge.absorption.goniometer import Beam, Crystal, Experiment, Goniometer, Sweep
from tomoforge.errors import InputError
from tomoforge.storage import write_json_atomic

_MM_PER_M = 1e3
_SIMPLE = {"type": "SimplePxMmStrategy"}  # no parallax


def write_experiments(
    path: str | Path, experiments: Sequence[Experiment], panels: Sequence[Panel] = ()
) -> None:
    """Write experiments for DIALS, whole or not at all.

    Parameters
    ----------
    panels : of the one detector that all experiments share; without any the file has no detector

    Raises
    ------
    InputError
        without an experiment, or for a space group that gemmi does not know.

    Notes
    -----
    ``read_experiments`` gives back the same experiments, to the last digits of angles and of the inverse of the
    setting matrix. A goniometer of several axes comes back as its scanning axis with what the others do.
    """
    if not experiments:
        raise InputError("experiments must be at least one, got none")
    numbers = range(len(experiments))
    crystals = [experiment.crystal for experiment in experiments if experiment.crystal is not None]
    crystal_number = iter(range(len(crystals)))
    entries = []
    for number, experiment in zip(numbers, experiments, strict=True):
        models = {kind: number for kind in ("beam", "goniometer", "scan")}
        if panels:
            models["detector"] = 0
        if experiment.crystal is not None:
            models["crystal"] = next(crystal_number)
        entries.append({"__id__": "Experiment", "identifier": experiment.identifier, **models})
    write_json_atomic(
        path,
        {
            "__id__": "ExperimentList",
            "experiment": entries,
            "imageset": [],
            "beam": [_beam(experiment.beam) for experiment in experiments],
            "detector": [_detector(panels)] if panels else [],
            "goniometer": [_goniometer(experiment.goniometer) for experiment in experiments],
            "scan": [_scan(experiment.sweep) for experiment in experiments],
            "crystal": [_crystal(crystal) for crystal in crystals],
            "profile": [],
            "scaling_model": [],
        },
    )


def _beam(beam: Beam) -> dict[str, Any]:
    model = {
        "__id__": "monochromatic",
        "direction": _floats(-beam.direction),  # from the sample to the source
        "wavelength": float(beam.wavelength_angstrom),
        "divergence": 0.0,
        "sigma_divergence": 0.0,
        "polarization_normal": [0.0, 1.0, 0.0],
        "polarization_fraction": 0.999,
        "flux": 0.0,
        "transmission": 1.0,
        "probe": "x-ray",
    }
    return model | _varying("s0_at_scan_points", beam.s0_at_scan_points)


def _goniometer(goniometer: Goniometer) -> dict[str, Any]:
    model = {
        "rotation_axis": _floats(goniometer.rotation_axis),
        "fixed_rotation": _floats(goniometer.fixed_rotation),
        "setting_rotation": _floats(goniometer.setting_rotation),
    }
    return model | _varying("setting_rotation_at_scan_points", goniometer.setting_rotation_at_scan_points)


def _scan(sweep: Sweep) -> dict[str, Any]:
    return {
        "image_range": [int(number) for number in sweep.image_range],
        "batch_offset": 0,
        "oscillation": _floats(np.degrees([sweep.start, sweep.width])),
        "exposure_time": [0.0] * sweep.n_images,
        "epochs": [0.0] * sweep.n_images,
        "valid_image_ranges": {},
    }


def _crystal(crystal: Crystal) -> dict[str, Any]:
    rows = np.linalg.inv(crystal.setting_matrix)  # a, b, c
    group = gemmi.find_spacegroup_by_name(crystal.space_group)
    if group is None:
        raise InputError(f"space_group must be a Hermann–Mauguin symbol, got {crystal.space_group!r}")
    model = {
        "__id__": "crystal",
        **{f"real_space_{axis}": _floats(row) for axis, row in zip("abc", rows, strict=True)},
        "space_group_hall_symbol": f" {group.hall.strip()}",
    }
    return model | _varying("A_at_scan_points", crystal.setting_matrix_at_scan_points)


def _detector(panels: Sequence[Panel]) -> dict[str, Any]:
    root = {
        "name": "",
        "type": "",
        "fast_axis": [1.0, 0.0, 0.0],
        "slow_axis": [0.0, 1.0, 0.0],
        "origin": [0.0, 0.0, 0.0],
        "children": [{"panel": number} for number in range(len(panels))],
    }
    return {"panels": [_panel(panel) for panel in panels], "hierarchy": root}


def _panel(panel: Panel) -> dict[str, Any]:
    pixel = panel.pixel_size * _MM_PER_M
    return {
        "name": panel.name,
        "type": "SENSOR_PAD",
        "fast_axis": _floats(panel.fast),
        "slow_axis": _floats(panel.slow),
        "origin": _floats(panel.origin * _MM_PER_M),
        "raw_image_offset": [0, 0],
        "image_size": [int(number) for number in panel.shape],
        "pixel_size": [pixel, pixel],
        "trusted_range": [0.0, 1e9],
        "thickness": 0.0,
        "material": "",
        "mu": 0.0,
        "identifier": "",
        "mask": [],
        "gain": 1.0,
        "pedestal": 0.0,
        "px_mm_strategy": _SIMPLE,
    }


def _varying(name: str, values: np.ndarray | None) -> dict[str, Any]:
    """A model's numbers at every scan point, matrices by rows; nothing where they do not vary."""
    if values is None:
        return {}
    return {name: [_floats(point) for point in values]}


def _floats(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.asarray(values, dtype=np.float64).ravel()]
