"""The table of protein habits: each one is possible, sourced, and looks as its crystals do."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest

from tomoforge.errors import InputError
from tomoforge.samples.crystal import expand_forms
from tomoforge.samples.habits import FACES, PROTEIN_HABITS, Habit
from tomoforge.samples.point_group import checked_operations, normalised_symbol

BY_NAME = {habit.name: habit for habit in PROTEIN_HABITS}
POLAR = [habit for habit in PROTEIN_HABITS if habit.point_group in ("1", "2", "3", "6")]

every_habit = pytest.mark.parametrize("habit", PROTEIN_HABITS, ids=lambda habit: habit.name)
every_polar_habit = pytest.mark.parametrize("habit", POLAR, ids=lambda habit: habit.name)


def extents(name):
    """Sizes along a (x), across it (y) and along c* (z)."""
    return np.ptp(BY_NAME[name].polyhedron().vertices, axis=0)


def test_protein_habits__at_least_twelve_of_all_seven_systems_each_once():
    assert len(PROTEIN_HABITS) >= 12
    assert len(BY_NAME) == len(PROTEIN_HABITS)
    systems = {gemmi.SpaceGroup(habit.space_group).crystal_system_str() for habit in PROTEIN_HABITS}
    assert len(systems) == 7


@every_habit
def test_protein_habits__name_a_source_and_say_whether_it_names_the_faces(habit):
    assert habit.faces in FACES
    # An entry of the Protein Data Bank or a year of publication: something to look up.
    assert "PDB " in habit.source or any(f"({year})" in habit.source for year in range(1930, 2030))


@every_habit
def test_protein_habits__space_group_has_the_point_group_and_suits_a_protein(habit):
    group = gemmi.SpaceGroup(habit.space_group)
    assert group.xhm() == habit.space_group
    # Chiral molecules: no mirror, no inversion.
    assert group.is_sohncke()
    assert normalised_symbol(group.point_group_hm()) == habit.point_group
    # The symbol says nothing of the axes' setting; the rotations do. ``checked_operations`` also refuses a
    # cell without the symmetry.
    rotations = {tuple(np.ravel(op.rot) // gemmi.Op.DEN) for op in group.operations().sym_ops}
    assert {tuple(np.ravel(r)) for r in checked_operations(habit.cell, habit.point_group)} == rotations


@every_habit
def test_protein_habits__close_and_show_every_form(habit):
    solid = habit.polyhedron()
    assert solid.mesh().is_closed()
    edges = sum(len(face) for face in solid.faces) // 2
    assert len(solid.vertices) - edges + len(solid.faces) == 2
    operations = checked_operations(habit.cell, habit.point_group)
    for form in habit.forms:
        assert set(expand_forms(habit.point_group, operations, dict([form]))) & set(solid.miller)


@every_habit
def test_protein_habits__have_only_the_faces_of_their_forms(habit):
    operations = checked_operations(habit.cell, habit.point_group)
    expected = expand_forms(habit.point_group, operations, dict(habit.forms))
    solid = habit.polyhedron()
    for hkl, distance in zip(solid.miller, solid.distances, strict=True):
        # Vertices are refined to rounding, about 1e-15 of the size.
        assert distance == pytest.approx(expected[hkl], rel=1e-9)


@every_habit
def test_protein_habits__are_neither_needles_nor_sheets(habit):
    assert habit.aspect < 6
    # Nor with each distance varied by 15 %: that may lengthen by 1.15 what it thins by 0.85.
    rng = np.random.default_rng(0)
    for _ in range(3):
        forms = tuple((hkl, distance * rng.uniform(0.85, 1.15)) for hkl, distance in habit.forms)
        assert replace(habit, forms=forms).aspect < 6


@every_polar_habit
def test_protein_habits__polar_ones_have_no_centre(habit):
    solid = habit.polyhedron()
    distance = dict(zip(solid.miller, solid.distances, strict=True))
    unpaired = [
        (h, k, l)
        for (h, k, l), d in distance.items()
        if distance.get((-h, -k, -l), np.inf) != pytest.approx(d, rel=1e-3)
    ]
    assert unpaired


@every_polar_habit
def test_protein_habits__polar_ones_stay_open_without_the_faces_of_one_end(habit):
    # The polar direction: c of 3 and 6, b of 2; in 1 every direction is polar.
    axis = {"1": 0, "2": 1, "3": 2, "6": 2}[habit.point_group]
    kept = tuple((hkl, distance) for hkl, distance in habit.forms if hkl[axis] >= 0)
    assert len(kept) < len(habit.forms)
    with pytest.raises(InputError, match="open along"):
        replace(habit, forms=kept).polyhedron()


def test_protein_habits__lysozyme_has_its_twelve_faces():
    # Four prism faces under eight of the two pyramids, edges of the pyramids over the prism's faces.
    solid = BY_NAME["lysozyme_tetragonal"].polyhedron()
    assert len(solid.faces) == 12
    assert sum(l == 0 for _, _, l in solid.miller) == 4


def test_protein_habits__thaumatin_is_a_long_bipyramid():
    # {101} alone reaches ±c along z and ±a along x, as (1, 0, 1) cuts the axes at a and c.
    x, y, z = extents("thaumatin")
    a, _, c, *_ = BY_NAME["thaumatin"].cell
    assert x == pytest.approx(y)
    assert z / x == pytest.approx(c / a, rel=1e-9)


def test_protein_habits__cubic_insulin_is_a_rhombic_dodecahedron():
    solid = BY_NAME["insulin_cubic"].polyhedron()
    assert len(solid.faces) == 12
    assert all(len(face) == 4 for face in solid.faces)
    assert BY_NAME["insulin_cubic"].aspect == pytest.approx(np.sqrt(2))


def test_protein_habits__rods_are_long_and_plates_thin():
    for rod in ("thermolysin", "trypsin_orthorhombic"):
        x, y, z = extents(rod)
        assert z > 1.5 * max(x, y)
    for plate in ("bacteriorhodopsin", "myoglobin", "ribonuclease_a", "insulin_rhombohedral"):
        x, y, z = extents(plate)
        assert z < 0.65 * min(x, y)


def test_habit__aspect_of_a_cube_is_its_diagonal():
    cube = Habit("cube", (10.0, 10.0, 10.0, 90.0, 90.0, 90.0), "432", (((1, 0, 0), 2.5),))
    assert cube.aspect == pytest.approx(np.sqrt(3))
    assert (cube.space_group, cube.faces, cube.source) == ("", "idealised", "")
