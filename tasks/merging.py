"""What a correction does to the data: merged by every source of labels, side by side; and the corrected files."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import task

from tasks.absorption import read_factors
from tasks.artefacts import OPTIONS, produce
from tasks.cluster import Compute
from tasks.reflections import ABOUT, FACTORS, REFLECTIONS, ReflectionSet, read_reflection_set
from tomoforge.absorption.dials import read_reflections, with_analytical_correction, write_reflections
from tomoforge.absorption.frames import frame_statistics
from tomoforge.absorption.merging import MergingStatistics, merging_statistics
from tomoforge.absorption.merging_pictures import frame_picture, shell_picture
from tomoforge.absorption.merging_tables import compare_sources, comparison_markdown
from tomoforge.absorption.mtz import write_corrected_mtz
from tomoforge.absorption.observations import write_observations
from tomoforge.absorption.twin_scores import score_correction, score_table
from tomoforge.errors import InputError
from tomoforge.storage import (
    Artefact,
    Workspace,
    file_checksum,
    replacing,
    write_bytes_atomic,
    write_json_atomic,
)

TABLE, SHELLS, SCORES = "merging.parquet", "shells.parquet", "scores.parquet"
STATISTICS, FRAMES_PICTURE, SHELLS_PICTURE = "merging.json", "frames.png", "shells.png"
UNCORRECTED, FREE = "not corrected", "free of absorption"
_SHELLS = 10
_LEAST_A_WEDGE = 10  # reflections: narrower wedges of rotation say nothing
_LEAST_A_SHELL = 20  # unique reflections: fewer shells for small data sets
_MOST_SOURCES = 6  # that a picture tells apart
_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Merged:
    """The tables and pictures of ``merge``. overall : a row a statistic, a column a source and its difference from the
    first; scores : against the twin's truth, None for files."""

    overall: pd.DataFrame
    shells: pd.DataFrame
    scores: pd.DataFrame | None
    captions: dict[str, str]
    pictures: dict[str, bytes]
    lines: tuple[str, ...]


@task(name="merge", **OPTIONS)
def merge(
    compute: Compute, workspace: Workspace, reflections: Artefact, factors: Mapping[str, Artefact]
) -> Artefact:
    """Merging statistics of the reflections by every source of labels, the first being what the others are compared
    with, and without correction; of a twin also free of absorption."""
    sources = {name: str(workspace.path(item)) for name, item in factors.items()}

    def build(folder: Path) -> None:
        place = str(workspace.path(reflections))
        compute.run(_merge_piece, place, sources, str(folder), timeout_s=_TIMEOUT_S)

    return produce(
        workspace,
        "corrections",
        "merging",
        parameters={"sources": list(factors), "shells": _SHELLS, "layout": 1},
        inputs={"reflections": reflections, **{f"factors_{name}": item for name, item in factors.items()}},
        packages=("absorption",),
        build=build,
    )


