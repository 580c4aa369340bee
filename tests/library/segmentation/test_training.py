"""Training and prediction through the worker: resumed to the bit, checked, deterministic."""

import dataclasses
import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest

from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError, StageError, StorageError
from tomoforge.segmentation import jobs, worker
from tomoforge.segmentation.dataset import TrainingCase, write_dataset
from tomoforge.segmentation.metrics import class_metrics
from tomoforge.segmentation.model import CURVE, DATASET, MODEL, PLANS, WEIGHTS, read_model
from tomoforge.segmentation.predict import predict_volume
from tomoforge.segmentation.settings import TrainingSettings
from tomoforge.segmentation.trainer import choose_split, train_segmenter
from tomoforge.volumes import LABEL_NAMES, write_labels, write_volume

pytest.importorskip("nnunetv2", reason="the train extra is not installed")
load_file = pytest.importorskip("safetensors.numpy").load_file

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


BLOCKS = dataclasses.replace(
    SETTINGS,
    configuration="3d_fullres",
    epochs=3,
    iterations_per_epoch=2,
    batch_size=2,
    patch_size=(24, 24, 24),
    features=4,
    augmentation="turn",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return _write_dataset(tmp_path_factory.mktemp("dataset"), seeds=range(2))


def _write_dataset(folder, seeds, factor=1.0):
    """A data set of phantoms, their µ scaled by ``factor``."""
    cases = []
    for seed in seeds:
        volume, labels = phantom(seed, 40, noise=40.0)
        write_volume(folder / f"v{seed}.zarr", (factor * volume).astype(np.float32), VOXEL)
        write_labels(folder / f"l{seed}.zarr", labels, VOXEL)
        cases.append(TrainingCase(f"c{seed}", folder / f"v{seed}.zarr", folder / f"l{seed}.zarr"))
    write_dataset(folder / "raw", cases)
    return folder / "raw"


def _train_until_killed(dataset, work, model, settings):
    """Start a training in a worker and kill it while its second epoch is under way."""
    work.mkdir()
    job = {
        "command": "train",
        "dataset_directory": str(dataset),
        "work_directory": str(work),
        "model_directory": str(model),
        "settings": settings.to_dict(),
        "threads": 1,
        "extra": {},
        "split": choose_split(dataset, 0),
    }
    (work / "job.json").write_text(json.dumps(job))
    worker = subprocess.Popen(
        [sys.executable, "-m", jobs.WORKER, str(work / "job.json")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **jobs.worker_environment(1)},
    )
    for line in worker.stdout:
        if '"progress"' in line:
            break
    worker.send_signal(signal.SIGKILL)
    worker.stdout.close()
    assert worker.wait() == -signal.SIGKILL
    assert (work / "checkpoint.safetensors").is_file()


def _assert_same_models(one, other):
    for name in (WEIGHTS, PLANS, DATASET, CURVE):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    records = [json.loads((folder / MODEL).read_text()) for folder in (one, other)]
    assert records[0] == records[1]


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
    _train_until_killed(dataset, work, resumed, SETTINGS)
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
    _assert_same_models(resumed, model)


def test_train_segmenter__blocks_killed_and_resumed_give_the_same_bytes(dataset, tmp_path):
    train_segmenter(dataset, tmp_path / "work", tmp_path / "model", BLOCKS, timeout_s=TIMEOUT_S)
    _train_until_killed(dataset, tmp_path / "killed", tmp_path / "resumed", BLOCKS)
    train_segmenter(dataset, tmp_path / "killed", tmp_path / "resumed", BLOCKS, timeout_s=TIMEOUT_S)
    _assert_same_models(tmp_path / "resumed", tmp_path / "model")
    assert read_model(tmp_path / "model").configuration == "3d_fullres"
    plans = json.loads((tmp_path / "model" / PLANS).read_text())
    assert list(plans["configurations"]) == ["3d_fullres"]
    assert plans["configurations"]["3d_fullres"]["patch_size"] == [24, 24, 24]


def test_train_segmenter__coarse_blocks_where_nnunet_plans_none(dataset, tmp_path):
    """A patch covers these small volumes whole, so nnU-Net itself plans no 3d_lowres."""
    settings = dataclasses.replace(
        BLOCKS, configuration="3d_lowres", patch_size=None, stages=None, epochs=1, iterations_per_epoch=1
    )
    train_segmenter(dataset, tmp_path / "work", tmp_path / "model", settings, timeout_s=TIMEOUT_S)
    planned = json.loads((tmp_path / "model" / PLANS).read_text())["configurations"]["3d_lowres"]
    np.testing.assert_allclose(
        planned["spacing"], 2 * VOXEL * 1e6, rtol=1e-6
    )  # [µm], decimal text in the files
    (data,) = (tmp_path / "work" / "preprocessed").glob("*/*3d_lowres/c0.npy")
    assert np.load(data).shape == (1, 20, 20, 20)  # 40 voxels a side at half the resolution
    assert all(size % 4 == 0 and size >= 20 for size in planned["patch_size"])


def test_train_segmenter__goes_on_from_a_whole_model(trained, tmp_path):
    """The learning rate is next to nothing, so every weight stays where it started, those of the heads too."""
    model, _ = trained
    brighter = _write_dataset(tmp_path, seeds=range(3, 5), factor=2.0)
    settings = dataclasses.replace(SETTINGS, epochs=1, learning_rate=1e-12, weight_decay=0.0)
    train_segmenter(
        brighter, tmp_path / "work", tmp_path / "model", settings, timeout_s=TIMEOUT_S, start_from=model
    )
    before, after = (load_file(folder / WEIGHTS) for folder in (model, tmp_path / "model"))
    assert sum("seg_layers" in name for name in before) > 0
    for name, tensor in before.items():
        # Adam's step is the learning rate: six of them, each 1e-12.
        np.testing.assert_allclose(after[name], tensor, rtol=0, atol=1e-11, err_msg=name)
    # Plans and intensity statistics are the model's, although the new volumes are twice as bright.
    assert (tmp_path / "model" / PLANS).read_bytes() == (model / PLANS).read_bytes()
    (data,) = (tmp_path / "work" / "preprocessed").glob("*/*2d/c3.npy")
    (own,) = (trained[0].parent / "work" / "preprocessed").glob("*/*2d/c1.npy")
    assert np.load(data).max() == np.load(own).max()  # clipped at the model's percentile
    assert np.load(data).mean() > np.load(own).mean() + 0.1  # standardised as the model's volumes were


def test_train_segmenter__refuses_a_start_that_does_not_fit(trained, dataset, tmp_path):
    model, _ = trained

    def go_on(work: str, settings: TrainingSettings, start=model, data=dataset) -> None:
        train_segmenter(
            data, tmp_path / work, tmp_path / "m", settings, timeout_s=TIMEOUT_S, start_from=start
        )

    with pytest.raises(InputError, match="another architecture"):
        go_on("wider", dataclasses.replace(SETTINGS, features=16))
    with pytest.raises(InputError, match="configuration 3d_fullres, got one of 2d"):
        go_on("blocks", BLOCKS)
    with pytest.raises(InputError, match="finished model"):
        go_on("none", SETTINGS, start=tmp_path / "nothing")
    other = shutil.copytree(model, tmp_path / "other")
    record = json.loads((other / MODEL).read_text())
    (other / MODEL).write_text(json.dumps({**record, "class_names": {"background": 0, "salt": 1}}))
    with pytest.raises(InputError, match="salt"):
        go_on("classes", SETTINGS, start=other)


@pytest.mark.parametrize(
    ("fold", "splits", "message"),
    [
        (1, None, "0 to 0, got 1"),
        (-1, None, "got -1"),
        (0, [{"train": ["c0"], "val": ["c7"]}], "c7"),
        (0, [{"train": ["c0", "c1"], "val": ["c1"]}], "c1.* in both"),
        (0, [{"train": [], "val": ["c1"]}], "got 0 and 1"),
    ],
)
def test_train_segmenter__refuses_a_fold_that_is_not_there(dataset, tmp_path, fold, splits, message):
    with pytest.raises(InputError, match=message):
        train_segmenter(
            dataset, tmp_path / "w", tmp_path / "m", SETTINGS, timeout_s=1, fold=fold, splits=splits
        )
    assert not (tmp_path / "w").exists()


def test_train_segmenter__damaged_checkpoint_is_named(trained, dataset, tmp_path):
    work = shutil.copytree(trained[0].parent / "work", tmp_path / "work")
    path = work / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StorageError, match=r"checkpoint.safetensors is damaged .* remove it"):
        train_segmenter(dataset, work, tmp_path / "model", SETTINGS, timeout_s=TIMEOUT_S)


