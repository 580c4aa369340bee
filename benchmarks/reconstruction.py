"""Filtered back-projection of one slice: ours against ASTRA (linear, CPU) and scikit-image, in one run.

    OMP_NUM_THREADS=1 python benchmarks/reconstruction.py [columns angles]

Analytic discs, exact line integrals averaged over detector pixels. CPU-s is processor time of this process
for one slice, plans and geometries made beforehand, best of three. RMSE is against the discs averaged over
pixels, inside 98 % of the field; level is the mean inside the largest disc alone, which should be 1.
"""

import sys
import time
from collections.abc import Callable

import numpy as np

from tomoforge.reconstruction import FbpPlan

# (x, y, radius, value), in half widths of the detector
DISCS = (
    (0.0, 0.0, 0.9, 1.0),
    (0.3, 0.2, 0.2, 0.5),
    (-0.35, 0.1, 0.15, -0.6),
    (0.1, -0.45, 0.12, 0.8),
    (-0.2, -0.3, 0.05, 1.0),
)
DEFAULT_SIZES = ((256, 180), (512, 900))


def discs_in_pixels(n: int) -> list[tuple[float, float, float, float]]:
    return [(x * n / 2, y * n / 2, radius * n / 2, value) for x, y, radius, value in DISCS]


def exact_sinogram(n: int, angles: np.ndarray, shift: float | np.ndarray = 0.0) -> np.ndarray:
    """(angle, x) float32 line integrals, the axis ``shift`` [pixels] to the right of the middle."""
    fine = (np.arange(8 * n) + 0.5) / 8 - n / 2
    middle = np.broadcast_to(shift, angles.shape)
    total = np.zeros((angles.size, 8 * n))
    for x, y, radius, value in discs_in_pixels(n):
        distance = fine - (middle + x * np.cos(angles) + y * np.sin(angles))[:, np.newaxis]
        total += value * 2 * np.sqrt(np.maximum(radius**2 - distance**2, 0))
    return total.reshape(angles.size, n, 8).mean(axis=2).astype(np.float32)


def exact_image(n: int) -> np.ndarray:
    """(y, x) float64 image of the discs, averaged over pixels."""
    fine = (np.arange(4 * n) + 0.5) / 4 - n / 2
    image = np.zeros((4 * n, 4 * n))
    for x, y, radius, value in discs_in_pixels(n):
        image += value * ((fine - x) ** 2 + (fine[:, np.newaxis] - y) ** 2 < radius**2)
    return image.reshape(n, 4, n, 4).mean(axis=(1, 3))


def ours(n: int, angles: np.ndarray) -> Callable[[], np.ndarray]:
    plan, sinogram = FbpPlan(n, angles, 1.0), exact_sinogram(n, angles)
    return lambda: plan(sinogram)


def astra_linear(n: int, angles: np.ndarray) -> Callable[[], np.ndarray]:
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


def skimage_iradon(n: int, angles: np.ndarray) -> Callable[[], np.ndarray]:
    from skimage.transform import iradon

    # It turns about pixel n // 2, not the middle: with even n it is given projections about that pixel,
    # exact ones, so that interpolation is not held against it.
    shift = 0.5 * (1 - np.cos(angles) - np.sin(angles)) if n % 2 == 0 else 0.0
    turned = np.ascontiguousarray(exact_sinogram(n, angles, shift).T)
    return lambda: iradon(turned, theta=-np.degrees(angles), filter_name="ramp", circle=True)


def measure(run: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """The image and the best processor time [s] of three runs."""
    times = []
    for _ in range(3):
        start = time.process_time()
        image = run()
        times.append(time.process_time() - start)
    return image, min(times)


def main(sizes: tuple[tuple[int, int], ...]) -> None:
    print(f"{'columns':>7} {'angles':>6}  {'method':<22} {'CPU-s/slice':>11} {'RMSE':>8} {'level':>8}")
    for n, n_angles in sizes:
        angles = np.arange(n_angles) * np.pi / n_angles
        truth = exact_image(n)
        axis = np.arange(n) - (n - 1) / 2
        radius = np.hypot(axis, axis[:, np.newaxis])
        inside, plain = radius < 0.49 * n, (radius < 0.43 * n) & (truth == 1.0)
        for name, prepare in (
            ("tomoforge NUFFT", ours),
            ("ASTRA FBP linear (CPU)", astra_linear),
            ("scikit-image iradon", skimage_iradon),
        ):
            image, seconds = measure(prepare(n, angles))
            error = np.sqrt(np.mean((image - truth)[inside] ** 2))
            print(
                f"{n:>7} {n_angles:>6}  {name:<22} {seconds:>11.4f} {error:>8.4f} {image[plain].mean():>8.4f}"
            )


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    if len(numbers) % 2:
        sys.exit("give pairs of columns and angles, e.g. 512 900")
    main(tuple(zip(numbers[::2], numbers[1::2], strict=True)) or DEFAULT_SIZES)
