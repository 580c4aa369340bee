"""The tables of the night: one a subject, each with links to the pages and its download."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import data, flow_runs, night, view
from dashboard.doubts import doubts
from dashboard.night import Entry, Span
from dashboard.vocabulary import KINDS, kind_word, literal, moment
from tomoforge.results import Published

_PAGES = {"page": "Open"}


def show_scans(
    scans: Sequence[Entry], reports: Sequence[tuple[Published, Published | None]], span: Span
) -> bool:
    rows = [
        {
            "page": view.page_address(entry.item) or "",
            "state": entry.state,
            "scan": entry.name,
            "reason": entry.reason,
            "what to do": entry.remedy,
            "new": "yes" if entry.new else "no",
            "published": moment(entry.item.run.get("published_at")),
        }
        for entry in scans
    ]
    if not rows:
        return False
    _section("Scans", "Measured scans, and what the inbox holds that is no scan; the worst first.")
    older = [newest for newest, _ in reports if not span.holds(night.published_at(newest))]
    if older:
        times = ", ".join(moment(report.run.get("published_at")) for report in older)
        st.caption(f"The inbox has not changed in this time; its report is of {times}.")
    view.show_frame(pd.DataFrame(rows), "night-scans", _PAGES)
    return True


def show_nights(here: data.Listing, published: data.Listing) -> bool:
    return _show_items(
        here.of("nights").items,
        published,
        "Nights",
        "What the nightly retraining decided, and why.",
        lambda item: {
            "outcome": _said(item, "outcome"),
            "reason": _said(item, "reason"),
            "began": moment(item.summary.get("began")),
            "new cases": item.summary.get("new_cases"),
            "quarantined": item.summary.get("quarantined"),
        },
    )


def show_decisions(here: data.Listing, published: data.Listing) -> bool:
    shown = _show_items(
        here.of("promotions").items,
        published,
        "Models promoted or refused",
        "Every decision that was published, with its grounds; by IoU of the crystal on the hold-out.",
        lambda item: {
            "decision": _said(item, "decision"),
            "grounds": _said(item, "grounds") or _said(item, "reason") or "; ".join(item.warnings),
            "model": _said(item, "model"),
            "iou_crystal_champion": item.summary.get("iou_crystal_champion"),
            "iou_crystal_challenger": item.summary.get("iou_crystal_challenger"),
            "decided by": _said(item, "decided_by"),
        },
    )
    newest = night.champion(published)
    if newest is not None:
        since = moment(newest.summary.get("decided_at") or newest.run.get("published_at"))
        st.caption(f"Champion by the published decisions: {literal(_said(newest, 'model'))}, since {since}.")
    return shown


def show_runs(here: data.Listing, published: data.Listing) -> bool:
    rows = []
    for results in night.flow_runs(here):
        run = results[0].run
        found = [doubts(item, published) for item in results]
        main = night.foremost(results)
        rows.append(
            {
                "page": view.page_address(main) or "",
                "Prefect": flow_runs.run_address(run) or "",
                "flow": flow_runs.flow_name(run) or "not recorded",
                "flow run": flow_runs.run_name(run) or "not recorded",
                "results": len(results),
                "to distrust": sum(bool(each) and each[0].severe for each in found),
                "with warnings": sum(bool(each) for each in found),
                "foremost": f"{kind_word(main.kind)}: {main.title}",
                "last published": moment(run.get("published_at")),
            }
        )
    if not rows:
        return False
    _section("Runs", "Each flow run that published something, and the foremost of its results.")
    view.show_frame(pd.DataFrame(rows), "night-runs", {**_PAGES, "Prefect": "Flow run"})
    where = flow_runs.prefect_ui()
    st.caption(
        "A run that failed, or is still at work, may have published nothing: Prefect alone knows of it. "
        + (
            "Its server must be up for the links to it to work; this dashboard does not need it."
            if where
            else f"There are no links: {flow_runs.SETTING} is not an http address."
        )
    )
    if where:
        st.page_link(f"{where}/runs", label="All runs in Prefect's UI", icon=":material/open_in_new:")
    return True


def show_corrections(here: data.Listing, published: data.Listing) -> bool:
    def numbers(item: Published) -> dict[str, Any]:
        found = doubts(item, published)
        return {
            "distrust": "; ".join(doubt.warning for doubt in found if doubt.severe),
            "warnings": len(found),
            "reflections": item.summary.get("reflections"),
            "r_meas_uncorrected": item.summary.get("r_meas_uncorrected"),
            "r_meas_corrected": item.summary.get("r_meas_corrected"),
            "mean_relative_difference": item.summary.get("mean_relative_difference"),
        }

    return _show_items(
        here.of("absorption").items,
        published,
        "Corrections",
        "Absorption corrections, with what to distrust in them or in what they rest on.",
        numbers,
    )


def show_others(here: data.Listing, published: data.Listing) -> bool:
    told = ("nights", "promotions", "absorption", "ingests", "runs")
    kinds = Counter(item.kind for item in here.items if item.kind not in told)
    rows = []
    for kind, number in kinds.items():
        items = here.of(kind).items
        found = [doubts(item, published) for item in items]
        rows.append(
            {
                "page": view.page_address(items[0]) or "",
                "kind": _words(kind)[1],
                "results": number,
                "to distrust": sum(bool(each) and each[0].severe for each in found),
                "with warnings": sum(bool(each) for each in found),
                "newest": items[0].title,
                "published": moment(items[0].run.get("published_at")),
            }
        )
    if not rows:
        return False
    _section("What else was made", "By kind, with the newest of each; scans include simulated ones.")
    view.show_frame(pd.DataFrame(rows), "night-others", _PAGES)
    return True


def _show_items(
    items: Sequence[Published],
    published: data.Listing,
    title: str,
    about: str,
    columns: Callable[[Published], dict[str, Any]],
) -> bool:
    """A table of results: title, its own columns, when, where."""
    if not items:
        return False
    _section(title, about)
    rows = [
        {
            "page": view.page_address(item) or "",
            "title": item.title,
            **columns(item),
            "published": moment(item.run.get("published_at")),
        }
        for item in items
    ]
    frame = pd.DataFrame(rows)
    for column in frame.columns:
        if frame[column].dtype == object:  # numbers of one manifest may be texts in another
            frame[column] = frame[column].map(lambda value: value if value is None else str(value))
    view.show_frame(frame, f"night-{items[0].kind}", _PAGES)
    return True


def _section(title: str, about: str) -> None:
    st.subheader(title, anchor=False)
    st.caption(about)


def _words(kind: str) -> tuple[str, str]:
    return (KINDS[kind].singular, KINDS[kind].plural) if kind in KINDS else (kind, kind)


def _said(item: Published, name: str) -> str:
    value = item.summary.get(name)
    return "" if value is None else str(value)
