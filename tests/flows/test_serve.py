"""``make serve``: what is registered, a run through a deployment, the UI in a browser, and an end without orphans."""

import copy
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from deployments.descendants import MARK, kill_marked, marked, start_guard
from deployments.registration import api, differences, refuse_unknown_keys, resolved
from deployments.serve import main, only_one, require_free
from tomoforge.geometry import ScanGeometry, uniform_angles
from tomoforge.optics.detector import Detector
from tomoforge.optics.materials import find_material
from tomoforge.optics.scan import Beam, simulate_scan
from tomoforge.scan import write_frame_batch, write_nxtomo

ROOT = Path(__file__).resolve().parents[2]
# A mark of the test's own, so that the search for orphans does not rely on the one that serve kills by.
TEST_MARK = "TOMOFORGE_TEST_OF_SERVE"
BROWSER = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    """prefect.yaml as Prefect reads it."""
    return yaml.safe_load((ROOT / "prefect.yaml").read_text())


def as_registered(content: dict[str, Any]) -> list[dict[str, Any]]:
    """What a server answers that has taken everything as written."""
    return [
        {
            "entrypoint": entry["entrypoint"],
            "name": entry["name"],
            "work_pool_name": entry["work_pool"]["name"],
            "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": "/checkout"}}],
            "tags": entry["tags"],
            "description": entry["description"],
            "parameters": {},
            "paused": False,
            "enforce_parameter_schema": True,
            "global_concurrency_limit": {"limit": 1} if "concurrency_limit" in entry else None,
            "schedules": entry.get("schedules", []),
            "parameter_openapi_schema": {"properties": {"seed": {}}},
        }
        for entry in content["deployments"]
    ]


def test_refuse_unknown_keys__takes_the_file_as_it_is(written: dict[str, Any]) -> None:
    refuse_unknown_keys(written)


@pytest.mark.parametrize(
    ("place", "key", "names"),
    [
        ((), "pul", "pul is none of"),
        (("deployments", 0), "concurency_limit", "end_to_end.py:end_to_end.*concurency_limit"),
        (("deployments", 0, "work_pool"), "nam", "work_pool.nam"),
        (("deployments", 1), "schedul", "forge_samples.*schedul"),
    ],
)
def test_refuse_unknown_keys__names_the_misspelt_key(
    written: dict[str, Any], place: tuple, key: str, names: str
) -> None:
    changed = copy.deepcopy(written)
    target: Any = changed
    for step in place:
        target = target[step]
    target[key] = None
    with pytest.raises(RuntimeError, match=f"(?s){names}"):
        refuse_unknown_keys(changed)


def test_refuse_unknown_keys__names_what_is_missing(written: dict[str, Any]) -> None:
    changed = copy.deepcopy(written)
    del changed["deployments"][0]["entrypoint"]
    with pytest.raises(RuntimeError, match="'small': entrypoint is missing"):
        refuse_unknown_keys(changed)


def test_differences__none_where_the_server_took_everything(written: dict[str, Any]) -> None:
    assert differences(written, as_registered(written), {"TOMOFORGE_HOME": "/checkout"}) == []


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("work_pool_name", "default", "work_pool should be 'tomoforge', the server has 'default'"),
        ("tags", [], "tags should be"),
        ("global_concurrency_limit", None, "concurrency_limit should be 1, the server has None"),
        ("enforce_parameter_schema", False, "enforce_parameter_schema"),
        ("parameter_openapi_schema", {}, "no parameter schema"),
        # What an unresolved template leaves.
        (
            "pull_steps",
            [{"prefect.deployments.steps.set_working_directory": {"directory": ""}}],
            "pull should",
        ),
    ],
)
def test_differences__says_what_the_server_has_instead(
    written: dict[str, Any], key: str, value: object, fault: str
) -> None:
    registered = as_registered(written)
    registered[0][key] = value
    (found,) = differences(written, registered, {"TOMOFORGE_HOME": "/checkout"})
    assert "flows/end_to_end.py:end_to_end 'small'" in found and fault in found


def test_differences__names_a_deployment_that_is_missing(written: dict[str, Any]) -> None:
    (found,) = differences(written, as_registered(written)[1:], {"TOMOFORGE_HOME": "/checkout"})
    assert found == "flows/end_to_end.py:end_to_end 'small' is missing at the server"


