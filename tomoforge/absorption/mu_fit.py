"""Robust fit of −ln T = Σ µ_m L_m through the origin, with intervals that neighbours do not make too narrow.

References: P. J. Huber, E. M. Ronchetti, Robust Statistics, 2nd ed. (2009), §7; A. E. Beaton, J. W. Tukey,
Technometrics 16 (1974) 147–185 (biweight); A. C. Davison, D. V. Hinkley, Bootstrap Methods (1997), §3.8 (blocks).
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from tomoforge.errors import InputError
from tomoforge.seeds import component_rng

# Tukey's biweight at 95 % efficiency for normal errors. It drops far outliers altogether, where Huber's weights
# leave 2 % of one-sided ones to shift µ by two standard errors of 5000 rays.
_BIWEIGHT = 4.685
_HUBER = 1.345  # only to start from: it has one minimum
_STEPS = 60
_REPLICATES = 600
# Rays darker than this carry little and their logarithms are far from normal. They are chosen by the fitted
# transmission: by the measured one, the lucky would be kept.
_DARKEST = 0.02
FEWEST_BLOCKS = 6


@dataclass(frozen=True)
class RobustFit:
    """µ of each column and what is known of it.

    mu : (column,) float64 [1/m]; covariance : (column, column) [1/m²]; low, high : (column,) float64, 95 %;
    residuals : (ray,) float64, of −ln T in units of the ray's own standard deviation; outliers : (ray,) bool,
    without any weight; condition_number : float, of the design with columns of unit length.
    """

    mu: np.ndarray
    covariance: np.ndarray
    low: np.ndarray
    high: np.ndarray
    residuals: np.ndarray
    outliers: np.ndarray
    condition_number: float


def robust_fit(
    lengths: np.ndarray, line_integrals: np.ndarray, blocks: tuple[np.ndarray, ...], *, seed: int = 0
) -> RobustFit:
    """Fit µ by iterated weights, Tukey's for outliers and the transmission for photon noise.

    Parameters
    ----------
    lengths : (ray, column) float64 [m]
    line_integrals : (ray,) float64, −ln T
    blocks : one or more (ray,) int partitions of the rays into blocks that are drawn whole: rays of one block
        may share errors. Of several partitions the one that spreads the solution most is taken.
    seed : int, of the bootstrap

    Returns
    -------
    RobustFit

    Raises
    ------
    InputError
        for fewer rays than ten a column, a design that leaves a column undetermined, fewer than 6 blocks.

    Notes
    -----
    var(−ln T) ∝ 1/T as for counted photons; σ comes from the median residual, so the counts need not be known.
    E(−ln T) lies var/2 above the logarithm of the mean and that is taken off. The bootstrap redraws blocks and
    takes one Newton step from the fit for each draw, with ψ′ and not the weights in the Hessian: weights alone
    would give intervals a sixth too narrow. The interval is Student's with as many degrees of freedom as blocks
    less one: percentiles of few blocks of unequal weight lean to one side.
    """
    design, values = np.asarray(lengths, dtype=np.float64), np.asarray(line_integrals, dtype=np.float64)
    count, columns = design.shape
    if count < 10 * columns:
        raise InputError(f"a fit of {columns} materials must have {10 * columns} rays or more, got {count}")
    unit = np.linalg.norm(design, axis=0)
    if np.any(unit == 0):
        raise InputError(f"rays must cross every material, column {int(np.argmin(unit))} is never crossed")
    # In units of each column's root mean square: µL of order 1 and a condition number that means something.
    size = unit / np.sqrt(count)
    scaled = design / size
    condition = float(np.linalg.cond(scaled))
    if not condition < 1e8:
        raise InputError(
            f"materials cannot be told apart: the design has condition number {condition:.3g}; they are crossed "
            "in the same proportions by every ray"
        )
    solution, sigma, transmission, unbiased = _iterate(scaled, values)
    deviation = sigma / np.sqrt(transmission)
    residuals = (unbiased - scaled @ solution) / deviation
    bright = transmission >= _DARKEST
    outliers = bright & (np.abs(residuals) >= _BIWEIGHT)
    weight = bright / deviation
    score = scaled * (_psi(residuals) * weight)[:, None]
    slope = _psi_slope(residuals) * weight**2
    if not blocks:
        raise InputError("blocks must hold at least one partition of the rays")
    tries = [
        _block_spread(scaled, score, slope, partition, component_rng(seed, "mu.bootstrap", number))
        for number, partition in enumerate(blocks)
    ]
    covariance, freedom = max(tries, key=lambda found: float(np.trace(found[0])))
    reach = student_t.ppf(0.975, freedom) * np.sqrt(np.diag(covariance))
    return RobustFit(
        mu=solution / size,
        covariance=covariance / np.outer(size, size),
        low=(solution - reach) / size,
        high=(solution + reach) / size,
        residuals=residuals,
        outliers=outliers,
        condition_number=condition,
    )


def _iterate(design: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Solution, σ at T = 1, fitted transmission and line integrals freed of the logarithm's bias."""
    solution = np.linalg.lstsq(design, values, rcond=None)[0]
    unbiased = values
    sigma = 0.0
    for step in range(2 * _STEPS):
        start = step < _STEPS // 2
        # Not brighter than air, else a wild start gives a ray all the weight.
        transmission = np.exp(-np.clip(design @ solution, 0.0, 50.0))
        bright = transmission >= _DARKEST
        if bright.sum() < 2 * design.shape[1]:
            raise InputError(
                f"rays must transmit {_DARKEST:.0%} or more to be fitted, {int(bright.sum())} of {len(values)} "
                "do; take a higher energy or thinner parts"
            )
        residual = (unbiased - design @ solution) * np.sqrt(transmission)
        sigma = 1.4826 * float(np.median(np.abs(residual[bright])))
        if sigma <= 1e-12 * max(float(np.abs(values).max()), 1e-300):
            return solution, max(sigma, 1e-15), transmission, unbiased  # no noise at all
        unbiased = values - sigma**2 / (2 * transmission)
        size = np.abs(residual) / sigma
        outer = np.minimum(1, _HUBER / np.maximum(size, _HUBER)) if start else _biweight(size)
        root = np.sqrt(outer * transmission * bright)
        new = np.linalg.lstsq(design * root[:, None], unbiased * root, rcond=None)[0]
        small = np.abs(new - solution).max() <= 1e-10 * max(np.abs(new).max(), 1e-300)
        solution = new
        if small and not start:
            break
    return solution, sigma, transmission, unbiased


