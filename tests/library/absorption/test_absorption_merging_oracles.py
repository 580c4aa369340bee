"""Merging statistics against iotbx and gemmi: the oracle table, real files, and random data in many groups."""

import json
import os
import subprocess
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd
import pytest

from tests.library.absorption.iotbx_reference import (
    CASES,
    SHELLS,
    floored_sigma_tau,
    iotbx_halves,
    random_observations,
)
from tomoforge.absorption.anomalous import anomalous_correlation, friedel_pairs
from tomoforge.absorption.equivalents import accept_observations, group_equivalents
from tomoforge.absorption.half_sets import correlation, half_set_means
from tomoforge.absorption.merging import merging_statistics

P41212 = ((57.9, 57.9, 150.2, 90.0, 90.0, 90.0), "P 41 21 2")
# iotbx's name of a statistic → ours; the random ones (cc_one_half, cc_anom) are tested with its own draws.
NAMES = {
    "d_max": "d_max_angstrom",
    "d_min": "d_min_angstrom",
    "n_obs": "observations",
    "n_uniq": "unique",
    "mean_redundancy": "multiplicity",
    "completeness": "completeness",
    "anom_completeness": "anomalous_completeness",
    "i_mean": "mean_intensity",
    "i_over_sigma_mean": "i_over_sigma",
    "unmerged_i_over_sigma_mean": "observation_i_over_sigma",
    "r_merge": "r_merge",
    "r_meas": "r_meas",
    "r_pim": "r_pim",
    "r_anom": "r_anom",
}
RANDOM = ("cc_half", "anomalous_cc")
# Sums over 10⁴ float64 in another order differ by some 1e-15; the oracle prints all digits.
DIGITS = 1e-12
# The recorded numbers have twelve digits.
RECORDED = 1e-11


@pytest.fixture(scope="module")
def oracle(shared_data):
    return json.loads((shared_data / "absorption" / "merging_oracle.json").read_text())


@pytest.fixture(scope="module")
def synthetic(shared_data):
    names = ["h", "k", "l", "intensity", "sigma"]
    path = shared_data / "absorption" / "synthetic_unmerged_P41212.csv"
    return pd.read_csv(path, comment="#", names=names, float_precision="round_trip")


def rows_of(statistics):
    return [statistics.overall, *(row for _, row in statistics.shells.iterrows())]


@pytest.mark.parametrize("anomalous", [False, True])
def test_merging_statistics__reproduces_iotbx_on_the_oracle_set(oracle, synthetic, anomalous):
    expected = oracle[f"synthetic anomalous={anomalous}"]["cctbx"]
    got = merging_statistics(
        synthetic, *P41212, anomalous=anomalous, definition="xds", sigma_definition="larger"
    )
    for mine, theirs in zip(rows_of(got), [expected["overall"], *expected["bins"]], strict=True):
        for name, ours in NAMES.items():
            if theirs[name] is not None:
                assert mine[ours] == pytest.approx(theirs[name], rel=DIGITS), name
    assert not any(got.rejected.values())


def test_merging_statistics__reproduces_iotbx_anomalous_extras(oracle, synthetic):
    expected = oracle["synthetic anomalous extras (cctbx)"]
    got = merging_statistics(synthetic, *P41212, anomalous=True, definition="xds", sigma_definition="larger")
    assert got.overall["df_over_f"] == pytest.approx(expected["anom_signal_dF_over_F"], rel=DIGITS)
    assert got.overall["di_over_sigma_di"] == pytest.approx(expected["dI_over_sdI"], rel=DIGITS)
    # The normal quantiles come from two libraries, good to 1e-14 or so.
    assert got.overall["anomalous_slope"] == pytest.approx(expected["slope_mid"], rel=1e-10)
    assert got.overall["anomalous_pairs"] == expected["n_pairs"]
    assert got.overall["anomalous_completeness"] == pytest.approx(expected["anom_completeness"], rel=DIGITS)
    assert got.overall["r_anom"] == pytest.approx(expected["r_anom"], rel=DIGITS)


