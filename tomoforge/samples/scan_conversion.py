"""Closed triangle meshes cut into rows of voxels: where each row along x enters and leaves the bodies.

A plane of constant z cuts a closed mesh in closed polygons, a row of constant y cuts these in points, and the
sum of the signs (+1 entering, −1 leaving) over the points passed is the winding number: a body is where its
winding number is positive. Parts that overlap are thereby united, and a part that faces inwards is a hole.

Nothing leaks, by construction. Both cuts are half open (a point on the plane counts as below it), so that a
vertex or an edge on a ray is cut as if it lay just beneath. Both triangles at an edge compute the same point on
it to the last bit, because they take its ends in the same order: the polygons close exactly.

References: Foley, van Dam, Feiner, Hughes, Computer Graphics (1990), ch. 3.6 (scan conversion, half-open spans);
A. Jacobson, L. Kavan, O. Sorkine-Hornung, ACM Trans. Graph. 32 (2013) 33 (inside as positive winding number).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tomoforge.compilation import compiled

# Vertices are put on a lattice of 2^-32 voxel, a hundred times the rounding of metres to voxels: a face meant to lie
# on voxel centres does, and its cut is half open, whatever the last bits of its coordinates in metres.
LATTICE = 2.0**32
# Covered lengths are summed in integers of 2^-30 voxel: a full voxel is exactly 1, and no order of
# summation changes a bit.
_UNIT_BITS = 30


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles of several bodies in units of rows, sorted by the first plane that cuts them.

    vertices : (v, 3) float64, columns x [voxels], y [rows], z [planes]; plane and row centres at integers
    triangles : (t, 3) int64, counter-clockwise seen from outside
    body : (t,) int64, to which body a triangle belongs; where bodies overlap the highest wins
    planes, rows : (t, 2) int64, first and last plane and row that cut the triangle, within the field
    """

    vertices: np.ndarray
    triangles: np.ndarray
    body: np.ndarray
    planes: np.ndarray
    rows: np.ndarray


def surface(
    parts: Sequence[tuple[int, np.ndarray, np.ndarray]], shape: tuple[int, int, int], samples: int = 1
) -> Surface:
    """Prepare closed parts for cutting.

    Parameters
    ----------
    parts : body, vertices (v, 3) float64 x, y, z [voxels, centre of the first at 0], triangles (t, 3) int64
    shape : voxels of the field along z, y, x
    samples : planes and rows per voxel, spread evenly; 1 is through the centres
    """
    vertices, triangles, body, count = [np.empty((0, 3))], [np.empty((0, 3), np.int64)], [], 0
    for index, points, faces in parts:
        snapped = np.round(points * LATTICE) / LATTICE
        # A closed part beside the field has nothing in it: what enters a row leaves it again before the field
        # or beyond it.
        if (snapped.max(axis=0) < -0.5).any() or (snapped.min(axis=0) > np.array(shape[::-1]) - 0.5).any():
            continue
        vertices.append(snapped)
        triangles.append(faces + count)
        body.append(np.full(len(faces), index))
        count += len(points)
    # Plane m of voxel m // samples lies at (m + 1/2) / samples − 1/2.
    middle = np.array([0.0, 0.5, 0.5])
    points = (np.concatenate(vertices) + middle) * [1, samples, samples] - middle
    faces = np.concatenate(triangles)
    planes = _crossed(points[:, 2], faces, shape[0] * samples)
    rows = _crossed(points[:, 1], faces, shape[1] * samples)
    kept = np.flatnonzero((planes[:, 0] <= planes[:, 1]) & (rows[:, 0] <= rows[:, 1]))
    kept = kept[np.argsort(planes[kept, 0], kind="stable")]
    of_body = np.concatenate(body).astype(np.int64) if body else np.empty(0, np.int64)
    return Surface(points, faces[kept], of_body[kept], planes[kept], rows[kept])


def paint(cut: Surface, first_plane: int, values: np.ndarray, out: np.ndarray) -> int:
    """Write each body's value where its winding number is positive, the highest body's last.

    Parameters
    ----------
    cut : Surface, with one plane and row per voxel
    first_plane : plane of ``out[0]``
    values : (bodies,) uint8
    out : (z, y, x) uint8, written where a body is

    Returns the number of rows that were entered more often than left: 0 for closed meshes.
    """
    return int(_paint(*_arrays(cut), first_plane, values, out))


