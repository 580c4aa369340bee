"""What series of equal frames say of noise, patterns, drifts and bad pixels: the statistics behind a calibration."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, median_filter
from scipy.ndimage import label as connected

OUTLIER = 8.0  # standard deviations; one false alarm in 10¹⁵ Gaussian draws
TILE = 16  # pixels; drifts are smooth on this scale, noise is not
FINE = 3.0  # pixels; rms width of the filter that parts columns' gains from broad light
BANDS = 8  # of rows, resampled with the pairs, so that a single pair has a spread too


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error, in the same unit."""

    value: float
    error: float

    def __mul__(self, factor: float) -> "Estimate":
        return Estimate(self.value * factor, self.error * abs(factor))

    def root(self) -> "Estimate":
        """Square root, 0 where noise made the value negative; the error there is of the root of the error."""
        if self.value <= self.error:
            return Estimate(float(np.sqrt(max(self.value, 0.0))), float(np.sqrt(self.error)))
        return Estimate(float(np.sqrt(self.value)), float(self.error / (2 * np.sqrt(self.value))))


def bootstrapped_ratio(
    over: np.ndarray, under: np.ndarray, resamples: int, rng: np.random.Generator
) -> Estimate:
    """Σ over / Σ under, both (unit,), with the spread of the ratio when units are drawn anew."""
    drawn = rng.integers(0, len(over), (resamples, len(over)))
    spread = np.std(over[drawn].sum(axis=1) / under[drawn].sum(axis=1), ddof=1)
    return Estimate(float(over.sum() / under.sum()), float(spread))


def fraction(count: int, total: int) -> Estimate:
    """A share of pixels with its binomial error (at least that of one pixel)."""
    return Estimate(count / total, float(np.sqrt(max(count, 1))) / total)


def flatten(difference: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, float]:
    """A difference of frames (y, x) less the means of its rows, columns and tiles over ``mask``; zero outside.

    Returns the rest, and the share of white noise's variance that is left in it.
    """
    rest = np.where(mask, difference, 0.0)
    share = 1.0
    rows, columns = rest.shape
    for axis, n in ((0, rows), (1, columns)):
        rest = rest - rest.sum(axis, keepdims=True) / np.maximum(mask.sum(axis, keepdims=True), 1)
        rest = np.where(mask, rest, 0.0)
        share *= 1 - 1 / n
    if min(rows, columns) >= 2 * TILE:
        tile = _tiles((rows, columns))
        members = np.bincount(tile, mask.ravel())
        mean = np.bincount(tile, rest.ravel()) / np.maximum(members, 1)
        rest = np.where(mask, rest - mean[tile].reshape(rest.shape), 0.0)
        share *= 1 - np.count_nonzero(members) / mask.sum()
    return rest, share


def _tiles(shape: tuple[int, int]) -> np.ndarray:
    """Number of the tile of every pixel, flat."""
    y, x = np.arange(shape[0]) // TILE, np.arange(shape[1]) // TILE
    return (y[:, None] * (x[-1] + 1) + x).ravel()


@dataclass(frozen=True)
class PairSums:
    """Sums over bands of pairs of frames: squared differences, mean signals (with their weight), pixels (unit,)."""

    squares: np.ndarray
    signals: np.ndarray
    readings: np.ndarray
    correlation: tuple[float, float]


def pair_sums(frames: np.ndarray, mask: np.ndarray, photonic: bool) -> PairSums:
    """Statistics of frames 0 − 1, 2 − 3, … over the pixels of ``mask`` (y, x).

    frames : (n, y, x) counts, less the dark level if ``photonic``: then the second of a pair is scaled to the mean
    of the first. The expectation of ``squares`` is gain·signals + variance of a reading·readings.
    """
    squares, signals, readings, correlations = [], [], [], []
    pairs = [(n, n + 1) for n in range(0, len(frames) - 1, 2)]
    if len(frames) == 3:  # an odd last frame is worth using only here
        pairs.append((1, 2))
    for first, second in pairs:
        a, b = frames[first], frames[second]
        scale = float(a[mask].mean() / b[mask].mean()) if photonic else 1.0
        level = np.maximum((a + scale * b) / 2, 0)
        difference, use = a - scale * b, mask
        unit = np.sqrt(np.maximum(level, 1e-3 * level[mask].mean())) if photonic else np.ones_like(a)
        rest, _ = flatten(difference, use)
        relative = np.abs(rest) / unit
        use = mask & (relative < OUTLIER * 1.4826 * max(float(np.median(relative[mask])), 1e-9))
        rest, share = flatten(difference, use)
        for band in np.array_split(np.arange(len(rest)), min(BANDS, len(rest))):
            squares.append((rest[band] ** 2).sum() / share)
            signals.append((1 + scale) * level[band][use[band]].sum())
            readings.append((1 + scale**2) * use[band].sum())
        white = rest / unit
        correlations.append([_neighbours(white, use, axis) for axis in (1, 0)])
    along_x, along_y = np.mean(correlations, axis=0)
    return PairSums(
        np.array(squares), np.array(signals), np.array(readings), (float(along_x), float(along_y))
    )


