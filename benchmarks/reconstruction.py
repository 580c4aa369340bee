"""Filtered back-projection: ours against finufft, ASTRA (linear, CPU), scikit-image and TomoPy's gridrec, in one run.

    OMP_NUM_THREADS=1 python benchmarks/reconstruction.py [accuracy] [growth] [memory] [workers]

Analytic discs, exact line integrals averaged over detector pixels. CPU-s is processor time of this process for a
slice, plans and geometries made beforehand, best of some runs; ours takes eight slices at a time and is divided by
eight. RMSE is against the discs averaged over pixels, inside 98 % of the field; level is the mean inside the largest
disc alone, which should be 1. "ratio" is the method's CPU-s over ours, "RMSE ratio" ours over the method's.
"""

import functools
import importlib.util
import itertools
import multiprocessing
import os
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tomoforge.geometry import uniform_angles
from tomoforge.reconstruction import FbpPlan, fbp
from tomoforge.reconstruction.gridding import LANES
from tomoforge.reconstruction.nufft import LibraryNufft

# (x, y, radius, value), in half widths of the detector
DISCS = (
    (0.0, 0.0, 0.9, 1.0),
    (0.3, 0.2, 0.2, 0.5),
    (-0.35, 0.1, 0.15, -0.6),
    (0.1, -0.45, 0.12, 0.8),
    (-0.2, -0.3, 0.05, 1.0),
)
SIZES = ((256, 180), (256, 900), (300, 180), (512, 180), (512, 900), (1024, 900))
COLUMNS, ANGLES = (128, 256, 512, 1024, 2048), (90, 180, 450, 900, 1800)
SLAB = (900, 64, 1024)  # (angle, y, x), for the memory and the workers

Run = Callable[[], np.ndarray]


def discs_in_pixels(n: int) -> list[tuple[float, float, float, float]]:
    return [(x * n / 2, y * n / 2, radius * n / 2, value) for x, y, radius, value in DISCS]


def exact_sinogram(n: int, angles: np.ndarray, shift: float | np.ndarray = 0.0) -> np.ndarray:
    """(angle, x) float32 line integrals, the axis ``shift`` [pixels] to the right of the middle."""
    fine = (np.arange(8 * n) + 0.5) / 8 - n / 2
    middle = np.broadcast_to(shift, angles.shape)
    result = np.empty((angles.size, n), np.float32)
    for row, angle, offset in zip(result, angles, middle, strict=True):
        total = np.zeros(8 * n)
        for x, y, radius, value in discs_in_pixels(n):
            distance = fine - (offset + x * np.cos(angle) + y * np.sin(angle))
            total += value * 2 * np.sqrt(np.maximum(radius**2 - distance**2, 0))
        row[:] = total.reshape(n, 8).mean(axis=1)
    return result


@functools.lru_cache(maxsize=1)
def exact_image(n: int) -> np.ndarray:
    """(y, x) float64 image of the discs, averaged over pixels."""
    fine = (np.arange(4 * n) + 0.5) / 4 - n / 2
    image = np.zeros((n, n))
    for row, y_fine in zip(image, fine.reshape(n, 4, 1), strict=True):
        total = np.zeros((4, 4 * n))
        for x, y, radius, value in discs_in_pixels(n):
            total += value * ((fine - x) ** 2 + (y_fine - y) ** 2 < radius**2)
        row[:] = total.reshape(4, n, 4).mean(axis=(0, 2))
    return image


def ours(n: int, angles: np.ndarray) -> Run:
    plan, sinogram = FbpPlan(n, angles, 1.0), exact_sinogram(n, angles)
    stack = np.repeat(sinogram[:, np.newaxis], LANES, axis=1)
    return lambda: plan.stack(stack)


def ours_alone(n: int, angles: np.ndarray) -> Run:
    plan, sinogram = FbpPlan(n, angles, 1.0), exact_sinogram(n, angles)
    return lambda: plan(sinogram)


def finufft_same(n: int, angles: np.ndarray) -> Run:
    """The same sums by finufft."""
    lines = FbpPlan(n, angles, 1.0).lines
    engine = LibraryNufft(n, lines.length, lines.angles, lines.radial, lines.shifts, lines.weights, None)
    stack = np.repeat(exact_sinogram(n, angles)[:, np.newaxis], LANES, axis=1)
    return lambda: engine.images(stack)


