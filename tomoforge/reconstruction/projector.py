"""Line integrals of a volume, by the Fourier slice theorem, and the exact adjoint: for residuals.

What a reconstruction does not explain of its own projections shows rings, a wrong axis and movement. The volume
is taken as band-limited samples: each projection's spectrum is a radial line of the slice's Fourier transform,
read off by a non-uniform FFT.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import scipy.fft

from tomoforge.backend import array_module, fft_module
from tomoforge.errors import InputError
from tomoforge.reconstruction.angles import checked_angles
from tomoforge.reconstruction.fbp import central_shifts, checked_centre
from tomoforge.reconstruction.nufft import library_plan, radial_points

_TOLERANCE = 1e-5  # of the transforms: below the noise of any projection


def project(
    volume: np.ndarray,
    angles: np.ndarray,
    rotation_centre: float | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Line integrals of a volume in units of its values times the pixel: multiply by ``pixel_size``.

    Parameters
    ----------
    volume : (z, y, x) float32, y and x of one size n, on the host or on a GPU, centred on the rotation axis
    angles : (angle,) float, radians; a point (x, y) falls on u = x cos θ + y sin θ
    rotation_centre : float [pixels], detector column of the axis; None for (n − 1)/2
    progress : called with (slices done, slices in all)

    Returns
    -------
    line_integrals : (angle, y, x) float32, n columns; −ln(transmission) once multiplied by pixel_size, for µ [1/m]

    Raises
    ------
    InputError
        If slices are not square, or an argument is out of bounds.

    Notes
    -----
    Pixels that some angles do not see count for the others. Edges sharper than a pixel ring, as in any
    band-limited projection. The adjoint, to float rounding, is ``back_project``.

    References
    ----------
    Matej, Fessler, Kazantsev, IEEE Trans. Med. Imaging 23, 401 (2004): Fourier projectors and their adjoints.
    """
    if volume.ndim != 3 or volume.shape[1] != volume.shape[2] or 0 in volume.shape:
        raise InputError(f"volume must be (z, y, x) with square slices, got {volume.shape}")
    xp, fft = array_module(volume), fft_module(volume)
    n = volume.shape[1]
    lines = _Lines(xp, n, checked_angles(angles), rotation_centre, backwards=False)
    result = xp.empty((lines.n_angles, len(volume), n), np.float32)
    for row in range(len(volume)):
        values = xp.ascontiguousarray(volume[row], dtype=np.complex64)
        spectrum = lines.plan.execute(values).reshape(lines.phases.shape) * lines.phases.conj()
        result[:, row] = fft.irfft(spectrum, lines.length, axis=-1)[:, :n]
        if progress is not None:
            progress(row + 1, len(volume))
    return result


def back_project(
    line_integrals: np.ndarray,
    angles: np.ndarray,
    rotation_centre: float | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """The adjoint of ``project``: each value smeared back along its line, unfiltered and unweighted.

    Parameters and errors as ``project``'s, the other way round: (angle, y, x) float32 → (z, y, x) float32.
    """
    if line_integrals.ndim != 3 or 0 in line_integrals.shape:
        raise InputError(
            f"line_integrals must be a non-empty (angle, y, x) array, got {line_integrals.shape}"
        )
    xp, fft = array_module(line_integrals), fft_module(line_integrals)
    n_angles, n_rows, n = line_integrals.shape
    lines = _Lines(xp, n, checked_angles(angles, n_angles), rotation_centre, backwards=True)
    result = xp.empty((n_rows, n, n), np.float32)
    for row in range(n_rows):
        values = xp.ascontiguousarray(line_integrals[:, row], dtype=np.float32)
        spectrum = fft.rfft(values, lines.length, axis=-1)
        spectrum *= lines.phases * lines.shares
        result[row] = lines.plan.execute(spectrum.ravel()).real
        if progress is not None:
            progress(row + 1, n_rows)
    return result


class _Lines:
    """Plan, phases and weights of the radial lines, in the array module of the data."""

    def __init__(
        self, xp: ModuleType, n: int, angles: np.ndarray, rotation_centre: float | None, *, backwards: bool
    ) -> None:
        centre = checked_centre(n, rotation_centre)
        self.n_angles = angles.size
        # Twice the width: what falls beside the detector does not come back in at its other end.
        self.length = int(scipy.fft.next_fast_len(2 * n, real=True))
        frequency = scipy.fft.rfftfreq(self.length)
        shifts = central_shifts(n, angles, centre)
        self.phases: Any = xp.asarray(np.exp(2j * np.pi * np.outer(shifts, frequency)).astype(np.complex64))
        # An inverse real transform counts each frequency but zero and Nyquist twice, and divides by the length.
        shares = np.full(frequency.size, 2.0 / self.length, np.float32)
        shares[0] = 1.0 / self.length
        if self.length % 2 == 0:
            shares[-1] = 1.0 / self.length
        self.shares: Any = xp.asarray(shares)
        self._points = tuple(xp.asarray(part) for part in radial_points(angles, frequency))
        self.plan = library_plan(xp, *((1, n, 1, _TOLERANCE, 1) if backwards else (2, n, 1, _TOLERANCE, -1)))
        self.plan.setpts(*self._points)
