"""One Prefect server for the flows that tests start: a server of its own is most of what a small run costs."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

PATIENCE_S = 240.0


@pytest.fixture(scope="session")
def one_server(tmp_path_factory) -> Iterator[str]:
    """A server on loopback that ``running.start_flow`` sends flows to; its address."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    environment |= {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with open(home / "server.log", "wb") as log:
        server = subprocess.Popen(
            [*command, "--no-services"], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}/api"
    try:
        _wait(server, f"{address}/health")
        os.environ["TOMOFORGE_TEST_SERVER"], os.environ["TOMOFORGE_TEST_HOME"] = address, str(home)
        yield address
    finally:
        os.environ.pop("TOMOFORGE_TEST_SERVER", None)
        os.environ.pop("TOMOFORGE_TEST_HOME", None)
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(server: subprocess.Popen, health: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        assert server.poll() is None, "the Prefect server for the tests ended"
        try:
            with urllib.request.urlopen(health, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"the Prefect server for the tests did not answer within {PATIENCE_S:g} s")


@pytest.fixture
def in_this_process(one_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Flows called in the test's own process go to the one server: a process of their own costs as much again."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_HOME,
        PREFECT_LOGGING_TO_API_ENABLED,
        temporary_settings,
    )

    monkeypatch.setenv("PREFECT_API_URL", one_server)  # ``prepare`` leaves what is set
    monkeypatch.setenv("TOMOFORGE_WORKSPACE", "")  # it sets this one, which is given back afterwards
    settings = {
        PREFECT_API_URL: one_server,
        PREFECT_HOME: Path(os.environ["TOMOFORGE_TEST_HOME"]),
        PREFECT_LOGGING_TO_API_ENABLED: False,  # or it goes on when the server has ended
    }
    with temporary_settings(settings):
        yield
