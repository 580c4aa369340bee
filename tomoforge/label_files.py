"""Label volumes as people's tools write them: TIFF, NRRD, NIfTI, OME-Zarr, read as (z, y, x) uint8.

NRRD and NIfTI store x fastest and are read as (x, y, z), so their axes are reversed here, once; TIFF pages and Zarr
axes are (z, y, x) already. Nothing is guessed: what does not fit the volume is refused with a rule, a reason and a
remedy.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import nrrd  # type: ignore[import-untyped]
import numpy as np
import tifffile
import zarr

from tomoforge.errors import InputError
from tomoforge.units import m_to_um, um_to_m
from tomoforge.volumes import LABEL_NAMES

TIFF_ENDINGS = (".tif", ".tiff")
SPACING = "spacing.json"  # beside slices that ``exports`` wrote

_MOST_VOXELS = 1 << 34  # a 2560³ volume; a larger claim is a mistake or worse
_SPACING_TOLERANCE = 0.01  # of the voxel size; 3D tools round what they write
_METRES = {
    "m": 1.0,
    "mm": 1e-3,
    "um": 1e-6,
    "µm": 1e-6,
    "μm": 1e-6,
    "\\u00b5m": 1e-6,  # as ImageJ writes it
    "micron": 1e-6,
    "microns": 1e-6,
    "nm": 1e-9,
}
_METRES |= {"meter": 1.0, "millimeter": 1e-3, "micrometer": 1e-6, "nanometer": 1e-9}

Spacing = tuple[float, ...]  # (z, y, x) [m]
Shape = tuple[int, int, int] | None  # (z, y, x) that labels must have, None if not known


class LabelFileError(InputError):
    """A label volume that is not taken. rule : a short name; reason : what was found; remedy : what to do."""

    def __init__(self, rule: str, reason: str, remedy: str) -> None:
        super().__init__(
            rule, reason, remedy
        )  # as they came, so that the exception travels between processes
        self.rule, self.reason, self.remedy = rule, reason, remedy

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}; {self.remedy}"


def read_label_file(
    path: str | Path,
    voxel_size: float,
    *,
    shape: Shape = None,
    names: Mapping[str, int] = LABEL_NAMES,
) -> np.ndarray:
    """A label volume that must fit a volume.

    Parameters
    ----------
    path : folder of TIFF slices, multi-page TIFF, ``.nrrd``, ``.nii``, ``.nii.gz`` or OME-Zarr folder
    voxel_size : float [m], of the volume; what the file says of its own is compared with it
    shape : (z, y, x) of the volume, None if not known
    names : which labels there may be

    Returns
    -------
    labels : (z, y, x) uint8

    Raises
    ------
    LabelFileError
        With the rule "label file", "label shape", "label spacing", "label orientation", "whole labels" or
        "known labels".
    """
    path = Path(path)
    try:
        labels, spacing = _reader(path)(path, shape)
    except LabelFileError:
        raise
    except Exception as error:  # three libraries and their plugins, each with exceptions of its own
        raise LabelFileError(
            "label file", f"{path.name} cannot be read: {type(error).__name__}: {error}", "write it again"
        ) from error
    _check_shape(path, labels.shape, shape)
    _check_spacing(path, spacing, voxel_size)
    return _as_labels(path, labels, names)


def _reader(path: Path):
    name = path.name.lower()
    if name.endswith(".nrrd"):
        return _read_nrrd
    if name.endswith((".nii", ".nii.gz")):
        return _read_nifti
    if path.is_dir() and ((path / "zarr.json").exists() or (path / ".zgroup").exists()):
        return _read_zarr
    return _read_tiff


def _as_labels(path: Path, labels: np.ndarray, names: Mapping[str, int]) -> np.ndarray:
    if labels.dtype.kind not in "uibf":
        raise LabelFileError("whole labels", f"{path.name} holds {labels.dtype}", "write the labels as uint8")
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.round(labels)):
        broken = float(labels[labels != np.round(labels)].ravel()[0])
        raise LabelFileError(
            "whole labels",
            f"{path.name} holds values between labels, such as {broken:g}",
            "resample by nearest neighbour, or write the labels and not a probability",
        )
    unknown = sorted(set(np.unique(labels).astype(np.int64).tolist()) - set(names.values()))
    if unknown:
        raise LabelFileError(
            "known labels",
            f"{path.name} has {unknown[:8]}, known are {dict(names)}",
            "renumber the labels",
        )
    return np.ascontiguousarray(labels, dtype=np.uint8)


def _check_spacing(path: Path, spacing: Spacing | None, voxel_size: float) -> None:
    """Compare what a file says of its voxels with the voxels it must fit; None says nothing."""
    if spacing is None or all(abs(s / voxel_size - 1.0) <= _SPACING_TOLERANCE for s in spacing):
        return
    said = " × ".join(f"{m_to_um(s):.4g}" for s in spacing)
    raise LabelFileError(
        "label spacing",
        f"{path.name} has voxels of {said} µm (z, y, x), the volume of {m_to_um(voxel_size):.4g} µm",
        "resample the labels to the volume, or correct the spacing and its unit",
    )


def _check_shape(path: Path, shape: tuple[int, ...], expected: Shape) -> None:
    if expected is None or shape == tuple(expected):
        return
    raise LabelFileError(
        "label shape",
        f"{path.name} is {shape} (z, y, x), the volume is {tuple(expected)}",
        "its axes are reversed: write it with z as the slowest axis"
        if shape[::-1] == tuple(expected)
        else "resample the labels to the volume they belong to",
    )


def _check_claim(path: Path, shape: tuple[int, ...], expected: Shape) -> None:
    """Of a header's (z, y, x), before anything is decompressed."""
    voxels = int(np.prod(shape, dtype=object)) if shape else 0
    if len(shape) != 3 or not 0 < voxels <= _MOST_VOXELS:
        raise LabelFileError(
            "label shape", f"{path.name} claims the shape {shape}", "write one volume of labels"
        )
    _check_shape(path, shape, expected)


