"""Filtered back-projection against closed forms, invariants, orientation and ASTRA."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.library.reconstruction.phantoms import disc_image, disc_sinogram, scaled_discs, within
from tomoforge.errors import InputError
from tomoforge.geometry import uniform_angles
from tomoforge.reconstruction.angles import angle_weights
from tomoforge.reconstruction.fbp import FbpPlan, apodisation, fbp, ramp_response


@pytest.mark.parametrize("n_angles", [180, 900])
@pytest.mark.parametrize("n", [255, 256])
@pytest.mark.parametrize("offset", [0.0, 0.5, 7.0, -12.3])
def test_fbp__unit_disc_reconstructs_to_one(n: int, n_angles: int, offset: float) -> None:
    angles = uniform_angles(n_angles)
    centre = (n - 1) / 2 + offset
    sinogram = disc_sinogram(n, angles, centre, [(10, -20, 60, 1.0)])
    image = fbp(sinogram[:, np.newaxis], angles, 1.0, centre)[0]
    # The agreed bound for µ; measured 1.0000 ± 0.0001. Five pixels off the edge, which rings.
    assert image[within(n, 10, -20, 55)].mean() == pytest.approx(1.0, abs=0.005)
    # Zero outside: the streaks of 180 angles average out well below the bound.
    assert image[within(n, 10, -20, 100) & ~within(n, 10, -20, 65)].mean() == pytest.approx(0.0, abs=0.005)


@pytest.mark.parametrize("filter", ["ramp", "shepp-logan", "hann", "parzen"])
def test_fbp__every_filter_keeps_the_level(filter: str) -> None:
    angles = uniform_angles(180)
    sinogram = disc_sinogram(128, angles, 63.5, [(0, 0, 40, 1.0)])
    image = fbp(sinogram[:, np.newaxis], angles, 1.0, filter=filter)[0]
    # All windows are 1 at zero frequency; ten pixels inside the edge the widest (parzen) has settled.
    assert image[within(128, 0, 0, 30)].mean() == pytest.approx(1.0, abs=0.005)


def test_apodisation__stronger_filters_pass_less_noise() -> None:
    frequency = np.linspace(0, 0.5, 65)
    windows = [apodisation(name, frequency) for name in ("ramp", "shepp-logan", "hann", "parzen")]
    for wider, narrower in itertools.pairwise(windows):
        assert np.all(narrower <= wider + 1e-12)
        assert narrower[0] == 1.0
    # Parzen joins its two polynomials at half the Nyquist frequency: 1 − 6/4·1/2 = 2/8.
    assert windows[-1][32] == pytest.approx(0.25)


def test_ramp_response__is_the_ramp_with_a_level_that_is_not_zero() -> None:
    response = ramp_response(512)
    # 1/4 − 2 Σ 1/(π i)² over odd lags i vanishes; cut at N/2 it leaves the tail, 2/(π² N).
    tail = 2 / (np.pi**2 * 512)
    assert response[0] == pytest.approx(tail, rel=1e-3)
    # Elsewhere the cut costs at most as much.
    np.testing.assert_allclose(response, np.arange(257) / 512, atol=1.001 * tail)


@pytest.mark.parametrize(("x", "y"), [(30, 0), (0, 30), (-30, 0), (0, -30), (20, -25)])
@pytest.mark.parametrize("n", [96, 97])
def test_fbp__bright_disc_lands_where_it_is(x: int, y: int, n: int) -> None:
    angles = uniform_angles(120)
    sinogram = disc_sinogram(n, angles, (n - 1) / 2, [(x, y, 4, 1.0)])
    image = fbp(sinogram[:, np.newaxis], angles, 1.0)[0]
    rows, columns = np.mgrid[:n, :n] - (n - 1) / 2
    mass = np.where(within(n, x, y, 7), image, 0)
    # A tenth of a pixel: a flip, a transpose or a half-pixel error of the grid is five times that or more.
    assert (mass * columns).sum() / mass.sum() == pytest.approx(x, abs=0.1)
    assert (mass * rows).sum() / mass.sum() == pytest.approx(y, abs=0.1)
    assert mass.sum() == pytest.approx(np.pi * 16, rel=0.05)  # streaks cross so small a window


def test_fbp__slice_index_is_the_detector_row() -> None:
    angles = uniform_angles(60)
    stack = np.zeros((60, 3, 48), np.float32)
    stack[:, 2] = disc_sinogram(48, angles, 23.5, [(0, 0, 10, 1.0)])
    volume = fbp(stack, angles, 1.0)
    assert volume.shape == (3, 48, 48)
    assert volume.dtype == np.float32
    assert not volume[:2].any()
    assert volume[2, 24, 24] > 0.9


def astra_fbp(sinogram: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(y, x) ASTRA's slice from an (angle, x) sinogram, linear interpolation, on the CPU."""
    astra = pytest.importorskip("astra")
    n = sinogram.shape[1]
    # Angles negated and rows kept is our convention in theirs; any other choice misses the discs.
    geometry = astra.create_proj_geom("parallel", 1.0, n, -angles)
    grid = astra.create_vol_geom(n, n)
    data, result = astra.data2d.create("-sino", geometry, sinogram), astra.data2d.create("-vol", grid)
    settings = astra.astra_dict("FBP")
    settings.update(
        ProjectorId=astra.create_projector("linear", geometry, grid),
        ProjectionDataId=data,
        ReconstructionDataId=result,
    )
    astra.algorithm.run(astra.algorithm.create(settings))
    image = astra.data2d.get(result)
    astra.clear()
    return image


