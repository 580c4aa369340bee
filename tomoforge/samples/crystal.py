"""Crystals: a unit cell, a point group and the distances of face forms make a polyhedron.

Each form {hkl} is expanded by the operations of the point group and by nothing else: a polar or
hemihedral habit stays so. The solid is the intersection of the half spaces n·x ≤ d over all faces.

Cartesian axes are those of the PDB: x along a, z along c*. Angles between faces follow from the cell
alone: cos = h·G*·k / |h||k| with the reciprocal metric G*.

References: International Tables for Crystallography A (2016), ch. 3.2, crystal forms; C. B. Barber,
D. P. Dobkin, H. Huhdanpaa, ACM Trans. Math. Softw. 22 (1996) 469 (the half-space intersection).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd

import numpy as np
from scipy.optimize import linprog
from scipy.spatial import ConvexHull, HalfspaceIntersection, QhullError
from scipy.spatial.distance import pdist

from tomoforge.errors import InputError
from tomoforge.samples.mesh import TriangleMesh
from tomoforge.samples.point_group import checked_operations, has_hexagonal_axes, unit_cell

Miller = tuple[int, int, int]
# Index triples (or Miller–Bravais quadruples) with distances [m].
Forms = Mapping[Miller, float] | Iterable[tuple[Sequence[int], float]]

# In units of the solid's extent: vertices closer than this are one vertex, and faces this close to a
# vertex meet in it. Qhull's own rounding is about 1e-14, times the obliqueness of the faces; an edge
# this short (0.1 pm on a 100 µm crystal) is no edge. Where a tolerance cuts an edge in two, so that
# the faces found do not make a closed surface, the next one is tried.
_TOUCH = (1e-9, 1e-8, 1e-7, 1e-6)


class OpenFormsError(InputError):
    """Forms that do not close a solid.

    direction : (3,) unit vector u, Cartesian, with n·u ≤ 0 for the normal n of every face
    suggestion : a form (h, k, l) that faces ``direction``
    """

    def __init__(self, message: str, direction: np.ndarray | None = None, suggestion: Miller | None = None):
        super().__init__(message)
        self.direction = direction
        self.suggestion = suggestion


@dataclass(frozen=True, eq=False)
class Polyhedron:
    """A convex solid with named faces.

    vertices : (v, 3) float64 [m], columns x, y, z
    faces : for each face the indices of its vertices, counter-clockwise seen from outside
    normals : (f, 3) float64, outward unit normals
    miller : for each face its indices (h, k, l); (0, 0, 0) for a plane that is no lattice plane
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


def crystal_polyhedron(
    cell: Sequence[float],
    point_group: str,
    forms: Forms,
    *,
    close_with: Forms | None = None,
) -> Polyhedron:
    """The solid bounded by the given forms.

    Parameters
    ----------
    cell : a, b, c [Å], α, β, γ [°]
    point_group : Hermann–Mauguin symbol, e.g. '422', '-43m', 'm-3m'; '−' and spaces are understood.
        A monoclinic axis is b unless the symbol says else ('112'); '32' means '321'. The groups 3,
        -3, 32, 3m, -3m take rhombohedral axes where the cell has them.
    forms : (h, k, l) -> distance of the form's faces from the centre [m], or pairs of these. On
        hexagonal axes also (h, k, i, l) with i = −(h + k).
    close_with : forms, likewise, that are added where ``forms`` alone leave the solid open, and left
        out where they close it; ``miller`` of the result shows which. None: open forms are an error.

    Returns
    -------
    Polyhedron. Faces that others cut off completely are absent.

    Raises
    ------
    OpenFormsError
        where the faces do not close the solid, with those of ``close_with`` if any; the message (and
        ``direction``) names an open direction.
    InputError
        for a cell that does not fit the point group, a distance ≤ 0, the form (0, 0, 0), and two
        forms that are the same.
    """
    operations = checked_operations(cell, point_group)
    frame = np.array(unit_cell(cell).orth.mat.tolist())
    named = _named_forms(cell, forms, "forms")
    spare = {} if close_with is None else _named_forms(cell, close_with, "close_with")
    expanded = expand_forms(point_group, operations, named)
    direction = open_direction(_lattice_normals(frame, expanded))
    if direction is not None and spare:
        expanded = expand_forms(point_group, operations, [*named, *spare])
        direction = open_direction(_lattice_normals(frame, expanded))
    if direction is not None:
        _raise_open(frame, point_group, direction, "forms and close_with" if spare else "forms")
    distances = np.array(list(expanded.values()))
    return polyhedron_from_planes(_lattice_normals(frame, expanded), distances, tuple(expanded))


