"""How well predicted labels agree with the truth, class by class."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tomoforge.errors import InputError


@dataclass(frozen=True)
class ClassMetrics:
    """Agreement of one class, each between 0 and 1; NaN where the ratio is 0/0.

    With TP, FP, FN voxels: recall TP/(TP+FN), precision TP/(TP+FP), iou TP/(TP+FP+FN),
    f1 2TP/(2TP+FP+FN) (the Dice coefficient), f2 5TP/(5TP+4FN+FP), which weighs recall four times.
    """

    recall: float
    precision: float
    iou: float
    f1: float
    f2: float


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Voxels counted by true and predicted class.

    Parameters
    ----------
    truth, predicted : (z, y, x) integer labels, 0 … n_classes − 1; any equal shapes will do
    n_classes : int

    Returns
    -------
    (true class, predicted class) int64

    Raises
    ------
    InputError
        Shapes differ, labels are not integers, or a label lies outside 0 … n_classes − 1.
    """
    if n_classes < 1:
        raise InputError(f"n_classes must be at least 1, got {n_classes}")
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape:
        raise InputError(
            f"truth and predicted must have one shape, got {truth.shape} and {predicted.shape}; "
            "is one of them at another resolution?"
        )
    _check_labels("truth", truth, n_classes)
    _check_labels("predicted", predicted, n_classes)
    counts = np.zeros(n_classes * n_classes, dtype=np.int64)
    # Slice by slice: the int64 index of a whole 1024³ volume would take 8 GB.
    for true_slice, predicted_slice in zip(_slices(truth), _slices(predicted), strict=True):
        pairs = true_slice.astype(np.int64) * n_classes + predicted_slice
        counts += np.bincount(pairs.ravel(), minlength=n_classes * n_classes)
    return counts.reshape(n_classes, n_classes)


def segmentation_metrics(
    truth: np.ndarray, predicted: np.ndarray, class_names: Mapping[str, int]
) -> dict[str, ClassMetrics]:
    """Agreement for each named class.

    truth, predicted : (z, y, x) integer labels. class_names : name → label, the labels 0 … n − 1.
    A class absent from both volumes has NaN throughout; absent from one only, zeros where defined.

    Raises
    ------
    InputError
        As ``confusion_matrix``; also if class_names does not number its classes 0 … n − 1.
    """
    check_class_names(class_names)
    matrix = confusion_matrix(truth, predicted, len(class_names))
    return {name: class_metrics(matrix, label) for name, label in class_names.items()}


def class_metrics(matrix: np.ndarray, label: int) -> ClassMetrics:
    """Agreement of the class ``label`` from a confusion matrix (true class, predicted class)."""
    true_positive = int(matrix[label, label])
    false_positive = int(matrix[:, label].sum()) - true_positive
    false_negative = int(matrix[label].sum()) - true_positive
    either = true_positive + false_positive + false_negative
    return ClassMetrics(
        recall=_ratio(true_positive, true_positive + false_negative),
        precision=_ratio(true_positive, true_positive + false_positive),
        iou=_ratio(true_positive, either),
        f1=_ratio(2 * true_positive, either + true_positive),
        f2=_ratio(5 * true_positive, 5 * true_positive + 4 * false_negative + false_positive),
    )


def check_class_names(class_names: Mapping[str, int]) -> None:
    """Raise InputError unless class_names numbers its classes 0 … n − 1, with 0 named background."""
    if len(class_names) < 2 or sorted(class_names.values()) != list(range(len(class_names))):
        raise InputError(
            f"class_names must number at least two classes 0, 1, 2, … without gaps, got {dict(class_names)}"
        )
    if class_names.get("background") != 0:
        raise InputError(f"class_names must name label 0 'background', got {dict(class_names)}")


def _slices(labels: np.ndarray) -> np.ndarray:
    return labels if labels.ndim > 1 else labels[None]


def _check_labels(name: str, labels: np.ndarray, n_classes: int) -> None:
    if not (np.issubdtype(labels.dtype, np.integer) or labels.dtype == bool):
        raise InputError(f"{name} must hold integer labels, got {labels.dtype}")
    if labels.size and (labels.min() < 0 or labels.max() >= n_classes):
        raise InputError(
            f"{name} must hold labels 0 … {n_classes - 1}, got {labels.min()} … {labels.max()}; "
            "does class_names list every class?"
        )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
