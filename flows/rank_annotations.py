"""What is worth annotating: rank the champion's segmentations of real scans, write and publish the queue."""

from typing import Annotated

from prefect import flow
from pydantic import Field

from flows.report import FlowReport, where_results_lie
from tasks.annotation import build_annotation_queue
from tasks.annotation_queue import annotation_candidates, publish_annotation_queue, training_fingerprint
from tasks.registry import champion_of
from tomoforge.errors import InputError
from tomoforge.storage import Workspace


@flow
def rank_annotations(most: Annotated[int, Field(ge=1, le=99)] = 20) -> FlowReport:
    """Rank what the champion made of real scans by what labelling it is worth, and show the queue.

    Args:
        most: Length of the queue.
    """
    workspace = Workspace.default()
    champion = champion_of(workspace)
    if champion is None:
        raise InputError("there must be a champion whose segmentations are ranked; promote makes one")
    candidates = annotation_candidates(workspace, champion)
    queue = build_annotation_queue(
        workspace, candidates.ranked, training_fingerprint(workspace, champion), most=most
    )
    shown = publish_annotation_queue(workspace, queue, candidates, champion)
    lines = [f"{item.position:2}  {item.subject}  priority {item.priority:.2f}" for item in queue.items]
    lines += [f"not segmented yet  {volume}" for volume in candidates.unseen]
    lines += ["", f"to correct  {queue.folder}", *where_results_lie(workspace)]
    return FlowReport(tuple(lines), {"annotation_queue": shown}, {"model": champion.key})
