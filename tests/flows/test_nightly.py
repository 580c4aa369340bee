"""Nights by a test clock, on scans that are simulated, imported and reconstructed and a network that is trained."""

import contextlib
import datetime
import json
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pytest
import yaml

from tests.flows.running import ROOT, kill_group, log_of, start_flow
from tests.library.segmentation.phantom import phantom
from tomoforge.config import (
    ClusterSettings,
    ForgingSettings,
    OpticsSettings,
    ReconstructionSettings,
    TrainingSchedule,
)
from tomoforge.errors import InputError, StageError
from tomoforge.geometry import ScanGeometry, uniform_angles
from tomoforge.optics.detector import Detector
from tomoforge.optics.materials import find_material
from tomoforge.optics.scan import Beam, simulate_scan
from tomoforge.results import Published, list_published
from tomoforge.scan import write_frame_batch, write_nxtomo
from tomoforge.storage import Artefact, Workspace
from tomoforge.units import m_to_um
from tomoforge.volumes import write_labels, write_volume

pytest.importorskip("nnunetv2", reason="the train extra is not installed")

SIZE, VOXEL, ANGLES, ENERGY = 32, 8e-6, 24, 8.0  # voxels, [m], projections, [keV]
# As small as a network can be and still be trained: what it learns does not matter here.
TRAINING = TrainingSchedule(epochs=1, iterations=2, batch_size=4, patch=32, features=4, stages=3)
# The gate lets any model through that has seen new cases.
GATE = {
    **{"floor_liquor": 0.0, "floor_loop": 0.0, "floor_crystal": 0.0},
    **{"class_fall": 1.0, "case_fall": 1.0, "mean_fall": 1.0, "least_cases": 1, "resamples": 100},
}
SHORT = ["--samples", "1", "--grid", "32", "--forging.engine", "lens", "--cluster.workers", "1"]


class Here:
    """Stands in the place of a cluster: every piece at once, in this process."""

    def run(self, function: Any, *arguments: Any, timeout_s: float) -> Any:
        return function(*arguments)

    def map(self, function: Any, pieces: list, *, timeout_s: float, progress: Any = None) -> list:
        return [function(*piece) for piece in pieces]


def stored(workspace: Workspace, kind: str, stage: str, seed: int, write: Any) -> Artefact:
    from tasks.artefacts import produce

    return produce(
        workspace, kind, stage, parameters={"seed": seed}, inputs={}, packages=(), build=write
    )  # fmt: skip


def forged(workspace: Workspace, seed: int) -> tuple[Artefact, Artefact]:
    """A volume and its labels that stand for a sample forged before any night."""
    from tasks.samples import LABELS
    from tasks.volumes import VOLUME

    values, labels = phantom(seed, SIZE)
    return (
        stored(workspace, "volumes", "volume", seed, lambda f: write_volume(f / VOLUME, values, VOXEL)),
        stored(workspace, "labels", "sample", seed, lambda f: write_labels(f / LABELS, labels, VOXEL)),
    )


def measured(workspace: Workspace, seed: int) -> tuple[Artefact, Artefact, np.ndarray]:
    """A phantom's scan, imported and reconstructed as one from a beamline: scan, volume, true labels."""
    from tasks.scans import import_scan
    from tasks.volumes import reconstruct

    _, labels = phantom(seed, SIZE)
    materials = {1: find_material("water"), 2: find_material("nylon"), 3: find_material("protein")}
    geometry = ScanGeometry(uniform_angles(ANGLES), VOXEL, 0.0)
    scan = simulate_scan(labels, VOXEL, materials, geometry, Beam(ENERGY), Detector(), seed)
    folder = workspace.root.parent / f"beamline-{seed}"
    folder.mkdir()
    write_frame_batch(folder / "batch.h5", scan.projections[:])
    write_nxtomo(
        folder / "scan.nxs", darks=scan.darks, flats=scan.flats, batches=["batch.h5"], angles=geometry.angles,
        energy_kev=ENERGY, pixel_size=VOXEL, propagation_distance=0.0, title=f"sample {seed}",
    )  # fmt: skip
    raw = import_scan.fn(workspace, str(folder / "scan.nxs"), energy_kev=None, pixel_size_um=None)
    settings = ReconstructionSettings(rotation_centre=(SIZE - 1) / 2)
    return raw, reconstruct.fn(Here(), workspace, raw, settings=settings, name=f"{seed}"), labels  # type: ignore[arg-type]


