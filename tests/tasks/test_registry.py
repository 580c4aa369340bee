"""From artefacts of the workspace to a decision: cases, hold-outs, what is new, promotion and rollback."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.artefacts import produce
from tasks.registry import (
    DATABASE,
    SCORES,
    CaseSet,
    Decision,
    GateSettings,
    SetScores,
    champion_of,
    deciding,
    find_model,
    frozen_cases,
    judge_model,
    labelled_cases,
    open_registry,
    register_model,
    roll_back,
    score_model,
)
from tasks.samples import LABELS
from tasks.segmenter import MODEL, build_dataset
from tasks.volumes import VOLUME
from tests.library.segmentation.model_folders import write_folder
from tests.library.segmentation.phantom import phantom
from tomoforge.config import parse_settings
from tomoforge.errors import ConfigError, InputError
from tomoforge.segmentation.audit import AliasMovedError
from tomoforge.segmentation.case_records import Source
from tomoforge.segmentation.gate import GateRules
from tomoforge.storage import Artefact, Workspace
from tomoforge.volumes import read_labels, write_labels, write_volume

VOXEL = 2.5e-6  # [m]
SAID: dict[str, Any] = {"by": "Ada", "reason": "test"}
GATE = GateSettings()
HELD: dict[int, Source] = {5: "real", 6: "real", 7: "real"}  # seeds of the phantoms held out


class Inline:
    """A cluster that does the work here."""

    def map(self, function: Callable, pieces: Sequence[tuple], **options: Any) -> list[Any]:
        return [function(*piece) for piece in pieces]


def artefact(
    workspace: Workspace,
    kind: str,
    stage: str,
    name: str,
    build: Callable[[Path], object],
    **inputs: Artefact,
) -> Artefact:
    return produce(
        workspace,
        kind,
        stage,
        parameters={"name": name},
        inputs=inputs,
        packages=("segmentation",),
        build=lambda folder: build(folder) and None,
    )


def labelled(workspace: Workspace, seed: int) -> tuple[Artefact, Artefact]:
    """Volume and labels of a phantom."""
    volume, labels = phantom(seed, 24, noise=20.0)
    return (
        artefact(workspace, "volumes", "volume", f"{seed}", _volume(volume)),
        artefact(workspace, "labels", "labels", f"{seed}", _labels(labels)),
    )


def _volume(volume: np.ndarray) -> Callable[[Path], object]:
    return lambda folder: write_volume(folder / VOLUME, volume, VOXEL)


def _labels(labels: np.ndarray) -> Callable[[Path], object]:
    return lambda folder: write_labels(folder / LABELS, labels, VOXEL)


def dataset(workspace: Workspace, seeds: Mapping[int, Source]) -> Artefact:
    """Phantoms by their seed, each from where it is said to come."""
    pairs = [labelled(workspace, seed) for seed in seeds]
    return build_dataset.fn(workspace, *zip(*pairs, strict=True), sources=list(seeds.values()))


def model(workspace: Workspace, name: str, data: Artefact) -> Artefact:
    return artefact(
        workspace, "models", "model", name, lambda f: write_folder(f / MODEL, name.encode()), dataset=data
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a hold-out of three cases, models old and new, and an empty registry."""
    root = tmp_path_factory.mktemp("workspace")
    workspace = Workspace(root)
    forged: dict[int, Source] = {1: "forged", 2: "forged"}
    register_model.fn(workspace, model(workspace, "old", dataset(workspace, forged)))
    register_model.fn(
        workspace, model(workspace, "new", dataset(workspace, {**forged, 3: "real", 4: "real"}))
    )
    return root


@pytest.fixture
def workspace(template: Path, tmp_path: Path) -> Workspace:
    return Workspace(shutil.copytree(template, tmp_path / "w"))


def by_name(workspace: Workspace, kind: str, name: str) -> Artefact:
    for path in workspace.folder(kind).iterdir():
        found = workspace.find(kind, path.name)
        if found is not None and workspace.read_provenance(found)["parameters"].get("name") == name:
            return found
    raise AssertionError(name)


