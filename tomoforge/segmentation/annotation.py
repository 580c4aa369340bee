"""Labels from people: what of theirs is taken, and which volumes are worth their time.

A volume is worth labelling where the model is unsure of it and where it looks unlike those that the model was trained
on. The two have no common unit, so their ranks are averaged.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomoforge.errors import InputError
from tomoforge.label_files import LabelFileError, read_label_file
from tomoforge.label_orientation import better_orientation
from tomoforge.segmentation.case_records import content_hash
from tomoforge.segmentation.fingerprint import VolumeFingerprint, volume_fingerprint
from tomoforge.volumes import LABEL_NAMES, SLAB, open_level, read_labels, read_volume

_MOST_VOXELS = 1 << 24  # for a fingerprint; a larger volume gives every second, third, … slice


@dataclass(frozen=True)
class Candidate:
    """A segmented volume that a person could correct. subject : names it; volume, labels, uncertainty : paths of
    OME-Zarr folders of one grid, the last as ``predict_labels`` gives it (0 certain … 1)."""

    subject: str
    volume: str | Path
    labels: str | Path
    uncertainty: str | Path


@dataclass(frozen=True)
class QueueItem:
    """A candidate with its place in the queue.

    position : 1 is first; priority : mean of the two ranks, 0 … 1; uncertainty : its sum over the volume for each
    voxel that is labelled; distance : of the fingerprint from the training data, 0 within it, and ``parts`` of it;
    slices : (z, y, x) where the uncertainty is greatest; labels_sha256 : content, as approvals name it.
    """

    position: int
    subject: str
    priority: float
    uncertainty: float
    distance: float
    parts: Mapping[str, float]
    slices: tuple[int, int, int]
    labels_sha256: str
    candidate: Candidate


def import_labels(
    path: str | Path,
    volume: str | Path,
    *,
    names: Mapping[str, int] = LABEL_NAMES,
    check_orientation: bool = True,
) -> tuple[np.ndarray, float]:
    """Labels that a person made or corrected, checked against their volume.

    Parameters
    ----------
    path : TIFF (file or folder of slices), NRRD, NIfTI or OME-Zarr
    volume : OME-Zarr folder of the volume (z, y, x) [1/m] that they belong to
    names : which labels there may be
    check_orientation : compare with the grey values whether axes were swapped or mirrored on the way

    Returns
    -------
    labels : (z, y, x) uint8, and their voxel size [m]

    Raises
    ------
    LabelFileError
        As ``read_label_file``; also with the rules "empty labels" and "label orientation".
    """
    grey, voxel_size = read_volume(volume)
    z, y, x = grey.shape
    labels = read_label_file(path, voxel_size, shape=(z, y, x), names=names)
    if not labels.any():
        raise LabelFileError(
            "empty labels", f"{Path(path).name} shows background alone", "save the labels once they are drawn"
        )
    turned = better_orientation(grey, labels) if check_orientation else None
    if turned is not None:
        raise LabelFileError(
            "label orientation",
            f"{Path(path).name} fits the volume better with {turned}",
            "write it with the axes (z, y, x) in the volume's order and direction, or import it without this check",
        )
    return labels, voxel_size


def fingerprint_distance(measured: VolumeFingerprint, trained: Mapping[str, Any]) -> dict[str, float]:
    """How far a volume lies outside the training data: ``total`` and its parts ``mu``, ``noise``, ``voxel_size``.

    trained : ranges over the training volumes, as a data set or a model records them. Each part is 0 within the
    range. µ is measured in trained contrasts (greatest less least percentile), noise and voxel size in doublings;
    the total is their root sum of squares.
    """
    ranges = trained["mu"]
    contrast = max(high for _, high in ranges.values()) - min(low for low, _ in ranges.values())
    parts = {
        "mu": max(_outside(measured.mu[p], *ranges[p]) for p in ranges) / contrast,
        "noise": _doublings(measured.noise, *trained["noise"]),
        "voxel_size": _doublings(measured.voxel_size, *trained["voxel_size"]),
    }
    return {"total": math.sqrt(sum(part**2 for part in parts.values())), **parts}


def rank_candidates(
    candidates: Sequence[Candidate],
    trained: Mapping[str, Any],
    *,
    decided: Collection[str] = (),
    distance_weight: float = 0.5,
) -> list[QueueItem]:
    """Candidates in the order in which labelling them is worth most.

    Parameters
    ----------
    trained : fingerprint of the training data, ``read_dataset_record(…)["fingerprint"]`` or a model's
    decided : contents of labels (``labels_sha256``) that somebody approved or rejected already: left out
    distance_weight : of the rank by distance, 0 … 1; the rest is of the rank by uncertainty

    Raises
    ------
    InputError
        Two candidates of one name; a weight out of range; volume, labels and uncertainty of different shapes;
        an uncertainty that is not 0 … 1. The candidate is named.
    """
    if not 0 <= distance_weight <= 1:
        raise InputError(f"distance_weight must be 0 to 1, got {distance_weight!r}")
    subjects = [candidate.subject for candidate in candidates]
    if twice := sorted({s for s in subjects if subjects.count(s) > 1}):
        raise InputError(f"each candidate needs a subject of its own, got {twice} more than once")
    rows = []
    for candidate in candidates:
        labels, voxel_size = read_labels(candidate.labels)
        checksum = content_hash(labels, voxel_size)
        if checksum not in decided:
            unsure, slices = _uncertainty(candidate, labels)
            parts = fingerprint_distance(_fingerprint(candidate, voxel_size), trained)
            rows.append((candidate, checksum, unsure, parts.pop("total"), parts, slices))
    by_uncertainty, by_distance = (_ranks(v) for v in ([row[2] for row in rows], [row[3] for row in rows]))
    priority = (1 - distance_weight) * by_uncertainty + distance_weight * by_distance
    order = sorted(range(len(rows)), key=lambda i: (-priority[i], rows[i][0].subject))
    items = []
    for position, i in enumerate(order, start=1):
        candidate, checksum, unsure, distance, parts, slices = rows[i]
        items.append(
            QueueItem(
                position,
                candidate.subject,
                float(priority[i]),
                unsure,
                distance,
                parts,
                slices,
                checksum,
                candidate,
            )
        )
    return items


def _outside(value: float, low: float, high: float) -> float:
    return max(low - value, value - high, 0.0)


def _doublings(value: float, low: float, high: float) -> float:
    if value <= 0 or low <= 0:  # noise of a computed phantom: compared as it is, there is no ratio
        return _outside(value, low, high) / max(high, value, 1e-300)
    return _outside(math.log2(value), math.log2(low), math.log2(high))


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Share of the others that lie below, ties half: 0 … 1."""
    ranks = pd.Series(values, dtype=float).rank(method="average").to_numpy() - 1
    return ranks / max(len(values) - 1, 1)


