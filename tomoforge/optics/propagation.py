"""Free-space propagation of a wave: Fresnel and angular spectrum, plane and spherical waves.

The Fresnel transfer function is a product of a function of f_y and one of f_x, so a wave is filtered along its
rows and then along its columns, in blocks that stay in the cache. It takes no padded copy of the wave and no
two-dimensional transfer function, costs with padding about what scipy's two-dimensional transforms cost without
(``benchmarks/propagation.py``), and gives the same bytes for any number of threads, as each block is transformed by
one thread. FFTW's estimated plans are slower here than scipy's transforms, and measured ones change the bytes from
run to run.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import scipy.fft

from tomoforge.backend import array_module, fft_module
from tomoforge.errors import InputError
from tomoforge.optics.wave_kernels import transpose, transpose_back

_BLOCK = 64  # lines transformed at once: 64 lines of 2048 complex64 are 1 MiB
_TAIL = 64  # pixels of padding for the tails of hard edges, cut off at the highest frequency
_PLAN_CACHE = (32, 2 * 1024**3)  # of cuFFT: plans, bytes of their work areas

LineReader = Callable[[int, int, np.ndarray], None]
LineWriter = Callable[[int, int, np.ndarray], None]


def exit_wave(phase: np.ndarray, attenuation: np.ndarray) -> np.ndarray:
    """Wave behind a thin sample in a plane wave of amplitude 1.

    phase : (y, x) [rad], k·Σ δ·T; attenuation : (y, x), k·Σ β·T, half the optical depth.

    Returns (y, x) complex64: T = exp(−ikδt − kβt), the convention exp(+ikz), n = 1 − δ + iβ.
    """
    xp = array_module(phase)
    amplitude = xp.exp(-attenuation)
    wave = xp.empty(phase.shape, dtype=np.complex64)
    wave.real = amplitude * xp.cos(phase)
    wave.imag = -amplitude * xp.sin(phase)
    return wave


def padding_width(pixel_size: float, distance: float, wavelength: float) -> int:
    """Pixels to add on each side of a wave sampled at ``pixel_size`` [m] for ``distance`` [m].

    The highest frequency, 1/(2·pixel), diffracts by λ/(2·pixel): it moves λz/(2·pixel). The tails of hard edges
    reach further: 64 pixels are added for them, and then twice the padding changes detector pixels of two samples by
    less than 1e-4 even 4 µm beside a ball's edge (16: by 1e-3).
    """
    return int(np.ceil(wavelength * abs(distance) / (2 * pixel_size) / pixel_size)) + _TAIL


def fresnel_scaling(source_distance: float | None, distance: float) -> tuple[float, float]:
    """Magnification M and effective distance [m] of a spherical wave: (R1 + R2)/R1 and R2/M.

    source_distance : R1, source to sample [m], None for a plane wave; distance : R2, sample to detector [m].
    The image at R2 is that of a plane wave at R2/M, M times larger and M² times weaker: in units of the open
    beam and on pixels referred to the sample nothing else changes (Fresnel scaling theorem; Paganin, Coherent
    X-Ray Optics (2006), eq. 1.35 and appendix B).

    Raises InputError for a source distance that is not positive.
    """
    if source_distance is None:
        return 1.0, distance
    if not (np.isfinite(source_distance) and source_distance > 0):
        raise InputError(
            f"source_distance must be positive metres from source to sample, got {source_distance!r}; "
            "leave it out for a plane wave"
        )
    magnification = (source_distance + distance) / source_distance
    return magnification, distance / magnification


def fresnel_propagate(
    wave: np.ndarray,
    pixel_size: float,
    distance: float,
    wavelength: float,
    *,
    padding: int | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Propagate a wave over a distance by the Fresnel transfer function exp(−iπλz|f|²).

    Parameters
    ----------
    wave : (y, x) complex, on the host or on a GPU; computed and returned in its own module and precision.
    pixel_size : float [m] of the wave's sampling.
    distance : float [m], not negative.
    wavelength : float [m].
    padding : pixels added on each side, repeating the edge; None for as many as the wave can spread, 0 for
        periodic boundaries.
    threads : of this call on the host; the result does not depend on it.

    Returns
    -------
    (y, x) complex, same shape.

    Raises
    ------
    InputError
        For a negative distance, or sizes that are not positive.

    Notes
    -----
    Valid while (πz/4λ)·θ⁴ « 1 for the angles θ in the wave, which holds for X-rays at any usual pixel. Beyond
    z = N·pixel²/λ the transfer function is undersampled on a grid of N pixels; the frequencies that alias are
    then left out (Matsushima & Shimobaba, Opt. Express 17, 19662 (2009), eq. 13, in its Fresnel form), and
    energy in them is lost. The automatic padding keeps N above that for any distance.

    References
    ----------
    Paganin, Coherent X-Ray Optics (2006), eq. 1.28; Goodman, Introduction to Fourier Optics, eq. 4-20.
    """
    width = _checked_padding(wave, pixel_size, distance, wavelength, padding)
    if distance == 0:
        return wave.copy()
    if array_module(wave) is not np:
        return _fresnel_on_gpu(wave, pixel_size, distance, wavelength, width)
    half: np.ndarray = np.empty(wave.shape, _precision(wave))
    out = np.empty_like(half)

    def read_rows(start: int, stop: int, into: np.ndarray) -> None:
        into[:] = wave[start:stop]

    def write_rows(start: int, stop: int, lines: np.ndarray) -> None:
        half[start:stop] = lines

    def read_columns(start: int, stop: int, into: np.ndarray) -> None:
        transpose(half, start, into)

    def write_columns(start: int, stop: int, lines: np.ndarray) -> None:
        transpose_back(lines, start, out)

    sampling = (pixel_size, distance, wavelength)
    filter_lines(read_rows, write_rows, wave.shape, half.dtype, *sampling, width, threads)
    filter_lines(read_columns, write_columns, wave.shape[::-1], half.dtype, *sampling, width, threads)
    return out


