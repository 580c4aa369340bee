"""The inbox: what is an entry, when it has settled, what is not read at all, and what is remembered."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
import tifffile

from tests.library.beamline.inbox_files import tiny_scan, tree
from tomoforge.beamline import inbox as box
from tomoforge.beamline import survey as surveying
from tomoforge.beamline.findings import Refused
from tomoforge.beamline.inbox import entries, find_parts, links_of, look, open_for_writing, unsettled
from tomoforge.beamline.ledger import MOST_TRIES, CompanionOutcome, Ledger, Outcome, identifier_of
from tomoforge.beamline.survey import Given, Survey, begin, survey

SETTINGS = "s"
FRAMES = "instrument/detector/data"


class Clock:
    """A clock of the test's own; files have the real time, so ``at(0)`` is now."""

    def __init__(self, offset: float = 1000.0) -> None:
        self.offset = offset

    def __call__(self) -> float:
        return self.real() + self.offset

    @staticmethod
    def real() -> float:
        return time.time()


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger", tmp_path / "quarantine", "inbox")


def seen(
    inbox: Path,
    ledger: Ledger,
    later_s: float = 1000.0,
    given: Given | None = None,
    settings: str = SETTINGS,
    fatal: Mapping[Path, str] | None = None,
) -> Survey:
    return survey(
        inbox,
        ledger,
        given or Given(),
        settings,
        settle_s=60.0,
        trial=lambda files, folder: fatal or {},  # a process of its own costs seconds
        now=Clock(later_s),
    )


def rule_of(outcome: Outcome) -> str:
    return outcome.findings[0].rule


def reasons(ledger: Ledger) -> dict[str, str]:
    """Rule by path of every reason in the quarantine."""
    found = {}
    for path in ledger.quarantine.glob("*/reason.json"):
        content = json.loads(path.read_text())
        found[content["path"]] = content["rule"]
    return found


# --- entries and snapshots ------------------------------------------------------------------------------


def test_entries__hidden_and_temporary_names_are_passed_over(inbox: Path) -> None:
    for name in ("b.nxs", "a.nxs", ".hidden", "c.nxs.part", "d.tmp", "e~", "#f#", "g.h5.filepart"):
        (inbox / name).touch()
    (inbox / "folder").mkdir()
    assert [path.name for path in entries(inbox)] == ["a.nxs", "b.nxs", "folder"]
    assert entries(inbox / "nowhere") == []


def test_look__fingerprint_follows_names_sizes_and_times_not_reading(inbox: Path) -> None:
    folder = inbox / "scan"
    folder.mkdir()
    (folder / "a").write_bytes(b"1234")
    first = look(folder, inbox)
    assert first.files == {"scan/a": 4}
    (folder / "a").read_bytes()
    assert look(folder, inbox).fingerprint == first.fingerprint
    os.utime(folder / "a", ns=(1, 1))
    second = look(folder, inbox)
    (folder / "a").write_bytes(b"12345")
    third = look(folder, inbox)
    (folder / "a").rename(folder / "b")
    assert len({s.fingerprint for s in (first, second, third, look(folder, inbox))}) == 4


def test_unsettled__by_newest_change_or_by_memory(inbox: Path) -> None:
    (inbox / "a").write_bytes(b"1")
    snapshot = look(inbox / "a", inbox)
    assert unsettled(snapshot, snapshot.newest + 59, 60, None).rule == "still being written"
    assert unsettled(snapshot, snapshot.newest + 60, 60, None) is None
    assert unsettled(snapshot, snapshot.newest, 0, None) is None
    # A writer whose clock is an hour ahead: only this machine's memory of the fingerprint counts.
    now = snapshot.newest - 3600
    assert "future" in unsettled(snapshot, now, 60, None).reason
    assert unsettled(snapshot, now, 60, now - 59) is not None
    assert unsettled(snapshot, now, 60, now - 60) is None


def test_unsettled__a_temporary_file_in_a_folder_is_a_copy_under_way(inbox: Path) -> None:
    (inbox / "scan").mkdir()
    (inbox / "scan" / "a.h5.part").write_bytes(b"1")
    snapshot = look(inbox / "scan", inbox)
    assert unsettled(snapshot, snapshot.newest + 1e6, 60, None).rule == "still being copied"


