"""Random packings of spheres or discs: several phases, each with its distribution of sizes.

Sample frame: x, y(, z) in metres, the box's middle at the origin.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from tomoforge.errors import InputError, StageError
from tomoforge.samples.sphere_relaxation import largest_overlap, relax
from tomoforge.seeds import component_rng

_log = logging.getLogger(__name__)

KINDS = ("monodisperse", "lognormal", "uniform")
BOUNDARIES = ("periodic", "bounded")
# Denser than any arrangement of equal spheres (π/√18) or discs (π/√12).
_DENSEST = {2: 0.90, 3: 0.74}
# A lognormal distribution is cut this many standard deviations of ln r either side of its median.
_CUT = 2.5
# A particle larger than this part of the shortest side would meet itself, or fill the box alone.
_WIDEST = 0.9
_MOST_PARTICLES = 2_000_000


@dataclass(frozen=True)
class Phase:
    """A kind of particle and its sizes.

    name : of the material
    share : of the volume of all particles (area in 2-D); the shares of a packing sum to 1
    mean_radius : mean over the particles [m], of the distribution as it is cut
    kind : 'monodisperse', 'lognormal' or 'uniform'
    spread : lognormal: standard deviation of ln r, cut at ±2.5 of these around the median (98.8 % of the
        uncut distribution); uniform: half width relative to the mean; monodisperse: 0
    """

    name: str
    share: float
    mean_radius: float
    kind: str = "monodisperse"
    spread: float = 0.0

    def __post_init__(self) -> None:
        if not self.name or self.name == "background":
            raise InputError(f"name of a phase must be a word other than 'background', got {self.name!r}")
        if not 0 < self.share <= 1:
            raise InputError(
                f"share of phase {self.name} must lie in (0, 1], got {self.share!r}; leave out empty phases"
            )
        if not (math.isfinite(self.mean_radius) and self.mean_radius > 0):
            raise InputError(
                f"mean_radius of phase {self.name} must be positive metres, got {self.mean_radius!r}"
            )
        if self.kind not in KINDS:
            raise InputError(
                f"kind of phase {self.name} must be one of {', '.join(KINDS)}, got {self.kind!r}"
            )
        allowed = {"monodisperse": (0.0, 0.0), "lognormal": (1e-3, 0.8), "uniform": (1e-3, 0.95)}[self.kind]
        if not allowed[0] <= self.spread <= allowed[1]:
            raise InputError(
                f"spread of the {self.kind} phase {self.name} must lie in {allowed[0]:g} to {allowed[1]:g}, "
                f"got {self.spread!r}; equal radii are kind='monodisperse' with spread=0"
            )

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest radius [m]."""
        low, high = self.quantile(np.array([0.0, 1.0]))
        return float(low), float(high)

    def quantile(self, probability: np.ndarray) -> np.ndarray:
        """Radius [m] below which this part of the particles lies; the inverse of ``cdf``."""
        p = np.asarray(probability, dtype=np.float64)
        if self.kind == "lognormal":
            low, high = ndtr(-_CUT), ndtr(_CUT)
            return self._median * np.exp(self.spread * np.clip(ndtri(low + p * (high - low)), -_CUT, _CUT))
        return self.mean_radius * (1 + self.spread * (2 * p - 1))

    def cdf(self, radius: np.ndarray) -> np.ndarray:
        """The part of the particles with at most this radius [m]."""
        r = np.asarray(radius, dtype=np.float64)
        if self.kind == "monodisperse":
            return (r >= self.mean_radius).astype(np.float64)
        if self.kind == "uniform":
            return np.clip((r / self.mean_radius - 1 + self.spread) / (2 * self.spread), 0.0, 1.0)
        deviations = np.log(np.maximum(r, 1e-300) / self._median) / self.spread
        low, high = ndtr(-_CUT), ndtr(_CUT)
        return np.clip((ndtr(deviations) - low) / (high - low), 0.0, 1.0)

    def moment(self, order: int) -> float:
        """Mean of radius**order [m**order]."""
        if self.kind == "lognormal":
            return self._median**order * self._cut_moment(order)
        if self.kind == "uniform":
            low, high = self.mean_radius * (1 - self.spread), self.mean_radius * (1 + self.spread)
            return (high ** (order + 1) - low ** (order + 1)) / ((order + 1) * (high - low))
        return self.mean_radius**order

    @property
    def _median(self) -> float:
        return self.mean_radius / self._cut_moment(1)

    def _cut_moment(self, order: int) -> float:
        """Mean of (r / median)**order of the cut lognormal distribution."""
        shift = order * self.spread
        kept = (ndtr(_CUT - shift) - ndtr(-_CUT - shift)) / (ndtr(_CUT) - ndtr(-_CUT))
        return float(math.exp(0.5 * shift**2) * kept)


