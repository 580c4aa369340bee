"""What may lie beside a scan: a label volume of the same sample, and DIALS files of its rotation data.

Labels come as people's tools write them (``tomoforge.label_files``) and leave as the labels contract: (z, y, x) uint8,
0 background · 1 liquor · 2 loop · 3 crystal, with a voxel size. DIALS files are copied byte for byte. A pickle is
never opened: unpickling runs what its writer wanted.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from tomoforge.beamline.findings import refusal
from tomoforge.beamline.inbox import DIALS_FILES
from tomoforge.label_files import LabelFileError, read_label_file
from tomoforge.volumes import LABEL_NAMES

CompanionKind = Literal["labels", "dials"]

_MSGPACK_TABLE = b"\x93"  # an array of three, as DIALS writes: name, version, table
_TABLE_NAME = b"dials::af::reflection_table"
_HDF5 = b"\x89HDF"


def companion_kind(path: Path) -> CompanionKind:
    """What a companion of an entry is, by its name."""
    return "dials" if path.name.lower().endswith(DIALS_FILES) else "labels"


def read_label_companion(
    path: Path,
    voxel_size: float,
    *,
    shape: tuple[int, int, int] | None = None,
    names: Mapping[str, int] = LABEL_NAMES,
) -> np.ndarray:
    """A label volume of the same sample as a scan.

    Parameters
    ----------
    path : folder of TIFF pages, multi-page TIFF, ``.nrrd``, ``.nii``, ``.nii.gz`` or OME-Zarr folder
    voxel_size : float [m], of the volume that it must fit; what the file says is compared with it
    shape : (z, y, x) of that volume, None if not known
    names : which labels there may be

    Returns
    -------
    labels : (z, y, x) uint8

    Raises
    ------
    Refused
        With the rule that ``read_label_file`` names, such as "label shape".
    """
    try:
        return read_label_file(path, voxel_size, shape=shape, names=names)
    except LabelFileError as error:
        raise refusal(error.rule, error.reason, error.remedy) from error


def check_dials(path: Path) -> None:
    """Make sure that a DIALS file is what its name says, without opening it as anything that could run.

    Raises
    ------
    Refused
        "pickled reflections" for a reflection table in the old format, "dials file" for anything else.
    """
    with open(path, "rb") as file:
        head = file.read(64)
    if path.name.lower().endswith(".refl"):
        if (head[:1] == _MSGPACK_TABLE and _TABLE_NAME in head) or head.startswith(_HDF5):
            return
        if head[:1] in (b"\x80", b"(", b"c", b"]", b"}"):
            raise refusal(
                "pickled reflections",
                f"{path.name} is a pickle, which runs code when it is opened",
                "write it again with a DIALS of today, which writes msgpack",
            )
        raise refusal("dials file", f"{path.name} is no reflection table", "write it again with DIALS")
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        good = isinstance(content, dict) and content.get("__id__") == "ExperimentList"
    except (ValueError, RecursionError):
        good = False
    if not good:
        raise refusal("dials file", f"{path.name} is no experiment list", "write it again with DIALS")
