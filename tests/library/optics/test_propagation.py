"""Fresnel propagation against closed forms."""

import numpy as np
import pytest
from scipy.special import erf, fresnel

from tomoforge.errors import InputError
from tomoforge.optics.propagation import (
    angular_spectrum_propagate,
    exit_wave,
    fresnel_propagate,
    fresnel_scaling,
    padding_width,
)

WAVELENGTH = 2.5e-10
PIXEL = 1e-6


def test_fresnel_propagate__gaussian_beam_matches_closed_form():
    n, waist, distance = 256, 12e-6, 0.5
    u = (np.arange(n) - n / 2) * PIXEL
    radius2 = u[:, None] ** 2 + u[None, :] ** 2
    wave = np.exp(-radius2 / waist**2).astype(np.complex128)
    # Complex beam parameter (Siegman, Lasers, ch. 17), exp(+ikz) and the common phase kz left out.
    rayleigh = np.pi * waist**2 / WAVELENGTH
    q = 1 + 1j * distance / rayleigh
    expected = np.exp(-radius2 / (waist**2 * q)) / q
    got = fresnel_propagate(wave, PIXEL, distance, WAVELENGTH, padding=0)
    # The beam is narrow against the field and smooth: only rounding of float64 is left.
    assert np.abs(got - expected).max() < 1e-12


