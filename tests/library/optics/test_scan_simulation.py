"""Forged scans: detector statistics, seeds, batches, refusals."""

import numpy as np
import pytest

from tomoforge.errors import InputError, MaterialError
from tomoforge.geometry import ScanGeometry, uniform_angles
from tomoforge.optics.detector import Detector, draw_detector_state, expose
from tomoforge.optics.materials import find_material
from tomoforge.optics.scan import Beam, ScanSimulator, simulate_scan
from tomoforge.seeds import component_rng

VOXEL = 2e-6
MATERIALS = {1: find_material("water"), 3: find_material("protein")}


def small_labels(n: int = 24) -> np.ndarray:
    z, y, x = np.indices((n, n, n)) - (n - 1) / 2
    labels = np.zeros((n, n, n), np.uint8)
    labels[x**2 + y**2 + z**2 < (0.4 * n) ** 2] = 1
    labels[(np.abs(x - 2) < 3) & (np.abs(y) < 3) & (np.abs(z) < 4)] = 3
    return labels


def simulator(seed: int = 5, **changes) -> ScanSimulator:
    settings = {
        "labels": small_labels(),
        "voxel_size": VOXEL,
        "materials": MATERIALS,
        "geometry": ScanGeometry(uniform_angles(9), VOXEL, 5e-3),
        "beam": Beam(5.0),
        "detector": Detector(),
        "seed": seed,
    }
    return ScanSimulator(**(settings | changes))


def test_scan_simulator__batches_do_not_change_a_pixel():
    whole = simulator().projections(slice(0, 9))
    parts = [simulator().projections(slice(a, b)) for a, b in ((0, 2), (2, 3), (3, 9))]
    assert whole.tobytes() == np.concatenate(parts).tobytes()


def test_scan_simulator__seed_decides_everything_and_nothing_else_does():
    assert simulator(1).projections(slice(0, 2)).tobytes() == simulator(1).projections(slice(0, 2)).tobytes()
    assert simulator(1).projections(slice(0, 2)).tobytes() != simulator(2).projections(slice(0, 2)).tobytes()


def test_scan_simulator__switching_rings_off_shifts_no_other_draw():
    still = simulator(detector=Detector(column_drift_sigma=0.0))
    assert still.flats(3).tobytes() == simulator().flats(3).tobytes()
    # The first projection is taken at the start, where no column has drifted yet.
    assert still.projections(slice(0, 1)).tobytes() == simulator().projections(slice(0, 1)).tobytes()
    assert still.projections(slice(8, 9)).tobytes() != simulator().projections(slice(8, 9)).tobytes()


def test_expose__photon_and_read_noise_have_their_moments():
    detector = Detector(gain=2.0, read_noise=5.0, column_gain_sigma=0.0, beam_ripple=0.0)
    state = draw_detector_state(detector, (200, 200), 0)
    photons = 1000.0
    counts = expose(1.0, photons, detector, state, 0.0, component_rng(3, "flat", 0)).astype(float)
    pixels = counts.size
    mean, variance = detector.offset + detector.gain * photons, detector.gain**2 * photons + 5.0**2 + 1 / 12
    assert abs(counts.mean() - mean) < 5 * np.sqrt(variance / pixels)
    assert abs(counts.var() - variance) < 5 * variance * np.sqrt(2 / pixels)
    dark = expose(0.0, photons, detector, state, 0.0, component_rng(3, "dark", 0)).astype(float)
    assert abs(dark.mean() - detector.offset) < 5 * np.sqrt((25 + 1 / 12) / pixels)


def test_expose__column_drift_survives_flat_fielding():
    detector = Detector(column_gain_sigma=0.05, column_drift_sigma=0.02, read_noise=0.0, beam_ripple=0.0)
    state = draw_detector_state(detector, (400, 64), 1)
    flat = expose(1.0, 1e4, detector, state, 0.0, component_rng(1, "flat", 0)) - detector.offset
    late = expose(1.0, 1e4, detector, state, 1.0, component_rng(1, "projection", 9)) - detector.offset
    ratio = late.mean(axis=0) / flat.mean(axis=0)
    # What remains is the drift; Poisson noise of a column mean of 400 pixels is 0.07 %.
    np.testing.assert_allclose(ratio - 1, state.column_drift, atol=5e-3)
    assert np.std(ratio) > 0.01


def test_simulate_scan__transmission_follows_beer_lambert_in_contact():
    n = 24
    labels = np.zeros((n, n, n), np.uint8)
    labels[:, 6:18, :] = 1  # a slab, 12 voxels along the beam at angle 0
    quiet = Detector(psf_sigma=0.0, column_gain_sigma=0.0, read_noise=0.0, beam_ripple=0.0)
    scan = simulate_scan(
        labels, VOXEL, {1: find_material("water")}, ScanGeometry(np.array([0.0]), VOXEL), Beam(5.0, 1e6), quiet, 1
    )  # fmt: skip
    counts = scan.projections[0].astype(float)
    assert counts.max() == 2**16 - 1  # the gain saturates at 10⁶ photons: take fewer
    scan = simulate_scan(
        labels, VOXEL, {1: find_material("water")}, ScanGeometry(np.array([0.0]), VOXEL), Beam(5.0, 2e4), quiet, 1
    )  # fmt: skip
    flat = scan.flats.mean() - scan.darks.mean()
    transmission = (scan.projections[0].mean() - scan.darks.mean()) / flat
    expected = np.exp(-find_material("water").refractive_index(5.0).mu * 12 * VOXEL)
    assert transmission == pytest.approx(
        expected, rel=2e-3
    )  # 576 pixels of 2·10⁴ photons: 0.03 %, and rounding


def test_simulate_scan__refuses_bad_input():
    with pytest.raises(MaterialError, match=r"none for \[3\]"):
        simulator(materials={1: find_material("water")})
    with pytest.raises(InputError, match=r"energy_kev must be a positive number of keV, got -5"):
        Beam(-5.0)
    with pytest.raises(InputError, match="propagation_distance must be zero or positive"):
        ScanGeometry(uniform_angles(3), VOXEL, -1.0)
    with pytest.raises(InputError, match="must agree"):
        simulator(voxel_size=3e-6)
    with pytest.raises(InputError, match="angles must be a non-empty list"):
        ScanGeometry(np.array([]), VOXEL)
    with pytest.raises(InputError, match="gain must be positive"):
        Detector(gain=0.0)
