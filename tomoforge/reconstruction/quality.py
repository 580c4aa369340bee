"""How far to trust a reconstruction: µ of known materials, and noise, rings, edges, axis and angles of any scan."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from tomoforge.errors import InputError
from tomoforge.reconstruction.angles import checked_angles
from tomoforge.reconstruction.centre import CentreEstimate
from tomoforge.reconstruction.fbp import seen_radius

_FEWEST_VOXELS = 100  # of a material's interior, for a median that means something
_FEWEST_IN_RING = 12
_RINGS_PER_PIXEL = 2
_GAP = 3.0  # usual steps: a wider one is missing angles
_SMOOTH = 2.0  # pixels: what is smoother is structure
_MAD = 1.482602218505602  # σ of a normal distribution over its median absolute deviation


@dataclass(frozen=True)
class InteriorMu:
    """µ of one material in a volume.

    label; median : of its interior [1/m], NaN where it has none; voxels : of the interior; margin : distance from
    every other material that interior voxels keep [m]; thin : True where the material is nowhere thick enough
    to have an interior, so that edge fringes and partial volume decide its values.
    """

    label: int
    median: float
    voxels: int
    margin: float
    thin: bool


def interior_mu(
    volume: np.ndarray,
    labels: np.ndarray,
    voxel_size: float,
    label: int,
    fringe_width: float,
) -> InteriorMu:
    """Median µ of a material, away from the fringes at its edges.

    Parameters
    ----------
    volume : (z, y, x) float [1/m]; labels : (z, y, x) integers, the same grid; voxel_size : float [m].
    label : the material.
    fringe_width : float [m], √(λz), over which propagation spreads an edge.

    Raises
    ------
    InputError
        If volume and labels differ in shape.

    Notes
    -----
    Propagation adds −z∇²δ to a reconstructed µ (transport of intensity); inside a homogeneous material that is
    zero, so voxels further than two fringe widths and two voxels from any edge show µ itself.
    """
    if volume.shape != labels.shape:
        raise InputError(f"labels must have the shape of volume {volume.shape}, got {labels.shape}")
    margin = 2 * fringe_width + 2 * voxel_size
    mask = labels == label
    if mask.any():
        # Only the box around the material: distances beyond it are not asked for.
        box = tuple(slice(max(int(i.min()) - 1, 0), int(i.max()) + 2) for i in np.nonzero(mask))
        interior = distance_transform_edt(mask[box]) * voxel_size > margin
        values = volume[box][interior]
    else:
        values = np.empty(0)
    thin = values.size < _FEWEST_VOXELS
    median = float(np.median(values)) if not thin else float("nan")
    return InteriorMu(label, median, int(values.size), margin, thin)


@dataclass(frozen=True)
class ReconstructionQuality:
    """Numbers that tell a good reconstruction from one to distrust.

    noise : of a voxel [1/m], what is left beside structure and rings;
    ring_strength : rms over radii of what is the same all round the axis and sharp along the radius [1/m];
    edge_residual : line integral at the detector's sides over the largest: 0 where the sample lies in air, towards 1
    where it reaches out of the field; centre_confidence : 1 where all witnesses of the axis agree, ½ at one
    pixel's disagreement, 0 where the search stopped at a bound, NaN where the axis was given;
    angular_completeness : share of the half circle that was measured;
    angular_sampling : angles over the number that the width asks for (π/2 for each column), at most 1.
    """

    noise: float
    ring_strength: float
    edge_residual: float
    centre_confidence: float
    angular_completeness: float
    angular_sampling: float


def reconstruction_quality(
    slices: np.ndarray,
    line_integrals: np.ndarray,
    angles: np.ndarray,
    rotation_centre: float,
    estimate: CentreEstimate | None = None,
) -> ReconstructionQuality:
    """Quality of a reconstruction, from a few of its slices and the line integrals that made them.

    Parameters
    ----------
    slices : (z, y, x) float32, µ [1/m], about the axis; a handful is enough
    line_integrals : (angle, z, x) float32, unitless, of the same rows
    angles : (angle,) float, radians
    rotation_centre : float [pixels], the axis in ``line_integrals``
    estimate : how the axis was found; None where it was given

    Raises
    ------
    InputError
        If the shapes do not fit.
    """
    angles = checked_angles(angles, line_integrals.shape[0])
    if slices.ndim != 3 or line_integrals.ndim != 3 or slices.shape[0] != line_integrals.shape[1]:
        raise InputError(
            f"slices (z, y, x) and line_integrals (angle, z, x) must have the same rows, got {slices.shape} and "
            f"{line_integrals.shape}"
        )
    radius = seen_radius(line_integrals.shape[2], rotation_centre)
    noises, rings = zip(*(_noise_and_rings(image, radius) for image in slices), strict=True)
    return ReconstructionQuality(
        noise=float(np.median(noises)),
        ring_strength=float(np.median(rings)),
        edge_residual=_edge_residual(line_integrals),
        centre_confidence=_confidence(estimate),
        angular_completeness=_completeness(angles),
        angular_sampling=float(min(1.0, 2 * angles.size / (np.pi * line_integrals.shape[2]))),
    )


def _noise_and_rings(image: np.ndarray, radius: float) -> tuple[float, float]:
    """Robust rms of the noise, and rms of the rings, of one slice [1/m]."""
    axis_y, axis_x = (np.arange(n) - (n - 1) / 2 for n in image.shape)
    distance = np.hypot(axis_y[:, np.newaxis], axis_x)
    inside = distance < radius - 3 * _SMOOTH
    if inside.sum() < _FEWEST_VOXELS:
        return float("nan"), float("nan")
    smooth = gaussian_filter(image.astype(np.float64), _SMOOTH, mode="nearest")
    fine = image - smooth
    ring = np.floor(distance * _RINGS_PER_PIXEL).astype(np.int64)[inside]
    members = np.bincount(ring)
    order = np.argsort(ring, kind="stable")
    parts = np.split(fine[inside][order], np.cumsum(members)[:-1])
    profile = np.array([np.median(part) if part.size else 0.0 for part in parts])
    # Noise where the slice is flat: edges of the sample are fine structure too.
    steepness = np.hypot(*np.gradient(smooth))
    flat = steepness[inside] <= np.median(steepness[inside])
    noise = _MAD * float(np.median(np.abs((fine[inside] - profile[ring])[flat])))
    # The median of n voxels scatters by √(π/2) σ/√n: that much is noise, not rings.
    counted = members >= _FEWEST_IN_RING
    power = profile[counted] ** 2 - 0.5 * np.pi * noise**2 / members[counted]
    return noise, float(np.sqrt(max(np.average(power, weights=members[counted]), 0.0)))


def _edge_residual(line_integrals: np.ndarray) -> float:
    n = line_integrals.shape[2]
    band = max(2, n // 50)
    top = float(np.percentile(line_integrals, 99))
    if top <= 0:
        return 0.0
    sides = [float(np.mean(part)) for part in (line_integrals[..., :band], line_integrals[..., n - band :])]
    return float(np.clip(max(abs(side) for side in sides) / top, 0.0, 1.0))


def _confidence(estimate: CentreEstimate | None) -> float:
    if estimate is None:
        return float("nan")
    low, high = estimate.bounds
    if not low + 0.5 < estimate.centre < high - 0.5:
        return 0.0
    apart = 0.0 if estimate.opposite is None else abs(estimate.opposite - estimate.centre)
    return float(1 / (1 + max(estimate.spread, apart) ** 2))


def _completeness(angles: np.ndarray) -> float:
    folded = np.sort(np.mod(angles, np.pi))
    gaps = np.diff(folded, append=folded[0] + np.pi)
    usual = float(np.median(gaps[gaps > 0.1 * np.pi / angles.size]))
    missing = gaps[gaps > _GAP * usual] - usual
    return float(1 - missing.sum() / np.pi)
