"""Slices of stored volumes and labels, read from the multiscale OME-Zarr as they are asked for.

A volume never enters memory: of a slice, only the chunks that hold it are read, at the level that a screen can show.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st
import zarr

from dashboard.artefacts import StoredArtefact, check_files
from tomoforge.errors import StorageError
from tomoforge.units import m_to_um
from tomoforge.volumes import open_level, read_label_names, read_voxel_size

log = logging.getLogger(__name__)

# Chunks that are unpacked at a time, each 8 MB before and as much after. With Zarr's ten, a slice takes 260 MB for a
# moment and leaves 160 MB behind in the threads' heaps; with two 105 MB, for the same seconds on two cores.
zarr.config.set({"async.concurrency": 2, "threading.max_workers": 2})

AXES = ("z", "y", "x")
# A picture has about 700 pixels on a screen of 1280; a volume of 1024³ is still shown voxel by voxel.
SHARP_PX = 1280
# Across the chunks' long sides, a slice of 1024³ takes a gigabyte to unpack, two seconds on two cores. Beyond this
# many bytes the next coarser level is shown unless the finest is asked for.
QUICK_BYTES = 320_000_000
# Slices beside the one that was asked for are kept up to this size, four such bands for all who look.
BAND_BYTES = 17_000_000
# What one picture may take at the finest level.
MOST_BYTES = 12_000_000_000
_MOST_VOXELS = 64_000_000  # that are ever read at once
_WINDOW_VOXELS = 128  # the level that the grey scale is taken from is no longer than this, if there is one

# What zarr and its codecs raise over damaged files, beside what tomoforge.volumes turns into StorageError.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError, AssertionError)


@dataclass(frozen=True)
class StoredVolume:
    """A volume on disk. shapes, chunks : (z, y, x) of every level, the finest first; voxel_um : of the finest;
    names : label → its value, empty for volumes; colours : value → red, green, blue."""

    artefact: StoredArtefact
    name: str
    shapes: tuple[tuple[int, int, int], ...]
    chunks: tuple[tuple[int, int, int], ...]
    item_bytes: int
    voxel_um: float
    names: Mapping[str, int]
    colours: Mapping[int, tuple[int, int, int]]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) of the finest level."""
        return self.shapes[0]

    @property
    def path(self) -> Path:
        """The OME-Zarr folder."""
        return self.artefact.folder / self.name

    def slice_bytes(self, axis: int, level: int) -> int:
        """What has to be unpacked for one slice at ``level``: all chunks that it passes through."""
        shape, chunk = self.shapes[level], self.chunks[level]
        counts = [math.ceil(n / c) for n, c in zip(shape, chunk, strict=True)]
        counts[axis] = 1
        return math.prod(counts) * math.prod(chunk) * self.item_bytes


@dataclass(frozen=True)
class Slice:
    """One slice. values : (row, column), of the plane's two axes in the order z, y, x; index : of the finest level;
    step : voxels of the finest level that one pixel spans."""

    values: np.ndarray
    axis: int
    index: int
    level: int
    pixel_um: float

    @property
    def step(self) -> int:
        """Voxels of the finest level along one side of a pixel."""
        return 2**self.level


def open_volume(artefact: StoredArtefact, name: str) -> StoredVolume:
    """What is stored under ``name`` in ``artefact``. Raises StorageError with the reason if it is no volume."""
    place = artefact.part(name)
    return _opened(artefact, name, _newest(place))


def level_for(volume: StoredVolume, axis: int, *, finest: bool = False) -> int:
    """The level to show: the finest that a screen can show and that is read quickly; with ``finest`` the finest."""
    for level, shape in enumerate(volume.shapes):
        cost = volume.slice_bytes(axis, level)
        sides = max(n for other, n in enumerate(shape) if other != axis)
        if cost <= (MOST_BYTES if finest else QUICK_BYTES) and (finest or sides <= SHARP_PX):
            return level
    return len(volume.shapes) - 1


