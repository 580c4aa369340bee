"""Take entries out of the inbox once their copies in the workspace are verified."""

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.report import FlowReport
from tasks.pruning import prune
from tomoforge.config import NotNegative
from tomoforge.storage import Workspace


@flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
def prune_inbox(
    inbox: str | None = None, older_than_days: NotNegative = 30.0, dry_run: bool = True
) -> FlowReport:
    """Remove entries of the inbox whose copies in the workspace equal them, byte for byte of the counts.

    Args:
        inbox: Folder that scans are dropped into; the workspace's own if not given.
        older_than_days: Only entries that have not changed for so long [days].
        dry_run: Say what would be removed, and remove nothing.
    """
    workspace = Workspace.default()
    lines = prune(workspace, inbox, older_than_days=older_than_days, dry_run=dry_run)
    return FlowReport(tuple(lines), {}, {})
