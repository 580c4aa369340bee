"""The fidelity report: a real scan against its twins by wave optics and by absorption only, measured and published."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from prefect import task

from tasks.artefacts import OPTIONS
from tasks.cluster import Compute
from tasks.fidelity import (
    air_of,
    few_angles,
    photons_of,
    pixel_size_um,
    read_classes,
    real_transmission,
)
from tasks.progress import StageProgress
from tasks.publishing import publish_version
from tasks.scans import SCAN
from tasks.volumes import CENTRE, VOLUME
from tomoforge.beamline import read_scan
from tomoforge.errors import InputError
from tomoforge.fidelity import Fidelity, compare_images, pool, reference_range
from tomoforge.fidelity.calibration import CalibrationCheck, check_calibration
from tomoforge.fidelity.pictures import difference_picture, distance_picture
from tomoforge.fidelity.settings import FidelitySettings
from tomoforge.reconstruction import normalise
from tomoforge.results import Picture, Table
from tomoforge.scan import batch_slices
from tomoforge.storage import Artefact, Workspace
from tomoforge.units import kev_to_wavelength, mm_to_m, rad_to_deg
from tomoforge.volumes import open_level

WAVE, ABSORPTION = "wave optics", "absorption only"
_BATCH = 30  # images a future
_CALIBRATION_SEED = 0  # of the flats and darks that are forged to be compared
_TIMEOUT_S = 3600.0
_EQUAL = {"ssim": 5e-4, "psnr_db": 0.02}  # a tie: less than one more draw of the noise changes

Piece = tuple[str, str, int, int, float, float, int]


@task(name="publish-fidelity", **OPTIONS)
def publish_fidelity(
    compute: Compute,
    workspace: Workspace,
    real: Artefact,
    volume: Artefact,
    labels: Artefact,
    twins: Mapping[str, tuple[Artefact, Artefact]],
    *,
    tried: Sequence[Mapping[str, float]],
    settings: FidelitySettings,
    name: str,
    sources: Mapping[str, str],
) -> tuple[str, list[dict]]:
    """Measure and publish; ``twins`` : model → (scan, volume). Returns the identifier and the table's rows."""
    folder = workspace.path(volume)
    record = read_scan(workspace.path(real) / SCAN)
    centre = json.loads((folder / CENTRE).read_text())["centre_px"]
    rows = []
    for model, (scan, reconstruction) in twins.items():
        projections = _compared(
            compute,
            _projection_piece,
            str(workspace.path(real) / SCAN),
            str(workspace.path(scan) / SCAN),
            record.projections.shape[0],
            reference_range(real_transmission(record, few_angles(record))),
            0,
            f"{model}: projections compared",
        )
        half = inscribed_half_width(record.projections.shape[2], centre)
        slices = _compared(
            compute,
            _slice_piece,
            str(folder / VOLUME),
            str(workspace.path(reconstruction) / VOLUME),
            record.projections.shape[1],
            reference_range(_slices(folder / VOLUME, 0, record.projections.shape[1], half, step=8)),
            half,
            f"{model}: slices compared",
        )
        for images, pair in (("projections", projections), ("slices", slices)):
            rows += [_row(model, images, scaling, found) for scaling, found in pair.items()]
    table = pd.DataFrame(rows)
    distance = float(tried[0]["distance_mm"])
    fitted = len(tried) > 1
    fresnel_number = record.pixel_size**2 / (kev_to_wavelength(record.energy_kev) * mm_to_m(distance))
    air = air_of(workspace, real)
    pictures = _pictures(workspace, real, volume, twins, name, half)
    tables = {
        "metrics": Table(
            table,
            "SSIM (Gaussian window, σ 1.5 px, 11 × 11) and PSNR against the real scan, as they are and after one "
            "factor for all images (least squares). data_range is the middle 99.8 % of the real images' values.",
        ),
        "classes": Table(
            pd.DataFrame(read_classes(workspace, labels)),
            "µ measured in the reconstruction; the formula gives δ/β alone, its density is scaled to that µ.",
        ),
    }
    if fitted:
        curve = pd.DataFrame(tried).sort_values("distance_mm")
        tables["distances"] = Table(
            curve, "A few projections by wave optics at each distance that was tried."
        )
        pictures["distances"] = Picture(
            distance_picture(*(curve[column].tolist() for column in ("distance_mm", "ssim", "psnr_db"))),
            "How alike projections are, against the distance assumed.",
        )
    calibration, said = _calibration(compute, workspace, real)
    tables |= calibration
    best = _as_they_are(rows)
    identifier = publish_version(
        workspace,
        "fidelity",
        labels.key.replace("twin-labels", "fidelity"),
        title=f"Fidelity of the simulation of {name}",
        summary={
            **{
                f"{metric}_{images}_{model.split()[0]}": best[model, images, metric]
                for images in ("projections", "slices")
                for metric in ("ssim", "psnr_db")
                for model in twins
            },
            "distance_mm": distance,
            "distance_fitted": fitted,
            "fresnel_number_of_a_pixel": fresnel_number,
            "energy_kev": record.energy_kev,
            "pixel_size_um": pixel_size_um(record),
            "centre_px": centre,
            "photons": photons_of(workspace, real, settings),
            "air_before_scaling": air["before"] if air["before"] is not None else "not scaled",
            "projections": record.projections.shape[0],
        },
        pictures=pictures,
        tables=tables,
        warnings=[*_warnings(best, twins, tried, fresnel_number), *said],
        sources=sources,
        provenance={
            "settings": settings.model_dump(mode="json"),
            "artefacts": {
                "scan": real.key,
                "volume": volume.key,
                "labels": labels.key,
                **{model: scan.key for model, (scan, _) in twins.items()},
            },
        },
    )
    return identifier, rows


