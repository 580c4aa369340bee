"""Versions of a training data set: manifests that never change, each naming the version it grew from.

A manifest is ``<key>.json``; the key is the hash of the cases' contents, their provenance, the classes, the hold-out
and the parent. Where the volumes lie is kept beside that, relative to the workspace, and is no part of the key, so a
workspace may move. A version is never edited: adding, correcting or dropping cases makes a new one, and only the new
cases are read for it.
"""

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tomoforge.errors import InputError, StorageError
from tomoforge.segmentation.case_records import CaseRecord, TrainingCase, describe_case
from tomoforge.segmentation.dataset import check_cases, write_records
from tomoforge.segmentation.metrics import check_class_names
from tomoforge.segmentation.splits import Holdout
from tomoforge.storage import to_json, write_json_atomic

_FORMAT = 1
_PLACES = ("volume", "labels")


@dataclass(frozen=True)
class DatasetVersion:
    """One version. key : its name; parent : key of the version it grew from; holdout : hash of the frozen hold-out
    that its cases were compared with; cases : sorted by name, paths absolute."""

    key: str
    parent: str | None
    class_names: Mapping[str, int]
    holdout: str | None
    cases: tuple[CaseRecord, ...]

    @property
    def contents(self) -> frozenset[str]:
        """Names of the cases by content: what two versions can be compared by."""
        return frozenset(case.content for case in self.cases)


class DatasetVersions:
    """The manifests in ``folder``. root : what the paths of volumes are relative to, the workspace."""

    def __init__(self, folder: str | Path, root: str | Path) -> None:
        self.folder = Path(folder)
        self.root = Path(root).absolute()

    def create(
        self,
        cases: Sequence[TrainingCase | CaseRecord],
        class_names: Mapping[str, int],
        *,
        holdout: Holdout | None = None,
    ) -> DatasetVersion:
        """The first version of a data set.

        Raises InputError or StorageError as ``write_dataset`` does, naming the case.
        """
        check_class_names(class_names)
        return self._keep(None, class_names, _described(cases, class_names), holdout)

    def grow(
        self,
        parent: str,
        cases: Sequence[TrainingCase | CaseRecord],
        *,
        holdout: Holdout | None = None,
        drop: Collection[str] = (),
    ) -> DatasetVersion:
        """The version with more cases. A case of a volume that is there already takes its place: its labels were
        corrected. The parent itself where nothing changes.

        drop : contents (names by content) of cases to leave out

        Raises
        ------
        InputError
            As ``create``; also without a hold-out where the parent had one, and for a case to drop that is not there.
        StorageError
            The parent is missing or was changed.
        """
        before = self.read(parent)
        if holdout is None and before.holdout is not None:
            raise InputError(
                f"holdout must be given: version {parent} was kept apart from hold-out {before.holdout[:12]}, and a "
                "version that grows from it must be, too"
            )
        if unknown := sorted(set(drop) - before.contents):
            raise InputError(f"drop must name cases of version {parent}, got {unknown}")
        new = _described(cases, before.class_names)
        replaced = {record.volume_sha256 for record in new}
        kept = [c for c in before.cases if c.volume_sha256 not in replaced and c.content not in drop]
        standing = {case.content: case for case in before.cases}
        # What is there already stays as it was first described, whatever it is called now.
        records = [*kept, *(standing.get(record.content, record) for record in new)]
        same = {record.content for record in records} == before.contents
        if same and (None if holdout is None else holdout.sha256) == before.holdout:
            return before
        return self._keep(parent, before.class_names, records, holdout)

    def read(self, key: str) -> DatasetVersion:
        """A version. Raises StorageError if it is missing or its content does not give its key."""
        path = self._path(key)
        try:
            stored = json.loads(path.read_text())
            identity, places = stored["identity"], stored["places"]
            found = _key(identity)
            cases = tuple(
                CaseRecord.from_dict({**case, **self._absolute(places[case["identifier"]])})
                for case in identity["cases"]
            )
        except FileNotFoundError:
            raise StorageError(f"there is no data set version {key} in {self.folder}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{path} cannot be read ({error}); restore it from a copy") from error
        if found != key:
            raise StorageError(f"{path} was changed: its content has the key {found}; restore it from a copy")
        return DatasetVersion(key, identity["parent"], identity["class_names"], identity["holdout"], cases)

    def keys(self) -> list[str]:
        """Keys of all versions, sorted."""
        return sorted(path.stem for path in self.folder.glob("version-*.json"))

    def lineage(self, key: str) -> list[str]:
        """Keys from the first version to this one."""
        line = [key]
        while (parent := self.read(line[0]).parent) is not None:
            line.insert(0, parent)
        return line

    def _keep(
        self,
        parent: str | None,
        class_names: Mapping[str, int],
        records: Sequence[CaseRecord],
        holdout: Holdout | None,
    ) -> DatasetVersion:
        check_cases(records, class_names, holdout)
        ordered = tuple(sorted(records, key=lambda record: record.identifier))
        identity = {
            "format": _FORMAT,
            "parent": parent,
            "class_names": dict(class_names),
            "holdout": None if holdout is None else holdout.sha256,
            "cases": [{k: v for k, v in r.to_dict().items() if k not in _PLACES} for r in ordered],
        }
        key = _key(identity)
        if self._path(key).exists():
            return self.read(key)  # the same content: where its volumes lay first is kept
        places = {r.identifier: {name: self._relative(getattr(r, name)) for name in _PLACES} for r in ordered}
        write_json_atomic(self._path(key), {"identity": identity, "places": places})
        self._path(key).chmod(0o444)  # a reminder; the key is what protects it
        return self.read(key)

    def _path(self, key: str) -> Path:
        if not key.startswith("version-") or "/" in key:
            raise InputError(f"key must be that of a data set version, version-…, got {key!r}")
        return self.folder / f"{key}.json"

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self.root)

    def _absolute(self, places: Mapping[str, str]) -> dict[str, str]:
        return {name: os.path.normpath(self.root / places[name]) for name in _PLACES}


