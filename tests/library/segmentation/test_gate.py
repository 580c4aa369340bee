"""The gate: what it promotes, what it refuses, and what it says of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tomoforge.errors import InputError
from tomoforge.segmentation.evaluation import MEAN, SCORE_COLUMNS
from tomoforge.segmentation.gate import (
    HOLDOUT,
    REGRESSION,
    Comparison,
    FrozenSet,
    GateRules,
    judge,
    rules_record,
)
from tomoforge.storage import to_json

RULES = GateRules()
SEEN = Comparison(new_cases=2)
BY_HAND = Comparison(by_hand=True)


def scores(**iou: Sequence[float] | float) -> pd.DataFrame:
    """CaseScores of four cases; a class's IoU in each, or the same in all."""
    rows = [
        {**dict.fromkeys(SCORE_COLUMNS, 0.5), "case": f"c{n}", "class": name, "iou": value, "tp": 9, "fn": 1}
        for name, values in iou.items()
        for n, value in enumerate(np.broadcast_to(values, 4))
    ]
    return pd.DataFrame(rows)


CHAMPION = scores(background=0.99, liquor=[0.7, 0.8, 0.75, 0.72], loop=0.5, crystal=[0.9, 0.6, 0.8, 0.7])


def moved(by: Mapping[str, Sequence[float] | float]) -> pd.DataFrame:
    """The champion's scores, some classes of them moved."""
    changed = CHAMPION.copy()
    for name, difference in by.items():
        changed.loc[changed["class"] == name, "iou"] += difference
    return changed


def row(table: pd.DataFrame, name: str, of: str = HOLDOUT) -> dict[str, Any]:
    return table[(table["set"] == of) & (table["class"] == name)].iloc[0].to_dict()


def test_judge__promotes_a_better_one_and_says_why():
    verdict = judge(CHAMPION, moved({"crystal": [0.02, 0.05, 0.03, 0.04]}), RULES, SEEN)
    assert verdict.promote
    assert "better: +1.17 points" in verdict.reasons[0]
    # Mean of the four: 3.5 points, a third of it in the mean over three classes.
    assert row(verdict.table, "crystal")["difference"] == pytest.approx(0.035)
    assert row(verdict.table, MEAN)["difference"] == pytest.approx(0.035 / 3)
    assert row(verdict.table, "crystal")["cases"] == 4
    assert "background" not in set(verdict.table["class"])


def test_judge__the_difference_is_paired():
    """Cases differ by 30 points; one point gained in each of them is seen all the same."""
    verdict = judge(CHAMPION, moved({"crystal": 0.01, "liquor": 0.01}), RULES, SEEN)
    found = row(verdict.table, "crystal")
    assert verdict.promote
    assert (found["low"], found["high"]) == pytest.approx((0.01, 0.01))


def test_judge__equal_needs_new_cases():
    assert not judge(CHAMPION, CHAMPION, RULES, Comparison()).promote
    refused = judge(CHAMPION, CHAMPION, RULES, BY_HAND)
    assert not refused.promote and "not better (+0.00 points" in refused.reasons[0]
    promoted = judge(CHAMPION, CHAMPION, RULES, SEEN)
    assert promoted.promote and "not worse" in promoted.reasons[0]


def test_judge__better_without_new_cases_is_for_a_person():
    better = moved({"crystal": 0.03})
    refused = judge(CHAMPION, better, RULES, Comparison(new_cases=1))
    assert not refused.promote
    assert refused.reasons == ("it has seen 1 new real cases, 2 are asked for without a person",)
    assert judge(CHAMPION, better, RULES, BY_HAND).promote


@pytest.mark.parametrize(("fall", "promoted"), [(0.0099, True), (0.01, True), (0.0102, False)])
def test_judge__no_class_may_fall_by_more_than_a_point(fall: float, promoted: bool):
    verdict = judge(CHAMPION, moved({"crystal": 0.10, "loop": -fall}), RULES, SEEN)
    assert row(verdict.table, MEAN)["difference"] > 0.02
    assert verdict.promote is promoted
    if not promoted:
        assert "loop changes by -1.02 points of IoU over 4 cases" in verdict.reasons[0]


def test_judge__the_mean_may_not_fall_at_all():
    verdict = judge(CHAMPION, moved({"loop": -0.002}), RULES, SEEN)
    assert not verdict.promote and "the mean over classes changes by -0.07" in verdict.reasons[0]


def test_judge__by_interval_is_stricter():
    uneven = moved({"crystal": 0.2, "loop": [0.05, 0.05, 0.05, -0.1]})  # on the average +1.25 points
    assert judge(CHAMPION, uneven, RULES, SEEN).promote
    refused = judge(CHAMPION, uneven, GateRules(by_interval=True), SEEN)
    assert not refused.promote and "loop changes by +1.25" in refused.reasons[0]


def test_judge__floor():
    low = scores(liquor=0.6, loop=0.29, crystal=0.9)
    for champion in (None, scores(liquor=0.5, loop=0.2, crystal=0.5)):
        verdict = judge(champion, low, RULES, SEEN)
        assert not verdict.promote
        assert verdict.reasons == ("loop reaches an IoU of 0.290, its floor is 0.300",)
    never = scores(liquor=0.6, loop=float("nan"), crystal=0.9)
    assert "IoU of nan" in judge(None, never, RULES).reasons[0]


def test_judge__without_a_champion_the_floor_decides():
    assert judge(None, CHAMPION, RULES).promote
    assert judge(None, CHAMPION, RULES).table["champion"].isna().all()


