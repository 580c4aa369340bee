"""Published results: round trip, written once, and said to be unreadable where they are."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tomoforge.errors import InputError, StorageError
from tomoforge.results import Picture, Published, Table, Unreadable, list_published, publish, read_published

PNG = b"\x89PNG\r\n\x1a\n and so on"
FRAME = pd.DataFrame({"energy_kev": [3.5, 5.0], "name": ["a", "µ"]})


def publish_one(root: Path, identifier: str = "run-1", **change) -> Path:
    parts = {
        "title": "A run",
        "summary": {"f1": 0.5, "voxels": np.int64(3), "note": "µ"},
        "pictures": {"overview": Picture(PNG, "What it shows.")},
        "tables": {"factors": Table(FRAME, "Each reflection.")},
        "warnings": ["the first", "the second"],
        "sources": {"volume": "volume-1"},
        "provenance": {"parameters": {"a": 1}},
        "run": {"flow": "end_to_end"},
    }
    return publish(root, "runs", identifier, **{**parts, **change})


def edit(folder: Path, **change) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))


def test_publish__comes_back_whole(tmp_path: Path) -> None:
    folder = publish_one(tmp_path)
    assert folder == tmp_path / "runs" / "run-1"
    found = read_published(folder)
    assert (found.kind, found.identifier, found.title) == ("runs", "run-1", "A run")
    assert found.summary == {"f1": 0.5, "voxels": 3, "note": "µ"}
    assert found.warnings == ("the first", "the second")
    assert found.pictures == {"overview": ("overview.png", "What it shows.")}
    assert found.sources == {"volume": "volume-1"}
    assert found.provenance == {"parameters": {"a": 1}}
    assert found.run["flow"] == "end_to_end" and found.run["published_at"].endswith("+00:00")
    assert (folder / "overview.png").read_bytes() == PNG
    pd.testing.assert_frame_equal(found.read_table("factors"), FRAME)


def test_publish__nothing_but_a_title(tmp_path: Path) -> None:
    found = read_published(publish(tmp_path, "scans", "s", title="", summary={}))
    assert (found.summary, found.warnings, found.pictures, found.tables) == ({}, (), {}, {})


def test_publish__manifest_holds_no_time(tmp_path: Path) -> None:
    texts = {(publish_one(tmp_path / n) / "manifest.json").read_bytes() for n in ("a", "b")}
    assert len(texts) == 1


def test_publish__the_same_again_changes_nothing(tmp_path: Path) -> None:
    folder = publish_one(tmp_path)
    before = {file: (file.stat().st_ino, file.read_bytes()) for file in folder.iterdir()}
    assert publish_one(tmp_path, run={"flow": "another"}) == folder
    assert {file: (file.stat().st_ino, file.read_bytes()) for file in folder.iterdir()} == before
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize(
    "change",
    [
        {"title": "Another"},
        {"summary": {"f1": 0.6}},
        {"warnings": []},
        {"pictures": {}},
        {"tables": {"factors": Table(FRAME[:1], "Each reflection.")}},
    ],
)
def test_publish__never_rewritten_with_other_content(tmp_path: Path, change: dict) -> None:
    folder = publish_one(tmp_path)
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(StorageError, match="never rewritten, publish under a new identifier"):
        publish_one(tmp_path, **change)
    assert (folder / "manifest.json").read_bytes() == before
    assert list(folder.parent.iterdir()) == [folder]


def test_publish__a_failure_leaves_nothing(tmp_path: Path) -> None:
    class Unwritable:
        def __len__(self) -> int:
            return 0

        def to_parquet(self, *_, **__) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        publish_one(tmp_path, tables={"t": Table(Unwritable(), "")})
    assert list((tmp_path / "runs").iterdir()) == []


def test_publish__a_folder_without_manifest_in_the_way_is_told(tmp_path: Path) -> None:
    folder = publish_one(tmp_path)
    (folder / "manifest.json").unlink()
    with pytest.raises(StorageError, match="has no manifest and stands in the way; move it away"):
        publish_one(tmp_path)
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan"), np.float32("nan")])
def test_publish__what_is_not_finite_becomes_none(tmp_path: Path, value: float) -> None:
    found = read_published(publish_one(tmp_path, summary={"f1": value, "n": 1}))
    assert found.summary == {"f1": None, "n": 1}


NAMES = ["", "..", ".", ".hidden", "a/b", "../a", "/etc", "a\\b", "a b", "a\n", "µ", "a" * 121]


@pytest.mark.parametrize("name", NAMES)
def test_publish__names_are_plain_file_names(tmp_path: Path, name: str) -> None:
    root = tmp_path / "published"
    for attempt in (
        lambda: publish(root, "runs", name, title="", summary={}),
        lambda: publish(root, name, "id", title="", summary={}),
        lambda: publish_one(root, pictures={name: Picture(PNG, "")}),
        lambda: publish_one(root, tables={name: Table(FRAME, "")}),
    ):
        with pytest.raises(InputError, match="published names are letters, digits"):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_publish__warnings_are_sentences_not_letters(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="warnings must be a sequence of sentences, got one text: 'take care'"
    ):
        publish_one(tmp_path, warnings="take care")
    edit(publish_one(tmp_path), warnings="take care")
    (found,) = list_published(tmp_path)
    assert isinstance(found, Unreadable) and "warnings, which is no list" in found.reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "has no manifest; its publication was not finished"),
        ("", "cannot be read"),
        ('{"manifest_version": 1, "kind"', "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        ("[]", "has manifest version None"),
        ('{"manifest_version": 2}', "has manifest version 2, this program reads version 1; a newer"),
        ('{"manifest_version": 1}', "lacks or garbles"),
    ],
)
def test_list_published__says_why_a_folder_is_unreadable(tmp_path: Path, content, reason: str) -> None:
    folder = publish_one(tmp_path, "bad")
    publish_one(tmp_path, "good")
    file = folder / "manifest.json"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(StorageError, match=reason):
        read_published(folder)
    good, bad = list_published(tmp_path)
    assert isinstance(good, Published) and good.identifier == "good"
    assert isinstance(bad, Unreadable) and bad.folder == folder and reason in bad.reason


@pytest.mark.parametrize(
    "change",
    [
        {"title": 3},
        {"summary": "text"},
        {"summary": None},
        {"warnings": None},
        {"sources": ["x"]},
        {"provenance": 3},
        {"pictures": ["a"]},
        {"pictures": {"a": "a.png"}},
        {"pictures": {"a": {"file": 3, "caption": ""}}},
        {"pictures": {"a": {"file": "../../secret.png", "caption": ""}}},
        {"tables": {"a": {"file": "/etc/passwd", "caption": ""}}},
        {"tables": {"a": {"file": "a.parquet"}}},
    ],
)
def test_list_published__garbled_entries(tmp_path: Path, change: dict) -> None:
    edit(publish_one(tmp_path), **change)
    (found,) = list_published(tmp_path)
    assert isinstance(found, Unreadable) and found.reason


def test_list_published__newest_first_and_by_kind(tmp_path: Path) -> None:
    for day in (2, 3, 1):
        publish_one(tmp_path, f"r{day}", run={"published_at": f"2026-01-0{day}T00:00:00+00:00"})
    publish(tmp_path, "scans", "s", title="", summary={})
    runs = [entry.identifier for entry in list_published(tmp_path, "runs") if isinstance(entry, Published)]
    assert runs == ["r3", "r2", "r1"]
    assert len(list_published(tmp_path)) == 4
    assert list_published(tmp_path / "none") == []


def test_list_published__drafts_of_killed_runs_are_not_shown(tmp_path: Path) -> None:
    folder = publish_one(tmp_path)
    shutil.copytree(folder, folder.parent / ".run-2.abc")
    assert len(list_published(tmp_path)) == 1


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_read_published__run_record_may_be_missing(tmp_path: Path, text: str | None) -> None:
    folder = publish_one(tmp_path)
    (folder / "run.json").unlink() if text is None else (folder / "run.json").write_text(text)
    assert read_published(folder).run == {}