def astra_linear(n: int, angles: np.ndarray) -> Run:
    import astra

    geometry, grid = astra.create_proj_geom("parallel", 1.0, n, -angles), astra.create_vol_geom(n, n)
    result = astra.data2d.create("-vol", grid)
    settings = astra.astra_dict("FBP")
    settings.update(
        ProjectorId=astra.create_projector("linear", geometry, grid),
        ProjectionDataId=astra.data2d.create("-sino", geometry, exact_sinogram(n, angles)),
        ReconstructionDataId=result,
    )
    algorithm = astra.algorithm.create(settings)

    def run() -> np.ndarray:
        astra.algorithm.run(algorithm)
        return astra.data2d.get(result)

    return run


def skimage_iradon(n: int, angles: np.ndarray) -> Run:
    from skimage.transform import iradon

    # It turns about pixel n // 2, not the middle: with even n it is given projections about that pixel,
    # exact ones, so that interpolation is not held against it.
    shift = 0.5 * (1 - np.cos(angles) - np.sin(angles)) if n % 2 == 0 else 0.0
    turned = np.ascontiguousarray(exact_sinogram(n, angles, shift).T)
    return lambda: iradon(turned, theta=-np.degrees(angles), filter_name="ramp", circle=True)


def tomopy_gridrec(n: int, angles: np.ndarray) -> Run | None:
    if importlib.util.find_spec("tomopy") is None:
        return None
    import tomopy

    # It takes slices in pairs.
    pair = np.repeat(exact_sinogram(n, angles)[:, np.newaxis], 2, axis=1)
    options = {"center": (n - 1) / 2, "algorithm": "gridrec", "filter_name": "ramlak", "ncore": 1}
    return lambda: tomopy.recon(pair, angles, sinogram_order=False, **options)


METHODS: tuple[tuple[str, Callable[[int, np.ndarray], Run | None]], ...] = (
    ("tomoforge, a slab", ours),
    ("tomoforge, one slice", ours_alone),
    ("same sums by finufft", finufft_same),
    ("ASTRA FBP linear (CPU)", astra_linear),
    ("scikit-image iradon", skimage_iradon),
    ("TomoPy gridrec", tomopy_gridrec),
)


def measure(run: Run) -> tuple[np.ndarray, float]:
    """The first image and the best processor time [s] a slice, of two runs or of a second of them."""
    times: list[float] = []
    while len(times) < 2 or (sum(times) < 1.0 and len(times) < 20):
        start = time.process_time()
        images = run()
        times.append(time.process_time() - start)
    slices = 1 if images.ndim == 2 else len(images)
    return images if images.ndim == 2 else images[0], min(times) / slices


def quality(image: np.ndarray) -> tuple[float, float]:
    """RMSE and level."""
    n = len(image)
    truth = exact_image(n)
    axis = np.arange(n) - (n - 1) / 2
    radius = np.hypot(axis, axis[:, np.newaxis])
    inside, plain = radius < 0.49 * n, (radius < 0.43 * n) & (truth == 1.0)
    return float(np.sqrt(np.mean((image - truth)[inside] ** 2))), float(image[plain].mean())


def best_turned(image: np.ndarray) -> np.ndarray:
    """The image turned and mirrored as fits best: a peer's convention is not held against it."""
    views = [np.rot90(view, turns) for view, turns in itertools.product((image, image.T), range(4))]
    return min(views, key=lambda view: quality(view)[0])


def accuracy() -> None:
    """Every method at every size."""
    print(
        f"{'columns':>7} {'angles':>6}  {'method':<22} {'CPU-s/slice':>11} {'ratio':>7} {'RMSE':>8} "
        f"{'RMSE ratio':>10} {'level':>8}"
    )
    for n, n_angles in SIZES:
        angles = uniform_angles(n_angles)
        own = None
        for name, prepare in METHODS:
            run = prepare(n, angles)
            if run is None:
                print(f"{n:>7} {n_angles:>6}  {name:<22} not installed")
                continue
            image, seconds = measure(run)
            error, level = quality(best_turned(image) if prepare is tomopy_gridrec else image)
            own = own or (seconds, error)
            print(
                f"{n:>7} {n_angles:>6}  {name:<22} {seconds:>11.4f} {seconds / own[0]:>7.1f} {error:>8.4f} "
                f"{own[1] / error:>10.3f} {level:>8.4f}"
            )


