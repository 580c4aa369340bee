"""Pictures of absorption factors, as PNG bytes that are the same for the same numbers."""

import numpy as np
from matplotlib.figure import Figure

from tomoforge.absorption.compare import compare_factors, factor_pairs
from tomoforge.errors import InputError
from tomoforge.pictures import png_bytes

# Okabe–Ito blue and vermilion: told apart by people with any colour vision; one outlined, one filled.
_TRUTH, _PREDICTED = "#0072B2", "#D55E00"


def factor_histograms(
    truth: np.ndarray,
    predicted: np.ndarray,
    *,
    truth_name: str = "truth",
    predicted_name: str = "predicted",
    bins: int = 40,
) -> bytes:
    """Histograms of both sets of absorption factors, and of their relative difference.

    truth, predicted : (reflection,) float, 0 < A ≤ 1; the names go into the legend; bins : int.
    Returns PNG bytes. Raises InputError as ``compare_factors`` does, or for fewer than one bin.
    """
    true, guess = factor_pairs(truth, predicted)
    if bins < 1:
        raise InputError(f"bins must be at least 1, got {bins}")
    comparison = compare_factors(true, guess)
    figure = Figure(figsize=(9, 3.8), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)

    edges = _edges(np.concatenate([true, guess]), bins)
    left.hist(guess, edges, color=_PREDICTED, alpha=0.55, label=predicted_name)
    left.hist(true, edges, histtype="step", color=_TRUTH, linewidth=1.8, label=truth_name)
    left.set_xlabel("absorption factor A (fraction transmitted)")
    left.set_ylabel("reflections")
    left.set_title(f"{comparison.count} reflections", fontsize="medium")
    left.legend(frameon=False)

    percent = 100 * (guess / true - 1)
    right.hist(percent, _edges(percent, bins), color=_PREDICTED, alpha=0.55)
    right.axvline(0, color="black", linewidth=0.8)
    right.axvline(100 * comparison.mean_signed, color=_TRUTH, linestyle="--", linewidth=1.4)
    right.set_xlabel(f"({predicted_name} − {truth_name}) / {truth_name}  [%]")
    right.set_ylabel("reflections")
    right.set_title(
        f"mean |ΔA|/A {100 * comparison.mean_absolute:.3g} %, largest {100 * comparison.largest:.3g} %\n"
        f"mean {100 * comparison.mean_signed:+.3g} % (dashed), "
        f"spread {100 * comparison.relative_spread:.3g} %",
        fontsize="medium",
    )
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return png_bytes(figure)


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-3):  # all alike: a bin of visible width
        low, high = low - 0.05, high + 0.05
    return np.linspace(low, high, bins + 1)
