"""A grid of directions in the sample frame, and cubic interpolation on it.

The sphere is the six faces of a cube, each with a grid in the two angles seen from its middle, so that no
direction is a pole and cells are of much the same size. Only nodes that some direction needs are named; a
beam that turns about one axis touches a belt of them.
"""

from dataclasses import dataclass

import numpy as np

STENCIL = 16  # nodes that one direction needs: 4 × 4


@dataclass(frozen=True)
class Stencils:
    """Which nodes each direction is interpolated from, and where it lies among them.

    nodes : (node, 3) float64 unit vectors (z, y, x), those needed and no others; place : (id,) int32, number
    of each node of the grid in ``nodes``, −1 where it is not needed; side : int, nodes along a face of the
    cube; corner : (direction,) int32, id of the first of 4 × 4 nodes, id = (face · side + row) · side +
    column; fraction : (direction, 2) float32, 0 … 1, way through the middle cell along rows and columns.
    With side 0 nothing is interpolated and ``corner`` names the node itself.
    """

    nodes: np.ndarray
    place: np.ndarray
    side: int
    corner: np.ndarray
    fraction: np.ndarray

    def select(self, rows: np.ndarray | slice) -> "Stencils":
        """The stencils of some directions, on the same nodes."""
        return Stencils(self.nodes, self.place, self.side, self.corner[rows], self.fraction[rows])


def grid_stencils(directions: np.ndarray, cells: int) -> Stencils:
    """Four-point Lagrange interpolation in both angles on a grid of ``cells`` cells to a right angle.

    directions : (direction, 3) float64 unit vectors (z, y, x); cells : int ≥ 1.

    Notes: the error goes as the fourth power of the cell where the function has that many derivatives. Each
    face has one row of nodes beyond its edges, so that no stencil reaches over an edge.
    """
    side = cells + 3
    corner, fraction = _corners(directions, cells)
    used = _needed(corner, side)
    place = np.where(used, np.cumsum(used) - 1, -1).astype(np.int32)
    return Stencils(node_vectors(np.flatnonzero(used), cells), place, side, corner, fraction)


def exact_stencils(directions: np.ndarray) -> Stencils:
    """Every distinct direction is a node of its own: nothing is interpolated."""
    nodes, index = distinct_rows(directions)
    return Stencils(
        nodes,
        np.arange(len(nodes), dtype=np.int32),
        0,
        index.astype(np.int32),
        np.zeros((len(directions), 2), dtype=np.float32),
    )


def distinct_rows(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows (m, 3) of vectors (n, 3), sorted, and which of them each vector is (n,) int64."""
    # Four times faster than numpy.unique along an axis.
    order = np.lexsort(vectors.T[::-1])
    new = np.ones(len(vectors), dtype=bool)
    new[1:] = (vectors[order[1:]] != vectors[order[:-1]]).any(axis=1)
    row = np.empty(len(vectors), dtype=np.int64)
    row[order] = np.cumsum(new) - 1
    return np.ascontiguousarray(vectors[order[new]]), row


def count_nodes(directions: np.ndarray, cells: int) -> int:
    """Nodes that ``grid_stencils`` would need."""
    return int(_needed(_corners(directions, cells)[0], cells + 3).sum())


def node_vectors(ids: np.ndarray, cells: int) -> np.ndarray:
    """Unit vectors (n, 3) float64 of grid nodes by their ids."""
    side = cells + 3
    face, row, column = ids // side**2, ids // side % side, ids % side
    axis = face // 2
    vectors = np.empty((len(ids), 3))
    every = np.arange(len(ids))
    vectors[every, axis] = np.where(face % 2, -1.0, 1.0)
    for other, step in ((1, row), (2, column)):
        vectors[every, (axis + other) % 3] = np.tan((step - 1) * (np.pi / 2 / cells) - np.pi / 4)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _corners(directions: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """First node (n,) int32 of each direction's stencil and its place (n, 2) float32 in the middle cell."""
    axis = np.argmax(np.abs(directions), axis=1)
    every = np.arange(len(directions))
    along = directions[every, axis]
    corner = 2 * axis + (along < 0)
    fraction = np.empty((len(directions), 2), dtype=np.float32)
    for k in (0, 1):
        angle = np.arctan(directions[every, (axis + k + 1) % 3] / np.abs(along))
        where = (angle + np.pi / 4) / (np.pi / 2 / cells)
        cell = np.clip(np.floor(where), 0, cells - 1)
        fraction[:, k] = where - cell
        corner = corner * (cells + 3) + cell.astype(np.int64)
    return corner.astype(np.int32), fraction


def _needed(corner: np.ndarray, side: int) -> np.ndarray:
    """(6 side²,) bool, true for the nodes of the 4 × 4 stencils that begin at ``corner``."""
    # By marking and widening instead of sorting sixteen ids for each of a million directions.
    used = np.zeros((6, side, side), dtype=bool)
    used.reshape(-1)[corner] = True
    for axis in (1, 2):
        # No stencil begins in the last three rows: nothing wraps.
        used = used | np.roll(used, 1, axis) | np.roll(used, 2, axis) | np.roll(used, 3, axis)
    return used.reshape(-1)
