"""Every process that one ``make serve`` started, found by a mark in its environment, and its end.

Neither a process group nor the tree of parents holds them together: Prefect gives each flow run a session of
its own, so do Blender and training, and the children of a killed process are handed to init. What all of them
inherit is the environment.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

MARK = "TOMOFORGE_SERVE"


def marked(mark: str) -> list[psutil.Process]:
    """The living processes whose environment carries ``mark``, except the caller's own."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue  # it ended meanwhile, or it is someone else's and so none of ours
    return found


def kill_marked(mark: str, patience_s: float = 20.0) -> list[psutil.Process]:
    """Kill until none is left, since a process may start another meanwhile; returns those that remain."""
    deadline = time.monotonic() + patience_s
    while (left := marked(mark)) and time.monotonic() < deadline:
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        psutil.wait_procs(left, timeout=1)
    return left


def start_guard(mark: str, home: Path) -> subprocess.Popen:
    """A process that kills all that carries ``mark`` as soon as this one has ended, even by ``kill -9``.

    It reads from a pipe that nobody writes to: the kernel closes it when this process ends.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "deployments.descendants", mark],
        cwd=home,
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C at the terminal is not for it
    )


def _guard(mark: str) -> None:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    sys.stdin.buffer.read()
    kill_marked(mark)


if __name__ == "__main__":
    _guard(sys.argv[1])
