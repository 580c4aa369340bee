"""Read NXtomo files, forged or from a beamline, into a Scan; refuse what cannot be trusted.

References: NeXus application definition NXtomo, https://manual.nexusformat.org; image_key 0 projection,
1 flat, 2 dark, 3 invalid. The entry is found by its ``definition``, never by its name.
"""

from collections.abc import Collection
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers the compression filters that beamlines write with
import numpy as np

from tomoforge.beamline.angle_lists import chosen_rows
from tomoforge.beamline.links import LinkedFile, LinkedGroup, damage_named
from tomoforge.beamline.nxtomo_entry import (
    ANGLES,
    FRAMES,
    first_dataset,
    image_keys,
    nxtomo_entry,
    required_dataset,
)
from tomoforge.beamline.quantities import (
    angles_in_radians,
    beam,
    check_given,
    distance,
    exact_angles,
    first_energy_kev,
    first_length,
    square,
)
from tomoforge.beamline.references import (
    IMAGE_KEYS,
    Sources,
    load_references,
    read_frames,
    require_references,
)
from tomoforge.errors import ScanError
from tomoforge.scan import FrameStack, Scan

# Where facilities and writers put the same thing, the most specific first.
_RADIANS = (
    "sample/rotation_angle_rad"  # written here beside the degrees, which cannot hold every angle exactly
)
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
    root: str | Path | None = None,
    angle_rows: tuple[int, int] | None = None,
    flats: Sources = None,
    darks: Sources = None,
) -> Scan:
    """Open an NXtomo file as a Scan; projections are read when indexed, flats and darks now.

    Parameters
    ----------
    path : HDF5 file
    energy_kev : float [keV], photon energy; wins over the file's
    pixel_size_um : float [µm], detector pixel at the sample; wins over the file's
    entry : path of the NXtomo entry, for files with several
    allow_missing : names out of "flats" and "darks" that may be absent; they then have no frames
    root : folder that links and virtual sources may not leave; the file's own by default
    angle_rows : (start, stop), which of the stored angles are those of the projections, where there is not one
        for each frame
    flats, darks : files that hold them instead of this one (``references.load_references``)

    Returns
    -------
    scan : Scan, named after the file

    Raises
    ------
    ScanError
        If the file is not HDF5, broken or still being written; has no NXtomo entry, or several; points to
        files that are missing or outside ``root``; has frames, keys and angles that do not fit; lacks flats or
        darks that are not waived; or lacks energy or pixel size that are not given. The message says what to do.
    InputError
        If a given value is not positive, or ``allow_missing`` has another name.
    """
    path = Path(path)
    check_given(energy_kev, pixel_size_um, allow_missing)
    with LinkedFile(path, root) as linked, damage_named(path):
        group = nxtomo_entry(linked, entry)
        data = _frames(group, path)
        keys = image_keys(group)
        if keys.size != data.shape[0]:
            raise ScanError(
                f"{path}: image_key must have one entry for each of the {data.shape[0]} frames, got {keys.size}; "
                "frames were lost, or the scan was interrupted"
            )
        projections = np.flatnonzero(keys == 0)
        if projections.size == 0:
            raise ScanError(
                f"{path} has no projections: no frame has image_key 0 among {sorted(set(keys.tolist()))}"
            )
        angles = _angles(group, data.shape[0], projections, angle_rows, path)
        given = {"flats": flats, "darks": darks}
        frames = {role: np.flatnonzero(keys == key) for role, key in IMAGE_KEYS.items()}
        require_references(
            {role: given[role] is not None or frames[role].size > 0 for role in IMAGE_KEYS},
            allow_missing,
            path,
            {role: f"frames with image_key {key}" for role, key in IMAGE_KEYS.items()},
        )
        energy, pixel = beam(
            path,
            energy_kev,
            pixel_size_um,
            lambda: first_energy_kev(group, _ENERGY),
            lambda: square(first_length(group, _X_PIXEL), first_length(group, _Y_PIXEL), path),
        )
        references = {
            role: read_frames(data, frames[role], role)
            if given[role] is None
            else load_references(given[role], role)
            for role in IMAGE_KEYS
        }
        return Scan(
            # By the name under which the frames really lie, so that no link is followed later.
            projections=FrameStack.open(data.file.filename, data.name, projections),
            flats=references["flats"],
            darks=references["darks"],
            angles=angles,
            energy_kev=energy,
            pixel_size=pixel,
            propagation_distance=distance(path, lambda: first_length(group, _DISTANCE)),
            name=path.stem,
        )


def _frames(entry: LinkedGroup, path: Path) -> h5py.Dataset:
    data = required_dataset(entry, FRAMES, "frames")
    if data.ndim != 3:
        raise ScanError(f"{path}: {data.name} must be (frame, y, x), got shape {data.shape}")
    if data.dtype.kind not in "uif":
        raise ScanError(f"{path}: {data.name} must hold real counts, got {data.dtype}")
    return data


def _angles(
    entry: LinkedGroup, count: int, projections: np.ndarray, rows: tuple[int, int] | None, path: Path
) -> np.ndarray:
    """(angle,) [rad] of the ``projections`` among ``count`` frames, or the stored ``rows``."""
    stored = required_dataset(entry, ANGLES, "rotation angles")
    angles = exact_angles(angles_in_radians(stored), first_dataset(entry, [_RADIANS]))
    if rows is not None:
        return chosen_rows(angles, rows, projections.size, f"{path}: rotation_angle")
    if angles.size != count:
        fewer = "fewer" if angles.size < count else "more"
        raise ScanError(
            f"{path}: rotation_angle has {fewer} entries than there are frames, {angles.size} for "
            f"{count}; angles cannot be told apart, so restore them from the motor's record, or say with "
            f"angle_rows=(start, stop) which {projections.size} of them are the projections'"
        )
    return angles[projections]
