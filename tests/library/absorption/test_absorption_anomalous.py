"""Anomalous statistics and half-set correlations by closed form."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri

from tomoforge.absorption.anomalous import friedel_pairs
from tomoforge.absorption.equivalents import accept_observations, group_equivalents
from tomoforge.absorption.half_sets import correlation, half_set_means, random_halves
from tomoforge.absorption.merging import merging_statistics

CELL = (50.0, 60.0, 70.0, 80.0, 95.0, 105.0)


def unique_indices(count):
    """(count, 3) different hkl of P 1, no two of them Friedel mates."""
    grid = np.stack(np.meshgrid(*[np.arange(1, 40)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return grid[np.argsort(np.sum(grid**2, axis=1), kind="stable")][:count]


def pairs_table(plus, minus, sigma_plus=1.0, sigma_minus=1.0, repeats=1):
    """P 1 observations of I(+) and I(−), each ``repeats`` times."""
    hkl = unique_indices(len(plus))
    parts = []
    for sign, intensity, sigma in ((1, plus, sigma_plus), (-1, minus, sigma_minus)):
        part = pd.DataFrame(sign * hkl, columns=["h", "k", "l"])
        parts += [part.assign(intensity=np.asarray(intensity, dtype=float), sigma=sigma)] * repeats
    return pd.concat(parts, ignore_index=True)


def overall(table, **settings):
    return merging_statistics(table, CELL, "P 1", shells=2, **settings).overall


def test_anomalous__constant_difference_by_hand():
    # F⁺ = 11, F⁻ = 9: √(2·2²/(121 + 81)); ΔI = 40 with σ² = 3² + 4²
    got = overall(pairs_table(np.full(50, 121.0), np.full(50, 81.0), 3.0, 4.0))
    assert got["df_over_f"] == pytest.approx(np.sqrt(8 / 202), rel=1e-12)
    assert got["di_over_sigma_di"] == pytest.approx(40 / 5, rel=1e-12)
    mean = (121 / 9 + 81 / 16) / (1 / 9 + 1 / 16)
    assert got["r_anom"] == pytest.approx(40 / mean, rel=1e-12)
    assert (got["anomalous_pairs"], got["anomalous_multiplicity"]) == (50, 1)


def test_anomalous__signal_leaves_out_negative_intensities():
    plus, minus = np.full(50, 121.0), np.full(50, 81.0)
    plus[:5], minus[5:9] = -10.0, -3.0
    got = overall(pairs_table(plus, minus))
    assert got["df_over_f"] == pytest.approx(np.sqrt(8 / 202), rel=1e-12)
    assert got["anomalous_pairs"] == 50
    assert np.isnan(overall(pairs_table(-plus[9:], minus[9:]))["df_over_f"])


@pytest.mark.parametrize("slope", [0.5, 1.0, 3.0])
def test_anomalous__slope_of_differences_that_are_normal_quantiles(slope):
    """ΔI/σ(ΔI) placed at slope × the normal quantiles lies on a line of that slope; tails do not matter."""
    count = 101
    expected = ndtri((np.arange(count) + 0.5) / count)
    difference = slope * expected * np.hypot(3, 4)
    difference[np.abs(expected) > 0.9] *= 50
    order = np.random.default_rng(0).permutation(count)
    plus = 1000 + difference[order] / 2
    minus = 1000 - difference[order] / 2
    got = merging_statistics(pairs_table(plus, minus, 3.0, 4.0), CELL, "P 1", shells=1).overall
    # Differences of 1 of intensities of 1000 lose three of sixteen digits.
    assert got["anomalous_slope"] == pytest.approx(slope, rel=1e-10)


def test_anomalous__completeness_counts_pairs_of_acentric_reflections():
    table = pairs_table(np.full(40, 100.0), np.full(40, 90.0))
    lone = table.drop(index=[41, 45])  # two I(−) are missing
    got = merging_statistics(lone, CELL, "P 1", shells=1)
    assert got.overall["anomalous_pairs"] == 38
    assert got.overall["anomalous_completeness"] == pytest.approx(38 / got.overall["possible"], rel=1e-14)
    assert got.overall["anomalous_multiplicity"] == pytest.approx(1, rel=1e-14)


def test_anomalous__sign_is_that_of_the_index_in_the_asymmetric_unit():
    """I(+) − I(−) may not change its sign with which of the equivalents was observed."""
    table = pairs_table(np.full(30, 121.0), np.full(30, 81.0))
    rows = accept_observations(table, CELL, "P 1")
    apart = group_equivalents(rows, separate_friedel=True)
    pairs = friedel_pairs(apart)
    # gemmi's asymmetric unit of P 1 holds l > 0, as the table's I(+) do.
    assert (apart.intensity[apart.start][pairs.plus] == 121).all()
    assert (apart.hkl[pairs.plus] == apart.hkl[pairs.minus]).all()


def test_anomalous__noiseless_differences_correlate_fully():
    difference = np.random.default_rng(1).normal(0, 20, 60)
    got = overall(pairs_table(500 + difference, 500 - difference, repeats=4))
    assert got["anomalous_cc"] == pytest.approx(1, abs=1e-12)
    assert got["r_merge"] > 0  # of mates merged


def test_anomalous__noise_alone_does_not_correlate():
    rng = np.random.default_rng(2)
    table = pairs_table(np.full(2000, 500.0), np.full(2000, 500.0), repeats=4)
    table["intensity"] += rng.normal(0, 20, len(table))
    table["sigma"] = 20.0
    got = merging_statistics(table, CELL, "P 1", shells=1, anomalous=True).overall
    # Standard error 1/√2000 of one halving; three halvings of four (1 2|3 4, …) share the data: no less.
    assert got["anomalous_cc"] == pytest.approx(0, abs=4 / np.sqrt(2000))
    # ΔI/σ(ΔI) is standard normal: the slope is 1, its error about 1.3/√2000 over the middle of the plot.
    assert got["anomalous_slope"] == pytest.approx(1, abs=4 * 1.3 / np.sqrt(2000))
    # mean |x| of a normal variable is √(2/π), its standard deviation √(1 − 2/π)
    tolerance = 4 * np.sqrt((1 - 2 / np.pi) / 2000)
    assert got["di_over_sigma_di"] == pytest.approx(np.sqrt(2 / np.pi), abs=tolerance)


def two_each(truth, error):
    """P 1, each reflection measured twice: truth + error and truth − error."""
    table = pd.DataFrame(unique_indices(len(truth)), columns=["h", "k", "l"])
    both = [
        table.assign(intensity=truth + error, sigma=1.0),
        table.assign(intensity=truth - error, sigma=1.0),
    ]
    return pd.concat(both, ignore_index=True)


def test_cc_half__sigma_tau_closed_form_in_each_shell():
    """Twice measured with ± e: the variance of the mean's error is e², so that CC½ = (V − ⟨e²⟩)/(V + ⟨e²⟩)."""
    rng = np.random.default_rng(3)
    truth = rng.gamma(2, 500, 3000)
    error = 100 + 0.2 * np.arange(3000)  # rising with resolution
    table = two_each(truth, error)
    got = merging_statistics(table, CELL, "P 1", shells=4)
    observations = accept_observations(table, CELL, "P 1")
    merged = group_equivalents(observations, separate_friedel=False)
    mean = merged.sums(merged.intensity) / 2
    squared = merged.sums((merged.intensity - mean[merged.unique]) ** 2) / 2
    for _, row in got.shells.iterrows():
        low, high = row["d_max_angstrom"] ** -2, row["d_min_angstrom"] ** -2
        inside = (merged.inverse_d_squared >= low) & (merged.inverse_d_squared < high)
        spread, noise = mean[inside].var(ddof=1), squared[inside].mean()
        expected = (spread - noise) / (spread + noise)
        assert row["cc_half_sigma_tau"] == pytest.approx(expected, rel=1e-9)
        # A halving takes + or − at random: the correlation scatters by (1 − r²)/√n about the same.
        assert row["cc_half"] == pytest.approx(expected, abs=4 * (1 - expected**2) / np.sqrt(inside.sum()))
    assert got.shells["cc_half"].is_monotonic_decreasing


