"""Recipes: all that determines a sample, drawn from a seed, kept as JSON (``tomoforge.samples.records``).

Sizes: crystals 50–500 µm, apertures 1.2–1.8 × the crystal, liquor films 5–50 µm; ranges of mounts are those of the
products, in ``tomoforge.samples.mount``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from tomoforge.errors import InputError
from tomoforge.samples.crystal import Polyhedron
from tomoforge.samples.granular import draw_packing
from tomoforge.samples.habits import PROTEIN_HABITS, Habit
from tomoforge.samples.mesh import TriangleMesh
from tomoforge.samples.mount import MOUNTS, Mount, rim_points
from tomoforge.samples.mount_drawing import draw_mount, draw_mount_kind
from tomoforge.samples.records import (
    FAMILIES,
    GranularRecipe,
    Lens,
    Liquor,
    PlacedCrystal,
    Pose,
    ProteinRecipe,
    Quaternion,
    SampleRecipe,
)
from tomoforge.samples.variation import draw_variation
from tomoforge.seeds import component_rng, component_seed

__all__ = ["GranularRecipe", "ProteinRecipe", "SampleRecipe", "Variety", "draw_recipe"]

# Crystals that are mounted in loops [m]: smaller ones go on meshes, larger ones into capillaries.
_CRYSTAL_SIZES = (20e-6, 800e-6)
_LEAST_CRYSTAL = 5e-6
# Fields that hold a mount with such a crystal [m].
_FIELDS = (80e-6, 1.7e-3)
# Gap between crystals and loop, and between crystals [m]; the liquor fills it.
_CLEARANCE = 2e-6
_PLACEMENTS = 60
# Crystals reach no further than this share of the field from its axis; offset and tilt take the rest.
_REACH = 0.455
# A crystal that finds no room at any place is taken this much smaller, and so on.
_SMALLER = 0.93

# Fields of ``CrystalVariation`` that may be switched off one by one.
FLAWS = ("face_jitter", "rounding", "chips", "satellites", "intergrowths", "cracks", "dissolution")


def _check_names(name: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [value for value in given if value not in known]
    if unknown:
        raise InputError(f"{name} must be among {', '.join(known)}, got {', '.join(map(repr, unknown))}")


@dataclass(frozen=True)
class Variety:
    """What may be drawn; switching one thing off shifts no other draw.

    mounts, habits : names to draw from, all where empty
    flaws : of ``FLAWS``, those that crystals may have
    most_crystals : how many crystals may lie in a loop
    bubbles : whether the liquor may hold gas bubbles
    truncation : whether mount and crystal may leave the field of view
    """

    mounts: tuple[str, ...] = ()
    habits: tuple[str, ...] = ()
    flaws: tuple[str, ...] = FLAWS
    most_crystals: int = 3
    bubbles: bool = True
    truncation: bool = False

    def __post_init__(self) -> None:
        _check_names("mounts", self.mounts, list(MOUNTS))
        _check_names("habits", self.habits, [habit.name for habit in PROTEIN_HABITS])
        _check_names("flaws", self.flaws, list(FLAWS))
        if self.most_crystals < 1:
            raise InputError(f"most_crystals must be at least 1, got {self.most_crystals}")


def draw_recipe(
    seed: int,
    family: str = "protein_crystal",
    field_of_view: float | None = None,
    variety: Variety = Variety(),
) -> SampleRecipe:
    """Draw a sample.

    Parameters
    ----------
    seed : non-negative int; the same seed gives the same recipe. Every part draws from a generator of its own.
    family : 'protein_crystal' (crystals in liquor on a mount) or 'granular' (grains of some phases)
    field_of_view : side [m] of the cube that crystal, liquor and ring are to fit in at every rotation angle (unless
        ``variety`` allows truncation); None draws a crystal of 100–300 µm and sets the field to suit
    variety : what may be drawn (protein crystals)

    Raises
    ------
    InputError
        for an unknown family, mount or habit, a negative seed, or a field that asks for crystals outside
        20–800 µm.
    """
    if family not in FAMILIES:
        raise InputError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
    if field_of_view is not None and not (math.isfinite(field_of_view) and field_of_view > 0):
        raise InputError(f"field_of_view must be positive metres or None, got {field_of_view!r}")
    if family == GranularRecipe.family:
        field = 200e-6 if field_of_view is None else float(field_of_view)
        return GranularRecipe(seed=int(seed), field_of_view=field, plan=draw_packing(seed, field))
    return _draw_protein(int(seed), field_of_view, variety)


def _draw_protein(seed: int, field_of_view: float | None, variety: Variety) -> ProteinRecipe:
    habit = _draw_habit(seed, variety)
    truncated = variety.truncation and component_rng(seed, "truncation").random() < 0.3
    mount, size, field = _draw_mount(seed, field_of_view, variety, truncated)
    room = math.inf if truncated else _REACH * field
    crystals = _draw_crystals(seed, habit, size, mount, room, variety)
    return ProteinRecipe(
        seed=seed,
        field_of_view=field,
        crystals=crystals,
        mount=mount,
        liquor=_draw_liquor(seed, crystals, mount, field, variety),
        pose=_draw_pose(seed, field, truncated),
        truncated=truncated,
    )


def _draw_habit(seed: int, variety: Variety) -> Habit:
    rng = component_rng(seed, "habit")
    known = [habit for habit in PROTEIN_HABITS if not variety.habits or habit.name in variety.habits]
    chosen = known[int(rng.random() * len(known))]
    forms = tuple((hkl, float(distance * rng.uniform(0.85, 1.15))) for hkl, distance in chosen.forms)
    return replace(chosen, forms=forms)


def _draw_mount(
    seed: int, field_of_view: float | None, variety: Variety, truncated: bool
) -> tuple[Mount, float, float]:
    """The mount, the crystal's size and the field [m]: whichever of the last two is free follows."""
    kind = draw_mount_kind(seed)
    if variety.mounts and kind not in variety.mounts:
        kind = variety.mounts[int(component_rng(seed, "mount kind").random() * len(variety.mounts))]
    ratio = component_rng(seed, "aperture").uniform(1.2, 1.8)
    # The ring is 0.80–0.90 of the field; offset and tilt take some of the rest.
    fill = component_rng(seed, "field").uniform(0.80, 0.90)
    if truncated:
        fill = component_rng(seed, "truncation", 1).uniform(1.15, 1.6)
    if field_of_view is None:
        size = math.exp(component_rng(seed, "size").uniform(math.log(100e-6), math.log(300e-6)))
        mount = draw_mount(seed, kind, aperture_height=1.15 * ratio * size)
        size = min(size, mount.aperture_width / ratio, mount.aperture_height / ratio)
        return mount, size, 2 * max(mount.outer_half_height, mount.outer_half_width) / fill
    size = 0.0
    if _FIELDS[0] <= field_of_view <= _FIELDS[1]:
        mount = draw_mount(seed, kind, outer_height=fill * field_of_view)
        size = min(mount.aperture_width, mount.aperture_height) / ratio
    if not _CRYSTAL_SIZES[0] <= size <= _CRYSTAL_SIZES[1]:
        raise InputError(
            "field_of_view must hold a mount with a crystal of 20 to 800 µm, got "
            f"{field_of_view:g} m; fields of 0.2–1 mm suit"
        )
    return mount, size, float(field_of_view)


