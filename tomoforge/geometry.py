"""Axis order and signs, said once.

Arrays
    ``projections (angle, y, x)``, ``sinograms (y, angle, x)``, ``volume`` and ``labels (z, y, x)``.
    The rotation axis is z; detector rows run parallel to z, so detector row = slice index.

Sample frame
    ``x = (ix − (nx − 1)/2)·voxel``, likewise y and z; (x, y, z) is right-handed.

Projection at angle θ
    A sample point falls on the detector at ``u = x cos θ + y sin θ`` (column = centre + u/pixel) and lies
    at depth ``w = −x sin θ + y cos θ``; the beam travels towards +w. (u, w, z) is right-handed, so to
    the sample the beam and the detector turn by +θ about z.

Directions are unit vectors in array order (z, y, x).

Waves
    exp(+ikz), n = 1 − δ + iβ, µ = 4πβ/λ, Fresnel transfer function exp(−iπλz|f|²).
"""

from dataclasses import dataclass

import numpy as np

from tomoforge.errors import InputError


def beam_direction(angle: float) -> np.ndarray:
    """Direction of travel of the beam in the sample frame at ``angle`` [rad]: (3,) float64, (z, y, x)."""
    return np.array([0.0, np.cos(angle), -np.sin(angle)])


def detector_axis(angle: float) -> np.ndarray:
    """Direction of growing detector column in the sample frame at ``angle`` [rad]: (3,), (z, y, x)."""
    return np.array([0.0, np.sin(angle), np.cos(angle)])


def uniform_angles(count: int, arc: float = np.pi) -> np.ndarray:
    """``count`` angles [rad] evenly spread over ``arc`` [rad], the end left out: (angle,) float64."""
    if count < 1:
        raise InputError(f"count must be at least 1 angle, got {count}")
    if not (np.isfinite(arc) and arc != 0):
        raise InputError(f"arc must be a finite, non-zero number of radians, got {arc!r}")
    return np.arange(count) * (arc / count)


@dataclass(frozen=True)
class ScanGeometry:
    """Where sample and detector stand during a scan.

    angles : (angle,) float64 [rad]; pixel_size : detector pixel at the sample [m];
    propagation_distance : sample to detector [m], 0 for contact; rotation_centre : detector column of
    the axis [pixels], None for the middle ``(columns − 1)/2``.
    """

    angles: np.ndarray
    pixel_size: float
    propagation_distance: float = 0.0
    rotation_centre: float | None = None

    def __post_init__(self) -> None:
        angles = np.asarray(self.angles, dtype=np.float64)
        if angles.ndim != 1 or angles.size == 0 or not np.isfinite(angles).all():
            raise InputError(
                "angles must be a non-empty list of finite angles in radians, got "
                f"{angles.size} values of shape {angles.shape} with {np.sum(~np.isfinite(angles))} not finite"
            )
        if not (np.isfinite(self.pixel_size) and self.pixel_size > 0):
            raise InputError(f"pixel_size must be positive metres, got {self.pixel_size!r}")
        if not (np.isfinite(self.propagation_distance) and self.propagation_distance >= 0):
            raise InputError(
                "propagation_distance must be zero or positive metres, got "
                f"{self.propagation_distance!r}; was it given in the wrong direction?"
            )
        object.__setattr__(self, "angles", angles)

    def centre_column(self, n_columns: int) -> float:
        """Detector column [pixels] of the rotation axis on a detector of ``n_columns``."""
        return (n_columns - 1) / 2 if self.rotation_centre is None else float(self.rotation_centre)
