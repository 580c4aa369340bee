"""What a sample costs: CPU-seconds by stage and memory, from recipe to labels; and whether a forged set leaks.

    OMP_NUM_THREADS=1 python benchmarks/samples.py [grid …]
    OMP_NUM_THREADS=1 python benchmarks/samples.py --check WORKSPACE

The first forges the same eight recipes on each grid, a process a grid, after one that compiles. CPU-s are means a
sample, Blender's included in "bake"; "most" is the dearest sample. Memory is the peak of the forging process. Blender's
own, which comes to it while the former waits, is read on the smallest grid: a child counts as large as its parent was.

The second asks Open3D, an inside test that shares nothing with the voxelizer, about random voxels of every protein
sample in a workspace: half of them anywhere, half in the bounding boxes of crystals and mount. "differ" counts labels
that disagree further than 2e-4 voxel from a surface, where Open3D's float32 is to be trusted.
"""

import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.library.samples.inside import open3d_inside, surface_distance
from tomoforge.samples.engines import find_engine
from tomoforge.samples.forge import forge_sample
from tomoforge.samples.mount_mesh import mount_meshes
from tomoforge.samples.recipe import draw_recipe
from tomoforge.samples.records import SampleRecipe
from tomoforge.samples.voxelize import field_origin
from tomoforge.seeds import component_rng
from tomoforge.volumes import LABEL_NAMES, read_labels

FIELD = 320e-6  # [m]
GRIDS = (128, 256, 512, 1024)
SEEDS = range(8)
STAGES = ("geometry", "bake", "relaxation", "voxelization", "gates")
POINTS = 4000  # asked of each sample, anywhere and near the solids
TRUSTED = 2e-4  # distance from a surface [voxels] beyond which float32 decides rightly


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--check"]:
        check(Path(arguments[1]))
    elif arguments[:1] == ["--one"]:
        print(json.dumps(measure(int(arguments[1]))))
    else:
        table([int(n) for n in arguments] or list(GRIDS))


def table(grids: list[int]) -> None:
    engine = find_engine("auto")
    print(f"forging on {engine.title}, {len(SEEDS)} recipes a grid, field {FIELD * 1e6:.0f} µm")
    measure_in_process(64)  # compiles
    blender = measure_in_process(64)["blender"]
    print(f"Blender's own peak: {blender:.0f} MiB")
    names = "".join(f"{stage:>14}" for stage in STAGES)
    print(f"{'grid':>6}{names}{'CPU-s':>9}{'most':>7}{'wall s':>8}{'peak MiB':>10}")
    for grid in grids:
        found = measure_in_process(grid)
        row = "".join(f"{found['stages'][stage]:14.3f}" for stage in STAGES)
        print(
            f"{grid:6}{row}{found['mean']:9.2f}{found['most']:7.2f}{found['wall']:8.2f}{found['peak']:10.0f}",
            flush=True,
        )


def measure_in_process(grid: int) -> dict:
    done = subprocess.run(
        [sys.executable, __file__, "--one", str(grid)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(grid: int) -> dict:
    """Means over the recipes; the engine is found before the clock starts."""
    engine = find_engine("auto")
    forge_sample(draw_recipe(99, field_of_view=FIELD), 64, FIELD / 64, engine="lens")  # loads the kernels
    costs, started = [], time.perf_counter()
    for seed in SEEDS:
        recipe = draw_recipe(seed, field_of_view=FIELD)
        costs.append(forge_sample(recipe, grid, FIELD / grid, engine=engine).record["cpu_seconds"])
    totals = [sum(cost.values()) for cost in costs]
    status = Path("/proc/self/status").read_text()
    return {
        "stages": {stage: float(np.mean([cost[stage] for cost in costs])) for stage in STAGES},
        "mean": float(np.mean(totals)),
        "most": max(totals),
        "wall": (time.perf_counter() - started) / len(SEEDS),
        "peak": int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024,
        "blender": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


def check(workspace: Path) -> None:
    """Labels of a forged set against Open3D."""
    asked = differ = leaking = samples = 0
    for folder in sorted((workspace / "labels").glob("sample-*")):
        recipe = SampleRecipe.from_json(json.loads((folder / "record.json").read_text())["recipe"])
        if recipe.family != "protein_crystal":
            continue
        labels, voxel = read_labels(folder / "labels.ome.zarr")
        wrong, points = disagreements(recipe, labels, voxel)
        samples, asked, differ, leaking = samples + 1, asked + points, differ + wrong, leaking + (wrong > 0)
        if wrong:
            print(f"{folder.name}: {wrong} of {points} points differ")
    print(f"samples {samples}  points {asked}  differ {differ}  leaking samples {leaking}")


def disagreements(recipe, labels: np.ndarray, voxel: float) -> tuple[int, int]:
    bodies = recipe.crystal_bodies()
    crystal = recipe.pose.placed(tuple(part for body in bodies for part in body.solids))
    voids = recipe.pose.placed(tuple(part for body in bodies for part in body.voids))
    loop = recipe.pose.placed(mount_meshes(recipe.mount))
    rng = component_rng(recipe.seed, "check")
    index = rng.integers(0, labels.shape, (POINTS, 3))
    low, high = np.argwhere(labels >= 2).min(axis=0) - 2, np.argwhere(labels >= 2).max(axis=0) + 3
    near = rng.integers(np.maximum(low, 0), np.minimum(high, labels.shape), (POINTS, 3))
    index = np.concatenate([index, near])
    points = field_origin(labels.shape, voxel) + voxel * index[:, ::-1]
    found = labels[tuple(index.T)]
    whole = open3d_inside(crystal, points)
    held = whole & ~open3d_inside(voids, points) if voids else whole
    wrong = (found == LABEL_NAMES["crystal"]) != held
    wrong |= (found == LABEL_NAMES["loop"]) != (open3d_inside(loop, points) & ~whole)
    doubtful = points[wrong]
    if len(doubtful):
        wrong_far = surface_distance([*crystal, *voids, *loop], doubtful) > TRUSTED * voxel
        return int(wrong_far.sum()), len(points)
    return 0, len(points)


if __name__ == "__main__":
    main(sys.argv[1:])
