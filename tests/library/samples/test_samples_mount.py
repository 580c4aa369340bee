"""Mounts: closed meshes of the right volume and genus, open apertures, real sizes, independent draws.

Volumes in m³ lie below pytest.approx's own absolute tolerance of 1e-12, so it is set to 0 throughout.
"""

import json
import math
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.spatial import cKDTree

from tomoforge.errors import ConfigError, InputError
from tomoforge.samples.mount import (
    MOUNTS,
    NylonLoop,
    PolyimideMount,
    PolymerLoop,
    rim_points,
)
from tomoforge.samples.mount_drawing import draw_mount, draw_mount_kind
from tomoforge.samples.mount_mesh import loop_meshes, mount_meshes, pin_meshes
from tomoforge.samples.sweep import tube
from tomoforge.samples.wire_loop import wire_ring, wire_strands

KINDS = tuple(MOUNTS)
SEEDS = range(100)

NYLON = NylonLoop(
    aperture_width=300e-6,
    aperture_height=360e-6,
    wire_radius=10e-6,
    point=0.4,
    bow=20e-6,
    twist_pitch=140e-6,
    stem_length=2.5e-3,
    out_of_round=((0.03, 1.0), (0.02, 2.0)),
    lean=0.1,
    pin_radius=0.32e-3,
    pin_distance=2e-3,
)
POLYMER = PolymerLoop(
    aperture_width=300e-6,
    aperture_height=360e-6,
    rim_width=30e-6,
    thickness=20e-6,
    point=0.3,
    curl_radius=600e-6,
    neck_width=120e-6,
    stem_width=300e-6,
    stem_length=2.5e-3,
    pin_radius=0.32e-3,
    pin_distance=2e-3,
)
DRAIN = (0.0, -230e-6, 45e-6, 70e-6)
POLYIMIDE = PolyimideMount(
    aperture_width=200e-6,
    aperture_height=220e-6,
    rim_width=30e-6,
    thickness=10e-6,
    curl_radius=400e-6,
    neck_width=220e-6,
    neck_depth=260e-6,
    stem_width=500e-6,
    taper_length=800e-6,
    stem_length=2.5e-3,
    holes=(DRAIN,),
    pin_radius=0.32e-3,
    pin_distance=2e-3,
)
ROW = replace(POLYIMIDE, holes=tuple((0.0, -160e-6 - 50e-6 * i, 15e-6, 15e-6) for i in range(4)))
MESH = replace(
    POLYIMIDE,
    holes=tuple((x * 50e-6, -170e-6 - 50e-6 * j, 15e-6, 15e-6) for j in range(3) for x in (-1, 0, 1)),
)
KEYHOLE = replace(POLYIMIDE, channel_width=30e-6)
ALL = {"nylon": NYLON, "polymer": POLYMER, "drain": POLYIMIDE, "row": ROW, "mesh": MESH, "keyhole": KEYHOLE}


def test_mount_meshes__parts_are_closed_and_face_outwards():
    for mount in ALL.values():
        for part in mount_meshes(mount):
            assert part.is_closed()
            assert part.volume > 0


@pytest.mark.parametrize("closed", [True, False])
def test_tube__holds_its_circle_times_its_length(closed):
    # A ring and a helix out of any coordinate plane, with closed forms for their lengths.
    radius, t = 7e-6, np.linspace(0, 2 * np.pi, 200, endpoint=not closed)
    large, rise = 100e-6, 0.0 if closed else 300e-6
    line = np.c_[large * np.cos(t), large * np.sin(t), rise * t / (2 * np.pi)]
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    made = tube(line @ turn.T, radius, closed=closed)
    length = math.hypot(2 * np.pi * large, rise)
    # The polygon has the circle's area; the chords of 200 points lose 2e-4 of it.
    assert made.volume == pytest.approx(np.pi * radius**2 * length, rel=1e-3, abs=0)
    assert made.is_closed()
    assert euler(made) == (0 if closed else 2)


