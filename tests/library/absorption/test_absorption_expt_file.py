"""Experiment files as DIALS 3 writes them, old and new forms, and what is refused."""

import json

import numpy as np
import pytest

from tests.library.absorption.diffraction_files import IDENTITY, experiment_list, write_expt
from tomoforge.absorption.dials import read_experiment, read_experiments
from tomoforge.absorption.goniometer import diffracted_vectors, incident_vectors
from tomoforge.errors import InputError

KAPPA = {
    "axes": [[1.0, 0.0, 0.0], [0.642788, 0.0, -0.766044], [1.0, 0.0, 0.0]],
    "angles": [20.0, 50.0, 0.0],
    "names": ["PHI", "KAPPA", "OMEGA"],
    "scan_axis": 2,
}


def test_read_experiment__units_and_signs(tmp_path):
    found = read_experiment(write_expt(tmp_path / "a.expt", experiment_list()))
    # "direction" points from the sample to the source.
    np.testing.assert_array_equal(found.beam.direction, [0, 0, -1])
    assert found.beam.wavelength == pytest.approx(3.1e-10, rel=1e-15, abs=0)
    assert found.sweep.image_range == (1, 1800) and found.sweep.start == 0
    assert found.sweep.width == pytest.approx(np.radians(0.1), rel=1e-15, abs=0)
    np.testing.assert_allclose(found.sweep.angles([0, 900, 1800]), [0, np.pi / 2, np.pi], rtol=1e-12)
    assert found.crystal is not None
    np.testing.assert_allclose(found.crystal.cell, (60, 70, 80, 90, 90, 90), rtol=1e-12)
    assert found.crystal.space_group == "P 21 21 21"
    # a* along +x, b* along −z, c* along +y.
    wanted = np.array([[1 / 60, 0, 0], [0, 0, 1 / 80], [0, -1 / 70, 0]])
    np.testing.assert_allclose(found.crystal.setting_matrix, wanted, atol=1e-17)


def test_read_experiment__both_forms_of_a_scan_are_the_same(tmp_path):
    old = read_experiment(write_expt(tmp_path / "old.expt", experiment_list()))
    document = experiment_list()
    document["scan"] = [
        {
            "image_range": [1, 1800],
            "batch_offset": 0,
            "properties": {"oscillation": (np.arange(1800) * 0.1).tolist(), "epochs": [0.0] * 1800},
            "valid_image_ranges": {},
        }
    ]
    new = read_experiment(write_expt(tmp_path / "new.expt", document))
    assert new.sweep.image_range == old.sweep.image_range and new.sweep.start == old.sweep.start
    # Width from the ends of a list written in decimal.
    assert new.sweep.width == pytest.approx(old.sweep.width, rel=1e-12, abs=0)
    document["scan"][0] |= {
        "image_range": [7, 7],
        "properties": {"oscillation": [12.0], "oscillation_width": [0.5]},
    }
    one = read_experiment(write_expt(tmp_path / "one.expt", document)).sweep
    np.testing.assert_allclose(one.angles([6, 7]), np.radians([12, 12.5]), rtol=1e-15)


def test_read_experiment__an_image_range_that_does_not_begin_at_one(tmp_path):
    document = experiment_list()
    document["scan"][0] |= {"image_range": [101, 200], "oscillation": [30.0, 0.5]}
    sweep = read_experiment(write_expt(tmp_path / "a.expt", document)).sweep
    # z in pixels counts from image 1 whatever the first image is.
    np.testing.assert_allclose(np.degrees(sweep.angles([100, 101, 200])), [30, 30.5, 80], rtol=1e-12)
    np.testing.assert_allclose(sweep.scan_points(np.radians([30, 80])), [0, 100], atol=1e-9)


def test_read_experiment__kappa_goniometer(tmp_path):
    document = experiment_list() | {"goniometer": [KAPPA]}
    found = read_experiment(write_expt(tmp_path / "a.expt", document)).goniometer
    np.testing.assert_array_equal(found.rotation_axis, [1, 0, 0])
    np.testing.assert_array_equal(found.setting_rotation, np.eye(3))
    # Kappa carries phi: a direction along the phi axis is turned by kappa alone, 50° about the kappa axis,
    # which lies 50° away: the textbook cos(50°)² + sin(50°)² cos(50°) along x.
    c = np.cos(np.radians(50))
    assert (found.fixed_rotation @ [1, 0, 0])[0] == pytest.approx(c**2 + (1 - c**2) * c, abs=1e-6)
    document["goniometer"][0] = KAPPA | {"scan_axis": 0}
    phi_scan = read_experiment(write_expt(tmp_path / "b.expt", document)).goniometer
    np.testing.assert_array_equal(phi_scan.fixed_rotation, np.eye(3))
    assert (phi_scan.setting_rotation @ [1, 0, 0])[0] == pytest.approx(c**2 + (1 - c**2) * c, abs=1e-6)


def test_read_experiment__setting_rotation_and_single_axis_defaults(tmp_path):
    document = experiment_list()
    quarter = [0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]  # x → y, by rows
    document["goniometer"] = [{"rotation_axis": [1, 0, 0], "setting_rotation": quarter}]
    found = read_experiment(write_expt(tmp_path / "a.expt", document)).goniometer
    np.testing.assert_array_equal(found.fixed_rotation, np.eye(3))
    np.testing.assert_array_equal(found.rotations(np.zeros(1))[0] @ [1, 0, 0], [0, 1, 0])


