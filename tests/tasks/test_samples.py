"""One sample of a set on a worker: what happens when its Blender dies, hangs, or never succeeds."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tasks.samples import LABELS, RECORD, TILE, ForgingPlan, _forge_piece, plan_forging
from tomoforge.config import ForgingSettings
from tomoforge.errors import InputError, MissingComponentError, StageError
from tomoforge.samples.engines import LENS, Engine
from tomoforge.samples.gallery import read_tile
from tomoforge.samples.recipe import Variety
from tomoforge.volumes import read_label_names, read_labels

BLENDER = shutil.which(os.environ.get("TOMOFORGE_BLENDER") or "blender")
needs_blender = pytest.mark.skipif(BLENDER is None, reason="no Blender executable on this machine")
GRID, VOXEL = 48, 6e-6
CLEAN = Variety(flaws=(), most_crystals=1, bubbles=False)


@pytest.fixture
def wrapped(tmp_path):
    """A Blender whose runs end as told: 'kill', 'stop' or 'run', one a run, then always 'run'."""

    def make(*ends: str) -> ForgingPlan:
        (tmp_path / "ends").write_text("".join(f"{end}\n" for end in ends))
        program = tmp_path / "blender"
        program.write_text(
            f'#!/bin/sh\nend=$(head -n 1 "{tmp_path}/ends")\nsed -i 1d "{tmp_path}/ends"\n'
            '[ "$end" = kill ] && kill -KILL $$\n[ "$end" = stop ] && kill -STOP $$\n'
            f'exec "{BLENDER}" "$@"\n'
        )
        program.chmod(0o755)
        return ForgingPlan("protein_crystal", CLEAN, Engine("blender", "wrapped", str(program)), 20.0)

    return make


def piece(plan: ForgingPlan, folder: Path, index: int = 0) -> dict:
    folder.mkdir()
    return _forge_piece(plan, 1, index, GRID, VOXEL, str(folder))


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@needs_blender
def test_forge_piece__repeats_its_bytes_with_the_executable(wrapped, tmp_path):
    first, second = piece(wrapped(), tmp_path / "a"), piece(wrapped(), tmp_path / "b")
    assert first == second and first["rejected"] == []
    assert files(tmp_path / "a") == files(tmp_path / "b")
    labels, voxel = read_labels(tmp_path / "a" / LABELS)
    assert labels.shape == (GRID,) * 3 and voxel == VOXEL
    assert json.loads((tmp_path / "a" / RECORD).read_text()) == json.loads(json.dumps(first))
    assert read_tile(tmp_path / "a" / TILE).shape == (240, 240, 3)


@needs_blender
def test_forge_piece__a_blender_killed_once_gets_the_same_seed_again(wrapped, tmp_path):
    calm, shaken = piece(wrapped(), tmp_path / "a"), piece(wrapped("kill"), tmp_path / "b")
    assert [entry["reason"] for entry in shaken["rejected"]] == ["Blender died"]
    assert "SIGKILL" in shaken["rejected"][0]["message"]
    assert shaken["recipe"] == calm["recipe"]
    assert files(tmp_path / "a" / LABELS) == files(tmp_path / "b" / LABELS)


@needs_blender
def test_forge_piece__one_that_dies_again_is_replaced_by_the_next_seed(wrapped, tmp_path):
    calm, shaken = piece(wrapped(), tmp_path / "a"), piece(wrapped("kill", "kill"), tmp_path / "b")
    assert [entry["reason"] for entry in shaken["rejected"]] == ["Blender died"] * 2
    assert shaken["recipe"] != calm["recipe"]


@needs_blender
def test_forge_piece__a_stopped_blender_is_ended_and_its_seed_taken_again(wrapped, tmp_path):
    plan = wrapped("stop")
    shaken = piece(ForgingPlan(plan.family, plan.variety, plan.engine, 15.0), tmp_path / "b")
    (entry,) = shaken["rejected"]
    assert entry["reason"] == "Blender died" and "ran longer than its 15 s" in entry["message"]


@needs_blender
def test_forge_piece__gives_up_after_five_seeds_and_tells_all_reasons(wrapped, tmp_path):
    with pytest.raises(StageError, match="sample 0 of set 1 could not be forged in 5 tries") as caught:
        piece(wrapped(*["kill"] * 10), tmp_path / "b")
    assert str(caught.value).count("Blender died") == 10


def test_forge_piece__granular_labels_carry_their_names(tmp_path):
    plan = ForgingPlan("granular", Variety(), LENS, 1.0)
    (tmp_path / "g").mkdir()
    record = _forge_piece(plan, 1, 0, 48, 1e-6, str(tmp_path / "g"))
    assert read_label_names(tmp_path / "g" / LABELS) == record["names"]
    assert record["forging"]["packing_fraction"] > 0.2


def test_plan_forging__missing_blender_and_unknown_names_are_refused_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("TOMOFORGE_BLENDER", str(tmp_path / "nowhere"))
    with pytest.raises(MissingComponentError, match="no executable"):
        plan_forging(ForgingSettings(engine="blender"))
    with pytest.raises(InputError, match="mounts must be among"):
        plan_forging(ForgingSettings(mounts="glass", engine="lens"))
    assert plan_forging(ForgingSettings(engine="blender"), family="granular").engine == LENS
    with pytest.raises(InputError, match="field_of_view"):
        plan_forging(ForgingSettings(engine="lens"), 30e-6)
    assert plan_forging(ForgingSettings(engine="lens")).variety == Variety()
    chosen = plan_forging(ForgingSettings(engine="lens", flaws="none", habits="thaumatin", bubbles=False))
    assert chosen.variety == Variety(flaws=(), habits=("thaumatin",), bubbles=False)


def test_forging_plan__its_key_knows_the_engine_but_not_its_place():
    here, there = (ForgingPlan("protein_crystal", CLEAN, Engine("blender", "3.4.1", p), 9.0) for p in "ab")
    other = ForgingPlan("protein_crystal", CLEAN, Engine("bpy", "5.0.1"), 9.0)
    assert here.key() == there.key() != other.key()
