"""Crystals: a unit cell, a point group and the distances of face forms make a polyhedron.

Each form {hkl} is expanded by the operations of the point group and by nothing else: a polar or
hemihedral habit stays so. The solid is the intersection of the half spaces n·x ≤ d over all faces.

Cartesian axes are those of the PDB: x along a, z along c*.

References: International Tables for Crystallography A (2016), ch. 3.2, crystal forms; C. B. Barber,
D. P. Dobkin, H. Huhdanpaa, ACM Trans. Math. Softw. 22 (1996) 469 (the half-space intersection).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
from scipy.optimize import linprog
from scipy.spatial import HalfspaceIntersection, QhullError
from scipy.spatial.distance import pdist

from tomoforge.errors import InputError
from tomoforge.samples.mesh import TriangleMesh
from tomoforge.samples.point_group import checked_operations, unit_cell

Miller = tuple[int, int, int]

# In units of the largest face distance: vertices closer than this are one vertex, faces within it
# touch. Qhull's own rounding is about 1e-14; an edge this short (0.1 nm on a 100 µm crystal) is no
# edge.
_TOUCH = 1e-6


@dataclass(frozen=True, eq=False)
class Polyhedron:
    """A convex solid with named faces.

    vertices : (v, 3) float64 [m], columns x, y, z
    faces : for each face the indices of its vertices, counter-clockwise seen from outside
    normals : (f, 3) float64, outward unit normals
    miller : for each face its indices (h, k, l)
    volume : float [m³]
    """

    vertices: np.ndarray
    faces: tuple[tuple[int, ...], ...]
    normals: np.ndarray
    miller: tuple[Miller, ...]
    volume: float

    @property
    def diameter(self) -> float:
        """Greatest distance between two vertices [m]."""
        return float(pdist(self.vertices).max())

    @property
    def distances(self) -> np.ndarray:
        """Distance of each face from the origin [m]: (f,) float64."""
        first = self.vertices[[face[0] for face in self.faces]]
        return np.einsum("ij,ij->i", self.normals, first)

    def triangles(self) -> np.ndarray:
        """Each face as a fan: (t, 3) int64 indices into ``vertices``, counter-clockwise from
        outside."""
        fans = [(face[0], face[i], face[i + 1]) for face in self.faces for i in range(1, len(face) - 1)]
        return np.array(fans, dtype=np.int64)

    def mesh(self) -> TriangleMesh:
        """The surface as a closed triangle mesh."""
        return TriangleMesh(self.vertices, self.triangles())

    def scaled(self, factor: float) -> "Polyhedron":
        """The same shape, every length multiplied by ``factor``."""
        if not factor > 0:
            raise InputError(f"factor must be positive, got {factor!r}")
        return Polyhedron(
            self.vertices * factor, self.faces, self.normals, self.miller, self.volume * factor**3
        )


def crystal_polyhedron(cell: Sequence[float], point_group: str, forms: Mapping[Miller, float]) -> Polyhedron:
    """The solid bounded by the given forms.

    Parameters
    ----------
    cell : a, b, c [Å], α, β, γ [°]
    point_group : Hermann–Mauguin symbol, e.g. '422', '-43m', 'm-3m'; '−' and spaces are understood.
        A monoclinic axis is b unless the symbol says else ('112'); '32' means '321'. The groups 3,
        -3, 32, 3m, -3m take rhombohedral axes where the cell has them.
    forms : (h, k, l) -> distance of the form's faces from the centre [m]

    Returns
    -------
    Polyhedron. Faces that others cut off completely are absent.

    Raises
    ------
    InputError
        for a cell that does not fit the point group, a distance ≤ 0, the form (0, 0, 0), two forms
        that are the same, and faces that do not close the solid; the message names an open
        direction.
    """
    operations = checked_operations(cell, point_group)
    expanded = expand_forms(point_group, operations, forms)
    miller = tuple(expanded)
    # h·x_frac is constant on a lattice plane, so its normal is the row vector h times the
    # fractionalisation.
    normals = np.array(miller, dtype=np.float64) @ np.array(unit_cell(cell).frac.mat.tolist())
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    distances = np.array([expanded[hkl] for hkl in miller])
    _check_closed(cell, point_group, normals)
    scale = distances.max()
    vertices = _vertices(normals, distances / scale)
    faces = [_face(vertices, n, d) for n, d in zip(normals, distances / scale, strict=True)]
    kept = [i for i, face in enumerate(faces) if len(face) >= 3]
    solid = tuple(faces[i] for i in kept)
    return Polyhedron(
        vertices=vertices * scale,
        faces=solid,
        normals=normals[kept],
        miller=tuple(miller[i] for i in kept),
        volume=_volume(vertices, solid) * scale**3,
    )


def expand_forms(
    point_group: str, operations: Sequence[np.ndarray], forms: Mapping[Miller, float]
) -> dict[Miller, float]:
    """Every face of every form with its distance: h' = h·R over the rotations R of the group."""
    if not forms:
        raise InputError("forms must name at least one form (h, k, l), got none")
    expanded: dict[Miller, float] = {}
    for hkl, distance in forms.items():
        plane = _coprime(hkl)
        if not (np.isfinite(distance) and distance > 0):
            raise InputError(f"forms[{tuple(hkl)}] must be a positive distance in metres, got {distance!r}")
        if plane in expanded:
            raise InputError(
                f"forms must name each form once, but {tuple(hkl)} is equivalent to an earlier one "
                f"in point group {point_group}; keep one of the two distances"
            )
        for operation in operations:
            h, k, l = (int(x) for x in np.array(plane) @ operation)  # noqa: E741 (Miller indices)
            expanded[(h, k, l)] = float(distance)
    return expanded


