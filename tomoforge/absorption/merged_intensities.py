"""Means of symmetry equivalents, and what their standard deviations are."""

import numpy as np

from tomoforge.absorption.equivalents import Equivalents


def merged_intensities(
    equivalents: Equivalents, *, weighted: bool = True, sigma_definition: str = "propagated"
) -> tuple[np.ndarray, np.ndarray]:
    """Merged intensity and its σ of each unique reflection, (unique,) float64 each.

    weighted : by 1/σ², else equally; sigma_definition : see ``merging_statistics``. The scatter enters as
    variance of a weighted sample, s² = V₁/(V₁² − V₂) Σ w(I − ⟨I⟩)² with V₁ = Σw, V₂ = Σw².
    """
    weights = merging_weights(equivalents, weighted)
    v1 = equivalents.sums(weights)
    mean = equivalents.sums(weights * equivalents.intensity) / v1
    variance = equivalents.sums((weights * equivalents.sigma) ** 2) / v1**2
    if sigma_definition == "larger":
        scatter = equivalents.sums(weights * (equivalents.intensity - mean[equivalents.unique]) ** 2)
        freedom = v1**2 - equivalents.sums(weights**2)
        # Rounding leaves nothing where one observation has all the weight: then as if it were alone.
        several = (equivalents.count > 1) & (freedom > 1e-14 * v1**2)
        internal = np.where(several, v1 * scatter / np.where(several, freedom, 1.0) / equivalents.count, 0.0)
        variance = np.maximum(variance, internal)
    return mean, np.sqrt(variance)


def merging_weights(equivalents: Equivalents, weighted: bool) -> np.ndarray:
    """(observation,) float64: 1/σ², or ones."""
    return equivalents.sigma**-2.0 if weighted else np.ones(len(equivalents.sigma))
