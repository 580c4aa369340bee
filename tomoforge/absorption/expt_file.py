"""DIALS experiment files (.expt) without DIALS: what absorption needs of beam, goniometer, scan and crystal.

The file is JSON, an ``ExperimentList``: lists of models, and experiments that name them by index. Detector, profile
and scaling models and image paths are not read, and no other file is opened. Angles are in degrees in the file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gemmi
import numpy as np

from tomoforge.absorption.goniometer import (
    Beam,
    Crystal,
    Experiment,
    Goniometer,
    Sweep,
    multi_axis_goniometer,
    rotation_matrix,
    unit_vector,
)
from tomoforge.errors import InputError
from tomoforge.units import ANGSTROM

_MOST_BYTES = 1 << 30
_IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)


def read_experiment(path: str | Path, which: int | str | None = None) -> Experiment:
    """Read one experiment of a DIALS experiment file.

    Parameters
    ----------
    which : index or identifier; may be left out where the file holds one experiment

    Raises
    ------
    InputError
        as read_experiments, and where ``which`` is needed or names none.
    """
    experiments = read_experiments(path)
    names = ", ".join(f"{i} ({e.identifier or 'no identifier'})" for i, e in enumerate(experiments))
    if which is None:
        if len(experiments) > 1:
            raise InputError(f"{path} holds {len(experiments)} experiments, which must choose one: {names}")
        return experiments[0]
    for index, experiment in enumerate(experiments):
        if which == index or (isinstance(which, str) and which and which == experiment.identifier):
            return experiment
    raise InputError(f"{path} has no experiment {which!r}; it holds {names}")


def read_experiments(path: str | Path) -> tuple[Experiment, ...]:
    """Read all experiments of a DIALS experiment file, in its order.

    Raises
    ------
    InputError
        for a file that is missing, no JSON or no experiment list; for experiments without beam, goniometer or scan
        (stills, image lists); for models that are no rotations, lengths or numbers.
    """
    source = Path(path)
    document = _document(source)
    experiments = document.get("experiment")
    if not isinstance(experiments, list) or not experiments:
        raise InputError(f"{source} holds no experiment; was it written before images were imported?")
    return tuple(
        _experiment(document, entry, f"{source}: experiment {i}") for i, entry in enumerate(experiments)
    )


def _document(path: Path) -> Mapping[str, Any]:
    def refuse(constant: str) -> Any:
        raise InputError(f"{path} holds {constant}, which is no number; the model is damaged")

    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} has more than {_MOST_BYTES} bytes; is it an experiment file?")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        document = json.loads(content.decode("utf-8"), parse_constant=refuse)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({error}); is it an .expt file, and whole?") from error
    if not isinstance(document, dict) or document.get("__id__") != "ExperimentList":
        raise InputError(f"{path} is no DIALS experiment list ('__id__' must be 'ExperimentList')")
    return document


def _experiment(document: Mapping[str, Any], entry: Any, name: str) -> Experiment:
    if not isinstance(entry, dict):
        raise InputError(f"{name} must be a map of models, got {entry!r}")
    identifier = entry.get("identifier") or ""
    found = {kind: _model(document, entry, kind, name) for kind in ("beam", "goniometer", "scan", "crystal")}
    remedy = "absorption needs a sweep about an axis, not stills"
    for kind in ("beam", "goniometer", "scan"):
        if found[kind] is None:
            raise InputError(f"{name} has no {kind} model; {remedy}")
    try:
        return Experiment(
            _beam(found["beam"]),
            _goniometer(found["goniometer"]),
            _sweep(found["scan"]),
            None if found["crystal"] is None else _crystal(found["crystal"]),
            str(identifier),
        )
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _model(document: Mapping[str, Any], entry: Mapping[str, Any], kind: str, name: str) -> Any:
    index = entry.get(kind)
    if index is None:
        return None
    models = document.get(kind)
    if isinstance(index, bool) or not isinstance(index, int) or not isinstance(models, list):
        raise InputError(
            f"{name} names its {kind} by {index!r}, expected an index into the file's list of {kind}s"
        )
    if not 0 <= index < len(models):
        raise InputError(f"{name} names {kind} {index}, the file has {len(models)}")
    if models[index] is not None and not isinstance(models[index], dict):
        raise InputError(f"{name}: {kind} {index} must be a map, got {type(models[index]).__name__}")
    return models[index]


def _beam(model: Mapping[str, Any]) -> Beam:
    if model.get("__id__", "monochromatic") != "monochromatic":
        raise InputError(f"the beam is {model['__id__']}, one wavelength is needed")
    # The file's direction points from the sample to the source: against the way the beam travels.
    towards_source = unit_vector("beam direction", _numbers(model, "direction", (3,)))
    wavelength = float(_numbers(model, "wavelength", ()))
    drifting = _scan_points(model, "s0_at_scan_points", (3,))
    return Beam(-towards_source, wavelength * ANGSTROM, drifting)


def _goniometer(model: Mapping[str, Any]) -> Goniometer:
    drifting = _scan_points(model, "setting_rotation_at_scan_points", (9,))
    if drifting is not None:
        drifting = np.stack([rotation_matrix("setting_rotation_at_scan_points", m) for m in drifting])
    if {"axes", "angles", "scan_axis"} <= set(model):
        scan_axis = model["scan_axis"]
        if isinstance(scan_axis, bool) or not isinstance(scan_axis, int):
            raise InputError(f"goniometer scan_axis must be an index, got {scan_axis!r}")
        single = multi_axis_goniometer(
            _numbers(model, "axes", (None, 3)), np.radians(_numbers(model, "angles", (None,))), scan_axis
        )
        axis, fixed, setting = single.rotation_axis, single.fixed_rotation, single.setting_rotation
    else:
        axis = _numbers(model, "rotation_axis", (3,))
        fixed = _numbers({"fixed_rotation": _IDENTITY, **model}, "fixed_rotation", (9,))
        setting = _numbers({"setting_rotation": _IDENTITY, **model}, "setting_rotation", (9,))
    return Goniometer(axis, fixed, setting, drifting)


def _sweep(model: Mapping[str, Any]) -> Sweep:
    first, last = (int(v) for v in _numbers(model, "image_range", (2,)))
    if last < first:
        raise InputError(f"scan image_range must ascend, got {first} … {last}")
    start, width = _oscillation(model, last - first + 1)
    if width == 0:
        raise InputError("the scan does not turn (oscillation of 0°); absorption needs a sweep, not stills")
    return Sweep((first, last), float(np.radians(start)), float(np.radians(width)))


def _oscillation(model: Mapping[str, Any], n_images: int) -> tuple[float, float]:
    """Start and width in degrees, from ``properties`` (dxtbx since 2023) or from ``oscillation``."""
    if "properties" not in model:
        start, width = _numbers(model, "oscillation", (2,))
        return float(start), float(width)
    properties = model["properties"]
    if not isinstance(properties, dict) or "oscillation" not in properties:
        raise InputError("the scan's properties have no oscillation; absorption needs a sweep, not stills")
    angles = _numbers(properties, "oscillation", (None,))
    if n_images == 1 and len(angles) == 1:
        return float(angles[0]), float(_numbers(properties, "oscillation_width", (1,))[0])
    if len(angles) not in (n_images, 2):
        raise InputError(
            f"the scan's oscillation must have an angle for each of {n_images} images, got {len(angles)}"
        )
    steps = np.diff(angles)
    if np.abs(steps - steps[0]).max() > 0.01 * abs(steps[0]) + 1e-9:
        raise InputError("the scan's oscillation must advance evenly; split the sweep where it does not")
    return float(angles[0]), float(angles[-1] - angles[0]) / (len(angles) - 1)


def _crystal(model: Mapping[str, Any]) -> Crystal:
    rows = np.stack([_numbers(model, f"real_space_{axis}", (3,)) for axis in "abc"])
    if not np.linalg.det(rows) > 0:
        raise InputError(f"crystal axes must be right-handed and not in a plane, got {rows.tolist()}")
    varying = _scan_points(model, "A_at_scan_points", (9,))
    if varying is not None:
        varying = varying.reshape(-1, 3, 3)
    # Rows a, b, c: the inverse has a*, b*, c* as columns.
    return Crystal(np.linalg.inv(rows), _space_group(model), varying)


def _space_group(model: Mapping[str, Any]) -> str:
    hall = model.get("space_group_hall_symbol")
    try:
        group = gemmi.find_spacegroup_by_ops(gemmi.symops_from_hall(str(hall)))
    except (ValueError, RuntimeError) as error:
        raise InputError(f"space_group_hall_symbol {hall!r} is not understood ({error})") from error
    if group is None:
        raise InputError(
            f"space_group_hall_symbol {hall!r} is no space group in a known setting; reindex first"
        )
    return str(group.xhm())


def _scan_points(model: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> np.ndarray | None:
    return _numbers(model, key, (None, *shape)) if model.get(key) else None


def _numbers(model: Mapping[str, Any], key: str, shape: tuple[int | None, ...]) -> np.ndarray:
    if key not in model:
        raise InputError(f"{key} is missing")
    try:
        array = np.array(model[key], dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{key} must be numbers, got {str(model[key])[:80]}") from error
    fits = array.ndim == len(shape) and all(w in (None, n) for n, w in zip(array.shape, shape, strict=True))
    if not fits or array.size == 0 or not np.isfinite(array).all():
        wanted = " × ".join("n" if w is None else str(w) for w in shape) or "one"
        raise InputError(f"{key} must be {wanted} finite numbers, got {str(model[key])[:80]}")
    return array
