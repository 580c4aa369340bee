"""Sums of plane waves along radial lines, for eight slices at once: the heart of the CPU's back-projection.

A non-uniform FFT of type 1 made for what slices share. Where each frequency falls on the grid, and with what
weights, is the same for all slices, so it is worked out once for eight of them, and the eight lie side by side
in memory: every addition to the grid is one of whole SIMD registers. The slices are real, so half the grid and
half the Fourier transform do. Against finufft, one slice at a time, that is several times faster at the same
accuracy (``benchmarks/reconstruction.py``). A lane's arithmetic is the same whatever the others hold, so that a
slice's bytes do not depend on its neighbours; multiplications and additions stay apart (no fused ones), so
that they do not depend on the processor either.

References
----------
Fessler and Sutton, IEEE Trans. Signal Process. 51, 560 (2003); Beatty, Nishimura, Pauly, IEEE Trans. Med.
Imaging 24, 799 (2005), eq. 5, for the kernel's shape; Barnett, Magland, af Klinteberg, SIAM J. Sci. Comput. 41,
C479 (2019), for its taps as polynomials.
"""

import numpy as np
import scipy.fft

from tomoforge.compilation import compiled

LANES = 8  # slices together: 8 complex64 are one 64-byte cache line
_WIDTH = 5  # taps of the kernel along each axis; the accumulation is written out for five
_OVERSAMPLING = 1.25  # with five taps the error is 1e-3 of the rms, a tenth of the error of sampling
_DEGREE = 8  # coefficients of a tap's polynomial: 1e-6
_ANGLES_TOGETHER = 8  # lines transformed at once, small enough to stay in the cache
_ROWS_TOGETHER, _COLUMNS_TOGETHER = 8, 32

# Unsigned: a signed index may be negative, and numba's test for that keeps loops from vectorising.
_U0, _U1, _U2, _U3, _U4, _U8, _U16 = (np.uint64(i) for i in (0, 1, 2, 3, 4, 8, 16))
_U5, _U6, _U7, _U32, _U48, _U64 = (np.uint64(i) for i in (5, 6, 7, 32, 48, 64))


