"""Take in what lies in the inbox: look → copy → reconstruct → publish, each entry on its own."""

import contextlib
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.states import Completed, State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import BeforeValidator

from flows.lists import listed
from flows.reconstruct_scan import reconstruct_imported
from flows.report import FlowReport, where_results_lie
from tasks.cluster import Compute, open_compute
from tasks.inbox import Given, Ingest, Taking, hold_inbox, look_over, publish_ingest, take_in
from tasks.publishing import publish_scan
from tomoforge.config import ClusterSettings, NotNegative, Positive, ReconstructionSettings
from tomoforge.storage import Workspace

References = Annotated[tuple[Literal["flats", "darks"], ...], BeforeValidator(listed)]


@flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
def ingest_beamline(
    inbox: str | None = None,
    energy_kev: Positive | None = None,
    pixel_size_um: Positive | None = None,
    settle_s: NotNegative = 60.0,
    allow_missing: References = (),
    reconstruct: bool = True,
    reconstruction: ReconstructionSettings = ReconstructionSettings(),
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport | State[FlowReport]:
    """Import, reconstruct and publish every new scan of an inbox; nothing in the inbox is changed.

    Args:
        inbox: Folder that scans are dropped into; the workspace's own if not given.
        energy_kev: Photon energy [keV] of all scans; needed where files do not say it.
        pixel_size_um: Detector pixel at the sample [µm] of all scans; needed where files do not say it.
        settle_s: How long an entry must not have changed before it is read [s].
        allow_missing: References that scans may lack, out of flats and darks.
        reconstruct: Whether scans are reconstructed, or only imported.
        reconstruction: How scans are reconstructed.
        cluster: Where the work is done.
    """
    workspace = Workspace.default()
    given = Given(energy_kev, pixel_size_um, tuple(allow_missing))
    settings: dict[str, Any] = {"reconstruct": reconstruct}
    if reconstruct:
        settings["reconstruction"] = reconstruction.model_dump(mode="json")
    with hold_inbox(workspace, inbox, given, settings) as held:
        if held is None:
            return _skipped("another ingest is at work on this inbox")
        found = look_over(held, settle_s=settle_s)
        if found.ready:
            with open_compute(cluster) if reconstruct else contextlib.nullcontext() as compute:
                for ready in found.ready:
                    with take_in(held, ready) as taking:
                        deliver(workspace, taking, compute, reconstruction)
        stands = publish_ingest(held)
    if not found.ready and not stands.new:
        return _skipped(f"nothing new among {stands.entries} entries")
    return _report(workspace, stands)


def deliver(
    workspace: Workspace, taking: Taking, compute: Compute | None, reconstruction: ReconstructionSettings
) -> None:
    """Import one entry's scan and publish it, reconstructed where there is a cluster to do it on."""
    raw = taking.scan()
    if raw is None:
        return
    if compute is None:
        publish_scan(workspace, raw, name=taking.name)
        taking.made(raw, None)
        return
    real = reconstruct_imported(compute, workspace, raw, reconstruction, taking.name)
    taking.made(real.scan, real.volume)


def _report(workspace: Workspace, stands: Ingest) -> FlowReport:
    lines = (f"inbox   {stands.counted}", *where_results_lie(workspace))
    return FlowReport(lines, {"ingest": stands.identifier}, {})


def _skipped(why: str) -> State[FlowReport]:
    return Completed(name="Skipped", message=why, data=FlowReport((f"skipped: {why}",), {}, {}))
