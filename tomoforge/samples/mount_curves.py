"""Plane curves of which mounts are made, and checks of their sizes. Lengths in metres."""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from tomoforge.errors import ConfigError, InputError


def ring_curve(half_width: float, half_height: float, point: float, samples: int = 128) -> np.ndarray:
    """A closed drop-shaped curve, pointed towards −z: (samples, 3) float64 [m], x, y = 0, z.

    It starts at the bottom, towards +x. Greatest |x| and |z| are the half width and half height.
    """
    t = np.linspace(0, 2 * np.pi, samples, endpoint=False)
    x = half_width * np.sin(t) * _drop(np.cos(t), point) / _widest(point)
    return np.c_[x, np.zeros(samples), -half_height * np.cos(t)]


def drop_half_width(z: np.ndarray, half_width: float, half_height: float, point: float) -> np.ndarray:
    """|x| [m] of ``ring_curve`` at heights z [m]; 0 beyond its ends."""
    cosine = np.clip(-np.asarray(z) / half_height, -1, 1)
    return half_width * np.sqrt(1 - cosine**2) * _drop(cosine, point) / _widest(point)


def _drop(cosine: np.ndarray, point: float) -> np.ndarray:
    return 1 - point * ((1 + cosine) / 2) ** 2


@lru_cache(maxsize=256)
def _widest(point: float) -> float:
    """Greatest width of the drop that ``point`` makes of a circle of half width 1."""
    t = np.linspace(np.pi / 2, np.pi, 2001)
    return float((np.sin(t) * _drop(np.cos(t), point)).max())


def ellipse(x: float, z: float, half_width: float, half_height: float, samples: int) -> np.ndarray:
    """A closed ellipse around (x, z), counter-clockwise from its bottom: (samples, 2) [m], columns x, z."""
    t = np.linspace(0, 2 * np.pi, samples, endpoint=False)
    return np.c_[x + half_width * np.sin(t), z - half_height * np.cos(t)]


def spaced(line: np.ndarray, spacing: np.ndarray | float, closed: bool) -> np.ndarray:
    """Points along a dense line (n, d), about ``spacing`` [m] apart, which may differ along it: (m, d).

    An open line keeps both its ends, a closed one its first point.
    """
    points = np.concatenate([line, line[:1]]) if closed else line
    step = np.broadcast_to(np.asarray(spacing, dtype=np.float64), len(line))
    step = np.append(step, step[:1]) if closed else step
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    # Counts spacings: one over the spacing, integrated along the line.
    along = np.concatenate([[0.0], np.cumsum(lengths * (1 / step[1:] + 1 / step[:-1]) / 2)])
    count = max(math.ceil(along[-1]), 3 if closed else 1)
    at = np.linspace(0, along[-1], count + 1)[: count if closed else count + 1]
    return np.stack([np.interp(at, along, column) for column in points.T], axis=1)


def smooth_step(ramp: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, in between a cubic without corners."""
    clipped = np.clip(ramp, 0, 1)
    return clipped * clipped * (3 - 2 * clipped)


def inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Which points (n, 2) lie in a closed polygon (m, 2), by the parity of crossings: (n,) bool."""
    found = ((points > polygon.min(axis=0)) & (points < polygon.max(axis=0))).all(axis=1)
    x, z = points[found, :1], points[found, 1:]
    (x0, z0), (x1, z1) = polygon.T, np.roll(polygon, -1, axis=0).T
    rises = np.divide(x1 - x0, z1 - z0, out=np.zeros(len(polygon)), where=z1 != z0)
    crossed = ((z0 <= z) != (z1 <= z)) & (x < x0 + (z - z0) * rises)
    found[found] = crossed.sum(axis=1) % 2 == 1
    return found


def curled(points: np.ndarray, height: float, radius: float) -> np.ndarray:
    """Points of the flat film, at ``height`` [m] above its middle plane, laid on a cylinder.

    points : (n, 3) [m], x, y = 0, z; the cylinder of ``radius`` [m] touches the plane y = 0 at x = 0
        and curls towards +y.
    """
    angle = points[:, 0] / radius
    reach = radius - height
    return np.c_[reach * np.sin(angle), radius - reach * np.cos(angle), points[:, 2]]


def tangents_and_bend(line: np.ndarray, closed: bool) -> tuple[np.ndarray, float]:
    """Unit tangents (n, 3) of a line of points (n, 3) [m], and its sharpest curvature [1/m].

    InputError where neighbouring points are equal.
    """
    steps = (np.roll(line, -1, axis=0) if closed else line[1:]) - (line if closed else line[:-1])
    lengths = np.linalg.norm(steps, axis=1)
    if not lengths.min() > 0:
        raise InputError("line must not repeat a point, got two equal neighbours")
    units = steps / lengths[:, None]
    before, after = (np.roll(units, 1, axis=0), units) if closed else (units[:-1], units[1:])
    sums = before + after
    middle = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    sizes = (np.roll(lengths, 1) + lengths) / 2 if closed else (lengths[:-1] + lengths[1:]) / 2
    bends = 2 * np.tan(np.arccos(np.clip(np.einsum("ij,ij->i", before, after), -1, 1)) / 2) / sizes
    sharpest = float(bends.max()) if bends.size else 0.0
    if closed:
        return middle, sharpest
    if len(middle) == 0:
        return np.repeat(units, 2, axis=0), sharpest
    # The end tangents mirror their neighbours in the last chord, which is exact on an arc.
    ends = [2 * (u @ t) * u - t for u, t in ((units[0], middle[0]), (units[-1], middle[-1]))]
    return np.concatenate([ends[:1], middle, ends[1:]]), sharpest


def check_positive(mount: Any, *names: str) -> None:
    """ConfigError where one of the mount's fields is not a positive, finite number."""
    for name in names:
        value = getattr(mount, name)
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"mount.{name} must be positive, got {value!r}")


def check_point(point: float) -> None:
    """ConfigError where a drop has no opening at its bottom, or none at all."""
    if not 0 <= point <= 0.9:
        raise ConfigError(f"mount.point must lie in 0…0.9, got {point!r}")


def check_pin(mount: Any) -> None:
    """ConfigError where the stem does not reach into the pin."""
    check_positive(mount, "stem_length")
    if mount.pin_radius == 0:
        return
    check_positive(mount, "pin_radius", "pin_distance")
    if not mount.stem_length > mount.pin_distance:
        raise ConfigError(
            f"mount.stem_length must be more than pin_distance {mount.pin_distance:g} m, so that the stem "
            f"ends inside the pin, got {mount.stem_length:g} m; set pin_radius to 0 for a mount without pin"
        )
