"""Progress: seldom enough to read, whole lines, to the end; followed through a file from another process."""

import json
import re
import threading
import time
from pathlib import Path
from uuid import uuid4

import pytest

from tasks import progress
from tasks.progress import StageProgress, follow, report_to, say

PATIENCE_S = 30.0  # for the follower, which looks once a second; reached only by a failure


class Clock:
    """A clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def spoken(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines said since the last call, without their times."""
    return [re.sub(r"^\d\d:\d\d:\d\d  ", "", line) for line in capsys.readouterr().err.splitlines()]


def wait_for(condition) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_say__whole_lines_from_many_threads(capsys) -> None:
    threads = [threading.Thread(target=lambda n=n: [say(f"{n}" * 50) for _ in range(20)]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = spoken(capsys)
    assert len(lines) == 160
    assert all(len(line) == 50 and len(set(line)) == 1 for line in lines)


def test_say__leaves_standard_output_to_the_report(capsys) -> None:
    say("µ")
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.endswith("  µ\n")


def test_stage_progress__a_line_at_most_every_two_seconds_and_the_last(capsys, clock: Clock) -> None:
    bar = StageProgress("slabs")
    for done in range(1, 101):
        clock.now += 0.25
        bar(done, 100)
    lines = spoken(capsys)
    assert len(lines) == 12 + 1
    assert lines[0] == "slabs: 8 of 100 (8 %), about 23 s left"  # 8 in 2 s, so 92 in 23 s
    assert lines[-1] == "slabs: 100 of 100 (100 %)"


@pytest.mark.parametrize(("done", "total", "line"), [(0, 0, "x: 0 of 0 (100 %)"), (0, 4, "x: 0 of 4 (0 %)")])
def test_stage_progress__nothing_done_or_to_do(
    capsys, clock: Clock, done: int, total: int, line: str
) -> None:
    bar = StageProgress("x")
    clock.now += 10
    bar(done, total)
    assert spoken(capsys) == [line]


def test_stage_progress__outside_a_task_makes_no_artifact(monkeypatch, clock: Clock) -> None:
    monkeypatch.setattr(progress, "create_progress_artifact", lambda *_, **__: pytest.fail("made"))
    StageProgress("x")(1, 1)


def test_stage_progress__one_artifact_a_stage(monkeypatch, clock: Clock) -> None:
    made, updated, identifier = [], [], uuid4()

    def create(percent: float, **words: str):
        made.append((percent, words))
        return identifier

    monkeypatch.setattr(progress.TaskRunContext, "get", lambda: object())
    monkeypatch.setattr(progress, "create_progress_artifact", create)
    monkeypatch.setattr(progress, "update_progress_artifact", lambda *words: updated.append(words))
    bar = StageProgress("Sample 3: µ of slabs")
    for done in (1, 2, 4):
        clock.now += 3
        bar(done, 4)
    # Prefect's keys are small letters, digits and dashes.
    assert made == [(25.0, {"key": "sample-3-of-slabs", "description": "Sample 3: µ of slabs"})]
    assert updated == [(identifier, 50.0), (identifier, 100.0)]


def test_report_to__leaves_the_last_state_in_a_file(tmp_path: Path) -> None:
    report = report_to(tmp_path / "p.json")
    for done in range(3):
        report(done, 10)
    assert json.loads((tmp_path / "p.json").read_text()) == [2, 10]
    assert list(tmp_path.iterdir()) == [tmp_path / "p.json"]


def test_follow__passes_on_what_is_reported_and_removes_the_file(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    seen: list[tuple[int, int]] = []
    report = report_to(file)
    with follow(file, lambda done, total: seen.append((done, total))):
        for done in (1, 2):
            report(done, 2)
            wait_for(lambda done=done: (done, 2) in seen)
    assert seen == [(1, 2), (2, 2)]
    assert not file.exists()


def test_follow__what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    seen: list[tuple[int, int]] = []
    file.write_text("[1,")
    with follow(file, lambda done, total: seen.append((done, total))):
        time.sleep(1.2)  # it has looked once
        report_to(file)(3, 4)
        wait_for(lambda: bool(seen))
    assert seen == [(3, 4)]


def test_follow__ends_with_a_step_that_raises(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), follow(file, lambda *_: None):
        report_to(file)(1, 2)
        1 / 0  # noqa: B018
    assert not file.exists()
    assert threading.active_count() == before
