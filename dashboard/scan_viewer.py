"""The viewer of the Scan page: projections, sinogram, centre tries, slices with labels, surfaces.

All of it is one fragment: a slider draws its picture again and leaves the rest of the page alone.
"""

import streamlit as st

from dashboard import slice_view, view
from dashboard.label_surface import label_surfaces, surface_figure
from dashboard.scan_frames import (
    Frame,
    StoredScan,
    open_scan,
    projection_range,
    read_projection,
    read_sinogram,
)
from dashboard.scan_parts import Part, Parts, open_labels
from dashboard.slice_viewer import Axis, picture
from dashboard.viewer_state import choice, shown, whole, writer
from dashboard.vocabulary import literal, number_text, split_unit, value_text
from tomoforge.errors import StorageError
from tomoforge.results import Published

_VIEWS = {
    "slices": "Slices",
    "surface": "Surface in 3-D",
    "projections": "Projections",
    "sinogram": "Sinogram",
    "centre": "Rotation centre",
}


@st.fragment
def show_viewer(parts: Parts) -> None:
    """Draw the viewer for what is there of ``parts``."""
    there = _available(parts)
    if not there:
        return
    wanted = choice("view", there, there[0])
    key = shown(f"view-{parts.item.identifier}", wanted)
    st.segmented_control(
        "View",
        there,
        required=True,
        format_func=lambda name: _VIEWS[name],
        key=key,
        on_change=writer("view", key, there[0]),
        label_visibility="collapsed",
    )
    try:
        if wanted == "slices" and parts.volume is not None:
            slice_view.show_slices(parts)
        elif wanted == "surface":
            _show_surface(parts)
        elif wanted == "projections" and parts.scan is not None:
            _show_projections(parts.scan)
        elif wanted == "sinogram":
            _show_sinogram(parts)
        else:
            _show_centre(parts)
    except StorageError as error:
        st.warning(f"This cannot be shown: {literal(error)}.", icon=":material/broken_image:")


def _available(parts: Parts) -> list[str]:
    """The views that have something to show, the most telling one of the result first."""
    there = []
    if parts.volume is not None and parts.volume.artefact is not None:
        there.append("slices")
    if any(part.artefact for part in parts.labels):
        there.append("surface")
    if parts.scan is not None and parts.scan.artefact is not None:
        there += ["projections", "sinogram"]
    if there and _with_centres(parts):
        there.append("centre")
    if parts.item.kind == "scans" and "projections" in there:
        there.sort(key=lambda name: name not in ("projections", "sinogram"))
    return there


def show_absent(parts: Parts) -> None:
    """Say which of the artefacts are not there, and that pictures are shown in their place."""
    for part in (parts.scan, parts.volume, *parts.labels):
        if part is None or part.artefact is not None:
            continue
        text = f"“{literal(part.item.title)}”: {literal(part.reason)}."
        if part.damaged:
            st.warning(text, icon=":material/broken_image:")
        else:
            st.caption(f":material/image: {text} Shown is what was published of it.")


def _show_surface(parts: Parts) -> None:
    chosen = _choose_labels([part for part in parts.labels if part.artefact])
    labels = open_labels(chosen, None)
    with st.spinner("Making the surface of the labels …"):
        surfaces, step_um = label_surfaces(labels)
    if not surfaces:
        st.caption("No voxel has a label but the background.")
        return
    extent = [n * labels.voxel_um for n in reversed(labels.shape)]
    figure = surface_figure(surfaces, labels.colours, (extent[0], extent[1], extent[2]))
    names = ", ".join(surface.name for surface in surfaces)
    st.plotly_chart(
        figure,
        width="stretch",
        key=f"surface-{chosen.item.identifier}",
        config={"displaylogo": False},
        alt=f"Surfaces of the labels {names} in space",
    )
    triangles = sum(len(surface.faces) for surface in surfaces)
    rough = (
        ""
        if step_um <= labels.voxel_um * 1.001
        else " Parts thinner than that can be missing: look at the slices."
    )
    st.caption(
        f"Surfaces of {literal(names)}; {number_text(triangles)} triangles, made from voxels of "
        f"{number_text(step_um)} µm, not smoothed.{rough} Drag to turn; a click on a name hides it. z, the rotation "
        "axis, runs downwards as in the slices; µm from the corner of the volume."
    )


def _choose_labels(there: list[Part]) -> Part:
    by_id = {part.item.identifier: part for part in there}
    wanted = choice("labels", list(by_id), next(iter(by_id)))
    if len(there) > 1:
        key = shown(f"surface-of-{'-'.join(by_id)}", wanted)
        st.selectbox(
            "Labels",
            list(by_id),
            format_func=lambda name: slice_view.labels_title(by_id[name]),
            key=key,
            on_change=writer("labels", key, None),
        )
    return by_id[wanted]


