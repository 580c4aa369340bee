"""Trains a segmenter in a process of its own."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tomoforge.errors import InputError, StorageError
from tomoforge.segmentation.dataset import DATASET_NAME, RECORD, read_dataset_record
from tomoforge.segmentation.jobs import run_job
from tomoforge.segmentation.model import MODEL, SegmenterModel, read_model
from tomoforge.segmentation.settings import TrainingSettings
from tomoforge.storage import file_checksum, to_json, write_json_atomic

Split: TypeAlias = Mapping[
    str, Sequence[str]
]  # "train" and "val": identifiers of cases, as nnU-Net names them

IDENTITY = "training.json"


@dataclass(frozen=True)
class TrainingProgress:
    """Where a training stands after an epoch.

    epoch : finished epochs; pseudo_dice : class → Dice on validation patches, None where the patches held
    none of it; seconds_left : estimate [s].
    """

    epoch: int
    epochs: int
    training_loss: float
    validation_loss: float
    pseudo_dice: Mapping[str, float | None]
    seconds_left: float


def train_segmenter(
    dataset_directory: str | Path,
    work_directory: str | Path,
    model_directory: str | Path,
    settings: TrainingSettings,
    *,
    timeout_s: float,
    progress: Callable[[TrainingProgress], None] | None = None,
    extra: Mapping[str, Any] | None = None,
    fold: int = 0,
    splits: Sequence[Split] | None = None,
    start_from: str | Path | None = None,
) -> Path:
    """Train an nnU-Net and export it.

    Parameters
    ----------
    dataset_directory : as given to ``write_dataset``
    work_directory : of this training alone. Killed at any moment, the same call goes on from the last
        finished epoch and ends with the same bytes.
    model_directory : receives the model (see ``model.py``)
    settings : TrainingSettings
    timeout_s : [s] for this call, after which the worker is ended; finished epochs stay
    progress : called after each epoch
    extra : JSON values kept in the model; ``energy_kev`` [keV], a number or a list, is compared by
        ``domain_warnings``
    fold : which of the splits to train on
    splits : into cases to train on and cases that only measure progress; None takes the data set's own
    start_from : a trained model to go on from: its weights, heads included, its plans and its intensity
        statistics; only the data set is new. The settings' None are then the model's.

    Returns
    -------
    Path
        model_directory

    Raises
    ------
    InputError
        work_directory holds another training; extra is not JSON; there is no such fold, or it names cases that the
        data set lacks; ``start_from`` is no model, or one of other classes, another configuration or another
        network than the settings ask for.
    ConfigError
        The settings do not fit the network that nnU-Net planned.
    MissingComponentError
        nnU-Net or torch are not installed, or device "cuda" was asked for and there is no GPU.
    StageError
        The worker failed, was killed or ran out of time.
    StorageError
        There is no finished data set; the checkpoint in work_directory or a file of ``start_from`` is damaged.

    Notes
    -----
    The same data set, settings and software give the same weights, bit by bit, on the same kind of
    processor; another processor may round otherwise.
    """
    dataset, work, model = (Path(p).resolve() for p in (dataset_directory, work_directory, model_directory))
    record = read_dataset_record(dataset)
    split = choose_split(dataset, fold, splits)
    kept = _as_json(extra or {})
    champion = None if start_from is None else _check_start(start_from, record["class_names"], settings)
    work.mkdir(parents=True, exist_ok=True)
    _claim(work, dataset, settings, split, champion)

    def hear(name: str, values: dict[str, Any]) -> None:
        if name == "progress" and progress is not None:
            progress(TrainingProgress(**values))

    run_job(
        work,
        {
            "command": "train",
            "dataset_directory": str(dataset),
            "work_directory": str(work),
            "model_directory": str(model),
            "settings": settings.to_dict(),
            "threads": settings.threads,
            "loaders": settings.loaders,
            "device": settings.device,
            "deterministic": settings.deterministic,
            "extra": kept,
            "split": split,
            "start_from": str(champion.folder.resolve()) if champion else None,
        },
        threads=settings.threads,
        timeout_s=timeout_s,
        on_event=hear,
    )
    read_model(model)
    return Path(model_directory)


def _as_json(extra: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(to_json(dict(extra)))
    except (TypeError, ValueError) as error:
        raise InputError(f"extra must hold JSON values, got {dict(extra)!r} ({error})") from error


def choose_split(
    dataset_directory: str | Path, fold: int, splits: Sequence[Split] | None = None
) -> dict[str, list[str]]:
    """Cases to train on ("train") and to measure progress on ("val") of one fold: others, or all the same.

    Raises
    ------
    InputError
        There is no such fold (nnU-Net would make up a random split in silence), or it names cases that the data set
        lacks, none, or the same on both sides.
    StorageError
        The data set's own splits cannot be read.
    """
    path = Path(dataset_directory) / DATASET_NAME / "splits_final.json"
    if splits is None:
        try:
            splits = json.loads(path.read_text())
        except (FileNotFoundError, json.JSONDecodeError) as error:
            raise StorageError(f"{path} cannot be read ({error}); write the data set again") from error
    if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < len(splits):
        raise InputError(
            f"fold must be one of the {len(splits)} splits, 0 to {len(splits) - 1}, got {fold!r}; give more splits to "
            "train more folds"
        )
    train, held = ([str(case) for case in splits[fold][side]] for side in ("train", "val"))
    known = {case["identifier"] for case in read_dataset_record(dataset_directory)["cases"]}
    if unknown := sorted({*train, *held} - known):
        raise InputError(f"fold {fold} must name cases of the data set, got {unknown}")
    both = sorted({*train} & {*held})
    # The same cases on both sides hold nothing back and say so, as nnU-Net's fold "all" does.
    if not train or not held or (both and {*train} != {*held}):
        raise InputError(
            f"fold {fold} must train on some cases and measure on others, got {len(train)} and {len(held)}, "
            f"{both or 'none'} in both"
        )
    return {"train": train, "val": held}


def _check_start(
    start_from: str | Path, class_names: Mapping[str, int], settings: TrainingSettings
) -> SegmenterModel:
    """The model to go on from. Raises InputError if it cannot take the classes or the configuration."""
    model = read_model(start_from)
    if dict(model.class_names) != dict(class_names):
        raise InputError(
            f"start_from must be a model of the data set's classes {dict(class_names)}, got one of "
            f"{dict(model.class_names)}; train a new model for other classes"
        )
    if model.configuration != settings.configuration:
        raise InputError(
            f"start_from must be a model of configuration {settings.configuration}, got one of {model.configuration}; "
            "set configuration to the model's"
        )
    return model


def _claim(
    work: Path, dataset: Path, settings: TrainingSettings, split: Split, champion: SegmenterModel | None
) -> None:
    """Note in the work directory which training it belongs to, or check that it is this one."""
    identity = {
        "settings": settings.to_dict(),
        "dataset": file_checksum(dataset / DATASET_NAME / RECORD),
        "split": dict(split),
        "start_from": None if champion is None else file_checksum(champion.folder / MODEL),
    }
    path = work / IDENTITY
    if not path.exists():
        write_json_atomic(path, identity)
    elif path.read_text().strip() != to_json(identity):
        raise InputError(
            f"work_directory must belong to this training alone, got {work}, which holds one with another data set, "
            "other settings, another fold or another start; give a new directory"
        )
