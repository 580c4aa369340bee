"""Cleaning of predicted labels: a sample has one crystal, one loop, one drop."""

import cc3d
import numpy as np

from tomoforge.errors import InputError


def largest_components(labels: np.ndarray) -> np.ndarray:
    """Keep the largest connected component of each class; freed voxels take the class around them.

    Parameters
    ----------
    labels : (z, y, x) uint8, 0 background; left unchanged

    Returns
    -------
    (z, y, x) uint8

    Raises
    ------
    InputError
        labels is not a three-dimensional uint8 array.

    Notes
    -----
    Components are 26-connected, so that a thin, slanted loop wire stays in one piece. Of two equally
    large components the one met first in array order stays. The freed voxels are gathered into
    6-connected fragments, and each becomes the class that touches it on most faces (ties: the lower
    label): a stray crystal voxel inside the liquor becomes liquor, a stray fragment in air becomes
    background. The border of the volume counts as background. Background itself is never pruned, so
    true air bubbles stay.
    """
    labels = np.asarray(labels)
    if labels.ndim != 3 or labels.dtype != np.uint8:
        raise InputError(f"labels must be (z, y, x) uint8, got {labels.dtype} of shape {labels.shape}")
    kept = labels.copy()
    for label in np.unique(labels[labels > 0]):
        mask = labels == label
        components = cc3d.connected_components(mask, connectivity=26)
        sizes = np.bincount(components.ravel())
        sizes[0] = 0
        kept[mask & (components != np.argmax(sizes))] = 0
    freed = (kept == 0) & (labels != 0)
    return _absorb(kept, freed) if freed.any() else kept


def _absorb(labels: np.ndarray, freed: np.ndarray) -> np.ndarray:
    """Give each fragment of ``freed`` the class with which it shares most faces."""
    fragments = cc3d.connected_components(freed, connectivity=6)
    n_fragments = int(fragments.max())
    n_classes = int(labels.max()) + 1
    # A frame of background around the volume makes its border a neighbour like any other.
    fragments = np.pad(fragments, 1)
    surround = np.pad(labels, 1)
    where = np.argwhere(fragments)
    own = fragments[tuple(where.T)]
    touching = np.zeros((n_fragments + 1) * n_classes, dtype=np.int64)
    for axis in range(3):
        for step in (-1, 1):
            neighbour = where.copy()
            neighbour[:, axis] += step
            index = tuple(neighbour.T)
            outside = fragments[index] == 0
            pairs = own[outside].astype(np.int64) * n_classes + surround[index][outside]
            touching += np.bincount(pairs, minlength=touching.size)
    winner = touching.reshape(n_fragments + 1, n_classes).argmax(axis=1).astype(np.uint8)
    surround[tuple(where.T)] = winner[own]
    return np.ascontiguousarray(surround[1:-1, 1:-1, 1:-1])
