"""Blender's part of a sample: crystal, loop and draped liquor as meshes. The only module that
imports bpy.

Run as ``python -m tomoforge.samples.blender_worker JOB.json`` in a process of its own: Mantaflow
works only on the thread that imported bpy, children of a process that imported bpy fail, and
Blender may abort at exit.

The job (SI, mount frame): ``meshes`` and ``record`` (paths to write), ``cache`` (an empty folder),
``crystal`` {vertices, faces}, ``mount`` {kind, …}, ``liquor`` {lens_semi_axes, drift,
bake_resolution, bake_frames}. It writes an .npz with ``<name>_<i>_vertices`` (v, 3) float64 [m] and
``<name>_<i>_triangles`` (t, 3) int64 for crystal, loop and liquor, and a JSON record that says how
the liquor came about.
"""

import json
import logging
import math
import os
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
from mathutils import Matrix  # noqa: E402

from tomoforge.errors import InputError, StageError  # noqa: E402
from tomoforge.process import die_with_parent  # noqa: E402
from tomoforge.samples import mantaflow_repair  # noqa: E402
from tomoforge.samples import mount as mounts  # noqa: E402
from tomoforge.storage import write_json_atomic  # noqa: E402

log = logging.getLogger(__name__)

# Blender's unit: one is 100 µm, so that a sample is a few units across, as the solver's defaults
# expect.
UNIT = 100e-6  # [m]
FRAMES_PER_SECOND = 24
# Share of the drift that each attempt uses before the lens is taken as it is.
_FORCES = (1.0, 0.5, 0.2)
# The domain's margin around the ring, and how near to its wall liquor counts as spilt, in cells.
_MARGIN_CELLS, _WALL_CELLS = 4.0, 2.5
_RING_SEGMENTS, _WIRE_SEGMENTS = 128, 8
# A bake that keeps less, or makes more, than this share of the lens went wrong.
_VOLUME_SHARES = (0.2, 1.6)

Mesh = tuple[np.ndarray, np.ndarray]  # vertices (v, 3) in Blender units, triangles (t, 3)


def main(argv: list[str]) -> None:
    """Do the job described by the JSON file ``argv[0]``."""
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    mantaflow_repair.apply()
    job = json.loads(Path(argv[0]).read_text())
    try:
        meshes, record = build(job)
    finally:
        # Frees Mantaflow's solver now; otherwise the process aborts at exit with status 134.
        bpy.ops.wm.read_factory_settings(use_empty=True)
    arrays = {}
    for name, parts in meshes.items():
        for i, (vertices, triangles) in enumerate(parts):
            arrays[f"{name}_{i}_vertices"] = vertices.astype(np.float64) * UNIT
            arrays[f"{name}_{i}_triangles"] = triangles.astype(np.int64)
    np.savez(job["meshes"], **arrays)
    write_json_atomic(job["record"], {**record, "blender": bpy.app.version_string})


def build(job: dict[str, Any]) -> tuple[dict[str, list[Mesh]], dict[str, Any]]:
    """All meshes of the job in Blender units, and the record of the liquor."""
    solids: dict[str, list[Mesh]] = {}
    lens: Mesh | None = None
    failures: list[str] = []
    for attempt, share in enumerate(_FORCES):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        crystal = crystal_object(job["crystal"])
        loop = loop_objects(job["mount"])
        drop = lens_object(job["liquor"]["lens_semi_axes"])
        bpy.context.view_layer.update()
        if not solids:
            solids = {"crystal": [triangles(crystal)], "loop": [triangles(part) for part in loop]}
            lens = triangles(drop)
        cache = Path(job["cache"]) / f"attempt_{attempt}"
        try:
            liquid = bake(job, [crystal, *loop], drop, share, cache)
        except StageError as error:
            log.info("attempt %d: %s", attempt, error)
            failures.append(str(error))
            continue
        record = {"liquor": "mantaflow", "drift_share": share, "failures": failures}
        return {**solids, "liquor": [liquid]}, record
    assert lens is not None
    record = {"liquor": "analytic_lens", "drift_share": 0.0, "failures": failures}
    return {**solids, "liquor": [lens]}, record


# --- objects --------------------------------------------------------------------------------------


def crystal_object(crystal: dict[str, Any]) -> bpy.types.Object:
    """The polyhedron with its own faces: vertices [m], faces as lists of vertex indices."""
    shape = bmesh.new()
    corners = [shape.verts.new([x / UNIT for x in vertex]) for vertex in crystal["vertices"]]
    for face in crystal["faces"]:
        shape.faces.new([corners[i] for i in face])
    return _object("crystal", shape)


