"""The absorption surface: A over all directions of the diffracted ray, as numbers and as a picture."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from tomoforge.absorption.factors import absorption_factors
from tomoforge.absorption.illumination import BeamProfile
from tomoforge.absorption.traced_sample import Attenuation
from tomoforge.errors import InputError
from tomoforge.pictures import png_bytes

_ROWS = 61  # across a hemisphere: 3°
_LINES = 6  # of equal A, about
_FLAT = 1e-3  # relative: less of a difference is the sampling's


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
    profile: BeamProfile | None = None,
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
        crystal_label=crystal_label, target_error=target_error, profile=profile, seed=seed,
    ).a  # fmt: skip
    return surface


def surface_picture(surface: np.ndarray, incoming: np.ndarray, *, reach: float | None = None) -> bytes:
    """PNG of A over both hemispheres, equal areas for equal solid angles; × straight on, + straight back.

    surface : (2, row, column) of ``absorption_surface``; incoming : (3,) its beam (z, y, x); reach : [rad], largest
    scattering angle of the data, drawn as a dashed line around ×.
    """
    if surface.ndim != 3 or len(surface) != 2 or not np.isfinite(surface).any():
        raise InputError(f"surface must be (2, row, column) with finite values, got shape {surface.shape}")
    figure = Figure(figsize=(9.2, 4.6), dpi=120, layout="constrained")
    panels = figure.subplots(1, 2)
    limits = {"vmin": float(np.nanmin(surface)), "vmax": float(np.nanmax(surface))}
    half = 1 / (surface.shape[1] - 1)
    extent = (-1 - half, 1 + half, -1 - half, 1 + half)
    for panel, values, sign in zip(panels, surface, (1.0, -1.0), strict=True):
        rim = Circle((0, 0), 1, transform=panel.transData)
        image = panel.imshow(values, extent=extent, cmap="cividis", interpolation="bilinear", **limits)
        image.set_clip_path(rim)
        _contours(panel, values, limits, rim)
        panel.set_title(
            f"towards {'+' if sign > 0 else '−'}z{' (facing you)' if sign > 0 else ' (seen through +z)'}",
            fontsize="medium",
        )
        for vector, marker in ((incoming, "x"), (-np.asarray(incoming), "+")):
            _mark(panel, np.asarray(vector, dtype=float)[None], sign, linestyle="", marker=marker)
        if reach is not None:
            _mark(panel, _cone(np.asarray(incoming, dtype=float), reach), sign, linestyle="--")
        angle = np.linspace(0, 2 * np.pi, 181)
        panel.plot(np.cos(angle), np.sin(angle), color="black", linewidth=0.8)
        panel.set_xlabel("x →")
        panel.set_ylabel("y →")
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_xlim(-1.08, 1.08)
        panel.set_ylim(-1.08, 1.08)
        panel.spines[:].set_visible(False)
    figure.colorbar(image, ax=panels, label="absorption factor A", shrink=0.85)
    said = f"A from {limits['vmin']:.3f} to {limits['vmax']:.3f}; × along the beam, + back along it"
    figure.suptitle(
        said + (f", dashed: 2θ = {np.degrees(reach):.0f}°" if reach is not None else ""), fontsize="medium"
    )
    return png_bytes(figure)


def _contours(panel: Axes, values: np.ndarray, limits: Mapping[str, float], rim: Circle) -> None:
    """Thin lines of equal A, numbered; none on a surface that is flat."""
    levels = MaxNLocator(_LINES).tick_values(limits["vmin"], limits["vmax"])
    levels = [level for level in levels if limits["vmin"] < level < limits["vmax"]]
    if not levels or limits["vmax"] - limits["vmin"] < _FLAT * limits["vmax"]:
        return
    across = np.linspace(-1, 1, values.shape[1])
    middle = (limits["vmin"] + limits["vmax"]) / 2
    colours = ["white" if level < middle else "black" for level in levels]
    lines = panel.contour(across, across[::-1], values, levels, colors=colours, linewidths=0.6, alpha=0.8)
    lines.set_clip_path(rim)
    panel.clabel(lines, fontsize="x-small")


def _cone(axis: np.ndarray, opening: float) -> np.ndarray:
    """Unit vectors (point, 3) at an angle of ``opening`` [rad] to ``axis`` (3,), in its order of axes."""
    axis = axis / np.linalg.norm(axis)
    aside = np.cross(axis, np.eye(3)[np.argmin(np.abs(axis))])
    aside /= np.linalg.norm(aside)
    turn = np.linspace(0, 2 * np.pi, 361)[:, None]
    return np.cos(opening) * axis + np.sin(opening) * (
        np.cos(turn) * aside + np.sin(turn) * np.cross(axis, aside)
    )


def _mark(panel: Axes, vectors: np.ndarray, sign: float, *, linestyle: str, marker: str = "") -> None:
    """Draw what of ``vectors`` (point, 3) (z, y, x) lies in the hemisphere of ``sign``, the rim included."""
    z, y, x = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    scale = np.where(z * sign >= -1e-9, 1 / np.sqrt(1 + np.abs(z)), np.nan)
    panel.plot(
        x * scale, y * scale, color="#D55E00", linestyle=linestyle, linewidth=1.2, marker=marker,
        markersize=9, markeredgewidth=2, clip_on=False,
    )  # fmt: skip
