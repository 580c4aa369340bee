"""How far the surfaces of predicted classes lie from the true ones.

The surface of a class is made of its voxels that have a face in common with another class. Where a body leaves the
volume it goes on beyond, so the volume's border is no surface. Distances are between voxel centres, from every surface
voxel of the prediction to the nearest of the truth and from every one of the truth to the nearest of the prediction;
mean and percentile are taken over both lists together (the average symmetric surface distance, ASSD, and the 95th
percentile in place of Hausdorff's maximum, which one stray voxel decides).

References: Heimann et al., IEEE Trans. Med. Imaging 28, 1251 (2009), section III-B; Reinke et al., Nat. Methods 21,
182 (2024).
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from tomoforge.compilation import compiled
from tomoforge.errors import InputError

SURFACE_METRICS = ("mean_surface_distance", "surface_distance_95")
PERCENTILE = 95.0


def surface_distances(
    truth: np.ndarray,
    prediction: np.ndarray,
    labels: Mapping[str, int],
    voxel_size: float,
    *,
    workers: int = 1,
) -> pd.DataFrame:
    """Mean and 95 % symmetric surface distance of every class, in metres.

    Parameters
    ----------
    truth, prediction : (z, y, x) integer or bool labels of one shape
    labels : name → value; the rows, in this order
    voxel_size : float [m], the same along every axis
    workers : threads that search neighbours; the distances do not depend on it

    Returns
    -------
    DataFrame, index "class", columns mean_surface_distance, surface_distance_95: float64 [m]. NaN for a class that is
    in neither volume, or fills both; infinite where only one of them has a surface of it

    Raises
    ------
    InputError
        The arrays are no (z, y, x) integers of one shape, or voxel_size is not positive and finite.

    Notes
    -----
    Nearest neighbours are searched in a k-d tree of the surface voxels, exactly; voxels on both surfaces are at
    distance 0 and not searched. A Euclidean distance transform gives the same numbers, but holds some fifty bytes for
    each voxel of the box where the tree holds a hundred for each voxel of the surface.
    """
    truth, prediction = _checked(truth, prediction)
    if not (math.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be positive metres, got {voxel_size!r}")
    rows = {}
    for name, value in labels.items():
        surfaces = surface_voxels(truth, value), surface_voxels(prediction, value)
        if all(len(surface) for surface in surfaces):
            distances = symmetric_distances(*surfaces, workers=workers)
            high = np.percentile(distances, PERCENTILE)
            rows[name] = (float(distances.mean()) * voxel_size, float(high) * voxel_size)
        else:
            rows[name] = (_without_surface(truth, prediction, value, *surfaces),) * 2
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(SURFACE_METRICS), dtype=np.float64)
    return frame.rename_axis(index="class")


def surface_voxels(labels: np.ndarray, value: int) -> np.ndarray:
    """Indices (n, 3) int32, in array order, of the voxels of a class with a face towards another one.

    labels : (z, y, x) integer or bool. The border of the volume is no surface.
    """
    found = np.empty((_surface(labels, value, np.empty((0, 3), np.int32)), 3), np.int32)
    _surface(labels, value, found)
    return found


def symmetric_distances(first: np.ndarray, second: np.ndarray, *, workers: int = 1) -> np.ndarray:
    """Distances between two surfaces (n, 3) and (m, 3), neither empty, there and back: (n + m,) float64, in voxels."""
    return np.concatenate(
        [_distances(first, second, workers=workers), _distances(second, first, workers=workers)]
    )


def _without_surface(
    truth: np.ndarray, prediction: np.ndarray, value: int, of_truth: np.ndarray, of_prediction: np.ndarray
) -> float:
    """What stands for a distance where a surface is missing: NaN if nothing differs, infinity if anything does."""
    if len(of_truth) or len(of_prediction):
        return math.inf
    # No surface at all: the class is nowhere, or everywhere. One voxel tells which.
    return math.nan if (truth[0, 0, 0] == value) == (prediction[0, 0, 0] == value) else math.inf


def _distances(points: np.ndarray, surface: np.ndarray, *, workers: int) -> np.ndarray:
    """From every point to the nearest of the surface: (n,) float64."""
    shape = np.maximum(points.max(axis=0), surface.max(axis=0)) + 1
    apart = ~np.isin(_flat(points, shape), _flat(surface, shape), assume_unique=True)
    distances = np.zeros(len(points))
    if apart.any():
        # Not balanced: sorting coincident planes of voxels by the median is slow, and buys nothing here.
        tree = KDTree(surface, balanced_tree=False, compact_nodes=False)
        distances[apart] = tree.query(points[apart], workers=workers)[0]
    return distances


def _flat(points: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return np.ravel_multi_index(tuple(points.T.astype(np.int64)), tuple(shape))


@compiled()
def _surface(labels, value, found):
    """Write the surface voxels of a class into found (n, 3) as far as it reaches; return how many there are."""
    depth, height, width = labels.shape
    count = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if labels[z, y, x] != value:
                    continue
                if (
                    (z > 0 and labels[z - 1, y, x] != value)
                    or (z < depth - 1 and labels[z + 1, y, x] != value)
                    or (y > 0 and labels[z, y - 1, x] != value)
                    or (y < height - 1 and labels[z, y + 1, x] != value)
                    or (x > 0 and labels[z, y, x - 1] != value)
                    or (x < width - 1 and labels[z, y, x + 1] != value)
                ):
                    if count < len(found):
                        found[count, 0] = z
                        found[count, 1] = y
                        found[count, 2] = x
                    count += 1
    return count


def _checked(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    arrays = []
    for name, array in (("truth", np.asarray(truth)), ("prediction", np.asarray(prediction))):
        if array.ndim != 3 or not (np.issubdtype(array.dtype, np.integer) or array.dtype == bool):
            raise InputError(
                f"{name} must be (z, y, x) integer labels, got {array.dtype} of shape {array.shape}"
            )
        # One type for the kernel: labels reach this from files in either byte order.
        native = np.uint8 if array.dtype in (bool, np.uint8) else np.int64
        arrays.append(array.astype(native, copy=False))
    if arrays[0].shape != arrays[1].shape:
        raise InputError(
            f"truth and prediction must have one shape, got {arrays[0].shape} and {arrays[1].shape}; "
            "is one of them at another resolution?"
        )
    if not arrays[0].size:
        raise InputError(f"truth and prediction must hold voxels, got arrays of shape {arrays[0].shape}")
    return arrays[0], arrays[1]
