"""Meshes to labels: ours against Open3D's ray casting on the same bodies, time, memory and agreement, in one run.

    OMP_NUM_THREADS=1 python benchmarks/voxelization.py [grid …]

A crystal in liquor in a wire ring, 58 000 triangles. Each row is a process of its own: CPU-s is its processor time for
the labels after a first small call that compiles or builds, best of three where one takes under ten seconds; peak
is its resident memory, of which "libraries" was there before. Both are given the same voxel centres; Open3D takes them
in slabs within each body's bounding box. "differ" counts voxels that got another label, beside the number of voxels
that are not background.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from tomoforge.samples.crystal import crystal_polyhedron
from tomoforge.samples.mesh import TriangleMesh
from tomoforge.samples.voxelize import PRIORITY, field_origin, fractions, voxelize
from tomoforge.volumes import LABEL_NAMES

FIELD = 400e-6  # [m]
DEFAULT_GRIDS = (128, 256, 512, 1024)
# Open3D would take minutes and, in our hands, tell nothing new.
LARGEST_OPEN3D = 512
# Slices asked of Open3D at once, and rays per point: with three, one that grazes an edge is outvoted.
OPEN3D_SLAB, OPEN3D_RAYS = 16, 3


def drop(radius: float, flatness: float, points: int) -> TriangleMesh:
    """A flattened sphere of 2 × points − 4 triangles."""
    i = np.arange(points) + 0.5
    z, turn = 1 - 2 * i / points, np.pi * (1 + np.sqrt(5)) * i
    ring = np.sqrt(1 - z * z)
    ball = np.c_[ring * np.cos(turn), ring * np.sin(turn), z]
    triangles = ConvexHull(ball).simplices
    a, b, c = (ball[triangles[:, k]] for k in range(3))
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), a) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    return TriangleMesh(radius * ball * [1, flatness, 1], triangles)


def wire_ring(radius: float, wire: float, around: int, across: int) -> TriangleMesh:
    """A torus of 2 × around × across triangles in the plane of x and z."""
    u, v = np.meshgrid(*(np.arange(n) * 2 * np.pi / n for n in (around, across)), indexing="ij")
    r = radius + wire * np.cos(v)
    vertices = np.stack([r * np.cos(u), wire * np.sin(v), r * np.sin(u)], axis=-1).reshape(-1, 3)
    i, j = (g.ravel() for g in np.meshgrid(np.arange(around), np.arange(across), indexing="ij"))
    corner = [((i + a) % around) * across + (j + b) % across for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
    quads = [[corner[0], corner[1], corner[2]], [corner[0], corner[2], corner[3]]]
    mesh = TriangleMesh(vertices, np.concatenate([np.stack(q, axis=1) for q in quads]))
    return mesh if mesh.volume > 0 else TriangleMesh(vertices, mesh.triangles[:, ::-1])


def bodies() -> dict[str, list[TriangleMesh]]:
    """Crystal, loop and liquor, turned so that no face is along the grid."""
    turn = Rotation.from_euler("xyz", (0.3, 0.5, 0.7)).as_matrix()
    forms = {(1, 1, 0): 40e-6, (1, 0, 1): 45e-6}
    crystal = crystal_polyhedron((79, 79, 38, 90, 90, 90), "422", forms).mesh()
    parts = {
        "crystal": crystal,
        "loop": wire_ring(130e-6, 10e-6, 300, 30),
        "liquor": drop(128e-6, 0.6, 20_000),
    }
    return {name: [mesh.moved(turn, np.array([3e-6, -5e-6, 2e-6]))] for name, mesh in parts.items()}


def ours(meshes: dict[str, list[TriangleMesh]], n: int) -> np.ndarray:
    return voxelize(meshes, (n, n, n), FIELD / n)


def open3d(meshes: dict[str, list[TriangleMesh]], n: int) -> np.ndarray:
    import open3d as o3d

    shape, size = (n, n, n), FIELD / n
    labels, first = np.zeros(shape, np.uint8), field_origin(shape, size)
    for name in PRIORITY:
        for mesh in meshes[name]:
            vertices = (mesh.vertices - first) / size
            low = np.maximum(np.floor(vertices.min(axis=0)).astype(int), 0)
            high = np.minimum(np.ceil(vertices.max(axis=0)).astype(int) + 1, n)
            scene = o3d.t.geometry.RaycastingScene()
            scene.add_triangles(
                o3d.core.Tensor(vertices.astype(np.float32)),
                o3d.core.Tensor(mesh.triangles.astype(np.uint32)),
            )
            x, y = (np.arange(low[k], high[k], dtype=np.float32) for k in (0, 1))
            for z0 in range(low[2], high[2], OPEN3D_SLAB):
                z = np.arange(z0, min(z0 + OPEN3D_SLAB, high[2]), dtype=np.float32)
                points = np.stack(np.meshgrid(z, y, x, indexing="ij")[::-1], axis=-1)
                found = scene.compute_occupancy(o3d.core.Tensor(points), nsamples=OPEN3D_RAYS).numpy()
                box = labels[z0 : z0 + len(z), low[1] : high[1], low[0] : high[0]]
                box[found > 0] = LABEL_NAMES[name]
    return labels


def ours_without_air(meshes: dict[str, list[TriangleMesh]], n: int) -> np.ndarray:
    """Every page of the result is written, as an untouched one takes no memory."""
    full = crystal_polyhedron((1, 1, 1, 90, 90, 90), "m-3m", {(1, 0, 0): FIELD}).mesh()
    return ours({**meshes, "liquor": [*meshes["liquor"], full]}, n)


def our_fractions(meshes: dict[str, list[TriangleMesh]], n: int) -> np.ndarray:
    return fractions(meshes, (n, n, n), FIELD / n)["crystal"]


METHODS: dict[str, Callable[[dict[str, list[TriangleMesh]], int], np.ndarray]] = {
    "tomoforge": ours,
    "Open3D": open3d,
    "tomoforge, no air": ours_without_air,
    "tomoforge fractions": our_fractions,
}


def peak_mib() -> float:
    """Peak resident memory of this process. ``ru_maxrss`` would start at that of the parent."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def worker(method: str, n: int, target: str) -> None:
    """Measure one row in this process; print it as JSON, and keep the labels in ``target`` if that is a name."""
    meshes, run = bodies(), METHODS[method]
    start = time.process_time()
    run(meshes, 8)
    row = {"first": time.process_time() - start, "libraries": peak_mib(), "cpu": np.inf}
    result = np.empty(0)
    for _ in range(3):
        # The last result would count twice.
        del result
        start = time.process_time()
        result = run(meshes, n)
        taken = time.process_time() - start
        row["cpu"] = min(row["cpu"], taken)
        if taken > 10:
            break
    row["peak"] = peak_mib()
    row["filled"] = int(np.count_nonzero(result))
    if target:
        np.save(target, result)
    print(json.dumps(row))


