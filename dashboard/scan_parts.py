"""What belongs together on the page of a scan: the scan, its reconstruction, the labels of it, and where they lie."""

from dataclasses import dataclass

from dashboard import data
from dashboard.artefacts import NotStored, StoredArtefact, find_artefact
from dashboard.volume_slices import StoredVolume, open_volume
from tomoforge.errors import StorageError
from tomoforge.results import Published

VOLUME = "volume.ome.zarr"
LABELS = "labels.ome.zarr"
UNCERTAINTY = "uncertainty.ome.zarr"


@dataclass(frozen=True)
class Part:
    """A published result and its artefact; ``reason`` says why there is none, ``damaged`` that there should be one."""

    item: Published
    artefact: StoredArtefact | None
    reason: str = ""
    damaged: bool = False


@dataclass(frozen=True)
class Parts:
    """What the page of ``item`` can show. labels : segmentations of the volume, the newest first, then the labels that
    a forged scan was made from."""

    item: Published
    scan: Part | None
    volume: Part | None
    preview: Part | None
    labels: tuple[Part, ...]

    @property
    def stored(self) -> bool:
        """Whether anything more than published pictures is there."""
        return any(part is not None and part.artefact for part in (self.scan, self.volume, *self.labels))


def parts_of(item: Published, published: data.Listing) -> Parts:
    """The scan, volume and labels that ``item`` is, is made from, or is the source of."""
    scan = item if item.kind == "scans" else _source(item, "scans", published)
    volume = item if item.kind == "volumes" else _source(item, "volumes", published)
    if volume is None and scan is not None:
        volume = next(iter(_made_from(scan, "volumes", published)), None)
    if scan is None and volume is not None:
        scan = _source(volume, "scans", published)
    preview = item if item.kind == "previews" else None
    if preview is None and scan is not None:
        preview = next(iter(_made_from(scan, "previews", published)), None)
    found = [item] if item.kind == "segmentations" else []
    if volume is not None:
        others = _made_from(volume, "segmentations", published)
        found += [other for other in others if other.identifier != item.identifier]
    truth = next(
        (s for s in (_source(part, "samples", published) for part in (item, volume, scan) if part) if s), None
    )
    if truth is not None:
        found.append(truth)
    return Parts(item, _part(scan), _part(volume), _part(preview), tuple(p for p in map(_part, found) if p))


def open_labels(part: Part, volume: StoredVolume | None) -> StoredVolume:
    """The labels of ``part``, which must lie on the grid of ``volume``. Raises StorageError with the reason."""
    if part.artefact is None:
        raise NotStored(part.reason)
    labels = open_volume(part.artefact, LABELS)
    if volume is not None and labels.shape != volume.shape:
        raise StorageError(
            f"these labels are {_sizes(labels.shape)} voxels (z, y, x), the volume is {_sizes(volume.shape)}"
        )
    if volume is not None and abs(labels.voxel_um / volume.voxel_um - 1) > 0.01:
        raise StorageError(
            f"these labels have voxels of {labels.voxel_um:.4g} µm, the volume has {volume.voxel_um:.4g} µm"
        )
    return labels


def _sizes(shape: tuple[int, int, int]) -> str:
    return " × ".join(str(n) for n in shape)


def _source(item: Published, kind: str, published: data.Listing) -> Published | None:
    for source in data.sources(item, published):
        if source.item is not None and source.item.kind == kind:
            return source.item
    return None


def _made_from(item: Published, kind: str, published: data.Listing) -> list[Published]:
    """Results of ``kind`` made directly from ``item``, the newest first."""
    return [other for other in data.used_by(item, published) if other.kind == kind]


def _part(item: Published | None) -> Part | None:
    if item is None:
        return None
    try:
        return Part(item, find_artefact(item))
    except NotStored as error:
        return Part(item, None, str(error))
    except StorageError as error:
        return Part(item, None, str(error), damaged=True)
