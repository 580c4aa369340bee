"""What a prediction costs: seconds and peak memory a volume, from OME-Zarr to OME-Zarr.

    python benchmarks/prediction.py [--configuration 2d|3d_fullres] [--depth N] [--mirroring] [--device cuda]
        [--model FOLDER] [--nnunet] SIZE ...

Each volume of SIZE³ voxels at the network's resolution, labels and uncertainty written, in a process of its own with
a thread of its own. Without a model, one of random weights of the preset ``quick``: speed does not depend on training.
--depth predicts so many slices alone: time grows with the slices, memory does not once the slabs are full. Seconds
include starting the process; CPU-s are what to compare on a busy machine. Peak memory is the largest resident set of
the worker, pages of shared libraries included; "others" is that of the process that asked. --nnunet measures nnU-Net's
own predictor on the same volume and weights beside it, whole in memory as it wants it.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from tomoforge.volumes import SLAB, create_volume, open_level, write_slab

VOXEL = 2.5e-6  # [m]


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--one"]:
        print(json.dumps(measure(*arguments[1:])))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="+", type=int)
    parser.add_argument("--configuration", default="2d", choices=["2d", "3d_fullres"])
    parser.add_argument("--depth", type=int)
    parser.add_argument("--mirroring", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--nnunet", action="store_true")
    options = parser.parse_args(arguments)
    print(
        f"{'slices x width':>16}{'side':>10}{'s':>9}{'CPU-s':>9}{'peak MiB':>10}{'others MiB':>12}",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="tomoforge-bench-") as name:
        folder = Path(name)
        model = options.model or quick_model(folder / "model", options.configuration)
        for size in options.sizes:
            depth = min(options.depth or size, size)
            write_sample(folder / f"{size}.ome.zarr", depth, size)
            for side in ("ours", "nnU-Net") if options.nnunet else ("ours",):
                found = in_process(
                    side,
                    str(folder / f"{size}.ome.zarr"),
                    str(folder / f"{size}-{side}"),
                    str(model),
                    json.dumps({"mirroring": options.mirroring, "device": options.device}),
                )
                print(
                    f"{f'{depth} x {size}²':>16}{side:>10}{found['wall']:9.1f}{found['cpu']:9.1f}"
                    f"{found['peak_mib']:10.0f}{found['others_mib']:12.0f}",
                    flush=True,
                )


def quick_model(folder: Path, configuration: str) -> Path:
    """The network of the preset ``quick``."""
    from tests.library.segmentation.random_models import random_model
    from tomoforge.segmentation.presets import preset

    settings = preset("quick", configuration=configuration)  # type: ignore[arg-type]
    assert settings.patch_size is not None and settings.features is not None and settings.stages is not None
    return random_model(
        folder,
        configuration,
        0,
        patch=settings.patch_size[0],
        features=settings.features,
        stages=settings.stages,
    )


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


def in_process(*arguments: str) -> dict[str, float]:
    """``measure`` in a process of its own, so that each peak is its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(side: str, volume: str, folder: str, model: str, options_json: str) -> dict[str, float]:
    """Wall and CPU seconds and peak memory [MiB] of one prediction."""
    options = json.loads(options_json)
    started = time.perf_counter()
    if side == "ours":
        from tomoforge.segmentation.predict import predict_stored

        predict_stored(volume, folder, model, **options)
        worker, others = resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF
    else:
        nnunet_predict(volume, model, options)
        worker, others = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    used = [resource.getrusage(who) for who in (worker, others)]
    return {
        "wall": time.perf_counter() - started,
        "cpu": sum(one.ru_utime + one.ru_stime for one in used),
        "peak_mib": used[0].ru_maxrss / 1024,
        "others_mib": used[1].ru_maxrss / 1024,
    }


def nnunet_predict(volume: str, model: str, options: dict) -> np.ndarray:
    """nnU-Net's own predictor on the same weights; labels."""
    warnings.simplefilter("ignore")  # of the libraries
    import torch
    from nnunetv2.inference.export_prediction import (
        convert_predicted_logits_to_segmentation_with_correct_shape,
    )
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from tomoforge.segmentation.inference import load_model

    torch.set_num_threads(1)
    ours = load_model(Path(model), mirroring=options["mirroring"], device=options["device"])
    theirs = nnUNetPredictor(device=torch.device(options["device"]), allow_tqdm=False)
    theirs.manual_initialization(
        ours.network,
        ours.plans,
        ours.configuration,
        None,
        ours.dataset,
        "nnUNetTrainer",
        ours.mirror_axes or None,  # it takes no empty tuple for none
    )
    data, _, about = ours.configuration.preprocessor_class(verbose=False).run_case_npy(
        np.asarray(open_level(volume)[:])[None],
        None,
        {"spacing": [VOXEL * 1e6] * 3},
        ours.plans,
        ours.configuration,
        ours.dataset,
    )
    logits = theirs.predict_sliding_window_return_logits(torch.from_numpy(data))
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        ours.plans,
        ours.configuration,
        ours.plans.get_label_manager(ours.dataset),
        about,
        num_threads_torch=1,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
