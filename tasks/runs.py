"""One end-to-end run in a page: headline figures for the terminal and the dashboard."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from prefect import task

from tasks.absorption import read_factors
from tasks.artefacts import OPTIONS
from tasks.correction_report import Correction, compared_with, comparison_table
from tasks.merging import read_merged
from tasks.publishing import (
    OUTSIDE,
    metrics_table,
    publish_version,
    training_domain_warnings,
)
from tasks.samples import LABELS
from tasks.scans import SCAN
from tasks.volumes import CENTRE, VOLUME
from tomoforge.beamline import read_scan
from tomoforge.config import OpticsSettings
from tomoforge.pictures import overview_picture
from tomoforge.reconstruction import normalise
from tomoforge.reconstruction.quality import interior_mu
from tomoforge.results import Picture, Table
from tomoforge.storage import Artefact, Workspace
from tomoforge.units import kev_to_wavelength, m_to_um, mm_to_m
from tomoforge.volumes import LABEL_NAMES, read_labels, read_volume

PHASE_SHARE = 0.03  # of µ: a larger part by propagation is said to dominate the error of µ


@dataclass(frozen=True)
class ForgedRun:
    """The artefacts of the held-out sample, and how many samples there were.

    contact : the volume of the same sample scanned without propagation, to tell what phase does to µ;
    correction : by true and by predicted labels, by the true ones alone where the model found no crystal.
    """

    samples: int
    labels: Artefact
    scan: Artefact
    volume: Artefact
    contact: Artefact
    model: Artefact
    segmentation: Artefact
    correction: Correction

    def keys(self) -> dict[str, str]:
        """Role → key of each artefact."""
        keys = {role: item.key for role, item in vars(self).items() if isinstance(item, Artefact)}
        traced = {f"factors_{source}": item.key for source, item in self.correction.factors.items()}
        return {**keys, **traced, "merging": self.correction.merged.key}


@dataclass(frozen=True)
class RealRun:
    """The artefacts of a real scan."""

    name: str
    scan: Artefact
    volume: Artefact
    model: Artefact
    segmentation: Artefact

    def keys(self) -> dict[str, str]:
        """Role → key of each artefact."""
        return {role: item.key for role, item in vars(self).items() if isinstance(item, Artefact)}


@dataclass(frozen=True)
class RunSummary:
    """What is said of a run at its end: its identifier and lines for a person."""

    identifier: str
    lines: tuple[str, ...]


@task(name="publish-run", **OPTIONS)
def publish_forged_run(
    workspace: Workspace,
    run: ForgedRun,
    *,
    optics: OpticsSettings,
    mu: Mapping[str, float],
    published: Mapping[str, str],
) -> RunSummary:
    """Publish the headline figures of a forged run; ``mu`` [1/m] is the true one, ``published`` its parts."""
    volume, voxel_size = read_volume(workspace.path(run.volume) / VOLUME)
    contact, _ = read_volume(workspace.path(run.contact) / VOLUME)
    truth, _ = read_labels(workspace.path(run.labels) / LABELS)
    predicted, _ = read_labels(workspace.path(run.segmentation) / LABELS)
    materials = _materials_table(volume, contact, truth, voxel_size, optics, mu)
    metrics = metrics_table(truth, predicted)
    compared = (
        compared_with(workspace, run.correction, run.correction.reference)
        if run.correction.reference
        else None
    )
    projections = optics.projections * run.samples
    summary: dict[str, Any] = {
        "samples_forged": run.samples,
        "projections": projections,
        **{f"f1_{row['class']}": row["f1"] for row in metrics.to_dict("records")},
    }
    warnings = training_domain_warnings(workspace, run.model, run.volume, optics.energy_kev)
    tables = {
        "materials": Table(materials, "Attenuation as reconstructed inside the true labels, against true."),
        "segmentation": Table(metrics, "Metrics on the sample that was not trained on."),
    }
    if compared is None:
        correction: tuple[str, ...] = (
            "A by predicted labels: none, the model found no crystal; train it longer",
        )
        warnings.append("the model found no crystal in the held-out sample: there are no absorption factors")
    else:
        merged = read_merged(workspace, run.correction.merged)
        correction = (
            f"A by predicted against true labels, {compared.count} reflections: mean |ΔA|/A "
            f"{compared.mean_absolute:.2%}, largest {compared.largest:.2%}",
            "",
            *merged.lines,
        )
        summary["mean_relative_difference"] = compared.mean_absolute
        summary["largest_relative_difference"] = compared.largest
        tables["absorption"] = Table(
            comparison_table(compared), "Absorption factors by predicted against those by true labels."
        )
        tables["merging"] = Table(merged.overall, merged.captions["merging"])
    scan = read_scan(workspace.path(run.scan) / SCAN)
    picture = overview_picture(
        truth,
        normalise(scan.projections[:1], scan.flats, scan.darks)[0],
        volume,
        predicted,
        *_factors(workspace, run.correction),
        voxel_size,
    )
    identifier = publish_version(
        workspace,
        "runs",
        _key(run.keys()),
        title=f"End to end: {run.samples} forged samples",
        summary=summary,
        pictures={"overview": Picture(picture, "Sample → projection → slice → labels → correction.")},
        tables=tables,
        warnings=warnings,
        sources=published,
    )
    lines = (
        f"samples forged   {run.samples} ({run.samples - 1} trained on, 1 held out)",
        f"projections      {projections}",
        "",
        *_material_lines(materials),
        "",
        *text_table(
            ("held-out sample", "F1", "IoU", "recall", "precision"),
            [
                (row["class"], *(f"{row[key]:.3f}" for key in ("f1", "iou", "recall", "precision")))
                for row in metrics.to_dict("records")
            ],
        ),
        "",
        *correction,
    )
    return RunSummary(identifier, lines)


def _factors(workspace: Workspace, correction: Correction) -> tuple[np.ndarray, np.ndarray | None]:
    """Factors (reflection,) by true and by predicted labels, None for the latter where they show no crystal."""
    found = [read_factors(workspace, item)["absorption_factor"] for item in correction.factors.values()]
    return found[0].to_numpy(), found[1].to_numpy() if len(found) > 1 else None


@task(name="publish-real-run", **OPTIONS)
def publish_real_run(workspace: Workspace, run: RealRun, *, published: Mapping[str, str]) -> RunSummary:
    """Publish the headline figures of a real scan, what is to be distrusted first."""
    scan = read_scan(workspace.path(run.scan) / SCAN)
    centre = json.loads((workspace.path(run.volume) / CENTRE).read_text())
    predicted, _ = read_labels(workspace.path(run.segmentation) / LABELS)
    counts = np.bincount(predicted.ravel(), minlength=len(LABEL_NAMES))
    warnings = training_domain_warnings(workspace, run.model, run.volume, scan.energy_kev)
    if not centre["agreed"]:
        warnings.append(f"the rotation centre is uncertain by {centre['spread_px']:.2f} px")
    summary = {
        "projections": scan.projections.shape[0],
        "energy_kev": scan.energy_kev,
        "pixel_size_um": round(m_to_um(scan.pixel_size), 6),
        "centre_px": centre["centre_px"],
        "centre_spread_px": centre["spread_px"],
        **{f"voxels_{name}": int(counts[value]) for name, value in LABEL_NAMES.items() if value},
    }
    identifier = publish_version(
        workspace,
        "runs",
        _key(run.keys()),
        title=f"Real scan {run.name}" + (f" ({OUTSIDE})" if warnings else ""),
        summary=summary,
        warnings=warnings,
        sources=published,
    )
    lines = (
        f"real scan        {run.name}: {summary['projections']} projections, {scan.energy_kev:g} keV, "
        f"{summary['pixel_size_um']:g} µm",
        f"rotation centre  {centre['centre_px']:.2f} px (spread {centre['spread_px']:.2f})",
        *(f"WARNING          {warning}" for warning in warnings),
    )
    return RunSummary(identifier, lines)


def _materials_table(
    volume: np.ndarray,
    contact: np.ndarray,
    truth: np.ndarray,
    voxel_size: float,
    optics: OpticsSettings,
    true_mu: Mapping[str, float],
) -> pd.DataFrame:
    """µ of each material inside its true labels, as reconstructed, against the true value.

    The same sample without propagation tells absorption from phase: where the two reconstructions differ by
    more than PHASE_SHARE of µ, the phase dominates the error, and the note says so.
    """
    fringe = math.sqrt(kev_to_wavelength(optics.energy_kev) * mm_to_m(optics.distance_mm))
    rows = []
    for name, mu in true_mu.items():
        label = LABEL_NAMES[name]
        measured = interior_mu(volume, truth, voxel_size, label, fringe)
        without_phase = interior_mu(contact, truth, voxel_size, label, fringe).median
        phase = (measured.median - without_phase) / mu
        if measured.thin:
            note = f"phase dominates: nowhere further than {m_to_um(measured.margin):.1f} µm from an edge"
        elif abs(phase) > PHASE_SHARE:
            note = f"phase dominates: it adds {100 * phase:+.1f} %, in contact {100 * (without_phase / mu - 1):+.1f} %"
        else:
            note = f"median of {measured.voxels} voxels; in contact {100 * (without_phase / mu - 1):+.1f} %"
        rows.append(
            {
                "material": name,
                "mu_true_per_m": mu,
                "mu_reconstructed_per_m": measured.median,
                "difference_percent": 100 * (measured.median / mu - 1),
                "mu_in_contact_per_m": without_phase,
                "note": note,
            }
        )
    return pd.DataFrame(rows)


def _material_lines(materials: pd.DataFrame) -> list[str]:
    def number(value: float, form: str) -> str:
        return "–" if math.isnan(value) else format(value, form)

    return text_table(
        ("µ [1/m]", "true", "reconstructed", "difference", "   note"),
        [
            (
                row["material"],
                number(row["mu_true_per_m"], ".0f"),
                number(row["mu_reconstructed_per_m"], ".0f"),
                number(row["difference_percent"], "+.1f") + " %",
                f"   {row['note']}",
            )
            for row in materials.to_dict("records")
        ],
    )


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in columns: numbers to the right, text (and the heading over it) to the left."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    left = [i in (0,) or any(len(row[i]) > 12 for row in rows) for i in range(len(header))]
    return [
        "  ".join(
            cell.ljust(width) if left[i] else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]


def _key(keys: Mapping[str, str]) -> str:
    text = " ".join(f"{role}={key}" for role, key in sorted(keys.items()))
    return f"run-{hashlib.sha256(text.encode()).hexdigest()[:20]}"
