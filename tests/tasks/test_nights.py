"""What a night finds, takes, quarantines and leaves: from records and tiny phantoms, without a training."""

import datetime
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.annotation import decide
from tasks.artefacts import produce
from tasks.night_forging import calibrated, fitting_grid, matching_optics
from tasks.night_report import NightEnd, close_ended, end_night, judged, publish_night
from tasks.nights import (
    BY,
    NightSettings,
    Waiting,
    begin_night,
    book_of,
    build_night_dataset,
    decision_on,
    look_for_new,
    no_ground,
    settings_of,
    version_of,
    versions_of,
    voxel_size_um_of,
)
from tasks.registry import frozen_cases, labelled_cases, open_registry, register_model
from tasks.samples import LABELS
from tasks.scans import SCAN, import_scan
from tasks.segmenter import DATASET, MODEL, build_dataset
from tasks.volumes import VOLUME
from tests.library.beamline.inbox_files import tiny_scan
from tests.library.segmentation.model_folders import write_folder
from tests.library.segmentation.phantom import phantom
from tomoforge.config import ForgingSettings, OpticsSettings
from tomoforge.errors import InputError, StorageError
from tomoforge.results import read_published
from tomoforge.segmentation.dataset import DATASET_NAME, read_dataset_record
from tomoforge.segmentation.nights import (
    Considered,
    NightCase,
    NightPlan,
    Watermark,
    best_of_each,
    competing,
    joined,
    old_forged,
    still_new,
)
from tomoforge.storage import Artefact, Workspace
from tomoforge.volumes import write_labels, write_volume

VOXEL = 2e-6  # [m], the pixel of ``tiny_scan``
SAID: dict[str, Any] = {"who": "Ada", "reason": "test"}
SETTINGS = NightSettings(forging=ForgingSettings(engine="lens"))


def clock(day: int = 1) -> datetime.datetime:
    return datetime.datetime(2026, 1, day, 2, 0, tzinfo=datetime.UTC)


# --- a workspace ----------------------------------------------------------------------------------------


def volume_of(
    workspace: Workspace, scan: Artefact | str, values: np.ndarray, voxel: float = VOXEL
) -> Artefact:
    """A reconstruction, as its record has it."""
    return produce(
        workspace, "volumes", "volume", parameters={"sum": float(np.nansum(values)), "voxel": voxel},
        inputs={"scan": scan}, packages=(), build=lambda f: write_volume(f / VOLUME, values, voxel),
    )  # fmt: skip


def labels_of(
    workspace: Workspace, stage: str, inputs: dict[str, Artefact | str], labels: np.ndarray, **how: Any
) -> Artefact:
    """Labels of a stage, as people or a model made them."""
    voxel, names = how.get("voxel", VOXEL), how.get("names")
    given = (voxel,) if names is None else (voxel, names)
    return produce(
        workspace, "labels", stage, parameters={"sum": int(labels.sum()), "voxel": voxel},
        inputs=inputs, packages=(), build=lambda f: write_labels(f / LABELS, labels, *given),
    )  # fmt: skip


def measured(workspace: Workspace, seed: int) -> tuple[Artefact, Artefact, np.ndarray]:
    """A real scan, its volume, and labels that fit it."""
    path = tiny_scan(workspace.root.parent / f"scan-{seed}.nxs", seed)
    scan = import_scan.fn(workspace, str(path), energy_kev=None, pixel_size_um=None)
    values, labels = phantom(seed, 24, noise=20.0)
    return scan, volume_of(workspace, scan, values), labels


