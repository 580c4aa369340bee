"""How many planes a sample needs: the choice from wavelength, depth and pixel, and its check by doubling.

One plane puts the whole sample at the rotation axis. Then a feature at depth w is propagated over z instead of
z − w: wrong by w/z where the contrast still grows with distance, and by up to λw/4dx² turns of the finest fringes.
More planes follow the depth, and refraction and diffraction inside the sample (multislice).
"""

from collections.abc import Sequence

import numpy as np

from tomoforge.backend import array_module, to_host
from tomoforge.errors import InputError
from tomoforge.geometry import ScanGeometry
from tomoforge.optics.forward import SpectralLine, spectral_intensity

TOLERANCE = 0.005  # rms of the intensity's error over its contrast
_LEAST = 5  # planes: two to four are worse than one
_DOUBLINGS = 4
_CHECKED_ROWS = 4

# Fitted from above to the errors of a 290 µm crystal in liquor in a loop against 301 planes, 3 to 12 keV, 0.3 and
# 1 µm pixels, 5 to 50 mm (benchmarks/propagation.py planes).
_PER_DEPTH_RATIO = 0.07  # one plane, for T/z
_PER_NUMBER = 0.016  # one plane, for λT/dx²
_PER_SPACING = 0.02  # several planes, for λ(T/(m − 1))/dx²


def choose_planes(
    depth: float, pixel_size: float, wavelength: float, distance: float, *, tolerance: float = TOLERANCE
) -> int:
    """Planes that keep the error of the intensity under ``tolerance`` (rms, of the image's contrast).

    depth : T, of the sample along the beam [m]; pixel_size : dx, of the detector at the sample [m]; wavelength : λ
    [m]; distance : z, effective, to the detector [m].

    With N = λT/dx², one plane is taken where 0.07·T/z + 0.016·N is at most half the tolerance; else m planes, odd
    and at least 5, with 0.02·N/(m − 1) at most 0.7 of it. A 300 µm sample takes at the default 9 planes at 0.3 µm
    and 3 keV, 7 at 5 keV, 5 at 12 keV, and one at 1 µm, 3 to 12 keV and 50 mm. A detector within the
    sample's depth (contact) takes one: nothing is propagated then that a plane could place better.

    Raises InputError for sizes that are not positive.
    """
    for name, value in (("pixel_size", pixel_size), ("wavelength", wavelength), ("tolerance", tolerance)):
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} must be positive, got {value!r}")
    for name, value in (("depth", depth), ("distance", distance)):
        if not (np.isfinite(value) and value >= 0):
            raise InputError(f"{name} must be zero or positive metres, got {value!r}")
    if distance <= depth / 2:
        return 1
    number = wavelength * depth / pixel_size**2
    if _PER_DEPTH_RATIO * depth / distance + _PER_NUMBER * number <= tolerance / 2:
        return 1
    intervals = int(np.ceil(_PER_SPACING * number / (0.7 * tolerance)))
    return max(_LEAST, 1 + intervals + intervals % 2)


def sample_depth(labels: np.ndarray, voxel_size: float) -> float:
    """Diameter of the circle about the rotation axis that holds every labelled voxel [m]; 0 for none.

    labels : (z, y, x), any integers, 0 the background; on the host or on a GPU.
    """
    shadow = to_host(array_module(labels).max(labels, axis=0)) != 0
    y, x = np.nonzero(shadow)
    if y.size == 0:
        return 0.0
    cy, cx = ((n - 1) / 2 for n in shadow.shape)
    # Half a voxel's diagonal farther than its centre.
    return float(2 * voxel_size * (np.hypot(y - cy, x - cx).max() + np.sqrt(0.5)))


def planes_error(
    labels: np.ndarray,
    voxel_size: float,
    lines: Sequence[SpectralLine],
    geometry: ScanGeometry,
    angles: np.ndarray,
    planes: int,
    *,
    depth_extent: float | None = None,
    source_distance: float | None = None,
    oversampling: int = 2,
) -> float:
    """Estimated error of the intensity with ``planes`` planes, rms over the rms contrast, by doubling them.

    labels : (z, y, x) uint8, a few rows are enough; angles : (angle,) [rad], a few; the rest as
    ``tomoforge.optics.forward.spectral_intensity``.

    Returns the difference from nine planes for one plane; for m planes 1.5 times the difference from 2m − 1: the
    error falls with their spacing to a power between one and two. 0 for an image without contrast.
    """
    depth = sample_depth(labels, voxel_size) if depth_extent is None else depth_extent
    if depth == 0:
        return 0.0
    finer = 9 if planes == 1 else 2 * planes - 1
    coarse, fine = (
        to_host(
            spectral_intensity(
                labels,
                voxel_size,
                lines,
                geometry,
                angles,
                0.0,
                oversampling,
                planes=count,
                depth_extent=depth,
                source_distance=source_distance,
            )
        ).astype(float)
        for count in (planes, finer)
    )
    contrast = fine.std()
    if contrast < 1e-6:  # rounding of float32
        return 0.0
    return float((1 if planes == 1 else 1.5) * np.sqrt(np.mean((coarse - fine) ** 2)) / contrast)


def automatic_planes(
    labels: np.ndarray,
    voxel_size: float,
    lines: Sequence[SpectralLine],
    geometry: ScanGeometry,
    *,
    distance: float,
    depth: float,
    source_distance: float | None = None,
    tolerance: float = TOLERANCE,
) -> int:
    """The choice of ``choose_planes`` at the longest wavelength that matters, doubled until its check holds.

    Checked on four rows in the middle of the sample at the first angle and one a third of the scan on. Lines with
    less than 1 % of the intensity do not count. distance : effective [m]; depth : of the sample [m].
    """
    total = sum(line.weight for line in lines)
    counted = [line for line in lines if line.weight >= 0.01 * total] or list(lines)
    longest = max(counted, key=lambda line: line.wavelength)
    planes = choose_planes(depth, geometry.pixel_size, longest.wavelength, distance, tolerance=tolerance)
    if distance <= depth / 2 or depth == 0:
        return planes
    rows = to_host(array_module(labels).max(labels, axis=(1, 2)))
    middle = int(np.median(np.nonzero(rows)[0]))
    few = labels[max(middle - _CHECKED_ROWS // 2, 0) : middle + _CHECKED_ROWS // 2]
    angles = geometry.angles[[0, len(geometry.angles) // 3]]
    for _ in range(_DOUBLINGS):
        error = planes_error(
            few,
            voxel_size,
            [longest],
            geometry,
            angles,
            planes,
            depth_extent=depth,
            source_distance=source_distance,
        )
        if error <= tolerance:
            break
        planes = _LEAST if planes == 1 else 2 * planes - 1
    return planes
