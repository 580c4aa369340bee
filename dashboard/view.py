"""The building blocks of every page: numbers, pictures, tables, links, provenance.

All text from files goes through ``literal``; none of it is ever interpreted as HTML or Markdown.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from dashboard import data
from dashboard.doubts import doubts, mark
from dashboard.flow_runs import flow_name, run_address, run_name
from dashboard.vocabulary import (
    KINDS,
    Kind,
    count,
    flat,
    is_relative_difference,
    kind_word,
    label,
    literal,
    matching,
    moment,
    ordered,
    split_unit,
    value_text,
)
from tomoforge.errors import StorageError
from tomoforge.results import Published, Unreadable

_TILES, _TILES_A_ROW, _TILE_LETTERS = 8, 4, 14
# What a page sends to the browser; the CSV has all.
_ROWS_SHOWN = 1000
_PICTURES_SHOWN = 2
# The content is about 900 px wide on a screen of 1280; smaller pictures keep their own size.
_WIDE_PX, _PORTRAIT_PX = 700, 560


def show_header(item: Published) -> None:
    """Title, kind, identifier and time."""
    st.subheader(literal(item.title), anchor=False, divider="gray")
    published_at = moment(item.run.get("published_at"))
    kind = kind_word(item.kind)
    st.caption(f"{literal(kind)} · published {published_at} · {literal(item.identifier)}")


def show_numbers(item: Published, *, folded: bool = False) -> None:
    """The summary: the headline as tiles, all else in a table, ``folded`` where the page has more to show."""
    numbers = flat(item.summary)
    numbers.pop("passed", None)
    kind = KINDS.get(item.kind)
    names = ordered(numbers, kind.headline if kind else ())
    tiles = _headline(numbers, kind)[:_TILES]
    for start in range(0, len(tiles), _TILES_A_ROW):
        row = tiles[start : start + _TILES_A_ROW]
        for column, name in zip(st.columns(_TILES_A_ROW), row, strict=False):
            column.metric(literal(split_unit(name)[0]), _with_unit(name, numbers[name]), border=True)
    rest = [name for name in names if name not in tiles]
    if rest:
        rows = [(split_unit(n)[0], value_text(n, numbers[n]), split_unit(n)[1]) for n in rest]
        frame = pd.DataFrame(rows, columns=["Quantity", "Value", "Unit"])
        if not frame["Unit"].any():
            frame = frame.drop(columns="Unit")
        place = st.expander("All other numbers", icon=":material/tag:") if folded else st.container()
        place.dataframe(frame, hide_index=True, width="stretch", height="content")
    if not names:
        st.caption("No summary numbers were published.")


def show_pictures(item: Published, *, without: Collection[str] = ()) -> None:
    """The first pictures at once, further ones read when they are asked for; not those shown elsewhere."""
    kind = KINDS.get(item.kind)
    names = [n for n in ordered(item.pictures, kind.pictures if kind else ()) if n not in without]
    if names:
        st.subheader("Pictures", anchor=False)
    for name in names[:_PICTURES_SHOWN]:
        show_picture(item, name)
    for name in names[_PICTURES_SHOWN:]:
        key = f"picture-{item.kind}-{item.identifier}-{name}"
        opened = st.expander(
            f"Picture: {literal(label(name))}",
            icon=":material/image:",
            key=key,
            on_change="rerun",
        )
        if opened.open:
            with opened:
                show_picture(item, name)


def show_tables(item: Published, *, without: Collection[str] = ()) -> None:
    """Every table with its caption and its download, but those that the page shows elsewhere."""
    kind = KINDS.get(item.kind)
    for name in ordered(item.tables, kind.tables if kind else ()):
        if name in without:
            continue
        st.subheader(literal(label(name)), anchor=False)
        st.caption(literal(item.tables[name][1]))
        try:
            frame = data.read_table(item, name)
        except StorageError as error:
            _show_unshowable(f"The table “{literal(name)}” cannot be shown", error)
            continue
        show_frame(frame, f"{item.kind}-{item.identifier}-{name}")


def download_csv(frame: pd.DataFrame, name: str) -> None:
    """A button that gives all of a table as CSV under ``name``."""
    st.download_button(
        "Download CSV",
        lambda: data.csv(frame),
        file_name=f"{name}.csv",
        mime="text/csv",
        key=f"csv-{name}",
        icon=":material/download:",
        on_click="ignore",
    )


def show_frame(frame: pd.DataFrame, name: str, links: Mapping[str, str] | None = None) -> None:
    """A table on the page, and all of it as CSV under ``name``.

    links : columns that hold addresses of ours (never texts from files) → the word to click on.
    """
    shown = frame.head(_ROWS_SHOWN)
    columns = {column: _column(column, shown[column]) for column in shown.columns}
    for column, word in (links or {}).items():
        columns[column] = st.column_config.LinkColumn(label(column), display_text=word)
    st.dataframe(
        shown,
        hide_index=True,
        width="stretch",
        column_config=columns,
        height="content" if len(shown) <= 12 else 320,
    )
    note = ""
    if len(frame) > len(shown):
        note = f"The first {len(shown)} of {len(frame)} rows; the CSV holds all of them."
    left, right = st.columns([1, 3], vertical_alignment="center")
    with left:
        download_csv(frame, name)
    if note:
        right.caption(note)


def show_parts(item: Published, published: data.Listing) -> None:
    """Cards of what ``item`` was made from, each with a link to its page."""
    order = list(KINDS)
    found = sorted(
        data.sources(item, published),
        key=lambda s: order.index(s.item.kind) if s.item and s.item.kind in order else 99,
    )
    if not found:
        return
    st.subheader("Made from", anchor=False)
    for start in range(0, len(found), 3):
        for column, source in zip(st.columns(3), found[start : start + 3], strict=False):
            with column.container(border=True, height="stretch"):
                _show_part(source, published)


def show_links(item: Published, published: data.Listing) -> None:
    """Links to what was made from ``item``."""
    others = data.used_by(item, published)
    if not others:
        return
    st.subheader("Used by", anchor=False)
    for other in others[:10]:
        show_link(other, published)


def show_link(item: Published, published: data.Listing, text: str = "") -> None:
    """A link to the page of ``item``; plain text where no page shows its kind."""
    full = f"{kind_word(item.kind)}: {item.title} {mark(doubts(item, published))}"
    text = text or literal(full)
    kind = KINDS.get(item.kind)
    if kind is None:
        st.markdown(text)
        return
    st.page_link(kind.page, label=text, icon=":material/arrow_forward:", query_params=address(item))


def address(item: Published) -> dict[str, str]:
    """The query parameters that lead to ``item`` on its page."""
    if item.kind == "runs":
        return {"run": item.identifier}
    return {"kind": item.kind, "item": item.identifier}


def page_address(item: Published) -> str | None:
    """The address of ``item`` relative to the first page, for a table's cell; None where no page shows its kind."""
    kind = KINDS.get(item.kind)
    return f"{PurePosixPath(kind.page).stem}?{urlencode(address(item))}" if kind else None


