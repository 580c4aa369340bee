"""Folds hold back every case once; each is trained and scored on its own."""

import pickle

import pytest

from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError
from tomoforge.segmentation.cross_validation import join_folds, train_fold
from tomoforge.segmentation.dataset import TrainingCase, write_dataset
from tomoforge.segmentation.settings import TrainingSettings
from tomoforge.segmentation.splits import stratified_folds
from tomoforge.volumes import write_labels, write_volume

VOXEL = 2.5e-6  # [m]
TIMEOUT_S = 300.0
SETTINGS = TrainingSettings(
    epochs=1,
    iterations_per_epoch=2,
    validation_iterations=1,
    batch_size=2,
    patch_size=(32, 32),
    features=4,
    stages=3,
    optimizer="adamw",
    learning_rate=8e-3,
    augmentation="none",
)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    made = []
    for seed in range(2):
        volume, labels = phantom(seed, 32, noise=40.0)
        write_volume(folder / f"v{seed}.zarr", volume, VOXEL)
        write_labels(folder / f"l{seed}.zarr", labels, VOXEL)
        made.append(TrainingCase(f"c{seed}", folder / f"v{seed}.zarr", folder / f"l{seed}.zarr"))
    return made


@pytest.fixture(scope="module")
def dataset(cases, tmp_path_factory):
    pytest.importorskip("nnunetv2", reason="the train extra is not installed")
    folder = tmp_path_factory.mktemp("raw")
    write_dataset(folder, cases)
    return folder


def test_train_fold__scores_what_each_fold_held_back(cases, dataset, tmp_path):
    splits = stratified_folds({case.identifier: "forged" for case in cases}, 2)
    results = [
        train_fold(dataset, tmp_path, cases, SETTINGS, fold, splits=splits, timeout_s=TIMEOUT_S)
        for fold in range(2)
    ]
    for result, split in zip(results, splits, strict=True):
        assert list(result.evaluation.scores["case"].unique()) == split["val"]
        assert result.model == tmp_path / f"fold_{result.fold}" / "model"
        pickle.loads(pickle.dumps(result))  # it comes back from a worker
    assert list(join_folds(results).scores["case"].unique()) == ["c0", "c1"]


def test_train_fold__refuses_a_fold_out_of_range_and_a_case_without_volume(cases, dataset, tmp_path):
    splits = stratified_folds({case.identifier: "forged" for case in cases}, 2)
    with pytest.raises(InputError, match="0 to 1, got 2"):
        train_fold(dataset, tmp_path, cases, SETTINGS, 2, splits=splits, timeout_s=1)
    with pytest.raises(InputError, match="c1"):
        train_fold(
            dataset, tmp_path, cases[:1], SETTINGS, 0, splits=[{"train": ["c0"], "val": ["c1"]}], timeout_s=1
        )
    assert not list(tmp_path.iterdir())
