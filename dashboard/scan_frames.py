"""Projections and sinograms of a stored scan, read frame by frame and row by row from its NXtomo file."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import h5py
import numpy as np
import streamlit as st

from dashboard.artefacts import StoredArtefact
from tomoforge.errors import StorageError, TomoforgeError
from tomoforge.scan import FrameStack
from tomoforge.units import m_to_um

log = logging.getLogger(__name__)

SCAN = "scan.nxs"
_DATA = "entry/instrument/detector/data"
_KEYS = "entry/instrument/detector/image_key"
_ANGLES = "entry/sample/rotation_angle"
_PIXEL = "entry/instrument/detector/x_pixel_size"
_MOST_PX = 1280  # of a picture's side; larger frames are averaged in blocks
_MOST_REFERENCES = 40  # flats or darks that are averaged; more change no picture

_DAMAGE = (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError, OverflowError)


@dataclass(frozen=True)
class StoredScan:
    """A scan on disk. shape : (angle, y, x); angles_deg : of the projections, in order; flats, darks : how many."""

    artefact: StoredArtefact
    shape: tuple[int, int, int]
    angles_deg: tuple[float, ...]
    pixel_um: float
    flats: int
    darks: int


@dataclass(frozen=True)
class Frame:
    """A picture of detector data. values : (row, column); pixel_um : (down, across), None along angles;
    transmission : flats and darks were there to make it one, else counts."""

    values: np.ndarray
    pixel_um: tuple[float | None, float]
    transmission: bool


def open_scan(artefact: StoredArtefact) -> StoredScan:
    """The scan in ``artefact``. Raises StorageError with the reason if it cannot be read."""
    artefact.part(SCAN)
    return _opened(artefact)


def read_projection(scan: StoredScan, number: int) -> Frame:
    """Projection ``number``, divided by the mean flat where there is one. Raises StorageError."""
    number = min(max(number, 0), scan.shape[0] - 1)
    with _damage_said(scan.artefact, f"projection {number}"):
        raw = np.asarray(_stack(scan.artefact, 0)[number], dtype=np.float32)
    step = math.ceil(max(raw.shape) / _MOST_PX)
    values, done = _normalised(scan, raw, slice(None))
    return Frame(_block_mean(values, step, step), (scan.pixel_um * step, scan.pixel_um * step), done)


def projection_range(scan: StoredScan) -> tuple[float, float]:
    """Black and white for all projections, so that they can be compared: percentiles of the middle one."""
    return _projection_range(scan)


def read_sinogram(scan: StoredScan, row: int) -> Frame:
    """Detector row ``row`` over all angles (angle, x): −ln of the transmission, or counts. Raises StorageError."""
    row = min(max(row, 0), scan.shape[1] - 1)
    with _damage_said(scan.artefact, f"detector row {row}"):
        raw = np.asarray(_stack(scan.artefact, 0)[:, row : row + 1][:, 0], dtype=np.float32)
    values, done = _normalised(scan, raw, row)
    if done:
        values = -np.log(np.clip(values, 1e-4, None))
    across, down = math.ceil(raw.shape[1] / _MOST_PX), math.ceil(raw.shape[0] / _MOST_PX)
    return Frame(_block_mean(values, down, across), (None, scan.pixel_um * across), done)


@st.cache_data(max_entries=32, show_spinner=False)
def _projection_range(scan: StoredScan) -> tuple[float, float]:
    values = read_projection(scan, scan.shape[0] // 2).values
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, [0.5, 99.5]))
    return (low, high) if high > low else (low, low + 1.0)


def _normalised(scan: StoredScan, raw: np.ndarray, row: slice | int) -> tuple[np.ndarray, bool]:
    if not scan.flats:
        return raw, False
    flat, dark = _mean_reference(scan.artefact, 1), _mean_reference(scan.artefact, 2)
    below = dark[row] if dark is not None else np.float32(0)
    if flat is None:
        return raw, False
    open_beam = np.maximum(flat[row] - below, 1e-3)
    return (raw - below) / open_beam, True


def _block_mean(values: np.ndarray, down: int, across: int) -> np.ndarray:
    """Means over blocks; what is left over at the far edges is dropped."""
    if down == across == 1:
        return values
    rows, columns = values.shape[0] // down, values.shape[1] // across
    kept = values[: rows * down, : columns * across]
    return kept.reshape(rows, down, columns, across).mean(axis=(1, 3), dtype=np.float32)


@st.cache_data(max_entries=32, show_spinner=False)
def _opened(artefact: StoredArtefact) -> StoredScan:
    with _damage_said(artefact, SCAN), h5py.File(artefact.folder / SCAN, "r") as file:
        data, keys = file[_DATA], file[_KEYS][()]
        angles, pixel = file[_ANGLES][()], float(file[_PIXEL][()])
        _check_sources(artefact, data)
        if data.ndim != 3 or keys.shape != (data.shape[0],) or angles.shape != keys.shape:
            raise StorageError(
                f"{SCAN} of {artefact.key} has frames, keys and angles that do not fit together"
            )
        chosen = np.flatnonzero(keys == 0)
        if not chosen.size:
            raise StorageError(f"{SCAN} of {artefact.key} holds no projections")
        return StoredScan(
            artefact,
            (int(chosen.size), int(data.shape[1]), int(data.shape[2])),
            tuple(float(angle) for angle in angles[chosen]),
            m_to_um(pixel),
            int(np.count_nonzero(keys == 1)),
            int(np.count_nonzero(keys == 2)),
        )


def _check_sources(artefact: StoredArtefact, data: h5py.Dataset) -> None:
    """HDF5 reads frames whose file is gone as zeros without a word, and follows names to anywhere."""
    if not data.is_virtual:
        return
    for source in data.virtual_sources():
        if source.file_name != ".":
            artefact.part(source.file_name)


@st.cache_data(max_entries=6, show_spinner=False)
def _mean_reference(artefact: StoredArtefact, key: int) -> np.ndarray | None:
    """(y, x) float32, the mean of the flats (1) or darks (2), added up frame by frame."""
    with _damage_said(artefact, "flats and darks"):
        stack = _stack(artefact, key)
        count = min(stack.shape[0], _MOST_REFERENCES)
        if not count:
            return None
        total = np.zeros(stack.shape[1:], np.float64)
        for number in range(count):
            total += stack[number]
        return (total / count).astype(np.float32)


@st.cache_data(max_entries=32, show_spinner=False)
def _stack(artefact: StoredArtefact, key: int) -> FrameStack:
    path = artefact.folder / SCAN
    with h5py.File(path, "r") as file:
        indices = np.flatnonzero(file[_KEYS][()] == key)
    return FrameStack.open(path, _DATA, indices)


@contextmanager
def _damage_said(artefact: StoredArtefact, what: str) -> Iterator[None]:
    """Turn what HDF5 says of a damaged file into a sentence; the exception goes to the log."""
    try:
        yield
    except TomoforgeError:
        raise
    except _DAMAGE as error:
        log.warning("cannot read %s of %s: %s", what, artefact.folder, error)
        raise StorageError(f"{what} of {artefact.key} cannot be read; its file is damaged") from error
