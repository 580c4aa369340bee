"""From a recipe to a labelled volume: meshes, draped and relaxed liquor, voxels, and a judgement of the result."""

import logging
import math
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation

from tomoforge.errors import InputError, StageError
from tomoforge.samples.engines import Draping, Engine, drape, find_engine
from tomoforge.samples.gates import check_granular, check_protein
from tomoforge.samples.granular import packing_slab
from tomoforge.samples.liquor import place_bubbles, relax_wetting, sample_level, without_splashes
from tomoforge.samples.measures import sample_measures
from tomoforge.samples.mesh import TriangleMesh, ellipsoid, surface_points
from tomoforge.samples.mount_mesh import mount_meshes
from tomoforge.samples.records import GranularRecipe, ProteinRecipe, SampleRecipe
from tomoforge.samples.voxelize import Bodies, Solid, checked_shape, field_origin
from tomoforge.seeds import component_rng
from tomoforge.volumes import LABEL_NAMES, SLAB

log = logging.getLogger(__name__)

BLENDER_TIMEOUT_S = 180.0

# Voxels of the relaxation's grid across its kernel's σ: fewer pin the surface to the grid.
_VOXELS_A_KERNEL = 2.0
# Air around the liquor on the relaxation's grid, in kernel widths: the Gaussian reaches three.
_MARGIN_KERNELS = 5.0
# A field larger than the recipe's shows more air, up to where the stem would end inside it.
_LARGEST_FIELD = 1.5
# Relaxed liquor that wets less than this share of the crystals has dewetted.
_LEAST_WETTED = 0.1
_PROBES = 300


@dataclass(frozen=True, eq=False)
class ForgedSample:
    """A sample in the sample frame.

    labels : (z, y, x) uint8; of a protein sample 0 background · 1 liquor · 2 loop · 3 crystal, of a granular one
        0 background and a label a phase
    names : of the labels
    meshes : closed meshes [m] of a protein sample: 'crystal', 'loop', 'voids' (cracks and pits taken from the crystal),
        'liquor' (as draped, before its relaxation); empty for a granular one
    record : how it came about and what it is: JSON values; all but ``cpu_seconds`` [s] repeat with the recipe
    fractions : on request, name -> occupied fraction of each voxel (z, y, x) float32; their sum is at most 1
    """

    labels: np.ndarray
    names: Mapping[str, int]
    meshes: Mapping[str, tuple[TriangleMesh, ...]]
    record: dict[str, Any]
    fractions: Mapping[str, np.ndarray] = field(default_factory=dict)


def forge_sample(
    recipe: SampleRecipe,
    grid: int | tuple[int, int, int],
    voxel_size: float,
    *,
    engine: str | Engine = "auto",
    fractions: bool = False,
    timeout_s: float = BLENDER_TIMEOUT_S,
) -> ForgedSample:
    """Build the sample of ``recipe`` on voxels. The same recipe, grid and engine give the same bytes.

    Parameters
    ----------
    recipe : SampleRecipe
    grid : voxels along z, y, x, or one number for a cube; the field's middle is the rotation axis
    voxel_size : float [m]
    engine : what drapes the liquor, one of ``engines.ENGINES`` or what ``find_engine`` returned; the record says which
        it was
    fractions : whether to give the occupied fraction of each voxel, too
    timeout_s : longest time for Blender [s]

    Raises
    ------
    InputError
        for a grid or voxel size that is not positive, or a field that does not suit the recipe.
    MissingComponentError
        where the engine is not there.
    WorkerDiedError
        where Blender is killed, crashes or hangs.
    SampleRejectedError
        where the sample fails a quality gate; its ``reason`` is for counting, its message for reading.
    StageError
        where Blender fails otherwise.
    """
    shape = _checked_field(recipe, grid, voxel_size)
    if isinstance(recipe, GranularRecipe):
        return _forge_granular(recipe, shape, voxel_size)
    assert isinstance(recipe, ProteinRecipe)
    used = find_engine(engine) if isinstance(engine, str) else engine
    return _forge_protein(recipe, shape, voxel_size, used, fractions, timeout_s)


