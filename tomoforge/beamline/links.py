"""HDF5 files that point to other files: followed only inside one folder, and never into nothing unnoticed.

HDF5 follows a link as soon as its name is touched, wherever it leads; a broken link looks like an absent name,
and a virtual dataset whose source is gone reads as fill values, which would reconstruct to a plausible
picture. So names are walked here part by part, and a target is judged before it is opened.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import h5py
import numpy as np

from tomoforge.errors import ScanError, TomoforgeError

logger = logging.getLogger(__name__)

_MOST_LINKS = 16  # one after another for one name, as in HDF5
_MOST_NAMED = 12
_VIRTUAL_LEVELS = 3

Member: TypeAlias = h5py.Group | h5py.Dataset


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
        # By its real name, because HDF5 looks for linked files beside the name it was given first.
        return h5py.File(path.resolve(), "r")
    except OSError as error:
        raise ScanError(
            f"{path} cannot be opened as HDF5: {error}; if the scan is still being written or copied, wait "
            "until it is finished, otherwise copy it again"
        ) from error


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn what HDF5 and h5py raise over a damaged file into a ScanError that says so.

    h5py raises nearly every built-in error, as KeyError for an object that cannot be opened and TypeError or
    ValueError for a type that NumPy does not have.
    """
    try:
        yield
    except TomoforgeError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise ScanError(
            f"{path} is damaged, HDF5 says: {error}; copy it again from where it was recorded"
        ) from error


