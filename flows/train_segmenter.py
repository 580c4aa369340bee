"""Train the segmenter on a dataset of the workspace."""

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.report import FlowReport, where_results_lie
from tasks.cluster import open_compute
from tasks.publishing import publish_model
from tasks.segmenter import train
from tomoforge.config import ClusterSettings, OpticsSettings, Seed, TrainingSchedule
from tomoforge.errors import InputError
from tomoforge.storage import Workspace


@flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
def train_segmenter(
    dataset: str,
    seed: Seed = 1,
    training: TrainingSchedule = TrainingSchedule(),
    optics: OpticsSettings = OpticsSettings(),
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport:
    """Train nnU-Net on a dataset that forge_dataset made.

    Args:
        dataset: Key of the dataset, as forge_dataset printed it.
        seed: Of the training; the same seed gives the same weights.
        training: How long and how large.
        optics: The physics of the dataset, recorded with the model to tell later what it knows.
        cluster: Where the work is done.
    """
    workspace = Workspace.default()
    found = workspace.find("datasets", dataset) if "/" not in dataset else None
    if found is None:
        known = sorted(p.name for p in workspace.folder("datasets").glob("dataset-*"))
        raise InputError(
            f"dataset must be the key of a dataset in {workspace.root}, got {dataset!r}; "
            f"there are: {', '.join(known) or 'none, run forge_dataset first'}"
        )
    with open_compute(cluster) as compute:
        model = train(compute, workspace, found, schedule=training, optics=optics, seed=seed)
        shown = publish_model(workspace, model)
    lines = (f"model  {model.key}", *where_results_lie(workspace))
    return FlowReport(lines, {"model": shown}, {"model": model.key})
