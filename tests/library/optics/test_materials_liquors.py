"""Liquors: densities as measured, the recipe's masses and electrons, heavy salts darker than the crystal."""

import math

import pytest

from tomoforge.errors import MaterialError
from tomoforge.optics.materials import (
    MATERIALS,
    SOLUTES,
    find_material,
    liquor,
    mixture,
    protein_crystal,
)

# Percent by mass → density [kg/m³] at 20 °C, CRC Handbook, concentrative properties of aqueous solutions.
MEASURED = {
    "ammonium_sulfate": {5: 1027.9, 10: 1057.4, 20: 1115.4, 30: 1172.1, 40: 1227.7},
    "sodium_chloride": {1: 1005.3, 10: 1070.7, 20: 1147.8, 26: 1197.2},
    "sodium_bromide": {10: 1080.3, 20: 1174.5, 30: 1284.2, 40: 1413.8},
    "sodium_acetate": {10: 1049.5, 20: 1105.0, 30: 1160.2},
    "sodium_nitrate": {10: 1067.4, 20: 1142.9, 30: 1225.6, 40: 1317.5},
    "sodium_dihydrogen_phosphate": {10: 1074.7, 20: 1157.6},
    "sodium_citrate": {1: 1004.9, 5: 1033.1, 10: 1070.8, 20: 1149.2},
    "magnesium_sulfate": {1: 1008.4, 5: 1049.7, 10: 1103.4, 20: 1219.8},
    "sucrose": {10: 1038.1, 20: 1081.0, 30: 1127.0, 40: 1176.5},
    "glycerol": {10: 1022.1, 20: 1047.0, 30: 1072.7, 50: 1126.3},
    "ethylene_glycol": {10: 1010.8, 20: 1024.1, 30: 1037.8},
}


def by_mass(solute, percent):
    """A liquor of so many percent by mass: the volume's density is found by repetition."""
    density = 1000.0
    for _ in range(40):
        solution = liquor("solution", partial_densities={solute: percent / 100 * density})
        density = solution.density
    return solution


@pytest.mark.parametrize("solute", sorted(MEASURED))
def test_liquor__density_as_measured(solute):
    for percent, density in MEASURED[solute].items():
        # The model's published scatter is 1.4 kg/m³ rms; one constant volume costs 3 at 50 % glycerol.
        assert by_mass(solute, percent).density == pytest.approx(density, abs=3.2), percent


def test_liquor__of_nothing_is_water():
    assert liquor("water").density == pytest.approx(998.2, abs=0.05)
    assert liquor("water", {"sodium_chloride": 0.0}).density == pytest.approx(998.2, abs=0.05)


@pytest.mark.parametrize("solute", sorted(SOLUTES))
def test_liquor__is_continuous_with_water(solute):
    assert liquor("weak", partial_densities={solute: 1e-3}).density == pytest.approx(998.2, abs=0.05)


def test_liquor__holds_the_recipe():
    solution = liquor(
        "cryo",
        {"ammonium_sulfate": 1.5, "sodium_chloride": 0.2},
        partial_densities={"glycerol": 200.0, "peg": 30.0},
    )
    parts = solution.partial_densities
    # Molar masses of the IUPAC: 132.14 and 58.44 g/mol.
    assert parts["N2H8SO4"] == pytest.approx(1.5 * 132.14, rel=1e-4)
    assert parts["NaCl"] == pytest.approx(0.2 * 58.44, rel=1e-4)
    assert parts["C3H8O3"] == pytest.approx(200.0, rel=1e-9)
    assert sum(parts.values()) == pytest.approx(solution.density, rel=1e-12)
    # Electrons by hand: 70 of the sulfate, 28 of the salt, 50 of glycerol, 24 of the oxyethylene, 10 of water.
    moles = {70: 1500.0, 28: 200.0, 50: 200.0 / 0.09209, 24: 30.0 / 0.04405, 10: parts["H2O"] / 0.018015}
    electrons = 6.02214076e23 * sum(number * amount for number, amount in moles.items())
    assert solution.electron_density == pytest.approx(electrons, rel=1e-4)


def test_liquor__salts_share_the_water():
    # NaCl of 10 % in water alone takes 0.3 l/kg or so; beside 200 g/L glycerol the volumes still add up to 1.
    solution = liquor("both", {"sodium_chloride": 1.5}, partial_densities={"glycerol": 200.0})
    parts = solution.partial_densities
    dissolved = parts["NaCl"] / (parts["NaCl"] + parts["H2O"])
    volumes = (
        parts["H2O"] / 998.2071
        + parts["NaCl"] * SOLUTES["sodium_chloride"].specific_volume(dissolved)
        + 200.0 * 0.769e-3
    )
    assert volumes == pytest.approx(1.0, abs=1e-9)


