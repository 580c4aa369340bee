"""Labels without learning: what thresholds and a watershed make of a volume, for the same tables as trained models.

Grey values alone know no classes. The thresholds part a volume into so many classes by growing µ, and ``order`` says
which of them is which; where it comes from one labelled case, ``attenuation_order`` reads it there. What thresholds
cannot do shows in the scores: liquor and crystal often differ by less than the noise, and where a dense body borders
on air every µ in between occurs, so that the classes between (the loop) gain a shell around it.

These are for comparison, not for production: they hold the whole volume and a few more of its size.

References: Otsu, IEEE Trans. Syst. Man Cybern. 9, 62 (1979); Liao, Chen & Chung, J. Inf. Sci. Eng. 17, 713 (2001);
Beucher & Meyer, in Mathematical Morphology in Image Processing (1993), chapter 12.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from tomoforge.errors import InputError
from tomoforge.fidelity.labels import multi_otsu_thresholds
from tomoforge.segmentation.metrics import BACKGROUND
from tomoforge.volumes import LABEL_NAMES

Baseline = Callable[[np.ndarray, Sequence[str]], np.ndarray]

SMOOTHING = 1.0  # σ [voxels] of a Gaussian before any threshold, or noise would decide each voxel for itself
# At 5 keV nylon has 2600 1/m, a protein crystal 5000 to 5300, the salt liquor in it and around it 6300 to 6700; they
# come in the same order at 3 and at 12 keV.
USUAL_ORDER = (BACKGROUND, "loop", "crystal", "liquor")


def otsu_labels(volume: np.ndarray, order: Sequence[str] = USUAL_ORDER) -> np.ndarray:
    """Labels by Otsu's one threshold, which finds the sample and not its parts.

    All of the sample is called crystal, since that is what one would cut out; or, if ``order`` names no crystal, by the
    last of its classes. Arguments and errors as of ``multi_otsu_labels``.
    """
    values = _values(order)
    name = "crystal" if "crystal" in order else order[-1]
    classes = _classes(_smoothed(volume), 2)
    return np.array([values[0], LABEL_NAMES[name]], np.uint8)[classes]


def multi_otsu_labels(volume: np.ndarray, order: Sequence[str] = USUAL_ORDER) -> np.ndarray:
    """Labels by Otsu's thresholds between as many classes as ``order`` names.

    Parameters
    ----------
    volume : (z, y, x) float [1/m]
    order : two or more of the names of ``LABEL_NAMES`` by growing µ, the background among them

    Returns
    -------
    (z, y, x) uint8

    Raises
    ------
    InputError
        The volume is not finite, not (z, y, x) or has too few different values; order has names that are unknown,
        twice there, or lacks the background.
    """
    return _values(order)[_classes(_smoothed(volume), len(order))]


def watershed_labels(volume: np.ndarray, order: Sequence[str] = USUAL_ORDER) -> np.ndarray:
    """Labels by a watershed of the gradient of µ, flooded from the insides of the multi-Otsu classes.

    The insides are what an opening and an erosion by one voxel leave of a class, which takes the shells of partial
    volume and most noise away; the surfaces then lie where µ changes fastest. A class that is nowhere so thick is left
    out. Arguments and errors as of ``multi_otsu_labels``.
    """
    values = _values(order)
    smoothed = _smoothed(volume)
    classes = _classes(smoothed, len(order))
    markers = np.zeros(classes.shape, np.int32)
    settled = np.zeros(classes.shape, bool)
    for number in range(len(order)):
        inside = _inside(classes == number)
        markers[inside] = number + 1
        settled |= ndimage.binary_erosion(inside, border_value=1)
    if not markers.any():
        raise InputError(
            "volume must hold a body of three voxels across or more; use multi_otsu_labels instead"
        )
    # The flood starts from the rims: what lies behind them is settled, and queueing it would take most of the time.
    flooded = watershed(_gradient(smoothed), np.where(settled, 0, markers), mask=~settled)
    return values[np.where(settled, markers, flooded) - 1]


BASELINES: Mapping[str, Baseline] = {
    "Otsu": otsu_labels,
    "multi-Otsu": multi_otsu_labels,
    "watershed": watershed_labels,
}


def attenuation_order(volume: np.ndarray, truth: np.ndarray) -> tuple[str, ...]:
    """Names of the classes in a labelled case by growing median µ, the background first.

    volume : (z, y, x) float [1/m]; truth : (z, y, x) uint8, values of ``LABEL_NAMES``. Medians are taken one voxel
    inside a class where it has an inside. The case must not be one that the baseline is scored on.
    Raises InputError for different shapes, unknown labels, or no class but one.
    """
    volume, truth = _checked(volume), np.asarray(truth)
    if truth.shape != volume.shape:
        raise InputError(f"truth must have the shape of the volume, {volume.shape}, got {truth.shape}")
    unknown = sorted(set(np.unique(truth).tolist()) - set(LABEL_NAMES.values()))
    if unknown:
        raise InputError(f"truth must hold the labels {LABEL_NAMES}, got also {unknown}")
    medians = {}
    for name, value in LABEL_NAMES.items():
        mask = truth == value
        if mask.any() and name != BACKGROUND:
            inside = ndimage.binary_erosion(mask, border_value=1)
            medians[name] = float(np.median(volume[inside if inside.any() else mask]))
    if not medians:
        raise InputError("truth must hold a class besides the background, got none")
    return (BACKGROUND, *sorted(medians, key=lambda name: medians[name]))


def _checked(volume: np.ndarray) -> np.ndarray:
    volume = np.asarray(volume)
    if volume.ndim != 3 or not np.issubdtype(volume.dtype, np.floating) or not volume.size:
        raise InputError(f"volume must be (z, y, x) floats [1/m], got {volume.dtype} of shape {volume.shape}")
    broken = volume.size - int(np.count_nonzero(np.isfinite(volume)))
    if broken:
        raise InputError(
            f"volume must be finite, got {broken} values that are not; repair the reconstruction"
        )
    return volume


def _smoothed(volume: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(_checked(volume).astype(np.float32, copy=False), SMOOTHING, mode="nearest")


def _classes(smoothed: np.ndarray, count: int) -> np.ndarray:
    """Class of each voxel by growing µ: (z, y, x) uint8, 0 … count − 1."""
    classes = np.zeros(smoothed.shape, np.uint8)
    for threshold in multi_otsu_thresholds(smoothed, count):
        classes += smoothed >= np.float32(threshold)
    return classes


def _inside(mask: np.ndarray) -> np.ndarray:
    """A mask opened and eroded by one voxel; the volume's border is no surface, the body goes on beyond."""
    padded = np.pad(mask, 2, mode="edge")
    opened = ndimage.binary_opening(padded)[2:-2, 2:-2, 2:-2]
    return ndimage.binary_erosion(opened, border_value=1)


def _gradient(smoothed: np.ndarray) -> np.ndarray:
    """Magnitude of the gradient [1/m per voxel], float32, by central differences of the smoothed volume."""
    squares = np.zeros_like(smoothed)
    for axis in range(3):
        slope = ndimage.correlate1d(smoothed, [-0.5, 0, 0.5], axis=axis, mode="nearest")
        squares += slope * slope
    return np.sqrt(squares, out=squares)


def _values(order: Sequence[str]) -> np.ndarray:
    """Label of each class by growing µ: uint8."""
    known = all(name in LABEL_NAMES for name in order)
    if isinstance(order, str) or len(order) < 2 or not known or len(set(order)) < len(order):
        raise InputError(
            f"order must name two or more of {', '.join(LABEL_NAMES)} by growing µ, each once, got {order!r}"
        )
    if order[0] != BACKGROUND:
        raise InputError(f"order must begin with the background, air has the least µ; got {order!r}")
    return np.array([LABEL_NAMES[name] for name in order], np.uint8)