# --- crystals -------------------------------------------------------------------------------------


def _draw_crystals(
    seed: int, habit: Habit, size: float, mount: Mount, room: float, variety: Variety
) -> tuple[PlacedCrystal, ...]:
    """The crystals within ``room`` [m] of the rotation axis and of the field's middle plane."""
    solid = habit.polyhedron()
    first = _placed(seed, 0, habit, solid, size, mount, room, (), variety)
    while first is None:
        size *= _SMALLER
        if size < _LEAST_CRYSTAL:
            raise InputError(
                f"field_of_view leaves no place for a crystal in this {mount.kind} mount; try another seed or field"
            )
        first = _placed(seed, 0, habit, solid, size, mount, room, (), variety)
    crystals = [first]
    rng = component_rng(seed, "companions")
    # Most loops are fished for one crystal.
    companions = int(rng.geometric(0.5)) if rng.random() < 0.2 else 0
    for i in range(1, 1 + min(companions, variety.most_crystals - 1)):
        taken = [part for j, crystal in enumerate(crystals) for part in _solids(seed, j, crystal)]
        smaller = first.size * component_rng(seed, "companion size", i).uniform(0.2, 0.55)
        found = _placed(seed, i, habit, solid, smaller, mount, room, taken, variety)
        if found is not None:
            crystals.append(found)
    return tuple(crystals)


def _solids(seed: int, index: int, crystal: PlacedCrystal) -> tuple[TriangleMesh, ...]:
    return crystal.body(component_seed(seed, "crystal", index)).solids


