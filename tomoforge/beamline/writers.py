"""Write a Scan into one file that other programs open: NXtomo or Data Exchange.

The same scan gives the same bytes: no time stamps. Frames are copied by batches, so a scan larger than memory
can be written; the file appears under its name only when it is whole.

References: NeXus application definition NXtomo, https://manual.nexusformat.org; F. De Carlo et al., J. Synchrotron
Rad. 21 (2014) 1224 for Data Exchange.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from tomoforge.beamline.data_exchange import (
    ACTUAL_PIXEL,
    ANGLES,
    DISTANCE,
    ENERGY,
    FRAMES,
    RADIANS,
    REFERENCES,
)
from tomoforge.errors import InputError
from tomoforge.scan import Frames, Scan, batch_slices
from tomoforge.storage import replacing

FORMATS = ("nxtomo", "data-exchange")

_CHUNK_BYTES = 1 << 20  # HDF5's own cache holds one chunk of this size whole
_CHUNK_ROWS = 16  # reconstruction reads by slab of rows
_BATCH_BYTES = 128 << 20


def write_scan(
    path: str | Path,
    scan: Scan,
    format: str = "nxtomo",
    *,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a scan into one HDF5 file, streamed, and whole or not at all.

    Parameters
    ----------
    path : file, replaced if it is there
    scan : Scan; its projections are read by batches
    format : "nxtomo", for httomo, Savu, nabu, tomopy and this library; or "data-exchange", for tomopy, tomocupy and
        other tools of the APS
    progress : called with frames done and frames in all

    Notes
    -----
    ``read_scan`` gives back every value exactly: angles are stored in degrees, as others expect, and once more in
    radians. NXtomo has one dataset for all frames; flats or darks of another type than the projections make it the
    narrowest type that holds both exactly.

    Raises
    ------
    InputError
        If the format is none of these, or no type holds projections, flats and darks exactly.
    """
    if format not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    write = _nxtomo if format == "nxtomo" else _data_exchange
    # Tracking the order of links would not matter, tracking times would: neither is on.
    with replacing(path) as temporary, h5py.File(temporary, "w", track_order=False) as file:
        write(file, scan, progress)


def _nxtomo(file: h5py.File, scan: Scan, progress: Callable[[int, int], None] | None) -> None:
    stacks: list[Frames] = [scan.darks, scan.flats, scan.projections]
    counts = [stack.shape[0] for stack in stacks]
    keys = np.repeat([2, 1, 0], counts).astype(np.int64)
    # References have no angle of their own; that of the first projection keeps the list free of a jump.
    angles = np.concatenate([np.full(counts[0] + counts[1], scan.angles[0]), scan.angles])
    file.attrs["default"] = "entry"
    entry = _group(file, "entry", "NXentry")
    entry.attrs["default"] = "data"
    entry["definition"] = "NXtomo"
    entry["title"] = scan.name
    instrument = _group(entry, "instrument", "NXinstrument")
    instrument["name"] = "unknown"
    source = _group(instrument, "source", "NXsource")
    source["probe"] = "x-ray"
    detector = _group(instrument, "detector", "NXdetector")
    _frames(detector, "data", stacks, _common_dtype(stacks), progress)
    detector["data"].attrs["interpretation"] = "image"
    detector["image_key"] = keys
    detector["image_key_control"] = keys
    detector["field_of_view"] = "Full"
    for name in ("x_pixel_size", "y_pixel_size"):
        _quantity(detector, name, scan.pixel_size, "m")
    sample = _group(entry, "sample", "NXsample")
    sample["name"] = scan.name
    _quantity(sample, "rotation_angle", np.degrees(angles), "degree")
    _quantity(sample, "rotation_angle_rad", angles, "rad")
    if scan.propagation_distance is not None:
        _quantity(detector, "distance", scan.propagation_distance, "m")
        _quantity(sample, "propagation_distance", scan.propagation_distance, "m")
    beam = _group(entry, "beam", "NXbeam")
    _quantity(beam, "incident_energy", scan.energy_kev, "keV")
    # Where the NXtomo files of the ESRF have it, and their readers look.
    instrument["beam"] = h5py.SoftLink("/entry/beam")
    data = _group(entry, "data", "NXdata")
    data.attrs["signal"] = "data"
    for name, where in (
        ("data", "instrument/detector/data"),
        ("image_key", "instrument/detector/image_key"),
        ("rotation_angle", "sample/rotation_angle"),
    ):
        data[name] = h5py.SoftLink(f"/entry/{where}")


