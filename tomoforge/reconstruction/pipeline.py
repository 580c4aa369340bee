"""From counts to µ for any rows of a scan: the same bytes whatever the slab, and whoever computes it.

Everything works row by row, but for Paganin's filter and the tilt, which need whole frames. Those run first, by batches
of angles (``prepare_frames``), and leave line integrals that are then read by rows like a scan.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, assert_never

import h5py
import numpy as np

from tomoforge.errors import InputError, ScanError
from tomoforge.reconstruction.adapters import AstraFilter, astra_fbp, tomopy_reconstruct
from tomoforge.reconstruction.air import scale_air
from tomoforge.reconstruction.arcs import stitch_half_acquisition
from tomoforge.reconstruction.fbp import Filter, fbp
from tomoforge.reconstruction.iterative import cgls, sirt
from tomoforge.reconstruction.memory import frames_at_once, rows_at_once
from tomoforge.reconstruction.normalise import bad_pixels, normalise
from tomoforge.reconstruction.normalise import line_integrals as to_line_integrals
from tomoforge.reconstruction.phase import paganin
from tomoforge.reconstruction.recipe import Recipe, Settled, settle
from tomoforge.reconstruction.repair import (
    ZINGER_ANGLE_MARGIN,
    remove_reference_zingers,
    remove_zingers,
    repair_pixels,
)
from tomoforge.reconstruction.stripes import remove_stripes
from tomoforge.reconstruction.tilt import untilt
from tomoforge.scan import FRAMES, Scan, batch_slices

logger = logging.getLogger(__name__)

_HALF_BAD = 0.5  # of the pixels of some rows: normalisation refuses far more


@dataclass(frozen=True)
class SlabReport:
    """What had to be done to the counts of some rows: clipped : transmissions raised to the floor; zingers : values
    replaced; repaired : dead and wild pixels, of the detector."""

    clipped: int = 0
    zingers: int = 0
    repaired: int = 0

    def __add__(self, other: "SlabReport") -> "SlabReport":
        return SlabReport(
            self.clipped + other.clipped, self.zingers + other.zingers, self.repaired + other.repaired
        )


class FilteredFrames(Protocol):
    """Line integrals that the whole-frame steps left, read by rows."""

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Line integrals of detector rows ``start:stop``: (angle, y, x) float32."""
        ...