def _forge_granular(recipe: GranularRecipe, shape: tuple[int, int, int], voxel_size: float) -> ForgedSample:
    started = _cpu_seconds()
    packing = recipe.plan.pack(recipe.seed)
    packed = _cpu_seconds()
    labels = np.zeros(shape, dtype=np.uint8)
    for z0, z1 in _slabs(shape[0]):
        labels[z0:z1] = packing_slab(packing, shape, voxel_size, z0, z1)
    names = recipe.label_names()
    measures = sample_measures(labels, voxel_size, names)
    achieved = {
        "packing_fraction": packing.packing_fraction,
        "requested_packing_fraction": packing.requested_fraction,
        "grains": len(packing.radii),
        "grains_left_out": packing.left_out,
    }
    check_granular(measures, names)
    record = {
        "title": recipe.title,
        **achieved,
        **measures,
        "voxel_size": voxel_size,
        "shape": list(shape),
        "cpu_seconds": {"packing": packed - started, "voxelization": _cpu_seconds() - packed},
    }
    return ForgedSample(labels, names, {}, record)


def _forge_protein(
    recipe: ProteinRecipe,
    shape: tuple[int, int, int],
    voxel_size: float,
    engine: Engine,
    with_fractions: bool,
    timeout_s: float,
) -> ForgedSample:
    clock = [_cpu_seconds()]
    meshes = _solid_meshes(recipe)
    clock.append(_cpu_seconds())
    lenses = tuple(ellipsoid(lens.centre, lens.semi_axes) for lens in recipe.liquor.lenses)
    draping = drape(
        engine,
        obstacles=[*meshes["crystal"], *meshes["loop"]],
        lenses=lenses,
        probes=surface_points(meshes["crystal"], _PROBES),
        drift=recipe.liquor.drift,
        resolution=recipe.liquor.bake_resolution,
        frames=recipe.liquor.bake_frames,
        timeout_s=timeout_s,
    )
    clock.append(_cpu_seconds())
    liquor, film, how = _relaxed(recipe, meshes, draping, lenses)
    clock.append(_cpu_seconds())
    placed = {name: recipe.pose.placed(parts) for name, parts in {**meshes, "liquor": liquor}.items()}
    labels, occupied = _voxels(recipe, placed, film, shape, voxel_size, with_fractions)
    clock.append(_cpu_seconds())
    measures = sample_measures(labels, voxel_size, LABEL_NAMES)
    record = {
        "title": recipe.title,
        "engine": engine.title,
        **draping.record,
        **how,
        **measures,
        **_drawn(recipe),
        "voxel_size": voxel_size,
        "shape": list(shape),
    }
    check_protein(record, labels, recipe)
    clock.append(_cpu_seconds())
    stages = ("geometry", "bake", "relaxation", "voxelization", "gates")
    record["cpu_seconds"] = dict(zip(stages, np.diff(clock).tolist(), strict=True))
    log.info("sample %d: %s, %s by %s", recipe.seed, recipe.title, record["liquor"], engine.title)
    return ForgedSample(labels, dict(LABEL_NAMES), placed, record, occupied)


def _solid_meshes(recipe: ProteinRecipe) -> dict[str, tuple[TriangleMesh, ...]]:
    """Crystals, what is taken from them, and the mount, in the mount frame."""
    bodies = recipe.crystal_bodies()
    return {
        "crystal": tuple(part for body in bodies for part in body.solids),
        "voids": tuple(part for body in bodies for part in body.voids),
        "loop": mount_meshes(recipe.mount, reach=_LARGEST_FIELD * recipe.field_of_view),
    }


def _drawn(recipe: ProteinRecipe) -> dict[str, Any]:
    """What a set's distributions show of the recipe."""
    first, liquor = recipe.crystals[0], recipe.liquor
    return {
        "habit": first.habit.name,
        "mount": recipe.mount.kind,
        "crystals": len(recipe.crystals),
        "drawn_size": first.size,
        "liquor_kind": liquor.kind,
        "crystal_contact_angle": liquor.crystal_contact_angle,
        "mount_contact_angle": liquor.mount_contact_angle,
        "tilt": recipe.pose.tilt,
        "azimuth": recipe.pose.azimuth,
        "truncated": recipe.truncated,
    }


# --- the liquor -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Film:
    """Relaxed liquor on a grid in the mount frame.

    origin : (3,) [m], x, y, z of voxel (0, 0, 0); voxel_size [m]; bubbles : (centre (3,) [m], x, y, z; radius [m])
    """

    level: np.ndarray
    origin: np.ndarray
    voxel_size: float
    bubbles: tuple[tuple[np.ndarray, float], ...]


