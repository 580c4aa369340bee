"""From a recipe to a labelled volume: Blender's meshes, voxels, relaxed liquor, and a judgement of
the result."""

import json
import logging
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation, label

from tomoforge.errors import InputError, StageError
from tomoforge.process import run_worker
from tomoforge.samples.liquor import relax_wetting, upsample_liquor
from tomoforge.samples.mesh import TriangleMesh
from tomoforge.samples.recipe import SampleRecipe
from tomoforge.samples.voxelize import PRIORITY, checked_shape, occupancy
from tomoforge.storage import write_json_atomic
from tomoforge.volumes import LABEL_NAMES

log = logging.getLogger(__name__)

WORKER = "tomoforge.samples.blender_worker"

# The relaxation's grid: liquor has no detail below its kernel, which is some voxels of this grid.
_COARSE_GRID = 96
# A field larger than the recipe's shows more air, up to where the stem would end inside it.
_LARGEST_FIELD = 1.5
# Shares of the field that a usable sample has, far outside what recipes give: a miss means a broken
# mesh.
_FRACTIONS = {"crystal": (0.0003, 0.4), "loop": (0.0005, 0.3), "liquor": (0.002, 0.5)}
# Least share of the crystal's surface that the liquor wets.
_LEAST_CONTACT = 0.1


@dataclass(frozen=True, eq=False)
class ForgedSample:
    """A sample in the sample frame.

    labels : (z, y, x) uint8, 0 background · 1 liquor · 2 loop · 3 crystal
    meshes : 'crystal', 'loop', 'liquor' -> closed meshes [m]; the liquor as baked, before its
        relaxation
    record : how it came about and what it is: JSON values; all but ``seconds`` repeat with the
        recipe
    """

    labels: np.ndarray
    meshes: Mapping[str, tuple[TriangleMesh, ...]]
    record: dict[str, Any]


def forge_sample(
    recipe: SampleRecipe,
    grid: int | tuple[int, int, int],
    voxel_size: float,
    *,
    timeout_s: float = 300.0,
) -> ForgedSample:
    """Build the sample of ``recipe`` on voxels. The same recipe and grid give the same bytes.

    Parameters
    ----------
    recipe : SampleRecipe
    grid : voxels along z, y, x, or one number for a cube; the field's middle is the rotation axis
    voxel_size : float [m]
    timeout_s : longest time for Blender [s]

    Raises
    ------
    InputError
        for a grid or voxel size that is not positive, or a field that does not suit the recipe.
    StageError
        where Blender fails or runs out of time, or the sample fails a quality gate; it names the
        reason.
    """
    shape = _checked_field(recipe, grid, voxel_size)
    started = time.perf_counter()
    meshes, record = build_meshes(recipe, timeout_s=timeout_s)
    built = time.perf_counter()
    crystal = occupancy(meshes["crystal"], shape, voxel_size)
    loop = occupancy(meshes["loop"], shape, voxel_size) & ~crystal
    liquor, relaxation = _relaxed_liquor(recipe, meshes, crystal | loop, voxel_size)
    labels = np.zeros(shape, dtype=np.uint8)
    for name, mask in (("liquor", liquor), ("loop", loop), ("crystal", crystal)):
        labels[mask] = LABEL_NAMES[name]
    quality = judge(labels)
    seconds = {"meshes": built - started, "voxels": time.perf_counter() - built}
    log.info("sample %d: %s, %s", recipe.seed, record["liquor"], quality["fractions"])
    return ForgedSample(
        labels,
        meshes,
        {
            **record,
            **relaxation,
            **quality,
            "habit": recipe.habit.name,
            "mount": recipe.mount.kind,
            "voxel_size": voxel_size,
            "shape": list(shape),
            "seconds": seconds,
        },
    )


def build_meshes(
    recipe: SampleRecipe, *, timeout_s: float = 300.0
) -> tuple[dict[str, tuple[TriangleMesh, ...]], dict[str, Any]]:
    """Crystal, loop and baked liquor in the sample frame, made by Blender in a process of its own.

    Returns the meshes by name and the worker's record. Raises StageError where the worker fails.
    """
    with tempfile.TemporaryDirectory(prefix="tomoforge-sample-") as folder:
        place = Path(folder)
        (place / "cache").mkdir()
        (place / "tmp").mkdir()
        job = {
            "meshes": str(place / "meshes.npz"),
            "record": str(place / "record.json"),
            "cache": str(place / "cache"),
            "crystal": {
                "vertices": recipe.crystal_vertices(),
                "faces": [list(face) for face in recipe.crystal().faces],
            },
            "mount": {**asdict(recipe.mount), "kind": recipe.mount.kind},
            "liquor": asdict(recipe.liquor),
        }
        write_json_atomic(place / "job.json", job)
        run_worker(
            WORKER,
            [str(place / "job.json")],
            timeout_s=timeout_s,
            # Blender's own session folder goes where it is removed with the rest.
            environment={"TMPDIR": str(place / "tmp"), "TMP": str(place / "tmp")},
            on_line=lambda line: log.debug("blender: %s", line),
        )
        record = json.loads((place / "record.json").read_text())
        with np.load(place / "meshes.npz", allow_pickle=False) as arrays:
            meshes = _read_meshes(dict(arrays))
    rotation, offset = recipe.pose.rotation(), np.array(recipe.pose.offset)
    placed = {name: tuple(m.moved(rotation, offset) for m in parts) for name, parts in meshes.items()}
    return placed, record


