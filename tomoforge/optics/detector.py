"""From intensity to counts: blur, pixel integration, photons, gains that drift, offset, noise, digits.

Order: source blur and PSF → pixel integration → response of the scintillator → Poisson → gain per column →
dark offset (and hot pixels, zingers) → read noise → quantisation → dead pixels. Each frame draws from a generator
of its own, and each component of a frame from a child of that, so that batching, workers and threads never change
a pixel and switching one component off shifts no other draw.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.fft
from scipy.ndimage import gaussian_filter1d

from tomoforge.backend import to_host
from tomoforge.errors import InputError
from tomoforge.optics.detector_kernels import amplify, convolve_and_bin, count_photons, quantise
from tomoforge.seeds import component_rng

BLOCK_PIXELS = 2**17  # of a frame, drawn from one child generator; part of what a seed means

# Below this many samples, the sampled Gaussian is no Gaussian any more; three taps with the exact second moment are.
NARROW_SIGMA = 0.7


@dataclass(frozen=True)
class Detector:
    """An area detector behind a scintillator. What is 0 is off.

    Converter: gain [counts a photon]; offset : dark level [counts]; read_noise : rms [counts]; bits : of the
    converter, at which it saturates; offset_pattern : rms of the dark level over pixels [counts], fixed.

    Point spread: psf_sigma : Gaussian, rms [pixels]; psf_tail : part of the light in a wide tail
    ∝ (1 + r²/a²)^(−3/2); psf_tail_radius : its a [pixels].

    Columns: column_gain_sigma : rms of the fixed gain pattern; column_drift_sigma : rms of the gain change of a
    column over the whole scan, which flats taken at the start cannot cancel and which shows as rings.

    Beam: beam_ripple : rms of the horizontal stripes of a multilayer; beam_falloff : part of the light lost towards
    the left and right side of the frame, as a parabola; beam_motion : rms of how far they move
    over the scan [pixels]; beam_flicker : rms of the intensity from frame to frame.

    Response in two dimensions, fixed: flat_structure : rms; flat_structure_size : rms width of its grains [pixels];
    flat_drift : rms of a broad relative change by the end of the scan; scintillator_defects : mean number of spots
    and scratches; defect_strength : rms of their relative change of response; defect_size : rms width [pixels];
    defect_drift : rms of the relative change of their depth by the end of the scan.

    Pixels: dead_fraction : of pixels that always give 0; hot_fraction : of pixels with a dark current;
    hot_counts : mean of it a frame [counts]; zinger_rate : mean number of zingers in a frame;
    zinger_counts : their mean height [counts]; zinger_length : mean length of their streak [pixels], 1 a point.

    Raises InputError for values out of range.
    """

    gain: float = 2.0
    offset: float = 100.0
    read_noise: float = 3.0
    bits: int = 16
    psf_sigma: float = 0.4
    column_gain_sigma: float = 0.02
    column_drift_sigma: float = 0.0005
    beam_ripple: float = 0.05
    offset_pattern: float = 0.0
    psf_tail: float = 0.0
    psf_tail_radius: float = 10.0
    beam_falloff: float = 0.0
    beam_motion: float = 0.0
    beam_flicker: float = 0.0
    flat_structure: float = 0.0
    flat_structure_size: float = 6.0
    flat_drift: float = 0.0
    scintillator_defects: float = 0.0
    defect_strength: float = 0.1
    defect_size: float = 3.0
    defect_drift: float = 0.0
    dead_fraction: float = 0.0
    hot_fraction: float = 0.0
    hot_counts: float = 500.0
    zinger_rate: float = 0.0
    zinger_counts: float = 3000.0
    zinger_length: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.gain) and self.gain > 0):
            raise InputError(f"gain must be positive counts a photon, got {self.gain!r}")
        if not 8 <= self.bits <= 16 or self.bits != int(self.bits):
            raise InputError(f"bits must be a whole number from 8 to 16, got {self.bits!r}")
        for name in set(self.__dataclass_fields__) - {"gain", "bits"}:
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"{name} must be zero or positive, got {value!r}")
        for name in ("psf_tail", "dead_fraction", "hot_fraction", "beam_falloff"):
            if getattr(self, name) > 1:
                raise InputError(f"{name} must be a fraction from 0 to 1, got {getattr(self, name)!r}")
        for name in ("psf_tail_radius", "zinger_length"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1 pixel, got {getattr(self, name)!r}")


def _no_pixels() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class DetectorState:
    """What one scan has drawn: the columns' gains and drifts, the illumination, and what is wrong with pixels.

    column_gain, column_drift : (x,); illumination : (y, x), mean 1; beam_shift : by the end of the scan, towards
    larger rows [pixels]; response : (y, x) relative light yield, or None for 1; response_drift : (y, x) its relative
    change by the end, or None; offsets : (y, x) dark level above the detector's [counts], or None;
    dead, hot : flat indices of pixels; hot_counts : mean dark current of the hot ones in a frame [counts].
    """

    column_gain: np.ndarray
    column_drift: np.ndarray
    illumination: np.ndarray
    beam_shift: float = 0.0
    response: np.ndarray | None = None
    response_drift: np.ndarray | None = None
    offsets: np.ndarray | None = None
    dead: np.ndarray = field(default_factory=_no_pixels)
    hot: np.ndarray = field(default_factory=_no_pixels)
    hot_counts: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def gains(self, progress: float) -> np.ndarray:
        """Gain of each column at ``progress`` through the scan (0 at its start, when flats are taken): (x,)."""
        return self.column_gain * (1 + progress * self.column_drift)

    def light(self, progress: float, rows: slice = slice(None)) -> np.ndarray:
        """Relative light on ``rows`` with no sample, illumination times response: (y, x), mean about 1."""
        light = self.illumination[rows] if not self.beam_shift * progress else self._moved(progress, rows)
        if self.response is not None:
            light = light * self.response[rows]
        if self.response_drift is not None and progress:
            light = light * (1 + np.float32(progress) * self.response_drift[rows])
        return light

    def _moved(self, progress: float, rows: slice) -> np.ndarray:
        last = len(self.illumination) - 1
        position = np.clip(np.arange(last + 1)[rows] - progress * self.beam_shift, 0, last)
        low = np.minimum(position.astype(int), max(last - 1, 0))
        weight = (position - low).astype(self.illumination.dtype)[:, None]
        return self.illumination[low] * (1 - weight) + self.illumination[np.minimum(low + 1, last)] * weight


@lru_cache(maxsize=2)  # batches of one scan ask for the same state again and again
def draw_detector_state(detector: Detector, shape: tuple[int, int], seed: int) -> DetectorState:
    """The fixed pattern of one scan on a detector of ``shape`` (y, x). Its arrays are read-only."""
    rows, columns = shape
    if rows < 1 or columns < 1:
        raise InputError(f"shape must be at least one row and one column of pixels, got {shape!r}")
    gain = 1 + detector.column_gain_sigma * component_rng(seed, "column_gain").standard_normal(columns)
    drift = detector.column_drift_sigma * component_rng(seed, "column_drift").standard_normal(columns)
    response, response_drift = _draw_response(detector, shape, seed)
    offsets = None
    if detector.offset_pattern > 0:
        pattern = component_rng(seed, "offset_pattern").standard_normal(shape, dtype=np.float32)
        offsets = np.float32(detector.offset_pattern) * pattern
    hot = _draw_pixels(detector.hot_fraction, shape, seed, "hot_pixels")
    state = DetectorState(
        column_gain=np.clip(gain, 0.1, None),
        column_drift=drift,
        illumination=_draw_illumination(detector, shape, seed),
        beam_shift=detector.beam_motion * float(component_rng(seed, "beam_motion").standard_normal()),
        response=response,
        response_drift=response_drift,
        offsets=offsets,
        dead=_draw_pixels(detector.dead_fraction, shape, seed, "dead_pixels"),
        hot=hot,
        hot_counts=detector.hot_counts * component_rng(seed, "hot_counts").exponential(size=len(hot)),
    )
    for value in vars(state).values():
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    return state


def _draw_illumination(detector: Detector, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Horizontal stripes, broad and narrow, of a multilayer, times a beam that is brightest in the middle."""
    rows, columns = shape
    rng = component_rng(seed, "illumination")
    ripple = sum(
        gaussian_filter1d(rng.standard_normal(rows), width, mode="reflect") * np.sqrt(width)
        for width in (rows / 8, rows / 40)
    )
    spread = float(np.std(ripple))
    stripes = np.ones(rows)
    if spread > 0:
        stripes = np.clip(1 + detector.beam_ripple * (ripple - np.mean(ripple)) / spread, 0.1, None)
    across = 1 - detector.beam_falloff * np.linspace(-1, 1, columns) ** 2 if columns > 1 else np.ones(1)
    return np.outer(stripes / stripes.mean(), across / across.mean()).astype(np.float32)


