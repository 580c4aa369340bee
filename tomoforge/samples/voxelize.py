"""Closed meshes to labels, masks and occupied fractions of voxels, a slab at a time.

A voxel belongs to a body when its centre does. Surfaces are half open: a centre exactly on a body's lower side
in x, y or z is inside, one on its upper side is not, so that bodies that share a face share no voxel.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tomoforge.errors import InputError, StageError
from tomoforge.samples.mesh import TriangleMesh
from tomoforge.samples.scan_conversion import Surface, cover, paint, surface
from tomoforge.volumes import LABEL_NAMES

# Where bodies overlap the later one wins: crystal > loop > liquor.
PRIORITY = ("liquor", "loop", "crystal")

# The origin is either given or such that the field's middle is at (0, 0, 0).
Origin = tuple[float, float, float]

# A flat body's volume is rounding; a body that faces inwards has a volume of the order of its box.
_INWARDS = -1e-9


class Bodies:
    """Bodies in a field of voxels, ready to be cut into slabs of any thickness.

    Parameters
    ----------
    meshes : 'liquor', 'loop', 'crystal' -> closed meshes [m], united (a mesh or a part of one that faces inwards
        is a hole in the others); overlaps between names go to crystal, then loop, then liquor
    shape : voxels along z, y, x
    voxel_size : float [m]
    origin : x, y, z [m] of the centre of voxel (0, 0, 0); None puts the middle of the field at (0, 0, 0)

    Raises
    ------
    InputError
        for an unknown name, a mesh that is not closed, a body that faces inwards, a shape, voxel size or origin that
        makes no sense.
    """

    def __init__(
        self,
        meshes: Mapping[str, Sequence[TriangleMesh]],
        shape: tuple[int, int, int],
        voxel_size: float,
        origin: Origin | None = None,
    ) -> None:
        unknown = sorted(set(meshes) - set(PRIORITY))
        if unknown:
            raise InputError(f"meshes must be named {', '.join(PRIORITY)}, got {', '.join(unknown)}")
        self.names = tuple(name for name in PRIORITY if meshes.get(name))
        for name in self.names:
            _check_meshes(meshes[name], f"meshes[{name!r}]")
        self._field = _Field([meshes[name] for name in self.names], shape, voxel_size, origin)
        self.shape = self._field.shape

    def labels(self, z0: int, z1: int) -> np.ndarray:
        """Labels of planes z0 ≤ z < z1: (z, y, x) uint8, 0 background · 1 liquor · 2 loop · 3 crystal."""
        out = self._field.empty(z0, z1)
        self.label_into(out, z0)
        return out

    def label_into(self, out: np.ndarray, z0: int) -> None:
        """Write the labels from plane z0 on into ``out`` (z, y, x) uint8; the background is left as it is."""
        self._field.paint(out, z0, [LABEL_NAMES[name] for name in self.names])

    def fractions(self, z0: int, z1: int, samples: int = 4) -> dict[str, np.ndarray]:
        """Occupied fractions of planes z0 ≤ z < z1: each name given -> (z, y, x) float32, overlaps as in labels.

        Exact along x, on ``samples``² lines per voxel in y and z. The sum over names is at most 1 (to
        float32).
        """
        return dict(zip(self.names, self._field.cover(z0, z1, samples), strict=True))


class Solid:
    """The union of closed meshes, ready to be cut into slabs. Arguments and errors as for ``Bodies``."""

    def __init__(
        self,
        meshes: Sequence[TriangleMesh],
        shape: tuple[int, int, int],
        voxel_size: float,
        origin: Origin | None = None,
    ) -> None:
        _check_meshes(meshes, "meshes")
        self._field = _Field([meshes], shape, voxel_size, origin)
        self.shape = self._field.shape

    def inside(self, z0: int, z1: int) -> np.ndarray:
        """Which voxel centres of planes z0 ≤ z < z1 lie inside: (z, y, x) bool."""
        out = self._field.empty(z0, z1)
        self._field.paint(out, z0, [1])
        return out.view(bool)

    def fraction(self, z0: int, z1: int, samples: int = 4) -> np.ndarray:
        """Occupied fraction of the voxels of planes z0 ≤ z < z1: (z, y, x) float32 in [0, 1].

        Exact along x, on ``samples``² lines per voxel in y and z.
        """
        return self._field.cover(z0, z1, samples)[0]


def voxelize(
    meshes: Mapping[str, Sequence[TriangleMesh]],
    shape: tuple[int, int, int],
    voxel_size: float,
    origin: Origin | None = None,
    *,
    slab: int = 32,
) -> np.ndarray:
    """Label each voxel by the body that holds its centre. Arguments and errors as for ``Bodies``.

    ``slab`` planes are labelled at a time; it changes no label. ``Bodies.labels`` gives slabs of a volume too large to
    hold.

    Returns
    -------
    (z, y, x) uint8: 0 background · 1 liquor · 2 loop · 3 crystal
    """
    bodies = Bodies(meshes, shape, voxel_size, origin)
    labels = np.zeros(bodies.shape, dtype=np.uint8)
    for z0, z1 in _slabs(bodies.shape[0], slab):
        bodies.label_into(labels[z0:z1], z0)
    return labels


def occupancy(
    meshes: Sequence[TriangleMesh],
    shape: tuple[int, int, int],
    voxel_size: float,
    origin: Origin | None = None,
) -> np.ndarray:
    """Which voxel centres lie in any of the closed meshes: (z, y, x) bool. Arguments and errors as for ``Bodies``."""
    solid = Solid(meshes, shape, voxel_size, origin)
    return solid.inside(0, solid.shape[0])


def fractions(
    meshes: Mapping[str, Sequence[TriangleMesh]],
    shape: tuple[int, int, int],
    voxel_size: float,
    origin: Origin | None = None,
    samples: int = 4,
) -> dict[str, np.ndarray]:
    """Fraction of each voxel that each body has: overlaps go to crystal, then loop, then liquor.

    Arguments and errors as for ``Bodies``; ``samples`` > 0 as in ``Bodies.fractions``.

    Returns
    -------
    each name of ``PRIORITY`` -> (z, y, x) float32, zero for a body that is not there; their sum is at most 1
    """
    bodies = Bodies(meshes, shape, voxel_size, origin)
    found = bodies.fractions(0, bodies.shape[0], samples)
    return {name: found[name] if name in found else np.zeros(bodies.shape, np.float32) for name in PRIORITY}


def field_origin(shape: tuple[int, int, int], voxel_size: float) -> np.ndarray:
    """Centre (3,) [m], x, y, z, of voxel (0, 0, 0) when the field's middle is at the origin."""
    return -(np.array(shape[::-1]) - 1) / 2 * voxel_size


