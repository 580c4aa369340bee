"""Read NXtomo files, forged or from a beamline, into a Scan; refuse what cannot be trusted.

References: NeXus application definition NXtomo, https://manual.nexusformat.org; image_key 0 projection,
1 flat, 2 dark, 3 invalid. The entry is found by its ``definition``, never by its name.
"""

import logging
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers the compression filters that beamlines write with
import numpy as np

from tomoforge.beamline.links import broken_virtual_sources, dangling_links
from tomoforge.beamline.quantities import Stored, angles_in_radians, first_energy_kev, first_length, text
from tomoforge.errors import InputError, ScanError
from tomoforge.scan import FrameStack, Scan
from tomoforge.units import m_to_um, um_to_m

logger = logging.getLogger(__name__)

_DISAGREEMENT = 0.01  # of given and stored: beyond it, a mistyped number is likelier than calibration
_MOST_NAMED = 12
_KEYS = {0: "projections", 1: "flats", 2: "darks"}

# Where facilities and writers put the same thing, the most specific first.
_ENERGY = [
    f"{group}/{name}"
    for group in ("beam", "instrument/beam", "instrument/monochromator", "sample/beam")
    for name in ("incident_energy", "energy")
]
_X_PIXEL = ["sample/x_pixel_size", "instrument/detector/x_pixel_size"]
_Y_PIXEL = ["sample/y_pixel_size", "instrument/detector/y_pixel_size"]
_DISTANCE = ["sample/propagation_distance", "instrument/detector/distance"]


def read_nxtomo(
    path: str | Path,
    *,
    energy_kev: float | None = None,
    pixel_size_um: float | None = None,
    entry: str | None = None,
    allow_missing: Collection[str] = (),
) -> Scan:
    """Open an NXtomo file as a Scan; projections are read when indexed, flats and darks now.

    Parameters
    ----------
    path : HDF5 file
    energy_kev : float [keV], photon energy; wins over the file's
    pixel_size_um : float [µm], detector pixel at the sample; wins over the file's
    entry : path of the NXtomo entry, for files with several
    allow_missing : names out of "flats" and "darks" that may be absent; they then have no frames

    Returns
    -------
    scan : Scan, named after the file

    Raises
    ------
    ScanError
        If the file is not HDF5, broken or still being written; has no NXtomo entry, or several; points to
        files that are missing; has frames, keys and angles that do not fit; lacks flats or darks that are
        not waived; or lacks energy or pixel size that are not given. The message says what to do.
    InputError
        If a given value is not positive, or ``allow_missing`` has another name.
    """
    path = Path(path)
    _check_arguments(energy_kev, pixel_size_um, allow_missing)
    with closing(open_hdf5(path)) as file:
        try:
            return _read(file, path, energy_kev, pixel_size_um, entry, allow_missing)
        except (OSError, RuntimeError) as error:
            # Scan errors are ValueErrors and pass by; these are HDF5's own, from a damaged file.
            raise ScanError(
                f"{path} is damaged, HDF5 says: {error}; copy it again from where it was recorded"
            ) from error


def open_hdf5(path: Path) -> h5py.File:
    """The HDF5 file ``path``, open for reading.

    Raises
    ------
    ScanError
        If there is no such file, it is not HDF5, truncated, or locked by its writer.
    """
    if not path.is_file():
        raise ScanError(
            f"{path} must be an HDF5 file, but {'is a folder' if path.is_dir() else 'does not exist'}"
        )
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ScanError(
            f"{path} cannot be opened as HDF5: {error}; if the scan is still being written or copied, wait "
            "until it is finished, otherwise copy it again"
        ) from error


def nxtomo_entries(file: h5py.File) -> list[str]:
    """Paths of groups at the root or one level below it whose ``definition`` is NXtomo."""
    found = []
    for group in _groups(file):
        for candidate in (group, *_groups(group)):
            definition = candidate.get("definition")
            if isinstance(definition, h5py.Dataset) and text(definition[()]).strip() == "NXtomo":
                found.append(str(candidate.name))
    return found


def _groups(parent: h5py.Group) -> list[h5py.Group]:
    members = (
        parent.get(name)
        for name in parent
        if not isinstance(parent.get(name, getlink=True), h5py.ExternalLink)
    )
    return [member for member in members if isinstance(member, h5py.Group)]


