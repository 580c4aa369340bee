"""Quality gates: is a forged sample one that a beamline could have mounted? Each failure has a name, to be counted."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tomoforge.errors import SampleRejectedError
from tomoforge.samples.records import ProteinRecipe
from tomoforge.volumes import LABEL_NAMES

# Shares of the field that a usable sample has, far outside what recipes give: a miss means a broken mesh or bake.
_FRACTIONS = {"crystal": (0.0003, 0.5), "loop": (0.0005, 0.35), "liquor": (0.002, 0.6)}
# Fewer voxels of a class than this teach a segmenter nothing.
_LEAST_VOXELS = 50
# Least shares of the crystals' surface that the liquor wets, and of the loop's.
_LEAST_WETTED, _LEAST_LOOP_WETTED = 0.1, 0.02
# What may leave the field at the bottom: the stem, and liquor that runs down on it.
_LEAVE_BELOW = ("loop", "liquor")


def check_protein(measures: Mapping[str, Any], labels: np.ndarray, recipe: ProteinRecipe) -> None:
    """Raise SampleRejectedError at the first gate that a protein sample fails.

    measures : of ``sample_measures``; labels : (z, y, x) uint8

    The gates: voxels and share of each class; crystals in one piece each; liquor on the crystals and on the loop;
    nothing but stem and liquor at the edge of the field, at its bottom; the stem leaves it there. A truncated sample
    is not asked for the last two.
    """
    for name, (least, most) in _FRACTIONS.items():
        voxels, share = measures[f"voxels_{name}"], measures[f"fraction_{name}"]
        if voxels < _LEAST_VOXELS:
            _reject(
                f"no {name}",
                f"the {name} has {voxels} voxels, expected {_LEAST_VOXELS}; is the grid too coarse?",
            )
        if not least <= share <= most:
            _reject(
                f"{name} volume", f"the {name} fills {share:.5f} of the field, expected {least} to {most}"
            )
    _check_pieces(measures, recipe)
    wetted, on_loop = measures["crystal_wetted_share"], measures["loop_wetted_share"]
    if wetted < _LEAST_WETTED:
        _reject(
            "crystal dry", f"the liquor wets {wetted:.3f} of the crystal, expected at least {_LEAST_WETTED}"
        )
    if on_loop < _LEAST_LOOP_WETTED:
        _reject(
            "loop dry", f"the liquor wets {on_loop:.4f} of the loop, expected at least {_LEAST_LOOP_WETTED}"
        )
    if not recipe.truncated:
        _check_edges(labels)


def check_granular(measures: Mapping[str, Any], names: Mapping[str, int]) -> None:
    """Raise SampleRejectedError where a phase or the pores of a granular sample are missing."""
    for name in names:
        voxels = measures[f"voxels_{name}"]
        if voxels < _LEAST_VOXELS:
            _reject(
                f"no {name}", f"{name} has {voxels} voxels, expected {_LEAST_VOXELS}; is the grid too coarse?"
            )


def _check_pieces(measures: Mapping[str, Any], recipe: ProteinRecipe) -> None:
    pieces, asked = measures["pieces_crystal"], len(recipe.crystals)
    if pieces > asked and not recipe.truncated:
        _reject(
            "crystal in pieces",
            f"there must be at most {asked} crystals, each in one piece, got {pieces}; is the voxel too coarse?",
        )


def _check_edges(labels: np.ndarray) -> None:
    for name in _FRACTIONS:
        at = _reached_edges(labels, LABEL_NAMES[name])
        reached = at - ({"-z"} if name in _LEAVE_BELOW else set())
        if reached:
            where = ", ".join(sorted(reached))
            _reject(
                "out of field", f"the {name} reaches the edge of the field at {where}; give a larger field"
            )
    if not (labels[0] == LABEL_NAMES["loop"]).any():
        _reject("no stem", "the stem ends inside the field; it must leave it at -z")


def _reached_edges(labels: np.ndarray, value: int) -> set[str]:
    """Names of the field's faces that a label touches, such as '-z'."""
    return {
        f"{sign}{name}"
        for axis, name in enumerate("zyx")
        for sign, index in (("-", 0), ("+", -1))
        if (labels.take(index, axis) == value).any()
    }


def _reject(reason: str, message: str) -> None:
    raise SampleRejectedError(reason, message)
