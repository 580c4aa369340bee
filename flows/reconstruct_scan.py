"""Reconstruct one real scan: validate → copy → axis and a few slices → volume → export."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BeforeValidator, Field

from flows.lists import Names, listed
from flows.report import FlowReport, where_results_lie
from tasks.cluster import Compute, open_compute
from tasks.publishing import publish_preview, publish_scan, publish_volume
from tasks.quick_looks import look_ahead
from tasks.scans import check_real_scan, import_scan
from tasks.volumes import export, reconstruct
from tomoforge.config import ClusterSettings, Positive, ReconstructionSettings
from tomoforge.storage import Artefact, Workspace

AngleRows = Annotated[
    tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] | None, BeforeValidator(listed)
]


@dataclass(frozen=True)
class Reading:
    """How a scan's files are read, where they do not say it themselves.

    angle_rows : (start, stop) of a list of angles that is longer than the projections; flats, darks : files that
    replace or supply those of the scan; allow_missing : which of them may be absent; root : folder that links may not
    leave, the file's own if None.
    """

    angle_rows: tuple[int, int] | None = None
    flats: tuple[str, ...] = ()
    darks: tuple[str, ...] = ()
    allow_missing: tuple[str, ...] = ()
    root: str | None = None

    def arguments(self) -> dict[str, Any]:
        """As ``read_scan`` takes them."""
        return {
            "angle_rows": self.angle_rows,
            "flats": self.flats or None,
            "darks": self.darks or None,
            "allow_missing": self.allow_missing,
            "root": self.root,
        }


@flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
def reconstruct_scan(
    scan: str,
    energy_kev: Positive | None = None,
    pixel_size_um: Positive | None = None,
    angle_rows: AngleRows = None,
    flats: Names = (),
    darks: Names = (),
    allow_missing: Names = (),
    root: str | None = None,
    reconstruction: ReconstructionSettings = ReconstructionSettings(),
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport:
    """Validate a real scan and reconstruct it to attenuation in 1/m.

    Args:
        scan: Path of the scan: an NXtomo or Data Exchange file, or a folder of TIFF files.
        energy_kev: Photon energy [keV]; needed where the file does not say it.
        pixel_size_um: Detector pixel at the sample [µm]; needed where the file does not say it.
        angle_rows: First row, and the row after the last, of a list of angles longer than the projections, e.g. 10,101.
        flats: Files of flats in place of the scan's own, separated by commas; file.h5:/dataset names a dataset.
        darks: Files of darks, likewise.
        allow_missing: What may be absent: flats, darks, or both.
        root: Folder that links in the files may not leave; the scan's own if not given.
        reconstruction: How the scan is reconstructed.
        cluster: Where the work is done.
    """
    workspace = Workspace.default()
    reading = Reading(angle_rows, flats, darks, allow_missing, root)
    check_real_scan(scan, energy_kev, pixel_size_um, **reading.arguments())
    with open_compute(cluster) as compute:
        real = reconstruct_real(
            compute, workspace, scan, energy_kev, pixel_size_um, reconstruction, reading=reading
        )
    lines = [f"scan    {real.name}", f"volume  {real.volume.key}"]
    artefacts = {"scan": real.scan.key, "volume": real.volume.key}
    if real.export is not None:
        lines.append(f"export  {workspace.path(real.export)}")
        artefacts["export"] = real.export.key
    return FlowReport((*lines, *where_results_lie(workspace)), real.published, artefacts)


@dataclass(frozen=True)
class Reconstructed:
    """A real scan in the workspace, its volume, and how both are published (role → identifier)."""

    name: str
    scan: Artefact
    volume: Artefact
    published: dict[str, str] = field(default_factory=dict)
    export: Artefact | None = None


def reconstruct_real(
    compute: Compute,
    workspace: Workspace,
    scan: str,
    energy_kev: float | None,
    pixel_size_um: float | None,
    reconstruction: ReconstructionSettings,
    *,
    reading: Reading = Reading(),
    name: str | None = None,
) -> Reconstructed:
    """Import, look ahead, reconstruct, export and publish a real scan."""
    name = name or scan.rstrip("/").rsplit("/", 1)[-1]
    raw = import_scan(
        workspace, scan, energy_kev=energy_kev, pixel_size_um=pixel_size_um, **reading.arguments()
    )
    return reconstruct_imported(compute, workspace, raw, reconstruction, name)


def reconstruct_imported(
    compute: Compute, workspace: Workspace, raw: Artefact, reconstruction: ReconstructionSettings, name: str
) -> Reconstructed:
    """Look ahead, reconstruct, export and publish a real scan that is in the workspace."""
    published = {"scan": publish_scan(workspace, raw, name=name)}
    if reconstruction.preview:
        look = look_ahead(compute, workspace, raw, settings=reconstruction, name=name)
        published["preview"] = publish_preview(
            workspace, look, name=name, sources={"scan": published["scan"]}
        )
    volume = reconstruct(compute, workspace, raw, settings=reconstruction, name=name)
    exported = None
    if reconstruction.export != "none":
        exported = export(workspace, volume, format=reconstruction.export, name=name)
    published["volume"] = publish_volume(workspace, volume, name=name, sources=dict(published))
    return Reconstructed(name, raw, volume, published, exported)
