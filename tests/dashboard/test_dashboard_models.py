"""The Models page: models side by side, decisions, ablations, and the arithmetic behind it."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import data, model_tables
from tests.dashboard.methods_example import ARMS, CASES, HOLDOUT_SHA, NEW, OLD
from tests.dashboard.opening import open_stage, said
from tomoforge.results import Table, publish

DECISION = "decision-00005-bbbbbb-00000005"


def open_models(app: Path, **address: str) -> AppTest:
    return open_stage(app, "models", **address)


def charts(at: AppTest) -> str:
    return "\n".join(
        json.dumps(json.loads(c.proto.spec), ensure_ascii=False) for c in at.get("vega_lite_chart")
    )


def frame_with(at: AppTest, *columns: str) -> pd.DataFrame:
    return next(box.value for box in at.dataframe if set(columns) <= set(box.value.columns))


def test_side_by_side__runs_classes_and_five_metrics_with_intervals(app: Path, example: Path) -> None:
    at = open_models(app)
    table = frame_with(at, "model", "class", *model_tables.METRICS)
    champion = f"★ {model_tables.short_key(NEW)}"
    assert table["model"].tolist()[:4] == [champion] * 4 and not table["model"][4:].str.contains("★").any()
    row = table[(table["model"] == champion) & (table["class"] == "crystal")].iloc[0]
    assert row["iou"] == "0.810 [0.780, 0.840]" and row["recall"] == "0.800 [0.770, 0.830]"
    # What was published with a model has no intervals.
    assert table[table["model"] == "model-41"].iloc[0]["iou"] == "0.892"
    assert NEW in said(at) and HOLDOUT_SHA in said(at)
    assert "IoU, mean over the cases" in charts(at)


def test_side_by_side__history_tells_who_decided_and_why(app: Path, example: Path) -> None:
    table = frame_with(open_models(app), "decision", "instead_of", "reason")
    assert table["model"].tolist() == [NEW, OLD] and table["instead_of"].tolist() == [OLD, "nobody"]
    assert "+1.70 points" in table["reason"][0] and "night 4" in table["reason"][0]


def test_side_by_side__metric_and_curves_are_in_the_address(app: Path, example: Path) -> None:
    at = open_models(app, metric="f2", curve="validation_loss", models="model-41")
    assert "F2, mean over the cases" in charts(at)
    assert "Validation loss, no unit" in charts(at)
    at = open_models(app, metric="../x", curve="<b>", models="nothing")
    assert "IoU, mean over the cases" in charts(at)


def test_decision__differences_by_class_and_case_around_zero(app: Path, example: Path) -> None:
    at = open_models(app, kind="promotions", item=DECISION, metric="recall")
    text = charts(at)
    assert "challenger − champion [points of IoU]" in text
    assert "challenger − champion [points of Recall]" in text
    assert '"datum": 0' in text
    assert HOLDOUT_SHA in said(at)
    cases = frame_with(at, "case", "set", "class", "value")
    assert len(cases) == len(CASES) * 4 and cases["value"].is_monotonic_increasing
    assert "Worst cases" in [box.value for box in at.subheader]
    assert at.selectbox[-1].options == ["Worst case 1", "Worst case 2"]


def test_decision__of_an_earlier_version_does_without(app: Path, example: Path) -> None:
    at = open_models(app, item="decision-00003-aaaaaa-00000003")
    assert "newer ones have them" in said(at)


def test_comparison__ablation_with_intervals_and_by_case(app: Path, example: Path) -> None:
    at = open_models(app, kind="comparisons", metric="precision", picture="worst_1_only_real")
    assert "Precision, mean over the cases" in charts(at)
    assert "difference [points of Precision]" in charts(at)
    assert f"{ARMS[2]} − {ARMS[0]} [points of Precision]" in charts(at)
    assert "dataset-0123456789abcdef0123" in said(at)


def test_models__each_view_says_which_command_fills_it(app: Path, workspace: Path) -> None:
    publish(workspace / "published", "models", "model-1", title="alone", summary={})
    at = open_models(app)
    assert "python -m flows promote" in said(at) and "No readable training curve" in said(at)
    assert "python -m flows promote" in open_models(app, kind="promotions").info[0].value
    assert "compare_training_sources" in open_models(app, kind="comparisons").info[0].value


def test_models__odd_tables_do_not_break_it(app: Path, example: Path) -> None:
    odd = pd.DataFrame({"set": ["a"], "class": [None], "difference": ["x"], "low": [None], "high": [None]})
    publish(
        example,
        "promotions",
        "odd",
        title="odd",
        summary={"decision": 3, "model": ["a"], "decided_at": {"x": 1}},
        tables={
            "gate": Table(odd, ""),
            "challenger": Table(pd.DataFrame({"class": [1], "measure": [2]}), ""),
            "case_differences": Table(odd.assign(case="c", iou="x"), ""),
        },
        provenance={"audit": {"evidence": []}, "inputs": 3},
    )
    open_models(app)
    open_models(app, item="odd")


# --- arithmetic -----------------------------------------------------------------------------------------


def test_champion__is_that_of_the_latest_promotion_or_rollback(example: Path) -> None:
    assert model_tables.champion_key(data.listing()) == NEW
    publish(
        example,
        "promotions",
        "decision-00006-cccccc-00000006",
        title="Refused another",
        summary={"decision": "refused", "model": "other", "decided_at": "2026-01-03T00:00:00+00:00"},
    )
    assert model_tables.champion_key(data.listing()) == NEW
    publish(
        example,
        "promotions",
        "decision-00007-dddddd-00000007",
        title="Rolled back",
        summary={"decision": "rolled back", "model": OLD, "decided_at": "2026-01-04T00:00:00+00:00"},
    )
    assert model_tables.champion_key(data.listing()) == OLD


def test_scores__one_entry_a_model_and_set_of_cases(example: Path) -> None:
    found = model_tables.scores_of(data.listing())
    assert [(s.key, s.cases) for s in found] == [
        (NEW, f"hold-out {HOLDOUT_SHA[:12]}"),
        (OLD, f"hold-out {HOLDOUT_SHA[:12]}"),
        ("model-41", "with the model"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.83 [0.79, 0.86]", (0.83, 0.79, 0.86)),
        ("0.830", (0.83, None, None)),
        (0.5, (0.5, None, None)),
        ("–", (None, None, None)),
        (None, (None, None, None)),
        ("1 2", (None, None, None)),
    ],
)
def test_read_interval__of_text_and_numbers(text: object, expected: tuple) -> None:
    found = [None if math.isnan(number) else number for number in model_tables.read_interval(text)]
    assert tuple(found) == expected


def test_arm_case_differences__seeds_are_averaged_first() -> None:
    rows = [("a", 1, 0.5), ("a", 2, 0.7), ("b", 1, 0.4), ("b", 2, 0.4)]
    cases = pd.DataFrame(
        [(arm, seed, "c", name, iou) for arm, seed, iou in rows for name in ("crystal", "background")],
        columns=["arm", "seed", "case", "class", "iou"],
    )
    (row,) = model_tables.arm_case_differences(cases, "a", "b", "iou").to_dict("records")
    assert (row["class"], row["value"]) == ("crystal", pytest.approx(20.0))
    assert model_tables.arm_case_differences(cases, "a", "none", "iou").empty


def test_curve__folds_are_averaged_and_dice_is_that_of_all_classes(example: Path) -> None:
    curve = pd.DataFrame(
        {
            "fold": [0, 0, 1, 1],
            "epoch": [1, 2, 1, 2],
            "pseudo_dice_a": [0.2, 0.4, 0.4, 0.8],
            "word": ["x"] * 4,
        }
    ).assign(pseudo_dice_b=0.0)
    tables = {"training_curve": Table(curve, "")}
    publish(example, "models", "crossed", title="crossed", summary={}, tables=tables)
    item = data.listing().find("crossed")
    assert item is not None
    found = model_tables.curve_of(item)
    assert found is not None and found["pseudo_dice"].tolist() == pytest.approx([0.15, 0.3])
    assert list(found["epoch"]) == [1, 2] and "fold" not in found


def test_hashes__of_whatever_the_provenance_holds(example: Path) -> None:
    dataset = {"key": "dataset-12", "checksum": "ab" * 32}
    publish(example, "models", "with", title="", summary={}, provenance={"inputs": {"dataset": dataset}})
    publish(example, "models", "without", title="", summary={}, provenance={"inputs": [1]})
    found = {name: data.listing().find(name) for name in ("with", "without")}
    assert model_tables.dataset_of(found["with"]) == f"dataset-12 {'ab' * 32}"
    assert model_tables.dataset_of(found["without"]) == ""
    assert model_tables.short_hash(f"dataset-12 {'ab' * 32}") == "ab" * 6