def test_resolved__an_unset_variable_is_an_error() -> None:
    assert resolved([{"a": "{{ $HERE }}/x"}, 3], {"HERE": "/y"}) == [{"a": "/y/x"}, 3]
    with pytest.raises(RuntimeError, match=r"\$NOWHERE"):
        resolved("{{ $NOWHERE }}", {})


def test_require_free__names_the_next_move() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError, match=rf'port {port} is taken; .*ARGS="--port \d+"'):
            require_free(port)
    require_free(port)


def test_serve__refuses_a_port_that_is_none(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--port", "99999"])
    assert "a port is a number from 1 to 65535, got '99999'" in capsys.readouterr().err


def test_only_one__second_is_told_where_the_first_is(tmp_path: Path) -> None:
    first, second = "http://127.0.0.1:4200", "http://127.0.0.1:4300"
    told = pytest.raises(RuntimeError, match=f"already served at {first}")
    with only_one(tmp_path, first), told, only_one(tmp_path, second):
        pass
    with only_one(tmp_path, second):
        pass


def sleeper(mark: str) -> subprocess.Popen:
    """A process in a session of its own, as Blender is."""
    return subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: mark}, start_new_session=True)


def test_kill_marked__kills_these_and_no_others() -> None:
    ours, other = sleeper("a" * 32), sleeper("b" * 32)
    try:
        assert [process.pid for process in marked("a" * 32)] == [ours.pid]
        assert kill_marked("a" * 32) == []
        assert ours.poll() is not None and other.poll() is None
    finally:
        for child in (ours, other):
            child.kill()
            child.wait()


def test_start_guard__kills_when_its_parent_is_gone() -> None:
    mark = uuid.uuid4().hex
    child = sleeper(mark)
    guard = start_guard(mark, ROOT)
    try:
        assert child.poll() is None
        assert guard.stdin is not None
        guard.stdin.close()  # what the kernel does when serve is killed
        assert guard.wait(30) == 0
        assert child.wait(10) == -signal.SIGKILL
    finally:
        for process in (guard, child):
            process.kill()
            process.wait()


def write_small_scan(folder: Path) -> Path:
    """A forged scan of a protein ball in water: 40 angles of 32 x 32 pixels."""
    z, y, x = np.indices((32, 32, 32)) - 15.5
    labels = (x**2 + y**2 + z**2 < 100).astype(np.uint8)
    labels[x**2 + y**2 + z**2 < 25] = 3
    voxel, angles = 5e-6, uniform_angles(40)
    materials = {1: find_material("water"), 3: find_material("protein")}
    geometry = ScanGeometry(angles, voxel, 5e-3)
    scan = simulate_scan(labels, voxel, materials, geometry, Beam(5.0), Detector(), 1)
    write_frame_batch(folder / "batch.h5", scan.projections[:])
    write_nxtomo(
        folder / "ball.nxs",
        darks=scan.darks,
        flats=scan.flats,
        batches=["batch.h5"],
        angles=angles,
        energy_kev=5.0,
        pixel_size=voxel,
        propagation_distance=5e-3,
        title="ball",
    )
    return folder / "ball.nxs"


def wait_for(what: str, happened: Any, seconds: float = 150) -> Any:
    """The first true answer of ``happened``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := happened():
            return answer
        time.sleep(0.3)
    pytest.fail(f"{what} did not happen within {seconds} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def orphans(mark: str) -> list[str]:
    """Command lines of all processes that inherited the test's mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TEST_MARK) == mark:
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
        except (psutil.Error, OSError):
            continue
    return found


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[tuple[subprocess.Popen, str, str]]:
    """``make serve`` with a workspace of its own: the process, its address and the mark its children inherit."""
    port, mark = free_port(), uuid.uuid4().hex
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
    environment |= {"TOMOFORGE_WORKSPACE": str(tmp_path / "workspace"), TEST_MARK: mark}
    log = tmp_path / "serve.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.serve", "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(
            "serve's readiness",
            lambda: process.poll() is not None or "\nready\n" in log.read_text(errors="replace"),
        )
        assert process.poll() is None, log.read_text(errors="replace")
        yield process, f"http://127.0.0.1:{port}", mark
    finally:
        process.kill()  # the guard ends the rest
        process.wait()


