"""One look over the inbox: what became of every entry so far, and which are ready to be taken in.

The order of the questions is the order of their danger and cost. Names, sizes and times come first and cost a
stat call each; then what is known already; then the structure of HDF5 files, by which nothing is read that lies
elsewhere or was never written; and only then frames.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tomoforge.beamline.examine import examine_scan
from tomoforge.beamline.findings import Finding, Refused
from tomoforge.beamline.inbox import (
    MARKED_OPEN,
    Parts,
    Snapshot,
    entries,
    find_parts,
    hdf5_files,
    links_of,
    look,
    open_for_writing,
    unsettled,
)
from tomoforge.beamline.ledger import Ledger, Outcome, Record, State
from tomoforge.beamline.opening import fatal_scans

logger = logging.getLogger(__name__)

_WRITER_IS_DEAD_S = 86400.0  # a file marked as open that nobody has changed for a day
_AGAIN = "nothing: it is looked at again"
# Whose entry may be the other half of a scan that points at it.
_PERHAPS_A_PART = ("no scan", "a scan", "frames against image keys", "frames against angles")


@dataclass(frozen=True)
class Given:
    """What a scan is read with where its file does not say it; as for ``read_scan``."""

    energy_kev: float | None = None
    pixel_size_um: float | None = None
    allow_missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ready:
    """An entry whose scan can be taken in. record : as it is in the ledger; warnings : of validation."""

    record: Record
    parts: Parts
    warnings: tuple[Finding, ...]

    @property
    def name(self) -> str:
        """The entry's name."""
        return self.record.entry


@dataclass(frozen=True)
class Survey:
    """ready : entries to be taken in, by name; outcomes : of all others, by name; known : how many were passed over."""

    ready: tuple[Ready, ...] = ()
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    known: int = 0


def try_opening(files: Sequence[Path], inbox: Path) -> Mapping[Path, str]:
    """Which HDF5 files end or hang the process that opens them, tried in a process of their own."""
    return fatal_scans(files, root=inbox)


