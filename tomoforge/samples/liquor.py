"""Mother liquor finds its shape: volume-preserving wetting relaxation on voxels.

Threshold dynamics minimises the surface energy of liquor, solid and vapour with the contact angle
of Young's law: blur the liquor with a Gaussian, add the blurred solid weighted with (1 + cos θ)/2,
and fill the voxels with the highest sum until the volume is what it was.

References: S. Esedoḡlu, F. Otto, Comm. Pure Appl. Math. 68 (2015) 808; X. Xu, D. Wang, X.-P. Wang,
J. Comput. Phys. 330 (2017) 510 (wetting on solids).
"""

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter, label

from tomoforge.errors import InputError

# The Gaussian is cut at this many σ: beyond it lies 0.3 % of its weight.
_TRUNCATE = 3.0
# Relaxed when a step moves less than this share of the volume.
_CONVERGED = 1e-4


def relax_wetting(
    liquor: np.ndarray,
    solid: np.ndarray,
    contact_angle: float,
    kernel_width: float,
    iterations: int,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Relax liquor around a solid at constant volume.

    Parameters
    ----------
    liquor, solid : (z, y, x) bool; liquor inside the solid is ignored
    contact_angle : float [rad], 0 wets completely, π/2 is neutral
    kernel_width : σ of the Gaussian [voxels]; at least 1, or the interface is pinned to the grid
    iterations : most steps

    Returns
    -------
    relaxed : (z, y, x) bool, as many voxels as ``liquor & ~solid``
    level : (z, y, x) float32, ≥ 0 in the liquor; its zero is the surface to sub-voxel accuracy, and
        it is defined inside the solid too
    steps : int, taken until nothing moved

    Raises
    ------
    InputError
        for shapes that differ, an angle outside 0…π, no liquor, or no voxel left free.
    """
    wet, body = np.asarray(liquor, dtype=bool), np.asarray(solid, dtype=bool)
    if wet.shape != body.shape or wet.ndim != 3:
        raise InputError(f"liquor and solid must be (z, y, x) of one shape, got {wet.shape} and {body.shape}")
    if not 0 <= contact_angle <= np.pi:
        raise InputError(f"contact_angle must lie in 0…π radians, got {contact_angle!r}")
    if not kernel_width >= 1:
        raise InputError(f"kernel_width must be at least 1 voxel, got {kernel_width!r}")
    if iterations < 1:
        raise InputError(f"iterations must be at least 1, got {iterations}")
    wet = wet & ~body
    free = ~body
    volume = int(wet.sum())
    if not 0 < volume < int(free.sum()):
        raise InputError(
            f"liquor must fill some of the {int(free.sum())} voxels outside the solid, got {volume}"
        )
    pull = (1 + np.cos(contact_angle)) / 2 * _blurred(body, kernel_width)
    steps, moved = 0, volume
    while steps < iterations and moved >= _CONVERGED * volume:
        steps += 1
        level = _blurred(wet, kernel_width) + pull
        filled, threshold = fill_to_volume(level, free, volume)
        moved = int((filled != wet).sum())
        wet = filled
    return wet, (level - threshold).astype(np.float32), steps


def fill_to_volume(level: np.ndarray, free: np.ndarray, volume: int) -> tuple[np.ndarray, float]:
    """The ``volume`` free voxels of highest level, and the lowest level among them.

    Ties at the threshold are broken by position in the array, so the count is exact and repeatable.
    """
    values = level[free]
    threshold = np.partition(values, values.size - volume)[values.size - volume]
    chosen = values > threshold
    ties = np.flatnonzero(values == threshold)
    chosen[ties[: volume - int(chosen.sum())]] = True
    filled = np.zeros(level.shape, dtype=bool)
    filled[free] = chosen
    return filled, float(threshold)


def upsample_liquor(level: np.ndarray, solid: np.ndarray, coarseness: float, volume: int) -> np.ndarray:
    """A coarse level set on a finer grid with the same middle, outside the finer solid: one piece.

    Parameters
    ----------
    level : (z, y, x) float32 on the coarse grid, highest in the liquor
    solid : (z, y, x) bool on the fine grid
    coarseness : coarse voxel size over fine voxel size
    volume : fine voxels to fill, before pieces beside the largest are dropped

    Returns
    -------
    (z, y, x) bool on the fine grid
    """
    if not coarseness > 0:
        raise InputError(f"coarseness must be positive, got {coarseness!r}")
    free = ~solid
    if not 0 < volume < int(free.sum()):
        raise InputError(
            f"volume must be within the {int(free.sum())} voxels outside the solid, got {volume}"
        )
    step = 1 / coarseness
    middles = [
        (coarse - 1) / 2 - step * (fine - 1) / 2
        for coarse, fine in zip(level.shape, solid.shape, strict=True)
    ]
    fine_level = affine_transform(
        level, np.full(3, step), middles, output_shape=solid.shape, order=1, mode="nearest"
    )
    filled, _ = fill_to_volume(fine_level, free, volume)
    return largest_component(filled)


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest face-connected piece of a bool volume; all of it where it is empty."""
    pieces, count = label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return pieces == sizes.argmax()


def _blurred(mask: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(mask.astype(np.float32), sigma, truncate=_TRUNCATE, mode="constant", cval=0.0)
