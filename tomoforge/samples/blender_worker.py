"""Blender's part of a sample: mother liquor draped around crystal and mount. The only module that imports bpy.

Runs in a process of its own, because Mantaflow works only on the thread that imported bpy, children of a
process that imported bpy fail, and Blender may abort at exit; either in Blender's Python wheel or in a
Blender executable, whose Python has NumPy and nothing else of ours:

    python -m tomoforge.samples.blender_worker FOLDER
    blender -b --factory-startup -t 1 --python-exit-code 1 -P blender_worker.py -- FOLDER

``FOLDER/job.json`` holds ``drift`` [m] (3, mount frame), ``bake_resolution`` and ``bake_frames``. ``FOLDER/bodies.npz``
holds ``<role>_<i>_vertices`` (v, 3) float64 [m] and ``<role>_<i>_triangles`` (t, 3) int64 of the roles ``obstacle`` and
``lens``, and ``probes`` (p, 3) float64 [m], points on the crystals. It writes ``FOLDER/liquor.npz``, alike, and
``FOLDER/record.json``; where no bake succeeds, the record says why and there is no liquor.
"""

import json
import logging
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

# Blender counts the processors once, as it is imported. Seen as one, its solver sums in one order
# on every machine, so the same job gives the same bytes, and a bake of two seconds is no faster
# with more.
_processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
if _processors:
    os.sched_setaffinity(0, {min(_processors)})
import bpy  # noqa: E402  # isort: skip
import bmesh  # noqa: E402  # isort: skip

if _processors:
    os.sched_setaffinity(0, _processors)

import numpy as np  # noqa: E402
from mathutils import Matrix, Vector  # noqa: E402
from mathutils.bvhtree import BVHTree  # noqa: E402

if __package__ in (None, ""):  # run by an executable: its Python does not know this package
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tomoforge.errors import StageError  # noqa: E402
from tomoforge.process import die_with_parent  # noqa: E402
from tomoforge.samples import mantaflow_repair  # noqa: E402

log = logging.getLogger(__name__)

# Blender's unit: one is 100 µm, so that a sample is a few units across, as the solver's defaults
# expect.
UNIT = 100e-6  # [m]
FRAMES_PER_SECOND = 24
# Share of the drift that each attempt uses; when all fail, the lens is relaxed as it is.
_FORCES = (1.0, 0.5, 0.2)
# The domain's margin around the liquor, and how near to its wall liquor counts as spilt, in cells.
_MARGIN_CELLS, _WALL_CELLS = 4.0, 2.5
# A bake that keeps less, or makes more, than this share of the lens went wrong.
_VOLUME_SHARES = (0.2, 1.6)
# Liquor this near to a point of the crystal wets it, in cells: the solver keeps half a cell off solids.
_WET_CELLS = 1.2
# A bake that wets less than this share of what the lens wetted has run off the crystal.
_LEAST_WETTED = 0.5
# A bake writes some megabytes; with less left on the disk its silence means a full disk.
_LEAST_FREE = 8e6  # [bytes]

Mesh = tuple[np.ndarray, np.ndarray]  # vertices (v, 3) in Blender units, triangles (t, 3)


def main(folder: Path) -> None:
    """Do the job that lies in ``folder``."""
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not bpy.app.binary_path:  # the wheel; an executable links its types in the right order
        mantaflow_repair.apply()
    job = json.loads((folder / "job.json").read_text())
    with np.load(folder / "bodies.npz", allow_pickle=False) as arrays:
        bodies = {role: _read(arrays, role) for role in ("obstacle", "lens")}
        probes = arrays["probes"] / UNIT
    try:
        liquor, record = drape(job, bodies["obstacle"], bodies["lens"], probes, folder / "cache")
    finally:
        # Frees Mantaflow's solver now; otherwise the process aborts at exit with status 134.
        bpy.ops.wm.read_factory_settings(use_empty=True)
    if liquor is not None:
        vertices, triangles = liquor
        np.savez(
            folder / "liquor.npz",
            liquor_0_vertices=vertices * UNIT,
            liquor_0_triangles=triangles.astype(np.int64),
        )
    record["blender"] = bpy.app.version_string
    # Last and whole: where it is missing, the worker did not get to its end.
    (folder / "record.tmp").write_text(json.dumps(record, sort_keys=True))
    os.replace(folder / "record.tmp", folder / "record.json")


