"""The table of observations that files, correction and merging share, one row for each measured reflection.

| column | type | meaning |
|---|---|---|
| h, k, l | int32 | indices as measured, not reduced by symmetry |
| intensity, sigma | float64 | sigma > 0 |
| d_angstrom | float64 | spacing [Å] |
| angle_rad | float64 | goniometer angle of the scanning axis [rad] |
| frame | int64 | image or batch number |
| s1_x, s1_y, s1_z | float64 | diffracted beam vector, laboratory [1/Å] |
| absorption_factor | float64 | 0 < A ≤ 1, what absorption left of the intensity |
| dataset | any | sweep or crystal |

The first five are always there, the others where known. The index is the row of the file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tomoforge.errors import InputError
from tomoforge.storage import replacing

REQUIRED = ("h", "k", "l", "intensity", "sigma")
S1 = ("s1_x", "s1_y", "s1_z")
OPTIONAL = ("d_angstrom", "angle_rad", *S1, "absorption_factor")  # finite float64 where present
ABSORPTION = "absorption_factor"


def checked_observations(table: pd.DataFrame, require: Sequence[str] = ()) -> pd.DataFrame:
    """``table`` with the types of the shared table; other columns are kept as they are.

    Raises
    ------
    InputError
        for a column of ``REQUIRED`` or ``require`` that is missing, numbers that are not finite, indices that are
        not whole or are 0 0 0, sigma that is not positive, absorption factors outside 0 < A ≤ 1.
    """
    missing = [name for name in (*REQUIRED, *require) if name not in table.columns]
    if missing:
        raise InputError(f"observations lack the columns {missing}; they have {list(table.columns)}")
    result = table.copy()
    for name in (*REQUIRED, *OPTIONAL, "frame"):
        if name in result.columns:
            result[name] = _finite(name, result[name])
    for name, dtype in (("h", np.int32), ("k", np.int32), ("l", np.int32), ("frame", np.int64)):
        if name in result.columns:
            result[name] = _whole(name, result[name].to_numpy()).astype(dtype)
    _check_values(result)
    return result


def apply_absorption(table: pd.DataFrame, factors: np.ndarray | None = None) -> pd.DataFrame:
    """Observations divided by their absorption factors: a copy with intensity/A, sigma/A and A beside them.

    factors : (observation,) 0 < A ≤ 1, by default the column ``absorption_factor``. Correcting twice is the
    caller's to avoid: the column tells what was divided by, not whether. Raises InputError as checked_observations.
    """
    if factors is not None:
        if np.shape(factors) != (len(table),):
            raise InputError(
                f"factors must be one for each of {len(table)} observations, got {np.shape(factors)}"
            )
        table = table.assign(**{ABSORPTION: np.asarray(factors, dtype=np.float64)})
    result = checked_observations(table, require=(ABSORPTION,))
    for name in ("intensity", "sigma"):
        result[name] = result[name] / result[ABSORPTION]
    return result


def read_observations(path: str | Path, names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read observations from .csv or .parquet.

    names : column in the file → column of the shared table, for files that call them otherwise, e.g.
    ``{"I": "intensity", "sigI": "sigma"}``. Raises InputError for other endings, files that cannot be read and what
    checked_observations refuses.
    """
    source = Path(path)
    ending = source.suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise InputError(f"{source} must end in .csv or .parquet")
    try:
        if ending == ".csv":
            table = pd.read_csv(source, float_precision="round_trip")
        else:
            table = pd.read_parquet(source)
    except (OSError, ValueError) as error:  # pandas' and Arrow's parsers raise children of ValueError
        raise InputError(f"{source} cannot be read as a table: {error}") from error
    absent = [name for name in names or {} if name not in table.columns]
    if absent:
        raise InputError(f"{source} has no columns {absent}; it has {list(table.columns)}")
    try:
        return checked_observations(table.rename(columns=dict(names or {})))
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def write_observations(path: str | Path, table: pd.DataFrame) -> None:
    """Write observations as .csv (numbers to the last bit) or .parquet, whole or not at all; the index is left out.

    Raises InputError for other endings and what checked_observations refuses.
    """
    target = Path(path)
    ending = target.suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise InputError(f"{target} must end in .csv or .parquet")
    result = checked_observations(table)
    with replacing(target) as temporary:
        if ending == ".csv":
            result.to_csv(temporary, index=False, float_format="%.17g", lineterminator="\n")
        else:
            result.to_parquet(temporary, index=False)


def _finite(name: str, values: pd.Series) -> np.ndarray:
    try:
        array = values.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"column {name!r} must hold numbers, got {values.dtype}") from error
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise InputError(
            f"column {name!r} must be finite, {bad.size} of {len(array)} rows are not, the first row "
            f"{values.index[bad[0]]}; leave those rows out"
        )
    return array


def _whole(name: str, array: np.ndarray) -> np.ndarray:
    rounded = np.rint(array)
    if np.any(np.abs(array - rounded) > 1e-6) or np.any(np.abs(rounded) >= 2**31):
        raise InputError(f"column {name!r} must hold whole numbers, got {array[array != rounded][:3]}")
    return rounded


def _check_values(table: pd.DataFrame) -> None:
    if np.any((table[["h", "k", "l"]].to_numpy() == 0).all(axis=1)):
        raise InputError("h k l = 0 0 0 occurs: reflections that were never indexed; leave those rows out")
    if np.any(table["sigma"].to_numpy() <= 0):
        raise InputError("sigma must be positive; leave rows without an error estimate out")
    if ABSORPTION in table.columns:
        check_factors(table[ABSORPTION].to_numpy())


def check_factors(factors: np.ndarray) -> None:
    """Raises InputError unless all of ``factors`` are 0 < A ≤ 1."""
    wrong = np.flatnonzero(~((factors > 0) & (factors <= 1)))
    if wrong.size:
        raise InputError(
            f"absorption factors must be 0 < A ≤ 1, {wrong.size} are not, the first {factors[wrong[0]]!r}; "
            "was 1/A given?"
        )