def test_cc_half__is_one_without_noise_and_minus_one_without_truth():
    truth = np.random.default_rng(4).gamma(2, 500, 200)
    exact = overall(two_each(truth, 0.0))
    assert exact["cc_half"] == pytest.approx(1, abs=1e-12)
    assert exact["cc_half_sigma_tau"] == pytest.approx(1, abs=1e-12)
    opposed = overall(two_each(np.full(200, 500.0), 10.0))
    assert opposed["cc_half"] == pytest.approx(-1, abs=1e-12)
    assert opposed["cc_half_sigma_tau"] == pytest.approx(-1, abs=1e-12)


def test_random_halves__take_half_of_each_and_the_odd_one_by_a_coin():
    counts = np.tile([1, 2, 3, 4, 7], 200)
    table = pd.DataFrame(np.repeat(unique_indices(1000), counts, axis=0), columns=["h", "k", "l"])
    table = table.assign(intensity=np.random.default_rng(5).normal(100, 5, len(table)), sigma=1.0)
    merged = group_equivalents(accept_observations(table, CELL, "P 1"), separate_friedel=False)
    first = random_halves(merged, seed=0)
    taken = merged.sums(first.astype(int))
    even = merged.count % 2 == 0
    assert (taken[even] == merged.count[even] // 2).all()
    assert set(taken[~even] - merged.count[~even] // 2) == {0, 1}
    # 600 coins: a fair one stays within four standard deviations of one half
    assert (taken[~even] - merged.count[~even] // 2).mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(600))
    assert (first == random_halves(merged, seed=0)).all()
    for other in (random_halves(merged, seed=1), random_halves(merged, seed=0, draw=1)):
        assert 0.3 < (first != other).mean() < 0.7
    # Any observation may be taken, not only those of low intensity, which come first.
    position = np.arange(len(first)) - merged.start[merged.unique]
    of_four = merged.count[merged.unique] == 4
    shares = [first[of_four & (position == place)].mean() for place in range(4)]
    assert shares == pytest.approx([0.5] * 4, abs=4 * 0.5 / np.sqrt(200))


def test_half_set_means__of_weights_and_empty_halves():
    table = pd.DataFrame([(1, 2, 3)] * 3 + [(2, 2, 3)], columns=["h", "k", "l"])
    table = table.assign(intensity=[10.0, 20.0, 40.0, 5.0], sigma=[1.0, 1.0, 2.0, 1.0])
    merged = group_equivalents(accept_observations(table, CELL, "P 1"), separate_friedel=False)
    first = merged.intensity >= 20
    one, other = half_set_means(merged, first, merged.sigma**-2.0)
    assert one[0] == pytest.approx(30 / 1.25, rel=1e-14) and other[0] == pytest.approx(10, rel=1e-14)
    assert np.isnan(one[1]) and other[1] == 5


def test_correlation__of_few_or_constant_values_is_not_a_number():
    values = np.array([1.0, 2.0, 4.0, np.nan])
    assert np.isnan(correlation(values, np.array([1.0, 2.0, np.nan, 3.0])))
    assert np.isnan(correlation(values, np.full(4, 0.1)))
    expected = np.corrcoef([1, 2, 4], [3, 1, 5])[0, 1]
    assert correlation(values, np.array([3.0, 1.0, 5.0, 7.0])) == pytest.approx(expected, rel=1e-14)


def test_half_sets__are_averaged_over_draws_and_weighted_as_named():
    """CC½ merges halves as the definition says, anomalous CC without weights."""
    rng = np.random.default_rng(6)
    table = pairs_table(rng.gamma(2, 300, 80), rng.gamma(2, 300, 80), repeats=5)
    table["intensity"] += rng.normal(0, 100, len(table))
    table["sigma"] = rng.uniform(20, 200, len(table))
    observations = accept_observations(table, CELL, "P 1")
    merged = group_equivalents(observations, separate_friedel=False)
    apart = group_equivalents(observations, separate_friedel=True)
    pairs = friedel_pairs(apart)
    for definition, weights in (("aimless", merged.sigma**-2.0), ("unweighted", np.ones(len(merged.sigma)))):
        got = overall(table, definition=definition, half_set_draws=3, seed=9)
        halves = [half_set_means(merged, random_halves(merged, 9, n), weights) for n in range(3)]
        expected = np.mean([correlation(*pair) for pair in halves])
        assert got["cc_half"] == pytest.approx(expected, rel=1e-12)
        equal = np.ones(len(apart.sigma))
        halves = [half_set_means(apart, random_halves(apart, 9, n), equal) for n in range(3)]
        expected = np.mean([correlation(*map(pairs.difference, pair)) for pair in halves])
        assert got["anomalous_cc"] == pytest.approx(expected, rel=1e-12)