def _calibration(
    compute: Compute, workspace: Workspace, real: Artefact
) -> tuple[dict[str, Table], list[str]]:
    """The detector that is calibrated on the scan's own flats and darks against them, and warnings."""
    raw = Artefact(**workspace.read_provenance(real)["inputs"]["scan"])  # ``real`` has flats of 1
    path = str(workspace.path(raw) / SCAN)
    found, said = compute.run(_calibration_piece, path, timeout_s=_TIMEOUT_S)
    if found is None:
        return {}, [f"flats and darks do not calibrate the simulator: {said}"]
    return {
        "calibration": Table(
            found.parameters,
            "What the scan's flats and darks measure, and what as many do that the simulator forges when it is "
            "calibrated on them, each with its standard error; at most 20 frames of each, their middle 512 × 512 "
            "pixels.",
        ),
        "calibration_counts": Table(
            found.counts, "How the counts of those frames are spread: counts low … high, % of the pixels."
        ),
    }, [f"flats and darks: {warning}" for warning in found.warnings]


def _calibration_piece(path: str) -> tuple[CalibrationCheck | None, str]:
    scan = read_scan(path)
    try:
        found = check_calibration(scan.flats, scan.darks, _CALIBRATION_SEED)
    except InputError as error:
        return None, str(error)
    return found, "" if found is not None else "they do not tell how many photons there were"


def inscribed_half_width(columns: int, centre: float) -> int:
    """Half the side [pixels] of the square about the axis that lies within the circle every angle sees.

    Beyond that circle slices are zero in both volumes, which would count as agreement.
    """
    return int((min(centre, columns - 1 - centre) + 0.5) / np.sqrt(2))


def _compared(
    compute: Compute,
    function: Callable[..., tuple],
    reference: str,
    simulated: str,
    count: int,
    data_range: float,
    half: int,
    title: str,
) -> dict[str, Fidelity]:
    """All images compared in parts on the workers, as they are and after one factor for all."""
    batches = batch_slices(count, _BATCH)

    def measured(scale: float) -> tuple[Fidelity, float]:
        pieces = [(reference, simulated, b.start, b.stop, data_range, scale, half) for b in batches]
        parts = compute.map(function, pieces, timeout_s=_TIMEOUT_S, progress=StageProgress(title))
        products, powers = (sum(part[n] for part in parts) for n in (1, 2))
        return pool([part[0] for part in parts]), products / powers if powers > 0 else 1.0

    plain, factor = measured(1.0)
    return {"none": plain, "one factor": measured(factor)[0]}


def _projection_piece(
    reference: str, simulated: str, start: int, stop: int, data_range: float, scale: float, half: int
) -> tuple[Fidelity, float, float]:
    real, twin = (_transmission(path, start, stop) for path in (reference, simulated))
    return _measured(real, twin, data_range, scale)


def _slice_piece(
    reference: str, simulated: str, start: int, stop: int, data_range: float, scale: float, half: int
) -> tuple[Fidelity, float, float]:
    real, twin = (_slices(Path(path), start, stop, half) for path in (reference, simulated))
    return _measured(real, twin, data_range, scale)


