"""µ from composition, projections and volume side by side, with a sentence where they disagree.

Where they differ something is wrong with one of them, and to know that is worth more than any of the three.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tomoforge.absorption.mu_measurement import COMPOSITION, MuEstimate
from tomoforge.errors import InputError


def compare_mu(
    estimates: Mapping[str, Mapping[int, MuEstimate]],
    *,
    names: Mapping[int, str] | None = None,
    tolerance_percent: float = 1.0,
) -> pd.DataFrame:
    """Every pair of sources of µ beside each other, with a sentence where they disagree.

    Parameters
    ----------
    estimates : source → label → MuEstimate; the order of sources is kept
    names : label → name for the sentences
    tolerance_percent : float, smaller differences never warn, however many standard errors they are

    Returns
    -------
    DataFrame, a row for each label and pair of sources that both have it: label, material, source, reference, mu,
    mu_reference [1/m], difference_percent (of the reference), difference_sigma (NaN where neither has an error),
    agrees (bool), warning (str, empty where they agree and nothing is noted)

    Raises
    ------
    InputError
        for fewer than two sources.
    """
    if len(estimates) < 2:
        raise InputError(f"estimates must come from two sources or more, got {list(estimates)}")
    sources = list(estimates)
    rows = []
    for label in sorted({label for found in estimates.values() for label in found}):
        material = (names or {}).get(label, f"label {label}")
        for second, one in enumerate(sources):
            for other in sources[second + 1 :]:
                if label in estimates[one] and label in estimates[other]:
                    rows.append(
                        _compared(
                            material,
                            one,
                            other,
                            estimates[one][label],
                            estimates[other][label],
                            tolerance_percent,
                        )
                    )
    columns = (
        "label", "material", "source", "reference", "mu", "mu_reference", "difference_percent",
        "difference_sigma", "agrees", "warning",
    )  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _compared(
    material: str, one: str, other: str, reference: MuEstimate, found: MuEstimate, tolerance: float
) -> tuple[object, ...]:
    difference = found.mu - reference.mu
    percent = 100 * difference / reference.mu if reference.mu else np.nan
    error = float(np.hypot(found.standard_error, reference.standard_error))
    sigma = difference / error if error > 0 else np.nan
    # Without any error given, the tolerance alone decides.
    agrees = bool(abs(percent) <= tolerance or abs(sigma) <= 3)
    sentences = []
    if not agrees:
        certainty = f"{abs(sigma):.1f} standard errors" if np.isfinite(sigma) else "no errors are known"
        sentences.append(
            f"µ of {material} from {other} is {abs(percent):.1f} % {'above' if difference > 0 else 'below'} that "
            f"from {one} ({certainty})."
        )
        sentences.append(_suspicion(one, other))
    sentences += [f"{note[0].upper()}{note[1:]}." for note in dict.fromkeys(reference.notes + found.notes)]
    return (
        found.label, material, other, one, found.mu, reference.mu, percent, sigma, agrees, " ".join(sentences),
    )  # fmt: skip


def _suspicion(one: str, other: str) -> str:
    if COMPOSITION in (one, other):
        return "The recipe, the density or the energy may be wrong, or the measured values carry an offset."
    return (
        "Both are measured: look for phase fringes, an offset of the background, ring artefacts, or labels that "
        "do not fit the scan."
    )
