"""Scores over cases, their intervals, paired comparisons, worst cases and pictures."""

import io
import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError
from tomoforge.segmentation.evaluation import (
    MEASURES,
    SCORE_COLUMNS,
    Bootstrap,
    case_differences,
    check_scores,
    compare_models,
    evaluate_case,
    join_evaluations,
    mean_scores,
    paired_differences,
    table_of_means,
    worst_cases,
)
from tomoforge.segmentation.metrics import METRICS, class_metrics, confusion_matrix
from tomoforge.segmentation.pictures import case_picture, confusion_picture, worst_slices
from tomoforge.segmentation.surface_distance import surface_distances
from tomoforge.volumes import LABEL_NAMES, open_level, write_labels, write_volume

VOXEL = 0.5e-6  # [m]
NAN = float("nan")
ROUNDING = 1e-12  # means of a handful of float64, summed in another order


def shifted_case(seed: int, shift: int):
    """The evaluation of a phantom whose prediction is off by `shift` voxels."""
    _, truth = phantom(seed, 24)
    return evaluate_case(f"case{seed}", truth, np.roll(truth, shift, axis=2), LABEL_NAMES, VOXEL)


def scores_of(iou: dict[str, list[float]], **columns: dict[str, list[float]]) -> pd.DataFrame:
    """CaseScores with the given values of a class in each case; all else is 0.5, of ten true voxels."""
    rows = []
    for name, values in iou.items():
        for case, value in enumerate(values):
            row = dict.fromkeys(SCORE_COLUMNS, 0.5) | {"case": f"{case:02d}", "class": name, "iou": value}
            row |= {"tp": 5, "fp": 5, "fn": 5}
            row |= {column: given[name][case] for column, given in columns.items() if name in given}
            rows.append(row)
    return pd.DataFrame(rows)[list(SCORE_COLUMNS)]


def row_of(table: pd.DataFrame, name: str, measure: str = "iou") -> pd.Series:
    found = table[(table["class"] == name) & (table["measure"] == measure)]
    assert len(found) == 1
    return found.iloc[0]


def test_evaluate_case__holds_metrics_counts_and_distances_of_every_class():
    _, truth = phantom(0, 24)
    prediction = np.roll(truth, 2, axis=1)
    found = evaluate_case("a1b2", truth, prediction, LABEL_NAMES, VOXEL)
    assert list(found.scores.columns) == list(SCORE_COLUMNS)
    assert list(found.scores["class"]) == list(LABEL_NAMES)
    assert set(found.scores["case"]) == {"a1b2"}
    np.testing.assert_array_equal(
        found.scores[list(METRICS)], class_metrics(truth, prediction, LABEL_NAMES)[list(METRICS)]
    )
    distances = surface_distances(truth, prediction, LABEL_NAMES, VOXEL)["mean_surface_distance"]
    np.testing.assert_allclose(found.scores["surface_distance_um"], 1e6 * distances, rtol=ROUNDING)
    np.testing.assert_array_equal(found.confusion, confusion_matrix(truth, prediction, LABEL_NAMES))
    crystal = found.scores.set_index("class").loc["crystal"]
    assert crystal["tp"] + crystal["fn"] == np.count_nonzero(truth == LABEL_NAMES["crystal"])
    assert crystal["tp"] + crystal["fp"] == np.count_nonzero(prediction == LABEL_NAMES["crystal"])


def test_evaluate_case__background_may_be_left_out():
    _, truth = phantom(0, 16)
    names = {name: value for name, value in LABEL_NAMES.items() if value}
    found = evaluate_case("a", truth, truth, names, VOXEL)
    assert list(found.scores["class"]) == list(names)
    assert list(found.confusion.index) == ["background", *names]


def test_join_evaluations__adds_confusion_and_does_not_depend_on_the_order():
    parts = [shifted_case(seed, seed) for seed in range(3)]
    one, other = join_evaluations(parts), join_evaluations(parts[::-1])
    pd.testing.assert_frame_equal(one.scores, other.scores)
    pd.testing.assert_frame_equal(one.confusion, other.confusion)
    assert one.confusion.to_numpy().sum() == 3 * 24**3
    assert parts[0].confusion.to_numpy().sum() == 24**3  # the parts stay as they were
    assert list(one.scores["case"].unique()) == ["case0", "case1", "case2"]


