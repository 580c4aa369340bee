"""Pictures of merging statistics over resolution and over frames, as PNG bytes, equal for equal numbers."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tomoforge.absorption.merging import MergingStatistics
from tomoforge.absorption.merging_tables import LABELS
from tomoforge.errors import InputError
from tomoforge.pictures import png_bytes

# Okabe–Ito, dark enough on white; markers tell them apart without colour.
_STYLES = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#E69F00", "v", "-"),
    ("#56B4E9", "P", "--"),
)
SHELL_COLUMNS = ("completeness", "i_over_sigma", "r_meas", "r_pim", "cc_half", "anomalous_cc")


def shell_picture(
    sources: Mapping[str, MergingStatistics], columns: Sequence[str] = SHELL_COLUMNS, title: str = ""
) -> bytes:
    """Statistics over resolution, a panel for each column and a line for each source.

    sources : name → statistics; columns : of ``merging_definitions.COLUMNS``. The axis is 1/d², marked in Å.
    Returns PNG bytes. Raises InputError for no source, more than six, or an unknown column.
    """
    _check_sources(sources)
    unknown = [name for name in columns if name not in next(iter(sources.values())).shells.columns]
    if unknown or not columns:
        raise InputError(f"columns must be columns of the statistics, got {list(columns)}")
    across = min(3, len(columns))
    down = -(-len(columns) // across)
    figure = Figure(figsize=(3.6 * across, 2.7 * down + 0.7), dpi=110, layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, column in zip(panels, columns, strict=False):
        for (name, statistics), (colour, marker, line) in zip(sources.items(), _STYLES, strict=False):
            shells = statistics.shells
            middle = (shells["d_max_angstrom"] ** -2 + shells["d_min_angstrom"] ** -2) / 2
            style = {"color": colour, "marker": marker, "linestyle": line, "markersize": 4, "linewidth": 1.3}
            axes.plot(middle.to_numpy(), shells[column].to_numpy(), label=name, **style)
        axes.set_title(LABELS.get(column, column), fontsize="medium")
        if column.endswith("completeness"):
            axes.set_ylim(0, 1.04)  # a per cent must not look like a collapse
        _resolution_axis(axes, list(sources.values()))
    for axes in panels[len(columns) :]:
        axes.set_axis_off()
    _legend(figure, panels[0], len(sources))
    if title:
        figure.suptitle(title, fontsize="medium")
    return png_bytes(figure)


def frame_picture(sources: Mapping[str, pd.DataFrame], title: str = "") -> bytes:
    """Relative scale of each frame, and above it the mean absorption factor where a source has it.

    sources : name → table of ``frame_statistics``. Returns PNG bytes. Raises InputError for no source, more
    than six, or a table that ``frame_statistics`` did not make.
    """
    _check_sources(sources)
    for name, frames in sources.items():
        if "relative_scale" not in frames.columns:
            raise InputError(
                f"source {name!r} must be a table of frame_statistics, got {list(frames.columns)}"
            )
    with_factors = any("mean_absorption_factor" in frames.columns for frames in sources.values())
    rows = 2 if with_factors else 1
    figure = Figure(figsize=(8.5, 2.6 * rows + 0.6), dpi=110, layout="constrained")
    panels = figure.subplots(rows, 1, squeeze=False, sharex=True)[:, 0]
    for (name, frames), (colour, _, line) in zip(sources.items(), _STYLES, strict=False):
        x = frames.index.to_numpy()
        style = {"color": colour, "linestyle": line, "linewidth": 1.4}
        spread = 100 * _spread(frames)
        panels[-1].plot(x, frames["relative_scale"].to_numpy(), label=f"{name} (rms {spread:.2g} %)", **style)
        if with_factors and "mean_absorption_factor" in frames.columns:
            panels[0].plot(x, frames["mean_absorption_factor"].to_numpy(), **style)
    panels[-1].axhline(1, color="black", linewidth=0.8)
    panels[-1].set_ylabel("intensity / merged mean")
    panels[-1].set_xlabel("frame")
    if with_factors:
        panels[0].set_ylabel("mean A")
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, panels[-1], len(sources))
    if title:
        figure.suptitle(title, fontsize="medium")
    return png_bytes(figure)


def _spread(frames: pd.DataFrame) -> float:
    """Root mean square of relative scale − 1, by observations."""
    scale, weight = frames["relative_scale"].to_numpy(), frames["observations"].to_numpy()
    known = np.isfinite(scale) & (weight > 0)
    if not known.any():
        return float("nan")
    return float(np.sqrt(np.average((scale[known] - 1) ** 2, weights=weight[known])))


def _resolution_axis(axes, statistics: list[MergingStatistics]) -> None:
    low = min(float(s.overall["d_max_angstrom"]) ** -2 for s in statistics)
    high = max(float(s.overall["d_min_angstrom"]) ** -2 for s in statistics)
    ticks = np.linspace(low, high, 5)[1:]
    axes.set_xticks(ticks, [f"{tick**-0.5:.2f}" for tick in ticks])
    axes.set_xlabel("d [Å]")
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, axes, count: int) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(count, 4), frameon=False)


def _check_sources(sources: Mapping) -> None:
    if not 1 <= len(sources) <= len(_STYLES):
        raise InputError(f"sources must be one to {len(_STYLES)}, got {len(sources)}")
