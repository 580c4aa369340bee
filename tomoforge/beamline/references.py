"""Flats and darks: those of the scan itself, and those that were recorded into other files.

A source is written as people name it: ``flats.h5``, ``flats.h5:/entry1/pco/data``, a TIFF file, or a folder of
TIFF files; several are put one after another.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers the compression filters that beamlines write with
import numpy as np

from tomoforge.beamline.links import LinkedFile, damage_named, listed, object_identity
from tomoforge.beamline.nxtomo_entry import FRAMES, image_keys, nxtomo_entries, nxtomo_entry, required_dataset
from tomoforge.beamline.tiff_frames import TiffFrames, is_tiff, tiff_files
from tomoforge.errors import InputError, ScanError

Sources = str | Path | Sequence[str | Path] | None

IMAGE_KEYS = {"flats": 1, "darks": 2}
_EXCHANGE = {"flats": "exchange/data_white", "darks": "exchange/data_dark"}
# Flats and darks are held in memory: 500 frames of 2048 by 2048 in 16 bit.
_MOST_BYTES = 4 << 30


def load_references(
    sources: Sources, role: str, *, root: str | Path | None = None, folder: str | Path | None = None
) -> np.ndarray:
    """Flats or darks from files of their own.

    Parameters
    ----------
    sources : one or several of: HDF5 file, where an NXtomo or Data Exchange file gives its frames of this role
        and any other its only 3-D dataset; "file:/path" of a 2-D or 3-D dataset in an HDF5 file; TIFF file;
        folder of TIFF files
    role : "flats" or "darks"
    root : folder that nothing read may lie outside of; by default a source may be anywhere, but its links may
        not leave its own folder
    folder : where relative names start; the current folder by default

    Returns
    -------
    frames : (n, y, x), of the dtype that holds all sources exactly

    Raises
    ------
    ScanError
        If a source is missing or holds no such frames, or sources differ in shape.
    """
    if sources is None or isinstance(sources, str | Path):
        sources = [] if sources is None else [sources]
    if role not in IMAGE_KEYS:
        raise InputError(f'role must be "flats" or "darks", got {role!r}')
    if not sources or not all(str(source) for source in sources):
        raise ScanError(f"{role} must name at least one file, got none; leave the argument out, or name one")
    stacks = [_load(str(source), role, root, folder) for source in sources]
    shapes = {stack.shape[1:] for stack in stacks}
    if len(shapes) > 1:
        raise ScanError(
            f"{role} must all have one frame shape, got {sorted(shapes)} from {listed([str(s) for s in sources])}; "
            "was binning or a region of interest applied to only one?"
        )
    frames = np.concatenate(stacks)
    _check_size(frames.shape, frames.dtype, role, str(sources[0]))
    return frames


def require_references(
    present: Mapping[str, bool], allow_missing: Collection[str], path: Path, where: Mapping[str, str]
) -> None:
    """Raise ScanError unless flats and darks are each ``present`` or waived.

    where : for each role, where it was looked for, for the message
    """
    missing = [role for role, there in present.items() if not there and role not in allow_missing]
    if missing:
        raise ScanError(
            f"{path} has no {' and no '.join(missing)}: nothing at {' or '.join(where[role] for role in missing)}; "
            f"record them, or name the files that hold them ({', '.join(f'{role}=…' for role in missing)}), or if "
            f"the scan can do without say allow_missing={tuple(missing)!r}"
        )


def read_frames(data: h5py.Dataset, indices: np.ndarray, role: str) -> np.ndarray:
    """(n, y, x) frames ``indices`` of a dataset; n may be 0.

    Raises
    ------
    ScanError
        If they are more than memory should hold.
    """
    _check_size((indices.size, *data.shape[1:]), data.dtype, role, f"{data.file.filename}:{data.name}")
    if indices.size == 0:
        return np.empty((0, *data.shape[1:]), data.dtype)
    runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    return np.concatenate([data[run[0] : run[-1] + 1] for run in runs])


def _check_size(shape: tuple[int, ...], dtype: np.dtype, role: str, where: str) -> None:
    count = int(shape[0]) * int(shape[1]) * int(shape[2]) * dtype.itemsize
    if count > _MOST_BYTES:
        raise ScanError(
            f"{role} must fit into {_MOST_BYTES >> 30} GiB, but {where} claims {shape} {dtype}, "
            f"{count / (1 << 30):.1f} GiB; average them to fewer frames, or check the file"
        )


def _load(source: str, role: str, root: str | Path | None, folder: str | Path | None) -> np.ndarray:
    base = Path() if folder is None else Path(folder)
    name, colon, inside = source.partition(":/")
    path = base / source
    if colon and not path.exists():
        path = base / name
    else:
        inside = ""
    if root is not None and not path.resolve().is_relative_to(Path(root).resolve()):
        raise ScanError(
            f"{role} must lie inside root {Path(root).resolve()}, got {source}, which leads to {path.resolve()}; copy "
            "the file there, or name it by the argument instead"
        )
    if path.is_dir():
        files = tiff_files(path, root)
        if not files:
            raise ScanError(
                f"{role}: {path} has no TIFF files; name the file or folder that holds the {role}"
            )
        return _tiff(files, role)
    if not path.is_file():
        raise ScanError(f"{role}: {path} does not exist; name the file or folder that holds the {role}")
    if is_tiff(path):
        return _tiff([path], role)
    return _hdf5(path, f"/{inside}" if colon and inside else None, role, root)


def _tiff(files: Sequence[Path], role: str) -> np.ndarray:
    frames = TiffFrames.open(files)
    _check_size(frames.shape, frames.dtype, role, str(files[0]))
    return frames[:]


def _hdf5(path: Path, inside: str | None, role: str, root: str | Path | None) -> np.ndarray:
    with LinkedFile(path, root) as linked, damage_named(path):
        data, indices = _dataset(linked, inside, role)
        if data.dtype.kind not in "uif":
            raise ScanError(f"{role}: {path}:{data.name} must hold real counts, got {data.dtype}")
        if indices is not None:
            return read_frames(data, indices, role)
        _check_size((1, 1, data.size), data.dtype, role, str(path))
        return data[()].reshape(-1, *data.shape[-2:])


def _dataset(linked: LinkedFile, inside: str | None, role: str) -> tuple[h5py.Dataset, np.ndarray | None]:
    """The dataset, and which of its frames have the role; None for all."""
    file = linked.file["/"]
    if inside is None:
        if nxtomo_entries(linked):
            entry = nxtomo_entry(linked)
            data = required_dataset(entry, FRAMES, "frames")
            indices = np.flatnonzero(image_keys(entry) == IMAGE_KEYS[role])
            if indices.size:
                return data, indices
            raise ScanError(
                f"{role}: {linked.path} has no frames with image_key {IMAGE_KEYS[role]}; name another file"
            )
        exchange = linked.get(file, _EXCHANGE[role])
        if isinstance(exchange, h5py.Dataset) and exchange.ndim in (2, 3):
            return exchange, None
    stacks = {str(data.name): data for data in _stacks(linked, file)}
    if inside is not None:
        chosen = linked.get(file, inside)
        if isinstance(chosen, h5py.Dataset) and chosen.shape and chosen.ndim in (2, 3):
            return chosen, None
        found = f"a dataset of shape {chosen.shape}" if isinstance(chosen, h5py.Dataset) else "no dataset"
        raise ScanError(
            f"{role}: {linked.path} has {found} at {inside}, expected a 2-D or 3-D one; {_choice(stacks)}"
        )
    if len(stacks) != 1:
        raise ScanError(
            f"{role}: {linked.path} has {len(stacks)} 3-D datasets, expected one; {_choice(stacks)}"
        )
    return next(iter(stacks.values())), None


def _choice(stacks: Mapping[str, h5py.Dataset]) -> str:
    if not stacks:
        return "it has no 3-D datasets, so name another file"
    names = listed([f"{name} {data.shape}" for name, data in sorted(stacks.items())])
    return f'its 3-D datasets are {names}: choose one by "file:/path"'


def _stacks(linked: LinkedFile, file: h5py.Group) -> list[h5py.Dataset]:
    """All 3-D datasets of numbers in the file, each once; links are passed by."""
    found: dict[tuple[str, int], h5py.Dataset] = {}

    def keep(_: str, member: h5py.HLObject) -> None:
        if (
            isinstance(member, h5py.Dataset)
            and member.shape
            and member.ndim == 3
            and member.dtype.kind in "uif"
        ):
            found[object_identity(member)] = member

    file.visititems(keep)  # follows hard links only, and each object once
    for data in found.values():
        linked.get(file, str(data.name))  # raises if its values are elsewhere
    return list(found.values())
