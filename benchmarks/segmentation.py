"""What a training epoch costs: ours against nnU-Net's own command, on the same data and plans, in one run.

    python benchmarks/segmentation.py [--configuration 2d|3d_fullres] [--batch N] [--epochs N] [--rounds N] [--quick]

Ours is ``train_segmenter`` with its worker, theirs ``nnUNetv2_preprocess`` and ``nnUNetv2_train`` as they are
installed; both train nnU-Net's default recipe (SGD, its augmentation, deep supervision, 250 iterations and 50 of
validation an epoch, the learning rate of 1000 epochs) on the network of the preset ``quick``, since nnU-Net's own would
take hours here. Four phantoms of 128³ voxels, three to train. Each side runs once with batches made by the training
process and once by processes of their own: for nnU-Net as many as it takes by default, for ours as many as it has
cores. The sides take turns, forwards and backwards; a turn is ended after some epochs, of which the first, which
prepares and warms up, is not counted.

An epoch lasts from one report of an epoch's end to the next, checkpoints and pictures of progress included; "its log"
is what nnU-Net itself prints, without those. CPU-s are those of all processes of a side and are what to compare on a
busy machine. "ratio": CPU-s over those of nnU-Net's command with the same loaders. Loss and Dice on validation patches
are of the last epoch of a turn, the mean of turns.

On a CPU nnU-Net's command computes on a thread a core, which on a small machine whose cores others use too costs more
than it gains. Here both sides compute on one thread: the command's Python is told of one core. (OMP_THREAD_LIMIT=1 is
no way to do so: the command still asks for two threads, and its backward passes then crawl.)
``--quick`` shows that the script runs: one round, batches of two.
"""

import argparse
import dataclasses
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.library.segmentation.phantom import phantom
from tomoforge.process import run_command
from tomoforge.segmentation.dataset import DATASET_ID, DATASET_NAME, TrainingCase, write_dataset
from tomoforge.segmentation.jobs import worker_environment
from tomoforge.segmentation.model import PLANS
from tomoforge.segmentation.presets import preset
from tomoforge.segmentation.settings import TrainingSettings
from tomoforge.segmentation.trainer import TrainingProgress, train_segmenter
from tomoforge.volumes import LABEL_NAMES, write_labels, write_volume

VOXEL = 2.5e-6  # [m]
SIZE = 128
CASES = 4
HOUR_S = 3600.0
CORES = os.cpu_count() or 1
CLASSES = [name for name, label in LABEL_NAMES.items() if label]
OURS, THEIRS = "ours", "nnU-Net's command"
SIDES = ((OURS, False), (THEIRS, False), (OURS, True), (THEIRS, True))  # with processes that make batches
ONE_CORE = "import multiprocessing\nmultiprocessing.cpu_count = lambda: 1\n"
NUMBER = re.compile(r"nan|-?\d+\.\d+")


class Enough(Exception):
    """The epochs wanted are over: the side is ended."""


