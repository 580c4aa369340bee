"""Found or made: what is built, what is cleared away, and what is worth a second try."""

from pathlib import Path
from typing import Any

import pytest
from prefect.states import Completed, Failed, State

from tasks.artefacts import find_by_key, produce, worth_retrying
from tomoforge.errors import (
    ConfigError,
    InputError,
    MissingComponentError,
    ScanError,
    StageError,
    StorageError,
)
from tomoforge.storage import Artefact, Workspace


class Stage:
    """A stage that counts how often it is built and can be told to fail."""

    def __init__(self, workspace: Workspace, **settings: Any) -> None:
        self.workspace = workspace
        self.settings = {"parameters": {"a": 1}, "inputs": {}, "packages": ("optics",), **settings}
        self.seen: list[list[str]] = []  # the files that each build found in its folder
        self.error: BaseException | None = None

    def produce(self, **change: Any) -> Artefact:
        return produce(self.workspace, "scans", "stage", **{**self.settings, **change}, build=self._build)

    def _build(self, folder: Path) -> None:
        self.seen.append(sorted(p.name for p in folder.iterdir()))
        (folder / f"piece{len(self.seen)}").write_text("done")
        if self.error is not None:
            raise self.error


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_produce__is_made_once_and_then_found(workspace: Workspace, capsys) -> None:
    stage = Stage(workspace)
    made = stage.produce()
    assert made.kind == "scans" and made.key.startswith("stage-")
    assert "already made" not in capsys.readouterr().err
    assert Stage(workspace).produce() == made == stage.produce()
    assert stage.seen == [[]]
    assert f"stage: already made ({made.key})" in capsys.readouterr().err
    record = workspace.read_provenance(made)
    assert record["parameters"] == {"a": 1} and set(record["files"]) == {"piece1"}


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": {"a": 2}},
        {"inputs": {"content": "x"}},
        {"inputs": {"labels": Artefact("labels", "k", "labels/k", "0")}},
        {"packages": ("samples",)},
    ],
)
def test_produce__other_work_is_another_artefact(workspace: Workspace, change: dict) -> None:
    assert Stage(workspace).produce(**change).key != Stage(workspace).produce().key


def test_produce__order_of_inputs_and_parameters_does_not_matter(workspace: Workspace) -> None:
    stage = Stage(workspace, inputs={"x": "1", "y": "2"}, parameters={"a": 1, "b": 2})
    made = stage.produce()
    assert stage.produce(inputs={"y": "2", "x": "1"}, parameters={"b": 2, "a": 1}) == made
    assert stage.produce(inputs={"y": "1", "x": "2"}).key != made.key


@pytest.mark.parametrize("error", [StageError("broken"), KeyboardInterrupt()])
def test_produce__a_failure_leaves_no_finished_artefact(workspace: Workspace, error: BaseException) -> None:
    stage = Stage(workspace)
    stage.error = error
    with pytest.raises(type(error)):
        stage.produce()
    assert [p.name for p in workspace.folder("scans").iterdir()] == [".partial"]
    stage.error = None
    stage.produce()


@pytest.mark.parametrize(("resumable", "second"), [(False, []), (True, ["piece1"])])
def test_produce__leftovers_are_cleared_unless_resumable(
    workspace: Workspace, capsys, resumable: bool, second: list[str]
) -> None:
    stage = Stage(workspace, resumable=resumable)
    stage.error = StageError("interrupted")
    with pytest.raises(StageError):
        stage.produce()
    stage.error = None
    made = stage.produce()
    assert stage.seen == [[], second]
    assert set(workspace.read_provenance(made)["files"]) == {*second, "piece2"}
    assert ("taking up what an interrupted run left" in capsys.readouterr().err) is resumable


def test_produce__a_damaged_artefact_is_told_not_rebuilt(workspace: Workspace) -> None:
    stage = Stage(workspace)
    (workspace.path(stage.produce()) / "piece1").unlink()
    with pytest.raises(StorageError, match="missing or has changed"):
        stage.produce()
    assert len(stage.seen) == 1


def test_produce__what_another_run_finished_meanwhile_is_taken(workspace: Workspace, monkeypatch) -> None:
    stage = Stage(workspace)
    made = stage.produce()
    find, answers = workspace.find, [None]
    monkeypatch.setattr(workspace, "find", lambda *key: answers.pop() if answers else find(*key))
    assert stage.produce() == made
    assert len(stage.seen) == 1


@pytest.mark.parametrize(
    ("error", "worth"),
    [
        (InputError("x"), False),
        (ConfigError("x"), False),
        (ScanError("x"), False),
        (MissingComponentError("x"), False),
        (StageError("x"), True),
        (StorageError("x"), True),
        (OSError("x"), True),
        (ValueError("x"), True),
    ],
)
def test_worth_retrying__wrong_input_stays_wrong(error: Exception, worth: bool) -> None:
    state: State = Failed(data=error)
    assert worth_retrying(None, None, state) is worth  # type: ignore[arg-type]


def test_worth_retrying__not_what_is_done() -> None:
    assert worth_retrying(None, None, Completed(data=1)) is False  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["volume-0", "../volumes/volume-1", "volume-2"])
def test_find_by_key__names_what_there_is(tmp_path: Path, key: str) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(InputError, match="there are: none, run reconstruct_scan first"):
        find_by_key(workspace, "volumes", key, "volume", part="v.zarr")
    for name, part in (("volume-1", "v.zarr"), ("volume-2", "export")):  # of another stage
        with workspace.draft("volumes", name) as draft:
            (draft.path / part).mkdir()
            workspace.commit(draft, "volumes", {})
    assert find_by_key(workspace, "volumes", "volume-1", "volume", part="v.zarr").key == "volume-1"
    with pytest.raises(InputError, match=rf"volume must be the key .* got '{key}'; there are: volume-1$"):
        find_by_key(workspace, "volumes", key, "volume", part="v.zarr")
