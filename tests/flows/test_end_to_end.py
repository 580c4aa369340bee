"""The main job as a person runs it: killed at random moments, on one worker and on two, run again, bent."""

import json
import random
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.absorption import holds_crystal
from tasks.attenuation import Attenuation
from tasks.correction_report import SUBJECT, Correction
from tasks.runs import ForgedRun, publish_forged_run
from tasks.scans import material_mu
from tests.flows.running import TINY, artefacts, finish, kill_group, log_of, run_here, start_flow
from tomoforge.absorption.orientation import Orientation
from tomoforge.config import OpticsSettings
from tomoforge.results import read_published
from tomoforge.storage import Artefact, Workspace
from tomoforge.volumes import write_labels

pytestmark = pytest.mark.usefixtures("one_server")

# What the log of a run must show before it is killed, and the range of seconds [s] that are then waited: starting or in
# Blender, scanning, reconstructing, training, training again. What an earlier attempt finished is "already made".
VOLUME_DONE = r"slabs reconstructed: \d of \d \(100|volume: already made"
KILLS = (
    ("", 6, 14),
    (r"sample \d: |sample: already made", 0, 3),
    (r"rotation centre|volume: already made", 0, 4),
    (rf"(?s)({VOLUME_DONE}).*({VOLUME_DONE})", 2, 8),
    (r"interrupted run left|dataset: already made|epochs: ", 0, 3),
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """A workspace after the tiny main job on one worker."""
    workspace = tmp_path_factory.mktemp("undisturbed") / "workspace"
    flow = start_flow(workspace, "end_to_end", *TINY, "--cluster.workers", "1", own_server=True)
    assert finish(flow) == 0, log_of(workspace)
    return workspace


@pytest.mark.timeout(900)
def test_end_to_end__killed_at_random_moments_gives_the_same_bytes_on_two_workers(undisturbed, tmp_path):
    workspace = tmp_path / "workspace"
    moments = random.Random(2026)
    for sign, least, most in KILLS:
        before = len(log_of(workspace))
        flow = start_flow(workspace, "end_to_end", *TINY, "--cluster.workers", "2")
        while not re.search(sign, log_of(workspace)[before:]):
            assert flow.poll() is None, log_of(workspace)
            time.sleep(0.05)
        time.sleep(moments.uniform(least, most))
        assert flow.poll() is None, "it had finished before it could be killed"
        kill_group(flow)
    status = finish(start_flow(workspace, "end_to_end", *TINY, "--cluster.workers", "2"))
    assert status == 0, log_of(workspace)
    expected, got = artefacts(undisturbed), artefacts(workspace)
    assert got.keys() == expected.keys()
    assert [name for name in expected if got[name] != expected[name]] == []


def test_end_to_end__says_what_it_found(undisturbed):
    workspace = undisturbed
    text = log_of(workspace)
    table = text[text.rindex("samples forged") :]
    for line in ("projections      90", "liquor", "loop", "crystal", "mean |ΔA|/A", "largest"):
        assert line in table
    assert str(workspace / "published") in table
    assert "make dashboard" in table.splitlines()[-1]
    kinds = {folder.name for folder in (workspace / "published").iterdir()} - {".partial"}
    assert kinds == {"samples", "scans", "volumes", "models", "segmentations", "absorption", "runs"}


def test_end_to_end__again_recomputes_nothing_and_a_changed_parameter_only_what_depends_on_it(
    undisturbed, in_this_process, capsys
):
    workspace = undisturbed
    before = artefacts(workspace)
    assert run_here(workspace, "end_to_end", *TINY, "--cluster.workers", "1") == 0
    assert artefacts(workspace) == before
    assert "epochs:" not in "".join(capsys.readouterr())  # nothing was trained
    changed = [*TINY, "--rotation.reflections", "40"]
    assert run_here(workspace, "end_to_end", *changed, "--cluster.workers", "1") == 0
    new = {name.split("/")[0] for name in artefacts(workspace).keys() - before.keys()}
    assert new == {"corrections", "published"}  # forging, training and segmenting do not depend on it
    assert before.items() <= artefacts(workspace).items()


def test_publish_forged_run__says_when_the_model_found_no_crystal(undisturbed):
    workspace = Workspace(undisturbed)

    def made_from(artefact: Artefact, role: str) -> Artefact:
        return Artefact(**workspace.read_provenance(artefact)["inputs"][role])

    (segmentation,) = [
        found(workspace, "labels", p) for p in workspace.folder("labels").glob("segmentation-*")
    ]
    volume, model = made_from(segmentation, "volume"), made_from(segmentation, "model")
    scan = made_from(volume, "scan")
    labels = made_from(scan, "labels")
    assert holds_crystal(workspace, labels)
    # Another test may have corrected other reflections of the same labels: any merging that used them will do.
    merged, factors = next(
        (item, made_from(item, role))
        for path in workspace.folder("corrections").glob("merging-*")
        for item in [found(workspace, "corrections", path)]
        for role in workspace.read_provenance(item)["inputs"]
        if role.startswith("factors_") and made_from(made_from(item, role), "labels").key == labels.key
    )
    mu = Attenuation({}, {}, pd.DataFrame(), (), {})
    # As the flow leaves it: corrected by the true labels alone.
    correction = Correction(merged, {SUBJECT: factors}, (), merged, mu, Orientation(np.eye(3)))
    run = ForgedRun(2, labels, scan, volume, volume, model, segmentation, correction)
    summary = publish_forged_run.fn(
        workspace, run, optics=OpticsSettings(), mu=material_mu(OpticsSettings()), published={}
    )
    assert "the model found no crystal" in summary.lines[-1]
    shown = read_published(workspace.folder("published") / "runs" / summary.identifier)
    assert any("found no crystal" in warning for warning in shown.warnings)
    assert "absorption" not in shown.tables
    shutil.rmtree(shown.folder)  # the other tests compare the folder as the flow left it


def test_holds_crystal__tells_labels_without_it(tmp_path):
    workspace = Workspace(tmp_path)
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1, 1, 1] = 1
    with workspace.draft("labels", "without") as draft:
        write_labels(draft.path / "labels.ome.zarr", labels, 1e-6)
        without = workspace.commit(draft, "labels", {})
    assert not holds_crystal(workspace, without)


