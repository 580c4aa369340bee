"""Make the champion before this one champion again."""

from prefect import flow

from flows.report import FlowReport, where_results_lie
from tasks.promotions import publish_decisions
from tasks.registry import deciding, roll_back
from tomoforge.storage import Workspace


@flow
def rollback(reason: str, by: str | None = None, to: str | None = None) -> FlowReport:
    """Make the champion before this one champion again.

    Args:
        reason: Why, for the audit.
        by: Who decides, for the audit; the login name if not given.
        to: Key of an earlier champion; the one just before if not given.
    """
    workspace = Workspace.default()
    row = roll_back(workspace, by=deciding(by), reason=reason, to=to)
    shown = publish_decisions(workspace, str(row.after))
    lines = (f"champion   {row.after}", f"before     {row.before}", *where_results_lie(workspace))
    return FlowReport(lines, {} if shown is None else {"promotion": shown}, {"model": str(row.after)})
