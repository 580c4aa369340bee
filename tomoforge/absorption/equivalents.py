"""Observations fit for merging, and their sorting into symmetry equivalents.

Indices are brought into the asymmetric unit and sorted by gemmi (in C++); everything after it is sums over
neighbouring rows of sorted arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import gemmi
import numpy as np
import pandas as pd

from tomoforge.errors import InputError

# Relative tolerance on resolution limits: rounding of d must not cost the outermost reflection.
_D_TOLERANCE = 1e-6
# Refined cells of real files keep their symmetry to some 10⁻³ only.
_CELL_TOLERANCE = 0.01


@dataclass(frozen=True)
class AcceptedObservations:
    """Observations that can be merged, in the order of the table they come from.

    hkl : (observation, 3) int32, as observed; intensity, sigma : (observation,) float64; rows :
    (observation,) int64, position in the table; rejected : rows left out by reason, each counted once;
    cell, group : unit cell [Å, degrees] and space group.
    """

    hkl: np.ndarray
    intensity: np.ndarray
    sigma: np.ndarray
    rows: np.ndarray
    rejected: dict[str, int]
    cell: gemmi.UnitCell
    group: gemmi.SpaceGroup

    def __len__(self) -> int:
        return len(self.hkl)


@dataclass(frozen=True)
class Equivalents:
    """Observations sorted so that those of one unique reflection are neighbours.

    Sorted observations: row : (observation,) int64, position in the ``AcceptedObservations``; intensity,
    sigma : (observation,) float64, rising intensity within a unique reflection; unique : (observation,)
    int64, the unique reflection each belongs to. Unique reflections: hkl : (unique, 3) int32 in the
    asymmetric unit; sign : (unique,) int8, +1 and −1 for Friedel mates kept apart (centric ones are +1), 0
    where mates are one reflection; start, count : (unique,) int64, first observation and how many;
    inverse_d_squared : (unique,) float64 [1/Å²].
    """

    row: np.ndarray
    intensity: np.ndarray
    sigma: np.ndarray
    unique: np.ndarray
    hkl: np.ndarray
    sign: np.ndarray
    start: np.ndarray
    count: np.ndarray
    inverse_d_squared: np.ndarray

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(unique,) sums of ``values`` (observation,) over each unique reflection."""
        return np.add.reduceat(values, self.start)


def accept_observations(
    table: pd.DataFrame,
    cell: Sequence[float] | gemmi.UnitCell,
    space_group: str | gemmi.SpaceGroup,
    *,
    corrected: bool = False,
    d_max_angstrom: float | None = None,
    d_min_angstrom: float | None = None,
) -> AcceptedObservations:
    """Take from a table of reflections the rows that can be merged, and count the others by reason.

    Parameters
    ----------
    table : columns h, k, l (whole numbers), intensity, sigma; absorption_factor where ``corrected``
    cell : a, b, c in Å, α, β, γ in degrees
    space_group : Hermann–Mauguin symbol or gemmi.SpaceGroup
    corrected : bool, divide intensity and sigma by absorption_factor
    d_max_angstrom, d_min_angstrom : float | None [Å], resolution limits

    Returns
    -------
    AcceptedObservations; ``rejected`` has the keys not_finite, sigma_not_positive,
    absorption_factor_not_positive (where corrected), unindexed (0 0 0), systematically_absent,
    outside_resolution.

    Raises
    ------
    InputError
        for missing columns, indices that are not whole numbers, an unknown space group, a cell that does
        not fit it, limits in the wrong order, or no row left.
    """
    group = _find_group(space_group)
    unit_cell = _find_cell(cell, group)
    _check_limits(d_max_angstrom, d_min_angstrom)
    names = ["h", "k", "l", "intensity", "sigma", *(["absorption_factor"] if corrected else [])]
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise InputError(
            f"table must have the columns {names}, missing {missing}, got {list(table.columns)[:20]}"
        )
    hkl = _indices(table)
    intensity, sigma = (table[name].to_numpy(dtype=np.float64, copy=True) for name in ("intensity", "sigma"))
    reasons = {
        "not_finite": ~(np.isfinite(intensity) & np.isfinite(sigma)),
        "sigma_not_positive": ~(sigma > 0),
    }
    if corrected:
        factor = table["absorption_factor"].to_numpy(dtype=np.float64)
        usable = np.isfinite(factor) & (factor > 0)
        reasons["absorption_factor_not_positive"] = ~usable
        scale = np.where(usable, factor, 1.0)
        intensity /= scale
        sigma /= scale
    reasons["unindexed"] = ~hkl.any(axis=1)
    reasons["systematically_absent"] = group.operations().systematic_absences(hkl)
    reasons["outside_resolution"] = _outside(hkl, unit_cell, d_max_angstrom, d_min_angstrom)

    keep = np.ones(len(hkl), dtype=bool)
    rejected = {}
    for reason, bad in reasons.items():
        rejected[reason] = int(np.count_nonzero(keep & bad))
        keep &= ~bad
    if not keep.any():
        raise InputError(f"table has no observation that can be merged: {len(hkl)} rows, rejected {rejected}")
    rows = np.flatnonzero(keep)
    return AcceptedObservations(hkl[rows], intensity[rows], sigma[rows], rows, rejected, unit_cell, group)


