"""Training data sets in nnU-Net's raw format, made from checked pairs of volume and labels."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tomoforge.errors import InputError, MissingComponentError, StorageError
from tomoforge.segmentation.fingerprint import (
    PERCENTILES,
    VolumeFingerprint,
    check_volume,
    volume_fingerprint,
)
from tomoforge.segmentation.metrics import check_class_names
from tomoforge.storage import file_checksum, write_json_atomic
from tomoforge.units import m_to_um
from tomoforge.volumes import LABEL_NAMES, read_labels, read_volume

DATASET_ID = 1
DATASET_NAME = f"Dataset{DATASET_ID:03d}_tomoforge"
RECORD = "tomoforge.json"  # written last: a data set without it is unfinished
_ENDING = ".mha"  # holds the spacing as decimal text; NIfTI would round it to float32
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True)
class TrainingCase:
    """One labelled tomogram: paths of its volume and its labels, both OME-Zarr."""

    identifier: str
    volume: str | Path
    labels: str | Path


def write_dataset(
    directory: str | Path,
    cases: Sequence[TrainingCase],
    class_names: Mapping[str, int] = LABEL_NAMES,
    *,
    validation: Sequence[str] | None = None,
) -> Path:
    """Check labelled volumes and write them as a data set of nnU-Net.

    Parameters
    ----------
    directory : becomes an ``nnUNet_raw`` folder holding one data set
    cases : volumes float32 [1/m] and labels uint8, (z, y, x). Keep test data out: everything
        given here shapes the intensity normalisation.
    class_names : name → label
    validation : identifiers that only measure progress; None takes every fifth, and at least the last.
        A single case is trained and validated on itself.

    Returns
    -------
    Path
        The folder of the data set.

    Raises
    ------
    InputError
        A case is named twice; its volume and labels differ in shape or voxel size; its volume holds NaN
        or is constant; it has a label without a name; a class occurs in no case.
    """
    check_class_names(class_names)
    identifiers = _identifiers(cases)
    split = _split(identifiers, validation)
    folder = Path(directory) / DATASET_NAME
    (folder / "imagesTr").mkdir(parents=True, exist_ok=True)
    (folder / "labelsTr").mkdir(exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    records = [_write_case(folder, case, class_names) for case in cases]
    _check_every_class([(r["identifier"], r["present"]) for r in records], class_names)
    write_json_atomic(folder / "splits_final.json", [split])
    write_json_atomic(folder / "dataset.json", _dataset_json(identifiers, class_names))
    write_json_atomic(
        folder / RECORD,
        {"class_names": dict(class_names), "cases": records, "fingerprint": _summary(records)},
    )
    return folder


def read_dataset_record(directory: str | Path) -> dict[str, Any]:
    """What ``write_dataset`` recorded: class names, cases with checksums, fingerprint.

    Raises StorageError where there is no finished data set.
    """
    path = Path(directory) / DATASET_NAME / RECORD
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise StorageError(
            f"{directory} holds no finished data set ({path} is missing); write it again"
        ) from None
    except json.JSONDecodeError as error:
        raise StorageError(f"{path} is damaged ({error}); write the data set again") from error


def _identifiers(cases: Sequence[TrainingCase]) -> list[str]:
    if not cases:
        raise InputError("cases must hold at least one labelled volume, got none")
    identifiers = [case.identifier for case in cases]
    for identifier in identifiers:
        if not _IDENTIFIER.fullmatch(identifier):
            raise InputError(
                f"a case identifier must be letters, digits, '-' and '_' (it names files), got {identifier!r}"
            )
    twice = sorted({i for i in identifiers if identifiers.count(i) > 1})
    if twice:
        raise InputError(f"each case needs an identifier of its own, got {twice} more than once")
    return identifiers


def _split(identifiers: list[str], validation: Sequence[str] | None) -> dict[str, list[str]]:
    ordered = sorted(identifiers)
    if len(ordered) == 1:
        return {"train": ordered, "val": ordered}
    if validation is None:
        held = ordered[4::5] or ordered[-1:]
    else:
        held = sorted(set(validation))
        unknown = sorted(set(held) - set(ordered))
        if unknown or not held or len(held) == len(ordered):
            raise InputError(
                f"validation must name some, not all, of the cases {ordered}, got {list(validation)}"
            )
    return {"train": [i for i in ordered if i not in held], "val": held}


def _write_case(folder: Path, case: TrainingCase, class_names: Mapping[str, int]) -> dict[str, Any]:
    name = f"case {case.identifier}"
    volume, voxel_size = read_volume(case.volume)
    labels, label_voxel_size = read_labels(case.labels)
    check_case(name, volume, voxel_size, labels, label_voxel_size, class_names)
    image_path = folder / "imagesTr" / f"{case.identifier}_0000{_ENDING}"
    label_path = folder / "labelsTr" / f"{case.identifier}{_ENDING}"
    _write_image(image_path, volume.astype(np.float32, copy=False), voxel_size)
    _write_image(label_path, labels, voxel_size)
    return {
        "identifier": case.identifier,
        "shape": list(volume.shape),
        "present": [int(label) for label in np.unique(labels)],
        "fingerprint": asdict(volume_fingerprint(volume, voxel_size)),
        "sha256": {"image": file_checksum(image_path), "labels": file_checksum(label_path)},
    }


def check_case(
    name: str,
    volume: np.ndarray,
    voxel_size: float,
    labels: np.ndarray,
    label_voxel_size: float,
    class_names: Mapping[str, int],
) -> None:
    """Raise InputError, beginning with ``name``, unless volume (z, y, x) [1/m] and labels (z, y, x)
    uint8 fit each other. Voxel sizes [m]."""
    check_volume(volume, voxel_size, f"the volume of {name}")
    if labels.shape != volume.shape:
        raise InputError(
            f"{name}: labels must have the volume's shape {volume.shape}, got {labels.shape}; "
            "do they belong to another tomogram?"
        )
    # The files keep voxel sizes to the bit; a part in 10⁴ allows for other writers' float32.
    if not np.isclose(label_voxel_size, voxel_size, rtol=1e-4, atol=0):
        raise InputError(
            f"{name}: labels must have the volume's voxel size of {m_to_um(voxel_size):g} µm, "
            f"got {m_to_um(label_voxel_size):g} µm; was one of them binned?"
        )
    unnamed = sorted(set(np.unique(labels).tolist()) - set(class_names.values()))
    if unnamed:
        raise InputError(f"{name}: labels must be among {dict(class_names)}, got also {unnamed}")


def _check_every_class(present: Sequence[tuple[str, Sequence[int]]], class_names: Mapping[str, int]) -> None:
    found = {label for _, labels in present for label in labels}
    missing = [name for name, label in class_names.items() if label not in found]
    if missing:
        raise InputError(
            f"each class must occur in some case, got no voxel of {missing} in {[name for name, _ in present]}; "
            "leave the class out of class_names or add a case that shows it"
        )


def _dataset_json(identifiers: Sequence[str], class_names: Mapping[str, int]) -> dict[str, Any]:
    return {
        # "CT": clip and standardise by the whole data set's foreground, since µ is quantitative.
        "channel_names": {"0": "CT"},
        "labels": dict(class_names),
        "numTraining": len(identifiers),
        "file_ending": _ENDING,
        "overwrite_image_reader_writer": "SimpleITKIO",
        # Without explicit paths nnU-Net lists the folder through a pool of twelve processes.
        "dataset": {
            i: {"images": [f"imagesTr/{i}_0000{_ENDING}"], "label": f"labelsTr/{i}{_ENDING}"}
            for i in sorted(identifiers)
        },
    }


def _summary(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Least and greatest of each number over the cases."""
    prints = [VolumeFingerprint(**record["fingerprint"]) for record in records]
    return {
        "cases": len(prints),
        "mu": {f"{p:g}": _range([f.mu[f"{p:g}"] for f in prints]) for p in PERCENTILES},
        "noise": _range([f.noise for f in prints]),
        "voxel_size": _range([f.voxel_size for f in prints]),
    }


def _range(values: Sequence[float]) -> list[float]:
    return [min(values), max(values)]


def _write_image(path: Path, array: np.ndarray, voxel_size: float) -> None:
    sitk = _simpleitk()
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([m_to_um(voxel_size)] * 3)
    sitk.WriteImage(image, str(path), useCompression=False)


def _simpleitk() -> ModuleType:
    try:
        import SimpleITK
    except ImportError as error:
        raise MissingComponentError(
            "writing a training data set needs SimpleITK; install the extra with `pip install tomoforge[train]`"
        ) from error
    return SimpleITK
