"""Which way the tomogram lies: the orientation under which corrected equivalents agree.

Each of the 48 ways to lay the tomogram's axes is tried on measured equivalents. The right one makes equivalents
agree best; the 24 mirror images are tried only to be recognised. Nothing is returned where the data do not tell the
best from the second.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import gemmi
import numpy as np
import pandas as pd

from tomoforge.absorption.factors import absorption_factors
from tomoforge.absorption.goniometer import Experiment
from tomoforge.absorption.observations import checked_observations
from tomoforge.absorption.orientation import Orientation, same_goniometer, signed_permutations
from tomoforge.absorption.rays import sample_rays
from tomoforge.errors import InputError
from tomoforge.seeds import component_rng

_log = logging.getLogger(__name__)

_STRONG = 3.0  # I/σ from which the logarithm of an intensity has a near-normal error
# Errors that no correction of absorption removes (scale, damage, integration), relative: keeps a few very strong
# groups from deciding alone.
_SYSTEMATIC = 0.02
# More groups say more than larger ones: the significance is judged between groups.
_PER_GROUP = 4
_FEWEST_GROUPS = 20
_POINTS = 1024  # crystal points: A to a per cent or so, where 48 candidates are to be told apart


@dataclass(frozen=True)
class OrientationSearch:
    """orientation : the best; matrices : (48, 3, 3), what each candidate does after the orientation that the search
    began from, rotations first, identity first; disagreement : (48,) of equivalents, the mean of ln(1 + r²) over
    observations; uncorrected : the same without correction; significance : by how many standard errors the best
    beats the second; n_observations, n_groups : int, what decided.
    """

    orientation: Orientation
    matrices: np.ndarray
    disagreement: np.ndarray
    uncorrected: float
    significance: float
    n_observations: int
    n_groups: int


def find_orientation(
    labels: np.ndarray,
    voxel_size: float,
    mu: Mapping[int, float] | Sequence[float] | np.ndarray,
    observations: pd.DataFrame,
    experiment: Experiment,
    space_group: str,
    *,
    base: Orientation | None = None,
    crystal_label: int = 3,
    n_observations: int = 1000,
    significance: float = 4.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> OrientationSearch:
    """The orientation, among 24 quarter turns of ``base``, that makes corrected equivalents agree best.

    Parameters
    ----------
    labels : (z, y, x) integers; voxel_size : float [m]; mu : label → µ [1/m]; crystal_label : int
    observations : the shared table, uncorrected, of one experiment
    space_group : Hermann–Mauguin symbol; Friedel mates count as equivalents
    base : where the search begins, by default ``same_goniometer(experiment)``
    n_observations : int, about how many strong observations are used, four of a group at most
    significance : float, standard errors by which the best must beat the second and no correction at all

    Raises
    ------
    InputError
        when a mirror image fits best, when the best does not beat the second or no correction by
        ``significance``, when there are no equivalents; and as sample_rays and absorption_factors.

    Notes
    -----
    r is the standardised residual of y = ln(I/A) about its group's weighted mean, with the variance (σ/I)² + 0.02².
    The mean of ln(1 + r²), the likelihood of Cauchy's distribution, lets no outlier decide. The significance is
    that of its paired differences between two candidates over groups.
    """
    base = same_goniometer(experiment) if base is None else base
    table, group = _equivalents(observations, space_group, n_observations, seed)
    sample_in, sample_out = sample_rays(table, experiment)
    incoming, outgoing = sample_in @ base.matrix.T, sample_out @ base.matrix.T
    matrices = signed_permutations()
    relative = (table["sigma"] / table["intensity"]).to_numpy()
    weights, log_intensity = 1 / (relative**2 + _SYSTEMATIC**2), np.log(table["intensity"].to_numpy())

    shares = np.empty((len(matrices), int(group.max()) + 1))
    for i, matrix in enumerate(matrices):
        factors = absorption_factors(
            labels,
            voxel_size,
            mu,
            np.ascontiguousarray((incoming @ matrix.T)[:, ::-1]),
            np.ascontiguousarray((outgoing @ matrix.T)[:, ::-1]),
            crystal_label=crystal_label,
            target_error=_SYSTEMATIC / 2,
            max_points=_POINTS,
            seed=seed,
        )
        shares[i] = _disagreement(log_intensity - np.log(factors.a), weights, group)
        if progress is not None:
            progress(i + 1, len(matrices))
    uncorrected = _disagreement(log_intensity, weights, group)
    return _decided(base, matrices, shares, uncorrected, significance, len(table))


def check_orientation(
    orientation: Orientation,
    labels: np.ndarray,
    voxel_size: float,
    mu: Mapping[int, float] | Sequence[float] | np.ndarray,
    observations: pd.DataFrame,
    experiment: Experiment,
    space_group: str,
    *,
    crystal_label: int = 3,
    n_observations: int = 1000,
    significance: float = 4.0,
    seed: int = 0,
) -> OrientationSearch:
    """Whether ``orientation`` is the one that the data speak for. Arguments as find_orientation.

    Raises
    ------
    InputError
        where a quarter turn or a mirror image of it fits better, or the data cannot tell.
    """
    search = find_orientation(
        labels, voxel_size, mu, observations, experiment, space_group, base=orientation,
        crystal_label=crystal_label, n_observations=n_observations, significance=significance, seed=seed,
    )  # fmt: skip
    if np.argmin(search.disagreement) != 0:
        better = search.orientation.matrix.round(3).tolist()
        raise InputError(
            f"orientation {orientation.name or orientation.matrix.tolist()} is wrong: with {better} equivalents agree "
            f"better (disagreement {search.disagreement.min():.3g}, given {search.disagreement[0]:.3g}; "
            f"{search.significance:.1f} standard errors)"
        )
    return search


def _equivalents(
    observations: pd.DataFrame, space_group: str, n_observations: int, seed: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Strong observations in groups of two to four, drawn at random, and their group numbers."""
    symmetry = gemmi.find_spacegroup_by_name(space_group)
    if symmetry is None:
        raise InputError(f"space_group must be a Hermann–Mauguin symbol, got {space_group!r}")
    table = checked_observations(observations)
    table = table[table["intensity"] > _STRONG * table["sigma"]]
    asu, operations = gemmi.ReciprocalAsu(symmetry), symmetry.operations()
    unique = [asu.to_asu(hkl, operations)[0] for hkl in table[["h", "k", "l"]].to_numpy().tolist()]
    if not unique:
        raise InputError(
            f"no observation is stronger than {_STRONG:g} σ; orientation cannot be told from these data"
        )
    group = np.unique(np.array(unique), axis=0, return_inverse=True)[1].reshape(-1)
    rng = component_rng(seed, "absorption.orientation")
    order = rng.permutation(len(group))
    order = order[np.argsort(group[order], kind="stable")]  # by group, at random within each
    starts = np.searchsorted(group[order], group[order])
    rows = order[np.arange(len(order)) - starts < _PER_GROUP]
    sizes = np.bincount(group[rows])
    chosen = rng.permutation(np.flatnonzero(sizes > 1))
    chosen = chosen[: 1 + int(np.searchsorted(np.cumsum(sizes[chosen]), n_observations))]
    if len(chosen) < _FEWEST_GROUPS:
        raise InputError(
            f"only {len(chosen)} strong reflections were measured more than once, at least {_FEWEST_GROUPS} are needed "
            "to tell the orientation; is the space group right, and the table unmerged?"
        )
    rows = np.sort(rows[np.isin(group[rows], chosen)])
    return table.iloc[rows], np.unique(group[rows], return_inverse=True)[1].reshape(-1)


