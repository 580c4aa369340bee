"""A correction in a page: factors and their errors, what they do to the data, and what to distrust."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from prefect import task

from tasks.absorption import read_factors
from tasks.absorption_surface import read_surface
from tasks.artefacts import OPTIONS
from tasks.attenuation import Attenuation
from tasks.merging import FREE, UNCORRECTED, Merged, read_merged
from tasks.publishing import publish_version, recorded_of
from tasks.reflections import read_reflection_set
from tomoforge.absorption.compare import FactorComparison, compare_factors
from tomoforge.absorption.orientation import Orientation
from tomoforge.absorption.pictures import factor_histograms
from tomoforge.results import Picture, Table
from tomoforge.storage import Artefact, Workspace

SUBJECT = "labels"  # the source that is corrected by; others are there to compare with


@dataclass(frozen=True)
class Correction:
    """reflections : artefact with intensities; factors : by source of labels, the reference first, SUBJECT last, its
    standard errors with what ``spread`` adds; spread : factors by further labels of the subject; merged : artefact of
    the statistics; mu, orientation : traced with; surface : artefact of A over the sphere; drawn : whether the further
    labels were drawn from the model's probabilities."""

    reflections: Artefact
    factors: dict[str, Artefact]
    spread: tuple[Artefact, ...]
    merged: Artefact
    mu: Attenuation
    orientation: Orientation
    surface: Artefact | None = None
    drawn: bool = False

    @property
    def reference(self) -> str | None:
        """The source that the subject is compared with, None where it is alone."""
        first = next(iter(self.factors))
        return first if first != SUBJECT else None


@dataclass(frozen=True)
class Shown:
    """identifier : of what was published; lines : for a person at the terminal."""

    identifier: str
    lines: tuple[str, ...]


def compared_with(workspace: Workspace, correction: Correction, source: str) -> FactorComparison:
    """The subject's factors against those by the labels of ``source``."""
    return compare_factors(_a(workspace, correction, source), _a(workspace, correction, SUBJECT))


def comparison_table(compared: FactorComparison) -> pd.DataFrame:
    """A comparison as rows that a person reads."""
    return pd.DataFrame(
        [
            ("mean |ΔA|/A", compared.mean_absolute),
            ("largest |ΔA|/A", compared.largest),
            ("mean ΔA/A", compared.mean_signed),
            ("rms ΔA/A", compared.rms),
        ],
        columns=["quantity", "relative_difference"],
    )


@task(name="publish-absorption", **OPTIONS)
def publish_correction(
    workspace: Workspace,
    correction: Correction,
    *,
    name: str,
    sources: Mapping[str, str] | None = None,
    corrected: Artefact | None = None,
) -> Shown:
    """Publish a correction: kind ``absorption``. corrected : artefact of files for download, whose paths within the
    workspace go into the manifest's provenance as ``downloads``."""
    table = read_factors(workspace, correction.factors[SUBJECT])
    merged = read_merged(workspace, correction.merged)
    about = read_reflection_set(workspace, correction.reflections)
    a, error = table["absorption_factor"].to_numpy(), table["standard_error"].to_numpy()
    summary: dict[str, Any] = {
        "reflections": len(table),
        "data": about.source,
        "transmission_minimum": float(a.min()),
        "transmission_maximum": float(a.max()),
        "median_standard_error_percent": 100 * float(np.median(error / a)),
        **_segmentation_summary(correction, table),
        "orientation": correction.orientation.name,
        **{f"mu_{material}_per_m": value for material, value in correction.mu.mu.items()},
        **_merging_summary(merged),
    }
    tables = _tables(merged, correction, table)
    if correction.reference is not None:
        by_source = _by_source(workspace, correction, table)
        tables["factors_by_source"] = Table(by_source, "Absorption factor by every source of labels.")
    pictures = _pictures(workspace, merged, correction)
    warnings = list(correction.mu.warnings)
    if correction.surface is not None:
        surface, why_not = read_surface(workspace, correction.surface)
        pictures |= {} if surface is None else {"surface": surface}
        warnings += [] if why_not is None else [why_not]
    lines = [f"reflections  {len(table)} of {about.source}, A {a.min():.3f} … {a.max():.3f}", *merged.lines]
    if correction.spread:
        lines.append(
            f"segmentation error  {summary['median_segmentation_error_percent']:.2f} % of A in the median, from "
            f"{summary['segmentation_members']}"
        )
    for source in correction.factors:
        if source == SUBJECT:
            continue
        compared = compared_with(workspace, correction, source)
        if source == correction.reference:
            summary |= {
                "mean_relative_difference": compared.mean_absolute,
                "largest_relative_difference": compared.largest,
            }
        tables[f"comparison_{source}"] = Table(comparison_table(compared), f"Against the labels “{source}”.")
        lines.append(
            f"against {source}: mean |ΔA|/A {compared.mean_absolute:.2%}, largest {compared.largest:.2%}"
        )
    identifier = publish_version(
        workspace,
        "absorption",
        correction.factors[SUBJECT].key,
        provenance={
            **recorded_of(workspace, correction.factors[SUBJECT]),
            **({} if corrected is None else {"downloads": downloads(workspace, corrected)}),
        },
        title=f"Absorption correction of {name}",
        summary=summary,
        pictures=pictures,
        tables=tables,
        warnings=warnings,
        sources=sources,
    )
    return Shown(identifier, tuple(lines))


