"""Datasets and labels from people as artefacts: by reference within the workspace, found again, refused whole."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tasks.annotation import build_annotation_queue, decide, decisions, import_corrected_labels
from tasks.samples import LABELS
from tasks.segmenter import DATASET, build_dataset
from tasks.volumes import VOLUME
from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError
from tomoforge.label_files import LabelFileError
from tomoforge.segmentation.annotation import Candidate
from tomoforge.segmentation.case_records import BY_CONTENT, TrainingCase, describe_case
from tomoforge.segmentation.dataset import DATASET_NAME, read_dataset_record
from tomoforge.segmentation.splits import Holdout
from tomoforge.storage import Artefact, Workspace
from tomoforge.volumes import LABEL_NAMES, read_labels, write_labels, write_volume

VOXEL = 2e-6


def stored(workspace: Workspace, kind: str, key: str, write) -> Artefact:
    with workspace.draft(kind, key) as draft:
        write(draft.path)
        return workspace.commit(draft, kind, {"inputs": {}})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def pairs(workspace: Workspace) -> tuple[list[Artefact], list[Artefact]]:
    volumes, labels = [], []
    for seed in range(3):
        grey, truth = phantom(seed, 16)
        volumes.append(
            stored(workspace, "volumes", f"v{seed}", lambda f, a=grey: write_volume(f / VOLUME, a, VOXEL))
        )
        labels.append(
            stored(workspace, "labels", f"l{seed}", lambda f, a=truth: write_labels(f / LABELS, a, VOXEL))
        )
    return volumes, labels


def test_build_dataset__refers_to_the_workspace_and_says_where_each_case_is_from(workspace, pairs):
    volumes, labels = pairs
    made = build_dataset.fn(workspace, volumes, labels, sources=["real", "forged", "real"])
    assert build_dataset.fn(workspace, volumes, labels, sources=["real", "forged", "real"]) == made
    assert build_dataset.fn(workspace, volumes, labels) != made
    raw = workspace.path(made) / DATASET
    cases = read_dataset_record(raw)["cases"]
    assert {(c["origin"]["volume"], c["source"]) for c in cases} == {
        ("v0", "real"),
        ("v1", "forged"),
        ("v2", "real"),
    }
    for entry in json.loads((raw / DATASET_NAME / "dataset.json").read_text())["dataset"].values():
        assert not os.path.isabs(entry["label"])
        assert (raw / DATASET_NAME / entry["label"]).is_dir()
        assert (raw / DATASET_NAME / entry["images"][0]).is_dir()


def test_build_dataset__refuses_held_out_volumes_and_leaves_nothing(workspace, pairs):
    volumes, labels = pairs
    paths = (workspace.path(volumes[1]) / VOLUME, workspace.path(labels[1]) / LABELS)
    holdout = Holdout.freeze([describe_case(TrainingCase(BY_CONTENT, *paths, "real"), LABEL_NAMES)])
    with pytest.raises(InputError, match="frozen hold-out"):
        build_dataset.fn(workspace, volumes, labels, holdout=holdout)
    assert not list(workspace.folder("datasets").glob("dataset-*"))
    build_dataset.fn(workspace, volumes[::2], labels[::2], holdout=holdout)


def test_import_corrected_labels__an_artefact_or_nothing(workspace, pairs, tmp_path):
    volumes, labels = pairs
    truth, _ = read_labels(workspace.path(labels[0]) / LABELS)
    truth[0, 0, 0] = 1
    tifffile.imwrite(tmp_path / "mine.tif", truth, photometric="minisblack")
    made = import_corrected_labels.fn(workspace, tmp_path / "mine.tif", volumes[0], who="Ada")
    np.testing.assert_array_equal(read_labels(workspace.path(made) / LABELS)[0], truth)
    assert workspace.read_provenance(made)["parameters"]["who"] == "Ada"
    tifffile.imwrite(tmp_path / "cut.tif", truth[1:], photometric="minisblack")
    with pytest.raises(LabelFileError, match="label shape"):
        import_corrected_labels.fn(workspace, tmp_path / "cut.tif", volumes[0], who="Ada")
    assert len(list(workspace.folder("labels").glob("corrected-labels-*"))) == 1


def test_annotation_queue__leaves_out_what_was_decided_and_approval_lets_it_train(workspace, pairs):
    volumes, labels = pairs
    paths = [
        (workspace.path(v) / VOLUME, workspace.path(m) / LABELS) for v, m in zip(volumes, labels, strict=True)
    ]
    write_volume(workspace.root / "doubt.zarr", np.full((16,) * 3, 0.2, np.float32), VOXEL)
    candidates = [Candidate(f"c{n}", *both, workspace.root / "doubt.zarr") for n, both in enumerate(paths)]
    trained = read_dataset_record(
        workspace.path(build_dataset.fn(workspace, volumes[:1], labels[:1])) / DATASET
    )["fingerprint"]
    approved = decide(workspace, labels[1], "approved", who="Ada")
    queue = build_annotation_queue.fn(workspace, candidates, trained)
    assert {item.subject for item in queue.items} == {"c0", "c2"}
    assert (queue.ranked, queue.decided) == (2, 1)
    assert (workspace.root / "annotation" / "queue" / "queue.json").is_file()
    assert decisions(workspace).standing(approved.checksum) == approved
    sources = ["forged", "pseudo"]
    with pytest.raises(InputError, match="must name the decision"):
        build_dataset.fn(workspace, volumes[:2], labels[:2], sources=sources)
    made = build_dataset.fn(
        workspace, volumes[:2], labels[:2], sources=sources, approvals={"l1": approved.sha256}
    )
    cases = read_dataset_record(workspace.path(made) / DATASET)["cases"]
    assert [c["origin"].get("approval") for c in cases if c["source"] == "pseudo"] == [approved.sha256]
