"""Experiments written for DIALS: read back the same, laid out as dxtbx wants them; the twin as a reflection table."""

import json
import uuid
from dataclasses import replace

import numpy as np
import pytest

from tests.library.absorption.diffraction_files import EXPERIMENT_LIST, experiment_list, write_expt
from tomoforge.absorption.detector import Panel, box_detector, ray_impacts
from tomoforge.absorption.dials import (
    observations,
    read_experiment,
    read_experiments,
    read_reflections,
    write_experiments,
    write_reflections,
)
from tomoforge.absorption.goniometer import Experiment, diffracted_vectors, incident_vectors, sample_vectors
from tomoforge.absorption.rays import check_geometry
from tomoforge.absorption.structure_factors import wilson_intensities
from tomoforge.absorption.twin import random_orientation
from tomoforge.absorption.twin_files import integrated_table
from tomoforge.absorption.twin_intensities import (
    TWIN_ORIENTATION,
    Measurement,
    TwinSweep,
    observe,
    sweep_experiment,
    sweep_reflections,
)
from tomoforge.errors import InputError

CELL, GROUP, WAVELENGTH = (31.0, 37.0, 45.0, 90.0, 103.0, 90.0), "P 1 21 1", 3.1e-10
KAPPA = {
    "axes": [[1.0, 0.0, 0.0], [0.642788, 0.0, -0.766044], [1.0, 0.0, 0.0]],
    "angles": [20.0, 50.0, 0.0],
    "names": ["PHI", "KAPPA", "OMEGA"],
    "scan_axis": 2,
}
SWEEP, MEASUREMENT = TwinSweep(0.3, 2.1), Measurement(rocking_width=2e-3)


def same(found: Experiment, wanted: Experiment) -> None:
    """Equal but for the last digits of degrees and of an inverse."""
    pairs = [
        (found.beam.direction, wanted.beam.direction),
        (found.beam.wavelength, wanted.beam.wavelength),
        (found.beam.s0_at_scan_points, wanted.beam.s0_at_scan_points),
        (found.goniometer.rotation_axis, wanted.goniometer.rotation_axis),
        (found.goniometer.fixed_rotation, wanted.goniometer.fixed_rotation),
        (found.goniometer.setting_rotation, wanted.goniometer.setting_rotation),
        (
            found.goniometer.setting_rotation_at_scan_points,
            wanted.goniometer.setting_rotation_at_scan_points,
        ),
        (found.sweep.start, wanted.sweep.start),
        (found.sweep.width, wanted.sweep.width),
    ]
    assert (found.crystal is None) == (wanted.crystal is None)
    if found.crystal is not None and wanted.crystal is not None:
        pairs += [
            (found.crystal.setting_matrix, wanted.crystal.setting_matrix),
            (found.crystal.setting_matrix_at_scan_points, wanted.crystal.setting_matrix_at_scan_points),
        ]
        assert found.crystal.space_group == wanted.crystal.space_group
    for one, other in pairs:
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=1e-14, atol=1e-17)
    assert (found.identifier, found.sweep.image_range) == (wanted.identifier, wanted.sweep.image_range)


def twin() -> tuple[Experiment, object]:
    """A sweep with its experiment and its measured table."""
    orientation = random_orientation(2)
    found = sweep_reflections(CELL, GROUP, orientation, WAVELENGTH, 2.2e-10, SWEEP)
    experiment = sweep_experiment(CELL, GROUP, orientation, WAVELENGTH, SWEEP, MEASUREMENT)
    intensity = wilson_intensities(found.hkl, CELL, GROUP, anomalous_ratio=0.04, seed=1)
    table = observe(found, SWEEP, intensity, np.full(len(found), 0.7), MEASUREMENT, seed=1)
    return replace(experiment, identifier=str(uuid.uuid5(uuid.NAMESPACE_OID, "twin"))), table


