"""Forge one labelled sample: recipe → meshes (Blender) → labels."""

from pathlib import Path
from typing import Any

import numpy as np
from prefect import task

from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.progress import say
from tomoforge.errors import StageError
from tomoforge.samples.forge import forge_sample as forge
from tomoforge.samples.recipe import draw_recipe
from tomoforge.seeds import component_seed
from tomoforge.storage import Artefact, Workspace, write_json_atomic
from tomoforge.volumes import LABEL_NAMES, write_labels

LABELS = "labels.ome.zarr"
RECORD = "record.json"
_ATTEMPTS = 5  # seeds tried for one sample before giving up
_TIMEOUT_S = 300.0  # one Blender run


@task(name="forge-sample", **OPTIONS)
def forge_sample(
    compute: Compute, workspace: Workspace, *, seed: int, index: int, grid: int, voxel_size: float
) -> Artefact:
    """Labels of sample ``index`` of the set ``seed``: kind ``labels``."""

    def build(folder: Path) -> None:
        record = compute.run(
            _forge_piece, seed, index, grid, voxel_size, str(folder), timeout_s=_ATTEMPTS * _TIMEOUT_S
        )
        say(f"sample {index}: {record['title']}")

    return produce(
        workspace,
        "labels",
        "sample",
        parameters={"seed": seed, "index": index, "grid": grid, "voxel_size_m": voxel_size},
        inputs={},
        packages=("samples",),
        build=build,
    )


def _forge_piece(seed: int, index: int, grid: int, voxel_size: float, folder: str) -> dict[str, Any]:
    rejected: list[dict[str, Any]] = []
    for attempt in range(_ATTEMPTS):
        sample_seed = component_seed(seed, "sample", index, attempt)
        recipe = draw_recipe(sample_seed, field_of_view=grid * voxel_size)
        try:
            forged = forge(recipe, grid, voxel_size, timeout_s=_TIMEOUT_S)
        except StageError as error:
            rejected.append({"seed": sample_seed, "reason": str(error)})
            continue
        counts = np.bincount(forged.labels.ravel(), minlength=len(LABEL_NAMES))
        record = {
            "title": f"{recipe.habit.name} crystal, {recipe.mount.kind} loop",
            "recipe": recipe.to_json(),
            # How long it took is not part of the result: the same seed gives the same bytes.
            "forging": {key: value for key, value in forged.record.items() if key != "seconds"},
            "rejected": rejected,
            "fractions": {name: float(counts[value] / counts.sum()) for name, value in LABEL_NAMES.items()},
        }
        write_labels(Path(folder) / LABELS, forged.labels, voxel_size)
        write_json_atomic(Path(folder) / RECORD, record)
        return record
    reasons = "\n".join(f"  seed {r['seed']}: {r['reason']}" for r in rejected)
    raise StageError(f"sample {index} of set {seed} could not be forged in {_ATTEMPTS} tries:\n{reasons}")
