"""Calibration finds what the forge put in, says what it cannot find, and reads real frames."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
import tifffile

from tomoforge.errors import InputError
from tomoforge.optics.calibration import DetectorCalibration, calibrate
from tomoforge.optics.detector import Detector, DetectorState, blur_and_bin, draw_detector_state, expose
from tomoforge.optics.edge_spread import fit_edge_spread
from tomoforge.optics.photon_transfer import exceedances, flatten, patterns
from tomoforge.seeds import component_rng

SHAPE = (160, 192)
SETTINGS = {
    "default": (Detector(), 2e4),
    "few photons": (Detector(gain=0.5, read_noise=2.0, offset=50.0, beam_ripple=0.0), 600.0),
    "14 bit, drifting": (
        Detector(
            gain=4.0, read_noise=8.0, bits=14, flat_structure=0.03, flat_structure_size=4.0, flat_drift=0.01,
            column_drift_sigma=0.003, beam_falloff=0.2,
        ),
        2000.0,
    ),
    "defects": (
        Detector(
            gain=1.0, read_noise=5.0, offset=200.0, offset_pattern=3.0, dead_fraction=0.002, hot_fraction=0.002,
            zinger_rate=8.0, zinger_counts=2000.0, zinger_length=2.0, beam_flicker=0.01, beam_motion=3.0,
            column_drift_sigma=0.01,
        ),
        8000.0,
    ),
}  # fmt: skip


def forge(
    detector: Detector,
    photons: float,
    seed: int,
    *,
    flats=12,
    darks=12,
    shape=SHAPE,
    state: DetectorState | None = None,
) -> tuple[np.ndarray, np.ndarray, DetectorState]:
    """Flats taken all through a scan, darks at its start."""
    state = draw_detector_state(detector, shape, seed) if state is None else state
    frames = [
        np.stack([
            expose(light, photons, detector, state, p, component_rng(seed, name, n))
            for n, p in enumerate(np.linspace(0, end, count))
        ])
        for name, light, end, count in (("flat", 1.0, 1.0, flats), ("dark", 0.0, 0.0, darks))
    ]  # fmt: skip
    return frames[0], frames[1], state


def near(estimate, expected: float, rel: float, errors: float = 5.0) -> bool:
    """Within the tolerance asked for, and within its own error bars (and a floor for rounding)."""
    away = abs(estimate.value - expected)
    return away <= rel * abs(expected) and away <= errors * estimate.error + 1e-3 * abs(expected)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("seed", [3, 4])
def test_calibrate__recovers_what_the_forge_put_in(name, seed):
    detector, photons = SETTINGS[name]
    flats, darks, state = forge(detector, photons, seed)
    found = calibrate(flats, darks)
    assert found.warnings == ()
    assert near(found.gain, detector.gain, 0.02)
    assert near(found.photons, photons, 0.02)
    assert near(found.read_noise, detector.read_noise, 0.05)
    assert found.offset.value == pytest.approx(detector.offset, abs=0.3 if detector.offset_pattern else 0.05)
    drawn = draw_detector_state(detector, SHAPE, seed)
    stripes = drawn.illumination.mean(axis=1).std()
    assert found.beam_ripple.value == pytest.approx(stripes, rel=0.06, abs=2e-3)
    # The pattern of 192 columns: what of it is fine differs from draw to draw by 5 %.
    assert found.column_gain.value == pytest.approx(state.column_gain.std(), rel=0.15)
    drift = state.column_drift.std()
    assert abs(found.column_drift.value - drift) < max(0.15 * drift, 3 * found.column_drift.error)
    assert found.dead_fraction.value * np.prod(SHAPE) == pytest.approx(len(state.dead), abs=0.5)
    assert abs(max(max(map(abs, found.noise_correlation)), 0)) < 0.03


def test_calibrate__recovers_structure_drift_and_motion_of_the_light():
    detector, photons = SETTINGS["14 bit, drifting"]
    flats, darks, _ = forge(detector, photons, 3)
    found = calibrate(flats, darks)
    # Grains of 4 pixels rms: about 150 independent ones on the frame.
    assert found.flat_structure.value == pytest.approx(0.03, rel=0.15)
    assert found.flat_structure_size == pytest.approx(4.0, rel=0.2)
    # Broad: a handful of independent ones, drawn to an rms of 0.01 exactly.
    assert found.flat_drift.value == pytest.approx(0.01, rel=0.2)
    assert found.beam_falloff.value == pytest.approx(0.2, abs=0.02)
    detector, photons = SETTINGS["defects"]
    flats, darks, state = forge(detector, photons, 3)
    found = calibrate(flats, darks)
    assert found.beam_motion.value == pytest.approx(abs(state.beam_shift), rel=0.15)
    assert found.beam_flicker.value == pytest.approx(0.01, rel=0.6)  # 12 frames: 20 % at one σ
    assert np.corrcoef(found.column_drifts, state.column_drift)[0, 1] > 0.95


def test_calibrate__finds_dead_and_hot_pixels_and_zingers():
    detector, photons = SETTINGS["defects"]
    flats, darks, state = forge(detector, photons, 5, darks=30)
    found = calibrate(flats, darks)
    np.testing.assert_array_equal(found.maps.dead, state.dead)
    assert set(found.maps.hot) <= set(state.hot)
    visible = state.hot[(state.hot_counts > 60) & ~np.isin(state.hot, state.dead)]
    assert set(visible) <= set(found.maps.hot)
    assert abs(found.hot_fraction.value - len(state.hot) / np.prod(SHAPE)) < 3 * found.hot_fraction.error
    assert abs(found.hot_counts.value - 500) < 3 * found.hot_counts.error
    assert abs(found.zinger_rate.value - 8) < 4 * found.zinger_rate.error
    assert abs(found.zinger_counts.value - 2000) < 4 * found.zinger_counts.error
    assert abs(found.offset_pattern.value - 3) < 0.1


def test_flatten__knows_how_much_white_noise_it_leaves():
    rng = np.random.default_rng(1)
    mask = np.ones(SHAPE, bool)
    left = []
    for _ in range(25):
        rest, share = flatten(rng.choice([-1.0, 1.0], SHAPE), mask)
        left.append(np.mean(rest**2))
    # 25 frames: 0.02 % at one σ. Tiles share 0.07 % with the rows and columns, which are counted twice.
    assert share == pytest.approx(np.mean(left), rel=1.5e-3)


def test_exceedances__know_of_the_heights_below_the_threshold():
    heights = np.random.default_rng(1).exponential(100.0, 20000)
    rate, mean = exceedances(heights[heights > 80.0], 80.0, 1000.0)
    # Without memory: of 20 heights a trial e^−0.8 are seen, on the average 100 above the threshold.
    assert abs(rate.value - 20) < 5 * rate.error < 3
    assert abs(mean.value - 100) < 5 * mean.error < 6


def test_patterns__of_white_noise_are_none():
    sigma = 0.05
    light = 1 + sigma * np.random.default_rng(1).standard_normal(SHAPE)
    found = patterns(light, np.ones(SHAPE, bool), sigma**2, 0.0)
    for part in (found.columns, found.rows, found.rest):
        assert abs(part.value) < 4 * part.error
    assert found.falloff.value == 0.0


def test_calibrate__error_bars_cover_the_scatter_between_seeds():
    found = [
        calibrate(*forge(Detector(), 5000.0, seed, flats=4, darks=4, shape=(64, 64))[:2])
        for seed in range(12)
    ]
    for name, truth in (("gain", 2.0), ("read_noise", 3.0)):
        pulls = [(getattr(f, name).value - truth) / getattr(f, name).error for f in found]
        # 12 draws: rms within a factor of about 1.6 of 1 at 99 %.
        assert 0.5 < np.sqrt(np.mean(np.square(pulls))) < 1.7, name


@pytest.mark.parametrize("name", ["default", "14 bit, drifting", "defects"])
def test_calibrate__closes_the_loop(name):
    """calibrate → forge with what was found → calibrate again."""
    detector, photons = SETTINGS[name]
    first = calibrate(*forge(detector, photons, 3)[:2])
    for state in (first.state(9), None):
        again = calibrate(*forge(first.detector(), first.photons.value, 9, state=state)[:2])
        for field, rel in (("gain", 0.02), ("photons", 0.02), ("read_noise", 0.05), ("offset", 0.005)):
            assert getattr(again, field).value == pytest.approx(getattr(first, field).value, rel=rel), field
        assert again.beam_ripple.value == pytest.approx(first.beam_ripple.value, rel=0.1)
        assert again.column_drift.value == pytest.approx(first.column_drift.value, rel=0.25)
        assert again.column_gain.value == pytest.approx(first.column_gain.value, rel=0.25)
    assert first.undetermined == tuple(
        name for name in first.undetermined if name in ("psf_sigma", "hot_counts", "zinger_counts")
    )


def test_calibration_state__forges_this_very_flat_and_crops_it_about_the_centre():
    flats, darks, _ = forge(*SETTINGS["defects"], 3, flats=20)
    found = calibrate(flats, darks)
    forged = forge(found.detector(), found.photons.value, 8, state=found.state(8), flats=20)[0]
    good = np.ones(SHAPE, bool)
    good.reshape(-1)[np.concatenate([found.maps.dead, found.maps.hot])] = False
    ratio = np.median(forged, axis=0)[good] / np.median(flats, axis=0)[good]
    assert ratio.mean() == pytest.approx(1, rel=0.01)
    assert np.std(ratio) < 0.02  # 2 % patterns, cancelled; noise of medians 0.6 %, flicker and drift of both
    assert np.all(forged[:, np.isin(np.arange(good.size), found.maps.dead).reshape(SHAPE)] == 0)
    part = found.state(8, (100, 90))
    np.testing.assert_allclose(
        part.illumination * found.maps.light[30:130, 51:141].mean(),
        found.maps.light[30:130, 51:141],
        rtol=1e-5,
    )
    with pytest.raises(InputError, match="shape must lie within the calibrated detector"):
        found.state(8, (500, 90))


def test_calibration__survives_json():
    found = calibrate(*forge(*SETTINGS["defects"], 3, shape=(48, 64))[:2])
    text = json.dumps(found.to_dict(), allow_nan=False)
    read = DetectorCalibration.from_dict(json.loads(text))
    assert read == found and read.detector() == found.detector()
    with pytest.raises(InputError, match="no map of the light"):
        read.state(1)
    with pytest.raises(InputError, match=r"a calibration has no \['gian'\]"):
        DetectorCalibration.from_dict(found.to_dict() | {"gian": 1.0})


@pytest.mark.parametrize("bits", [12, 14, 16])
def test_calibrate__sees_saturation_and_the_converters_bits(bits):
    detector = Detector(gain=1.0, bits=bits, beam_ripple=0.1, column_gain_sigma=0.0)
    full = 2.0**bits
    flats, darks, _ = forge(detector, 0.93 * full, 3)
    found = calibrate(flats, darks)
    assert found.bits == bits and found.bits_certain and found.detector().bits == bits
    assert found.saturated_fraction == pytest.approx(np.mean(flats == full - 1), abs=1e-9)
    assert any("saturated" in w for w in found.warnings)
    # Pixels near saturation are left out, not measured short of their noise.
    assert near(found.gain, 1.0, 0.02)
    blind = calibrate(np.full_like(flats, int(full) - 1), darks)
    assert blind.gain is None and blind.photons is None and blind.saturated_fraction == 1
    assert blind.read_noise is not None and {"gain", "photons"} <= set(blind.undetermined)
    assert any("shorter exposure" in w for w in blind.warnings)


def test_calibrate__leaves_out_pixels_whose_noise_is_cut_at_saturation():
    # One half two standard deviations below saturation: nine in ten of its pixels never reach it, and their noise
    # comes out 11 % short.
    detector, light = Detector(gain=1.0, bits=12), np.full(SHAPE, 0.5)
    light[:, SHAPE[1] // 2 :] = 1.0
    state = DetectorState(np.ones(SHAPE[1]), np.zeros(SHAPE[1]), light.astype(np.float32))
    flats, darks, _ = forge(detector, 4095 - 100 - 2 * 62, 3, flats=4, state=state)
    assert near(calibrate(flats, darks).gain, 1.0, 0.02)


def test_calibrate__says_what_it_cannot_determine():
    flats, darks, _ = forge(Detector(), 2e4, 3)
    one = calibrate(flats[:1], darks)
    assert one.gain is None and one.photons is None and one.column_drift is None
    assert any("one flat only" in w for w in one.warnings)
    two = calibrate(flats[:2], darks)
    assert near(two.gain, 2.0, 0.05) and two.column_drift is None
    assert any("drift needs at least three flats" in w for w in two.warnings)
    no_darks = calibrate(flats)
    assert (
        no_darks.gain is None and no_darks.offset is None and any("no darks" in w for w in no_darks.warnings)
    )
    one_dark = calibrate(flats, darks[:1])
    assert one_dark.read_noise is None and any("one dark only" in w for w in one_dark.warnings)
    assert one_dark.gain.value == pytest.approx(2.0, rel=0.02)  # read noise is 10⁻⁴ of the variance here
    averaged = calibrate(flats.reshape(6, 2, *SHAPE).mean(axis=1), darks)
    assert any("averages" in w for w in averaged.warnings)
    shut = calibrate(darks, darks)
    assert shut.gain is None and any("no light" in w for w in shut.warnings)
    copies = calibrate(np.repeat(flats[:1], 4, axis=0), darks)
    assert copies.gain is None and any("copies" in w for w in copies.warnings)
    assert one.detector(Detector(gain=7.0)).gain == 7.0


def test_calibrate__warns_of_correlated_noise_odd_darks_and_scaled_counts():
    flats, darks, _ = forge(Detector(), 2e4, 3)
    spread = np.rint((flats + np.roll(flats, 1, axis=2)) / 2.0)
    assert any("correlated" in w for w in calibrate(spread, darks).warnings)
    glowing = darks.copy()
    glowing[0] += 9
    found = calibrate(flats, glowing)
    assert any("dark 0 stands" in w for w in found.warnings)
    assert found.offset.value == pytest.approx(100, abs=0.1)
    detector = Detector(bits=14, gain=0.25, offset=100.0)
    flats, darks, _ = forge(detector, 2e4, 3)
    scaled = calibrate(flats * 4, darks * 4)
    assert any("steps of 4" in w for w in scaled.warnings)
    assert near(scaled.gain, 1.0, 0.02)


@pytest.mark.parametrize(("sigma", "slope"), [(0.4, 0.0), (0.8, 0.05), (1.5, 0.1), (3.0, -0.2)])
def test_fit_edge_spread__finds_sigma_without_the_pixel(sigma, slope):
    oversampling, rows, columns = 8, 40, 60
    y, x = ((np.arange(n * oversampling) + 0.5) / oversampling - 0.5 for n in (rows, columns))
    # Two levels and a part of a sample between them, so that the edge lies where it should to 1/100 sample.
    distance = (x[None, :] - 29.3 - slope * (y[:, None] - (rows - 1) / 2)) * oversampling
    step = 0.2 + 0.7 * np.clip(distance + 0.5, 0, 1)
    image = blur_and_bin(step, oversampling, sigma)
    noisy = image + 0.005 * np.random.default_rng(1).standard_normal(image.shape)
    for one, transposed, lean in (
        (noisy, False, slope),
        (noisy.T, True, slope),
        (1 - noisy[:, ::-1], False, -slope),
    ):
        found = fit_edge_spread(one)
        assert abs(found.sigma - sigma) < 5 * found.error + 0.01, transposed
        assert found.error < 0.05 and found.misfit < 0.01
        assert abs(found.slope - lean) < 0.01
    calibration = calibrate(*forge(Detector(), 2e4, 3, shape=(32, 32))[:2], edge=noisy)
    assert calibration.psf_sigma.value == pytest.approx(sigma, abs=0.05)
    assert calibration.detector().psf_sigma == calibration.psf_sigma.value


def test_fit_edge_spread__refuses_what_is_no_edge():
    rng = np.random.default_rng(1)
    with pytest.raises(InputError, match="step"):
        fit_edge_spread(1 + 0.01 * rng.standard_normal((30, 30)))
    with pytest.raises(InputError, match="at least 8 x 8"):
        fit_edge_spread(np.ones((4, 30)))
    with pytest.raises(InputError, match="finite"):
        fit_edge_spread(np.full((30, 30), np.nan))
    x = np.arange(60.0)[None, :] * np.ones((40, 1))
    fringes = (x > 30) + 0.25 * np.sin(x) * np.exp(-np.abs(x - 30) / 10)
    found = calibrate(*forge(Detector(), 2e4, 3, shape=(32, 32))[:2], edge=fringes)
    assert found.psf_sigma is None and any("no blurred step" in w for w in found.warnings)


def test_calibrate__refuses_bad_input():
    flats, darks, _ = forge(Detector(), 2e4, 3, flats=3, darks=3, shape=(32, 40))
    for arguments, message in (
        ((flats[0], darks), r"flats must be frames \(n, y, x\)"),
        ((flats[:0], darks), r"flats must be frames \(n, y, x\)"),
        ((flats, darks[:, :30]), r"darks must have the flats' frame size \(32, 40\), got \(30, 40\)"),
        ((flats.astype(complex), darks), "flats must be real counts"),
        ((np.where(flats > 0, np.nan, 1.0), darks), "flats must be finite counts"),
        ((flats, darks.astype(int) - 200), "darks must be finite counts"),
        ((flats.astype(int) * 9, darks), "counts must fit into 16 bits"),
    ):
        with pytest.raises(InputError, match=message):
            calibrate(*arguments)
    with pytest.raises(
        InputError, match="flat_progress must be a number from 0 to 1 for each of the 3 flats"
    ):
        calibrate(flats, darks, flat_progress=np.array([0.0, 1.0]))
    with pytest.raises(InputError, match="resamples must be at least 2"):
        calibrate(flats, darks, resamples=1)


def test_calibrate__progress_scales_drift():
    flats, darks, _ = forge(dataclasses.replace(Detector(), column_drift_sigma=0.01), 2e4, 3)
    whole = calibrate(flats, darks)
    half = calibrate(flats, darks, flat_progress=np.linspace(0, 0.5, len(flats)))
    assert half.column_drift.value == pytest.approx(2 * whole.column_drift.value, rel=1e-6)


def test_calibrate__i12_darks_tell_of_a_camera_and_its_flats_are_saturated(shared_data):
    folder = shared_data / "scans" / "i12_flats_darks"
    with h5py.File(folder / "flat_field.h5") as flat_file, h5py.File(folder / "dark_field.h5") as dark_file:
        flats, darks = (f["1-NoProcessPlugin-tomo/data"][...] for f in (flat_file, dark_file))
    found = calibrate(flats, darks)
    assert found.gain is None and found.saturated_fraction == 1 and found.bits == 16 and found.bits_certain
    assert any("saturated" in w for w in found.warnings) and any("dark 0 stands" in w for w in found.warnings)
    # By other means: the level is a median; the noise lies between its median over pixels and the rms with hits.
    deviation = darks[1:].std(axis=0, ddof=1)
    assert found.offset.value == pytest.approx(np.median(darks), abs=0.6)
    assert np.median(deviation) < found.read_noise.value < np.sqrt(np.mean(deviation**2))


def test_calibrate__diad_flats_give_gain_and_read_noise_of_a_scientific_cmos(shared_data):
    folder = shared_data / "scans" / "diad_k11_18014"
    pytest.importorskip("hdf5plugin")
    with h5py.File(folder / "k11-18014.nxs") as nexus:
        keys = nexus["entry/instrument/imaging/image_key"][...]
    with h5py.File(folder / "k11-18014" / "k11-18014-imaging.h5") as frames:
        stack = frames["entry/detector/detector"][...]
    flats, darks = stack[keys == 1], stack[keys == 2]
    found = calibrate(flats, darks, flat_progress=np.flatnonzero(keys == 1) / (len(keys) - 1))
    # By other means: within the 50 flats before the scan, variance in time over mean, each pixel.
    early = flats[:50].astype(float)
    early *= early.mean() / early.mean(axis=(1, 2), keepdims=True)
    slope = np.median(early.var(axis=0, ddof=1) / (early.mean(axis=0) - found.offset.value))
    assert found.gain.value == pytest.approx(slope, rel=0.05)
    assert 1 < found.read_noise.value < 4 and 95 < found.offset.value < 102
    first, second = (calibrate(flats[part], darks) for part in (slice(0, 50), slice(50, 100)))
    assert abs(first.gain.value - second.gain.value) < 5 * np.hypot(first.gain.error, second.gain.error)


def test_calibrate__diamond_24737_tells_little_by_its_averages_and_gain_by_its_air(shared_data):
    folder = shared_data / "scans" / "diamond_24737_tiff"
    flat, dark = (tifffile.imread(folder / f"{name}_00001.tiff")[None] for name in ("flat", "dark"))
    found = calibrate(flat, dark)
    assert found.gain is None and found.read_noise is None and 0 in found.maps.dead
    assert found.offset.value == pytest.approx(np.median(dark), abs=0.8)
    assert found.beam_ripple.value == pytest.approx(flat[0].mean(axis=1).std() / flat.mean(), rel=0.05)
    projections = np.stack([tifffile.imread(p) for p in sorted((folder / "tiffs").iterdir())])
    air = calibrate(projections[:, :22], dark[:, :22])  # above the sample at every angle
    assert air.gain.error < 0.02 * air.gain.value
    frames = projections[:, :22].astype(float)
    frames *= frames.mean() / frames.mean(axis=(1, 2), keepdims=True)
    slope = np.median(np.diff(frames, axis=0).var(axis=0) / 2 / (frames.mean(axis=0) - dark[0, :22] + 1e-9))
    assert air.gain.value == pytest.approx(slope, rel=0.05)
