"""A stored volume once more, for programs that read no OME-Zarr: a stack of TIFF slices, or one NRRD file.

Both are written slab by slab, so that a volume need not fit into memory, and appear whole or not at all. The same
volume gives the same bytes: neither file holds a time.
"""

import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile

from tomoforge.errors import InputError
from tomoforge.storage import replacing, write_json_atomic
from tomoforge.units import m_to_um
from tomoforge.volumes import SLAB, open_level

logger = logging.getLogger(__name__)

ExportFormat = Literal["tiff", "nrrd"]
Progress = Callable[[int, int], None]

SPACING = "spacing.json"  # beside the slices: what a TIFF cannot say of its neighbours
NAMES: dict[str, str] = {"tiff": "tiff", "nrrd": "volume.nrrd"}  # within the folder of the export


def export_volume(
    volume: str | Path,
    folder: str | Path,
    format: ExportFormat,
    voxel_size: float,
    *,
    progress: Progress | None = None,
) -> Path:
    """Write the stored ``volume`` into ``folder`` in another format.

    Parameters
    ----------
    volume : OME-Zarr folder, (z, y, x) float32 [1/m], or labels uint8
    folder : where to; made if need be
    format : "tiff" for ``tiff/slice_00000.tif`` …, "nrrd" for ``volume.nrrd``
    voxel_size : float [m]
    progress : called with (slices done, slices in all)

    Returns
    -------
    path : the folder of slices, or the file

    Raises
    ------
    InputError
        If the format is unknown, the voxel size is not positive, or something stands at the path already.
    StorageError
        If ``volume`` is no OME-Zarr volume.
    """
    if format not in NAMES:
        raise InputError(f"format must be one of {', '.join(NAMES)}, got {format!r}")
    path = Path(folder) / NAMES[format]
    if path.exists():
        raise InputError(
            f"{path} is there already, and exports are never rewritten; remove it or write elsewhere"
        )
    writer = write_tiff_stack if format == "tiff" else write_nrrd
    writer(volume, path, voxel_size, progress=progress)
    return path


def write_tiff_stack(
    volume: str | Path, path: str | Path, voxel_size: float, *, progress: Progress | None = None
) -> None:
    """The slices of a stored volume as TIFF files in the folder ``path``, with ``spacing.json``.

    Each file says its pixel size as a resolution per centimetre, which TIFF allows, and in its description the voxel
    size in micrometres and the unit of the values. The folder appears under its name when all slices are in it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    array, spacing_um = open_level(volume), _micrometres(voxel_size)
    per_centimetre = 1e4 / spacing_um
    quantity, unit, _ = _meaning(array.dtype)
    about = {"axes": "YX", "spacing_um": spacing_um, "quantity": quantity, "unit": unit}
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        for z, image in _slices(volume, progress):
            tifffile.imwrite(
                temporary / f"slice_{z:05d}.tif",
                image,
                photometric="minisblack",
                resolution=(per_centimetre, per_centimetre),
                resolutionunit="CENTIMETER",
                metadata={**about, "slice": z},
            )
        spacing = {"axes": "zyx", "shape": list(array.shape), "spacing_um": [spacing_um] * 3, "unit": unit}
        write_json_atomic(temporary / SPACING, spacing)
        temporary.chmod(0o755)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_nrrd(
    volume: str | Path, path: str | Path, voxel_size: float, *, progress: Progress | None = None
) -> None:
    """A stored volume as one NRRD file, raw little-endian, space directions in micrometres.

    References
    ----------
    NRRD, http://teem.sourceforge.net/nrrd/format.html. Its axes run from the fastest: x, y, z.

    Notes
    -----
    The header is written here and not by pynrrd, which takes whole arrays only and writes the time into the file.
    """
    array, step = open_level(volume), f"{_micrometres(voxel_size):.9g}"
    depth, height, width = array.shape
    quantity, unit, kind = _meaning(array.dtype)
    header = (
        "NRRD0004\n"
        f"# {quantity} [{unit}]\n"
        f"type: {kind}\n"
        "dimension: 3\n"
        "space dimension: 3\n"
        f"sizes: {width} {height} {depth}\n"
        f"space directions: ({step},0,0) (0,{step},0) (0,0,{step})\n"
        "kinds: domain domain domain\n"
        "endian: little\n"
        "encoding: raw\n"
        'space units: "um" "um" "um"\n'
        "space origin: (0,0,0)\n"
        "\n"
    )
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(header.encode("ascii"))
        for _, image in _slices(volume, progress):
            file.write(image.astype(image.dtype.newbyteorder("<"), copy=False).tobytes())


def _meaning(dtype: np.dtype) -> tuple[str, str, str]:
    """Quantity, unit and NRRD's name of the type, by how a volume is stored."""
    if dtype == np.uint8:
        return "label", "1", "uchar"
    return "attenuation coefficient", "1/m", "float"


def _micrometres(voxel_size: float) -> float:
    if not (math.isfinite(voxel_size) and voxel_size > 0):
        raise InputError(f"voxel_size must be positive metres, got {voxel_size!r}")
    return round(m_to_um(voxel_size), 9)  # without the digits of conversion


def _slices(volume: str | Path, progress: Progress | None) -> Iterator[tuple[int, np.ndarray]]:
    """Every slice of level 0 with its index, read a chunk's thickness at a time."""
    array = open_level(volume)
    depth = array.shape[0]
    for start in range(0, depth, SLAB):
        slab = np.asarray(array[start : start + SLAB])
        for z, image in enumerate(slab, start=start):
            yield z, np.ascontiguousarray(image)
        if progress is not None:
            progress(min(start + SLAB, depth), depth)
