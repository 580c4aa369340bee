"""Rotation, sense and frames by closed forms."""

import numpy as np
import pytest

from tests.library.absorption.diffraction_files import twin_experiment
from tomoforge.absorption.goniometer import (
    Beam,
    Crystal,
    Experiment,
    Goniometer,
    Sweep,
    diffracted_vectors,
    interpolated,
    multi_axis_goniometer,
    sample_vectors,
)
from tomoforge.errors import InputError

X, Y, Z = np.eye(3)
SWEEP = Sweep((1, 360), 0.0, np.radians(1))
# Rotations of exact quarter turns: cos and sin of π/2 to rounding.
ROUNDING = 1e-15


def _experiment(goniometer: Goniometer, **changes) -> Experiment:
    return Experiment(Beam(-Z, 1e-10), goniometer, SWEEP, **changes)


def test_goniometer__a_quarter_turn_about_x_is_right_handed():
    turn = Goniometer(X, np.eye(3), np.eye(3)).rotations(np.array([np.pi / 2]))[0]
    np.testing.assert_allclose(turn @ np.eye(3), np.column_stack([X, Z, -Y]), atol=ROUNDING)
    back = Goniometer(-X, np.eye(3), np.eye(3)).rotations(np.array([np.pi / 2]))[0]
    np.testing.assert_allclose(back, turn.T, atol=ROUNDING)


def test_goniometer__setting_after_scan_after_fixed():
    fixed = Goniometer(Z, np.eye(3), np.eye(3)).rotations(np.array([np.pi / 2]))[0]  # x → y
    setting = Goniometer(Y, np.eye(3), np.eye(3)).rotations(np.array([np.pi / 2]))[0]  # z → x
    turn = Goniometer(X, fixed, setting).rotations(np.array([np.pi / 2]))[0]
    # x –F→ y –R→ z –S→ x; any other order leads elsewhere.
    np.testing.assert_allclose(turn @ X, X, atol=4 * ROUNDING)
    np.testing.assert_allclose(turn @ Z, setting @ -Y, atol=4 * ROUNDING)


def test_multi_axis_goniometer__equals_turning_one_axis_after_the_other():
    rng = np.random.default_rng(3)
    axes = rng.normal(size=(4, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    angles = rng.uniform(-3, 3, 4)
    vector = rng.normal(size=3)
    by_hand = vector
    for axis, angle in zip(axes, angles, strict=True):  # Rodrigues, from the crystal outwards
        by_hand = (
            by_hand * np.cos(angle)
            + np.cross(axis, by_hand) * np.sin(angle)
            + axis * (axis @ by_hand) * (1 - np.cos(angle))
        )
    for scan_axis in range(4):
        goniometer = multi_axis_goniometer(axes, angles, scan_axis)
        # The scanning axis' own angle comes from the scan, not from the list. Four products of rotations.
        turned = goniometer.rotations(angles[scan_axis : scan_axis + 1])[0] @ vector
        np.testing.assert_allclose(turned, by_hand, atol=1e-14)


def test_sample_vectors__the_beam_turns_against_the_sample():
    experiment = _experiment(Goniometer(X, np.eye(3), np.eye(3)))
    seen = sample_vectors(experiment, np.tile(-Z, (3, 1)), np.radians([0, 90, 180]))
    # The sample's y has turned to where z was: the beam along −z runs along the sample's −y.
    np.testing.assert_allclose(seen, [-Z, -Y, Z], atol=ROUNDING)


def test_sample_vectors__undo_the_goniometer():
    rng = np.random.default_rng(8)
    goniometer = multi_axis_goniometer(np.eye(3), rng.uniform(-3, 3, 3), 1)
    angles = rng.uniform(-3, 3, 5)
    fixed_to_sample = rng.normal(size=3)
    in_laboratory = goniometer.rotations(angles) @ fixed_to_sample
    seen = sample_vectors(_experiment(goniometer), in_laboratory, angles)
    np.testing.assert_allclose(seen, np.tile(fixed_to_sample, (5, 1)), atol=1e-14)


def test_diffracted_vectors__braggs_law_with_a_lattice_plane_turned_into_it():
    # d = 2 Å and λ = 1 Å: sin θ = 1/4. A lattice vector along y at zero meets the sphere when it has turned by
    # θ about x against the beam's side: q·s0 = −|q|²/2, at y cos φ, z sin φ with sin φ = 1/4.
    crystal = Crystal(np.diag([0.1, 0.5, 0.1]), "P 1")
    experiment = _experiment(Goniometer(X, np.eye(3), np.eye(3)), crystal=crystal)
    s1 = diffracted_vectors(experiment, np.array([[0, 1, 0]]), np.array([np.arcsin(0.25)]))[0]
    assert np.linalg.norm(s1) == pytest.approx(1, abs=1e-15)
    assert -Z @ s1 == pytest.approx(np.cos(2 * np.arcsin(0.25)), abs=1e-15)  # 2θ
    assert s1[1] > 0


@pytest.mark.parametrize("turn", [np.eye(3), np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]])])
def test_diffracted_vectors__lie_on_the_ewald_sphere_and_are_the_twins(turn):
    experiment, table, twin = twin_experiment(turn)
    s1 = diffracted_vectors(experiment, table[["h", "k", "l"]].to_numpy(), twin.angle)
    # The crossing is solved through an arccos: a few roundings relative to 1/λ.
    np.testing.assert_allclose(np.linalg.norm(s1, axis=1) * 3.1, 1, atol=1e-11)
    seen = sample_vectors(experiment, s1 * 3.1, twin.angle)
    np.testing.assert_allclose(seen @ turn, twin.outgoing[:, ::-1], atol=1e-11)


def test_diffracted_vectors__without_a_crystal_says_so():
    with pytest.raises(InputError, match="no crystal"):
        diffracted_vectors(_experiment(Goniometer(X, np.eye(3), np.eye(3))), np.ones((1, 3)), np.zeros(1))


def test_interpolated__linear_between_and_held_outside():
    values = np.array([[0.0, 1.0], [2.0, 1.0], [3.0, 5.0]])
    found = interpolated(values, np.array([-1.0, 0.5, 2.0, 9.0]))
    np.testing.assert_allclose(found, [[0, 1], [1, 1], [3, 5], [3, 5]], atol=1e-15)
    np.testing.assert_array_equal(interpolated(values[:1], np.array([0.0, 3.0])), [[0, 1], [0, 1]])
