"""Predictions in the workspace: what lies in the artefact, its flags, and what a flow refuses before it begins."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.library.segmentation.phantom import phantom
from tests.library.segmentation.random_models import random_model
from tomoforge.errors import InputError
from tomoforge.segmentation.postprocess import clean_labels
from tomoforge.storage import Artefact, Workspace, provenance
from tomoforge.volumes import LABEL_NAMES, open_level, read_label_names, read_labels, write_volume

pytest.importorskip("nnunetv2", reason="the train extra is not installed")

from flows.segment_scan import segment_scan
from tasks.predictions import (
    PLAUSIBILITY,
    SOFTMAX,
    UNCERTAINTY,
    PredictionSettings,
    _mesh_piece,
    export_labels,
    find_volume,
    predict_piece,
    said_of,
)
from tasks.samples import LABELS
from tasks.segmenter import model_folders
from tasks.volumes import VOLUME

VOXEL = 2.5e-6  # [m]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch) -> Workspace:
    monkeypatch.setenv("TOMOFORGE_WORKSPACE", str(tmp_path / "w"))
    return Workspace.default()


def finished(workspace: Workspace, kind: str, key: str, fill) -> Artefact:
    """An artefact whose folder ``fill`` has filled."""
    with workspace.draft(kind, key) as draft:
        fill(draft.path)
        return workspace.commit(draft, kind, provenance(kind, {}, {}, "test"))


def test_predict_piece__artefact_holds_labels_uncertainty_softmax_and_flags(workspace, tmp_path):
    """Through the worker, on a network of random weights: hardly a plausible sample, and it is said."""
    values, _ = phantom(3, 32)
    write_volume(tmp_path / "v.ome.zarr", values, VOXEL)
    folds = [str(random_model(tmp_path / f"fold_{n}", "2d", n)) for n in range(2)]

    def fill(folder: Path) -> None:
        settings = PredictionSettings(softmax=True)
        predict_piece(folds, str(tmp_path / "v.ome.zarr"), settings.model_dump_json(), str(folder))
        (folder / "progress.json").unlink()  # the task's follower takes it away

    made = finished(workspace, "labels", "segmentation-1", fill)
    folder = workspace.path(made)
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [LABELS, UNCERTAINTY, SOFTMAX, PLAUSIBILITY, "provenance.json"]
    )
    labels, voxel_size = read_labels(folder / LABELS)
    assert (labels.shape, voxel_size) == (values.shape, VOXEL)
    assert read_label_names(folder / LABELS) == LABEL_NAMES
    np.testing.assert_array_equal(clean_labels(labels), labels)
    assert {p.name for p in (folder / SOFTMAX).iterdir()} == {f"{name}.ome.zarr" for name in LABEL_NAMES}
    assert open_level(folder / UNCERTAINTY).shape == values.shape
    said, stored = said_of(workspace, made), json.loads((folder / PLAUSIBILITY).read_text())
    assert len(said) == len(stored["flags"]) > 0
    assert all(set(flag) == {"rule", "reason", "remedy"} for flag in stored["flags"])
    counts = {name: int(np.count_nonzero(labels == label)) for name, label in LABEL_NAMES.items()}
    assert stored["statistics"]["voxels"] == counts

    exported = export_labels.fn(workspace, made, format="nrrd", name="n")
    head, _, body = (workspace.path(exported) / "volume.nrrd").read_bytes().partition(b"\n\n")
    assert b"type: uchar" in head and b"# label" in head
    np.testing.assert_array_equal(np.frombuffer(body, np.uint8).reshape(labels.shape), labels)
    (tmp_path / "meshes").mkdir()
    _mesh_piece(str(folder / LABELS), "stl", str(tmp_path / "meshes"))
    present = {name for name, count in counts.items() if count and name != "background"}
    assert {p.stem for p in (tmp_path / "meshes").iterdir()} == present


def test_model_folders__of_a_model_and_of_a_cross_validation(workspace):
    def folds(folder: Path) -> None:
        for n in range(3):
            (folder / f"fold_{n}" / "model").mkdir(parents=True)
            (folder / f"fold_{n}" / "model" / "model.json").write_text("{}")

    def one(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model" / "model.json").write_text("{}")

    crossed = finished(workspace, "models", "cross-validation-1", folds)
    assert [p.parent.name for p in model_folders(workspace, crossed)] == ["fold_0", "fold_1", "fold_2"]
    single = finished(workspace, "models", "model-1", one)
    assert model_folders(workspace, single) == [workspace.path(single) / "model"]
    scores = finished(workspace, "models", "scores-1", lambda folder: (folder / "s.csv").write_text("a"))
    with pytest.raises(InputError, match="trained model or a cross-validation, got scores-1"):
        model_folders(workspace, scores)


def test_find_volume__names_those_that_there_are(workspace):
    made = finished(
        workspace, "volumes", "volume-1", lambda f: write_volume(f / VOLUME, np.eye(9)[None], VOXEL)
    )
    assert find_volume(workspace, "volume-1") == made
    for key in ("volume-2", "../volumes/volume-1"):
        with pytest.raises(InputError, match=r"got .*there are: volume-1"):
            find_volume(workspace, key)
    assert said_of(workspace, made) == []


@pytest.mark.parametrize("given", [{}, {"volume": "a", "scan": "b"}])
def test_segment_scan__wants_a_volume_or_a_scan(workspace, given):
    with pytest.raises(InputError, match="not both"):
        segment_scan.fn(**given)


def test_segment_scan__says_where_a_champion_comes_from(workspace):
    with pytest.raises(InputError, match="promote makes one"):
        segment_scan.fn(volume="volume-1")
