"""Labels from a reconstruction's grey values: multi-Otsu thresholds, specks removed, surfaces smoothed."""

import numpy as np
from scipy import ndimage

from tomoforge.errors import InputError

_BINS = 256
_MOST_CLASSES = 8
_CLIPPED = (0.01, 99.99)  # percentiles: a streak must not take the histogram's bins
_SPECK = 0.01  # of the largest piece of its class; smaller pieces are noise
_SHELL = 0.8  # of a class: where more of it is thin, it is the partial volume around another


def multi_otsu_thresholds(values: np.ndarray, classes: int) -> np.ndarray:
    """Thresholds that part ``values`` into ``classes`` with the largest variance between them.

    values : float array of any shape; classes : 2 to 8. Returns (classes − 1,) float64, growing: a value belongs
    to the class of the thresholds below it. Exact over a histogram of 256 bins, by dynamic programming.

    Raises InputError where there are too few different values.

    References: Liao, Chen & Chung, J. Inf. Sci. Eng. 17, 713 (2001).
    """
    if not 2 <= classes <= _MOST_CLASSES:
        raise InputError(f"classes must be 2 to {_MOST_CLASSES} with the background, got {classes!r}")
    low, high = np.percentile(values, _CLIPPED)
    if not high > low:
        raise InputError("values must differ to be parted into classes; is the volume empty?")
    counts, edges = np.histogram(np.clip(values, low, high), bins=_BINS, range=(low, high))
    if np.count_nonzero(counts) < classes:
        raise InputError(f"values fall into {np.count_nonzero(counts)} bins, too few for {classes} classes")
    centres = (edges[:-1] + edges[1:]) / 2
    # Sums up to each bin; a class of bins a…b−1 adds (its sum)²/(its count) to the variance between classes.
    number = np.r_[0, np.cumsum(counts, dtype=np.float64)]
    total = np.r_[0, np.cumsum(counts * (centres - centres.mean()))]
    count_of = number[None, :] - number[:, None]  # [a, b]
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(count_of > 0, (total[None, :] - total[:, None]) ** 2 / count_of, -np.inf)
    best, cuts = gain[0], []
    for _ in range(classes - 1):
        candidates = best[:, None] + gain  # the last class starts at bin a and ends before b
        cuts.append(np.argmax(candidates, axis=0))
        best = np.max(candidates, axis=0)
    at, thresholds = _BINS, []
    for cut in reversed(cuts):
        at = int(cut[at])
        thresholds.append(edges[at])
    return np.array(thresholds[::-1])


def multi_otsu_labels(
    volume: np.ndarray, classes: int, *, smoothing: float = 0.7, seen: np.ndarray | None = None
) -> np.ndarray:
    """Label volume from grey values alone: 0 the darkest class (air), then by growing µ.

    Parameters
    ----------
    volume : (z, y, x) float32, µ [1/m]
    classes : int, 2 to 8, air among them
    smoothing : float, σ [voxels] of a Gaussian on the volume before, and on the indicators after thresholding
    seen : (y, x) bool, where slices hold µ; None for everywhere. The thresholds are taken there, the rest is air

    Returns
    -------
    (z, y, x) uint8

    Notes
    -----
    Between a dense body and air every grey value in between occurs, so thresholds wrap each body in shells of the
    classes between. What is thinner than three voxels (true films and threads, too) therefore goes to that thick
    class beside it whose mean µ is nearest to the voxel's, which puts surfaces half-way; then pieces under 1 % of
    the largest of their class go to what is around them, and then every voxel to the class whose smoothed indicator
    is largest there. A class that was four fifths shell vanishes and those above it move down. Nothing is known of
    the sample: what Otsu cannot part stays together.
    """
    if volume.ndim != 3 or 0 in volume.shape:
        raise InputError(f"volume must be a non-empty (z, y, x) array, got {volume.shape}")
    if not smoothing >= 0:
        raise InputError(f"smoothing must be zero or positive voxels, got {smoothing!r}")
    inside = np.ones(volume.shape[1:], bool) if seen is None else seen
    if inside.shape != volume.shape[1:]:
        raise InputError(f"seen must be (y, x) = {volume.shape[1:]}, got {inside.shape}")
    grey = ndimage.gaussian_filter(volume.astype(np.float32, copy=False), smoothing) if smoothing else volume
    labels = np.digitize(grey, multi_otsu_thresholds(grey[:, inside], classes)).astype(np.uint8)
    labels[:, ~inside] = 0
    labels = _between_thick(labels, _thin(labels, classes), grey, classes)
    labels = _nearest_of(labels, _specks(labels, classes))
    if smoothing:
        labels = _largest_share(labels, classes, smoothing)
    kept = np.union1d([0], np.unique(labels))
    return np.searchsorted(kept, labels).astype(np.uint8)


