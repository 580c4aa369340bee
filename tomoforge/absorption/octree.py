"""The crystal in cells of an octree, split wherever a reflection asks for it, and points that are spread in them.

A cell is a piece of the Morton curve as long as a power of two: a box of the grid with edges in the ratios 1 : 1 : 1,
1 : 1 : 2 or 1 : 2 : 2, from the whole grid down to 2⁻⁸ of a voxel. What counts of it is its crystal. Points come
as two antithetic pairs: the two of a pair lie opposite each other about the middle, so that in a box that is
crystal throughout all that is linear drops out of their mean. Elsewhere they lie opposite along the curve.
"""

from dataclasses import dataclass

import numpy as np

from tomoforge.absorption.quadrature import Strata
from tomoforge.absorption.sampling import FINE_BITS, MORTON_IN_BLOCK, morton_code

POINTS_IN_CELL = 4
_BLOCK_BITS = (len(MORTON_IN_BLOCK) - 1).bit_length()


@dataclass(frozen=True)
class Cells:
    """code : (cell,) int64, where each cell begins on the curve through the grid, in 2⁻²⁴ voxels; level : (cell,)
    int64, binary logarithm of its length in these; start, volume : (cell,) float64, crystal before it on the curve
    and crystal in it, in voxels."""

    code: np.ndarray
    level: np.ndarray
    start: np.ndarray
    volume: np.ndarray

    @property
    def edge(self) -> np.ndarray:
        """(cell,) float64 edges of cubes of the cells' size, in voxels."""
        return 2.0 ** ((self.level - FINE_BITS) / 3)

    @property
    def is_full(self) -> np.ndarray:
        """(cell,) bool, whether the cell is crystal throughout."""
        return self.volume >= 2.0 ** (self.level - FINE_BITS)


@dataclass(frozen=True)
class CrystalOctree:
    """strata : of the crystal, whole voxels or parts; codes : (block,) int64 of its blocks on the Morton curve."""

    strata: Strata
    codes: np.ndarray

    def cells(self, count: int) -> Cells:
        """The whole crystal in ``count`` cells at least, all of one size."""
        bits = int(max(self.strata.shape) - 1).bit_length()
        root = np.array([3 * bits + FINE_BITS])
        found = Cells(np.zeros(1, dtype=np.int64), root, np.zeros(1), np.array([self.volume]))
        while len(found.code) < count and found.level[0] > self.strata.finest:
            found = self.split(found, np.ones(len(found.code), dtype=np.int64))
        return found

    @property
    def volume(self) -> float:
        """Of the crystal, in voxels."""
        return float(self.strata.crystal_before(np.array([len(self.codes)]))[0])

    def split(self, cells: Cells, halvings: np.ndarray) -> Cells:
        """Each cell halved ``halvings`` (cell,) times over; parts without crystal are left out."""
        halvings = np.minimum(halvings, cells.level - self.strata.finest)
        parts = 1 << halvings
        parent = np.repeat(np.arange(len(parts)), parts)
        nth = np.arange(len(parent)) - np.repeat(np.cumsum(parts) - parts, parts)
        level = (cells.level - halvings)[parent]
        code = cells.code[parent] + (nth << level)
        start = self._crystal_before(code)
        volume = self._crystal_before(code + (1 << level)) - start
        kept = volume > 0
        return Cells(code[kept], level[kept], start[kept], volume[kept])

    def draw(self, cells: Cells, rng: np.random.Generator) -> np.ndarray:
        """(4, cell, 3) float64 corner coordinates of points in each cell: an antithetic pair, then another."""
        points = np.empty((POINTS_IN_CELL, len(cells.code), 3))
        for first in (0, 2):
            along, jitter = rng.random(len(cells.code)), rng.random((len(cells.code), 3))
            points[first] = self.strata.place(cells.start + cells.volume * along, jitter, rng)
            points[first + 1] = self.strata.place(cells.start + cells.volume * (1 - along), 1 - jitter, rng)
        return points + 0.5

    def _crystal_before(self, code: np.ndarray) -> np.ndarray:
        """Crystal (n,) float64, in voxels, on the curve through the grid before ``code``."""
        voxel, inside = code >> FINE_BITS, (code & ((1 << FINE_BITS) - 1)) / 2.0**FINE_BITS
        wanted = voxel >> _BLOCK_BITS
        block = np.searchsorted(self.codes, wanted)
        inside_block = np.flatnonzero(self.codes[np.minimum(block, len(self.codes) - 1)] == wanted)
        place = voxel[inside_block] & ((1 << _BLOCK_BITS) - 1)
        counts = self.strata.crystal_at(block[inside_block], place)
        before = self.strata.crystal_before(block)
        before[inside_block] += counts[:, 0] + inside[inside_block] * counts[:, 1]
        return before


def crystal_octree(strata: Strata) -> CrystalOctree:
    """The octree of a crystal whose voxels are sorted already."""
    return CrystalOctree(strata, morton_code(strata.blocks))
