"""The flow run that published a result, and where Prefect's UI shows it. Nothing here contacts Prefect's server."""

import os
import re
import uuid
from collections.abc import Mapping
from typing import Any

SETTING = "TOMOFORGE_PREFECT_UI"
_DEFAULT = "http://127.0.0.1:4200"
_ADDRESS = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?")


def prefect_ui() -> str:
    """The address of Prefect's UI: ``TOMOFORGE_PREFECT_UI``, empty if that is no http address."""
    address = (os.environ.get(SETTING) or _DEFAULT).strip().rstrip("/")
    return address if _ADDRESS.fullmatch(address) else ""


def run_address(run: Mapping[str, Any]) -> str | None:
    """The address of a flow run in Prefect's UI; None where its id was not recorded.

    Results published before ids were recorded know the run's name alone.
    """
    try:
        identifier = uuid.UUID(str(run.get("flow_run_id")))
    except ValueError:
        return None
    return f"{prefect_ui()}/runs/flow-run/{identifier}" if prefect_ui() else None


def run_name(run: Mapping[str, Any]) -> str:
    """The name of the flow run, empty where none was recorded."""
    return str(run.get("flow_run") or "")


def flow_name(run: Mapping[str, Any]) -> str:
    """The name of the flow, empty where none was recorded."""
    return str(run.get("flow") or "")
