"""The comparison of training sources on artefacts, with real trainings, as small as they can be."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.artefacts import produce
from tasks.registry import frozen_cases
from tasks.samples import LABELS
from tasks.segmenter import DATASET, MODEL, WORK, build_dataset
from tasks.training_sources import (
    ComparisonPlan,
    PublishedComparison,
    Trained,
    arm_dataset,
    gather_baselines,
    gather_scores,
    plan_comparison,
    publish_comparison,
    score_baselines,
    segment_and_score,
    train_arm,
)
from tasks.volumes import VOLUME
from tests.library.segmentation.phantom import phantom
from tomoforge.config import TrainingSchedule
from tomoforge.errors import ConfigError, InputError, StageError
from tomoforge.results import read_published
from tomoforge.segmentation.case_records import Source
from tomoforge.segmentation.dataset import DATASET_NAME, read_dataset_record
from tomoforge.segmentation.evaluation import MEAN, mean_scores
from tomoforge.segmentation.training_sources import ARMS, BOTH, REAL, SYNTHETIC, gain_points
from tomoforge.storage import Artefact, Workspace
from tomoforge.volumes import read_labels, write_labels, write_volume

# Three trainings and predictions in processes of their own, each of which imports torch.
pytestmark = pytest.mark.timeout(900)

VOXEL = 2.5e-6  # [m]
SIZE = 24
TRAINING: dict[int, Source] = {1: "real", 2: "real", 3: "forged", 4: "forged"}  # by the seeds of the phantoms
HOLDOUT: dict[int, Source] = {5: "real", 6: "real"}
SCHEDULE = TrainingSchedule(epochs=2, iterations=8, patch=32, stages=3, features=4, batch_size=8)


class Inline:
    """A cluster that does the work here, and may lose its worker after so many single jobs."""

    def __init__(self, lives: int | None = None) -> None:
        self.jobs, self.lives = 0, lives

    def map(self, function: Callable, pieces: Sequence[tuple], **options: Any) -> list[Any]:
        return [function(*piece) for piece in pieces]

    def run(self, function: Callable, *arguments: Any, timeout_s: float) -> Any:
        if self.jobs == self.lives:
            raise StageError("the worker was killed")
        self.jobs += 1
        return function(*arguments)


def stored(
    workspace: Workspace, kind: str, stage: str, seed: int, write: Callable[[Path], object]
) -> Artefact:
    return produce(
        workspace,
        kind,
        stage,
        parameters={"seed": seed},
        inputs={},
        packages=("segmentation",),
        build=lambda folder: write(folder) and None,
    )


def dataset(workspace: Workspace, sources: Mapping[int, Source]) -> Artefact:
    volumes, labels = [], []
    for seed in sources:
        grey, truth = phantom(seed, SIZE, noise=40.0)
        volumes.append(
            stored(workspace, "volumes", "volume", seed, lambda f, a=grey: write_volume(f / VOLUME, a, VOXEL))
        )
        labels.append(
            stored(workspace, "labels", "labels", seed, lambda f, a=truth: write_labels(f / LABELS, a, VOXEL))
        )
    return build_dataset.fn(workspace, volumes, labels, sources=list(sources.values()))


def compared(
    compute: Inline, workspace: Workspace, data: Artefact, plan: ComparisonPlan, seeds: Iterable[int]
) -> tuple[list[Trained], PublishedComparison]:
    """What the flow does, one after another."""
    trained = []
    for number, item in enumerate(plan.rounds):
        for arm, names in item.arms.items():
            arm_data = arm_dataset.fn(workspace, plan, names)
            for seed in seeds:
                model = train_arm.fn(compute, workspace, arm_data, schedule=SCHEDULE, seed=seed, name=arm)
                scored = segment_and_score.fn(compute, workspace, model, plan.test_cases(number), name=arm)
                trained.append(Trained(arm, seed, number, model, scored))
    baselines = [score_baselines.fn(compute, workspace, plan, number=n) for n in range(len(plan.rounds))]
    shown = publish_comparison.fn(
        workspace,
        plan,
        trained,
        gather_scores(workspace, trained),
        gather_baselines(workspace, baselines),
        dataset=data,
        schedule=SCHEDULE,
    )
    return trained, shown


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    """A comparison whose worker was lost after the first arm, taken up again."""
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    data, holdout = dataset(workspace, TRAINING), dataset(workspace, HOLDOUT)
    plan = plan_comparison.fn(workspace, data, holdout)
    with pytest.raises(StageError, match="killed"):
        compared(Inline(lives=3), workspace, data, plan, [1])
    second = Inline()
    trained, shown = compared(second, workspace, data, plan, [1])
    return workspace, data, plan, trained, shown, second.jobs


def test_comparison__goes_on_where_it_was_killed(finished):
    workspace, data, plan, trained, shown, jobs = finished
    # Two jobs an arm, training and segmentation; three of the six were done.
    assert jobs == 3
    nothing = Inline(lives=0)
    again, same = compared(nothing, workspace, data, plan, [1])
    assert (again, same, nothing.jobs) == (trained, shown, 0)


def test_comparison__every_arm_trains_on_all_of_its_cases_and_as_long(finished):
    workspace, _, _, trained, _, _ = finished
    for item in trained:
        inputs = workspace.read_provenance(item.model)["inputs"]
        cases = read_dataset_record(workspace.path(Artefact(**inputs["dataset"])) / DATASET)["cases"]
        assert {c["source"] for c in cases} <= ARMS[item.arm]
        assert len(cases) == {REAL: 2, SYNTHETIC: 2, BOTH: 4}[item.arm]
        curve = pd.read_csv(workspace.path(item.model) / MODEL / "training_curve.csv")
        assert len(curve) == 2
        assert not (workspace.path(item.model) / WORK).exists()
        assert workspace.read_provenance(item.model)["parameters"]["held_back"] == []


def test_comparison__scores_are_those_of_the_labels_that_lie_there(finished):
    workspace, _, plan, trained, _, _ = finished
    scores = gather_scores(workspace, trained)
    assert set(scores) == set(ARMS)
    case = plan.test_cases(0)[0]
    (item,) = [t for t in trained if t.arm == BOTH]
    predicted, voxel = read_labels(workspace.path(item.scored) / case.name / LABELS)
    truth, _ = read_labels(workspace.path(case.labels) / LABELS)
    assert voxel == VOXEL
    both, either = ((predicted == 1) & (truth == 1)).sum(), ((predicted == 1) | (truth == 1)).sum()
    row = scores[BOTH][1].set_index(["case", "class"]).loc[(case.name, "liquor")]
    assert row["iou"] == pytest.approx(both / either)


def test_comparison__published_with_tables_figure_worst_cases_and_doubts(finished):
    workspace, _, _, trained, shown, _ = finished
    published = read_published(workspace.folder("published") / "comparisons" / shown.identifier)
    assert set(published.tables) == {
        "scores", "means", "differences", "published", "seeds", "worst_cases", "cases",
    }  # fmt: skip
    assert {"comparison", "worst_1_real_and_synthetic", "worst_1_only_real"} <= set(published.pictures)
    table = published.read_table("scores")
    assert list(dict.fromkeys(table["model"])) == ["Otsu", "multi-Otsu", "watershed", *ARMS]
    numbers = published.read_table("means").set_index(["model", "class", "measure"])
    assert (numbers["low"].isna() | (numbers["low"] <= numbers["mean"])).all()
    gain, *_ = gain_points(published.read_table("differences"))
    assert published.summary["gain_real_and_synthetic_iou_points"] == pytest.approx(gain)
    scores = gather_scores(workspace, trained)
    means = {
        arm: mean_scores(scores[arm][1]).set_index(["class", "measure"])["mean"][MEAN, "iou"] for arm in ARMS
    }
    assert gain == pytest.approx(100 * (means[BOTH] - means[REAL]))
    text = "\n".join(published.warnings)
    assert "One seed" in text and "Only 2 real cases" in text
    assert (published.summary["cases_only_real"], published.summary["iterations"]) == (2, 16)
    assert any(line.startswith(f"{BOTH} − {REAL}") for line in shown.lines)


def test_plan_comparison__takes_the_frozen_holdout_else_crosses(finished, tmp_path):
    workspace, data, plan, *_ = finished
    crossed = plan_comparison.fn(workspace, data, None)
    assert crossed.crossed and [len(item.test) for item in crossed.rounds] == [1, 1]
    # What the rounds share is one dataset, so it is trained on once.
    first, second = (arm_dataset.fn(workspace, crossed, item.arms[SYNTHETIC]) for item in crossed.rounds)
    assert first == second
    held = dataset(workspace, HOLDOUT)
    frozen_cases.fn(workspace, "holdout", dataset=held.key, replace=False, by="Ada", reason="test")
    taken = plan_comparison.fn(workspace, data, None)
    assert not taken.crossed and {*taken.rounds[0].test} == {*plan.rounds[0].test}


def test_plan_comparison__refuses_a_frozen_holdout_that_changed(tmp_path):
    workspace = Workspace(tmp_path)
    data, held = dataset(workspace, TRAINING), dataset(workspace, HOLDOUT)
    cases = frozen_cases.fn(workspace, "holdout", dataset=held.key, replace=False, by="Ada", reason="test")
    assert cases is not None
    path = workspace.path(cases.cases[0].labels) / LABELS
    truth, _ = read_labels(path)
    write_labels(path, np.where(truth == 2, 1, truth).astype(np.uint8), VOXEL)
    with pytest.raises(InputError, match="frozen hold-out must be what was frozen"):
        plan_comparison.fn(workspace, data, None)


def test_train_arm__refuses_to_go_on_from_another_model(tmp_path):
    workspace = Workspace(tmp_path)
    data = dataset(workspace, TRAINING)
    with pytest.raises(ConfigError, match="nightly goes on"):
        train_arm.fn(Inline(), workspace, data, schedule=TrainingSchedule(preset="nightly"), seed=1, name="x")


def test_arm_dataset__is_of_its_arm_alone(tmp_path):
    workspace = Workspace(tmp_path)
    plan = plan_comparison.fn(workspace, dataset(workspace, TRAINING), dataset(workspace, HOLDOUT))
    real = arm_dataset.fn(workspace, plan, plan.rounds[0].arms[REAL])
    assert (workspace.path(real) / DATASET / DATASET_NAME).is_dir()
    cases = read_dataset_record(workspace.path(real) / DATASET)["cases"]
    assert {case["source"] for case in cases} == {"real"}
