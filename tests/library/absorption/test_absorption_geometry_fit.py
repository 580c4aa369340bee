"""The geometry that reflections alone speak for."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.library.absorption.diffraction_files import twin_experiment
from tomoforge.absorption.dials import observations, read_reflections
from tomoforge.absorption.geometry_fit import fitted_experiment
from tomoforge.absorption.goniometer import diffracted_vectors
from tomoforge.errors import InputError


def _with_s1(frame: np.ndarray, noise: float = 0.0, **changes):
    experiment, table, _ = twin_experiment(frame, **changes)
    s1 = diffracted_vectors(experiment, table[["h", "k", "l"]].to_numpy(), table["angle_rad"].to_numpy())
    s1 = s1 + noise * np.random.default_rng(2).normal(size=s1.shape) / 3.1
    return experiment, table.assign(s1_x=s1[:, 0], s1_y=s1[:, 1], s1_z=s1[:, 2])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rotation_range", [(0.2, 3.3), (-2.0, -1.9)])
def test_fitted_experiment__beam_axis_sense_and_cell_are_recovered(seed, rotation_range):
    frame = Rotation.random(random_state=seed).as_matrix()
    truth, table = _with_s1(frame, rotation_range=rotation_range)
    found = fitted_experiment(table)
    # Exact s1: the least-squares solver's own tolerance, of which a sweep of 6° leaves the axis least.
    np.testing.assert_allclose(found.goniometer.rotation_axis, truth.goniometer.rotation_axis, atol=1e-5)
    np.testing.assert_allclose(found.beam.direction, truth.beam.direction, atol=1e-6)
    np.testing.assert_allclose(found.crystal.setting_matrix, truth.crystal.setting_matrix, atol=1e-6)
    assert found.beam.wavelength == pytest.approx(truth.beam.wavelength, rel=1e-9, abs=0)


def test_fitted_experiment__real_file(shared_data):
    found = fitted_experiment(observations(read_reflections(shared_data / "absorption" / "test_refl.refl")))
    # Half a degree of lysozyme: nothing told the fit that it is tetragonal.
    a, b, _, *angles = found.crystal.cell
    assert a == pytest.approx(b, rel=1e-4, abs=0)
    np.testing.assert_allclose(angles, 90, atol=0.01)
    # The spindle is along x to its own error, the source on +z.
    assert np.degrees(np.arccos(found.goniometer.rotation_axis[0])) < 0.3
    assert found.beam.direction[2] < -0.9999


def test_fitted_experiment__too_little_is_refused():
    _, table = _with_s1(np.eye(3))
    with pytest.raises(InputError, match="at least 20"):
        fitted_experiment(table.head(19))
    with pytest.raises(InputError, match="lack the columns"):
        fitted_experiment(table.drop(columns="s1_y"))
    # A sweep too short for its noise leaves the axis open.
    _, noisy = _with_s1(np.eye(3), noise=5e-4, rotation_range=(0.2, 0.21), resolution=2.5e-10)
    with pytest.raises(InputError, match=r"rotation axis is known to .*° only"):
        fitted_experiment(noisy)


def test_fitted_experiment__two_lattices_are_refused():
    _, one = _with_s1(np.eye(3))
    _, two = _with_s1(np.eye(3), orientation=Rotation.from_rotvec([0.5, 0.2, 0.1]).as_matrix())
    mixed = one.copy()
    mixed.loc[::2] = two.head(len(one)).iloc[::2].set_index(mixed.index[::2])
    with pytest.raises(InputError, match=r"leaves .*several sweeps or lattices"):
        fitted_experiment(mixed)
