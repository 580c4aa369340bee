"""Which Blender drapes the liquor: the bpy wheel or a Blender executable, behind one name.

Both run ``blender_worker`` on the same job. Their solvers are of different versions, so their liquors differ;
each repeats its own bytes. The engine ``lens`` does without Blender: the lens alone is relaxed.
"""

import functools
import importlib.util
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path
from typing import Any

import numpy as np

from tomoforge.errors import InputError, MissingComponentError, StageError
from tomoforge.process import run_command
from tomoforge.samples.mesh import TriangleMesh

log = logging.getLogger(__name__)

ENGINES = ("auto", "bpy", "blender", "lens")

_WORKER = "tomoforge.samples.blender_worker"
_EXECUTABLE = "TOMOFORGE_BLENDER"  # environment: path of a Blender executable, where PATH has none
_SMOKE_TEST_S = 120.0


@dataclass(frozen=True)
class Engine:
    """name : 'bpy', 'blender' or 'lens'; version : of Blender; program : the executable, else empty."""

    name: str
    version: str = ""
    program: str = ""

    @property
    def title(self) -> str:
        """For people and records, such as 'bpy 5.0.1'."""
        return f"{self.name} {self.version}".strip()


LENS = Engine("lens")


@dataclass(frozen=True, eq=False)
class Draping:
    """What the fluid simulation made of the lenses.

    liquor : closed meshes [m], None where no bake succeeded (the record says why)
    record : JSON values: drift_share, bake_failures, …
    """

    liquor: tuple[TriangleMesh, ...] | None
    record: dict[str, Any]


def find_engine(choice: str = "auto") -> Engine:
    """The engine for ``choice``, after a smoke test: it has baked a drop.

    'auto' takes the bpy wheel where it works, else a Blender executable. The answer is kept for this process.

    Raises
    ------
    InputError
        for a choice that is not one of ``ENGINES``.
    MissingComponentError
        where the chosen engine is absent or fails its smoke test; it says what was tried and what to install.
    """
    if choice not in ENGINES:
        raise InputError(f"engine must be one of {', '.join(ENGINES)}, got {choice!r}")
    if choice == "lens":
        return LENS
    tried = []
    for name in ("bpy", "blender") if choice == "auto" else (choice,):
        try:
            return _working(name, _program(name))
        except MissingComponentError as error:
            tried.append(str(error))
            log.info("engine %s: %s", name, error)
    raise MissingComponentError(
        f"engine {choice!r} cannot be used: {'; '.join(tried)}. Install the bpy wheel (`make setup`) or a Blender "
        f"executable (Debian: blender python3-numpy; elsewhere name it in {_EXECUTABLE}), or choose engine "
        "'lens', which relaxes the liquor without a fluid simulation"
    )


def drape(
    engine: Engine,
    *,
    obstacles: Sequence[TriangleMesh],
    lenses: Sequence[TriangleMesh],
    probes: np.ndarray,
    drift: Sequence[float],
    resolution: int,
    frames: int,
    timeout_s: float,
) -> Draping:
    """Drape the lenses around the obstacles by a short fluid simulation in a process of its own.

    Parameters
    ----------
    obstacles, lenses : closed meshes [m]
    probes : (p, 3) float64 [m], points on the crystals: liquor that leaves them has run off
    drift : (3,) how far the body force carries free liquor [m]
    resolution : cells along the domain's longest side; frames : length of the simulation, 24 a second
    timeout_s : longest time for Blender [s]

    Raises
    ------
    WorkerDiedError
        where Blender is killed, crashes or hangs.
    StageError
        where it fails otherwise, a full disk for temporary files among it.
    """
    if engine.name == "lens":
        return Draping(None, {"drift_share": 0.0, "bake_failures": []})
    job = {"drift": [float(x) for x in drift], "bake_resolution": int(resolution), "bake_frames": int(frames)}
    try:
        with tempfile.TemporaryDirectory(prefix="tomoforge-sample-", ignore_cleanup_errors=True) as folder:
            return _draped(engine, Path(folder), job, obstacles, lenses, probes, timeout_s)
    except OSError as error:
        if error.errno != ENOSPC:
            raise
        raise StageError(
            f"the disk for temporary files, {tempfile.gettempdir()}, is full: free some space there or point TMPDIR "
            "elsewhere"
        ) from error