@pytest.mark.parametrize("kind", ["outside", "broken", "folder", "pipe", "sparse"])
def test_look__what_is_not_read(inbox: Path, tmp_path: Path, kind: str) -> None:
    place = inbox / "entry.nxs"
    rules = {
        "outside": "path leaves the inbox",
        "broken": "broken link",
        "folder": "link to a folder",
        "pipe": "special file",
        "sparse": "sparse claim",
    }
    if kind == "outside":
        (tmp_path / "secret").write_bytes(b"x")
        place.symlink_to("../secret")
    elif kind == "broken":
        place.symlink_to("nothing")
    elif kind == "folder":
        place.symlink_to(".")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        with open(place, "wb") as file:
            file.truncate(10_000_000_000)
    assert look(place, inbox).problem.rule == rules[kind]


def test_look__a_link_to_a_file_of_the_inbox_is_as_good_as_the_file(inbox: Path) -> None:
    (inbox / "a").write_bytes(b"1")
    (inbox / "b").symlink_to("a")
    snapshot = look(inbox / "b", inbox)
    assert snapshot.problem is None and snapshot.files == {"b": 1}
    (inbox / "a").write_bytes(b"12")
    assert look(inbox / "b", inbox).fingerprint != snapshot.fingerprint


# --- HDF5: what it points at, who has it open -----------------------------------------------------------


OUT = h5py.ExternalLink("../outside.h5", "/entry/instrument/detector/data")


class Opened(h5py.File):
    """Notes which files are opened."""

    names: ClassVar[list[str]] = []

    def __init__(self, name: object, *arguments: object, **options: object) -> None:
        Opened.names.append(str(name))
        super().__init__(name, *arguments, **options)