@dataclasses.dataclass
class Turn:
    """What one side did: seconds of each epoch but the first, and how well the last one ended."""

    epochs: int
    wall: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)
    log: list[float] = dataclasses.field(default_factory=list)
    loss: float = float("nan")
    dice: list[float] = dataclasses.field(default_factory=list)
    _last: tuple[float, float] | None = None
    _ended: int = 0

    def end_epoch(self) -> None:
        """An epoch has ended. Raises Enough after the last one."""
        now = (time.perf_counter(), running_cpu_seconds())
        if self._last is not None:
            self.wall.append(now[0] - self._last[0])
            self.cpu.append(now[1] - self._last[1])
        self._last = now
        self._ended += 1
        if self._ended == self.epochs:
            raise Enough


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configuration", default="2d", choices=["2d", "3d_fullres"])
    parser.add_argument("--batch", type=int, help="patches; 4 of slices, 2 of blocks")
    parser.add_argument("--epochs", type=int, default=2, help="a turn, the first not counted")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.epochs < 2:
        parser.error("--epochs must be at least 2: the first is not counted")
    batch = options.batch or (4 if options.configuration == "2d" else 2)
    if options.quick:
        batch, options.rounds = 2, 1
    settings = default_recipe(options.configuration, batch)
    with tempfile.TemporaryDirectory(prefix="tomoforge-bench-") as name:
        folder = Path(name)
        write_phantoms(folder / "raw")
        preprocess_theirs(folder, settings)
        print(
            f"{settings.configuration}, patch {settings.patch_size}, batch {settings.batch_size}, "
            f"{settings.iterations_per_epoch} iterations and {settings.validation_iterations} of validation an epoch; "
            f"{options.rounds} turns a side, {options.epochs - 1} epochs counted of each",
            flush=True,
        )
        turns: dict[tuple[str, bool], list[Turn]] = {side: [] for side in SIDES}
        for number in range(options.rounds):
            for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                take = ours if side[0] == OURS else theirs
                turn = take(folder, settings, loaders=side[1], epochs=options.epochs)
                turns[side].append(turn)
                cpu, dice = (" ".join(f"{value:.2f}" for value in values) for values in (turn.cpu, turn.dice))
                loaders = "with" if side[1] else "no"
                print(
                    f"  {side[0]}, {loaders} loaders: CPU-s {cpu}; loss {turn.loss:.3f}, Dice {dice}",
                    flush=True,
                )
    print_table(turns)


def default_recipe(configuration: str, batch: int) -> TrainingSettings:
    """nnU-Net's defaults, which its command does not let anybody change, on the network of ``quick``."""
    return preset(
        "quick",
        configuration=configuration,  # type: ignore[arg-type]
        epochs=1000,
        iterations_per_epoch=250,
        validation_iterations=50,
        batch_size=batch,
        normalisation="instance",
        optimizer="sgd",
        learning_rate=1e-2,
        weight_decay=3e-5,
        foreground_fraction=0.33,
        augmentation="full",
    )


def write_phantoms(raw: Path) -> None:
    cases = []
    for seed in range(CASES):
        volume, labels = phantom(seed, SIZE)
        paths = raw.with_name(f"v{seed}.zarr"), raw.with_name(f"l{seed}.zarr")
        write_volume(paths[0], volume, VOXEL)
        write_labels(paths[1], labels, VOXEL)
        cases.append(TrainingCase(f"c{seed}", *paths))
    write_dataset(raw, cases, copies=True)  # nnU-Net's own commands know no OME-Zarr


def preprocess_theirs(folder: Path, settings: TrainingSettings) -> None:
    """Our plans, from a training of one batch, and nnU-Net's own preprocessing by them."""
    once = dataclasses.replace(settings, epochs=1, iterations_per_epoch=1, validation_iterations=1)
    train_segmenter(folder / "raw", folder / "plan", folder / "plan-model", once, timeout_s=HOUR_S)
    made = folder / "plan" / "preprocessed" / DATASET_NAME
    target = folder / "theirs" / "preprocessed" / DATASET_NAME
    target.mkdir(parents=True)
    for name in ("dataset.json", "dataset_fingerprint.json", "splits_final.json"):
        shutil.copy(made / name, target / name)
    shutil.copy(folder / "plan-model" / PLANS, target / "nnUNetPlans.json")
    (folder / "one-core").mkdir()
    (folder / "one-core" / "sitecustomize.py").write_text(ONE_CORE)
    configuration = ["-c", settings.configuration, "-np", "1"]
    command = [installed("nnUNetv2_preprocess"), "-d", str(DATASET_ID), *configuration]
    environment = their_environment(folder, loaders=False)
    subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True)


def installed(command: str) -> str:
    """nnU-Net's command beside this Python."""
    return str(Path(sys.executable).parent / command)


