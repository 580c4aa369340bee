"""Rays of reflections: from the file or from the lattice, and loud where they disagree."""

from dataclasses import replace

import numpy as np
import pytest

from tests.library.absorption.diffraction_files import twin_experiment
from tomoforge.absorption.dials import observations, read_reflections
from tomoforge.absorption.geometry_fit import fitted_experiment
from tomoforge.absorption.goniometer import Goniometer, diffracted_vectors, multi_axis_goniometer
from tomoforge.absorption.orientation import same_goniometer
from tomoforge.absorption.rays import check_geometry, ray_directions
from tomoforge.errors import InputError

# DIALS's usual laboratory: axis along +x, beam towards −z.
DIALS = np.array([[0, 0, -1.0], [1, 0, 0], [0, -1, 0]])


def _case(**changes):
    experiment, table, twin = twin_experiment(DIALS, **changes)
    s1 = diffracted_vectors(experiment, table[["h", "k", "l"]].to_numpy(), table["angle_rad"].to_numpy())
    with_s1 = table.assign(s1_x=s1[:, 0], s1_y=s1[:, 1], s1_z=s1[:, 2])
    return experiment, table, with_s1, twin


def test_ray_directions__are_those_of_the_twin_from_the_lattice_and_from_the_file():
    experiment, table, with_s1, twin = _case()
    np.testing.assert_allclose(experiment.goniometer.rotation_axis, [1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(experiment.beam.direction, [0, 0, -1], atol=1e-15)
    orientation = same_goniometer(experiment)
    for given, source in ((table, "auto"), (with_s1, "auto"), (with_s1, "file"), (with_s1, "crystal")):
        incoming, outgoing = ray_directions(given, experiment, orientation, source=source)
        np.testing.assert_allclose(incoming, twin.incoming, atol=1e-14)
        np.testing.assert_allclose(outgoing, twin.outgoing, atol=1e-11)  # the twin's arccos
        assert incoming.flags.c_contiguous and outgoing.flags.c_contiguous
    bare = replace(experiment, crystal=None)
    np.testing.assert_allclose(ray_directions(with_s1, bare, orientation)[1], twin.outgoing, atol=1e-11)


def test_ray_directions__a_sample_held_by_kappa_has_the_same_rays():
    # The same crystal, reached through inner axes: A is then that of the crystal with all axes at zero.
    experiment, table, _, twin = _case()
    goniometer = multi_axis_goniometer(
        np.array([[0.3, 0.8, -0.5], [1.0, 0, 0]]), np.array([0.7, 0.0]), scan_axis=1
    )
    crystal = replace(
        experiment.crystal, setting_matrix=goniometer.fixed_rotation.T @ experiment.crystal.setting_matrix
    )
    held = replace(experiment, goniometer=goniometer, crystal=crystal)
    orientation = same_goniometer(held, fixed_rotation=goniometer.fixed_rotation)
    incoming, outgoing = ray_directions(table, held, orientation)
    np.testing.assert_allclose(incoming, twin.incoming, atol=1e-14)
    np.testing.assert_allclose(outgoing, twin.outgoing, atol=1e-11)


def test_ray_directions__several_experiments_by_data_set():
    experiment, table, _, twin = _case()
    other, other_table, other_twin = twin_experiment(DIALS, rotation_range=(3.0, 4.0))
    both = [table.assign(dataset=1), other_table.assign(dataset=0)]
    stacked = type(table)(np.vstack([t.to_numpy() for t in both]), columns=both[0].columns)
    with pytest.raises(InputError, match="need the column dataset"):
        ray_directions(stacked.drop(columns="dataset"), [other, experiment], same_goniometer(experiment))
    with pytest.raises(InputError, match="dataset must be an index"):
        ray_directions(stacked.assign(dataset=5), [other, experiment], same_goniometer(experiment))
    stacked["dataset"] = stacked["dataset"].astype(int)
    incoming, _ = ray_directions(stacked, [other, experiment], same_goniometer(experiment))
    np.testing.assert_allclose(incoming, np.vstack([twin.incoming, other_twin.incoming]), atol=1e-14)


def _reversed_sense(e):
    return replace(e, goniometer=replace(e.goniometer, rotation_axis=-e.goniometer.rotation_axis))


def _reversed_beam(e):
    return replace(e, beam=replace(e.beam, direction=-e.beam.direction))


def _tilted_setting(e):
    tilt = Goniometer([0, 0, 1], np.eye(3), np.eye(3)).rotations(np.array([0.3]))[0]
    return replace(e, goniometer=replace(e.goniometer, setting_rotation=tilt))


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (_reversed_sense, "the rotation sense reversed"),
        (_reversed_beam, "the beam reversed"),
        (_tilted_setting, "no setting rotation"),
    ],
)
def test_ray_directions__s1_that_does_not_fit_the_goniometer_is_refused(wrong, hint):
    experiment, _, with_s1, _ = _case()
    with pytest.raises(InputError, match=f"disagree by .*they agree with {hint}"):
        ray_directions(with_s1, wrong(experiment), same_goniometer(experiment))


