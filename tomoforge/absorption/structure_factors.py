"""True intensities of a crystal nobody has measured: by Wilson's statistics, or from an atomic model.

The intensity of a reflection is a function of the seed and of its own indices up to symmetry, never of which
other reflections were asked for: equivalents agree exactly, a higher resolution or a further sweep changes
nothing that was there before.

References: A. J. C. Wilson, Acta Cryst. 2 (1949) 318–321 (acentric and centric distributions); W. A.
Hendrickson, M. M. Teeter, Nature 290 (1981) 107–113 (size of Bijvoet differences).
"""

from collections.abc import Sequence

import gemmi
import numpy as np
from scipy.optimize import brentq
from scipy.special import hyp2f1, ndtri

from tomoforge.absorption.twin import checked_cell, named_space_group
from tomoforge.errors import InputError
from tomoforge.seeds import component_seed
from tomoforge.units import kev_to_wavelength

# Friedel mates without any correlation differ by √(2 − π/2) = 0.655; near it the model loses its meaning.
MOST_ANOMALOUS = 0.6
_LARGEST_INDEX = 1 << 19
_ATOMS_AT_ONCE = 1 << 22  # phases held at once when a model is summed, 64 MiB of complex numbers


def wilson_intensities(
    hkl: np.ndarray,
    cell: Sequence[float],
    space_group: str,
    *,
    mean_intensity: float = 1000.0,
    b_factor_a2: float = 20.0,
    anomalous_ratio: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """Intensities drawn by Wilson's statistics, equal for equivalents, Friedel mates apart by ``anomalous_ratio``.

    Parameters
    ----------
    hkl : (reflection, 3) integers, reduced to no asymmetric unit
    cell : a, b, c in Å, α, β, γ in degrees
    space_group : Hermann–Mauguin symbol
    mean_intensity : float, ⟨I⟩/ε at infinite spacing, arbitrary units
    b_factor_a2 : float [Å²], ⟨I⟩ falls as exp(−2B (sin θ/λ)²)
    anomalous_ratio : float, wished dF/F = √(2⟨(F⁺ − F⁻)²⟩/⟨F⁺² + F⁻²⟩) of the acentric reflections
    seed : int

    Returns
    -------
    (reflection,) float64, ≥ 0, zero for systematic absences

    Raises
    ------
    InputError
        for indices that are no (n, 3) integers, a cell that does not fit, a mean, B or ratio out of range.

    Notes
    -----
    Acentric: F⁺ = A + iB and (F⁻)* = A − iB with A, B independent complex normal numbers, A what scatters in
    phase and B the anomalous part; so I follows e^(−I/⟨I⟩) and mates are correlated. Centric: I/⟨I⟩ is χ² of one
    degree of freedom, and mates are equal whatever scatters. ⟨I⟩ = ε·mean·exp(−B/(2d²)): the fall-off with angle
    is B alone, without the hills that solvent and helices put on a protein's Wilson plot.
    """
    group = named_space_group(space_group)
    unit_cell = checked_cell(cell, group)
    index = _indices(hkl)
    if not (np.isfinite(mean_intensity) and mean_intensity > 0):
        raise InputError(f"mean_intensity must be positive, got {mean_intensity!r}")
    if not (np.isfinite(b_factor_a2) and b_factor_a2 >= 0):
        raise InputError(f"b_factor_a2 must be zero or positive Å², got {b_factor_a2!r}")
    share = _anomalous_share(anomalous_ratio)

    operations = group.operations()
    representative, is_plus = canonical_indices(index, space_group)
    code = _code(representative)
    real, imaginary, anomalous_real, anomalous_imaginary = (
        _normals(code, component_seed(seed, "twin.structure_factors", part)) for part in range(4)
    )
    normal = (real + 1j * imaginary) * np.sqrt((1 - share) / 2)
    anomalous = (anomalous_real + 1j * anomalous_imaginary) * np.sqrt(share / 2)
    sign = np.where(is_plus, 1, -1)
    acentric = np.abs(normal + 1j * sign * anomalous) ** 2
    centric = operations.centric_flag_array(index.astype(np.int32))
    mean = mean_intensity * operations.epsilon_factor_without_centering_array(index.astype(np.int32))
    spacing_a = unit_cell.calculate_d_array(index.astype(np.int32))
    fall = np.exp(-b_factor_a2 / (2 * spacing_a**2))
    absent = operations.systematic_absences(index.astype(np.int32))
    return np.where(absent, 0.0, mean * fall * np.where(centric, real**2, acentric))


def model_intensities(
    hkl: np.ndarray,
    structure: gemmi.Structure,
    energy_kev: float,
) -> np.ndarray:
    """|F|² of an atomic model with its anomalous scattering, by direct summation over atoms and symmetry.

    hkl : (reflection, 3) integers; structure : gemmi.Structure with cell, space group and one model, as
    ``gemmi.read_structure`` gives it; energy_kev [keV]. Returns (reflection,) float64 [electrons²].

    Raises InputError for a model without atoms or without a space group.

    Notes: form factors of the International Tables (IT92), f′ and f″ of Cromer and Liberman at ``energy_kev``
    as gemmi has them; isotropic B; no bulk solvent. The sum costs atoms × symmetry × reflections.
    """
    index = _indices(hkl)
    group = structure.find_spacegroup()
    if len(structure) == 0 or structure[0].count_atom_sites() == 0 or group is None:
        raise InputError("structure must hold atoms and a space group; was the file's CRYST1 or _cell lost?")
    kev_to_wavelength(energy_kev)  # refuses what is no energy
    cell = structure.cell
    stol2 = 1 / (4 * cell.calculate_d_array(index.astype(np.int32)) ** 2)
    total = np.zeros(len(index), dtype=np.complex128)
    for element, atoms in _by_element(structure[0]).items():
        position = np.array([cell.fractionalize(atom.pos).tolist() for atom in atoms])
        weight = np.array([atom.occ for atom in atoms])
        b_factor = np.array([atom.b_iso for atom in atoms])
        known = gemmi.Element(element)
        f_prime, f_second = gemmi.cromer_liberman(z=known.atomic_number, energy=1e3 * energy_kev)
        form = np.array([known.it92.calculate_sf(s) for s in stol2]) + f_prime + 1j * f_second
        summed = np.zeros(len(index), dtype=np.complex128)
        step = max(1, _ATOMS_AT_ONCE // max(len(index), 1))
        for operation in group.operations():
            turned = index @ (np.array(operation.rot) / operation.DEN)
            shift = index @ (np.array(operation.tran) / operation.DEN)
            for first in range(0, len(atoms), step):
                rows = slice(first, first + step)
                phase = np.exp(2j * np.pi * (turned @ position[rows].T + shift[:, None]))
                damping = weight[rows] * np.exp(-b_factor[rows] * stol2[:, None])
                summed += np.sum(phase * damping, axis=1)
        total += form * summed
    return np.abs(total) ** 2


def canonical_indices(hkl: np.ndarray, space_group: str) -> tuple[np.ndarray, np.ndarray]:
    """One representative for each class of equivalents and Friedel mates, and on which side of the pair each is.

    hkl : (reflection, 3) integers; space_group : Hermann–Mauguin symbol. Returns the representatives
    (reflection, 3) int64 and (reflection,) bool, True where a rotation of the point group alone leads there and
    False where it takes the inversion too; centric reflections are True. Raises InputError as above.
    """
    index = _indices(hkl)
    best, friedel = np.full(len(index), -1), np.full(len(index), -1)
    for operation in named_space_group(space_group).operations().sym_ops:
        turned = np.rint(index @ (np.array(operation.rot) / operation.DEN)).astype(np.int64)
        best = np.maximum(best, _code(turned))
        friedel = np.maximum(friedel, _code(-turned))
    return _decode(np.maximum(best, friedel)), best >= friedel


def _indices(hkl: np.ndarray) -> np.ndarray:
    array = np.asarray(hkl)
    if array.ndim != 2 or array.shape[1] != 3 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"hkl must be (reflection, 3) integers, got shape {array.shape} and type {array.dtype}"
        )
    if array.size and int(np.abs(array.astype(np.int64)).max()) >= _LARGEST_INDEX:
        raise InputError(
            f"hkl must stay below {_LARGEST_INDEX} in size, got {int(np.abs(array.astype(np.int64)).max())}"
        )
    return array.astype(np.int64)


def _code(index: np.ndarray) -> np.ndarray:
    """(n, 3) indices as one whole number each, ordered as h, then k, then l."""
    shifted = index + _LARGEST_INDEX
    return (shifted[:, 0] << 40) | (shifted[:, 1] << 20) | shifted[:, 2]


def _decode(code: np.ndarray) -> np.ndarray:
    mask = (1 << 20) - 1
    return np.stack([code >> 40, (code >> 20) & mask, code & mask], axis=1) - _LARGEST_INDEX


def _normals(code: np.ndarray, seed: int) -> np.ndarray:
    """Standard normal numbers, each a function of its code and the seed: (n,) float64.

    splitmix64 (Steele, Lea, Flood, OOPSLA 2014) as a hash, so that no draw depends on the others.
    """
    state = code.astype(np.uint64) + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15 >> 32)
    state = _mix(_mix(state) ^ np.full(len(code), seed, dtype=np.uint64))
    return ndtri(((state >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)


def _mix(state: np.ndarray) -> np.ndarray:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _anomalous_share(ratio: float) -> float:
    """Share of the anomalous part in ⟨|F|²⟩ that gives the wished dF/F."""
    if not (np.isfinite(ratio) and 0 <= ratio <= MOST_ANOMALOUS):
        raise InputError(f"anomalous_ratio must lie in 0 … {MOST_ANOMALOUS} (dF/F), got {ratio!r}")
    if ratio == 0:
        return 0.0

    # Moduli of two complex normal numbers of correlation ρ = 1 − 2·share have the mean product
    # (π/4) ₂F₁(−½, −½; 1; ρ²) (D. Middleton, Statistical Communication Theory, 1960, §9.1).
    def excess(share: float) -> float:
        rho = 1 - 2 * share
        return 2 * (1 - np.pi / 4 * hyp2f1(-0.5, -0.5, 1, rho**2)) - ratio**2

    return float(brentq(excess, 0.0, 0.5, xtol=1e-15))


def _by_element(model: gemmi.Model) -> dict[str, list[gemmi.Atom]]:
    found: dict[str, list[gemmi.Atom]] = {}
    for site in model.all():
        found.setdefault(site.atom.element.name, []).append(site.atom)
    return found