def test_mean_scores__is_the_mean_over_cases_and_leaves_the_background_out_of_mean():
    scores = scores_of({"background": [1.0, 1.0], "loop": [0.2, 0.4], "crystal": [0.6, 1.0]})
    found = mean_scores(scores)
    assert row_of(found, "crystal")["mean"] == pytest.approx(0.8, rel=ROUNDING)
    assert row_of(found, "mean")["mean"] == pytest.approx((0.4 + 0.7) / 2, rel=ROUNDING)
    assert list(found.columns) == ["class", "measure", "mean", "low", "high", "cases"]
    assert len(found) == 4 * len(MEASURES)
    assert (found["cases"] == 2).all()


def test_mean_scores__leaves_out_what_was_not_there_and_says_over_how_many():
    scores = scores_of(
        {"loop": [NAN, 0.4, 0.6], "crystal": [0.5, 0.5, 0.5]},
        surface_distance_um={"loop": [NAN, math.inf, 3.0]},
    )
    found = mean_scores(scores)
    assert row_of(found, "loop")["mean"] == pytest.approx(0.5, rel=ROUNDING)
    assert row_of(found, "loop")["cases"] == 2
    assert row_of(found, "mean")["cases"] == 3
    distance = row_of(found, "loop", "surface_distance_um")
    assert (distance["mean"], distance["cases"]) == (3.0, 1)
    assert math.isnan(distance["low"]) and math.isnan(distance["high"])


def test_mean_scores__class_that_is_in_no_case_has_no_mean():
    found = row_of(mean_scores(scores_of({"loop": [NAN, NAN], "crystal": [0.5, 0.6]})), "loop")
    assert found["cases"] == 0
    assert found[["mean", "low", "high"]].isna().all()


def test_mean_scores__one_case_has_no_interval():
    found = row_of(mean_scores(scores_of({"crystal": [0.7]})), "crystal")
    assert found["mean"] == 0.7 and math.isnan(found["low"]) and math.isnan(found["high"])


def test_mean_scores__equal_cases_have_an_interval_of_no_width():
    found = row_of(mean_scores(scores_of({"crystal": [0.7] * 6})), "crystal")
    assert found["low"] == pytest.approx(0.7, rel=ROUNDING) and found["high"] == pytest.approx(
        0.7, rel=ROUNDING
    )


def test_mean_scores__depends_on_the_seed_and_on_no_order_of_rows():
    values = np.random.default_rng(0).uniform(0.3, 0.9, 8).tolist()
    scores = scores_of({"loop": values, "crystal": values[::-1]})
    once = mean_scores(scores, Bootstrap(seed=3))
    pd.testing.assert_frame_equal(mean_scores(scores, Bootstrap(seed=3)), once)
    by_case = scores.sort_values(["case", "class"], ascending=[False, False], ignore_index=True)
    shuffled = mean_scores(by_case, Bootstrap(seed=3)).set_index(["class", "measure"])
    expected = once.set_index(["class", "measure"])
    pd.testing.assert_frame_equal(shuffled.loc[expected.index], expected, rtol=ROUNDING)
    assert row_of(mean_scores(scores, Bootstrap(seed=4)), "loop")["low"] != row_of(once, "loop")["low"]


def test_mean_scores__interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(2).beta(5, 2, 20)
    found = row_of(
        mean_scores(scores_of({"crystal": values.tolist()}), Bootstrap(resamples=20000)), "crystal"
    )
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    # Both quantiles carry the noise of 20000 draws: √(0.025·0.975/20000)/density, some 2 % of the standard error.
    error = values.std() / math.sqrt(len(values))
    assert found["low"] == pytest.approx(theirs.low, abs=0.1 * error)
    assert found["high"] == pytest.approx(theirs.high, abs=0.1 * error)