def loop_objects(mount: dict[str, Any]) -> list[bpy.types.Object]:
    """The loop as closed parts that overlap: a ring and its stem, voxelized apart and united there.

    One mesh of overlapping parts would have inside-out regions by ray parity.
    """
    sizes = {key: value for key, value in mount.items() if key != "kind"}
    if mount["kind"] == mounts.NylonLoop.kind:
        nylon = mounts.NylonLoop(**sizes)
        strands = mounts.wire_strands(nylon)
        ring = _wire("ring", mounts.wire_ring(nylon, _RING_SEGMENTS), nylon.wire_radius, True)
        return [
            ring,
            *(_wire(f"strand_{i}", s, nylon.wire_radius, False) for i, s in enumerate(strands)),
        ]
    if mount["kind"] == mounts.PolymerLoop.kind:
        polymer = mounts.PolymerLoop(**sizes)
        ring = _sheet("ring", *mounts.sheet_ring(polymer, _RING_SEGMENTS), polymer, True)
        return [ring, _sheet("neck", *_finer(*mounts.sheet_neck(polymer)), polymer, False)]
    raise InputError(f"mount.kind must be one of {', '.join(mounts.MOUNTS)}, got {mount['kind']!r}")


def lens_object(semi_axes: list[float]) -> bpy.types.Object:
    """An ellipsoid of the given semi-axes [m] around the origin."""
    shape = bmesh.new()
    size = [a / UNIT for a in semi_axes]
    bmesh.ops.create_icosphere(shape, subdivisions=4, radius=1.0, matrix=Matrix.Diagonal((*size, 1.0)))
    return _object("lens", shape)


def _object(name: str, shape: bmesh.types.BMesh) -> bpy.types.Object:
    bmesh.ops.recalc_face_normals(shape, faces=shape.faces)
    mesh = bpy.data.meshes.new(name)
    shape.to_mesh(mesh)
    shape.free()
    made = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(made)
    return made


def _wire(name: str, line: np.ndarray, radius: float, closed: bool) -> bpy.types.Object:
    """A round tube around a centre line (n, 3) [m]; open lines get flat caps."""
    curve = bpy.data.curves.new(name, "CURVE")
    curve.dimensions = "3D"
    curve.bevel_depth = radius / UNIT
    curve.bevel_resolution = _WIRE_SEGMENTS
    curve.use_fill_caps = True
    spline = curve.splines.new("POLY")
    spline.points.add(len(line) - 1)
    points = np.c_[line / UNIT, np.ones(len(line))].astype(np.float32)
    spline.points.foreach_set("co", points.ravel())
    spline.use_cyclic_u = closed
    source = bpy.data.objects.new(f"{name}_curve", curve)
    bpy.context.scene.collection.objects.link(source)
    evaluated = source.evaluated_get(bpy.context.evaluated_depsgraph_get())
    shape = bmesh.new()
    shape.from_mesh(bpy.data.meshes.new_from_object(evaluated))
    bpy.data.objects.remove(source)
    # The caps come as faces of their own: joined to the tube, the mesh is closed.
    bmesh.ops.remove_doubles(shape, verts=shape.verts, dist=1e-3 * radius / UNIT)
    return _object(name, shape)


def _finer(left: np.ndarray, right: np.ndarray, columns: int = 12) -> list[np.ndarray]:
    """Lines between two edges, so that a wide strip can curl: ``columns`` + 1 of (n, 3)."""
    return [left + (right - left) * k / columns for k in range(columns + 1)]


def _sheet(name: str, *arguments: Any) -> bpy.types.Object:
    """A curled strip of the sheet between lines (n, 3) [m] that run side by side; closed lines make
    a ring."""
    *lines, loop, closed = arguments
    rows = np.stack(lines)  # (line, point, 3)
    n_lines, n_points = rows.shape[:2]
    shape = bmesh.new()
    sides = []
    for height in (-loop.thickness / 2, loop.thickness / 2):
        flat = mounts.curled(rows.reshape(-1, 3), height, loop.curl_radius) / UNIT
        corners = [shape.verts.new(tuple(p)) for p in flat]
        sides.append([corners[i * n_points : (i + 1) * n_points] for i in range(n_lines)])
    back, front = sides
    steps = [(j, (j + 1) % n_points) for j in range(n_points if closed else n_points - 1)]
    for j, k in steps:
        for i in range(n_lines - 1):
            for side in (back, front):
                shape.faces.new((side[i][j], side[i][k], side[i + 1][k], side[i + 1][j]))
        for i in (0, n_lines - 1):
            shape.faces.new((back[i][j], back[i][k], front[i][k], front[i][j]))
    if not closed:
        for j in (0, n_points - 1):
            for i in range(n_lines - 1):
                shape.faces.new((back[i][j], back[i + 1][j], front[i + 1][j], front[i][j]))
    return _object(name, shape)


