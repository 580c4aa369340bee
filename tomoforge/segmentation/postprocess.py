"""Cleaning of predicted labels: what no sample can have is removed, everything else stays."""

from collections.abc import Mapping

import cc3d
import numpy as np

from tomoforge.errors import InputError
from tomoforge.volumes import LABEL_NAMES, SLAB

# Shares of the largest piece below which a piece is debris. Of 32 forged samples with up to three crystals, none had
# more than one loop or anything that the loop does not hold, and the smallest crystal had 0.0088 of the largest.
_CRYSTAL_SHARE = 0.005
_LOOP_SHARE = 0.05  # two halves of a loop that leaves the field are alike
_BODY_SHARE = 0.05


def clean_labels(labels: np.ndarray, names: Mapping[str, int] = LABEL_NAMES) -> np.ndarray:
    """Remove from predicted labels what is no part of a mounted sample.

    Parameters
    ----------
    labels : (z, y, x) uint8; left unchanged
    names : name → label. Only ``liquor``, ``loop`` and ``crystal`` are understood; samples without a loop, grains
        for instance, come back as they are

    Returns
    -------
    (z, y, x) uint8
        Where
        - nothing hangs in the air: pieces of the sample that touch no other become background, unless they
          have 5 % of the largest;
        - the loop is one: pieces below 5 % of the largest become what surrounds them;
        - crystals may be several: pieces below 0.5 % of the largest become what surrounds them;
        - there is no air within a crystal: air that only crystal encloses becomes crystal.

    Raises
    ------
    InputError
        labels is not a three-dimensional uint8 array.

    Notes
    -----
    True labels pass unchanged: bubbles in the liquor, liquor in pits and cracks, and crystals beside the main one
    stay. Pieces are 26-connected, so that a thin, slanted wire stays whole; enclosed air is 6-connected.
    """
    labels = _checked(labels)
    if "loop" not in names:
        return labels.copy()
    box = _box(labels)
    if box is None:
        return labels.copy()
    cleaned = labels.copy()
    inner = cleaned[box]
    inner[_debris(inner > 0, _BODY_SHARE)] = 0
    freed = np.zeros(inner.shape, dtype=bool)
    for name, share in (("loop", _LOOP_SHARE), ("crystal", _CRYSTAL_SHARE)):
        if name in names:
            freed |= _debris(inner == names[name], share)
    if freed.any():
        inner[freed] = 0
        inner[...] = _absorb(inner, freed)
    if "crystal" in names:
        _fill_air(inner, names["crystal"])
    return cleaned


def largest_components(labels: np.ndarray) -> np.ndarray:
    """Keep the largest connected component of each class; freed voxels take the class around them.

    For a sample that is known to have one crystal, one loop and one drop; ``clean_labels`` assumes less.

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
    labels = _checked(labels)
    kept = labels.copy()
    for label in np.unique(labels[labels > 0]):
        kept[_debris(labels == label, 1.0)] = 0
    freed = (kept == 0) & (labels != 0)
    return _absorb(kept, freed) if freed.any() else kept


def _checked(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 3 or labels.dtype != np.uint8:
        raise InputError(f"labels must be (z, y, x) uint8, got {labels.dtype} of shape {labels.shape}")
    return labels


def _debris(mask: np.ndarray, share: float) -> np.ndarray:
    """Voxels of the components that are smaller than ``share`` of the largest; of equal ones the first is largest."""
    debris = np.zeros(mask.shape, dtype=bool)
    box = _box(mask)
    if box is None:
        return debris
    components, count = cc3d.connected_components(mask[box], connectivity=26, return_N=True)
    if count < 2:
        return debris
    # A slab at a time: bincount takes eight bytes a voxel for its own copy.
    sizes = np.zeros(count + 1, dtype=np.int64)
    for start in range(0, len(components), SLAB):
        sizes += np.bincount(components[start : start + SLAB].ravel(), minlength=count + 1)
    sizes[0] = 0
    small = sizes < share * sizes.max()
    if share == 1.0:
        small[:] = True
    small[[0, int(np.argmax(sizes))]] = False
    debris[box] = small[components]
    return debris


def _fill_air(labels: np.ndarray, crystal: int) -> None:
    """Make background crystal, in place, where it touches crystal alone."""
    box = _box(labels == crystal)
    if box is None:
        return
    inner = labels[box]
    # Air at the border of the crystal's box is not enclosed by it.
    pockets, count = cc3d.connected_components(inner == 0, connectivity=6, return_N=True)
    if not count:
        return
    enclosed = np.ones(count + 1, dtype=bool)
    enclosed[0] = False
    for axis in range(3):
        for face in (0, -1):
            enclosed[np.take(pockets, face, axis=axis).ravel()] = False
        for near, far in (((slice(None, -1)), (slice(1, None))), ((slice(1, None)), (slice(None, -1)))):
            here, there = [slice(None)] * 3, [slice(None)] * 3
            here[axis], there[axis] = near, far
            neighbour = inner[tuple(there)]
            beside = (pockets[tuple(here)] != 0) & (neighbour != 0) & (neighbour != crystal)
            enclosed[pockets[tuple(here)][beside]] = False
    inner[enclosed[pockets]] = crystal


def _box(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    """Where a volume (z, y, x) is not zero; None if nowhere. Components are sought there alone, to save memory."""
    spans = []
    for axis in range(3):
        where = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        if not where.size:
            return None
        spans.append(slice(int(where[0]), int(where[-1]) + 1))
    return spans[0], spans[1], spans[2]


def _absorb(labels: np.ndarray, freed: np.ndarray) -> np.ndarray:
    """Give each fragment of ``freed`` the class with which it shares most faces."""
    # A frame of background around the volume makes its border a neighbour like any other.
    fragments = cc3d.connected_components(np.pad(freed, 1), connectivity=6)
    n_fragments = int(fragments.max())
    n_classes = int(labels.max()) + 1
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
