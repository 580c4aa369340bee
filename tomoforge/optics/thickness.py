"""Path length of every material behind every detector pixel.

Joseph's method (IEEE Trans. Med. Imaging 1, 192 (1982)) on the indicator function of each label, or on occupied
fractions: a ray visits each voxel row (or column) once and shares its step linearly between the two nearest voxels.
Interpolating indicators, never label values, keeps the materials apart. No volume is rotated, no float volume made.

Labels give each body the surface of its voxels: chords of a smooth body are rounded at both ends, 0.3–0.6 voxel rms.
Fractions of partly filled voxels bring that to 0.06–0.24 voxel; at a rim, where a chord's slope is infinite, voxels
blur by one pixel whatever they hold.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tomoforge.backend import array_module
from tomoforge.errors import InputError
from tomoforge.optics import thickness_cuda, thickness_kernels
from tomoforge.optics.thickness_cuda import DeviceColumns

# Beyond this lean (six degrees) the scan is a laminography, and shallow rays leave through the top.
LARGEST_TILT = 0.1


@dataclass(frozen=True)
class LabelRuns:
    """A label volume as runs of equal labels along z, the background left out; read by every angle.

    shape : (z, y, x) voxels; offsets : (y·x + 1,) int64, runs of column (y, x) begin at offsets[y·nx + x]; runs : (run,
    2) uint32, label·(nz + 1) + z where a run begins and where it has ended; occurs : (label,) bool, which labels there
    are, from 0 to the largest.

    Notes: 8 bytes a run and 8 a column. A wet crystal in a loop has 0.7 runs a column over the whole field (3.4 MB at
    512³), grains of a few voxels 10–30 for each 256 voxels, noise from voxel to voxel half a run a voxel: 4 bytes each.
    """

    shape: tuple[int, int, int]
    offsets: np.ndarray
    runs: np.ndarray
    occurs: np.ndarray

    @property
    def nbytes(self) -> int:
        """Memory held [bytes]."""
        return self.offsets.nbytes + self.runs.nbytes + self.occurs.nbytes


@dataclass(frozen=True)
class FractionColumns:
    """Occupied fractions with z innermost; read by every angle.

    shape : (z, y, x) voxels; values : (y, x, material, z) float32, materials from 1 on; first, last : (y, x)
    int32, the occupied range along z.
    """

    shape: tuple[int, int, int]
    values: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @property
    def n_materials(self) -> int:
        """Number of materials with the background."""
        return self.values.shape[2] + 1


def label_runs(labels: np.ndarray) -> LabelRuns:
    """Runs of equal labels along z of a (z, y, x) uint8 volume, to be made once and projected many times.

    Raises InputError for what is no label volume.
    """
    return _runs_of(check_labels(labels, 256))


def _runs_of(checked: np.ndarray) -> LabelRuns:
    array = np.ascontiguousarray(checked)
    nz, ny, nx = array.shape
    counts = thickness_kernels.count_runs(array)
    offsets = np.zeros(ny * nx + 1, np.int64)
    np.cumsum(counts.ravel(), out=offsets[1:])
    runs = np.empty((int(offsets[-1]), 2), np.uint32)
    thickness_kernels.fill_runs(array, offsets, runs)
    occurs = np.bincount(runs[:, 0] // np.uint32(nz + 1), minlength=1) > 0
    return LabelRuns((nz, ny, nx), offsets, runs, occurs)


def fraction_columns(fractions: np.ndarray, n_materials: int) -> FractionColumns:
    """Fractions (material, z, y, x) with z brought innermost, to be made once and projected many times.

    ``fractions`` holds either materials 1 to n_materials − 1, or all n_materials with the background first; the
    background is always what the others leave, so that its entry is not read.

    Raises InputError for another number of materials, values outside 0…1, or a sum above 1.
    """
    check_fractions(fractions, n_materials)
    solid = fractions[-(n_materials - 1) :]
    values = np.ascontiguousarray(solid.transpose(2, 3, 0, 1), dtype=np.float32)
    first, last = thickness_kernels.occupied_range(values)
    nz, ny, nx = solid.shape[1:]
    return FractionColumns((nz, ny, nx), values, first, last)


def plane_depths(
    shape: tuple[int, int, int], voxel_size: float, planes: int, *, depth_extent: float | None = None
) -> np.ndarray:
    """Where the planes of ``project_thickness`` stand, relative to the rotation axis along +w: (plane,) float64 [m].

    One plane stands at the axis, 0. More are evenly spread from −extent/2 to +extent/2, both ends included, the same
    at all angles. ``depth_extent`` [m] is max(ny, nx)·voxel_size if None: the diameter of the circle that stays on
    the detector at every angle, so that a scanned sample lies between the outermost planes and its shares keep their
    centre of mass. Only corners of the field can lie outside, up to 0.21 extents; they count with the end plane. A
    smaller ``depth_extent``, such as a thin sample's diameter, puts the same planes closer together.

    Raises InputError for fewer planes than one or sizes that are not positive.
    """
    if planes < 1 or int(planes) != planes:
        raise InputError(f"planes must be a whole number, at least 1, got {planes!r}")
    _check_positive("voxel_size", voxel_size)
    extent = max(shape[1:]) * voxel_size if depth_extent is None else depth_extent
    _check_positive("depth_extent", extent)
    return np.zeros(1) if planes == 1 else np.linspace(-extent / 2, extent / 2, planes)


def project_thickness(
    labels: Any,
    voxel_size: float,
    angles: np.ndarray,
    n_materials: int,
    *,
    n_columns: int | None = None,
    rotation_centre: float | None = None,
    oversampling: int = 1,
    planes: int = 1,
    depth_extent: float | None = None,
    axis_tilt: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Path length of every material for every detector pixel and angle, for a parallel beam.

    Parameters
    ----------
    labels : (z, y, x) uint8, label m is material m, 0 the background; or fractions (material, z, y, x) float32 of
        materials 1 to n_materials − 1, or of all n_materials with the background, which is then not read, first.
        Those on a GPU (CuPy) are projected there. ``prepare_volume(labels, n_materials)`` does once what each
        call would otherwise do again, and may be given instead.
    voxel_size : float [m], also the detector pixel.
    angles : (angle,) [rad], convention of ``tomoforge.geometry``; any list: half or full turns, tilt series.
    n_materials : number of materials with the background, so that labels run from 0 to n_materials − 1.
    n_columns : detector columns, the width of the volume if None.
    rotation_centre : detector column [pixels] on which the axis (the centre of the volume) falls; the
        middle if None.
    oversampling : columns a pixel is divided into; rays run through the centres of the divisions.
    planes : slabs along the beam; each point of a ray is shared linearly by the two planes next to it, which stand at
        ``plane_depths(shape, voxel_size, planes, depth_extent=depth_extent)``. The planes sum to ``planes=1``.
    depth_extent : float [m] from first to last plane; see ``plane_depths``.
    axis_tilt : two small leans of the rotation axis [rad]: in the detector's plane, positive where the end at large z
        leans towards growing columns, and along the beam, positive where that end leans downstream; the axis is
        met at the volume's middle row. Planes lean with the axis. Host arrays only.

    Returns
    -------
    (angle, material, y, x) float32 [m], with planes > 1 (angle, plane, material, y, x); y is the volume's z, x has
    n_columns·oversampling entries. Material 0 is the way through background inside the volume. The same bytes
    for any number of threads and any batch of angles. On the GPU of the labels, if they lie on one.

    Raises
    ------
    InputError
        For a label that has no material, an empty volume, fractions outside 0…1, an angle that is not finite, sizes
        that are not positive, a tilt beyond 0.1 rad.
    """
    angles = np.atleast_1d(np.asarray(angles, dtype=np.float64))
    if angles.ndim != 1 or angles.size == 0 or not np.isfinite(angles).all():
        raise InputError(f"angles must be a non-empty list of finite radians, got {angles!r}")
    _check_positive("voxel_size", voxel_size)
    if oversampling < 1:
        raise InputError(f"oversampling must be at least 1, got {oversampling}")
    if n_columns is not None and n_columns < 1:
        raise InputError(f"n_columns must be at least 1, got {n_columns}")
    if rotation_centre is not None and not np.isfinite(rotation_centre):
        raise InputError(f"rotation_centre must be a finite detector column, got {rotation_centre!r}")
    roll, pitch = _checked_tilt(axis_tilt)
    volume = prepare_volume(labels, n_materials)
    shape = volume.shape
    columns = shape[2] if n_columns is None else n_columns
    centre = (columns - 1) / 2 if rotation_centre is None else rotation_centre
    fine = (np.arange(columns * oversampling) + 0.5) / oversampling - 0.5 - centre  # u in pixels
    depths = plane_depths(shape, voxel_size, planes, depth_extent=depth_extent) / voxel_size
    spread = (depths[0], depths[1] - depths[0]) if planes > 1 else (0.0, 1.0)
    if isinstance(volume, DeviceColumns):
        if roll or pitch:
            raise InputError(f"axis_tilt must be (0, 0) on a GPU, got {axis_tilt}; pass host arrays")
        xp = array_module(volume.values)
        found = thickness_cuda.project(xp, volume, angles, fine, planes, spread, voxel_size)
    elif roll or pitch:
        wide = _widened(fine, oversampling, shape[0], roll)
        upright = _project(volume, angles, n_materials, wide, planes, spread, pitch, voxel_size)
        found = np.empty((*upright.shape[:-1], fine.size), np.float32)
        thickness_kernels.turn_images(
            upright.reshape(-1, *upright.shape[-2:]), fine, 1 / oversampling, wide[0],
            np.cos(roll), np.sin(roll), 1 / np.cos(pitch), found.reshape(-1, *found.shape[-2:]),
        )  # fmt: skip
    else:
        found = _project(volume, angles, n_materials, fine, planes, spread, pitch, voxel_size)
    return found[:, 0] if planes == 1 else found