def varying(document: dict) -> dict:
    """A scan of two images over which beam, setting and crystal drift."""
    document["scan"][0] |= {"image_range": [5, 6], "oscillation": [-12.3, 0.7]}
    document["beam"][0]["s0_at_scan_points"] = [[0, 0, -0.3], [0, 0.01, -0.3], [0, 0.02, -0.3]]
    document["goniometer"][0]["setting_rotation_at_scan_points"] = [
        document["goniometer"][0]["setting_rotation"]
    ] * 3
    document["crystal"][0]["A_at_scan_points"] = [
        (np.diag([0.01, 0.02, 0.03]) * s).ravel().tolist() for s in (1.0, 1.1, 1.4)
    ]
    return document


@pytest.mark.parametrize("change", [lambda d: d, lambda d: d | {"goniometer": [KAPPA]}, varying])
def test_write_experiments__reads_back_the_same(tmp_path, change):
    wanted = read_experiment(write_expt(tmp_path / "a.expt", change(experiment_list())))
    write_experiments(tmp_path / "b.expt", [wanted], box_detector())
    same(read_experiment(tmp_path / "b.expt"), wanted)


def test_write_experiments__several_and_without_crystal(tmp_path):
    one, _ = twin()
    bare = replace(one, crystal=None, identifier="bare")
    write_experiments(tmp_path / "a.expt", [bare, one])
    for found, wanted in zip(read_experiments(tmp_path / "a.expt"), (bare, one), strict=True):
        same(found, wanted)
    with pytest.raises(InputError, match="at least one"):
        write_experiments(tmp_path / "a.expt", [])


@pytest.mark.parametrize("group", ["P 43 21 2", "P 1 21 1", "R 3 :H", "R 3 :R", "C 1 2 1", "F -4 3 m"])
def test_write_experiments__space_groups_in_their_setting(tmp_path, group):
    one, _ = twin()
    wanted = replace(one, crystal=replace(one.crystal, space_group=group.replace(" :", ":")))
    write_experiments(tmp_path / "a.expt", [wanted])
    assert read_experiment(tmp_path / "a.expt").crystal.space_group.replace(" ", "") == group.replace(" ", "")


def test_write_experiments__is_laid_out_as_dials_does(tmp_path):
    """The keys of a file of DIALS 3, images, profiles and scaling aside; numbers as numbers of their kind."""
    one, _ = twin()
    write_experiments(tmp_path / "a.expt", [one], box_detector())
    found = json.loads((tmp_path / "a.expt").read_text())
    assert set(found) == set(EXPERIMENT_LIST)
    wanted_entry = set(EXPERIMENT_LIST["experiment"][0]) - {"profile", "imageset"}
    assert set(found["experiment"][0]) == wanted_entry
    for kind in ("beam", "goniometer", "scan", "crystal"):
        assert set(found[kind][0]) == set(EXPERIMENT_LIST[kind][0])
    # dxtbx takes vectors of doubles and would refuse an integer among them.
    for kind, key in (("beam", "direction"), ("goniometer", "rotation_axis"), ("crystal", "real_space_a")):
        assert all(type(value) is float for value in found[kind][0][key])
    scan, panels = found["scan"][0], found["detector"][0]["panels"]
    images = scan["image_range"][1] - scan["image_range"][0] + 1
    assert len(scan["exposure_time"]) == len(scan["epochs"]) == images
    assert [child["panel"] for child in found["detector"][0]["hierarchy"]["children"]] == list(
        range(len(panels))
    )
    assert panels[0]["origin"] == [-100.0, 100.0, -100.0] and panels[0]["pixel_size"] == [0.1, 0.1]  # mm
    assert found["beam"][0]["direction"] == [0.0, 0.0, 1.0]  # towards the source


