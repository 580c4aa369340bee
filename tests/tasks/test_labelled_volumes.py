"""Whose labels are whose: the volume they belong to, what may be learned from them, and what is gathered."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.annotation import decide
from tasks.artefacts import produce
from tasks.labelled_volumes import (
    LabelledVolume,
    cases_of_dataset,
    labelled_volume,
    volume_of,
    without_repeats,
)
from tasks.night_labels import labelled_volumes, rejected_contents
from tasks.samples import LABELS
from tasks.segmenter import build_dataset
from tasks.volumes import VOLUME
from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError
from tomoforge.storage import PROVENANCE, Artefact, Workspace
from tomoforge.volumes import write_labels, write_volume

VOXEL = 2e-6  # [m]
GREY, TRUTH = phantom(1, 16)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def made(
    workspace: Workspace, kind: str, stage: str, write: Any, name: str = "", **inputs: Artefact
) -> Artefact:
    return produce(
        workspace,
        kind,
        stage,
        parameters={"name": name},
        inputs=inputs,
        packages=(),
        build=lambda folder: write(folder) and None,
    )


def scan_of(workspace: Workspace, name: str = "") -> Artefact:
    return made(workspace, "scans", "real-scan", lambda f: (f / "x").write_text("x"), name)


def volume(workspace: Workspace, scan: Artefact, grey: np.ndarray = GREY, name: str = "") -> Artefact:
    write = lambda f: write_volume(f / VOLUME, grey, VOXEL)  # noqa: E731
    return made(workspace, "volumes", "volume", write, name, scan=scan)


def labels(workspace: Workspace, stage: str, **inputs: Artefact) -> Artefact:
    return made(workspace, "labels", stage, lambda f: write_labels(f / LABELS, TRUTH, VOXEL), **inputs)


def test_volume_of__labels_beside_a_scan_belong_to_its_reconstruction(workspace: Workspace):
    scan, other = scan_of(workspace), scan_of(workspace, "other")
    drawn = labels(workspace, "companion-labels", scan=scan)
    with pytest.raises(InputError, match=rf"(?s){drawn.key} must belong to a volume, got none on their grid"):
        volume_of(workspace, drawn)
    volume(workspace, other)
    volume(workspace, scan, GREY[:, :8], "another width")
    right = volume(workspace, scan)
    assert volume_of(workspace, drawn) == right
    assert labelled_volume(workspace, drawn) == LabelledVolume(right, drawn, "real")
    again = volume(workspace, scan, name="another filter")
    later = 1 + (workspace.path(right) / PROVENANCE).stat().st_mtime
    os.utime(workspace.path(again) / PROVENANCE, (later, later))
    assert volume_of(workspace, drawn) == again  # the newest


def test_labelled_volume__predicted_labels_need_approval_and_rejected_ones_are_out(workspace: Workspace):
    grey = volume(workspace, scan_of(workspace))
    predicted = labels(workspace, "segmentation", volume=grey)
    with pytest.raises(InputError, match=f"{predicted.key} were predicted, and nobody has approved"):
        labelled_volume(workspace, predicted)
    decision = decide(workspace, predicted, "approved", who="Ada")
    assert labelled_volume(workspace, predicted) == LabelledVolume(grey, predicted, "pseudo", decision.sha256)
    decide(workspace, predicted, "rejected", who="Grace", reason="half a crystal")
    with pytest.raises(InputError, match=r"rejected by Grace \(half a crystal\)"):
        labelled_volume(workspace, predicted)
    decide(workspace, predicted, "needs correction", who="Ada", reason="paint the loop")
    with pytest.raises(InputError, match=r"need correction, says Ada \(paint the loop\)"):
        labelled_volume(workspace, predicted)
    assert labelled_volumes(workspace) == ([], 0) and len(rejected_contents(workspace)) == 1
    with pytest.raises(InputError, match="forged ones are gathered with their dataset"):
        labelled_volume(workspace, labels(workspace, "labels"))


def test_cases_of_dataset__are_as_the_dataset_has_them(workspace: Workspace):
    grey = volume(workspace, scan_of(workspace))
    drawn = labels(workspace, "corrected-labels", volume=grey)
    dataset = build_dataset.fn(workspace, [grey], [drawn], sources=["real"], groups=["loop 7"])
    assert cases_of_dataset(workspace, dataset.key) == [LabelledVolume(grey, drawn, "real", None, "loop 7")]
    with pytest.raises(InputError, match=rf"there are: {dataset.key}$"):
        cases_of_dataset(workspace, "dataset-0")


def test_without_repeats__a_pair_once_and_no_volume_with_two_labels(workspace: Workspace):
    grey = volume(workspace, scan_of(workspace))
    drawn, predicted = (labels(workspace, s, volume=grey) for s in ("corrected-labels", "segmentation"))
    one = LabelledVolume(grey, drawn, "real")
    assert without_repeats([one, one]) == [one]
    for other in (LabelledVolume(grey, predicted, "real"), LabelledVolume(grey, drawn, "forged")):
        with pytest.raises(InputError, match=rf"{grey.key} must come once, got it as real with {drawn.key}"):
            without_repeats([one, other])
