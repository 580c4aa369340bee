"""Pictures of a volume for people: three middle slices and a sinogram, the same bytes every time."""

import io
import math
from collections.abc import Sequence

import numpy as np
import zarr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tomoforge.errors import InputError
from tomoforge.units import m_to_um, rad_to_deg

_DPI = 120
_WIDTH, _HEIGHT = 6.4, 5.4  # inches
_TAILS = (0.5, 99.8)  # percentiles shown as black and white, so that one hot voxel cannot blacken a slice
_ACROSS = 4  # slices in a row of the figure of centres
_MICRO, _DEGREE = "µm", "°"


def slice_pictures(volume: np.ndarray | zarr.Array, voxel_size: float, title: str = "") -> dict[str, bytes]:
    """The three middle slices of a volume as PNG files, on one grey scale of µ with a scale bar in µm.

    Parameters
    ----------
    volume : (z, y, x) float, µ [1/m]; of a stored array only the three slices are read
    voxel_size : float [m]
    title : str, above each picture

    Returns
    -------
    pictures : {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y)} slices as PNG bytes. Row 0 of an
        array is at the top, so z runs down as detector rows do.

    Raises
    ------
    InputError
        If the volume is not a finite (z, y, x) array, or the voxel size is not positive.
    """
    if volume.ndim != 3 or 0 in volume.shape:
        raise InputError(f"volume must be a non-empty (z, y, x) array, got {volume.shape}")
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be positive metres, got {voxel_size!r}")
    depth, height, width = (n // 2 for n in volume.shape)
    slices = {
        "axial": (np.asarray(volume[depth]), "x", "y", f"z = {depth}"),
        "coronal": (np.asarray(volume[:, height]), "x", "z", f"y = {height}"),
        "sagittal": (np.asarray(volume[:, :, width]), "y", "z", f"x = {width}"),
    }
    limits = _grey_limits(np.concatenate([image.ravel() for image, *_ in slices.values()]))
    return {
        name: _slice_picture(image, voxel_size, limits, axes, f"{title}  {name}, {where}".strip())
        for name, (image, *axes, where) in slices.items()
    }


def axial_pictures(
    slices: np.ndarray, rows: Sequence[int], voxel_size: float, title: str = ""
) -> dict[str, bytes]:
    """Axial slices as PNG files on one grey scale: {"axial_<row>": png}.

    Parameters
    ----------
    slices : (z, y, x) float, µ [1/m]; rows : the detector row of each; voxel_size : float [m]
    title : str, above each picture
    """
    if slices.ndim != 3 or len(slices) != len(rows):
        raise InputError(f"slices must be (z, y, x), one for each of {len(rows)} rows, got {slices.shape}")
    limits = _grey_limits(slices.ravel())
    return {
        f"axial_{row}": _slice_picture(
            image, voxel_size, limits, ["x", "y"], f"{title}  axial, row {row}".strip()
        )
        for image, row in zip(slices, rows, strict=True)
    }


def centres_picture(slices: np.ndarray, centres: Sequence[float], taken: float, row: int) -> bytes:
    """One slice about each of several axes side by side as a PNG file, for the eye to choose from.

    Parameters
    ----------
    slices : (centre, y, x) float, µ [1/m]; centres : detector columns [pixels]; taken : the one that was used
    row : the detector row they are of
    """
    if slices.ndim != 3 or len(slices) != len(centres) or not len(centres):
        raise InputError(f"slices must be (centre, y, x), one for each of {len(centres)}, got {slices.shape}")
    across = min(len(centres), _ACROSS)
    down = -(-len(centres) // across)
    figure = Figure(figsize=(3.2 * across, 3.4 * down + 0.4), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"row {row} about several rotation centres; taken: {taken:.2f} px", fontsize=11)
    limits = _grey_limits(slices.ravel())
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, image, centre in zip(grid, slices, centres, strict=False):
        axes.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="nearest")
        mark = "  (taken)" if abs(centre - taken) < 0.01 else ""
        axes.set_title(f"{centre:.2f} px{mark}", fontsize=10, fontweight="bold" if mark else "normal")
    for axes in grid:
        axes.set_axis_off()
    return _png(figure)


def sinogram_picture(sinogram: np.ndarray, angles: np.ndarray, title: str = "") -> bytes:
    """One detector row over all angles as a PNG file.

    Parameters
    ----------
    sinogram : (angle, x) float, line integrals −ln(transmission)
    angles : (angle,) float, radians; rows are shown in their order
    title : str

    Raises
    ------
    InputError
        If the shapes do not fit or a value is not finite.
    """
    if sinogram.ndim != 2 or sinogram.shape[0] != np.size(angles) or 0 in sinogram.shape:
        raise InputError(
            f"sinogram must be (angle, x) with one row for each of {np.size(angles)} angles, got "
            f"{sinogram.shape}"
        )
    figure, axes = _canvas()
    limits = _grey_limits(sinogram.ravel())
    image = axes.imshow(sinogram, cmap="gray", vmin=limits[0], vmax=limits[1], aspect="auto",
                        interpolation="nearest")  # fmt: skip
    ticks = np.unique(np.linspace(0, sinogram.shape[0] - 1, 7).round().astype(int))
    axes.set_yticks(ticks, [f"{rad_to_deg(float(angles[tick])):.1f}{_DEGREE}" for tick in ticks])
    axes.set_xlabel("detector column")
    axes.set_ylabel("angle")
    axes.set_title(title or "sinogram", fontsize=10)
    figure.colorbar(image, ax=axes, label="−ln(transmission)")
    return _png(figure)


def _slice_picture(
    image: np.ndarray, voxel_size: float, limits: tuple[float, float], names: list[str], title: str
) -> bytes:
    figure, axes = _canvas()
    shown = axes.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    axes.set_xlabel(f"{names[0]} →")
    axes.set_ylabel(f"← {names[1]}")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=10)
    _scale_bar(axes, image.shape, voxel_size)
    figure.colorbar(shown, ax=axes, label="µ [1/m]")
    return _png(figure)


