"""Half turns, full turns, and full turns about an axis near the detector's edge, which see twice as wide."""

from typing import Literal

import numpy as np

from tomoforge.errors import InputError
from tomoforge.reconstruction.angles import checked_angles
from tomoforge.scan import Scan

TurnKind = Literal["half turn", "full turn", "half acquisition"]

# Of 360°: a full turn may lack its end point, and a few frames.
FULL_TURN = np.radians(350.0)
_OFFSET_SHARE = 1 / 8  # of the columns: an axis further from the middle was put there on purpose
_LEAST_OVERLAP = 2.0  # columns that both halves must see
_SAME_ANGLE = 1e-6  # rad: a millionth of a radian moves nothing
_SAME_SHARE = 1e-3  # of the angular step


def turn_span(angles: np.ndarray) -> float:
    """Arc covered by the angles [rad], their last step included: 2π for a full turn without its end."""
    ordered = np.sort(checked_angles(angles))
    if ordered.size < 2:
        return 0.0
    return float(ordered[-1] - ordered[0] + np.median(np.diff(ordered)))


def fold_turn(angles: np.ndarray) -> np.ndarray:
    """Angles [rad] after the lowest, within one turn: scans of several turns and golden-ratio orders fold up."""
    angles = checked_angles(angles)
    return np.mod(angles - angles.min(), 2 * np.pi)


def full_turn_kind(scan: Scan, centre: float) -> TurnKind:
    """How the projections of a scan serve: "half turn", "full turn" or "half acquisition"."""
    return turn_kind(scan.angles, scan.projections.shape[2], centre)


def turn_kind(angles: np.ndarray, n_columns: int, centre: float) -> TurnKind:
    """As ``full_turn_kind``, from the angles [rad], the width and the axis [pixels] alone."""
    if turn_span(angles) < FULL_TURN:
        return "half turn"
    offset = abs(centre - (n_columns - 1) / 2)
    return "half acquisition" if offset > _OFFSET_SHARE * n_columns else "full turn"


def stitch_half_acquisition(
    line_integrals: np.ndarray, angles: np.ndarray, centre: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Projections over half a turn, nearly twice as wide, from a full turn about an axis near one edge.

    Parameters
    ----------
    line_integrals : (angle, y, x) float32, −ln(transmission), unitless
    angles : (angle,) float, radians, any order, covering a full turn
    centre : float [pixels], 0-based detector column of the axis

    Returns
    -------
    line_integrals : (angle, y, x) float32 over half a turn, by growing angle
    angles : (angle,) float64, radians, of those
    centre : float [pixels], of the axis in the wider projections

    Raises
    ------
    InputError
        If the angles do not cover a full turn, or the halves do not overlap.

    Notes
    -----
    p(θ + π, u) = p(θ, −u): each projection of the first half turn is continued, beyond the axis, by the mirrored one
    from the second, interpolated between angles where none is exactly opposite and cubically between columns where
    the axis is not on a half pixel. In the overlap a sine ramp passes from one to the other, which hides what
    little they disagree. Each row stands alone.
    """
    angles = checked_angles(angles, line_integrals.shape[0])
    n = line_integrals.shape[2]
    if turn_span(angles) < FULL_TURN:
        raise InputError(
            f"angles must cover a full turn to be stitched, got {np.degrees(turn_span(angles)):.1f} degrees"
        )
    near = min(centre, n - 1 - centre)
    if near < _LEAST_OVERLAP:
        raise InputError(
            f"centre must leave {_LEAST_OVERLAP:g} columns that both halves see, got {centre!r} of {n} columns"
        )
    turned = fold_turn(angles)
    halves = opposite_halves(line_integrals, turned)
    width, start = stitched_width(n, centre)
    column = np.arange(width) + start  # of the detector, beyond its edges included
    weight = _feather(column - centre, centre, n)
    stitched = np.empty((len(halves[0]), line_integrals.shape[1], width), np.float32)
    for index, (one, other) in enumerate(zip(*halves, strict=True)):
        stitched[index] = weight * _sample(one, column) + (1 - weight) * _sample(other, 2 * centre - column)
    return stitched, angles.min() + turned[first_half(turned)], float(centre - start)


def first_half(turned: np.ndarray) -> np.ndarray:
    """Indices of the folded angles [rad] below half a turn, by growing angle."""
    order = np.argsort(turned, kind="stable")
    return order[turned[order] < np.pi - _SAME_ANGLE]


def opposite_halves(line_integrals: np.ndarray, turned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Projections of the first half turn, and for each the one half a turn on: two (angle, y, x) float32.

    line_integrals : (angle, y, x); turned : (angle,) of a full turn, from ``fold_turn``. Where no projection is
    exactly opposite, the two nearest are interpolated.
    """
    order = np.argsort(turned, kind="stable")
    ordered = turned[order]
    chosen = first_half(turned)
    first = np.asarray(line_integrals[chosen], np.float32)
    second = np.empty_like(first)
    for index, one in enumerate(chosen):
        wanted = turned[one] + np.pi
        after = int(np.searchsorted(ordered, wanted - _SAME_ANGLE))
        low, high = order[after - 1], order[after % order.size]
        gap = np.mod(turned[high] - turned[low], 2 * np.pi)
        share = float(np.mod(wanted - turned[low], 2 * np.pi) / gap) if gap > 0 else 1.0
        if share > 1 - _SAME_SHARE:
            second[index] = line_integrals[high]
        else:
            second[index] = (1 - share) * line_integrals[low] + share * line_integrals[high]
    return first, second


def stitched_width(n_columns: int, centre: float) -> tuple[int, int]:
    """Columns of the stitched projections, and the detector column where they start (zero or negative)."""
    far = max(centre, n_columns - 1 - centre)
    if centre >= (n_columns - 1) / 2:  # the other half reaches beyond the last column
        return int(np.floor(centre + far)) + 1, 0
    start = int(np.ceil(centre - far))
    return n_columns - start, start


def _feather(u: np.ndarray, centre: float, n: int) -> np.ndarray:
    """Weight of the first half at ``u`` columns from the axis: w(u) + w(−u) = 1, smooth over the overlap."""
    reach = min(centre, n - 1 - centre)
    ramp = 0.5 * (1 + np.sin(0.5 * np.pi * np.clip(u / reach, -1, 1)))
    return ramp if centre < (n - 1) / 2 else 1 - ramp


def _sample(frame: np.ndarray, column: np.ndarray) -> np.ndarray:
    """``frame`` (y, x) at fractional columns by cubic interpolation, edges held: (y, column)."""
    n = frame.shape[-1]
    base = np.floor(column).astype(np.int64)
    t = (column - base).astype(np.float64)
    weights = (
        -t * (t - 1) * (t - 2) / 6,
        (t + 1) * (t - 1) * (t - 2) / 2,
        -(t + 1) * t * (t - 2) / 2,
        (t + 1) * t * (t - 1) / 6,
    )
    taps = [np.clip(base + k, 0, n - 1) for k in (-1, 0, 1, 2)]
    return sum(frame[:, tap] * weight for tap, weight in zip(taps, weights, strict=True))
