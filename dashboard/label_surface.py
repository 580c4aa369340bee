"""The surfaces of labels in space, coarse enough for a browser: for the look, not for measuring."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from dashboard.artefacts import StoredArtefact
from dashboard.volume_slices import StoredVolume, read_coarse

MOST_TRIANGLES = 40_000
_LONGEST = (128, 64, 32)  # levels are tried from the finest on until there are few enough triangles
# What is inside must be seen through what is around it.
_OPACITY: Mapping[str, float] = {"liquor": 0.18, "loop": 0.55}


@dataclass(frozen=True)
class Surface:
    """A label's surface. vertices : (vertex, 3) float32 x, y, z [µm]; faces : (face, 3) int32."""

    name: str
    value: int
    vertices: np.ndarray
    faces: np.ndarray


def label_surfaces(volume: StoredVolume) -> tuple[list[Surface], float]:
    """The surface of every label that there is, and the side of the voxels [µm] they were made from.

    Raises StorageError with the reason if the labels cannot be read.
    """
    return _surfaces(volume.artefact, volume)


def surface_figure(
    surfaces: list[Surface],
    colours: Mapping[int, tuple[int, int, int]],
    extent_um: tuple[float, float, float],
) -> Any:
    """A plotly figure of the surfaces in the volume's box, z (the rotation axis) downwards. extent_um : x, y, z."""
    # Imported when it is needed, as scikit-image is below: few look at surfaces, and both take a second and 50 MB.
    import plotly.graph_objects as go

    figure = go.Figure()
    for surface in surfaces:
        red, green, blue = colours.get(surface.value, (128, 128, 128))
        x, y, z = surface.vertices.T
        i, j, k = surface.faces.T
        figure.add_trace(
            go.Mesh3d(
                x=x,
                y=y,
                z=z,
                i=i,
                j=j,
                k=k,
                color=f"rgb({red},{green},{blue})",
                opacity=_OPACITY.get(surface.name, 1.0),
                name=surface.name,
                showlegend=True,
                hoverinfo="name",
                flatshading=False,
                lighting={"ambient": 0.55, "diffuse": 0.7, "specular": 0.1},
            )
        )
    axes = {
        f"{axis}axis": {"title": {"text": f"{axis} [µm]"}, "range": [0, extent]}
        for axis, extent in zip("xyz", extent_um, strict=True)
    }
    # z downwards and x to the right, as slices and projections are drawn: turned, so that left stays left.
    up, eye = {"x": 0, "y": 0, "z": -1}, {"x": 0.7, "y": 1.7, "z": -0.7}
    figure.update_layout(
        # Plotly's turntable knows no other way up than its own.
        scene={**axes, "aspectmode": "data", "dragmode": "orbit", "camera": {"up": up, "eye": eye}},
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        height=620,
        legend={"x": 0, "y": 1, "itemsizing": "constant"},
    )
    return figure


@st.cache_data(max_entries=6, show_spinner=False)
def _surfaces(artefact: StoredArtefact, _volume: StoredVolume) -> tuple[list[Surface], float]:
    found: list[Surface] = []
    step_um = _volume.voxel_um
    for longest in _LONGEST:
        labels, level = read_coarse(_volume, longest)
        thin = max(1, -(-max(labels.shape) // longest))  # where no level is coarse enough
        labels = labels[::thin, ::thin, ::thin]
        step_um = _volume.voxel_um * 2**level * thin
        found = [
            _surface(labels, value, name, step_um)
            for name, value in _volume.names.items()
            if value and (labels == value).any()
        ]
        if sum(len(surface.faces) for surface in found) <= MOST_TRIANGLES:
            break
    return found, step_um


def _surface(labels: np.ndarray, value: int, name: str, step_um: float) -> Surface:
    from skimage.measure import marching_cubes

    # A rim of nothing closes the surface where the label reaches the edge of the field.
    mask = np.pad(labels == value, 1).astype(np.float32)
    vertices, faces, _, _ = marching_cubes(mask, level=0.5)
    places = (vertices[:, ::-1] - 0.5) * step_um  # the rim's voxel less, half a voxel to its centre
    return Surface(name, value, places.astype(np.float32), faces.astype(np.int32))
