"""Forged projections on a GPU: thickness of all materials and whole projections with CuPy, against the CPU, in one run.

    python benchmarks/optics_gpu.py [--dry]

Milliseconds are wall time a projection between two synchronisations, best of five, kernels compiled and the volume
prepared beforehand. Thickness: 1024³ labels → 1024 rows × 2048 columns of four materials; whole projection: the wave
on 2048 × 2048 samples, propagated, blurred and binned to 1024². GB: bytes that the kernels ask for in a projection (a
label for each of the two columns next to a ray, and the results; the L2 cache serves part of them). "of copy": those
bytes over the time, over the bandwidth of a copy within the card's memory (read and write counted).
Agreement: largest difference of GPU and CPU over the largest value, on 128³.

With ``--dry``, or without a GPU, the same functions run at a tiny size on NumPy, and the figures stay open.
"""

import functools
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from tomoforge import backend
from tomoforge.geometry import ScanGeometry, uniform_angles
from tomoforge.optics.forward import transmitted_intensity
from tomoforge.optics.materials import find_material
from tomoforge.optics.thickness import prepare_volume, project_thickness
from tomoforge.units import kev_to_wavelength

ENERGY_KEV, WIDTH, DISTANCE = 5.0, 320e-6, 5e-3
MATERIALS = ("ammonium_sulfate_liquor", "nylon", "ammonium_sulfate_crystal")
PLANES = (1, 9)
OVERSAMPLING = 2
NOT_RUN = "not yet run"


def sample(n: int) -> np.ndarray:
    """Crystal in liquor in a loop, made in slices: (z, y, x) uint8."""
    axis = (np.arange(n, dtype=np.float32) - (n - 1) / 2) / n
    y, x = axis[:, None], axis[None, :]
    labels = np.zeros((n, n, n), np.uint8)
    for image, z in zip(labels, axis, strict=True):
        image[(x / 0.4) ** 2 + (y / 0.3) ** 2 + (z / 0.45) ** 2 < 1] = 1
        image[(np.hypot(x, z) - 0.38) ** 2 + y**2 < 0.03**2] = 2
        if abs(z) < 0.2:
            image[(np.abs(x) < 0.12) & (np.abs(y - 0.05) < 0.1)] = 3
    return labels


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


def intensity(labels: Any, n: int, angles: np.ndarray, planes: int) -> Any:
    """Blurred and binned intensity of a batch of angles, in the array module of ``labels``."""
    constants = [find_material(name).refractive_index(ENERGY_KEV) for name in MATERIALS]
    vacuum = type(constants[0])(0.0, 0.0, 0.0)
    geometry = ScanGeometry(uniform_angles(8), WIDTH / n, DISTANCE)
    wavelength = kev_to_wavelength(ENERGY_KEV)
    return transmitted_intensity(
        labels,
        WIDTH / n,
        [vacuum, *constants],
        geometry,
        angles,
        wavelength,
        0.5,
        OVERSAMPLING,
        planes=planes,
    )


def relative(found: Any, expected: np.ndarray) -> float:
    """Largest difference over the largest value."""
    return float(np.abs(backend.to_host(found) - expected).max() / np.abs(expected).max())


def copy_bandwidth(xp: ModuleType, size: int, synchronise: Callable[[], None], repeats: int) -> float:
    """Bytes a second read and written by a copy within the memory of ``xp``'s device."""
    source = xp.zeros(size, dtype=np.uint8)
    target = xp.empty_like(source)

    def copy() -> None:
        target[...] = source

    return 2 * size / best(copy, synchronise, repeats)


def measure(
    xp: ModuleType, n: int, small: int, batch: int, synchronise: Callable[[], None], dry: bool
) -> None:
    """Print the table for ``xp``, at n³ for times and at small³ for agreement."""
    repeats = 1 if dry else 5

    def figure(value: float, spec: str) -> str:
        return f"{NOT_RUN:>12}" if dry else f"{value:>12{spec}}"

    angles = uniform_angles(batch, np.pi)
    labels = sample(n)
    device_labels = xp.asarray(labels)
    volume = prepare_volume(device_labels, 4)
    little = sample(small)
    bandwidth = copy_bandwidth(xp, n**3, synchronise, repeats)
    print(f"copy within the device: {figure(bandwidth / 1e9, '.0f')} GB/s")
    print(
        f"{'planes':>6} {'thickness ms':>13} {'GB':>6} {'of copy':>12} {'projection ms':>14} {'thickness CPU–GPU':>18} "
        f"{'intensity CPU–GPU':>18}"
    )
    for planes in PLANES:

        def paths_of(labels: Any, size: int, some: np.ndarray, planes: int = planes) -> Any:
            return project_thickness(labels, WIDTH / size, some, 4, oversampling=OVERSAMPLING, planes=planes)

        thickness = best(functools.partial(paths_of, volume, n, angles), synchronise, repeats)
        whole = best(functools.partial(intensity, device_labels, n, angles, planes), synchronise, repeats)
        written = (
            4 * planes * 4 * n * n * OVERSAMPLING * 4
        )  # zeroed, written, read and written by the reordering
        moved = 2 * n**3 * OVERSAMPLING + written  # a projection
        paths = paths_of(xp.asarray(little), small, angles[:2])
        images = intensity(xp.asarray(little), small, angles[:2], planes)
        agreement = (
            relative(paths, paths_of(little, small, angles[:2])),
            relative(images, intensity(little, small, angles[:2], planes)),
        )
        print(
            f"{planes:>6} {figure(thickness / batch * 1e3, '.2f'):>13} {moved / 1e9:>6.2f} "
            f"{figure(moved * batch / thickness / bandwidth, '.2f')} {figure(whole / batch * 1e3, '.2f'):>14} "
            f"{figure(agreement[0], '.1e'):>18} {figure(agreement[1], '.1e'):>18}"
        )


def main(arguments: list[str]) -> None:
    """Print the table, or that it has not been measured."""
    dry = "--dry" in arguments or backend.gpu_count() == 0
    if dry:
        print(f"no GPU: {NOT_RUN} (same code at 32³ on NumPy, to show that it runs)")
        measure(np, 32, 16, 2, lambda: None, dry=True)
        return
    import cupy

    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    print(f"{name}, CuPy {cupy.__version__}")
    measure(cupy, 1024, 128, 4, cupy.cuda.Device().synchronize, dry=False)


if __name__ == "__main__":
    main(sys.argv[1:])
