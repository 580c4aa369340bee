"""Reconstruct one real scan: validate → copy → centre → volume."""

from dataclasses import dataclass

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.report import FlowReport, where_results_lie
from tasks.cluster import Compute, open_compute
from tasks.publishing import publish_scan, publish_volume
from tasks.scans import check_real_scan, import_scan
from tasks.volumes import reconstruct
from tomoforge.config import ClusterSettings, Positive, ReconstructionSettings
from tomoforge.storage import Artefact, Workspace


@flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
def reconstruct_scan(
    scan: str,
    energy_kev: Positive | None = None,
    pixel_size_um: Positive | None = None,
    reconstruction: ReconstructionSettings = ReconstructionSettings(),
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport:
    """Validate a real scan and reconstruct it to attenuation in 1/m.

    Args:
        scan: Path of the scan (NXtomo HDF5).
        energy_kev: Photon energy [keV]; needed where the file does not say it.
        pixel_size_um: Detector pixel at the sample [µm]; needed where the file does not say it.
        reconstruction: How the scan is reconstructed.
        cluster: Where the work is done.
    """
    workspace = Workspace.default()
    check_real_scan(scan, energy_kev, pixel_size_um)
    with open_compute(cluster) as compute:
        real = reconstruct_real(compute, workspace, scan, energy_kev, pixel_size_um, reconstruction)
    lines = (f"scan    {real.name}", f"volume  {real.volume.key}", *where_results_lie(workspace))
    return FlowReport(lines, real.published, {"scan": real.scan.key, "volume": real.volume.key})


@dataclass(frozen=True)
class Reconstructed:
    """A real scan in the workspace, its volume, and how both are published (role → identifier)."""

    name: str
    scan: Artefact
    volume: Artefact
    published: dict[str, str]


def reconstruct_real(
    compute: Compute,
    workspace: Workspace,
    scan: str,
    energy_kev: float | None,
    pixel_size_um: float | None,
    reconstruction: ReconstructionSettings,
) -> Reconstructed:
    """Import, reconstruct and publish a real scan."""
    name = scan.rsplit("/", 1)[-1]
    raw = import_scan(workspace, scan, energy_kev=energy_kev, pixel_size_um=pixel_size_um)
    volume = reconstruct(compute, workspace, raw, settings=reconstruction, name=name)
    shown = publish_scan(workspace, raw, name=name)
    published = {
        "scan": shown,
        "volume": publish_volume(workspace, volume, name=name, sources={"scan": shown}),
    }
    return Reconstructed(name, raw, volume, published)
