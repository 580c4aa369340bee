"""Trainings with a name: the published recipe, the nightly continuation, the quick one for two cores."""

import dataclasses
from typing import Any, Literal, get_args

from tomoforge.errors import ConfigError
from tomoforge.segmentation.settings import Configuration, TrainingSettings

Preset = Literal["crystalseg", "nightly", "quick"]

# nnU-Net's own hyper-parameters but for the batch and the augmentation. Dice + cross entropy, deep supervision and
# the polynomial schedule of power 0.9 are what nnU-Net does unless told otherwise, and it is not told.
_CRYSTALSEG = TrainingSettings(
    configuration="2d",
    epochs=1000,
    iterations_per_epoch=250,
    validation_iterations=50,
    batch_size=3,
    optimizer="sgd",
    learning_rate=1e-2,
    weight_decay=3e-5,
    foreground_fraction=0.33,
    augmentation="none",
)

# Continues from a champion, whose plans say patch, batch and network: all None here. A tenth of the learning rate
# and of the epochs, since the weights are good already and a night is short.
_NIGHTLY = TrainingSettings(
    configuration="2d",
    epochs=100,
    iterations_per_epoch=250,
    validation_iterations=50,
    optimizer="sgd",
    learning_rate=1e-3,
    weight_decay=3e-5,
    foreground_fraction=0.33,
    augmentation="mirror",
)

# Tried on forged samples with flaws, bubbles and three mounts (benchmarks/results/segmentation-quick.md). Small patches
# and many of them: a batch shows several samples and little air. Batch normalisation: µ is quantitative, and instance
# normalisation forgets it patch by patch (crystal F1 over six unseen samples 0.94 against 0.88). Most patches on the
# foreground, its classes by turns: a thin nylon wire is seldom met otherwise.
_QUICK = TrainingSettings(
    configuration="2d",
    epochs=32,
    iterations_per_epoch=25,
    validation_iterations=2,
    batch_size=16,
    patch_size=(64, 64),
    features=8,
    stages=4,
    normalisation="batch",
    optimizer="adamw",
    learning_rate=4e-3,
    foreground_fraction=0.75,
    augmentation="turn",
)

_PRESETS: dict[str, TrainingSettings] = {"crystalseg": _CRYSTALSEG, "nightly": _NIGHTLY, "quick": _QUICK}

# What ``quick`` means for blocks: as many voxels a batch as cost as long an iteration on a processor.
_QUICK_3D: dict[str, Any] = {"batch_size": 2, "patch_size": (48, 48, 48), "stages": 4}


def preset(name: Preset, *, configuration: Configuration | None = None, **changes: Any) -> TrainingSettings:
    """The settings of a preset, with ``changes`` to single ones of them.

    name : "crystalseg", the published recipe: batch 3, SGD (0.01, Nesterov momentum 0.99), weight decay 3·10⁻⁵,
        Dice + cross entropy, deep supervision, (1 − epoch/epochs)^0.9, 1000 epochs of 250 batches, no augmentation;
        "nightly", to go on from a trained model (``start_from``);
        "quick", minutes on two cores.
    configuration : "2d", "3d_lowres" or "3d_fullres"; each preset is 2D unless told otherwise
    changes : fields of TrainingSettings

    Raises
    ------
    ConfigError
        No such preset or setting, or a value out of bounds.
    """
    if name not in _PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(get_args(Preset))}, got {name!r}")
    settings = _PRESETS[name]
    if configuration is not None and configuration != settings.configuration:
        shape = _QUICK_3D if name == "quick" else {}
        changes = {"configuration": configuration, **shape, **changes}
    unknown = sorted(set(changes) - {field.name for field in dataclasses.fields(TrainingSettings)})
    if unknown:
        raise ConfigError(f"training settings have no {unknown}")
    return dataclasses.replace(settings, **changes)
