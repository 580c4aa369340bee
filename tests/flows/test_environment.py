"""Where a flow finds its Prefect server."""

import fcntl
import os
from pathlib import Path

import pytest

from flows.environment import prepare, served_at


@pytest.fixture
def clean(monkeypatch, tmp_path) -> Path:
    """A workspace, and an environment that names no server; restored afterwards."""
    for name in [n for n in os.environ if n.startswith(("PREFECT", "TOMOFORGE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return tmp_path / "workspace"


def test_prepare__keeps_the_server_inside_the_workspace_and_sends_nothing(clean):
    prepare(str(clean))
    assert os.environ["PREFECT_HOME"] == str(clean / ".prefect")
    assert (clean / ".prefect").is_dir()
    assert "PREFECT_API_URL" not in os.environ
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert os.environ["TOMOFORGE_WORKSPACE"] == str(clean)


def test_prepare__what_the_user_has_set_stays(clean):
    os.environ["PREFECT_API_URL"] = "http://prefect.example:4200/api"
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "INFO"
    prepare(str(clean))
    assert os.environ["PREFECT_API_URL"] == "http://prefect.example:4200/api"
    assert "PREFECT_HOME" not in os.environ
    assert os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] == "INFO"


def test_prepare__joins_the_server_that_serves_the_workspace(clean):
    home = clean / ".prefect"
    home.mkdir(parents=True)
    with open(home / "serve.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("http://127.0.0.1:4300")
        lock.flush()
        prepare(str(clean))
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:4300/api"


def test_served_at__a_lock_file_that_nobody_holds_is_no_server(tmp_path):
    assert served_at(tmp_path) is None
    (tmp_path / "serve.lock").write_text("http://127.0.0.1:4300")
    assert served_at(tmp_path) is None
