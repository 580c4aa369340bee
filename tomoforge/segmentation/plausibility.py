"""Can these labels be a mounted crystal? What speaks against it, with the reason and what to do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np

from tomoforge.errors import InputError
from tomoforge.segmentation.source import Readable
from tomoforge.units import m_to_um
from tomoforge.volumes import LABEL_NAMES, SLAB


@dataclass(frozen=True)
class Flag:
    """Something implausible. rule : its name; reason : what was found; remedy : what to do."""

    rule: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.rule.replace('_', ' ')}: {self.reason}; {self.remedy}"


@dataclass(frozen=True)
class Limits:
    """What is plausible: wide enough for every sample that was forged or published, narrow enough for an upset.

    crystal_size : least and greatest diameter of a ball of the crystal's volume [m]
    crystal_share, loop_share : least and greatest share of the sample's voxels
    sample_share : least and greatest share of the field's voxels
    wetted_share : least share of the crystal's surface that touches liquor
    crystals : most pieces of crystal
    uncertainty : greatest mean uncertainty of the crystal's voxels
    """

    crystal_size: tuple[float, float] = (5e-6, 2e-3)
    crystal_share: tuple[float, float] = (0.002, 0.9)
    loop_share: tuple[float, float] = (0.001, 0.8)
    sample_share: tuple[float, float] = (0.0005, 0.9)
    wetted_share: float = 0.02
    crystals: int = 8
    uncertainty: float = 0.25


@dataclass(frozen=True)
class LabelStatistics:
    """What one pass over a label volume counts.

    voxels : name → count; faces : name → faces that crystal shares with it, ``outside`` the field among them;
    sides : sides of the field that crystal reaches; uncertainty : mean over the crystal, None if not known;
    crystals : pieces of crystal, 26-connected.
    """

    voxel_size: float
    total: int
    voxels: Mapping[str, int]
    faces: Mapping[str, int]
    sides: tuple[str, ...]
    crystals: int
    uncertainty: float | None


def check_labels(
    labels: Readable,
    voxel_size: float,
    names: Mapping[str, int] = LABEL_NAMES,
    *,
    uncertainty: Readable | None = None,
    limits: Limits = Limits(),
) -> tuple[Flag, ...]:
    """What is implausible about labels; nothing where all is as it may be.

    Parameters
    ----------
    labels : (z, y, x) uint8, in memory or stored
    voxel_size : float [m]
    names : name → label. Samples without ``crystal`` or ``loop`` among them, grains for instance, are not judged
    uncertainty : (z, y, x) float, 0 … 1, from ``predict_labels``
    limits : what is plausible

    Raises
    ------
    InputError
        labels is not (z, y, x) uint8, uncertainty is of another shape, or voxel_size is not positive.
    """
    if not is_mounted_crystal(names):
        return ()
    return judge_labels(label_statistics(labels, voxel_size, names, uncertainty=uncertainty), limits)


def is_mounted_crystal(names: Mapping[str, int]) -> bool:
    """Whether labels of these names can be judged: they know crystal, loop and liquor."""
    return {"crystal", "loop", "liquor"} <= set(names)


def judge_labels(measured: LabelStatistics, limits: Limits = Limits()) -> tuple[Flag, ...]:
    """What is implausible about labels that were counted."""
    return tuple(_flags(measured, limits))


def label_statistics(
    labels: Readable,
    voxel_size: float,
    names: Mapping[str, int] = LABEL_NAMES,
    *,
    uncertainty: Readable | None = None,
) -> LabelStatistics:
    """Count what ``check_labels`` judges, ``SLAB`` slices in memory at a time and the crystal's own box."""
    shape = tuple(int(n) for n in labels.shape)
    if len(shape) != 3 or labels.dtype != np.uint8:
        raise InputError(f"labels must be (z, y, x) uint8, got {labels.dtype} of shape {shape}")
    if uncertainty is not None and tuple(uncertainty.shape) != shape:
        raise InputError(f"uncertainty must be of the labels' shape {shape}, got {tuple(uncertainty.shape)}")
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be positive metres, got {voxel_size!r}")
    crystal = names["crystal"]
    counts, faces = np.zeros(256, dtype=np.int64), np.zeros(256, dtype=np.int64)
    outside, unsure = np.zeros((3, 2), dtype=np.int64), 0.0
    for start in range(0, shape[0], SLAB):
        # One slice of the next slab: the faces between slabs.
        slab = np.asarray(labels[start : start + SLAB + 1])
        own = slab[:SLAB]
        counts += np.bincount(own.ravel(), minlength=256)
        found = own == crystal
        if found.any() and uncertainty is not None:
            unsure += float(np.asarray(uncertainty[start : start + SLAB])[found].sum(dtype=np.float64))
        faces += _faces(slab, own, crystal)
        ends = [found[0] if start == 0 else False, found[-1] if start + SLAB >= shape[0] else False]
        outside += [
            [np.count_nonzero(end) for end in ends],
            [np.count_nonzero(found[:, 0]), np.count_nonzero(found[:, -1])],
            [np.count_nonzero(found[:, :, 0]), np.count_nonzero(found[:, :, -1])],
        ]
    voxels = {name: int(counts[label]) for name, label in names.items()}
    sides = [f"{axis}{side}" for axis, row in zip("zyx", outside, strict=True)
             for side, count in zip("-+", row, strict=True) if count]  # fmt: skip
    return LabelStatistics(
        voxel_size=voxel_size,
        total=int(np.prod(shape)),
        voxels=voxels,
        faces={**{name: int(faces[label]) for name, label in names.items()}, "outside": int(outside.sum())},
        sides=tuple(sides),
        crystals=_pieces(labels, crystal) if voxels["crystal"] else 0,
        uncertainty=unsure / voxels["crystal"] if uncertainty is not None and voxels["crystal"] else None,
    )


