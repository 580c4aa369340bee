"""Labels from people as artefacts: corrected labels taken in, and the queue of what is worth correcting."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task

from tasks.artefacts import OPTIONS, produce
from tasks.companions import checksum_of
from tasks.progress import say
from tasks.samples import LABELS
from tasks.volumes import VOLUME
from tomoforge.approvals import DECISIONS, Approvals, Decision, Verdict
from tomoforge.segmentation.annotation import (
    Candidate,
    QueueItem,
    import_labels,
    rank_candidates,
)
from tomoforge.segmentation.annotation_queue import write_queue
from tomoforge.segmentation.case_records import content_hash
from tomoforge.storage import Artefact, Workspace
from tomoforge.volumes import LABEL_NAMES, read_labels, write_labels

QUEUE_FOLDER = "annotation/queue"  # within the workspace


@dataclass(frozen=True)
class AnnotationQueue:
    """What is worth a person's time. folder : of the queue's files; items : the first of it; ranked : how many there
    are in all; decided : how many were left out because somebody approved or rejected their labels."""

    folder: Path
    items: tuple[QueueItem, ...]
    ranked: int
    decided: int


@task(name="import-labels", **OPTIONS)
def import_corrected_labels(
    workspace: Workspace, path: str | Path, volume: Artefact, *, who: str, check_orientation: bool = True
) -> Artefact:
    """Labels that a person corrected, checked against their volume: kind ``labels``."""
    path = Path(path)
    # Read before the artefact is begun: what is refused leaves nothing.
    labels, voxel_size = import_labels(
        path, workspace.path(volume) / VOLUME, check_orientation=check_orientation
    )
    return produce(
        workspace,
        "labels",
        "corrected-labels",
        parameters={"classes": LABEL_NAMES, "who": who},
        inputs={"volume": volume, "file": checksum_of(path)},
        packages=("segmentation",),
        build=lambda folder: write_labels(folder / LABELS, labels, voxel_size),
    )


def decide(
    workspace: Workspace, labels: Artefact, verdict: Verdict, *, who: str, reason: str = ""
) -> Decision:
    """Record what a person says of label volume ``labels``, under its key and the hash of its content."""
    checksum = content_hash(*read_labels(workspace.path(labels) / LABELS))
    return decisions(workspace).record(verdict, labels.key, checksum, who=who, reason=reason)


def decisions(workspace: Workspace) -> Approvals:
    """The decisions of this workspace."""
    return Approvals(workspace.root / DECISIONS)


@task(name="annotation-queue", **OPTIONS)
def build_annotation_queue(
    workspace: Workspace,
    candidates: Sequence[Candidate],
    fingerprint: Mapping[str, Any],
    *,
    decided: Collection[str] | None = None,
    most: int = 20,
) -> AnnotationQueue:
    """The queue in ``annotation/queue`` of the workspace, the first ``most`` of it; what was decided is left out.

    fingerprint : of the training data; decided : contents of labels, None takes those that were last approved or
    rejected; those that need correction stay in the queue until corrected ones have come
    """
    if decided is None:
        last = decisions(workspace).last()
        decided = {content for content, made in last.items() if made.verdict != "needs correction"}
    ranked = rank_candidates(candidates, fingerprint, decided=decided)
    folder = workspace.root / QUEUE_FOLDER
    write_queue(folder, ranked[:most])
    say(f"{len(ranked)} of {len(candidates)} volumes are worth a person's time")
    return AnnotationQueue(folder, tuple(ranked[:most]), len(ranked), len(candidates) - len(ranked))
