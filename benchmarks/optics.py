"""Forged projections: thickness of all materials against two peers on the CPU, and a whole projection, in one run.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/optics.py [grid …]

CPU-s is processor time of this process for one angle, best of three, kernels compiled and labels loaded beforehand.
First table: "ours" holds a 900th of the table of label runs, which is made once a volume (900 angles a scan). The
peers project one material at a time; their times are for three materials. ASTRA: its linear projector in 8 slices;
scipy: each mask rotated (order 1) and summed in 4 slices; both scaled to all slices. The differences are rms over
the sinogram of the crystal's middle slice, in voxels.

Second table: the cost goes with the runs of equal labels along z, so grains and pure noise are shown beside the
sample; the peers' times would be those of the first table for all of them.
"""

import sys
import time
from collections.abc import Callable

import astra
import numpy as np
import scipy.ndimage

from tomoforge.geometry import ScanGeometry, uniform_angles
from tomoforge.optics.detector import Detector
from tomoforge.optics.materials import find_material
from tomoforge.optics.scan import Beam, ScanSimulator
from tomoforge.optics.thickness import label_runs, project_thickness

ANGLES = np.array([0.3, 1.1, 2.0, 2.9])
SCAN = 900  # angles that share one table of runs
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


def rotated_sinograms(labels: np.ndarray, slices: range) -> np.ndarray:
    """The same by turning each slice and summing along the beam."""
    found = np.empty((len(slices), 3, len(ANGLES), labels.shape[2]), np.float32)
    for row, z in enumerate(slices):
        for label in (1, 2, 3):
            mask = (labels[z] == label).astype(np.float32)
            for n, angle in enumerate(ANGLES):
                turned = scipy.ndimage.rotate(mask, np.rad2deg(angle), reshape=False, order=1)
                found[row, label - 1, n] = turned.sum(axis=0)
    return found


def grains(n: int, sigma: float) -> np.ndarray:
    """Three materials and background in grains of ``sigma`` voxels, 0 for noise from voxel to voxel."""
    field = np.random.default_rng(1).standard_normal((n, n, n), dtype=np.float32)
    if sigma:
        field = scipy.ndimage.gaussian_filter(field, sigma, mode="wrap")
    return np.digitize(field, np.quantile(field[::8, ::8, ::8], [0.4, 0.6, 0.8])).astype(np.uint8)


def runs_table(grids: list[int]) -> None:
    """How the cost goes with the number of runs and of planes."""
    print(
        f"{'grid':>5} {'labels':>8} {'runs/column':>12} {'MB':>7} {'table CPU-s':>12} {'1 plane CPU-s':>14} "
        f"{'9 planes CPU-s':>15}"
    )
    for n in grids:
        kinds = {
            "sample": lambda n=n: sample(n),
            "grains": lambda n=n: grains(n, 4),
            "noise": lambda n=n: grains(n, 0),
        }
        for name, make in kinds.items():
            labels = make()
            table = best(lambda labels=labels: label_runs(labels))
            runs = label_runs(labels)
            one, nine = (
                best(lambda runs=runs, planes=planes: project_thickness(runs, 1.0, ANGLES, 4, planes=planes))
                / len(ANGLES)
                for planes in (1, 9)
            )
            print(
                f"{n:>5} {name:>8} {len(runs.runs) / n**2:>12.1f} {runs.nbytes / 1e6:>7.1f} {table:>12.4f} "
                f"{one:>14.5f} {nine:>15.5f}"
            )


def peers_table(grids: list[int]) -> None:
    """Ours against the peers, on the same sample."""
    print(
        f"{'grid':>5} {'ours CPU-s':>11} {'ASTRA CPU-s':>12} {'ratio':>6} {'rms voxel':>10} "
        f"{'scipy CPU-s':>12} {'ratio':>6} {'rms voxel':>10}"
    )
    for n in grids:
        labels = sample(n)
        runs = label_runs(labels)
        share = best(lambda labels=labels: label_runs(labels)) / SCAN
        taken = best(lambda runs=runs: project_thickness(runs, 1.0, ANGLES, 4)) / len(ANGLES) + share
        ours = project_thickness(runs, 1.0, ANGLES, 4)[:, 3, n // 2]
        cells = ""
        for peer, slices in ((astra_sinograms, 8), (rotated_sinograms, 4)):
            few = range(n // 2, n // 2 + slices)
            theirs = best(lambda peer=peer, labels=labels, few=few: peer(labels, few))
            theirs *= n / slices / len(ANGLES)
            rms = np.sqrt(np.mean((ours - peer(labels, few)[0, 2]) ** 2))
            cells += f" {theirs:>12.3f} {theirs / taken:>6.0f} {rms:>10.4f}"
        print(f"{n:>5} {taken:>11.5f}{cells}")


def main(grids: list[int]) -> None:
    """Print the tables."""
    peers_table(grids)
    print()
    runs_table(grids)
    print(f"\n{'grid':>5} {'projection CPU-s':>17}")
    for n in grids:
        voxel = 320e-6 / n
        geometry = ScanGeometry(uniform_angles(8), voxel, 5e-3)
        simulator = ScanSimulator(sample(n), voxel, MATERIALS, geometry, Beam(5.0), Detector(), 1)
        whole = best(lambda simulator=simulator: simulator.projections(slice(0, 4))) / 4
        print(f"{n:>5} {whole:>17.3f}")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [128, 256, 512])
