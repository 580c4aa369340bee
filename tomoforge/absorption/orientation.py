"""From the diffraction laboratory to the axes of the tomogram: one explicit rotation.

Diffraction files know directions in the laboratory (x, y, z), brought back to the goniometer's zero; the labels know
the sample frame of ``tomoforge.geometry``, arrays (z, y, x). ``Orientation`` is the rotation that leads from the one
to the other, said in (x, y, z) of both. A reflected orientation does not exist: a tomogram for which only a mirror
image fits was reconstructed mirrored (angles with the wrong sign, or a detector image flipped) and must be mended
there.

A quarter turn or a sign that is wrong costs tens of per cent of A and is not seen in any single factor, so that
nothing here is guessed: name the axes, or search with ``orientation_search``.
"""

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from scipy.spatial.transform import Rotation

from tomoforge.absorption.goniometer import Experiment, rotation_matrix, unit_vector
from tomoforge.errors import InputError

_AXES = ("x", "y", "z")


@dataclass(frozen=True)
class Orientation:
    """matrix : (3, 3) proper rotation from laboratory (x, y, z), goniometer at zero, to the sample frame (x, y, z);
    name : for people.

    Raises InputError for a matrix that is no rotation, and for one that mirrors.
    """

    matrix: np.ndarray
    name: str = ""

    def __post_init__(self) -> None:
        matrix = np.asarray(self.matrix, dtype=np.float64)
        if matrix.shape != (3, 3) or not np.abs(matrix @ matrix.T - np.eye(3)).max() < 1e-6:
            raise InputError(f"orientation must be a (3, 3) rotation matrix, got {matrix.tolist()}")
        if np.linalg.det(matrix) < 0:
            raise InputError(
                f"orientation {self.name or matrix.tolist()} mirrors the sample (determinant −1); if only this fits, "
                "the tomogram is mirrored: check the sign of its angles and flips of its images, or flip labels[::-1]"
            )
        object.__setattr__(self, "matrix", matrix)

    def to_array(self, vectors: np.ndarray) -> np.ndarray:
        """Laboratory ``vectors`` (…, 3) in (x, y, z), goniometer at zero, as (…, 3) in array order (z, y, x)."""
        return np.ascontiguousarray((np.asarray(vectors) @ self.matrix.T)[..., ::-1])

    def from_array(self, vectors: np.ndarray) -> np.ndarray:
        """The way back: (…, 3) in array order (z, y, x) to (…, 3) in laboratory (x, y, z)."""
        return np.asarray(vectors)[..., ::-1] @ self.matrix

    def turned(self, angle: float) -> "Orientation":
        """The orientation of a tomogram turned by ``angle`` [rad] about its axis z, right-handed.

        A tomogram whose angle 0 was recorded at another goniometer position than the diffraction's 0.
        """
        turn = Rotation.from_rotvec([0, 0, angle]).as_matrix()
        return Orientation(turn @ self.matrix, f"{self.name} turned by {np.degrees(angle):g}°".strip())


def orientation_from_axes(z: str, y: str, x: str, name: str = "") -> Orientation:
    """The orientation that names, for each array axis, the laboratory axis that it grows along.

    z, y, x : "x", "+x", "-x", "y", … Raises InputError for other names, an axis named twice, a mirror image.
    """
    matrix = np.stack([_named_axis(name, value) for name, value in (("x", x), ("y", y), ("z", z))])
    if np.abs(matrix).sum(axis=0).max() > 1:
        raise InputError(f"array axes z, y, x must follow three different laboratory axes, got {z}, {y}, {x}")
    return Orientation(matrix, name or f"z={z} y={y} x={x}")


def anacor_orientation() -> Orientation:
    """AnACor's convention: array axes 0, 1, 2 along laboratory x, z, y."""
    return orientation_from_axes(z="+x", y="+z", x="+y", name="AnACor")


