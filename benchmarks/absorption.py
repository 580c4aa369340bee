"""Absorption factors: seconds and error against a large-sample reference, by volume and reflections.

Run from the repository root: ``python benchmarks/absorption.py [--quick]``. About a minute and a half on two cores.
"""

import argparse
import logging
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numba
import numpy as np

from tomoforge.absorption.factors import absorption_factors
from tomoforge.absorption.twin import Reflections, rotation_experiment

SAMPLE_WIDTH = 300e-6  # [m], so that both volumes are the same sample
MU = {1: 7.0e3, 2: 4.5e3, 3: 8.5e3}  # [1/m], liquor, loop, crystal near 4 keV
FRAME = np.radians(0.1)
REFERENCE_ROWS = 32
REFERENCE_POINTS = 2**17
PUBLISHED = (
    "AnACor 2.0, published, not measured here (Lu et al., J. Appl. Cryst. 57, 2024, abstract): by sampling,\n"
    "bisection, gridding and CUDA up to 175 times faster than its predecessor, the insulin data set in less\n"
    "than 10 s. Another sample, another machine, another error: no comparison."
)


def sample(n: int) -> np.ndarray:
    """A crystal (3) in liquor (1) in a loop (2), lopsided: (z, y, x) uint8 of ``n``³ voxels."""
    z, y, x = (np.indices((n, n, n)) + 0.5) / n - 0.5
    labels = np.zeros((n, n, n), dtype=np.uint8)
    labels[(z / 0.42) ** 2 + ((y - 0.02) / 0.30) ** 2 + ((x + 0.03) / 0.40) ** 2 < 1] = 1
    ring = np.hypot(np.hypot(z / 1.0, x / 0.95) - 0.40, y / 0.9)
    labels[ring < 0.05] = 2
    labels[(abs(z - 0.03) + abs(x) * 0.8 < 0.27) & (abs(y + 0.01) + 0.3 * abs(x) < 0.17)] = 3
    return labels


def experiment() -> Reflections:
    """Half a turn of a lysozyme-like cell at 4 keV, more than 10⁴ reflections, angles at frame centres."""
    tilt = np.array([[0.8, -0.6, 0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]])
    return rotation_experiment((79, 79, 38, 90, 90, 90), "P 43 21 2", tilt, 3.1e-10, 3.2e-10)


def beams_of_frames(angle: np.ndarray) -> np.ndarray:
    """Beam (reflection, 3) at the centre of the frame of 0.1° that each reflection lies on."""
    centre = (np.floor(angle / FRAME) + 0.5) * FRAME
    return np.stack([np.zeros_like(centre), np.cos(centre), -np.sin(centre)], axis=1)


def reference(labels: np.ndarray, incoming: np.ndarray, outgoing: np.ndarray) -> np.ndarray:
    """Factors (reflection,) from many points of another seed; the target is out of reach on purpose."""
    voxel = SAMPLE_WIDTH / len(labels)
    return absorption_factors(
        labels, voxel, MU, incoming, outgoing, target_error=1e-9, max_points=REFERENCE_POINTS, seed=12345
    ).a


def measure(
    labels: np.ndarray, beams: np.ndarray, exits: np.ndarray, target: float, truth: np.ndarray
) -> str:
    """The figures of one row of the table; ``truth`` holds the reference of the first reflections."""
    voxel = SAMPLE_WIDTH / len(labels)
    start = time.perf_counter()
    got = absorption_factors(labels, voxel, MU, beams, exits, target_error=target, seed=len(exits))
    seconds = time.perf_counter() - start
    error = got.a[: len(truth)] / truth - 1
    claimed = np.sqrt(np.mean((got.standard_error / got.a) ** 2))
    return (
        f"{100 * target:>8.2g} {seconds:>9.2f} {100 * np.sqrt(np.mean(error**2)):>9.3f} "
        f"{100 * np.abs(error).max():>9.3f} {100 * claimed:>9.3f} {got.n_points.mean():>9.0f} "
        f"{got.a.min():>6.3f} {got.a.max():>6.3f}"
    )


def table(found: Reflections, n: int, counts: tuple[int, ...]) -> None:
    """Print the rows of one volume. The reflections of small rows are the first of the large ones."""
    labels = sample(n)
    found = found.select(np.random.default_rng(0).permutation(len(found))[: max(counts)])
    beams = {"frame": beams_of_frames(found.angle), "exact": found.incoming}
    first = slice(0, REFERENCE_ROWS)
    truth = {kind: reference(labels, rays[first], found.outgoing[first]) for kind, rays in beams.items()}
    for count in counts:
        runs = [("frame", 3e-3)]
        if count in (1000, 2000):
            runs += [("exact", 3e-3), ("frame", 1e-3)]
        for kind, target in runs:
            figures = measure(labels, beams[kind][:count], found.outgoing[:count], target, truth[kind])
            print(f"{n:>4}³ {count:>12,} {kind:>6} {figures}", flush=True)


def main() -> None:
    """Print the machine, the compile time and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64³ and up to 1000 reflections only")
    quick = parser.parse_args().quick
    # The references stop at their number of points and would each say so.
    logging.getLogger("tomoforge").setLevel(logging.ERROR)

    model = next(
        (line.split(":")[1].strip() for line in _cpu_lines() if line.startswith("model name")),
        platform.processor(),
    )
    cores, threads = os.cpu_count(), numba.get_num_threads()
    print(f"{model}, {cores} cores, {threads} threads, Python {platform.python_version()}")
    print(", ".join(f"{name} {version(name)}" for name in ("tomoforge", "numpy", "numba", "gemmi")))
    start = time.perf_counter()
    absorption_factors(np.full((4, 4, 4), 3, np.uint8), 1e-6, MU, np.eye(3)[1], np.eye(3), target_error=0.1)
    print(f"first call (compiling, or reading numba's cache): {time.perf_counter() - start:.1f} s")
    start = time.perf_counter()
    found = experiment()
    print(f"{len(found):,} reflections of the synthetic experiment: {time.perf_counter() - start:.2f} s\n")

    print(
        f"volume {'reflections':>11} {'beams':>6} {'target %':>8} {'seconds':>9} {'rms %':>9} "
        f"{'max %':>9} {'claimed %':>9} {'points':>9} {'A min':>6} {'A max':>6}"
    )
    for n in (64,) if quick else (64, 128):
        table(found, n, (100, 1000) if quick else (100, 1000, 2000, 10000))
    print(
        f"\nrms and max: relative to {REFERENCE_POINTS:,} other points, over {REFERENCE_ROWS} reflections; they share "
        "points,\nso that one row's error is a single draw. claimed: rms of the standard errors.\n"
        "frame: beam at the centres of 0.1° frames; exact: each reflection its own.\n" + PUBLISHED
    )


def _cpu_lines() -> list[str]:
    info = Path("/proc/cpuinfo")
    return info.read_text(encoding="utf-8").splitlines() if info.exists() else []


if __name__ == "__main__":
    main()
