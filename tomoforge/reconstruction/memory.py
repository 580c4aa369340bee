"""How many rows or frames at a time keep a worker within its memory."""

import math

from tomoforge.errors import InputError
from tomoforge.reconstruction.recipe import GIB, Recipe, Settled, slice_width
from tomoforge.scan import Scan
from tomoforge.volumes import SLAB

# On the safe side of what was measured: of 1.2 GiB, 900 × 1024 columns used 0.74; of 3 GiB, 1800 × 2048 columns used
# 1.73; of 2.5 GiB, Paganin's filter of 2048 × 2048 frames used 0.87 (test_rows_at_once__keeps_within_memory).
_PROGRAM = 0.35 * GIB  # the interpreter and its libraries
_VALUE_COPIES = 28  # bytes a value of the sinograms, beside the counts: float32 before and after each step
_ZINGER_COPIES = 12  # more, while zingers are looked for
_STITCHED_COPIES = 16  # more, a value of the wider projections
_PLAN = 64  # bytes a value of one padded sinogram: the plan's points, phases and spectra
_GRID = 24  # bytes a point of the transform's grid, twice as fine as the slice
_FRAME_COPIES = 44  # bytes a pixel of every frame of a batch, beside the counts
_FRAME_SCRATCH = 80  # bytes a pixel of one frame while it is filtered, padding included
_MOST_FRAMES = 64


def fixed_memory(scan: Scan, recipe: Recipe, settled: Settled) -> float:
    """Bytes a worker needs however few rows it holds: program, references, plan, and a slab of the volume."""
    n_angles, _, n_columns = scan.projections.shape
    width = slice_width(n_columns, settled)
    plan = _PLAN * n_angles * width + _GRID * (2 * width) ** 2
    return _PROGRAM + scan.flats.nbytes + scan.darks.nbytes + plan + 4 * SLAB * width**2


def row_memory(scan: Scan, recipe: Recipe, settled: Settled) -> float:
    """Bytes a worker needs for each detector row that it holds."""
    n_angles, _, n_columns = scan.projections.shape
    width = slice_width(n_columns, settled)
    copies = scan.projections.dtype.itemsize + _VALUE_COPIES + (_ZINGER_COPIES if recipe.zingers else 0)
    stitched = _STITCHED_COPIES * n_angles * width if settled.stitched else 0
    return copies * n_angles * n_columns + stitched + 4 * width**2


def rows_at_once(scan: Scan, recipe: Recipe, settled: Settled) -> int:
    """Detector rows that fit into ``recipe.memory`` at a time, at most a slab of the stored volume.

    Raises
    ------
    InputError
        If not even one does; the message says how much would do.
    """
    fixed, row = fixed_memory(scan, recipe, settled), row_memory(scan, recipe, settled)
    rows = int((recipe.memory - fixed) // row)
    if rows < 1:
        raise InputError(
            f"memory_gib must be at least {_rounded_up(fixed + row)} for {scan.projections.shape[0]} projections of "
            f"{scan.projections.shape[2]} columns, got {recipe.memory / GIB:g}; or use fewer workers with more each"
        )
    return min(rows, SLAB)


def frames_at_once(scan: Scan, recipe: Recipe) -> int:
    """Whole frames that fit into ``recipe.memory`` at a time. Raises InputError if not even one does."""
    pixels = scan.projections.shape[1] * scan.projections.shape[2]
    fixed = _PROGRAM + scan.flats.nbytes + scan.darks.nbytes + _FRAME_SCRATCH * pixels
    each = (scan.projections.dtype.itemsize + _FRAME_COPIES) * pixels
    if recipe.zingers:
        fixed += 4 * each  # the frames on both sides
    frames = int((recipe.memory - fixed) // each)
    if frames < 1:
        raise InputError(
            f"memory_gib must be at least {_rounded_up(fixed + each)} to filter whole frames of "
            f"{scan.projections.shape[1]} × {scan.projections.shape[2]} pixels, got {recipe.memory / GIB:g}; "
            "or use fewer workers with more each"
        )
    return min(frames, _MOST_FRAMES)


def _rounded_up(size: float) -> float:
    return math.ceil(10 * size / GIB) / 10
