"""The figure of a comparison of training sources: IoU by class, beside the published means."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tomoforge.pictures import png_bytes
from tomoforge.segmentation.evaluation import MEAN
from tomoforge.segmentation.training_sources import (
    ARMS,
    BOTH,
    PUBLISHED_IOU,
    REAL,
    SYNTHETIC,
    SourceComparison,
)

# Okabe and Ito, none of them the colour of a class.
_COLOURS = {REAL: "#0072B2", SYNTHETIC: "#F0E442", BOTH: "#009E73"}
_BASELINES = ("#DDDDDD", "#BBBBBB", "#999999")
_WIDTH = 0.84  # of a group of bars, 1 being the distance between groups


def sources_picture(comparison: SourceComparison, title: str) -> bytes:
    """IoU of every class and their mean, a bar a model with its interval, dots for single seeds, as PNG.

    Diamonds beside the means are the published ones, of other data.
    """
    means = comparison.means[comparison.means["measure"] == "iou"]
    classes = [name for name in dict.fromkeys(means["class"]) if name not in (MEAN, "background")]
    groups = [MEAN, *classes]
    models = list(dict.fromkeys(means["model"]))
    figure = Figure(figsize=(9.6, 4.2), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots()
    at = means.set_index(["model", "class"])
    for number, model in enumerate(models):
        rows = at.loc[[(model, name) for name in groups]]
        centres = np.arange(len(groups)) + _offset(number, len(models))
        _bars(axes, centres, rows, model, _colour(model, number), _WIDTH / len(models))
        if model in ARMS:
            _seeds(axes, centres, comparison, model, groups)
            label = "published, other data" if model == BOTH else None
            axes.plot(
                centres[0], PUBLISHED_IOU[model], "D", ms=6, mfc="none", mec="black", label=label, zorder=4
            )
    axes.set_xticks(range(len(groups)), ["mean of classes", *classes])
    axes.set_ylim(0, 1)
    axes.set_ylabel("IoU on held-out real cases")
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return png_bytes(figure)


def _offset(number: int, count: int) -> float:
    return _WIDTH * ((number + 0.5) / count - 0.5)


def _colour(model: str, number: int) -> str:
    return _COLOURS.get(model, _BASELINES[number % len(_BASELINES)])


def _bars(axes: Axes, centres: np.ndarray, rows, model: str, colour: str, width: float) -> None:
    heights = rows["mean"].to_numpy()
    # A class that is nowhere to be measured has no bar, and one case has no interval.
    below, above = heights - rows["low"].to_numpy(), rows["high"].to_numpy() - heights
    errors = np.clip(np.nan_to_num(np.stack([below, above])), 0, None)
    axes.bar(
        centres,
        np.nan_to_num(heights),
        0.92 * width,
        yerr=errors,
        color=colour,
        edgecolor="#444444",
        linewidth=0.5,
        error_kw={"linewidth": 0.9, "capsize": 2},
        label=model,
    )


def _seeds(
    axes: Axes, centres: np.ndarray, comparison: SourceComparison, model: str, groups: Sequence[str]
) -> None:
    of_arm = comparison.seeds[comparison.seeds["arm"] == model]
    for centre, name in zip(centres, groups, strict=True):
        values = of_arm.loc[of_arm["class"] == name, "iou"]
        axes.plot(np.full(len(values), centre), values, ".", color="black", ms=4, alpha=0.7, zorder=3)
