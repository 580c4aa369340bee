"""The registry of models in the workspace: register, score on frozen cases, judge, promote, roll back."""

import getpass
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from prefect import task
from pydantic import Field

from tasks.artefacts import OPTIONS, find_by_key, produce
from tasks.cluster import Compute
from tasks.progress import StageProgress
from tasks.samples import LABELS
from tasks.segmenter import DATASET, MODEL
from tasks.volumes import VOLUME
from tomoforge.config import Settings
from tomoforge.errors import InputError
from tomoforge.segmentation.audit import AuditRow
from tomoforge.segmentation.case_records import Source, content_hash, content_name, volume_part
from tomoforge.segmentation.dataset import read_dataset_record
from tomoforge.segmentation.evaluation import evaluate_case, join_evaluations
from tomoforge.segmentation.gate import (
    HOLDOUT,
    Comparison,
    FrozenSet,
    GateRules,
    Verdict,
    judge,
    rules_record,
)
from tomoforge.segmentation.registry import Registry
from tomoforge.storage import Artefact, Workspace, replacing
from tomoforge.volumes import LABEL_NAMES, read_labels, read_volume

DATABASE = Path("registry") / "registry.db"
SCORES, CONFUSION = "scores.parquet", "confusion.parquet"
_TIMEOUT_S = 24 * 3600.0
# A decision is made once: what its first try recorded must not be recorded again.
_ONCE = {**OPTIONS, "retries": 0}

Share = Annotated[float, Field(ge=0, le=1)]


class GateSettings(Settings):
    """What a model must keep to before it becomes champion; IoU as a share, a point is 0.01."""

    floor_liquor: Share = Field(0.5, description="Least IoU of the liquor, mean over the hold-out.")
    floor_loop: Share = Field(0.3, description="Least IoU of the loop.")
    floor_crystal: Share = Field(0.5, description="Least IoU of the crystal.")
    class_fall: Share = Field(0.01, description="Largest fall of a class against the champion.")
    case_fall: Share = Field(0.05, description="Largest fall of a class in a case of the regression set.")
    mean_fall: Share = Field(0.0, description="Largest fall of the mean over classes.")
    new_cases: Annotated[int, Field(ge=0)] = Field(
        2, description="New real cases that a model must have seen, unless a person promotes it."
    )
    least_cases: Annotated[int, Field(ge=1)] = Field(
        3, description="Fewest cases of a hold-out that can compare."
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="Of the bootstrap interval.")
    resamples: Annotated[int, Field(ge=100, le=1_000_000)] = Field(2000, description="Of the bootstrap.")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Of the bootstrap.")
    by_interval: bool = Field(
        False, description="Let the lower end of the interval decide on a class's fall: stricter."
    )

    def rules(self) -> GateRules:
        """The rules for the library."""
        values = self.model_dump()
        floor = {name: values.pop(f"floor_{name}") for name in ("liquor", "loop", "crystal")}
        return GateRules(floor=floor, **values)


@dataclass(frozen=True)
class LabelledCase:
    """A volume with its labels. name : by the content of both; source, group : as the dataset has them."""

    name: str
    volume: Artefact
    labels: Artefact
    source: Source
    group: str


@dataclass(frozen=True)
class CaseSet:
    """The frozen cases of ``dataset`` as they are now, under the name of their set."""

    name: str
    dataset: str
    cases: tuple[LabelledCase, ...]

    def measured(self) -> FrozenSet:
        """The set by its hashes."""
        return FrozenSet.of(self.name, [case.name for case in self.cases])


@dataclass(frozen=True)
class SetScores:
    """Artefacts of scores on one set; champion : None where there is none."""

    cases: CaseSet
    champion: Artefact | None
    challenger: Artefact


@dataclass(frozen=True)
class Decision:
    """What became of a model: lines for a person, whether it is champion now, and where that is published."""

    promoted: bool
    lines: tuple[str, ...]
    published: str | None = None


def open_registry(workspace: Workspace) -> Registry:
    """The registry of the workspace."""
    return Registry(workspace.root / DATABASE)


def champion_of(workspace: Workspace) -> Artefact | None:
    """The model that segments, its files checked, or None."""
    champion = open_registry(workspace).champion()
    return find_model(workspace, champion.key) if champion is not None else None


def find_model(workspace: Workspace, key: str) -> Artefact:
    """The model of this key. Raises InputError with the keys there are."""
    return find_by_key(workspace, "models", key, "model")


def deciding(by: str | None) -> str:
    """Who decides: as given, else the login of this process."""
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise InputError(f"by must be given, this process has no login name ({error})") from error


