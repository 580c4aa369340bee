"""Whether the angles of a scan can be trusted: their unit, span, order, repeats and gaps."""

import numpy as np

from tomoforge.beamline.findings import Finding

_SAME_ANGLE = 1e-6  # [rad], finer than any encoder
_HALF_TURN, _LEAST_ARC, _MOST_ARC = np.radians(175.0), np.radians(90.0), np.radians(3700.0)
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0  # of half a turn or a whole one, from each projection to the next
_GOLDEN_TOLERANCE = 2e-3  # of the turn; set-points are often rounded to 0.1°
_USUAL_STEPS = 5.0  # a gap is wider than so many


def judge_angles(angles: np.ndarray) -> tuple[list[Finding], list[Finding]]:
    """Warnings and refusals about ``angles`` (angle,) [rad] in the order of the projections.

    Notes
    -----
    Ascending, descending and golden-ratio order are as good as each other and say nothing. A golden-ratio
    series is known by its constant increment of 0.618 (or 0.382) of half a turn or a whole one, wound up or
    not.

    References
    ----------
    T. Kohler, IEEE NSS Conference Record (2004) 3961: projection orders by the golden ratio.
    """
    golden = is_golden(angles)
    if golden:
        angles = np.mod(angles, 2 * np.pi if np.ptp(np.mod(angles, 2 * np.pi)) > np.pi else np.pi)
    warnings, refusals = _judge_span(angles)
    ordered = np.sort(angles)
    steps = np.diff(ordered)
    doubled = int(np.count_nonzero(steps <= _SAME_ANGLE))
    if doubled:
        finding = Finding(
            "duplicate angles",
            f"{doubled} of {angles.size} projections repeat an angle",
            "check whether the motor stuck, and drop the repeats",
        )
        (refusals if doubled > angles.size // 2 else warnings).append(finding)
    turns = np.diff(angles)
    if not golden and angles.size > 2 and np.any(turns < 0) and np.any(turns > 0):
        warnings.append(
            Finding(
                "angle order",
                f"the angles turn back {min(np.sum(turns < 0), np.sum(turns > 0))} times",
                "make sure that angles and frames are in the same order; any order can be reconstructed",
            )
        )
    # Golden-ratio steps have three lengths by nature, never one five times the usual.
    warnings += _judge_gaps(ordered, steps)
    return warnings, refusals


def is_golden(angles: np.ndarray) -> bool:
    """Whether each angle [rad] is the last one plus a golden section of half a turn or of a whole one."""
    if angles.size < 5:
        return False
    steps = np.diff(angles)
    for turn in (np.pi, 2 * np.pi):
        part = np.mod(steps / turn, 1.0)
        for golden in (_GOLDEN, 1.0 - _GOLDEN):
            if np.all(np.abs(part - golden) < _GOLDEN_TOLERANCE):
                return True
    return False


def _judge_span(angles: np.ndarray) -> tuple[list[Finding], list[Finding]]:
    span = float(np.ptp(angles))
    if span > _MOST_ARC:
        return [], [
            Finding("angular span", f"{np.degrees(span):.0f} degrees", "say degrees in the file's units")
        ]
    if span < _LEAST_ARC:
        return [], [
            Finding(
                "angular span",
                f"{np.degrees(span):.2f} degrees is too little for a tomogram",
                "check the unit of the angles, and whether the motor moved",
            )
        ]
    if span + span / max(1, angles.size - 1) < _HALF_TURN:
        return [
            Finding(
                "angular span",
                f"{np.degrees(span):.1f} degrees is less than half a turn: values come out too low",
                "distrust µ, give the rotation centre, and reconstruct with sirt or cgls",
            )
        ], []
    return [], []


def _judge_gaps(ordered: np.ndarray, steps: np.ndarray) -> list[Finding]:
    distinct = steps[steps > _SAME_ANGLE]
    if distinct.size <= 2 or distinct.max() <= _USUAL_STEPS * np.median(distinct):
        return []
    after = ordered[:-1][steps == distinct.max()][0]
    return [
        Finding(
            "angle gap",
            f"{np.degrees(distinct.max()):.2f} degrees without a projection after "
            f"{np.degrees(after):.2f}, against a usual step of {np.degrees(np.median(distinct)):.3f}",
            "look for lost frames; streaks in that direction are to be expected",
        )
    ]
