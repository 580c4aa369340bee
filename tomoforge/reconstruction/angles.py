"""How much of the half circle each projection stands for."""

import logging

import numpy as np

from tomoforge.errors import InputError

logger = logging.getLogger(__name__)

# A gap is a missing wedge, not coarse sampling, when it is both wide and unlike its fellows.
_WEDGE_LEAST = np.radians(5.0)
_WEDGE_RATIO = 5.0


def checked_angles(angles: np.ndarray, count: int | None = None) -> np.ndarray:
    """``angles`` [rad] as (angle,) float64.

    Raises
    ------
    InputError
        Unless they are a non-empty list of finite numbers, ``count`` of them where it is given.
    """
    checked = np.asarray(angles, dtype=np.float64)
    if checked.ndim != 1 or checked.size == 0:
        raise InputError(f"angles must be a non-empty (angle,) list in radians, got {checked.shape}")
    if not np.isfinite(checked).all():
        raise InputError(
            f"angles must be finite radians, got {np.sum(~np.isfinite(checked))} that are not; "
            "drop those projections"
        )
    if count is not None and checked.size != count:
        raise InputError(
            f"angles must have one entry for each projection ({count}), got {checked.size}; "
            "were flats and darks left among them?"
        )
    return checked


def angle_weights(angles: np.ndarray) -> np.ndarray:
    """Width of the half circle [rad] nearest to each angle: its Voronoi cell modulo π.

    A projection at θ + π is the mirror image of the one at θ, so all angles are folded onto [0, π) and
    their circular cells add up to π. That one rule serves half turns with or without the end point (the
    doubled direction is shared), full turns, over-scans, uneven steps and any order.

    Parameters
    ----------
    angles : (angle,) float, radians, any order

    Returns
    -------
    weights : (angle,) float64, radians; they sum to π unless a wedge is missing

    Notes
    -----
    A single gap wider than 5° and five times the usual step is a missing wedge. Its measured neighbours
    are not stretched over it, which would only turn into streaks: the wedge counts as one usual step and
    a warning is logged, since values are then too low.
    """
    angles = checked_angles(angles)
    folded = np.mod(angles, np.pi)
    order = np.argsort(folded, kind="stable")
    ordered = folded[order]
    gaps = np.diff(ordered, append=ordered[0] + np.pi)  # gaps[i] follows ordered[i], round the circle
    widest = int(np.argmax(gaps))
    # Full turns fold into pairs: their near-zero gaps say nothing about the step.
    usual = float(np.median(gaps[gaps > 0.1 * np.pi / angles.size]))
    if angles.size > 1 and gaps[widest] > max(_WEDGE_LEAST, _WEDGE_RATIO * usual):
        logger.warning(
            "the angles leave a wedge of %.1f degrees unmeasured: reconstructed values will be too low",
            np.degrees(gaps[widest]),
        )
        gaps[widest] = usual
    weights = np.empty_like(ordered)
    weights[order] = 0.5 * (gaps + np.roll(gaps, 1))
    return weights
