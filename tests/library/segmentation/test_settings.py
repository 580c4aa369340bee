"""Training settings refuse what cannot be trained."""

import dataclasses

import pytest

from tomoforge.errors import ConfigError
from tomoforge.segmentation.presets import preset
from tomoforge.segmentation.settings import TrainingSettings


def test_training_settings__survive_the_way_through_json():
    settings = preset("quick", seed=7)
    assert TrainingSettings.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"threads": True}, "threads"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"foreground_fraction": 1.5}, "foreground_fraction"),
        ({"optimizer": "adam"}, "adamw, sgd"),
        ({"augmentation": "rotate"}, "none, mirror, turn, full"),
        ({"patch_size": (100, 128), "stages": 5}, "multiple of 16"),
        ({"patch_size": (16, 16), "stages": 5}, "at least 32"),
        ({"seed": -1}, "seed"),
        ({"configuration": "4d"}, "2d, 3d_lowres, 3d_fullres"),
        ({"configuration": "3d_fullres"}, r"three sizes \(z, y, x\) for 3d_fullres"),
        ({"patch_size": (64, 64, 64)}, r"two sizes \(y, x\) for 2d"),
        ({"normalisation": "layer"}, "instance, batch"),
        ({"device": "tpu"}, "cpu, cuda"),
        ({"loaders": 2}, "deterministic=False"),
    ],
)
def test_training_settings__refuse_values_out_of_bounds(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(preset("quick"), **change)


def test_training_settings__refuse_an_unknown_name():
    with pytest.raises(ConfigError, match="learning_rat"):
        TrainingSettings.from_dict({"learning_rat": 0.1})
