"""Decisions on models as people see them: each once, with the worst cases where they still lie."""

import shutil
from pathlib import Path

import pytest

from tasks.promotions import publish_decisions
from tasks.registry import SetScores, open_registry, roll_back
from tests.tasks import test_registry
from tests.tasks.test_registry import by_name, decide, first, score
from tomoforge.results import Published, list_published, read_published
from tomoforge.storage import Workspace

template, workspace = test_registry.template, test_registry.workspace  # fixtures


def shown(workspace: Workspace) -> list[Published]:
    """All published decisions, oldest first."""
    found = list_published(workspace.folder("published"), "promotions")
    assert all(isinstance(item, Published) for item in found)
    return sorted((item for item in found if isinstance(item, Published)), key=lambda item: item.identifier)


def test_publish_decisions__promotion_refusal_and_rollback(workspace: Workspace):
    cases = first(workspace)
    old, new = (by_name(workspace, "models", name).key for name in ("old", "new"))
    worse = SetScores(cases, score(workspace, cases, 0.2), score(workspace, cases, 0.3))
    assert not decide(workspace, "new", worse).promoted
    better = SetScores(cases, score(workspace, cases, 0.2), score(workspace, cases, 0.1))
    assert decide(workspace, "new", better, by_hand=False).promoted
    roll_back.fn(workspace, by="Grace", reason="it cuts crystals short", to=None)

    last = publish_decisions.fn(workspace, old)
    started, refused, promoted, undone = shown(workspace)
    assert last == undone.identifier
    assert [item.title for item in shown(workspace)] == [
        f"Promoted {old}", f"Refused {new}", f"Promoted {new}", f"Rolled back to {old}",
    ]  # fmt: skip
    assert started.summary["champion_before"] == "nobody" and not started.warnings
    assert "there was no champion" in started.summary["grounds"]

    assert refused.summary["decision"] == "refused" and refused.summary["champion_before"] == old
    assert any("crystal changes by" in warning for warning in refused.warnings)
    # A tenth more of the crystal's voxels was spoilt; IoU is what is left, to a voxel of some hundred.
    assert refused.summary["iou_crystal_champion"] == pytest.approx(0.8, abs=0.005)
    assert refused.summary["iou_crystal_challenger"] == pytest.approx(0.7, abs=0.005)
    assert refused.summary["decided_by"] == "Ada" and refused.summary["new_real_cases"] == 2

    gate = promoted.read_table("gate").set_index("class")
    assert gate.loc["crystal", "low"] <= gate.loc["crystal", "difference"] <= gate.loc["crystal", "high"]
    assert list(promoted.read_table("worst_cases")["worst_class"].unique()) == ["crystal"]
    assert set(promoted.pictures) == {"confusion", "worst_case_1", "worst_case_2"}
    assert promoted.summary["by_hand"] is False and not promoted.warnings

    by_case = promoted.read_table("case_differences")
    assert list(by_case.columns[:3]) == ["set", "case", "class"] and set(by_case["set"]) == {"holdout"}
    crystal = by_case[by_case["class"] == "crystal"]["iou"]
    means = promoted.read_table("differences").set_index(["class", "measure"])
    # The gate's rows are the means of these, with the same resamples.
    assert gate.loc["crystal", "difference"] == pytest.approx(crystal.mean())
    assert means.loc[("crystal", "iou"), "low"] == pytest.approx(gate.loc["crystal", "low"])
    champion = promoted.read_table("champion").set_index(["class", "measure"])
    assert champion.loc[("crystal", "iou"), "mean"] == pytest.approx(gate.loc["crystal", "champion"])
    assert "case_differences" not in started.tables  # nobody to compare with

    assert undone.summary["decided_by"] == "Grace" and undone.summary["champion_before"] == new
    assert undone.warnings == (f"{new} is champion no more: it cuts crystals short",)
    audit = undone.read_table("audit")
    assert list(audit["action"][:1]) == ["rollback"] and {"freeze", "refuse", "promote"} <= set(
        audit["action"]
    )


def test_publish_decisions__each_once_and_what_a_killed_run_left(workspace: Workspace):
    assert publish_decisions.fn(workspace, "nobody") is None
    assert not (workspace.folder("published") / "promotions").exists()
    first(workspace)  # decided, and killed before it was published
    old = by_name(workspace, "models", "old").key
    identifier = publish_decisions.fn(workspace, old)
    assert identifier is not None
    folder = workspace.folder("published") / "promotions" / identifier
    written = (folder / "manifest.json").stat().st_mtime_ns
    open_registry(workspace).refuse("other", who="Ada", reason="by word of mouth")
    assert publish_decisions.fn(workspace, old) == identifier
    assert (folder / "manifest.json").stat().st_mtime_ns == written
    _, spoken = shown(workspace)
    assert spoken.warnings == ("by word of mouth",) and not spoken.pictures


def test_publish_decisions__links_the_published_model_and_does_without_what_is_gone(
    workspace: Workspace, tmp_path: Path
):
    cases = first(workspace)
    old = by_name(workspace, "models", "old").key
    place = workspace.folder("published") / "models" / f"{old}-01234567"
    place.mkdir(parents=True)
    (place / "manifest.json").write_text("{}")
    for case in cases.cases:
        shutil.rmtree(workspace.path(case.volume))
    identifier = publish_decisions.fn(workspace, old)
    item = read_published(workspace.folder("published") / "promotions" / str(identifier))
    assert item.sources == {"model": f"{old}-01234567"}
    assert set(item.pictures) == {"confusion"} and "gate" in item.tables
