"""From the laboratory to the tomogram: 48 ways to lay the axes, 24 of them real."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.library.absorption.diffraction_files import twin_experiment
from tomoforge.absorption.factors import absorption_factors
from tomoforge.absorption.orientation import (
    Orientation,
    anacor_orientation,
    orientation_from_axes,
    permuted_labels,
    same_goniometer,
    signed_permutations,
)
from tomoforge.absorption.paths import optical_depths
from tomoforge.absorption.rays import sample_rays
from tomoforge.errors import InputError
from tomoforge.geometry import beam_direction

MU = {1: 4.0e3, 2: 1.5e4, 3: 8.0e3}
VOXEL = 4e-5
LETTERS = ("x", "y", "z")


def asymmetric_phantom() -> np.ndarray:
    """A crystal off the middle, liquor on one side, a stalk below: no rotation and no mirror maps it to itself."""
    labels = np.zeros((13, 11, 9), dtype=np.uint8)
    labels[3:9, 2:8, 2:6] = 1
    labels[4:8, 3:6, 3:6] = 3
    labels[0:4, 6:8, 4:5] = 2
    labels[8:11, 4:9, 1:4] = 1
    return labels


def _factors_of_voxel_centres(labels: np.ndarray, incoming: np.ndarray, outgoing: np.ndarray) -> np.ndarray:
    """A by exact paths from the middle of every crystal voxel: nothing is drawn, nothing depends on order."""
    points = np.argwhere(labels == 3).astype(float)
    mu = np.array([0, MU[1], MU[2], MU[3]])
    depth_in = optical_depths(labels, VOXEL, mu, points, -incoming)
    depth_out = optical_depths(labels, VOXEL, mu, points, outgoing)
    axis = 0 if depth_in.shape[0] == len(points) else 1
    return np.exp(-(depth_in + depth_out)).mean(axis=axis)


def _rays(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    rays = rng.normal(size=(2, n, 3))
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    return rays[0], rays[1]


def test_signed_permutations__are_the_full_octahedral_group():
    matrices = signed_permutations()
    assert len({m.tobytes() for m in matrices + 0.0}) == 48
    np.testing.assert_array_equal(matrices[0], np.eye(3))
    determinants = np.linalg.det(matrices)
    np.testing.assert_allclose(determinants, [1] * 24 + [-1] * 24, atol=1e-15)
    known = {m.tobytes() for m in matrices + 0.0}
    for a in matrices[::5]:
        for b in matrices[::7]:
            assert (a @ b + 0.0).tobytes() in known  # closed


@pytest.mark.parametrize("number", range(48))
def test_orientation__sample_and_orientation_turned_together_keep_the_factors(number):
    matrix = signed_permutations()[number]
    labels = asymmetric_phantom()
    base = orientation_from_axes(z="+x", y="-z", x="-y")
    incoming, outgoing = _rays(12)
    want = _factors_of_voxel_centres(labels, base.to_array(incoming), base.to_array(outgoing))
    turned = permuted_labels(labels, matrix)
    if number >= 24:
        with pytest.raises(InputError, match=r"mirrors the sample.*flip labels"):
            Orientation(matrix @ base.matrix)
        # Not a matter of taste: the nearest that an honest orientation can do is wrong.
        got = _factors_of_voxel_centres(turned, base.to_array(incoming), base.to_array(outgoing))
        assert np.abs(got / want - 1).max() > 0.1
        return
    orientation = Orientation(matrix @ base.matrix)
    got = _factors_of_voxel_centres(turned, orientation.to_array(incoming), orientation.to_array(outgoing))
    # The same voxels are crossed in the same order: sums of lengths round alike up to the last digits.
    np.testing.assert_allclose(got, want, rtol=1e-12)
    if number > 0:  # and the old orientation with the turned sample is wrong by tens of per cent
        wrong = _factors_of_voxel_centres(turned, base.to_array(incoming), base.to_array(outgoing))
        assert np.abs(wrong / want - 1).max() > 0.1


def test_orientation__factors_of_the_engine_follow_too():
    labels = asymmetric_phantom()
    incoming, outgoing = _rays(6)
    base = orientation_from_axes(z="+x", y="-z", x="-y")
    first = absorption_factors(labels, VOXEL, MU, base.to_array(incoming), base.to_array(outgoing))
    for number in (5, 17):
        matrix = signed_permutations()[number]
        orientation = Orientation(matrix @ base.matrix)
        again = absorption_factors(
            permuted_labels(labels, matrix),
            VOXEL,
            MU,
            orientation.to_array(incoming),
            orientation.to_array(outgoing),
        )
        # Other points are drawn: within the errors that both state (5 standard errors, 12 values).
        assert np.all(np.abs(again.a - first.a) < 5 * np.hypot(again.standard_error, first.standard_error))


@pytest.mark.parametrize("number", [0, 7, 13, 30, 47])
def test_permuted_labels__a_marked_voxel_lands_where_the_matrix_says(number):
    matrix = signed_permutations()[number]
    labels = np.zeros((5, 7, 9), dtype=np.uint8)
    labels[1, 5, 2] = 1
    middle = (np.array(labels.shape) - 1) / 2
    vector = (np.array([1, 5, 2]) - middle)[::-1]  # (x, y, z) from the middle
    turned = permuted_labels(labels, matrix)
    place = np.argwhere(turned)[0]
    np.testing.assert_allclose((place - (np.array(turned.shape) - 1) / 2)[::-1], matrix @ vector)
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(permuted_labels(turned, matrix.T), labels)


def test_permuted_labels__other_matrices_are_refused():
    for matrix in (
        Rotation.from_rotvec([0, 0, 0.1]).as_matrix(),
        np.zeros((3, 3)),
        np.eye(2),
        np.eye(3)[[0, 0, 1]],
    ):
        with pytest.raises(InputError, match="signed permutation"):
            permuted_labels(np.zeros((2, 2, 2), dtype=np.uint8), matrix)


def test_orientation_from_axes__one_axis_at_a_time():
    orientation = orientation_from_axes(z="+x", y="-z", x="-y")
    x, y, z = np.eye(3)
    # Array order (z, y, x).
    np.testing.assert_array_equal(orientation.to_array(x), [1, 0, 0])
    np.testing.assert_array_equal(orientation.to_array(-z), [0, 1, 0])
    np.testing.assert_array_equal(orientation.to_array(-y), [0, 0, 1])
    np.testing.assert_array_equal(orientation.from_array([[1, 0, 0], [0, 1, 0]]), [x, -z])


def test_anacor_orientation__array_axes_follow_x_z_y():
    v = np.array([0.1, 0.2, 0.3])
    np.testing.assert_allclose(anacor_orientation().to_array(v), [0.1, 0.3, 0.2])


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (("+x", "+y", "+z"), "mirrors"),  # reversing the order of axes without a sign is a reflection
        (("x", "x", "z"), "three different"),
        (("x", "y", "w"), "must follow a laboratory axis"),
        (("x", "y", ""), "must follow a laboratory axis"),
    ],
)
def test_orientation_from_axes__mirrors_and_nonsense_are_refused(axes, message):
    with pytest.raises(InputError, match=message):
        orientation_from_axes(*axes)


@pytest.mark.parametrize("matrix", [2 * np.eye(3), np.eye(2), np.full((3, 3), np.nan), np.zeros((3, 3))])
def test_orientation__what_is_no_rotation_is_refused(matrix):
    with pytest.raises(InputError, match=r"must be a .* rotation matrix"):
        Orientation(matrix)


@pytest.mark.parametrize("sense", [1, -1])
@pytest.mark.parametrize("offset", [0.0, 0.4, -2.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_same_goniometer__the_beam_is_the_tomographs(sense, offset, seed):
    # Whatever the laboratory, a reflection at goniometer angle φ sees the beam that the projection at θ saw.
    experiment, table, _ = twin_experiment(Rotation.random(random_state=seed).as_matrix())
    orientation = same_goniometer(experiment, tomography_angle_at_zero=offset, rotation_sense=sense)
    incoming = orientation.to_array(sample_rays(table, experiment)[0])
    for row in (0, len(table) // 2, len(table) - 1):
        theta = sense * table["angle_rad"].iloc[row] + offset
        np.testing.assert_allclose(incoming[row], beam_direction(theta), atol=1e-14)
    turned = same_goniometer(experiment, rotation_sense=sense).turned(offset)
    np.testing.assert_allclose(turned.matrix, orientation.matrix, atol=1e-14)


def test_same_goniometer__both_senses_are_half_a_turn_apart():
    experiment, _, _ = twin_experiment(np.eye(3))
    one, other = (same_goniometer(experiment, rotation_sense=s).matrix for s in (1, -1))
    # z and x reversed, y the beam: half a turn about y.
    np.testing.assert_allclose(other @ one.T, np.diag([-1, 1, -1]), atol=1e-15)


def test_same_goniometer__nonsense_is_refused():
    experiment, _, _ = twin_experiment(np.eye(3))
    with pytest.raises(InputError, match="rotation_sense must be 1 or -1"):
        same_goniometer(experiment, rotation_sense=0)
    with pytest.raises(InputError, match="fixed_rotation"):
        same_goniometer(experiment, fixed_rotation=2 * np.eye(3))