def _draped(
    engine: Engine,
    place: Path,
    job: Mapping[str, Any],
    obstacles: Sequence[TriangleMesh],
    lenses: Sequence[TriangleMesh],
    probes: np.ndarray,
    timeout_s: float,
) -> Draping:
    (place / "cache").mkdir()
    (place / "tmp").mkdir()
    (place / "job.json").write_text(json.dumps(job))
    arrays = {"probes": np.asarray(probes, dtype=np.float64)}
    for role, meshes in (("obstacle", obstacles), ("lens", lenses)):
        for i, mesh in enumerate(meshes):
            arrays[f"{role}_{i}_vertices"], arrays[f"{role}_{i}_triangles"] = mesh.vertices, mesh.triangles
    np.savez(place / "bodies.npz", **arrays)
    run_command(
        _command(engine, place),
        name=f"Blender ({engine.title})",
        timeout_s=timeout_s,
        # Blender's own session folder goes where it is removed with the rest.
        environment={"TMPDIR": str(place / "tmp"), "TMP": str(place / "tmp")},
        on_line=lambda line: log.debug("blender: %s", line),
    )
    if not (place / "record.json").exists():
        raise StageError(f"Blender ({engine.title}) ended without a result")
    record = json.loads((place / "record.json").read_text())
    if not (place / "liquor.npz").exists():
        return Draping(None, record)
    with np.load(place / "liquor.npz", allow_pickle=False) as found:
        mesh = TriangleMesh(found["liquor_0_vertices"], found["liquor_0_triangles"])
    return Draping((mesh,), record)


def _command(engine: Engine, folder: Path) -> list[str]:
    if engine.name == "bpy":
        return [sys.executable, "-m", _WORKER, str(folder)]
    script = Path(__file__).with_name("blender_worker.py")
    # One thread, as the wheel has it: sums in one order. Without an exit code, Blender hides errors.
    options = ["-b", "--factory-startup", "-t", "1", "--python-exit-code", "1", "-P", str(script)]
    return [engine.program, *options, "--", str(folder)]


def _program(name: str) -> str:
    if name == "bpy":
        if importlib.util.find_spec("bpy") is None:
            raise MissingComponentError("the bpy wheel is not installed")
        return ""
    wanted = os.environ.get(_EXECUTABLE) or "blender"
    program = shutil.which(wanted)
    if program is None:
        raise MissingComponentError(f"there is no executable {wanted!r}")
    return program


@functools.cache
def _working(name: str, program: str) -> Engine:
    """The engine with its version, after it has baked a drop on a block."""
    engine = Engine(name, program=program)
    block, drop = _box((-6e-5, -6e-5, -8e-5), (6e-5, 6e-5, 0.0)), _box((-4e-5,) * 3, (4e-5,) * 3)
    try:
        draping = drape(
            engine,
            obstacles=[block],
            lenses=[drop],
            probes=np.array([[0.0, 0.0, 0.0]]),
            drift=(0.0, 0.0, -2e-6),
            resolution=24,
            frames=3,
            timeout_s=_SMOKE_TEST_S,
        )
    except StageError as error:
        raise MissingComponentError(f"{name} fails its smoke test: {error}") from error
    if draping.liquor is None:
        failures = "; ".join(draping.record["bake_failures"])
        raise MissingComponentError(f"{name} fails its smoke test: {failures}")
    return Engine(name, draping.record["blender"], program)


def _box(low: Sequence[float], high: Sequence[float]) -> TriangleMesh:
    ends = np.array([low, high])
    corners = np.array([ends[[i, j, k], [0, 1, 2]] for i, j, k in np.ndindex(2, 2, 2)])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))]
    return TriangleMesh(corners, np.array(faces))
