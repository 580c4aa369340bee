"""What is worth annotating: the champion's segmentations of real scans that nobody has labelled, ranked and shown."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task

from tasks.annotation import AnnotationQueue
from tasks.artefacts import OPTIONS
from tasks.predictions import AS_USUAL, UNCERTAINTY
from tasks.publishing import publish_version, published_as
from tasks.registry import labelled_cases, open_registry
from tasks.samples import LABELS
from tasks.segmenter import model_folders
from tasks.volumes import VOLUME
from tomoforge.results import Picture, Table
from tomoforge.segmentation.annotation import Candidate, QueueItem
from tomoforge.segmentation.annotation_queue import EDITABLE, NAPARI, PICTURE, item_folder, queue_table
from tomoforge.segmentation.gate import HOLDOUT, REGRESSION
from tomoforge.segmentation.model import read_model
from tomoforge.storage import Artefact, Workspace

KIND = "annotation_queues"
_REAL_SCAN = "real-scan-"  # keys of imported scans; forged ones are called otherwise
_BY_PEOPLE = ("corrected-labels", "companion-labels")


@dataclass(frozen=True)
class Candidates:
    """What could be queued.

    ranked : volumes that the champion segmented; labelled : volumes of real scans that somebody has labelled, that
    train, or that are held out; unseen : keys of volumes of real scans that the champion has not segmented
    """

    ranked: tuple[Candidate, ...]
    labelled: int
    unseen: tuple[str, ...]


def annotation_candidates(workspace: Workspace, champion: Artefact) -> Candidates:
    """The volumes of real scans that are nobody's yet, with what the champion makes of them."""
    scans = {key: _scan(recorded) for key, recorded in _recorded(workspace, "volumes", "volume")}
    real = {volume: scan for volume, scan in scans.items() if scan.startswith(_REAL_SCAN)}
    labelled = _labelled_scans(workspace, champion, scans)
    free = [volume for volume, scan in real.items() if scan not in labelled]
    predicted = _segmentations(workspace, champion)
    ranked = []
    for volume in free:
        if volume in predicted:
            place, labels = (
                workspace.folder("volumes") / volume,
                workspace.folder("labels") / predicted[volume],
            )
            ranked.append(Candidate(volume, place / VOLUME, labels / LABELS, labels / UNCERTAINTY))
    return Candidates(
        tuple(ranked), len(real) - len(free), tuple(volume for volume in free if volume not in predicted)
    )


def training_fingerprint(workspace: Workspace, champion: Artefact) -> Mapping[str, Any]:
    """What the volumes looked like that a model was trained on."""
    return read_model(model_folders(workspace, champion)[0]).fingerprint


@task(name="publish-annotation-queue", **OPTIONS)
def publish_annotation_queue(
    workspace: Workspace, queue: AnnotationQueue, candidates: Candidates, champion: Artefact
) -> str:
    """The queue with its slices, and how each item is opened."""
    table = queue_table(queue.items)
    table["labels"] = [Path(item.candidate.labels).parent.name for item in queue.items]
    table["to_correct"] = [
        _within(workspace, queue.folder / item_folder(item) / EDITABLE) for item in queue.items
    ]
    table["opened_by"] = [_command(workspace, queue, item) for item in queue.items]
    unseen = len(candidates.unseen)
    count = f"{queue.ranked} volume{'s' if queue.ranked != 1 else ''}"
    model = published_as(workspace, "models", champion.key)
    return publish_version(
        workspace,
        KIND,
        "annotation-queue",
        title=f"What is worth annotating: {count}",
        summary={
            "queued": len(queue.items),
            "ranked": queue.ranked,
            "decided_already": queue.decided,
            "labelled_already": candidates.labelled,
            "not_segmented": unseen,
            "model": champion.key,
        },
        pictures={
            f"{item.position:02d}_{item.subject}": Picture(
                (queue.folder / item_folder(item) / PICTURE).read_bytes(),
                "Where the model is least sure: above its labels, below how unsure it is.",
            )
            for item in queue.items
        },
        tables={
            "queue": Table(
                table,
                "The most worthwhile first: by how unsure the model is and by how unlike its training data the volume "
                "is. Paths and commands are for the workspace's folder.",
            )
        },
        warnings=[
            f"{unseen} volume{'s' if unseen != 1 else ''} of real scans not ranked, for the champion has not segmented "
            f"{'them' if unseen != 1 else 'it'}: run segment_scan with volume {', '.join(candidates.unseen[:5])}"
            f"{', …' if unseen > 5 else ''}"
        ]
        if unseen
        else [],
        sources={} if model is None else {"model": model},
    )


def _recorded(workspace: Workspace, kind: str, stage: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and provenance of the finished artefacts of a stage."""
    for path in sorted(workspace.folder(kind).glob(f"{stage}-*")):
        found = workspace.find(kind, path.name)
        if found is not None and (recorded := workspace.read_provenance(found)).get("stage") == stage:
            yield found.key, recorded


def _scan(recorded: Mapping[str, Any]) -> str:
    scan = recorded["inputs"].get("scan")
    return str(scan["key"]) if isinstance(scan, Mapping) else ""


def _segmentations(workspace: Workspace, champion: Artefact) -> dict[str, str]:
    """Volume → the champion's segmentation of it that says how unsure it is; of several the one made as usual."""
    found: dict[str, tuple[bool, str]] = {}
    for key, recorded in _recorded(workspace, "labels", "segmentation"):
        model, volume = (recorded["inputs"].get(role) for role in ("model", "volume"))
        if not isinstance(volume, Mapping) or not isinstance(model, Mapping) or model["key"] != champion.key:
            continue
        if (workspace.folder("labels") / key / UNCERTAINTY).is_dir():
            rank = (recorded["parameters"] == AS_USUAL.key(), key)
            found[volume["key"]] = max(rank, found.get(volume["key"], rank))
    return {volume: key for volume, (_, key) in found.items()}


def _labelled_scans(workspace: Workspace, champion: Artefact, scans: Mapping[str, str]) -> set[str]:
    """Keys of the scans that the champion learned from, that it is tested on, or that somebody has labelled."""
    datasets = [workspace.read_provenance(champion)["inputs"]["dataset"]["key"]]
    registry = open_registry(workspace)
    datasets += [row.evidence["dataset"] for name in (HOLDOUT, REGRESSION) if (row := registry.frozen(name))]
    found = set()
    for key in datasets:
        dataset = workspace.find("datasets", key)
        if dataset is not None:
            cases = labelled_cases(workspace, dataset, trust_records=True)
            found |= {scans.get(case.volume.key, "") for case in cases}
    for stage in _BY_PEOPLE:
        for _, recorded in _recorded(workspace, "labels", stage):
            volume = recorded["inputs"].get("volume")
            found.add(scans.get(volume["key"], "") if isinstance(volume, Mapping) else _scan(recorded))
    return found


def _command(workspace: Workspace, queue: AnnotationQueue, item: QueueItem) -> str:
    images = (item.candidate.volume, item.candidate.uncertainty)
    paths = [*(Path(path) for path in images), queue.folder / item_folder(item) / EDITABLE]
    return " ".join([*NAPARI, *(_within(workspace, path) for path in paths)])


def _within(workspace: Workspace, path: Path) -> str:
    return str(path.relative_to(workspace.root))
