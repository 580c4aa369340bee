"""The night: what falls into a range of time, what is told first, and that nothing outside is needed for it."""

import datetime
import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import data, flow_runs, night, view
from tomoforge.results import Published, Table, publish, read_published

NOW = datetime.datetime(2026, 3, 2, 8, 0, tzinfo=datetime.UTC)
RUN_ID = "0b8ac6a2-6a0e-4e08-8bd4-3b7a9f6d1c11"
PAGES = ("night", "run", "scan", "forge", "models", "absorption", "annotate")


@pytest.fixture
def root(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty published folder at eight in the morning of the second of March."""
    monkeypatch.setattr("dashboard.night.clock", lambda: NOW)
    return workspace / "published"


def put(root: Path, kind: str, name: str, hours_ago: float, **more: Any) -> Path:
    """Publish something so many hours before eight."""
    time = (NOW - datetime.timedelta(hours=hours_ago)).isoformat()
    run = {"published_at": time, **more.pop("run", {})}
    more = {"title": name, "summary": {}, **more}
    return publish(root, kind, name, run=run, **more)


def report(root: Path, version: str, hours_ago: float, states: Mapping[str, str], inbox: str = "a") -> Path:
    """An inbox report: entry → state."""
    rows = [
        {
            "entry": entry,
            "state": state,
            "reason": f"{entry} has a reason" if state != "imported" else "",
            "remedy": "do something" if state == "quarantined" else "",
            "duplicate_of": "",
        }
        for entry, state in states.items()
    ]
    tables = {"entries": Table(pd.DataFrame(rows), "Every entry.")}
    warnings = [f"{entry} is quarantined" for entry, state in states.items() if state == "quarantined"]
    return put(root, "ingests", f"inbox-{inbox}-{version}", hours_ago, tables=tables, warnings=warnings)


def open_page(app: Path, page: str = "night", **address: str) -> AppTest:
    """One page, drawn to its end."""
    at = AppTest.from_file(app, default_timeout=60)
    if page != "night":
        at.switch_page(f"stages/{page}.py")
    for name, value in address.items():
        at.query_params[name] = value
    at.run()
    assert not at.exception
    assert not any("could not be drawn" in box.value for box in at.error)
    return at


def said(at: AppTest) -> str:
    """All text of the page without escapes."""
    boxes = (*at.error, *at.warning, *at.info, *at.success, *at.markdown, *at.caption, *at.subheader)
    return "\n".join(box.value for box in boxes).replace("\\", "").replace("\u2060", "")


def tiles(at: AppTest) -> dict[str, str]:
    """Name of each tile → its number, and what is new in brackets."""
    return {tile.label: f"{tile.value} ({tile.delta})" if tile.delta else tile.value for tile in at.metric}


def table(at: AppTest, column: str) -> pd.DataFrame:
    """The first table that has this column."""
    return next(box.value for box in at.dataframe if column in box.value.columns)


def names(items: Sequence[Published]) -> list[str]:
    return [item.identifier for item in items]


# --- the range ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "start", "end", "refused"),
    [
        ({}, "2026-03-01T08:00", None, False),
        ({"hours": "72"}, "2026-02-27T08:00", None, False),
        ({"hours": "1"}, "2026-03-02T07:00", None, False),
        (
            {"from": "2026-02-01T18:00", "to": "2026-02-02T08:00"},
            "2026-02-01T18:00",
            "2026-02-02T08:00",
            False,
        ),
        (
            {"from": "2026-02-01T18:00+02:00", "to": "2026-02-02"},
            "2026-02-01T16:00",
            "2026-02-02T00:00",
            False,
        ),
        ({"from": "2026-03-01T20:00"}, "2026-03-01T20:00", "2026-03-02T08:00", False),
        ({"from": "2026-03-02", "to": "2026-03-01"}, "2026-03-01T08:00", None, True),
        ({"to": "2026-03-01"}, "2026-03-01T08:00", None, True),
        ({"from": "../../etc", "to": "x"}, "2026-03-01T08:00", None, True),
        ({"from": "0001-01-01T00:00+14:00", "to": "2026-03-01"}, "2026-03-01T08:00", None, True),
        ({"hours": "0"}, "2026-03-01T08:00", None, True),
        ({"hours": "-5"}, "2026-03-01T08:00", None, True),
        ({"hours": "²"}, "2026-03-01T08:00", None, True),
        ({"hours": "9" * 5000}, "2026-03-01T08:00", None, True),
    ],
)
def test_asked__reads_the_address_or_says_that_it_cannot(
    address: dict[str, str], start: str, end: str | None, refused: bool
) -> None:
    asked = night.asked(address, NOW)
    assert asked.span == night.Span(
        datetime.datetime.fromisoformat(f"{start}:00+00:00"),
        datetime.datetime.fromisoformat(f"{end}:00+00:00") if end else None,
    )
    assert bool(asked.refused) is refused


def test_within__both_ends_belong_to_it_and_the_last_hours_have_no_end(root: Path) -> None:
    for name, hours in (("old", 24.01), ("first", 24), ("last", 0), ("fast-clock", -0.2)):
        put(root, "runs", name, hours)
    publish(root, "runs", "timeless", title="", summary={}, run={"published_at": "soon"})
    published = data.listing()
    assert names(night.within(published, night.asked({}, NOW).span).items) == ["fast-clock", "last", "first"]
    closed = night.Span(NOW - datetime.timedelta(hours=24), NOW)
    assert names(night.within(published, closed).items) == ["last", "first"]
    assert night.timeless(published) == 1
    assert names([night.newest_before(published, closed.start)]) == ["old"]


# --- what to distrust ---------------------------------------------------------------------------


def test_concerns__are_told_where_they_began_and_once(root: Path) -> None:
    outside = "outside the training domain: µ"
    put(root, "scans", "s", 30, warnings=["the beam drifted"], summary={"passed": False})
    put(root, "volumes", "v", 20, sources={"scan": "s"})
    put(root, "segmentations", "g", 10, warnings=[outside], sources={"volume": "v"})
    put(root, "runs", "r", 9, warnings=[outside], sources={"segmentation": "g", "scan": "s"})
    put(root, "runs", "elsewhere", 30, warnings=["of an earlier night"])
    put(root, "ingests", "inbox-1", 5, warnings=["x is quarantined"])
    published = data.listing()
    found = night.concerns(night.within(published, night.asked({}, NOW).span), published)
    assert [(c.item.identifier, c.severe, sorted(names(c.rests))) for c in found] == [
        ("g", True, ["r"]),
        ("s", True, ["g", "r", "v"]),  # that its checks failed; made before, new results rest on it
        ("s", False, ["g", "r", "v"]),
    ]


def test_short__keeps_to_a_few_of_each_kind_and_counts_the_rest(root: Path) -> None:
    for n in range(6):
        put(root, "volumes", f"v{n}", 1, warnings=[f"warning {n}"])
        put(root, "scans", f"s{n}", 1, warnings=[f"warning {n}"])
    published = data.listing()
    shown, left = night.short(night.concerns(published, published), each=3, most=4)
    assert [c.item.kind for c in shown] == ["volumes"] * 3 + ["scans"]
    assert left == {"volumes": 3, "scans": 5}


# --- scans and the inbox ------------------------------------------------------------------------


def test_scans__measured_ones_by_what_validation_said_and_simulated_ones_apart(root: Path) -> None:
    put(root, "scans", "fine", 1)
    put(root, "scans", "warned", 1, warnings=["the beam drifted"])
    put(root, "scans", "bad", 1, summary={"passed": False})
    put(root, "scans", "forged", 1, sources={"sample": "x"})
    put(root, "scans", "forged-too", 1, provenance={"inputs": {"labels": {"key": "sample-1"}}})
    found = night.scans_in(data.listing())
    assert [(entry.name, entry.state) for entry in found] == [
        ("bad", night.FAILED_CHECKS),
        ("warned", night.WARNED),
        ("fine", night.PASSED),
    ]


def test_waiting__what_is_new_is_what_the_last_report_before_the_night_did_not_say(root: Path) -> None:
    report(root, "1", 60, {"gone": "quarantined", "old": "quarantined"})
    report(root, "2", 30, {"old": "quarantined", "scan": "deferred"})
    report(root, "3", 10, {"old": "quarantined", "scan": "deferred", "soon": "deferred"})
    report(root, "4", 5, {"old": "quarantined", "scan": "imported", "new": "quarantined", "soon": "failed"})
    report(root, "9", 90, {"elsewhere": "failed"}, inbox="b")
    published, span = data.listing(), night.asked({}, NOW).span
    reports = night.inbox_reports(published, span)
    assert sorted((n.identifier, b.identifier if b else None) for n, b in reports) == [
        ("inbox-a-4", "inbox-a-2"),
        ("inbox-b-9", None),
    ]
    found, damaged = night.waiting(reports, span, lambda item: data.read_table(item, "entries"))
    assert damaged == []
    assert {(entry.name, entry.state, entry.new) for entry in found} == {
        ("new", "quarantined", True),
        ("old", "quarantined", False),
        ("soon", "failed", True),
        ("elsewhere", "failed", False),
    }
    assert [entry.state for entry in found] == sorted([e.state for e in found], key=night.STATES.index)


def test_waiting__a_table_that_is_damaged_or_of_another_shape_is_said(root: Path) -> None:
    report(root, "1", 5, {"x": "quarantined"})
    published, span = data.listing(), night.asked({}, NOW).span
    reports = night.inbox_reports(published, span)
    for frame in (None, pd.DataFrame({"a": [1]})):
        found, damaged = night.waiting(reports, span, lambda item, frame=frame: frame)
        assert found == [] and names(damaged) == ["inbox-a-1"]
    odd = pd.DataFrame({"entry": [1, None], "state": ["quarantined", None]})
    found, damaged = night.waiting(reports, span, lambda item: odd)
    assert [(e.name, e.state, e.reason) for e in found] == [("1.0", "quarantined", "")] and not damaged


def test_inbox_reports__of_a_past_range_know_nothing_of_later_ones(root: Path) -> None:
    report(root, "1", 60, {"x": "deferred"})
    report(root, "2", 5, {"x": "quarantined"})
    span = night.Span(NOW - datetime.timedelta(hours=72), NOW - datetime.timedelta(hours=48))
    assert [(n.identifier, b) for n, b in night.inbox_reports(data.listing(), span)] == [("inbox-a-1", None)]


# --- the page -----------------------------------------------------------------------------------


@pytest.fixture
def busy(root: Path) -> Path:
    """A night with something of everything."""
    made = {"flow": "ingest-beamline", "flow_run": "tidy-owl", "flow_run_id": RUN_ID}
    report(root, "1", 40, {"old.nxs": "quarantined"})
    report(root, "2", 2, {"old.nxs": "quarantined", "new.nxs": "quarantined", "wait.nxs": "deferred"})
    put(root, "scans", "scan-1", 3, run=made)
    put(root, "scans", "scan-2", 3, warnings=["the beam drifted by 4.1 %"], run=made)
    put(root, "scans", "scan-0", 50)
    put(root, "segmentations", "seg-1", 2, warnings=["outside the training domain: µ"])
    put(root, "absorption", "abs-1", 2, sources={"segmentation": "seg-1"}, summary={"reflections": 540})
    reason = "crystal changes by -3.00 points"
    put(
        root,
        "nights",
        "night-1",
        1,
        title="Night 1: the champion stays",
        summary={"outcome": "refused", "reason": reason, "new_cases": 4},
    )
    refused = {"decision": "refused", "model": "model-2", "decided_by": "nightly_retrain"}
    put(root, "promotions", "d-2", 1, title="Refused model-2", summary=refused, warnings=[reason])
    promoted = {"decision": "promoted", "model": "model-1", "decided_at": "2026-02-01T00:00:00+00:00"}
    put(root, "promotions", "d-1", 700, title="Promoted model-1", summary=promoted)
    return root


def test_night__red_things_come_first_then_counts_then_tables(app: Path, busy: Path) -> None:
    at = open_page(app)
    assert "2 things are not to be used unseen" in at.error[0].value  # seg-1, and new.nxs
    text = said(at)
    assert "new.nxs** was quarantined: new.nxs has a reason. Do something." in text
    assert "seg-1**: outside the training domain: µ. 1 absorption correction rests on it." in text
    assert "old.nxs** was" not in text
    kinds = [element.type for element in at.main]
    assert kinds.index("error") < kinds.index("metric") < kinds.index(at.dataframe[0].type)
    assert tiles(at) == {
        "Scans in": "2",
        "Passed": "1",
        "Warned": "1",
        "Deferred": "1 (1 new)",
        "Quarantined": "2 (1 new)",
        "Failed": "0",
        "Runs": "1",
        "Volumes": "0",
        "Segmented": "1",
        "Corrected": "1",
        "Promoted": "0",
        "Refused": "1",
    }
    scans = table(at, "what to do")
    assert scans["scan"].tolist() == ["new.nxs", "old.nxs", "scan-2", "wait.nxs", "scan-1"]
    assert scans["new"].tolist() == ["yes", "no", "yes", "yes", "yes"]
    assert table(at, "outcome")["reason"].tolist() == ["crystal changes by -3.00 points"]
    assert table(at, "decision")["grounds"].tolist() == ["crystal changes by -3.00 points"]
    assert table(at, "distrust")["distrust"].tolist() == ["outside the training domain: µ"]
    assert "Champion by the published decisions: model-1, since 2026-02-01 00:00 UTC" in text
    assert len(at.get("download_button")) == len(at.dataframe) == 6


def test_night__links_lead_to_the_pages_and_to_prefect(
    app: Path, busy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = table(open_page(app), "flow run").set_index("flow run")
    assert runs.loc["tidy-owl", "Prefect"] == f"http://127.0.0.1:4200/runs/flow-run/{RUN_ID}"
    assert runs.loc["tidy-owl", "page"] == "scan?kind=scans&item=scan-2"
    monkeypatch.setenv("TOMOFORGE_PREFECT_UI", "https://prefect.example.org/ui/")
    at = open_page(app)
    address = f"https://prefect.example.org/ui/runs/flow-run/{RUN_ID}"
    assert table(at, "flow run").set_index("flow run").loc["tidy-owl", "Prefect"] == address
    assert "must be up" in said(at)
    assert "https://prefect.example.org/ui/runs" in [link.proto.page for link in at.get("page_link")]
    monkeypatch.setenv("TOMOFORGE_PREFECT_UI", "javascript:alert(1)")
    at = open_page(app)
    assert "TOMOFORGE_PREFECT_UI is not an http address" in said(at)
    assert (table(at, "flow run")["Prefect"] == "").all()


@pytest.mark.parametrize("identifier", [None, "", "../x", "[x](y)", 3, {"a": 1}])
def test_run_address__is_made_of_a_uuid_alone(identifier: object) -> None:
    assert flow_runs.run_address({"flow_run_id": identifier}) is None


def test_page_address__quotes_what_stands_in_it(root: Path) -> None:
    item = read_published(put(root, "runs", "r", 1))
    odd = Published(**{**item.__dict__, "kind": "scans", "identifier": "a&b=c/../d"})
    assert view.page_address(odd) == "scan?kind=scans&item=a%26b%3Dc%2F..%2Fd"
    assert view.page_address(Published(**{**item.__dict__, "kind": "unheard-of"})) is None


def test_night__a_deep_link_shows_that_range_and_the_controls_write_it(app: Path, busy: Path) -> None:
    at = open_page(app, **{"from": "2026-02-28T00:00", "to": "2026-02-28T12:00"})
    assert tiles(at)["Scans in"] == "1"
    assert [box.label for box in at.get("datetime_input")] == ["From [UTC]", "To [UTC]"]
    assert "2026-02-28 00:00 UTC to 2026-02-28 12:00 UTC" in said(at)
    at = open_page(app, hours="72")
    assert tiles(at)["Scans in"] == "3"
    at = open_page(app, hours="5")
    assert tiles(at)["Scans in"] == "2"
    at = open_page(app, hours="many")
    assert "cannot be understood" in at.warning[0].value and tiles(at)["Scans in"] == "2"


def test_night__choosing_a_range_writes_the_address(app: Path, busy: Path) -> None:
    at = open_page(app)
    at.button_group[0].set_value([72] if isinstance(at.button_group[0].value, list) else 72).run()
    assert at.query_params["hours"] in ("72", ["72"])
    assert tiles(at)["Scans in"] == "3"


def test_night__an_address_of_a_run_from_before_leads_to_the_runs(app: Path, example: Path) -> None:
    at = open_page(app, run="end_to_end-1")
    assert at.header[0].value == "Runs"
    assert at.subheader[0].value == "Demo of yesterday"


def test_night__empty_says_so_and_what_is_older(app: Path, root: Path) -> None:
    put(root, "scans", "scan-1", 100)
    at = open_page(app)
    assert "Nothing was published in this time" in at.info[0].value
    assert "2026-02-26 04:00 UTC" in said(at)
    assert tiles(at)["Scans in"] == "0" and tiles(at)["Quarantined"] == "–"
    assert "No inbox report was published" in said(at)
    links = [link.proto for link in at.get("page_link")]
    assert any("item=scan-1" in link.query_string for link in links)
    back = next(link for link in links if "from=" in link.query_string)
    assert "to=2026-02-26T04%3A00" in back.query_string


def test_night__quiet_inbox_still_tells_what_stands_in_it(app: Path, root: Path) -> None:
    report(root, "1", 100, {"old.nxs": "quarantined"})
    at = open_page(app)
    assert tiles(at)["Quarantined"] == "1"
    assert table(at, "what to do")["new"].tolist() == ["no"]
    assert "has not changed in this time; its report is of 2026-02-26 04:00 UTC" in said(at)


def test_night__a_damaged_inbox_table_is_said(app: Path, root: Path) -> None:
    (report(root, "1", 1, {"x": "quarantined"}) / "entries.parquet").write_bytes(b"PAR1")
    assert "The table of the inbox report inbox-a-1 cannot be read" in said(open_page(app))


def test_night__odd_values_in_manifests_do_no_harm(app: Path, root: Path) -> None:
    odd = {"decision": ["x"], "outcome": {"a": 1}, "reason": 7, "iou_crystal_champion": "high", "began": []}
    for kind in ("nights", "promotions", "absorption", "scans", "runs", "unheard-of"):
        put(root, kind, "odd", 1, summary=odd, provenance={"inputs": 3}, run={"flow_run": ["a"], "flow": 3})
        put(root, kind, "plain", 1, summary={"iou_crystal_champion": 0.9, "reflections": 3})
    open_page(app)


# --- the runs page ------------------------------------------------------------------------------


def test_run_page__shows_nights_and_reports_of_the_inbox_too(app: Path, busy: Path) -> None:
    at = open_page(app, "run", kind="nights", item="night-1")
    assert "Night 1: the champion stays" in said(at)
    at = open_page(app, "run", kind="ingests", item="inbox-a-2")
    assert table(at, "remedy")["entry"].tolist() == ["old.nxs", "new.nxs", "wait.nxs"]
    at = open_page(app, "run", kind="runs")
    assert "make demo" in at.info[0].value
    assert "not published here" in said(open_page(app, "run", run="no-such"))
    put(busy, "runs", "r", 1, run={"flow_run": "tidy-owl", "flow_run_id": RUN_ID})
    at = open_page(app, "run", run="r")
    assert f"/runs/flow-run/{RUN_ID}" in " ".join(link.proto.page for link in at.get("page_link"))
    assert "if its server is up" in said(at)


# --- what can go wrong beneath ------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_page__opens_no_connection(
    app: Path, example: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[object] = []

    def refuse(self: socket.socket, address: object, *rest: object) -> None:
        wanted.append(address)
        raise ConnectionRefusedError(111, "nobody is there")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    open_page(app, page)
    assert wanted == []


@pytest.mark.parametrize("page", PAGES)
def test_page__does_without_a_readable_registry(app: Path, example: Path, page: str) -> None:
    def text() -> str:
        return re.sub(r"\d\d:\d\d UTC", "", said(open_page(app, page)))  # a minute may pass between the two

    without = text()
    registry = example.parent / "registry"
    registry.mkdir()
    (registry / "registry.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 200)
    assert without and text() == without
    assert page != "models" or "the registry is not asked" in without


def test_listing__unreadable_permissions_are_one_entry_with_the_reason(
    app: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused by hand: the superuser, who may run the tests, may read everything."""
    put(root, "runs", "fine", 1)
    put(root, "runs", "closed", 1)
    put(root, "scans", "hidden", 1)
    refuse(monkeypatch, "os.scandir", str(root / "scans"))
    refuse(monkeypatch, "pathlib.Path.read_text", str(root / "runs" / "closed" / "manifest.json"))
    found = data.listing()
    assert names(found.items) == ["fine"]
    reasons = {entry.folder.name: entry.reason for entry in found.unreadable}
    assert reasons == {
        "scans": "the folder cannot be looked into: permission denied",
        "closed": "the manifest of closed cannot be read: permission denied",
    }
    assert [entry.folder.name for entry in found.of("scans").unreadable] == ["scans"]
    assert str(root) not in said(open_page(app)).replace("\\", "")


def refuse(monkeypatch: pytest.MonkeyPatch, function: str, place: str) -> None:
    """Make a function of the file system refuse one place."""
    owner, _, name = function.rpartition(".")
    module, _, class_name = owner.partition(".")
    target = getattr(__import__(module), class_name) if class_name else __import__(module)
    real = getattr(target, name)

    def refusing(path: object = ".", *arguments: Any, **options: Any) -> Any:
        if str(path) == place:
            raise PermissionError(13, "Permission denied", place)
        return real(path, *arguments, **options)

    monkeypatch.setattr(target, name, refusing)


def test_listing__a_folder_that_vanishes_while_it_is_read_is_left_out(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root, "runs", "fine", 1)
    going = put(root, "runs", "going", 1)
    real = Path.read_text

    def vanish(path: Path, *arguments: Any, **options: Any) -> str:
        if path.parent == going:
            for file in going.iterdir():
                file.unlink()
            going.rmdir()
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", vanish)
    found = data.listing()
    assert names(found.items) == ["fine"] and not found.unreadable


def test_listing__a_manifest_changed_while_it_was_read_is_read_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = put(root, "runs", "r", 1, title="before") / "manifest.json"
    text, real = manifest.read_text(), Path.read_text

    def change(path: Path, *arguments: Any, **options: Any) -> str:
        read = real(path, *arguments, **options)
        if path == manifest:
            manifest.write_text(text.replace("before", "afterwards"))
        return read

    monkeypatch.setattr(Path, "read_text", change)
    assert [item.title for item in data.listing().items] == ["before"]
    monkeypatch.setattr(Path, "read_text", real)
    assert [item.title for item in data.listing().items] == ["afterwards"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "cannot be read"),
        ("{", "cannot be read: it is cut short or damaged"),
        ('"text"', "manifest version"),
    ],
)
def test_listing__hopeless_manifests_are_entries_with_a_reason(root: Path, text: str, reason: str) -> None:
    (put(root, "runs", "r", 1) / "manifest.json").write_text(text)
    (entry,) = data.listing().unreadable
    assert reason in entry.reason


def test_listing__letters_that_cannot_be_sent_are_refused(app: Path, root: Path) -> None:
    manifest = put(root, "runs", "r", 1) / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "title": "\ud800"}))
    (root / "runs" / "odd\udcff").mkdir()
    assert len(data.listing().unreadable) == 2
    open_page(app)


def test_listing__a_pipe_for_a_manifest_is_not_waited_for(root: Path) -> None:
    (root / "runs" / "pipe").mkdir(parents=True)
    os.mkfifo(root / "runs" / "pipe" / "manifest.json")
    assert [entry.reason for entry in data.listing().unreadable] == ["the manifest of pipe is no file"]


def test_listing__is_the_same_object_until_something_changes(root: Path) -> None:
    put(root, "runs", "a", 1)
    (root / "runs" / "half").mkdir()
    first = data.listing()
    assert data.listing() is first
    put(root, "runs", "b", 1)
    assert names(data.listing().items) == ["b", "a"]
