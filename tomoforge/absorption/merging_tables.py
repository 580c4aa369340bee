"""Merging statistics of several sources side by side: no correction, hand-made labels, a model's labels."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tomoforge.absorption.merging import MergingStatistics
from tomoforge.absorption.merging_definitions import COUNTS
from tomoforge.errors import InputError

# Rows of the table and how a paper prints them: (column, label, decimals).
ROWS = (
    ("d_max_angstrom", "Low resolution limit (Å)", 2),
    ("d_min_angstrom", "High resolution limit (Å)", 2),
    ("observations", "Observations", 0),
    ("unique", "Unique reflections", 0),
    ("completeness", "Completeness", 4),
    ("multiplicity", "Multiplicity", 2),
    ("i_over_sigma", "⟨I/σ(I)⟩", 2),
    ("r_merge", "Rmerge", 4),
    ("r_meas", "Rmeas", 4),
    ("r_pim", "Rpim", 4),
    ("cc_half", "CC½", 4),
    ("cc_half_sigma_tau", "CC½ (σ-τ)", 4),
    ("anomalous_completeness", "Anomalous completeness", 4),
    ("anomalous_multiplicity", "Anomalous multiplicity", 2),
    ("anomalous_cc", "Anomalous CC", 3),
    ("anomalous_slope", "Anomalous slope", 3),
    ("df_over_f", "dF/F", 4),
    ("di_over_sigma_di", "dI/s(dI)", 3),
)
LABELS = {column: label for column, label, _ in ROWS}


def compare_sources(sources: Mapping[str, MergingStatistics], *, shell: int | None = None) -> pd.DataFrame:
    """Statistics of several sources in columns, and how each differs from the first.

    Parameters
    ----------
    sources : name → statistics of the same reflections, the reference first
    shell : int | None, a shell from 1 (low resolution), negative from the outermost, None for overall

    Returns
    -------
    DataFrame indexed by the statistics of ``ROWS``; a column for each source, then for each but the first
    "name: relative difference", value/first − 1 (NaN where the first is 0 or unknown). ``attrs["caption"]``
    is the caption.

    Raises
    ------
    InputError
        for no source, sources merged by different definitions or symmetry, or a shell that is not there.
    """
    if not sources:
        raise InputError("sources must hold the statistics of at least one source, got none")
    _check_alike(sources)
    rows = [column for column, _, _ in ROWS]
    values = {name: _row(name, statistics, shell)[rows] for name, statistics in sources.items()}
    table = pd.DataFrame(values, index=pd.Index(rows, name="statistic"), dtype=np.float64)
    first, *others = sources
    reference = table[first].where(table[first] != 0)
    for name in others:
        table[difference_column(name)] = table[name] / reference - 1
    table.attrs["caption"] = table_caption(sources[first], shell=shell, reference=first if others else None)
    return table


def difference_column(name: str) -> str:
    """Name of the column with the relative difference of source ``name`` from the first."""
    return f"{name}: relative difference"


def table_caption(
    statistics: MergingStatistics, *, shell: int | None = None, reference: str | None = None
) -> str:
    """A caption that says what the numbers are and by which definitions."""
    d_max, d_min = _row("statistics", statistics, shell)[["d_max_angstrom", "d_min_angstrom"]]
    which = "overall" if shell is None else "one resolution shell"
    sentences = [
        f"Merging statistics, {which}, {d_max:.2f}–{d_min:.2f} Å, space group {statistics.space_group}.",
        f"⟨I/σ⟩: {statistics.definitions['i_over_sigma']}.",
        f"Rmeas: {statistics.definitions['r_meas']}.",
        f"CC½: {statistics.definitions['cc_half']}.",
        f"Slope: {statistics.definitions['anomalous_slope']}.",
    ]
    left_out = {reason: count for reason, count in statistics.rejected.items() if count}
    if left_out:
        listed = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in left_out.items())
        sentences.append(f"Observations left out: {listed}.")
    if reference is not None:
        sentences.append(f"Relative differences are from {reference!r}.")
    return " ".join(sentences)


def comparison_markdown(table: pd.DataFrame) -> str:
    """A table of ``compare_sources`` as Markdown, with the labels of a paper and differences in per cent."""
    lines = [
        "| | " + " | ".join(str(column) for column in table.columns) + " |",
        "|---|" + "---:|" * len(table.columns),
    ]
    for column, label, decimals in ROWS:
        cells = [_cell(table.at[column, name], str(name), column, decimals) for name in table.columns]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    caption = table.attrs.get("caption")
    return "\n".join([*lines, "", caption] if caption else lines) + "\n"


def _cell(value: float, name: str, column: str, decimals: int) -> str:
    if not np.isfinite(value):
        return "–"
    if name.endswith(": relative difference"):
        return f"{100 * value:+.2f} %"
    return f"{int(value)}" if column in COUNTS else f"{value:.{decimals}f}"


def _row(name: str, statistics: MergingStatistics, shell: int | None) -> pd.Series:
    if shell is None:
        return statistics.overall
    count = len(statistics.shells)
    if shell == 0 or abs(shell) > count:
        raise InputError(f"shell must be 1 to {count} or −1 to −{count} in source {name!r}, got {shell}")
    return statistics.shells.iloc[shell - 1 if shell > 0 else shell]


def _check_alike(sources: Mapping[str, MergingStatistics]) -> None:
    names = ("definition", "sigma_definition", "anomalous", "binning", "space_group")
    first, *others = sources
    for other in others:
        for name in names:
            expected, got = getattr(sources[first], name), getattr(sources[other], name)
            if expected != got:
                raise InputError(
                    f"sources must be merged alike, but {name} is {expected!r} for {first!r} and {got!r} for "
                    f"{other!r}"
                )
