"""The sample as rays see it: labels cropped to what matters, µ for each voxel length, crystal strata."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tomoforge.absorption import paths
from tomoforge.absorption.illumination import BeamProfile
from tomoforge.absorption.path_kernels import MixedGrid
from tomoforge.absorption.quadrature import (
    CrystalMoments,
    Quadrature,
    Strata,
    crystal_moments,
    crystal_quadrature,
)
from tomoforge.absorption.sampling import crystal_mask, crystal_strata
from tomoforge.absorption.smooth_crystal import smooth_moments, smooth_strata
from tomoforge.absorption.smooth_surface import Surface
from tomoforge.errors import MaterialError

Attenuation = Mapping[int, float] | Sequence[float] | np.ndarray


@dataclass(frozen=True)
class TracedSample:
    """What the estimates need, made once for a call.

    grid : (z, y, x) uint8, the box that holds all that absorbs or diffracts, on the GPU of the labels if they lie
    on one; or cut by planes, on the host; mu : (label,) float64 per voxel length; voxel_size : float [m]; profile :
    of the beam, or None for one that bathes the crystal; profile_centre : (3,) corner coordinates in the box.
    """

    grid: Any
    mu: np.ndarray
    voxel_size: float
    strata: Strata
    moments: CrystalMoments
    profile: BeamProfile | None
    profile_centre: np.ndarray

    def quadrature(self, size: int, seed: int) -> Quadrature:
        """Points and weights for means over the crystal."""
        return crystal_quadrature(self.strata, self.moments, size, seed)

    def beam_weights(self, beams: np.ndarray, points: np.ndarray) -> np.ndarray:
        """(beam, point) float64 weights of the profile at corner coordinates; (0, 0) without a profile."""
        if self.profile is None:
            return np.zeros((0, 0))
        return self.profile.weights(beams, (points - self.profile_centre) * self.voxel_size)


def traced_sample(
    labels: np.ndarray,
    voxel_size: float,
    mu: Attenuation,
    crystal_label: int | Sequence[int],
    profile: BeamProfile | None = None,
    surface: Surface = "voxels",
) -> TracedSample:
    """Check and crop. Raises InputError and MaterialError as ``absorption_factors`` does."""
    grid = paths.label_grid(labels)
    size = paths.positive_size(voxel_size)
    table = attenuation_table(grid, mu) * size
    matters = crystal_mask(crystal_label)
    matters[: table.size] |= table > 0
    box, origin = paths.traced_box(grid, matters, surface)
    middle = np.array(grid.shape) / 2
    if profile is not None and profile.centre is not None:
        middle = np.array(profile.centre, dtype=np.float64) + 0.5
    if isinstance(box, MixedGrid):
        smooth = smooth_strata(box, crystal_label)
        return TracedSample(box, table, size, smooth, smooth_moments(smooth), profile, middle - origin)
    strata = crystal_strata(box, crystal_label)
    traced = paths.beside(labels, box)  # strata and moments stay on the host
    return TracedSample(traced, table, size, strata, crystal_moments(strata), profile, middle - origin)


def attenuation_table(labels: np.ndarray, mu: Attenuation) -> np.ndarray:
    """µ [1/m] by label, (label,) float64, complete for the labels that occur.

    Raises MaterialError for a label without µ or a µ that is negative or not finite.
    """
    present = paths.present_labels(paths.label_grid(labels))
    given = _by_label(mu)
    given.setdefault(0, 0.0)
    missing = [label for label in present if label not in given]
    if missing:
        raise MaterialError(
            f"mu must give every label of the volume, labels {missing} have none (given: "
            f"{sorted(given)}); add them, or 0 for a material that does not absorb"
        )
    wrong = {label: value for label, value in given.items() if not (np.isfinite(value) and value >= 0)}
    if wrong:
        raise MaterialError(f"mu must be finite µ ≥ 0 in 1/m, got {wrong} (label: µ)")
    table = np.zeros(max(max(given), max(present)) + 1)
    for label, value in given.items():
        table[label] = value
    return table


def _by_label(mu: Attenuation) -> dict[int, float]:
    pairs = mu.items() if isinstance(mu, Mapping) else enumerate(mu)
    given = {}
    for label, value in pairs:
        if not isinstance(label, (int, np.integer)) or not 0 <= label <= 255:
            raise MaterialError(f"mu must be keyed by labels 0 … 255, got {label!r}; is it a name?")
        given[int(label)] = float(value)
    return given
