"""Granular samples for laboratory CT of energy materials: battery electrodes, catalyst beds.

Active particles with a finer additive between them, packed at random (``tomoforge.samples.packing``),
written to voxels from the analytic spheres: no meshes. 0 is pore, 1 … the phases in their order.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tomoforge.compilation import compiled
from tomoforge.errors import InputError
from tomoforge.samples.packing import Packing, Phase, checked_packing, pack
from tomoforge.samples.voxelize import checked_shape
from tomoforge.seeds import component_rng

__all__ = ["Packing", "PackingPlan", "Phase", "draw_packing", "pack", "packing_slab", "voxelize_packing"]

# Mean radius of the active particles: of NMC and LFP secondary particles [m], and relative to the field, so
# that they measure 5 voxels or more across at 128 voxels, and a box holds thousands at most.
_ACTIVE_RADII = (3e-6, 10e-6)
_ACTIVE_PER_FIELD = (0.022, 0.05)
# A bounded box stays within this part of the field at every rotation about z.
_FILL = 0.92
# Fractions drawn: from loose powder to pressed. Between walls a few diameters apart, spheres jam near 0.6.
_FRACTIONS = {3: (0.35, 0.60), 2: (0.45, 0.78)}
# Slices written at once while a whole volume is made; the result is the same for any number.
_SLAB = 64


@dataclass(frozen=True)
class PackingPlan:
    """All that determines a granular sample but its seed.

    phases : their order gives the labels 1, 2, …
    packing_fraction : asked for; the packing says what was reached
    dimensions : 3 for spheres, 2 for discs (cylinders along z once in voxels)
    boundary : 'periodic' or 'bounded'
    box : sides [m] along x, y(, z), around the field's middle
    field_of_view : side of the cube to be imaged [m]
    """

    phases: tuple[Phase, ...]
    packing_fraction: float
    dimensions: int
    boundary: str
    box: tuple[float, ...]
    field_of_view: float

    def __post_init__(self) -> None:
        checked_packing(self.phases, self.packing_fraction, self.box, self.dimensions, self.boundary)
        if not (math.isfinite(self.field_of_view) and self.field_of_view > 0):
            raise InputError(f"field_of_view must be positive metres, got {self.field_of_view!r}")

    def label_names(self) -> dict[str, int]:
        """Names of the labels that ``voxelize_packing`` writes."""
        return {"background": 0, **{phase.name: i + 1 for i, phase in enumerate(self.phases)}}

    def pack(self, seed: int, progress: Callable[[int, int], None] | None = None) -> Packing:
        """The packing of this plan; see ``tomoforge.samples.packing.pack``."""
        return pack(
            self.phases, self.packing_fraction, self.box, self.dimensions, self.boundary, seed, progress
        )


def draw_packing(
    seed: int, field_of_view: float | None = None, dimensions: int = 3, boundary: str = "bounded"
) -> PackingPlan:
    """Draw a battery-electrode-like sample: phases 'active' and 'additive', in pores.

    Parameters
    ----------
    seed : non-negative int; every part draws from a generator of its own
    field_of_view : side [m] of the cube to be imaged, to whose size the particles are drawn (mean radius of
        the active ones 2.2–5 % of it); None draws active particles of 3–10 µm and a field to suit
    dimensions : 3 for spheres, 2 for discs
    boundary : 'bounded', a cut-out block that stays in the field at every angle of rotation about z;
        'periodic', the whole field is filled, as in a scan of the interior of something larger

    Raises
    ------
    InputError
        for a field, dimensions or boundary that cannot be.
    """
    if field_of_view is not None and not (math.isfinite(field_of_view) and field_of_view > 0):
        raise InputError(f"field_of_view must be positive metres or None, got {field_of_view!r}")
    if dimensions not in _FRACTIONS:
        raise InputError(f"dimensions must be 2 (discs) or 3 (spheres), got {dimensions!r}")
    size = component_rng(seed, "granular size")
    per_field = _log_uniform(size, *_ACTIVE_PER_FIELD)
    active_radius = _log_uniform(size, *_ACTIVE_RADII)
    if field_of_view is None:
        field = active_radius / per_field
    else:
        field = float(field_of_view)
        active_radius = per_field * field
    return PackingPlan(
        phases=_drawn_phases(seed, active_radius),
        packing_fraction=float(component_rng(seed, "granular fraction").uniform(*_FRACTIONS[dimensions])),
        dimensions=int(dimensions),
        boundary=boundary,
        box=_drawn_box(seed, field, boundary)[:dimensions],
        field_of_view=field,
    )


def voxelize_packing(
    packing: Packing,
    shape: tuple[int, int, int],
    voxel_size: float,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Label each voxel by the particle that holds its centre.

    Parameters
    ----------
    packing : of spheres; or of discs, which become cylinders along z through all slices (one slice for a
        2-D picture)
    shape : voxels along z, y, x; the field's middle is the box's middle
    voxel_size : float [m]
    progress : called with (slices done, slices)

    Returns
    -------
    (z, y, x) uint8: 0 pore, i + 1 in particles of phase i

    Raises
    ------
    InputError
        for a shape or voxel size that is not positive.

    Notes
    -----
    Exact, without meshes: a voxel belongs to a sphere if its centre's distance is at most the radius.
    A periodic packing goes on in a field larger than its box, and images of particles enter across its
    faces; around a bounded one is pore.
    """
    n_z, n_y, n_x = checked_shape(shape)
    labels = np.zeros((n_z, n_y, n_x), dtype=np.uint8)
    for z0 in range(0, n_z, _SLAB):
        z1 = min(z0 + _SLAB, n_z)
        _paint_slab(labels[z0:z1], packing, (n_z, n_y, n_x), voxel_size, z0)
        if progress is not None:
            progress(z1, n_z)
    return labels


