"""Whether a scan can be trusted: each rule with its reason and its remedy, before anything is computed.

The rules are those that users of other tools learned from wrong volumes: missing or bad references,
saturation, lost frames, stuck motors, angles in the wrong unit or order, signed counts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tomoforge.scan import Scan
from tomoforge.units import m_to_um

_FRAMES_LOOKED_AT = 32
_ENERGY_KEV_RANGE = (1.0, 300.0)  # below, air absorbs all; above, no tomography beamline
_PIXEL_UM_RANGE = (0.01, 1000.0)
_SAME_ANGLE = 1e-6  # [rad], finer than any encoder
_HALF_TURN, _LEAST_ARC, _MOST_ARC = np.radians(175.0), np.radians(90.0), np.radians(3700.0)


@dataclass(frozen=True)
class Finding:
    """Something wrong: rule : its name; reason : what was found; remedy : what to do."""

    rule: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}; {self.remedy}"


@dataclass(frozen=True)
class ScanReport:
    """Outcome of the checks: passed is True where nothing refuses the scan; warnings do not."""

    passed: bool
    warnings: tuple[Finding, ...]
    refusals: tuple[Finding, ...]


_Found = tuple[list[Finding], list[Finding]]  # warnings, refusals


def validate_scan(scan: Scan, *, frames: int | None = _FRAMES_LOOKED_AT) -> ScanReport:
    """Check a scan by rules that need no reconstruction.

    Parameters
    ----------
    scan : Scan
    frames : how many projections to read, evenly spread with the first and the last; None reads all

    Returns
    -------
    report : ScanReport

    Notes
    -----
    Shapes, counts of angles and positive energy and pixel size are already certain: a Scan cannot be made
    without. A scan of which a frame cannot be read is refused here rather than raised on.
    """
    warnings: list[Finding] = []
    refusals: list[Finding] = []
    rules: tuple[Callable[[Scan], _Found], ...] = (_plausible, _angles, _references, _signed)
    for rule in rules:
        found = rule(scan)
        warnings += found[0]
        refusals += found[1]
    count = scan.projections.shape[0]
    looked_at = np.unique(np.linspace(0, count - 1, min(count, frames or count)).round().astype(int))
    found = _projections(scan, looked_at)
    warnings += found[0]
    refusals += found[1]
    return ScanReport(not refusals, tuple(warnings), tuple(refusals))


def _plausible(scan: Scan) -> _Found:
    warnings = []
    pixel_um = m_to_um(scan.pixel_size)
    for rule, value, (low, high), unit in (
        ("energy", scan.energy_kev, _ENERGY_KEV_RANGE, "keV"),
        ("pixel size", pixel_um, _PIXEL_UM_RANGE, "µm"),
    ):
        if not low <= value <= high:
            warnings.append(
                Finding(rule, f"{value:g} {unit} is outside {low:g} to {high:g}", "check its unit")
            )
    return warnings, []


def _angles(scan: Scan) -> _Found:
    warnings: list[Finding] = []
    refusals: list[Finding] = []
    angles = scan.angles
    span = float(np.ptp(angles))
    if span > _MOST_ARC:
        refusals.append(
            Finding("angular span", f"{np.degrees(span):.0f} degrees", "say degrees in the file's units")
        )
    elif span < _LEAST_ARC:
        refusals.append(
            Finding(
                "angular span",
                f"{np.degrees(span):.2f} degrees is too little for a tomogram",
                "check the unit of the angles, and whether the motor moved",
            )
        )
    elif span + span / max(1, angles.size - 1) < _HALF_TURN:
        warnings.append(
            Finding(
                "angular span",
                f"{np.degrees(span):.1f} degrees is less than half a turn: values come out too low",
                "distrust µ, and give the rotation centre",
            )
        )
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
    if angles.size > 2 and np.any(turns < 0) and np.any(turns > 0):
        warnings.append(
            Finding(
                "angle order",
                f"the angles turn back {min(np.sum(turns < 0), np.sum(turns > 0))} times",
                "make sure that angles and frames are in the same order; any order can be reconstructed",
            )
        )
    distinct = steps[steps > _SAME_ANGLE]
    if distinct.size > 2 and distinct.max() > 5 * np.median(distinct):
        after = ordered[:-1][steps == distinct.max()][0]
        warnings.append(
            Finding(
                "angle gap",
                f"{np.degrees(distinct.max()):.2f} degrees without a projection after "
                f"{np.degrees(after):.2f}, against a usual step of {np.degrees(np.median(distinct)):.3f}",
                "look for lost frames; streaks in that direction are to be expected",
            )
        )
    return warnings, refusals


def _references(scan: Scan) -> _Found:
    warnings: list[Finding] = []
    refusals: list[Finding] = []
    for role, frames in (("flats", scan.flats), ("darks", scan.darks)):
        if len(frames) == 0:
            warnings.append(Finding(role, "none were recorded", "record them; until then distrust µ"))
        elif not np.isfinite(frames).all():
            warnings.append(
                Finding(role, f"{np.sum(~np.isfinite(frames))} values are not finite", "leave those out")
            )
        elif len(frames) > 1 and role == "flats":
            level = np.median(frames.reshape(len(frames), -1), axis=1)
            if level.min() < 0.5 * level.max():
                warnings.append(
                    Finding(
                        role,
                        f"their medians run from {level.min():g} to {level.max():g}",
                        "look for a closed shutter or a lost beam in some",
                    )
                )
    if len(scan.flats) and len(scan.darks):
        span = scan.flats.mean(axis=0, dtype=np.float64) - scan.darks.mean(axis=0, dtype=np.float64)
        bad = ~(span > 0)
        if bad.mean() > 0.5:
            refusals.append(
                Finding(
                    "flats above darks",
                    f"flats do not exceed darks on {bad.sum()} of {bad.size} pixels",
                    "check whether they were swapped, or the shutter stayed closed",
                )
            )
        elif bad.any():
            where = ", ".join(str((int(y), int(x))) for y, x in np.argwhere(bad)[:5])
            warnings.append(
                Finding(
                    "bad pixels",
                    f"{bad.sum()} of {bad.size} have a flat that is not above the dark: {where}"
                    + (", …" if bad.sum() > 5 else ""),
                    "nothing: they are repaired from their neighbours",
                )
            )
    full = _saturated(scan.flats)
    if full > 0.001:
        finding = Finding("saturated flats", f"{full:.1%} of pixels are at their ceiling", "expose less")
        (refusals if full > 0.05 else warnings).append(finding)
    return warnings, refusals


def _signed(scan: Scan) -> _Found:
    """Unsigned counts read as signed turn negative where they were brightest."""
    if scan.projections.dtype.kind != "i" or len(scan.flats) == 0 or scan.flats.dtype.kind != "i":
        return [], []
    flat = scan.flats.mean(axis=0, dtype=np.float64)
    share = float(np.mean(flat < -np.iinfo(scan.flats.dtype).max / 100))
    if share < 0.001:
        return [], []
    finding = Finding(
        "signed counts",
        f"{share:.1%} of the flat is far below zero in {scan.flats.dtype}",
        f"the counts were unsigned: write them again as u{scan.flats.dtype}",
    )
    return [], [finding]


def _projections(scan: Scan, looked_at: np.ndarray) -> _Found:
    """Read the frames ``looked_at`` one by one and judge each."""
    warnings: list[Finding] = []
    refusals: list[Finding] = []
    constant, spoilt, dim, saturated, brightest = [], [], [], [], []
    dark = scan.darks.mean(axis=0, dtype=np.float64) if len(scan.darks) else 0.0
    flat = scan.flats.mean(axis=0, dtype=np.float64) if len(scan.flats) else None
    for index in looked_at.tolist():
        try:
            frame = scan.projections[index]
        except (OSError, RuntimeError, KeyError) as error:
            refusals.append(
                Finding(
                    "readable frames", f"projection {index} cannot be read: {error}", "copy the scan again"
                )
            )
            return warnings, refusals
        finite = np.isfinite(frame)
        if finite.mean() < 0.99:
            spoilt.append(index)
            continue
        if not finite.all():
            warnings.append(
                Finding(
                    "finite counts",
                    f"projection {index} has {np.sum(~finite)} values that are not finite",
                    "nothing: they are repaired from their neighbours",
                )
            )
        if frame[finite].min() == frame[finite].max():
            constant.append(index)
            continue
        saturated.append(_saturated(frame))
        if flat is not None:
            span = flat - dark
            good = finite & (span > 0)
            if good.any():
                level = (frame[good] - np.broadcast_to(dark, frame.shape)[good]) / span[good]
                brightest.append(float(np.percentile(level, 99.0)))
                if brightest[-1] < 0.05:
                    dim.append(index)
    for rule, bad, remedy in (
        ("finite counts", spoilt, "leave those projections out"),
        ("empty frames", constant, "those frames were never written: leave them out, or copy the scan again"),
        ("lost beam", dim, "leave those projections out"),
    ):
        if bad:
            refusals.append(Finding(rule, f"projections {_named(bad)} of {looked_at.size} looked at", remedy))
    if saturated and max(saturated) > 0.001:
        finding = Finding(
            "saturated projections",
            f"up to {max(saturated):.1%} of pixels are at their ceiling",
            "expose less",
        )
        (refusals if max(saturated) > 0.05 else warnings).append(finding)
    warnings += _brightness(brightest)
    return warnings, refusals


def _brightness(brightest: list[float]) -> list[Finding]:
    """The brightest percent of a projection is normally air, which transmits everything."""
    if not brightest:
        return []
    level = float(np.median(brightest))
    if 0.9 <= level <= 1.3:
        return []
    return [
        Finding(
            "air level",
            f"the brightest pixels of the projections are at {level:.2f} of the flats",
            "if there is air beside the sample, the beam changed after the flats: the background of µ is "
            "offset and wants scaling to air",
        )
    ]


def _saturated(frames: np.ndarray) -> float:
    """Share of pixels at a ceiling: the greatest count, where suspiciously many are exactly there."""
    if frames.size == 0 or frames.dtype.kind not in "ui":
        return 0.0
    top = frames.max()
    at_top = frames == top
    # A dim or empty frame has many equal small counts; a ceiling stands well above the usual count.
    ceiling = top == np.iinfo(frames.dtype).max or top > 1.05 * np.percentile(frames, 50) + 16
    return float(at_top.mean()) if ceiling else 0.0


def _named(indices: list[int]) -> str:
    return ", ".join(str(index) for index in indices[:8]) + (", …" if len(indices) > 8 else "")
