"""Flat detector panels in DIALS's laboratory frame (x, y, z), and where diffracted rays meet them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tomoforge.absorption.goniometer import unit_vector
from tomoforge.errors import InputError

_EDGE_PX = 1e-6  # a ray along an edge belongs to a panel, whatever its last digit


@dataclass(frozen=True)
class Panel:
    """origin : (3,) [m], from the sample to the outer corner of the first pixel; fast, slow : (3,) unit vectors
    (x, y, z) along which the first and the second pixel number grow; pixel_size : float [m]; shape : pixels along
    fast and slow; name : str.

    Raises InputError for vectors that are none, axes that are not at right angles, sizes that are not positive.
    """

    origin: np.ndarray
    fast: np.ndarray
    slow: np.ndarray
    pixel_size: float
    shape: tuple[int, int]
    name: str = "Panel"

    def __post_init__(self) -> None:
        for axis in ("fast", "slow"):
            object.__setattr__(self, axis, unit_vector(f"panel {axis}", getattr(self, axis)))
        object.__setattr__(self, "origin", np.asarray(self.origin, dtype=np.float64))
        if self.origin.shape != (3,) or not np.isfinite(self.origin).all():
            raise InputError(f"panel origin must be three finite numbers, got {self.origin.tolist()}")
        if abs(self.fast @ self.slow) > 1e-6:
            raise InputError(
                f"panel fast and slow must be at right angles, got {self.fast.tolist()} and {self.slow.tolist()}"
            )
        if not (self.pixel_size > 0 and min(self.shape) > 0):
            raise InputError(
                f"panel pixel_size and shape must be positive, got {self.pixel_size!r} and {self.shape}"
            )


def box_detector(distance: float = 0.1, pixel_size: float = 1e-4) -> tuple[Panel, ...]:
    """The six faces of a cube around the sample: an ideal detector, which no diffracted ray misses.

    distance : float [m], from the sample to each face; pixel_size : float [m]. The first face is the one that a beam
    along −z meets.
    """
    pixels = max(1, round(2 * distance / pixel_size))
    edge = pixels * pixel_size
    axes = np.eye(3)
    panels = []
    for normal, fast, name in (
        (-axes[2], axes[0], "front"),
        (axes[2], -axes[0], "back"),
        (axes[0], axes[2], "right"),
        (-axes[0], -axes[2], "left"),
        (axes[1], axes[0], "top"),
        (-axes[1], -axes[0], "bottom"),
    ):
        slow = np.cross(normal, fast)  # fast × slow looks outwards
        origin = edge / 2 * (normal - fast - slow)
        panels.append(Panel(origin, fast, slow, pixel_size, (pixels, pixels), name))
    return tuple(panels)


def ray_impacts(panels: Sequence[Panel], rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays from the sample meet the panels.

    Parameters
    ----------
    rays : (n, 3), laboratory (x, y, z), of any length

    Returns
    -------
    panel : (n,) int64, the first that is met; position : (n, 2) float64 [m] along fast and slow

    Raises
    ------
    InputError
        where a ray meets none.
    """
    panel, position = np.full(len(rays), -1), np.zeros((len(rays), 2))
    for number, one in enumerate(panels):
        # The ray is a multiple of origin + x·fast + y·slow.
        along = np.linalg.solve(np.stack([one.fast, one.slow, one.origin], axis=1), np.asarray(rays).T).T
        with np.errstate(divide="ignore", invalid="ignore"):
            place = along[:, :2] / along[:, 2:]
        edge = _EDGE_PX * one.pixel_size
        inside = (place >= -edge) & (place <= np.multiply(one.shape, one.pixel_size) + edge)
        met = (panel < 0) & (along[:, 2] > 0) & inside.all(axis=1)
        panel[met], position[met] = number, place[met]
    if (panel < 0).any():
        raise InputError(
            f"every ray must meet a panel, {int((panel < 0).sum())} of {len(rays)} do not; the detector is too small"
        )
    return panel, position
