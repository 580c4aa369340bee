"""What the dashboard reads: ``published/<kind>/<id>/`` with a manifest, Parquet tables and pictures.

A published folder is append-only and complete from the moment it can be seen. ``manifest.json`` is a function of
the results alone; when it was published, by which run and how long that took stands in ``run.json`` beside it.
"""

import contextlib
import datetime
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tomoforge.errors import InputError, StorageError
from tomoforge.storage import to_json, write_bytes_atomic

MANIFEST_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")


@dataclass(frozen=True)
class Picture:
    """A PNG with the sentence that stands under it."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class Table:
    """A table with the sentence that stands over it; units belong into the column names."""

    frame: pd.DataFrame
    caption: str


@dataclass(frozen=True)
class Published:
    """One published result as the dashboard sees it.

    summary : name → number or text; warnings : what to distrust, in sentences; pictures, tables : name → (file,
    caption), files relative to ``folder``; sources : role → key of the artefact it was made from;
    run : published_at (ISO 8601, UTC) and what else the run recorded.
    """

    kind: str
    identifier: str
    folder: Path
    title: str
    summary: Mapping[str, Any]
    warnings: tuple[str, ...]
    pictures: Mapping[str, tuple[str, str]]
    tables: Mapping[str, tuple[str, str]]
    sources: Mapping[str, str]
    provenance: Mapping[str, Any]
    run: Mapping[str, Any] = field(default_factory=dict)

    def read_table(self, name: str) -> pd.DataFrame:
        """One of the tables."""
        return pd.read_parquet(self.folder / self.tables[name][0])


@dataclass(frozen=True)
class Unreadable:
    """A folder under ``published/`` that cannot be shown, and why."""

    folder: Path
    reason: str


def publish(
    root: str | Path,
    kind: str,
    identifier: str,
    *,
    title: str,
    summary: Mapping[str, Any],
    pictures: Mapping[str, Picture] | None = None,
    tables: Mapping[str, Table] | None = None,
    warnings: Sequence[str] = (),
    sources: Mapping[str, str] | None = None,
    provenance: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
) -> Path:
    """Publish one result under ``root/kind/identifier`` and return its folder.

    Publishing the same again changes nothing. Raises StorageError if something else stands there under the
    same identifier, InputError for a name that is not a plain file name and for warnings in one text.
    """
    if isinstance(warnings, str):
        raise InputError(f"warnings must be a sequence of sentences, got one text: {warnings!r}")
    pictures, tables = pictures or {}, tables or {}
    for name in (kind, identifier, *pictures, *tables):
        _check_name(name)
    manifest = {
        "manifest_version": MANIFEST_VERSION,
        "kind": kind,
        "id": identifier,
        "title": title,
        "summary": {name: _finite(value) for name, value in summary.items()},
        "warnings": list(warnings),
        "pictures": {name: {"file": f"{name}.png", "caption": p.caption} for name, p in pictures.items()},
        "tables": {
            name: {"file": f"{name}.parquet", "caption": t.caption, "rows": len(t.frame)}
            for name, t in tables.items()
        },
        "sources": dict(sources or {}),
        "provenance": dict(provenance or {}),
    }
    text = (to_json(manifest) + "\n").encode()
    final = Path(root) / kind / identifier
    if _stands(final, text):
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(root) / ".partial"
    partial.mkdir(exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{identifier}.", dir=partial))
    try:
        draft.chmod(0o755)
        for name, picture in pictures.items():
            write_bytes_atomic(draft / f"{name}.png", picture.png)
        for name, table in tables.items():
            table.frame.to_parquet(draft / f"{name}.parquet", index=False)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write_bytes_atomic(
            draft / "run.json", (to_json({"published_at": now, **(run or {})}) + "\n").encode()
        )
        write_bytes_atomic(draft / "manifest.json", text)
        try:
            os.rename(draft, final)
        except OSError:
            if not final.is_dir():
                raise
            if not _stands(final, text):  # else another run has published the same meanwhile
                raise StorageError(f"{final} has no manifest and stands in the way; move it away") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(draft)
    return final


def read_published(folder: str | Path) -> Published:
    """Read one published folder. Raises StorageError with the reason if it cannot be shown."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except FileNotFoundError:
        raise StorageError(f"{folder.name} has no manifest; its publication was not finished") from None
    except (OSError, ValueError) as error:
        raise StorageError(f"the manifest of {folder.name} cannot be read: {error}") from error
    version = manifest.get("manifest_version") if isinstance(manifest, dict) else None
    if version != MANIFEST_VERSION:
        raise StorageError(
            f"{folder.name} has manifest version {version}, this program reads version {MANIFEST_VERSION}; "
            "a newer tomoforge wrote it"
        )
    try:
        _check_types(manifest)
        return Published(
            kind=manifest["kind"],
            identifier=manifest["id"],
            folder=folder,
            title=manifest["title"],
            summary=manifest["summary"],
            warnings=tuple(manifest["warnings"]),
            pictures={n: (_inside(p["file"]), p["caption"]) for n, p in manifest["pictures"].items()},
            tables={n: (_inside(t["file"]), t["caption"]) for n, t in manifest["tables"].items()},
            sources=manifest["sources"],
            provenance=manifest["provenance"],
            run=_read_run(folder),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"the manifest of {folder.name} lacks or garbles {error}") from error


def list_published(root: str | Path, kind: str | None = None) -> list[Published | Unreadable]:
    """Everything published under ``root`` (of one ``kind``), newest first; what cannot be read is said."""
    found: list[Published | Unreadable] = []
    for folder in sorted(Path(root).glob(f"{kind or '*'}/*/")):
        if folder.name.startswith(".") or folder.parent.name.startswith("."):
            continue
        try:
            found.append(read_published(folder))
        except StorageError as error:
            found.append(Unreadable(folder, str(error)))
    return sorted(found, key=_published_at, reverse=True)


def _finite(value: Any) -> Any:
    """None for NaN and infinities, which JSON has not; the dashboard shows it as missing."""
    plain = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def _published_at(entry: Published | Unreadable) -> str:
    return str(entry.run.get("published_at", "")) if isinstance(entry, Published) else ""


def _read_run(folder: Path) -> dict[str, Any]:
    try:
        run = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return {}
    return run if isinstance(run, dict) else {}


def _stands(folder: Path, manifest: bytes) -> bool:
    try:
        standing = (folder / "manifest.json").read_bytes()
    except FileNotFoundError:
        return False
    if standing != manifest:
        raise StorageError(
            f"{folder} is published already with other content; published results are never rewritten, "
            "publish under a new identifier"
        )
    return True


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"published names are letters, digits, '.', '_' and '-', beginning with a letter or digit; got {name!r}"
        )


def _check_types(manifest: Mapping[str, Any]) -> None:
    """Raise TypeError naming the first entry of another type; a text would pass as a list of its letters."""
    expected = {"title": str, "summary": dict, "warnings": list, "sources": dict, "provenance": dict}
    for name, kind in expected.items():
        if not isinstance(manifest[name], kind):
            raise TypeError(f"{name}, which is no {kind.__name__}")


def _inside(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StorageError(f"the manifest names the file {name!r}, which is not beside it")
    return name
