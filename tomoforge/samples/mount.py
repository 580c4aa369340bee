"""Sample mounts: the curves and edges of nylon loops and polymer loops.

Mount frame: the loop lies in the x–z plane around the origin, its normal is y, its stem runs down
−z. Nothing here knows Blender: the worker turns these curves into closed meshes.

A nylon loop is a round wire: a ring and two strands twisted around each other. A polymer loop is a
sheet, cut to a ring with a neck that widens into the stem, and curled about an axis parallel to z.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True)
class NylonLoop:
    """A loop of round wire. Lengths in metres.

    aperture_width, aperture_height : clear opening along x and z
    wire_radius : radius of the wire
    point : 0 for an ellipse, towards 1 the ring narrows at the neck
    bow : how far the middle of the ring stands out of its plane, along y
    twist_pitch : length of one turn of the two strands
    stem_length : from the bottom of the ring downwards
    """

    kind: ClassVar[str] = "nylon"
    aperture_width: float
    aperture_height: float
    wire_radius: float
    point: float
    bow: float
    twist_pitch: float
    stem_length: float

    @property
    def outer_half_width(self) -> float:
        """Greatest |x| of the ring [m]."""
        return self.aperture_width / 2 + 2 * self.wire_radius

    @property
    def outer_half_height(self) -> float:
        """Greatest |z| of the ring [m]."""
        return self.aperture_height / 2 + 2 * self.wire_radius


@dataclass(frozen=True)
class PolymerLoop:
    """A loop cut from a sheet. Lengths in metres.

    aperture_width, aperture_height : clear opening along x (before curling) and z
    rim_width : width of the ring in the sheet
    thickness : of the sheet
    point : 0 for an ellipse, towards 1 the ring narrows at the neck
    curl_radius : radius of the cylinder on which the sheet lies
    neck_width, stem_width : where the neck leaves the ring, and far below
    stem_length : from the bottom of the ring downwards
    """

    kind: ClassVar[str] = "polymer"
    aperture_width: float
    aperture_height: float
    rim_width: float
    thickness: float
    point: float
    curl_radius: float
    neck_width: float
    stem_width: float
    stem_length: float

    @property
    def outer_half_width(self) -> float:
        """Greatest |x| of the ring [m], before curling."""
        return self.aperture_width / 2 + self.rim_width

    @property
    def outer_half_height(self) -> float:
        """Greatest |z| of the ring [m]."""
        return self.aperture_height / 2 + self.rim_width


Mount = NylonLoop | PolymerLoop
MOUNTS: dict[str, type[NylonLoop] | type[PolymerLoop]] = {
    NylonLoop.kind: NylonLoop,
    PolymerLoop.kind: PolymerLoop,
}


def ring_curve(half_width: float, half_height: float, point: float, samples: int = 128) -> np.ndarray:
    """A closed drop-shaped curve, pointed towards −z: (samples, 3) float64 [m], x, y = 0, z."""
    t = np.linspace(0, 2 * np.pi, samples, endpoint=False)  # from the bottom, towards +x
    x = half_width * np.sin(t) * (1 - point * ((1 + np.cos(t)) / 2) ** 2)
    return np.c_[x, np.zeros(samples), -half_height * np.cos(t)]


def wire_ring(loop: NylonLoop, samples: int = 128) -> np.ndarray:
    """Centre line of the wire's ring, closed: (samples, 3) [m]."""
    half_width = loop.aperture_width / 2 + loop.wire_radius
    half_height = loop.aperture_height / 2 + loop.wire_radius
    curve = ring_curve(half_width, half_height, loop.point, samples)
    # Out of plane most in the middle, with no slope where the ring meets the stem.
    curve[:, 1] = loop.bow * (1 + np.cos(np.pi * curve[:, 2] / half_height)) / 2
    return curve


def wire_strands(loop: NylonLoop) -> tuple[np.ndarray, np.ndarray]:
    """Centre lines of the two strands of the stem, which touch each other: two of (samples, 3)
    [m]."""
    turns = loop.stem_length / loop.twist_pitch
    s = np.linspace(0, 1, max(32, int(24 * turns)))
    z = -loop.aperture_height / 2 - loop.wire_radius - s * loop.stem_length

    def strand(phase: float) -> np.ndarray:
        angle = phase + 2 * np.pi * turns * s
        return np.c_[loop.wire_radius * np.cos(angle), loop.wire_radius * np.sin(angle), z]

    return strand(0.0), strand(np.pi)


def sheet_ring(loop: PolymerLoop, samples: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Inner and outer edge of the flat ring, point by point across the rim: two of (samples, 3)
    [m]."""
    inner = ring_curve(loop.aperture_width / 2, loop.aperture_height / 2, loop.point, samples)
    outer = ring_curve(loop.outer_half_width, loop.outer_half_height, loop.point, samples)
    return inner, outer


def sheet_neck(loop: PolymerLoop, samples: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Left and right edge of neck and stem, from inside the rim downwards: two of (samples, 3)
    [m]."""
    # Dense near the ring, where the width changes.
    s = np.linspace(0, 1, samples) ** 2
    z = -loop.aperture_height / 2 - 0.3 * loop.rim_width - s * loop.stem_length
    below = s * loop.stem_length
    ramp = np.clip(below / (1.5 * loop.aperture_height), 0, 1)
    taper = ramp * ramp * (3 - 2 * ramp)
    # The fillet may not stand out of the rim where the neck begins.
    cosine = -z[0] / loop.outer_half_height
    chord = loop.outer_half_width * np.sqrt(1 - cosine**2)
    chord *= 1 - loop.point * ((1 + cosine) / 2) ** 2
    room = max(0.0, 2 * chord - loop.neck_width)
    fillet = min(0.6 * loop.neck_width, room) * np.exp(-below / (0.4 * loop.neck_width))
    half = (loop.neck_width + (loop.stem_width - loop.neck_width) * taper + fillet) / 2
    zero = np.zeros(samples)
    return np.c_[-half, zero, z], np.c_[half, zero, z]


def curled(points: np.ndarray, height: float, radius: float) -> np.ndarray:
    """Points of the flat sheet, at ``height`` [m] above its middle plane, laid on a cylinder.

    points : (n, 3) [m] with y = 0; the cylinder of ``radius`` [m] touches the plane y = 0 at x = 0
        and curls
    towards +y.
    """
    angle = points[:, 0] / radius
    reach = radius - height
    return np.c_[reach * np.sin(angle), radius - reach * np.cos(angle), points[:, 2]]


def rim_points(mount: Mount) -> tuple[np.ndarray, float]:
    """Points on the ring and the radius of solid around each: (n, 3) [m] and float [m].

    A body further than that radius from every point is clear of the ring.
    """
    if isinstance(mount, NylonLoop):
        return wire_ring(mount), mount.wire_radius
    inner, outer = sheet_ring(mount)
    rows = [inner, (inner + outer) / 2, outer]
    faces = [
        curled(row, side * mount.thickness / 2, mount.curl_radius) for row in rows for side in (-1, 0, 1)
    ]
    return np.concatenate(faces), mount.thickness / 4
