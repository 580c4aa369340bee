"""How real crystals deviate from their polyhedron: uneven growth, rounding, chips, satellites,
intergrowths, cracks, dissolution.

A varied crystal is a union of closed solids less a union of closed voids. Each flaw draws from
generators of its own, placed by the undisturbed polyhedron: switching one off shifts no other draw.
All in the frame of the polyhedron, whose origin and orientation stay.

References: J. W. Mullin, Crystallization, 4th ed. (2001), ch. 6 (growth-rate dispersion); R. Schneider,
Convex Bodies, 2nd ed. (2014), ch. 4 (the rounded solid is a parallel body; Steiner's formula).
"""

import math
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
from scipy.spatial import ConvexHull, cKDTree
from scipy.spatial.transform import Rotation

from tomoforge.errors import ConfigError, InputError
from tomoforge.samples.crystal import Polyhedron, polyhedron_from_planes
from tomoforge.samples.mesh import TriangleMesh
from tomoforge.seeds import component_rng

# Rounding is drawn as planes of the sphere this far apart: the chord is then 0.1 % of the radius away.
_ARC = math.radians(8.0)
# Of the inscribed sphere's radius: what rounding may take before nothing flat is left.
_MOST_ROUNDING = 0.6
# Of the inscribed sphere's radius: what full dissolution adds to the rounding.
_DISSOLVED_RADIUS = 0.45
_PITS = 20
_CRACK_SECTIONS = 24


