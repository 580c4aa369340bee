"""Absorption factors of reflections through a label volume, and how the tomogram lies: kind ``corrections``."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from prefect import task

from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.progress import StageProgress, say
from tasks.reflections import FACTORS, REFLECTIONS, experiments_of, read_reflection_set
from tasks.samples import LABELS
from tomoforge.absorption.factors import absorption_factors
from tomoforge.absorption.illumination import BeamProfile
from tomoforge.absorption.orientation import (
    Orientation,
    anacor_orientation,
    orientation_from_axes,
    same_goniometer,
)
from tomoforge.absorption.orientation_search import find_orientation
from tomoforge.config import DiffractionSettings, TracingSettings
from tomoforge.errors import InputError
from tomoforge.storage import Artefact, Workspace, replacing, write_json_atomic
from tomoforge.units import deg_to_rad, um_to_m
from tomoforge.volumes import LABEL_NAMES, read_labels

ORIENTATION = "orientation.json"
# Reflections a future. It depends on their number alone, so that results do not depend on the number of workers: few
# are shared out, of many each piece is large enough for a table of directions to pay.
_FEW, _SMALL_CHUNK, _LARGE_CHUNK, _CHUNKS = 4000, 250, 10_000, 8
_TIMEOUT_S = 6 * 3600.0
# Settings that do not change the factors by one label volume with given µ.
_NOT_OF_ONE_VOLUME = {"mu_from", "mu_error_percent", "segmentation_draws", "segmentation_length_um"}
_log = logging.getLogger(__name__)


@task(name="absorption-factors", **OPTIONS)
def correct(
    compute: Compute,
    workspace: Workspace,
    labels: Artefact,
    reflections: Artefact,
    *,
    mu: Mapping[str, float],
    mu_error: Mapping[str, float],
    orientation: Orientation,
    tracing: TracingSettings,
    seed: int,
    name: str,
) -> Artefact:
    """A_h of every reflection; ``mu`` and its standard errors [1/m] by the labels' names; ``orientation`` leads from
    the reflections' frame to the tomogram's."""
    source, table = str(workspace.path(labels) / LABELS), str(workspace.path(reflections) / REFLECTIONS)
    count = len(read_reflection_set(workspace, reflections).table)
    chunk = _SMALL_CHUNK if count <= _FEW else max(_LARGE_CHUNK, math.ceil(count / _CHUNKS))
    by_label = {LABEL_NAMES[label]: value for label, value in mu.items()}
    errors_by_label = {LABEL_NAMES[label]: value for label, value in mu_error.items() if value > 0}

    def build(folder: Path) -> None:
        pieces = [
            (
                source,
                table,
                start,
                start + chunk,
                by_label,
                errors_by_label,
                orientation.matrix,
                tracing.model_dump_json(),
                seed,
            )
            for start in range(0, count, chunk)
        ]
        bar = StageProgress(f"{name}: reflections traced (in parts of {chunk})")
        parts = compute.map(_trace_piece, pieces, timeout_s=_TIMEOUT_S, progress=bar)
        with replacing(folder / FACTORS) as temporary:
            pd.concat(parts, ignore_index=True).to_parquet(temporary, index=False)

    return produce(
        workspace,
        "corrections",
        "factors",
        parameters={
            "mu": dict(mu),
            "mu_error": dict(mu_error),
            "orientation": orientation.matrix.tolist(),
            "tracing": tracing.model_dump(exclude=_NOT_OF_ONE_VOLUME),
            "seed": seed,
        },
        inputs={"labels": labels, "reflections": reflections},
        packages=("absorption",),
        build=build,
    )


def _trace_piece(
    labels_path: str,
    table_path: str,
    start: int,
    stop: int,
    mu: dict[int, float],
    mu_error: dict[int, float],
    orientation: np.ndarray,
    tracing_json: str,
    seed: int,
) -> pd.DataFrame:
    labels, voxel_size = read_labels(labels_path)
    tracing = TracingSettings.model_validate_json(tracing_json)
    rows = pd.read_parquet(table_path).iloc[start:stop]
    turn = Orientation(orientation)
    found = absorption_factors(
        labels,
        voxel_size,
        mu,
        turn.to_array(rows[["in_x", "in_y", "in_z"]].to_numpy()),
        turn.to_array(rows[["out_x", "out_y", "out_z"]].to_numpy()),
        target_error=tracing.target_error,
        mu_standard_error=mu_error or None,
        profile=beam_profile(tracing),
        surface=tracing.surface,
        seed=seed,
    )
    columns = {
        "row": rows["row"].to_numpy(),
        **{name: rows[name].to_numpy() for name in "hkl"},
        "rotation_deg": np.degrees(rows["angle_rad"].to_numpy()),
        "spacing_angstrom": rows["d_angstrom"].to_numpy() if "d_angstrom" in rows else np.nan,
        "absorption_factor": np.minimum(found.a, 1.0),  # a table's interpolation may end a hair above
        "standard_error": found.standard_error,
        "sampling_error": found.sampling_error,
        "mu_error": found.mu_error if found.mu_error is not None else np.nan,
    }
    if found.illuminated_fraction is not None:
        columns["illuminated_fraction"] = found.illuminated_fraction
    return pd.DataFrame(columns)


def beam_profile(tracing: TracingSettings) -> BeamProfile | None:
    """The beam of the settings, None where it is larger than the crystal."""
    if tracing.beam_height_um is None or tracing.beam_width_um is None:
        return None
    return BeamProfile("top_hat", um_to_m(tracing.beam_height_um), um_to_m(tracing.beam_width_um))


def read_factors(workspace: Workspace, factors: Artefact) -> pd.DataFrame:
    """The table of ``correct``."""
    return pd.read_parquet(workspace.path(factors) / FACTORS)


def holds_crystal(workspace: Workspace, labels: Artefact) -> bool:
    """Whether a label volume has any crystal to trace rays from; a poor model may find none."""
    return bool((read_labels(workspace.path(labels) / LABELS)[0] == LABEL_NAMES["crystal"]).any())


@task(name="settle-orientation", **OPTIONS)
def settle_orientation(
    compute: Compute,
    workspace: Workspace,
    labels: Artefact,
    reflections: Artefact,
    *,
    mu: Mapping[str, float],
    settings: DiffractionSettings,
    seed: int,
) -> Orientation:
    """How the tomogram lies in the laboratory of the reflections: as the settings name it, or searched for.

    Raises InputError where the names are no orientation, or where no candidate of a search stands out.
    """
    if read_reflection_set(workspace, reflections).twin:
        return Orientation(np.eye(3), "twin")
    experiment = experiments_of(workspace.path(reflections))[0]
    wanted = settings.orientation
    if wanted == "anacor":
        return anacor_orientation()
    if wanted not in ("goniometer", "search"):
        axes = wanted.split(",")
        if len(axes) != 3:
            raise InputError(
                "orientation must be goniometer, anacor, search, or the laboratory axes along array axes z, y, x such "
                f"as +x,+z,+y, got {wanted!r}"
            )
        z, y, x = axes
        return orientation_from_axes(z=z, y=y, x=x)
    sense = 1 if settings.rotation_sense == "same" else -1
    base = same_goniometer(experiment, deg_to_rad(settings.tomography_zero_deg), sense)
    if wanted == "goniometer":
        return base
    return _searched(compute, workspace, labels, reflections, mu, base, seed)


def _searched(
    compute: Compute,
    workspace: Workspace,
    labels: Artefact,
    reflections: Artefact,
    mu: Mapping[str, float],
    base: Orientation,
    seed: int,
) -> Orientation:
    source, folder_of = str(workspace.path(labels) / LABELS), str(workspace.path(reflections))
    space_group = read_reflection_set(workspace, reflections).space_group
    by_label = {LABEL_NAMES[label]: value for label, value in mu.items()}

    def build(folder: Path) -> None:
        found = compute.run(
            _search_piece, source, folder_of, by_label, base.matrix, space_group, seed, timeout_s=_TIMEOUT_S
        )
        write_json_atomic(folder / ORIENTATION, found)

    artefact = produce(
        workspace,
        "corrections",
        "orientation",
        parameters={"mu": dict(mu), "base": base.matrix.tolist(), "seed": seed},
        inputs={"labels": labels, "reflections": reflections},
        packages=("absorption",),
        build=build,
    )
    found = json.loads((workspace.path(artefact) / ORIENTATION).read_text())
    say(f"orientation {found['name']}: {found['significance']:.1f} standard errors ahead of the next")
    return Orientation(np.array(found["matrix"]), found["name"])


def _search_piece(
    labels_path: str,
    reflections_folder: str,
    mu: dict[int, float],
    base: np.ndarray,
    space_group: str,
    seed: int,
) -> dict[str, object]:
    labels, voxel_size = read_labels(labels_path)
    folder = Path(reflections_folder)
    table = pd.read_parquet(folder / REFLECTIONS)
    if "dataset" in table:
        table = table[table["dataset"] == table["dataset"].iloc[0]]
    found = find_orientation(
        labels,
        voxel_size,
        mu,
        table,
        experiments_of(folder)[0],
        space_group,
        base=Orientation(base, "same goniometer"),
        seed=seed,
    )
    return {
        "matrix": found.orientation.matrix.tolist(),
        "name": found.orientation.name,
        "significance": found.significance,
        "disagreement": found.disagreement.tolist(),
        "uncorrected": found.uncorrected,
    }