def _data_exchange(file: h5py.File, scan: Scan, progress: Callable[[int, int], None] | None) -> None:
    file["implements"] = "exchange:measurement"
    _frames(file, FRAMES, [scan.projections], scan.projections.dtype, progress)
    file[FRAMES].attrs["axes"] = "theta:y:x"
    for role, name in REFERENCES.items():
        stack = getattr(scan, role)
        if len(stack):
            _frames(file, name, [stack], stack.dtype, None)
            file[name].attrs["axes"] = f"theta_{name.rsplit('_', 1)[1]}:y:x"
    for name in (FRAMES, *REFERENCES.values()):
        if name in file:
            file[name].attrs["units"] = "counts"
    _quantity(file, ANGLES, np.degrees(scan.angles), "deg")
    _quantity(file, RADIANS, scan.angles, "rad")
    _quantity(file, ENERGY, scan.energy_kev, "keV")
    for axis in ("x", "y"):
        _quantity(file, f"{ACTUAL_PIXEL}_{axis}", scan.pixel_size, "m")
    if scan.propagation_distance is not None:
        _quantity(file, DISTANCE, scan.propagation_distance, "m")
    file["measurement/sample/name"] = scan.name


def _frames(
    group: h5py.Group,
    name: str,
    stacks: Sequence[Frames],
    dtype: np.dtype,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write ``stacks`` (n, y, x) one after another into the dataset ``name``."""
    count = sum(stack.shape[0] for stack in stacks)
    rows, columns = stacks[-1].shape[1:]
    chunk = _chunk(count, rows, columns, dtype.itemsize)
    data = group.create_dataset(name, (count, rows, columns), dtype, chunks=chunk, track_times=False)
    size = max(chunk[0], _BATCH_BYTES // (rows * columns * dtype.itemsize) // chunk[0] * chunk[0])
    # Batches of whole chunks: each chunk is written once, though references and projections share some.
    for batch in batch_slices(count, size):
        data[batch] = np.concatenate([part.astype(dtype, copy=False) for part in _parts(stacks, batch)])
        if progress is not None:
            progress(batch.stop, count)


def _parts(stacks: Sequence[Frames], wanted: slice) -> Iterator[np.ndarray]:
    """What lies in ``wanted`` of the ``stacks`` put one after another."""
    before = 0
    for stack in stacks:
        start, stop = max(wanted.start - before, 0), min(wanted.stop - before, stack.shape[0])
        if start < stop:
            yield stack[start:stop]
        before += stack.shape[0]


def _chunk(count: int, rows: int, columns: int, itemsize: int) -> tuple[int, int, int]:
    """Few rows of many frames, about a MiB: a slab of rows reads no others, a frame not every chunk."""
    rows = min(rows, _CHUNK_ROWS)
    return min(count, max(1, _CHUNK_BYTES // (rows * columns * itemsize))), rows, columns


def _common_dtype(stacks: Sequence[Frames]) -> np.dtype:
    """The narrowest type that holds every stack that has frames exactly."""
    dtypes = [stack.dtype for stack in stacks if stack.shape[0]]
    common = np.result_type(*dtypes)
    # NumPy takes 64-bit integers and floats to float64, which drops digits above 2^53.
    if common.kind == "f" and any(d.kind in "ui" and d.itemsize == 8 for d in dtypes):
        names = ", ".join(sorted({str(dtype) for dtype in dtypes}))
        raise InputError(
            f"projections, flats and darks must have a type that holds them all exactly, got {names}; convert "
            'the 64-bit integers to float64, or write format="data-exchange"'
        )
    return common


def _group(parent: h5py.Group, name: str, nexus_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nexus_class
    return group


def _quantity(group: h5py.Group, name: str, value: float | np.ndarray, unit: str) -> None:
    group[name] = value
    group[name].attrs["units"] = unit
