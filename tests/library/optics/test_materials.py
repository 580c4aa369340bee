"""Refractive indices against published values, and refusals."""

import math

import pytest

from tomoforge.errors import MaterialError
from tomoforge.optics.materials import MATERIALS, find_material, mixture, refractive_index
from tomoforge.units import kev_to_wavelength

# xraylib 4: β of the total cross-section; xraydb: δ. A percent covers what the tables differ by.
KNOWN = [
    ("H2O", 1000.0, 3.0, 2.613e-5, 6.34e-7),
    ("H2O", 1000.0, 5.0, 9.311e-6, 8.40e-8),
    ("H2O", 1000.0, 12.0, 1.604e-6, 2.57e-9),
    ("C100H159N27O32S", 1350.0, 5.0, 1.207e-5, 8.24e-8),
]


@pytest.mark.parametrize(("formula", "density", "energy_kev", "delta", "beta"), KNOWN)
def test_refractive_index__matches_tables(formula, density, energy_kev, delta, beta):
    n = refractive_index(formula, density, energy_kev)
    assert n.delta == pytest.approx(delta, rel=2e-3)
    assert n.beta == pytest.approx(beta, rel=1e-2)
    assert n.mu == pytest.approx(4 * math.pi * n.beta / kev_to_wavelength(energy_kev), rel=1e-12)


def test_refractive_index__counts_scattering_as_attenuation():
    # Photo-absorption alone is 15 % lower for water at 12 keV (β 2.18e-9).
    assert refractive_index("H2O", 1000.0, 12.0).beta > 1.1 * 2.18e-9


def test_mixture__equals_its_parts():
    salt_water = mixture("salt water", {"H2O": 950.0, "NaCl": 100.0})
    n = salt_water.refractive_index(6.0)
    parts = [refractive_index("H2O", 950.0, 6.0), refractive_index("NaCl", 100.0, 6.0)]
    assert n.mu == pytest.approx(sum(p.mu for p in parts), rel=1e-12)
    assert n.delta == pytest.approx(sum(p.delta for p in parts), rel=1e-12)


def test_materials__heavy_salts_make_liquor_absorb_more_than_crystal():
    for name in ("ammonium_sulfate", "sodium_chloride"):
        liquor, crystal = MATERIALS[f"{name}_liquor"], MATERIALS[f"{name}_crystal"]
        assert liquor.refractive_index(5.0).mu > crystal.refractive_index(5.0).mu


@pytest.mark.parametrize("energy_kev", [-5.0, 0.0, 0.1, 300.0, math.nan])
def test_refractive_index__refuses_energies_off_the_tables(energy_kev):
    with pytest.raises(MaterialError, match="energy_kev must lie within the tables"):
        refractive_index("H2O", 1000.0, energy_kev)


def test_refractive_index__refuses_bad_formula_and_density():
    with pytest.raises(MaterialError, match="cannot be read"):
        refractive_index("H2Zz", 1000.0, 5.0)
    with pytest.raises(MaterialError, match="density"):
        refractive_index("H2O", -1.0, 5.0)


def test_find_material__names_the_known_ones():
    with pytest.raises(MaterialError, match=r"'honey' is unknown; known are .*nylon"):
        find_material("honey")
