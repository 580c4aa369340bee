"""The ingest as it runs at night: a crowded inbox, a kill, and the same end; and one scan all the way to its volume."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile

from tests.flows.running import finish, kill_group, log_of, run_here, start_flow
from tests.library.beamline.inbox_files import COLUMNS, ROWS, tiny_scan, tree
from tomoforge.beamline.ledger import Ledger
from tomoforge.results import Published, list_published

pytestmark = pytest.mark.usefixtures("one_server")

SETTLE_S = 4.0  # against growing files that grow several times a second
GOOD, CORRUPT, GROWING, DUPLICATE = 32, 5, 5, 5  # and three path tricks: fifty
ALONE = ("--settle-s", str(SETTLE_S), "--reconstruct", "false")


def fill(inbox: Path, outside: Path) -> dict[str, bytes]:
    """Drop fifty scans at once; returns the whole contents of those that are still being written."""
    inbox.mkdir(parents=True)
    for n in range(GOOD):
        tiny_scan(inbox / f"scan-{n:02}.nxs", n)
    whole = (inbox / "scan-00.nxs").read_bytes()
    for n, content in enumerate((b"", b"\0" * 4000, b"no HDF5", whole[:3000], whole[:-500])):
        (inbox / f"corrupt-{n}.nxs").write_bytes(content)
    for n in range(DUPLICATE):
        shutil.copyfile(inbox / f"scan-{n:02}.nxs", inbox / f"zz-copy-{n}.nxs")
    contents = {}
    for n in range(GROWING):
        path = tiny_scan(inbox / f"growing-{n}.nxs", 100 + n)
        contents[path.name] = path.read_bytes()
        path.write_bytes(contents[path.name][:5000])
    (inbox / "trick-link.nxs").symlink_to(outside)
    with h5py.File(inbox / "trick-dots.nxs", "w") as file:
        file["entry"] = h5py.ExternalLink(f"../../{outside.name}", "/entry")
    with open(inbox / "trick-sparse.nxs", "wb") as file:
        file.truncate(10_000_000_000)
    assert len(list(inbox.iterdir())) == 50
    return contents


class Growth(threading.Thread):
    """Writes to files all the time, as acquisition does, until ``complete``."""

    def __init__(self, inbox: Path, contents: dict[str, bytes]) -> None:
        super().__init__(daemon=True)
        self.inbox, self.contents = inbox, contents
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.2):
            for name, content in self.contents.items():
                path = self.inbox / name
                done = path.stat().st_size
                with open(path, "ab") as file:
                    file.write(content[done : done + 8])
                os.utime(path)

    def complete(self) -> None:
        self.ended.set()
        self.join()
        for name, content in self.contents.items():
            (self.inbox / name).write_bytes(content)


def ledger_of(workspace: Path) -> Ledger:
    (folder,) = (workspace / "ledger").iterdir()
    return Ledger(folder, workspace / "quarantine", "inbox")


def end_state(workspace: Path) -> dict:
    """What became of every entry, without times and places."""
    entries = {}
    for record in ledger_of(workspace).records():
        (outcome,) = record.outcomes.values()
        rule = outcome.findings[0].rule if outcome.findings else None
        entries[record.entry] = (outcome.state, rule, outcome.scan, outcome.content, outcome.duplicate_of)
    reasons = {}
    for path in (workspace / "quarantine").glob("*/reason.json"):
        reason = json.loads(path.read_text())
        reasons[path.parent.name] = (reason["entry"], reason["rule"])
    return {
        "entries": entries,
        "quarantine": reasons,
        "scans": sorted(path.name for path in (workspace / "scans").glob("real-scan-*")),
        "published": sorted(path.name for path in (workspace / "published" / "scans").iterdir()),
    }


def published(workspace: Path, kind: str) -> list[Published]:
    found = list_published(workspace / "published", kind)
    assert all(isinstance(entry, Published) for entry in found)
    return [entry for entry in found if isinstance(entry, Published)]


def wait_until(happened: object, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return tiny_scan(tmp_path / "outside.nxs", 999)


@pytest.mark.timeout(1200)
def test_ingest__fifty_scans_a_kill_and_the_same_end(tmp_path: Path, outside: Path) -> None:
    disturbed, calm = tmp_path / "disturbed", tmp_path / "calm"
    growth = Growth(disturbed / "inbox", fill(disturbed / "inbox", outside))
    for name, content in fill(calm / "inbox", outside).items():
        (calm / "inbox" / name).write_bytes(content)
    calm_before, outside_before = tree(calm / "inbox"), outside.read_bytes()
    still = {name: seen for name, seen in tree(disturbed / "inbox").items() if not name.startswith("growing")}
    growth.start()
    try:
        undisturbed = start_flow(calm, "ingest_beamline", *ALONE)
        killed = start_flow(disturbed, "ingest_beamline", *ALONE)
        try:
            wait_until(
                lambda: len(list((disturbed / "scans").glob("real-scan-*"))) >= 5 or killed.poll() is not None
            )
            assert killed.poll() is None, log_of(disturbed)
        finally:
            kill_group(killed)
        assert finish(undisturbed) == 0, log_of(calm)
        assert finish(start_flow(disturbed, "ingest_beamline", *ALONE)) == 0, log_of(disturbed)

        states = {name: seen[0] for name, seen in end_state(disturbed)["entries"].items()}
        assert sorted(name for name, state in states.items() if state == "deferred") == [
            f"growing-{n}.nxs" for n in range(GROWING)
        ]
        now = tree(disturbed / "inbox")
        assert {name: now[name] for name in still} == still
        assert set(now) == set(still) | set(growth.contents)
    finally:
        growth.complete()
    complete = tree(disturbed / "inbox")
    time.sleep(SETTLE_S)
    assert finish(start_flow(disturbed, "ingest_beamline", *ALONE)) == 0, log_of(disturbed)

    assert end_state(disturbed) == end_state(calm)
    assert tree(disturbed / "inbox") == complete
    assert tree(calm / "inbox") == calm_before
    assert outside.read_bytes() == outside_before
    by_state: dict[str, list[str]] = {}
    for name, (state, *_) in end_state(calm)["entries"].items():
        by_state.setdefault(state, []).append(name)
    assert by_state == {
        "imported": sorted(
            [f"growing-{n}.nxs" for n in range(GROWING)] + [f"scan-{n:02}.nxs" for n in range(GOOD)]
        ),
        "duplicate": [f"zz-copy-{n}.nxs" for n in range(DUPLICATE)],
        "quarantined": [
            *(f"corrupt-{n}.nxs" for n in range(CORRUPT)),
            *(f"trick-{name}.nxs" for name in ("dots", "link", "sparse")),
        ],
    }
    # Every good one exactly once: as an artefact, and for people.
    assert len(end_state(calm)["scans"]) == GOOD + GROWING
    for workspace in (disturbed, calm):
        titles = [entry.title for entry in published(workspace, "scans")]
        assert len(titles) == len(set(titles)) == GOOD + GROWING
    newest = published(disturbed, "ingests")[0]
    assert newest.summary["imported"] == GOOD + GROWING and newest.summary["quarantined"] == 8
    assert len(newest.read_table("entries")) == 50


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A folder with a scan, a label volume that fits, one that does not, and DIALS files, one a pickle."""
    folder = tmp_path / "workspace" / "inbox" / "sample"
    (folder / "labels").mkdir(parents=True)
    tiny_scan(folder / "data.nxs", 7)
    volume = np.zeros((ROWS, COLUMNS, COLUMNS), np.uint8)
    volume[4:8, 5:9, 6:10] = 3
    for z, page in enumerate(volume):
        tifffile.imwrite(folder / "labels" / f"{z:03}.tif", page)
    tifffile.imwrite(folder / "mask_small.tif", volume[:, 1:], photometric="minisblack")
    (folder / "integrated.expt").write_text('{"__id__": "ExperimentList", "experiment": []}')
    (folder / "integrated.refl").write_bytes(b"\x80\x02}q\x00.")
    return folder


