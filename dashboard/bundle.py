"""What a person needs to correct labels elsewhere, in one ZIP: volume, uncertainty and labels, as napari and Fiji open
them, and how to hand the labels in again."""

import math
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import tifffile
import zarr

from tomoforge.errors import StorageError
from tomoforge.pictures import grey_range
from tomoforge.units import m_to_um
from tomoforge.volumes import LABEL_NAMES, SLAB, open_level, read_voxel_size

# What a bundle may unpack to: a download is held in memory while it is sent.
MOST_BYTES = 256 << 20
_REGION = 256  # voxels a side of a region, where the whole is too large

Depth = Literal["float32", "uint8"]


@dataclass(frozen=True)
class BundlePlan:
    """What a bundle holds. box : (z, y, x) slices; whole : of the volume, so that its labels can be handed in; depth :
    of the grey values, 8 bits where 32 are too many; size : bytes when unpacked."""

    box: tuple[slice, slice, slice]
    whole: bool
    depth: Depth

    @property
    def shape(self) -> tuple[int, ...]:
        """(z, y, x)."""
        return tuple(part.stop - part.start for part in self.box)

    @property
    def size(self) -> int:
        """Bytes when unpacked: two images and the labels."""
        return math.prod(self.shape) * (2 * np.dtype(self.depth).itemsize + 1)


def plan_bundle(shape: Sequence[int], middle: Sequence[int]) -> BundlePlan:
    """The most of a volume of ``shape`` (z, y, x) that a bundle may hold, around the voxel ``middle`` if not all."""
    all_of_it = (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    depths: tuple[Depth, ...] = ("float32", "uint8")
    for depth in depths:
        plan = BundlePlan(all_of_it, True, depth)
        if plan.size <= MOST_BYTES:
            return plan
    parts = []
    for length, wanted in zip(shape, middle, strict=True):
        side = min(length, _REGION)
        start = min(max(int(wanted) - side // 2, 0), length - side)
        parts.append(slice(start, start + side))
    return BundlePlan((parts[0], parts[1], parts[2]), False, "float32")


def write_bundle(
    plan: BundlePlan, volume: Path, labels: Path, uncertainty: Path | None, name: str
) -> BinaryIO:
    """The ZIP as a temporary file, which goes when it is closed.

    volume, labels, uncertainty : OME-Zarr folders of one grid. Raises StorageError if they are not, or are damaged.
    """
    voxel_um = m_to_um(read_voxel_size(volume))
    sources: dict[str, tuple[Path, str]] = {"volume": (volume, plan.depth), "labels": (labels, "uint8")}
    if uncertainty is not None:
        sources["uncertainty"] = (uncertainty, plan.depth)
    shape = open_level(volume).shape
    try:
        with tempfile.TemporaryDirectory(prefix="bundle-") as folder:
            archive = Path(folder) / "bundle.zip"
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
                for part, (place, dtype) in sources.items():
                    if open_level(place).shape != shape:
                        raise StorageError(f"the {part} of {name} is not on the grid of its volume")
                    file = Path(folder) / f"{part}.tif"
                    _write_tiff(file, place, plan, dtype, voxel_um, _scale(part, place, plan))
                    packed.write(file, f"{name}/{file.name}")
                    file.unlink()
                packed.writestr(f"{name}/README.txt", _read_me(plan, name, voxel_um, list(sources)))
            return open(archive, "rb")  # its name goes with the folder, its content when it is closed
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"the bundle of {name} could not be made: {error}") from error


def _scale(part: str, place: Path, plan: BundlePlan) -> tuple[float, float]:
    """Values that become 0 and 255 in 8 bits."""
    if part != "volume" or plan.depth == "float32":
        return 0.0, 1.0
    level = 0
    while max(open_level(place, level).shape) > 128:
        try:
            open_level(place, level + 1)
        except StorageError:
            break
        level += 1
    low, high = grey_range(np.asarray(open_level(place, level)[:]))
    return float(low), float(high)


def _write_tiff(
    file: Path, place: Path, plan: BundlePlan, dtype: str, voxel_um: float, scale: tuple[float, float]
) -> None:
    """A part of a stored volume as ImageJ and napari open it, with spacing and unit, slab by slab."""
    stored: zarr.Array = open_level(place)
    written: Any = tifffile.memmap(
        file,
        shape=plan.shape,
        dtype=dtype,
        imagej=True,
        resolution=(1 / voxel_um, 1 / voxel_um),
        metadata={"axes": "ZYX", "spacing": voxel_um, "unit": "um"},
    )
    first, rows, columns = plan.box
    for start in range(first.start, first.stop, SLAB):
        stop = min(start + SLAB, first.stop)
        block = np.asarray(stored[start:stop, rows, columns])
        if dtype == "uint8" and block.dtype.kind == "f":
            low, high = scale
            block = np.clip((block - low) * (255.0 / max(high - low, 1e-30)), 0, 255)
        written[start - first.start : stop - first.start] = block.astype(dtype)
    written.flush()
    del written


def _read_me(plan: BundlePlan, name: str, voxel_um: float, parts: list[str]) -> str:
    images = " ".join(f"{part}.tif" for part in parts if part != "labels")
    classes = ", ".join(f"{value} {label}" for label, value in LABEL_NAMES.items())
    z, y, x = (f"{part.start} to {part.stop - 1}" for part in plan.box)
    bits = "grey values in 8 bits" if plan.depth == "uint8" else "grey values: attenuation coefficient [1/m]"
    back = (
        "Save the layer as TIFF (or NRRD, NIfTI) and hand it in on the dashboard's page Annotate, at this volume."
        if plan.whole
        else "This is a region, to look at: labels are handed in for whole volumes. To correct this volume, open it "
        "where it lies, by the command on the dashboard's page Annotate, and take the labels in with import_labels."
    )
    return f"""{name}

Voxels z {z}, y {y}, x {x} of the volume, {voxel_um:.6g} um each; {bits}.
uncertainty: 0 sure to 1 unsure{" (here 0 to 255)" if plan.depth == "uint8" else ""}.

Open in napari, without any plugin:

    napari --plugin napari {images} labels.tif

Turn the layer "labels" into a labels layer (right click, "Convert to Labels"), paint, and save it.
Classes: {classes}.

{back}
"""
