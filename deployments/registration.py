"""The work pool and the deployments of prefect.yaml, registered at a server and compared with what it then has.

Prefect ignores a misspelt key without a word and drops a template that it cannot resolve with a warning only;
both would be found out at the first run.
"""

import base64
import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

POOL = "tomoforge"
# Keys of prefect.yaml that hold anchors of our own; Prefect does not read them.
_OURS = {"definitions"}
_TEMPLATE = re.compile(r"\{\{\s*\$(\w+)\s*\}\}")
# A proxy of the user's must not be asked for a server on loopback.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def register(environment: Mapping[str, str], home: Path) -> None:
    """Create the work pool and register every deployment of ``home``/prefect.yaml.

    Raises
    ------
    RuntimeError
        The file has a key that Prefect does not know, Prefect refused, or the server has something else
        afterwards than the file says.
    """
    path = home / "prefect.yaml"
    content = yaml.safe_load(path.read_text())
    refuse_unknown_keys(content)
    prefect(environment, home, "work-pool", "create", POOL, "--type", "process", "--overwrite")
    prefect(environment, home, "--no-prompt", "deploy", "--all", "--prefect-file", str(path))
    registered = api(environment, "deployments/filter", {})
    faults = differences(content, registered, environment)
    if faults:
        raise RuntimeError("prefect.yaml was not registered as written:\n  " + "\n  ".join(faults))


def refuse_unknown_keys(content: Mapping[str, Any]) -> None:
    """Raises RuntimeError that names every key which Prefect would ignore, and every missing name or entrypoint."""
    # The models by which Prefect itself reads the file; it says extra="ignore" there.
    from prefect.cli.deploy._models import (
        ConcurrencyLimitSpec,
        DeploymentConfig,
        PrefectYamlModel,
        WorkPoolConfig,
    )

    faults = _unknown(
        "", content, {*PrefectYamlModel.model_fields, "prefect-version", *_OURS} - {"prefect_version"}
    )
    for entry in content.get("deployments") or []:
        where = f"deployment {entry.get('entrypoint') or entry.get('name')!r}: "
        faults += _unknown(where, entry, DeploymentConfig.model_fields)
        faults += _unknown(f"{where}work_pool.", entry.get("work_pool"), WorkPoolConfig.model_fields)
        limit = entry.get("concurrency_limit")
        faults += _unknown(f"{where}concurrency_limit.", limit, ConcurrencyLimitSpec.model_fields)
        faults += [
            f"{where}{key} is missing" for key in ("name", "entrypoint", "work_pool") if not entry.get(key)
        ]
    if faults:
        raise RuntimeError("prefect.yaml has keys that Prefect would ignore:\n  " + "\n  ".join(faults))


def _unknown(where: str, mapping: object, known: Iterable[str]) -> list[str]:
    if not isinstance(mapping, dict):
        return []
    known = set(known)
    return [f"{where}{key} is none of {', '.join(sorted(known))}" for key in mapping if key not in known]


def differences(
    content: Mapping[str, Any], registered: Iterable[Mapping[str, Any]], environment: Mapping[str, str]
) -> list[str]:
    """How what the server has differs from prefect.yaml, a sentence each; empty if it does not."""
    by_name = {(item["entrypoint"], item["name"]): item for item in registered}
    faults = []
    for entry in content["deployments"]:
        where = f"{entry['entrypoint']} {entry['name']!r}"
        item = by_name.get((entry["entrypoint"], entry["name"]))
        if item is None:
            faults.append(f"{where} is missing at the server")
            continue
        for key, (expected, got) in _compared(content, entry, item, environment).items():
            if expected != got:
                faults.append(f"{where}: {key} should be {expected!r}, the server has {got!r}")
        if not (item.get("parameter_openapi_schema") or {}).get("properties"):
            faults.append(f"{where}: the server has no parameter schema, so its form would be empty")
    return faults


def _compared(
    content: Mapping[str, Any],
    entry: Mapping[str, Any],
    item: Mapping[str, Any],
    environment: Mapping[str, str],
) -> dict[str, tuple[Any, Any]]:
    limit = entry.get("concurrency_limit")
    schedules = [*(entry.get("schedules") or []), *filter(None, [entry.get("schedule")])]
    return {
        "work_pool": (entry["work_pool"]["name"], item["work_pool_name"]),
        "pull": (resolved(entry.get("pull") or content.get("pull"), environment), item["pull_steps"]),
        "tags": (sorted(entry.get("tags") or []), sorted(item["tags"])),
        "description": (entry.get("description"), item["description"]),
        "parameters": (entry.get("parameters") or {}, item["parameters"]),
        "paused": (entry.get("paused") or False, item["paused"]),
        "enforce_parameter_schema": (
            entry.get("enforce_parameter_schema", True),
            item["enforce_parameter_schema"],
        ),
        "concurrency_limit": (
            limit.get("limit") if isinstance(limit, dict) else limit,
            (item["global_concurrency_limit"] or {}).get("limit"),
        ),
        "number of schedules": (len(schedules), len(item["schedules"])),
    }


def resolved(value: Any, environment: Mapping[str, str]) -> Any:
    """``value`` with ``{{ $NAME }}`` replaced from the environment, at any depth.

    Raises RuntimeError if a variable is not set.
    """
    if isinstance(value, dict):
        return {key: resolved(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [resolved(item, environment) for item in value]
    if not isinstance(value, str):
        return value
    missing = [name for name in _TEMPLATE.findall(value) if name not in environment]
    if missing:
        raise RuntimeError(f"prefect.yaml uses ${', $'.join(missing)} and the environment does not have it")
    return _TEMPLATE.sub(lambda match: environment[match[1]], value)


def crash_leftovers(environment: Mapping[str, str]) -> int:
    """Mark as crashed what a killed ``make serve`` left as running; how many there were.

    To be called while no worker is there: whatever runs in the pool then has no process any more, and would
    hold its deployment's only slot for ever.
    """
    left = api(
        environment,
        "flow_runs/filter",
        {
            "flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}},
            "work_pools": {"name": {"any_": [POOL]}},
        },
    )
    message = "Its process ended with the worker. Retry it: finished stages are used again."
    state = {"type": "CRASHED", "name": "Crashed", "message": message}
    for run in left:
        api(environment, f"flow_runs/{run['id']}/set_state", {"state": state, "force": True})
    return len(left)


def api(environment: Mapping[str, str], path: str, body: Mapping[str, Any] | None = None) -> Any:
    """The answer of Prefect's REST API to GET ``path``, or to POST with ``body``. Raises RuntimeError or OSError."""
    request = urllib.request.Request(
        f"{environment['PREFECT_API_URL']}/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    if environment.get("PREFECT_API_AUTH_STRING"):
        secret = base64.b64encode(environment["PREFECT_API_AUTH_STRING"].encode()).decode()
        request.add_header("Authorization", f"Basic {secret}")
    try:
        with _DIRECT.open(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            raise RuntimeError(
                f"the Prefect server answered {error.code} to {path}: {error.read().decode(errors='replace')}"
            ) from error


def prefect_command(*words: str) -> list[str]:
    """``prefect words…`` of the environment that runs this."""
    return [shutil.which("prefect", path=str(Path(sys.executable).parent)) or "prefect", *words]


def prefect(environment: Mapping[str, str], home: Path, *words: str) -> None:
    """Run ``prefect words…`` to its end. Raises RuntimeError with its output if it fails."""
    done = subprocess.run(prefect_command(*words), env=environment, cwd=home, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"prefect {' '.join(words)} failed:\n{done.stdout}{done.stderr}")
