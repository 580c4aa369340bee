"""What a prediction costs: seconds and peak memory a volume, from OME-Zarr to OME-Zarr, beside nnU-Net's own predictor.

    python benchmarks/prediction.py [--configuration 2d|3d_fullres] [--depth N] [--mirroring] [--model FOLDER]
        [--theirs-to SIZE] [--quick] [SIZE ...]
    python benchmarks/prediction.py --gpu [--dry]

Volumes of SIZE³ voxels, 32, 128, 256 and 512 unless others are named, at the network's resolution; each in a process of
its own, on a thread of its own. The smallest one tells what starting costs, which the seconds of all rows include. Ours
writes labels and uncertainty. Without a model, one of random weights of the preset ``quick``: speed does not depend on
training. CPU-s are what to compare on a busy machine. Peak memory is the largest resident set of the process that
predicts, pages of shared libraries included; "others" is that of the process that asked. ``--depth`` predicts so many
slices alone: time grows with the slices, memory does not once the slabs are full.

Up to ``--theirs-to``, 256 unless told otherwise, nnU-Net's own ``nnUNetPredictor.predict_single_npy_array`` does the
same with the same weights, from the same file to labels on the disk, the volume whole in memory as it wants it. "same"
is the share of voxels with equal labels: it adds up tiles in half precision, we in single.

``--gpu``: volumes of 512³ and 1024³ on the card, without mirroring, by the network of ``quick`` and by one as wide and
with a patch as large as nnU-Net plans for such slices. "slabs" is the time from the first slab that is done to the
last, extended to all of them: what is left when starting is paid for. "card" is the memory in use on the card as its
driver tells it. The goal at 1024³ is 10 s, the figure published. With ``--dry``, or without a GPU, the same functions
run at a tiny size on the processor, and the figures stay open. ``--quick`` shows that the script runs.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from tomoforge.volumes import SLAB, create_volume, open_level, write_slab

VOXEL = 2.5e-6  # [m]
SIZES = (32, 128, 256, 512)
GPU_SIZES, DRY_SIZE = (512, 1024), 32
NOT_RUN = "not yet run"
OURS, THEIRS = "ours", "nnU-Net"
# Channels of the first stage and stages, each twice as wide as the one before; the patch is a whole slice, as nnU-Net
# plans it up to 1024². Its plans go on with three or four stages of 512 channels, a tenth more work.
AS_PLANNED, DRY_NETWORK = (32, 5), (4, 2)


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--one"]:
        print(json.dumps(measure(*arguments[1:])))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="*", type=int)
    parser.add_argument("--configuration", default="2d", choices=["2d", "3d_fullres"])
    parser.add_argument("--depth", type=int)
    parser.add_argument("--mirroring", action="store_true")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--theirs-to", type=int, default=256)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tomoforge-bench-") as name:
        if options.gpu:
            gpu_table(Path(name), dry=options.dry or not gpu_found())
        else:
            cpu_table(Path(name), options)


def cpu_table(folder: Path, options: argparse.Namespace) -> None:
    model = options.model or random_network(folder / "model", options.configuration, None)
    print(
        f"{'slices x width':>16}{'side':>9}{'s':>9}{'CPU-s':>9}{'peak MiB':>10}{'others MiB':>12}{'same':>10}",
        flush=True,
    )
    for size in options.sizes or ((16, 48) if options.quick else SIZES):
        depth = min(options.depth or size, size)
        volume = folder / f"{size}.ome.zarr"
        write_sample(volume, depth, size)
        results = {side: folder / f"{size}-{side}" for side in (OURS, THEIRS)}
        for side in (OURS, THEIRS) if size <= options.theirs_to else (OURS,):
            found = in_process(side, volume, results[side], model, mirroring=options.mirroring, device="cpu")
            same = "" if side == OURS else f"{equal_share(results[OURS], results[THEIRS]):.6f}"
            print(
                f"{f'{depth} x {size}²':>16}{side:>9}{found['wall']:9.1f}{found['cpu']:9.1f}"
                f"{found['peak_mib']:10.0f}{found['others_mib']:12.0f}{same:>10}",
                flush=True,
            )


def gpu_table(folder: Path, *, dry: bool) -> None:
    def figure(value: float, spec: str) -> str:
        return f"{NOT_RUN:>13}" if dry else f"{value:>13{spec}}"

    if dry:
        print(f"no GPU: {NOT_RUN} (same code at {DRY_SIZE}³ on the processor, to show that it runs)")
    else:
        print(", ".join(driver("name", "driver_version")))
    print(
        f"{'network':>12}{'slices x width':>16}{'s':>13}{'slabs s':>13}{'CPU-s':>13}{'peak MiB':>13}{'card MiB':>13}"
    )
    for size in (DRY_SIZE,) if dry else GPU_SIZES:
        volume = folder / f"{size}.ome.zarr"
        depth = 2 * SLAB if dry else size
        write_sample(volume, depth, size)
        for name, shape in (("quick", None), ("as planned", (size, *(DRY_NETWORK if dry else AS_PLANNED)))):
            model = random_network(folder / f"{name}-{size}", "2d", shape)
            found = in_process(
                OURS, volume, folder / "out", model, mirroring=False, device="cpu" if dry else "cuda"
            )
            figures = (
                figure(found["wall"], ".1f"),
                figure(found["slabs"], ".1f"),
                figure(found["cpu"], ".1f"),
                figure(found["peak_mib"], ".0f"),
                figure(found["card_mib"], ".0f"),
            )
            print(f"{name:>12}{f'{depth} x {size}²':>16}{''.join(figures)}", flush=True)
    print("goal for 1024³: 10 s without mirroring (published)")


def random_network(folder: Path, configuration: str, shape: tuple[int, int, int] | None) -> Path:
    """A model of random weights; shape : patch, features, stages; None takes those of the preset ``quick``."""
    from tests.library.segmentation.random_models import random_model
    from tomoforge.segmentation.presets import preset

    settings = preset("quick", configuration=configuration)  # type: ignore[arg-type]
    assert settings.patch_size is not None and settings.features is not None and settings.stages is not None
    patch, features, stages = shape or (settings.patch_size[0], settings.features, settings.stages)
    return random_model(folder, configuration, 0, patch=patch, features=features, stages=stages)


def write_sample(path: Path, depth: int, size: int) -> None:
    """A phantom, enlarged, with fresh noise in every voxel; slab by slab."""
    from tests.library.segmentation.phantom import phantom

    coarse = phantom(1, 64, noise=0.0)[0]
    places = np.arange(size) * 64 // size
    rng = np.random.default_rng(0)
    create_volume(path, (depth, size, size), VOXEL)
    for start in range(0, depth, SLAB):
        planes = places[(np.arange(start, min(start + SLAB, depth)) * size) // depth]
        slab = coarse[planes][:, places][:, :, places]
        noise = rng.standard_normal(slab.shape, dtype=np.float32)
        write_slab(path, start, (slab + 60 * noise).astype(np.float32))


def in_process(side: str, volume: Path, folder: Path, model: Path, **options: Any) -> dict[str, float]:
    """``measure`` in a process of its own, so that each peak is its own."""
    from tomoforge.segmentation.jobs import worker_environment

    paths = [str(path) for path in (volume, folder, model)]
    command = [sys.executable, "-W", "ignore", __file__, "--one", side, *paths, json.dumps(options)]
    environment = {**os.environ, **worker_environment(1)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(side: str, volume: str, folder: str, model: str, options_json: str) -> dict[str, float]:
    """Wall and CPU seconds and peak memory [MiB] of one prediction."""
    options = json.loads(options_json)
    started = time.perf_counter()
    extra = {}
    if side == OURS:
        extra = our_prediction(volume, folder, model, options)
        worker, others = resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF
    else:
        their_prediction(volume, folder, model, options)
        worker, others = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    used = [resource.getrusage(who) for who in (worker, others)]
    return {
        "wall": time.perf_counter() - started,
        "cpu": sum(one.ru_utime + one.ru_stime for one in used),
        "peak_mib": used[0].ru_maxrss / 1024,
        "others_mib": used[1].ru_maxrss / 1024,
        **extra,
    }


def our_prediction(volume: str, folder: str, model: str, options: dict[str, Any]) -> dict[str, float]:
    """Seconds of all slabs without what comes before the first, and the most memory in use on the card [MiB]."""
    from tomoforge.segmentation.predict import predict_stored

    ends: list[tuple[float, int, int]] = []
    card = [0.0]

    def hear(done: int, total: int) -> None:
        ends.append((time.perf_counter(), done, total))
        if options["device"] == "cuda":
            card.append(float(driver("memory.used")[0]))

    predict_stored(volume, folder, model, progress=hear, **options)
    (first, done, total), (last, _, _) = ends[0], ends[-1]
    share = (total - done) / total
    return {"slabs": (last - first) / share if share else float("nan"), "card_mib": max(card)}


def their_prediction(volume: str, folder: str, model: str, options: dict[str, Any]) -> None:
    """nnU-Net's own predictor on the same weights; its labels go to ``labels.npy``."""
    warnings.simplefilter("ignore")  # of the libraries
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from tomoforge.segmentation.inference import load_model

    torch.set_num_threads(1)
    ours = load_model(Path(model), mirroring=options["mirroring"], device=options["device"])
    theirs = nnUNetPredictor(
        use_mirroring=options["mirroring"], device=torch.device(options["device"]), allow_tqdm=False
    )
    theirs.manual_initialization(
        ours.network,
        ours.plans,
        ours.configuration,
        [ours.network.state_dict()],
        ours.dataset,
        "nnUNetTrainer",
        ours.mirror_axes or None,  # it takes no empty tuple for none
    )
    image = np.asarray(open_level(volume)[:])[None]
    labels = theirs.predict_single_npy_array(image, {"spacing": [VOXEL * 1e6] * 3})
    Path(folder).mkdir(parents=True, exist_ok=True)
    np.save(Path(folder) / "labels.npy", labels.astype(np.uint8), allow_pickle=False)


def equal_share(ours: Path, theirs: Path) -> float:
    """Share of voxels to which both gave the same label."""
    from tomoforge.segmentation.predict import LABELS

    found = open_level(ours / LABELS)
    other = np.load(theirs / "labels.npy", mmap_mode="r", allow_pickle=False)
    slabs = range(0, other.shape[0], SLAB)
    equal = sum(int((np.asarray(found[at : at + SLAB]) == other[at : at + SLAB]).sum()) for at in slabs)
    return equal / other.size


def gpu_found() -> bool:
    import torch

    return torch.cuda.is_available()


def driver(*fields: str) -> list[str]:
    """What the driver tells of the first card."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [field.strip() for field in told.splitlines()[0].split(",")]


if __name__ == "__main__":
    main(sys.argv[1:])
