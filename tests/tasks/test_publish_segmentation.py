"""What a segmentation shows: outlines and uncertainty of the same slices, voxels, flags in plain words."""

import json
from pathlib import Path

import numpy as np
import pytest

from tasks import publishing
from tasks.predictions import PLAUSIBILITY, UNCERTAINTY, label_voxels
from tasks.publishing import publish_segmentation
from tasks.samples import LABELS
from tasks.segmenter import MODEL
from tasks.volumes import VOLUME
from tests.library.segmentation.model_folders import write_folder
from tests.library.segmentation.phantom import phantom
from tests.library.segmentation.test_annotation import TRAINED
from tests.tasks.test_registry import artefact
from tomoforge.results import read_published
from tomoforge.storage import Artefact, Workspace
from tomoforge.volumes import LABEL_NAMES, write_labels, write_volume

VOXEL = 2e-6  # [m]
FLAG = {"rule": "crystal_share", "reason": "the crystal fills 95 % of the sample", "remedy": "look at it"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def parts(workspace: Workspace) -> tuple[Artefact, Artefact]:
    """A volume, and a model that knows volumes like it."""
    grey, _ = phantom(3, 24)

    def model(folder: Path) -> None:
        write_folder(folder / MODEL)
        record = json.loads((folder / MODEL / "model.json").read_text())
        (folder / MODEL / "model.json").write_text(json.dumps({**record, "fingerprint": TRAINED}))

    return (
        artefact(workspace, "volumes", "volume", "v", lambda f: write_volume(f / VOLUME, grey, VOXEL)),
        artefact(workspace, "models", "model", "m", model),
    )


def segmentation(workspace: Workspace, *, judged: bool) -> tuple[Artefact, np.ndarray]:
    _, truth = phantom(3, 24)

    def fill(folder: Path) -> None:
        write_labels(folder / LABELS, truth, VOXEL)
        if judged:
            write_volume(folder / UNCERTAINTY, np.full(truth.shape, 0.3, np.float32), VOXEL)
            voxels = {name: int((truth == value).sum()) for name, value in LABEL_NAMES.items()}
            statistics = {"voxels": voxels, "uncertainty": 0.3}
            (folder / PLAUSIBILITY).write_text(json.dumps({"flags": [FLAG], "statistics": statistics}))

    return artefact(workspace, "labels", "segmentation", f"{judged}", fill), truth


@pytest.mark.parametrize("judged", [True, False])
def test_publish_segmentation__uncertainty_beside_the_overlay(workspace, parts, monkeypatch, judged):
    def whole(*arguments: object) -> None:
        raise AssertionError("read whole")

    monkeypatch.setattr(publishing, "read_labels", whole)
    made, truth = segmentation(workspace, judged=judged)
    counts = {name: int((truth == value).sum()) for name, value in LABEL_NAMES.items()}
    assert label_voxels(workspace, made) == counts
    identifier = publish_segmentation.fn(workspace, made, *parts, name="a", sources={})
    item = read_published(workspace.folder("published") / "segmentations" / identifier)
    assert set(item.pictures) == ({"overlay", "uncertainty"} if judged else {"overlay"})
    assert {name: item.summary[f"voxels_{name}"] for name in counts if name != "background"} == {
        name: count for name, count in counts.items() if name != "background"
    }
    if judged:
        assert item.summary["uncertainty_crystal"] == 0.3
        assert "crystal share: the crystal fills 95 % of the sample; look at it" in item.warnings
