"""The inbox: look it over, take a scan in, keep what became of each entry, show it to people."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import task

from tasks.artefacts import OPTIONS
from tasks.companions import take_companions
from tasks.progress import StageProgress, say
from tasks.publishing import publish_version
from tasks.scans import import_scan
from tomoforge.beamline.inbox import look
from tomoforge.beamline.ledger import CompanionOutcome, Ledger, Outcome, Record, settings_digest, shown
from tomoforge.beamline.survey import Given, Ready, Survey, begin, changed, failed, survey
from tomoforge.errors import InputError
from tomoforge.results import Table
from tomoforge.storage import Artefact, Workspace, to_json

LEDGER = "ledger"  # in the workspace
_WARNED_OF = 20


@dataclass(frozen=True)
class Inbox:
    """An inbox that this run alone works on. path : its folder; given, settings : what decides an outcome."""

    workspace: Workspace
    path: Path
    ledger: Ledger
    given: Given
    settings: str


@contextlib.contextmanager
def hold_inbox(
    workspace: Workspace, path: str | None, given: Given, settings: Mapping[str, Any]
) -> Iterator[Inbox | None]:
    """The inbox ``path`` (the workspace's own if None), or None while another run works on it.

    Raises InputError if it is no folder.
    """
    inbox = open_inbox(workspace, path)
    ledger = ledger_of(workspace, inbox)
    chosen = settings_digest({**settings, "given": given})
    with ledger.held() as alone:
        yield Inbox(workspace, inbox, ledger, given, chosen) if alone else None


def open_inbox(workspace: Workspace, path: str | None) -> Path:
    """The folder ``path``, or the workspace's own inbox. Raises InputError if it is none."""
    inbox = workspace.folder("inbox") if path is None else Path(path).absolute()
    if not inbox.is_dir():
        raise InputError(f"inbox must be a folder, {inbox} is none; make it, or name another")
    return inbox


def ledger_of(workspace: Workspace, inbox: Path) -> Ledger:
    """The ledger of an inbox; one inside the workspace may move with it."""
    inside = inbox.is_relative_to(workspace.root)
    name = str(inbox.relative_to(workspace.root) if inside else inbox)
    folder = (
        workspace.root / LEDGER / hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    )
    return Ledger(folder, workspace.folder("quarantine"), name)


@task(name="look-over-inbox", **OPTIONS)
def look_over(inbox: Inbox, *, settle_s: float) -> Survey:
    """What became of every entry so far, and which are ready to be taken in."""
    found = survey(
        inbox.path,
        inbox.ledger,
        inbox.given,
        inbox.settings,
        settle_s=settle_s,
        stands=lambda outcome: _stands(inbox.workspace, outcome),
        progress=StageProgress("inbox: entries looked at"),
    )
    for name, outcome in found.outcomes.items():
        if outcome.findings and outcome.state in ("quarantined", "failed"):
            say(f"{shown(name)}: {outcome.state}, {_short(str(outcome.findings[0]))}")
    return found


def _stands(workspace: Workspace, outcome: Outcome) -> bool:
    """Whether what an earlier run made is still in the workspace."""
    made = [("scans", outcome.scan), ("volumes", outcome.volume)]
    return all(key is None or (workspace.folder(kind) / key).is_dir() for kind, key in made)


class Taking:
    """An entry that is being taken in: ``scan``, then whatever is ``made`` of it."""

    def __init__(self, inbox: Inbox, ready: Ready) -> None:
        self.inbox = inbox
        self.ready = ready
        self.record = begin(inbox.ledger, ready.record, inbox.settings)
        self.outcome = replace(self._now(), warnings=ready.warnings)
        self.name = shown(ready.name)
        self.path = str(ready.parts.scan)

    def _now(self) -> Outcome:
        return self.record.outcomes[self.inbox.settings]

    def _keep(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.record = self.inbox.ledger.settle(self.record, self.inbox.settings, outcome)

    def scan(self) -> Artefact | None:
        """A verified copy of the entry's scan; None where it is a duplicate or changed meanwhile."""
        inbox, given = self.inbox, self.inbox.given
        raw = import_scan(
            inbox.workspace,
            self.path,
            energy_kev=given.energy_kev,
            pixel_size_um=given.pixel_size_um,
            allow_missing=given.allow_missing,
            root=str(inbox.path),
        )
        if self._changed():
            self._keep(changed())
            return None
        content = _content(inbox.workspace, raw)
        owner = inbox.ledger.claim(content, self.record)
        if owner != self.ready.name:
            say(f"{self.name}: the same scan as {shown(owner)}")
            self._keep(
                Outcome(
                    "duplicate",
                    warnings=self.ready.warnings,
                    scan=raw.key,
                    content=content,
                    duplicate_of=owner,
                    companions=self._companions(raw, None),  # these may be new
                )
            )
            return None
        self._keep(replace(self.outcome, scan=raw.key, content=content))
        return raw

    def made(self, raw: Artefact, volume: Artefact | None) -> None:
        """The scan is imported, reconstructed and published: take its companions, and say so."""
        companions = self._companions(raw, volume)
        self._keep(
            replace(
                self.outcome,
                state="imported",
                scan=raw.key,
                volume=None if volume is None else volume.key,
                tries=0,
                companions=companions,
            )
        )

    def _companions(self, raw: Artefact, volume: Artefact | None) -> tuple[CompanionOutcome, ...]:
        inbox = self.inbox
        return take_companions(inbox.workspace, inbox.path, self.ready.parts.companions, raw, volume)

    def failed(self, error: Exception) -> None:
        """Note what went wrong; the next run tries again."""
        if self._changed():
            self._keep(changed())
            return
        outcome = failed(error, self.outcome.tries)
        self._keep(replace(outcome, warnings=self.ready.warnings, content=self.outcome.content))

    def _changed(self) -> bool:
        path = self.inbox.path / self.ready.name
        return look(path, self.inbox.path, self.record.linked).fingerprint != self.record.fingerprint


@contextlib.contextmanager
def take_in(inbox: Inbox, ready: Ready) -> Iterator[Taking]:
    """Work on one entry: an exception in the block becomes its outcome, and the other entries go on."""
    taking = Taking(inbox, ready)
    try:
        yield taking
    except Exception as error:
        say(f"{taking.name}: failed, {type(error).__name__}: {error}")
        taking.failed(error)


def _content(workspace: Workspace, raw: Artefact) -> str:
    """What makes two scans the same, whatever version of the code imported them: counts, energy and pixel size."""
    recorded = workspace.read_provenance(raw)
    same = {"content": recorded["inputs"]["content"], **recorded["parameters"]}
    return hashlib.sha256(to_json(same).encode()).hexdigest()[:32]


# --- what people see ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ingest:
    """How the inbox stands. identifier : of what was published; new : whether that says anything new."""

    identifier: str
    new: bool
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def entries(self) -> int:
        """How many entries are known."""
        return sum(self.counts.values())

    @property
    def counted(self) -> str:
        """The counts in words."""
        return ", ".join(f"{count} {state}" for state, count in self.counts.items() if count) or "empty"


@task(name="publish-ingest", **OPTIONS)
def publish_ingest(inbox: Inbox) -> Ingest:
    """How every entry of the inbox stands: kind ``ingests``. The same state is the same result."""
    rows = []
    companions = []
    for record in inbox.ledger.records():
        outcome = _told(record, inbox.settings)
        if outcome is None:
            continue
        rows.append(_row(record, outcome))
        companions += [_companion_row(record, companion) for companion in outcome.companions]
    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    counts = {state: int((table["state"] == state).sum()) for state in _STATES}
    told = [row for row in rows if row["state"] in ("quarantined", "failed")]
    warnings = [f"{row['entry']} is {row['state']}: {_short(row['reason'])}; {row['remedy']}" for row in told]
    if len(warnings) > _WARNED_OF:
        warnings = [*warnings[:_WARNED_OF], f"and {len(warnings) - _WARNED_OF} more, see the table"]
    tables = {"entries": Table(table, "Every entry of the inbox: what became of it, why, and what to do.")}
    if companions:
        tables["companions"] = Table(
            pd.DataFrame(companions), "Label volumes and DIALS files that lay beside the scans."
        )
    before = _published(inbox.workspace)
    identifier = publish_version(
        inbox.workspace,
        "ingests",
        f"inbox-{inbox.ledger.folder.name}",
        title="Inbox" if inbox.ledger.inbox == "inbox" else f"Inbox {shown(inbox.ledger.inbox)}",
        summary={"entries": len(table), **counts},
        tables=tables,
        warnings=warnings,
    )
    return Ingest(identifier, identifier not in before, counts)


_STATES = ("imported", "duplicate", "deferred", "quarantined", "failed", "part")
_COLUMNS = (
    *(
        "entry",
        "state",
        "rule",
        "reason",
        "remedy",
        "scan",
        "volume",
        "duplicate_of",
        "warnings",
        "companions",
    ),
)


def _told(record: Record, settings: str) -> Outcome | None:
    """What to tell of an entry: by these settings, else by others that took it in."""
    told = record.outcomes.get(settings)
    if told is None:
        taken = [outcome for outcome in record.outcomes.values() if outcome.scan is not None]
        return taken[0] if taken else None
    return replace(told, state="failed") if told.state == "begun" else told


def _row(record: Record, outcome: Outcome) -> dict[str, Any]:
    first = outcome.findings[0] if outcome.findings else None
    return {
        "entry": shown(record.entry),
        "state": outcome.state,
        "rule": first.rule if first else "",
        "reason": first.reason if first else "",
        "remedy": first.remedy if first else "",
        "scan": outcome.scan or "",
        "volume": outcome.volume or "",
        "duplicate_of": shown(outcome.duplicate_of or ""),
        "warnings": "; ".join(f"{w.rule}: {_short(w.reason)}" for w in outcome.warnings),
        "companions": len(outcome.companions),
    }


def _companion_row(record: Record, companion: CompanionOutcome) -> dict[str, Any]:
    finding = companion.finding
    return {
        "entry": shown(record.entry),
        "companion": shown(companion.name),
        "kind": companion.kind,
        "artefact": companion.artefact or "",
        "rule": finding.rule if finding else "",
        "reason": finding.reason if finding else "",
        "remedy": finding.remedy if finding else "",
    }


def _published(workspace: Workspace) -> set[str]:
    return {folder.name for folder in (workspace.folder("published") / "ingests").glob("*/")}


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
