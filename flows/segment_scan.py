"""Segment a real scan, or a volume that was reconstructed before: volume → labels → export."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.reconstruct_scan import reconstruct_real
from flows.report import FlowReport, where_results_lie
from tasks.cluster import Compute, open_compute
from tasks.predictions import (
    PredictionSettings,
    export_labels,
    find_volume,
    mesh_labels,
    said_of,
    scan_of,
)
from tasks.publishing import publish_segmentation
from tasks.registry import champion_of, find_model
from tasks.scans import check_real_scan
from tasks.segmenter import segment
from tomoforge.config import ClusterSettings, Positive, ReconstructionSettings
from tomoforge.errors import InputError
from tomoforge.storage import Artefact, Workspace


@flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
def segment_scan(
    volume: str | None = None,
    scan: str | None = None,
    model: str = "champion",
    energy_kev: Positive | None = None,
    pixel_size_um: Positive | None = None,
    export: Literal["none", "tiff", "nrrd"] = "none",
    mesh: Literal["none", "ply", "stl"] = "none",
    prediction: PredictionSettings = PredictionSettings(),
    reconstruction: ReconstructionSettings = ReconstructionSettings(),
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport:
    """Segment a scan or a volume with a trained model, and say what is implausible about the labels.

    Args:
        volume: Key of a volume in the workspace, as reconstruct_scan printed it.
        scan: Path of a scan to be reconstructed first; either this or volume.
        model: Key of a model, or of a cross-validation, whose folds are then averaged; or champion.
        energy_kev: Photon energy [keV]; needed where the scan's file does not say it.
        pixel_size_um: Detector pixel at the sample [µm]; needed where the scan's file does not say it.
        export: Write the labels once more, as TIFF slices or as NRRD.
        mesh: Write the surface of each class, in micrometres.
        prediction: How the model is applied.
        reconstruction: How a scan is reconstructed.
        cluster: Where the work is done.
    """
    workspace = Workspace.default()
    if (volume is None) == (scan is None):
        raise InputError(
            "volume or scan must be given, and not both; reconstruct_scan prints keys of volumes"
        )
    segmenter = segmenter_of(workspace, model)
    found = find_volume(workspace, volume) if volume is not None else None
    if scan is not None:
        check_real_scan(scan, energy_kev, pixel_size_um)
    with open_compute(cluster) as compute:
        if scan is not None:
            made = segment_real(
                compute, workspace, segmenter, scan, energy_kev, pixel_size_um, reconstruction, prediction
            )
        else:
            assert found is not None
            made = _segmented(
                compute,
                workspace,
                segmenter,
                found,
                found.key,
                scan_of(workspace, found),
                {},
                energy_kev,
                prediction,
            )
        artefacts = {"model": segmenter.key, "volume": made.volume.key, "labels": made.labels.key}
        if export != "none":
            artefacts["export"] = export_labels(workspace, made.labels, format=export, name=made.name).key
        if mesh != "none":
            artefacts["meshes"] = mesh_labels(
                compute, workspace, made.labels, format=mesh, name=made.name
            ).key
    lines = [f"{what:8}{key}" for what, key in artefacts.items()]
    lines += [f"flag    {flag}" for flag in said_of(workspace, made.labels)]
    return FlowReport((*lines, *where_results_lie(workspace)), made.published, artefacts)


@dataclass(frozen=True)
class Segmented:
    """Labels of a volume, and how they and what they come from are published (role → identifier)."""

    name: str
    volume: Artefact
    labels: Artefact
    published: dict[str, str]


def segment_real(
    compute: Compute,
    workspace: Workspace,
    segmenter: Artefact,
    scan: str,
    energy_kev: float | None,
    pixel_size_um: float | None,
    reconstruction: ReconstructionSettings,
    prediction: PredictionSettings = PredictionSettings(),
) -> Segmented:
    """Import, reconstruct, segment and publish a real scan."""
    real = reconstruct_real(compute, workspace, scan, energy_kev, pixel_size_um, reconstruction)
    return _segmented(
        compute,
        workspace,
        segmenter,
        real.volume,
        real.name,
        real.scan,
        real.published,
        energy_kev,
        prediction,
    )


def _segmented(
    compute: Compute,
    workspace: Workspace,
    segmenter: Artefact,
    volume: Artefact,
    name: str,
    scan: Artefact | None,
    published: Mapping[str, str],
    energy_kev: float | None,
    prediction: PredictionSettings,
) -> Segmented:
    labels = segment(compute, workspace, segmenter, volume, name=name, settings=prediction)
    shown = publish_segmentation(
        workspace, labels, volume, segmenter,
        name=name, sources=dict(published), scan=scan, energy_kev=energy_kev,
    )  # fmt: skip
    return Segmented(name, volume, labels, {**published, "segmentation": shown})


def segmenter_of(workspace: Workspace, key: str) -> Artefact:
    """The model of this key, or the champion. Raises InputError where there is none."""
    if key != "champion":
        return find_model(workspace, key)
    champion = champion_of(workspace)
    if champion is None:
        raise InputError("model must be the key of a model where there is no champion yet; promote makes one")
    return champion
