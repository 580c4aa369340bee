"""What single rays of a scan crossed and what they lost: path lengths by label beside −ln T.

The geometry is the scan's, that of ``tomoforge.geometry``: parallel rays, detector row parallel to the axis.
Lengths are exact through the voxels (``tomoforge.absorption.paths``), along the middle of each pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from tomoforge.absorption.paths import label_grid, path_lengths, positive_size
from tomoforge.errors import InputError
from tomoforge.geometry import beam_direction, detector_axis
from tomoforge.scan import Frames
from tomoforge.seeds import component_rng

MARGIN = 2  # pixels: nearer than this to another material a ray's length is a matter of half voxels


@dataclass(frozen=True)
class Rays:
    """Rays of a scan.

    lengths : (ray, label) float64 [m], background's column zero; line_integrals : (ray,) float64, −ln T;
    projection : (ray,) int64; pixel : (ray, 2) int64, detector row and column; near_edge : (ray,) bool, a ray
    ``margin`` pixels away crosses other materials; unusable : int, rays left out because T was not positive
    or not finite.
    """

    lengths: np.ndarray
    line_integrals: np.ndarray
    projection: np.ndarray
    pixel: np.ndarray
    near_edge: np.ndarray
    unusable: int

    def __len__(self) -> int:
        return len(self.line_integrals)

    def select(self, rows: np.ndarray) -> "Rays":
        """The rays at ``rows`` (indices or a mask)."""
        arrays = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "unusable"}
        return Rays(unusable=self.unusable, **arrays)

    def alone(self, label: int) -> np.ndarray:
        """(ray,) bool: the ray and those around it cross this material and no other."""
        if not 0 < label < self.lengths.shape[1]:
            raise InputError(f"label must be one of 1 … {self.lengths.shape[1] - 1}, got {label}")
        others = np.delete(self.lengths, label, axis=1).sum(axis=1)
        return (self.lengths[:, label] > 0) & (others == 0) & ~self.near_edge

    @property
    def air(self) -> np.ndarray:
        """(ray,) bool: the ray crosses nothing."""
        return ~self.lengths.any(axis=1)


def collect_rays(
    transmission: Frames | np.ndarray,
    labels: np.ndarray,
    voxel_size: float,
    angles: np.ndarray | Sequence[float],
    pixel_size: float,
    *,
    rotation_centre: float | None = None,
    region: np.ndarray | None = None,
    projections: int = 60,
    most_rays: int = 200_000,
    margin: int = MARGIN,
    seed: int = 0,
) -> Rays:
    """Trace rays of a scan through labels and take what they lost from the flat-corrected projections.

    Parameters
    ----------
    transmission : (angle, y, x), (projection − dark)/(flat − dark), an array or a lazy view of a file
    labels : (z, y, x) integers 0 … 255, the same object
    voxel_size : float [m]
    angles : (angle,) [rad]
    pixel_size : float [m], of the detector at the sample
    rotation_centre : detector column of the axis [pixels], None for the middle
    region : (y, x) bool, the same in each projection, or (angle, y, x) bool: rays outside are not taken, as
        where a person drew where one material is seen alone
    projections : int, how many projections are read at most, evenly spread
    most_rays : int, how many rays are traced at most, drawn evenly
    margin : int [pixels], how far around a ray the same materials must be crossed
    seed : int, of the draw

    Returns
    -------
    Rays, in the order of projection, row, column

    Raises
    ------
    InputError
        for shapes that do not match, sizes that are not positive, numbers of rays below 1, an empty region.

    Notes
    -----
    A pixel sees the mean of exp(−µL) over its width; the ray in its middle stands for it, which holds away from
    edges. The volume's middle slice lies on the detector's middle row.
    """
    grid = label_grid(labels)
    shape = tuple(int(n) for n in transmission.shape)
    turn = np.asarray(angles, dtype=np.float64)
    if len(shape) != 3 or turn.shape != shape[:1]:
        raise InputError(f"transmission must be (angle, y, x) with {turn.shape} angles, got shape {shape}")
    if min(projections, most_rays) < 1 or margin < 0:
        raise InputError(
            f"projections and most_rays must be at least 1 and margin at least 0, got {projections}, "
            f"{most_rays} and {margin}"
        )
    scale = positive_size(pixel_size) / positive_size(voxel_size)
    centre = (shape[2] - 1) / 2 if rotation_centre is None else float(rotation_centre)
    # The middles of equal parts of the scan.
    chosen = ((np.arange(min(projections, shape[0])) + 0.5) * shape[0] / min(projections, shape[0])).astype(
        int
    )
    window = _shadow(grid, shape, scale, centre, margin)
    wanted = max(1, most_rays // len(chosen))
    parts = []
    for index in chosen.tolist():
        pixels = _drawn_pixels(window, region, shape, index, wanted, seed)
        if len(pixels):
            parts.append(
                _projection_rays(
                    grid, voxel_size, transmission[index], turn[index], index, pixels, scale, centre, margin
                )
            )
    if not parts:
        raise InputError("region leaves no ray that could cross the sample; does it fit the detector?")
    lengths, integrals, numbers, pixel, edge = (np.concatenate(p) for p in zip(*parts, strict=True))
    usable = np.isfinite(integrals)
    return Rays(
        lengths[usable], integrals[usable], numbers[usable], pixel[usable], edge[usable], int(np.sum(~usable))
    )


def _shadow(
    grid: np.ndarray, shape: tuple[int, ...], scale: float, centre: float, margin: int
) -> tuple[slice, slice]:
    """Rows and columns of the detector where the sample's shadow falls at any angle, and some air beside it."""
    occupied = np.argwhere(grid.any(axis=0)) - (np.array(grid.shape[1:]) - 1) / 2
    height = np.flatnonzero(grid.any(axis=(1, 2)))
    if len(height) == 0:
        raise InputError("labels must hold a material, got background alone")
    around = 4 * (margin + 1)
    radius = (np.hypot(*occupied.T).max() + 1) / scale + around
    rows = (height[[0, -1]] - (grid.shape[0] - 1) / 2) / scale + (shape[1] - 1) / 2
    low, high = int(np.floor(rows[0])) - around, int(np.ceil(rows[1])) + around + 1
    left, right = int(np.floor(centre - radius)), int(np.ceil(centre + radius)) + 1
    window = slice(max(low, 0), min(high, shape[1])), slice(max(left, 0), min(right, shape[2]))
    if window[0].start >= window[0].stop or window[1].start >= window[1].stop:
        raise InputError(
            f"the sample's shadow must fall on the detector {shape[1:]}, but it misses it; are pixel_size, "
            "voxel_size and rotation_centre right?"
        )
    return window


