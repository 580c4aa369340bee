"""Train on real cases, on synthetic ones and on both, and compare the three on real cases that none has seen."""

from typing import Annotated

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.report import FlowReport, where_results_lie
from tasks.artefacts import find_by_key
from tasks.cluster import Compute, open_compute
from tasks.registry import register_model
from tasks.segmenter import DATASET
from tasks.training_sources import (
    ComparisonPlan,
    Trained,
    arm_dataset,
    gather_baselines,
    gather_scores,
    plan_comparison,
    publish_comparison,
    score_baselines,
    segment_and_score,
    train_arm,
)
from tomoforge.config import ClusterSettings, Seed, TrainingSchedule
from tomoforge.storage import Artefact, Workspace

Seeds = Annotated[int, Field(ge=1, le=100)]


@flow(task_runner=ThreadPoolTaskRunner(max_workers=16))
def compare_training_sources(
    dataset: str,
    holdout: str | None = None,
    seeds: Seeds = 3,
    seed: Seed = 1,
    training: TrainingSchedule = TrainingSchedule(),
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport:
    """Compare segmenters trained on real cases, on synthetic ones and on both, all by the same settings.

    Args:
        dataset: Key of a dataset of real and forged cases, as gather_dataset printed it.
        holdout: Key of a dataset of real cases that nothing trains on. If not given, the registry's frozen hold-out;
            without one each real case is held back once.
        seeds: Trainings of each kind, with seeds that follow each other.
        seed: The first of them.
        training: How long and how large each training is; all have as many iterations.
        cluster: Where the work is done.
    """
    workspace = Workspace.default()
    found = find_by_key(workspace, "datasets", dataset, "dataset", part=DATASET)
    tested = None
    if holdout is not None:
        tested = find_by_key(workspace, "datasets", holdout, "holdout", part=DATASET)
    plan = plan_comparison(workspace, found, tested)
    with open_compute(cluster) as compute:
        models = train_arms(compute, workspace, plan, range(seed, seed + seeds), training)
        trained = score_arms(compute, workspace, plan, models)
        baselines = [score_baselines(compute, workspace, plan, number=n) for n in range(len(plan.rounds))]
        shown = publish_comparison(
            workspace,
            plan,
            trained,
            gather_scores(workspace, trained),
            gather_baselines(workspace, baselines),
            dataset=found,
            schedule=training,
        )
    models_by_role = {f"{i.arm}, seed {i.seed}, round {i.round}": i.model.key for i in trained}
    return FlowReport(
        (*shown.lines, *where_results_lie(workspace)), {"comparison": shown.identifier}, models_by_role
    )


def train_arms(
    compute: Compute,
    workspace: Workspace,
    plan: ComparisonPlan,
    seeds: range,
    training: TrainingSchedule,
) -> dict[tuple[str, int, int], Artefact]:
    """(arm, seed, round) → model, all side by side and registered; what rounds share is trained once."""
    datasets = {
        (arm, n): arm_dataset(workspace, plan, names)
        for n, item in enumerate(plan.rounds)
        for arm, names in item.arms.items()
    }
    futures = {}
    for (arm, number), data in datasets.items():
        for seed in seeds:
            if (data.key, seed) not in futures:
                futures[data.key, seed] = train_arm.submit(
                    compute,
                    workspace,
                    data,
                    schedule=training,
                    seed=seed,
                    name=f"{arm}, seed {seed}, round {number}",
                )
    for future in futures.values():
        register_model(workspace, future.result())
    return {
        (arm, seed, number): futures[data.key, seed].result()
        for (arm, number), data in datasets.items()
        for seed in seeds
    }


def score_arms(
    compute: Compute,
    workspace: Workspace,
    plan: ComparisonPlan,
    models: dict[tuple[str, int, int], Artefact],
) -> list[Trained]:
    """Every model on the test cases of its round, side by side."""
    futures = {
        key: segment_and_score.submit(
            compute, workspace, model, plan.test_cases(key[2]), name=f"{key[0]}, seed {key[1]}"
        )
        for key, model in models.items()
    }
    return [Trained(*key, models[key], future.result()) for key, future in futures.items()]
