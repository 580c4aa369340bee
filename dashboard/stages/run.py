"""Runs from end to end, nights of retraining, reports of the inbox; the newest run unless the address says more."""

from collections.abc import Sequence

import streamlit as st

from dashboard import data, view
from dashboard.doubts import show_doubts
from dashboard.stage import choose_item, choose_kind, show_doubtful, show_item, show_overview
from dashboard.vocabulary import KINDS, count, literal
from tomoforge.results import Published

_KINDS = ("runs", "nights", "ingests")
_ABOUT = {
    "runs": "One way through the pipeline, from the sample to the absorption correction.",
    "nights": "What the nightly retraining found to be new, how champion and challenger compare, what was decided.",
    "ingests": "How each entry of the inbox stood: taken in, waiting, a duplicate, or refused with the reason.",
}


def show() -> None:
    """Draw the page."""
    published = data.listing()
    here = published.of(*_KINDS)
    st.header("Runs", anchor=False)
    if not here.items:
        view.show_empty(_KINDS)
        view.show_unreadable(published.unreadable)
        return
    doubtful = st.container()
    kind = choose_kind(here, _KINDS)
    st.caption(_ABOUT[kind])
    items = here.of(kind).items
    if not items:
        view.show_empty([kind])
        view.show_unreadable(published.unreadable)
        return
    if kind == "runs":
        _show_run(items, published)
        return
    if wanted := st.query_params.get("run"):
        st.warning(f"The address asks for the run {literal(wanted[:80])}, which is not published here.")
    words = KINDS[kind]
    item = choose_item(items, "item", words.singular, published)
    with doubtful:
        show_doubtful(items, item, published)
    view.show_unreadable(published.unreadable)
    if len(items) > 1:
        show_overview(items, f"All {count(len(items), words.singular, words.plural)}", published)
    show_item(item, published)


def _show_run(runs: Sequence[Published], published: data.Listing) -> None:
    run = choose_item(runs, "run", "run", published)
    view.show_header(run)
    show_doubts(run, published)
    view.show_unreadable(published.unreadable)
    view.show_numbers(run)
    view.show_tables(run)
    view.show_pictures(run)
    view.show_parts(run, published)
    if len(runs) > 1:
        show_overview(runs, f"All {count(len(runs), 'run', 'runs')}", published)
    view.show_provenance(run)


show()
