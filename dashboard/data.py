"""The only reader of the dashboard: everything published, cached by the state of its manifest.

Nothing here writes, and nothing is opened by a name that came from a browser: a name is looked
for in the list of what is there. What cannot be read comes back as ``Unreadable`` or raises
StorageError with a sentence that a user may see; the exception behind it goes to the log.
"""

import functools
import io
import logging
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
from pyarrow import ArrowException

from dashboard import manifests
from dashboard.vocabulary import KINDS
from tomoforge.errors import StorageError
from tomoforge.results import Published, Unreadable

log = logging.getLogger(__name__)

# A browser chokes on more; a picture of a volume's slices has about one megapixel.
_MOST_PIXELS = 60_000_000
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Listing:
    """What is published, newest first, and what lies there but cannot be shown."""

    items: tuple[Published, ...]
    unreadable: tuple[Unreadable, ...]

    def of(self, *kinds: str) -> "Listing":
        """The part of it that is of these kinds."""
        return Listing(
            tuple(item for item in self.items if item.kind in kinds),
            # The folder of a whole kind may be what cannot be read.
            tuple(e for e in self.unreadable if {e.folder.parent.name, e.folder.name} & set(kinds)),
        )

    def find(self, identifier: str, *kinds: str) -> Published | None:
        """The item of this identifier, of one of ``kinds`` if any are named."""
        for item in self._by_identifier.get(identifier, ()):
            if not kinds or item.kind in kinds:
                return item
        return None

    @functools.cached_property
    def _by_identifier(self) -> dict[str, list[Published]]:
        found: dict[str, list[Published]] = {}
        for item in self.items:
            found.setdefault(item.identifier, []).append(item)
        return found

    @functools.cached_property
    def users(self) -> dict[tuple[str, str], list[Published]]:
        """(kind, identifier) → what was made directly from it, the newest first."""
        found: dict[tuple[str, str], list[Published]] = {}
        for other in self.items:
            made_from = [s.item for s in sources(other, self) if s.item is not None]
            for kind, identifier in {(part.kind, part.identifier) for part in made_from}:
                found.setdefault((kind, identifier), []).append(other)
        return found

    @functools.cached_property
    def remembered(self) -> dict[Any, Any]:
        """What was worked out about this listing, for the next page that asks."""
        return {}


@dataclass(frozen=True)
class Source:
    """What a result was made from: the published item, or None where only its key is known."""

    role: str
    key: str
    item: Published | None


@dataclass(frozen=True)
class PngPicture:
    """A picture that is whole: bytes, width and height [px], caption."""

    png: bytes
    width: int
    height: int
    caption: str


def workspace() -> Path:
    """The workspace that is shown: ``TOMOFORGE_WORKSPACE``, else ``./workspace``."""
    return Path(os.environ.get("TOMOFORGE_WORKSPACE") or "workspace").absolute()


def published_root() -> Path:
    """Where the published results lie. It need not exist."""
    return workspace() / "published"


def listing() -> Listing:
    """Everything published at this moment; only new manifests are read."""
    global _last
    found = manifests.entries(published_root())
    before, same = _last
    # The same object while nothing has changed: what was worked out about it stays known.
    if len(before) == len(found) and all(a is b or a == b for a, b in zip(before, found, strict=True)):
        return same
    items = [entry for entry in found if isinstance(entry, Published)]
    items.sort(key=lambda item: (str(item.run.get("published_at", "")), item.identifier), reverse=True)
    unreadable = tuple(entry for entry in found if isinstance(entry, Unreadable))
    _last = (found, Listing(tuple(items), unreadable))
    return _last[1]


_last: tuple[list[manifests.Entry], Listing] = ([], Listing((), ()))


def sources(item: Published, published: Listing) -> list[Source]:
    """What ``item`` was made from, by role."""
    found = []
    for role, key in item.sources.items():
        kinds = _kinds_of(str(role))
        there = (published.find(str(key), *kinds) if kinds else None) or published.find(str(key))
        found.append(Source(str(role), str(key), None if there is item else there))
    return found


