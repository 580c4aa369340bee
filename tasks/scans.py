"""Scans: simulate one from labels, or bring a real one into the workspace. Both end as NXtomo."""

import functools
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.progress import StageProgress, say
from tasks.samples import LABELS
from tomoforge.beamline import read_scan
from tomoforge.beamline.examine import examine_scan
from tomoforge.beamline.findings import ScanReport
from tomoforge.config import OpticsSettings
from tomoforge.errors import ConfigError, ScanError
from tomoforge.geometry import ScanGeometry, uniform_angles
from tomoforge.optics.calibration import calibrate
from tomoforge.optics.detector import Detector
from tomoforge.optics.material_priors import build_materials, draw_material_record
from tomoforge.optics.materials import Material, find_material
from tomoforge.optics.scan import Beam, ScanSimulator
from tomoforge.optics.spectrum import rebinned, tube_spectrum, undulator_spectrum
from tomoforge.scan import Scan, batch_name, batch_slices, write_frame_batch, write_nxtomo
from tomoforge.seeds import component_seed
from tomoforge.storage import Artefact, Workspace, to_json, write_json_atomic
from tomoforge.units import deg_to_rad, m_to_um, mm_to_m
from tomoforge.volumes import LABEL_NAMES, read_labels

SCAN = "scan.nxs"
REPORT = "validation.json"
MATERIALS = "materials.json"
_BATCH = 30  # angles a future
_COPY_BATCH = 64  # frames copied at once from a real scan
_TIMEOUT_S = 3600.0
_FULL_WELL = 0.95  # of the converter's range for the open beam: patterns and noise need the rest


@task(name="simulate-scan", **OPTIONS)
def simulate_scan(
    compute: Compute,
    workspace: Workspace,
    labels: Artefact,
    *,
    optics: OpticsSettings,
    seed: int,
    index: int,
) -> Artefact:
    """Scan of a forged sample, batches of angles on the workers: kind ``scans``."""
    source = str(workspace.path(labels) / LABELS)
    scan_seed = component_seed(seed, "scan", index)
    materials = to_json(material_record(optics, seed, index))
    settings = optics.model_dump_json()
    light = to_json(detected_light(settings))

    def build(folder: Path) -> None:
        simulator = _simulator(source, settings, light, materials, scan_seed)
        (folder / MATERIALS).write_text(materials)
        batches = batch_slices(optics.projections, _BATCH)
        todo = [b for b in batches if not (folder / batch_name(b)).exists()]
        pieces = [
            (source, settings, light, materials, scan_seed, b.start, b.stop, str(folder / batch_name(b)))
            for b in todo
        ]
        bar = StageProgress(f"sample {index}: batches of projections")
        compute.map(_project_piece, pieces, timeout_s=_TIMEOUT_S, progress=bar)
        write_nxtomo(
            folder / SCAN,
            darks=simulator.darks(optics.darks),
            flats=simulator.flats(optics.flats),
            batches=[batch_name(b) for b in batches],
            angles=simulator.geometry.angles,
            energy_kev=simulator.beam.energy_kev,
            pixel_size=simulator.geometry.pixel_size,
            propagation_distance=simulator.geometry.propagation_distance,
            title=f"forged sample {labels.key}",
        )

    # What the real scan's frames say counts, not where it lies.
    asked = optics.model_dump(exclude={"detector_like"}) | detected_light(settings)
    return produce(
        workspace,
        "scans",
        "scan",
        parameters={"optics": asked, "materials": materials, "seed": scan_seed},
        inputs={"labels": labels},
        packages=("optics",),
        build=build,
        resumable=True,
    )


@functools.lru_cache(maxsize=8)
def detected_light(optics_json: str) -> dict[str, Any]:
    """The detector and the photons a pixel, of the settings or calibrated from a real scan's flats and darks."""
    optics = OpticsSettings.model_validate_json(optics_json)
    detector = Detector(psf_sigma=optics.psf_sigma_px, column_drift_sigma=optics.ring_strength)
    photons = optics.photons
    if optics.detector_like is not None:
        # Only its frames are looked at: neither energy nor pixel size matters here.
        real = read_scan(optics.detector_like, energy_kev=optics.energy_kev, pixel_size_um=1.0)
        found = calibrate(real.flats, real.darks)
        for warning in found.warnings:
            say(f"{real.name}: {warning}")
        detector = found.detector(detector)
        photons = photons if found.photons is None else found.photons.value
    else:
        _refuse_saturation(detector, photons)
    return {"detector": asdict(detector), "photons": photons}


