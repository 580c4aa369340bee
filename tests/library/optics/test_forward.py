"""Thickness to intensity: the fused kernels against plain arrays and closed forms."""

import numpy as np
import pytest

from tomoforge.errors import InputError
from tomoforge.optics import forward
from tomoforge.optics.detector import blur_and_bin
from tomoforge.optics.forward import SpectralLine, bin_weights, check_cone, intensity_from_thickness
from tomoforge.optics.materials import RefractiveIndex, find_material
from tomoforge.optics.wave_kernels import exit_rows
from tomoforge.units import kev_to_wavelength

VACUUM = RefractiveIndex(0.0, 0.0, 0.0)
DEPTHS = np.linspace(-60e-6, 60e-6, 5)


def line_at(energy_kev: float, weight: float = 1.0) -> SpectralLine:
    constants = (
        VACUUM,
        *(find_material(name).refractive_index(energy_kev) for name in ("water", "polyimide")),
    )
    return SpectralLine(kev_to_wavelength(energy_kev), weight, constants)


def smooth_maps(planes: int, rows: int, columns: int) -> np.ndarray:
    """Path lengths of two hills in each plane: (plane, material, y, x) [m]."""
    y, x = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)
    maps = np.zeros((planes, 3, rows, columns))
    for p in range(planes):
        maps[p, 1] = 8e-5 / planes * np.exp(-((x - 0.05 * p) ** 2 + y**2) / 0.2)
        maps[p, 2] = 3e-5 / planes * np.exp(-(x**2 + (y + 0.05 * p) ** 2) / 0.05)
    return maps.astype(np.float32)


@pytest.mark.parametrize("oversampling", [1, 2, 3])
@pytest.mark.parametrize(
    ("planes", "sigma", "wave"), [(1, 0.4, True), (5, 0.0, True), (5, 1.1, True), (5, 0.4, False)]
)
def test_intensity__kernels_match_whole_arrays(oversampling, planes, sigma, wave):
    maps = smooth_maps(planes, 40, 50 * oversampling)
    depths = DEPTHS if planes > 1 else np.zeros(1)
    arguments = (1e-6, 8e-3, sigma, oversampling)
    steps = np.append(np.diff(depths), 8e-3 - depths[-1])
    line = line_at(4.0)
    fused = intensity_from_thickness(maps, depths, [line], *arguments, wave_optics=wave)
    plain = forward._array_projection(maps, steps, line, 1e-6 / oversampling, sigma, oversampling, wave, 1)
    assert fused.shape == (40, 50)
    np.testing.assert_allclose(fused, plain, atol=2e-5)  # float32 phases of up to 25 rad
    threads = intensity_from_thickness(maps, depths, [line], *arguments, wave_optics=wave, threads=3)
    assert fused.tobytes() == threads.tobytes()


def test_exit_rows__follow_the_closed_form_from_vacuum_to_black():
    rng = np.random.default_rng(2)
    turns, halvings = np.array([0.0, 1.0], np.float32), np.array([0.0, 0.37], np.float32)
    maps = np.zeros((2, 3, 4001), np.float32)
    maps[1] = rng.uniform(0, 20, (3, 4001)) * np.array([0, 1, 30])[:, None]
    maps[1, 1, :5] = 0.25, 0.5, 0.75, 1.0, 1.5  # where the branches meet
    wave = np.empty((3, 4001), np.complex64)
    exit_rows(maps, turns, halvings, 1, 0, wave[:0], wave)
    t = maps[1].astype(float)
    expected = np.exp(-2j * np.pi * t) * 2.0 ** -(t * np.float64(halvings[1]))
    assert np.all(wave[0] == 1)
    np.testing.assert_allclose(wave[1], expected[1], atol=3e-7)
    np.testing.assert_allclose(wave[2], expected[2], atol=3e-7)  # up to 600 turns, and 2^−126 instead of less


