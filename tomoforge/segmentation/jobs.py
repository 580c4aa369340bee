"""Sends work to the worker process and hears from it: a JSON file there, JSON lines back."""

import importlib.util
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tomoforge import errors
from tomoforge.errors import MissingComponentError, StageError, TomoforgeError
from tomoforge.process import run_worker
from tomoforge.storage import write_json_atomic

WORKER = "tomoforge.segmentation.worker"
EVENT = "tomoforge_event"  # the key that tells our lines from those that libraries print

_log = logging.getLogger(__name__)


def run_job(
    folder: Path,
    job: Mapping[str, Any],
    *,
    threads: int,
    timeout_s: float,
    on_event: Callable[[str, dict[str, Any]], None],
) -> None:
    """Run one job in the worker and pass its events (name, values) to ``on_event``.

    folder : existing folder for the job file. threads : of torch and of every BLAS.

    Raises
    ------
    MissingComponentError
        nnU-Net or torch are not installed.
    TomoforgeError
        Of the kind that the worker raised on purpose; StageError for any other end.
    """
    for module in ("torch", "nnunetv2", "safetensors"):
        if importlib.util.find_spec(module) is None:
            raise MissingComponentError(
                f"segmentation needs {module}; install the extra with `pip install tomoforge[train]`"
            )
    failure: list[TomoforgeError] = []

    def hear(line: str) -> None:
        event = _parse(line)
        if event is None:
            _log.debug("worker: %s", line)
            return
        name = event.pop(EVENT)
        if name == "error":
            failure.append(_error(event))
        else:
            on_event(name, event)

    path = folder / "job.json"
    write_json_atomic(path, job)
    try:
        run_worker(
            WORKER, [str(path)], timeout_s=timeout_s, environment=worker_environment(threads), on_line=hear
        )
    except StageError as error:
        if failure:
            raise failure[0] from error
        raise


def worker_environment(threads: int) -> dict[str, str]:
    """Variables of the worker's environment that numerical libraries and nnU-Net read while they are imported."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        # Idle OpenMP threads that spin take the other thread's core on a small or shared machine.
        "OMP_WAIT_POLICY": "PASSIVE",
        "nnUNet_def_n_proc": str(threads),
        "nnUNet_compile": "f",
        "nnUNet_wandb_enabled": "0",
    }


def _parse(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and EVENT in event else None


def _error(event: Mapping[str, Any]) -> TomoforgeError:
    kind = getattr(errors, str(event.get("kind")), None)
    if not (isinstance(kind, type) and issubclass(kind, TomoforgeError)):
        kind = StageError
    return kind(str(event.get("message")))