def test_tube__closed_ring_is_not_twisted():
    t = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    # A line that winds twice around a ring: carried along it, the frame comes back turned by over 1 rad.
    wide = 1 + 0.3 * np.cos(2 * t)
    line = np.c_[wide * np.cos(t), wide * np.sin(t), 0.3 * np.sin(2 * t)] * 100e-6
    corners = tube(line, 5e-6, closed=True, sides=16).vertices.reshape(100, 16, 3)
    steps = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=2).max(axis=1)
    # At the seam, corners are no further apart than elsewhere along the line.
    assert steps[-1] < 1.05 * steps[:-1].max()


@pytest.mark.parametrize(
    ("line", "radius"),
    [
        (np.zeros((1, 3)), 1e-6),
        (np.array([[0.0, 0, 0], [0, 0, 0], [0, 0, 1e-3]]), 1e-6),
        (np.array([[0.0, 0, 0], [0, 0, 1e-5], [0, 1e-5, 1e-5]]), 1e-5),
        (np.array([[0.0, 0, 0], [0, 0, 1e-5]]), -1e-6),
    ],
)
def test_tube__refuses_lines_it_cannot_follow(line, radius):
    with pytest.raises(InputError):
        tube(line, radius, closed=False)


def test_mount_meshes__wires_have_their_volume():
    ring, *strands = loop_meshes(NYLON)
    circle = np.pi * NYLON.wire_radius**2
    # Chords of 256 points and of 20 a turn: under half a per cent.
    assert ring.volume == pytest.approx(
        circle * length_of(wire_ring(NYLON, 5000), closed=True), rel=5e-3, abs=0
    )
    coiled = math.hypot(1, 2 * np.pi * NYLON.wire_radius / NYLON.twist_pitch) * NYLON.stem_length
    for strand in strands:
        assert strand.volume == pytest.approx(circle * coiled, rel=1e-2, abs=0)


@pytest.mark.parametrize("name", ["polymer", "drain", "row", "mesh", "keyhole"])
def test_mount_meshes__film_has_its_area_times_its_thickness(name):
    mount = ALL[name]
    (film,) = loop_meshes(mount)
    z = np.linspace(-mount.outer_half_height - mount.stem_length, mount.outer_half_height, 200_001)
    area = 2 * trapezoid(mount.half_width(z), z)
    cut = sum(polygon_area(edge) for edge in mount.hole_edges())
    # Bending keeps the volume of a sheet; chords within 0.15 µm of edges 20 µm and more across remain.
    assert film.volume == pytest.approx((area - cut) * mount.thickness, rel=3e-3, abs=0)


def test_film_edges__areas_are_those_of_ellipses_and_slot():
    aperture = np.pi * POLYIMIDE.aperture_width * POLYIMIDE.aperture_height / 4
    drain = np.pi * DRAIN[2] * DRAIN[3]
    # Of 720 points: an inscribed polygon loses 1e-5 of an ellipse.
    assert sum(polygon_area(e) for e in POLYIMIDE.hole_edges()) == pytest.approx(
        aperture + drain, rel=1e-4, abs=0
    )
    (edge,) = KEYHOLE.hole_edges()
    half = KEYHOLE.channel_width / 2
    top = 110e-6 * math.sqrt(1 - (half / 100e-6) ** 2)
    bottom = DRAIN[1] + DRAIN[3] * math.sqrt(1 - (half / DRAIN[2]) ** 2)
    x = np.linspace(-half, half, 2001)
    slot = trapezoid(ellipse_bottom(x) - drain_top(x), x)
    assert polygon_area(edge) == pytest.approx(aperture + drain + slot, rel=1e-3, abs=0)
    assert edge[:, 1].min() == pytest.approx(DRAIN[1] - DRAIN[3], rel=1e-4, abs=0)
    assert -top > bottom


