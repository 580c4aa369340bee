"""What a sample is made from: the records that a recipe holds, and their JSON.

Frames: the mount frame of ``tomoforge.samples.mount`` (loop in x–z, stem down −z) holds crystals, loop and liquor;
the pose carries it into the sample frame, where z is the rotation axis and the origin the field's centre.
"""

import json
import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

import numpy as np
from scipy.spatial.transform import Rotation

from tomoforge.errors import ConfigError
from tomoforge.samples.crystal import Polyhedron
from tomoforge.samples.granular import PackingPlan
from tomoforge.samples.habits import Habit
from tomoforge.samples.mesh import TriangleMesh
from tomoforge.samples.mount import MOUNTS, Mount
from tomoforge.samples.variation import CrystalBody, CrystalVariation, vary_crystal
from tomoforge.seeds import component_seed
from tomoforge.storage import to_json as canonical_json
from tomoforge.volumes import LABEL_NAMES

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]


@dataclass(frozen=True)
class PlacedCrystal:
    """A crystal with its flaws, where it lies.

    size : greatest extent of the flawless crystal [m]; orientation : unit quaternion (x, y, z, w), crystal's
    Cartesian axes to mount frame; centre : of the flawless crystal's vertices, mount frame [m]
    """

    habit: Habit
    size: float
    orientation: Quaternion
    centre: Vector
    variation: CrystalVariation

    def __post_init__(self) -> None:
        _check_positive({"crystal.size": self.size})
        if abs(np.linalg.norm(self.orientation) - 1) > 1e-6:
            raise ConfigError(f"crystal.orientation must be a unit quaternion, got {self.orientation}")

    def polyhedron(self) -> Polyhedron:
        """The flawless crystal in its own axes, ``size`` [m] across."""
        solid = self.habit.polyhedron()
        return solid.scaled(self.size / solid.diameter)

    def body(self, seed: int) -> CrystalBody:
        """The crystal with its flaws in the mount frame; ``seed`` decides how the flaws look."""
        solid = self.polyhedron()
        made = vary_crystal(solid, self.variation, seed)
        turn = Rotation.from_quat(self.orientation).as_matrix()
        shift = np.array(self.centre) - turn @ solid.vertices.mean(axis=0)
        return made.moved(turn, shift)


@dataclass(frozen=True)
class Lens:
    """An ellipsoid of liquor before it is draped: centre and semi-axes [m], x, y, z of the mount frame."""

    centre: Vector
    semi_axes: Vector


@dataclass(frozen=True)
class Liquor:
    """Mother liquor: lenses in and on the loop, draped by a short fluid simulation, then relaxed by wetting.

    kind : what it was drawn as, one of ``LIQUOR_KINDS``
    drift : how far the simulation's body force carries free liquor [m], x, y, z of the mount frame
    bake_resolution : cells of the simulation along its longest side; bake_frames : its length in frames
    crystal_contact_angle, mount_contact_angle : [rad]
    kernel_width : σ of the relaxation's Gaussian [m]: features smaller than this are smoothed away
    iterations : most steps of the relaxation
    bubble_radii : of the gas bubbles in it [m]; they find their places in the relaxed liquor
    """

    kind: str
    lenses: tuple[Lens, ...]
    drift: Vector
    bake_resolution: int
    bake_frames: int
    crystal_contact_angle: float
    mount_contact_angle: float
    kernel_width: float
    iterations: int
    bubble_radii: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.kind not in LIQUOR_KINDS:
            raise ConfigError(f"liquor.kind must be one of {', '.join(LIQUOR_KINDS)}, got {self.kind!r}")
        if not self.lenses:
            raise ConfigError("liquor.lenses must hold at least one lens, got none")
        _check_positive(
            {
                "liquor.lenses' semi_axes": min(min(lens.semi_axes) for lens in self.lenses),
                "liquor.bake_resolution": self.bake_resolution,
                "liquor.bake_frames": self.bake_frames,
                "liquor.kernel_width": self.kernel_width,
                "liquor.iterations": self.iterations,
                "liquor.bubble_radii": min(self.bubble_radii, default=1.0),
            }
        )
        for name in ("crystal_contact_angle", "mount_contact_angle"):
            if not 0 <= getattr(self, name) <= math.pi:
                raise ConfigError(f"liquor.{name} must lie in 0…π radians, got {getattr(self, name)!r}")


