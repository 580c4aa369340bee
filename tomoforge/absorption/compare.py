"""How far one set of absorption factors lies from another: truth against a segmentation's, say."""

from dataclasses import dataclass

import numpy as np

from tomoforge.errors import InputError


@dataclass(frozen=True)
class FactorComparison:
    """Differences of predicted from true absorption factors, relative to the true: ΔA/A.

    count : reflections; mean_absolute : mean |ΔA|/A; largest : greatest |ΔA|/A; mean_signed : mean ΔA/A;
    rms : √mean (ΔA/A)²; correlation : Pearson's between the two sets of A, NaN where either set is constant.

    Notes: scaling absorbs a common factor, so that ``relative_spread``, the standard deviation of ΔA/A, is
    what a data set suffers from; ``mean_signed`` tells how the absolute scale moves.
    """

    count: int
    mean_absolute: float
    largest: float
    mean_signed: float
    rms: float
    correlation: float

    @property
    def relative_spread(self) -> float:
        """Standard deviation of ΔA/A over the reflections (population, not sample)."""
        return float(np.sqrt(max(self.rms**2 - self.mean_signed**2, 0.0)))


def compare_factors(truth: np.ndarray, predicted: np.ndarray) -> FactorComparison:
    """Compare absorption factors of the same reflections in the same order.

    truth, predicted : (reflection,) float, 0 < A ≤ 1. Returns a FactorComparison.
    Raises InputError for empty or differing sizes and for values outside 0 < A ≤ 1.
    """
    true, guess = factor_pairs(truth, predicted)
    relative = guess / true - 1
    return FactorComparison(
        count=len(true),
        mean_absolute=float(np.abs(relative).mean()),
        largest=float(np.abs(relative).max()),
        mean_signed=float(relative.mean()),
        rms=float(np.sqrt(np.mean(relative**2))),
        correlation=_correlation(true, guess),
    )


def factor_pairs(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as (reflection,) float64. Raises InputError unless they match and lie in 0 < A ≤ 1."""
    true, guess = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if true.ndim != 1 or true.shape != guess.shape or true.size == 0:
        raise InputError(
            "truth and predicted must be equally long lists of absorption factors, got shapes "
            f"{true.shape} and {guess.shape}; were reflections rejected in only one?"
        )
    for name, values in (("truth", true), ("predicted", guess)):
        wrong = ~((values > 0) & (values <= 1))
        if wrong.any():
            raise InputError(
                f"{name} must lie in 0 < A ≤ 1, got {values[wrong][0]!r} at index {int(np.argmax(wrong))} "
                f"({int(wrong.sum())} of {len(values)}); is it 1/A?"
            )
    return true, guess


def _correlation(true: np.ndarray, guess: np.ndarray) -> float:
    a, b = true - true.mean(), guess - guess.mean()
    scale = np.sqrt(np.sum(a**2) * np.sum(b**2))
    # Equal numbers leave rounding behind when their mean is taken off.
    if np.ptp(true) == 0 or np.ptp(guess) == 0 or scale == 0:
        return float("nan")
    return float(np.sum(a * b) / scale)
