"""Whole samples through Blender: one of each mount, their repetition, what they are made of, and granular ones."""

import dataclasses
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label

from tests.library.samples.inside import disagreements, open3d_inside, surface_distance
from tomoforge.errors import InputError, WorkerDiedError
from tomoforge.samples.engines import find_engine
from tomoforge.samples.forge import forge_sample
from tomoforge.samples.recipe import FLAWS, Variety, draw_recipe
from tomoforge.samples.voxelize import field_origin

GRID, VOXEL = 64, 5e-6
CLEAN = Variety(flaws=(), most_crystals=1, bubbles=False)


def drawn(mount, seed=3, **change):
    variety = dataclasses.replace(CLEAN, mounts=(mount,), **change)
    return draw_recipe(seed, field_of_view=GRID * VOXEL, variety=variety)


@pytest.fixture(scope="module", params=["nylon", "polymer", "polyimide"])
def forged(request):
    recipe = drawn(request.param)
    return recipe, forge_sample(recipe, GRID, VOXEL, fractions=request.param == "nylon")


@pytest.fixture(scope="module")
def flawed():
    """Several crystals with all flaws in liquor with bubbles."""
    recipe = drawn("nylon", 8, flaws=FLAWS, most_crystals=3, bubbles=True)
    first = dataclasses.replace(
        recipe.crystals[0].variation, cracks=1, crack_width=12e-6, dissolution=0.5, satellites=1
    )
    crystals = (dataclasses.replace(recipe.crystals[0], variation=first), *recipe.crystals[1:])
    liquor = dataclasses.replace(recipe.liquor, bubble_radii=(16e-6, 14e-6))
    recipe = dataclasses.replace(recipe, crystals=crystals, liquor=liquor)
    return recipe, forge_sample(recipe, GRID, VOXEL)


def test_forge_sample__gives_the_three_classes_as_uint8(forged):
    recipe, sample = forged
    assert sample.labels.shape == (GRID, GRID, GRID)
    assert sample.labels.dtype == np.uint8
    assert np.unique(sample.labels).tolist() == [0, 1, 2, 3]
    assert sample.record["liquor"] in ("mantaflow", "analytic_lens")
    assert sample.record["engine"] == find_engine("auto").title
    assert sample.record["mount"] == recipe.mount.kind


def test_forge_sample__crystal_has_the_volume_of_its_polyhedron(forged):
    recipe, sample = forged
    (crystal,) = sample.meshes["crystal"]
    assert crystal.is_closed()
    assert crystal.volume == pytest.approx(recipe.crystals[0].polyhedron().volume, rel=1e-9, abs=0)
    # Voxels of a twentieth of the crystal: its surface layer is known to some per cent.
    voxels = (sample.labels == 3).sum() * VOXEL**3
    assert voxels == pytest.approx(crystal.volume, rel=0.08, abs=0)


def test_forge_sample__meshes_are_closed_and_face_outwards(forged):
    _, sample = forged
    for parts in sample.meshes.values():
        for part in parts:
            assert part.is_closed()
            assert part.volume > 0


def test_forge_sample__solids_do_not_interpenetrate_and_leak_nowhere(forged):
    _, sample = forged
    rng = np.random.default_rng(5)
    index = rng.integers(0, GRID, (20_000, 3))
    points = field_origin(sample.labels.shape, VOXEL) + VOXEL * index[:, ::-1]
    found = sample.labels[tuple(index.T)]
    # Open3D, an independent inside test; within 2e-4 voxel of a surface its float32 rays may differ.
    assert disagreements(found == 3, sample.meshes["crystal"], points, 2e-4 * VOXEL) == 0
    assert disagreements(found == 2, sample.meshes["loop"], points, 2e-4 * VOXEL) == 0


def test_forge_sample__stem_leaves_the_field_downwards_only(forged):
    _, sample = forged
    solid = sample.labels > 0
    assert (sample.labels[0] == 2).any()
    assert not solid[-1].any()
    for side in (solid[:, 0], solid[:, -1], solid[:, :, 0], solid[:, :, -1]):
        assert not side.any()


def test_forge_sample__liquor_wets_crystal_and_loop_and_holds_all_together(forged):
    _, sample = forged
    assert sample.record["crystal_wetted_share"] > 0.1
    assert sample.record["loop_wetted_share"] > 0.02
    assert label(sample.labels > 0, np.ones((3, 3, 3)))[1] == 1


def test_forge_sample__fractions_add_up_and_round_to_the_labels(forged):
    recipe, sample = forged
    if recipe.mount.kind != "nylon":
        assert sample.fractions == {}
        return
    total = sum(sample.fractions.values())
    assert set(sample.fractions) == {"liquor", "loop", "crystal"}
    assert total.min() >= 0 and total.max() <= 1 + 1e-6
    for name, value in (("liquor", 1), ("loop", 2), ("crystal", 3)):
        share = sample.fractions[name]
        # Sums of voxels by their centres scatter around sums of fractions: some per cent at this grid.
        assert share.sum() == pytest.approx((sample.labels == value).sum(), rel=0.05)
        # A voxel that is all of one class has its label; one with less than a third has not.
        assert (sample.labels[share > 0.999] == value).all()
        assert not (sample.labels[share < 0.001] == value).any()


