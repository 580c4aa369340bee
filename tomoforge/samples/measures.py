"""Measures of a label volume: fractions, pieces, the crystal's size, aspect and place, and what touches what."""

import math
from collections.abc import Mapping

import cc3d
import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist

from tomoforge.compilation import compiled
from tomoforge.errors import InputError
from tomoforge.samples.rendering import LIQUOR, check_labels
from tomoforge.volumes import LABEL_NAMES

_LARGE = 2**27  # voxels of a box whose components would take more memory than the labels themselves


def sample_measures(
    labels: np.ndarray, voxel_size: float, names: Mapping[str, int] = LABEL_NAMES
) -> dict[str, float]:
    """What a label volume (z, y, x) uint8 holds, as numbers for a table of a set.

    Returns
    -------
    For every label name ``voxels_<name>``, ``fraction_<name>`` of the field and, but for empty space,
    ``pieces_<name>``: bodies of voxels that touch at faces, edges or corners (in boxes beyond 2^27 voxels, bodies that
    every other voxel in z, y and x shows). Where there is a crystal, also:

    crystal_size : greatest extent of the largest crystal, from corner to corner of its voxels [m]
    crystal_aspect : longest over shortest principal axis of the box with the same second moments
    crystal_centre_z, _y, _x : its centre of mass from the middle of the field [m]
    crystal_wetted_share, crystal_loop_share : shares of all crystals' voxel faces that touch liquor, loop;
        faces on the edge of the field do not count
    loop_wetted_share : share of the loop's faces that touch liquor

    Raises
    ------
    InputError
        for labels that are not (z, y, x) uint8, a voxel size that is not positive, or values without a name.

    Notes
    -----
    Beyond the labels it holds one mask and one array of component numbers of the size of a label's bounding
    box, one label after the other.
    """
    check_labels(labels)
    if not (math.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be positive metres, got {voxel_size!r}")
    touching = np.zeros((256, 256), dtype=np.int64)
    boxes = np.full((256, 3, 2), -1, dtype=np.int64)
    _tally(labels, touching, boxes)
    counts = touching.diagonal().copy()
    np.fill_diagonal(touching, 0)
    nameless = sorted(set(np.flatnonzero(counts).tolist()) - set(names.values()))
    if nameless:
        raise InputError(f"labels must hold the values of names, {dict(names)}, got also {nameless}")
    measures: dict[str, float] = {}
    for name, value in names.items():
        measures[f"voxels_{name}"] = int(counts[value])
        measures[f"fraction_{name}"] = float(counts[value] / labels.size)
        if value and not counts[value]:
            measures[f"pieces_{name}"] = 0
        elif value:
            box = tuple(slice(int(low), int(high) + 1) for low, high in boxes[value])
            mask = labels[box] == value
            measures[f"pieces_{name}"] = _pieces(mask)
            if name == "crystal":
                if measures["pieces_crystal"] > 1:
                    mask = cc3d.largest_k(mask, k=1, connectivity=26) != 0
                first = np.array([side.start for side in box]) - (np.array(labels.shape) - 1) / 2
                measures.update(_crystal_measures(mask, first, voxel_size))
    for body, other, title in (
        ("crystal", LIQUOR, "crystal_wetted_share"),
        ("crystal", "loop", "crystal_loop_share"),
        ("loop", LIQUOR, "loop_wetted_share"),
    ):
        if body in names and other in names and touching[names[body]].any():
            faces = touching[names[body]]
            measures[title] = float(faces[names[other]] / faces.sum())
    return measures


def _pieces(mask: np.ndarray) -> int:
    """How many bodies of touching voxels a mask (z, y, x) has; in a large one every other voxel is looked at."""
    step = 2 if mask.size > _LARGE else 1
    return int(cc3d.connected_components(mask[::step, ::step, ::step], connectivity=26, return_N=True)[1])


def _crystal_measures(mask: np.ndarray, first: np.ndarray, voxel_size: float) -> dict[str, float]:
    """Size, aspect and centre of the body ``mask`` (z, y, x), whose voxel 0, 0, 0 lies at ``first``."""
    sums, seconds = np.zeros(3), np.zeros((3, 3))
    ends = np.full((*mask.shape[:2], 2), -1, dtype=np.int64)
    count = _moments(mask, sums, seconds, ends)
    mean = sums / count
    # A voxel is a cube, not a point: it adds its own second moment of 1/12.
    spread = np.linalg.eigvalsh(seconds / count - np.outer(mean, mean) + np.eye(3) / 12)
    z, y, x = (mean + first) * voxel_size
    return {
        "crystal_size": _diameter(ends) * voxel_size,
        "crystal_aspect": math.sqrt(spread[2] / spread[0]),
        "crystal_centre_z": float(z),
        "crystal_centre_y": float(y),
        "crystal_centre_x": float(x),
    }


def _diameter(ends: np.ndarray) -> float:
    """Greatest distance of two corners of voxels, given the first and last voxel of every row: (z, y, 2)."""
    filled = ends[..., 0] >= 0
    low = np.pad(
        np.where(filled, ends[..., 0], np.iinfo(np.int64).max), 1, constant_values=np.iinfo(np.int64).max
    )
    high = np.pad(np.where(filled, ends[..., 1] + 1, -1), 1, constant_values=-1)
    # Rows of corners lie between rows of voxels: each takes the farthest of the four around it.
    low = np.minimum(np.minimum(low[1:, 1:], low[1:, :-1]), np.minimum(low[:-1, 1:], low[:-1, :-1]))
    high = np.maximum(np.maximum(high[1:, 1:], high[1:, :-1]), np.maximum(high[:-1, 1:], high[:-1, :-1]))
    z, y = np.nonzero(high >= 0)
    corners = np.concatenate([np.stack([z, y, end[z, y]], axis=1) for end in (low, high)]).astype(float)
    hull = corners[ConvexHull(corners).vertices]
    return max(float(cdist(hull[i : i + 256], hull).max()) for i in range(0, len(hull), 256))


@compiled()
def _tally(labels, touching, boxes):
    """Voxels of each value (on the diagonal), faces between values (both ways), first and last index by axis."""
    nz, ny, nx = labels.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                here = labels[z, y, x]
                touching[here, here] += 1
                if boxes[here, 0, 0] < 0:
                    boxes[here, 0, 0], boxes[here, 1, 0], boxes[here, 2, 0] = z, y, x
                boxes[here, 0, 1] = z
                boxes[here, 1, 0], boxes[here, 1, 1] = min(boxes[here, 1, 0], y), max(boxes[here, 1, 1], y)
                boxes[here, 2, 0], boxes[here, 2, 1] = min(boxes[here, 2, 0], x), max(boxes[here, 2, 1], x)
                for axis in range(3):
                    if axis == 0 and z + 1 < nz:
                        there = labels[z + 1, y, x]
                    elif axis == 1 and y + 1 < ny:
                        there = labels[z, y + 1, x]
                    elif axis == 2 and x + 1 < nx:
                        there = labels[z, y, x + 1]
                    else:
                        there = here
                    if there != here:
                        touching[here, there] += 1
                        touching[there, here] += 1


@compiled()
def _moments(mask, sums, seconds, ends):
    """Count, and sums of first (3,) and second (3, 3) powers of a mask's indices, and each row's (z, y, 2) ends."""
    count = 0
    for z in range(mask.shape[0]):
        for y in range(mask.shape[1]):
            n, sum_x, sum_xx = 0, 0.0, 0.0
            for x in range(mask.shape[2]):
                if mask[z, y, x]:
                    n, sum_x, sum_xx = n + 1, sum_x + x, sum_xx + x * x
                    if ends[z, y, 0] < 0:
                        ends[z, y, 0] = x
                    ends[z, y, 1] = x
            count += n
            sums[0], sums[1], sums[2] = sums[0] + n * z, sums[1] + n * y, sums[2] + sum_x
            seconds[0, 0], seconds[0, 1], seconds[0, 2] = (
                seconds[0, 0] + n * z * z,
                seconds[0, 1] + n * z * y,
                seconds[0, 2] + z * sum_x,
            )
            seconds[1, 1], seconds[1, 2] = seconds[1, 1] + n * y * y, seconds[1, 2] + y * sum_x
            seconds[2, 2] += sum_xx
    for i in range(3):
        for j in range(i):
            seconds[i, j] = seconds[j, i]
    return count
