"""Propagation and whole projections: time, accuracy and memory, against numpy and the peers that are installed.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=2 python benchmarks/propagation.py [speed] [growth] [planes]

speed : propagation at 2048² (padding included in ours, left out for the others), and one projection of labels of 512³
to a wave of 2048² and a frame of 512², each step by itself, on one and two threads.
growth : processor time and peak memory of batches against the number of angles and the grid, each in a process of its
own; 900 projections at 512³ from the time of one.
planes : error of the intensity against 301 planes by number of planes, the table behind ``planes="auto"``.

Processor time is of this process, best of three after a call that compiles; wall time of a shared machine varies.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import scipy.fft

from tomoforge.geometry import ScanGeometry, uniform_angles
from tomoforge.optics.detector import Detector
from tomoforge.optics.forward import SpectralLine, intensity_from_thickness, spectral_intensity
from tomoforge.optics.materials import RefractiveIndex, find_material
from tomoforge.optics.planes import choose_planes, planes_error, sample_depth
from tomoforge.optics.propagation import angular_spectrum_propagate, fresnel_propagate
from tomoforge.optics.scan import Beam, ScanSimulator
from tomoforge.optics.thickness import label_runs, project_thickness
from tomoforge.units import kev_to_wavelength

NAMES = ("ammonium_sulfate_liquor", "nylon", "ammonium_sulfate_crystal")
MATERIALS = {label: find_material(name) for label, name in enumerate(NAMES, start=1)}


def best(work: Callable[[], object]) -> tuple[float, float]:
    """Least processor and wall time [s] of three calls, after one that compiles."""
    work()
    taken = []
    for _ in range(3):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        taken.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(t[0] for t in taken), min(t[1] for t in taken)


def line_at(energy_kev: float) -> SpectralLine:
    """A monochromatic line with the materials of the sample."""
    constants = [
        RefractiveIndex(0.0, 0.0, 0.0),
        *(m.refractive_index(energy_kev) for m in MATERIALS.values()),
    ]
    return SpectralLine(kev_to_wavelength(energy_kev), 1.0, tuple(constants))


def sample(n: int) -> np.ndarray:
    """Crystal in liquor in a loop: (z, y, x) uint8, made slab by slab."""
    labels = np.zeros((n, n, n), np.uint8)
    y, x = ((np.indices((n, n), dtype=np.float32) - (n - 1) / 2) / n)[:]
    for iz in range(n):
        z = (iz - (n - 1) / 2) / n
        labels[iz][(x / 0.4) ** 2 + (y / 0.3) ** 2 + (z / 0.45) ** 2 < 1] = 1
        labels[iz][(np.hypot(x, z) - 0.38) ** 2 + y**2 < 0.03**2] = 2
        if abs(z) < 0.2:
            labels[iz][(np.abs(x) < 0.12) & (np.abs(y - 0.05) < 0.1)] = 3
    return labels


def numpy_propagate(wave: np.ndarray, pixel: float, distance: float, wavelength: float) -> np.ndarray:
    """The textbook, complex128, no padding."""
    fy, fx = (np.fft.fftfreq(n, pixel) for n in wave.shape)
    transfer = np.exp(-1j * np.pi * wavelength * distance * (fy[:, None] ** 2 + fx**2))
    return np.fft.ifft2(np.fft.fft2(wave) * transfer)


def speed() -> None:
    """Propagation at 2048², and a whole projection."""
    n, pixel, distance, wavelength = 2048, 0.3e-6, 5e-3, kev_to_wavelength(5.0)
    u = (np.arange(n) - n / 2) * pixel
    wave = 1 - 0.5 * np.exp(-(u[:, None] ** 2 + u**2) / (60e-6) ** 2) * np.exp(0.3j)
    exact = numpy_propagate(wave, pixel, distance, wavelength)
    single = wave.astype(np.complex64)
    fy, fx = (np.fft.fftfreq(n, pixel) for _ in range(2))
    ready = np.exp(-1j * np.pi * wavelength * distance * (fy[:, None] ** 2 + fx**2)).astype(np.complex64)

    def scipy_pair() -> np.ndarray:
        return scipy.fft.ifft2(scipy.fft.fft2(single) * ready, overwrite_x=True)

    arguments = (pixel, distance, wavelength)
    rows = [
        ("numpy complex128, transfer made each time", lambda: numpy_propagate(wave, *arguments)),
        ("numpy complex128, transfer kept", lambda: np.fft.ifft2(np.fft.fft2(wave) * ready)),
        ("scipy complex64, transfer kept", scipy_pair),
        ("ours complex64, padded", lambda: fresnel_propagate(single, *arguments)),
        ("ours complex64, padded, 2 threads", lambda: fresnel_propagate(single, *arguments, threads=2)),
        ("ours angular spectrum complex64, padded", lambda: angular_spectrum_propagate(single, *arguments)),
    ]
    pair = _pyfftw_pair(single, ready)
    if pair is not None:
        rows.insert(3, ("pyFFTW complex64 in place, estimated plan, transfer kept", pair))
    print(f"{'propagation at 2048²':<58} {'CPU-s':>7} {'wall-s':>7} {'worst error':>12}")
    for name, work in rows:
        cpu, wall = best(work)
        print(f"{name:<58} {cpu:>7.3f} {wall:>7.3f} {np.abs(work() - exact).max():>12.1e}")
    _projection_speed()


def _pyfftw_pair(single: np.ndarray, transfer: np.ndarray) -> Callable[[], np.ndarray] | None:
    try:
        import pyfftw
    except ImportError:
        print("pyFFTW is not installed: not run")
        return None
    buffer = pyfftw.empty_aligned(single.shape, "complex64")
    there, back = (
        pyfftw.FFTW(buffer, buffer, axes=(0, 1), direction=direction, flags=("FFTW_ESTIMATE",))
        for direction in ("FFTW_FORWARD", "FFTW_BACKWARD")
    )

    def pair() -> np.ndarray:
        buffer[:] = single
        there.execute()
        buffer[:] *= transfer
        back(normalise_idft=True)
        return buffer

    return pair


def _projection_speed() -> None:
    n, oversampling = 512, 4
    labels, voxel = sample(n), 0.6e-6
    line, runs = line_at(5.0), label_runs(labels)
    depth = sample_depth(labels, voxel)
    # Peers' figures at 2048², thickness to intensity (FACTS): not measured in this run.
    print(f"\n{'512³ labels → 2048² wave → 512² frame':<58} {'CPU-s':>7} {'wall-s':>7}")
    for planes in (1, 5):
        options = {"planes": planes, "depth_extent": depth} if planes > 1 else {}

        def thickness(options: dict = options) -> np.ndarray:
            return project_thickness(runs, voxel, np.array([0.4]), 4, oversampling=oversampling, **options)

        maps = thickness()[0]
        depths = np.linspace(-depth / 2, depth / 2, planes) if planes > 1 else np.zeros(1)
        maps = maps if planes > 1 else maps[None]
        print(f"{f'thickness, {planes} plane(s)':<58} {best(thickness)[0]:>7.3f} {best(thickness)[1]:>7.3f}")
        for threads in (1, 2):

            def intensity(
                maps: np.ndarray = maps, depths: np.ndarray = depths, threads: int = threads
            ) -> object:
                return intensity_from_thickness(
                    maps, depths, [line], voxel, 5e-3, 0.4, oversampling, threads=threads
                )

            cpu, wall = best(intensity)
            print(
                f"{f'thickness → intensity, {planes} plane(s), {threads} thread(s)':<58} {cpu:>7.3f} {wall:>7.3f}"
            )
    geometry = ScanGeometry(uniform_angles(8), voxel, 5e-3)
    for threads in (1, 2):
        simulator = ScanSimulator(
            labels, voxel, MATERIALS, geometry, Beam(5.0), Detector(), 1, oversampling, threads=threads
        )
        cpu, wall = best(lambda simulator=simulator: simulator.projections(slice(0, 4)))
        name = f"whole projection to counts, 1 plane, {threads} thread(s), of a batch of 4"
        print(f"{name:<58} {cpu / 4:>7.3f} {wall / 4:>7.3f}")


BATCH = 30  # angles


def _measure(n: int, angles: int, connection) -> None:
    labels = sample(n)
    geometry = ScanGeometry(uniform_angles(900), 320e-6 / n, 5e-3)
    simulator = ScanSimulator(labels, 320e-6 / n, MATERIALS, geometry, Beam(5.0), Detector(), 1)
    simulator.projections(slice(0, 1))
    start = time.process_time()
    for first in range(
        0, angles, BATCH
    ):  # as the workers do; the frames of a batch go to a file of their own
        simulator.projections(slice(first, min(first + BATCH, angles)))
    taken = time.process_time() - start
    connection.send((taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, labels.nbytes / 2**20))


def growth() -> None:
    """Time and memory of scans against angles and grid, in batches."""
    context = multiprocessing.get_context("spawn")
    print(
        f"\n{'grid':>5} {'angles':>7} {'CPU-s':>8} {'CPU-s/angle':>12} {'ns/angle/voxel':>15} {'peak MiB':>9} "
        f"{'labels MiB':>11} {'frames MiB':>11}"
    )
    for n, angles in ((128, 30), (256, 30), (256, 90), (256, 900), (512, 30), (512, 900)):
        here, there = context.Pipe()
        process = context.Process(target=_measure, args=(n, angles, there))
        process.start()
        taken, peak, labels = here.recv()
        process.join()
        each = taken / angles
        print(
            f"{n:>5} {angles:>7} {taken:>8.2f} {each:>12.4f} {1e9 * each / n**3:>15.3f} {peak:>9.0f} {labels:>11.0f} "
            f"{min(angles, BATCH) * n * n * 6 / 2**20:>11.0f}",
            flush=True,
        )


def section(n: int, voxel: float) -> np.ndarray:
    """One row of a 290 µm crystal in liquor in a loop: (1, y, x) uint8."""
    y, x = (np.indices((n, n)) - (n - 1) / 2) * voxel * 1e6
    labels = np.zeros((n, n), np.uint8)
    labels[(x / 145) ** 2 + (y / 120) ** 2 < 1] = 1
    for cx, cy in ((-138, 0), (100, 85)):
        labels[(x - cx) ** 2 + (y - cy) ** 2 < 10**2] = 2
    u, v = x * np.cos(0.3) + y * np.sin(0.3), y * np.cos(0.3) - x * np.sin(0.3)
    labels[(np.abs(u - 20) < 80) & (np.abs(v + 10) < 60)] = 3
    return labels[None]


def planes() -> None:
    """Error against 301 planes, rms over contrast in per cent."""
    counts = (1, 5, 7, 9, 17, 33)
    heading = "".join(f"{count:>8}" for count in counts)
    print(f"\n{'pixel µm':>8} {'keV':>5} {'mm':>4} {'λT/dx²':>7} {heading}  chosen  estimate")
    for voxel, columns, distances in ((0.3e-6, 1024, (5e-3, 20e-3)), (1e-6, 320, (5e-3, 50e-3))):
        labels = section(columns, voxel)
        depth = sample_depth(labels, voxel)
        for energy, distance in ((e, z) for e in (3.0, 5.0, 12.0) for z in distances):
            line, geometry = line_at(energy), ScanGeometry(np.array([0.0, 0.3, 1.1]), voxel, distance)

            def intensity(count: int, line=line, geometry=geometry, labels=labels, voxel=voxel, depth=depth):
                return spectral_intensity(
                    labels, voxel, [line], geometry, geometry.angles, 0.0, planes=count, depth_extent=depth
                )

            reference = intensity(301)
            errors = [
                100 * np.sqrt(np.mean((intensity(count) - reference) ** 2)) / reference.std()
                for count in counts
            ]
            chosen = choose_planes(depth, voxel, line.wavelength, distance)
            estimate = 100 * planes_error(
                labels, voxel, [line], geometry, geometry.angles, chosen, depth_extent=depth
            )
            number = line.wavelength * depth / voxel**2
            row = "".join(f"{error:>8.3f}" for error in errors)
            place = f"{voxel * 1e6:>8.1f} {energy:>5.0f} {distance * 1e3:>4.0f} {number:>7.3f}"
            print(f"{place} {row}  {chosen:>6} {estimate:>9.3f}", flush=True)


if __name__ == "__main__":
    parts = {"speed": speed, "growth": growth, "planes": planes}
    for word in sys.argv[1:] or parts:
        parts[word]()
