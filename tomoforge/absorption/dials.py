"""Reflections and experiments of DIALS, read and written without DIALS.

``read_reflections``, ``write_reflections``: ``refl_file``; ``read_experiment``, ``read_experiments``: ``expt_file``;
``write_experiments``: ``expt_export``.
Here is what the columns mean.

The column ``analytical_correction`` holds A, not 1/A: dials.scale multiplies it into its inverse scale factors
(``physical.analytical_correction=True``), by which intensities are divided.
"""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from tomoforge.absorption.expt_export import write_experiments
from tomoforge.absorption.expt_file import read_experiment, read_experiments
from tomoforge.absorption.observations import ABSORPTION, S1, check_factors, checked_observations
from tomoforge.absorption.refl_file import ReflectionTable, read_reflections, write_reflections
from tomoforge.errors import InputError

__all__ = [
    "ANALYTICAL_CORRECTION",
    "ReflectionTable",
    "observations",
    "read_experiment",
    "read_experiments",
    "read_reflections",
    "with_analytical_correction",
    "write_experiments",
    "write_reflections",
]

_log = logging.getLogger(__name__)

ANALYTICAL_CORRECTION = "analytical_correction"

# dials::af::Flags
_INTEGRATED_SUM, _INTEGRATED_PRF = 1 << 8, 1 << 9
_BAD_FOR_SCALING = (1 << 22) | (1 << 23) | (1 << 24)

# kind → (value, variance, flag that must be set)
_INTENSITIES = {
    "profile": ("intensity.prf.value", "intensity.prf.variance", _INTEGRATED_PRF),
    "summation": ("intensity.sum.value", "intensity.sum.variance", _INTEGRATED_SUM),
    "scaled": ("intensity.scale.value", "intensity.scale.variance", 0),
}


def observations(
    reflections: ReflectionTable, intensity: str = "profile", minimum_partiality: float = 0.95
) -> pd.DataFrame:
    """The usable reflections as the shared table of observations, ``index`` their rows in ``reflections``.

    Parameters
    ----------
    intensity : "profile", "summation" (both with the Lorentz–polarisation and quantum-efficiency factors applied,
        as dials.export does) or "scaled" (divided by the inverse scale factor)
    minimum_partiality : float, reflections recorded to a smaller part are left out; dials.scale takes 0.95 too

    Returns
    -------
    DataFrame with h k l, intensity, sigma, dataset (DIALS's ``id``) and, where the columns are there, d_angstrom,
    angle_rad, frame, s1_x, s1_y, s1_z, absorption_factor.

    Raises
    ------
    InputError
        for a column that is missing, values that are not finite in rows that are flagged as good, nothing left.

    Notes
    -----
    The angle is that of ``xyzcal.mm``, where s1 was predicted, and without it of ``xyzobs.mm.value``, whose
    third number scatters by a part of an image for weak reflections.
    """
    if intensity not in _INTENSITIES:
        raise InputError(f"intensity must be one of {', '.join(_INTENSITIES)}, got {intensity!r}")
    # Damaged numbers overflow on the way; what is not finite in the end is refused by the name of its column.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        rows = _usable_rows(reflections, intensity, minimum_partiality)
        columns: dict[str, np.ndarray] = dict(
            zip("hkl", reflections.column("miller_index")[rows].T, strict=True)
        )
        columns["intensity"], columns["sigma"] = _intensities(reflections, intensity, rows)
        columns |= _geometry(reflections, rows)
    if ANALYTICAL_CORRECTION in reflections:
        columns[ABSORPTION] = reflections.column(ANALYTICAL_CORRECTION)[rows]
    return checked_observations(pd.DataFrame(columns, index=pd.Index(rows, name="row")))