def _show_projections(part: Part) -> None:
    assert part.artefact is not None
    scan = open_scan(part.artefact)
    count = scan.shape[0]
    number = whole("shot", 0, count - 1, count // 2)
    if count > 1:
        key = shown(f"shot-{part.artefact.key}", number)
        st.slider("Projection", 0, count - 1, key=key, on_change=writer("shot", key, count // 2))
    frame = read_projection(scan, number)
    low, high = projection_range(scan)
    angle = f"{number_text(scan.angles_deg[number])}°"
    _show_frame(
        frame,
        low,
        high,
        Axis("y", "µm", 0, scan.shape[1] * scan.pixel_um),
        "transmission" if frame.transmission else "counts",
        f"Projection at {angle}",
        bar=True,
    )
    st.caption(
        f"Projection {number_text(number)} of {number_text(count)} at {angle}; {_what_it_is(scan, frame)} "
        f"{scan.shape[1]} × {scan.shape[2]} pixels (y, x) of {number_text(scan.pixel_um)} µm. The rotation axis is "
        "upright, along y of the detector. "
        + _values(frame, "transmission" if frame.transmission else "counts")
    )


def _show_sinogram(parts: Parts) -> None:
    part = parts.scan
    assert part is not None and part.artefact is not None
    scan = open_scan(part.artefact)
    rows = scan.shape[1]
    row = whole("row", 0, rows - 1, rows // 2)
    if rows > 1:
        key = shown(f"row-{part.artefact.key}", row)
        st.slider("Detector row", 0, rows - 1, key=key, on_change=writer("row", key, rows // 2))
    frame = read_sinogram(scan, row)
    low, high = slice_view.grey_limits(frame.values)
    first, last = scan.angles_deg[0], scan.angles_deg[-1]
    _show_frame(
        frame,
        low,
        high,
        Axis("angle", "°", first, last if last != first else first + 1),
        "−ln transmission" if frame.transmission else "counts",
        f"Sinogram of detector row {row}",
        bar=False,
    )
    st.caption(
        f"Detector row {number_text(row)} of {number_text(rows)} over {number_text(scan.shape[0])} angles from "
        f"{number_text(first)}° to {number_text(last)}°; "
        + ("line integrals of µ as measured, before any correction. " if frame.transmission else "counts. ")
        + "Stripes along the angles come from single pixels and make rings. "
        + _values(frame, "line integrals" if frame.transmission else "counts")
    )


def _show_frame(
    frame: Frame, low: float, high: float, down: Axis, quantity: str, alt: str, *, bar: bool
) -> None:
    rows, columns = frame.values.shape
    aspect = 1.0 if bar else max(1.0, round(0.5 * columns / rows))
    png = picture(
        frame.values,
        low,
        high,
        down=down,
        across=Axis("x", "µm", 0, columns * frame.pixel_um[1]),
        quantity=quantity,
        theme=slice_view.theme(),
        aspect=aspect,
        bar=bar,
    )
    slice_view.show_png(st.empty(), png, slice_view.FRAME_PX, alt)


def _what_it_is(scan: StoredScan, frame: Frame) -> str:
    if frame.transmission:
        return f"divided by the mean of {scan.flats} flats, {scan.darks} darks taken off."
    return "raw counts, there are no flats."


def _values(frame: Frame, name: str) -> str:
    low, high = float(frame.values.min()), float(frame.values.max())
    return f"Values: {name} from {number_text(low)} to {number_text(high)}."


def _with_centres(parts: Parts) -> list[Published]:
    """The results that say something about the rotation centre, those with a picture of tries first."""
    found = [part.item for part in (parts.volume, parts.preview) if part is not None]
    found = [item for item in found if "centre_px" in item.summary or "centres" in item.pictures]
    return sorted(found, key=lambda item: "centres" not in item.pictures)


def _show_centre(parts: Parts) -> None:
    item = _with_centres(parts)[0]
    names = ("centre_px", "centre_spread_px", "centre_opposite_px", "centre_agreed", "centre_confidence")
    told = [name for name in names if name in item.summary]
    for column, name in zip(st.columns(max(len(told), 1)), told, strict=False):
        text, unit = split_unit(name)
        column.metric(text, f"{value_text(name, item.summary[name])} {unit}".strip(), border=True)
    if "centres" in item.pictures:
        view.show_picture(item, "centres")
        return
    st.caption(
        "No slices about other centres were drawn: the rows agreed. "
        "`python -m flows reconstruct_scan --reconstruction.centre-figure always …` draws them always."
    )
    if "sinogram" in item.pictures:
        view.show_picture(item, "sinogram")
