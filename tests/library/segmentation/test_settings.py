"""Training settings refuse what cannot be trained."""

import dataclasses

import pytest

from tomoforge.errors import ConfigError
from tomoforge.segmentation.settings import TrainingSettings


def test_training_settings__survive_the_way_through_json():
    settings = TrainingSettings.quick(seed=7)
    assert TrainingSettings.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"threads": True}, "threads"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"foreground_fraction": 1.5}, "foreground_fraction"),
        ({"optimizer": "adam"}, "adamw, sgd"),
        ({"augmentation": "rotate"}, "none, mirror, full"),
        ({"patch_size": (100, 128), "stages": 5}, "multiple of 16"),
        ({"patch_size": (16, 16), "stages": 5}, "at least 32"),
        ({"seed": -1}, "seed"),
    ],
)
def test_training_settings__refuse_values_out_of_bounds(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TrainingSettings.quick(), **change)


def test_training_settings__refuse_an_unknown_name():
    with pytest.raises(ConfigError, match="learning_rat"):
        TrainingSettings.from_dict({"learning_rat": 0.1})
