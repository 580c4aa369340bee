"""One calibration under way: from frames to figures, step by step, with a warning for each that cannot be had."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d, median_filter

from tomoforge.errors import InputError
from tomoforge.optics.edge_spread import fit_edge_spread
from tomoforge.optics.photon_transfer import (
    OUTLIER,
    TILE,
    Estimate,
    bootstrapped_ratio,
    dead_pixels,
    exceedances,
    fine_part,
    fraction,
    hot_pixels,
    pair_sums,
    patterns,
    slopes,
    streak_heights,
    tile_means,
    zinger_hits,
)

EDGE_MISFIT = 0.02  # of the step; what a fit may leave and still be the blur of a knife edge


@dataclass(frozen=True)
class CalibrationMaps:
    """light : (y, x) relative light without sample, mean 1, bad pixels filled; offsets : (y, x) dark level about its
    mean [counts]; dead, hot : flat indices of pixels.
    """

    light: np.ndarray | None = None
    offsets: np.ndarray | None = None
    dead: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    hot: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


def checked_frames(frames: np.ndarray, name: str) -> np.ndarray:
    frames = np.asarray(frames)
    if frames.ndim != 3 or frames.shape[0] < 1 or min(frames.shape[1:]) < 8:
        raise InputError(
            f"{name} must be frames (n, y, x) of at least 8 x 8 pixels, got shape {frames.shape}; "
            "a single averaged frame is frame[None]"
        )
    if frames.dtype.kind not in "uif":
        raise InputError(f"{name} must be real counts, got {frames.dtype}")
    frames = frames.astype(np.float64)
    if not np.all(np.isfinite(frames)) or frames.min() < 0:
        raise InputError(
            f"{name} must be finite counts, zero or more, got NaN, Inf or negative values; "
            "pass raw frames, neither corrected nor read as signed numbers"
        )
    return frames


def checked_progress(progress: np.ndarray | None, count: int) -> np.ndarray:
    if progress is None:
        return np.linspace(0, 1, count)
    progress = np.asarray(progress, dtype=np.float64)
    if progress.shape != (count,) or not np.all((progress >= 0) & (progress <= 1)):
        raise InputError(
            f"flat_progress must be a number from 0 to 1 for each of the {count} flats, got {progress!r}"
        )
    return progress


class CalibrationStudy:
    """One calibration under way: its steps fill ``found`` (fields of the result) and ``warnings``."""

    def __init__(
        self,
        flats: np.ndarray,
        darks: np.ndarray,
        progress: np.ndarray,
        resamples: int,
        rng: np.random.Generator,
    ) -> None:
        self.flats, self.darks, self.progress = flats, darks, progress
        self.resamples, self.rng = resamples, rng
        self.found: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.maps = CalibrationMaps()
        self.limit = np.inf  # counts at which the converter saturates
        self.step = 0.0  # of the converter [counts], 0 where frames are averages
        self.reading_variance = 0.0  # of a pixel without light, digits included [counts²]
        self.dark_map = np.zeros(flats.shape[1:])
        self.dark_hits: np.ndarray | None = None  # (n, y, x) where zingers fell
        self.flat_hits: np.ndarray | None = None

    def ratio(self, over: np.ndarray, under: np.ndarray) -> Estimate:
        return bootstrapped_ratio(over, under, self.resamples, self.rng)

    def converter(self) -> None:
        """Bits, from the largest count and the step between counts."""
        top = float(max(self.flats.max(), self.darks.max(initial=0)))
        bits = next((b for b in (8, 10, 12, 14, 16) if top <= 2**b - 1), 0)
        if bits == 0:
            raise InputError(
                f"counts must fit into 16 bits, got {top:g}; were the frames summed, or read as other numbers?"
            )
        levels = np.unique(np.concatenate([self.flats.ravel(), self.darks.ravel()]))
        if np.all(levels == np.rint(levels)):
            self.step = float(np.gcd.reduce(np.diff(levels).astype(np.int64))) if len(levels) > 1 else 1.0
            if self.step > 1 and len(levels) > 20:
                self.warnings.append(f"counts come in steps of {self.step:g}: fewer bits than {bits}, scaled")
        else:
            self.warnings.append(
                "counts are not whole numbers: averaged frames? Noise then comes out too small"
            )
        # A full converter stops short of 2^bits by the step of scaled counts.
        full = 2**bits - max(self.step, 1.0)
        at_top = float(np.mean(self.flats >= full))
        if at_top > 0:
            self.limit = full
        elif np.mean(self.flats == self.flats.max()) > 0.01:
            self.limit = float(self.flats.max())  # a plateau: clipped somewhere else
            at_top = float(np.mean(self.flats == self.limit))
        self.found |= {"bits": bits, "bits_certain": self.limit == full, "saturated_fraction": at_top}
        if at_top > 0:
            self.warnings.append(
                f"{100 * at_top:.3g} % of the flats' values are saturated at {self.limit:.0f} counts"
            )

    def bad_pixels(self) -> None:
        """Dead and hot pixels, and the mean dark."""
        shape = self.flats.shape[1:]
        hot = np.zeros(shape, bool)
        if len(self.darks):
            self._leave_out_odd_darks()
            if len(self.darks) >= 3:
                self.dark_hits = zinger_hits(self.darks)
                self.dark_map = self.darks.mean(axis=0, where=~self.dark_hits | self.dark_hits.all(axis=0))
            else:
                self.dark_map = self.darks.mean(axis=0)
            in_time = 1.4826 * float(np.median(np.abs(self.darks - np.median(self.darks, axis=0))))
            hot, excess, threshold = hot_pixels(self.dark_map, max(3 * in_time, 1.0))
            rate, height = exceedances(excess[hot], threshold, hot.size)
            self.found["hot_fraction"] = rate
            self.found["hot_counts"] = height if hot.any() else None
        light = self.flats.mean(axis=0) - self.dark_map
        if np.median(light) > 5 * np.std(self.dark_map[~hot]):
            dead = dead_pixels(np.maximum(light, 0)) & ~hot
        else:
            dead = np.all(self.flats == 0, axis=0)
        self.good = ~(dead | hot)
        self.found["dead_fraction"] = fraction(int(dead.sum()), dead.size)
        self.maps = CalibrationMaps(dead=np.flatnonzero(dead), hot=np.flatnonzero(hot))

    def _leave_out_odd_darks(self) -> None:
        """Darks whose level stands apart are no darks: afterglow, or a shutter still closing."""
        if len(self.darks) < 5:
            return
        means = self.darks.mean(axis=(1, 2))
        away = np.abs(means - np.median(means))
        noise = float(np.std(self.darks - self.darks.mean(axis=0))) / np.sqrt(self.darks[0].size)
        odd = away > OUTLIER * max(1.4826 * float(np.median(away)), noise)
        if 0 < odd.sum() <= len(odd) // 4:
            self.warnings.append(
                f"dark {', '.join(map(str, np.flatnonzero(odd)))} stands {away[odd].max():.2g} counts apart and is "
                "left out: afterglow, or a shutter still closing"
            )
            self.darks = self.darks[~odd]

    def darkness(self) -> None:
        """Offset, its pattern, and read noise."""
        if not len(self.darks):
            self.warnings.append(
                "no darks: offset and read noise, and with them all else, cannot be determined"
            )
            return
        level = self.dark_map[self.good]
        kept = np.broadcast_to(self.good, self.darks.shape)
        if self.dark_hits is not None:
            kept = kept & ~self.dark_hits
        per_frame = self.darks.mean(axis=(1, 2), where=kept)
        self.maps = replace(self.maps, offsets=np.where(self.good, self.dark_map - level.mean(), 0.0))
        noise_of_mean = 0.0
        if len(self.darks) >= 2:
            sums = pair_sums(self.darks, self.good, photonic=False)
            variance = self.ratio(sums.squares, sums.readings)
            self.reading_variance = variance.value
            noise_of_mean = variance.value / len(self.darks)
            self.found["read_noise"] = Estimate(variance.value - self.step**2 / 12, variance.error).root()
            pattern = Estimate(
                float(level.var()) - noise_of_mean, float(level.var() * np.sqrt(2 / level.size))
            )
            self.found["offset_pattern"] = pattern.root()
            error = float(np.std(per_frame, ddof=1) / np.sqrt(len(per_frame)))
        else:
            self.warnings.append("one dark only: read noise cannot be determined; gain is found without it")
            error = float(level.std() / np.sqrt(level.size))
        self.found["offset"] = Estimate(float(level.mean()), error)
        if np.mean(self.darks[:, self.good] == 0) > 1e-3:
            self.warnings.append("darks are clipped at 0: offset comes out too high and read noise too small")

    def exposed_enough(self) -> bool:
        """Whether the flats hold light to measure; sets ``signal`` and the pixels to measure on, ``use``."""
        if not len(self.darks):
            return False
        self.signal = self.flats - self.dark_map
        if len(self.flats) >= 3:
            self.flat_hits = zinger_hits(self.flats, np.maximum(self.signal.mean(axis=0), 0))
        self.use = self.good & ~(self.flats >= self.limit).any(axis=0)
        if self.flat_hits is not None:
            self.use &= ~self.flat_hits.any(axis=0)
        if self.use.sum() < max(0.5 * self.good.sum(), 32):
            self.warnings.append(
                "the flats are saturated: gain, photons, structure and drift cannot be determined; "
                "take flats with a shorter exposure"
            )
            return False
        means = self.signal[:, self.use].mean(axis=1)
        if not means.min() > 3 * np.sqrt(self.reading_variance):
            self.warnings.append(
                "at least one flat holds no light above the read noise: was the shutter closed, or darks among them?"
            )
            return False
        return True

    def noise(self) -> None:
        """Gain by photon transfer, and photons."""
        if len(self.flats) < 2:
            self.warnings.append(
                "one flat only: gain and photons cannot be determined, nor drift; give single frames, not their mean"
            )
            return
        if self.step == 0:
            self.warnings.append(
                "flats or darks are averages: gain comes out too small by the frames averaged"
            )
        gain = self._gain()
        if np.isfinite(self.limit):
            # A pixel whose noise reaches saturation is cut, not only where it was: leave it out altogether.
            mean = self.signal.mean(axis=0)
            reach = 6 * np.sqrt(np.maximum(gain.value * mean, 0) + self.reading_variance)
            clear = self.use & (mean + reach + self.dark_map < self.limit)
            if clear.sum() < 32:
                self.warnings.append(
                    "the flats' noise reaches saturation everywhere: gain comes out too small"
                )
            else:
                self.use = clear
                gain = self._gain()
        if not gain.value > 0:
            self.warnings.append(
                "flats do not vary more than darks: gain cannot be determined; are they copies?"
            )
            return
        mean = float(self.signal[:, self.good].mean())
        self.found |= {
            "gain": gain,
            "photons": Estimate(mean / gain.value, mean / gain.value**2 * gain.error),
        }

    def _gain(self) -> Estimate:
        sums = pair_sums(self.signal, self.use, photonic=True)
        self.found["noise_correlation"] = sums.correlation
        # Expected by chance: the inverse root of the pixels.
        if max(map(abs, sums.correlation)) > max(0.05, 5 / np.sqrt(self.use.sum())):
            note = (
                f"noise of neighbouring pixels is correlated ({sums.correlation[0]:.2f} along x, "
                f"{sums.correlation[1]:.2f} along y): light spreads after it is counted, "
                "gain is that of a pixel's own noise"
            )
            self.warnings = [*(w for w in self.warnings if not w.startswith("noise of neigh")), note]
        return self.ratio(sums.squares - self.reading_variance * sums.readings, sums.signals)

    def _pixel_noise(self) -> Estimate:
        """Relative variance of a pixel of one flat, 0 where it is not known."""
        gain = self.found.get("gain")
        if gain is None:
            return Estimate(0.0, 0.0)
        mean = float(self.signal[:, self.use].mean())
        return Estimate((gain.value * mean + self.reading_variance) / mean**2, gain.error / mean)

    def fixed_patterns(self) -> None:
        """Structure of the mean flat: columns, rows, grains; and the map of the light."""
        light = self.signal.mean(axis=0) / self.signal[:, self.use].mean()
        filled = np.where(self.good, light, median_filter(np.where(self.good, light, 1.0), 5))
        self.maps = replace(self.maps, light=np.maximum(filled / filled.mean(), 0))
        if len(self.flats) == 1:
            self.warnings.append("one flat only: its structure includes its noise")
        dark_noise = self.reading_variance / len(self.darks) / float(self.signal[:, self.use].mean()) ** 2
        flat_noise = self._pixel_noise() * (1 / len(self.flats))
        self.pattern = patterns(light, self.use, flat_noise.value + dark_noise, flat_noise.error)
        self.found |= {
            "beam_falloff": self.pattern.falloff,
            "column_gain": self.pattern.columns.root(),
            "beam_ripple": self.pattern.rows.root(),
            "flat_structure": self.pattern.rest.root(),
            "flat_structure_size": self.pattern.size,
        }

    def drifts(self) -> None:
        """What changes between flats: columns, tiles, the rows' position, the intensity."""
        count = len(self.flats)
        means = self.signal[:, self.use].mean(axis=1)
        if count >= 2:
            relative = means / means.mean()
            # From one frame to the next, so that a slow decay does not count.
            steps = float(np.mean(np.diff(relative) ** 2)) / 2
            spread = Estimate(steps, steps * np.sqrt(3 / count))
            noise = self._pixel_noise().value / self.use.sum()
            self.found["beam_flicker"] = Estimate(spread.value - noise, spread.error).root()
        if count < 3 or np.ptp(self.progress) == 0:
            if count >= 2:
                self.warnings.append(
                    "drift needs at least three flats at different progress: columns' drift is unknown"
                )
            return
        # Relative to its own mean in time, each pixel shows change alone; the noise stays what it was.
        change = self.signal / np.where(self.use, np.maximum(self.signal.mean(axis=0), 1e-9), 1.0)
        change = np.where(self.use, change / (means / means.mean())[:, None, None], np.nan)
        columns = self.use.any(axis=0)
        by_column = np.nanmean(change[:, :, columns], axis=1)
        slope, whole = slopes(by_column, self.progress)
        fine = slopes(np.apply_along_axis(fine_part, 1, by_column), self.progress)[1]
        every = np.zeros(len(columns))
        every[columns] = slope
        self.found |= {"column_drift": fine.root(), "column_drifts": tuple(map(float, every))}
        rows = self.use.any(axis=1)
        by_row = np.nanmean(change[:, rows], axis=2)
        row_slope = slopes(by_row, self.progress)[0]
        moved = self._motion(row_slope, rows)
        p = self.progress - self.progress.mean()
        rows_left = slopes(by_row - p[:, None] * moved, self.progress)[1]
        if min(change.shape[1:]) >= 2 * TILE:
            whole_rows = np.zeros(len(rows))
            whole_rows[rows] = row_slope
            trend = p[:, None, None] * (every[None, None, :] + whole_rows[None, :, None])
            rest = np.where(self.use, change - 1 - trend, 0.0)
            by_tile = np.stack([tile_means(frame, self.use) for frame in rest])
            tiles = slopes(by_tile, self.progress)[1]
            # A broad drift shows in the means of columns and rows too.
            parts = (tiles, Estimate(whole.value - max(fine.value, 0.0), whole.error), rows_left)
            self.found["flat_drift"] = Estimate(
                sum(part.value for part in parts), float(np.linalg.norm([part.error for part in parts]))
            ).root()

    def _motion(self, row_slope: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Shift of the rows' pattern by least squares; returns the change of each row that it explains."""
        # A pattern that moves by s changes by −s times its gradient.
        profile = gaussian_filter1d(self.pattern.row_profile, 1.0)
        gradient = (np.gradient(profile) / profile)[rows]
        power = float(gradient @ gradient)
        if power == 0:
            return np.zeros(len(row_slope))
        shift = -float(row_slope @ gradient) / power
        error = float(np.sqrt(np.mean((row_slope + shift * gradient) ** 2) / power))
        if abs(shift) < 3 * error:
            shift = 0.0
        self.found["beam_motion"] = Estimate(abs(shift), error)
        return -shift * gradient

    def zingers(self) -> None:
        """Rate and height of hits, from the darks where there are three, else from the flats."""
        gain = self.found.get("gain")
        if self.dark_hits is not None and self.reading_variance > 0:
            frames, hits, sigma = self.darks, self.dark_hits, float(np.sqrt(self.reading_variance))
        elif self.flat_hits is not None and gain is not None:
            level = float(np.median(self.signal[:, self.use]))
            frames, hits, sigma = self.signal, self.flat_hits, float(np.sqrt(gain.value * level))
        else:
            return
        heights = streak_heights(frames, hits & self.good)
        rate, height = exceedances(heights, OUTLIER * sigma, len(frames))
        self.found["zinger_rate"] = rate
        self.found["zinger_counts"] = height if len(heights) else None

    def edge(self, image: np.ndarray) -> None:
        """Point spread from an edge."""
        spread = fit_edge_spread(image)
        if spread.misfit > EDGE_MISFIT:
            self.warnings.append(
                f"the edge is no blurred step (fit {spread.sigma:.2f} pixels, {100 * spread.misfit:.0f} % of the step "
                "unexplained): fringes, a tail or more than one edge; the point spread cannot be determined"
            )
        else:
            self.found["psf_sigma"] = Estimate(spread.sigma, spread.error)