def test_fbp__error_on_discs_is_no_worse_than_astra() -> None:
    angles = uniform_angles(360)
    ours, theirs = [], []
    # Several widths, since the error of one is a draw of where the discs' edges fall between pixels:
    # ours is 31 % above theirs at 256 columns and 8 % below at 300.
    for n in (240, 256, 300, 351, 400, 512):
        sinogram = disc_sinogram(n, angles, (n - 1) / 2, scaled_discs(n))
        truth, inside = disc_image(n, scaled_discs(n)), within(n, 0, 0, 0.49 * n)
        ours.append(np.mean((fbp(sinogram[:, np.newaxis], angles, 1.0)[0] - truth)[inside] ** 2))
        theirs.append(np.mean((astra_fbp(sinogram, angles) - truth)[inside] ** 2))
    assert np.sqrt(np.mean(theirs)) < 0.05  # theirs is the right way round
    assert np.sqrt(np.mean(ours)) < 1.05 * np.sqrt(np.mean(theirs))


def test_fbp__inverts_astras_projector() -> None:
    astra = pytest.importorskip("astra")
    n, angles = 128, uniform_angles(240)
    truth = disc_image(n, [(0, 0, 50, 1.0), (25, 12, 10, 1.0), (-10, -30, 6, 2.0)]).astype(np.float32)
    geometry, grid = astra.create_proj_geom("parallel", 1.0, n, -angles), astra.create_vol_geom(n, n)
    projector = astra.create_projector("linear", geometry, grid)
    _, sinogram = astra.create_sino(truth, projector)
    astra.clear()
    image = fbp(np.ascontiguousarray(sinogram)[:, np.newaxis], angles, 1.0)[0]
    inside = within(n, 0, 0, 60)
    # Edges ring by some per cent of a step; a mirrored image would correlate at about 0.8.
    assert np.corrcoef(image[inside], truth[inside])[0, 1] > 0.99
    assert image[within(n, -30, 20, 8)].mean() == pytest.approx(1.0, abs=0.01)


def test_fbp__values_are_per_metre() -> None:
    angles = uniform_angles(90)
    sinogram = disc_sinogram(64, angles, 31.5, [(0, 0, 20, 1.0)])
    one = fbp(sinogram[:, np.newaxis], angles, 1.0)
    micron = fbp(sinogram[:, np.newaxis], angles, 1e-6)
    np.testing.assert_allclose(micron, one * 1e6, rtol=1e-3, atol=1e-3 * 1e6)  # the NUFFT's eps, float32


def test_fbp__a_slice_has_the_same_bytes_in_any_slab() -> None:
    rng = np.random.default_rng(3)
    stack, angles = rng.normal(size=(90, 5, 61)).astype(np.float32), uniform_angles(90)
    volume = fbp(stack, angles, 2e-6, 28.25)
    for row in range(5):
        assert fbp(stack[:, row : row + 1], angles, 2e-6, 28.25).tobytes() == volume[row].tobytes()
    assert fbp(np.asfortranarray(stack), angles, 2e-6, 28.25).tobytes() == volume.tobytes()
    plan = FbpPlan(61, angles, 2e-6, 28.25)
    backwards = [plan(stack[:, row]) for row in (4, 3, 2, 1, 0)]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(backwards, volume[::-1], strict=True))


