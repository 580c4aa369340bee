"""The two rays of each reflection as the tomogram sees them, checked against the geometry that is claimed."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tomoforge.absorption.goniometer import (
    Experiment,
    diffracted_vectors,
    incident_vectors,
    sample_vectors,
)
from tomoforge.absorption.observations import S1, checked_observations
from tomoforge.absorption.orientation import Orientation
from tomoforge.errors import InputError

_log = logging.getLogger(__name__)

SOURCES = ("auto", "file", "crystal")
# Predicted s1 agree with the model to 1e-5. Observed angles scatter by part of an image, which moves s1 by
# thousandths; a wrong axis, sense or unit moves it by tenths.
TOLERANCE = 5e-3
_LENGTH_TOLERANCE = 1e-3


def ray_directions(
    observations: pd.DataFrame,
    experiment: Experiment | Sequence[Experiment],
    orientation: Orientation,
    *,
    source: str = "auto",
    tolerance: float = TOLERANCE,
) -> tuple[np.ndarray, np.ndarray]:
    """Directions of travel of beam and diffracted ray in the tomogram's frame, ready for ``absorption_factors``.

    Parameters
    ----------
    observations : the shared table, with angle_rad, and s1_x, s1_y, s1_z unless the experiment has a crystal
    experiment : one, or several, chosen by the column ``dataset``
    orientation : laboratory to tomogram
    source : "file" takes s1 from the table, "crystal" from s₀ + S·R·F·A·h, "auto" the table's where it has them
    tolerance : float [rad], how far the table's s1 may lie from the crystal's, in the median

    Returns
    -------
    incoming, outgoing : (observation, 3) float64 unit vectors (z, y, x)

    Raises
    ------
    InputError
        for missing angles or s1, s1 whose length is not 1/λ, and s1 that do not fit the goniometer, with what
        would make them fit.
    """
    sample_in, sample_out = sample_rays(observations, experiment, source=source, tolerance=tolerance)
    return orientation.to_array(sample_in), orientation.to_array(sample_out)


def sample_rays(
    observations: pd.DataFrame,
    experiment: Experiment | Sequence[Experiment],
    *,
    source: str = "auto",
    tolerance: float = TOLERANCE,
) -> tuple[np.ndarray, np.ndarray]:
    """As ray_directions, before orientation: (observation, 3) unit vectors in laboratory (x, y, z) at zero."""
    if source not in SOURCES:
        raise InputError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
    table = checked_observations(observations, require=("angle_rad",))
    incoming, outgoing = np.empty((len(table), 3)), np.empty((len(table), 3))
    for rows, one in _by_experiment(table, experiment):
        angles = table["angle_rad"].to_numpy()[rows]
        _check_angles(angles, one)
        s0 = incident_vectors(one, angles)
        s1 = _diffracted(table.iloc[rows], one, angles, source, tolerance)
        incoming[rows] = sample_vectors(one, _unit(s0), angles)
        outgoing[rows] = sample_vectors(one, _unit(s1), angles)
    return incoming, outgoing


def check_geometry(observations: pd.DataFrame, experiment: Experiment, tolerance: float = TOLERANCE) -> float:
    """How far the table's s1 lie from s₀ + S·R·F·A·h: median angle [rad].

    Raises InputError when the median exceeds ``tolerance`` or a tenth of the reflections five times that, naming
    what would make them agree: the sense of rotation, the beam, degrees, a setting that was left out.
    """
    table = checked_observations(observations, require=("angle_rad", *S1))
    s1, angles = table[list(S1)].to_numpy(), table["angle_rad"].to_numpy()
    hkl = table[["h", "k", "l"]].to_numpy()
    errors = _angles_between(s1, diffracted_vectors(experiment, hkl, angles))
    median, late = float(np.median(errors)), float(np.quantile(errors, 0.9))
    if median <= tolerance and late <= 5 * tolerance:
        return median
    fits = [
        what
        for what, other, factor in _suspects(experiment)
        if np.median(_angles_between(s1, diffracted_vectors(other, hkl, factor * angles))) <= tolerance
    ]
    hint = (
        f"they agree with {' or with '.join(fits)}"
        if fits
        else "check axis, sense, and that the files belong together"
    )
    raise InputError(
        f"s1 of the reflections and the experiment's geometry disagree by {np.degrees(median):.3g}° in the median "
        f"({np.degrees(tolerance):.3g}° is allowed): {hint}"
    )


def _diffracted(
    table: pd.DataFrame, experiment: Experiment, angles: np.ndarray, source: str, tolerance: float
) -> np.ndarray:
    in_file = all(name in table.columns for name in S1)
    if source == "file" and not in_file:
        raise InputError(
            f"the reflections have no s1 (columns {', '.join(S1)}); predict them, or give a crystal"
        )
    if source == "crystal" or not in_file:
        if experiment.crystal is None:
            raise InputError(
                "there is no s1: the reflections have no columns s1_x, s1_y, s1_z and the experiment no crystal to "
                "compute them from; give the .expt that belongs to the indexed reflections"
            )
        s1 = diffracted_vectors(experiment, table[["h", "k", "l"]].to_numpy(), angles)
    else:
        s1 = table[list(S1)].to_numpy()
    if source == "crystal" or not in_file:
        # Angles that are observed or the middle of a batch leave |s1| scattering, a few of them far.
        _check_lengths(s1, experiment, tolerance, 0.9)
    else:
        _check_lengths(s1, experiment, _LENGTH_TOLERANCE, 1.0)
    if in_file and experiment.crystal is not None:
        check_geometry(table, experiment, tolerance)
    elif in_file:
        _log.warning("the experiment has no crystal: axis and sense of rotation cannot be checked against s1")
    return s1


def _check_lengths(s1: np.ndarray, experiment: Experiment, tolerance: float, share: float) -> None:
    """Refuse s1 (n, 3) off the Ewald sphere: the median by ``tolerance``, ``share`` of them by ten times that."""
    lengths = np.linalg.norm(s1, axis=1) * experiment.beam.wavelength_angstrom
    median = float(np.median(lengths))
    if not abs(median - 1) <= tolerance:
        raise InputError(
            f"s1 must have length 1/λ, λ·|s1| is {median:.6g} in the median; do the reflections belong to this "
            f"experiment (λ = {experiment.beam.wavelength_angstrom:.6g} Å), their indices and angles too?"
        )
    worst = float(np.quantile(np.abs(lengths - 1), share))
    if not worst <= 10 * tolerance:
        raise InputError(
            f"s1 must have length 1/λ, λ·|s1| is off by up to {worst:.3g}; leave reflections that were never "
            "predicted out, and check that indices and angles belong to this experiment"
        )


def _check_angles(angles: np.ndarray, experiment: Experiment) -> None:
    sweep = experiment.sweep
    ends = sorted((sweep.start, sweep.start + sweep.n_images * sweep.width))
    margin = max(5 * abs(sweep.width), np.radians(2))
    outside = np.flatnonzero((angles < ends[0] - margin) | (angles > ends[1] + margin))
    if outside.size:
        raise InputError(
            f"angle_rad must lie in the sweep, {ends[0]:.4g} … {ends[1]:.4g} rad, {outside.size} of {len(angles)} do "
            f"not, the first is {angles[outside[0]]:.6g}; are they degrees, or of another sweep?"
        )


def _suspects(experiment: Experiment) -> list[tuple[str, Experiment, float]]:
    gonio, beam = experiment.goniometer, experiment.beam
    plain = np.eye(3)
    return [
        (
            "the rotation sense reversed",
            replace(experiment, goniometer=replace(gonio, rotation_axis=-gonio.rotation_axis)),
            1.0,
        ),
        ("the beam reversed", replace(experiment, beam=replace(beam, direction=-beam.direction)), 1.0),
        ("angles taken as degrees", experiment, float(np.radians(1))),
        ("no setting rotation", replace(experiment, goniometer=replace(gonio, setting_rotation=plain)), 1.0),
        ("no fixed rotation", replace(experiment, goniometer=replace(gonio, fixed_rotation=plain)), 1.0),
    ]


def _by_experiment(
    table: pd.DataFrame, experiment: Experiment | Sequence[Experiment]
) -> list[tuple[np.ndarray, Experiment]]:
    if isinstance(experiment, Experiment):
        return [(np.arange(len(table)), experiment)]
    if len(experiment) == 1:
        return [(np.arange(len(table)), experiment[0])]
    if "dataset" not in table.columns:
        raise InputError(
            f"observations need the column dataset to choose among {len(experiment)} experiments"
        )
    dataset = table["dataset"].to_numpy()
    found = []
    for value in pd.unique(table["dataset"]):
        if not isinstance(value, (int, np.integer)) or not 0 <= value < len(experiment):
            raise InputError(
                f"dataset must be an index into the {len(experiment)} experiments, got {value!r}"
            )
        found.append((np.flatnonzero(dataset == value), experiment[int(value)]))
    return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _angles_between(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    # By the chord: arccos of nearly parallel vectors is all rounding.
    return 2 * np.arcsin(np.clip(np.linalg.norm(_unit(u) - _unit(v), axis=1) / 2, 0, 1))
