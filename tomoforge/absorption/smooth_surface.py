"""The smooth surface behind a label volume's steps: voxels on it are cut by planes.

A voxel says on which side of a surface its centre lies, no more. About each face between two labels a patch is
fitted, a quadratic height over the plane of the voxels, in the largest window in which it passes between the centres
of every column: terraces ten or twenty voxels wide come out curved, for the window holds several; near edges and on
small bodies it shrinks, and a voxel by an edge borrows the patch of a neighbour whose window ends there. A
voxel that the patch crosses is cut by its tangent plane, as in volume-of-fluid methods. At the end the planes between
two labels move by one common offset, so that every label keeps the volume of its voxels.

Where no patch agrees with the voxels (walls and gaps one voxel thick, single voxels, noise) they stay as they are;
faces that lie flat along the lattice do too, for there the patch is the face.

References: D. L. Youngs, in Numerical Methods for Fluid Dynamics (1982) 273–285 (planes in voxels);
I. Debled-Rennesson, J.-P. Reveillès, Int. J. Pattern Recogn. 9 (1995) 635–662 (growing digital segments).
"""

from typing import Literal

import numpy as np

from tomoforge.absorption.cut_voxels import plane_shares
from tomoforge.absorption.path_kernels import MixedGrid
from tomoforge.absorption.surface_patches import candidates, fit_patches
from tomoforge.absorption.surface_planes import choose_patches, fill_planes

Surface = Literal["voxels", "smooth"]

LEAST_SHARE = 1e-3  # of a voxel; what is smaller is left to the other label
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
NODES, WEIGHTS = _NODES / 2, _WEIGHTS / 2  # on −½ … ½
_LARGEST_SHIFT = 0.25  # voxels, of all planes between two labels


def smooth_surface(labels: np.ndarray) -> MixedGrid:
    """``labels`` (z, y, x) uint8 with a plane in each voxel that its smooth surfaces cut.

    Notes
    -----
    On a ball of 64 voxels radius the surface is 0.02 voxels rms off the sphere, where steps are 0.3 off. Memory:
    4 bytes for each voxel and about 150 for each with another label beside it. The bytes are the same for any number
    of threads.
    """
    codes = labels.astype(np.int32)
    count = candidates(labels, codes, np.empty((0, 3), dtype=np.int32))
    if count == 0:
        return MixedGrid(codes, np.zeros((0, 7)))
    voxels = np.empty((count, 3), dtype=np.int32)
    candidates(labels, codes, voxels)
    axes, radii = np.full(count, -1, dtype=np.int8), np.zeros(count, dtype=np.float32)
    patches = np.zeros((count, 6), dtype=np.float32)
    for sparse in (True, False):
        fit_patches(labels, codes, voxels, axes, radii, patches, sparse)
    chosen = np.empty((count, 3), dtype=np.int32)
    bends, others = np.empty(count, dtype=np.int8), np.zeros(count, dtype=np.uint8)
    choose_patches(labels, codes, voxels, axes, radii, patches, chosen, bends, others)
    codes[tuple(voxels.T)] = labels[tuple(voxels.T)]
    some = chosen[:, 0] >= 0
    anchors, voxels, number = voxels, voxels[some], (chosen[some] >= 0).sum(axis=1)
    heads = np.cumsum(number) - number
    planes = np.empty((int(number.sum()), 7))
    fill_planes(
        labels, voxels, anchors, axes, patches, chosen[some], bends[some], others[some], heads, planes
    )
    row_of = np.repeat(np.arange(len(heads)), number)
    cut = _keep_volumes(planes, heads, row_of, labels[tuple(voxels.T)])
    planes[:, 3] += (planes[:, :3] * (voxels[row_of] + 0.5)).sum(axis=1)
    # Only rows of voxels that are cut stay.
    stays = cut[row_of]
    moved = np.cumsum(stays) - 1
    planes = planes[stays]
    further = planes[:, 6] >= 0
    planes[further, 6] = moved[planes[further, 6].astype(np.int64)]
    codes[tuple(voxels[cut].T)] = 256 + moved[heads[cut]].astype(np.int32)
    return MixedGrid(codes, planes)


def first_shares(planes: np.ndarray, heads: np.ndarray, shifts: np.ndarray | None = None) -> np.ndarray:
    """Volume (voxel,) float64 of the first label's part of voxels whose planes start at ``heads`` (voxel,).

    Offsets are those from the voxel's centre, larger by ``shifts``.
    """
    shares = np.empty(len(heads))
    plane_shares(planes, heads, np.zeros(len(heads)) if shifts is None else shifts, NODES, WEIGHTS, shares)
    return shares


def cut_box(grid: MixedGrid, matters: np.ndarray) -> tuple[MixedGrid, np.ndarray]:
    """The smallest box of ``grid`` that holds all of the labels of the mask (256,), and its origin (3,)."""
    by_code = np.concatenate([matters, matters[grid.planes[:, 4:6].astype(np.int64)].any(axis=1)])
    keep = by_code[grid.codes]
    spans = [np.flatnonzero(keep.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if spans[0].size == 0:
        return MixedGrid(np.ascontiguousarray(grid.codes[:1, :1, :1]), grid.planes), np.zeros(
            3, dtype=np.int64
        )
    low = np.array([span[0] for span in spans])
    box = tuple(slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    planes = grid.planes.copy()
    planes[:, 3] -= (planes[:, :3] * low).sum(axis=1)
    return MixedGrid(np.ascontiguousarray(grid.codes[box]), planes), low


def _keep_volumes(planes: np.ndarray, heads: np.ndarray, voxel: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Shift ``planes`` so that each pair of labels shares its voxels as before.

    heads : (voxel,) first rows; voxel : (row,) of each plane; own : (voxel,) labels. Returns (voxel,) bool, those cut.
    """
    first, second = planes[heads, 4].astype(np.int64), planes[heads, 5].astype(np.int64)
    pair = 256 * np.minimum(first, second) + np.maximum(first, second)
    # Planes along a face of their voxel stay there: flat faces are exact, and so is their volume.
    cut = _cuts(first_shares(planes, heads))
    shifts = np.zeros(len(heads))
    for one in np.unique(pair[cut]):
        here = np.flatnonzero(cut & (pair == one))
        sign = np.where(first[here] < second[here], 1.0, -1.0)
        wanted = np.sum(own[here] == np.minimum(first[here], second[here]))
        for _ in range(3):
            low, now, high = (
                np.where(sign > 0, part, 1 - part).sum()
                for part in (
                    first_shares(planes, heads[here], shifts[here] + sign * d) for d in (-0.02, 0.0, 0.02)
                )
            )
            area = (high - low) / 0.04
            if area <= 0:
                break
            step = np.clip((wanted - now) / area, -0.1, 0.1)
            shifts[here] = np.clip(shifts[here] + sign * step, -_LARGEST_SHIFT, _LARGEST_SHIFT)
    planes[:, 3] += shifts[voxel]
    return cut & _cuts(first_shares(planes, heads))


def _cuts(share: np.ndarray) -> np.ndarray:
    return (share > LEAST_SHARE) & (share < 1 - LEAST_SHARE)
