"""OME-Zarr files of volumes (float32, µ in 1/m) and label volumes (uint8), multiscale, as napari opens them.

Format: OME-NGFF 0.5 (Zarr 3), https://ngff.openmicroscopy.org/0.5/. A volume can be written slab by slab
from several processes, as long as slabs are whole chunks thick (``SLAB``).
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from tomoforge.errors import InputError, StorageError
from tomoforge.units import m_to_um, um_to_m

SLAB = 32  # chunk thickness in z [voxels]; slabs that several workers write are multiples of it
_TILE = 256  # chunk width in y and x [voxels]
_SMALLEST = 64  # coarser levels stop when no axis is longer than this

LABEL_NAMES = {"background": 0, "liquor": 1, "loop": 2, "crystal": 3}
# Okabe–Ito colours: told apart by people with any colour vision.
_LABEL_COLOURS = {1: (86, 180, 233), 2: (230, 159, 0), 3: (213, 94, 0)}


def create_volume(
    path: str | Path,
    shape: tuple[int, ...],
    voxel_size: float,
    *,
    dtype: str = "float32",
    label_names: Mapping[str, int] | None = None,
) -> None:
    """Make an empty multiscale volume ``(z, y, x)`` with metadata; slabs are then written into level 0.

    voxel_size [m]. An existing volume of the same shape is kept, slabs and all. Raises InputError if another
    one stands there.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"shape must be three positive sizes (z, y, x), got {shape}")
    if not (math.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be positive metres, got {voxel_size!r}")
    levels = _level_shapes(shape)
    group = zarr.open_group(str(path), mode="a")
    for level, level_shape in enumerate(levels):
        if f"{level}" in group:
            _check_standing(path, level, level_shape, dtype)
            continue
        chunks = tuple(min(n, c) for n, c in zip(level_shape, (SLAB, _TILE, _TILE), strict=True))
        group.create_array(
            f"{level}",
            shape=level_shape,
            chunks=chunks,
            dtype=dtype,
            fill_value=0,
            dimension_names=("z", "y", "x"),
        )
    group.attrs.update(
        {
            "ome": _metadata(Path(path).name, shape, levels, m_to_um(voxel_size), label_names),
            # The scale above is in micrometres and rounds; this one comes back to the bit.
            "tomoforge": {"voxel_size_m": float(voxel_size)},
        }
    )


def write_slab(path: str | Path, start: int, slab: np.ndarray) -> None:
    """Write ``slab`` (z, y, x) into level 0 from slice ``start``, a multiple of SLAB.

    Raises InputError unless it fills whole chunks and lies within the volume.
    """
    if start % SLAB:
        raise InputError(
            f"start must be a multiple of {SLAB} so that no two slabs share a chunk, got {start}"
        )
    array = _level(path, 0, mode="r+")
    stop = start + slab.shape[0]
    # Zarr clips what runs over the end and repeats what is too narrow, without a word.
    if start < 0 or stop > array.shape[0] or slab.shape[1:] != array.shape[1:]:
        raise InputError(f"slab of shape {slab.shape} from slice {start} does not fit into {array.shape}")
    if stop % SLAB and stop != array.shape[0]:
        raise InputError(
            f"slab must be a multiple of {SLAB} slices thick or reach the end, got {slab.shape[0]} from {start}"
        )
    array[start:stop] = slab


def finish_volume(path: str | Path) -> None:
    """Fill the coarser levels from level 0: block means for volumes, nearest for labels."""
    levels = len(list(zarr.open_group(str(path), mode="r+").array_keys()))
    for level in range(1, levels):
        fine, coarse = _level(path, level - 1), _level(path, level, mode="r+")
        for start in range(0, coarse.shape[0], SLAB):
            block = np.asarray(fine[2 * start : 2 * (start + SLAB)])
            coarse[start : start + SLAB] = _halve(block)


def write_volume(path: str | Path, volume: np.ndarray, voxel_size: float) -> None:
    """Write a whole volume (z, y, x) float32 [1/m] with its coarser levels. voxel_size [m]."""
    create_volume(path, volume.shape, voxel_size)
    _level(path, 0, mode="r+")[:] = np.asarray(volume, dtype=np.float32)
    finish_volume(path)


def write_labels(
    path: str | Path, labels: np.ndarray, voxel_size: float, names: Mapping[str, int] = LABEL_NAMES
) -> None:
    """Write a label volume (z, y, x) uint8; names gives each label its name. voxel_size [m].

    Raises InputError for a label without a name or beyond 0 to 255.
    """
    array = np.asarray(labels)
    beyond = {name: value for name, value in names.items() if not 0 <= value <= 255}
    if beyond:
        raise InputError(f"names must give labels from 0 to 255, they are stored as uint8; got {beyond}")
    unknown = sorted(set(np.unique(array).tolist()) - set(names.values()))
    if unknown:
        raise InputError(
            f"labels must be among {dict(names)}, got also {unknown}; give the new labels a name in `names`"
        )
    create_volume(path, array.shape, voxel_size, dtype="uint8", label_names=names)
    _level(path, 0, mode="r+")[:] = array.astype(np.uint8)
    finish_volume(path)


def read_volume(path: str | Path, level: int = 0) -> tuple[np.ndarray, float]:
    """A whole volume (z, y, x) float32 [1/m] and its voxel size [m] at ``level``."""
    return np.asarray(_level(path, level)[:]), _voxel_size(path, level)


def read_labels(path: str | Path, level: int = 0) -> tuple[np.ndarray, float]:
    """A whole label volume (z, y, x) uint8 and its voxel size [m] at ``level``."""
    array = _level(path, level)
    if array.dtype != np.uint8:
        raise StorageError(f"{path} holds {array.dtype}, labels are uint8; is it a volume?")
    return np.asarray(array[:]), _voxel_size(path, level)


def read_voxel_size(path: str | Path) -> float:
    """Voxel size [m] of a stored volume at its finest level; no voxel is read."""
    return _voxel_size(path, 0)


def read_label_names(path: str | Path) -> dict[str, int]:
    """The names of the labels stored in a label volume."""
    properties = _metadata_of(path).get("image-label", {}).get("properties", [])
    return {entry["name"]: entry["label-value"] for entry in properties}


def open_level(path: str | Path, level: int = 0) -> zarr.Array:
    """A level of a volume, to be read slice by slice."""
    return _level(path, level)


def _level(path: str | Path, level: int, mode: Literal["r", "r+"] = "r") -> zarr.Array:
    try:
        group = zarr.open_group(str(path), mode=mode)
        array = group[f"{level}"]
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise StorageError(f"{path} is no OME-Zarr volume with a level {level}: {error}") from error
    assert isinstance(array, zarr.Array)
    return array


def _check_standing(path: str | Path, level: int, shape: tuple[int, ...], dtype: str) -> None:
    standing = _level(path, level)
    if standing.shape != shape or standing.dtype != np.dtype(dtype):
        raise InputError(
            f"{path} holds another volume already, {standing.shape} {standing.dtype} at level {level} where "
            f"{shape} {dtype} is to be written; write elsewhere or remove it"
        )


def _metadata_of(path: str | Path) -> dict[str, Any]:
    try:
        ome = zarr.open_group(str(path), mode="r").attrs.get("ome")
    except (FileNotFoundError, ValueError) as error:
        raise StorageError(f"{path} is no OME-Zarr volume: {error}") from error
    if not isinstance(ome, dict):
        raise StorageError(f"{path} has no OME-NGFF 0.5 metadata")
    return ome


def _voxel_size(path: str | Path, level: int) -> float:
    own = zarr.open_group(str(path), mode="r").attrs.get("tomoforge")
    if isinstance(own, dict) and "voxel_size_m" in own:
        return float(own["voxel_size_m"]) * 2**level
    datasets = _metadata_of(path)["multiscales"][0]["datasets"]
    return um_to_m(float(datasets[level]["coordinateTransformations"][0]["scale"][0]))


def _level_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    levels: list[tuple[int, ...]] = [tuple(int(n) for n in shape)]
    while max(levels[-1]) > _SMALLEST:
        levels.append(tuple(-(-n // 2) for n in levels[-1]))
    return levels


def _halve(block: np.ndarray) -> np.ndarray:
    if block.dtype == np.uint8:  # a mean of labels would invent labels
        return block[::2, ::2, ::2]
    padded = np.pad(block, [(0, n % 2) for n in block.shape], mode="edge")
    z, y, x = (n // 2 for n in padded.shape)
    return padded.reshape(z, 2, y, 2, x, 2).mean(axis=(1, 3, 5), dtype=np.float32)


def _metadata(
    name: str,
    shape: tuple[int, ...],
    levels: list[tuple[int, ...]],
    voxel_um: float,
    label_names: Mapping[str, int] | None,
) -> dict[str, Any]:
    datasets = []
    for level in range(len(levels)):
        scale = voxel_um * 2**level
        # The centre of a block of 2ⁿ voxels lies half a block less half a voxel into the finest grid.
        shift = (2**level - 1) / 2 * voxel_um
        datasets.append(
            {
                "path": f"{level}",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [scale] * 3},
                    {"type": "translation", "translation": [shift] * 3},
                ],
            }
        )
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    ome: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [{"name": name, "axes": axes, "datasets": datasets}],
    }
    if label_names is not None:
        named = sorted(label_names.items(), key=lambda item: item[1])
        ome["image-label"] = {
            "colors": [
                {"label-value": value, "rgba": [*_LABEL_COLOURS.get(value, (128, 128, 128)), 255]}
                for _, value in named
                if value
            ],
            "properties": [{"label-value": value, "name": name} for name, value in named],
        }
    return ome
