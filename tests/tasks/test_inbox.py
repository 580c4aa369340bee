"""Taking entries in and taking them out again, without an orchestrator: failures, duplicates, copies."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tasks import inbox as taking_in
from tasks.inbox import Inbox, hold_inbox, look_over, take_in
from tasks.pruning import prune
from tasks.scans import SCAN, content_digest, import_scan
from tests.library.beamline.inbox_files import tiny_scan, tree
from tomoforge.beamline import read_scan
from tomoforge.beamline import survey as surveying
from tomoforge.beamline.ledger import Outcome
from tomoforge.beamline.survey import Given, Ready
from tomoforge.errors import InputError, StageError
from tomoforge.storage import Workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    # The trial in a process of its own costs seconds; the flow's test has it.
    monkeypatch.setattr(surveying, "fatal_scans", lambda files, root: {})
    monkeypatch.setattr(taking_in, "import_scan", import_scan.fn)
    return Workspace(tmp_path)


@pytest.fixture
def held(workspace: Workspace) -> Iterator[Inbox]:
    with hold_inbox(workspace, None, Given(), {}) as inbox:
        assert inbox is not None
        yield inbox


def ready(held: Inbox) -> tuple[Ready, ...]:
    return look_over.fn(held, settle_s=0).ready


def outcomes(held: Inbox) -> dict[str, Outcome]:
    return {record.entry: record.outcomes[held.settings] for record in held.ledger.records()}


def take_all(held: Inbox) -> None:
    for entry in ready(held):
        with take_in(held, entry) as taking:
            raw = taking.scan()
            if raw is not None:
                taking.made(raw, None)


def test_hold_inbox__the_second_is_told(workspace: Workspace, held: Inbox) -> None:
    with hold_inbox(workspace, None, Given(energy_kev=3.0), {}) as second:
        assert second is None
    with pytest.raises(InputError, match="inbox must be a folder"), hold_inbox(workspace, "no", Given(), {}):
        pass


def test_take_in__copies_and_recognises_what_it_has(held: Inbox) -> None:
    path = tiny_scan(held.path / "a.nxs", 1)
    shutil.copyfile(path, held.path / "b.nxs")
    before = tree(held.path)
    take_all(held)
    found = outcomes(held)
    assert (found["a.nxs"].state, found["b.nxs"].state) == ("imported", "duplicate")
    assert found["b.nxs"].duplicate_of == "a.nxs" and found["a.nxs"].scan == found["b.nxs"].scan
    copy = held.workspace.folder("scans") / str(found["a.nxs"].scan) / SCAN
    assert content_digest(read_scan(copy)) == content_digest(read_scan(path))
    assert tree(held.path) == before
    assert ready(held) == ()


def test_take_in__a_failure_is_kept_tried_again_and_given_up(held: Inbox) -> None:
    for n in range(2):
        tiny_scan(held.path / f"{n}.nxs", n)
    for tries in (1, 2, 3):
        for entry in ready(held):
            with take_in(held, entry) as taking:
                if entry.name == "0.nxs":
                    raise StageError("the worker died")
                raw = taking.scan()
                assert raw is not None
                taking.made(raw, None)
        found = outcomes(held)
        assert found["1.nxs"].state == "imported"
        assert (found["0.nxs"].state, found["0.nxs"].tries) == ("failed", tries)
        assert "the worker died" in found["0.nxs"].findings[0].reason
    assert ready(held) == ()


def test_take_in__what_changed_while_it_was_copied_is_looked_at_again(held: Inbox) -> None:
    path = tiny_scan(held.path / "a.nxs", 1)
    (entry,) = ready(held)
    with open(path, "ab") as file:
        file.write(b"more")
    with take_in(held, entry) as taking:
        assert taking.scan() is None
    assert outcomes(held)["a.nxs"].state == "deferred"
    assert len(ready(held)) == 1


def test_take_in__a_scan_that_is_gone_from_the_workspace_is_copied_again(held: Inbox) -> None:
    tiny_scan(held.path / "a.nxs", 1)
    take_all(held)
    key = str(outcomes(held)["a.nxs"].scan)
    shutil.rmtree(held.workspace.folder("scans") / key)
    take_all(held)
    assert outcomes(held)["a.nxs"].scan == key
    assert (held.workspace.folder("scans") / key / SCAN).exists()


def test_take_in__a_real_stack_of_tiff_files_keeps_its_averaged_flat(
    workspace: Workspace, shared_data: Path
) -> None:
    folder = workspace.folder("inbox") / "diamond"
    shutil.copytree(shared_data / "scans" / "diamond_24737_tiff", folder)
    flat = tifffile.imread(folder / "flat_00001.tiff")
    tifffile.imwrite(folder / "flat_00001.tiff", flat + np.float32(0.25))  # an average is no whole number
    before = tree(folder)
    with hold_inbox(workspace, None, Given(energy_kev=20.0, pixel_size_um=5.0), {}) as held:
        assert held is not None
        take_all(held)
        outcome = outcomes(held)["diamond"]
    assert outcome.state == "imported" and {w.rule for w in outcome.warnings} == {"bad pixels", "air level"}
    copy = read_scan(workspace.folder("scans") / str(outcome.scan) / SCAN)
    original = read_scan(folder, energy_kev=20.0, pixel_size_um=5.0)
    # The averaged flat is float, the projections are uint16: the copy holds both exactly.
    assert original.projections.dtype == np.uint16 and copy.flats.dtype == np.float32
    assert np.array_equal(copy.flats, original.flats)
    assert np.array_equal(copy.projections[:], original.projections[:])
    assert np.allclose(copy.angles, original.angles, rtol=0, atol=1e-12)  # through degrees and back
    assert tree(folder) == before


def pruned(workspace: Workspace, days: float = 0.0, dry_run: bool = False) -> str:
    return "\n".join(prune.fn(workspace, None, older_than_days=days, dry_run=dry_run))


def test_prune__only_verified_copies_and_only_when_asked(workspace: Workspace) -> None:
    inbox = workspace.folder("inbox")
    for n in range(2):
        tiny_scan(inbox / f"{n}.nxs", n)
    (inbox / "bad.nxs").write_bytes(b"x")
    with hold_inbox(workspace, None, Given(), {}) as held:
        assert held is not None
        take_all(held)
        assert "ingest is at work" in pruned(workspace)
    before = tree(inbox)
    assert "too young" in pruned(workspace, days=1)
    assert pruned(workspace, dry_run=True).count("would remove") == 2
    assert tree(inbox) == before
    assert pruned(workspace).count("removed") == 2
    assert [path.name for path in inbox.iterdir()] == ["bad.nxs"]


def test_prune__a_spoilt_copy_keeps_the_original(workspace: Workspace) -> None:
    path = tiny_scan(workspace.folder("inbox") / "a.nxs", 1)
    with hold_inbox(workspace, None, Given(), {}) as held:
        assert held is not None
        take_all(held)
        key = str(outcomes(held)["a.nxs"].scan)
    folder = workspace.folder("scans") / key
    batch = next((folder / "batches").iterdir())
    content = bytearray(batch.read_bytes())
    content[-1] ^= 1
    batch.write_bytes(content)
    assert "copy not verified" in pruned(workspace) and path.exists()
    # Even a copy that agrees with its own checksums must agree with the original.
    provenance = json.loads((folder / "provenance.json").read_text())
    provenance["files"] = {}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    assert "copy differs" in pruned(workspace) and path.exists()


def test_prune__changed_entries_and_files_without_a_copy_stay(workspace: Workspace) -> None:
    folder = workspace.folder("inbox") / "sample"
    folder.mkdir()
    tiny_scan(folder / "a.nxs", 1)
    (folder / "notes.txt").write_text("the crystal moved")
    with hold_inbox(workspace, None, Given(), {}) as held:
        assert held is not None
        take_all(held)
    assert "files without a copy: sample/notes.txt" in pruned(workspace)
    (folder / "notes.txt").unlink()
    assert "changed" in pruned(workspace) and folder.exists()