# A film that spans the aperture, a drop that drowns the crystal, a lens that leaves corners of the aperture
# dry, a drop with more of it on the neck.
LIQUOR_KINDS = ("film", "drop", "partial", "excess")


@dataclass(frozen=True)
class Pose:
    """Mount frame to sample frame: tilt, turn about z, shift.

    tilt : angle of the stem to the rotation axis [rad], about the mount frame's axis (cos, sin, 0) of
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

    def placed(self, parts: tuple[TriangleMesh, ...]) -> tuple[TriangleMesh, ...]:
        """Meshes of the mount frame in the sample frame."""
        rotation, offset = self.rotation(), np.array(self.offset)
        return tuple(part.moved(rotation, offset) for part in parts)


@dataclass(frozen=True)
class SampleRecipe(ABC):
    """Everything that determines a sample; one of ``ProteinRecipe`` and ``GranularRecipe``.

    seed : of what is drawn while it is built; field_of_view : side of the cube around the rotation axis [m]
    """

    family: ClassVar[str] = ""
    seed: int
    field_of_view: float

    def __post_init__(self) -> None:
        _check_positive({"field_of_view": self.field_of_view})

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is, in some words."""

    @abstractmethod
    def label_names(self) -> dict[str, int]:
        """The names of its labels."""

    def to_json(self) -> str:
        """Canonical JSON; ``from_json`` gives back an equal recipe."""
        plain = _plain(self)
        return canonical_json({**plain, "family": self.family})

    @staticmethod
    def from_json(text: str | bytes) -> "SampleRecipe":
        """The recipe of ``to_json``. ConfigError for an unknown family, and unknown, missing or mistyped keys."""
        try:
            plain = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"a recipe must be JSON, got {text[:40]!r}…: {error}") from error
        family = plain.pop("family", None) if isinstance(plain, dict) else None
        if family not in FAMILIES:
            raise ConfigError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
        return _built(FAMILIES[family], plain, "recipe")


@dataclass(frozen=True)
class ProteinRecipe(SampleRecipe):
    """Crystals in mother liquor on a mount.

    crystals : the one that is measured first; truncated : whether more than the stem leaves the field
    """

    family: ClassVar[str] = "protein_crystal"
    crystals: tuple[PlacedCrystal, ...]
    mount: Mount
    liquor: Liquor
    pose: Pose
    truncated: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.crystals:
            raise ConfigError("crystals must hold at least one crystal, got none")

    @property
    def title(self) -> str:
        """Such as 'thaumatin crystal, nylon loop'."""
        others = f" and {len(self.crystals) - 1} more" if len(self.crystals) > 1 else ""
        return f"{self.crystals[0].habit.name} crystal{others}, {self.mount.kind} mount"

    def label_names(self) -> dict[str, int]:
        """background, liquor, loop, crystal."""
        return dict(LABEL_NAMES)

    def crystal_bodies(self) -> tuple[CrystalBody, ...]:
        """The crystals with their flaws in the mount frame."""
        return tuple(
            crystal.body(component_seed(self.seed, "crystal", i)) for i, crystal in enumerate(self.crystals)
        )


@dataclass(frozen=True)
class GranularRecipe(SampleRecipe):
    """Grains of some phases in a box, without mount or liquor."""

    family: ClassVar[str] = "granular"
    plan: PackingPlan

    @property
    def title(self) -> str:
        """Such as 'granular, 3-D, active and carbon'."""
        return f"granular, {self.plan.dimensions}-D, {' and '.join(p.name for p in self.plan.phases)}"

    def label_names(self) -> dict[str, int]:
        """background and a label a phase."""
        return self.plan.label_names()


FAMILIES: dict[str, type[SampleRecipe]] = {kind.family: kind for kind in (ProteinRecipe, GranularRecipe)}


def _check_positive(values: dict[str, float]) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} must be positive, got {value!r}")


# --- frozen dataclasses to JSON and back ----------------------------------------------------------


def _plain(record: Any) -> dict[str, Any]:
    plain = asdict(record)
    if isinstance(record, ProteinRecipe):
        plain["mount"]["kind"] = record.mount.kind
    return plain


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
    whole = kind is int and number and float(plain).is_integer()
    if whole or (kind in (str, bool) and isinstance(plain, kind)):
        return kind(plain)
    raise ConfigError(f"{where} must be a {getattr(kind, '__name__', kind)}, got {plain!r}")


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
