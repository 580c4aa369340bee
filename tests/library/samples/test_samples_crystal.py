"""Crystals against closed forms, Euler's rule, their own symmetry, and bad input."""

import numpy as np
import pytest

from tomoforge.errors import InputError
from tomoforge.samples.crystal import crystal_polyhedron
from tomoforge.samples.point_group import (
    POINT_GROUPS,
    checked_operations,
    point_operations,
    unit_cell,
)

CUBIC = (100.0, 100.0, 100.0, 90.0, 90.0, 90.0)
TETRAGONAL = (79.1, 79.1, 37.9, 90.0, 90.0, 90.0)
HEXAGONAL = (93.0, 93.0, 130.0, 90.0, 90.0, 120.0)
RHOMBOHEDRAL = (50.0, 50.0, 50.0, 82.0, 82.0, 82.0)
D = 50e-6

# Volumes of closed forms: exact arithmetic up to Qhull's rounding and the refinement (both near
# 1e-14).
RELATIVE = 1e-9

ORDERS = {
    **{"1": 1, "-1": 2, "2": 2, "m": 2, "2/m": 4, "222": 4, "mm2": 4, "mmm": 8},
    **{"4": 4, "-4": 4, "4/m": 8, "422": 8, "4mm": 8, "-42m": 8, "4/mmm": 16},
    **{"3": 3, "-3": 6, "32": 6, "3m": 6, "-3m": 12},
    **{"6": 6, "-6": 6, "6/m": 12, "622": 12, "6mm": 12, "-6m2": 12, "6/mmm": 24},
    **{"23": 12, "m-3": 24, "432": 24, "-43m": 24, "m-3m": 48},
}


def cell_of(group):
    """A cell of the lowest symmetry that the group allows."""
    order = POINT_GROUPS.index(group)
    cells = [
        (2, (40, 50, 60, 80, 95, 105)),
        (5, (45, 60, 70, 90, 104, 90)),
        (8, (50, 60, 70, 90, 90, 90)),
        (15, TETRAGONAL),
        (27, HEXAGONAL),
        (32, CUBIC),
    ]
    return next(cell for limit, cell in cells if order < limit)


@pytest.mark.parametrize(
    ("group", "forms", "faces", "vertices", "volume"),
    [
        ("m-3m", {(1, 0, 0): D}, 6, 8, 8 * D**3),  # cube of edge 2d
        ("m-3m", {(1, 1, 1): D}, 8, 6, 4 * np.sqrt(3) * D**3),  # octahedron |x|+|y|+|z| ≤ √3 d
        (
            "m-3m",
            {(1, 1, 0): D},
            12,
            14,
            4 * np.sqrt(2) * D**3,
        ),  # rhombic dodecahedron of inradius d
        ("-43m", {(1, 1, 1): D}, 4, 4, 8 * np.sqrt(3) * D**3),  # tetrahedron of inradius d
        ("432", {(1, 1, 1): D}, 8, 6, 4 * np.sqrt(3) * D**3),
        # cuboctahedron: a cube of edge 2d whose corners are cut at the middle of its edges
        ("m-3m", {(1, 0, 0): D, (1, 1, 1): D * 2 / np.sqrt(3)}, 14, 12, 20 / 3 * D**3),
    ],
)
def test_crystal_polyhedron__cubic_solids_have_their_closed_form_volumes(
    group, forms, faces, vertices, volume
):
    solid = crystal_polyhedron(CUBIC, group, forms)
    assert (len(solid.faces), len(solid.vertices)) == (faces, vertices)
    assert solid.volume == pytest.approx(volume, rel=RELATIVE)
    assert solid.mesh().volume == pytest.approx(volume, rel=RELATIVE)


def test_crystal_polyhedron__hexagonal_prism_with_pinacoid():
    height = 80e-6
    solid = crystal_polyhedron(HEXAGONAL, "6/mmm", {(1, 0, 0): D, (0, 0, 1): height})
    assert len(solid.faces) == 8
    # A regular hexagon of inradius d has the area 2√3 d².
    assert solid.volume == pytest.approx(2 * np.sqrt(3) * D**2 * 2 * height, rel=RELATIVE)


def test_crystal_polyhedron__lysozyme_has_four_prism_and_eight_pyramid_faces():
    solid = crystal_polyhedron(TETRAGONAL, "422", {(1, 1, 0): D, (1, 0, 1): 1.1 * D})
    assert len(solid.faces) == 12
    assert sorted(sum(i != 0 for i in hkl) for hkl in solid.miller) == [2] * 12
    # Its prism is square: |x|+|y| ≤ √2 d. Its height is where {101} reaches the axis.
    assert np.abs(solid.vertices[:, :2]).sum(axis=1).max() == pytest.approx(np.sqrt(2) * D)
    normal = np.array([1 / 79.1, 0, 1 / 37.9])
    apex = 1.1 * D * np.linalg.norm(normal) / normal[2]
    assert np.abs(solid.vertices[:, 2]).max() == pytest.approx(apex)


def test_crystal_polyhedron__polar_pyramid_stays_polar():
    base, slope = 20e-6, D
    solid = crystal_polyhedron(TETRAGONAL, "4mm", {(1, 0, 1): slope, (0, 0, -1): base})
    assert len(solid.faces) == 5
    assert solid.vertices[:, 2].min() == pytest.approx(-base)
    normal = np.array([1 / 79.1, 0, 1 / 37.9])
    apex = slope * np.linalg.norm(normal) / normal[2]
    assert solid.vertices[:, 2].max() == pytest.approx(apex)
    half_side = (apex + base) * normal[2] / normal[0]
    assert solid.volume == pytest.approx((2 * half_side) ** 2 * (apex + base) / 3, rel=RELATIVE)