def packing_slab(
    packing: Packing, shape: tuple[int, int, int], voxel_size: float, z0: int, z1: int
) -> np.ndarray:
    """Slices z0 to z1 − 1 of ``voxelize_packing(packing, shape, voxel_size)``, and no memory beyond them.

    Returns (z1 − z0, y, x) uint8. Raises InputError for slices outside 0 … shape[0] as well.
    """
    n = checked_shape(shape)
    if not 0 <= z0 < z1 <= n[0]:
        raise InputError(f"z0, z1 must be a range of slices within 0 to {n[0]}, got {z0}, {z1}")
    labels = np.zeros((z1 - z0, *n[1:]), dtype=np.uint8)
    _paint_slab(labels, packing, n, voxel_size, z0)
    return labels


# --- drawing --------------------------------------------------------------------------------------------


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _drawn_phases(seed: int, active_radius: float) -> tuple[Phase, Phase]:
    """Round secondary particles with a lognormal spread, and a finer additive."""
    active, additive = component_rng(seed, "granular active"), component_rng(seed, "granular additive")
    spread = float(active.uniform(0.12, 0.30))
    share = float(additive.uniform(0.05, 0.25))
    radius = active_radius * float(additive.uniform(0.45, 0.75))
    kind = ("monodisperse", "uniform", "lognormal")[int(additive.integers(3))]
    width = float(additive.uniform(0.1, 0.25))
    return (
        Phase("active", 1 - share, active_radius, "lognormal", spread),
        Phase("additive", share, radius, kind, 0.0 if kind == "monodisperse" else width),
    )


def _drawn_box(seed: int, field: float, boundary: str) -> tuple[float, float, float]:
    rng = component_rng(seed, "granular box")
    turn, height = math.radians(rng.uniform(38.0, 52.0)), rng.uniform(0.6, 0.9)
    if boundary == "periodic":
        return field, field, field
    return _FILL * field * math.cos(turn), _FILL * field * math.sin(turn), float(height * field)


# --- voxels ---------------------------------------------------------------------------------------------


def _paint_slab(
    labels: np.ndarray, packing: Packing, shape: tuple[int, int, int], voxel_size: float, z0: int
) -> None:
    """Write the slices from z0 on that ``labels`` holds, of a field of ``shape``."""
    if not (math.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be positive metres, got {voxel_size!r}")
    flat = packing.dimensions == 2
    centres = np.zeros((len(packing.radii), 3))
    centres[:, : packing.dimensions] = packing.centres
    sides = np.ones(3)
    sides[: packing.dimensions] = packing.box
    wraps = np.full(3, packing.periodic)
    if flat:
        wraps[2] = False
    marks = (packing.phase + 1).astype(np.uint8)
    # The middle of the field in voxels; a slice through discs is the one at their z of 0.
    middle = (np.array(shape) - 1) / 2
    target = labels[:1] if flat else labels
    first = middle[0] if flat else float(z0)
    _paint(target, centres, packing.radii, marks, sides, wraps, float(voxel_size), first, middle)
    if flat:
        labels[1:] = labels[0]


@compiled(inline=True)
def _images(low, high, centre, radius, side, wrap):
    """First and last shift, in sides, that brings the particle into low … high."""
    if not wrap:
        return 0, 0
    return math.ceil((low - radius - centre) / side), math.floor((high + radius - centre) / side)


@compiled(inline=True)
def _span(low, count, centre, radius, step):
    """First and last of ``count`` points from ``low`` on that lie within ``radius``, one wider each way."""
    first = max(0, math.ceil((centre - radius - low) / step) - 1)
    return first, min(count - 1, math.floor((centre + radius - low) / step) + 1)


@compiled()
def _paint(labels, centres, radii, marks, sides, wraps, step, z_first, middle):
    n_z, n_y, n_x = labels.shape
    z_low, y_low, x_low = (z_first - middle[0]) * step, -middle[1] * step, -middle[2] * step
    z_high, y_high, x_high = z_low + (n_z - 1) * step, -y_low, -x_low
    for p in range(len(radii)):
        radius = radii[p]
        square = radius * radius
        x_from, x_to = _images(x_low, x_high, centres[p, 0], radius, sides[0], wraps[0])
        y_from, y_to = _images(y_low, y_high, centres[p, 1], radius, sides[1], wraps[1])
        z_from, z_to = _images(z_low, z_high, centres[p, 2], radius, sides[2], wraps[2])
        for z_image in range(z_from, z_to + 1):
            cz = centres[p, 2] + z_image * sides[2]
            k_first, k_last = _span(z_low, n_z, cz, radius, step)
            for y_image in range(y_from, y_to + 1):
                cy = centres[p, 1] + y_image * sides[1]
                j_first, j_last = _span(y_low, n_y, cy, radius, step)
                for x_image in range(x_from, x_to + 1):
                    cx = centres[p, 0] + x_image * sides[0]
                    for k in range(k_first, k_last + 1):
                        # From the field's own indices: the same number whichever slab it is in.
                        dz = (z_first + k - middle[0]) * step - cz
                        for j in range(j_first, j_last + 1):
                            dy = (j - middle[1]) * step - cy
                            across = dz * dz + dy * dy
                            if across > square:
                                continue
                            i, last = _span(x_low, n_x, cx, math.sqrt(square - across), step)
                            # The ends by the rule itself, since a quotient may round either way.
                            while i <= last and ((i - middle[2]) * step - cx) ** 2 + across > square:
                                i += 1
                            while last >= i and ((last - middle[2]) * step - cx) ** 2 + across > square:
                                last -= 1
                            if i <= last:  # beyond the edge, last may be far below 0
                                labels[k, j, i : last + 1] = marks[p]