def test_forge_sample__same_recipe_same_bytes_and_nothing_left_behind(forged, tmp_path, monkeypatch):
    recipe, sample = forged
    if recipe.mount.kind != "nylon":
        return  # one mount is enough for the repetition
    engine = find_engine("auto")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    again = forge_sample(recipe, GRID, VOXEL, engine=engine)
    assert again.labels.tobytes() == sample.labels.tobytes()
    for name, parts in sample.meshes.items():
        for one, two in zip(parts, again.meshes[name], strict=True):
            assert np.array_equal(one.vertices, two.vertices)
            assert np.array_equal(one.triangles, two.triangles)
    same = {key: value for key, value in sample.record.items() if key != "cpu_seconds"}
    assert same == {key: value for key, value in again.record.items() if key != "cpu_seconds"}
    assert list(tmp_path.iterdir()) == []


def test_forge_sample__cracks_and_pits_are_taken_from_the_crystal_and_bubbles_from_the_liquor(flawed):
    _, sample = flawed
    assert sample.meshes["voids"]
    rng = np.random.default_rng(7)
    index = rng.integers(0, GRID, (20_000, 3))
    points = field_origin(sample.labels.shape, VOXEL) + VOXEL * index[:, ::-1]
    found = sample.labels[tuple(index.T)] == 3

    solid = open3d_inside(sample.meshes["crystal"], points) & ~open3d_inside(sample.meshes["voids"], points)
    differ = points[found != solid]
    if len(differ):
        near = surface_distance([*sample.meshes["crystal"], *sample.meshes["voids"]], differ)
        assert near.max() < 2e-4 * VOXEL
    assert sample.record["bubbles"] > 0
    # A bubble is empty and closed in: an island of background.
    islands, count = label(sample.labels == 0)
    sizes = np.bincount(islands.ravel())[1:]
    assert count > 1 and np.sort(sizes)[-2] > 20


def test_forge_sample__lens_engine_does_without_blender(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    sample = forge_sample(drawn("polymer"), GRID, VOXEL, engine="lens")
    assert sample.record["engine"] == "lens" and sample.record["liquor"] == "analytic_lens"
    assert (sample.labels == 1).sum() > 1000


def test_forge_sample__spilt_liquor_falls_back_to_the_lens_and_says_so():
    recipe = drawn("polymer")
    # A force that throws the drop across the field in every attempt; coarse cells keep it quick.
    liquor = dataclasses.replace(recipe.liquor, drift=(0.0, 4e-3, 0.0), bake_resolution=20)
    sample = forge_sample(dataclasses.replace(recipe, liquor=liquor), GRID, VOXEL)
    assert sample.record["liquor"] == "analytic_lens"
    assert len(sample.record["bake_failures"]) == 3
    lens = sample.meshes["liquor"][0]
    a, b, c = liquor.lenses[0].semi_axes
    # An icosphere of 2562 vertices lacks 0.22 % of the ellipsoid.
    assert lens.volume == pytest.approx(4 / 3 * np.pi * a * b * c, rel=0.003, abs=0)


def test_forge_sample__truncated_mount_may_leave_the_field():
    for seed in range(20):
        recipe = drawn("polymer", seed, truncation=True)
        if recipe.truncated:
            break
    sample = forge_sample(recipe, GRID, VOXEL, engine="lens")
    assert recipe.truncated and sample.record["truncated"]
    faces = [sample.labels[-1], *(sample.labels.take(i, a) for a in (1, 2) for i in (0, -1))]
    assert any((face == 2).any() for face in faces)


def test_forge_sample__the_shape_does_not_depend_on_the_grid():
    recipe = drawn("nylon")
    coarse = forge_sample(recipe, GRID, VOXEL, engine="lens").labels
    fine = forge_sample(recipe, 2 * GRID, VOXEL / 2, engine="lens").labels
    for value in (1, 3):
        share = (fine == value).reshape(GRID, 2, GRID, 2, GRID, 2).mean(axis=(1, 3, 5))
        # A coarse voxel that the fine grid fills is filled, one that it leaves empty is empty.
        rim = binary_dilation(share > 0) & (share < 1)
        assert not ((coarse == value) & (share == 0) & ~rim).any()
        assert ((coarse == value)[share == 1]).mean() > 0.999


def test_forge_sample__time_out_is_an_accident_and_leaves_nothing(tmp_path, monkeypatch):
    engine = find_engine("bpy")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(WorkerDiedError, match="ended"):
        forge_sample(drawn("nylon"), GRID, VOXEL, engine=engine, timeout_s=0.5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_forge_sample__granular_reports_what_it_reached(seed):
    recipe = draw_recipe(seed, "granular", field_of_view=GRID * 1e-6)
    sample = forge_sample(recipe, GRID, 1e-6)
    again = forge_sample(recipe, GRID, 1e-6)
    assert sample.labels.tobytes() == again.labels.tobytes()
    assert set(np.unique(sample.labels)) == set(sample.names.values())
    record = sample.record
    filled = (sample.labels > 0).mean()
    # The packing's box may be smaller than the field, and voxels at rims of grains scatter.
    box = np.prod(recipe.plan.box) / (GRID * 1e-6) ** 3 if recipe.plan.dimensions == 3 else None
    if box is not None:
        assert filled == pytest.approx(record["packing_fraction"] * min(box, 1.0), rel=0.08)
    reached = record["packing_fraction"] / record["requested_packing_fraction"]
    assert reached == pytest.approx(1, abs=0.01) or record["grains_left_out"] > 0


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
def test_forge_sample__bad_field_is_refused_before_blender_starts(grid, voxel_size, message):
    with pytest.raises(InputError, match=message):
        forge_sample(drawn("nylon"), grid, voxel_size)
