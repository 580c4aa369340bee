"""The page of the night: its range of time, what to distrust, counts, and a table of each subject."""

import datetime
from collections import Counter
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboard import data, flow_runs, night, night_tables, view
from dashboard.night import Asked, Concern, Entry, Span
from dashboard.vocabulary import KINDS, count, kind_word, literal, moment
from tomoforge.errors import StorageError
from tomoforge.results import Published

_RANGES = {24: "Last 24 hours", 72: "3 days", 168: "7 days", 720: "30 days"}
_OWN = 0  # a choice beside them
_EACH, _MOST = 3, 8  # of a kind, and in all, in the lists on top
_CHARTED = {
    "scans": "scans",
    "volumes": "reconstructions",
    "segmentations": "segmentations",
    "absorption": "corrections",
    "models": "models",
}


def show() -> None:
    """Draw the page."""
    if "run" in st.query_params:  # an address from when the runs were the first page
        st.switch_page("stages/run.py", query_params={"run": st.query_params["run"]})
    st.header("Night", anchor=False)
    with st.spinner("Reading what is published…"):
        published = data.listing()
    now = night.clock()
    if not published.items:
        view.show_empty(["runs", "nights", "ingests"])
        view.show_unreadable(published.unreadable)
        return
    chosen = _choose_range(night.asked(st.query_params.to_dict(), now), now)
    here = night.within(published, chosen.span)
    reports = night.inbox_reports(published, chosen.span)
    waiting, damaged = night.waiting(reports, chosen.span, _entries_of)
    scans = night.scans_in(here, waiting)
    _show_distrust(night.concerns(here, published), waiting, bool(here.items))
    _show_damaged(damaged)
    view.show_unreadable(published.unreadable)
    if not here.items:
        _show_nothing(published, chosen.span, now)
    _show_tiles(here, scans, bool(reports))
    if not here.items and not waiting:
        return
    _show_chart(here, chosen.span, now)
    left_out = [
        words
        for words, shown in (
            ("scans", night_tables.show_scans(scans, reports, chosen.span)),
            ("nights", night_tables.show_nights(here, published)),
            ("decisions on models", night_tables.show_decisions(here, published)),
            ("runs", night_tables.show_runs(here, published)),
            ("corrections", night_tables.show_corrections(here, published)),
            ("other results", night_tables.show_others(here, published)),
        )
        if not shown
    ]
    if left_out:
        st.caption(f"In this time there were no {', no '.join(left_out)}.")
    _show_limits(published, now)


# --- the range of time --------------------------------------------------------------------------


def _choose_range(asked: Asked, now: datetime.datetime) -> Asked:
    """The controls of the range; the address holds it, so that the view can be sent to somebody."""
    if asked.refused:
        st.warning(f"{asked.refused} Shown are the last {night.HOURS} hours.", icon=":material/link_off:")
    own = asked.hours is None
    ranges = dict(_RANGES)
    if asked.hours is not None and asked.hours not in ranges:
        ranges[asked.hours] = f"Last {asked.hours} hours"
    start, end = asked.span.start, asked.span.end or now
    key = f"range-{asked.hours}-{start:%Y%m%d%H%M}" if own else f"range-{asked.hours}"

    def changed() -> None:
        hours = st.session_state[key]
        st.query_params.from_dict(_times(start, end) if hours == _OWN else {"hours": str(hours)})

    st.segmented_control(
        "Range of time",
        [*sorted(ranges), _OWN],
        default=_OWN if own else asked.hours,
        required=True,
        format_func=lambda hours: "Between…" if hours == _OWN else ranges[hours],
        key=key,
        on_change=changed,
        label_visibility="collapsed",
    )
    if own:
        _choose_times(start, end)
    shown_end = "now" if asked.span.end is None else moment(end.isoformat())
    st.caption(
        f"What came in from {moment(start.isoformat())} to {shown_end}, what was made of it, and what to distrust."
    )
    return asked


def _choose_times(start: datetime.datetime, end: datetime.datetime) -> None:
    keys = {name: f"{name}-{at:%Y%m%d%H%M}" for name, at in (("from", start), ("to", end))}

    def changed() -> None:
        values = [st.session_state[key] for key in keys.values()]
        st.query_params.from_dict(_times(*(at.replace(tzinfo=datetime.UTC) for at in values)))

    columns = st.columns([2, 2, 3])[:2]  # narrower, and the minutes are cut off
    for column, (name, key), at in zip(columns, keys.items(), (start, end), strict=True):
        column.datetime_input(
            f"{name.capitalize()} [UTC]",
            at.replace(tzinfo=None, second=0, microsecond=0),
            min_value=datetime.datetime(2000, 1, 1),
            max_value=datetime.datetime(2100, 1, 1),
            key=key,
            on_change=changed,
            format="YYYY-MM-DD",
            required=True,
        )


