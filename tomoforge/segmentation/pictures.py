"""Pictures of an evaluation: a case with its errors, and which class was taken for which."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tomoforge.errors import InputError
from tomoforge.pictures import LABEL_COLOURS, grey_range, png_bytes
from tomoforge.segmentation.source import Readable
from tomoforge.units import m_to_um
from tomoforge.volumes import LABEL_NAMES, SLAB

_PLANES = ("axial, z", "coronal, y", "sagittal, x")
_WRONG = "#CC79A7"  # of Okabe and Ito; no class has it


def worst_slices(truth: Readable, prediction: Readable) -> tuple[int, int, int]:
    """For each axis the slice with the most wrong voxels, the middle one where there are none; read by slabs."""
    nz, ny, nx = truth.shape
    counts = [np.zeros(n, dtype=np.int64) for n in (nz, ny, nx)]
    for start in range(0, nz, SLAB):
        part = slice(start, start + SLAB)
        wrong = np.asarray(truth[part]) != np.asarray(prediction[part])
        in_plane = wrong.sum(axis=0)
        counts[0][part] = wrong.sum(axis=(1, 2))
        counts[1] += in_plane.sum(axis=1)
        counts[2] += in_plane.sum(axis=0)
    if not counts[0].any():
        return nz // 2, ny // 2, nx // 2
    z, y, x = (int(np.argmax(count)) for count in counts)
    return z, y, x


def case_picture(
    volume: Readable, truth: Readable, prediction: Readable, voxel_size: float, title: str
) -> bytes:
    """A case where it is worst: in each plane the slice with the most wrong voxels, as PNG.

    Above the outlines of the true classes, below those of the predicted ones with the wrong voxels filled.

    Parameters
    ----------
    volume : (z, y, x) float [1/m]; truth, prediction : (z, y, x) uint8 labels, the same grid; in memory or stored
    voxel_size : float [m]; title : over the picture

    Returns the same bytes for the same numbers. Raises InputError if the shapes differ.
    """
    if len(volume.shape) != 3 or not volume.shape == truth.shape == prediction.shape:
        raise InputError(
            "volume, truth and prediction must be (z, y, x) on one grid, got "
            f"{volume.shape}, {truth.shape} and {prediction.shape}"
        )
    figure = Figure(figsize=(9.6, 7.2), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(2, 3)
    worst = worst_slices(truth, prediction)
    cuts = [
        tuple(index if axis == across else slice(None) for axis in range(3))
        for across, index in enumerate(worst)
    ]
    images = [np.asarray(volume[cut]) for cut in cuts]
    low, high = grey_range(*images)
    for axis, (image, cut) in enumerate(zip(images, cuts, strict=True)):
        true, predicted = np.asarray(truth[cut]), np.asarray(prediction[cut])
        for row, (name, labels) in enumerate((("truth", true), ("prediction", predicted))):
            axes = grid[row, axis]
            axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            if row:
                _fill(axes, true != predicted)
            _outlines(axes, labels)
            position = m_to_um((worst[axis] - (volume.shape[axis] - 1) / 2) * voxel_size)
            axes.set_title(f"{name}, {_PLANES[axis]} = {position:+.1f} µm", fontsize=9)
            axes.set_xticks([])
            axes.set_yticks([])
    patches = [Patch(facecolor=LABEL_COLOURS[v], label=name) for name, v in LABEL_NAMES.items() if v]
    patches.append(Patch(facecolor=_WRONG, label="wrong"))
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=8, frameon=False)
    return png_bytes(figure)


def confusion_picture(confusion: pd.DataFrame, title: str) -> bytes:
    """Which true class was taken for which, in per cent of the true class; confusion : (truth, prediction) voxels."""
    counts = confusion.to_numpy(np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(100 * counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    figure = Figure(
        figsize=(1.6 + 0.9 * len(counts), 1.3 + 0.75 * len(counts)), dpi=110, layout="constrained"
    )
    axes = figure.subplots()
    axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=100)
    for (row, column), share in np.ndenumerate(shares):
        text = "–" if np.isnan(share) else f"{share:.1f}"
        axes.text(
            column, row, text, ha="center", va="center", fontsize=9, color="white" if share > 55 else "black"
        )
    axes.set_xticks(range(len(counts)), list(confusion.columns), fontsize=9)
    axes.set_yticks(range(len(counts)), list(confusion.index), fontsize=9)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth (rows add to 100 %)")
    axes.set_title(title, fontsize=10)
    return png_bytes(figure)


def _outlines(axes: Axes, labels: np.ndarray) -> None:
    for value, colour in LABEL_COLOURS.items():
        mask = labels == value
        if value and mask.any() and not mask.all():
            axes.contour(mask, levels=[0.5], colors=[colour], linewidths=1.1)


def _fill(axes: Axes, mask: np.ndarray) -> None:
    shown = np.ma.masked_where(~mask, mask)
    axes.imshow(shown, cmap=ListedColormap([_WRONG]), alpha=0.75, interpolation="nearest")
