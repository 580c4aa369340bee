"""Points in the crystal, spread evenly: Morton-sorted strata of equal volume, one draw in each.

Along the Morton (Z-order) curve neighbours lie close in space, so that equal pieces of the sorted list of
crystal voxels are compact lumps. One draw in each lump leaves only the variation inside lumps: on a sphere
of µR = 1, 2000 points give 1.0 % rms where 2000 independent points give 3.1 %. The curve goes on inside the
voxel, so that strata smaller than a voxel are lumps as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tomoforge.absorption.paths import label_grid, present_labels
from tomoforge.compilation import compiled
from tomoforge.errors import InputError

_BITS = 3
_EDGE = 2**_BITS  # voxels along a block: the sort is over blocks, 512 times fewer than voxels
_FINE = 8  # bits of the curve inside a voxel, for each axis: with 10⁸ voxels float64 has no more
FINE_BITS = 3 * _FINE
_CELLS = 2**FINE_BITS


def stratified_crystal_points(
    labels: np.ndarray, crystal_label: int | Sequence[int], count: int, rng: np.random.Generator
) -> np.ndarray:
    """``count`` points uniform in the crystal, one from each of ``count`` strata of equal volume.

    Parameters
    ----------
    labels : (z, y, x) integers
    crystal_label : int, or several
    count : int, may exceed the number of crystal voxels
    rng : numpy Generator

    Returns
    -------
    (point, 3) float64 index coordinates (z, y, x), voxel centres at whole numbers, in Morton order.

    Raises
    ------
    InputError
        if no voxel carries ``crystal_label`` or ``count`` is less than 1.

    Notes
    -----
    A stratum is V/count voxels of the sorted list, not a whole number of them: voxels on a border are
    shared between two strata. So each stratum has the same volume and the plain mean is unbiased.
    """
    return crystal_strata(labels, crystal_label).draw(count, rng)


@dataclass(frozen=True)
class CrystalStrata:
    """The crystal's voxels in Morton order, kept as blocks of 8³ voxels.

    labels : (z, y, x) uint8; is_crystal : (256,) bool, by label; blocks : (block, 3) int64 block indices in
    Morton order, those that hold crystal; before : (block + 1,) int64, crystal voxels before each block,
    and all of them; octets : (block, 64) uint8, crystal voxels in each cube of 2³ of them, in Morton order.
    """

    labels: np.ndarray
    is_crystal: np.ndarray
    blocks: np.ndarray
    before: np.ndarray
    octets: np.ndarray

    @property
    def voxels(self) -> int:
        """Number of crystal voxels."""
        return int(self.before[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid."""
        return self.labels.shape

    @property
    def finest(self) -> int:
        """Binary logarithm of the shortest piece of the curve whose crystal is known, in 2⁻²⁴ voxels."""
        return 0

    def crystal_at(self, block: np.ndarray, place: np.ndarray) -> np.ndarray:
        """(n, 2) float64: crystal in voxels in each ``block`` (n,) before ``place`` (n,) in Morton order, and at it."""
        counts = np.zeros((len(block), 2), dtype=np.int64)
        count_in_blocks(
            self.labels, self.is_crystal, self.blocks, self.octets, block, place, MORTON_IN_BLOCK, counts
        )
        return counts.astype(np.float64)

    def crystal_before(self, block: np.ndarray) -> np.ndarray:
        """(n,) float64: crystal in voxels before each ``block`` (n,); before the last + 1, all of it."""
        return self.before[block].astype(np.float64)

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """One point from each of ``count`` equal strata: (count, 3) float64 index coordinates."""
        if count < 1:
            raise InputError(f"count must be at least 1 point, got {count}")
        along = (np.arange(count) + rng.random(count)) * (self.voxels / count)
        return self.place(along, rng.random((count, 3)), rng)

    def place(self, along: np.ndarray, jitter: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Points (n, 3) float64 index coordinates with ``along`` (n,) voxels of crystal before them on the curve.

        ``jitter`` (n, 3), 0 … 1, is the place inside the curve's finest cell, 2⁻⁸ of a voxel; ``rng`` is for
        voxels that are crystal in part, of which there are none here.
        """
        rank = np.minimum(along.astype(np.int64), self.voxels - 1)  # a product may round up to V
        block = np.searchsorted(self.before, rank, side="right") - 1
        voxels = _voxels_of_rank(
            self.labels,
            self.is_crystal,
            self.blocks,
            self.octets,
            block,
            rank - self.before[block],
            MORTON_IN_BLOCK,
        )
        # What is left of the way along the curve is the way through the voxel, to its 2⁻⁸.
        return voxels + points_along_curve(along - rank, jitter)


def points_along_curve(through: np.ndarray, jitter: np.ndarray) -> np.ndarray:
    """Points (n, 3) float64 about a voxel's centre, ``through`` (n,) 0 … 1 of the way along the curve in it; ``jitter``
    (n, 3), 0 … 1, is the place inside the curve's finest cell, 2⁻⁸ of a voxel."""
    inside = _demorton(np.minimum(through * _CELLS, _CELLS - 1).astype(np.int64))
    return (inside + jitter) / 2**_FINE - 0.5


def crystal_strata(labels: np.ndarray, crystal_label: int | Sequence[int]) -> CrystalStrata:
    """Sort the voxels of one or several crystals for drawing. Raises InputError if there are none."""
    grid = label_grid(labels)
    is_crystal = crystal_mask(crystal_label)
    shape = tuple(-(-n // _EDGE) for n in grid.shape)
    counts = _block_counts(grid, is_crystal, np.zeros(shape, dtype=np.int64))
    blocks = np.argwhere(counts)
    if len(blocks) == 0:
        raise InputError(
            f"labels hold no voxel of crystal_label {crystal_label}, got the labels "
            f"{present_labels(grid)}; was the crystal lost in segmentation?"
        )
    blocks = np.ascontiguousarray(blocks[np.argsort(morton_code(blocks), kind="stable")])
    octets = np.zeros((len(blocks), _EDGE**3 // 8), dtype=np.uint8)
    _count_octets(grid, is_crystal, blocks, MORTON_IN_BLOCK, octets)
    return CrystalStrata(grid, is_crystal, blocks, np.append(0, np.cumsum(counts[tuple(blocks.T)])), octets)


def crystal_mask(crystal_label: int | Sequence[int]) -> np.ndarray:
    """(256,) bool, true for the label or labels that diffract."""
    mask = np.zeros(256, dtype=bool)
    wanted = np.atleast_1d(np.asarray(crystal_label))
    if wanted.size == 0 or not np.issubdtype(wanted.dtype, np.integer):
        raise InputError(f"crystal_label must be one label or several, got {crystal_label!r}")
    mask[wanted[(wanted >= 0) & (wanted < 256)]] = True  # a label that cannot occur is not found later
    return mask


def morton_code(index: np.ndarray) -> np.ndarray:
    """Position on the Z-order curve of (n, 3) whole non-negative indices below 2²⁰: (n,) int64."""
    code = np.zeros(len(index), dtype=np.int64)
    for bit in range(20):
        for axis in range(3):
            code |= ((index[:, axis].astype(np.int64) >> bit) & 1) << (3 * bit + 2 - axis)
    return code


def _demorton(code: np.ndarray) -> np.ndarray:
    """(n, 3) int64 with ``morton_code`` equal to ``code``, ``_FINE`` bits for each axis."""
    index = np.zeros((len(code), 3), dtype=np.int64)
    for bit in range(_FINE):
        for axis in range(3):
            index[:, axis] |= ((code >> (3 * bit + 2 - axis)) & 1) << bit
    return index


def _morton_in_block() -> np.ndarray:
    inside = np.indices((_EDGE,) * 3).reshape(3, -1).T
    return np.ascontiguousarray(inside[np.argsort(morton_code(inside))])


MORTON_IN_BLOCK = _morton_in_block()


@compiled()
def _block_counts(labels: np.ndarray, is_crystal: np.ndarray, counts: np.ndarray) -> np.ndarray:
    nz, ny, nx = labels.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if is_crystal[labels[z, y, x]]:
                    counts[z >> _BITS, y >> _BITS, x >> _BITS] += 1
    return counts


@compiled(inline=True)
def _is_crystal_at(labels: np.ndarray, is_crystal: np.ndarray, block: np.ndarray, place: np.ndarray) -> bool:
    """Whether the voxel at ``place`` in a block is crystal; beyond the grid none is."""
    z, y, x = block[0] * _EDGE + place[0], block[1] * _EDGE + place[1], block[2] * _EDGE + place[2]
    nz, ny, nx = labels.shape
    return z < nz and y < ny and x < nx and is_crystal[labels[z, y, x]]


@compiled()
def _count_octets(
    labels: np.ndarray, is_crystal: np.ndarray, blocks: np.ndarray, order: np.ndarray, octets: np.ndarray
) -> None:
    for k in range(len(blocks)):
        for step in range(len(order)):
            if _is_crystal_at(labels, is_crystal, blocks[k], order[step]):
                octets[k, step // 8] += 1


@compiled()
def _voxels_of_rank(
    labels: np.ndarray,
    is_crystal: np.ndarray,
    blocks: np.ndarray,
    octets: np.ndarray,
    block: np.ndarray,
    rank: np.ndarray,
    order: np.ndarray,
) -> np.ndarray:
    """The crystal voxel (n, 3) in each ``block`` (n,) that has ``rank`` (n,) others before it in Morton order."""
    found = np.empty((len(block), 3))
    for k in range(len(block)):
        left, octet = rank[k], 0
        while left >= octets[block[k], octet]:
            left -= octets[block[k], octet]
            octet += 1
        step = 8 * octet - 1
        while left >= 0:
            step += 1
            if _is_crystal_at(labels, is_crystal, blocks[block[k]], order[step]):
                left -= 1
        found[k] = blocks[block[k]] * _EDGE + order[step]
    return found


@compiled()
def count_in_blocks(
    labels: np.ndarray,
    is_crystal: np.ndarray,
    blocks: np.ndarray,
    octets: np.ndarray,
    block: np.ndarray,
    place: np.ndarray,
    order: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Crystal voxels in each ``block`` (n,) before ``place`` (n,) in Morton order and at it, into ``counts`` (n, 2)."""
    for k in range(len(block)):
        octet = place[k] // 8
        for before in range(octet):
            counts[k, 0] += octets[block[k], before]
        for step in range(8 * octet, place[k]):
            if _is_crystal_at(labels, is_crystal, blocks[block[k]], order[step]):
                counts[k, 0] += 1
        if _is_crystal_at(labels, is_crystal, blocks[block[k]], order[place[k]]):
            counts[k, 1] = 1
