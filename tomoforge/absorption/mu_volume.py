"""The linear attenuation coefficient µ of a material from the inside of its label in a quantitative reconstruction."""

import numpy as np
from scipy import ndimage
from scipy.stats import t as student_t

from tomoforge.absorption.mu_fit import FEWEST_BLOCKS
from tomoforge.absorption.mu_measurement import VOLUME, MuEstimate, robust_spread
from tomoforge.absorption.paths import label_grid
from tomoforge.errors import InputError
from tomoforge.seeds import component_rng

_TILE = 8  # voxels: reconstruction noise and rings are correlated within a cube of these
_MOST_VOXELS = 60_000
_REPLICATES = 400
_FRINGED = 2.0  # spread of the rim over that inside


def mu_from_volume(
    volume: np.ndarray,
    labels: np.ndarray,
    label: int,
    *,
    erosion: int = 2,
    least_voxels: int = 500,
    seed: int = 0,
) -> MuEstimate:
    """µ of one material as the median of a quantitative reconstruction inside its label.

    Parameters
    ----------
    volume : (z, y, x) float [1/m]
    labels : (z, y, x) integers, the same grid
    label : int
    erosion : int [voxels], how much of the label's rim is left out: partial volumes, fringes, blur
    least_voxels : int, fewer than these are refused
    seed : int, of the bootstrap

    Returns
    -------
    MuEstimate; its interval redraws cubes of 8 voxels, inside which reconstruction noise is correlated

    Raises
    ------
    InputError
        for shapes that differ, a label with too few voxels after erosion or in too few cubes, values that are not
        finite.
    """
    grid = label_grid(labels)
    values = np.asarray(volume)
    if values.shape != grid.shape:
        raise InputError(f"volume and labels must have one shape, got {values.shape} and {grid.shape}")
    inner = _interior(grid, label, erosion)
    place = np.flatnonzero(inner)
    if len(place) < least_voxels:
        raise InputError(
            f"label {label} must keep {least_voxels} voxels, but {erosion} voxels inside its surface there are "
            f"{len(place)} of {int(np.sum(grid == label))}; lower erosion or least_voxels"
        )
    if len(place) > _MOST_VOXELS:
        chosen = component_rng(seed, "mu.volume.voxels", label).choice(
            len(place), _MOST_VOXELS, replace=False
        )
        place = np.sort(place[chosen])
    inside = values.reshape(-1)[place].astype(np.float64)
    if not np.isfinite(inside).all():
        raise InputError(f"volume must be finite inside label {label}, got NaN or infinity")
    z, y, x = (axis // _TILE for axis in np.unravel_index(place, grid.shape))
    cubes = (z * (grid.shape[1] // _TILE + 1) + y) * (grid.shape[2] // _TILE + 1) + x
    medians = _block_medians(inside, cubes, component_rng(seed, "mu.volume.bootstrap", label))
    mu, error = float(np.median(inside)), float(medians.std(ddof=1))
    reach = float(student_t.ppf(0.975, len(np.unique(cubes)) - 1)) * error
    return MuEstimate(
        label, mu, mu - reach, mu + reach, error, VOLUME, len(place), 0,
        _volume_notes(values, grid, label, erosion, mu),
    )  # fmt: skip


def _volume_notes(
    values: np.ndarray, grid: np.ndarray, label: int, erosion: int, mu: float
) -> tuple[str, ...]:
    notes = []
    air = values[_interior(grid, 0, erosion + 2)] if (grid == 0).any() else values[:0]
    if len(air) >= 500:
        offset = float(np.median(air))
        error = 1.2533 * robust_spread(air - offset) / np.sqrt(len(air) / _TILE**3 + 1)
        if abs(offset) > max(0.02 * abs(mu), 4 * error):
            notes.append(
                f"the background has an offset: the reconstructed air has a median of {offset:+.3g} 1/m instead of 0"
            )
    rim = (grid == label) & ~_interior(grid, label, 1)
    inner = values[_interior(grid, label, erosion)]
    if rim.sum() >= 200:
        ratio = robust_spread(values[rim] - np.median(values[rim])) / max(
            robust_spread(inner - np.median(inner)), 1e-300
        )
        overshoot = float(
            np.mean(values[rim] > np.median(inner) + 4 * robust_spread(inner - np.median(inner)))
        )
        if ratio > _FRINGED and overshoot > 0.1:
            notes.append(
                f"{100 * overshoot:.0f} % of the rim of label {label} lie far above its inside: phase fringes or "
                "wrong labels; widen the erosion and look at the slices"
            )
    return tuple(notes)


def _interior(grid: np.ndarray, label: int, erosion: int) -> np.ndarray:
    if erosion < 0:
        raise InputError(f"erosion must be at least 0 voxels, got {erosion}")
    mask = grid == label
    if not mask.any():
        raise InputError(f"labels hold no voxel of label {label}")
    if erosion == 0:
        return mask
    # The edge of the volume cuts the object, it is not its surface.
    return ndimage.binary_erosion(mask, iterations=erosion, border_value=1)


def _block_medians(values: np.ndarray, blocks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(replicate,) medians when blocks are drawn with replacement."""
    _, block = np.unique(blocks, return_inverse=True)
    block = block.reshape(-1)
    count = int(block.max()) + 1
    if count < FEWEST_BLOCKS:
        raise InputError(
            f"voxels must lie in {FEWEST_BLOCKS} cubes of {_TILE} voxels or more for an interval, got {count}"
        )
    order = np.argsort(values)
    ranked, member = values[order], block[order]
    medians = np.empty(_REPLICATES)
    for i in range(_REPLICATES):
        times = rng.multinomial(count, np.full(count, 1 / count))
        total = np.cumsum(times[member])
        medians[i] = ranked[np.searchsorted(total, total[-1] / 2)]
    return medians
