"""Workers: their words are heard, their end is told, and none outlives its time-out or its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tomoforge.errors import InputError, StageError
from tomoforge.process import run_worker

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30.0  # for a process to start or to end; reached only by a failure


@pytest.fixture
def worker(tmp_path: Path) -> Callable[..., list[str]]:
    """Runs a worker module with the given body; returns the lines it printed."""

    def run(body: str, *arguments: str, timeout_s: float = PATIENCE_S, **environment: str) -> list[str]:
        (tmp_path / "a_worker.py").write_text(f"import os, signal, subprocess, sys, time\n{body}\n")
        lines: list[str] = []
        run_worker(
            "a_worker",
            arguments,
            timeout_s=timeout_s,
            environment={"PYTHONPATH": f"{tmp_path}:{ROOT}", **environment},
            on_line=lines.append,
        )
        return lines

    return run


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether a process lives; one that ended and was not collected (a zombie) does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_run_worker__lines_arguments_and_environment(worker) -> None:
    body = (
        "print(*sys.argv[1:]); print(os.environ['FLAVOUR'], file=sys.stderr, flush=True)\nprint('µ', end='')"
    )
    lines = worker(body, "a", "b c", FLAVOUR="salt", PYTHONUNBUFFERED="1")
    assert lines == ["a b c", "salt", "µ"]


def test_run_worker__bytes_that_are_no_text_do_not_stop_it(worker) -> None:
    assert worker(r"sys.stdout.buffer.write(b'a\xffb\n')") == ["a\ufffdb"]


def test_run_worker__is_not_fed_from_the_terminal(worker) -> None:
    assert worker("print(repr(sys.stdin.read()))") == ["''"]


def test_run_worker__status_and_last_lines_are_told(worker) -> None:
    with pytest.raises(StageError, match=r"a_worker ended with status 3; its last lines:") as caught:
        worker("for n in range(100): print('line', n)\nsys.exit(3)")
    assert "line 99" in str(caught.value) and "line 5\n" not in str(caught.value)
    with pytest.raises(StageError, match="printed nothing"):
        worker("sys.exit(1)")


def test_run_worker__an_exception_ends_in_its_message(worker) -> None:
    with pytest.raises(StageError, match="ZeroDivisionError"):
        worker("1 / 0")


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL"])
def test_run_worker__signal_is_named(worker, name: str) -> None:
    with pytest.raises(StageError, match=f"ended with signal {name}"):
        worker(f"os.kill(os.getpid(), signal.{name})")


def test_run_worker__module_that_does_not_exist() -> None:
    with pytest.raises(StageError, match="No module named"):
        run_worker("tomoforge.no_such_worker", [], timeout_s=PATIENCE_S)


def test_run_worker__timeout_ends_grandchildren_too(worker, tmp_path: Path) -> None:
    body = (
        "child = subprocess.Popen(['sleep', '600'])\n"
        "open(sys.argv[1], 'w').write(f'{os.getpid()} {child.pid}')\n"
        "print('on the way', flush=True)\ntime.sleep(600)"
    )
    with pytest.raises(StageError, match=r"ran longer than its 3 s and was ended; .*\non the way"):
        worker(body, str(tmp_path / "pids"), timeout_s=3.0)
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        wait_for(lambda pid=pid: not runs(pid))


def test_run_worker__is_ended_when_the_listener_raises(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "talker.py").write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    heard: list[int] = []

    def listen(line: str) -> None:
        heard.append(int(line))
        raise KeyError("enough")

    with pytest.raises(KeyError):
        run_worker("talker", [], timeout_s=PATIENCE_S, on_line=listen)
    wait_for(lambda: not runs(heard[0]))


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the kernel's parent-death signal is Linux's"
)
def test_run_worker__dies_with_a_killed_parent(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    (tmp_path / "a_worker.py").write_text(
        "import os, sys, time\nfrom pathlib import Path\nfrom tomoforge.process import die_with_parent\n"
        "die_with_parent()\nPath(sys.argv[1] + '.tmp').write_text(str(os.getpid()))\n"
        "os.rename(sys.argv[1] + '.tmp', sys.argv[1])\ntime.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from tomoforge.process import run_worker; run_worker('a_worker', [{str(pid_file)!r}], timeout_s=600)",
        ],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    try:
        wait_for(pid_file.exists)
        child = int(pid_file.read_text())
        assert runs(child)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_for(lambda: not runs(child))


@pytest.mark.parametrize("timeout_s", [0, -1.0])
def test_run_worker__timeout_must_be_positive(timeout_s: float) -> None:
    with pytest.raises(InputError, match="timeout_s must be positive seconds"):
        run_worker("any", [], timeout_s=timeout_s)
