"""Whether flats and darks can be trusted: present, finite, open and closed when they should be, not saturated."""

import numpy as np
from scipy.ndimage import median_filter

from tomoforge.beamline.findings import Finding

_CLOSED = 0.5  # of the brightest flat: below, the shutter was closed or the beam lost
_OPEN = 0.1  # of the beam: a dark that is brighter than the others by more saw light
_DIM_BEAM = 0.05  # of the dark level: a flat that is brighter than its dark by less has no beam to speak of
_DEAD, _HOT = 0.1, 0.5  # of the beam about a pixel: less gain is dead, so much more dark is hot
_MANY_BAD = 0.05  # share of pixels beyond which repair from neighbours is no repair
_NAMED = 5
_AT_CEILING = 4  # pixels of one frame


def judge_references(flats: np.ndarray, darks: np.ndarray) -> tuple[list[Finding], list[Finding]]:
    """Warnings and refusals about ``flats`` and ``darks`` (n, y, x) counts; n may be 0."""
    warnings: list[Finding] = []
    refusals: list[Finding] = []
    for role, frames in (("flats", flats), ("darks", darks)):
        if len(frames) == 0:
            warnings.append(Finding(role, "none were recorded", "record them; until then distrust µ"))
        else:
            _judge_finite(role, frames, warnings, refusals)
    if len(flats) > 1:
        level = _levels(flats)
        if level.min() < _CLOSED * level.max():
            warnings.append(_uneven("flats", level, "look for a closed shutter or a lost beam in some"))
    if len(flats) and len(darks) and not refusals:
        _judge_pair(flats, darks, warnings, refusals)
    full = saturated_share(flats)
    if full > 0.001:
        finding = Finding("saturated flats", f"{full:.1%} of pixels are at their ceiling", "expose less")
        (refusals if full > 0.05 else warnings).append(finding)
    return warnings, refusals


def _judge_finite(role: str, frames: np.ndarray, warnings: list[Finding], refusals: list[Finding]) -> None:
    spoilt = ~np.isfinite(frames)
    if not spoilt.any():
        return
    finding = Finding(
        role, f"{spoilt.sum()} of {spoilt.size} values are not finite", "leave those frames out"
    )
    # Frames are averaged: one value that is not finite spoils its pixel for all.
    (refusals if spoilt.any(axis=0).mean() > _MANY_BAD else warnings).append(finding)


def _judge_pair(
    flats: np.ndarray, darks: np.ndarray, warnings: list[Finding], refusals: list[Finding]
) -> None:
    dark = darks.mean(axis=0, dtype=np.float64)
    span = flats.mean(axis=0, dtype=np.float64) - dark
    reversed_ = ~(span > 0)
    if reversed_.mean() > 0.5:
        refusals.append(
            Finding(
                "flats above darks",
                f"flats do not exceed darks on {reversed_.sum()} of {reversed_.size} pixels",
                "check whether they were swapped, or the shutter stayed closed",
            )
        )
        return
    beam = float(np.median(span[~reversed_]))
    level = float(np.median(dark[np.isfinite(dark)]))
    if beam < _DIM_BEAM * level:
        refusals.append(
            Finding(
                "darks as bright as flats",
                f"the flats exceed the darks ({level:g}) by {beam:.3g} only",
                "record darks with the shutter closed and flats with the beam on",
            )
        )
        return
    levels = _levels(darks)
    if levels.max() > levels.min() + _OPEN * beam:
        warnings.append(_uneven("darks", levels, "look for an open shutter in some, and leave those out"))
    _judge_pixels(span, dark, beam, level, warnings)


def _judge_pixels(
    span: np.ndarray, dark: np.ndarray, beam: float, level: float, warnings: list[Finding]
) -> None:
    known = np.where(np.isfinite(span), span, 0.0)
    neighbours = median_filter(known, size=5, mode="nearest")
    dead = ~(span > 0) | (span < _DEAD * neighbours)
    hot = ~dead & (dark > level + _HOT * beam)
    for rule, bad, what in (
        ("bad pixels", dead, "have a flat that is not above the dark"),
        ("hot pixels", hot, "are bright without beam"),
    ):
        if not bad.any():
            continue
        where = ", ".join(str((int(y), int(x))) for y, x in np.argwhere(bad)[:_NAMED])
        many = bad.mean() > _MANY_BAD
        warnings.append(
            Finding(
                rule,
                f"{bad.sum()} of {bad.size} {what}: {where}" + (", …" if bad.sum() > _NAMED else ""),
                "crop the frames to the beam, or have the detector looked at: so many cannot be repaired"
                if many
                else "nothing: they are repaired from their neighbours",
            )
        )


def saturated_share(frames: np.ndarray) -> float:
    """Share of pixels at a ceiling: the greatest count, where suspiciously many are exactly there."""
    if frames.size == 0 or frames.dtype.kind not in "ui":
        return 0.0
    top = frames.max()
    at_top = frames == top
    if top < np.iinfo(frames.dtype).max and (
        # A dim or empty frame has many equal small counts, and the brightest of few pixels is often a tie; the
        # ceiling of a converter with fewer bits stands well above the usual count and stops many.
        top <= 1.05 * np.percentile(frames, 50) + 16 or at_top.sum() < _AT_CEILING
    ):
        return 0.0
    return float(at_top.mean())


def _levels(frames: np.ndarray) -> np.ndarray:
    """(n,) median of each frame's finite counts."""
    return np.array([np.median(f[np.isfinite(f)]) if np.isfinite(f).any() else np.nan for f in frames])


def _uneven(role: str, levels: np.ndarray, remedy: str) -> Finding:
    return Finding(role, f"their medians run from {levels.min():g} to {levels.max():g}", remedy)
