"""What is known of the entries of an inbox: one JSON an entry, and a reason beside each that is in quarantine.

An outcome belongs to a fingerprint and to the settings it was reached with, so a file that changed, or that is
looked at with the energy it lacked, is looked at again and all others are passed over.
"""

import contextlib
import datetime
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tomoforge.beamline.findings import Finding
from tomoforge.errors import StorageError
from tomoforge.storage import to_json, write_json_atomic

State = Literal["deferred", "begun", "quarantined", "duplicate", "imported", "failed", "part"]
MOST_TRIES = 3
LEDGER_VERSION = 1
REASON = "reason.json"
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, StorageError)
_FINAL = ("quarantined", "duplicate", "imported", "part")


@dataclass(frozen=True)
class CompanionOutcome:
    """What became of a companion. name : in the entry; kind : "labels" or "dials"; artefact : key, None if refused."""

    name: str
    kind: str
    artefact: str | None
    finding: Finding | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of an entry, of one fingerprint, with one group of settings.

    findings : why it was refused, deferred or failed, the first is told; warnings : what validation said of a scan
    that was taken; scan, volume : keys of artefacts; content : digest of the counts; duplicate_of : name of the
    entry that has the same content; tries : how often it was begun.
    """

    state: State
    findings: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()
    scan: str | None = None
    volume: str | None = None
    content: str | None = None
    duplicate_of: str | None = None
    tries: int = 0
    companions: tuple[CompanionOutcome, ...] = ()

    @property
    def final(self) -> bool:
        """Whether the entry need not be looked at again before it or the settings change."""
        return self.state in _FINAL or (self.state in ("failed", "begun") and self.tries >= MOST_TRIES)


@dataclass(frozen=True)
class Record:
    """All that is known of an entry.

    identifier : unique in the ledger and a file name; entry : its name in the inbox; fingerprint : at the last look,
    seen since ``fingerprint_seen`` [s since the epoch]; first_seen : the entry [s since the epoch]; linked : files
    elsewhere in the inbox that belong to it; outcomes : by digest of the settings, for this fingerprint only.
    """

    identifier: str
    entry: str
    fingerprint: str
    first_seen: float
    fingerprint_seen: float
    linked: tuple[str, ...] = ()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)

    def known_since(self, fingerprint: str, now: float) -> float | None:
        """Since when this fingerprint has been there, None if it is new or this clock was set back."""
        same = fingerprint == self.fingerprint and self.fingerprint_seen <= now
        return self.fingerprint_seen if same else None


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Identifier of the settings that decide what becomes of an entry."""
    return hashlib.sha256(to_json(dict(settings)).encode()).hexdigest()[:16]


