"""The point spread of a detector from one straight edge, slanted or not."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.special import ndtr

from tomoforge.errors import InputError


@dataclass(frozen=True)
class EdgeSpread:
    """What an edge tells: sigma, error : of the Gaussian point spread, pixel integration apart [pixels];
    slope : of the edge [pixels a row or column]; misfit : rms over positions of what the fit leaves, over the step.
    """

    sigma: float
    error: float
    slope: float
    misfit: float


def _integrated_edge(position: np.ndarray, sigma: float) -> np.ndarray:
    """A blurred unit step averaged over a pixel centred at ``position`` [pixels]."""

    def antiderivative(t: np.ndarray) -> np.ndarray:
        z = t / sigma
        return t * ndtr(z) + sigma * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)

    return antiderivative(position + 0.5) - antiderivative(position - 0.5)


def fit_edge_spread(image: np.ndarray) -> EdgeSpread:
    """Fit a blurred step to an image of one edge.

    image : (y, x) real, flat-corrected, with a single edge that runs roughly along rows or along columns.

    Raises InputError if the image is too small, not finite or has no edge.

    Notes: sharp on the scale of a pixel and without fringes: an opaque or strongly absorbing edge in contact with
    the detector. A misfit above a few per cent says that the edge is no such thing, and sigma then means nothing.
    """
    image = np.asarray(image, dtype=np.float64)
    if image.ndim != 2 or min(image.shape) < 8:
        raise InputError(f"edge must be an image (y, x) of at least 8 x 8 pixels, got {image.shape}")
    if not np.all(np.isfinite(image)):
        raise InputError("edge must be finite, got NaN or Inf; crop it to pixels that work")
    if np.ptp(image.mean(axis=1)) > np.ptp(image.mean(axis=0)):
        image = image.T
    start = _first_guess(image)
    rows, columns = image.shape
    x, y = np.arange(columns)[None, :], (np.arange(rows) - (rows - 1) / 2)[:, None]

    def misfit(parameters: np.ndarray) -> np.ndarray:
        low, step, x0, slope, sigma = parameters
        # Along a row the blur is wider by the slant, and the pixel's height adds a little.
        along = np.sqrt(sigma**2 * (1 + slope**2) + slope**2 / 12)
        return (low + step * _integrated_edge(x - x0 - slope * y, max(along, 1e-3)) - image).ravel()

    low, high = [-np.inf, -np.inf, 0, -1, 1e-3], [np.inf, np.inf, columns - 1, 1, columns]
    fit = least_squares(misfit, start, bounds=(low, high), x_scale=np.maximum(np.abs(start), 0.05))
    rest = fit.fun.reshape(image.shape)
    step = fit.x[1]
    if not abs(step) > 5 * np.std(rest) / np.sqrt(rows):
        raise InputError(
            "edge must hold a step well above its noise, got none; crop the image around one edge"
        )
    covariance = np.linalg.pinv(fit.jac.T @ fit.jac) * np.mean(fit.fun**2)
    # Residuals along the edge average to what the model cannot follow: fringes, tails, a second edge.
    column = np.rint(x - fit.x[2] - fit.x[3] * y).astype(int)
    column -= column.min()
    members = np.bincount(column.ravel())
    mean = np.bincount(column.ravel(), rest.ravel()) / np.maximum(members, 1)
    full = members >= rows / 2
    systematic = np.mean(mean[full] ** 2) - np.mean(fit.fun**2) / rows
    return EdgeSpread(
        float(fit.x[4]),
        float(np.sqrt(covariance[4, 4])),
        float(fit.x[3]),
        float(np.sqrt(max(systematic, 0)) / abs(step)),
    )


def _first_guess(image: np.ndarray) -> np.ndarray:
    """low, step, position, slope, sigma: (5,)."""
    rows, columns = image.shape
    side = max(columns // 6, 1)
    low, high = float(np.median(image[:, :side])), float(np.median(image[:, -side:]))
    if high == low:
        raise InputError("edge must hold a step, but both sides of the image have the same level")
    share = np.clip((image - low) / (high - low), 0, 1)
    # The area under each row of a step from 0 to 1 says where it is.
    crossing = columns - 0.5 - share.sum(axis=1)
    slope, _ = np.polyfit(np.arange(rows) - (rows - 1) / 2, crossing, 1)
    return np.array(
        [low, high - low, np.clip(crossing.mean(), 1, columns - 2), np.clip(slope, -0.9, 0.9), 1.0]
    )
