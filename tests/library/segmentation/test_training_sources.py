"""What trains and what tests, and the arithmetic of the comparison, by hand."""

import numpy as np
import pandas as pd
import pytest

from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError
from tomoforge.segmentation.case_records import TrainingCase
from tomoforge.segmentation.dataset import write_dataset
from tomoforge.segmentation.evaluation import (
    MEAN,
    Bootstrap,
    evaluate_case,
    join_evaluations,
    paired_differences,
)
from tomoforge.segmentation.trainer import choose_split
from tomoforge.segmentation.training_sources import (
    ARMS,
    BOTH,
    PUBLISHED_IOU,
    REAL,
    SYNTHETIC,
    Round,
    SourcedCase,
    compare_sources,
    doubts,
    gain_points,
    mean_of_seeds,
    plan_rounds,
)
from tomoforge.segmentation.training_sources_picture import sources_picture
from tomoforge.volumes import LABEL_NAMES, write_labels, write_volume

VOXEL = 2.5e-6  # [m]


def case(name: str, source, group: str | None = None) -> SourcedCase:
    return SourcedCase(f"{name}-labels", source, group or name)


CASES = [
    case("r1", "real"),
    case("r2", "real"),
    case("p1", "pseudo"),
    case("f1", "forged"),
    case("f2", "forged"),
]


def names(*parts: str) -> tuple[str, ...]:
    return tuple(f"{part}-labels" for part in parts)


def test_plan_rounds__arms_are_chosen_by_source():
    (only,) = plan_rounds(CASES, [case("h1", "real"), case("h2", "real")])
    assert only.test == names("h1", "h2")
    assert dict(only.arms) == {
        REAL: names("r1", "r2", "p1"),
        SYNTHETIC: names("f1", "f2"),
        BOTH: names("r1", "r2", "p1", "f1", "f2"),
    }


def test_plan_rounds__without_holdout_each_real_case_is_held_back_once():
    rounds = plan_rounds(CASES, None)
    assert sorted(name for item in rounds for name in item.test) == sorted(names("r1", "r2", "p1"))
    for item in rounds:
        assert not set(item.test) & {name for arm in item.arms.values() for name in arm}
        # Forged cases train in every round, so the synthetic arm is one and the same.
        assert item.arms[SYNTHETIC] == names("f1", "f2")
        assert set(item.arms[BOTH]) == set(item.arms[REAL]) | set(item.arms[SYNTHETIC])
        assert len(item.arms[REAL]) == 2


def test_plan_rounds__groups_are_not_torn_and_rounds_are_five_at_most():
    cases = [case(f"r{n}", "real", f"g{n // 2}") for n in range(14)] + [
        case("f", "forged", "g0"),
        case("e", "forged"),
    ]
    rounds = plan_rounds(cases, None)
    assert len(rounds) == 5
    group = {c.name: c.group for c in cases}
    for item in rounds:
        held = {group[name] for name in item.test}
        trained = {group[name] for name in item.arms[BOTH]}
        assert not held & trained  # of the forged ones neither: f is of the sample of r0 and r1
    assert sorted(name for item in rounds for name in item.test) == sorted(c.name for c in cases[:14])


@pytest.mark.parametrize(
    ("cases", "holdout", "message"),
    [
        (CASES[:3], [case("h", "real")], "3 real ones and 0 forged"),
        (CASES[3:], [case("h", "real")], "0 real ones and 2 forged"),
        (CASES, [], "real cases alone, got none"),
        (CASES, [case("h", "forged")], "real cases alone.*h-labels"),
        (
            CASES,
            [SourcedCase("r1-corrected", "real", "x")],
            "nothing that trains.*r1-corrected",
        ),  # the volume
        (CASES, [case("h", "real", "f2")], "nothing that trains.*h-labels"),  # the sample
        ([*CASES[:1], *CASES[3:]], None, "two samples or more .* got 1"),
    ],
)
def test_plan_rounds__refuses(cases, holdout, message):
    with pytest.raises(InputError, match=message):
        plan_rounds(cases, holdout)


