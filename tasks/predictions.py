"""Predictions of the segmenter: made, cleaned, judged; and the labels once more for other programs."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from prefect import task
from pydantic import Field

from tasks.artefacts import OPTIONS, find_by_key, produce
from tasks.cluster import Compute
from tasks.progress import StageProgress, report_to
from tasks.samples import LABELS
from tasks.volumes import VOLUME
from tomoforge.config import Settings
from tomoforge.exports import ExportFormat, export_volume
from tomoforge.segmentation.mesh import MeshFormat, surface_mesh, write_mesh
from tomoforge.segmentation.plausibility import Flag, is_mounted_crystal, judge_labels, label_statistics
from tomoforge.segmentation.postprocess import clean_labels
from tomoforge.segmentation.predict import SOFTMAX, UNCERTAINTY, predict_stored
from tomoforge.storage import Artefact, Workspace, write_json_atomic
from tomoforge.volumes import (
    SLAB,
    open_level,
    read_label_names,
    read_labels,
    read_voxel_size,
    write_labels,
)

__all__ = [
    "AS_USUAL",
    "PLAUSIBILITY",
    "SOFTMAX",
    "UNCERTAINTY",
    "PredictionSettings",
    "export_labels",
    "find_volume",
    "label_voxels",
    "mean_uncertainty",
    "mesh_labels",
    "predict_piece",
    "said_of",
    "scan_of",
]

PLAUSIBILITY = "plausibility.json"
_PREDICTED = "predicted"  # as the network left it, while the artefact is in the making
_TIMEOUT_S = 24 * 3600.0


class PredictionSettings(Settings):
    """How a trained model segments a volume."""

    mirroring: bool = Field(
        False,
        description="Average over mirror images: 4 times slower for a model of slices, 8 times for blocks.",
    )
    clean: bool = Field(True, description="Remove what no sample can have: debris, loops beside the loop.")
    softmax: bool = Field(False, description="Keep the probability of every class.")
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where the network runs.")

    def key(self) -> dict[str, Any]:
        """What decides the bytes."""
        return self.model_dump()


AS_USUAL = PredictionSettings()


def predict_piece(models: Sequence[str], volume: str, settings_json: str, folder: str) -> None:
    """Labels, uncertainty and what is implausible of a stored volume into ``folder``."""
    settings = PredictionSettings.model_validate_json(settings_json)
    place = Path(folder)
    found = predict_stored(
        volume,
        place / _PREDICTED,
        list(models),
        mirroring=settings.mirroring,
        softmax=settings.softmax,
        device=settings.device,
        timeout_s=_TIMEOUT_S,
        progress=report_to(place / "progress.json"),
    )
    labels, voxel_size = read_labels(found.labels)
    names = read_label_names(found.labels)
    if settings.clean:
        labels = clean_labels(labels, names)
    write_labels(place / LABELS, labels, voxel_size, names)
    found.uncertainty.rename(place / UNCERTAINTY)
    if settings.softmax:
        (place / _PREDICTED / SOFTMAX).rename(place / SOFTMAX)
    shutil.rmtree(place / _PREDICTED)
    write_json_atomic(place / PLAUSIBILITY, _judged(labels, voxel_size, names, place / UNCERTAINTY))


def _judged(labels: Any, voxel_size: float, names: dict[str, int], uncertainty: Path) -> dict[str, Any]:
    unsure = open_level(uncertainty)
    if not is_mounted_crystal(names):
        return {"flags": [], "statistics": None}
    counted = label_statistics(labels, voxel_size, names, uncertainty=unsure)
    return {"flags": [asdict(flag) for flag in judge_labels(counted)], "statistics": asdict(counted)}


def said_of(workspace: Workspace, labels: Artefact) -> list[str]:
    """What is implausible about predicted labels, a sentence each; none where nobody judged."""
    path = workspace.path(labels) / PLAUSIBILITY
    flags = json.loads(path.read_text())["flags"] if path.exists() else []
    return [str(Flag(**flag)) for flag in flags]


def mean_uncertainty(workspace: Workspace, labels: Artefact) -> float | None:
    """Mean uncertainty of the crystal's voxels, None where it is not known."""
    path = workspace.path(labels) / PLAUSIBILITY
    counted = json.loads(path.read_text())["statistics"] if path.exists() else None
    return counted["uncertainty"] if counted is not None else None


def label_voxels(workspace: Workspace, labels: Artefact) -> dict[str, int]:
    """Class → its voxels: as counted when the labels were judged, else counted slab by slab."""
    folder = workspace.path(labels)
    path = folder / PLAUSIBILITY
    counted = json.loads(path.read_text())["statistics"] if path.exists() else None
    if counted is not None:
        return counted["voxels"]
    stored, counts = open_level(folder / LABELS), np.zeros(256, dtype=np.int64)
    for start in range(0, stored.shape[0], SLAB):
        counts += np.bincount(np.asarray(stored[start : start + SLAB]).ravel(), minlength=counts.size)
    return {name: int(counts[value]) for name, value in read_label_names(folder / LABELS).items()}


def find_volume(workspace: Workspace, key: str) -> Artefact:
    """The volume of this key. Raises InputError with the keys there are."""
    return find_by_key(workspace, "volumes", key, "volume", part=VOLUME)


def scan_of(workspace: Workspace, volume: Artefact) -> Artefact | None:
    """The scan that a volume was reconstructed from, None if it is not in the workspace any more."""
    scan = workspace.read_provenance(volume)["inputs"].get("scan")
    if not isinstance(scan, dict):
        return None
    return workspace.find("scans", scan["key"])


@task(name="export-labels", **OPTIONS)
def export_labels(workspace: Workspace, labels: Artefact, *, format: ExportFormat, name: str) -> Artefact:
    """Labels once more, as TIFF slices or NRRD: kind ``labels``."""
    source = workspace.path(labels) / LABELS

    def build(folder: Path) -> None:
        bar = StageProgress(f"{name}: slices of labels exported")
        export_volume(source, folder, format, read_voxel_size(source), progress=bar)

    return produce(
        workspace,
        "labels",
        "label-export",
        parameters={"format": format, "layout": 1},
        inputs={"labels": labels},
        packages=("segmentation",),
        build=build,
    )


@task(name="mesh-labels", **OPTIONS)
def mesh_labels(
    compute: Compute, workspace: Workspace, labels: Artefact, *, format: MeshFormat, name: str
) -> Artefact:
    """The surface of every class that there is, in micrometres, a file each: kind ``labels``."""
    source = str(workspace.path(labels) / LABELS)

    def build(folder: Path) -> None:
        compute.run(_mesh_piece, source, format, str(folder), timeout_s=_TIMEOUT_S)

    return produce(
        workspace,
        "labels",
        "meshes",
        parameters={"format": format, "unit": "um"},
        inputs={"labels": labels},
        packages=("segmentation",),
        build=build,
    )


def _mesh_piece(source: str, format: MeshFormat, folder: str) -> None:
    labels, voxel_size = read_labels(source)
    for name, label in read_label_names(source).items():
        if label and (labels == label).any():
            write_mesh(Path(folder) / f"{name}.{format}", surface_mesh(labels, label, voxel_size), format)
