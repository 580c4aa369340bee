"""The queue of volumes that a person should label, as files: for the dashboard, for napari and Fiji."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from matplotlib.figure import Figure

from tomoforge.errors import InputError, StorageError
from tomoforge.pictures import LABEL_COLOURS, grey_range, png_bytes
from tomoforge.segmentation.annotation import QueueItem
from tomoforge.segmentation.case_records import content_hash
from tomoforge.storage import file_checksum, write_bytes_atomic, write_json_atomic
from tomoforge.units import m_to_um
from tomoforge.volumes import open_level, read_labels

QUEUE = "queue.json"
ITEM, PICTURE, EDITABLE = "item.json", "slices.png", "labels.tif"
NAPARI = ("napari", "--plugin", "napari")


def write_queue(folder: str | Path, items: Sequence[QueueItem]) -> Path:
    """Write the queue for the dashboard and for napari: ``queue.json``, written last, and a folder an item.

    An item's folder holds ``slices.png`` where the model is least sure, ``labels.tif`` to correct in napari or Fiji
    (it carries its spacing), and ``item.json`` with the command that opens all in napari without any plugin: turn the
    layer ``labels`` into a labels layer (right click), paint, save it. ``labels.tif`` is never overwritten, and the
    folder of an item that left the queue goes only where nobody has touched its labels.

    Returns the path of ``queue.json``. Raises InputError for a subject that cannot be a folder's name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    records = [_write_item(folder, item) for item in items]
    write_json_atomic(folder / QUEUE, {"items": records})
    kept = {record["folder"] for record in records}
    for stale in folder.iterdir():
        if stale.is_dir() and stale.name not in kept and not _touched(stale):
            shutil.rmtree(stale)
    return folder / QUEUE


def queue_table(items: Sequence[QueueItem]) -> pd.DataFrame:
    """The queue as a table, a row an item, for the dashboard."""
    columns = ["position", "subject", "priority", "uncertainty", "distance"]
    slices = [f"slice_{axis}" for axis in "zyx"]
    rows = [
        {name: getattr(item, name) for name in columns}
        | dict(item.parts)
        | dict(zip(slices, item.slices, strict=True))
        | {"labels_sha256": item.labels_sha256}
        for item in items
    ]
    return pd.DataFrame(rows, columns=[*columns, "mu", "noise", "voxel_size", *slices, "labels_sha256"])


def item_folder(item: QueueItem) -> str:
    """The name of an item's folder within the queue's."""
    return f"{item.subject}-{item.labels_sha256[:12]}"


def _write_item(folder: Path, item: QueueItem) -> dict[str, Any]:
    name = item_folder(item)
    if Path(name).name != name or name.startswith("."):
        raise InputError(f"subject must be usable as the name of a folder, got {item.subject!r}")
    place = folder / name
    place.mkdir(exist_ok=True)
    labels, voxel_size = read_labels(item.candidate.labels)
    if content_hash(labels, voxel_size) != item.labels_sha256:
        raise StorageError(f"{item.candidate.labels} has changed since it was ranked; rank it again")
    editable = place / EDITABLE
    if not (place / ITEM).exists():  # written last: until then nobody was shown the labels
        _write_tiff(editable, labels, voxel_size)
    given = file_checksum(editable) if not (place / ITEM).exists() else _given(place)
    write_bytes_atomic(place / PICTURE, _picture(item, labels, voxel_size))
    paths = {role: str(Path(getattr(item.candidate, role)).absolute()) for role in ("volume", "uncertainty")}
    record = {
        **asdict(item),
        "candidate": {**paths, "labels": str(Path(item.candidate.labels).absolute())},
        "folder": name,
        "picture": f"{name}/{PICTURE}",
        "editable": f"{name}/{EDITABLE}",
        "given_sha256": given,
        # Images below, the layer to paint on last and so on top. All by napari's own reader, in voxels: a plugin
        # would place the OME-Zarr by their micrometres and leave the TIFF where it is.
        "napari": [*NAPARI, paths["volume"], paths["uncertainty"], str(editable.absolute())],
    }
    write_json_atomic(place / ITEM, record)
    return record


def _given(place: Path) -> str | None:
    """Checksum of the labels as they were given to a person; None if that is no longer known."""
    try:
        return json.loads((place / ITEM).read_text())["given_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _touched(place: Path) -> bool:
    editable = place / EDITABLE
    others = {file.name for file in place.iterdir()} - {ITEM, PICTURE, EDITABLE}
    return bool(others) or (editable.exists() and file_checksum(editable) != _given(place))


def _write_tiff(path: Path, labels: np.ndarray, voxel_size: float) -> None:
    """Labels as ImageJ and napari open them, with spacing and unit."""
    spacing_um = m_to_um(voxel_size)
    tifffile.imwrite(
        path,
        labels,
        imagej=True,
        resolution=(1 / spacing_um, 1 / spacing_um),
        metadata={"axes": "ZYX", "spacing": spacing_um, "unit": "um"},
    )


def _picture(item: QueueItem, labels: np.ndarray, voxel_size: float) -> bytes:
    """Where the model is least sure: above the outlines of the labels, below the uncertainty."""
    figure = Figure(figsize=(9.6, 6.6), dpi=110, layout="constrained")
    figure.suptitle(
        f"{item.position}. {item.subject}: uncertainty {item.uncertainty:.3g} a labelled voxel, "
        f"distance from the training data {item.distance:.3g}",
        fontsize=10,
    )
    grid = figure.subplots(2, 3)
    volume, unsure = open_level(item.candidate.volume), open_level(item.candidate.uncertainty)
    for axis, index in enumerate(item.slices):
        cut = tuple(index if a == axis else slice(None) for a in range(3))
        grey, drawn, doubt = np.asarray(volume[cut]), labels[cut], np.asarray(unsure[cut])
        low, high = grey_range(grey)
        grid[0, axis].imshow(grey, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        for value, colour in LABEL_COLOURS.items():
            mask = drawn == value
            if value and mask.any() and not mask.all():
                grid[0, axis].contour(mask, levels=[0.5], colors=[colour], linewidths=1.1)
        grid[1, axis].imshow(doubt, cmap="magma", vmin=0, vmax=1, interpolation="nearest")
        position = m_to_um((index - (labels.shape[axis] - 1) / 2) * voxel_size)
        grid[0, axis].set_title(f"{'zyx'[axis]} = {position:+.1f} µm", fontsize=9)
        for axes in grid[:, axis]:
            axes.set_xticks([])
            axes.set_yticks([])
    return png_bytes(figure)
