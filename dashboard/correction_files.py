"""The corrected files of a correction, to be taken along."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import streamlit as st

from dashboard.artefacts import StoredArtefact, check_files, find_artefact, made_from, stored_artefact
from dashboard.vocabulary import literal, number_text
from tomoforge.errors import StorageError
from tomoforge.results import Published

log = logging.getLogger(__name__)

# A download is held in memory while it is sent.
MOST_BYTES = 256 << 20
_KIND, _STAGE = "corrections", "corrected"
_NAME = re.compile(r"[^/\\\0]{1,200}")
_WHAT = {
    ".csv": "corrected reflections as a table",
    ".cif": "lines for the CIF",
    ".refl": "for dials.scale, with the column analytical_correction",
    ".expt": "the experiment that belongs to it",
    ".mtz": "unmerged, I and σ divided by A",
    ".parquet": "corrected reflections as a table",
}


@dataclass(frozen=True)
class CorrectedFile:
    """A file in the artefact's folder, as it was when that was finished. size : [bytes]."""

    artefact: StoredArtefact
    name: str
    path: Path
    size: int

    def open(self) -> BinaryIO:
        """The file, to be read. Raises StorageError if it is not any more what it was."""
        check_files(self.artefact, [self.name])
        return open(self.path, "rb")


def corrected_files(item: Published) -> list[CorrectedFile]:
    """The files that were written with ``item``. Raises StorageError with a sentence if they are not there any more."""
    artefact = _named(item) or _made(item)
    if artefact is None:
        return []
    found = []
    recorded = artefact.recorded().get("files", {})
    for name, entry in sorted(recorded.items() if isinstance(recorded, Mapping) else ()):
        if not _NAME.fullmatch(str(name)) or str(name).startswith(".") or not isinstance(entry, Mapping):
            continue
        if (artefact.folder / name).is_symlink():
            log.warning("%s of %s is a link, it is not offered", name, artefact.key)
            continue
        try:
            check_files(artefact, [name])
            path = artefact.part(name)
        except StorageError as error:
            log.warning("%s is not offered: %s", name, error)
            continue
        if path.is_file():
            found.append(CorrectedFile(artefact, str(name), path, path.stat().st_size))
    return found


def show_files(item: Published) -> None:
    """The corrected files, each with what it is for."""
    st.subheader("Corrected files", anchor=False)
    try:
        files = corrected_files(item)
    except StorageError as error:
        st.caption(f":material/block: {literal(_sentence(error))}.")
        return
    if not files:
        st.caption(
            "No corrected files lie in the workspace for this correction; `python -m flows correct_absorption` writes "
            "them."
        )
        return
    for file in files:
        left, right = st.columns([2, 3], vertical_alignment="center")
        what = _WHAT.get(Path(file.name).suffix.lower(), "")
        size = (
            f"{number_text(file.size / 1e6)} MB" if file.size >= 1e6 else f"{number_text(file.size / 1e3)} kB"
        )
        if file.size > MOST_BYTES:
            left.caption(f"{literal(file.name)}, {size}")
            right.caption(f"{what}; too much to send through a browser, it lies here:")
            right.code(str(file.path), language=None)
            continue
        left.download_button(
            literal(file.name),
            file.open,
            file_name=file.name,
            mime="application/octet-stream",
            key=f"corrected-{file.artefact.key}-{file.name}",
            icon=":material/download:",
            on_click="ignore",
            width="stretch",
        )
        right.caption(f"{size}; {what}" if what else size)


def _named(item: Published) -> StoredArtefact | None:
    """The artefact that the manifest names, None if it names none."""
    named: Any = item.provenance.get("downloads")
    if not isinstance(named, Mapping) or named.get("kind") != _KIND:
        return None
    return stored_artefact(_KIND, str(named.get("key")))


def _made(item: Published) -> StoredArtefact | None:
    """The newest that was written from these factors, for what was published before manifests named it."""
    try:
        made = made_from(find_artefact(item), "factors", (_STAGE,))
    except StorageError:
        return None
    return max(made, key=lambda artefact: artefact.time, default=None)


def _sentence(error: Exception) -> str:
    text = str(error).strip()
    return text[:1].upper() + text[1:]
