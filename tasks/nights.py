"""A night's retraining: what is new since the last, what becomes of it, and the data set of the night."""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from prefect import task
from pydantic import Field

from tasks.artefacts import OPTIONS, produce
from tasks.night_forging import calibrated, fitting_grid, matching_optics, pixel_size_of
from tasks.night_labels import (
    artefact_of,
    dataset_of_model,
    dataset_records,
    frozen_records,
    labelled_volumes,
    lost,
    made_at,
    paths_of,
    placed,
    rejected_contents,
    scan_of_volume,
)
from tasks.progress import say
from tasks.registry import GateSettings, find_model, open_registry
from tasks.samples import LABELS, plan_forging
from tasks.scans import material_mu
from tasks.segmenter import DATASET, MODEL, training_settings
from tasks.volumes import VOLUME
from tomoforge.config import (
    ForgingSettings,
    OpticsSettings,
    ReconstructionSettings,
    Seed,
    Settings,
    TrainingSchedule,
    parse_settings,
)
from tomoforge.errors import TomoforgeError
from tomoforge.seeds import component_seed
from tomoforge.segmentation.audit import AuditRow
from tomoforge.segmentation.case_records import BY_CONTENT, CaseRecord, TrainingCase
from tomoforge.segmentation.dataset import check_cases, read_dataset_record
from tomoforge.segmentation.dataset_versions import DatasetVersions, sort_out, write_version
from tomoforge.segmentation.gate import HOLDOUT
from tomoforge.segmentation.model import read_model
from tomoforge.segmentation.nights import (
    NIGHT,
    Considered,
    NightBook,
    NightCase,
    NightPlan,
    Watermark,
    best_of_each,
    competing,
    held_out,
    is_held_out,
    joined,
    old_forged,
    still_new,
)
from tomoforge.segmentation.splits import Holdout
from tomoforge.storage import Artefact, Workspace
from tomoforge.units import m_to_um
from tomoforge.volumes import LABEL_NAMES

BY = "nightly_retrain"  # in the registry's audit
_FOLDER = "nights"  # in the workspace

Clock = Callable[[], datetime.datetime]
# A case and its record, once it is read.
Read = tuple[NightCase, CaseRecord]


class NightSettings(Settings):
    """What a night asks for and does."""

    new_cases: Annotated[int, Field(ge=1)] = 2
    samples: Annotated[int, Field(ge=1, le=1000)] = 6
    seed: Seed = 1
    grid: Annotated[int, Field(ge=32, le=2048)] = 128
    kept_forged: Annotated[int, Field(ge=0)] = 30
    most_starts: Annotated[int, Field(ge=1)] = 5
    retry_failed: bool = False
    forging: ForgingSettings = ForgingSettings()
    optics: OpticsSettings = OpticsSettings()
    reconstruction: ReconstructionSettings = ReconstructionSettings()
    training: TrainingSchedule = TrainingSchedule(preset="nightly")
    gate: GateSettings = GateSettings()


@dataclass(frozen=True)
class Waiting:
    """New labelled volumes. unpaired : labels whose scan has no volume yet."""

    cases: tuple[NightCase, ...]
    unpaired: int = 0

    def lacking(self, needed: int) -> str | None:
        """What is there and what is missing, or None if there is enough."""
        if len(self.cases) >= needed:
            return None
        there = f"{len(self.cases) or 'no'} new labelled volume{'' if len(self.cases) == 1 else 's'}"
        waiting = (
            f"; labels that wait for their scan's reconstruction: {self.unpaired}" if self.unpaired else ""
        )
        return f"{there}, a night needs {needed}{waiting}"


def book_of(workspace: Workspace) -> NightBook:
    """The nights of the workspace."""
    return NightBook(workspace.root / _FOLDER)


def versions_of(workspace: Workspace) -> DatasetVersions:
    """The versions of the nights' data set."""
    return DatasetVersions(workspace.root / _FOLDER / "versions", workspace.root)


# --- looking: records alone, no voxel -------------------------------------------------------------------


def no_ground(workspace: Workspace) -> str | None:
    """Why there can be no night in this workspace yet, or None."""
    registry = open_registry(workspace)
    if registry.champion_key() is None:
        return "there is no champion to go on from; train_segmenter and promote make one"
    if registry.frozen(HOLDOUT) is None:
        return "no hold-out is frozen to judge a new model on; promote freezes one"
    return None


