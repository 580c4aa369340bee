"""Filtered back-projection on a GPU with cufinufft, against the CPU, in one run.

    python benchmarks/reconstruction_gpu.py [--dry]

Wall seconds between two synchronisations, best of three, plans made and kernels compiled beforehand. A volume of
2048³ from 1800 projections of 2048 rows × 2048 columns, in slabs of rows: "on the card" with a slab that lies there
and stays there, "there and back" with the copies from and to page-locked host memory. A slab is timed and multiplied
by the number of slabs. The goal is 7 s for 2048³, the figure TomocuPy publishes for one A100 (Nikitin, J. Synchrotron
Rad. 30, 179 (2023)). Agreement: largest difference of GPU and CPU over the largest value; level: mean of a unit disc.

With ``--dry``, or without a GPU, the same functions run at a tiny size on NumPy, and the figures stay open.
"""

import sys
import time
from collections.abc import Callable
from types import ModuleType

import numpy as np

from tomoforge import backend
from tomoforge.geometry import uniform_angles
from tomoforge.reconstruction import FbpPlan
from tomoforge.reconstruction.gridding import LANES

NOT_RUN = "not yet run"
SIZES = ((512, 900), (1024, 900), (2048, 1800))
DRY_SIZES = ((32, 24), (33, 24))


def disc_sinogram(n: int, angles: np.ndarray) -> np.ndarray:
    """(angle, x) float32 line integrals of a unit disc off the axis, averaged over pixels."""
    fine = (np.arange(8 * n) + 0.5) / 8 - n / 2
    result = np.empty((angles.size, n), np.float32)
    for row, angle in zip(result, angles, strict=True):
        distance = fine - n * (0.1 * np.cos(angle) - 0.15 * np.sin(angle))
        row[:] = (2 * np.sqrt(np.maximum((0.25 * n) ** 2 - distance**2, 0))).reshape(n, 8).mean(axis=1)
    return result


def disc_level(image: np.ndarray) -> float:
    """Mean of the disc, a tenth of its radius off the edge."""
    n = len(image)
    axis = np.arange(n) - (n - 1) / 2
    inside = (axis - 0.1 * n) ** 2 + (axis[:, np.newaxis] + 0.15 * n) ** 2 < (0.225 * n) ** 2
    return float(image[inside].mean())


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


def page_locked(xp: ModuleType, shape: tuple[int, ...]) -> np.ndarray:
    """Host memory that the card copies at full speed; plain memory for NumPy."""
    if xp is np:
        return np.empty(shape, np.float32)
    count = int(np.prod(shape))
    memory = xp.cuda.alloc_pinned_memory(count * 4)
    return np.frombuffer(memory, np.float32, count).reshape(shape)


def measure(
    xp: ModuleType, sizes: tuple[tuple[int, int], ...], synchronise: Callable[[], None], dry: bool
) -> None:
    """Print the table for ``xp``."""

    def figure(value: float, spec: str) -> str:
        return f"{NOT_RUN:>12}" if dry else f"{value:>12{spec}}"

    repeats = 1 if dry else 3
    print(
        f"{'columns':>7} {'angles':>6} {'ms/slice':>12} {'on card s':>12} {'there+back s':>12} {'GPU–CPU':>12} "
        f"{'level':>12}   (seconds for columns³)"
    )
    for n, n_angles in sizes:
        angles = uniform_angles(n_angles)
        rows = min(4 * LANES, n)
        host = page_locked(xp, (n_angles, rows, n))
        host[:] = disc_sinogram(n, angles)[:, np.newaxis]
        back = page_locked(xp, (rows, n, n))
        plan = FbpPlan(n, angles, 1.0)
        slab = xp.asarray(host)

        def there_and_back(plan: FbpPlan = plan, host: np.ndarray = host, back: np.ndarray = back) -> None:
            volume = plan.stack(xp.asarray(host))
            if xp is np:
                back[:] = volume
            else:
                volume.get(out=back)

        resident = best(lambda plan=plan, slab=slab: plan.stack(slab), synchronise, repeats)
        copied = best(there_and_back, synchronise, repeats)
        expected = plan(np.ascontiguousarray(host[:, 0]))
        agreement = np.abs(back[0] - expected).max() / np.abs(expected).max()
        print(
            f"{n:>7} {n_angles:>6} {figure(resident / rows * 1e3, '.3f')} {figure(resident / rows * n, '.2f')} "
            f"{figure(copied / rows * n, '.2f')} {figure(agreement, '.1e')} {figure(disc_level(back[0]), '.4f')}"
        )
    print("goal for 2048³: 7 s (TomocuPy, one A100, published)")


def main(arguments: list[str]) -> None:
    """Print the table, or that it has not been measured."""
    if "--dry" in arguments or backend.gpu_count() == 0:
        print(f"no GPU: {NOT_RUN} (same code at {DRY_SIZES[0][0]}² on NumPy, to show that it runs)")
        measure(np, DRY_SIZES, lambda: None, dry=True)
        return
    import cufinufft
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    print(f"{name}, CuPy {cupy.__version__}, cufinufft {cufinufft.__version__}")
    measure(cupy, SIZES, cupy.cuda.Device().synchronize, dry=False)


if __name__ == "__main__":
    main(sys.argv[1:])
