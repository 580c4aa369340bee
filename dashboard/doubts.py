"""What to distrust: the warnings of a result and of everything it rests on, the worst first."""

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from dashboard import data
from dashboard.vocabulary import is_severe, kind_word, literal
from tomoforge.results import Published

_BOXES = 3  # of mild warnings, before they push what they are about off the screen
FAILED = "Validation failed: this result did not pass its checks."


@dataclass(frozen=True)
class Doubt:
    """One warning; ``origin`` is the part that gave it, None for the result itself."""

    warning: str
    severe: bool
    origin: Published | None


def doubts(item: Published, published: data.Listing) -> list[Doubt]:
    """All doubts about ``item``, its own and inherited, severe ones first, each said once."""
    known = published.remembered.setdefault(doubts, {})
    if id(item) not in known:  # the listing holds its items: no other object gets their ids
        known[id(item)] = (item, _doubts(item, published))
    return list(known[id(item)][1])


def _doubts(item: Published, published: data.Listing) -> list[Doubt]:
    found: dict[str, Doubt] = {}
    for part in (item, *data.ancestors(item, published)):
        origin = None if part is item else part
        failed = [FAILED] if part.summary.get("passed") is False else []
        for warning in (*failed, *part.warnings):
            key = f"{part.kind}/{part.identifier}" if warning == FAILED else warning
            severe = warning == FAILED or is_severe(warning)
            found.setdefault(key, Doubt(warning, severe, origin))
    return sorted(found.values(), key=lambda doubt: not doubt.severe)


def mark(found: Sequence[Doubt]) -> str:
    """The doubts in a word, for selectors and links: nothing, a count, or that it is worse."""
    if not found:
        return ""
    return f"⚠ {len(found)}" + (" distrust" if found[0].severe else "")


def show_doubts(item: Published, published: data.Listing) -> None:
    """A box for each doubt about ``item``: red where the result must not be used unseen."""
    found = doubts(item, published)
    severe = sum(doubt.severe for doubt in found)
    at_once = max(severe, _BOXES) if len(found) > _BOXES + 1 else len(found)
    _show_boxes(found[:at_once])
    if found[at_once:]:
        with st.expander(f"{len(found) - at_once} more warnings", icon=":material/warning:"):
            _show_boxes(found[at_once:])
    if not found:
        st.caption(":material/check: No warnings were recorded, here or in what this rests on.")


def _show_boxes(found: Sequence[Doubt]) -> None:
    for doubt in found:
        origin = ""
        if doubt.origin is not None:
            origin = literal(f"{kind_word(doubt.origin.kind)} “{doubt.origin.title}”") + ": "
        text = origin + literal(_sentence(doubt.warning))
        if doubt.severe:
            st.error(f"**Distrust this result.** {text}", icon=":material/dangerous:")
        else:
            st.warning(text, icon=":material/warning:")


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.startswith("µ") else text[:1].upper() + text[1:]  # a capital µ is an M
