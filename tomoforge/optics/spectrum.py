"""Spectra of the beam: one energy, an X-ray tube, a pink undulator; filtered, and thinned to a few energies.

Weights count photons, not energy: what a detector makes of a photon is the detector's affair. A scan in
polychromatic light is the sum over the spectrum of weight × intensity.
"""

import importlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from scipy.special import erf

from tomoforge.errors import InputError, MissingComponentError
from tomoforge.optics.materials import ENERGY_RANGE_KEV, Material
from tomoforge.units import mm_to_m

_FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))


@dataclass(frozen=True)
class Spectrum:
    """Photon energies [keV], ascending, and the share of photons at each; the shares sum to 1.

    Raises InputError unless energies are positive and ascending, weights positive and their sum 1; make one
    from any counts with ``normalised_spectrum``.
    """

    energies_kev: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        energies, weights = np.asarray(self.energies_kev, float), np.asarray(self.weights, float)
        if energies.ndim != 1 or energies.shape != weights.shape or not energies.size:
            raise InputError(
                "energies_kev and weights must be as many, at least one, "
                f"got {energies.shape} energies and {weights.shape} weights"
            )
        rising = np.all(np.diff(energies) > 0)
        if not (np.all(np.isfinite(energies)) and energies[0] > 0 and rising):
            raise InputError(f"energies_kev must be positive and ascending, got {self.energies_kev}")
        if not (np.all(np.isfinite(weights)) and np.all(weights > 0)):
            raise InputError(f"weights must be positive, got {self.weights}")
        if abs(weights.sum() - 1) > 1e-9:
            raise InputError(
                f"weights must sum to 1, got {weights.sum():.9g}; normalised_spectrum divides by the sum"
            )
        object.__setattr__(self, "energies_kev", tuple(energies.tolist()))
        object.__setattr__(self, "weights", tuple(weights.tolist()))

    @property
    def mean_energy_kev(self) -> float:
        """Mean photon energy [keV]."""
        return float(np.dot(self.weights, self.energies_kev))

    @property
    def rms_width_kev(self) -> float:
        """Standard deviation of the photon energy [keV]."""
        deviation = np.asarray(self.energies_kev) - self.mean_energy_kev
        return float(np.sqrt(np.dot(self.weights, deviation**2)))

    def transmission(self, material: Material, thickness: float) -> float:
        """Share of the photons that ``thickness`` [m] of a material lets through."""
        return float(np.dot(self.weights, _transmissions(self, material, thickness)))


def normalised_spectrum(energies_kev: Iterable[float], photons: Iterable[float]) -> Spectrum:
    """A spectrum from photon numbers in any unit, at energies [keV] in any order.

    Energies without photons are left out, equal ones put together.
    Raises InputError for negative or no photons, or lists that differ in length.
    """
    energies, counts = np.asarray(list(energies_kev), float), np.asarray(list(photons), float)
    if energies.shape != counts.shape or energies.ndim != 1:
        raise InputError(
            f"energies_kev and photons must be lists of the same length, got {energies.shape} and {counts.shape}"
        )
    if not (np.all(np.isfinite(counts)) and np.all(counts >= 0) and counts.sum() > 0):
        raise InputError("photons must be zero or more at every energy and more somewhere")
    there, where = np.unique(energies[counts > 0], return_inverse=True)
    weights = np.bincount(where, weights=counts[counts > 0] / counts.sum())
    # A share below the smallest normal number is none.
    kept = weights > np.finfo(float).tiny
    return Spectrum(tuple(there[kept]), tuple(weights[kept] / weights[kept].sum()))


def monochromatic(energy_kev: float) -> Spectrum:
    """All photons at one energy [keV]."""
    return Spectrum((float(energy_kev),), (1.0,))


def filtered(spectrum: Spectrum, material: Material, thickness: float) -> Spectrum:
    """The spectrum behind ``thickness`` [m] of a material, normalised again.

    Scattered photons count as lost, as beyond a collimator. ``Spectrum.transmission`` says how many remain.
    Raises InputError for a negative thickness or where nothing comes through.
    """
    passed = np.asarray(spectrum.weights) * _transmissions(spectrum, material, thickness)
    if not passed.sum() > np.finfo(float).tiny:
        raise InputError(f"thickness of {thickness:g} m {material.name} lets nothing of the spectrum through")
    return normalised_spectrum(spectrum.energies_kev, passed)


