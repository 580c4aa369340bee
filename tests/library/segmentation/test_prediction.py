"""Predictions: nnU-Net's own answer, from volumes that are never whole in memory."""

import errno
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.library.segmentation.phantom import phantom
from tests.library.segmentation.random_models import random_model
from tomoforge.errors import InputError, StorageError
from tomoforge.segmentation import predict, source
from tomoforge.segmentation.model import PLANS, WEIGHTS, read_model
from tomoforge.segmentation.predict import predict_labels, predict_stored
from tomoforge.segmentation.source import Survey, filled_box, survey_volume
from tomoforge.storage import file_checksum
from tomoforge.volumes import (
    LABEL_NAMES,
    SLAB,
    open_level,
    read_label_names,
    read_volume,
    read_voxel_size,
    write_volume,
)

pytest.importorskip("nnunetv2", reason="the train extra is not installed")

VOXEL = 2.5e-6  # [m]
STEP = 1 / 1024  # of what is stored of probabilities
TIMEOUT_S = 300.0


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """Two networks of slices and one of blocks."""
    root = tmp_path_factory.mktemp("models")
    return {
        "2d": random_model(root / "a", "2d", 1),
        "other 2d": random_model(root / "b", "2d", 2),
        "3d": random_model(root / "c", "3d_fullres", 3),
    }


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    """Longer than a slab along z, no multiple of anything, zeros beside it."""
    values = phantom(9, 44, noise=40.0)[0][:, :30, :35].copy()
    values[:2], values[:, :3], values[:, :, -4:] = 0, 0, 0
    return values


def _inference() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, as they are imported
        from tomoforge.segmentation import inference
    return inference


def loaded(folder: Path, *, mirroring: bool = False) -> Any:
    return _inference().load_model(folder, mirroring=mirroring)


def whole(found: list[Any], model: str, volume: Any, voxel_size: float = VOXEL) -> tuple[np.ndarray, ...]:
    """Labels, uncertainty and probabilities of all slabs together, in this process."""
    slabs = list(_inference().predicted_slabs(found, volume, survey_volume(volume, voxel_size), softmax=True))
    assert [start for start, *_ in slabs] == list(range(0, volume.shape[0], SLAB)), model
    labels, uncertainty = (np.concatenate([slab[n] for slab in slabs]) for n in (1, 2))
    return labels, uncertainty, np.concatenate([slab[3] for slab in slabs], axis=1)


# --- nnU-Net as the oracle ----------------------------------------------------------------------------------


@pytest.mark.parametrize("voxel_size", [VOXEL, 1.3 * VOXEL, 0.71 * VOXEL])
@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_predicted_slabs__are_nnunets_preprocessing_and_export(models, volume, kind, voxel_size):
    """Cropping, scaling, cubic resampling there and linear back, whole in nnU-Net and by slabs here."""
    inference = _inference()
    import torch
    from nnunetv2.inference.export_prediction import (
        convert_predicted_logits_to_segmentation_with_correct_shape as export,
    )

    model = loaded(models[kind])
    preprocessor = model.configuration.preprocessor_class(verbose=False)
    data, _, about = preprocessor.run_case_npy(
        volume[None],
        None,
        {"spacing": [voxel_size * 1e6] * 3},
        model.plans,
        model.configuration,
        model.dataset,
    )
    logits = inference.predict_logits(model, torch.from_numpy(data))
    expected, theirs = export(
        logits, model.plans, model.configuration, model.plans.get_label_manager(model.dataset), about,
        return_probabilities=True, num_threads_torch=1,
    )  # fmt: skip
    labels, uncertainty, probabilities = whole([model], kind, volume, voxel_size)
    inside = tuple(slice(*span) for span in filled_box(volume))
    # Half a step of what is kept, and float32 through a cubic spline, where a steep network makes 10⁻⁵ of 10⁻⁶.
    np.testing.assert_allclose(
        probabilities[(slice(None), *inside)], theirs[(slice(None), *inside)], atol=STEP / 2 + 1e-4
    )
    # Where two classes are as likely, either may be named.
    ordered = np.sort(theirs, axis=0)
    sure = ordered[-1] - ordered[-2] > 1e-3
    np.testing.assert_array_equal(labels[sure], expected[sure])
    assert np.count_nonzero(sure) > 0.99 * sure.size
    np.testing.assert_allclose(uncertainty, 1 - probabilities.max(axis=0), atol=STEP)
    assert len(np.unique(labels)) > 1
    outside = np.ones(volume.shape, bool)
    outside[inside] = False
    assert not labels[outside].any() and not uncertainty[outside].any()


