"""What each stage shows to people: manifests, tables and pictures under ``published/``."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import task
from prefect.runtime import flow_run

from tasks.artefacts import OPTIONS
from tasks.predictions import UNCERTAINTY, label_voxels, mean_uncertainty, said_of
from tasks.quick_looks import CENTRE, LOOK, SINOGRAM, TRIED, open_scan
from tasks.samples import LABELS, RECORD, TILE
from tasks.scans import REPORT, SCAN
from tasks.segmenter import MODEL, model_folders
from tasks.volume_report import (
    axis_summary,
    axis_warnings,
    contrast_of,
    contrast_warnings,
    quality_warnings,
)
from tasks.volumes import QUALITY, VOLUME
from tomoforge.beamline import read_scan
from tomoforge.pictures import (
    labels_picture,
    overlay_picture,
    projection_picture,
    training_picture,
    uncertainty_picture,
)
from tomoforge.reconstruction import line_integrals, normalise, sinogram_picture, slice_pictures
from tomoforge.results import Picture, Table, publish
from tomoforge.segmentation.domain import domain_warnings
from tomoforge.segmentation.fingerprint import thinned
from tomoforge.segmentation.metrics import class_metrics
from tomoforge.storage import Artefact, Workspace, to_json
from tomoforge.units import m_to_um, rad_to_deg
from tomoforge.volumes import LABEL_NAMES, open_level, read_labels, read_voxel_size

OUTSIDE = "outside the training domain"

# Of a sample's record, what its page shows; the whole is in its table of the set and in record.json.
_SHOWN_OF_SAMPLES = (
    *("habit", "mount", "crystals", "liquor_kind", "liquor", "engine", "drift_share", "bubbles"),
    *("crystal_aspect", "crystal_wetted_share", "loop_wetted_share", "truncated"),
    *("packing_fraction", "requested_packing_fraction", "grains"),
)


def publish_version(
    workspace: Workspace,
    kind: str,
    key: str,
    *,
    title: str,
    summary: Mapping[str, Any],
    pictures: Mapping[str, Picture] | None = None,
    tables: Mapping[str, Table] | None = None,
    warnings: Sequence[str] = (),
    sources: Mapping[str, str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> str:
    """Publish under ``key`` and a digest of what is shown; return that identifier.

    Published results are never rewritten. When a later version shows an artefact otherwise, it is published
    beside the earlier one.
    """
    shown = {
        "title": title,
        "summary": {name: str(value) for name, value in summary.items()},
        "pictures": {n: [sha256(p.png).hexdigest(), p.caption] for n, p in (pictures or {}).items()},
        "tables": {n: [t.frame.to_csv(index=False), t.caption] for n, t in (tables or {}).items()},
        "warnings": list(warnings),
        "sources": dict(sources or {}),
        "provenance": dict(provenance or {}),
    }
    identifier = f"{key}-{sha256(to_json(shown).encode()).hexdigest()[:8]}"
    publish(
        workspace.folder("published"),
        kind,
        identifier,
        title=title,
        summary=summary,
        pictures=pictures,
        tables=tables,
        warnings=warnings,
        sources=sources,
        provenance=provenance,
        run={"flow_run": flow_run.name, "flow_run_id": flow_run.id, "flow": flow_run.flow_name},
    )
    return identifier


def published_as(workspace: Workspace, kind: str, key: str) -> str | None:
    """The identifier under which an artefact was last published, None if it was not."""
    manifests = list((workspace.folder("published") / kind).glob(f"{key}-????????/manifest.json"))
    newest = max(manifests, key=lambda path: (path.stat().st_mtime_ns, path.parent.name), default=None)
    return newest.parent.name if newest is not None else None


def recorded_of(workspace: Workspace, artefact: Artefact) -> dict[str, Any]:
    """The provenance of an artefact without its list of files."""
    return {k: v for k, v in workspace.read_provenance(artefact).items() if k != "files"}


@task(name="publish-sample", **OPTIONS)
def publish_sample(workspace: Workspace, labels: Artefact, *, index: int) -> str:
    """A forged sample: slices of its labels and how it came about."""
    folder = workspace.path(labels)
    record = json.loads((folder / RECORD).read_text())
    forging = record["forging"]
    volume, voxel_size = read_labels(folder / LABELS)
    slices = "Middle slices of the forged labels."
    return publish_version(
        workspace,
        "samples",
        labels.key,
        provenance=recorded_of(workspace, labels),
        title=f"Sample {index}: {record['title']}",
        summary={
            "grid": volume.shape[0],
            "voxel_size_um": round(m_to_um(voxel_size), 6),
            **{name: forging[name] for name in _SHOWN_OF_SAMPLES if name in forging},
            **{name: value for name, value in forging.items() if name.startswith("fraction_")},
            "rejected_tries": len(record["rejected"]),
        },
        pictures={
            "view": Picture(
                (folder / TILE).read_bytes(), "The sample as one would see it; inset: an axial slice."
            ),
            "labels": Picture(labels_picture(volume, voxel_size, record["title"]), slices),
        },
    )


@task(name="publish-scan", **OPTIONS)
def publish_scan(
    workspace: Workspace, scan: Artefact, *, name: str, sources: Mapping[str, str] | None = None
) -> str:
    """A scan: one projection, one sinogram, and what validation had to say."""
    folder = workspace.path(scan)
    record = open_scan(folder / SCAN)
    middle = record.projections.shape[0] // 2
    row = record.projections.shape[1] // 2
    transmission = normalise(record.projections[middle : middle + 1], record.flats, record.darks)[0]
    counts = record.rows(row, row + 1)
    sinogram, _ = line_integrals(
        normalise(counts, record.flats[:, row : row + 1], record.darks[:, row : row + 1])
    )
    angle = rad_to_deg(float(record.angles[middle]))
    report = folder / REPORT
    warnings = json.loads(report.read_text())["warnings"] if report.exists() else []
    return publish_version(
        workspace,
        "scans",
        scan.key,
        provenance=recorded_of(workspace, scan),
        title=f"Scan of {name}",
        summary={
            "projections": record.projections.shape[0],
            "rows": record.projections.shape[1],
            "columns": record.projections.shape[2],
            "energy_kev": record.energy_kev,
            "pixel_size_um": round(m_to_um(record.pixel_size), 6),
            "first_angle_deg": round(rad_to_deg(float(record.angles[0])), 4),
            "last_angle_deg": round(rad_to_deg(float(record.angles[-1])), 4),
        },
        pictures={
            "projection": Picture(
                projection_picture(transmission, record.pixel_size, f"{name}, {angle:.1f}°"),
                f"Flat-corrected projection at {angle:.1f}°.",
            ),
            "sinogram": Picture(
                sinogram_picture(sinogram[:, 0], record.angles, f"{name}, detector row {row}"),
                f"Sinogram of detector row {row}: line integrals over angle.",
            ),
        },
        warnings=warnings,
        sources=sources,
    )


@task(name="publish-preview", **OPTIONS)
def publish_preview(workspace: Workspace, look: Artefact, *, name: str, sources: Mapping[str, str]) -> str:
    """A few slices of a scan before the whole is reconstructed, and the axis they were made about."""
    folder = workspace.path(look)
    about = json.loads((folder / LOOK).read_text())
    centre = json.loads((folder / CENTRE).read_text())
    recorded = recorded_of(workspace, look)
    pictures = {
        f"axial_{row}": Picture(
            (folder / f"axial_{row}.png").read_bytes(), f"Slice of detector row {row}, µ."
        )
        for row in about["rows"]
    }
    approximate = []
    if recorded["parameters"]["delta_beta"] is not None or centre["tilt_rad"]:
        approximate.append("steps that need whole frames are only approximate in a preview")
    return publish_version(
        workspace,
        "previews",
        look.key,
        provenance=recorded,
        title=f"Preview of {name}",
        summary={
            **axis_summary(centre),
            **contrast_of(recorded["parameters"], centre),
            "wild_pixels": centre["wild_pixels"],
        },
        pictures={**pictures, **_axis_pictures(folder)},
        warnings=[
            *axis_warnings(centre),
            *contrast_warnings(recorded["parameters"], centre),
            *approximate,
        ],
        sources=sources,
    )


@task(name="publish-volume", **OPTIONS)
def publish_volume(workspace: Workspace, volume: Artefact, *, name: str, sources: Mapping[str, str]) -> str:
    """A reconstruction: three slices, the rotation centre, the range of µ, and how far to trust it."""
    folder = workspace.path(volume)
    array, voxel_size = open_level(folder / VOLUME), read_voxel_size(folder / VOLUME)
    centre = json.loads((folder / CENTRE).read_text())
    quality = json.loads((folder / QUALITY).read_text())
    recorded = recorded_of(workspace, volume)
    low, median, high = quality.pop("percentiles_per_m")
    pictures = {
        plane: Picture(png, f"Middle {plane} slice, attenuation coefficient µ.")
        for plane, png in slice_pictures(array, voxel_size, name).items()
    }
    return publish_version(
        workspace,
        "volumes",
        volume.key,
        provenance=recorded,
        title=f"Reconstruction of {name}",
        summary={
            **axis_summary(centre),
            "voxel_size_um": round(m_to_um(voxel_size), 6),
            "mu_1_percent_per_m": low,
            "mu_median_per_m": median,
            "mu_99_percent_per_m": high,
            **contrast_of(recorded["parameters"], centre),
            "mu_noise_per_m": quality["noise"],
            "mu_rings_per_m": quality["ring_strength"],
            "edge_residual": quality["edge_residual"],
            "centre_confidence": quality["centre_confidence"],
            "angular_completeness": quality["angular_completeness"],
            "angular_sampling": quality["angular_sampling"],
            "clipped_pixels": quality["clipped_pixels"],
            "zingers": quality["zingers"],
            "repaired_pixels": quality["repaired_pixels"],
        },
        pictures={**pictures, **_axis_pictures(folder)},
        warnings=[
            *axis_warnings(centre),
            *contrast_warnings(recorded["parameters"], centre),
            *quality_warnings(quality, recorded["parameters"], centre["pixels"]),
        ],
        sources=sources,
    )


def _axis_pictures(folder: Path) -> dict[str, Picture]:
    """The sinogram, and the slices about several centres where they were made."""
    found = {
        "sinogram": Picture(
            (folder / SINOGRAM).read_bytes(), "Sinogram of a middle row as it went into the back-projection."
        )
    }
    if (folder / TRIED).exists():
        found["centres"] = Picture(
            (folder / TRIED).read_bytes(),
            "One slice about several rotation centres; the right one has no arcs.",
        )
    return found


@task(name="publish-model", **OPTIONS)
def publish_model(workspace: Workspace, model: Artefact) -> str:
    """A trained segmenter: its training curve and what it was trained on."""
    folder = workspace.path(model) / MODEL
    about = json.loads((folder / "model.json").read_text())
    curve = pd.read_csv(folder / "training_curve.csv")
    dice = curve[[c for c in curve.columns if c.startswith("pseudo_dice_")]].mean(axis=1)
    return publish_version(
        workspace,
        "models",
        model.key,
        provenance=recorded_of(workspace, model),
        title=f"Segmenter of {len(curve)} epochs",
        summary={k: v for k, v in about.items() if isinstance(v, (str, int, float, bool))},
        pictures={
            "training_curve": Picture(
                training_picture(curve["epoch"].tolist(), curve["training_loss"].tolist(), dice.tolist()),
                "Loss and pseudo-Dice over the epochs.",
            )
        },
        tables={"training_curve": Table(curve, "Training by epoch.")},
    )


def metrics_table(truth: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
    """The five metrics of every class but the background, a row each."""
    return class_metrics(truth, predicted, LABEL_NAMES).drop(index="background").reset_index()


def training_domain_warnings(
    workspace: Workspace, model: Artefact, volume: Artefact, energy_kev: float | None
) -> list[str]:
    """Why a volume is unlike those that the model was trained on; empty if it is alike."""
    place = workspace.path(volume) / VOLUME
    folder = model_folders(workspace, model)[0]  # folds have seen alike volumes
    values = thinned(open_level(place))
    reasons = domain_warnings(folder, values, read_voxel_size(place), energy_kev=energy_kev)
    return [f"{OUTSIDE}: {reason}" for reason in reasons]


@task(name="publish-segmentation", **OPTIONS)
def publish_segmentation(
    workspace: Workspace,
    segmentation: Artefact,
    volume: Artefact,
    model: Artefact,
    *,
    name: str,
    sources: Mapping[str, str],
    truth: Artefact | None = None,
    scan: Artefact | None = None,
    energy_kev: float | None = None,
) -> str:
    """Predicted labels over the volume, how unsure the model is of them, what is implausible, and the metrics where
    the truth is known.

    The energy, to be compared with the training's, is given or read from the scan.
    """
    if scan is not None and energy_kev is None:
        energy_kev = read_scan(workspace.path(scan) / SCAN).energy_kev
    place, folder = workspace.path(volume) / VOLUME, workspace.path(segmentation)
    voxel_size = read_voxel_size(place)
    warnings = training_domain_warnings(workspace, model, volume, energy_kev)
    predicted = open_level(folder / LABELS)
    rows = [("predicted", predicted)]
    tables, summary = {}, {}
    if truth is not None:
        rows.append(("truth", open_level(workspace.path(truth) / LABELS)))
        true, _ = read_labels(workspace.path(truth) / LABELS)
        metrics = metrics_table(true, read_labels(folder / LABELS)[0])
        tables["metrics"] = Table(metrics, "Metrics of each class against the true labels.")
        summary = {f"f1_{row['class']}": row["f1"] for _, row in metrics.iterrows()}
    counted = label_voxels(workspace, segmentation)
    summary |= {f"voxels_{label}": counted[label] for label, value in LABEL_NAMES.items() if value}
    unsure = mean_uncertainty(workspace, segmentation)
    if unsure is not None:
        summary["uncertainty_crystal"] = round(unsure, 4)
    title = f"Segmentation of {name}" + (f" ({OUTSIDE})" if warnings else "")
    pictures = {
        "overlay": Picture(
            overlay_picture(open_level(place), rows, voxel_size, title),
            "Outlines of the labels on the reconstruction.",
        )
    }
    if (folder / UNCERTAINTY).is_dir():
        pictures["uncertainty"] = Picture(
            uncertainty_picture(open_level(folder / UNCERTAINTY), predicted, voxel_size, title),
            "How unsure the model is, by its own account, in the same slices: look where it is bright within the "
            "sample.",
        )
    return publish_version(
        workspace,
        "segmentations",
        segmentation.key,
        provenance=recorded_of(workspace, segmentation),
        title=title,
        summary=summary,
        pictures=pictures,
        tables=tables,
        warnings=[*warnings, *said_of(workspace, segmentation)],
        sources=sources,
    )