def _check_arguments(
    energy_kev: float | None, pixel_size_um: float | None, allow_missing: Collection[str]
) -> None:
    for name, value in (("energy_kev", energy_kev), ("pixel_size_um", pixel_size_um)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} must be a positive number, got {value!r}")
    if isinstance(allow_missing, str) or not set(allow_missing) <= {"flats", "darks"}:
        raise InputError(f'allow_missing must hold names out of "flats", "darks", got {allow_missing!r}')


def _read(
    file: h5py.File,
    path: Path,
    energy_kev: float | None,
    pixel_size_um: float | None,
    entry: str | None,
    allow_missing: Collection[str],
) -> Scan:
    group = _entry(file, path, entry)
    data_name, data = _required(group, ["instrument/detector/data", "data/data"], "frames", path)
    if data.ndim != 3:
        raise ScanError(f"{path}: {data.name} must be (frame, y, x), got shape {data.shape}")
    if data.dtype.kind not in "uif":
        raise ScanError(f"{path}: {data.name} must hold real counts, got {data.dtype}")
    broken = broken_virtual_sources(data)
    if broken:
        raise ScanError(
            f"{path}: {data.name} is a virtual dataset whose sources are not all there: {_listed(broken)}; "
            "move the files back beside it, or write the scan again"
        )
    keys = _image_keys(group, data, path)
    angles = _angles(group, data, path)
    projections = np.flatnonzero(keys == 0)
    if projections.size == 0:
        raise ScanError(f"{path} has no projections: no frame has image_key 0 among {sorted(set(keys))}")
    missing = [_KEYS[key] for key in (1, 2) if not np.any(keys == key) and _KEYS[key] not in allow_missing]
    if missing:
        raise ScanError(
            f"{path} has no {' and no '.join(missing)}: no frames with image_key "
            f"{' or '.join(str(key) for key, role in _KEYS.items() if role in missing)}; record them, or if "
            f"the scan can do without say allow_missing={tuple(missing)!r}"
        )
    energy, pixel = _beam(group, path, energy_kev, pixel_size_um)
    return Scan(
        # The name by which this file reaches it, not data.name, which may be a name in a linked file.
        projections=FrameStack.open(path, f"{group.name}/{data_name}", projections),
        flats=_frames(data, keys == 1),
        darks=_frames(data, keys == 2),
        angles=angles[projections],
        energy_kev=energy,
        pixel_size=pixel,
        propagation_distance=_distance(group),
        name=path.stem,
    )


def _entry(file: h5py.File, path: Path, entry: str | None) -> h5py.Group:
    found = nxtomo_entries(file)
    if entry is not None:
        if f"/{entry.strip('/')}" not in found:
            raise ScanError(f"entry {entry!r} is not an NXtomo entry of {path}; those are {found or 'none'}")
        return file[entry]
    if not found:
        links = dangling_links(file)
        broken = (
            f"; besides, {len(links)} links lead to files that are missing: {_listed(links, len(links))}. "
            "Bring those files beside it"
            if links
            else ""
        )
        raise ScanError(
            f"{path} has no NXtomo entry: no group at the root or one level below has the definition "
            f"'NXtomo'{broken}; or convert the raw file with the beamline's tool"
        )
    if len(found) > 1:
        raise ScanError(f"{path} has {len(found)} NXtomo entries, {_listed(found)}; choose with entry=")
    return file[found[0]]


def _required(group: h5py.Group, names: list[str], what: str, path: Path) -> tuple[str, h5py.Dataset]:
    for name in names:
        dataset = group.get(name)
        if isinstance(dataset, h5py.Dataset) and dataset.shape is not None:
            return name, dataset
    links = dangling_links(group)
    cause = (
        f"; {len(links)} links lead nowhere: {_listed(links, len(links))}. Bring those files beside it"
        if links
        else "; was the scan interrupted before it was written?"
    )
    raise ScanError(f"{path}: {group.name} has no {what} at {' or '.join(names)}{cause}")


