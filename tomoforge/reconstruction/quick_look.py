"""A few slices of a scan in seconds, before hours are spent on all of them."""

import math
from dataclasses import dataclass, replace

import numpy as np

from tomoforge.errors import InputError
from tomoforge.reconstruction.air import AirLevels
from tomoforge.reconstruction.centre import CentreEstimate
from tomoforge.reconstruction.pipeline import back_project, needs_whole_frames, prepare_rows
from tomoforge.reconstruction.recipe import Recipe, Settled
from tomoforge.scan import Scan
from tomoforge.units import kev_to_wavelength

_MOST_BAND = 64  # rows on each side that a look by Paganin's filter spends on its kernel
_KERNEL_LENGTHS = 5.0
_TRIED, _LEAST_STEP = 7, 0.5  # centres of a try-stack, and the least step between them [pixels]


@dataclass(frozen=True)
class QuickLook:
    """A few slices: rows : (z,) detector rows; slices : (z, y, x) float32, µ [1/m]; sinogram : (angle, x) float32 line
    integrals of the middle one as they go into the back-projection; angles : (angle,) of it [rad]."""

    rows: tuple[int, ...]
    slices: np.ndarray
    sinogram: np.ndarray
    angles: np.ndarray


def quick_look(scan: Scan, recipe: Recipe, settled: Settled, *, count: int = 3) -> QuickLook:
    """``count`` slices, evenly spaced over the detector.

    Parameters
    ----------
    scan : Scan; recipe : Recipe; settled : what ``settle`` found

    Notes
    -----
    Slices are those of the whole volume, but where a step needs whole frames: Paganin's filter then sees a band of rows
    only, and a leaning axis is met where it crosses the row instead of being turned upright.
    """
    n_rows = scan.projections.shape[1]
    if count < 1:
        raise InputError(f"count must be at least 1 slice, got {count}")
    rows = sorted({(2 * n + 1) * n_rows // (2 * count) for n in range(count)})
    slices, sinogram, angles = [], np.empty((0, 0), np.float32), np.empty(0)
    for index, row in enumerate(rows):
        ready = prepare_rows(*_band(scan, row, recipe, settled))
        slices.append(back_project(ready, scan.pixel_size, recipe)[0])
        if index == len(rows) // 2:
            sinogram, angles = ready.integrals[:, 0], ready.angles
    return QuickLook(tuple(rows), np.stack(slices), sinogram, angles)


def centres_to_try(estimate: CentreEstimate, n_columns: int, count: int = _TRIED) -> tuple[float, ...]:
    """An odd number of columns about an estimate [pixels], wide enough to hold what its witnesses said."""
    votes = np.array([*estimate.by_row, *([] if estimate.opposite is None else [estimate.opposite])])
    reach = float(np.median(np.abs(votes - estimate.centre))) if votes.size else 0.0
    half = count // 2
    step = max(_LEAST_STEP, math.ceil(2 * reach / half * 2) / 2)
    tried = estimate.centre + step * (np.arange(count) - half)
    return tuple(float(column) for column in tried if 0 <= column <= n_columns - 1)


def _band(scan: Scan, row: int, recipe: Recipe, settled: Settled) -> tuple[Scan, int, int, Recipe, Settled]:
    """The arguments of ``prepare_rows`` that give one row quickly: a scan of the band that it needs."""
    if not needs_whole_frames(recipe, settled):
        return scan, row, row + 1, recipe, settled
    n_rows = scan.projections.shape[1]
    reach = 0
    if recipe.delta_beta is not None:
        area = kev_to_wavelength(scan.energy_kev) * settled.distance * recipe.delta_beta / (4 * math.pi)
        length = math.sqrt(area)  # over which the filter's kernel falls to 1/e [m]
        reach = min(_MOST_BAND, math.ceil(_KERNEL_LENGTHS * length / scan.pixel_size))
    low, high = max(0, row - reach), min(n_rows, row + reach + 1)
    band = replace(
        scan,
        projections=scan.rows(low, high),
        flats=scan.flats[:, low:high],
        darks=scan.darks[:, low:high],
    )
    # ``untilt`` turns about the middle row: above and below, the axis crosses at another column.
    crossing = settled.centre.centre
    if not settled.stitched:  # stitched rows must stay equally wide
        crossing += (row - (n_rows - 1) / 2) * math.tan(settled.tilt)
    here = replace(
        settled,
        centre=replace(settled.centre, centre=crossing),
        tilt=0.0,
        air=None if settled.air is None else _air_of_rows(settled.air, low, high),
        wild=None if settled.wild is None else settled.wild[low:high],
        stand_ins=np.clip(settled.stand_ins[low:high], low, high - 1) - low,
    )
    return band, row - low, row - low + 1, recipe, here


def _air_of_rows(levels: AirLevels, low: int, high: int) -> AirLevels:
    """The same levels, told for the rows ``low:high`` alone."""
    ends = np.linspace(-1, 1, levels.rows)[[low, high - 1]] if levels.rows > 1 else np.zeros(2)
    inside = levels.coefficients.copy()
    inside[:, 0] += levels.coefficients[:, 2] * ends.mean()
    inside[:, 2] *= (ends[1] - ends[0]) / 2
    return replace(levels, coefficients=inside, rows=high - low)
