"""What a prediction reads: a volume of any size, slab by slab, made ready for the network.

Cropping, clipping, scaling and resampling are those of nnU-Net's preprocessor, which takes whole volumes only.
"""

import functools
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from scipy import ndimage, sparse

from tomoforge.errors import InputError
from tomoforge.units import m_to_um
from tomoforge.volumes import SLAB

_LEAST_WEIGHT = 1e-9  # a cubic spline's memory falls by 0.268 a voxel: here it ends after 16
_BLOCKS_KEPT = 2  # of SLAB slices; what is resampled overlaps with what was resampled before

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


class Readable(Protocol):
    """An array in memory, memory-mapped or of Zarr."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, key: Any) -> Any: ...


@dataclass(frozen=True)
class Survey:
    """What one pass over a volume tells.

    shape : (z, y, x); voxel_size [m]; low, high : least and greatest µ [1/m]; box : (start, stop) an axis of all
    that is not zero.
    """

    shape: tuple[int, int, int]
    voxel_size: float
    low: float
    high: float
    box: Box

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Survey":
        """Back from ``to_dict``, also by way of JSON."""
        z, y, x = ((int(start), int(stop)) for start, stop in values["box"])
        return cls(**{**values, "shape": tuple(values["shape"]), "box": (z, y, x)})


def survey_volume(volume: Readable, voxel_size: float) -> Survey:
    """Look through a volume (z, y, x) float [1/m] once, ``SLAB`` slices in memory at a time.

    Raises
    ------
    InputError
        It is not (z, y, x), floating-point, finite and varying, or voxel_size [m] is not positive.
    """
    if len(volume.shape) != 3 or min(volume.shape) < 1:
        raise InputError(f"volume must be (z, y, x), got shape {tuple(volume.shape)}")
    if not np.issubdtype(volume.dtype, np.floating):
        raise InputError(
            f"volume must hold floating-point µ in 1/m, got {volume.dtype}; was it scaled to integers?"
        )
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size of volume must be positive metres, got {voxel_size!r}")
    low, high = math.inf, -math.inf
    boxes: list[Box] = []
    for start in range(0, volume.shape[0], SLAB):
        slab = np.asarray(volume[start : start + SLAB])
        # Min and max carry NaN and infinities along.
        least, greatest = float(slab.min()), float(slab.max())
        if not (np.isfinite(least) and np.isfinite(greatest)):
            bad = int(slab.size - np.isfinite(slab).sum())
            raise InputError(
                f"volume must be finite, got {bad} voxels that are NaN or infinite in slices {start} to "
                f"{start + len(slab) - 1}; reconstruct it again"
            )
        low, high = min(low, least), max(high, greatest)
        box = filled_box(slab)
        if box is not None:
            boxes.append(((box[0][0] + start, box[0][1] + start), *box[1:]))
    if low == high:
        raise InputError(
            f"volume must not be constant, got {low:g} 1/m everywhere; did its reconstruction fail?"
        )
    z, y, x = ((min(a for a, _ in spans), max(b for _, b in spans)) for spans in zip(*boxes, strict=True))
    shape = (int(volume.shape[0]), int(volume.shape[1]), int(volume.shape[2]))
    return Survey(shape, float(voxel_size), low, high, (z, y, x))


def filled_box(volume: np.ndarray) -> Box | None:
    """(start, stop) an axis of what is not zero in a volume (z, y, x); None where all is zero."""
    filled = volume != 0
    if not filled.any():
        return None
    z, y, x = (np.flatnonzero(filled.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    return (int(z[0]), int(z[-1]) + 1), (int(y[0]), int(y[-1]) + 1), (int(x[0]), int(x[-1]) + 1)


class Prepared:
    """A volume within its box at the network's resolution, some slices at a time.

    shape : (z, y, x) at the network's resolution; native : (z, y, x) of the box as it was measured.
    """

    def __init__(
        self, volume: Readable, survey: Survey, spacing_um: Sequence[float], intensity: Mapping[str, float]
    ) -> None:
        """spacing_um : (z, y, x) of the network, or (y, x) where it sees slices; intensity : nnU-Net's statistics
        ``mean``, ``std``, ``percentile_00_5`` and ``percentile_99_5`` of the training volumes [1/m]."""
        self._volume = volume
        self._box = survey.box
        self._intensity = intensity
        self._blocks: OrderedDict[int, np.ndarray] = OrderedDict()
        voxel_um = m_to_um(survey.voxel_size)
        spacing = [voxel_um, *spacing_um] if len(spacing_um) == 2 else list(spacing_um)
        self.native = tuple(stop - start for start, stop in survey.box)
        self.shape = tuple(max(1, round(voxel_um / s * n)) for n, s in zip(self.native, spacing, strict=True))
        # nnU-Net's resampling lets no value leave the range that it had before.
        ends = self._normalise(np.array([survey.low, survey.high], dtype=np.float32))
        self._range = float(ends[0]), float(ends[1])

    def planes(self, start: int, stop: int) -> np.ndarray:
        """Slices (z, y, x) float32 from ``start`` to ``stop`` at the network's resolution."""
        if self.shape == self.native:
            return self._read(start, stop)
        in_z, in_y, in_x = (_cubic(n, m) for n, m in zip(self.native, self.shape, strict=True))
        rows = in_z[start:stop]
        first, last = int(rows.indices.min()), int(rows.indices.max()) + 1
        block = self._read(first, last)
        along_z = rows[:, first:last] @ block.reshape(len(block), -1)
        resampled = np.empty((stop - start, *self.shape[1:]), dtype=np.float32)
        for plane, target in zip(along_z.reshape(-1, *self.native[1:]), resampled, strict=True):
            target[:] = (in_x @ (in_y @ plane).T).T
        low, high = self._range
        return np.clip(resampled, low, high, out=resampled)

    def _read(self, start: int, stop: int) -> np.ndarray:
        """Slices of the box as they were measured, clipped and scaled."""
        rows, columns = (slice(*span) for span in self._box[1:])
        first, last = start + self._box[0][0], stop + self._box[0][0]
        parts = []
        for index in range(first // SLAB, -(-last // SLAB)):
            if index not in self._blocks:
                block = np.array(self._volume[index * SLAB : (index + 1) * SLAB, rows, columns], np.float32)
                self._blocks[index] = self._normalise(block)
                while len(self._blocks) > _BLOCKS_KEPT:
                    self._blocks.popitem(last=False)
            parts.append(self._blocks[index][max(0, first - index * SLAB) : last - index * SLAB])
        return np.concatenate(parts) if len(parts) > 1 else parts[0].copy()

    def _normalise(self, values: np.ndarray) -> np.ndarray:
        """nnU-Net's CT scheme, in place."""
        known = self._intensity
        np.clip(values, known["percentile_00_5"], known["percentile_99_5"], out=values)
        values -= np.float32(known["mean"])
        values /= np.float32(max(known["std"], 1e-8))
        return values


@functools.cache
def _cubic(inside: int, outside: int) -> sparse.csr_array:
    """Cubic spline from ``inside`` to ``outside`` samples of the same length, as a matrix.

    Centres of voxels: place inside = scale (place outside + ½) − ½; beyond the ends the last value goes on. An axis
    at a time by sparse matrices is fifty times faster than ndimage's 64 neighbours a voxel.
    """
    if inside == outside:
        return sparse.csr_array(sparse.eye_array(inside, dtype=np.float32))
    scale = inside / outside
    weights = ndimage.affine_transform(
        np.eye(inside),
        np.diag([scale, 1.0]),
        offset=[0.5 * scale - 0.5, 0.0],
        output_shape=(outside, inside),
        order=3,
        mode="nearest",
    )
    weights[np.abs(weights) < _LEAST_WEIGHT] = 0
    return sparse.csr_array(weights.astype(np.float32))
