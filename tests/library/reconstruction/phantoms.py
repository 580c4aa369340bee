"""Analytic discs: their exact line integrals and their images, written apart from the library."""

import numpy as np

# (x, y, radius, value), in units of half the detector width
DISCS = [
    (0, 0, 0.9, 1.0),
    (0.3, 0.2, 0.2, 0.5),
    (-0.35, 0.1, 0.15, -0.6),
    (0.1, -0.45, 0.12, 0.8),
    (-0.2, -0.3, 0.05, 1.0),
]


def disc_sinogram(
    n: int, angles: np.ndarray, centre: float, discs: list[tuple[float, float, float, float]], fine: int = 8
) -> np.ndarray:
    """(angle, x) float32 line integrals of discs (x, y, radius, value) [pixels], averaged over each pixel.

    u = x cos θ + y sin θ, column = centre + u; the chord of a disc is 2 √(R² − (s − u)²).
    """
    s = (np.arange(n * fine) + 0.5) / fine - 0.5 - centre
    total = np.zeros((angles.size, n * fine))
    for x, y, radius, value in discs:
        t = s - (x * np.cos(angles) + y * np.sin(angles))[:, np.newaxis]
        total += value * 2 * np.sqrt(np.maximum(radius**2 - t**2, 0))
    return total.reshape(angles.size, n, fine).mean(axis=2).astype(np.float32)


def disc_image(n: int, discs: list[tuple[float, float, float, float]], fine: int = 4) -> np.ndarray:
    """(y, x) float64 image of the same discs about the middle of an n × n grid, averaged over each pixel."""
    axis = (np.arange(n * fine) + 0.5) / fine - 0.5 - (n - 1) / 2
    x_grid, y_grid = np.meshgrid(axis, axis)
    image = np.zeros((n * fine, n * fine))
    for x, y, radius, value in discs:
        image += value * ((x_grid - x) ** 2 + (y_grid - y) ** 2 < radius**2)
    return image.reshape(n, fine, n, fine).mean(axis=(1, 3))


def scaled_discs(n: int) -> list[tuple[float, float, float, float]]:
    """``DISCS`` in pixels of an n-column detector."""
    return [(x * n / 2, y * n / 2, radius * n / 2, value) for x, y, radius, value in DISCS]


def within(n: int, x: float, y: float, radius: float) -> np.ndarray:
    """(y, x) bool: pixels of the n × n grid nearer than ``radius`` to (x, y) [pixels]."""
    axis = np.arange(n) - (n - 1) / 2
    return (axis - x) ** 2 + (axis[:, np.newaxis] - y) ** 2 < radius**2
