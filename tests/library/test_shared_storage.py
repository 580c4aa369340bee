"""Whole files or none, keys from content alone, drafts that are locked, finished by a rename, found again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tomoforge import storage
from tomoforge.errors import InputError, StorageError
from tomoforge.storage import (
    PROVENANCE,
    Artefact,
    Workspace,
    content_key,
    provenance,
    replacing,
    to_json,
    write_bytes_atomic,
    write_json_atomic,
)

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30.0  # for another process or thread; reached only by a failure


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


def make(workspace: Workspace, key: str = "stage-1", text: str = "content") -> Artefact:
    with workspace.draft("labels", key) as draft:
        (draft.path / "inner").mkdir()
        (draft.path / "inner" / "data.txt").write_text(text)
        (draft.path / "top.txt").write_text("top")
        return workspace.commit(draft, "labels", {"stage": "stage"})


def start(program: str, *arguments: object) -> subprocess.Popen:
    """A Python process that prints a line when it is where the test wants it."""
    child = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def end(child: subprocess.Popen) -> None:
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


# --- files ------------------------------------------------------------------------------------------------


def test_write_bytes_atomic__new_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "er" / "a.bin"
    for data in (b"first", b"second, longer", b""):
        write_bytes_atomic(file, data)
        assert file.read_bytes() == data
    assert [p.name for p in file.parent.iterdir()] == ["a.bin"]
    assert file.stat().st_mode & 0o777 == 0o644  # others may read it, whatever mkstemp thinks


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_replacing__a_raise_leaves_the_old_file_and_nothing_else(tmp_path: Path, error) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(error), replacing(file) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_replacing__the_old_file_stands_until_the_end(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with replacing(file) as temporary:
        temporary.write_text("new")
        assert temporary.parent == file.parent  # the same file system, or the rename would be a copy
        assert file.read_text() == "old"
    assert file.read_text() == "new"


def test_replacing__a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    program = (
        "import sys, time; from tomoforge.storage import replacing\n"
        "with replacing(sys.argv[1]) as t:\n"
        "    t.write_text('half'); print('ready', flush=True); time.sleep(600)"
    )
    end(start(program, file))
    assert file.read_text() == "old"


def test_write_bytes_atomic__killed_at_any_time_leaves_old_or_new(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    size = 1 << 20
    program = (
        "import sys; from tomoforge.storage import write_bytes_atomic\n"
        f"write_bytes_atomic(sys.argv[1], bytes({size})); print('ready', flush=True)\n"
        f"while True: [write_bytes_atomic(sys.argv[1], bytes([n]) * {size}) for n in range(256)]"
    )
    rng = np.random.default_rng(1)
    for _ in range(3):
        child = start(program, file)
        time.sleep(rng.uniform(0, 0.05))
        end(child)
        data = file.read_bytes()
        assert len(data) == size and data == data[:1] * size


# --- JSON -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    x: float
    y: int


def test_to_json__canonical(tmp_path: Path) -> None:
    value = {"b": np.float32(0.5), "a": [np.int64(1), Point(1.5, 2)], "c": np.eye(2), "p": Path("x/y")}
    expected = {"a": [1, {"x": 1.5, "y": 2}], "b": 0.5, "c": [[1.0, 0.0], [0.0, 1.0]], "p": "x/y"}
    assert json.loads(to_json(value)) == expected
    assert to_json(value) == to_json(dict(reversed(value.items())))
    write_json_atomic(tmp_path / "v.json", value)
    assert (tmp_path / "v.json").read_text() == to_json(expected) + "\n"


@pytest.mark.parametrize(
    "value", [float("nan"), np.float32("inf"), np.array([np.nan]), {1, 2}, object(), b"x"]
)
def test_to_json__refuses_what_json_has_not(value) -> None:
    with pytest.raises(InputError):
        to_json({"value": value})


# --- keys and provenance ------------------------------------------------------------------------------------

KEY: dict[str, Any] = {
    "stage": "scan",
    "parameters": {"a": 1, "b": {"c": 2.5}},
    "inputs": ["labels=x"],
    "code": "123",
}


def test_content_key__same_for_the_same_work() -> None:
    key = content_key(**KEY)
    assert key == content_key(**KEY)
    assert key.startswith("scan-") and len(key) == len("scan-") + 20
    turned = {"b": {"c": np.float64(2.5)}, "a": np.int64(1)}
    assert content_key(**{**KEY, "parameters": turned}) == key


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "scans"},
        {"parameters": {"a": 2, "b": {"c": 2.5}}},
        {"parameters": {"a": 1, "b": {"c": np.nextafter(2.5, 3)}}},
        {"parameters": {"a": "1", "b": {"c": 2.5}}},
        {"parameters": {"a": 1, "b": {"c": 2.5}, "d": None}},
        {"inputs": ["labels=y"]},
        {"inputs": ["labels=x", "labels=x"]},
        {"inputs": []},
        {"code": "124"},
    ],
)
def test_content_key__every_part_changes_it(change: dict) -> None:
    assert content_key(**{**KEY, **change}) != content_key(**KEY)


def storage_of(folder: Path) -> ModuleType:
    """The module ``storage`` as it lies in another copy of the library."""
    spec = util.spec_from_file_location("copied_storage", folder / "storage.py")
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_code_version__changes_with_the_stages_and_the_shared_sources_only(tmp_path: Path) -> None:
    copy = tmp_path / "tomoforge"
    shutil.copytree(ROOT / "tomoforge", copy, ignore=shutil.ignore_patterns("__pycache__"))

    def version(*packages: str) -> str:
        return storage_of(copy).code_version(*packages)

    standing = version("optics")
    assert standing == version("optics") == storage.code_version("optics")
    assert standing != version("optics", "beamline")
    for file, changes in (
        ("optics/materials.py", True),
        ("geometry.py", True),
        ("samples/recipe.py", False),  # another room
        ("process.py", False),  # steers, changes no number
    ):
        text = (copy / file).read_bytes()
        (copy / file).write_bytes(text + b"\n# a change\n")
        assert (version("optics") != standing) is changes, file
        (copy / file).write_bytes(text)
    (copy / "optics" / "new.py").write_text("")
    assert version("optics") != standing


def test_code_version__refuses_an_unknown_package() -> None:
    with pytest.raises(InputError, match="no_such_room"):
        storage.code_version("no_such_room")


@pytest.fixture
def no_cached_revision():
    storage.git_revision.cache_clear()
    yield
    storage.git_revision.cache_clear()


@pytest.mark.usefixtures("no_cached_revision")
@pytest.mark.parametrize("git", [None, "#!/bin/sh\nexit 128\n"])
def test_git_revision__unknown_without_git_or_checkout(tmp_path: Path, monkeypatch, git: str | None) -> None:
    if git is not None:
        (tmp_path / "git").write_text(git)
        (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert storage.git_revision() == "unknown"
    assert provenance("s", {}, {}, "c")["git_revision"] == "unknown"


@pytest.mark.usefixtures("no_cached_revision")
@pytest.mark.parametrize(("changes", "expected"), [("", "abc"), (" M a.py", "abc+")])
def test_git_revision__marks_uncommitted_changes(tmp_path: Path, monkeypatch, changes, expected) -> None:
    (tmp_path / "git").write_text(f'#!/bin/sh\n[ "$1" = rev-parse ] && echo abc || echo "{changes}"\n')
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert storage.git_revision() == expected


def test_provenance__holds_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Artefact("labels", "k", "labels/k", "0")
    inputs: dict[str, Artefact | str] = {"labels": source, "content": "xyz"}
    before = to_json(provenance("scan", {"a": 1}, inputs, "code"))
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert to_json(provenance("scan", {"a": 1}, inputs, "code")) == before
    record = json.loads(before)
    assert record["inputs"] == {"labels": vars(source), "content": "xyz"}
    assert record["packages"]["numpy"] == np.__version__


# --- artefacts ----------------------------------------------------------------------------------------------


def test_commit__is_found_verified_and_read(workspace: Workspace) -> None:
    assert workspace.find("labels", "stage-1") is None
    made = make(workspace)
    assert workspace.find("labels", "stage-1") == made
    assert made.path == "labels/stage-1"
    assert (workspace.path(made) / "inner" / "data.txt").read_text() == "content"
    workspace.verify(made)
    record = workspace.read_provenance(made)
    assert record["stage"] == "stage"
    assert set(record["files"]) == {"inner/data.txt", "top.txt"}


def test_commit__same_bytes_same_checksum_in_another_workspace(workspace: Workspace, tmp_path: Path) -> None:
    assert make(workspace) == make(Workspace(tmp_path / "other"))
    assert make(workspace, "stage-2", "else").checksum != make(workspace).checksum


def test_commit__is_a_rename_and_leaves_out_strays(workspace: Workspace) -> None:
    with workspace.draft("labels", "k") as draft:
        (draft.path / "data").write_text("x")
        (draft.path / ".data.tmp1").write_text("of a killed writer")
        (draft.path / "0.c0ffee.partial").write_text("of Zarr, killed while it wrote a chunk")
        before = draft.path.stat().st_ino
        made = workspace.commit(draft, "labels", {})
        assert not draft.path.exists()
    assert workspace.path(made).stat().st_ino == before
    assert set(workspace.read_provenance(made)["files"]) == {"data"}
    assert not (workspace.path(made) / ".data.tmp1").exists()


def test_commit__what_stands_already_wins(workspace: Workspace) -> None:
    first = make(workspace, text="first")
    assert make(workspace, text="second") == first
    assert (workspace.path(first) / "inner" / "data.txt").read_text() == "first"


def test_commit__an_unfinished_folder_in_the_way_is_told_and_the_draft_kept(workspace: Workspace) -> None:
    (workspace.folder("labels") / "k").mkdir()
    with workspace.draft("labels", "k") as draft:
        (draft.path / "data").write_text("hours of work")
        with pytest.raises(StorageError, match="stands in the way; move it away"):
            workspace.commit(draft, "labels", {})
        assert (draft.path / "data").exists()


def test_workspace__can_be_moved(workspace: Workspace, tmp_path: Path) -> None:
    made = make(workspace)
    workspace.root.rename(tmp_path / "moved")
    moved = Workspace(tmp_path / "moved")
    assert moved.find("labels", made.key) == made
    moved.verify(made)
    with pytest.raises(StorageError, match=r"is not in the workspace .*; was it deleted"):
        workspace.path(made)


def damage_missing(file: Path) -> None:
    file.unlink()


def damage_truncated(file: Path) -> None:
    file.write_text("conten")


def damage_same_size(file: Path) -> None:
    file.write_text("cOntent")


@pytest.mark.parametrize("damage", [damage_missing, damage_truncated])
def test_find__missing_or_truncated_file(workspace: Workspace, damage) -> None:
    made = make(workspace)
    damage(workspace.path(made) / "inner" / "data.txt")
    with pytest.raises(StorageError, match=r"inner/data.txt is missing or has changed .* move .* away"):
        workspace.find("labels", made.key)


@pytest.mark.parametrize("damage", [damage_missing, damage_truncated, damage_same_size])
def test_verify__any_damage(workspace: Workspace, damage) -> None:
    made = make(workspace)
    damage(workspace.path(made) / "inner" / "data.txt")
    with pytest.raises(StorageError, match=r"inner/data\.txt"):
        workspace.verify(made)


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", '{"files": 3}', '{"files": {"a": {}}}'])
def test_find__garbled_provenance(workspace: Workspace, record: str) -> None:
    made = make(workspace)
    (workspace.path(made) / PROVENANCE).write_text(record)
    with pytest.raises(StorageError, match=r"garbled; move .* away"):
        workspace.find("labels", made.key)


@pytest.mark.parametrize("path", ["../outside", "labels/../../outside", "/etc", "labels/link"])
def test_path__must_stay_in_the_workspace(workspace: Workspace, tmp_path: Path, path: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / PROVENANCE).write_text("{}")
    (workspace.folder("labels") / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="leaves the workspace"):
        workspace.path(Artefact("labels", "k", path, "0"))


def test_folder__unknown_kind(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="kind must be one of inbox, scans"):
        workspace.folder("lables")


def test_workspace__default_follows_the_environment(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOMOFORGE_WORKSPACE", "")
    assert Workspace.default().root == tmp_path / "workspace"
    monkeypatch.setenv("TOMOFORGE_WORKSPACE", "elsewhere")
    assert Workspace.default().root == tmp_path / "elsewhere"


# --- drafts -------------------------------------------------------------------------------------------------


def test_draft__pieces_survive_a_raise(workspace: Workspace) -> None:
    with pytest.raises(ZeroDivisionError), workspace.draft("scans", "k") as draft:
        assert draft.fresh
        (draft.path / "piece").write_text("done")
        1 / 0  # noqa: B018
    assert workspace.find("scans", "k") is None
    with workspace.draft("scans", "k") as draft:
        assert not draft.fresh
        assert (draft.path / "piece").read_text() == "done"


def test_draft__a_second_thread_waits_and_then_finds(workspace: Workspace) -> None:
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait(PATIENCE_S)
        with workspace.draft("labels", "k"):
            order.append("second" if workspace.find("labels", "k") else "second found nothing")

    thread = threading.Thread(target=second)
    thread.start()
    with workspace.draft("labels", "k") as draft:
        inside.set()
        thread.join(0.2)
        assert thread.is_alive()
        order.append("first")
        workspace.commit(draft, "labels", {})
    thread.join(PATIENCE_S)
    assert order == ["first", "second"]


HOLD = (
    "import sys, time; from tomoforge.storage import Workspace\n"
    "with Workspace(sys.argv[1]).draft('labels', 'k') as draft:\n"
    "    (draft.path / 'piece').write_text('done'); print('ready', flush=True); time.sleep(600)"
)


def test_draft__lock_keeps_out_and_dies_with_its_process(workspace: Workspace) -> None:
    holder = start(HOLD, workspace.root)
    entered = threading.Event()
    fresh: list[bool] = []

    def enter() -> None:
        with workspace.draft("labels", "k") as draft:
            fresh.append(draft.fresh)
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    try:
        assert not entered.wait(0.3)
    finally:
        end(holder)
    assert entered.wait(PATIENCE_S)
    thread.join()
    assert fresh == [False]


def test_draft__other_keys_are_not_kept_waiting(workspace: Workspace) -> None:
    with workspace.draft("labels", "a"), workspace.draft("labels", "b"), workspace.draft("scans", "a"):
        pass


def test_find__half_made_artefacts_are_not_seen(workspace: Workspace) -> None:
    with workspace.draft("labels", "k") as draft:
        (draft.path / "data").write_text("x")
        write_json_atomic(draft.path / PROVENANCE, {"files": {}})  # killed just before the rename
        assert workspace.find("labels", "k") is None


def test_artefact__is_a_plain_value() -> None:
    artefact = Artefact("labels", "k", "labels/k", "0")
    assert artefact == replace(artefact)
    assert hash(artefact) == hash(replace(artefact))