def measure(method: str, n: int, target: Path | None) -> dict[str, float]:
    command = [sys.executable, __file__, "--worker", method, str(n), str(target or "")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{method} at {n}³ failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main(grids: tuple[int, ...]) -> None:
    print(
        f"{'grid':>5}  {'method':<20} {'CPU-s':>8} {'ratio':>6} {'peak MiB':>9} {'libraries':>9} {'first s':>8} "
        f"{'filled':>11} {'differ':>7}"
    )
    for n in grids:
        with tempfile.TemporaryDirectory(prefix="tomoforge-benchmark-") as folder:
            mine, theirs = Path(folder) / "mine.npy", Path(folder) / "theirs.npy"
            compared = n <= LARGEST_OPEN3D
            base = measure("tomoforge", n, mine if compared else None)
            rows = {"tomoforge": (base, "")}
            if compared:
                peer = measure("Open3D", n, theirs)
                pair = np.load(mine, mmap_mode="r"), np.load(theirs, mmap_mode="r")
                rows["Open3D"] = (peer, str(int((pair[0] != pair[1]).sum())))
                # Three float32 volumes: at 512³ these are the memory.
                rows["tomoforge fractions"] = (measure("tomoforge fractions", n, None), "")
            rows["tomoforge, no air"] = (measure("tomoforge, no air", n, None), "")
        for method, (row, differ) in rows.items():
            print(
                f"{n:>4}³  {method:<20} {row['cpu']:>8.3f} {row['cpu'] / base['cpu']:>6.1f} {row['peak']:>9.0f} "
                f"{row['libraries']:>9.0f} {row['first']:>8.2f} {row['filled']:>11,} {differ:>7}",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        main(tuple(int(argument) for argument in sys.argv[1:]) or DEFAULT_GRIDS)
