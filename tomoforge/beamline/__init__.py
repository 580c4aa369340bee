"""Scans as beamlines write them: read, checked, or refused with the reason and the remedy."""

from collections.abc import Collection
from pathlib import Path

from tomoforge.beamline.data_exchange import is_data_exchange, read_data_exchange
from tomoforge.beamline.links import LinkedFile, damage_named
from tomoforge.beamline.nxtomo import read_nxtomo
from tomoforge.beamline.nxtomo_entry import nxtomo_entries
from tomoforge.beamline.references import Sources, load_references
from tomoforge.beamline.tiff_frames import is_tiff
from tomoforge.beamline.tiff_stack import read_tiff_stack
from tomoforge.beamline.validation import Finding, ScanReport, validate_scan
from tomoforge.beamline.writers import write_scan
from tomoforge.scan import Scan

__all__ = [
    "Finding",
    "ScanReport",
    "load_references",
    "read_data_exchange",
    "read_nxtomo",
    "read_scan",
    "read_tiff_stack",
    "validate_scan",
    "write_scan",
]


def read_scan(
    path: str | Path,
    *,
    energy_kev: float | None = None,
    pixel_size_um: float | None = None,
    allow_missing: Collection[str] = (),
    root: str | Path | None = None,
    angle_rows: tuple[int, int] | None = None,
    flats: Sources = None,
    darks: Sources = None,
    entry: str | None = None,
) -> Scan:
    """Open a scan, whatever its format, told by its content and not by its name; frames are read when indexed.

    Parameters
    ----------
    path : NXtomo or Data Exchange file, folder of TIFF files, or multi-page TIFF file. A file that is both NXtomo
        and Data Exchange is read as NXtomo, which says of each frame what it is.
    energy_kev : float [keV], photon energy; wins over the file's
    pixel_size_um : float [µm], detector pixel at the sample; wins over the file's
    allow_missing : names out of "flats" and "darks" that may be absent
    root : folder that links, virtual sources and names in a sidecar may not lead out of; by default the file's
        own folder
    angle_rows : (start, stop), which rows of a list of angles are the projections', where it is longer
    flats, darks : files that hold them instead of the scan: an HDF5 file, "file.h5:/path", a TIFF file, a folder
        of TIFF files, or several of these
    entry : path of the NXtomo entry, for files with several

    Raises
    ------
    ScanError
        If the format is not read, or the scan cannot be used; the message says what to do.
    InputError
        If a given value is not positive, or ``allow_missing`` has another name.
    """
    path = Path(path)
    if path.is_dir() or (path.is_file() and is_tiff(path)):
        return read_tiff_stack(
            path,
            energy_kev=energy_kev,
            pixel_size_um=pixel_size_um,
            allow_missing=allow_missing,
            root=root,
            angle_rows=angle_rows,
            flats=flats,
            darks=darks,
        )
    with LinkedFile(path, root) as linked, damage_named(path):
        exchange = entry is None and not nxtomo_entries(linked) and is_data_exchange(linked)
    if exchange:
        return read_data_exchange(
            path,
            energy_kev=energy_kev,
            pixel_size_um=pixel_size_um,
            allow_missing=allow_missing,
            root=root,
            angle_rows=angle_rows,
            flats=flats,
            darks=darks,
        )
    return read_nxtomo(
        path,
        energy_kev=energy_kev,
        pixel_size_um=pixel_size_um,
        entry=entry,
        allow_missing=allow_missing,
        root=root,
        angle_rows=angle_rows,
        flats=flats,
        darks=darks,
    )
