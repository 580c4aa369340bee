"""The detector: moments of its noise, transfer functions, patterns, defects, digits, seeds."""

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import label as connected
from scipy.special import ndtr
from scipy.stats import poisson

from tomoforge.errors import InputError
from tomoforge.optics.detector import Detector, blur_and_bin, draw_detector_state, expose
from tomoforge.optics.detector_kernels import QUANTILE_FROM, photon_quantile
from tomoforge.seeds import component_rng

SHAPE = (256, 320)
QUIET = Detector(
    gain=1.0, read_noise=0.0, psf_sigma=0.0, column_gain_sigma=0.0, column_drift_sigma=0.0, beam_ripple=0.0
)


def frame(detector: Detector, transmission=1.0, photons=1e4, progress=0.0, seed=1, name="flat", shape=SHAPE):
    state = draw_detector_state(detector, shape, seed)
    return expose(transmission, photons, detector, state, progress, component_rng(seed, name, 0)).astype(
        float
    )


def change(**fields) -> Detector:
    return dataclasses.replace(QUIET, **fields)


@pytest.mark.parametrize("mean", [QUANTILE_FROM, 200.0, 2e4, 1e6])
def test_photon_quantile__inverts_the_poisson_distribution(mean):
    """P(count ≤ k) by the normal deviate at which the count steps from k to k + 1, against scipy's."""
    counts = np.unique(np.round(mean + np.sqrt(mean) * np.linspace(-5, 5, 41)))
    low, high = np.full(len(counts), -9.0), np.full(len(counts), 9.0)
    for _ in range(60):
        middle = (low + high) / 2
        above = np.array([photon_quantile(mean, z) for z in middle]) > counts
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    # The next term of the expansion, 2·10⁻⁶ at a mean of 64 and falling as 1/mean^1.5.
    np.testing.assert_allclose(ndtr(low), poisson.cdf(counts, mean), atol=2e-6)


@pytest.mark.parametrize("photons", [0.3, 5.0, 60.0, 70.0, 1000.0, 2e4])
def test_expose__photon_and_read_noise_have_their_moments(photons):
    detector = change(gain=2.0, read_noise=5.0, offset=100.0)
    counts = frame(detector, photons=photons)
    n = counts.size
    variance = 4 * photons + 25 + 1 / 12
    assert abs(counts.mean() - (100 + 2 * photons)) < 5 * np.sqrt(variance / n)
    # Fourth moment: 3σ⁴ of a Gaussian, and gain⁴·λ that a Poisson number adds.
    spread = np.sqrt((2 * variance**2 + 16 * photons) / n)
    assert abs(counts.var() - variance) < 5 * spread
    third = np.mean((counts - counts.mean()) ** 3)
    assert abs(third - 8 * photons) < 5 * np.sqrt(15 * variance**3 / n)


def test_expose__dark_has_read_noise_alone():
    dark = frame(change(read_noise=4.0, offset=50.0), transmission=0.0)
    assert abs(dark.mean() - 50) < 5 * np.sqrt((16 + 1 / 12) / dark.size)
    assert abs(dark.var() - (16 + 1 / 12)) < 5 * 16 * np.sqrt(2 / dark.size)


def test_expose__counts_are_whole_photons_where_nothing_else_adds_noise():
    counts = frame(change(offset=0.0), photons=30.0)
    levels, seen = np.unique(counts, return_counts=True)
    expected = counts.size * poisson.pmf(levels, 30.0)
    often = expected > 50
    assert np.all(np.abs(seen - expected)[often] < 5 * np.sqrt(expected[often]))