def _times(start: datetime.datetime, end: datetime.datetime) -> dict[str, str]:
    """The address's parameters; in whole minutes, the last one included."""
    return {
        "from": start.strftime("%Y-%m-%dT%H:%M"),
        "to": (end + datetime.timedelta(seconds=59)).strftime("%Y-%m-%dT%H:%M"),
    }


# --- what to distrust ---------------------------------------------------------------------------


def _show_distrust(found: Sequence[Concern], waiting: Sequence[Entry], anything: bool) -> None:
    refused = [entry for entry in waiting if entry.new and entry.state in ("quarantined", "failed")]
    severe = [concern for concern in found if concern.severe]
    rest = [concern for concern in found if not concern.severe]
    if severe or refused:
        with st.container(border=True, gap="xsmall"):
            number = count(len(severe) + len(refused), "thing is", "things are")
            st.error(f"**What to distrust: {number} not to be used unseen.**", icon=":material/dangerous:")
            _show_refused(refused)
            _show_concerns(severe, ":material/dangerous:")
    if rest:
        title = count(len(rest), "warning", "warnings") + " to look at"
        with st.expander(title, icon=":material/warning:", expanded=not severe or len(rest) <= _EACH):
            _show_concerns(rest, ":material/warning:")
    if not found and not refused and anything:
        st.success("No warnings were recorded in this time.", icon=":material/check:")


def _show_refused(refused: Sequence[Entry]) -> None:
    for entry in refused[:_EACH]:
        how = "was quarantined" if entry.state == "quarantined" else "could not be taken in"
        text = f"**{literal(entry.name)}** {how}: {_sentences(entry.reason, entry.remedy)}"
        _line(f":material/dangerous: {text}", "Inbox report", entry.item)
    if len(refused) > _EACH:
        st.caption(f"{len(refused) - _EACH} more entries of the inbox are in the table of scans.")


def _show_concerns(found: Sequence[Concern], icon: str) -> None:
    shown, left = night.short(found, _EACH, _MOST)
    for concern in shown:
        item = concern.item
        text = f"{icon} **{literal(item.title)}**: {_sentences(concern.warning)}{_resting(concern)}"
        _line(text, kind_word(item.kind), item)
    for kind, number in left.items():
        page = KINDS[kind].page if kind in KINDS else None
        text = f"{count(number, 'more warning', 'more warnings')} of {literal(_words(kind)[1])}"
        if page is None:
            st.markdown(text)
        else:
            st.page_link(page, label=text, icon=":material/more_horiz:", query_params={"kind": kind})


def _line(text: str, word: str, item: Published) -> None:
    """A line of a list, and the way to the page of ``item``."""
    left, right = st.columns([3, 1], vertical_alignment="center")
    left.markdown(text)
    if kind := KINDS.get(item.kind):
        right.page_link(
            kind.page, label=literal(word), icon=":material/arrow_forward:", query_params=view.address(item)
        )


def _resting(concern: Concern) -> str:
    """What else is affected, in words."""
    if not concern.rests:
        return ""
    kinds = Counter(item.kind for item in concern.rests)
    words = [count(n, *_words(kind)) for kind, n in kinds.items()]
    verb = "rests" if len(concern.rests) == 1 else "rest"
    return f" {literal(', '.join(words))} {verb} on it."


def _show_damaged(damaged: Sequence[Published]) -> None:
    for report in damaged:
        st.warning(
            f"The table of the inbox report {literal(report.title)} cannot be read: what waits in that inbox, or was "
            "refused there, is not counted here.",
            icon=":material/broken_image:",
        )


def _show_nothing(published: data.Listing, span: Span, now: datetime.datetime) -> None:
    st.info("Nothing was published in this time.", icon=":material/info:")
    older = night.newest_before(published, span.start)
    if older is None:
        if night.timeless(published) == len(published.items):
            st.caption("Nothing that is published carries a time; the other pages show it.")
            return
        st.caption("Nothing is older either; what there is, is newer.")
        view.show_link(published.items[0], published)
        return
    time = night.published_at(older) or now
    st.markdown(f"The newest before it is of {moment(time.isoformat())}:")
    view.show_link(older, published)
    st.page_link(
        "stages/night.py",
        label="The 24 hours up to then",
        icon=":material/history:",
        query_params=_times(time - datetime.timedelta(hours=night.HOURS), time),
    )


# --- counts -------------------------------------------------------------------------------------


