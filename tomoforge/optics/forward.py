"""From path lengths to the intensity on the detector: exit waves, planes, propagation, spectrum, blur and bin.

On the host three fused kernels do the work of a projection, so that nothing but one wave has the size of the
oversampled frame: thickness → rows of the exit wave (refined between detector rows), propagated in blocks;
columns of the wave → intensity, blurred and binned along y; the same along x. On a GPU, and as the reference of
the tests, the same steps run as whole-array operations.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tomoforge.backend import array_module
from tomoforge.errors import InputError
from tomoforge.geometry import ScanGeometry
from tomoforge.optics.detector import gaussian_taps
from tomoforge.optics.materials import RefractiveIndex
from tomoforge.optics.propagation import (
    exit_wave,
    filter_lines,
    fresnel_propagate,
    fresnel_scaling,
    padding_width,
)
from tomoforge.optics.thickness import FractionColumns, LabelRuns, label_runs, plane_depths, project_thickness
from tomoforge.optics.wave_kernels import bin_columns, bin_rows, exit_rows, transpose, transpose_back

_BATCH_BYTES = 256 * 1024**2  # of path lengths held at once

Volume = np.ndarray | LabelRuns | FractionColumns


@dataclass(frozen=True)
class SpectralLine:
    """One energy of a beam: wavelength [m], weight of its intensity, refractive index by label."""

    wavelength: float
    weight: float
    constants: tuple[RefractiveIndex, ...]


def transmitted_intensity(
    labels: Volume,
    voxel_size: float,
    constants: Sequence[RefractiveIndex],
    geometry: ScanGeometry,
    angles: np.ndarray,
    wavelength: float,
    blur_sigma: float,
    oversampling: int = 2,
    *,
    planes: int = 1,
    depth_extent: float | None = None,
    wave_optics: bool = True,
    source_distance: float | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Intensity on the detector over the incident one at one energy: (angle, y, x) float32.

    constants : refractive index by label; wavelength [m]; the rest as ``spectral_intensity``.
    """
    return spectral_intensity(
        labels,
        voxel_size,
        [SpectralLine(wavelength, 1.0, tuple(constants))],
        geometry,
        angles,
        blur_sigma,
        oversampling,
        planes=planes,
        depth_extent=depth_extent,
        wave_optics=wave_optics,
        source_distance=source_distance,
        threads=threads,
    )