def judge(labels: np.ndarray) -> dict[str, Any]:
    """Measures of a label volume (z, y, x) uint8, for the record.

    Raises
    ------
    StageError
        where a class is missing or out of proportion, the crystal is in pieces, the liquor does not
        wet it, anything but the stem reaches the edge of the field, or the stem does not leave it
        at the bottom.
    """
    counts = np.bincount(labels.ravel(), minlength=4)
    fractions = {name: float(counts[LABEL_NAMES[name]] / labels.size) for name in PRIORITY}
    for name, (least, most) in _FRACTIONS.items():
        if not least <= fractions[name] <= most:
            raise StageError(
                f"the {name} fills {fractions[name]:.5f} of the field, expected {least} to {most}; "
                "is the field the one that the recipe was drawn for?"
            )
    crystal, liquor = labels == LABEL_NAMES["crystal"], labels == LABEL_NAMES["liquor"]
    pieces = label(crystal, np.ones((3, 3, 3)))[1]
    if pieces != 1:
        raise StageError(f"the crystal must be one piece, got {pieces}; is the voxel too coarse?")
    shell = binary_dilation(crystal) & ~crystal
    contact = float((shell & liquor).sum() / shell.sum())
    if contact < _LEAST_CONTACT:
        raise StageError(
            f"the liquor wets {contact:.3f} of the crystal's surface, expected at least {_LEAST_CONTACT}"
        )
    for name in PRIORITY:
        reached = _reached_edges(labels == LABEL_NAMES[name]) - ({"-z"} if name == "loop" else set())
        if reached:
            raise StageError(
                f"the {name} reaches the edge of the field at {', '.join(sorted(reached))}; "
                "give a larger field"
            )
    if not (labels[0] == LABEL_NAMES["loop"]).any():
        raise StageError("the stem ends inside the field; it must leave it at -z")
    return {"fractions": fractions, "wetted_share": contact}


def _reached_edges(mask: np.ndarray) -> set[str]:
    """Names of the field's faces that a (z, y, x) mask touches, such as '-z'."""
    return {
        f"{sign}{name}"
        for axis, name in enumerate("zyx")
        for sign, index in (("-", 0), ("+", -1))
        if mask.take(index, axis).any()
    }


def _checked_field(
    recipe: SampleRecipe, grid: int | tuple[int, int, int], voxel_size: float
) -> tuple[int, int, int]:
    shape = checked_shape((grid, grid, grid) if isinstance(grid, (int, np.integer)) else grid)
    if not (math.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be positive metres, got {voxel_size!r}")
    sides = [n * voxel_size for n in shape]
    least, most = 0.999 * recipe.field_of_view, _LARGEST_FIELD * recipe.field_of_view
    if min(sides) < least or max(sides) > most:
        raise InputError(
            f"grid × voxel_size must lie between the recipe's field of view "
            f"{recipe.field_of_view:g} m and {_LARGEST_FIELD} times that, got "
            f"{', '.join(f'{s:g}' for s in sides)} m along z, y, x; "
            "draw the recipe with this field_of_view or change the voxel size"
        )
    return shape


def _relaxed_liquor(
    recipe: SampleRecipe,
    meshes: Mapping[str, tuple[TriangleMesh, ...]],
    solid: np.ndarray,
    voxel_size: float,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Liquor on the grid of ``solid`` (z, y, x), relaxed on a coarser one, and the relaxation's
    record."""
    shape = solid.shape
    coarseness = max(1.0, max(shape) / _COARSE_GRID)
    size = coarseness * voxel_size
    n_z, n_y, n_x = (math.ceil(n / coarseness) for n in shape)
    coarse = (n_z, n_y, n_x)
    coarse_solid = occupancy([*meshes["crystal"], *meshes["loop"]], coarse, size)
    liquor = occupancy(meshes["liquor"], coarse, size) & ~coarse_solid
    if not liquor.any():
        raise StageError("the baked liquor has no voxel outside crystal and loop")
    _, level, steps = relax_wetting(
        liquor,
        coarse_solid,
        recipe.liquor.contact_angle,
        max(1.0, recipe.liquor.kernel_width / size),
        recipe.liquor.iterations,
    )
    volume = round(int(liquor.sum()) * coarseness**3)
    wet = upsample_liquor(level, solid, coarseness, volume)
    kept = int(wet.sum()) / volume
    return wet, {"relaxation_steps": steps, "liquor_kept": kept}


def _read_meshes(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[TriangleMesh, ...]]:
    meshes: dict[str, tuple[TriangleMesh, ...]] = {}
    for name in PRIORITY:
        parts: list[TriangleMesh] = []
        while f"{name}_{len(parts)}_vertices" in arrays:
            key = f"{name}_{len(parts)}"
            parts.append(TriangleMesh(arrays[f"{key}_vertices"], arrays[f"{key}_triangles"]))
        if not parts:
            raise StageError(f"Blender's worker returned no {name}")
        meshes[name] = tuple(parts)
    return meshes
