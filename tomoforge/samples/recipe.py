"""Recipes: all that determines a sample, drawn from a seed, kept as JSON.

Frames: the mount frame of ``tomoforge.samples.mount`` (loop in x–z, stem down −z) holds crystal,
loop and liquor; the pose carries it into the sample frame, where z is the rotation axis and the
origin the field's centre.
"""

import json
import math
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
from scipy.spatial.transform import Rotation

from tomoforge.errors import ConfigError, InputError
from tomoforge.samples.crystal import Polyhedron
from tomoforge.samples.habits import PROTEIN_HABITS, Habit
from tomoforge.samples.mount import MOUNTS, Mount, NylonLoop, PolymerLoop, rim_points
from tomoforge.seeds import component_rng
from tomoforge.storage import to_json as canonical_json

Vector = tuple[float, float, float]

FAMILIES = ("protein_crystal",)

# Crystals that are mounted in loops [m]: smaller ones go on meshes, larger ones into capillaries.
_CRYSTAL_SIZES = (20e-6, 800e-6)
# Gap between crystal and loop [m]; the liquor fills it.
_CLEARANCE = 2e-6
_PLACEMENTS = 60


@dataclass(frozen=True)
class Liquor:
    """Mother liquor: a lens in the loop, draped by a short fluid simulation, then relaxed by
    wetting.

    lens_semi_axes : of the ellipsoid at the start [m], x, y, z of the mount frame
    drift : how far the simulation's body force carries free liquor [m], x, y, z of the mount frame
    bake_resolution : cells of the simulation along its longest side; bake_frames : its length in
        frames
    contact_angle : on crystal and loop [rad]
    kernel_width : σ of the relaxation's Gaussian [m]: features smaller than this are smoothed away
    iterations : most steps of the relaxation
    """

    lens_semi_axes: Vector
    drift: Vector
    bake_resolution: int
    bake_frames: int
    contact_angle: float
    kernel_width: float
    iterations: int


@dataclass(frozen=True)
class Pose:
    """Mount frame to sample frame: tilt, turn about z, shift.

    tilt : angle of the stem to the rotation axis [rad], about the mount frame's axis (cos, sin, 0)
        of
    tilt_direction [rad]; azimuth : about z [rad]; offset : of the mount's origin [m], x, y, z
    """

    tilt: float
    tilt_direction: float
    azimuth: float
    offset: Vector

    def rotation(self) -> np.ndarray:
        """(3, 3) float64: sample-frame vector = rotation @ mount-frame vector."""
        axis = np.array([math.cos(self.tilt_direction), math.sin(self.tilt_direction), 0.0])
        return (
            Rotation.from_rotvec([0.0, 0.0, self.azimuth]) * Rotation.from_rotvec(self.tilt * axis)
        ).as_matrix()


