"""What a flow hands back: lines for a person, and where the results lie."""

from dataclasses import dataclass

from tomoforge.storage import Workspace


@dataclass(frozen=True)
class FlowReport:
    """lines : printed at the end of a run; published : ids by kind; artefacts : keys by role."""

    lines: tuple[str, ...]
    published: dict[str, str]
    artefacts: dict[str, str]


def where_results_lie(workspace: Workspace) -> list[str]:
    """The two closing lines of every report."""
    return [f"results    {workspace.root / 'published'}", "dashboard  make dashboard"]