def _transmissions(spectrum: Spectrum, material: Material, thickness: float) -> np.ndarray:
    if not (math.isfinite(thickness) and thickness >= 0):
        raise InputError(f"thickness of {material.name} must be zero or more metres, got {thickness!r}")
    mu = [material.refractive_index(energy).mu for energy in spectrum.energies_kev]
    return np.exp(-np.asarray(mu) * thickness)


def rebinned(spectrum: Spectrum, count: int) -> Spectrum:
    """At most ``count`` energies that stand for the whole spectrum: Gauss quadrature on its weights.

    Total, mean and every moment up to 2·count − 1 are those of the spectrum, all weights positive, all
    energies within its range. A scan costs in proportion to the energies.

    Notes: of a 140 kV tube behind 2 mm Al, 5 energies give the attenuation of 1–50 mm water and of 0.1–1 mm
    copper within 0.5 %, 8 within 0.05 %; five bins of equal photon number are 0.5–3.6 % out. Within a
    spectrum that spans an absorption edge of the sample convergence is slower: filter first, and take 20 or more.

    References: Golub & Welsch, Math. Comp. 23, 221 (1969); Lanczos with full orthogonalisation.
    """
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise InputError(f"count of energies must be a whole number from 1, got {count!r}")
    energies, weights = np.asarray(spectrum.energies_kev), np.asarray(spectrum.weights)
    if count >= energies.size:
        return spectrum
    # Centred and scaled to −1…1: the recurrence then loses no digits to the size of the energies.
    centre, half = (energies[-1] + energies[0]) / 2, (energies[-1] - energies[0]) / 2
    nodes = (energies - centre) / half
    basis = np.zeros((count, energies.size))
    diagonal, beside = np.zeros(count), np.zeros(count - 1)
    basis[0] = np.sqrt(weights)
    for n in range(count):
        following = nodes * basis[n]
        diagonal[n] = following @ basis[n]
        for _ in range(2):  # once leaves rounding errors that grow; twice is enough (Parlett)
            following -= basis[: n + 1].T @ (basis[: n + 1] @ following)
        if n + 1 < count:
            beside[n] = np.linalg.norm(following)
            basis[n + 1] = following / beside[n]
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    return normalised_spectrum(centre + half * values, vectors[0] ** 2)


def tube_spectrum(
    kvp: float,
    anode_angle_deg: float,
    filters: Sequence[tuple[Material, float]] = (),
    *,
    target: str = "W",
    bin_kev: float = 0.5,
) -> Spectrum:
    """Spectrum of an X-ray tube, by SpekPy.

    Parameters
    ----------
    kvp : peak voltage [kV], 10 to 200; anode_angle_deg : angle of the anode's face [degrees], SpekPy's ``th``.
    filters : (material, thickness in mm) in any order, e.g. ``[(aluminium, 2.0)]``.
    target : W, Mo or Rh; bin_kev : width of the energy bins [keV].

    Returns
    -------
    Spectrum on the axis, at the middle of each bin.

    Raises
    ------
    InputError
        For a voltage, angle, bin or filter out of range.
    MissingComponentError
        Where SpekPy is not installed.

    References
    ----------
    Poludniowski, Omar, Bujila & Andreo, Med. Phys. 48, 3630 (2021).
    """
    if not (math.isfinite(kvp) and 10 <= kvp <= ENERGY_RANGE_KEV[1]):
        raise InputError(f"kvp must be a peak voltage of 10 to {ENERGY_RANGE_KEV[1]:g} kV, got {kvp!r}")
    if not (math.isfinite(anode_angle_deg) and 1 <= anode_angle_deg <= 89):
        raise InputError(
            f"anode_angle_deg must lie between 1 and 89 degrees, got {anode_angle_deg!r}; is it in radians?"
        )
    if target not in ("W", "Mo", "Rh"):
        raise InputError(f"target must be W, Mo or Rh, got {target!r}")
    if not 0 < bin_kev <= kvp / 10:
        raise InputError(f"bin_kev must lie between 0 and a tenth of kvp, got {bin_kev!r}")
    tube = _spekpy().Spek(kvp=kvp, th=anode_angle_deg, dk=bin_kev, targ=target)
    energies, fluence = tube.get_spectrum()  # middle of each bin [keV], photons per keV
    spectrum = normalised_spectrum(energies, fluence)
    for material, thickness_mm in filters:
        spectrum = filtered(spectrum, material, mm_to_m(thickness_mm))
    return spectrum