@dataclass(frozen=True)
class SampleRecipe:
    """Everything that determines a sample.

    field_of_view : side of the cube around the rotation axis in which crystal, liquor and ring fit
        [m]; the stem leaves it at the bottom
    crystal_size : greatest extent of the crystal [m]
    crystal_orientation : unit quaternion (x, y, z, w), crystal's Cartesian axes to mount frame
    crystal_centre : of the crystal's vertices, mount frame [m]
    """

    seed: int
    family: str
    field_of_view: float
    habit: Habit
    crystal_size: float
    crystal_orientation: tuple[float, float, float, float]
    crystal_centre: Vector
    mount: Mount
    liquor: Liquor
    pose: Pose

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigError(f"family must be one of {', '.join(FAMILIES)}, got {self.family!r}")
        positive: dict[str, float] = {
            "field_of_view": self.field_of_view,
            "crystal_size": self.crystal_size,
            "mount.aperture_width": self.mount.aperture_width,
            "mount.aperture_height": self.mount.aperture_height,
            "mount.stem_length": self.mount.stem_length,
            "liquor.kernel_width": self.liquor.kernel_width,
            "liquor.lens_semi_axes": min(self.liquor.lens_semi_axes),
            "liquor.bake_resolution": self.liquor.bake_resolution,
            "liquor.bake_frames": self.liquor.bake_frames,
        }
        for name, value in positive.items():
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be positive, got {value!r}")
        if not 0 <= self.liquor.contact_angle <= math.pi:
            raise ConfigError(
                f"liquor.contact_angle must lie in 0…π radians, got {self.liquor.contact_angle!r}"
            )
        if abs(np.linalg.norm(self.crystal_orientation) - 1) > 1e-6:
            raise ConfigError(
                f"crystal_orientation must be a unit quaternion, got {self.crystal_orientation}"
            )

    def crystal(self) -> Polyhedron:
        """The crystal in its own axes, ``crystal_size`` [m] across."""
        solid = self.habit.polyhedron()
        return solid.scaled(self.crystal_size / solid.diameter)

    def crystal_vertices(self) -> np.ndarray:
        """The vertices of ``crystal()`` in the mount frame: (v, 3) float64 [m]."""
        return placed_vertices(self.crystal(), self.crystal_orientation, self.crystal_centre)

    def to_json(self) -> str:
        """Canonical JSON; ``from_json`` gives back an equal recipe."""
        plain = asdict(self)
        plain["mount"]["kind"] = self.mount.kind
        return canonical_json(plain)

    @classmethod
    def from_json(cls, text: str | bytes) -> "SampleRecipe":
        """The recipe of ``to_json``. ConfigError for unknown, missing or mistyped keys."""
        try:
            plain = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"a recipe must be JSON, got {text[:40]!r}…: {error}") from error
        return _built(cls, plain, "recipe")


def placed_vertices(
    solid: Polyhedron, orientation: tuple[float, float, float, float], centre: Vector
) -> np.ndarray:
    """Vertices turned by the quaternion (x, y, z, w) and moved so that their mean is ``centre``:
    (v, 3)."""
    turned = Rotation.from_quat(orientation).apply(solid.vertices)
    return turned - turned.mean(axis=0) + np.array(centre)


def draw_recipe(
    seed: int, family: str = "protein_crystal", field_of_view: float | None = None
) -> SampleRecipe:
    """Draw a sample.

    Parameters
    ----------
    seed : non-negative int; the same seed gives the same recipe. Every part draws from a generator
        of its own.
    family : 'protein_crystal', the only one so far
    field_of_view : side [m] of the cube that crystal, liquor and ring are to fit in at every
        rotation angle; None draws a crystal of 100–300 µm and sets the field to suit

    Raises
    ------
    InputError
        for an unknown family, a negative seed, or a field that asks for crystals outside 20–800 µm.
    """
    if family not in FAMILIES:
        raise InputError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
    if field_of_view is not None and not (math.isfinite(field_of_view) and field_of_view > 0):
        raise InputError(f"field_of_view must be positive metres or None, got {field_of_view!r}")
    habit = _draw_habit(seed)
    mount, size, field = _draw_mount(seed, field_of_view)
    solid = habit.polyhedron()
    solid = solid.scaled(size / solid.diameter)
    orientation = _draw_orientation(seed, solid)
    return SampleRecipe(
        seed=int(seed),
        family=family,
        field_of_view=field,
        habit=habit,
        crystal_size=size,
        crystal_orientation=orientation,
        crystal_centre=_draw_centre(seed, solid, orientation, mount),
        mount=mount,
        liquor=_draw_liquor(seed, size, mount, field),
        pose=_draw_pose(seed, field),
    )


def _draw_habit(seed: int) -> Habit:
    rng = component_rng(seed, "habit")
    chosen = PROTEIN_HABITS[int(rng.integers(len(PROTEIN_HABITS)))]
    forms = tuple((hkl, distance * rng.uniform(0.85, 1.15)) for hkl, distance in chosen.forms)
    a, b, c, alpha, beta, gamma = (float(x) for x in chosen.cell)
    return Habit(chosen.name, (a, b, c, alpha, beta, gamma), chosen.point_group, forms)


