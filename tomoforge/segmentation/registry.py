"""Which models there are, how each came about, and which one is champion.

One SQLite file holds MLflow's runs, versions and aliases and our audit of them. It holds records alone: a model
is its folder (``model.py``), which the registry finds by key and knows by checksum; nothing is ever unpickled.
"""

import contextlib
import csv
import fcntl
import io
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tomoforge.errors import InputError, StorageError
from tomoforge.segmentation.audit import Audit, AuditRow
from tomoforge.segmentation.model import CURVE, MODEL, PLANS, WEIGHTS, SegmenterModel, read_model
from tomoforge.storage import file_checksum, replacing, to_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

CHAMPION, CHALLENGER = "champion", "challenger"
SEGMENTER = "segmenter"  # of the experiment and of the registered model
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_LONGEST = 5000  # characters of a parameter or a tag; MLflow refuses longer ones
_BATCH = 900  # metrics a call; MLflow refuses more than 1000


@dataclass(frozen=True)
class ModelVersion:
    """A registered model. folder : where it lies; checksum : of its ``model.json``, which holds the checksums
    of its other files; run : identifier of MLflow's run."""

    key: str
    version: int
    folder: Path
    checksum: str
    run: str


class Registry:
    """The registry in the file ``database``; made, with its folder, when something is first written.

    Opening finishes what a killed promotion left. Methods that write hold a lock of the kernel's, so that
    processes come one after the other.
    """

    def __init__(self, database: str | Path) -> None:
        self.database = Path(database).absolute()
        self._audit = Audit(self.database)
        self._opened: MlflowClient | None = None
        if self.database.is_file() and self._audit.pending():
            with self._locked():
                pass

    # --- models -------------------------------------------------------------------------------------------

    def register(
        self,
        key: str,
        folder: str | Path,
        *,
        dataset_hash: str,
        code_revision: str,
        metrics: pd.DataFrame | None = None,
    ) -> ModelVersion:
        """Record a trained model as a run and a version of it; a second call with the same model finds them.

        Parameters
        ----------
        key : name of the artefact
        folder : of the model; where it lies relative to the database is what is kept
        dataset_hash, code_revision : of what it was trained on and by
        metrics : a row a class: column ``class`` and numbers, e.g. recall, iou, f1, f2, precision

        Settings, plans and training curve are taken from the folder.

        Raises
        ------
        InputError
            The folder is no model, or the key no plain name.
        StorageError
            A file of the model is damaged, or another model is registered under the key.
        """
        _check_key(key)
        model, checksum = check_folder(Path(folder))
        with self._locked():
            found = self._find(key)
            if found is not None:
                if found.checksum != checksum:
                    raise StorageError(
                        f"{key} is registered with the checksum {found.checksum[:12]}, got {checksum[:12]} in "
                        f"{folder}; a model is never changed under its key, register the new one under another"
                    )
                return found
            run = self._log_run(key, model, checksum, dataset_hash, code_revision, metrics)
            self._client.create_model_version(
                SEGMENTER,
                source=os.path.relpath(folder, self.database.parent),
                run_id=run,
                tags={"key": key, "sha256": checksum},
            )
            made = self._find(key)
        assert made is not None
        return made

    def version(self, key: str) -> ModelVersion:
        """A registered model, its files checked against their checksums.

        Raises InputError for an unknown key, StorageError where its files are missing or damaged.
        """
        found = self._find(key) if self.database.is_file() else None
        if found is None:
            raise InputError(f"model must be the key of a registered model, got {key!r}; register it first")
        _check_unchanged(found)
        return found

    def champion(self) -> ModelVersion | None:
        """The model that segments, its files checked, or None. Reads the audit alone, without MLflow's import.

        Raises StorageError where its files are missing or damaged: ``rollback`` goes back to the one before.
        """
        moves = [r for r in self.audit() if r.subject == CHAMPION and r.action in ("promote", "rollback")]
        if not moves:
            return None
        found = self._recorded(moves[-1])
        _check_unchanged(found)
        return found

    def champion_key(self) -> str | None:
        """The champion's key, its files unseen."""
        return self._standing(CHAMPION)

    def challenger_key(self) -> str | None:
        """The key of the model that was last proposed and not promoted."""
        return self._standing(CHALLENGER)

    # --- decisions ----------------------------------------------------------------------------------------

    def challenge(self, key: str, *, who: str, reason: str) -> AuditRow | None:
        """Make a model the challenger; None if it is already."""
        with self._locked():
            model = self.version(key)
            standing = self._audit.standing(CHALLENGER)
            if standing == key:
                return None
            return self._move("challenge", CHALLENGER, model, expected=standing, who=who, reason=reason)

    def promote(
        self,
        key: str,
        *,
        expected: str | None,
        who: str,
        reason: str,
        evidence: Mapping[str, Any] | None = None,
    ) -> AuditRow:
        """Make a model champion in the place of ``expected`` (its key, None for nobody).

        It is no longer the challenger afterwards.

        Raises
        ------
        AliasMovedError
            The champion is not ``expected`` any more.
        InputError
            The model is unknown, or champion already.
        StorageError
            Its files are damaged.
        """
        with self._locked():
            model = self.version(key)
            if self._audit.standing(CHAMPION) == key == expected:
                raise InputError(f"model must be another than the champion, got {key!r}; nothing to do")
            return self._move(
                "promote", CHAMPION, model, expected=expected, who=who, reason=reason, evidence=evidence
            )

    def refuse(
        self, key: str, *, who: str, reason: str, evidence: Mapping[str, Any] | None = None
    ) -> AuditRow:
        """Record that a model was not promoted."""
        with self._locked():
            standing = self._audit.standing(CHAMPION)
            return self._audit.note(
                "refuse",
                CHAMPION,
                before=standing,
                after=key,
                who=who,
                reason=reason,
                evidence=evidence or {},
            )

    def rollback(self, *, who: str, reason: str, to: str | None = None) -> AuditRow:
        """Make the champion before this one champion again, or the earlier one named by ``to``.

        A second rollback goes one further back; it never returns to what was rolled back.

        Raises InputError where there is none to go back to, StorageError where its files are damaged.
        """
        with self._locked():
            history = self._audit.history(CHAMPION)
            earlier = [key for key in history[:-1] if key is not None]
            if not earlier:
                raise InputError("there must have been a champion before this one, got none in the audit")
            target = earlier[-1] if to is None else to
            if target not in earlier:
                raise InputError(f"to must be an earlier champion, {', '.join(earlier)}, got {to!r}")
            return self._move(
                "rollback", CHAMPION, self.version(target), expected=history[-1], who=who, reason=reason
            )

    def freeze(
        self,
        name: str,
        sha256: str,
        *,
        expected: str | None,
        who: str,
        reason: str,
        evidence: Mapping[str, Any],
    ) -> AuditRow:
        """Record the hash of a set of test cases in the place of ``expected``, for good or until the next."""
        with self._locked():
            standing = self._audit.standing(name)
            if standing != expected:
                raise InputError(f"the frozen set {name} must be {expected}, got {standing}; read it again")
            return self._audit.note(
                "freeze", name, before=standing, after=sha256, who=who, reason=reason, evidence=evidence
            )

    def frozen(self, name: str) -> AuditRow | None:
        """The row of the frozen set of this name, or None."""
        rows = [r for r in self.audit() if r.action == "freeze" and r.subject == name]
        return rows[-1] if rows else None

    def audit(self) -> list[AuditRow]:
        """All that was decided, oldest first."""
        return self._audit.rows() if self.database.is_file() else []

    def audit_table(self) -> pd.DataFrame:
        """The audit as a table, a row a decision, oldest first; evidence as JSON."""
        columns = list(AuditRow.__dataclass_fields__)
        rows = [{**asdict(row), "evidence": to_json(row.evidence)} for row in self.audit()]
        return pd.DataFrame(rows, columns=columns)

    def rolled_back(self, key: str) -> AuditRow | None:
        """The rollback that took this model from its place as champion, None if it was promoted since or never."""
        found = None
        for row in self.audit():
            if row.subject == CHAMPION and row.action == "rollback" and row.before == key:
                found = row
            elif row.subject == CHAMPION and row.action in ("promote", "rollback") and row.after == key:
                found = None
        return found

    # --- inside -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone in the registry, which exists and whose aliases follow the audit."""
        self.database.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{self.database}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel's: it dies with its holder
            if not self.database.is_file():
                _create(self.database)
            self._reconcile()
            yield

    def _move(
        self,
        action: str,
        alias: str,
        model: ModelVersion,
        *,
        expected: str | None,
        who: str,
        reason: str,
        evidence: Mapping[str, Any] | None = None,
    ) -> AuditRow:
        recorded = {
            "version": model.version,
            "folder": os.path.relpath(model.folder, self.database.parent),
            "sha256": model.checksum,
            "run": model.run,
        }
        row = self._audit.move(
            action,
            alias,
            expected=expected,
            after=model.key,
            who=who,
            reason=reason,
            evidence={**(evidence or {}), "model": recorded},
            clears=(CHALLENGER,) if alias == CHAMPION else (),
        )
        self._reconcile()
        return row

    def _reconcile(self) -> None:
        """Set MLflow's aliases as the audit has them; say so where somebody had moved one behind its back."""
        pending = self._audit.pending()
        aliases = self._client.get_registered_model(SEGMENTER).aliases
        for alias in (CHAMPION, CHALLENGER):
            key = self._audit.standing(alias)
            wanted = self._version_of(key) if key is not None else None
            found = str(aliases[alias]) if alias in aliases else None
            if found == (str(wanted.version) if wanted else None):
                continue
            if not any(row.subject == alias for row in pending):
                self._audit.note(
                    "restore",
                    alias,
                    before=f"version {found}" if found else None,
                    after=key,
                    who="tomoforge",
                    reason="the alias had been moved in MLflow without a row in the audit",
                    evidence={},
                )
            if wanted is None:
                self._client.delete_registered_model_alias(SEGMENTER, alias)
            else:
                self._client.set_registered_model_alias(SEGMENTER, alias, wanted.version)
        if pending:
            self._audit.applied(pending)

    def _log_run(
        self,
        key: str,
        model: SegmenterModel,
        checksum: str,
        dataset_hash: str,
        code_revision: str,
        metrics: pd.DataFrame | None,
    ) -> str:
        from mlflow.entities import Metric, Param, RunTag

        found = self._client.get_experiment_by_name(SEGMENTER)
        assert found is not None
        experiment = found.experiment_id
        for left in self._client.search_runs([experiment], f"tags.key = '{key}'"):
            self._client.delete_run(left.info.run_id)  # of a registration that was killed before its version
        tags = {
            "key": key,
            "model_sha256": checksum,
            "dataset": dataset_hash,
            "code_revision": code_revision,
            "plans_sha256": file_checksum(model.folder / PLANS),
        }
        run = self._client.create_run(experiment, run_name=key, tags=tags)
        name = run.info.run_id
        plans = json.loads((model.folder / PLANS).read_text())["configurations"][model.configuration]
        params = {
            "configuration": model.configuration,
            **{f"settings.{k}": v for k, v in model.settings.items()},
            **{f"plans.{k}": v for k, v in plans.items()},
        }
        self._client.log_batch(
            name,
            params=[Param(k, _text(v)) for k, v in params.items()][:100],
            tags=[RunTag("software", to_json(model.software))],
        )
        points = [
            *(Metric(f"training/{k}", v, 0, step) for k, v, step in _curve(model.folder / CURVE)),
            *(Metric(f"test/{k}", v, 0, 0) for k, v in _flat(metrics)),
        ]
        for start in range(0, len(points), _BATCH):
            self._client.log_batch(name, metrics=points[start : start + _BATCH])
        self._client.set_terminated(name)
        return name

    def _find(self, key: str) -> ModelVersion | None:
        _check_key(key)
        found = self._version_of(key)
        if found is None:
            return None
        return ModelVersion(
            key,
            int(found.version),
            (self.database.parent / str(found.source)).resolve(),
            found.tags["sha256"],
            str(found.run_id),
        )

    def _version_of(self, key: str) -> "MlflowVersion | None":
        found = self._client.search_model_versions(f"name = '{SEGMENTER}' and tags.key = '{key}'")
        return min(found, key=lambda v: int(v.version)) if found else None

    def _recorded(self, row: AuditRow) -> ModelVersion:
        model = row.evidence["model"]
        assert row.after is not None
        folder = (self.database.parent / model["folder"]).resolve()
        return ModelVersion(row.after, int(model["version"]), folder, model["sha256"], model["run"])

    def _standing(self, alias: str) -> str | None:
        return self._audit.standing(alias) if self.database.is_file() else None

    @property
    def _client(self) -> "MlflowClient":
        if self._opened is None:
            self._opened = _open_mlflow(self.database)
        return self._opened


