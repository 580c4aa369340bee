"""What an HDF5 file points at, found without following it out of a folder, and what in it was never written.

HDF5 opens whatever an external link, a virtual dataset or an external raw-data list names, ``/etc/passwd`` as
readily as the detector's file beside it, and hands out fill values for data that were never written. A file
from elsewhere is therefore looked through before it is read: only its structure, no data.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers the compression filters that beamlines write with
import numpy as np

from tomoforge.beamline.findings import refusal

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MOST_OBJECTS = 200_000  # more in one file is no scan
_CLAIM = 1 << 30  # [bytes] smaller claims cost nothing to read
# No compression in use reaches it on counts: deflate ends at 1030, and noise does not compress at all.
_MOST_COMPRESSED = 3000


def is_hdf5(path: Path) -> bool:
    """Whether a file has HDF5's signature at its beginning, or after a user block of 512 bytes times a power of 2."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            place = 0
            while place < size:
                file.seek(place)
                if file.read(len(_SIGNATURE)) == _SIGNATURE:
                    return True
                place = max(512, 2 * place)
    except OSError:
        pass
    return False


def linked_files(path: Path, root: Path) -> tuple[Path, ...]:
    """The files that the HDF5 file ``path`` points at, through links, virtual and external data, at any depth.

    Files that are missing are among them: they may still be copied. What lies outside ``root`` is left out and
    never opened: files from beamlines are full of absolute links that the scan does not need, and where it does
    need one the reader refuses it.

    Raises
    ------
    Refused
        "unwritten claim" where a dataset claims gigabytes that were never stored.
    OSError
        If HDF5 cannot open ``path``.
    """
    root = Path(os.path.realpath(root))
    found: dict[Path, None] = {}
    waiting = [path]
    seen: set[Path] = set()
    while waiting:
        current = waiting.pop()
        real = Path(os.path.realpath(current))
        if real in seen:
            continue
        seen.add(real)
        for target in _targets(current):
            place = Path(os.path.realpath(current.parent / target))
            if place.is_relative_to(root) and place not in found:
                found[place] = None
                if place.is_file() and is_hdf5(place):
                    waiting.append(place)
    return tuple(sorted(found))


def _targets(path: Path) -> Iterator[str]:
    """Names of the files, as ``path`` has them, in which something of it lies."""
    with h5py.File(path, "r") as file:
        seen: set[int] = set()
        waiting: list[h5py.Group] = [file["/"]]
        objects = 0
        while waiting:
            group = waiting.pop()
            for name in group:
                objects += 1
                if objects > _MOST_OBJECTS:
                    raise refusal(
                        "too many objects", f"{path.name} holds more than {_MOST_OBJECTS}", "drop a scan only"
                    )
                link = group.get(name, getlink=True)
                if isinstance(link, h5py.ExternalLink):
                    yield link.filename
                elif not isinstance(link, h5py.SoftLink):  # those lead to what is found on its own way
                    member = group[name]
                    address = h5py.h5o.get_info(member.id).addr
                    if address in seen:
                        continue
                    seen.add(address)
                    if isinstance(member, h5py.Group):
                        waiting.append(member)
                    elif isinstance(member, h5py.Dataset):
                        yield from _dataset_targets(member, path)


def _dataset_targets(dataset: h5py.Dataset, path: Path) -> Iterator[str]:
    if dataset.is_virtual:
        for source in dataset.virtual_sources():
            if source.file_name != ".":
                yield source.file_name
        return
    if dataset.external:
        for name, _, _ in dataset.external:
            yield os.fsdecode(name)
        return
    claimed = dataset.dtype.itemsize * int(np.prod(dataset.shape or (0,), dtype=object))
    stored = dataset.id.get_storage_size()
    if claimed > _CLAIM and stored * _MOST_COMPRESSED < claimed:
        raise refusal(
            "unwritten claim",
            f"{path.name}:{dataset.name} claims {claimed:.3g} bytes {dataset.shape} and stores {stored}",
            "copy the scan again once it is whole",
        )


def unwritten_frames(path: Path, dataset: str) -> int:
    """How many chunks of ``dataset`` were never written, and read as fill values; 0 where all were.

    A virtual dataset is looked at through its sources.
    """
    with h5py.File(path, "r") as file:
        return _unwritten(file[dataset], Path(path), 4)


def _unwritten(dataset: h5py.Dataset, path: Path, depth: int) -> int:
    if dataset.external or depth == 0:
        return 0
    if not dataset.is_virtual:
        if dataset.chunks is None:
            compact = dataset.id.get_create_plist().get_layout() == h5py.h5d.COMPACT
            return 0 if compact or dataset.id.get_storage_size() else 1
        wanted = np.prod([-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)])
        return int(wanted) - dataset.id.get_num_chunks()
    missing = 0
    for name, inner in sorted({(s.file_name, s.dset_name) for s in dataset.virtual_sources()}):
        if name == ".":
            missing += _unwritten(dataset.file[inner], path, depth - 1)
        else:
            source = path.parent / name
            with h5py.File(source, "r") as file:
                missing += _unwritten(file[inner], source, depth - 1)
    return missing
