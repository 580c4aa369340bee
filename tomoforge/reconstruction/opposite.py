"""Projections half a turn apart are each other's mirror image about the axis: which pairs, and which axis."""

import numpy as np
import scipy.fft

# A pair further from opposite than this is turned enough to move features at the edge of 1000 columns.
_OPPOSITE_TOLERANCE = np.radians(0.1)
_MOST_PAIRS = 5
_LEAST_CONTRAST = (
    0.25  # of the whole: less in the shared columns is air, which correlates by its noise and drift
)


def opposite_pairs(angles: np.ndarray) -> list[tuple[int, int]]:
    """Up to five pairs (i, j), spread over the scan, with angles[j] half a turn after angles[i]."""
    order = np.argsort(angles, kind="stable")
    ordered = angles[order]
    nearest = np.searchsorted(ordered, ordered + np.pi - _OPPOSITE_TOLERANCE)
    pairs = [
        (int(order[i]), int(order[j]))
        for i, j in enumerate(nearest)
        if j < angles.size and abs(ordered[j] - ordered[i] - np.pi) <= _OPPOSITE_TOLERANCE
    ]
    keep = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), _MOST_PAIRS)).round().astype(int))
    return [pairs[k] for k in keep]


def pair_centre(
    first: np.ndarray, opposite: np.ndarray, bounds: tuple[float, float], least_overlap: float = 0.25
) -> float:
    """Axis column [pixels] that best mirrors projections half a turn on onto the first.

    Parameters
    ----------
    first, opposite : (..., x) float, line integrals half a turn apart: a pair of frames (y, x), or of halves of
        a full turn (angle, y, x)
    bounds : (lowest, highest) column [pixels]
    least_overlap : share of the columns that a projection and its mirrored opposite must have in common

    Notes
    -----
    opposite(c) = first(2·centre − c), so the mirrored opposite is ``first`` shifted by
    2·centre − (columns − 1). Correlation (mean and scale removed) over the shared columns, at every whole
    shift, which is every half pixel of the centre; a parabola through the peak gives the rest.
    """
    n = first.shape[-1]
    most = int((1 - least_overlap) * n)
    lowest = max(int(np.floor(2 * bounds[0])) - (n - 1), -most)
    highest = min(int(np.ceil(2 * bounds[1])) - (n - 1), most)
    shifts = np.arange(min(lowest, highest), max(lowest, highest) + 1)
    scores = _correlations(first.reshape(-1, n), opposite[..., ::-1].reshape(-1, n), shifts)
    peak = int(np.argmax(scores))
    shift = float(shifts[peak])
    if 0 < peak < scores.size - 1:
        left, top, right = scores[peak - 1 : peak + 2]
        bend = left - 2 * top + right
        shift += 0.5 * (left - right) / bend if bend < 0 else 0.0
    return float(np.clip(0.5 * (shift + n - 1), *bounds))


def _correlations(first: np.ndarray, mirrored: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Correlation of first(c + shift) with mirrored(c), (rows, x) each, over the columns that both have.

    All sums for all shifts at once: products by FFT, the rest by running sums over columns.
    """
    rows, n = first.shape
    a, b = first - first.mean(), mirrored - mirrored.mean()  # without the common level nothing cancels below
    length = scipy.fft.next_fast_len(2 * n, real=True)
    spectrum = np.zeros(length // 2 + 1, np.complex128)
    for line_a, line_b in zip(a, b, strict=True):
        spectrum += scipy.fft.rfft(line_a.astype(np.float64), length) * np.conj(
            scipy.fft.rfft(line_b.astype(np.float64), length)
        )
    products = scipy.fft.irfft(spectrum, length)[shifts]  # negative lags are at the end
    count = rows * (n - np.abs(shifts))
    start_a, start_b, width = np.maximum(shifts, 0), np.maximum(-shifts, 0), n - np.abs(shifts)
    sum_a, square_a = _window_sums(a, start_a, width)
    sum_b, square_b = _window_sums(b, start_b, width)
    variance_a = np.maximum(square_a / count - (sum_a / count) ** 2, 0)
    variance_b = np.maximum(square_b / count - (sum_b / count) ** 2, 0)
    covariance = products / count - sum_a * sum_b / count**2
    whole = np.sqrt(a.var(dtype=np.float64) * b.var(dtype=np.float64))
    scale = np.sqrt(variance_a * variance_b)
    usable = scale > 1e-12 * whole
    scores = np.where(usable, covariance / np.where(usable, scale, 1.0), -1.0)
    return scores * np.minimum(1.0, scale / max(_LEAST_CONTRAST**2 * whole, 1e-300))


def _window_sums(values: np.ndarray, start: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and sum of squares of ``values`` (rows, x) over the columns start … start + width, for each window."""
    columns = np.concatenate([[0.0], np.cumsum(values.sum(axis=0, dtype=np.float64))])
    squares = np.concatenate([[0.0], np.cumsum(np.square(values, dtype=np.float64).sum(axis=0))])
    stop = start + width
    return columns[stop] - columns[start], squares[stop] - squares[start]