def _neighbours(rest: np.ndarray, use: np.ndarray, axis: int) -> float:
    """Correlation of neighbouring pixels along ``axis``."""
    low = [slice(None)] * 2
    high = [slice(None)] * 2
    low[axis], high[axis] = slice(None, -1), slice(1, None)
    both = use[tuple(low)] & use[tuple(high)]
    variance = float(np.mean(rest[use] ** 2))
    return (
        float(np.mean(rest[tuple(low)][both] * rest[tuple(high)][both]) / variance) if variance > 0 else 0.0
    )


def dead_pixels(light: np.ndarray) -> np.ndarray:
    """Pixels (y, x) with less than a fifth of the light of their neighbours."""
    return light < 0.2 * median_filter(light, 5, mode="reflect")


def hot_pixels(dark: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Pixels of a mean dark (y, x) that stick out: mask, excess over the neighbours, threshold on it [counts].

    least : excess below which a pixel passes as part of the dark's pattern, about what a single frame shows [counts].
    """
    excess = dark - median_filter(dark, 5, mode="reflect")
    threshold = max(OUTLIER * 1.4826 * float(np.median(np.abs(excess - np.median(excess)))), least)
    return excess > threshold, excess, threshold


def exceedances(heights: np.ndarray, threshold: float, trials: float) -> tuple[Estimate, Estimate]:
    """Rate per trial and mean of exponential heights of which only those above ``threshold`` are seen."""
    count = len(heights)
    if count == 0:
        return Estimate(0.0, 1 / trials), Estimate(0.0, 0.0)
    seen = Estimate(count / trials, float(np.sqrt(count) / trials))
    middle = float(np.mean(heights))
    mean = middle - threshold
    if (
        mean < threshold
    ):  # only the tail is seen, of heights that may well not be exponential: report what is seen
        return seen, Estimate(middle, middle / float(np.sqrt(count)))
    # Heights without memory: what lies above a threshold exceeds it by the whole mean.
    return seen * float(np.exp(threshold / mean)), Estimate(mean, mean / float(np.sqrt(count)))


def zinger_hits(frames: np.ndarray, level: np.ndarray | None = None) -> np.ndarray:
    """Pixels of each frame that stick out of the pixel's median in time: (n, y, x) bool.

    frames : (n, y, x), n ≥ 3; level : (y, x) light that the noise's variance grows with, None where it does not.
    """
    excess = frames - np.median(frames, axis=0)
    if level is not None:
        excess /= np.sqrt(np.maximum(level, 1e-3 * level.mean()))
    # Half of the deviations from the median of few frames are small by construction: n/(n − 1) makes up for most.
    n = len(frames)
    sigma = 1.4826 * float(np.median(np.abs(excess[excess != 0]))) if np.any(excess) else np.inf
    return excess > OUTLIER * sigma * np.sqrt(n / (n - 1))


def streak_heights(frames: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Height over the median in time [counts] of every connected group of ``hits``."""
    middle = np.median(frames, axis=0)
    heights: list[float] = []
    for frame, hit in zip(frames, hits, strict=True):
        marked, count = connected(hit, structure=np.ones((3, 3)))
        where = np.flatnonzero(marked)
        group, excess = marked.ravel()[where], (frame - middle).ravel()[where]
        heights.extend(float(np.median(excess[group == n])) for n in range(1, count + 1))
    return np.array(heights)


def slopes(
    series: np.ndarray, progress: np.ndarray, noise: float | None = None
) -> tuple[np.ndarray, Estimate]:
    """Straight lines through ``series`` (n, k) over ``progress`` (n,): change from 0 to 1 (k,), and its variance.

    The variance over k is that of the true slopes: what noise gives, by the residuals, is taken off.
    """
    p = progress - progress.mean()
    power = float(p @ p)
    slope = p @ series / power
    residual = series - series.mean(axis=0) - p[:, None] * slope
    per_point = (residual**2).sum() / ((len(p) - 2) * series.shape[1]) if noise is None else noise
    k = series.shape[1]
    total = float(np.mean(slope**2))
    from_noise = float(per_point) / power
    error = np.sqrt(2 / k) * np.hypot(total, from_noise / np.sqrt(len(p) - 2))
    return slope, Estimate(total - from_noise, float(error))


def tile_means(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Means over tiles that are at least half good: (tile,)."""
    tile = _tiles((frame.shape[0], frame.shape[1]))
    members = np.bincount(tile, mask.ravel())
    full = members >= 0.5 * np.bincount(tile)
    return (np.bincount(tile, np.where(mask, frame, 0).ravel()) / np.maximum(members, 1))[full]


@dataclass(frozen=True)
class Patterns:
    """A flat's pattern as variances: fine columns, rows, the rest; size : rms width of the rest's grains [pixels];
    falloff : part of the light lost at the sides.
    """

    falloff: Estimate
    columns: Estimate
    rows: Estimate
    rest: Estimate
    size: float | None
    row_profile: np.ndarray
    column_profile: np.ndarray


def patterns(light: np.ndarray, mask: np.ndarray, noise: float, noise_error: float) -> Patterns:
    """Split relative light (y, x), mean 1, into columns, rows and rest.

    noise : variance of a pixel, taken off; noise_error : of that.
    """
    height, width = light.shape
    seen = np.where(mask, light, np.nan)
    with_any = mask.any(axis=0), mask.any(axis=1)
    column = np.ones(width)
    row = np.ones(height)
    column[with_any[0]] = np.nanmean(seen[:, with_any[0]], axis=0)
    row[with_any[1]] = np.nanmean(seen[with_any[1]], axis=1)
    rest = np.where(mask, light / (row[:, None] * column) * light[mask].mean() - 1, 0.0)
    falloff, parabola = _falloff(column)
    # Gains of columns are independent of each other; what is broad along x is light.
    fine = fine_part(column)
    columns_variance, columns_noise = float(np.mean(fine**2)), noise / height
    rows_variance, rest_variance = float(row.var()), float((rest[mask] ** 2).mean()) - noise
    size = _grain_size(rest, mask, rest_variance)
    rest_error = float(np.sqrt(2 / mask.sum()) * (rest[mask] ** 2).mean())
    rows_value, from_grains = rows_variance - noise / width, 0.0
    if size:
        # Grains do not average out along a row or column: that part of their variance sits in the profiles.
        in_rows, in_columns = (min(2 * np.sqrt(np.pi) * size / n, 0.5) for n in (width, height))
        whole = rest_variance / ((1 - in_rows) * (1 - in_columns))
        rows_value -= in_rows * whole
        from_grains = in_columns * whole
        rest_variance = whole
        # So many independent grains are all that the frame shows.
        rest_error = float(np.sqrt(2 * max(4 * np.pi * size**2, 1) / mask.sum()) * whole)
    columns_value = columns_variance - columns_noise - from_grains * _fine_share(size or 0.0, width)
    broad = max(float((column / parabola).var()) - columns_noise - from_grains - max(columns_value, 0.0), 0.0)
    columns = Estimate(columns_value, float(np.sqrt(2 / width) * columns_variance))
    return Patterns(
        falloff,
        columns,
        Estimate(rows_value, float(np.sqrt(2 / height) * rows_variance)),
        Estimate(rest_variance + broad, float(np.hypot(rest_error, noise_error))),
        size,
        row,
        column,
    )


def _falloff(column: np.ndarray) -> tuple[Estimate, np.ndarray]:
    """Least squares of a·(1 − b u²) + c u through a profile, u from -1 to 1: b with its error, and the fit."""
    u = np.linspace(-1, 1, len(column))
    design = np.stack([np.ones_like(u), -(u**2), u], axis=1)
    fit, *_ = np.linalg.lstsq(design, column, rcond=None)
    rest = column - design @ fit
    covariance = np.linalg.inv(design.T @ design) * float(rest @ rest) / (len(u) - 3)
    # Below zero the light would be brighter at the sides: left to the structure.
    if fit[1] <= 2 * np.sqrt(covariance[1, 1]):
        return Estimate(0.0, float(np.sqrt(covariance[1, 1]))), np.ones_like(column)
    return Estimate(float(fit[1] / fit[0]), float(np.sqrt(covariance[1, 1]) / fit[0])), design @ fit


def fine_part(profile: np.ndarray) -> np.ndarray:
    """A profile less its smooth part, scaled so that independent values keep their variance."""
    rest = profile - gaussian_filter1d(profile, FINE, mode="mirror")
    impulse = np.zeros(12 * int(FINE) + 1)
    impulse[len(impulse) // 2] = 1
    kept = impulse - gaussian_filter1d(impulse, FINE)
    return rest / np.sqrt(float(kept @ kept))


def _fine_share(size: float, width: int) -> float:
    """Part of the variance of grains of rms width ``size`` that ``fine_part`` leaves."""
    f = np.fft.rfftfreq(width)
    power = np.exp(-((2 * np.pi * size * f) ** 2))
    passed = (1 - np.exp(-2 * (np.pi * FINE * f) ** 2)) ** 2
    return float((power * passed).sum() / power.sum() / passed.mean())


def _grain_size(rest: np.ndarray, mask: np.ndarray, variance: float) -> float | None:
    """rms width s of grains whose autocorrelation is exp(−d²/4s²), from where it halves; None if there are none."""
    if variance <= 0:
        return None
    correlation = []
    for lag in range(1, max(min(rest.shape) // 4, 2)):
        values = []
        for a, b in (
            ((slice(None), slice(None, -lag)), (slice(None), slice(lag, None))),
            ((slice(None, -lag), slice(None)), (slice(lag, None), slice(None))),
        ):
            both = mask[a] & mask[b]
            values.append(np.sum(rest[a] * rest[b]) / max(both.sum(), 1))
        correlation.append(float(np.mean(values)) / variance)
        if correlation[-1] < 0.5:
            break
    if correlation[0] < 0.2:
        return 0.0  # white
    at = [1.0, *correlation]
    below = int(np.argmax(np.array(at) < 0.5))
    if below == 0:
        return None  # broader than the frame can say
    halved = below - 1 + (at[below - 1] - 0.5) / (at[below - 1] - at[below])
    return float(halved / (2 * np.sqrt(np.log(2))))
