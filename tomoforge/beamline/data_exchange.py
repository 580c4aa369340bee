"""Read Data Exchange files, the APS's format, into a Scan.

Reference: F. De Carlo et al., Scientific data exchange: a schema for HDF5-based storage of raw and analyzed
data, J. Synchrotron Rad. 21 (2014) 1224; the groups as tomoscan and dxfile write them.
"""

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers the compression filters that beamlines write with
import numpy as np

from tomoforge.beamline.angle_lists import chosen_rows
from tomoforge.beamline.links import LinkedFile, LinkedGroup, damage_named, listed
from tomoforge.beamline.nxtomo_entry import first_dataset
from tomoforge.beamline.quantities import (
    Stored,
    angles_in_radians,
    beam,
    check_given,
    distance,
    exact_angles,
    first_energy_kev,
    first_length,
    small_values,
    square,
    text,
)
from tomoforge.beamline.references import Sources, load_references, read_frames, require_references
from tomoforge.errors import ScanError
from tomoforge.scan import FrameStack, Scan

logger = logging.getLogger(__name__)

FRAMES = "exchange/data"
ANGLES = "exchange/theta"
RADIANS = "exchange/theta_rad"  # written here beside the degrees, which cannot hold every angle exactly
REFERENCES = {"flats": "exchange/data_white", "darks": "exchange/data_dark"}
_INSTRUMENT = "measurement/instrument"
ENERGY = f"{_INSTRUMENT}/monochromator/energy"
DISTANCE = f"{_INSTRUMENT}/detector_motor_stack/setup/camera_distance"
ACTUAL_PIXEL = f"{_INSTRUMENT}/detector/actual_pixel_size"
_DISTANCES = [
    DISTANCE,
    f"{_INSTRUMENT}/detector_motor_stack/setup/detector_distance",
    f"{_INSTRUMENT}/detector/distance",
]
# At the sample: tomoscan calls "resolution" what the specification calls the actual pixel size.
_RESOLUTION = f"{_INSTRUMENT}/detection_system/objective/resolution"
_CAMERA_X = [f"{_INSTRUMENT}/detector/{name}" for name in ("pixel_size_x", "x_pixel_size", "pixel_size")]
_CAMERA_Y = [f"{_INSTRUMENT}/detector/{name}" for name in ("pixel_size_y", "y_pixel_size", "pixel_size")]
_MAGNIFICATION = [
    f"{_INSTRUMENT}/detection_system/objective/magnification",
    f"{_INSTRUMENT}/objective/magnification",
]
_BINNING = [f"{_INSTRUMENT}/detector/binning_x", f"{_INSTRUMENT}/detector/x_binning"]


def is_data_exchange(linked: LinkedFile) -> bool:
    """Whether a file has the group exchange with data: by ``implements`` where it is, else by that alone."""
    root = LinkedGroup(linked, linked.file["/"])
    implements = linked.file.attrs.get("implements")
    stored = root.get("implements")
    if isinstance(stored, h5py.Dataset) and stored.size == 1 and stored.dtype.kind in "SOU":
        implements = stored[()]
    if implements is not None and "exchange" in text(implements).split(":"):
        return True
    exchange = root.get("exchange")
    return isinstance(exchange, h5py.Group) and "data" in exchange


def read_data_exchange(
    path: str | Path,
    *,
    energy_kev: float | None = None,
    pixel_size_um: float | None = None,
    allow_missing: Collection[str] = (),
    root: str | Path | None = None,
    angle_rows: tuple[int, int] | None = None,
    flats: Sources = None,
    darks: Sources = None,
) -> Scan:
    """Open a Data Exchange file as a Scan; projections are read when indexed, flats and darks now.

    Parameters
    ----------
    path : HDF5 file
    energy_kev : float [keV], photon energy; wins over the file's
    pixel_size_um : float [µm], detector pixel at the sample; wins over the file's
    allow_missing : names out of "flats" and "darks" that may be absent; they then have no frames
    root : folder that links and virtual sources may not leave; the file's own by default
    angle_rows : (start, stop), which of the stored angles are the projections', where there are more
    flats, darks : files that hold them instead of this one (``references.load_references``)

    Returns
    -------
    scan : Scan, named after the file

    Raises
    ------
    ScanError
        If the file is not HDF5, broken or still being written; has no exchange/data; points to files that are
        missing or outside ``root``; has no angle for each projection; lacks flats or darks that are not waived;
        or lacks energy or pixel size that are not given. The message says what to do.
    InputError
        If a given value is not positive, or ``allow_missing`` has another name.
    """
    path = Path(path)
    check_given(energy_kev, pixel_size_um, allow_missing)
    with LinkedFile(path, root) as linked, damage_named(path):
        file = LinkedGroup(linked, linked.file["/"])
        data = _frames(file, FRAMES, path)
        angles = _angles(file, data.shape[0], angle_rows, path)
        given = {"flats": flats, "darks": darks}
        own = {role: _references(file, name, path) for role, name in REFERENCES.items()}
        require_references(
            {role: given[role] is not None or own[role] is not None for role in REFERENCES},
            allow_missing,
            path,
            REFERENCES,
        )
        energy, pixel = beam(
            path,
            energy_kev,
            pixel_size_um,
            lambda: first_energy_kev(file, [ENERGY]),
            lambda: _pixel_size(file, path),
        )
        references = {
            role: load_references(given[role], role) if given[role] is not None
            else _read(own[role], role, data)
            for role in REFERENCES
        }  # fmt: skip
        return Scan(
            # By the name under which the frames really lie, so that no link is followed later.
            projections=FrameStack.open(data.file.filename, data.name),
            flats=references["flats"],
            darks=references["darks"],
            angles=angles,
            energy_kev=energy,
            pixel_size=pixel,
            propagation_distance=distance(path, lambda: first_length(file, _DISTANCES)),
            name=path.stem,
        )