@dataclass(frozen=True, eq=False)
class Packing:
    """Particles that do not overlap.

    centres : (particle, dims) float64 [m], x, y(, z), the box's middle at the origin; inside the box
    radii : (particle,) float64 [m]
    phase : (particle,) int64, index into ``phases``
    phases : as asked for
    box : sides [m] along x, y(, z)
    periodic : opposite faces joined; otherwise all particles lie wholly inside
    requested_fraction, packing_fraction : asked for, and reached: volume of the particles over the box's
    left_out : particles drawn that found no room; 0 unless the packing jammed
    iterations : steps of the relaxation
    largest_overlap : over all pairs and walls [m], at most 0; negative is the smallest gap
    """

    centres: np.ndarray
    radii: np.ndarray
    phase: np.ndarray
    phases: tuple[Phase, ...]
    box: tuple[float, ...]
    periodic: bool
    requested_fraction: float
    packing_fraction: float
    left_out: int
    iterations: int
    largest_overlap: float

    @property
    def dimensions(self) -> int:
        """2 for discs, 3 for spheres."""
        return len(self.box)

    def phase_shares(self) -> dict[str, float]:
        """The share of each phase in the volume of all particles, as reached."""
        volumes = particle_volumes(self.radii, self.dimensions)
        sums = np.bincount(self.phase, weights=volumes, minlength=len(self.phases))
        return {phase.name: float(s / sums.sum()) for phase, s in zip(self.phases, sums, strict=True)}


