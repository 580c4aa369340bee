"""What a training epoch costs: ours against nnU-Net's own trainer, on the same data and plans, in one run.

    python benchmarks/segmentation.py [2d|3d_fullres] [epochs] [iterations]

Four phantoms of 128³ voxels; nnU-Net's augmentation, SGD and deep supervision on both sides; the network of the preset
``quick``, since nnU-Net's own would take hours here. nnU-Net preprocesses into its own compressed files and trains by
its own class as ``nnUNetv2_train`` does, once in a single process as ours does, once with a loading process a core, its
default. The sides take turns, one process each and a thread each, twice round; the first epoch of each turn, which
warms up, is left out. Seconds are medians over epochs; CPU-s count the loaders too and are what to compare on a busy
machine.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tomoforge.segmentation.dataset import DATASET_ID, DATASET_NAME, TrainingCase, write_dataset
from tomoforge.segmentation.presets import preset
from tomoforge.segmentation.settings import Configuration, TrainingSettings
from tomoforge.segmentation.trainer import choose_split
from tomoforge.storage import write_json_atomic

VOXEL = 2.5e-6  # [m]
SIZE = 128
CASES = 4
ROUNDS = 2
PLANS = "nnUNetPlans"
SIDES = {"ours": "0", "nnU-Net, one process": "0", "nnU-Net, loaders": str(os.cpu_count() or 1)}


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--one"]:
        side, folder, settings = arguments[1], Path(arguments[2]), json.loads(arguments[3])
        print(json.dumps(measure(side, folder, TrainingSettings.from_dict(settings))))
        return
    configuration: Configuration = "3d_fullres" if arguments[:1] == ["3d_fullres"] else "2d"
    epochs, iterations = (int(value) for value in (arguments[1:3] or ("4", "10")))
    settings = preset(
        "quick",
        configuration=configuration,
        epochs=epochs,
        iterations_per_epoch=iterations,
        validation_iterations=1,
        optimizer="sgd",
        learning_rate=1e-2,
        augmentation="full",
    )
    with tempfile.TemporaryDirectory(prefix="tomoforge-bench-") as name:
        folder = Path(name)
        write_phantoms(folder)
        in_process("prepare", folder, settings)
        table(folder, settings)


def table(folder: Path, settings: TrainingSettings) -> None:
    print(
        f"{settings.configuration}, patch {settings.patch_size}, batch {settings.batch_size}, "
        f"{settings.iterations_per_epoch} iterations and {settings.validation_iterations} of validation an epoch"
    )
    walls: dict[str, list[float]] = {side: [] for side in SIDES}
    cpus: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(ROUNDS):
        for side in SIDES:
            found = in_process(side, folder, settings)
            walls[side] += found["wall"][1:]
            cpus[side] += found["cpu"][1:]
    print(f"{'':22}{'s an epoch':>12}{'CPU-s':>9}{'to ours':>9}")
    reference = statistics.median(cpus["ours"])
    for side in SIDES:
        wall, cpu = statistics.median(walls[side]), statistics.median(cpus[side])
        print(f"{side:22}{wall:12.2f}{cpu:9.2f}{cpu / reference:9.2f}")


def write_phantoms(folder: Path) -> None:
    from tests.library.segmentation.phantom import phantom
    from tomoforge.volumes import write_labels, write_volume

    cases = []
    for seed in range(CASES):
        volume, labels = phantom(seed, SIZE)
        write_volume(folder / f"v{seed}.zarr", volume, VOXEL)
        write_labels(folder / f"l{seed}.zarr", labels, VOXEL)
        cases.append(TrainingCase(f"c{seed}", folder / f"v{seed}.zarr", folder / f"l{seed}.zarr"))
    write_dataset(folder / "raw", cases, copies=True)  # nnU-Net's own commands know no OME-Zarr


def in_process(side: str, folder: Path, settings: TrainingSettings) -> dict[str, list[float]]:
    """``measure`` in a process of its own, with the environment of our worker."""
    from tomoforge.segmentation.jobs import worker_environment

    work = folder / ("theirs" if side.startswith("nnU-Net") else "ours")
    environment = {
        **os.environ,
        **worker_environment(1),
        "nnUNet_raw": str(folder / "raw"),
        "nnUNet_preprocessed": str(work / "preprocessed"),
        "nnUNet_results": str(work / "results"),
        "nnUNet_n_proc_DA": SIDES.get(side, "0"),
    }
    command = [sys.executable, __file__, "--one", side, str(folder), json.dumps(settings.to_dict())]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(side: str, folder: Path, settings: TrainingSettings) -> dict[str, list[float]]:
    """Wall and CPU seconds of each epoch."""
    warnings.simplefilter("ignore")  # of the libraries
    import torch

    torch.set_num_threads(1)
    if side == "prepare":
        prepare_both(folder, settings)
        return {}
    clock = Clock()
    (ours if side == "ours" else theirs)(folder, settings, clock.tick)
    return {"wall": clock.wall, "cpu": clock.cpu}


class Clock:
    """Wall and CPU seconds between ticks, of this process and of its children while they run."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self._last = (time.perf_counter(), cpu_seconds())

    def tick(self) -> None:
        """An epoch has ended."""
        now = (time.perf_counter(), cpu_seconds())
        self.wall.append(now[0] - self._last[0])
        self.cpu.append(now[1] - self._last[1])
        self._last = now