def test_bin_weights__equal_blur_and_bin():
    image = np.random.default_rng(3).random((12, 16)).astype(np.float32)
    for oversampling, sigma in ((1, 0.0), (2, 0.3), (2, 0.8), (4, 0.5)):
        weights = bin_weights(oversampling, sigma)
        assert weights.sum() == pytest.approx(1.0, rel=1e-12, abs=0)
        rows, columns = (
            forward._bin_matrix(n // oversampling, oversampling, weights.tobytes()) for n in image.shape
        )
        expected = blur_and_bin(image, oversampling, sigma)
        np.testing.assert_allclose(rows @ image @ columns.T, expected, atol=1e-6)


@pytest.mark.parametrize("planes", [1, 5])
def test_intensity__slab_follows_beer_lambert_at_any_distance(planes):
    maps = np.zeros((planes, 3, 16, 40), np.float32)
    maps[:, 1] = 120e-6 / planes
    depths = DEPTHS if planes > 1 else np.zeros(1)
    line = line_at(5.0)
    for distance in (0.0, 0.05):
        got = intensity_from_thickness(maps, depths, [line], 1e-6, distance, 0.4, 2)
        expected = np.exp(-line.constants[1].mu * 120e-6)
        np.testing.assert_allclose(got, expected, rtol=5e-6)  # rounding of float32 through the transforms


def test_intensity__spectrum_is_the_weighted_sum_of_its_lines():
    maps = smooth_maps(1, 20, 60)
    lines = [line_at(4.0, 3.0), line_at(7.0, 1.0), line_at(11.0, 0.5)]
    parts = [intensity_from_thickness(maps, np.zeros(1), [one], 1e-6, 8e-3, 0.0, 2) for one in lines]
    got = intensity_from_thickness(maps, np.zeros(1), lines, 1e-6, 8e-3, 0.0, 2)
    np.testing.assert_allclose(got, (3 * parts[0] + parts[1] + 0.5 * parts[2]) / 4.5, atol=1e-6)
    with pytest.raises(InputError, match="weights of the lines"):
        intensity_from_thickness(maps, np.zeros(1), [line_at(4.0, 0.0)], 1e-6, 8e-3, 0.0, 2)


def test_intensity__absorption_only_has_no_fringes_and_the_wave_has():
    maps = smooth_maps(1, 40, 100)
    line = line_at(5.0)
    paths = maps[0]
    dark = np.exp(-sum(c.mu * paths[m].astype(float) for m, c in enumerate(line.constants)))
    still = intensity_from_thickness(maps, np.zeros(1), [line], 1e-6, 0.05, 0.0, 1, wave_optics=False)
    np.testing.assert_allclose(still, dark, rtol=3e-6)
    wave = intensity_from_thickness(maps, np.zeros(1), [line], 1e-6, 0.05, 0.0, 1)
    assert np.abs(wave - dark).max() > 0.02


@pytest.mark.parametrize("oversampling", [1, 2])
def test_intensity__smooth_hill_follows_transport_of_intensity(oversampling):
    # I = 1 + z ∇²(δT) near the sample: a hill of matter, thinner optically than vacuum, is dark in its middle.
    width, height, delta, distance = 12e-6, 20e-6, 3e-6, 10e-3
    line = SpectralLine(2.5e-10, 1.0, (VACUUM, RefractiveIndex(delta, 0.0, 0.0)))
    y, x = (
        (np.arange(120) - 59.5)[:, None] * 1e-6,
        ((np.arange(120 * oversampling) + 0.5) / oversampling - 60) * 1e-6,
    )
    hill = height * np.exp(-(x**2 + y**2) / (2 * width**2))
    maps = np.stack([0 * hill, hill]).astype(np.float32)[None]
    got = intensity_from_thickness(maps, np.zeros(1), [line], 1e-6, distance, 0.0, oversampling)
    x = x.reshape(120, oversampling).mean(axis=1)
    hill = height * np.exp(-(x**2 + y**2) / (2 * width**2))
    contrast = distance * delta * hill * ((x**2 + y**2) / width**4 - 2 / width**2)
    assert contrast.min() < -8e-3
    # Of the next order in z is the contrast squared, as large in the middle as 0.8 % of it.
    np.testing.assert_allclose(got - 1, contrast, atol=0.012 * np.abs(contrast).max())


def test_intensity__spherical_wave_is_seen_from_the_effective_distance():
    maps = smooth_maps(1, 30, 80)
    line = line_at(5.0)
    cone = intensity_from_thickness(maps, np.zeros(1), [line], 1e-6, 0.3, 0.0, 2, source_distance=0.1)
    plane = intensity_from_thickness(maps, np.zeros(1), [line], 1e-6, 0.075, 0.0, 2)
    np.testing.assert_allclose(cone, plane, atol=1e-6)


def test_check_cone__refuses_rays_that_are_not_parallel():
    check_cone((256, 256, 256), 1e-6, 0.1)
    with pytest.raises(InputError, match="projections here are parallel"):
        check_cone((256, 256, 256), 1e-6, 0.01)