def polyhedron_from_planes(
    normals: np.ndarray, distances: np.ndarray, miller: Sequence[Miller] | None = None
) -> Polyhedron:
    """The solid {x: n·x ≤ d}.

    Parameters
    ----------
    normals : (f, 3) float64, outward; of any length but zero
    distances : (f,) float64 [m], of the planes from the origin, which lies inside: all positive
    miller : indices of each plane; None for planes that are no lattice planes

    Returns
    -------
    Polyhedron, without the faces that others cut off.

    Raises
    ------
    OpenFormsError
        where the planes leave it open.
    InputError
        for shapes that do not match, a zero normal, and a distance ≤ 0.
    """
    normals, distances = np.asarray(normals, dtype=np.float64), np.asarray(distances, dtype=np.float64)
    if normals.ndim != 2 or normals.shape[1] != 3 or distances.shape != normals.shape[:1]:
        raise InputError(
            f"normals must be (f, 3) and distances (f,), got {normals.shape} and {distances.shape}"
        )
    lengths = np.linalg.norm(normals, axis=1)
    if not (np.isfinite(normals).all() and (lengths > 0).all()):
        raise InputError("normals must be finite and not zero")
    if not (np.isfinite(distances).all() and (distances > 0).all()):
        raise InputError(
            f"distances must be positive (the origin inside), got a least one of {distances.min():g}"
        )
    normals = normals / lengths[:, None]
    direction = open_direction(normals)
    if direction is not None:
        raise OpenFormsError(f"normals must close a solid, but leave {_xyz(direction)} open", direction)
    names = [(0, 0, 0)] * len(normals) if miller is None else list(miller)
    corners, scale = _corners(normals, distances)
    for touch in _TOUCH:
        vertices = _vertices(corners, normals, distances / scale, touch)
        faces = [_face(vertices, n, d, 4 * touch) for n, d in zip(normals, distances / scale, strict=True)]
        kept = [i for i, face in enumerate(faces) if len(face) >= 3]
        solid = tuple(faces[i] for i in kept)
        if _is_closed(len(vertices), solid):
            break
    else:
        raise InputError(
            "planes must bound a solid with distinct faces, but some of these nearly coincide; "
            "check for two planes at almost the same place"
        )
    return Polyhedron(
        vertices=vertices * scale,
        faces=solid,
        normals=normals[kept],
        miller=tuple(names[i] for i in kept),
        volume=_volume(vertices, solid) * scale**3,
    )


def expand_forms(point_group: str, operations: Sequence[np.ndarray], forms: Forms) -> dict[Miller, float]:
    """Every face of every form with its distance: h' = h·R over the rotations R of the group."""
    expanded: dict[Miller, float] = {}
    for hkl, distance in forms.items() if isinstance(forms, Mapping) else forms:
        plane = _coprime(hkl)
        if plane in expanded:
            raise InputError(
                f"forms must name each form once, but {tuple(hkl)} is equivalent to an earlier one "
                f"in point group {point_group}; keep one of the two distances"
            )
        for operation in operations:
            h, k, l = (int(x) for x in np.array(plane) @ operation)  # noqa: E741 (Miller indices)
            expanded[(h, k, l)] = float(distance)
    return expanded


def open_direction(normals: np.ndarray) -> np.ndarray | None:
    """A unit vector u (3,) with n·u ≤ 0 for every normal (f, 3): the solid would be infinite along
    it. None where the planes close."""
    # Closed where the origin is well inside the hull of the normals (milliseconds less than what follows).
    try:
        if len(normals) > 3 and ConvexHull(normals).equations[:, 3].max() < -1e-3:
            return None
    except QhullError:
        pass  # all normals in one plane
    # The most open direction first: least t with n·u ≤ t in the cube |u_i| ≤ 1. It is the middle of
    # a cone that has an inside (a pyramid without its base).
    margin = linprog(
        np.array([0.0, 0.0, 0.0, 1.0]),
        A_ub=np.c_[normals, -np.ones(len(normals))],
        b_ub=np.zeros(len(normals)),
        bounds=[(-1, 1)] * 3 + [(None, None)],
    )
    if margin.success and margin.fun < -1e-6:
        return margin.x[:3] / np.linalg.norm(margin.x[:3])
    # A cone without an inside (a prism without its ends) has a member with a component of ±1 in the
    # cube.
    for axis in range(3):
        for sign in (1.0, -1.0):
            cost = np.zeros(3)
            cost[axis] = -sign
            found = linprog(cost, A_ub=normals, b_ub=np.zeros(len(normals)), bounds=[(-1, 1)] * 3)
            if found.success and -found.fun > 1e-3:
                return found.x / np.linalg.norm(found.x)
    return None


def _named_forms(cell: Sequence[float], forms: Forms, name: str) -> list[tuple[Miller, float]]:
    """``forms`` as pairs of coprime indices and distance, checked."""
    pairs = list(forms.items()) if isinstance(forms, Mapping) else list(forms)
    if not pairs:
        raise InputError(f"{name} must name at least one form (h, k, l), got none")
    named = []
    for pair in pairs:
        try:
            hkl, distance = pair
            indices, value = tuple(hkl), float(distance)
        except (TypeError, ValueError):
            raise InputError(
                f"{name} must map (h, k, l) to a distance in metres, or be pairs of these, got {pair!r}"
            ) from None
        if len(indices) == 4:
            indices = _three_indices(cell, indices)
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name}[{indices}] must be a positive distance in metres, got {distance!r}")
        named.append((_coprime(indices), value))
    return named


