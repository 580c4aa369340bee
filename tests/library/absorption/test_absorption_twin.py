"""The synthetic rotation experiment against the Ewald condition, counting, and its own conventions."""

import gemmi
import numpy as np
import pytest

from tomoforge.absorption.twin import random_orientation, reciprocal_vectors, rotation_experiment
from tomoforge.errors import InputError
from tomoforge.geometry import beam_direction

CELL = (31.0, 37.0, 45.0, 90.0, 103.0, 90.0)
GROUP = "P 1 21 1"
WAVELENGTH = 3.1e-10  # 4 keV
RESOLUTION = 4e-10


def _turn_about_z(angle: float) -> np.ndarray:
    """Active rotation of (x, y, z) by ``angle``."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def _orientation() -> np.ndarray:
    a, b = 0.7, -1.1
    tilt = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    return tilt @ _turn_about_z(b)


def _experiment(**changes):
    arguments = {
        "cell": CELL,
        "space_group": GROUP,
        "orientation": _orientation(),
        "wavelength": WAVELENGTH,
        "resolution": RESOLUTION,
        "rotation_range": (0.3, 2.1),
    }
    return rotation_experiment(**(arguments | changes))


def _lattice_vectors(hkl: np.ndarray) -> np.ndarray:
    """U B h in (x, y, z) [1/m], B from the metric by its own textbook formula (gemmi's convention)."""
    a, b, c, alpha, beta, gamma = CELL
    al, be, ga = np.radians([alpha, beta, gamma])
    v = np.sqrt(1 - np.cos(al) ** 2 - np.cos(be) ** 2 - np.cos(ga) ** 2 + 2 * np.prod(np.cos([al, be, ga])))
    orthogonal = np.array(
        [
            [a, b * np.cos(ga), c * np.cos(be)],
            [0, b * np.sin(ga), c * (np.cos(al) - np.cos(be) * np.cos(ga)) / np.sin(ga)],
            [0, 0, c * v / np.sin(ga)],
        ]
    )
    return hkl @ np.linalg.inv(orthogonal * 1e-10) @ _orientation().T


def test_rotation_experiment__laboratory_picture_gives_the_same_rays():
    # In the laboratory the beam is fixed along (u, w, z) = (0, 1, 0) and the sample turns: R(φ) takes
    # (x, y) to (u, w) = (x cos φ + y sin φ, −x sin φ + y cos φ), tomoforge.geometry.
    found = _experiment()
    q = _lattice_vectors(found.hkl)
    for i in range(0, len(found), 37):
        turn = _turn_about_z(-found.angle[i])
        s0 = np.array([0, 1, 0]) / WAVELENGTH
        s1 = s0 + turn @ q[i]
        # Closed form through an arccos: a few roundings relative to 1/λ.
        assert np.linalg.norm(s1) * WAVELENGTH == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(found.outgoing[i], (turn.T @ s1 * WAVELENGTH)[::-1], atol=1e-12)
        np.testing.assert_allclose(found.incoming[i], beam_direction(found.angle[i]), atol=1e-15)


def test_rotation_experiment__difference_of_rays_is_the_lattice_vector():
    found = _experiment()
    want = _lattice_vectors(found.hkl)[:, ::-1]
    # Relative to 1/λ: the difference of two unit vectors.
    np.testing.assert_allclose(reciprocal_vectors(found), want, atol=1e-12 / WAVELENGTH)


def test_rotation_experiment__unit_vectors_within_range_and_resolution_in_order():
    found = _experiment()
    for rays in (found.incoming, found.outgoing):
        np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1, atol=1e-15)
    assert np.all((found.angle >= 0.3) & (found.angle < 2.1))
    assert np.all(np.diff(found.angle) >= 0)
    assert found.spacing.min() >= RESOLUTION * (1 - 1e-12)
    cell = gemmi.UnitCell(*CELL)
    want = [cell.calculate_d(h) * 1e-10 for h in found.hkl[:50].tolist()]
    np.testing.assert_allclose(found.spacing[:50], want, rtol=1e-12)


def test_rotation_experiment__bragg_angle_is_braggs_law():
    found = _experiment()
    cosine = np.sum(found.incoming * found.outgoing, axis=1)
    np.testing.assert_allclose(np.sqrt((1 - cosine) / 2), WAVELENGTH / (2 * found.spacing), atol=1e-12)


def test_rotation_experiment__finds_every_crossing_that_a_fine_scan_finds():
    found = _experiment(resolution=9e-10)
    scan = np.linspace(0.3, 2.1, 20001)
    beams = np.array([beam_direction(a) for a in scan])[:, ::-1] / WAVELENGTH
    indices = np.indices((11, 11, 11)).reshape(3, -1).T - 5
    cell, group = gemmi.UnitCell(*CELL), gemmi.find_spacegroup_by_name(GROUP)
    operations = group.operations()
    crossings = 0
    for hkl in indices:
        if (
            not hkl.any()
            or cell.calculate_d(hkl.tolist()) < 9
            or operations.is_systematically_absent(hkl.tolist())
        ):
            continue
        q = _lattice_vectors(hkl[None])[0]
        crossings += np.count_nonzero(np.diff(np.linalg.norm(beams + q, axis=1) > 1 / WAVELENGTH))
    assert crossings == len(found)