def _biweight(size: np.ndarray) -> np.ndarray:
    return np.where(size < _BIWEIGHT, (1 - (size / _BIWEIGHT) ** 2) ** 2, 0.0)


def _psi(residual: np.ndarray) -> np.ndarray:
    return residual * _biweight(np.abs(residual))


def _psi_slope(residual: np.ndarray) -> np.ndarray:
    ratio = (residual / _BIWEIGHT) ** 2
    return np.where(ratio < 1, (1 - ratio) * (1 - 5 * ratio), 0.0)


def _block_spread(
    design: np.ndarray, score: np.ndarray, slope: np.ndarray, partition: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Covariance of the solution (column, column) when blocks are drawn with replacement, and blocks − 1."""
    _, block = np.unique(partition, return_inverse=True)
    block = block.reshape(-1)
    count, columns = int(block.max()) + 1, design.shape[1]
    if count < FEWEST_BLOCKS:
        raise InputError(
            f"rays must come from {FEWEST_BLOCKS} blocks or more for an interval, got {count}; take more "
            "projections or a wider region"
        )
    scores = np.stack([np.bincount(block, score[:, i], count) for i in range(columns)], axis=1)
    hessians = np.empty((count, columns, columns))
    for i in range(columns):
        for j in range(columns):
            hessians[:, i, j] = np.bincount(block, slope * design[:, i] * design[:, j], count)
    drawn = rng.multinomial(count, np.full(count, 1 / count), _REPLICATES).astype(np.float64)
    left = np.einsum("rb,bij->rij", drawn, hessians)
    right = (drawn @ scores)[..., None]
    # A draw may miss the few blocks that cross a material: the whole set's Hessian then says more.
    weak = np.linalg.cond(left) > 1e10
    left[weak] = hessians.sum(axis=0)
    return np.atleast_2d(np.cov(np.linalg.solve(left, right)[..., 0].T)), count - 1