def cpu_seconds() -> float:
    """Of this process and of its running children, whom ``os.times`` counts only once they have ended."""
    total = 0.0
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for process in (str(os.getpid()), *children):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def prepare_both(folder: Path, settings: TrainingSettings) -> None:
    """Our preparation, and nnU-Net's own of the same plans."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset

    from tomoforge.segmentation.planning import prepare

    plans = prepare(folder / "raw", folder / "ours", settings)
    split = [choose_split(folder / "raw", 0)]
    write_json_atomic(folder / "ours" / "preprocessed" / DATASET_NAME / "splits_final.json", split)
    theirs = folder / "theirs" / "preprocessed" / DATASET_NAME
    for name in ("dataset.json", "dataset_fingerprint.json", "splits_final.json"):
        source = folder / "ours" / "preprocessed" / DATASET_NAME / name
        write_json_atomic(theirs / name, json.loads(source.read_text()))
    write_json_atomic(theirs / f"{PLANS}.json", plans)
    # nnU-Net has read its folders from the environment already: this process writes into ours.
    from nnunetv2.preprocessing.preprocessors import default_preprocessor

    default_preprocessor.nnUNet_preprocessed = str(theirs.parent)
    preprocess_dataset(DATASET_ID, PLANS, (settings.configuration,), (1,))


def ours(folder: Path, settings: TrainingSettings, tick: Callable[[], None]) -> None:
    from tomoforge.segmentation.network import make_trainer

    prepared = folder / "ours" / "preprocessed" / DATASET_NAME
    plans, dataset = (json.loads((prepared / name).read_text()) for name in ("prepared.json", "dataset.json"))
    with tempfile.TemporaryDirectory() as work:
        trainer = make_trainer(plans, dataset, settings, Path(work), lambda record, seconds: tick())
        trainer.run_training()


def theirs(folder: Path, settings: TrainingSettings, tick: Callable[[], None]) -> None:
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class Timed(nnUNetTrainer):
        def on_epoch_end(self) -> None:
            super().on_epoch_end()
            tick()

    prepared = folder / "theirs" / "preprocessed" / DATASET_NAME
    names = (f"{PLANS}.json", "dataset.json")
    plans, dataset = (json.loads((prepared / name).read_text()) for name in names)
    plans["continue_training"] = False
    trainer: Any = Timed(plans, settings.configuration, 0, dataset, torch.device("cpu"))
    trainer.num_epochs = settings.epochs
    trainer.num_iterations_per_epoch = settings.iterations_per_epoch
    trainer.num_val_iterations_per_epoch = settings.validation_iterations
    trainer.oversample_foreground_percent = settings.foreground_fraction
    trainer.run_training()


if __name__ == "__main__":
    main(sys.argv[1:])
