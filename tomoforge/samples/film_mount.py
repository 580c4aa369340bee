"""Mounts cut from a film that lies curled on a cylinder: polymer loops and polyimide micro-mounts.

Each is described in the flat film by half its width at every height and by the edges of its holes.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tomoforge.errors import ConfigError
from tomoforge.samples.mount_curves import (
    check_pin,
    check_point,
    check_positive,
    drop_half_width,
    ellipse,
    inside,
    ring_curve,
    smooth_step,
)

Vector = tuple[float, float, float]
Hole = tuple[float, float, float, float]

# Points of a hole's edge before it is sampled anew for meshing.
_DENSE = 720
# The film must not meet itself behind the cylinder.
_MOST_CURL = 0.9 * math.pi


@dataclass(frozen=True)
class PolymerLoop:
    """A loop cut from a film: a flat ring on a neck that tapers into the stem. Lengths in metres.

    aperture_width, aperture_height : clear opening along x (before curling) and z
    rim_width : width of the ring in the film
    thickness : of the film
    point : 0 for an ellipse, towards 1 the ring narrows at the neck
    curl_radius : radius of the cylinder on which the film lies
    neck_width, stem_width : where the neck leaves the ring, and far below
    stem_length : from the bottom of the ring downwards
    pin_radius, pin_distance : radius of the metal pin, 0 for none, and how far below the ring it begins
    taper_length : over which the neck widens to the stem
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
    pin_radius: float = 0.0
    pin_distance: float = 0.0
    taper_length: float = 0.5e-3

    def __post_init__(self) -> None:
        check_positive(self, "aperture_width", "aperture_height", "neck_width", "taper_length")
        check_point(self.point)
        _check_film(self)
        check_pin(self)

    @property
    def outer_half_width(self) -> float:
        """Greatest |x| of the ring [m], before curling."""
        return self.aperture_width / 2 + self.rim_width

    @property
    def outer_half_height(self) -> float:
        """Greatest |z| of the ring [m]."""
        return self.aperture_height / 2 + self.rim_width

    @property
    def middle(self) -> Vector:
        """Where the aperture has most room: x, y, z [m]. A drop is roomiest above its middle."""
        return 0.0, _sagitta(self) / 2, 0.1 * self.point * self.aperture_height

    def half_width(self, z: np.ndarray) -> np.ndarray:
        """Half the film's width [m] at heights z [m]: ring, neck and stem in one outline."""
        z = np.asarray(z, dtype=np.float64)
        sizes = self.outer_half_width, self.outer_half_height, self.point
        ring = drop_half_width(z, *sizes)
        start = -self.aperture_height / 2 - 0.3 * self.rim_width
        below = np.clip(start - z, 0, None)
        taper = smooth_step(below / self.taper_length)
        # The fillet may not stand out of the rim where the neck begins.
        room = max(0.0, 2 * float(drop_half_width(np.array(start), *sizes)) - self.neck_width)
        fillet = min(0.6 * self.neck_width, room) * np.exp(-below / (0.4 * self.neck_width))
        neck = (self.neck_width + (self.stem_width - self.neck_width) * taper + fillet) / 2
        # The corner between ring and neck is rounded; above the middle there is no neck, below no ring.
        rounding = 0.2 * self.neck_width * smooth_step(z / start) * smooth_step(1 - below / self.neck_width)
        both = (ring + neck + np.sqrt((ring - neck) ** 2 + rounding**2)) / 2
        return np.where(z < 0, both, ring)

    @property
    def straight_below(self) -> float:
        """Height z [m] below which the stem is a straight strip."""
        return -self.aperture_height / 2 - 0.3 * self.rim_width - self.taper_length

    def hole_edges(self) -> list[np.ndarray]:
        """The aperture's edge in the flat film: one of (n, 2) float64 [m], columns x, z."""
        curve = ring_curve(self.aperture_width / 2, self.aperture_height / 2, self.point, _DENSE)
        return [curve[:, [0, 2]]]