def _draw_mount(seed: int, field_of_view: float | None) -> tuple[Mount, float, float]:
    """The mount, the crystal's size and the field [m]: whichever of the last two is free
    follows."""
    rng = component_rng(seed, "mount")
    nylon = rng.random() < 0.5
    elongation = rng.uniform(1.0, 1.3)
    point = rng.uniform(0.15, 0.45)
    wire_radius = rng.uniform(5e-6, 10e-6)
    rim_width, thickness = rng.uniform(18e-6, 35e-6), rng.uniform(10e-6, 25e-6)
    bend, pitch, neck, stem = rng.uniform(-1, 1), *rng.uniform(0, 1, 3)
    rim = 2 * wire_radius if nylon else rim_width
    size = math.exp(component_rng(seed, "size").uniform(math.log(100e-6), math.log(300e-6)))
    ratio = component_rng(seed, "aperture").uniform(1.2, 1.8)
    # The ring is 0.80–0.90 of the field; offset and tilt take some of the rest.
    fill = component_rng(seed, "field").uniform(0.80, 0.90)
    if field_of_view is None:
        field = (elongation * ratio * size + 2 * rim) / fill
    else:
        field = float(field_of_view)
        size = (fill * field - 2 * rim) / (elongation * ratio)
        if not _CRYSTAL_SIZES[0] <= size <= _CRYSTAL_SIZES[1]:
            raise InputError(
                "field_of_view must hold a loop with a crystal of 20 to 800 µm, got "
                f"{field:g} m, which leaves {size:.3g} m for the crystal; fields of 0.2–1 mm suit"
            )
    width, height = ratio * size, elongation * ratio * size
    # Below the lowest corner of the field at any tilt and offset.
    stem_length = 1.5 * field
    if nylon:
        loop: Mount = NylonLoop(
            aperture_width=width,
            aperture_height=height,
            wire_radius=wire_radius,
            point=point,
            bow=0.08 * width * bend,
            twist_pitch=wire_radius * (10 + 8 * pitch),
            stem_length=stem_length,
        )
    else:
        loop = PolymerLoop(
            aperture_width=width,
            aperture_height=height,
            rim_width=rim_width,
            thickness=thickness,
            point=point,
            curl_radius=width * (1.2 + 2 * abs(bend)),
            neck_width=width * (0.18 + 0.10 * neck),
            stem_width=width * (0.5 + 0.4 * stem),
            stem_length=stem_length,
        )
    return loop, size, field


def _draw_orientation(seed: int, solid: Polyhedron) -> tuple[float, float, float, float]:
    """The flattest of three quaternions drawn uniformly over all rotations.

    The film's surface tension lays plates and needles into the plane of the loop, if not perfectly.
    """
    rng = component_rng(seed, "orientation")
    drawn = [q / np.linalg.norm(q) for q in rng.normal(size=(3, 4))]
    heights = [np.ptp(Rotation.from_quat(q).apply(solid.vertices)[:, 1]) for q in drawn]
    x, y, z, w = (float(i) for i in drawn[int(np.argmin(heights))])
    return x, y, z, w


def _draw_centre(
    seed: int, solid: Polyhedron, orientation: tuple[float, float, float, float], mount: Mount
) -> Vector:
    """Where the crystal lies: off the middle of the aperture, clear of the loop.

    Where no attempt is clear, the one with the most room: a crystal that just fits may touch the loop.
    """
    rng = component_rng(seed, "placement")
    normals = Rotation.from_quat(orientation).apply(solid.normals)
    shift = solid.distances - solid.normals @ solid.vertices.mean(axis=0)
    points, radius = rim_points(mount)
    # The ring narrows towards the neck, so its roomiest place lies above the middle.
    middle = np.array([0.0, 0.0, 0.1 * mount.point * mount.aperture_height])
    if isinstance(mount, NylonLoop):
        middle[1] = mount.bow / 2
    spread = np.array([mount.aperture_width, 0.5 * solid.diameter, mount.aperture_height]) * 0.1
    best, widest = middle, -math.inf
    for attempt in range(_PLACEMENTS):
        # Later attempts stay closer to the middle, where there is most room.
        centre = middle + spread * rng.normal(size=3) * (1 - attempt / _PLACEMENTS)
        # The largest distance beyond any one face is at most the distance to the convex solid.
        gap = ((points - centre) @ normals.T - shift).max(axis=1).min() - radius
        if gap >= _CLEARANCE:
            best = centre
            break
        if gap > widest:
            best, widest = centre, gap
    x, y, z = (float(i) for i in best)
    return x, y, z