def checked_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """``shape`` as three positive ints, or InputError."""
    sizes = tuple(shape)
    if len(sizes) != 3 or any(int(n) != n or n < 1 for n in sizes):
        raise InputError(f"shape must be three positive numbers of voxels (z, y, x), got {sizes}")
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


class _Field:
    """Checked meshes in voxel units, with the surfaces cut so far."""

    def __init__(
        self,
        bodies: Sequence[Sequence[TriangleMesh]],
        shape: tuple[int, int, int],
        voxel_size: float,
        origin: Origin | None,
    ) -> None:
        self.shape = checked_shape(shape)
        if not (np.isfinite(voxel_size) and voxel_size > 0):
            raise InputError(f"voxel_size must be positive metres, got {voxel_size!r}")
        first = field_origin(self.shape, voxel_size) if origin is None else np.array(origin, dtype=np.float64)
        if first.shape != (3,) or not np.isfinite(first).all():
            raise InputError(f"origin must be three finite metres (x, y, z), got {origin!r}")
        self._parts = [
            (i, (mesh.vertices - first) / voxel_size, mesh.triangles)
            for i, meshes in enumerate(bodies)
            for mesh in meshes
        ]
        self._bodies = len(bodies)
        self._cuts: dict[int, Surface] = {}

    def empty(self, z0: int, z1: int) -> np.ndarray:
        self._check_planes(z0, z1)
        return np.zeros((z1 - z0, *self.shape[1:]), dtype=np.uint8)

    def paint(self, out: np.ndarray, z0: int, values: Sequence[int]) -> None:
        if out.dtype != np.uint8 or out.shape[1:] != self.shape[1:]:
            raise InputError(
                f"out must be uint8 of shape (z, {self.shape[1]}, {self.shape[2]}), got {out.dtype} {out.shape}"
            )
        self._check_planes(z0, z0 + len(out))
        _check_leaks(paint(self._cut(1), z0, np.array(values, dtype=np.uint8), out))

    def cover(self, z0: int, z1: int, samples: int) -> np.ndarray:
        """(body, z, y, x) float32."""
        self._check_planes(z0, z1)
        if int(samples) != samples or samples < 1:
            raise InputError(f"samples must be a positive number of lines per voxel, got {samples!r}")
        out = np.zeros((self._bodies, z1 - z0, *self.shape[1:]), dtype=np.float32)
        _check_leaks(cover(self._cut(int(samples)), z0, int(samples), out))
        return out

    def _cut(self, samples: int) -> Surface:
        if samples not in self._cuts:
            self._cuts[samples] = surface(self._parts, self.shape, samples)
        return self._cuts[samples]

    def _check_planes(self, z0: int, z1: int) -> None:
        if not 0 <= z0 <= z1 <= self.shape[0]:
            raise InputError(f"planes must lie within 0 to {self.shape[0]}, got {z0} to {z1}")