@pytest.mark.parametrize("kind", ["link", "blocked", "absolute", "raw", "virtual", "through"])
def test_survey__frames_outside_the_inbox_are_refused_and_not_opened(
    inbox: Path, ledger: Ledger, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tiny_scan(tmp_path / "outside.h5", 1)
    path = tiny_scan(inbox / "a.nxs", 1, **{FRAMES: None})
    if kind == "blocked":  # behind a user block, where a signature at the beginning is not found
        with h5py.File(path) as old, h5py.File(inbox / "b.nxs", "w", userblock_size=1024) as new:
            old.copy("entry", new)
        path = (inbox / "b.nxs").rename(path)
    with h5py.File(path, "a") as file:
        if kind == "absolute":
            file["entry"][FRAMES] = h5py.ExternalLink(str(outside), OUT.path)
        elif kind == "raw":
            size = outside.stat().st_size
            file["entry"].create_dataset(FRAMES, (31, 1, 8), "u1", external=[(str(outside), 0, size)])
        elif kind == "virtual":
            file["entry"].create_virtual_dataset(FRAMES, _layout("../outside.h5"))
        elif kind == "through":
            file["entry"][FRAMES] = h5py.ExternalLink("between.h5", "/x")
        else:
            file["entry"][FRAMES] = OUT
    if kind == "through":
        with h5py.File(inbox / "between.h5", "w") as file:
            file["x"] = OUT
    assert "outside.h5" not in links_of(path, inbox)
    Opened.names = []
    monkeypatch.setattr(h5py, "File", Opened)
    outcome = seen(inbox, ledger).outcomes["a.nxs"]
    assert outcome.state == "quarantined"
    assert rule_of(outcome) in ("path leaves the inbox", "missing files")
    assert Opened.names and "outside.h5" not in {Path(name).name for name in Opened.names}


def test_survey__links_that_are_not_needed_may_lead_anywhere(inbox: Path, ledger: Ledger) -> None:
    tiny_scan(
        inbox / "a.nxs", 1, **{"calibration": h5py.ExternalLink("/nowhere/2014/raw/calibration.h5", "/x")}
    )
    assert [ready.name for ready in seen(inbox, ledger).ready] == ["a.nxs"]


def _layout(name: str) -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((31, 12, 16), "u2")
    layout[:] = h5py.VirtualSource(name, OUT.path, (31, 12, 16))
    return layout


def test_links_of__names_what_lies_in_other_entries_missing_or_not(inbox: Path) -> None:
    (inbox / "data").mkdir()
    tiny_scan(inbox / "data" / "a.h5", 1)
    with h5py.File(inbox / "master.nxs", "w") as file:
        file["a"] = h5py.ExternalLink("data/a.h5", "/entry")
        file["b"] = h5py.ExternalLink("data/missing.h5", "/entry")
        file["here"] = h5py.SoftLink("/a")
    assert links_of(inbox / "master.nxs", inbox) == ("data/a.h5", "data/missing.h5")
    assert links_of(inbox / "data", inbox) == ()


def test_links_of__a_claim_that_was_never_written_is_refused(inbox: Path) -> None:
    with h5py.File(inbox / "a.h5", "w") as file:
        file.create_dataset("data", (2000, 2048, 1280), "u2", chunks=(1, 2048, 1280))
    with pytest.raises(Refused, match="unwritten claim"):
        links_of(inbox / "a.h5", inbox)


WRITER = """
import sys, time, h5py
file = h5py.File(sys.argv[1], "w", libver="latest")
file["a"] = 1
file.flush()
print("open", flush=True)
time.sleep(60)
"""


def test_open_for_writing__locked_by_a_writer_then_marked_by_a_dead_one(inbox: Path) -> None:
    path = inbox / "a.h5"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
    try:
        writer.stdout.readline()
        assert open_for_writing(path).rule == "locked for writing"
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    assert open_for_writing(path).rule == "open for writing"
    assert open_for_writing(tiny_scan(inbox / "b.h5", 1)) is None
    path.write_bytes(b"no HDF5")
    assert open_for_writing(path) is None


# --- which file is the scan -----------------------------------------------------------------------------


def test_find_parts__a_scan_among_its_companions(inbox: Path) -> None:
    folder = inbox / "sample"
    (folder / "labels").mkdir(parents=True)
    scan = tiny_scan(folder / "scan.h5", 1)
    for name in ("labels/0.tif", "truth.nrrd", "x.expt", "x.refl", "notes.txt", "mask.tif"):
        (folder / name).write_bytes(b"x")
    parts = find_parts(folder, inbox)
    assert parts.scan == scan
    assert [c.name for c in parts.companions] == ["labels", "mask.tif", "truth.nrrd", "x.expt", "x.refl"]


def test_find_parts__a_tiff_stack_is_its_folder(inbox: Path) -> None:
    folder = inbox / "stack"
    folder.mkdir()
    for n in range(3):
        tifffile.imwrite(folder / f"p{n}.tif", np.full((4, 4), n, np.uint16))
    with h5py.File(folder / "metadata.nxs", "w") as file:
        file["x"] = 1
    assert find_parts(folder, inbox).scan == folder


def test_find_parts__none_or_several_are_refused(inbox: Path) -> None:
    folder = inbox / "sample"
    folder.mkdir()
    (folder / "readme.txt").write_text("x")
    with pytest.raises(Refused, match="no scan"):
        find_parts(folder, inbox)
    tiny_scan(folder / "a.h5", 1)
    tiny_scan(folder / "b.h5", 2)
    with pytest.raises(Refused, match=r"one scan.*a.h5, b.h5"):
        find_parts(folder, inbox)
    (inbox / "notes.txt").write_text("x")
    with pytest.raises(Refused, match="folder of their own"):
        find_parts(inbox / "notes.txt", inbox)


# --- the survey -----------------------------------------------------------------------------------------


def test_survey__good_ones_are_ready_and_the_inbox_is_left_as_it_was(inbox: Path, ledger: Ledger) -> None:
    tiny_scan(inbox / "a.nxs", 1)
    tiny_scan(inbox / "b.nxs", 2)
    (inbox / "bad.nxs").write_bytes(b"\0" * 999)
    before = tree(inbox)
    found = seen(inbox, ledger)
    assert tree(inbox) == before
    assert [ready.name for ready in found.ready] == ["a.nxs", "b.nxs"]
    assert rule_of(found.outcomes["bad.nxs"]) == "readable file"
    assert reasons(ledger) == {"inbox/bad.nxs": "readable file"}
    # What was ready stays ready until somebody takes it in; what was refused is known.
    again = seen(inbox, ledger)
    assert [ready.name for ready in again.ready] == ["a.nxs", "b.nxs"] and again.known == 1


def test_survey__defers_what_changes_and_looks_again(
    inbox: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_scan(inbox / "a.nxs", 1)
    found = seen(inbox, ledger, later_s=10)
    assert found.outcomes["a.nxs"].state == "deferred" and not found.ready

    def read_and_grow(*arguments: object, **options: object) -> object:
        with open(path, "ab") as file:
            file.write(b"more")
        return examine(*arguments, **options)

    examine = surveying.examine_scan
    monkeypatch.setattr(surveying, "examine_scan", read_and_grow)
    assert rule_of(seen(inbox, ledger).outcomes["a.nxs"]) == "changed while read"
    monkeypatch.setattr(surveying, "examine_scan", examine)
    assert seen(inbox, ledger, later_s=2000).ready


def test_survey__a_file_from_the_future_settles_by_memory(inbox: Path, ledger: Ledger) -> None:
    path = tiny_scan(inbox / "a.nxs", 1)
    ahead = Clock.real() + 1e6
    os.utime(path, (ahead, ahead))
    for later, ready in ((0, False), (30, False), (61, True)):
        assert bool(seen(inbox, ledger, later_s=later).ready) == ready


def test_survey__a_truncated_scan_that_is_completed_leaves_the_quarantine(
    inbox: Path, ledger: Ledger
) -> None:
    path = tiny_scan(inbox / "a.nxs", 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert seen(inbox, ledger).outcomes["a.nxs"].state == "quarantined"
    assert reasons(ledger)
    path.write_bytes(whole)
    assert seen(inbox, ledger).ready
    ledger.settle(seen(inbox, ledger).ready[0].record, SETTINGS, Outcome("imported", scan="k"))
    assert reasons(ledger) == {}


def test_survey__settings_that_say_what_was_missing(inbox: Path, ledger: Ledger) -> None:
    tiny_scan(inbox / "a.nxs", 1, **{"beam/incident_energy": None})
    refused = seen(inbox, ledger).outcomes["a.nxs"]
    assert rule_of(refused) == "energy and pixel size given"
    ready = seen(inbox, ledger, given=Given(energy_kev=12.0), settings="with energy").ready
    assert ready and ready[0].name == "a.nxs"
    record = ledger.settle(ready[0].record, "with energy", Outcome("imported", scan="k"))
    # Both are remembered, and the ones that could not read it do not undo what the others did.
    assert record.outcomes[SETTINGS].state == "quarantined"
    assert seen(inbox, ledger, settings="third").outcomes["a.nxs"].state == "imported"
    assert reasons(ledger) == {}


def test_survey__known_entries_are_not_opened(
    inbox: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_scan(inbox / "a.nxs", 1)
    (ready,) = seen(inbox, ledger).ready
    ledger.settle(ready.record, SETTINGS, Outcome("imported", scan="k"))

    def opened(*arguments: object, **options: object) -> None:
        raise AssertionError("a known file was opened")

    for name in ("links_of", "hdf5_files", "find_parts", "examine_scan", "open_for_writing"):
        monkeypatch.setattr(surveying, name, opened)
    found = seen(inbox, ledger)
    assert found.known == 1 and found.outcomes["a.nxs"].state == "imported"


def test_survey__what_was_imported_and_is_gone_from_the_workspace_is_read_again(
    inbox: Path, ledger: Ledger
) -> None:
    tiny_scan(inbox / "a.nxs", 1)
    (ready,) = seen(inbox, ledger).ready
    ledger.settle(ready.record, SETTINGS, Outcome("imported", scan="k"))
    gone = survey(
        inbox, ledger, Given(), SETTINGS, settle_s=0, stands=lambda outcome: False, trial=lambda *_: {}
    )
    assert [r.name for r in gone.ready] == ["a.nxs"]


def test_survey__path_tricks_are_refused_unread(
    inbox: Path, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tiny_scan(tmp_path / "outside.nxs", 3)
    (inbox / "a.nxs").symlink_to(outside)
    with h5py.File(inbox / "b.nxs", "w") as file:
        file["entry"] = h5py.ExternalLink("../outside.nxs", "/entry")
    with open(inbox / "c.nxs", "wb") as file:
        file.truncate(10_000_000_000)
    Opened.names = []
    monkeypatch.setattr(h5py, "File", Opened)
    found = seen(inbox, ledger)
    assert {Path(name).name for name in Opened.names} == {"b.nxs"}
    assert {name: rule_of(outcome) for name, outcome in found.outcomes.items()} == {
        "a.nxs": "path leaves the inbox",
        "b.nxs": "path leaves the inbox",
        "c.nxs": "sparse claim",
    }
    assert len(reasons(ledger)) == 3


def test_survey__one_that_breaks_its_reader_does_not_stop_the_others(
    inbox: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_scan(inbox / "a.nxs", 1)
    tiny_scan(inbox / "b.nxs", 2)
    examine = surveying.examine_scan

    def broken(path: Path, **options: object) -> object:
        if Path(path).name == "a.nxs":
            raise ZeroDivisionError("deep in a library")
        return examine(path, **options)

    monkeypatch.setattr(surveying, "examine_scan", broken)
    for tries in range(1, MOST_TRIES + 1):
        found = seen(inbox, ledger)
        assert found.outcomes["a.nxs"].state == "failed" and found.outcomes["a.nxs"].tries == tries
        assert [ready.name for ready in found.ready] == ["b.nxs"]
    monkeypatch.setattr(surveying, "examine_scan", examine)
    assert seen(inbox, ledger).outcomes["a.nxs"].state == "failed"  # given up until it changes
    os.utime(inbox / "a.nxs", (1, 1))
    assert len(seen(inbox, ledger).ready) == 2


def test_survey__one_that_kills_its_reader_is_given_up(inbox: Path, ledger: Ledger) -> None:
    tiny_scan(inbox / "a.nxs", 1)
    (ready,) = seen(inbox, ledger).ready
    record = ready.record
    for _ in range(MOST_TRIES):  # each time the process died before it could say anything
        record = begin(ledger, record, SETTINGS)
    outcome = seen(inbox, ledger).outcomes["a.nxs"]
    assert outcome.state == "failed" and "without a word 3 times" in outcome.findings[0].reason


def test_survey__a_file_that_ends_the_process_is_never_opened_in_this_one(
    inbox: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_scan(inbox / "a.nxs", 1)
    for name in ("links_of", "find_parts", "examine_scan", "open_for_writing"):
        monkeypatch.setattr(surveying, name, lambda *a, **k: pytest.fail("it was opened"))
    outcome = seen(inbox, ledger, fatal={path: "opening it ends the process by SIGSEGV"}).outcomes["a.nxs"]
    assert rule_of(outcome) == "safe to open" and "SIGSEGV" in outcome.findings[0].reason


def test_survey__the_trial_is_of_new_files_only(inbox: Path, ledger: Ledger) -> None:
    path = tiny_scan(inbox / "a.nxs", 1)
    tried = []

    def trial(files: Sequence[Path], folder: Path) -> dict[Path, str]:
        tried.append((tuple(files), folder))
        return {}

    for _ in range(2):
        found = survey(inbox, ledger, Given(), SETTINGS, settle_s=0, trial=trial)
        if found.ready:
            ledger.settle(found.ready[0].record, SETTINGS, Outcome("imported", scan="k"))
    assert tried == [((path,), inbox)]
    (inbox / "bad.nxs").write_bytes(b"x")
    assert rule_of(survey(inbox, ledger, Given(), SETTINGS, settle_s=0).outcomes["bad.nxs"])


def test_survey__a_folder_that_a_scan_points_into_is_a_part_of_it(inbox: Path, ledger: Ledger) -> None:
    (inbox / "m").mkdir()
    with h5py.File(inbox / "m" / "frames.h5", "w") as file:
        file["data"] = np.zeros((2, 3, 4), np.uint16)
    tiny_scan(
        inbox / "m.nxs",
        1,
        **{"instrument/detector/extra": h5py.ExternalLink("m/frames.h5", "/data")},
    )
    found = seen(inbox, ledger)
    assert [ready.name for ready in found.ready] == ["m.nxs"]
    assert found.outcomes["m"].state == "part"
    assert reasons(ledger) == {}
    # The scan is as old as the youngest file it points at.
    with open(inbox / "m" / "frames.h5", "ab") as file:
        file.write(b"x")
    assert seen(inbox, ledger, later_s=30).outcomes["m.nxs"].state == "deferred"


def test_survey__real_scan_with_dangling_links(
    shared_data: Path, inbox: Path, ledger: Ledger, tmp_path: Path
) -> None:
    source = shared_data / "scans" / "diad_k11_18014"
    for file in source.rglob("*"):
        if file.is_file():
            target = inbox / file.relative_to(source)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes())
    found = seen(inbox, ledger, given=Given(energy_kev=20.0, pixel_size_um=5.0))
    assert found.outcomes["k11-18014"].state == "part"
    outcome = found.outcomes["k11-18014.nxs"]
    assert outcome.state == "quarantined" and rule_of(outcome) == "missing files"
    # Each by its name.
    for name in ("/entry/imaging/gts_theta_value_set", "/entry/imaging/LinkamTemp", "k11-18014-EtherCAT.h5"):
        assert name in outcome.findings[0].reason
    assert list(reasons(ledger)) == ["inbox/k11-18014.nxs"]


# --- the ledger -----------------------------------------------------------------------------------------


def test_ledger__records_survive_and_garbled_ones_are_found_out_again(inbox: Path, ledger: Ledger) -> None:
    (inbox / "a.nxs").write_bytes(b"x")
    seen(inbox, ledger)
    record = ledger.read("a.nxs")
    assert record is not None and ledger.records() == [record]
    path = ledger.folder / f"{record.identifier}.json"
    for garbled in (b"{", b"[]", b'{"version": 99}', b"\xff"):
        path.write_bytes(garbled)
        assert ledger.read("a.nxs") is None and ledger.records() == []
    assert seen(inbox, ledger).outcomes["a.nxs"].state == "quarantined"


def test_ledger__an_entry_that_was_taken_away_again_is_forgotten(inbox: Path, ledger: Ledger) -> None:
    (inbox / "a.nxs").write_bytes(b"x")
    seen(inbox, ledger)
    (inbox / "a.nxs").unlink()
    seen(inbox, ledger)
    assert ledger.records() == [] and reasons(ledger) == {}


def test_ledger__one_holder_at_a_time(ledger: Ledger) -> None:
    with ledger.held() as first, ledger.held() as second:
        assert first and not second
    with ledger.held() as third:
        assert third


def test_ledger__content_belongs_to_the_first_that_stands_by_it(inbox: Path, ledger: Ledger) -> None:
    for name in ("a.nxs", "b.nxs"):
        tiny_scan(inbox / name, 1)
    a, b = (ready.record for ready in seen(inbox, ledger).ready)
    assert ledger.claim("c", a) == "a.nxs"
    a = ledger.settle(a, SETTINGS, Outcome("imported", content="c", scan="k"))
    assert ledger.claim("c", b) == "a.nxs" and ledger.claim("c", a) == "a.nxs"
    ledger.settle(a, SETTINGS, Outcome("deferred"))  # it has become something else
    assert ledger.claim("c", b) == "b.nxs"


def test_ledger__a_companion_has_a_reason_of_its_own(inbox: Path, ledger: Ledger) -> None:
    tiny_scan(inbox / "a.nxs", 1)
    (ready,) = seen(inbox, ledger).ready
    finding = box.Finding("known labels", "it has 7", "renumber")
    refused = CompanionOutcome("a/labels.nrrd", "labels", None, finding)
    record = ledger.settle(ready.record, SETTINGS, Outcome("imported", scan="k", companions=(refused,)))
    assert reasons(ledger) == {"inbox/a/labels.nrrd": "known labels"}
    assert ledger.read("a.nxs") == record
    ledger.settle(record, SETTINGS, Outcome("imported", scan="k"))
    assert reasons(ledger) == {}


@pytest.mark.parametrize("name", ["a/b", "..", "", "ä ö", "x" * 300, "\udcff", "a\nb"])
def test_identifier_of__is_a_plain_file_name(name: str) -> None:
    identifier = identifier_of("inbox", name)
    assert Path(identifier).name == identifier and len(identifier) < 80 and identifier.isascii()
    assert identifier_of("other", name) != identifier