def look_for_new(workspace: Workspace, *, retry_failed: bool = False) -> Waiting:
    """Labelled volumes of measured scans that no night has settled, that the champion does not know, and whose scans
    the frozen sets do not hold. Seconds, however large the volumes are."""
    found, unpaired = labelled_volumes(workspace)
    frozen, watermark = frozen_records(workspace), book_of(workspace).watermark()
    volumes = {str(record.origin["volume"]) for record in frozen if "volume" in record.origin}
    scans = {scan for volume in volumes if (scan := scan_of_volume(workspace, volume))}
    open_to_all = [case for case in found if case.volume not in volumes and case.scan not in scans]
    best, _ = best_of_each(competing(open_to_all, watermark), lambda case: case.volume, lambda case: case)
    standing = _standing(workspace, watermark)
    known = {(record.origin.get("volume"), record.origin.get("labels")) for record in standing}
    fresh = still_new(
        [case for case in best if (case.volume, case.labels) not in known],
        watermark,
        present={record.content for record in standing},
        holdout=held_out(frozen).sha256 if frozen else None,
        retry_failed=retry_failed,
    )
    return Waiting(tuple(fresh), unpaired)


def _standing(workspace: Workspace, watermark: Watermark) -> list[CaseRecord]:
    """The cases of the last night's version and the champion's."""
    champion = open_registry(workspace).champion_key()
    assert champion is not None  # ``no_ground`` asks first
    last = versions_of(workspace).read(watermark.version).cases if watermark.version is not None else ()
    return joined(last, dataset_records(workspace, dataset_of_model(workspace, champion)))


# --- beginning: the new volumes are read once -----------------------------------------------------------


@task(name="begin-night", **OPTIONS)
def begin_night(workspace: Workspace, waiting: Waiting, settings: NightSettings, *, now: Clock) -> NightPlan:
    """Read the new volumes, sort out what cannot be used, and plan the night; kept where there is anything to keep.

    A plan without cases only notes what was sorted out; ``reason`` then says what is missing.

    Raises InputError where the settings fit no sample to the latest scan: nothing is kept then.
    """
    registry, book = open_registry(workspace), book_of(workspace)
    champion, watermark = registry.champion(), book.watermark()
    assert champion is not None  # ``no_ground`` asks first
    frozen = frozen_records(workspace)
    holdout = held_out(frozen) if frozen else None
    base, drop, warnings = _base(workspace, watermark, holdout, settings.kept_forged)
    plan = NightPlan(
        book.next_number(),
        now().astimezone(datetime.UTC).isoformat(timespec="seconds"),
        settings=settings.model_dump(mode="json"),
        champion=champion.key,
        dataset=dataset_of_model(workspace, champion.key),
        parent=watermark.version,
        drop=tuple(drop),
        holdout=holdout,
        audit=registry.audit()[-1].sequence,
        warnings=tuple(warnings),
    )
    taken, considered = _sorted_out(workspace, waiting.cases, base, plan)
    short = Waiting(tuple(case for case, _ in taken)).lacking(settings.new_cases)
    if short is not None:
        settled = {key: entry for key, entry in considered.items() if entry.outcome != "trained"}
        reason = f"{short}; {len(waiting.cases) - len(taken)} more cannot be used"
        plan = replace(plan, considered=settled, reason=reason)
        return book.begin(plan) if settled else plan
    records = tuple(record for _, record in taken)
    plan = replace(plan, considered=considered, cases=records)
    return book.begin(_matched(workspace, plan, [case for case, _ in taken], settings))


def _base(
    workspace: Workspace, watermark: Watermark, holdout: Holdout | None, kept_forged: int
) -> tuple[list[CaseRecord], list[str], list[str]]:
    """The cases to build on, the contents that are left out of them, and warnings of what is lost."""
    standing, rejected = _standing(workspace, watermark), rejected_contents(workspace)
    drop, warnings = set(old_forged(standing, kept_forged)), []
    for record in standing:
        if gone := lost(workspace, record):
            warnings.append(f"case {record.content} is left out: {gone}")
        held = holdout is not None and is_held_out(record, holdout)
        if gone or held or record.labels_sha256 in rejected:
            drop.add(record.content)
    return [record for record in standing if record.content not in drop], sorted(drop), warnings


