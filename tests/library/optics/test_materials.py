"""Refractive indices against published and independent values; mixtures conserve what they must; refusals."""

import math

import pytest
import xraydb

from tomoforge.errors import MaterialError
from tomoforge.optics.materials import (
    MATERIALS,
    PROTEIN,
    blend,
    carbon_binder,
    crystal_density,
    find_material,
    mixture,
    protein_crystal,
    refractive_index,
    su8,
)
from tomoforge.units import kev_to_wavelength

POLYIMIDE, NYLON = "C22H10N2O5", "C6H11NO"

# δ: Chantler's tables through xraydb; β of the total cross-section: xraylib 4.3.
KNOWN = [
    ("H2O", 1000.0, 3.0, 2.613e-5, 6.341e-7),
    ("H2O", 1000.0, 5.0, 9.311e-6, 8.403e-8),
    ("H2O", 1000.0, 12.0, 1.604e-6, 2.570e-9),
    (PROTEIN, 1350.0, 5.0, 1.207e-5, 8.238e-8),
    (POLYIMIDE, 1420.0, 5.0, 1.218e-5, 7.159e-8),
    (NYLON, 1140.0, 5.0, 1.044e-5, 5.146e-8),
]


@pytest.mark.parametrize(("formula", "density", "energy_kev", "delta", "beta"), KNOWN)
def test_refractive_index__matches_tables(formula, density, energy_kev, delta, beta):
    n = refractive_index(formula, density, energy_kev)
    # The values are rounded to four digits; the two codes' cross-sections differ by 2e-4 (atomic masses).
    assert n.delta == pytest.approx(delta, rel=5e-4, abs=0)
    assert n.beta == pytest.approx(beta, rel=5e-4, abs=0)
    assert n.mu == pytest.approx(4 * math.pi * n.beta / kev_to_wavelength(energy_kev), rel=1e-12)


# δ and µ [1/m] by xraylib 4.3.0, whose f1 comes from other tables (Kissel) than the one here.
INDEPENDENT = [
    ("water", 1.0, 2.3655e-4, 4.0761e5),
    ("water", 40.0, 1.4399e-7, 26.829),
    ("water", 150.0, 1.0236e-8, 15.055),
    ("polyester", 3.0, 3.3988e-5, 17898.0),
    ("gold", 12.0, 1.8818e-5, 3.5451e5),
    ("gold", 150.0, 1.4154e-7, 3588.9),
    ("steel", 40.0, 9.5850e-7, 2804.8),
    ("nickel", 5.0, 6.8720e-5, 1.5968e5),
    ("ysz", 12.0, 7.6843e-6, 20362.0),
    ("nmc811", 40.0, 5.9563e-7, 1307.2),
    ("lfp", 5.0, 2.8679e-5, 45027.0),
    ("graphite", 12.0, 3.2707e-6, 323.34),
    ("silicon", 5.0, 1.9802e-5, 57078.0),
    ("pvdf", 3.0, 4.2016e-5, 36536.0),
]


@pytest.mark.parametrize(("name", "energy_kev", "delta", "mu"), INDEPENDENT)
def test_materials__match_an_independent_code(name, energy_kev, delta, mu):
    n = find_material(name).refractive_index(energy_kev)
    # Both µ are Elam's: only atomic masses differ. f1 of Chantler and Kissel differ by 0.3 % at 1 keV.
    assert n.mu == pytest.approx(mu, rel=5e-4)
    assert n.delta == pytest.approx(delta, rel=4e-3, abs=0)


@pytest.mark.parametrize(
    ("formula", "density", "energy_kev", "photo_beta", "scattered"),
    [
        # β of photo-absorption alone, by xraydb, and the part of the total that scattering makes.
        ("H2O", 1000.0, 3.0, 6.04e-7, 0.048),
        ("H2O", 1000.0, 12.0, 2.18e-9, 0.152),
        (POLYIMIDE, 1420.0, 5.0, 6.58e-8, 0.081),
        (NYLON, 1140.0, 5.0, 4.73e-8, 0.081),
    ],
)
def test_refractive_index__counts_scattering_as_attenuation(
    formula, density, energy_kev, photo_beta, scattered
):
    table = xraydb.xray_delta_beta(formula, density / 1000, 1e3 * energy_kev)[1]
    assert table == pytest.approx(photo_beta, rel=2e-3, abs=0)
    # Rounded to 0.1 %; Chantler's and Elam's photo-absorption differ by up to 1 %.
    assert 1 - photo_beta / refractive_index(formula, density, energy_kev).beta == pytest.approx(
        scattered, abs=1e-2
    )