def _placed(
    seed: int,
    index: int,
    habit: Habit,
    solid: Polyhedron,
    size: float,
    mount: Mount,
    room: float,
    taken: Sequence[TriangleMesh],
    variety: Variety,
) -> PlacedCrystal | None:
    """A crystal at the first of some places where it is clear of the loop and of those that lie there; else None."""
    flaws = draw_variation(component_seed(seed, "variation", index), size)
    off = {name: type(getattr(flaws, name))(0) for name in FLAWS if name not in variety.flaws}
    flaws = replace(flaws, **off)
    orientation = _draw_orientation(seed, index, solid)
    at_origin = PlacedCrystal(habit, size, orientation, (0.0, 0.0, 0.0), flaws)
    parts = _solids(seed, index, at_origin)
    points, radius = rim_points(mount)
    for centre in _places(seed, index, size, parts, mount):
        moved = [part.moved(np.eye(3), centre) for part in parts]
        if max(_reach(part) for part in moved) > room or not _in_aperture(centre, mount):
            continue
        clear = all(_gap(part, points) >= radius + _CLEARANCE for part in moved)
        if clear and all(_apart(part, other) >= _CLEARANCE for part in moved for other in taken):
            x, y, z = (float(i) for i in centre)
            return PlacedCrystal(habit, size, orientation, (x, y, z), flaws)
    return None


def _draw_orientation(seed: int, index: int, solid: Polyhedron) -> Quaternion:
    """Mostly the flattest of three quaternions drawn uniformly over all rotations, else the first: tilted.

    The film's surface tension lays plates and needles into the plane of the loop, if not perfectly.
    """
    rng = component_rng(seed, "orientation", index)
    drawn = [q / np.linalg.norm(q) for q in rng.normal(size=(3, 4))]
    heights = [np.ptp(Rotation.from_quat(q).apply(solid.vertices)[:, 1]) for q in drawn]
    chosen = int(np.argmin(heights)) if rng.random() < 0.75 else 0
    x, y, z, w = (float(i) for i in drawn[chosen])
    return x, y, z, w


def _places(
    seed: int, index: int, size: float, parts: Sequence[TriangleMesh], mount: Mount
) -> Sequence[np.ndarray]:
    """Centres to try, mount frame [m]: around the middle, near the top, or on the face of the loop."""
    rng = component_rng(seed, "placement", index)
    kind = rng.choice(["middle", "top", "low", "on the face"], p=[0.6, 0.16, 0.08, 0.16])
    middle = np.array(mount.middle)
    spread = np.array([mount.aperture_width, 0.5 * size, mount.aperture_height]) * (
        0.1 if index == 0 else 0.3
    )
    goal = middle.copy()
    if kind in ("top", "low"):
        room = max(0.0, mount.aperture_height - size) / 2
        goal[2] += room if kind == "top" else -0.5 * room
    if kind == "on the face":
        thickness = max(float(np.ptp(part.vertices[:, 1])) for part in parts)
        goal[1] += float(rng.choice([-1.0, 1.0])) * thickness * rng.uniform(0.15, 0.35)
    places = []
    for attempt in range(_PLACEMENTS):
        # Later attempts stay closer to the middle, where there is most room.
        share = 1 - attempt / _PLACEMENTS
        places.append(middle + share * (goal - middle) + share * spread * rng.normal(size=3))
    return places


def _in_aperture(centre: np.ndarray, mount: Mount) -> bool:
    x, _, z = centre - np.array(mount.middle)
    return bool((2 * x / mount.aperture_width) ** 2 + (2 * z / mount.aperture_height) ** 2 < 1)


def _reach(part: TriangleMesh) -> float:
    """Greatest distance [m] from the rotation axis or from the middle plane."""
    x, y, z = part.vertices.T
    return float(max(np.hypot(x, y).max(), np.abs(z).max()))


