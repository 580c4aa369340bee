"""Who approved or rejected which labels, and when: records that are only ever added.

A file of JSON lines. Each line holds the hash of every byte before it and one of itself, so a change to an earlier
line shows in the next, and a line cannot be taken out, put in or moved. Beside the file, ``<name>.head`` keeps how far
it reached, so lines missing from the end show, too. Whoever can write both files can still forge a history whole:
keep ``head()`` elsewhere (in the registry's audit, in a training's record) to have a witness.

What a killed writer leaves behind of a line does not count and stays where it is; the next record says so in
``torn`` and goes on from there.
"""

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from tomoforge.errors import InputError, StorageError
from tomoforge.storage import write_json_atomic

DECISIONS = "annotation/decisions.jsonl"  # within the workspace
# Only approved labels train. Rejected ones are never to be; those that need correction stay worth a person's time.
Verdict = Literal["approved", "rejected", "needs correction"]
VERDICTS: tuple[Verdict, ...] = ("approved", "rejected", "needs correction")


@dataclass(frozen=True)
class Decision:
    """One record. sequence : 0, 1, …; moment : ISO 8601, UTC; verdict : on the labels whose content has ``checksum``
    (``labels_sha256`` of their case); subject : what they belong to, such as a case or an artefact; who, reason : as
    the person said; previous : hash of the file before this line; sha256 : of this record, its name elsewhere."""

    sequence: int
    moment: str
    verdict: Verdict
    subject: str
    checksum: str
    who: str
    reason: str
    previous: str
    sha256: str
    torn: bool = False


