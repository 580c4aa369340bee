"""The registry of models in the workspace: register, score on frozen cases, judge, promote, roll back."""

import getpass
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from prefect import task
from pydantic import Field

from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.progress import StageProgress
from tasks.samples import LABELS
from tasks.segmenter import MODEL
from tasks.volumes import VOLUME
from tomoforge.config import Settings
from tomoforge.errors import InputError
from tomoforge.segmentation.audit import AuditRow
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
from tomoforge.storage import Artefact, Workspace, file_checksum, replacing
from tomoforge.volumes import LABEL_NAMES, read_labels

DATABASE = Path("registry") / "registry.db"
SCORES = "scores.parquet"
_REAL_SCAN = "real-scan-"  # keys of imported scans; forged ones are called otherwise
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
    """A volume with its true labels. name : hash of the content of both."""

    name: str
    volume: Artefact
    labels: Artefact


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
    """What became of a model: lines for a person, and whether it is champion now."""

    promoted: bool
    lines: tuple[str, ...]


def open_registry(workspace: Workspace) -> Registry:
    """The registry of the workspace."""
    return Registry(workspace.root / DATABASE)


def champion_of(workspace: Workspace) -> Artefact | None:
    """The model that segments, its files checked, or None."""
    champion = open_registry(workspace).champion()
    return find_model(workspace, champion.key) if champion is not None else None


def find_model(workspace: Workspace, key: str) -> Artefact:
    """The model of this key. Raises InputError with the keys there are."""
    return _find(workspace, "models", "model", key)


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
    found = _find(workspace, "datasets", "dataset", key)
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
    """Scores of segmentations, in the order of the cases: a table in kind ``models``."""

    def build(folder: Path) -> None:
        pieces = [
            (case.name, str(workspace.path(case.labels) / LABELS), str(workspace.path(predicted) / LABELS))
            for case, predicted in zip(cases.cases, segmentations, strict=True)
        ]
        bar = StageProgress(f"{name}: cases scored")
        parts = compute.map(_score_piece, pieces, timeout_s=_TIMEOUT_S, progress=bar)
        with replacing(folder / SCORES) as path:
            join_evaluations(parts).scores.to_parquet(path, index=False)

    inputs: Mapping[str, Artefact | str] = {
        **{f"case_{n}": case.name for n, case in enumerate(cases.cases)},
        **{f"labels_{n}": item for n, item in enumerate(segmentations)},
    }
    return produce(
        workspace,
        "models",
        "scores",
        parameters={"classes": LABEL_NAMES},
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
    """The cases a dataset was made from.

    trust_records : name them by the checksums that were recorded when they were made, else by their files as
    they are now, which takes as long as reading them.
    """
    inputs = workspace.read_provenance(dataset)["inputs"]
    numbers = sorted(int(role.removeprefix("volume_")) for role in inputs if role.startswith("volume_"))
    if not numbers:
        raise InputError(f"a dataset must say which volumes it was made from, got none in {dataset.key}")
    found = []
    for n in numbers:
        volume, labels = Artefact(**inputs[f"volume_{n}"]), Artefact(**inputs[f"labels_{n}"])
        parts = [
            _checksums(workspace, volume, VOLUME, trust_records),
            _checksums(workspace, labels, LABELS, trust_records),
        ]
        name = sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        found.append(LabelledCase(name, volume, labels))
    return found


def _checksums(workspace: Workspace, artefact: Artefact, part: str, trust_records: bool) -> dict[str, str]:
    """File within ``part`` of an artefact → its SHA-256."""
    folder = workspace.path(artefact)
    if trust_records:
        files = workspace.read_provenance(artefact)["files"]
        return {name: entry["sha256"] for name, entry in files.items() if name.startswith(f"{part}/")}
    return {
        str(file.relative_to(folder)): file_checksum(file)
        for file in (folder / part).rglob("*")
        if file.is_file()
    }


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
    tested = {case.name for item in scores for case in item.cases.cases}
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
        leaked=sorted(tested & set(seen)),
        new_cases=len(_real(workspace, seen) - set(known)),
        by_hand=by_hand,
        rolled_back=f"by {undone.who}: {undone.reason}" if undone is not None else None,
    )
    return judge(old, new, rules, comparison)


def _frozen_set(row: AuditRow) -> FrozenSet:
    assert row.after is not None
    return FrozenSet(row.subject, tuple(row.evidence["cases"]), row.after)


def _training_cases(workspace: Workspace, model: Artefact) -> dict[str, LabelledCase]:
    """Name → case of what a model was trained on."""
    dataset = Artefact(**workspace.read_provenance(model)["inputs"]["dataset"])
    return {case.name: case for case in labelled_cases(workspace, dataset, trust_records=True)}


def _real(workspace: Workspace, cases: Mapping[str, LabelledCase]) -> set[str]:
    """The cases whose scan was measured and not forged."""
    return {
        name
        for name, case in cases.items()
        if _scan_key(workspace.read_provenance(case.volume)).startswith(_REAL_SCAN)
    }


def _scan_key(provenance: Mapping[str, Any]) -> str:
    scan = provenance["inputs"].get("scan")
    return str(scan["key"]) if isinstance(scan, Mapping) else ""


def _read(workspace: Workspace, scores: Artefact | None) -> pd.DataFrame | None:
    return pd.read_parquet(workspace.path(scores) / SCORES) if scores is not None else None


def _find(workspace: Workspace, kind: str, what: str, key: str) -> Artefact:
    found = workspace.find(kind, key) if "/" not in key else None
    if found is None:
        known = sorted(p.name for p in workspace.folder(kind).glob(f"{what}-*"))
        raise InputError(
            f"{what} must be the key of a {what} in {workspace.root}, got {key!r}; "
            f"there are: {', '.join(known) or 'none'}"
        )
    return found


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
