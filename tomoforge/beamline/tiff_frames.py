"""Frames that are spread over TIFF files, read when indexed, as a beamline's camera writes them."""

import contextlib
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import tifffile

from tomoforge.errors import InputError, ScanError, StorageError

Order: TypeAlias = Literal["<", ">"]

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and BigTIFF, either byte order
_SUFFIXES = (".tif", ".tiff")
_DEEPEST = 3  # folders below the scan's own


def is_tiff(path: Path) -> bool:
    """Whether the file begins as a TIFF file does."""
    with open(path, "rb") as file:
        return file.read(4) in _SIGNATURES


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which frame_2 comes before frame_10."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]


def tiff_files(folder: Path, root: str | Path | None = None) -> list[Path]:
    """TIFF files in ``folder`` and below, in natural order of their names; hidden files are passed by.

    Raises
    ------
    ScanError
        If one of them, or a folder on the way, is a symbolic link out of ``root`` (by default ``folder``).
    """
    allowed = folder.resolve() if root is None else Path(root).resolve()
    found = list(_below(folder, allowed, _DEEPEST, {folder.resolve()}))
    return sorted(found, key=lambda path: natural_order(str(path.relative_to(folder))))


def _below(folder: Path, allowed: Path, levels: int, seen: set[Path]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        wanted = path.suffix.lower() in _SUFFIXES
        if path.is_symlink() and (wanted or path.is_dir()):
            check_inside(path, allowed)
        if path.is_dir():
            real = path.resolve()
            if levels and real not in seen:
                seen.add(real)
                yield from _below(path, allowed, levels - 1, seen)
        elif wanted and path.is_file():
            yield path


def check_inside(path: Path, root: Path) -> None:
    """Raise ScanError unless ``path`` really lies inside ``root``."""
    try:
        real = path.resolve()
    except RuntimeError as error:
        raise ScanError(f"{path} is a circle of symbolic links; remove it") from error
    if not real.is_relative_to(root):
        raise ScanError(
            f"{path} leads to {real}, which is outside root {root}; copy the file itself into the scan's folder, or "
            "give a root= that holds both"
        )


@dataclass(frozen=True)
class TiffFrames:
    """Frames of TIFF files in order, read when indexed; small enough to travel to a worker.

    files : paths; file, page : (frame,) which file and which of its pages each frame is; offset : (frame,) byte
    at which an uncompressed frame begins, −1 where it must be decoded; order : "<" or ">", of those bytes;
    shape : (frame, y, x); dtype : of the counts, in native byte order.
    """

    files: tuple[str, ...]
    file: np.ndarray
    page: np.ndarray
    offset: np.ndarray
    order: Order
    shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def open(cls, paths: Sequence[str | Path]) -> "TiffFrames":
        """All pages of the files ``paths``, one after another; headers are read, frames are not.

        Raises
        ------
        ScanError
            If a file is no TIFF file, cut short, in colour, or its frames differ from the first one's.
        """
        rows = []
        first: tuple[tuple[int, ...], np.dtype] | None = None
        order: Order = "<"
        for number, path in enumerate(paths):
            for page, (shape, dtype, offset, byteorder) in enumerate(_headers(Path(path))):
                if first is None:
                    first, order = (shape, dtype), byteorder
                if (shape, dtype) != first:
                    raise ScanError(
                        f"{path} must hold frames of {first[0]} {first[1]} as {paths[0]} does, got {shape} {dtype}; "
                        "do the files belong to one scan?"
                    )
                rows.append((number, page, offset if byteorder == order else -1))
        if first is None:
            raise ScanError("a TIFF stack needs at least one frame, got no files")
        table = np.array(rows, dtype=np.int64)
        shape = (len(rows), *first[0])
        names = tuple(str(path) for path in paths)
        return cls(names, table[:, 0], table[:, 1], table[:, 2], order, shape, first[1])

    def __getitem__(self, key: Any) -> np.ndarray:
        """Reads ``frames[frames]``, ``frames[frames, rows]`` or ``frames[frames, rows, columns]``."""
        if isinstance(key, tuple) and any(part is Ellipsis for part in key):
            raise InputError("an ellipsis is not understood here; index frames, rows and columns one by one")
        which, *rest = key if isinstance(key, tuple) else (key,)
        wanted = np.arange(self.shape[0])[which]
        if wanted.ndim == 0:
            return next(self._read(np.atleast_1d(wanted), rest))
        if wanted.size == 0:
            return np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]
        return np.stack(list(self._read(wanted, rest)))

    def _read(self, wanted: np.ndarray, rest: list[Any]) -> Iterator[np.ndarray]:
        rows = np.arange(self.shape[1])[rest[0]] if rest else np.arange(self.shape[1])
        columns = rest[1] if len(rest) > 1 else slice(None)
        start, stop = (int(rows.min()), int(rows.max()) + 1) if rows.size else (0, 0)
        with contextlib.ExitStack() as stack:
            opened, tiff = -1, None
            for index in wanted.tolist():
                if self.offset[index] >= 0:
                    block = self._bytes(index, start, stop)
                else:
                    # Once for all pages that follow each other: finding a page means reading all before it.
                    if opened != self.file[index]:
                        stack.close()
                        opened = int(self.file[index])
                        tiff = stack.enter_context(_opened(Path(self.files[opened])))
                    block = _decoded(tiff, int(self.page[index]), self.shape[1:])[start:stop]
                yield block.astype(self.dtype, copy=False)[rows - start][..., columns]

    def _bytes(self, index: int, start: int, stop: int) -> np.ndarray:
        path = self.files[self.file[index]]
        columns = self.shape[2]
        dtype = self.dtype.newbyteorder(self.order)
        with open(path, "rb") as file:
            file.seek(int(self.offset[index]) + start * columns * dtype.itemsize)
            values = np.fromfile(file, dtype, (stop - start) * columns)
        if values.size != (stop - start) * columns:
            raise StorageError(f"{path} is shorter than when the scan was opened; open the scan again")
        return values.reshape(stop - start, columns)