def _frames(file: LinkedGroup, name: str, path: Path) -> h5py.Dataset:
    data = file.dataset(name)
    if data is None:
        links = file.linked.dangling(file.group)
        cause = f"; {len(links)} links lead to nothing that may be read: {listed(links)}" if links else ""
        raise ScanError(f"{path} has no {name}{cause}; was the scan interrupted before it was written?")
    if data.ndim != 3 or data.dtype.kind not in "uif":
        raise ScanError(f"{path}: {name} must be (frame, y, x) counts, got {data.shape} {data.dtype}")
    axes = text(data.attrs["axes"]) if "axes" in data.attrs else ""
    parts = axes.split(":")
    if len(parts) == 3 and (parts[1:] != ["y", "x"] or not parts[0].startswith("theta")):
        raise ScanError(
            f"{path}: {name} must have the axes theta:y:x, got {axes}; write it again as projections, one after another"
        )
    return data


def _references(file: LinkedGroup, name: str, path: Path) -> h5py.Dataset | None:
    stored = file.dataset(name)
    return None if stored is None or stored.size == 0 else _frames(file, name, path)


def _read(stored: h5py.Dataset | None, role: str, data: h5py.Dataset) -> np.ndarray:
    if stored is None:
        return np.empty((0, *data.shape[1:]), data.dtype)
    return read_frames(stored, np.arange(stored.shape[0]), role)


def _angles(file: LinkedGroup, count: int, rows: tuple[int, int] | None, path: Path) -> np.ndarray:
    """(angle,) [rad], one for each of ``count`` projections; degrees where no unit is stored."""
    stored = file.dataset(ANGLES)
    if stored is None:
        # The specification would have them evenly over half a turn: a guess that spoils what it does not fit.
        raise ScanError(
            f"{path} has no {ANGLES}, and angles are not guessed; write one angle in degrees for each of the {count} "
            f"projections there (h5py.File(…, 'a')['{ANGLES}'] = …)"
        )
    angles = exact_angles(angles_in_radians(stored), first_dataset(file, [RADIANS]))
    if rows is not None:
        return chosen_rows(angles, rows, count, f"{path}: {ANGLES}")
    if angles.size != count:
        raise ScanError(
            f"{path}: {ANGLES} must have one angle for each of the {count} projections, got {angles.size}; "
            + (
                "say by angle_rows=(start, stop) which are theirs"
                if angles.size > count
                else "frames or angles were lost: restore them from the motor's record"
            )
        )
    return angles


def _pixel_size(file: LinkedGroup, path: Path) -> Stored | None:
    """The pixel at the sample: as recorded, or the camera's divided by the magnification."""
    x = first_length(file, [f"{ACTUAL_PIXEL}_x", ACTUAL_PIXEL, _RESOLUTION])
    if x is not None:
        return square(x, first_length(file, [f"{ACTUAL_PIXEL}_y"]), path)
    pixel = square(first_length(file, _CAMERA_X), first_length(file, _CAMERA_Y), path)
    if pixel is None or pixel.value is None:
        return pixel
    magnification, binning = _number(file, _MAGNIFICATION), _number(file, _BINNING)
    if magnification is None:
        logger.warning(
            "%s: %s is taken as the pixel at the sample, since no magnification is recorded",
            path,
            pixel.where,
        )
        return pixel
    if binning not in (None, 1.0):
        logger.warning("%s: whether %s counts the binning of %g is not recorded", path, pixel.where, binning)
        return None
    return replace(pixel, value=pixel.value / magnification, where=f"{pixel.where} / magnification")


def _number(file: LinkedGroup, names: list[str]) -> float | None:
    """A positive number without unit; "10x" counts as one."""
    stored = first_dataset(file, names)
    if stored is None or stored.size != 1:
        return None
    if stored.dtype.kind in "SOU":
        try:
            value = float(text(stored[()]).strip().rstrip("xX×"))
        except ValueError:
            return None
    else:
        value = float(small_values(stored).ravel()[0])
    return value if np.isfinite(value) and value > 0 else None