def test_half_width__passes_through_tip_waist_and_stem():
    z = np.array([POLYIMIDE.outer_half_height, 0.0, -POLYIMIDE.neck_depth, POLYIMIDE.straight_below, -3e-3])
    widths = 2 * POLYIMIDE.half_width(z)
    assert widths == pytest.approx([0.0, 260e-6, 220e-6, 500e-6, 500e-6], rel=1e-12)
    z = np.array([POLYMER.outer_half_height, 2e-3, POLYMER.straight_below, -3e-3])
    assert 2 * POLYMER.half_width(z) == pytest.approx([0.0, 0.0, 300e-6, 300e-6], rel=1e-3)
    # The neck begins in the ring and is nowhere narrower than it says.
    below = np.linspace(-POLYMER.outer_half_height, POLYMER.straight_below, 500)
    assert 2 * POLYMER.half_width(below).min() > 0.999 * POLYMER.neck_width
    assert 2 * POLYMER.half_width(np.linspace(-1e-4, 2e-4, 500)).max() == pytest.approx(360e-6, rel=1e-3)


@pytest.mark.parametrize("name", ["polymer", "drain", "row", "mesh", "keyhole"])
def test_mount_meshes__film_has_as_many_holes_as_edges(name):
    (film,) = loop_meshes(ALL[name])
    # V − E + F = 2 − 2g.
    assert euler(film) == 2 - 2 * len(ALL[name].hole_edges())
    assert len(ALL["mesh"].hole_edges()) == 10
    assert len(ALL["keyhole"].hole_edges()) == 1


def test_mount_meshes__pin_is_a_cylinder_that_holds_the_stems_end():
    for mount in ALL.values():
        (pin,) = pin_meshes(mount)
        axis = pin.vertices[-1] - pin.vertices[-2]
        height = np.linalg.norm(axis)
        assert pin.volume == pytest.approx(np.pi * mount.pin_radius**2 * height, rel=1e-6, abs=0)
        assert euler(pin) == 2
        for part in loop_meshes(mount)[0 if mount is not NYLON else 1 :]:
            low = part.vertices[part.vertices[:, 2] < part.vertices[:, 2].min() + 20e-6]
            along = (low - pin.vertices[-2]) @ axis / height
            away = np.linalg.norm(low - pin.vertices[-2] - along[:, None] * axis / height, axis=1)
            assert (along > 0).all()
            # A film lies on the pin's side; a twisted stem is inside.
            assert away.min() < mount.pin_radius
            if mount is NYLON:
                assert away.max() < mount.pin_radius


@pytest.mark.parametrize("name", list(ALL))
def test_mount_meshes__aperture_is_open_and_as_wide_as_it_says(name):
    mount = ALL[name]
    parts = loop_meshes(mount)
    x, _, z = mount.middle
    assert crossings(parts, 0.0, 0.0) == crossings(parts, x, z) == 0
    # Just below and just above the opening's top, and above the mount. Where the top of a ring out of round
    # lies sideways of the middle, the others' does not.
    row = np.linspace(-0.3, 0.3, 60) * mount.aperture_width
    half = mount.aperture_height / 2
    assert min(crossings(parts, x, 0.99 * half) for x in row) == 0
    assert min(crossings(parts, x, half + 0.5 * (mount.outer_half_height - half)) for x in row[29:31]) == 2
    assert max(crossings(parts, x, 1.01 * mount.outer_half_height) for x in row) == 0


@pytest.mark.parametrize("name", ["drain", "row", "mesh"])
def test_mount_meshes__holes_are_open_and_film_between_them_is_not(name):
    mount = ALL[name]
    parts = loop_meshes(mount)
    for x, z, half_width, half_height in mount.holes:
        placed = mount.curl_radius * math.sin(x / mount.curl_radius)
        assert crossings(parts, placed, z) == 0
        assert crossings(parts, placed, z + 0.97 * half_height) == 0
        # Off the symmetry plane, where no edge of a triangle runs along the ray.
        assert crossings(parts, placed + 0.1 * half_width, z + 1.08 * half_height) == 2
    slot = crossings(loop_meshes(KEYHOLE), 1e-6, -140e-6), crossings(loop_meshes(POLYIMIDE), 1e-6, -140e-6)
    assert slot == (0, 2)


