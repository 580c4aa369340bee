"""Merging statistics by hand, by closed form, and what must not change them."""

import gemmi
import numpy as np
import pandas as pd
import pytest

from tests.library.absorption.iotbx_reference import CASES, random_observations
from tomoforge.absorption.equivalents import accept_observations, group_equivalents
from tomoforge.absorption.merged_intensities import merged_intensities
from tomoforge.absorption.merging import merging_statistics
from tomoforge.absorption.merging_definitions import COLUMNS, COUNTS, DEFINITIONS
from tomoforge.errors import InputError

CUBE = (10.0, 10.0, 10.0, 90.0, 90.0, 90.0)
TRICLINIC = (10.0, 11.0, 12.0, 85.0, 95.0, 105.0)


def make_table(rows):
    """rows of (h, k, l, intensity, sigma)"""
    table = pd.DataFrame(rows, columns=["h", "k", "l", "intensity", "sigma"])
    return table.astype({"h": "int32", "k": "int32", "l": "int32", "intensity": float, "sigma": float})


def random_table(name):
    hkl, intensity, sigma = random_observations(name)
    return pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(intensity=intensity, sigma=sigma)


def assert_same(one, other, rel=1e-10):
    """Equal but for rounding: gemmi sums equivalents in an order of its own, and some differences cancel."""
    first, second = one.as_table(), other.as_table()
    for column in COLUMNS:
        assert list(first[column]) == pytest.approx(list(second[column]), rel=rel, abs=1e-12, nan_ok=True), (
            column
        )


# Three observations of one reflection of P 2 (axis b): h k l = −h k −l, and Friedel mates.
THREE = make_table([(1, 2, 3, 80, 1), (-1, 2, -3, 100, 1), (-1, -2, -3, 120, 1)])


@pytest.mark.parametrize("definition", list(DEFINITIONS))
def test_merging_statistics__three_equal_observations_by_hand(definition):
    # ⟨I⟩ = 100, Σ|I − ⟨I⟩| = 40, ΣI = n⟨I⟩ = 300
    got = merging_statistics(THREE, CUBE, "P 1 2 1", shells=1, definition=definition).overall
    assert got["r_merge"] == pytest.approx(40 / 300, rel=1e-14)
    assert got["r_meas"] == pytest.approx(40 / 300 * np.sqrt(3 / 2), rel=1e-14)
    assert got["r_pim"] == pytest.approx(40 / 300 * np.sqrt(1 / 2), rel=1e-14)
    assert (got["observations"], got["unique"], got["multiplicity"]) == (3, 1, 3)
    assert got["mean_intensity"] == pytest.approx(100, rel=1e-14)
    assert got["i_over_sigma"] == pytest.approx(100 * np.sqrt(3), rel=1e-14)
    assert got["observation_i_over_sigma"] == pytest.approx(100, rel=1e-14)


@pytest.mark.parametrize(("definition", "denominator"), [("aimless", 920 / 3), ("xds", 320.0)])
def test_merging_statistics__weights_and_denominators_by_hand(definition, denominator):
    # weights 1, 1, 1/4: ⟨I⟩ = (90 + 110 + 30)/2.25 = 920/9; |I − ⟨I⟩| = 110/9, 70/9, 160/9
    table = THREE.assign(intensity=[90.0, 110.0, 120.0], sigma=[1.0, 1.0, 2.0])
    got = merging_statistics(table, CUBE, "P 1 2 1", shells=1, definition=definition).overall
    assert got["mean_intensity"] == pytest.approx(920 / 9, rel=1e-14)
    assert got["i_over_sigma"] == pytest.approx(920 / 9 * 1.5, rel=1e-14)
    assert got["r_merge"] == pytest.approx(340 / 9 / denominator, rel=1e-14)
    assert got["r_pim"] == pytest.approx(340 / 9 / denominator / np.sqrt(2), rel=1e-14)


def test_merging_statistics__unweighted_propagates_sigma_of_a_plain_mean():
    table = THREE.assign(intensity=[90.0, 110.0, 120.0], sigma=[1.0, 1.0, 2.0])
    got = merging_statistics(table, CUBE, "P 1 2 1", shells=1, definition="unweighted").overall
    assert got["mean_intensity"] == pytest.approx(320 / 3, rel=1e-14)
    assert got["i_over_sigma"] == pytest.approx(320 / 3 / (np.sqrt(6) / 3), rel=1e-14)


