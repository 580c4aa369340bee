"""Take in labels that a person drew or corrected."""

from pathlib import Path

from prefect import flow

from flows.report import FlowReport, where_results_lie
from tasks.annotation import import_corrected_labels
from tasks.predictions import find_volume
from tasks.registry import deciding
from tomoforge.storage import Workspace


@flow
def import_labels(
    volume: str, path: str, by: str | None = None, check_orientation: bool = True
) -> FlowReport:
    """Take in labels that a person drew or corrected, checked against their volume.

    Args:
        volume: Key of the volume that they were drawn on.
        path: TIFF file or folder of slices, NRRD, NIfTI or OME-Zarr.
        by: Who drew them; the login name if not given.
        check_orientation: Compare with the grey values whether axes were swapped or mirrored on the way.
    """
    workspace = Workspace.default()
    found = find_volume(workspace, volume)
    labels = import_corrected_labels(
        workspace, Path(path), found, who=deciding(by), check_orientation=check_orientation
    )
    return FlowReport((f"labels  {labels.key}", *where_results_lie(workspace)), {}, {"labels": labels.key})
