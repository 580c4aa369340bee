"""Who moved which alias to which model and why: rows that are only ever added.

They lie in a table beside MLflow's own, in the same SQLite file. The rows are the truth about the aliases and
MLflow's aliases are a picture of them, because MLflow keeps no history and offers no compare-and-set: a row is
written in one transaction with the check of what stood before it, then the alias is set, then the row is noted
as applied. Whoever opens the registry after a kill in between sets the alias, once.
"""

import contextlib
import datetime
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tomoforge.errors import InputError, StageError, StorageError
from tomoforge.storage import to_json

# Actions that move an alias. A rollback goes back along the history; every other one adds to it.
MOVES = ("promote", "rollback", "challenge", "clear")
NOTES = ("refuse", "freeze", "restore")

_COLUMNS = "sequence, moment, who, action, subject, before, after, reason, evidence"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tomoforge_audit (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, moment TEXT NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL,
    subject TEXT NOT NULL, before TEXT, after TEXT, reason TEXT NOT NULL, evidence TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tomoforge_applied (
    sequence INTEGER PRIMARY KEY REFERENCES tomoforge_audit (sequence), moment TEXT NOT NULL);
"""
_APPEND_ONLY = """
CREATE TRIGGER IF NOT EXISTS {table}_{event} BEFORE {event} ON {table}
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;
"""


class AliasMovedError(StageError):
    """Somebody else moved the alias after the caller had looked at it."""


@dataclass(frozen=True)
class AuditRow:
    """One row. moment : ISO 8601, UTC; subject : the alias or frozen set it is about; before, after : keys of
    models, or hashes of frozen sets; evidence : what the decision rested on."""

    sequence: int
    moment: str
    who: str
    action: str
    subject: str
    before: str | None
    after: str | None
    reason: str
    evidence: Mapping[str, Any]


class Audit:
    """The rows in the SQLite file ``database``."""

    def __init__(self, database: Path) -> None:
        self.database = database

    def create(self) -> None:
        """Make the tables, and the triggers that keep their rows from being changed."""
        triggers = [
            _APPEND_ONLY.format(table=table, event=event)
            for table in ("tomoforge_audit", "tomoforge_applied")
            for event in ("UPDATE", "DELETE")
        ]
        with self._connection() as connection:
            connection.executescript(_SCHEMA + "".join(triggers))

    def rows(self) -> list[AuditRow]:
        """All rows, oldest first."""
        with self._connection() as connection:
            return _rows(connection)

    def standing(self, subject: str) -> str | None:
        """What the alias, or the frozen set, is now."""
        history = _history(self.rows(), subject)
        return history[-1] if history else None

    def history(self, subject: str) -> list[str | None]:
        """What a rollback can go back to, oldest first; the last is what stands."""
        return _history(self.rows(), subject)

    def move(
        self,
        action: str,
        subject: str,
        *,
        expected: str | None,
        after: str | None,
        who: str,
        reason: str,
        evidence: Mapping[str, Any],
        clears: Sequence[str] = (),
    ) -> AuditRow:
        """Record that the alias goes from ``expected`` to ``after``, if it still stands at ``expected``.

        clears : aliases that lose ``after`` in the same transaction where they stand at it.

        Raises AliasMovedError where the alias stands elsewhere by now.
        """
        with self._transaction() as connection:
            rows = _rows(connection)
            standing = _last(rows, subject)
            if standing != expected:
                raise AliasMovedError(
                    f"{subject} must still be {expected or 'nobody'}, as when it was compared, got "
                    f"{standing or 'nobody'}: another promotion came first; compare with the new one"
                )
            row = _insert(connection, action, subject, standing, after, who, reason, evidence)
            for other in clears:
                if _last(rows, other) == after:
                    _insert(connection, "clear", other, after, None, who, reason, {})
        return row

    def note(
        self,
        action: str,
        subject: str,
        *,
        before: str | None,
        after: str | None,
        who: str,
        reason: str,
        evidence: Mapping[str, Any],
    ) -> AuditRow:
        """Record something that moves no alias."""
        with self._transaction() as connection:
            return _insert(connection, action, subject, before, after, who, reason, evidence)

    def pending(self) -> list[AuditRow]:
        """Moves that were recorded and not noted as applied."""
        with self._connection() as connection:
            applied = {s for (s,) in connection.execute("SELECT sequence FROM tomoforge_applied")}
            return [r for r in _rows(connection) if r.action in MOVES and r.sequence not in applied]

    def applied(self, rows: Sequence[AuditRow]) -> None:
        """Note that the aliases follow these moves."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO tomoforge_applied VALUES (?, ?)", [(row.sequence, _now()) for row in rows]
            )

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            # isolation_level None: transactions begin where BEGIN stands, not where the module guesses.
            connection = sqlite3.connect(self.database, timeout=60.0, isolation_level=None)
        except sqlite3.Error as error:
            raise StorageError(f"the registry {self.database} cannot be opened: {error}") from error
        try:
            with contextlib.closing(connection):
                yield connection
        except sqlite3.DatabaseError as error:
            raise StorageError(
                f"the registry {self.database} cannot be read or written ({error}); restore it from a copy"
            ) from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def _rows(connection: sqlite3.Connection) -> list[AuditRow]:
    found = connection.execute(f"SELECT {_COLUMNS} FROM tomoforge_audit ORDER BY sequence")
    names = _COLUMNS.split(", ")
    rows = (dict(zip(names, row, strict=True)) for row in found)
    return [AuditRow(**{**row, "evidence": json.loads(row["evidence"])}) for row in rows]


def _history(rows: Sequence[AuditRow], subject: str) -> list[str | None]:
    history: list[str | None] = []
    for row in rows:
        if row.subject != subject or row.action in ("refuse", "restore"):
            continue
        if row.action == "rollback":
            while history and history[-1] != row.after:
                history.pop()
        else:
            history.append(row.after)
    return history


def _last(rows: Sequence[AuditRow], subject: str) -> str | None:
    history = _history(rows, subject)
    return history[-1] if history else None


def _insert(
    connection: sqlite3.Connection,
    action: str,
    subject: str,
    before: str | None,
    after: str | None,
    who: str,
    reason: str,
    evidence: Mapping[str, Any],
) -> AuditRow:
    if action not in (*MOVES, *NOTES):
        raise InputError(f"action must be one of {', '.join((*MOVES, *NOTES))}, got {action!r}")
    for name, text in (("who", who), ("reason", reason)):
        if not text.strip():
            raise InputError(f"{name} must be said: the audit keeps it; got {text!r}")
    moment, kept = _now(), to_json(dict(evidence))
    cursor = connection.execute(
        f"INSERT INTO tomoforge_audit ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
        (moment, who, action, subject, before, after, reason, kept),
    )
    assert cursor.lastrowid is not None
    return AuditRow(cursor.lastrowid, moment, who, action, subject, before, after, reason, json.loads(kept))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