def test_mount_meshes__film_is_as_thick_as_it_says_and_lies_on_its_cylinder():
    (film,) = loop_meshes(POLYIMIDE)
    distance = np.hypot(film.vertices[:, 0], film.vertices[:, 1] - POLYIMIDE.curl_radius)
    offset = np.abs(distance - POLYIMIDE.curl_radius)
    assert offset == pytest.approx(np.full(len(offset), POLYIMIDE.thickness / 2), rel=1e-9, abs=0)


def test_wire_strands__touch_each_other_and_the_ring():
    one, other = wire_strands(NYLON)
    gaps = np.linalg.norm(one - other, axis=1)
    assert gaps == pytest.approx(np.full(len(one), 2 * NYLON.wire_radius), rel=1e-9, abs=0)
    ring = wire_ring(NYLON, 1000)
    assert np.linalg.norm(ring - one[0], axis=1).min() < 1.1 * NYLON.wire_radius
    # The stem leans by its angle, along y.
    stem = (one + other)[-1] - (one + other)[len(one) // 2]
    assert math.atan2(stem[1], -stem[2]) == pytest.approx(NYLON.lean, rel=1e-6, abs=0)


def test_wire_ring__opening_keeps_its_size_whatever_its_shape():
    for shape in ((), ((0.05, 0.3),), ((0.02, 4.0), (0.03, 1.0), (0.02, 0.0))):
        ring = wire_ring(replace(NYLON, out_of_round=shape), 1000)
        assert np.ptp(ring[:, 0]) == pytest.approx(
            NYLON.aperture_width + 2 * NYLON.wire_radius, rel=1e-4, abs=0
        )
        assert np.ptp(ring[:, 2]) == pytest.approx(
            NYLON.aperture_height + 2 * NYLON.wire_radius, rel=1e-4, abs=0
        )


@pytest.mark.parametrize("name", list(ALL))
def test_mount_meshes__reach_ends_the_stem_and_keeps_the_rest(name):
    mount = ALL[name]
    near = mount_meshes(mount, reach=1e-3)
    whole = mount_meshes(mount)
    assert len(near) == len(whole) - 1
    assert all(part.is_closed() for part in near)
    end = -mount.outer_half_height - 1e-3
    lowest = min(part.vertices[:, 2].min() for part in near)
    assert end - 3e-5 < lowest < end + 5e-5
    top = near[0].bounds[1]
    assert top == pytest.approx(whole[0].bounds[1], abs=1e-12)
    with pytest.raises(InputError):
        mount_meshes(mount, reach=0.0)


@pytest.mark.parametrize("name", list(ALL))
def test_rim_points__their_balls_cover_the_mesh_and_leave_the_opening(name):
    mount = ALL[name]
    points, radius = rim_points(mount)
    low = -mount.outer_half_height - 0.9 * mount.aperture_height
    for part in loop_meshes(mount):
        middles = part.vertices[part.triangles].mean(axis=1)
        near = np.concatenate([part.vertices, middles])
        near = near[near[:, 2] > low]
        # The corners of a wire's polygon stand out by 0.6 % of its radius.
        assert nearest(near, points).max() <= 1.006 * radius
    # Room for a body in the middle: all of the half width but the balls and the shape's share.
    half = min(mount.aperture_width, mount.aperture_height) / 2
    assert nearest(np.array([mount.middle]), points)[0] - radius > 0.8 * half


@pytest.mark.parametrize("kind", KINDS)
def test_draw_mount__sizes_are_those_that_are_sold(kind):
    for seed in SEEDS:
        height = math.exp(np.random.default_rng(seed).uniform(math.log(10e-6), math.log(1.5e-3)))
        mount = draw_mount(seed, kind, aperture_height=height)
        assert mount.kind == kind
        assert mount.aperture_height == height
        assert 0.7 < mount.aperture_height / mount.aperture_width < 1.4
        assert 0.31e-3 < mount.pin_radius < 0.33e-3
        assert 1e-3 <= mount.pin_distance <= 6e-3
        assert mount.stem_length > mount.pin_distance
        if isinstance(mount, NylonLoop):
            assert min(abs(mount.wire_radius - r) / r for r in (5e-6, 10e-6)) <= 0.05 + 1e-9
            assert abs(mount.lean) < math.radians(9)
        else:
            low = 10e-6 if kind == "polymer" else 7e-6
            assert low <= mount.thickness <= 25e-6
            assert 12e-6 <= mount.rim_width <= 60e-6
            assert mount.curl_radius > 0.3e-3


@pytest.mark.parametrize("kind", KINDS)
def test_draw_mount__meshes_of_any_size_are_closed(kind):
    for seed, height in enumerate(np.geomspace(10e-6, 1.5e-3, 12)):
        mount = draw_mount(seed, kind, aperture_height=float(height))
        parts = mount_meshes(mount)
        assert all(part.is_closed() and part.volume > 0 for part in parts)
        assert sum(len(part.triangles) for part in parts) < 300_000
        assert crossings(parts, *np.array(mount.middle)[[0, 2]]) == 0
        if kind != "nylon":
            assert euler(parts[0]) == 2 - 2 * len(mount.hole_edges())


@pytest.mark.parametrize("kind", KINDS)
def test_draw_mount__outer_height_and_opening_ask_for_the_same_mount(kind):
    for seed in range(20):
        mount = draw_mount(seed, kind, aperture_height=240e-6)
        again = draw_mount(seed, kind, outer_height=2 * mount.outer_half_height)
        assert again.outer_half_height == pytest.approx(mount.outer_half_height, rel=1e-12, abs=0)
        assert again.aperture_height == pytest.approx(mount.aperture_height, rel=1e-9, abs=0)


def test_draw_mount__same_seed_same_mount_and_parts_are_drawn_apart():
    for kind in KINDS:
        assert draw_mount(4, kind, aperture_height=2e-4) == draw_mount(4, kind, aperture_height=2e-4)
        assert len({str(draw_mount(s, kind, aperture_height=2e-4)) for s in SEEDS}) == len(SEEDS)
        small, large = (draw_mount(9, kind, aperture_height=h) for h in (150e-6, 500e-6))
        for name in ("pin_radius", "pin_distance", "stem_length"):
            assert getattr(small, name) == getattr(large, name)
    assert len({draw_mount(s, "nylon", aperture_height=2e-4).wire_radius for s in SEEDS}) == len(SEEDS)


def test_draw_mount__micro_mounts_come_with_all_kinds_of_holes():
    mounts = [draw_mount(seed, "polyimide", aperture_height=200e-6) for seed in SEEDS]
    assert {min(len(mount.holes), 9) for mount in mounts} >= {0, 1, 2, 3, 9}
    assert 15 < sum(mount.channel_width > 0 for mount in mounts) < 45


def test_draw_mount_kind__gives_each_its_share():
    counts = Counter(draw_mount_kind(seed) for seed in range(1000))
    # Three standard deviations of 1000 draws are 0.046.
    assert {kind: counts[kind] / 1000 for kind in KINDS} == pytest.approx(
        {"nylon": 0.4, "polymer": 0.3, "polyimide": 0.3}, abs=0.046
    )


def test_mounts__fields_are_plain_json():
    for mount in [*ALL.values(), *(draw_mount(s, k, aperture_height=2e-4) for k in KINDS for s in range(5))]:
        plain = asdict(mount)
        assert json.loads(json.dumps(plain)) == json.loads(json.dumps(plain, default=list))
        assert all(type(leaf) in (int, float, str, bool) for leaf in leaves(plain))


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "glass", "aperture_height": 2e-4},
        {"kind": "nylon"},
        {"kind": "nylon", "aperture_height": 2e-4, "outer_height": 3e-4},
        {"kind": "polymer", "aperture_height": 9e-6},
        {"kind": "polyimide", "aperture_height": 1.6e-3},
        {"kind": "polymer", "outer_height": 30e-6},
        {"kind": "nylon", "outer_height": math.nan},
        {"kind": "nylon", "aperture_height": -1e-4},
    ],
)
def test_draw_mount__refuses_what_nobody_sells(arguments):
    with pytest.raises(InputError):
        draw_mount(1, **arguments)


