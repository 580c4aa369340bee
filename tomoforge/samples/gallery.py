"""What a set of forged samples looks like: contact sheets, and how sizes, fractions and poses are spread.

The same numbers give the same bytes.
"""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from PIL import Image

from tomoforge.errors import InputError, StorageError
from tomoforge.pictures import LABEL_COLOURS, png_bytes
from tomoforge.samples.rendering import LIQUOR, colour_table, render
from tomoforge.storage import write_bytes_atomic
from tomoforge.units import m_to_um, rad_to_deg
from tomoforge.volumes import LABEL_NAMES

_GAP = 8  # between the tiles of a sheet [pixels]
_INSET = 0.28  # side of a tile's inset, share of the tile
_COLUMNS = 4  # of panels of distributions
_MOST_BARS = 14  # in one panel


class Tile(NamedTuple):
    """A picture (h, w, 3) uint8 for a contact sheet, what stands under it, and the size of its pixels [m]."""

    image: np.ndarray
    caption: str
    pixel_size: float | None = None


def sample_tile(
    labels: np.ndarray,
    voxel_size: float,
    caption: str,
    *,
    view: str | tuple[float, float] = "front",
    size: int = 240,
    zoom: float = 1.0,
    names: Mapping[str, int] = LABEL_NAMES,
    colours: Mapping[str, str] | None = None,
) -> Tile:
    """The rendered view of a sample with an inset, lower right: its axial slice through the crystal's middle.

    Parameters and errors as of ``render``; voxel_size [m]. Labels without a crystal show the field's middle slice.
    """
    if not (math.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be positive metres, got {voxel_size!r}")
    image = render(labels, view, size, zoom=zoom, names=names, colours=colours)
    middle = labels.shape[0] // 2
    if "crystal" in names:
        heights = np.flatnonzero([(layer == names["crystal"]).any() for layer in labels])
        middle = int(heights[len(heights) // 2]) if len(heights) else middle
    table = colour_table(names, colours)
    table[0] = to_rgb(LABEL_COLOURS[0])
    if LIQUOR in names:
        table[names[LIQUOR]] = to_rgb(LABEL_COLOURS[LABEL_NAMES[LIQUOR]])
    side = round(_INSET * size)
    rows, columns = (
        np.minimum(((np.arange(side) + 0.5) * max(labels.shape[1:]) / side).astype(int), n - 1)
        for n in labels.shape[1:]
    )
    inset = np.round(255 * table[labels[middle][np.ix_(rows, columns)]]).astype(np.uint8)
    image[-side - 1 :, -side - 1 :] = 255
    image[-side:, -side:] = inset
    return Tile(image, caption, max(labels.shape) * voxel_size / (zoom * size))


def write_tile(path: str | Path, tile: Tile) -> None:
    """Keep a tile's picture as PNG; its caption and pixel size are not kept. The same picture, the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(tile.image).save(buffer, format="png")
    write_bytes_atomic(path, buffer.getvalue())


def read_tile(path: str | Path) -> np.ndarray:
    """The picture of ``write_tile``: (h, w, 3) uint8. Raises StorageError where it cannot be read."""
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise StorageError(f"the picture {Path(path).name} cannot be read: {error}") from error


def contact_sheet(
    tiles: Sequence[Tile | tuple[np.ndarray, str]], columns: int = 6, *, title: str = ""
) -> bytes:
    """Many samples on one sheet, row by row, as PNG; tiles whose pixel size is known get a scale bar.

    tiles : pictures of one shape, unscaled on the sheet, 240 pixels make it about 1500 wide; captions may have
    several lines. Raises InputError for no tiles, columns below 1, or pictures of several shapes.
    """
    shown = [Tile(*tile) for tile in tiles]
    if not shown or columns < 1:
        raise InputError(f"a contact sheet needs tiles and at least 1 column, got {len(shown)} and {columns}")
    shape = shown[0].image.shape
    for tile in shown:
        if tile.image.dtype != np.uint8 or tile.image.shape != shape or len(shape) != 3 or shape[2] != 3:
            raise InputError(
                f"tiles must all be (h, w, 3) uint8 like the first, {shape}, got {tile.image.dtype} "
                f"{tile.image.shape}; render them with the same size"
            )
    high, wide = shape[:2]
    captions = [_wrapped(tile.caption, wide) for tile in shown]
    text = 8 + 14 * max(caption.count("\n") + 1 for caption in captions)
    head = 34 if title else 0
    width = columns * (wide + _GAP) + _GAP
    height = head + -(-len(shown) // columns) * (high + text + _GAP) + _GAP
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
    if title:
        figure.text(_GAP / width, 1 - 22 / height, title, fontsize=12, va="center")
    for i, (tile, caption) in enumerate(zip(shown, captions, strict=True)):
        left = _GAP + i % columns * (wide + _GAP)
        bottom = height - head - (i // columns + 1) * (high + text + _GAP) + text
        axes = figure.add_axes((left / width, bottom / height, wide / width, high / height))
        axes.imshow(tile.image, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        if tile.pixel_size is not None:
            _draw_bar(axes, tile.image.shape, tile.pixel_size)
        figure.text(left / width, (bottom - 5) / height, caption, fontsize=7.5, va="top", linespacing=1.3)
    return png_bytes(figure)


def _wrapped(caption: str, pixels: int) -> str:
    """The caption in lines that fit below a tile of this width; a letter takes about 6 pixels."""
    width = max(8, pixels // 6)
    return "\n".join(piece for line in caption.split("\n") for piece in textwrap.wrap(line, width) or [""])


def _draw_bar(axes, shape: tuple[int, ...], pixel_size: float) -> None:
    """A scale bar, lower left, of a round length below a third of the picture."""
    most_um = 0.34 * shape[1] * m_to_um(pixel_size)
    power = 10.0 ** math.floor(math.log10(most_um))
    length_um = next(n * power for n in (5, 2, 1) if n * power <= most_um)
    pixels = length_um / m_to_um(pixel_size)
    halo, thick = ([withStroke(linewidth=width, foreground="white")] for width in (2, 4))
    axes.plot(
        [6, 6 + pixels],
        [shape[0] - 8] * 2,
        color="#333333",
        linewidth=2,
        solid_capstyle="butt",
        path_effects=thick,
    )
    label = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
    axes.text(6, shape[0] - 12, label, color="#333333", fontsize=6.5, va="bottom", path_effects=halo)
    axes.set_xlim(-0.5, shape[1] - 0.5)
    axes.set_ylim(shape[0] - 0.5, -0.5)


# Columns that are drawn: axis label, and the factor from the column's unit to the label's.
_HISTOGRAMS: Mapping[str, tuple[str, float]] = {
    "crystal_size": ("crystal size [µm]", m_to_um(1.0)),
    "crystal_aspect": ("crystal aspect", 1.0),
    "crystal_wetted_share": ("crystal surface wetted [%]", 100.0),
    "crystal_loop_share": ("crystal surface on loop [%]", 100.0),
    "crystal_contact_angle": ("contact angle on crystal [°]", rad_to_deg(1.0)),
    "mount_contact_angle": ("contact angle on mount [°]", rad_to_deg(1.0)),
    "tilt": ("tilt of the stem [°]", rad_to_deg(1.0)),
    "azimuth": ("azimuth [°]", rad_to_deg(1.0)),
    "crystal_centre_x": ("crystal centre, x [µm]", m_to_um(1.0)),
    "crystal_centre_y": ("crystal centre, y [µm]", m_to_um(1.0)),
    "crystal_centre_z": ("crystal centre, z [µm]", m_to_um(1.0)),
    "packing_fraction": ("packing fraction", 1.0),
    "grains": ("grains in a sample", 1.0),
    "radius": ("radius [µm]", m_to_um(1.0)),
}
_BARS: Mapping[str, str] = {
    "habit": "habit",
    "mount": "mount",
    "crystals": "crystals in a sample",
    "liquor_kind": "liquor",
    "liquor": "liquor made by",
    "phase": "phase",
    "tries": "tries until it passed",
}


def distributions_picture(table: pd.DataFrame, *, rejections: Mapping[str, int] | None = None) -> bytes:
    """How a set is spread: a panel for each known column of ``table``, 1200 pixels wide, as PNG.

    Parameters
    ----------
    table : a row each sample (or grain). Drawn are, where present: as histograms the shares, sizes and places
        of ``sample_measures`` (every ``fraction_<name>`` but the background's), the angles [rad]
        crystal_contact_angle, mount_contact_angle, tilt and azimuth, packing_fraction, grains and radius [m]; as
        bars habit, mount, crystals, liquor_kind, liquor, phase and tries. Missing values are left out.
    rejections : reason to how often it was given; drawn as bars below the rest

    Raises
    ------
    InputError
        where there is nothing to draw.
    """
    fractions = {
        str(name): (f"{str(name).removeprefix('fraction_')}, share of field [%]", 100.0)
        for name in table.columns
        if str(name).startswith("fraction_") and name != "fraction_background"
    }
    rules = {**_HISTOGRAMS, **fractions}
    numbers = {name: _finite(table[name]) for name in rules if name in table.columns}
    # A share that is nought in every sample tells nothing that a picture could show.
    numbers = {
        name: values for name, values in numbers.items() if len(values) and (values.any() or len(values) < 2)
    }
    bars = {name: table[name].dropna().astype(str) for name in _BARS if name in table.columns}
    bars = {name: values for name, values in bars.items() if len(values)}
    if not numbers and not bars and not rejections:
        raise InputError(
            f"table must have a column that is drawn ({', '.join([*rules, *_BARS])}) with values in it, "
            f"got {', '.join(map(str, table.columns)) or 'no columns'}"
        )
    rows = -(-(len(numbers) + len(bars)) // _COLUMNS)
    heights = [2.4] * rows
    if rejections:
        heights.append(0.6 + 0.24 * min(len(rejections), _MOST_BARS))
    figure = Figure(figsize=(12, sum(heights)), dpi=100, layout="constrained")
    grid = figure.add_gridspec(len(heights), _COLUMNS, height_ratios=heights)
    panels = [figure.add_subplot(grid[i // _COLUMNS, i % _COLUMNS]) for i in range(len(numbers) + len(bars))]
    for axes, (name, values) in zip(panels, numbers.items(), strict=False):
        label, factor = rules[name]
        _draw_histogram(axes, values * factor, label)
    for axes, (name, values) in zip(panels[len(numbers) :], bars.items(), strict=True):
        _draw_bars(axes, values.value_counts().to_dict(), 36)
        axes.set_xlabel(_BARS[name], fontsize=9)
    for axes in panels[: len(numbers) : _COLUMNS]:
        axes.set_ylabel("number", fontsize=9)
    if rejections:
        axes = figure.add_subplot(grid[rows, :])
        _draw_bars(axes, dict(rejections), 180)
        axes.set_xlabel("rejected tries", fontsize=9)
    return png_bytes(figure)


def _finite(values: pd.Series) -> np.ndarray:
    found = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float)
    return found[np.isfinite(found)]


def _draw_histogram(axes, values: np.ndarray, label: str) -> None:
    bins = max(5, min(24, math.ceil(2 * len(values) ** (1 / 3)))) if np.ptp(values) else 1  # Rice's rule
    axes.hist(values, bins=bins, color="#0072B2", edgecolor="white", linewidth=0.5)
    axes.set_xlabel(label, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.tick_params(labelsize=8)


def _draw_bars(axes, counted: Mapping[str, int], letters: int) -> None:
    """Lying bars, the longest at the top, with their names on them; what does not fit is summed up in the last."""
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    if len(ordered) > _MOST_BARS:
        rest = sum(number for _, number in ordered[_MOST_BARS - 1 :])
        ordered = [*ordered[: _MOST_BARS - 1], (f"{len(ordered) - _MOST_BARS + 1} others", rest)]
    axes.barh(np.arange(len(ordered)), [number for _, number in ordered], color="#F2C46B")
    for place, (name, number) in enumerate(ordered):
        short = name if len(name) <= letters else f"{name[: letters - 1]}…"
        text = f"{short.replace('_', ' ')}: {number}"
        axes.annotate(text, (0, place), (4, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_yticks([])
    axes.set_ylim(max(len(ordered), 4) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
