"""Which cases train, which validate and which do neither: decided here, never by nnU-Net's random 80 : 20."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from tomoforge.errors import InputError, StorageError
from tomoforge.segmentation.case_records import CaseRecord
from tomoforge.storage import to_json, write_json_atomic

Split: TypeAlias = dict[str, list[str]]  # "train" and "val": identifiers, as nnU-Net names them


@dataclass(frozen=True)
class Holdout:
    """Real cases that never train, frozen by hash.

    cases : names by content, sorted; volumes : hashes of their volumes, groups : what they must not share with any
    training case; sha256 : of all of these.
    """

    cases: tuple[str, ...]
    volumes: tuple[str, ...]
    groups: tuple[str, ...]
    sha256: str

    @classmethod
    def freeze(cls, records: Iterable[CaseRecord]) -> "Holdout":
        """The hold-out of these cases.

        Raises InputError if there is none, one is not real, or one comes twice.
        """
        records = list(records)
        if not records:
            raise InputError("a hold-out must hold at least one real case, got none")
        if others := sorted(r.identifier for r in records if r.source != "real"):
            raise InputError(
                f"a hold-out must hold real cases alone, got {others}; forged cases say nothing of the beamline"
            )
        names = [record.content for record in records]
        if twice := sorted(name for name, count in Counter(names).items() if count > 1):
            raise InputError(f"each case of a hold-out must be there once, got {twice} more than once")
        parts = (
            tuple(sorted(names)),
            tuple(sorted({record.volume_sha256 for record in records})),
            tuple(sorted({record.group for record in records})),
        )
        return cls(*parts, _hash(parts))

    def refuse(self, records: Iterable[CaseRecord]) -> None:
        """Raise InputError if one of these cases is held out: its volume, whatever its labels, or its group."""
        for record in records:
            if record.volume_sha256 in self.volumes or record.group in self.groups:
                what = "volume" if record.volume_sha256 in self.volumes else f"group {record.group!r}"
                raise InputError(
                    f"case {record.identifier}: its {what} is in the frozen hold-out {self.sha256[:12]}, which no "
                    "training may see; leave the case out"
                )


def write_holdout(path: str | Path, holdout: Holdout) -> None:
    """Keep a hold-out. Raises StorageError if another one stands there: it is frozen."""
    path = Path(path)
    if path.exists():
        if read_holdout(path) != holdout:
            raise StorageError(f"{path} holds another hold-out, and it is frozen; write a new one elsewhere")
        return
    write_json_atomic(path, asdict(holdout))


def read_holdout(path: str | Path) -> Holdout:
    """A hold-out that was kept. Raises StorageError if it is missing, damaged or was changed."""
    try:
        stored = json.loads(Path(path).read_text())
        cases, volumes, groups = (tuple(stored[name]) for name in ("cases", "volumes", "groups"))
        found = Holdout(cases, volumes, groups, stored["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"the hold-out {path} cannot be read ({error}); restore it from a copy") from error
    if _hash((cases, volumes, groups)) != found.sha256:
        raise StorageError(
            f"the hold-out {path} was changed: its cases do not give its hash; restore it from a copy"
        )
    return found


def stratified_folds(
    sources: Mapping[str, str], folds: int = 5, *, groups: Mapping[str, str] | None = None
) -> list[Split]:
    """Splits in which every case is held back once, every source is spread over the folds and no group is torn.

    Parameters
    ----------
    sources : identifier of a case → where it comes from
    folds : 2 to the number of groups
    groups : identifier → group; None makes each case one

    Returns
    -------
    list of splits
        They depend on identifiers, sources and groups, not on any order: groups, largest first and then in the order
        of their hashes, go to the fold with the fewest cases of their source, then with the fewest in all. Without
        groups no fold has more than one case more of a source, or in all, than another.

    Raises InputError for fewer groups than folds, or fewer than two folds.
    """
    members: dict[str, list[str]] = {}
    for case in sources:
        members.setdefault(case if groups is None else groups[case], []).append(case)
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= len(members):
        raise InputError(f"folds must be 2 to the number of groups of cases, {len(members)}, got {folds!r}")
    strata = {group: "+".join(sorted({sources[c] for c in cases})) for group, cases in members.items()}
    ordered = sorted(
        members, key=lambda g: (strata[g], -len(members[g]), hashlib.sha256(g.encode()).digest())
    )
    held: list[list[str]] = [[] for _ in range(folds)]
    of_source: list[Counter[str]] = [Counter() for _ in range(folds)]
    for group in ordered:
        stratum, cases = strata[group], members[group]
        fold = min(range(folds), key=lambda f: (of_source[f][stratum], len(held[f]), f))
        held[fold] += cases
        of_source[fold][stratum] += len(cases)
    return [{"train": sorted({*sources} - {*validation}), "val": sorted(validation)} for validation in held]


def folds_of(records: Sequence[CaseRecord], folds: int = 5) -> list[Split]:
    """``stratified_folds`` of described cases."""
    return stratified_folds(
        {record.identifier: record.source for record in records},
        folds,
        groups={record.identifier: record.group for record in records},
    )


def single_split(records: Sequence[CaseRecord], labels: Collection[int] = ()) -> Split:
    """One split for measuring progress: of each source every fifth group, at least the last of all.

    Where one of ``labels`` would then occur in no case that trains, another group alone is held back, the last one
    for which it works. A single group is trained and validated on itself.
    """
    by_group: dict[str, list[CaseRecord]] = {}
    for record in records:
        by_group.setdefault(record.group, []).append(record)
    names = sorted(record.identifier for record in records)
    if len(by_group) == 1:
        return {"train": names, "val": names}
    ordered = sorted(by_group, key=lambda group: min(r.identifier for r in by_group[group]))
    fifths: list[str] = []
    for source in sorted({record.source for record in records}):
        fifths += [group for group in ordered if by_group[group][0].source == source][4::5]
    choices = [fifths or ordered[-1:], *([group] for group in reversed(ordered))]
    held = next((c for c in choices if _shown(by_group, c) >= set(labels)), choices[0])
    validation = sorted(record.identifier for group in held for record in by_group[group])
    return {"train": [name for name in names if name not in validation], "val": validation}


def _shown(by_group: Mapping[str, Sequence[CaseRecord]], held: Sequence[str]) -> set[int]:
    """Labels that occur in the groups that are not held back."""
    return {label for g, cases in by_group.items() if g not in held for r in cases for label in r.present}


def check_split(split: Split, records: Sequence[CaseRecord], class_names: Mapping[str, int]) -> None:
    """Raise InputError if the training side shows a class nowhere: nnU-Net would learn it as absent, in silence."""
    shown = {label for r in records if r.identifier in set(split["train"]) for label in r.present}
    missing = [name for name, label in class_names.items() if label not in shown]
    if missing:
        raise InputError(
            f"each class must occur in some case that trains, got {missing} in none of {split['train']}; hold other "
            "cases back for validation"
        )


def _hash(parts: Sequence[Sequence[str]]) -> str:
    return hashlib.sha256(to_json([list(part) for part in parts]).encode()).hexdigest()