@pytest.mark.parametrize(
    ("mount", "changes"),
    [
        (NYLON, {"wire_radius": 0.0}),
        (NYLON, {"aperture_width": -1e-6}),
        (NYLON, {"point": 1.0}),
        (NYLON, {"bow": 1e-3}),
        (NYLON, {"lean": 1.0}),
        (NYLON, {"out_of_round": ((0.5, 0.0),)}),
        (NYLON, {"stem_length": 1e-3}),
        (NYLON, {"pin_radius": -1e-3}),
        (POLYMER, {"thickness": math.inf}),
        (POLYMER, {"curl_radius": 5e-6}),
        (POLYMER, {"curl_radius": 60e-6}),
        (POLYMER, {"point": -0.1}),
        (POLYIMIDE, {"holes": ((0.0, -100e-6, 30e-6, 30e-6),)}),
        (POLYIMIDE, {"holes": ((100e-6, -300e-6, 30e-6, 30e-6),)}),
        (POLYIMIDE, {"holes": (DRAIN, (0.0, -230e-6, 10e-6, 10e-6))}),
        (POLYIMIDE, {"holes": ((0.0, -300e-6, 30e-6, -30e-6),)}),
        (POLYIMIDE, {"holes": ((0.0, -5e-3, 30e-6, 30e-6),)}),
        (POLYIMIDE, {"channel_width": 95e-6}),
        (POLYIMIDE, {"channel_width": -1e-6}),
        (POLYIMIDE, {"channel_width": 10e-6, "holes": ()}),
        (POLYIMIDE, {"rim_width": 0.0}),
    ],
)
def test_mounts__refuse_fields_that_make_no_mount(mount, changes):
    with pytest.raises(ConfigError, match=r"mount\.|aperture"):
        replace(mount, **changes)


