"""Where each artefact lies, how it gets there whole, and how it is found again.

An artefact is a folder ``<workspace>/<kind>/<key>``. Its key is a hash of what determines it (stage, parameters,
inputs, the stage's own source code), so the same work is never done twice and a changed parameter makes a new
key. It is written under ``<kind>/.partial/<key>`` and renamed when finished; a killed run leaves only a partial
folder, whose finished pieces the next run takes over.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tomoforge.errors import InputError, StorageError

KINDS = (
    "inbox",
    "scans",
    "volumes",
    "labels",
    "datasets",
    "models",
    "corrections",
    "published",
    "quarantine",
)
PROVENANCE = "provenance.json"

# Top-level modules whose behaviour can change the bytes of an artefact; the others only steer.
_SHARED_SOURCES = (
    "backend.py",
    "compilation.py",
    "geometry.py",
    "label_files.py",
    "scan.py",
    "seeds.py",
    "units.py",
    "volumes.py",
)


# --- files, whole or not at all -------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it when the block ends well, and vanishes otherwise."""
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{final.name}.", dir=final.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Write ``data`` so that a reader sees the old file or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def to_json(value: Any) -> str:
    """Canonical JSON: sorted keys, dataclasses and numpy scalars unwrapped; NaN refused."""
    try:
        return json.dumps(value, sort_keys=True, indent=1, default=_plain, allow_nan=False)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"value cannot be stored as JSON: {error}") from error


def write_json_atomic(path: str | Path, value: Any) -> None:
    """Write ``value`` as canonical JSON, whole or not at all."""
    write_bytes_atomic(path, (to_json(value) + "\n").encode())


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise InputError(f"{type(value).__name__} cannot be stored as JSON: {value!r}")


# --- keys and provenance --------------------------------------------------------------------------------


@functools.cache
def code_version(*packages: str) -> str:
    """Hash of the source files of ``tomoforge.<package>`` and of the shared modules under them."""
    root = Path(__file__).parent
    files = [root / name for name in _SHARED_SOURCES]
    for package in packages:
        found = sorted((root / package).rglob("*.py"))
        if not found:
            raise InputError(f"packages must name packages of tomoforge, got {package!r}")
        files += found
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(root)).encode() + b"\0")
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def content_key(stage: str, parameters: Mapping[str, Any], inputs: Sequence[str], code: str) -> str:
    """Key of an artefact: hash of the stage, its parameters, its inputs' keys and its code version."""
    text = to_json({"stage": stage, "parameters": dict(parameters), "inputs": list(inputs), "code": code})
    return f"{stage}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions of the packages that decide the numbers."""
    names = (
        "tomoforge numpy scipy numba h5py zarr bpy xraydb finufft algotom gemmi torch nnunetv2 "
        "cupy-cuda12x prefect distributed"
    )
    found = {}
    for name in names.split():
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@functools.cache
def git_revision() -> str:
    """Commit of the checkout this code runs from, or ``unknown``; ``+`` marks uncommitted changes."""
    import subprocess

    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=20)
        if done.returncode:
            raise OSError(done.stderr)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


def provenance(
    stage: str, parameters: Mapping[str, Any], inputs: Mapping[str, "Artefact | str"], code: str
) -> dict[str, Any]:
    """What is stored with an artefact. Holds no time, so the same work gives the same bytes."""
    return {
        "stage": stage,
        "parameters": dict(parameters),
        "inputs": {
            role: asdict(item) if isinstance(item, Artefact) else item for role, item in inputs.items()
        },
        "code_version": code,
        "git_revision": git_revision(),
        "packages": package_versions(),
    }


