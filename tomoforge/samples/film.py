"""Closed meshes of a film with holes: triangulated flat, given its thickness, laid on a cylinder."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial import Delaunay, cKDTree

from tomoforge.errors import StageError
from tomoforge.samples.mesh import TriangleMesh
from tomoforge.samples.mount_curves import curled, inside

# Triangles grow by this share of the distance from the edges that ask for small ones.
_GRADING = 0.4
# Inner points keep this many spacings off the edges, for well-shaped triangles.
_OFF_EDGE = 0.7


class SizeField:
    """How far apart points of a mesh lie, as a function of place: small at the edges of holes.

    edges : (n, 2) points of each edge [m]; spacings : along each [m]; largest : anywhere [m]
    """

    def __init__(self, edges: Sequence[np.ndarray], spacings: Sequence[float], largest: float) -> None:
        self.edges, self.spacings, self.largest = list(edges), list(spacings), largest
        self._trees = [cKDTree(edge) for edge in edges]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Spacing [m] at points (n, 2) [m]: (n,)."""
        size = np.full(len(points), self.largest)
        for tree, spacing in zip(self._trees, self.spacings, strict=True):
            # Further away the edge asks for no less than the largest size.
            far = max(self.largest - spacing, 0.0) / _GRADING
            distance, _ = tree.query(points, distance_upper_bound=far)
            size = np.minimum(size, spacing + _GRADING * distance)
        return size


def triangulated(
    outline: np.ndarray, holes: Sequence[np.ndarray], sizes: SizeField
) -> tuple[np.ndarray, np.ndarray]:
    """A flat region between an outline and its holes as triangles.

    Parameters
    ----------
    outline, holes : (n, 2) [m] closed polygons whose points become vertices, the outline's the first
    sizes : spacing of the points within

    Returns
    -------
    points : (p, 2) [m]; triangles : (t, 3), counter-clockwise

    Raises
    ------
    StageError
        where the triangles do not end at the edges: their points are too far apart for their shape.
    """
    loops = [outline, *holes]
    edge_points = np.concatenate(loops)
    points = np.concatenate([edge_points, _inner_points(loops, edge_points, sizes)])
    # Qhull works best with coordinates around one.
    scaled = (points - points.mean(axis=0)) / np.ptp(points, axis=0).max()
    triangles = Delaunay(scaled).simplices.astype(np.int64)
    area = _doubled_area(scaled, triangles)
    triangles = np.where((area > 0)[:, None], triangles, triangles[:, ::-1])
    triangles = triangles[np.abs(area) > 1e-12]
    # A triangle with a point inside is inside; those between edges may lie in a hole or outside.
    between = (triangles < len(edge_points)).all(axis=1)
    middles = points[triangles[between]].mean(axis=1)
    kept = inside(middles, outline)
    for hole in holes:
        kept &= ~inside(middles, hole)
    keep = np.ones(len(triangles), dtype=bool)
    keep[between] = kept
    triangles = triangles[keep]
    if not _ends_at(triangles, loops):
        raise StageError(
            f"the film's triangulation does not follow its {len(loops)} edges; sample the edges more finely"
        )
    return points, triangles