def test_ray_directions__a_wrong_axis_has_no_remedy_to_name():
    experiment, _, with_s1, _ = _case()
    other = replace(experiment, goniometer=replace(experiment.goniometer, rotation_axis=[0.0, 1, 0]))
    with pytest.raises(InputError, match=r"disagree by .*check axis, sense"):
        ray_directions(with_s1, other, same_goniometer(experiment))


def test_ray_directions__angles_in_degrees_are_refused():
    experiment, table, with_s1, _ = _case()
    degrees = table.assign(angle_rad=np.degrees(table["angle_rad"]))
    with pytest.raises(InputError, match=r"must lie in the sweep.*are they degrees"):
        ray_directions(degrees, experiment, same_goniometer(experiment))
    # Where the sweep is wide enough to hide it, s1 tells.
    wide = replace(experiment, sweep=replace(experiment.sweep, width=1.0))
    with pytest.raises(InputError, match="angles taken as degrees"):
        check_geometry(with_s1.assign(angle_rad=np.degrees(with_s1["angle_rad"])), wide)


def test_ray_directions__missing_s1_and_crystal():
    experiment, table, _, _ = _case()
    bare = replace(experiment, crystal=None)
    orientation = same_goniometer(experiment)
    with pytest.raises(InputError, match=r"there is no s1: .*give the \.expt"):
        ray_directions(table, bare, orientation)
    with pytest.raises(InputError, match=r"have no s1 \(columns s1_x"):
        ray_directions(table, experiment, orientation, source="file")
    with pytest.raises(InputError, match=r"lack the columns .'angle_rad'"):
        ray_directions(table.drop(columns="angle_rad"), experiment, orientation)
    with pytest.raises(InputError, match="source must be one of"):
        ray_directions(table, experiment, orientation, source="detector")


def test_ray_directions__s1_of_another_wavelength_and_nan():
    experiment, _, with_s1, _ = _case()
    orientation = same_goniometer(experiment)
    for column in ("s1_x", "s1_y", "s1_z"):
        with_nan = with_s1.copy()
        with_nan.loc[7, column] = np.nan
        with pytest.raises(InputError, match=f"'{column}' must be finite.*first row 7"):
            ray_directions(with_nan, experiment, orientation)
    for factor in (1.01, 1e10):
        stretched = with_s1.assign(**{c: factor * with_s1[c] for c in ("s1_x", "s1_y", "s1_z")})
        with pytest.raises(InputError, match=r"must have length 1/λ.*belong to this"):
            ray_directions(stretched, experiment, orientation)
    one = with_s1.copy()
    one.loc[5, ["s1_x", "s1_y", "s1_z"]] *= 1.5
    with pytest.raises(InputError, match=r"off by up to 0.5"):
        ray_directions(one, experiment, orientation)


def test_ray_directions__indices_of_another_crystal_are_refused():
    experiment, table, _, _ = _case()
    shuffled = table.assign(angle_rad=np.random.default_rng(0).permutation(table["angle_rad"].to_numpy()))
    with pytest.raises(InputError, match=r"must have length 1/λ.*indices and angles"):
        ray_directions(shuffled, experiment, same_goniometer(experiment))


def test_ray_directions__real_file_gives_rays(shared_data):
    table = observations(read_reflections(shared_data / "absorption" / "test_refl.refl"))
    experiment = fitted_experiment(table, "P 43 21 2")
    # Predicted s1 against the fitted model.
    assert check_geometry(table, experiment) < 1e-5
    incoming, outgoing = ray_directions(table, experiment, same_goniometer(experiment))
    np.testing.assert_allclose(np.linalg.norm(outgoing, axis=1), 1, atol=1e-14)
    # The scattering angle is the same in every frame, and Bragg's: sin θ = λ/2d. The file's d is of the static cell
    # and differs from s1's by up to 1e-3, as the file's own numbers do.
    sine = np.linalg.norm(outgoing - incoming, axis=1) / 2
    np.testing.assert_allclose(sine, 1.03752 / 2 / table["d_angstrom"], rtol=2e-3)
    with pytest.raises(InputError, match="disagree"):
        check_geometry(table, _reversed_beam(experiment))
