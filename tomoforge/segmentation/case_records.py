"""One labelled tomogram: read once, checked for what nnU-Net passes in silence, and described by what it holds.

A case is named by its content, ``<volume>-<labels>``: 16 hexadecimal digits of the hash of each. So the same volume
with corrected labels is another case of the same volume, and both parts can be told from the name alone.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tomoforge.errors import InputError
from tomoforge.segmentation.fingerprint import VolumeFingerprint, check_volume, volume_fingerprint
from tomoforge.storage import to_json
from tomoforge.units import m_to_um
from tomoforge.volumes import read_labels, read_volume

Source = Literal["real", "forged", "pseudo"]
SOURCES: tuple[Source, ...] = ("real", "forged", "pseudo")
BY_CONTENT = ""  # as an identifier: the case is named by its content

_DIGITS = 16  # of each hash in a name: 64 bits, so that no two cases ever made share one by chance
_QUANTILES = np.linspace(0, 1, 401)  # 0.25 % apart, so 0.5 and 99.5 % are among them
_MOST_FOREGROUND = 1 << 24  # voxels sorted for the quantiles; of more, every second, third, …


@dataclass(frozen=True)
class TrainingCase:
    """One labelled tomogram: paths of its volume and its labels, both OME-Zarr.

    identifier : names it; BY_CONTENT lets its content do so. source : where the pair comes from. group : what must
    not be torn apart into training and validation, such as all reconstructions of one sample; None is the volume.
    origin : JSON values kept with it (keys of artefacts, recipe, who labelled); a "pseudo" case needs
    ``origin["approval"]``, the hash of the decision that approved its labels.
    """

    identifier: str
    volume: str | Path
    labels: str | Path
    source: Source = "forged"
    group: str | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseRecord:
    """What is known of a case without reading it again.

    volume, labels : absolute paths; shape (z, y, x); voxel_size [m]; present : labels that occur; volume_sha256,
    labels_sha256 : of content, shape and voxel size, wherever and however compressed they are stored;
    fingerprint : of the volume; intensities : of the voxels with a label, ``mean``, ``std`` and ``quantiles`` [1/m].
    """

    identifier: str
    source: Source
    group: str
    origin: Mapping[str, Any]
    volume: str
    labels: str
    shape: tuple[int, ...]
    voxel_size: float
    present: tuple[int, ...]
    volume_sha256: str
    labels_sha256: str
    fingerprint: VolumeFingerprint
    intensities: Mapping[str, Any]

    @property
    def content(self) -> str:
        """The name that the content gives."""
        return content_name(self.volume_sha256, self.labels_sha256)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return json.loads(to_json(asdict(self)))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "CaseRecord":
        """The record again."""
        tuples = {name: tuple(stored[name]) for name in ("shape", "present")}
        return cls(**{**stored, **tuples, "fingerprint": VolumeFingerprint(**stored["fingerprint"])})


def content_name(volume_sha256: str, labels_sha256: str) -> str:
    """Name of a case by its content."""
    return f"{volume_sha256[:_DIGITS]}-{labels_sha256[:_DIGITS]}"


def volume_part(name: str) -> str:
    """Of a case's name by its content, the part that its volume gives."""
    return name.partition("-")[0]


def content_hash(array: np.ndarray, voxel_size: float) -> str:
    """SHA-256 of a volume (z, y, x) float32 or uint8: shape, type, voxel size [m] and values."""
    digest = hashlib.sha256(f"{array.dtype.name} {array.shape} {float(voxel_size)!r}\n".encode())
    for slab in array:  # a slice at a time: no second copy of a volume that is not contiguous
        digest.update(np.ascontiguousarray(slab).data)
    return digest.hexdigest()


def describe_case(case: TrainingCase, class_names: Mapping[str, int]) -> CaseRecord:
    """Read and check a case.

    Raises
    ------
    InputError
        Beginning with the case's name: its source is unknown, or a pseudo-label that nobody approved; or as
        ``check_case``.
    StorageError
        Its volume or labels cannot be read.
    """
    name = f"case {case.identifier or case.volume}"
    _check_source(name, case)
    volume, voxel_size = read_volume(case.volume)
    labels, label_voxel_size = read_labels(case.labels)
    check_case(name, volume, voxel_size, labels, label_voxel_size, class_names)
    volume = volume.astype(np.float32, copy=False)
    volume_sha256, labels_sha256 = content_hash(volume, voxel_size), content_hash(labels, voxel_size)
    return CaseRecord(
        identifier=case.identifier or content_name(volume_sha256, labels_sha256),
        source=case.source,
        group=case.group or volume_sha256[:_DIGITS],
        origin=json.loads(to_json(dict(case.origin))),
        volume=str(Path(case.volume).absolute()),
        labels=str(Path(case.labels).absolute()),
        shape=volume.shape,
        voxel_size=voxel_size,
        present=tuple(int(label) for label in np.unique(labels)),
        volume_sha256=volume_sha256,
        labels_sha256=labels_sha256,
        fingerprint=volume_fingerprint(volume, voxel_size),
        intensities=_intensities(volume[labels > 0]),
    )


def check_case(
    name: str,
    volume: np.ndarray,
    voxel_size: float,
    labels: np.ndarray,
    label_voxel_size: float,
    class_names: Mapping[str, int],
) -> None:
    """Raise InputError, beginning with ``name``, unless volume (z, y, x) [1/m] and labels (z, y, x) uint8 fit each
    other: finite and not constant, one grid, known classes, not background alone. Voxel sizes [m]."""
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
    if not labels.any():
        raise InputError(
            f"{name}: labels must show some class, got background alone; was the labelling ever done?"
        )


def pooled_intensities(records: Sequence[CaseRecord]) -> dict[str, float]:
    """Statistics of µ [1/m] over the labelled voxels of all cases, each case counting alike.

    As nnU-Net's "CT" normalisation defines them: values are clipped to ``percentile_00_5`` … ``percentile_99_5``,
    then ``mean`` is taken away and the rest divided by ``std``.
    """
    means = np.array([record.intensities["mean"] for record in records])
    squares = np.array([record.intensities["std"] for record in records]) ** 2 + means**2
    pooled = np.concatenate([record.intensities["quantiles"] for record in records])
    low, median, high = (float(v) for v in np.percentile(pooled, [0.5, 50.0, 99.5]))
    mean = float(means.mean())
    return {
        "mean": mean,
        "std": float(np.sqrt(max(squares.mean() - mean**2, 0.0))),
        "percentile_00_5": low,
        "median": median,
        "percentile_99_5": high,
        "min": float(pooled.min()),
        "max": float(pooled.max()),
    }


def _check_source(name: str, case: TrainingCase) -> None:
    if case.source not in SOURCES:
        raise InputError(f"{name}: source must be one of {', '.join(SOURCES)}, got {case.source!r}")
    if case.source == "pseudo" and not case.origin.get("approval"):
        raise InputError(
            f"{name}: a pseudo-label must name the decision that approved it in origin['approval'], got none; "
            "let a person look at it first"
        )


def _intensities(values: np.ndarray) -> dict[str, Any]:
    values = values[:: -(-values.size // _MOST_FOREGROUND)]
    # Seven digits are float32's own; more would only make the record longer.
    quantiles = [float(f"{v:.7g}") for v in np.quantile(values, _QUANTILES)]
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "std": float(values.std(dtype=np.float64)),
        "quantiles": quantiles,
    }