def test_mean_scores__intervals_hold_the_truth_about_as_often_as_they_say():
    cases, tries = 30, 300
    values = np.random.default_rng(5).beta(4, 2, (tries, cases))
    scores = scores_of({f"class {n}": row.tolist() for n, row in enumerate(values)})
    found = mean_scores(scores, Bootstrap(confidence=0.9))
    found = found[(found["measure"] == "iou") & (found["class"] != "mean")]
    held = ((found["low"] <= 4 / 6) & (4 / 6 <= found["high"])).to_numpy()
    assert len(held) == tries
    # 90 % less what 30 cases take away (about 1.5 %); three standard errors of 300 tries are 5 %.
    assert 0.83 < held.mean() < 0.95


def test_mean_scores__wider_for_more_confidence():
    scores = scores_of({"crystal": np.linspace(0.2, 0.9, 9).tolist()})
    wide, narrow = (row_of(mean_scores(scores, Bootstrap(confidence=c)), "crystal") for c in (0.99, 0.5))
    assert wide["low"] < narrow["low"] < narrow["mean"] < narrow["high"] < wide["high"]


def test_paired_differences__constant_gain_has_no_doubt_however_cases_scatter():
    values = np.random.default_rng(1).uniform(0.2, 0.8, 10)
    old = scores_of({"crystal": values.tolist()})
    new = scores_of({"crystal": (values + 0.1).tolist()})
    found = row_of(paired_differences(new, old), "crystal")
    for name in ("difference", "low", "high"):
        assert found[name] == pytest.approx(0.1, rel=1e-9)
    # Unpaired, the scatter of the cases would hide it.
    assert row_of(mean_scores(old), "crystal")["high"] > row_of(mean_scores(new), "crystal")["low"]


def test_paired_differences__change_sign_with_their_arguments():
    rng = np.random.default_rng(2)
    one, other = (
        scores_of({"loop": rng.random(7).tolist(), "crystal": rng.random(7).tolist()}) for _ in range(2)
    )
    there, back = paired_differences(one, other), paired_differences(other, one)
    np.testing.assert_allclose(there["difference"], -back["difference"], rtol=ROUNDING)
    np.testing.assert_allclose(there["low"], -back["high"], rtol=1e-9, atol=1e-15)
    same = paired_differences(one, one)
    assert (same[["difference", "low", "high"]] == 0).all(axis=None)


def test_paired_differences__row_order_does_not_matter():
    one, other = scores_of({"crystal": [0.1, 0.2, 0.9]}), scores_of({"crystal": [0.2, 0.2, 0.5]})
    expected = paired_differences(one, other)
    pd.testing.assert_frame_equal(paired_differences(one[::-1], other), expected)


def test_paired_differences__inventing_a_class_counts_against_a_model():
    # No loop in case 0: the old model shows none (nothing to measure), the new one does (0).
    counts = {"tp": {"loop": [0, 5]}, "fn": {"loop": [0, 5]}}
    old = scores_of({"loop": [NAN, 0.5]}, f1={"loop": [NAN, 0.5]}, precision={"loop": [NAN, 0.5]}, **counts)
    new = scores_of({"loop": [0.0, 0.5]}, f1={"loop": [0.0, 0.5]}, precision={"loop": [0.0, 0.5]}, **counts)
    found = paired_differences(new, old)
    assert row_of(found, "loop", "iou")["difference"] == -0.5  # −1 and 0 over two cases
    assert row_of(found, "loop", "f1")["cases"] == 2
    assert row_of(found, "loop", "precision")["cases"] == 1  # who predicts nothing has no precision
    nowhere = scores_of({"loop": [NAN, 0.5]}, **counts)
    assert row_of(paired_differences(nowhere, nowhere), "loop", "iou")["cases"] == 1


def test_paired_differences__mean_of_classes_is_over_the_same_classes():
    old = scores_of(
        {"loop": [0.5, 0.5], "crystal": [0.5, 0.5]}, precision={"loop": [NAN, 0.2], "crystal": [0.8, 0.8]}
    )
    new = scores_of(
        {"loop": [0.5, 0.5], "crystal": [0.5, 0.5]}, precision={"loop": [0.2, 0.2], "crystal": [0.8, 0.8]}
    )
    assert row_of(paired_differences(new, old), "mean", "precision")["difference"] == 0


