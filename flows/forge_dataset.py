"""Forge labelled tomograms: samples → scans → volumes → a dataset for the segmenter."""

from dataclasses import dataclass
from typing import Annotated

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows.report import FlowReport, where_results_lie
from tasks.cluster import Compute, open_compute
from tasks.publishing import publish_sample, publish_scan, publish_volume
from tasks.samples import forge_sample, plan_forging
from tasks.scans import material_mu, simulate_scan
from tasks.segmenter import build_dataset
from tasks.volumes import reconstruct
from tomoforge.config import (
    ClusterSettings,
    ForgingSettings,
    OpticsSettings,
    Positive,
    ReconstructionSettings,
    Seed,
)
from tomoforge.storage import Artefact, Workspace
from tomoforge.units import um_to_m

Samples = Annotated[int, Field(ge=1, le=100_000)]
Grid = Annotated[int, Field(ge=32, le=2048)]


@dataclass(frozen=True)
class Forged:
    """Labels, scans and volumes of a forged set, in the order of its samples, and how each is published.

    published : for each sample role → identifier.
    """

    labels: list[Artefact]
    scans: list[Artefact]
    volumes: list[Artefact]
    published: list[dict[str, str]]


@flow(task_runner=ThreadPoolTaskRunner(max_workers=32))
def forge_dataset(
    samples: Samples = 6,
    seed: Seed = 1,
    grid: Grid = 128,
    voxel_size_um: Positive = 2.5,
    forging: ForgingSettings = ForgingSettings(),
    optics: OpticsSettings = OpticsSettings(),
    reconstruction: ReconstructionSettings = ReconstructionSettings(),
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport:
    """Forge labelled tomograms and gather them into a dataset.

    Args:
        samples: How many samples to forge.
        seed: Of all that is drawn; the same seed gives the same bytes.
        grid: Voxels along each side of a sample's field.
        voxel_size_um: Voxel and detector pixel [µm].
        forging: What may be drawn into the samples, and what drapes their liquor.
        optics: How the samples are scanned.
        reconstruction: How the scans are reconstructed.
        cluster: Where the work is done.
    """
    workspace = Workspace.default()
    with open_compute(cluster) as compute:
        forged = forge(
            compute, workspace, samples, seed, grid, voxel_size_um, forging, optics, reconstruction
        )
        dataset = build_dataset(workspace, forged.volumes, forged.labels)
    lines = (
        f"samples forged  {samples}, {optics.projections} projections each",
        f"dataset         {dataset.key}",
        *where_results_lie(workspace),
    )
    published = {f"sample_{n}": shown["sample"] for n, shown in enumerate(forged.published)}
    return FlowReport(lines, published, {"dataset": dataset.key})


def forge(
    compute: Compute,
    workspace: Workspace,
    samples: int,
    seed: int,
    grid: int,
    voxel_size_um: float,
    forging: ForgingSettings,
    optics: OpticsSettings,
    reconstruction: ReconstructionSettings,
) -> Forged:
    """Forge, scan, reconstruct and publish each sample; samples run side by side."""
    material_mu(optics)  # an unknown material must fail before anything is forged
    size = um_to_m(voxel_size_um)
    plan = plan_forging(forging, grid * size)
    labels, scans, volumes, published = [], [], [], []
    for n in range(samples):
        name = f"sample {n}"
        sample = forge_sample.submit(
            compute, workspace, seed=seed, index=n, grid=grid, voxel_size=size, plan=plan
        )
        scan = simulate_scan.submit(compute, workspace, sample, optics=optics, seed=seed, index=n)
        volume = reconstruct.submit(compute, workspace, scan, settings=reconstruction, name=name)
        shown_sample = publish_sample.submit(workspace, sample, index=n)
        shown_scan = publish_scan.submit(workspace, scan, name=name, sources={"sample": shown_sample})
        shown_volume = publish_volume.submit(workspace, volume, name=name, sources={"scan": shown_scan})
        published.append({"sample": shown_sample, "scan": shown_scan, "volume": shown_volume})
        labels.append(sample)
        scans.append(scan)
        volumes.append(volume)
    # Results in the order of the work: what failed first is what is raised.
    return Forged(
        [future.result() for future in labels],
        [future.result() for future in scans],
        [future.result() for future in volumes],
        [{role: future.result() for role, future in shown.items()} for shown in published],
    )
