"""The worker's side of a prediction. Imported by the worker only.

nnU-Net's own predictor keeps the volume and the logits of all classes whole, takes one tile at a time and adds in
half precision; its module imports torch's compiler (5 CPU-s a process). Here a volume goes through front to back:
only the slices that the tiles still reach are in memory. Tiling, weights and network are nnU-Net's.
"""

import errno
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image  # type: ignore[import-untyped]
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn
from torch.nn import functional

from tomoforge.errors import InputError, StorageError
from tomoforge.segmentation.model import DATASET, MODEL, PLANS, WEIGHTS
from tomoforge.segmentation.source import Prepared, Readable, Survey, filled_box
from tomoforge.segmentation.weights import load_weights
from tomoforge.volumes import SLAB, create_volume, finish_volume, open_level, write_slab

# Voxels at the network's resolution whose logits a model of slices makes at a time.
_SLAB_VOXELS = 1 << 21
_BATCH_PIXELS = 1 << 17
_GPU_TIMES = 16  # that much larger where a GPU would otherwise wait for its next batch
_TILE_STEP = 0.5  # of the patch, nnU-Net's default
_VOXELS_AT_ONCE = 1 << 20  # voxels whose probabilities are in memory, several times over
# Probabilities are kept in steps that float32 holds exactly, so that the files become small.
_STEPS = 1024

