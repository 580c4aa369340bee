"""The reader: what is listed, in what order, and what is refused."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from dashboard import data
from tomoforge.errors import StorageError
from tomoforge.results import publish


def test_listing__is_newest_first_and_empty_without_a_workspace(workspace: Path) -> None:
    assert data.listing() == data.Listing((), ())
    for day in (2, 3, 1):
        when = {"published_at": f"2026-01-0{day}T00:00:00+00:00"}
        publish(workspace / "published", "runs", f"r{day}", title="", summary={}, run=when)
    assert [item.identifier for item in data.listing().items] == ["r3", "r2", "r1"]


def test_listing__sees_a_new_result_and_a_finished_one(workspace: Path) -> None:
    root = workspace / "published"
    publish(root, "runs", "a", title="", summary={})
    assert len(data.listing().items) == 1
    final = publish(root, "runs", "b", title="", summary={})
    manifest = final / "manifest.json"
    text = manifest.read_bytes()
    manifest.unlink()
    assert [entry.folder.name for entry in data.listing().unreadable] == ["b"]
    manifest.write_bytes(text)
    assert len(data.listing().items) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"summary": "text"},
        {"summary": None},
        {"sources": ["x"]},
        {"provenance": 3},
        {"warnings": [1]},
        {"warnings": None},
        {"title": None},
        {"pictures": {"p": {"file": "../../secret.png", "caption": ""}}},
        {"tables": {"t": {"file": "t.parquet", "caption": 5}}},
        {"id": "another"},
        {"kind": "scans"},
        {"manifest_version": "1"},
    ],
)
def test_listing__garbled_manifest_is_unreadable_with_a_reason(workspace: Path, change: dict) -> None:
    manifest = publish(workspace / "published", "runs", "r", title="", summary={}) / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    found = data.listing()
    assert not found.items
    assert found.unreadable[0].reason


def test_listing__copied_folder_is_said(workspace: Path) -> None:
    folder = publish(workspace / "published", "runs", "r", title="", summary={})
    shutil.copytree(folder, folder.with_name("copy"))
    assert "renamed or copied" in data.listing().unreadable[0].reason


def test_ancestors__ends_on_a_circle_and_prefers_the_kind_of_the_role(workspace: Path) -> None:
    root = workspace / "published"
    publish(root, "runs", "x", title="", summary={}, sources={"scan": "x", "volume": "v"})
    publish(root, "scans", "x", title="", summary={}, sources={"run": "x"})
    publish(root, "volumes", "v", title="", summary={}, sources={"scan": "x", "other": "gone"})
    found = data.listing()
    run = found.of("runs").items[0]
    assert {(a.kind, a.identifier) for a in data.ancestors(run, found)} == {
        ("scans", "x"),
        ("volumes", "v"),
    }
    assert {user.kind for user in data.used_by(found.of("scans").items[0], found)} == {
        "runs",
        "volumes",
    }


def test_read_picture__whole_picture_and_its_size(example: Path) -> None:
    scan = data.listing().find("scan-21")
    picture = data.read_picture(scan, "projection")
    assert (picture.width, picture.height) == (900, 380)
    file = example / "scans" / "scan-21" / "projection.png"
    assert picture.png == file.read_bytes()


def test_read_table__roundtrips_through_csv(example: Path) -> None:
    frame = data.read_table(data.listing().find("absorption-61"), "factors")
    (example / "factors.csv").write_bytes(data.csv(frame))
    back = pd.read_csv(example / "factors.csv", float_precision="round_trip")
    # 17 digits are written, so nothing is lost.
    pd.testing.assert_frame_equal(back, frame, rtol=0, atol=0)


def test_read_table__missing_file_is_a_sentence(example: Path) -> None:
    model = data.listing().find("model-41")
    (example / "models" / "model-41" / "metrics.parquet").unlink()
    with pytest.raises(StorageError, match="its file is missing"):
        data.read_table(model, "metrics")
