"""Forged projections: thickness of all materials against ASTRA's CPU projector, and a whole projection, in one run.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/optics.py [grid …]

CPU-s is processor time of this process for one angle, best of three, kernels compiled and labels loaded beforehand.
ASTRA projects one material at a time and one slice at a time with its linear projector; its time is for three
materials. The difference is rms over the sinogram of the crystal's middle slice, in voxels.
"""

import sys
import time
from collections.abc import Callable

import astra
import numpy as np

from tomoforge.geometry import ScanGeometry, uniform_angles
from tomoforge.optics.detector import Detector
from tomoforge.optics.materials import find_material
from tomoforge.optics.scan import Beam, ScanSimulator
from tomoforge.optics.thickness import project_thickness

ANGLES = np.array([0.3, 1.1, 2.0, 2.9])
MATERIALS = {
    1: find_material("ammonium_sulfate_liquor"),
    2: find_material("nylon"),
    3: find_material("ammonium_sulfate_crystal"),
}


def sample(n: int) -> np.ndarray:
    """Crystal in liquor in a loop: (z, y, x) uint8."""
    z, y, x = (axis / n for axis in np.indices((n, n, n), dtype=np.float32) - (n - 1) / 2)
    labels = np.zeros((n, n, n), np.uint8)
    labels[(x / 0.4) ** 2 + (y / 0.3) ** 2 + (z / 0.45) ** 2 < 1] = 1
    labels[(np.hypot(x, z) - 0.38) ** 2 + y**2 < 0.03**2] = 2
    labels[(np.abs(x) < 0.12) & (np.abs(y - 0.05) < 0.1) & (np.abs(z) < 0.2)] = 3
    return labels


def best(work: Callable[[], object]) -> float:
    """Least processor time [s] of three calls, after one that compiles."""
    work()
    taken = []
    for _ in range(3):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def astra_sinograms(labels: np.ndarray, slices: range) -> np.ndarray:
    """Sinograms of labels 1 to 3 in some slices: (slice, material, angle, x)."""
    n = labels.shape[1]
    projector = astra.create_projector(
        "linear", astra.create_proj_geom("parallel", 1.0, n, ANGLES), astra.create_vol_geom(n, n)
    )
    found = np.empty((len(slices), 3, len(ANGLES), n), np.float32)
    for row, z in enumerate(slices):
        for label in (1, 2, 3):
            mask = (labels[z, ::-1] == label).astype(np.float32)  # ASTRA's rows run against y
            handle, found[row, label - 1] = astra.create_sino(mask, projector)
            astra.data2d.delete(handle)
    astra.projector.delete(projector)
    return found


def main(grids: list[int]) -> None:
    """Print the table."""
    print(
        f"{'grid':>5} {'ours CPU-s':>11} {'ASTRA CPU-s':>12} {'ratio':>6} {'rms voxel':>10} {'projection CPU-s':>17}"
    )
    for n in grids:
        labels = sample(n)
        ours = best(lambda labels=labels: project_thickness(labels, 1.0, ANGLES, 4)) / len(ANGLES)
        few = range(n // 2, n // 2 + 8)  # eight slices tell what all cost
        peer = best(lambda labels=labels, few=few: astra_sinograms(labels, few)) / len(ANGLES) * n / len(few)
        paths = project_thickness(labels, 1.0, ANGLES, 4)[:, 3, n // 2]
        difference = np.sqrt(np.mean((paths - astra_sinograms(labels, range(n // 2, n // 2 + 1))[0, 2]) ** 2))
        voxel = 320e-6 / n
        geometry = ScanGeometry(uniform_angles(8), voxel, 5e-3)
        simulator = ScanSimulator(labels, voxel, MATERIALS, geometry, Beam(5.0), Detector(), 1)
        whole = best(lambda simulator=simulator: simulator.projections(slice(0, 4))) / 4
        print(f"{n:>5} {ours:>11.4f} {peer:>12.3f} {peer / ours:>6.1f} {difference:>10.4f} {whole:>17.3f}")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [128, 256])