def _three_indices(cell: Sequence[float], indices: tuple) -> tuple:
    """Miller–Bravais (h, k, i, l) -> (h, k, l)."""
    h, k, i, l = indices  # noqa: E741 (Miller indices)
    if not has_hexagonal_axes(cell):
        raise InputError(
            f"a form must be three integers (h, k, l), got {indices}; four are for hexagonal axes "
            "(α = β = 90°, γ = 120°)"
        )
    if h + k + i != 0:
        raise InputError(f"a form (h, k, i, l) must have i = -(h + k), got {indices}")
    return h, k, l


def _coprime(hkl: Sequence[int]) -> Miller:
    """(2, 2, 0) -> (1, 1, 0): as faces these are the same plane."""
    whole = [isinstance(i, int | float | np.number) and float(i).is_integer() for i in hkl]
    if len(hkl) != 3 or not all(whole) or not any(hkl):
        raise InputError(f"a form must be three integers (h, k, l), not all zero, got {tuple(hkl)}")
    divisor = gcd(*(int(i) for i in hkl))
    h, k, l = (int(i) // divisor for i in hkl)  # noqa: E741 (Miller indices)
    return h, k, l


def _lattice_normals(frame: np.ndarray, planes: Iterable[Miller]) -> np.ndarray:
    """Unit normals (f, 3) of lattice planes; ``frame`` (3, 3) has a, b, c in its columns."""
    # h·x_frac is constant on a lattice plane, so its normal is the row vector h times the
    # fractionalisation.
    normals = np.array(list(planes), dtype=np.float64) @ np.linalg.inv(frame)
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def _raise_open(frame: np.ndarray, point_group: str, direction: np.ndarray, given: str) -> None:
    candidates = np.array([h for h in np.ndindex(5, 5, 5)]) - 2
    candidates = candidates[candidates.any(axis=1)]
    facing = _lattice_normals(frame, [tuple(h) for h in candidates]) @ direction
    # The simplest plane among those nearest to the open direction.
    score = np.where(facing > 1e-6, facing - 0.02 * np.abs(candidates).sum(axis=1), -np.inf)
    hkl = _coprime([int(i) for i in candidates[score.argmax()]])
    raise OpenFormsError(
        f"{given} must close the solid, but in point group {point_group} they leave it open along "
        f"{_xyz(direction)}; add a form that faces it, such as {hkl}, or name one in close_with "
        "(no Friedel mates are added)",
        direction,
        hkl,
    )


def _xyz(direction: np.ndarray) -> str:
    x, y, z = (round(float(u), 3) + 0.0 for u in direction)
    return f"(x, y, z) = ({x}, {y}, {z})"


def _corners(normals: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, float]:
    """Qhull's corners of {x: n·x ≤ d} in units of the solid's extent, and that extent [m]."""
    # Faces that are cut off may lie very far away, so the nearest one is the measure at first.
    nearest = distances.min()
    try:
        found = HalfspaceIntersection(np.c_[normals, -distances / nearest], np.zeros(3)).intersections
    except QhullError as error:
        raise InputError(f"forms must bound a solid, but Qhull failed: {error}") from error
    extent = float(np.abs(found).max())
    return found / extent, extent * nearest


def _vertices(corners: np.ndarray, normals: np.ndarray, distances: np.ndarray, touch: float) -> np.ndarray:
    """Distinct corners, each one refined by least squares on all the faces that meet in it."""
    vertices: list[np.ndarray] = []
    left = corners
    while len(left):
        point = left[0]
        left = left[np.abs(left - point).max(axis=1) >= touch]
        touching = np.abs(normals @ point - distances) < touch
        vertices.append(np.linalg.lstsq(normals[touching], distances[touching], rcond=None)[0])
    return np.array(vertices)


def _face(vertices: np.ndarray, normal: np.ndarray, distance: float, touch: float) -> tuple[int, ...]:
    """Vertices on the plane, ordered counter-clockwise as seen from outside."""
    on_face = np.flatnonzero(np.abs(vertices @ normal - distance) < touch)
    if len(on_face) < 3:
        return ()
    spokes = vertices[on_face] - vertices[on_face].mean(axis=0)
    u = spokes[0] / np.linalg.norm(spokes[0])
    v = np.cross(normal, u)
    order = np.argsort(np.arctan2(spokes @ v, spokes @ u))
    return tuple(int(i) for i in on_face[order])


def _is_closed(vertex_count: int, faces: Sequence[tuple[int, ...]]) -> bool:
    """Every edge between two faces, run along in opposite senses, and V − E + F = 2."""
    edges = [edge for face in faces for edge in pairwise((*face, face[0]))]
    distinct = set(edges)
    paired = len(distinct) == len(edges) and all((b, a) in distinct for a, b in edges)
    return paired and vertex_count - len(edges) // 2 + len(faces) == 2


def _volume(vertices: np.ndarray, faces: Sequence[tuple[int, ...]]) -> float:
    """Sum of the tetrahedra between the origin and each triangle of each face."""
    total = 0.0
    for face in faces:
        a, b, c = vertices[face[0]], vertices[list(face[1:-1])], vertices[list(face[2:])]
        total += float((np.cross(b, c) @ a).sum()) / 6
    return total
