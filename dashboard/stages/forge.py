"""Forged samples, and how well the simulator resembles the beamline."""

import streamlit as st

from dashboard import data, forge_view, stage, view
from dashboard.doubts import show_doubts
from dashboard.vocabulary import KINDS, count

_KINDS = ("sample_sets", "samples", "fidelity")


def show() -> None:
    """Draw the page."""
    published = data.listing()
    here = published.of(*_KINDS)
    st.header("Forge", anchor=False)
    st.caption("Samples as they were forged, and how closely simulated scans resemble measured ones.")
    if not here.items:
        view.show_empty(_KINDS)
        view.show_unreadable(here.unreadable)
        return
    doubtful = st.container()
    view.show_unreadable(here.unreadable)
    kind = stage.choose_kind(here, _KINDS)
    items = here.of(kind).items
    if not items:
        show_how_to(kind)
        return
    words = KINDS[kind]
    item = stage.choose_item(items, "item", words.singular, published)
    with doubtful:
        stage.show_doubtful(here.items, item, published)
    if len(items) > 1:
        stage.show_overview(items, f"All {count(len(items), words.singular, words.plural)}", published)
    if kind == "samples":
        forge_view.show_sample_gallery(items, item)
        stage.show_item(item, published)
        return
    view.show_header(item)
    show_doubts(item, published)
    view.show_numbers(item)
    with st.spinner("Reading the tables …"):
        if kind == "sample_sets":
            shown = forge_view.show_set(item, items, published)
            view.show_pictures(item, without=("contact_sheet", "distributions"))
        else:
            shown = forge_view.show_fidelity(item)
            view.show_pictures(item, without=("projection", "slice", "distances"))
    view.show_tables(item, without=shown)
    view.show_parts(item, published)
    view.show_links(item, published)
    view.show_provenance(item)


def show_how_to(kind: str) -> None:
    """Which command makes results of a kind."""
    commands = {
        "sample_sets": "python -m flows forge_samples --count 20 --seed 1",
        "samples": "make demo",
        "fidelity": "python -m flows evaluate_fidelity --scan /path/to/scan.nxs",
    }
    st.info(
        f"No {KINDS[kind].plural} are published yet. Run `{commands[kind]}` in the repository's root; this page "
        "shows the result when it is reloaded.",
        icon=":material/info:",
    )


show()
