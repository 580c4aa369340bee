"""Retrain the segmenter on what is new: look → forge → train → compare → publish, each night once.

A call first finishes the night that an earlier one left open, and leaves newer data to the next call. Otherwise it
looks for new labelled volumes, which takes seconds, and ends there if there are too few. What decides a night is
written down before any work (``<workspace>/nights/plan.json``), so that whoever finishes it finds the finished stages
by their keys and the decision in the registry's audit.

A night that ends with an error stays open and is tried again by the next call, as one that was killed is; begun
``most_starts`` times, or stopped by wrong input, which stays wrong, it is closed as failed. Its new cases are then set
aside, so that later nights go on without them, until a call with ``retry_failed``.
"""

import datetime
from typing import Annotated

from prefect import flow
from prefect.states import Completed, State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.forge_dataset import Grid, Samples, forge
from flows.promote import compare_and_decide
from flows.report import FlowReport, where_results_lie
from tasks.cluster import Compute, open_compute
from tasks.label_uploads import take_uploads
from tasks.night_report import NightEnd, close_ended, end_night, judged, publish_night
from tasks.nights import (
    BY,
    Clock,
    NightPlan,
    NightSettings,
    begin_night,
    book_of,
    build_night_dataset,
    decision_on,
    look_for_new,
    no_ground,
    settings_of,
    version_of,
    voxel_size_um_of,
    why,
)
from tasks.progress import say
from tasks.promotions import publish_decisions
from tasks.publishing import publish_model
from tasks.registry import GateSettings, find_model
from tasks.segmenter import train
from tomoforge.config import (
    ClusterSettings,
    ForgingSettings,
    OpticsSettings,
    ReconstructionSettings,
    Seed,
    TrainingSchedule,
)
from tomoforge.errors import InputError
from tomoforge.storage import Workspace

AtLeastOne = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]


def clock() -> datetime.datetime:
    """Now, in UTC."""
    return datetime.datetime.now(datetime.UTC)


