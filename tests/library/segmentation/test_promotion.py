"""Registry and gate with models that nnU-Net trained: promoted, refused, rolled back, told from foreign ones."""

import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.library.segmentation.children import LATE, ended, start
from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError, StorageError
from tomoforge.segmentation.dataset import TrainingCase, write_dataset
from tomoforge.segmentation.evaluation import MEAN, evaluate_case, join_evaluations
from tomoforge.segmentation.gate import HOLDOUT, Comparison, FrozenSet, GateRules, Verdict, judge
from tomoforge.segmentation.model import MODEL, WEIGHTS, write_model
from tomoforge.segmentation.registry import Registry
from tomoforge.segmentation.settings import TrainingSettings
from tomoforge.segmentation.trainer import train_segmenter
from tomoforge.volumes import LABEL_NAMES, write_labels, write_volume

pytest.importorskip("nnunetv2", reason="the train extra is not installed")

VOXEL = 2.5e-6  # [m]
TIMEOUT_S = 500.0
CASES = range(20, 24)  # seeds of the hold-out; the models see 0 and 1
SETTINGS = TrainingSettings(
    epochs=16,
    iterations_per_epoch=10,
    validation_iterations=1,
    batch_size=4,
    patch_size=(48, 48),
    features=8,
    stages=3,
    optimizer="adamw",
    learning_rate=8e-3,
    foreground_fraction=0.5,
    augmentation="mirror",
    seed=3,
)
RULES = GateRules(floor={"crystal": 0.5, "liquor": 0.5})
BY = {"who": "Ada", "reason": "test"}


def all_labels(labels: np.ndarray) -> np.ndarray:
    return labels


def hardly_a_loop(labels: np.ndarray) -> np.ndarray:
    """The loop labelled in eight columns of voxels, liquor elsewhere."""
    kept = np.zeros(labels.shape, dtype=bool)
    kept[:, 5:7, 18:22] = True
    return np.where((labels == 2) & ~kept, 1, labels).astype(np.uint8)


def shrunken_crystal(labels: np.ndarray) -> np.ndarray:
    """The crystal without its outer two voxels, which are called liquor."""
    core = labels == 3
    for axis in range(3):
        for step in (-2, -1, 1, 2):
            core &= np.roll(labels == 3, step, axis)
    return np.where((labels == 3) & ~core, 1, labels).astype(np.uint8)


TEACHINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "no-loop": hardly_a_loop,
    "good": all_labels,
    "thin-crystal": shrunken_crystal,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three trained models under models/, registered."""
    root = tmp_path_factory.mktemp("promotion")
    for name, teach in TEACHINGS.items():
        cases = []
        for seed in range(2):
            volume, labels = phantom(seed, 40, noise=20.0)
            case = root / "cases" / f"{name}{seed}"
            write_volume(case / "v.zarr", volume, VOXEL)
            write_labels(case / "l.zarr", teach(labels), VOXEL)
            cases.append(TrainingCase(f"c{seed}", case / "v.zarr", case / "l.zarr"))
        data = root / "data" / name
        write_dataset(data, cases)
        train_segmenter(data, root / "work" / name, root / "models" / name, SETTINGS, timeout_s=TIMEOUT_S)
    registry = Registry(root / "registry" / "registry.db")
    for name in TEACHINGS:
        registry.register(name, root / "models" / name, dataset_hash=name, code_revision="r")
    return root


@pytest.fixture(scope="module")
def scores(root: Path) -> dict[str, pd.DataFrame]:
    return {name: scored(root / "models" / name) for name in TEACHINGS}


@pytest.fixture
def place(root: Path, tmp_path: Path) -> Path:
    """Models and registry of a test's own."""
    for part in ("models", "registry"):
        shutil.copytree(root / part, tmp_path / part)
    return tmp_path


def opened(place: Path) -> Registry:
    return Registry(place / "registry" / "registry.db")


def scored(folder: Path) -> pd.DataFrame:
    inference = _inference()
    model = inference.load_model(folder, mirroring=False)
    found = []
    for seed in CASES:
        volume, labels = phantom(seed, 40, noise=20.0)
        predicted = inference.predict_slab(model, volume, VOXEL)
        found.append(evaluate_case(f"c{seed}", labels, predicted, LABEL_NAMES, VOXEL))
    return join_evaluations(found).scores


def decide(registry: Registry, key: str, verdict: Verdict) -> None:
    """What the task does with a verdict."""
    if verdict.promote:
        standing = registry.champion_key()
        registry.promote(key, expected=standing, evidence=verdict.evidence(), **BY)
    else:
        registry.refuse(key, who="Ada", reason="; ".join(verdict.reasons), evidence=verdict.evidence())


def differences(verdict: Verdict) -> dict[str, float]:
    return dict(zip(verdict.table["class"], verdict.table["difference"], strict=True))