def show_flow_run(item: Published) -> None:
    """Which flow run published it, with a link to Prefect's UI where its id is known."""
    name, flow, to = run_name(item.run), flow_name(item.run), run_address(item.run)
    if not name:
        return
    text = f"Published by the flow run {literal(name)}" + (f" of {literal(flow)}" if flow else "")
    if to is None:
        st.caption(f"{text}. There is no link to it: its id, or the address of Prefect's UI, is not known.")
        return
    st.caption(f"{text}. Prefect's UI shows it, if its server is up.")
    st.page_link(to, label="The flow run in Prefect's UI", icon=":material/open_in_new:")


def show_provenance(item: Published) -> None:
    """How to make it again: parameters, versions, checksums, the run."""
    show_flow_run(item)
    with st.expander("Provenance: how this was made", icon=":material/history:"):
        revision = item.provenance.get("git_revision")
        if revision:
            st.caption(f"Code revision {literal(revision)}")
        st.json(
            {
                "published": f"{item.kind}/{item.identifier}",
                "run": dict(item.run),
                "sources": dict(item.sources),
                "provenance": dict(item.provenance),
            },
            expanded=2,
        )


def show_unreadable(entries: Sequence[Unreadable]) -> None:
    """What lies among the published results and cannot be shown, with the reason."""
    if not entries:
        return
    title = count(len(entries), "published entry", "published entries") + " cannot be shown"
    with st.expander(title, icon=":material/report:"):
        for entry in entries:
            where = f"{entry.folder.parent.name}/{entry.folder.name}"
            st.markdown(f"- **{literal(where)}**: {literal(entry.reason)}")


