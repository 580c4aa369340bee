"""Absorption factors by table and directly: seconds, error, memory, by volume and reflections.

Run from the repository root: ``python benchmarks/absorption.py [--quick] [--anacor ray_tracing_cpu.so]``. A few
minutes on two cores. Each row is a process of its own, so that its peak memory is its own. AnACor's C engine is
measured beside ours where its library is given (``benchmarks/peers/anacor.py`` says how it is built).
"""

import argparse
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numba
import numpy as np
from peers import anacor

from tomoforge.absorption.factors import absorption_factors

SAMPLE_WIDTH = 300e-6  # [m], so that all volumes are the same sample
MU = {1: 7.0e3, 2: 4.5e3, 3: 8.5e3}  # [1/m], liquor, loop, crystal near 4 keV
FRAME = np.radians(0.1)
REFERENCE_ROWS = 64
REFERENCE_POINTS = 40960
ELSEWHERE = (
    "AnACor 2 was not measured in this run: --anacor names its library. Elsewhere (CPU engine, two threads, 128³, "
    "1000 reflections,\n2000 points): 10.7 s, bias −2.4 %, rms 1.5 %; its bisection 2.96 s at 500 points, bias +2.7 %."
)
ANACOR = (
    "anacor, bisection: AnACor 2's C engine with 2000 and 500 points in raster order, all voxels of a way visited; "
    "bisection has one thread."
)
ANACOR_POINTS = {"anacor": 2000, "bisection": 500}
PEERS = [(128, 1000, "anacor", None), (128, 1000, "bisection", None), (256, 1000, "anacor", None)]
# volume, reflections, method, target
ROWS = (
    [(128, 10**k, "table", 1e-3) for k in (3, 4, 5, 6)]
    + [(128, 10**k, "direct", 1e-3) for k in (3, 4)]
    + [(n, 1000, "direct", 5e-3) for n in (128, 256)]  # a tenth of AnACor's error
    + [(n, 10**5, "table", 1e-3) for n in (256, 512)]
    + [(n, 1000, "direct", 1e-3) for n in (256, 512)]
    + [(256, 10**6, "table", 2e-3), (256, 10**6, "table", 1e-3), (512, 10**6, "table", 1e-3)]
)
QUICK = [(64, 1000, "direct", 1e-3), (64, 1000, "table", 1e-3), (64, 10**4, "table", 1e-3)]


def sample(n: int) -> np.ndarray:
    """A crystal (3) in liquor (1) in a loop (2), lopsided: (z, y, x) uint8 of ``n``³ voxels."""
    z, y, x = np.ogrid[:n, :n, :n]
    z, y, x = ((axis.astype(np.float32) + 0.5) / n - 0.5 for axis in (z, y, x))
    labels = np.zeros((n, n, n), dtype=np.uint8)
    labels[(z / 0.42) ** 2 + ((y - 0.02) / 0.30) ** 2 + ((x + 0.03) / 0.40) ** 2 < 1] = 1
    labels[np.hypot(np.hypot(z / 1.0, x / 0.95) - 0.40, y / 0.9) < 0.05] = 2
    labels[(abs(z - 0.03) + abs(x) * 0.8 < 0.27) & (abs(y + 0.01) + 0.3 * abs(x) < 0.17)] = 3
    return labels


