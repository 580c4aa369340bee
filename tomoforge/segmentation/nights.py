"""The nights of a workspace: what each was to do, what became of it, and which labels were considered already.

Kept in one folder: ``lock``, held by the one night at work; ``plan.json``, the open night with everything that decides
it; ``night-0001.json`` …, what became of each, never changed; ``watermark.json``, what was considered. A night ends in
this order: its record, the watermark, then the plan goes. Killed in between, the next call finds the plan, sees from
the record how far the night had come, and ends it once.

A lost watermark costs time alone: labels that are in the data set already are recognised by their content.
"""

import contextlib
import fcntl
import json
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from tomoforge.errors import StorageError
from tomoforge.segmentation.case_records import CaseRecord, Source
from tomoforge.segmentation.splits import Holdout
from tomoforge.storage import write_json_atomic

Outcome = Literal["trained", "quarantined", "held out", "known", "superseded", "failed"]
NIGHT = "night"  # in the origin of a forged case: the number of the night that forged it
_FORMAT = 1
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class NightCase:
    """Labels of a measured scan's volume, by the keys of their artefacts.

    approval : hash of the decision that approved them, checksum : the content that it was made on; rank : the higher
    one counts where a volume has several; made : when [s], to tell the newer of two.
    """

    labels: str
    volume: str
    scan: str
    source: Source
    approval: str | None = None
    checksum: str | None = None
    rank: int = 0
    made: float = 0.0


@dataclass(frozen=True)
class Considered:
    """What became of labels in a night. content : name of the case; holdout : hash of the frozen cases that they were
    compared with, where they are held out; the others as in ``NightCase``."""

    outcome: Outcome
    night: int
    volume: str
    reason: str = ""
    content: str | None = None
    source: Source = "real"
    approval: str | None = None
    holdout: str | None = None


@dataclass(frozen=True)
class Watermark:
    """How far the nights have come. night : number of the last; version, dataset : keys of what it trained on;
    labels : key of a label artefact → what became of it."""

    night: int = 0
    version: str | None = None
    dataset: str | None = None
    labels: Mapping[str, Considered] = field(default_factory=dict)


@dataclass(frozen=True)
class NightPlan:
    """An open night: everything that decides it, so that whoever finishes it does the same.

    number : 1, 2, …; began : ISO 8601, UTC; settings : as the tasks wrote them; cases : records of the new cases, none
    where the night only notes what was quarantined; considered : key of labels → what becomes of them when it ends;
    champion, dataset : model to go on from and what it was trained on; parent : version to grow from, None for the
    champion's data set; drop : contents that are left out of both; holdout : frozen cases; scan : that the forging is
    matched to; audit : last row of the registry's audit before the night; starts : how often it was begun.
    """

    number: int
    began: str
    settings: Mapping[str, Any]
    cases: tuple[CaseRecord, ...] = ()
    considered: Mapping[str, Considered] = field(default_factory=dict)
    champion: str | None = None
    dataset: str | None = None
    parent: str | None = None
    drop: tuple[str, ...] = ()
    holdout: Holdout | None = None
    scan: str | None = None
    audit: int = 0
    warnings: tuple[str, ...] = ()
    reason: str = ""
    starts: int = 0

    @property
    def name(self) -> str:
        """``night-0001``."""
        return f"night-{self.number:04}"

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "NightPlan":
        """The plan again, from the JSON values of ``dataclasses.asdict``."""
        held = stored["holdout"]
        parts = {name: tuple(held[name]) for name in ("cases", "volumes", "groups")} if held else {}
        return cls(
            **{
                **stored,
                "cases": tuple(CaseRecord.from_dict(case) for case in stored["cases"]),
                "considered": _considered(stored["considered"]),
                "drop": tuple(stored["drop"]),
                "warnings": tuple(stored["warnings"]),
                "holdout": Holdout(**{**held, **parts}) if held else None,
            }
        )


class NightBook:
    """The nights in ``folder``."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """True inside the block if no other process holds the nights; the lock is the kernel's and dies with it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def watermark(self) -> Watermark:
        """How far the nights have come."""
        stored = self._read("watermark.json", {})
        return Watermark(**{**stored, "labels": _considered(stored.get("labels", {}))})

    def open_plan(self) -> NightPlan | None:
        """The night that was begun and has not ended, or None."""
        stored = self._read("plan.json", None)
        return None if stored is None else NightPlan.from_dict(stored)

    def next_number(self) -> int:
        """The number of the next night."""
        taken = [int(path.stem.removeprefix("night-")) for path in self.folder.glob("night-*.json")]
        return max(taken, default=0) + 1

    def begin(self, plan: NightPlan) -> NightPlan:
        """Keep the plan of a night that begins, or begins once more; with one more start."""
        started = replace(plan, starts=plan.starts + 1)
        write_json_atomic(self.folder / "plan.json", {"format": _FORMAT, **asdict(started)})
        return started

    def record(self, plan: NightPlan) -> dict[str, Any] | None:
        """What became of a night, or None if it has no end yet."""
        return self._read(f"{plan.name}.json", None)

    def end(self, plan: NightPlan, record: Mapping[str, Any], watermark: Watermark) -> None:
        """End a night. A record that is there already, from a call that was killed here, stays as it is."""
        if self.record(plan) is None:
            path = self.folder / f"{plan.name}.json"
            write_json_atomic(path, {"format": _FORMAT, **record})
            path.chmod(0o444)  # a reminder: records are only added
        write_json_atomic(self.folder / "watermark.json", {"format": _FORMAT, **asdict(watermark)})
        (self.folder / "plan.json").unlink(missing_ok=True)

    def _read(self, name: str, missing: Any) -> Any:
        path = self.folder / name
        try:
            stored = json.loads(path.read_text())
            if stored.pop("format") != _FORMAT:
                raise ValueError("it is of another format")
            return stored
        except FileNotFoundError:
            return missing
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                f"{path} cannot be read ({error}); move it away: what was done is found again by its content"
            ) from error


