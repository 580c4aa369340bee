"""Conversions between SI and the units people type. Nowhere else does a unit change.

Constants are the exact values of the 2019 SI (BIPM, The International System of Units, 9th ed., table 1).
"""

import math

from tomoforge.errors import InputError

PLANCK = 6.62607015e-34  # [J s]
LIGHT_SPEED = 299792458.0  # [m/s]
ELEMENTARY_CHARGE = 1.602176634e-19  # [C]

ANGSTROM = 1e-10  # [m]

_KEV_METRE = PLANCK * LIGHT_SPEED / (1e3 * ELEMENTARY_CHARGE)  # λ·E = 1.23984e-9 m keV


def _positive(name: str, value: float, unit: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} must be a positive number of {unit}, got {value!r}")
    return float(value)


def kev_to_wavelength(energy_kev: float) -> float:
    """Wavelength [m] of photons of ``energy_kev`` [keV]. Raises InputError unless positive."""
    return _KEV_METRE / _positive("energy_kev", energy_kev, "keV")


def wavelength_to_kev(wavelength: float) -> float:
    """Photon energy [keV] at ``wavelength`` [m]. Raises InputError unless positive."""
    return _KEV_METRE / _positive("wavelength", wavelength, "metres")


def um_to_m(length_um: float) -> float:
    """Micrometres to metres."""
    return length_um * 1e-6


def m_to_um(length: float) -> float:
    """Metres to micrometres."""
    return length * 1e6


def mm_to_m(length_mm: float) -> float:
    """Millimetres to metres."""
    return length_mm * 1e-3


def deg_to_rad(angle_deg: float) -> float:
    """Degrees to radians."""
    return math.radians(angle_deg)


def rad_to_deg(angle: float) -> float:
    """Radians to degrees."""
    return math.degrees(angle)