@task(name="register-model", **OPTIONS)
def register_model(workspace: Workspace, model: Artefact) -> int:
    """Record a model with what it was trained on and by; its version. Registering again finds it."""
    workspace.verify(model)
    made = workspace.read_provenance(model)
    dataset = made["inputs"].get("dataset", {})
    version = open_registry(workspace).register(
        model.key,
        workspace.path(model) / MODEL,
        dataset_hash=f"{dataset.get('key', 'unknown')} {dataset.get('checksum', '')}".strip(),
        code_revision=f"{made['git_revision']} {made['code_version']}",
    )
    return version.version


@task(name="test-cases", **OPTIONS)
def frozen_cases(
    workspace: Workspace, name: str, *, dataset: str | None, replace: bool, by: str, reason: str
) -> CaseSet | None:
    """The cases of a frozen set, hashed as they are now.

    dataset : key of the dataset that holds them; None for the one that was frozen. A set that was never frozen
    is frozen here; with ``replace`` another takes its place. None where there is neither set nor dataset.
    """
    registry = open_registry(workspace)
    frozen = registry.frozen(name)
    key = dataset if dataset is not None else frozen.evidence["dataset"] if frozen is not None else None
    if key is None:
        return None
    found = find_by_key(workspace, "datasets", key, "dataset")
    cases = CaseSet(name, key, tuple(labelled_cases(workspace, found, trust_records=False)))
    measured = cases.measured()
    if frozen is None or (replace and frozen.after != measured.sha256):
        registry.freeze(
            name,
            measured.sha256,
            expected=frozen.after if frozen is not None else None,
            who=by,
            reason=reason,
            evidence={"dataset": key, "cases": list(measured.cases)},
        )
    return cases


@task(name="score-model", **OPTIONS)
def score_model(
    compute: Compute, workspace: Workspace, cases: CaseSet, segmentations: Sequence[Artefact], *, name: str
) -> Artefact:
    """Scores of segmentations, in the order of the cases, and what was taken for what: tables in kind ``models``."""

    def build(folder: Path) -> None:
        pieces = [
            (case.name, str(workspace.path(case.labels) / LABELS), str(workspace.path(predicted) / LABELS))
            for case, predicted in zip(cases.cases, segmentations, strict=True)
        ]
        bar = StageProgress(f"{name}: cases scored")
        parts = compute.map(_score_piece, pieces, timeout_s=_TIMEOUT_S, progress=bar)
        joined = join_evaluations(parts)
        with replacing(folder / SCORES) as path:
            joined.scores.to_parquet(path, index=False)
        with replacing(folder / CONFUSION) as path:
            joined.confusion.to_parquet(path)

    inputs: Mapping[str, Artefact | str] = {
        **{f"case_{n}": case.name for n, case in enumerate(cases.cases)},
        **{f"labels_{n}": item for n, item in enumerate(segmentations)},
    }
    return produce(
        workspace,
        "models",
        "scores",
        parameters={"classes": LABEL_NAMES, "tables": [SCORES, CONFUSION]},
        inputs=inputs,
        packages=("segmentation",),
        build=build,
    )


def _score_piece(case: str, truth_path: str, predicted_path: str) -> Any:
    truth, voxel_size = read_labels(truth_path)
    predicted, _ = read_labels(predicted_path)
    return evaluate_case(case, truth, predicted, LABEL_NAMES, voxel_size)


@task(name="judge-model", **_ONCE)
def judge_model(
    workspace: Workspace,
    challenger: Artefact,
    champion: Artefact | None,
    scores: Sequence[SetScores],
    *,
    settings: GateSettings,
    by: str,
    reason: str,
    by_hand: bool,
) -> Decision:
    """Promote the challenger or refuse it, with a row in the audit either way.

    Raises AliasMovedError where another model became champion after ``champion`` was compared with.
    """
    registry = open_registry(workspace)
    registry.challenge(challenger.key, who=by, reason=reason)
    rules = settings.rules()
    verdict = _verdict(workspace, registry, challenger, champion, scores, rules, by_hand)
    evidence = {
        **verdict.evidence(),
        "rules": rules_record(rules),
        "by_hand": by_hand,
        "sets": {item.cases.name: item.cases.measured().sha256 for item in scores},
        "datasets": {item.cases.name: item.cases.dataset for item in scores},
        "scores": {
            item.cases.name: {
                "champion": item.champion.key if item.champion is not None else None,
                "challenger": item.challenger.key,
            }
            for item in scores
        },
    }
    if verdict.promote:
        registry.promote(
            challenger.key,
            expected=champion.key if champion is not None else None,
            who=by,
            reason=reason,
            evidence=evidence,
        )
    else:
        registry.refuse(challenger.key, who=by, reason="; ".join(verdict.reasons), evidence=evidence)
    return Decision(verdict.promote, tuple(_lines(challenger, champion, verdict)))


