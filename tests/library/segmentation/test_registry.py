"""The registry: what it keeps of a model, and aliases and audit that agree whatever happens."""

import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.library.segmentation.children import LATE, die, ended, start
from tests.library.segmentation.model_folders import safetensors_bytes, write_folder
from tomoforge.errors import InputError, StorageError
from tomoforge.segmentation.audit import AliasMovedError, Audit
from tomoforge.segmentation.model import MODEL, WEIGHTS
from tomoforge.segmentation.registry import CHALLENGER, CHAMPION, SEGMENTER, Registry

ROOT = Path(__file__).resolve().parents[3]
BY = {"who": "Ada", "reason": "test"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry of three models, a, b and c, none of them promoted; MLflow takes seconds to make one."""
    root = tmp_path_factory.mktemp("registry")
    registry = Registry(root / "registry" / "registry.db")
    for name in "abc":
        folder = write_folder(root / "models" / name / "model", name.encode())
        registry.register(name, folder, dataset_hash="d1", code_revision="r1")
    return root


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    """A copy of its own: the database says where models lie relative to itself."""
    return shutil.copytree(template, tmp_path / "place")


@pytest.fixture(scope="module")
def template_promoted(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registry with b as champion and a before it."""
    root = shutil.copytree(template, tmp_path_factory.mktemp("promoted") / "place")
    registry = opened(root)
    registry.promote("a", expected=None, **BY)
    registry.promote("b", expected="a", **BY)
    return root


@pytest.fixture
def promoted(template_promoted: Path, tmp_path: Path) -> Path:
    """A copy of its own, not yet opened."""
    return shutil.copytree(template_promoted, tmp_path / "place")


def opened(place: Path) -> Registry:
    return Registry(place / "registry" / "registry.db")


def mlflow_alias(registry: Registry, alias: str) -> str | None:
    """The key that MLflow's own alias points at."""
    aliases = registry._client.get_registered_model(SEGMENTER).aliases
    if alias not in aliases:
        return None
    return registry._client.get_model_version(SEGMENTER, str(aliases[alias])).tags["key"]


def champion_everywhere(place: Path) -> str | None:
    """The champion by the audit, by the file and by MLflow's alias, which must agree."""
    registry = opened(place)
    found = registry.champion()
    key = found.key if found else None
    assert registry.champion_key() == key == mlflow_alias(registry, CHAMPION)
    assert registry._audit.pending() == []
    return key


def actions(registry: Registry) -> list[tuple[str, str, str | None, str | None]]:
    return [(row.action, row.subject, row.before, row.after) for row in registry.audit()]


# --- models ---------------------------------------------------------------------------------------------------


def test_register__keeps_what_the_training_was(tmp_path: Path):
    registry = Registry(tmp_path / "r.db")
    assert registry.champion() is None and registry.audit() == [] and not registry.database.exists()
    metrics = pd.DataFrame({"class": ["loop", "crystal"], "iou": [0.5, float("nan")], "f1": [0.6, 0.9]})
    made = registry.register(
        "m", write_folder(tmp_path / "m"), dataset_hash="d1", code_revision="abc+", metrics=metrics
    )
    client = registry._client
    run = client.get_run(made.run)
    assert run.info.status == "FINISHED"
    assert run.data.tags["dataset"] == "d1" and run.data.tags["code_revision"] == "abc+"
    assert run.data.params["settings.epochs"] == "2" and run.data.params["plans.batch_size"] == "4"
    assert run.data.metrics == {
        "training/training_loss": 1.25,
        "training/validation_loss": 1.5,
        "training/pseudo_dice_loop": 0.5,
        "test/iou/loop": 0.5,
        "test/f1/loop": 0.6,
        "test/f1/crystal": 0.9,
    }
    curve = client.get_metric_history(made.run, "training/training_loss")
    assert [(point.step, point.value) for point in curve] == [(1, 1.5), (2, 1.25)]
    assert made.folder == tmp_path / "m" and made.version == 1


def test_register__twice_is_once(place: Path):
    registry = opened(place)
    first = registry.version("a")
    again = registry.register("a", place / "models/a/model", dataset_hash="d1", code_revision="r1")
    assert again == first
    assert len(registry._client.search_model_versions(f"name = '{SEGMENTER}'")) == 3


def test_register__another_model_under_the_same_key_is_refused(place: Path, tmp_path: Path):
    with pytest.raises(StorageError, match="never changed under its key"):
        opened(place).register(
            "a", write_folder(tmp_path / "other", b"other"), dataset_hash="d", code_revision="r"
        )


def test_register__a_run_that_was_left_without_a_version_is_replaced(place: Path, tmp_path: Path):
    registry = opened(place)
    experiment = registry._client.get_experiment_by_name(SEGMENTER).experiment_id
    left = registry._client.create_run(experiment, tags={"key": "m"})
    made = registry.register("m", write_folder(tmp_path / "m"), dataset_hash="d", code_revision="r")
    runs = registry._client.search_runs([experiment], "tags.key = 'm'")
    assert [run.info.run_id for run in runs] == [made.run] != [left.info.run_id]


class _Bomb:
    """Unpickling it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.path),)


def test_register__nothing_is_unpickled(tmp_path: Path):
    bomb = pickle.dumps(_Bomb(tmp_path / "unpickled"))
    torch_like = b"PK\x03\x04" + bomb
    registry = Registry(tmp_path / "r.db")
    whole = safetensors_bytes(b"weights")
    for n, weights in enumerate([bomb, torch_like, b"", b"\x00" * 8, whole[:-1], whole + b"more"]):
        folder = write_folder(tmp_path / f"m{n}", weights=weights)
        with pytest.raises(InputError, match="pickled checkpoints are not read"):
            registry.register("m", folder, dataset_hash="d", code_revision="r")
    assert not (tmp_path / "unpickled").exists()
    assert not registry.database.exists()


@pytest.mark.parametrize("name", [WEIGHTS, MODEL])
def test_version__damage_is_named_on_every_use(place: Path, name: str):
    registry = opened(place)
    registry.promote("a", expected=None, **BY)
    path = place / "models/a/model" / name
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    for use in (lambda: registry.version("a"), registry.champion):
        with pytest.raises(StorageError, match=name):
            use()
    with pytest.raises(StorageError, match=name):
        registry.register("a", path.parent, dataset_hash="d1", code_revision="r1")


def test_version__a_whole_model_in_anothers_place_is_noticed(place: Path):
    registry = opened(place)
    registry.promote("a", expected=None, **BY)
    shutil.rmtree(place / "models/a/model")
    shutil.copytree(place / "models/b/model", place / "models/a/model")
    with pytest.raises(StorageError, match="holds another model than was registered as a"):
        registry.champion()
    with pytest.raises(StorageError, match="holds another model"):
        registry.promote("a", expected=None, **BY)


@pytest.mark.parametrize("key", ["nobody", "../a", "a' or '1' = '1", ""])
def test_version__unknown_or_odd_keys(place: Path, key: str):
    with pytest.raises(InputError, match="key of a"):
        opened(place).version(key)


def test_registry__moved_with_its_workspace(place: Path, tmp_path: Path):
    opened(place).promote("a", expected=None, **BY)
    place.rename(tmp_path / "elsewhere")
    champion = opened(tmp_path / "elsewhere").champion()
    assert champion is not None and champion.folder == tmp_path / "elsewhere/models/a/model"


def test_registry__says_when_its_file_is_none(tmp_path: Path):
    (tmp_path / "r.db").write_bytes(b"no database at all, but long enough to be looked at" * 40)
    with pytest.raises(StorageError, match="cannot be read or written"):
        Registry(tmp_path / "r.db")


# --- promotion and rollback -----------------------------------------------------------------------------------


def test_promote__moves_the_alias_and_says_so(place: Path):
    registry = opened(place)
    registry.challenge("a", who="night", reason="trained")
    assert registry.challenge("a", who="night", reason="trained") is None
    assert registry.challenger_key() == "a" == mlflow_alias(registry, CHALLENGER)
    row = registry.promote("a", expected=None, who="Ada", reason="first", evidence={"iou": 0.7})
    assert champion_everywhere(place) == "a"
    assert (row.before, row.after, row.who, row.evidence["iou"]) == (None, "a", "Ada", 0.7)
    assert registry.challenger_key() is None is mlflow_alias(registry, CHALLENGER)
    assert actions(registry) == [
        ("challenge", CHALLENGER, None, "a"),
        ("promote", CHAMPION, None, "a"),
        ("clear", CHALLENGER, "a", None),
    ]
    with pytest.raises(InputError, match="another than the champion"):
        registry.promote("a", expected="a", **BY)


def test_promote__compares_before_it_sets(place: Path):
    registry = opened(place)
    registry.promote("a", expected=None, **BY)
    before = registry.audit()
    for expected in (None, "c"):
        with pytest.raises(AliasMovedError, match="another promotion came first"):
            registry.promote("b", expected=expected, **BY)
    assert registry.audit() == before
    assert champion_everywhere(place) == "a"


def test_rollback__goes_back_along_the_history(place: Path):
    registry = opened(place)
    with pytest.raises(InputError, match="got none in the audit"):
        registry.rollback(**BY)
    for before, key in [(None, "a"), ("a", "b"), ("b", "c")]:
        registry.promote(key, expected=before, **BY)
    assert registry.rollback(**BY).after == "b"
    assert champion_everywhere(place) == "b"
    assert registry.rolled_back("c") is not None and registry.rolled_back("b") is None
    assert registry.rollback(**BY).after == "a"  # and not c again
    with pytest.raises(InputError, match="got none"):
        registry.rollback(**BY)
    registry.promote("c", expected="a", **BY)
    assert registry.rolled_back("c") is None
    assert registry.rollback(**BY).after == "a"
    assert champion_everywhere(place) == "a"


def test_rollback__over_a_damaged_one_to_an_earlier(place: Path):
    registry = opened(place)
    for before, key in [(None, "a"), ("a", "b"), ("b", "c")]:
        registry.promote(key, expected=before, **BY)
    (place / "models/b/model" / WEIGHTS).write_bytes(b"")
    with pytest.raises(StorageError, match=WEIGHTS):
        registry.rollback(**BY)
    assert champion_everywhere(place) == "c"
    with pytest.raises(InputError, match="an earlier champion, a, b, got 'c'"):
        registry.rollback(to="c", **BY)
    assert registry.rollback(to="a", **BY).after == "a"
    assert champion_everywhere(place) == "a"


def test_rollback__away_from_a_damaged_champion(place: Path):
    registry = opened(place)
    registry.promote("a", expected=None, **BY)
    registry.promote("b", expected="a", **BY)
    shutil.rmtree(place / "models/b")
    assert registry.rollback(**BY).after == "a"
    assert champion_everywhere(place) == "a"


def test_refuse__is_a_row_and_moves_nothing(place: Path):
    registry = opened(place)
    registry.promote("a", expected=None, **BY)
    row = registry.refuse("b", who="night", reason="loop fell", evidence={"loop": -0.02})
    assert (row.action, row.before, row.after) == ("refuse", "a", "b")
    assert champion_everywhere(place) == "a"
    table = registry.audit_table()
    assert list(table["action"]) == ["promote", "refuse"]
    assert table["evidence"].iloc[1] == '{\n "loop": -0.02\n}'


def test_freeze__compares_before_it_sets(place: Path):
    registry = opened(place)
    assert registry.frozen("holdout") is None
    registry.freeze("holdout", "h1", expected=None, evidence={"cases": ["x"]}, **BY)
    with pytest.raises(InputError, match="must be None, got h1"):
        registry.freeze("holdout", "h2", expected=None, evidence={}, **BY)
    registry.freeze("holdout", "h2", expected="h1", evidence={"cases": ["y"]}, **BY)
    frozen = registry.frozen("holdout")
    assert frozen is not None and frozen.after == "h2" and frozen.evidence == {"cases": ["y"]}
    assert champion_everywhere(place) is None


@pytest.mark.parametrize("said", [{"who": " ", "reason": "x"}, {"who": "Ada", "reason": ""}])
def test_promote__who_and_why_must_be_said(place: Path, said: dict[str, str]):
    registry = opened(place)
    with pytest.raises(InputError, match="must be said"):
        registry.promote("a", expected=None, **said)
    assert registry.audit() == []
    assert champion_everywhere(place) is None


def test_audit__rows_cannot_be_changed_or_deleted(place: Path):
    opened(place).promote("a", expected=None, **BY)
    connection = sqlite3.connect(place / "registry" / "registry.db")
    for statement in (
        "UPDATE tomoforge_audit SET who = 'Eve'",
        "DELETE FROM tomoforge_audit",
        "DELETE FROM tomoforge_applied",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


def test_registry__an_alias_moved_behind_its_back_is_put_right_and_told(place: Path):
    registry = opened(place)
    registry.promote("a", expected=None, **BY)
    registry._client.set_registered_model_alias(SEGMENTER, CHAMPION, "2")
    assert registry.champion_key() == "a"  # what segments was never in doubt
    registry.refuse("b", **BY)
    assert champion_everywhere(place) == "a"
    assert actions(registry)[1:] == [
        ("restore", CHAMPION, "version 2", "a"),
        ("refuse", CHAMPION, "a", "b"),
    ]


# --- processes --------------------------------------------------------------------------------------------------


def test_promote__many_at_once_leave_one_champion(place: Path):
    """Each has compared with nobody; one is first, the others are told."""

    def race(key: str) -> None:
        registry = opened(place)
        registry._client.search_experiments()
        while not (place / "go").exists():
            time.sleep(0.001)
        registry.promote(key, expected=None, who=key, reason="race")

    keys = ("a", "b", "c", "b", "a", "c")
    children = [start(lambda key=key: race(key)) for key in keys]
    time.sleep(1)
    (place / "go").touch()
    codes = [ended(child) for child in children]
    assert sorted(codes) == [0, *[LATE] * 5]
    (row,) = opened(place).audit()
    assert champion_everywhere(place) == row.after == row.who == keys[codes.index(0)]


@pytest.mark.parametrize("action", ["promote", "rollback"])
@pytest.mark.parametrize("where", ["before the row", "between row and alias", "between alias and note"])
def test_killed__the_next_open_finishes_or_undoes_it_once(promoted: Path, where: str, action: str):
    def job() -> None:
        registry = opened(promoted)
        holder, name = {
            "before the row": (Audit, "move"),
            "between row and alias": (type(registry._client), "set_registered_model_alias"),
            "between alias and note": (Audit, "applied"),
        }[where]
        setattr(holder, name, die)
        if action == "promote":
            registry.promote("c", expected="b", **BY)
        else:
            registry.rollback(**BY)

    assert ended(start(job)) == -signal.SIGKILL
    written = where != "before the row"
    after = {"promote": "c", "rollback": "a"}[action] if written else "b"
    for _ in range(2):  # opening again changes nothing more
        assert champion_everywhere(promoted) == after
        assert len(opened(promoted).audit()) == 2 + written
    assert not any(row.action == "restore" for row in opened(promoted).audit())
    if action == "promote" and written:
        with pytest.raises(AliasMovedError):
            opened(promoted).promote("c", expected="b", **BY)


def test_create__killed_leaves_nothing_or_all(tmp_path: Path):
    folder, database = write_folder(tmp_path / "m"), tmp_path / "r.db"

    def job() -> None:
        Audit.create = die  # type: ignore[method-assign]
        Registry(database).register("m", folder, dataset_hash="d", code_revision="r")

    assert ended(start(job)) == -signal.SIGKILL
    registry = Registry(database)
    assert not database.exists() and registry.champion() is None
    registry.register("m", folder, dataset_hash="d", code_revision="r")
    registry.promote("m", expected=None, **BY)
    assert registry.champion_key() == "m"


def test_registry__sends_nothing_and_reads_the_champion_without_mlflow(place: Path):
    opened(place).promote("a", expected=None, **BY)
    program = (
        "import sys\n"
        "from tomoforge.segmentation.registry import Registry\n"
        "registry = Registry(sys.argv[1])\n"
        "assert registry.champion().key == 'a' and 'mlflow' not in sys.modules\n"
        "registry._client\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "from mlflow.telemetry.client import get_telemetry_client\n"
        "assert is_telemetry_disabled() and get_telemetry_client() is None\n"
    )
    environment = {
        k: v for k, v in os.environ.items() if k not in ("CI", "DO_NOT_TRACK", "PYTEST_CURRENT_TEST")
    }
    done = subprocess.run(
        [sys.executable, "-c", program, str(place / "registry/registry.db")],
        cwd=ROOT,
        env={k: v for k, v in environment.items() if k != "MLFLOW_DISABLE_TELEMETRY"},
        timeout=120,
    )
    assert done.returncode == 0