_CPU = torch.device("cpu")
Planes = Callable[[int, int], np.ndarray]  # slices (z, y, x) from start to stop


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode with nnU-Net's records of how its input is prepared.

    mirror_axes : of a patch (of a slice 0 y, 1 x) that prediction averages over; () for none.
    """

    network: nn.Module
    plans: PlansManager
    configuration: ConfigurationManager
    dataset: dict[str, Any]
    mirror_axes: tuple[int, ...]
    device: torch.device = _CPU

    @property
    def classes(self) -> int:
        """How many, background among them."""
        return int(self.plans.get_label_manager(self.dataset).num_segmentation_heads)


def predict(job: dict[str, Any], emit: Callable[..., None]) -> None:
    """Predict a stored volume into ``labels`` and, where the job names them, ``uncertainty`` and ``softmax``.

    Raises StorageError where the disk is full.
    """
    path = Path(job["volume"])
    volume = np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else open_level(path)
    survey = Survey.from_dict(job["survey"])
    models = [
        load_model(Path(folder), mirroring=bool(job["mirroring"]), device=job["device"])
        for folder in job["model_directories"]
    ]
    names = {name: int(label) for name, label in models[0].dataset["labels"].items()}
    if any(model.classes != len(names) for model in models):
        raise InputError(f"the models do not tell the same classes apart: {sorted(names)} and others")
    try:
        _predict_into(job, volume, survey, models, names, emit)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"no space left on the disk of {Path(job['labels']).parent} ({error}); free some and predict again"
            ) from error
        raise


def _predict_into(
    job: Mapping[str, Any],
    volume: Readable,
    survey: Survey,
    models: Sequence[LoadedModel],
    names: Mapping[str, int],
    emit: Callable[..., None],
) -> None:
    size = survey.voxel_size
    create_volume(job["labels"], survey.shape, size, dtype="uint8", label_names=names)
    measures = [job["uncertainty"]] if job["uncertainty"] else []
    kept = [str(Path(job["softmax"]) / f"{name}.ome.zarr") for name in names] if job["softmax"] else []
    for path in (*measures, *kept):
        create_volume(path, survey.shape, size)
    for start, labels, uncertainty, probabilities in predicted_slabs(
        models, volume, survey, softmax=bool(kept)
    ):
        write_slab(job["labels"], start, labels)
        for path in measures:
            write_slab(path, start, uncertainty)
        for path, label in zip(kept, names.values(), strict=False):
            write_slab(path, start, probabilities[label])
        emit("progress", done=start + len(labels), total=survey.shape[0])
    for path in (job["labels"], *measures, *kept):
        finish_volume(path)


def load_model(folder: Path, *, mirroring: bool, device: str = "cpu") -> LoadedModel:
    """Read a model folder. Raises InputError if its weights and plans do not fit, or are not read here."""
    plans, dataset, record = (json.loads((folder / name).read_text()) for name in (PLANS, DATASET, MODEL))
    manager = PlansManager(plans)
    configuration = manager.get_configuration(record["configuration"])
    if list(configuration.normalization_schemes) != ["CTNormalization"]:
        raise InputError(
            f"{folder} must have been trained on one channel with CTNormalization, got "
            f"{configuration.normalization_schemes}; train it by train_segmenter"
        )
    if list(manager.transpose_forward) != [0, 1, 2]:
        raise InputError(
            f"{folder} must have been trained on volumes of equal spacing, got axes {manager.transpose_forward}"
        )
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        manager.get_label_manager(dataset).num_segmentation_heads,
        allow_init=False,
        deep_supervision=False,
    )
    load_weights(network, (folder / WEIGHTS).read_bytes())
    network.eval().to(device)
    mirror_axes = tuple(record["mirror_axes"]) if mirroring else ()
    return LoadedModel(network, manager, configuration, dataset, mirror_axes, torch.device(device))


def predict_slab(model: LoadedModel, slab: np.ndarray, voxel_size: float) -> np.ndarray:
    """Labels (z, y, x) uint8 of a slab (z, y, x) float32 [1/m]; voxel_size [m]. Zeros around it are background."""
    labels = np.zeros(slab.shape, dtype=np.uint8)
    box = filled_box(slab)
    if box is None:
        return labels
    z, y, x = slab.shape
    survey = Survey((z, y, x), voxel_size, float(slab.min()), float(slab.max()), box)
    for start, part, _, _ in predicted_slabs([model], slab, survey):
        labels[start : start + len(part)] = part
    return labels


def predicted_slabs(
    models: Sequence[LoadedModel], volume: Readable, survey: Survey, *, softmax: bool = False
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """First slice, labels (z, y, x) uint8, uncertainty (z, y, x) float32, probabilities (class, z, y, x) float32.

    Slabs of ``SLAB`` slices from front to back; the probabilities are those of no class unless ``softmax``. Of
    several models the probabilities are averaged. Outside the survey's box all is surely background.
    """
    (front, back), rows, columns = survey.box
    streams = [Probabilities(model, _prepared(model, volume, survey)) for model in models]
    at_once = max(1, _VOXELS_AT_ONCE // (survey.shape[1] * survey.shape[2]))
    classes = models[0].classes
    for start in range(0, survey.shape[0], SLAB):
        shape = (min(SLAB, survey.shape[0] - start), *survey.shape[1:])
        labels = np.zeros(shape, dtype=np.uint8)
        uncertainty = np.zeros(shape, dtype=np.float32)
        kept = np.zeros((classes if softmax else 0, *shape), dtype=np.float32)
        kept[:1] = 1.0
        stop = min(start + shape[0], back)
        for first in range(max(start, front), stop, at_once):
            last = min(first + at_once, stop)
            mean = streams[0].take(first - front, last - front)
            for stream in streams[1:]:
                mean = mean + stream.take(first - front, last - front)
            mean = mean / len(streams)
            most, label = mean.max(dim=0)
            inside = (slice(first - start, last - start), slice(*rows), slice(*columns))
            labels[inside] = label.to(torch.uint8).cpu().numpy()
            uncertainty[inside] = _coarse(1.0 - most)
            if softmax:
                kept[(slice(None), *inside)] = _coarse(mean)
        yield start, labels, uncertainty, kept


def _coarse(values: torch.Tensor) -> np.ndarray:
    return (torch.round(values * _STEPS) / _STEPS).cpu().numpy()


def _prepared(model: LoadedModel, volume: Readable, survey: Survey) -> Prepared:
    intensity = model.plans.foreground_intensity_properties_per_channel["0"]
    return Prepared(volume, survey, model.configuration.spacing, intensity)


class Probabilities:
    """Class probabilities of a volume as it was measured, from front to back."""

    def __init__(self, model: LoadedModel, prepared: Prepared) -> None:
        self._prepared = prepared
        self._blocks = logit_blocks(model, prepared.planes, prepared.shape)
        # Logits (class, y, x) of slices at the network's resolution.
        self._held: deque[torch.Tensor] = deque()
        self._first = 0

    @torch.inference_mode()
    def take(self, start: int, stop: int) -> torch.Tensor:
        """Probabilities (class, z, y, x) of slices start … stop − 1; no earlier ones can be taken afterwards.

        Logits go back by linear interpolation, as nnU-Net's do: centres of voxels, the last value going on.
        """
        native, shape = self._prepared.native, self._prepared.shape
        scale = shape[0] / native[0]
        places = np.clip((np.arange(start, stop) + 0.5) * scale - 0.5, 0, shape[0] - 1)
        below = np.floor(places).astype(int)
        above = np.minimum(below + 1, shape[0] - 1)
        self._hold(int(below[0]), int(above[-1]))
        slices = []
        for low, high, share in zip(below - self._first, above - self._first, places - below, strict=True):
            held = self._held[low]
            slices.append(held if share == 0 else torch.lerp(held, self._held[high], float(share)))
        logits = torch.stack(slices, dim=1)
        if native[1:] != shape[1:]:
            logits = functional.interpolate(logits, size=native[1:], mode="bilinear", align_corners=False)
        return torch.softmax(logits, dim=0)

    def _hold(self, first: int, last: int) -> None:
        """Keep the slices from ``first`` to ``last`` and none before."""
        while self._first + len(self._held) <= last:
            self._held.extend(next(self._blocks).unbind(dim=1))
        while self._first < first:
            self._held.popleft()
            self._first += 1


def predict_logits(model: LoadedModel, data: torch.Tensor) -> torch.Tensor:
    """Logits (class, z, y, x) float32 of preprocessed data (1, z, y, x) float32."""

    def planes(start: int, stop: int) -> np.ndarray:
        return data[0, start:stop].numpy()

    return torch.cat(list(logit_blocks(model, planes, tuple(data.shape[1:]))), dim=1)


@torch.inference_mode()
def logit_blocks(model: LoadedModel, planes: Planes, shape: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """Logits (class, z, y, x) float32 of consecutive slices of what ``planes`` reads, of ``shape`` (z, y, x)."""
    blocks = _slice_blocks if len(model.configuration.patch_size) == 2 else _patch_blocks
    yield from blocks(model, planes, shape)


def _slice_blocks(model: LoadedModel, planes: Planes, shape: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """Of a network of slices: those of a slab at a time, which know nothing of each other."""
    patch = tuple(model.configuration.patch_size)
    weight = _weight(model, patch)
    times = 1 if model.device.type == "cpu" else _GPU_TIMES
    batch = max(1, times * _BATCH_PIXELS // (patch[0] * patch[1]))
    pixels = max(shape[1], patch[0]) * max(shape[2], patch[1])
    thickness = max(1, times * _SLAB_VOXELS // pixels)
    for front in range(0, shape[0], thickness):
        padded, inner = _padded(planes(front, min(front + thickness, shape[0])), patch)
        logits = torch.zeros((model.classes, *padded.shape), device=model.device)
        weights = torch.zeros(padded.shape[1:], device=model.device)
        for rows, columns in _tiles(padded.shape[1:], patch):
            weights[rows, columns] += weight
            for start in range(0, padded.shape[0], batch):
                slices = slice(start, start + batch)
                # (z, y, x) → (z, 1, y, x): slices are the batch
                predicted = _predict_tile(model, padded[slices, None, rows, columns])
                logits[:, slices, rows, columns] += (predicted * weight).transpose(0, 1)
        logits.div_(weights)
        yield logits[(slice(None), *inner)]


def _patch_blocks(model: LoadedModel, planes: Planes, shape: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """Of a network of blocks: slices are done when no tile further back reaches them."""
    patch = tuple(model.configuration.patch_size)
    weight = _weight(model, patch)
    depth = max(shape[0], patch[0])
    before = (depth - shape[0]) // 2  # slices of padding in front, as pad_nd_image has them
    steps = compute_steps_for_sliding_window((depth, *patch[1:]), patch, _TILE_STEP)[0]
    data = _reach(planes, shape[0], -before, patch[0] - before)
    padded, inner = _padded(data, patch)
    logits = torch.zeros((model.classes, *padded.shape), device=model.device)
    weights = torch.zeros(padded.shape, device=model.device)
    at_once = max(1, _VOXELS_AT_ONCE // (shape[1] * shape[2]))
    for step, following in itertools.zip_longest(steps, steps[1:], fillvalue=depth):
        for rows, columns in _tiles(padded.shape[1:], patch[1:]):
            tile = padded[None, None, :, rows, columns]
            logits[:, :, rows, columns] += _predict_tile(model, tile)[0] * weight
            weights[:, rows, columns] += weight
        done = following - step
        for first in range(max(0, before - step), min(done, before + shape[0] - step), at_once):
            last = min(first + at_once, done, before + shape[0] - step)
            yield (logits[:, first:last] / weights[first:last])[(slice(None), slice(None), *inner[1:])]
        if following == depth:
            return
        for kept in (*logits, weights):  # a class at a time: the copy is small
            kept[: patch[0] - done] = kept[done:].clone()
            kept[patch[0] - done :] = 0
        fresh = _reach(planes, shape[0], step + patch[0] - before, following + patch[0] - before)
        padded = torch.cat([padded[done:], _padded(fresh, (done, *patch[1:]))[0]])


def _reach(planes: Planes, depth: int, start: int, stop: int) -> np.ndarray:
    """Slices from ``start`` to ``stop``, zeros before the first and after the last."""
    known = planes(max(0, start), min(depth, stop))
    return np.pad(known, ((max(0, -start), max(0, stop - depth)), (0, 0), (0, 0)))


def _padded(data: np.ndarray, patch: tuple[int, ...]) -> tuple[torch.Tensor, tuple[slice, ...]]:
    """Slices (z, y, x) with zeros around them up to the patch, and where the slices lie within."""
    return pad_nd_image(torch.from_numpy(data), patch, "constant", {"value": 0}, True, None)


def _weight(model: LoadedModel, patch: tuple[int, ...]) -> torch.Tensor:
    return compute_gaussian(patch, sigma_scale=1 / 8, dtype=torch.float32, device=model.device)


def _tiles(shape: Sequence[int], patch: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    rows, columns = compute_steps_for_sliding_window(tuple(shape), patch, _TILE_STEP)
    for row, column in itertools.product(rows, columns):
        yield slice(row, row + patch[0]), slice(column, column + patch[1])


def _predict_tile(model: LoadedModel, tile: torch.Tensor) -> torch.Tensor:
    """Logits (batch, class, …) float32 of a tile (batch, 1, …), averaged over its mirror images."""
    tile = tile.to(model.device).contiguous()
    with torch.autocast(model.device.type, enabled=model.device.type == "cuda"):
        total = model.network(tile)
        mirrors = [
            [axis + 2 for axis in axes]
            for count in range(1, len(model.mirror_axes) + 1)
            for axes in itertools.combinations(model.mirror_axes, count)
        ]
        for axes in mirrors:
            total = total + torch.flip(model.network(torch.flip(tile, axes)), axes)
    return total.float() / (len(mirrors) + 1)
