"""What training on real cases, on synthetic ones and on both together is worth: the published ablation on any data.

Three arms train with the same settings and so for the same number of iterations; each is scored on real cases that
none has seen. An arm is trained with several seeds, whose scores are averaged case by case before anything else: how
much seeds differ is told apart, and intervals are over cases, as everywhere (``evaluation``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tomoforge.errors import InputError
from tomoforge.segmentation.case_records import Source, volume_part
from tomoforge.segmentation.evaluation import (
    MEAN,
    MEASURES,
    Bootstrap,
    CaseScores,
    check_scores,
    compare_models,
    mean_scores,
    paired_differences,
)
from tomoforge.segmentation.metrics import COUNTS
from tomoforge.segmentation.splits import stratified_folds

REAL, SYNTHETIC, BOTH = "only real", "only synthetic", "real + synthetic"
# Labels of a measured scan count as real, whether a person drew them or approved them.
ARMS: Mapping[str, frozenset[Source]] = {
    REAL: frozenset({"real", "pseudo"}),
    SYNTHETIC: frozenset({"forged"}),
    BOTH: frozenset({"real", "pseudo", "forged"}),
}
# The arm named first less the one named second.
PAIRS = ((BOTH, REAL), (SYNTHETIC, REAL), (BOTH, SYNTHETIC))
# CrystalSeg, means over classes on its own protein crystals; None where nothing was published.
PUBLISHED_IOU: Mapping[str, float] = {REAL: 0.706, SYNTHETIC: 0.743, BOTH: 0.828}
PUBLISHED_CRYSTAL_RECALL: Mapping[str, float | None] = {REAL: 0.713, SYNTHETIC: None, BOTH: 0.922}
_MOST_FOLDS = 5
_BOOTSTRAP = Bootstrap()
_LEAST_CASES = 5  # below, an interval over cases says little


@dataclass(frozen=True)
class SourcedCase:
    """A labelled case as far as it matters here. name : by its content; group : what must not be torn apart."""

    name: str
    source: Source
    group: str


@dataclass(frozen=True)
class Round:
    """What the arms train on and are then scored on: arm → names of cases, names of test cases."""

    arms: Mapping[str, tuple[str, ...]]
    test: tuple[str, ...]


def plan_rounds(cases: Sequence[SourcedCase], holdout: Sequence[SourcedCase] | None) -> list[Round]:
    """Which cases train and which test.

    With a hold-out there is one round. Without, the real cases of ``cases`` are cross-validated: each is held back
    once, in as many rounds as there are groups of them, five at most; the cases that do not train in a round are
    those held back and those of their groups.

    Raises
    ------
    InputError
        There are no real or no forged cases; the hold-out is empty, holds forged cases, or shares a volume or a group
        with ``cases``; without a hold-out, there are fewer than two groups of real cases.
    """
    real = [case for case in cases if case.source in ARMS[REAL]]
    if not real or len(real) == len(cases):
        raise InputError(
            f"dataset must hold real and forged cases, got {len(real)} real ones and {len(cases) - len(real)} forged; "
            "gather a dataset of both"
        )
    if holdout is not None:
        _check_holdout(cases, holdout)
        return [Round(_arms(cases), tuple(case.name for case in holdout))]
    groups = {case.name: case.group for case in real}
    count = len(set(groups.values()))
    if count < 2:
        raise InputError(
            "dataset must hold real cases of two samples or more where there is no hold-out, so that one can be held "
            f"back, got {count}; give a hold-out"
        )
    # All one source: a pseudo-label is held back as a case that a person drew is.
    folds = stratified_folds({name: "real" for name in groups}, min(_MOST_FOLDS, count), groups=groups)
    rounds = []
    for fold in folds:
        held = {groups[name] for name in fold["val"]}
        rounds.append(Round(_arms([case for case in cases if case.group not in held]), tuple(fold["val"])))
    return rounds


def _arms(cases: Sequence[SourcedCase]) -> dict[str, tuple[str, ...]]:
    return {arm: tuple(c.name for c in cases if c.source in sources) for arm, sources in ARMS.items()}


def _check_holdout(cases: Sequence[SourcedCase], holdout: Sequence[SourcedCase]) -> None:
    forged = [case.name for case in holdout if case.source == "forged"]
    if not holdout or forged:
        raise InputError(
            f"holdout must hold real cases alone, got {forged[:3] or 'none'}; forged ones say nothing of the beamline"
        )
    groups, volumes = {case.group for case in cases}, {volume_part(case.name) for case in cases}
    seen = [case.name for case in holdout if case.group in groups or volume_part(case.name) in volumes]
    if seen:
        raise InputError(
            f"holdout must hold nothing that trains, got {seen[:3]}, of which the dataset has the volume or the "
            "sample; leave them out of one of the two"
        )


def mean_of_seeds(scores: Sequence[CaseScores]) -> CaseScores:
    """Scores of one arm: of each case and class the mean over the seeds.

    A measure that is NaN with one seed is averaged over the others; a surface that one seed missed is missing. Counts
    are rounded so that the true voxels stay what they are.

    Raises InputError for none, and unless all are of the same cases with the same truth.
    """
    if not scores:
        raise InputError("scores must be of one seed or more, got none")
    for other in scores:
        check_scores(other)
    keys = ["case", "class"]
    first = scores[0].set_index(keys)
    aligned = [other.set_index(keys).reindex(first.index) for other in scores]
    truth = first["tp"] + first["fn"]
    for other in aligned:
        if len(other) != len(scores[0]) or not (other["tp"] + other["fn"]).equals(truth):
            raise InputError(
                "scores of the seeds must be of the same cases with the same truth; score them again"
            )
    mean = first.copy()
    for name in MEASURES:
        values = np.stack([frame[name].to_numpy(float) for frame in aligned])
        known = ~np.isnan(values)
        number = known.sum(axis=0)
        total = np.where(known, values, 0.0).sum(axis=0)
        mean[name] = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    for name in COUNTS:
        mean[name] = np.rint(np.mean([frame[name] for frame in aligned], axis=0)).astype(np.int64)
    mean["fn"] = truth - mean["tp"]
    return mean.reset_index()[list(scores[0].columns)]


@dataclass(frozen=True)
class SourceComparison:
    """The tables of a comparison.

    means : as of ``compare_models``, baselines and then arms; differences : a column ``pair`` and then as of
    ``paired_differences``; seeds : arm, seed, class, iou, the mean over cases; published : arm, measure, ours, low,
    high, published, where the last are of other data.
    """

    means: pd.DataFrame
    differences: pd.DataFrame
    seeds: pd.DataFrame
    published: pd.DataFrame


def compare_sources(
    arms: Mapping[str, Mapping[int, CaseScores]],
    baselines: Mapping[str, CaseScores],
    bootstrap: Bootstrap = _BOOTSTRAP,
) -> SourceComparison:
    """The tables of three arms, seed → scores each, and of baselines, all on the same cases.

    Raises InputError if an arm is missing or scored on other cases.
    """
    if missing := sorted(set(ARMS) - set(arms)):
        raise InputError(f"arms must hold the scores of {', '.join(ARMS)}, got none of {', '.join(missing)}")
    averaged = {arm: mean_of_seeds(list(arms[arm].values())) for arm in ARMS}
    differences = []
    for first, second in PAIRS:
        part = paired_differences(averaged[first], averaged[second], bootstrap)
        part.insert(0, "pair", f"{first} − {second}")
        differences.append(part)
    means = compare_models({**baselines, **averaged}, bootstrap)
    return SourceComparison(
        means,
        pd.concat(differences, ignore_index=True),
        _seed_table(arms, bootstrap),
        _beside_published(means),
    )


def _seed_table(arms: Mapping[str, Mapping[int, CaseScores]], bootstrap: Bootstrap) -> pd.DataFrame:
    rows = []
    for arm in ARMS:
        for seed, scores in arms[arm].items():
            means = mean_scores(scores, bootstrap)
            for row in means[means["measure"] == "iou"].to_dict("records"):
                rows.append({"arm": arm, "seed": seed, "class": row["class"], "iou": row["mean"]})
    return pd.DataFrame(rows)


def _beside_published(means: pd.DataFrame) -> pd.DataFrame:
    at = means.set_index(["model", "class", "measure"])
    shown: list[tuple[str, str, str, Mapping[str, float | None]]] = [
        ("mean IoU", MEAN, "iou", dict(PUBLISHED_IOU)),
        ("recall of the crystal", "crystal", "recall", PUBLISHED_CRYSTAL_RECALL),
    ]
    rows = []
    for title, name, measure, published in shown:
        for arm in ARMS:
            ours = at.loc[(arm, name, measure)]
            low, high = float(ours["low"]), float(ours["high"])
            rows.append((arm, title, float(ours["mean"]), low, high, published[arm]))
    frame = pd.DataFrame(rows, columns=["arm", "measure", "ours", "low", "high", "published_on_other_data"])
    return frame.astype({"published_on_other_data": float})


def gain_points(differences: pd.DataFrame, pair: tuple[str, str] = PAIRS[0]) -> tuple[float, float, float]:
    """Difference of the mean IoU between two arms with its interval, in IoU points (0.01)."""
    rows = differences[
        (differences["pair"] == f"{pair[0]} − {pair[1]}")
        & (differences["class"] == MEAN)
        & (differences["measure"] == "iou")
    ]
    if rows.empty:
        raise InputError(f"pair must be one of {PAIRS}, got {pair}")
    (row,) = rows.to_dict("records")
    return 100 * row["difference"], 100 * row["low"], 100 * row["high"]


def doubts(comparison: SourceComparison, rounds: Sequence[Round], *, seeds: int, crossed: bool) -> list[str]:
    """What to keep in mind about a comparison, in sentences."""
    found = []
    tested = sum(len(item.test) for item in rounds)
    if crossed:
        found.append(
            "There is no hold-out: each real case was held back once, so that the models differ from case to case."
        )
    if tested < _LEAST_CASES:
        found.append(f"Only {tested} real cases were scored: an interval over so few says little.")
    if seeds < 2:
        found.append("One seed: how much a training differs from the next is not known.")
    means = comparison.means.set_index(["model", "class", "measure"])["mean"]
    best = max(ARMS, key=lambda arm: means[arm, MEAN, "iou"])
    if best != BOTH:
        found.append(f"The best arm is '{best}': what was put together did not help.")
    for first, second in PAIRS[:2]:
        _, low, high = gain_points(comparison.differences, (first, second))
        if low <= 0 <= high:
            found.append(f"{first} and {second} are not told apart: [{low:+.1f}, {high:+.1f}] IoU points.")
    return found