def scored(missing: dict[str, int], found: dict[str, int] | None = None) -> pd.DataFrame:
    """Scores of cases with 10 voxels of each class, of whose crystal ``missing`` are called background and so many
    background voxels are called crystal (``found``)."""
    parts = []
    for name, lost in missing.items():
        truth = np.zeros((1, 8, 10), np.uint8)
        truth[0, 0], truth[0, 2], truth[0, 4] = 1, 2, 3
        predicted = truth.copy()
        predicted[0, 4, :lost] = 0
        predicted[0, 6, : (found or {}).get(name, 0)] = 3
        parts.append(evaluate_case(name, truth, predicted, LABEL_NAMES, VOXEL))
    return join_evaluations(parts).scores


def crystal(scores: pd.DataFrame, name: str, column: str) -> float:
    return scores.set_index(["case", "class"]).loc[(name, "crystal"), column]


def test_mean_of_seeds__by_hand():
    mean = mean_of_seeds([scored({"a": 0, "b": 4}), scored({"a": 2, "b": 1}, {"b": 5})])
    assert crystal(mean, "a", "iou") == pytest.approx((1 + 0.8) / 2)
    assert crystal(mean, "b", "iou") == pytest.approx((6 / 10 + 9 / 15) / 2)
    assert crystal(mean, "b", "recall") == pytest.approx((0.6 + 0.9) / 2)
    # 7.5 found voxels round to even; what is missing makes them ten again.
    assert [crystal(mean, "b", c) for c in ("tp", "fn")] == [8, 2]
    assert (mean["tp"] + mean["fn"])[mean["class"] != "background"].eq(10).all()


def test_mean_of_seeds__what_one_seed_could_not_measure():
    never = mean_of_seeds([scored({"a": 10}), scored({"a": 0})])
    assert crystal(never, "a", "iou") == 0.5
    assert crystal(never, "a", "precision") == 1  # NaN with the seed that found nothing
    assert np.isinf(crystal(never, "a", "surface_distance_um"))  # that seed has no surface


def test_mean_of_seeds__refuses_other_cases_or_truths():
    with pytest.raises(InputError, match="same cases"):
        mean_of_seeds([scored({"a": 0}), scored({"b": 0})])
    with pytest.raises(InputError, match="one seed or more"):
        mean_of_seeds([])


ARMS_BY_HAND = {
    REAL: {1: scored({"a": 5, "b": 3, "c": 4}), 2: scored({"a": 7, "b": 3, "c": 4})},
    SYNTHETIC: {1: scored({"a": 2, "b": 2, "c": 6}), 2: scored({"a": 2, "b": 2, "c": 6})},
    BOTH: {1: scored({"a": 1, "b": 1, "c": 1}), 2: scored({"a": 1, "b": 0, "c": 1})},
}
BASELINE = {"Otsu": scored({"a": 9, "b": 9, "c": 9})}


@pytest.fixture(scope="module")
def comparison():
    return compare_sources(ARMS_BY_HAND, BASELINE)


def test_compare_sources__tables_by_hand(comparison):
    at = comparison.means.set_index(["model", "class", "measure"])
    assert list(dict.fromkeys(comparison.means["model"])) == ["Otsu", *ARMS]
    # Seeds first: case a of only real is (0.5 + 0.3)/2; liquor and loop are whole, so the mean is a third of that.
    assert at.loc[(REAL, "crystal", "iou"), "mean"] == pytest.approx((0.4 + 0.7 + 0.6) / 3)
    assert at.loc[(REAL, MEAN, "iou"), "mean"] == pytest.approx((2 + (0.4 + 0.7 + 0.6) / 3) / 3)
    assert at.loc[("Otsu", "crystal", "iou"), "mean"] == pytest.approx(0.1)
    difference = comparison.differences.set_index(["pair", "class", "measure"])
    gain = difference.loc[(f"{BOTH} − {REAL}", "crystal", "iou")]
    assert gain["difference"] == pytest.approx(((0.9 - 0.4) + (0.95 - 0.7) + (0.9 - 0.6)) / 3)
    assert (
        0.25 <= gain["low"] < gain["difference"] < gain["high"] <= 0.5
    )  # of the three, the least and greatest
    seeds = comparison.seeds.set_index(["arm", "seed", "class"])["iou"]
    assert seeds[REAL, 2, "crystal"] == pytest.approx((0.3 + 0.7 + 0.6) / 3)