@pytest.mark.parametrize("anomalous", [False, True])
def test_half_sets__with_the_draws_of_iotbx_reproduce_its_correlations(oracle, synthetic, anomalous):
    """The half sets are random; given the same halves, CC½ and anomalous CC are the same in every shell."""
    expected = oracle[f"synthetic anomalous={anomalous}"]["cctbx"]
    limits = merging_statistics(synthetic, *P41212).shells
    squared = gemmi.UnitCell(*P41212[0]).calculate_1_d2_array(
        np.ascontiguousarray(synthetic[["h", "k", "l"]].to_numpy(dtype=np.int32))
    )
    parts = [synthetic]
    for _, row in limits.iterrows():
        inside = (squared >= row["d_max_angstrom"] ** -2) & (squared < row["d_min_angstrom"] ** -2)
        parts.append(synthetic[inside])
    for part, theirs in zip(parts, [expected["overall"], *expected["bins"]], strict=True):
        observations = accept_observations(part, *P41212)
        merged = group_equivalents(observations, separate_friedel=anomalous)
        halves = half_set_means(merged, iotbx_halves(merged), merged.sigma**-2.0)
        assert correlation(*halves) == pytest.approx(theirs["cc_one_half"], rel=DIGITS)
        apart = group_equivalents(observations, separate_friedel=True)
        halves = half_set_means(apart, iotbx_halves(apart), np.ones(len(apart.row)))
        got = anomalous_correlation(friedel_pairs(apart), *halves)
        assert got == pytest.approx(theirs["cc_anom"], rel=DIGITS)
        assert floored_sigma_tau(merged) == pytest.approx(theirs["cc_one_half_sigma_tau"], rel=DIGITS)


@pytest.mark.parametrize("anomalous", [False, True])
@pytest.mark.parametrize(("definition", "code"), [("aimless", "Y"), ("xds", "X"), ("unweighted", "U")])
def test_merging_statistics__reproduces_gemmi_on_the_oracle_set(
    oracle, synthetic, anomalous, definition, code
):
    expected = oracle[f"synthetic anomalous={anomalous}"]["gemmi"][code]
    got = merging_statistics(synthetic, *P41212, anomalous=anomalous, definition=definition).overall
    for name in ("r_merge", "r_meas", "r_pim"):
        assert got[name] == pytest.approx(expected[name], rel=DIGITS)
    assert got["cc_half_sigma_tau"] == pytest.approx(expected["cc_half"], rel=DIGITS)
    assert (got["observations"], got["unique"]) == (expected["all_refl"], expected["unique_refl"])


def test_merging_statistics__random_half_sets_scatter_about_the_oracle(oracle, synthetic):
    expected = oracle["synthetic anomalous=False"]["cctbx"]["overall"]
    got = merging_statistics(synthetic, *P41212, seed=3).overall
    # Standard error of a correlation of n pairs, (1 − r²)/√n; four of them.
    for name, theirs, pairs in (("cc_half", "cc_one_half", 2353), ("anomalous_cc", "cc_anom", 1500)):
        tolerance = 4 * (1 - expected[theirs] ** 2) / np.sqrt(pairs)
        assert got[name] == pytest.approx(expected[theirs], abs=tolerance)


def test_merging_statistics__small_example_of_the_sigma_tau_correlation(shared_data):
    """Twelve observations of two reflections in P 2 3, from the XDS wiki's page on CC½."""
    block = gemmi.as_refln_blocks(gemmi.cif.read(str(shared_data / "absorption" / "cc12-hkl.cif")))[0]
    columns = {"h": "index_h", "k": "index_k", "l": "index_l"}
    columns |= {"intensity": "intensity_net", "sigma": "intensity_sigma"}
    table = pd.DataFrame({name: block.make_float_array(source) for name, source in columns.items()})
    cell = (10.0, 10.0, 10.0, 90.0, 90.0, 90.0)  # the file has none, and no R value needs one
    unweighted = merging_statistics(table, cell, "P 2 3", shells=1, definition="unweighted").overall
    weighted = merging_statistics(table, cell, "P 2 3", shells=1, definition="aimless").overall
    assert (weighted["observations"], weighted["unique"], weighted["multiplicity"]) == (12, 2, 6)
    assert unweighted["cc_half_sigma_tau"] == pytest.approx(sigma_tau(table, weighted=False), rel=1e-12)
    assert weighted["cc_half_sigma_tau"] == pytest.approx(sigma_tau(table, weighted=True), rel=1e-12)
    assert unweighted["cc_half_sigma_tau"] == pytest.approx(0.945823, abs=5e-7)  # as gemmi prints them
    assert weighted["cc_half_sigma_tau"] == pytest.approx(0.900491, abs=5e-7)
    assert np.isnan(weighted["cc_half"])  # two points lie on a line: no correlation is claimed


