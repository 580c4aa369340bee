"""Fidelity: metrics against closed forms and scikit-image, labels of phantoms, and that the protocol can tell."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from tomoforge.errors import InputError, ScanError
from tomoforge.fidelity import (
    AirMargins,
    air_level,
    air_noise,
    class_attenuation,
    compare_images,
    intensity_scale,
    multi_otsu_labels,
    multi_otsu_thresholds,
    pool,
    reference_range,
    scale_to_air,
    ssim_map,
)
from tomoforge.fidelity.pictures import difference_picture, distance_picture
from tomoforge.fidelity.settings import FidelitySettings
from tomoforge.geometry import ScanGeometry, uniform_angles
from tomoforge.optics.detector import Detector
from tomoforge.optics.materials import find_material
from tomoforge.optics.scan import Beam, simulate_scan
from tomoforge.reconstruction import fbp, line_integrals, normalise

VOXEL = 1e-6


def texture(shape=(3, 40, 52), seed=1) -> np.ndarray:
    return ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), (0, 2, 2)) * 8


# ---------------------------------------------------------------- metrics


def test_compare_images__identical_images_are_perfect():
    found = compare_images(texture(), texture(), 1.0)
    assert found.ssim == pytest.approx(1, abs=1e-12)
    assert found.rmse == 0 and found.psnr == np.inf and found.images == 3


def test_compare_images__uniform_images_have_the_closed_form():
    # No variance and no covariance: what is left is the luminance term (Wang et al. 2004, eq. 6).
    a, b, data_range = 0.8, 0.5, 2.0
    c1 = (0.01 * data_range) ** 2
    found = compare_images(np.full((2, 20, 20), a), np.full((2, 20, 20), b), data_range)
    assert found.ssim == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-9)
    assert found.psnr == pytest.approx(20 * np.log10(data_range / (a - b)), abs=1e-9)


def test_compare_images__opposite_contrast_is_negative():
    image = texture()
    mirrored = 2 * image.mean() - image
    assert ssim_map(image, mirrored, reference_range(image)).mean() < -0.3


def test_compare_images__noise_of_known_strength_has_its_psnr():
    rng = np.random.default_rng(4)
    reference = texture((4, 128, 128))
    found = compare_images(reference, reference + rng.normal(0, 0.05, reference.shape), 1.0)
    # The variance of 65,536 samples is known to 0.55 % (1 σ), 0.024 dB.
    assert found.psnr == pytest.approx(20 * np.log10(1 / 0.05), abs=0.12)
    assert found.rmse == pytest.approx(0.05, rel=0.03)


def test_compare_images__blur_and_shift_lose_likeness_steadily():
    image = texture()
    data_range = reference_range(image)
    shifted = [compare_images(image, np.roll(image, n, axis=2), data_range) for n in (0, 1, 2, 4)]
    blurred = [
        compare_images(image, ndimage.gaussian_filter(image, (0, s, s)), data_range) for s in (0, 0.5, 1, 2)
    ]
    for series in (shifted, blurred):
        assert all(np.diff([found.ssim for found in series]) < 0)
        assert all(np.diff([found.rmse for found in series]) > 0)


@pytest.mark.parametrize("change", ["shift", "blur", "noise"])
def test_compare_images__agrees_with_scikit_image(change):
    metrics = pytest.importorskip("skimage.metrics")
    image, rng = texture(), np.random.default_rng(2)
    other = {
        "shift": np.roll(image, 2, axis=1),
        "blur": ndimage.gaussian_filter(image, (0, 1.2, 1.2)),
        "noise": image + rng.normal(0, 0.1, image.shape),
    }[change]
    theirs = [
        metrics.structural_similarity(
            a, b, data_range=1.7, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for a, b in zip(image, other, strict=True)
    ]
    found = compare_images(image, other, 1.7)
    assert found.ssim == pytest.approx(np.mean(theirs), abs=1e-10)  # the same sums in another order
    assert found.psnr == pytest.approx(
        metrics.peak_signal_noise_ratio(image, other, data_range=1.7), abs=1e-9
    )


@given(st.integers(1, 4), st.floats(0.3, 3))
def test_pool__is_the_comparison_of_all_images_at_once(cut, scale):
    reference, simulated = texture((5, 24, 24), 5), texture((5, 24, 24), 6)
    whole = compare_images(reference, simulated, 2.0, scale=scale)
    parts = [
        compare_images(reference[part], simulated[part], 2.0, scale=scale)
        for part in (slice(0, cut), slice(cut, 5))
    ]
    pooled = pool(parts)
    assert pooled.ssim == pytest.approx(whole.ssim, abs=1e-12)
    assert pooled.psnr == pytest.approx(whole.psnr, abs=1e-9)
    assert pooled.images == 5


def test_compare_images__scale_is_that_of_the_simulated_images():
    image = texture()
    other = np.roll(image, 1, axis=2)
    plain, scaled = compare_images(image, other, 1.0), compare_images(image, other / 4, 1.0, scale=4.0)
    assert (scaled.ssim, scaled.psnr, scaled.rmse) == pytest.approx(
        (plain.ssim, plain.psnr, plain.rmse), rel=1e-9
    )


def test_intensity_scale__finds_the_factor_and_nothing_else_is_fitted():
    image = texture()
    assert intensity_scale(1.3 * image, image) == pytest.approx(1.3, rel=1e-12)
    offset = compare_images(image + 0.2, image, 1.0, scale=intensity_scale(image + 0.2, image))
    assert offset.rmse > 0.01  # an offset is not fitted away


def test_reference_range__leaves_single_wild_pixels_out():
    image = texture()
    wild = image.copy()
    wild[0, 0, 0], wild[1, 5, 5] = 1e4, -1e4
    assert reference_range(wild) == pytest.approx(reference_range(image), rel=0.05)


def test_metrics__say_what_is_wrong():
    image = texture()
    with pytest.raises(InputError, match=r"simulated must have the shape of the reference, \(3, 40, 52\)"):
        compare_images(image, image[:, :-1], 1.0)
    with pytest.raises(InputError, match="at least 11 × 11"):
        compare_images(image[:, :8], image[:, :8], 1.0)
    with pytest.raises(InputError, match="data_range must be positive"):
        compare_images(image, image, 0.0)
    with pytest.raises(InputError, match="simulated has 1 values that are not finite"):
        compare_images(image, _with_nan(image), 1.0)
    with pytest.raises(InputError, match="the same everywhere"):
        reference_range(np.ones((2, 20, 20)))
    with pytest.raises(InputError, match="zero everywhere"):
        intensity_scale(image, 0 * image)
    with pytest.raises(InputError, match="parts must be"):
        pool([compare_images(image, image, 1.0), compare_images(image, image, 2.0)])


def _with_nan(image: np.ndarray) -> np.ndarray:
    spoilt = image.copy()
    spoilt[0, 3, 3] = np.nan
    return spoilt


# ---------------------------------------------------------------- air


def beam(angles: int = 6, rows: int = 40, columns: int = 60) -> np.ndarray:
    """A bell that drifts and darkens from angle to angle."""
    x, y = np.linspace(-1, 1, columns), np.linspace(-1, 1, rows)[:, None]
    return np.stack(
        [(0.75 - 0.01 * n) - 0.05 * (x - 0.05 * n) ** 2 + 0.004 * y for n in range(angles)]
    ).astype(np.float32)


def test_scale_to_air__takes_the_beam_out_and_leaves_the_sample():
    sample = np.ones((6, 40, 60), np.float32)
    sample[:, 15:, 20:40] = 0.4
    for margins in (AirMargins(10, 10), AirMargins(10, 10, 8), AirMargins(0, 0, 12, 0)):
        scaled = scale_to_air(beam() * sample, margins)
        # Exact for a parabola; without side margins the slope along y rests on twelve rows: still noise-free.
        assert np.abs(scaled - sample).max() < (2e-5 if margins.left else 0.02)


def test_scale_to_air__shrugs_off_dust_and_zingers():
    noisy = beam() * (1 + np.random.default_rng(3).normal(0, 0.005, (6, 40, 60)))
    noisy[:, 20, 3], noisy[2, 8, 55] = 0.05, 9.0
    level = air_level(noisy.astype(np.float32), AirMargins(10, 10))
    # A coefficient rests on 200 pixels of 0.5 % noise; in the gap between the sides the error grows a few times.
    assert np.abs(level / beam() - 1).max() < 0.006


def test_air_noise__is_that_of_the_photons():
    rng = np.random.default_rng(8)
    counts = rng.poisson(10000, (20, 40, 60)) / 10000
    pattern = 1 + 0.05 * rng.random((40, 60))  # what stays is no noise
    # Its own statistical error is under 1 %.
    assert air_noise((counts * pattern).astype(np.float32), AirMargins(8, 8)) == pytest.approx(
        0.01025, rel=0.03
    )


def test_air__says_what_is_wrong():
    with pytest.raises(InputError, match="leave room for the sample"):
        scale_to_air(beam(), AirMargins(30, 30))
    with pytest.raises(InputError, match="too little air"):
        scale_to_air(beam(), AirMargins(10, 0))
    with pytest.raises(InputError, match="zero or more"):
        AirMargins(-1, 3)
    with pytest.raises(ScanError, match="is no air"):
        scale_to_air(0.01 * beam(), AirMargins(10, 10))
    with pytest.raises(InputError, match="margins of air"):
        air_noise(beam(), AirMargins())
    assert scale_to_air(beam(), AirMargins()) is not None


# ---------------------------------------------------------------- labels


def phantom(n: int = 48) -> np.ndarray:
    """Labels: a ball of 1, a dense box of 2 half in it, a slab of 3 at the bottom that the field of view cuts."""
    z, y, x = np.indices((n, n, n)) - (n - 1) / 2
    labels = np.zeros((n, n, n), np.uint8)
    labels[x**2 + y**2 + z**2 < (0.38 * n) ** 2] = 1
    labels[(np.abs(x - 3) < 6) & (np.abs(y + 2) < 5) & (np.abs(z + 12) < 9)] = 2
    labels[(z > 0.3 * n) & (x**2 + y**2 < (0.3 * n) ** 2)] = 3
    return labels


def blurred_grey(labels: np.ndarray, levels: list[float], blur: float, noise: float) -> np.ndarray:
    grey = np.array(levels, np.float32)[labels]
    noise_map = np.random.default_rng(0).normal(0, noise, labels.shape)
    return (ndimage.gaussian_filter(grey, blur) + noise_map).astype(np.float32)


def test_multi_otsu_thresholds__part_well_separated_groups():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(m, 5, n) for m, n in ((0, 9000), (100, 3000), (300, 800))])
    low, high = multi_otsu_thresholds(values, 3)
    assert 20 < low < 80 and 120 < high < 280


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
def test_multi_otsu_thresholds__agree_with_scikit_image(classes):
    filters = pytest.importorskip("skimage.filters")
    values = np.random.default_rng(classes).gamma(2, 50, 20000)
    clipped = np.clip(values, *np.percentile(values, [0.01, 99.99]))
    width = np.ptp(clipped) / 256
    theirs = filters.threshold_multiotsu(clipped, classes)
    # It returns the middle of the bin below the cut, this the cut.
    assert multi_otsu_thresholds(values, classes) == pytest.approx(theirs + width / 2, abs=1.01 * width)


def test_multi_otsu_labels__recover_a_blurred_noisy_phantom():
    truth = phantom()
    grey = blurred_grey(truth, [0, 1000, 9000, 4000], blur=0.8, noise=150)
    found = multi_otsu_labels(grey, 4)
    by_grey = np.array([0, 1, 3, 2], np.uint8)[truth]  # labels come by growing µ
    assert np.unique(found).tolist() == [0, 1, 2, 3]
    for label in range(4):
        both = np.count_nonzero((found == label) & (by_grey == label))
        # Corners and edges are rounded by the blur; bodies 10 voxels wide lose some per cent.
        assert 2 * both / (np.sum(found == label) + np.sum(by_grey == label)) > 0.93
    # No shell of a middle class around the dense box where it borders on air.
    air_side = found[:8, 20:25, 24:28]
    assert not np.any(ndimage.binary_opening(air_side == 2))


def test_multi_otsu_labels__a_class_of_shells_alone_vanishes():
    truth = (phantom() == 2).astype(np.uint8)
    grey = blurred_grey(truth, [0, 9000], blur=1.0, noise=20)
    found = multi_otsu_labels(grey, 3, smoothing=0.5)
    assert np.unique(found).tolist() == [0, 1]
    # Half-way between the two greys: the volume of the box is kept.
    assert found.sum() == pytest.approx(truth.sum(), rel=0.05)


def test_multi_otsu_labels__surfaces_lie_half_way():
    grey = np.zeros((24, 24, 24), np.float32)
    grey[:, :, 12:] = 1000.0
    for blur in (0.3, 1.0, 1.5):
        found = multi_otsu_labels(ndimage.gaussian_filter(grey, blur), 2)
        assert not found[:, :, :12].any() and found[:, :, 12:].all()


def test_multi_otsu_labels__outside_the_seen_circle_is_air():
    seen = np.zeros((48, 48), bool)
    seen[8:40, 8:40] = True
    grey = blurred_grey(phantom(), [0, 1000, 9000, 4000], 0.5, 50)
    grey[:, ~seen] = 9000
    found = multi_otsu_labels(grey, 4, seen=seen, smoothing=0)
    assert not found[:, ~seen].any() and found[:, seen].any()


def test_class_attenuation__is_the_mean_away_from_the_surface():
    truth = phantom()
    levels = [0, 1000, 9000, 4000]
    found = class_attenuation(blurred_grey(truth, levels, blur=0.7, noise=100), truth)
    # 100 of noise over at least 300 voxels of core: 6; the blur reaches a little into the thin slab.
    assert found == pytest.approx({label: levels[label] for label in (1, 2, 3)}, rel=0.01)
    thread = np.zeros((20, 20, 20), np.uint8)
    thread[:, 9, 9] = 1
    assert class_attenuation(500.0 * thread, thread) == {1: 500.0}


def test_labels__say_what_is_wrong():
    grey = np.arange(4096, dtype=np.float32).reshape(16, 16, 16)
    with pytest.raises(InputError, match="classes must be 2 to 8"):
        multi_otsu_labels(grey, 1)
    with pytest.raises(InputError, match="is the volume empty"):
        multi_otsu_labels(0 * grey, 3)
    with pytest.raises(InputError, match="too few for 4 classes"):
        multi_otsu_thresholds(np.array([0.0, 1.0] * 50), 4)
    with pytest.raises(InputError, match=r"seen must be \(y, x\)"):
        multi_otsu_labels(grey, 2, seen=np.ones((3, 3), bool))
    with pytest.raises(InputError, match="non-empty"):
        multi_otsu_labels(grey[0], 2)
    with pytest.raises(InputError, match="shape of the volume"):
        class_attenuation(grey, np.zeros((2, 2, 2), np.uint8))


# ---------------------------------------------------------------- the protocol can tell


def forge(labels: np.ndarray, distance: float, seed: int, *, angles: np.ndarray | None = None):
    angles = uniform_angles(60) if angles is None else angles
    materials = {1: find_material("water"), 2: find_material("polyimide"), 3: find_material("nylon")}
    geometry = ScanGeometry(angles, VOXEL, distance)
    quiet = Detector(psf_sigma=0.4, column_drift_sigma=0.0, column_gain_sigma=0.0, beam_ripple=0.0)
    scan = simulate_scan(labels, VOXEL, materials, geometry, Beam(8.0, 2e4), quiet, seed, flats=20)
    transmission = normalise(scan.projections, scan.flats, scan.darks)
    integrals, _ = line_integrals(transmission)
    return transmission, fbp(integrals, angles, VOXEL)


@pytest.fixture(scope="module")
def real():
    """A "real" scan of the phantom by wave optics, with noise of its own."""
    return forge(phantom(), 10e-3, seed=11)


def both(real, twin):
    return [
        compare_images(ours, theirs, reference_range(ours)) for ours, theirs in zip(real, twin, strict=True)
    ]


def test_protocol__wave_optics_beats_absorption_only_on_every_metric_where_the_scan_has_fringes(real):
    wave, absorption = (both(real, forge(phantom(), z, seed=12)) for z in (10e-3, 0.0))
    for ours, theirs in zip(wave, absorption, strict=True):  # projections, then slices
        assert ours.ssim > theirs.ssim + 0.05
        assert ours.psnr > theirs.psnr + 2


def test_protocol__the_true_distance_fits_best(real):
    tried = {z: both(real, forge(phantom(), z, seed=12))[0].ssim for z in (0.0, 2e-3, 10e-3, 40e-3)}
    assert max(tried, key=lambda z: tried[z]) == 10e-3


@pytest.mark.parametrize("wrong", ["handedness", "upside down", "transposed", "shifted"])
def test_protocol__punishes_a_sample_in_the_wrong_place_or_the_wrong_way_round(real, wrong):
    labels = {
        "handedness": phantom()[:, :, ::-1],
        "upside down": phantom()[::-1],
        "transposed": phantom().transpose(0, 2, 1),
        "shifted": np.roll(phantom(), 2, axis=2),
    }[wrong]
    right = both(real, forge(phantom(), 10e-3, seed=12))
    for ours, theirs in zip(
        right, both(real, forge(np.ascontiguousarray(labels), 10e-3, seed=12)), strict=True
    ):
        assert ours.ssim > theirs.ssim + 0.02
        assert ours.psnr > theirs.psnr + 1


# ---------------------------------------------------------------- pictures, settings


def test_pictures__are_the_same_bytes_for_the_same_numbers():
    image = texture()[0]
    rows = [("wave optics", image + 0.1), ("absorption only", image)]
    first, again = (difference_picture(image, rows, "transmission", "a scan") for _ in range(2))
    assert first == again and first.startswith(b"\x89PNG")
    assert distance_picture([5, 1], [0.9, 0.8], [30, 29]) == distance_picture([1, 5], [0.8, 0.9], [29, 30])


def test_fidelity_settings__refuse_what_cannot_be():
    for bad in ({"classes": 1}, {"air_margins_px": (1, 2, 3, -4)}, {"distances_mm": ()}, {"distance_mm": 0}):
        with pytest.raises(ValueError):
            FidelitySettings(**bad)
