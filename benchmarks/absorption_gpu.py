"""Absorption factors on a GPU: labels on the card against the same labels on the CPU, in one run.

    python benchmarks/absorption_gpu.py [--dry]

First the traversal alone: optical depths of all rays from 4096 crystal points along 4096 directions, in 10⁹ voxels
crossed a second, kernels compiled beforehand, best of five between two synchronisations. Then whole calls of
``absorption_factors`` at target 10⁻³, labels on the card: wall seconds, best of three, with the checks, the points
and the sorting of directions that stay on the host. Agreement of a call: largest difference of GPU and CPU relative
to A, on 64³ with the same seed, over those of 2000 reflections (last column) that used the same points. For tracing
it is that of the depths, over the largest. Figures of the CPU are those of ``benchmarks/absorption.py``.

With ``--dry``, or without a GPU, the same functions run at a tiny size on NumPy, and the figures stay open.
"""

import functools
import sys
import time
from collections.abc import Callable
from types import ModuleType

import numpy as np

from tomoforge import backend
from tomoforge.absorption.factors import absorption_factors
from tomoforge.absorption.path_kernels import depth_table
from tomoforge.absorption.sampling import stratified_crystal_points

WIDTH = 300e-6  # [m], so that all volumes are the same sample
MU = {1: 7.0e3, 2: 4.5e3, 3: 8.5e3}  # [1/m], liquor, loop, crystal near 4 keV
FRAME = np.radians(0.1)
NOT_RUN = "not yet run"
SIZES, RAYS, FEW = (128, 256, 512), 4096, 2000
CALLS = (
    (256, 10**3, "direct"), (256, 10**4, "direct"), (256, 10**4, "table"), (256, 10**5, "table"),
    (256, 10**6, "table"), (512, 10**6, "table"),
)  # fmt: skip
DRY_SIZES, DRY_RAYS, DRY_CALLS = (24,), 64, ((24, 50, "direct"), (24, 600, "table"))


def sample(n: int) -> np.ndarray:
    """A crystal (3) in liquor (1) in a loop (2), lopsided: (z, y, x) uint8 of ``n``³ voxels."""
    z, y, x = ((axis.astype(np.float32) + 0.5) / n - 0.5 for axis in np.ogrid[:n, :n, :n])
    labels = np.zeros((n, n, n), np.uint8)
    labels[(z / 0.42) ** 2 + ((y - 0.02) / 0.30) ** 2 + ((x + 0.03) / 0.40) ** 2 < 1] = 1
    labels[np.hypot(np.hypot(z, x / 0.95) - 0.40, y / 0.9) < 0.05] = 2
    labels[(abs(z - 0.03) + abs(x) * 0.8 < 0.27) & (abs(y + 0.01) + 0.3 * abs(x) < 0.17)] = 3
    return labels


def rays(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Beams (count, 3) of a full turn in frames of 0.1° about z, and rays (count, 3) diffracted anywhere."""
    angle = (np.floor(np.random.default_rng(0).random(count) * 2 * np.pi / FRAME) + 0.5) * FRAME
    exits = np.random.default_rng(1).normal(size=(count, 3))
    beams = np.stack([np.zeros(count), np.cos(angle), -np.sin(angle)], axis=1)
    return beams, exits / np.linalg.norm(exits, axis=1, keepdims=True)


def best(work: Callable[[], object], synchronise: Callable[[], None], repeats: int) -> float:
    """Least wall time [s] of some calls, after one that compiles."""
    work()
    taken = []
    for _ in range(repeats):
        synchronise()
        start = time.perf_counter()
        work()
        synchronise()
        taken.append(time.perf_counter() - start)
    return min(taken)


def voxels_crossed(shape: tuple[int, ...], points: np.ndarray, directions: np.ndarray) -> float:
    """Voxels on all rays from points (corner coordinates) to the volume's edge, as many as faces crossed on average."""
    crossed = 0.0
    for direction in directions:
        ways = np.where(direction > 0, np.array(shape) - points, points) / np.abs(direction)
        crossed += float(ways.min(axis=1).sum() * np.abs(direction).sum()) + 0.5 * len(points)
    return crossed


def trace(
    xp: ModuleType, sizes: tuple[int, ...], count: int, synchronise: Callable[[], None], dry: bool
) -> None:
    """Print the rate of the traversal for ``xp``."""
    print(f"{'labels':>7} {'rays':>9} {'10⁹ voxels/s':>13} {'CPU–GPU':>12}")
    for n in sizes:
        labels = sample(n)
        grid, mu = xp.asarray(labels), np.array([0.0, MU[1], MU[2], MU[3]]) * (WIDTH / n)
        points = stratified_crystal_points(labels, 3, count, np.random.default_rng(2)) + 0.5
        exits = rays(count)[1]
        work = functools.partial(depth_table, grid, mu, points, exits)
        rate = voxels_crossed(labels.shape, points, exits) / best(work, synchronise, 1 if dry else 5)
        theirs = backend.to_host(depth_table(grid, mu, points, exits[:16]))
        ours = depth_table(labels, mu, points, exits[:16])
        agreement = float(np.abs(theirs - ours).max() / ours.max())
        print(f"{n:>6}³ {count**2:>9} {figure(rate / 1e9, '.1f', dry):>13} {figure(agreement, '.1e', dry)}")


def call(
    xp: ModuleType, calls: tuple[tuple[int, int, str], ...], synchronise: Callable[[], None], dry: bool
) -> None:
    """Print seconds and agreement of whole calls for ``xp``."""
    print(f"{'labels':>7} {'reflections':>11} {'method':>7} {'seconds':>12} {'CPU–GPU':>12} {'of':>12}")
    for n, count, method in calls:
        beams, exits = rays(count)
        work = functools.partial(
            absorption_factors, xp.asarray(sample(n)), WIDTH / n, MU, beams, exits, method=method
        )
        seconds = best(work, synchronise, 1 if dry else 3)
        little = sample(min(n, 64))
        theirs, ours = (
            absorption_factors(labels, WIDTH / len(little), MU, beams[:FEW], exits[:FEW], method=method)
            for labels in (xp.asarray(little), little)
        )
        # Rounding may send a reflection that just reached its target, or just did not, to other points.
        alike = theirs.n_points == ours.n_points
        agreement = float(np.abs(theirs.a[alike] / ours.a[alike] - 1).max())
        print(
            f"{n:>6}³ {count:>11} {method:>7} {figure(seconds, '.2f', dry)} {figure(agreement, '.1e', dry)} "
            f"{figure(alike.sum(), 'd', dry)}"
        )


def figure(value: float, spec: str, dry: bool) -> str:
    """A figure, or that it has not been measured."""
    return f"{NOT_RUN:>12}" if dry else f"{value:>12{spec}}"


def main(arguments: list[str]) -> None:
    """Print the tables, or that they have not been measured."""
    if "--dry" in arguments or backend.gpu_count() == 0:
        print(f"no GPU: {NOT_RUN} (same code at {DRY_SIZES[0]}³ on NumPy, to show that it runs)")
        trace(np, DRY_SIZES, DRY_RAYS, lambda: None, dry=True)
        call(np, DRY_CALLS, lambda: None, dry=True)
        return
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    print(f"{name}, CuPy {cupy.__version__}")
    synchronise = cupy.cuda.Device().synchronize
    trace(cupy, SIZES, RAYS, synchronise, dry=False)
    call(cupy, CALLS, synchronise, dry=False)


if __name__ == "__main__":
    main(sys.argv[1:])
