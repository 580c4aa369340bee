"""Scans as beamlines write them: read, checked, or refused with the reason and the remedy."""

from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from tomoforge.beamline.nxtomo import nxtomo_entries, open_hdf5, read_nxtomo
from tomoforge.beamline.validation import Finding, ScanReport, validate_scan
from tomoforge.errors import ScanError
from tomoforge.scan import Scan

__all__ = ["Finding", "ScanReport", "read_nxtomo", "read_scan", "validate_scan"]


def read_scan(
    path: str | Path,
    *,
    energy_kev: float | None = None,
    pixel_size_um: float | None = None,
    allow_missing: Collection[str] = (),
) -> Scan:
    """Open a scan, whatever its format, told by its content and not by its name.

    Parameters
    ----------
    path : file
    energy_kev : float [keV], photon energy; wins over the file's
    pixel_size_um : float [µm], detector pixel at the sample; wins over the file's
    allow_missing : names out of "flats" and "darks" that may be absent

    Raises
    ------
    ScanError
        If the format is not read, or the scan cannot be used; the message says what to do.
    """
    path = Path(path)
    if path.is_dir():
        raise ScanError(f"{path} is a folder; folders of TIFF files are not read, convert them to NXtomo")
    with closing(open_hdf5(path)) as file:
        exchange = not nxtomo_entries(file) and "exchange/data" in file
    if exchange:
        raise ScanError(f"{path} is a Data Exchange file, which is not read; convert it to NXtomo")
    return read_nxtomo(path, energy_kev=energy_kev, pixel_size_um=pixel_size_um, allow_missing=allow_missing)