def _read_nrrd(path: Path, expected: Shape) -> tuple[np.ndarray, Spacing | None]:
    header = nrrd.read_header(str(path))
    if any(key in header for key in ("data file", "datafile")):
        raise LabelFileError(
            "label file", f"{path.name} keeps its data in another file", "write it with an attached header"
        )
    _check_claim(path, tuple(int(n) for n in header["sizes"])[::-1], expected)
    spacing = _nrrd_spacing(path, header)
    data, _ = nrrd.read(str(path), index_order="F")  # (x, y, z): the first axis is the fastest in the file
    return data.transpose(2, 1, 0), spacing


def _nrrd_spacing(path: Path, header: Mapping[str, Any]) -> Spacing | None:
    if "space directions" in header:
        steps = _axis_steps(path, np.asarray(header["space directions"], dtype=np.float64))
    elif "spacings" in header:
        steps = np.asarray(header["spacings"], dtype=np.float64)
    else:
        return None
    units = {str(u).strip('"').lower() for u in header.get("space units", header.get("units", []))}
    if len(units) != 1 or not units <= set(_METRES):
        return None  # a number without a unit cannot be compared
    unit = _METRES[units.pop()]
    return tuple(float(step) * unit for step in steps[::-1]) if np.isfinite(steps).all() else None


def _axis_steps(path: Path, matrix: np.ndarray) -> np.ndarray:
    """(3,) lengths of the voxel edges along the array's own axes; they must not be turned against the space."""
    diagonal = np.abs(np.diag(matrix))
    if np.abs(matrix - np.diag(np.diag(matrix))).max() > 1e-3 * diagonal.max():
        raise LabelFileError(
            "label orientation",
            f"{path.name} has axes turned against its space",
            "resample the labels onto the volume's own grid",
        )
    return diagonal


def _read_nifti(path: Path, expected: Shape) -> tuple[np.ndarray, Spacing | None]:
    image = nibabel.load(path)
    if not isinstance(image, nibabel.nifti1.Nifti1Image):  # NIfTI-2 is one, too
        raise LabelFileError("label file", f"{path.name} is {type(image).__name__}", "write NIfTI")
    header = image.header
    assert isinstance(header, nibabel.nifti1.Nifti1Header)
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    _check_claim(path, shape[::-1], expected)
    _axis_steps(path, np.asarray(image.affine)[:3, :3])
    data = np.asanyarray(image.dataobj).reshape(shape)  # (x, y, z)
    unit = header.get_xyzt_units()[0]
    steps = header.get_zooms()[:3]
    # Without a unit, or with all steps one, nobody has set the spacing.
    if unit not in _METRES or all(float(s) == 1.0 for s in steps):
        return data.transpose(2, 1, 0), None
    return data.transpose(2, 1, 0), tuple(float(s) * _METRES[unit] for s in steps[::-1])