def _opened(path: Path) -> tifffile.TiffFile:
    # OME-XML inside a file may name other files, which would be followed: only this file's pages are wanted.
    return tifffile.TiffFile(path, is_ome=False, _multifile=False)


def _decoded(tiff: tifffile.TiffFile | None, page: int, shape: tuple[int, ...]) -> np.ndarray:
    assert tiff is not None
    try:
        frame = np.asarray(tiff.pages[page].asarray())
    except (ValueError, IndexError, struct.error) as error:
        raise StorageError(
            f"{tiff.filename}, page {page} cannot be decoded: {error}; copy it again"
        ) from error
    if frame.shape != shape:
        raise StorageError(
            f"{tiff.filename}, page {page} is {frame.shape}, no longer {shape}; open the scan again"
        )
    return frame


def _headers(path: Path) -> Iterator[tuple[tuple[int, ...], np.dtype, int, Order]]:
    """Shape, dtype, offset (−1 where compressed) and byte order of each page."""
    try:
        with _opened(path) as tiff:
            size = path.stat().st_size
            if tiff.is_imagej and int((tiff.imagej_metadata or {}).get("images", 1)) > len(tiff.pages):
                raise ScanError(
                    f"{path} is an ImageJ stack with one header for all frames; save it as BigTIFF or as one file "
                    "for each frame"
                )
            for number, page in enumerate(tiff.pages):
                yield _header(path, number, page, size, tiff.byteorder)
    except ScanError:
        raise
    except (OSError, ValueError, IndexError, KeyError, TypeError, struct.error) as error:
        raise ScanError(
            f"{path} cannot be read as TIFF: {error}; if it is still being written or copied, wait until it is "
            "finished, otherwise copy it again"
        ) from error


def _header(
    path: Path, number: int, page: Any, size: int, byteorder: Order
) -> tuple[tuple[int, ...], np.dtype, int, Order]:
    if page.ndim != 2 or page.samplesperpixel != 1 or page.dtype is None or page.dtype.kind not in "uif":
        raise ScanError(
            f"{path}, page {number} must be one grey (y, x) frame of numbers, got shape {page.shape} {page.dtype}; "
            "write it as grey values (tifffile takes 3 or 4 frames for colours unless told photometric='minisblack')"
        )
    ends = [at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or max(ends) > size:
        raise ScanError(
            f"{path} is cut short: page {number} ends at byte {max(ends, default=0)} of {size}; if it is still being "
            "written or copied, wait until it is finished, otherwise copy it again"
        )
    plain = page.is_memmappable and page.predictor == 1
    return tuple(page.shape), page.dtype.newbyteorder("="), page.dataoffsets[0] if plain else -1, byteorder