def test_merging_statistics__larger_sigma_is_the_standard_error_of_scattered_equivalents():
    # s² = 400 from 80, 100, 120; of the mean 400/3; from σ = 1 only 1/3
    got = merging_statistics(THREE, CUBE, "P 1 2 1", shells=1, sigma_definition="larger").overall
    assert got["i_over_sigma"] == pytest.approx(100 / np.sqrt(400 / 3), rel=1e-14)
    calm = THREE.assign(intensity=[100.0, 100.1, 100.0])  # where equivalents agree, σ is propagated
    for sigma_definition in ("propagated", "larger"):
        got = merging_statistics(calm, CUBE, "P 1 2 1", shells=1, sigma_definition=sigma_definition).overall
        assert got["i_over_sigma"] == pytest.approx(got["mean_intensity"] * np.sqrt(3), rel=1e-14)


def test_merging_statistics__friedel_mates_apart_by_hand():
    # I(+): 80, 100; I(−): 120 alone, which enters no R value
    got = merging_statistics(THREE, CUBE, "P 1 2 1", shells=1, anomalous=True, definition="xds").overall
    assert (got["observations"], got["unique"], got["multiplicity"]) == (3, 2, 1.5)
    assert got["r_merge"] == pytest.approx(20 / 180, rel=1e-14)
    assert got["r_meas"] == pytest.approx(20 / 180 * np.sqrt(2), rel=1e-14)
    assert got["anomalous_pairs"] == 1


def test_merging_statistics__centric_reflections_have_no_mates():
    # In P 2 1 2 1 2 1 the zone h k 0 is centric: −h −k 0 is h k 0 turned about c.
    table = make_table([(2, 3, 0, 90, 1), (-2, -3, 0, 110, 1), (2, 3, 1, 90, 1), (-2, -3, -1, 110, 1)])
    got = merging_statistics(table, CUBE, "P 21 21 21", shells=1, anomalous=True, definition="xds").overall
    assert got["unique"] == 3 and got["anomalous_pairs"] == 1
    assert got["r_merge"] == pytest.approx(20 / 200, rel=1e-14)


def test_merging_statistics__centrosymmetric_group_keeps_no_mates_apart():
    table = random_table("P -1")
    apart, merged = (
        merging_statistics(table, CASES["P -1"][0], "P -1", anomalous=anomalous)
        for anomalous in (True, False)
    )
    assert not apart.anomalous
    assert_same(apart, merged)
    assert apart.overall["anomalous_pairs"] == 0
    assert np.isnan(apart.overall["anomalous_completeness"])
    assert np.isnan(apart.overall["anomalous_multiplicity"])


def test_merging_statistics__rejected_rows_are_counted_once_and_change_nothing():
    good = random_table("P 21 21 21").query("sigma > 0 and intensity > -inf")
    group = gemmi.find_spacegroup_by_name("P 21 21 21").operations()
    allowed = ~np.asarray(group.systematic_absences(np.ascontiguousarray(good[["h", "k", "l"]], np.int32)))
    good = good[allowed]
    bad = make_table(
        [
            (1, 2, 3, np.nan, 1),
            (1, 2, 3, 50, np.nan),
            (1, 2, 3, np.inf, -1),
            (1, 2, 3, 50, 0),
            (0, 0, 0, 50, -2),
            (0, 0, 0, 50, 1),
            (0, 0, 3, 50, 1),
        ]
    )
    cell = CASES["P 21 21 21"][0]
    clean = merging_statistics(good, cell, "P 21 21 21")
    mixed = merging_statistics(pd.concat([bad, good], ignore_index=True), cell, "P 21 21 21")
    assert_same(clean, mixed)
    assert dict(mixed.rejected) == {
        "not_finite": 3,
        "sigma_not_positive": 2,
        "unindexed": 1,
        "systematically_absent": 1,
        "outside_resolution": 0,
    }


def test_merging_statistics__corrected_divides_by_the_absorption_factor():
    table = random_table("P 41 21 2")
    factor = np.random.default_rng(0).uniform(0.2, 0.9, len(table))
    cell = CASES["P 41 21 2"][0]
    dimmed = table.assign(
        intensity=table["intensity"] * factor, sigma=table["sigma"] * factor, absorption_factor=factor
    )
    wanted = merging_statistics(table, cell, "P 41 21 2", anomalous=True)
    got = merging_statistics(dimmed, cell, "P 41 21 2", anomalous=True, corrected=True)
    assert_same(got, wanted)
    uncorrected = merging_statistics(dimmed, cell, "P 41 21 2", anomalous=True)
    assert uncorrected.overall["r_meas"] > 2 * wanted.overall["r_meas"]

    dimmed.loc[dimmed.index[:3], "absorption_factor"] = [0.0, np.nan, -0.5]
    got = merging_statistics(dimmed, cell, "P 41 21 2", corrected=True)
    assert got.rejected["absorption_factor_not_positive"] == 3