def _sorted_out(
    workspace: Workspace, cases: Sequence[NightCase], base: Sequence[CaseRecord], plan: NightPlan
) -> tuple[list[Read], dict[str, Considered]]:
    """The cases that can train with their records, and what becomes of all of them."""
    known, rejected = {record.content for record in base}, rejected_contents(workspace)
    good: list[Read] = []
    considered: dict[str, Considered] = {}
    for case in cases:
        entry = Considered(
            "quarantined", plan.number, case.volume, source=case.source, approval=case.approval
        )
        record, reason = _examined(workspace, case, base)
        if record is None:
            say(f"{case.labels}: quarantined, {reason}")
            considered[case.labels] = replace(entry, reason=reason)
            continue
        entry = replace(entry, content=record.content)
        if plan.holdout is not None and is_held_out(record, plan.holdout):
            reason = f"in the frozen hold-out {plan.holdout.sha256[:12]}"
            considered[case.labels] = replace(
                entry, outcome="held out", reason=reason, holdout=plan.holdout.sha256
            )
        elif record.content in known:
            considered[case.labels] = replace(entry, outcome="known", reason="trained on before")
        elif record.labels_sha256 not in rejected:
            good.append((case, record))
            considered[case.labels] = replace(entry, outcome="trained")
    # The same voxels may lie in two artefacts, of two versions of the code.
    best, replaced = best_of_each(good, lambda read: read[1].volume_sha256, lambda read: read[0])
    for labels, winner in replaced.items():
        considered[labels] = replace(considered[labels], outcome="superseded", reason=f"by {winner}")
    return best, considered


def _examined(
    workspace: Workspace, case: NightCase, base: Sequence[CaseRecord]
) -> tuple[CaseRecord | None, str]:
    """The record of a case that can train, or None and why it cannot."""
    origin = {"volume": case.volume, "labels": case.labels}
    if case.approval is not None:
        origin["approval"] = case.approval
    volume, labels = paths_of(workspace, case.volume, case.labels)
    try:
        # Of all files: a missing piece of a Zarr array would read as zeros.
        artefact_of(workspace, "volumes", case.volume)
        artefact_of(workspace, "labels", case.labels)
        given = TrainingCase(BY_CONTENT, volume, labels, case.source, case.scan, origin)
        good, bad = sort_out([given], LABEL_NAMES)
        if not good:
            return None, bad[str(volume)].replace(f"case {volume}: ", "").replace(str(volume), case.volume)
        (record,) = good
        if case.checksum is not None and record.labels_sha256 != case.checksum:
            return None, "its labels are not those that the decision was made on"
        others = [other for other in base if other.volume_sha256 != record.volume_sha256]
        check_cases([*others, record], {})  # every class need not be in these
    except (OSError, MemoryError):
        raise  # the machine's fault, not the labels'
    except Exception as error:  # Zarr and its codecs have exceptions of their own for damaged pieces
        return None, str(error) if isinstance(error, TomoforgeError) else f"it cannot be read: {error!r}"
    return record, ""


def _matched(
    workspace: Workspace, plan: NightPlan, taken: Sequence[NightCase], settings: NightSettings
) -> NightPlan:
    """The plan with the forging matched to the newest scan among the new cases."""
    scans = sorted({case.scan for case in taken}, key=lambda key: (made_at(workspace, "scans", key), key))
    scan, pixel_size = scans[-1], pixel_size_of(workspace, scans[-1])
    grid = fitting_grid(settings.grid, pixel_size)
    if grid != settings.grid:
        say(f"forged samples get {grid} voxels a side, so that the pixel of {scan} shows a whole one")
    optics, warnings = matching_optics(workspace, scan, settings.optics, grid)
    seed, training = component_seed(settings.seed, "night", plan.number), settings.training
    if training.configuration is None:  # a preset's own need not be that of the network to go on with
        model = read_model(workspace.path(find_model(workspace, str(plan.champion))) / MODEL)
        training = training.model_copy(update={"configuration": model.configuration})
    # Settings that cannot work must fail before anything is kept.
    material_mu(optics)
    plan_forging(settings.forging, grid * pixel_size)
    training_settings(training, seed)
    matched = settings.model_copy(update={"grid": grid, "optics": optics, "seed": seed, "training": training})
    return replace(
        plan,
        settings=matched.model_dump(mode="json"),
        scan=scan,
        warnings=(*plan.warnings, *warnings),
    )


