"""The inbox: what lies in it, whether it has settled, which of its files is the scan. Only looked at, never touched.

Each file or folder directly in the inbox is one entry: a scan, or a folder with one scan and its companions.
Hidden and temporary names are passed over. Whether an entry is as it was is told by its fingerprint, the names,
sizes and times of its files, which takes a stat call each; contents are read once it has settled.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py

from tomoforge.beamline.containment import is_hdf5, linked_files
from tomoforge.beamline.data_exchange import is_data_exchange
from tomoforge.beamline.findings import Finding, Refused, refusal
from tomoforge.beamline.links import LinkedFile, LinkedGroup
from tomoforge.beamline.nxtomo_entry import FRAMES, first_dataset, nxtomo_entries
from tomoforge.errors import ScanError

TEMPORARY = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".swp", "~")
TIFF = (".tif", ".tiff")
LABEL_FILES = (".nrrd", ".nii", ".nii.gz")
DIALS_FILES = (".expt", ".refl")
_LABEL_NAME = re.compile(r"(?<![a-z])(label|mask|segment)", re.I)  # as the reader of TIFF stacks has it
_HDF5_NAMES = (".nxs", ".nx", ".h5", ".hdf5", ".hdf")
_SPARSE_CLAIM = 64 << 20  # [bytes] smaller files cost nothing to read
_SPARSE_SHARE = 0.05  # of the size: file systems that compress do not go below on counts
_ABSENT = "absent"
LOCKED, MARKED_OPEN = "locked for writing", "open for writing"


@dataclass(frozen=True)
class Snapshot:
    """An entry as it was at one moment, by its names, sizes and times alone.

    path : of the entry; files : relative name → size [bytes], regular files only; newest : latest change of a file
    or folder [s since the epoch]; fingerprint : hash of names, sizes and modification times; problem : what
    forbids reading it.
    """

    path: Path
    files: dict[str, int]
    newest: float
    fingerprint: str
    problem: Finding | None


@dataclass(frozen=True)
class Parts:
    """Which files of an entry are what. scan : file, or folder of a TIFF stack; companions : files or folders."""

    scan: Path
    companions: tuple[Path, ...]


def entries(inbox: Path) -> list[Path]:
    """The entries of an inbox, sorted by name; none where there is no such folder."""
    try:
        names = sorted(os.listdir(inbox))
    except FileNotFoundError:
        return []
    return [inbox / name for name in names if not is_temporary(name)]


def is_temporary(name: str) -> bool:
    """Whether a name is one that copying tools and editors give to what is not finished, or hidden."""
    return name.startswith((".", "#")) or name.lower().endswith(TEMPORARY)


def look(path: Path, inbox: Path, linked: Iterable[str] = ()) -> Snapshot:
    """A snapshot of an entry, and of the files elsewhere in the inbox that it points at.

    path : the entry; inbox : links may not leave it; linked : names, relative to the inbox, of files outside the
    entry that belong to it.
    """
    root = Path(os.path.realpath(inbox))
    digest = hashlib.sha256()
    files: dict[str, int] = {}
    newest = 0.0
    problem: Finding | None = None

    def note(name: str, place: Path) -> None:
        nonlocal newest, problem
        try:
            status = os.lstat(place)
            newest = max(newest, status.st_mtime, status.st_ctime)
            if stat.S_ISLNK(status.st_mode):
                digest.update(b"link" + os.fsencode(os.readlink(place)) + b"\0")
                problem = problem or _link_problem(name, place, root)
                if problem is not None:
                    return
                status = os.stat(place)
                newest = max(newest, status.st_mtime)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                problem = problem or Finding("unreadable", f"{name}: {error.strerror}", "allow it to be read")
            digest.update(os.fsencode(name) + _ABSENT.encode() + b"\0")
            return
        kind = stat.S_IFMT(status.st_mode)
        size = status.st_size if kind == stat.S_IFREG else -1
        digest.update(os.fsencode(name) + f"\0{kind}\0{size}\0{status.st_mtime_ns}\0".encode())
        if kind == stat.S_IFREG:
            files[name] = size
        problem = problem or _file_problem(name, status)

    for name, place in _walk(path):
        note(name, place)
    for name in sorted(linked):
        note(os.path.join("..", name), inbox / name)
    return Snapshot(path, files, newest, digest.hexdigest(), problem)


def _walk(path: Path) -> Iterator[tuple[str, Path]]:
    """(name relative to the entry, place) of the entry itself and all under it, sorted; links are not followed."""
    yield path.name, path
    if path.is_symlink() or not path.is_dir():
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted([*folders, *names]):
            place = Path(folder) / name
            yield str(place.relative_to(path.parent)), place


def _link_problem(name: str, place: Path, root: Path) -> Finding | None:
    target = Path(os.path.realpath(place))
    if not target.is_relative_to(root):
        return Finding(
            "path leaves the inbox",
            f"{name} is a link to {os.readlink(place)}",
            "put the file itself into the inbox",
        )
    if target.is_dir():
        return Finding("link to a folder", f"{name} is one", "put the folder itself into the inbox")
    if not target.exists():
        return Finding("broken link", f"{name} leads nowhere", "put the file itself into the inbox")
    return None


def _file_problem(name: str, status: os.stat_result) -> Finding | None:
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return Finding(
            "special file", f"{name} is a device, pipe or socket", "leave only files and folders in the inbox"
        )
    allocated = status.st_blocks * 512
    if (
        stat.S_ISREG(status.st_mode)
        and status.st_size > _SPARSE_CLAIM
        and allocated < _SPARSE_SHARE * status.st_size
    ):
        return Finding(
            "sparse claim",
            f"{name} claims {status.st_size:.3g} bytes and occupies {allocated:.3g}",
            "copy it again, or recall it from the archive",
        )
    return None


def unsettled(snapshot: Snapshot, now: float, settle_s: float, known_since: float | None) -> Finding | None:
    """Why an entry is not read yet; None where nothing about it has changed for ``settle_s``.

    now [s since the epoch]; known_since : when an earlier look first saw this fingerprint, None if none has. That
    memory, of this machine's clock alone, decides where another machine's clock wrote times of the future.
    """
    unfinished = sorted(name for name in snapshot.files if _unfinished(name))
    if unfinished:
        return Finding(
            "still being copied", f"{unfinished[0]} is a temporary file", "nothing: it is looked at again"
        )
    age = now - snapshot.newest
    known = now - known_since if known_since is not None else 0.0
    if age >= settle_s or known >= settle_s:
        return None
    when = f"changed within {settle_s:g} s" if age >= 0 else "has a time in the future"
    return Finding("still being written", f"it {when}", "nothing: it is looked at again")


def _unfinished(name: str) -> bool:
    return Path(name).name.lower().endswith(TEMPORARY) and not Path(name).name.startswith(".")


def open_for_writing(path: Path) -> Finding | None:
    """Whether the writer of an HDF5 file still has it open: locked, or by a mark that a dead writer leaves."""
    try:
        h5py.File(path, "r").close()
    except BlockingIOError:
        return Finding(LOCKED, f"{path.name} is locked by its writer", "wait until it is closed")
    except OSError as error:
        if "open for write" not in str(error):
            return None  # damaged rather than open; reading will say how
        return Finding(
            MARKED_OPEN,
            f"{path.name} is marked as open for writing",
            "wait until it is closed; if its writer died, repair it with h5clear -s",
        )
    return None


def find_parts(path: Path, inbox: Path) -> Parts:
    """Which file of a settled entry is the scan, and which are its companions.

    Raises
    ------
    Refused
        "one scan" where there are several, "no scan" where there is none.
    """
    if not path.is_dir():
        if is_hdf5(path) or path.suffix.lower() in _HDF5_NAMES:
            return Parts(path, ())
        raise refusal(
            "no scan",
            f"{path.name} is no NXtomo or Data Exchange file",
            "a TIFF stack and what belongs to a scan want a folder of their own; put it there",
        )
    companions, others = _sorted_out(path)
    hdf5 = [file for file in others if is_hdf5(file)]
    scans = [file for file in hdf5 if _holds_scan(file, inbox)]
    if len(scans) > 1:
        raise refusal(
            "one scan",
            f"{path.name} holds {len(scans)} scans: {', '.join(f.name for f in scans[:8])}",
            "give each a folder of its own",
        )
    if scans:
        return Parts(scans[0], companions)
    if any(file.suffix.lower() in TIFF for file in others):
        return Parts(path, companions)
    # One file that cannot be told to be a scan is read all the same: the reader says what is wrong with it.
    named = hdf5 or [file for file in others if file.suffix.lower() in _HDF5_NAMES]
    if len(named) == 1:
        return Parts(named[0], companions)
    raise refusal(
        "no scan",
        f"{path.name} holds no NXtomo, Data Exchange or TIFF stack among {len(others)} files",
        "put the scan into the same folder, or take the folder away",
    )


def _sorted_out(folder: Path) -> tuple[tuple[Path, ...], list[Path]]:
    """Companions (files or folders), and all files that are none."""
    companions: list[Path] = []
    others: list[Path] = []
    for place in sorted(folder.iterdir()):
        name = place.name.lower()
        if is_temporary(name):
            continue
        if place.is_dir():
            if (place / "zarr.json").exists() or (place / ".zgroup").exists() or _LABEL_NAME.search(name):
                companions.append(place)
            else:
                found, rest = _sorted_out(place)
                companions += found
                others += rest
        elif name.endswith((*LABEL_FILES, *DIALS_FILES)) or (
            name.endswith(TIFF) and _LABEL_NAME.search(name)
        ):
            companions.append(place)
        else:
            others.append(place)
    return tuple(companions), others


def _holds_scan(path: Path, inbox: Path) -> bool:
    """Whether an HDF5 file has an NXtomo entry with frames, or is Data Exchange."""
    try:
        with LinkedFile(path, inbox) as linked:
            for group in nxtomo_entries(linked).values():
                if first_dataset(LinkedGroup(linked, group), FRAMES) is not None:
                    return True
            return is_data_exchange(linked)
    except (OSError, KeyError, RuntimeError, ScanError):
        return False


def links_of(path: Path, inbox: Path) -> tuple[str, ...]:
    """Names, relative to the inbox, of the files outside an entry that its HDF5 files point at.

    Raises
    ------
    Refused
        As ``linked_files``; a file that HDF5 cannot open is passed over here, reading it will say why.
    """
    root = Path(os.path.realpath(inbox))
    own = Path(os.path.realpath(path))
    found: set[str] = set()
    for _, place in _walk(path):
        if place.suffix.lower() in TIFF or not place.is_file() or not is_hdf5(place):
            continue
        try:
            targets = linked_files(place, root)
        except (OSError, KeyError, RuntimeError) as error:
            if isinstance(error, Refused):
                raise
            continue
        found |= {str(t.relative_to(root)) for t in targets if t != own and own not in t.parents}
    return tuple(sorted(found))


def hdf5_files(path: Path) -> list[Path]:
    """The HDF5 files of an entry."""
    return [
        place
        for _, place in _walk(path)
        if place.suffix.lower() not in TIFF and place.is_file() and is_hdf5(place)
    ]
