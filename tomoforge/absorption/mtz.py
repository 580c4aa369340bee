"""Unmerged MTZ files through gemmi: read as observations, written back corrected."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
import pandas as pd

from tomoforge.absorption.observations import check_factors, checked_observations
from tomoforge.errors import InputError
from tomoforge.storage import replacing
from tomoforge.units import ANGSTROM

# Batch headers, cmtzlib.h: rotation at the start and at the end of the batch [degrees].
_PHI_START, _PHI_END = 36, 37
_HISTORY = "From tomoforge: intensities divided by ray-traced absorption factors"  # 80 characters at most


@dataclass(frozen=True)
class UnmergedMtz:
    """observations : the shared table, index the rows of the file; cell : a, b, c [Å], α, β, γ [degrees]; space_group :
    Hermann–Mauguin symbol; wavelength : float [m], None where the file does not say; title : str.
    """

    observations: pd.DataFrame
    cell: tuple[float, ...]
    space_group: str
    wavelength: float | None
    title: str


def read_mtz(path: str | Path, intensity: str = "I") -> UnmergedMtz:
    """Read an unmerged MTZ file.

    Parameters
    ----------
    intensity : label of the intensities, "I" (summation) or "IPR" (profile) in files of DIALS; "SIG" + label holds
        their errors

    Returns
    -------
    UnmergedMtz: h k l as measured (from M/ISYM), intensity, sigma, d_angstrom, frame (batch number), dataset and,
    where there is a column ROT or batch headers with angles, angle_rad. Rows without intensity are left out.

    Raises
    ------
    InputError
        for a file that is no MTZ, is merged, lacks columns, cell or space group, or holds partials.
    """
    mtz = _opened(path)
    _check_unmerged(mtz, path)
    value, sigma = _pair(mtz, intensity, path)
    columns: dict[str, np.ndarray] = {
        "intensity": np.asarray(mtz.columns[value].array, dtype=np.float64),
        "sigma": np.asarray(mtz.columns[sigma].array, dtype=np.float64),
    }
    batch = np.asarray(mtz.column_with_label("BATCH").array)
    columns["frame"] = batch.astype(np.int64)
    columns["dataset"] = _datasets(mtz, columns["frame"])
    angles = _angles(mtz, columns["frame"])
    if angles is not None:
        columns["angle_rad"] = angles
    columns["d_angstrom"] = mtz.make_d_array()
    try:
        switched = mtz.switch_to_original_hkl()
    except (IndexError, RuntimeError) as error:  # fewer operations in the header than M/ISYM counts
        raise InputError(
            f"{path}: M/ISYM does not fit the symmetry operations of the header: {error}"
        ) from error
    if not switched:
        raise InputError(
            f"{path}: M/ISYM does not lead back to the indices as measured; was it written whole?"
        )
    hkl = np.asarray(mtz.make_miller_array())
    table = pd.DataFrame(dict(zip("hkl", hkl.T, strict=True)) | columns)
    table.index.name = "row"
    # MTZ writes NaN for "not measured"; sigma ≤ 0 is how integration programs reject.
    measured = table["intensity"].notna() & (table["sigma"] > 0)
    if not measured.any():
        raise InputError(f"{path} has no row with {intensity} and a positive SIG{intensity}")
    try:
        observations = checked_observations(table[measured])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return UnmergedMtz(observations, _cell(mtz), mtz.spacegroup.xhm(), _wavelength(mtz), mtz.title)


def write_corrected_mtz(
    path: str | Path, source: str | Path, rows: np.ndarray | pd.Index, factors: np.ndarray
) -> None:
    """Write ``source`` with its intensities and their errors divided by absorption factors, whole or not at all.

    All intensity columns are divided (``I`` and ``IPR`` alike, with ``SIG…``), so that no later program mixes corrected
    with uncorrected ones; every other column, the header and the batches stay, and a line of history is added. Rows
    that were not corrected are left out: beside corrected ones they would be wrong by 1/A.

    Parameters
    ----------
    rows : (n,) rows of ``source``, the index of its observations; factors : (n,) 0 < A ≤ 1

    Raises
    ------
    InputError
        as read_mtz, and for rows that are not there or occur twice and factors that are none.
    """
    mtz = _opened(source)
    _check_unmerged(mtz, source)
    rows, factors = np.asarray(rows), np.asarray(factors, dtype=np.float64)
    check_factors(factors)
    inside = rows.dtype.kind in "iu" and rows.size > 0 and 0 <= rows.min() and rows.max() < mtz.nreflections
    if rows.shape != factors.shape or not inside or np.unique(rows).size != rows.size:
        raise InputError(f"rows must be different rows of {source} ({mtz.nreflections}), one for each factor")
    order = np.argsort(rows)
    data = np.array(mtz.array)[rows[order]]
    for value, sigma in _pairs(mtz):
        for column in (value, sigma):
            data[:, column] = data[:, column] / factors[order]
    mtz.set_data(data)
    mtz.history = [_HISTORY, *mtz.history][:30]
    mtz.update_reso()
    with replacing(path) as temporary:
        mtz.write_to_file(str(temporary))


def _opened(path: str | Path) -> gemmi.Mtz:
    try:
        mtz = gemmi.read_mtz_file(str(path))
        # Texts of the header are decoded when asked for: a damaged one is found here, not later.
        _ = (mtz.title, mtz.history, [(c.label, c.type, c.source) for c in mtz.columns])
        _ = [(d.project_name, d.crystal_name, d.dataset_name) for d in mtz.datasets]
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} cannot be read as MTZ: {error}") from error
    return mtz


def _check_unmerged(mtz: gemmi.Mtz, path: str | Path) -> None:
    labels = mtz.column_labels()
    missing = [label for label in ("H", "K", "L", "BATCH", "M/ISYM") if label not in labels]
    if missing:
        raise InputError(
            f"{path} lacks the columns {missing}; only an unmerged MTZ knows the beams of its observations "
            f"(columns: {', '.join(labels)})"
        )
    if mtz.nreflections == 0:
        raise InputError(f"{path} holds no reflections")
    if mtz.spacegroup is None or not mtz.cell.is_crystal():
        raise InputError(f"{path} has no space group or no cell in its header")
    for label in ("H", "K", "L", "BATCH"):
        values = np.asarray(mtz.column_with_label(label).array)
        if not np.all(np.abs(values) < 2**24):  # beyond, float32 holds no whole numbers; NaN is refused too
            raise InputError(
                f"{path}: column {label} must hold whole numbers, got {values.min()} … {values.max()}"
            )
    flags = np.asarray(mtz.column_with_label("M/ISYM").array)
    parts = int(np.count_nonzero(flags >= 256))
    if parts:
        raise InputError(
            f"{path} holds {parts} partials (M of M/ISYM); let pointless or aimless sum them first"
        )
    most = 2 * len(mtz.spacegroup.operations().sym_ops)
    if not np.all((flags >= 1) & (flags <= most) & (flags == np.rint(flags))):
        raise InputError(
            f"{path}: M/ISYM must be 1 … {most} in {mtz.spacegroup.xhm()}; is the space group right?"
        )


def _pair(mtz: gemmi.Mtz, intensity: str, path: str | Path) -> tuple[int, int]:
    by_label = {mtz.columns[value].label: (value, sigma) for value, sigma in _pairs(mtz)}
    if intensity not in by_label:
        raise InputError(
            f"{path} has no intensities {intensity!r} with errors 'SIG{intensity}'; it has {list(by_label)}"
        )
    return by_label[intensity]


def _pairs(mtz: gemmi.Mtz) -> list[tuple[int, int]]:
    """Indices of the intensity columns and of their errors, SIG + label or the column that follows."""
    sigmas = {column.label: column.idx for column in mtz.columns if column.type == "Q"}
    return [
        (column.idx, sigmas[f"SIG{column.label}"])
        for column in mtz.columns
        if column.type == "J" and f"SIG{column.label}" in sigmas
    ]


def _datasets(mtz: gemmi.Mtz, batch: np.ndarray) -> np.ndarray:
    """Number of the data set of each row, 0 where there is one or the batches do not say."""
    known = {header.number: header.dataset_id for header in mtz.batches}
    order = {number: rank for rank, number in enumerate(sorted(set(known.values())))}
    lookup = {number: order[dataset] for number, dataset in known.items()}
    return np.array([lookup.get(int(number), 0) for number in batch], dtype=np.int64)


def _angles(mtz: gemmi.Mtz, batch: np.ndarray) -> np.ndarray | None:
    """Rotation angle [rad] from ROT, else the middle of the batch, else None."""
    rot = mtz.column_with_label("ROT")
    if rot is not None:
        return np.radians(np.asarray(rot.array, dtype=np.float64))
    middle = {b.number: (b.floats[_PHI_START] + b.floats[_PHI_END]) / 2 for b in mtz.batches}
    if not middle or len(set(middle.values())) == 1 < len(middle) or not set(batch.tolist()) <= set(middle):
        return None
    return np.radians([middle[int(number)] for number in batch])


def _cell(mtz: gemmi.Mtz) -> tuple[float, ...]:
    return tuple(float(v) for v in mtz.cell.parameters)


def _wavelength(mtz: gemmi.Mtz) -> float | None:
    return _one_wavelength([b.wavelength for b in mtz.batches] or [d.wavelength for d in mtz.datasets])


def _one_wavelength(values: Sequence[float]) -> float | None:
    known = sorted({round(float(v), 5) for v in values if np.isfinite(v) and v > 0})
    return known[0] * ANGSTROM if len(known) == 1 else None
