"""Scan one labelled sample: thickness → wave → counts, batches of angles on the workers."""

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.report import FlowReport, where_results_lie
from tasks.cluster import open_compute
from tasks.labelled_volumes import find_labels
from tasks.publishing import publish_scan
from tasks.scans import material_mu
from tasks.scans import simulate_scan as simulate
from tomoforge.config import ClusterSettings, OpticsSettings, Seed
from tomoforge.storage import Workspace


@flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
def simulate_scan(
    labels: str,
    seed: Seed = 1,
    optics: OpticsSettings = OpticsSettings(),
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport:
    """Simulate the scan of a labelled sample of the workspace and store it as NXtomo.

    Args:
        labels: Key of the labels, as forge_samples or a segmentation gave it.
        seed: Of noise and of the detector's patterns; the same seed gives the same bytes.
        optics: How the sample is scanned.
        cluster: Where the work is done.
    """
    workspace = Workspace.default()
    material_mu(optics)  # an unknown material must fail before anything is simulated
    found = find_labels(workspace, labels)
    with open_compute(cluster) as compute:
        scan = simulate(compute, workspace, found, optics=optics, seed=seed, index=0)
        shown = publish_scan(workspace, scan, name=labels)
    lines = (f"scan  {scan.key}", *where_results_lie(workspace))
    return FlowReport(lines, {"scan": shown}, {"scan": scan.key})