def rays(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Beams (count, 3) of a full turn in frames of 0.1° about z, and rays (count, 3) diffracted anywhere."""
    rng = np.random.default_rng(0)
    angle = (np.floor(rng.random(count) * 2 * np.pi / FRAME) + 0.5) * FRAME
    exits = np.random.default_rng(1).normal(size=(count, 3))
    beams = np.stack([np.zeros(count), np.cos(angle), -np.sin(angle)], axis=1)
    return beams, exits / np.linalg.norm(exits, axis=1, keepdims=True)


def measure(n: int, count: int, method: str, target: float | None, library: str | None) -> dict[str, float]:
    """The figures of one row, with the error of its first reflections against many other points."""
    labels, voxel = sample(n), SAMPLE_WIDTH / n
    beams, exits = rays(count)
    if target is not None:
        # Compiled, or read from numba's cache, before the clock starts.
        absorption_factors(labels[::8, ::8, ::8], 8 * voxel, MU, beams[:99], exits[:99], method=method)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    if target is None:
        points = anacor.even_points(labels, ANACOR_POINTS[method])
        a = anacor.factors(
            Path(library), labels, voxel, MU, beams, exits,
            points=points, threads=numba.get_num_threads(), bisection=method == "bisection",
        )  # fmt: skip
        claimed, number = float("nan"), float(len(points))
    else:
        got = absorption_factors(labels, voxel, MU, beams, exits, method=method, target_error=target, seed=1)
        a = got.a
        claimed = 100 * float(np.sqrt(np.mean((got.standard_error / got.a) ** 2)))
        number = float(got.n_points.mean())
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    some = slice(0, REFERENCE_ROWS)
    truth = absorption_factors(
        labels, voxel, MU, beams[some], exits[some],
        method="direct", target_error=1e-9, max_points=REFERENCE_POINTS, seed=12345,
    ).a  # fmt: skip
    error = a[some] / truth - 1
    return {
        "seconds": seconds,
        "cpu": cpu,
        "bias": 100 * float(error.mean()),
        "rms": 100 * float(np.sqrt(np.mean(error**2))),
        "max": 100 * float(np.abs(error).max()),
        "claimed": claimed,
        "points": number,
        "peak": peak / 1024,
        "before": before / 1024,
    }


def main() -> None:
    """Print the machine and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64³ and up to 10,000 reflections only")
    parser.add_argument(
        "--anacor", metavar="LIBRARY", help="AnACor's ray_tracing_cpu.so, to be measured beside ours"
    )
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        # The references stop at their number of points and would each say so.
        logging.getLogger("tomoforge").setLevel(logging.ERROR)
        n, count, method, target = json.loads(arguments.row)
        print(json.dumps(measure(n, count, method, target, arguments.anacor)))
        return
    model = next(
        (line.split(":")[1].strip() for line in _cpu_lines() if line.startswith("model name")),
        platform.processor(),
    )
    cores, threads = os.cpu_count(), numba.get_num_threads()
    print(f"{model}, {cores} cores, {threads} threads, Python {platform.python_version()}")
    print(", ".join(f"{name} {version(name)}" for name in ("tomoforge", "numpy", "numba")))
    print(
        f"\nvolume {'reflections':>11} {'method':>9} {'target %':>8} {'seconds':>8} {'CPU-s':>7} {'bias %':>7} "
        f"{'rms %':>7} {'max %':>7} {'claimed %':>9} {'points':>7} {'peak MB':>8} {'(before)':>8}"
    )
    rows = QUICK if arguments.quick else ROWS
    peers = PEERS if arguments.anacor else []
    library = ["--anacor", arguments.anacor] if arguments.anacor else []
    for row in [*rows, *peers]:
        n, count, method, target = row
        asked = "–" if target is None else f"{100 * target:.2g}"
        done = subprocess.run(
            [sys.executable, __file__, "--row", json.dumps(row), *library],
            stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
        got = json.loads(done.stdout)
        print(
            f"{n:>4}³ {count:>13,} {method:>9} {asked:>8} {got['seconds']:>8.2f} {got['cpu']:>7.2f} "
            f"{got['bias']:>7.3f} {got['rms']:>7.3f} {got['max']:>7.3f} {got['claimed']:>9.3f} {got['points']:>7.0f} "
            f"{got['peak']:>8.0f} {got['before']:>8.0f}",
            flush=True,
        )
    print(
        f"\nrms and max: relative to {REFERENCE_POINTS:,} other points, traced, over {REFERENCE_ROWS} reflections; "
        "they share points,\nso that one row's error is a single draw. claimed: rms of the standard errors; two "
        "of them are to stay within the target.\nBeams at the centres of 3600 frames, rays diffracted in all "
        "directions. peak: the process's memory; before: with labels,\nvectors and compiled code alone.\n"
        + (ANACOR if arguments.anacor else ELSEWHERE)
    )


def _cpu_lines() -> list[str]:
    info = Path("/proc/cpuinfo")
    return info.read_text(encoding="utf-8").splitlines() if info.exists() else []


if __name__ == "__main__":
    main()
