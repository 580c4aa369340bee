"""Whole samples through Blender: one real forge, its repetition, its failures, and the judge of the
result."""

import dataclasses
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from scipy.ndimage import label

from tomoforge.errors import InputError, StageError
from tomoforge.samples.forge import build_meshes, forge_sample, judge
from tomoforge.samples.recipe import draw_recipe

GRID, VOXEL = 64, 5e-6
# One seed with a nylon loop, one with a polymer loop: both kinds of mesh are made below.
NYLON, POLYMER = 3, 0


@pytest.fixture(scope="module")
def recipe():
    return draw_recipe(NYLON, field_of_view=GRID * VOXEL)


@pytest.fixture(scope="module")
def forged(recipe):
    return forge_sample(recipe, GRID, VOXEL)


def test_forge_sample__gives_the_three_classes_as_uint8(forged):
    assert forged.labels.shape == (GRID, GRID, GRID)
    assert forged.labels.dtype == np.uint8
    assert np.unique(forged.labels).tolist() == [0, 1, 2, 3]
    assert forged.record["liquor"] in ("mantaflow", "analytic_lens")


def test_forge_sample__crystal_has_the_volume_of_its_polyhedron(recipe, forged):
    (crystal,) = forged.meshes["crystal"]
    assert crystal.is_closed()
    # Blender keeps float32 coordinates.
    assert crystal.volume == pytest.approx(recipe.crystal().volume, rel=1e-5)
    # Voxels of a twentieth of the crystal: its surface layer is known to some per cent.
    voxels = (forged.labels == 3).sum() * VOXEL**3
    assert voxels == pytest.approx(crystal.volume, rel=0.08)


def test_forge_sample__meshes_are_closed_and_face_outwards(forged):
    for parts in forged.meshes.values():
        for part in parts:
            assert part.is_closed()
            assert part.volume > 0


def test_forge_sample__stem_leaves_the_field_downwards_only(forged):
    solid = forged.labels > 0
    assert (forged.labels[0] == 2).any()
    assert not solid[-1].any()
    for side in (solid[:, 0], solid[:, -1], solid[:, :, 0], solid[:, :, -1]):
        assert not side.any()


def test_forge_sample__liquor_is_one_piece_and_wets_crystal_and_loop(forged):
    assert label(forged.labels == 1)[1] == 1
    assert forged.record["wetted_share"] > 0.1
    assert label(forged.labels > 0, np.ones((3, 3, 3)))[1] == 1


def test_forge_sample__nylon_wire_has_its_volume(recipe, forged):
    ring = forged.meshes["loop"][0]
    mount = recipe.mount
    assert mount.kind == "nylon"
    low, high = ring.bounds
    assert (high - low)[2] == pytest.approx(2 * mount.outer_half_height, rel=0.05)  # tilted ≤ 8°
    perimeter = ring.volume / (np.pi * mount.wire_radius**2)
    # Ramanujan's perimeter of the ellipse; the drop's point shortens it, the wire is a polygon of
    # 20 sides.
    a, b = mount.outer_half_width - mount.wire_radius, mount.outer_half_height - mount.wire_radius
    ellipse = np.pi * (3 * (a + b) - np.sqrt((3 * a + b) * (a + 3 * b)))
    assert perimeter == pytest.approx(ellipse, rel=0.1)


