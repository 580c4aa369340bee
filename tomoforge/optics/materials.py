"""Materials by name: what a cryo-cooled crystal sits in, what electrodes are made of, and how to build others.

How δ, β and µ come about is in ``tomoforge.optics.refraction``; liquors and crystals in
``tomoforge.optics.liquors``. Both are to be had from here.
"""

from tomoforge.errors import MaterialError
from tomoforge.optics.liquors import (
    PROTEIN,
    PROTEIN_DENSITY,
    SOLUTES,
    WATER_DENSITY,
    Solute,
    liquor,
    protein_crystal,
)
from tomoforge.optics.refraction import (
    AVOGADRO,
    ENERGY_RANGE_KEV,
    Material,
    RefractiveIndex,
    blend,
    elements_of,
    mixture,
    molar_mass,
    refractive_index,
)

__all__ = [
    "ENERGY_RANGE_KEV",
    "MATERIALS",
    "PROTEIN",
    "PROTEIN_DENSITY",
    "SOLUTES",
    "WATER_DENSITY",
    "Material",
    "RefractiveIndex",
    "Solute",
    "blend",
    "carbon_binder",
    "crystal_density",
    "elements_of",
    "find_material",
    "liquor",
    "mixture",
    "molar_mass",
    "protein_crystal",
    "refractive_index",
    "su8",
]


def crystal_density(formula: str, formula_units: int, cell_volume: float) -> float:
    """Density [kg/m³] of a crystal of ``formula_units`` formulas in a cell of ``cell_volume`` [m³]."""
    if not (formula_units > 0 and cell_volume > 0):
        raise MaterialError(
            f"formula_units and cell_volume of {formula} must be positive, got {formula_units} and {cell_volume!r}"
        )
    return formula_units * molar_mass(formula) / (AVOGADRO * cell_volume)


def su8(initiator_fraction: float = 0.0) -> Material:
    """Cured SU-8 with a mass fraction of its photoinitiator left in it.

    The resin is four bisphenol-A units on methylene bridges with eight glycidyl ethers, C87H96O16. The
    initiator, a triarylsulfonium hexafluoroantimonate, is mostly antimony to X-rays of 4.1–6 keV.
    """
    if not 0 <= initiator_fraction <= 0.1:
        raise MaterialError(f"initiator_fraction must lie between 0 and 0.1, got {initiator_fraction!r}")
    parts = {"C87H96O16": 1200.0 * (1 - initiator_fraction), "C18H15SSbF6": 1200.0 * initiator_fraction}
    return mixture(
        "su8", {f: d for f, d in parts.items() if d > 0}, "resin from its structure, 1.2 g/cm³ as sold"
    )


def carbon_binder(porosity: float, filling: Material | None = None, carbon_share: float = 0.5) -> Material:
    """Carbon black and PVDF with pores below the resolution, empty or filled, as between electrode particles.

    porosity : of the volume, 0 up to 0.9; filling : of the pores, none for a dry electrode;
    carbon_share : of carbon in the mass of the solid.
    """
    if not 0 <= porosity <= 0.9:
        raise MaterialError(f"porosity must lie between 0 and 0.9, got {porosity!r}")
    if not 0 < carbon_share < 1:
        raise MaterialError(f"carbon_share must lie between 0 and 1, got {carbon_share!r}")
    carbon, binder = MATERIALS["carbon_black"], MATERIALS["pvdf"]
    volumes = {carbon: carbon_share / carbon.density, binder: (1 - carbon_share) / binder.density}
    whole = sum(volumes.values())
    parts = {material: (1 - porosity) * volume / whole for material, volume in volumes.items()}
    if filling is not None and porosity > 0:
        parts[filling] = porosity
    return blend(
        "carbon_binder",
        parts,
        f"carbon black and PVDF {carbon_share:.0%} to {1 - carbon_share:.0%} by mass, {porosity:.0%} pores, "
        + ("empty" if filling is None else f"filled with {filling.name}"),
    )


def _pure(name: str, formula: str, density: float, source: str) -> Material:
    return mixture(name, {formula: density}, source)


def _crystalline(name: str, formula: str, formula_units: int, cell_volume_a3: float, source: str) -> Material:
    return _pure(name, formula, crystal_density(formula, formula_units, cell_volume_a3 * 1e-30), source)


def _layered(name: str, formula: str, a: float, c: float) -> Material:
    """A layered oxide R-3m, three formulas in the hexagonal cell a, c [Å]."""
    return _crystalline(name, formula, 3, 3**0.5 / 2 * a**2 * c, f"from the cell a = {a} Å, c = {c} Å, R-3m")


