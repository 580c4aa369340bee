"""A label file from a stranger, looked at in a process of its own that may take so much memory and time and no more.

A small file can claim to unpack into more than a machine has, and libraries that read it can be made to crash. So the
file is read by a worker whose address space the kernel bounds; here only its verdict arrives.
"""

import json
import math
import resource
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tomoforge.errors import StageError, StorageError
from tomoforge.label_files import LabelFileError, read_label_file
from tomoforge.label_orientation import better_orientation
from tomoforge.process import die_with_parent, run_worker
from tomoforge.volumes import LABEL_NAMES, open_level, read_voxel_size

_BASE_BYTES = 1 << 30  # interpreter, libraries and their threads take a seventh of it
_BYTES_A_VOXEL = 12  # labels as read, a sorted copy, as uint8, and room for a wider type
_MOST_BYTES = 6 << 30
_TIMEOUT_S = 180.0
_SAID = "verdict "
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
_alone = threading.Lock()


def check_label_file(file: Path, volume: Path, *, check_orientation: bool = True) -> dict[str, int]:
    """Voxels of each class of a label file that fits the stored volume.

    Parameters
    ----------
    file : TIFF, NRRD or NIfTI
    volume : OME-Zarr folder of the volume (z, y, x) [1/m]
    check_orientation : compare with the grey values whether axes were swapped or mirrored on the way

    Raises
    ------
    LabelFileError
        As ``read_label_file``; also with the rules "empty labels", "label orientation" and "label file" for one that
        takes more memory or time than labels of this volume do.
    StorageError
        The volume cannot be read.
    """
    voxels = math.prod(open_level(volume).shape)
    memory = min(_BASE_BYTES + _BYTES_A_VOXEL * voxels, _MOST_BYTES, max(_BASE_BYTES, _available() // 2))
    lines: list[str] = []
    arguments = [str(file), str(volume), str(int(check_orientation)), str(memory)]
    with _alone:  # one at a time: what is bounded once is not bounded ten times
        try:
            run_worker(
                "tomoforge.label_check",
                arguments,
                timeout_s=_TIMEOUT_S,
                environment=_ONE_THREAD,
                on_line=lines.append,
            )
        except StageError as error:
            raise _too_much(file) from error
    said = next((line for line in lines if line.startswith(_SAID)), None)
    if said is None:
        raise _too_much(file)
    verdict: Mapping = json.loads(said.removeprefix(_SAID))
    if "rule" in verdict:
        raise LabelFileError(verdict["rule"], verdict["reason"], verdict["remedy"])
    if "volume" in verdict:
        raise StorageError(verdict["volume"])
    return {str(name): int(count) for name, count in verdict["voxels"].items()}


def _available() -> int:
    """Memory that this machine could give now [bytes]."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return 2 * _MOST_BYTES


def _too_much(file: Path) -> LabelFileError:
    return LabelFileError(
        "label file",
        f"{file.name} took more memory or time than labels of this volume do; it is damaged, or made to",
        "write the labels as uint8 and compress them with zlib; import_labels takes larger files on the command line",
    )


def main(arguments: list[str]) -> None:
    """The worker: prints one line with the verdict."""
    die_with_parent()
    file, volume, check_orientation, memory = arguments
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        said: dict = {"voxels": _voxels(Path(file), Path(volume), check_orientation == "1")}
    except LabelFileError as error:
        if isinstance(error.__cause__, MemoryError):
            error = _too_much(Path(file))
        said = {"rule": error.rule, "reason": error.reason, "remedy": error.remedy}
    except StorageError as error:
        said = {"volume": str(error)}
    except MemoryError:
        said = vars(_too_much(Path(file)))
    sys.stdout.write(f"{_SAID}{json.dumps(said)}\n")
    sys.stdout.flush()


def _voxels(file: Path, volume: Path, check_orientation: bool) -> dict[str, int]:
    z, y, x = open_level(volume).shape
    labels = read_label_file(file, read_voxel_size(volume), shape=(z, y, x))
    counts = _counted(labels)
    if not counts[1:].any():
        raise LabelFileError(
            "empty labels", f"{file.name} shows background alone", "save the labels once they are drawn"
        )
    turned = _turned(volume, labels) if check_orientation else None
    if turned is not None:
        raise LabelFileError(
            "label orientation",
            f"{file.name} fits the volume better with {turned}",
            "write it with the axes (z, y, x) in the volume's order and direction, or hand it in without this check",
        )
    return {name: int(counts[value]) for name, value in LABEL_NAMES.items()}


def _counted(labels: np.ndarray) -> np.ndarray:
    """Voxels of each label, slice by slice: counting makes indices of eight bytes a voxel."""
    return np.sum([np.bincount(part.ravel(), minlength=len(LABEL_NAMES)) for part in labels], axis=0)


def _turned(volume: Path, labels: np.ndarray) -> str | None:
    """``better_orientation`` on the volume's coarsest level, which is all that it looks at."""
    level = 0
    while max(n // 2 ** (level + 1) for n in labels.shape) >= 32:
        try:
            open_level(volume, level + 1)
        except StorageError:
            break
        level += 1
    grey = np.asarray(open_level(volume, level)[:])
    coarse = labels[:: 2**level, :: 2**level, :: 2**level]
    return better_orientation(grey, coarse) if grey.shape == coarse.shape else None


if __name__ == "__main__":
    main(sys.argv[1:])