def test_gate__from_the_first_champion_to_the_rollback(place: Path, scores: dict[str, pd.DataFrame]):
    registry = opened(place)
    by_hand = Comparison(by_hand=True)

    # Nobody is champion: the floor decides.
    decide(registry, "no-loop", judge(None, scores["no-loop"], RULES, by_hand))
    assert registry.champion_key() == "no-loop"

    # Better on average, since it knows the loop, and worse on the crystal.
    verdict = judge(scores["no-loop"], scores["thin-crystal"], GateRules(floor={}), by_hand)
    assert differences(verdict)[MEAN] > 0.01 and differences(verdict)["crystal"] < -0.01
    assert not verdict.promote and all("crystal" in reason for reason in verdict.reasons)
    decide(registry, "thin-crystal", verdict)
    assert registry.champion_key() == "no-loop"

    # Better.
    verdict = judge(scores["no-loop"], scores["good"], RULES, by_hand)
    assert verdict.promote and "better: +" in verdict.reasons[0]
    decide(registry, "good", verdict)
    assert registry.champion_key() == "good"

    # The same weights under another key: equal, and no new data.
    copy = shutil.copytree(place / "models/good", place / "models/copy")
    registry.register("copy", copy, dataset_hash="good", code_revision="r")
    decide(registry, "copy", judge(scores["good"], scored(copy), RULES, by_hand))
    assert registry.champion_key() == "good"
    # With new real cases it is taken, being no worse.
    assert judge(scores["good"], scores["good"], RULES, Comparison(new_cases=2)).promote

    registry.rollback(who="Ada", reason="fringes at night")
    champion = opened(place).champion()
    assert champion is not None and champion.key == "no-loop"
    assert champion.folder == place / "models/no-loop"
    assert [row.action for row in registry.audit()] == ["promote", "refuse", "promote", "refuse", "rollback"]
    assert all(row.evidence for row in registry.audit())
    # It was rolled back for a reason that the scores did not show.
    undone = registry.rolled_back("good")
    assert undone is not None
    night = Comparison(new_cases=9, rolled_back=undone.reason)
    assert not judge(scores["no-loop"], scores["good"], RULES, night).promote


def test_gate__refuses_when_the_holdout_has_changed(scores: dict[str, pd.DataFrame]):
    frozen = FrozenSet.of(HOLDOUT, scores["good"]["case"].unique())
    same, other = (FrozenSet.of(HOLDOUT, [*frozen.cases[:-1], last]) for last in (frozen.cases[-1], "c99"))
    before, after = scores["no-loop"], scores["good"]
    assert judge(before, after, RULES, Comparison(frozen=[frozen], measured=[same], by_hand=True)).promote
    refused = judge(before, after, RULES, Comparison(frozen=[frozen], measured=[other], by_hand=True))
    assert not refused.promote and "the holdout set has changed" in refused.reasons[0]


def test_promote__at_once_leaves_one_champion(place: Path):
    def race(key: str) -> None:
        registry = opened(place)
        registry._client.search_experiments()
        while not (place / "go").exists():
            time.sleep(0.001)
        registry.promote(key, expected=None, **BY)

    children = [start(lambda key=key: race(key)) for key in TEACHINGS]
    time.sleep(1)
    (place / "go").touch()
    codes = [ended(child) for child in children]
    assert sorted(codes) == [0, LATE, LATE]
    champion = opened(place).champion()
    assert champion is not None and champion.key == list(TEACHINGS)[codes.index(0)]


def test_champion__corrupt_weights_are_named_and_rolled_back_from(place: Path):
    registry = opened(place)
    registry.promote("no-loop", expected=None, **BY)
    registry.promote("good", expected="no-loop", **BY)
    weights = place / "models/good" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(StorageError, match=f"{WEIGHTS} is missing or differs"):
        registry.champion()
    registry.rollback(**BY)
    champion = registry.champion()
    assert champion is not None and champion.key == "no-loop"


def test_load_model__whole_checkpoint_of_another_architecture(place: Path):
    """A folder whose checksums are right and whose weights belong to another network: registered, never scored."""
    import json

    import safetensors.numpy

    source, foreign = place / "models/good", place / "models/foreign"
    tensors = safetensors.numpy.load_file(source / WEIGHTS)
    name = next(k for k, v in tensors.items() if v.ndim == 4)
    tensors[name] = np.concatenate([tensors[name]] * 2)
    record = json.loads((source / MODEL).read_text())
    write_model(
        foreign,
        weights=safetensors.numpy.save(tensors),
        plans=json.loads((source / "plans.json").read_text()),
        dataset=json.loads((source / "dataset.json").read_text()),
        curve=(source / "training_curve.csv").read_text(),
        record={k: v for k, v in record.items() if k not in ("format", "version", "sha256")},
    )
    opened(place).register("foreign", foreign, dataset_hash="d", code_revision="r")
    with pytest.raises(InputError, match=r"another architecture than plans\.json: 1 tensors differ"):
        scored(foreign)


def _inference():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, as they are imported
        from tomoforge.segmentation import inference
    return inference
