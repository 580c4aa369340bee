"""Find a finished artefact by its content key, or make it; and which errors are worth a second try."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.states import State

from tasks.progress import say
from tomoforge.errors import InputError, MissingComponentError
from tomoforge.storage import PROVENANCE, Artefact, Workspace, code_version, content_key, provenance


def produce(
    workspace: Workspace,
    kind: str,
    stage: str,
    *,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Artefact | str],
    packages: tuple[str, ...],
    build: Callable[[Path], None],
    resumable: bool = False,
) -> Artefact:
    """The artefact of ``stage`` with these parameters and inputs, made by ``build(folder)`` if not there.

    ``packages`` are the rooms of tomoforge whose source decides the bytes. What a killed run left in the folder
    is cleared away, unless ``resumable`` says that ``build`` takes finished pieces over.
    """
    code = code_version(*packages)
    names = sorted(
        f"{role}={item.key if isinstance(item, Artefact) else item}" for role, item in inputs.items()
    )
    key = content_key(stage, parameters, names, code)
    found = workspace.find(kind, key)
    if found is None:
        with workspace.draft(kind, key) as draft:
            found = workspace.find(kind, key)  # another run may have finished it while this one waited
            if found is None:
                if not draft.fresh and resumable:
                    say(f"{stage}: taking up what an interrupted run left")
                elif not draft.fresh:
                    shutil.rmtree(draft.path)
                    draft.path.mkdir()
                build(draft.path)
                return workspace.commit(draft, kind, provenance(stage, parameters, inputs, code))
    say(f"{stage}: already made ({found.key})")
    return found


# Kind → the flow that a person runs to have one.
_MADE_BY = {
    "labels": "forge_samples or segment_scan",
    "volumes": "reconstruct_scan",
    "datasets": "forge_dataset or gather_dataset",
    "models": "train_segmenter",
}


def find_by_key(workspace: Workspace, kind: str, key: str, argument: str, *, part: str = "") -> Artefact:
    """The artefact that a person named by its key in ``argument``.

    part : file or folder that it must hold, where several stages share a kind. Raises InputError with the keys there
    are.
    """
    found = workspace.find(kind, key) if "/" not in key else None
    if found is None or not (workspace.path(found) / part).exists():
        known = sorted(p.parent.name for p in workspace.folder(kind).glob(f"*/{part or PROVENANCE}"))
        raise InputError(
            f"{argument} must be the key of one of the {kind} in {workspace.root}, got {key!r}; "
            f"there are: {', '.join(known) or f'none, run {_MADE_BY[kind]} first'}"
        )
    return found


def worth_retrying(task: Task, run: TaskRun, state: State) -> bool:
    """Prefect's retry condition: wrong input and missing components stay wrong however often one tries."""
    try:
        state.result()
    except (InputError, MissingComponentError):
        return False
    except BaseException:
        return True
    return False


# Of every task. Prefect's own cache is off: artefacts are found by content key, and their files are looked for.
OPTIONS: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 2,
    "retry_delay_seconds": [2, 10],
    "retry_condition_fn": worth_retrying,
}
