"""``make serve``: Prefect server, work pool, deployments and a worker on this machine, on loopback.

Everything ends together with Ctrl-C. To start a run: the UI it prints, or, with the same PREFECT_API_URL,
``prefect deployment run end-to-end/small``.
"""

import argparse
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import psutil

from deployments.descendants import MARK, kill_marked, start_guard
from deployments.registration import POOL, api, crash_leftovers, prefect_command, register

HOME = Path(__file__).resolve().parents[1]
_HOST = "127.0.0.1"
_WORKER = "this-machine"
_STARTUP_S = 240
_STOP_S = 20
_STOP_WORKER_S = 2  # without runs it has nothing to save, and an idle one may sleep on


def main(arguments: list[str] | None = None) -> int:
    """Bring everything up, then wait until a part ends or Ctrl-C is pressed; returns the exit status.

    Raises RuntimeError if the port or the workspace is taken, or a part does not start.
    """
    parser = argparse.ArgumentParser(prog="make serve", description=__doc__)
    parser.add_argument("--port", type=_port, default=4200, help=f"port of server and UI on {_HOST}")
    options = parser.parse_args(arguments)
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _interrupt)
    environment = server_environment(options.port)
    home = Path(environment["PREFECT_HOME"])
    home.mkdir(parents=True, exist_ok=True)  # the server cannot open its database in a missing folder
    os.environ["PREFECT_HOME"] = str(home)  # Prefect makes this folder when it is imported, to check the keys
    try:
        with only_one(home, f"http://{_HOST}:{options.port}"):
            require_free(options.port)
            return _serve(environment)
    except KeyboardInterrupt:
        return 0


def _serve(environment: dict[str, str]) -> int:
    running: dict[str, subprocess.Popen] = {}
    try:
        running["guard"] = start_guard(environment[MARK], HOME)
        running["server"] = _prefect(environment, *_server_words(environment))
        _wait(lambda: api(environment, "health") is True, "server", running)
        register(environment, HOME)
        left = crash_leftovers(environment)
        if left:
            print(f"{left} run(s) of a serve that was killed are marked as crashed; retry them in the UI")
        started = datetime.now(UTC)
        words = ("worker", "start", "--pool", POOL, "--type", "process", "--name", _WORKER)
        running["worker"] = _prefect(environment, *words)
        _wait(lambda: _heard_since(environment, started), "worker", running)
        print(_welcome(environment), flush=True)
        while all(child.poll() is None for child in running.values()):
            time.sleep(0.5)
        ended = ", ".join(name for name, child in running.items() if child.poll() is not None)
        raise RuntimeError(f"the {ended} ended by itself; see its messages above, then start again")
    except KeyboardInterrupt:
        print("\nstopping server, worker and runs …", flush=True)
        return 0
    finally:
        _stop(running, environment[MARK])


def server_environment(port: int) -> dict[str, str]:
    """Environment of server, worker and the flows it starts: one workspace, one database, no telemetry."""
    workspace = Path(os.environ.get("TOMOFORGE_WORKSPACE") or HOME / "workspace").absolute()
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), _HOST]))
    return {
        **os.environ,
        MARK: uuid.uuid4().hex,
        "TOMOFORGE_HOME": str(HOME),
        "TOMOFORGE_WORKSPACE": str(workspace),
        "PREFECT_HOME": os.environ.get("PREFECT_HOME") or str(workspace / ".prefect"),
        "PREFECT_API_URL": f"http://{_HOST}:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # Runs use this very environment; with uv on the path Prefect could otherwise make one of its own.
        "PREFECT_RUNNER_AUTO_INSTALL_DEPENDENCIES": "false",
        "PREFECT_WORKER_QUERY_SECONDS": os.environ.get("PREFECT_WORKER_QUERY_SECONDS") or "3",
        "NO_PROXY": direct,
        "no_proxy": direct,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HOME), os.environ.get("PYTHONPATH")])),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }


