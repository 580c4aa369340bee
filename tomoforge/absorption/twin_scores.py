"""How good a correction was, judged on a twin whose true absorption is known.

Three data sets from one experiment: as measured, as corrected, and free (the same crystal without absorption).
A correction is good where the corrected data merge like the free ones and give the same anomalous differences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage

from tomoforge.absorption.anomalous import friedel_pairs
from tomoforge.absorption.compare import factor_pairs
from tomoforge.absorption.equivalents import accept_observations, group_equivalents
from tomoforge.absorption.half_sets import correlation
from tomoforge.absorption.merging import merging_statistics
from tomoforge.absorption.paths import label_grid
from tomoforge.absorption.twin_intensities import apply_correction
from tomoforge.errors import InputError

_TRUTH = ("true_intensity", "true_factor", "frame_scale", "free_intensity", "free_sigma")


@dataclass(frozen=True)
class DataScore:
    """One data set against the truth.

    rmeas : Friedel mates apart; anomalous_correlation : Pearson's between merged ΔI = I⁺ − I⁻ and the true ΔI over
    the pairs; anomalous_slope : Σ ΔI ΔI_true / Σ ΔI_true² after one scale for the whole set, 1 when recovered;
    pairs : int. NaN where nothing is repeated or no pair has a true difference.
    """

    rmeas: float
    anomalous_correlation: float
    anomalous_slope: float
    pairs: int


@dataclass(frozen=True)
class CorrectionScore:
    """A correction judged against the truth.

    count : reflections; scale : k of the least Σ (kA/A_true − 1)², since scaling takes out a common factor;
    mean_residual, largest_residual : of |kA/A_true − 1|; measured, corrected, free : DataScore.
    """

    count: int
    scale: float
    mean_residual: float
    largest_residual: float
    measured: DataScore
    corrected: DataScore
    free: DataScore

    @property
    def rmeas_excess(self) -> float:
        """Rmeas of the corrected data over that of the free data, minus 1."""
        return self.corrected.rmeas / self.free.rmeas - 1


def score_correction(
    table_true: pd.DataFrame, a_used: np.ndarray, cell: Sequence[float], space_group: str
) -> CorrectionScore:
    """Judge absorption factors on a twin.

    Parameters
    ----------
    table_true : the table of ``observe``, or several concatenated
    a_used : (row,) float, 0 < A ≤ 1, the factors to judge
    cell : a, b, c in Å, α, β, γ in degrees
    space_group : Hermann–Mauguin symbol

    Returns
    -------
    CorrectionScore

    Raises
    ------
    InputError
        for a table without the truth, or factors that do not fit it.

    Notes
    -----
    The known scales of the frames are taken out of all three data sets: what is judged is absorption, not a
    scaling program. A real one takes part of a wrong correction into its scales.
    """
    missing = [name for name in _TRUTH if name not in table_true.columns]
    if missing:
        raise InputError(f"table_true must be a twin's table, it lacks {missing}")
    true, used = factor_pairs(table_true["true_factor"].to_numpy(), a_used)
    ratio = used / true
    scale = float(ratio.sum() / np.sum(ratio**2))
    residual = np.abs(scale * ratio - 1)
    frames = table_true["frame_scale"].to_numpy()
    measured = table_true.assign(
        intensity=table_true["intensity"].to_numpy() / frames, sigma=table_true["sigma"].to_numpy() / frames
    )
    free = table_true.assign(
        intensity=table_true["free_intensity"].to_numpy() / frames,
        sigma=table_true["free_sigma"].to_numpy() / frames,
    )
    return CorrectionScore(
        count=len(table_true),
        scale=scale,
        mean_residual=float(residual.mean()),
        largest_residual=float(residual.max()),
        measured=score_data(measured, cell, space_group),
        corrected=score_data(apply_correction(measured, used), cell, space_group),
        free=score_data(free, cell, space_group),
    )


def score_data(table: pd.DataFrame, cell: Sequence[float], space_group: str) -> DataScore:
    """Rmeas of a data set and how much of the true anomalous signal it holds.

    table : columns h, k, l, intensity, sigma and true_intensity. Raises InputError as merging does.
    """
    statistics = merging_statistics(table, cell, space_group, anomalous=True, shells=1, half_set_draws=1)
    observations = accept_observations(table, cell, space_group)
    equivalents = group_equivalents(observations, separate_friedel=True)
    rows = observations.rows[equivalents.row]
    weight = equivalents.sigma**-2.0
    merged = equivalents.sums(weight * equivalents.intensity) / equivalents.sums(weight)
    # Equivalents have one true intensity: any row of them says it.
    true = table["true_intensity"].to_numpy()[rows[equivalents.start]]
    pairs = friedel_pairs(equivalents)
    found, wanted = pairs.difference(merged * (true.sum() / merged.sum())), pairs.difference(true)
    power = float(np.sum(wanted**2))
    return DataScore(
        rmeas=float(statistics.overall.r_meas),
        anomalous_correlation=correlation(found, wanted) if power > 0 else float("nan"),
        anomalous_slope=float(np.sum(found * wanted) / power) if power > 0 else float("nan"),
        pairs=len(pairs),
    )


def score_table(scores: Mapping[str, CorrectionScore]) -> pd.DataFrame:
    """Corrections side by side, a row for each source of labels, between the measured and the free data.

    Columns: source; scale; mean_residual_percent, largest_residual_percent (of A after one scale); rmeas_percent;
    rmeas_excess_percent (over the free data); anomalous_correlation; anomalous_slope. Raises InputError for none.
    """
    if not scores:
        raise InputError("scores must hold at least one source of labels")
    first = next(iter(scores.values()))
    rows = [_row("none (as measured)", first.measured, first.free)]
    for name, score in scores.items():
        row = _row(name, score.corrected, score.free)
        row["scale"] = score.scale
        row["mean_residual_percent"] = 100 * score.mean_residual
        row["largest_residual_percent"] = 100 * score.largest_residual
        rows.append(row)
    rows.append(_row("free of absorption", first.free, first.free))
    return pd.DataFrame(rows)


def moved_boundary(labels: np.ndarray, label: int, voxels: int) -> np.ndarray:
    """Labels with the surface of one material moved outwards by ``voxels``, inwards where that is negative.

    labels : (z, y, x) integers; label : int, 0 moves the surface of the whole sample, outwards of the background
    and so inwards of the sample; voxels : int, steps across faces. Returns (z, y, x) uint8; what a material leaves
    goes to the nearest other one. Raises InputError where the label does not occur, or nothing would be left.
    """
    grid = label_grid(labels)
    mask = grid == label
    if not mask.any() or mask.all():
        raise InputError(f"labels must hold label {label} and others, got {np.unique(grid).tolist()}")
    if voxels == 0:
        return grid.copy()
    cross = ndimage.generate_binary_structure(3, 1)
    if voxels > 0:
        return np.where(ndimage.binary_dilation(mask, cross, voxels), np.uint8(label), grid)
    # Beyond the edge of the volume a material goes on.
    kept = ndimage.binary_erosion(mask, cross, -voxels, border_value=1)
    if not kept.any():
        raise InputError(f"voxels must leave some of label {label}, but moved by {voxels} nothing is left")
    nearest = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    return np.where(mask & ~kept, grid[tuple(nearest)], grid)


def _row(source: str, data: DataScore, free: DataScore) -> dict[str, float | str]:
    return {
        "source": source,
        "scale": float("nan"),
        "mean_residual_percent": float("nan"),
        "largest_residual_percent": float("nan"),
        "rmeas_percent": 100 * data.rmeas,
        "rmeas_excess_percent": 100 * (data.rmeas / free.rmeas - 1),
        "anomalous_correlation": data.anomalous_correlation,
        "anomalous_slope": data.anomalous_slope,
    }
