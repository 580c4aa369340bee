"""A forged scan: labels and materials in, raw counts with flats and darks out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from tomoforge.backend import array_module, require_gpu, to_host
from tomoforge.errors import InputError, MaterialError
from tomoforge.geometry import ScanGeometry
from tomoforge.optics.detector import (
    Detector,
    DetectorState,
    blur_and_bin,
    draw_detector_state,
    expose,
)
from tomoforge.optics.forward import (
    SpectralLine,
    Volume,
    check_cone,
    check_planes,
    spectral_intensity,
)
from tomoforge.optics.materials import Material, RefractiveIndex
from tomoforge.optics.planes import automatic_planes, sample_depth
from tomoforge.optics.propagation import fresnel_scaling
from tomoforge.optics.spectrum import Spectrum
from tomoforge.optics.thickness import check_labels, label_runs
from tomoforge.scan import Scan
from tomoforge.seeds import component_rng
from tomoforge.units import kev_to_wavelength

__all__ = ["Beam", "ScanSimulator", "optical_constants", "simulate_scan"]

Response = Literal["energy", "photons"]


@dataclass(frozen=True)
class Beam:
    """The incident wave.

    energy_kev : of a monochromatic beam, or the one that a polychromatic scan is said to be taken at [keV].
    photons : mean number a pixel without sample.
    source_sigma : blur of the source's image, rms [m] on the detector referred to the sample.
    spectrum : energies and their shares of the photons; None for energy_kev alone.
    source_distance : from the source to the sample [m]; None for a plane wave, else the wave is spherical and
        magnifies (``tomoforge.optics.propagation.fresnel_scaling``).
    source_size : of the source, rms [m]; blurs by R2/R1 on the detector. Needs a source_distance.
    """

    energy_kev: float
    photons: float = 2e4
    source_sigma: float = 0.0
    spectrum: Spectrum | None = None
    source_distance: float | None = None
    source_size: float = 0.0

    def __post_init__(self) -> None:
        for name, unit in (("energy_kev", "keV"), ("photons", "photons a pixel")):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a positive number of {unit}, got {value!r}")
        for name in ("source_sigma", "source_size"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"{name} must be zero or positive metres, got {value!r}")
        fresnel_scaling(self.source_distance, 0.0)
        if self.source_size and self.source_distance is None:
            raise InputError(
                f"source_distance must be given for a source_size ({self.source_size:g} m) to blur; "
                "or give the blur itself as source_sigma"
            )

    def blur(self, distance: float) -> float:
        """Blur by the source, rms [m] referred to the sample, on a detector ``distance`` [m] behind it."""
        if self.source_distance is None:
            return self.source_sigma
        magnification, _ = fresnel_scaling(self.source_distance, distance)
        image = self.source_size * distance / self.source_distance
        return float(np.hypot(self.source_sigma, image / magnification))

    def lines(self) -> tuple[tuple[float, float], ...]:
        """(energy [keV], share of the photons) of each energy in the beam."""
        if self.spectrum is None:
            return ((self.energy_kev, 1.0),)
        return tuple(zip(self.spectrum.energies_kev, self.spectrum.weights, strict=True))


def optical_constants(
    labels: np.ndarray, materials: Mapping[int, Material], energy_kev: float
) -> list[RefractiveIndex]:
    """Refractive index of every label from 0 (vacuum) to the largest key of ``materials``.

    Raises MaterialError for a label that occurs and has no material.
    """
    _check_materials(_present(labels), materials)
    return _constants(materials, energy_kev)


def _present(labels: np.ndarray) -> set[int]:
    """Labels that occur, slice by slice: sorting a whole volume takes seconds."""
    xp = array_module(labels)
    found: set[int] = set()
    for layer in labels:
        found |= {int(label) for label in to_host(xp.nonzero(xp.bincount(layer.ravel()))[0])}
    return found


def _check_materials(present: set[int], materials: Mapping[int, Material]) -> None:
    lacking = sorted(present - {0} - set(materials))
    if lacking:
        raise MaterialError(
            f"materials must give a material for every label that occurs, none for {lacking}; "
            f"given are {sorted(materials)}"
        )


def _constants(materials: Mapping[int, Material], energy_kev: float) -> list[RefractiveIndex]:
    vacuum = RefractiveIndex(0.0, 0.0, 0.0)
    return [
        materials[label].refractive_index(energy_kev) if label in materials else vacuum
        for label in range(max(materials, default=0) + 1)
    ]


@dataclass(frozen=True)
class ScanSimulator:
    """Everything of a forged scan that does not depend on the angle; makes frames in any order.

    labels : (z, y, x) uint8, on the host or on a GPU; materials : label → Material.
    oversampling : wave samples across a pixel.
    planes : exit waves through the sample's depth, 1 or at least 5; "auto" chooses and checks by doubling.
    optics : "wave", or "absorption" for exp(−µt) alone, the baseline without propagation.
    response : what the detector sums over a spectrum: "energy", a scintillator before a camera, or "photons", a
        counting detector.
    illumination : (y, x) of the open beam, e.g. measured flats less darks; any unit. None for the detector's own.
    detector_state : the pattern of one very detector, as ``DetectorCalibration.state`` gives it; None to draw one.
    device : "gpu" demands labels on a GPU.
    threads : for the propagation of a frame; the frames do not depend on it.
    """

    labels: np.ndarray
    voxel_size: float
    materials: Mapping[int, Material]
    geometry: ScanGeometry
    beam: Beam
    detector: Detector
    seed: int
    oversampling: int = 2
    planes: int | Literal["auto"] = 1
    optics: Literal["wave", "absorption"] = "wave"
    response: Response = "energy"
    illumination: np.ndarray | None = None
    detector_state: DetectorState | None = None
    device: Literal["cpu", "gpu"] = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.device == "gpu":
            require_gpu()
            if array_module(self.labels) is np:
                raise InputError("labels must lie on the GPU for device='gpu'; pass cupy.asarray(labels)")
        check_labels(self.labels, 256)
        if not abs(self.voxel_size - self.geometry.pixel_size) <= 1e-6 * self.voxel_size:
            raise InputError(
                f"voxel_size ({self.voxel_size:g} m) and the detector's pixel_size at the sample "
                f"({self.geometry.pixel_size:g} m) must agree; resample the labels or change the geometry"
            )
        for name, allowed in (
            ("optics", ("wave", "absorption")),
            ("response", ("energy", "photons")),
            ("device", ("cpu", "gpu")),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        for name in ("oversampling", "threads"):
            if not getattr(self, name) >= 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if self.planes != "auto":
            check_planes(self.planes)
        check_cone(self.labels.shape, self.voxel_size, self.beam.source_distance)
        if self.illumination is not None:
            _check_illumination(self.illumination, self.frame_shape)
        if self.detector_state is not None and self.detector_state.illumination.shape != self.frame_shape:
            raise InputError(
                f"detector_state must be of a detector of {self.frame_shape} (y, x), got one of "
                f"{self.detector_state.illumination.shape}; ask the calibration for a state of that shape"
            )
        _check_materials(_present(self.labels), self.materials)
        self.lines  # noqa: B018  an energy off the tables must fail before the first frame

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector size (y, x)."""
        return self.labels.shape[0], self.labels.shape[2]

    @cached_property
    def constants(self) -> list[RefractiveIndex]:
        """Refractive index by label at the beam's energy_kev."""
        return _constants(self.materials, self.beam.energy_kev)

    @cached_property
    def lines(self) -> tuple[SpectralLine, ...]:
        """The energies of the beam with weights as the detector sums them."""
        return tuple(
            SpectralLine(
                kev_to_wavelength(energy),
                share * (energy if self.response == "energy" else 1.0),
                tuple(_constants(self.materials, energy)),
            )
            for energy, share in self.beam.lines()
        )

    @cached_property
    def depth(self) -> float:
        """Diameter of the circle about the axis that holds the sample [m]."""
        return sample_depth(self.labels, self.voxel_size)

    @cached_property
    def plane_count(self) -> int:
        """Planes in use: the given number, or the automatic choice."""
        if self.planes != "auto":
            return self.planes
        if self.optics == "absorption":
            return 1
        _, effective = fresnel_scaling(self.beam.source_distance, self.geometry.propagation_distance)
        return automatic_planes(
            self.labels,
            self.voxel_size,
            self.lines,
            self.geometry,
            distance=effective,
            depth=self.depth,
            source_distance=self.beam.source_distance,
        )

    @cached_property
    def state(self) -> DetectorState:
        """The detector's fixed pattern during this scan."""
        state = self.detector_state or draw_detector_state(self.detector, self.frame_shape, self.seed)
        if self.illumination is None:
            return state
        light = np.asarray(self.illumination, dtype=np.float64)
        return replace(state, illumination=light / light.mean())

    @cached_property
    def _volume(self) -> Volume:
        """The labels as the projector reads them, prepared once for all angles."""
        return label_runs(self.labels) if array_module(self.labels) is np else self.labels

    def flats(self, count: int) -> np.ndarray:
        """``count`` frames of the open beam: (n, y, x) uint16."""
        return self._references("flat", 1.0, count)

    def darks(self, count: int) -> np.ndarray:
        """``count`` frames without beam: (n, y, x) uint16."""
        return self._references("dark", 0.0, count)

    def _references(self, component: str, transmission: float, count: int) -> np.ndarray:
        if count < 1:
            raise InputError(f"count of {component}s must be at least 1, got {count}")
        state = self.state
        return np.stack(
            [
                expose(
                    transmission,
                    self.beam.photons,
                    self.detector,
                    state,
                    0.0,
                    component_rng(self.seed, component, n),
                )
                for n in range(count)
            ]
        )

    def intensity(self, batch: slice) -> np.ndarray:
        """Intensity on the detector over the incident one for the angles ``batch``: (angle, y, x) float32."""
        source = self.beam.blur(self.geometry.propagation_distance) / self.geometry.pixel_size
        planes = self.plane_count
        found = to_host(
            spectral_intensity(
                self._volume,
                self.voxel_size,
                self.lines,
                self.geometry,
                self.geometry.angles[batch],
                float(np.hypot(self.detector.psf_sigma, source)),
                self.oversampling,
                planes=planes,
                depth_extent=self.depth if planes > 1 and self.depth > 0 else None,
                wave_optics=self.optics == "wave",
                source_distance=self.beam.source_distance,
                threads=self.threads,
            )
        )
        tail, radius = self.detector.psf_tail, self.detector.psf_tail_radius
        if tail > 0:
            found = np.stack([blur_and_bin(frame, 1, 0.0, tail=tail, tail_radius=radius) for frame in found])
        return found

    def projections(self, batch: slice) -> np.ndarray:
        """Frames of the angles ``batch``: (angle, y, x) uint16, the same whatever the batch."""
        intensity = self.intensity(batch)
        span = max(len(self.geometry.angles) - 1, 1)
        numbers = range(len(self.geometry.angles))[batch]
        return np.stack(
            [
                expose(
                    intensity[n],
                    self.beam.photons,
                    self.detector,
                    self.state,
                    number / span,
                    component_rng(self.seed, "projection", number),
                )
                for n, number in enumerate(numbers)
            ]
        )


