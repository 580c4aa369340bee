"""Quality gates on volumes made by hand: each failure has its name."""

from dataclasses import replace

import numpy as np
import pytest

from tomoforge.errors import SampleRejectedError
from tomoforge.samples.gates import check_granular, check_protein
from tomoforge.samples.measures import sample_measures
from tomoforge.samples.recipe import Variety, draw_recipe

RECIPE = draw_recipe(1, variety=Variety(flaws=(), most_crystals=1))


def made(**boxes):
    """A field of 40³ with a crystal in liquor on a stem; ``boxes`` replaces boxes of (z, y, x) slices."""
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


def check(labels, recipe=RECIPE):
    check_protein(sample_measures(labels, 1e-6), labels, recipe)


def test_check_protein__a_good_sample_passes():
    check(made())


def test_check_protein__liquor_may_run_down_the_stem():
    check(made(liquor=np.s_[0:30, 14:26, 14:26]))


@pytest.mark.parametrize(
    ("labels", "reason", "message"),
    [
        (made(crystal=None), "no crystal", "crystal has 0 voxels"),
        (made(liquor=None), "no liquor", "liquor has 0 voxels"),
        (made(loop=None), "no loop", "loop has 0 voxels"),
        (made(liquor=np.s_[10:13, 10:30, 28:30]), "liquor volume", "liquor fills 0.00"),
        (made(crystal=np.s_[15:25, 15:25, 10:30:8]), "crystal in pieces", "at most 1 crystals"),
        (made(liquor=np.s_[5:12, 5:35, 5:35]), "crystal dry", "wets 0.000 of the crystal"),
        (made(liquor=np.s_[14:30, 10:30, 10:30]), "loop dry", "wets 0.0000 of the loop"),
        (made(liquor=np.s_[10:30, 10:30, 10:40]), "out of field", r"liquor reaches .* at \+x"),
        (made(loop=np.s_[0:12, 0:22, 18:22]), "out of field", r"loop reaches .* at -y"),
        (made(loop=np.s_[3:12, 18:22, 18:22]), "no stem", "stem ends"),
    ],
)
def test_check_protein__names_what_is_wrong(labels, reason, message):
    with pytest.raises(SampleRejectedError, match=message) as caught:
        check(labels)
    assert caught.value.reason == reason


def test_check_protein__several_crystals_only_where_they_were_asked_for():
    two = made(crystal=np.s_[15:25, 15:25, 10:30:8])
    pieces = sample_measures(two, 1e-6)["pieces_crystal"]
    check(two, replace(RECIPE, crystals=RECIPE.crystals * pieces))


def test_check_protein__a_truncated_sample_may_reach_the_edge():
    check(made(loop=np.s_[3:12, 0:40, 18:22]), replace(RECIPE, truncated=True))


def test_check_granular__wants_every_phase_and_pores():
    labels = np.ones((20, 20, 20), np.uint8)
    names = {"background": 0, "active": 1}
    with pytest.raises(SampleRejectedError, match="background has 0 voxels"):
        check_granular(sample_measures(labels, 1e-6, names), names)
    labels[:5] = 0
    check_granular(sample_measures(labels, 1e-6, names), names)


def test_sample_rejected_error__survives_the_way_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(SampleRejectedError("no loop", "the loop has 0 voxels")))
    assert (error.reason, str(error)) == ("no loop", "the loop has 0 voxels")