@pytest.mark.parametrize("name", ["water", "protein", "nylon", "graphite", "silicon", "lfp"])
def test_refractive_index__sees_every_electron_far_above_the_edges(name):
    # f1 → Z: δ = r_e λ² n_e / 2π, less a relativistic correction of (Z/82.5)^2.37 electrons, 0.25 % for iron.
    material, wavelength = find_material(name), kev_to_wavelength(150.0)
    free = 2.8179403e-15 * wavelength**2 * material.electron_density / (2 * math.pi)
    assert material.refractive_index(150.0).delta == pytest.approx(free, rel=2e-3, abs=0)


def test_electron_density__of_water():
    # 10 electrons a molecule of 18.015 g/mol: 3.343e29 1/m³ at 1000 kg/m³.
    assert find_material("water").electron_density == pytest.approx(3.3429e29, rel=1e-4)


def test_refractive_index__does_not_take_a_formula_for_a_name():
    # xraydb.material_mu finds Co when asked for CO, and is 42 times out.
    carbon, oxygen = 12.011, 15.999
    share = carbon / (carbon + oxygen)
    parts = [refractive_index("C", 1000 * share, 10.0).mu, refractive_index("O", 1000 * (1 - share), 10.0).mu]
    assert refractive_index("CO", 1000.0, 10.0).mu == pytest.approx(sum(parts), rel=1e-4)


def test_mixture__equals_its_parts():
    salt_water = mixture("salt water", {"H2O": 950.0, "NaCl": 100.0})
    n = salt_water.refractive_index(6.0)
    parts = [refractive_index("H2O", 950.0, 6.0), refractive_index("NaCl", 100.0, 6.0)]
    assert n.mu == pytest.approx(sum(p.mu for p in parts), rel=1e-12)
    assert n.delta == pytest.approx(sum(p.delta for p in parts), rel=1e-12, abs=0)


def test_mixture__of_elements_is_the_compound():
    # µ is additive over atoms: water by its formula, or hydrogen and oxygen by mass.
    hydrogen = 2 * 1.008 / 18.015
    parts = mixture("hydrogen and oxygen", {"H": 1000 * hydrogen, "O": 1000 * (1 - hydrogen)})
    for energy_kev in (0.3, 5.0, 60.0):
        whole, apart = refractive_index("H2O", 1000.0, energy_kev), parts.refractive_index(energy_kev)
        assert apart.mu == pytest.approx(whole.mu, rel=1e-4)
        assert apart.delta == pytest.approx(whole.delta, rel=1e-4, abs=0)


def test_blend__conserves_mass_electrons_and_attenuation():
    water, gold = find_material("water"), find_material("gold")
    wet = blend("wet gold", {water: 0.7, gold: 0.2})  # a tenth is void
    assert wet.density == pytest.approx(0.7 * water.density + 0.2 * gold.density, rel=1e-12)
    assert wet.electron_density == pytest.approx(
        0.7 * water.electron_density + 0.2 * gold.electron_density, rel=1e-12
    )
    assert wet.refractive_index(8.0).mu == pytest.approx(
        0.7 * water.refractive_index(8.0).mu + 0.2 * gold.refractive_index(8.0).mu, rel=1e-12
    )


@pytest.mark.parametrize("solvent_fraction", [0.3, 0.5, 0.7])
def test_protein_crystal__conserves_mass_electrons_and_attenuation(solvent_fraction):
    protein, liquor = find_material("protein"), find_material("ammonium_sulfate_liquor")
    crystal = protein_crystal("crystal", solvent_fraction, liquor)

    def shared(of):
        return (1 - solvent_fraction) * of(protein) + solvent_fraction * of(liquor)

    assert crystal.density == pytest.approx(shared(lambda m: m.density), rel=1e-12)
    assert crystal.electron_density == pytest.approx(shared(lambda m: m.electron_density), rel=1e-12)
    assert crystal.refractive_index(4.0).mu == pytest.approx(
        shared(lambda m: m.refractive_index(4.0).mu), rel=1e-12
    )
    assert crystal.refractive_index(4.0).delta == pytest.approx(
        shared(lambda m: m.refractive_index(4.0).delta), rel=1e-12, abs=0
    )


def test_at_density__scales_everything():
    water = find_material("water")
    ice = water.at_density(940.0)
    assert ice.refractive_index(5.0).mu == pytest.approx(0.94 * water.refractive_index(5.0).mu, rel=1e-12)
    assert ice.electron_density == pytest.approx(0.94 * water.electron_density, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "measured"),
    # Handbook densities; cells and pycnometers agree to a percent.
    [("silicon", 2329), ("graphite", 2260), ("lfp", 3600), ("ysz", 5960), ("nmc111", 4750), ("nmc811", 4780)],
)
def test_crystal_density__of_cells_agrees_with_the_handbook(name, measured):
    assert find_material(name).density == pytest.approx(measured, rel=1e-2)


