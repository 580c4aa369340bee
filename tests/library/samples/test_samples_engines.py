"""Both Blenders behind one name: found, tried, repeatable; and what happens when they die, hang or are absent."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import psutil
import pytest

from tomoforge.errors import InputError, MissingComponentError, StageError, WorkerDiedError
from tomoforge.samples import engines
from tomoforge.samples.engines import LENS, drape, find_engine
from tomoforge.samples.mesh import ellipsoid, surface_points

HAS_BLENDER = shutil.which(os.environ.get("TOMOFORGE_BLENDER") or "blender") is not None
needs_blender = pytest.mark.skipif(not HAS_BLENDER, reason="no Blender executable on this machine")
BOTH = ["bpy", pytest.param("blender", marks=needs_blender)]

BALL = ellipsoid((0, 0, 0), (30e-6, 40e-6, 30e-6), 2)
DROP = ellipsoid((0, 0, 0), (90e-6, 50e-6, 90e-6), 3)


def draped(engine, **change):
    job = {
        "obstacles": [BALL],
        "lenses": [DROP],
        "probes": surface_points([BALL], 60),
        "drift": (3e-6, -2e-6, 1e-6),
        "resolution": 24,
        "frames": 4,
        "timeout_s": 60,
    }
    return drape(engine, **{**job, **change})


@pytest.mark.parametrize("name", BOTH)
def test_drape__gives_a_closed_liquor_around_the_obstacle_and_the_same_bytes_again(name):
    engine = find_engine(name)
    assert engine.name == name and engine.version
    first, second = draped(engine), draped(engine)
    (liquor,), (again,) = first.liquor, second.liquor
    assert liquor.is_closed()
    assert liquor.vertices.tobytes() == again.vertices.tobytes()
    assert liquor.triangles.tobytes() == again.triangles.tobytes()
    assert first.record == second.record
    # The solver's cells are 9 µm; liquor around the ball keeps its volume to some tens of per cent.
    assert 0.5 * DROP.volume < abs(liquor.volume) < 1.3 * DROP.volume
    assert first.record["drift_share"] == 1.0 and first.record["bake_wetted"] > 0.9


def test_drape__liquor_that_is_thrown_off_ends_without_a_bake_and_says_why():
    draping = draped(find_engine("bpy"), drift=(0.0, 4e-3, 0.0))
    assert draping.liquor is None
    assert len(draping.record["bake_failures"]) == 3  # one an attempt, each with less force


def test_find_engine__auto_takes_the_wheel_and_lens_needs_nothing():
    assert find_engine("auto").name == "bpy"
    assert find_engine("lens") == LENS
    assert draped(LENS).liquor is None


def test_find_engine__unknown_name_is_refused():
    with pytest.raises(InputError, match=r"engine must be one of auto, bpy, blender, lens, got 'maya'"):
        find_engine("maya")


def test_find_engine__missing_engines_are_named_with_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("TOMOFORGE_BLENDER", str(tmp_path / "nowhere"))
    with pytest.raises(MissingComponentError, match=r"no executable .*nowhere.*Debian: blender"):
        find_engine("blender")
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingComponentError, match=r"'auto' cannot be used: the bpy wheel is not installed; .*lens"
    ):
        find_engine("auto")


def test_find_engine__an_executable_that_is_no_blender_fails_its_smoke_test(monkeypatch, tmp_path):
    fake = tmp_path / "blender"
    fake.write_text("#!/bin/sh\nexit 0\n")
    fake.chmod(0o755)
    monkeypatch.setenv("TOMOFORGE_BLENDER", str(fake))
    with pytest.raises(MissingComponentError, match=r"smoke test: .*without a result"):
        find_engine("blender")


def interfere(send, delay=0.0):
    """Send a signal to the next Blender that this process starts; the processes that got one."""
    met = []

    def watch():
        me = psutil.Process()
        for _ in range(3000):
            for child in me.children(recursive=True):
                try:
                    line = " ".join(child.cmdline())
                except psutil.Error:
                    continue
                if "blender_worker" in line:
                    time.sleep(delay)
                    met.append(child)
                    child.send_signal(send)
                    return
            time.sleep(0.01)

    threading.Thread(target=watch, daemon=True).start()
    return met


@pytest.mark.parametrize("name", BOTH)
def test_drape__a_killed_blender_is_an_accident_that_says_so(name, tmp_path, monkeypatch):
    engine = find_engine(name)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    met = interfere(signal.SIGKILL, delay=0.3)
    with pytest.raises(WorkerDiedError, match=rf"Blender \({name} .*SIGKILL"):
        draped(engine)
    assert met and not met[0].is_running()
    assert list(tmp_path.iterdir()) == []


def test_drape__a_stopped_blender_is_ended_after_its_time(tmp_path, monkeypatch):
    engine = find_engine("bpy")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    met = interfere(signal.SIGSTOP)
    with pytest.raises(WorkerDiedError, match="ran longer than its 3 s"):
        draped(engine, timeout_s=3)
    assert met and not met[0].is_running()
    assert list(tmp_path.iterdir()) == []


# A private mount namespace: the small disk vanishes with the process.
SMALL_DISK = 'mkdir -p "$1" && mount -t tmpfs -o size="$2" none "$1" && TMPDIR="$1" exec "$3" -c "$4"'
BAKE = """
import numpy as np
from tomoforge.errors import StageError
from tomoforge.samples.engines import Engine, drape
from tomoforge.samples.mesh import ellipsoid
ball = ellipsoid((0, 0, 0), (30e-6, 40e-6, 30e-6), 2)
try:
    drape(Engine("bpy", "5"), obstacles=[ball], lenses=[ellipsoid((0, 0, 0), (9e-5,) * 3, 3)], probes=np.zeros((1, 3)),
          drift=(0, 0, 1e-6), resolution=32, frames=6, timeout_s=60)
except StageError as error:
    print("StageError:", error)
"""


@pytest.mark.parametrize("size", ["40k", "200k"])  # full for the job's own files; full for Blender's cache
def test_drape__a_full_temporary_disk_is_named(size, tmp_path):
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    trial = [*namespace, "mount", "-t", "tmpfs", "none", tmp_path]
    if shutil.which("unshare") is None or subprocess.run(trial, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small disk in a namespace of its own")
    command = [*namespace, "sh", "-c", SMALL_DISK, "sh", tmp_path / "disk", size, sys.executable, BAKE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "StageError: " in done.stdout and "is full" in done.stdout, done.stdout + done.stderr


def test_drape__a_failing_blender_is_a_stage_error_with_its_last_lines():
    with pytest.raises(StageError, match=r"(?s)status 1.*ZeroDivisionError"):
        draped(find_engine("bpy"), frames=0)  # no time in which a force could carry anything
