"""Folds hold back every case once; each is trained and scored on its own."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError
from tomoforge.segmentation.cross_validation import join_folds, make_folds, train_fold
from tomoforge.segmentation.dataset import TrainingCase, write_dataset
from tomoforge.segmentation.settings import TrainingSettings
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


@given(
    st.dictionaries(
        st.text("abcdef", min_size=1, max_size=4), st.sampled_from(["forged", "real"]), min_size=5
    ),
    st.integers(2, 5),
)
def test_make_folds__each_case_is_held_back_once_and_sources_are_spread(sources, folds):
    splits = make_folds(sources, folds)
    assert len(splits) == folds
    assert sorted(case for split in splits for case in split["val"]) == sorted(sources)
    for split in splits:
        assert sorted([*split["train"], *split["val"]]) == sorted(sources)
    for kind in [None, *set(sources.values())]:
        counts = [sum(kind in (None, sources[case]) for case in split["val"]) for split in splits]
        assert max(counts) - min(counts) <= 1
    assert make_folds(dict(reversed(sources.items())), folds) == splits


@pytest.mark.parametrize("folds", [1, 4, True])
def test_make_folds__refuses_more_folds_than_cases(folds):
    with pytest.raises(InputError, match="2 to the number of cases, 3"):
        make_folds(dict.fromkeys("abc", "forged"), folds)


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
    splits = make_folds({case.identifier: "forged" for case in cases}, 2)
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
    splits = make_folds({case.identifier: "forged" for case in cases}, 2)
    with pytest.raises(InputError, match="0 to 1, got 2"):
        train_fold(dataset, tmp_path, cases, SETTINGS, 2, splits=splits, timeout_s=1)
    with pytest.raises(InputError, match="c1"):
        train_fold(
            dataset, tmp_path, cases[:1], SETTINGS, 0, splits=[{"train": ["c0"], "val": ["c1"]}], timeout_s=1
        )
    assert not list(tmp_path.iterdir())
