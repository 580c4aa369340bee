"""Whether a challenger takes the champion's place: a decision by rule on frozen cases, with its reasons.

Both models are scored on the same cases, and what is compared is the difference case by case, since cases differ
from each other by far more than models do on one of them.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from tomoforge.errors import InputError
from tomoforge.segmentation.evaluation import (
    MEAN,
    Bootstrap,
    CaseScores,
    check_scores,
    paired_differences,
)
from tomoforge.segmentation.metrics import BACKGROUND
from tomoforge.storage import to_json

HOLDOUT, REGRESSION = "holdout", "regression"
_TABLE = ("set", "class", "champion", "challenger", "difference", "low", "high", "worst_case", "cases")


@dataclass(frozen=True)
class FrozenSet:
    """Test cases that never change. cases : content hashes, sorted; sha256 : of name and cases together."""

    name: str
    cases: tuple[str, ...]
    sha256: str

    @classmethod
    def of(cls, name: str, cases: Iterable[str]) -> "FrozenSet":
        """The set of these cases. Raises InputError if there is none or one comes twice."""
        ordered = tuple(sorted(cases))
        twice = sorted({case for case in ordered if ordered.count(case) > 1})
        if not ordered or twice:
            raise InputError(f"a frozen set needs cases, each once, got {twice or 'none'}")
        text = to_json({"name": name, "cases": list(ordered)})
        return cls(name, ordered, hashlib.sha256(text.encode()).hexdigest())

    def changes(self, now: "FrozenSet") -> list[str]:
        """What is different by now, in sentences; none if nothing is."""
        if now.sha256 == self.sha256:
            return []
        gone, new = set(self.cases) - set(now.cases), set(now.cases) - set(self.cases)
        return [
            f"the {self.name} set has changed: it was frozen as {self.sha256[:12]} with {len(self.cases)} cases, "
            f"is {now.sha256[:12]} with {len(now.cases)}; {len(gone)} cases gone or altered, {len(new)} not known"
        ]


@dataclass(frozen=True)
class GateRules:
    """What a challenger must keep to. Scores and falls are IoU, 0 … 1; a point is 0.01.

    floor : class → least mean over the hold-out; others have none
    class_fall : a class's mean may fall by so much against the champion
    case_fall : on the regression set a class may fall by so much in any one case
    mean_fall : the mean over classes may fall by so much. Zero: nights of small falls would add up.
    new_cases : real cases that the challenger has seen and the champion has not, unless promoted by hand
    least_cases : in the hold-out; an interval over fewer says nothing
    confidence, resamples, seed : of the bootstrap interval
    by_interval : let the lower end of the interval decide on a class's fall, not the mean: stricter, and with
        few cases hard to pass
    """

    floor: Mapping[str, float] = field(default_factory=lambda: {"liquor": 0.5, "loop": 0.3, "crystal": 0.5})
    class_fall: float = 0.01
    case_fall: float = 0.05
    mean_fall: float = 0.0
    new_cases: int = 2
    least_cases: int = 3
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0
    by_interval: bool = False

    def __post_init__(self) -> None:
        for name in ("class_fall", "case_fall", "mean_fall"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"{name} must lie in 0 … 1, got {getattr(self, name)!r}; a point of IoU is 0.01"
                )
        if not all(0 <= value <= 1 for value in self.floor.values()):
            raise InputError(f"floor must lie in 0 … 1 for each class, got {dict(self.floor)}")
        if not 0 < self.confidence < 1:
            raise InputError(f"confidence must lie between 0 and 1, got {self.confidence!r}")
        for name, least in (("new_cases", 0), ("least_cases", 1), ("resamples", 100)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Comparison:
    """What a decision rests on besides the scores on the hold-out.

    frozen : sets as they were frozen, measured : the same as they are now, by name
    regression : (champion's, challenger's) scores on the regression set, None without one
    leaked : test cases that the challenger was trained on
    new_cases : real ones that the challenger has seen and the champion has not
    by_hand : a person asked for the promotion
    rolled_back : why the challenger was rolled back earlier, None if it was not
    """

    frozen: Sequence[FrozenSet] = ()
    measured: Sequence[FrozenSet] = ()
    regression: tuple[CaseScores, CaseScores] | None = None
    leaked: Sequence[str] = ()
    new_cases: int = 0
    by_hand: bool = False
    rolled_back: str | None = None


@dataclass(frozen=True)
class Verdict:
    """promote : whether; reasons : what speaks for it, or everything that speaks against it; table : a row a
    set and class (``mean`` over classes): champion, challenger, difference, low, high, worst_case, cases;
    new_cases : as in the comparison."""

    promote: bool
    reasons: tuple[str, ...]
    table: pd.DataFrame
    new_cases: int = 0

    def evidence(self) -> dict[str, Any]:
        """The verdict as JSON values, for the audit."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        return {
            "promote": self.promote,
            "reasons": list(self.reasons),
            "table": rows,
            "new_cases": self.new_cases,
        }