class RadialGrid:
    """The image, on n × n pixels, of spectra given along radial lines; eight images at once.

    image[y, x] = Re Σ_a Σ_k weight_a radial_k S_a(k) exp(2πi (k/length) (shift_a + x' cos θ_a + y' sin θ_a))

    with integers x', y' from −(n // 2), and S_a continued periodically beyond its last frequency.

    Parameters
    ----------
    n : int, pixels along each side
    length : int, samples of the transform that gave the spectra; frequencies are k/length [cycles/pixel]
    angles : (angle,) float64, radians; fastest where neighbours in the list are neighbours in angle
    radial : (frequency,) float64, may reach beyond the Nyquist frequency
    shifts : (angle,) float64 [pixels]
    weights : (angle,) float64
    outside : (y, x) bool or None, pixels to be set to zero

    Notes
    -----
    Holds a grid of about 50 n² bytes that the calls share: not for several threads at once.
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
        cells = scipy.fft.next_fast_len(max(int(np.ceil(_OVERSAMPLING * n)), 2 * _WIDTH + 2))
        while cells % 2:
            cells = scipy.fft.next_fast_len(cells + 1)
        self._cells = cells
        self._radial = radial.astype(np.float64)
        self._cosines, self._sines = np.cos(angles), np.sin(angles)
        self._shifts, self._weights = shifts.astype(np.float64), weights.astype(np.float64)
        beta = np.pi * np.sqrt((_WIDTH * n / cells) ** 2 * (cells / n - 0.5) ** 2 - 0.8)
        self._taps = _tap_polynomials(beta)
        mode = np.arange(n) - n // 2
        correction = 1.0 / _kernel_transform(beta, mode / cells)
        # The grid's columns begin at −cells/2, which turns every other mode's sign.
        self._columns = (correction * (-1.0) ** mode).astype(np.float32)
        self._rows = (0.5 * correction).astype(np.float32)
        self._outside = np.zeros((n, n), bool) if outside is None else outside
        pitch = cells + 2 * _WIDTH
        self._grid = np.zeros((cells // 2 + 1 + 2 * _WIDTH, pitch, 2 * LANES), np.float32)

    def images(self, lines: np.ndarray) -> np.ndarray:
        """(slice, y, x) float32 from up to eight slices' projections.

        lines : (angle, slice, x) float32, not yet padded or filtered, in the order of the angles.
        """
        count = lines.shape[1]
        self._grid[:] = 0
        padded = np.zeros((_ANGLES_TOGETHER, LANES, lines.shape[2]), np.float32)
        for start in range(0, lines.shape[0], _ANGLES_TOGETHER):
            some = lines[start : start + _ANGLES_TOGETHER]
            padded[: len(some), :count] = some
            stop = start + len(some)
            spread(
                scipy.fft.rfft(padded, self._length, axis=-1),
                self._radial,
                self._shifts[start:stop],
                self._weights[start:stop],
                self._cosines[start:stop],
                self._sines[start:stop],
                self._length,
                self._cells,
                self._taps,
                self._grid.reshape(-1),
            )
        return self._transform(count)

    def _transform(self, count: int) -> np.ndarray:
        """(slice, y, x) float32: real part of the Fourier transform of the half grid."""
        n, cells, width = self._n, self._cells, _WIDTH
        grid = self._grid.view(np.complex64)
        grid[:, cells : cells + width] += grid[:, :width]
        grid[:, width : 2 * width] += grid[:, cells + width :]
        low = n // 2
        for start in range(0, len(grid), _ROWS_TOGETHER):
            rows = grid[start : start + _ROWS_TOGETHER]
            lines = scipy.fft.ifft(rows[:, width : width + cells], axis=1, norm="forward")
            rows[:, :low] = lines[:, cells - low :]
            rows[:, low:n] = lines[:, : n - low]
        # Rows beyond zero and beyond Nyquist are conjugates of rows within, now that x is space.
        half = grid[width:-width]
        for r in range(1, width + 1):
            half[r, :n] += grid[width - r, :n].conj()
            half[-1 - r, :n] += grid[-1 - width + r, :n].conj()
        half[0, :n] *= 2
        half[-1, :n] *= 2
        images = np.empty((count, n, n), np.float32)
        for start in range(0, n, _COLUMNS_TOGETHER):
            stop = min(start + _COLUMNS_TOGETHER, n)
            columns = scipy.fft.irfft(half[:, start:stop], cells, axis=0, norm="forward")
            finish(columns, self._rows, self._columns, self._outside, start, images)
        return images


def _kernel(beta: float, offset: np.ndarray) -> np.ndarray:
    """Kaiser–Bessel kernel at ``offset`` [cells], 1 at 0."""
    inside = np.maximum(1 - (2 * offset / _WIDTH) ** 2, 0)
    return np.i0(beta * np.sqrt(inside)) / np.i0(beta)


def _kernel_transform(beta: float, frequency: np.ndarray) -> np.ndarray:
    """Fourier transform of the kernel at ``frequency`` [1/cell] (Beatty 2005, eq. 4)."""
    root = np.sqrt((beta**2 - (np.pi * _WIDTH * frequency) ** 2).astype(complex))
    return (_WIDTH * np.sinh(root) / root).real / np.i0(beta)


def _tap_polynomials(beta: float) -> np.ndarray:
    """(tap, power) float32: the kernel at offset tap + t − width/2 for 0 ≤ t ≤ 1, in powers of t."""
    t = 0.5 * (1 - np.cos(np.pi * (np.arange(64) + 0.5) / 64))
    fits = [
        np.polynomial.Polynomial.fit(t, _kernel(beta, i + t - _WIDTH / 2), _DEGREE - 1) for i in range(_WIDTH)
    ]
    return np.array([fit.convert().coef for fit in fits]).astype(np.float32)


@compiled()
def _place(dy, dx, cells, base, fy, fx, flip):
    """First cell of each frequency's taps, the fractions of a cell, and −1 where the conjugate is used.

    dy, dx : cells from one frequency to the next. The image's spectrum repeats every ``cells`` cells and is
    Hermitian: everything falls into rows 0…cells/2.
    """
    pitch = np.int64(cells + 2 * _WIDTH)
    for k in range(np.uint64(base.size)):
        y = dy * k
        x = dx * k
        y -= cells * np.rint(y / cells)
        x -= cells * np.rint(x / cells)
        sign = -1.0 if y < 0 else 1.0
        y = y * sign - 0.5 * _WIDTH
        x = x * sign - 0.5 * _WIDTH
        row = np.ceil(y)
        column = np.ceil(x)
        fy[k] = np.float32(row - y)
        fx[k] = np.float32(column - x)
        flip[k] = np.float32(sign)
        base[k] = (np.int64(row) + _WIDTH) * pitch + np.int64(column + 0.5 * cells) + _WIDTH


@compiled()
def _weigh(fraction, taps, weights):
    """Weights (tap, frequency) of the kernel's taps."""
    for i in range(np.uint64(_WIDTH)):
        c0, c1, c2, c3 = taps[i, _U0], taps[i, _U1], taps[i, _U2], taps[i, _U3]
        c4, c5, c6, c7 = taps[i, _U4], taps[i, _U5], taps[i, _U6], taps[i, _U7]
        for k in range(np.uint64(fraction.size)):
            t = fraction[k]
            weights[i, k] = c0 + t * (c1 + t * (c2 + t * (c3 + t * (c4 + t * (c5 + t * (c6 + t * c7))))))


