"""What is asked of a reconstruction, in SI, and what of it only the scan itself can settle."""

import logging
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tomoforge.config import ReconstructionSettings
from tomoforge.errors import InputError
from tomoforge.reconstruction.air import AirLevels, find_air, measure_air
from tomoforge.reconstruction.arcs import TurnKind, full_turn_kind, stitched_width, turn_kind
from tomoforge.reconstruction.centre import CentreEstimate, find_centre
from tomoforge.reconstruction.fbp import Filter
from tomoforge.reconstruction.normalise import bad_pixels, normalise
from tomoforge.reconstruction.repair import stand_in_rows, wild_pixels
from tomoforge.reconstruction.stripes import StripeMethod
from tomoforge.reconstruction.tilt import find_tilt
from tomoforge.scan import Scan
from tomoforge.units import deg_to_rad, mm_to_m

logger = logging.getLogger(__name__)

Method = Literal["fbp", "sirt", "cgls", "astra-fbp", "gridrec"]
GIB = 2**30
_TOLERANCE = 1.0  # pixels that witnesses of the axis may differ by, as in find_centre
_WILD_FRAMES = 32  # projections that tell how restless a pixel is
_WILD_VALUES = 2**26  # of them held at a time


@dataclass(frozen=True)
class Recipe:
    """How a scan becomes a volume. The defaults change nothing but counts into µ.

    method, iterations, filter : of the back-projection; rotation_centre : column [pixels], None to search within
    centre_bounds : (lowest, highest) column [pixels]; zingers, stripes : repairs; delta_beta : of Paganin's one
    material, None for none; distance : sample to detector [m], None for the scan's; half_acquisition : whether a full
    turn is stitched; air : columns of air at both sides [pixels], 0 for no scaling; tilt : of the axis [rad];
    floor : least transmission; slab_rows : rows at a time, None for what memory [bytes] allows.
    """

    method: Method = "fbp"
    filter: Filter = "ramp"
    iterations: int = 100
    rotation_centre: float | None = None
    centre_bounds: tuple[float, float] | None = None
    zingers: bool = False
    stripes: StripeMethod = "none"
    delta_beta: float | None = None
    distance: float | None = None
    half_acquisition: Literal["auto", "yes", "no"] = "auto"
    air: int | Literal["auto"] = 0
    tilt: float | Literal["auto"] = 0.0
    floor: float = 1e-4
    slab_rows: int | None = None
    memory: int = 2 * GIB

    @classmethod
    def of(cls, settings: ReconstructionSettings) -> "Recipe":
        """The recipe that ``settings``, in the units people type, ask for."""
        bounds = None
        if settings.centre_from is not None and settings.centre_to is not None:
            bounds = (settings.centre_from, settings.centre_to)
        return cls(
            method=settings.method,
            filter=settings.filter,
            iterations=settings.iterations,
            rotation_centre=settings.rotation_centre,
            centre_bounds=bounds,
            zingers=settings.zingers,
            stripes=settings.stripes,
            delta_beta=settings.delta_beta,
            distance=None if settings.distance_mm is None else mm_to_m(settings.distance_mm),
            half_acquisition=settings.half_acquisition,
            air=settings.air_px,
            tilt="auto" if settings.tilt_deg == "auto" else deg_to_rad(settings.tilt_deg),
            floor=settings.floor,
            slab_rows=settings.slab_rows,
            memory=int(settings.memory_gib * GIB),
        )


@dataclass(frozen=True)
class Settled:
    """What the scan itself settles of a recipe, once for all slabs and workers.

    centre : the axis; given : whether it was given rather than found; turn : how the projections serve; tilt [rad];
    air : level of the air at each angle, None where nothing is scaled; wild : (y, x) bool, pixels that answer to
    something other than the beam, None where they are not looked for; stand_ins : (y,) the detector row that is read
    for each slice, another one where a row has no usable pixel; distance : for Paganin's filter [m].
    """

    centre: CentreEstimate
    given: bool
    turn: TurnKind
    tilt: float
    air: AirLevels | None
    wild: np.ndarray | None
    stand_ins: np.ndarray
    distance: float

    @property
    def stitched(self) -> bool:
        """Whether projections half a turn apart are joined to wider ones."""
        return self.turn == "half acquisition"


def settle(scan: Scan, recipe: Recipe) -> Settled:
    """Find what ``recipe`` leaves to the scan: axis, tilt, kind of turn, air.

    Parameters
    ----------
    scan : Scan
    recipe : Recipe

    Returns
    -------
    settled : Settled; look at ``settled.centre.agreed`` before trusting the volume

    Raises
    ------
    InputError
        If the recipe does not fit the scan: a centre beside the detector, Paganin's filter without a distance, a half
        acquisition without a full turn.
    """
    distance = paganin_distance(scan, recipe)
    columns = scan.projections.shape[2]
    # The tilt first: a leaning axis crosses every row at another column.
    tilt = find_tilt(scan, bounds=recipe.centre_bounds) if recipe.tilt == "auto" else recipe.tilt
    if recipe.rotation_centre is None:
        estimate = _upright(find_centre(scan, bounds=recipe.centre_bounds), tilt, scan.projections.shape[1])
    else:
        estimate = _given_centre(recipe.rotation_centre, columns)
    return Settled(
        centre=estimate,
        given=recipe.rotation_centre is not None,
        turn=settled_turn(scan, recipe, estimate.centre),
        tilt=float(tilt),
        air=_air(scan, recipe.air),
        wild=_wild(scan) if recipe.zingers else None,
        stand_ins=stand_in_rows(scan.flats, scan.darks),
        distance=distance,
    )


