"""Train the segmenter on a dataset of the workspace."""

from typing import Annotated

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.report import FlowReport, where_results_lie
from tasks.artefacts import find_by_key
from tasks.cluster import open_compute
from tasks.cross_validation import folds_of_dataset, publish_cross_validation
from tasks.publishing import publish_model
from tasks.registry import register_model
from tasks.segmenter import cross_validate, train
from tomoforge.config import ClusterSettings, OpticsSettings, Seed, TrainingSchedule
from tomoforge.errors import ConfigError
from tomoforge.storage import Artefact, Workspace


@flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
def train_segmenter(
    dataset: str,
    seed: Seed = 1,
    training: TrainingSchedule = TrainingSchedule(),
    optics: OpticsSettings = OpticsSettings(),
    folds: Annotated[int, Field(ge=2, le=20)] | None = None,
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport:
    """Train nnU-Net on a dataset that forge_dataset made.

    Args:
        dataset: Key of the dataset, as forge_dataset printed it.
        seed: Of the training; the same seed gives the same weights.
        training: How long and how large.
        optics: The physics of the dataset, recorded with the model to tell later what it knows.
        folds: Train so many models side by side on the workers instead, each scored on the cases it has not seen; five
            are usual. segment_scan takes the key of the cross-validation as its model and averages them.
        cluster: Where the work is done.
    """
    workspace = Workspace.default()
    found = find_by_key(workspace, "datasets", dataset, "dataset")
    if folds is not None:
        return _cross_validated(workspace, found, folds, seed, training, optics, cluster)
    with open_compute(cluster) as compute:
        model = train(compute, workspace, found, schedule=training, optics=optics, seed=seed)
        register_model(workspace, model)
        shown = publish_model(workspace, model)
    lines = (f"model  {model.key}", *where_results_lie(workspace))
    return FlowReport(lines, {"model": shown}, {"model": model.key})


def _cross_validated(
    workspace: Workspace,
    dataset: Artefact,
    folds: int,
    seed: int,
    training: TrainingSchedule,
    optics: OpticsSettings,
    cluster: ClusterSettings,
) -> FlowReport:
    if training.preset == "nightly":
        raise ConfigError(
            "preset nightly goes on from a trained model, which has seen the cases that a fold would hold back; take "
            "preset quick or crystalseg with folds"
        )
    cases, splits = folds_of_dataset(workspace, dataset, folds)
    with open_compute(cluster) as compute:
        crossed = cross_validate(
            compute, workspace, dataset, cases, splits=splits, schedule=training, optics=optics, seed=seed
        )
        shown = publish_cross_validation(workspace, crossed)
    lines = (f"cross-validation  {crossed.key}", *where_results_lie(workspace))
    return FlowReport(lines, {"model": shown}, {"model": crossed.key})
