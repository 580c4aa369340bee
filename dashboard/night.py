"""What a stretch of time brought: scans in, what was made of them, what was decided, what to distrust.

Functions of the listing alone; the tables of inbox reports come from ``read``, which gives None where one is damaged.
"""

import datetime
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dashboard import data
from dashboard.doubts import FAILED
from dashboard.vocabulary import is_severe
from tomoforge.results import Published

HOURS = 24
HOURLY = datetime.timedelta(days=4)  # a longer span is charted by day
_MOST_HOURS = 24 * 366 * 20
Read = Callable[[Published], pd.DataFrame | None]

# Of a scan that was published, then of an entry that waits in the inbox or was refused there.
PASSED, WARNED, FAILED_CHECKS = "passed", "with warnings", "failed its checks"
WAITING = ("quarantined", "failed", "deferred", "duplicate")
STATES = (FAILED_CHECKS, *WAITING[:2], WARNED, "deferred", "duplicate", PASSED)
# The order in which people want to hear of trouble.
_TELLING = (
    *("nights", "runs", "absorption", "segmentations", "volumes", "scans", "promotions", "models"),
    *("previews", "fidelity", "comparisons", "sample_sets", "samples", "annotation_queues", "ingests"),
)


@dataclass(frozen=True)
class Span:
    """From ``start`` to ``end``, both included; without an end, all that is newer than the start.

    Open at its end, the span of the last hours also holds what a machine with a fast clock published.
    """

    start: datetime.datetime
    end: datetime.datetime | None = None

    def holds(self, moment: datetime.datetime | None) -> bool:
        """Whether the moment, if it is known, lies within."""
        return moment is not None and self.start <= moment and (self.end is None or moment <= self.end)


@dataclass(frozen=True)
class Asked:
    """What the address asks for. hours : of a span that ends now, None for one between two times;
    refused : what could not be understood, for the user."""

    span: Span
    hours: int | None
    refused: str = ""


@dataclass(frozen=True)
class Concern:
    """Something to distrust or to look at: a warning of ``item``, and what of the span rests on that."""

    item: Published
    warning: str
    severe: bool
    rests: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One scan, or one entry of an inbox that is no scan yet.

    new : it came to be in the span, else it already stood so before; item : where it is shown.
    """

    name: str
    state: str
    reason: str
    remedy: str
    new: bool
    item: Published


def clock() -> datetime.datetime:
    """Now, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def asked(parameters: Mapping[str, str], now: datetime.datetime) -> Asked:
    """The span that the address asks for: ``hours=72``, or ``from`` and ``to`` (ISO 8601, UTC); else the last 24 h."""
    start, end = parameters.get("from", ""), parameters.get("to", "")
    if start or end:
        first, last = moment_of(start), moment_of(end) if end else now
        if first is not None and last is not None and first < last:
            return Asked(Span(first, last), None)
        return _last(
            HOURS, now, "The address names a time that cannot be understood, or an end before its beginning."
        )
    hours = parameters.get("hours", "")
    if not hours:
        return _last(HOURS, now)
    if hours.isascii() and hours.isdigit() and len(hours) < 9 and 0 < int(hours) <= _MOST_HOURS:
        return _last(int(hours), now)
    return _last(HOURS, now, "The address names a number of hours that cannot be understood.")


def _last(hours: int, now: datetime.datetime, refused: str = "") -> Asked:
    return Asked(Span(now - datetime.timedelta(hours=hours)), hours, refused)


def moment_of(text: Any) -> datetime.datetime | None:
    """A stored time (ISO 8601; without a zone it is UTC), None if it is none."""
    try:
        moment = datetime.datetime.fromisoformat(str(text))
        return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return None


def published_at(item: Published) -> datetime.datetime | None:
    """When it was published, None if that is not known."""
    return moment_of(item.run.get("published_at"))


def within(published: data.Listing, span: Span) -> data.Listing:
    """What was published in the span, newest first."""
    return data.Listing(tuple(item for item in published.items if span.holds(published_at(item))), ())


