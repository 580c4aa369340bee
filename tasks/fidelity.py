"""The twin of a real scan: air at 1, labels, a simulated scan in the same geometry, and how alike the two are."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.progress import StageProgress, say
from tasks.samples import LABELS
from tasks.scans import SCAN
from tasks.volumes import CENTRE, VOLUME
from tomoforge.beamline import read_scan
from tomoforge.config import ReconstructionSettings
from tomoforge.errors import InputError, MaterialError
from tomoforge.fidelity import (
    AirMargins,
    Fidelity,
    air_median,
    air_noise,
    class_attenuation,
    compare_images,
    multi_otsu_labels,
    reference_range,
    scale_to_air,
)
from tomoforge.fidelity.settings import FidelitySettings
from tomoforge.geometry import ScanGeometry
from tomoforge.optics.detector import Detector
from tomoforge.optics.materials import Material, refractive_index
from tomoforge.optics.scan import Beam, ScanSimulator
from tomoforge.reconstruction import normalise
from tomoforge.scan import Scan, batch_name, batch_slices, write_frame_batch, write_nxtomo
from tomoforge.seeds import component_seed
from tomoforge.storage import Artefact, Workspace, write_json_atomic
from tomoforge.units import m_to_um, mm_to_m
from tomoforge.volumes import read_labels, read_volume, write_labels

CLASSES = "classes.json"
AIR = "air.json"
_BATCH = 30  # angles a future
_TIMEOUT_S = 3600.0
_TRIED_ANGLES = 9  # of the projections, for the distance and the range
_REFERENCES = 20  # flats and darks of a twin
_PHOTONS = 20000.0  # where neither given nor to be estimated

# For δ/β where nobody knows the material: from light to heavy, densities [kg/m³].
CANDIDATES = {
    "H2O": 1000.0,
    "C6H11NO": 1140.0,
    "C22H10N2O5": 1420.0,
    "C": 2200.0,
    "SiO2": 2200.0,
    "NaCl": 2160.0,
    "Al2O3": 3950.0,
    "CaCO3": 2710.0,
    "KI": 3120.0,
    "Ti": 4506.0,
    "Fe": 7874.0,
    "Cu": 8960.0,
    "W": 19250.0,
}


@task(name="scale-to-air", **OPTIONS)
def scale_scan_to_air(
    workspace: Workspace, scan: Artefact, *, margins: tuple[int, int, int, int]
) -> Artefact:
    """The transmission of a scan with air at 1, as a scan of float32 frames whose flats are 1: kind ``scans``."""
    source = read_scan(workspace.path(scan) / SCAN)
    air = AirMargins(*margins)

    def build(folder: Path) -> None:
        batches = batch_slices(source.projections.shape[0], _BATCH)
        noise, before = [], []
        for batch in batches:
            transmission = normalise(source.projections[batch], source.flats, source.darks)
            if air.any:
                before.append(air_median(transmission, air))
            transmission = scale_to_air(transmission, air)
            if air.any and len(transmission) > 1:
                noise.append(air_noise(transmission, air))
            write_frame_batch(folder / batch_name(batch), transmission)
        frame = (1, *source.projections.shape[1:])
        write_nxtomo(
            folder / SCAN,
            darks=np.zeros(frame, np.float32),
            flats=np.ones(frame, np.float32),
            batches=[batch_name(batch) for batch in batches],
            angles=source.angles,
            energy_kev=source.energy_kev,
            pixel_size=source.pixel_size,
            propagation_distance=source.propagation_distance or 0.0,
            title=f"{source.name}, air at 1",
        )
        measured = {
            "noise": float(np.median(noise)) if noise else None,
            "before": float(np.median(before)) if before else None,
        }
        write_json_atomic(folder / AIR, measured)

    return produce(
        workspace,
        "scans",
        "air-scan",
        parameters={"margins": list(margins)},
        inputs={"scan": scan},
        packages=("fidelity", "reconstruction", "beamline"),
        build=build,
    )


@task(name="label-classes", **OPTIONS)
def label_classes(
    workspace: Workspace,
    volume: Artefact,
    scan: Artefact,
    *,
    given: Artefact | None,
    settings: FidelitySettings,
) -> Artefact:
    """Labels of a real volume, given or by multi-Otsu, with µ and a material for each class: kind ``labels``."""
    record = read_scan(workspace.path(scan) / SCAN)
    energy_kev = record.energy_kev

    def build(folder: Path) -> None:
        values, voxel_size = read_volume(workspace.path(volume) / VOLUME)
        if given is None:
            seen = (values != 0).any(axis=0)
            labels = multi_otsu_labels(values, settings.classes, smoothing=settings.smoothing_px, seen=seen)
        else:
            labels, _ = read_labels(workspace.path(given) / LABELS)
            if labels.shape != values.shape:
                raise InputError(
                    f"labels must lie on the voxels of the reconstruction, {values.shape}, got {labels.shape}"
                )
        measured = {label: mu for label, mu in class_attenuation(values, labels).items() if mu > 0}
        dropped = set(np.unique(labels).tolist()) - set(measured) - {0}
        if dropped:
            say(f"labels {sorted(dropped)} have no positive µ in the reconstruction and are taken for air")
            labels = np.where(np.isin(labels, list(dropped)), 0, labels).astype(np.uint8)
        if not measured:
            raise InputError("no label has a positive µ in the reconstruction: there is nothing to simulate")
        write_labels(
            folder / LABELS,
            labels,
            voxel_size,
            {"background": 0, **{f"class {label}": label for label in measured}},
        )
        classes = [
            _class_record(label, mu, int(np.count_nonzero(labels == label)), energy_kev, formula)
            for (label, mu), formula in zip(
                measured.items(),
                _formulas(list(measured.values()), settings.formulas, energy_kev),
                strict=True,
            )
        ]
        write_json_atomic(folder / CLASSES, classes)

    chosen = settings.model_dump(include={"classes", "smoothing_px", "formulas"})
    return produce(
        workspace,
        "labels",
        "twin-labels",
        parameters=chosen if given is None else {"formulas": list(settings.formulas)},
        inputs={"volume": volume, **({"given": given} if given else {})},
        packages=("fidelity", "optics"),
        build=build,
    )


def _formulas(mu: list[float], given: tuple[str, ...], energy_kev: float) -> list[str]:
    """A formula for each class: as given, else the candidate whose µ at this energy is nearest in ratio."""
    if given:
        if len(given) != len(mu):
            raise MaterialError(
                f"formulas must name one for each of the {len(mu)} classes, got {list(given)}"
            )
        return list(given)
    known = {formula: refractive_index(formula, rho, energy_kev).mu for formula, rho in CANDIDATES.items()}
    return [min(known, key=lambda formula: abs(np.log(known[formula] / value))) for value in mu]


def _class_record(label: int, mu: float, voxels: int, energy_kev: float, formula: str) -> dict[str, Any]:
    density = 1000.0 * mu / refractive_index(formula, 1000.0, energy_kev).mu  # µ and δ are linear in it
    index = refractive_index(formula, density, energy_kev)
    return {
        "label": label,
        "voxels": voxels,
        "mu_per_m": mu,
        "formula": formula,
        "density_kg_per_m3": density,
        "delta": index.delta,
        "beta": index.beta,
    }


def read_classes(workspace: Workspace, labels: Artefact) -> list[dict[str, Any]]:
    """Of each label: voxels, µ, the formula and density it was simulated with, δ and β."""
    return json.loads((workspace.path(labels) / CLASSES).read_text())


def air_of(workspace: Workspace, real: Artefact) -> dict[str, float | None]:
    """Noise of the air of a scan scaled to it, and its median before; None without margins."""
    return json.loads((workspace.path(real) / AIR).read_text())


@task(name="fit-distance", **OPTIONS)
def choose_distance(
    compute: Compute,
    workspace: Workspace,
    real: Artefact,
    volume: Artefact,
    labels: Artefact,
    *,
    settings: FidelitySettings,
    seed: int,
) -> list[dict[str, float]]:
    """SSIM and PSNR of a few projections at each distance that is tried, the best first; one if it is known."""
    record = read_scan(workspace.path(real) / SCAN)
    known = settings.distance_mm or 1e3 * (record.propagation_distance or 0.0)
    distances = [known] if known else sorted(set(settings.distances_mm))
    paths = _paths(workspace, real, volume, labels)
    photons = photons_of(workspace, real, settings)
    pieces = [(*paths, settings.model_dump_json(), distance, photons, seed) for distance in distances]
    bar = StageProgress("distances tried")
    tried = compute.map(_try_distance, pieces, timeout_s=_TIMEOUT_S, progress=bar)
    rows = [
        {"distance_mm": distance, "ssim": found.ssim, "psnr_db": found.psnr}
        for distance, found in zip(distances, tried, strict=True)
    ]
    return sorted(rows, key=lambda row: -row["ssim"])


def _try_distance(
    scan: str, labels: str, centre: float, settings_json: str, distance_mm: float, photons: float, seed: int
) -> Fidelity:
    real = read_scan(scan)
    few = few_angles(real)
    simulator = _simulator(scan, labels, centre, settings_json, distance_mm, photons, seed)
    flats, darks = simulator.flats(_REFERENCES), simulator.darks(_REFERENCES)
    counts = np.concatenate([simulator.projections(slice(n, n + 1)) for n in few])
    reference = real_transmission(real, few)
    return compare_images(reference, normalise(counts, flats, darks), reference_range(reference))


def few_angles(scan: Scan) -> list[int]:
    """A few projections spread over the scan."""
    last = scan.projections.shape[0] - 1
    return sorted({round(n) for n in np.linspace(0, last, _TRIED_ANGLES)})


def real_transmission(scan: Scan, angles: list[int]) -> np.ndarray:
    """Transmission of these projections: (angle, y, x) float32."""
    return normalise(np.stack([scan.projections[n] for n in angles]), scan.flats, scan.darks)


def photons_of(workspace: Workspace, real: Artefact, settings: FidelitySettings) -> float:
    """Photons a pixel in air: given, else from the noise of the air, else a usual number."""
    noise = air_of(workspace, real)["noise"]
    return settings.photons or (1 / noise**2 if noise else _PHOTONS)


@task(name="simulate-twin", **OPTIONS)
def simulate_twin(
    compute: Compute,
    workspace: Workspace,
    real: Artefact,
    volume: Artefact,
    labels: Artefact,
    *,
    settings: FidelitySettings,
    distance_mm: float,
    seed: int,
    name: str,
) -> Artefact:
    """Scan of the labels in the geometry of the real one; ``distance_mm`` 0 is absorption only: kind ``scans``."""
    scan, labels_path, centre = _paths(workspace, real, volume, labels)
    photons = photons_of(workspace, real, settings)
    common = (scan, labels_path, centre, settings.model_dump_json(), distance_mm, photons, seed)

    def build(folder: Path) -> None:
        simulator = _simulator(*common)
        batches = batch_slices(len(simulator.geometry.angles), _BATCH)
        pieces = [(*common, b.start, b.stop, str(folder / batch_name(b))) for b in batches]
        bar = StageProgress(f"{name}: batches of projections")
        compute.map(_project_piece, pieces, timeout_s=_TIMEOUT_S, progress=bar)
        write_nxtomo(
            folder / SCAN,
            darks=simulator.darks(_REFERENCES),
            flats=simulator.flats(_REFERENCES),
            batches=[batch_name(batch) for batch in batches],
            angles=simulator.geometry.angles,
            energy_kev=simulator.beam.energy_kev,
            pixel_size=simulator.geometry.pixel_size,
            propagation_distance=simulator.geometry.propagation_distance,
            title=name,
        )

    optics = settings.model_dump(include={"psf_sigma_px", "oversampling"})
    return produce(
        workspace,
        "scans",
        "twin-scan",
        parameters={
            **optics,
            "distance_mm": distance_mm,
            "photons": photons,
            "rotation_centre": centre,
            "seed": seed,
        },
        inputs={"labels": labels, "real": real},
        packages=("optics", "beamline"),
        build=build,
    )


def same_axis(
    workspace: Workspace, volume: Artefact, settings: ReconstructionSettings
) -> ReconstructionSettings:
    """``settings`` with the rotation centre of a volume: a twin has its axis where the real scan has it."""
    centre = json.loads((workspace.path(volume) / CENTRE).read_text())["centre_px"]
    return settings.model_copy(update={"rotation_centre": float(centre)})


def _paths(
    workspace: Workspace, real: Artefact, volume: Artefact, labels: Artefact
) -> tuple[str, str, float]:
    centre = json.loads((workspace.path(volume) / CENTRE).read_text())["centre_px"]
    return str(workspace.path(real) / SCAN), str(workspace.path(labels)), float(centre)


@functools.lru_cache(maxsize=2)
def _simulator(
    scan: str, labels: str, centre: float, settings_json: str, distance_mm: float, photons: float, seed: int
) -> ScanSimulator:
    settings = FidelitySettings.model_validate_json(settings_json)
    real = read_scan(scan)
    volume, voxel_size = read_labels(Path(labels) / LABELS)
    classes = json.loads((Path(labels) / CLASSES).read_text())
    return ScanSimulator(
        labels=volume,
        voxel_size=voxel_size,
        materials={
            c["label"]: Material(c["formula"], c["density_kg_per_m3"], ((c["formula"], 1.0),))
            for c in classes
        },
        geometry=ScanGeometry(real.angles, real.pixel_size, mm_to_m(distance_mm), centre),
        beam=Beam(real.energy_kev, photons),
        # Even and steady: what the real detector and beam do to the flat-corrected picture is not known.
        detector=Detector(
            psf_sigma=settings.psf_sigma_px, column_gain_sigma=0.0, column_drift_sigma=0.0, beam_ripple=0.0
        ),
        seed=component_seed(seed, "twin", 0),
        oversampling=settings.oversampling,
    )


def _project_piece(*arguments: Any) -> None:
    *common, start, stop, path = arguments
    write_frame_batch(path, _simulator(*common).projections(slice(start, stop)))


def pixel_size_um(scan: Scan) -> float:
    """Detector pixel at the sample [µm], without the digits of conversion."""
    return round(m_to_um(scan.pixel_size), 6)