def _planes(part: TriangleMesh) -> tuple[np.ndarray, np.ndarray]:
    a, b, c = (part.vertices[part.triangles[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    lengths = np.linalg.norm(normals, axis=1)
    keep = lengths > 0
    normals = normals[keep] / lengths[keep, None]
    return normals, np.einsum("ij,ij->i", normals, a[keep])


def _gap(part: TriangleMesh, points: np.ndarray) -> float:
    """Least distance [m] that points (n, 3) keep from a convex part, or less: beyond its farthest face."""
    normals, distances = _planes(part)
    return float((points @ normals.T - distances).max(axis=1).min())


def _apart(one: TriangleMesh, other: TriangleMesh) -> float:
    """Width [m] of the gap that a face of one or the other convex part opens between them; negative without one."""
    gaps = []
    for first, second in ((one, other), (other, one)):
        normals, distances = _planes(first)
        gaps.append(float(((second.vertices @ normals.T).min(axis=0) - distances).max()))
    return max(gaps)


# --- liquor and pose ------------------------------------------------------------------------------


def _draw_liquor(
    seed: int, crystals: Sequence[PlacedCrystal], mount: Mount, field: float, variety: Variety
) -> Liquor:
    rng = component_rng(seed, "liquor")
    # Onto the rim: a lens that only reaches it has no thickness there, and the film would come off.
    overlap = rng.uniform(1.05, 1.14, 2)
    kind = str(rng.choice(["film", "drop", "partial", "excess"], p=[0.3, 0.35, 0.15, 0.2]))
    thickness, shift = rng.uniform(), rng.uniform(-1, 1, 2)
    first = crystals[0]
    half = np.array([mount.aperture_width / 2, 0.0, mount.aperture_height / 2])
    # From a film that the crystal stands out of, with a meniscus around it, to a drop that drowns it.
    low, high = {"film": (0.07, 0.16), "drop": (0.28, 0.5), "partial": (0.15, 0.3), "excess": (0.12, 0.36)}[
        kind
    ]
    half[1] = max(6e-6, first.size * (low + (high - low) * thickness))
    # It leans towards a crystal beside the loop's plane, and is thick enough to hold it.
    centre = np.array([0.0, 0.4 * first.centre[1], 0.0])
    half[1] += 0.4 * abs(first.centre[1])
    if kind == "partial":
        # To one side, with the crystal: the corners of the other side stay dry.
        centre[[0, 2]] = 0.6 * np.array(first.centre)[[0, 2]] + 0.3 * shift * half[[0, 2]]
        half[[0, 2]] *= 0.85
    half[[0, 2]] *= overlap
    lenses = [_lens(centre, half)]
    if kind == "excess":
        lenses.append(_neck_lens(seed, mount, float(half[1])))
    direction = component_rng(seed, "drift").normal(size=3) * (0.5, 1.0, 0.5)
    length = first.size * component_rng(seed, "drift", 1).uniform(0.02, 0.08)
    drift = length * direction / np.linalg.norm(direction)
    angles = component_rng(seed, "contact angles")
    return Liquor(
        kind=kind,
        lenses=tuple(lenses),
        drift=(float(drift[0]), float(drift[1]), float(drift[2])),
        bake_resolution=32,
        bake_frames=8,
        crystal_contact_angle=math.radians(angles.uniform(8.0, 40.0)),
        mount_contact_angle=math.radians(angles.uniform(15.0, 65.0)),
        kernel_width=0.018 * field,
        iterations=int(component_rng(seed, "relaxation").integers(10, 31)),
        bubble_radii=_draw_bubbles(seed, first.size) if variety.bubbles else (),
    )


def _lens(centre: np.ndarray, semi_axes: np.ndarray) -> Lens:
    x, y, z = (float(i) for i in centre)
    a, b, c = (float(i) for i in semi_axes)
    return Lens((x, y, z), (a, b, c))


def _neck_lens(seed: int, mount: Mount, half_thickness: float) -> Lens:
    """More liquor where ring and neck meet, as it stays when a loop is pulled out of a drop."""
    rng = component_rng(seed, "neck")
    below = -mount.aperture_height / 2 * (1 + rng.uniform(0.0, 0.15))
    width = mount.aperture_width * rng.uniform(0.18, 0.3)
    return _lens(
        np.array([0.0, 0.0, below]),
        np.array([width, max(0.8 * half_thickness, 0.7 * width), width * rng.uniform(0.9, 1.3)]),
    )


def _draw_bubbles(seed: int, size: float) -> tuple[float, ...]:
    rng = component_rng(seed, "bubbles")
    if rng.random() >= 0.25:
        return ()
    return tuple(float(size * r) for r in rng.uniform(0.03, 0.1, int(rng.integers(1, 5))))


def _draw_pose(seed: int, field: float, truncated: bool) -> Pose:
    rng = component_rng(seed, "pose")
    azimuth = float(rng.uniform(0, 2 * math.pi))
    direction = float(rng.uniform(0, 2 * math.pi))
    tilt = math.radians(float(rng.uniform(0, 8)))
    reach = 0.12 if truncated else 0.015
    x, y, z = (float(i) for i in rng.uniform(-reach, reach, 3) * field)
    return Pose(tilt=tilt, tilt_direction=direction, azimuth=azimuth, offset=(x, y, z))