def holdout(workspace: Workspace, **options: Any) -> CaseSet:
    given: dict[str, Any] = {"dataset": None, "replace": False, **SAID, **options}
    cases = frozen_cases.fn(workspace, "holdout", **given)
    assert cases is not None
    return cases


def score(workspace: Workspace, cases: CaseSet, spoil: float) -> Artefact:
    """Scores of the truth with a share of its crystal called liquor."""
    predicted = []
    for n, case in enumerate(cases.cases):
        labels, _ = read_labels(workspace.path(case.labels) / LABELS)
        crystal = np.flatnonzero(labels == 3)
        labels.flat[crystal[: round(spoil * crystal.size)]] = 1
        predicted.append(artefact(workspace, "labels", "segmentation", f"{spoil} {n}", _labels(labels)))
    return score_model.fn(Inline(), workspace, cases, predicted, name="test")


def decide(workspace: Workspace, name: str, scores: SetScores, **options: Any) -> Decision:
    given: dict[str, Any] = {"settings": GATE, "by_hand": True, **SAID, **options}
    champion = given.pop("champion", champion_of(workspace))
    return judge_model.fn(workspace, by_name(workspace, "models", name), champion, [scores], **given)


def first(workspace: Workspace) -> CaseSet:
    """The old model as champion, on the hold-out that is frozen with it."""
    cases = holdout(workspace, dataset=dataset(workspace, HELD).key)
    assert decide(workspace, "old", SetScores(cases, None, score(workspace, cases, 0.2))).promoted
    return cases


def test_judge_model__from_the_first_champion_to_the_rollback(workspace: Workspace):
    assert champion_of(workspace) is None
    cases = first(workspace)
    old, new = (by_name(workspace, "models", name) for name in ("old", "new"))
    assert champion_of(workspace) == old
    scores = SetScores(cases, score(workspace, cases, 0.2), score(workspace, cases, 0.1))
    decision = decide(workspace, "new", scores, by_hand=False)
    assert decision.promoted and champion_of(workspace) == new
    text = "\n".join(decision.lines)
    assert f"promoted  {new.key}" in text and "2 new real cases seen" in text and "3 cases" in text
    row = roll_back.fn(workspace, by="Ada", reason="test", to=None)
    assert (row.before, row.after) == (new.key, old.key) and champion_of(workspace) == old
    audit = open_registry(workspace).audit()
    assert [r.action for r in audit if r.action not in ("challenge", "clear")] == [
        "freeze",
        "promote",
        "promote",
        "rollback",
    ]
    assert audit[-3].evidence["sets"] == {"holdout": cases.measured().sha256}


def test_judge_model__a_refusal_is_a_row_with_its_reasons(workspace: Workspace):
    cases = first(workspace)
    scores = SetScores(cases, score(workspace, cases, 0.2), score(workspace, cases, 0.3))
    decision = decide(workspace, "new", scores)
    assert not decision.promoted
    row = open_registry(workspace).audit()[-1]
    assert row.action == "refuse" and "crystal changes by" in row.reason
    assert row.evidence["rules"]["class_fall"] == 0.01
    assert open_registry(workspace).challenger_key() == by_name(workspace, "models", "new").key


def test_judge_model__another_promotion_came_first(workspace: Workspace):
    cases = first(workspace)
    scores = SetScores(cases, None, score(workspace, cases, 0.1))
    with pytest.raises(AliasMovedError):
        decide(workspace, "new", scores, champion=None)  # compared when there was nobody yet


@pytest.mark.parametrize("relabelled", [False, True])
def test_judge_model__refuses_one_that_has_seen_the_holdout(workspace: Workspace, relabelled: bool):
    volume, labels = labelled(workspace, 5)
    if relabelled:
        truth, _ = read_labels(workspace.path(labels) / LABELS)
        truth.flat[np.flatnonzero(truth == 1)[:5]] = 2
        labels = artefact(workspace, "labels", "labels", "relabelled", _labels(truth))
    data = build_dataset.fn(workspace, [volume], [labels], sources=["real"])
    (case,) = labelled_cases(workspace, data, trust_records=True)
    leaky = model(workspace, "leaky", data)
    register_model.fn(workspace, leaky)
    cases = holdout(workspace, dataset=dataset(workspace, HELD).key)
    (tested,) = (c.name for c in cases.cases if c.name.split("-")[0] == case.name.split("-")[0])
    assert (tested == case.name) != relabelled
    decision = decide(workspace, "leaky", SetScores(cases, None, score(workspace, cases, 0.0)))
    assert not decision.promoted
    assert f"the challenger was trained on the test case {tested[:12]}" in decision.lines[-1]


