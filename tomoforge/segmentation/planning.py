"""From a raw data set to plans and preprocessed cases, in this one process. Imported by the worker only."""

import copy
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from tomoforge.errors import ConfigError
from tomoforge.segmentation.dataset import DATASET_ID, DATASET_NAME
from tomoforge.segmentation.settings import TrainingSettings
from tomoforge.segmentation.zarr_reader import register_reader
from tomoforge.storage import write_json_atomic

_PREPARED = "prepared.json"  # written last: without it the preparation is done anew
_SAMPLED_VOXELS = 1_000_000  # for intensity percentiles; nnU-Net's 10⁸ would take over 1 GB of memory
_MOST_FEATURES = {2: 512, 3: 320}  # channels, as nnU-Net bounds them
_NORMS = {
    ("instance", 2): "torch.nn.modules.instancenorm.InstanceNorm2d",
    ("instance", 3): "torch.nn.modules.instancenorm.InstanceNorm3d",
    ("batch", 2): "torch.nn.modules.batchnorm.BatchNorm2d",
    ("batch", 3): "torch.nn.modules.batchnorm.BatchNorm3d",
}
_COARSER = 2.0  # spacing of a 3d_lowres that nnU-Net did not find worth while


def prepare(
    dataset_directory: Path,
    work_directory: Path,
    settings: TrainingSettings,
    frozen: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Plan and preprocess once; a finished preparation is taken over. Returns the plans.

    frozen : plans of the model that the training goes on from. They are kept with their intensity statistics,
        which the weights have grown used to, however the new data look.
    """
    folder = work_directory / "preprocessed" / DATASET_NAME
    if (folder / _PREPARED).is_file():
        return json.loads((folder / _PREPARED).read_text())
    shutil.rmtree(folder, ignore_errors=True)
    raw = dataset_directory / DATASET_NAME
    register_reader(dataset_directory)
    with _one_process():
        extractor = DatasetFingerprintExtractor(DATASET_ID, 1, verbose=False)
        extractor.show_progress_bar = False
        extractor.num_foreground_voxels_for_intensitystats = _SAMPLED_VOXELS
        extractor.run(overwrite_existing=True)
        if frozen is None:
            plans = plan(settings)
        else:
            plans = frozen
            shutil.copy(raw / "dataset.json", folder / "dataset.json")  # as the planner would have
    plans = configure(plans, settings)
    _preprocess(raw, folder, plans, settings.configuration)
    write_json_atomic(folder / _PREPARED, plans)
    return plans


def plan(settings: TrainingSettings) -> dict[str, Any]:
    """nnU-Net's plans, the configuration of ``settings`` among them.

    nnU-Net plans 3d_lowres only where a patch of 3d_fullres covers less than a quarter of the median case; where it
    did not and it is asked for, it inherits from 3d_fullres at twice the spacing.
    """
    planner = ExperimentPlanner(DATASET_ID)
    if settings.configuration != "3d_lowres":
        planner.lowres_creation_threshold = 0.0  # no search for what nobody trains
    plans = json.loads(json.dumps(planner.plan_experiment()))
    configurations = plans["configurations"]
    if settings.configuration == "3d_lowres" and "3d_lowres" not in configurations:
        configurations["3d_lowres"] = _coarser(configurations["3d_fullres"])
    return plans


def _coarser(fullres: dict[str, Any]) -> dict[str, Any]:
    """A configuration that inherits from 3d_fullres at twice the spacing; the patch no larger than it needs."""
    shape = [round(size / _COARSER) for size in fullres["median_image_size_in_voxels"]]
    factors = np.prod(fullres["architecture"]["arch_kwargs"]["strides"], axis=0)
    covering = (np.ceil(np.array(shape) / factors) * factors).astype(int)
    # The deepest stage keeps at least 2 voxels a side: instance normalisation of one is zero.
    patch = np.maximum(np.minimum(covering, fullres["patch_size"]), 2 * factors)
    return {
        "inherits_from": "3d_fullres",
        "data_identifier": f"{fullres['data_identifier'].removesuffix('3d_fullres')}3d_lowres",
        "spacing": [size * _COARSER for size in fullres["spacing"]],
        "median_image_size_in_voxels": shape,
        "patch_size": [int(size) for size in patch],
        "batch_dice": False,
    }


def configure(plans: dict[str, Any], settings: TrainingSettings) -> dict[str, Any]:
    """nnU-Net's plans, reduced to the configuration asked for, with what ``settings`` fixes put in.

    Raises ConfigError if the patch cannot be halved as often as the network does, or if the plans lack the
    configuration.
    """
    name = settings.configuration
    if name not in plans["configurations"]:
        raise ConfigError(
            f"configuration must be one that the plans hold, {sorted(plans['configurations'])}, got {name}"
        )
    # Resolved: what it inherits is written out.
    configuration = copy.deepcopy(PlansManager(plans).get_configuration(name).configuration)
    plans = copy.deepcopy({**plans, "configurations": {name: configuration}})
    configuration = plans["configurations"][name]
    for key in ("inherits_from", "next_stage", "previous_stage"):
        configuration.pop(key, None)
    network = configuration["architecture"]["arch_kwargs"]
    axes = settings.axes
    if settings.batch_size is not None:
        configuration["batch_size"] = settings.batch_size
    if settings.patch_size is not None:
        configuration["patch_size"] = list(settings.patch_size)
    if settings.stages is not None:
        _set_stages(network, settings.stages, axes)
    if settings.normalisation is not None:
        network["norm_op"] = _NORMS[settings.normalisation, axes]
    features = settings.features or network["features_per_stage"][0]
    network["features_per_stage"] = [
        min(features * 2**stage, _MOST_FEATURES[axes]) for stage in range(network["n_stages"])
    ]
    factors = np.prod(network["strides"], axis=0)
    if np.any(np.mod(configuration["patch_size"], factors)):
        raise ConfigError(
            f"patch_size must be a multiple of {factors.tolist()} for the {network['n_stages']} stages of the "
            f"network, got {configuration['patch_size']}; set stages, or another patch_size"
        )
    return plans


def _set_stages(network: dict[str, Any], stages: int, axes: int) -> None:
    network["n_stages"] = stages
    network["strides"] = [[1] * axes] + [[2] * axes] * (stages - 1)
    network["kernel_sizes"] = [[3] * axes] * stages
    network["n_conv_per_stage"] = [2] * stages
    network["n_conv_per_stage_decoder"] = [2] * (stages - 1)


def _preprocess(raw: Path, folder: Path, plans: dict[str, Any], configuration_name: str) -> None:
    dataset = json.loads((raw / "dataset.json").read_text())
    # Frozen plans may be of a data set that another reader read.
    manager = PlansManager({**plans, "image_reader_writer": dataset["overwrite_image_reader_writer"]})
    configuration = manager.get_configuration(configuration_name)
    preprocessor = configuration.preprocessor_class(verbose=False)
    target = folder / configuration.data_identifier
    target.mkdir(parents=True, exist_ok=True)
    for identifier, files in get_filenames_of_train_images_and_targets(str(raw), dataset).items():
        data, labels, properties = preprocessor.run_case(
            files["images"], files["label"], manager, configuration, dataset
        )
        MappedCases.save_case(data, labels, properties, str(target / identifier))


class CopiedCuts:
    """A stored array whose slices are copies.

    nnU-Net's transforms write into the patch they are given; a view of a read-only map would end the process
    by SIGSEGV, and a view of writable memory would change the next epoch's data.
    """

    def __init__(self, stored: np.ndarray) -> None:
        self._stored = stored
        self.shape, self.dtype, self.ndim = stored.shape, stored.dtype, stored.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.array(self._stored[key])


class MappedCases(nnUNetBaseDataset):
    """Preprocessed cases as memory-mapped NumPy files.

    nnU-Net's own classes decompress a block and unpickle 10⁴ coordinates a class for each patch they cut;
    these share pages, take no pickle, and keep the coordinates in memory.
    """

    def __init__(
        self,
        folder: str,
        identifiers: list[str] | None = None,
        folder_with_segs_from_previous_stage: str | None = None,
    ) -> None:
        super().__init__(folder, identifiers, folder_with_segs_from_previous_stage)
        self._open: dict[str, tuple[CopiedCuts, CopiedCuts, None, dict[str, Any]]] = {}

    def load_case(self, identifier: str) -> tuple[CopiedCuts, CopiedCuts, None, dict[str, Any]]:
        """data (1, z, y, x) float32, labels (1, z, y, x) int16, None, foreground coordinates by class."""
        if identifier not in self._open:
            base = os.path.join(self.source_folder, identifier)
            data = np.load(f"{base}.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(f"{base}_seg.npy", mmap_mode="r", allow_pickle=False)
            with np.load(f"{base}.npz", allow_pickle=False) as stored:
                locations = {int(label): stored[label] for label in stored.files}
            self._open[identifier] = (
                CopiedCuts(data),
                CopiedCuts(labels),
                None,
                {"class_locations": locations},
            )
        return self._open[identifier]

    @staticmethod
    def save_case(
        data: np.ndarray, seg: np.ndarray, properties: dict[str, Any], output_filename_truncated: str
    ) -> None:
        """Write one case as ``….npy``, ``…_seg.npy`` and its foreground coordinates as ``….npz``."""
        base = output_filename_truncated
        np.save(f"{base}.npy", data.astype(np.float32, copy=False), allow_pickle=False)
        np.save(f"{base}_seg.npy", seg.astype(np.int16), allow_pickle=False)
        locations = {
            str(label): np.asarray(where, dtype=np.int32).reshape(-1, 4)
            for label, where in properties["class_locations"].items()
        }
        np.savez(f"{base}.npz", **locations)

    @staticmethod
    def get_identifiers(folder: str) -> list[str]:
        """Identifiers of all cases in ``folder``, sorted."""
        return sorted(name[:-4] for name in os.listdir(folder) if name.endswith(".npz"))


@contextmanager
def _one_process() -> Iterator[None]:
    """Let nnU-Net's planning run inside this process.

    It opens ``multiprocessing.get_context("spawn").Pool``, whose children each import torch again and which
    a daemonic process may not have. A pool of one thread has the same interface. The planner also wants a
    number of workers other than the 0 that training needs.
    """
    import multiprocessing

    real, workers = multiprocessing.get_context, os.environ["nnUNet_n_proc_DA"]
    multiprocessing.get_context = lambda method=None: (  # type: ignore[assignment]
        SimpleNamespace(Pool=ThreadPool) if method == "spawn" else real(method)
    )
    os.environ["nnUNet_n_proc_DA"] = "1"
    try:
        yield
    finally:
        multiprocessing.get_context = real
        os.environ["nnUNet_n_proc_DA"] = workers