def sigma_tau(table, weighted):
    """CC½ = (σ²ᵧ − σ²ₑ/2)/(σ²ᵧ + σ²ₑ/2), by the formulas of Assmann et al. (2016), reflection by reflection."""
    means, errors = [], []
    for part in (table.iloc[:6], table.iloc[6:]):
        intensity = part["intensity"].to_numpy()
        weight = part["sigma"].to_numpy() ** -2.0 if weighted else np.ones(6)
        mean = np.sum(weight * intensity) / np.sum(weight)
        variance = np.sum(weight * (intensity - mean) ** 2) / np.sum(weight) * 6 / 5
        means.append(mean)
        errors.append(variance / (6 / 2))  # of the mean of half the observations
    spread, error = np.var(means, ddof=1), np.mean(errors)
    return (spread - error / 2) / (spread + error / 2)


def test_merging_statistics__real_unmerged_mtz(shared_data):
    mtz = gemmi.read_mtz_file(str(shared_data / "absorption" / "data_unmerged.mtz"))
    data = {column.label: np.array(column, dtype=np.float64) for column in mtz.columns}
    sign = np.where(data["M/ISYM"] % 2 == 1, 1, -1)  # even: the Friedel mate of the reduced indices
    table = pd.DataFrame({name.lower(): sign * data[name] for name in "HKL"})
    table = table.assign(intensity=data["I"], sigma=data["SIGI"])
    for anomalous in (False, True):
        got = merging_statistics(table, mtz.cell, mtz.spacegroup, anomalous=anomalous, shells=5)
        assert got.overall["observations"] + sum(got.rejected.values()) == mtz.nreflections == 1000
        assert got.overall["observations"] == got.shells["observations"].sum()
        direct = gemmi.Intensities()
        hkl = np.ascontiguousarray(table[["h", "k", "l"]].to_numpy(dtype=np.int32))
        direct.set_data(mtz.cell, mtz.spacegroup, hkl, data["I"], data["SIGI"])
        direct.remove_systematic_absences()
        direct.prepare_for_merging(gemmi.DataType.Anomalous if anomalous else gemmi.DataType.Mean)
        expected = direct.calculate_merging_stats(None, "Y")[0]
        assert got.overall["unique"] == expected.unique_refl
        assert got.overall["r_meas"] == pytest.approx(expected.r_meas(), rel=DIGITS)
        assert 0 < got.overall["completeness"] < 1
        assert np.isfinite(got.overall["i_over_sigma"])


@pytest.fixture(scope="module")
def recorded():
    """Printed by iotbx_reference.py under cctbx-base 2025.11, numpy 2.4, Python 3.11."""
    return json.loads((Path(__file__).parent / "iotbx_recorded.json").read_text())


def random_table(name):
    hkl, intensity, sigma = random_observations(name)
    return pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(intensity=intensity, sigma=sigma)


# iotbx counts the possible reflections of a shell from the smallest d observed in it instead of from its edge,
# and drops reflections of the very same d as the outermost that differ from it by rounding.
FEWER_POSSIBLE = {("P 2 2 2", "merged", 2): 1, ("P 2 2 2", "apart", 2): 1, ("P 21 3", "apart", 0): 2}


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("mates", ["merged", "apart"])
def test_merging_statistics__agrees_with_iotbx_on_random_data(recorded, name, mates):
    compare_with_iotbx(recorded[name][mates], name, mates)


def compare_with_iotbx(reference, name, mates):
    got = merging_statistics(
        random_table(name),
        CASES[name][0],
        name,
        anomalous=mates == "apart",
        definition="xds",
        sigma_definition="larger",
        shells=SHELLS,
    )
    centrosymmetric = gemmi.find_spacegroup_by_name(name).is_centrosymmetric()
    for number, (mine, theirs) in enumerate(
        zip(rows_of(got), [reference["overall"], *reference["shells"]], strict=True)
    ):
        for column, value in theirs.items():
            if value is None or column in (*RANDOM, "cc_half_sigma_tau"):
                continue
            if centrosymmetric and column in ("anomalous_completeness", "df_over_f"):
                assert value == 0 and np.isnan(mine[column])  # iotbx says 0 of 0 is 0
            elif column == "completeness":
                fewer = FEWER_POSSIBLE.get((name, mates, number), 0)
                assert mine["unique"] / (mine["possible"] - fewer) == pytest.approx(value, rel=RECORDED)
            else:
                assert mine[column] == pytest.approx(value, rel=RECORDED), (column, number)