_AMMONIUM_SULFATE = liquor("ammonium_sulfate_liquor", {"ammonium_sulfate": 2.0})
_SALT_GLYCOL = liquor(
    "sodium_chloride_liquor", partial_densities={"sodium_chloride": 80.0, "ethylene_glycol": 250.0}
)

MATERIALS: dict[str, Material] = {
    material.name: material
    for material in (
        # Water and what crystals lie in.
        _pure("water", "H2O", 1000.0, "at 4 °C; 998.2 kg/m³ at 20 °C"),
        _pure(
            "vitreous_ice",
            "H2O",
            940.0,
            "low-density amorphous ice, 0.94 g/cm³: Ghormley & Hochanadel (1971)",
        ),
        _pure("protein", PROTEIN, PROTEIN_DENSITY, "mean composition of proteins; Matthews (1968)"),
        _AMMONIUM_SULFATE,
        _SALT_GLYCOL,
        liquor(
            "phosphate_liquor", {"sodium_dihydrogen_phosphate": 0.8, "dipotassium_hydrogen_phosphate": 0.8}
        ),
        liquor("peg_liquor", {"sodium_chloride": 0.1}, partial_densities={"peg": 200.0, "glycerol": 200.0}),
        protein_crystal("ammonium_sulfate_crystal", 0.45, _AMMONIUM_SULFATE),
        protein_crystal("sodium_chloride_crystal", 0.38, _SALT_GLYCOL),
        # Mounts and what holds them.
        _pure("nylon", "C6H11NO", 1140.0, "nylon 6, as sold"),
        _pure("polyimide", "C22H10N2O5", 1420.0, "Kapton, manufacturer's data sheet"),
        _pure("polyester", "C10H8O4", 1390.0, "Mylar, manufacturer's data sheet"),
        su8(),
        mixture(
            "steel",
            {"Fe": 5609.0, "Cr": 1501.0, "Ni": 632.0, "Mn": 158.0},
            "stainless 304, 71 Fe 19 Cr 8 Ni 2 Mn by mass, 7.9 g/cm³, of which pins are made",
        ),
        _pure("gold", "Au", 19300.0, "CRC Handbook"),
        mixture(
            "air",
            {"N2": 0.9101, "O2": 0.2793, "Ar": 0.01546, "C": 0.000149},
            "dry, 20 °C, 1 atm: 1.205 kg/m³, mass fractions of NIST's X-ray tables",
        ),
        # Filters of a tube.
        _pure("aluminium", "Al", 2700.0, "CRC Handbook"),
        _pure("copper", "Cu", 8960.0, "CRC Handbook"),
        _pure("beryllium", "Be", 1848.0, "CRC Handbook"),
        # Fuel cells.
        _pure("nickel", "Ni", 8908.0, "CRC Handbook"),
        _crystalline(
            "ysz", "Zr0.852Y0.148O1.926", 4, 5.139**3, "8 mol% Y2O3, from the cubic cell a = 5.139 Å, Fm-3m"
        ),
        # Lithium-ion cells.
        _layered("nmc111", "LiNi0.3333Mn0.3333Co0.3333O2", 2.860, 14.23),
        _layered("nmc622", "LiNi0.6Mn0.2Co0.2O2", 2.868, 14.22),
        _layered("nmc811", "LiNi0.8Mn0.1Co0.1O2", 2.872, 14.20),
        _crystalline(
            "lfp", "LiFePO4", 4, 10.332 * 6.010 * 4.692, "from the cell 10.332, 6.010, 4.692 Å, Pnma"
        ),
        _crystalline(
            "graphite", "C", 4, 3**0.5 / 2 * 2.461**2 * 6.708, "from the cell a = 2.461, c = 6.708 Å"
        ),
        _crystalline("silicon", "Si", 8, 5.43102**3, "from the cell a = 5.43102 Å (CODATA)"),
        _pure("carbon_black", "C", 1900.0, "1.8–2.0 g/cm³, manufacturers' data sheets"),
        _pure("pvdf", "C2H2F2", 1780.0, "as sold"),
        mixture(
            "electrolyte",
            {"LiPF6": 151.9, "C3H4O3": 574.05, "C3H6O3": 574.05},
            "LP30: 1 M LiPF6 in ethylene and dimethyl carbonate 1:1 by mass, 1.30 g/cm³, manufacturer's data sheet",
        ),
    )
}
MATERIALS["carbon_binder"] = carbon_binder(0.5)


def find_material(name: str) -> Material:
    """A material by name. Raises MaterialError that lists the known ones."""
    try:
        return MATERIALS[name]
    except KeyError:
        raise MaterialError(
            f"material {name!r} is unknown; known are {', '.join(sorted(MATERIALS))}, or build one with "
            "tomoforge.optics.materials.mixture"
        ) from None