@compiled()
def _turn(shift, weight, length, radial, re, im):
    """weight · radial · exp(2πi shift k/length) by repeated multiplication, in double precision."""
    step = complex(np.cos(2 * np.pi * shift / length), np.sin(2 * np.pi * shift / length))
    phase = complex(weight, 0.0)
    for k in range(np.uint64(radial.size)):
        re[k] = np.float32(phase.real * radial[k])
        im[k] = np.float32(phase.imag * radial[k])
        phase = phase * step


@compiled()
def _interleave(spectrum, re, im, flip, length, line):
    """Weighted spectra (slice, frequency) of one angle into (frequency, slice, re–im), conjugated where flipped."""
    count = np.uint64(re.size)
    own = min(np.uint64(spectrum.shape[1]), count)
    for lane in range(np.uint64(LANES)):
        p = lane * _U2
        for k in range(own):
            z = spectrum[lane, k]
            line[k * _U16 + p] = z.real * re[k] - z.imag * im[k]
            line[k * _U16 + p + _U1] = flip[k] * (z.real * im[k] + z.imag * re[k])
        for k in range(own, count):  # beyond Nyquist the spectrum of samples repeats, mirrored
            z = spectrum[lane, np.uint64(length) - k]
            line[k * _U16 + p] = z.real * re[k] + z.imag * im[k]
            line[k * _U16 + p + _U1] = flip[k] * (z.real * im[k] - z.imag * re[k])


@compiled()
def _accumulate(base, wy, wx, line, pitch, grid):
    """Add every frequency to its 5 × 5 cells, sixteen floats each."""
    for k in range(np.uint64(base.size)):
        b = k * _U16
        g = np.uint64(base[k]) * _U16
        x0, x1, x2, x3, x4 = wx[_U0, k], wx[_U1, k], wx[_U2, k], wx[_U3, k], wx[_U4, k]
        for i in range(np.uint64(_WIDTH)):
            y = wy[i, k]
            w0, w1, w2, w3, w4 = y * x0, y * x1, y * x2, y * x3, y * x4
            for lane in range(_U16):
                value = line[b + lane]
                grid[g + lane] += w0 * value
                grid[g + lane + _U16] += w1 * value
                grid[g + lane + _U32] += w2 * value
                grid[g + lane + _U48] += w3 * value
                grid[g + lane + _U64] += w4 * value
            g += pitch


@compiled()
def spread(spectra, radial, shifts, weights, cosines, sines, length, cells, taps, grid):
    """Add some angles to the grid.

    spectra (angle, slice, frequency) complex64; grid : flat float32 of (row, column, slice, re–im), rows and
    columns with a margin of the kernel's width on either side.
    """
    count = radial.size
    line = np.empty(count * 2 * LANES, np.float32)
    wy = np.empty((_WIDTH, count), np.float32)
    wx = np.empty((_WIDTH, count), np.float32)
    base = np.empty(count, np.int64)
    fy = np.empty(count, np.float32)
    fx = np.empty(count, np.float32)
    flip = np.empty(count, np.float32)
    re = np.empty(count, np.float32)
    im = np.empty(count, np.float32)
    pitch = np.uint64((cells + 2 * _WIDTH) * 2 * LANES)
    for a in range(np.uint64(shifts.size)):
        _place(sines[a] * cells / length, cosines[a] * cells / length, cells, base, fy, fx, flip)
        _weigh(fy, taps, wy)
        _weigh(fx, taps, wx)
        _turn(shifts[a], weights[a], length, radial, re, im)
        _interleave(spectra[a], re, im, flip, length, line)
        _accumulate(base, wy, wx, line, pitch, grid)


@compiled()
def finish(columns, rows, column_factors, outside, start, images):
    """Some columns (cell, column, slice) float32 into images (slice, y, x): cut out, corrected, zero outside."""
    cells = np.uint64(columns.shape[0])
    n = np.uint64(images.shape[1])
    first = np.uint64(start)
    low = n // _U2
    for y in range(n):
        cell = y - low if y >= low else cells - low + y
        for lane in range(np.uint64(images.shape[0])):
            for x in range(np.uint64(columns.shape[1])):
                value = columns[cell, x, lane] * rows[y] * column_factors[first + x]
                images[lane, y, first + x] = np.float32(0) if outside[y, first + x] else value