def drape(
    job: dict[str, Any], obstacles: list[Mesh], lenses: list[Mesh], probes: np.ndarray, cache: Path
) -> tuple[Mesh | None, dict[str, Any]]:
    """The liquor after the strongest force that gives a usable bake, None where none does; and the record."""
    failures: list[str] = []
    for attempt, share in enumerate(_FORCES):
        place = cache / f"attempt_{attempt}"
        place.mkdir(parents=True)
        try:
            liquor, wetted = bake(job, obstacles, lenses, probes, share, place)
        except StageError as error:
            if shutil.disk_usage(place).free < _LEAST_FREE:
                raise StageError(f"the disk of {place.parent} is full: {error}") from error
            log.info("attempt %d: %s", attempt, error)
            failures.append(str(error))
        else:
            return liquor, {"drift_share": share, "bake_failures": failures, "bake_wetted": wetted}
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return None, {"drift_share": 0.0, "bake_failures": failures}


def bake(
    job: dict[str, Any],
    obstacles: list[Mesh],
    lenses: list[Mesh],
    probes: np.ndarray,
    share: float,
    cache: Path,
) -> tuple[Mesh, float]:
    """The lenses after some frames under ``share`` of the body force, and the share of the probes that they wet.

    Raises StageError where the bake gave no liquor, lost or gained too much of it, spilt it on the wall of
    the domain, or let it run off the crystal.
    """
    bpy.ops.wm.read_factory_settings(use_empty=True)
    solids = [mesh_object(f"obstacle_{i}", mesh) for i, mesh in enumerate(obstacles)]
    drops = [mesh_object(f"lens_{i}", mesh) for i, mesh in enumerate(lenses)]
    domain, middle, half, cell = _domain(job, lenses, probes)
    _simulate(job, domain, solids, drops, share, cache)
    vertices, faces = triangles(domain)
    # A bake that failed leaves the domain's own cube, without a word.
    if len(vertices) <= 8:
        raise StageError("Mantaflow returned no liquor")
    kept = abs(_volume(vertices, faces)) / sum(_volume(*lens) for lens in lenses)
    if not _VOLUME_SHARES[0] <= kept <= _VOLUME_SHARES[1]:
        raise StageError(f"the bake kept {kept:.2f} of the lens, expected {_VOLUME_SHARES}")
    if (np.abs(vertices - middle) > half - _WALL_CELLS * cell).any():
        raise StageError("the liquor reached the wall of the domain")
    before, after = _wetted(probes, lenses, cell), _wetted(probes, [(vertices, faces)], cell)
    if after < _LEAST_WETTED * before:
        raise StageError(f"the liquor ran off the crystal: it wets {after:.2f}, the lens wetted {before:.2f}")
    return (vertices, faces), after


# --- objects --------------------------------------------------------------------------------------


def _read(arrays: Any, role: str) -> list[Mesh]:
    meshes: list[Mesh] = []
    while f"{role}_{len(meshes)}_vertices" in arrays:
        key = f"{role}_{len(meshes)}"
        meshes.append((arrays[f"{key}_vertices"] / UNIT, arrays[f"{key}_triangles"]))
    return meshes


def mesh_object(name: str, mesh: Mesh) -> Any:
    """A Blender object of vertices (v, 3) in Blender units and triangles (t, 3)."""
    vertices, faces = mesh
    made = bpy.data.meshes.new(name)
    made.from_pydata(vertices.tolist(), [], faces.tolist())
    made.update()
    placed = bpy.data.objects.new(name, made)
    bpy.context.scene.collection.objects.link(placed)
    return placed


