"""The worker's side of a prediction. Imported by the worker only.

nnU-Net's own predictor takes one tile at a time and adds in half precision, both of them slow on a
processor, and its module imports torch's compiler (5 CPU-s a process). Preprocessing, tiling, weighting
and the way back are nnU-Net's functions; only the loop over tiles is ours, several slices a batch.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image  # type: ignore[import-untyped]
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from tomoforge.segmentation.model import DATASET, MODEL, PLANS, WEIGHTS
from tomoforge.segmentation.weights import load_weights
from tomoforge.units import m_to_um

# Voxels at the network's resolution that are in memory at a time. The network sees slices alone, so a
# volume of any size goes through in slabs.
_SLAB_VOXELS = 1 << 21
_BATCH_PIXELS = 1 << 17
_TILE_STEP = 0.5  # of the patch, nnU-Net's default


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode with nnU-Net's records of how its input is prepared.

    mirror_axes : of a slice (0 y, 1 x) that prediction averages over; () for none.
    """

    network: nn.Module
    plans: PlansManager
    configuration: ConfigurationManager
    dataset: dict[str, Any]
    mirror_axes: tuple[int, ...]


def predict(job: dict[str, Any], emit: Callable[..., None]) -> None:
    """Predict labels of the volume in ``volume.npy`` of the job's folder into ``labels.npy``."""
    folder = Path(job["work_directory"])
    volume = np.load(folder / "volume.npy", mmap_mode="r", allow_pickle=False)
    model = load_model(Path(job["model_directory"]), mirroring=bool(job["mirroring"]))
    labels = np.lib.format.open_memmap(folder / "labels.npy", mode="w+", dtype=np.uint8, shape=volume.shape)
    thickness = slab_thickness(model, volume.shape, job["voxel_size"])
    for start in range(0, volume.shape[0], thickness):
        slab = np.array(volume[start : start + thickness])
        labels[start : start + thickness] = predict_slab(model, slab, job["voxel_size"])
        emit("progress", done=min(start + thickness, volume.shape[0]), total=volume.shape[0])
    labels.flush()


def load_model(folder: Path, *, mirroring: bool) -> LoadedModel:
    """Read a model folder. Raises InputError if its weights and plans do not fit."""
    plans, dataset, record = (json.loads((folder / name).read_text()) for name in (PLANS, DATASET, MODEL))
    manager = PlansManager(plans)
    configuration = manager.get_configuration(record["configuration"])
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
    network.eval()
    mirror_axes = tuple(record["mirror_axes"]) if mirroring else ()
    return LoadedModel(network, manager, configuration, dataset, mirror_axes)


def slab_thickness(model: LoadedModel, shape: tuple[int, ...], voxel_size: float) -> int:
    """Slices of a volume (z, y, x) of ``voxel_size`` [m] that are predicted together."""
    sizes = zip(shape[1:], model.configuration.spacing, model.configuration.patch_size, strict=True)
    pixels = [max(n * m_to_um(voxel_size) / spacing, patch) for n, spacing, patch in sizes]
    return max(1, int(_SLAB_VOXELS // np.prod(pixels)))


def predict_slab(model: LoadedModel, slab: np.ndarray, voxel_size: float) -> np.ndarray:
    """Labels (z, y, x) uint8 of a slab (z, y, x) float32 [1/m]; voxel_size [m]."""
    if not slab.any():  # nnU-Net crops to what is not zero and would be left with nothing
        return np.zeros(slab.shape, dtype=np.uint8)
    preprocessor = model.configuration.preprocessor_class(verbose=False)
    data, _, properties = preprocessor.run_case_npy(
        slab[None],
        None,
        {"spacing": [m_to_um(voxel_size)] * 3},
        model.plans,
        model.configuration,
        model.dataset,
    )
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        predict_logits(model, torch.from_numpy(data)),
        model.plans,
        model.configuration,
        model.plans.get_label_manager(model.dataset),
        properties,
        num_threads_torch=torch.get_num_threads(),
    )


@torch.inference_mode()
def predict_logits(model: LoadedModel, data: torch.Tensor) -> torch.Tensor:
    """Logits (class, z, y, x) float32 of preprocessed data (1, z, y, x) float32."""
    patch = tuple(model.configuration.patch_size)
    padded, inner = pad_nd_image(data, patch, "constant", {"value": 0}, True, None)
    weight = compute_gaussian(patch, sigma_scale=1 / 8, dtype=torch.float32, device=torch.device("cpu"))
    batch = max(1, _BATCH_PIXELS // (patch[0] * patch[1]))
    n_classes = model.plans.get_label_manager(model.dataset).num_segmentation_heads
    logits = torch.zeros((n_classes, *padded.shape[1:]))
    weights = torch.zeros(padded.shape[2:])
    for rows, columns in _tiles(padded.shape[2:], patch):
        weights[rows, columns] += weight
        for start in range(0, padded.shape[1], batch):
            slices = slice(start, start + batch)
            # (1, z, y, x) → (z, 1, y, x): slices are the batch
            predicted = _predict_tile(model, padded[:, slices, rows, columns].transpose(0, 1).contiguous())
            logits[:, slices, rows, columns] += (predicted * weight).transpose(0, 1)
    logits.div_(weights)
    return logits[(slice(None), *inner[1:])]


def _tiles(shape: tuple[int, ...], patch: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    rows, columns = compute_steps_for_sliding_window(shape, patch, _TILE_STEP)
    for row, column in itertools.product(rows, columns):
        yield slice(row, row + patch[0]), slice(column, column + patch[1])


def _predict_tile(model: LoadedModel, tile: torch.Tensor) -> torch.Tensor:
    """Logits (slice, class, y, x) of a tile (slice, 1, y, x), averaged over its mirror images."""
    total = model.network(tile)
    mirrors = [
        [axis + 2 for axis in axes]
        for count in range(1, len(model.mirror_axes) + 1)
        for axes in itertools.combinations(model.mirror_axes, count)
    ]
    for axes in mirrors:
        total = total + torch.flip(model.network(torch.flip(tile, axes)), axes)
    return total / (len(mirrors) + 1)
