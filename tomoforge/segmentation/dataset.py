"""Training data sets in nnU-Net's raw format, made by reference to checked pairs of volume and labels.

No voxel is copied: ``dataset.json`` names the OME-Zarr folders of each case, and a reader that our worker registers
(``zarr_reader.py``) hands them to nnU-Net after comparing them with the hashes taken here.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tomoforge.errors import InputError, MissingComponentError, StorageError
from tomoforge.segmentation.case_records import (
    CaseRecord,
    TrainingCase,
    check_case,
    describe_case,
    pooled_intensities,
)
from tomoforge.segmentation.fingerprint import PERCENTILES
from tomoforge.segmentation.metrics import check_class_names
from tomoforge.segmentation.splits import Holdout, Split, check_split, folds_of, single_split
from tomoforge.storage import write_json_atomic
from tomoforge.units import m_to_um
from tomoforge.volumes import LABEL_NAMES, read_labels, read_volume

__all__ = [
    "CaseRecord",
    "TrainingCase",
    "check_case",
    "read_dataset_record",
    "write_dataset",
    "write_records",
]

DATASET_ID = 1
DATASET_NAME = f"Dataset{DATASET_ID:03d}_tomoforge"
RECORD = "tomoforge.json"  # written last: a data set without it is unfinished
READER = "OmeZarrIO"  # the class in ``zarr_reader.py``
_COPY_ENDING = ".mha"  # holds the spacing as decimal text; NIfTI would round it to float32
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_VOXEL_FACTOR = 10.0  # between cases: binning goes to 8, a wrong unit begins at 10


def write_dataset(
    directory: str | Path,
    cases: Sequence[TrainingCase],
    class_names: Mapping[str, int] = LABEL_NAMES,
    *,
    validation: Sequence[str] | None = None,
    folds: int | None = None,
    holdout: Holdout | None = None,
    location: str | Path | None = None,
    copies: bool = False,
) -> Path:
    """Check labelled volumes and write them as a data set of nnU-Net.

    Parameters
    ----------
    directory : becomes an ``nnUNet_raw`` folder holding one data set
    cases : volumes float32 [1/m] and labels uint8, (z, y, x). Keep test data out: everything
        given here shapes the intensity normalisation.
    class_names : name → label
    validation : identifiers that only measure progress; None takes every fifth of each source, at least the last.
        A single case is trained and validated on itself.
    folds : instead, so many splits for a cross-validation, stratified by source
    holdout : cases that must not be among ``cases``
    location : where ``directory`` will lie in the end, if it is renamed afterwards: paths are relative to it
    copies : write the voxels once more, as MetaImage, for nnU-Net's own commands, which know no OME-Zarr

    Returns
    -------
    Path
        The folder of the data set.

    Raises
    ------
    InputError
        A case is named twice, or is there twice under two names; it is held out; its volume and labels differ in
        shape or voxel size; its volume holds NaN or is constant; it has a label without a name or background alone;
        its voxel size is another order of magnitude than the others'; a class occurs in no case that trains.
    """
    check_class_names(class_names)
    _check_identifiers([case.identifier for case in cases])
    folder = Path(directory) / DATASET_NAME
    (folder / RECORD).unlink(missing_ok=True)
    records = [describe_case(case, class_names) for case in cases]
    return write_records(
        directory,
        records,
        class_names,
        validation=validation,
        folds=folds,
        holdout=holdout,
        location=location,
        copies=copies,
    )


def write_records(
    directory: str | Path,
    records: Sequence[CaseRecord],
    class_names: Mapping[str, int] = LABEL_NAMES,
    *,
    validation: Sequence[str] | None = None,
    folds: int | None = None,
    holdout: Holdout | None = None,
    location: str | Path | None = None,
    copies: bool = False,
    version: str | None = None,
) -> Path:
    """``write_dataset`` of cases that were described before, without reading them again.

    version : key of the version that the cases make up, kept in the record
    """
    check_cases(records, class_names, holdout)
    splits = _splits(records, class_names, validation, folds)
    for split in splits:
        check_split(split, records, class_names)
    folder = Path(directory) / DATASET_NAME
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    home = Path(location or directory).absolute() / DATASET_NAME
    ordered = sorted(records, key=lambda record: record.identifier)
    paths = {r.identifier: _copied(folder, r) if copies else _referenced(home, r) for r in ordered}
    write_json_atomic(folder / "splits_final.json", splits)
    write_json_atomic(folder / "dataset.json", _dataset_json(paths, class_names, copies))
    stored = []
    for record in ordered:
        (image,), label = paths[record.identifier]["images"], paths[record.identifier]["label"]
        stored.append({**record.to_dict(), "volume": image, "labels": label})
    write_json_atomic(
        folder / RECORD,
        {
            "class_names": dict(class_names),
            "cases": stored,
            "fingerprint": _summary(records),
            "normalisation": pooled_intensities(records),
            "holdout": None if holdout is None else holdout.sha256,
            "version": version,
        },
    )
    return folder


def read_dataset_record(directory: str | Path) -> dict[str, Any]:
    """What ``write_dataset`` recorded: class names, cases with hashes, fingerprint, normalisation.

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