def test_frozen_cases__are_hashed_as_they_are_now(workspace: Workspace):
    data = dataset(workspace, HELD)
    cases = first(workspace)
    assert holdout(workspace) == cases  # found again by what was frozen
    recorded = labelled_cases(workspace, data, trust_records=True)
    assert [case.name for case in cases.cases] == [case.name for case in recorded]

    labels, _ = read_labels(workspace.path(cases.cases[1].labels) / LABELS)
    labels[labels == 2] = 1
    shutil.rmtree(workspace.path(cases.cases[1].labels) / LABELS)
    write_labels(workspace.path(cases.cases[1].labels) / LABELS, labels, VOXEL)
    changed = holdout(workspace)
    assert [a.name == b.name for a, b in zip(cases.cases, changed.cases, strict=True)] == [True, False, True]
    scores = SetScores(changed, score(workspace, changed, 0.2), score(workspace, changed, 0.1))
    decision = decide(workspace, "new", scores)
    assert not decision.promoted and "the holdout set has changed" in "\n".join(decision.lines)
    assert champion_of(workspace) == by_name(workspace, "models", "old")


def test_frozen_cases__replaced_on_demand_alone(workspace: Workspace):
    cases = first(workspace)
    other = dataset(workspace, {5: "real", 6: "real"})
    registry = open_registry(workspace)
    holdout(workspace, dataset=other.key)
    standing = registry.frozen("holdout")
    assert standing is not None and standing.after == cases.measured().sha256
    replaced = holdout(workspace, dataset=other.key, replace=True)
    frozen = registry.frozen("holdout")
    assert frozen is not None and frozen.after == replaced.measured().sha256
    assert frozen.before == cases.measured().sha256 and frozen.evidence["dataset"] == other.key
    assert frozen_cases.fn(workspace, "regression", dataset=None, replace=False, **SAID) is None


def test_score_model__names_cases_by_content(workspace: Workspace):
    cases = holdout(workspace, dataset=dataset(workspace, HELD).key)
    table = pd.read_parquet(workspace.path(score(workspace, cases, 0.2)) / SCORES)
    assert set(table["case"]) == {case.name for case in cases.cases}
    crystal = table[table["class"] == "crystal"]
    # A fifth of the crystal's voxels is missing, to a rounded voxel of some hundred, and none added.
    assert np.allclose(crystal["iou"], 0.8, atol=0.005) and (crystal["precision"] == 1).all()


def test_registry__champion_is_none_and_nothing_made_before_there_is_one(tmp_path: Path):
    workspace = Workspace(tmp_path)
    assert champion_of(workspace) is None
    assert not (workspace.root / DATABASE).exists()


def test_find_model__names_what_there_is(workspace: Workspace):
    key = by_name(workspace, "models", "old").key
    assert find_model(workspace, key).key == key
    for wrong in ("model-0", "../x"):
        with pytest.raises(InputError, match=rf"(?s){wrong}.*there are: .*{key}"):
            find_model(workspace, wrong)


def test_deciding__login_unless_given(monkeypatch: pytest.MonkeyPatch):
    assert deciding("Ada") == "Ada"
    monkeypatch.setenv("LOGNAME", "grace")
    assert deciding(None) == "grace"


def test_gate_settings__are_the_rules():
    assert GATE.rules() == GateRules()
    changed = parse_settings(GateSettings, {"floor_loop": 0.1, "new_cases": 5, "by_interval": True})
    floor = {**GateRules().floor, "loop": 0.1}
    assert changed.rules() == replace(GateRules(), floor=floor, new_cases=5, by_interval=True)
    for wrong in ({"class_fall": 1.5}, {"flor_loop": 0.1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            parse_settings(GateSettings, wrong)
