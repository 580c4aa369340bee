"""Correlation between random halves of the observations of each unique reflection.

References: P. A. Karplus & K. Diederichs, Science 336 (2012) 1030–1033 (CC½ by half data sets);
G. Assmann, W. Brehm & K. Diederichs, J. Appl. Cryst. 49 (2016) 1021–1028 (without halves: σ-τ).
"""

import numpy as np

from tomoforge.absorption.equivalents import Equivalents
from tomoforge.seeds import component_rng


def random_halves(equivalents: Equivalents, seed: int, draw: int = 0) -> np.ndarray:
    """Draw half of the observations of each unique reflection; of an odd number, the larger part by a coin.

    Returns (observation,) bool in the order of ``equivalents``: True for the first half.
    """
    rng = component_rng(seed, "half sets", draw)
    order = np.argsort(equivalents.unique + rng.random(len(equivalents.unique)))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - equivalents.start[equivalents.unique[order]]
    coin = rng.integers(2, size=len(equivalents.count))
    first = (equivalents.count + coin) // 2  # the coin counts for odd numbers only
    return place < first[equivalents.unique]


def half_set_means(
    equivalents: Equivalents, first: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean intensities of both halves of each unique reflection.

    first : (observation,) bool, weights : (observation,) float64. Returns two (unique,) float64, NaN where a
    half is empty.
    """
    return _part_mean(equivalents, first, weights), _part_mean(equivalents, ~first, weights)


def _part_mean(equivalents: Equivalents, part: np.ndarray, weights: np.ndarray) -> np.ndarray:
    taken = np.where(part, weights, 0.0)
    total = equivalents.sums(taken)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, equivalents.sums(taken * equivalents.intensity) / total, np.nan)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's correlation of the finite pairs; NaN for fewer than three or where either is constant."""
    finite = np.isfinite(one) & np.isfinite(other)
    a, b = one[finite], other[finite]
    if len(a) < 3:
        return float("nan")
    # Equal numbers leave rounding behind when their mean is taken off.
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float(np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2)))
