"""Which angle belongs to which projection of a TIFF stack: by its sidecar, its list of angles, or a NeXus file.

A list as long as the projections is theirs. Of a longer one, rows are taken where they are told by argument or
sidecar, by the image keys of a NeXus file beside it, or by the motor's movement, in this order; else nothing is.
"""

import logging
import re
from pathlib import Path

import numpy as np

from tomoforge.beamline.angle_lists import chosen_rows, moving_rows, read_angles
from tomoforge.beamline.links import LinkedFile, damage_named, listed
from tomoforge.beamline.nxtomo_entry import ANGLES, first_dataset, image_keys, nxtomo_entry
from tomoforge.beamline.quantities import angles_in_radians
from tomoforge.beamline.sidecar import Sidecar
from tomoforge.beamline.tiff_frames import check_inside
from tomoforge.errors import ScanError
from tomoforge.units import deg_to_rad

logger = logging.getLogger(__name__)

_ANGLE_FILE = re.compile(r"(angle|theta|rotation)", re.IGNORECASE)
_SAME_ANGLE = np.radians(0.01)  # lists are printed with four decimals or fewer
_TEXT_SUFFIXES = (".txt", ".csv", ".dat", ".tsv")
_HDF5_SUFFIXES = (".nxs", ".h5", ".hdf", ".hdf5", ".nx")


def stack_angles(
    folder: Path, sidecar: Sidecar, count: int, rows: tuple[int, int] | None, allowed: Path
) -> np.ndarray:
    """(angle,) [rad], one for each of ``count`` projections.

    folder : of the stack; rows : (start, stop) of a longer list, by argument or sidecar; allowed : folder that no
    name may lead out of

    Raises
    ------
    ScanError
        If there is no list of angles, or several, or nothing tells which rows of it are the projections'.
    """
    if sidecar.angle_start_deg is not None and sidecar.angle_step_deg is not None:
        if rows is not None:
            raise ScanError(
                f"{folder}: angle_rows choose out of a list of angles, but the sidecar gives angle_start_deg and "
                "angle_step_deg, which are the projections' already; leave out angle_rows"
            )
        return deg_to_rad(1.0) * (sidecar.angle_start_deg + sidecar.angle_step_deg * np.arange(count))
    if isinstance(sidecar.angles, list):
        angles, where = np.radians(np.asarray(sidecar.angles)), "angles in the sidecar"
    else:
        file = _angle_file(folder, sidecar.angles, allowed)
        angles, where = read_angles(file), str(file)
    if rows is not None:
        return chosen_rows(angles, rows, count, where)
    if angles.size == count:
        return angles
    if angles.size > count:
        keyed = _rows_by_image_key(folder, angles, count, allowed)
        moving = moving_rows(angles, count)
        if keyed is not None and moving is not None and not np.array_equal(keyed, np.arange(*moving)):
            raise ScanError(
                f"{where}: the motor moves over rows {moving[0]} to {moving[1]}, but the image keys of the NeXus file "
                "beside it say others are the projections'; say which by angle_rows=(start, stop)"
            )
        if keyed is not None:
            return angles[keyed]
        if moving is not None:
            logger.warning(
                "%s: %d angles for %d projections; rows %d to %d are taken, the only run over which the motor moves; "
                "angle_rows=%r says so for certain",
                where, angles.size, count, *moving, moving,
            )  # fmt: skip
            return angles[moving[0] : moving[1]]
    raise ScanError(
        f"{where} has {angles.size} angles for {count} projections, and nothing tells which belong to them; say it by "
        f"angle_rows=(start, stop){', or restore the lost rows' if angles.size < count else ''}"
    )


def _angle_file(folder: Path, named: str | None, allowed: Path) -> Path:
    if named is not None:
        file = folder / named
        check_inside(file, allowed)
        return file
    texts = sorted(file for file in folder.iterdir() if file.suffix.lower() in _TEXT_SUFFIXES)
    found = [file for file in texts if _ANGLE_FILE.search(file.stem)]
    found = found or [file for file in texts if file.suffix.lower() == ".csv"]
    if len(found) != 1:
        got = listed([file.name for file in found]) or "none"
        raise ScanError(
            f"{folder} must have one file of angles, angles.txt or *.csv in degrees, got {got}; write one angle for "
            "each projection into angles.txt, or say in scan.json angles: (a file or a list) or angle_start_deg: and "
            "angle_step_deg:"
        )
    check_inside(found[0], allowed)
    return found[0]


def _rows_by_image_key(folder: Path, angles: np.ndarray, count: int, allowed: Path) -> np.ndarray | None:
    """Rows of the projections after the image keys of a NeXus file that was written with the angles."""
    for file in hdf5_files(folder, allowed):
        try:
            with LinkedFile(file, allowed) as linked, damage_named(file):
                entry = nxtomo_entry(linked)
                keys = image_keys(entry)
                stored = first_dataset(entry, ANGLES)
                recorded = None if stored is None else angles_in_radians(stored)
        except ScanError as error:
            logger.info("%s has no image keys to go by: %s", file, error)
            continue
        rows = np.flatnonzero(keys == 0)
        if keys.size != angles.size or rows.size != count:
            continue
        logger.info("%s: the angles of image_key 0 are the projections'", file)
        if recorded is not None and recorded.size == angles.size:
            apart = float(np.max(np.abs(recorded - angles)))
            if apart > _SAME_ANGLE:
                logger.warning(
                    "%s: its image keys are used, but its angles are up to %.3g degrees from the list's: is it of "
                    "another scan?",
                    file, np.degrees(apart),
                )  # fmt: skip
        return rows
    return None


def hdf5_files(folder: Path, allowed: Path) -> list[Path]:
    """Files in ``folder``, by their names HDF5, that lie inside ``allowed``."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _HDF5_SUFFIXES)
    return [file for file in files if file.is_file() and file.resolve().is_relative_to(allowed)]
