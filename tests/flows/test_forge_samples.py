"""Sets of samples from the command line: the same bytes on one worker and on two, and what a failing sample leaves."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.flows.running import artefacts, run_here
from tomoforge.results import read_published

pytestmark = pytest.mark.usefixtures("one_server")

SMALL = ["--count", "3", "--grid", "48", "--voxel-size-um", "6", "--seed", "4"]
BLENDER = shutil.which(os.environ.get("TOMOFORGE_BLENDER") or "blender")


def published_set(workspace: Path):
    (folder,) = (workspace / "published" / "sample_sets").iterdir()
    return read_published(folder)


def test_forge_samples__same_bytes_on_one_worker_and_on_two_a_gallery_and_a_scan(
    tmp_path, in_this_process, capsys
):
    one, two = tmp_path / "one", tmp_path / "two"
    for workspace, workers in ((one, "1"), (two, "2")):
        assert run_here(workspace, "forge_samples", *SMALL, "--cluster.workers", workers) == 0
    assert "samples forged  3 of 3" in capsys.readouterr().out
    assert artefacts(one) == artefacts(two)
    key = sorted(folder.name for folder in (one / "labels").glob("sample-*"))[0]
    scan = ["simulate_scan", "--labels", key, "--optics.projections", "40", "--cluster.workers", "2"]
    assert run_here(one, *scan) == 0
    assert any(name.startswith("scans/") for name in artefacts(one))
    shown = published_set(one)
    assert shown.summary["samples_forged"] == 3 and shown.warnings == ()
    assert {"contact_sheet", "distributions"} <= set(shown.pictures)
    table = pd.read_parquet(shown.folder / shown.tables["samples"][0])
    assert len(table) == 3 and table["tries"].min() == 1
    for column in ("habit", "mount", "crystal_size", "crystal_aspect", "fraction_liquor", "tilt", "engine"):
        assert table[column].notna().all()


@pytest.mark.skipif(BLENDER is None, reason="no Blender executable on this machine")
def test_forge_samples__a_sample_that_cannot_be_forged_is_named_and_the_rest_goes_on(
    tmp_path, monkeypatch, in_this_process, capsys
):
    # Its second to eleventh runs die: the smoke test passes, one sample's five seeds fail twice each.
    program, count = tmp_path / "blender", tmp_path / "runs"
    program.write_text(
        f'#!/bin/sh\necho >> "{count}"\nn=$(wc -l < "{count}")\n'
        f'[ "$n" -ge 2 ] && [ "$n" -le 11 ] && kill -KILL $$\nexec "{BLENDER}" "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("TOMOFORGE_BLENDER", str(program))
    workspace = tmp_path / "workspace"
    options = ["--forging.engine", "blender", "--cluster.workers", "1"]
    assert run_here(workspace, "forge_samples", *SMALL, *options) == 0
    assert "samples forged  2 of 3" in capsys.readouterr().out
    shown = published_set(workspace)
    (warning,) = shown.warnings
    assert "is missing" in warning and "SIGKILL" in warning
    assert shown.summary["samples_requested"] == 3
