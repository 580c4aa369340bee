"""Points and moments of a crystal with a smooth surface, whose voxels count by the part that is crystal.

As in ``tomoforge.absorption.sampling``: strata of equal volume along the Morton curve, one draw in each. A voxel that
is cut has its share of the curve, and points in it are thrown until they fall on the crystal's side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tomoforge.absorption.cut_voxels import part_moments
from tomoforge.absorption.path_kernels import MixedGrid
from tomoforge.absorption.quadrature import CrystalMoments, voxel_moments
from tomoforge.absorption.sampling import (
    FINE_BITS,
    MORTON_IN_BLOCK,
    crystal_mask,
    morton_code,
    points_along_curve,
)
from tomoforge.absorption.smooth_surface import NODES, WEIGHTS, first_shares
from tomoforge.compilation import compiled
from tomoforge.errors import InputError

_EDGE = 8  # voxels along a block
_UNIT = 2**16  # parts that a voxel's volume is counted in: whole numbers add up the same in any order
_MOST_THROWS = 20_000  # for one point in 1/1000 of a voxel


@dataclass(frozen=True)
class SmoothStrata:
    """The crystal's voxels in Morton order, as blocks of 8³ voxels.

    grid : corner coordinates; is_crystal : (256,) bool, by label; weights : (row,) int64, crystal in the cut voxel
    whose planes start there, in 1/65536; blocks : (block, 3) int64; cumulative : (block,) int64, crystal up to and
    including each block.
    """

    grid: MixedGrid
    is_crystal: np.ndarray
    weights: np.ndarray
    blocks: np.ndarray
    cumulative: np.ndarray

    @property
    def voxels(self) -> int:
        """Volume of the crystal in voxels, rounded."""
        return round(int(self.cumulative[-1]) / _UNIT)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid."""
        return self.grid.codes.shape

    @property
    def finest(self) -> int:
        """As for ``CrystalStrata``: of less than a voxel it is not known how much is crystal."""
        return FINE_BITS

    def crystal_at(self, block: np.ndarray, place: np.ndarray) -> np.ndarray:
        """As for ``CrystalStrata``."""
        parts = np.zeros((len(block), 2), dtype=np.int64)
        _crystal_in_blocks(
            self.grid.codes, self.is_crystal, self.weights, self.blocks[block], place, MORTON_IN_BLOCK, parts
        )
        return parts / _UNIT

    def crystal_before(self, block: np.ndarray) -> np.ndarray:
        """As for ``CrystalStrata``."""
        return np.append(0, self.cumulative)[block] / _UNIT

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """One point from each of ``count`` equal strata: (count, 3) float64 index coordinates."""
        if count < 1:
            raise InputError(f"count must be at least 1 point, got {count}")
        along = (np.arange(count) + rng.random(count)) * (self.cumulative[-1] / _UNIT / count)
        return self.place(along, rng.random((count, 3)), rng)

    def place(self, along: np.ndarray, jitter: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """As for ``CrystalStrata``; ``rng`` throws points in cut voxels until they fall on the crystal's side."""
        count, volume = len(along), int(self.cumulative[-1])
        along = along * _UNIT
        rank = np.minimum(along.astype(np.int64), volume - 1)
        block = np.searchsorted(self.cumulative, rank, side="right")
        before = self.cumulative[block] - rank
        voxels, left, rows = (
            np.empty((count, 3)),
            np.empty(count, dtype=np.int64),
            np.empty(count, dtype=np.int64),
        )
        _voxels_of_rank(
            self.grid.codes, self.is_crystal, self.weights, self.blocks[block], before, MORTON_IN_BLOCK,
            voxels, left, rows,
        )  # fmt: skip
        whole = np.where(rows < 0, _UNIT, self.weights[rows] if len(self.weights) else _UNIT)
        through = (whole - left + (along - rank)) / whole  # the way through the voxel, 0 … 1
        points = voxels + points_along_curve(np.clip(through, 0.0, 1.0), jitter)
        return self._thrown_inside(points, voxels, rows, rng)

    def _thrown_inside(
        self, points: np.ndarray, voxels: np.ndarray, rows: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        todo = np.flatnonzero(rows >= 0)
        for _ in range(_MOST_THROWS):
            label = _labels_at(self.grid.planes, rows[todo], points[todo] + 0.5)
            todo = todo[~self.is_crystal[label]]
            if todo.size == 0:
                break
            points[todo] = voxels[todo] + rng.random((len(todo), 3)) - 0.5
        return points


def smooth_strata(grid: MixedGrid, crystal_label: int | Sequence[int]) -> SmoothStrata:
    """Sort what is crystal for drawing; ``grid`` in corner coordinates. Raises InputError if there is none."""
    is_crystal = crystal_mask(crystal_label)
    planes, heads, _ = _about_centres(grid)
    share = first_shares(planes, heads)
    first, second = (is_crystal[planes[heads, k].astype(np.int64)] for k in (4, 5))
    weights = np.zeros(len(planes), dtype=np.int64)
    weights[heads] = np.rint(_UNIT * (share * first + (1 - share) * second))
    shape = tuple(-(-n // _EDGE) for n in grid.codes.shape)
    sums = _block_sums(grid.codes, is_crystal, weights, np.zeros(shape, dtype=np.int64))
    blocks = np.argwhere(sums)
    if len(blocks) == 0:
        raise InputError(
            f"labels hold no voxel of crystal_label {crystal_label}; was the crystal lost in segmentation?"
        )
    blocks = blocks[np.argsort(morton_code(blocks), kind="stable")]
    return SmoothStrata(
        grid, is_crystal, weights, np.ascontiguousarray(blocks), np.cumsum(sums[tuple(blocks.T)])
    )


def smooth_moments(strata: SmoothStrata) -> CrystalMoments:
    """Means of the monomials over the crystal with its smooth surface."""
    planes, heads, middles = _about_centres(strata.grid)
    parts = strata.is_crystal[planes[heads, 4:6].astype(np.int64)]
    # Whole voxels by their labels, a cut one by its parts, be it crystal on both sides.
    beside = int(np.argmin(strata.is_crystal))
    whole = np.where(strata.grid.codes < 256, strata.grid.codes, beside).astype(np.uint8)

    def cut(centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return part_moments(planes, heads, middles - centre, parts, scale, NODES, WEIGHTS)

    return voxel_moments(whole, strata.is_crystal, strata.blocks, cut)


def _about_centres(grid: MixedGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Planes with offsets from their voxels' centres, first rows (voxel,), centres (voxel, 3) in corner coordinates."""
    here = np.nonzero(grid.codes >= 256)
    heads = grid.codes[here].astype(np.int64) - 256
    middles = np.stack(here, axis=1) + 0.5
    planes, rows, at = grid.planes.copy(), heads, middles
    while rows.size:
        planes[rows, 3] -= (planes[rows, :3] * at).sum(axis=1)
        rows = planes[rows, 6].astype(np.int64)
        rows, at = rows[rows >= 0], at[rows >= 0]
    return planes, heads, middles


def _labels_at(planes: np.ndarray, heads: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Label (point,) int64 of points in cut voxels, corner coordinates."""
    behind, rows, which = np.ones(len(heads), dtype=bool), heads, np.arange(len(heads))
    while rows.size:
        behind[which] &= (planes[rows, :3] * points[which]).sum(axis=1) <= planes[rows, 3]
        rows = planes[rows, 6].astype(np.int64)
        rows, which = rows[rows >= 0], which[rows >= 0]
    return np.where(behind, planes[heads, 4], planes[heads, 5]).astype(np.int64)


@compiled()
def _block_sums(
    codes: np.ndarray, is_crystal: np.ndarray, weights: np.ndarray, sums: np.ndarray
) -> np.ndarray:
    nz, ny, nx = codes.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                code = codes[z, y, x]
                if code >= 256:
                    sums[z // _EDGE, y // _EDGE, x // _EDGE] += weights[code - 256]
                elif is_crystal[code]:
                    sums[z // _EDGE, y // _EDGE, x // _EDGE] += _UNIT
    return sums


@compiled()
def _crystal_in_blocks(
    codes: np.ndarray,
    is_crystal: np.ndarray,
    weights: np.ndarray,
    blocks: np.ndarray,
    place: np.ndarray,
    order: np.ndarray,
    parts: np.ndarray,
) -> None:
    """Crystal, in 1/65536, in each of ``blocks`` (n, 3) before ``place`` (n,) in Morton order and at it: (n, 2)."""
    nz, ny, nx = codes.shape
    for k in range(len(blocks)):
        for step in range(place[k] + 1):
            z = blocks[k, 0] * _EDGE + order[step, 0]
            y = blocks[k, 1] * _EDGE + order[step, 1]
            x = blocks[k, 2] * _EDGE + order[step, 2]
            if z >= nz or y >= ny or x >= nx:
                continue
            code = codes[z, y, x]
            weight = weights[code - 256] if code >= 256 else (_UNIT if is_crystal[code] else 0)
            parts[k, 1 if step == place[k] else 0] += weight


@compiled()
def _voxels_of_rank(
    codes: np.ndarray,
    is_crystal: np.ndarray,
    weights: np.ndarray,
    blocks: np.ndarray,
    before_end: np.ndarray,
    order: np.ndarray,
    found: np.ndarray,
    left: np.ndarray,
    rows: np.ndarray,
) -> None:
    """The voxel that has ``before_end`` of crystal from the point wanted to its block's end.

    found : (point, 3) its indices; left : (point,) crystal from the point to the voxel's own end; rows : (point,) its
    plane, or −1.
    """
    nz, ny, nx = codes.shape
    for k in range(len(blocks)):
        rest = before_end[k]
        for step in range(len(order) - 1, -1, -1):
            z = blocks[k, 0] * _EDGE + order[step, 0]
            y = blocks[k, 1] * _EDGE + order[step, 1]
            x = blocks[k, 2] * _EDGE + order[step, 2]
            if z >= nz or y >= ny or x >= nx:
                continue
            code = codes[z, y, x]
            weight = weights[code - 256] if code >= 256 else (_UNIT if is_crystal[code] else 0)
            if weight >= rest:
                found[k, 0], found[k, 1], found[k, 2] = z, y, x
                left[k], rows[k] = rest, code - 256 if code >= 256 else -1
                break
            rest -= weight
