"""What doubt about the labels does to absorption factors: labels drawn from a model's probabilities, their spread."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from prefect import task

from tasks.absorption import read_factors
from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.predictions import SOFTMAX
from tasks.reflections import FACTORS
from tasks.samples import LABELS
from tomoforge.absorption.ensemble import softmax_label_volumes
from tomoforge.config import TracingSettings
from tomoforge.errors import InputError
from tomoforge.seeds import component_seed
from tomoforge.segmentation.postprocess import clean_labels
from tomoforge.storage import Artefact, Workspace, replacing
from tomoforge.units import um_to_m
from tomoforge.volumes import LABEL_NAMES, SLAB, open_level, read_label_names, read_voxel_size, write_labels

_TIMEOUT_S = 3600.0


def check_drawable(workspace: Workspace, labels: Artefact) -> None:
    """Raises InputError unless the labels were predicted and have kept the probability of every class."""
    if (workspace.path(labels) / SOFTMAX).is_dir():
        return
    recorded = workspace.read_provenance(labels)
    if recorded["stage"] != "segmentation":
        raise InputError(
            f"segmentation_draws must be 0 for labels {labels.key}: they come from {recorded['stage']}, no model's "
            "probabilities stand behind them; give further labels of the sample with --ensemble"
        )
    volume, model = (recorded["inputs"][role]["key"] for role in ("volume", "model"))
    raise InputError(
        f"segmentation_draws needs the probability of every class, labels {labels.key} have kept their uncertainty "
        "alone, which does not say what else a voxel may be; run segment_scan "
        f"--volume {volume} --model {model} --prediction.softmax true and take the labels that it prints"
    )


@task(name="draw-labels", **OPTIONS)
def draw_labels(
    compute: Compute,
    workspace: Workspace,
    labels: Artefact,
    *,
    number: int,
    tracing: TracingSettings,
    seed: int,
) -> Artefact:
    """Draw ``number`` of label volumes that the model holds possible, cleaned as the labels were: kind ``corrections``.

    Raises InputError where nothing of the draw is crystal.
    """
    check_drawable(workspace, labels)
    source = str(workspace.path(labels))
    clean = bool(workspace.read_provenance(labels)["parameters"].get("clean", False))
    length = tracing.segmentation_length_um

    def build(folder: Path) -> None:
        compute.run(_draw_piece, source, length, clean, seed, number, str(folder), timeout_s=_TIMEOUT_S)

    return produce(
        workspace,
        "corrections",
        "drawn-labels",
        parameters={"number": number, "length_um": length, "clean": clean, "seed": seed},
        inputs={"labels": labels},
        packages=("absorption", "segmentation"),
        build=build,
    )


def _draw_piece(
    source: str, length_um: float | None, clean: bool, seed: int, number: int, folder: str
) -> None:
    place = Path(source)
    names, voxel_size = read_label_names(place / LABELS), read_voxel_size(place / LABELS)
    length = np.inf if length_um is None else um_to_m(length_um) / voxel_size
    ordered = sorted(names, key=lambda name: names[name])
    shares = [place / SOFTMAX / f"{name}.ome.zarr" for name in ordered]
    drawn = _drawn(shares, length, component_seed(seed, "segmentation.draws", number))
    found = np.array([names[name] for name in ordered], dtype=np.uint8)[drawn]
    if clean:
        found = clean_labels(found, names)
    if not (found == LABEL_NAMES["crystal"]).any():
        raise InputError(
            f"draw {number} of the labels must hold crystal, got none: the model is not sure that there is any; train "
            "it longer, or take segmentation_draws 0"
        )
    write_labels(Path(folder) / LABELS, found, voxel_size, names)


def _drawn(shares: Sequence[Path], length: float, seed: int) -> np.ndarray:
    """Numbers of the classes whose probabilities are stored in ``shares``: (z, y, x) uint8."""
    stored = [open_level(path) for path in shares]
    # Where one number is drawn for the whole sample, slabs need not be in memory together.
    step = SLAB if np.isinf(length) else stored[0].shape[0]
    slabs = []
    for start in range(0, stored[0].shape[0], step):
        probabilities = np.stack([np.asarray(share[start : start + step]) for share in stored])
        probabilities /= probabilities.sum(axis=0)  # they are kept in steps of 1/1024
        slabs.append(next(softmax_label_volumes(probabilities, 1, correlation_length=length, seed=seed)))
    return np.concatenate(slabs)


@task(name="segmentation-error", **OPTIONS)
def with_segmentation_error(
    workspace: Workspace, factors: Artefact, members: Sequence[Artefact], *, drawn: bool
) -> Artefact:
    """The factors once more with what the labels' doubt adds to their standard errors: kind ``corrections``.

    members : factors through other labels of the same sample. Of labels that people or models gave (``drawn`` False)
    the error is their standard deviation, the factors' own among them. Of draws it is their root mean square distance
    from the factors: the truth is taken to be one more draw, and the factors are not the draws' mean.
    """

    def build(folder: Path) -> None:
        table = read_factors(workspace, factors)
        a = table["absorption_factor"].to_numpy()
        others = np.stack([read_factors(workspace, item)["absorption_factor"] for item in members])
        error = segmentation_error(a, others, drawn=drawn)
        with replacing(folder / FACTORS) as temporary:
            _with_error(table, error).to_parquet(temporary, index=False)

    return produce(
        workspace,
        "corrections",
        "factors-with-segmentation-error",
        parameters={**workspace.read_provenance(factors)["parameters"], "drawn": drawn},
        inputs={"factors": factors, **{f"member_{n}": item for n, item in enumerate(members)}},
        packages=("absorption",),
        build=build,
    )


def segmentation_error(a: np.ndarray, others: np.ndarray, *, drawn: bool) -> np.ndarray:
    """Standard error (reflection,) of factors ``a`` (reflection,) by ``others`` (volume, reflection)."""
    if drawn:
        return np.sqrt(np.mean((others - a) ** 2, axis=0))
    return np.std([a, *others], axis=0, ddof=1)


def _with_error(table: pd.DataFrame, error: np.ndarray) -> pd.DataFrame:
    return table.assign(segmentation_error=error, standard_error=np.hypot(table["standard_error"], error))
