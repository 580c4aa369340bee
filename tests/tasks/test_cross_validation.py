"""Cross-validation side by side on the workers of a real local cluster, as the flow starts it."""

import hashlib
import time
from pathlib import Path

import pytest

from tasks.cluster import Compute, open_compute
from tasks.cross_validation import folds_of_dataset, publish_cross_validation
from tasks.registry import find_model
from tasks.samples import LABELS
from tasks.segmenter import SCORES, build_dataset, cross_validate, model_folders
from tasks.volumes import VOLUME
from tests.library.segmentation.model_folders import write_folder
from tests.library.segmentation.phantom import phantom
from tests.tasks.test_registry import artefact
from tomoforge.config import ClusterSettings, OpticsSettings, TrainingSchedule
from tomoforge.errors import ConfigError, InputError
from tomoforge.results import read_published
from tomoforge.segmentation.evaluation import evaluate_case, join_evaluations
from tomoforge.storage import Artefact, Workspace
from tomoforge.volumes import LABEL_NAMES, write_labels, write_volume

pytest.importorskip("nnunetv2", reason="the train extra is not installed")

from flows.train_segmenter import train_segmenter

VOXEL = 2.5e-6  # [m]
TINY = TrainingSchedule(epochs=1, iterations=2, batch_size=2, patch=32, features=4, stages=3)


def forged(root: Path, cases: int = 2) -> tuple[Workspace, Artefact]:
    """A workspace with a dataset of phantoms."""
    workspace, volumes, labels = Workspace(root), [], []
    for seed in range(cases):
        grey, truth = phantom(seed, 32, noise=40.0)
        name = f"{seed}"
        volumes.append(
            artefact(
                workspace, "volumes", "volume", name, lambda f, a=grey: write_volume(f / VOLUME, a, VOXEL)
            )
        )
        labels.append(
            artefact(
                workspace, "labels", "labels", name, lambda f, a=truth: write_labels(f / LABELS, a, VOXEL)
            )
        )
    return workspace, build_dataset.fn(workspace, volumes, labels)


def crossed(compute: Compute, root: Path, folds: int) -> tuple[Workspace, Artefact]:
    """The first so many of two folds, trained and scored."""
    workspace, dataset = forged(root)
    cases, splits = folds_of_dataset(workspace, dataset, 2)
    made = cross_validate.fn(
        compute, workspace, dataset, cases,
        splits=splits[:folds], schedule=TINY, optics=OpticsSettings(), seed=1,
    )  # fmt: skip
    return workspace, made


def leave_one_worker(compute: Compute) -> None:
    cluster = compute._client.cluster
    assert cluster is not None
    cluster.scale(1)
    deadline = time.monotonic() + 60
    while compute.workers > 1:
        assert time.monotonic() < deadline, "the second worker does not go"
        time.sleep(0.2)


def contents(workspace: Workspace, made: Artefact) -> dict[str, str]:
    """SHA-256 of the artefact's files, but for the record of when it was made."""
    folder = workspace.path(made)
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "provenance.json"]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.timeout(1200)  # on two cores that others use as well
def test_cross_validate__two_workers_and_one_give_the_same_bytes(tmp_path: Path):
    with open_compute(ClusterSettings(workers=2, memory_limit="2GiB")) as compute:
        assert compute.workers == 2
        workspace, made = crossed(compute, tmp_path / "two", folds=2)
        leave_one_worker(compute)
        other, alone = crossed(compute, tmp_path / "one", folds=1)
    files = contents(workspace, made)
    assert not any("work/" in name or name.startswith("progress") for name in files)
    # Side by side or alone, a fold is the same to the bit.
    first = {name: digest for name, digest in contents(other, alone).items() if name != SCORES}
    assert first == {name: digest for name, digest in files.items() if name.startswith("fold_0/")}
    scores = [(w.path(a) / SCORES).read_text().splitlines() for w, a in ((workspace, made), (other, alone))]
    assert set(scores[1]) < set(scores[0])

    # As segment_scan takes it: by its key, the folds averaged.
    assert find_model(workspace, made.key) == made
    assert [folder.parent.name for folder in model_folders(workspace, made)] == ["fold_0", "fold_1"]


def test_publish_cross_validation__scores_by_class_and_curves_by_fold(tmp_path: Path):
    workspace = Workspace(tmp_path)
    scores = []
    for seed in range(2):
        _, truth = phantom(seed, 16)
        predicted = truth.copy()
        predicted[:, :, : 8 * seed] = 0  # the second half lost
        scores.append(evaluate_case(f"case{seed}", truth, predicted, LABEL_NAMES, VOXEL))

    def fill(folder: Path) -> None:
        for fold in range(2):
            write_folder(folder / f"fold_{fold}" / "model")
        join_evaluations(scores).scores.to_csv(folder / SCORES, index=False)

    made = artefact(workspace, "models", "cross-validation", "c", fill)
    identifier = publish_cross_validation.fn(workspace, made)
    item = read_published(workspace.folder("published") / "models" / identifier)
    assert item.title == "Cross-validation of 2 folds"
    assert (item.summary["folds"], item.summary["cases"]) == (2, 2)
    assert {f"iou_{name}" for name, value in LABEL_NAMES.items() if value} < set(item.summary)
    assert not any("background" in name for name in item.summary) and item.summary["iou_crystal"] < 1
    curve = item.read_table("training_curve")
    assert list(curve["fold"]) == [0, 0, 1, 1] and list(curve["epoch"]) == [1, 2, 1, 2]
    assert list(item.read_table("worst_cases")["case"]) == ["case1", "case0"]


def test_folds_of_dataset__refuses_more_folds_than_cases(tmp_path: Path):
    workspace, dataset = forged(tmp_path / "w")
    with pytest.raises(InputError, match="2 to the number of groups of cases, 2, got 5"):
        folds_of_dataset(workspace, dataset, 5)


def test_train_segmenter__no_folds_that_go_on_from_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workspace, dataset = forged(tmp_path / "w")
    monkeypatch.setenv("TOMOFORGE_WORKSPACE", str(workspace.root))
    with pytest.raises(ConfigError, match="has seen the cases that a fold would hold back"):
        train_segmenter.fn(dataset.key, folds=2, training=TrainingSchedule(preset="nightly"))