def with_analytical_correction(
    reflections: ReflectionTable, rows: Sequence[int] | np.ndarray | pd.Index, factors: np.ndarray
) -> ReflectionTable:
    """``reflections`` with the column that dials.scale takes as a fixed correction.

    rows : (n,) rows that were corrected, the index of ``observations``; factors : (n,) 0 < A ≤ 1. The other rows
    get 1, dials.scale's neutral value; it leaves them out anyway. Raises InputError for rows that are not there or
    occur twice and factors that are none.
    """
    rows, factors = np.asarray(rows), np.asarray(factors, dtype=np.float64)
    if rows.shape != factors.shape or rows.ndim != 1:
        raise InputError(f"rows and factors must be of one length, got {rows.shape} and {factors.shape}")
    check_factors(factors)
    inside = rows.dtype.kind in "iu" and (
        rows.size == 0 or (rows.min() >= 0 and rows.max() < len(reflections))
    )
    if not inside or np.unique(rows).size != rows.size:
        raise InputError(
            f"rows must be different rows of the {len(reflections)} reflections; is the index kept?"
        )
    column = np.ones(len(reflections))
    column[rows] = factors
    return reflections.with_column(ANALYTICAL_CORRECTION, "double", column)


def _usable_rows(reflections: ReflectionTable, intensity: str, minimum_partiality: float) -> np.ndarray:
    value, variance, flag = _INTENSITIES[intensity]
    for name in (value, variance, "miller_index"):
        if name not in reflections:
            raise InputError(
                f"the reflections have no column {name!r}, which {intensity} intensities need; "
                "are they integrated (and scaled, for scaled ones)?"
            )
    flags = reflections.column("flags") if "flags" in reflections else None
    good = (reflections.column("miller_index") != 0).any(axis=1)
    if flags is not None and flag:
        good &= (flags & np.uint64(flag)) == flag
    if flags is not None and intensity == "scaled":
        good &= (flags & np.uint64(_BAD_FOR_SCALING)) == 0
        good &= reflections.column("inverse_scale_factor") > 0
    if "partiality" in reflections:
        good &= reflections.column("partiality") >= max(minimum_partiality, 1e-12)
    if "qe" in reflections and intensity != "scaled":
        good &= reflections.column("qe") > 0
    good &= ~(reflections.column(variance) <= 0)  # NaN stays in, to be refused by name
    rows = np.flatnonzero(good)
    if rows.size == 0:
        raise InputError(f"none of {len(reflections)} reflections is indexed and has {intensity} intensities")
    _log.info("%d of %d reflections are usable with %s intensities", rows.size, len(reflections), intensity)
    return rows


def _intensities(
    reflections: ReflectionTable, intensity: str, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    value, variance, _ = _INTENSITIES[intensity]
    correction = np.ones(rows.size)
    if intensity == "scaled":
        correction /= reflections.column("inverse_scale_factor")[rows]
    else:
        if "lp" in reflections:
            correction *= reflections.column("lp")[rows]
        if "qe" in reflections:
            correction /= reflections.column("qe")[rows]
        if intensity == "summation" and "partiality" in reflections:
            correction /= reflections.column("partiality")[rows]
    return reflections.column(value)[rows] * correction, np.sqrt(
        reflections.column(variance)[rows]
    ) * correction


def _geometry(reflections: ReflectionTable, rows: np.ndarray) -> dict[str, np.ndarray]:
    columns = {}
    if "d" in reflections:
        columns["d_angstrom"] = reflections.column("d")[rows]
    for kind in ("xyzcal.mm", "xyzobs.mm.value"):
        if kind in reflections and reflections.column(kind)[rows].any():  # all zero: never predicted
            columns["angle_rad"] = reflections.column(kind)[rows, 2]
            break
    for kind in ("xyzcal.px", "xyzobs.px.value"):
        if kind in reflections and reflections.column(kind)[rows].any():
            z = reflections.column(kind)[rows, 2]
            columns["frame"] = np.where(np.isfinite(z), np.floor(z) + 1, np.nan)  # images count from 1
            break
    if "s1" in reflections:
        s1 = reflections.column("s1")[rows]
        if not (np.linalg.norm(s1, axis=1) > 0).all():
            unset = np.flatnonzero(~(np.linalg.norm(s1, axis=1) > 0))
            raise InputError(
                f"s1 is zero or not a number in {unset.size} of {rows.size} usable reflections, the first row "
                f"{rows[unset[0]]}; they were not predicted, predict or leave them out"
            )
        columns |= dict(zip(S1, s1.T, strict=True))
    columns["dataset"] = (
        reflections.column("id")[rows] if "id" in reflections else np.zeros(rows.size, np.int32)
    )
    return columns