@pytest.mark.parametrize("name", list(CASES))
def test_half_sets__agree_with_iotbx_on_random_data(recorded, name):
    observations = accept_observations(random_table(name), CASES[name][0], name)
    for mates in ("merged", "apart"):
        merged = group_equivalents(observations, separate_friedel=mates == "apart")
        first = iotbx_halves(merged)
        expected = recorded[name][mates]["overall"]
        halves = half_set_means(merged, first, merged.sigma**-2.0)
        assert correlation(*halves) == pytest.approx(expected["cc_half"], rel=RECORDED)
        assert floored_sigma_tau(merged) == pytest.approx(expected["cc_half_sigma_tau"], rel=RECORDED)
    pairs = friedel_pairs(merged)
    if len(pairs):
        halves = half_set_means(merged, first, np.ones(len(first)))
        # A correlation near zero keeps its absolute digits.
        expected = recorded[name]["apart"]["overall"]["anomalous_cc"]
        assert anomalous_correlation(pairs, *halves) == pytest.approx(expected, rel=RECORDED, abs=1e-12)


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("definition", ["aimless", "xds", "unweighted"])
def test_merging_statistics__agrees_with_gemmi_shell_by_shell(name, definition):
    """gemmi's own shells and its own selection, straight from the table."""
    table = random_table(name)
    cell, group = gemmi.UnitCell(*CASES[name][0]), gemmi.find_spacegroup_by_name(name)
    good = table[table["sigma"] > 0]
    direct = gemmi.Intensities()
    hkl = np.ascontiguousarray(good[["h", "k", "l"]].to_numpy(dtype=np.int32))
    direct.set_data(cell, group, hkl, good["intensity"].to_numpy(), good["sigma"].to_numpy())
    direct.remove_systematic_absences()
    direct.prepare_for_merging(gemmi.DataType.Anomalous)
    binner = gemmi.Binner()
    binner.setup(SHELLS, gemmi.Binner.Method.Dstar3, direct)
    code = {"aimless": "Y", "xds": "X", "unweighted": "U"}[definition]
    expected = direct.calculate_merging_stats(binner, code)
    got = merging_statistics(table, cell, group, anomalous=True, definition=definition, shells=SHELLS).shells
    for (_, mine), theirs in zip(got.iterrows(), expected, strict=True):
        assert (mine["observations"], mine["unique"]) == (theirs.all_refl, theirs.unique_refl)
        values = (theirs.r_merge(), theirs.r_meas(), theirs.r_pim(), theirs.cc_half())
        columns = ["r_merge", "r_meas", "r_pim", "cc_half_sigma_tau"]
        assert list(mine[columns]) == pytest.approx(values, rel=DIGITS)


def test_iotbx_reference__is_what_an_installed_cctbx_says(recorded):
    """Set TOMOFORGE_CCTBX_PYTHON to an interpreter that has cctbx-base to run iotbx anew."""
    interpreter = os.environ.get("TOMOFORGE_CCTBX_PYTHON")
    if not interpreter:
        pytest.skip("TOMOFORGE_CCTBX_PYTHON names no interpreter with cctbx; the recorded numbers stand in")
    script = Path(__file__).parent / "iotbx_reference.py"
    done = subprocess.run([interpreter, str(script)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    fresh = json.loads(done.stdout)
    assert list(fresh) == list(recorded)
    for name in CASES:
        for mates in ("merged", "apart"):
            compare_with_iotbx(fresh[name][mates], name, mates)
            assert without_none(fresh[name][mates]) == pytest.approx(
                without_none(recorded[name][mates]), rel=RECORDED, abs=1e-12
            )


def without_none(statistics):
    """All numbers of a case by (row, column), without those that iotbx does not give."""
    rows = [statistics["overall"], *statistics["shells"]]
    return {(n, k): v for n, row in enumerate(rows) for k, v in row.items() if v is not None}
