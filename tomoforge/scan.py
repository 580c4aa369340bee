"""The Scan record that joins beamline, optics and reconstruction, and the NXtomo files that hold it.

A forged scan and a real one are the same record and the same file format, so nothing after the scan knows
the difference. NXtomo: NeXus application definition, https://manual.nexusformat.org (image_key 0 projection,
1 flat, 2 dark, 3 invalid).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import hdf5plugin  # noqa: F401  registers the compression filters that beamlines write with
import numpy as np

from tomoforge.errors import InputError, ScanError
from tomoforge.storage import replacing

FRAMES = "frames"  # the dataset of a batch file


class Frames(Protocol):
    """What projections must offer: an array, or a lazy view of a file that reads like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, key: Any) -> np.ndarray: ...


@dataclass(frozen=True)
class FrameStack:
    """Frames of an HDF5 dataset, read when indexed; small enough to travel to a worker.

    path : HDF5 file; dataset : name of a (frame, y, x) dataset in it; indices : (frame,) which of its frames;
    shape : (frame, y, x); dtype : of the stored counts.
    """

    path: str
    dataset: str
    indices: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def open(cls, path: str | Path, dataset: str, indices: np.ndarray | None = None) -> "FrameStack":
        """The frames ``indices`` (all if None) of ``dataset`` in the HDF5 file ``path``."""
        with h5py.File(path, "r") as file:
            stored = file[dataset]
            chosen = np.arange(stored.shape[0]) if indices is None else np.asarray(indices, dtype=np.int64)
            shape = (int(chosen.size), *(int(n) for n in stored.shape[1:]))
            return cls(str(path), dataset, chosen, shape, np.dtype(stored.dtype))

    def __getitem__(self, key: Any) -> np.ndarray:
        """Reads ``stack[frames]``, ``stack[frames, rows]`` or ``stack[frames, rows, columns]``."""
        frames, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(key, tuple) and any(part is Ellipsis for part in key):
            raise InputError("an ellipsis is not understood here; index frames, rows and columns one by one")
        wanted = self.indices[frames]
        with h5py.File(self.path, "r") as file:
            stored = file[self.dataset]
            if np.ndim(wanted) == 0:
                return stored[(int(wanted), *rest)]
            if wanted.size == 0:
                return np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]
            # Runs of neighbouring frames are read in one call: point selections in HDF5 are slow.
            cuts = np.flatnonzero(np.diff(wanted) != 1) + 1
            runs = np.split(wanted, cuts)
            parts = [stored[(slice(int(run[0]), int(run[-1]) + 1), *rest)] for run in runs]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True)
