"""Closed meshes of sample mounts, in metres, in the mount frame."""

import math

import numpy as np
from scipy.spatial import cKDTree

from tomoforge.errors import InputError
from tomoforge.samples.film import SizeField, curled_sheet, strip, triangulated
from tomoforge.samples.film_mount import FilmMount
from tomoforge.samples.mesh import TriangleMesh
from tomoforge.samples.mount import Mount
from tomoforge.samples.mount_curves import spaced
from tomoforge.samples.sweep import tube
from tomoforge.samples.wire_loop import NylonLoop, stem_frame, wire_ring, wire_strands

# Chords stay this close to their curves [m]: well under the finest voxels, 0.5 µm.
_SAGITTA = 0.15e-6
_RING_POINTS = 256
_PIN_SIDES = 128
# The pin's modelled length [m]: longer than any field of view, shorter than the real 12–18 mm.
_PIN_LENGTH = 5e-3
# Rows of the strip below the holes: first finely, as its width changes, then few.
_STRIP_ROWS = 48
# An edge's points are at most this share of the way to the next edge apart, or the triangles would
# not follow it.
_GAP_SHARE = 0.55


def mount_meshes(mount: Mount, reach: float | None = None) -> tuple[TriangleMesh, ...]:
    """The mount as closed parts that overlap: ring and strands, or film, and the pin if it has one.

    Parameters
    ----------
    mount : NylonLoop, PolymerLoop or PolyimideMount
    reach : float [m] or None; ends the stem so far below the ring and leaves out a pin that begins
        below. Parts near the ring stay whole.

    Raises
    ------
    InputError
        for a reach that is not positive, or a wire too thick for its ring's sharpest bend.
    StageError
        where the film's shape defeats its triangulation.
    """
    if reach is not None and not reach > 0:
        raise InputError(f"reach must be positive metres or None, got {reach!r}")
    pins = pin_meshes(mount) if reach is None or mount.pin_distance < reach else ()
    return (*loop_meshes(mount, reach), *pins)


def loop_meshes(mount: Mount, reach: float | None = None) -> tuple[TriangleMesh, ...]:
    """``mount_meshes`` without the pin: all that is made of nylon or film."""
    if isinstance(mount, NylonLoop):
        ring = tube(wire_ring(mount, _RING_POINTS), mount.wire_radius, closed=True)
        strands = wire_strands(mount, reach)
        return (ring, *(tube(strand, mount.wire_radius, closed=False) for strand in strands))
    return (_film(mount, reach),)


def pin_meshes(mount: Mount) -> tuple[TriangleMesh, ...]:
    """The metal pin, a closed cylinder, or none.

    The twisted stem of a nylon loop ends on the pin's axis; a film lies on the pin's side.
    """
    if mount.pin_radius == 0:
        return ()
    if isinstance(mount, NylonLoop):
        axis, _, out = stem_frame(mount, np.array([mount.pin_distance]))
        top, direction = axis[0], np.array([0.0, out[0, 2], -out[0, 1]])
    else:
        top = np.array([0.0, mount.pin_radius, -mount.outer_half_height - mount.pin_distance])
        direction = np.array([0.0, 0.0, -1.0])
    ends = np.stack([top, top + _PIN_LENGTH * direction])
    return (tube(ends, mount.pin_radius, closed=False, sides=_PIN_SIDES),)


def _film(mount: FilmMount, reach: float | None) -> TriangleMesh:
    """The whole film: triangles around the holes, a strip of rows below them."""
    largest = math.sqrt(8 * mount.curl_radius * _SAGITTA)
    dense = mount.hole_edges()
    spacings = _edge_spacings(mount, dense, largest)
    holes = [spaced(edge, spacing, closed=True) for edge, spacing in zip(dense, spacings, strict=True)]
    # The tip's own curvature asks for fine points too, down to the fillets of the neck.
    z = np.linspace(-2, 1, 600) * mount.outer_half_height
    tip = np.concatenate([np.c_[side * mount.half_width(z), z] for side in (-1, 1)])
    sharpest = min(mount.outer_half_width, mount.outer_half_height, mount.neck_width)
    tip_spacing = min(largest, math.sqrt(8 * sharpest * _SAGITTA))
    sizes = SizeField([*holes, tip], [*spacings, tip_spacing], largest)
    # Below all holes, by some of the triangles.
    cut = min(float(hole[:, 1].min()) for hole in holes) - max(2 * largest, mount.rim_width)
    outline, bottom = _outline(mount, cut, sizes)
    points, triangles = triangulated(outline, holes, sizes)
    end = -mount.outer_half_height - mount.stem_length
    if reach is not None:
        end = max(end, -mount.outer_half_height - reach)
    if end < cut:
        rows = _strip_rows(mount, outline[:bottom], cut, end)
        more, below = strip(np.arange(bottom), rows, len(points))
        points, triangles = np.concatenate([points, more]), np.concatenate([triangles, below])
    return curled_sheet(points, triangles, mount.thickness, mount.curl_radius)


def _edge_spacings(mount: FilmMount, edges: list[np.ndarray], largest: float) -> list[float]:
    """Distance of the points along each hole's edge [m]: fine for its curvature and its neighbours."""
    z = np.linspace(-mount.outer_half_height - mount.stem_length, mount.outer_half_height, 2000)
    half = mount.half_width(z)
    sides = np.concatenate([np.c_[half, z], np.c_[-half, z]])
    spacings = []
    for i, edge in enumerate(edges):
        others = np.concatenate([sides, *(other[::4] for j, other in enumerate(edges) if j != i)])
        near = largest / _GAP_SHARE
        gap = float(cKDTree(others).query(edge[::4], distance_upper_bound=near)[0].min())
        radius = float(np.ptp(edge, axis=0).min()) / 2
        spacing = min(largest, math.sqrt(8 * radius * _SAGITTA), radius / 4, _GAP_SHARE * gap)
        slot = getattr(mount, "channel_width", 0.0)
        spacings.append(min(spacing, _GAP_SHARE * slot) if slot and i == 0 else spacing)
    return spacings


def _outline(mount: FilmMount, cut: float, sizes: SizeField) -> tuple[np.ndarray, int]:
    """The film's edge above ``cut``, counter-clockwise, and how many of its points lie on the cut."""
    top = mount.outer_half_height
    # Dense at the rounded top, where the width changes as a square root.
    turn = np.linspace(np.pi, 0, 1200)
    z = (cut + top) / 2 - (top - cut) / 2 * np.cos(turn)
    z[0], z[-1] = top, cut
    half = mount.half_width(z)
    right = np.c_[half[::-1], z[::-1]]
    left = np.c_[-half, z][1:]
    side = np.concatenate([right, left])
    floor = np.c_[np.linspace(-half[-1], half[-1], 400), np.full(400, cut)]
    bottom = spaced(floor, sizes(floor), closed=False)
    return np.concatenate([bottom, spaced(side, sizes(side), closed=False)[1:-1]]), len(bottom)


def _strip_rows(mount: FilmMount, start: np.ndarray, cut: float, end: float) -> np.ndarray:
    """Points of the strip's rows below ``start`` (m, 2): (rows, m, 2)."""
    turn = max(min(mount.straight_below, cut), end)
    z = np.linspace(cut, turn, _STRIP_ROWS + 1)[1:] if turn < cut else np.empty(0)
    if end < turn:
        z = np.append(z, end)
    across = start[:, 0] / start[-1, 0]
    return np.stack([np.outer(mount.half_width(z), across), np.repeat(z[:, None], len(across), 1)], axis=-1)