@contextlib.contextmanager
def only_one(home: Path, url: str) -> Iterator[None]:
    """Hold the Prefect database in ``home``: two workers on one would run and end each other's runs.

    Raises RuntimeError that says where the other one is. A killed holder's lock is free at once.
    """
    with open(home / "serve.lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise RuntimeError(
                f"this workspace is already served at {lock.read().strip() or 'another port'}; use that, or "
                'choose another workspace: make serve TOMOFORGE_WORKSPACE=/path ARGS="--port 4300"'
            ) from error
        lock.truncate(0)
        lock.write(url)
        lock.flush()
        yield


def require_free(port: int) -> None:
    """Raises RuntimeError that names a free port if ``port`` is taken."""
    if not _is_free(port):
        other = next((p for p in range(port + 100, 65536) if _is_free(p)), 4300)
        raise RuntimeError(f'port {port} is taken; choose another: make serve ARGS="--port {other}"')


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # A port just closed is free for the server, which sets the same option.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = 0
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, got {text!r}")
    return port


def _server_words(environment: Mapping[str, str]) -> tuple[str, ...]:
    port = environment["PREFECT_API_URL"].removesuffix("/api").rsplit(":", 1)[1]
    return ("server", "start", "--host", _HOST, "--port", port)


def _prefect(environment: Mapping[str, str], *words: str) -> subprocess.Popen:
    # A session of its own: Ctrl-C reaches this process first, which then stops the children in order.
    return subprocess.Popen(prefect_command(*words), env=environment, cwd=HOME, start_new_session=True)


def _wait(is_up: Callable[[], bool], name: str, running: Mapping[str, subprocess.Popen]) -> None:
    """Wait until ``is_up``. Raises RuntimeError if a process ends or the time is up."""
    deadline = time.monotonic() + _STARTUP_S
    while time.monotonic() < deadline:
        if any(child.poll() is not None for child in running.values()):
            raise RuntimeError(f"the {name} ended while starting; see its messages above")
        with contextlib.suppress(OSError, RuntimeError):
            if is_up():
                return
        time.sleep(0.3)
    raise RuntimeError(f"the {name} did not answer within {_STARTUP_S} s; is the machine overloaded?")


def _heard_since(environment: Mapping[str, str], moment: datetime) -> bool:
    workers = api(environment, f"work_pools/{POOL}/workers/filter", {})
    beats = [datetime.fromisoformat(item["last_heartbeat_time"]) for item in workers]
    return any(beat >= moment for beat in beats)


def _welcome(environment: Mapping[str, str]) -> str:
    url = environment["PREFECT_API_URL"]
    return f"""
UI       {url.removesuffix("/api")}
results  {environment["TOMOFORGE_WORKSPACE"]}/published   (make dashboard)
start    in the UI under Deployments, or:
         PREFECT_API_URL={url} .venv/bin/prefect deployment run end-to-end/small
stop     Ctrl-C
ready"""


def _stop(running: Mapping[str, subprocess.Popen], mark: str) -> None:
    """Runs first, so that they report their end to the server; then worker, server, and whatever is left."""
    worker, server, guard = (running.get(name) for name in ("worker", "server", "guard"))
    if worker is not None and worker.poll() is None:
        runs = psutil.Process(worker.pid).children()
        worker.terminate()  # no new runs
        for run in runs:
            with contextlib.suppress(psutil.NoSuchProcess):
                run.terminate()
        psutil.wait_procs(runs, timeout=_STOP_S)
    for child, patience in ((worker, _STOP_WORKER_S), (server, _STOP_S)):
        if child is not None:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(patience)
            child.kill()
    left = kill_marked(mark)
    for child in (worker, server):
        if child is not None:
            child.wait()
    if guard is not None and guard.stdin is not None:
        guard.stdin.close()
        guard.wait()
    if left:
        print(f"error: still alive: {', '.join(str(process.pid) for process in left)}", file=sys.stderr)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # pressed again while stopping: the guard ends what is left
        sys.exit(130)
