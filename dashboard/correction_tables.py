"""The numbers behind a correction's page: merging statistics for reading, factors in bins, lines for a CIF."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

# Statistic → how a paper prints it, decimals, and whether more of it is better (+1), less of it (−1), or neither: the
# anomalous signal's size is not its quality, for errors add to it.
STATISTICS: Mapping[str, tuple[str, int, int]] = {
    "d_max_angstrom": ("Low resolution limit [Å]", 2, 0),
    "d_min_angstrom": ("High resolution limit [Å]", 2, 0),
    "observations": ("Observations", 0, 0),
    "unique": ("Unique reflections", 0, 0),
    "completeness": ("Completeness", 4, 1),
    "multiplicity": ("Multiplicity", 2, 1),
    "i_over_sigma": ("⟨I/σ(I)⟩", 2, 1),
    "r_merge": ("Rmerge", 4, -1),
    "r_meas": ("Rmeas", 4, -1),
    "r_pim": ("Rpim", 4, -1),
    "cc_half": ("CC½", 4, 1),
    "cc_half_sigma_tau": ("CC½ (σ-τ)", 4, 1),
    "anomalous_completeness": ("Anomalous completeness", 4, 1),
    "anomalous_multiplicity": ("Anomalous multiplicity", 2, 1),
    "anomalous_cc": ("Anomalous CC", 3, 1),
    "anomalous_slope": ("Anomalous slope", 3, 0),
    "df_over_f": ("dF/F", 4, 0),
    "di_over_sigma_di": ("dI/s(dI)", 3, 0),
}
SOURCES: Mapping[str, str] = {
    "truth": "true labels",
    "manual": "manual labels",
    "labels": "automatic labels",
    "not corrected": "uncorrected",
    "free of absorption": "free of absorption",
}
_DIFFERENCE = ": relative difference"
_SAME = 5e-4  # relative: less is no change for a reader


@dataclass(frozen=True)
class Change:
    """How a statistic differs from the reference's. relative : None where the reference's sign or zero gives a ratio no
    meaning; difference : of the values; better : +1, −1, or 0 for neither."""

    relative: float | None
    difference: float
    better: int

    @property
    def text(self) -> str:
        """With sign, number and word: colour alone tells nothing to some."""
        if not math.isfinite(self.difference):
            return "–"
        if self.difference == 0:
            return "no change"
        if self.relative is None:
            amount = f"{self.difference:+.3f}".replace("-", "−")
        else:
            amount = f"{100 * self.relative:+.2f} %".replace("-", "−")
        if self.better == 0:
            return amount
        return f"{'▲' if self.difference > 0 else '▼'} {amount} {'better' if self.better > 0 else 'worse'}"


def sources_of(merging: pd.DataFrame) -> list[str]:
    """The sources of labels in a merging table, in its order."""
    return [str(c) for c in merging.columns if c != "statistic" and not str(c).endswith(_DIFFERENCE)]


def source_word(source: str) -> str:
    """What a source is called for people."""
    return SOURCES.get(source, source)


def change(statistic: str, value: float, reference: float) -> Change:
    """How ``value`` differs from ``reference``, and whether that is good."""
    difference = value - reference
    relative = difference / reference if reference > 0 and value >= 0 else None
    sense = STATISTICS.get(statistic, ("", 0, 0))[2]
    small = abs(relative) < _SAME if relative is not None else abs(difference) < _SAME
    better = 0 if small or not math.isfinite(difference) else sense * (1 if difference > 0 else -1)
    return Change(relative, difference, better)


def readable_merging(merging: pd.DataFrame, reference: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The merging table as text, and beside it which cells are better (+1) or worse (−1) than the ``reference``'s.

    Columns: statistic, a source's value, and its change (Δ) after each but the reference's; one row each statistic.
    """
    others = [source for source in sources_of(merging) if source != reference]
    rows, marks = [], []
    for record in merging.to_dict("records"):
        name = str(record["statistic"])
        text, decimals, _ = STATISTICS.get(name, (name, 4, 0))
        row: dict[str, str] = {"Statistic": text, _head(reference): _value(record[reference], decimals)}
        mark = dict.fromkeys(row, 0)
        for source in others:
            value = _value(record[source], decimals)
            found = change(name, _number(record[source]), _number(record[reference]))
            row |= {_head(source): value, f"Δ {_head(source)}": found.text}
            mark |= {_head(source): 0, f"Δ {_head(source)}": found.better}
        rows.append(row)
        marks.append(mark)
    return pd.DataFrame(rows), pd.DataFrame(marks)


def _head(source: str) -> str:
    """The head of a column."""
    word = source_word(source).removesuffix(" labels")
    return word[:1].upper() + word[1:]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _value(value: Any, decimals: int) -> str:
    number = _number(value)
    if not math.isfinite(number):
        return "–"
    return f"{number:.{decimals}f}".replace("-", "−")


