"""Slices, projections and sinograms as pictures: window, labels over them, axes, scale bar, colour bar.

Drawn at the resolution of the data and sent as PNG: sharp, exact, and quick enough to follow a slider.
"""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

_FULL_PX = 880  # smaller pictures are enlarged by whole numbers, so that voxels stay squares
_BAR_UM = tuple(m * 10**e for e in range(-2, 5) for m in (1, 2, 5))
# Text and ticks beside the picture, by the page's background.
_INK: Mapping[str, Colour] = {"light": (49, 51, 63), "dark": (250, 250, 250)}
# Sent as transparent, so that the page's own background shows. No grey value is ever this: its parts differ.
_PAPER: Mapping[str, Colour] = {"light": (255, 254, 255), "dark": (22, 23, 22), "print": (255, 255, 255)}


@dataclass(frozen=True)
class Overlay:
    """Labels over a slice. labels : (row, column) uint8 of any resolution; colours : value → colour, names : value →
    name; opacity : of the filled areas, 0 to 1; contours : whether outlines are drawn."""

    labels: np.ndarray
    colours: Mapping[int, Colour]
    names: Mapping[int, str]
    opacity: float = 0.0
    contours: bool = True


@dataclass(frozen=True)
class Axis:
    """One axis of a picture: its name, its unit, and where its first and last pixel's outer edges lie."""

    name: str
    unit: str
    start: float
    stop: float


def grey(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """(row, column) uint8: black at ``low`` and below, white at ``high`` and above; what is not finite is black."""
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / max(high - low, 1e-30))
    return np.clip(np.nan_to_num(scaled, nan=0.0), 0, 255).astype(np.uint8)


def outlines(labels: np.ndarray, width: int) -> np.ndarray:
    """(row, column) bool: the pixels of each label within ``width`` of another one."""
    edge = np.zeros(labels.shape, bool)
    for shift in range(1, width + 1):
        rows = labels[shift:] != labels[:-shift]
        edge[shift:] |= rows
        edge[:-shift] |= rows
        columns = labels[:, shift:] != labels[:, :-shift]
        edge[:, shift:] |= columns
        edge[:, :-shift] |= columns
    return edge & (labels > 0)


def coloured(image: np.ndarray, overlay: Overlay, width: int = 3) -> np.ndarray:
    """(row, column, 3) uint8: a grey picture with labels of the same shape over it."""
    picture = np.repeat(image[..., None], 3, axis=2)
    edge = outlines(overlay.labels, width) if overlay.contours else None
    for value, colour in overlay.colours.items():
        mask = overlay.labels == value
        if overlay.opacity > 0:
            weight = np.float32(overlay.opacity)
            filled = picture[mask] * (1 - weight) + np.asarray(colour, np.float32) * weight
            picture[mask] = filled.astype(np.uint8)
        if edge is not None:
            picture[mask & edge] = colour
    return picture


