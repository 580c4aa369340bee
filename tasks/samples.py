"""Forge labelled samples: recipe → meshes → liquor (Blender) → labels, each with its picture and its record."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import task

from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.progress import say
from tomoforge.config import ForgingSettings
from tomoforge.errors import InputError, SampleRejectedError, StageError, WorkerDiedError
from tomoforge.samples.engines import Engine, find_engine
from tomoforge.samples.forge import ForgedSample
from tomoforge.samples.forge import forge_sample as forge
from tomoforge.samples.gallery import Tile, sample_tile, write_tile
from tomoforge.samples.recipe import Variety, draw_recipe
from tomoforge.seeds import component_seed
from tomoforge.storage import Artefact, Workspace, write_json_atomic
from tomoforge.volumes import write_labels

LABELS = "labels.ome.zarr"
RECORD = "record.json"
TILE = "view.png"
PROTEIN = "protein_crystal"
_ATTEMPTS = 5  # seeds tried for one sample before giving up
_GOES = 2  # how often a seed is taken whose Blender was killed, crashed or hung
_TILE_SIZE = 240  # pixels
_VIEW = (0.45, 0.15)  # azimuth from the loop's face, elevation [rad]
_WHOLE_BOX = 0.62  # zoom that shows the corners of a full field, seen obliquely
_OTHER_WORK_S = 600.0  # allowed for a try beside Blender


@dataclass(frozen=True)
class ForgingPlan:
    """How each sample of a set is forged: family, what may be drawn, by which engine."""

    family: str
    variety: Variety
    engine: Engine
    timeout_s: float

    def key(self) -> dict[str, Any]:
        """What decides the bytes: neither the place of the executable nor the patience with it."""
        return {"family": self.family, "variety": asdict(self.variety), "engine": self.engine.title}


def plan_forging(
    settings: ForgingSettings, field_of_view: float | None = None, family: str = PROTEIN
) -> ForgingPlan:
    """The plan that ``settings`` ask for, its engine found and tried; for fields of ``field_of_view`` [m].

    Raises InputError for an unknown habit or mount and for a field that holds no sample, MissingComponentError where
    the engine is not there.
    """
    drawn = settings.model_dump(exclude={"engine", "blender_timeout_s"})
    variety = Variety(**drawn)
    draw_recipe(0, family, field_of_view, variety)
    # Only the liquor of protein samples needs one.
    engine = find_engine(settings.engine if family == PROTEIN else "lens")
    return ForgingPlan(family, variety, engine, settings.blender_timeout_s)


@task(name="forge-sample", **{**OPTIONS, "retries": 0})  # it tries other seeds itself
def forge_sample(
    compute: Compute,
    workspace: Workspace,
    *,
    seed: int,
    index: int,
    grid: int,
    voxel_size: float,
    plan: ForgingPlan,
) -> Artefact:
    """Labels of sample ``index`` of the set ``seed``: kind ``labels``."""

    def build(folder: Path) -> None:
        longest = _ATTEMPTS * _GOES * (plan.timeout_s + _OTHER_WORK_S)
        record = compute.run(
            _forge_piece, plan, seed, index, grid, voxel_size, str(folder), timeout_s=longest
        )
        say(f"sample {index}: {record['title']}")

    return produce(
        workspace,
        "labels",
        "sample",
        parameters={**plan.key(), "seed": seed, "index": index, "grid": grid, "voxel_size_m": voxel_size},
        inputs={},
        packages=("samples",),
        build=build,
    )


def _forge_piece(
    plan: ForgingPlan, seed: int, index: int, grid: int, voxel_size: float, folder: str
) -> dict[str, Any]:
    rejected: list[dict[str, Any]] = []
    for attempt in range(_ATTEMPTS):
        sample_seed = component_seed(seed, "sample", index, attempt)
        try:
            recipe = draw_recipe(sample_seed, plan.family, grid * voxel_size, plan.variety)
        except InputError as error:  # fields at the limit suit some mounts only
            rejected.append({"seed": sample_seed, "reason": "field does not suit", "message": str(error)})
            continue
        for _ in range(_GOES):
            try:
                forged = forge(recipe, grid, voxel_size, engine=plan.engine, timeout_s=plan.timeout_s)
            except WorkerDiedError as error:  # an accident: the same seed once more
                rejected.append({"seed": sample_seed, "reason": "Blender died", "message": str(error)})
                continue
            except StageError as error:
                reason = error.reason if isinstance(error, SampleRejectedError) else "Blender failed"
                rejected.append({"seed": sample_seed, "reason": reason, "message": str(error)})
                break
            # How long it took is not part of the result: the same seed gives the same bytes.
            forging = {key: value for key, value in forged.record.items() if key != "cpu_seconds"}
            record: dict[str, Any] = {
                "title": recipe.title,
                "recipe": recipe.to_json(),
                "names": dict(forged.names),
                "forging": forging,
                "rejected": rejected,
            }
            tile = _tile(forged, voxel_size)
            record["tile_pixel_size"] = tile.pixel_size
            write_labels(Path(folder) / LABELS, forged.labels, voxel_size, forged.names)
            write_tile(Path(folder) / TILE, tile)
            write_json_atomic(Path(folder) / RECORD, record)
            return record
    reasons = "\n".join(f"  seed {r['seed']}: {r['reason']}: {r['message']}" for r in rejected)
    raise StageError(f"sample {index} of set {seed} could not be forged in {_ATTEMPTS} tries:\n{reasons}")


def _tile(forged: ForgedSample, voxel_size: float) -> Tile:
    """The sample as a person would look at it: nearly onto the loop's face, or obliquely onto a box of grains."""
    view: str | tuple[float, float] = "oblique"
    zoom = _WHOLE_BOX
    if "azimuth" in forged.record:
        view, zoom = (forged.record["azimuth"] + _VIEW[0], _VIEW[1]), 1.0
    return sample_tile(
        forged.labels, voxel_size, "", view=view, size=_TILE_SIZE, zoom=zoom, names=forged.names
    )
