"""Labels on their way out to be corrected, as a bundle for napari, and on their way in again."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard import decisions
from dashboard.access import Access, access
from dashboard.annotation_queue import Queued, number, say, sentence, show_said
from dashboard.artefacts import NotStored, StoredArtefact, stored_artefact
from dashboard.bundle import plan_bundle, write_bundle
from dashboard.vocabulary import literal, moment
from tomoforge.errors import InputError, StorageError
from tomoforge.label_files import LabelFileError
from tomoforge.label_uploads import ENDINGS
from tomoforge.volumes import open_level

log = logging.getLogger(__name__)

UPLOAD_MB = 64  # as server.maxUploadSize in .streamlit/config.toml
# Parts of the artefacts, as the flows write them.
_VOLUME, _LABELS, _UNCERTAINTY = "volume.ome.zarr", "labels.ome.zarr", "uncertainty.ome.zarr"


def show_correct(queued: Queued, found: Access) -> None:
    st.subheader("Correct them", anchor=False)
    try:
        volume = stored_artefact("volumes", queued.subject)
        stored = volume.part(_VOLUME)
    except StorageError as error:
        st.caption(f":material/block: No bundle and no labels for this volume. {literal(sentence(error))}.")
        _show_handed_in(queued)
        return
    _show_bundle(queued, stored)
    _show_hand_in(queued, stored, found)
    _show_handed_in(queued)


def _show_bundle(queued: Queued, stored: Path) -> None:
    try:
        labels = stored_artefact("labels", queued.labels)
        drawn = labels.part(_LABELS)
        plan = plan_bundle(open_level(stored).shape, _middle(queued, open_level(stored).shape))
    except NotStored as error:
        st.caption(f":material/block: No bundle. {literal(sentence(error))}.")
        return
    except StorageError as error:
        log.warning("no bundle of %s: %s", queued.subject, error)
        st.caption(":material/block: No bundle: the volume or its labels are damaged.")
        return
    unsure = _part(labels, _UNCERTAINTY)
    z, y, x = plan.shape
    words = "the whole volume" if plan.whole else "the region where the model is least sure, to look at"
    bits = "" if plan.depth == "float32" else ", grey values in 8 bits"
    left, right = st.columns([1, 3], vertical_alignment="center")
    left.download_button(
        "Download for napari",
        lambda: write_bundle(plan, stored, drawn, unsure, queued.subject),
        file_name=f"{queued.subject}.zip",
        mime="application/zip",
        key=f"bundle-{queued.subject}",
        icon=":material/folder_zip:",
        on_click="ignore",
        width="stretch",
    )
    right.caption(
        f"ZIP of {words}, {z} × {y} × {x} voxels{bits}: volume, labels and uncertainty as TIFF with their spacing "
        f"(napari and Fiji open them), and how to hand the labels in again. Up to {plan.size / 1e6:.0f} MB; takes a "
        "moment to be made."
    )
    command = queued.row.get("opened_by")
    if isinstance(command, str) and command:
        with st.expander("Open it where it lies instead", icon=":material/terminal:"):
            st.caption("In the workspace's folder, on a machine that has it:")
            st.code(command, language=None, wrap_lines=True)


def _part(artefact: StoredArtefact, name: str) -> Path | None:
    try:
        return artefact.part(name)
    except StorageError:
        return None


def _middle(queued: Queued, shape: Sequence[int]) -> list[int]:
    """Where the model is least sure, the middle where that was not published."""
    wanted = [number(queued.row.get(f"slice_{axis}")) for axis in "zyx"]
    return [int(w) if 0 <= w < n else n // 2 for w, n in zip(wanted, shape, strict=True)]


def _show_hand_in(queued: Queued, stored: Path, found: Access) -> None:
    show_said("correct")
    why_not = (
        "" if found.person is not None else "Handing labels in is for people who are signed in: see above."
    )
    if why_not:
        st.caption(f":material/lock: {literal(why_not)}")
        return
    key = f"{queued.subject}-{len(queued.handed_in)}"
    with st.form(f"hand-in-{key}", enter_to_submit=False):
        file = st.file_uploader(
            f"Corrected labels of this volume ({', '.join(sorted(ENDINGS))}; at most {UPLOAD_MB} MB)",
            key=f"file-{key}",
            max_upload_size=UPLOAD_MB,
        )
        note = st.text_input(
            "Note", key=f"file-note-{key}", max_chars=decisions.MOST_LETTERS, placeholder="what was changed"
        )
        compare = st.checkbox(
            "Compare with the grey values whether axes were swapped or mirrored on the way",
            value=True,
            key=f"compare-{key}",
        )
        pressed = st.form_submit_button("Check and hand in", icon=":material/upload:")
    if not pressed:
        return
    if file is None:
        st.error("Choose a file first; nothing was handed in.")
        return
    if file.size > UPLOAD_MB << 20:
        st.error(
            f"The file has {file.size / 1e6:.0f} MB, at most {UPLOAD_MB} MB are taken; import_labels takes more."
        )
        return
    _hand_in(queued, stored, file, note, compare)


def _hand_in(queued: Queued, stored: Path, file: Any, note: str, compare: bool) -> None:
    person = access().person
    if person is None:  # signed out meanwhile
        st.error("Nothing was kept: you are not signed in any more.")
        return
    name = " ".join(str(file.name).split())[-120:]
    try:
        with st.spinner("Checking the labels against their volume…"):
            upload, new = decisions.hand_in(
                file.getbuffer(), name, queued.subject, stored, person, note, check_orientation=compare
            )
    except LabelFileError as error:
        st.error(
            f"**Not taken ({literal(error.rule)}).** {literal(error.reason)}. What to do: {literal(error.remedy)}.",
            icon=":material/error:",
        )
        st.caption(
            "Nothing was changed: what was handed in before, your note and your file are as they were."
        )
        return
    except (InputError, StorageError) as error:
        st.error(f"Nothing was kept. {literal(sentence(error))}.", icon=":material/error:")
        return
    st.query_params["volume"] = queued.subject
    if new:
        text = f"{name} fits its volume and was handed in. The next night, or import_labels, takes it in."
        say("success", text, "correct")
    else:
        when = f"by {upload.who} at {moment(upload.moment)}"
        say("info", f"This very file was handed in before, {when}; nothing was added.", "correct")
    st.rerun()


def _show_handed_in(queued: Queued) -> None:
    if not queued.handed_in:
        st.caption("No corrected labels were handed in for this volume.")
        return
    for upload in reversed(queued.handed_in):
        if upload.labels:
            state = f"taken in as {literal(upload.labels)}"
        elif upload.refused:
            state = f"**refused when it was taken in**: {literal(upload.refused)}"
        else:
            state = "waits for the next night or for `python -m flows import_labels`"
        note = f" (“{literal(upload.note)}”)" if upload.note else ""
        st.markdown(
            f"- {literal(upload.name)} by {literal(upload.who)} at {moment(upload.moment)}{note}: {state}"
        )