def _disagreement(values: np.ndarray, weights: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Each group's share of the mean of ln(1 + r²) over all observations: (group,)."""
    total, sizes = np.bincount(group, weights), np.bincount(group)
    mean = np.bincount(group, weights * values) / total
    # The mean is the group's own: residuals of n are short by the factor (n − 1)/n.
    squares = weights * (values - mean[group]) ** 2 * (sizes / (sizes - 1))[group]
    return np.bincount(group, np.log1p(squares)) / len(group)


def _decided(
    base: Orientation,
    matrices: np.ndarray,
    shares: np.ndarray,
    uncorrected: np.ndarray,
    significance: float,
    n_observations: int,
) -> OrientationSearch:
    scores = shares.sum(axis=1)
    best, second = np.argsort(scores)[:2]
    lead = _paired(shares[second] - shares[best])
    gain = _paired(uncorrected - shares[best])
    said = (
        f"disagreement of equivalents {scores[best]:.3g}, second {scores[second]:.3g}, "
        f"uncorrected {uncorrected.sum():.3g}"
    )
    _log.info("orientation: %s; %.1f standard errors", said, lead)
    if gain < significance:
        raise InputError(
            f"the geometry cannot be established: no orientation makes equivalents agree better than no correction "
            f"does ({said}); check µ, voxel size, axis and angles, or whether absorption is small here"
        )
    if lead < significance:
        raise InputError(
            f"the geometry cannot be established: the best orientation is only {lead:.1f} standard errors better than "
            f"the second ({said}), {significance:g} are asked; give more observations, or name the orientation"
        )
    if np.linalg.det(matrices[best]) < 0:
        raise InputError(
            f"a mirror image of the tomogram fits best ({said}): it was reconstructed mirrored; check the sign of its "
            "angles and flips of its images, or flip labels[::-1]"
        )
    found = Orientation(
        matrices[best] @ base.matrix, base.name if best == 0 else f"{base.name}, axes searched"
    )
    return OrientationSearch(
        found, matrices, scores, float(uncorrected.sum()), lead, n_observations, shares.shape[1]
    )


def _paired(differences: np.ndarray) -> float:
    """The sum of ``differences`` in units of its standard error."""
    error = float(np.sqrt(len(differences)) * np.std(differences))
    total = float(differences.sum())
    return total / error if error > 0 else 0.0