@flow(task_runner=ThreadPoolTaskRunner(max_workers=32))
def nightly_retrain(
    new_cases: AtLeastOne = 2,
    samples: Samples = 6,
    seed: Seed = 1,
    grid: Grid = 128,
    kept_forged: NotNegative = 30,
    most_starts: AtLeastOne = 5,
    retry_failed: bool = False,
    forging: ForgingSettings = ForgingSettings(),
    optics: OpticsSettings = OpticsSettings(),
    reconstruction: ReconstructionSettings = ReconstructionSettings(),
    training: TrainingSchedule = TrainingSchedule(preset="nightly"),
    gate: GateSettings = GateSettings(),
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport | State[FlowReport]:
    """Retrain the champion on new labelled volumes and let the gate decide; skip where there is nothing new.

    An open night is finished first, by the settings that it was begun with.

    Args:
        new_cases: New labelled volumes of measured scans that a night needs.
        samples: How many samples to forge, matched to the newest scan among the new volumes.
        seed: Of all nights; each night draws its own from it.
        grid: Voxels along each side of a forged sample; more or fewer where the scan's pixel shows no whole sample.
        kept_forged: How many forged cases of earlier nights stay in the dataset.
        most_starts: How often one night is begun, after errors or kills, before it is closed as failed.
        retry_failed: Take the new volumes of failed nights up again.
        forging: What may be drawn into the forged samples.
        optics: How they are scanned; energy, distance, angles, noise and photons are the newest scan's.
        reconstruction: How forged scans are reconstructed; as the real ones are.
        training: How long and how large; the preset nightly goes on with the champion's network.
        gate: What the new model must keep to.
        cluster: Where the work is done.
    """
    settings = NightSettings(
        new_cases=new_cases, samples=samples, seed=seed, grid=grid, kept_forged=kept_forged,
        most_starts=most_starts, retry_failed=retry_failed, forging=forging, optics=optics,
        reconstruction=reconstruction, training=training, gate=gate,
    )  # fmt: skip
    return one_night(Workspace.default(), settings, cluster, now=clock)


def one_night(
    workspace: Workspace, settings: NightSettings, cluster: ClusterSettings, *, now: Clock
) -> FlowReport | State[FlowReport]:
    """Finish the open night, or begin one if there is enough for it; now : the clock."""
    book = book_of(workspace)
    with book.held() as alone:
        if not alone:
            return _skipped("another night is at work on this workspace")
        plan = book.open_plan()
        if plan is not None:
            say(f"{plan.name} was begun {plan.starts} times and has no end: going on with it")
            if (ended := close_ended(workspace, plan)) is not None:
                return _report(workspace, plan, f"{ended['outcome']}: {ended['reason']}", ended["published"])
            plan = book.begin(plan)
        else:
            if (why_not := no_ground(workspace)) is not None:
                return _skipped(why_not)
            take_uploads(workspace)
            waiting = look_for_new(workspace, retry_failed=settings.retry_failed)
            if (why_not := waiting.lacking(settings.new_cases)) is not None:
                return _skipped(why_not)
            plan = begin_night(workspace, waiting, settings, now=now)
        return finish(workspace, plan, cluster, now=now)


def finish(
    workspace: Workspace, plan: NightPlan, cluster: ClusterSettings, *, now: Clock
) -> FlowReport | State[FlowReport]:
    """Carry a night out to its end."""
    if not plan.cases:
        if plan.considered:
            end = NightEnd("skipped", plan.reason)
            end_night(workspace, plan, end, publish_night(workspace, plan, end), now=now)
        return _skipped(plan.reason)
    try:
        if plan.starts > settings_of(workspace, plan).most_starts:
            raise InputError(f"{plan.name} was begun {plan.starts - 1} times and never came to an end")
        with open_compute(cluster) as compute:
            end = retrain(compute, workspace, plan)
    except InputError as error:
        end = NightEnd("failed", str(error))
        end_night(workspace, plan, end, publish_night(workspace, plan, end), now=now)
        raise
    shown = publish_night(workspace, plan, end)
    end_night(workspace, plan, end, shown, now=now)
    return _report(workspace, plan, f"{end.outcome}: {end.reason}", shown, end)


def retrain(compute: Compute, workspace: Workspace, plan: NightPlan) -> NightEnd:
    """Forge, train on, compare and decide, each found again where an earlier call finished it."""
    settings, champion = settings_of(workspace, plan), find_model(workspace, str(plan.champion))
    forged = forge(
        compute, workspace, settings.samples, settings.seed, settings.grid, voxel_size_um_of(workspace, plan),
        settings.forging, settings.optics, settings.reconstruction,
    )  # fmt: skip
    dataset = build_night_dataset(workspace, plan, forged.volumes, forged.labels)
    model = train(
        compute, workspace, dataset,
        schedule=settings.training, optics=settings.optics, seed=settings.seed, start_from=champion,
    )  # fmt: skip
    sources = {"model": publish_model(workspace, model)}
    said, row = "", decision_on(workspace, plan, model.key)
    if row is None:
        decision = compare_and_decide(
            compute, workspace, model, settings.gate, by=BY, reason=why(plan), by_hand=False
        )
        said, row = decision.lines[0], decision_on(workspace, plan, model.key)
    shown = publish_decisions(workspace, model.key)  # also what a killed run did not come to
    if shown is not None:
        sources["promotion"] = shown
    outcome, reason = judged(row, said)
    version = version_of(workspace, dataset)
    return NightEnd(outcome, reason, dataset.key, version, model.key, row, sources)


def _report(
    workspace: Workspace, plan: NightPlan, said: str, shown: str, end: NightEnd | None = None
) -> FlowReport:
    lines = (f"{plan.name}  {said}", *where_results_lie(workspace))
    made = {"dataset": end.dataset, "model": end.model} if end is not None else {}
    return FlowReport(lines, {"night": shown}, {role: key for role, key in made.items() if key is not None})


def _skipped(why: str) -> State[FlowReport]:
    return Completed(name="Skipped", message=why, data=FlowReport((f"skipped: {why}",), {}, {}))