def growth() -> None:
    """Ours with columns and with angles."""
    print(
        f"\n{'columns':>7} {'angles':>6} {'CPU-s/slice':>11} {'ns/angle/column':>16} {'RMSE':>8} {'level':>8}"
    )
    for n, n_angles in (*((n, 900) for n in COLUMNS), *((512, n_angles) for n_angles in ANGLES)):
        image, seconds = measure(ours(n, uniform_angles(n_angles)))
        error, level = quality(image)
        print(
            f"{n:>7} {n_angles:>6} {seconds:>11.4f} {seconds / n / n_angles * 1e9:>16.1f} {error:>8.4f} {level:>8.4f}"
        )


def slab() -> np.ndarray:
    """(angle, y, x) float32, a row of discs repeated."""
    n_angles, _, n = SLAB
    stack = np.empty(SLAB, np.float32)
    stack[:] = exact_sinogram(n, uniform_angles(n_angles))[:, np.newaxis]
    return stack


def slab_memory() -> tuple[float, float, float]:
    """Peak [MiB] before a slab is reconstructed and after, and of its volume."""
    stack = slab()
    fbp(stack[:, :1, :64], uniform_angles(SLAB[0]), 1.0)  # kernels loaded
    before = peak_mib()
    volume = fbp(stack, uniform_angles(SLAB[0]), 1.0)
    return before, peak_mib(), volume.nbytes / 2**20


def peak_mib() -> float:
    """Peak memory of this process; ``ru_maxrss`` would be the parent's where that was larger."""
    (line,) = [
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    ]
    return int(line.split()[1]) / 1024


def memory() -> None:
    """Peak memory of a slab in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        before, after, volume = pool.apply(slab_memory)
    print(
        f"\nslab {SLAB} float32, {np.prod(SLAB) * 4 / 2**20:.0f} MiB: peak {after:.0f} MiB, of which {before:.0f} MiB "
        f"before (libraries and slab), {volume:.0f} MiB the volume, {after - before - volume:.0f} MiB the plan"
    )


def reconstruct_rows(start: int, stop: int, barrier: Any, results: Any) -> None:
    """One worker's share of the slab; puts wall and processor time [s] and a checksum for each slice."""
    stack = slab()[:, start:stop]
    angles = uniform_angles(SLAB[0])
    fbp(stack[:, :1], angles, 1.0)
    barrier.wait()
    wall, cpu = time.perf_counter(), time.process_time()
    volume = fbp(stack, angles, 1.0)
    taken = time.perf_counter() - wall, time.process_time() - cpu
    results.put((start, *taken, [zlib.crc32(image) for image in volume]))


def run_workers(count: int) -> tuple[float, float, list[int]]:
    """Slowest wall time and summed processor time [s] of processes that share a slab; the slices' checksums."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.Queue()
    edges = np.linspace(0, SLAB[1], count + 1).astype(int)
    started = [
        context.Process(target=reconstruct_rows, args=(start, stop, barrier, results))
        for start, stop in itertools.pairwise(edges.tolist())
    ]
    for worker in started:
        worker.start()
    found = sorted(results.get() for _ in started)
    for worker in started:
        worker.join()
    checksums = list(itertools.chain.from_iterable(item[3] for item in found))
    return max(item[1] for item in found), sum(item[2] for item in found), checksums


def workers() -> None:
    """Two and three processes against one."""
    print(f"\nslab {SLAB}\n{'workers':>7} {'wall s':>7} {'CPU-s':>6} {'slices/s':>9} {'bytes':>6}")
    expected: list[int] | None = None
    for count in (1, 2, 3):
        wall, cpu, checksums = min(run_workers(count) for _ in range(2))
        expected = expected or checksums
        same = "same" if checksums == expected else "differ"
        print(f"{count:>7} {wall:>7.2f} {cpu:>6.2f} {SLAB[1] / wall:>9.1f} {same:>6}")


PARTS = {"accuracy": accuracy, "growth": growth, "memory": memory, "workers": workers}


def main(arguments: list[str]) -> None:
    if unknown := set(arguments) - set(PARTS):
        sys.exit(f"unknown part {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    print(f"load when started: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name in arguments or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
