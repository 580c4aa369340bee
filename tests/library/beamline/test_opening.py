"""Scans that kill their reader are found by a process that may die."""

from pathlib import Path

import pytest

from tests.library.beamline.nxtomo_files import write
from tomoforge.beamline import opening
from tomoforge.beamline.opening import fatal_scans
from tomoforge.errors import StageError

# A worker like the real one, for which some files are deadly: no damaged file kills every version of HDF5.
WORKER = """
import os, signal, sys
from tomoforge.beamline import opening_worker

def read_scan(path, **given):
    assert given["root"] == "/somewhere"
    if "deadly" in path:
        os.kill(os.getpid(), signal.SIGSEGV)
    while "endless" in path:
        pass
    raise ValueError

opening_worker.read_scan = read_scan
opening_worker.main(sys.argv[1:])
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deadly_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).resolve().parents[3]}:{tmp_path}")
    monkeypatch.setattr(opening, "_WORKER", "deadly_worker")


@pytest.mark.usefixtures("worker")
def test_fatal_scans__are_named_and_stop_no_others() -> None:
    names = ["good1", "deadly1", "good2", "deadly2", "endless", "good3"]
    assert fatal_scans(names, root="/somewhere", timeout_s=1) == {
        Path("deadly1"): "opening it ends the process by SIGSEGV",
        Path("deadly2"): "opening it ends the process by SIGSEGV",
        Path("endless"): "opening it takes longer than 1 s",
    }


def test_fatal_scans__good_and_refused_ones_are_not_fatal(tmp_path: Path) -> None:
    good = write(tmp_path / "a.nxs")
    (tmp_path / "b.nxs").write_bytes(good.read_bytes()[:3000])
    assert fatal_scans([good, tmp_path / "b.nxs", tmp_path / "absent"]) == {}
    assert fatal_scans([]) == {}


def test_fatal_scans__a_trial_that_cannot_run_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_WORKER", "no_such_module")
    with pytest.raises(StageError, match="no_such_module"):
        fatal_scans(["a"])
