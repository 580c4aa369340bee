"""Recipes: repeatable, independent draws, JSON there and back, and what fits where."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tomoforge.errors import ConfigError, InputError
from tomoforge.samples.habits import PROTEIN_HABITS
from tomoforge.samples.mount import rim_points
from tomoforge.samples.recipe import SampleRecipe, draw_recipe

FIELD = 320e-6
SEEDS = range(40)


@pytest.fixture(scope="module")
def recipes():
    return [draw_recipe(seed, field_of_view=FIELD) for seed in SEEDS]


def test_draw_recipe__same_seed_same_recipe_other_seed_another(recipes):
    assert draw_recipe(3, field_of_view=FIELD) == recipes[3]
    assert len({recipe.to_json() for recipe in recipes}) == len(recipes)


def test_draw_recipe__json_gives_back_the_recipe_and_the_same_bytes(recipes):
    for recipe in recipes:
        again = SampleRecipe.from_json(recipe.to_json())
        assert again == recipe
        assert again.to_json() == recipe.to_json()


def test_draw_recipe__field_shifts_no_other_draw():
    small, large = draw_recipe(5, field_of_view=300e-6), draw_recipe(5, field_of_view=500e-6)
    assert small.habit == large.habit
    assert small.crystal_orientation == large.crystal_orientation
    assert small.pose.azimuth == large.pose.azimuth
    assert small.liquor.contact_angle == large.liquor.contact_angle


def test_draw_recipe__crystal_lens_and_ring_fit_in_the_field_at_every_angle(recipes):
    for recipe in recipes:
        rotation, offset = recipe.pose.rotation(), np.array(recipe.pose.offset)
        rim, thickness = rim_points(recipe.mount)
        semi = np.array(recipe.liquor.lens_semi_axes)
        directions = np.random.default_rng(0).normal(size=(400, 3))
        lens = directions / np.linalg.norm(directions, axis=1, keepdims=True) * semi
        for points in (rim, recipe.crystal_vertices(), lens):
            placed = points @ rotation.T + offset
            radius = np.hypot(placed[:, 0], placed[:, 1]).max() + thickness
            assert radius < FIELD / 2
            assert np.abs(placed[:, 2]).max() + thickness < FIELD / 2


def test_draw_recipe__crystal_is_clear_of_the_loop(recipes):
    for recipe in recipes:
        rim, thickness = rim_points(recipe.mount)
        gaps = np.linalg.norm(rim[:, None] - recipe.crystal_vertices()[None], axis=2)
        # Necessary, not sufficient: the placement itself measures against the faces.
        assert gaps.min() > thickness


def test_draw_recipe__free_field_draws_usual_crystals():
    sizes = [draw_recipe(seed).crystal_size for seed in SEEDS]
    assert min(sizes) >= 100e-6
    assert max(sizes) <= 300e-6


def test_draw_recipe__draws_both_mounts_and_most_habits(recipes):
    assert {recipe.mount.kind for recipe in recipes} == {"nylon", "polymer"}
    assert len({recipe.habit.name for recipe in recipes}) >= 7


def test_sample_recipe__crystal_has_its_size_and_place(recipes):
    for recipe in recipes[:10]:
        assert recipe.crystal().diameter == pytest.approx(recipe.crystal_size)
        assert recipe.crystal_vertices().mean(axis=0) == pytest.approx(recipe.crystal_centre, abs=1e-15)


@pytest.mark.parametrize("habit", PROTEIN_HABITS, ids=lambda habit: habit.name)
def test_protein_habits__close_and_are_not_too_long(habit):
    solid = habit.polyhedron()
    assert solid.mesh().is_closed()
    thinnest = np.ptp(solid.vertices @ solid.normals.T, axis=0).min()
    assert solid.diameter / thinnest < 6


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
        (edited(lambda r: r["mount"].update(kind="mesh")), "kind"),
        (edited(lambda r: r.pop("pose")), "pose"),
        (edited(lambda r: r.update(crystal_size="big")), "crystal_size"),
        (edited(lambda r: r.update(crystal_size=-1e-4)), "crystal_size"),
        (edited(lambda r: r.update(family="powder")), "family"),
        (edited(lambda r: r["liquor"].update(contact_angle=20.0)), "contact_angle"),
        (edited(lambda r: r.update(crystal_orientation=[1, 1, 0, 0])), "unit quaternion"),
        (edited(lambda r: r["habit"].update(cell=[1, 2, 3])), "list of 6"),
        ("{", "JSON"),
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
