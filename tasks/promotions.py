"""What became of models, for people: every promotion, refusal and rollback of the audit as a published result."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import pandas as pd
from prefect import task

from tasks.artefacts import OPTIONS
from tasks.publishing import publish_version, published_as
from tasks.registry import CONFUSION, SCORES, labelled_cases, open_registry
from tasks.samples import LABELS
from tasks.volumes import VOLUME
from tomoforge.results import Picture, Table
from tomoforge.segmentation.audit import AuditRow
from tomoforge.segmentation.evaluation import (
    Bootstrap,
    case_differences,
    mean_scores,
    paired_differences,
    worst_cases,
)
from tomoforge.segmentation.gate import HOLDOUT
from tomoforge.segmentation.pictures import case_picture, confusion_picture
from tomoforge.segmentation.registry import CHAMPION
from tomoforge.storage import Artefact, Workspace
from tomoforge.volumes import open_level, read_voxel_size

KIND = "promotions"
_WORDS = {"promote": "promoted", "refuse": "refused", "rollback": "rolled back"}
_AUDIT_ROWS, _WORST, _PICTURES = 20, 5, 2
_AUDIT_COLUMNS = ["moment", "who", "action", "subject", "before", "after", "reason"]


@dataclass(frozen=True)
class _Scored:
    """What the challenger of a decision did on the hold-out, as far as it still lies in the workspace.

    cases : name → volume, true labels, predicted labels
    """

    scores: pd.DataFrame
    confusion: pd.DataFrame | None
    cases: Mapping[str, tuple[Artefact, Artefact, Artefact]]


@task(name="publish-decisions", **OPTIONS)
def publish_decisions(workspace: Workspace, model: str) -> str | None:
    """Publish every decision of the audit that is not published yet; the identifier of the last one on ``model``.

    So a run that was killed after a decision loses none: the next one publishes it.
    """
    rows = open_registry(workspace).audit()
    last = None
    for n, row in enumerate(rows):
        if row.subject != CHAMPION or row.action not in _WORDS:
            continue
        identifier = published_as(workspace, KIND, _key(row))
        if identifier is None:
            publish = publish_rollback if row.action == "rollback" else publish_decision
            identifier = publish(workspace, row, rows[: n + 1])
        last = identifier if row.after == model else last
    return last


def publish_decision(workspace: Workspace, row: AuditRow, audit: Sequence[AuditRow]) -> str:
    """One promotion or refusal: the comparison that it rests on, and where the challenger is worst.

    audit : all rows up to this one.
    """
    evidence = row.evidence
    gate = pd.DataFrame(evidence.get("table", []))
    scored = _scored(workspace, row, audit)
    tables = {} if gate.empty else {"gate": Table(gate, _GATE_CAPTION.format(_confidence(evidence)))}
    tables |= _compared(workspace, evidence)
    pictures: dict[str, Picture] = {}
    if scored is not None:
        tables["challenger"] = Table(
            mean_scores(scored.scores), "The challenger on the hold-out: means over its cases with intervals."
        )
        worst = worst_cases(scored.scores, _WORST)
        tables["worst_cases"] = Table(worst, "Hold-out: where the challenger is worst, by mean IoU.")
        pictures |= dict(_pictures(workspace, scored, worst))
    refused = row.action == "refuse"
    reasons = tuple(evidence.get("reasons", ())) or ((row.reason,) if refused else ())
    return publish_version(
        workspace,
        KIND,
        _key(row),
        title=f"{_WORDS[row.action].capitalize()} {row.after}",
        summary={
            **_who(row),
            **_ious(gate),
            "new_real_cases": evidence.get("new_cases"),
            "by_hand": bool(evidence.get("by_hand", False)),
            **({} if refused else {"reason": row.reason, "grounds": "; ".join(reasons) or None}),
        },
        pictures=pictures,
        tables={**tables, "audit": _audit_table(audit)},
        warnings=reasons if refused else (),
        sources=_models(workspace, row),
        provenance={"audit": asdict(row)},
    )


def _compared(workspace: Workspace, evidence: Mapping[str, Any]) -> dict[str, Table]:
    """Champion and challenger in every measure and in every case, as far as their scores still lie there."""
    rules = evidence.get("rules", {})
    known = {name: rules[name] for name in ("confidence", "resamples", "seed") if name in rules}
    bootstrap = Bootstrap(**known)
    tables: dict[str, Table] = {}
    means: list[pd.DataFrame] = []
    cases: list[pd.DataFrame] = []
    for name, keys in evidence.get("scores", {}).items():
        old, new = (_scores_table(workspace, keys.get(role)) for role in ("champion", "challenger"))
        if old is None or new is None:
            continue
        if name == HOLDOUT:
            tables["champion"] = Table(
                mean_scores(old, bootstrap),
                "The champion on the hold-out: means over its cases with intervals.",
            )
        for found, part in (
            (means, paired_differences(new, old, bootstrap)),
            (cases, case_differences(new, old)),
        ):
            part.insert(0, "set", name)
            found.append(part)
    if means:
        tables["differences"] = Table(
            pd.concat(means, ignore_index=True),
            "Challenger less champion, mean over the cases of each set with its interval; surface distances in µm.",
        )
        tables["case_differences"] = Table(
            pd.concat(cases, ignore_index=True),
            "Challenger less champion in every case and class; surface distances in µm.",
        )
    return tables


def _scores_table(workspace: Workspace, key: str | None) -> pd.DataFrame | None:
    found = workspace.find("models", key) if key is not None else None
    return pd.read_parquet(workspace.path(found) / SCORES) if found is not None else None


def publish_rollback(workspace: Workspace, row: AuditRow, audit: Sequence[AuditRow]) -> str:
    """One rollback. audit : all rows up to this one."""
    return publish_version(
        workspace,
        KIND,
        _key(row),
        title=f"Rolled back to {row.after}",
        summary={**_who(row), "reason": row.reason},
        tables={"audit": _audit_table(audit)},
        warnings=[f"{row.before} is champion no more: {row.reason}"],
        sources=_models(workspace, row),
        provenance={"audit": asdict(row)},
    )


_GATE_CAPTION = (
    "IoU of champion and challenger, mean over the cases of each set; the difference with its {} interval "
    "over cases."
)


def _confidence(evidence: Mapping[str, Any]) -> str:
    share = evidence.get("rules", {}).get("confidence")
    return "bootstrap" if share is None else f"{share:.0%} bootstrap"


def _key(row: AuditRow) -> str:
    # Not the number alone: a registry that was begun anew counts from one again.
    return f"decision-{row.sequence:05d}-{sha256(f'{row.moment} {row.after}'.encode()).hexdigest()[:6]}"


def _who(row: AuditRow) -> dict[str, Any]:
    return {
        "decision": _WORDS[row.action],
        "model": row.after,
        "champion_before": row.before or "nobody",
        "decided_by": row.who,
        "decided_at": row.moment,
    }


def _ious(gate: pd.DataFrame) -> dict[str, Any]:
    """IoU of each class on the hold-out, of both models."""
    found = {}
    for line in gate[gate["set"] == HOLDOUT].to_dict("records") if not gate.empty else ():
        found[f"iou_{line['class']}_champion"] = line["champion"]
        found[f"iou_{line['class']}_challenger"] = line["challenger"]
    return found


def _audit_table(audit: Sequence[AuditRow]) -> Table:
    rows = [{name: getattr(row, name) for name in _AUDIT_COLUMNS} for row in reversed(audit[-_AUDIT_ROWS:])]
    return Table(
        pd.DataFrame(rows, columns=_AUDIT_COLUMNS),
        "The registry's audit up to this decision, newest first: who moved what from where to where.",
    )


def _models(workspace: Workspace, row: AuditRow) -> dict[str, str]:
    """The published models of a decision, as far as there are."""
    found = {
        role: published_as(workspace, "models", key)
        for role, key in (("model", row.after), ("model_before", row.before))
        if key is not None
    }
    return {role: identifier for role, identifier in found.items() if identifier is not None}


def _scored(workspace: Workspace, row: AuditRow, audit: Sequence[AuditRow]) -> _Scored | None:
    key = row.evidence.get("scores", {}).get(HOLDOUT, {}).get("challenger")
    scores = workspace.find("models", key) if key is not None else None
    if scores is None:
        return None
    folder = workspace.path(scores)
    confusion = folder / CONFUSION
    return _Scored(
        pd.read_parquet(folder / SCORES),
        pd.read_parquet(confusion) if confusion.is_file() else None,
        _cases(workspace, scores, row.evidence.get("datasets", {}).get(HOLDOUT)),
    )


def _cases(
    workspace: Workspace, scores: Artefact, dataset: str | None
) -> dict[str, tuple[Artefact, Artefact, Artefact]]:
    data = workspace.find("datasets", dataset) if dataset is not None else None
    if data is None:
        return {}
    known = {case.name: case for case in labelled_cases(workspace, data, trust_records=True)}
    inputs, found = workspace.read_provenance(scores)["inputs"], {}
    for role, name in inputs.items():
        if role.startswith("case_") and name in known:
            predicted = Artefact(**inputs[role.replace("case_", "labels_")])
            parts = (known[name].volume, known[name].labels, predicted)
            if all(workspace.find(part.kind, part.key) is not None for part in parts):
                found[name] = parts
    return found


def _pictures(workspace: Workspace, scored: _Scored, worst: pd.DataFrame) -> Iterator[tuple[str, Picture]]:
    if scored.confusion is not None:
        yield (
            "confusion",
            Picture(
                confusion_picture(scored.confusion, "challenger on the hold-out"),
                "Which true class the challenger took for which, over all voxels of the hold-out.",
            ),
        )
    shown = worst[worst["case"].isin(list(scored.cases))][:_PICTURES]
    for n, line in enumerate(shown.to_dict("records"), start=1):
        volume, truth, predicted = (workspace.path(part) for part in scored.cases[line["case"]])
        title = f"case {line['case']}: mean IoU {line['score']:.3f}, {line['worst_class']} {line['worst_score']:.3f}"
        drawn = case_picture(
            open_level(volume / VOLUME),
            open_level(truth / LABELS),
            open_level(predicted / LABELS),
            read_voxel_size(volume / VOLUME),
            title,
        )
        yield (
            f"worst_case_{n}",
            Picture(drawn, "Where the challenger has most voxels wrong in one of its worst cases."),
        )