def test_case_differences__are_what_the_means_are_made_of():
    new = scores_of({"crystal": [0.9, 0.7, NAN], "loop": [0.4, NAN, 0.6]})
    old = scores_of({"crystal": [0.8, 0.9, 0.5], "loop": [0.5, NAN, 0.3]})
    found = case_differences(new, old)
    assert list(found.columns[:2]) == ["case", "class"] and set(MEASURES) <= set(found.columns)
    crystal = found[found["class"] == "crystal"]["iou"].tolist()
    assert crystal == pytest.approx([0.1, -0.2, 0.5])  # rightly nothing counts as 1
    assert found[found["class"] == "loop"]["iou"].isna().tolist() == [False, True, False]
    means = paired_differences(new, old)
    for name in ("crystal", "loop", "mean"):
        # Sums of a handful of float64 in another order.
        assert found[found["class"] == name]["iou"].mean() == pytest.approx(row_of(means, name)["difference"])


def test_paired_differences__refuse_other_cases_classes_and_truths():
    scores = scores_of({"loop": [0.5, 0.5], "crystal": [0.5, 0.5]})
    with pytest.raises(InputError, match="same case values, got 1 in one alone: \\['01'\\]"):
        paired_differences(scores, scores[scores["case"] == "00"])
    with pytest.raises(InputError, match="same class values"):
        paired_differences(scores[scores["class"] == "loop"], scores)
    altered = scores.copy()
    altered.loc[(altered["case"] == "01") & (altered["class"] == "crystal"), "fn"] += 1
    with pytest.raises(InputError, match="true voxels of crystal in case 01"):
        paired_differences(altered, scores)


def test_compare_models__puts_models_under_each_other():
    good, bad = scores_of({"crystal": [0.9, 0.8]}), scores_of({"crystal": [0.3, 0.4]})
    table = compare_models({"nnU-Net": good, "Otsu": bad})
    assert list(table["model"].unique()) == ["nnU-Net", "Otsu"]
    text = table_of_means(table, ("iou",))
    assert list(text.columns) == ["model", "class", "iou"]
    assert text.loc[0, "iou"] == "0.850 [0.800, 0.900]"  # the draws of two cases: their ends
    assert list(text["model"]) == ["nnU-Net", "nnU-Net", "Otsu", "Otsu"]
    assert list(text["class"]) == ["crystal", "mean"] * 2
    with pytest.raises(InputError, match="same case"):
        compare_models({"a": good, "b": scores_of({"crystal": [0.3]})})


def test_table_of_means__says_where_nothing_was_measured():
    text = table_of_means(mean_scores(scores_of({"loop": [NAN], "crystal": [0.25]})), ("iou",))
    assert text.set_index("class")["iou"].to_dict() == {"loop": "–", "crystal": "0.250", "mean": "0.250"}


def test_worst_cases__are_ranked_with_their_worst_class():
    scores = scores_of(
        {"background": [0.0] * 4, "loop": [0.9, 0.1, 0.5, NAN], "crystal": [0.9, 0.9, 0.3, 0.3]}
    )
    found = worst_cases(scores, 3)
    assert list(found["case"]) == ["03", "02", "01"]
    np.testing.assert_allclose(found["score"], [0.3, 0.4, 0.5], rtol=ROUNDING)
    assert list(found["worst_class"]) == ["crystal", "crystal", "loop"]
    assert list(found["worst_score"]) == [0.3, 0.3, 0.1]
    assert list(worst_cases(scores, 9, class_name="loop")["case"]) == ["01", "02", "00"]


def test_worst_cases__far_surfaces_are_worse_and_missing_ones_worst():
    scores = scores_of({"crystal": [0.5] * 3}, surface_distance_um={"crystal": [1.0, math.inf, 7.0]})
    found = worst_cases(scores, measure="surface_distance_um")
    assert list(found["case"]) == ["01", "02", "00"]
    assert list(found["worst_score"]) == [math.inf, 7.0, 1.0]