def strip(start: np.ndarray, rows: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of points below a row, and the triangles between them.

    Parameters
    ----------
    start : indices of the row that is there already, towards +x
    rows : (r, m, 2) points of the rows below it, each as many points towards +x
    first : index of the first new point

    Returns
    -------
    points : (r · m, 2); triangles : (t, 3), counter-clockwise
    """
    count, width = rows.shape[:2]
    index = np.concatenate([start[None], first + np.arange(count * width).reshape(count, width)])
    a, b = index[:-1, :-1].ravel(), index[:-1, 1:].ravel()
    c, d = index[1:, :-1].ravel(), index[1:, 1:].ravel()
    return rows.reshape(-1, 2), np.concatenate([np.c_[a, c, d], np.c_[a, d, b]])


def curled_sheet(
    points: np.ndarray, triangles: np.ndarray, thickness: float, curl_radius: float
) -> TriangleMesh:
    """A flat triangulation as a closed sheet on a cylinder.

    Parameters
    ----------
    points : (p, 2) [m], columns x, z; all in use
    triangles : (t, 3), counter-clockwise in x, z
    thickness, curl_radius : float [m]; the middle of the sheet touches y = 0 and curls towards +y
    """
    flat = np.c_[points[:, 0], np.zeros(len(points)), points[:, 1]]
    n = len(points)
    # Counter-clockwise in x, z is seen from −y.
    back, front = (curled(flat, side * thickness / 2, curl_radius) for side in (-1, 1))
    edge = boundary_edges(triangles)
    a, b = edge.T
    sides = np.concatenate([np.c_[b, a, a + n], np.c_[b, a + n, b + n]])
    return TriangleMesh(
        np.concatenate([back, front]), np.concatenate([triangles, triangles[:, ::-1] + n, sides])
    )


def boundary_edges(triangles: np.ndarray) -> np.ndarray:
    """Directed edges that no second triangle runs along: (e, 2) indices, the region on their left."""
    edges = triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    n = int(edges.max()) + 1
    return edges[~np.isin(edges @ (n, 1), edges @ (1, n))]


def _ends_at(triangles: np.ndarray, loops: Sequence[np.ndarray]) -> bool:
    """Whether the edges of the triangulation are those of the loops, whose points come first."""
    expected, first = [], 0
    for loop in loops:
        index = first + np.arange(len(loop))
        expected.append(np.c_[index, np.roll(index, -1)])
        first += len(loop)
    wanted = np.sort(np.concatenate(expected), axis=1)
    found = np.sort(boundary_edges(triangles), axis=1)
    return len(wanted) == len(found) and bool(
        (wanted[np.lexsort(wanted.T)] == found[np.lexsort(found.T)]).all()
    )


def _inner_points(loops: Sequence[np.ndarray], edge_points: np.ndarray, sizes: SizeField) -> np.ndarray:
    """Hexagonal lattices of doubling spacing, each where the size field asks for it: (n, 2) [m]."""
    outline, holes = loops[0], loops[1:]
    low, high = outline.min(axis=0), outline.max(axis=0)
    spacing = min(sizes.spacings, default=sizes.largest)
    tree = cKDTree(edge_points)
    found = []
    while True:
        last = 2 * spacing > sizes.largest
        points = _lattice(low, high, spacing, _regions(sizes, spacing, last, low, high))
        points = points[inside(points, outline)]
        for hole in holes:
            points = points[~inside(points, hole)]
        size = sizes(points)
        distance, _ = tree.query(points)
        wanted = (size >= spacing) & (last | (size < 2 * spacing))
        found.append(points[wanted & (distance > _OFF_EDGE * size)])
        if last:
            break
        spacing *= 2
    return np.concatenate(found)


def _regions(
    sizes: SizeField, spacing: float, last: bool, low: np.ndarray, high: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes outside which the size field asks for more than twice ``spacing``."""
    if last:
        return [(low, high)]
    boxes = []
    for edge, own in zip(sizes.edges, sizes.spacings, strict=True):
        margin = (2 * spacing - own) / _GRADING
        if margin > 0:
            boxes.append(
                (np.maximum(edge.min(axis=0) - margin, low), np.minimum(edge.max(axis=0) + margin, high))
            )
    return boxes


def _lattice(
    low: np.ndarray, high: np.ndarray, spacing: float, boxes: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Points in any of the boxes of one hexagonal lattice of the region: (n, 2)."""
    step = np.array([spacing, spacing * np.sqrt(3) / 2])
    indices = []
    for start, stop in boxes:
        i0, i1 = np.floor((start - low) / step).astype(int), np.ceil((stop - low) / step).astype(int) + 1
        grid = np.meshgrid(np.arange(i0[0], i1[0]), np.arange(i0[1], i1[1]), indexing="ij")
        indices.append(np.stack(grid, axis=-1).reshape(-1, 2))
    if not indices:
        return np.empty((0, 2))
    unique = np.unique(np.concatenate(indices), axis=0) if len(indices) > 1 else indices[0]
    return low + (unique + np.c_[unique[:, 1] % 2 / 2, np.zeros(len(unique))]) * step


def _doubled_area(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (points[triangles[:, k]] for k in range(3))
    return (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