def _spekpy() -> ModuleType:
    try:
        return importlib.import_module("spekpy")
    except ImportError as error:
        raise MissingComponentError(
            "tube_spectrum needs SpekPy, which is not installed: pip install spekpy, or give a spectrum of your "
            "own with normalised_spectrum"
        ) from error


def undulator_spectrum(
    energy_kev: float,
    bandwidth: float,
    *,
    harmonics: Mapping[float, float] | None = None,
    aperture_shift: float = 0.0,
    samples: int = 41,
) -> Spectrum:
    """Pink beam of an undulator: a narrow peak at ``energy_kev``, and other harmonics that pass with it.

    Parameters
    ----------
    energy_kev : energy of the peak on the axis [keV].
    bandwidth : full width at half maximum of that peak over its energy, e.g. 0.01.
    harmonics : multiple of ``energy_kev`` → photons relative to the peak, e.g. ``{1: 1.0, 3: 0.02}``, or
        ``{1: 1.0, 5 / 3: 0.1}`` where the peak is a third harmonic. All have the same width in keV, as a
        device of N periods makes E1/N of every harmonic.
    aperture_shift : γ²θ²/(1 + K²/2) at the aperture's edge. Off-axis photons are redder in proportion to θ²,
        so a round aperture lit evenly smears every peak to the red, evenly over that part of its energy.
    samples : energies a peak.

    Returns
    -------
    Spectrum with the energies of all peaks. Mean of a lone peak: energy_kev·(1 − aperture_shift/2).

    Raises
    ------
    InputError
        For numbers out of range.

    References
    ----------
    Attwood & Sakdinawat, X-Rays and Extreme Ultraviolet Radiation, 2nd ed., chapter 5: undulator equation.
    """
    shares = {1.0: 1.0} if harmonics is None else dict(harmonics)
    if not (math.isfinite(energy_kev) and energy_kev > 0):
        raise InputError(f"energy_kev must be positive, got {energy_kev!r}")
    if not 0 < bandwidth <= 0.2:
        raise InputError(f"bandwidth must be a part of the energy, above 0 up to 0.2, got {bandwidth!r}")
    if not 0 <= aperture_shift <= 0.5:
        raise InputError(f"aperture_shift must lie between 0 and 0.5, got {aperture_shift!r}")
    if not samples >= 5:
        raise InputError(f"samples must be 5 energies a peak or more, got {samples!r}")
    if not shares or not all(order > 0 and share >= 0 for order, share in shares.items()):
        raise InputError(f"harmonics must be positive multiples with shares of zero or more, got {shares}")
    sigma = bandwidth * energy_kev / _FWHM_PER_SIGMA
    energies, photons = [], []
    for order, share in shares.items():
        top = order * energy_kev
        grid = np.linspace(top * (1 - aperture_shift) - 3.5 * sigma, top + 3.5 * sigma, samples)
        profile = _peak(grid, top, top * aperture_shift, sigma)
        energies.append(grid)
        photons.append(share * profile / profile.sum())
    return normalised_spectrum(np.concatenate(energies), np.concatenate(photons))


def _peak(energies: np.ndarray, top: float, smear: float, sigma: float) -> np.ndarray:
    """A Gaussian of ``sigma``, convolved with a box from ``top − smear`` to ``top`` (not normalised)."""
    if smear == 0:
        return np.exp(-0.5 * ((energies - top) / sigma) ** 2)
    scale = sigma * math.sqrt(2)
    return erf((energies - (top - smear)) / scale) - erf((energies - top) / scale)