class LinkedFile:
    """An HDF5 file and those that its links lead to, none of them outside ``root``; closes them together.

    path : HDF5 file; root : folder that links and virtual sources may not leave, by default the folder in which
    the file really lies. Real paths are compared, so neither ``..`` nor a symbolic link leads out.

    Raises ScanError if the file cannot be opened or lies outside ``root`` itself.
    """

    def __init__(self, path: str | Path, root: str | Path | None = None) -> None:
        self.path = Path(path)
        self.root = self.path.resolve().parent if root is None else Path(root).resolve()
        if not self.path.resolve().is_relative_to(self.root):
            raise ScanError(
                f"{self.path} really lies at {self.path.resolve()}, outside root {self.root}; copy the file itself "
                "into that folder, or give a root= that holds it"
            )
        self.file = open_hdf5(self.path)
        self._files: dict[Path, h5py.File | None] = {self.path.resolve(): self.file}

    def __enter__(self) -> "LinkedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and every file that was opened through its links."""
        for file in self._files.values():
            if file is not None:
                file.close()

    def get(self, group: h5py.Group, name: str) -> Member | None:
        """What ``name`` is under ``group``; None where it is absent or a link on the way leads to nothing.

        Raises
        ------
        ScanError
            If a link leads out of ``root``, or it is a dataset that keeps its values in other files which are
            outside ``root``, missing, or not what it says they are.
        """
        found = self._walk(group, name, iter(range(_MOST_LINKS)))
        if isinstance(found, h5py.Dataset):
            self._check_values(found)
        return found

    def groups(self, group: h5py.Group) -> Iterator[tuple[str, h5py.Group]]:
        """Name and group of each member of ``group`` that is one; links that lead out or nowhere are passed."""
        for name in group:
            if isinstance(name, bytes):  # not a text: nothing that is looked for here
                continue
            try:
                member = self._walk(group, name, iter(range(_MOST_LINKS)))
            except ScanError:
                continue
            if isinstance(member, h5py.Group):
                yield name, member

    def dangling(self, group: h5py.Group) -> list[str]:
        """Links under ``group`` that lead to nothing or out of ``root``, each as "name -> file:path"."""
        return sorted(set(self._dangling(group, "", set())))

    def _dangling(self, group: h5py.Group, prefix: str, seen: set[int]) -> list[str]:
        found = []
        for name in group:
            if isinstance(name, bytes):
                continue
            full = f"{prefix}/{name}"
            link = _link(group, name)
            try:
                member = self._walk(group, name, iter(range(_MOST_LINKS)))
            except ScanError:
                found.append(f"{full} -> {_target(link)} (out of {self.root})")
                continue
            if member is None:
                found.append(f"{full} -> {_target(link)}")
            # Only into groups of this very file, and once: links may make circles.
            elif isinstance(member, h5py.Group) and not isinstance(link, h5py.ExternalLink):
                token = h5py.h5o.get_info(member.id).addr
                if token not in seen:
                    seen.add(token)
                    found += self._dangling(member, full, seen)
        return found

    def _walk(self, group: h5py.Group, name: str, left: Iterator[int], moved: bool = True) -> Member | None:
        here: Member | None = group.file["/"] if name.startswith("/") else group
        for part in name.split("/"):
            if part in ("", "."):
                continue
            if not isinstance(here, h5py.Group):
                return None
            here = self._step(here, part, left, moved)
        return here

    def _step(self, group: h5py.Group, name: str, left: Iterator[int], moved: bool) -> Member | None:
        link = _link(group, name)
        if isinstance(link, h5py.HardLink):
            return group[name]
        if link is None or next(left, None) is None:
            return None
        if isinstance(link, h5py.SoftLink):
            return self._walk(group, link.path, left, moved)
        label = f"the link {str(group.name).rstrip('/')}/{name}"
        path = self._inside(link.filename, group.file, label, moved)
        file = None if path is None else self._opened(path)
        return None if file is None else self._walk(file["/"], link.path, left, moved)

    def _opened(self, path: Path) -> h5py.File | None:
        if path not in self._files:
            try:
                self._files[path] = h5py.File(path, "r")
            except OSError as error:
                logger.warning("%s: %s cannot be opened: %s", self.path, path, error)
                self._files[path] = None
        return self._files[path]

    def _inside(self, name: str, holder: h5py.File, label: str, moved: bool) -> Path | None:
        """Where the file ``name``, named in ``holder``, really lies; None where it is not there."""
        folder = Path(holder.filename).parent
        path = _real(folder / name)
        if path is None:
            return None
        if path.is_relative_to(self.root):
            return path if path.is_file() else None
        remedy = "copy that file beside the scan and link it by its relative name"
        if moved and Path(name).is_absolute():
            # Beamlines link by the path on their own disk. HDF5, too, looks beside the file for what was moved.
            remedy = "copy that file beside the scan"
            beside = _real(folder / Path(name).name)
            if beside is not None and beside.is_relative_to(self.root) and beside.is_file():
                return beside
        raise ScanError(
            f"{self.path}: {label} leads to {name}, which is outside root {self.root}, the folder that links may not "
            f"leave; {remedy}, or give a root= that holds both"
        )

    def _check_values(self, dataset: h5py.Dataset) -> None:
        if dataset.external:
            names = ", ".join(str(part[0]) for part in dataset.external)
            raise ScanError(
                f"{self.path}: {dataset.name} keeps its values in raw files ({names}), which are not followed; "
                "write them into the HDF5 file itself (h5repack does)"
            )
        broken = self.broken_sources(dataset)
        if broken:
            raise ScanError(
                f"{self.path}: {dataset.name} is a virtual dataset whose sources are not all there: "
                f"{listed(broken)}; move the files back beside it, or write the scan again"
            )

    def broken_sources(self, dataset: h5py.Dataset, levels: int = _VIRTUAL_LEVELS) -> list[str]:
        """What keeps a virtual dataset from being whole, in words; empty for whole and for ordinary datasets.

        Checks that every source file and dataset exists and is as long as the mapping needs, that the mappings
        together cover the dataset, and the same for sources that are virtual themselves, ``levels`` down.

        Raises
        ------
        ScanError
            If a source is outside ``root``.
        """
        if dataset.external:
            return [f"{dataset.name} keeps its values in raw files, which are not followed"]
        if not dataset.is_virtual:
            return []
        if levels == 0:
            return [f"{dataset.name} is virtual through too many levels"]
        problems: list[str] = []
        covered = 0
        for source in dataset.virtual_sources():
            covered += source.vspace.get_select_npoints()
            if "%b" in source.file_name or "%b" in source.dset_name:
                problems.append(f"{source.file_name} is a pattern of files, which cannot be checked")
            else:
                problems += self._source_problems(dataset, source, levels)
        if covered < int(np.prod(dataset.shape)):
            problems.append(f"{dataset.name} is mapped onto sources only in part")
        return problems

    def _source_problems(self, dataset: h5py.Dataset, source: Any, levels: int) -> list[str]:
        if source.file_name == ".":
            return self._dataset_problems(dataset.file, source, "this file", levels)
        label = source.file_name
        # Here HDF5 follows by itself, and prefers a path as it is written: what was moved is not looked for.
        path = self._inside(label, dataset.file, f"the virtual dataset {dataset.name}", moved=False)
        if path is None:
            return [f"{label} is missing"]
        known = path in self._files
        file = self._opened(path)
        if file is None:
            return [f"{label} cannot be opened as HDF5"]
        try:
            return self._dataset_problems(file, source, label, levels)
        finally:
            if not known:  # sources may be thousands, more than a process may have open
                del self._files[path]
                file.close()

    def _dataset_problems(self, file: h5py.File, source: Any, label: str, levels: int) -> list[str]:
        stored = self._walk(file["/"], source.dset_name, iter(range(_MOST_LINKS)), moved=False)
        if not isinstance(stored, h5py.Dataset):
            return [f"{label} has no dataset {source.dset_name}"]
        if not _long_enough(stored, source):
            wanted = source.vspace.get_select_npoints()
            return [
                f"{label}:{source.dset_name} is {stored.shape}, shorter than the {wanted} values mapped onto it"
            ]
        return self.broken_sources(stored, levels - 1)


