"""Predicts labels of a volume in a process of its own: in memory, or from OME-Zarr to OME-Zarr."""

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tomoforge.errors import InputError, StorageError
from tomoforge.segmentation.jobs import run_job
from tomoforge.segmentation.model import SegmenterModel, read_model
from tomoforge.segmentation.settings import Device
from tomoforge.segmentation.source import Readable, Survey, survey_volume
from tomoforge.volumes import SLAB, open_level, read_labels, read_volume, read_voxel_size

Model: TypeAlias = str | Path | SegmenterModel
Progress: TypeAlias = Callable[[int, int], None]

LABELS, UNCERTAINTY, SOFTMAX = "labels.ome.zarr", "uncertainty.ome.zarr", "softmax"
DAY_S = 24 * 3600.0


@dataclass(frozen=True)
class StoredPrediction:
    """Where a prediction lies, all OME-Zarr of the volume's shape.

    labels : uint8; uncertainty : float32, 0 … 1; softmax : class → its probability, float32; empty unless asked for.
    """

    labels: Path
    uncertainty: Path
    softmax: dict[str, Path] = field(default_factory=dict)


def predict_labels(
    volume: Readable,
    voxel_size: float,
    model: Model | Sequence[Model],
    *,
    mirroring: bool = False,
    device: Device = "cpu",
    threads: int = 1,
    timeout_s: float = DAY_S,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of a volume and how unsure the model is of them.

    Parameters
    ----------
    volume : (z, y, x) float [1/m]: an array in memory, memory-mapped, or of Zarr, which is then read by slabs
    voxel_size : float [m]; the volume is resampled to the training's voxel size (in its slices only for a model of
        slices) and the prediction back again
    model : folder from ``train_segmenter``, or what ``read_model`` read; of several, folds for instance, the class
        probabilities are averaged
    mirroring : average over mirror images in the axes that the training mirrored; 4 times slower for a model of
        slices, 8 times for one of blocks
    device : "cpu", or "cuda" for the GPU that the process sees first
    threads : of torch; belongs to the result, since sums run in another order with another number
    timeout_s : [s]
    progress : called with (slices done, slices)

    Returns
    -------
    labels : (z, y, x) uint8
        Numbered as in the model's class_names; ``postprocess.clean_labels`` removes debris.
    uncertainty : (z, y, x) float32, 0 … 1 − 1/classes
        1 − the probability of the label, in steps of 1/1024: by the model's own account, the chance that the label
        is wrong. Networks are surer than they should be: use it to rank, not as an error rate.

    Raises
    ------
    InputError
        The volume is not (z, y, x), finite and varying; no model; weights of another architecture; models of other
        classes.
    StorageError
        A file of a model is missing or damaged; the disk is full.
    StageError
        The worker failed or ran out of time.

    Notes
    -----
    The volume passes through in slabs. The worker holds, of a model of slices, some 32 of them; of a model of
    blocks, (classes + 2) × patch depth slices in float32; several models as much each. Preprocessing, tiles and
    weights are nnU-Net's, so one model gives nnU-Net's labels; nnU-Net averages logits of folds, and probabilities
    of other ensembles, as here.
    """
    survey = survey_volume(volume, voxel_size)
    with tempfile.TemporaryDirectory(prefix="tomoforge-predict-") as name:
        folder = Path(name)
        with _room_in(folder, "set TMPDIR to a larger disk"):
            _save(folder / "volume.npy", volume)
        (found,) = _predict(
            [(folder / "volume.npy", survey, folder)], model,
            mirroring=mirroring, softmax=False, device=device, threads=threads, timeout_s=timeout_s, progress=progress,
        )  # fmt: skip
        return read_labels(found.labels)[0], read_volume(found.uncertainty)[0]


def predict_stored(
    volume: str | Path,
    folder: str | Path,
    model: Model | Sequence[Model],
    *,
    mirroring: bool = False,
    softmax: bool = False,
    device: Device = "cpu",
    threads: int = 1,
    timeout_s: float = DAY_S,
    progress: Progress | None = None,
) -> StoredPrediction:
    """Predict a stored volume (OME-Zarr) into files of ``folder``: it is never whole in memory.

    softmax : keep the probability of each class as well, 4 bytes a voxel and class before compression. The other
    parameters, and what is raised, as ``predict_labels``; StorageError also if ``volume`` is no OME-Zarr.
    """
    (found,) = predict_all_stored(
        [(volume, folder)], model,
        mirroring=mirroring, softmax=softmax, device=device, threads=threads, timeout_s=timeout_s, progress=progress,
    )  # fmt: skip
    return found


def predict_all_stored(
    volumes: Sequence[tuple[str | Path, str | Path]],
    model: Model | Sequence[Model],
    *,
    mirroring: bool = False,
    softmax: bool = False,
    device: Device = "cpu",
    threads: int = 1,
    timeout_s: float = DAY_S,
    progress: Progress | None = None,
) -> list[StoredPrediction]:
    """``predict_stored`` of several volumes, (volume, folder) each, in one process: small ones are segmented sooner
    than it starts. ``timeout_s`` and ``progress`` are of all together."""
    pieces = []
    for volume, place in volumes:
        folder = Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        pieces.append((Path(volume), survey_volume(open_level(volume), read_voxel_size(volume)), folder))
    return _predict(
        pieces, model,
        mirroring=mirroring, softmax=softmax, device=device, threads=threads, timeout_s=timeout_s, progress=progress,
    )  # fmt: skip


def predict_volume(
    volume: Readable,
    voxel_size: float,
    model_directory: str | Path,
    *,
    mirroring: bool = False,
    threads: int = 1,
    timeout_s: float,
    progress: Progress | None = None,
) -> np.ndarray:
    """The labels alone of ``predict_labels``: (z, y, x) uint8."""
    return predict_labels(
        volume,
        voxel_size,
        model_directory,
        mirroring=mirroring,
        threads=threads,
        timeout_s=timeout_s,
        progress=progress,
    )[0]


def _predict(
    pieces: Sequence[tuple[Path, Survey, Path]],
    model: Model | Sequence[Model],
    *,
    mirroring: bool,
    softmax: bool,
    device: Device,
    threads: int,
    timeout_s: float,
    progress: Progress | None,
) -> list[StoredPrediction]:
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads must be an integer of at least 1, got {threads!r}")
    models = _read_models(model)
    names = list(models[0].class_names)
    found = [
        StoredPrediction(
            folder / LABELS,
            folder / UNCERTAINTY,
            {name: folder / SOFTMAX / f"{name}.ome.zarr" for name in names} if softmax else {},
        )
        for _, _, folder in pieces
    ]
    parts = [
        {
            "volume": str(volume.resolve()),
            "survey": survey.to_dict(),
            "labels": str(place.labels.resolve()),
            "uncertainty": str(place.uncertainty.resolve()),
            "softmax": str((folder / SOFTMAX).resolve()) if softmax else None,
        }
        for (volume, survey, folder), place in zip(pieces, found, strict=True)
    ]
    job = {
        "command": "predict",
        "parts": parts,
        "model_directories": [str(item.folder.resolve()) for item in models],
        "mirroring": bool(mirroring),
        "device": device,
        "threads": threads,
    }
    total, before = sum(survey.shape[0] for _, survey, _ in pieces), 0

    def hear(name: str, values: dict[str, Any]) -> None:
        nonlocal before
        if name == "progress" and progress is not None:
            progress(before + values["done"], total)
            before += values["total"] if values["done"] == values["total"] else 0

    with tempfile.TemporaryDirectory(prefix="tomoforge-job-") as work:
        job["work_directory"] = work
        run_job(Path(work), job, threads=threads, timeout_s=timeout_s, on_event=hear)
    return found


def _read_models(model: Model | Sequence[Model]) -> list[SegmenterModel]:
    given = [model] if isinstance(model, (str, Path, SegmenterModel)) else list(model)
    if not given:
        raise InputError("model must be a model or several of them, got none")
    # What was read earlier is read again: its files may have changed since.
    models = [read_model(item.folder if isinstance(item, SegmenterModel) else item) for item in given]
    for other in models[1:]:
        if dict(other.class_names) != dict(models[0].class_names):
            raise InputError(
                f"models that are averaged must know the same classes, got {dict(models[0].class_names)} in "
                f"{models[0].folder} and {dict(other.class_names)} in {other.folder}"
            )
    return models


def _save(path: Path, volume: Readable) -> None:
    """Write a volume as float32 .npy slab by slab, by plain writes: a full disk kills who writes to a map."""
    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(int(n) for n in volume.shape)}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, volume.shape[0], SLAB):
            file.write(np.ascontiguousarray(volume[start : start + SLAB], dtype="<f4").data)


@contextlib.contextmanager
def _room_in(folder: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(folder).free / 2**30
        raise StorageError(
            f"no space left on the disk of {folder}, {free:.2f} GiB free ({error}); {remedy}"
        ) from error
