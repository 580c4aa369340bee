"""The worker's side of a training: prepare, train, export. Imported by the worker only."""

import csv
import io
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tomoforge.segmentation.dataset import DATASET_NAME, read_dataset_record
from tomoforge.segmentation.model import CURVE, PLANS, WEIGHTS, write_model
from tomoforge.segmentation.network import make_trainer
from tomoforge.segmentation.planning import prepare
from tomoforge.segmentation.settings import TrainingSettings
from tomoforge.segmentation.weights import dump_weights
from tomoforge.storage import write_bytes_atomic, write_json_atomic

PROGRESS = "progress.json"


def train(job: dict[str, Any], emit: Callable[..., None]) -> None:
    """Train as the job says and export the model."""
    dataset_directory, work_directory = Path(job["dataset_directory"]), Path(job["work_directory"])
    settings = TrainingSettings.from_dict(job["settings"])
    champion = Path(job["start_from"]) if job.get("start_from") else None
    frozen = json.loads((champion / PLANS).read_text()) if champion else None
    plans = prepare(dataset_directory, work_directory, settings, frozen)
    # The only split, so that nnU-Net finds fold 0 and makes up none.
    write_json_atomic(work_directory / "preprocessed" / DATASET_NAME / "splits_final.json", [job["split"]])
    dataset = json.loads((dataset_directory / DATASET_NAME / "dataset.json").read_text())
    durations: list[float] = []

    def on_epoch(record: dict[str, Any], seconds: float) -> None:
        durations.append(seconds)
        done = record["epoch"] + 1
        left = float(np.mean(durations[-5:])) * (settings.epochs - done)
        event = {**record, "epoch": done, "epochs": settings.epochs, "seconds_left": round(left, 1)}
        write_json_atomic(work_directory / PROGRESS, event)
        write_bytes_atomic(work_directory / CURVE, training_curve(trainer.history).encode())
        emit("progress", **event)

    trainer = make_trainer(
        plans,
        dataset,
        settings,
        work_directory,
        on_epoch,
        weights=(champion / WEIGHTS).read_bytes() if champion else None,
    )
    trainer.run_training()
    curve = training_curve(trainer.history)
    write_bytes_atomic(work_directory / CURVE, curve.encode())
    record = read_dataset_record(dataset_directory)
    write_model(
        Path(job["model_directory"]),
        weights=dump_weights(trainer.network),
        plans=plans,
        dataset={key: value for key, value in dataset.items() if key != "dataset"},
        curve=curve,
        record={
            "class_names": record["class_names"],
            "configuration": settings.configuration,
            "voxel_size": float(np.median([c["fingerprint"]["voxel_size"] for c in record["cases"]])),
            "fingerprint": record["fingerprint"],
            "settings": settings.to_dict(),
            "extra": job["extra"],
            "mirror_axes": list(trainer.inference_allowed_mirroring_axes),
            "software": {name: metadata.version(name) for name in ("torch", "nnunetv2")},
        },
    )


def training_curve(history: list[dict[str, Any]]) -> str:
    """The epochs as CSV, without times, so that the same training gives the same bytes."""
    names = list(history[0]["pseudo_dice"])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", "training_loss", "validation_loss", *(f"pseudo_dice_{n}" for n in names)])
    for record in history:
        dice = [record["pseudo_dice"][name] for name in names]
        values = [record["training_loss"], record["validation_loss"], *dice]
        writer.writerow([record["epoch"] + 1, *("" if v is None else repr(v) for v in values)])
    return text.getvalue()
