"""Training and prediction through the worker: resumed to the bit, checked, deterministic."""

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest

from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError, StageError, StorageError
from tomoforge.segmentation import jobs
from tomoforge.segmentation.dataset import TrainingCase, write_dataset
from tomoforge.segmentation.metrics import segmentation_metrics
from tomoforge.segmentation.model import CURVE, DATASET, MODEL, PLANS, WEIGHTS, read_model
from tomoforge.segmentation.predict import predict_volume
from tomoforge.segmentation.settings import TrainingSettings
from tomoforge.segmentation.trainer import train_segmenter
from tomoforge.volumes import LABEL_NAMES, write_labels, write_volume

pytest.importorskip("nnunetv2", reason="the train extra is not installed")

VOXEL = 2.5e-6  # [m]
TIMEOUT_S = 300.0
SETTINGS = TrainingSettings(
    epochs=12,
    iterations_per_epoch=6,
    validation_iterations=1,
    batch_size=4,
    patch_size=(48, 48),
    features=8,
    stages=3,
    optimizer="adamw",
    learning_rate=8e-3,
    foreground_fraction=0.5,
    augmentation="full",  # the one whose blur would time itself
    seed=3,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    cases = []
    for seed in range(2):
        volume, labels = phantom(seed, 40, noise=40.0)
        write_volume(folder / f"v{seed}.zarr", volume, VOXEL)
        write_labels(folder / f"l{seed}.zarr", labels, VOXEL)
        cases.append(TrainingCase(f"c{seed}", folder / f"v{seed}.zarr", folder / f"l{seed}.zarr"))
    write_dataset(folder / "raw", cases)
    return folder / "raw"


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    """A model of an undisturbed training, and the progress it reported."""
    folder = tmp_path_factory.mktemp("undisturbed")
    seen = []
    train_segmenter(
        dataset,
        folder / "work",
        folder / "model",
        SETTINGS,
        timeout_s=TIMEOUT_S,
        progress=seen.append,
        extra={"energy_kev": 5.0},
    )
    return folder / "model", seen


@pytest.fixture
def model_copy(trained, tmp_path):
    return shutil.copytree(trained[0], tmp_path / "model")


def test_train_segmenter__reports_every_epoch_and_learns(trained):
    model, seen = trained
    assert [p.epoch for p in seen] == list(range(1, SETTINGS.epochs + 1))
    assert seen[-1].seconds_left == 0
    assert set(seen[-1].pseudo_dice) == {"liquor", "loop", "crystal"}
    # Dice and cross entropy start near 1.4 for four classes; 72 small batches take it well below.
    assert seen[-1].training_loss < seen[0].training_loss - 0.5
    assert len((model / CURVE).read_text().splitlines()) == 1 + SETTINGS.epochs


def test_train_segmenter__model_holds_no_pickle_and_no_path(trained, dataset):
    model, _ = trained
    assert sorted(p.name for p in model.iterdir()) == sorted([WEIGHTS, PLANS, DATASET, MODEL, CURVE])
    for path in model.iterdir():
        assert str(dataset.parents[1]).encode() not in path.read_bytes()
    record = read_model(model)
    assert record.class_names == LABEL_NAMES
    assert record.voxel_size == VOXEL
    assert record.extra == {"energy_kev": 5.0}


def test_train_segmenter__killed_and_resumed_gives_the_same_bytes(trained, dataset, tmp_path):
    model, _ = trained
    work, resumed = tmp_path / "work", tmp_path / "model"
    work.mkdir()
    job = {
        "command": "train",
        "dataset_directory": str(dataset),
        "work_directory": str(work),
        "model_directory": str(resumed),
        "settings": SETTINGS.to_dict(),
        "threads": 1,
        "extra": {},
    }
    (work / "job.json").write_text(json.dumps(job))
    worker = subprocess.Popen(
        [sys.executable, "-m", jobs.WORKER, str(work / "job.json")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **jobs._environment(1)},
    )
    for line in worker.stdout:
        if '"progress"' in line:
            break
    worker.send_signal(signal.SIGKILL)  # the second epoch is under way
    worker.stdout.close()
    assert worker.wait() == -signal.SIGKILL
    assert (work / "checkpoint.pt").is_file()
    assert not (resumed / MODEL).exists()

    seen = []
    train_segmenter(
        dataset,
        work,
        resumed,
        SETTINGS,
        timeout_s=TIMEOUT_S,
        progress=seen.append,
        extra={"energy_kev": 5.0},
    )
    assert seen[0].epoch > 1  # it went on, it did not start anew
    for name in (WEIGHTS, PLANS, DATASET, MODEL, CURVE):
        assert (resumed / name).read_bytes() == (model / name).read_bytes(), name


def test_train_segmenter__refuses_the_work_directory_of_another_training(dataset, tmp_path):
    (tmp_path / "training.json").write_text("{}\n")
    with pytest.raises(InputError, match="this training alone"):
        train_segmenter(dataset, tmp_path, tmp_path / "model", SETTINGS, timeout_s=1)


def test_train_segmenter__refuses_a_missing_data_set_and_odd_extras(dataset, tmp_path):
    with pytest.raises(StorageError, match="no finished data set"):
        train_segmenter(tmp_path, tmp_path / "w", tmp_path / "m", SETTINGS, timeout_s=1)
    with pytest.raises(InputError, match="JSON"):
        train_segmenter(dataset, tmp_path / "w", tmp_path / "m", SETTINGS, timeout_s=1, extra={"a": object()})


def test_predict_volume__finds_the_sample_and_repeats_itself(trained):
    model, _ = trained
    volume, labels = phantom(9, 40, noise=40.0)
    seen = []
    predicted = predict_volume(
        volume, VOXEL, model, timeout_s=TIMEOUT_S, progress=lambda done, total: seen.append((done, total))
    )
    assert predicted.shape == volume.shape
    assert predicted.dtype == np.uint8
    assert seen[-1] == (40, 40)
    # 72 batches tell sample from air (background 0, the rest at 600 1/m and more, noise 40); telling the
    # materials apart takes longer.
    assert segmentation_metrics(labels, predicted, LABEL_NAMES)["background"].f1 > 0.95
    # The same slices in this process, in other slabs: slices do not know of each other.
    inference = _inference()
    loaded = inference.load_model(model, mirroring=False)
    parts = [inference.predict_slab(loaded, volume[part], VOXEL) for part in (slice(0, 7), slice(7, None))]
    np.testing.assert_array_equal(np.concatenate(parts), predicted)


def test_predict_slab__matches_nnunets_own_predictor(trained):
    """Independent implementation: nnU-Net's sliding window, one tile at a time, in half precision."""
    inference = _inference()
    model = inference.load_model(trained[0], mirroring=True)
    volume, _ = phantom(11, 72, noise=40.0)  # larger than the 48 pixel patch: several tiles
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, as they are imported
        import torch
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    theirs = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    theirs.manual_initialization(
        model.network,
        model.plans,
        model.configuration,
        None,
        model.dataset,
        "nnUNetTrainer",
        model.mirror_axes,
    )
    slab = volume[30:34]
    data = (slab[None] - slab.mean()) / slab.std()
    ours = inference.predict_logits(model, torch.from_numpy(data)).numpy()
    reference = theirs.predict_sliding_window_return_logits(torch.from_numpy(data)).float().numpy()
    # Half precision carries 11 bits. Four tiles meet: a product, a sum and a weight rounded for each, 2⁻¹¹
    # of the largest logit every time. In the corners of the volume the Gaussian weights, 10 exp(−16), are
    # subnormal in half precision and lose digits, so the outermost pixels are left out.
    inner = (..., slice(8, -8), slice(8, -8))
    np.testing.assert_allclose(ours[inner], reference[inner], atol=6e-3 * np.abs(reference).max())


def test_predict_slab__coarser_volume_comes_back_on_its_own_grid(trained):
    inference = _inference()
    model = inference.load_model(trained[0], mirroring=False)
    volume, labels = phantom(9, 40, noise=0.0)
    coarse = volume.reshape(40, 20, 2, 20, 2).mean(axis=(2, 4))[::2]
    predicted = inference.predict_slab(model, np.ascontiguousarray(coarse), 2 * VOXEL)
    assert predicted.shape == (20, 20, 20)
    found = segmentation_metrics(labels[::2, ::2, ::2], predicted, LABEL_NAMES)
    assert found["background"].f1 > 0.9  # half-voxel shifts of the decimated labels cost a few per cent


def test_predict_slab__empty_slab_is_background(trained):
    inference = _inference()
    model = inference.load_model(trained[0], mirroring=False)
    assert not inference.predict_slab(model, np.zeros((2, 50, 50), np.float32), VOXEL).any()


def test_predict_volume__refuses_bad_volumes(trained):
    model, _ = trained
    good = phantom(9, 16)[0]
    spoilt = good.copy()
    spoilt[0, 0, 0] = np.inf
    for volume, message in [
        (spoilt, "finite"),
        (np.ones_like(good), "constant"),
        (good[0], r"\(z, y, x\)"),
        (good.astype(np.uint16), "floating-point"),
    ]:
        with pytest.raises(InputError, match=message):
            predict_volume(volume, VOXEL, model, timeout_s=1)
    with pytest.raises(InputError, match="voxel_size"):
        predict_volume(good, 0.0, model, timeout_s=1)


def test_read_model__corrupt_weights_are_named(model_copy):
    data = bytearray((model_copy / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (model_copy / WEIGHTS).write_bytes(data)
    with pytest.raises(StorageError, match=f"{WEIGHTS} is missing or differs"):
        predict_volume(phantom(9, 16)[0], VOXEL, model_copy, timeout_s=1)


def test_read_model__refuses_a_folder_that_is_no_model(tmp_path, model_copy):
    with pytest.raises(InputError, match="finished model"):
        read_model(tmp_path / "nothing")
    record = json.loads((model_copy / MODEL).read_text())
    (model_copy / MODEL).write_text(json.dumps({**record, "version": 99}))
    with pytest.raises(InputError, match="version 99"):
        read_model(model_copy)


def test_load_model__refuses_weights_of_another_architecture(model_copy):
    inference = _inference()
    plans = json.loads((model_copy / PLANS).read_text())
    network = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    network["features_per_stage"] = [2 * n for n in network["features_per_stage"]]
    (model_copy / PLANS).write_text(json.dumps(plans))
    with pytest.raises(InputError, match="another architecture"):
        inference.load_model(model_copy, mirroring=False)
    (model_copy / WEIGHTS).write_bytes(b"no weights at all")
    with pytest.raises(InputError, match="no safetensors"):
        inference.load_model(model_copy, mirroring=False)


def test_run_job__raises_what_the_worker_raised(tmp_path):
    with pytest.raises(InputError, match="train or predict"):
        jobs.run_job(
            tmp_path,
            {"command": "sing", "work_directory": str(tmp_path), "threads": 1},
            threads=1,
            timeout_s=TIMEOUT_S,
            on_event=lambda name, values: None,
        )


def test_run_job__time_out_ends_the_worker(tmp_path):
    with pytest.raises(StageError, match="ran longer than"):
        jobs.run_job(
            tmp_path,
            {"command": "predict", "work_directory": str(tmp_path), "threads": 1},
            threads=1,
            timeout_s=0.05,
            on_event=lambda name, values: None,
        )


def _inference():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, as they are imported
        from tomoforge.segmentation import inference
    return inference
