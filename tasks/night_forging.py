"""Forging matched to a real scan: its pixel, energy, distance and angles, and what its flats and darks say."""

from typing import Any

import numpy as np

from tasks.night_labels import recorded_of
from tasks.quick_looks import open_scan
from tasks.scans import SCAN, detected_light
from tomoforge.config import OpticsSettings, parse_settings
from tomoforge.errors import InputError
from tomoforge.storage import Workspace
from tomoforge.units import rad_to_deg, um_to_m

_FIELD = (0.2e-3, 1.0e-3)  # [m] that suit a protein sample
_STEP, _GRIDS = 16, (32, 2048)  # voxels


def pixel_size_of(workspace: Workspace, scan: str) -> float:
    """Pixel of a real scan at the sample [m]."""
    recorded = recorded_of(workspace, "scans", scan)
    if recorded is None:
        raise InputError(f"the scan {scan} of the new labels must be in the workspace; import it again")
    return um_to_m(float(recorded["parameters"]["pixel_size_um"]))


def fitting_grid(grid: int, pixel_size: float) -> int:
    """``grid``, or as little more or less as brings the field of view between 0.2 and 1 mm. pixel_size [m]."""
    # Rounded: 0.2 mm over 6.25 µm is 32 voxels, not 33.
    least, most = (round(field / pixel_size / _STEP, 6) for field in _FIELD)
    fitting = min(max(grid, int(np.ceil(least)) * _STEP), int(np.floor(most)) * _STEP)
    return int(np.clip(fitting, *_GRIDS))


def matching_optics(
    workspace: Workspace, scan: str, optics: OpticsSettings, grid: int
) -> tuple[OpticsSettings, list[str]]:
    """The settings with the physics of a real scan, and warnings of what could not be taken from it.

    Its energy, distance, arc and projections a column of the detector, so that a forged volume of ``grid`` voxels has
    as many streaks; materials are drawn. ``detector_like`` is the key of the scan whose flats and darks say noise,
    patterns and photons (``calibrated`` makes it a path), None where they do not.
    """
    path = workspace.folder("scans") / scan / SCAN
    record = open_scan(path)
    count, _, columns = record.projections.shape
    turned = abs(float(record.angles[-1] - record.angles[0])) * count / max(count - 1, 1)
    found: dict[str, Any] = {
        "energy_kev": record.energy_kev,
        "projections": int(np.clip(round(count / columns * grid), 2, 20000)),
        "arc_deg": min(round(rad_to_deg(turned), 6), 360.0),
        "materials": "drawn",
        "detector_like": scan,
    }
    if record.propagation_distance is not None:
        found["distance_mm"] = 1e3 * record.propagation_distance
    matched = parse_settings(OpticsSettings, {**optics.model_dump(), **found})
    try:
        detected_light(calibrated(workspace, matched).model_dump_json())
    except InputError as error:
        alone = matched.model_copy(update={"detector_like": None})
        return alone, [f"forged scans have the detector of the settings, not of {scan}: {error}"]
    return matched, []


def calibrated(workspace: Workspace, optics: OpticsSettings) -> OpticsSettings:
    """The settings with the path that their scan has in this workspace: it may lie elsewhere than a plan saw it."""
    if optics.detector_like is None:
        return optics
    path = workspace.folder("scans") / optics.detector_like / SCAN
    return optics.model_copy(update={"detector_like": str(path)})