def same_goniometer(
    experiment: Experiment,
    tomography_angle_at_zero: float = 0.0,
    rotation_sense: int = 1,
    fixed_rotation: np.ndarray | None = None,
) -> Orientation:
    """The orientation of a tomogram recorded on the diffraction goniometer, about its scanning axis.

    Parameters
    ----------
    tomography_angle_at_zero : float [rad], tomography angle θ where the goniometer stands at zero
    rotation_sense : 1 where θ grows with the goniometer's angle, −1 where it falls
    fixed_rotation : (3, 3), F during the tomography; by default the axes that the scanning one carries stood at zero

    Raises
    ------
    InputError
        for another sense, a beam along the axis, a fixed_rotation that is none.

    Notes
    -----
    With ``tomoforge.geometry`` the beam turns by +θ about z in the sample frame and the sample by −θ in the
    laboratory. So z, the way detector rows grow, points against the goniometer's axis for sense 1 and along it for
    −1, and y along the beam at θ = 0.
    """
    if rotation_sense not in (1, -1):
        raise InputError(f"rotation_sense must be 1 or -1, got {rotation_sense!r}")
    axis = experiment.goniometer.setting_rotation @ experiment.goniometer.rotation_axis
    beam = experiment.beam.direction
    across = beam - axis * (axis @ beam)
    if np.linalg.norm(across) < 0.1:
        raise InputError("the beam runs along the rotation axis; there is no tomography about that axis")
    z, y = -rotation_sense * axis, unit_vector("beam across the axis", across)
    matrix = np.stack([np.cross(y, z), y, z])
    turn = Rotation.from_rotvec([0, 0, tomography_angle_at_zero]).as_matrix()
    # A direction at zero stood along S·F·v in the laboratory when the tomograph saw it at goniometer angle 0.
    carried = np.eye(3) if fixed_rotation is None else rotation_matrix("fixed_rotation", fixed_rotation)
    return Orientation(turn @ matrix @ experiment.goniometer.setting_rotation @ carried, "same goniometer")


def signed_permutations() -> np.ndarray:
    """The 48 ways to lay axes along axes: (48, 3, 3) float64 in (x, y, z), the 24 rotations first, identity first."""
    found = []
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), order] = signs
            found.append(matrix)
    found.sort(key=lambda matrix: -np.linalg.det(matrix))  # stable: the identity, made first, stays first
    return np.stack(found)


def permuted_labels(labels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """``labels`` (z, y, x) turned (or mirrored) by a signed permutation ``matrix`` in (x, y, z), a contiguous copy.

    What lay in direction v lies in direction ``matrix @ v``. Raises InputError for a matrix that is none of the 48.
    """
    matrix = np.asarray(matrix)
    whole = np.rint(matrix)
    if (
        matrix.shape != (3, 3)
        or np.abs(matrix - whole).max() > 1e-9
        or np.any(np.abs(whole).sum(axis=1) != 1)
    ):
        raise InputError(f"matrix must be a signed permutation, got {matrix.tolist()}")
    in_array_order = whole[::-1, ::-1]
    source = np.abs(in_array_order).argmax(axis=1)  # new axis i follows the old axis source[i]
    if np.unique(source).size != 3:
        raise InputError(f"matrix must be a signed permutation, got {matrix.tolist()}")
    flips = tuple(axis for axis in range(3) if in_array_order[axis, source[axis]] < 0)
    return np.ascontiguousarray(np.flip(np.transpose(labels, source), flips))


def _named_axis(name: str, value: str) -> np.ndarray:
    sign, letter = (value[0], value[1:]) if value[:1] in ("+", "-") else ("+", value)
    if letter not in _AXES:
        raise InputError(
            f"array axis {name} must follow a laboratory axis such as '+x' or '-z', got {value!r}"
        )
    vector = np.zeros(3)
    vector[_AXES.index(letter)] = -1.0 if sign == "-" else 1.0
    return vector
