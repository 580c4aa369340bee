"""How bright each frame is against the mean of all: absorption shows as a wave over the rotation."""

from collections.abc import Sequence

import gemmi
import numpy as np
import pandas as pd

from tomoforge.absorption.equivalents import accept_observations, group_equivalents
from tomoforge.absorption.merged_intensities import merged_intensities, merging_weights
from tomoforge.errors import InputError


def frame_statistics(
    table: pd.DataFrame,
    cell: Sequence[float] | gemmi.UnitCell,
    space_group: str | gemmi.SpaceGroup,
    *,
    corrected: bool = False,
    frame_column: str = "frame",
) -> pd.DataFrame:
    """Compare each frame's observations with the merged intensities of their reflections.

    Parameters
    ----------
    table, cell, space_group, corrected : as for ``merging_statistics``
    frame_column : name of the column with the frame's whole number

    Returns
    -------
    DataFrame indexed by frame: observations (with at least one equivalent), relative_scale
    = Σ w I⟨I⟩ / Σ w⟨I⟩² with w = 1/σ² (least-squares factor from the merged to the frame's intensities; 1 for
    perfectly scaled data), r_merge = Σ|I − ⟨I⟩| / ΣI within the frame, i_over_sigma = mean I/σ of
    observations, and mean_absorption_factor where ``corrected``.

    Raises
    ------
    InputError
        as ``merging_statistics`` does, and for a frame column that is missing or not of whole numbers.

    Notes
    -----
    Friedel mates count as equivalents. The merged mean holds the frame's own observations, which draws the
    relative scale towards 1 at low multiplicity.
    """
    observations = accept_observations(table, cell, space_group, corrected=corrected)
    frame = _frames(table, frame_column)[observations.rows]
    equivalents = group_equivalents(observations, separate_friedel=False)
    merged, _ = merged_intensities(equivalents)
    expected = merged[equivalents.unique]
    weight = merging_weights(equivalents, weighted=True)
    single = equivalents.count[equivalents.unique] == 1
    numbers, place = np.unique(frame[equivalents.row], return_inverse=True)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(place, np.where(single, 0.0, values), len(numbers))

    counted = total(np.ones(len(place)))
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = {
            "observations": counted.astype(np.int64),
            "relative_scale": total(weight * equivalents.intensity * expected) / total(weight * expected**2),
            "r_merge": total(np.abs(equivalents.intensity - expected)) / total(equivalents.intensity),
            "i_over_sigma": total(equivalents.intensity / equivalents.sigma) / counted,
        }
        if corrected:
            factor = table["absorption_factor"].to_numpy(dtype=np.float64)[observations.rows]
            # Of every observation, also of those without equivalents: A needs none.
            sums = np.bincount(place, factor[equivalents.row], len(numbers))
            columns["mean_absorption_factor"] = sums / np.bincount(place, minlength=len(numbers))
    return pd.DataFrame(columns, index=pd.Index(numbers, name="frame"))


def _frames(table: pd.DataFrame, column: str) -> np.ndarray:
    if column not in table.columns:
        raise InputError(f"table must have the column {column!r}, got {list(table.columns)[:20]}")
    values = table[column].to_numpy(dtype=np.float64)
    if not (np.isfinite(values) & (values == np.round(values))).all():
        raise InputError(
            f"column {column!r} must hold whole numbers; for angles, divide by the frame's width"
        )
    return values.astype(np.int64)
