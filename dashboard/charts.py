"""Charts of the pages: every axis with its unit, every chart with a caption and its numbers to download.

Colours are Okabe and Ito's without black and yellow, which vanish on a dark or a light page; what matters is told by
shape too. Frames have plain column names; the axes say what they are.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import altair as alt
import pandas as pd
import streamlit as st

from dashboard import data, view
from dashboard.vocabulary import label, literal
from tomoforge.errors import StorageError
from tomoforge.results import Published

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [12, 3])
Drawn: TypeAlias = alt.Chart | alt.LayerChart | alt.FacetChart

# Lines beside the points say nothing of their own: left out of what a screen reader is told.
_LINE: dict[str, Any] = {"color": "#888888", "strokeDash": [4, 3], "aria": False}
_LEGEND = alt.Legend(orient="top", columns=1, labelLimit=280)
_ROW_PX, _AXIS_PX, _LEGEND_PX = 26, 84, 52  # Streamlit fits axes and legend into the height of a chart
_FACET_PX = 540  # panels in rows do not stretch; beside their labels this fits a page of 1280 px


def show_chart(chart: Drawn, caption: str, frame: pd.DataFrame, name: str) -> None:
    """A chart, what it says, and its numbers as a table that can be downloaded under ``name``."""
    draw(chart, caption)
    with st.expander("The numbers of this chart", icon=":material/table_rows:", key=f"numbers-{name}"):
        view.show_frame(frame, name)


def draw(chart: Drawn, caption: str) -> None:
    """A chart and what it says; who cannot see it is told the same."""
    st.altair_chart(chart, width="stretch", alt=caption)
    st.caption(literal(caption))


def show_curve(item: Published, name: str) -> None:
    """A table over epochs as a line chart, for a result without a picture of it."""
    try:
        frame = data.read_table(item, name).select_dtypes("number")
    except StorageError:
        return  # its table says so
    if frame.shape[1] < 2 or frame.empty:
        return
    first = str(frame.columns[0])
    names = {str(column): label(str(column)) for column in frame.columns[1:]}
    long = frame.rename(columns=names).melt(id_vars=first, var_name="curve", value_name="value")
    told = item.tables[name][1]
    draw(curves(long, first, "value", x_title=label(first), y_title="value", group="curve"), told)


def intervals(
    frame: pd.DataFrame,
    title: str,
    *,
    group: str,
    panel: str | None = None,
    panels: Sequence[str] = (),
    reference: float | None = None,
) -> Drawn:
    """Points with their intervals, lying: a row each ``group``, a panel each ``panel``.

    frame : value, low, high and the columns of ``group`` and ``panel``; intervals may be missing. reference : a
    dashed line, at no difference.
    """
    order = list(dict.fromkeys(frame[group]))
    lanes = alt.Y(f"{group}:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
    across = alt.X("value:Q", title=title, scale=alt.Scale(zero=False, padding=10))
    colour = alt.Color(f"{group}:N", sort=order, legend=None, scale=_scale(order, COLOURS))
    tips = [alt.Tooltip(name) for name in frame.columns]
    base = alt.Chart(frame)
    layers: list[alt.Chart] = []
    if reference is not None:
        layers.append(base.mark_rule(**_LINE).encode(x=alt.datum(reference)))
    layers += [
        base.mark_rule(strokeWidth=2, aria=False).encode(x="low:Q", x2="high:Q", y=lanes, color=colour),
        base.mark_point(filled=True, size=75, opacity=1).encode(
            x=across,
            y=lanes,
            color=colour,
            shape=alt.Shape(f"{group}:N", sort=order, legend=None, scale=_scale(order, SHAPES)),
            tooltip=tips,
        ),
    ]
    chart = alt.layer(*layers).properties(height=(0 if panel else _AXIS_PX) + len(order) * _ROW_PX)
    if panel is None:
        return chart
    chart = chart.properties(width=_FACET_PX)
    header = alt.Header(title=None, labelFontWeight="bold", labelAnchor="start", labelOrient="top")
    return chart.facet(row=alt.Row(f"{panel}:N", sort=list(panels), header=header)).resolve_scale(y="shared")


def strips(frame: pd.DataFrame, title: str, *, lane: str, lanes: Sequence[str]) -> Drawn:
    """One dot a row about zero, a lane each ``lane``. frame : value, case, set and the column of ``lane``."""
    sets = list(dict.fromkeys(frame["set"]))
    legend = _LEGEND if len(sets) > 1 else None
    base = alt.Chart(frame)
    rule = base.mark_rule(**_LINE).encode(x=alt.datum(0))
    dots = base.mark_point(filled=True, size=60, opacity=0.8).encode(
        x=alt.X("value:Q", title=title, scale=alt.Scale(padding=10)),
        y=alt.Y(f"{lane}:N", sort=list(lanes), title=None),
        yOffset=alt.YOffset("set:N") if len(sets) > 1 else alt.Undefined,
        color=alt.Color("set:N", sort=sets, title=None, legend=legend, scale=_scale(sets, COLOURS)),
        shape=alt.Shape("set:N", sort=sets, title=None, legend=legend, scale=_scale(sets, SHAPES)),
        tooltip=[alt.Tooltip(name) for name in frame.columns],
    )
    return alt.layer(rule, dots).properties(height=_AXIS_PX + len(lanes) * 40)


def curves(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    x_title: str,
    y_title: str,
    group: str | None = None,
    logarithmic: bool = False,
    height: int = 320,
) -> Drawn:
    """Lines over ``x``, a line each ``group``, told apart by colour and dashes."""
    scale = alt.Scale(type="log", nice=False) if logarithmic else alt.Scale(zero=False, nice=False)
    chart = alt.Chart(frame).encode(
        x=alt.X(f"{x}:Q", title=x_title, scale=scale),
        y=alt.Y(f"{y}:Q", title=y_title, scale=alt.Scale(zero=False)),
        tooltip=[alt.Tooltip(name) for name in frame.columns],
    )
    longest = frame.groupby(group).size().max() if group and len(frame) else len(frame)
    points = bool(longest <= 40)
    if group is None:
        return chart.mark_line(point=points, color=COLOURS[0]).properties(height=height)
    order = list(dict.fromkeys(frame[group]))
    legend = alt.Legend(orient="bottom", columns=1, labelLimit=700, symbolType="stroke", symbolSize=300)
    return (
        chart.mark_line(point=points)
        .encode(
            color=alt.Color(
                f"{group}:N", sort=order, title=None, scale=_scale(order, COLOURS), legend=legend
            ),
            strokeDash=alt.StrokeDash(f"{group}:N", sort=order, title=None, scale=_scale(order, DASHES)),
        )
        .properties(height=height)
    )


def bars(frame: pd.DataFrame, name: str, value: str, *, value_title: str, group: str | None = None) -> Drawn:
    """Lying bars, the longest of the first group at the top, with their names."""
    order, whole = list(dict.fromkeys(frame[name])), pd.api.types.is_integer_dtype(frame[value])
    groups = list(dict.fromkeys(frame[group])) if group else []
    chart = alt.Chart(frame).mark_bar(color=COLOURS[0])
    chart = chart.encode(
        x=alt.X(f"{value}:Q", title=value_title, axis=alt.Axis(tickCount=4, tickMinStep=1 if whole else 0)),
        y=alt.Y(f"{name}:N", sort=order, title=None, axis=alt.Axis(labelLimit=200)),
        tooltip=[alt.Tooltip(column) for column in frame.columns],
    )
    if group:
        chart = chart.encode(
            color=alt.Color(
                f"{group}:N",
                sort=groups,
                title=None,
                scale=_scale(groups, COLOURS),
                legend=_LEGEND,
            ),
            yOffset=alt.YOffset(f"{group}:N", sort=groups),
        )
    return chart.properties(
        height=_AXIS_PX + (_LEGEND_PX if groups else 0) + len(order) * (22 + 14 * max(0, len(groups) - 1))
    )


def histogram(frame: pd.DataFrame, *, x_title: str, y_title: str, value: str, height: int = 220) -> Drawn:
    """Bars of the first set, an outline of the second. frame : set, low, high and ``value``."""
    sets = list(dict.fromkeys(frame["set"]))
    colour = alt.Color(
        "set:N",
        sort=sets,
        title=None,
        scale=_scale(sets, COLOURS),
        legend=_LEGEND if len(sets) > 1 else None,
    )
    y = alt.Y(f"{value}:Q", title=y_title, axis=alt.Axis(tickMinStep=1 if value == "samples" else 0))
    x = alt.X("low:Q", title=x_title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    tips = [alt.Tooltip(name, format=".4~g") for name in ("low", "high", value)] + [alt.Tooltip("set")]
    layers = [
        alt.Chart(frame[frame["set"] == sets[0]])
        .mark_bar(opacity=0.75 if len(sets) > 1 else 1)
        .encode(x=x, x2="high:Q", y=y, y2=alt.datum(0), color=colour, tooltip=tips)
    ]
    if len(sets) > 1:
        second = frame[frame["set"] != sets[0]]
        # The outline goes on to the end of the last bin.
        outline = pd.concat([second, second.tail(1).assign(low=second.tail(1)["high"])], ignore_index=True)
        layers.append(
            alt.Chart(outline)
            .mark_line(interpolate="step-after", strokeWidth=2.5)
            .encode(x=x, y=y, color=colour, tooltip=tips)
        )
    return alt.layer(*layers).properties(height=height + (_LEGEND_PX if len(sets) > 1 else 0))


def timeline(frame: pd.DataFrame) -> Drawn:
    """Decisions over time: a lane each decision. frame : moment (UTC), decision, model, by, reason."""
    lanes = list(dict.fromkeys(frame["decision"]))
    return (
        alt.Chart(frame)
        .mark_point(filled=True, size=110, opacity=0.9)
        .encode(
            x=alt.X(
                "moment:T",
                title="time of the decision [UTC]",
                scale=alt.Scale(type="utc"),
                axis=alt.Axis(format="%Y-%m-%d %H:%M", tickCount=5, labelOverlap=True),
            ),
            y=alt.Y("decision:N", sort=lanes, title=None),
            color=alt.Color("decision:N", sort=lanes, legend=None, scale=_scale(lanes, COLOURS)),
            shape=alt.Shape("decision:N", sort=lanes, legend=None, scale=_scale(lanes, SHAPES)),
            tooltip=[alt.Tooltip(name) for name in frame.columns],
        )
        .properties(height=_AXIS_PX + len(lanes) * 40)
    )


def _scale(order: Sequence[str], values: Sequence) -> alt.Scale:
    """The same name has the same colour, shape or dashes in all charts of a page."""
    return alt.Scale(domain=list(order), range=[values[n % len(values)] for n in range(len(order))])