def test_read_experiment__models_that_vary_over_the_scan(tmp_path):
    document = experiment_list()
    document["scan"][0] |= {"image_range": [1, 2], "oscillation": [0.0, 1.0]}
    a0 = np.diag([0.01, 0.02, 0.03])
    document["crystal"][0]["A_at_scan_points"] = [(a0 * s).ravel().tolist() for s in (1.0, 1.1, 1.4)]
    document["beam"][0]["s0_at_scan_points"] = [[0, 0, -0.3], [0, 0.01, -0.3], [0, 0.02, -0.3]]
    found = read_experiment(write_expt(tmp_path / "a.expt", document))
    angles = np.radians([0.0, 0.5, 1.0, 2.0])
    np.testing.assert_allclose(
        incident_vectors(found, angles), [[0, y, -0.3] for y in (0, 0.005, 0.01, 0.02)], atol=1e-15
    )
    along = diffracted_vectors(found, np.array([[1, 0, 0]] * 4), angles)[:, 0]  # the axis: R does nothing
    np.testing.assert_allclose(along, 0.01 * np.array([1, 1.05, 1.1, 1.4]), rtol=1e-12)


def test_read_experiments__several_share_models(tmp_path):
    document = experiment_list()
    second = {**document["experiment"][0], "identifier": "second", "scan": 1, "crystal": None}
    document["experiment"].append(second)
    document["scan"].append({**document["scan"][0], "oscillation": [90.0, 0.1]})
    path = write_expt(tmp_path / "a.expt", document)
    first, other = read_experiments(path)
    assert first.sweep.start == 0 and np.degrees(other.sweep.start) == pytest.approx(90)
    assert other.crystal is None
    assert read_experiment(path, 1).identifier == read_experiment(path, "second").identifier == "second"
    with pytest.raises(InputError, match=r"holds 2 experiments, which must choose one: 0 \(4f1c"):
        read_experiment(path)
    with pytest.raises(InputError, match="has no experiment 'third'"):
        read_experiment(path, "third")


def _without(kind):
    def change(document):
        document["experiment"][0][kind] = None

    return change


def _put(kind, **values):
    def change(document):
        document[kind][0] |= values

    return change


def _mirror(document):
    document["crystal"][0]["real_space_a"] = [-60.0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("beam"), "experiment 0 has no beam model"),
        (_without("goniometer"), "experiment 0 has no goniometer model; absorption needs a sweep"),
        (_without("scan"), "experiment 0 has no scan model"),
        (lambda d: d["experiment"][0].update(beam=3), "names beam 3, the file has 1"),
        (lambda d: d["experiment"][0].update(beam="beam.json"), "names its beam by 'beam.json'"),
        (lambda d: d.update(experiment=[]), "holds no experiment"),
        (lambda d: d.update(__id__="DataBlock"), "no DIALS experiment list"),
        (_put("beam", wavelength=0.0), "wavelength must be positive"),
        (_put("beam", wavelength=3.1e10), "wavelength must be positive"),
        (_put("beam", direction=[0, 0, 0]), "beam direction must be"),
        (_put("beam", direction=[0, 0]), "direction must be 3 finite numbers"),
        (_put("beam", __id__="polychromatic"), "one wavelength is needed"),
        (_put("goniometer", rotation_axis=[0, 0, 0]), "rotation_axis must be"),
        (_put("goniometer", fixed_rotation=[2.0, *IDENTITY[1:]]), "fixed_rotation must be a 3 × 3 rotation"),
        (_put("goniometer", setting_rotation=[-1.0, *IDENTITY[1:]]), "setting_rotation mirrors"),
        (
            _put(
                "goniometer",
                **KAPPA,
            ),
            None,
        ),
        (_put("goniometer", **(KAPPA | {"scan_axis": 3})), "scan_axis must be one of the 3 axes"),
        (_put("goniometer", **(KAPPA | {"angles": [1.0]})), r"\(axis, 3\) and \(axis,\)"),
        (_put("scan", oscillation=[0.0, 0.0]), "does not turn"),
        (_put("scan", image_range=[5, 1]), "must ascend"),
        (_put("scan", properties={"epochs": [0.0]}), "no oscillation"),
        (_put("scan", properties={"oscillation": [0.0, 0.1, 0.5]}), "for each of 1800 images"),
        (_put("scan", image_range=[1, 3], properties={"oscillation": [0.0, 0.1, 0.5]}), "advance evenly"),
        (_put("crystal", space_group_hall_symbol="no such"), "is not understood"),
        (_put("crystal", real_space_b=[1.0, 0, 0]), "right-handed and not in a plane"),
        (_mirror, "right-handed"),
        (_put("crystal", A_at_scan_points=[[1.0] * 8]), "A_at_scan_points must be n × 9"),
    ],
)
def test_read_experiment__what_is_missing_or_wrong_is_named(tmp_path, change, message):
    document = experiment_list()
    change(document)
    path = write_expt(tmp_path / "a.expt", document)
    if message is None:
        read_experiment(path)
        return
    with pytest.raises(InputError, match=message):
        read_experiment(path)


def test_read_experiment__nan_truncated_and_hostile_files(tmp_path):
    path = tmp_path / "a.expt"
    whole = json.dumps(experiment_list())
    path.write_text(whole.replace("3.1", "NaN"))
    with pytest.raises(InputError, match="holds NaN"):
        read_experiment(path)
    for content in (whole[: len(whole) // 2].encode(), b"", b"\x93\xff", b"[" * 100_000, b"[]"):
        path.write_bytes(content)
        with pytest.raises(InputError):
            read_experiment(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_experiment(tmp_path / "none.expt")