def _refuse_saturation(detector: Detector, photons: float) -> None:
    """Raise ConfigError where the open beam would end the converter's range: µ would come out far too small."""
    full = 2**detector.bits - 1
    most = (_FULL_WELL * full - detector.offset) / detector.gain
    if photons > most:
        raise ConfigError(
            f"optics.photons must be at most {most:.0f} a pixel and frame, or the open beam saturates the detector's "
            f"{detector.bits} bits ({detector.gain:g} counts a photon), got {photons:g}; take more projections instead"
        )


def beam_of(optics: OpticsSettings) -> Beam:
    """The incident beam that the settings ask for, without its photons; of a spectrum the energy is the mean."""
    if optics.spectrum == "monochromatic":
        return Beam(optics.energy_kev)
    if optics.spectrum == "tube":
        filters = (
            [(find_material(optics.tube_filter), optics.tube_filter_mm)] if optics.tube_filter_mm else []
        )
        spectrum = tube_spectrum(optics.tube_kv, optics.tube_anode_deg, filters)
    else:
        spectrum = undulator_spectrum(optics.energy_kev, optics.bandwidth)
    return Beam(spectrum.mean_energy_kev, spectrum=rebinned(spectrum, optics.energies))


@functools.lru_cache(maxsize=2)
def _simulator(
    labels_path: str, optics_json: str, light_json: str, materials_json: str, seed: int
) -> ScanSimulator:
    """The simulator of one scan; a worker loads its labels once, not once a batch."""
    optics, light = OpticsSettings.model_validate_json(optics_json), json.loads(light_json)
    labels, voxel_size = read_labels(labels_path)
    return ScanSimulator(
        labels=labels,
        voxel_size=voxel_size,
        materials={
            LABEL_NAMES[name]: material
            for name, material in _materials_of(json.loads(materials_json)).items()
        },
        geometry=ScanGeometry(
            angles=uniform_angles(optics.projections, deg_to_rad(optics.arc_deg)),
            pixel_size=voxel_size,
            propagation_distance=mm_to_m(optics.distance_mm),
        ),
        beam=replace(beam_of(optics), photons=light["photons"]),
        detector=Detector(**light["detector"]),
        seed=seed,
        oversampling=optics.oversampling,
        planes=optics.planes,
        optics=optics.model,
    )


MATERIAL_LABELS = tuple(name for name in LABEL_NAMES if name != "background")


def material_record(optics: OpticsSettings, seed: int, index: int) -> dict[str, Any]:
    """What sample ``index`` is made of: the names in the settings, or what is drawn for this sample alone."""
    if optics.materials == "named":
        return {name: getattr(optics, name) for name in MATERIAL_LABELS}
    return draw_material_record(component_seed(seed, "materials", index))


def _materials_of(record: dict[str, Any]) -> dict[str, Material]:
    if "family" in record:
        return build_materials(record)
    return {name: find_material(material) for name, material in record.items()}


def _project_piece(
    labels_path: str,
    optics_json: str,
    light_json: str,
    materials_json: str,
    seed: int,
    start: int,
    stop: int,
    path: str,
) -> None:
    simulator = _simulator(labels_path, optics_json, light_json, materials_json, seed)
    write_frame_batch(path, simulator.projections(slice(start, stop)))


def material_mu(optics: OpticsSettings, seed: int = 0, index: int = 0) -> dict[str, float]:
    """True µ [1/m] of each label's material at the (mean) energy of the scan of sample ``index``."""
    energy_kev = beam_of(optics).energy_kev
    materials = _materials_of(material_record(optics, seed, index))
    return {name: material.refractive_index(energy_kev).mu for name, material in materials.items()}