def their_environment(folder: Path, *, loaders: bool) -> Mapping[str, str]:
    environment = {
        **worker_environment(1),
        "nnUNet_raw": str(folder / "raw"),
        "nnUNet_preprocessed": str(folder / "theirs" / "preprocessed"),
        "nnUNet_results": str(folder / "theirs" / "results"),
        "PYTHONPATH": str(folder / "one-core"),
        "PYTHONUNBUFFERED": "1",  # each line when it is printed
    }
    # nnU-Net's default is 12 processes, at most one a core.
    return environment if loaders else {**environment, "nnUNet_n_proc_DA": "0"}


def ours(folder: Path, settings: TrainingSettings, *, loaders: bool, epochs: int) -> Turn:
    turn = Turn(epochs)

    def hear(progress: TrainingProgress) -> None:
        turn.loss = progress.training_loss
        turn.dice = [float("nan") if d is None else d for d in map(progress.pseudo_dice.get, CLASSES)]
        turn.end_epoch()

    chosen = dataclasses.replace(settings, loaders=CORES if loaders else 0, deterministic=not loaders)
    # A new folder: in the last one it would go on where that ended.
    with tempfile.TemporaryDirectory(dir=folder) as work:
        try:
            train_segmenter(
                folder / "raw", work, Path(work) / "model", chosen, timeout_s=HOUR_S, progress=hear
            )
        except Enough:
            pass
    return turn


def theirs(folder: Path, settings: TrainingSettings, *, loaders: bool, epochs: int) -> Turn:
    turn = Turn(epochs)

    def hear(line: str) -> None:
        _, _, text = line.partition(": ")  # behind the date
        if text.startswith("train_loss"):
            turn.loss = float(text.split()[1])
        elif text.startswith("Pseudo dice"):
            turn.dice = [float(value) for value in NUMBER.findall(text)]
        elif text.startswith("Epoch time"):
            turn.log.append(float(text.split()[2]))
            turn.end_epoch()

    command = [installed("nnUNetv2_train"), str(DATASET_ID), settings.configuration, "0", "-device", "cpu"]
    environment = their_environment(folder, loaders=loaders)
    try:
        run_command(command, name=THEIRS, timeout_s=HOUR_S, environment=environment, on_line=hear)
    except Enough:
        pass
    turn.log = turn.log[1:]
    return turn


def running_cpu_seconds() -> float:
    """Of all processes that come from this one and still run, and of theirs that have ended."""
    waiting, ticks = children(os.getpid()), 0
    while waiting:
        process = waiting.pop()
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            waiting += children(process)
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile: its parent counts it
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def children(process: int) -> list[int]:
    found = []
    for thread in Path(f"/proc/{process}/task").iterdir():
        found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def print_table(turns: Mapping[tuple[str, bool], list[Turn]]) -> None:
    names = "".join(f"{name:>9}" for name in CLASSES)
    print(
        f"\n{'':20}{'loaders':>9}{'s an epoch':>12}{'its log':>9}{'CPU-s':>8}{'range':>14}{'ratio':>7}"
        f"{'loss':>9}{names}"
    )
    for side, found in turns.items():
        cpu = [value for turn in found for value in turn.cpu]
        reference = [value for turn in turns[THEIRS, side[1]] for value in turn.cpu]
        wall = statistics.median(value for turn in found for value in turn.wall)
        log = [value for turn in found for value in turn.log]
        dice = (statistics.mean(values) for values in zip(*(turn.dice for turn in found), strict=True))
        print(
            f"{side[0]:20}{'yes' if side[1] else 'no':>9}{wall:12.1f}"
            f"{f'{statistics.median(log):.1f}' if log else '':>9}{statistics.median(cpu):8.1f}"
            f"{f'{min(cpu):.1f} … {max(cpu):.1f}':>14}{statistics.median(cpu) / statistics.median(reference):7.2f}"
            f"{statistics.mean(turn.loss for turn in found):9.3f}{''.join(f'{value:9.3f}' for value in dice)}"
        )


if __name__ == "__main__":
    main()