def resized(labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Labels at another resolution, each pixel that of the nearest one."""
    if labels.shape == shape:
        return labels
    rows = (np.arange(shape[0]) * labels.shape[0]) // shape[0]
    columns = (np.arange(shape[1]) * labels.shape[1]) // shape[1]
    return labels[rows[:, None], columns[None, :]]


def scale_bar(width_um: float) -> float:
    """A round length [µm] of at most a third of the picture's width."""
    return max((length for length in _BAR_UM if length <= width_um / 3), default=_BAR_UM[0])


def ticks(start: float, stop: float, most: int = 6) -> list[float]:
    """Round numbers between two ends, at most ``most`` of them."""
    span = abs(stop - start)
    if not span > 0:
        return [start]
    step = next(
        (m * 10.0**e for e in range(-9, 12) for m in (1, 2, 5) if span / (m * 10.0**e) <= most - 1),
        span,
    )
    low, high = min(start, stop), max(start, stop)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def picture(
    values: np.ndarray,
    low: float,
    high: float,
    *,
    down: Axis,
    across: Axis,
    quantity: str,
    overlay: Overlay | None = None,
    theme: str = "light",
    aspect: float = 1.0,
    bar: bool = True,
) -> bytes:
    """The PNG of (row, column) ``values`` between ``low`` and ``high``, with axes, colour bar and labels.

    quantity : what the grey values are, with its unit; theme : light, dark, or print for white paper; aspect : height
    of a pixel over its width; bar : whether a scale
    bar is drawn, for axes in µm.
    """
    factor = max(1, round(_FULL_PX / max(values.shape[0] * aspect, values.shape[1])))
    tall = max(1, round(factor * aspect))
    image = np.repeat(np.repeat(grey(values, low, high), tall, axis=0), factor, axis=1)
    shape = (values.shape[0], values.shape[1])
    if overlay is not None:
        labels = resized(overlay.labels, shape)
        labels = np.repeat(np.repeat(labels, tall, axis=0), factor, axis=1)
        image = coloured(
            image, Overlay(labels, overlay.colours, overlay.names, overlay.opacity, overlay.contours)
        )
    drawn = Image.fromarray(image)
    framed = _framed(drawn, low, high, down, across, quantity, overlay, theme, bar)
    return _png(framed, None if theme == "print" else _PAPER.get(theme, _PAPER["light"]))


def _framed(
    image: Image.Image,
    low: float,
    high: float,
    down: Axis,
    across: Axis,
    quantity: str,
    overlay: Overlay | None,
    theme: str,
    bar: bool,
) -> Image.Image:
    """The picture with its axes around it, the colour bar to the right and the labels' names below."""
    width, height = image.size
    size = round(0.026 * max(width, height, 640))
    font = _font(size)
    ink, paper = _INK.get(theme, _INK["light"]), _PAPER.get(theme, _PAPER["light"])
    named = [value for value in overlay.colours if value in overlay.names] if overlay is not None else []
    left, top = round(3.9 * size), size
    right, bottom = round(5.2 * size), round((5.2 if named else 3.2) * size)
    canvas = Image.new("RGB", (left + width + right, top + height + bottom), paper)
    canvas.paste(image.convert("RGB"), (left, top))
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((left - 1, top - 1, left + width, top + height), outline=ink)
    for value in ticks(across.start, across.stop):
        place = left + (value - across.start) / (across.stop - across.start) * width
        pen.line((place, top + height, place, top + height + size // 2), fill=ink, width=2)
        pen.text((place, top + height + 0.7 * size), _number(value), ink, font, anchor="ma")
    for value in ticks(down.start, down.stop):
        place = top + (value - down.start) / (down.stop - down.start) * height
        pen.line((left - size // 2, place, left, place), fill=ink, width=2)
        pen.text((left - 0.7 * size, place), _number(value), ink, font, anchor="rm")
    title = f"{across.name} [{across.unit}]"
    pen.text((left + width / 2, top + height + 2 * size), title, ink, font, anchor="ma")
    _sideways(canvas, f"{down.name} [{down.unit}]", (round(0.6 * size), top + height // 2), ink, paper, font)
    _colour_bar(
        canvas,
        pen,
        (left + width + round(0.6 * size), top, round(0.7 * size), height),
        low,
        high,
        quantity,
        ink,
        paper,
        font,
    )
    if named and overlay is not None:
        _legend(pen, overlay, named, (left, top + height + 4 * size), size, ink, font)
    if bar:
        _scale(pen, abs(across.stop - across.start), across.unit, (left, top, width, height), font)
    return canvas


def _colour_bar(
    canvas: Image.Image,
    pen: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    low: float,
    high: float,
    quantity: str,
    ink: Colour,
    paper: Colour,
    font: ImageFont.FreeTypeFont,
) -> None:
    x, y, width, height = box
    ramp = np.linspace(255, 0, height).astype(np.uint8)
    canvas.paste(Image.fromarray(np.repeat(ramp[:, None], width, axis=1)).convert("RGB"), (x, y))
    pen.rectangle((x - 1, y - 1, x + width, y + height), outline=ink)
    for value in ticks(low, high, most=8):
        place = y + height - (value - low) / max(high - low, 1e-30) * height
        pen.line((x + width, place, x + 1.4 * width, place), fill=ink, width=2)
        pen.text((x + 1.7 * width, place), _number(value), ink, font, anchor="lm")
    _sideways(canvas, quantity, (canvas.width - round(0.9 * width), y + height // 2), ink, paper, font)


def _legend(
    pen: ImageDraw.ImageDraw,
    overlay: Overlay,
    values: list[int],
    corner: tuple[int, int],
    size: int,
    ink: Colour,
    font: ImageFont.FreeTypeFont,
) -> None:
    x, y = corner
    for value in values:
        pen.rectangle((x, y, x + size, y + size), fill=overlay.colours[value], outline=ink)
        pen.text((x + 1.5 * size, y + size / 2), overlay.names[value], ink, font, anchor="lm")
        x += round(1.5 * size + pen.textlength(overlay.names[value], font) + 1.5 * size)


def _scale(
    pen: ImageDraw.ImageDraw,
    span: float,
    unit: str,
    box: tuple[int, int, int, int],
    font: ImageFont.FreeTypeFont,
) -> None:
    """A scale bar in the lower left, light with a dark edge: seen on any grey."""
    left, top, width, height = box
    length = scale_bar(span)
    long, thick = length / span * width, max(4, height // 160)
    x, y = left + 0.03 * width, top + 0.965 * height
    pen.rectangle((x - 2, y - thick - 2, x + long + 2, y + 2), fill=(0, 0, 0))
    pen.rectangle((x, y - thick, x + long, y), fill=(255, 255, 255))
    pen.text(
        (x + long / 2, y - thick - 6),
        f"{_number(length)} {unit}",
        (255, 255, 255),
        font,
        anchor="ms",
        stroke_width=3,
        stroke_fill=(0, 0, 0),
    )


def _sideways(
    canvas: Image.Image,
    text: str,
    centre: tuple[int, int],
    ink: Colour,
    paper: Colour,
    font: ImageFont.FreeTypeFont,
) -> None:
    """Text that runs upwards."""
    left, top, right, bottom = font.getbbox(text)
    written = Image.new("RGB", (round(right - left) + 4, round(bottom - top) + 4), paper)
    ImageDraw.Draw(written).text((2 - left, 2 - top), text, ink, font)
    turned = written.rotate(90, expand=True)
    canvas.paste(turned, (centre[0] - turned.width // 2, centre[1] - turned.height // 2))


def _number(value: float) -> str:
    text = f"{value:.6g}"
    return text.replace("-", "\u2212") if "e" not in text else text


_fonts: dict[int, ImageFont.FreeTypeFont] = {}


def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib brings a font that has µ, minus and superscripts, whatever the machine has.
    if size not in _fonts:
        path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
        _fonts[size] = ImageFont.truetype(str(path), size)
    return _fonts[size]


def _png(image: Image.Image, transparent: Colour | None) -> bytes:
    buffer = io.BytesIO()
    if transparent is None:
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "PNG", compress_level=1, transparency=transparent)
    return buffer.getvalue()
