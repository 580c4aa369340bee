"""Partial illumination: a beam that is smaller than the crystal, or not even across it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tomoforge.absorption.paths import unit_vectors
from tomoforge.errors import InputError


@dataclass(frozen=True)
class BeamProfile:
    """Intensity across the beam, in the plane normal to it, as weights of crystal points.

    shape : "top_hat" or "gaussian"; height : float [m], full width along the rotation axis; width : float
    [m], full width across it; a Gaussian's widths are at half maximum. axis : (3,) unit vector (z, y, x) of
    the rotation axis in the sample frame; offset : (height, width) [m] of the beam's middle from the rotation
    axis through ``centre``. centre : (3,) index coordinates (z, y, x) of the point that the beam turns
    about; None is the middle of the volume. The direction across is beam × axis,
    right-handed in (x, y, z): a beam along +y that turns about +z has +x across. Raises InputError for
    sizes that are not positive.

    Weights are 1 at the beam's middle. An absorption factor under a profile is Σ w T / Σ w: what the lit part
    of the crystal lets through, without the loss by its being smaller, which is the illuminated fraction.
    """

    shape: Literal["top_hat", "gaussian"]
    height: float
    width: float
    axis: tuple[float, float, float] = (1.0, 0.0, 0.0)
    offset: tuple[float, float] = (0.0, 0.0)
    centre: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.shape not in ("top_hat", "gaussian"):
            raise InputError(f'shape must be "top_hat" or "gaussian", got {self.shape!r}')
        if not (np.isfinite([self.height, self.width]).all() and min(self.height, self.width) > 0):
            raise InputError(f"height and width must be positive metres, got {self.height!r}, {self.width!r}")
        if not np.isfinite(self.offset).all():
            raise InputError(f"offset must be finite metres, got {self.offset!r}")
        unit_vectors("axis", np.array([self.axis]))

    def weights(self, beams: np.ndarray, from_centre: np.ndarray) -> np.ndarray:
        """Weights (beam, point) float64 of points (point, 3) [m] from the centre, for beams (beam, 3)."""
        axis = unit_vectors("axis", np.array([self.axis]))[0]
        # Components run (z, y, x): the right-handed beam × axis has its factors the other way round.
        across = np.cross(axis, beams)
        length = np.linalg.norm(across, axis=1, keepdims=True)
        if np.any(length < 1e-6):
            raise InputError("axis of the beam profile must not lie along the beam; which way is across?")
        across /= length
        up = np.cross(beams, across)
        # Element by element and not by a matrix product, whose last bits depend on its number of threads.
        along_up = (up[:, None, :] * from_centre).sum(axis=2) - self.offset[0]
        along_across = (across[:, None, :] * from_centre).sum(axis=2) - self.offset[1]
        if self.shape == "top_hat":
            lit = (np.abs(along_up) <= self.height / 2) & (np.abs(along_across) <= self.width / 2)
            return lit.astype(np.float64)
        square = (along_up / self.height) ** 2 + (along_across / self.width) ** 2
        return np.exp2(-4 * square)  # one half at half the full width