def _read_zarr(path: Path, expected: Shape) -> tuple[np.ndarray, Spacing | None]:
    group = zarr.open_group(str(path), mode="r")
    attributes = dict(group.attrs)
    ome = attributes.get("ome", attributes)  # NGFF 0.5 has a key of its own, 0.4 had not
    assert isinstance(ome, dict)
    scales = ome["multiscales"][0]
    finest = scales["datasets"][0]
    if not re.fullmatch(r"[\w-]+(/[\w-]+)*", str(finest["path"])):
        raise LabelFileError(
            "label file", f"{path.name} has its data at {finest['path']!r}", "write it again"
        )
    array = group[finest["path"]]
    if not isinstance(array, zarr.Array):
        raise LabelFileError("label file", f"{path.name} has no array at {finest['path']}", "write it again")
    axes = [axis["name"] for axis in scales["axes"]]
    if axes[-3:] != ["z", "y", "x"] or any(n != 1 for n in array.shape[:-3]):
        raise LabelFileError(
            "label shape", f"{path.name} has axes {axes} of {array.shape}", "write one volume (z, y, x)"
        )
    _check_claim(path, array.shape[-3:], expected)
    units = [axis.get("unit", "").lower() for axis in scales["axes"]][-3:]
    scale = finest["coordinateTransformations"][0]["scale"][-3:]
    known = all(unit in _METRES for unit in units)
    spacing = tuple(s * _METRES[u] for s, u in zip(scale, units, strict=True)) if known else None
    return np.asarray(array[:]).reshape(array.shape[-3:]), spacing


def _read_tiff(path: Path, expected: Shape) -> tuple[np.ndarray, Spacing | None]:
    """Pages as slices z: of one file, or of a folder in the natural order of the names."""
    files = [path]
    if path.is_dir():
        # Names with a dot in front are those of files that are being written.
        files = [f for f in path.iterdir() if f.suffix.lower() in TIFF_ENDINGS and f.name[0] != "."]
        files.sort(key=lambda f: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", f.name)])
    if not files:
        raise LabelFileError("label file", f"{path.name} holds no TIFF files", "put the slices into it")
    shapes = []
    for file in files:
        with tifffile.TiffFile(file) as tiff:
            shapes.append(tiff.series[0].shape)
    if len(set(shapes)) > 1 or len(shapes[0]) > (3 if len(files) == 1 else 2):
        raise LabelFileError(
            "label shape", f"{path.name} has pages of {sorted(set(shapes))[:4]}", "write pages of one size"
        )
    claimed = shapes[0] if len(files) == 1 and len(shapes[0]) == 3 else (len(files), *shapes[0])
    _check_claim(path, claimed, expected)
    pages = np.stack([tifffile.imread(file) for file in files])
    spacing = _imagej_spacing(files[0]) if len(files) == 1 else _stack_spacing(path)
    return (pages[0] if pages.ndim == 4 else pages), spacing


def _stack_spacing(folder: Path) -> Spacing | None:
    """What ``exports`` wrote beside the slices."""
    if not (folder / SPACING).is_file():
        return None
    return tuple(um_to_m(float(s)) for s in json.loads((folder / SPACING).read_text())["spacing_um"])


def _imagej_spacing(file: Path) -> Spacing | None:
    """What ImageJ and Fiji write: pixels a unit in the resolution, slice distance and unit in the description."""
    with tifffile.TiffFile(file) as tiff:
        said, tags = tiff.imagej_metadata or {}, tiff.pages.first.tags
        unit = _METRES.get(str(said.get("unit", "")).lower())
        if unit is None or "spacing" not in said or "XResolution" not in tags or "YResolution" not in tags:
            return None
        per_unit = [np.divide(*tags[name].value) for name in ("YResolution", "XResolution")]
    steps = [float(said["spacing"]), *(1.0 / float(p) for p in per_unit)]
    return tuple(step * unit for step in steps)