@pytest.mark.parametrize("bits", [12, 14, 16])
def test_expose__saturates_at_the_converters_range(bits):
    counts = frame(change(gain=1.0, bits=bits), photons=2.0**bits)
    assert counts.max() == 2**bits - 1
    # The mean lies 100 counts (the offset) above the range: Φ(100/σ) of the pixels reach it.
    share = ndtr(100.5 / 2 ** (bits / 2))
    assert abs(np.mean(counts == 2**bits - 1) - share) < 5 * np.sqrt(share * (1 - share) / counts.size) + 1e-4
    below = frame(change(gain=1.0, bits=bits), photons=2.0 ** (bits - 1))
    assert below.max() < 2**bits - 1


def test_blur_and_bin__transfers_gaussian_times_sinc():
    """A point away from the edges: its transform is the transfer function."""
    oversampling, sigma, n = 8, 0.7, 64
    point = np.zeros((n * oversampling, n * oversampling))
    # A whole number of pixels between samples and the pixel's centre: the mean of the two middle samples.
    point[
        n // 2 * oversampling + 3 : n // 2 * oversampling + 5,
        n // 2 * oversampling + 3 : n // 2 * oversampling + 5,
    ] = 0.25
    fine = blur_and_bin(point, 1, sigma * oversampling)
    frequency = np.fft.rfftfreq(n * oversampling, 1 / oversampling)
    low = frequency < 0.5
    box = np.cos(np.pi * frequency / oversampling)  # of the two samples themselves
    measured = np.abs(np.fft.rfft(fine.sum(axis=0))) / box.clip(1e-3)
    # The taps end at 4σ: 6e-5 of the light.
    np.testing.assert_allclose(measured[low], np.exp(-2 * (np.pi * sigma * frequency[low]) ** 2), atol=2e-4)
    # Integration: a point at any place within a pixel falls on it whole; on many places, the mean is sinc.
    line = np.zeros((oversampling, n * oversampling))
    total = np.zeros(n // 2 + 1, complex)
    for shift in range(oversampling):
        line[:] = 0
        line[:, n // 2 * oversampling + shift] = 1
        image = blur_and_bin(line, oversampling, sigma)[0] * oversampling
        moved = (shift - (oversampling - 1) / 2) / oversampling
        total += np.fft.rfft(image) * np.exp(2j * np.pi * np.fft.rfftfreq(n) * (n // 2 + moved))
    f = np.fft.rfftfreq(n)
    expected = np.exp(-2 * (np.pi * sigma * f) ** 2) * np.sinc(f)
    # 8 samples a pixel stand for the integral: 0.6 % of sinc at Nyquist.
    np.testing.assert_allclose((total / oversampling).real, expected, atol=7e-3 * 0.3)


@pytest.mark.parametrize("sigma", [0.2, 0.4, 0.69, 0.71, 1.0, 3.0])
@pytest.mark.parametrize("oversampling", [1, 2, 3])
def test_blur_and_bin__keeps_light_and_spreads_it_by_sigma(sigma, oversampling):
    n = 60
    point = np.zeros((n * oversampling, n * oversampling))
    point[(n // 2) * oversampling, (n // 2 + 1) * oversampling] = 1
    image = blur_and_bin(point, oversampling, sigma)
    assert image.sum() * oversampling**2 == pytest.approx(1, rel=1e-12)
    fine = blur_and_bin(point, 1, sigma * oversampling)
    x = np.arange(n * oversampling)
    for axis in (0, 1):
        profile = fine.sum(axis=axis)
        variance = profile @ x**2 - (profile @ x) ** 2
        # The tap weights are exact in σ² below 0.7 samples, 0.5 % low at 0.7; cut at 4σ takes another 0.1 %.
        assert variance == pytest.approx((sigma * oversampling) ** 2, rel=6e-3)
    assert np.all(blur_and_bin(np.full((12, 18), 3.5), oversampling, sigma) == pytest.approx(3.5, rel=1e-12))


def test_blur_and_bin__averages_samples_into_the_right_pixel():
    image = np.arange(6 * 8, dtype=np.float32).reshape(6, 8)
    np.testing.assert_array_equal(blur_and_bin(image, 2, 0.0), image.reshape(3, 2, 4, 2).mean(axis=(1, 3)))
    rng = np.random.default_rng(3)
    image = rng.random((90, 61))
    assert blur_and_bin(image, 2, 0.6).tobytes() == blur_and_bin(image, 2, 0.6, threads=3).tobytes()
    assert blur_and_bin(image, 2, 0.6).shape == (45, 30)


def test_blur_and_bin__tail_has_its_transfer_function():
    n, tail, radius = 512, 0.3, 4.0
    # Half a plane of light: the edge outside is right on both sides, and the transform of its derivative is the MTF.
    edge = np.zeros((n, n))
    edge[:, n // 2 :] = 1
    spread = np.diff(blur_and_bin(edge, 1, 0.0, tail=tail, tail_radius=radius)[n // 2])
    f = np.fft.rfftfreq(n - 1)
    expected = (1 - tail) + tail * np.exp(-2 * np.pi * radius * f)
    # The kernel of a line falls as radius/(π x²): beyond half the frame 2·radius/(π·n/2) of the tail is missing,
    # and as much again because the padded frame repeats.
    np.testing.assert_allclose(np.abs(np.fft.rfft(spread)), expected, atol=tail * 8 * radius / (np.pi * n))
    assert np.abs(np.fft.rfft(spread))[n // 8] == pytest.approx(1 - tail, abs=0.02)


def test_expose__ring_gains_survive_flat_fielding_and_vanish_without_drift():
    drifting = change(column_gain_sigma=0.05, column_drift_sigma=0.02, offset=0.0)
    state = draw_detector_state(drifting, SHAPE, 1)
    flat, late = (frame(drifting, progress=p, name=name) for p, name in ((0.0, "flat"), (1.0, "late")))
    noise = np.sqrt(2 / 1e4 / SHAPE[0])
    ratio = late.mean(axis=0) / flat.mean(axis=0) - 1
    assert np.all(np.abs(ratio - state.column_drift) < 6 * noise)
    assert np.std(ratio) == pytest.approx(0.02, rel=0.25)  # 320 draws: 4 % at one σ
    still = dataclasses.replace(drifting, column_drift_sigma=0.0)
    flat, late = (frame(still, progress=p, name=name) for p, name in ((0.0, "flat"), (1.0, "late")))
    assert np.std(flat.mean(axis=0)) > 0.03 * 1e4  # the fixed pattern is there
    ratio = late.mean(axis=0) / flat.mean(axis=0) - 1
    assert np.std(ratio) < 1.5 * noise


def test_expose__zingers_come_at_their_rate_height_and_length():
    detector = change(zinger_rate=12.0, zinger_counts=4000.0, zinger_length=3.0, offset=0.0)
    state = draw_detector_state(detector, SHAPE, 1)
    frames = [
        expose(0.0, 1e4, detector, state, 0.0, component_rng(1, "dark", n)).astype(float) for n in range(60)
    ]
    hit = np.array([np.count_nonzero(f) for f in frames])
    total = np.array([f.sum() for f in frames])
    # Streaks of 1 + Poisson(2) pixels, a few cut by the border; heights are exponential.
    assert hit.mean() == pytest.approx(36, abs=5 * np.sqrt(12 * 11 / 60) + 1)
    assert total.mean() / hit.mean() == pytest.approx(4000, rel=5 * np.sqrt(2 / (12 * 60)))
    points = change(zinger_rate=12.0, zinger_counts=4000.0, offset=0.0)
    hits = [expose(0.0, 1e4, points, state, 0.0, component_rng(2, "dark", n)) > 0 for n in range(60)]
    number = [np.count_nonzero(hit) for hit in hits]
    assert np.mean(number) == pytest.approx(12, abs=5 * np.sqrt(12 / 60))
    # Each is one pixel by itself: of the 4000 pairs in all frames 0.4 touch by chance.
    groups = [connected(hit, structure=np.ones((3, 3)))[1] for hit in hits]
    assert sum(number) - sum(groups) <= 3


def test_expose__dead_and_hot_pixels_stay_where_they_are():
    detector = change(gain=2.0, dead_fraction=0.003, hot_fraction=0.002, hot_counts=900.0)
    state = draw_detector_state(detector, SHAPE, 7)
    flat, dark = frame(detector, seed=7), frame(detector, 0.0, seed=7, name="dark")
    dead, hot = (np.unravel_index(i, SHAPE) for i in (state.dead, state.hot))
    pixels = np.prod(SHAPE)
    assert abs(len(state.dead) - 0.003 * pixels) < 5 * np.sqrt(0.003 * pixels)
    assert (
        np.all(flat[dead] == 0) and np.all(dark[dead] == 0) and np.count_nonzero(flat == 0) == len(state.dead)
    )
    alive = ~np.isin(state.hot, state.dead)
    excess = (dark[hot] - 100 - state.hot_counts)[alive]
    assert np.all(np.abs(excess) < 6 * np.sqrt(2 * state.hot_counts[alive]) + 6)
    assert abs(excess.mean()) < 5 * np.sqrt(2 * 900 / excess.size)
    assert state.hot_counts.mean() == pytest.approx(900, rel=5 / np.sqrt(len(state.hot)))


def test_expose__scintillator_and_structure_multiply_the_light_and_not_the_dark():
    detector = change(scintillator_defects=20.0, defect_strength=0.2, flat_structure=0.03, offset=100.0)
    state = draw_detector_state(detector, SHAPE, 5)
    assert state.response is not None
    flat = np.mean([
        expose(1.0, 1e5, dataclasses.replace(detector, gain=0.3), state, 0.0, component_rng(5, "flat", n))
        for n in range(4)
    ], axis=0) - 100  # fmt: skip
    # Four frames of 10⁵ photons: 0.16 % a pixel.
    relative = flat / 3e4 / state.response - 1
    assert np.std(relative) == pytest.approx(np.sqrt(np.mean(1 / (4e5 * state.response))), rel=0.05)
    assert np.ptp(state.response) > 0.3
    np.testing.assert_array_equal(frame(detector, 0.0), np.full(SHAPE, 100.0))
    grains = draw_detector_state(change(flat_structure=0.03), SHAPE, 5).response
    assert np.std(grains) == pytest.approx(0.03, rel=1e-3)


def test_draw_detector_state__patterns_have_the_size_and_strength_asked_for():
    size = 5.0
    grains = draw_detector_state(change(flat_structure=0.03, flat_structure_size=size), SHAPE, 5).response - 1
    # White noise blurred by a Gaussian of rms s has the autocorrelation exp(−d²/4s²): e^−1 at d = 2s.
    power = np.abs(np.fft.fft2(grains)) ** 2
    correlation = np.fft.ifft2(power).real / np.sum(grains**2)
    assert correlation[0, 10] == pytest.approx(np.exp(-1), abs=0.1)  # 260 grains: 0.04 at one σ
    assert correlation[10, 0] == pytest.approx(np.exp(-1), abs=0.1)
    offsets = draw_detector_state(change(offset_pattern=3.0), SHAPE, 5).offsets
    assert np.std(offsets) == pytest.approx(3, rel=5 / np.sqrt(2 * offsets.size))
    assert abs(np.mean(offsets)) < 5 * 3 / np.sqrt(offsets.size)


def test_draw_detector_state__defects_have_the_size_and_strength_asked_for():
    shape, number, width, strength = (1000, 1000), 200.0, 4.0, 0.04
    fields = {"scintillator_defects": number, "defect_size": width, "defect_strength": strength}
    change_of = draw_detector_state(change(**fields), shape, 5).response - 1.0
    # A spot of strength a and width w holds πw²a² in its squares, a scratch 20·w·√π·w·a² more, one in four;
    # the mean of w² over 0.5–1.5 widths is 13/12. Overlaps are rare and add nothing on the average.
    expected = number * strength**2 * width**2 * 13 / 12 * (np.pi + 20 * np.sqrt(np.pi) / 4)
    # 200 squares of normal numbers, half of them in 50 scratches: 25 % at one σ.
    assert np.sum(change_of**2) == pytest.approx(expected, rel=0.75)
    # Narrower and stronger spots could hold as much. The largest of 200 normal numbers is about 3.
    assert np.abs(change_of).max() == pytest.approx(3 * strength, rel=0.4)


def test_detector_state__what_drifts_changes_from_flats_to_the_scans_end():
    for fields in (
        {"flat_drift": 0.02},
        {"scintillator_defects": 30.0, "defect_drift": 0.5},
        {"beam_ripple": 0.05, "beam_motion": 4.0},
    ):
        state = draw_detector_state(change(**fields), SHAPE, 3)
        start, middle, end = (state.light(p) for p in (0.0, 0.5, 1.0))
        assert np.std(end / start) > 1e-3
        if "beam_motion" not in fields:
            np.testing.assert_allclose(middle - start, (end - start) / 2, atol=1e-5)
    drift = draw_detector_state(change(flat_drift=0.02), SHAPE, 3)
    assert np.std(drift.light(1.0) / drift.light(0.0)) == pytest.approx(0.02, rel=1e-3)
    moved = draw_detector_state(change(beam_ripple=0.05, beam_motion=4.0), SHAPE, 3)
    # Stripes move towards larger rows by beam_shift.
    rows = np.arange(SHAPE[0])
    expected = np.interp(rows - moved.beam_shift, rows, moved.illumination[:, 0])
    np.testing.assert_allclose(moved.light(1.0)[:, 0], expected, rtol=1e-5)


def test_expose__beam_flickers_from_frame_to_frame():
    detector = change(beam_flicker=0.02, offset=0.0)
    state = draw_detector_state(detector, (64, 64), 1)
    means = [expose(1.0, 2e4, detector, state, 0.0, component_rng(1, "flat", n)).mean() for n in range(100)]
    # 100 frames: 7 % at one σ.
    assert np.std(means) / 2e4 == pytest.approx(0.02, rel=0.35)
    falling = draw_detector_state(change(beam_falloff=0.2), (64, 65), 1).illumination
    assert falling[:, 0].mean() / falling[:, 32].mean() == pytest.approx(0.8, rel=1e-5)
    assert falling.mean() == pytest.approx(1, rel=1e-5)


def test_expose__flats_and_darks_are_independent_draws():
    detector = Detector()
    state = draw_detector_state(detector, SHAPE, 1)
    rest = [
        expose(t, 1e4, detector, state, 0.0, component_rng(1, name, n)).astype(float)
        for t, name, n in ((1.0, "flat", 0), (1.0, "flat", 1), (0.0, "dark", 0), (0.0, "dark", 1))
    ]
    fixed = 100 + 2e4 * state.light(0.0) * state.column_gain
    noise = [rest[0] - fixed, rest[1] - fixed, rest[2] - 100, rest[3] - 100]
    correlation = np.corrcoef([n.ravel() for n in noise])
    off = correlation[~np.eye(4, dtype=bool)]
    assert np.all(np.abs(off) < 5 / np.sqrt(np.prod(SHAPE)))


def test_expose__threads_order_and_other_components_change_no_other_draw():
    shape = (1000, 400)  # several blocks
    detector = Detector()
    state = draw_detector_state(detector, shape, 2)

    def counts(**options) -> np.ndarray:
        one = dataclasses.replace(detector, **options)
        return expose(0.6, 1e4, one, state, 0.3, component_rng(2, "projection", 4))

    once = counts()
    frames = {n: expose(0.6, 1e4, detector, state, 0.3, component_rng(2, "projection", n)) for n in (5, 4)}
    assert once.tobytes() == frames[4].tobytes() != frames[5].tobytes()
    threaded = expose(0.6, 1e4, detector, state, 0.3, component_rng(2, "projection", 4), threads=4)
    assert once.tobytes() == threaded.tobytes()
    with_zingers = counts(zinger_rate=5.0)
    assert 0 < np.count_nonzero(with_zingers != once) <= 20
    # The photons are the same without read noise: what differs has its rms (and rounding).
    silent = counts(read_noise=0.0).astype(float)
    assert np.std(once - silent) == pytest.approx(np.sqrt(9 + 2 / 12), rel=0.02)


def test_draw_detector_state__each_component_has_draws_of_its_own():
    everything = {
        "flat_structure": 0.02, "flat_drift": 0.01, "scintillator_defects": 9.0, "defect_drift": 0.1,
        "beam_motion": 2.0, "dead_fraction": 0.01, "hot_fraction": 0.01, "offset_pattern": 2.0,
        "column_gain_sigma": 0.02, "column_drift_sigma": 0.01, "beam_ripple": 0.05,
    }  # fmt: skip
    whole = draw_detector_state(change(**everything), (40, 50), 3)
    without = draw_detector_state(
        change(**(everything | {"flat_structure": 0.0, "dead_fraction": 0.0})), (40, 50), 3
    )
    for name in (
        "column_gain",
        "column_drift",
        "illumination",
        "offsets",
        "hot",
        "hot_counts",
        "response_drift",
    ):
        np.testing.assert_array_equal(getattr(whole, name), getattr(without, name))
    assert whole.beam_shift == without.beam_shift
    assert len(whole.dead) and not len(without.dead)
    off = draw_detector_state(QUIET, (40, 50), 3)
    assert off.response is None and off.response_drift is None and off.offsets is None
    assert len(off.dead) == len(off.hot) == 0 and off.beam_shift == 0
    np.testing.assert_array_equal(off.light(1.0), np.ones((40, 50)))


def test_detector__refuses_bad_input():
    for fields, message in (
        ({"gain": 0.0}, "gain must be positive counts"),
        ({"gain": np.nan}, "gain must be positive counts"),
        ({"bits": 20}, "bits must be a whole number from 8 to 16"),
        ({"bits": 12.5}, "bits must be a whole number from 8 to 16"),
        ({"zinger_rate": -1.0}, "zinger_rate must be zero or positive"),
        ({"read_noise": np.inf}, "read_noise must be zero or positive"),
        ({"dead_fraction": 1.5}, "dead_fraction must be a fraction"),
        ({"psf_tail_radius": 0.5}, "psf_tail_radius must be at least 1 pixel"),
    ):
        with pytest.raises(InputError, match=message):
            Detector(**fields)


def test_expose__refuses_bad_input():
    state = draw_detector_state(QUIET, (20, 30), 1)

    def attempt(transmission=1.0, photons=10.0, progress=0.0):
        expose(transmission, photons, QUIET, state, progress, component_rng(1, "flat", 0))

    with pytest.raises(InputError, match=r"transmission must be \(y, x\) of the detector's state \(20, 30\)"):
        attempt(np.ones((30, 20)))
    with pytest.raises(InputError, match="transmission must be finite and not negative"):
        attempt(np.full((20, 30), np.nan))
    with pytest.raises(InputError, match="transmission must be finite and not negative"):
        attempt(-0.5)
    with pytest.raises(InputError, match="photons must be zero or a positive"):
        attempt(photons=-1.0)
    with pytest.raises(InputError, match="progress must be a number"):
        attempt(progress=np.nan)
    with pytest.raises(InputError, match="shape must be at least one row"):
        draw_detector_state(QUIET, (0, 30), 1)
    with pytest.raises(InputError, match="oversampling must be from 1"):
        blur_and_bin(np.ones((4, 4)), 0, 0.5)
    with pytest.raises(InputError, match="sigma_pixels must be zero or positive"):
        blur_and_bin(np.ones((4, 4)), 1, -0.5)