def survey(
    inbox: Path,
    ledger: Ledger,
    given: Given,
    settings: str,
    *,
    settle_s: float,
    stands: Callable[[Outcome], bool] = lambda outcome: True,
    trial: Callable[[Sequence[Path], Path], Mapping[Path, str]] = try_opening,
    now: Callable[[], float] = time.time,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Look at every entry of ``inbox`` and record what there is to say; nothing in it is changed.

    Parameters
    ----------
    inbox : folder
    ledger : what is known; new outcomes are recorded in it
    given : values for what files do not say
    settings : digest of all that decides an outcome (``ledger.settings_digest``)
    settle_s : float [s], how long an entry must not have changed
    stands : whether what an earlier run imported is still there
    trial : called with HDF5 files and the inbox before any of them is opened here; which end their reader, and how
    now : this machine's clock [s since the epoch]
    progress : called with (entries done, entries)
    """
    paths = entries(inbox)
    look_at = _Look(inbox, ledger, given, settings, settle_s, stands, now)
    new = [file for path in paths if look_at.is_new(path) for file in hdf5_files(path)]
    look_at = replace(look_at, fatal=trial(new, inbox) if new else {})
    found: dict[str, Ready | Outcome] = {}
    records: dict[str, Record] = {}
    known = 0
    for done, path in enumerate(paths):
        record, answer, old = look_at.entry(path)
        if record is not None:
            found[path.name], records[path.name] = answer, record
            known += old
        if progress is not None:
            progress(done + 1, len(paths))
    _name_parts(found, records, ledger, settings)
    for record in ledger.records():
        if record.entry not in records and not any(o.scan for o in record.outcomes.values()):
            ledger.forget(record)  # taken away again before it came to anything
    return Survey(
        tuple(answer for answer in found.values() if isinstance(answer, Ready)),
        {name: answer for name, answer in found.items() if isinstance(answer, Outcome)},
        known,
    )


def _name_parts(
    found: dict[str, Ready | Outcome], records: dict[str, Record], ledger: Ledger, settings: str
) -> None:
    """An entry without a scan of its own that another points at is a part of that other."""
    owners = {
        linked.split(os.sep, 1)[0]: name
        for name, record in records.items()
        for linked in record.linked
        if linked.split(os.sep, 1)[0] != name
    }
    for name, answer in found.items():
        if not isinstance(answer, Outcome) or answer.state != "quarantined" or name not in owners:
            continue
        if answer.findings[0].rule in _PERHAPS_A_PART:
            part = Finding(
                "part of another entry", f"{owners[name]} points into it", "nothing: it belongs there"
            )
            outcome = Outcome("part", (part,))
            ledger.settle(records[name], settings, outcome)
            found[name] = outcome


@dataclass(frozen=True)
class _Look:
    inbox: Path
    ledger: Ledger
    given: Given
    settings: str
    settle_s: float
    stands: Callable[[Outcome], bool]
    now: Callable[[], float]
    fatal: Mapping[Path, str] = field(default_factory=dict)

    def is_new(self, path: Path) -> bool:
        """Whether an entry will be opened, by what stat calls and the ledger say."""
        if not os.path.lexists(path):
            return False
        known = self.ledger.read(path.name)
        snapshot = look(path, self.inbox, known.linked if known else ())
        record, waits = self._stat_rules(path, known, snapshot)
        return waits is None and not self._is_known(record)

    def _is_known(self, record: Record) -> bool:
        before = record.outcomes.get(self.settings)
        return before is not None and before.final and (before.scan is None or self.stands(before))

    def entry(self, path: Path) -> tuple[Record | None, Ready | Outcome, bool]:
        """(record, what it is, whether that was known); no record where the entry has vanished."""
        if not os.path.lexists(path):
            return None, Outcome("deferred"), False
        record = self.ledger.read(path.name)
        snapshot = look(path, self.inbox, record.linked if record else ())
        record, waits = self._stat_rules(path, record, snapshot)
        if waits is not None:
            return self._settled(record, waits)
        if self._is_known(record):
            return record, _given_up(record.outcomes[self.settings]), True
        for file in hdf5_files(path):
            if file in self.fatal:
                finding = Finding(
                    "safe to open", f"{file.name}: {self.fatal[file]}", "copy it again, or write it anew"
                )
                return self._settled(record, Outcome("quarantined", (finding,)))
        # Noted before the file is opened: one that kills its reader is not opened for ever.
        begun = begin(self.ledger, record, self.settings)
        try:
            return self._open(path, record, snapshot)
        except Refused as error:
            return self._settled(begun, Outcome("quarantined", (error.finding,)))
        except Exception as error:  # whatever one entry does to its reader, the others go on
            logger.exception("%s could not be examined", path.name)
            return self._settled(begun, failed(error, begun.outcomes[self.settings].tries))

    def _open(self, path: Path, record: Record, snapshot: Snapshot) -> tuple[Record, Ready | Outcome, bool]:
        linked = links_of(path, self.inbox)
        if linked != record.linked:
            # What it points at belongs to its fingerprint from now on.
            snapshot = look(path, self.inbox, linked)
            record, waits = self._stat_rules(path, replace(record, linked=linked), snapshot)
            if waits is not None:
                return self._settled(record, waits)
        waits = self._writers(path, record, snapshot)
        if waits is not None:
            return self._settled(record, waits)
        return self._read(path, record, snapshot)

    def _stat_rules(
        self, path: Path, record: Record | None, snapshot: Snapshot
    ) -> tuple[Record, Outcome | None]:
        now = self.now()
        known_since = record.known_since(snapshot.fingerprint, now) if record else None
        if record is None:
            record = Record(self.ledger.identifier(path.name), path.name, snapshot.fingerprint, now, now)
        elif known_since is None:
            record = replace(record, fingerprint=snapshot.fingerprint, fingerprint_seen=now, outcomes={})
        if snapshot.problem is not None:
            # Permission may be given without the file changing, so that is looked at every time.
            state: State = "deferred" if snapshot.problem.rule == "unreadable" else "quarantined"
            return record, Outcome(state, (snapshot.problem,))
        waits = unsettled(snapshot, now, self.settle_s, known_since)
        return record, Outcome("deferred", (waits,)) if waits is not None else None

    def _writers(self, path: Path, record: Record, snapshot: Snapshot) -> Outcome | None:
        linked = [self.inbox / name for name in record.linked]
        for file in [*hdf5_files(path), *(f for f in linked if f.is_file())]:
            finding = open_for_writing(file)
            if finding is not None:
                dead = finding.rule == MARKED_OPEN and self.now() - snapshot.newest > _WRITER_IS_DEAD_S
                return Outcome("quarantined" if dead else "deferred", (finding,))
        return None

    def _read(self, path: Path, record: Record, snapshot: Snapshot) -> tuple[Record, Ready | Outcome, bool]:
        parts = find_parts(path, self.inbox)
        _, report = examine_scan(
            parts.scan,
            energy_kev=self.given.energy_kev,
            pixel_size_um=self.given.pixel_size_um,
            allow_missing=self.given.allow_missing,
            root=self.inbox,
        )
        if look(path, self.inbox, record.linked).fingerprint != snapshot.fingerprint:
            return self._settled(record, changed())
        if report.refusals:
            return self._settled(record, Outcome("quarantined", report.refusals, report.warnings))
        self.ledger.write(record)  # it was read and lives: that try does not count
        return record, Ready(record, parts, report.warnings), False

    def _settled(self, record: Record, outcome: Outcome) -> tuple[Record, Outcome, bool]:
        before = record.outcomes.get(self.settings)
        record = self.ledger.settle(record, self.settings, outcome)
        return record, record.outcomes[self.settings], before == outcome


def begin(ledger: Ledger, record: Record, settings: str) -> Record:
    """Record that work on an entry begins, and how often it has."""
    before = record.outcomes.get(settings)
    tries = before.tries if before is not None and before.state in ("begun", "failed") else 0
    return ledger.settle(record, settings, Outcome("begun", tries=tries + 1))


def failed(error: BaseException, tries: int) -> Outcome:
    """The outcome of an entry whose work ended with an exception that is not the scan's fault."""
    finding = Finding("failed", f"{type(error).__name__}: {error}", "look into the log; it is tried again")
    return Outcome("failed", (finding,), tries=tries)


def changed() -> Outcome:
    """The outcome of an entry that changed while it was read."""
    return Outcome("deferred", (Finding("changed while read", "files differ from before", _AGAIN),))


def _given_up(outcome: Outcome) -> Outcome:
    if outcome.state != "begun":
        return outcome
    finding = Finding(
        "failed",
        f"its reader ended without a word {outcome.tries} times",
        "look at the file with h5debug or open it elsewhere; change it or its settings to try again",
    )
    return replace(outcome, state="failed", findings=(finding,))