def timeless(published: data.Listing) -> int:
    """How many results carry no time: they belong to no span."""
    return sum(published_at(item) is None for item in published.items)


def newest_before(published: data.Listing, moment: datetime.datetime) -> Published | None:
    """The newest that was published before the moment."""
    dated = ((published_at(item), item) for item in published.items)
    earlier = [(time, item) for time, item in dated if time is not None and time < moment]
    return max(earlier, key=lambda pair: pair[0])[1] if earlier else None


# --- what to distrust ---------------------------------------------------------------------------


def concerns(here: data.Listing, published: data.Listing) -> list[Concern]:
    """What to distrust of ``here``: each warning once, at the result where it began; severe ones first.

    A warning that a run repeats from its segmentation is told of the segmentation. One of a model that was made long
    before is told where something new rests on it. Inbox reports are left out: each repeats all that ever happened.
    """
    found: dict[tuple[str, str, str], tuple[Published, str, list[Published]]] = {}
    for item in here.items:
        if item.kind == "ingests":
            continue
        origins: dict[tuple[str, str], Published] = {}
        for part in (item, *data.ancestors(item, published)):
            for warning in warnings_of(part):
                # Later parts lie deeper; that a check failed is of each part alone.
                origins[warning, part.identifier if warning == FAILED else ""] = part
        for (warning, _), part in origins.items():
            known = found.setdefault((part.kind, part.identifier, warning), (part, warning, []))
            if part is not item:
                known[2].append(item)
    told = [Concern(part, w, w == FAILED or is_severe(w), tuple(rests)) for part, w, rests in found.values()]
    return sorted(told, key=lambda concern: (not concern.severe, _telling(concern.item.kind)))


def warnings_of(item: Published) -> tuple[str, ...]:
    """Its own warnings, and that it failed its checks if it did."""
    return (*((FAILED,) if item.summary.get("passed") is False else ()), *item.warnings)


def short(found: Sequence[Concern], each: int, most: int) -> tuple[list[Concern], Counter[str]]:
    """A short list: at most ``each`` of a kind and ``most`` in all; and of each kind how many are left out."""
    shown: list[Concern] = []
    of_kind, left = Counter[str](), Counter[str]()
    for concern in found:
        if len(shown) < most and of_kind[concern.item.kind] < each:
            shown.append(concern)
            of_kind[concern.item.kind] += 1
        else:
            left[concern.item.kind] += 1
    return shown, left


def _telling(kind: str) -> int:
    return _TELLING.index(kind) if kind in _TELLING else len(_TELLING)


# --- scans --------------------------------------------------------------------------------------


def is_simulated(scan: Published) -> bool:
    """Whether a published scan was made from a forged sample rather than measured."""
    inputs = scan.provenance.get("inputs")
    return "sample" in scan.sources or (isinstance(inputs, Mapping) and "labels" in inputs)


def scans_in(here: data.Listing, inbox: Sequence[Entry] = ()) -> list[Entry]:
    """The measured scans among ``here``, and what validation had to say."""
    found = []
    for scan in here.of("scans").items:
        if is_simulated(scan):
            continue
        reasons = "; ".join(scan.warnings)
        failed = scan.summary.get("passed") is False
        state = FAILED_CHECKS if failed else WARNED if reasons else PASSED
        found.append(Entry(scan.title, state, reasons, "", True, scan))
    return by_state([*found, *inbox])


def inbox_reports(published: data.Listing, span: Span) -> list[tuple[Published, Published | None]]:
    """Of each inbox the newest report by the end of the span, and the newest before its beginning, if any.

    A report is a state of the inbox; one that is like an earlier one is not published again.
    """
    by_inbox: dict[str, list[tuple[datetime.datetime, Published]]] = {}
    for report in published.of("ingests").items:
        time = published_at(report)
        if time is not None and (span.end is None or time <= span.end):
            by_inbox.setdefault(report.identifier.rpartition("-")[0], []).append((time, report))
    found = []
    for reports in by_inbox.values():
        reports.sort(key=lambda pair: pair[0])
        before = [report for time, report in reports if time < span.start]
        newest = reports[-1][1]
        earlier = before[-1] if before else None
        found.append((newest, None if earlier is newest else earlier))
    return found