def check_cases(
    records: Sequence[CaseRecord], class_names: Mapping[str, int], holdout: Holdout | None = None
) -> None:
    """Raise InputError unless the cases make one data set: names and contents of their own, one order of voxel
    sizes, every class somewhere, none held out."""
    _check_identifiers([record.identifier for record in records])
    if holdout is not None:
        holdout.refuse(records)
    seen: dict[str, str] = {}
    for record in records:
        other = seen.setdefault(record.volume_sha256, record.identifier)
        if other != record.identifier:
            raise InputError(
                f"case {record.identifier}: its volume is that of case {other} already; give each volume once, with "
                "the labels that hold"
            )
    middle = float(np.median([record.voxel_size for record in records]))
    for record in records:
        if not 1 / _VOXEL_FACTOR < record.voxel_size / middle < _VOXEL_FACTOR:
            raise InputError(
                f"case {record.identifier}: its voxel size of {m_to_um(record.voxel_size):g} µm must be of the order "
                f"of the others' {m_to_um(middle):g} µm; was its unit mistaken?"
            )
    found = {label for record in records for label in record.present}
    if missing := [name for name, label in class_names.items() if label not in found]:
        raise InputError(
            f"each class must occur in some case, got no voxel of {missing} in {[r.identifier for r in records]}; "
            "leave the class out of class_names or add a case that shows it"
        )


def _check_identifiers(identifiers: Sequence[str]) -> None:
    if not identifiers:
        raise InputError("cases must hold at least one labelled volume, got none")
    given = [identifier for identifier in identifiers if identifier]
    for identifier in given:
        if not _IDENTIFIER.fullmatch(identifier):
            raise InputError(
                f"a case identifier must be letters, digits, '-' and '_' (it names files), got {identifier!r}"
            )
    if twice := sorted({i for i in given if given.count(i) > 1}):
        raise InputError(f"each case needs an identifier of its own, got {twice} more than once")


def _splits(
    records: Sequence[CaseRecord],
    class_names: Mapping[str, int],
    validation: Sequence[str] | None,
    folds: int | None,
) -> list[Split]:
    if folds is not None:
        if validation is not None:
            raise InputError("give validation or folds, not both: folds hold every case back once")
        return folds_of(records, folds)
    if validation is None:
        return [single_split(records, class_names.values())]
    ordered = sorted(record.identifier for record in records)
    held = sorted(set(validation))
    if set(held) - set(ordered) or not held or len(held) == len(ordered):
        raise InputError(
            f"validation must name some, not all, of the cases {ordered}, got {list(validation)}"
        )
    return [{"train": [i for i in ordered if i not in held], "val": held}]


def _referenced(home: Path, record: CaseRecord) -> dict[str, Any]:
    return {"images": [_path_from(home, record.volume)], "label": _path_from(home, record.labels)}


def _path_from(home: Path, path: str) -> str:
    """Relative, so that a workspace can be moved; absolute where the two share nothing but the root."""
    if os.path.commonpath([home, path]) == os.path.sep:
        return path
    return os.path.relpath(path, home)


def _copied(folder: Path, record: CaseRecord) -> dict[str, Any]:
    image = f"imagesTr/{record.identifier}_0000{_COPY_ENDING}"
    label = f"labelsTr/{record.identifier}{_COPY_ENDING}"
    _write_image(folder / image, read_volume(record.volume)[0], record.voxel_size)
    _write_image(folder / label, read_labels(record.labels)[0], record.voxel_size)
    return {"images": [image], "label": label}


def _dataset_json(
    paths: Mapping[str, Mapping[str, Any]], class_names: Mapping[str, int], copies: bool
) -> dict[str, Any]:
    return {
        # "CT": clip and standardise by the whole data set's foreground, since µ is quantitative.
        "channel_names": {"0": "CT"},
        "labels": dict(class_names),
        "numTraining": len(paths),
        "file_ending": _COPY_ENDING if copies else ".zarr",
        "overwrite_image_reader_writer": "SimpleITKIO" if copies else READER,
        # Without explicit paths nnU-Net lists the folder through a pool of twelve processes.
        "dataset": dict(paths),
    }


def _summary(records: Sequence[CaseRecord]) -> dict[str, Any]:
    """Least and greatest of each number over the cases."""
    prints = [record.fingerprint for record in records]
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
    path.parent.mkdir(exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([m_to_um(voxel_size)] * 3)
    sitk.WriteImage(image, str(path), useCompression=False)


def _simpleitk() -> ModuleType:
    try:
        import SimpleITK
    except ImportError as error:
        raise MissingComponentError(
            "copying a training data set needs SimpleITK; install the extra with `pip install tomoforge[train]`"
        ) from error
    return SimpleITK