def _scale_bar(axes: Axes, shape: tuple[int, ...], voxel_size: float) -> None:
    """A bar of a round length about a fifth of the width, in the lower left corner."""
    length_um = _round_length(m_to_um(voxel_size) * shape[1] / 5)
    columns = length_um / m_to_um(voxel_size)
    left, bottom = 0.04 * shape[1], 0.95 * shape[0]
    thick = max(0.012 * max(shape), 0.5)
    # A dark edge keeps the bar visible on bright samples.
    axes.add_patch(
        Rectangle((left, bottom - thick), columns, thick, facecolor="white", edgecolor="black", lw=0.6)
    )
    axes.text(
        left + columns / 2, bottom - 1.6 * thick, f"{length_um:g} {_MICRO}", color="white", fontsize=9,
        ha="center", va="bottom", bbox={"facecolor": "black", "alpha": 0.5, "pad": 1.5, "lw": 0},
    )  # fmt: skip


def _round_length(length: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not above ``length``."""
    decade = 10.0 ** math.floor(math.log10(length))
    return max(step * decade for step in (1, 2, 5) if step * decade <= length)


def _grey_limits(values: np.ndarray) -> tuple[float, float]:
    if not np.isfinite(values).all():
        raise InputError(f"the image has {np.sum(~np.isfinite(values))} values that are not finite")
    # Exact zeros are mostly the masked corners; counting them would pull black up on thin samples.
    inside = values[values != 0]
    if inside.size == 0:
        return (0.0, 1.0)
    low, high = (float(v) for v in np.percentile(inside, _TAILS))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _canvas() -> tuple[Figure, Axes]:
    # Not pyplot: it keeps figures and a back end in globals, and workers share neither.
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # The software entry holds a version: without it the bytes depend on the picture alone.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
