"""What of a scan can be taken along: files that the flows wrote, and the commands that write more of them.

Nothing is converted here, and no large file goes through the dashboard: it would have to be held in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from dashboard.artefacts import StoredArtefact, made_from
from dashboard.scan_frames import SCAN
from dashboard.scan_parts import LABELS, VOLUME, Parts
from dashboard.vocabulary import literal, number_text

MOST_BYTES = 64 << 20
# Stages of artefacts that hold another one once more → the role under which they name it.
_EXPORTS = {"labels": ("labels", ("label-export", "meshes")), "volumes": ("volume", ("export",))}
_MIME = {".nrrd": "application/octet-stream", ".ply": "application/octet-stream", ".stl": "model/stl"}


@dataclass(frozen=True)
class StoredFile:
    """A file, or a folder of slices, that a flow wrote. size : in bytes, None for folders."""

    path: Path
    what: str
    size: int | None


def exported(artefact: StoredArtefact) -> list[StoredFile]:
    """What was written of ``artefact`` for other programs."""
    role, stages = _EXPORTS.get(artefact.kind, ("", ()))
    return [file for other in made_from(artefact, role, stages) for file in _files(other)]


def _files(artefact: StoredArtefact) -> Iterator[StoredFile]:
    for place in sorted(artefact.folder.iterdir()):
        if place.is_symlink() or place.name.startswith("."):
            continue
        if place.is_dir() and place.name == "tiff":
            yield StoredFile(place, "slices as TIFF, a folder", None)
        elif place.suffix in _MIME and place.is_file():
            yield StoredFile(place, f"{place.stem}, {place.suffix[1:].upper()}", place.stat().st_size)


def show_downloads(parts: Parts) -> None:
    """The files of the scan, volume and labels of this page, and how to write others."""
    there = [part for part in (parts.scan, parts.volume, *parts.labels) if part is not None and part.artefact]
    if not there:
        return
    with st.expander("Files and exports", icon=":material/folder_open:"):
        for part in there:
            assert part.artefact is not None
            st.markdown(f"**{literal(part.item.title)}**")
            name = SCAN if part.item.kind == "scans" else VOLUME if part.item.kind == "volumes" else LABELS
            st.code(str(part.artefact.folder / name), language=None)
            files = exported(part.artefact)
            for file in files:
                _show_file(file)
            _show_command(part.item.kind, part.artefact, bool(files))


def _show_file(file: StoredFile) -> None:
    if file.size is None or file.size > MOST_BYTES:
        size = "" if file.size is None else f", {number_text(file.size / 1e6)} MB"
        st.caption(f"{literal(file.what)}{size}: too much to send through a browser, it lies here")
        st.code(str(file.path), language=None)
        return
    st.download_button(
        f"{file.what} ({number_text(file.size / 1e6)} MB)",
        file.path.read_bytes,
        file.path.name,
        _MIME[file.path.suffix],
        key=f"file-{file.path.parent.name}-{file.path.name}",
        icon=":material/download:",
        on_click="ignore",
    )


def _show_command(kind: str, artefact: StoredArtefact, exports: bool) -> None:
    """How to have it in another format."""
    more = "Other formats" if exports else "As TIFF or NRRD"
    if kind == "segmentations":
        source = artefact.recorded().get("inputs", {}).get("volume", {})
        volume = source.get("key") if isinstance(source, dict) else None
        if volume:
            st.caption(f"{more}, and the surface of each label as PLY or STL:")
            st.code(
                f"python -m flows segment_scan --volume {volume} --export nrrd --mesh ply", language="bash"
            )
    elif kind == "volumes":
        st.caption(f"{more}: the volume is not made again, only exported.")
        st.code("python -m flows reconstruct_scan --scan SCAN --reconstruction.export nrrd", language="bash")
    if kind != "scans":
        st.caption("napari opens the folder above as it is, with the plugin napari-ome-zarr.")