def judge(
    champion_scores: CaseScores | None,
    challenger_scores: CaseScores,
    rules: GateRules = GateRules(),
    comparison: Comparison = Comparison(),
) -> Verdict:
    """Whether the challenger becomes champion.

    Parameters
    ----------
    champion_scores, challenger_scores : CaseScores on the hold-out (``evaluation.py``); None for no champion
        yet: then the floors and the sets decide alone
    rules, comparison : what must be kept, and what else is known

    Raises
    ------
    InputError
        The two were scored on different cases, classes or truths, or the scores lack a column or a class.

    Notes
    -----
    A class that neither truth nor prediction shows has no IoU; where one of the two models has none, it saw
    rightly that there is nothing, and 1 stands for it.
    """
    against = [
        *_set_changes(comparison.frozen, comparison.measured),
        *(f"the challenger was trained on the test case {case[:12]}" for case in comparison.leaked),
    ]
    if comparison.rolled_back is not None and not comparison.by_hand:
        against.append(f"it was rolled back ({comparison.rolled_back}): only a person promotes it again")
    table = _table(HOLDOUT, champion_scores, challenger_scores, rules)
    if comparison.regression is not None:
        table = pd.concat([table, _table(REGRESSION, *comparison.regression, rules)], ignore_index=True)
    against += _below_floor(table, rules)
    if champion_scores is None:
        favour = ["there was no champion; every class is above its floor"]
    else:
        against += _falls(table, rules)
        wanting, favour = _grounds(table, rules, comparison)
        against += wanting
    return Verdict(not against, tuple(against or favour), table, comparison.new_cases)


def _set_changes(frozen: Sequence[FrozenSet], measured: Sequence[FrozenSet]) -> list[str]:
    now = {found.name: found for found in measured}
    changes: list[str] = []
    for kept in frozen:
        if kept.name in now:
            changes += kept.changes(now[kept.name])
        else:
            changes.append(f"the {kept.name} set was frozen as {kept.sha256[:12]} and was not scored")
    return changes


def _below_floor(table: pd.DataFrame, rules: GateRules) -> list[str]:
    rows = table[table["set"] == HOLDOUT].set_index("class")["challenger"]
    missing = sorted(set(rules.floor) - set(rows.index))
    if missing:
        raise InputError(f"the scores must hold every class that has a floor, got none of {missing}")
    return [
        f"{name} reaches an IoU of {rows[name]:.3f}, its floor is {floor:.3f}"
        for name, floor in rules.floor.items()
        if not rows[name] >= floor  # NaN, a class seen nowhere, is below
    ]


