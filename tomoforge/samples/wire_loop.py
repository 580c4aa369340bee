"""Nylon loops: a ring of round wire, and the stem of its two ends twisted around each other."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tomoforge.errors import ConfigError
from tomoforge.samples.mount_curves import check_pin, check_point, check_positive, ring_curve

Vector = tuple[float, float, float]

# Greatest sum of the amplitudes of the ring's harmonics: beyond it the ring is no loop any more.
_MOST_OUT_OF_ROUND = 0.3
_MOST_LEAN = math.pi / 4
# Where the stem leans, it bends over this many wire radii below the ring.
_BEND_RADII = 20.0
# Points a turn of the twisted strands: 20 keep chords within 0.13 µm of a strand of 10 µm radius,
# a quarter of the finest voxels. Far below the ring, where no field reaches, fewer do.
_TURN_POINTS, _FAR_TURN_POINTS = 20, 10
_FAR = 2e-3


@dataclass(frozen=True)
class NylonLoop:
    """A loop of round wire. Lengths in metres.

    aperture_width, aperture_height : clear opening along x and z
    wire_radius : radius of the wire
    point : 0 for an ellipse, towards 1 the ring narrows at the neck
    bow : how far the middle of the ring stands out of its plane, along y
    twist_pitch : length of one turn of the two strands
    stem_length : from the bottom of the ring downwards, along the stem
    out_of_round : amplitude (share of the radius) and phase [rad] of the shape's 2nd, 3rd, … harmonic
    lean : angle between the loop's plane and its stem [rad]
    pin_radius, pin_distance : radius of the metal pin, 0 for none, and how far below the ring it begins
    """

    kind: ClassVar[str] = "nylon"
    aperture_width: float
    aperture_height: float
    wire_radius: float
    point: float
    bow: float
    twist_pitch: float
    stem_length: float
    out_of_round: tuple[tuple[float, float], ...] = ()
    lean: float = 0.0
    pin_radius: float = 0.0
    pin_distance: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self, "aperture_width", "aperture_height", "wire_radius", "twist_pitch")
        check_point(self.point)
        check_pin(self)
        if not sum(abs(amplitude) for amplitude, _ in self.out_of_round) <= _MOST_OUT_OF_ROUND:
            raise ConfigError(
                f"mount.out_of_round must have amplitudes that sum up to at most {_MOST_OUT_OF_ROUND}, "
                f"got {self.out_of_round}"
            )
        if not abs(self.lean) <= _MOST_LEAN:
            raise ConfigError(f"mount.lean must lie within ±π/4 radians, got {self.lean!r}")
        if not abs(self.bow) <= self.aperture_height:
            raise ConfigError(
                f"mount.bow must not exceed the aperture's height {self.aperture_height:g} m, got {self.bow!r}"
            )

    @property
    def outer_half_width(self) -> float:
        """Greatest |x| of the ring [m]."""
        return self.aperture_width / 2 + 2 * self.wire_radius

    @property
    def outer_half_height(self) -> float:
        """Greatest |z| of the ring [m]."""
        return self.aperture_height / 2 + 2 * self.wire_radius

    @property
    def middle(self) -> Vector:
        """Where the aperture has most room: x, y, z [m]. A drop is roomiest above its middle."""
        return 0.0, self.bow / 2, 0.1 * self.point * self.aperture_height


def wire_ring(loop: NylonLoop, samples: int = 128) -> np.ndarray:
    """Centre line of the wire's ring, closed: (samples, 3) float64 [m], x, y, z."""
    half_width = loop.aperture_width / 2 + loop.wire_radius
    half_height = loop.aperture_height / 2 + loop.wire_radius
    curve = ring_curve(half_width, half_height, loop.point, samples)
    if loop.out_of_round:
        t = np.linspace(0, 2 * np.pi, samples, endpoint=False)
        factor = np.ones(samples)
        for order, (amplitude, phase) in enumerate(loop.out_of_round, start=2):
            factor += amplitude * np.cos(order * t + phase)
        # The opening keeps its size, whatever the shape.
        curve[:, 0] = _scaled(curve[:, 0] * factor, half_width)
        curve[:, 2] = _scaled(curve[:, 2] * factor, half_height)
    # Out of plane most in the middle, with no slope where the ring meets the stem.
    curve[:, 1] = loop.bow * (1 + np.cos(np.pi * curve[:, 2] / half_height)) / 2
    return curve


def wire_strands(loop: NylonLoop, reach: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Centre lines of the two strands of the stem, which touch each other: two of (n, 3) [m].

    ``reach`` [m] ends them so far below the ring's bottom, if the stem does not end before.
    """
    length = loop.stem_length if reach is None else min(loop.stem_length, reach)
    step = loop.twist_pitch / _TURN_POINTS
    near = np.arange(0.0, min(length, _FAR), step)
    far = np.arange(_FAR, length, loop.twist_pitch / _FAR_TURN_POINTS)
    # No piece much shorter than the others at the end: its direction would be rounding.
    s = np.concatenate([near, far])
    s = np.append(s[(s == 0) | (s < length - step / 2)], length)
    angle = 2 * np.pi * s / loop.twist_pitch
    axis, across, out = stem_frame(loop, s)

    def strand(phase: float) -> np.ndarray:
        turned = (angle + phase)[:, None]
        return axis + loop.wire_radius * (np.cos(turned) * across + np.sin(turned) * out)

    return strand(0.0), strand(np.pi)


def stem_frame(loop: NylonLoop, s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The stem's axis at lengths s [m] below the ring, and two unit vectors across it: (n, 3) each.

    The axis leaves the bottom of the ring in the loop's plane, bends along an arc, and runs straight.
    """
    ring = wire_ring(loop, 720)
    bottom = ring[np.argmin(ring[:, 2])]
    bend = _BEND_RADII * loop.wire_radius
    arc, rest = np.minimum(s, bend), np.maximum(s - bend, 0.0)
    angle = loop.lean * arc / bend
    # np.sinc(x) = sin(πx)/(πx): chord of the arc and its direction, without a division by no lean.
    chord = arc * np.sinc(angle / (2 * np.pi))
    y = chord * np.sin(angle / 2) + rest * np.sin(angle)
    z = -chord * np.cos(angle / 2) - rest * np.cos(angle)
    zero = np.zeros_like(s)
    across = np.c_[np.ones_like(s), zero, zero]
    return bottom + np.c_[zero, y, z], across, np.c_[zero, np.cos(angle), np.sin(angle)]


def _scaled(values: np.ndarray, half_range: float) -> np.ndarray:
    """Shifted and stretched to lie between ± ``half_range``."""
    low, high = values.min(), values.max()
    return (values - (low + high) / 2) * (2 * half_range / (high - low))