def group_equivalents(observations: AcceptedObservations, *, separate_friedel: bool) -> Equivalents:
    """Sort observations into symmetry equivalents, Friedel mates together or apart.

    In a centrosymmetric space group Friedel mates are equivalents and are never apart. Within a unique
    reflection the order is by intensity, then sigma, so that no result depends on the order of the table.
    """
    sorted_hkl, sign, order = _sorted_by_gemmi(observations, separate_friedel)
    new = np.ones(len(order), dtype=bool)
    new[1:] = (sorted_hkl[1:] != sorted_hkl[:-1]).any(axis=1) | (sign[1:] != sign[:-1])
    start = np.flatnonzero(new)
    unique = np.cumsum(new) - 1
    order = order[np.lexsort((observations.sigma[order], observations.intensity[order], unique))]
    hkl = np.ascontiguousarray(sorted_hkl[start])
    return Equivalents(
        row=order,
        intensity=observations.intensity[order],
        sigma=observations.sigma[order],
        unique=unique,
        hkl=hkl,
        sign=sign[start],
        start=start,
        count=np.diff(np.append(start, len(order))),
        inverse_d_squared=observations.cell.calculate_1_d2_array(hkl),
    )


def gemmi_intensities(observations: AcceptedObservations, *, separate_friedel: bool) -> gemmi.Intensities:
    """The observations as gemmi has them, in the asymmetric unit and sorted, ready for its statistics."""
    return _intensities(observations, observations.intensity, observations.sigma, separate_friedel)


def _intensities(
    observations: AcceptedObservations, value: np.ndarray, sigma: np.ndarray, separate_friedel: bool
) -> gemmi.Intensities:
    intensities = gemmi.Intensities()
    intensities.set_data(observations.cell, observations.group, observations.hkl, value, sigma)
    kind = gemmi.DataType.Anomalous if separate_friedel else gemmi.DataType.Mean
    intensities.prepare_for_merging(kind)
    return intensities


def _sorted_by_gemmi(
    observations: AcceptedObservations, separate_friedel: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted indices (observation, 3), signs (observation,), and the row each came from (observation,)."""
    # gemmi keeps no row numbers, so they travel as the values: exact in float64 up to 2⁵³ rows.
    count = len(observations)
    numbered = _intensities(
        observations, np.arange(count, dtype=np.float64), np.ones(count), separate_friedel
    )
    order = numbered.value_array.astype(np.int64)
    return np.array(numbered.miller_array), np.array(numbered.isign_array), order


def _find_group(space_group: str | gemmi.SpaceGroup) -> gemmi.SpaceGroup:
    if isinstance(space_group, gemmi.SpaceGroup):
        return space_group
    group = gemmi.find_spacegroup_by_name(str(space_group))
    if group is None:
        raise InputError(
            f"space_group must be a Hermann–Mauguin symbol such as 'P 41 21 2', got {space_group!r}"
        )
    return group


def _find_cell(cell: Sequence[float] | gemmi.UnitCell, group: gemmi.SpaceGroup) -> gemmi.UnitCell:
    values = [float(v) for v in (cell.parameters if isinstance(cell, gemmi.UnitCell) else cell)]
    if len(values) != 6 or not np.isfinite(values).all() or min(values) <= 0:
        raise InputError(f"cell must be a, b, c in Å and α, β, γ in degrees, all positive, got {values}")
    unit_cell = gemmi.UnitCell(*values)
    if not (unit_cell.volume > 0 and unit_cell.is_compatible_with_spacegroup(group, _CELL_TOLERANCE)):
        raise InputError(
            f"cell {values} does not fit space_group {group.hm!r}; was the setting or an angle mistyped?"
        )
    return unit_cell


def _indices(table: pd.DataFrame) -> np.ndarray:
    columns = []
    for name in ("h", "k", "l"):
        values = table[name].to_numpy()
        if not np.issubdtype(values.dtype, np.integer):
            values = table[name].to_numpy(dtype=np.float64)
            broken = ~(np.isfinite(values) & (values == np.round(values)))
            if broken.any():
                raise InputError(
                    f"column {name} must hold whole numbers, got {values[broken][0]!r} in row "
                    f"{int(np.argmax(broken))} ({int(broken.sum())} of {len(values)})"
                )
        columns.append(values)
    hkl = np.stack(columns, axis=1)
    if len(hkl) and np.abs(hkl).max() > 32_000:  # products of indices must stay within int32
        raise InputError(f"indices must lie within ±32000, got {np.abs(hkl).max()}; are columns swapped?")
    return np.ascontiguousarray(hkl, dtype=np.int32)


def _check_limits(d_max: float | None, d_min: float | None) -> None:
    for name, value in (("d_max_angstrom", d_max), ("d_min_angstrom", d_min)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} must be a positive length in Å, got {value!r}")
    if d_max is not None and d_min is not None and d_max <= d_min:
        raise InputError(f"d_max_angstrom must exceed d_min_angstrom, got {d_max} and {d_min}; swapped?")


def _outside(hkl: np.ndarray, cell: gemmi.UnitCell, d_max: float | None, d_min: float | None) -> np.ndarray:
    squared = cell.calculate_1_d2_array(hkl)
    outside = np.zeros(len(hkl), dtype=bool)
    if d_max is not None:
        outside |= squared < (d_max * (1 + _D_TOLERANCE)) ** -2
    if d_min is not None:
        outside |= squared > (d_min * (1 - _D_TOLERANCE)) ** -2
    return outside
