"""Segmentations of many cases judged together: scores, means with intervals, two models compared, the worst cases.

A case is a volume with its true labels, named by the hash of its content. **Case scores** are a DataFrame with a row a
case and class and the columns of ``SCORE_COLUMNS``; everything here is made from them.

Intervals are bootstrap percentiles over cases: whole cases are drawn with replacement, since the voxels of one are
anything but independent, the same draws for all classes and metrics. Percentiles and not BCa, because with the few
cases there are its correction rests on a jackknife of as many values, fails where all cases score alike, and can
leave 0 … 1. With n cases percentile intervals are too narrow by about √(1 − 1/n), and more below ten; with one case
there is none (NaN).

References: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 14.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd

from tomoforge.errors import InputError
from tomoforge.seeds import component_rng
from tomoforge.segmentation.metrics import BACKGROUND, COUNTS, METRICS, class_counts, confusion_matrix
from tomoforge.segmentation.metrics import metrics_of_confusion as _metrics_of
from tomoforge.segmentation.surface_distance import surface_distances
from tomoforge.units import m_to_um

CaseScores: TypeAlias = pd.DataFrame

MEAN = "mean"  # the row of a table that averages the classes
SURFACE_COLUMNS = ("surface_distance_um", "surface_distance_95_um")
MEASURES = (*METRICS, *SURFACE_COLUMNS)
SCORE_COLUMNS = ("case", "class", *MEASURES, *COUNTS)
# 1 stands for these where a model rightly showed nothing and another, on the same case, did not.
_ONE_FOR_NOTHING = ("iou", "f1", "f2")


@dataclass(frozen=True)
class Evaluation:
    """One model on some cases. scores : CaseScores; confusion : voxels (truth, prediction), summed over the cases."""

    scores: CaseScores
    confusion: pd.DataFrame


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn: confidence 0 … 1, resamples, seed."""

    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise InputError(f"confidence must lie between 0 and 1, got {self.confidence!r}; 0.95 is usual")
        if self.resamples < 100:
            raise InputError(f"resamples must be at least 100 for percentiles, got {self.resamples!r}")


def evaluate_case(
    case: str,
    truth: np.ndarray,
    prediction: np.ndarray,
    labels: Mapping[str, int],
    voxel_size: float,
    *,
    workers: int = 1,
) -> Evaluation:
    """Scores of one predicted label volume.

    Parameters
    ----------
    case : name of the case, the hash of its content
    truth, prediction : (z, y, x) integer labels of one shape
    labels : name → value; a row each. The background may be among them, no mean includes it
    voxel_size : float [m]
    workers : threads for surface distances

    Raises
    ------
    InputError
        As ``class_metrics`` and ``surface_distances``; also for a case without a name.
    """
    if not case or not isinstance(case, str):
        raise InputError(f"case must be a name, the hash of the case's content, got {case!r}")
    if MEAN in labels:
        raise InputError(
            f"labels must not name a class {MEAN!r}, it is a row of the tables; got {dict(labels)}"
        )
    confusion = confusion_matrix(truth, prediction, labels)
    surfaces = surface_distances(truth, prediction, labels, voxel_size, workers=workers).map(m_to_um)
    surfaces.columns = list(SURFACE_COLUMNS)
    frame = pd.concat([_metrics_of(confusion), surfaces, class_counts(confusion)], axis=1).loc[list(labels)]
    frame = frame.rename_axis(index="class").reset_index()
    frame.insert(0, "case", case)
    return Evaluation(frame[list(SCORE_COLUMNS)], confusion)


