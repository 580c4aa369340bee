"""Workers that need a process of their own (Blender, training): time-out, own group, no orphans."""

import collections
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

from tomoforge.errors import InputError, StageError, WorkerDiedError

_PARENT = "TOMOFORGE_PARENT_PID"
_PR_SET_PDEATHSIG = 1
_TAIL_LINES = 20


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends; the first call of a worker's ``main``.

    A worker runs in a session of its own so that a time-out can end its whole group; without this it
    would outlive a killed parent and keep writing.
    """
    expected = os.environ.get(_PARENT)
    if expected is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(expected):  # the parent died before the request was in place
        os._exit(1)


def run_worker(
    module: str,
    arguments: Sequence[str],
    *,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run ``python -m module arguments…``: see ``run_command``."""
    command = [sys.executable, "-m", module, *arguments]
    run_command(command, name=module, timeout_s=timeout_s, environment=environment, on_line=on_line)


def run_command(
    command: Sequence[str],
    *,
    name: str,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run a command in a session of its own and wait for it.

    Each line of its output (stdout and stderr together) goes to ``on_line``; messages call it ``name``.

    Raises
    ------
    WorkerDiedError
        The command was ended by a signal, or ran longer than ``timeout_s`` [s] (its whole process group is
        then killed, stopped processes too).
    StageError
        The command could not be started or ended with a status other than 0; the message ends with its last
        lines.
    """
    if timeout_s <= 0:
        raise InputError(f"timeout_s must be positive seconds, got {timeout_s}")
    try:
        child = _started(command, environment)
    except OSError as error:
        raise StageError(f"{name} could not be started: {error}") from error
    timed_out = threading.Event()

    def expire() -> None:
        timed_out.set()
        _kill_group(child)

    timer = threading.Timer(timeout_s, expire)
    timer.daemon = True
    timer.start()
    tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)
    try:
        assert child.stdout is not None
        for line in child.stdout:
            tail.append(line.rstrip())
            if on_line is not None:
                on_line(line.rstrip())
        status = child.wait()
    finally:
        timer.cancel()
        if child.poll() is None:
            _kill_group(child)
            child.wait()
        if child.stdout is not None:
            child.stdout.close()
    last = "\n".join(tail) or "(it printed nothing)"
    if timed_out.is_set():
        raise WorkerDiedError(
            f"{name} ran longer than its {timeout_s:g} s and was ended; its last lines:\n{last}"
        )
    if status < 0:
        raise WorkerDiedError(
            f"{name} ended with signal {signal.Signals(-status).name}; its last lines:\n{last}"
        )
    if status > 0:
        raise StageError(f"{name} ended with status {status}; its last lines:\n{last}")


def _kill_group(child: subprocess.Popen) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _started(command: Sequence[str], environment: Mapping[str, str] | None) -> subprocess.Popen:
    return subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**os.environ, **(environment or {}), _PARENT: str(os.getpid())},
    )