def _measured(
    real: np.ndarray, twin: np.ndarray, data_range: float, scale: float
) -> tuple[Fidelity, float, float]:
    """The comparison, and the two sums that the least-squares factor of all parts is made of."""
    return (
        compare_images(real, twin, data_range, scale=scale),
        float(np.sum(np.multiply(real, twin, dtype=np.float64))),
        float(np.sum(np.square(twin, dtype=np.float64))),
    )


def _transmission(path: str, start: int, stop: int) -> np.ndarray:
    scan = read_scan(path)
    return normalise(scan.projections[start:stop], scan.flats, scan.darks)


def _slices(path: Path, start: int, stop: int, half: int, step: int = 1) -> np.ndarray:
    level = open_level(path)
    middle = level.shape[1] // 2
    inside = slice(max(middle - half, 0), middle + half)
    return np.asarray(level[start:stop:step, inside, inside])


def _row(model: str, images: str, scaling: str, found: Fidelity) -> dict:
    return {
        "images": images,
        "model": model,
        "scaling": scaling,
        "ssim": found.ssim,
        "psnr_db": found.psnr,
        "rmse": found.rmse,
        "factor": found.scale,
        "data_range": found.data_range,
        "count": found.images,
    }


def _as_they_are(rows: Sequence[Mapping]) -> dict[tuple[str, str, str], float]:
    """(model, images, metric) → value, without any scaling."""
    return {
        (row["model"], row["images"], metric): row[metric]
        for row in rows
        if row["scaling"] == "none"
        for metric in _EQUAL
    }


def _warnings(
    best: Mapping[tuple[str, str, str], float],
    twins: Mapping[str, tuple[Artefact, Artefact]],
    tried: Sequence[Mapping[str, float]],
    fresnel_number: float,
) -> list[str]:
    """Where wave optics is worse than absorption only, and what is known of why."""
    found = []
    distance = tried[0]["distance_mm"]
    at_border = len(tried) > 1 and distance == min(row["distance_mm"] for row in tried)
    if at_border:
        found.append(
            f"the distance was fitted and {distance:g} mm, the smallest tried, fits best: the scan shows no fringes "
            "that the labels could explain, and the comparison cannot tell the models apart"
        )
    elif len(tried) > 1:
        found.append(f"the distance was not recorded; {distance:g} mm fits best of {len(tried)} tried")
    if {WAVE, ABSORPTION} <= set(twins):
        for images in ("projections", "slices"):
            for metric, tie in _EQUAL.items():
                lead = best[WAVE, images, metric] - best[ABSORPTION, images, metric]
                if lead < -tie:
                    unit = "dB" if metric == "psnr_db" else ""
                    found.append(
                        f"wave optics is worse than absorption only in {metric.split('_')[0].upper()} of {images} by "
                        f"{-lead:.4f} {unit}".rstrip()
                        + f"; a pixel has the Fresnel number {fresnel_number:.3g} at {distance:g} mm, and the steps of "
                        "labels as fine as the pixels make fringes that a smooth surface does not"
                    )
    return found


def _pictures(
    workspace: Workspace,
    real: Artefact,
    volume: Artefact,
    twins: Mapping[str, tuple[Artefact, Artefact]],
    name: str,
    half: int,
) -> dict[str, Picture]:
    record = read_scan(workspace.path(real) / SCAN)
    number = record.projections.shape[0] // 2
    row = _busiest_row(workspace.path(volume) / VOLUME, half)
    angle = rad_to_deg(float(record.angles[number]))
    projections = [
        (model, _transmission(str(workspace.path(scan) / SCAN), number, number + 1)[0])
        for model, (scan, _) in twins.items()
    ]
    slices = [
        (model, _slices(workspace.path(twin) / VOLUME, row, row + 1, half)[0])
        for model, (_, twin) in twins.items()
    ]
    return {
        "projection": Picture(
            difference_picture(
                real_transmission(record, [number])[0], projections, "transmission", f"{name}, {angle:.1f}°"
            ),
            f"Flat-corrected projection at {angle:.1f}°, real and simulated, and their difference.",
        ),
        "slice": Picture(
            difference_picture(
                _slices(workspace.path(volume) / VOLUME, row, row + 1, half)[0],
                slices,
                "µ [1/m]",
                f"{name}, slice {row}",
            ),
            f"FBP slice {row}, of the real and of the simulated scans, and their difference.",
        ),
    }


def _busiest_row(path: Path, half: int) -> int:
    """The slice with the most contrast."""
    rows = _slices(path, 0, open_level(path).shape[0], half)
    return int(np.argmax(rows.std(axis=(1, 2))))