@dataclass(frozen=True)
class PolyimideMount:
    """A micro-mount: a curved film with a rounded tip, an elliptic aperture, and more holes below it.

    Lengths in metres, in the flat film.

    aperture_width, aperture_height : clear opening along x (before curling) and z
    rim_width : between the aperture and the edge of the tip
    thickness : of the film
    curl_radius : radius of the cylinder on which the film lies
    neck_width, neck_depth : width of the waist, and how far it lies below the aperture's middle
    stem_width, taper_length : width far below, and the length over which the waist widens to it
    stem_length : from the bottom of the tip (``outer_half_height`` below the middle) downwards
    holes : x, z, half width, half height of elliptic holes below the aperture: drains, rows, meshes
    channel_width : 0, or the width of a slot that joins the aperture with the first of the holes
    pin_radius, pin_distance : radius of the metal pin, 0 for none, and how far below the tip it begins
    """

    kind: ClassVar[str] = "polyimide"
    aperture_width: float
    aperture_height: float
    rim_width: float
    thickness: float
    curl_radius: float
    neck_width: float
    neck_depth: float
    stem_width: float
    taper_length: float
    stem_length: float
    holes: tuple[Hole, ...] = ()
    channel_width: float = 0.0
    pin_radius: float = 0.0
    pin_distance: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self, "aperture_width", "aperture_height", "neck_width", "neck_depth", "taper_length")
        _check_film(self)
        check_pin(self)
        _check_channel(self)
        _check_holes(self)

    @property
    def outer_half_width(self) -> float:
        """Greatest |x| of the tip [m], before curling."""
        return self.aperture_width / 2 + self.rim_width

    @property
    def outer_half_height(self) -> float:
        """Greatest z of the film [m]; the tip is taken to end as far below the middle."""
        return self.aperture_height / 2 + self.rim_width

    @property
    def middle(self) -> Vector:
        """Where the aperture has most room: x, y, z [m]."""
        return 0.0, _sagitta(self) / 2, 0.0

    def half_width(self, z: np.ndarray) -> np.ndarray:
        """Half the film's width [m] at heights z [m]: a tip, a waist, and the stem."""
        z = np.asarray(z, dtype=np.float64)
        tip = drop_half_width(z, self.outer_half_width, self.outer_half_height, 0.0)
        waist = smooth_step(-z / self.neck_depth)
        stem = smooth_step((-z - self.neck_depth) / self.taper_length)
        below = self.outer_half_width + (self.neck_width / 2 - self.outer_half_width) * waist
        below = below + (self.stem_width - self.neck_width) / 2 * stem
        return np.where(z < 0, below, tip)

    @property
    def straight_below(self) -> float:
        """Height z [m] below which the stem is a straight strip."""
        return -self.neck_depth - self.taper_length

    def hole_edges(self) -> list[np.ndarray]:
        """Edges of aperture and holes in the flat film: each (n, 2) float64 [m], columns x, z.

        A channel makes one edge of the aperture and the first hole.
        """
        aperture: Hole = (0.0, 0.0, self.aperture_width / 2, self.aperture_height / 2)
        if self.channel_width == 0:
            return [ellipse(*hole, _DENSE) for hole in (aperture, *self.holes)]
        upper = _arc(aperture, self.channel_width / 2, 0.0)
        lower = _arc(self.holes[0], self.channel_width / 2, np.pi)
        # The dense walls of the slot let the edge be sampled evenly.
        down = np.linspace(upper[-1], lower[0], 100)[1:-1]
        up = np.linspace(lower[-1], upper[0], 100)[1:-1]
        edge = np.concatenate([upper, down, lower, up])
        return [edge, *(ellipse(*hole, _DENSE) for hole in self.holes[1:])]


FilmMount = PolymerLoop | PolyimideMount


def _arc(hole: Hole, wall: float, gap: float) -> np.ndarray:
    """A hole's edge, open by ± ``wall`` [m] around x = 0 where the turn is ``gap``: 0 below, π above."""
    x, z, half_width, half_height = hole
    sign = 1 if gap == 0 else -1
    first = gap + math.asin((wall - sign * x) / half_width)
    last = gap + 2 * math.pi - math.asin((wall + sign * x) / half_width)
    turn = np.linspace(first, last, _DENSE)
    return np.c_[x + half_width * np.sin(turn), z - half_height * np.cos(turn)]


def _sagitta(mount: FilmMount) -> float:
    """How far the aperture's sides stand out of the plane y = 0 [m]."""
    return mount.curl_radius * (1 - math.cos(mount.aperture_width / 2 / mount.curl_radius))


def _check_film(mount: FilmMount) -> None:
    check_positive(mount, "rim_width", "thickness", "curl_radius", "stem_width")
    if not mount.curl_radius > mount.thickness:
        raise ConfigError(
            f"mount.curl_radius must be more than the film's thickness {mount.thickness:g} m, "
            f"got {mount.curl_radius:g} m"
        )
    widest = max(mount.outer_half_width, mount.stem_width / 2, mount.neck_width / 2)
    if not widest / mount.curl_radius < _MOST_CURL:
        raise ConfigError(
            f"mount.curl_radius must be at least {widest / _MOST_CURL:.3g} m for a film {2 * widest:g} m wide, "
            f"which would meet itself behind the cylinder, got {mount.curl_radius:g} m"
        )


def _check_channel(mount: PolyimideMount) -> None:
    width = mount.channel_width
    if width == 0:
        return
    if not mount.holes:
        raise ConfigError("mount.channel_width must be 0 without holes: it joins the aperture to the first")
    x, z, half_width, half_height = mount.holes[0]
    most = min(mount.aperture_width, 2 * (half_width - abs(x)))
    if not (math.isfinite(width) and 0 < width < most):
        raise ConfigError(
            f"mount.channel_width must be less than {most:.3g} m, the narrower of aperture and first hole, "
            f"got {width!r}"
        )
    if not z + half_height < -mount.aperture_height / 2:
        raise ConfigError(
            f"mount.holes[0] must lie below the aperture that a channel joins it to, got z = {z:g} m"
        )


def _check_holes(mount: PolyimideMount) -> None:
    """ConfigError where holes meet each other or the edge of the film."""
    aperture: Hole = (0.0, 0.0, mount.aperture_width / 2, mount.aperture_height / 2)
    edges: list[np.ndarray] = []
    for i, hole in enumerate((aperture, *mount.holes)):
        where = "aperture" if i == 0 else f"mount.holes[{i - 1}]"
        if not (all(math.isfinite(value) for value in hole) and hole[2] > 0 and hole[3] > 0):
            raise ConfigError(f"{where} must be finite x, z and positive half width, half height, got {hole}")
        edge = ellipse(*hole, 90)
        if not (np.abs(edge[:, 0]) < mount.half_width(edge[:, 1])).all():
            raise ConfigError(
                f"{where} must lie inside the film, got x, z, half width, half height {hole} [m]"
            )
        if hole[1] - hole[3] <= -mount.outer_half_height - mount.stem_length:
            raise ConfigError(f"{where} must lie above the end of the stem, got z = {hole[1]:g} m")
        for j, other in enumerate(edges):
            if inside(edge, other).any() or inside(other, edge).any():
                raise ConfigError(f"{where} must be clear of hole {j} (0 is the aperture), got {hole} [m]")
        edges.append(edge)