def triangles(made: Any) -> Mesh:
    """The evaluated object in world coordinates."""
    evaluated = made.evaluated_get(bpy.context.evaluated_depsgraph_get())
    mesh = evaluated.to_mesh()
    vertices = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", vertices)
    mesh.calc_loop_triangles()
    faces = np.empty(3 * len(mesh.loop_triangles), np.int32)
    mesh.loop_triangles.foreach_get("vertices", faces)
    world = np.array(evaluated.matrix_world)
    evaluated.to_mesh_clear()
    return vertices.reshape(-1, 3).astype(np.float64) @ world[:3, :3].T + world[:3, 3], faces.reshape(-1, 3)


# --- the fluid ------------------------------------------------------------------------------------


def _domain(
    job: dict[str, Any], lenses: list[Mesh], probes: np.ndarray
) -> tuple[Any, np.ndarray, np.ndarray, float]:
    """A box around crystals and lenses with a margin of some cells: object, middle, half sides, a cell's length."""
    points = np.concatenate([probes, *(vertices for vertices, _ in lenses)])
    low, high = points.min(axis=0), points.max(axis=0)
    middle, half = (low + high) / 2, 1.1 * (high - low) / 2
    cell = 2 * half.max() / (job["bake_resolution"] - 2 * _MARGIN_CELLS)
    half = half + _MARGIN_CELLS * cell
    shape = bmesh.new()
    bmesh.ops.create_cube(
        shape, size=2.0, matrix=Matrix.Translation(middle.tolist()) @ Matrix.Diagonal((*half.tolist(), 1.0))
    )
    mesh = bpy.data.meshes.new("domain")
    shape.to_mesh(mesh)
    shape.free()
    domain = bpy.data.objects.new("domain", mesh)
    bpy.context.scene.collection.objects.link(domain)
    bpy.context.view_layer.update()
    return domain, middle, half, float(cell)


def _simulate(
    job: dict[str, Any], domain: Any, solids: list[Any], drops: list[Any], share: float, cache: Path
) -> None:
    scene = bpy.context.scene
    frames = job["bake_frames"]
    duration = frames / FRAMES_PER_SECOND
    # A free drop falls ½ g t²: the force that carries it by the drift during the bake.
    force = [2 * share * d / UNIT / duration**2 for d in job["drift"]]
    scene.use_gravity = True
    scene.gravity = force
    scene.frame_start, scene.frame_end = 1, frames
    settings = _fluid(domain, "DOMAIN").domain_settings
    settings.domain_type = "LIQUID"
    settings.resolution_max = job["bake_resolution"]
    settings.cache_type = "REPLAY"
    settings.cache_directory = str(cache)
    settings.cache_frame_start, settings.cache_frame_end = 1, frames
    settings.use_mesh = True
    settings.gravity = force
    # Surface tension has no effect in Blender's script; the wetting relaxation makes the menisci.
    settings.use_diffusion = True
    settings.use_adaptive_timesteps = True
    settings.timesteps_max = 4
    for drop in drops:
        flow = _fluid(drop, "FLOW").flow_settings
        flow.flow_type, flow.flow_behavior = "LIQUID", "GEOMETRY"
    for solid in solids:
        effector = _fluid(solid, "EFFECTOR").effector_settings
        effector.effector_type = "COLLISION"
        effector.surface_distance = 0.0
    for frame in range(1, frames + 1):
        scene.frame_set(frame)


def _fluid(made: Any, role: str) -> Any:
    modifier = made.modifiers.new("Fluid", "FLUID")
    modifier.fluid_type = role
    return modifier


def _wetted(probes: np.ndarray, bodies: list[Mesh], cell: float) -> float:
    """Share of the points that lie in one of the bodies or nearer to its surface than the solver resolves."""
    wet = np.zeros(len(probes), dtype=bool)
    for vertices, faces in bodies:
        tree = BVHTree.FromPolygons(vertices.tolist(), faces.tolist())
        for i, point in enumerate(probes):
            where, normal, _, distance = tree.find_nearest(Vector(point))
            if where is not None:
                # Beneath the nearest face, seen along its outward normal, is inside.
                wet[i] |= distance < _WET_CELLS * cell or (Vector(point) - where).dot(normal) < 0
    return float(wet.mean())


def _volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return math.fsum(np.einsum("ij,ij->i", a, np.cross(b, c))) / 6


if __name__ == "__main__":
    main(Path(sys.argv[-1]))
