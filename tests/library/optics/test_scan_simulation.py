"""Forged scans: detector statistics, seeds, batches, refusals."""

from dataclasses import replace

import numpy as np
import pytest

from tomoforge.backend import gpu_count
from tomoforge.errors import InputError, MaterialError, MissingComponentError
from tomoforge.geometry import ScanGeometry, uniform_angles
from tomoforge.optics.detector import Detector, blur_and_bin, draw_detector_state, expose
from tomoforge.optics.materials import find_material
from tomoforge.optics.scan import Beam, ScanSimulator, simulate_scan
from tomoforge.optics.spectrum import Spectrum
from tomoforge.reconstruction import fbp, line_integrals, normalise
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


def test_scan_simulator__every_frame_has_noise_of_its_own():
    # Nine times the same view of nothing; read noise, that flats, darks and projections share in size.
    forge = simulator(
        labels=np.zeros((24, 24, 24), np.uint8),
        geometry=ScanGeometry(np.zeros(3), VOXEL),
        beam=Beam(5.0, 100.0),
        detector=replace(QUIET, gain=1.0, offset=500.0, read_noise=50.0),
    )
    frames = np.concatenate([forge.projections(slice(0, 3)), forge.flats(3), forge.darks(3)])
    correlation = np.corrcoef(frames.reshape(9, -1).astype(float))
    assert np.abs(correlation - np.eye(9)).max() < 5 / np.sqrt(frames[0].size)  # five sigma


def test_scan_simulator__each_seed_has_a_detector_of_its_own():
    one, same, other = (simulator(seed).state for seed in (1, 1, 2))
    assert np.array_equal(one.column_gain, same.column_gain)
    assert abs(np.corrcoef(one.column_gain, other.column_gain)[0, 1]) < 0.9


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


def test_simulate_scan__says_how_it_was_taken():
    geometry = ScanGeometry(uniform_angles(3), VOXEL, 5e-3)
    scan = simulate_scan(
        small_labels(), VOXEL, MATERIALS, geometry, Beam(5.0), Detector(), 1, flats=2, darks=3
    )
    assert (scan.energy_kev, scan.pixel_size, scan.propagation_distance) == (5.0, VOXEL, 5e-3)
    np.testing.assert_array_equal(scan.angles, geometry.angles)
    assert (scan.projections.shape, scan.flats.shape, scan.darks.shape) == tuple(
        (n, 24, 24) for n in (3, 2, 3)
    )


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
    with pytest.raises(MaterialError, match="energy_kev must lie within the tables"):
        simulator(beam=Beam(500.0))
    with pytest.raises(InputError, match="non-empty"):
        simulator(labels=np.zeros((0, 4, 4), np.uint8))
    with pytest.raises(InputError, match="planes must be 1 or at least 5"):
        simulator(planes=2)
    with pytest.raises(InputError, match="optics must be one of"):
        simulator(optics="rays")
    with pytest.raises(InputError, match="source_distance must be given"):
        Beam(5.0, source_size=1e-6)
    with pytest.raises(InputError, match="illumination must be"):
        simulator(illumination=np.ones((3, 3)))
    with pytest.raises(InputError, match="angles must be a non-empty list"):
        ScanGeometry(np.array([0.0, np.nan]), VOXEL)


@pytest.mark.skipif(gpu_count() > 0, reason="a GPU is there")
def test_simulate_scan__says_so_where_a_gpu_was_asked_for_and_is_absent():
    with pytest.raises(MissingComponentError, match="a GPU was asked for"):
        simulator(device="gpu")


QUIET = Detector(
    psf_sigma=0.0, column_gain_sigma=0.0, column_drift_sigma=0.0, read_noise=0.0, beam_ripple=0.0
)


@pytest.mark.parametrize("optics", ["absorption", "wave"])
def test_scan_simulator__a_bright_voxel_off_the_axis_lands_where_it_must(optics):
    n, place = 33, np.array([20, 9, 27])  # z, y, x; no symmetry
    labels = np.zeros((n, n, n), np.uint8)
    labels[tuple(place)] = 1
    z, y, x = place - (n - 1) / 2
    angles = np.array([0.0, 0.4, 1.3, np.pi / 2, 2.5, np.pi, 4.0, -0.7])
    for centre in (None, 14.5):
        scan = simulator(
            labels=labels,
            materials={1: find_material("polyimide")},
            geometry=ScanGeometry(angles, VOXEL, 1e-3, centre),
            optics=optics,
        )
        for image, angle in zip(1 - scan.intensity(slice(0, 8)), angles, strict=True):
            weight = np.where(image > 1e-4, image, 0) if optics == "absorption" else image**2  # fringes
            weight /= weight.sum()
            rows, columns = np.indices(image.shape)
            column = (n - 1) / 2 if centre is None else centre
            assert (weight * rows).sum() == pytest.approx((n - 1) / 2 + z, abs=0.02)
            expected = column + x * np.cos(angle) + y * np.sin(angle)
            mirrored = column + x * np.cos(angle) - y * np.sin(angle)
            found = (weight * columns).sum()
            assert found == pytest.approx(
                expected, abs=0.25
            )  # the chord of one voxel is sampled twice a pixel
            assert abs(expected - mirrored) < 1 or abs(found - mirrored) > 0.5  # the other handedness


