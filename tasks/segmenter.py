"""The segmenter: dataset from volumes and labels, training, prediction."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from prefect import task

from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.progress import StageProgress, follow, report_to
from tasks.samples import LABELS
from tasks.volumes import VOLUME
from tomoforge.config import OpticsSettings, TrainingSchedule
from tomoforge.segmentation.dataset import TrainingCase, write_dataset
from tomoforge.segmentation.postprocess import largest_components
from tomoforge.segmentation.predict import predict_volume
from tomoforge.segmentation.settings import TrainingSettings
from tomoforge.segmentation.trainer import train_segmenter
from tomoforge.storage import Artefact, Workspace
from tomoforge.volumes import LABEL_NAMES, read_volume, write_labels

DATASET = "dataset"
MODEL = "model"
WORK = "work"
_TIMEOUT_S = 24 * 3600.0


@task(name="build-dataset", **OPTIONS)
def build_dataset(workspace: Workspace, volumes: Sequence[Artefact], labels: Sequence[Artefact]) -> Artefact:
    """nnU-Net dataset of forged volumes with their labels: kind ``datasets``."""

    def build(folder: Path) -> None:
        cases = [
            TrainingCase(f"forged_{n:04d}", workspace.path(v) / VOLUME, workspace.path(truth) / LABELS)
            for n, (v, truth) in enumerate(zip(volumes, labels, strict=True))
        ]
        write_dataset(folder / DATASET, cases, LABEL_NAMES)

    inputs: Mapping[str, Artefact] = {
        **{f"volume_{n}": volume for n, volume in enumerate(volumes)},
        **{f"labels_{n}": truth for n, truth in enumerate(labels)},
    }
    return produce(
        workspace,
        "datasets",
        "dataset",
        parameters={"classes": LABEL_NAMES},
        inputs=inputs,
        packages=("segmentation",),
        build=build,
    )


@task(name="train", **OPTIONS)
def train(
    compute: Compute,
    workspace: Workspace,
    dataset: Artefact,
    *,
    schedule: TrainingSchedule,
    optics: OpticsSettings,
    seed: int,
) -> Artefact:
    """A segmenter trained on a dataset; an interrupted training goes on at its last epoch: kind ``models``."""
    source = str(workspace.path(dataset) / DATASET)

    def build(folder: Path) -> None:
        bar = StageProgress("training: epochs")
        with follow(folder / "progress.json", bar):
            compute.run(
                _train_piece,
                source,
                schedule.model_dump_json(),
                {"energy_kev": optics.energy_kev},
                seed,
                str(folder),
                timeout_s=_TIMEOUT_S,
            )
        shutil.rmtree(folder / WORK)  # checkpoints and preprocessed slices: the exported model is whole

    return produce(
        workspace,
        "models",
        "model",
        parameters={"schedule": schedule.model_dump(), "seed": seed, "energy_kev": optics.energy_kev},
        inputs={"dataset": dataset},
        packages=("segmentation",),
        build=build,
        resumable=True,
    )


def _train_piece(dataset: str, schedule_json: str, extra: dict[str, float], seed: int, folder: str) -> None:
    schedule = TrainingSchedule.model_validate_json(schedule_json)
    settings = TrainingSettings(
        epochs=schedule.epochs,
        iterations_per_epoch=schedule.iterations,
        validation_iterations=2,
        batch_size=schedule.batch_size,
        patch_size=(schedule.patch, schedule.patch),
        features=schedule.features,
        stages=schedule.stages,
        optimizer="adamw",
        learning_rate=schedule.learning_rate,
        foreground_fraction=0.5,
        augmentation="mirror",
        threads=schedule.threads,
        seed=seed,
    )
    report = report_to(Path(folder) / "progress.json")
    train_segmenter(
        dataset,
        Path(folder) / WORK,
        Path(folder) / MODEL,
        settings,
        extra=extra,
        timeout_s=_TIMEOUT_S,
        progress=lambda state: report(state.epoch, state.epochs),
    )


@task(name="segment", **OPTIONS)
def segment(
    compute: Compute, workspace: Workspace, model: Artefact, volume: Artefact, *, name: str
) -> Artefact:
    """Labels that a model predicts for a volume, largest component a class: kind ``labels``."""
    source = str(workspace.path(volume) / VOLUME)
    segmenter = str(workspace.path(model) / MODEL)

    def build(folder: Path) -> None:
        bar = StageProgress(f"{name}: slices segmented")
        with follow(folder / "progress.json", bar):
            compute.run(_segment_piece, segmenter, source, str(folder), timeout_s=_TIMEOUT_S)

    return produce(
        workspace,
        "labels",
        "segmentation",
        parameters={"post": "largest component a class"},
        inputs={"model": model, "volume": volume},
        packages=("segmentation",),
        build=build,
    )


def _segment_piece(model: str, volume_path: str, folder: str) -> None:
    volume, voxel_size = read_volume(volume_path)
    predicted = predict_volume(
        volume,
        voxel_size,
        Path(model),
        timeout_s=_TIMEOUT_S,
        progress=report_to(Path(folder) / "progress.json"),
    )
    write_labels(Path(folder) / LABELS, largest_components(predicted).astype(np.uint8), voxel_size)