def labelled(workspace: Workspace, seed: int, labels: np.ndarray | None = None) -> str:
    """A measured scan whose labels lay beside it in the inbox; the key of the labels."""
    from tasks.companions import take_companions

    raw, volume, truth = measured(workspace, seed)
    folder = workspace.root.parent / f"beamline-{seed}"
    spacing = {
        "space directions": np.eye(3) * m_to_um(VOXEL),
        "space units": ["um"] * 3,
        "space dimension": 3,
    }
    nrrd.write(str(folder / "labels.nrrd"), (truth if labels is None else labels).T, spacing)
    (taken,) = take_companions(workspace, folder, [folder / "labels.nrrd"], raw, volume)
    assert taken.artefact is not None, taken
    return taken.artefact


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a trained champion, and a hold-out of one case."""
    from tasks.registry import frozen_cases, open_registry, register_model
    from tasks.segmenter import build_dataset, train

    workspace = Workspace(tmp_path_factory.mktemp("nights") / "w")
    pairs = [forged(workspace, seed) for seed in (1, 2)]
    data = build_dataset.fn(workspace, [v for v, _ in pairs], [m for _, m in pairs])
    _, volume, truth = measured(workspace, 3)
    from tasks.samples import LABELS

    held = stored(workspace, "labels", "truth", 3, lambda f: write_labels(f / LABELS, truth, VOXEL))
    test = build_dataset.fn(workspace, [volume], [held], sources=["real"])
    optics = OpticsSettings(energy_kev=ENERGY)
    model = train.fn(Here(), workspace, data, schedule=TRAINING, optics=optics, seed=1)  # type: ignore[arg-type]
    register_model.fn(workspace, model)
    frozen_cases.fn(workspace, "holdout", dataset=test.key, replace=False, by="Ada", reason="test")
    open_registry(workspace).promote(model.key, expected=None, who="Ada", reason="test")
    return workspace.root


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Workspace:
    return Workspace(shutil.copytree(template, tmp_path / "w"))


def settings(**change: Any) -> Any:
    from tasks.nights import NightSettings
    from tasks.registry import GateSettings

    return NightSettings(
        samples=1, grid=32, forging=ForgingSettings(engine="lens"), training=TRAINING, gate=GateSettings(**GATE),
        **change,
    )  # fmt: skip


def night(workspace: Workspace, day: int, **change: Any) -> Any:
    """The state in which a night ends that is called at 2 o'clock of this day."""
    from prefect import flow

    from flows.nightly_retrain import one_night

    def now() -> datetime.datetime:
        return datetime.datetime(2026, 1, day, 2, tzinfo=datetime.UTC)

    @flow(name="nightly-retrain", validate_parameters=False)
    def called() -> Any:
        return one_night(workspace, settings(**change), ClusterSettings(workers=1), now=now)

    return called(return_state=True)


def published(workspace: Workspace, kind: str) -> list[Published]:
    found = list_published(workspace.root / "published", kind)
    assert all(isinstance(entry, Published) for entry in found)
    return [entry for entry in found if isinstance(entry, Published)]


def models(workspace: Workspace) -> set[str]:
    return {path.name for path in workspace.folder("models").glob("model-*")}


