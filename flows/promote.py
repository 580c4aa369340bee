"""Compare a model with the champion on frozen cases; promote it if the gate lets it."""

from dataclasses import replace

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.report import FlowReport, where_results_lie
from tasks.cluster import Compute, open_compute
from tasks.promotions import publish_decisions
from tasks.registry import (
    CaseSet,
    Decision,
    GateSettings,
    SetScores,
    champion_of,
    deciding,
    find_model,
    frozen_cases,
    judge_model,
    register_model,
    score_model,
)
from tasks.segmenter import segment
from tomoforge.config import ClusterSettings
from tomoforge.errors import InputError
from tomoforge.storage import Artefact, Workspace


@flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
def promote(
    model: str,
    reason: str,
    by: str | None = None,
    holdout: str | None = None,
    regression: str | None = None,
    replace_sets: bool = False,
    gate: GateSettings = GateSettings(),
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport:
    """Compare a model with the champion on frozen cases, and promote it if the gate lets it.

    Args:
        model: Key of the model, as train_segmenter printed it.
        reason: Why, for the audit.
        by: Who decides, for the audit; the login name if not given.
        holdout: Key of the dataset that is the hold-out. The first time it is frozen; later it need not be given.
        regression: Key of the dataset of cases that must never get worse, likewise.
        replace_sets: Freeze the sets given here in the place of those that stand.
        gate: What the model must keep to.
        cluster: Where the work is done.
    """
    workspace, who = Workspace.default(), deciding(by)
    challenger = find_model(workspace, model)
    with open_compute(cluster) as compute:
        decision = compare_and_decide(
            compute, workspace, challenger, gate,
            holdout=holdout, regression=regression, replace_sets=replace_sets, by=who, reason=reason, by_hand=True,
        )  # fmt: skip
    published = {} if decision.published is None else {"promotion": decision.published}
    return FlowReport((*decision.lines, *where_results_lie(workspace)), published, {"model": challenger.key})


def compare_and_decide(
    compute: Compute,
    workspace: Workspace,
    challenger: Artefact,
    gate: GateSettings,
    *,
    holdout: str | None = None,
    regression: str | None = None,
    replace_sets: bool = False,
    by: str,
    reason: str,
    by_hand: bool,
) -> Decision:
    """Register a model, score it and the champion on the frozen sets, let the gate decide, and publish the decision.

    A model that is champion already stays it, without another row in the audit.
    """
    register_model(workspace, challenger)
    champion = champion_of(workspace)
    if champion is not None and champion.key == challenger.key:
        shown = publish_decisions(workspace, challenger.key)  # what a killed run did not come to
        return Decision(True, (f"{challenger.key} is the champion already",), shown)
    scores = []
    for name, dataset in (("holdout", holdout), ("regression", regression)):
        cases = frozen_cases(workspace, name, dataset=dataset, replace=replace_sets, by=by, reason=reason)
        if cases is not None:
            old = score(compute, workspace, cases, champion) if champion is not None else None
            scores.append(SetScores(cases, old, score(compute, workspace, cases, challenger)))
        elif name == "holdout":
            raise InputError(
                "holdout must be the key of a dataset the first time that a model is promoted, got None; take "
                "labelled volumes that nothing was trained on"
            )
    decision = judge_model(
        workspace, challenger, champion, scores, settings=gate, by=by, reason=reason, by_hand=by_hand
    )
    return replace(decision, published=publish_decisions(workspace, challenger.key))


def score(compute: Compute, workspace: Workspace, cases: CaseSet, model: Artefact) -> Artefact:
    """A model's scores on all cases of a set, segmented side by side."""
    name = f"{model.key[:14]}, {cases.name}"
    futures = [
        segment.submit(compute, workspace, model, case.volume, name=f"{name} {n}")
        for n, case in enumerate(cases.cases)
    ]
    return score_model(compute, workspace, cases, [future.result() for future in futures], name=name)