# --- the night ------------------------------------------------------------------------------------------


def settings_of(workspace: Workspace, plan: NightPlan) -> NightSettings:
    """The settings that a night was planned with, whatever those of this call are."""
    settings = parse_settings(NightSettings, plan.settings)
    return settings.model_copy(update={"optics": calibrated(workspace, settings.optics)})


def voxel_size_um_of(workspace: Workspace, plan: NightPlan) -> float:
    """Voxel [µm] of the forged samples: the pixel of the scan that they are matched to."""
    assert plan.scan is not None
    return m_to_um(pixel_size_of(workspace, plan.scan))


@task(name="build-night-dataset", **OPTIONS)
def build_night_dataset(
    workspace: Workspace, plan: NightPlan, volumes: Sequence[Artefact], labels: Sequence[Artefact]
) -> Artefact:
    """The data set of a night: what was there, the new cases, and forged ``volumes`` with ``labels``; a version that
    grew from the last night's: kind ``datasets``."""
    assert plan.dataset is not None
    versions, new = versions_of(workspace), [placed(workspace, record) for record in plan.cases]
    forged = _forged(workspace, plan, volumes, labels)
    last = versions.read(plan.parent).cases if plan.parent is not None else ()
    taken = {record.volume_sha256 for record in (*last, *new)}
    besides = [
        record
        for record in dataset_records(workspace, plan.dataset)
        if record.volume_sha256 not in taken and record.content not in plan.drop
    ]
    added = [*besides, *new, *forged]
    if plan.parent is None:
        version = versions.create(added, LABEL_NAMES, holdout=plan.holdout)
    else:
        dropped = {record.content for record in last} & set(plan.drop)
        version = versions.grow(plan.parent, added, holdout=plan.holdout, drop=dropped)
    say(f"{plan.name}: {len(version.cases)} cases, {len(new)} of them new, {len(forged)} forged tonight")
    inputs: dict[str, Artefact | str] = {}
    for n, record in enumerate(version.cases):
        inputs[f"volume_{n}"] = artefact_of(workspace, "volumes", record.origin["volume"])
        inputs[f"labels_{n}"] = artefact_of(workspace, "labels", record.origin["labels"])

    def build(folder: Path) -> None:
        home = workspace.folder("datasets") / folder.name / DATASET
        write_version(version, folder / DATASET, holdout=plan.holdout, location=home)

    return produce(
        workspace,
        "datasets",
        "dataset",
        parameters={"classes": LABEL_NAMES, "version": version.key},
        inputs=inputs,
        packages=("segmentation",),
        build=build,
    )


def _forged(
    workspace: Workspace, plan: NightPlan, volumes: Sequence[Artefact], labels: Sequence[Artefact]
) -> list[CaseRecord]:
    """The night's forged cases; one that shows nothing is left out."""
    cases = []
    for volume, truth in zip(volumes, labels, strict=True):
        origin = {"volume": volume.key, "labels": truth.key, NIGHT: plan.number}
        paths = (workspace.root / volume.path / VOLUME, workspace.root / truth.path / LABELS)
        cases.append(TrainingCase(BY_CONTENT, *paths, origin=origin))
    good, bad = sort_out(cases, LABEL_NAMES)
    for reason in bad.values():
        say(f"a forged sample is left out: {reason}")
    return good


def version_of(workspace: Workspace, dataset: Artefact) -> str:
    """Key of the version that a night's data set was written from."""
    return str(read_dataset_record(workspace.path(dataset) / DATASET)["version"])


def why(plan: NightPlan) -> str:
    """What the registry's audit is told of a night's model."""
    return f"{plan.name}: {len(plan.cases)} new labelled volumes"


def decision_on(workspace: Workspace, plan: NightPlan, model: str) -> AuditRow | None:
    """What was decided on a model in this night, None if nothing was yet."""
    rows = [
        row
        for row in open_registry(workspace).audit()
        if row.sequence > plan.audit
        and row.action in ("promote", "refuse")
        and (row.after, row.who) == (model, BY)
    ]
    return rows[-1] if rows else None
