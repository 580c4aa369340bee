"""How well predicted labels agree with the truth, class by class.

From the voxels of a class that both have (TP), only the prediction has (FP) and only the truth has (FN):

    recall = TP/(TP + FN)      precision = TP/(TP + FP)      iou = TP/(TP + FP + FN)
    f1 = 2PR/(P + R) = 2TP/(2TP + FP + FN), the Dice coefficient
    f2 = (1 + 4)PR/(4P + R) = 5TP/(5TP + 4FN + FP), which weighs recall four times

P and R are precision and recall. The forms with counts are used: they are the same where P and R exist and are not
both zero, and have a value where P and R do not.

=============================  ======  =========  ===========
a class that is empty in …     recall  precision  iou, f1, f2
=============================  ======  =========  ===========
the truth and the prediction   NaN     NaN        NaN
the truth alone                NaN     0          0
the prediction alone           0       NaN        0
=============================  ======  =========  ===========

NaN says that there was nothing to measure, and means leave it out. A class invented or missed has 0 in iou, f1 and f2.

References: van Rijsbergen, Information Retrieval, 2nd ed. (1979), chapter 7, for F with β = 2.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tomoforge.compilation import compiled
from tomoforge.errors import InputError
from tomoforge.volumes import SLAB

METRICS = ("recall", "iou", "f1", "f2", "precision")
COUNTS = ("tp", "fp", "fn")
BACKGROUND = "background"

_VALUES = 256  # labels are stored as uint8
_SLAB_VOXELS = 2**24  # converted at once: 16 MB as uint8, 128 MB where the labels come as int64
_SHOWN = 5  # wrong labels named in a message


def class_metrics(truth: Any, prediction: Any, labels: Mapping[str, int]) -> pd.DataFrame:
    """Agreement of a predicted label volume with the true one: a row a class.

    Parameters
    ----------
    truth, prediction : (z, y, x) integer or bool labels of one shape; any number of axes will do. An array, or what
        reads as one slab by slab (a Zarr array, a memory map): no more than 16 million voxels are converted at once
    labels : name → value, 0 … 255, gaps allowed; the rows, in this order. Value 0 is the background and may be left
        out: its voxels are then counted as background and have no row

    Returns
    -------
    DataFrame, index "class", columns recall, iou, f1, f2, precision: float64 between 0 and 1. NaN and 0 of empty
    classes: see the table at the top of this module. No mean among the rows: see ``mean_metrics``

    Raises
    ------
    InputError
        The shapes differ or are empty, an array holds no integers (NaN, fractions: said how many), a value has no
        name, or ``labels`` are not distinct values 0 … 255.
    """
    return metrics_of_confusion(confusion_matrix(truth, prediction, labels)).loc[list(labels)]


def mean_metrics(metrics: pd.DataFrame, without: Sequence[str] = (BACKGROUND,)) -> pd.Series:
    """Mean of every metric over the classes.

    metrics : of ``class_metrics``. without : classes left out, the background if nothing else is said (it fills most
    of a volume and would lift every mean). NaN is left out of its column; a column of nothing else is NaN.
    """
    return metrics.drop(index=list(without), errors="ignore").mean(axis=0)


def confusion_matrix(truth: Any, prediction: Any, labels: Mapping[str, int]) -> pd.DataFrame:
    """Voxels counted by true and predicted class; matrices of several volumes may be added.

    Arguments and errors as of ``class_metrics``. Returns a DataFrame int64, index "truth", columns "prediction", both
    the names of ``labels``; ``background`` comes first where ``labels`` leave it out.
    """
    labels = _with_background(labels)
    shape = _common_shape(truth, prediction)
    index = np.full(_VALUES, len(labels), dtype=np.int64)  # what has no name is counted last
    index[list(labels.values())] = np.arange(len(labels))
    width = len(labels) + 1
    counts = np.zeros(width * width, dtype=np.int64)
    for part in _slabs(shape):
        true_values = _flat_labels("truth", truth, part, labels)
        predicted_values = _flat_labels("prediction", prediction, part, labels)
        _count_pairs(true_values, predicted_values, index, width, counts)
    matrix = counts.reshape(width, width)
    for name, array, unknown in (("truth", truth, matrix[-1]), ("prediction", prediction, matrix[:, -1])):
        if unknown.any():
            _raise_unknown(name, array, shape, labels)
    names = list(labels)
    return pd.DataFrame(
        matrix[:-1, :-1], index=pd.Index(names, name="truth"), columns=pd.Index(names, name="prediction")
    )


def metrics_of_confusion(confusion: pd.DataFrame) -> pd.DataFrame:
    """The metrics of every class of a confusion matrix (truth, prediction), of one volume or a sum of several.

    Returned as by ``class_metrics``.
    """
    counts = class_counts(confusion)
    tp, fp, fn = (counts[name].to_numpy(np.float64) for name in COUNTS)
    ratios = {
        "recall": _ratio(tp, tp + fn),
        "iou": _ratio(tp, tp + fp + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "f2": _ratio(5 * tp, 5 * tp + 4 * fn + fp),
        "precision": _ratio(tp, tp + fp),
    }
    return pd.DataFrame(ratios, index=counts.index, columns=list(METRICS))


def class_counts(confusion: pd.DataFrame) -> pd.DataFrame:
    """Voxels tp, fp, fn of every class of a confusion matrix (truth, prediction): int64, index "class"."""
    matrix = confusion.to_numpy()
    tp = np.diagonal(matrix)
    columns = {"tp": tp, "fp": matrix.sum(axis=0) - tp, "fn": matrix.sum(axis=1) - tp}
    return pd.DataFrame(columns, index=pd.Index(list(confusion.index), name="class"))


def check_class_names(class_names: Mapping[str, int]) -> None:
    """Raise InputError unless class_names numbers its classes 0 … n − 1, with 0 named background."""
    if len(class_names) < 2 or sorted(class_names.values()) != list(range(len(class_names))):
        raise InputError(
            f"class_names must number at least two classes 0, 1, 2, … without gaps, got {dict(class_names)}"
        )
    if class_names.get(BACKGROUND) != 0:
        raise InputError(f"class_names must name label 0 'background', got {dict(class_names)}")


@compiled()
def _count_pairs(truth, prediction, index, width, counts):
    """Add the pairs of two flat uint8 arrays to counts (true class · width + predicted class)."""
    for i in range(truth.size):
        counts[index[truth[i]] * width + index[prediction[i]]] += 1


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _with_background(labels: Mapping[str, int]) -> dict[str, int]:
    """Checked copy of ``labels`` in which value 0 has a name."""
    values = list(labels.values())
    whole = all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in values)
    if not values or not whole or min(values) < 0 or max(values) >= _VALUES or len(set(values)) < len(values):
        raise InputError(f"labels must give every class a value of its own from 0 to 255, got {dict(labels)}")
    if 0 in values:
        return dict(labels)
    if BACKGROUND in labels:
        raise InputError(f"labels must number the background 0, got {dict(labels)}")
    return {BACKGROUND: 0, **labels}


def _common_shape(truth: Any, prediction: Any) -> tuple[int, ...]:
    shapes = []
    for name, array in (("truth", truth), ("prediction", prediction)):
        if not hasattr(array, "shape") or not hasattr(array, "dtype"):
            raise InputError(f"{name} must be an array of labels (z, y, x), got {type(array).__name__}")
        shapes.append(tuple(int(n) for n in array.shape))
    if shapes[0] != shapes[1]:
        raise InputError(
            f"truth and prediction must have one shape, got {shapes[0]} and {shapes[1]}; "
            "is one of them at another resolution?"
        )
    if not shapes[0] or 0 in shapes[0]:
        raise InputError(f"truth and prediction must hold voxels, got arrays of shape {shapes[0]}")
    return shapes[0]


def _slabs(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of the first axis of about ``_SLAB_VOXELS``, whole chunks of stored volumes where that is possible."""
    across = int(np.prod(shape[1:], dtype=np.int64))
    step = max(1, _SLAB_VOXELS // across)
    step = max(SLAB, step - step % SLAB)
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def _flat_labels(name: str, array: Any, part: slice, labels: Mapping[str, int]) -> np.ndarray:
    """A slab of labels as flat uint8, without a copy where it is that already."""
    slab = np.asarray(array[part])
    if slab.dtype == bool:
        slab = slab.view(np.uint8)
    if not np.issubdtype(slab.dtype, np.integer):
        raise InputError(
            f"{name} must hold integer labels, got {slab.dtype}{_of_floats(slab)}; is it the volume, or a "
            "probability, in place of the labels?"
        )
    if slab.dtype != np.uint8:
        if slab.min() < 0 or slab.max() >= _VALUES:
            raise InputError(_unknown(name, slab[(slab < 0) | (slab >= _VALUES)], labels))
        slab = slab.astype(np.uint8)
    return np.ascontiguousarray(slab).reshape(-1)


def _of_floats(slab: np.ndarray) -> str:
    if not np.issubdtype(slab.dtype, np.floating):
        return ""
    broken = int(np.count_nonzero(~np.isfinite(slab)))
    fractions = int(np.count_nonzero(slab != np.floor(slab))) - int(np.count_nonzero(np.isnan(slab)))
    return f" with {broken} values that are NaN or infinite and {fractions} that are not whole"


def _raise_unknown(name: str, array: Any, shape: tuple[int, ...], labels: Mapping[str, int]) -> None:
    known = list(labels.values())
    for part in _slabs(shape):
        values = _flat_labels(name, array, part, labels)
        strange = values[~np.isin(values, known)]
        if strange.size:
            raise InputError(_unknown(name, strange, labels))


def _unknown(name: str, strange: np.ndarray, labels: Mapping[str, int]) -> str:
    values = np.unique(strange).tolist()
    shown = ", ".join(str(v) for v in values[:_SHOWN]) + (", …" if len(values) > _SHOWN else "")
    return f"{name} must hold the labels {dict(labels)}, got also {shown}; name them in `labels`, or relabel the volume"