def labelled(workspace: Workspace, seed: int, stage: str = "companion-labels") -> tuple[Artefact, Artefact]:
    """A measured volume with labels that nobody has used yet: (volume, labels)."""
    scan, volume, labels = measured(workspace, seed)
    inputs: dict[str, Artefact | str] = {"scan": scan} if stage == "companion-labels" else {"volume": volume}
    return volume, labels_of(workspace, stage, inputs, labels)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A champion trained on two forged cases and one real one, and a hold-out of one real case."""
    root = tmp_path_factory.mktemp("nights") / "w"
    workspace = Workspace(root)
    pairs = []
    for seed in (1, 2):
        values, labels = phantom(seed, 24, noise=20.0)
        volume = volume_of(workspace, f"scan-{seed}", values)
        pairs.append((volume, labels_of(workspace, "sample", {"volume": volume}, labels)))
    known, held = labelled(workspace, 3), labelled(workspace, 4)
    data = build_dataset.fn(
        workspace, [v for v, _ in (*pairs, known)], [m for _, m in (*pairs, known)],
        sources=["forged", "forged", "real"],
    )  # fmt: skip
    test = build_dataset.fn(workspace, [held[0]], [held[1]], sources=["real"])
    model = produce(
        workspace, "models", "model", parameters={}, inputs={"dataset": data}, packages=(),
        build=lambda f: write_folder(f / MODEL, b"champion") and None,
    )  # fmt: skip
    register_model.fn(workspace, model)
    frozen_cases.fn(workspace, "holdout", dataset=test.key, replace=False, by="Ada", reason="test")
    open_registry(workspace).promote(model.key, expected=None, **SAID)
    return root


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Workspace:
    return Workspace(shutil.copytree(template, tmp_path / "w"))


def begun(workspace: Workspace, settings: NightSettings = SETTINGS, day: int = 1) -> NightPlan:
    return begin_night.fn(workspace, look_for_new(workspace), settings, now=lambda: clock(day))


def outcomes(plan: NightPlan) -> dict[str, str]:
    return {labels: entry.outcome for labels, entry in plan.considered.items()}


# --- looking --------------------------------------------------------------------------------------------


def test_no_ground__says_what_is_missing_first(workspace: Workspace, tmp_path: Path):
    assert no_ground(workspace) is None
    reason = no_ground(Workspace(tmp_path / "empty"))
    assert reason is not None and "no champion" in reason and "promote" in reason


def test_look_for_new__nothing_where_champion_and_holdout_have_all(workspace: Workspace):
    waiting = look_for_new(workspace)
    assert waiting == Waiting(())
    assert waiting.lacking(2) == "no new labelled volumes, a night needs 2"


def test_look_for_new__labels_from_the_inbox_from_people_and_approved_ones(workspace: Workspace):
    made = {stage: labelled(workspace, 10 + n, stage)[1] for n, stage in enumerate(
        ("companion-labels", "corrected-labels", "segmentation"))}  # fmt: skip
    cases = {case.labels: case for case in look_for_new(workspace).cases}
    assert set(cases) == {
        made["companion-labels"].key,
        made["corrected-labels"].key,
    }  # nobody approved the other
    assert {case.source for case in cases.values()} == {"real"}
    decision = decide(workspace, made["segmentation"], "approved", who="Ada")
    cases = {case.labels: case for case in look_for_new(workspace).cases}
    pseudo = cases[made["segmentation"].key]
    assert (pseudo.source, pseudo.approval, pseudo.checksum) == ("pseudo", decision.sha256, decision.checksum)
    for stage in made:
        decide(workspace, made[stage], "rejected", who="Ada", reason="wrong")
    assert look_for_new(workspace).cases == ()


def test_look_for_new__reads_no_voxel(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    labelled(workspace, 10)

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("a voxel was read")

    monkeypatch.setattr("zarr.Array.__getitem__", refuse)
    assert len(look_for_new(workspace).cases) == 1


def test_look_for_new__labels_of_forged_volumes_are_not_real_ones(workspace: Workspace):
    values, labels = phantom(20, 24)
    volume = volume_of(workspace, "scan-20", values)
    labels_of(workspace, "corrected-labels", {"volume": volume}, labels)
    assert look_for_new(workspace).cases == ()


def test_look_for_new__another_reconstruction_of_a_held_out_scan_is_held_out(workspace: Workspace):
    scan, _, labels = measured(workspace, 4)  # the hold-out's
    again = volume_of(workspace, scan, phantom(4, 24, noise=10.0)[0])
    labels_of(workspace, "corrected-labels", {"volume": again}, labels)
    assert look_for_new(workspace).cases == ()


def test_look_for_new__labels_from_the_inbox_wait_for_their_volume_and_find_the_one_that_fits(
    workspace: Workspace,
):
    path = tiny_scan(workspace.root.parent / "late.nxs", 30)
    scan = import_scan.fn(workspace, str(path), energy_kev=None, pixel_size_um=None)
    values, labels = phantom(30, 24)
    labels_of(workspace, "companion-labels", {"scan": scan}, labels)
    waiting = look_for_new(workspace)
    assert waiting.cases == () and "reconstruction: 1" in str(waiting.lacking(1))
    fitting = volume_of(workspace, scan, values)
    binned = volume_of(workspace, scan, values[::2, ::2, ::2], 2 * VOXEL)
    os.utime(workspace.path(binned) / "provenance.json", (2e9, 2e9))  # made later
    (case,) = look_for_new(workspace).cases
    assert case.volume == fitting.key


def test_look_for_new__a_persons_labels_replace_those_from_the_inbox(workspace: Workspace):
    volume, companion = labelled(workspace, 10)
    corrected = labels_of(workspace, "corrected-labels", {"volume": volume}, phantom(11, 24)[1])
    os.utime(workspace.path(companion) / "provenance.json", (2e9, 2e9))  # newer, and yet
    assert [case.labels for case in look_for_new(workspace).cases] == [corrected.key]


# --- what was settled before ----------------------------------------------------------------------------

CASE = NightCase("labels-1", "volume-1", "real-scan-1", "real", approval="a")


@pytest.mark.parametrize(
    ("entry", "new"),
    [
        (None, True),
        (Considered("trained", 1, "volume-1", content="c", approval="a"), False),
        (
            Considered("trained", 1, "volume-1", content="gone", approval="a"),
            True,
        ),  # dropped from the set since
        (Considered("known", 1, "volume-1", content="c", approval="a"), False),
        (Considered("trained", 1, "volume-1", content="c", approval="b"), True),  # decided anew
        (Considered("quarantined", 1, "volume-1", approval="a"), False),
        (Considered("quarantined", 1, "volume-0", approval="a"), True),  # there is another volume
        (Considered("held out", 1, "volume-1", holdout="h", approval="a"), False),
        (Considered("held out", 1, "volume-1", holdout="other", approval="a"), True),
        (Considered("superseded", 1, "volume-1", approval="a"), False),
        (Considered("failed", 1, "volume-1", approval="a"), False),
    ],
)
def test_still_new__settled_until_something_changes(entry: Considered | None, new: bool):
    watermark = Watermark(labels={} if entry is None else {CASE.labels: entry})
    assert still_new([CASE], watermark, present={"c"}, holdout="h") == ([CASE] if new else [])


def test_still_new__failed_ones_on_demand():
    watermark = Watermark(labels={CASE.labels: Considered("failed", 1, "volume-1", approval="a")})
    assert still_new([CASE], watermark, present=(), holdout=None, retry_failed=True) == [CASE]


def test_competing__quarantined_labels_give_way_to_others_of_their_volume():
    better = replace(CASE, labels="labels-2", rank=2)
    watermark = Watermark(labels={"labels-2": Considered("quarantined", 1, "volume-1", approval="a")})
    assert competing([CASE, better], watermark) == [CASE]
    assert competing([CASE, replace(better, volume="volume-2")], watermark)[1:] != []


def test_best_of_each__rank_then_age():
    cases = [replace(CASE, labels=f"l{n}", rank=rank, made=made)
             for n, (rank, made) in enumerate([(0, 9.0), (1, 1.0), (1, 2.0)])]  # fmt: skip
    other = replace(CASE, labels="l9", volume="volume-9")
    best, replaced = best_of_each([*cases, other], lambda c: c.volume, lambda c: c)
    assert {c.labels for c in best} == {"l2", "l9"}
    assert replaced == {"l0": "l1", "l1": "l2"}


# --- beginning ------------------------------------------------------------------------------------------


def test_begin_night__plans_what_is_new_and_keeps_it(workspace: Workspace):
    pairs = [labelled(workspace, seed) for seed in (10, 11)]
    plan = begun(workspace)
    assert outcomes(plan) == {labels.key: "trained" for _, labels in pairs}
    assert (plan.number, plan.began, plan.starts) == (1, "2026-01-01T02:00:00+00:00", 1)
    assert {case.origin["volume"] for case in plan.cases} == {volume.key for volume, _ in pairs}
    assert {case.group for case in plan.cases} == {case.scan for case in look_for_new(workspace).cases}
    assert book_of(workspace).open_plan() == plan
    # Another night draws other samples.
    assert plan.settings["seed"] != SETTINGS.seed and plan.settings["optics"]["energy_kev"] == 12.0
    assert voxel_size_um_of(workspace, plan) == pytest.approx(2.0)


def test_begin_night__moved_workspace_is_found_again(workspace: Workspace):
    labelled(workspace, 10)
    labelled(workspace, 11)
    begun(workspace)
    moved = Workspace(shutil.move(workspace.root, workspace.root.parent / "elsewhere"))
    plan = book_of(moved).open_plan()
    assert plan is not None
    data = build_night_dataset.fn(moved, plan, [], [])
    for case in read_dataset_record(moved.path(data) / DATASET)["cases"]:
        assert (moved.path(data) / DATASET / DATASET_NAME / case["volume"]).is_dir()
    assert str(settings_of(moved, plan).optics.detector_like).startswith(str(moved.root))


def poisoned(workspace: Workspace, how: str) -> Artefact:
    """Labels, or their volume, that must not be learned from."""
    scan, volume, labels = measured(workspace, 40)
    inputs: dict[str, Artefact | str] = {"volume": volume}
    if how == "shape":
        return labels_of(workspace, "corrected-labels", inputs, labels[1:])
    if how == "spacing":
        return labels_of(workspace, "corrected-labels", inputs, labels, voxel=2 * VOXEL)
    if how == "unknown class":
        names = {"background": 0, "liquor": 1, "loop": 2, "crystal": 3, "ice": 4}
        labels[0, 0, 0] = 4
        return labels_of(workspace, "corrected-labels", inputs, labels, names=names)
    if how == "background alone":
        return labels_of(workspace, "corrected-labels", inputs, np.zeros_like(labels))
    if how == "not finite":
        values = phantom(40, 24)[0]
        values[3, 4, 5] = np.nan
        return labels_of(
            workspace, "corrected-labels", {"volume": volume_of(workspace, scan, values)}, labels
        )
    if how == "unit of the voxel":
        coarse = volume_of(workspace, scan, phantom(40, 24)[0], 1e3 * VOXEL)
        return labels_of(workspace, "corrected-labels", {"volume": coarse}, labels, voxel=1e3 * VOXEL)
    made = labels_of(workspace, "corrected-labels", inputs, labels)
    piece = max(
        (workspace.path(made) / LABELS).rglob("c/**/*"), key=lambda p: p.is_file() and p.stat().st_size
    )
    if how == "missing piece":
        piece.unlink()
    elif how == "garbled piece":
        piece.write_bytes(b"\xff" * piece.stat().st_size)
    return made


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("shape", "must have the volume's shape"),
        ("spacing", "must have the volume's voxel size"),
        ("unknown class", "got also"),
        ("background alone", "background alone"),
        ("not finite", "finite"),
        ("unit of the voxel", "was its unit mistaken"),
        ("missing piece", "missing or has changed"),
        ("garbled piece", "cannot be read"),
    ],
)
def test_begin_night__quarantines_poison_and_goes_on_with_the_rest(
    workspace: Workspace, how: str, reason: str
):
    good = [labelled(workspace, seed)[1].key for seed in (10, 11)]
    bad = poisoned(workspace, how)
    plan = begun(workspace)
    assert outcomes(plan) == {**dict.fromkeys(good, "trained"), bad.key: "quarantined"}
    assert reason in plan.considered[bad.key].reason
    assert len(plan.cases) == 2


def test_begin_night__labels_changed_after_their_approval_are_quarantined(workspace: Workspace):
    for seed in (10, 11):
        labelled(workspace, seed)
    _, predicted = labelled(workspace, 12, "segmentation")
    decide(workspace, predicted, "approved", who="Ada")
    folder = workspace.path(predicted)
    before = (folder / "provenance.json").read_text()
    shutil.rmtree(folder / LABELS)
    write_labels(folder / LABELS, phantom(13, 24)[1], VOXEL)
    record = json.loads(before)
    record["files"] = {
        str(p.relative_to(folder)): {"bytes": p.stat().st_size, "sha256": ""}
        for p in folder.rglob("*") if p.is_file() and p.name != "provenance.json"
    }  # fmt: skip
    (folder / "provenance.json").write_text(json.dumps(record))
    plan = begun(workspace)
    assert "not those that the decision was made on" in plan.considered[predicted.key].reason


def test_begin_night__a_copy_of_a_held_out_volume_is_held_out(workspace: Workspace):
    """Imported once more under another key, as by another version of the code: known by its voxels."""
    for seed in (10, 11):
        labelled(workspace, seed)
    path = tiny_scan(workspace.root.parent / "copy.nxs", 400)
    scan = import_scan.fn(workspace, str(path), energy_kev=None, pixel_size_um=None)
    values, labels = phantom(4, 24, noise=20.0)  # the hold-out's
    copy = labels_of(workspace, "corrected-labels", {"volume": volume_of(workspace, scan, values)}, labels)
    plan = begun(workspace)
    assert outcomes(plan)[copy.key] == "held out" and len(plan.cases) == 2
    assert plan.holdout is not None and plan.considered[copy.key].holdout == plan.holdout.sha256


def test_begin_night__the_same_voxels_twice_train_once(workspace: Workspace):
    for seed in (10, 11):
        labelled(workspace, seed)
    values, labels = phantom(10, 24, noise=20.0)
    scan = import_scan.fn(
        workspace, str(tiny_scan(workspace.root.parent / "b.nxs", 401)), energy_kev=None, pixel_size_um=None
    )
    labels_of(workspace, "corrected-labels", {"volume": volume_of(workspace, scan, values)}, labels)
    plan = begun(workspace)
    assert sorted(outcomes(plan).values()) == ["superseded", "trained", "trained"]


def test_begin_night__too_few_that_can_train_are_left_waiting(workspace: Workspace):
    _, good = labelled(workspace, 10)
    bad = poisoned(workspace, "shape")
    plan = begun(workspace)
    assert plan.cases == () and outcomes(plan) == {bad.key: "quarantined"}
    assert plan.reason == "1 new labelled volume, a night needs 2; 1 more cannot be used"
    end_night(workspace, plan, NightEnd("skipped", plan.reason), "id", now=clock)
    assert [case.labels for case in look_for_new(workspace).cases] == [good.key]


def test_begin_night__nothing_is_kept_where_nothing_was_settled(workspace: Workspace):
    _, first = labelled(workspace, 10)
    waiting = look_for_new(workspace)
    decide(workspace, first, "rejected", who="Ada", reason="wrong")  # since the look
    plan = begin_night.fn(workspace, waiting, SETTINGS, now=clock)
    assert plan.cases == () and plan.considered == {}
    assert book_of(workspace).open_plan() is None


def test_begin_night__settings_that_cannot_work_leave_nothing(workspace: Workspace):
    for seed in (10, 11):
        labelled(workspace, seed)
    wrong = SETTINGS.model_copy(update={"forging": ForgingSettings(engine="lens", habits=("nonesuch",))})
    with pytest.raises(InputError, match="nonesuch"):
        begun(workspace, wrong)
    assert book_of(workspace).open_plan() is None


# --- matching the newest scan ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixel_um", "grid", "fitting"),
    [(2.5, 128, 128), (0.65, 128, 320), (1.0, 192, 208), (6.25, 32, 32), (20.0, 128, 48), (0.01, 128, 2048)],
)
def test_fitting_grid__shows_a_whole_sample(pixel_um: float, grid: int, fitting: int):
    """0.2 mm over 0.65 µm is 308 voxels, over 1 µm 200; 1 mm over 20 µm is 50; in steps of 16."""
    assert fitting_grid(grid, 1e-6 * pixel_um) == fitting


def test_matching_optics__takes_the_scans_physics(workspace: Workspace):
    path = tiny_scan(workspace.root.parent / "s.nxs", 50, **{"instrument/detector/distance": 0.25})
    scan = import_scan.fn(workspace, str(path), energy_kev=None, pixel_size_um=None)
    optics, warnings = matching_optics(workspace, scan.key, OpticsSettings(flats=4), 64)
    assert warnings == [] and optics.materials == "drawn" and optics.flats == 4
    assert optics.energy_kev == 12.0
    assert optics.projections == round(25 / 16 * 64)  # 25 angles over 16 columns
    assert optics.arc_deg == pytest.approx(187.5)  # 25 steps of 7.5 degrees
    assert optics.detector_like == scan.key
    assert calibrated(workspace, optics).detector_like == str(workspace.path(scan) / SCAN)


def test_matching_optics__a_scan_without_flats_leaves_the_detector_of_the_settings(workspace: Workspace):
    path = tiny_scan(workspace.root.parent / "s.nxs", 51)
    scan = import_scan.fn(workspace, str(path), energy_kev=None, pixel_size_um=None)
    import h5py

    with h5py.File(workspace.path(scan) / SCAN, "r+") as file:
        keys = next(
            d for n in ("entry", *file) if n in file for d in [file[n]["instrument/detector/image_key"]]
        )
        keys[...] = np.where(keys[...] == 1, 3, keys[...])  # flats called invalid
    optics, warnings = matching_optics(workspace, scan.key, OpticsSettings(), 64)
    assert optics.detector_like is None and optics.energy_kev == 12.0
    assert "detector of the settings" in warnings[0]


# --- the data set ---------------------------------------------------------------------------------------


def forged_pair(workspace: Workspace, seed: int) -> tuple[Artefact, Artefact]:
    values, labels = phantom(seed, 24, noise=20.0)
    volume = volume_of(workspace, f"scan-{seed}", values)
    return volume, labels_of(workspace, "sample", {"volume": volume}, labels)


def trained(workspace: Workspace, plan: NightPlan, *forged: tuple[Artefact, Artefact]) -> Artefact:
    """The data set of a night that has ended well."""
    data = build_night_dataset.fn(workspace, plan, [v for v, _ in forged], [m for _, m in forged])
    end = NightEnd("refused", "test", data.key, version_of(workspace, data))
    end_night(workspace, plan, end, "id", now=clock)
    return data


def sources(workspace: Workspace, data: Artefact) -> list[str]:
    return sorted(case.source for case in labelled_cases(workspace, data, trust_records=True))


def test_build_night_dataset__the_champions_cases_the_new_and_the_forged(workspace: Workspace):
    new = [labelled(workspace, 10), labelled(workspace, 11, "segmentation")]
    approval = decide(workspace, new[1][1], "approved", who="Ada")
    plan = begun(workspace)
    data = trained(workspace, plan, forged_pair(workspace, 60))
    assert sources(workspace, data) == ["forged"] * 3 + ["pseudo"] + ["real"] * 2
    record = read_dataset_record(workspace.path(data) / DATASET)
    assert record["holdout"] == plan.holdout.sha256 if plan.holdout else False
    by_labels = {case["origin"]["labels"]: case for case in record["cases"]}
    assert by_labels[new[1][1].key]["origin"]["approval"] == approval.sha256
    assert build_night_dataset.fn(workspace, plan, *zip(forged_pair(workspace, 60), strict=True)) == data
    named = labelled_cases(workspace, data, trust_records=False)
    assert [c.name for c in named] == [c.name for c in labelled_cases(workspace, data, trust_records=True)]


def test_build_night_dataset__the_next_night_grows_from_the_last(workspace: Workspace):
    first = [labelled(workspace, seed) for seed in (10, 11)]
    before = trained(workspace, begun(workspace), forged_pair(workspace, 60), forged_pair(workspace, 61))
    decide(workspace, first[0][1], "rejected", who="Ada", reason="the loop is missing")
    corrected = labels_of(workspace, "corrected-labels", {"volume": first[1][0]}, phantom(12, 24)[1])
    labelled(workspace, 13)
    plan = begun(workspace, SETTINGS.model_copy(update={"kept_forged": 1}), day=2)
    assert plan.number == 2 and len(plan.cases) == 2
    data = trained(workspace, plan, forged_pair(workspace, 62))
    cases = labelled_cases(workspace, data, trust_records=True)
    # Two forged ones are the champion's; of last night's two one is kept, and there is tonight's.
    assert sources(workspace, data) == ["forged"] * 4 + ["real"] * 3
    kept = {case.labels.key for case in cases}
    assert corrected.key in kept and not {labels.key for _, labels in first} & kept
    versions = versions_of(workspace)
    assert versions.lineage(version_of(workspace, data)) == [version_of(workspace, d) for d in (before, data)]


def test_build_night_dataset__labels_come_back_when_those_that_replaced_them_are_rejected(
    workspace: Workspace,
):
    volume, companion = labelled(workspace, 10)
    labelled(workspace, 11)
    trained(workspace, begun(workspace))
    corrected = labels_of(workspace, "corrected-labels", {"volume": volume}, phantom(12, 24)[1])
    labelled(workspace, 13)
    trained(workspace, begun(workspace, day=2))
    assert look_for_new(workspace).cases == ()
    decide(workspace, corrected, "rejected", who="Ada", reason="worse")
    assert [case.labels for case in look_for_new(workspace).cases] == [companion.key]


def test_begin_night__what_is_lost_from_the_workspace_is_left_out_and_said(workspace: Workspace):
    for seed in (10, 11):
        labelled(workspace, seed)
    known = next(c for c in (workspace.folder("labels")).glob("sample-*"))
    shutil.rmtree(known)
    plan = begun(workspace)
    assert len(plan.drop) == 1 and known.name in plan.warnings[0]
    assert sources(workspace, trained(workspace, plan)) == ["forged"] + ["real"] * 3


def test_old_forged__the_oldest_nights_go_first(workspace: Workspace):
    for seed in (10, 11):
        labelled(workspace, seed)
    record = begun(workspace).cases[0]
    forged = [
        replace(record, source="forged", origin={"night": night}, volume_sha256=f"{n:064}")
        for n, night in enumerate((1, 1, 2, 3))
    ]
    own = replace(record, source="forged", origin={}, volume_sha256="f" * 64)
    assert old_forged([own, record, *forged], 2) == sorted(r.content for r in forged[:2])
    assert old_forged(forged, 9) == []
    assert joined([record], [record, own]) == [record, own]


# --- the end --------------------------------------------------------------------------------------------


def test_decision_on__of_this_night_alone(workspace: Workspace):
    for seed in (10, 11):
        labelled(workspace, seed)
    registry = open_registry(workspace)
    said = {"who": BY, "reason": "test"}
    registry.refuse("model-x", **said)
    plan = begun(workspace)
    assert decision_on(workspace, plan, "model-x") is None
    registry.refuse("model-x", who="Ada", reason="test")
    registry.refuse("model-y", **said)
    assert decision_on(workspace, plan, "model-x") is None
    row = registry.refuse("model-x", **said)
    assert decision_on(workspace, plan, "model-x") == row
    assert judged(row, "") == ("refused", "test") and judged(None, "by hand") == ("promoted", "by hand")


def test_end_night__killed_before_the_plan_went_it_ends_the_same(workspace: Workspace):
    for seed in (10, 11):
        labelled(workspace, seed)
    plan = begun(workspace)
    folder = book_of(workspace).folder
    kept = (folder / "plan.json").read_text()
    assert close_ended(workspace, plan) is None
    data = trained(workspace, plan, forged_pair(workspace, 60))
    ended = {path.name: path.read_text() for path in folder.glob("*.json")}
    assert set(ended) == {"night-0001.json", "watermark.json"}
    watermark = book_of(workspace).watermark()
    assert (watermark.night, watermark.dataset) == (1, data.key)

    (folder / "plan.json").write_text(kept)
    (folder / "watermark.json").unlink()
    found = close_ended(workspace, plan)
    assert found is not None and found["outcome"] == "refused"
    assert {path.name: path.read_text() for path in folder.glob("*.json")} == ended
    assert look_for_new(workspace).cases == () and book_of(workspace).next_number() == 2


def test_end_night__a_failed_one_sets_its_cases_aside(workspace: Workspace):
    pairs = [labelled(workspace, seed) for seed in (10, 11)]
    bad = poisoned(workspace, "shape")
    plan = begun(workspace)
    end_night(workspace, plan, NightEnd("failed", "wrong input"), "id", now=clock)
    watermark = book_of(workspace).watermark()
    assert watermark.version is None
    assert {key: entry.outcome for key, entry in watermark.labels.items()} == {
        **{labels.key: "failed" for _, labels in pairs},
        bad.key: "quarantined",
    }
    assert look_for_new(workspace).cases == ()
    assert len(look_for_new(workspace, retry_failed=True).cases) == 2


def test_publish_night__says_what_was_quarantined_and_is_published_once(workspace: Workspace):
    for seed in (10, 11):
        labelled(workspace, seed)
    bad = poisoned(workspace, "shape")
    plan = begun(workspace)
    table = [{"set": "holdout", "class": "crystal", "champion": 0.8, "challenger": 0.9, "difference": 0.1}]
    row = open_registry(workspace).refuse(
        "model-x", who=BY, reason="test", evidence={"table": table, "reasons": ["a", "b"]}
    )
    outcome, reason = judged(row, "")
    end = NightEnd(outcome, reason, "dataset-1", "version-1", "model-x", row)
    identifier = publish_night.fn(workspace, plan, end)
    assert publish_night.fn(workspace, plan, end) == identifier
    shown = read_published(workspace.folder("published") / "nights" / identifier)
    assert shown.title == "Night 1: the champion stays"
    assert shown.summary["quarantined"] == 1 and shown.summary["reason"] == "a; b"
    assert any(bad.key in warning and "volume's shape" in warning for warning in shown.warnings)
    assert len(shown.read_table("cases")) == 3 and shown.read_table("decision")["challenger"].tolist() == [
        0.9
    ]


def test_night_book__one_at_a_time_and_a_damaged_file_is_named(workspace: Workspace):
    book = book_of(workspace)
    with book.held() as first, book.held() as second:
        assert (first, second) == (True, False)
    with book.held() as again:
        assert again
    (book.folder / "plan.json").write_text("{")
    with pytest.raises(StorageError, match=r"plan\.json cannot be read"):
        book.open_plan()
