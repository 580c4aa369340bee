"""How well a reconstruction gives back the attenuation of known materials."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from tomoforge.errors import InputError

_FEWEST_VOXELS = 100  # of a material's interior, for a median that means something


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