def _image_keys(group: h5py.Group, data: h5py.Dataset, path: Path) -> np.ndarray:
    """(frame,) int; alignment frames (image_key_control −1) count as invalid."""
    _, stored = _required(group, ["instrument/detector/image_key", "data/image_key"], "image keys", path)
    keys = np.asarray(stored[()]).ravel().astype(np.int64)
    control = group.get("instrument/detector/image_key_control", group.get("data/image_key_control"))
    if isinstance(control, h5py.Dataset) and control.size == keys.size:
        # Control keys mark projections repeated after the scan, at angles out of order, by −1.
        keys = np.where(np.asarray(control[()]).ravel() < 0, 3, keys)
    if keys.size != data.shape[0]:
        raise ScanError(
            f"{path}: image_key must have one entry for each of the {data.shape[0]} frames, got {keys.size}; "
            "frames were lost, or the scan was interrupted"
        )
    unknown = sorted(set(keys.tolist()) - {0, 1, 2, 3})
    if unknown:
        raise ScanError(f"{path}: image_key must be 0, 1, 2 or 3, got also {unknown}")
    return keys


def _angles(group: h5py.Group, data: h5py.Dataset, path: Path) -> np.ndarray:
    _, stored = _required(group, ["sample/rotation_angle", "data/rotation_angle"], "rotation angles", path)
    angles = angles_in_radians(stored).ravel()
    if angles.size != data.shape[0]:
        fewer = "fewer" if angles.size < data.shape[0] else "more"
        raise ScanError(
            f"{path}: rotation_angle has {fewer} entries than there are frames, {angles.size} for "
            f"{data.shape[0]}; angles cannot be told apart, so restore them from the motor's record"
        )
    return angles


def _frames(data: h5py.Dataset, wanted: np.ndarray) -> np.ndarray:
    """(n, y, x) the ``wanted`` frames; n may be 0."""
    indices = np.flatnonzero(wanted)
    if indices.size == 0:
        return np.empty((0, *data.shape[1:]), data.dtype)
    runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    return np.concatenate([data[run[0] : run[-1] + 1] for run in runs])


def _beam(
    group: h5py.Group, path: Path, energy_kev: float | None, pixel_size_um: float | None
) -> tuple[float, float]:
    """Energy [keV] and pixel size [m], given or stored; both complaints in one message."""
    stored_pixel = _square_pixel(group, path) if pixel_size_um is None else first_length(group, _X_PIXEL)
    given_pixel = None if pixel_size_um is None else um_to_m(pixel_size_um)
    energy = _chosen(energy_kev, first_energy_kev(group, _ENERGY), "energy_kev", 1.0, path)
    pixel = _chosen(given_pixel, stored_pixel, "pixel_size_um", m_to_um(1.0), path)
    missing = []
    if energy is None:
        missing.append(
            "the photon energy: give energy_kev=… (--energy-kev on the command line, ENERGY_KEV= to make)"
        )
    if pixel is None:
        missing.append(
            "the pixel size at the sample: give pixel_size_um=… (--pixel-size-um on the command line, "
            "PIXEL_SIZE_UM= to make)"
        )
    if energy is None or pixel is None:
        raise ScanError(f"{path} does not record, with a unit, {'; nor '.join(missing)}")
    return energy, pixel


def _square_pixel(group: h5py.Group, path: Path) -> Stored | None:
    x, y = first_length(group, _X_PIXEL), first_length(group, _Y_PIXEL)
    if x is None or y is None or not x.value or not y.value:
        return x
    if abs(x.value / y.value - 1) > _DISAGREEMENT:
        raise ScanError(
            f"{path}: pixels must be square, got {m_to_um(x.value):g} by {m_to_um(y.value):g} µm in x and "
            "y; if one of them is wrong give pixel_size_um=…"
        )
    return x


def _chosen(
    given: float | None, stored: Stored | None, name: str, display: float, path: Path
) -> float | None:
    """The given value, else the stored one; a contradiction is logged."""
    known = stored.value if stored is not None else None
    if given is None:
        if known is not None and not (np.isfinite(known) and known > 0):
            # A zero written in place of an unknown is common, and as good as absent.
            logger.warning("%s: %s is %g, taken as not recorded", path, stored and stored.where, known)
            return None
        return known
    if known is not None and not abs(given / known - 1 if known else np.inf) <= _DISAGREEMENT:
        logger.warning(
            "%s: %s is given as %g, but %s records %g; the given value is used",
            path, name, given * display, stored and stored.where, known * display,
        )  # fmt: skip
    return given


def _distance(group: h5py.Group) -> float | None:
    stored = first_length(group, _DISTANCE)
    if stored is None or stored.value is None or not (np.isfinite(stored.value) and stored.value >= 0):
        return None
    return stored.value


def _listed(items: list[str], most: int = _MOST_NAMED) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