def _check_meshes(meshes: Sequence[TriangleMesh], name: str) -> None:
    """InputError unless each mesh is closed and together they face outwards."""
    for i, mesh in enumerate(meshes):
        if not _is_closed(mesh):
            raise InputError(
                f"{name}[{i}] must be closed, each edge run along as often in one sense as in the other, got an "
                f"open one of {len(mesh.triangles)} triangles; close its holes and turn all triangles "
                "counter-clockwise seen from outside"
            )
    volume = sum(mesh.volume for mesh in meshes)
    if meshes and volume < _INWARDS * max(np.ptp(mesh.vertices, axis=0).max() ** 3 for mesh in meshes):
        raise InputError(
            f"{name} must face outwards, got a volume of {volume:g} m³; reverse the triangles (a mesh that faces "
            "inwards is a hole)"
        )


def _is_closed(mesh: TriangleMesh) -> bool:
    """True when the triangles have no boundary. Unlike ``TriangleMesh.is_closed`` more than two may meet at an edge,
    as where two parts touch: the winding number does not mind."""
    edges = np.concatenate([mesh.triangles[:, [i, (i + 1) % 3]] for i in range(3)])
    n = len(mesh.vertices)
    forward, backward = np.sort(edges[:, 0] * n + edges[:, 1]), np.sort(edges[:, 1] * n + edges[:, 0])
    return len(edges) > 0 and np.array_equal(forward, backward)


def _check_leaks(rows: int) -> None:
    # Cannot be for checked meshes: a wrong volume must not leave here in silence should it be all the same.
    if rows:
        raise StageError(
            f"{rows} rows of voxels enter a body and do not leave it; keep the meshes and report this"
        )


def _slabs(count: int, slab: int) -> Iterator[tuple[int, int]]:
    if int(slab) != slab or slab < 1:
        raise InputError(f"slab must be a positive number of planes, got {slab!r}")
    return ((z0, min(z0 + slab, count)) for z0 in range(0, count, slab))
