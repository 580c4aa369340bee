"""Sample mounts as they are sold: nylon loops, polymer loops, polyimide micro-mounts, on a metal pin.

Mount frame: the loop lies in the x–z plane around the origin, its normal is y, its stem runs down −z.
``mount_mesh`` makes closed meshes of a mount, ``mount_drawing`` draws mounts of real dimensions.

References: T.-Y. Teng, J. Appl. Cryst. 23 (1990) 387 (loops); R. E. Thorne, Z. Stum, J. Kmetko,
K. O'Neill, R. Gillilan, J. Appl. Cryst. 36 (2003) 1455 (polyimide mounts).
"""

import math

import numpy as np

from tomoforge.samples.film_mount import FilmMount, PolyimideMount, PolymerLoop
from tomoforge.samples.mount_curves import curled, inside, spaced
from tomoforge.samples.wire_loop import NylonLoop, wire_ring, wire_strands

__all__ = ["MOUNTS", "Mount", "NylonLoop", "PolyimideMount", "PolymerLoop", "rim_points"]

Mount = NylonLoop | PolymerLoop | PolyimideMount
MOUNTS: dict[str, type[NylonLoop] | type[PolymerLoop] | type[PolyimideMount]] = {
    NylonLoop.kind: NylonLoop,
    PolymerLoop.kind: PolymerLoop,
    PolyimideMount.kind: PolyimideMount,
}


def rim_points(mount: Mount) -> tuple[np.ndarray, float]:
    """Points in the solid around the aperture, and a radius: (n, 3) [m] and float [m].

    The balls of that radius around the points cover the solid: a body that is further than it from every
    point is clear of the ring, and of the stem down to an aperture's height below the ring.
    """
    if isinstance(mount, NylonLoop):
        return _wire_points(mount)
    return _film_points(mount)


def _wire_points(loop: NylonLoop) -> tuple[np.ndarray, float]:
    dense = wire_ring(loop, 2048)
    spacing = loop.wire_radius / 2
    ring = spaced(dense, spacing, closed=True)
    strands = [
        spaced(strand, spacing, closed=False) for strand in wire_strands(loop, reach=loop.aperture_height)
    ]
    # Between two points the tube's surface is √(r² + (spacing/2)²) away, on the outside of a bend as sharp
    # as a tube can have (its own radius) √(r² + spacing²/2).
    return np.concatenate([ring, *strands]), math.hypot(loop.wire_radius, spacing / math.sqrt(2))


def _film_points(mount: FilmMount) -> tuple[np.ndarray, float]:
    spacing = max(mount.thickness / 2, mount.aperture_height / 60)
    top = mount.outer_half_height
    low = -top - min(mount.aperture_height, mount.stem_length)
    z = np.linspace(top, low, math.ceil((top - low) / spacing) + 1)
    rows = [
        np.c_[
            np.linspace(-w, w, math.ceil(2 * w / spacing) + 1),
            np.full(math.ceil(2 * w / spacing) + 1, height),
        ]
        for w, height in zip(mount.half_width(z), z, strict=True)
    ]
    points = np.concatenate(rows)
    edges = [spaced(edge, spacing, closed=True) for edge in mount.hole_edges()]
    for edge in edges:
        points = points[~inside(points, edge)]
    dense = np.linspace(top, low, 2000)
    side = np.c_[mount.half_width(dense), dense]
    sides = [spaced(side * (sign, 1), spacing, closed=False) for sign in (-1, 1)]
    flat = np.concatenate([points, *edges, *sides])
    # The nearest lattice point lies within spacing/√2; where a hole took it, the hole's edge is as near,
    # and a point of that edge within half a spacing more.
    cover = (math.sqrt(0.5) + 0.5) * spacing
    middle = curled(np.c_[flat[:, 0], np.zeros(len(flat)), flat[:, 1]], 0.0, mount.curl_radius)
    return middle, math.hypot(mount.thickness / 2, cover)