@pytest.mark.timeout(1200)
def test_ingest__a_scan_with_companions_becomes_a_volume_and_may_then_be_pruned(
    tmp_path: Path, sample: Path, in_this_process, capsys
) -> None:
    workspace, inbox = tmp_path / "workspace", sample.parent
    before = tree(inbox)
    arguments = ("ingest_beamline", "--settle-s", "0", "--cluster.workers", "1")
    assert run_here(workspace, *arguments) == 0
    assert tree(inbox) == before
    (record,) = ledger_of(workspace).records()
    (outcome,) = record.outcomes.values()
    assert outcome.state == "imported", outcome
    assert (workspace / "volumes" / str(outcome.volume)).is_dir()
    assert [entry.title for entry in published(workspace, "volumes")] == ["Reconstruction of sample"]
    taken = {c.name: c.finding.rule if c.finding else c.kind for c in outcome.companions}
    assert taken == {
        "sample/labels": "labels",
        "sample/mask_small.tif": "label shape",
        "sample/integrated.expt": "dials",
        "sample/integrated.refl": "pickled reflections",
    }
    assert len(list((workspace / "quarantine").glob("*/reason.json"))) == 2
    copies = {c.name: c.artefact for c in outcome.companions if c.artefact}
    copied = workspace / "corrections" / copies["sample/integrated.expt"] / "integrated.expt"
    assert copied.read_bytes() == (sample / "integrated.expt").read_bytes()
    (ingest,) = published(workspace, "ingests")
    assert isinstance(ingest.read_table("companions"), pd.DataFrame)

    # Nothing new: known without opening anything, no second report.
    assert run_here(workspace, *arguments) == 0
    assert "skipped: nothing new among 1 entries" in capsys.readouterr().out
    assert len(published(workspace, "ingests")) == 1

    # What has no copy keeps the entry; without it, the entry goes once nobody only rehearses.
    prune = ("prune_inbox", "--older-than-days", "0")
    assert run_here(workspace, *prune, "--dry-run", "false") == 0
    assert "kept     sample: companion not copied" in capsys.readouterr().out
    assert tree(inbox) == before
    (sample / "integrated.refl").unlink()
    (sample / "mask_small.tif").unlink()
    assert run_here(workspace, *arguments) == 0
    assert run_here(workspace, *prune) == 0
    assert "would remove  sample" in capsys.readouterr().out and sample.is_dir()
    assert run_here(workspace, *prune, "--dry-run", "false") == 0
    assert "removed  sample" in capsys.readouterr().out
    assert list(inbox.iterdir()) == []
