"""The queue of what is worth annotating: what is in it, what is not, and how people see and open it."""

from pathlib import Path

import numpy as np
import pytest

from flows.rank_annotations import rank_annotations
from tasks.annotation import build_annotation_queue, decide
from tasks.annotation_queue import annotation_candidates, publish_annotation_queue
from tasks.predictions import AS_USUAL, UNCERTAINTY
from tasks.registry import champion_of, frozen_cases, open_registry, register_model
from tasks.samples import LABELS
from tasks.segmenter import build_dataset
from tasks.volumes import VOLUME
from tests.library.segmentation.phantom import phantom
from tests.library.segmentation.test_annotation import TRAINED
from tests.tasks.test_registry import artefact, model
from tomoforge.errors import InputError
from tomoforge.results import read_published
from tomoforge.segmentation.case_records import content_hash
from tomoforge.storage import Artefact, Workspace, provenance
from tomoforge.volumes import read_labels, write_labels, write_volume

VOXEL = 2e-6  # [m]


def volume(workspace: Workspace, seed: int, scan: str = "real-scan") -> Artefact:
    raw = artefact(workspace, "scans", scan, f"{seed}", lambda f: (f / "x").write_text("x"))
    grey, _ = phantom(seed, 16)
    return artefact(
        workspace, "volumes", "volume", f"{seed}", lambda f: write_volume(f / VOLUME, grey, VOXEL), scan=raw
    )


def labels(workspace: Workspace, stage: str, of: Artefact, seed: int) -> Artefact:
    _, truth = phantom(seed, 16)
    return artefact(
        workspace, "labels", stage, f"{seed}", lambda f: write_labels(f / LABELS, truth, VOXEL), volume=of
    )


def segmented(workspace: Workspace, by: Artefact, of: Artefact, doubt: float, **changes: object) -> Artefact:
    """What the task ``segment`` leaves, of a model that is everywhere as unsure as ``doubt``."""
    seed = int(workspace.read_provenance(of)["parameters"]["name"])
    parameters = {**AS_USUAL.key(), **changes}
    _, truth = phantom(seed, 16)
    with workspace.draft("labels", f"segmentation-{of.key[-8:]}{len(changes)}") as draft:
        write_labels(draft.path / LABELS, truth, VOXEL)
        write_volume(draft.path / UNCERTAINTY, np.full(truth.shape, doubt, np.float32), VOXEL)
        made = provenance("segmentation", parameters, {"model": by, "volume": of}, "test")
        return workspace.commit(draft, "labels", made)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A champion that was trained on scan 0 and is tested on scan 1."""
    monkeypatch.setenv("TOMOFORGE_WORKSPACE", str(tmp_path / "w"))
    made = Workspace.default()
    pairs = [(v := volume(made, seed), labels(made, "drawn", v, seed)) for seed in (0, 1)]
    trained, tested = (build_dataset.fn(made, [v], [truth], sources=["real"]) for v, truth in pairs)
    champion = model(made, "champion", trained)
    register_model.fn(made, champion)
    open_registry(made).promote(champion.key, expected=None, who="Ada", reason="test")
    said = {"replace": False, "by": "Ada", "reason": "test"}
    frozen_cases.fn(made, "holdout", dataset=tested.key, **said)
    return made


def test_annotation_candidates__what_is_nobodys_yet(workspace: Workspace):
    champion = champion_of(workspace)
    assert champion is not None
    other = model(workspace, "other", build_dataset.fn(workspace, *pair(workspace, 9)))
    known = [volume(workspace, seed) for seed in (0, 1)]
    free, drawn, unseen, elsewhere = (volume(workspace, seed) for seed in (2, 3, 4, 5))
    forged = volume(workspace, 6, "scan")
    labels(workspace, "corrected-labels", drawn, 3)
    for of in (*known, drawn, forged):
        segmented(workspace, champion, of, 0.2)
    segmented(workspace, other, elsewhere, 0.2)
    mirrored = segmented(workspace, champion, free, 0.2, mirroring=True)
    usual = segmented(workspace, champion, free, 0.3)

    found = annotation_candidates(workspace, champion)
    assert [c.subject for c in found.ranked] == [free.key]
    assert found.ranked[0].labels == workspace.path(usual) / LABELS != workspace.path(mirrored) / LABELS
    assert set(found.unseen) == {unseen.key, elsewhere.key}
    assert found.labelled == 3  # learned from, tested on, drawn by hand


def pair(workspace: Workspace, seed: int) -> tuple[list[Artefact], list[Artefact]]:
    made = volume(workspace, seed, "scan")
    return [made], [labels(workspace, "labels", made, seed)]


def test_publish_annotation_queue__slices_and_how_to_open_each(workspace: Workspace):
    champion = champion_of(workspace)
    assert champion is not None
    sure, unsure, done = (volume(workspace, seed) for seed in (2, 3, 4))
    segmented(workspace, champion, sure, 0.1)
    segmented(workspace, champion, unsure, 0.6)
    decide(workspace, segmented(workspace, champion, done, 0.9), "approved", who="Ada")
    candidates = annotation_candidates(workspace, champion)
    queue = build_annotation_queue.fn(workspace, candidates.ranked, TRAINED)
    identifier = publish_annotation_queue.fn(workspace, queue, candidates, champion)
    assert publish_annotation_queue.fn(workspace, queue, candidates, champion) == identifier
    item = read_published(workspace.folder("published") / "annotation_queues" / identifier)
    assert item.title == "What is worth annotating: 2 volumes" and not item.warnings
    assert (item.summary["queued"], item.summary["decided_already"]) == (2, 1)
    shown = item.read_table("queue")
    checksums = [
        content_hash(*read_labels(workspace.root / "labels" / key / LABELS)) for key in shown["labels"]
    ]
    assert list(shown["labels_sha256"]) == checksums  # what a decision on them names
    assert {"slice_z", "slice_y", "slice_x"} <= set(shown)
    table = item.read_table("queue")
    first, second = table["subject"]
    assert {first, second} == {unsure.key, sure.key}  # one is unsurer, one unliker: ranked alike
    assert sorted(item.pictures) == [f"01_{first}", f"02_{second}"]
    program, *options, image, doubt, editable = table["opened_by"][0].split()
    assert (program, options) == ("napari", ["--plugin", "napari"]) and editable == table["to_correct"][0]
    for path in (image, doubt, editable):  # within the workspace
        assert (workspace.root / path).exists()


def test_build_annotation_queue__labels_that_need_correction_stay(workspace: Workspace):
    champion = champion_of(workspace)
    assert champion is not None
    shown = segmented(workspace, champion, volume(workspace, 2), 0.1)
    queued = annotation_candidates(workspace, champion).ranked
    for verdict, left in (("needs correction", 1), ("approved", 0), ("rejected", 0), ("needs correction", 1)):
        decide(workspace, shown, verdict, who="Ada", reason="loop")
        assert build_annotation_queue.fn(workspace, queued, TRAINED).ranked == left


def test_rank_annotations__needs_a_champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOMOFORGE_WORKSPACE", str(tmp_path))
    with pytest.raises(InputError, match="promote makes one"):
        rank_annotations.fn()
