"""Defaults of the environment, set before Prefect is imported; what the user has set stays."""

import fcntl
import os
from pathlib import Path

from tomoforge.storage import Workspace


def prepare(workspace: str | None = None) -> None:
    """Prefect's own server and database inside the workspace, nothing sent anywhere, patient start-up."""
    root = (Workspace(workspace) if workspace else Workspace.default()).root
    os.environ["TOMOFORGE_WORKSPACE"] = str(root)
    if "PREFECT_API_URL" not in os.environ:
        # A profile of the user's might point at another server; the embedded one belongs to the workspace.
        home = Path(os.environ.setdefault("PREFECT_HOME", str(root / ".prefect")))
        home.mkdir(parents=True, exist_ok=True)  # the server cannot open its database in a missing folder
        served = served_at(home)
        if served is not None:  # one database, one server: the run is then seen in its UI, too
            os.environ["PREFECT_API_URL"] = f"{served}/api"
    defaults = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "240",
        # The flow speaks for itself at the terminal; tracebacks and the full log are in Prefect's UI.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def served_at(home: Path) -> str | None:
    """Address of the server that ``make serve`` runs on the database in ``home``, None if there is none."""
    try:
        with open(home / "serve.lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return lock.read().strip() or None
    except FileNotFoundError:
        pass
    return None