@pytest.mark.parametrize("shape", [(40, 36, 20), (16, 17, 30), (9, 12, 40), (24, 16, 16)])
def test_predict_logits__of_blocks_match_nnunets_sliding_window(models, shape):
    """Independent implementation: whole volume, a tile at a time, in half precision; also where blocks are padded."""
    import torch

    inference = _inference()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, as they are imported
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    model = loaded(models["3d"], mirroring=True)
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
    data = torch.from_numpy(np.random.default_rng(5).normal(size=(1, *shape)).astype(np.float32))
    ours = inference.predict_logits(model, data).numpy()
    reference = theirs.predict_sliding_window_return_logits(data).float().numpy()
    # Half precision carries 11 bits; up to eight tiles meet, each with a product, a sum and a weight that are rounded
    # to 2⁻¹¹ of the largest logit. In the corners the Gaussian weights, 10 exp(−24), are zero in half precision and
    # replaced by the least that is not: the outermost voxels are left out where tiles overlap.
    inner = tuple(slice(6, -6) if size > 16 else slice(None) for size in shape)
    np.testing.assert_allclose(
        ours[(slice(None), *inner)], reference[(slice(None), *inner)], atol=1e-2 * np.abs(reference).max()
    )


# --- several models, mirror images --------------------------------------------------------------------------


def test_predicted_slabs__folds_are_averaged_as_probabilities(models, volume):
    both = [loaded(models[name]) for name in ("2d", "3d")]
    parts = [whole([model], "one", volume)[2] for model in both]
    labels, uncertainty, mean = whole(both, "both", volume)
    np.testing.assert_allclose(mean, (parts[0] + parts[1]) / 2, atol=STEP)
    ordered = np.sort(mean, axis=0)
    sure = ordered[-1] - ordered[-2] > 2 * STEP
    np.testing.assert_array_equal(labels[sure], mean.argmax(axis=0)[sure])
    np.testing.assert_allclose(uncertainty, 1 - mean.max(axis=0), atol=STEP)


@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_predict_logits__mirroring_makes_mirror_images_alike(models, kind):
    """One tile: the mean over all mirror images of it is the mirror image of the mean."""
    import torch

    model = loaded(models[kind], mirroring=True)
    data = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 16, 16, 16)).astype(np.float32))
    axes = (2, 3) if kind == "2d" else (1, 2, 3)
    logits = _inference().predict_logits
    there, back = logits(model, data), torch.flip(logits(model, torch.flip(data, axes)), axes)
    # The same 4 or 8 numbers, summed in another order.
    np.testing.assert_allclose(there, back, atol=1e-5 * float(there.abs().max()))
    plain = logits(loaded(models[kind]), data)
    assert float((plain - there).abs().max()) > 0.01 * float(there.abs().max())


# --- memory -------------------------------------------------------------------------------------------------


class Watched:
    """A volume that remembers how many slices were asked for at once."""

    def __init__(self, values: np.ndarray) -> None:
        self._values, self.shape, self.dtype, self.most = values, values.shape, values.dtype, 0

    def __getitem__(self, key: Any) -> np.ndarray:
        part = self._values[key]
        self.most = max(self.most, part.shape[0])
        return part


@pytest.mark.parametrize("kind", ["2d", "3d"])
@pytest.mark.parametrize("voxel_size", [VOXEL, 1.3 * VOXEL])
def test_predicted_slabs__never_read_more_than_a_slab(models, kind, voxel_size):
    """Nor do the logits grow with the length: what is held at a time is the same for 64 slices as for 192."""
    inference = _inference()
    held = []
    for depth in (64, 192):
        watched = Watched(np.random.default_rng(0).normal(500, 300, (depth, 20, 18)).astype(np.float32))
        survey = survey_volume(watched, voxel_size)
        model = loaded(models[kind])
        stream = inference.Probabilities(model, inference._prepared(model, watched, survey))
        most = 0
        for start in range(0, depth, 4):
            stream.take(start, start + 4)
            most = max(most, len(stream._held))
        held.append(most)
        assert watched.most <= SLAB
    # Of slices, so small a volume is one batch; of blocks, the last tile and what four slices need of the one before.
    assert kind == "2d" or held[0] == held[1] <= 16 + 6


def test_survey_volume__tells_range_and_box_across_slabs():
    values = np.zeros((70, 9, 8), np.float32)
    values[3, 2, 7], values[68, 5, 1] = -4.0, 9.0
    found = survey_volume(values, VOXEL)
    assert found == Survey((70, 9, 8), VOXEL, -4.0, 9.0, ((3, 69), (2, 6), (1, 8)))
    assert Survey.from_dict(json.loads(json.dumps(found.to_dict()))) == found


# --- through the worker -------------------------------------------------------------------------------------


