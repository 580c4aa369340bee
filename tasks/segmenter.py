"""The segmenter: dataset from volumes and labels, training, prediction."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task

from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.predictions import AS_USUAL, PredictionSettings, predict_piece
from tasks.progress import StageProgress, follow, report_to
from tasks.samples import LABELS
from tasks.volumes import VOLUME
from tomoforge.config import OpticsSettings, TrainingSchedule
from tomoforge.errors import ConfigError, InputError
from tomoforge.segmentation.case_records import BY_CONTENT, Source
from tomoforge.segmentation.cross_validation import FoldResult, join_folds, train_fold
from tomoforge.segmentation.dataset import TrainingCase, write_dataset
from tomoforge.segmentation.presets import preset
from tomoforge.segmentation.settings import TrainingSettings
from tomoforge.segmentation.splits import Holdout
from tomoforge.segmentation.trainer import Split, train_segmenter
from tomoforge.storage import Artefact, Workspace, write_bytes_atomic
from tomoforge.volumes import LABEL_NAMES

DATASET = "dataset"
MODEL = "model"
WORK = "work"
SCORES = "scores.csv"
_TIMEOUT_S = 24 * 3600.0


@task(name="build-dataset", **OPTIONS)
def build_dataset(
    workspace: Workspace,
    volumes: Sequence[Artefact],
    labels: Sequence[Artefact],
    *,
    sources: Sequence[Source] | None = None,
    groups: Sequence[str | None] | None = None,
    approvals: Mapping[str, str] | None = None,
    holdout: Holdout | None = None,
    folds: int | None = None,
) -> Artefact:
    """nnU-Net dataset of volumes with their labels, by reference: kind ``datasets``.

    sources : of each pair, None where all are forged; groups : of each pair, what must not be torn into training and
    validation, None for the volume alone; approvals : key of pseudo-labels → hash of the decision that approved
    them; holdout : frozen cases that must not be among them; folds : splits of a cross-validation, None for one.
    """
    pairs = list(zip(volumes, labels, strict=True))
    origins: Sequence[Source] = sources or ["forged"] * len(pairs)
    together: Sequence[str | None] = groups or [None] * len(pairs)
    about = list(zip(origins, together, strict=True))

    def build(folder: Path) -> None:
        cases = []
        for (volume, truth), (source, group) in zip(pairs, about, strict=True):
            origin = {"volume": volume.key, "labels": truth.key}
            if truth.key in (approvals or {}):
                origin["approval"] = (approvals or {})[truth.key]
            # Not resolved: paths in the dataset are relative within the workspace, wherever links lead.
            paths = (_within(workspace, volume) / VOLUME, _within(workspace, truth) / LABELS)
            cases.append(TrainingCase(BY_CONTENT, *paths, source=source, group=group, origin=origin))
        home = workspace.folder("datasets") / folder.name / DATASET
        write_dataset(folder / DATASET, cases, LABEL_NAMES, holdout=holdout, folds=folds, location=home)

    return produce(
        workspace,
        "datasets",
        "dataset",
        parameters={
            "classes": LABEL_NAMES,
            "cases": about,
            "approvals": dict(approvals or {}),
            "holdout": None if holdout is None else holdout.sha256,
            "folds": folds,
        },
        inputs={
            **{f"volume_{n}": volume for n, volume in enumerate(volumes)},
            **{f"labels_{n}": truth for n, truth in enumerate(labels)},
        },
        packages=("segmentation",),
        build=build,
    )


def _within(workspace: Workspace, artefact: Artefact) -> Path:
    workspace.path(artefact)  # raises where it is gone
    return workspace.root / artefact.path


@task(name="train", **OPTIONS)
def train(
    compute: Compute,
    workspace: Workspace,
    dataset: Artefact,
    *,
    schedule: TrainingSchedule,
    optics: OpticsSettings,
    seed: int,
    start_from: Artefact | None = None,
) -> Artefact:
    """A segmenter trained on a dataset; an interrupted training goes on at its last epoch: kind ``models``.

    start_from : the model that the preset ``nightly`` goes on from.
    """
    source = str(workspace.path(dataset) / DATASET)
    start = None if start_from is None else str(workspace.path(start_from) / MODEL)
    settings = training_settings(schedule, seed)
    if schedule.preset == "nightly" and start is None:
        raise ConfigError(
            "preset nightly goes on from a trained model, got none; give one, or take preset quick"
        )

    def build(folder: Path) -> None:
        bar = StageProgress("training: epochs")
        with follow(folder / "progress.json", bar):
            compute.run(
                _train_piece,
                source,
                settings.to_dict(),
                {"energy_kev": optics.energy_kev},
                start,
                str(folder),
                timeout_s=_TIMEOUT_S,
            )
        shutil.rmtree(folder / WORK)  # checkpoints and preprocessed slices: the exported model is whole

    return produce(
        workspace,
        "models",
        "model",
        parameters={"settings": settings.to_dict(), "energy_kev": optics.energy_kev},
        inputs={"dataset": dataset} | ({} if start_from is None else {"start_from": start_from}),
        packages=("segmentation",),
        build=build,
        resumable=True,
    )


@task(name="cross-validate", **OPTIONS)
def cross_validate(
    compute: Compute,
    workspace: Workspace,
    dataset: Artefact,
    cases: Sequence[TrainingCase],
    *,
    splits: Sequence[Split],
    schedule: TrainingSchedule,
    optics: OpticsSettings,
    seed: int,
) -> Artefact:
    """A model a split, trained side by side on the workers, and the scores of what each held back: kind ``models``.

    ``fold_<n>/model`` each, ``scores.csv`` a row a case and class. An interrupted run goes on where each fold stood.
    """
    source, settings = str(workspace.path(dataset) / DATASET), training_settings(schedule, seed)

    def build(folder: Path) -> None:
        pieces = [
            (source, str(folder), cases, settings.to_dict(), fold, splits, {"energy_kev": optics.energy_kev})
            for fold in range(len(splits))
        ]
        bar = StageProgress("cross-validation: folds")
        results = compute.map(_fold_piece, pieces, timeout_s=_TIMEOUT_S * len(splits), progress=bar)
        scores = join_folds(results).scores.to_csv(index=False, lineterminator="\n")
        for fold in range(len(splits)):
            shutil.rmtree(folder / f"fold_{fold}" / WORK)
        write_bytes_atomic(folder / SCORES, scores.encode())

    return produce(
        workspace,
        "models",
        "cross-validation",
        parameters={
            "settings": settings.to_dict(),
            "energy_kev": optics.energy_kev,
            "splits": [{side: list(names) for side, names in split.items()} for split in splits],
        },
        inputs={"dataset": dataset},
        packages=("segmentation",),
        build=build,
        resumable=True,
    )


def _fold_piece(
    dataset: str,
    folder: str,
    cases: Sequence[TrainingCase],
    settings: dict[str, Any],
    fold: int,
    splits: Sequence[Split],
    extra: dict[str, float],
) -> FoldResult:
    return train_fold(
        dataset,
        folder,
        cases,
        TrainingSettings.from_dict(settings),
        fold,
        splits=splits,
        extra=extra,
        timeout_s=_TIMEOUT_S,
    )


def training_settings(schedule: TrainingSchedule, seed: int) -> TrainingSettings:
    """The library's settings of a schedule. Raises ConfigError where its values do not fit each other."""
    renamed = {"iterations": "iterations_per_epoch"}
    given = schedule.model_dump(exclude={"preset", "configuration", "patch"}, exclude_none=True)
    changes = {renamed.get(name, name): value for name, value in given.items()}
    if schedule.patch is not None:
        axes = preset(schedule.preset, configuration=schedule.configuration).axes
        changes["patch_size"] = (schedule.patch,) * axes
    return preset(schedule.preset, configuration=schedule.configuration, seed=seed, **changes)


