"""Filtered back-projection against closed forms, invariants, orientation and ASTRA."""

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import finufft
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.library.reconstruction.phantoms import disc_image, disc_sinogram, scaled_discs, within
from tomoforge import backend
from tomoforge.errors import InputError, MissingComponentError
from tomoforge.geometry import uniform_angles
from tomoforge.reconstruction import adapters
from tomoforge.reconstruction.angles import angle_weights
from tomoforge.reconstruction.fbp import FbpPlan, apodisation, fbp, interpolation_response, ramp_response
from tomoforge.reconstruction.gridding import RadialGrid
from tomoforge.reconstruction.nufft import LibraryNufft, library_plan
from tomoforge.reconstruction.projector import back_project, project


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


@pytest.mark.parametrize(("n", "n_angles"), [(512, 900), (1023, 180), (1024, 180)])
def test_fbp__unit_disc_at_full_size(n: int, n_angles: int) -> None:
    angles, centre, radius = uniform_angles(n_angles), (n - 1) / 2 - 0.5, 0.2 * n
    sinogram = disc_sinogram(n, angles, centre, [(30, -40, radius, 1.0)])
    image = fbp(sinogram[:, np.newaxis], angles, 1.0, centre)[0]
    assert image[within(n, 30, -40, radius - 5)].mean() == pytest.approx(1.0, abs=0.005)


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


@pytest.mark.parametrize(
    ("n", "n_angles"), [(240, 180), (255, 180), (256, 180), (256, 900), (288, 180), (351, 180), (512, 180)]
)
def test_fbp__error_on_discs_is_no_worse_than_astra(n: int, n_angles: int) -> None:
    angles = uniform_angles(n_angles)
    sinogram = disc_sinogram(n, angles, (n - 1) / 2, scaled_discs(n))
    truth, inside = disc_image(n, scaled_discs(n)), within(n, 0, 0, 0.49 * n)
    ours = np.sqrt(np.mean((fbp(sinogram[:, np.newaxis], angles, 1.0)[0] - truth)[inside] ** 2))
    theirs = np.sqrt(np.mean((astra_fbp(sinogram, angles) - truth)[inside] ** 2))
    assert theirs < 0.05  # theirs is the right way round
    # 0.79 to 0.88 at these sizes. With the spectrum cut at the Nyquist frequency it was 0.76 to 1.31,
    # depending on where the discs' edges fall between columns.
    assert ours < 0.95 * theirs


@pytest.mark.parametrize(("n", "offset"), [(256, 0.5), (256, -16.0), (255, 3.25)])
def test_fbp__an_axis_off_the_middle_costs_no_accuracy(n: int, offset: float) -> None:
    angles, discs = uniform_angles(240), [(x * 0.85, y * 0.85, r * 0.85, v) for x, y, r, v in scaled_discs(n)]
    truth, inside = disc_image(n, discs), within(n, 0, 0, 0.42 * n)
    errors = []
    for centre in ((n - 1) / 2, (n - 1) / 2 + offset):
        sinogram = disc_sinogram(n, angles, centre, discs)[:, np.newaxis]
        errors.append(np.sqrt(np.mean((fbp(sinogram, angles, 1.0, centre)[0] - truth)[inside] ** 2)))
    # Edges fall elsewhere between columns, which moves the error by a fifth either way; half a pixel's mistake
    # of the axis makes it three times larger.
    assert errors[1] < 1.4 * errors[0]
    theirs = adapters.astra_fbp(sinogram, angles, 1.0, centre)[0]
    assert errors[1] < 1.05 * np.sqrt(np.mean((theirs - truth)[inside] ** 2))


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


@pytest.mark.parametrize(("n", "n_angles", "centre"), [(61, 90, 28.25), (64, 33, None)])
def test_fbp__a_slice_has_the_same_bytes_in_any_slab(n: int, n_angles: int, centre: float | None) -> None:
    rng = np.random.default_rng(3)
    stack, angles = rng.normal(size=(n_angles, 19, n)).astype(np.float32), uniform_angles(n_angles)
    stack[:, 4] *= 1e6  # a neighbour that would show
    volume = fbp(stack, angles, 2e-6, centre)
    for rows in (1, 3, 8, 11):
        slabs = [fbp(stack[:, start : start + rows], angles, 2e-6, centre) for start in range(0, 19, rows)]
        assert np.concatenate(slabs).tobytes() == volume.tobytes()
    assert fbp(np.asfortranarray(stack), angles, 2e-6, centre).tobytes() == volume.tobytes()
    plan = FbpPlan(n, angles, 2e-6, centre)
    backwards = [plan(stack[:, row]) for row in range(18, -1, -1)]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(backwards, volume[::-1], strict=True))


def test_fbp__threads_with_plans_of_their_own_give_the_same_bytes() -> None:
    rng = np.random.default_rng(4)
    stack, angles = rng.normal(size=(40, 20, 48)).astype(np.float32), uniform_angles(40)
    with ThreadPoolExecutor(3) as pool:
        slabs = list(pool.map(lambda start: fbp(stack[:, start : start + 5], angles, 1.0), range(0, 20, 5)))
    assert np.concatenate(slabs).tobytes() == fbp(stack, angles, 1.0).tobytes()


