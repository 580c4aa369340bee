"""A crystal in a loop with liquor, in µ [1/m], with fringes at edges and noise."""

import numpy as np
from scipy import ndimage

MU = np.array([0.0, 900.0, 600.0, 700.0])  # background, liquor, loop, crystal [1/m]


def phantom(seed: int, size: int, noise: float = 100.0) -> tuple[np.ndarray, np.ndarray]:
    """Volume (z, y, x) float32 [1/m] and labels (z, y, x) uint8 of a random sample; noise [1/m]."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 3, indexing="ij")
    shift, radius = rng.uniform(-0.1, 0.1, 3), rng.uniform(0.55, 0.75, 3)
    z, y, x = z - shift[0], y - shift[1], x - shift[2]
    labels = np.zeros((size,) * 3, dtype=np.uint8)
    labels[(z / radius[0]) ** 2 + (y / radius[1]) ** 2 + (x / radius[2]) ** 2 < 1] = 1
    ring = np.hypot(y, x) - 0.95 * radius[1]
    labels[ring**2 + z**2 < 0.11**2] = 2
    half = rng.uniform(0.2, 0.35, 3)
    turned = _rotation(rng) @ np.stack([z, y, x]).reshape(3, -1)
    labels[(np.abs(turned) < half[:, None]).all(axis=0).reshape(labels.shape)] = 3
    clean = ndimage.gaussian_filter(MU[labels], 0.7)
    fringes = -0.8 * ndimage.gaussian_laplace(MU[labels], 1.2)
    volume = clean + fringes + rng.normal(0, noise, labels.shape)
    return volume.astype(np.float32), labels


def _rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.diag(r))
