"""Conversions: published values, there and back, and what is refused."""

import math

import pytest

from tomoforge import units
from tomoforge.errors import InputError


def test_kev_to_wavelength__codata_value() -> None:
    # hc/e = 12.398 419 843 keV Å, exact in the 2019 SI; printed digits bound the tolerance.
    assert units.kev_to_wavelength(1.0) / units.ANGSTROM == pytest.approx(12.398419843, rel=1e-10)
    assert units.kev_to_wavelength(5.0) == pytest.approx(2.4796839686e-10, rel=1e-10, abs=0)


def test_wavelength_to_kev__there_and_back() -> None:
    for energy_kev in (0.2, 3.5, 12.658, 200.0):
        back = units.wavelength_to_kev(units.kev_to_wavelength(energy_kev))
        assert back == pytest.approx(energy_kev, rel=1e-15)  # two roundings


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_kev_to_wavelength__refuses_what_is_no_energy(value: float) -> None:
    with pytest.raises(InputError, match="energy_kev must be a positive number of keV, got"):
        units.kev_to_wavelength(value)
    with pytest.raises(InputError, match="wavelength must be a positive number of metres, got"):
        units.wavelength_to_kev(value)


def test_lengths_and_angles__closed_forms() -> None:
    # Decimal factors: within one rounding of the exact value.
    assert units.um_to_m(2.5) == pytest.approx(2.5e-6, rel=1e-15, abs=0)
    assert units.m_to_um(2.5e-6) == pytest.approx(2.5, rel=1e-15)
    assert units.mm_to_m(5.0) == pytest.approx(5e-3, rel=1e-15)
    assert units.deg_to_rad(180.0) == math.pi
    assert units.rad_to_deg(math.pi / 2) == 90.0
