"""A queue for annotation: what is worth labelling, what people decided of it, and the way there and back for labels."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboard import data, decisions, view
from dashboard.access import Access, access, show_access
from dashboard.annotate_correct import show_correct
from dashboard.annotation_queue import (
    STATES,
    Queued,
    number,
    queue_table,
    read_queue,
    say,
    sentence,
    show_said,
)
from dashboard.doubts import show_doubts
from dashboard.vocabulary import count, literal, moment, number_text
from tomoforge.approvals import Decision, Verdict
from tomoforge.errors import InputError, StorageError
from tomoforge.results import Published

_BUTTONS: tuple[tuple[Verdict, str, str], ...] = (
    ("approved", "Accept", ":material/check:"),
    ("needs correction", "Needs correction", ":material/brush:"),
    ("rejected", "Reject", ":material/block:"),
)


def show_queue(item: Published, published: data.Listing) -> None:
    """The whole page of one queue."""
    view.show_header(item)
    show_doubts(item, published)
    found = access()
    show_access(found)
    table = queue_table(item)
    if table is None:
        view.show_numbers(item)
        view.show_pictures(item)
        view.show_tables(item)
    else:
        queue = read_queue(table, published)
        if queue:
            _show_overview(item, queue)
            _show_queued(item, _chosen(queue), queue, found)
        else:
            view.show_numbers(item)
            st.success("Nothing waits for a person: every segmented volume was labelled or decided upon.")
        _show_record()
        with st.expander("About this queue", icon=":material/info:"):
            view.show_numbers(item)
    view.show_parts(item, published)
    view.show_links(item, published)
    view.show_provenance(item)


# --- what is in it --------------------------------------------------------------------------------------


def _show_overview(item: Published, queue: Sequence[Queued]) -> None:
    waiting = sum(queued.is_open for queued in queue)
    lacking = sum(queued.lacks_labels for queued in queue)
    title = f"{count(waiting, 'volume waits', 'volumes wait')} for a decision"
    st.subheader(title + (f", {lacking} for corrected labels" if lacking else ""), anchor=False)
    st.caption(
        "The most worthwhile first. Priority is the mean of two ranks, 0 to 1: how unsure the model is (uncertainty "
        "summed over the volume, for each voxel that it labelled) and how far the volume lies outside the training "
        "data (distance 0 is within it)."
    )
    frame = pd.DataFrame(
        [
            {
                "position": queued.row["position"],
                "volume": queued.title or queued.subject,
                "state": queued.state,
                "priority": queued.row["priority"],
                "uncertainty": queued.row["uncertainty"],
                "distance": queued.row["distance"],
                "key": queued.subject,
            }
            for queued in queue
        ]
    )
    view.show_frame(frame, f"{item.identifier}-state")


def _chosen(queue: Sequence[Queued]) -> Queued:
    """The volume that the address names, else the first that waits for a person."""
    by_subject = {queued.subject: queued for queued in queue}
    wanted = st.query_params.get("volume", "")
    if wanted and wanted not in by_subject:
        st.warning(
            f"The address asks for the volume {literal(wanted[:80])}, which is not in this queue. Shown instead is "
            "the first that waits.",
            icon=":material/link_off:",
        )
    first = next((queued for queued in queue if queued.is_open), queue[0])
    current = by_subject.get(wanted, first).subject
    subjects = list(by_subject)
    key = f"volume-{current}"

    def changed() -> None:
        st.query_params["volume"] = st.session_state[key]

    def following() -> None:
        st.query_params["volume"] = rest[0]

    left, right = st.columns([4, 1], vertical_alignment="bottom")
    left.selectbox(
        "Volume",
        subjects,
        index=subjects.index(current),
        format_func=lambda s: (
            f"{by_subject[s].row['position']}. {by_subject[s].title or s} · {by_subject[s].state}"
        ),
        key=key,
        on_change=changed,
    )
    after = subjects[subjects.index(current) + 1 :] + subjects[: subjects.index(current)]
    rest = [subject for subject in after if by_subject[subject].is_open]
    right.button(
        "Next open", on_click=following, disabled=not rest, icon=":material/skip_next:", width="stretch"
    )
    return by_subject[current]


def _show_queued(item: Published, queued: Queued, queue: Sequence[Queued], found: Access) -> None:
    row = queued.row
    st.subheader(
        literal(f"{row['position']}. {queued.title or queued.subject}"), anchor=False, divider="gray"
    )
    st.caption(f"Volume {literal(queued.subject)} · labels {literal(queued.labels or 'unknown')}")
    for column, (name, text) in zip(st.columns(4), _facts(queued).items(), strict=False):
        column.metric(name, text, border=True)
    _show_slices(item, queued)
    _show_history(queued)
    _show_decide(queued, found)
    show_correct(queued, found)


def _facts(queued: Queued) -> dict[str, str]:
    row = queued.row
    parts = {
        "µ": row.get("mu"),
        "noise": row.get("noise"),
        "voxel size": row.get("voxel_size"),
    }
    outside = [name for name, value in parts.items() if number(value) > 0]
    return {
        "Priority": number_text(number(row["priority"])),
        "Uncertainty": number_text(number(row["uncertainty"])),
        "Distance from training": number_text(number(row["distance"])),
        "Outside it by": ", ".join(outside) or "nothing",
    }


def _show_slices(item: Published, queued: Queued) -> None:
    name = next((n for n in item.pictures if n.partition("_")[2] == queued.subject), None)
    if name is None:
        st.caption("No slices were published of this volume.")
    else:
        view.show_picture(item, name)
    volumes = [v for v in data.listing().of("volumes").items if v.identifier.startswith(f"{queued.subject}-")]
    if volumes:
        view.show_link(volumes[0], data.listing(), text="Slice through this volume on the page Scan")


# --- decide ---------------------------------------------------------------------------------------------


def _show_history(queued: Queued) -> None:
    st.subheader("What people decided", anchor=False)
    if not queued.made:
        st.caption("Nobody has decided on these labels yet.")
        return
    last = queued.made[-1]
    verdict = {"approved": st.success, "rejected": st.error, "needs correction": st.warning}[last.verdict]
    verdict(f"**{STATES[last.verdict].capitalize()}** {_by(last)}: this stands.", icon=":material/gavel:")
    if len(queued.made) > 1:
        words = ", then ".join(f"{decisions.VERBS[d.verdict]} {_by(d)}" for d in queued.made)
        st.caption(f"{words[:1].upper()}{words[1:]}. All are kept; the last one stands.")


def _by(decision: Decision) -> str:
    note = f" (“{literal(decision.reason)}”)" if decision.reason else ""
    return f"by {literal(decision.who)} at {moment(decision.moment)}{note}"


def _show_decide(queued: Queued, found: Access) -> None:
    st.subheader("Decide on the model's labels", anchor=False)
    st.caption(
        "Accepted labels train the next model as they are. Labels that need correction stay in the queue until "
        "somebody hands in better ones. Rejected labels never train."
    )
    show_said()
    why_not = _why_not(queued, found)
    key = f"{queued.checksum[:16]}-{len(queued.made)}"
    with st.form(f"decide-{key}", enter_to_submit=False):
        st.text_area(
            "Note (a rejection needs a reason)",
            key=f"note-{key}",
            max_chars=decisions.MOST_LETTERS,
            height=68,
            disabled=bool(why_not),
            placeholder="such as: the loop is taken for liquor from z 40 to 60",
        )
        for column, (verdict, text, icon) in zip(st.columns(3), _BUTTONS, strict=True):
            column.form_submit_button(
                text,
                icon=icon,
                key=f"{verdict}-{key}",
                disabled=bool(why_not),
                on_click=_decide,
                args=(verdict, queued, f"note-{key}"),
                width="stretch",
            )
    if why_not:
        st.caption(f":material/lock: {literal(why_not)}")


def _why_not(queued: Queued, found: Access) -> str:
    if not queued.labels or len(queued.checksum) != 64:
        return (
            "This queue was published by an older version, which did not say which labels it shows; run "
            "rank_annotations to have a new one."
        )
    return "" if found.person is not None else "The buttons are for people who are signed in: see above."


def _decide(verdict: Verdict, queued: Queued, note_key: str) -> None:
    """Record a decision; who decides is asked anew, whatever the page showed."""
    found = access()
    if found.person is None:
        say("error", f"Nothing was recorded. {found.why_not}")
        return
    st.query_params["volume"] = queued.subject
    note = str(st.session_state.get(note_key, ""))
    try:
        made = decisions.record(
            verdict, queued.labels, queued.checksum, found.person, note, seen=len(queued.made)
        )
    except InputError as error:
        reason = (
            "a rejection needs a reason: write it into the note"
            if verdict == "rejected" and not note.strip()
            else str(error)
        )
        say("error", f"Nothing was recorded: {reason}.")
        return
    except StorageError as error:
        say("error", f"Nothing was recorded. {sentence(error)}")
        return
    if made.meanwhile:
        others = "; ".join(
            f"{decisions.VERBS[d.verdict]} by {d.who} at {moment(d.moment)}" for d in made.meanwhile
        )
        say(
            "warning",
            f"Somebody else decided while you looked: {others}. Both are kept, and the last one stands; see below.",
        )
    if made.repeated:
        say("info", "You had recorded just that before; nothing was added.")
    else:
        say(
            "success",
            f"Recorded as {STATES[verdict]}, by {made.decision.who}, number {made.decision.sequence + 1}.",
        )


# --- the record -----------------------------------------------------------------------------------------


def _show_record() -> None:
    """All decisions of the workspace, for download."""
    try:
        made = sorted((d for found in decisions.history().values() for d in found), key=lambda d: -d.sequence)
    except StorageError:
        return  # said above
    with st.expander(f"All decisions on record ({len(made)})", icon=":material/history_edu:"):
        if not made:
            st.caption("Nobody has decided on any labels yet.")
            return
        st.caption("Newest first; only ever added to, each sealed with a hash of all before it.")
        columns = ("sequence", "moment", "verdict", "subject", "who", "reason", "checksum", "sha256")
        view.show_frame(
            pd.DataFrame([{name: getattr(d, name) for name in columns} for d in made]), "decisions"
        )
