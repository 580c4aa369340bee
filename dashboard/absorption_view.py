"""A correction's page: the factors, what they do to the data, how sure they are, and the files to go on with."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from dashboard import charts, data, view
from dashboard.choices import switch
from dashboard.correction_files import show_files
from dashboard.correction_tables import (
    binned,
    cif_lines,
    error_parts,
    histogram_table,
    readable_merging,
    rotation_edges,
    shell_edges,
    source_word,
    sources_of,
)
from dashboard.doubts import show_doubts
from dashboard.tables import table_of
from dashboard.vocabulary import literal, number_text
from tomoforge.results import Published

# Okabe–Ito's blue and vermillion, thin enough for the text on them, light or dark.
_BETTER, _WORSE = "background-color: rgba(0, 114, 178, 0.33)", "background-color: rgba(213, 94, 0, 0.33)"
_SUBJECT = "labels"  # the source that is corrected by, as tasks/correction_report.py has it
_PANELS = 3


def show_correction(item: Published, published: data.Listing) -> None:
    """The whole page of one correction."""
    view.show_header(item)
    show_doubts(item, published)
    view.show_numbers(item, folded=True)
    shown = {"surface", "frames"}
    merging = table_of(item, "merging", ("statistic",))
    if merging is not None and sources_of(merging):
        _show_merging(item, merging)
        shown.add("merging")
    factors = table_of(item, "factors", ("absorption_factor", "standard_error"))
    if factors is not None and len(factors):
        by_source = _by_source(item, factors)
        shown |= {"histogram"} if len(by_source) > 1 else set()  # drawn here from the same numbers
        _show_factors(item, by_source)
        _show_curve(item, factors, by_source)
        _show_errors(item, factors)
    for name, title in (("frames", "Frame by frame"), ("surface", "Absorption surface")):
        if name in item.pictures:
            st.subheader(title, anchor=False)
            view.show_picture(item, name)
    show_files(item)
    view.show_pictures(item, without=shown)
    view.show_tables(item, without=shown)
    view.show_parts(item, published)
    view.show_links(item, published)
    view.show_provenance(item)


def _by_source(item: Published, factors: pd.DataFrame) -> dict[str, np.ndarray]:
    """Factors by source of labels, the reference first; only the subject's where no others were published."""
    subject = factors["absorption_factor"].to_numpy(dtype=float)
    table = table_of(item, "factors_by_source", (_SUBJECT,))
    if table is None or len(table) != len(factors):
        return {_SUBJECT: subject}
    found = {
        str(name): table[name].to_numpy(dtype=float)
        for name in table.select_dtypes("number").columns
        if name not in ("rotation_deg", "spacing_angstrom")
    }
    return {**found, _SUBJECT: subject}


# --- factors --------------------------------------------------------------------------------------------


def _show_factors(item: Published, by_source: Mapping[str, np.ndarray]) -> None:
    st.subheader("Absorption factors", anchor=False)
    frame = histogram_table(by_source)
    if frame.empty:
        st.caption("No factor in the published table is a number.")
        return
    sets = list(dict.fromkeys(frame["set"]))
    panels = [_histogram(frame, name, n) for n, name in enumerate(sets[:_PANELS])]
    caption = (
        "How many reflections have which absorption factor A (the share of the beam that gets through), by the labels "
        "that were traced. Intensities are divided by A."
    )
    others = [name for name in by_source if name != _SUBJECT]
    if others and len(panels) < _PANELS:
        difference = 100 * (by_source[_SUBJECT] / by_source[others[0]] - 1)
        panels.append(_difference_histogram(difference, others[0]))
        caption += (
            f" Right: how far the {source_word(_SUBJECT)} lead elsewhere than the {source_word(others[0])}."
        )
    for column, panel in zip(st.columns(len(panels)), panels, strict=True):
        column.altair_chart(panel, width="stretch", alt=caption)
    st.caption(literal(caption))
    with st.expander("The numbers of these charts", icon=":material/table_rows:"):
        view.show_frame(frame, f"{item.identifier}-histogram")
    _show_cif(item, by_source[_SUBJECT])


def _histogram(frame: pd.DataFrame, name: str, number: int) -> alt.Chart | alt.LayerChart | alt.FacetChart:
    shown = frame[frame["set"] == name]
    low, high = float(frame["low"].min()), float(frame["high"].max())
    return (
        alt.Chart(shown)
        .mark_bar(color=charts.COLOURS[number % len(charts.COLOURS)])
        .encode(
            x=alt.X(
                "low:Q",
                title="A",
                scale=alt.Scale(domain=[low, high], nice=False),
                axis=alt.Axis(tickCount=5),
            ),
            x2="high:Q",
            y=alt.Y(
                "reflections:Q",
                title="reflections",
                scale=alt.Scale(domainMax=int(frame["reflections"].max())),
            ),
            y2=alt.datum(0),
            tooltip=[alt.Tooltip(n, format=".4~g") for n in ("low", "high", "reflections")],
        )
        .properties(height=260, title=name[:1].upper() + name[1:])
    )