class Ledger:
    """The records of one inbox. folder : where they lie; quarantine : where reasons are written."""

    def __init__(self, folder: Path, quarantine: Path, inbox: str) -> None:
        self.folder = folder
        self.quarantine = quarantine
        self.inbox = inbox
        folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """True inside the block if no other process holds this ledger; the lock is the kernel's and dies with it."""
        with open(self.folder / ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def identifier(self, name: str) -> str:
        """A file name for an entry, readable and unique."""
        return identifier_of(self.inbox, name)

    def read(self, name: str) -> Record | None:
        """The record of the entry ``name``; None if it is new, or its record cannot be read."""
        path = self.folder / f"{self.identifier(name)}.json"
        try:
            return _record(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except _UNREADABLE:
            return None  # what was known is found out again

    def records(self) -> list[Record]:
        """All records, sorted by the names of their entries."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            with contextlib.suppress(*_UNREADABLE):
                found.append(_record(json.loads(path.read_bytes())))
        return sorted(found, key=lambda record: record.entry)

    def write(self, record: Record) -> None:
        """Keep a record, whole or not at all."""
        content = {"version": LEDGER_VERSION, "inbox": self.inbox, **asdict(record)}
        path = self.folder / f"{record.identifier}.json"
        with contextlib.suppress(OSError):
            if path.read_bytes() == f"{to_json(content)}\n".encode():
                return
        write_json_atomic(path, content)

    def forget(self, record: Record) -> None:
        """Drop a record and its reason."""
        self._clear_reasons(record.identifier, keep=())
        (self.folder / f"{record.identifier}.json").unlink(missing_ok=True)

    def settle(self, record: Record, settings: str, outcome: Outcome) -> Record:
        """Record an outcome, and write or take away the reason in the quarantine.

        A scan that another group of settings has imported stays imported where these refuse it.
        """
        others = [o for key, o in record.outcomes.items() if key != settings and o.state == "imported"]
        if outcome.state == "quarantined" and others:
            outcome = others[0]
        record = replace(record, outcomes={**record.outcomes, settings: outcome})
        reasons = {}
        if outcome.state == "quarantined":
            reasons[record.identifier] = (record.entry, outcome.findings)
        for companion in outcome.companions:
            if companion.finding is not None:
                identifier = f"{record.identifier}.{identifier_of(record.identifier, companion.name)}"
                reasons[identifier] = (companion.name, (companion.finding,))
        for identifier, (path, findings) in reasons.items():
            self._write_reason(record, identifier, path, findings)
        if outcome.state != "begun":
            self._clear_reasons(record.identifier, keep=reasons)
        self.write(record)
        return record

    def _write_reason(
        self, record: Record, identifier: str, path: str, findings: tuple[Finding, ...]
    ) -> None:
        """``reason.json`` in the quarantine: no copy of the data, only where they lie and what is wrong."""
        content = {
            "path": os.path.join(self.inbox, path),
            "entry": record.entry,
            "fingerprint": record.fingerprint,
            **asdict(findings[0]),
            "findings": [asdict(finding) for finding in findings],
            "first_seen": moment(record.first_seen),
        }
        write_json_atomic(self.quarantine / identifier / REASON, content)

    def _clear_reasons(self, identifier: str, keep: Collection[str]) -> None:
        for folder in [self.quarantine / identifier, *self.quarantine.glob(f"{glob.escape(identifier)}.*")]:
            if folder.name not in keep and folder.is_dir():
                shutil.rmtree(folder)

    def claim(self, content: str, record: Record) -> str:
        """The entry that the content belongs to: this one, or an earlier one that still stands by it."""
        path = self.folder / "content" / f"{content}.json"
        try:
            owner = json.loads(path.read_bytes())["entry"]
        except (OSError, ValueError, KeyError, TypeError):
            owner = None
        if owner is not None and owner != record.entry:
            known = self.read(owner)
            if known is not None and any(_stands_by(o, content) for o in known.outcomes.values()):
                return owner
        write_json_atomic(path, {"entry": record.entry})
        return record.entry


def identifier_of(place: str, name: str) -> str:
    """A name for files: readable, and different for different places."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "entry"
    return f"{readable}-{hashlib.sha256(os.fsencode(f'{place}/{name}')).hexdigest()[:10]}"


def shown(name: str) -> str:
    """A file name as text that any table can hold."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _stands_by(outcome: Outcome, content: str) -> bool:
    return outcome.content == content and outcome.state in ("imported", "begun", "failed")


def moment(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601, UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _record(stored: dict[str, Any]) -> Record:
    if stored["version"] != LEDGER_VERSION:
        raise StorageError(f"ledger version {stored['version']}")
    return Record(
        identifier=stored["identifier"],
        entry=stored["entry"],
        fingerprint=stored["fingerprint"],
        first_seen=float(stored["first_seen"]),
        fingerprint_seen=float(stored["fingerprint_seen"]),
        linked=tuple(stored["linked"]),
        outcomes={key: _outcome(value) for key, value in stored["outcomes"].items()},
    )


def _outcome(stored: dict[str, Any]) -> Outcome:
    values = dict(stored)
    for name in ("findings", "warnings"):
        values[name] = tuple(Finding(**entry) for entry in values[name])
    values["companions"] = tuple(
        CompanionOutcome(
            entry["name"],
            entry["kind"],
            entry["artefact"],
            Finding(**entry["finding"]) if entry["finding"] else None,
        )
        for entry in values["companions"]
    )
    return Outcome(**values)