def assert_seen_in_browser(address: str, run: dict[str, Any], profile: Path) -> None:
    """The run's page shows its name and a task of it, and nothing is fetched from elsewhere."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return
    if chromium is None:
        return
    elsewhere: list[str] = []
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium, headless=True, args=BROWSER
        )
        page = context.new_page()
        page.on("request", lambda request: elsewhere.append(request.url))
        page.goto(f"{address}/runs/flow-run/{run['id']}")
        page.get_by_text(run["name"]).first.wait_for(timeout=60_000)
        page.get_by_text("Completed").first.wait_for(timeout=60_000)
        context.close()
    local = (address, f"blob:{address}", "data:", f"ws:{address.removeprefix('http:')}")
    assert [url for url in elsewhere if not url.startswith(local)] == []


@pytest.mark.timeout(300)
def test_serve__a_run_through_a_deployment_from_start_to_end(
    serve: tuple[subprocess.Popen, str, str], tmp_path: Path
) -> None:
    process, address, mark = serve
    environment = {"PREFECT_API_URL": f"{address}/api"}
    registered = {item["entrypoint"]: item for item in api(environment, "deployments/filter", {})}
    assert set(registered) == {
        f"flows/{name}.py:{name}"
        for name in (
            "end_to_end",
            "forge_samples",
            "simulate_scan",
            "forge_dataset",
            "reconstruct_scan",
            "ingest_beamline",
            "prune_inbox",
            "import_labels",
            "decide_labels",
            "gather_dataset",
            "train_segmenter",
            "segment_scan",
            "rank_annotations",
            "promote",
            "rollback",
            "nightly_retrain",
            "compare_training_sources",
            "correct_absorption",
            "evaluate_fidelity",
            "publish_example",
        )
    }
    for item in registered.values():
        schema = item["parameter_openapi_schema"]
        assert item["work_pool_name"] == "tomoforge"
        assert item["pull_steps"][0]["prefect.deployments.steps.set_working_directory"]["directory"] == str(
            ROOT
        )
        groups = schema.get("definitions", {})  # rollback has none
        for name, parameter in schema["properties"].items():
            # Of a parameter that is a group of settings, the group describes itself.
            group = groups.get(parameter.get("$ref", "").rsplit("/", 1)[-1], {})
            assert parameter.get("description") or group.get("description"), (item["entrypoint"], name)
        for group in groups.values():
            assert group["additionalProperties"] is False  # a misspelt setting is refused
            assert all(setting.get("description") for setting in group["properties"].values())

    # A schedule that makes no runs is none: the next one must stand there.
    for name, cron in (("ingest_beamline", "*/15 * * * *"), ("nightly_retrain", "0 2 * * *")):
        deployment = registered[f"flows/{name}.py:{name}"]
        (schedule,) = deployment["schedules"]
        assert schedule["active"] and schedule["schedule"]["cron"] == cron
        scheduled = {
            "deployments": {"id": {"any_": [deployment["id"]]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        }
        runs = wait_for(
            f"a scheduled {name}", lambda asked=scheduled: api(environment, "flow_runs/filter", asked)
        )
        if name == "nightly_retrain":
            assert all(run["expected_start_time"][11:16] == "02:00" for run in runs)

    scan = write_small_scan(tmp_path)
    deployment = registered["flows/reconstruct_scan.py:reconstruct_scan"]
    create = f"deployments/{deployment['id']}/create_flow_run"
    for refused in ({"pixel_size_um": -1}, {"reconstruction": {"filtre": "hann"}}):
        with pytest.raises(RuntimeError, match="answered 4"):
            api(environment, create, {"parameters": {"scan": str(scan), **refused}})
    run = api(environment, create, {"parameters": {"scan": str(scan), "cluster": {"workers": 1}}})
    ended = wait_for(
        "the end of the run",
        lambda: (
            (r := api(environment, f"flow_runs/{run['id']}"))["state_type"]
            in ("COMPLETED", "FAILED", "CRASHED")
            and r
        ),
    )
    assert ended["state_type"] == "COMPLETED", ended["state"]["message"]
    published = tmp_path / "workspace" / "published"
    assert list(published.glob("volumes/*/manifest.json")) and list(published.glob("scans/*/manifest.json"))
    assert_seen_in_browser(address, ended, tmp_path / "browser")

    assert orphans(mark)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert orphans(mark) == []
