"""A queue for annotation as published, with what people decided of each volume and handed in for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import data, decisions
from dashboard.vocabulary import literal
from tomoforge.approvals import Decision
from tomoforge.errors import StorageError
from tomoforge.label_uploads import Upload
from tomoforge.results import Published

STATES = {"approved": "accepted", "rejected": "rejected", "needs correction": "needs correction"}
_NEEDED = ("position", "subject", "priority", "uncertainty", "distance")
_SAID = "annotate-said"


@dataclass(frozen=True)
class Queued:
    """A volume in the queue. labels, checksum : of what the model made of it, empty where an older queue does not say;
    made : decisions on it, oldest first; handed_in : label files for it; row : as published; title : of the published
    volume."""

    subject: str
    labels: str
    checksum: str
    made: tuple[Decision, ...]
    handed_in: tuple[Upload, ...]
    row: Mapping[str, Any]
    title: str = ""

    @property
    def state(self) -> str:
        """What has become of it, in words."""
        words = [f"{STATES[self.made[-1].verdict]} ({self.made[-1].who})"] if self.made else ["open"]
        if len({d.verdict for d in {d.who: d for d in self.made}.values()}) > 1:
            words.append("opinions differ")
        if any(upload.labels for upload in self.handed_in):
            words.append("corrected labels taken in")
        elif any(upload.waiting for upload in self.handed_in):
            words.append("corrected labels wait")
        return ", ".join(words)

    @property
    def is_open(self) -> bool:
        """Whether it waits for somebody to look at it."""
        return not self.made and not self.handed_in

    @property
    def lacks_labels(self) -> bool:
        """Whether it waits for somebody to correct its labels."""
        good = [upload for upload in self.handed_in if upload.refused is None]
        return bool(self.made) and self.made[-1].verdict == "needs correction" and not good


def queue_table(item: Published) -> pd.DataFrame | None:
    """The published queue, None where there is none that can be read as one (its table then says why)."""
    if "queue" not in item.tables:
        return None
    try:
        table = data.read_table(item, "queue")
    except StorageError:
        return None
    return table if set(_NEEDED) <= set(table.columns) else None


def read_queue(table: pd.DataFrame, published: data.Listing) -> list[Queued]:
    """The queue's volumes, with what the record has on them; what cannot be read of that is said on the page."""
    titles = {v.identifier.rpartition("-")[0]: v.title for v in reversed(published.of("volumes").items)}
    made: Mapping[str, Sequence[Decision]] = {}
    handed_in: Mapping[str, Sequence[Upload]] = {}
    try:
        made, handed_in = decisions.history(), decisions.uploads()
    except StorageError as error:
        st.error(f"What people decided cannot be shown. {literal(sentence(error))}", icon=":material/error:")
    found = []
    for row in table.to_dict("records"):
        subject, checksum = str(row["subject"]), str(row.get("labels_sha256") or "")
        found.append(
            Queued(
                subject,
                str(row.get("labels") or ""),
                checksum,
                tuple(made.get(checksum, ())) if checksum else (),
                tuple(handed_in.get(subject, ())),
                {str(name): value for name, value in row.items()},
                titles.get(subject, ""),
            )
        )
    return found


def number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def say(how: str, text: str, place: str = "decide") -> None:
    """For the run that follows: told once, where the person pressed the button."""
    st.session_state.setdefault(f"{_SAID}-{place}", []).append((how, text))


def show_said(place: str = "decide") -> None:
    """What ``say`` was told in the run before."""
    boxes: dict[str, Any] = {
        "error": st.error,
        "warning": st.warning,
        "info": st.caption,
        "success": st.success,
    }
    for how, text in st.session_state.pop(f"{_SAID}-{place}", []):
        boxes[how](literal(text))


def sentence(error: Exception) -> str:
    """The reason, beginning as a sentence does."""
    text = str(error).strip()
    return text[:1].upper() + text[1:]