def _project(
    volume: LabelRuns | FractionColumns,
    angles: np.ndarray,
    n_materials: int,
    fine: np.ndarray,
    planes: int,
    spread: tuple[float, float],
    pitch: float,
    voxel_size: float,
) -> np.ndarray:
    """(angle, plane, material, y, column) float32 [m] with the axis upright in the detector's plane."""
    cosines, sines = np.cos(angles), np.sin(angles)
    scale = voxel_size / np.maximum(np.abs(cosines), np.abs(sines)) / np.cos(pitch)
    out = np.empty((angles.size, planes, n_materials, volume.shape[0], fine.size), dtype=np.float32)
    common = (cosines, sines, fine, spread, float(np.tan(pitch)), scale, out)
    if isinstance(volume, LabelRuns):
        thickness_kernels.project_runs(volume.offsets, volume.runs, volume.occurs, volume.shape, *common)
    else:
        thickness_kernels.project_fractions(volume.values, volume.first, volume.last, *common)
    return out


def prepare_volume(volume: Any, n_materials: int) -> LabelRuns | FractionColumns | DeviceColumns:
    """A volume in the layout of its kernel, to be made once and projected many times.

    volume : labels or fractions on the host or on a GPU, as for ``project_thickness``, or what this function gave.
    Raises InputError for a volume that does not fit ``n_materials``, the background counted.
    """
    if isinstance(volume, LabelRuns):
        if volume.occurs.size > n_materials:
            raise _unknown_label(n_materials, 0, volume.occurs.size - 1)
        return volume
    if isinstance(volume, FractionColumns | DeviceColumns):
        count = volume.n_materials
        if count != n_materials:
            raise InputError(
                f"n_materials must be the {count} that the volume was prepared for, with the background, "
                f"got {n_materials}"
            )
        return volume
    xp = array_module(volume)
    if xp is not np:
        check = check_labels if volume.ndim == 3 else check_fractions
        return thickness_cuda.device_columns(xp, check(volume, n_materials), n_materials)
    if np.ndim(volume) == 4:
        return fraction_columns(volume, n_materials)
    return _runs_of(check_labels(volume, n_materials))


