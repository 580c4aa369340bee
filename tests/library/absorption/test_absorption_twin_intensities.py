"""Measured intensities of the twin: rays and laboratory frame, noise of the size it claims, what the table holds."""

import gemmi
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tomoforge.absorption.goniometer import incident_vectors, sample_vectors
from tomoforge.absorption.orientation import same_goniometer
from tomoforge.absorption.structure_factors import wilson_intensities
from tomoforge.absorption.twin import random_orientation, rotation_experiment
from tomoforge.absorption.twin_intensities import (
    TWIN_ORIENTATION,
    Measurement,
    TwinSweep,
    apply_correction,
    frame_scales,
    observe,
    sweep_experiment,
    sweep_reflections,
)
from tomoforge.errors import InputError

CELL = (31.0, 37.0, 45.0, 90.0, 103.0, 90.0)
GROUP = "P 1 21 1"
WAVELENGTH, RESOLUTION = 3.1e-10, 4e-10
ORIENTATION = random_orientation(2)
MOUNTING = Rotation.from_euler("xyz", [0.4, -0.9, 0.3]).as_matrix()
# Light enough that nothing but the instrument's error and the factors is left: 1e-7 of a mean intensity.
BRIGHT = {"photons_per_unit": 1e12, "background_photons": 0.0}


def _sweep(**changes):
    return TwinSweep(**({"start": 0.3, "stop": 2.1} | changes))


def _reflections(sweep):
    return sweep_reflections(CELL, GROUP, ORIENTATION, WAVELENGTH, RESOLUTION, sweep)


USUAL = Measurement()


def _observed(measurement=USUAL, sweep=None, factor=None, **arguments):
    sweep = sweep or _sweep()
    found = _reflections(sweep)
    truth = wilson_intensities(found.hkl, CELL, GROUP, anomalous_ratio=0.05)
    factor = np.random.default_rng(0).uniform(0.1, 0.6, len(found)) if factor is None else factor
    return observe(found, sweep, truth, factor, measurement, **arguments)


def test_sweep_reflections__without_mounting_are_those_of_the_rotation_experiment():
    found = _reflections(_sweep())
    want = rotation_experiment(CELL, GROUP, ORIENTATION, WAVELENGTH, RESOLUTION, (0.3, 2.1))
    np.testing.assert_array_equal(found.hkl, want.hkl)
    np.testing.assert_allclose(found.outgoing, want.outgoing, atol=1e-15)


def test_sweep_reflections__the_lattice_stands_still_in_the_sample_whatever_the_mounting():
    metric = np.array(gemmi.UnitCell(*CELL).frac.mat.tolist()) / 1e-10
    for mounting in (np.eye(3), MOUNTING):
        found = _reflections(_sweep(mounting=mounting))
        assert len(found) > 500
        q = (found.hkl @ metric @ ORIENTATION.T)[:, ::-1]
        np.testing.assert_allclose(found.outgoing - found.incoming, q * WAVELENGTH, atol=1e-12)


def test_sweep_reflections__a_mounting_about_the_spindle_only_shifts_the_angle():
    turn = Rotation.from_rotvec([0, 0, 0.25]).as_matrix()
    plain, turned = _reflections(_sweep()), _reflections(_sweep(start=0.55, stop=2.35, mounting=turn))
    np.testing.assert_array_equal(plain.hkl, turned.hkl)
    np.testing.assert_allclose(turned.angle - plain.angle, 0.25, atol=1e-10)
    # In the sample the rays are the same ones: A does not know which angle the spindle showed.
    np.testing.assert_allclose(turned.incoming, plain.incoming, atol=1e-10)
    np.testing.assert_allclose(turned.outgoing, plain.outgoing, atol=1e-10)


def test_sweep_reflections__mounting_reaches_the_blind_cone():
    # Reflections along the spindle are never met; mounted across it they are.
    whole = TwinSweep()
    first = {tuple(h) for h in _reflections(whole).hkl.tolist()}
    second = {tuple(h) for h in _reflections(TwinSweep(mounting=MOUNTING)).hkl.tolist()}
    assert second - first and first - second