def paganin_distance(scan: Scan, recipe: Recipe) -> float:
    """Sample to detector [m] for Paganin's filter; 0 where it is not asked for.

    Raises InputError where it is and nobody knows the distance.
    """
    if recipe.delta_beta is None:
        return 0.0
    distance = scan.propagation_distance if recipe.distance is None else recipe.distance
    if not distance:
        raise InputError(
            "delta_beta asks for Paganin's filter, which needs the distance from sample to detector, and the scan "
            "says none; give distance_mm, or leave delta_beta out"
        )
    return float(distance)


def settled_turn(scan: Scan, recipe: Recipe, centre: float) -> TurnKind:
    """How the projections serve: as the recipe says, else as angles and axis look. Raises InputError."""
    if recipe.half_acquisition == "auto":
        return full_turn_kind(scan, centre)
    # An axis in the middle tells only whether the turn is full.
    turn = turn_kind(scan.angles, scan.projections.shape[2], (scan.projections.shape[2] - 1) / 2)
    if recipe.half_acquisition == "no":
        return turn
    if turn == "half turn":
        raise InputError(
            f"half_acquisition needs projections over a full turn, got {np.degrees(np.ptp(scan.angles)):.1f} degrees; "
            "set it to auto or no"
        )
    return "half acquisition"


def slice_width(n_columns: int, settled: Settled) -> int:
    """Pixels along the sides of a reconstructed slice."""
    return stitched_width(n_columns, settled.centre.centre)[0] if settled.stitched else n_columns


def _upright(estimate: CentreEstimate, tilt: float, n_rows: int) -> CentreEstimate:
    """The estimates of single rows moved along a leaning axis to the middle row, where they must agree."""
    if tilt == 0:
        return estimate
    offsets = np.array(estimate.rows) - (n_rows - 1) / 2
    by_row = np.array(estimate.by_row) - offsets * np.tan(tilt)
    centre = float(np.median(by_row))
    spread = float(np.subtract(*np.percentile(by_row, [75, 25])))
    paired = estimate.opposite is None or abs(estimate.opposite - centre) <= _TOLERANCE
    low, high = estimate.bounds
    agreed = bool(paired and spread <= _TOLERANCE and low + 0.5 < centre < high - 0.5)
    moved = tuple(float(column) for column in by_row)
    return replace(estimate, centre=centre, spread=spread, agreed=agreed, by_row=moved)


def _air(scan: Scan, asked: int | Literal["auto"]) -> AirLevels | None:
    if asked == 0:
        return None
    left, right = find_air(scan) if asked == "auto" else (asked, asked)
    if left + right == 0:
        logger.warning("no side of the detector shows air at every angle: nothing is scaled to it")
        return None
    return measure_air(scan, left, right)


def _wild(scan: Scan) -> np.ndarray:
    """(y, x) bool: pixels that flicker or are stuck, by a few neighbouring projections in the middle of the scan.

    From the whole scan and row by row, so that slabs do not matter.
    """
    n_angles, n_rows, n_columns = scan.projections.shape
    first = max(0, (n_angles - _WILD_FRAMES) // 2)
    frames = slice(first, min(n_angles, first + _WILD_FRAMES))
    wild = np.zeros((n_rows, n_columns), bool)
    rows_at_once = max(1, _WILD_VALUES // (_WILD_FRAMES * n_columns))
    for start in range(0, n_rows, rows_at_once):
        rows = slice(start, min(start + rows_at_once, n_rows))
        usable = np.flatnonzero(~_dark_rows(scan, rows)) + rows.start
        if usable.size == 0:
            continue
        counts = scan.projections[frames, rows][:, usable - rows.start]
        transmission = normalise(counts, scan.flats[:, usable], scan.darks[:, usable])
        wild[usable] = wild_pixels(transmission)
    return wild & ~wild.all(axis=1, keepdims=True)


def _dark_rows(scan: Scan, rows: slice) -> np.ndarray:
    """(y,) bool: rows without any usable pixel."""
    return bad_pixels(scan.flats[:, rows], scan.darks[:, rows]).all(axis=1)


def _given_centre(centre: float, columns: int) -> CentreEstimate:
    if not 0 <= centre <= columns - 1:
        raise InputError(
            f"rotation_centre must be a column of the detector, 0 to {columns - 1}, got {centre}"
        )
    return CentreEstimate(float(centre), 0.0, True, (), (), None, (0.0, columns - 1.0))
