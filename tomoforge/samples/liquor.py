"""Mother liquor finds its shape: volume-preserving wetting relaxation on voxels.

Threshold dynamics minimises the surface energy of liquor, solids and vapour with the contact angles of Young's law:
blur the liquor with a Gaussian, add each blurred solid weighted with (1 + cos θ)/2, and fill the voxels with the
highest sum until the volume is what it was.

References: S. Esedoḡlu, F. Otto, Comm. Pure Appl. Math. 68 (2015) 808; X. Xu, D. Wang, X.-P. Wang,
J. Comput. Phys. 330 (2017) 510 (wetting on solids).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter, label

from tomoforge.compilation import compiled
from tomoforge.errors import InputError

# The Gaussian is cut at this many σ: beyond it lies 0.3 % of its weight.
_TRUNCATE = 3.0
# Relaxed when a step moves less than this share of the volume.
_CONVERGED = 1e-4
# Pieces with less than this share of the liquor are splashes of the bake.
_SPLASH = 0.02

# A solid (z, y, x) bool and the contact angle of the liquor on it [rad].
Wall = tuple[np.ndarray, float]


@dataclass(frozen=True, eq=False)
class Relaxed:
    """Liquor after its relaxation, on the relaxation's grid.

    wet : (z, y, x) bool
    level : (z, y, x) float32, ≥ 0 in the liquor; its zero is the surface to sub-voxel accuracy, and it is defined
        inside the solids too
    steps : taken until nothing moved
    """

    wet: np.ndarray
    level: np.ndarray
    steps: int


def relax_wetting(liquor: np.ndarray, walls: Sequence[Wall], kernel_width: float, iterations: int) -> Relaxed:
    """Relax liquor around solids at constant volume.

    Parameters
    ----------
    liquor : (z, y, x) bool; what lies inside a solid is ignored
    walls : solids (z, y, x) bool with their contact angles [rad], 0 wets completely, π/2 is neutral; where they
        overlap the earlier one counts
    kernel_width : σ of the Gaussian [voxels]; at least 1, or the interface is pinned to the grid
    iterations : most steps

    Raises
    ------
    InputError
        for shapes that differ, an angle outside 0…π, no liquor, or no voxel left free.
    """
    wet = np.asarray(liquor, dtype=bool)
    if wet.ndim != 3 or any(np.shape(solid) != wet.shape for solid, _ in walls):
        raise InputError(
            "liquor and the solids of walls must be (z, y, x) of one shape, got "
            f"{wet.shape} and {', '.join(str(np.shape(solid)) for solid, _ in walls)}"
        )
    for _, angle in walls:
        if not 0 <= angle <= np.pi:
            raise InputError(f"contact angles must lie in 0…π radians, got {angle!r}")
    if not kernel_width >= 1:
        raise InputError(f"kernel_width must be at least 1 voxel, got {kernel_width!r}")
    if iterations < 1:
        raise InputError(f"iterations must be at least 1, got {iterations}")
    free, pull = np.ones(wet.shape, dtype=bool), np.zeros(wet.shape, dtype=np.float32)
    for solid, angle in walls:
        body = np.asarray(solid, dtype=bool) & free
        pull += np.float32((1 + np.cos(angle)) / 2) * _blurred(body, kernel_width)
        free &= ~body
    wet = wet & free
    volume = int(wet.sum())
    if not 0 < volume < int(free.sum()):
        raise InputError(
            f"liquor must fill some of the {int(free.sum())} voxels outside the solids, got {volume}"
        )
    steps, moved = 0, volume
    while steps < iterations and moved >= _CONVERGED * volume:
        steps += 1
        level = _blurred(wet, kernel_width) + pull
        filled, threshold = fill_to_volume(level, free, volume)
        moved = int((filled != wet).sum())
        wet = filled
    return Relaxed(wet, (level - threshold).astype(np.float32), steps)


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


def without_splashes(relaxed: Relaxed, solid: np.ndarray) -> Relaxed:
    """Without small pieces, and without those that no part of the solid (z, y, x) bool holds."""
    pieces, count = label(relaxed.wet)
    if count == 0:
        return relaxed
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    held = np.zeros(count + 1, dtype=bool)
    held[np.unique(pieces[binary_dilation(solid)])] = True
    keep = held & (sizes >= _SPLASH * sizes[1:].sum())
    # The largest stays in any case.
    keep[1 + int(sizes[1:].argmax())] = True
    keep[0] = False
    dropped = ~keep[pieces] & relaxed.wet
    if not dropped.any():
        return relaxed
    # The level rises towards a piece from outside, too: its rim goes with it.
    rim = binary_dilation(dropped, iterations=2) & ~keep[pieces]
    low = -np.abs(relaxed.level).max()
    return Relaxed(relaxed.wet & ~dropped, np.where(rim, np.float32(low), relaxed.level), relaxed.steps)


def place_bubbles(
    wet: np.ndarray, solid: np.ndarray, radii: Sequence[float], rng: np.random.Generator
) -> list[tuple[np.ndarray, float]]:
    """Centres for gas bubbles: under the surface of the liquor, clear of each other; they may sit on a solid.

    wet, solid : (z, y, x) bool; radii [voxels]. Returns (centre (3,) in voxels z, y, x; radius) of those that found
    room, the largest first.
    """
    depth = distance_transform_edt(wet | solid)
    bubbles: list[tuple[np.ndarray, float]] = []
    for radius in sorted(radii, reverse=True):
        room = np.argwhere(wet & (depth > radius + 1.0))
        for centre, size in bubbles:
            room = room[((room - centre) ** 2).sum(axis=1) > (radius + size + 1.0) ** 2]
        if len(room):
            bubbles.append((room[int(rng.integers(len(room)))].astype(np.float64), float(radius)))
    return bubbles


@compiled()
def sample_level(level: np.ndarray, matrix: np.ndarray, offset: np.ndarray, out: np.ndarray) -> None:
    """Interpolate a level linearly on another grid; outside the level's own grid it is −1.

    level : (z, y, x) float32; matrix (3, 3), offset (3,): index in ``level`` = matrix @ index in ``out`` + offset;
    out : (z, y, x) float32, filled
    """
    nz, ny, nx = level.shape
    for k in range(out.shape[0]):
        for j in range(out.shape[1]):
            z0 = matrix[0, 0] * k + matrix[0, 1] * j + offset[0]
            y0 = matrix[1, 0] * k + matrix[1, 1] * j + offset[1]
            x0 = matrix[2, 0] * k + matrix[2, 1] * j + offset[2]
            for i in range(out.shape[2]):
                z, y, x = z0 + matrix[0, 2] * i, y0 + matrix[1, 2] * i, x0 + matrix[2, 2] * i
                if not (0 <= z < nz - 1 and 0 <= y < ny - 1 and 0 <= x < nx - 1):
                    out[k, j, i] = -1.0
                    continue
                a, b, c = int(z), int(y), int(x)
                u, v, w = z - a, y - b, x - c
                near = (1 - v) * ((1 - w) * level[a, b, c] + w * level[a, b, c + 1]) + v * (
                    (1 - w) * level[a, b + 1, c] + w * level[a, b + 1, c + 1]
                )
                far = (1 - v) * ((1 - w) * level[a + 1, b, c] + w * level[a + 1, b, c + 1]) + v * (
                    (1 - w) * level[a + 1, b + 1, c] + w * level[a + 1, b + 1, c + 1]
                )
                out[k, j, i] = (1 - u) * near + u * far


def _blurred(mask: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(mask.astype(np.float32), sigma, truncate=_TRUNCATE, mode="constant", cval=0.0)