def check_real_scan(
    path: str,
    energy_kev: float | None,
    pixel_size_um: float | None,
    *,
    allow_missing: Collection[str] = (),
    root: str | None = None,
    angle_rows: tuple[int, int] | None = None,
    flats: str | Sequence[str] | None = None,
    darks: str | Sequence[str] | None = None,
) -> tuple[Scan, ScanReport]:
    """Open and validate a real scan before any work is done on it. Raises ScanError when it is refused."""
    scan, report = examine_scan(
        path,
        energy_kev=energy_kev,
        pixel_size_um=pixel_size_um,
        allow_missing=allow_missing,
        root=root,
        angle_rows=angle_rows,
        flats=flats,
        darks=darks,
    )
    if scan is None or report.refusals:
        raise ScanError(f"{path} is refused:\n" + "\n".join(f"  {entry}" for entry in report.refusals))
    return scan, report


@task(name="import-scan", **OPTIONS)
def import_scan(
    workspace: Workspace,
    path: str,
    *,
    energy_kev: float | None,
    pixel_size_um: float | None,
    allow_missing: Collection[str] = (),
    root: str | None = None,
    angle_rows: tuple[int, int] | None = None,
    flats: str | Sequence[str] | None = None,
    darks: str | Sequence[str] | None = None,
) -> Artefact:
    """A verified copy of a real scan, found again by its content whatever its name: kind ``scans``.

    The arguments are those of ``tomoforge.beamline.read_scan``. Raises ScanError when the scan is refused.
    """
    scan, report = check_real_scan(
        path,
        energy_kev,
        pixel_size_um,
        allow_missing=allow_missing,
        root=root,
        angle_rows=angle_rows,
        flats=flats,
        darks=darks,
    )
    for entry in report.warnings:
        say(f"{scan.name}: {entry}")
    digest = content_digest(scan)

    def build(folder: Path) -> None:
        batches = batch_slices(scan.projections.shape[0], _COPY_BATCH)
        bar = StageProgress(f"{scan.name}: copying")
        for n, batch in enumerate(batches):
            if not (folder / batch_name(batch)).exists():
                write_frame_batch(folder / batch_name(batch), scan.projections[batch])
            bar(n + 1, len(batches))
        write_nxtomo(
            folder / SCAN,
            darks=scan.darks.astype(_common_dtype(scan)),
            flats=scan.flats.astype(_common_dtype(scan)),
            batches=[batch_name(b) for b in batches],
            angles=scan.angles,
            energy_kev=scan.energy_kev,
            pixel_size=scan.pixel_size,
            propagation_distance=scan.propagation_distance,
            title=scan.name,
        )
        copy = read_scan(folder / SCAN, allow_missing=allow_missing)
        if content_digest(copy) != digest:
            raise ScanError(f"the copy of {path} differs from it; did it change while being read? Try again.")
        checks = {**report.record(), "warnings": [str(entry) for entry in report.warnings]}
        write_json_atomic(folder / REPORT, checks)

    return produce(
        workspace,
        "scans",
        "real-scan",
        parameters={
            "energy_kev": scan.energy_kev,
            "pixel_size_um": m_to_um(scan.pixel_size),
            "distance_m": scan.propagation_distance,
        },
        inputs={"content": digest},
        packages=("beamline",),
        build=build,
        resumable=True,
    )


def _common_dtype(scan: Scan) -> np.dtype:
    """The one type that holds projections, flats and darks exactly; an averaged flat may be no whole number."""
    counts = np.dtype(scan.projections.dtype).newbyteorder("=")
    # The same flat is stored as whole counts in one format and as floats in another.
    with np.errstate(invalid="ignore"):  # of values that are not finite, which stay floats
        if all(np.array_equal(frames, frames.astype(counts)) for frames in (scan.flats, scan.darks)):
            return counts
    return np.result_type(counts, scan.flats.dtype, scan.darks.dtype).newbyteorder("=")


def content_digest(scan: Scan) -> str:
    """SHA-256 over the counts and what they mean, whatever file, format or byte order they lie in."""
    digest = hashlib.sha256()
    dtype = _common_dtype(scan)
    meaning: dict[str, Any] = {
        "shape": list(scan.projections.shape),
        "dtype": str(dtype),
        "angles": np.round(np.degrees(scan.angles), 9).tolist(),
    }
    digest.update(to_json(meaning).encode())
    for batch in batch_slices(scan.projections.shape[0], _COPY_BATCH):
        digest.update(np.ascontiguousarray(scan.projections[batch], dtype).tobytes())
    digest.update(np.ascontiguousarray(scan.flats, dtype).tobytes())
    digest.update(np.ascontiguousarray(scan.darks, dtype).tobytes())
    return digest.hexdigest()