def test_simulate_scan__reconstructs_to_its_labels_in_their_orientation():
    n = 48
    z, y, x = np.indices((8, n, n)) - np.array([7, n - 1, n - 1])[:, None, None, None] / 2
    labels = ((x - 9) ** 2 + (y + 5) ** 2 < 6**2).astype(np.uint8)  # to the right and up, no symmetry
    labels[(np.abs(x + 8) < 3) & (np.abs(y - 9) < 7) & (z > 0)] = 1
    geometry = ScanGeometry(uniform_angles(72), VOXEL, 1e-3)
    water = {1: find_material("ammonium_sulfate_liquor")}
    scan = simulate_scan(labels, VOXEL, water, geometry, Beam(5.0, 3e4), QUIET, 3, planes="auto")
    integrals, _ = line_integrals(normalise(scan.projections[:], scan.flats, scan.darks))
    volume = fbp(integrals, scan.angles, VOXEL)
    found = volume > volume[labels == 1].mean() / 2

    def dice(other: np.ndarray) -> float:
        return 2 * (found & (other == 1)).sum() / (found.sum() + (other == 1).sum())

    assert dice(labels) > 0.9
    for wrong in (labels[::-1], labels[:, ::-1], labels[:, :, ::-1], labels.transpose(0, 2, 1)):
        assert dice(wrong) < 0.8


def test_scan_simulator__polychromatic_disc_cups_and_a_monochromatic_one_does_not():
    n, radius = 64, 24
    _, y, x = np.indices((1, n, n)) - np.array([0, n - 1, n - 1])[:, None, None, None] / 2
    labels = (x**2 + y**2 < radius**2).astype(np.uint8)
    material = find_material("water")
    geometry = ScanGeometry(uniform_angles(90), 10e-6)
    spectrum = Spectrum((6.0, 10.0, 20.0), (0.4, 0.4, 0.2))
    common = {"labels": labels, "voxel_size": 10e-6, "materials": {1: material}, "geometry": geometry}

    def slice_of(beam: Beam, response: str) -> np.ndarray:
        scan = simulator(**common, beam=beam, optics="absorption", response=response, detector=QUIET)
        return fbp(-np.log(scan.intensity(slice(0, 90)).astype(np.float64)), geometry.angles, 10e-6)[0]

    r = np.hypot(x, y)[0]
    middle, rim = r < 6, (r > 17) & (r < 21)

    def cupping(image: np.ndarray) -> float:
        return 1 - image[middle].mean() / image[rim].mean()

    mono = slice_of(Beam(10.0), "energy")
    assert mono[middle].mean() == pytest.approx(material.refractive_index(10.0).mu, rel=1e-2)
    assert abs(cupping(mono)) < 0.01  # the staircase of the labels
    integrated, counted = (slice_of(Beam(10.0, spectrum=spectrum), how) for how in ("energy", "photons"))
    assert cupping(integrated) > 0.1 and cupping(counted) > 0.1
    # Weighting by energy counts the hard photons more: less attenuation everywhere.
    assert integrated[middle].mean() < 0.95 * counted[middle].mean()


def test_scan_simulator__spectrum_of_one_line_is_the_monochromatic_scan():
    mono = simulator(beam=Beam(5.0)).projections(slice(0, 2))
    one = simulator(beam=Beam(5.0, spectrum=Spectrum((5.0,), (1.0,)))).projections(slice(0, 2))
    assert mono.tobytes() == one.tobytes()


def test_beam__source_blurs_by_the_ratio_of_distances():
    beam = Beam(5.0, source_distance=2.0, source_size=4e-6)
    assert beam.blur(1.0) == pytest.approx(
        4e-6 * 0.5 / 1.5, rel=1e-12, abs=0
    )  # R2/R1, referred to the sample
    assert Beam(5.0, source_sigma=1e-6).blur(1.0) == 1e-6
    sharp, soft = (
        simulator(beam=Beam(5.0, source_distance=2.0, source_size=size), detector=QUIET).intensity(
            slice(0, 1)
        )
        for size in (0.0, 2e-3)
    )
    assert np.abs(np.diff(soft[0], axis=1)).max() < 0.5 * np.abs(np.diff(sharp[0], axis=1)).max()


def test_scan_simulator__source_and_point_spread_blur_together():
    def edge(sigma: float, source: float, **tail: float) -> np.ndarray:
        detector = Detector(psf_sigma=sigma, **tail)
        return simulator(detector=detector, beam=Beam(5.0, source_sigma=source * VOXEL)).intensity(
            slice(0, 1)
        )[0]

    whole = edge(1.0, 0.0)
    np.testing.assert_allclose(edge(0.6, 0.8), whole, atol=1e-6)  # in quadrature
    np.testing.assert_allclose(edge(0.0, 1.0), whole, atol=1e-6)
    tailed = edge(1.0, 0.0, psf_tail=0.2, psf_tail_radius=2.0)
    expected = blur_and_bin(whole, 1, 0.0, tail=0.2, tail_radius=2.0)
    np.testing.assert_allclose(tailed, expected, atol=1e-6)
    assert np.abs(tailed - whole).max() > 1e-3


def test_scan_simulator__measured_flats_are_the_incident_intensity():
    light = np.full((24, 24), 3000.0)
    light[:, 12:] = 1000.0  # a beam that ends in the field
    flats = simulator(illumination=light, detector=QUIET, beam=Beam(5.0, 1e4)).flats(8).astype(float) - 100
    # Mean 1 over the field, 8·288 pixels of 3·10⁴ and 10⁴ counts: 0.03 %.
    assert flats[..., :12].mean() / flats[..., 12:].mean() == pytest.approx(3.0, rel=2e-3)
    assert flats.mean() == pytest.approx(2e4, rel=2e-3)


def test_scan_simulator__threads_and_planes_are_repeatable():
    wet = simulator(planes="auto")
    assert wet.plane_count == 1  # 2 µm pixels
    five = simulator(planes=5).projections(slice(0, 2))
    assert five.tobytes() == simulator(planes=5, threads=2).projections(slice(0, 2)).tobytes()
    assert five.tobytes() != wet.projections(slice(0, 2)).tobytes()