def spectral_intensity(
    labels: Volume,
    voxel_size: float,
    lines: Sequence[SpectralLine],
    geometry: ScanGeometry,
    angles: np.ndarray,
    blur_sigma: float,
    oversampling: int = 2,
    *,
    planes: int = 1,
    depth_extent: float | None = None,
    wave_optics: bool = True,
    source_distance: float | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Intensity on the detector over the incident one, summed over the lines of a beam.

    Parameters
    ----------
    labels : (z, y, x) uint8, or the runs or fractions of ``tomoforge.optics.thickness``; voxel_size : float [m].
    lines : energies with weights and refractive indices; thickness is projected once for all of them.
    geometry : distance and axis; its angles are not used. angles : (angle,) [rad] of this batch.
    blur_sigma : of source and PSF together [pixels].
    oversampling : wave samples across a pixel.
    planes : exit waves through the depth of the sample, 1 or at least 5 (``tomoforge.optics.planes``).
    depth_extent : float [m] from the first to the last of them, the width of the volume if None.
    wave_optics : False leaves propagation out, exp(−µt) alone.
    source_distance : float [m] from a point source to the sample, None for a plane wave.
    threads : for the propagation; the result does not depend on it.

    Returns
    -------
    (angle, y, x) float32, 1 in the open beam, in the array module of ``labels``.

    Raises
    ------
    InputError
        As ``project_thickness``, and for two to four planes, a cone too wide for parallel rays.

    Notes
    -----
    One plane is the projection approximation at mid-depth, 0.3–1.4 % rms of contrast for a 300 µm sample at
    0.3 µm pixels and 3–5 keV, 0.07 % at 1 µm pixels. A spherical wave is scaled to a plane one; its rays
    through the sample are taken as parallel.
    """
    check_planes(planes)
    rows, deep, columns = labels.shape[-3:]
    shape = (rows, deep, columns)
    check_cone(shape, voxel_size, source_distance)
    angles = np.atleast_1d(np.asarray(angles, dtype=np.float64))
    if not wave_optics:
        planes = 1
    n_materials = len(lines[0].constants)
    depths = plane_depths(shape, voxel_size, planes, depth_extent=depth_extent)
    each = 4 * planes * n_materials * rows * columns * oversampling
    batch = max(1, _BATCH_BYTES // each)
    volume = label_runs(labels) if isinstance(labels, np.ndarray) and labels.ndim == 3 else labels
    out = array_module(labels).empty((len(angles), rows, columns), dtype=np.float32)
    for start in range(0, len(angles), batch):
        thickness = project_thickness(
            volume,
            voxel_size,
            angles[start : start + batch],
            n_materials,
            rotation_centre=geometry.rotation_centre,
            oversampling=oversampling,
            planes=planes,
            depth_extent=depth_extent,
        )
        for n, maps in enumerate(thickness):
            out[start + n] = intensity_from_thickness(
                maps if planes > 1 else maps[None],
                depths,
                lines,
                geometry.pixel_size,
                geometry.propagation_distance,
                blur_sigma,
                oversampling,
                wave_optics=wave_optics,
                source_distance=source_distance,
                threads=threads,
            )
    return out


def check_planes(planes: int) -> None:
    """Raise InputError unless ``planes`` is 1 or at least 5: two to four are worse than one."""
    if (
        isinstance(planes, bool)
        or not isinstance(planes, (int, np.integer))
        or not (planes == 1 or planes >= 5)
    ):
        raise InputError(
            f"planes must be 1 or at least 5 (two to four are worse than one), got {planes!r}; "
            "'auto' chooses, in ScanSimulator and simulate_scan"
        )


def check_cone(shape: tuple[int, ...], voxel_size: float, source_distance: float | None) -> None:
    """Raise InputError where the rays from a point source are not parallel within half a voxel.

    At the corner of the volume a ray that diverges from a source at R1 leaves the parallel one by
    half-width × half-depth / R1.
    """
    fresnel_scaling(source_distance, 0.0)
    if source_distance is None:
        return
    half_width, half_depth = max(shape) * voxel_size / 2, max(shape[1:]) * voxel_size / 2
    shift = half_width * half_depth / source_distance
    if shift > voxel_size / 2:
        raise InputError(
            f"source_distance {source_distance:g} m is so near that rays at the border diverge by {shift:.2g} m "
            f"within the volume, more than half a voxel ({voxel_size:g} m); projections here are parallel: put "
            f"the source {half_width * half_depth * 2 / voxel_size:.2g} m away or farther"
        )


def intensity_from_thickness(
    maps: np.ndarray,
    depths: np.ndarray,
    lines: Sequence[SpectralLine],
    pixel_size: float,
    distance: float,
    blur_sigma: float,
    oversampling: int,
    *,
    wave_optics: bool = True,
    source_distance: float | None = None,
    threads: int = 1,
) -> np.ndarray:
    """One projection from the path lengths of all materials: (y, x) float32, 1 in the open beam.

    maps : (plane, material, y, x·oversampling) float32 [m], the beam meets plane 0 first; depths : (plane,) [m]
    of the planes along the beam from the rotation axis; pixel_size, distance : float [m], of the detector at the
    sample, and from the rotation axis to the detector; the rest as ``spectral_intensity``.
    """
    _, effective = fresnel_scaling(source_distance, distance)
    total = float(sum(line.weight for line in lines))
    if not total > 0:
        raise InputError(f"weights of the lines must sum to a positive number, got {total!r}")
    # Contact is mid-depth: nothing is propagated, whatever the planes.
    steps = np.append(np.diff(depths), effective - depths[-1]) if effective > 0 else np.zeros(len(depths))
    one = _host_projection if array_module(maps) is np else _array_projection
    fine = pixel_size / oversampling
    out = array_module(maps).zeros((maps.shape[2], maps.shape[3] // oversampling), dtype=np.float32)
    for line in lines:
        intensity = one(maps, steps, line, fine, blur_sigma, oversampling, wave_optics, threads)
        out += intensity * np.float32(line.weight / total)
    return out


def bin_weights(oversampling: int, sigma_pixels: float) -> np.ndarray:
    """Weights of fine samples in a pixel, from ``radius`` samples before its first: (2·radius + oversampling,).

    The Gaussian of ``sigma_pixels`` and the average over the pixel in one.
    """
    taps = gaussian_taps(sigma_pixels * oversampling)  # of blur_and_bin, which this must equal
    return np.convolve(taps, np.full(oversampling, 1 / oversampling))


def _per_metre(line: SpectralLine) -> tuple[np.ndarray, np.ndarray]:
    """Phase [turns/m] and halvings of the amplitude [1/m] of each material, both (material,) float32."""
    turns = np.array([c.delta for c in line.constants]) / line.wavelength
    halvings = np.array([c.beta for c in line.constants]) * (2 * np.pi / line.wavelength / np.log(2))
    return turns.astype(np.float32), halvings.astype(np.float32)


def _host_projection(
    maps: np.ndarray,
    steps: np.ndarray,
    line: SpectralLine,
    fine: float,
    blur_sigma: float,
    oversampling: int,
    wave_optics: bool,
    threads: int,
) -> np.ndarray:
    """Intensity of one line, blurred and binned, by the fused kernels: (y, x) float32."""
    turns, halvings = _per_metre(line)
    if not wave_optics:
        maps, steps = maps.sum(axis=0, dtype=np.float32)[None], np.zeros(1)
    shape = (maps.shape[2] * oversampling, maps.shape[3])
    weights = bin_weights(oversampling, blur_sigma).astype(np.float32)
    radius = (len(weights) - oversampling) // 2
    wave = np.empty(shape, np.complex64)
    half = np.empty(shape, np.complex64)
    partial = np.empty(
        (shape[1], maps.shape[2]), np.float32
    )  # (fine x, y): each thread writes rows of its own

    def read_rows(plane: int, start: int, stop: int, into: np.ndarray) -> None:
        incoming = wave[start:stop] if plane else wave[:0]
        exit_rows(maps[plane], turns, halvings, oversampling, start, incoming, into)

    def write_rows(start: int, stop: int, block: np.ndarray) -> None:
        half[start:stop] = block

    def read_columns(start: int, stop: int, into: np.ndarray) -> None:
        transpose(half, start, into)

    def write_columns(start: int, stop: int, block: np.ndarray) -> None:
        transpose_back(block, start, wave)

    def write_intensity(start: int, stop: int, block: np.ndarray) -> None:
        bin_rows(block, weights, radius, oversampling, partial[start:stop])

    last = len(steps) - 1
    for plane, step in enumerate(steps):
        width = padding_width(fine, step, line.wavelength) if step else 0
        options = (np.complex64, fine, float(step), line.wavelength, width, threads)
        filter_lines(functools.partial(read_rows, plane), write_rows, shape, *options)
        write = write_intensity if plane == last else write_columns
        filter_lines(read_columns, write, shape[::-1], *options)
    out = np.empty((maps.shape[2], shape[1] // oversampling), np.float32)
    bin_columns(partial, weights, radius, oversampling, out)
    return out


def _array_projection(
    maps: np.ndarray,
    steps: np.ndarray,
    line: SpectralLine,
    fine: float,
    blur_sigma: float,
    oversampling: int,
    wave_optics: bool,
    threads: int,
) -> np.ndarray:
    """The same by whole-array operations of NumPy or CuPy: (y, x) float32."""
    xp = array_module(maps)
    turns, halvings = (xp.asarray(values) for values in _per_metre(line))
    if not wave_optics:
        maps, steps = maps.sum(axis=0)[None], np.zeros(1)
    wave = xp.ones(1, np.complex64)
    for plane, step in enumerate(steps):
        phase = refine_rows(xp.tensordot(turns, maps[plane], axes=1), oversampling) * np.float32(2 * np.pi)
        decay = refine_rows(xp.tensordot(halvings, maps[plane], axes=1), oversampling) * np.float32(np.log(2))
        transmission = exit_wave(phase, decay)
        wave = wave * transmission if plane else transmission
        if step < 0:  # back is forward of the conjugate
            wave = fresnel_propagate(wave.conj(), fine, -float(step), line.wavelength).conj()
        elif step > 0:
            wave = fresnel_propagate(wave, fine, float(step), line.wavelength, threads=threads)
    intensity = wave.real**2 + wave.imag**2
    weights = bin_weights(oversampling, blur_sigma)
    vertical, horizontal = (
        xp.asarray(_bin_matrix(n // oversampling, oversampling, weights.tobytes())) for n in intensity.shape
    )
    return (vertical @ intensity @ horizontal.T).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _bin_matrix(pixels: int, oversampling: int, weights: bytes) -> np.ndarray:
    """Blur and binning of one axis as a matrix, the edge repeated: (pixel, sample) float32."""
    values = np.frombuffer(weights)
    radius = (len(values) - oversampling) // 2
    matrix = np.zeros((pixels, pixels * oversampling), np.float32)
    first = np.arange(pixels) * oversampling - radius
    for k, weight in enumerate(values):
        np.add.at(matrix, (np.arange(pixels), np.clip(first + k, 0, matrix.shape[1] - 1)), weight)
    return matrix


def refine_rows(image: np.ndarray, oversampling: int) -> np.ndarray:
    """Linear interpolation to ``oversampling`` rows a pixel, as the voxels are interpolated in x and y."""
    if oversampling == 1:
        return image
    xp = array_module(image)
    rows = image.shape[0]
    position = xp.clip((xp.arange(rows * oversampling) + 0.5) / oversampling - 0.5, 0, rows - 1)
    low = xp.minimum(position.astype(int), max(rows - 2, 0))
    weight = (position - low).astype(np.float32)[:, None]
    return image[low] * (1 - weight) + image[xp.minimum(low + 1, rows - 1)] * weight
