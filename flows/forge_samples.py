"""Forge a set of labelled samples: any number, each by itself, and show what came out."""

from typing import Literal

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.forge_dataset import Grid, Samples
from flows.report import FlowReport, where_results_lie
from tasks.cluster import open_compute
from tasks.sample_sets import publish_sample_set
from tasks.samples import forge_sample, plan_forging
from tomoforge.config import ClusterSettings, ForgingSettings, Positive, Seed
from tomoforge.errors import StageError
from tomoforge.storage import Workspace
from tomoforge.units import um_to_m


@flow(task_runner=ThreadPoolTaskRunner(max_workers=32))
def forge_samples(
    count: Samples = 24,
    seed: Seed = 1,
    grid: Grid = 128,
    voxel_size_um: Positive = 2.5,
    family: Literal["protein_crystal", "granular"] = "protein_crystal",
    forging: ForgingSettings = ForgingSettings(),
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport:
    """Forge labelled samples and show their gallery; what fails is recorded, the rest goes on.

    Args:
        count: How many samples to forge.
        seed: Of all that is drawn; the same seed gives the same bytes.
        grid: Voxels along each side of a sample's field.
        voxel_size_um: Voxel [µm].
        family: Crystals in liquor on a mount, or grains of some phases.
        forging: What may be drawn into the samples, and what drapes their liquor.
        cluster: Where the work is done.
    """
    workspace = Workspace.default()
    size = um_to_m(voxel_size_um)
    plan = plan_forging(forging, grid * size, family)
    with open_compute(cluster) as compute:
        futures = [
            forge_sample.submit(
                compute, workspace, seed=seed, index=index, grid=grid, voxel_size=size, plan=plan
            )
            for index in range(count)
        ]
        results = [future.result(raise_on_failure=False) for future in futures]
    failed = {i: str(result) for i, result in enumerate(results) if isinstance(result, Exception)}
    samples = {i: result for i, result in enumerate(results) if i not in failed}
    if not samples:
        raise StageError(f"none of {count} samples could be forged; the first: {failed[0]}")
    shown = publish_sample_set(workspace, samples, requested=count, seed=seed, failed=failed)
    lines = (*shown.lines, f"set             {shown.identifier}", *where_results_lie(workspace))
    return FlowReport(
        lines, {"sample_set": shown.identifier}, {f"sample_{i}": a.key for i, a in samples.items()}
    )