def check_folder(folder: Path) -> tuple[SegmenterModel, str]:
    """A model folder whose files match their checksums, and the checksum of the whole.

    Raises as ``read_model``; InputError too where the weights are no safetensors file, a pickle for instance.
    """
    model = read_model(folder)
    _check_safetensors(folder / WEIGHTS)
    return model, file_checksum(folder / MODEL)


def _check_unchanged(version: ModelVersion) -> None:
    _, checksum = check_folder(version.folder)
    if checksum != version.checksum:
        raise StorageError(
            f"{version.folder} holds another model than was registered as {version.key} (checksum "
            f"{checksum[:12]}, registered {version.checksum[:12]}); copy the registered one back, or roll back"
        )


def _check_safetensors(path: Path) -> None:
    """Raise InputError unless the file is laid out as safetensors: the length of a JSON header, the header, the
    tensors it tells of without gap or rest. Whether they fit the network is for the worker to see."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if 2 <= length <= size - 8 else b""
    try:
        tensors = {k: v for k, v in json.loads(header).items() if k != "__metadata__"}
        ends = sorted(tuple(v["data_offsets"]) for v in tensors.values())
        starts = [0, *(end for _, end in ends)]
        whole = bool(ends) and [*(start for start, _ in ends), size - 8 - length] == starts
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise InputError(
            f"the weights of a model must be a safetensors file, got something else or a part in {path}; pickled "
            "checkpoints are not read, export the model again"
        )


def _check_key(key: str) -> None:
    if not _KEY.fullmatch(key):
        raise InputError(
            f"the key of a model must be letters, digits, '.', '_' and '-', beginning with a letter or digit, "
            f"got {key!r}"
        )


def _create(database: Path) -> None:
    """The empty registry, whole or not at all: MLflow's tables take seconds and many statements to make."""
    with replacing(database) as draft:
        client = _open_mlflow(draft)
        client.create_experiment(SEGMENTER, artifact_location=(database.parent / "no-files").as_uri())
        client.create_registered_model(SEGMENTER)
        Audit(draft).create()


def _open_mlflow(database: Path) -> "MlflowClient":
    # Both are read while MLflow is imported. It reports its use to its makers unless told not to.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = f"sqlite:///{database}"
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)  # it opens the file only now
    except MlflowException as error:
        raise StorageError(
            f"the registry {database} cannot be opened by MLflow: {error}; `mlflow db upgrade {uri}` helps where "
            "an older MLflow made it"
        ) from error
    return client


def _curve(path: Path) -> Iterator[tuple[str, float, int]]:
    """(name, value, epoch) of a training curve."""
    for row in csv.DictReader(io.StringIO(path.read_text())):
        epoch = int(row.pop("epoch"))
        yield from ((name, float(value), epoch) for name, value in row.items() if value)


def _flat(metrics: pd.DataFrame | None) -> Iterator[tuple[str, float]]:
    """(name/class, value) of a table of metrics."""
    if metrics is None:
        return
    for row in metrics.to_dict("records"):
        name = row["class"]
        for key, value in row.items():
            if key != "class" and isinstance(value, int | float) and math.isfinite(value):
                yield f"{key}/{name}", float(value)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else to_json(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
