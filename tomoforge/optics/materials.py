"""Refractive indices from composition and density, and the materials of a cryo-cooled crystal sample.

δ comes from Chantler's f1, µ from Elam's total cross-section (photo-absorption and coherent and incoherent
scattering), both through xraydb; β = µλ/4π. xraydb's own β leaves scattering out, which costs water 5 % at
3 keV and 15 % at 12 keV: what leaves the beam is attenuated whether absorbed or scattered.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import xraydb

from tomoforge.errors import MaterialError
from tomoforge.units import kev_to_wavelength

ENERGY_RANGE_KEV = (0.2, 200.0)


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
    121 (2002).
    """
    low, high = ENERGY_RANGE_KEV
    if not (math.isfinite(energy_kev) and low <= energy_kev <= high):
        raise MaterialError(
            f"energy_kev must lie within the tables, {low:g} to {high:g} keV, got {energy_kev!r}; "
            "is it given in eV?"
        )
    if not (math.isfinite(density) and density > 0):
        raise MaterialError(f"density of {formula} must be positive kg/m³, got {density!r}")
    try:
        elements = xraydb.chemparse(formula)
    except ValueError as error:
        raise MaterialError(
            f"formula {formula!r} cannot be read ({error}); expected e.g. 'H2O' or 'C6H11NO'"
        ) from error
    if not elements:
        raise MaterialError(f"formula must name at least one element, got {formula!r}")
    energy_ev = 1e3 * energy_kev
    density_g_cm3 = density / 1000.0
    delta = float(xraydb.xray_delta_beta(formula, density_g_cm3, energy_ev)[0])
    mu = 100.0 * float(xraydb.material_mu(formula, energy_ev, density=density_g_cm3, kind="total"))
    return RefractiveIndex(delta, mu * kev_to_wavelength(energy_kev) / (4 * math.pi), mu)


@dataclass(frozen=True)
class Material:
    """A named mixture: density [kg/m³] and mass fractions of its compounds, ((formula, fraction), …)."""

    name: str
    density: float
    composition: tuple[tuple[str, float], ...]
    source: str = ""

    def __post_init__(self) -> None:
        total = sum(fraction for _, fraction in self.composition)
        if not self.composition or min(f for _, f in self.composition) < 0 or abs(total - 1) > 1e-6:
            raise MaterialError(
                f"composition of {self.name} must be mass fractions that sum to 1, got {self.composition}"
            )

    def refractive_index(self, energy_kev: float) -> RefractiveIndex:
        """Refractive index at ``energy_kev``: each compound at its partial density, summed."""
        parts = [
            refractive_index(formula, self.density * fraction, energy_kev)
            for formula, fraction in self.composition
            if fraction > 0
        ]
        return RefractiveIndex(
            sum(p.delta for p in parts), sum(p.beta for p in parts), sum(p.mu for p in parts)
        )


def mixture(name: str, partial_densities: Mapping[str, float], source: str = "") -> Material:
    """A material from the partial density [kg/m³] of each compound (formula → density)."""
    density = sum(partial_densities.values())
    if not density > 0:
        raise MaterialError(f"partial_densities of {name} must sum to a positive density, got {density!r}")
    return Material(
        name, density, tuple((formula, part / density) for formula, part in partial_densities.items()), source
    )


PROTEIN = "C100H159N27O32S"
WATER_DENSITY = 1000.0
_PROTEIN_DENSITY = 1350.0


def _liquor(name: str, solutes: Mapping[str, float], density: float, source: str) -> Material:
    """An aqueous solution of known density: solutes [kg/m³], water makes up the rest."""
    return mixture(name, {**solutes, "H2O": density - sum(solutes.values())}, source)


def protein_crystal(name: str, solvent_fraction: float, solvent: Material) -> Material:
    """A protein crystal whose channels (``solvent_fraction`` of its volume) are filled with ``solvent``."""
    if not 0 < solvent_fraction < 1:
        raise MaterialError(f"solvent_fraction must lie between 0 and 1, got {solvent_fraction!r}")
    parts = {f: solvent.density * w * solvent_fraction for f, w in solvent.composition}
    parts[PROTEIN] = _PROTEIN_DENSITY * (1 - solvent_fraction)
    return mixture(
        name, parts, f"{1 - solvent_fraction:.0%} protein of 1.35 g/cm³ by volume, rest {solvent.name}"
    )


_AMMONIUM_SULFATE = _liquor(
    "ammonium_sulfate_liquor",
    {"N2H8SO4": 264.3},
    1134.0,
    "2.0 M ammonium sulfate in water; density: CRC Handbook, aqueous solutions at 20 °C",
)
_SALT_GLYCOL = _liquor(
    "sodium_chloride_liquor",
    {"NaCl": 80.0, "C2H6O2": 250.0},
    1085.0,
    "8 % w/v NaCl and 25 % w/v ethylene glycol, a usual lysozyme cryo-condition",
)

MATERIALS: dict[str, Material] = {
    material.name: material
    for material in (
        mixture("water", {"H2O": WATER_DENSITY}),
        mixture("protein", {PROTEIN: _PROTEIN_DENSITY}, "mean composition of proteins"),
        mixture("nylon", {"C6H11NO": 1140.0}, "nylon 6"),
        mixture("polyimide", {"C22H10N2O5": 1420.0}, "Kapton"),
        _AMMONIUM_SULFATE,
        _SALT_GLYCOL,
        protein_crystal("ammonium_sulfate_crystal", 0.45, _AMMONIUM_SULFATE),
        protein_crystal("sodium_chloride_crystal", 0.38, _SALT_GLYCOL),
    )
}


def find_material(name: str) -> Material:
    """A material by name. Raises MaterialError that lists the known ones."""
    try:
        return MATERIALS[name]
    except KeyError:
        raise MaterialError(
            f"material {name!r} is unknown; known are {', '.join(sorted(MATERIALS))}, or build one with "
            "tomoforge.optics.materials.mixture"
        ) from None
