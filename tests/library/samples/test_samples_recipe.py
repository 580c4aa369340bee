"""Recipes: repeatable, independent draws, JSON there and back, and what fits where."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tomoforge.errors import ConfigError, InputError
from tomoforge.samples.habits import PROTEIN_HABITS
from tomoforge.samples.mount import MOUNTS
from tomoforge.samples.mount_mesh import mount_meshes
from tomoforge.samples.recipe import FLAWS, ProteinRecipe, SampleRecipe, Variety, draw_recipe
from tomoforge.samples.records import LIQUOR_KINDS
from tomoforge.samples.variation import CrystalVariation
from tomoforge.samples.voxelize import Solid

FIELD = 320e-6
SEEDS = range(40)


@pytest.fixture(scope="module")
def recipes():
    return [draw_recipe(seed, field_of_view=FIELD) for seed in SEEDS]


def test_draw_recipe__same_seed_same_recipe_other_seed_another(recipes):
    assert draw_recipe(3, field_of_view=FIELD) == recipes[3]
    assert len({recipe.to_json() for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize("family", ["protein_crystal", "granular"])
def test_draw_recipe__json_gives_back_the_recipe_and_the_same_bytes(family):
    for seed in range(12):
        recipe = draw_recipe(seed, family, field_of_view=FIELD)
        again = SampleRecipe.from_json(recipe.to_json())
        assert again == recipe and again.family == family
        assert again.to_json() == recipe.to_json()


def test_draw_recipe__field_shifts_no_other_draw():
    small, large = draw_recipe(5, field_of_view=300e-6), draw_recipe(5, field_of_view=500e-6)
    assert small.crystals[0].habit == large.crystals[0].habit
    assert small.crystals[0].orientation == large.crystals[0].orientation
    assert small.pose.azimuth == large.pose.azimuth
    assert small.liquor.crystal_contact_angle == large.liquor.crystal_contact_angle


def test_draw_recipe__switching_one_thing_off_shifts_no_other_draw(recipes):
    for recipe in recipes[:12]:
        plain = draw_recipe(recipe.seed, field_of_view=FIELD, variety=Variety(bubbles=False))
        assert plain.liquor.bubble_radii == ()
        assert replace(recipe, liquor=replace(recipe.liquor, bubble_radii=())) == plain
        clean = draw_recipe(recipe.seed, field_of_view=FIELD, variety=Variety(flaws=()))
        assert all(not crystal.variation.flaws() for crystal in clean.crystals)
        whole = draw_recipe(
            recipe.seed, field_of_view=FIELD, variety=Variety(flaws=tuple(set(FLAWS) - {"cracks"}))
        )
        for with_cracks, without in zip(recipe.crystals, whole.crystals, strict=False):
            assert replace(with_cracks.variation, cracks=0) == without.variation
        assert (clean.mount, clean.pose) == (recipe.mount, recipe.pose)
        assert clean.crystals[0].orientation == recipe.crystals[0].orientation
        alone = draw_recipe(recipe.seed, field_of_view=FIELD, variety=Variety(most_crystals=1))
        assert alone.crystals == recipe.crystals[:1]
        assert (alone.mount, alone.pose, alone.liquor) == (recipe.mount, recipe.pose, recipe.liquor)


def test_draw_recipe__draws_only_what_it_is_told_to():
    variety = Variety(mounts=("polyimide",), habits=("thaumatin", "insulin_cubic"))
    for seed in range(8):
        recipe = draw_recipe(seed, field_of_view=FIELD, variety=variety)
        assert recipe.mount.kind == "polyimide"
        assert {crystal.habit.name for crystal in recipe.crystals} <= {"thaumatin", "insulin_cubic"}
        assert not recipe.truncated


def test_draw_recipe__crystals_and_ring_fit_in_the_field_at_every_angle(recipes):
    for recipe in recipes:
        rotation, offset = recipe.pose.rotation(), np.array(recipe.pose.offset)
        mount = np.concatenate([part.vertices for part in mount_meshes(recipe.mount)])
        ring = mount[mount[:, 2] > -recipe.mount.outer_half_height]
        crystals = [part.vertices for body in recipe.crystal_bodies() for part in body.solids]
        for points in (ring, *crystals):
            placed = points @ rotation.T + offset
            assert np.hypot(placed[:, 0], placed[:, 1]).max() < FIELD / 2
            assert np.abs(placed[:, 2]).max() < FIELD / 2


def test_draw_recipe__no_crystal_is_in_the_loop_or_in_another(recipes):
    """On voxels of 2.5 µm, asked of the bodies one by one."""
    shape, voxel = (128, 128, 128), FIELD / 128
    several = 0
    for recipe in recipes:
        taken = Solid(mount_meshes(recipe.mount), shape, voxel).inside(0, 128)
        for body in recipe.crystal_bodies():
            crystal = Solid(body.solids, shape, voxel).inside(0, 128)
            assert crystal.any()
            assert not (crystal & taken).any()
            taken |= crystal
        several += len(recipe.crystals) > 1
    assert several >= 3


def test_draw_recipe__free_field_draws_usual_crystals():
    recipes = [draw_recipe(seed) for seed in SEEDS]
    sizes = [recipe.crystals[0].size for recipe in recipes]
    assert min(sizes) >= 50e-6
    assert max(sizes) <= 300e-6
    for recipe in recipes:
        opening = min(recipe.mount.aperture_width, recipe.mount.aperture_height)
        assert opening >= 1.19 * recipe.crystals[0].size


def test_draw_recipe__draws_all_mounts_liquors_and_most_habits(recipes):
    assert {recipe.mount.kind for recipe in recipes} == set(MOUNTS)
    assert {recipe.liquor.kind for recipe in recipes} == set(LIQUOR_KINDS)
    assert len({recipe.crystals[0].habit.name for recipe in recipes}) >= 12
    assert len(PROTEIN_HABITS) >= 12


def test_draw_recipe__truncation_only_where_it_is_allowed(recipes):
    assert not any(recipe.truncated for recipe in recipes)
    allowed = [draw_recipe(s, field_of_view=FIELD, variety=Variety(truncation=True)) for s in SEEDS]
    cut = [recipe for recipe in allowed if recipe.truncated]
    assert 5 <= len(cut) <= 20  # three of ten
    assert all(2 * recipe.mount.outer_half_height > FIELD for recipe in cut)


def test_placed_crystal__has_its_size_and_place(recipes):
    for recipe in recipes[:10]:
        for crystal in recipe.crystals:
            assert crystal.polyhedron().diameter == pytest.approx(crystal.size)
            plain = replace(crystal, variation=CrystalVariation()).body(1)
            assert plain.voids == ()
            assert plain.solids[0].vertices.mean(axis=0) == pytest.approx(crystal.centre, abs=1e-15)


def test_pose__azimuth_turns_about_z_and_tilt_tips_the_stem():
    pose = draw_recipe(0).pose
    upright = replace(pose, tilt=0.0, azimuth=np.pi / 2)
    # +90° about z carries x to y.
    assert upright.rotation() @ [1, 0, 0] == pytest.approx([0, 1, 0], abs=1e-12)
    tipped = replace(pose, tilt=0.1)
    assert tipped.rotation()[2, 2] == pytest.approx(np.cos(0.1))


def edited(change):
    plain = json.loads(draw_recipe(1).to_json())
    change(plain)
    return json.dumps(plain)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (edited(lambda r: r.update(colour="red")), "colour"),
        (edited(lambda r: r["liquor"].update(viscosity=1.0)), "viscosity"),
        (edited(lambda r: r["liquor"].update(kind="jelly")), "liquor.kind"),
        (edited(lambda r: r["liquor"].update(lenses=[])), "at least one lens"),
        (edited(lambda r: r["mount"].update(kind="mesh")), "kind"),
        (edited(lambda r: r.pop("pose")), "pose"),
        (edited(lambda r: r.update(crystals=[])), "at least one crystal"),
        (edited(lambda r: r["crystals"][0].update(size="big")), "size"),
        (edited(lambda r: r["crystals"][0].update(size=-1e-4)), "crystal.size"),
        (edited(lambda r: r.update(family="powder")), "family"),
        (edited(lambda r: r.pop("family")), "family"),
        (edited(lambda r: r.update(truncated="no")), "truncated"),
        (edited(lambda r: r["liquor"].update(crystal_contact_angle=20.0)), "crystal_contact_angle"),
        (edited(lambda r: r["crystals"][0].update(orientation=[1, 1, 0, 0])), "unit quaternion"),
        (edited(lambda r: r["crystals"][0]["habit"].update(cell=[1, 2, 3])), "list of 6"),
        ("{", "JSON"),
        ("[]", "family"),
    ],
)
def test_sample_recipe__from_json_refuses_what_it_does_not_know(text, message):
    with pytest.raises(ConfigError, match=message):
        SampleRecipe.from_json(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 1, "family": "powder"}, "family"),
        ({"seed": -1}, "seed"),
        ({"seed": 1, "field_of_view": 0.0}, "field_of_view"),
        ({"seed": 1, "field_of_view": 50e-6}, "field_of_view"),
        ({"seed": 1, "field_of_view": 10e-3}, "field_of_view"),
    ],
)
def test_draw_recipe__bad_input_is_refused_by_name(arguments, message):
    with pytest.raises(InputError, match=message):
        draw_recipe(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mounts": ("glass",)}, "mounts must be among nylon, polymer, polyimide, got 'glass'"),
        ({"habits": ("lyzosyme",)}, "habits must be among lysozyme"),
        ({"flaws": ("scratches",)}, "flaws must be among face_jitter"),
        ({"most_crystals": 0}, "most_crystals"),
    ],
)
def test_variety__unknown_names_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Variety(**arguments)


def test_recipe__is_a_protein_recipe_by_default():
    assert isinstance(draw_recipe(0), ProteinRecipe)