def downloads(workspace: Workspace, artefact: Artefact) -> dict[str, Any]:
    """The files of an artefact for a manifest: its kind, key and path in the workspace, and of each file the path in
    the workspace, bytes and SHA-256."""
    files = workspace.read_provenance(artefact)["files"]
    return {
        "kind": artefact.kind,
        "key": artefact.key,
        "path": artefact.path,
        "files": {name: {"path": f"{artefact.path}/{name}", **entry} for name, entry in files.items()},
    }


def _segmentation_summary(correction: Correction, table: pd.DataFrame) -> dict[str, Any]:
    if not correction.spread:
        return {}
    relative = table["segmentation_error"] / table["absorption_factor"]
    count = len(correction.spread)
    return {
        "median_segmentation_error_percent": 100 * float(np.median(relative)),
        "segmentation_members": f"{count} draws from the class probabilities"
        if correction.drawn
        else f"{count} further labels",
    }


def _a(workspace: Workspace, correction: Correction, source: str) -> np.ndarray:
    return read_factors(workspace, correction.factors[source])["absorption_factor"].to_numpy()


def _by_source(workspace: Workspace, correction: Correction, table: pd.DataFrame) -> pd.DataFrame:
    """A column of factors for each source of labels, beside where each reflection was measured."""
    where = [name for name in ("rotation_deg", "spacing_angstrom") if name in table]
    return table[where].assign(**{source: _a(workspace, correction, source) for source in correction.factors})


def _merging_summary(merged: Merged) -> dict[str, float]:
    """Rmeas and I/σ by the subject's labels, without correction, and of a twin free of absorption."""
    overall = merged.overall.set_index("statistic")
    columns = {"corrected": SUBJECT, "uncorrected": UNCORRECTED, "free": FREE}
    return {
        f"{statistic}_{what}": float(overall.at[statistic, column])
        for statistic in ("r_meas", "i_over_sigma")
        for what, column in columns.items()
        if column in overall
    }


def _tables(merged: Merged, correction: Correction, factors: pd.DataFrame) -> dict[str, Table]:
    tables = {
        "merging": Table(merged.overall, merged.captions["merging"]),
        "shells": Table(merged.shells, "The same in shells of resolution."),
        "factors": Table(factors, _said_of_errors(correction)),
    }
    if merged.scores is not None:
        tables["scores"] = Table(
            merged.scores, "Against the twin's truth: residual of A after one scale, Rmeas, anomalous signal."
        )
    if len(correction.mu.compared):
        tables["mu"] = Table(correction.mu.compared, "µ of each material from every source, in pairs [1/m].")
    return tables


def _said_of_errors(correction: Correction) -> str:
    said = "Absorption factor of each reflection, with its standard error."
    if not correction.spread:
        return f"{said} What is wrong with the labels is not in it."
    if not correction.drawn:
        return f"{said} The labels' part is the spread between labels of the same sample."
    return (
        f"{said} The labels' part is by the model's own account of its doubt, and networks are surer than they should "
        "be: the least that it may be."
    )


def _pictures(workspace: Workspace, merged: Merged, correction: Correction) -> dict[str, Picture]:
    captions = {
        "frames": "Each frame's intensities against the merged ones, and its mean factor.",
        "shells": "Statistics by resolution.",
    }
    pictures = {name: Picture(png, captions[name]) for name, png in merged.pictures.items()}
    if correction.reference is not None:
        pictures["histogram"] = Picture(
            factor_histograms(
                _a(workspace, correction, correction.reference),
                _a(workspace, correction, SUBJECT),
                truth_name=f"{correction.reference} labels",
                predicted_name="labels corrected by",
            ),
            "Absorption factors by both labels, and their relative difference.",
        )
    for material, png in correction.mu.pictures.items():
        caption = f"µ of the {material} from rays that cross it alone."
        pictures[f"mu_{material}"] = Picture(png, caption)
    return pictures
