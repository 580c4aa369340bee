"""Whether labels lie in their volume as they were drawn: axes that were swapped or mirrored on the way show in the
grey values."""

import itertools

import numpy as np

_SIDE = 40  # voxels a side on which orientations are compared
# Of the grey values' variance: the true orientation of labels that fit at all wins by far more.
_MARGIN = 0.05


def better_orientation(volume: np.ndarray, labels: np.ndarray) -> str | None:
    """How the labels (z, y, x) would fit the volume (z, y, x) better: in words, None if they fit as they are.

    Every swap and reversal of axes that keeps the shape is tried. Measured is how much of the grey values' variance
    the labels explain (the correlation ratio η²). Looked at are about 40 voxels a side.
    """
    step = tuple(max(1, n // _SIDE) for n in volume.shape)
    cut = tuple(slice(None, None, s) for s in step)
    grey = np.asarray(volume[cut], dtype=np.float64)
    given = _explained(grey, labels[cut])
    best, how = given + _MARGIN, None
    for order in itertools.permutations(range(3)):
        swapped = labels.transpose(order)
        if swapped.shape != labels.shape:
            continue
        for mirrored in itertools.chain.from_iterable(itertools.combinations(range(3), n) for n in range(4)):
            explained = _explained(grey, np.flip(swapped, mirrored)[cut])
            if explained > best:
                best, how = explained, (order, mirrored)
    if how is None:
        return None
    order, mirrored = how
    words = [] if order == (0, 1, 2) else [f"its axes in the order ({', '.join('zyx'[a] for a in order)})"]
    if mirrored:
        words.append(f"{' and '.join('zyx'[a] for a in mirrored)} reversed")
    return f"{' and '.join(words)} (explains {best:.0%} of the grey values, as it is {given:.0%})"


def _explained(grey: np.ndarray, labels: np.ndarray) -> float:
    """η²: variance between the labels' means as a share of all."""
    flat, index = grey.ravel(), labels.ravel().astype(np.intp)
    counts, sums = np.bincount(index), np.bincount(index, flat)
    between = np.sum(sums[counts > 0] ** 2 / counts[counts > 0]) - flat.sum() ** 2 / flat.size
    total = np.sum((flat - flat.mean()) ** 2)
    return float(between / total) if total > 0 else 0.0