@dataclass(frozen=True)
class StoredFrames:
    """Filtered frames in files, a batch of angles each.

    paths : batch files (``write_frame_batch``) in the order of the angles.
    """

    paths: tuple[str, ...]

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Line integrals of detector rows ``start:stop``: (angle, y, x) float32."""
        parts = []
        for path in self.paths:
            with h5py.File(path, "r") as file:
                parts.append(file[FRAMES][:, start:stop])
        return np.concatenate(parts)


@dataclass(frozen=True)
class _HeldFrames:
    """Filtered frames in memory, of the detector rows from ``first`` on only."""

    integrals: np.ndarray
    first: int

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self.integrals[:, start - self.first : stop - self.first].copy()


@dataclass(frozen=True)
class Prepared:
    """Line integrals of some rows, ready for back-projection.

    integrals : (angle, y, x) float32; angles : (angle,) [rad]; centre : column of the axis [pixels].
    """

    integrals: np.ndarray
    angles: np.ndarray
    centre: float
    report: SlabReport = field(default_factory=SlabReport)


def needs_whole_frames(recipe: Recipe, settled: Settled) -> bool:
    """Whether a step of the recipe looks beyond a detector row."""
    return recipe.delta_beta is not None or settled.tilt != 0


def reconstruct_rows(
    scan: Scan,
    start: int,
    stop: int,
    recipe: Recipe,
    centre: float | Settled | None = None,
    *,
    frames: FilteredFrames | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, SlabReport]:
    """Attenuation of the slices that belong to detector rows ``start:stop``.

    Parameters
    ----------
    scan : Scan, counts
    start, stop : int, detector rows
    recipe : Recipe
    centre : column of the axis [pixels], or all that ``settle`` found; None settles here
    frames : what ``prepare_frames`` left, where the recipe needs whole frames; without, those steps are done here
        for all frames, however few rows are asked for
    progress : called with (rows done, rows in all)

    Returns
    -------
    slab : (z, y, x) float32, µ [1/m]; report : SlabReport

    Raises
    ------
    InputError
        If rows or recipe do not fit the scan.

    Notes
    -----
    The rows are worked through in pieces that keep within ``recipe.memory``. A row's bytes depend neither on the
    piece nor on the slab it is in.
    """
    settled = _settled(scan, recipe, centre)
    n_rows = scan.projections.shape[1]
    if not 0 <= start < stop <= n_rows:
        raise InputError(f"rows must be 0 ≤ start < stop ≤ {n_rows}, got {start} and {stop}")
    step = recipe.slab_rows or rows_at_once(scan, recipe, settled)
    slab: np.ndarray | None = None
    total = SlabReport()
    if frames is None and needs_whole_frames(recipe, settled):
        frames, total = _filtered_here(scan, start, stop, recipe, settled)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        ready = prepare_rows(scan, first, last, recipe, settled, frames=frames)
        part = back_project(ready, scan.pixel_size, recipe)
        if slab is None:
            slab = np.empty((stop - start, *part.shape[1:]), np.float32)
        slab[first - start : last - start] = part
        total += ready.report
        if progress is not None:
            progress(last - start, stop - start)
    assert slab is not None
    return slab, total


def prepare_rows(
    scan: Scan,
    start: int,
    stop: int,
    recipe: Recipe,
    settled: Settled,
    *,
    frames: FilteredFrames | None = None,
) -> Prepared:
    """Line integrals of detector rows ``start:stop`` as they go into the back-projection.

    Arguments as for ``reconstruct_rows``. Sinograms lose their stripes before a full turn is stitched: a stripe stands
    in one column of the detector.
    """
    if not needs_whole_frames(recipe, settled):
        integrals, report = _row_integrals(scan, start, stop, recipe, settled)
    else:
        report = SlabReport()
        if frames is None:
            frames, report = _filtered_here(scan, start, stop, recipe, settled)
        integrals = frames.rows(start, stop)
    if recipe.stripes != "none":
        for row in range(integrals.shape[1]):
            integrals[:, row] = remove_stripes(integrals[:, row], recipe.stripes)
    if settled.stitched:
        return Prepared(*stitch_half_acquisition(integrals, scan.angles, settled.centre.centre), report)
    return Prepared(integrals, scan.angles, settled.centre.centre, report)


def back_project(prepared: Prepared, pixel_size: float, recipe: Recipe) -> np.ndarray:
    """µ [1/m] of prepared rows by the recipe's method: (z, y, x) float32. pixel_size [m]."""
    given = (prepared.integrals, prepared.angles, pixel_size, prepared.centre)
    method = recipe.method
    if method == "fbp":
        return fbp(*given, recipe.filter)
    if method == "sirt":
        return sirt(*given, recipe.iterations)
    if method == "cgls":
        return cgls(*given, recipe.iterations)
    if method == "astra-fbp":
        return astra_fbp(*given, _ASTRA_FILTERS[recipe.filter])
    if method == "gridrec":
        return tomopy_reconstruct(*given, "gridrec")
    assert_never(method)


_ASTRA_FILTERS: dict[Filter, AstraFilter] = {
    "ramp": "ram-lak",
    "shepp-logan": "shepp-logan",
    "hann": "hann",
    "parzen": "parzen",
}


def prepare_frames(
    scan: Scan, batch: slice, recipe: Recipe, settled: Settled
) -> tuple[np.ndarray, SlabReport]:
    """Line integrals of whole projections after the steps that look beyond a row.

    Parameters
    ----------
    scan : Scan, counts
    batch : slice of projections
    recipe, settled : what is asked and what ``settle`` found

    Returns
    -------
    line_integrals : (angle, y, x) float32, of µ; report : SlabReport. A frame's bytes do not depend on the batch.
    """
    rows = np.arange(scan.projections.shape[1])
    transmission, report = _transmission(scan, batch, rows, recipe, settled)
    if settled.air is not None:
        levels = replace(settled.air, coefficients=settled.air.coefficients[batch])
        transmission = scale_air(transmission, levels)
    transmission = untilt(transmission, settled.tilt, settled.centre.centre)
    if recipe.delta_beta is None:
        integrals, clipped = to_line_integrals(transmission, recipe.floor)
    else:
        integrals = paganin(
            transmission,
            scan.pixel_size,
            settled.distance,
            recipe.delta_beta,
            scan.energy_kev,
            floor=recipe.floor,
        )
        clipped = int(np.count_nonzero(integrals >= np.float32(-np.log(recipe.floor))))
    return integrals, SlabReport(clipped, report.zingers, report.repaired if batch.start == 0 else 0)