def test_liquor__cooling_scales_the_density():
    warm, cold = (liquor("l", {"sodium_chloride": 1.0}, cooling_factor=factor) for factor in (1.0, 0.95))
    assert cold.density == pytest.approx(0.95 * warm.density, rel=1e-12)
    assert cold.composition == warm.composition


def test_liquor__source_says_recipe_and_estimates():
    measured = liquor("l", {"ammonium_sulfate": 2.0}).source
    assert "ammonium_sulfate 264.3 g/L" in measured
    assert "Laliberté" in measured
    assert "estimated" not in measured
    assert "estimated" in liquor("l", {"sodium_malonate": 1.0}).source


# What precipitates proteins by its salt, at concentrations in use [mol/L].
HEAVY = [
    {"ammonium_sulfate": 1.5},
    {"ammonium_sulfate": 2.5},
    {"sodium_chloride": 1.0},
    {"lithium_sulfate": 1.0},
    {"sodium_dihydrogen_phosphate": 0.8, "dipotassium_hydrogen_phosphate": 0.8},
    {"sodium_iodide": 0.3},
]


@pytest.mark.parametrize("salts", HEAVY, ids=lambda salts: "+".join(salts))
@pytest.mark.parametrize("energy_kev", [3.0, 4.0, 5.0])
@pytest.mark.parametrize("solvent_fraction", [0.3, 0.7])
def test_liquor__heavy_salts_absorb_more_than_the_crystal(salts, energy_kev, solvent_fraction):
    mother = liquor("liquor", salts, partial_densities={"glycerol": 200.0})
    crystal = protein_crystal("crystal", solvent_fraction, mother)
    assert mother.refractive_index(energy_kev).mu > crystal.refractive_index(energy_kev).mu
    # Yet it refracts less: fewer electrons.
    assert mother.refractive_index(energy_kev).delta < crystal.refractive_index(energy_kev).delta


@pytest.mark.parametrize("energy_kev", [3.0, 4.0, 5.0])
def test_liquor__without_salt_absorbs_less_than_the_crystal(energy_kev):
    mother = liquor("liquor", partial_densities={"peg": 200.0, "glycerol": 200.0})
    crystal = protein_crystal("crystal", 0.5, mother)
    assert mother.refractive_index(energy_kev).mu < crystal.refractive_index(energy_kev).mu


def test_materials__liquors_by_name_are_those_of_before():
    # 2 M ammonium sulfate: CRC 1.134 g/cm³, and its crystal at 45 % solvent.
    assert find_material("ammonium_sulfate_liquor").density == pytest.approx(1134.0, abs=1.0)
    assert find_material("ammonium_sulfate_liquor").refractive_index(5.0).mu == pytest.approx(6731, rel=1e-3)
    assert find_material("ammonium_sulfate_crystal").refractive_index(5.0).mu == pytest.approx(5325, rel=1e-3)
    for name in ("ammonium_sulfate", "sodium_chloride"):
        mother, crystal = MATERIALS[f"{name}_liquor"], MATERIALS[f"{name}_crystal"]
        for energy_kev in (3.0, 4.0, 5.0):
            assert mother.refractive_index(energy_kev).mu > crystal.refractive_index(energy_kev).mu


def test_liquor__refuses_what_is_no_solution():
    with pytest.raises(MaterialError, match=r"unknown: honey; known are .*glycerol"):
        liquor("l", {"honey": 1.0})
    with pytest.raises(MaterialError, match="both molar and by mass: sucrose"):
        liquor("l", {"sucrose": 1.0}, partial_densities={"sucrose": 10.0})
    for amount in (-1.0, math.nan, math.inf):
        with pytest.raises(MaterialError, match="zero or more"):
            liquor("l", {"sodium_chloride": amount})
    with pytest.raises(MaterialError, match="no room for water"):
        liquor("l", {"ammonium_sulfate": 2000.0})  # mmol/L given as mol/L
    with pytest.raises(MaterialError, match="beyond the data"):
        liquor("l", {"sodium_chloride": 6.2})  # saturated: 26.4 %
    with pytest.raises(MaterialError, match="cooling_factor"):
        liquor("l", cooling_factor=940.0)


def test_mixture__takes_a_measured_density_where_the_model_ends():
    saturated = mixture("brine", {"NaCl": 320.0, "H2O": 882.0})
    assert saturated.density == 1202.0