def read_slice(volume: StoredVolume, axis: int, index: int, level: int) -> Slice:
    """The slice ``index`` (of the finest level) across ``axis``. Raises StorageError with the reason if a chunk is
    missing or damaged."""
    index = min(max(index, 0), volume.shape[axis] - 1)
    stored = min(index // 2**level, volume.shapes[level][axis] - 1)
    shape, chunk = volume.shapes[level], volume.chunks[level]
    count = _band(shape[axis], chunk[axis], math.prod(shape) // shape[axis] * volume.item_bytes)
    start = stored // count * count
    stop = min(start + count, shape[axis])
    band = _read_band(volume.artefact, volume.name, chunk, axis, start, stop, level)
    return Slice(band[stored - start], axis, index, level, volume.voxel_um * 2**level)


def read_coarse(volume: StoredVolume, longest: int) -> tuple[np.ndarray, int]:
    """The finest level that is no longer than ``longest``, whole, and its number; the coarsest if all are longer."""
    level = next(
        (n for n, shape in enumerate(volume.shapes) if max(shape) <= longest), len(volume.shapes) - 1
    )
    if math.prod(volume.shapes[level]) > _MOST_VOXELS:
        raise StorageError(
            f"{volume.name} of {volume.artefact.key} has no level coarse enough to look through"
        )
    return _read_level(volume.artefact, volume.name, level), level


@dataclass(frozen=True)
class Range:
    """Of the values of a volume: what there is, and between what to show it."""

    least: float
    most: float
    low: float
    high: float


def value_range(volume: StoredVolume) -> Range:
    """The range of a volume by its percentiles, of a coarse level. Raises StorageError if that cannot be read."""
    return _value_range(volume.artefact, volume.name, volume.shapes, volume.chunks)


# --- reading ------------------------------------------------------------------------------------


@st.cache_data(max_entries=64, show_spinner=False)
def _opened(artefact: StoredArtefact, name: str, time: int) -> StoredVolume:
    place = artefact.folder / name
    try:
        group = zarr.open_group(str(place), mode="r")
        arrays = [open_level(place, level) for level in range(len(list(group.array_keys())))]
        if not arrays or any(array.ndim != 3 or 0 in array.shape for array in arrays):
            raise StorageError(f"{name} of {artefact.key} holds no volume (z, y, x)")
        voxel_um = m_to_um(read_voxel_size(place))
        if not (math.isfinite(voxel_um) and voxel_um > 0):
            raise StorageError(f"{name} of {artefact.key} has no voxel size")
        names = read_label_names(place)
        colours = _colours(group)
    except StorageError:
        raise
    except _DAMAGE as error:
        log.warning("cannot open %s: %s", place, error)
        raise StorageError(f"the description of {name} in {artefact.key} is damaged") from error
    return StoredVolume(
        artefact,
        name,
        tuple(tuple(int(n) for n in array.shape) for array in arrays),  # type: ignore[misc]
        tuple(tuple(int(n) for n in array.chunks) for array in arrays),  # type: ignore[misc]
        int(arrays[0].dtype.itemsize),
        voxel_um,
        {str(label): int(value) for label, value in names.items()},
        colours,
    )


def _colours(group: zarr.Group) -> dict[int, tuple[int, int, int]]:
    """The labels' colours as the volume says them."""
    ome = group.attrs.get("ome")
    entries = ome.get("image-label", {}).get("colors", []) if isinstance(ome, dict) else []
    return {
        int(entry["label-value"]): tuple(int(c) & 255 for c in entry["rgba"][:3])  # type: ignore[misc]
        for entry in entries
    }


def _band(length: int, chunk: int, slice_bytes: int) -> int:
    """How many neighbouring slices to keep of the chunks that were unpacked for one: the next ones cost nothing."""
    most = max(1, BAND_BYTES // slice_bytes)
    return max(n for n in range(1, min(most, chunk, length) + 1) if chunk % n == 0)


# Shared and never written to: a copy for every slice would cost more than reading it.
@st.cache_resource(max_entries=4, show_spinner=False)
def _read_band(
    artefact: StoredArtefact,
    name: str,
    chunk: tuple[int, int, int],
    axis: int,
    start: int,
    stop: int,
    level: int,
) -> np.ndarray:
    """Slices ``start:stop`` across ``axis``, which comes first; they must lie within one layer of chunks."""
    try:
        array = open_level(artefact.folder / name, level)
        counts = [range(math.ceil(n / c)) for n, c in zip(array.shape, chunk, strict=True)]
        counts[axis] = range(start // chunk[axis], start // chunk[axis] + 1)
        check_files(artefact, _chunk_names(name, level, counts))
        key = [slice(None)] * 3
        key[axis] = slice(start, stop)
        band: np.ndarray = np.ascontiguousarray(np.moveaxis(np.asarray(array[tuple(key)]), axis, 0))
    except StorageError:
        raise
    except _DAMAGE as error:
        log.warning("cannot read slices %s to %s of %s/%s: %s", start, stop, artefact.folder, name, error)
        raise StorageError(
            f"a chunk of {name} in {artefact.key} is damaged and cannot be unpacked (level {level}, "
            f"{AXES[axis]} = {start})"
        ) from error
    band.flags.writeable = False
    return band


def _chunk_names(name: str, level: int, counts: list[range]) -> list[str]:
    return [f"{name}/{level}/c/{z}/{y}/{x}" for z in counts[0] for y in counts[1] for x in counts[2]]


@st.cache_data(max_entries=4, show_spinner=False)
def _read_level(artefact: StoredArtefact, name: str, level: int) -> np.ndarray:
    try:
        array = open_level(artefact.folder / name, level)
        counts = [range(math.ceil(n / c)) for n, c in zip(array.shape, array.chunks, strict=True)]
        check_files(artefact, _chunk_names(name, level, counts))
        return np.asarray(array[:])
    except StorageError:
        raise
    except _DAMAGE as error:
        log.warning("cannot read level %s of %s/%s: %s", level, artefact.folder, name, error)
        raise StorageError(f"a chunk of {name} in {artefact.key} is damaged (level {level})") from error


@st.cache_data(max_entries=64, show_spinner=False)
def _value_range(
    artefact: StoredArtefact,
    name: str,
    shapes: tuple[tuple[int, int, int], ...],
    chunks: tuple[tuple[int, int, int], ...],
) -> Range:
    level = next((n for n, shape in enumerate(shapes) if max(shape) <= _WINDOW_VOXELS), len(shapes) - 1)
    if math.prod(shapes[level]) > _MOST_VOXELS:  # written elsewhere, without coarse levels
        values = _read_band(
            artefact, name, chunks[level], 0, shapes[level][0] // 2, shapes[level][0] // 2 + 1, level
        )
    else:
        values = _read_level(artefact, name, level)
    values = values[np.isfinite(values)]
    if not values.size:
        return Range(0.0, 1.0, 0.0, 1.0)
    least, low, high, most = (float(v) for v in np.percentile(values, [0, 0.5, 99.8, 100]))
    return Range(least, most, low, high if high > low else low + 1.0)


def _newest(place: Path) -> int:
    try:
        return (place / "zarr.json").stat().st_mtime_ns
    except OSError:
        raise StorageError(f"{place.name} of {place.parent.name} has no description (zarr.json)") from None