def cover(cut: Surface, first_plane: int, samples: int, out: np.ndarray) -> int:
    """Write the share of each voxel that each body has, overlaps going to the highest body.

    Parameters
    ----------
    cut : Surface, with ``samples`` planes and rows per voxel
    first_plane : voxel plane of ``out[:, 0]``
    out : (body, z, y, x) float32, zero before; along x exact, along z and y the mean over the samples

    Returns the number of rows that were entered more often than left: 0 for closed meshes.
    """
    return int(_cover(*_arrays(cut), first_plane, samples, out))


def _arrays(cut: Surface) -> tuple[np.ndarray, ...]:
    return cut.vertices, cut.triangles, cut.body, cut.planes, cut.rows


def _crossed(values: np.ndarray, faces: np.ndarray, count: int) -> np.ndarray:
    """First and last integer n, low ≤ n < high and 0 ≤ n < count, of each face: (t, 2) int64."""
    corners = values[faces]
    # Clipped before the conversion: a vertex may lie beyond the range of integers.
    first = np.clip(np.ceil(corners.min(axis=1, initial=np.inf)), 0, count)
    last = np.clip(np.ceil(corners.max(axis=1, initial=-np.inf)) - 1, -1, count - 1)
    return np.stack([first, last], axis=1).astype(np.int64)


@compiled(inline=True)
def _between(start: float, end: float, t: float) -> float:
    """The point at ``t`` in [0, 1] from start to end; never outside them, also where rounding would have it
    so: a triangle is looked for in the rows of its corners alone."""
    value = start + t * (end - start)
    return min(max(value, min(start, end)), max(start, end))


@compiled()
def _advance(planes: np.ndarray, plane: int, active: np.ndarray, n_active: int, following: int) -> Any:
    """Drop triangles that end before ``plane`` and add those that start by it, in the order of the list.

    Returns how many are active, and the first triangle that starts later.
    """
    kept = 0
    for i in range(n_active):
        if planes[active[i], 1] >= plane:
            active[kept] = active[i]
            kept += 1
    while following < len(planes) and planes[following, 0] <= plane:
        if planes[following, 1] >= plane:
            active[kept] = following
            kept += 1
        following += 1
    return kept, following


@compiled()
def _room(rows: np.ndarray, active: np.ndarray, n_active: int) -> int:
    """At most this many points do the active triangles add to a plane."""
    total = 0
    for i in range(n_active):
        total += rows[active[i], 1] - rows[active[i], 0] + 1
    return total


@compiled()
def _points(room: int) -> Any:
    """Room for the points of one plane: next in the row, x, which body."""
    return np.empty(room, np.int64), np.empty(room, np.float64), np.empty(room, np.int64)


@compiled()
def _cut_plane(
    vertices: np.ndarray,
    triangles: np.ndarray,
    body: np.ndarray,
    rows: np.ndarray,
    active: np.ndarray,
    plane: int,
    head: np.ndarray,
    after: np.ndarray,
    at: np.ndarray,
    who: np.ndarray,
) -> None:
    """Points where the rows of one plane enter and leave, a list sorted by x for each row.

    head : (row,) first point of the row, or −1; after : (point,) the next one, or −1
    at : (point,) x [voxels]; who : (point,) body + 1 where entering, −(body + 1) where leaving
    """
    count = 0
    for triangle in active:
        up_x = up_y = down_x = down_y = 0.0
        for corner in range(3):
            p, q = triangles[triangle, corner], triangles[triangle, (corner + 1) % 3]
            rises = vertices[p, 2] <= plane
            if rises == (vertices[q, 2] <= plane):
                continue
            low, high = (p, q) if rises else (q, p)
            t = (plane - vertices[low, 2]) / (vertices[high, 2] - vertices[low, 2])
            x = _between(vertices[low, 0], vertices[high, 0], t)
            y = _between(vertices[low, 1], vertices[high, 1], t)
            if rises:
                up_x, up_y = x, y
            else:
                down_x, down_y = x, y
        if up_y == down_y:
            continue
        # Counter-clockwise from outside: the outward normal points to −x where the rising edge is at the lesser y.
        if up_y < down_y:
            sign, y0, x0, y1, x1 = 1, up_y, up_x, down_y, down_x
        else:
            sign, y0, x0, y1, x1 = -1, down_y, down_x, up_y, up_x
        row_start = int(max(np.ceil(y0), rows[triangle, 0]))
        row_stop = int(min(np.ceil(y1), rows[triangle, 1] + 1))
        for row in range(row_start, row_stop):
            x = _between(x0, x1, (row - y0) / (y1 - y0))
            at[count] = x
            who[count] = sign * (body[triangle] + 1)
            before, here = -1, head[row]
            while here >= 0 and at[here] < x:
                before, here = here, after[here]
            after[count] = here
            if before < 0:
                head[row] = count
            else:
                after[before] = count
            count += 1