@dataclass(frozen=True)
class CrystalVariation:
    """The flaws of a crystal; 0 switches one off.

    face_jitter : relative spread (σ) of the distance of each single face from the origin, 0–0.3; it
        breaks the symmetry
    rounding : radius of rounded edges and corners, of the crystal's diameter, 0–0.3; at most 0.6 of the
        inscribed sphere's radius is taken, so that the faces of plates and needles stay
    chips : corners knocked off, by a flat or a conchoidal fracture
    satellites : small crystals of the same habit grown on faces, turned at random
    intergrowths : large second individuals that interpenetrate the first
    cracks : thin wedges that reach part of the way in; crack_width : of their mouths [m]
    dissolution : 0–1, rounds further and etches up to 20 pits into the faces
    """

    face_jitter: float = 0.0
    rounding: float = 0.0
    chips: int = 0
    satellites: int = 0
    intergrowths: int = 0
    cracks: int = 0
    crack_width: float = 0.0
    dissolution: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (("face_jitter", 0.3), ("rounding", 0.3), ("dissolution", 1.0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= most):
                raise ConfigError(f"{name} must lie in 0…{most:g}, got {value!r}")
        for name in ("chips", "satellites", "intergrowths", "cracks"):
            count = getattr(self, name)
            if isinstance(count, bool) or count != int(count) or not 0 <= count <= 50:
                raise ConfigError(f"{name} must be a whole number 0…50, got {count!r}")
        if not (math.isfinite(self.crack_width) and self.crack_width >= 0):
            raise ConfigError(f"crack_width must be metres ≥ 0, got {self.crack_width!r}")
        if self.cracks and self.crack_width == 0:
            raise ConfigError("crack_width must be positive where there are cracks, got 0")

    def flaws(self) -> tuple[str, ...]:
        """Names of the flaws that are switched on."""
        names = (field.name for field in fields(self) if field.name != "crack_width")
        return tuple(name for name in names if getattr(self, name) > 0)


@dataclass(frozen=True, eq=False)
class CrystalBody:
    """A varied crystal: all points inside any of ``solids`` and outside all of ``voids``.

    solids : closed meshes, facing outwards, the host first; the others overlap it
    voids : closed meshes, facing outwards from the void, partly outside the solids
    """

    solids: tuple[TriangleMesh, ...]
    voids: tuple[TriangleMesh, ...]

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest corner of the solids (3,) [m], x, y, z."""
        corners = np.concatenate([mesh.vertices for mesh in self.solids])
        return corners.min(axis=0), corners.max(axis=0)

    def moved(self, rotation: np.ndarray, translation: np.ndarray) -> "CrystalBody":
        """All of it turned by ``rotation`` (3, 3), then shifted by ``translation`` (3,) [m]."""
        return CrystalBody(
            tuple(mesh.moved(rotation, translation) for mesh in self.solids),
            tuple(mesh.moved(rotation, translation) for mesh in self.voids),
        )


def draw_variation(seed: int, crystal_size: float) -> CrystalVariation:
    """Flaws as they are met: growth-rate dispersion nearly always, rounded edges often, half of the
    crystals without any further flaw, the others with one or two.

    Parameters
    ----------
    seed : non-negative int; each flaw draws from a generator of its own
    crystal_size : greatest extent [m]; the width of cracks goes with it
    """
    if not (math.isfinite(crystal_size) and crystal_size > 0):
        raise InputError(f"crystal_size must be positive metres, got {crystal_size!r}")

    def drawn(flaw: str, probability: float, least: float, most: float) -> float:
        """0 or, with the given probability, a value between the limits, uniform in its logarithm."""
        rng = component_rng(seed, f"variation.{flaw}")
        present = rng.random() < probability
        return math.exp(rng.uniform(math.log(least), math.log(most))) if present else 0.0

    # A count is the whole part, so that (1, 4) gives 1, 2 or 3, small numbers most often.
    cracks = int(drawn("cracks", 0.15, 1.0, 4.0))
    width = crystal_size * drawn("crack_width", 1.0, 0.006, 0.02)
    return CrystalVariation(
        face_jitter=drawn("face_jitter", 0.85, 0.02, 0.12),
        rounding=drawn("rounding", 0.45, 0.005, 0.05),
        chips=int(drawn("chips", 0.20, 1.0, 4.0)),
        satellites=int(drawn("satellites", 0.12, 1.0, 5.0)),
        intergrowths=int(drawn("intergrowths", 0.07, 1.0, 2.4)),
        cracks=cracks,
        crack_width=width if cracks else 0.0,
        dissolution=drawn("dissolution", 0.08, 0.15, 0.8),
    )


def vary_crystal(solid: Polyhedron, variation: CrystalVariation, seed: int) -> CrystalBody:
    """``solid`` with the flaws of ``variation``.

    Parameters
    ----------
    solid : the ideal polyhedron [m], its origin inside; its greatest extent is kept, except that
        intergrowths and satellites stand out, chips and dissolution take away
    variation : with all flaws 0 the body is ``solid.mesh()`` and nothing else
    seed : of the flaws' places and shapes; the same seed gives the same bytes

    Returns
    -------
    CrystalBody; cracks never cut the crystal in two.

    Raises
    ------
    InputError
        where ``crack_width`` exceeds a tenth of the crystal's diameter.
    """
    diameter = solid.diameter
    if variation.cracks and variation.crack_width > 0.1 * diameter:
        raise InputError(
            f"crack_width must be at most a tenth of the crystal's diameter {diameter:g} m, got "
            f"{variation.crack_width:g} m"
        )
    host = _jittered(solid, variation.face_jitter, component_rng(seed, "crystal.face_jitter"))
    scoops: list[TriangleMesh] = []
    if variation.chips:
        host, scoops = _chipped(solid, host, variation.chips, seed)
    host_mesh = _rounded(host, variation)
    surface = _Surface(solid, host_mesh)
    individuals = [_intergrowth(solid, surface, variation, seed, i) for i in range(variation.intergrowths)]
    grown = [_satellite(solid, surface, variation, seed, i) for i in range(variation.satellites)]
    cracks = [_crack(surface, variation, seed, i) for i in range(variation.cracks)]
    pits = [_pit(surface, seed, i) for i in range(math.ceil(_PITS * variation.dissolution))]
    return CrystalBody((host_mesh, *individuals, *grown), (*scoops, *cracks, *pits))


class _Surface:
    """The host's convex surface, met by rays that are drawn on the undisturbed polyhedron."""

    def __init__(self, solid: Polyhedron, mesh: TriangleMesh) -> None:
        self.solid = solid
        self.centre, self.radius = _inscribed_sphere(solid)
        areas = np.array([_area(solid.vertices[list(face)]) for face in solid.faces])
        self.shares = areas / areas.sum()
        corners = mesh.vertices[mesh.triangles]
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        area = np.linalg.norm(across, axis=1)
        flat = area > 1e-12 * solid.diameter**2
        self.normals = across[flat] / area[flat, None]
        self.distances = np.einsum("ij,ij->i", self.normals, corners[flat, 0])

    def hit(self, origin: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the ray from a point inside leaves the host, and the normal there: (3,), (3,)."""
        towards = self.normals @ direction
        room = np.maximum(self.distances - self.normals @ origin, 0.0)
        reach = np.full(len(room), np.inf)
        np.divide(room, towards, out=reach, where=towards > 1e-12)
        first = int(reach.argmin())
        return origin + reach[first] * direction, self.normals[first]

    def drawn_point(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
        """A point on a face, away from its edges: point (3,), normal (3,), index of the face."""
        face = int(rng.choice(len(self.shares), p=self.shares))
        polygon = self.solid.vertices[list(self.solid.faces[face])]
        weights = rng.dirichlet(np.ones(len(polygon)))
        middle = polygon.mean(axis=0)
        aim = middle + 0.8 * (weights @ polygon - middle) - self.centre
        point, normal = self.hit(self.centre, aim / np.linalg.norm(aim))
        return point, normal, face


# --- growth and loss of the single solid --------------------------------------------------------------


def _jittered(solid: Polyhedron, spread: float, rng: np.random.Generator) -> Polyhedron:
    """Each face at a distance of its own, the diameter kept."""
    if spread == 0:
        return solid
    factors = np.exp(spread * np.clip(rng.normal(size=len(solid.faces)), -2.0, 2.0))
    uneven = polyhedron_from_planes(solid.normals, solid.distances * factors, solid.miller)
    return uneven.scaled(solid.diameter / uneven.diameter)


def _chipped(
    solid: Polyhedron, host: Polyhedron, count: int, seed: int
) -> tuple[Polyhedron, list[TriangleMesh]]:
    """Corners knocked off: flat fractures cut the host, conchoidal ones are voids."""
    corners = component_rng(seed, "crystal.chips").permutation(len(solid.vertices))[:count]
    planes, scoops = [], []
    for i, corner in enumerate(corners):
        rng = component_rng(seed, "crystal.chips", i)
        meeting = [n for n, face in zip(solid.normals, solid.faces, strict=True) if corner in face]
        # Inside the corner's cone of normals, so that the cut leaves every edge of the corner.
        outwards = rng.dirichlet(np.full(len(meeting), 3.0)) @ np.array(meeting)
        outwards /= np.linalg.norm(outwards)
        heights = host.vertices @ outwards
        depth = rng.uniform(0.04, 0.13) * np.ptp(heights)
        conchoidal, curvature = rng.random() < 0.5, rng.uniform(4.0, 9.0)
        if conchoidal:
            radius = curvature * depth
            top = host.vertices[heights.argmax()]
            scoops.append(_sphere(top + (radius - depth) * outwards, radius))
        else:
            planes.append((outwards, heights.max() - depth))
    if planes:
        # About the centre of volume, which no such cut reaches; the origin may be close to a face.
        centre, _ = _inscribed_sphere(host)
        normals = np.concatenate([host.normals, [n for n, _ in planes]])
        distances = np.concatenate([host.distances, [d for _, d in planes]]) - normals @ centre
        cut = polyhedron_from_planes(normals, distances, (*host.miller, *[(0, 0, 0)] * len(planes)))
        host = replace(cut, vertices=cut.vertices + centre)
    return host, scoops


def _rounded(solid: Polyhedron, variation: CrystalVariation) -> TriangleMesh:
    """The solid moved inwards by r, then swept by a sphere of radius r: faces stay, edges become
    cylinders, corners spheres."""
    if variation.rounding == 0 and variation.dissolution == 0:
        return solid.mesh()
    centre, inscribed = _inscribed_sphere(solid)
    radius = variation.rounding * solid.diameter + _DISSOLVED_RADIUS * variation.dissolution * inscribed
    radius = min(radius, _MOST_ROUNDING * inscribed)
    distances = solid.distances - solid.normals @ centre
    core = polyhedron_from_planes(solid.normals, distances - radius)
    return _hull(_swept_points(core, radius) + centre)


def _swept_points(core: Polyhedron, radius: float) -> np.ndarray:
    """Points (p, 3) [m] of the surface of core ⊕ sphere: corners of the faces, lines along the
    edges, and a net over the corners; their hull is inscribed in it."""
    points = []
    of_edge = {edge: face for face, ring in enumerate(core.faces) for edge in pairwise((*ring, ring[0]))}
    for normal, ring in zip(core.normals, core.faces, strict=True):
        points.append(core.vertices[list(ring)] + radius * normal)
    for (a, b), face in of_edge.items():
        if a > b:
            continue
        first, second = core.normals[face], core.normals[of_edge[b, a]]
        angle = math.acos(min(1.0, max(-1.0, float(first @ second))))
        steps = max(1, math.ceil(angle / _ARC))
        for step in range(1, steps):
            t = step / steps
            arc = (math.sin((1 - t) * angle) * first + math.sin(t * angle) * second) / math.sin(angle)
            points.append(core.vertices[[a, b]] + radius * arc)
    net = _sphere_net()
    nearest = (net @ core.vertices.T).argmax(axis=1)
    # Net points next to an arc would make slivers between them.
    arcs = np.concatenate(points)
    body = core.vertices[nearest] + radius * net
    apart, _ = cKDTree(arcs).query(body)
    return np.concatenate([arcs, body[apart > 0.4 * _ARC * radius]])


# --- other individuals --------------------------------------------------------------------------------


def _intergrowth(
    solid: Polyhedron, surface: _Surface, variation: CrystalVariation, seed: int, index: int
) -> TriangleMesh:
    """A second individual of 0.55–0.9 of the size, its middle inside the host."""
    rng = component_rng(seed, "crystal.intergrowths", index)
    point, _, face = surface.drawn_point(rng)
    size, way = rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.95)
    # Half of them share a plane with the host (turned about its normal), as contact twins do.
    shared = Rotation.from_rotvec(rng.uniform(math.pi / 6, 5 * math.pi / 6) * surface.solid.normals[face])
    free = Rotation.from_quat(rng.normal(size=4))
    turn = shared if rng.random() < 0.5 else free
    place = surface.centre + way * (point - surface.centre)
    return _individual(solid, variation, rng, size, turn, place)


def _satellite(
    solid: Polyhedron, surface: _Surface, variation: CrystalVariation, seed: int, index: int
) -> TriangleMesh:
    """A small crystal on a face. Its inscribed sphere cuts the surface, so the two are connected."""
    rng = component_rng(seed, "crystal.satellites", index)
    point, normal, _ = surface.drawn_point(rng)
    size, height = rng.uniform(0.12, 0.3), rng.uniform(-0.5, 0.2)
    turn = Rotation.from_quat(rng.normal(size=4))
    place = point + height * size * surface.radius * normal
    return _individual(solid, variation, rng, size, turn, place)


def _individual(
    solid: Polyhedron,
    variation: CrystalVariation,
    rng: np.random.Generator,
    size: float,
    turn: Rotation,
    place: np.ndarray,
) -> TriangleMesh:
    """A crystal of ``size`` times the solid with flaws of growth of its own, its centre at ``place``."""
    other = _jittered(solid, variation.face_jitter, rng).scaled(size)
    middle, _ = _inscribed_sphere(other)
    rotation = turn.as_matrix()
    return _rounded(other, variation).moved(rotation, place - rotation @ middle)


# --- voids --------------------------------------------------------------------------------------------


def _crack(surface: _Surface, variation: CrystalVariation, seed: int, index: int) -> TriangleMesh:
    """A wedge with a half-elliptic front. Below its middle at least two fifths of the chord stay
    whole, so it does not cut the crystal in two."""
    rng = component_rng(seed, "crystal.cracks", index)
    point, normal, _ = surface.drawn_point(rng)
    azimuth, lean = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(-20, 20))
    share, ends, open_end = rng.uniform(0.25, 0.6), rng.uniform(0.5, 0.85, 2), rng.integers(4)
    bends = rng.normal(size=(2, 3)) * (0.05, 0.03, 0.015)
    along, across = _tangents(normal, azimuth)
    inwards = -math.cos(lean) * normal + math.sin(lean) * across
    across = np.cross(inwards, along)
    diameter = surface.solid.diameter
    start = point + 1e-6 * surface.radius * (surface.centre - point) / np.linalg.norm(surface.centre - point)
    depth = share * np.linalg.norm(surface.hit(start, inwards)[0] - point)
    # Half of the cracks run out over one edge of the face.
    if open_end < 2:
        ends[open_end] = 1.15
    # Just below the surface, where the chord ends at the edges of the face.
    below = point + 0.02 * depth * inwards
    back, fore = (np.linalg.norm(surface.hit(below, s * along)[0] - below) for s in (-1.0, 1.0))
    s = np.linspace(-1, 1, _CRACK_SECTIONS + 1)[1:-1]
    profile = np.sqrt(1 - s**2)
    place = np.where(s < 0, s * ends[0] * back, s * ends[1] * fore)
    length = ends[0] * back + ends[1] * fore
    # Its course: a slow sine and two faster ones, at the mouth and, differing, at the front.
    phase = np.outer([1.5, 3.7, 8.1], s)
    mouth, front = (length * (b @ np.sin(phase + 2 * np.pi * i * b[:, None])) for i, b in enumerate(bends))
    front = mouth + 0.5 * profile * front
    lift = -0.03 * diameter * inwards
    half = 0.5 * variation.crack_width * profile

    def line(offset: np.ndarray, down: np.ndarray) -> np.ndarray:
        return point + np.outer(place, along) + np.outer(offset, across) + np.outer(down, inwards)

    rings = np.stack(
        [
            line(mouth + half, np.zeros_like(s)) + lift,
            line(mouth - half, np.zeros_like(s)) + lift,
            line(front, depth * profile),
        ],
        axis=1,
    )
    tips = [point - ends[0] * back * along, point + ends[1] * fore * along]
    return _tube(rings, tips[0] + lift, tips[1] + lift)


def _pit(surface: _Surface, seed: int, index: int) -> TriangleMesh:
    """A shallow pit with the outline of its face, as etching leaves it: two pyramids base to base,
    one of them outside."""
    rng = component_rng(seed, "crystal.pits", index)
    point, _, face = surface.drawn_point(rng)
    normal = surface.solid.normals[face]
    ring = surface.solid.vertices[list(surface.solid.faces[face])]
    spokes = ring - ring.mean(axis=0)
    reach = np.linalg.norm(spokes, axis=1).max()
    radius = rng.uniform(0.025, 0.07) * surface.solid.diameter
    # Long faces have long pits; the depth goes with their narrow side.
    narrow = math.sqrt(_area(ring) / math.pi) / reach
    depth = min(rng.uniform(0.3, 0.6) * narrow * radius, 0.15 * surface.radius)
    outline = point + spokes * min(radius / reach, 0.5)
    return _tube(outline[None], point - depth * normal, point + depth * normal)


# --- meshes -------------------------------------------------------------------------------------------


def _inscribed_sphere(solid: Polyhedron) -> tuple[np.ndarray, float]:
    """Centre of volume (3,) [m] and radius [m] of the largest sphere about it that fits inside."""
    # Not the largest sphere of all: in a prism that has no definite place.
    a, b, c = (solid.vertices[corner] for corner in solid.triangles().T)
    volumes = np.einsum("ij,ij->i", a, np.cross(b, c))
    centre = (a + b + c).T @ volumes / (4 * volumes.sum())
    return centre, float((solid.distances - solid.normals @ centre).min())


def _hull(points: np.ndarray) -> TriangleMesh:
    """The convex hull as a closed mesh without unused or double vertices."""
    centre = points.mean(axis=0)
    scale = float(np.abs(points - centre).max())
    scaled = (points - centre) / scale
    _, distinct = np.unique(np.round(scaled, 9), axis=0, return_index=True)
    scaled = scaled[np.sort(distinct)]
    hull = ConvexHull(scaled)
    triangles = hull.simplices.astype(np.int64)
    corners = scaled[triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inwards = np.einsum("ij,ij->i", across, hull.equations[:, :3]) < 0
    triangles[inwards] = triangles[inwards][:, ::-1]
    used, renumbered = np.unique(triangles, return_inverse=True)
    return TriangleMesh(scaled[used] * scale + centre, renumbered.reshape(triangles.shape))


def _sphere_net() -> np.ndarray:
    """Unit vectors (n, 3), about ``_ARC`` apart, on a golden spiral."""
    count = math.ceil(4 * math.pi / _ARC**2)
    i = np.arange(count) + 0.5
    z, azimuth = 1 - 2 * i / count, math.pi * (3 - math.sqrt(5)) * i
    r = np.sqrt(1 - z**2)
    return np.c_[r * np.cos(azimuth), r * np.sin(azimuth), z]


def _sphere(centre: np.ndarray, radius: float) -> TriangleMesh:
    return _hull(centre + radius * _sphere_net())


def _tube(rings: np.ndarray, first: np.ndarray, last: np.ndarray) -> TriangleMesh:
    """Rings of points (s, k, 3) joined by a skin and closed by a point at each end; outward
    whatever the sense of the rings."""
    sections, k, _ = rings.shape
    vertices = np.concatenate([[first], rings.reshape(-1, 3), [last]])
    index = 1 + np.arange(sections * k).reshape(sections, k)
    turned = np.roll(index, -1, axis=1)
    quads = [
        np.stack([index[:-1], turned[:-1], turned[1:]], axis=-1).reshape(-1, 3),
        np.stack([index[:-1], turned[1:], index[1:]], axis=-1).reshape(-1, 3),
    ]
    ends = [
        np.stack([np.zeros(k, dtype=np.int64), turned[0], index[0]], axis=-1),
        np.stack([np.full(k, len(vertices) - 1), index[-1], turned[-1]], axis=-1),
    ]
    mesh = TriangleMesh(vertices, np.concatenate([*quads, *ends]))
    return mesh if mesh.volume > 0 else TriangleMesh(vertices, mesh.triangles[:, ::-1])


def _tangents(normal: np.ndarray, azimuth: float) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors in the plane of ``normal``, turned by ``azimuth`` about it."""
    u = np.cross(normal, np.eye(3)[int(np.abs(normal).argmin())])
    u /= np.linalg.norm(u)
    v = np.cross(normal, u)
    return math.cos(azimuth) * u + math.sin(azimuth) * v, math.cos(azimuth) * v - math.sin(azimuth) * u


def _area(polygon: np.ndarray) -> float:
    """Of a plane polygon (n, 3) [m²]."""
    return 0.5 * float(np.linalg.norm(np.cross(polygon, np.roll(polygon, -1, axis=0)).sum(axis=0)))