@pytest.mark.parametrize("mounting", [np.eye(3), MOUNTING])
def test_sweep_experiment__gives_the_rays_of_the_table_by_the_textbook(mounting):
    sweep = _sweep(mounting=mounting)
    table = _observed(sweep=sweep)
    experiment = sweep_experiment(CELL, GROUP, ORIENTATION, WAVELENGTH, sweep, USUAL)
    s0 = experiment.beam.direction / 3.1
    for row in table.iloc[::61].itertuples():
        turn = Rotation.from_rotvec(row.angle_rad * experiment.goniometer.rotation_axis).as_matrix()
        turn = experiment.goniometer.setting_rotation @ turn @ experiment.goniometer.fixed_rotation
        s1 = s0 + turn @ experiment.crystal.setting_matrix @ [row.h, row.k, row.l]
        np.testing.assert_allclose([row.s1_x, row.s1_y, row.s1_z], s1, atol=1e-10)
        assert np.linalg.norm(s1) * 3.1 == pytest.approx(1, abs=1e-10)
    np.testing.assert_allclose(experiment.crystal.cell, CELL, rtol=1e-9)
    # A left-handed crystal would give the same cell.
    volume = gemmi.UnitCell(*CELL).volume
    assert np.linalg.det(experiment.crystal.setting_matrix) * volume == pytest.approx(1, rel=1e-9)
    assert experiment.sweep.n_images == 1032  # 1.8 rad by 0.1°, the last one cut


@pytest.mark.parametrize("mounting", [np.eye(3), MOUNTING])
def test_sweep_experiment__diffraction_geometry_leads_back_to_the_rays_in_the_sample(mounting):
    sweep = _sweep(mounting=mounting)
    found, table = _reflections(sweep), _observed(sweep=sweep)
    experiment = sweep_experiment(CELL, GROUP, ORIENTATION, WAVELENGTH, sweep, USUAL)
    s1, angles = table[["s1_x", "s1_y", "s1_z"]].to_numpy(), table["angle_rad"].to_numpy()
    beams = incident_vectors(experiment, angles)
    for vectors, want in ((s1, found.outgoing), (beams, found.incoming)):
        got = TWIN_ORIENTATION.to_array(sample_vectors(experiment, vectors, angles)) * 3.1
        np.testing.assert_allclose(got, want, atol=1e-12)
    # The tomography's axis is the spindle: what the geometry alone says is the same.
    by_rule = same_goniometer(experiment, rotation_sense=1)
    np.testing.assert_allclose(by_rule.matrix, TWIN_ORIENTATION.matrix, atol=1e-12)


def test_observe__holds_the_common_columns_in_their_types():
    table = _observed(dataset=3)
    for name in ("h", "k", "l", "dataset"):
        assert table[name].dtype == np.int32
    assert table["frame"].dtype == np.int64
    for name in ("intensity", "sigma", "d_angstrom", "angle_rad", "s1_x", "s1_y", "s1_z", "true_intensity",
                 "true_factor", "frame_scale", "partiality", "free_intensity", "free_sigma"):  # fmt: skip
        assert table[name].dtype == np.float64
    assert "absorption_factor" not in table  # nothing is corrected yet
    assert set(table["dataset"]) == {3}
    width = Measurement().frame_width
    assert np.all((table["angle_rad"] - 0.3 - table["frame"] * width).between(-1e-12, width + 1e-12))


def test_observe__without_noise_is_the_product_of_its_factors():
    table = _observed(Measurement(fractional_error=0.0, beam_drift=0.2, **BRIGHT))
    want = table["true_intensity"] * table["true_factor"] * table["frame_scale"]
    strong = want > 1
    np.testing.assert_allclose(table["intensity"][strong], want[strong], rtol=1e-5)  # 5/√1e12
    assert table["frame_scale"].std() > 0.05
    free = table["true_intensity"] * table["frame_scale"]
    np.testing.assert_allclose(table["free_intensity"][strong], free[strong], rtol=1e-5)


@pytest.mark.parametrize(
    "measurement",
    [
        Measurement(photons_per_unit=1.0, background_photons=50.0, fractional_error=0.0),
        Measurement(photons_per_unit=0.02, background_photons=5.0, fractional_error=0.0),
        Measurement(fractional_error=0.05, **BRIGHT),
        Measurement(photons_per_unit=1.0, background_photons=20.0, fractional_error=0.04, beam_drift=0.3),
    ],
)
def test_observe__sigma_is_the_spread_of_the_noise(measurement):
    z = []
    for seed in range(8):
        table = _observed(measurement, seed=seed)
        want = table["true_intensity"] * table["true_factor"] * table["frame_scale"]
        z.append(((table["intensity"] - want) / table["sigma"]).to_numpy())
        want = table["true_intensity"] * table["frame_scale"]
        z.append(((table["free_intensity"] - want) / table["free_sigma"]).to_numpy())
    values = np.concatenate(z)
    # Five standard errors; measured and free share the instrument's deviates, so half the numbers count.
    effective = values.size / 2
    assert abs(values.mean()) < 5 / np.sqrt(effective)
    # The variance of skewed counts spreads by √(2 + skew): twice the normal one is allowed.
    assert np.mean(values**2) == pytest.approx(1, abs=2 * 5 * np.sqrt(2 / effective))


