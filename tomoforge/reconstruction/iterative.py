"""Reconstruction by iteration for few angles and missing wedges: SIRT and CGLS of the ASTRA toolbox on the CPU."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import astra
import numpy as np

from tomoforge.errors import InputError
from tomoforge.reconstruction.angles import checked_angles
from tomoforge.reconstruction.fbp import seen_radius

Projector = Literal["linear", "strip"]
Progress = Callable[[int, int], None]


def sirt(
    line_integrals: np.ndarray,
    angles: np.ndarray,
    pixel_size: float,
    rotation_centre: float | None = None,
    iterations: int = 200,
    *,
    projector: Projector = "linear",
    mask: np.ndarray | None = None,
    non_negative: bool = False,
    zero_outside: bool = True,
    progress: Progress | None = None,
) -> np.ndarray:
    """µ by the simultaneous iterative reconstruction technique, slice by slice.

    Parameters
    ----------
    line_integrals : (angle, y, x) float32, −ln(transmission), unitless
    angles : (angle,) float, radians, any order, spacing and arc
    pixel_size : float [m]
    rotation_centre : float [pixels], 0-based detector column of the axis; None for (columns − 1)/2
    iterations : 200 give an ordinary scan the sharpness of ``fbp``; fewer are smoother and less noisy
    projector : "linear" (Joseph's, quick) or "strip" (exact areas, slower)
    mask : (y, x) bool, pixels that may be other than zero; None for all
    non_negative : hold µ at zero or above, which is worth most where angles are missing
    zero_outside : at the end, zero the pixels that some angle does not see, as ``fbp`` does
    progress : called with (slices done, slices in all)

    Returns
    -------
    volume : (z, y, x) float32, µ [1/m]; the grid and the orientation of ``fbp``. A slice's bytes do not depend on
        which others are given with it.

    Raises
    ------
    InputError
        If shapes do not fit, a value is not finite or an argument is out of bounds.

    Notes
    -----
    For few angles and missing wedges; with many angles ``fbp`` is as good and hundreds of times faster. A sample that
    reaches beyond the detector has no explanation inside the grid and shows a bright rim.

    References
    ----------
    Gregor, Benson, IEEE Trans. Med. Imaging 27, 918 (2008), for SIRT; van Aarle et al., Opt. Express 24, 25129 (2016),
    for the ASTRA toolbox.
    """
    return _reconstruct(
        "SIRT", line_integrals, angles, pixel_size, rotation_centre, iterations, projector, mask, non_negative,
        zero_outside, progress,
    )  # fmt: skip


def cgls(
    line_integrals: np.ndarray,
    angles: np.ndarray,
    pixel_size: float,
    rotation_centre: float | None = None,
    iterations: int = 20,
    *,
    projector: Projector = "linear",
    mask: np.ndarray | None = None,
    zero_outside: bool = True,
    progress: Progress | None = None,
) -> np.ndarray:
    """µ by conjugate gradients on the normal equations, slice by slice.

    Parameters
    ----------
    iterations : 20 do the work of some 200 of ``sirt``; more fit the noise, since stopping is the only regularisation
    others : as for ``sirt``; CGLS knows no lower bound

    Returns
    -------
    volume : (z, y, x) float32, µ [1/m], as of ``sirt``

    Raises
    ------
    InputError
        As ``sirt``.
    """
    return _reconstruct(
        "CGLS", line_integrals, angles, pixel_size, rotation_centre, iterations, projector, mask, False,
        zero_outside, progress,
    )  # fmt: skip


def _reconstruct(
    algorithm: str,
    line_integrals: np.ndarray,
    angles: np.ndarray,
    pixel_size: float,
    rotation_centre: float | None,
    iterations: int,
    projector: Projector,
    mask: np.ndarray | None,
    non_negative: bool,
    zero_outside: bool,
    progress: Progress | None,
) -> np.ndarray:
    angles, centre = checked_problem(line_integrals, angles, pixel_size, rotation_centre)
    n_rows, n_columns = line_integrals.shape[1:]
    if iterations < 1:
        raise InputError(f"iterations must be at least 1, got {iterations!r}")
    volume = np.empty((n_rows, n_columns, n_columns), np.float32)
    with AstraSlice(n_columns, angles, centre, projector, mask=mask) as slices:
        for row in range(n_rows):
            volume[row] = slices.run(algorithm, line_integrals[:, row], iterations, non_negative)
            if progress is not None:
                progress(row + 1, n_rows)
    if zero_outside:
        volume[:, ~seen_mask(n_columns, centre)] = 0.0
    volume /= np.float32(pixel_size)
    return volume


def checked_problem(
    line_integrals: np.ndarray, angles: np.ndarray, pixel_size: float, rotation_centre: float | None
) -> tuple[np.ndarray, float]:
    """The angles [rad] as float64 and the axis [pixels] as a number, of a problem that can be reconstructed.

    Raises
    ------
    InputError
        If shapes do not fit, a value is not finite, or an argument is out of bounds.
    """
    if line_integrals.ndim != 3 or 0 in line_integrals.shape:
        raise InputError(
            f"line_integrals must be a non-empty (angle, y, x) array, got {line_integrals.shape}; "
            "give a single sinogram as sinogram[:, np.newaxis, :]"
        )
    n_angles, _, n_columns = line_integrals.shape
    if not np.isfinite(line_integrals).all():
        raise InputError(
            f"line_integrals has {np.sum(~np.isfinite(line_integrals))} values that are not finite; repair or "
            "clip them first (normalise, line_integrals)"
        )
    if not (np.isfinite(pixel_size) and pixel_size > 0):
        raise InputError(f"pixel_size must be positive metres, got {pixel_size!r}")
    centre = (n_columns - 1) / 2 if rotation_centre is None else float(rotation_centre)
    if not 0 <= centre <= n_columns - 1:
        raise InputError(
            f"rotation_centre must be a detector column in 0…{n_columns - 1}, got {centre!r}; it is 0-based and "
            "in pixels"
        )
    return checked_angles(angles, n_angles), centre


class AstraSlice:
    """ASTRA's geometry, projector and buffers for one slice, made once and freed on leaving the ``with`` block."""

    def __init__(
        self,
        n_columns: int,
        angles: np.ndarray,
        rotation_centre: float | None,
        projector: Projector,
        *,
        n_detectors: int | None = None,
        mask: np.ndarray | None = None,
    ) -> None:
        if projector not in get_args(Projector):
            raise InputError(f"projector must be one of {', '.join(get_args(Projector))}; got {projector!r}")
        if mask is not None and mask.shape != (n_columns, n_columns):
            raise InputError(f"mask must be (y, x) = {(n_columns, n_columns)}, got {mask.shape}")
        columns = n_columns if n_detectors is None else n_detectors
        self._mask = mask
        if rotation_centre is None:  # a centred detector, the only kind that ASTRA's FBP takes
            self._geometry = astra.create_proj_geom("parallel", 1.0, columns, -angles)
        else:
            vectors = astra_vectors(angles, columns, rotation_centre)
            self._geometry = astra.create_proj_geom("parallel_vec", columns, vectors)
        self._volume = astra.create_vol_geom(n_columns, n_columns)
        self._kind = projector
        self._freed: list[tuple[Any, int]] = []

    def __enter__(self) -> "AstraSlice":
        try:
            self._projector = self._keep(astra.projector, astra.create_projector(
                self._kind, self._geometry, self._volume))  # fmt: skip
            self._sinogram = self._keep(astra.data2d, astra.data2d.create("-sino", self._geometry, 0.0))
            self._image = self._keep(astra.data2d, astra.data2d.create("-vol", self._volume, 0.0))
            self._mask_id = None
            if self._mask is not None:
                self._mask_id = self._keep(astra.data2d, astra.data2d.create(
                    "-vol", self._volume, np.asarray(self._mask, np.float32)))  # fmt: skip
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._freed:
            module, identifier = self._freed.pop()
            module.delete(identifier)

    def _keep(self, module: Any, identifier: int) -> int:
        self._freed.append((module, identifier))
        return identifier

    def run(
        self, algorithm: str, sinogram: np.ndarray, iterations: int = 1, non_negative: bool = False,
        options: dict[str, Any] | None = None,
    ) -> np.ndarray:  # fmt: skip
        """(y, x) float32 image in units of 1/pixel from an (angle, x) sinogram, starting from zero."""
        astra.data2d.store(self._sinogram, np.ascontiguousarray(sinogram, np.float32))
        astra.data2d.store(self._image, 0.0)
        settings = astra.astra_dict(algorithm)
        settings["ProjectorId"] = self._projector
        settings["ProjectionDataId"] = self._sinogram
        settings["ReconstructionDataId"] = self._image
        settings["option"] = dict(options or {})
        if self._mask_id is not None:
            settings["option"]["ReconstructionMaskId"] = self._mask_id
        if non_negative:
            settings["option"] |= {"MinConstraint": 0.0}
        identifier = astra.algorithm.create(settings)
        try:
            astra.algorithm.run(identifier, iterations)
        finally:
            astra.algorithm.delete(identifier)
        return astra.data2d.get(self._image)


def seen_mask(n_columns: int, centre: float) -> np.ndarray:
    """(y, x) bool: pixels whose middle every angle sees, on a detector with its axis at column ``centre``."""
    axis = np.arange(n_columns) - (n_columns - 1) / 2
    return axis[:, np.newaxis] ** 2 + axis**2 <= seen_radius(n_columns, centre) ** 2


def astra_vectors(angles: np.ndarray, n_columns: int, centre: float) -> np.ndarray:
    """ASTRA's ``parallel_vec`` rows (ray, detector middle, pixel step) for our angles: (angle, 6) float64.

    ASTRA's y grows towards row 0, ours away from it, so every y changes sign; the axis off the middle is a
    detector moved the other way.
    """
    cos, sin = np.cos(angles), np.sin(angles)
    shift = (n_columns - 1) / 2 - centre
    return np.stack([-sin, -cos, shift * cos, -shift * sin, cos, -sin], axis=1)