def _relaxed(
    recipe: ProteinRecipe,
    meshes: Mapping[str, tuple[TriangleMesh, ...]],
    draping: Draping,
    lenses: tuple[TriangleMesh, ...],
) -> tuple[tuple[TriangleMesh, ...], _Film, dict[str, Any]]:
    """The liquor as draped (or the lenses, where that failed), relaxed; and how it came about."""
    found = [("analytic_lens", lenses)]
    if draping.liquor is not None:
        found.insert(0, ("mantaflow", draping.liquor))
    dewetted: list[str] = []
    for how, liquor in found:
        film, record = _relax(recipe, meshes, liquor)
        if record["wetted_on_relaxation_grid"] >= _LEAST_WETTED:
            break
        dewetted.append(how)
    return liquor, film, {"liquor": how, "dewetted": dewetted, **record}


def _relax(
    recipe: ProteinRecipe,
    meshes: Mapping[str, tuple[TriangleMesh, ...]],
    liquor: Sequence[TriangleMesh],
) -> tuple[_Film, dict[str, Any]]:
    drawn = recipe.liquor
    size = drawn.kernel_width / _VOXELS_A_KERNEL
    margin = _MARGIN_KERNELS * drawn.kernel_width
    low = np.min([mesh.bounds[0] for mesh in liquor], axis=0) - margin
    high = np.max([mesh.bounds[1] for mesh in liquor], axis=0) + margin
    n_x, n_y, n_z = (int(n) for n in np.ceil((high - low) / size) + 1)
    shape, origin = (n_z, n_y, n_x), (float(low[0]), float(low[1]), float(low[2]))
    crystal, mount, wet = (
        Solid(parts, shape, size, origin).inside(0, n_z)
        for parts in (meshes["crystal"], meshes["loop"], liquor)
    )
    solid = crystal | mount
    if not (wet & ~solid).any():
        raise StageError("the draped liquor has no voxel outside crystal and mount")
    walls = [(crystal, drawn.crystal_contact_angle), (mount, drawn.mount_contact_angle)]
    relaxed = relax_wetting(wet, walls, _VOXELS_A_KERNEL, drawn.iterations)
    relaxed = without_splashes(relaxed, solid)
    rng = component_rng(recipe.seed, "bubble places")
    bubbles = place_bubbles(relaxed.wet, solid, [r / size for r in drawn.bubble_radii], rng)
    shell = binary_dilation(crystal) & ~solid
    record = {
        "relaxation_steps": relaxed.steps,
        "wetted_on_relaxation_grid": float((shell & relaxed.wet).sum() / max(1, shell.sum())),
        "bubbles": len(bubbles),
    }
    film = _Film(relaxed.level, low, size, tuple((low + size * c[::-1], size * r) for c, r in bubbles))
    return film, record


# --- voxels ---------------------------------------------------------------------------------------


