"""Where the artefact behind a published result lies in the workspace.

The way there starts at a result that was found among what is published, and at nothing else: its identifier is the
artefact's key and a digest. A name out of a browser never comes here.
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard import data
from tomoforge.errors import StorageError
from tomoforge.results import Published
from tomoforge.storage import PROVENANCE

log = logging.getLogger(__name__)

# Kind of a published result → folder of the workspace that its artefact lies in.
FOLDERS = {
    "scans": "scans",
    "volumes": "volumes",
    "previews": "volumes",
    "segmentations": "labels",
    "samples": "labels",
    "absorption": "corrections",
}
# ``<stage>-<20 hex>`` as storage.content_key makes it, and the digest of what was published.
_KEY = r"[a-z][a-z-]{0,60}-[0-9a-f]{20}"
_IDENTIFIER = re.compile(rf"(?P<key>{_KEY})-[0-9a-f]{{8}}")


class NotStored(StorageError):
    """The published pictures are all there is: no artefact lies behind them, or not any more."""


@dataclass(frozen=True)
class StoredArtefact:
    """A finished artefact. folder : resolved, inside the workspace; time : of its provenance [ns], for caches."""

    kind: str
    key: str
    folder: Path
    time: int

    def part(self, name: str) -> Path:
        """A file or folder of it. Raises StorageError if it is missing or lies elsewhere."""
        place = (self.folder / name).resolve()
        if not place.is_relative_to(self.folder):
            raise StorageError(f"{name} of {self.key} leads out of its folder")
        if not place.exists():
            raise StorageError(f"{name} of {self.key} is missing")
        return place

    def recorded(self) -> Mapping[str, Any]:
        """What its provenance says; empty where that cannot be read."""
        return _provenance(str(self.folder), self.time)


def find_artefact(item: Published) -> StoredArtefact:
    """The artefact that ``item`` shows.

    Raises NotStored with a sentence if there is none in the workspace, StorageError if it leads out of it.
    """
    match = _IDENTIFIER.fullmatch(item.identifier)
    if match is None or item.kind not in FOLDERS:
        raise NotStored("only its pictures were published, there is no artefact behind them")
    return stored_artefact(FOLDERS[item.kind], match["key"])


def stored_artefact(kind: str, key: str) -> StoredArtefact:
    """The artefact of this key, which a published result names. Raises as ``find_artefact``."""
    if kind not in FOLDERS.values() or re.fullmatch(_KEY, key) is None:
        raise NotStored(f"{key} is no key of an artefact")
    root = data.workspace().resolve()
    try:
        folder = (root / kind / key).resolve()
        time = (folder / PROVENANCE).stat().st_mtime_ns
    except (OSError, RuntimeError):  # not there, or links in a circle
        raise NotStored(
            f"{kind}/{key} is not in the workspace any more; run its flow again to make it anew"
        ) from None
    if folder != root / kind / key:
        raise StorageError(f"{kind}/{key} is a link to elsewhere, which the dashboard does not follow")
    return StoredArtefact(kind, key, folder, time)


def made_from(artefact: StoredArtefact, role: str, stages: tuple[str, ...]) -> list[StoredArtefact]:
    """Artefacts beside ``artefact`` that were made from it in the ``role``, as exports are, by stage."""
    found = []
    for stage in stages:
        for folder in sorted(artefact.folder.parent.glob(f"{stage}-{'[0-9a-f]' * 20}")):
            try:
                if folder.is_symlink():
                    continue
                other = StoredArtefact(
                    artefact.kind, folder.name, folder, (folder / PROVENANCE).stat().st_mtime_ns
                )
            except OSError:
                continue
            source = other.recorded().get("inputs", {}).get(role, {})
            if isinstance(source, dict) and source.get("key") == artefact.key:
                found.append(other)
    return found


def check_files(artefact: StoredArtefact, names: list[str]) -> None:
    """Compare files with the sizes recorded when the artefact was finished.

    A chunk that is gone would be read as zeros without a word, which looks like air. Files that were never recorded
    are such: Zarr writes no chunk that is all zero. Raises StorageError with the first that is missing or cut short.
    """
    recorded = artefact.recorded().get("files", {})
    for name in names:
        entry = recorded.get(name)
        if not isinstance(entry, dict):
            continue
        try:
            size = (artefact.folder / name).stat().st_size
        except OSError:
            raise StorageError(
                f"{name} of {artefact.key} is missing; it was there when this was made"
            ) from None
        if size != entry.get("bytes"):
            raise StorageError(
                f"{name} of {artefact.key} has {size} bytes, it had {entry.get('bytes')} when it was made; "
                "it is cut short or changed"
            )


@st.cache_data(max_entries=64, show_spinner=False)
def _provenance(folder: str, time: int) -> dict[str, Any]:
    try:
        record = json.loads((Path(folder) / PROVENANCE).read_text())
    except (OSError, ValueError) as error:
        log.warning("cannot read the provenance of %s: %s", folder, error)
        return {}
    if not isinstance(record, dict):
        return {}
    return {
        name: record[name]
        for name in ("stage", "inputs", "files")
        if isinstance(record.get(name), dict | str)
    }
