"""Random but plausible materials: what a set of forged samples is made of.

A draw has two halves. ``draw_material_record`` draws numbers and names, each component of the sample from a
generator of its own, into a record that goes to JSON; ``build_materials`` makes the materials of a record,
drawn or written by hand. The ranges are those of published crystallisation and cryo conditions and of
commercial electrodes; how often what is drawn is judgement.
"""

from typing import Any

import numpy as np

from tomoforge.errors import MaterialError
from tomoforge.optics.materials import (
    Material,
    blend,
    carbon_binder,
    find_material,
    liquor,
    protein_crystal,
    su8,
)
from tomoforge.seeds import component_rng

FAMILIES = ("protein_crystal", "battery_electrode", "fuel_cell")

SOLVENT_FRACTION = (0.3, 0.7)  # most crystals have 0.3–0.7: Matthews (1968), Kantardjieff & Rupp (2003)
PROTEIN_DENSITY_RANGE = (1330.0, 1370.0)  # [kg/m³]
SULFUR_PER_100_CARBON = (0.3, 1.5)

# Salts that precipitate by themselves [mol/L].
PRECIPITANT_SALTS: dict[str, tuple[float, float]] = {
    "ammonium_sulfate": (1.0, 2.6),
    "sodium_chloride": (0.5, 3.0),
    "lithium_sulfate": (0.6, 1.6),
    "sodium_dihydrogen_phosphate": (0.5, 1.6),
    "dipotassium_hydrogen_phosphate": (0.4, 0.8),
    "sodium_citrate": (0.4, 0.8),
    "sodium_malonate": (1.0, 2.4),
    "sodium_formate": (1.5, 4.0),
}
# Organic precipitants and cryoprotectants [kg/m³ of solution].
PRECIPITANT_ORGANICS: dict[str, tuple[float, float]] = {"peg": (80.0, 250.0), "mpd": (150.0, 400.0)}
CRYOPROTECTANTS: dict[str, tuple[float, float]] = {
    "glycerol": (150.0, 300.0),
    "ethylene_glycol": (150.0, 300.0),
    "peg": (120.0, 250.0),
    "sucrose": (200.0, 300.0),
}
# Salts in small amount beside a precipitant [mol/L]; those of calcium and magnesium do not stay dissolved
# beside sulfate, phosphate or citrate.
ADDITIVE_SALTS: dict[str, tuple[float, float]] = {
    "sodium_chloride": (0.05, 0.3),
    "ammonium_chloride": (0.05, 0.3),
    "lithium_chloride": (0.05, 0.3),
    "sodium_acetate": (0.05, 0.3),
}
EARTH_ALKALI_SALTS: dict[str, tuple[float, float]] = {
    "magnesium_chloride": (0.05, 0.2),
    "calcium_chloride": (0.05, 0.2),
}
# Soaks for phasing [mol/L].
SOAKS: dict[str, tuple[float, float]] = {"sodium_iodide": (0.1, 0.5), "sodium_bromide": (0.2, 0.8)}

# These vitrify without anything added.
_SELF_PROTECTING = ("sodium_malonate", "sodium_formate", "mpd")

MOUNTS = {"nylon": 0.4, "polyimide": 0.3, "su8": 0.2, "polyester": 0.1}
SU8_INITIATOR = (0.0, 0.05)

ELECTRODE_ACTIVES = ("nmc111", "nmc622", "nmc811", "lfp", "graphite", "silicon")
PARTICLE_POROSITY = (0.0, 0.15)  # of secondary particles
BINDER_POROSITY = (0.3, 0.6)
CARBON_SHARE = (0.3, 0.7)
CERAMIC_POROSITY = (0.0, 0.03)


def draw_materials(seed: int, family: str = "protein_crystal") -> dict[str, Material]:
    """Materials of the sample ``seed`` of a family: label name → Material.

    family : ``protein_crystal`` gives liquor, loop and crystal; ``battery_electrode`` and ``fuel_cell`` give
    active and additive, as granular packings are labelled.

    Raises MaterialError for a family that is not known. See ``draw_material_record`` for what was drawn.
    """
    return build_materials(draw_material_record(seed, family))


def draw_material_record(seed: int, family: str = "protein_crystal") -> dict[str, Any]:
    """What ``draw_materials`` draws, as plain numbers, names and dictionaries that JSON can hold.

    Each component (precipitant, cryoprotectant, mount, …) draws from a child of ``seed`` of its own.
    """
    if family == "protein_crystal":
        drawn = {"liquor": _draw_liquor(seed), "crystal": _draw_crystal(seed), "loop": _draw_mount(seed)}
    elif family == "battery_electrode":
        drawn = {"active": _draw_active(seed), "additive": _draw_binder(seed)}
    elif family == "fuel_cell":
        porosity = _uniform(component_rng(seed, "material additive"), CERAMIC_POROSITY)
        drawn = {
            "active": {"material": "nickel", "porosity": 0.0},
            "additive": {"material": "ysz", "porosity": porosity},
        }
    else:
        raise MaterialError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
    return {"family": family, "seed": int(seed), **drawn}


