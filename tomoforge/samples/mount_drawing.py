"""Draw mounts of the dimensions that are sold.

All ranges are typical ones, not copied from one catalogue. Known by their products are: nylon wire of 10
and 20 µm with openings of 0.05–1 mm (Hampton Research CryoLoop); polyimide films of about 10 µm with openings
of 10 µm–1 mm (MiTeGen MicroMounts, MicroLoops; the idea with its drain channels: Thorne et al., J. Appl.
Cryst. 36 (2003) 1455); polyester of about 20 µm (Molecular Dimensions LithoLoops); steel pins of 0.64 mm
outer diameter. Rims, necks, curls, bows and twists are judged from how such mounts look.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tomoforge.errors import InputError
from tomoforge.samples.film_mount import Hole, PolyimideMount, PolymerLoop
from tomoforge.samples.mount import MOUNTS, Mount
from tomoforge.samples.mount_curves import tangents_and_bend
from tomoforge.samples.wire_loop import NylonLoop, wire_ring
from tomoforge.seeds import component_rng

# Openings of all mounts that are sold, with some room above [m].
APERTURES = (10e-6, 1.5e-3)
_KIND_SHARES = {NylonLoop.kind: 0.4, PolymerLoop.kind: 0.3, PolyimideMount.kind: 0.3}

_WIRE_RADII = (5e-6, 10e-6)
_WIRE_TOLERANCE = 0.05
# Smaller openings are not made of the thicker wire.
_THICK_WIRE_FROM = 100e-6
# The ring's sharpest bend is at least on this many wire radii: nylon does not kink.
_LEAST_BEND = 1.3
_PIN_RADII = (0.315e-3, 0.325e-3)
# How far the ring stands above the pin, and how deep the stem is glued into it.
_PIN_DISTANCES = {"nylon": (1.5e-3, 6e-3), "polymer": (1e-3, 4e-3), "polyimide": (1e-3, 3e-3)}
_STEM_IN_PIN = (0.3e-3, 0.8e-3)
# Rims of films: a share of the opening's height, within limits.
_RIM_SHARES = {"polymer": (0.08, 0.22), "polyimide": (0.10, 0.30)}
_RIM_LIMITS = (12e-6, 60e-6)
# Holes smaller than this are not made [m], radius; nor bridges of film narrower than this.
_LEAST_HOLE, _LEAST_BRIDGE = 3e-6, 6e-6
_HOLE_STYLES = {"none": 0.15, "drain": 0.25, "channel": 0.30, "row": 0.15, "mesh": 0.15}


def draw_mount_kind(seed: int) -> str:
    """'nylon', 'polymer' or 'polyimide'."""
    return _chosen(seed, "mount.kind", _KIND_SHARES)


def draw_mount(
    seed: int, kind: str, *, outer_height: float | None = None, aperture_height: float | None = None
) -> Mount:
    """Draw a mount of a given size; each of its parts draws from a generator of its own.

    Parameters
    ----------
    seed : non-negative int
    kind : 'nylon', 'polymer' or 'polyimide'
    outer_height, aperture_height : exactly one [m]: twice the mount's ``outer_half_height``, or the clear
        opening along z

    Raises
    ------
    InputError
        for an unknown kind, none or both of the sizes, or one that leaves an opening outside 10 µm–1.5 mm,
        which nobody sells.
    """
    if kind not in MOUNTS:
        raise InputError(f"kind must be one of {', '.join(MOUNTS)}, got {kind!r}")
    given = [size for size in (outer_height, aperture_height) if size is not None]
    if len(given) != 1:
        raise InputError(f"give exactly one of outer_height and aperture_height, got {len(given)} of them")
    if not (math.isfinite(given[0]) and given[0] > 0):
        raise InputError(f"the mount's height must be positive metres, got {given[0]!r}")
    return _DRAW[kind](seed, given[0], outer_height is not None)


def _nylon(seed: int, height: float, outer: bool) -> NylonLoop:
    wire = component_rng(seed, "mount.wire")
    thick, tolerance = wire.random() < 0.5, 1 + wire.uniform(-_WIRE_TOLERANCE, _WIRE_TOLERANCE)
    radius = _WIRE_RADII[int(thick)] * tolerance
    # A ring's outer half height is two wire radii more than the opening's.
    if height - 4 * radius * outer < _THICK_WIRE_FROM:
        radius = _WIRE_RADII[0] * tolerance
    height = _checked(height - 4 * radius * outer)
    width = height / _uniform(seed, "mount.elongation", 1.0, 1.35)
    shape = component_rng(seed, "mount.shape")
    harmonics = tuple(
        (float(shape.uniform(0, most)), float(shape.uniform(0, 2 * math.pi))) for most in (0.04, 0.025, 0.012)
    )
    stem, pin_radius, pin_distance = _draw_pin(seed, "nylon")

    def loop(calm: float) -> NylonLoop:
        """The ring with its point and harmonics lessened to the share ``calm``."""
        return NylonLoop(
            aperture_width=width,
            aperture_height=height,
            wire_radius=radius,
            point=calm * _uniform(seed, "mount.point", 0.1, 0.6),
            bow=_uniform(seed, "mount.bow", -0.1, 0.1) * width,
            twist_pitch=radius * _uniform(seed, "mount.twist", 10, 18),
            stem_length=stem,
            out_of_round=tuple((calm * amplitude, phase) for amplitude, phase in harmonics),
            lean=float(np.clip(component_rng(seed, "mount.lean").normal(0, math.radians(3)), -0.15, 0.15)),
            pin_radius=pin_radius,
            pin_distance=pin_distance,
        )

    for calm in (1.0, 0.8, 0.6, 0.4, 0.2):
        drawn = loop(calm)
        if tangents_and_bend(wire_ring(drawn, 512), closed=True)[1] * _LEAST_BEND * radius < 1:
            return drawn
    return loop(0.0)


def _polymer(seed: int, height: float, outer: bool) -> PolymerLoop:
    height, rim = _film_size(seed, "polymer", height, outer)
    width = height / _uniform(seed, "mount.elongation", 1.0, 1.35)
    outer_width = width + 2 * rim
    neck = outer_width * _uniform(seed, "mount.neck", 0.3, 0.55)
    stem, pin_radius, pin_distance = _draw_pin(seed, "polymer")
    return PolymerLoop(
        aperture_width=width,
        aperture_height=height,
        rim_width=rim,
        thickness=_uniform(seed, "mount.thickness", 10e-6, 25e-6),
        point=_uniform(seed, "mount.point", 0.1, 0.45),
        # From nearly flat to curled like the pin; wide loops curl less.
        curl_radius=_log_uniform(seed, "mount.curl", max(0.5e-3, outer_width), max(4e-3, 4 * outer_width)),
        neck_width=neck,
        stem_width=max(neck, _uniform(seed, "mount.stem", 0.2e-3, 0.6e-3)),
        stem_length=stem,
        pin_radius=pin_radius,
        pin_distance=pin_distance,
        taper_length=_uniform(seed, "mount.taper", 0.4e-3, 1.0e-3),
    )


def _polyimide(seed: int, height: float, outer: bool) -> PolyimideMount:
    height, rim = _film_size(seed, "polyimide", height, outer)
    elongation = component_rng(seed, "mount.elongation")
    width = height if elongation.random() < 0.5 else height / elongation.uniform(0.85, 1.3)
    thickness = component_rng(seed, "mount.thickness")
    usual = thickness.random() < 0.7
    half_outer = width / 2 + rim
    stem, pin_radius, pin_distance = _draw_pin(seed, "polyimide")
    stem_width = _uniform(seed, "mount.stem", 0.4e-3, 0.7e-3)
    plain = PolyimideMount(
        aperture_width=width,
        aperture_height=height,
        rim_width=rim,
        thickness=float(thickness.uniform(9e-6, 11e-6) if usual else thickness.uniform(7e-6, 25e-6)),
        # The film is bent around the pin; its tip opens up.
        curl_radius=max(_uniform(seed, "mount.curl", 0.33e-3, 1.2e-3), half_outer, 0.8 * stem_width),
        neck_width=2 * half_outer * _uniform(seed, "mount.neck", 0.75, 0.98),
        neck_depth=(height / 2 + rim) * _uniform(seed, "mount.neck_depth", 1.6, 2.4),
        stem_width=stem_width,
        taper_length=_uniform(seed, "mount.taper", 0.5e-3, 1.0e-3),
        stem_length=stem,
        pin_radius=pin_radius,
        pin_distance=pin_distance,
    )
    holes, channel = _draw_holes(seed, plain)
    return replace(plain, holes=holes, channel_width=channel)


def _draw_holes(seed: int, mount: PolyimideMount) -> tuple[tuple[Hole, ...], float]:
    """Holes below the aperture and the width of a channel, by one of the styles that are sold."""
    style = _chosen(seed, "mount.holes", _HOLE_STYLES)
    rng = component_rng(seed, "mount.holes", 1)
    top = -mount.aperture_height / 2 - max(_LEAST_BRIDGE, mount.rim_width * rng.uniform(0.8, 1.8))
    room = _room(mount, top, mount.neck_width)
    holes: tuple[Hole, ...] = ()
    channel = 0.0
    if style in ("drain", "channel"):
        half_width, aspect = room * rng.uniform(0.35, 0.75), rng.uniform(1.0, 2.2)
        half_width = min(half_width, _room(mount, top, 2 * half_width * aspect))
        holes = ((0.0, top - half_width * aspect, half_width, half_width * aspect),)
        if style == "channel":
            channel = rng.uniform(0.2, 0.45) * min(mount.aperture_width, 2 * half_width)
    elif style == "row":
        radius, gap = room * rng.uniform(0.2, 0.5), rng.uniform(0.5, 1.2)
        pitch = 2 * radius + max(_LEAST_BRIDGE, gap * radius)
        holes = tuple((0.0, top - radius - i * pitch, radius, radius) for i in range(int(rng.integers(2, 5))))
    elif style == "mesh":
        columns, rows = int(rng.integers(3, 6)), int(rng.integers(3, 6))
        pitch = 2 * room / columns
        radius = min(pitch * rng.uniform(0.25, 0.36), (pitch - _LEAST_BRIDGE) / 2)
        holes = tuple(
            ((i - (columns - 1) / 2) * pitch, top - radius - j * pitch, radius, radius)
            for j in range(rows)
            for i in range(columns)
        )
    if not all(_fits(mount, hole) for hole in holes):
        return (), 0.0
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in holes), float(channel)


def _room(mount: PolyimideMount, top: float, height: float) -> float:
    """Half the width that holes may take between ``top`` and ``height`` [m] below it."""
    narrowest = float(mount.half_width(np.linspace(top, top - height, 50)).min())
    return narrowest - max(_LEAST_BRIDGE, 0.15 * narrowest)


def _fits(mount: PolyimideMount, hole: Hole) -> bool:
    """Whether a hole is of a size that is made, and leaves a bridge of film at its sides."""
    x, z, half_width, half_height = hole
    if (
        min(half_width, half_height) < _LEAST_HOLE
        or z - half_height < -mount.outer_half_height - mount.pin_distance
    ):
        return False
    t = np.linspace(-1, 1, 50)
    across = np.abs(x) + half_width * np.sqrt(1 - t**2)
    return bool((mount.half_width(z + half_height * t) - across >= _LEAST_BRIDGE).all())


def _film_size(seed: int, kind: str, height: float, outer: bool) -> tuple[float, float]:
    """Height of the opening and width of the rim [m]; the rim is a share of the height, within limits."""
    share = _uniform(seed, "mount.rim", *_RIM_SHARES[kind])
    low, high = _RIM_LIMITS
    if outer:
        # The outer height grows with the opening, so the rim's share or one of its limits holds.
        free = share * height / (1 + 2 * share)
        height -= 2 * min(max(free, low), high)
    height = _checked(height)
    return height, min(max(share * height, low), high)


def _checked(height: float) -> float:
    if not APERTURES[0] <= height <= APERTURES[1]:
        raise InputError(
            f"the mount's opening must be {APERTURES[0] * 1e6:g} to {APERTURES[1] * 1e6:g} µm high, as they are "
            f"sold, got {height * 1e6:.4g} µm; choose another crystal size or field"
        )
    return float(height)


def _draw_pin(seed: int, kind: str) -> tuple[float, float, float]:
    """Length of the stem, radius of the pin, and how far below the ring it begins [m]."""
    rng = component_rng(seed, "mount.pin")
    radius, distance, inside = (
        float(rng.uniform(*limits)) for limits in (_PIN_RADII, _PIN_DISTANCES[kind], _STEM_IN_PIN)
    )
    return distance + inside, radius, distance


def _chosen(seed: int, component: str, shares: dict[str, float]) -> str:
    names = list(shares)
    return names[int(component_rng(seed, component).choice(len(names), p=list(shares.values())))]


def _uniform(seed: int, component: str, low: float, high: float) -> float:
    return float(component_rng(seed, component).uniform(low, high))


def _log_uniform(seed: int, component: str, low: float, high: float) -> float:
    return math.exp(_uniform(seed, component, math.log(low), math.log(high)))


_DRAW: dict[str, Callable[[int, float, bool], Mount]] = {
    NylonLoop.kind: _nylon,
    PolymerLoop.kind: _polymer,
    PolyimideMount.kind: _polyimide,
}