def _show_tiles(here: data.Listing, scans: Sequence[Entry], reported: bool) -> None:
    states = Counter(entry.state for entry in scans)
    new = Counter(entry.state for entry in scans if entry.new)
    warned = states[night.WARNED] + states[night.FAILED_CHECKS]
    runs = [results for results in night.flow_runs(here) if flow_runs.run_name(results[0].run)]
    decided = night.decisions(here)
    _row(
        ("Scans in", states[night.PASSED] + warned, 0),
        ("Passed", states[night.PASSED], 0),
        ("Warned", warned, 0),
        ("Deferred", states["deferred"] if reported else "–", new["deferred"]),
        ("Quarantined", states["quarantined"] if reported else "–", new["quarantined"]),
        ("Failed", states["failed"] if reported else "–", new["failed"]),
    )
    _row(
        ("Runs", len(runs), 0),
        ("Volumes", len(here.of("volumes").items), 0),
        ("Segmented", len(here.of("segmentations").items), 0),
        ("Corrected", len(here.of("absorption").items), 0),
        ("Promoted", decided["promoted"], 0),
        ("Refused", decided["refused"], 0),
    )
    st.caption(
        "First row: measured scans, those that validation found nothing against, those that it warned of; then the "
        "entries that stand so in the inbox at the end of this time. Second row: flow runs that published something, "
        "reconstructed volumes, segmentations, absorption corrections, models promoted or refused."
    )
    if not reported:
        st.caption(
            "No inbox report was published up to then: nothing is known of entries that were deferred, quarantined "
            "or failed. Reports come from `python -m flows ingest_beamline`."
        )


def _row(*tiles: tuple[str, int | str, int]) -> None:
    for column, (name, value, new) in zip(st.columns(len(tiles)), tiles, strict=True):
        column.metric(
            name,
            value,
            delta=f"{new} new" if new else None,
            delta_color="off",
            delta_arrow="off",
            border=True,
            height="stretch",
        )


def _show_chart(here: data.Listing, span: Span, now: datetime.datetime) -> None:
    counts = night.per_hour(here, _CHARTED, span, now)
    if counts.empty:
        return
    end = span.end or now
    hourly = end - span.start <= night.HOURLY
    step = datetime.timedelta(hours=1) if hourly else datetime.timedelta(days=1)
    domain = [_vega_time(at) for at in (span.start, end + step)]  # the last bar is whole
    names = list(_CHARTED.values())
    # A specification rather than Altair, whose import would double the time to the first page.
    st.vega_lite_chart(
        counts,
        {
            "mark": "bar",
            "height": 170,
            "encoding": {
                "x": {
                    "field": "moment",
                    "type": "temporal",
                    "timeUnit": "utcyearmonthdatehours" if hourly else "utcyearmonthdate",
                    "title": "Time [UTC]",
                    "scale": {"type": "utc", "domain": domain},
                    "axis": {"format": "%a %H:%M" if hourly else "%d %b", "labelOverlap": True},
                },
                "y": {
                    "field": "count",
                    "type": "quantitative",
                    "title": "Results",
                    "axis": {"tickMinStep": 1},
                },
                "color": {"field": "what", "type": "nominal", "title": None, "scale": {"domain": names}},
                "tooltip": [
                    {"field": "what", "title": "What"},
                    {"field": "count", "type": "quantitative", "title": "Results"},
                ],
            },
        },
        width="stretch",
    )
    st.caption(
        f"Results published in each {'hour' if hourly else 'day'}; scans include simulated ones. "
        "A gap is a time in which nothing was finished."
    )


def _vega_time(at: datetime.datetime) -> dict[str, int | bool]:
    return {
        "year": at.year, "month": at.month, "date": at.day, "hours": at.hour, "minutes": at.minute, "utc": True
    }  # fmt: skip


# --- pieces -------------------------------------------------------------------------------------


def _show_limits(published: data.Listing, now: datetime.datetime) -> None:
    """What this page cannot know."""
    said = []
    if number := night.timeless(published):
        said.append(f"{count(number, 'result carries', 'results carry')} no time and belong to no range.")
    ahead = now + datetime.timedelta(minutes=5)
    if number := sum((night.published_at(item) or now) > ahead for item in published.items):
        said.append(
            f"{count(number, 'result is', 'results are')} from the future: a machine's clock is wrong."
        )
    if said:
        st.caption(" ".join(said))


def _entries_of(report: Published) -> pd.DataFrame | None:
    if "entries" not in report.tables:
        return None
    try:
        return data.read_table(report, "entries")
    except StorageError:
        return None


def _words(kind: str) -> tuple[str, str]:
    return (KINDS[kind].singular, KINDS[kind].plural) if kind in KINDS else (kind, kind)


def _sentences(*texts: str) -> str:
    """Texts of files as sentences after a colon, cut short and escaped."""
    cut = [_cut(text.strip()) for text in texts if text.strip()]
    ended = [text + ("" if text[-1] in ".!?…" else ".") for text in cut]
    return literal(" ".join([*ended[:1], *(text[:1].upper() + text[1:] for text in ended[1:])]))


def _cut(text: str, most: int = 240) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
