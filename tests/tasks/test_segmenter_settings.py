"""What people write about a training becomes the library's settings."""

import pytest

from tasks.segmenter import training_settings
from tomoforge.config import TrainingSchedule
from tomoforge.errors import ConfigError
from tomoforge.segmentation.presets import preset


def test_training_settings__what_is_not_given_is_the_presets():
    assert training_settings(TrainingSchedule(), 3) == preset("quick", seed=3)
    assert training_settings(TrainingSchedule(preset="crystalseg"), 0) == preset("crystalseg")


def test_training_settings__what_is_given_counts():
    schedule = TrainingSchedule(
        epochs=3, iterations=4, batch_size=5, patch=96, features=6, stages=4, learning_rate=1e-3, threads=2
    )
    expected = preset(
        "quick",
        epochs=3,
        iterations_per_epoch=4,
        batch_size=5,
        patch_size=(96, 96),
        features=6,
        stages=4,
        learning_rate=1e-3,
        threads=2,
    )
    assert training_settings(schedule, 0) == expected


def test_training_settings__a_patch_has_the_axes_of_its_configuration():
    settings = training_settings(TrainingSchedule(configuration="3d_fullres", patch=32), 0)
    assert settings.patch_size == (32, 32, 32)


def test_training_settings__what_does_not_fit_is_named():
    with pytest.raises(ConfigError, match="multiple of 128"):
        training_settings(TrainingSchedule(stages=8), 0)
