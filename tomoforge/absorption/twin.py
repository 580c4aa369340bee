"""A synthetic rotation experiment: which reflections a crystal gives, when, and along which directions.

Sample frame, angles and the beam are those of ``tomoforge.geometry``: the sample turns about z, and to the
sample the beam travels along ``beam_direction(φ)``. In the sample frame the reciprocal lattice q = U B h
stands still and the beam turns, so that the directions need no further rotation for ray tracing.

References: W. Kabsch, Acta Cryst. D66 (2010) 133–144, §2 (rotation method); the condition is solved here in
closed form for a rotation axis perpendicular to the beam.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import gemmi
import numpy as np
from scipy.spatial.transform import Rotation

from tomoforge.errors import InputError
from tomoforge.seeds import component_rng
from tomoforge.units import ANGSTROM

# Longest plausible wavelength or resolution [m]; anything larger was typed in ångström.
_ATOMIC = 1e-7


@dataclass(frozen=True)
class Reflections:
    """Reflections of a rotation experiment in order of angle, one row for each crossing of the Ewald sphere.

    hkl : (reflection, 3) int32; angle : (reflection,) float64 [rad], where the reflection is exact;
    incoming, outgoing : (reflection, 3) float64 unit vectors (z, y, x) in the sample frame, the way the beam
    and the diffracted ray travel; spacing : (reflection,) float64 [m], d; lorentz : (reflection,) float64,
    1/(λ² |e·(s₁ × s₀)|), the time spent near the Ewald sphere; wavelength : float [m].
    """

    hkl: np.ndarray
    angle: np.ndarray
    incoming: np.ndarray
    outgoing: np.ndarray
    spacing: np.ndarray
    lorentz: np.ndarray
    wavelength: float

    def __len__(self) -> int:
        return len(self.hkl)

    def select(self, rows: np.ndarray) -> "Reflections":
        """The reflections at ``rows`` (indices or a mask), in that order."""
        arrays = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "wavelength"}
        return Reflections(wavelength=self.wavelength, **arrays)


def rotation_experiment(
    cell: Sequence[float],
    space_group: str,
    orientation: np.ndarray,
    wavelength: float,
    resolution: float,
    rotation_range: tuple[float, float] = (0.0, np.pi),
) -> Reflections:
    """All reflections that cross the Ewald sphere while the sample turns through ``rotation_range``.

    Parameters
    ----------
    cell : a, b, c in Å, α, β, γ in degrees
    space_group : Hermann–Mauguin symbol, e.g. "P 41 21 2"
    orientation : (3, 3) rotation matrix acting on (x, y, z), from the crystal's Cartesian frame (a along x,
        c* along z) to the sample frame at angle 0
    wavelength : float [m]
    resolution : float [m], smallest spacing d
    rotation_range : (start, stop) [rad], start included, stop not; more than a turn repeats reflections

    Returns
    -------
    Reflections, without systematic absences, Friedel mates as rows of their own.

    Raises
    ------
    InputError
        for an unknown space group, a cell that does not fit it, an orientation that is no rotation, lengths
        that are not positive metres or that no scattering angle reaches, an empty range.

    Notes
    -----
    With s₀ = b(φ)/λ and b(φ) = (x, y, z) = (−sin φ, cos φ, 0), |s₀ + q| = 1/λ reads
    ρ cos(φ + α) = −λ|q|²/2, where q = (ρ sin α, ρ cos α, q_z). Two solutions, or none in the blind cone
    around the axis. The crystal is perfect: no mosaicity and no beam divergence.
    """
    group = named_space_group(space_group)
    unit_cell = checked_cell(cell, group)
    matrix = rotation_matrix("orientation", orientation)
    _check_lengths(wavelength, resolution)
    start, stop = _range(rotation_range)

    hkl = _all_hkl(unit_cell, group, resolution / ANGSTROM)
    reciprocal = np.array(unit_cell.frac.mat.tolist()) / ANGSTROM  # rows a*, b*, c* in (x, y, z), [1/m]
    q = hkl @ reciprocal @ matrix.T
    which, angle = _crossings(q, wavelength, start, stop)
    order = np.lexsort((*hkl[which].T, angle))
    which, angle = which[order], angle[order]
    return _reflections(hkl[which], q[which], angle, wavelength)


def reciprocal_vectors(reflections: Reflections) -> np.ndarray:
    """q = s₁ − s₀ in the sample frame: (reflection, 3) float64, (z, y, x) [1/m]."""
    return (reflections.outgoing - reflections.incoming) / reflections.wavelength


def _crossings(q: np.ndarray, wavelength: float, start: float, stop: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``q`` (n, 3) in (x, y, z) [1/m] that cross within start ≤ φ < stop, and the angles φ."""
    radius = np.hypot(q[:, 0], q[:, 1])
    half = wavelength * np.sum(q**2, axis=1) / 2
    seen = np.flatnonzero(half <= radius)  # the others lie in the blind cone around the axis
    centre = -np.arctan2(q[seen, 0], q[seen, 1])
    away = np.arccos(-half[seen] / radius[seen])
    rows, angles = [], []
    for solution in (centre - away, centre + away):
        first = start + np.mod(solution - start, 2 * np.pi)
        for turn in range(int(np.ceil((stop - start) / (2 * np.pi)))):
            angle = first + 2 * np.pi * turn
            inside = angle < stop
            rows.append(seen[inside])
            angles.append(angle[inside])
    return np.concatenate(rows), np.concatenate(angles)


