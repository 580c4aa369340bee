"""What settings make of a scan: its beam, its detector, its planes."""

import numpy as np
import pytest

from tasks.scans import _simulator, beam_of, detected_light, material_mu, material_record
from tomoforge.config import OpticsSettings
from tomoforge.errors import ConfigError, MaterialError, ScanError
from tomoforge.optics.detector import Detector
from tomoforge.storage import to_json
from tomoforge.volumes import write_labels


@pytest.fixture
def labels(tmp_path):
    volume = np.zeros((6, 48, 48), np.uint8)
    volume[1:5, 12:36, 12:36] = 1
    volume[1:5, 18:30, 18:30] = 3
    write_labels(tmp_path / "labels.ome.zarr", volume, 2e-6)
    return str(tmp_path / "labels.ome.zarr")


def simulator(labels, index=0, **change):
    optics = OpticsSettings(projections=4, **change)
    settings = optics.model_dump_json()
    materials = to_json(material_record(optics, 3, index))
    return _simulator(labels, settings, to_json(detected_light(settings)), materials, 3)


def test_beam_of__monochromatic_tube_and_undulator():
    assert beam_of(OpticsSettings()).lines() == ((5.0, 1.0),)
    tube = beam_of(OpticsSettings(spectrum="tube", energies=5))
    bare = beam_of(OpticsSettings(spectrum="tube", tube_filter_mm=0))
    assert len(tube.lines()) == 5
    assert bare.energy_kev == pytest.approx(38.51, abs=0.01)  # SpekPy's mean of this tube
    assert tube.energy_kev > bare.energy_kev  # a filter hardens
    pink = beam_of(OpticsSettings(spectrum="undulator", bandwidth=0.03))
    assert pink.energy_kev == pytest.approx(5.0, rel=0.03) and len(pink.lines()) == 8


def test_beam_of__an_unknown_filter_is_refused():
    with pytest.raises(MaterialError, match="adamantium"):
        beam_of(OpticsSettings(spectrum="tube", tube_filter="adamantium"))


def test_material_mu__is_that_at_the_mean_energy():
    assert (
        material_mu(OpticsSettings(spectrum="tube"))["crystal"]
        < 0.05 * material_mu(OpticsSettings())["crystal"]
    )


def test_materials__drawn_ones_differ_between_samples_and_repeat_with_the_seed(labels):
    named, drawn = OpticsSettings(), OpticsSettings(materials="drawn")
    assert material_mu(named, 3, 0) == material_mu(named, 3, 1)
    assert material_mu(drawn, 3, 0) == material_mu(drawn, 3, 0)
    assert len({material_mu(drawn, seed, index)["liquor"] for seed in (3, 4) for index in (0, 1)}) == 4
    # What is scanned is what is said to have been scanned.
    for index in (0, 1):
        scanned = simulator(labels, index, materials="drawn")
        assert scanned.materials[3].refractive_index(5.0).mu == material_mu(drawn, 3, index)["crystal"]
    frames = [simulator(labels, index, materials="drawn").intensity(slice(0, 1)) for index in (0, 1)]
    assert not np.array_equal(*frames)


def test_detected_light__is_of_the_settings_without_a_real_scan():
    light = detected_light(OpticsSettings(photons=700, psf_sigma_px=0.3).model_dump_json())
    assert light["photons"] == 700
    assert Detector(**light["detector"]) == Detector(psf_sigma=0.3, column_drift_sigma=0.0005)


def test_detected_light__is_calibrated_from_a_real_scan(shared_data):
    path = str(shared_data / "scans" / "diamond_24737.nxs")
    light = detected_light(OpticsSettings(detector_like=path).model_dump_json())
    # One averaged dark and flat: level and illumination are known, gain and noise are not.
    assert light["detector"]["offset"] == pytest.approx(97.7, abs=0.5)
    assert light["detector"]["beam_falloff"] > 0.1
    assert light["detector"]["read_noise"] == Detector().read_noise
    with pytest.raises(ScanError):
        detected_light(OpticsSettings(detector_like=str(shared_data / "README.md")).model_dump_json())


def test_simulator__planes_models_and_batches(labels):
    whole = simulator(labels)
    assert whole.plane_count >= 1
    frames = whole.projections(slice(0, 4))
    assert np.array_equal(frames[2:], whole.projections(slice(2, 4)))
    plain = simulator(labels, model="absorption")
    assert plain.plane_count == 1
    one, many = simulator(labels, planes=1), simulator(labels, planes=9)
    contrast = one.intensity(slice(0, 1)).std()
    between = np.sqrt(np.mean((one.intensity(slice(0, 1)) - many.intensity(slice(0, 1))) ** 2))
    assert 0 < between < 0.05 * contrast
    # Absorption alone has no fringe above the open beam.
    assert plain.intensity(slice(0, 1)).max() < 1.001 < whole.intensity(slice(0, 1)).max()


def test_detected_light__an_open_beam_that_saturates_is_refused() -> None:
    light = detected_light(OpticsSettings(photons=30_000).model_dump_json())
    assert light["photons"] == 30_000
    with pytest.raises(ConfigError, match=r"optics.photons must be at most 31079 .* got 40000"):
        detected_light(OpticsSettings(photons=40_000).model_dump_json())
