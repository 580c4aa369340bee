"""Path lengths in each material kept, so that another µ, or its uncertainty, costs no more rays.

A = Σ_p weight_p exp(−Σ_m µ_m L_mp) and ∂A/∂µ_m = −Σ_p weight_p L_mp exp(…), with L = L_in + L_out; the
derivative is that of the estimate itself, to the last bit of the lengths.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tomoforge.absorption import paths
from tomoforge.absorption.direction_grid import Stencils, distinct_rows, exact_stencils, grid_stencils
from tomoforge.absorption.illumination import BeamProfile
from tomoforge.absorption.path_kernels import length_table
from tomoforge.absorption.quadrature import Quadrature
from tomoforge.absorption.smooth_surface import Surface
from tomoforge.absorption.table_kernels import add_weighted_sums, mixed_rows
from tomoforge.absorption.traced_sample import Attenuation, attenuation_table, traced_sample
from tomoforge.backend import array_module
from tomoforge.errors import InputError

MAX_BYTES = 2**31
_CELLS = 18  # to a right angle, 5°: a few 10⁻⁴ of A
_BEAM_BLOCK = 4096


@dataclass(frozen=True)
class PathTable:
    """Lengths of the ways in and out of crystal points, for the directions that some reflections need.

    materials : labels with a length, ascending; into, out : (material, node, 2, pair) float32 [m], on the GPU of the
    labels if they lie on one; arriving, leaving : stencils of the distinct beams and of the reflections; row :
    (reflection,) int64, beam of each; profile : (beam, 2, pair) float32 weights of the beam's profile, or None.
    """

    materials: tuple[int, ...]
    into: np.ndarray
    out: np.ndarray
    arriving: Stencils
    leaving: Stencils
    row: np.ndarray
    quadrature: Quadrature
    profile: np.ndarray | None

    def factors(self, mu: Attenuation) -> np.ndarray:
        """A (reflection,) float64 for another ``mu``, label → µ [1/m]. Raises MaterialError for labels without."""
        given = self._mu(mu)
        return self._means([(self._transmission(self.into, given), self._transmission(self.out, given))])

    def derivatives(self, mu: Attenuation) -> np.ndarray:
        """∂A/∂µ (reflection, material) float64 [m], at ``mu``, in the order of ``materials``."""
        given = self._mu(mu)
        before, after = self._transmission(self.into, given), self._transmission(self.out, given)
        columns = [
            -self._means([(before * self.into[m], after), (before, after * self.out[m])])
            for m in range(len(self.materials))
        ]
        return np.stack(columns, axis=1) if columns else np.zeros((len(self.row), 0))

    def mu_error(self, mu: Attenuation, standard_error: Mapping[int, float]) -> np.ndarray:
        """Standard error of A (reflection,) from independent ones of µ [1/m] by label, to first order."""
        sigma = np.array([standard_error.get(label, 0.0) for label in self.materials])
        return np.sqrt(((self.derivatives(mu) * sigma) ** 2).sum(axis=1))

    def _mu(self, mu: Attenuation) -> np.ndarray:
        """µ [1/m] of each material."""
        # A volume of these labels stands for the one that the table was made of.
        table = attenuation_table(np.array(self.materials or (0,), dtype=np.uint8).reshape(1, 1, -1), mu)
        return table[list(self.materials)]

    def _transmission(self, lengths: np.ndarray, mu: np.ndarray) -> np.ndarray:
        depth = array_module(lengths).zeros(lengths.shape[1:], dtype=np.float32)
        for length, value in zip(lengths, mu, strict=True):
            depth += np.float32(value) * length
        return np.exp(-depth)

    def _means(self, products: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Σ over ``products`` of the mean over the crystal of (value in) · (value out), (reflection,)."""
        result = np.zeros(len(self.row))
        weights = self.quadrature.weights.astype(np.float32)
        beams = len(self.arriving.corner)
        for start in range(0, beams, _BEAM_BLOCK):
            block = slice(start, min(start + _BEAM_BLOCK, beams))
            rows = np.flatnonzero((self.row >= block.start) & (self.row < block.stop))
            part, below = np.zeros(len(rows)), 1.0
            for before, after in products:
                values = mixed_rows(before, self.arriving.select(block))
                if self.profile is not None:
                    values *= array_module(values).asarray(self.profile[block])
                add_weighted_sums(
                    part, after, self.leaving.select(rows), values, self.row[rows] - start, weights
                )
            if self.profile is not None:
                below = (self.profile[block] * weights).sum(axis=(1, 2))[self.row[rows] - start]
            result[rows] = part / below
        return result


def path_table(
    labels: np.ndarray,
    voxel_size: float,
    incoming: np.ndarray,
    outgoing: np.ndarray,
    *,
    crystal_label: int | Sequence[int] = 3,
    n_points: int = 2048,
    cells: int = _CELLS,
    background: bool = False,
    seed: int = 0,
    profile: BeamProfile | None = None,
    max_bytes: int = MAX_BYTES,
    surface: Surface = "voxels",
) -> PathTable:
    """Trace and keep the lengths for reflections, on a grid of directions where that is fewer rays.

    labels, voxel_size, incoming, outgoing, crystal_label, profile, seed, surface : as for ``absorption_factors``;
    n_points : int, crystal points, 2 at least; cells : int, grid cells to a right angle; background : whether
    label 0 absorbs and so is kept too, to the volume's edge; max_bytes : int, of the lengths at most.

    Raises InputError as ``absorption_factors`` does, and for a table that would exceed ``max_bytes``.
    """
    exits = paths.unit_vectors("outgoing", outgoing)
    beams = np.asarray(incoming, dtype=np.float64)
    beams = paths.unit_vectors("incoming", beams[None] if beams.ndim == 1 else beams)
    distinct, row = distinct_rows(np.broadcast_to(beams, exits.shape))
    grid = paths.label_grid(labels)
    absorbs = {label: 1.0 for label in paths.present_labels(grid) if label or background}
    sample = traced_sample(labels, voxel_size, absorbs, crystal_label, profile, surface)
    arriving, leaving = _fewer(-distinct, cells), _fewer(exits, cells)
    needed = 4 * len(absorbs) * (len(arriving.nodes) + len(leaving.nodes)) * n_points
    if needed > max_bytes:
        raise InputError(
            f"n_points {n_points} for {len(leaving.nodes)} + {len(arriving.nodes)} directions and "
            f"{len(absorbs)} materials need {needed:,} bytes, more than max_bytes {max_bytes:,}; take fewer "
            "points, fewer cells, or fewer reflections at a time"
        )
    quadrature = sample.quadrature(max(n_points - n_points % 2, 2), seed)
    used = np.array(sorted(absorbs), dtype=np.int64)
    into, out = (
        length_table(sample.grid, used, quadrature.points, side.nodes) * np.float32(voxel_size)
        for side in (arriving, leaving)
    )
    weight = sample.beam_weights(distinct, quadrature.points).astype(np.float32)
    return PathTable(
        materials=tuple(used.tolist()),
        into=into,
        out=out,
        arriving=arriving,
        leaving=leaving,
        row=row,
        quadrature=quadrature,
        profile=weight.reshape(len(distinct), -1, 2).transpose(0, 2, 1) if weight.size else None,
    )


def _fewer(directions: np.ndarray, cells: int) -> Stencils:
    exact, grid = exact_stencils(directions), grid_stencils(directions, cells)
    return exact if len(exact.nodes) <= len(grid.nodes) else grid
