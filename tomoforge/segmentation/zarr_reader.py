"""Hands OME-Zarr volumes to nnU-Net by reference. Imported by the worker only."""

import json
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from nnunetv2.imageio import base_reader_writer
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from tomoforge.errors import StorageError
from tomoforge.segmentation.case_records import content_hash
from tomoforge.segmentation.dataset import DATASET_NAME, READER, read_dataset_record
from tomoforge.units import m_to_um
from tomoforge.volumes import read_labels, read_volume

_expected: dict[str, str] = {}  # path → hash of what was checked when the data set was written


class OmeZarrIO(BaseReaderWriter):
    """nnU-Net's reader of volumes and labels (z, y, x); spacing in µm, as the copies had it."""

    supported_file_endings: ClassVar[list[str]] = [".zarr"]

    def read_images(self, image_fnames: list[str] | tuple[str, ...]) -> tuple[np.ndarray, dict[str, Any]]:
        """(channel, z, y, x) float32 [1/m] and nnU-Net's properties."""
        (path,) = image_fnames
        volume, voxel_size = read_volume(path)
        volume = volume.astype(np.float32, copy=False)
        _compare(path, volume, voxel_size)
        return volume[None], _properties(voxel_size)

    def read_seg(self, seg_fname: str) -> tuple[np.ndarray, dict[str, Any]]:
        """(1, z, y, x) labels and nnU-Net's properties."""
        labels, voxel_size = read_labels(seg_fname)
        _compare(seg_fname, labels, voxel_size)
        return labels[None].astype(np.float32), _properties(voxel_size)

    def write_seg(self, seg: np.ndarray, output_fname: str, properties: dict) -> None:
        """Not needed: predictions leave the worker as arrays."""
        raise StorageError(f"{output_fname}: nnU-Net writes no OME-Zarr labels here; take predict_labels")


def register_reader(dataset_directory: str | Path) -> None:
    """Let nnU-Net find the reader by its name, and the reader the hashes of the data set's cases."""
    # nnU-Net looks for the class as an attribute of any module of nnunetv2.imageio.
    setattr(base_reader_writer, READER, OmeZarrIO)
    raw = Path(dataset_directory) / DATASET_NAME
    if json.loads((raw / "dataset.json").read_text())["overwrite_image_reader_writer"] != READER:
        return
    for case in read_dataset_record(dataset_directory)["cases"]:
        for role in ("volume", "labels"):
            # As nnU-Net resolves the paths of dataset.json.
            _expected[os.path.abspath(raw / case[role])] = case[f"{role}_sha256"]


def _compare(path: str, array: np.ndarray, voxel_size: float) -> None:
    expected = _expected.get(os.path.abspath(path))
    if expected is not None and content_hash(array, voxel_size) != expected:
        raise StorageError(
            f"{path} has changed since the data set was written; restore it, or write the data set again"
        )


def _properties(voxel_size: float) -> dict[str, Any]:
    return {"spacing": [m_to_um(voxel_size)] * 3}