def test_compare_sources__intervals_are_those_of_the_evaluation():
    bootstrap = Bootstrap(confidence=0.8, resamples=500, seed=3)
    found = compare_sources(ARMS_BY_HAND, BASELINE, bootstrap).differences
    averaged = [mean_of_seeds(list(ARMS_BY_HAND[arm].values())) for arm in (SYNTHETIC, REAL)]
    expected = paired_differences(*averaged, bootstrap)
    mine = found[found["pair"] == f"{SYNTHETIC} − {REAL}"].drop(columns="pair").reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, expected)


def test_compare_sources__published_stand_beside_and_apart(comparison):
    table = comparison.published.set_index(["arm", "measure"])["published_on_other_data"]
    assert {arm: table[arm, "mean IoU"] for arm in ARMS} == dict(PUBLISHED_IOU)
    assert table[BOTH, "recall of the crystal"] == 0.922
    assert np.isnan(table[SYNTHETIC, "recall of the crystal"])


def test_compare_sources__refuses_what_cannot_be_compared():
    with pytest.raises(InputError, match="got none of only synthetic"):
        compare_sources({arm: ARMS_BY_HAND[arm] for arm in (REAL, BOTH)}, BASELINE)
    with pytest.raises(InputError, match="same case"):
        compare_sources({**ARMS_BY_HAND, BOTH: {1: scored({"a": 1})}}, BASELINE)


def test_gain_points__of_the_mean_iou(comparison):
    gain, low, high = gain_points(comparison.differences)
    assert gain == pytest.approx(100 * ((0.5 + 0.25 + 0.3) / 3) / 3)
    assert low < gain < high
    with pytest.raises(InputError, match="pair"):
        gain_points(comparison.differences, (REAL, BOTH))


def test_doubts__say_what_the_numbers_do_not(comparison):
    many = [Round({}, names(*"abcdef"))]
    (found,) = doubts(comparison, many, seeds=2, crossed=False)
    assert found.startswith("only synthetic and only real are not told apart")  # +0.4, +0.1 and −0.2
    few = doubts(comparison, [Round({}, names("a"))], seeds=1, crossed=True)
    assert [any(word in text for text in few) for word in ("no hold-out", "Only 1 real", "One seed")] == [
        True
    ] * 3
    swapped = {**ARMS_BY_HAND, BOTH: ARMS_BY_HAND[REAL], REAL: ARMS_BY_HAND[BOTH]}
    assert any(
        "did not help" in text for text in doubts(compare_sources(swapped, {}), many, seeds=2, crossed=False)
    )


def test_sources_picture__same_numbers_same_bytes(comparison):
    png = sources_picture(comparison, "by hand")
    assert png.startswith(b"\x89PNG") and png == sources_picture(comparison, "by hand")
    less = {arm: {1: scored({"a": 1})} for arm in ARMS}  # one case: no interval
    assert sources_picture(compare_sources(less, {}), "by hand") != png


def test_choose_split__all_cases_may_train_if_all_are_measured_on(tmp_path):
    cases = []
    for n in range(2):
        volume, labels = phantom(n, 16)
        write_volume(tmp_path / f"v{n}.zarr", volume, VOXEL)
        write_labels(tmp_path / f"l{n}.zarr", labels, VOXEL)
        cases.append(TrainingCase(f"c{n}", tmp_path / f"v{n}.zarr", tmp_path / f"l{n}.zarr"))
    write_dataset(tmp_path / "raw", cases)
    both = ["c0", "c1"]
    assert choose_split(tmp_path / "raw", 0, [{"train": both, "val": both}]) == {"train": both, "val": both}
    with pytest.raises(InputError, match=r"c1.* in both"):  # as if it were held back
        choose_split(tmp_path / "raw", 0, [{"train": both, "val": ["c1"]}])