@compiled(inline=True)
def _pass(winding: np.ndarray, who: int) -> int:
    """Count one point in, and return the highest body with a positive winding number, or −1."""
    if who > 0:
        winding[who - 1] += 1
    else:
        winding[-who - 1] -= 1
    top = len(winding) - 1
    while top >= 0 and winding[top] <= 0:
        top -= 1
    return top


@compiled()
def _paint(
    vertices: np.ndarray,
    triangles: np.ndarray,
    body: np.ndarray,
    planes: np.ndarray,
    rows: np.ndarray,
    first_plane: int,
    values: np.ndarray,
    out: np.ndarray,
) -> int:
    n_z, n_y, n_x = out.shape
    active = np.empty(len(triangles), np.int64)
    n_active = following = leaks = 0
    head = np.full(n_y, -1, np.int64)
    after, at, who = _points(0)
    winding = np.zeros(len(values), np.int64)
    for z in range(n_z):
        plane = first_plane + z
        n_active, following = _advance(planes, plane, active, n_active, following)
        if n_active == 0:
            continue
        room = _room(rows, active, n_active)
        if room > len(at):
            after, at, who = _points(room)
        _cut_plane(vertices, triangles, body, rows, active[:n_active], plane, head, after, at, who)
        for y in range(n_y):
            here, top, start = head[y], -1, 0
            if here < 0:
                continue
            while here >= 0:
                # The first voxel whose centre is at or beyond the point.
                stop = int(np.ceil(min(max(at[here], 0.0), float(n_x))))
                if top >= 0 and stop > start:
                    out[z, y, start:stop] = values[top]
                start, top = stop, _pass(winding, who[here])
                here = after[here]
            head[y] = -1
            if winding.any():
                leaks += 1
                winding[:] = 0
    return leaks


@compiled(inline=True)
def _add_from(line: np.ndarray, x: int, sign: int) -> None:
    """Add the share of each voxel at or beyond ``x`` to its differences along ``line``."""
    voxel, part = x >> _UNIT_BITS, x & ((1 << _UNIT_BITS) - 1)
    line[voxel] += sign * ((1 << _UNIT_BITS) - part)
    line[voxel + 1] += sign * part


@compiled()
def _cover(
    vertices: np.ndarray,
    triangles: np.ndarray,
    body: np.ndarray,
    planes: np.ndarray,
    rows: np.ndarray,
    first_plane: int,
    samples: int,
    out: np.ndarray,
) -> int:
    n_bodies, n_z, n_y, n_x = out.shape
    unit = 1 << _UNIT_BITS
    full = 1.0 / (samples * samples * unit)
    active = np.empty(len(triangles), np.int64)
    n_active = following = leaks = 0
    head = np.full(n_y * samples, -1, np.int64)
    after, at, who = _points(0)
    winding = np.zeros(n_bodies, np.int64)
    # Differences along x of the covered length: a crossing touches two voxels, however many lie behind it.
    change = np.zeros((n_y, n_bodies, n_x + 2), np.int64)
    touched = np.zeros((n_y, n_bodies), np.bool_)
    for z in range(n_z):
        for plane in range((first_plane + z) * samples, (first_plane + z + 1) * samples):
            n_active, following = _advance(planes, plane, active, n_active, following)
            if n_active == 0:
                continue
            room = _room(rows, active, n_active)
            if room > len(at):
                after, at, who = _points(room)
            _cut_plane(vertices, triangles, body, rows, active[:n_active], plane, head, after, at, who)
            for row in range(n_y * samples):
                here, top, start, y = head[row], -1, 0, row // samples
                if here < 0:
                    continue
                while here >= 0:
                    # Voxel 0 begins at x = −1/2.
                    stop = int(np.rint(min(max(at[here] + 0.5, 0.0), float(n_x)) * unit))
                    if top >= 0 and stop > start:
                        _add_from(change[y, top], start, 1)
                        _add_from(change[y, top], stop, -1)
                        touched[y, top] = True
                    start, top = stop, _pass(winding, who[here])
                    here = after[here]
                head[row] = -1
                if winding.any():
                    leaks += 1
                    winding[:] = 0
        for y in range(n_y):
            for top in range(n_bodies):
                if touched[y, top]:
                    length = 0
                    for x in range(n_x):
                        length += change[y, top, x]
                        out[top, z, y, x] = length * full
                    change[y, top, :] = 0
                    touched[y, top] = False
    return leaks
