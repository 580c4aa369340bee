"""Trained segmentation models: side by side, one by one, the decisions on them, what their training data are worth."""

import streamlit as st

from dashboard import charts, data, models_view, stage, view
from dashboard.doubts import show_doubts
from dashboard.vocabulary import KINDS, count
from tomoforge.results import Published

_KINDS = ("models", "promotions", "comparisons")
_ALL = "all"  # not a kind: all models side by side
_COMMANDS = {
    "models": "python -m flows train_segmenter --dataset …",
    "promotions": "python -m flows promote --model …",
    "comparisons": "python -m flows compare_training_sources --dataset …",
}


def show() -> None:
    """Draw the page."""
    published = data.listing()
    here = published.of(*_KINDS)
    st.header("Models", anchor=False)
    st.caption(
        "Trained segmenters: how well each class is found, which one was promoted and why, how training went, and "
        "what forged cases are worth."
    )
    if not here.items:
        view.show_empty(_KINDS)
        view.show_unreadable(here.unreadable)
        return
    view.show_unreadable(here.unreadable)
    chosen = choose_view(here)
    if chosen == _ALL:
        stage.show_doubtful(here.items, None, published)
        with st.spinner("Reading the scores …"):
            models_view.show_side_by_side(published)
        st.caption(
            "From what was published; the registry is not asked. A decision whose run was killed before it was "
            "published is not shown yet: the next promote or rollback publishes it."
        )
        return
    items = here.of(chosen).items
    if not items:
        st.info(
            f"No {KINDS[chosen].plural} are published yet. Run `{_COMMANDS[chosen]}` in the repository's root; this "
            "page shows the result when it is reloaded.",
            icon=":material/info:",
        )
        return
    words = KINDS[chosen]
    item = stage.choose_item(items, "item", words.singular, published)
    stage.show_doubtful(items, item, published)
    if len(items) > 1:
        stage.show_overview(items, f"All {count(len(items), words.singular, words.plural)}", published)
    show_one(item, published)


def choose_view(here: data.Listing) -> str:
    """All models side by side, or a kind: from the address, else that of the item in it."""
    options = (_ALL, *_KINDS)
    wanted = st.query_params.get("kind", "")
    if wanted not in options:
        item = here.find(st.query_params.get("item", ""))
        wanted = item.kind if item is not None else _ALL
    key = f"models-view-{wanted}"

    def changed() -> None:
        st.query_params.from_dict({"kind": st.session_state[key]})

    def words(option: str) -> str:
        if option == _ALL:
            return "Side by side"
        return f"{KINDS[option].plural.capitalize()} ({len(here.of(option).items)})"

    # The key holds the address's choice: a changed address makes a new widget that shows it.
    st.segmented_control(
        "Show",
        options,
        default=wanted,
        required=True,
        format_func=words,
        key=key,
        on_change=changed,
        label_visibility="collapsed",
    )
    return wanted


def show_one(item: Published, published: data.Listing) -> None:
    """One model, decision or comparison, from its warnings down to its provenance."""
    view.show_header(item)
    show_doubts(item, published)
    view.show_numbers(item)
    shown: frozenset[str] = frozenset()
    with st.spinner("Reading the tables …"):
        if item.kind == "promotions":
            shown = models_view.show_decision(item)
        elif item.kind == "comparisons":
            models_view.show_comparison(item)
        else:
            models_view.show_dataset(item)
        shown |= models_view.show_worst_cases(item)
    view.show_pictures(item, without=models_view.worst_pictures(item))
    if "training_curve" in item.tables and "training_curve" not in item.pictures:
        charts.show_curve(item, "training_curve")
    view.show_tables(item, without=shown)
    view.show_parts(item, published)
    view.show_links(item, published)
    view.show_provenance(item)


show()
