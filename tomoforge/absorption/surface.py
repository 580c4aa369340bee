"""The absorption surface: A over all directions of the diffracted ray, as numbers and as a picture."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from tomoforge.absorption.factors import absorption_factors
from tomoforge.absorption.traced_sample import Attenuation
from tomoforge.errors import InputError
from tomoforge.pictures import png_bytes

_ROWS = 61  # across a hemisphere: 3°


def surface_directions(rows: int = _ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (2, row, column, 3) (z, y, x) over both hemispheres, and which of them lie on the disc.

    Lambert's azimuthal equal-area projection about +z (first) and −z, as seen from outside +z: x to the right,
    y upwards in both, so that the rims join. The mask is (row, column) bool.
    """
    v, u = np.meshgrid(np.linspace(1, -1, rows), np.linspace(-1, 1, rows), indexing="ij")
    square = u**2 + v**2
    inside = square <= (1 + 4 / (rows - 1)) ** 2  # a little more, for the picture is cut along the rim
    # The disc's radius is 1 at the equator: sin(polar/2) = r/√2.
    spread = np.sqrt(np.maximum(2 - square, 0))
    z = 1 - square
    up = np.stack([z, v * spread, u * spread], axis=-1)
    up /= np.linalg.norm(up, axis=-1, keepdims=True)
    return np.stack([up, up * np.array([-1.0, 1.0, 1.0])]), inside


def absorption_surface(
    labels: np.ndarray,
    voxel_size: float,
    mu: Attenuation,
    incoming: np.ndarray,
    *,
    crystal_label: int | Sequence[int] = 3,
    target_error: float = 5e-3,
    rows: int = _ROWS,
    seed: int = 0,
) -> np.ndarray:
    """A (2, row, column) float64 for one beam (3,) and the directions of ``surface_directions``; NaN off the disc.

    The other arguments and errors are those of ``absorption_factors``.
    """
    beam = np.asarray(incoming, dtype=np.float64)
    if beam.shape != (3,) or rows < 3:
        raise InputError(f"incoming must be one vector (3,) and rows ≥ 3, got {beam.shape} and {rows}")
    directions, inside = surface_directions(rows)
    mask = np.stack([inside, inside])
    surface = np.full(mask.shape, np.nan)
    surface[mask] = absorption_factors(
        labels, voxel_size, mu, beam, directions[mask],
        crystal_label=crystal_label, target_error=target_error, seed=seed,
    ).a  # fmt: skip
    return surface


def surface_picture(surface: np.ndarray, incoming: np.ndarray) -> bytes:
    """PNG of A over both hemispheres, equal areas for equal solid angles; × straight on, + straight back.

    surface : (2, row, column) of ``absorption_surface``; incoming : (3,) its beam (z, y, x).
    """
    if surface.ndim != 3 or len(surface) != 2 or not np.isfinite(surface).any():
        raise InputError(f"surface must be (2, row, column) with finite values, got shape {surface.shape}")
    figure = Figure(figsize=(9.2, 4.4), dpi=120, layout="constrained")
    panels = figure.subplots(1, 2)
    limits = {"vmin": float(np.nanmin(surface)), "vmax": float(np.nanmax(surface))}
    half = 1 / (surface.shape[1] - 1)
    for panel, values, sign in zip(panels, surface, (1.0, -1.0), strict=True):
        image = panel.imshow(
            values, extent=(-1 - half, 1 + half, -1 - half, 1 + half), cmap="cividis", **limits
        )
        image.set_clip_path(Circle((0, 0), 1, transform=panel.transData))
        panel.set_title(f"diffracted towards {'+' if sign > 0 else '−'}z", fontsize="medium")
        for vector, marker in ((incoming, "x"), (-np.asarray(incoming), "+")):
            z, y, x = np.asarray(vector, dtype=float) / np.linalg.norm(vector)
            if z * sign >= -1e-9:
                scale = 1 / np.sqrt(1 + abs(z))
                panel.plot(x * scale, y * scale, marker, color="#D55E00", markersize=9, markeredgewidth=2)
        angle = np.linspace(0, 2 * np.pi, 181)
        panel.plot(np.cos(angle), np.sin(angle), color="black", linewidth=0.8)
        panel.set_xlabel("x →")
        panel.set_ylabel("y →")
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
    figure.colorbar(image, ax=panels, label="absorption factor A", shrink=0.85)
    figure.suptitle(
        f"A from {limits['vmin']:.3g} to {limits['vmax']:.3g}; × along the beam, + back along it",
        fontsize="medium",
    )
    return png_bytes(figure)