def _filtered_here(
    scan: Scan, start: int, stop: int, recipe: Recipe, settled: Settled
) -> tuple[FilteredFrames, SlabReport]:
    """Whole frames filtered batch by batch, of which only the detector rows ``start:stop`` are kept."""
    count = scan.projections.shape[0]
    held = np.empty((count, stop - start, scan.projections.shape[2]), np.float32)
    total = SlabReport()
    for batch in batch_slices(count, frames_at_once(scan, recipe)):
        whole, report = prepare_frames(scan, batch, recipe, settled)
        held[batch] = whole[:, start:stop]
        total += report
    return _HeldFrames(held, start), total


def _row_integrals(
    scan: Scan, start: int, stop: int, recipe: Recipe, settled: Settled
) -> tuple[np.ndarray, SlabReport]:
    transmission, report = _transmission(
        scan, slice(0, scan.projections.shape[0]), np.arange(start, stop), recipe, settled
    )
    if settled.air is not None:
        transmission = scale_air(transmission, settled.air, start)
    integrals, clipped = to_line_integrals(transmission, recipe.floor)
    return integrals, SlabReport(clipped, report.zingers, report.repaired)


def _transmission(
    scan: Scan, angles: slice, rows: np.ndarray, recipe: Recipe, settled: Settled
) -> tuple[np.ndarray, SlabReport]:
    """Flat-corrected, repaired projections ``angles``: (angle, y, x) float32 of consecutive detector ``rows``."""
    count = scan.projections.shape[0]
    margin = ZINGER_ANGLE_MARGIN if recipe.zingers else 0
    wide = slice(max(0, angles.start - margin), min(count, angles.stop + margin))
    inner = slice(angles.start - wide.start, angles.stop - wide.start)
    read = settled.stand_ins[rows]
    bad = bad_pixels(scan.flats[:, read], scan.darks[:, read])
    transmission = _normalised(scan, wide, read, bad, recipe)
    wild = None if settled.wild is None else settled.wild[read]
    if wild is not None and wild.any():
        transmission = repair_pixels(transmission, wild)
        bad = bad | wild
    zingers = 0
    if recipe.zingers:
        clean, _ = remove_zingers(transmission)
        zingers = int(np.count_nonzero(clean[inner] != transmission[inner]))
        transmission = clean
    return transmission[inner], SlabReport(0, zingers, int(np.count_nonzero(bad)))


def _normalised(scan: Scan, angles: slice, read: np.ndarray, bad: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Flat-corrected counts of the detector rows ``read`` (rising), of which ``bad`` (y, x) pixels are dead."""
    low, high = int(read.min()), int(read.max()) + 1
    counts = scan.projections[angles, low:high]
    if not np.array_equal(read, np.arange(low, high)):
        counts = counts[:, read - low]
    flats, darks = scan.flats[:, read], scan.darks[:, read]
    if recipe.zingers:
        flats, darks = (remove_reference_zingers(frames)[0] for frames in (flats, darks))
    if counts.dtype.kind == "f" and angles.stop - angles.start == scan.projections.shape[0]:
        counts = _without_lost_lines(counts)
    if bad.mean() <= _HALF_BAD:
        return normalise(counts, flats, darks)
    # Rows beside the beam are normalised beside as many lit ones, as a larger slab would have them: what is refused
    # as swapped references must not depend on the slab.
    lit = [np.pad(part, [(0, 0), (0, read.size), (0, 0)], constant_values=n) for part, n in
           ((counts, 1), (flats, 1), (darks, 0))]  # fmt: skip
    return normalise(*lit)[:, : read.size]


def _without_lost_lines(counts: np.ndarray) -> np.ndarray:
    """``counts`` (angle, y, x) with lines that were lost whole taken from the nearest frame that has them.

    Normalisation would copy a neighbouring row, which may lie in another slab.
    """
    lost = ~np.isfinite(counts).any(axis=2)
    if not lost.any():
        return counts
    filled = counts.copy()
    for row in np.flatnonzero(lost.any(axis=0)):
        good = np.flatnonzero(~lost[:, row])
        if good.size == 0:
            raise ScanError("a detector row has no finite value in any projection; leave it out")
        for angle in np.flatnonzero(lost[:, row]):
            filled[angle, row] = counts[good[np.argmin(np.abs(good - angle))], row]
    return filled


def _settled(scan: Scan, recipe: Recipe, centre: float | Settled | None) -> Settled:
    if isinstance(centre, Settled):
        return centre
    return settle(scan, recipe if centre is None else replace(recipe, rotation_centre=float(centre)))
