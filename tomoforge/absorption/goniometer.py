"""Beam, goniometer, sweep and crystal of a rotation experiment, in DIALS's laboratory frame (x, y, z).

A direction fixed to the sample that points along v when all axes stand at zero points along S·R(φ)·F·v in the
laboratory: F are the axes that the scanning axis carries, R(φ) turns right-handed about the scanning axis, S are
the axes that carry it. The diffracted beam is s₁ = s₀ + S·R(φ)·F·A·h, with |s₀| = |s₁| = 1/λ.

Lengths of reciprocal space are in 1/Å, as in the files.

References: D. G. Waterman et al., Acta Cryst. D72 (2016) 558–575, eqs. (1)–(3); dxtbx, goniometer.h.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from tomoforge.errors import InputError
from tomoforge.units import ANGSTROM


@dataclass(frozen=True)
class Beam:
    """direction : (3,) unit vector (x, y, z), the way the beam travels; wavelength : float [m];
    s0_at_scan_points : (scan point, 3) [1/Å] of a beam that drifts, or None.
    """

    direction: np.ndarray
    wavelength: float
    s0_at_scan_points: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "direction", unit_vector("beam direction", self.direction))
        if not (np.isfinite(self.wavelength) and 0 < self.wavelength < 1e-7):
            raise InputError(
                f"wavelength must be positive metres, got {self.wavelength!r}; was it given in Å?"
            )

    @property
    def wavelength_angstrom(self) -> float:
        return self.wavelength / ANGSTROM


@dataclass(frozen=True)
class Goniometer:
    """rotation_axis : (3,) unit vector (x, y, z), R turns right-handed about it; fixed_rotation, setting_rotation :
    (3, 3) rotation matrices F and S; setting_rotation_at_scan_points : (scan point, 3, 3), or None.
    """

    rotation_axis: np.ndarray
    fixed_rotation: np.ndarray
    setting_rotation: np.ndarray
    setting_rotation_at_scan_points: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rotation_axis", unit_vector("rotation_axis", self.rotation_axis))
        for name in ("fixed_rotation", "setting_rotation"):
            object.__setattr__(self, name, rotation_matrix(name, getattr(self, name)))

    def rotations(self, angles: np.ndarray, scan_points: np.ndarray | None = None) -> np.ndarray:
        """S·R(φ)·F at ``angles`` [rad], (n, 3, 3); ``scan_points`` (n,) where S drifts, as array indices from 0."""
        scanning = Rotation.from_rotvec(np.multiply.outer(angles, self.rotation_axis)).as_matrix()
        setting = self.setting_rotation
        if self.setting_rotation_at_scan_points is not None and scan_points is not None:
            setting = interpolated(self.setting_rotation_at_scan_points, scan_points)
        return setting @ scanning @ self.fixed_rotation


def multi_axis_goniometer(axes: np.ndarray, angles: np.ndarray, scan_axis: int) -> Goniometer:
    """The goniometer of several axes, listed from the crystal to the base, of which ``scan_axis`` scans.

    axes : (axis, 3) at zero, (x, y, z); angles : (axis,) [rad], that of the scanning axis is not used. Raises
    InputError for shapes that do not match or a ``scan_axis`` that is none.
    """
    axes, angles = np.asarray(axes, dtype=np.float64), np.asarray(angles, dtype=np.float64)
    if axes.ndim != 2 or axes.shape[1:] != (3,) or angles.shape != axes.shape[:1]:
        raise InputError(
            f"axes and angles must be (axis, 3) and (axis,), got {axes.shape} and {angles.shape}"
        )
    if not 0 <= scan_axis < len(axes):
        raise InputError(f"scan_axis must be one of the {len(axes)} axes, got {scan_axis}")
    turns = [
        Rotation.from_rotvec(angle * unit_vector("goniometer axis", axis)).as_matrix()
        for axis, angle in zip(axes, angles, strict=True)
    ]
    fixed, setting = np.eye(3), np.eye(3)
    for turn in turns[:scan_axis]:
        fixed = turn @ fixed
    for turn in turns[scan_axis + 1 :]:
        setting = turn @ setting
    return Goniometer(axes[scan_axis], fixed, setting)


@dataclass(frozen=True)
class Sweep:
    """image_range : first and last image number; start, width : float [rad], angle where the first image begins and
    what one image turns.
    """

    image_range: tuple[int, int]
    start: float
    width: float

    @property
    def first_index(self) -> int:
        """Array index of the first image: DIALS counts z in pixels from image 1."""
        return self.image_range[0] - 1

    @property
    def n_images(self) -> int:
        return self.image_range[1] - self.image_range[0] + 1

    def angles(self, z: np.ndarray) -> np.ndarray:
        """Angles [rad] at array indices ``z``, the third of DIALS's xyz in pixels."""
        return self.start + (np.asarray(z) - self.first_index) * self.width

    def scan_points(self, angles: np.ndarray) -> np.ndarray:
        """Positions among the n_images + 1 scan points at ``angles`` [rad]."""
        if self.width == 0:
            return np.zeros_like(np.asarray(angles, dtype=np.float64))
        return (np.asarray(angles, dtype=np.float64) - self.start) / self.width


