"""Absorption factors of a rotation experiment through a label volume: kind ``corrections``."""

from pathlib import Path

import numpy as np
import pandas as pd
from prefect import task

from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.progress import StageProgress
from tasks.samples import LABELS
from tomoforge.absorption.factors import absorption_factors
from tomoforge.absorption.twin import Reflections, random_orientation, rotation_experiment
from tomoforge.config import RotationSettings
from tomoforge.errors import InputError
from tomoforge.storage import Artefact, Workspace, replacing
from tomoforge.units import ANGSTROM, deg_to_rad, kev_to_wavelength
from tomoforge.volumes import LABEL_NAMES, read_labels

FACTORS = "factors.parquet"
_CHUNK = 250  # reflections a future; fixed, so that results do not depend on the number of workers
_TIMEOUT_S = 3600.0


@task(name="absorption-factors", **OPTIONS)
def correct(
    compute: Compute,
    workspace: Workspace,
    labels: Artefact,
    *,
    mu: dict[str, float],
    energy_kev: float,
    rotation: RotationSettings,
    seed: int,
    name: str,
) -> Artefact:
    """A_h of every reflection of a synthetic rotation experiment; ``mu`` [1/m] by the labels' names."""
    source = str(workspace.path(labels) / LABELS)

    def build(folder: Path) -> None:
        reflections = experiment(rotation, energy_kev, seed)
        mu_by_label = {LABEL_NAMES[label]: value for label, value in mu.items()}
        pieces = [
            (
                source,
                mu_by_label,
                reflections.incoming[start : start + _CHUNK],
                reflections.outgoing[start : start + _CHUNK],
                rotation.target_error,
                seed,
            )
            for start in range(0, len(reflections), _CHUNK)
        ]
        bar = StageProgress(f"{name}: reflections traced (in parts of {_CHUNK})")
        parts = compute.map(_trace_piece, pieces, timeout_s=_TIMEOUT_S, progress=bar)
        factors, errors = (np.concatenate(column) for column in zip(*parts, strict=True))
        table = pd.DataFrame(
            {
                "h": reflections.hkl[:, 0],
                "k": reflections.hkl[:, 1],
                "l": reflections.hkl[:, 2],
                "rotation_deg": np.degrees(reflections.angle),
                "spacing_angstrom": reflections.spacing / ANGSTROM,
                "absorption_factor": factors,
                "standard_error": errors,
            }
        )
        with replacing(folder / FACTORS) as temporary:
            table.to_parquet(temporary, index=False)

    return produce(
        workspace,
        "corrections",
        "factors",
        parameters={"mu": mu, "energy_kev": energy_kev, "rotation": rotation.model_dump(), "seed": seed},
        inputs={"labels": labels},
        packages=("absorption",),
        build=build,
    )


def holds_crystal(workspace: Workspace, labels: Artefact) -> bool:
    """Whether a label volume has any crystal to trace rays from; a poor model may find none."""
    return bool((read_labels(workspace.path(labels) / LABELS)[0] == LABEL_NAMES["crystal"]).any())


def experiment(rotation: RotationSettings, energy_kev: float, seed: int) -> Reflections:
    """The reflections of the rotation experiment, thinned evenly over the rotation to the wanted number."""
    reflections = rotation_experiment(
        rotation.cell,
        rotation.space_group,
        random_orientation(seed),
        kev_to_wavelength(energy_kev),
        rotation.resolution_a * ANGSTROM,
        (0.0, deg_to_rad(rotation.rotation_range_deg)),
    )
    if len(reflections) == 0:
        raise InputError(
            f"no reflection is excited within {rotation.rotation_range_deg:g}° to "
            f"{rotation.resolution_a:g} Å; widen rotation_range_deg or lower resolution_a"
        )
    chosen = np.linspace(0, len(reflections) - 1, min(rotation.reflections, len(reflections)))
    return reflections.select(chosen.round().astype(int))


def _trace_piece(
    labels_path: str,
    mu: dict[int, float],
    incoming: np.ndarray,
    outgoing: np.ndarray,
    target_error: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    labels, voxel_size = read_labels(labels_path)
    result = absorption_factors(
        labels, voxel_size, mu, incoming, outgoing, target_error=target_error, seed=seed
    )
    return result.a, result.standard_error