def _train_piece(
    dataset: str, settings: dict[str, Any], extra: dict[str, float], start_from: str | None, folder: str
) -> None:
    report = report_to(Path(folder) / "progress.json")
    train_segmenter(
        dataset,
        Path(folder) / WORK,
        Path(folder) / MODEL,
        TrainingSettings.from_dict(settings),
        extra=extra,
        start_from=start_from,
        timeout_s=_TIMEOUT_S,
        progress=lambda state: report(state.epoch, state.epochs),
    )


@task(name="segment", **OPTIONS)
def segment(
    compute: Compute,
    workspace: Workspace,
    model: Artefact,
    volume: Artefact,
    *,
    name: str,
    settings: PredictionSettings = AS_USUAL,
) -> Artefact:
    """Labels that a model predicts for a volume, how unsure it is, and what is implausible: kind ``labels``.

    Of a cross-validation the folds are averaged.
    """
    source = str(workspace.path(volume) / VOLUME)
    segmenters = [str(folder) for folder in model_folders(workspace, model)]

    def build(folder: Path) -> None:
        bar = StageProgress(f"{name}: slices segmented")
        with follow(folder / "progress.json", bar):
            compute.run(
                predict_piece,
                segmenters,
                source,
                settings.model_dump_json(),
                str(folder),
                timeout_s=_TIMEOUT_S,
            )

    return produce(
        workspace,
        "labels",
        "segmentation",
        parameters=settings.key(),
        inputs={"model": model, "volume": volume},
        packages=("segmentation",),
        build=build,
    )


def model_folders(workspace: Workspace, model: Artefact) -> list[Path]:
    """The folder of a model, or those of the folds of a cross-validation."""
    place = workspace.path(model)
    folders = [place / MODEL] if (place / MODEL).is_dir() else sorted(place.glob(f"fold_*/{MODEL}"))
    if not folders:
        raise InputError(f"model must be a trained model or a cross-validation, got {model.key}")
    return folders