@pytest.mark.parametrize("group", POINT_GROUPS)
def test_crystal_polyhedron__every_point_group_maps_its_solid_onto_itself(group):
    cell = cell_of(group)
    # All signs of a general form and of the axes: closed in every group, and no two forms
    # equivalent.
    operations = point_operations(group, cell)
    forms, seen = {}, set()
    for hkl, distance in (((1, 2, 3), 1.1 * D), ((1, 0, 0), D), ((0, 1, 0), D), ((0, 0, 1), D)):
        for signs in np.ndindex(2, 2, 2):
            face = tuple(int(i) for i in np.array(hkl) * (1 - 2 * np.array(signs)))
            if face not in seen:
                forms[face] = distance * (1 + 0.013 * len(forms))
                seen |= {tuple(int(i) for i in np.array(face) @ r) for r in operations}
    solid = crystal_polyhedron(cell, group, forms)
    edges = sum(len(face) for face in solid.faces) / 2
    assert len(solid.vertices) - edges + len(solid.faces) == 2
    assert solid.mesh().is_closed()
    frame = np.array(unit_cell(cell).orth.mat.tolist())
    for operation in operations:
        turned = solid.vertices @ (frame @ operation @ np.linalg.inv(frame)).T
        apart = np.linalg.norm(turned[:, None] - solid.vertices[None], axis=2).min(axis=1)
        assert apart.max() < 1e-9 * D * 100  # rounding of the cell's own matrix, relative to 50 µm


@pytest.mark.parametrize("group", POINT_GROUPS)
def test_point_operations__have_the_order_of_the_group_and_close(group):
    operations = point_operations(group)
    keys = {r.tobytes() for r in operations}
    assert len(keys) == len(operations) == ORDERS[group]
    assert all((a @ b).tobytes() in keys for a in operations for b in operations)


def test_crystal_polyhedron__normals_point_outwards_and_lie_on_the_reciprocal_lattice():
    cell = (40, 50, 60, 80, 95, 105)
    forms = {
        hkl: D * (1 + 0.1 * i)
        for i, hkl in enumerate([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)])
    }
    solid = crystal_polyhedron(cell, "1", forms)
    frame = np.array(unit_cell(cell).orth.mat.tolist())
    for hkl, normal, distance in zip(solid.miller, solid.normals, solid.distances, strict=True):
        assert distance == pytest.approx(forms[hkl])
        # The face (100) contains b and c, and so on.
        for i in range(3):
            if hkl[i] == 0:
                assert abs(normal @ frame[:, i]) < 1e-9 * 60
            else:
                assert np.sign(normal @ frame[:, i]) == np.sign(hkl[i])


def test_crystal_polyhedron__rhombohedral_axes_are_understood():
    solid = crystal_polyhedron(RHOMBOHEDRAL, "-3m", {(1, 0, 0): D})
    assert len(solid.faces) == 6
    checked_operations(RHOMBOHEDRAL, "32")


def test_crystal_polyhedron__symbols_with_spaces_and_typographic_minus():
    plain = crystal_polyhedron(CUBIC, "-43m", {(1, 1, 1): D})
    typed = crystal_polyhedron(CUBIC, " \u22124 3 m", {(1, 1, 1): D})
    assert np.array_equal(plain.vertices, typed.vertices)


@pytest.mark.parametrize(
    ("group", "forms", "direction"),
    [
        ("422", {(1, 1, 0): D}, "1.0)"),  # a prism: open along z
        ("4mm", {(1, 0, 1): D}, "-1.0)"),  # a pyramid: open below
        ("3", {(1, 0, 0): D, (0, 0, 1): D}, "-1.0)"),
        ("1", {(1, 0, 0): D}, "open along"),
    ],
)
def test_crystal_polyhedron__open_forms_name_the_open_direction(group, forms, direction):
    cell = HEXAGONAL if group == "3" else TETRAGONAL
    with pytest.raises(InputError, match="open along") as caught:
        crystal_polyhedron(cell, group, forms)
    assert direction in str(caught.value)


@pytest.mark.parametrize(
    ("cell", "group", "forms", "message"),
    [
        (TETRAGONAL, "m-3m", {(1, 0, 0): D}, "cubic"),
        ((79.1, 79.3, 37.9, 90, 90, 90), "422", {(1, 1, 0): D}, "tetragonal"),
        (HEXAGONAL, "222", {(1, 1, 0): D}, "orthorhombic"),
        (CUBIC, "5", {(1, 0, 0): D}, "point_group"),
        (CUBIC, "m-3m", {(1, 0, 0): 0.0}, "positive distance"),
        (CUBIC, "m-3m", {(1, 0, 0): float("nan")}, "positive distance"),
        (CUBIC, "m-3m", {(0, 0, 0): D}, "not all zero"),
        (CUBIC, "m-3m", {(1, 0, 0): D, (0, -1, 0): D}, "equivalent"),
        (CUBIC, "m-3m", {}, "at least one"),
        ((100, 100, 100, 90, 90), "m-3m", {(1, 0, 0): D}, "six positive"),
        ((100, 100, 100, 60, 60, 130), "1", {(1, 0, 0): D}, "span a volume"),
    ],
)
def test_crystal_polyhedron__bad_input_is_refused_by_name(cell, group, forms, message):
    with pytest.raises(InputError, match=message):
        crystal_polyhedron(cell, group, forms)