@task(name="roll-back", **_ONCE)
def roll_back(workspace: Workspace, *, by: str, reason: str, to: str | None) -> AuditRow:
    """Make the champion before this one champion again."""
    return open_registry(workspace).rollback(who=by, reason=reason, to=to)


def labelled_cases(workspace: Workspace, dataset: Artefact, *, trust_records: bool) -> list[LabelledCase]:
    """The cases of a dataset.

    trust_records : name them by what was recorded when the dataset was made, else by their voxels as they are
    now, which takes as long as reading them.
    """
    inputs = workspace.read_provenance(dataset)["inputs"].values()
    by_key = {item["key"]: Artefact(**item) for item in inputs if isinstance(item, Mapping)}
    found = []
    for stored in read_dataset_record(workspace.path(dataset) / DATASET)["cases"]:
        volume, labels = (by_key[stored["origin"][part]] for part in ("volume", "labels"))
        hashes = stored["volume_sha256"], stored["labels_sha256"]
        if not trust_records:
            hashes = (
                content_hash(*read_volume(workspace.path(volume) / VOLUME)),
                content_hash(*read_labels(workspace.path(labels) / LABELS)),
            )
        found.append(LabelledCase(content_name(*hashes), volume, labels, stored["source"], stored["group"]))
    return found


def _verdict(
    workspace: Workspace,
    registry: Registry,
    challenger: Artefact,
    champion: Artefact | None,
    scores: Sequence[SetScores],
    rules: GateRules,
    by_hand: bool,
) -> Verdict:
    by_set = {item.cases.name: item for item in scores}
    tested = [case for item in scores for case in item.cases.cases]
    seen = _training_cases(workspace, challenger)
    known = _training_cases(workspace, champion) if champion is not None else {}
    undone = registry.rolled_back(challenger.key)
    frozen = [_frozen_set(row) for name in by_set if (row := registry.frozen(name)) is not None]
    pairs = {
        name: (_read(workspace, item.champion), _read(workspace, item.challenger))
        for name, item in by_set.items()
    }
    old, new = pairs.pop(HOLDOUT)
    assert new is not None
    regression = next(((a, b) for a, b in pairs.values() if a is not None and b is not None), None)
    comparison = Comparison(
        frozen=frozen,
        measured=[item.cases.measured() for item in scores],
        regression=regression,
        leaked=sorted(_leaked(tested, seen.values())),
        # Labels that a person approved count as those that a person drew: the scan was measured in both.
        new_cases=sum(case.source != "forged" for name, case in seen.items() if name not in known),
        by_hand=by_hand,
        rolled_back=f"by {undone.who}: {undone.reason}" if undone is not None else None,
    )
    return judge(old, new, rules, comparison)


def _leaked(tested: Iterable[LabelledCase], seen: Collection[LabelledCase]) -> set[str]:
    """Test cases that share volume or group with what a model has seen, whatever the labels."""
    groups, volumes = {case.group for case in seen}, {volume_part(case.name) for case in seen}
    return {case.name for case in tested if case.group in groups or volume_part(case.name) in volumes}


def _frozen_set(row: AuditRow) -> FrozenSet:
    assert row.after is not None
    return FrozenSet(row.subject, tuple(row.evidence["cases"]), row.after)


def _training_cases(workspace: Workspace, model: Artefact) -> dict[str, LabelledCase]:
    """Name → case of what a model was trained on."""
    dataset = Artefact(**workspace.read_provenance(model)["inputs"]["dataset"])
    return {case.name: case for case in labelled_cases(workspace, dataset, trust_records=True)}


def _read(workspace: Workspace, scores: Artefact | None) -> pd.DataFrame | None:
    return pd.read_parquet(workspace.path(scores) / SCORES) if scores is not None else None


def _lines(challenger: Artefact, champion: Artefact | None, verdict: Verdict) -> list[str]:
    against = champion.key if champion is not None else "nobody"
    rows = verdict.table.to_dict("records")
    return [
        f"{'promoted' if verdict.promote else 'refused'}  {challenger.key}",
        f"against   {against}",
        "",
        *(_score_line(row) for row in rows),
        "",
        *(f"{'for' if verdict.promote else 'against'}  {reason}" for reason in verdict.reasons),
    ]


def _score_line(row: Mapping[str, Any]) -> str:
    line = f"{row['set']:10}  {row['class']:8}  IoU {row['challenger']:.3f}"
    if row["champion"] == row["champion"]:  # not NaN: there is a champion
        line += f"  champion {row['champion']:.3f}  {100 * row['difference']:+.2f} points"
        line += f" [{100 * row['low']:+.2f}, {100 * row['high']:+.2f}]"
    return f"{line}  {row['cases']} cases"