def _fingerprint(candidate: Candidate, voxel_size: float) -> VolumeFingerprint:
    array = open_level(candidate.volume)
    step = max(1, math.ceil(math.prod(array.shape) / _MOST_VOXELS))
    try:
        return volume_fingerprint(np.asarray(array[::step]), voxel_size)
    except InputError as error:
        raise InputError(f"candidate {candidate.subject}: {error}") from error


def _uncertainty(candidate: Candidate, labels: np.ndarray) -> tuple[float, tuple[int, int, int]]:
    """Uncertainty for each labelled voxel, and the slices (z, y, x) where there is most; read slab by slab."""
    stored = open_level(candidate.uncertainty)
    if not stored.shape == labels.shape == open_level(candidate.volume).shape:
        raise InputError(
            f"candidate {candidate.subject}: volume, labels and uncertainty must be of one shape, got "
            f"{open_level(candidate.volume).shape}, {labels.shape} and {stored.shape}"
        )
    sums = [np.zeros(n) for n in labels.shape]
    for start in range(0, labels.shape[0], SLAB):
        slab = np.asarray(stored[start : start + SLAB], dtype=np.float64)
        if not (slab.min() >= 0 and slab.max() <= 1):  # NaN fails both
            raise InputError(f"candidate {candidate.subject}: uncertainty must be 0 to 1, got other values")
        sums[0][start : start + SLAB] = slab.sum(axis=(1, 2))
        sums[1] += slab.sum(axis=(0, 2))
        sums[2] += slab.sum(axis=(0, 1))
    z, y, x = (int(np.argmax(s)) for s in sums)
    labelled = int(np.count_nonzero(labels))
    # A model that finds nothing at all in a volume deserves a look, however sure it is.
    unsure = float(sums[0].sum()) / labelled if labelled else 1.0
    return unsure, (z, y, x)