def test_judge__few_cases_tell_nothing():
    two = ["c0", "c1"]
    champion, better = (s[s["case"].isin(two)] for s in (CHAMPION, moved({"crystal": 0.1})))
    refused = judge(champion, better, RULES, SEEN)
    assert refused.reasons == ("the hold-out has 2 cases, a comparison needs 3",)


def test_judge__a_class_wrongly_seen_where_there_is_none_counts():
    """There is no loop in c0; one of them sees one."""
    right = moved({})
    right.loc[(right["class"] == "loop") & (right["case"] == "c0"), "iou"] = np.nan
    wrong = right.fillna({"iou": 0.0})
    same = judge(right, right, RULES, SEEN)
    assert row(same.table, "loop")["cases"] == 3
    refused = judge(right, wrong, RULES, SEEN)
    assert row(refused.table, "loop")["worst_case"] == -1.0
    assert not refused.promote
    assert judge(wrong, right, RULES, SEEN).promote


def test_judge__regression_set_guards_each_case():
    better = moved({"crystal": 0.05})
    one_bad = moved({"crystal": [0.04, 0.04, 0.04, -0.06]})
    fine = Comparison(new_cases=2, regression=(CHAMPION, better))
    assert judge(CHAMPION, better, RULES, fine).promote
    refused = judge(CHAMPION, better, RULES, Comparison(new_cases=2, regression=(CHAMPION, one_bad)))
    assert row(refused.table, "crystal", REGRESSION)["difference"] > 0
    assert refused.reasons == (
        "crystal falls by 6.00 points in one case of the regression set; it may by 5.00 points",
    )


def test_judge__refuses_when_a_frozen_set_changed_or_was_left_out():
    frozen = FrozenSet.of(HOLDOUT, ["a", "b", "c"])
    better = moved({"crystal": 0.05})
    same = Comparison(frozen=[frozen], measured=[FrozenSet.of(HOLDOUT, ["c", "b", "a"])], new_cases=2)
    assert judge(CHAMPION, better, RULES, same).promote
    changed = Comparison(frozen=[frozen], measured=[FrozenSet.of(HOLDOUT, ["a", "b", "d"])], by_hand=True)
    for champion in (CHAMPION, None):
        refused = judge(champion, better, RULES, changed)
        assert not refused.promote
        assert "the holdout set has changed" in refused.reasons[0]
        assert "1 cases gone or altered, 1 not known" in refused.reasons[0]
    assert "was not scored" in judge(CHAMPION, better, RULES, Comparison(frozen=[frozen])).reasons[0]


def test_judge__refuses_one_that_was_trained_on_the_test():
    refused = judge(None, CHAMPION, RULES, Comparison(leaked=["c0ffee"], by_hand=True))
    assert refused.reasons == ("the challenger was trained on the test case c0ffee",)


def test_judge__rolled_back_comes_back_only_by_hand():
    better = moved({"crystal": 0.05})
    assert not judge(CHAMPION, better, RULES, Comparison(new_cases=5, rolled_back="by Ada")).promote
    assert judge(CHAMPION, better, RULES, Comparison(by_hand=True, rolled_back="by Ada")).promote


def test_judge__every_reason_against_is_said():
    worse = moved({"crystal": -0.3, "loop": -0.25})
    reasons = " ".join(judge(CHAMPION, worse, RULES, Comparison()).reasons)
    for part in (
        "loop reaches",
        "crystal reaches",
        "the mean over",
        "crystal changes",
        "loop changes",
        "seen 0",
    ):
        assert part in reasons


def test_judge__refuses_scores_that_do_not_fit():
    with pytest.raises(InputError, match="same case values"):
        judge(CHAMPION, CHAMPION[CHAMPION["case"] != "c1"], RULES)
    with pytest.raises(InputError, match="same class values"):
        judge(scores(liquor=0.7, loop=0.7, crystal=0.7, film=0.7), scores(liquor=0.7, loop=0.7, crystal=0.7))
    with pytest.raises(InputError, match="same truth"):
        judge(CHAMPION, CHAMPION.assign(fn=2), RULES)
    with pytest.raises(InputError, match="every class that has a floor"):
        judge(None, CHAMPION[CHAMPION["class"] != "loop"], RULES)
    with pytest.raises(InputError, match="iou missing"):
        judge(None, CHAMPION.drop(columns="iou"), RULES)
    with pytest.raises(InputError, match="once"):
        judge(None, pd.concat([CHAMPION, CHAMPION]), RULES)


def test_verdict__evidence_is_json():
    text = to_json(
        {**judge(None, CHAMPION, RULES).evidence(), "rules": rules_record(RULES)}  # NaN would be refused
    )
    assert '"champion": null' in text


def test_frozen_set__order_does_not_matter_content_does():
    assert FrozenSet.of(HOLDOUT, ["b", "a"]) == FrozenSet.of(HOLDOUT, ["a", "b"])
    assert FrozenSet.of(HOLDOUT, ["a"]).sha256 != FrozenSet.of(REGRESSION, ["a"]).sha256
    for cases in ([], ["a", "a"]):
        with pytest.raises(InputError, match="frozen set"):
            FrozenSet.of(HOLDOUT, cases)


@pytest.mark.parametrize(
    "wrong",
    [
        {"class_fall": 1.0001},
        {"mean_fall": -0.1},
        {"floor": {"loop": 70}},
        {"confidence": 95},
        {"least_cases": 0},
    ],
)
def test_gate_rules__refuse_what_makes_no_sense(wrong: dict[str, Any]):
    with pytest.raises(InputError, match=next(iter(wrong))):
        GateRules(**wrong)