@pytest.mark.parametrize("definition", list(DEFINITIONS))
@pytest.mark.parametrize("scale", [1e-3, 7.0])
def test_merging_statistics__a_common_scale_changes_nothing(definition, scale):
    table = random_table("P 31 2 1")
    cell = CASES["P 31 2 1"][0]
    settings = {"anomalous": True, "definition": definition, "sigma_definition": "larger"}
    scaled = table.assign(intensity=table["intensity"] * scale, sigma=table["sigma"] * scale)
    one = merging_statistics(table, cell, "P 31 2 1", **settings)
    other = merging_statistics(scaled, cell, "P 31 2 1", **settings)
    one.overall["mean_intensity"] *= scale
    one.shells["mean_intensity"] *= scale
    assert_same(one, other)


@pytest.mark.parametrize("name", ["P 1", "I 2 3", "R 3 :H"])
def test_merging_statistics__order_of_rows_changes_nothing(name):
    """Random half sets included."""
    table = random_table(name)
    shuffled = table.sample(frac=1, random_state=3)
    one, other = (
        merging_statistics(part, CASES[name][0], name, anomalous=True, seed=5) for part in (table, shuffled)
    )
    assert_same(one, other)


@pytest.mark.parametrize("name", ["P 1 21 1", "C 1 2/c 1", "P 41 21 2", "P 31 2 1", "R 3 :H", "F 4 3 2"])
@pytest.mark.parametrize("anomalous", [False, True])
def test_merging_statistics__symmetry_equivalent_indices_change_nothing(name, anomalous):
    table = random_table(name)
    moved = equivalent_indices(table, name)
    assert (moved[["h", "k", "l"]].to_numpy() != table[["h", "k", "l"]].to_numpy()).any()
    one, other = (
        merging_statistics(part, CASES[name][0], name, anomalous=anomalous) for part in (table, moved)
    )
    assert_same(one, other)


def equivalent_indices(table, name):
    """Each row's hkl by a random operation of the space group."""
    rng = np.random.default_rng(1)
    rotations = [
        np.array(op.rot) // op.DEN for op in gemmi.find_spacegroup_by_name(name).operations().sym_ops
    ]
    chosen = rng.integers(len(rotations), size=len(table))
    hkl = table[["h", "k", "l"]].to_numpy()
    moved = np.einsum("ni,nij->nj", hkl, np.array(rotations)[chosen])
    return table.assign(h=moved[:, 0], k=moved[:, 1], l=moved[:, 2])


def test_merging_statistics__inverted_indices_matter_only_where_mates_are_apart():
    table = random_table("P 21 21 21")
    cell = CASES["P 21 21 21"][0]
    sign = np.random.default_rng(2).choice([-1, 1], len(table))
    moved = table.assign(**{name: table[name] * sign for name in "hkl"})
    merged = [merging_statistics(part, cell, "P 21 21 21").overall for part in (table, moved)]
    columns = [name for name in COLUMNS if not name.startswith(("anomalous", "df", "di", "r_anom"))]
    assert list(merged[0][columns]) == pytest.approx(list(merged[1][columns]), rel=1e-10)
    apart = [merging_statistics(part, cell, "P 21 21 21", anomalous=True).overall for part in (table, moved)]
    # The signal of ± 4 % is mixed away: equivalents of one hand scatter more.
    assert apart[1]["r_meas"] > 1.05 * apart[0]["r_meas"]
    assert apart[1]["anomalous_cc"] < apart[0]["anomalous_cc"] / 2


def test_merging_statistics__shells_add_up_to_the_whole():
    table = random_table("P 41 21 2")
    for binning in ("volume", "count"):
        got = merging_statistics(table, CASES["P 41 21 2"][0], "P 41 21 2", shells=7, binning=binning)
        for column in COUNTS:
            assert got.shells[column].sum() == got.overall[column]
        edges = got.shells
        assert list(edges["d_max_angstrom"][1:]) == list(edges["d_min_angstrom"][:-1])
    assert got.shells["unique"].max() - got.shells["unique"].min() <= 3  # equal d stay together


