"""AnACor 2's C engine through ctypes, for the benchmark of absorption factors.

Its library is built from its own sources (``make sharedlibrary_cpu`` in ``AnACor/src``; GPL 3, nothing of it is here).

References: Y. Lu et al., J. Appl. Cryst. 57 (2024) 649–658.
"""

import contextlib
import ctypes as ct
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

_ROWS = ct.POINTER(ct.POINTER(ct.POINTER(ct.c_int8)))
_FLOATS, _INTS = np.ctypeslib.ndpointer(np.float64), np.ctypeslib.ndpointer(np.int64)
_ALL_THE_WAY = 1  # not only to the first air: samples are not convex
_TRANSMISSION = 1


def even_points(labels: np.ndarray, count: int) -> np.ndarray:
    """(point, 3) int64: every so many-th crystal voxel in raster order, its default."""
    voxels = np.argwhere(labels == 3)
    return np.ascontiguousarray(voxels[np.linspace(0, len(voxels), count, endpoint=False, dtype=int)])


def factors(
    library: Path,
    labels: np.ndarray,
    voxel_size: float,
    mu: Mapping[int, float],
    beams: np.ndarray,
    exits: np.ndarray,
    *,
    points: np.ndarray,
    threads: int,
    bisection: bool = False,
) -> np.ndarray:
    """(reflection,) A of beams turning about axis 0; arguments as ``absorption_factors``, points of ``even_points``.

    ``bisection`` has no threads: the engine calls it for one reflection at a time.
    """
    engine = ct.CDLL(str(library))
    grid = np.ascontiguousarray(labels, np.int8)
    rows = _pointers(grid)
    sizes = np.full(3, voxel_size * 1e6)
    coefficients = np.array([mu.get(label, 0.0) * 1e-6 for label in (1, 2, 3, 4)])
    shape = np.array(grid.shape, np.int64)
    beams, exits = _dials(beams), _dials(exits)
    if bisection:
        one = engine.ib_test
        one.restype = ct.c_double
        one.argtypes = [_INTS, ct.c_int64, *[_FLOATS] * 4, _ROWS, _INTS, ct.c_int, ct.c_int64, ct.c_int]
        with _silent():
            return np.array(
                [
                    one(
                        points, len(points), exits[i], beams[i], sizes, coefficients, rows, shape,
                        _ALL_THE_WAY, 0, 3,
                    )
                    for i in range(len(exits))
                ]
            )  # fmt: skip
    overall = engine.ray_tracing_overall
    overall.restype = ct.POINTER(ct.c_double)
    overall.argtypes = [
        ct.c_int64, ct.c_int64, _INTS, ct.c_int64, *[_FLOATS] * 5, ct.c_int64, _FLOATS, _FLOATS, _ROWS, _INTS,
        *[ct.c_int] * 4,
    ]  # fmt: skip
    # The goniometer that turns the beam of each reflection from its place at zero: about DIALS's x.
    omega = -np.arctan2(-beams[:, 1], beams[:, 2])
    cos, sin = np.cos(omega), np.sin(omega)
    x, y, z = exits.T
    laboratory = np.ascontiguousarray(np.stack([x, cos * y - sin * z, sin * y + cos * z], axis=1))
    with _silent():
        found = overall(
            0, len(exits), points, len(points), laboratory, omega, np.array([0.0, 0.0, 1.0]),
            np.array([1.0, 0.0, 0.0]), np.eye(3).ravel(), len(exits), sizes, coefficients, rows, shape,
            _ALL_THE_WAY, 0, threads, _TRANSMISSION,
        )  # fmt: skip
    return np.ctypeslib.as_array(found, (len(exits),)).copy()


def _dials(vectors: np.ndarray) -> np.ndarray:
    """Its array axes 0, 1, 2 are DIALS's x, z, y."""
    return np.ascontiguousarray(vectors[:, [0, 2, 1]])


def _pointers(grid: np.ndarray) -> ct.Array:
    """int8*** of a (z, y, x) array, which must outlive it."""
    plane = ct.POINTER(ct.POINTER(ct.c_int8))
    z, y, x = grid.shape
    start = grid.ctypes.data
    planes = [
        ct.cast((ct.c_void_p * y)(*(start + (i * y + j) * x for j in range(y))), plane) for i in range(z)
    ]
    return (plane * z)(*planes)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what the engine prints of each reflection."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        ct.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