def _considered(stored: Mapping[str, Mapping[str, Any]]) -> dict[str, Considered]:
    return {labels: Considered(**entry) for labels, entry in stored.items()}


# --- what a night takes ---------------------------------------------------------------------------------


def competing(cases: Sequence[NightCase], watermark: Watermark) -> list[NightCase]:
    """The cases without those that are quarantined: other labels of their volume may do."""
    return [case for case in cases if not _in_quarantine(case, watermark.labels.get(case.labels))]


def _in_quarantine(case: NightCase, before: Considered | None) -> bool:
    """Whether nothing has changed about a case since it was quarantined."""
    return (
        before is not None
        and before.outcome == "quarantined"
        and (before.volume, before.approval) == (case.volume, case.approval)
    )


def still_new(
    cases: Sequence[NightCase],
    watermark: Watermark,
    *,
    present: Collection[str],
    holdout: str | None,
    retry_failed: bool = False,
) -> list[NightCase]:
    """The cases that no night has settled.

    Settled are those trained on whose contents are still ``present`` in the data set, quarantined ones while their
    volume is the same, held-out ones while the hold-out (its hash is ``holdout``) is, and those of a failed night
    unless ``retry_failed``. A new decision on labels makes them new.
    """
    found = []
    for case in cases:
        before = watermark.labels.get(case.labels)
        if (
            before is None
            or before.approval != case.approval
            or (before.outcome in ("trained", "known") and before.content not in present)
            or (before.outcome == "quarantined" and not _in_quarantine(case, before))
            or (before.outcome == "held out" and before.holdout != holdout)
            or (before.outcome == "failed" and retry_failed)
        ):
            found.append(case)
    return found


def best_of_each(
    items: Sequence[_Item], of: Callable[[_Item], Hashable], case: Callable[[_Item], NightCase]
) -> tuple[list[_Item], dict[str, str]]:
    """Of items that share ``of`` the one whose ``case`` ranks highest, then the newest; labels of each other → of the
    one that was preferred."""
    best: dict[Hashable, _Item] = {}
    replaced: dict[str, str] = {}
    for item in sorted(items, key=lambda item: (case(item).rank, case(item).made, case(item).labels)):
        if (other := best.get(of(item))) is not None:
            replaced[case(other).labels] = case(item).labels
        best[of(item)] = item
    return list(best.values()), replaced


def held_out(records: Sequence[CaseRecord]) -> Holdout:
    """The frozen cases as what no night may train on.

    Whether they are real was asked when they were frozen. Here their volumes and groups count, whatever their source:
    a rehearsal on forged cases is kept apart from its hold-out just as strictly.
    """
    once = {record.content: replace(record, source="real") for record in records}
    return Holdout.freeze(once.values())


def is_held_out(record: CaseRecord, holdout: Holdout) -> bool:
    """Whether a case shares volume or group with the frozen ones."""
    return record.volume_sha256 in holdout.volumes or record.group in holdout.groups


def old_forged(records: Sequence[CaseRecord], most: int) -> list[str]:
    """Contents of the forged cases of earlier nights beyond the newest ``most``: a set must not grow without bound
    from what can be forged anew. Forged cases that no night made stay."""
    nightly = [r for r in records if r.source == "forged" and NIGHT in r.origin]
    newest = sorted(nightly, key=lambda r: (-int(r.origin[NIGHT]), r.content))
    return sorted(record.content for record in newest[most:])


def joined(version: Sequence[CaseRecord], champions: Sequence[CaseRecord]) -> list[CaseRecord]:
    """The cases of the last version and those that the champion knows besides, each volume once."""
    volumes = {record.volume_sha256 for record in version}
    return [*version, *(record for record in champions if record.volume_sha256 not in volumes)]


def after_night(
    before: Watermark, plan: NightPlan, *, version: str | None, dataset: str | None, failed: str = ""
) -> Watermark:
    """The watermark once a night has ended; its new cases are ``failed`` where this says why."""
    settled = dict(plan.considered)
    if failed:
        for labels, entry in settled.items():
            if entry.outcome == "trained":
                settled[labels] = replace(entry, outcome="failed", reason=failed)
    return Watermark(
        plan.number, version or before.version, dataset or before.dataset, {**before.labels, **settled}
    )