def file_checksum(path: str | Path) -> str:
    """SHA-256 of a file, as hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# --- artefacts ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Artefact:
    """A finished artefact by reference: this travels between tasks, the arrays stay on disk.

    path is relative to the workspace, so that workspaces can be moved.
    """

    kind: str
    key: str
    path: str
    checksum: str


@dataclass(frozen=True)
class Draft:
    """A folder that is being filled. ``fresh`` is False when a killed run left pieces in it."""

    path: Path
    fresh: bool


class Workspace:
    """The folder tree of all artefacts (``TOMOFORGE_WORKSPACE``)."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()

    @classmethod
    def default(cls) -> "Workspace":
        """The workspace named by ``TOMOFORGE_WORKSPACE``, else ``./workspace``."""
        return cls(os.environ.get("TOMOFORGE_WORKSPACE") or "workspace")

    def folder(self, kind: str) -> Path:
        """The folder of one kind of artefact, made if need be."""
        if kind not in KINDS:
            raise InputError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        folder = self.root / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def path(self, artefact: Artefact) -> Path:
        """Where an artefact lies. Raises StorageError if it is gone."""
        folder = (self.root / artefact.path).resolve()
        if not folder.is_relative_to(self.root.resolve()):
            raise StorageError(f"artefact path {artefact.path!r} leaves the workspace {self.root}")
        if not (folder / PROVENANCE).is_file():
            raise StorageError(
                f"{artefact.kind} {artefact.key} is not in the workspace {self.root}; was it deleted? "
                "Run the flow again to make it anew."
            )
        return folder

    def find(self, kind: str, key: str) -> Artefact | None:
        """The finished artefact with this key, or None. Its files must be there in their recorded sizes."""
        folder = self.folder(kind) / key
        try:
            recorded = (folder / PROVENANCE).read_bytes()
        except FileNotFoundError:
            return None
        for name, entry in _recorded_files(folder, recorded).items():
            file = folder / name
            if not file.is_file() or file.stat().st_size != entry["bytes"]:
                raise StorageError(
                    f"{folder / name} is missing or has changed since it was finished; move {folder} away "
                    "and run the flow again to make it anew"
                )
        return Artefact(kind, key, f"{kind}/{key}", hashlib.sha256(recorded).hexdigest())

    def verify(self, artefact: Artefact) -> None:
        """Compare every file of an artefact with its recorded checksum. Raises StorageError."""
        folder = self.path(artefact)
        for name, entry in _recorded_files(folder, (folder / PROVENANCE).read_bytes()).items():
            if not (folder / name).is_file():
                raise StorageError(f"{folder / name} is missing")
            if file_checksum(folder / name) != entry["sha256"]:
                raise StorageError(f"{folder / name} does not match its recorded checksum")

    def read_provenance(self, artefact: Artefact) -> dict[str, Any]:
        """What is recorded of an artefact: parameters, inputs, versions, files."""
        return json.loads((self.path(artefact) / PROVENANCE).read_text())

    @contextlib.contextmanager
    def draft(self, kind: str, key: str) -> Iterator[Draft]:
        """The partial folder of an artefact, held by this process alone until the block ends.

        A second run that wants the same artefact waits here, then finds it finished. The lock is the kernel's
        and dies with its holder.
        """
        partial = self.folder(kind) / ".partial"
        partial.mkdir(exist_ok=True)
        with open(partial / f"{key}.lock", "w") as lock:
            _wait_for_lock(lock.fileno())
            folder = partial / key
            fresh = not folder.exists()
            folder.mkdir(exist_ok=True)
            yield Draft(folder, fresh)

    def commit(self, draft: Draft, kind: str, record: Mapping[str, Any]) -> Artefact:
        """Finish a draft: record its files and checksums, then rename it into place."""
        key = draft.path.name
        final = self.folder(kind) / key
        # Temporary files of a writer that was killed are not part of the artefact: ours begin with a dot
        # (``replacing``), Zarr's end with ".partial".
        for stray in [*draft.path.rglob(".*"), *draft.path.rglob("*.partial")]:
            if stray.is_file():
                stray.unlink()
        files = {
            str(file.relative_to(draft.path)): {"bytes": file.stat().st_size, "sha256": file_checksum(file)}
            for file in sorted(draft.path.rglob("*"))
            if file.is_file() and file != draft.path / PROVENANCE
        }
        write_json_atomic(draft.path / PROVENANCE, {**record, "files": files})
        _sync_folder(draft.path)
        if final.exists():
            if self.find(kind, key) is None:
                raise StorageError(f"{final} is no finished artefact and stands in the way; move it away")
            shutil.rmtree(draft.path)
        else:
            os.rename(draft.path, final)
            _sync_folder(final.parent)
        found = self.find(kind, key)
        assert found is not None
        return found


def _recorded_files(folder: Path, recorded: bytes) -> dict[str, dict[str, Any]]:
    try:
        files = json.loads(recorded)["files"]
        return {name: {"bytes": entry["bytes"], "sha256": entry["sha256"]} for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"{folder / PROVENANCE} is garbled; move {folder} away and run the flow again to make it anew"
        ) from error


def _wait_for_lock(descriptor: int, poll_s: float = 0.5) -> None:
    # Polling rather than a blocking flock keeps the thread interruptible.
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(poll_s)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