def decided(workspace: Workspace) -> list[tuple[str, str | None]]:
    """Promotions and refusals of the audit: action and model."""
    from tasks.registry import open_registry

    rows = open_registry(workspace).audit()
    return [(row.action, row.after) for row in rows if row.action in ("promote", "refuse")]


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A night that would begin any work fails."""

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("a cluster was started")

    monkeypatch.setattr("flows.nightly_retrain.open_compute", refuse)


@pytest.mark.parametrize(
    ("state", "flow_name", "fires"),
    [
        ("Completed", "ingest-beamline", True),
        ("Completed", "decide-labels", True),
        ("Skipped", "ingest-beamline", False),  # it took nothing in
        ("Failed", "ingest-beamline", False),
        ("Completed", "nightly-retrain", False),  # else a night would call the next
    ],
)
def test_nightly__the_trigger_fires_where_labels_may_be_new(state: str, flow_name: str, fires: bool) -> None:
    """The trigger of prefect.yaml, read as Prefect's deploy reads it, asked as Prefect's server asks it."""
    from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger
    from prefect.server.events.schemas.automations import EventTrigger
    from prefect.server.events.schemas.events import ReceivedEvent

    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    (entry,) = [e for e in content["deployments"] if e["entrypoint"].endswith(":nightly_retrain")]
    (written,) = entry["triggers"]
    assert set(written) <= {"type", *DeploymentEventTrigger.model_fields}  # it ignores others without a word
    read = DeploymentEventTrigger(**written)
    read.set_deployment_id(uuid.uuid4())
    automation = read.as_automation()
    assert automation.enabled is False
    trigger = EventTrigger.model_validate(automation.trigger.model_dump(mode="json"))
    event = ReceivedEvent.model_validate(
        {
            "occurred": "2026-01-01T02:00:00Z",
            "event": f"prefect.flow-run.{state}",
            "resource": {"prefect.resource.id": f"prefect.flow-run.{uuid.uuid4()}"},
            "related": [
                {
                    "prefect.resource.id": f"prefect.flow.{uuid.uuid4()}",
                    "prefect.resource.role": "flow",
                    "prefect.resource.name": flow_name,
                }
            ],
            "id": str(uuid.uuid4()),
        }
    )
    assert trigger.covers(event) is fires


@pytest.mark.timeout(1500)
def test_nightly__nothing_new_then_two_and_a_poisoned_one_killed_and_finished_once_then_nothing(
    workspace: Workspace, in_this_process: None
) -> None:
    """Three nights; the second is killed between its training and its decision."""
    from tasks.nights import book_of

    before = models(workspace)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.nightly_retrain.open_compute", lambda *_: pytest.fail("a cluster was started"))
        first = night(workspace, 1)
    assert (first.type.value, first.name) == ("COMPLETED", "Skipped")
    assert first.message == "no new labelled volumes, a night needs 2"
    assert models(workspace) == before and published(workspace, "nights") == []

    good = [labelled(workspace, seed) for seed in (10, 11)]
    bad = labelled(workspace, 12, np.zeros((SIZE, SIZE, SIZE), np.uint8))
    training = [
        f"--training.{k.replace('_', '-')}={v}" for k, v in TRAINING.model_dump().items() if v is not None
    ]
    gate = [f"--gate.{k.replace('_', '-')}={v}" for k, v in GATE.items()]
    process = start_flow(workspace.root, "nightly_retrain", *SHORT, *training, *gate)
    try:
        deadline = time.monotonic() + 900
        while models(workspace) == before:
            assert process.poll() is None, log_of(workspace.root)
            assert time.monotonic() < deadline, log_of(workspace.root)
            time.sleep(0.02)
    finally:
        kill_group(process)
    (model,) = models(workspace) - before
    (champion,) = before
    assert decided(workspace) == [("promote", champion)]
    plan = book_of(workspace).open_plan()
    assert plan is not None and (plan.number, len(plan.cases)) == (1, 2)

    second = night(workspace, 2)
    assert second.type.value == "COMPLETED" and second.name != "Skipped", second.message
    assert models(workspace) == before | {model}  # not trained again
    assert decided(workspace) == [("promote", champion), ("promote", model)]
    (shown,) = published(workspace, "nights")
    assert shown.title == "Night 1: a new champion"
    assert (shown.summary["new_cases"], shown.summary["quarantined"]) == (2, 1)
    assert any(bad in warning and "background alone" in warning for warning in shown.warnings)
    cases = shown.read_table("cases").set_index("labels")["outcome"].to_dict()
    assert cases == {**dict.fromkeys(good, "trained"), bad: "quarantined"}
    assert len(published(workspace, "samples")) == 1
    record = json.loads((workspace.root / "nights" / "night-0001.json").read_text())
    assert (record["outcome"], record["model"]) == ("promoted", model)
    assert record["decision"]["reason"] == "night-0001: 2 new labelled volumes"
    about = json.loads((workspace.root / "models" / model / "provenance.json").read_text())
    assert about["inputs"]["start_from"]["key"] == champion
    scan = workspace.read_provenance(
        next(a for p in workspace.folder("scans").glob("scan-*") if (a := workspace.find("scans", p.name)))
    )["parameters"]["optics"]
    assert (scan["energy_kev"], scan["projections"], scan["distance_mm"]) == (ENERGY, ANGLES, 0.0)

    left = {
        path: path.stat().st_mtime_ns for path in workspace.root.rglob("*") if ".prefect" not in str(path)
    }
    third = night(workspace, 3)
    assert (third.name, third.message) == ("Skipped", "no new labelled volumes, a night needs 2")
    now = {path: path.stat().st_mtime_ns for path in workspace.root.rglob("*") if ".prefect" not in str(path)}
    lock = workspace.root / "nights" / "lock"
    assert {p for p in now if now[p] != left.get(p)} <= {lock}


def test_nightly__a_second_call_ends_at_once(
    workspace: Workspace, in_this_process: None, no_work: None
) -> None:
    from tasks.nights import book_of

    with book_of(workspace).held():
        state = night(workspace, 1)
    assert (state.name, state.message) == ("Skipped", "another night is at work on this workspace")


def test_nightly__without_a_champion_there_is_nothing_to_go_on_from(
    tmp_path: Path, in_this_process: None, no_work: None
) -> None:
    state = night(Workspace(tmp_path / "empty"), 1)
    assert state.name == "Skipped" and "there is no champion" in state.message


def test_nightly__too_few_beside_the_poisoned_ones_is_published_and_skipped(
    workspace: Workspace, in_this_process: None, no_work: None
) -> None:
    labelled(workspace, 10)
    bad = labelled(workspace, 12, np.zeros((SIZE, SIZE, SIZE), np.uint8))
    state = night(workspace, 1)
    assert state.name == "Skipped" and "1 new labelled volume, a night needs 2" in state.message
    (shown,) = published(workspace, "nights")
    assert shown.title == "Night 1: too little to train on" and bad in shown.warnings[0]
    assert night(workspace, 2).message == "1 new labelled volume, a night needs 2"  # not looked at again
    assert len(published(workspace, "nights")) == 1


def test_nightly__an_error_is_tried_again_and_wrong_input_is_not(
    workspace: Workspace, in_this_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails stands in for the forging; all around it is real."""
    from tasks.nights import book_of

    for seed in (10, 11):
        labelled(workspace, seed)
    errors: list[Exception] = [StageError("Blender is ill")] * 2

    def fail(*arguments: Any) -> Any:
        raise errors.pop()

    monkeypatch.setattr("flows.nightly_retrain.open_compute", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr("flows.nightly_retrain.forge", fail)
    for day in (1, 2):
        state = night(workspace, day, most_starts=2)
        assert state.type.value == "FAILED" and "Blender is ill" in state.message
        assert published(workspace, "nights") == []
    state = night(workspace, 3, most_starts=9)  # as it was begun with, it was begun often enough
    assert state.type.value == "FAILED" and "was begun 2 times" in state.message
    (shown,) = published(workspace, "nights")
    assert shown.title == "Night 1: failed" and "begun 2 times" in shown.warnings[0]
    assert book_of(workspace).open_plan() is None
    assert night(workspace, 4).name == "Skipped"

    errors.append(InputError("no such voxel"))
    state = night(workspace, 5, retry_failed=True)
    assert state.type.value == "FAILED" and "no such voxel" in state.message
    assert [entry.title for entry in published(workspace, "nights")].count("Night 2: failed") == 1
    assert night(workspace, 6).name == "Skipped"
