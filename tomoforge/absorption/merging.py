"""Merging statistics of unmerged reflections, overall and in resolution shells, each by a named definition.

R values and the σ-τ CC½ come from gemmi; completeness counts, I/σ and the anomalous statistics follow iotbx
(``iotbx.merging_statistics``), which DIALS and xia2 report.

References: K. Diederichs & P. A. Karplus, Nat. Struct. Biol. 4 (1997) 269–275 (Rmeas); M. S. Weiss, J. Appl.
Cryst. 34 (2001) 130–135 (Rpim); P. A. Karplus & K. Diederichs, Science 336 (2012) 1030–1033 (CC½); G. Assmann,
W. Brehm & K. Diederichs, J. Appl. Cryst. 49 (2016) 1021–1028 (σ-τ).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import gemmi
import numpy as np
import pandas as pd

from tomoforge.absorption import anomalous as friedel
from tomoforge.absorption.equivalents import (
    AcceptedObservations,
    Equivalents,
    accept_observations,
    gemmi_intensities,
    group_equivalents,
)
from tomoforge.absorption.half_sets import correlation, half_set_means, random_halves
from tomoforge.absorption.merged_intensities import merged_intensities, merging_weights
from tomoforge.absorption.merging_definitions import (
    COLUMNS,
    COUNTS,
    DEFINITIONS,
    SIGMA_DEFINITIONS,
    describe,
)
from tomoforge.absorption.merging_shells import (
    PossibleReflections,
    Shells,
    possible_reflections,
    resolution_shells,
)
from tomoforge.errors import InputError


@dataclass(frozen=True)
class MergingStatistics:
    """Statistics of one data set.

    overall : Series over ``merging_definitions.COLUMNS``; shells : DataFrame of the same columns, a row for
    each shell, numbered from 1 at low resolution; NaN where nothing can be said. definitions : what each
    column is, in words; rejected : rows of the table left out, by reason; definition, sigma_definition,
    anomalous, binning : as asked for; space_group : Hermann–Mauguin symbol; cell : a, b, c [Å], α, β, γ
    [degrees].
    """

    overall: pd.Series
    shells: pd.DataFrame
    definitions: Mapping[str, str]
    rejected: Mapping[str, int]
    definition: str
    sigma_definition: str
    anomalous: bool
    binning: str
    space_group: str
    cell: tuple[float, ...]

    def as_table(self) -> pd.DataFrame:
        """Shells and, as the last row, the overall statistics."""
        overall = self.overall.to_frame().T
        overall.index = pd.Index(["overall"])
        table = pd.concat([self.shells.set_axis([str(n) for n in self.shells.index]), overall])
        return table.astype(dict.fromkeys(COUNTS, "int64"))

    def as_dict(self) -> dict[str, Any]:
        """All of it in plain types for JSON, None for what is not a number."""
        rows = {name: _plain(row) for name, row in self.as_table().iterrows()}
        return {
            "overall": rows.pop("overall"),
            "shells": list(rows.values()),
            "definitions": dict(self.definitions),
            "rejected": dict(self.rejected),
            "definition": self.definition,
            "sigma_definition": self.sigma_definition,
            "anomalous": self.anomalous,
            "binning": self.binning,
            "space_group": self.space_group,
            "cell": list(self.cell),
        }


def merging_statistics(
    table: pd.DataFrame,
    cell: Sequence[float] | gemmi.UnitCell,
    space_group: str | gemmi.SpaceGroup,
    *,
    anomalous: bool = False,
    corrected: bool = False,
    definition: str = "aimless",
    sigma_definition: str = "propagated",
    shells: int = 10,
    binning: str = "volume",
    d_max_angstrom: float | None = None,
    d_min_angstrom: float | None = None,
    half_set_draws: int = 5,
    seed: int = 0,
) -> MergingStatistics:
    """Merge symmetry equivalents and say how well they agree.

    Parameters
    ----------
    table : a row for each observation: h, k, l (whole numbers, as observed or reduced), intensity, sigma
        (scaled to each other: nothing is scaled here); absorption_factor where ``corrected``
    cell : a, b, c in Å, α, β, γ in degrees
    space_group : Hermann–Mauguin symbol or gemmi.SpaceGroup
    anomalous : bool, keep Friedel mates apart in counts, R values, I/σ and CC½. The anomalous columns are
        there either way; in a centrosymmetric space group mates are always one and those columns are NaN.
    corrected : bool, divide intensity and sigma by the column absorption_factor first
    definition : how equivalents are merged, and the denominator of the R values
        "aimless": weights 1/σ², Σ n⟨I⟩ (Aimless; gemmi's Y)
        "xds": weights 1/σ², Σ Iᵢ (XDS, iotbx, DIALS; gemmi's X)
        "unweighted": weights 1, Σ Iᵢ (gemmi's U)
    sigma_definition : σ of a merged intensity
        "propagated": from the weights, (Σ σᵢ⁻²)^(−1/2) (Aimless, DIALS, gemmi)
        "larger": that or the standard error from the scatter of equivalents, whichever is larger (iotbx)
    shells : int, how many
    binning : "volume" (equal volumes of reciprocal space, iotbx) or "count" (equally many unique)
    d_max_angstrom, d_min_angstrom : float | None [Å], limits; completeness is counted to them where given,
        else to the observed ones
    half_set_draws : int, CC½ and anomalous CC are means over so many random halvings (iotbx: 1)
    seed : int, of the halvings

    Returns
    -------
    MergingStatistics. Results do not depend on the order of rows nor on which equivalent was observed.

    Raises
    ------
    InputError
        for missing columns, indices that are not whole numbers, unknown names, a cell that does not fit the
        space group, or nothing left to merge. Rows that cannot be merged are left out and counted instead.

    Notes
    -----
    10⁶ observations take a few seconds of one core. The formulas are in ``merging_definitions``.
    The weighted σ-τ CC½ trusts the weights: where σ has nothing to do with the scatter it comes out too high
    (pure noise with σ spread over 1–20 gives 0.7, the half sets and "unweighted" rightly 0).
    """
    _check_choices(definition, sigma_definition, half_set_draws)
    limits = {"d_max_angstrom": d_max_angstrom, "d_min_angstrom": d_min_angstrom}
    observations = accept_observations(table, cell, space_group, corrected=corrected, **limits)
    apart = group_equivalents(observations, separate_friedel=True)
    merged = apart if anomalous else group_equivalents(observations, separate_friedel=False)
    shell_limits = resolution_shells(
        merged.inverse_d_squared, observations.cell, shells, binning=binning, **limits
    )
    possible = possible_reflections(shell_limits, observations.cell, observations.group)

    weighted = DEFINITIONS[definition].weighted
    parts = [None, *range(shells)]
    separate = anomalous and not observations.group.is_centrosymmetric()
    columns = {
        **_resolution(shell_limits, parts),
        **_counts(merged, shell_limits, possible, parts, separate),
        **_means(merged, shell_limits, parts, weighted, sigma_definition),
        **_agreement(observations, shell_limits, DEFINITIONS[definition].gemmi_code, anomalous),
        "cc_half": _half_set_correlation(merged, shell_limits, parts, weighted, seed, half_set_draws),
        **_anomalous(apart, shell_limits, possible, parts, weighted, sigma_definition, seed, half_set_draws),
    }
    frame = pd.DataFrame({name: np.asarray(columns[name], dtype=np.float64) for name in COLUMNS})
    shell_rows = frame.iloc[1:].astype(dict.fromkeys(COUNTS, "int64"))
    shell_rows.index = pd.RangeIndex(1, shells + 1, name="shell")
    return MergingStatistics(
        overall=frame.iloc[0].rename("overall"),
        shells=shell_rows,
        definitions=MappingProxyType(describe(definition, sigma_definition, separate, half_set_draws)),
        rejected=MappingProxyType(observations.rejected),
        definition=definition,
        sigma_definition=sigma_definition,
        anomalous=separate,
        binning=binning,
        space_group=observations.group.xhm(),
        cell=tuple(observations.cell.parameters),
    )


def _resolution(shells: Shells, parts: list) -> dict[str, list]:
    ranges = [shells.d_range(part) for part in parts]
    return {"d_max_angstrom": [r[0] for r in ranges], "d_min_angstrom": [r[1] for r in ranges]}


def _counts(
    merged: Equivalents, shells: Shells, possible: PossibleReflections, parts: list, separate: bool
) -> dict[str, list]:
    inside = _masks(shells.of(merged.inverse_d_squared), parts)
    observed = [int(merged.count[mask].sum()) for mask in inside]
    unique = [int(np.count_nonzero(mask)) for mask in inside]
    expected = [possible.count(part, separate_friedel=separate) for part in parts]
    return {
        "observations": observed,
        "unique": unique,
        "possible": expected,
        "completeness": [_ratio(*pair) for pair in zip(unique, expected, strict=True)],
        "multiplicity": [_ratio(*pair) for pair in zip(observed, unique, strict=True)],
    }


def _means(
    merged: Equivalents, shells: Shells, parts: list, weighted: bool, sigma_definition: str
) -> dict[str, list]:
    intensity, sigma = merged_intensities(merged, weighted=weighted, sigma_definition=sigma_definition)
    shell = shells.of(merged.inverse_d_squared)
    single = _masks(shell[merged.unique], parts)
    inside = _masks(shell, parts)
    return {
        "mean_intensity": [_mean(intensity[mask]) for mask in inside],
        "i_over_sigma": [_mean(intensity[mask] / sigma[mask]) for mask in inside],
        "observation_i_over_sigma": [_mean((merged.intensity / merged.sigma)[mask]) for mask in single],
    }


def _agreement(
    observations: AcceptedObservations, shells: Shells, gemmi_code: str, anomalous: bool
) -> dict[str, list]:
    intensities = gemmi_intensities(observations, separate_friedel=anomalous)
    statistics = [
        *intensities.calculate_merging_stats(None, gemmi_code),
        *intensities.calculate_merging_stats(shells.binner, gemmi_code),
    ]
    return {
        "r_merge": [s.r_merge() if s.stats_refl else np.nan for s in statistics],
        "r_meas": [s.r_meas() if s.stats_refl else np.nan for s in statistics],
        "r_pim": [s.r_pim() if s.stats_refl else np.nan for s in statistics],
        "cc_half_sigma_tau": [s.cc_half() if s.stats_refl > 1 else np.nan for s in statistics],
    }


def _half_set_correlation(
    merged: Equivalents, shells: Shells, parts: list, weighted: bool, seed: int, draws: int
) -> np.ndarray:
    weights = merging_weights(merged, weighted)
    inside = _masks(shells.of(merged.inverse_d_squared), parts)
    results = np.empty((draws, len(parts)))
    for draw in range(draws):
        one, other = half_set_means(merged, random_halves(merged, seed, draw), weights)
        results[draw] = [correlation(one[mask], other[mask]) for mask in inside]
    return results.mean(axis=0)


def _anomalous(
    apart: Equivalents,
    shells: Shells,
    possible: PossibleReflections,
    parts: list,
    weighted: bool,
    sigma_definition: str,
    seed: int,
    draws: int,
) -> dict[str, Any]:
    intensity, sigma = merged_intensities(apart, weighted=weighted, sigma_definition=sigma_definition)
    shell = shells.of(apart.inverse_d_squared)
    everything = friedel.friedel_pairs(apart)
    pairs = [everything.select(mask) for mask in _masks(shell[everything.plus], parts)]
    acentric = [possible.acentric(part) for part in parts]
    # Of a group without acentric reflections nothing anomalous can be said, not even a multiplicity.
    any_acentric = [count > 0 for count in acentric]
    multiplicity = [_mean(apart.count[mask]) for mask in _masks(shell, parts)]

    equal = np.ones(len(apart.sigma))  # iotbx merges these halves unweighted
    correlations = np.empty((draws, len(parts)))
    for draw in range(draws):
        one, other = half_set_means(apart, random_halves(apart, seed, draw), equal)
        correlations[draw] = [friedel.anomalous_correlation(part, one, other) for part in pairs]
    return {
        "anomalous_pairs": [len(part) for part in pairs],
        "anomalous_completeness": [_ratio(len(p), n) for p, n in zip(pairs, acentric, strict=True)],
        "anomalous_multiplicity": np.where(any_acentric, multiplicity, np.nan),
        "anomalous_cc": correlations.mean(axis=0),
        "anomalous_slope": [friedel.normal_probability_slope(p, intensity, sigma) for p in pairs],
        "df_over_f": [friedel.anomalous_signal(p, intensity) for p in pairs],
        "di_over_sigma_di": [friedel.mean_difference_over_sigma(p, intensity, sigma) for p in pairs],
        "r_anom": [friedel.difference_ratio(p, intensity, sigma) for p in pairs],
    }


def _masks(shell: np.ndarray, parts: list) -> list[np.ndarray]:
    return [np.ones(len(shell), dtype=bool) if part is None else shell == part for part in parts]


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _plain(row: pd.Series) -> dict[str, Any]:
    return {
        name: int(value) if name in COUNTS else (float(value) if np.isfinite(value) else None)
        for name, value in row.items()
    }


def _check_choices(definition: str, sigma_definition: str, draws: int) -> None:
    for name, value, choices in (
        ("definition", definition, tuple(DEFINITIONS)),
        ("sigma_definition", sigma_definition, SIGMA_DEFINITIONS),
    ):
        if value not in choices:
            raise InputError(f"{name} must be one of {choices}, got {value!r}")
    if not isinstance(draws, (int, np.integer)) or draws < 1:
        raise InputError(f"half_set_draws must be a whole number of at least 1, got {draws!r}")
