"""Progress of long steps, for a person at the terminal and as Prefect progress artifacts."""

import contextlib
import contextvars
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext

from tomoforge.storage import write_json_atomic

_EVERY_S = 2.0
_print_lock = threading.Lock()


def say(text: str) -> None:
    """One line for the person at the terminal, whole even when several tasks speak."""
    with _print_lock:
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


class StageProgress:
    """Callable with (done, total): a line at most every two seconds, and an artifact in Prefect's UI."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._artifact: UUID | None = None
        self._in_run = TaskRunContext.get() is not None
        self._started = time.monotonic()
        self._shown = self._started

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self._shown < _EVERY_S:
            return
        self._shown = now
        percent = 100.0 * done / total if total else 100.0
        left = (now - self._started) * (total - done) / done if done else float("nan")
        # The first piece pays for imports and compilation: it says nothing about the others.
        ending = f", about {left:.0f} s left" if 1 < done < total else ""
        say(f"{self.title}: {done} of {total} ({percent:.0f} %){ending}")
        if not self._in_run:
            return
        if self._artifact is None:
            key = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")
            self._artifact = create_progress_artifact(percent, key=key, description=self.title)  # type: ignore[assignment]
        else:
            update_progress_artifact(self._artifact, percent)


def report_to(path: Path) -> Callable[[int, int], None]:
    """A progress callback that leaves (done, total) in a file, for a step that runs on a worker."""

    def report(done: int, total: int) -> None:
        write_json_atomic(path, [done, total])

    return report


@contextlib.contextmanager
def follow(path: Path, progress: Callable[[int, int], None]) -> Iterator[None]:
    """Pass on what ``report_to(path)`` writes, from any machine that shares the workspace; then remove it."""
    stop = threading.Event()
    context = contextvars.copy_context()  # the artifact belongs to the task that is running here
    seen: list[int] = []

    def look() -> None:
        nonlocal seen
        with contextlib.suppress(FileNotFoundError, ValueError):
            reported = json.loads(path.read_text())
            if reported != seen:
                seen = reported
                progress(*reported)

    def poll() -> None:
        while not stop.wait(1.0):
            look()

    follower = threading.Thread(target=context.run, args=(poll,), daemon=True)
    follower.start()
    try:
        yield
    finally:
        stop.set()
        follower.join()
        look()  # what was reported within the last second
        path.unlink(missing_ok=True)