def waiting(
    reports: Iterable[tuple[Published, Published | None]], span: Span, read: Read
) -> tuple[list[Entry], list[Published]]:
    """Entries of the inboxes that are no scan, and the reports whose table cannot be read."""
    found, damaged = [], []
    for newest, before in reports:
        rows = _rows(read(newest))
        if rows is None:
            damaged.append(newest)
            continue
        fresh = span.holds(published_at(newest))
        stood = {
            (row["entry"], row["state"], row["reason"])
            for row in _rows(read(before) if before else None) or ()
        }
        for row in rows:
            if row["state"] in WAITING:
                reason = row["reason"] or (
                    f"the same as {row['duplicate_of']}" if row["duplicate_of"] else ""
                )
                new = fresh and (row["entry"], row["state"], row["reason"]) not in stood
                found.append(Entry(row["entry"], row["state"], reason, row["remedy"], new, newest))
    return by_state(found), damaged


def by_state(entries: Iterable[Entry]) -> list[Entry]:
    """The worst first, of those the new ones."""
    order = {state: n for n, state in enumerate(STATES)}
    return sorted(entries, key=lambda entry: (order.get(entry.state, len(order)), not entry.new))


def _rows(frame: pd.DataFrame | None) -> list[dict[str, str]] | None:
    """The rows of an inbox report's table as texts, None if there is none or it is another table."""
    names = ("entry", "state", "reason", "remedy", "duplicate_of")
    if frame is None or not {"entry", "state"} <= set(frame.columns):
        return None
    kept = frame.reindex(columns=list(names)).fillna("").astype(str)
    return [{str(name): value for name, value in row.items()} for row in kept.to_dict("records")]


# --- runs ---------------------------------------------------------------------------------------


def flow_runs(here: data.Listing) -> list[list[Published]]:
    """The results of each flow run, the run with the newest result first."""
    found: dict[tuple[str, str], list[Published]] = {}
    for item in here.items:
        name = str(item.run.get("flow_run") or "")
        found.setdefault((name, str(item.run.get("flow_run_id") or "") if name else ""), []).append(item)
    return list(found.values())


def foremost(results: Sequence[Published]) -> Published:
    """The one of a run's results that people ask for first; of several the newest."""
    return min(results, key=lambda item: _telling(item.kind))


def decisions(here: data.Listing) -> Counter[str]:
    """How many models were promoted, refused, rolled back."""
    return Counter(str(item.summary.get("decision") or "unknown") for item in here.of("promotions").items)


def champion(published: data.Listing) -> Published | None:
    """The newest published decision that made a model champion."""
    made = [
        i
        for i in published.of("promotions").items
        if i.summary.get("decision") in ("promoted", "rolled back")
    ]
    return max(made, key=lambda item: str(item.summary.get("decided_at") or ""), default=None)


def per_hour(
    here: data.Listing, kinds: Mapping[str, str], span: Span, now: datetime.datetime
) -> pd.DataFrame:
    """How many results were published in each hour (day, if the span is longer than HOURLY): moment, what, count.

    kinds : kind → what it is called.
    """
    end = span.end or now
    step = "h" if end - span.start <= HOURLY else "D"
    dated = [(published_at(item), kinds[item.kind]) for item in here.items if item.kind in kinds]
    frame = pd.DataFrame(dated, columns=["moment", "what"])
    frame["moment"] = pd.to_datetime(frame["moment"], utc=True).dt.floor(step)
    return frame.groupby(["moment", "what"], as_index=False).size().rename(columns={"size": "count"})