def angular_spectrum_propagate(
    wave: np.ndarray,
    pixel_size: float,
    distance: float,
    wavelength: float,
    *,
    padding: int | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Propagate a wave over a distance by the exact transfer function exp(2πiz(√(1/λ² − |f|²) − 1/λ)).

    Parameters, returns and errors as ``fresnel_propagate``; the common phase 2πz/λ is left out here too.

    Notes
    -----
    Without the paraxial approximation: the reference for waves at large angles. Evanescent waves decay. The
    band is limited where the transfer function is undersampled. Costs about twice the Fresnel propagation.

    References
    ----------
    Goodman, Introduction to Fourier Optics, eq. 3-66; Matsushima & Shimobaba, Opt. Express 17, 19662 (2009).
    """
    width = _checked_padding(wave, pixel_size, distance, wavelength, padding)
    if distance == 0:
        return wave.copy()
    xp, fft = array_module(wave), fft_module(wave)
    pads = [_padded_length(n, width) - n - width for n in wave.shape]
    spectrum = xp.pad(
        wave.astype(_precision(wave), copy=False), [(width, after) for after in pads], mode="edge"
    )
    transfer = _angular_transfer(spectrum.shape, pixel_size, distance, wavelength)
    options = {"workers": threads} if xp is np else {}
    spectrum = fft.fft2(spectrum, overwrite_x=True, **options)
    spectrum *= xp.asarray(transfer.astype(spectrum.dtype))
    spectrum = fft.ifft2(spectrum, overwrite_x=True, **options)
    return spectrum[width : width + wave.shape[0], width : width + wave.shape[1]]


def filter_lines(
    read: LineReader,
    write: LineWriter,
    shape: tuple[int, ...],
    dtype: np.dtype | type,
    pixel_size: float,
    distance: float,
    wavelength: float,
    width: int,
    threads: int = 1,
) -> None:
    """One axis of the Fresnel propagation on the host: every line of a wave, in blocks, on some threads.

    read(start, stop, into) fills ``into`` (line, sample) with the lines start…stop; write(start, stop, lines)
    takes them back; shape : (lines, samples) of the wave, first two entries; width : pixels of edge repeated at
    both ends. A negative distance goes back (inside a sample of several planes).
    """
    lines, samples = shape[:2]
    padded = _padded_length(samples, width)
    transfer = _transfer(padded, pixel_size, distance, wavelength, np.dtype(dtype).name) if distance else None
    after = width + samples

    def work(start: int) -> None:
        stop = min(start + _BLOCK, lines)
        block = np.empty((stop - start, padded), dtype)
        read(start, stop, block[:, width:after])
        if transfer is None:
            write(start, stop, block[:, width:after])
            return
        block[:, :width] = block[:, width, None]
        block[:, after:] = block[:, after - 1, None]
        block = scipy.fft.fft(block, axis=1, overwrite_x=True)
        block *= transfer
        block = scipy.fft.ifft(block, axis=1, overwrite_x=True)
        write(start, stop, block[:, width:after])

    starts = range(0, lines, _BLOCK)
    if threads == 1:
        for start in starts:
            work(start)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, starts):
            pass


def _checked_padding(
    wave: np.ndarray, pixel_size: float, distance: float, wavelength: float, padding: int | None
) -> int:
    """Pixels of padding, after the arguments are found good."""
    if not (np.isfinite(distance) and distance >= 0):
        raise InputError(f"distance must be zero or positive metres, got {distance!r}")
    for name, value in (("pixel_size", pixel_size), ("wavelength", wavelength)):
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} must be positive metres, got {value!r}")
    if wave.ndim != 2 or 0 in wave.shape or not np.issubdtype(wave.dtype, np.complexfloating):
        raise InputError(f"wave must be a complex (y, x) array, got {wave.dtype} of shape {wave.shape}")
    width = padding_width(pixel_size, distance, wavelength) if padding is None else padding
    if width < 0:
        raise InputError(f"padding must be zero or more pixels, got {padding}")
    return width


def _precision(wave: np.ndarray) -> type:
    return np.complex64 if wave.dtype == np.complex64 else np.complex128


def _padded_length(n: int, width: int) -> int:
    """Length of a line with ``width`` pixels at both ends, rounded up to a 5-smooth one; as it is without."""
    return int(scipy.fft.next_fast_len(n + 2 * width, real=True)) if width else n


@functools.lru_cache(maxsize=64)
def _transfer(n: int, pixel_size: float, distance: float, wavelength: float, dtype: str) -> np.ndarray:
    """One axis of the Fresnel transfer function, which is separable: (n,) complex."""
    frequency = np.fft.fftfreq(n, pixel_size)
    transfer = np.exp(-1j * np.pi * wavelength * distance * frequency**2)
    band = n * pixel_size / (2 * wavelength * abs(distance))
    return np.where(np.abs(frequency) <= band, transfer, 0).astype(dtype)


def _angular_transfer(
    shape: tuple[int, ...], pixel_size: float, distance: float, wavelength: float
) -> np.ndarray:
    """The transfer function of the angular spectrum: (y, x) complex128."""
    fy, fx = (np.fft.fftfreq(n, pixel_size) for n in shape)
    squared = wavelength**2 * (fy[:, None] ** 2 + fx**2)
    root = np.sqrt((1 - squared).astype(complex))
    # √(1 − s) − 1 = −s / (1 + √(1 − s)): the difference from one would lose all digits of a small s.
    transfer = np.exp(-2j * np.pi * distance / wavelength * (squared / (1 + root)))
    inside = np.ones(shape, bool)
    for axis, f in ((0, fy[:, None]), (1, fx[None, :])):
        # Matsushima & Shimobaba eq. 13; both axes apart, as its eq. 16–19 do for a small angle.
        band = 1 / (wavelength * np.sqrt((2 * distance / (shape[axis] * pixel_size)) ** 2 + 1))
        inside &= np.abs(f) <= band
    return np.where(inside, transfer, 0)


def _fresnel_on_gpu(
    wave: np.ndarray, pixel_size: float, distance: float, wavelength: float, width: int
) -> np.ndarray:
    """``fresnel_propagate`` for an array on a GPU, by two-dimensional transforms with a capped plan cache."""
    xp, fft = array_module(wave), fft_module(wave)
    _cap_plans(xp)
    rows, columns = wave.shape
    precision = _precision(wave)
    lengths = [_padded_length(n, width) for n in wave.shape]
    pads = [(width, length - n - width) for length, n in zip(lengths, wave.shape, strict=True)]
    spectrum = fft.fft2(xp.pad(wave.astype(precision, copy=False), pads, mode="edge"), overwrite_x=True)
    vertical, horizontal = (
        xp.asarray(_transfer(n, pixel_size, distance, wavelength, np.dtype(precision).name)) for n in lengths
    )
    spectrum *= vertical[:, None]
    spectrum *= horizontal[None, :]
    return fft.ifft2(spectrum, overwrite_x=True)[width : width + rows, width : width + columns]


def _cap_plans(xp: ModuleType) -> None:
    """Bound CuPy's cache of FFT plans, which by default may hold any amount of the card's memory."""
    cache = xp.fft.config.get_plan_cache()
    plans, size = _PLAN_CACHE
    if cache.get_size() != plans or cache.get_memsize() != size:
        cache.set_size(plans)
        cache.set_memsize(size)