@dataclass(frozen=True)
class Crystal:
    """setting_matrix : (3, 3) [1/Å], A, columns a*, b*, c* in (x, y, z) with the goniometer at zero; space_group :
    Hermann–Mauguin symbol; setting_matrix_at_scan_points : (scan point, 3, 3) [1/Å], or None.
    """

    setting_matrix: np.ndarray
    space_group: str
    setting_matrix_at_scan_points: np.ndarray | None = None

    @property
    def cell(self) -> tuple[float, ...]:
        """a, b, c [Å], α, β, γ [degrees]."""
        a, b, c = np.linalg.inv(self.setting_matrix)

        def between(u: np.ndarray, v: np.ndarray) -> float:
            return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v)))

        lengths = tuple(float(np.linalg.norm(v)) for v in (a, b, c))
        return (*lengths, between(b, c), between(c, a), between(a, b))


@dataclass(frozen=True)
class Experiment:
    """One sweep of one crystal; ``crystal`` is None before indexing."""

    beam: Beam
    goniometer: Goniometer
    sweep: Sweep
    crystal: Crystal | None = None
    identifier: str = ""


def incident_vectors(experiment: Experiment, angles: np.ndarray) -> np.ndarray:
    """s₀ in the laboratory at ``angles`` [rad]: (n, 3), (x, y, z) [1/Å]."""
    points = experiment.beam.s0_at_scan_points
    if points is None:
        s0 = experiment.beam.direction / experiment.beam.wavelength_angstrom
        return np.broadcast_to(s0, (len(angles), 3))
    return interpolated(points, experiment.sweep.scan_points(angles))


def diffracted_vectors(experiment: Experiment, hkl: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """s₁ = s₀ + S·R(φ)·F·A·h in the laboratory: (n, 3), (x, y, z) [1/Å].

    Parameters
    ----------
    hkl : (n, 3) indices as measured, not reduced by symmetry
    angles : (n,) [rad]

    Raises
    ------
    InputError
        without a crystal in the experiment.
    """
    if experiment.crystal is None:
        raise InputError(
            "the experiment has no crystal, so that s1 cannot be computed; give one after indexing"
        )
    scan_points = experiment.sweep.scan_points(angles)
    matrices = experiment.crystal.setting_matrix
    if experiment.crystal.setting_matrix_at_scan_points is not None:
        matrices = interpolated(experiment.crystal.setting_matrix_at_scan_points, scan_points)
    lattice = np.squeeze(matrices @ np.asarray(hkl, dtype=np.float64)[..., None], axis=-1)
    return incident_vectors(experiment, angles) + np.einsum(
        "nij,nj->ni", experiment.goniometer.rotations(angles, scan_points), lattice
    )


def sample_vectors(experiment: Experiment, vectors: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Laboratory ``vectors`` (n, 3) as the sample sees them, (S·R(φ)·F)⁻¹ v: (n, 3) in (x, y, z) at zero."""
    turns = experiment.goniometer.rotations(angles, experiment.sweep.scan_points(angles))
    return np.einsum("nji,nj->ni", turns, vectors)


def interpolated(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """``values`` (scan point, …) at fractional ``positions`` (n,), linear, held at both ends: (n, …)."""
    # Between neighbouring images the crystal turns by thousandths of a degree: the chord is the arc.
    positions = np.clip(positions, 0, len(values) - 1)
    low = np.minimum(positions.astype(np.int64), max(len(values) - 2, 0))
    share = (positions - low).reshape(-1, *[1] * (values.ndim - 1))
    return (1 - share) * values[low] + share * values[np.minimum(low + 1, len(values) - 1)]


def unit_vector(name: str, vector: np.ndarray | Sequence[float]) -> np.ndarray:
    """``vector`` (3,) at length one, float64. Raises InputError for a zero vector, NaN or another shape."""
    array = np.asarray(vector, dtype=np.float64)
    length = float(np.linalg.norm(array)) if array.shape == (3,) else np.nan
    if not (np.isfinite(length) and length > 0):
        raise InputError(f"{name} must be three finite numbers, not all zero, got {array.tolist()}")
    return array / length


def rotation_matrix(name: str, matrix: np.ndarray | Sequence[float], tolerance: float = 1e-4) -> np.ndarray:
    """``matrix``, nine numbers by rows, as (3, 3) float64. Raises InputError unless it is a rotation."""
    array = np.asarray(matrix, dtype=np.float64)
    array = array.reshape(3, 3) if array.size == 9 else array
    # Files carry rotations to five digits or more.
    if array.shape != (3, 3) or not (np.abs(array @ array.T - np.eye(3)).max() < tolerance):
        raise InputError(f"{name} must be a 3 × 3 rotation matrix, got {array.tolist()}")
    if np.linalg.det(array) < 0:
        raise InputError(f"{name} mirrors (determinant −1), got {array.tolist()}; a goniometer only turns")
    return array
