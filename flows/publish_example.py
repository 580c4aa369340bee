"""A small workspace with something of everything, made by the flows that make it at a beamline, for trying it out."""

from prefect import flow

from flows.end_to_end import end_to_end
from flows.forge_dataset import Grid, Samples
from flows.forge_samples import forge_samples
from flows.ingest_beamline import ingest_beamline
from flows.promote import promote
from flows.rank_annotations import rank_annotations
from flows.report import FlowReport
from flows.segment_scan import segment_scan
from tasks.annotation_queue import annotation_candidates
from tasks.artefacts import find_by_key
from tasks.example import fill_inbox
from tasks.predictions import find_volume
from tasks.registry import champion_of, find_model
from tasks.segmenter import build_dataset
from tomoforge.config import (
    ClusterSettings,
    OpticsSettings,
    Positive,
    RotationSettings,
    Seed,
    TracingSettings,
    TrainingSchedule,
)
from tomoforge.storage import Workspace


@flow
def publish_example(
    samples: Samples = 4,
    seed: Seed = 1,
    grid: Grid = 64,
    voxel_size_um: Positive = 5.0,
    optics: OpticsSettings = OpticsSettings(),
    training: TrainingSchedule = TrainingSchedule(),
    rotation: RotationSettings = RotationSettings(),
    tracing: TracingSettings = TracingSettings(),
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport:
    """Fill a workspace with a little of everything that the dashboard shows, by real runs.

    The main job, small; a set of samples; its model promoted; an inbox with a forged scan in a beamline's place and a
    damaged one taken in; that scan segmented and queued for annotation. Best in a workspace of its own (--workspace).

    Args:
        samples: How many samples to forge, at least 2; the last is kept out of the training.
        seed: Of all that is drawn; the same seed gives the same bytes.
        grid: Voxels along each side of a sample's field.
        voxel_size_um: Voxel and detector pixel of the forged scans [µm].
        optics: How the forged samples are scanned.
        training: How long and how large the segmenter is trained.
        rotation: The twin, a synthetic rotation experiment.
        tracing: How well absorption factors are traced, and where µ comes from.
        cluster: Where the work is done.
    """
    workspace = Workspace.default()
    main = end_to_end(
        samples, seed, grid, voxel_size_um,
        optics=optics, training=training, rotation=rotation, tracing=tracing, cluster=cluster,
    )  # fmt: skip
    forged = forge_samples(samples, seed, grid, voxel_size_um, cluster=cluster)
    made = main.artefacts
    model = find_model(workspace, made["model"])
    unseen = build_dataset(
        workspace,
        [find_volume(workspace, made["volume"])],
        [find_by_key(workspace, "labels", made["labels"], "labels")],
    )
    promote(model.key, "the first model of the example", by="example", holdout=unseen.key, cluster=cluster)
    inbox = fill_inbox(workspace, find_by_key(workspace, "scans", made["scan"], "scan"))
    ingest_beamline(inbox, settle_s=0.0, cluster=cluster)
    shown = main.published | forged.published
    champion = champion_of(workspace)
    if champion is not None:  # the gate may have refused it
        for volume in annotation_candidates(workspace, champion).unseen:
            segment_scan(volume, cluster=cluster)
        shown |= rank_annotations().published
    return FlowReport(main.lines, shown, made)
