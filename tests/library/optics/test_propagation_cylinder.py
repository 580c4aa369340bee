"""Propagation against the rigorous scattering of a plane wave by a homogeneous dielectric cylinder."""

import numpy as np
import pytest
from scipy.special import jv, y0, y1

from tomoforge.optics.propagation import angular_spectrum_propagate, exit_wave, fresnel_propagate


def bessel_j(orders: int, argument: complex) -> np.ndarray:
    """J_n(argument) for n < orders by Miller's downward recurrence, normalised by J_0 + 2ΣJ_2k = 1."""
    start = int(max(orders, abs(argument)) + 12 * abs(argument) ** (1 / 3) + 40)
    start += start % 2
    values = np.zeros(start + 2, complex)
    values[start] = 1e-250
    for n in range(start, 0, -1):
        values[n - 1] = 2 * n / argument * values[n] - values[n + 1]
        if abs(values[n - 1]) > 1e200:
            values[n - 1 :] *= 1e-200
    return values[:orders] / (values[0] + 2 * values[2::2].sum())


def bessel_y(orders: int, argument: float) -> np.ndarray:
    """Y_n(argument) for n < orders by upward recurrence, which is stable for Y."""
    values = np.empty(orders)
    values[:2] = y0(argument), y1(argument)
    for n in range(1, orders - 1):
        values[n + 1] = 2 * n / argument * values[n] - values[n - 1]
    return values


def scattering_coefficients(size: float, index: complex) -> np.ndarray:
    """b_n for an electric field along the axis (Bohren & Huffman, eq. 8.30), for exp(+ikz) and H⁽¹⁾: (n,)."""
    orders = int(size + 5 * size ** (1 / 3) + 10)
    j, y, inside = bessel_j(orders + 1, size), bessel_y(orders + 1, size), bessel_j(orders + 1, index * size)
    h = j + 1j * y
    n = np.arange(orders)

    def slope(f: np.ndarray, argument: complex) -> np.ndarray:
        return n / argument * f[:-1] - f[1:]  # f_n' = n f_n / z − f_{n+1}

    def mixed(outside: np.ndarray) -> np.ndarray:
        return index * slope(inside, index * size) * outside[:-1] - inside[:-1] * slope(outside, size)

    return mixed(j) / mixed(h)


def exact_intensity(x: np.ndarray, z: float, radius: float, wavelength: float, index: complex) -> np.ndarray:
    """|E|² at (x, z) behind a cylinder on the axis x = z = 0, the wave travelling towards +z: (x,)."""
    k = 2 * np.pi / wavelength
    coefficients = scattering_coefficients(k * radius, index)
    distance = np.hypot(x, z)
    argument = k * distance
    cosine = z / distance
    assert argument.min() > 1e6  # for the large-argument forms of H_0 and H_1, good to 1/argument²
    # exp(−ikz) is taken out of every term: k(r − z) = k x²/(r + z) loses no digits.
    common = np.sqrt(2 / (np.pi * argument)) * np.exp(1j * (k * x**2 / (distance + z) - np.pi / 4))
    before, now = common * (1 - 1j / (8 * argument)), -1j * common * (1 + 3j / (8 * argument))
    scattered = coefficients[0] * before
    cos_before, cos_now = np.ones_like(x), cosine
    for n in range(1, len(coefficients)):
        scattered += 2 * 1j ** (n % 4) * coefficients[n] * now * cos_now
        before, now = now, 2 * n / argument * now - before  # stable upwards while n < argument
        cos_before, cos_now = cos_now, 2 * cosine * cos_now - cos_before
    return np.abs(1 - scattered) ** 2


# Water at 5 keV, 6 µm thick (1.4 rad), seen 0.5 mm behind the axis (Fresnel number 73). Real X-ray values: kR = 76,000.
WAVELENGTH, DELTA, BETA = 2.4797e-10, 9.311e-6, 8.4e-8
RADIUS, DISTANCE = 3e-6, 0.5e-3


def paraxial_intensity(x: np.ndarray, pixel: float, sign: float = 1.0, back: float = 0.0) -> dict:
    thickness = 2 * np.sqrt(np.maximum(RADIUS**2 - x**2, 0))
    k = 2 * np.pi / WAVELENGTH
    phase = np.broadcast_to(k * DELTA * thickness, (2, x.size))
    wave = exit_wave(sign * phase, k * BETA * thickness + 0 * phase).astype(np.complex128)
    return {
        propagate.__name__: np.abs(propagate(wave, pixel, DISTANCE - back, WAVELENGTH)[0]) ** 2
        for propagate in (fresnel_propagate, angular_spectrum_propagate)
    }


def test_oracle__series_matches_scipy_and_a_thin_medium():
    # The recurrences against scipy at a size where scipy keeps all its digits.
    np.testing.assert_allclose(bessel_j(300, 200.0).real, jv(np.arange(300), 200.0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        bessel_j(60, 50 * (1 + 0.01j)), jv(np.arange(60), 50 * (1 + 0.01j)), atol=1e-12
    )
    # A lossless cylinder scatters what it takes away: Σ Re b = Σ |b|² (the optical theorem).
    b = scattering_coefficients(500.0, 1 - 1e-3)
    assert b.real.sum() == pytest.approx((np.abs(b) ** 2).sum(), rel=1e-9)
    # One that absorbs takes away more.
    b = scattering_coefficients(500.0, 1 - 1e-3 + 1e-4j)
    assert b.real.sum() > 1.01 * (np.abs(b) ** 2).sum()


def test_propagation__matches_the_rigorous_field_behind_a_cylinder():
    # Samples of 10 nm carry the square-root edges of the chord (5 nm: a third of the error); all fringes compared.
    pixel, n = 10e-9, 2048
    x = (np.arange(n) - (n - 1) / 2) * pixel
    near = np.abs(x) < 6e-6
    x_near = x[near][::8]
    exact = exact_intensity(x_near, DISTANCE, RADIUS, WAVELENGTH, 1 - DELTA + 1j * BETA)
    assert exact.max() - exact.min() > 0.3  # strong fringes, not a flat field that anything would match
    for name, got in paraxial_intensity(x, pixel).items():
        error = got[near][::8] - exact
        assert np.sqrt(np.mean(error**2)) < 1e-3, name  # 6e-4 measured
        assert np.abs(error).max() < 3e-3, name  # 1.5e-3 measured, at the edge of the chord
    inverted = paraxial_intensity(x, pixel, sign=-1.0)["fresnel_propagate"][near][::8]
    assert np.sqrt(np.mean((inverted - exact) ** 2)) > 0.05
    exit_face = paraxial_intensity(x, pixel, back=RADIUS)["fresnel_propagate"][near][::8]
    middle = paraxial_intensity(x, pixel)["fresnel_propagate"][near][::8]
    # The plane stands at the axis: from the exit face the field is farther off.
    assert np.mean((exit_face - exact) ** 2) > 9 * np.mean((middle - exact) ** 2)
