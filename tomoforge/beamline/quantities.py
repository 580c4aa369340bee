"""Numbers with units as NeXus stores them, read into SI or refused: never assumed."""

from dataclasses import dataclass

import h5py
import numpy as np

from tomoforge.errors import ScanError
from tomoforge.units import ELEMENTARY_CHARGE

# The second of the two look-alike µ is the Greek letter, the first the micro sign: files have either.
_LENGTH = {"m": 1.0, "meter": 1.0, "metre": 1.0, "meters": 1.0, "metres": 1.0,
           "cm": 1e-2, "mm": 1e-3, "millimeter": 1e-3, "millimetre": 1e-3,
           "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "micron": 1e-6, "microns": 1e-6,
           "micrometer": 1e-6, "micrometre": 1e-6,
           "nm": 1e-9, "nanometer": 1e-9, "nanometre": 1e-9}  # fmt: skip
_ENERGY_KEV = {"kev": 1.0, "kiloelectron_volt": 1.0, "kiloelectronvolt": 1.0, "ev": 1e-3,
               "electron_volt": 1e-3, "electronvolt": 1e-3, "mev": 1e3,
               "j": 1e-3 / ELEMENTARY_CHARGE, "joule": 1e-3 / ELEMENTARY_CHARGE}  # fmt: skip
_ANGLE = {"deg": np.pi / 180, "degree": np.pi / 180, "degrees": np.pi / 180, "°": np.pi / 180,
          "rad": 1.0, "radian": 1.0, "radians": 1.0, "mrad": 1e-3}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A quantity found in a file. value : in the library's unit, None where it has no unit; where : path."""

    value: float | None
    where: str


def text(value: object) -> str:
    """An HDF5 string as str, whichever of its many forms it was stored in."""
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def unit_of(dataset: h5py.Dataset) -> str | None:
    """The ``units`` attribute, or None where it is absent or empty."""
    unit = dataset.attrs.get("units", dataset.attrs.get("unit"))
    return (text(unit).strip() or None) if unit is not None else None


def angles_in_radians(dataset: h5py.Dataset) -> np.ndarray:
    """An angle dataset as (n,) float64 radians; NeXus and every beamline mean degrees where no unit is given.

    Raises
    ------
    ScanError
        If the unit is none of the known.
    """
    unit = unit_of(dataset) or "degree"
    if unit.lower() not in _ANGLE:
        raise ScanError(f"{dataset.name} has units {unit!r}, expected one of {', '.join(_ANGLE)}")
    return np.atleast_1d(np.asarray(dataset[()], dtype=np.float64)) * _ANGLE[unit.lower()]


def first_length(group: h5py.Group, paths: list[str]) -> Stored | None:
    """The first of ``paths`` that exists, as a length [m]."""
    return _first(group, paths, _LENGTH)


def first_energy_kev(group: h5py.Group, paths: list[str]) -> Stored | None:
    """The first of ``paths`` that exists, as a photon energy [keV]."""
    return _first(group, paths, _ENERGY_KEV)


def _first(group: h5py.Group, paths: list[str], table: dict[str, float]) -> Stored | None:
    for path in paths:
        dataset = group.get(path)
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            continue
        try:
            values = np.asarray(dataset[()], dtype=np.float64).ravel()
        except (TypeError, ValueError):
            raise ScanError(f"{dataset.name} must be a number, got {dataset.dtype}") from None
        if values.size == 0:
            continue
        if not np.allclose(values, values[0], rtol=1e-3, atol=0.0, equal_nan=True):
            raise ScanError(
                f"{dataset.name} must be one value, got {values.size} from {values.min():g} to "
                f"{values.max():g}; a scan over it is not one tomogram"
            )
        unit = unit_of(dataset)
        # Upper-case MeV and mixed keV/kev occur; none of the known units differ by case alone.
        factor = None if unit is None else table.get(unit.lower(), table.get(unit))
        if unit is not None and factor is None:
            raise ScanError(f"{dataset.name} has units {unit!r}, expected one of {', '.join(table)}")
        return Stored(None if factor is None else float(values[0] * factor), str(dataset.name))
    return None