def test_materials__densities_are_kilograms_in_a_cubic_metre():
    # 1 / 0.74 cm³/g, the mean partial specific volume of proteins (Fischer et al. 2004).
    assert find_material("protein").density == pytest.approx(1351, rel=2e-2)
    # Wet crystals lie between water and protein (Matthews 1968: 1.1 to 1.3 g/cm³).
    for name in ("ammonium_sulfate_crystal", "sodium_chloride_crystal"):
        assert 1100 < find_material(name).density < 1300
    assert find_material("air").density == pytest.approx(1.205, rel=1e-3)
    for name in set(MATERIALS) - {"air"}:
        assert 800 < find_material(name).density < 20000, name


def test_carbon_binder__fills_its_pores():
    # 50:50 by mass of 1900 and 1780 kg/m³ is 1838 kg/m³ (harmonic mean).
    assert carbon_binder(0.0).density == pytest.approx(2 / (1 / 1900 + 1 / 1780), rel=1e-12)
    assert carbon_binder(0.4).density == pytest.approx(0.6 * carbon_binder(0.0).density, rel=1e-12)
    filled = carbon_binder(0.4, find_material("electrolyte"))
    assert filled.density == pytest.approx(0.6 * carbon_binder(0.0).density + 0.4 * 1300, rel=1e-12)


def test_su8__antimony_of_its_initiator_absorbs_above_its_edges():
    # L edges of Sb: 4.132, 4.380, 4.698 keV.
    def added(energy_kev):
        return su8(0.05).refractive_index(energy_kev).mu / su8().refractive_index(energy_kev).mu

    assert added(4.0) < 1.3 < 1.4 < added(4.8)


@pytest.mark.parametrize("name", sorted(MATERIALS))
def test_materials__cover_the_whole_range_and_name_their_source(name):
    material = find_material(name)
    assert material.source
    indices = [material.refractive_index(energy) for energy in (0.2, 1.0, 5.0, 30.0, 200.0)]
    assert all(n.mu > 0 and n.beta > 0 and math.isfinite(n.delta) for n in indices)
    # The lightest of them (air but for one) passes more of hard than of soft photons.
    assert indices[0].mu > indices[2].mu > indices[4].mu


@pytest.mark.parametrize("energy_kev", [-5.0, 0.0, 0.1, 0.199, 200.1, 300.0, 5000.0, math.nan, math.inf])
def test_refractive_index__refuses_energies_off_the_tables(energy_kev):
    with pytest.raises(MaterialError, match="energy_kev must lie within the tables"):
        refractive_index("H2O", 1000.0, energy_kev)


@pytest.mark.parametrize("formula", ["H2Zz", "", "water", "Kapton"])
def test_refractive_index__refuses_what_is_no_formula(formula):
    with pytest.raises(MaterialError, match="formula"):
        refractive_index(formula, 1000.0, 5.0)


def test_refractive_index__refuses_bad_densities_and_elements_off_the_tables():
    for density in (-1.0, 0.0, math.nan):
        with pytest.raises(MaterialError, match="density"):
            refractive_index("H2O", density, 5.0)
    with pytest.raises(MaterialError, match="end at uranium"):
        refractive_index("PuO2", 11500.0, 5.0)


def test_mixtures__refuse_what_cannot_be():
    water = find_material("water")
    with pytest.raises(MaterialError, match="positive density"):
        mixture("nothing", {"H2O": 0.0})
    with pytest.raises(MaterialError, match="positive density"):
        mixture("odd", {"H2O": 1000.0, "NaCl": math.nan})
    with pytest.raises(MaterialError, match="mass fractions"):
        mixture("odd", {"H2O": 1000.0, "NaCl": -10.0})
    for fractions in ({water: 1.1}, {water: -0.1}, {}, {water: math.nan}):
        with pytest.raises(MaterialError, match="volume fractions"):
            blend("odd", fractions)
    for fraction in (0.0, 1.0, math.nan):
        with pytest.raises(MaterialError, match="solvent_fraction"):
            protein_crystal("crystal", fraction, water)
    with pytest.raises(MaterialError, match="density of water"):
        water.at_density(-1.0)
    with pytest.raises(MaterialError, match="porosity"):
        carbon_binder(1.0)
    with pytest.raises(MaterialError, match="carbon_share"):
        carbon_binder(0.5, carbon_share=1.0)
    with pytest.raises(MaterialError, match="initiator_fraction"):
        su8(0.5)
    with pytest.raises(MaterialError, match="cell_volume"):
        crystal_density("Si", 8, 0.0)


def test_find_material__names_the_known_ones():
    with pytest.raises(MaterialError, match=r"'honey' is unknown; known are .*nylon"):
        find_material("honey")