class Scan:
    """One tomographic scan: raw counts and everything that reconstruction must not guess.

    projections : (angle, y, x) counts, an array or a lazy view; flats, darks : (n, y, x) counts, n may be 0;
    angles : (angle,) float64 [rad]; energy_kev [keV]; pixel_size : at the sample [m];
    propagation_distance [m] or None where unknown; name : for people.

    Raises ScanError where the parts contradict each other.
    """

    projections: Frames
    flats: np.ndarray
    darks: np.ndarray
    angles: np.ndarray
    energy_kev: float
    pixel_size: float
    propagation_distance: float | None = None
    name: str = "scan"

    def __post_init__(self) -> None:
        if len(self.projections.shape) != 3 or 0 in self.projections.shape:
            raise ScanError(
                f"projections must be a non-empty (angle, y, x) stack, got shape {self.projections.shape}"
            )
        frame = tuple(self.projections.shape[1:])
        for role in ("flats", "darks"):
            stack = np.asarray(getattr(self, role))
            if stack.ndim != 3 or tuple(stack.shape[1:]) != frame:
                raise ScanError(
                    f"{role} must be (n, y, x) matching projections {frame}, got {stack.shape}; "
                    "was binning or a region of interest applied to only one?"
                )
            object.__setattr__(self, role, stack)
        angles = np.asarray(self.angles, dtype=np.float64)
        if angles.shape != (self.projections.shape[0],):
            raise ScanError(
                f"angles must give one angle for each of the {self.projections.shape[0]} projections, got "
                f"{angles.size}; were the angles of flats and darks left in, or frames lost?"
            )
        if not np.isfinite(angles).all():
            raise ScanError(f"angles must be finite, {np.sum(~np.isfinite(angles))} of {angles.size} are not")
        object.__setattr__(self, "angles", angles)
        for role, unit in (("energy_kev", "keV"), ("pixel_size", "metres")):
            value = getattr(self, role)
            if not (np.isfinite(value) and value > 0):
                raise ScanError(f"{role} must be a positive number of {unit}, got {value!r}")

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Raw counts of detector rows ``start:stop`` in every projection: (angle, y, x)."""
        return self.projections[:, start:stop]


def write_frame_batch(path: str | Path, frames: np.ndarray) -> None:
    """Write ``frames`` (frame, y, x) to an HDF5 file of their own, complete or not at all."""
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        n, rows, columns = frames.shape
        # Chunks of whole batches by few rows: reconstruction reads by slab of rows.
        file.create_dataset(FRAMES, data=frames, chunks=(n, min(rows, 16), columns))


def write_nxtomo(
    path: str | Path,
    *,
    darks: np.ndarray,
    flats: np.ndarray,
    batches: Sequence[str],
    angles: np.ndarray,
    energy_kev: float,
    pixel_size: float,
    propagation_distance: float | None,
    title: str,
) -> None:
    """Write the NXtomo master of a scan: references inside it, projections through a virtual dataset.

    darks, flats : (n, y, x) counts, stored in ``references.h5`` beside the master; batches : names of batch
    files beside the master (``write_frame_batch``), in the order of ``angles``; angles : (angle,) [rad];
    pixel_size, propagation_distance [m], None where unknown.

    Raises ScanError if the batches together do not hold one frame for each angle.
    """
    folder = Path(path).parent
    write_frame_batch(folder / "references.h5", np.concatenate([darks, flats]))
    files = ["references.h5", *batches]
    shapes = []
    for name in files:
        with h5py.File(folder / name, "r") as file:
            shapes.append(file[FRAMES].shape)
    n_projections = sum(shape[0] for shape in shapes[1:])
    if n_projections != len(angles):
        raise ScanError(f"angles has {len(angles)} entries, the batches hold {n_projections} projections")
    n_references = shapes[0][0]
    image_key = np.concatenate([np.full(len(darks), 2), np.full(len(flats), 1), np.zeros(n_projections)])
    rotation = np.concatenate([np.zeros(n_references), np.degrees(angles)])
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["default"] = "entry"
        entry = _group(file, "entry", "NXentry")
        entry["definition"] = "NXtomo"
        entry["title"] = title
        instrument = _group(entry, "instrument", "NXinstrument")
        detector = _group(instrument, "detector", "NXdetector")
        _virtual_dataset(detector, "data", list(zip(files, shapes, strict=True)), flats.dtype)
        detector["image_key"] = image_key.astype(np.int64)
        for name, value in (("x_pixel_size", pixel_size), ("y_pixel_size", pixel_size)):
            _quantity(detector, name, value, "m")
        if propagation_distance is not None:  # unknown is not contact
            _quantity(detector, "distance", propagation_distance, "m")
        source = _group(instrument, "source", "NXsource")
        source["probe"] = "x-ray"
        beam = _group(entry, "beam", "NXbeam")
        _quantity(beam, "incident_energy", energy_kev, "keV")
        # Where the NXtomo files of the ESRF have it, and their readers look.
        instrument["beam"] = h5py.SoftLink("/entry/beam")
        sample = _group(entry, "sample", "NXsample")
        sample["name"] = title
        _quantity(sample, "rotation_angle", rotation, "deg")
        data = _group(entry, "data", "NXdata")
        data.attrs["signal"] = "data"
        data["data"] = h5py.SoftLink("/entry/instrument/detector/data")
        data["rotation_angle"] = h5py.SoftLink("/entry/sample/rotation_angle")
        data["image_key"] = h5py.SoftLink("/entry/instrument/detector/image_key")


def _virtual_dataset(
    group: h5py.Group, name: str, sources: Sequence[tuple[str, tuple[int, ...]]], dtype: np.dtype
) -> None:
    """A dataset that strings the FRAMES of other files together along the first axis.

    Through HDF5's low level, because h5py's VirtualLayout writes the time into the file and the same scan would
    not give the same bytes.
    """
    rows, columns = sources[0][1][1:]
    space = h5py.h5s.create_simple((sum(shape[0] for _, shape in sources), rows, columns))
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    start = 0
    for file, shape in sources:
        space.select_hyperslab((start, 0, 0), shape)
        properties.set_virtual(space, file.encode(), FRAMES.encode(), h5py.h5s.create_simple(shape))
        start += shape[0]
    space.select_all()
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(dtype, logical=True), space, properties)


def _group(parent: h5py.Group, name: str, nexus_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nexus_class
    return group


def _quantity(group: h5py.Group, name: str, value: float | np.ndarray, unit: str) -> None:
    group[name] = value
    group[name].attrs["units"] = unit


def batch_slices(count: int, size: int) -> list[slice]:
    """``count`` items cut into consecutive slices of at most ``size``."""
    if count < 0 or size < 1:
        raise InputError(f"count must be at least 0 and size at least 1, got {count} and {size}")
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def batch_name(batch: slice) -> str:
    """File name of a batch of projections, from its first and last angle number."""
    return os.path.join("batches", f"{batch.start:06d}-{batch.stop - 1:06d}.h5")