def found(workspace: Workspace, kind: str, folder: Path) -> Artefact:
    """The finished artefact in ``folder``."""
    artefact = workspace.find(kind, folder.name)
    assert artefact is not None
    return artefact


@pytest.mark.timeout(400)
def test_publish_example__goes_on_from_the_main_job_to_something_of_everything(
    undisturbed, tmp_path, in_this_process, capsys
):
    workspace = tmp_path / "workspace"
    shutil.copytree(undisturbed, workspace)
    assert run_here(workspace, "publish_example", *TINY, "--cluster.workers", "1") == 0
    assert "epochs:" not in "".join(capsys.readouterr())  # the main job was there
    published = workspace / "published"
    assert {"runs", "sample_sets", "ingests", "promotions"} <= {folder.name for folder in published.iterdir()}
    (report,) = (published / "ingests").iterdir()
    summary = read_published(report).summary
    assert (summary["imported"], summary["quarantined"]) == (1, 1)  # the forged scan; the damaged one


@pytest.mark.timeout(400)
def test_end_to_end__takes_a_real_scan_through_the_same_rooms(
    undisturbed, shared_data, in_this_process, capsys
):
    workspace = undisturbed
    scan = str(shared_data / "scans" / "diamond_24737.nxs")
    real = ["--scan", scan, "--energy-kev", "20", "--pixel-size-um", "5"]
    assert run_here(workspace, "end_to_end", *TINY, *real, "--cluster.workers", "2") == 0
    text = capsys.readouterr().out
    centre = float(re.search(r"rotation centre  ([\d.]+) px", text).group(1))
    assert 85.5 <= centre <= 86.0
    assert "outside the training domain" in text
    manifests = [
        json.loads(p.read_text()) for p in (workspace / "published" / "runs").glob("*/manifest.json")
    ]
    (run,) = [m for m in manifests if m["title"].startswith("Real scan")]
    assert any("outside the training domain" in warning for warning in run["warnings"])


def test_end_to_end__real_scan_without_energy_stops_before_any_work(
    tmp_path, shared_data, in_this_process, capsys
):
    workspace = tmp_path / "workspace"
    scan = str(shared_data / "scans" / "diamond_24737.nxs")
    assert run_here(workspace, "end_to_end", "--scan", scan, "--pixel-size-um", "5") == 2
    text = capsys.readouterr().err
    assert "energy" in text and "ENERGY_KEV" in text and "--energy-kev" in text
    assert not (workspace / "labels").exists()
