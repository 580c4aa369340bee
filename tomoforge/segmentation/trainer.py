"""Trains a segmenter in a process of its own."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tomoforge.errors import InputError
from tomoforge.segmentation.dataset import DATASET_NAME, RECORD, read_dataset_record
from tomoforge.segmentation.jobs import run_job
from tomoforge.segmentation.model import read_model
from tomoforge.segmentation.settings import TrainingSettings
from tomoforge.storage import file_checksum, to_json, write_json_atomic

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
) -> Path:
    """Train a 2D nnU-Net and export it.

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

    Returns
    -------
    Path
        model_directory

    Raises
    ------
    InputError
        work_directory holds another training; extra is not JSON.
    ConfigError
        The settings do not fit the network that nnU-Net planned.
    StageError
        The worker failed, was killed or ran out of time.
    StorageError
        There is no finished data set.

    Notes
    -----
    The same data set, settings and software give the same weights, bit by bit, on the same kind of
    processor; another processor may round otherwise.
    """
    dataset, work, model = (Path(p).resolve() for p in (dataset_directory, work_directory, model_directory))
    read_dataset_record(dataset)
    kept = _as_json(extra or {})
    work.mkdir(parents=True, exist_ok=True)
    _claim(work, dataset, settings)

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
            "extra": kept,
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


def _claim(work: Path, dataset: Path, settings: TrainingSettings) -> None:
    """Note in the work directory which training it belongs to, or check that it is this one."""
    identity = {
        "settings": settings.to_dict(),
        "dataset": file_checksum(dataset / DATASET_NAME / RECORD),
    }
    path = work / IDENTITY
    if not path.exists():
        write_json_atomic(path, identity)
    elif path.read_text().strip() != to_json(identity):
        raise InputError(
            f"work_directory must belong to this training alone, got {work}, which holds one with another data set or "
            "other settings; give a new directory"
        )