def triangles(made: bpy.types.Object) -> Mesh:
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


def bake(
    job: dict[str, Any],
    obstacles: list[bpy.types.Object],
    drop: bpy.types.Object,
    share: float,
    cache: Path,
) -> Mesh:
    """The lens after some frames under ``share`` of the body force, around the obstacles.

    Raises StageError where the bake gave no liquor, lost or gained too much of it, or spilt it on
    the wall.
    """
    liquor = job["liquor"]
    domain, half, cell = _domain(job)
    _simulate(liquor, domain, obstacles, drop, share, cache)
    vertices, faces = triangles(domain)
    # A bake that failed leaves the domain's own cube, without a word.
    if len(vertices) <= 8:
        raise StageError("Mantaflow returned no liquor")
    kept = abs(_volume(vertices, faces)) / _volume(*triangles(drop))
    if not _VOLUME_SHARES[0] <= kept <= _VOLUME_SHARES[1]:
        raise StageError(f"the bake kept {kept:.2f} of the lens, expected {_VOLUME_SHARES}")
    if (np.abs(vertices) > half - _WALL_CELLS * cell).any():
        raise StageError("the liquor reached the wall of the domain")
    return vertices, faces


def _domain(job: dict[str, Any]) -> tuple[bpy.types.Object, np.ndarray, float]:
    """A box around crystal, ring and lens with a margin of some cells, its half sides, and a cell's
    length."""
    crystal = np.abs(np.array(job["crystal"]["vertices"]) / UNIT).max(axis=0)
    lens = np.array(job["liquor"]["lens_semi_axes"]) / UNIT
    ring = np.array([job["mount"]["aperture_width"], 0.0, job["mount"]["aperture_height"]]) / (2 * UNIT)
    half = np.maximum(np.maximum(crystal, 1.15 * lens), ring)
    resolution = job["liquor"]["bake_resolution"]
    cell = 2 * half.max() / (resolution - 2 * _MARGIN_CELLS)
    half = half + _MARGIN_CELLS * cell
    shape = bmesh.new()
    bmesh.ops.create_cube(shape, size=2.0, matrix=Matrix.Diagonal((*half, 1.0)))
    domain = _object("domain", shape)
    bpy.context.view_layer.update()
    return domain, half, float(cell)


def _simulate(
    liquor: dict[str, Any],
    domain: bpy.types.Object,
    obstacles: list[bpy.types.Object],
    drop: bpy.types.Object,
    share: float,
    cache: Path,
) -> None:
    scene = bpy.context.scene
    frames = liquor["bake_frames"]
    duration = frames / FRAMES_PER_SECOND
    # A free drop falls ½ g t²: the force that carries it by the drift during the bake.
    force = [2 * share * d / UNIT / duration**2 for d in liquor["drift"]]
    scene.use_gravity = True
    scene.gravity = force
    scene.frame_start, scene.frame_end = 1, frames
    settings = _fluid(domain, "DOMAIN").domain_settings
    settings.domain_type = "LIQUID"
    settings.resolution_max = liquor["bake_resolution"]
    settings.cache_type = "REPLAY"
    settings.cache_directory = str(cache)
    settings.cache_frame_start, settings.cache_frame_end = 1, frames
    settings.use_mesh = True
    settings.gravity = force
    # Surface tension has no effect in Blender's script; the wetting relaxation makes the menisci.
    settings.use_diffusion = True
    settings.use_adaptive_timesteps = True
    settings.timesteps_max = 4
    flow = _fluid(drop, "FLOW").flow_settings
    flow.flow_type, flow.flow_behavior = "LIQUID", "GEOMETRY"
    for obstacle in obstacles:
        effector = _fluid(obstacle, "EFFECTOR").effector_settings
        effector.effector_type = "COLLISION"
        effector.surface_distance = 0.0
    for frame in range(1, frames + 1):
        scene.frame_set(frame)


def _fluid(made: bpy.types.Object, role: str) -> Any:
    modifier = made.modifiers.new("Fluid", "FLUID")
    modifier.fluid_type = role
    return modifier


def _volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return math.fsum(np.einsum("ij,ij->i", a, np.cross(b, c))) / 6


if __name__ == "__main__":
    main(sys.argv[1:])