def _draw_liquor(seed: int, size: float, mount: Mount, field: float) -> Liquor:
    rng = component_rng(seed, "liquor")
    in_plane = rng.uniform(0.94, 1.0, 2)
    # From a film that the crystal stands out of, with a meniscus around it, to a drop that drowns
    # it.
    half_thickness = size * rng.uniform(0.1, 0.36)
    contact_angle = math.radians(rng.uniform(10.0, 50.0))
    iterations = int(rng.integers(8, 31))
    direction = component_rng(seed, "drift").normal(size=3) * (0.5, 1.0, 0.5)
    length = size * component_rng(seed, "drift", 1).uniform(0.02, 0.08)
    drift = length * direction / np.linalg.norm(direction)
    return Liquor(
        lens_semi_axes=(
            float(in_plane[0] * (mount.aperture_width / 2 + 5e-6)),
            float(half_thickness),
            float(in_plane[1] * (mount.aperture_height / 2 + 5e-6)),
        ),
        drift=(float(drift[0]), float(drift[1]), float(drift[2])),
        bake_resolution=32,
        bake_frames=8,
        contact_angle=contact_angle,
        kernel_width=0.02 * field,
        iterations=iterations,
    )


def _draw_pose(seed: int, field: float) -> Pose:
    rng = component_rng(seed, "pose")
    azimuth = float(rng.uniform(0, 2 * math.pi))
    direction = float(rng.uniform(0, 2 * math.pi))
    tilt = math.radians(float(rng.uniform(0, 8)))
    x, y, z = (float(i) for i in rng.uniform(-0.015, 0.015, 3) * field)
    return Pose(tilt=tilt, tilt_direction=direction, azimuth=azimuth, offset=(x, y, z))


# --- JSON to frozen dataclasses -------------------------------------------------------------------


def _built(kind: Any, plain: Any, where: str) -> Any:
    """``plain`` (from JSON) as the dataclass, tuple or number that ``kind`` says."""
    if kind == Mount:
        return _built_mount(plain, where)
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(plain, dict):
            raise ConfigError(f"{where} must be an object, got {plain!r}")
        names = [field.name for field in fields(kind)]
        unknown, missing = sorted(set(plain) - set(names)), sorted(set(names) - set(plain))
        if unknown or missing:
            raise ConfigError(
                f"{where} must have the keys {', '.join(names)}; "
                f"unknown: {', '.join(unknown) or 'none'}, missing: {', '.join(missing) or 'none'}"
            )
        hints = get_type_hints(kind)
        return kind(**{name: _built(hints[name], plain[name], f"{where}.{name}") for name in names})
    if get_origin(kind) is tuple:
        return _built_tuple(get_args(kind), plain, where)
    number = isinstance(plain, (int, float)) and not isinstance(plain, bool)
    if kind is float and number and math.isfinite(plain):
        return float(plain)
    if (kind is int and number and float(plain).is_integer()) or (kind is str and isinstance(plain, str)):
        return kind(plain)
    raise ConfigError(f"{where} must be a {kind.__name__}, got {plain!r}")


def _built_mount(plain: Any, where: str) -> Mount:
    kind = plain.get("kind") if isinstance(plain, dict) else None
    if kind not in MOUNTS:
        raise ConfigError(f"{where}.kind must be one of {', '.join(MOUNTS)}, got {kind!r}")
    return _built(MOUNTS[kind], {k: v for k, v in plain.items() if k != "kind"}, where)


def _built_tuple(kinds: tuple[Any, ...], plain: Any, where: str) -> tuple:
    repeated = len(kinds) == 2 and kinds[1] is Ellipsis
    if not isinstance(plain, list) or (not repeated and len(plain) != len(kinds)):
        raise ConfigError(f"{where} must be a list of {len(kinds)} values, got {plain!r}")
    each = (kinds[0],) * len(plain) if repeated else kinds
    return tuple(_built(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(each, plain, strict=True)))