def _check_illumination(illumination: np.ndarray, shape: tuple[int, int]) -> None:
    """Raise InputError for an open beam of another shape, or without light somewhere."""
    light = np.asarray(illumination)
    if light.shape != shape:
        raise InputError(
            f"illumination must be (y, x) of the detector {shape}, got {light.shape}; was binning applied to it?"
        )
    if not (np.isfinite(light).all() and (light >= 0).all() and light.mean() > 0):
        raise InputError(
            "illumination must be finite and not negative; subtract the darks and mend dead pixels"
        )


def simulate_scan(
    labels: np.ndarray,
    voxel_size: float,
    materials: Mapping[int, Material],
    geometry: ScanGeometry,
    beam: Beam,
    detector: Detector,
    seed: int,
    *,
    flats: int = 10,
    darks: int = 10,
    batch: int = 30,
    oversampling: int = 2,
    planes: int | Literal["auto"] = 1,
    optics: Literal["wave", "absorption"] = "wave",
    response: Response = "energy",
    illumination: np.ndarray | None = None,
    detector_state: DetectorState | None = None,
    device: Literal["cpu", "gpu"] = "cpu",
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Simulate a whole scan in memory.

    Parameters
    ----------
    labels : (z, y, x) uint8, 0 background; voxel_size : float [m].
    materials : label → Material for every label that occurs.
    geometry, beam, detector : what they say; seed : of all noise and patterns.
    flats, darks : how many of each; batch : angles projected at once; progress : called with (done, total).
    oversampling, planes, optics, response, illumination, detector_state, device, threads : as ``ScanSimulator``.

    Returns
    -------
    Scan with projections (angle, y, x) uint16, flats and darks likewise.

    Raises
    ------
    InputError, MaterialError
        For labels without material, volumes that are empty, sizes and energies out of range.
    MissingComponentError
        For ``device="gpu"`` where there is none.

    Notes
    -----
    Polychromatic light: intensities are summed as ``response`` says, one thickness for all energies; the noise is
    that of ``photons`` photons of one energy. ``energy_kev`` of the scan is the beam's.
    """
    simulator = ScanSimulator(
        labels,
        voxel_size,
        materials,
        geometry,
        beam,
        detector,
        seed,
        oversampling=oversampling,
        planes=planes,
        optics=optics,
        response=response,
        illumination=illumination,
        detector_state=detector_state,
        device=device,
        threads=threads,
    )
    total = len(geometry.angles)
    parts = []
    for start in range(0, total, batch):
        parts.append(simulator.projections(slice(start, min(start + batch, total))))
        if progress is not None:
            progress(min(start + batch, total), total)
    return Scan(
        projections=np.concatenate(parts),
        flats=simulator.flats(flats),
        darks=simulator.darks(darks),
        angles=geometry.angles,
        energy_kev=beam.energy_kev,
        pixel_size=geometry.pixel_size,
        propagation_distance=geometry.propagation_distance,
        name="forged",
    )
