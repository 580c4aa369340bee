"""The process that trains and predicts: the only one that imports torch and nnU-Net.

``python -m tomoforge.segmentation.worker job.json``. It speaks in JSON lines on its standard output,
told from what libraries print by the key ``tomoforge_event``.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from tomoforge import process
from tomoforge.errors import InputError, TomoforgeError
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
    return 0


def _run(job: dict[str, Any]) -> None:
    command = job.get("command")
    if command not in ("train", "predict"):
        raise InputError(f"command must be train or predict, got {command!r}")
    folder = Path(job["work_directory"])
    # nnU-Net reads these while it is imported; the thread counts came with the process's environment.
    os.environ["nnUNet_raw"] = job.get("dataset_directory", str(folder))
    os.environ["nnUNet_preprocessed"] = str(folder / "preprocessed")
    os.environ["nnUNet_results"] = str(folder / "results")
    os.environ["nnUNet_n_proc_DA"] = "0"
    import torch

    torch.set_num_threads(int(job["threads"]))
    torch.use_deterministic_algorithms(True)
    if command == "train":
        from tomoforge.segmentation.training import train

        train(job, emit)
    else:
        from tomoforge.segmentation.inference import predict

        predict(job, emit)


if __name__ == "__main__":
    sys.exit(main())
