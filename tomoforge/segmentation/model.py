"""A trained segmenter as a folder of plain files: no pickle, the same bytes from the same training.

``weights.safetensors`` the network; ``plans.json``, ``dataset.json`` as nnU-Net reads them;
``model.json`` what it was trained on and the checksums of the others, written last.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tomoforge.errors import InputError, StorageError
from tomoforge.storage import file_checksum, write_bytes_atomic, write_json_atomic

FORMAT = "tomoforge segmenter"
VERSION = 1
WEIGHTS, PLANS, DATASET, MODEL, CURVE = (
    "weights.safetensors",
    "plans.json",
    "dataset.json",
    "model.json",
    "training_curve.csv",
)


@dataclass(frozen=True)
class SegmenterModel:
    """A checked model folder.

    class_names : name → label; voxel_size : median of the training volumes [m]; fingerprint : ranges over
    the training volumes (``mu`` [1/m], ``noise`` [1/m], ``voxel_size`` [m], ``cases``); extra : what the
    caller recorded (``energy_kev`` is understood); settings, configuration, software : how it was trained.
    """

    folder: Path
    class_names: Mapping[str, int]
    configuration: str
    voxel_size: float
    fingerprint: Mapping[str, Any]
    settings: Mapping[str, Any]
    extra: Mapping[str, Any]
    software: Mapping[str, str]


def write_model(
    folder: Path,
    *,
    weights: bytes,
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    curve: str,
    record: Mapping[str, Any],
) -> None:
    """Write a model folder; ``record`` holds the fields of SegmenterModel other than its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).unlink(missing_ok=True)
    write_bytes_atomic(folder / WEIGHTS, weights)
    write_json_atomic(folder / PLANS, plans)
    write_json_atomic(folder / DATASET, dataset)
    write_bytes_atomic(folder / CURVE, curve.encode())
    checksums = {name: file_checksum(folder / name) for name in (WEIGHTS, PLANS, DATASET, CURVE)}
    write_json_atomic(folder / MODEL, {"format": FORMAT, "version": VERSION, **record, "sha256": checksums})


def read_model(folder: str | Path) -> SegmenterModel:
    """Read and check a model folder.

    Raises
    ------
    InputError
        The folder is no model, or one of another format.
    StorageError
        One of its files is missing or differs from its checksum.
    """
    folder = Path(folder)
    try:
        record = json.loads((folder / MODEL).read_text())
    except FileNotFoundError:
        raise InputError(f"model_directory must be a finished model, got {folder} without {MODEL}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"{folder / MODEL} is damaged ({error}); train or copy the model again") from error
    if record.get("format") != FORMAT or record.get("version") != VERSION:
        raise InputError(
            f"model_directory must hold a '{FORMAT}' of version {VERSION}, got "
            f"'{record.get('format')}' version {record.get('version')} in {folder}"
        )
    for name, checksum in record["sha256"].items():
        path = folder / name
        if not path.is_file() or file_checksum(path) != checksum:
            raise StorageError(
                f"{path} is missing or differs from its checksum; train or copy the model again"
            )
    return SegmenterModel(
        folder=folder,
        class_names=record["class_names"],
        configuration=record["configuration"],
        voxel_size=record["voxel_size"],
        fingerprint=record["fingerprint"],
        settings=record["settings"],
        extra=record["extra"],
        software=record["software"],
    )
