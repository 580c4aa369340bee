"""The slices of a volume on the page: plane, slice, window, labels over it, and what to take along."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import streamlit as st
import tifffile
from streamlit.delta_generator import DeltaGenerator

from dashboard.scan_parts import UNCERTAINTY, VOLUME, Part, Parts, open_labels
from dashboard.slice_viewer import Axis, Overlay, picture
from dashboard.viewer_state import choice, number, put, shown, switch, whole, writer
from dashboard.vocabulary import literal, moment, number_text
from dashboard.volume_slices import (
    AXES,
    QUICK_BYTES,
    Slice,
    StoredVolume,
    level_for,
    open_volume,
    read_slice,
    value_range,
)
from tomoforge.errors import StorageError

# As wide as a square picture with its axes may be to be seen whole on a screen 1080 pixels high.
PICTURE_PX = 860
FRAME_PX = 660  # of projections and sinograms, which have the page's whole width
_NONE = "none"
_PLANES = {"z": "Across z (axial)", "y": "Across y (coronal)", "x": "Across x (sagittal)"}
_PER_MM = 1e-3  # µ is stored in 1/m, read in 1/mm


@dataclass(frozen=True)
class _Shown:
    """What is looked at: a stored volume, what its values are, and by what they are multiplied for reading."""

    volume: StoredVolume
    quantity: str
    unit: str
    factor: float


def show_slices(parts: Parts) -> None:
    """Controls to the left, the slice to the right. Raises StorageError with the reason if it cannot be read."""
    assert parts.volume is not None and parts.volume.artefact is not None
    left, right = st.columns([1, 3.3], gap="medium")
    volume = open_volume(parts.volume.artefact, VOLUME)
    with left:
        shown_volume = _choose_image(parts, volume)
        axis = AXES.index(choice("plane", AXES, "z"))
        finest = _choose_detail(volume, axis)
        low, high = _choose_window(shown_volume)
        labels = _choose_labels(parts, volume)
        opacity, contours = _choose_drawing() if labels is not None else (0.0, False)
    with right:
        _choose_plane()
        index = _choose_index(volume, axis)
        place = st.empty()
        level = min(level_for(shown_volume.volume, axis, finest=finest), len(shown_volume.volume.shapes) - 1)
        slow = shown_volume.volume.slice_bytes(axis, level) > 2 * QUICK_BYTES
        if slow:
            place.caption(":material/hourglass_top: Reading the slice at full resolution …")
        cut = read_slice(shown_volume.volume, axis, index, level)
        values = cut.values * np.float32(shown_volume.factor)
        overlay, shares = _overlay(labels, cut, opacity, contours)
        down, across = _axes(volume, axis)
        name = shown_volume.quantity + (f" [{shown_volume.unit}]" if shown_volume.unit else "")

        def drawn(style: str) -> bytes:
            return picture(
                values, low, high, down=down, across=across, quantity=name, overlay=overlay, theme=style
            )

        show_png(
            place, drawn(theme()), PICTURE_PX, f"Slice {AXES[axis]} = {index} of {parts.volume.item.title}"
        )
        st.caption(_told(shown_volume, cut, values, low, high, shares))
    with left:
        _downloads(parts.volume, cut, lambda: drawn("print"))


def labels_title(part: Part) -> str:
    """What a choice of labels is called."""
    if part.item.kind == "samples":
        return "True labels, as forged"
    return f"Segmentation {part.item.identifier[-8:]}, {moment(part.item.run.get('published_at'))}"


def grey_limits(values: np.ndarray) -> tuple[float, float]:
    """Black and white of a picture without a window of its own: percentiles of what is finite."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, [0.5, 99.5]))
    return (low, high) if high > low else (low, low + 1.0)


def show_png(place: DeltaGenerator, png: bytes, width: int, alt: str) -> None:
    """A picture at most ``width`` wide, sent as it is: told the width itself, st.image would scale it down."""
    place.container(width=width).image(png, width="stretch", alt=alt)


def theme() -> str:
    """Light or dark, as the browser shows the page."""
    found = st.context.theme.type
    return found if found in ("light", "dark") else "light"


# --- controls -----------------------------------------------------------------------------------


def _choose_image(parts: Parts, volume: StoredVolume) -> _Shown:
    mu = _Shown(volume, "µ", "mm⁻¹", _PER_MM)
    unsure = _uncertainty(parts, volume)
    if unsure is None:
        return mu
    key = shown("slices-image", choice("image", ("mu", "uncertainty"), "mu"))
    st.segmented_control(
        "Picture",
        ("mu", "uncertainty"),
        required=True,
        format_func=lambda name: {"mu": "µ", "uncertainty": "Uncertainty"}[name],
        key=key,
        on_change=writer("image", key, "mu"),
    )
    if st.session_state[key] == "mu":
        return mu
    return _Shown(unsure, "1 − probability of the label", "", 1.0)


