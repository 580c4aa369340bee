"""The first page: the newest run, what to distrust, its headline numbers, its parts."""

import streamlit as st

from dashboard import data, view
from dashboard.doubts import show_doubts
from dashboard.stage import choose_item, show_overview
from dashboard.vocabulary import count


def show() -> None:
    """Draw the page."""
    published = data.listing()
    runs = published.of("runs").items
    st.header("Run", anchor=False)
    st.caption("One way through the pipeline, from the sample to the absorption correction.")
    if not runs:
        view.show_empty(["runs"])
        view.show_unreadable(published.unreadable)
        return
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
