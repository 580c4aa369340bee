"""The named trainings are what they are said to be."""

import pytest

from tomoforge.errors import ConfigError
from tomoforge.segmentation.presets import preset
from tomoforge.segmentation.settings import TrainingSettings


def test_preset__crystalseg_is_the_published_recipe():
    settings = preset("crystalseg")
    assert settings.batch_size == 3
    assert (settings.optimizer, settings.learning_rate, settings.weight_decay) == ("sgd", 0.01, 3e-5)
    assert (settings.epochs, settings.iterations_per_epoch) == (1000, 250)
    assert settings.augmentation == "none"
    # What is not published is nnU-Net's choice.
    assert settings.patch_size is settings.features is settings.stages is settings.normalisation is None


def test_preset__nightly_leaves_the_network_to_the_champion():
    settings = preset("nightly")
    assert settings.patch_size is settings.features is settings.stages is None
    assert settings.batch_size is settings.normalisation is None
    assert settings.learning_rate < preset("crystalseg").learning_rate


@pytest.mark.parametrize("name", ["crystalseg", "nightly", "quick"])
@pytest.mark.parametrize("configuration", ["2d", "3d_lowres", "3d_fullres"])
def test_preset__comes_in_each_configuration_and_through_json(name, configuration):
    settings = preset(name, configuration=configuration, seed=7)
    assert settings.configuration == configuration
    assert settings.seed == 7
    assert TrainingSettings.from_dict(settings.to_dict()) == settings


def test_preset__single_settings_can_be_changed():
    assert preset("quick", epochs=3).epochs == 3


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [(("slow",), {}, "crystalseg, nightly, quick"), (("quick",), {"epoch": 3}, "epoch")],
)
def test_preset__refuses_unknown_names(arguments, changes, message):
    with pytest.raises(ConfigError, match=message):
        preset(*arguments, **changes)


def test_sgd_recipe__is_what_nnunet_makes_of_it(tmp_path, monkeypatch):
    """Nesterov momentum 0.99, Dice + cross entropy over several depths, power 0.9: read off nnU-Net's own trainer."""
    network = _network_module()
    torch = pytest.importorskip("torch")

    class Probe(network.ResumableTrainer):
        def __init__(self):
            self.settings = preset("crystalseg")
            self.initial_lr, self.weight_decay = self.settings.learning_rate, self.settings.weight_decay
            self.num_epochs = self.settings.epochs
            self.network = torch.nn.Linear(2, 2)

    optimizer, schedule = Probe().configure_optimizers()
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["nesterov"]) == (0.01, 0.99, True)
    assert group["weight_decay"] == 3e-5
    schedule.step(500)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 0.5**0.9)


def _network_module():
    pytest.importorskip("nnunetv2", reason="the train extra is not installed")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, as they are imported
        from tomoforge.segmentation import network
    return network