def test_rotation_experiment__number_over_a_turn_is_that_of_the_lattice():
    found = _experiment(rotation_range=(0.0, 2 * np.pi), resolution=2.5e-10, space_group="P 1")
    # Lattice points have density V; q at angle χ to the axis is seen twice a turn if sin χ ≥ sin θ = λq/2,
    # a fraction cos θ of the sphere: N = 2V ∫ 4πq² cos θ dq.
    q = np.linspace(0, 1 / 2.5e-10, 20001)
    density = 4 * np.pi * q**2 * np.sqrt(1 - (WAVELENGTH * q / 2) ** 2)
    volume = gemmi.UnitCell(*CELL).volume * 1e-30
    want = 2 * volume * np.sum((density[1:] + density[:-1]) / 2) * (q[1] - q[0])
    # Points cut by the sphere's surface leave a few parts in a thousand.
    assert len(found) == pytest.approx(want, rel=5e-3)


def test_rotation_experiment__systematic_absences_are_gone():
    screw = _experiment(resolution=3e-10, rotation_range=(0, np.pi)).hkl
    axial = screw[(screw[:, 0] == 0) & (screw[:, 2] == 0)]
    assert len(axial) > 0
    assert np.all(axial[:, 1] % 2 == 0)
    centred = _experiment(cell=(60, 60, 60, 90, 90, 90), space_group="I 2 3", resolution=6e-10).hkl
    assert len(centred) > 0
    assert np.all(centred.sum(axis=1) % 2 == 0)


def test_rotation_experiment__friedel_mates_are_rows_of_their_own():
    rows = {tuple(h) for h in _experiment(rotation_range=(0, 2 * np.pi)).hkl.tolist()}
    assert all((-h, -k, -m) in rows for h, k, m in rows)


def test_rotation_experiment__two_turns_are_one_turn_twice():
    once = _experiment(rotation_range=(-0.4, -0.4 + 2 * np.pi))
    twice = _experiment(rotation_range=(-0.4, -0.4 + 4 * np.pi))
    assert len(twice) == 2 * len(once)
    np.testing.assert_array_equal(twice.hkl[len(once) :], once.hkl)
    np.testing.assert_allclose(twice.angle[len(once) :], once.angle + 2 * np.pi, atol=1e-12)


def test_rotation_experiment__turning_the_crystal_ahead_shifts_the_angle():
    # To the sample the beam turns by +φ: a crystal mounted δ further on is met δ later.
    still = _experiment(rotation_range=(0.3, 2.1))
    ahead = _experiment(rotation_range=(0.8, 2.6), orientation=_turn_about_z(0.5) @ _orientation())
    np.testing.assert_array_equal(ahead.hkl, still.hkl)
    np.testing.assert_allclose(ahead.angle - still.angle, 0.5, atol=1e-10)
    np.testing.assert_allclose(ahead.lorentz, still.lorentz, rtol=1e-9)


def test_rotation_experiment__lorentz_factor_is_the_inverse_speed_through_the_sphere():
    found = _experiment()
    q, step = _lattice_vectors(found.hkl), 1e-6
    for i in range(0, len(found), 97):
        radius = [
            np.linalg.norm(beam_direction(found.angle[i] + sign * step)[::-1] / WAVELENGTH + q[i])
            for sign in (-1, 1)
        ]
        speed = abs(radius[1] - radius[0]) / (2 * step)
        # Central difference: truncation 1e-12, rounding 1e-16/1e-6 relative to 1/λ.
        assert 1 / found.lorentz[i] == pytest.approx(speed * WAVELENGTH, abs=1e-8)


def test_random_orientation__is_a_rotation_of_its_seed_and_even_over_directions():
    turns = np.array([random_orientation(seed) for seed in range(400)])
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.tile(np.eye(3), (400, 1, 1)), atol=1e-14)
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-14)
    np.testing.assert_array_equal(random_orientation(7), turns[7])
    # Each entry is a coordinate of a point even on the sphere: mean 0 and mean square 1/3, within five
    # standard errors of 400 draws (1/√1200 = 0.029 and √(4/45/400) = 0.015); so are mean traces, 0.
    assert np.all(np.abs(turns.mean(axis=0)) < 5 * 0.029)
    np.testing.assert_allclose((turns**2).mean(axis=0), 1 / 3, atol=5 * 0.015)
    assert abs(np.trace(turns, axis1=1, axis2=2).mean()) < 5 / np.sqrt(400)
    assert np.any(_experiment(orientation=random_orientation(0)).angle)  # accepted as it is


def test_rotation_experiment__without_reflections_is_empty_not_broken():
    found = _experiment(resolution=9e-8)
    assert len(found) == 0
    assert found.outgoing.shape == (0, 3)


def test_reflections__select_keeps_rows_together():
    found = _experiment()
    picked = found.select(np.array([5, 2]))
    assert len(picked) == 2
    np.testing.assert_array_equal(picked.hkl, found.hkl[[5, 2]])
    np.testing.assert_array_equal(picked.outgoing, found.outgoing[[5, 2]])
    assert picked.wavelength == found.wavelength


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space_group": "P 7"}, "Hermann"),
        ({"space_group": "P 41 21 2"}, "does not fit"),
        ({"cell": (31, 37, 45, 90, 103)}, "cell must be"),
        ({"cell": (31, 37, 45, 30, 30, 150), "space_group": "P 1"}, "does not fit"),
        ({"orientation": np.diag([1.0, 1.0, -1.0])}, "rotation matrix"),
        ({"orientation": 2 * np.eye(3)}, "rotation matrix"),
        ({"wavelength": 3.1}, "in Å"),
        ({"resolution": 4.0}, "in Å"),
        ({"resolution": 1e-10}, "backscattering"),
        ({"rotation_range": (1.0, 1.0)}, "start < stop"),
        ({"rotation_range": (0.0, np.inf)}, "start < stop"),
    ],
)
def test_rotation_experiment__refuses(change, message):
    with pytest.raises(InputError, match=message):
        _experiment(**change)
