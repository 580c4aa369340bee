"""Scans, what was reconstructed of them, and which voxel is which material."""

import streamlit as st

from dashboard import data, view
from dashboard.doubts import show_doubts
from dashboard.downloads import show_downloads
from dashboard.scan_parts import parts_of
from dashboard.scan_viewer import show_absent, show_viewer
from dashboard.stage import show_stage
from dashboard.viewer_state import recall
from tomoforge.results import Published


def show_scan(item: Published, published: data.Listing) -> None:
    """One scan, volume or segmentation: what to distrust, the viewer, numbers, files, whence it came."""
    view.show_header(item)
    show_doubts(item, published)
    recall()
    parts = parts_of(item, published)
    show_viewer(parts)
    show_absent(parts)
    view.show_numbers(item)
    if parts.stored:
        _show_published_pictures(item)
    else:
        view.show_pictures(item)
    view.show_tables(item)
    show_downloads(parts)
    view.show_parts(item, published)
    view.show_links(item, published)
    view.show_provenance(item)


def _show_published_pictures(item: Published) -> None:
    """The pictures of the manifest, for once the viewer shows more than they do."""
    if not item.pictures:
        return
    key = f"published-pictures-{item.identifier}"
    opened = st.expander("Pictures as published", icon=":material/image:", key=key, on_change="rerun")
    if opened.open:
        with opened:
            view.show_pictures(item)


show_stage(
    "Scan",
    "Scans, simulated or measured; volumes of the attenuation coefficient µ; which voxel is which material.",
    ["segmentations", "volumes", "scans", "previews"],
    show_scan,
)