def test_train_segmenter__leaves_its_curve_and_where_it_stands(trained):
    model, seen = trained
    work = model.parent / "work"
    assert (work / CURVE).read_bytes() == (model / CURVE).read_bytes()
    state = json.loads((work / "progress.json").read_text())
    assert (state["epoch"], state["epochs"], state["seconds_left"]) == (SETTINGS.epochs, SETTINGS.epochs, 0)
    assert all(p.seconds_left > 0 for p in seen[:-1])


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
    assert class_metrics(labels, predicted, LABEL_NAMES).f1["background"] > 0.95
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
    found = class_metrics(labels[::2, ::2, ::2], predicted, LABEL_NAMES)
    assert found.f1["background"] > 0.9  # half-voxel shifts of the decimated labels cost a few per cent


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


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_load_checkpoint__brings_everything_back_to_the_bit(tmp_path, kind):
    torch, weights = _weights()
    path = tmp_path / "checkpoint.safetensors"
    one, two = (_small_network(torch, kind, seed) for seed in (1, 2))
    state = {"epoch": 3, "history": [{"loss": 0.1 + 0.2, "pseudo_dice": None}]}
    weights.save_checkpoint(path, *one, state)
    assert weights.load_checkpoint(path, *two) == state
    for network, optimizer in (one, two):
        optimizer.zero_grad()
        network(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    for name, tensor in one[0].state_dict().items():
        assert torch.equal(tensor, two[0].state_dict()[name]), name


def test_load_checkpoint__refuses_what_is_no_checkpoint_and_runs_nothing(tmp_path):
    torch, weights = _weights()
    path = tmp_path / "checkpoint.safetensors"
    pair = _small_network(torch, "sgd", 1)
    weights.save_checkpoint(path, *pair, {})
    whole = path.read_bytes()
    traps = [
        b"",
        whole[:-1],
        whole[: len(whole) // 2],
        b"\x80\x04" + whole,
        pickle.dumps(_Trap(tmp_path / "sprung")),
    ]
    for content in traps:
        path.write_bytes(content)
        with pytest.raises(StorageError, match="damaged"):
            weights.load_checkpoint(path, *pair)
    torch.save({"epoch": 1}, path)
    with pytest.raises(StorageError, match="damaged"):
        weights.load_checkpoint(path, *pair)
    (path.parent / WEIGHTS).write_bytes(weights.dump_weights(pair[0]))  # a model is no checkpoint
    with pytest.raises(StorageError, match="damaged"):
        weights.load_checkpoint(path.parent / WEIGHTS, *pair)
    assert not (tmp_path / "sprung").exists()


def test_load_checkpoint__refuses_another_architecture(tmp_path):
    torch, weights = _weights()
    path = tmp_path / "checkpoint.safetensors"
    weights.save_checkpoint(path, *_small_network(torch, "sgd", 1), {})
    network, optimizer = _small_network(torch, "sgd", 1, width=5)
    with pytest.raises(InputError, match=r"another architecture.*\(4,\) stored, \(5,\) wanted"):
        weights.load_checkpoint(path, network, optimizer)


class _Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def _small_network(torch, kind, seed, width=4):
    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.BatchNorm1d(width))
    network.eval()
    classes = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    optimizer = classes[kind](network.parameters(), **({"momentum": 0.9} if kind == "sgd" else {}), lr=0.1)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return network, optimizer


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


def _from_another(error):
    try:
        raise error
    except type(error) as first:
        try:
            raise RuntimeError("the background worker died") from first
        except RuntimeError as second:
            return second


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),  # safetensors'
        OSError("1000000 requested and 38384 written"),  # NumPy's
        _from_another(OSError(errno.EDQUOT, "Disk quota exceeded")),
    ],
)
def test_worker__full_disk_is_named(tmp_path, monkeypatch, capsys, error):
    def full(job):
        raise error

    monkeypatch.setattr(worker, "_run", full)
    monkeypatch.setattr(worker.process, "die_with_parent", lambda: None)
    (tmp_path / "job.json").write_text(json.dumps({"command": "train", "work_directory": str(tmp_path)}))
    assert worker.main([str(tmp_path / "job.json")]) == 2
    event = json.loads(capsys.readouterr().out)
    assert event["kind"] == "StorageError"
    assert f"no space left on the disk of {tmp_path}" in event["message"] and "GiB free" in event["message"]


def test_worker__other_errors_keep_their_traceback(tmp_path, monkeypatch):
    def wrong(job):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(worker, "_run", wrong)
    monkeypatch.setattr(worker.process, "die_with_parent", lambda: None)
    (tmp_path / "job.json").write_text(json.dumps({"command": "train", "work_directory": str(tmp_path)}))
    with pytest.raises(PermissionError):
        worker.main([str(tmp_path / "job.json")])


def _inference():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, as they are imported
        from tomoforge.segmentation import inference
    return inference


def _weights():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, as they are imported
        import torch

        from tomoforge.segmentation import weights
    return torch, weights
