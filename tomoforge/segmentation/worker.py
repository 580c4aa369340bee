"""The process that trains and predicts: the only one that imports torch and nnU-Net.

``python -m tomoforge.segmentation.worker job.json``. It speaks in JSON lines on its standard output,
told from what libraries print by the key ``tomoforge_event``.
"""

import errno
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from tomoforge import process
from tomoforge.errors import InputError, MissingComponentError, StorageError, TomoforgeError
from tomoforge.segmentation.jobs import EVENT


def emit(name: str, **values: Any) -> None:
    """Write one event to the standard output."""
    sys.stdout.write(json.dumps({EVENT: name, **values}, allow_nan=False) + "\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """Run the job in the file named by the only argument; 0 if it ended well."""
    process.die_with_parent()
    (path,) = arguments if arguments is not None else sys.argv[1:]
    job = json.loads(Path(path).read_text())
    try:
        _run(job)
    except TomoforgeError as error:
        emit("error", kind=type(error).__name__, message=str(error))
        return 2
    except Exception as error:
        if not is_full_disk(error):
            raise
        folder = Path(job["work_directory"])
        message = (
            f"no space left on the disk of {folder}, {shutil.disk_usage(folder).free / 2**30:.2f} GiB free ({error}); "
            "free some and run again: a training goes on after its last finished epoch"
        )
        emit("error", kind=StorageError.__name__, message=message)
        return 2
    return 0


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that it came of, is that of a full disk, however the library at hand says so."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # safetensors quotes the system; NumPy counts what did not fit, and neither gives the number.
        if any(words in str(error) for words in ("No space left on device", "requested and")):
            return True
        error = error.__cause__ or error.__context__
    return False


def _run(job: dict[str, Any]) -> None:
    command = job.get("command")
    if command not in ("train", "predict"):
        raise InputError(f"command must be train or predict, got {command!r}")
    folder = Path(job["work_directory"])
    # nnU-Net reads these while it is imported; the thread counts came with the process's environment.
    os.environ["nnUNet_raw"] = job.get("dataset_directory", str(folder))
    os.environ["nnUNet_preprocessed"] = str(folder / "preprocessed")
    os.environ["nnUNet_results"] = str(folder / "results")
    os.environ["nnUNet_n_proc_DA"] = str(int(job.get("loaders", 0)))
    # Read by cuBLAS when a GPU is first used; without it deterministic sums raise.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.set_num_threads(int(job["threads"]))
    if job.get("deterministic", True):
        # On a GPU some of nnU-Net's losses have no deterministic kernel: torch then warns instead of raising.
        torch.use_deterministic_algorithms(True, warn_only=job.get("device") == "cuda")
        torch.backends.cudnn.benchmark = False
    if job.get("device") == "cuda" and not torch.cuda.is_available():
        raise MissingComponentError(
            "device 'cuda' needs a GPU and a torch built for it, and torch sees none; take device 'cpu', or look "
            "at CUDA_VISIBLE_DEVICES and the installed torch"
        )
    if command == "train":
        from tomoforge.segmentation.training import train

        train(job, emit)
    else:
        from tomoforge.segmentation.inference import predict

        for part in job["parts"]:
            predict({**job, **part}, emit)


if __name__ == "__main__":
    sys.exit(main())
