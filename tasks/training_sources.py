"""Compare what segmenters learn from real cases, from forged ones and from both: plan, train, score, publish."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import task

from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.progress import StageProgress, follow, report_to
from tasks.publishing import publish_version
from tasks.registry import (
    SCORES,
    LabelledCase,
    frozen_cases,
    labelled_cases,
    open_registry,
)
from tasks.samples import LABELS
from tasks.segmenter import DATASET, MODEL, WORK, build_dataset, training_settings
from tasks.volumes import VOLUME
from tomoforge.config import TrainingSchedule
from tomoforge.errors import ConfigError, InputError
from tomoforge.results import Picture, Table
from tomoforge.segmentation.baselines import BASELINES, attenuation_order
from tomoforge.segmentation.dataset import read_dataset_record
from tomoforge.segmentation.evaluation import (
    MEAN,
    MEASURES,
    Bootstrap,
    Evaluation,
    evaluate_case,
    join_evaluations,
    table_of_means,
    worst_cases,
)
from tomoforge.segmentation.gate import HOLDOUT
from tomoforge.segmentation.pictures import case_picture
from tomoforge.segmentation.postprocess import clean_labels
from tomoforge.segmentation.predict import predict_all_stored
from tomoforge.segmentation.settings import TrainingSettings
from tomoforge.segmentation.trainer import train_segmenter
from tomoforge.segmentation.training_sources import (
    ARMS,
    BOTH,
    REAL,
    Round,
    SourceComparison,
    SourcedCase,
    compare_sources,
    doubts,
    gain_points,
    mean_of_seeds,
    plan_rounds,
)
from tomoforge.segmentation.training_sources_picture import sources_picture
from tomoforge.storage import Artefact, Workspace, replacing, to_json
from tomoforge.units import m_to_um
from tomoforge.volumes import LABEL_NAMES, open_level, read_labels, read_volume, read_voxel_size, write_labels

_TIMEOUT_S = 24 * 3600.0
_WORST = 3  # cases with pictures


@dataclass(frozen=True)
class ComparisonPlan:
    """cases : by their names, those that train and those that test; crossed : whether there is no hold-out;
    approvals : key of pseudo-labels → the decision that approved them."""

    cases: Mapping[str, LabelledCase]
    rounds: tuple[Round, ...]
    crossed: bool
    approvals: Mapping[str, str]

    def test_cases(self, number: int) -> tuple[LabelledCase, ...]:
        """The test cases of a round."""
        return tuple(self.cases[name] for name in self.rounds[number].test)


@dataclass(frozen=True)
class Trained:
    """One model of the comparison. scored : what it predicted for the test cases of its round, and its scores."""

    arm: str
    seed: int
    round: int
    model: Artefact
    scored: Artefact


@task(name="plan-comparison", **OPTIONS)
def plan_comparison(workspace: Workspace, dataset: Artefact, holdout: Artefact | None) -> ComparisonPlan:
    """Which cases train and test: on ``holdout``, else the frozen hold-out of the registry, else cross-validated.

    Raises InputError where sources are missing, the hold-out is not apart from the dataset, or the frozen one was
    changed.
    """
    cases = labelled_cases(workspace, dataset, trust_records=True)
    tested = _holdout_cases(workspace, holdout)
    rounds = plan_rounds(
        [_sourced(c) for c in cases], None if tested is None else [_sourced(c) for c in tested]
    )
    stored = read_dataset_record(workspace.path(dataset) / DATASET)["cases"]
    approvals = {c["origin"]["labels"]: c["origin"]["approval"] for c in stored if "approval" in c["origin"]}
    every = {case.name: case for case in (*cases, *(tested or ()))}
    return ComparisonPlan(every, tuple(rounds), tested is None, approvals)


def _holdout_cases(workspace: Workspace, holdout: Artefact | None) -> list[LabelledCase] | None:
    if holdout is not None:
        return labelled_cases(workspace, holdout, trust_records=True)
    frozen = open_registry(workspace).frozen(HOLDOUT)
    if frozen is None:
        return None
    # Without a dataset nothing is frozen anew: who and why are of no use.
    found = frozen_cases.fn(workspace, HOLDOUT, dataset=None, replace=False, by="", reason="")
    if found is None or found.measured().sha256 != frozen.after:
        raise InputError(
            f"the frozen hold-out must be what was frozen, {frozen.after}, got other cases; restore its files, or give "
            "holdout"
        )
    return list(found.cases)


def _sourced(case: LabelledCase) -> SourcedCase:
    return SourcedCase(case.name, case.source, case.group)


@task(name="arm-dataset", **OPTIONS)
def arm_dataset(workspace: Workspace, plan: ComparisonPlan, names: Sequence[str]) -> Artefact:
    """The dataset of one arm: kind ``datasets``. The same cases are the same dataset, whichever round asks."""
    cases = [plan.cases[name] for name in names]
    return build_dataset.fn(
        workspace,
        [case.volume for case in cases],
        [case.labels for case in cases],
        sources=[case.source for case in cases],
        groups=[case.group for case in cases],
        approvals={
            c.labels.key: plan.approvals[c.labels.key] for c in cases if c.labels.key in plan.approvals
        },
    )


@task(name="train-arm", **OPTIONS)
def train_arm(
    compute: Compute,
    workspace: Workspace,
    dataset: Artefact,
    *,
    schedule: TrainingSchedule,
    seed: int,
    name: str,
) -> Artefact:
    """A segmenter trained on all cases of a dataset, none held back: kind ``models``.

    Of a few real cases one fewer would be a third of what the arm knows, and nothing is chosen by a validation here:
    the last epoch's weights are taken. An interrupted training goes on at its last epoch.
    """
    if schedule.preset == "nightly":
        raise ConfigError(
            "preset nightly goes on from a trained model, which has seen what the arms must not; take preset quick or "
            "crystalseg"
        )
    source = str(workspace.path(dataset) / DATASET)
    settings = training_settings(schedule, seed)
    names = sorted(c["identifier"] for c in read_dataset_record(source)["cases"])

    def build(folder: Path) -> None:
        bar = StageProgress(f"{name}: epochs")
        with follow(folder / "progress.json", bar):
            compute.run(_train_piece, source, settings.to_dict(), names, str(folder), timeout_s=_TIMEOUT_S)
        shutil.rmtree(folder / WORK)  # checkpoints and preprocessed slices: the exported model is whole

    return produce(
        workspace,
        "models",
        "model",
        parameters={"settings": settings.to_dict(), "held_back": []},
        inputs={"dataset": dataset},
        packages=("segmentation",),
        build=build,
        resumable=True,
    )


def _train_piece(source: str, settings: dict[str, Any], names: list[str], folder: str) -> None:
    report = report_to(Path(folder) / "progress.json")
    train_segmenter(
        source,
        Path(folder) / WORK,
        Path(folder) / MODEL,
        TrainingSettings.from_dict(settings),
        splits=[{"train": names, "val": names}],
        timeout_s=_TIMEOUT_S,
        progress=lambda state: report(state.epoch, state.epochs),
    )


@task(name="segment-and-score", **OPTIONS)
def segment_and_score(
    compute: Compute,
    workspace: Workspace,
    model: Artefact,
    cases: Sequence[LabelledCase],
    *,
    name: str,
) -> Artefact:
    """What a model predicts for all test cases, in one process, and its scores: kind ``models``.

    ``<case>/labels.ome.zarr`` each, cleaned as always, and a table.
    """
    pieces = [(case.name, *_paths(workspace, case)) for case in cases]
    segmenter = str(workspace.path(model) / MODEL)

    def build(folder: Path) -> None:
        bar = StageProgress(f"{name}: slices segmented")
        with follow(folder / "progress.json", bar):
            scores = compute.run(_score_piece, segmenter, pieces, str(folder), timeout_s=_TIMEOUT_S)
        with replacing(folder / SCORES) as path:
            scores.to_parquet(path, index=False)

    return produce(
        workspace,
        "models",
        "segmented-cases",
        parameters={"classes": LABEL_NAMES, "clean": True},
        inputs={"model": model, **{f"case_{n}": case.name for n, case in enumerate(cases)}},
        packages=("segmentation",),
        build=build,
    )


def _score_piece(model: str, pieces: Sequence[tuple[str, str, str]], folder: str) -> pd.DataFrame:
    place = Path(folder)
    found = predict_all_stored(
        [(volume, place / name) for name, volume, _ in pieces],
        model,
        timeout_s=_TIMEOUT_S,
        progress=report_to(place / "progress.json"),
    )
    parts = []
    for (name, _, truth_path), stored in zip(pieces, found, strict=True):
        labels, voxel_size = read_labels(stored.labels)
        labels = clean_labels(labels, LABEL_NAMES)
        for left in (stored.labels, stored.uncertainty):
            shutil.rmtree(left)
        write_labels(place / name / LABELS, labels, voxel_size)
        truth, _ = read_labels(truth_path)
        parts.append(evaluate_case(name, truth, labels, LABEL_NAMES, voxel_size))
    return join_evaluations(parts).scores


@task(name="score-baselines", **OPTIONS)
def score_baselines(compute: Compute, workspace: Workspace, plan: ComparisonPlan, *, number: int) -> Artefact:
    """Scores of thresholds and watershed on the test cases of a round: a table in kind ``models``, a column
    ``baseline`` first.

    Which class has more µ than which is read from the first real case that trains.
    """
    teacher = plan.cases[plan.rounds[number].arms[REAL][0]]
    tested = plan.test_cases(number)

    def build(folder: Path) -> None:
        taught = _paths(workspace, teacher)
        pieces = [(case.name, *_paths(workspace, case), *taught) for case in tested]
        bar = StageProgress("baselines: cases scored")
        parts = compute.map(_baseline_piece, pieces, timeout_s=_TIMEOUT_S, progress=bar)
        tables = []
        for name in BASELINES:
            table = join_evaluations([part[name] for part in parts]).scores
            table.insert(0, "baseline", name)
            tables.append(table)
        with replacing(folder / SCORES) as path:
            pd.concat(tables, ignore_index=True).to_parquet(path, index=False)

    return produce(
        workspace,
        "models",
        "baseline-scores",
        parameters={"classes": LABEL_NAMES, "baselines": list(BASELINES)},
        inputs={"teacher": teacher.name, **{f"case_{n}": case.name for n, case in enumerate(tested)}},
        packages=("segmentation",),
        build=build,
    )


def _paths(workspace: Workspace, case: LabelledCase) -> tuple[str, str]:
    return str(workspace.path(case.volume) / VOLUME), str(workspace.path(case.labels) / LABELS)


def _baseline_piece(
    name: str, volume_path: str, truth_path: str, teacher_volume: str, teacher_truth: str
) -> dict[str, Evaluation]:
    order = attenuation_order(read_volume(teacher_volume)[0], read_labels(teacher_truth)[0])
    volume, voxel_size = read_volume(volume_path)
    truth, _ = read_labels(truth_path)
    return {
        baseline: evaluate_case(name, truth, label(volume, order), LABEL_NAMES, voxel_size)
        for baseline, label in BASELINES.items()
    }


def gather_scores(workspace: Workspace, trained: Sequence[Trained]) -> dict[str, dict[int, pd.DataFrame]]:
    """Arm → seed → scores, the rounds under each other."""
    parts: dict[tuple[str, int], list[pd.DataFrame]] = {}
    for item in trained:
        table = pd.read_parquet(workspace.path(item.scored) / SCORES)
        parts.setdefault((item.arm, item.seed), []).append(table)
    found: dict[str, dict[int, pd.DataFrame]] = {}
    for (arm, seed), tables in parts.items():
        found.setdefault(arm, {})[seed] = pd.concat(tables, ignore_index=True)
    return found


def gather_baselines(workspace: Workspace, tables: Sequence[Artefact]) -> dict[str, pd.DataFrame]:
    """Baseline → scores, the rounds under each other."""
    every = pd.concat([pd.read_parquet(workspace.path(item) / SCORES) for item in tables], ignore_index=True)
    return {
        name: every[every["baseline"] == name].drop(columns="baseline").reset_index(drop=True)
        for name in BASELINES
    }


@dataclass(frozen=True)
class PublishedComparison:
    """identifier : of what was published; lines : what a person is told at the end."""

    identifier: str
    lines: tuple[str, ...]


@task(name="publish-comparison", **OPTIONS)
def publish_comparison(
    workspace: Workspace,
    plan: ComparisonPlan,
    trained: Sequence[Trained],
    scores: Mapping[str, Mapping[int, pd.DataFrame]],
    baselines: Mapping[str, pd.DataFrame],
    *,
    dataset: Artefact,
    schedule: TrainingSchedule,
) -> PublishedComparison:
    """The comparison with its tables, figure, worst cases and doubts: kind ``comparisons``."""
    bootstrap = Bootstrap()
    comparison = compare_sources(scores, baselines, bootstrap)
    seeds = sorted({item.seed for item in trained})
    settings = training_settings(schedule, 0)
    tested = sum(len(item.test) for item in plan.rounds)
    about = f"{tested} real cases held back, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    worst = worst_cases(mean_of_seeds(list(scores[BOTH].values())), _WORST)
    means = comparison.means.set_index(["model", "class", "measure"])["mean"]
    counts = _case_counts(plan)
    gain, low, high = gain_points(comparison.differences)
    key = sha256(to_json([item.model.key for item in trained]).encode()).hexdigest()[:16]
    identifier = publish_version(
        workspace,
        "comparisons",
        f"training-sources-{key}",
        title=f"Training sources compared on {about}",
        summary={
            "gain_real_and_synthetic_iou_points": gain,
            "gain_low_iou_points": low,
            "gain_high_iou_points": high,
            **{f"iou_{_plain(arm)}": means[arm, MEAN, "iou"] for arm in ARMS},
            **{f"cases_{_plain(arm)}": number for arm, number in counts.items()},
            "cases_tested": tested,
            "seeds": len(seeds),
            "iterations": settings.epochs * settings.iterations_per_epoch,
        },
        pictures={
            "comparison": Picture(
                sources_picture(comparison, f"What the segmenter was trained on: {about}"),
                "IoU with intervals over cases; dots are single seeds, diamonds the published means of other data.",
            ),
            **_worst_pictures(workspace, plan, trained, worst),
        },
        tables=_tables(comparison, worst, scores),
        warnings=doubts(comparison, plan.rounds, seeds=len(seeds), crossed=plan.crossed),
        provenance={
            "dataset": dataset.key,
            "crossed": plan.crossed,
            "settings": settings.to_dict(),
            "bootstrap": {"confidence": bootstrap.confidence, "resamples": bootstrap.resamples},
            "tested": [list(item.test) for item in plan.rounds],
            "models": [[i.arm, i.seed, i.round, i.model.key] for i in trained],
        },
    )
    return PublishedComparison(identifier, tuple(comparison_lines(comparison, about)))


def _plain(arm: str) -> str:
    return arm.replace(" + ", "_and_").replace(" ", "_")


def _case_counts(plan: ComparisonPlan) -> dict[str, int]:
    """Cases that each arm trains on; in a cross-validation the fewest."""
    return {arm: min(len(item.arms[arm]) for item in plan.rounds) for arm in ARMS}


def _tables(
    comparison: SourceComparison, worst: pd.DataFrame, scores: Mapping[str, Mapping[int, pd.DataFrame]]
) -> dict[str, Table]:
    every = [
        table.assign(arm=arm, seed=seed) for arm, by_seed in scores.items() for seed, table in by_seed.items()
    ]
    return {
        "scores": Table(
            table_of_means(comparison.means, MEASURES),
            "Mean over the cases with its 95 % interval; arms are averaged over seeds, surface distances in µm.",
        ),
        "means": Table(
            comparison.means, "The same as numbers, a row each model, class and measure, for charts."
        ),
        "differences": Table(
            comparison.differences, "Paired differences over the cases, with their interval."
        ),
        "published": Table(
            comparison.published, "Beside what CrystalSeg published, on other data: not to be equalled."
        ),
        "seeds": Table(comparison.seeds, "Mean IoU over the cases of every single training."),
        "worst_cases": Table(worst, f"The cases that '{BOTH}' segments worst, by mean IoU."),
        "cases": Table(pd.concat(every, ignore_index=True), "A row each arm, seed, case and class."),
    }


def _worst_pictures(
    workspace: Workspace, plan: ComparisonPlan, trained: Sequence[Trained], worst: pd.DataFrame
) -> dict[str, Picture]:
    """Of the worst cases the labels of the first seed, of both sources and of real ones alone."""
    found = {}
    seed = min(item.seed for item in trained)
    for place, row in enumerate(worst.to_dict("records"), start=1):
        case = plan.cases[row["case"]]
        volume_path, truth_path = _paths(workspace, case)
        volume, truth, voxel_size = (
            open_level(volume_path),
            open_level(truth_path),
            read_voxel_size(volume_path),
        )
        for arm in (BOTH, REAL):
            predicted = open_level(_prediction(workspace, plan, trained, arm, seed, case.name))
            title = f"{arm}, case {case.name[:12]}, voxels of {m_to_um(voxel_size):g} µm"
            found[f"worst_{place}_{_plain(arm)}"] = Picture(
                case_picture(volume, truth, predicted, voxel_size, title),
                f"The case that '{BOTH}' segments {'' if place == 1 else f'{place}. '}worst, as '{arm}' has it; the "
                "slices with the most wrong voxels.",
            )
    return found


def _prediction(
    workspace: Workspace, plan: ComparisonPlan, trained: Sequence[Trained], arm: str, seed: int, name: str
) -> Path:
    for item in trained:
        if (item.arm, item.seed) == (arm, seed) and name in plan.rounds[item.round].test:
            return workspace.path(item.scored) / name / LABELS
    raise InputError(f"trained must hold a prediction of case {name} by '{arm}' with seed {seed}, got none")


def comparison_lines(comparison: SourceComparison, about: str) -> list[str]:
    """The table of means and the gains, for a terminal."""
    shown = table_of_means(comparison.means, ("iou", "recall", "precision", "f1"))
    rows = shown[shown["class"].isin([MEAN, "crystal"])].to_dict("records")
    lines = [f"compared on {about}", ""]
    lines += [
        f"{r['model']:18}{r['class']:9}IoU {r['iou']:23}recall {r['recall']:23}precision {r['precision']}"
        for r in rows
    ]
    lines.append("")
    for pair in dict.fromkeys(comparison.differences["pair"]):
        first, second = pair.split(" − ")
        gain, low, high = gain_points(comparison.differences, (first, second))
        lines.append(f"{pair:36}{gain:+.1f} IoU points [{low:+.1f}, {high:+.1f}]")
    lines += [
        "",
        "published, on other data: IoU 0.706 only real, 0.743 only synthetic, 0.828 real + synthetic",
    ]
    return lines