def test_observe__the_instrument_errs_alike_with_and_without_absorption():
    table = _observed(Measurement(fractional_error=0.03, **BRIGHT))
    strong = table["true_intensity"] > 1
    relative = (table["intensity"] / table["true_factor"] / table["free_intensity"])[strong]
    np.testing.assert_allclose(relative, 1, rtol=2e-5)
    spread = (table["free_intensity"] / table["true_intensity"])[strong].std()
    assert spread == pytest.approx(0.03, rel=5 / np.sqrt(2 * strong.sum()))


def test_observe__is_the_same_for_the_same_seed_and_new_for_another_dataset():
    first, again, other = _observed(seed=1), _observed(seed=1), _observed(seed=1, dataset=1)
    assert first.equals(again)
    assert not np.array_equal(first["intensity"], other["intensity"])
    np.testing.assert_array_equal(first["true_intensity"], other["true_intensity"])


def test_observe__a_turn_has_both_friedel_mates_and_they_differ():
    table = _observed(sweep=TwinSweep(), factor=0.5 * np.ones(len(_reflections(TwinSweep()))))
    truth = {(row.h, row.k, row.l): row.true_intensity for row in table.itertuples()}
    assert all((-h, -k, -l) in truth for h, k, l in truth)
    ratio = np.array([value / truth[(-h, -k, -l)] for (h, k, l), value in truth.items()])
    assert np.median(np.abs(ratio - 1)) > 0.02  # of dF/F = 5 %


def test_observe__rocking_curves_are_cut_at_the_ends_of_the_sweep_alone():
    measurement = Measurement(rocking_width=0.01, fractional_error=0.0, **BRIGHT)
    table = _observed(measurement)
    part = table["partiality"]
    middle = table["angle_rad"].between(0.7, 1.7)
    # Ten widths and more away, but for reflections that run along the sphere.
    assert (part[middle] > 0.999).mean() > 0.99
    ends = (table["angle_rad"] < 0.304) | (table["angle_rad"] > 2.096)
    assert ends.sum() > 3
    assert np.all(part[ends] < 0.7)  # Φ(0.4) where the width is least
    assert part.min() > 0.3  # a half, or less where the sphere is never left on either side
    want = table["true_intensity"] * table["true_factor"]
    strong = want > 1
    np.testing.assert_allclose(table["intensity"][strong], want[strong], rtol=1e-5)  # scaled up again


def test_frame_scales__are_one_without_drift_and_swing_by_it():
    np.testing.assert_array_equal(frame_scales(np.arange(100), 100, 0.0, 1, 0), np.ones(100))
    swing = np.log(frame_scales(np.arange(10_000), 10_000, 0.1, 1, 0))
    assert np.abs(swing).max() == pytest.approx(0.1, rel=1e-3)


def test_apply_correction__by_the_truth_takes_the_absorption_out():
    table = _observed(Measurement(fractional_error=0.0, **BRIGHT)).assign(absorption_factor=0.5)
    corrected = apply_correction(table, table["true_factor"].to_numpy())
    strong = corrected["true_intensity"] > 1
    np.testing.assert_allclose(corrected["intensity"][strong], corrected["true_intensity"][strong], rtol=1e-5)
    ratio = table["intensity"] / table["sigma"]
    np.testing.assert_allclose(corrected["intensity"] / corrected["sigma"], ratio, rtol=1e-12)
    np.testing.assert_array_equal(corrected["applied_factor"], table["true_factor"])
    assert "absorption_factor" not in corrected  # it would be applied once more by merging
    with pytest.raises(InputError, match="twice"):
        apply_correction(corrected, np.ones(len(corrected)))


@pytest.mark.parametrize("wrong", [0.0, 1.5, np.nan])
def test_apply_correction__refuses_what_is_no_factor(wrong):
    table = _observed()
    with pytest.raises(InputError, match="a must"):
        apply_correction(table, np.full(len(table), wrong))
    with pytest.raises(InputError, match="one value for each"):
        apply_correction(table, np.ones(3))


def test_observe__refuses():
    found = _reflections(_sweep())
    ones = np.ones(len(found))
    for truth, factor, message in (
        (ones[1:], ones, "true_intensity"),
        (-ones, ones, "negative"),
        (ones, 0 * ones, "is it 1/A"),
        (ones * np.nan, ones, "finite"),
    ):
        with pytest.raises(InputError, match=message):
            observe(found, _sweep(), truth, factor)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TwinSweep(start=1.0, stop=1.0), "start < stop"),
        (lambda: TwinSweep(mounting=2 * np.eye(3)), "mounting"),
        (lambda: Measurement(photons_per_unit=0.0), "photons_per_unit"),
        (lambda: Measurement(frame_width=np.nan), "frame_width"),
        (lambda: Measurement(fractional_error=-0.1), "fractional_error"),
    ],
)
def test_settings__refuse(build, message):
    with pytest.raises(InputError, match=message):
        build()
