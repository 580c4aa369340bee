"""Domain warnings: silent on volumes like the training ones, and each difference named with both ranges."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError
from tomoforge.segmentation.dataset import _summary
from tomoforge.segmentation.domain import domain_warnings
from tomoforge.segmentation.fingerprint import volume_fingerprint
from tomoforge.segmentation.model import write_model

VOXEL = 2.5e-6  # [m]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder with a true fingerprint; its network is not looked at."""
    folder = tmp_path_factory.mktemp("model")
    prints = [volume_fingerprint(phantom(seed, 40)[0], VOXEL) for seed in range(4)]
    write_model(
        folder,
        weights=b"",
        plans={},
        dataset={},
        curve="",
        record={
            "class_names": {"background": 0, "crystal": 1},
            "configuration": "2d",
            "voxel_size": VOXEL,
            "fingerprint": _summary([SimpleNamespace(fingerprint=p) for p in prints]),
            "settings": {},
            "extra": {"energy_kev": [4.0, 5.0]},
            "software": {},
        },
    )
    return folder


@pytest.mark.parametrize("seed", range(10, 16))
def test_domain_warnings__empty_for_a_volume_like_the_training_ones(model, seed):
    assert domain_warnings(model, phantom(seed, 40)[0], VOXEL, energy_kev=4.5) == []


def test_domain_warnings__names_grey_values_of_another_energy(model):
    # A third of µ, as at 1.44 times the energy.
    found = domain_warnings(model, phantom(10, 40)[0] / 3, VOXEL)
    assert any(w.startswith("The 99.5 % percentile of µ is") and "training volumes had" in w for w in found)


def test_domain_warnings__names_noise(model):
    (found,) = [w for w in domain_warnings(model, phantom(10, 40, noise=300)[0], VOXEL) if "noise" in w]
    assert "The noise is 30" in found or "The noise is 29" in found or "The noise is 31" in found


def test_domain_warnings__names_voxel_size_and_energy(model):
    found = domain_warnings(model, phantom(10, 40)[0], 2 * VOXEL, energy_kev=12.0)
    assert found == [
        "The voxel size is 5 µm; the training volumes had 2.5 to 2.5 µm. Slices are resampled to the "
        "training's pixel size.",
        "The energy is 12 keV; the training volumes had 4 to 5 keV.",
    ]


def test_domain_warnings__refuses_what_cannot_be_compared(model):
    volume = phantom(10, 16)[0]
    with pytest.raises(InputError, match="energy_kev"):
        domain_warnings(model, volume, VOXEL, energy_kev=0.0)
    volume[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        domain_warnings(model, volume, VOXEL)


def test_volume_fingerprint__noise_of_white_noise_is_its_deviation():
    volume = np.random.default_rng(0).normal(0, 50, (40, 40, 40))
    # The median of 64,000 draws has a relative error of about 0.5 %.
    assert volume_fingerprint(volume, VOXEL).noise == pytest.approx(50, rel=0.02)