def sort_out(
    cases: Sequence[TrainingCase], class_names: Mapping[str, int]
) -> tuple[list[CaseRecord], dict[str, str]]:
    """Cases that can be used, described, and for the others why not: volume path → reason. One bad case among many
    must not stop a night."""
    good, bad = [], {}
    for case in cases:
        try:
            good.append(describe_case(case, class_names))
        except (InputError, StorageError) as error:
            bad[str(case.volume)] = str(error)
    return good, bad


def write_version(
    version: DatasetVersion,
    directory: str | Path,
    *,
    folds: int | None = None,
    validation: Sequence[str] | None = None,
    holdout: Holdout | None = None,
    location: str | Path | None = None,
) -> Path:
    """A version as a data set of nnU-Net, by reference, without reading a voxel (see ``write_dataset``).

    Raises InputError where ``holdout`` is not the one that the version was compared with.
    """
    if (None if holdout is None else holdout.sha256) != version.holdout:
        raise InputError(
            f"holdout must be the one of version {version.key}, {version.holdout}, got "
            f"{None if holdout is None else holdout.sha256}; make a new version for another hold-out"
        )
    return write_records(
        directory,
        version.cases,
        version.class_names,
        validation=validation,
        folds=folds,
        holdout=holdout,
        location=location,
        version=version.key,
    )


def _described(
    cases: Sequence[TrainingCase | CaseRecord], class_names: Mapping[str, int]
) -> list[CaseRecord]:
    return [c if isinstance(c, CaseRecord) else describe_case(c, class_names) for c in cases]


def _key(identity: Mapping[str, Any]) -> str:
    return f"version-{hashlib.sha256(to_json(dict(identity)).encode()).hexdigest()[:32]}"