def test_mount_meshes__refuses_a_wire_too_thick_for_its_ring():
    with pytest.raises(InputError, match="bend"):
        mount_meshes(replace(NYLON, point=0.9, out_of_round=(), wire_radius=25e-6))


# --- measures, independent of the meshing -----------------------------------------------------------


def euler(mesh):
    """V − E + F of a closed mesh, all of whose vertices are in use."""
    assert len(np.unique(mesh.triangles)) == len(mesh.vertices)
    return len(mesh.vertices) - len(mesh.triangles) * 3 // 2 + len(mesh.triangles)


def crossings(parts, x, z):
    """How many triangles the line through (x, z) along y meets."""
    count = 0
    for part in parts:
        corner = part.vertices[part.triangles][:, :, [0, 2]] - (x, z)
        sides = [
            corner[:, k, 0] * corner[:, (k + 1) % 3, 1] - corner[:, k, 1] * corner[:, (k + 1) % 3, 0]
            for k in range(3)
        ]
        count += int(((np.array(sides) > 0).all(axis=0) | (np.array(sides) < 0).all(axis=0)).sum())
    return count


def length_of(line, closed):
    ends = np.roll(line, -1, axis=0) if closed else line[1:]
    return float(np.linalg.norm(ends - (line if closed else line[:-1]), axis=1).sum())


def polygon_area(edge):
    x, z = edge.T
    return abs(float((x * np.roll(z, -1) - z * np.roll(x, -1)).sum()) / 2)


def ellipse_bottom(x):
    return -110e-6 * np.sqrt(1 - (x / 100e-6) ** 2)


def drain_top(x):
    return DRAIN[1] + DRAIN[3] * np.sqrt(1 - (x / DRAIN[2]) ** 2)


def nearest(points, others):
    """Distance of each point to the nearest of the others."""
    return cKDTree(others).query(points)[0]


def leaves(plain):
    if isinstance(plain, dict):
        plain = plain.values()
    elif not isinstance(plain, (list, tuple)):
        return [plain]
    return [leaf for value in plain for leaf in leaves(value)]