def class_attenuation(volume: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Mean µ [1/m] of each label but 0 in ``volume`` (z, y, x), away from its surface where it is thick enough.

    The outermost two voxels are left out, since they hold partial volume and fringes; a label without any other
    gives the mean of all of its voxels.
    """
    if volume.shape != labels.shape:
        raise InputError(f"labels must have the shape of the volume, {volume.shape}, got {labels.shape}")
    found = {}
    for label in (int(value) for value in np.unique(labels) if value):
        mask = labels == label
        # The volume's border is no surface: the sample goes on beyond the field of view.
        core = ndimage.binary_erosion(mask, iterations=2, border_value=1)
        found[label] = float(volume[core if core.any() else mask].mean(dtype=np.float64))
    return found


def _thin(labels: np.ndarray, classes: int) -> np.ndarray:
    """Voxels of parts thinner than three voxels, and of classes that are hardly anything else: (z, y, x) bool."""
    thin = np.zeros(labels.shape, bool)
    for label in range(classes):
        # Mirrored at the border, where the sample goes on beyond the field of view.
        mask = np.pad(labels == label, 2, mode="symmetric")
        opened = ndimage.binary_opening(mask)[2:-2, 2:-2, 2:-2]
        lost = (labels == label) & ~opened
        shell = lost.sum() > _SHELL * np.count_nonzero(labels == label)
        thin |= (labels == label) if shell else lost
    return thin


def _between_thick(labels: np.ndarray, thin: np.ndarray, grey: np.ndarray, classes: int) -> np.ndarray:
    """``labels`` where the voxels ``thin`` take the class of nearest mean grey among those within three voxels."""
    if not thin.any() or thin.all():
        return labels
    least = np.full(labels.shape, np.inf, np.float32)
    found = labels.copy()
    for label in range(classes):
        thick = (labels == label) & ~thin
        if thick.any():
            beside = ndimage.binary_dilation(thick, ndimage.generate_binary_structure(3, 2), iterations=3)
            distance = np.abs(grey - np.float32(grey[thick].mean(dtype=np.float64)))
            nearer = thin & beside & (distance < least)
            least[nearer], found[nearer] = distance[nearer], label
    return _nearest_of(found, thin & ~np.isfinite(least))


def _specks(labels: np.ndarray, classes: int) -> np.ndarray:
    """Voxels of pieces that are small beside the largest of their class: (z, y, x) bool."""
    speck = np.zeros(labels.shape, bool)
    for label in range(classes):
        pieces, count = ndimage.label(labels == label)
        if count > 1:
            sizes = np.bincount(pieces.ravel())
            small = sizes < _SPECK * sizes[1:].max()
            small[0] = False
            speck |= small[pieces]
    return speck


def _nearest_of(labels: np.ndarray, where: np.ndarray) -> np.ndarray:
    """``labels`` with the label of the nearest other voxel in place of those ``where``."""
    if not where.any() or where.all():
        return labels
    nearest = ndimage.distance_transform_edt(where, return_distances=False, return_indices=True)
    return labels[tuple(nearest)]


def _largest_share(labels: np.ndarray, classes: int, sigma: float) -> np.ndarray:
    most = np.zeros(labels.shape, np.float32)
    winner = np.zeros(labels.shape, np.uint8)
    for label in range(classes):
        share = ndimage.gaussian_filter((labels == label).astype(np.float32), sigma, mode="nearest")
        better = share > most
        most[better], winner[better] = share[better], label
    return winner