# --- factors --------------------------------------------------------------------------------------------


def histogram_table(values: Mapping[str, np.ndarray], bins: int = 40) -> pd.DataFrame:
    """Reflections in bins of A, the same for all sources: set, low, high, reflections."""
    finite = {name: array[np.isfinite(array)] for name, array in values.items()}
    kept = {name: array for name, array in finite.items() if array.size}
    if not kept:
        return pd.DataFrame(columns=["set", "low", "high", "reflections"])
    low = min(float(array.min()) for array in kept.values())
    high = max(float(array.max()) for array in kept.values())
    if high <= low:
        high = low + 1e-6
    edges = np.linspace(low, high, bins + 1)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "set": source_word(name),
                    "low": edges[:-1],
                    "high": edges[1:],
                    "reflections": np.histogram(array, edges)[0],
                }
            )
            for name, array in kept.items()
        ],
        ignore_index=True,
    )


def binned(
    where: np.ndarray, values: Mapping[str, np.ndarray], edges: np.ndarray, errors: np.ndarray | None = None
) -> pd.DataFrame:
    """Mean A, the 10 and 90 % percentiles and the mean standard error in bins of ``where``: a row each source and bin
    with reflections in it."""
    bin_of = np.clip(np.digitize(where, edges) - 1, 0, len(edges) - 2)
    rows = []
    for name, array in values.items():
        for number in np.unique(bin_of):
            inside = (bin_of == number) & np.isfinite(array)
            if not inside.any():
                continue
            low, high = np.percentile(array[inside], [10, 90])
            rows.append(
                {
                    "set": source_word(name),
                    "middle": float(0.5 * (edges[number] + edges[number + 1])),
                    "mean": float(array[inside].mean()),
                    "low": float(low),
                    "high": float(high),
                    "reflections": int(inside.sum()),
                    "standard_error": float(np.mean(errors[inside])) if errors is not None else math.nan,
                }
            )
    columns = ["set", "middle", "mean", "low", "high", "reflections", "standard_error"]
    return pd.DataFrame(rows, columns=columns)


def rotation_edges(rotation_deg: np.ndarray, most: int = 90) -> np.ndarray:
    """Wedges of whole degrees, wide enough for ten reflections each in the mean."""
    low, high = float(np.floor(rotation_deg.min())), float(np.ceil(rotation_deg.max()))
    span = max(high - low, 1.0)
    width = max(1.0, math.ceil(span / most), math.ceil(span * 10 / max(rotation_deg.size, 1)))
    return np.arange(low, high + width, width)


def shell_edges(spacing_angstrom: np.ndarray, shells: int = 20) -> np.ndarray:
    """Edges of shells in 1/d² [1/Å²] with alike many reflections each."""
    inverse = 1.0 / np.square(spacing_angstrom)
    edges = np.unique(np.quantile(inverse, np.linspace(0, 1, min(shells, max(inverse.size // 10, 1)) + 1)))
    return edges if edges.size > 1 else np.array([edges[0], edges[0] + 1e-9])


# --- for the CIF ----------------------------------------------------------------------------------------


def cif_lines(smallest: float, largest: float, mu_crystal_per_m: float | None) -> str:
    """What a CIF says of the correction (IUCr core dictionary, category EXPTL_ABSORPT).

    Type "numerical": the dictionary has "analytical" for the exact integral over a shape with plane faces, "numerical"
    for sums over a shape, which tracing rays through voxels is.
    """
    lines = []
    if mu_crystal_per_m is not None and math.isfinite(mu_crystal_per_m):
        lines.append(f"_exptl_absorpt_coefficient_mu     {mu_crystal_per_m / 1000:.3f}")
    lines += [
        "_exptl_absorpt_correction_type    numerical",
        f"_exptl_absorpt_correction_T_min   {smallest:.4f}",
        f"_exptl_absorpt_correction_T_max   {largest:.4f}",
        "_exptl_absorpt_process_details    'tomoforge: ray-traced through a labelled tomogram'",
    ]
    return "\n".join(lines) + "\n"


def error_parts(factors: pd.DataFrame) -> dict[str, float]:
    """Median of each part of the standard error, in percent of A; NaN for a part that nobody gave."""
    parts: Sequence[tuple[str, str]] = (
        ("all together", "standard_error"),
        ("sampling of the crystal", "sampling_error"),
        ("µ", "mu_error"),
        ("labels", "segmentation_error"),
    )
    a = factors["absorption_factor"].to_numpy(dtype=float)
    found = {}
    for word, column in parts:
        relative = (
            100 * factors[column].to_numpy(dtype=float) / a if column in factors else np.full(a.size, np.nan)
        )
        known = relative[np.isfinite(relative)]
        found[word] = float(np.median(known)) if known.size else math.nan
    return found