def test_predict_labels__of_an_array_and_of_files_are_the_same(models, volume, tmp_path):
    write_volume(tmp_path / "v.ome.zarr", volume, VOXEL)
    assert read_voxel_size(tmp_path / "v.ome.zarr") == VOXEL
    folds, seen = [models["2d"], read_model(models["other 2d"])], []
    stored = predict_stored(
        tmp_path / "v.ome.zarr",
        tmp_path / "out",
        folds,
        softmax=True,
        timeout_s=TIMEOUT_S,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(32, 44), (44, 44)]
    labels, uncertainty = predict_labels(
        open_level(tmp_path / "v.ome.zarr"), VOXEL, folds, timeout_s=TIMEOUT_S
    )
    assert (labels.dtype, uncertainty.dtype, labels.shape) == (np.uint8, np.float32, volume.shape)
    np.testing.assert_array_equal(open_level(stored.labels)[:], labels)
    np.testing.assert_array_equal(open_level(stored.uncertainty)[:], uncertainty)
    assert read_label_names(stored.labels) == LABEL_NAMES and read_voxel_size(stored.labels) == VOXEL
    softmax = np.stack([read_volume(stored.softmax[name])[0] for name in LABEL_NAMES])
    np.testing.assert_allclose(softmax.sum(axis=0), 1, atol=2 * STEP)  # four roundings of half a step
    np.testing.assert_allclose(uncertainty, 1 - softmax.max(axis=0), atol=STEP)
    ours = whole([loaded(models[name]) for name in ("2d", "other 2d")], "here", volume)
    np.testing.assert_array_equal(labels, ours[0])


# --- what is refused ----------------------------------------------------------------------------------------


def test_predict_labels__refuses_bad_volumes(models, volume):
    spoilt = volume.copy()
    spoilt[40, 5, 5] = np.nan
    for values, message in [
        (spoilt, "1 voxels that are NaN or infinite in slices 32 to 43"),
        (np.ones_like(volume), "constant, got 1 1/m"),
        (volume[0], r"\(z, y, x\)"),
        (volume.astype(np.int16), "floating-point"),
    ]:
        with pytest.raises(InputError, match=message):
            predict_labels(values, VOXEL, models["2d"])
    for voxel_size in (0.0, -1.0, np.nan):
        with pytest.raises(InputError, match="voxel_size"):
            predict_labels(volume, voxel_size, models["2d"])
    with pytest.raises(InputError, match="threads"):
        predict_labels(volume, VOXEL, models["2d"], threads=0)


def test_predict_labels__refuses_models_that_do_not_fit_each_other(models, volume, tmp_path):
    other = random_model(tmp_path / "m", "2d", 1, names={"background": 0, "crystal": 1})
    with pytest.raises(InputError, match="same classes"):
        predict_labels(volume, VOXEL, [models["2d"], other])
    with pytest.raises(InputError, match="got none"):
        predict_labels(volume, VOXEL, [])


def damaged(folder: Path, name: str, content: bytes) -> None:
    """Replace a file of a model, and its checksum with it: what a mistaken hand does."""
    (folder / name).write_bytes(content)
    record = json.loads((folder / "model.json").read_text())
    record["sha256"][name] = file_checksum(folder / name)
    (folder / "model.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plans: plans.update(transpose_forward=[1, 0, 2]), "equal spacing"),
        (
            lambda plans: plans["configurations"]["2d"].update(normalization_schemes=["ZScoreNormalization"]),
            "CTNormalization",
        ),
        (
            lambda plans: plans["configurations"]["2d"]["architecture"]["arch_kwargs"].update(
                features_per_stage=[8, 16]
            ),
            "another architecture",
        ),
    ],
)
def test_load_model__refuses_other_plans(tmp_path, change, message):
    folder = random_model(tmp_path / "m", "2d", 1)
    plans = json.loads((folder / PLANS).read_text())
    change(plans)
    (folder / PLANS).write_text(json.dumps(plans))
    with pytest.raises(InputError, match=message):
        loaded(folder)


def test_load_model__reads_no_pickle(tmp_path):
    """A checkpoint of torch.save is refused as bytes, whatever it would run on being unpickled."""
    import torch

    folder = random_model(tmp_path / "m", "2d", 1)
    torch.save({"w": torch.zeros(1)}, tmp_path / "foreign.pt")
    damaged(folder, WEIGHTS, (tmp_path / "foreign.pt").read_bytes())
    read_model(folder)
    with pytest.raises(InputError, match="no safetensors"):
        loaded(folder)


def test_predict_labels__full_disk_is_named(models, volume, monkeypatch):
    def full(path: Path, values: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(predict, "_save", full)
    with pytest.raises(StorageError, match=r"no space left on the disk of .*GiB free.*TMPDIR"):
        predict_labels(volume, VOXEL, models["2d"])


def test_predict__full_disk_of_the_output_is_named(models, volume, tmp_path, monkeypatch):
    inference = _inference()

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    np.save(tmp_path / "v.npy", volume)
    job = {
        "volume": str(tmp_path / "v.npy"),
        "survey": survey_volume(volume, VOXEL).to_dict(),
        "model_directories": [str(models["2d"])],
        "mirroring": False,
        "device": "cpu",
        "labels": str(tmp_path / "out" / "labels.ome.zarr"),
        "uncertainty": None,
        "softmax": None,
    }
    monkeypatch.setattr(inference, "write_slab", full)
    with pytest.raises(StorageError, match=f"no space left on the disk of {tmp_path / 'out'}"):
        inference.predict(job, lambda name, **values: None)


def test_prepared__matrix_of_the_spline_is_ndimages(volume):
    """Rows sum to one, and equal sizes give the identity."""
    matrix = source._cubic(40, 31)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(source._cubic(7, 7).toarray(), np.eye(7))
