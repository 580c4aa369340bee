"""Absorption factors from a label volume of the workspace."""

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.report import FlowReport, where_results_lie
from tasks.absorption import correct
from tasks.cluster import open_compute
from tasks.publishing import comparison_of, publish_absorption
from tasks.scans import material_mu
from tomoforge.config import ClusterSettings, OpticsSettings, RotationSettings, Seed
from tomoforge.errors import InputError
from tomoforge.storage import Artefact, Workspace


@flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
def correct_absorption(
    labels: str,
    truth: str | None = None,
    seed: Seed = 1,
    optics: OpticsSettings = OpticsSettings(),
    rotation: RotationSettings = RotationSettings(),
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport:
    """Ray-trace the absorption factor of every reflection of a synthetic rotation experiment.

    Args:
        labels: Key of a label volume in the workspace, forged or predicted.
        truth: Key of the true labels to compare with, if there are any.
        seed: Of the crystal's orientation and the sampling.
        optics: Energy and materials, which give µ of each label.
        rotation: The rotation experiment.
        cluster: Where the work is done.
    """
    workspace = Workspace.default()
    subject = _labels(workspace, "labels", labels)
    reference = _labels(workspace, "truth", truth) if truth else None
    mu, energy = material_mu(optics), optics.energy_kev
    with open_compute(cluster) as compute:
        factors = correct(
            compute, workspace, subject, mu=mu, energy_kev=energy, rotation=rotation, seed=seed, name=labels
        )
        true = reference and correct(
            compute,
            workspace,
            reference,
            mu=mu,
            energy_kev=energy,
            rotation=rotation,
            seed=seed,
            name="truth",
        )
        shown = publish_absorption(workspace, factors, true, name=labels)
    lines = [f"factors  {factors.key}"]
    if true is not None:
        compared = comparison_of(workspace, true, factors)
        lines.append(f"|ΔA|/A   mean {compared.mean_absolute:.2%}, largest {compared.largest:.2%}")
    lines += where_results_lie(workspace)
    return FlowReport(tuple(lines), {"absorption": shown}, {"factors": factors.key})


def _labels(workspace: Workspace, argument: str, key: str) -> Artefact:
    found = workspace.find("labels", key) if "/" not in key else None
    if found is None:
        raise InputError(
            f"{argument} must be the key of a label volume in {workspace.root}/labels, got {key!r}; "
            "forge_dataset and end_to_end make them"
        )
    return found
