"""What can be chosen about a training."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from tomoforge.errors import ConfigError

Configuration = Literal["2d", "3d_lowres", "3d_fullres"]
Optimizer = Literal["adamw", "sgd"]
Augmentation = Literal["none", "mirror", "turn", "full"]
Normalisation = Literal["instance", "batch"]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of an nnU-Net training; None leaves the choice to nnU-Net's planner.

    configuration : "2d" slices; "3d_fullres" blocks; "3d_lowres" blocks of the coarsened volume
    epochs : the learning rate falls as (1 − epoch/epochs)^0.9, so a longer training is another training
    iterations_per_epoch, validation_iterations : batches an epoch
    batch_size : patches a batch
    patch_size : (y, x) or (z, y, x) voxels, as the configuration has axes, divisible by 2^(stages − 1)
    features : channels of the first stage, doubled at each stage
    stages : resolutions of the network
    normalisation : inside the network; "instance", nnU-Net's; "batch" keeps the absolute grey values, for small
        networks and volumes of one instrument
    optimizer : "adamw", or nnU-Net's "sgd" (Nesterov momentum 0.99; slow to start)
    foreground_fraction : share of a batch centred on a voxel of a random foreground class
    augmentation : "none"; "mirror" in each axis; "turn", quarter turns as well; "full", nnU-Net's own set
    seed : of every random draw
    device : "cpu", or "cuda" for the GPU that the process sees first
    deterministic : the same bytes from the same training. False lets a GPU choose its fastest kernels
    loaders : processes that cut and augment batches. 0, the training's own, is the only number that is
        deterministic
    threads : of torch. Sums run in another order with another number, so it belongs to the result and
        never follows the machine.
    """

    configuration: Configuration = "2d"
    epochs: int = 200
    iterations_per_epoch: int = 250
    validation_iterations: int = 25
    batch_size: int | None = None
    patch_size: tuple[int, ...] | None = None
    features: int | None = None
    stages: int | None = None
    normalisation: Normalisation | None = None
    optimizer: Optimizer = "sgd"
    learning_rate: float = 1e-2
    weight_decay: float = 3e-5
    foreground_fraction: float = 1 / 3
    augmentation: Augmentation = "full"
    seed: int = 0
    device: Device = "cpu"
    deterministic: bool = True
    loaders: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "iterations_per_epoch", "validation_iterations", "threads"):
            _check_count(name, getattr(self, name), 1)
        for name, least in (("batch_size", 1), ("features", 1), ("stages", 2)):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name), least)
        _check_count("seed", self.seed, 0)
        _check_count("loaders", self.loaders, 0)
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigError(f"learning_rate must be positive, got {self.learning_rate!r}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ConfigError(f"weight_decay must be zero or positive, got {self.weight_decay!r}")
        if not 0 <= self.foreground_fraction <= 1:
            raise ConfigError(f"foreground_fraction must lie in 0 … 1, got {self.foreground_fraction!r}")
        _check_choice("configuration", self.configuration, get_args(Configuration))
        _check_choice("optimizer", self.optimizer, get_args(Optimizer))
        _check_choice("augmentation", self.augmentation, get_args(Augmentation))
        _check_choice("device", self.device, get_args(Device))
        if self.normalisation is not None:
            _check_choice("normalisation", self.normalisation, get_args(Normalisation))
        if self.deterministic and self.loaders:
            raise ConfigError(
                f"loaders must be 0 for a deterministic training, got {self.loaders}; several processes deliver "
                "their batches in any order: set deterministic=False"
            )
        if self.patch_size is not None:
            self._check_patch(self.patch_size)

    @property
    def axes(self) -> int:
        """Axes of a patch: 2 or 3."""
        return 2 if self.configuration == "2d" else 3

    def _check_patch(self, patch_size: tuple[int, ...]) -> None:
        patch = tuple(patch_size)
        if len(patch) != self.axes:
            axes = "two sizes (y, x)" if self.axes == 2 else "three sizes (z, y, x)"
            raise ConfigError(f"patch_size must be {axes} for {self.configuration}, got {patch_size!r}")
        factor = 2 ** (self.stages - 1) if self.stages is not None else 1
        for size in patch:
            _check_count("patch_size", size, 8)
            # The deepest stage keeps at least 2 pixels: instance normalisation of one is zero.
            if size % factor or size < 2 * factor:
                raise ConfigError(
                    f"patch_size must be a multiple of {factor} of at least {2 * factor} for {self.stages} stages, "
                    f"got {patch}; take fewer stages or another patch"
                )
        object.__setattr__(self, "patch_size", patch)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        values = asdict(self)
        values["patch_size"] = list(self.patch_size) if self.patch_size is not None else None
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The settings back from ``to_dict``. Raises ConfigError for an unknown name."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ConfigError(
                f"training settings have no {unknown}; known are {sorted(cls.__dataclass_fields__)}"
            )
        patch = values.get("patch_size")
        return cls(**{**values, "patch_size": tuple(patch) if patch is not None else None})


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be an integer of at least {least}, got {value!r}")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
