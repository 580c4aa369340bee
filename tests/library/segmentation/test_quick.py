"""The quick preset learns forged volumes of recipes that it has not seen, in about two minutes of one core."""

import numpy as np
import pytest

from tomoforge.errors import InputError, SampleRejectedError
from tomoforge.geometry import ScanGeometry, uniform_angles
from tomoforge.optics.detector import Detector
from tomoforge.optics.materials import find_material
from tomoforge.optics.scan import Beam, ScanSimulator
from tomoforge.reconstruction import fbp, line_integrals, normalise
from tomoforge.samples.forge import forge_sample
from tomoforge.samples.recipe import draw_recipe
from tomoforge.segmentation.dataset import TrainingCase, write_dataset
from tomoforge.segmentation.metrics import class_metrics
from tomoforge.segmentation.postprocess import largest_components
from tomoforge.segmentation.predict import predict_volume
from tomoforge.segmentation.presets import preset
from tomoforge.segmentation.trainer import train_segmenter
from tomoforge.volumes import LABEL_NAMES, write_labels, write_volume

pytest.importorskip("nnunetv2", reason="the train extra is not installed")

GRID, VOXEL = 64, 5e-6  # voxels a side, [m]
ANGLES = 120
TRAINED, UNSEEN = 8, 3
TIMEOUT_S = 1100.0
MATERIALS = {
    "liquor": "ammonium_sulfate_liquor",
    "loop": "nylon",
    "crystal": "ammonium_sulfate_crystal",
}


@pytest.fixture(scope="module")
def forged():
    """Volumes [1/m] and labels of samples with mounts, flaws and bubbles as they are drawn."""
    pairs, seed = [], 0
    while len(pairs) < TRAINED + UNSEEN:
        seed += 1
        try:
            sample = forge_sample(draw_recipe(seed, field_of_view=GRID * VOXEL), GRID, VOXEL, engine="lens")
        except (SampleRejectedError, InputError):  # as a forging run does, take the next
            continue
        pairs.append((_scanned(sample.labels, seed), sample.labels))
    return pairs


def _scanned(labels: np.ndarray, seed: int) -> np.ndarray:
    angles = uniform_angles(ANGLES, np.pi)
    simulator = ScanSimulator(
        labels=labels,
        voxel_size=VOXEL,
        materials={LABEL_NAMES[name]: find_material(material) for name, material in MATERIALS.items()},
        geometry=ScanGeometry(angles=angles, pixel_size=VOXEL, propagation_distance=5e-3),
        beam=Beam(5.0, photons=20000.0),
        detector=Detector(),
        seed=seed,
    )
    transmission = normalise(
        simulator.projections(slice(0, ANGLES)), simulator.flats(10), simulator.darks(10)
    )
    return fbp(line_integrals(transmission)[0], angles, VOXEL, (GRID - 1) / 2).astype(np.float32)


@pytest.mark.timeout(1200)
def test_quick__segments_unseen_recipes(forged, tmp_path):
    cases = []
    for n, (volume, labels) in enumerate(forged[:TRAINED]):
        write_volume(tmp_path / f"v{n}.zarr", volume, VOXEL)
        write_labels(tmp_path / f"l{n}.zarr", labels, VOXEL)
        cases.append(TrainingCase(f"c{n}", tmp_path / f"v{n}.zarr", tmp_path / f"l{n}.zarr"))
    write_dataset(tmp_path / "raw", cases)
    train_segmenter(
        tmp_path / "raw", tmp_path / "work", tmp_path / "model", preset("quick"), timeout_s=TIMEOUT_S
    )
    truth = np.concatenate([labels for _, labels in forged[TRAINED:]])
    predicted = np.concatenate(
        [
            largest_components(predict_volume(volume, VOXEL, tmp_path / "model", timeout_s=TIMEOUT_S))
            for volume, _ in forged[TRAINED:]
        ]
    )
    f1 = class_metrics(truth, predicted.astype(np.uint8), LABEL_NAMES).f1
    assert f1["crystal"] >= 0.90
    assert f1["liquor"] >= 0.90
    assert f1["loop"] >= 0.70
