"""nnU-Net's trainer made deterministic and resumable to the bit. Imported by the worker only."""

import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from tomoforge.errors import ConfigError, StageError
from tomoforge.seeds import component_seed
from tomoforge.segmentation.planning import MappedCases
from tomoforge.segmentation.settings import TrainingSettings
from tomoforge.segmentation.weights import load_checkpoint, load_weights, save_checkpoint

CHECKPOINT = "checkpoint.safetensors"


def seed_everything(seed: int, component: str, *indices: int) -> None:
    """Seed Python's, NumPy's and torch's global generators, which nnU-Net draws from."""
    value = component_seed(seed, component, *indices)
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def make_trainer(
    plans: dict[str, Any],
    dataset: dict[str, Any],
    settings: TrainingSettings,
    folder: Path,
    on_epoch: Callable[[dict[str, Any], float], None],
    *,
    weights: bytes | None = None,
) -> "ResumableTrainer":
    """A trainer with its network made, taken up from the checkpoint in ``folder`` if there is one.

    on_epoch : called after each epoch with its record and the seconds it took.
    weights : of a whole network, heads included, to start from. (nnU-Net's own ``-pretrained_weights`` leaves the
        heads out.)
    """
    trainer = ResumableTrainer(
        {**plans, "continue_training": False},
        settings.configuration,
        0,
        dataset,
        torch.device(settings.device),
    )
    trainer.configure(settings, folder / CHECKPOINT, on_epoch)
    seed_everything(settings.seed, "initialise")
    trainer.initialize()
    trainer.dataset_class = MappedCases
    if weights is not None:
        load_weights(trainer.network, weights)
    trainer.resume()
    return trainer