def test_box_detector__every_ray_meets_it_where_the_panel_says():
    rays = np.random.default_rng(1).normal(size=(2000, 3))
    rays = np.vstack([rays, np.eye(3), -np.eye(3), [[1, 1, 1], [1, -1, 0]]])  # corners and edges too
    panels = box_detector(0.08, 2e-4)
    panel, place = ray_impacts(panels, rays)
    origin, fast, slow = (
        np.array([getattr(p, n) for p in panels])[panel] for n in ("origin", "fast", "slow")
    )
    met = origin + place[:, :1] * fast + place[:, 1:] * slow
    np.testing.assert_allclose(np.cross(met, rays), 0, atol=1e-12)
    assert (np.sum(met * rays, axis=1) > 0).all() and set(panel) == set(range(6))
    np.testing.assert_allclose(np.abs(met).max(axis=1), 0.08, rtol=1e-12)
    for one in panels:  # they look outwards
        assert np.cross(one.fast, one.slow) @ one.origin == pytest.approx(0.08)


def test_ray_impacts__refuses_rays_beside_the_detector():
    with pytest.raises(InputError, match="2 of 3 do not"):
        ray_impacts(box_detector()[:1], np.array([[0, 0, -1.0], [0, 0, 1.0], [1.0, 0, -0.9]]))
    with pytest.raises(InputError, match="right angles"):
        Panel(np.zeros(3), np.array([1.0, 0, 0]), np.array([1.0, 1, 0]), 1e-4, (2, 2))
    with pytest.raises(InputError, match="positive"):
        Panel(np.zeros(3), np.array([1.0, 0, 0]), np.array([0.0, 1, 0]), 0.0, (2, 2))


def test_integrated_table__gives_back_intensities_and_rays(tmp_path):
    experiment, table = twin()
    write_experiments(tmp_path / "twin.expt", [experiment], box_detector())
    write_reflections(tmp_path / "twin.refl", integrated_table(table, experiment, box_detector()))
    stored, model = read_reflections(tmp_path / "twin.refl"), read_experiment(tmp_path / "twin.expt")
    assert dict(stored.identifiers) == {0: model.identifier}
    found = observations(stored)
    whole = table["partiality"].to_numpy() >= 0.95  # the others are left out, as dials.scale does
    assert 0.9 * len(table) < len(found) == whole.sum() < len(table)
    for name in ("h", "k", "l", "intensity", "angle_rad", "s1_x", "s1_y", "s1_z", "d_angstrom"):
        np.testing.assert_array_equal(found[name], table[name].to_numpy()[whole])
    np.testing.assert_allclose(found["sigma"], table["sigma"].to_numpy()[whole], rtol=1e-15)
    np.testing.assert_array_equal(found["frame"], table["frame"].to_numpy()[whole] + 1)  # images count from 1
    summed = observations(stored, "summation")
    np.testing.assert_allclose(summed[["intensity", "sigma"]], found[["intensity", "sigma"]], rtol=1e-14)
    assert check_geometry(found, model) < 1e-9
    rays = sample_vectors(model, found[["s1_x", "s1_y", "s1_z"]].to_numpy(), found["angle_rad"].to_numpy())
    reflections = sweep_reflections(CELL, GROUP, random_orientation(2), WAVELENGTH, 2.2e-10, SWEEP)
    np.testing.assert_allclose(TWIN_ORIENTATION.to_array(rays) * 3.1, reflections.outgoing[whole], atol=1e-12)


def test_integrated_table__entering_spots_are_outside_the_sphere_a_moment_before():
    experiment, table = twin()
    stored = integrated_table(table, experiment, box_detector())
    hkl, angle = table[["h", "k", "l"]].to_numpy(), table["angle_rad"].to_numpy()
    before = diffracted_vectors(experiment, hkl, angle - 1e-6)
    outside = np.linalg.norm(before, axis=1) > np.linalg.norm(incident_vectors(experiment, angle), axis=1)
    np.testing.assert_array_equal(stored.column("entering"), outside)
    boxes, pixels = stored.column("bbox"), stored.column("xyzcal.px")
    assert (boxes[:, 0::2] <= pixels).all() and (pixels <= boxes[:, 1::2]).all()
    assert boxes[:, 4].min() >= 0 and boxes[:, 5].max() <= experiment.sweep.n_images
    assert (np.abs(stored.column("zeta")) <= 1).all()