def test_fbp__full_turn_and_shuffled_angles_agree_with_the_half_turn() -> None:
    half = uniform_angles(180)
    # Mirrored about column 60.5, opposite projections sample the very same rays.
    centre, discs = 60.5, [(8, 15, 20, 1.0), (-20, 0, 5, 2.0)]
    expected = fbp(disc_sinogram(128, half, centre, discs)[:, np.newaxis], half, 1.0, centre)
    full = uniform_angles(360, 2 * np.pi)
    shuffled = np.random.default_rng(1).permutation(full)
    for angles in (full, full[::-1], shuffled):
        image = fbp(disc_sinogram(128, angles, centre, discs)[:, np.newaxis], angles, 1.0, centre)
        np.testing.assert_allclose(image, expected, atol=3e-3)  # the NUFFT's eps on values up to 3
    turned = half - 3.0
    image = fbp(disc_sinogram(128, turned, centre, discs)[:, np.newaxis], turned, 1.0, centre)
    assert image[0][within(128, 8, 15, 16)].mean() == pytest.approx(1.0, abs=0.005)


def test_angle_weights__uniform_steps_share_the_half_circle_evenly() -> None:
    for angles in (
        uniform_angles(7),
        uniform_angles(7) + 4.0,
        uniform_angles(8, 2 * np.pi),
        uniform_angles(9, -np.pi),
    ):
        weights = angle_weights(angles)
        # Folded opposite pairs coincide to rounding; they share their cell, whichever sorts first.
        np.testing.assert_allclose(weights, np.pi / angles.size, rtol=1e-9)


def test_angle_weights__a_repeated_end_point_counts_once() -> None:
    weights = angle_weights(np.linspace(0, np.pi, 91))
    assert weights[0] == pytest.approx(np.pi / 180)
    assert weights[-1] == pytest.approx(np.pi / 180)
    np.testing.assert_allclose(weights[1:-1], np.pi / 90)


@given(st.lists(st.floats(-10, 10), min_size=200, max_size=300))
@settings(max_examples=30, deadline=None)
def test_angle_weights__add_up_to_half_a_turn(extra: list[float]) -> None:
    # On top of an even scan, so that no wedge is missing.
    weights = angle_weights(np.concatenate([uniform_angles(60), extra]))
    assert weights.sum() == pytest.approx(np.pi)
    assert np.all(weights >= 0)


def test_angle_weights__a_missing_wedge_is_not_filled(caplog: pytest.LogCaptureFixture) -> None:
    weights = angle_weights(np.radians(np.arange(0, 120, 1.0)))
    np.testing.assert_allclose(weights, np.radians(1.0))
    assert "wedge of 61.0 degrees" in caplog.text


def test_fbp__uneven_angles_keep_the_level() -> None:
    rng = np.random.default_rng(5)
    # Dense in one quarter, sparse in another, jittered everywhere: equal weights would be 30 % off.
    angles = np.pi * np.linspace(0, 1, 400, endpoint=False) ** 1.5 + rng.normal(0, 1e-3, 400)
    sinogram = disc_sinogram(128, angles, 63.5, [(10, 5, 40, 1.0)])
    image = fbp(sinogram[:, np.newaxis], angles, 1.0)[0]
    assert image[within(128, 10, 5, 35)].mean() == pytest.approx(1.0, abs=0.005)


def test_fbp__pixels_that_some_angle_misses_are_zero_unless_kept() -> None:
    angles = uniform_angles(90)
    sinogram = disc_sinogram(64, angles, 20.0, [(0, 0, 15, 1.0)])[:, np.newaxis]
    masked = fbp(sinogram, angles, 1.0, 20.0)[0]
    kept = fbp(sinogram, angles, 1.0, 20.0, zero_outside=False)[0]
    seen = within(64, 0, 0, 20.5)
    assert not masked[~within(64, 0, 0, 20.5 + 1e-9)].any()
    np.testing.assert_array_equal(masked[seen], kept[seen])
    assert np.abs(kept[~seen]).max() > 0


def test_fbp__reports_progress() -> None:
    seen: list[tuple[int, int]] = []
    fbp(np.zeros((4, 2, 8), np.float32), uniform_angles(4), 1.0, progress=lambda *step: seen.append(step))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"angles": uniform_angles(5)}, "one entry for each projection"),
        ({"angles": np.full(4, np.nan)}, "angles must be finite"),
        ({"pixel_size": 0.0}, "pixel_size must be positive"),
        ({"rotation_centre": 8.0}, "rotation_centre must be a detector column"),
        ({"filter": "sharp"}, "filter must be one of ramp"),
        ({"line_integrals": np.zeros((4, 8), np.float32)}, "non-empty"),
        ({"line_integrals": np.full((4, 1, 8), np.nan, np.float32)}, "not finite"),
    ],
)
def test_fbp__refuses_with_the_reason(change: dict, message: str) -> None:
    good = {"line_integrals": np.zeros((4, 1, 8), np.float32), "angles": uniform_angles(4), "pixel_size": 1.0}
    with pytest.raises(InputError, match=message):
        fbp(**(good | change))