def _falls(table: pd.DataFrame, rules: GateRules) -> list[str]:
    """Sentences about what got worse; comparisons forgive rounding in the last digits."""
    slack, found = 1e-9, []
    for row in table.to_dict("records"):
        where, name, cases = row["set"], row["class"], row["cases"]
        share = f"{100 * row['difference']:+.2f} points of IoU over {cases} cases of the {where} set"
        if name == MEAN:
            if row["difference"] < -rules.mean_fall - slack:
                found.append(f"the mean over classes changes by {share}")
            continue
        # Over one case there is no interval.
        decides = row["low"] if rules.by_interval and row["cases"] > 1 else row["difference"]
        if decides < -rules.class_fall - slack:
            found.append(
                f"{name} changes by {share}, {_interval(row)}; it may fall by {_points(rules.class_fall)}"
            )
        if where == REGRESSION and row["worst_case"] < -rules.case_fall - slack:
            found.append(
                f"{name} falls by {_points(-row['worst_case'])} in one case of the regression set; it may by "
                f"{_points(rules.case_fall)}"
            )
    return found


def _grounds(table: pd.DataFrame, rules: GateRules, comparison: Comparison) -> tuple[list[str], list[str]]:
    """What is wanting for a promotion, and what speaks for it, where nothing got worse."""
    mean = table[(table["set"] == HOLDOUT) & (table["class"] == MEAN)].iloc[0].to_dict()
    share = f"{100 * mean['difference']:+.2f} points in the mean over classes, {_interval(mean)}"
    better = mean["low"] > 0
    enough = comparison.new_cases >= max(rules.new_cases, 1)
    wanting, favour = [], []
    if mean["cases"] < rules.least_cases:
        wanting.append(f"the hold-out has {mean['cases']} cases, a comparison needs {rules.least_cases}")
    if not better and not enough:
        wanting.append(
            f"it is not better ({share}) and has not seen enough new real cases to be taken for that"
        )
    if comparison.new_cases < rules.new_cases and not comparison.by_hand:
        wanting.append(
            f"it has seen {comparison.new_cases} new real cases, {rules.new_cases} are asked for without a person"
        )
    favour.append(f"{'better' if better else 'not worse'}: {share}")
    favour.append("no class fell and every class is above its floor")
    favour.append("by hand" if comparison.by_hand else f"{comparison.new_cases} new real cases seen")
    return wanting, favour


def _table(name: str, champion: CaseScores | None, challenger: CaseScores, rules: GateRules) -> pd.DataFrame:
    """A row a class, and one for their mean: scores, difference with its interval, the worst case."""
    check_scores(challenger)
    new = _by_case(challenger)
    if champion is None:
        rows = [
            {"set": name, "class": column, "challenger": new[column].mean(), "cases": new[column].count()}
            for column in new
        ]
        return pd.DataFrame(rows).reindex(columns=list(_TABLE))
    bootstrap = Bootstrap(rules.confidence, rules.resamples, rules.seed)
    found = paired_differences(challenger, champion, bootstrap)
    found = found[found["measure"] == "iou"].set_index("class").loc[list(new)]
    old = _by_case(champion)
    # As in paired_differences: who rightly saw nothing where the other saw something has 1.
    new, old = new.where(new.notna() | old.isna(), 1.0), old.where(old.notna() | new.isna(), 1.0)
    old, new = _with_mean(old), _with_mean(new)
    table = found.reset_index().assign(
        set=name,
        champion=old.mean().to_numpy(),
        challenger=new.mean().to_numpy(),
        worst_case=(new - old).min().to_numpy(),
    )
    return table[list(_TABLE)]


def _by_case(scores: CaseScores) -> pd.DataFrame:
    """IoU (case, class) and the mean of its classes, without the background."""
    kept = scores[scores["class"] != BACKGROUND]
    return _with_mean(kept.pivot(index="case", columns="class", values="iou").sort_index())


def _with_mean(iou: pd.DataFrame) -> pd.DataFrame:
    return iou.drop(columns=MEAN, errors="ignore").assign(**{MEAN: lambda t: t.mean(axis=1)})


def _interval(row: Mapping[str, Any]) -> str:
    return f"interval {100 * row['low']:+.2f} … {100 * row['high']:+.2f}"


def _points(value: float) -> str:
    return f"{100 * value:.2f} points"


def rules_record(rules: GateRules) -> dict[str, Any]:
    """The rules as JSON values, for the audit."""
    return {**asdict(rules), "floor": dict(rules.floor)}