def _drawn_pixels(
    window: tuple[slice, slice],
    region: np.ndarray | None,
    shape: tuple[int, ...],
    index: int,
    wanted: int,
    seed: int,
) -> np.ndarray:
    """(n, 2) rows and columns, drawn evenly from the window (and the region) of one projection."""
    mask = np.zeros(shape[1:], dtype=bool)
    mask[window] = True
    if region is not None:
        drawn = np.asarray(region)
        if drawn.dtype != np.bool_ or drawn.shape not in (shape, shape[1:]):
            raise InputError(
                f"region must be bool of shape {shape[1:]} or {shape}, got {drawn.dtype} of {drawn.shape}"
            )
        mask &= drawn if drawn.ndim == 2 else drawn[index]
    pixels = np.argwhere(mask)
    if len(pixels) > wanted:
        rng = component_rng(seed, "mu.rays", index)
        pixels = pixels[np.sort(rng.choice(len(pixels), wanted, replace=False))]
    return pixels


def _projection_rays(
    grid: np.ndarray,
    voxel_size: float,
    frame: np.ndarray,
    angle: float,
    index: int,
    pixels: np.ndarray,
    scale: float,
    centre: float,
    margin: int,
) -> tuple[np.ndarray, ...]:
    steps = np.array([[0, 0], [-margin, 0], [margin, 0], [0, -margin], [0, margin]])
    at = (pixels[:, None] + steps).reshape(-1, 2)
    row = (at[:, 0] - (frame.shape[0] - 1) / 2) * scale
    column = (at[:, 1] - centre) * scale
    lengths = _lengths(grid, voxel_size, angle, row, column).reshape(len(pixels), len(steps), -1)
    crossed = lengths > 0
    edge = (crossed != crossed[:, :1]).any(axis=(1, 2))
    values = np.asarray(frame, dtype=np.float64)[tuple(pixels.T)]
    with np.errstate(invalid="ignore", divide="ignore"):
        integrals = np.where(values > 0, -np.log(values), np.nan)
    return lengths[:, 0], integrals, np.full(len(pixels), index), pixels, edge


def _lengths(
    grid: np.ndarray, voxel_size: float, angle: float, row: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """(ray, label) lengths [m] of rays at heights ``row`` and offsets ``column`` from the axis, in voxels."""
    size = np.array(grid.shape, dtype=np.float64)
    direction = beam_direction(angle)
    middle = (size - 1) / 2 + row[:, None] * np.array([1.0, 0, 0]) + column[:, None] * detector_axis(angle)
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = (-0.5 - middle) / direction, (size - 0.5 - middle) / direction
    inside = (middle >= -0.5) & (middle <= size - 0.5)
    still = direction == 0  # no face is met along this axis: in it all the way, or never
    enters = np.where(still, np.where(inside, -np.inf, np.inf), np.minimum(one, other)).max(axis=1)
    leaves = np.where(still, np.where(inside, np.inf, -np.inf), np.maximum(one, other)).min(axis=1)
    hits = enters < leaves
    materials = int(grid.max()) + 1
    lengths = np.zeros((len(row), materials))
    start = np.clip(middle[hits] + enters[hits, None] * direction, -0.5, size - 0.5)
    lengths[hits] = path_lengths(grid, voxel_size, start, direction[None], materials)[:, 0]
    lengths[:, 0] = 0
    return lengths
