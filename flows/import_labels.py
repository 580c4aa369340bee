"""Take in labels that a person drew or corrected."""

from pathlib import Path

from prefect import flow

from flows.report import FlowReport, where_results_lie
from tasks.annotation import import_corrected_labels
from tasks.label_uploads import take_uploads
from tasks.predictions import find_volume
from tasks.registry import deciding
from tomoforge.errors import InputError
from tomoforge.storage import Workspace


@flow
def import_labels(
    volume: str | None = None, path: str | None = None, by: str | None = None, check_orientation: bool = True
) -> FlowReport:
    """Take in labels that a person drew or corrected, checked against their volume.

    Without a volume and a path, all files are taken that people handed in through the dashboard.

    Args:
        volume: Key of the volume that they were drawn on.
        path: TIFF file or folder of slices, NRRD, NIfTI or OME-Zarr.
        by: Who drew them; the login name if not given.
        check_orientation: Compare with the grey values whether axes were swapped or mirrored on the way.
    """
    workspace = Workspace.default()
    if volume is None and path is None:
        return handed_in(workspace)
    if volume is None or path is None:
        raise InputError("volume and path must be given together, or neither for what was handed in")
    found = find_volume(workspace, volume)
    labels = import_corrected_labels(
        workspace, Path(path), found, who=deciding(by), check_orientation=check_orientation
    )
    return FlowReport((f"labels  {labels.key}", *where_results_lie(workspace)), {}, {"labels": labels.key})


def handed_in(workspace: Workspace) -> FlowReport:
    """Take what waits among the uploads."""
    taken = take_uploads(workspace)
    lines = [
        f"labels  {item.labels}  by {item.upload.who}"
        if item.labels
        else f"refused  {item.upload.name} by {item.upload.who}: {item.refused}"
        for item in taken
    ]
    keys = {f"labels_{n}": item.labels for n, item in enumerate(taken, start=1) if item.labels}
    return FlowReport((*(lines or ["nothing was handed in"]), *where_results_lie(workspace)), {}, keys)