def _draw_pixels(fraction: float, shape: tuple[int, int], seed: int, component: str) -> np.ndarray:
    """Flat indices of each pixel taken with probability ``fraction``."""
    if fraction == 0:
        return _no_pixels()
    return np.flatnonzero(component_rng(seed, component).random(shape) < fraction)


def _smooth_noise(shape: tuple[int, int], width: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of correlation width ``width`` [pixels], mean 0 and rms 1 over the frame: (y, x) float32."""
    # By Fourier transform: broad widths would take the direct filter seconds. It wraps around, which nobody sees.
    rows, columns = (
        np.exp(-2 * (np.pi * width * f(n)) ** 2)
        for n, f in zip(shape, (np.fft.fftfreq, np.fft.rfftfreq), strict=True)
    )
    spectrum = scipy.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    spectrum *= (rows[:, None] * columns).astype(np.float32)
    spectrum[0, 0] = 0
    noise = scipy.fft.irfft2(spectrum, s=shape)
    spread = float(noise.std())
    return noise / np.float32(spread) if spread > 0 else np.zeros(shape, np.float32)


def _draw_response(
    detector: Detector, shape: tuple[int, int], seed: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Relative light yield of every pixel and its relative change by the end of the scan; None for none."""
    response = drift = None
    if detector.flat_structure > 0:
        noise = _smooth_noise(shape, detector.flat_structure_size, component_rng(seed, "flat_structure"))
        response = np.clip(1 + np.float32(detector.flat_structure) * noise, 0.05, None)
    if detector.flat_drift > 0:
        drift = np.float32(detector.flat_drift) * _smooth_noise(
            shape, max(shape) / 8, component_rng(seed, "flat_drift")
        )
    if detector.scintillator_defects > 0:
        change, change_drift = _draw_defects(detector, shape, seed)
        defects = np.clip(1 + change, 0.05, None)
        response = defects if response is None else response * defects
        if detector.defect_drift > 0:
            moved = change_drift / defects
            drift = moved if drift is None else drift + moved
    return response, drift


def _draw_defects(detector: Detector, shape: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Relative change of response by spots and (one in four) scratches, and how much that changes by the end."""
    rng = component_rng(seed, "scintillator_defects")
    change, change_drift = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    number = rng.poisson(detector.scintillator_defects)
    position = rng.random((number, 2)) * shape
    strength = detector.defect_strength * rng.standard_normal(number)
    width = detector.defect_size * rng.uniform(0.5, 1.5, number)
    length = np.where(rng.random(number) < 0.25, 20.0, 0.0) * width
    angle = rng.uniform(0, np.pi, number)
    drift = detector.defect_drift * component_rng(seed, "defect_drift").standard_normal(number)
    for n in range(number):
        reach = 4 * width[n] + length[n] / 2
        low = np.maximum(np.floor(position[n] - reach), 0).astype(int)
        high = np.minimum(np.ceil(position[n] + reach) + 1, shape).astype(int)
        y, x = np.ogrid[low[0] : high[0], low[1] : high[1]]
        along = (x - position[n, 1]) * np.cos(angle[n]) + (y - position[n, 0]) * np.sin(angle[n])
        across = (y - position[n, 0]) * np.cos(angle[n]) - (x - position[n, 1]) * np.sin(angle[n])
        beyond = np.maximum(np.abs(along) - length[n] / 2, 0)
        profile = strength[n] * np.exp(-(beyond**2 + across**2) / (2 * width[n] ** 2))
        change[low[0] : high[0], low[1] : high[1]] += profile
        change_drift[low[0] : high[0], low[1] : high[1]] += drift[n] * profile
    return change, change_drift


def blur_and_bin(
    intensity: np.ndarray,
    oversampling: int,
    sigma_pixels: float,
    *,
    tail: float = 0.0,
    tail_radius: float = 10.0,
    threads: int = 1,
) -> np.ndarray:
    """Blur by the point spread and average ``oversampling``² samples into each pixel.

    intensity : (y, x) real; sigma_pixels : of the Gaussian, source and PSF together [pixels]; tail : part of the
    light spread ∝ (1 + r²/tail_radius²)^(−3/2), tail_radius in pixels. Beyond the edge the edge repeats.

    Returns (y, x) of the same dtype, smaller by ``oversampling``; samples that fill no pixel are left out.

    Notes: the transfer function is exp(−2π²σ²f²)·sinc(f) along each axis, with the sum (1 − tail)·… + tail·exp(−2π·
    tail_radius·|f|). With few samples in σ (under 0.7) it is the nearest that three taps can do: right in σ², and
    higher than the Gaussian at high frequencies.
    """
    if oversampling < 1 or min(intensity.shape) < oversampling:
        raise InputError(
            f"oversampling must be from 1 to the samples of the image {intensity.shape}, got {oversampling!r}"
        )
    if not (np.isfinite(sigma_pixels) and sigma_pixels >= 0):
        raise InputError(f"sigma_pixels must be zero or positive, got {sigma_pixels!r}")
    taps = np.convolve(gaussian_taps(sigma_pixels * oversampling), np.full(oversampling, 1 / oversampling))
    rows, columns = (n // oversampling for n in intensity.shape)
    intensity = np.ascontiguousarray(intensity)
    if intensity.dtype not in (np.float32, np.float64):
        intensity = intensity.astype(np.float64)
    out = np.empty((rows, columns), intensity.dtype)
    taps = taps.astype(intensity.dtype)
    edges = np.linspace(0, rows, max(threads, 1) + 1).astype(int)
    _each(
        lambda part: convolve_and_bin(intensity, taps, oversampling, part[0], part[1], out),
        list(pairwise(edges)),
        threads,
    )
    return _add_tail(out, tail, tail_radius) if tail > 0 else out


def _each(work: Any, parts: list, threads: int) -> None:
    """Run ``work`` on each part, in threads where more than one is asked for."""
    if threads > 1 and len(parts) > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, parts))
    else:
        for part in parts:
            work(part)


def gaussian_taps(sigma: float) -> np.ndarray:
    """Weights of a Gaussian of ``sigma`` samples, sum 1."""
    if sigma < NARROW_SIGMA:
        return np.array([sigma**2 / 2, 1 - sigma**2, sigma**2 / 2]) if sigma > 0 else np.ones(1)
    reach = int(4 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return taps / taps.sum()


def _add_tail(image: np.ndarray, tail: float, radius: float) -> np.ndarray:
    """Spread ``tail`` of the light by the kernel whose transform is exp(−2π·radius·|f|)."""
    # The tail falls as 1/r²: what lies beyond half a frame is light from outside, which the edge stands for.
    margins = [(n // 2, n // 2) for n in image.shape]
    padded = np.pad(image, margins, mode="edge")
    sizes = [scipy.fft.next_fast_len(n, real=True) for n in padded.shape]
    padded = np.pad(padded, [(0, size - n) for size, n in zip(sizes, padded.shape, strict=True)], mode="edge")
    frequency = np.hypot(np.fft.fftfreq(sizes[0])[:, None], np.fft.rfftfreq(sizes[1])[None, :])
    transfer = np.exp(-2 * np.pi * radius * frequency).astype(image.dtype)
    spread = scipy.fft.irfft2(scipy.fft.rfft2(padded) * transfer, s=sizes)
    (top, _), (left, _) = margins
    spread = spread[top : top + image.shape[0], left : left + image.shape[1]]
    # Truncating the kernel at the grid's Nyquist frequency leaves ripples of exp(−π·radius): no light is negative.
    return np.maximum((1 - tail) * image + tail * spread, 0).astype(image.dtype)


def expose(
    transmission: np.ndarray | float,
    photons: float,
    detector: Detector,
    state: DetectorState,
    progress: float,
    rng: np.random.Generator,
    *,
    threads: int = 1,
) -> np.ndarray:
    """Counts of one frame.

    transmission : (y, x) intensity over the incident one, already blurred and binned, 1 for a flat, 0 for a
    dark; photons : mean number a pixel in the open beam; progress : 0…1 through the scan; rng : of this frame
    alone; threads : that share the frame, which does not change a count.

    Returns (y, x) uint16.

    Raises InputError for a transmission of another shape than the state, below 0 or not finite, and for photons
    below 0.

    Notes: means under 64 photons use numpy's exact sampler, larger ones an asymptotic quantile of a normal deviate
    whose distribution differs from Poisson's by less than 3e-6 in total variation.
    """
    shape = state.illumination.shape
    if not (np.isfinite(photons) and photons >= 0):
        raise InputError(f"photons must be zero or a positive number a pixel, got {photons!r}")
    if not np.isfinite(progress):
        raise InputError(f"progress must be a number from 0 to 1 through the scan, got {progress!r}")
    light = to_host(transmission)
    if light.ndim and light.shape != shape:
        raise InputError(
            f"transmission must be (y, x) of the detector's state {shape}, got {light.shape}; "
            "was the state drawn for another shape?"
        )
    # Band-limited propagation may leave the dark side of an edge a little below zero; that is no light.
    if not (np.min(light) > -1e-3 and np.max(light) < np.inf):
        raise InputError(f"transmission must be finite and not negative, got {np.min(light)}…{np.max(light)}")
    flicker_rng, zinger_rng, hot_rng, block_rng = rng.spawn(4)
    flicker = max(1 + detector.beam_flicker * float(flicker_rng.standard_normal()), 0.01)
    where, height = _stray_counts(detector, state, zinger_rng, hot_rng)
    gains = (detector.gain * state.gains(progress)).astype(np.float32)
    out = np.empty(shape, np.uint16)
    step = max(BLOCK_PIXELS // shape[1], 1)
    starts = range(0, shape[0], step)
    children = block_rng.spawn(3 * len(starts))

    def expose_rows(block: int) -> None:
        rows = slice(starts[block], min(starts[block] + step, shape[0]))
        mean = state.light(progress, rows) * np.float32(photons * flicker)
        mean = mean * (light[rows] if light.ndim else light)
        counts = _draw_photons(mean, *children[3 * block : 3 * block + 2])
        noise = children[3 * block + 2].standard_normal(
            counts.shape if detector.read_noise > 0 else (1, 1), dtype=np.float32
        )
        amplify(counts, gains, detector.offset, np.broadcast_to(noise, counts.shape), detector.read_noise)
        if state.offsets is not None:
            counts += state.offsets[rows]
        if len(where):
            first, last = rows.start * shape[1], rows.stop * shape[1]
            here = (where >= first) & (where < last)
            np.add.at(counts.reshape(-1), where[here] - first, height[here])
        quantise(counts, np.float32(2**detector.bits - 1), out[rows])

    _each(expose_rows, list(range(len(starts))), threads)
    out.reshape(-1)[state.dead] = 0
    return out


def _draw_photons(
    mean: np.ndarray, normal_rng: np.random.Generator, few_rng: np.random.Generator
) -> np.ndarray:
    """Photon counts of ``mean`` (y, x), float32 below 2²⁴ and float64 above: (y, x)."""
    # A float32 holds every whole number up to 2²⁴.
    counts: np.ndarray = np.empty(mean.shape, np.float32 if mean.max() < 1.6e7 else np.float64)
    if not mean.max() > 0:
        counts[:] = 0
        return counts
    normal = normal_rng.standard_normal(mean.shape, dtype=np.float32)
    if count_photons(mean, normal, counts):
        few = counts < 0
        counts[few] = few_rng.poisson(mean[few])
    return counts


def _stray_counts(
    detector: Detector, state: DetectorState, zinger_rng: np.random.Generator, hot_rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices and heights [counts] of what zingers and hot pixels add to one frame."""
    rows, columns = state.illumination.shape
    where, height = _draw_zingers(detector, (rows, columns), zinger_rng)
    if len(state.hot):
        current = hot_rng.poisson(state.hot_counts / detector.gain) * detector.gain
        where, height = np.concatenate([where, state.hot]), np.concatenate([height, current])
    return where, height


def _draw_zingers(
    detector: Detector, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Hits on the sensor by stray quanta: points or short streaks of one height, exponentially distributed."""
    number = rng.poisson(detector.zinger_rate) if detector.zinger_rate > 0 else 0
    if number == 0:
        return _no_pixels(), np.zeros(0)
    start = rng.random((number, 2)) * shape
    angle = rng.uniform(0, 2 * np.pi, number)
    length = 1 + rng.poisson(detector.zinger_length - 1, number)
    height = detector.zinger_counts * rng.exponential(size=number)
    where, heights = [], []
    for n in range(number):
        # Whole steps along the longer axis, so that no pixel of a streak is hit twice.
        way = np.array([np.sin(angle[n]), np.cos(angle[n])])
        pixels = np.floor(start[n] + np.arange(length[n])[:, None] * way / np.abs(way).max()).astype(np.int64)
        pixels = pixels[np.all((pixels >= 0) & (pixels < shape), axis=1)]
        where.append(pixels[:, 0] * shape[1] + pixels[:, 1])
        heights.append(np.full(len(pixels), height[n]))
    return np.concatenate(where), np.concatenate(heights)