def test_forge_sample__same_recipe_same_bytes_and_nothing_left_behind(recipe, forged, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    again = forge_sample(recipe, GRID, VOXEL)
    assert again.labels.tobytes() == forged.labels.tobytes()
    for name, parts in forged.meshes.items():
        for one, two in zip(parts, again.meshes[name], strict=True):
            assert np.array_equal(one.vertices, two.vertices)
            assert np.array_equal(one.triangles, two.triangles)
    same = {key: value for key, value in forged.record.items() if key != "seconds"}
    assert same == {key: value for key, value in again.record.items() if key != "seconds"}
    assert list(tmp_path.iterdir()) == []


def test_forge_sample__spilt_liquor_falls_back_to_the_lens_and_says_so():
    drawn = draw_recipe(POLYMER, field_of_view=GRID * VOXEL)
    # A force that throws the drop across the field in every attempt; coarse cells keep it quick.
    liquor = dataclasses.replace(drawn.liquor, drift=(0.0, 2e-3, 0.0), bake_resolution=20)
    sample = forge_sample(dataclasses.replace(drawn, liquor=liquor), GRID, VOXEL)
    assert sample.record["mount"] == "polymer"
    assert sample.record["liquor"] == "analytic_lens"
    assert len(sample.record["failures"]) == 3
    (lens,) = sample.meshes["liquor"]
    a, b, c = liquor.lens_semi_axes
    # An icosphere of 642 vertices lacks about 1 % of the ellipsoid.
    assert lens.volume == pytest.approx(4 / 3 * np.pi * a * b * c, rel=0.02)
    assert all(part.is_closed() and part.volume > 0 for part in sample.meshes["loop"])


def test_build_meshes__time_out_is_a_stage_error_and_leaves_nothing(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(StageError, match="ended"):
        build_meshes(recipe, timeout_s=0.5)
    assert list(tmp_path.iterdir()) == []


def test_mantaflow_repair__derived_types_inherit_after_it_and_a_second_call_adds_nothing(tmp_path):
    code = (
        "import bpy, manta\n"
        "from tomoforge.samples import mantaflow_repair as repair\n"
        "assert repair.apply() > 100, 'this bpy does not need the repair any more?'\n"
        "assert repair.apply() == 0\n"
        "assert all(hasattr(manta.LevelsetGrid, m) for m in ('setConst', 'join', 'copyFrom'))\n"
        "solver = manta.Solver(name='smoke', gridSize=manta.vec3(8, 8, 8), dim=3)\n"
        "grid = solver.create(manta.LevelsetGrid)\n"
        "grid.setConst(2.5)\n"
        "assert grid.getMaxAbs() == 2.5\n"
        "del grid, solver\n"
        "bpy.ops.wm.read_factory_settings(use_empty=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr


# --- the judge, on volumes made by hand -----------------------------------------------------------


def made(**boxes):
    """A field of 40³ with a crystal in liquor on a stem; ``boxes`` replaces boxes of (z, y, x)
    slices."""
    labels = np.zeros((40, 40, 40), np.uint8)
    parts = {
        "liquor": (1, np.s_[10:30, 10:30, 10:30]),
        "loop": (2, np.s_[0:12, 18:22, 18:22]),
        "crystal": (3, np.s_[15:25, 15:25, 15:25]),
    }
    for name, (value, where) in parts.items():
        box = boxes.get(name, where)
        if box is not None:
            labels[box] = value
    return labels


def test_judge__measures_a_good_sample():
    quality = judge(made())
    assert quality["fractions"]["crystal"] == pytest.approx(10**3 / 40**3)
    assert quality["wetted_share"] == 1.0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (made(crystal=None), "crystal fills 0.0"),
        (made(liquor=None), "liquor fills 0.0"),
        (made(loop=None), "loop fills 0.0"),
        (made(crystal=np.s_[15:25, 15:25, 10:30:8]), "one piece"),
        (made(liquor=np.s_[5:12, 5:35, 5:35]), "wets"),
        (made(liquor=np.s_[10:30, 10:30, 10:40]), r"liquor reaches the edge of the field at \+x"),
        (made(loop=np.s_[0:12, 0:22, 18:22]), r"loop reaches the edge of the field at -y"),
        (made(loop=np.s_[3:12, 18:22, 18:22]), "stem ends"),
    ],
)
def test_judge__names_what_is_wrong(labels, message):
    with pytest.raises(StageError, match=message):
        judge(labels)


@pytest.mark.parametrize(
    ("grid", "voxel_size", "message"),
    [
        (0, VOXEL, "shape"),
        (-64, VOXEL, "shape"),
        ((64, 64), VOXEL, "shape"),
        (GRID, 0.0, "voxel_size"),
        (GRID, -VOXEL, "voxel_size"),
        (GRID, VOXEL / 2, "field of view"),
        (GRID, VOXEL * 3, "field of view"),
    ],
)
def test_forge_sample__bad_field_is_refused_before_blender_starts(recipe, grid, voxel_size, message):
    with pytest.raises(InputError, match=message):
        forge_sample(recipe, grid, voxel_size)
