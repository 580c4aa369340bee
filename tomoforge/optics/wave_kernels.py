"""Kernels of the forward model on the host: thickness to wave, wave to pixels, and transposed copies.

Sine, cosine and power of two are written out, as those vectorise where the C library's are called one by one;
the phase comes in turns, so that its reduction to one turn is exact. One projection of 512 rows of path lengths
to a wave of 2048² takes 10 ms here.
"""

import numpy as np

from tomoforge.compilation import compiled

# Taylor coefficients, enough for float32.
_SINE = [
    np.float32((-1) ** k * (2 * np.pi) ** (2 * k + 1) / np.prod(np.arange(1.0, 2 * k + 2))) for k in range(6)
]
_S0, _S1, _S2, _S3, _S4, _S5 = _SINE
_POWER = [np.float32(np.log(2) ** k / max(np.prod(np.arange(1.0, k + 1)), 1.0)) for k in range(7)]
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = _POWER
_HALF, _QUARTER, _ZERO = np.float32(0.5), np.float32(0.25), np.float32(0)
_LEAST = np.float32(-126)  # smallest exponent of a normal float32


@compiled(inline=True)
def _sine_of_turns(t):
    """sin(2πt) for |t| ≤ 1/4, to 6e-8."""
    s = t * t
    return t * (_S0 + s * (_S1 + s * (_S2 + s * (_S3 + s * (_S4 + s * _S5)))))


@compiled(inline=True)
def _power_of_two(t):
    """2^t for t ≤ 0, to 2e-7 relative; 2^−126 and less is 2^−126."""
    t = max(t, _LEAST)
    whole = np.float32(np.rint(t))
    f = t - whole
    power = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
    return power * (_P0 + f * (_P1 + f * (_P2 + f * (_P3 + f * (_P4 + f * (_P5 + f * _P6))))))


@compiled()
def exit_rows(maps, turns, halvings, oversampling, start, incoming, into):
    """Rows of the wave behind a plane: thickness maps → refined rows → transmission × incoming wave.

    maps (material, y, x) [m]; start : first fine row; incoming (row, x) complex64, or no rows for a plane wave
    of amplitude 1; into (row, x) complex64.
    """
    n_materials, rows, columns = maps.shape
    phase = np.empty(columns, np.float32)
    decay = np.empty(columns, np.float32)
    for r in range(into.shape[0]):
        position = (start + r + 0.5) / oversampling - 0.5
        position = min(max(position, 0.0), rows - 1.0)
        low = min(int(position), max(rows - 2, 0))
        high = min(low + 1, rows - 1)
        upper = np.float32(position - low)
        lower = np.float32(1) - upper
        phase[:] = _ZERO
        decay[:] = _ZERO
        for m in range(n_materials):
            if turns[m] == _ZERO and halvings[m] == _ZERO:
                continue  # vacuum
            a, b = maps[m, low], maps[m, high]
            for x in range(columns):
                t = a[x] * lower + b[x] * upper
                phase[x] += t * turns[m]
                decay[x] += t * halvings[m]
        for x in range(columns):
            turn = phase[x] - np.float32(np.rint(phase[x]))
            size = abs(turn)
            sine = _sine_of_turns(min(size, _HALF - size))
            sine = sine if turn >= _ZERO else -sine
            cosine = _sine_of_turns(_QUARTER - size)
            amplitude = _power_of_two(-decay[x])
            phase[x] = amplitude * cosine
            decay[x] = -amplitude * sine
        if incoming.shape[0]:
            for x in range(columns):
                into[r, x] = incoming[r, x] * complex(phase[x], decay[x])
        else:
            for x in range(columns):
                into[r, x] = complex(phase[x], decay[x])


@compiled()
def transpose(wave, start, into):
    """into (column, y) = columns start… of wave (y, x)."""
    n = into.shape[0]
    for y0 in range(0, wave.shape[0], 32):
        for c in range(n):
            for y in range(y0, min(y0 + 32, wave.shape[0])):
                into[c, y] = wave[y, start + c]


@compiled()
def transpose_back(block, start, wave):
    """Columns start… of wave (y, x) = block (column, y)."""
    for y in range(wave.shape[0]):
        for c in range(block.shape[0]):
            wave[y, start + c] = block[c, y]


@compiled()
def bin_rows(block, weights, radius, oversampling, out):
    """|wave|² of columns (column, fine y), blurred and averaged along y: out (column, y)."""
    columns, samples = block.shape
    line = np.empty(samples + 2 * radius, np.float32)
    for c in range(columns):
        wave = block[c]
        for y in range(samples):
            line[radius + y] = wave[y].real * wave[y].real + wave[y].imag * wave[y].imag
        for k in range(radius):
            line[k] = line[radius]
            line[radius + samples + k] = line[radius + samples - 1]
        for y in range(out.shape[1]):
            total = _ZERO
            for k in range(weights.size):
                total += weights[k] * line[y * oversampling + k]
            out[c, y] = total


@compiled()
def bin_columns(partial, weights, radius, oversampling, out):
    """(fine x, y) blurred and averaged along x: out (y, x)."""
    samples, rows = partial.shape
    line = np.empty(rows, np.float32)
    for x in range(out.shape[1]):
        line[:] = _ZERO
        for k in range(weights.size):
            source = partial[min(max(x * oversampling + k - radius, 0), samples - 1)]
            for y in range(rows):
                line[y] += weights[k] * source[y]
        for y in range(rows):
            out[y, x] = line[y]
