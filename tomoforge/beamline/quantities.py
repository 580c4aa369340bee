"""Numbers with units as NeXus and Data Exchange store them, read into SI or refused: never assumed."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from tomoforge.beamline.links import LinkedGroup
from tomoforge.errors import InputError, ScanError
from tomoforge.units import ELEMENTARY_CHARGE, m_to_um, um_to_m

logger = logging.getLogger(__name__)

_DISAGREEMENT = 0.01  # of given and stored: beyond it, a mistyped number is likelier than calibration
_MOST_VALUES = 10_000_000  # of an angle or a key for each frame: more is a wrong dataset or a trick

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
    return small_values(dataset).astype(np.float64).ravel() * angle_factor(unit, str(dataset.name))


def angle_factor(unit: str, where: str) -> float:
    """Radians in one ``unit``. Raises ScanError, naming ``where``, if the unit is none of the known."""
    if unit.lower() not in _ANGLE:
        raise ScanError(f"{where} has units {unit!r}, expected one of {', '.join(_ANGLE)}")
    return _ANGLE[unit.lower()]


def exact_angles(angles: np.ndarray, radians: h5py.Dataset | None) -> np.ndarray:
    """``angles`` (n,) [rad], or the ``radians`` stored beside them where those say the same.

    Degrees are what others read; converting them to and fro loses the last bit, so the writers here store both.
    """
    if radians is None or radians.size != angles.size or (unit_of(radians) or "") != "rad":
        return angles
    values = small_values(radians).astype(np.float64).ravel()
    if not np.allclose(values, angles, rtol=1e-14, atol=1e-15, equal_nan=True):
        logger.warning("%s contradicts the angles in degrees, which are used", radians.name)
        return angles
    return values


def small_values(dataset: h5py.Dataset) -> np.ndarray:
    """The values of a dataset of numbers that must be small enough to read at once.

    Raises
    ------
    ScanError
        If it claims more values than one for each frame of any scan, or they are no numbers.
    """
    if dataset.size > _MOST_VALUES:
        raise ScanError(
            f"{dataset.name} must have at most one value for each frame, got {dataset.size}; is it the right dataset?"
        )
    if dataset.dtype.kind not in "uifb":
        raise ScanError(f"{dataset.name} must hold numbers, got {dataset.dtype}; is it the right dataset?")
    return np.atleast_1d(np.asarray(dataset[()]))


def first_length(group: LinkedGroup, paths: list[str]) -> Stored | None:
    """The first of ``paths`` that exists, as a length [m]."""
    return _first(group, paths, _LENGTH)


def first_energy_kev(group: LinkedGroup, paths: list[str]) -> Stored | None:
    """The first of ``paths`` that exists, as a photon energy [keV]."""
    return _first(group, paths, _ENERGY_KEV)


def _first(group: LinkedGroup, paths: list[str], table: dict[str, float]) -> Stored | None:
    for path in paths:
        dataset = group.get(path)
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            continue
        if dataset.size > _MOST_VALUES:
            raise ScanError(f"{dataset.name} must be one value, got {dataset.size}")
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


# --- what is given against what is stored ---------------------------------------------------------------


def check_given(
    energy_kev: float | None, pixel_size_um: float | None, allow_missing: Collection[str]
) -> None:
    """Raise InputError unless the given values are positive and ``allow_missing`` names references."""
    for name, value in (("energy_kev", energy_kev), ("pixel_size_um", pixel_size_um)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} must be a positive number, got {value!r}")
    if isinstance(allow_missing, str) or not set(allow_missing) <= {"flats", "darks"}:
        raise InputError(f'allow_missing must hold names out of "flats", "darks", got {allow_missing!r}')


def beam(
    path: Path,
    energy_kev: float | None,
    pixel_size_um: float | None,
    stored_energy: Callable[[], Stored | None],
    stored_pixel: Callable[[], Stored | None],
) -> tuple[float, float]:
    """Energy [keV] and pixel size at the sample [m], given or stored; a given value wins.

    path : of the scan, for messages; energy_kev, pixel_size_um : given values [keV], [µm]; stored_energy,
    stored_pixel : look up what the file records, in [keV] and [m].

    Raises
    ------
    ScanError
        If either is neither given nor stored with a unit (one message for both), or what is stored cannot be
        read and is not given.
    """
    given_pixel = None if pixel_size_um is None else um_to_m(pixel_size_um)
    energy = _chosen(energy_kev, stored_energy, "energy_kev", 1.0, path)
    pixel = _chosen(given_pixel, stored_pixel, "pixel_size_um", m_to_um(1.0), path)
    missing = []
    if energy is None:
        missing.append(
            "the photon energy: give energy_kev=… (--energy-kev on the command line, ENERGY_KEV= to make)"
        )
    if pixel is None:
        missing.append(
            "the pixel size at the sample: give pixel_size_um=… (--pixel-size-um on the command line, "
            "PIXEL_SIZE_UM= to make)"
        )
    if energy is None or pixel is None:
        raise ScanError(f"{path} does not record, with a unit, {'; nor '.join(missing)}")
    return energy, pixel


def distance(path: Path, look_up: Callable[[], Stored | None]) -> float | None:
    """The propagation distance [m] that ``look_up`` finds; None where unknown, or not to be understood."""
    try:
        stored = look_up()
    except ScanError as error:
        logger.warning("%s: the propagation distance is not read: %s", path, error)
        return None
    if stored is None or stored.value is None or not (np.isfinite(stored.value) and stored.value >= 0):
        return None
    return stored.value


def square(x: Stored | None, y: Stored | None, path: Path) -> Stored | None:
    """The pixel size of pixels that must be square, from that in x and in y."""
    if x is None or y is None or not x.value or not y.value:
        return x
    if abs(x.value / y.value - 1) > _DISAGREEMENT:
        raise ScanError(
            f"{path}: pixels must be square, got {m_to_um(x.value):g} by {m_to_um(y.value):g} µm in x and "
            "y; if one of them is wrong give pixel_size_um=…"
        )
    return x


def _chosen(
    given: float | None, look_up: Callable[[], Stored | None], name: str, display: float, path: Path
) -> float | None:
    """The given value, else the stored one; a contradiction is logged."""
    try:
        stored = look_up()
    except ScanError as error:
        if given is None:
            raise
        logger.warning("%s: %s is given; what is recorded cannot be read: %s", path, name, error)
        return given
    known = stored.value if stored is not None else None
    if given is None:
        if known is not None and not (np.isfinite(known) and known > 0):
            # A zero written in place of an unknown is common, and as good as absent.
            logger.warning("%s: %s is %g, taken as not recorded", path, stored and stored.where, known)
            return None
        return known
    if known is not None and not abs(given / known - 1 if known else np.inf) <= _DISAGREEMENT:
        logger.warning(
            "%s: %s is given as %g, but %s records %g; the given value is used",
            path, name, given * display, stored and stored.where, known * display,
        )  # fmt: skip
    return given