def join_evaluations(evaluations: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of all cases: scores in the order of the cases' names, confusion matrices added.

    Raises InputError for none, for a case that comes twice and for evaluations of different classes.
    """
    if not evaluations:
        raise InputError("evaluations must hold at least one case, got none")
    names = [list(e.confusion.index) for e in evaluations]
    if any(n != names[0] for n in names):
        other = next(n for n in names if n != names[0])
        raise InputError(f"evaluations must be of the same classes, got {names[0]} and {other}")
    scores = pd.concat([e.scores for e in evaluations], ignore_index=True)
    scores = scores.sort_values("case", kind="stable", ignore_index=True)
    check_scores(scores)
    confusion = evaluations[0].confusion.copy()
    for evaluation in evaluations[1:]:
        confusion += evaluation.confusion
    return Evaluation(scores, confusion)


def mean_scores(scores: CaseScores, bootstrap: Bootstrap = Bootstrap()) -> pd.DataFrame:
    """Mean over cases of every class and measure, with its interval.

    Returns
    -------
    DataFrame with a row a class and measure: class, measure, mean, low, high, cases. The class ``mean`` averages the
    classes but the background in each case first. ``cases`` says over how many the mean is: where a measure is NaN
    (nothing to measure) or infinite (a surface missing) the case is left out, so a mean surface distance over fewer
    cases than there are belongs to a model that missed the class in the others, as its iou shows.
    """
    table = _by_case(_with_mean(scores))
    drawn = _resampled_means(table.to_numpy(), bootstrap)
    return _summary(table, "mean", drawn, bootstrap)


def paired_differences(
    scores: CaseScores,
    reference: CaseScores,
    bootstrap: Bootstrap = Bootstrap(),
) -> pd.DataFrame:
    """Mean over cases of ``scores`` less ``reference``, two models on the same cases, with its interval.

    Returns
    -------
    DataFrame with a row a class and measure: class, measure, difference, low, high, cases; positive where ``scores``
    is higher. Pairs of which one is NaN or infinite are left out, but where iou, f1 and f2 are NaN in one alone, that
    model rightly showed nothing, and 1 stands for them: the other's 0 counts against it.

    Raises
    ------
    InputError
        Cases, classes or the true voxels of one of them differ between the two.
    """
    table = _paired_table(scores, reference)
    return _summary(table, "difference", _resampled_means(table.to_numpy(), bootstrap), bootstrap)


def case_differences(scores: CaseScores, reference: CaseScores) -> pd.DataFrame:
    """``scores`` less ``reference`` in every case: what the means of ``paired_differences`` are made of.

    Returns
    -------
    DataFrame with a row a case and class ("mean" among them): case, class and every measure; NaN for pairs that
    ``paired_differences`` leaves out. Raises as it does.
    """
    table = _paired_table(scores, reference)
    classes = list(dict.fromkeys(name for name, _ in table.columns))
    parts = [table[name].rename_axis(columns=None).reset_index() for name in classes]
    for name, part in zip(classes, parts, strict=True):
        part.insert(1, "class", name)
    return pd.concat(parts, ignore_index=True).sort_values("case", kind="stable", ignore_index=True)


def _paired_table(scores: CaseScores, reference: CaseScores) -> pd.DataFrame:
    """``scores`` less ``reference``: a row a case, a column a (class, measure)."""
    _check_pair(scores, reference)
    first, second = scores.set_index(["case", "class"]), reference.set_index(["case", "class"])
    second = second.reindex(first.index)
    for name in _ONE_FOR_NOTHING:
        either = first[name].notna() | second[name].notna()
        first[name] = first[name].where(first[name].notna() | ~either, 1.0)
        second[name] = second[name].where(second[name].notna() | ~either, 1.0)
    # Before classes are averaged, so that both means are over the same classes.
    known = np.isfinite(first[list(MEASURES)]) & np.isfinite(second[list(MEASURES)])
    for frame in (first, second):
        frame[list(MEASURES)] = frame[list(MEASURES)].where(known)
    return _by_case(_with_mean(first.reset_index())) - _by_case(_with_mean(second.reset_index()))


def compare_models(
    models: Mapping[str, CaseScores],
    bootstrap: Bootstrap = Bootstrap(),
) -> pd.DataFrame:
    """``mean_scores`` of several models (baselines among them) under each other, with a column ``model`` first.

    Raises InputError unless all were scored on the same cases with the same truth.
    """
    if not models:
        raise InputError("models must hold at least one model's scores, got none")
    reference = next(iter(models.values()))
    parts = []
    for name, scores in models.items():
        _check_pair(scores, reference)
        part = mean_scores(scores, bootstrap)
        part.insert(0, "model", name)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def table_of_means(means: pd.DataFrame, measures: Sequence[str] = METRICS) -> pd.DataFrame:
    """``mean_scores`` or ``compare_models`` to be read by people: a row a (model and) class, "0.83 [0.79, 0.86]"."""
    shown = means[means["measure"].isin(measures)].copy()
    shown["text"] = [
        _interval_text(*row) for row in shown[["mean", "low", "high"]].itertuples(index=False, name=None)
    ]
    keys = [name for name in ("model", "class") if name in shown]
    wide = shown.set_index([*keys, "measure"])["text"].unstack("measure")
    order = shown[keys].drop_duplicates().itertuples(index=False, name=None)
    wide = wide.loc[list(order) if len(keys) > 1 else [key for (key,) in order], list(measures)]
    return wide.reset_index().rename_axis(columns=None)


def worst_cases(
    scores: CaseScores, count: int = 5, *, measure: str = "iou", class_name: str = MEAN
) -> pd.DataFrame:
    """The cases that were segmented worst, the worst first.

    measure : one of ``MEASURES``; class_name : a class, or "mean" of all but the background. Returns case, score (of
    that class), worst_class and worst_score (of the classes but the background). Cases with nothing to measure are
    left out; those that score alike come in the order of their names.
    """
    if measure not in MEASURES:
        raise InputError(f"measure must be one of {', '.join(MEASURES)}, got {measure!r}")
    if count < 1:
        raise InputError(f"count must be at least 1, got {count!r}")
    lower_is_worse = measure not in SURFACE_COLUMNS
    wide = _with_mean(scores).pivot(index="case", columns="class", values=measure)
    if class_name not in wide:
        raise InputError(f"class_name must be one of {', '.join(map(str, wide.columns))}, got {class_name!r}")
    ranked = (
        wide[class_name].dropna().sort_index().sort_values(ascending=lower_is_worse, kind="stable")[:count]
    )
    classes = wide.loc[ranked.index].drop(columns=[MEAN, BACKGROUND], errors="ignore")
    signed = classes if lower_is_worse else -classes
    worst = signed.fillna(math.inf).idxmin(axis=1)
    return pd.DataFrame(
        {
            "case": ranked.index,
            "score": ranked.to_numpy(),
            "worst_class": worst.to_numpy(),
            "worst_score": [classes.at[case, name] for case, name in worst.items()],
        }
    )


def check_scores(scores: CaseScores) -> None:
    """Raise InputError unless these are CaseScores: all columns, every case with every class, once."""
    missing = [name for name in SCORE_COLUMNS if name not in scores]
    if missing:
        raise InputError(
            f"scores must have the columns {', '.join(SCORE_COLUMNS)}; {', '.join(missing)} missing"
        )
    if scores.empty:
        raise InputError("scores must hold at least one case, got none")
    pairs = scores[["case", "class"]]
    if pairs.duplicated().any():
        case, name = pairs[pairs.duplicated()].iloc[0]
        raise InputError(f"scores must hold each case and class once, got {name} of case {case} twice")
    if len(pairs) != pairs["case"].nunique() * pairs["class"].nunique():
        raise InputError("scores must hold every class of every case; score the cases with the same labels")


def _check_pair(scores: CaseScores, reference: CaseScores) -> None:
    check_scores(scores)
    check_scores(reference)
    for name in ("case", "class"):
        apart = sorted(set(scores[name]) ^ set(reference[name]))
        if apart:
            raise InputError(
                f"both models must be scored on the same {name} values, got {len(apart)} in one alone: {apart[:5]}"
            )
    truths = [
        s.set_index(["case", "class"])[["tp", "fn"]].sum(axis=1).sort_index() for s in (scores, reference)
    ]
    if not truths[0].equals(truths[1]):
        case, name = truths[0].index[np.flatnonzero(truths[0].to_numpy() != truths[1].to_numpy())[0]]
        raise InputError(
            f"both models must be scored against the same truth, got another number of true voxels of {name} in case "
            f"{case}; score them again"
        )


def _with_mean(scores: CaseScores) -> pd.DataFrame:
    """Case, class and measures, with a class "mean" of each case that leaves out the background and NaN."""
    check_scores(scores)
    kept = scores[["case", "class", *MEASURES]]
    mean = kept[kept["class"] != BACKGROUND].groupby("case", as_index=False)[list(MEASURES)].mean()
    mean.insert(1, "class", MEAN)
    return pd.concat([kept, mean], ignore_index=True)


def _by_case(scores: pd.DataFrame) -> pd.DataFrame:
    """A row a case, sorted by name so that draws depend on no order; a column a (class, measure)."""
    classes = list(dict.fromkeys(scores["class"]))
    wide = scores.pivot(index="case", columns="class", values=list(MEASURES)).swaplevel(axis=1).sort_index()
    return wide[[(name, measure) for name in classes for measure in MEASURES]].astype(np.float64)


def _resampled_means(values: np.ndarray, bootstrap: Bootstrap) -> np.ndarray:
    """Means (resample, column) of the rows (case, column) drawn with replacement, over what is finite."""
    cases = len(values)
    rng = component_rng(bootstrap.seed, "evaluation.bootstrap")
    drawn = rng.multinomial(cases, np.full(cases, 1 / cases), size=bootstrap.resamples).astype(np.float64)
    finite = np.isfinite(values)
    number = drawn @ finite
    return np.divide(
        drawn @ np.where(finite, values, 0.0), number, out=np.full(number.shape, np.nan), where=number > 0
    )


def _summary(table: pd.DataFrame, value: str, drawn: np.ndarray, bootstrap: Bootstrap) -> pd.DataFrame:
    """Mean of the finite values of each column with the percentiles of its resampled means."""
    tail = 50 * (1 - bootstrap.confidence)
    rows = []
    for column, means in zip(table.columns, drawn.T, strict=True):
        values = table[column].to_numpy()
        values = values[np.isfinite(values)]
        known = means[np.isfinite(means)]  # a draw may hold none of the cases that have the class
        low, high = np.percentile(known, [tail, 100 - tail]) if len(values) > 1 else (math.nan, math.nan)
        mean = float(values.mean()) if len(values) else math.nan
        rows.append((*column, mean, float(low), float(high), len(values)))
    return pd.DataFrame(rows, columns=["class", "measure", value, "low", "high", "cases"])


def _interval_text(mean: float, low: float, high: float) -> str:
    if math.isnan(mean):
        return "–"
    return f"{mean:.3f}" if math.isnan(low) else f"{mean:.3f} [{low:.3f}, {high:.3f}]"
