"""Running flows as a person would, in processes of their own, and comparing what they leave."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The main job as small as it can be and still do everything.
TINY = [
    *("--samples", "2", "--grid", "64", "--voxel-size-um", "5", "--seed", "3"),
    *("--optics.projections", "45", "--rotation.reflections", "60", "--tracing.target-error", "0.02"),
    *("--training.epochs", "3", "--training.iterations", "3", "--training.patch", "64"),
    *("--training.stages", "4"),
]

# Times and run names; the server's and the registry's databases; pieces of runs that were killed.
_NOT_RESULTS = ("run.json", ".prefect", "registry", ".partial")


def start_flow(workspace: Path, *arguments: str, own_server: bool = False) -> subprocess.Popen:
    """``python -m flows …`` as the leader of a process group of its own, its output in ``workspace.log``.

    With the fixture ``one_server`` it goes to that server, unless it is to bring its own as it does for a person.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
    if "TOMOFORGE_TEST_SERVER" in environment and not own_server:
        environment["PREFECT_API_URL"] = environment["TOMOFORGE_TEST_SERVER"]
        environment["PREFECT_HOME"] = environment["TOMOFORGE_TEST_HOME"]
    environment["TOMOFORGE_WORKSPACE"] = str(workspace)
    with open(workspace.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "flows", *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def run_here(workspace: Path, *arguments: str) -> int:
    """``python -m flows …`` in the test's own process, with the fixture ``in_this_process``; its exit status.

    What it says is for ``capsys``. A process of its own costs ten seconds of imports, so it is for tests that need one.
    """
    from flows.command_line import main

    return main([arguments[0], "--workspace", str(workspace), *arguments[1:]])


def finish(flow: subprocess.Popen, timeout_s: float = 400) -> int:
    """Wait for a flow; its exit status. A flow that hangs is killed and fails the test."""
    try:
        return flow.wait(timeout_s)
    finally:
        kill_group(flow)


def kill_group(flow: subprocess.Popen) -> None:
    """``kill -9`` of the whole process group."""
    try:
        os.killpg(flow.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    flow.wait()


def artefacts(workspace: Path) -> dict[str, str]:
    """SHA-256 of every file of every finished result, by path within the workspace."""
    found = {}
    for file in sorted(workspace.rglob("*")):
        name = file.relative_to(workspace)
        if file.is_file() and not any(part in _NOT_RESULTS for part in name.parts):
            found[str(name)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def log_of(workspace: Path) -> str:
    """What the flows in this workspace have printed so far."""
    log = workspace.with_suffix(".log")
    return log.read_text(errors="replace") if log.exists() else ""