def test_merging_statistics__shells_of_equal_volume():
    got = merging_statistics(random_table("P 1"), CASES["P 1"][0], "P 1", shells=6).shells
    volumes = got["d_min_angstrom"] ** -3 - got["d_max_angstrom"] ** -3
    # The limits are widened by 1e-6 of the range of 1/d² before it is divided.
    assert list(volumes) == pytest.approx([volumes.mean()] * 6, rel=1e-9)


@pytest.mark.parametrize("missing", [0, 1, 7])
def test_merging_statistics__completeness_counts_what_a_cube_of_indices_holds(missing):
    """P 1, a = 10 Å, to 2 Å: the half sphere h² + k² + l² ≤ 25, many of them at the very limit."""
    grid = np.stack(np.meshgrid(*[np.arange(-5, 6)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = grid[(np.sum(grid**2, axis=1) <= 25) & grid.any(axis=1)]
    half = inside[len(inside) // 2 :]
    # Of a row of equal d none may be the only one left at either limit.
    keep = np.ones(len(half), dtype=bool)
    keep[np.flatnonzero(np.sum(half**2, axis=1) == 9)[:missing]] = False
    table = pd.DataFrame(half[keep], columns=["h", "k", "l"]).assign(intensity=100.0, sigma=1.0)
    got = merging_statistics(table, CUBE, "P 1", shells=4).overall
    assert got["possible"] == len(half) == 257
    assert got["completeness"] == pytest.approx((257 - missing) / 257, rel=1e-14)
    apart = merging_statistics(table, CUBE, "P 1", shells=4, anomalous=True).overall
    assert apart["possible"] == 2 * 257
    assert apart["anomalous_completeness"] == 0


def test_merging_statistics__completeness_of_a_cubic_group_by_integers():
    """P 2₁ 3: one of h, k, l in cyclic order, h 0 0 only for even h; also iotbx's two fewer are there."""
    name, cell = "P 21 3", CASES["P 21 3"][0]
    got = merging_statistics(random_table(name), cell, name, anomalous=True).overall
    largest = round((cell[0] / got["d_min_angstrom"]) ** 2)
    smallest = round((cell[0] / got["d_max_angstrom"]) ** 2)
    n = int(np.sqrt(largest)) + 1
    seen = set()
    for h, k, l in np.ndindex(2 * n + 1, 2 * n + 1, 2 * n + 1):
        h, k, l = h - n, k - n, l - n
        if not smallest <= h * h + k * k + l * l <= largest:
            continue
        if [h, k, l].count(0) == 2 and (h + k + l) % 2:
            continue
        turned = [(h * a, k * b, l * c) for a, b, c in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))]
        seen.add(max(t for x, y, z in turned for t in ((x, y, z), (y, z, x), (z, x, y))))
    assert got["possible"] == len(seen)


def test_merging_statistics__given_limits_are_those_of_completeness():
    table = random_table("P 21 21 21")
    cell = CASES["P 21 21 21"][0]
    limits = {"d_max_angstrom": 12.0, "d_min_angstrom": 2.5}
    got = merging_statistics(table, cell, "P 21 21 21", **limits)
    assert got.rejected["outside_resolution"] > 0
    assert got.overall["d_max_angstrom"] == pytest.approx(12, rel=1e-12)
    assert got.overall["d_min_angstrom"] == pytest.approx(2.5, rel=1e-12)
    group = gemmi.find_spacegroup_by_name("P 21 21 21")
    assert got.overall["possible"] == gemmi.count_reflections(gemmi.UnitCell(*cell), group, 2.5, 12.0)
    beyond = merging_statistics(table, cell, "P 21 21 21", d_min_angstrom=1.0).overall
    assert beyond["d_min_angstrom"] == pytest.approx(1, rel=1e-12)
    assert beyond["completeness"] < 0.2  # a volume ratio of 1/8


def test_merging_statistics__empty_shells_and_single_reflections_give_nan_and_no_warning():
    table = make_table([(1, 0, 0, 100, 1), (5, 3, 1, 50, 1)])
    got = merging_statistics(table, TRICLINIC, "P 1", shells=5, anomalous=True)
    assert list(got.shells["observations"]) == [1, 0, 0, 0, 1]
    assert got.shells[["r_merge", "cc_half", "anomalous_cc", "df_over_f"]].isna().all().all()
    assert got.shells["i_over_sigma"].isna().sum() == 3
    single = merging_statistics(table[:1], TRICLINIC, "P 1", shells=1).overall
    assert (single["observations"], single["completeness"]) == (1, 1)
    assert got.as_dict()["overall"]["r_merge"] is None


def test_merging_statistics__names_its_definitions():
    got = merging_statistics(THREE, CUBE, "P 1 2 1", shells=1, definition="xds", half_set_draws=1)
    assert set(got.definitions) == set(COLUMNS) == set(got.overall.index)
    assert "XDS" in got.definitions["r_meas"] and "1/σ²" in got.definitions["r_meas"]
    assert "Friedel mates merged" in got.definitions["completeness"] + got.definitions["unique"]
    assert "one random halving" in got.definitions["cc_half"]
    hexagonal = merging_statistics(random_table("R 3 :H"), CASES["R 3 :H"][0], "R 3 :H")
    assert hexagonal.space_group == "R 3:H"  # with the setting
    table = got.as_table()
    assert list(table.index) == ["1", "overall"] and table["observations"].dtype == np.int64


def test_merged_intensities__of_weighted_scatter_by_the_formula():
    observations = accept_observations(
        THREE.assign(intensity=[90.0, 110.0, 120.0], sigma=[1.0, 1.0, 2.0]), CUBE, "P 1 2 1"
    )
    merged = group_equivalents(observations, separate_friedel=False)
    _, sigma = merged_intensities(merged, sigma_definition="larger")
    # V₁ = 2.25, V₂ = 2.0625; Σ w(I − ⟨I⟩)² = (110² + 70² + 160²/4)/81
    scatter = (110**2 + 70**2 + 160**2 / 4) / 81
    variance = 2.25 / (2.25**2 - 2.0625) * scatter
    assert sigma[0] == pytest.approx(np.sqrt(variance / 3), rel=1e-14)


def test_merging_statistics__one_observation_with_all_the_weight_decides_alone():
    table = THREE.assign(sigma=[1e-9, 1.0, 1.0])
    for sigma_definition in ("propagated", "larger"):
        got = merging_statistics(table, CUBE, "P 1 2 1", shells=1, sigma_definition=sigma_definition).overall
        assert got["mean_intensity"] == pytest.approx(80, rel=1e-14)
        assert got["i_over_sigma"] == pytest.approx(80e9, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"definition": "scala"}, "definition must be one of"),
        ({"sigma_definition": "scatter"}, "sigma_definition must be one of"),
        ({"binning": "equal"}, "binning must be one of"),
        ({"shells": 0}, "shells must be"),
        ({"shells": 2.5}, "shells must be"),
        ({"shells": 9, "binning": "count"}, "must not exceed"),
        ({"half_set_draws": 0}, "half_set_draws"),
        ({"space_group": "P 5"}, "Hermann–Mauguin"),
        ({"cell": (10, 10, 12, 90, 90, 90), "space_group": "P 2 3"}, "does not fit"),
        ({"cell": (10, 10, -12, 90, 90, 90)}, "all positive"),
        ({"cell": (10, 10, 12)}, "all positive"),
        ({"cell": (10, 10, 10, 20, 90, 90)}, "does not fit"),
        ({"corrected": True}, "absorption_factor"),
        ({"d_min_angstrom": 20.0}, "no observation"),
        ({"d_min_angstrom": 5.0, "d_max_angstrom": 4.0}, "must exceed"),
        ({"d_min_angstrom": -5.0}, "positive length"),
        ({"table": THREE.drop(columns="sigma")}, "missing \\['sigma'\\]"),
        ({"table": THREE.assign(h=0.5)}, "column h must hold whole numbers"),
        ({"table": THREE.assign(l=np.nan)}, "column l must hold whole numbers"),
        ({"table": THREE.assign(k=40_000)}, "within ±32000"),
        ({"table": THREE.assign(sigma=0.0)}, "rejected .*'sigma_not_positive': 3"),
        ({"table": THREE[:0]}, "no observation"),
        ({"seed": -1}, "seed"),
    ],
)
def test_merging_statistics__refuses(change, message):
    settings = {"table": THREE, "cell": CUBE, "space_group": "P 1 2 1", "shells": 1} | change
    with pytest.raises(InputError, match=message):
        merging_statistics(**settings)


def test_merging_statistics__takes_whole_numbers_in_floats_and_leaves_the_table_alone():
    table = random_table("I 2 3")
    before = table.copy()
    floats = table.astype({"h": "float32", "k": "float64", "l": "float64"})
    one, other = (merging_statistics(part, CASES["I 2 3"][0], "I 2 3") for part in (table, floats))
    assert_same(one, other)
    pd.testing.assert_frame_equal(table, before)