def test_fresnel_propagate__talbot_distance_repeats_a_grating():
    n, period_pixels = 600, 12
    distance = 2 * (period_pixels * PIXEL) ** 2 / WAVELENGTH
    assert distance < n * PIXEL**2 / WAVELENGTH  # no harmonic is cut by the band limit
    grating = np.where((np.arange(n) // (period_pixels // 2)) % 2, 1.0, 0.3)
    wave = np.broadcast_to(grating, (4, n)).astype(np.complex128)
    got = fresnel_propagate(wave, PIXEL, distance, WAVELENGTH, padding=0)
    assert np.abs(got - wave).max() < 1e-12
    half = fresnel_propagate(wave, PIXEL, distance / 2, WAVELENGTH, padding=0)
    # At half the Talbot distance the image comes back shifted by half a period.
    assert np.abs(half - np.roll(wave, period_pixels // 2, axis=1)).max() < 1e-12


def test_fresnel_propagate__knife_edge_matches_fresnel_integrals():
    oversampling, pixel, distance = 4, 0.5e-6, 0.02
    fine, n = pixel / oversampling, 4096
    x = (np.arange(n) + 0.5 - n / 2) * fine
    wave = np.broadcast_to((x > 0).astype(np.complex128), (2, n))
    got = np.abs(fresnel_propagate(np.ascontiguousarray(wave), fine, distance, WAVELENGTH)[0]) ** 2
    binned = got.reshape(-1, oversampling).mean(axis=1)
    w = x * np.sqrt(2 / (WAVELENGTH * distance))
    s, c = fresnel(w)
    # Born & Wolf, Principles of Optics, sec. 8.7.3.
    exact = (0.5 * ((c + 0.5) ** 2 + (s + 0.5) ** 2)).reshape(-1, oversampling).mean(axis=1)
    near = np.abs(x.reshape(-1, oversampling).mean(axis=1)) < 60e-6
    assert np.sqrt(np.mean((binned - exact)[near] ** 2)) < 5e-3  # 0.42 % measured at 4× oversampling


def test_fresnel_propagate__keeps_energy_and_comes_back():
    rng = np.random.default_rng(0)
    wave = rng.standard_normal((64, 60)) + 1j * rng.standard_normal((64, 60))
    distance = 30 * PIXEL**2 / WAVELENGTH  # within N·pixel²/λ, so that no frequency is cut
    there = fresnel_propagate(wave, PIXEL, distance, WAVELENGTH, padding=0)
    assert np.sum(np.abs(there) ** 2) == pytest.approx(np.sum(np.abs(wave) ** 2), rel=1e-12)
    # Back is forward of the conjugate.
    back = fresnel_propagate(there.conj(), PIXEL, distance, WAVELENGTH, padding=0).conj()
    assert np.abs(back - wave).max() < 1e-12


def test_fresnel_propagate__weak_phase_grating_follows_contrast_transfer():
    n, cycles, amplitude = 128, 8, 1e-4
    frequency = cycles / (n * PIXEL)
    distance = 0.3 / (WAVELENGTH * frequency**2 * np.pi)  # πλzf² = 0.3
    phase = amplitude * np.cos(2 * np.pi * frequency * np.arange(n) * PIXEL)
    wave = np.exp(-1j * np.broadcast_to(phase, (4, n)))
    intensity = np.abs(fresnel_propagate(wave, PIXEL, distance, WAVELENGTH, padding=0)[0]) ** 2
    # I = 1 + 2 φ sin(πλzf²) for the wave exp(iφ), here φ = −phase (Guigay, Optik 49, 121 (1977)).
    expected = 1 - 2 * phase * np.sin(0.3)
    np.testing.assert_allclose(intensity, expected, atol=3 * amplitude**2)


def test_fresnel_propagate__soft_edge_follows_transport_of_intensity():
    sigma, n, delta_t = 4e-6, 512, 1e-10  # δ·T of the step [m]
    x = (np.arange(n) - n / 2) * PIXEL
    path = delta_t * 0.5 * (1 + erf(x / (np.sqrt(2) * sigma)))
    distance = sigma**2 / (16 * WAVELENGTH)  # Fresnel number 16 of the edge
    wave = np.exp(-1j * 2 * np.pi / WAVELENGTH * np.broadcast_to(path, (4, n)))
    intensity = np.abs(fresnel_propagate(wave, PIXEL, distance, WAVELENGTH)[0]) ** 2
    # ∂I/∂z = −(1/k) ∇·(I ∇φ), φ = −k δ T  ⇒  I = 1 + z ∂²(δT)/∂x²
    second = -delta_t * x / (np.sqrt(2 * np.pi) * sigma**3) * np.exp(-(x**2) / (2 * sigma**2))
    middle = np.abs(x) < 40e-6
    contrast = distance * second[middle]
    error = np.abs((intensity - 1)[middle] - contrast).max() / np.abs(contrast).max()
    assert error < 2e-2  # the second order in z at this Fresnel number


def test_exit_wave__is_the_slab_of_the_convention():
    # n = 1 − δ + iβ: exp(ik(n − 1)T), and the intensity exp(−µT) with µ = 4πβ/λ.
    delta, beta, path = 1e-5, 2e-7, np.linspace(0, 50e-6, 7)[None]
    k = 2 * np.pi / WAVELENGTH
    wave = exit_wave(k * delta * path, k * beta * path)
    np.testing.assert_allclose(wave, np.exp(1j * k * (-delta + 1j * beta) * path), atol=2e-7)  # float32
    np.testing.assert_allclose(np.abs(wave) ** 2, np.exp(-4 * np.pi * beta / WAVELENGTH * path), atol=2e-7)


def test_exit_wave__bright_fringe_lies_on_the_lower_delta_side():
    n = 512
    x = (np.arange(n) - n / 2) * 0.5e-6
    path = 2e-6 * 0.5 * (1 + erf(x / 1e-6))  # matter to the right, half a radian thick
    k = 2 * np.pi / WAVELENGTH
    phase = np.broadcast_to(k * 1e-5 * path, (4, n)).astype(np.float32)
    wave = exit_wave(phase, np.zeros_like(phase))
    intensity = np.abs(fresnel_propagate(wave, 0.5e-6, 5e-3, WAVELENGTH)[0]) ** 2
    brightest = x[np.argmax(intensity)]
    assert -5e-6 < brightest < 0


def test_padding_width__grows_as_the_highest_frequency_walks():
    # λz/(2·pixel) is 125 pixels here.
    walked = padding_width(PIXEL, 1.0, WAVELENGTH) - padding_width(PIXEL, 0.0, WAVELENGTH)
    assert walked == pytest.approx(125, abs=1)  # rounded up to whole pixels


def test_padding_width__doubled_changes_nothing_that_matters():
    n = 128
    u = (np.arange(n) - (n - 1) / 2) * PIXEL
    path = 2 * np.sqrt(np.maximum((40e-6) ** 2 - u[:, None] ** 2 - u[None, :] ** 2, 0))
    k = 2 * np.pi / WAVELENGTH
    wave = exit_wave(k * 1e-5 * path, k * 1e-7 * path).astype(np.complex128)
    distance = 20e-3
    width = padding_width(PIXEL, distance, WAVELENGTH)
    once = np.abs(fresnel_propagate(wave, PIXEL, distance, WAVELENGTH)) ** 2
    twice = np.abs(fresnel_propagate(wave, PIXEL, distance, WAVELENGTH, padding=2 * width)) ** 2
    assert np.abs(once - twice).max() < 1e-4  # tails of the ball's hard edge; 3e-5 measured


def test_padding_width__doubled_changes_pixels_of_a_detector_by_less_than_one_in_ten_thousand():
    # As a scan takes it, two samples a pixel, averaged; the ball ends 4 µm before the field does.
    n, fine, distance = 256, PIXEL / 2, 20e-3
    u = (np.arange(n) - (n - 1) / 2) * fine
    path = 2 * np.sqrt(np.maximum((60e-6) ** 2 - u[:, None] ** 2 - u[None, :] ** 2, 0))
    k = 2 * np.pi / WAVELENGTH
    wave = exit_wave(k * 1e-5 * path, k * 1e-7 * path).astype(np.complex128)
    width = padding_width(fine, distance, WAVELENGTH)

    def pixels(padding: int | None) -> np.ndarray:
        field = fresnel_propagate(wave, fine, distance, WAVELENGTH, padding=padding)
        return (np.abs(field) ** 2).reshape(n // 2, 2, n // 2, 2).mean(axis=(1, 3))

    once, twice = pixels(None), pixels(2 * width)
    assert np.abs(once - twice).max() < 1e-4  # 8e-5 measured
    assert np.abs(pixels(0) - twice).max() > 1e-3  # padding is needed


def test_fresnel_propagate__follows_precision_and_refuses_bad_input():
    wave = np.ones((16, 16), np.complex64)
    assert fresnel_propagate(wave, PIXEL, 1e-3, WAVELENGTH).dtype == np.complex64
    with pytest.raises(InputError, match="distance must be zero or positive"):
        fresnel_propagate(wave, PIXEL, -1e-3, WAVELENGTH)
    with pytest.raises(InputError, match="wavelength must be positive"):
        fresnel_propagate(wave, PIXEL, 1e-3, 0.0)
    with pytest.raises(InputError, match="complex"):
        fresnel_propagate(wave.real, PIXEL, 1e-3, WAVELENGTH)
    with pytest.raises(InputError, match="distance must be zero or positive"):
        angular_spectrum_propagate(wave, PIXEL, np.nan, WAVELENGTH)
    with pytest.raises(InputError, match="source_distance must be positive"):
        fresnel_scaling(0.0, 1.0)


def test_fresnel_propagate__threads_and_blocks_do_not_change_a_byte():
    rng = np.random.default_rng(1)
    wave = (rng.standard_normal((150, 133)) + 1j * rng.standard_normal((150, 133))).astype(np.complex64)
    one = fresnel_propagate(wave, PIXEL, 5e-3, WAVELENGTH)
    assert one.tobytes() == fresnel_propagate(wave, PIXEL, 5e-3, WAVELENGTH, threads=3).tobytes()
    # Row by row and column by column is the two-dimensional transform with the two-dimensional filter.
    width = padding_width(PIXEL, 5e-3, WAVELENGTH)
    padded = np.pad(wave.astype(np.complex128), width, mode="edge")
    fy, fx = (np.fft.fftfreq(n, PIXEL) for n in padded.shape)
    transfer = np.exp(-1j * np.pi * WAVELENGTH * 5e-3 * (fy[:, None] ** 2 + fx**2))
    whole = np.fft.ifft2(np.fft.fft2(padded) * transfer)[width:-width, width:-width]
    smooth = fresnel_propagate(wave.astype(np.complex128), PIXEL, 5e-3, WAVELENGTH)
    np.testing.assert_allclose(one, smooth, atol=2e-5)  # float32
    # Padded lengths differ (5-smooth here): the edge's repetition goes farther by some pixels.
    inner = (slice(50, -50), slice(50, -50))
    assert np.sqrt(np.mean(np.abs(smooth - whole)[inner] ** 2)) < 2e-2


@pytest.mark.parametrize("propagate", [fresnel_propagate, angular_spectrum_propagate])
def test_propagation__a_tilted_wave_moves_by_its_angle(propagate):
    # A Gaussian beam with a phase gradient 2πf moves by λzf: sign, unit and factor of the transfer function.
    n, waist, distance, cycles = 512, 15e-6, 0.2, 64
    u = (np.arange(n) - n / 2) * PIXEL
    f = cycles / (n * PIXEL)
    beam = np.exp(-(u[:, None] ** 2 + u**2) / waist**2) * np.exp(2j * np.pi * f * u)
    intensity = np.abs(propagate(beam, PIXEL, distance, WAVELENGTH)) ** 2
    centre = (intensity.sum(axis=0) * u).sum() / intensity.sum()
    assert centre == pytest.approx(WAVELENGTH * distance * f, rel=1e-4, abs=0)


def test_angular_spectrum_propagate__is_exact_where_fresnel_is_not():
    # Plane waves at periodic frequencies: exp(2πiz(√(1/λ² − f²) − 1/λ)); optical wavelength, 23°.
    n, pixel, wavelength, distance = 128, 0.25e-6, 0.5e-6, 20e-6
    f = 25 / (n * pixel)
    wave = np.broadcast_to(np.exp(2j * np.pi * f * np.arange(n) * pixel), (4, n)).astype(np.complex128)
    expected = wave * np.exp(2j * np.pi * distance * (np.sqrt(1 / wavelength**2 - f**2) - 1 / wavelength))
    got = angular_spectrum_propagate(wave, pixel, distance, wavelength, padding=0)
    assert np.abs(got - expected).max() < 1e-10
    assert np.abs(fresnel_propagate(wave, pixel, distance, wavelength, padding=0) - expected).max() > 0.1
    # X-rays are paraxial: both agree.
    soft = np.exp(-(((np.arange(n) - n / 2) / 10) ** 2)) * np.ones((n, 1)) + 0j
    a, b = (p(soft, PIXEL, 0.1, WAVELENGTH) for p in (angular_spectrum_propagate, fresnel_propagate))
    assert np.abs(a - b).max() < 1e-6


@pytest.mark.parametrize("propagate", [fresnel_propagate, angular_spectrum_propagate])
def test_propagation__leaves_out_what_the_grid_cannot_carry(propagate):
    # Beyond N·pixel/(2λz) neighbouring samples of the transfer function differ by more than half a turn.
    n, cycles = 128, 16
    distance = (n * PIXEL) ** 2 / (2 * WAVELENGTH * cycles)
    x = np.arange(n) / n
    for k, passes in ((cycles - 2, 1.0), (cycles + 2, 0.0), (2 - cycles, 1.0), (-cycles - 2, 0.0)):
        wave = np.broadcast_to(np.exp(2j * np.pi * k * x), (8, n)).astype(np.complex128)
        for one in (wave, wave.T):
            got = propagate(np.ascontiguousarray(one), PIXEL, distance, WAVELENGTH, padding=0)
            np.testing.assert_allclose(np.abs(got), passes, atol=1e-12)


def test_fresnel_scaling__matches_a_spherical_wave_integrated_directly():
    source, distance = 0.04, 0.02  # [m]: magnified 1.5 times
    fine, n = 0.05e-6, 1200
    x = (np.arange(n) - (n - 1) / 2) * fine
    phase = 1.2 * np.exp(-((x / 3e-6) ** 2)) + 0.8 * np.exp(-(((x - 7e-6) / 2e-6) ** 2))
    matter = np.exp(-1j * phase - 0.1 * phase)
    magnification, effective = fresnel_scaling(source, distance)
    assert (magnification, effective) == (1.5, pytest.approx(distance / 1.5, rel=1e-12, abs=0))
    scaled = np.abs(fresnel_propagate(np.tile(matter, (2, 1)), fine, effective, WAVELENGTH)[0]) ** 2
    # The Fresnel integral of a spherical wave through the matter, over the one without, at X = M·x.
    seen = x[::20]
    at = magnification * seen
    spherical = x**2 / source + (at[:, None] - x) ** 2 / distance
    scattered = ((matter - 1) * np.exp(1j * np.pi / WAVELENGTH * spherical)).sum(axis=1) * fine
    scattered /= np.sqrt(1j * WAVELENGTH * distance)
    open_beam = np.exp(1j * np.pi / WAVELENGTH * at**2 / (source + distance)) / np.sqrt(magnification)
    direct = np.abs(1 + scattered / open_beam) ** 2
    assert direct.max() - direct.min() > 0.3
    np.testing.assert_allclose(scaled[::20], direct, atol=1e-4)
