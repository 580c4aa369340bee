"""Sums of plane waves along radial lines by a library's non-uniform FFT: cufinufft on a GPU, finufft on the host.

The GPU's back-projection. On the host it is the independent check of gridding.py, several times slower.
"""

from types import ModuleType
from typing import Any

import numpy as np

from tomoforge.backend import array_module, fft_module
from tomoforge.errors import MissingComponentError
from tomoforge.reconstruction.gridding import LANES

TOLERANCE = 1e-3  # of the transform: a tenth of the error of sampling


def library_plan(xp: ModuleType, kind: int, n: int, count: int, tolerance: float, sign: int) -> Any:
    """A two-dimensional transform of type ``kind`` to or from n × n modes, ``count`` at a time, complex64.

    Raises
    ------
    MissingComponentError
        For arrays on a GPU without cufinufft.
    """
    options: dict[str, Any] = {"n_trans": count, "eps": tolerance, "isign": sign, "dtype": "complex64"}
    if xp is np:
        import finufft

        # One thread: the order of summation does not depend on the machine.
        return finufft.Plan(kind, (n, n), nthreads=1, **options)
    try:
        import cufinufft
    except ImportError as error:
        raise MissingComponentError(
            "reconstruction on a GPU needs cufinufft; install the extra with `make setup EXTRAS=gpu`, or give "
            "host arrays (backend.to_host)"
        ) from error
    return cufinufft.Plan(kind, (n, n), **options)


class LibraryNufft:
    """The same images from the same arguments as gridding.RadialGrid, in the array module of the lines.

    Notes
    -----
    Keeps eight bytes of factors and eight of coordinates for each angle and frequency. GPU sums are atomic:
    their order, and the last bits, vary from run to run.
    """

    def __init__(
        self,
        n: int,
        length: int,
        angles: np.ndarray,
        radial: np.ndarray,
        shifts: np.ndarray,
        weights: np.ndarray,
        outside: np.ndarray | None,
    ) -> None:
        self._n, self._length = n, length
        index = np.arange(radial.size)
        frequency = index / length
        self._folded = np.minimum(index, length - index)
        self._mirrored = index > length // 2
        phase = np.exp(2j * np.pi * np.outer(shifts, frequency))
        self._factors = (weights[:, np.newaxis] * radial * phase).astype(np.complex64)
        self._points = tuple(radial_points(angles, frequency))
        self._outside = outside
        self._ready: dict[str, tuple[Any, ...]] = {}

    def images(self, lines: Any) -> Any:
        """(slice, y, x) float32 from up to eight slices' (angle, slice, x) float32 projections."""
        xp, fft = array_module(lines), fft_module(lines)
        plan, factors, folded, mirrored, outside, _ = self._prepared(xp)
        count = lines.shape[1]
        spectra = xp.zeros((LANES, *factors.shape), np.complex64)
        for lane in range(count):  # one after another: the padded spectra are the largest arrays
            spectrum = fft.rfft(lines[:, lane], self._length, axis=-1)[:, folded]
            spectrum = xp.where(mirrored, spectrum.conj(), spectrum)
            xp.multiply(spectrum, factors, out=spectra[lane])
        images = plan.execute(spectra.reshape(LANES, -1))[:count].real.astype(np.float32)
        if outside is not None:
            images[:, outside] = 0
        return images

    def _prepared(self, xp: ModuleType) -> tuple[Any, ...]:
        """Plan and constants where the arrays of ``xp`` are; the points too, as plans keep pointers to them."""
        if xp.__name__ not in self._ready:
            points = tuple(xp.asarray(part) for part in self._points)
            plan = library_plan(xp, 1, self._n, LANES, TOLERANCE, 1)
            plan.setpts(*points)
            constants = (self._factors, self._folded, self._mirrored)
            outside = None if self._outside is None else xp.asarray(self._outside)
            self._ready[xp.__name__] = (plan, *(xp.asarray(part) for part in constants), outside, points)
        return self._ready[xp.__name__]


def radial_points(angles: np.ndarray, frequency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(y, x) coordinates [rad/pixel] of ``frequency`` [cycles/pixel] on the lines, flat float32 in [−π, π]."""
    y, x = (
        (2 * np.pi * (part - np.rint(part))).astype(np.float32).ravel()
        for part in (np.outer(np.sin(angles), frequency), np.outer(np.cos(angles), frequency))
    )
    return y, x
