"""Whether a scan can be trusted: each rule with its reason and its remedy, before anything is computed.

The rules are those that users of other tools learned from wrong volumes: missing or bad references,
saturation, lost frames, stuck motors, angles in the wrong unit or order, signed counts.
"""

import hashlib
from collections.abc import Callable

import numpy as np

from tomoforge.beamline.angle_rules import judge_angles
from tomoforge.beamline.findings import Finding, ScanReport
from tomoforge.beamline.reference_rules import judge_references, saturated_share
from tomoforge.scan import Scan
from tomoforge.units import m_to_um

__all__ = ["Finding", "ScanReport", "validate_scan"]

_FRAMES_LOOKED_AT = 32
_ENERGY_KEV_RANGE = (1.0, 300.0)  # below, air absorbs all; above, no tomography beamline
_PIXEL_UM_RANGE = (0.01, 1000.0)
_AIR_RANGE = (0.9, 1.3)  # of the flats; the brightest percent is above air by noise and by bright fringes

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
    rules: tuple[Callable[[Scan], _Found], ...] = (
        _plausible,
        lambda scan: judge_angles(scan.angles),
        lambda scan: judge_references(scan.flats, scan.darks),
        _signed_flats,
    )
    for rule in rules:
        found = rule(scan)
        warnings += found[0]
        refusals += found[1]
    count = scan.projections.shape[0]
    looked_at = np.unique(np.linspace(0, count - 1, min(count, frames or count)).round().astype(int))
    found = _projections(scan, looked_at)
    warnings += found[0]
    refusals += [finding for finding in found[1] if finding.rule not in {f.rule for f in refusals}]
    return ScanReport.of(warnings, refusals)


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


def _signed_flats(scan: Scan) -> _Found:
    """Unsigned counts read as signed turn negative where they were brightest."""
    if scan.projections.dtype.kind != "i" or len(scan.flats) == 0 or scan.flats.dtype.kind != "i":
        return [], []
    share = _far_below_zero(scan.flats.mean(axis=0, dtype=np.float64), scan.flats.dtype)
    return [], [_signed("the flat", share, scan.flats.dtype)] if share >= 0.001 else []


def _far_below_zero(counts: np.ndarray, dtype: np.dtype) -> float:
    return float(np.mean(counts < -np.iinfo(dtype).max / 100))


def _signed(where: str, share: float, dtype: np.dtype) -> Finding:
    return Finding(
        "signed counts",
        f"{share:.1%} of {where} is far below zero in {dtype}",
        f"the counts were unsigned: write them again as u{dtype}",
    )


def _projections(scan: Scan, looked_at: np.ndarray) -> _Found:
    """Read the frames ``looked_at`` one by one and judge each."""
    warnings: list[Finding] = []
    refusals: list[Finding] = []
    constant, spoilt, speckled, dim, saturated, brightest, negative = [], [], [], [], [], [], []
    seen: dict[bytes, int] = {}
    repeated: list[int] = []
    dark = scan.darks.mean(axis=0, dtype=np.float64) if len(scan.darks) else 0.0
    flat = scan.flats.mean(axis=0, dtype=np.float64) if len(scan.flats) else None
    for index in looked_at.tolist():
        try:
            frame = scan.projections[index]
        except (OSError, RuntimeError, KeyError, ValueError) as error:
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
            speckled.append(index)
        if frame[finite].min() == frame[finite].max():
            constant.append(index)
            continue
        digest = hashlib.sha256(np.ascontiguousarray(frame).tobytes()).digest()
        if seen.setdefault(digest, index) != index:
            repeated.append(index)
        if frame.dtype.kind == "i":
            negative.append(_far_below_zero(frame, frame.dtype))
        saturated.append(saturated_share(frame))
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
    if speckled:
        warnings.append(
            Finding(
                "finite counts",
                f"projections {_named(speckled)} of {looked_at.size} looked at have values that are not finite",
                "nothing: they are repaired from their neighbours",
            )
        )
    if repeated:
        # Noise makes two exposures differ: equal frames are one exposure, stored twice.
        finding = Finding(
            "repeated frames",
            f"projections {_named(repeated)} of {looked_at.size} looked at equal an earlier one",
            "look for a detector that stopped, and leave the repeats out",
        )
        (refusals if 2 * len(repeated) >= looked_at.size else warnings).append(finding)
    if negative and max(negative) >= 0.001:
        refusals.append(_signed("a projection", max(negative), scan.projections.dtype))
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
    if _AIR_RANGE[0] <= level <= _AIR_RANGE[1]:
        return []
    return [
        Finding(
            "air level",
            f"the brightest pixels of the projections are at {level:.2f} of the flats",
            "if there is air beside the sample, the beam changed after the flats: the background of µ is "
            "offset and wants scaling to air",
        )
    ]


def _named(indices: list[int]) -> str:
    return ", ".join(str(index) for index in indices[:8]) + (", …" if len(indices) > 8 else "")
