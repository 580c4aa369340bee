"""The twin's measured reflections as an integrated reflection table of DIALS."""

import numpy as np
import pandas as pd

from tomoforge.absorption.detector import Panel, ray_impacts
from tomoforge.absorption.goniometer import Experiment, incident_vectors
from tomoforge.absorption.observations import S1
from tomoforge.absorption.refl_file import ReflectionTable

# Predicted, integrated by summation and by profiles: dials::af::Flags.
_FLAGS = (1 << 0) | (1 << 8) | (1 << 9)
_HALF_SPOT_PX, _HALF_SPOT_IMAGES = 4, 2
_MM_PER_M = 1e3
TRUTH = "tomoforge."  # before the names of columns that no measurement would have


def integrated_table(
    table: pd.DataFrame, experiment: Experiment, panels: tuple[Panel, ...]
) -> ReflectionTable:
    """Observations of ``observe`` as DIALS has integrated reflections, row for row.

    Parameters
    ----------
    table : DataFrame of ``observe``, one sweep
    experiment : Experiment of the same sweep; its identifier goes into the table
    panels : which every s1 must meet

    Returns
    -------
    ReflectionTable with profile and summation intensities (equal but for the partiality), lp and qe of 1 because
    the twin's intensities are as after those corrections, positions on the panels, and the truth in columns
    ``tomoforge.true_intensity``, ``tomoforge.true_factor``, ``tomoforge.frame_scale``.

    Raises
    ------
    InputError
        for an s1 that meets no panel, values that are not finite.
    """
    count, angle = len(table), table["angle_rad"].to_numpy()
    s1, s0 = table[list(S1)].to_numpy(), incident_vectors(experiment, angle)
    panel, place = ray_impacts(panels, s1)
    pixel = place / np.array([one.pixel_size for one in panels])[panel, None]
    z = experiment.sweep.first_index + experiment.sweep.scan_points(angle)
    millimetres = np.column_stack([place * _MM_PER_M, angle])
    pixels = np.column_stack([pixel, z])
    axis = experiment.goniometer.setting_rotation @ experiment.goniometer.rotation_axis
    across = np.cross(s1, s0)
    part = table["partiality"].to_numpy()
    intensity, variance = table["intensity"].to_numpy(), table["sigma"].to_numpy() ** 2
    columns = {
        "miller_index": ("cctbx::miller::index<>", table[["h", "k", "l"]].to_numpy()),
        "id": ("int", np.zeros(count, dtype=np.int32)),
        "imageset_id": ("int", np.zeros(count, dtype=np.int32)),
        "panel": ("std::size_t", panel),
        "flags": ("std::size_t", np.full(count, _FLAGS)),
        "partial_id": ("std::size_t", np.arange(count)),
        "s1": ("vec3<double>", s1),
        "xyzcal.mm": ("vec3<double>", millimetres),
        "xyzcal.px": ("vec3<double>", pixels),
        "xyzobs.mm.value": ("vec3<double>", millimetres),
        "xyzobs.px.value": ("vec3<double>", pixels),
        "bbox": ("int6", _boxes(pixels, experiment)),
        # The spot enters the Ewald sphere where s1 · (e × s0) > 0.
        "entering": ("bool", np.sum(s1 * np.cross(axis, s0), axis=1) > 0),
        "zeta": ("double", across @ axis / np.linalg.norm(across, axis=1)),
        "d": ("double", table["d_angstrom"].to_numpy()),
        "lp": ("double", np.ones(count)),
        "qe": ("double", np.ones(count)),
        "partiality": ("double", part),
        "intensity.prf.value": ("double", intensity),
        "intensity.prf.variance": ("double", variance),
        "intensity.sum.value": ("double", intensity * part),
        "intensity.sum.variance": ("double", variance * part**2),
        **{
            f"{TRUTH}{name}": ("double", table[name].to_numpy())
            for name in ("true_intensity", "true_factor", "frame_scale")
        },
    }
    found = ReflectionTable(count, {}, {0: experiment.identifier})
    for name, (kind, values) in columns.items():
        found = found.with_column(name, kind, values)
    return found


def _boxes(pixels: np.ndarray, experiment: Experiment) -> np.ndarray:
    """Bounding boxes (n, 6) int32, first and past-the-last of x, y, z, within the sweep."""
    half = np.array([_HALF_SPOT_PX, _HALF_SPOT_PX, _HALF_SPOT_IMAGES])
    low, high = np.floor(pixels).astype(np.int32) - half, np.floor(pixels).astype(np.int32) + half + 1
    first = experiment.sweep.first_index
    last = first + experiment.sweep.n_images
    low[:, 2], high[:, 2] = np.clip(low[:, 2], first, last - 1), np.clip(high[:, 2], first + 1, last)
    return np.stack([low, high], axis=2).reshape(-1, 6)