class ResumableTrainer(nnUNetTrainer):
    """Every epoch starts from seeds of its own and ends with a checkpoint; in between nothing is kept.

    A training killed at any moment and started again therefore repeats the unfinished epoch alone, with
    the same draws. (The constructor's parameters must be those of nnUNetTrainer, which looks them up by
    name in its own frame: hence ``configure``.)
    """

    def configure(
        self,
        settings: TrainingSettings,
        checkpoint: Path,
        on_epoch: Callable[[dict[str, Any], float], None],
    ) -> None:
        """Take over the settings; to be called before ``initialize``."""
        self.settings = settings
        self.checkpoint = checkpoint
        self.on_epoch = on_epoch
        self.history: list[dict[str, Any]] = []
        self.num_epochs = settings.epochs
        self.num_iterations_per_epoch = settings.iterations_per_epoch
        self.num_val_iterations_per_epoch = settings.validation_iterations
        self.initial_lr = settings.learning_rate
        self.weight_decay = settings.weight_decay
        self.oversample_foreground_percent = settings.foreground_fraction

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """AdamW, or nnU-Net's SGD, with the polynomial schedule."""
        if self.settings.optimizer == "sgd":
            return super().configure_optimizers()
        optimizer = torch.optim.AdamW(
            self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay
        )
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, bool, Any, Any]:
        """nnU-Net's augmentation ranges; the larger initial patch only where something rotates."""
        rotation, dummy_2d, initial, mirror = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if self.settings.augmentation == "full":
            return rotation, dummy_2d, initial, mirror
        return rotation, dummy_2d, self.configuration_manager.patch_size, mirror

    def get_training_transforms(
        self,
        patch_size: Any,
        rotation_for_DA: Any,
        deep_supervision_scales: Any,
        mirror_axes: Any,
        do_dummy_2d_data_aug: bool,
        use_mask_for_norm: Any = None,
        is_cascaded: bool = False,
        foreground_labels: Any = None,
        regions: Any = None,
        ignore_label: int | None = None,
    ) -> ComposeTransforms:
        """The chosen augmentation followed by what the loss needs."""
        if self.settings.augmentation == "full":
            transforms = nnUNetTrainer.get_training_transforms(
                patch_size, rotation_for_DA, deep_supervision_scales, mirror_axes, do_dummy_2d_data_aug,
                use_mask_for_norm, is_cascaded, foreground_labels, regions, ignore_label,
            )  # fmt: skip
            return _without_benchmarks(transforms)
        plain = nnUNetTrainer.get_validation_transforms(
            deep_supervision_scales, is_cascaded, foreground_labels, regions, ignore_label
        )
        if self.settings.augmentation == "none":
            return plain
        moves = [MirrorTransform(allowed_axes=mirror_axes)]
        if self.settings.augmentation == "turn":
            if len(set(patch_size)) != 1:
                raise ConfigError(
                    f"augmentation 'turn' needs a patch of equal sides, got {tuple(patch_size)}; set patch_size, or "
                    "take augmentation 'mirror'"
                )
            # With the mirrors one quarter turn reaches every orientation of a slice.
            quarter = Rot90Transform(1, (1,), set(range(len(patch_size))))
            moves.append(RandomTransform(quarter, apply_probability=0.5))
        return ComposeTransforms([*moves, *plain.transforms])

    def on_epoch_start(self) -> None:
        """Start the epoch from seeds of its own."""
        seed_everything(self.settings.seed, "epoch", self.current_epoch)
        self._started = time.monotonic()
        super().on_epoch_start()

    def on_epoch_end(self) -> None:
        """Record the epoch, keep the checkpoint, report. Raises StageError once the loss is not finite."""
        record = self._epoch_record()
        if not math.isfinite(record["training_loss"]):
            raise StageError(
                f"the training loss became {record['training_loss']} in epoch {record['epoch']}; "
                f"lower learning_rate (now {self.initial_lr:g})"
            )
        self.history.append(record)
        self.current_epoch += 1
        self._save()
        self.on_epoch(record, time.monotonic() - self._started)

    def on_train_end(self) -> None:
        """End the loaders' processes, where there are any; the last epoch has left its checkpoint."""
        for loader in (self.dataloader_train, self.dataloader_val):
            if isinstance(loader, NonDetMultiThreadedAugmenter):
                loader._finish()

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one."""
        if not self.checkpoint.is_file():
            return
        state = load_checkpoint(self.checkpoint, self.network, self.optimizer)
        self.current_epoch = int(state["epoch"])
        self.history = list(state["history"])
        if self.grad_scaler is not None and state["scaler"] is not None:
            self.grad_scaler.load_state_dict(state["scaler"])
        for record in self.history:
            self._replay(record)

    def _save(self) -> None:
        # Half precision on a GPU scales its gradients by what it has learnt so far.
        scaler = None if self.grad_scaler is None else self.grad_scaler.state_dict()
        state = {"epoch": self.current_epoch, "history": self.history, "scaler": scaler}
        save_checkpoint(self.checkpoint, self.network, self.optimizer, state)

    def _epoch_record(self) -> dict[str, Any]:
        names = [name for name, label in self.dataset_json["labels"].items() if label]
        labels = [label for label in self.dataset_json["labels"].values() if label]
        dice = self.logger.get_value("dice_per_class_or_region", step=-1)
        by_label = dict(zip(self.label_manager.foreground_labels, dice, strict=True))
        return {
            "epoch": self.current_epoch,
            "training_loss": float(self.logger.get_value("train_losses", step=-1)),
            "validation_loss": float(self.logger.get_value("val_losses", step=-1)),
            "pseudo_dice": {
                name: float(by_label[label]) if np.isfinite(by_label[label]) else None
                for name, label in zip(names, labels, strict=True)
            },
        }

    def _replay(self, record: dict[str, Any]) -> None:
        """nnU-Net's logger wants one value for every epoch that has passed."""
        dice = [math.nan if d is None else d for d in record["pseudo_dice"].values()]
        epoch = record["epoch"]
        self.logger.log("lrs", 0.0, epoch)
        self.logger.log("train_losses", record["training_loss"], epoch)
        self.logger.log("val_losses", record["validation_loss"], epoch)
        self.logger.log("dice_per_class_or_region", dice, epoch)
        self.logger.log("mean_fg_dice", 0.0, epoch)
        self.logger.log("epoch_start_timestamps", 0.0, epoch)
        self.logger.log("epoch_end_timestamps", 0.0, epoch)

    def print_to_log_file(
        self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True
    ) -> None:
        """Print instead of keeping log files with dates in their names; the parent logs what is printed."""
        if also_print_to_console:
            print(*args, flush=True)

    def plot_network_architecture(self) -> None:
        """Not wanted."""

    def _save_debug_information(self) -> None:
        """Not wanted: it records the machine's name."""


def _without_benchmarks(transforms: ComposeTransforms) -> ComposeTransforms:
    """Let the blur choose its method by size, not by timing itself: that made results differ by run."""
    for transform in transforms.transforms:
        inner = getattr(transform, "transform", transform)
        if isinstance(inner, GaussianBlurTransform):
            inner.benchmark = False
    return transforms