def _merge_piece(reflections_folder: str, sources: dict[str, str], folder: str) -> None:
    place = Path(reflections_folder)
    about = json.loads((place / ABOUT).read_text())
    table = pd.read_parquet(place / REFLECTIONS)
    cell, group = tuple(about["cell"]), about["space_group"]
    factors = {
        name: applied_factors(pd.read_parquet(Path(source) / FACTORS)) for name, source in sources.items()
    }
    scaled = table
    if about["twin"]:  # what is judged is absorption, not a scaling program
        scale = table["frame_scale"].to_numpy()
        scaled = table.assign(intensity=table["intensity"] / scale, sigma=table["sigma"] / scale)
    data = {name: scaled.assign(absorption_factor=values) for name, values in factors.items()}
    data[UNCORRECTED] = scaled.assign(absorption_factor=1.0)
    if about["twin"]:
        free = {"intensity": table["free_intensity"] / scale, "sigma": table["free_sigma"] / scale}
        data[FREE] = table.assign(**free, absorption_factor=1.0)
    unique = len(np.unique(np.sort(np.abs(table[["h", "k", "l"]].to_numpy()), axis=1), axis=0))
    shells = int(np.clip(unique // _LEAST_A_SHELL, 1, _SHELLS))
    merged = {
        name: merging_statistics(rows, cell, group, anomalous=True, corrected=True, shells=shells)
        for name, rows in data.items()
    }
    _store(Path(folder), merged)
    shown = dict(list(data.items())[:_MOST_SOURCES])
    if "angle_rad" in table:
        wedge = _wedges(table["angle_rad"].to_numpy())
        frames = {
            name: frame_statistics(
                rows.assign(wedge=wedge), cell, group, corrected=True, frame_column="wedge"
            )
            for name, rows in shown.items()
        }
        write_bytes_atomic(Path(folder) / FRAMES_PICTURE, frame_picture(frames))
    if about["twin"]:
        scores = {name: score_correction(table, values, cell, group) for name, values in factors.items()}
        with replacing(Path(folder) / SCORES) as temporary:
            score_table(scores).to_parquet(temporary, index=False)


def _wedges(angle: np.ndarray) -> np.ndarray:
    """Number of the wedge of whole degrees that each angle [rad] lies in, wide enough to hold some reflections each."""
    degrees = np.degrees(angle)
    span = float(np.ptp(degrees))
    width = max(1.0, np.ceil(span * _LEAST_A_WEDGE / max(len(angle), 1)))
    return (np.floor(degrees / width) * width).astype(np.int64)


def _store(folder: Path, merged: Mapping[str, MergingStatistics]) -> None:
    overall = compare_sources(merged)
    shells = pd.concat(
        {name: statistics.shells.reset_index() for name, statistics in merged.items()}, names=["source"]
    ).reset_index(level=0)
    for name, frame in ((TABLE, overall.reset_index()), (SHELLS, shells)):
        frame.attrs = {}
        with replacing(folder / name) as temporary:
            frame.to_parquet(temporary, index=False)
    shown = dict(list(merged.items())[:_MOST_SOURCES])
    write_bytes_atomic(folder / SHELLS_PICTURE, shell_picture(shown))
    overall = compare_sources(merged)
    write_json_atomic(
        folder / STATISTICS,
        {
            "caption": overall.attrs["caption"],
            "markdown": comparison_markdown(overall),
            "sources": {name: statistics.as_dict() for name, statistics in merged.items()},
        },
    )


def read_merged(workspace: Workspace, merged: Artefact) -> Merged:
    """What ``merge`` made."""
    folder = workspace.path(merged)
    stored = json.loads((folder / STATISTICS).read_text())
    overall = pd.read_parquet(folder / TABLE)
    pictures = {
        name: (folder / file).read_bytes()
        for name, file in (("frames", FRAMES_PICTURE), ("shells", SHELLS_PICTURE))
        if (folder / file).exists()
    }
    scores = pd.read_parquet(folder / SCORES) if (folder / SCORES).exists() else None
    return Merged(
        overall,
        pd.read_parquet(folder / SHELLS),
        scores,
        {"merging": stored["caption"]},
        pictures,
        # In the order they were given; JSON has them sorted.
        tuple(_lines({name: stored["sources"][name] for name in overall if name in stored["sources"]})),
    )


def _lines(sources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [f"{'labels':20} {'Rmeas':>8} {'⟨I/σ⟩':>8} {'CC½':>8} {'anom. CC':>9}"]
    for name, statistics in sources.items():
        row = statistics["overall"]
        lines.append(
            f"{name:20} {_shown(row['r_meas'], 4):>8} {_shown(row['i_over_sigma'], 2):>8} "
            f"{_shown(row['cc_half'], 4):>8} {_shown(row['anomalous_cc'], 3):>9}"
        )
    return lines


def _shown(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"


def applied_factors(factors: pd.DataFrame) -> np.ndarray:
    """What intensities are divided by, (reflection,): A, under a small beam times the share of the crystal it lit."""
    lit = factors["illuminated_fraction"].to_numpy() if "illuminated_fraction" in factors else 1.0
    return factors["absorption_factor"].to_numpy() * lit


@task(name="write-corrected", **OPTIONS)
def write_corrected(
    workspace: Workspace,
    reflections: Artefact,
    factors: Artefact,
    source: str | Path | None,
    experiment: str | Path | None = None,
) -> Artefact:
    """Corrected reflections as a table, lines for a CIF, and the diffraction file ``source`` once more: a ``.refl``
    with the column that dials.scale applies, its ``experiment`` beside it, an MTZ with its intensities divided."""
    beside = experiment if source is not None and Path(source).suffix == ".refl" else None
    found, traced = read_reflection_set(workspace, reflections), read_factors(workspace, factors)

    def build(folder: Path) -> None:
        write_observations(folder / "corrected.csv", _corrected(found, traced))
        a = traced["absorption_factor"]
        (folder / "absorption.cif").write_text(
            "_exptl_absorpt_correction_type  numerical\n"
            f"_exptl_absorpt_correction_T_min {a.min():.4f}\n_exptl_absorpt_correction_T_max {a.max():.4f}\n"
            "_exptl_absorpt_process_details  'tomoforge: ray-traced through a labelled tomogram'\n"
        )
        if source is not None:
            _write_source(Path(source), folder, traced)
        if beside is not None:
            shutil.copyfile(beside, folder / Path(beside).name)

    return produce(
        workspace,
        "corrections",
        "corrected",
        parameters={
            "layout": 2,
            "source": None if source is None else Path(source).name,
            "experiment": None if beside is None else Path(beside).name,
        },
        inputs={
            "reflections": reflections,
            "factors": factors,
            **({} if source is None else {"file": file_checksum(source)}),
            **({} if beside is None else {"experiment": file_checksum(beside)}),
        },
        packages=("absorption",),
        build=build,
    )


def _corrected(found: ReflectionSet, traced: pd.DataFrame) -> pd.DataFrame:
    applied = applied_factors(traced)
    columns = [name for name in found.table.columns if not name.startswith(("in_", "out_"))]
    return found.table[columns].assign(
        intensity=found.table["intensity"] / applied,
        sigma=found.table["sigma"] / applied,
        absorption_factor=np.minimum(applied, 1.0),
        standard_error=traced["standard_error"],
    )


def _write_source(source: Path, folder: Path, traced: pd.DataFrame) -> None:
    rows, applied = traced["row"].to_numpy(), applied_factors(traced)
    if source.suffix == ".refl":
        table = with_analytical_correction(read_reflections(source), rows, applied)
        write_reflections(folder / source.name, table)
    elif source.suffix == ".mtz":
        write_corrected_mtz(folder / source.name, source, rows, applied)
    elif source.suffix not in (".csv", ".parquet"):
        raise InputError(f"reflections must be a .refl, .mtz, .csv or .parquet file, got {source}")
