"""The whole way of the data, small: forge, scan, reconstruct, train, segment, correct; and a real scan likewise."""

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.correct_absorption import Traced
from flows.forge_dataset import Forged, Grid, Samples, forge
from flows.reconstruct_scan import reconstruct_real
from flows.report import FlowReport, where_results_lie
from tasks.absorption import holds_crystal
from tasks.cluster import Compute, open_compute
from tasks.correction_report import SUBJECT, publish_correction
from tasks.predictions import PredictionSettings
from tasks.publishing import publish_model, publish_segmentation
from tasks.registry import register_model
from tasks.runs import ForgedRun, RealRun, publish_forged_run, publish_real_run
from tasks.scans import check_real_scan, material_mu, simulate_scan
from tasks.segmenter import build_dataset, segment, train
from tasks.volumes import reconstruct
from tomoforge.config import (
    ClusterSettings,
    DiffractionSettings,
    ForgingSettings,
    OpticsSettings,
    Positive,
    ReconstructionSettings,
    RotationSettings,
    Seed,
    TracingSettings,
    TrainingSchedule,
)
from tomoforge.errors import ConfigError
from tomoforge.storage import Artefact, Workspace


@flow(task_runner=ThreadPoolTaskRunner(max_workers=32))
def end_to_end(
    samples: Samples = 6,
    seed: Seed = 1,
    grid: Grid = 128,
    voxel_size_um: Positive = 2.5,
    scan: str | None = None,
    energy_kev: Positive | None = None,
    pixel_size_um: Positive | None = None,
    forging: ForgingSettings = ForgingSettings(),
    optics: OpticsSettings = OpticsSettings(),
    reconstruction: ReconstructionSettings = ReconstructionSettings(),
    training: TrainingSchedule = TrainingSchedule(),
    rotation: RotationSettings = RotationSettings(),
    tracing: TracingSettings = TracingSettings(),
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport:
    """Forge samples, train on all but the last, segment the last, and correct by truth and by prediction.

    With a scan, that real scan is taken through the same rooms afterwards.

    Args:
        samples: How many samples to forge, at least 2; the last is kept out of the training.
        seed: Of all that is drawn; the same seed gives the same bytes.
        grid: Voxels along each side of a sample's field.
        voxel_size_um: Voxel and detector pixel of the forged scans [µm].
        scan: Path of a real scan (NXtomo HDF5) to take through the same rooms.
        energy_kev: Photon energy of the real scan [keV]; needed where its file does not say it.
        pixel_size_um: Detector pixel of the real scan at the sample [µm]; needed where its file does not say it.
        forging: What may be drawn into the samples, and what drapes their liquor.
        optics: How the forged samples are scanned.
        reconstruction: How scans are reconstructed.
        training: How long and how large the segmenter is trained.
        rotation: The twin, a synthetic rotation experiment.
        tracing: How well absorption factors are traced, and where µ comes from.
        cluster: Where the work is done.
    """
    workspace = Workspace.default()
    _check(samples, scan, energy_kev, pixel_size_um)
    with open_compute(cluster) as compute:
        forged = forge(
            compute, workspace, samples, seed, grid, voxel_size_um, forging, optics, reconstruction
        )
        dataset = build_dataset(workspace, forged.volumes[:-1], forged.labels[:-1])
        model = train(compute, workspace, dataset, schedule=training, optics=optics, seed=seed)
        register_model(workspace, model)
        shown = publish_model(workspace, model)
        run = held_out(
            compute, workspace, forged, model, shown, optics, reconstruction, rotation, tracing, seed
        )
        if scan is not None:
            real = real_scan(
                compute, workspace, model, shown, scan, energy_kev, pixel_size_um, reconstruction
            )
            return FlowReport(
                (*run.lines, "", *real.lines, *where_results_lie(workspace)),
                run.published | {"real_run": real.published["run"]},
                run.artefacts | {f"real_{role}": key for role, key in real.artefacts.items()},
            )
    return FlowReport((*run.lines, *where_results_lie(workspace)), run.published, run.artefacts)


def _check(samples: int, scan: str | None, energy_kev: float | None, pixel_size_um: float | None) -> None:
    """What must be right before an hour of work is spent."""
    if samples < 2:
        raise ConfigError(f"samples must be at least 2, one is kept out of the training; got {samples}")
    if scan is not None:
        check_real_scan(scan, energy_kev, pixel_size_um)
    elif energy_kev is not None or pixel_size_um is not None:
        raise ConfigError(
            "energy_kev and pixel_size_um belong to a real scan and none was given; for the forged scans set "
            "optics.energy_kev and voxel_size_um"
        )


def held_out(
    compute: Compute,
    workspace: Workspace,
    forged: Forged,
    model: Artefact,
    shown_model: str,
    optics: OpticsSettings,
    reconstruction: ReconstructionSettings,
    rotation: RotationSettings,
    tracing: TracingSettings,
    seed: int,
) -> FlowReport:
    """Segment the sample that was not trained on, and correct by its true and by its predicted labels."""
    labels, scan, volume = forged.labels[-1], forged.scans[-1], forged.volumes[-1]
    last = len(forged.labels) - 1
    name, mu, energy = "held-out sample", material_mu(optics, seed, last), optics.energy_kev
    contact = contact_volume(compute, workspace, labels, last, optics, reconstruction, seed)
    probabilities = PredictionSettings(softmax=tracing.segmentation_draws > 0)
    predicted = segment(compute, workspace, model, volume, name=name, settings=probabilities)
    published = {**forged.published[-1], "model": shown_model}
    published["segmentation"] = publish_segmentation(
        workspace, predicted, volume, model, truth=labels, energy_kev=energy, name=name, sources=published
    )
    found = {"truth": labels, SUBJECT: predicted}
    if not holds_crystal(workspace, predicted):
        found = {SUBJECT: labels}
        tracing = tracing.model_copy(update={"segmentation_draws": 0})  # nothing to draw from true labels
    traced = Traced(compute, workspace, optics, rotation, DiffractionSettings(), tracing, seed, last)
    correction = traced.correct(name, found)
    if correction.reference is not None:
        shown = publish_correction(
            workspace, correction, name=name, sources={"segmentation": published["segmentation"]}
        )
        published["absorption"] = shown.identifier
    run = ForgedRun(len(forged.labels), labels, scan, volume, contact, model, predicted, correction)
    summary = publish_forged_run(workspace, run, optics=optics, mu=mu, published=published)
    return FlowReport(summary.lines, published | {"run": summary.identifier}, run.keys())


def contact_volume(
    compute: Compute,
    workspace: Workspace,
    labels: Artefact,
    index: int,
    optics: OpticsSettings,
    reconstruction: ReconstructionSettings,
    seed: int,
) -> Artefact:
    """The sample scanned once more without propagation, which tells absorption from phase."""
    contact = optics.model_copy(update={"distance_mm": 0.0})
    scan = simulate_scan(compute, workspace, labels, optics=contact, seed=seed, index=index)
    return reconstruct(compute, workspace, scan, settings=reconstruction, name=f"sample {index} in contact")


def real_scan(
    compute: Compute,
    workspace: Workspace,
    model: Artefact,
    shown_model: str,
    scan: str,
    energy_kev: float | None,
    pixel_size_um: float | None,
    reconstruction: ReconstructionSettings,
) -> FlowReport:
    """A real scan through the same rooms."""
    real = reconstruct_real(compute, workspace, scan, energy_kev, pixel_size_um, reconstruction)
    predicted = segment(compute, workspace, model, real.volume, name=real.name)
    published = {**real.published, "model": shown_model}
    published["segmentation"] = publish_segmentation(
        workspace, predicted, real.volume, model, scan=real.scan, name=real.name, sources=published
    )
    run = RealRun(real.name, real.scan, real.volume, model, predicted)
    summary = publish_real_run(workspace, run, published=published)
    return FlowReport(summary.lines, published | {"run": summary.identifier}, run.keys())