@functools.lru_cache(1024)
def _kinds_of(role: str) -> tuple[str, ...]:
    """The kinds that a role speaks of: ``model_before`` of models."""
    return tuple(k.name for k in KINDS.values() if role.startswith((k.singular, k.name)))


def ancestors(item: Published, published: Listing) -> list[Published]:
    """All published results that ``item`` rests on, the nearest first."""
    found: list[Published] = []
    seen = {(item.kind, item.identifier)}
    queue = [item]
    while queue:
        for source in sources(queue.pop(0), published):
            part = source.item
            if part is not None and (part.kind, part.identifier) not in seen:
                seen.add((part.kind, part.identifier))
                found.append(part)
                queue.append(part)
    return found


def used_by(item: Published, published: Listing) -> list[Published]:
    """All published results made directly from ``item``, the newest first."""
    return published.users.get((item.kind, item.identifier), [])


def read_picture(item: Published, name: str) -> PngPicture:
    """One picture of ``item``. Raises StorageError with the reason if it is missing or damaged."""
    file, caption = item.pictures[name]
    png = _picture_bytes(str(item.folder), file, _manifest_time(item.folder))
    width, height = _png_size(png)
    return PngPicture(png, width, height, caption)


def read_table(item: Published, name: str) -> pd.DataFrame:
    """One table of ``item``. Raises StorageError with the reason if it is missing or damaged."""
    return _table(str(item.folder), item.tables[name][0], _manifest_time(item.folder))


def csv(frame: pd.DataFrame) -> bytes:
    """A table as CSV (UTF-8, stored column names, full precision)."""
    buffer = io.StringIO()
    frame.to_csv(buffer, index=False)
    return buffer.getvalue().encode()


# --- reading ------------------------------------------------------------------------------------


def _manifest_time(folder: Path) -> int:
    try:
        return (folder / "manifest.json").stat().st_mtime_ns
    except OSError:
        return 0


@st.cache_data(max_entries=64, show_spinner=False)
def _picture_bytes(folder: str, file: str, manifest_time: int) -> bytes:
    try:
        png = (Path(folder) / file).read_bytes()
    except FileNotFoundError:
        raise StorageError("its file is missing") from None
    except OSError as error:
        log.warning("cannot read %s/%s: %s", folder, file, error)
        raise StorageError("its file cannot be read") from error
    width, height = _png_size(png)
    if width * height > _MOST_PIXELS:
        raise StorageError(f"it is too large to show, {width} × {height} pixels")
    return png


@st.cache_data(max_entries=32, show_spinner=False)
def _table(folder: str, file: str, manifest_time: int) -> pd.DataFrame:
    try:
        return pd.read_parquet(Path(folder) / file)
    except FileNotFoundError:
        raise StorageError("its file is missing") from None
    except (OSError, ValueError, KeyError, NotImplementedError, ArrowException) as error:
        log.warning("cannot read %s/%s: %s", folder, file, error)
        raise StorageError("its file is damaged") from error


def _png_size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG whose chunks are all there and whole (PNG 1.2, section 5).

    The checksums find what a browser would show as half a picture without a word.
    """
    if not png.startswith(_PNG_SIGNATURE) or png[12:16] != b"IHDR" or len(png) < 33:
        raise StorageError("its file is not a PNG")
    position, kind = len(_PNG_SIGNATURE), b""
    while kind != b"IEND":
        head = png[position : position + 8]
        if len(head) < 8:
            raise StorageError("its file is cut short")
        length, kind = struct.unpack(">I4s", head)
        end = position + 8 + length
        stored = png[end : end + 4]
        if len(stored) < 4:
            raise StorageError("its file is cut short")
        if zlib.crc32(memoryview(png)[position + 4 : end]) != struct.unpack(">I", stored)[0]:
            raise StorageError("its file is damaged")
        position = end + 4
    width, height = struct.unpack(">II", png[16:24])
    return width, height