def _difference_histogram(
    difference: np.ndarray, reference: str
) -> alt.Chart | alt.LayerChart | alt.FacetChart:
    frame = histogram_table({"difference": difference})
    zero = (
        alt.Chart(pd.DataFrame({"x": [0.0]}))
        .mark_rule(color="#888888", strokeDash=[4, 3], aria=False)
        .encode(x="x:Q")
    )
    bars = (
        alt.Chart(frame)
        .mark_bar(color=charts.COLOURS[2])
        .encode(
            x=alt.X("low:Q", title="ΔA/A [%]", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
            x2="high:Q",
            y=alt.Y("reflections:Q", title="reflections"),
            y2=alt.datum(0),
            tooltip=[alt.Tooltip(n, format=".4~g") for n in ("low", "high", "reflections")],
        )
    )
    title = f"{source_word(_SUBJECT)} − {source_word(reference)}"
    return alt.layer(bars, zero).properties(height=260, title=title[:1].upper() + title[1:])


def _show_cif(item: Published, factors: np.ndarray) -> None:
    known = factors[np.isfinite(factors)]
    st.subheader("Transmission for the CIF", anchor=False)
    left, right = st.columns(2)
    left.metric("Least transmission T min", f"{known.min():.4f}", border=True)
    right.metric("Greatest transmission T max", f"{known.max():.4f}", border=True)
    mu = item.summary.get("mu_crystal_per_m")
    st.code(
        cif_lines(float(known.min()), float(known.max()), float(mu) if isinstance(mu, int | float) else None),
        language=None,
    )
    note = "To be copied. µ of the crystal in mm⁻¹, as it was traced with."
    if item.summary.get("data") == "twin":
        note += " These reflections are synthetic: the lines show the form, they belong into no CIF."
    st.caption(note)


# --- along rotation and resolution ----------------------------------------------------------------------


def _show_curve(item: Published, factors: pd.DataFrame, by_source: Mapping[str, np.ndarray]) -> None:
    along = {
        word: column
        for word, column in (("rotation", "rotation_deg"), ("resolution", "spacing_angstrom"))
        if column in factors and np.isfinite(factors[column].to_numpy(dtype=float)).all() and len(factors) > 1
    }
    if not along:
        return
    st.subheader("Along the experiment", anchor=False)
    chosen = switch("Absorption factor against", list(along), "along", words=str)
    where = factors[along[chosen]].to_numpy(dtype=float)
    errors = factors["standard_error"].to_numpy(dtype=float)
    if chosen == "rotation":
        frame = binned(where, by_source, rotation_edges(where), errors)
        x = alt.X("middle:Q", title="rotation [°]", scale=alt.Scale(zero=False, nice=False))
        bins = "wedges of rotation"
    else:
        inverse = 1.0 / np.square(where)
        frame = binned(inverse, by_source, shell_edges(where), errors)
        frame["resolution_angstrom"] = 1.0 / np.sqrt(frame["middle"])
        axis = alt.Axis(labelExpr="datum.value > 0 ? format(1 / sqrt(datum.value), '.2f') : '∞'")
        x = alt.X("middle:Q", title="resolution d [Å], even in 1/d²", axis=axis, scale=alt.Scale(zero=False))
        bins = "shells of resolution"
    caption = (
        f"Mean absorption factor in {bins} by every source of labels (lines); within a bin, 80 % of the factors by the "
        f"{source_word(_SUBJECT)} lie in the band. The mean standard error is in the numbers: it is smaller than the "
        "line is wide where none is to be seen."
    )
    charts.show_chart(_curve(frame, x), caption, frame, f"{item.identifier}-{chosen}")


def _curve(frame: pd.DataFrame, x: alt.X) -> alt.Chart | alt.LayerChart | alt.FacetChart:
    order = list(dict.fromkeys(frame["set"]))
    colour = alt.Color(
        "set:N",
        sort=order,
        title=None,
        scale=alt.Scale(
            domain=order, range=[charts.COLOURS[n % len(charts.COLOURS)] for n in range(len(order))]
        ),
        legend=alt.Legend(orient="bottom", labelLimit=300),
    )
    dash = alt.StrokeDash(
        "set:N",
        sort=order,
        title=None,
        scale=alt.Scale(
            domain=order, range=[charts.DASHES[n % len(charts.DASHES)] for n in range(len(order))]
        ),
    )
    y = alt.Y("mean:Q", title="absorption factor A", scale=alt.Scale(zero=False))
    tips = [
        alt.Tooltip(n, format=".4~g")
        for n in ("middle", "mean", "low", "high", "reflections", "standard_error")
    ]
    plain = alt.value(charts.COLOURS[order.index(source_word(_SUBJECT)) % len(charts.COLOURS)])
    band = (
        alt.Chart(frame[frame["set"] == source_word(_SUBJECT)])
        .mark_area(opacity=0.25)
        .encode(
            x=x,
            y=alt.Y("low:Q", title="absorption factor A", scale=alt.Scale(zero=False)),
            y2="high:Q",
            color=plain,
        )
    )
    bars = (
        alt.Chart(frame[frame["set"] == source_word(_SUBJECT)])
        .transform_calculate(
            top="datum.mean + datum.standard_error", bottom="datum.mean - datum.standard_error"
        )
        .mark_rule(aria=False)
        .encode(x=x, y=alt.Y("bottom:Q", title="absorption factor A"), y2="top:Q", color=plain)
    )
    lines = (
        alt.Chart(frame)
        .mark_line(strokeWidth=2)
        .encode(x=x, y=y, color=colour, strokeDash=dash, tooltip=[alt.Tooltip("set"), *tips])
    )
    return alt.layer(band, bars, lines).properties(height=340)


# --- errors ---------------------------------------------------------------------------------------------


def _show_errors(item: Published, factors: pd.DataFrame) -> None:
    st.subheader("How sure the factors are", anchor=False)
    a, error = (factors[name].to_numpy(dtype=float) for name in ("absorption_factor", "standard_error"))
    relative = 100 * error / a
    frame = histogram_table({"standard error": relative})
    if frame.empty:
        st.caption("No standard errors were published with these factors.")
        return
    left, right = st.columns([3, 2])
    chart = (
        alt.Chart(frame)
        .mark_bar(color=charts.COLOURS[4])
        .encode(
            x=alt.X("low:Q", title="standard error of A [%]", scale=alt.Scale(zero=False)),
            x2="high:Q",
            y=alt.Y("reflections:Q", title="reflections"),
            y2=alt.datum(0),
            tooltip=[alt.Tooltip(n, format=".4~g") for n in ("low", "high", "reflections")],
        )
        .properties(height=240)
    )
    left.altair_chart(chart, width="stretch", alt="Distribution of the standard errors of A")
    parts = error_parts(factors)
    table = pd.DataFrame(
        [{"part": word, "median_percent": value} for word, value in parts.items() if np.isfinite(value)]
    )
    right.dataframe(
        table,
        hide_index=True,
        width="stretch",
        column_config={
            "part": st.column_config.Column("Standard error from"),
            "median_percent": st.column_config.NumberColumn("Median [% of A]", format="%.3f"),
        },
    )
    missing = [word for word, value in parts.items() if not np.isfinite(value)]
    said = f"Largest: {number_text(float(np.nanmax(relative)))} %."
    if missing:
        said += f" Not in it, for nobody gave it: errors of {' and of '.join(missing)}."
    right.caption(said)
    st.caption(literal(item.tables["factors"][1]))


# --- merging --------------------------------------------------------------------------------------------


def _show_merging(item: Published, merging: pd.DataFrame) -> None:
    st.subheader("What the correction does to the data", anchor=False)
    sources = sources_of(merging)
    reference = sources[0]
    if len(sources) > 1:
        reference = switch("Changes are from", sources, "reference", words=source_word)
    text, marks = readable_merging(merging, reference)
    styles = marks.map(lambda mark: {1: _BETTER, -1: _WORSE}.get(mark, ""))
    styled: Any = text.style.apply(lambda _: styles, axis=None)
    columns = {
        name: st.column_config.Column(
            name, alignment="left" if name == "Statistic" else "right", pinned=name == "Statistic"
        )
        for name in text.columns
    }
    st.dataframe(styled, hide_index=True, width="stretch", height="content", column_config=columns)
    st.caption(
        f"Change from the {source_word(reference)}: ▲ more, ▼ less; blue and “better” where that is good for this "
        "statistic (R values down; I/σ, CC and completeness up), vermillion and “worse” where it is bad, neither where "
        "it is less than 0.05 % or says nothing by itself (the size of the anomalous signal grows with its errors). "
        "Where a ratio has no meaning, the difference itself stands, without %."
    )
    st.caption(literal(item.tables["merging"][1]))
    view.download_csv(merging, f"{item.kind}-{item.identifier}-merging")
