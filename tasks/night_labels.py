"""Which labelled volumes of measured scans a workspace holds, found in its records: no voxel is read.

Real labelled data come three ways: label volumes that lay beside a scan in the inbox, labels that people drew or
corrected, and predictions that somebody approved. Of one volume's labels corrected ones come first, then those from
the inbox, then predictions; the newest of a kind.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.annotation import decisions
from tasks.registry import open_registry
from tasks.samples import LABELS
from tasks.segmenter import DATASET
from tasks.volumes import VOLUME
from tomoforge.approvals import Decision
from tomoforge.errors import StorageError
from tomoforge.segmentation.case_records import CaseRecord
from tomoforge.segmentation.dataset import DATASET_NAME, read_dataset_record
from tomoforge.segmentation.gate import HOLDOUT, REGRESSION
from tomoforge.segmentation.nights import NightCase
from tomoforge.storage import PROVENANCE, Artefact, Workspace
from tomoforge.volumes import open_level, read_voxel_size

_REAL_SCAN = "real-scan-"  # keys of imported scans; forged ones are called otherwise
# Stage of a label artefact → its rank among the labels of one volume.
_RANKS = {"segmentation": 0, "companion-labels": 1, "corrected-labels": 2}


def labelled_volumes(workspace: Workspace) -> tuple[list[NightCase], int]:
    """All labels that may be learned from with their volumes, and how many wait for their scan's volume."""
    standing = {decision.subject: decision for decision in decisions(workspace).decisions()}
    volumes: dict[str, list[str]] | None = None
    found, unpaired = [], 0
    for key, stage, inputs in _label_artefacts(workspace):
        decision = standing.get(key)
        if decision.verdict != "approved" if decision is not None else stage == "segmentation":
            continue  # rejected, waiting to be corrected, or predicted and approved by nobody
        if "volume" in inputs:
            volume: str | None = inputs["volume"]["key"]
            scan = scan_of_volume(workspace, inputs["volume"]["key"])
        else:
            scan = inputs["scan"]["key"]
            volumes = volumes if volumes is not None else volumes_by_scan(workspace)
            made = volumes.get(scan, [])
            # Where none fits, the newest: reading the pair says what is wrong with the labels.
            volume = fitting_volume(workspace, key, made) or _newest(workspace, made)
        if not scan.startswith(_REAL_SCAN):
            continue
        if volume is None:
            unpaired += 1
            continue
        found.append(_case(workspace, key, stage, volume, scan, decision))
    return found, unpaired


def _case(
    workspace: Workspace, labels: str, stage: str, volume: str, scan: str, decision: Decision | None
) -> NightCase:
    return NightCase(
        labels,
        volume,
        scan,
        "pseudo" if stage == "segmentation" else "real",
        approval=decision.sha256 if decision is not None else None,
        checksum=decision.checksum if decision is not None else None,
        rank=_RANKS[stage],
        made=made_at(workspace, "labels", labels),
    )


def rejected_contents(workspace: Workspace) -> set[str]:
    """Contents of labels that are not to be learned from: the last decision rejected them or wants them corrected."""
    last = decisions(workspace).last()
    return {checksum for checksum, decision in last.items() if decision.verdict != "approved"}


