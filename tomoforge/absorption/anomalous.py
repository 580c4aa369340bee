"""Statistics of the anomalous signal: how Friedel mates I(+) and I(−) differ.

As iotbx and with it DIALS define them (cctbx.miller.array: anomalous_signal, anomalous_probability_plot,
anomalous_differences, half_dataset_anomalous_correlation, r_anom); centric reflections have no mates.

References: P. L. Howell & G. D. Smith, J. Appl. Cryst. 25 (1992) 81–86 (normal probability of differences).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from tomoforge.absorption.equivalents import Equivalents
from tomoforge.absorption.half_sets import correlation

# Middle of the normal probability plot over which its slope is fitted: tails are outliers.
MIDDLE = 0.9


@dataclass(frozen=True)
class FriedelPairs:
    """Unique reflections of which both mates were measured.

    plus, minus : (pair,) int64, places among the unique reflections of the ``Equivalents``.
    """

    plus: np.ndarray
    minus: np.ndarray

    def __len__(self) -> int:
        return len(self.plus)

    def select(self, mask: np.ndarray) -> "FriedelPairs":
        """The pairs where ``mask`` (pair,) is true."""
        return FriedelPairs(self.plus[mask], self.minus[mask])

    def difference(self, values: np.ndarray) -> np.ndarray:
        """(pair,) of values(+) − values(−), from values (unique,)."""
        return values[self.plus] - values[self.minus]


def friedel_pairs(equivalents: Equivalents) -> FriedelPairs:
    """Pairs among reflections sorted with mates kept apart, which makes mates neighbours."""
    same = (equivalents.hkl[1:] == equivalents.hkl[:-1]).all(axis=1)
    first = np.flatnonzero(same)
    first_is_plus = equivalents.sign[first] > 0
    return FriedelPairs(
        plus=np.where(first_is_plus, first, first + 1), minus=np.where(first_is_plus, first + 1, first)
    )


def anomalous_signal(pairs: FriedelPairs, intensity: np.ndarray) -> float:
    """dF/F = √(2⟨(F⁺ − F⁻)²⟩ / ⟨F⁺² + F⁻²⟩) over pairs with both intensities positive, F = √I."""
    plus, minus = intensity[pairs.plus], intensity[pairs.minus]
    positive = (plus > 0) & (minus > 0)
    plus, minus = plus[positive], minus[positive]
    if len(plus) == 0:
        return float("nan")
    squared = np.mean((np.sqrt(plus) - np.sqrt(minus)) ** 2)
    return float(np.sqrt(2 * squared / np.mean(plus + minus)))


def mean_difference_over_sigma(pairs: FriedelPairs, intensity: np.ndarray, sigma: np.ndarray) -> float:
    """dI/s(dI) = mean |ΔI| / mean σ(ΔI), a ratio of means."""
    if len(pairs) == 0:
        return float("nan")
    return float(np.abs(pairs.difference(intensity)).mean() / _sigma_of_difference(pairs, sigma).mean())


def normal_probability_slope(pairs: FriedelPairs, intensity: np.ndarray, sigma: np.ndarray) -> float:
    """Slope of the normal probability plot of ΔI/σ(ΔI) where the expected |x| < 0.9; 1 is noise alone.

    NaN for fewer than three points.
    """
    ranked = np.sort(pairs.difference(intensity) / _sigma_of_difference(pairs, sigma))
    expected = ndtri((np.arange(len(ranked)) + 0.5) / max(len(ranked), 1))
    middle = np.abs(expected) < MIDDLE
    if np.count_nonzero(middle) < 3:
        return float("nan")
    x, y = expected[middle], ranked[middle]
    return float(np.sum((x - x.mean()) * (y - y.mean())) / np.sum((x - x.mean()) ** 2))


def difference_ratio(pairs: FriedelPairs, intensity: np.ndarray, sigma: np.ndarray) -> float:
    """R(anom) = Σ|I⁺ − I⁻| / Σ|⟨I⟩|, ⟨I⟩ the mean of both mates weighted by 1/σ²."""
    weight = sigma**-2.0
    plus, minus = weight[pairs.plus], weight[pairs.minus]
    mean = (plus * intensity[pairs.plus] + minus * intensity[pairs.minus]) / (plus + minus)
    total = np.abs(mean).sum()
    return float(np.abs(pairs.difference(intensity)).sum() / total) if total > 0 else float("nan")


def anomalous_correlation(pairs: FriedelPairs, one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of ΔI between half sets: one, other (unique,) mean intensities of the halves."""
    return correlation(pairs.difference(one), pairs.difference(other))


def _sigma_of_difference(pairs: FriedelPairs, sigma: np.ndarray) -> np.ndarray:
    return np.hypot(sigma[pairs.plus], sigma[pairs.minus])