class Approvals:
    """The decisions in the file ``path``. now : clock, for tests."""

    def __init__(self, path: str | Path, now: Callable[[], datetime.datetime] | None = None) -> None:
        self.path = Path(path)
        self._now = now or (lambda: datetime.datetime.now(datetime.UTC))

    def record(
        self, verdict: Verdict, subject: str, checksum: str, *, who: str, reason: str = ""
    ) -> Decision:
        """Add a decision; it is on the disk when this returns.

        Raises
        ------
        InputError
            An unknown verdict; nobody, or nothing, is named; a rejection without a reason.
        StorageError
            The file was tampered with, or there is no room for another line.
        """
        if verdict not in VERDICTS:
            raise InputError(f"verdict must be one of {', '.join(VERDICTS)}, got {verdict!r}")
        for name, text in (("subject", subject), ("checksum", checksum), ("who", who)):
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"{name} must be said: the record keeps it for good; got {text!r}")
        if verdict == "rejected" and not reason.strip():
            raise InputError("reason must say why the labels are rejected, got none")
        with self._held():
            decisions, torn = self._read()
            content = self.path.read_bytes() if self.path.exists() else b""
            ended = b"" if content.endswith(b"\n") or not content else b"\n"
            content += ended
            decision = _sealed(
                {
                    "sequence": len(decisions),
                    "moment": self._now().isoformat(timespec="milliseconds"),
                    "verdict": verdict,
                    "subject": subject,
                    "checksum": checksum,
                    "who": who,
                    "reason": reason,
                    "previous": hashlib.sha256(content).hexdigest(),
                    "torn": torn,
                }
            )
            line = _line(asdict(decision))
            self._append(ended + line)
            self._write_head(len(decisions) + 1, len(content) + len(line), decision.sha256)
        return decision

    def decisions(self) -> list[Decision]:
        """All decisions, oldest first. Raises StorageError if the file was tampered with."""
        if not self.path.exists() and not self._head_path.exists():
            return []
        with self._held():
            return self._read()[0]

    def history(self, checksum: str) -> list[Decision]:
        """All decisions on the labels with this content, oldest first; the last one stands."""
        return [decision for decision in self.decisions() if decision.checksum == checksum]

    def standing(self, checksum: str) -> Decision | None:
        """The last decision on the labels with this content, None if nobody has looked at them."""
        found = self.history(checksum)
        return found[-1] if found else None

    def last(self) -> dict[str, Decision]:
        """Content of labels → the last decision on it, the one that stands."""
        return {decision.checksum: decision for decision in self.decisions()}

    def approved(self) -> dict[str, Decision]:
        """Content of labels → the decision, where the last one approved them."""
        return {checksum: d for checksum, d in self.last().items() if d.verdict == "approved"}

    def head(self) -> str | None:
        """Hash of the last decision: kept elsewhere, it testifies to all of them. None if there is none."""
        decisions = self.decisions()
        return decisions[-1].sha256 if decisions else None

    def verify(self, head: str | None = None) -> None:
        """Raise StorageError if the file was tampered with, or if no decision has the hash ``head``."""
        decisions = self.decisions()
        if head is not None and head not in {decision.sha256 for decision in decisions}:
            raise self._broken(f"the decision {head[:12]} that is known of is missing")

    @property
    def _head_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.head")

    def _read(self) -> tuple[list[Decision], bool]:
        """The decisions, checked, and whether a killed writer left something after the last."""
        content = self.path.read_bytes() if self.path.exists() else b""
        digest = hashlib.sha256()
        decisions: list[Decision] = []
        ends: dict[int, str] = {}
        torn, read = False, 0
        for number, line in enumerate(content.splitlines(keepends=True), start=1):
            decision = _parsed(line)
            read += len(line.rstrip(b"\n")) + 1
            if decision is None or decision.previous != digest.hexdigest():
                torn = True  # or changed: then the next decision does not know of it, or the head misses it
            elif decision.torn != torn or decision.sequence != len(decisions):
                raise self._broken(f"line {number} does not follow the one before it")
            else:
                decisions.append(decision)
                ends[read], torn = decision.sha256, False
            digest.update(line)
        self._check_head(len(decisions), ends)
        return decisions, torn

    def _check_head(self, count: int, ends: dict[int, str]) -> None:
        try:
            head = json.loads(self._head_path.read_text())
            known = (int(head["records"]), int(head["bytes"]), str(head["sha256"]))
        except FileNotFoundError:
            if count > 1:  # the first is there before its head: a kill in between leaves one without
                raise self._broken(f"{self._head_path.name} is missing") from None
            return
        except (ValueError, KeyError, TypeError) as error:
            raise self._broken(f"{self._head_path.name} is damaged ({error})") from error
        # More than the head knows is a writer killed between line and head, less is a loss.
        if known[0] > count or ends.get(known[1]) != known[2]:
            raise self._broken(f"{known[0]} decisions were recorded, {count} of them are left as they were")

    def _broken(self, what: str) -> StorageError:
        return StorageError(
            f"the decisions {self.path} were tampered with or damaged: {what}; restore the file and its .head from a "
            "copy"
        )

    def _append(self, line: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            written = os.write(descriptor, line)
            os.fsync(descriptor)
        except OSError as error:
            raise StorageError(f"the decision could not be added to {self.path}: {error}") from error
        finally:
            os.close(descriptor)
        if written != len(line):
            raise StorageError(f"the decision could not be added to {self.path}: is the disk full?")
        if new:
            _sync_folder(self.path.parent)

    def _write_head(self, records: int, size: int, sha256: str) -> None:
        write_json_atomic(self._head_path, {"records": records, "bytes": size, "sha256": sha256})

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """One process at a time; the lock is the kernel's and dies with its holder."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(self.path.with_name(f"{self.path.name}.lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _opened(lock: Path) -> IO[str]:
    try:
        return open(lock, "w")
    except OSError:
        if not lock.exists():
            raise
        return open(lock)  # who may only read the folder waits for its writers all the same


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _sealed(record: dict[str, Any]) -> Decision:
    return Decision(**record, sha256=hashlib.sha256(_line(record)).hexdigest())


def _parsed(line: bytes) -> Decision | None:
    """The decision in a line, None if it is none or does not give its own hash."""
    try:
        record = json.loads(line)
        said = record.pop("sha256")
        decision = _sealed(record)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return decision if decision.sha256 == said else None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