def _reflections(hkl: np.ndarray, q: np.ndarray, angle: np.ndarray, wavelength: float) -> Reflections:
    beam = np.stack([-np.sin(angle), np.cos(angle), np.zeros_like(angle)], axis=1)
    diffracted = beam + wavelength * q
    # Unit already to rounding, as the condition says; the last bits are for the tracer.
    diffracted /= np.linalg.norm(diffracted, axis=1, keepdims=True)
    speed = np.abs(diffracted[:, 0] * beam[:, 1] - diffracted[:, 1] * beam[:, 0])
    with np.errstate(divide="ignore"):  # tangent to the sphere: stays in it, infinitely long
        lorentz = 1 / speed
    return Reflections(
        hkl=hkl.astype(np.int32),
        angle=angle,
        incoming=np.ascontiguousarray(beam[:, ::-1]),
        outgoing=np.ascontiguousarray(diffracted[:, ::-1]),
        spacing=1 / np.linalg.norm(q, axis=1),
        lorentz=lorentz,
        wavelength=float(wavelength),
    )


def _all_hkl(cell: gemmi.UnitCell, group: gemmi.SpaceGroup, d_min: float) -> np.ndarray:
    """(n, 3) int64: every index within the resolution sphere (d ≥ d_min [Å]) that symmetry lets be seen."""
    hkl = gemmi.make_miller_array(cell, group, d_min, unique=False)
    return np.asarray(hkl, dtype=np.int64).reshape(-1, 3)


def named_space_group(space_group: str) -> gemmi.SpaceGroup:
    """gemmi's space group of a Hermann–Mauguin symbol. Raises InputError for an unknown one."""
    group = gemmi.find_spacegroup_by_name(space_group)
    if group is None:
        raise InputError(
            f"space_group must be a Hermann–Mauguin symbol such as 'P 41 21 2', got {space_group!r}"
        )
    return group


def checked_cell(cell: Sequence[float], group: gemmi.SpaceGroup) -> gemmi.UnitCell:
    """a, b, c [Å] and α, β, γ [°] as gemmi's cell. Raises InputError unless it fits the space group."""
    values = [float(v) for v in cell]
    if len(values) != 6 or not all(np.isfinite(values)) or min(values) <= 0:
        raise InputError(f"cell must be a, b, c in Å and α, β, γ in degrees, all positive, got {values}")
    unit_cell = gemmi.UnitCell(*values)
    if not (unit_cell.volume > 0 and unit_cell.is_compatible_with_spacegroup(group)):
        raise InputError(
            f"cell {values} does not fit space_group {group.hm!r}; was the setting or an angle mistyped?"
        )
    return unit_cell


def rotation_matrix(name: str, matrix: np.ndarray) -> np.ndarray:
    """``matrix`` as a (3, 3) float64 rotation; ``name`` is for the message. Raises InputError."""
    array = np.asarray(matrix, dtype=np.float64)
    if (
        array.shape != (3, 3)
        or not np.isfinite(array).all()
        or np.abs(array @ array.T - np.eye(3)).max() > 1e-9
        or np.linalg.det(array) < 0
    ):
        raise InputError(f"{name} must be a (3, 3) rotation matrix of determinant +1, got {array.tolist()}")
    return array


def _check_lengths(wavelength: float, resolution: float) -> None:
    for name, value in (("wavelength", wavelength), ("resolution", resolution)):
        if not (np.isfinite(value) and 0 < value < _ATOMIC):
            raise InputError(f"{name} must be positive metres, got {value!r}; was it given in Å?")
    if resolution < wavelength / 2:
        raise InputError(
            f"resolution must be at least wavelength/2 = {wavelength / 2:.4g} m (backscattering), "
            f"got {resolution:.4g} m"
        )


def _range(rotation_range: tuple[float, float]) -> tuple[float, float]:
    start, stop = (float(v) for v in rotation_range)
    if not (np.isfinite(start) and np.isfinite(stop) and start < stop):
        raise InputError(
            f"rotation_range must be (start, stop) in radians, start < stop, got {rotation_range}"
        )
    return start, stop


def random_orientation(seed: int) -> np.ndarray:
    """A crystal orientation drawn evenly from all rotations: (3, 3) float64, acting on (x, y, z)."""
    return Rotation.random(random_state=component_rng(seed, "crystal_orientation")).as_matrix()
