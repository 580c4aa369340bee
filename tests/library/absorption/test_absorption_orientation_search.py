"""The orientation that equivalents speak for, and loudness where they say nothing."""

import numpy as np
import pytest

from tests.library.absorption.diffraction_files import twin_experiment
from tests.library.absorption.test_absorption_orientation import MU, VOXEL, asymmetric_phantom
from tomoforge.absorption.factors import absorption_factors
from tomoforge.absorption.orientation import (
    Orientation,
    permuted_labels,
    same_goniometer,
    signed_permutations,
)
from tomoforge.absorption.orientation_search import check_orientation, find_orientation
from tomoforge.absorption.rays import ray_directions
from tomoforge.errors import InputError

GROUP = "P 2 2 2"
FRAME = np.array([[0, 0, -1.0], [1, 0, 0], [0, -1, 0]])
N = 320


def _measured(labels: np.ndarray, absorbed: bool = True, seed: int = 4):
    """A sweep of an orthorhombic crystal of equal intensities through ``labels``, 2 % noise."""
    tilt = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
    experiment, table, _ = twin_experiment(
        FRAME,
        cell=(24.0, 31.0, 37.0, 90.0, 90.0, 90.0),
        space_group=GROUP,
        orientation=tilt,
        resolution=5e-10,
        rotation_range=(0.0, 2 * np.pi),
    )
    orientation = same_goniometer(experiment)
    a = np.ones(len(table))
    if absorbed:
        a = absorption_factors(
            labels, VOXEL, MU, *ray_directions(table, experiment, orientation), target_error=5e-3
        ).a
    noise = 1 + 0.02 * np.random.default_rng(seed).normal(size=len(table))
    return experiment, table.assign(intensity=1000 * a * noise, sigma=20 * a), orientation


@pytest.fixture(scope="module")
def measured():
    return _measured(asymmetric_phantom())


def _find(labels, measured, **changes):
    experiment, table, _ = measured
    return find_orientation(labels, VOXEL, MU, table, experiment, GROUP, n_observations=N, **changes)


@pytest.mark.parametrize("number", [0, 11])
def test_find_orientation__a_turned_tomogram_is_found(measured, number):
    _, _, orientation = measured
    matrix = signed_permutations()[number]
    found = _find(permuted_labels(asymmetric_phantom(), matrix), measured)
    np.testing.assert_allclose(found.orientation.matrix, matrix @ orientation.matrix, atol=1e-12)
    assert np.argmin(found.disagreement) == number
    # r² is about ½ where noise of 2 % stands beside the 2 % that are allowed for: the mean of ln(1 + r²) is then
    # 0.34 for normal errors, and sampling of A adds little.
    assert found.disagreement[number] == pytest.approx(0.36, abs=0.06)
    assert found.uncorrected > 1.5 and found.significance > 4
    assert found.n_groups >= 80 and found.n_observations >= N


def test_check_orientation__right_and_wrong(measured):
    experiment, table, orientation = measured
    labels = asymmetric_phantom()
    arguments = (labels, VOXEL, MU, table, experiment, GROUP)
    assert check_orientation(orientation, *arguments, n_observations=N).significance > 4
    wrong = Orientation(signed_permutations()[3] @ orientation.matrix, "given")
    with pytest.raises(InputError, match=r"orientation given is wrong: with .* agree better"):
        check_orientation(wrong, *arguments, n_observations=N)


def test_find_orientation__a_mirrored_tomogram_is_recognised(measured):
    with pytest.raises(InputError, match=r"mirror image of the tomogram fits best.*sign of its angles"):
        _find(asymmetric_phantom()[::-1], measured)


def test_find_orientation__a_symmetric_sample_tells_nothing(measured):
    cube = np.full((4, 4, 4), 3, dtype=np.uint8)
    symmetric = _measured(cube)
    with pytest.raises(
        InputError, match=r"cannot be established: the best orientation is only .* than the second"
    ):
        _find(cube, symmetric)


def test_find_orientation__data_without_absorption_are_refused():
    with pytest.raises(InputError, match=r"cannot be established: no orientation .* no correction"):
        _find(asymmetric_phantom(), _measured(asymmetric_phantom(), absorbed=False))


def test_find_orientation__merged_or_weak_data_are_refused(measured):
    experiment, table, orientation = measured
    few = table.drop_duplicates(["d_angstrom"])
    with pytest.raises(InputError, match="measured more than once, at least 20"):
        _find(asymmetric_phantom(), (experiment, few.head(12), orientation))
    with pytest.raises(InputError, match="no observation is stronger"):
        _find(asymmetric_phantom(), (experiment, table.assign(sigma=1e6), orientation))
    with pytest.raises(InputError, match="space_group must be"):
        find_orientation(asymmetric_phantom(), VOXEL, MU, table, experiment, "P 9")