def build_materials(record: dict[str, Any]) -> dict[str, Material]:
    """The materials of a record: label name → Material. The same record gives the same materials.

    Raises MaterialError for a record that lacks something, or whose solutes do not make a solution.
    """
    try:
        if record["family"] == "protein_crystal":
            return _build_protein(record)
        if record["family"] in FAMILIES:
            return {label: _build_phase(label, record[label]) for label in ("active", "additive")}
    except KeyError as error:
        raise MaterialError(
            f"record of materials lacks {error}; make one with draw_material_record"
        ) from None
    raise MaterialError(f"family of a record must be one of {', '.join(FAMILIES)}, got {record['family']!r}")


def _uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return round(float(rng.uniform(*bounds)), 4)


def _choose(rng: np.random.Generator, names: tuple[str, ...] | dict[str, float]) -> str:
    """One of the names: equally likely, or as often as their values say."""
    weights = list(names.values()) if isinstance(names, dict) else None
    return str(rng.choice(list(names), p=weights))


def _draw_from(rng: np.random.Generator, table: dict[str, tuple[float, float]]) -> tuple[str, float]:
    name = _choose(rng, tuple(table))
    return name, _uniform(rng, table[name])


def _draw_liquor(seed: int) -> dict[str, Any]:
    molar: dict[str, float] = {}
    organic: dict[str, float] = {}
    rng = component_rng(seed, "material precipitant")
    kind = _choose(rng, {"salt": 0.5, "organic": 0.5})
    precipitant, amount = _draw_from(rng, PRECIPITANT_SALTS if kind == "salt" else PRECIPITANT_ORGANICS)
    (molar if kind == "salt" else organic)[precipitant] = amount

    additives = ADDITIVE_SALTS | (EARTH_ALKALI_SALTS if kind == "organic" else {})
    additive, amount = _draw_from(component_rng(seed, "material additive salt"), additives)
    molar.setdefault(additive, amount)

    rng = component_rng(seed, "material soak")
    soaked, (soak, amount) = rng.uniform() < 0.1, _draw_from(rng, SOAKS)
    if soaked:
        molar[soak] = amount

    cryoprotectant, amount = _draw_from(component_rng(seed, "material cryoprotectant"), CRYOPROTECTANTS)
    if precipitant not in _SELF_PROTECTING:
        organic.setdefault(cryoprotectant, amount)

    # Water swells to 0.94 of its density as it turns to glass; organic liquids shrink, by 6 % as an estimate.
    # Linear in between with some scatter, where Tyree et al. (2018) measured some mixtures.
    mixed = liquor("liquor", molar, partial_densities=organic)
    solutes = 1 - mixed.partial_densities["H2O"] / mixed.density
    scatter = component_rng(seed, "material cooling").uniform(-0.02, 0.02)
    return {
        "molar": molar,
        "partial_densities": organic,
        "cooling_factor": round(0.94 + 0.12 * solutes + float(scatter), 4),
    }


def _draw_crystal(seed: int) -> dict[str, Any]:
    low, high = SOLVENT_FRACTION
    solvent, protein = component_rng(seed, "material solvent"), component_rng(seed, "material protein")
    return {
        # A beta distribution about 0.48, as of the Protein Data Bank.
        "solvent_fraction": round(low + (high - low) * float(solvent.beta(2.5, 3.0)), 4),
        "sulfur_per_100_carbon": _uniform(protein, SULFUR_PER_100_CARBON),
        "protein_density": _uniform(protein, PROTEIN_DENSITY_RANGE),
    }


def _draw_mount(seed: int) -> dict[str, Any]:
    rng = component_rng(seed, "material mount")
    material, initiator = _choose(rng, MOUNTS), _uniform(rng, SU8_INITIATOR)
    return {"material": material} | ({"initiator_fraction": initiator} if material == "su8" else {})


def _draw_active(seed: int) -> dict[str, Any]:
    rng = component_rng(seed, "material active")
    return {"material": _choose(rng, ELECTRODE_ACTIVES), "porosity": _uniform(rng, PARTICLE_POROSITY)}


def _draw_binder(seed: int) -> dict[str, Any]:
    rng = component_rng(seed, "material additive")
    return {
        "material": "carbon_binder",
        "porosity": _uniform(rng, BINDER_POROSITY),
        "carbon_share": _uniform(rng, CARBON_SHARE),
        "filling": "electrolyte" if rng.uniform() < 0.5 else None,
    }


def _build_protein(record: dict[str, Any]) -> dict[str, Material]:
    solution, crystal, mount = record["liquor"], record["crystal"], record["loop"]
    mother = liquor(
        "liquor",
        solution["molar"],
        partial_densities=solution["partial_densities"],
        cooling_factor=solution["cooling_factor"],
    )
    loop = (
        su8(mount["initiator_fraction"]) if mount["material"] == "su8" else find_material(mount["material"])
    )
    return {
        "liquor": mother,
        "loop": loop,
        "crystal": protein_crystal(
            "crystal",
            crystal["solvent_fraction"],
            mother,
            protein=f"C100H159N27O32S{crystal['sulfur_per_100_carbon']}",
            protein_density=crystal["protein_density"],
        ),
    }


def _build_phase(label: str, phase: dict[str, Any]) -> Material:
    if phase["material"] == "carbon_binder":
        filling = find_material(phase["filling"]) if phase["filling"] else None
        return carbon_binder(phase["porosity"], filling, phase["carbon_share"])
    solid = find_material(phase["material"])
    return blend(
        label,
        {solid: 1 - phase["porosity"]},
        f"{solid.name}, {phase['porosity']:.1%} pores within; {solid.source}",
    )