def show_empty(kinds: Iterable[str]) -> None:
    """What to do when there is nothing to show."""
    words = " or ".join(KINDS[kind].plural for kind in kinds)
    st.info(
        f"No {words} are published yet. Run `make demo` in the repository's root: it makes a small "
        "run in minutes, and this page shows it when it is reloaded.",
        icon=":material/info:",
    )
    where, root = literal(data.workspace()), data.published_root()
    if not root.is_dir():
        st.caption(
            f"Nothing was ever published in the workspace {where}. If your results lie elsewhere, "
            "set TOMOFORGE_WORKSPACE to their workspace and start the dashboard again."
        )
    else:
        st.caption(f"Looked in the workspace {where}.")


def item_label(item: Published, published: data.Listing) -> str:
    """One line for a selector: doubts first, title, time, identifier."""
    words = (
        mark(doubts(item, published)),
        item.title,
        moment(item.run.get("published_at")),
        item.identifier,
    )
    return " · ".join(word for word in words if word)


# --- pieces -------------------------------------------------------------------------------------


def show_picture(item: Published, name: str) -> None:
    """One picture over its caption, or why it cannot be shown."""
    try:
        picture = data.read_picture(item, name)
    except StorageError as error:
        _show_unshowable(f"The picture “{literal(name)}” cannot be shown", error)
        return
    portrait = picture.height > 1.2 * picture.width
    width: Any = "stretch" if picture.width >= _WIDE_PX else "content"
    if portrait and picture.width >= _PORTRAIT_PX:
        width = _PORTRAIT_PX
    st.image(picture.png, width=width, alt=picture.caption)
    # Beneath the picture rather than as its caption: wide and left, so that it can be read.
    st.caption(f"**{literal(label(name))}.** {literal(picture.caption)}")


def _show_part(source: data.Source, published: data.Listing) -> None:
    st.caption(literal(label(source.role)))
    if source.item is None:
        st.text(source.key)
        st.caption("Not among the published results.")
        return
    st.markdown(f"**{literal(source.item.title)}**")
    found = doubts(source.item, published)
    if found:
        severe = found[0].severe
        st.badge(
            count(len(found), "warning", "warnings"),
            icon=":material/dangerous:" if severe else ":material/warning:",
            color="red" if severe else "orange",
        )
    numbers = flat(source.item.summary)
    for name in _headline(numbers, KINDS.get(source.item.kind))[:3]:
        text, value = split_unit(name)[0], _with_unit(name, numbers[name])
        st.caption(f"{literal(text)} **{literal(value)}**")
    show_link(source.item, published, text="Open")


def _show_unshowable(what: str, error: StorageError) -> None:
    st.warning(f"{what}: {literal(error)}.", icon=":material/broken_image:")


def _column(name: Any, values: pd.Series) -> Any:
    text = label(str(name))
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
        return st.column_config.Column(text)
    if pd.api.types.is_integer_dtype(values):
        return st.column_config.NumberColumn(text, format="%d")
    if is_relative_difference(str(name)):
        return st.column_config.NumberColumn(text.removesuffix(" [%]"), format="percent")
    return st.column_config.NumberColumn(text, format=_float_format(values))


def _float_format(values: pd.Series) -> str:
    finite = [abs(v) for v in values if v is not None and math.isfinite(v) and v]
    if not finite:
        return "%.3f"
    magnitude = math.floor(math.log10(max(finite)))
    if not -3 <= magnitude < 7:
        return "%.3e"
    return f"%.{min(6, max(0, 3 - magnitude))}f"


def _headline(numbers: Mapping[str, Any], kind: Kind | None) -> list[str]:
    """The names worth a tile: the kind's headline, short enough to be read at a glance."""
    names = matching(numbers, kind.headline if kind else ("*",))
    return [n for n in names if len(_with_unit(n, numbers[n])) <= _TILE_LETTERS]


def _with_unit(name: str, value: Any) -> str:
    return f"{value_text(name, value)} {split_unit(name)[1]}".strip()