@pytest.mark.parametrize(("n", "n_angles"), [(2, 1), (3, 5), (16, 12), (97, 60), (128, 100)])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_radial_grid__agrees_with_finufft(n: int, n_angles: int, offset: float) -> None:
    rng = np.random.default_rng(n)
    angles = rng.uniform(-7, 7, n_angles)
    lines = rng.normal(size=(n_angles, 3, n)).astype(np.float32)
    length, frequencies = 2 * n + 1, int(1.4 * n)
    shared = (
        n,
        length,
        angles,
        rng.uniform(0, 1, frequencies),
        rng.uniform(0, n, n_angles) + offset,
        rng.uniform(0, 1, n_angles),
        rng.random((n, n)) < 0.1,
    )
    ours, theirs = RadialGrid(*shared).images(lines), LibraryNufft(*shared).images(lines)
    # Both are good to 1e-3 of the rms; four times that for pixels at the border, where kernels are weakest.
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < 2e-3 * np.sqrt(np.mean(theirs**2))
    assert np.abs(ours - theirs).max() < 2e-2 * np.abs(theirs).max()
    assert not ours[:, shared[-1]].any() and not theirs[:, shared[-1]].any()


def test_library_plan__says_what_a_gpu_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cufinufft", None)
    with pytest.raises(MissingComponentError, match="EXTRAS=gpu"):
        library_plan(ModuleType("cupy"), 1, 8, 1, 1e-3, 1)


def test_fbp__the_gpus_way_agrees_with_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    # The code for CuPy arrays on stand-ins for CuPy and cufinufft with the same interfaces.
    device = ModuleType("cupy")
    device.__dict__.update(
        {name: getattr(np, name) for name in dir(np) if name[0] != "_" and name[0].islower()}
    )
    rng, angles = np.random.default_rng(2), uniform_angles(50, -np.pi)
    stack = rng.normal(size=(50, 11, 40)).astype(np.float32)
    host = (
        fbp(stack, angles, 2.0, 18.25, "hann"),
        project(stack[:40, :3, :].transpose(1, 0, 2), angles, 18.25),
    )
    for name in ("fbp", "nufft", "projector"):
        monkeypatch.setattr(sys.modules[f"tomoforge.reconstruction.{name}"], "array_module", lambda _: device)
    monkeypatch.setitem(sys.modules, "cufinufft", finufft)
    found = (
        fbp(stack, angles, 2.0, 18.25, "hann"),
        project(stack[:40, :3, :].transpose(1, 0, 2), angles, 18.25),
    )
    # Two transforms of tolerance 1e-3 at the image's rms; one of 1e-5 run twice.
    assert np.sqrt(np.mean((found[0] - host[0]) ** 2)) < 2e-3 * host[0].std()
    np.testing.assert_allclose(found[1], host[1], atol=1e-3)


gpu = pytest.mark.skipif(backend.gpu_count() == 0, reason="no NVIDIA GPU with CuPy here")


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("n", [96, 97])
def test_fbp__gpu_agrees_with_the_host(n: int) -> None:
    import cupy

    angles = uniform_angles(120)
    sinogram = disc_sinogram(n, angles, 45.5, [(8, -10, 20, 1.0)])
    stack = np.repeat(sinogram[:, np.newaxis], 11, axis=1) * np.arange(11, dtype=np.float32)[:, np.newaxis]
    host, device = fbp(stack, angles, 1.0, 45.5), fbp(cupy.asarray(stack), angles, 1.0, 45.5)
    assert isinstance(device, cupy.ndarray) and device.dtype == np.float32
    # The tolerances of the two transforms, 1e-3 each.
    assert np.abs(device.get() - host).max() < 5e-3 * np.abs(host).max()


@pytest.mark.gpu
@gpu
def test_project__gpu_agrees_with_the_host() -> None:
    import cupy

    rng, angles = np.random.default_rng(1), uniform_angles(50)
    volume = rng.normal(size=(2, 64, 64)).astype(np.float32)
    lines = project(volume, angles, 30.0)
    on_device = project(cupy.asarray(volume), angles, 30.0)
    # The transforms' tolerance, 1e-5, on values whose largest is four times the rms.
    assert np.abs(on_device.get() - lines).max() < 1e-4 * np.abs(lines).max()
    back = back_project(on_device, angles, 30.0).get()
    expected = back_project(lines, angles, 30.0)
    assert np.abs(back - expected).max() < 1e-4 * np.abs(expected).max()


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
    assert seen == [(2, 2)]
    fbp(np.zeros((4, 9, 8), np.float32), uniform_angles(4), 1.0, progress=lambda *step: seen.append(step))
    assert seen[1:] == [(8, 9), (9, 9)]


def test_fbp_plan__refuses_another_shape() -> None:
    plan = FbpPlan(8, uniform_angles(4), 1.0)
    with pytest.raises(InputError, match="sinogram must be"):
        plan(np.zeros((5, 8), np.float32))
    with pytest.raises(InputError, match="line_integrals must be"):
        plan.stack(np.zeros((4, 1, 9), np.float32))


def test_interpolation_response__is_the_transform_of_keys_kernel() -> None:
    t = np.linspace(-2, 2, 4001)
    x = np.abs(t)
    kernel = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2)
    for frequency in (0.0, 1e-3, 0.1, 0.5, 0.7):
        expected = np.sum(kernel * np.cos(2 * np.pi * frequency * t)) * (t[1] - t[0])
        assert interpolation_response(np.array([frequency]))[0] == pytest.approx(expected, abs=1e-6)


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
