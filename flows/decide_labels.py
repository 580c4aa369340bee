"""Approve labels for training, reject them, or have them corrected, on the record."""

from typing import Literal

from prefect import flow

from flows.report import FlowReport, where_results_lie
from tasks.annotation import decide
from tasks.labelled_volumes import find_labels
from tasks.registry import deciding
from tomoforge.storage import Workspace


@flow
def decide_labels(
    labels: str,
    verdict: Literal["approved", "rejected", "needs correction"],
    reason: str = "",
    by: str | None = None,
) -> FlowReport:
    """Approve labels for training, reject them, or ask for correction; the record is only ever added to.

    Args:
        labels: Key of the labels, predicted or a person's.
        verdict: Approved, to be learned from; rejected, never to be; or needs correction, not until it is corrected.
        reason: Why; a rejection needs one.
        by: Who decides; the login name if not given.
    """
    workspace = Workspace.default()
    made = decide(
        workspace,
        find_labels(workspace, labels),
        verdict,
        who=deciding(by),
        reason=reason,
    )
    lines = (f"{made.verdict}  {labels}", f"record    {made.sha256[:12]}", *where_results_lie(workspace))
    return FlowReport(lines, {}, {"labels": labels})
