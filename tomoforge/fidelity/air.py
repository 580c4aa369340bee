"""Air at 1: what is left of the beam's shape and drift after flat-fielding, divided out by the air in the picture."""

from dataclasses import dataclass

import numpy as np

from tomoforge.errors import InputError, ScanError

_LEAST_AIR = 0.05  # a transmission below it is no air, whatever the flats
_ORDER_SIDES, _ORDER_ACROSS = (
    2,
    4,
)  # of the polynomial in x: across a gap between the sides, or along a whole band
_STEP = 4  # every fourth row is enough for a handful of coefficients


@dataclass(frozen=True)
class AirMargins:
    """Bands of the detector that show air at every angle [pixels]; all zero for a scan that needs no scaling."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    def __post_init__(self) -> None:
        if min(self.left, self.right, self.top, self.bottom) < 0:
            raise InputError(f"margins must be zero or more pixels, got {self}")

    @property
    def any(self) -> bool:
        """Whether there is any air to scale to."""
        return max(self.left, self.right, self.top, self.bottom) > 0

    def mask(self, shape: tuple[int, ...]) -> np.ndarray:
        """(y, x) bool, True in the margins of a detector of this ``shape``."""
        rows, columns = shape
        if self.left + self.right >= columns or self.top + self.bottom >= rows:
            raise InputError(
                f"margins must leave room for the sample on {rows} × {columns} pixels, got {self}"
            )
        air = np.zeros(shape, bool)
        air[:, : self.left] = air[:, columns - self.right :] = True
        air[: self.top] = air[rows - self.bottom :] = True
        return air


def air_level(transmission: np.ndarray, margins: AirMargins) -> np.ndarray:
    """Transmission that each projection would have without the sample, from the air in its margins.

    Parameters
    ----------
    transmission : (angle, y, x) float32, flat-corrected
    margins : where every projection shows air

    Returns
    -------
    (angle, y, x) float32: for each projection the polynomial through the margins, in x of second order (of fourth
    where a whole band at the top or bottom is air) and linear in y

    Raises
    ------
    InputError
        If the margins are too small for that, or fill the detector.
    ScanError
        If they are dark: the sample or its mount reaches into them.

    Notes
    -----
    A beam that drifts between flats and projections leaves the ratio of two smooth bells. A parabola from the sides
    alone can be wrong by 1.5 % in the middle; a band above the sample is better.
    """
    air = margins.mask(transmission.shape[1:])
    band = margins.top + margins.bottom > 0
    order = _ORDER_ACROSS if band else _ORDER_SIDES
    vertical = min(margins.left, margins.right) > 0 or min(margins.top, margins.bottom) > 0
    terms = _terms(transmission.shape[1:], order, vertical)
    used = air.copy()
    used[1::_STEP] = False
    used[2::_STEP] = False
    if used.sum() < 10 * len(terms) or (not band and min(margins.left, margins.right) < order + 1):
        raise InputError(
            f"margins hold too little air to fit the beam, got {margins}; widen them, both sides"
        )
    basis = terms[:, used].T
    samples = transmission[:, used].T.astype(np.float64)
    fitted = np.linalg.lstsq(basis, samples, rcond=None)[0]
    # Once more without dust, dead pixels and zingers.
    wild = np.abs(samples - basis @ fitted)
    samples = np.where(wild > 5 * wild.mean(axis=0), basis @ fitted, samples)
    fitted = np.linalg.lstsq(basis, samples, rcond=None)[0]
    level = np.tensordot(fitted.T, terms, axes=1).astype(np.float32)
    if level.min() < _LEAST_AIR:
        raise ScanError(
            f"air in the margins {margins} lets only {level.min():.3f} through and is no air; make them smaller, "
            "or leave the scan unscaled (margins of 0)"
        )
    return level


def scale_to_air(transmission: np.ndarray, margins: AirMargins) -> np.ndarray:
    """``transmission`` (angle, y, x) over its ``air_level``: float32, air at 1; unchanged without margins."""
    return transmission / air_level(transmission, margins) if margins.any else transmission


def air_median(transmission: np.ndarray, margins: AirMargins) -> float:
    """Median transmission (angle, y, x) of the air in the margins: unitless, 1 where flats and beam agree."""
    return float(np.median(transmission[:, margins.mask(transmission.shape[1:])]))


def air_noise(transmission: np.ndarray, margins: AirMargins) -> float:
    """Noise of a pixel of air, rms from one projection to the next: unitless.

    transmission : (angle, y, x) float32, air at 1, at least two angles. Differences of neighbouring projections leave
    out what stays: dust, rings, the shape of the beam. The median, so that zingers do not count.
    """
    air = margins.mask(transmission.shape[1:])
    if len(transmission) < 2 or not air.any():
        raise InputError(
            f"transmission must have two angles and margins of air, got {len(transmission)}, {margins}"
        )
    deviation = np.median(np.abs(np.diff(transmission[:, air], axis=0)))
    return float(deviation / (0.674489750196 * np.sqrt(2)))  # median of |normal|


def _terms(shape: tuple[int, ...], order: int, vertical: bool) -> np.ndarray:
    """Legendre polynomials in x up to ``order``, and y: (term, y, x) float64."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    across = [np.polynomial.legendre.Legendre.basis(n)(x) + 0 * y[:, None] for n in range(order + 1)]
    return np.stack([*across, *([y[:, None] + 0 * x] if vertical else [])])