def check_labels(labels: Any, n_materials: int) -> Any:
    """``labels`` as uint8 if it is a (z, y, x) volume of labels below ``n_materials``; else InputError."""
    array = labels if array_module(labels) is not np else np.asarray(labels)
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(f"labels must be a non-empty (z, y, x) volume, got shape {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"labels must be integers, got {array.dtype}; was a µ volume passed?")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= n_materials:
        raise _unknown_label(n_materials, low, high)
    return array.astype(np.uint8, copy=False)


def check_fractions(fractions: Any, n_materials: int) -> Any:
    """``fractions`` if they are (material, z, y, x) shares of voxels for ``n_materials``; else InputError."""
    if fractions.ndim != 4 or 0 in fractions.shape:
        raise InputError(
            f"fractions must be a non-empty (material, z, y, x) array, got shape {fractions.shape}"
        )
    if n_materials < 2 or fractions.shape[0] not in (n_materials - 1, n_materials):
        raise InputError(
            f"fractions must have an entry for each material, {n_materials - 1} without the background or "
            f"{n_materials} with it first, got {fractions.shape[0]}"
        )
    if not np.issubdtype(fractions.dtype, np.floating):
        raise InputError(
            f"fractions must be floats between 0 and 1, got {fractions.dtype}; were labels stacked?"
        )
    solid = fractions[-(n_materials - 1) :]
    low, high = float(solid.min()), max(float(part.sum(axis=0).max()) for part in _slabs(solid))
    if not (low >= 0 and high <= 1 + 1e-4):  # NaN fails both; float32 sums of a full voxel round
        raise InputError(
            f"fractions must be at least 0 and add up to at most 1, got {low:g} and a sum of {high:g}"
        )
    return fractions


def _slabs(solid: Any) -> list[Any]:
    """Pieces of 16 slices, so that a check of the sum makes no second volume."""
    return [solid[:, start : start + 16] for start in range(0, solid.shape[1], 16)]


def _unknown_label(n_materials: int, low: int, high: int) -> InputError:
    return InputError(
        f"labels must lie in 0…{n_materials - 1}, one for each of the {n_materials} materials with the "
        f"background, got labels from {low} to {high}; give the further labels a material"
    )


def _check_positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"{name} must be positive metres, got {value!r}")


def _checked_tilt(axis_tilt: tuple[float, float]) -> tuple[float, float]:
    tilt = np.asarray(axis_tilt, dtype=np.float64)
    if tilt.shape != (2,) or not (np.abs(tilt) <= LARGEST_TILT).all():
        raise InputError(
            "axis_tilt must be two leans in radians (in the detector's plane, along the beam), each at most "
            f"{LARGEST_TILT}, got {axis_tilt!r}"
        )
    return float(tilt[0]), float(tilt[1])


def _widened(fine: np.ndarray, oversampling: int, rows: int, roll: float) -> np.ndarray:
    """``fine`` continued on both sides as far as a detector turned by ``roll`` reaches."""
    reach = rows / 2 * abs(np.sin(roll)) + np.abs(fine).max() * (1 - np.cos(roll))
    margin = int(np.ceil(reach * oversampling)) + 2
    return fine[0] + np.arange(-margin, fine.size + margin) / oversampling
