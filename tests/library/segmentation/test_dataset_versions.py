"""Versions: immutable, grown one from the other, moved with their workspace."""

import json
import shutil

import numpy as np
import pytest

from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError, StorageError
from tomoforge.segmentation import dataset_versions
from tomoforge.segmentation.case_records import BY_CONTENT, TrainingCase, describe_case
from tomoforge.segmentation.dataset import read_dataset_record
from tomoforge.segmentation.dataset_versions import DatasetVersions, sort_out, write_version
from tomoforge.segmentation.splits import Holdout
from tomoforge.volumes import LABEL_NAMES, write_labels, write_volume

VOXEL = 1e-6


def case(folder, seed, source="forged", change=None, **about):
    volume, labels = phantom(seed, 14)
    name = f"{seed}{change or ''}"
    if change:
        labels[0, 0, 0] = 1
    write_volume(folder / f"v{name}.zarr", volume, VOXEL)
    write_labels(folder / f"l{name}.zarr", labels, VOXEL)
    return TrainingCase(BY_CONTENT, folder / f"v{name}.zarr", folder / f"l{name}.zarr", source, **about)


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


@pytest.fixture
def versions(workspace):
    return DatasetVersions(workspace / "versions", workspace)


def test_versions__grow_without_reading_the_old_cases_again(workspace, versions, monkeypatch):
    first = versions.create([case(workspace, 0), case(workspace, 1, "real")], LABEL_NAMES)
    more = case(workspace, 2, "real", origin={"scan": "scan-1"})
    read = []
    whole = dataset_versions.describe_case
    monkeypatch.setattr(dataset_versions, "describe_case", lambda c, names: read.append(c) or whole(c, names))
    second = versions.grow(first.key, [more])
    assert read == [more]
    assert second.parent == first.key and second.key != first.key
    assert second.contents > first.contents and len(second.contents) == 3
    assert versions.read(first.key) == first  # the old one is as it was
    assert versions.lineage(second.key) == [first.key, second.key]
    assert versions.keys() == sorted([first.key, second.key])
    assert versions.grow(second.key, [more]) == second  # nothing new
    dropped = versions.grow(second.key, [], drop=first.contents & {c.content for c in first.cases[:1]})
    assert dropped.parent == second.key and len(dropped.cases) == 2


def test_versions__the_key_depends_on_content_alone(workspace, versions, tmp_path):
    cases = [case(workspace, 0), case(workspace, 1)]
    first = versions.create(cases, LABEL_NAMES)
    assert versions.create(cases[::-1], LABEL_NAMES) == first
    shutil.copytree(workspace, tmp_path / "elsewhere")
    elsewhere = DatasetVersions(tmp_path / "elsewhere" / "versions", tmp_path / "elsewhere")
    moved = elsewhere.read(first.key)
    assert moved.key == first.key
    assert {c.volume for c in moved.cases} == {str(tmp_path / "elsewhere" / f"v{n}.zarr") for n in (0, 1)}
    other = versions.create([case(workspace, 0), case(workspace, 1, "real")], LABEL_NAMES)
    assert other.contents == first.contents and other.key != first.key  # provenance counts


def test_versions__corrected_labels_take_the_place_of_the_old(workspace, versions):
    first = versions.create([case(workspace, 0), case(workspace, 1)], LABEL_NAMES)
    second = versions.grow(first.key, [case(workspace, 1, change="b")])
    assert len(second.cases) == 2
    assert len(second.contents & first.contents) == 1
    assert {c.volume_sha256 for c in second.cases} == {c.volume_sha256 for c in first.cases}


def test_versions__tampering_is_seen(versions, workspace):
    first = versions.create([case(workspace, 0)], LABEL_NAMES)
    path = versions.folder / f"{first.key}.json"
    stored = json.loads(path.read_text())
    stored["identity"]["cases"][0]["source"] = "real"
    path.chmod(0o644)
    path.write_text(json.dumps(stored))
    with pytest.raises(StorageError, match="was changed"):
        versions.read(first.key)
    path.write_text("{")
    with pytest.raises(StorageError, match="cannot be read"):
        versions.read(first.key)
    with pytest.raises(StorageError, match="no data set version"):
        versions.read("version-0")
    with pytest.raises(InputError, match="key must be"):
        versions.read("../version-0")


def test_versions__the_holdout_stays_out(workspace, versions):
    held = case(workspace, 5, "real", group="crystal 5")
    holdout = Holdout.freeze([describe_case(held, LABEL_NAMES)])
    with pytest.raises(InputError, match="frozen hold-out"):
        versions.create([case(workspace, 0), held], LABEL_NAMES, holdout=holdout)
    first = versions.create([case(workspace, 0)], LABEL_NAMES, holdout=holdout)
    with pytest.raises(InputError, match="holdout must be given"):
        versions.grow(first.key, [held])
    with pytest.raises(InputError, match="frozen hold-out"):
        versions.grow(first.key, [case(workspace, 6, "real", group="crystal 5")], holdout=holdout)
    with pytest.raises(InputError, match="holdout must be the one"):
        write_version(first, workspace / "raw")
    write_version(first, workspace / "raw", holdout=holdout)
    record = read_dataset_record(workspace / "raw")
    assert (record["version"], record["holdout"]) == (first.key, holdout.sha256)


def test_sort_out__one_poisoned_label_volume_leaves_the_others(workspace, versions):
    good, poisoned = case(workspace, 0), case(workspace, 1)
    write_labels(workspace / "l1.zarr", np.zeros((14, 14, 14), np.uint8), VOXEL)
    records, reasons = sort_out([good, poisoned], LABEL_NAMES)
    assert [record.volume for record in records] == [str(good.volume)]
    assert "background alone" in reasons[str(poisoned.volume)]
    assert versions.create(records, LABEL_NAMES).contents == {records[0].content}
