"""``make serve``: Prefect server, work pool, deployments and a worker on this machine, on loopback.

Everything ends together with Ctrl-C. To start a run: the UI it prints, or, with the same PREFECT_API_URL,
``prefect deployment run end-to-end/small``.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
POOL = "tomoforge"
_STARTUP_S = 240
_STOP_S = 20


def main() -> int:
    """Bring everything up, then wait until a part ends or Ctrl-C is pressed; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make serve", description=__doc__)
    parser.add_argument("--port", type=int, default=4200, help="port of server and UI on 127.0.0.1")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    environment = server_environment(options.port)
    # The server cannot open its database in a missing folder.
    Path(environment["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    running: list[subprocess.Popen] = []
    try:
        running.append(_prefect(environment, "server", "start", "--host", "127.0.0.1", "--port", str(options.port)))
        wait_until_healthy(f"{environment['PREFECT_API_URL']}/health", running[0])
        register(environment)
        running.append(_prefect(environment, "worker", "start", "--pool", POOL, "--type", "process"))
        print(f"\nUI       http://127.0.0.1:{options.port}")
        print(f"results  {environment['TOMOFORGE_WORKSPACE']}/published   (make dashboard)")
        print("start    in the UI under Deployments, or:")
        print(
            f"         PREFECT_API_URL={environment['PREFECT_API_URL']} "
            ".venv/bin/prefect deployment run end-to-end/small\nstop     Ctrl-C",
            flush=True,
        )
        while all(child.poll() is None for child in running):
            time.sleep(0.5)
        print("error: the Prefect server or worker ended by itself; see its messages above", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        for child in reversed(running):
            _stop(child)


def server_environment(port: int) -> dict[str, str]:
    """Environment of server, worker and the flows it starts: one workspace, one database, no telemetry."""
    workspace = Path(os.environ.get("TOMOFORGE_WORKSPACE") or HOME / "workspace").absolute()
    return {
        **os.environ,
        "TOMOFORGE_HOME": str(HOME),
        "TOMOFORGE_WORKSPACE": str(workspace),
        "PREFECT_HOME": os.environ.get("PREFECT_HOME") or str(workspace / ".prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HOME), os.environ.get("PYTHONPATH")])),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }


def register(environment: dict[str, str]) -> None:
    """Create the work pool and register every deployment of prefect.yaml."""
    _prefect_done(environment, "work-pool", "create", POOL, "--type", "process", "--overwrite")
    _prefect_done(environment, "--no-prompt", "deploy", "--all", "--prefect-file", str(HOME / "prefect.yaml"))


def wait_until_healthy(url: str, server: subprocess.Popen) -> None:
    """Wait for the server's answer. Raises RuntimeError if it ends or stays silent."""
    deadline = time.monotonic() + _STARTUP_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(
                "the Prefect server ended while starting; is the port taken? Choose another: make serve ARGS='--port 4300'"
            )
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    raise RuntimeError(f"the Prefect server did not answer at {url} within {_STARTUP_S} s")


def _command(*words: str) -> list[str]:
    program = shutil.which("prefect", path=str(Path(sys.executable).parent))
    return [program or "prefect", *words]


def _prefect(environment: dict[str, str], *words: str) -> subprocess.Popen:
    # A session of its own: Ctrl-C reaches this process first, which then stops the children in order.
    return subprocess.Popen(_command(*words), env=environment, cwd=HOME, start_new_session=True)


def _prefect_done(environment: dict[str, str], *words: str) -> None:
    done = subprocess.run(_command(*words), env=environment, cwd=HOME, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"prefect {' '.join(words)} failed:\n{done.stdout}{done.stderr}")


def _stop(child: subprocess.Popen) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            pass
    # Flow runs that a worker started, and their Blender or training, are in its session.
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
