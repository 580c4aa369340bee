"""The one narrow write of the dashboard: what people decide of labels, and label files that they hand in.

Both by the code that the flows use, and both only ever added to.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from dashboard import data
from dashboard.access import Person
from tomoforge.approvals import DECISIONS, Approvals, Decision, Verdict
from tomoforge.errors import StorageError
from tomoforge.label_check import check_label_file
from tomoforge.label_uploads import UPLOADS, Upload, Uploads

log = logging.getLogger(__name__)

MOST_LETTERS = 2000  # of a note


@dataclass(frozen=True)
class Recorded:
    """A decision that was made. repeated : it stood already, nothing was added; meanwhile : what others decided since
    the page was drawn."""

    decision: Decision
    repeated: bool
    meanwhile: tuple[Decision, ...]


def history() -> dict[str, list[Decision]]:
    """Content of labels → all decisions on it, oldest first; the last stands.

    Raises StorageError with a sentence if the record was tampered with or cannot be read.
    """
    found: dict[str, list[Decision]] = {}
    try:
        for decision in _approvals().decisions():
            found.setdefault(decision.checksum, []).append(decision)
    except OSError as error:
        log.warning("the decisions cannot be read: %s", error)
        raise StorageError("the record of decisions cannot be read") from error
    return found


def record(verdict: Verdict, labels: str, checksum: str, person: Person, note: str, *, seen: int) -> Recorded:
    """Add a decision on the labels of this key and content; ``seen`` of those on them stood on the page.

    Two people who decide at once are both kept, in the order in which they came; the last one stands.

    Raises InputError with the reason if it cannot be recorded, StorageError if it could not be.
    """
    note = note.strip()[:MOST_LETTERS]
    approvals = _approvals()
    try:
        before = approvals.history(checksum)
        if before and (before[-1].verdict, before[-1].who, before[-1].reason) == (verdict, person.name, note):
            return Recorded(before[-1], True, tuple(before[seen:-1]))  # a second click
        made = approvals.record(verdict, labels, checksum, who=person.name, reason=note)
        found = approvals.history(checksum)
    except OSError as error:
        log.exception("the decision could not be recorded")
        raise StorageError("nothing was recorded: the workspace cannot be written") from error
    return Recorded(made, False, tuple(d for d in found[seen:] if d.sha256 != made.sha256))


def uploads() -> dict[str, list[Upload]]:
    """Key of a volume → the label files that people handed in for it, oldest first."""
    found: dict[str, list[Upload]] = {}
    try:
        for upload in _uploads().all():
            found.setdefault(upload.volume, []).append(upload)
    except OSError as error:
        log.warning("the uploads cannot be read: %s", error)
        raise StorageError("the uploads cannot be read") from error
    return found


def hand_in(
    content: bytes | memoryview,
    name: str,
    volume: str,
    stored: Path,
    person: Person,
    note: str,
    *,
    check_orientation: bool,
) -> tuple[Upload, bool]:
    """Keep a label file for the volume of this key, whose voxels lie at ``stored``, if it fits; and whether it is new.

    Raises LabelFileError with what is wrong with it, StorageError if it could not be kept.
    """
    kept = _uploads()
    before = {upload.folder for upload in kept.all()}
    upload = kept.store(
        content,
        name,
        volume,
        who=person.name,
        note=note.strip()[:MOST_LETTERS],
        check_orientation=check_orientation,
        check=lambda file: check_label_file(file, stored, check_orientation=check_orientation),
    )
    return upload, upload.folder not in before


VERBS = {"approved": "approved", "rejected": "rejected", "needs correction": "sent to be corrected"}


def _approvals() -> Approvals:
    return Approvals(data.workspace() / DECISIONS)


def _uploads() -> Uploads:
    return Uploads(data.workspace() / UPLOADS)
