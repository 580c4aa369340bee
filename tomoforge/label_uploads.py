"""Label files that people hand in for a volume: kept as they came until a flow takes them, and never changed.

A folder an upload under ``annotation/uploads`` of the workspace: the file, ``upload.json`` with who, when and for which
volume, and later ``outcome.json`` with what became of it. A folder appears whole, by a rename, and nothing in it is
ever written twice.
"""

import contextlib
import datetime
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tomoforge.errors import InputError, StorageError
from tomoforge.label_files import LabelFileError
from tomoforge.storage import write_bytes_atomic, write_json_atomic

UPLOADS = "annotation/uploads"  # within the workspace
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".tiff", ".tif")
MOST_WAITING = 200  # that nobody has taken: more is a mistake or worse

_RECORD, _OUTCOME = "upload.json", "outcome.json"
_LEFTOVER_S = 86_400.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upload:
    """One file that somebody handed in.

    folder : its name among the uploads; file : within the folder; volume : key of the volume it was drawn on;
    name : what the person's file was called; note : of the person; moment : ISO 8601, UTC; check_orientation : as
    ``import_labels`` takes it; labels : key of the artefact made of it, refused : why there is none; both None while
    it waits.
    """

    folder: str
    file: str
    volume: str
    name: str
    who: str
    note: str
    moment: str
    sha256: str
    size: int
    check_orientation: bool
    labels: str | None = None
    refused: str | None = None

    @property
    def waiting(self) -> bool:
        """Whether no flow has looked at it yet."""
        return self.labels is None and self.refused is None


class Uploads:
    """The uploads in the folder ``path``. now : clock, for tests."""

    def __init__(self, path: str | Path, now: Callable[[], datetime.datetime] | None = None) -> None:
        self.path = Path(path)
        self._now = now or (lambda: datetime.datetime.now(datetime.UTC))

    def store(
        self,
        content: bytes | memoryview,
        name: str,
        volume: str,
        *,
        who: str,
        note: str = "",
        check_orientation: bool = True,
        check: Callable[[Path], object] = lambda file: None,
    ) -> Upload:
        """Keep a file if ``check`` does not refuse it; it is on the disk when this returns.

        The very same file for the same volume is kept once: the earlier upload is returned.

        Raises
        ------
        InputError
            Nobody is named, the file is of no known type or empty, too many uploads wait, or as ``check`` raises.
        StorageError
            There is no room for it.
        """
        if not who.strip():
            raise InputError("who must be said: the record keeps it for good")
        ending = next((e for e in ENDINGS if name.lower().endswith(e)), None)
        if ending is None:
            known = ", ".join(ENDINGS)
            raise LabelFileError(
                "label file", f"{name} is none of {known}", "save the labels as one of these"
            )
        if not len(content):
            raise LabelFileError("label file", f"{name} is empty", "save it again")
        digest = hashlib.sha256(content).hexdigest()
        kept = self.all()
        for upload in kept:
            if (upload.sha256, upload.volume) == (digest, volume) and upload.refused is None:
                return upload
        if sum(upload.waiting for upload in kept) >= MOST_WAITING:
            raise InputError(f"{MOST_WAITING} uploads wait to be taken; run import_labels first")
        now = self._now().astimezone(datetime.UTC)
        try:
            with self._draft() as draft:
                file = f"labels{ending}"
                write_bytes_atomic(draft / file, bytes(content))
                _checked(check, draft / file, name)
                stamp = now.strftime("%Y%m%dT%H%M%S")
                upload = Upload(
                    folder=f"{stamp}-{digest[:12]}-{draft.name[-6:]}",
                    file=file,
                    volume=volume,
                    name=name,
                    who=who,
                    note=note,
                    moment=now.isoformat(timespec="milliseconds"),
                    sha256=digest,
                    size=len(content),
                    check_orientation=check_orientation,
                )
                write_json_atomic(draft / _RECORD, _stored(upload))
                os.rename(draft, self.path / upload.folder)
                _sync(self.path)
        except OSError as error:
            raise StorageError(
                f"the file could not be kept: {error.strerror or error}; is there room?"
            ) from error
        return upload

    def all(self) -> list[Upload]:
        """All uploads, oldest first; a folder that cannot be read is left out and logged."""
        try:
            folders = sorted(f for f in self.path.iterdir() if f.name[0] != "." and f.is_dir())
        except FileNotFoundError:
            return []
        found = []
        for folder in folders:
            try:
                found.append(_read(folder))
            except (OSError, ValueError, KeyError, TypeError) as error:
                logger.warning("the upload %s cannot be read: %s", folder.name, error)
        return found

    def waiting(self) -> list[Upload]:
        """Those that no flow has looked at yet, oldest first."""
        return [upload for upload in self.all() if upload.waiting]

    def file_of(self, upload: Upload) -> Path:
        """The file of an upload. Raises StorageError if it is not what was handed in."""
        file = self.path / upload.folder / upload.file
        try:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as error:
            raise StorageError(f"{file} cannot be read: {error}") from error
        if digest != upload.sha256:
            raise StorageError(f"{file} is not the file that {upload.who} handed in; restore it from a copy")
        return file

    def settle(self, upload: Upload, *, labels: str | None = None, refused: str | None = None) -> None:
        """Note what became of an upload: the key of its labels, or why it was refused. The first outcome stays."""
        if (labels is None) == (refused is None):
            raise InputError("labels or refused must be given, and not both")
        outcome = self.path / upload.folder / _OUTCOME
        if not outcome.exists():
            said = {"labels": labels, "refused": refused, "moment": self._now().isoformat(timespec="seconds")}
            write_json_atomic(outcome, said)

    @contextlib.contextmanager
    def _draft(self) -> Iterator[Path]:
        """A folder that nobody sees yet; what killed writers left of theirs goes after a day."""
        self.path.mkdir(parents=True, exist_ok=True)
        for left in self.path.glob(".draft-*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _LEFTOVER_S:
                    shutil.rmtree(left)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self.path))
        try:
            draft.chmod(0o755)
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _checked(check: Callable[[Path], object], file: Path, name: str) -> None:
    """Check a file; what is refused is called as the person calls it."""
    try:
        check(file)
    except LabelFileError as error:
        raise LabelFileError(error.rule, error.reason.replace(file.name, name), error.remedy) from error


def _stored(upload: Upload) -> dict[str, Any]:
    left_out = ("folder", "labels", "refused")
    return {name: value for name, value in asdict(upload).items() if name not in left_out}


def _read(folder: Path) -> Upload:
    record: Mapping[str, Any] = json.loads((folder / _RECORD).read_text())
    if Path(record["file"]).name != record["file"]:
        raise ValueError(f"it names the file {record['file']!r}, which is not beside it")
    try:
        outcome = json.loads((folder / _OUTCOME).read_text())
    except FileNotFoundError:
        outcome = {}
    return Upload(**record, folder=folder.name, labels=outcome.get("labels"), refused=outcome.get("refused"))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
