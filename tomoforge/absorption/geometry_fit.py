"""Beam, axis and crystal from the reflections alone, where the experiment file is missing.

Every indexed reflection with its s₁ and angle says s₁ = s₀ + R(φ)·A·h. A few dozen of them fix s₀ (3 numbers), A (9)
and the rotation axis with its sense (2).
"""

import numpy as np
import pandas as pd
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from tomoforge.absorption.goniometer import Beam, Crystal, Experiment, Goniometer, Sweep, unit_vector
from tomoforge.absorption.observations import S1, checked_observations
from tomoforge.errors import InputError
from tomoforge.units import ANGSTROM

_FEWEST = 20
_MOST = 2000  # more add nothing to 14 numbers
_WINDOWS_DEG = (0.5, 2.0, 8.0, 30.0, 120.0, np.inf)


def fitted_experiment(
    observations: pd.DataFrame, space_group: str = "P 1", tolerance: float = 1e-3, axis_error: float = 0.02
) -> Experiment:
    """The experiment that the reflections of one sweep speak for.

    Parameters
    ----------
    observations : the shared table with angle_rad and s1_x, s1_y, s1_z
    space_group : Hermann–Mauguin symbol, handed on
    tolerance : float [rad], root mean square of what the fit leaves in s1
    axis_error : float [rad], largest standard error of the rotation axis

    Returns
    -------
    Experiment with one goniometer axis; setting and fixed rotation are part of axis and crystal.

    Raises
    ------
    InputError
        for too few reflections, s1 that no such geometry explains, an axis that the sweep is too short to tell.
    """
    table = checked_observations(observations, require=("angle_rad", *S1))
    s1, angles = table[list(S1)].to_numpy(), table["angle_rad"].to_numpy()
    hkl = table[["h", "k", "l"]].to_numpy(dtype=np.float64)
    if len(table) < _FEWEST:
        raise InputError(
            f"at least {_FEWEST} reflections are needed to establish the geometry, got {len(table)}"
        )
    wavenumber = float(np.median(np.linalg.norm(s1, axis=1)))
    parameters, error = _fit(s1 / wavenumber, hkl, angles)
    left = _residuals(parameters, s1 / wavenumber, hkl, angles)
    rms = float(np.sqrt(np.mean(np.sum(left.reshape(-1, 3) ** 2, axis=1))))
    if not rms <= tolerance:
        raise InputError(
            f"the geometry cannot be established: s1 = s0 + R·A·h leaves {rms:.3g} rad ({tolerance:g} are allowed); "
            "are there several sweeps or lattices in the table, or a crystal that moved?"
        )
    if not error <= axis_error:
        raise InputError(
            f"the geometry cannot be established: the rotation axis is known to {np.degrees(error):.3g}° only "
            f"({np.degrees(axis_error):.3g}° are asked) from {np.degrees(np.ptp(angles)):.3g}° of rotation; "
            "give the .expt"
        )
    s0, matrix, axis = _split(parameters)
    # The fit's own |s0| is the poorer measure of 1/λ than the reflections' |s1|.
    return Experiment(
        Beam(unit_vector("s0", s0), ANGSTROM / wavenumber),
        Goniometer(axis, np.eye(3), np.eye(3)),
        Sweep((1, 1), float(angles.min()), float(max(np.ptp(angles), 1e-6))),
        Crystal(matrix * wavenumber, space_group),
    )


def _fit(s1: np.ndarray, hkl: np.ndarray, angles: np.ndarray) -> tuple[np.ndarray, float]:
    """Parameters (15,), s1 in units of 1/λ, and the standard error [rad] of the axis."""
    middle = float(np.median(angles))
    order = np.argsort(np.abs(angles - middle), kind="stable")
    trials = [np.array(axis, dtype=np.float64) for axis in np.vstack([np.eye(3), -np.eye(3)])]
    best: list[np.ndarray] = []
    result = None
    # From a narrow range of angles, where rotation is nearly linear, outwards: a wide range has false minima.
    for window in _WINDOWS_DEG:
        near = order[np.abs(angles[order] - middle) <= np.radians(window)]
        if len(near) < _FEWEST and window < _WINDOWS_DEG[-1]:
            continue
        rows = near[:: max(1, len(near) // _MOST)]
        if not best:
            best = [_start(s1[rows], hkl[rows], axis, middle) for axis in trials]
        fits = [least_squares(_residuals, p, args=(s1[rows], hkl[rows], angles[rows])) for p in best]
        result = min(fits, key=lambda fit: fit.cost)
        best = [result.x]
    assert result is not None
    return result.x, _axis_error(result)


def _start(s1: np.ndarray, hkl: np.ndarray, axis: np.ndarray, middle: float) -> np.ndarray:
    """s0 and R(middle)·A by linear least squares as if nothing turned, A turned back about ``axis``."""
    design = np.column_stack([np.ones(len(hkl)), hkl])
    solution = np.linalg.lstsq(design, s1, rcond=None)[0]
    back = Rotation.from_rotvec(-middle * axis).as_matrix()
    return np.concatenate([solution[0], (back @ solution[1:].T).ravel(), axis])


def _split(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    axis = parameters[12:15] / np.linalg.norm(parameters[12:15])
    return parameters[:3], parameters[3:12].reshape(3, 3), axis


def _residuals(parameters: np.ndarray, s1: np.ndarray, hkl: np.ndarray, angles: np.ndarray) -> np.ndarray:
    s0, matrix, axis = _split(parameters)
    turned = Rotation.from_rotvec(np.multiply.outer(angles, axis)).apply(hkl @ matrix.T)
    return (s0 + turned - s1).ravel()


def _axis_error(result: object) -> float:
    jacobian, residuals = result.jac, result.fun  # type: ignore[attr-defined]
    # The axis' length is free: the pseudo-inverse leaves that direction out.
    covariance = np.linalg.pinv(jacobian.T @ jacobian, rcond=1e-14)
    variance = float(residuals @ residuals) / max(len(residuals) - 14, 1)
    length = float(np.linalg.norm(result.x[12:15]))  # type: ignore[attr-defined]
    return float(np.sqrt(max(variance * np.trace(covariance[12:15, 12:15]), 0.0))) / length