def _label_artefacts(workspace: Workspace) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Key, stage and inputs of the labels that could be learned from."""
    for stage in _RANKS:
        for path in sorted(workspace.folder("labels").glob(f"{stage}-*/{PROVENANCE}")):
            recorded = recorded_of(workspace, "labels", path.parent.name)
            if recorded is not None and recorded["stage"] == stage:
                yield path.parent.name, stage, recorded["inputs"]


def recorded_of(workspace: Workspace, kind: str, key: str) -> dict[str, Any] | None:
    """The provenance of an artefact, None where it is gone or garbled."""
    try:
        return json.loads((workspace.folder(kind) / key / PROVENANCE).read_text())
    except (FileNotFoundError, ValueError):
        return None


def made_at(workspace: Workspace, kind: str, key: str) -> float:
    """When an artefact was finished [s]; 0 where it is gone."""
    try:
        return (workspace.folder(kind) / key / PROVENANCE).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def scan_of_volume(workspace: Workspace, volume: str) -> str:
    """Key of the scan that a volume was reconstructed from, empty if not known."""
    recorded = recorded_of(workspace, "volumes", volume)
    scan = recorded["inputs"].get("scan") if recorded is not None else None
    return str(scan["key"]) if isinstance(scan, Mapping) else ""


def volumes_by_scan(workspace: Workspace) -> dict[str, list[str]]:
    """Key of a scan → keys of the volumes that were reconstructed of it."""
    found: dict[str, list[str]] = {}
    for path in sorted(workspace.folder("volumes").glob(f"volume-*/{PROVENANCE}")):
        found.setdefault(scan_of_volume(workspace, path.parent.name), []).append(path.parent.name)
    return found


def fitting_volume(workspace: Workspace, labels: str, volumes: Sequence[str]) -> str | None:
    """The newest of a scan's volumes on the grid of the labels, None where none fits."""
    newest = sorted(volumes, key=lambda key: (made_at(workspace, "volumes", key), key), reverse=True)
    grid = _grid(workspace.folder("labels") / labels / LABELS)
    fitting = (key for key in newest if _grid(workspace.folder("volumes") / key / VOLUME) == grid)
    return next(fitting, None)


def _newest(workspace: Workspace, volumes: Sequence[str]) -> str | None:
    return max(volumes, key=lambda key: (made_at(workspace, "volumes", key), key), default=None)


def _grid(path: Path) -> tuple[tuple[int, ...], str] | None:
    """Shape and voxel size, to a part in 10⁴ as pairs are compared, None where it cannot be read."""
    try:
        return open_level(path).shape, f"{read_voxel_size(path):.4g}"
    except StorageError:
        return None


# --- data sets ------------------------------------------------------------------------------------------


def frozen_records(workspace: Workspace) -> list[CaseRecord]:
    """The cases of the gate's sets: those of the regression set must be unseen as well."""
    registry = open_registry(workspace)
    rows = [row for name in (HOLDOUT, REGRESSION) if (row := registry.frozen(name)) is not None]
    return [record for row in rows for record in dataset_records(workspace, row.evidence["dataset"])]


def dataset_of_model(workspace: Workspace, model: str) -> str:
    """Key of the data set that a model was trained on. Raises StorageError where the model is gone."""
    recorded = recorded_of(workspace, "models", model)
    if recorded is None or "dataset" not in recorded["inputs"]:
        raise StorageError(
            f"the model {model} is not in the workspace {workspace.root}; restore it from a copy"
        )
    return str(recorded["inputs"]["dataset"]["key"])


def dataset_records(workspace: Workspace, key: str) -> list[CaseRecord]:
    """The cases of a data set of the workspace, wherever that lies by now."""
    folder = workspace.folder("datasets") / key / DATASET
    found = []
    for stored in read_dataset_record(folder)["cases"]:
        record = CaseRecord.from_dict(stored)
        if {"volume", "labels"} <= set(record.origin):
            found.append(placed(workspace, record))
        else:
            volume, labels = (str(folder / DATASET_NAME / part) for part in (record.volume, record.labels))
            found.append(replace(record, volume=volume, labels=labels))
    return found


def placed(workspace: Workspace, record: CaseRecord) -> CaseRecord:
    """The record with the paths that its artefacts have in this workspace."""
    volume, labels = paths_of(workspace, record.origin["volume"], record.origin["labels"])
    return replace(record, volume=str(volume), labels=str(labels))


def paths_of(workspace: Workspace, volume: str, labels: str) -> tuple[Path, Path]:
    """Where the voxels of a volume and of labels lie, by the keys of their artefacts."""
    return workspace.root / "volumes" / volume / VOLUME, workspace.root / "labels" / labels / LABELS


def lost(workspace: Workspace, record: CaseRecord) -> str:
    """Why a case of an earlier data set cannot be used any more; empty if it can."""
    for kind, part in (("volumes", "volume"), ("labels", "labels")):
        try:
            artefact_of(workspace, kind, str(record.origin.get(part, "(unknown)")))
        except StorageError as error:
            return str(error)
    return ""


def artefact_of(workspace: Workspace, kind: str, key: str) -> Artefact:
    """An artefact that a record names. Raises StorageError where it is gone or damaged."""
    found = workspace.find(kind, key)
    if found is None:
        raise StorageError(f"{key} is not in {kind} of the workspace {workspace.root} any more")
    return found
