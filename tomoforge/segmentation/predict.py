"""Predicts labels of a volume in a process of its own."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tomoforge.errors import InputError, StageError
from tomoforge.segmentation.fingerprint import check_volume
from tomoforge.segmentation.jobs import run_job
from tomoforge.segmentation.model import read_model


def predict_volume(
    volume: np.ndarray,
    voxel_size: float,
    model_directory: str | Path,
    *,
    mirroring: bool = False,
    threads: int = 1,
    timeout_s: float,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Labels of a volume.

    Parameters
    ----------
    volume : (z, y, x) float [1/m]
    voxel_size : float [m]; slices are resampled in their plane to the training's pixel size and the labels
        back again, the spacing between slices is left as it is
    model_directory : from ``train_segmenter``
    mirroring : average over the four mirror images of each slice; four times slower
    threads : of torch; belongs to the result, since sums run in another order with another number
    timeout_s : [s]
    progress : called with (slices done, slices)

    Returns
    -------
    (z, y, x) uint8
        Labels numbered as in the model's class_names; ``largest_components`` cleans them.

    Raises
    ------
    InputError
        The volume is not (z, y, x), finite and varying; no model; weights of another architecture.
    StorageError
        A file of the model is missing or damaged.
    StageError
        The worker failed or ran out of time.
    """
    volume = np.asarray(volume)
    check_volume(volume, voxel_size)
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads must be an integer of at least 1, got {threads!r}")
    model = read_model(model_directory)

    def hear(name: str, values: dict[str, Any]) -> None:
        if name == "progress" and progress is not None:
            progress(values["done"], values["total"])

    with tempfile.TemporaryDirectory(prefix="tomoforge-predict-") as name:
        folder = Path(name)
        np.save(folder / "volume.npy", volume.astype(np.float32, copy=False), allow_pickle=False)
        job = {
            "command": "predict",
            "work_directory": str(folder),
            "model_directory": str(model.folder.resolve()),
            "voxel_size": float(voxel_size),
            "mirroring": bool(mirroring),
            "threads": threads,
        }
        run_job(folder, job, threads=threads, timeout_s=timeout_s, on_event=hear)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
    if labels.shape != volume.shape:
        raise StageError(f"the worker returned labels {labels.shape} for a volume {volume.shape}")
    return labels
