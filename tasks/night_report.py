"""What became of a night: published for people, recorded for good, and the watermark moved."""

import datetime
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pandas as pd
from prefect import task

from tasks.artefacts import OPTIONS
from tasks.nights import Clock, book_of
from tasks.publishing import publish_version
from tomoforge.results import Table
from tomoforge.segmentation.audit import AuditRow
from tomoforge.segmentation.nights import NightPlan, after_night
from tomoforge.storage import Workspace

KIND = "nights"
Ending = Literal["promoted", "refused", "skipped", "failed"]
_TITLES: Mapping[str, str] = {
    "promoted": "a new champion",
    "refused": "the champion stays",
    "skipped": "too little to train on",
    "failed": "failed",
}


@dataclass(frozen=True)
class NightEnd:
    """What became of a night. decision : row of the registry's audit; dataset, version, model : keys of what was made;
    sources : role → identifier of what is published of it."""

    outcome: Ending
    reason: str
    dataset: str | None = None
    version: str | None = None
    model: str | None = None
    decision: AuditRow | None = None
    sources: Mapping[str, str] = field(default_factory=dict)


def judged(row: AuditRow | None, said: str) -> tuple[Ending, str]:
    """How a night ended by its decision; without one, a person had promoted its model before (``said``)."""
    if row is None:
        return "promoted", said
    reasons = row.evidence.get("reasons") or [row.reason]
    return ("promoted" if row.action == "promote" else "refused"), "; ".join(reasons)


@task(name="publish-night", **OPTIONS)
def publish_night(workspace: Workspace, plan: NightPlan, end: NightEnd) -> str:
    """A night: what was new, what was quarantined and why, how champion and challenger compare: kind ``nights``."""
    considered = [{"labels": labels, **_row(asdict(entry))} for labels, entry in plan.considered.items()]
    cases = pd.DataFrame(considered, columns=["labels", "volume", "source", "outcome", "reason"])
    if end.outcome == "failed":
        cases.loc[cases["outcome"] == "trained", "outcome"] = "failed"
    quarantined = cases[cases["outcome"] == "quarantined"]
    tables = {
        "cases": Table(cases, "Every labelled volume that the night considered, and what became of it.")
    }
    compared = end.decision.evidence.get("table") if end.decision is not None else None
    if compared:
        tables["decision"] = Table(
            pd.DataFrame(compared),
            "IoU of champion and challenger over the frozen cases, their difference and its interval.",
        )
    warnings = [f"{row['labels']} are quarantined: {row['reason']}" for row in quarantined.to_dict("records")]
    if end.outcome == "failed":
        warnings.insert(0, f"the night failed: {end.reason}")
    return publish_version(
        workspace,
        KIND,
        plan.name,
        title=f"Night {plan.number}: {_TITLES[end.outcome]}",
        summary={
            "outcome": end.outcome,
            "began": plan.began,
            "new_cases": len(plan.cases),
            "approved_cases": sum(case.source == "pseudo" for case in plan.cases),
            "quarantined": len(quarantined),
            "champion_before": plan.champion or "",
            "model": end.model or "",
            "dataset": end.dataset or "",
            "matched_to": plan.scan or "",
            "reason": end.reason,
        },
        tables=tables,
        warnings=[*warnings, *plan.warnings],
        sources=end.sources,
        provenance={
            "settings": dict(plan.settings),
            "version": end.version or "",
            "parent": plan.parent or "",
        },
    )


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("volume", "source", "outcome", "reason")}


def end_night(workspace: Workspace, plan: NightPlan, end: NightEnd, published: str, *, now: Clock) -> None:
    """Record a night for good, move the watermark and close the plan; published is its identifier."""
    about = {name: value for name, value in asdict(plan).items() if name not in ("cases", "considered")}
    record = {
        **asdict(end),
        "published": published,
        "ended": now().astimezone(datetime.UTC).isoformat(timespec="seconds"),
        "plan": about,
        "cases": [case.content for case in plan.cases],
        "considered": {labels: asdict(entry) for labels, entry in plan.considered.items()},
    }
    _close(workspace, plan, record)


def close_ended(workspace: Workspace, plan: NightPlan) -> dict[str, Any] | None:
    """Close the plan of a night that was killed after its record was written; the record, or None if there is none."""
    record = book_of(workspace).record(plan)
    if record is not None:
        _close(workspace, plan, record)
    return record


def _close(workspace: Workspace, plan: NightPlan, record: Mapping[str, Any]) -> None:
    book, failed = book_of(workspace), record["outcome"] == "failed"
    moved = after_night(
        book.watermark(),
        plan,
        version=None if failed else record["version"],
        dataset=None if failed else record["dataset"],
        failed=record["reason"] if failed else "",
    )
    book.end(plan, record, moved)