@dataclass(frozen=True)
class LinkedGroup:
    """A group whose members are reached as ``LinkedFile`` allows."""

    linked: LinkedFile
    group: h5py.Group

    @property
    def name(self) -> str:
        """Its path in the file that holds it."""
        return str(self.group.name)

    def get(self, name: str) -> Member | None:
        """The member ``name``, or None; raises ScanError as ``LinkedFile.get``."""
        return self.linked.get(self.group, name)

    def dataset(self, name: str) -> h5py.Dataset | None:
        """The member ``name`` if it is a dataset that holds something, or None."""
        member = self.get(name)
        return member if isinstance(member, h5py.Dataset) and member.shape is not None else None


def same_object(a: h5py.HLObject, b: h5py.HLObject) -> bool:
    """Whether two names lead to one group or dataset of one file."""
    return object_identity(a) == object_identity(b)


def object_identity(member: h5py.HLObject) -> tuple[str, int]:
    """File and address of a group or dataset: equal for all its names."""
    return member.file.filename, h5py.h5o.get_info(member.id).addr


def listed(items: list[str], most: int = _MOST_NAMED) -> str:
    """The first ``most`` of ``items`` for a message, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _link(group: h5py.Group, name: str) -> h5py.HardLink | h5py.SoftLink | h5py.ExternalLink | None:
    try:
        return group.get(name, getlink=True)
    except TypeError:  # a kind of link that an application defined for itself
        return None


def _target(link: h5py.HardLink | h5py.SoftLink | h5py.ExternalLink | None) -> str:
    if isinstance(link, h5py.ExternalLink):
        return f"{link.filename}:{link.path}"
    return str(getattr(link, "path", "?"))


def _real(path: Path) -> Path | None:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # a circle of symbolic links, a name that cannot be one
        return None


def _long_enough(stored: h5py.Dataset, source: Any) -> bool:
    if source.src_space.get_select_type() == h5py.h5s.SEL_ALL:
        # The mapping takes the whole source and does not say how large that was.
        return stored.size == source.vspace.get_select_npoints()
    _, last = source.src_space.get_select_bounds()
    return len(last) == stored.ndim and all(end < size for end, size in zip(last, stored.shape, strict=True))