def test_worst_cases__ties_come_in_the_order_of_names():
    scores = scores_of({"crystal": [0.5, 0.5, 0.5]})
    assert list(worst_cases(scores[::-1], 2)["case"]) == ["00", "01"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: worst_cases(s, measure="dice"), "measure must be one of recall"),
        (lambda s: worst_cases(s, class_name="ice"), "class_name must be one of"),
        (lambda s: worst_cases(s, 0), "count must be at least 1"),
        (lambda s: check_scores(s.drop(columns="fn")), "fn missing"),
        (lambda s: check_scores(s[:0]), "at least one case"),
        (lambda s: check_scores(pd.concat([s, s[:1]])), "loop of case 00 twice"),
        (lambda s: check_scores(s[1:]), "every class of every case"),
        (lambda s: compare_models({}), "at least one model"),
        (lambda s: join_evaluations([]), "at least one case"),
        (lambda s: Bootstrap(confidence=95), "between 0 and 1"),
        (lambda s: Bootstrap(resamples=10), "at least 100"),
    ],
)
def test_evaluation__refuses_what_it_cannot_use(call, message):
    with pytest.raises(InputError, match=message):
        call(scores_of({"loop": [0.5, 0.5], "crystal": [0.5, 0.5]}))


def test_join_evaluations__refuses_a_case_twice_and_other_classes():
    one = shifted_case(0, 1)
    with pytest.raises(InputError, match="case0 twice"):
        join_evaluations([one, one])
    _, truth = phantom(1, 16)
    other = evaluate_case("b", truth, truth, {**LABEL_NAMES, "ice": 4}, VOXEL)
    with pytest.raises(InputError, match="same classes"):
        join_evaluations([one, other])


def test_evaluate_case__refuses_no_name_and_a_class_called_mean():
    _, truth = phantom(1, 16)
    with pytest.raises(InputError, match="case must be a name"):
        evaluate_case("", truth, truth, LABEL_NAMES, VOXEL)
    with pytest.raises(InputError, match="'mean'"):
        evaluate_case("a", truth, truth, {**LABEL_NAMES, "mean": 4}, VOXEL)


def test_worst_slices__are_where_the_errors_are():
    truth = np.zeros((9, 10, 11), np.uint8)
    prediction = truth.copy()
    prediction[2, 3:6, 7] = 1
    prediction[2, 4, 8] = 1
    prediction[5, 4, 7] = 1
    assert worst_slices(truth, prediction) == (2, 4, 7)
    assert worst_slices(truth, truth) == (4, 5, 5)


def test_case_picture__same_bytes_again_and_others_for_another_prediction():
    volume, truth = phantom(0, 24)
    prediction = np.roll(truth, 2, axis=0)
    png = case_picture(volume, truth, prediction, VOXEL, "case 0")
    assert case_picture(volume, truth, prediction, VOXEL, "case 0") == png
    assert case_picture(volume, truth, truth, VOXEL, "case 0") != png
    assert matplotlib.__version__.encode() not in png
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3).astype(int)
    for colour, wrong in (
        ((86, 180, 233), 12),
        ((213, 94, 0), 12),
    ):  # liquor and crystal outlined; antialiasing blurs
        assert (np.abs(image - colour).max(axis=1) < wrong).sum() > 100


def test_case_picture__of_what_is_stored_as_of_what_is_in_memory(tmp_path):
    volume, truth = phantom(0, 40)  # more than one slab
    prediction = np.roll(truth, 2, axis=0)
    write_volume(tmp_path / "v.zarr", volume, VOXEL)
    write_labels(tmp_path / "t.zarr", truth, VOXEL)
    write_labels(tmp_path / "p.zarr", prediction, VOXEL)
    stored = [open_level(tmp_path / f"{name}.zarr") for name in "vtp"]
    assert worst_slices(*stored[1:]) == worst_slices(truth, prediction)
    drawn = case_picture(*stored, VOXEL, "case 0")
    assert drawn == case_picture(volume, truth, prediction, VOXEL, "case 0")


def test_case_picture__refuses_another_grid():
    volume, truth = phantom(0, 16)
    with pytest.raises(InputError, match="on one grid"):
        case_picture(volume[1:], truth, truth, VOXEL, "case 0")


def test_confusion_picture__draws_empty_classes_too():
    confusion = confusion_matrix(np.zeros((2, 2, 2), np.uint8), np.ones((2, 2, 2), np.uint8), LABEL_NAMES)
    png = confusion_picture(confusion, "no case in particular")
    assert png == confusion_picture(confusion, "no case in particular")
    assert Image.open(io.BytesIO(png)).size[0] > 300