def _uncertainty(parts: Parts, volume: StoredVolume) -> StoredVolume | None:
    """How unsure the segmentation of this page is, voxel by voxel, if that was stored."""
    part = next((p for p in parts.labels if p.item.identifier == parts.item.identifier), None)
    if part is None or part.artefact is None or not (part.artefact.folder / UNCERTAINTY).is_dir():
        return None
    try:
        stored = open_volume(part.artefact, UNCERTAINTY)
    except StorageError:
        return None
    return stored if stored.shape == volume.shape else None


def _choose_plane() -> None:
    key = shown("slices-plane", choice("plane", AXES, "z"))
    st.segmented_control(
        "Plane across",
        AXES,
        required=True,
        format_func=lambda name: _PLANES[name],
        key=key,
        on_change=writer("plane", key, "z"),
        label_visibility="collapsed",
    )


def _choose_index(volume: StoredVolume, axis: int) -> int:
    name, count = AXES[axis], volume.shape[axis]
    index = whole(name, 0, count - 1, count // 2)
    if count == 1:
        return 0
    key = shown(f"slices-{name}-{count}", index)
    st.slider(f"Slice {name}", 0, count - 1, key=key, on_change=writer(name, key, count // 2))
    return index


def _choose_detail(volume: StoredVolume, axis: int) -> bool:
    """Whether the finest level is read although a coarser one is shown at once."""
    if level_for(volume, axis) == level_for(volume, axis, finest=True):
        return False
    key = shown("slices-full", switch("full", False))
    st.toggle(
        "Full resolution",
        key=key,
        on_change=writer("full", key, False),
        help="Every voxel of the slice. Across y and x of a large volume this takes seconds.",
    )
    return bool(st.session_state[key])


def _choose_window(image: _Shown) -> tuple[float, float]:
    """Black and white: from the address, else the percentiles of the volume."""
    found = value_range(image.volume)
    least, most, low, high = (v * image.factor for v in (found.least, found.most, found.low, found.high))
    # A volume of one value has no range; its window still has a width.
    most = max(most, high)
    span = max(most - least, 1e-9)
    step = 10.0 ** np.floor(np.log10(span / 200))
    digits = max(0, -int(np.floor(np.log10(step))))
    # A coarse level is smoother than what is shown: there is room beyond its extremes.
    bounds = (round(least - 0.25 * span, digits), round(most + 0.25 * span, digits))
    automatic = (round(low, digits), round(max(high, low + step), digits))
    wanted = (number("low", automatic[0]), number("high", automatic[1]))
    inside = tuple(round(min(max(v, bounds[0]), bounds[1]), digits) for v in wanted)
    chosen = (inside[0], inside[1]) if inside[0] < inside[1] else automatic
    key = shown(f"slices-window-{image.volume.artefact.key}-{image.volume.name}", chosen)

    def write() -> None:
        black, white = st.session_state[key]
        same = (black, white) == automatic
        put({"low": None if same else f"{black:.{digits}f}", "high": None if same else f"{white:.{digits}f}"})

    unit = f" [{image.unit}]" if image.unit else ""
    st.slider(
        f"Window{unit}",
        *bounds,
        step=float(step),
        format=f"%.{digits}f",
        key=key,
        on_change=write,
        help="From black to white; width and level are told under the picture.",
    )
    if chosen != automatic:
        st.button(
            "Automatic window",
            icon=":material/contrast:",
            on_click=lambda: put({"low": None, "high": None}),
            type="tertiary",
        )
    return chosen if chosen[0] < chosen[1] else automatic


def _choose_labels(parts: Parts, volume: StoredVolume) -> StoredVolume | None:
    by_id = {part.item.identifier: part for part in parts.labels if part.artefact is not None}
    if not by_id:
        return None
    # A segmentation is opened to be seen; on a volume the truth of a forged sample waits to be asked for.
    first = next((name for name, part in by_id.items() if part.item.kind == "segmentations"), _NONE)
    wanted = choice("labels", [*by_id, _NONE], first)
    key = shown(f"slices-labels-{parts.item.identifier}", wanted)
    st.selectbox(
        "Labels over it",
        [*by_id, _NONE],
        format_func=lambda name: "None" if name == _NONE else labels_title(by_id[name]),
        key=key,
        on_change=writer("labels", key, first),
    )
    if wanted == _NONE:
        return None
    try:
        return open_labels(by_id[wanted], volume)
    except StorageError as error:
        st.warning(f"The labels cannot be shown: {literal(error)}.", icon=":material/broken_image:")
        return None


def _choose_drawing() -> tuple[float, bool]:
    """How labels are drawn: opacity of their areas (0 to 1), and whether outlines are."""
    key = shown("slices-opacity", whole("opacity", 0, 100, 20))
    st.slider("Opacity of the labels", 0, 100, format="%d %%", key=key, on_change=writer("opacity", key, 20))
    outline = shown("slices-contours", switch("contours", True))
    st.toggle("Contours", key=outline, on_change=writer("contours", outline, True))
    return st.session_state[key] / 100, bool(st.session_state[outline])


# --- pieces -------------------------------------------------------------------------------------


def _overlay(
    labels: StoredVolume | None, cut: Slice, opacity: float, contours: bool
) -> tuple[Overlay | None, Mapping[str, float]]:
    """The labels of the same slice, and the share of it that each takes."""
    if labels is None:
        return None, {}
    try:
        found = read_slice(labels, cut.axis, cut.index, min(cut.level, len(labels.shapes) - 1)).values
    except StorageError as error:
        st.warning(f"The labels cannot be shown: {literal(error)}.", icon=":material/broken_image:")
        return None, {}
    counts = np.bincount(found.ravel(), minlength=256)
    names = {value: name for name, value in labels.names.items() if value}
    shares = {name: counts[value] / found.size for value, name in names.items() if counts[value]}
    colours = {value: labels.colours.get(value, (128, 128, 128)) for value in names}
    return Overlay(found, colours, names, opacity, contours), shares


def _axes(volume: StoredVolume, axis: int) -> tuple[Axis, Axis]:
    """The axes down and across of the plane, in µm from the corner of the volume."""
    down, across = [n for n in range(3) if n != axis]
    ends = [n * volume.voxel_um for n in volume.shape]
    return Axis(AXES[down], "µm", 0, ends[down]), Axis(AXES[across], "µm", 0, ends[across])


def _told(
    image: _Shown, cut: Slice, values: np.ndarray, low: float, high: float, shares: Mapping[str, float]
) -> str:
    """What the picture does not say: where it lies, what its pixels are, the range of its values."""
    name, volume = AXES[cut.axis], image.volume
    place = (cut.index + 0.5) * volume.voxel_um
    finite = values[np.isfinite(values)]
    unit = f" {image.unit}" if image.unit else ""
    words = [
        f"**{name} = {cut.index}** of {volume.shape[cut.axis]}, {number_text(place)} µm from the corner.",
        f"Pixels of {number_text(cut.pixel_um)} µm"
        + (f", means over {cut.step} × {cut.step} × {cut.step} voxels." if cut.level else ", one a voxel."),
        f"Window {number_text(high - low)}, level {number_text((high + low) / 2)}{unit}.",
    ]
    if finite.size:
        least, middle, most = (number_text(float(v)) for v in np.percentile(finite, [0, 50, 100]))
        words.append(f"{literal(image.quantity)} here from {least} to {most}, median {middle}{unit}.")
    if finite.size < values.size:
        words.append(
            f"{number_text(int(values.size - finite.size))} pixels have no finite value and are black."
        )
    if shares:
        told = ", ".join(f"{literal(label)} {number_text(100 * share)} %" for label, share in shares.items())
        words.append(f"Of this slice: {told}.")
    return " ".join(words)


def _downloads(part: Part, cut: Slice, png: Callable[[], bytes]) -> None:
    """The slice that is shown, as it is seen and as its values."""
    assert part.artefact is not None
    stem = f"{part.artefact.key}-{AXES[cut.axis]}{cut.index:04d}"
    st.download_button(
        "Picture (PNG)",
        png,
        f"{stem}.png",
        "image/png",
        key="slice-png",
        icon=":material/image:",
        on_click="ignore",
    )
    st.download_button(
        "Values (TIFF)",
        lambda: slice_tiff(cut),
        f"{stem}.tif",
        "image/tiff",
        key="slice-tiff",
        icon=":material/download:",
        on_click="ignore",
        help="32-bit floats as stored: µ in 1/m. The pixel size is in the file.",
    )


def slice_tiff(cut: Slice) -> bytes:
    """The stored values of a slice as TIFF, with its pixel size as resolution."""
    buffer = io.BytesIO()
    per_centimetre = 1e4 / cut.pixel_um
    tifffile.imwrite(
        buffer,
        np.asarray(cut.values),
        photometric="minisblack",
        resolution=(per_centimetre, per_centimetre),
        resolutionunit="CENTIMETER",
        metadata={"axes": "YX", "spacing_um": cut.pixel_um, "slice": cut.index, "across": AXES[cut.axis]},
    )
    return buffer.getvalue()
