"""Cross-validation of a dataset of the workspace: its folds, and what is shown of it."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from prefect import task

from tasks.artefacts import OPTIONS
from tasks.publishing import publish_version, recorded_of
from tasks.segmenter import DATASET, SCORES, model_folders
from tomoforge.pictures import training_picture
from tomoforge.results import Picture, Table
from tomoforge.segmentation.case_records import CaseRecord, TrainingCase
from tomoforge.segmentation.dataset import DATASET_NAME, read_dataset_record
from tomoforge.segmentation.evaluation import MEAN, mean_scores, table_of_means, worst_cases
from tomoforge.segmentation.metrics import BACKGROUND
from tomoforge.segmentation.model import CURVE
from tomoforge.segmentation.splits import Split, check_split, folds_of
from tomoforge.storage import Artefact, Workspace

_SHOWN = ("recall", "iou", "f1")
_WORST = 10


def folds_of_dataset(
    workspace: Workspace, dataset: Artefact, folds: int
) -> tuple[list[TrainingCase], list[Split]]:
    """The cases of a dataset, and splits that hold each of them back once, stratified by source, no group torn.

    Raises InputError for more folds than groups of cases, and where a fold would train without some class.
    """
    raw = workspace.path(dataset) / DATASET
    stored = read_dataset_record(raw)
    records = [CaseRecord.from_dict(case) for case in stored["cases"]]
    splits = folds_of(records, folds)
    for split in splits:
        check_split(split, records, stored["class_names"])
    # As nnU-Net resolves them: by their letters, wherever links lead.
    paths = [[Path(os.path.abspath(raw / DATASET_NAME / p)) for p in (r.volume, r.labels)] for r in records]
    cases = [
        TrainingCase(r.identifier, volume, labels, r.source, r.group, r.origin)
        for r, (volume, labels) in zip(records, paths, strict=True)
    ]
    return cases, splits


@task(name="publish-cross-validation", **OPTIONS)
def publish_cross_validation(workspace: Workspace, crossed: Artefact) -> str:
    """The scores of every case by a model that had not seen it, and how the folds learned."""
    scores = pd.read_csv(workspace.path(crossed) / SCORES)
    scores = scores[scores["class"] != BACKGROUND]
    means = mean_scores(scores)
    curve = _curves(model_folders(workspace, crossed))
    by_epoch = curve.groupby("epoch")[["training_loss", "pseudo_dice"]].mean()
    folds = int(curve["fold"].nunique())
    return publish_version(
        workspace,
        "models",
        crossed.key,
        provenance=recorded_of(workspace, crossed),
        title=f"Cross-validation of {folds} folds",
        summary={"folds": folds, "cases": int(scores["case"].nunique()), **_headline(means)},
        pictures={
            "training_curve": Picture(
                training_picture(
                    by_epoch.index.tolist(),
                    by_epoch["training_loss"].tolist(),
                    by_epoch["pseudo_dice"].tolist(),
                ),
                "Loss and pseudo-Dice over the epochs, mean over the folds.",
            )
        },
        tables={
            "metrics": Table(
                table_of_means(means),
                "Mean over all cases, each by the model that had not seen it [interval].",
            ),
            "worst_cases": Table(worst_cases(scores, _WORST), "Where the models are worst, by mean IoU."),
            "training_curve": Table(curve, "Training by fold and epoch."),
        },
    )


def _headline(means: pd.DataFrame) -> Mapping[str, float]:
    shown = means[means["measure"].isin(_SHOWN) & (means["class"] != MEAN)]
    return {f"{line['measure']}_{line['class']}": line["mean"] for line in shown.to_dict("records")}


def _curves(folders: list[Path]) -> pd.DataFrame:
    """Training curves of the folds under each other, with the mean of each one's pseudo-Dice."""
    parts = []
    for fold, folder in enumerate(folders):
        curve = pd.read_csv(folder / CURVE)
        dice = [name for name in curve.columns if name.startswith("pseudo_dice_")]
        # No patch of an epoch may have held any class: then there is no mean either.
        curve["pseudo_dice"] = curve[dice].mean(axis=1) if dice else np.nan
        curve.insert(0, "fold", fold)
        parts.append(curve)
    return pd.concat(parts, ignore_index=True)
