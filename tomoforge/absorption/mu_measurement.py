"""The linear attenuation coefficient µ of each material: computed, or measured from flat-corrected projections.

From the composition it is as good as the recipe; from projections where rays cross one material it needs no
reconstruction. ``mu_volume`` takes it from a reconstructed volume, ``mu_comparison`` sets all three side by side.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from tomoforge.absorption.mu_fit import FEWEST_BLOCKS, RobustFit, robust_fit
from tomoforge.absorption.mu_rays import Rays
from tomoforge.absorption.traced_sample import attenuation_table
from tomoforge.errors import InputError

COMPOSITION, PROJECTIONS, VOLUME = "composition", "projections", "volume"

_TILE = 8  # pixels: rays of a patch of the detector share errors
_ILL_CONDITIONED = 30.0
_FRINGED = 2.0  # spread next to edges over that far from them


@dataclass(frozen=True)
class MuEstimate:
    """µ of one material from one source.

    label : int; mu, low, high, standard_error : float [1/m], the interval is 95 %; source : where from; count :
    rays or voxels used; outliers : how many of them had no weight; notes : sentences on what to distrust.
    """

    label: int
    mu: float
    low: float
    high: float
    standard_error: float
    source: str
    count: int = 0
    outliers: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class JointMu:
    """µ of several materials fitted together.

    estimates : by label; labels : order of ``covariance`` (material, material) [1/m²]; condition_number : float,
    1 where no ray crosses two of them, large where they always come together.
    """

    estimates: dict[int, MuEstimate]
    labels: tuple[int, ...]
    covariance: np.ndarray
    condition_number: float


@dataclass(frozen=True)
class ProjectionMu:
    """µ of every material that a scan's rays cross.

    estimates : by label, from rays of one material alone where there are enough, else from the joint fit; why_joint
    : for the latter, why; joint : JointMu of all of them, None where none was needed.
    """

    estimates: dict[int, MuEstimate]
    why_joint: dict[int, str] = field(default_factory=dict)
    joint: JointMu | None = None


def mu_from_composition(mu: Mapping[int, float], relative_error: float = 0.0) -> dict[int, MuEstimate]:
    """Computed µ [1/m] by label as estimates; ``relative_error`` is one standard deviation, of density mostly.

    Raises InputError for an error that is negative, MaterialError for a µ that is negative or not finite.
    """
    if not (np.isfinite(relative_error) and relative_error >= 0):
        raise InputError(f"relative_error must be zero or positive, got {relative_error!r}")
    attenuation_table(np.zeros((1, 1, 1), dtype=np.uint8), mu)  # refuses what is no µ
    found = {}
    for label, value in mu.items():
        error = relative_error * value
        found[int(label)] = MuEstimate(
            int(label), float(value), value - 1.96 * error, value + 1.96 * error, error, COMPOSITION
        )
    return found


def mu_from_alone_rays(rays: Rays, label: int, *, least_rays: int = 200, seed: int = 0) -> MuEstimate:
    """µ of one material from the rays that cross it and nothing else.

    rays : from ``collect_rays``; label : int; least_rays : int; seed : of the bootstrap. Returns a MuEstimate.

    Raises InputError where fewer rays than ``least_rays`` cross the material alone, away from edges, or they come
    from too few projections: then ``joint_mu`` is the way.
    """
    mask = rays.alone(label)
    count, crossing = int(mask.sum()), int(np.sum(rays.lengths[:, label] > 0))
    projections = len(np.unique(rays.projection[mask]))
    if count < least_rays or projections < FEWEST_BLOCKS:
        raise InputError(
            f"label {label} must be crossed alone by {least_rays} rays from {FEWEST_BLOCKS} projections, away from "
            f"edges; {count} of the {crossing} rays that cross it do, in {projections} projections: fit it jointly "
            "with the others"
        )
    found, fit = alone_fit(rays, label, seed=seed)
    notes = (*_scan_notes(rays), *_bend_note(found, label, fit))
    return _estimate(fit, 0, label, len(found), notes)


def alone_fit(rays: Rays, label: int, *, seed: int = 0) -> tuple[Rays, RobustFit]:
    """The rays that cross one material alone and their fit, for pictures. Raises InputError as the estimate does."""
    found = rays.select(rays.alone(label))
    fit = robust_fit(found.lengths[:, [label]], found.line_integrals, _blocks(found), seed=seed)
    return found, fit


def joint_mu(rays: Rays, *, seed: int = 0) -> JointMu:
    """µ of all materials that the rays cross, fitted together; rays near edges are left out.

    rays : from ``collect_rays``; seed : of the bootstrap. Returns JointMu.

    Raises InputError where the materials cannot be told apart, or too few rays or projections are there.
    """
    crossing = rays.select(~rays.air & ~rays.near_edge)
    labels = tuple(int(n) for n in np.flatnonzero(crossing.lengths.any(axis=0)))
    if not labels:
        raise InputError("rays must cross a material away from edges, none does; lower the margin")
    fit = robust_fit(crossing.lengths[:, list(labels)], crossing.line_integrals, _blocks(crossing), seed=seed)
    notes = list(_scan_notes(rays))
    if fit.condition_number > _ILL_CONDITIONED:
        notes.append(
            f"the materials are crossed nearly in proportion (condition number {fit.condition_number:.0f}): their "
            "values trade off against each other, use the covariance"
        )
    estimates = {
        label: _estimate(fit, column, label, len(crossing), tuple(notes))
        for column, label in enumerate(labels)
    }
    return JointMu(estimates, labels, fit.covariance, fit.condition_number)


def mu_from_projections(rays: Rays, *, least_rays: int = 200, seed: int = 0) -> ProjectionMu:
    """µ of every material the rays cross: each alone where it can be seen alone, the others by the joint fit.

    Arguments as of ``mu_from_alone_rays``. Returns ProjectionMu. Raises InputError as ``joint_mu`` does, if that
    is needed.
    """
    labels = [int(n) for n in np.flatnonzero(rays.lengths.any(axis=0))]
    estimates, reasons, joint = {}, {}, None
    for label in labels:
        try:
            estimates[label] = mu_from_alone_rays(rays, label, least_rays=least_rays, seed=seed)
        except InputError as error:
            reasons[label] = str(error)
    if reasons or not labels:
        joint = joint_mu(rays, seed=seed)
        for label in list(reasons):
            if label not in joint.estimates:
                raise InputError(f"label {label} is crossed near edges only; lower the margin or drop it")
            estimates[label] = joint.estimates[label]
    return ProjectionMu(dict(sorted(estimates.items())), reasons, joint)


def _estimate(fit: RobustFit, column: int, label: int, count: int, notes: tuple[str, ...]) -> MuEstimate:
    mu = float(fit.mu[column])
    if mu < 0:
        notes = (*notes, f"µ of label {label} came out negative: the labels do not fit the scan")
    return MuEstimate(
        label=label,
        mu=mu,
        low=float(fit.low[column]),
        high=float(fit.high[column]),
        standard_error=float(np.sqrt(fit.covariance[column, column])),
        source=PROJECTIONS,
        count=count,
        outliers=int(fit.outliers.sum()),
        notes=notes,
    )


def _blocks(rays: Rays) -> tuple[np.ndarray, ...]:
    """Rays of one projection share its beam, rays of one patch of the detector its flats and the labels' errors."""
    rows, columns = (rays.pixel // _TILE).T
    patches = rows * (columns.max(initial=0) + 1) + columns
    if len(np.unique(patches)) < FEWEST_BLOCKS:
        return (rays.projection,)
    return rays.projection, patches


def _scan_notes(rays: Rays) -> tuple[str, ...]:
    """What the air around the sample says of background and fringes."""
    notes = []
    air = rays.select(rays.air)
    far, near = air.select(~air.near_edge), air.select(air.near_edge)
    if len(far) >= 50:
        offset = float(np.median(far.line_integrals))
        spread = robust_spread(far.line_integrals - offset)
        by_projection = [
            np.median(far.line_integrals[far.projection == n]) for n in np.unique(far.projection)
        ]
        error = (
            float(np.std(by_projection, ddof=1) / np.sqrt(len(by_projection)))
            if len(by_projection) > 1
            else 0
        )
        if abs(offset) > 3e-3 and abs(offset) > 4 * error:
            notes.append(
                f"the background has an offset: −ln T of air is {offset:+.4f} instead of 0, so the beam changed "
                "between flats and projections or scatter reaches the detector"
            )
        unevenness = robust_spread(near.line_integrals - offset)
        if len(near) >= 50 and unevenness > _FRINGED * spread:
            times = f"{unevenness / spread:.1f} times as" if spread > 0 else "infinitely as"
            notes.append(
                f"air next to the sample is {times} uneven as air far from it: phase fringes, which add to −ln T at "
                "edges; retrieve the phase or widen the margin"
            )
    return tuple(notes)


def _bend_note(rays: Rays, label: int, fit: RobustFit) -> tuple[str, ...]:
    """A sentence where long rays give another µ than short ones."""
    length = rays.lengths[:, label]
    ratio = rays.line_integrals / length
    limits = np.quantile(length, [0, 0.5, 1])
    halves = [ratio[(length >= a) & (length <= b) & ~fit.outliers] for a, b in pairwise(limits)]
    if min(len(half) for half in halves) < 50:
        return ()
    short, long = (float(np.median(half)) for half in halves)
    error = np.hypot(*(1.2533 * robust_spread(h - np.median(h)) / np.sqrt(len(h)) for h in halves))
    difference = (long - short) / fit.mu[0] if fit.mu[0] else 0.0
    if abs(difference) > 0.02 and abs(long - short) > 5 * error:
        return (
            f"long rays give a µ {100 * difference:+.1f} % from short ones: an offset of the background, scatter, "
            "harmonics of the beam or wrong labels bend the line",
        )
    return ()


def robust_spread(centred: np.ndarray) -> float:
    """Standard deviation of numbers around 0, from their median size; 0 for none."""
    return 1.4826 * float(np.median(np.abs(centred))) if len(centred) else 0.0
