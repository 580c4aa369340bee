"""Pictures that more than one room draws: slices of labels, labels over a volume, projections, curves.

The same numbers give the same bytes: no time and no program version is written into a PNG.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import zarr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tomoforge.units import m_to_um
from tomoforge.volumes import LABEL_NAMES

# Okabe–Ito: background, liquor, loop, crystal; told apart with any colour vision.
LABEL_COLOURS = {0: "#111111", 1: "#56B4E9", 2: "#E69F00", 3: "#D55E00"}
_PLANES = ("axial (z)", "coronal (y)", "sagittal (x)")

Slices: TypeAlias = (
    np.ndarray | zarr.Array
)  # of what is stored, the slices that are shown are read and no more


def png_bytes(figure: Figure) -> bytes:
    """A figure as PNG, without time or version in it."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _middle_slices(volume: Slices) -> list[np.ndarray]:
    nz, ny, nx = volume.shape
    return [np.asarray(part) for part in (volume[nz // 2], volume[:, ny // 2], volume[:, :, nx // 2])]


def _row(count: int, height: float = 3.4) -> Figure:
    return Figure(figsize=(height * count, height), dpi=110, layout="constrained")


def _bare(axes, title: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def _legend(figure: Figure, names: Mapping[str, int]) -> None:
    patches = [
        Patch(facecolor=LABEL_COLOURS[v], edgecolor="#444444", label=name) for name, v in names.items() if v
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=8, frameon=False)


def _scale_bar(axes, width: int, voxel_size: float) -> None:
    longest_um = 0.4 * width * m_to_um(voxel_size)
    length_um = next((n for n in (500, 200, 100, 50, 20, 10, 5, 2) if n <= longest_um), 1)
    pixels = length_um / m_to_um(voxel_size)
    start = 0.04 * width
    axes.plot([start, start + pixels], [0.95 * axes.get_ylim()[0]] * 2, color="white", linewidth=3)
    axes.text(start, 0.92 * axes.get_ylim()[0], f"{length_um} µm", color="white", fontsize=8, va="bottom")


def labels_picture(labels: np.ndarray, voxel_size: float, title: str) -> bytes:
    """The three middle slices of a label volume (z, y, x) uint8; voxel_size [m]."""
    figure = _row(3)
    figure.suptitle(title, fontsize=10)
    colours = ListedColormap([LABEL_COLOURS[value] for value in sorted(LABEL_COLOURS)])
    for axes, image, plane in zip(figure.subplots(1, 3), _middle_slices(labels), _PLANES, strict=True):
        axes.imshow(image, cmap=colours, vmin=0, vmax=len(LABEL_COLOURS) - 1, interpolation="nearest")
        _bare(axes, plane)
        _scale_bar(axes, image.shape[1], voxel_size)
    _legend(figure, LABEL_NAMES)
    return png_bytes(figure)


def overlay_picture(
    volume: Slices,
    rows: Sequence[tuple[str, Slices]],
    voxel_size: float,
    title: str,
) -> bytes:
    """Middle slices of a volume (z, y, x) [1/m], bare and with the outlines of one or two label volumes.

    rows : (name, labels) of each label volume to draw, one row of slices each. All may be in memory or stored.
    """
    figure = Figure(figsize=(9.6, 3.3 * (1 + len(rows)) + 0.4), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(1 + len(rows), 3, squeeze=False)
    images, drawn = _middle_slices(volume), [_middle_slices(labels) for _, labels in rows]
    low, high = grey_range(*images)
    for column, (image, plane) in enumerate(zip(images, _PLANES, strict=True)):
        for row in range(1 + len(rows)):
            axes = grid[row, column]
            axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            name = "reconstruction" if row == 0 else rows[row - 1][0]
            _bare(axes, f"{name}, {plane}")
            if row:
                _outline(axes, drawn[row - 1][column])
        _scale_bar(grid[0, column], image.shape[1], voxel_size)
    _legend(figure, LABEL_NAMES)
    return png_bytes(figure)


def uncertainty_picture(uncertainty: Slices, labels: Slices, voxel_size: float, title: str) -> bytes:
    """Middle slices of a prediction's uncertainty (z, y, x), 0 certain … 1, with the outlines of its labels.

    Both may be in memory or stored. voxel_size [m].
    """
    figure = Figure(figsize=(9.6, 3.9), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid, slices = figure.subplots(1, 3), _middle_slices(uncertainty)
    # Nobody is ever quite unsure, and a network mostly little: the scale ends at the greatest that is shown.
    most = max(0.1, *(float(image.max()) for image in slices))
    for axes, image, drawn, plane in zip(grid, slices, _middle_slices(labels), _PLANES, strict=True):
        shown = axes.imshow(image, cmap="magma", vmin=0, vmax=most, interpolation="nearest")
        _outline(axes, drawn)
        _bare(axes, plane)
        _scale_bar(axes, image.shape[1], voxel_size)
    figure.colorbar(shown, ax=list(grid), label="1 − probability of the label", shrink=0.85)
    _legend(figure, LABEL_NAMES)
    return png_bytes(figure)


def _outline(axes, labels: np.ndarray) -> None:
    for value, colour in LABEL_COLOURS.items():
        mask = labels == value
        if value and mask.any() and not mask.all():
            axes.contour(mask, levels=[0.5], colors=[colour], linewidths=1.1)


def grey_range(*images: np.ndarray) -> tuple[float, float]:
    """Black and white of grey pictures: percentiles, so that edge fringes do not flatten the rest."""
    low, high = (float(v) for v in np.percentile(np.concatenate([np.ravel(i) for i in images]), [0.5, 99.5]))
    return (low, high) if high > low else (low, low + 1.0)


def projection_picture(transmission: np.ndarray, pixel_size: float, title: str) -> bytes:
    """A flat-corrected projection (y, x), transmission, with its grey scale. pixel_size [m]."""
    figure = Figure(figsize=(5.2, 4.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    low, high = grey_range(transmission)
    image = axes.imshow(transmission, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    _bare(axes, title)
    _scale_bar(axes, transmission.shape[1], pixel_size)
    figure.colorbar(image, ax=axes, label="transmission", shrink=0.85)
    return png_bytes(figure)


def training_picture(epochs: Sequence[int], loss: Sequence[float], dice: Sequence[float]) -> bytes:
    """Loss and pseudo-Dice over the epochs of a training."""
    figure = Figure(figsize=(6, 3.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.plot(epochs, loss, color="#0072B2", marker="o", label="training loss")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss (Dice + cross entropy)")
    right = axes.twinx()
    right.plot(epochs, dice, color="#D55E00", marker="s", linestyle="--", label="pseudo-Dice")
    right.set_ylabel("mean pseudo-Dice (validation)")
    right.set_ylim(0, 1)
    lines = [*axes.get_lines(), *right.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], fontsize=8, loc="center right")
    return png_bytes(figure)


def overview_picture(
    labels: np.ndarray,
    transmission: np.ndarray,
    volume: np.ndarray,
    predicted: np.ndarray,
    truth_factors: np.ndarray,
    predicted_factors: np.ndarray | None,
    voxel_size: float,
) -> bytes:
    """The way of the data in one row: sample → projection → slice → labels → correction.

    labels, predicted : (z, y, x) uint8; transmission : (y, x); volume : (z, y, x) [1/m]; factors : (reflection,),
    by predicted labels None where no crystal was predicted.
    """
    figure = Figure(figsize=(16, 3.7), dpi=110, layout="constrained")
    axes = figure.subplots(1, 5)
    colours = ListedColormap([LABEL_COLOURS[value] for value in sorted(LABEL_COLOURS)])
    middle = labels.shape[0] // 2
    coronal = labels.shape[1] // 2
    axes[0].imshow(labels[:, coronal], cmap=colours, vmin=0, vmax=3, interpolation="nearest")
    _bare(axes[0], "forged sample (labels)")
    _scale_bar(axes[0], labels.shape[2], voxel_size)
    low, high = grey_range(transmission)
    axes[1].imshow(transmission, cmap="gray", vmin=low, vmax=high)
    _bare(axes[1], "projection (transmission)")
    low, high = grey_range(volume)
    axes[2].imshow(volume[middle], cmap="gray", vmin=low, vmax=high)
    _bare(axes[2], "reconstructed slice (µ)")
    axes[3].imshow(volume[middle], cmap="gray", vmin=low, vmax=high)
    _outline(axes[3], predicted[middle])
    _bare(axes[3], "predicted labels")
    both = [truth_factors] if predicted_factors is None else [truth_factors, predicted_factors]
    bins = np.histogram_bin_edges(np.concatenate(both), bins=30)
    axes[4].hist(truth_factors, bins=bins, color="#0072B2", alpha=0.55, label="true labels")
    if predicted_factors is not None:
        outline = {"histtype": "step", "color": "#D55E00", "linewidth": 1.6}
        axes[4].hist(predicted_factors, bins=bins, label="predicted labels", **outline)
    axes[4].set_xlabel("absorption factor A")
    axes[4].set_ylabel("reflections")
    axes[4].set_title("correction", fontsize=9)
    axes[4].legend(fontsize=8)
    _legend(figure, LABEL_NAMES)
    return png_bytes(figure)
