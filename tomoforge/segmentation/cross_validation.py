"""Cross-validation: every case predicted once by a model that has not seen it.

The folds share nothing but the data set, so each can run on a worker or GPU of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tomoforge.errors import InputError
from tomoforge.segmentation.dataset import TrainingCase
from tomoforge.segmentation.evaluation import Evaluation, evaluate_case, join_evaluations
from tomoforge.segmentation.model import read_model
from tomoforge.segmentation.postprocess import clean_labels
from tomoforge.segmentation.predict import predict_volume
from tomoforge.segmentation.settings import TrainingSettings
from tomoforge.segmentation.trainer import Split, TrainingProgress, choose_split, train_segmenter
from tomoforge.volumes import read_labels, read_volume


@dataclass(frozen=True)
class FoldResult:
    """fold; model : its folder; evaluation : of the cases that the fold held back."""

    fold: int
    model: Path
    evaluation: Evaluation


def train_fold(
    dataset_directory: str | Path,
    directory: str | Path,
    cases: Sequence[TrainingCase],
    settings: TrainingSettings,
    fold: int,
    *,
    splits: Sequence[Split] | None = None,
    timeout_s: float,
    progress: Callable[[TrainingProgress], None] | None = None,
    extra: Mapping[str, Any] | None = None,
    start_from: str | Path | None = None,
) -> FoldResult:
    """Train one fold and score its model on the cases that the fold held back.

    Parameters
    ----------
    dataset_directory : as given to ``write_dataset``
    directory : of the whole cross-validation; the fold works in ``fold_<n>`` and leaves its model there. Killed at
        any moment, the same call goes on.
    cases : volumes and labels of the data set, those held back at least
    settings, splits, timeout_s, progress, extra, start_from : as ``train_segmenter`` takes them; ``timeout_s`` is
        for the training and for each prediction

    Raises
    ------
    InputError, ConfigError, StorageError, StageError, MissingComponentError
        As ``train_segmenter`` and ``predict_volume``; InputError also for a held-back case that ``cases`` lacks.
    """
    held = choose_split(dataset_directory, fold, splits)["val"]
    by_identifier = {case.identifier: case for case in cases}
    if missing := sorted(set(held) - set(by_identifier)):
        raise InputError(f"cases must hold what fold {fold} holds back, got none for {missing}")
    folder = Path(directory) / f"fold_{fold}"
    model = train_segmenter(
        dataset_directory,
        folder / "work",
        folder / "model",
        settings,
        timeout_s=timeout_s,
        progress=progress,
        extra=extra,
        fold=fold,
        splits=splits,
        start_from=start_from,
    )
    evaluations = [_score(model, by_identifier[name], settings.threads, timeout_s) for name in held]
    return FoldResult(fold, model, join_evaluations(evaluations))


def join_folds(results: Sequence[FoldResult]) -> Evaluation:
    """All folds as one evaluation. Raises InputError if a case was held back by two of them."""
    return join_evaluations([result.evaluation for result in results])


def _score(model: Path, case: TrainingCase, threads: int, timeout_s: float) -> Evaluation:
    volume, voxel_size = read_volume(case.volume)
    truth, _ = read_labels(case.labels)
    predicted = predict_volume(volume, voxel_size, model, threads=threads, timeout_s=timeout_s)
    names = read_model(model).class_names
    return evaluate_case(case.identifier, truth, clean_labels(predicted, names), names, voxel_size)