def _faces(slab: np.ndarray, own: np.ndarray, crystal: int) -> np.ndarray:
    """Faces between crystal and each label; along z also those to the slice after ``own``."""
    counts = np.zeros(256, dtype=np.int64)
    for one, other in (
        (slab[:-1], slab[1:]),
        (own[:, :-1], own[:, 1:]),
        (own[:, :, :-1], own[:, :, 1:]),
    ):
        border = one != other
        for inner, outer in ((one, other), (other, one)):
            counts += np.bincount(outer[border & (inner == crystal)], minlength=256)
    return counts


def _pieces(labels: Readable, crystal: int) -> int:
    """Pieces of crystal, sought in its own box."""
    boxes = []
    for start in range(0, labels.shape[0], SLAB):
        found = np.asarray(labels[start : start + SLAB]) == crystal
        if found.any():
            z, y, x = (np.flatnonzero(found.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
            boxes.append((start + z[0], start + z[-1], y[0], y[-1], x[0], x[-1]))
    low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
    box = tuple(slice(int(low[2 * axis]), int(high[2 * axis + 1]) + 1) for axis in range(3))
    _, count = cc3d.connected_components(np.asarray(labels[box]) == crystal, connectivity=26, return_N=True)
    return int(count)


_LOOK = "look at the labels over the volume"
_MODEL = "look at the warnings of the training domain; a model trained nearer to this scan may do better"


def _flags(measured: LabelStatistics, limits: Limits) -> Iterator[Flag]:
    sample = sum(count for name, count in measured.voxels.items() if name != "background")
    if not sample:
        yield Flag("empty", "nothing but background was found", f"is there a sample in the field? {_MODEL}")
        return
    for name in ("crystal", "liquor", "loop"):
        if not measured.voxels[name]:
            yield Flag(f"no_{name}", f"no {name} was found", f"{_LOOK}; {_MODEL}")
    yield from _shares(measured, limits, sample)
    if measured.voxels["crystal"]:
        yield from _crystal_flags(measured, limits)


def _shares(measured: LabelStatistics, limits: Limits, sample: int) -> Iterator[Flag]:
    shares: Sequence[tuple[str, str, float, tuple[float, float]]] = (
        ("sample", "field", sample / measured.total, limits.sample_share),
        ("crystal", "sample", measured.voxels["crystal"] / sample, limits.crystal_share),
        ("loop", "sample", measured.voxels["loop"] / sample, limits.loop_share),
    )
    for name, whole, share, (low, high) in shares:
        if share and not low <= share <= high:
            yield Flag(
                f"{name}_share",
                f"the {name} fills {share:.2%} of the {whole}, plausible are {low:.2%} to {high:.0%}",
                f"{_LOOK}; {_MODEL}",
            )


def _crystal_flags(measured: LabelStatistics, limits: Limits) -> Iterator[Flag]:
    size = float(np.cbrt(6 / np.pi * measured.voxels["crystal"])) * measured.voxel_size
    low, high = limits.crystal_size
    if not low <= size <= high:
        yield Flag(
            "crystal_size",
            f"the crystal has the volume of a ball of {m_to_um(size):.3g} µm, plausible are {m_to_um(low):.3g} to "
            f"{m_to_um(high):.3g} µm",
            "is the voxel size right? " + _LOOK,
        )
    surface = sum(count for name, count in measured.faces.items() if name != "crystal")
    wetted = measured.faces["liquor"] / surface
    if wetted < limits.wetted_share:
        yield Flag(
            "crystal_dry",
            f"liquor touches {wetted:.1%} of the crystal's surface, at least {limits.wetted_share:.0%} is plausible",
            f"if the crystal is dry, all is well; else liquor was taken for something else: {_LOOK}",
        )
    if measured.sides:
        yield Flag(
            "crystal_cut",
            f"the crystal reaches the edge of the field ({', '.join(measured.sides)})",
            "absorption through what is outside is not known: reconstruct or scan a larger field",
        )
    if measured.crystals > limits.crystals:
        yield Flag(
            "crystal_pieces",
            f"the crystal is in {measured.crystals} pieces, at most {limits.crystals} are plausible",
            f"{_LOOK}; {_MODEL}",
        )
    if measured.uncertainty is not None and measured.uncertainty > limits.uncertainty:
        yield Flag(
            "crystal_unsure",
            f"the model's mean uncertainty of the crystal is {measured.uncertainty:.2f}, at most "
            f"{limits.uncertainty:.2f} is trusted",
            f"look at the uncertainty; {_MODEL}",
        )