def _coprime(hkl: Sequence[int]) -> Miller:
    """(2, 2, 0) -> (1, 1, 0): as faces these are the same plane."""
    if len(hkl) != 3 or any(int(i) != i for i in hkl) or not any(hkl):
        raise InputError(f"a form must be three integers (h, k, l), not all zero, got {tuple(hkl)}")
    divisor = gcd(*(int(i) for i in hkl))
    h, k, l = (int(i) // divisor for i in hkl)  # noqa: E741 (Miller indices)
    return h, k, l


def _check_closed(cell: Sequence[float], point_group: str, normals: np.ndarray) -> None:
    """Raise where a direction u has n·u ≤ 0 for every face: the solid would be infinite along
    it."""
    # The most open direction first: least t with n·u ≤ t in the cube |u_i| ≤ 1. It is the middle of
    # a cone that has an inside (a pyramid without its base).
    margin = linprog(
        np.array([0.0, 0.0, 0.0, 1.0]),
        A_ub=np.c_[normals, -np.ones(len(normals))],
        b_ub=np.zeros(len(normals)),
        bounds=[(-1, 1)] * 3 + [(None, None)],
    )
    if margin.success and margin.fun < -1e-6:
        _raise_open(cell, point_group, margin.x[:3])
    # A cone without an inside (a prism without its ends) has a member with a component of ±1 in the
    # cube.
    for axis in range(3):
        for sign in (1.0, -1.0):
            cost = np.zeros(3)
            cost[axis] = -sign
            found = linprog(cost, A_ub=normals, b_ub=np.zeros(len(normals)), bounds=[(-1, 1)] * 3)
            if found.success and -found.fun > 1e-3:
                _raise_open(cell, point_group, found.x)


def _raise_open(cell: Sequence[float], point_group: str, direction: np.ndarray) -> None:
    unit = direction / np.linalg.norm(direction)
    frame = np.array(unit_cell(cell).orth.mat.tolist())
    candidates = np.array([h for h in np.ndindex(5, 5, 5)]) - 2
    candidates = candidates[candidates.any(axis=1)]
    plane_normals = candidates @ np.linalg.inv(frame)
    plane_normals /= np.linalg.norm(plane_normals, axis=1, keepdims=True)
    # The simplest plane among those nearest to the open direction.
    score = plane_normals @ unit - 0.02 * np.abs(candidates).sum(axis=1)
    hkl = _coprime([int(i) for i in candidates[score.argmax()]])
    x, y, z = (round(float(u), 3) + 0.0 for u in unit)
    raise InputError(
        f"forms must close the solid, but in point group {point_group} they leave it open along "
        f"(x, y, z) = ({x}, {y}, {z}); add a form that faces it, such as {hkl} "
        "(no Friedel mates are added)"
    )


def _vertices(normals: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Corners of {x: n·x ≤ d}, each one refined by least squares on all the faces that meet in
    it."""
    try:
        found = HalfspaceIntersection(np.c_[normals, -distances], np.zeros(3)).intersections
    except QhullError as error:
        raise InputError(f"forms must bound a solid, but Qhull failed: {error}") from error
    vertices: list[np.ndarray] = []
    for point in found:
        if any(np.abs(point - other).max() < _TOUCH for other in vertices):
            continue
        touching = np.abs(normals @ point - distances) < _TOUCH
        vertices.append(np.linalg.lstsq(normals[touching], distances[touching], rcond=None)[0])
    return np.array(vertices)


def _face(vertices: np.ndarray, normal: np.ndarray, distance: float) -> tuple[int, ...]:
    """Vertices on the plane, ordered counter-clockwise as seen from outside."""
    on_face = np.flatnonzero(np.abs(vertices @ normal - distance) < 4 * _TOUCH)
    if len(on_face) < 3:
        return ()
    spokes = vertices[on_face] - vertices[on_face].mean(axis=0)
    u = spokes[0] / np.linalg.norm(spokes[0])
    v = np.cross(normal, u)
    order = np.argsort(np.arctan2(spokes @ v, spokes @ u))
    return tuple(int(i) for i in on_face[order])


def _volume(vertices: np.ndarray, faces: Sequence[tuple[int, ...]]) -> float:
    """Sum of the tetrahedra between the origin and each triangle of each face."""
    total = 0.0
    for face in faces:
        a, b, c = vertices[face[0]], vertices[list(face[1:-1])], vertices[list(face[2:])]
        total += float((np.cross(b, c) @ a).sum()) / 6
    return total
