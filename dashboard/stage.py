"""The page of a stage: choose a kind and a result, then see it, what to distrust first.

The choice lives in the address (``?kind=scans&item=<id>``), so that a page can be sent to a
colleague; whatever comes from there is only compared with what is published.
"""

from collections.abc import Callable, Sequence

import pandas as pd
import streamlit as st

from dashboard import charts, data, view
from dashboard.doubts import doubts, show_doubts
from dashboard.vocabulary import KINDS, count, flat, literal, moment, ordered
from tomoforge.results import Published

_MOST_NUMBERS, _MOST_LINKS = 6, 20


def show_stage(
    title: str,
    intro: str,
    kinds: Sequence[str],
    body: Callable[[Published, data.Listing], None] | None = None,
) -> None:
    """Draw the page of ``kinds``; ``body`` draws the chosen result, None as ``show_item`` does."""
    published = data.listing()
    here = published.of(*kinds)
    st.header(title, anchor=False)
    st.caption(intro)
    if not here.items:
        view.show_empty(kinds)
        view.show_unreadable(here.unreadable)
        return
    doubtful = st.container()
    view.show_unreadable(here.unreadable)
    kind = choose_kind(here, kinds)
    items = here.of(kind).items
    if not items:
        view.show_empty([kind])
        return
    words = KINDS[kind]
    item = choose_item(items, "item", words.singular, published)
    with doubtful:
        show_doubtful(here.items, item, published)
    if len(items) > 1:
        show_overview(items, f"All {count(len(items), words.singular, words.plural)}", published)
    (body or show_item)(item, published)


def show_item(item: Published, published: data.Listing) -> None:
    """One result, from its warnings down to its provenance."""
    view.show_header(item)
    show_doubts(item, published)
    view.show_numbers(item)
    view.show_pictures(item)
    if "training_curve" in item.tables and "training_curve" not in item.pictures:
        charts.show_curve(item, "training_curve")
    view.show_tables(item)
    view.show_parts(item, published)
    view.show_links(item, published)
    view.show_provenance(item)


def show_doubtful(items: Sequence[Published], shown: Published | None, published: data.Listing) -> None:
    """Links to the other results of this page that carry warnings, above the one shown (None: all are others)."""
    doubtful = [item for item in items if item is not shown and doubts(item, published)]
    doubtful.sort(key=lambda item: not doubts(item, published)[0].severe)
    if not doubtful:
        return
    number = count(len(doubtful), "other result on this page has", "other results on this page have")
    with st.expander(f"{number} warnings", icon=":material/warning:", expanded=len(doubtful) <= 3):
        for item in doubtful[:_MOST_LINKS]:
            view.show_link(item, published)
        if len(doubtful) > _MOST_LINKS:
            st.caption(f"{len(doubtful) - _MOST_LINKS} more are marked in the lists.")


def choose_kind(here: data.Listing, kinds: Sequence[str]) -> str:
    """The kind to show: from the address, else that of the item in it, else the first there is."""
    wanted = st.query_params.get("kind", "")
    if wanted not in kinds:
        item = here.find(st.query_params.get("item", ""))
        filled = [kind for kind in kinds if here.of(kind).items]
        wanted = item.kind if item else (filled or list(kinds))[0]
    if len(kinds) == 1:
        return wanted

    def words(kind: str) -> str:
        return f"{KINDS[kind].plural.capitalize()} ({len(here.of(kind).items)})"

    key = f"kind-{'-'.join(kinds)}-{wanted}"

    def changed() -> None:
        st.query_params.from_dict({"kind": st.session_state[key]})

    # The key holds the address's choice: a changed address makes a new widget that shows it.
    st.segmented_control(
        "Show",
        kinds,
        default=wanted,
        required=True,
        format_func=words,
        key=key,
        on_change=changed,
        label_visibility="collapsed",
    )
    return wanted


def choose_item(items: Sequence[Published], parameter: str, noun: str, published: data.Listing) -> Published:
    """The item that the address names, else the newest; the selector writes the address."""
    by_id = {item.identifier: item for item in items}
    wanted = st.query_params.get(parameter, "")
    if wanted and wanted not in by_id:
        st.warning(
            f"The address asks for the {noun} {literal(wanted[:80])}, which is not published here. "
            "Shown instead is the newest.",
            icon=":material/link_off:",
        )
    current = wanted if wanted in by_id else items[0].identifier
    identifiers = list(by_id)
    key = f"choose-{items[0].kind}-{current}"

    def changed() -> None:
        st.query_params[parameter] = st.session_state[key]

    st.selectbox(
        noun.capitalize(),
        identifiers,
        index=identifiers.index(current),
        format_func=lambda identifier: view.item_label(by_id[identifier], published),
        key=key,
        on_change=changed,
        help="Newest first; ⚠ counts the warnings, its own and those of what it rests on.",
    )
    return by_id[current]


def show_overview(items: Sequence[Published], title: str, published: data.Listing) -> None:
    """All results of a kind as one table, to compare and to download."""
    kind = KINDS[items[0].kind]
    rows = []
    for item in items:
        numbers = {k: v for k, v in flat(item.summary).items() if not isinstance(v, list)}
        rows.append(
            {
                "warnings": len(doubts(item, published)),
                "title": item.title,
                "published": moment(item.run.get("published_at")),
                **{name: numbers[name] for name in ordered(numbers, kind.headline)},
                "identifier": item.identifier,
            }
        )
    frame = pd.DataFrame(rows)
    fixed = ["warnings", "title", "published"]
    numbers_first = [c for c in frame.columns if c not in (*fixed, "identifier")][:_MOST_NUMBERS]
    frame = frame[[*fixed, *numbers_first, "identifier"]]
    for column in frame.columns:
        if frame[column].dtype == object and column in numbers_first:
            frame[column] = frame[column].map(lambda v: v if v is None else str(v))
    with st.expander(title, icon=":material/table_rows:"):
        st.caption("Newest first.")
        view.show_frame(frame, f"{kind.name}-overview")
