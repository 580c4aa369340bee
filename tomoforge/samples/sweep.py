"""Closed meshes swept along a line: tubes and cylinders."""

import numpy as np

from tomoforge.errors import InputError
from tomoforge.samples.mesh import TriangleMesh
from tomoforge.samples.mount_curves import tangents_and_bend

# Sides of a tube: the polygon of a wire of 10 µm radius is within 0.1 µm of its circle.
SIDES = 24


def tube(line: np.ndarray, radius: float, *, closed: bool, sides: int = SIDES) -> TriangleMesh:
    """A round tube around a centre line; open ends get flat caps.

    The cross-section is a regular polygon of the circle's area, so that the volume is πr² × length; its
    corners stand out by 0.6 % of the radius with 24 sides.

    Parameters
    ----------
    line : (n, 3) float64 [m], x, y, z; without repeated points; a closed line does not repeat its first
    radius : float [m]
    closed : the last point joins the first
    sides : of the polygon, at least 3

    Raises
    ------
    InputError
        for too few points, a radius that is not positive, or a line that bends more sharply than the tube
        is wide: the surface would cross itself.
    """
    line = np.asarray(line, dtype=np.float64)
    least = 3 if closed else 2
    if line.ndim != 2 or line.shape[1] != 3 or len(line) < least or not np.isfinite(line).all():
        raise InputError(f"line must be finite points (n, 3), at least {least}, got shape {line.shape}")
    if not (np.isfinite(radius) and radius > 0) or sides < 3:
        raise InputError(f"radius must be positive and sides at least 3, got {radius!r} and {sides}")
    tangents, sharpest = tangents_and_bend(line, closed)
    if sharpest * radius >= 1:
        raise InputError(
            f"line must bend on a radius larger than the tube's {radius:g} m, got {1 / sharpest:.3g} m; "
            "make the curve rounder or the tube thinner"
        )
    across, out = transported_frames(tangents, closed)
    turn = 2 * np.pi * np.arange(sides) / sides
    corner = radius * np.sqrt(2 * np.pi / (sides * np.sin(2 * np.pi / sides)))
    circle = np.cos(turn)[None, :, None] * across[:, None] + np.sin(turn)[None, :, None] * out[:, None]
    vertices = (line[:, None] + corner * circle).reshape(-1, 3)
    triangles = _side_triangles(len(line), sides, closed)
    if closed:
        return TriangleMesh(vertices, triangles)
    k, n = np.arange(sides), len(vertices)
    following = (k + 1) % sides
    last = n - sides
    start = np.c_[np.full(sides, n), following, k]
    end = np.c_[np.full(sides, n + 1), last + k, last + following]
    return TriangleMesh(np.concatenate([vertices, line[[0, -1]]]), np.concatenate([triangles, start, end]))


def transported_frames(tangents: np.ndarray, closed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors across each tangent that turn as little as possible along the line: (n, 3) twice.

    Along a closed line they come back turned; that twist is spread evenly, so that the ends meet.

    References: R. L. Bishop, Am. Math. Monthly 82 (1975) 246.
    """
    # A smooth frame from a fixed axis that is never along the line, then the angle by which it turns.
    axis = np.eye(3)[np.argmin(np.abs(tangents).max(axis=0))]
    raw = axis - (tangents @ axis)[:, None] * tangents
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    if lengths.min() < 1e-3:
        raise InputError("line must stay off one of the directions x, y, z, got one along all three")
    across = raw / lengths
    out = np.cross(tangents, across)
    nexts = np.roll(np.arange(len(tangents)), -1)
    carried = _carried(across, tangents, tangents[nexts])
    drift = np.arctan2(
        np.einsum("ij,ij->i", carried, out[nexts]), np.einsum("ij,ij->i", carried, across[nexts])
    )
    angle = np.concatenate([[0.0], np.cumsum(drift[:-1])])
    if closed:
        # Whole turns of the twist are none.
        twist = np.angle(np.exp(1j * drift.sum()))
        angle = angle - twist * np.arange(len(angle)) / len(angle)
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return cosine * across + sine * out, cosine * out - sine * across


def _carried(vectors: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Vectors turned by the least rotation that takes unit vectors ``start`` to ``stop``: (n, 3)."""
    axis = np.cross(start, stop)
    cosine = np.einsum("ij,ij->i", start, stop)[:, None]
    along = np.einsum("ij,ij->i", axis, vectors)[:, None]
    return cosine * vectors + np.cross(axis, vectors) + along / (1 + cosine) * axis


def _side_triangles(rings: int, sides: int, closed: bool) -> np.ndarray:
    """Two triangles between each pair of neighbouring corners and rings: (t, 3)."""
    i, k = np.meshgrid(np.arange(rings if closed else rings - 1), np.arange(sides), indexing="ij")
    this, following = i * sides, (i + 1) % rings * sides
    a, b = (this + k).ravel(), (this + (k + 1) % sides).ravel()
    c, d = (following + (k + 1) % sides).ravel(), (following + k).ravel()
    return np.concatenate([np.c_[a, b, c], np.c_[a, c, d]])
