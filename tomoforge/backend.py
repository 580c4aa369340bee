"""The only file that imports CuPy: functions follow the array module of their input."""

from types import ModuleType
from typing import Any

import numpy as np

from tomoforge.errors import MissingComponentError


def _cupy() -> ModuleType | None:
    try:
        import cupy
    except ImportError:
        return None
    return cupy


def array_module(array: Any) -> ModuleType:
    """NumPy for host arrays, CuPy for arrays on a GPU."""
    if isinstance(array, np.ndarray) or np.isscalar(array):
        return np
    cupy = _cupy()
    if cupy is not None and isinstance(array, cupy.ndarray):
        return cupy
    return np


def to_host(array: Any) -> np.ndarray:
    """The same values as a NumPy array; a copy only if they lie on a GPU."""
    return array.get() if array_module(array) is not np else np.asarray(array)


def fft_module(array: Any) -> ModuleType:
    """The FFT namespace for the array's module: scipy.fft (keeps complex64) or cupyx.scipy.fft."""
    if array_module(array) is np:
        import scipy.fft

        return scipy.fft
    import cupyx.scipy.fft

    return cupyx.scipy.fft


def gpu_count() -> int:
    """Number of usable CUDA devices; 0 where CuPy or a device is missing."""
    cupy = _cupy()
    if cupy is None:
        return 0
    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError:
        return 0


def require_gpu() -> None:
    """Raise MissingComponentError unless a CUDA device can be used."""
    if gpu_count() == 0:
        raise MissingComponentError(
            "a GPU was asked for, but CuPy finds none; install the extra with `make setup EXTRAS=gpu` on a "
            "machine with an NVIDIA driver, or choose the local cluster"
        )