def pack(
    phases: Sequence[Phase],
    packing_fraction: float,
    box: Sequence[float],
    dimensions: int = 3,
    boundary: str = "periodic",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Packing:
    """Pack spheres (or discs) at random without overlap.

    Parameters
    ----------
    phases : their shares sum to 1
    packing_fraction : volume of the particles over the box's, in (0, 0.74) for spheres, (0, 0.90) for discs
    box : ``dimensions`` sides [m] along x, y(, z)
    dimensions : 3 for spheres, 2 for discs
    boundary : 'periodic', opposite faces joined, or 'bounded', all particles wholly inside the box
    seed : the same seed gives the same bytes; each phase draws its radii from a generator of its own
    progress : called with (particles without overlap, particles) after each relaxation

    Returns
    -------
    Packing, checked for overlap pair by pair

    Raises
    ------
    InputError
        for a fraction, box, boundary, seed or phases that cannot be packed; StageError if particles overlap
        at the end, which would be a fault of this function.

    Notes
    -----
    Each phase draws radii until their volume is nearest to its share, the finer ones making up what the
    coarser ones left, so the fraction asked for is met to within half a particle of the finest phase.
    Radii are never changed. Where the particles jam (equal spheres near 0.64, equal discs near 0.84, less
    between walls), some are left out, from all sizes alike, until the rest fits: ``packing_fraction`` and
    ``left_out`` of the result say what was reached. Particles are left out in small batches; that no
    smaller number would do is not proven.
    """
    kinds, sides = checked_packing(phases, packing_fraction, box, dimensions, boundary)
    radii, phase = _drawn_radii(kinds, packing_fraction * float(np.prod(sides)), dimensions, seed)
    room = sides - (0 if boundary == "periodic" else 2 * radii[:, None])
    start = (component_rng(seed, "packing positions").random((len(radii), dimensions)) - 0.5) * room
    periodic = boundary == "periodic"
    rng = component_rng(seed, "packing left out")
    relaxed = relax(start, radii, phase, sides, periodic, rng, progress)
    centres, kept = relaxed.centres, relaxed.kept
    if periodic:
        centres = centres - sides * np.floor(centres / sides + 0.5)
    overlap = largest_overlap(centres, radii[kept], sides, periodic)
    if overlap > 0:
        raise StageError(f"pack ended with an overlap of {overlap:.3g} m; please report phases, box and seed")
    reached = float(particle_volumes(radii[kept], dimensions).sum() / np.prod(sides))
    if len(kept) < len(radii):
        _log.info("jammed: %d of %d particles left out, %.4f of the box filled where %.4f was asked for",
                  len(radii) - len(kept), len(radii), reached, packing_fraction)  # fmt: skip
    return Packing(
        centres=centres,
        radii=radii[kept],
        phase=phase[kept],
        phases=kinds,
        box=tuple(float(s) for s in sides),
        periodic=periodic,
        requested_fraction=float(packing_fraction),
        packing_fraction=reached,
        left_out=len(radii) - len(kept),
        iterations=relaxed.iterations,
        largest_overlap=overlap,
    )


def particle_volumes(radii: np.ndarray, dimensions: int) -> np.ndarray:
    """Volume [m³] of spheres, or area [m²] of discs, of radii (particle,) [m]."""
    return 4 / 3 * math.pi * radii**3 if dimensions == 3 else math.pi * radii**2


def _drawn_radii(
    phases: tuple[Phase, ...], volume: float, dimensions: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Radii and phase index of all particles: each phase until its volume is nearest to its share."""
    radii = [np.empty(0)] * len(phases)
    unit = float(particle_volumes(np.ones(1), dimensions)[0])
    missing = 0.0
    # Large ones first: finer ones make up what half a particle more or less left.
    for i in sorted(range(len(phases)), key=lambda i: -phases[i].mean_radius):
        phase, wanted = phases[i], phases[i].share * volume + missing
        block = 64 + round(0.2 * phase.share * volume / (unit * phase.moment(dimensions)))
        rng = component_rng(seed, f"packing radii {phase.name}")
        drawn = np.empty(0)
        while particle_volumes(drawn, dimensions).sum() <= wanted:
            drawn = np.concatenate([drawn, phase.quantile(rng.random(block))])
        sums = np.cumsum(particle_volumes(drawn, dimensions))
        count = 1 + int(np.argmin(np.abs(sums - wanted)))
        radii[i] = drawn[:count]
        missing = wanted - float(sums[count - 1])
    index = np.repeat(np.arange(len(phases)), [len(r) for r in radii])
    return np.concatenate(radii), index


def checked_packing(
    phases: Sequence[Phase], packing_fraction: float, box: Sequence[float], dimensions: int, boundary: str
) -> tuple[tuple[Phase, ...], np.ndarray]:
    """Phases and sides, or InputError."""
    kinds = tuple(phases)
    if dimensions not in _DENSEST:
        raise InputError(f"dimensions must be 2 (discs) or 3 (spheres), got {dimensions!r}")
    if boundary not in BOUNDARIES:
        raise InputError(f"boundary must be one of {', '.join(BOUNDARIES)}, got {boundary!r}")
    if not 0 < packing_fraction < _DENSEST[dimensions]:
        raise InputError(
            f"packing_fraction must lie in (0, {_DENSEST[dimensions]:.2f}) in {dimensions}-D, got "
            f"{packing_fraction!r}; random packings end near {'0.64' if dimensions == 3 else '0.84'}"
        )
    sides = np.array(box, dtype=np.float64)
    if sides.shape != (dimensions,) or not (np.isfinite(sides).all() and (sides > 0).all()):
        raise InputError(f"box must be {dimensions} positive sides in metres, got {box!r}")
    names = [phase.name for phase in kinds]
    if not kinds or len(set(names)) != len(names) or len(kinds) > 255:
        raise InputError(f"phases must be 1 to 255 with different names, got {names}")
    if abs(sum(phase.share for phase in kinds) - 1) > 1e-6:
        raise InputError(f"shares of the phases must sum to 1, got {[phase.share for phase in kinds]}")
    count = 0.0
    for phase in kinds:
        if 2 * phase.limits[1] > _WIDEST * sides.min():
            raise InputError(
                f"mean_radius of phase {phase.name} must leave its largest particle narrower than "
                f"{_WIDEST} of the box's shortest side {sides.min():.3g} m, got a largest radius of "
                f"{phase.limits[1]:.3g} m; enlarge the box or lower mean_radius or spread"
            )
        volume = particle_volumes(np.ones(1), dimensions)[0] * phase.moment(dimensions)
        expected = phase.share * packing_fraction * float(np.prod(sides)) / volume
        if expected < 0.5:
            raise InputError(
                f"share of phase {phase.name} must be enough for a particle, got {phase.share!r}, which is "
                f"{expected:.2g} of one; enlarge the box or the share, or lower mean_radius"
            )
        count += expected
    if count > _MOST_PARTICLES:
        raise InputError(
            f"box must hold at most {_MOST_PARTICLES} particles, got {count:.3g}; "
            "make it smaller or the particles larger"
        )
    return kinds, sides
