"""Refractive indices from composition and density: n = 1 − δ + iβ and µ = 4πβ/λ.

δ comes from Chantler's f1, µ from Elam's total cross-section (photo-absorption and coherent and incoherent
scattering), both through xraydb; β = µλ/4π. xraydb's own β leaves scattering out, which costs water 5 % at
3 keV and 15 % at 12 keV: what leaves the beam is attenuated whether absorbed or scattered.

Elements are summed here, not by ``xraydb.material_mu``: that one takes a formula for the name of a material
whatever its case, and gives CO the cross-section of Co, 42 times too much at 10 keV.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import xraydb

from tomoforge.errors import MaterialError
from tomoforge.units import kev_to_wavelength

ENERGY_RANGE_KEV = (0.2, 200.0)

# CODATA 2022.
CLASSICAL_ELECTRON_RADIUS = 2.8179403205e-15  # [m]
AVOGADRO = 6.02214076e23  # [1/mol]


@dataclass(frozen=True)
class RefractiveIndex:
    """n = 1 − delta + i·beta, and mu = 4π·beta/λ [1/m]."""

    delta: float
    beta: float
    mu: float


@functools.lru_cache(maxsize=4096)
def refractive_index(formula: str, density: float, energy_kev: float) -> RefractiveIndex:
    """Refractive index of a compound.

    formula : chemical formula, e.g. ``"C6H11NO"``; density [kg/m³]; energy_kev [keV], 0.2 to 200.

    Raises MaterialError for a formula that cannot be read, a density that is not positive, an energy off the
    tables.

    References: Chantler, J. Phys. Chem. Ref. Data 24, 71 (1995); Elam, Ravel & Sieber, Radiat. Phys. Chem. 63,
    121 (2002). δ = r_e λ² n Σ f1 / 2π: Als-Nielsen & McMorrow, Elements of Modern X-ray Physics, chapter 3.
    """
    low, high = ENERGY_RANGE_KEV
    if not (math.isfinite(energy_kev) and low <= energy_kev <= high):
        raise MaterialError(
            f"energy_kev must lie within the tables, {low:g} to {high:g} keV, got {energy_kev!r}; "
            "is it given in eV?"
        )
    if not (math.isfinite(density) and density > 0):
        raise MaterialError(f"density of {formula} must be positive kg/m³, got {density!r}")
    wavelength = kev_to_wavelength(energy_kev)
    scattering, mass_attenuation = 0.0, 0.0
    for symbol, count in elements_of(formula):
        f1, element_attenuation = _element(symbol, energy_kev)
        scattering += count * f1
        mass_attenuation += count * _atom(symbol)[1] * element_attenuation
    mass = molar_mass(formula)
    molecules = AVOGADRO * density / mass
    delta = CLASSICAL_ELECTRON_RADIUS * wavelength**2 / (2 * math.pi) * molecules * scattering
    mu = density * mass_attenuation / mass
    return RefractiveIndex(delta, mu * wavelength / (4 * math.pi), mu)


@functools.lru_cache(maxsize=1024)
def elements_of(formula: str) -> tuple[tuple[str, float], ...]:
    """Elements of a formula and how many of each: ((symbol, count), …). Raises MaterialError if unreadable."""
    try:
        counts = xraydb.chemparse(formula)
    except ValueError as error:
        raise MaterialError(
            f"formula {formula!r} cannot be read ({error}); expected e.g. 'H2O' or 'C6H11NO'"
        ) from error
    if not counts:
        raise MaterialError(f"formula must name at least one element, got {formula!r}")
    beyond = [symbol for symbol in counts if _atom(symbol)[0] > 92]
    if beyond:
        raise MaterialError(
            f"formula {formula!r} names {', '.join(beyond)}; Chantler's tables end at uranium"
        )
    return tuple(counts.items())


@functools.lru_cache(maxsize=1024)
def molar_mass(formula: str) -> float:
    """Molar mass of a compound [kg/mol]."""
    return sum(count * _atom(symbol)[1] for symbol, count in elements_of(formula))


@functools.lru_cache(maxsize=1024)
def _electrons(formula: str) -> float:
    """Electrons of one formula unit."""
    return sum(count * _atom(symbol)[0] for symbol, count in elements_of(formula))


@functools.cache
def _atom(symbol: str) -> tuple[int, float]:
    """Atomic number and molar mass [kg/mol]; xraydb asks its database at each call."""
    return int(xraydb.atomic_number(symbol)), 1e-3 * float(xraydb.atomic_mass(symbol))


@functools.lru_cache(maxsize=16384)
def _element(symbol: str, energy_kev: float) -> tuple[float, float]:
    """Forward scattering factor f1 [electrons] and total attenuation over density [m²/kg] of an element."""
    energy_ev = 1e3 * energy_kev
    f1 = _atom(symbol)[0] + float(xraydb.f1_chantler(symbol, energy_ev))
    return f1, 0.1 * float(xraydb.mu_elam(symbol, energy_ev, kind="total"))  # from cm²/g


@dataclass(frozen=True)
class Material:
    """A named mixture: density [kg/m³] and mass fractions of its compounds, ((formula, fraction), …)."""

    name: str
    density: float
    composition: tuple[tuple[str, float], ...]
    source: str = ""

    def __post_init__(self) -> None:
        total = sum(fraction for _, fraction in self.composition)
        # Written so that a NaN fails: every comparison with it is false.
        fractions_hold = all(fraction >= 0 for _, fraction in self.composition) and abs(total - 1) <= 1e-6
        if not (self.composition and fractions_hold):
            raise MaterialError(
                f"composition of {self.name} must be mass fractions that sum to 1, got {self.composition}"
            )
        if not (math.isfinite(self.density) and self.density > 0):
            raise MaterialError(f"density of {self.name} must be positive kg/m³, got {self.density!r}")

    def refractive_index(self, energy_kev: float) -> RefractiveIndex:
        """Refractive index at ``energy_kev``: each compound at its partial density, summed."""
        parts = [
            refractive_index(formula, partial, energy_kev)
            for formula, partial in self.partial_densities.items()
            if partial > 0
        ]
        return RefractiveIndex(
            sum(p.delta for p in parts), sum(p.beta for p in parts), sum(p.mu for p in parts)
        )

    @property
    def partial_densities(self) -> dict[str, float]:
        """Mass of each compound in a volume of the material [kg/m³]."""
        partial: dict[str, float] = {}
        for formula, fraction in self.composition:
            partial[formula] = partial.get(formula, 0.0) + self.density * fraction
        return partial

    @property
    def electron_density(self) -> float:
        """Electrons in a volume of the material [1/m³]."""
        return sum(
            AVOGADRO * partial / molar_mass(formula) * _electrons(formula)
            for formula, partial in self.partial_densities.items()
        )

    def at_density(self, density: float) -> "Material":
        """The same composition at another density [kg/m³], as after contraction on cooling."""
        return replace(self, density=density)


def mixture(name: str, partial_densities: Mapping[str, float], source: str = "") -> Material:
    """A material from the partial density [kg/m³] of each compound (formula → density)."""
    density = sum(partial_densities.values())
    if not density > 0:
        raise MaterialError(f"partial_densities of {name} must sum to a positive density, got {density!r}")
    return Material(
        name, density, tuple((formula, part / density) for formula, part in partial_densities.items()), source
    )


def blend(name: str, parts: Mapping[Material, float], source: str = "") -> Material:
    """Materials side by side below the resolution: material → fraction of the volume.

    What the fractions leave of 1 is void. The volumes add; nothing dissolves in anything.

    Raises MaterialError for fractions that are negative or sum to more than 1, or to nothing.
    """
    fractions = list(parts.values())
    if not (all(fraction >= 0 for fraction in fractions) and 0 < sum(fractions) <= 1 + 1e-9):
        raise MaterialError(
            f"volume fractions of {name} must be zero or more and sum to at most 1, got {fractions}"
        )
    partial: dict[str, float] = {}
    for material, fraction in parts.items():
        for formula, density in material.partial_densities.items():
            partial[formula] = partial.get(formula, 0.0) + fraction * density
    return mixture(name, partial, source)
