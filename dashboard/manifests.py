"""Every manifest under ``published/``, each read once: the work behind ``data.listing``.

One pass over the folders asks for the state of each manifest and opens those alone that are new or changed. What is
there may vanish, change or be forbidden at any moment: an entry becomes an ``Unreadable`` with the reason, or is left
out where it is gone, and the others are not affected.
"""

import json
import logging
import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tomoforge.errors import StorageError
from tomoforge.results import Published, Unreadable, read_published

log = logging.getLogger(__name__)

Entry = Published | Unreadable
# Modification and change of the manifest [ns], its size, its inode: it is read again if any differs.
_State = tuple[int, int, int, int]

# A manifest has kilobytes; tables and pictures are files of their own.
_MOST_BYTES = 32 * 2**20

_lock = threading.Lock()
_known: dict[str, tuple[_State, Published]] = {}


def entries(root: Path) -> list[Entry]:
    """All entries under ``root`` by kind and name; only new manifests are read."""
    global _known
    with _lock:  # a second page that is opened meanwhile finds everything read
        folders, found = _folders(root)
        seen: dict[str, tuple[_State, Published]] = {}
        for folder in folders:
            entry = _entry(folder, seen)
            if entry is not None:
                found.append(entry)
        _known = seen
    return found


def forget() -> None:
    """Read everything again next time."""
    with _lock:
        _known.clear()


def _folders(root: Path) -> tuple[list[str], list[Entry]]:
    """The published folders, and an Unreadable for each folder of a kind that cannot be looked into."""
    folders, refused = [], list[Entry]()
    kinds, reason = _subfolders(str(root))
    if reason:
        refused.append(Unreadable(root, reason))
    for kind in kinds:
        inside, reason = _subfolders(kind)
        folders += inside
        if reason:
            refused.append(Unreadable(Path(kind), reason))
    return folders, refused


def _subfolders(folder: str) -> tuple[list[str], str]:
    """The visible folders in ``folder`` by name, and why it cannot be looked into, if so."""
    try:
        with os.scandir(folder) as inside:
            return sorted(e.path for e in inside if not e.name.startswith(".") and e.is_dir()), ""
    except (FileNotFoundError, NotADirectoryError):
        return [], ""
    except OSError as error:
        log.warning("cannot list %s: %s", folder, error)
        return [], f"the folder cannot be looked into: {_said(error)}"


def _entry(folder: str, seen: dict[str, tuple[_State, Published]]) -> Entry | None:
    """One entry, remembered in ``seen`` if it is readable; None if it is gone."""
    try:
        now = os.stat(f"{folder}/manifest.json")
    except FileNotFoundError:
        # Not finished, or removed since it was listed.
        return _read(folder) if os.path.isdir(folder) else None
    except OSError as error:
        return Unreadable(Path(folder), f"its folder cannot be read: {_said(error)}")
    state = (now.st_mtime_ns, now.st_ctime_ns, now.st_size, now.st_ino)
    before = _known.get(folder)
    if before is not None and before[0] == state:
        seen[folder] = before
        return before[1]
    if not stat.S_ISREG(now.st_mode):  # reading a pipe would wait for ever
        return Unreadable(Path(folder), f"the manifest of {Path(folder).name} is no file")
    if now.st_size > _MOST_BYTES:
        return Unreadable(
            Path(folder), f"the manifest of {Path(folder).name} is too large, {now.st_size} bytes"
        )
    entry = _read(folder)
    # What cannot be read is tried again each time: the reason may pass without a trace on the file.
    if isinstance(entry, Published):
        seen[folder] = (state, entry)
    elif not os.path.isdir(folder):  # removed while it was read
        return None
    return entry


def _read(place: str) -> Entry:
    folder = Path(place)
    try:
        entry = read_published(folder)
        _check(entry)
    except StorageError as error:
        return Unreadable(folder, _reason(folder.name, error))
    except RecursionError:
        return Unreadable(folder, f"the manifest of {folder.name} cannot be read: it is nested too deeply")
    except UnicodeEncodeError:
        return Unreadable(folder, f"the manifest of {folder.name} holds letters that are none")
    return entry


def _reason(name: str, error: StorageError) -> str:
    """Why a manifest cannot be shown, without the text of the exception behind it."""
    cause = error.__cause__
    if isinstance(cause, OSError):
        log.warning("%s", error)
        return f"the manifest of {name} cannot be read: {_said(cause)}"
    if isinstance(cause, ValueError):
        return f"the manifest of {name} cannot be read: it is cut short or damaged"
    return str(error)


def _said(error: OSError) -> str:
    return (error.strerror or "the storage gave no reason").lower()


def _check(entry: Published) -> None:
    """Raise StorageError unless the manifest's values are what the pages take them for.

    UnicodeEncodeError comes of half a surrogate pair, which JSON can spell and no page can send.
    """
    folder = entry.folder
    if (entry.kind, entry.identifier) != (folder.parent.name, folder.name):
        raise StorageError(
            f"the manifest of {folder.name} is that of {entry.kind}/{entry.identifier}; "
            "the folder was renamed or copied"
        )
    for part in ("summary", "sources", "provenance"):
        if not isinstance(getattr(entry, part), Mapping):
            raise StorageError(f"{part} in the manifest of {folder.name} is not an object")
    captions = [caption for _, caption in (*entry.pictures.values(), *entry.tables.values())]
    texts: tuple[Any, ...] = (entry.title, *entry.warnings, *captions)
    if not all(isinstance(text, str) for text in texts):
        raise StorageError(f"a title, warning or caption of {folder.name} is not text")
    shown = (texts, entry.summary, entry.sources, entry.provenance, entry.run)
    names = (str(folder), [*entry.pictures], [*entry.tables])
    json.dumps((shown, names), ensure_ascii=False).encode()