def _voxels(
    recipe: ProteinRecipe,
    placed: Mapping[str, Sequence[TriangleMesh]],
    film: _Film,
    shape: tuple[int, int, int],
    voxel_size: float,
    with_fractions: bool,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels and, on request, fractions, a slab at a time."""
    solids = Bodies({"loop": placed["loop"], "crystal": placed["crystal"]}, shape, voxel_size)
    voids = Solid(placed["voids"], shape, voxel_size) if placed["voids"] else None
    wetting = _Wetting(recipe, film, shape, voxel_size)
    labels = np.zeros(shape, dtype=np.uint8)
    names = ("liquor", "loop", "crystal") if with_fractions else ()
    occupied = {name: np.zeros(shape, dtype=np.float32) for name in names}
    for z0, z1 in _slabs(shape[0]):
        slab = labels[z0:z1]
        solids.label_into(slab, z0)
        if voids is not None:
            slab[voids.inside(z0, z1) & (slab == LABEL_NAMES["crystal"])] = 0
        slab[wetting.inside(z0, z1) & (slab == 0)] = LABEL_NAMES["liquor"]
        if with_fractions:
            taken = solids.fractions(z0, z1)
            if voids is not None:
                taken["crystal"] = np.maximum(taken["crystal"] - voids.fraction(z0, z1), 0)
            room = 1 - taken["crystal"] - taken["loop"]
            taken["liquor"] = np.clip(wetting.fraction(z0, z1) * room, 0, 1)
            for name in names:
                occupied[name][z0:z1] = taken[name]
    return labels, occupied


class _Wetting:
    """The relaxed liquor in the field's voxels, slab by slab; solids are not taken out."""

    def __init__(
        self, recipe: ProteinRecipe, film: _Film, shape: tuple[int, int, int], voxel_size: float
    ) -> None:
        rotation, offset = recipe.pose.rotation(), np.array(recipe.pose.offset)
        self._first = field_origin(shape, voxel_size)
        # Index of the field (z, y, x) to index of the level: sample frame, then mount frame, then its grid.
        matrix = rotation.T * (voxel_size / film.voxel_size)
        start = (rotation.T @ (self._first - offset) - film.origin) / film.voxel_size
        self._matrix = np.ascontiguousarray(matrix[::-1, ::-1])
        self._start = start[::-1].copy()
        self._level = np.ascontiguousarray(film.level, dtype=np.float32)
        self._bubbles = [(rotation @ centre + offset, radius) for centre, radius in film.bubbles]
        self._shape, self._voxel_size = shape, voxel_size

    def inside(self, z0: int, z1: int) -> np.ndarray:
        """Which voxel centres of planes z0 ≤ z < z1 lie in the liquor: (z, y, x) bool."""
        wet = self._sampled(z0, z1, (0.0, 0.0, 0.0)) >= 0
        for box, distance in self._near_bubbles(z0, z1):
            wet[box] &= distance > 0
        return wet

    def fraction(self, z0: int, z1: int) -> np.ndarray:
        """Share of each voxel that is liquor, its surface taken as plane within the voxel: (z, y, x) float32."""
        width = np.zeros((z1 - z0, *self._shape[1:]), dtype=np.float32)
        for axis in np.eye(3):
            ahead, behind = (self._sampled(z0, z1, tuple(sign * axis)) for sign in (0.5, -0.5))
            width += np.abs(ahead - behind)
        share = np.clip(0.5 + self._sampled(z0, z1, (0.0, 0.0, 0.0)) / np.maximum(width, 1e-9), 0, 1)
        for box, distance in self._near_bubbles(z0, z1):
            share[box] *= np.clip(0.5 + distance / self._voxel_size, 0, 1)
        return share

    def _sampled(self, z0: int, z1: int, shift: tuple[float, float, float]) -> np.ndarray:
        """The level at the voxels of planes z0 ≤ z < z1, shifted by parts of a voxel (z, y, x)."""
        out = np.empty((z1 - z0, *self._shape[1:]), dtype=np.float32)
        start = self._start + self._matrix @ np.add(shift, (z0, 0, 0))
        sample_level(self._level, self._matrix, start, out)
        return out

    def _near_bubbles(self, z0: int, z1: int) -> Iterator[tuple[tuple[slice, slice, slice], np.ndarray]]:
        """For each bubble its box in the slab, and the distance [m] to its surface there, negative inside."""
        for centre, radius in self._bubbles:
            at, reach = (centre - self._first) / self._voxel_size, radius / self._voxel_size + 1
            low = np.maximum(np.floor(at - reach).astype(int), (0, 0, z0))
            high = np.minimum(np.ceil(at + reach).astype(int) + 1, (self._shape[2], self._shape[1], z1))
            if (low >= high).any():
                continue
            x, y, z = (np.arange(low[i], high[i]) - at[i] for i in range(3))
            apart = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2) * self._voxel_size - radius
            yield (slice(low[2] - z0, high[2] - z0), slice(low[1], high[1]), slice(low[0], high[0])), apart


def _slabs(planes: int) -> Iterator[tuple[int, int]]:
    for z0 in range(0, planes, SLAB):
        yield z0, min(z0 + SLAB, planes)


def _checked_field(
    recipe: SampleRecipe, grid: int | tuple[int, int, int], voxel_size: float
) -> tuple[int, int, int]:
    shape = checked_shape((grid, grid, grid) if isinstance(grid, (int, np.integer)) else grid)
    if not (math.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be positive metres, got {voxel_size!r}")
    sides = [n * voxel_size for n in shape]
    if isinstance(recipe, GranularRecipe) and recipe.plan.dimensions == 2:
        sides = sides[1:]
    least, most = 0.999 * recipe.field_of_view, _LARGEST_FIELD * recipe.field_of_view
    if min(sides) < least or max(sides) > most:
        raise InputError(
            f"grid × voxel_size must lie between the recipe's field of view "
            f"{recipe.field_of_view:g} m and {_LARGEST_FIELD} times that, got "
            f"{', '.join(f'{s:g}' for s in sides)} m along z, y, x; "
            "draw the recipe with this field_of_view or change the voxel size"
        )
    return shape


def _cpu_seconds() -> float:
    """Processor time [s] of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
