"""Numbers of a stored volume, read a slab at a time: volumes need not fit into memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tomoforge.errors import InputError
from tomoforge.reconstruction.centre import CentreEstimate
from tomoforge.reconstruction.pipeline import FilteredFrames, prepare_rows
from tomoforge.reconstruction.quality import ReconstructionQuality, reconstruction_quality
from tomoforge.reconstruction.recipe import Recipe, Settled
from tomoforge.scan import Scan
from tomoforge.volumes import SLAB, open_level

_BINS = 2**18  # of the histogram: percentiles to four millionths of the range
_LOOKED_AT = 5  # slices that quality is measured on


def stored_percentiles(path: str | Path, percentages: Sequence[float]) -> list[float]:
    """Percentiles [1/m] of all voxels of a stored volume, by a histogram over its range."""
    low, high = np.inf, -np.inf
    for slab in _slabs(path):
        low, high = min(low, float(slab.min())), max(high, float(slab.max()))
    if not low < high:
        return [low] * len(percentages)
    counts = np.zeros(_BINS, np.int64)
    for slab in _slabs(path):
        counts += np.histogram(slab, bins=_BINS, range=(low, high))[0]
    below = np.cumsum(counts)
    middles = low + (np.arange(_BINS) + 0.5) * (high - low) / _BINS
    wanted = np.asarray(percentages) / 100 * below[-1]
    return [float(middles[min(int(np.searchsorted(below, share)), _BINS - 1)]) for share in wanted]


def stored_quality(
    path: str | Path,
    scan: Scan,
    recipe: Recipe,
    settled: Settled,
    *,
    frames: FilteredFrames | None = None,
) -> ReconstructionQuality:
    """Quality of a stored volume, by a few of its slices and the line integrals that made them."""
    array = open_level(path)
    if array.shape[0] != scan.projections.shape[1]:
        raise InputError(
            f"volume must have a slice for each of the {scan.projections.shape[1]} rows, got {array.shape[0]}"
        )
    count = min(_LOOKED_AT, array.shape[0])
    rows = sorted({(2 * n + 1) * array.shape[0] // (2 * count) for n in range(count)})
    ready = [prepare_rows(scan, row, row + 1, recipe, settled, frames=frames) for row in rows]
    estimate: CentreEstimate | None = None if settled.given else settled.centre
    return reconstruction_quality(
        np.stack([np.asarray(array[row]) for row in rows]),
        np.concatenate([part.integrals for part in ready], axis=1),
        ready[0].angles,
        ready[0].centre,
        estimate,
    )


def _slabs(path: str | Path) -> Iterator[np.ndarray]:
    array = open_level(path)
    for start in range(0, array.shape[0], SLAB):
        yield np.asarray(array[start : start + SLAB])
