"""What doubt about the labels does to absorption factors: factors over several label volumes.

The volumes may be several models' predictions, several people's drawings, or draws from one model's softmax
probabilities. Draws for each voxel alone would average out along a ray and show nothing: a boundary that a
model puts too far out it puts too far out over some length, and that length has to be given.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from tomoforge.absorption.factors import AbsorptionFactors, absorption_factors
from tomoforge.absorption.traced_sample import Attenuation
from tomoforge.errors import InputError
from tomoforge.seeds import component_rng, component_seed


def ensemble_factors(
    label_volumes: Iterable[np.ndarray],
    voxel_size: float,
    mu: Attenuation,
    incoming: np.ndarray,
    outgoing: np.ndarray,
    *,
    crystal_label: int | Sequence[int] = 3,
    target_error: float = 1e-3,
    seed: int = 0,
    method: Literal["auto", "table", "direct"] = "auto",
    mu_standard_error: Attenuation | None = None,
) -> AbsorptionFactors:
    """Mean factors over two or more label volumes, with the spread between them as ``segmentation_error``.

    label_volumes : (z, y, x) integers each, taken one at a time; the other arguments as for
    ``absorption_factors``. Raises InputError for fewer than two volumes, and as that does.

    Notes
    -----
    ``segmentation_error`` is the standard deviation of one volume, not of the mean, for the truth is taken
    to be one more of the kind; the sampling's own share of the variance is taken off it. Volumes that all
    err the same way do not show it.
    """
    found = [
        absorption_factors(
            labels, voxel_size, mu, incoming, outgoing,
            crystal_label=crystal_label, target_error=target_error, method=method,
            seed=component_seed(seed, "absorption.ensemble", number),
            mu_standard_error=mu_standard_error,
        )
        for number, labels in enumerate(label_volumes)
    ]  # fmt: skip
    if len(found) < 2:
        raise InputError(f"label_volumes must be two at least to differ, got {len(found)}")
    a = np.stack([one.a for one in found])
    numerical = np.stack([np.hypot(one.sampling_error, one.interpolation_error * one.a) for one in found])
    between = np.maximum(a.var(axis=0, ddof=1) - (numerical**2).mean(axis=0), 0.0)
    members = len(found)
    sampling = np.sqrt(np.mean([one.sampling_error**2 for one in found], axis=0) / members)
    mean, interpolation = a.mean(axis=0), max(one.interpolation_error for one in found)
    parts = [sampling, interpolation * mean, np.sqrt(between)]
    mu_error = None
    if mu_standard_error is not None:
        # One µ for all volumes: their errors by it go together.
        mu_error = np.mean([one.mu_error for one in found if one.mu_error is not None], axis=0)
        parts.append(mu_error)
    return replace(
        found[0],
        a=mean,
        standard_error=np.sqrt(np.sum(np.square(parts), axis=0)),
        sampling_error=sampling,
        interpolation_error=interpolation,
        mu_error=mu_error,
        segmentation_error=np.sqrt(between),
        n_points=np.sum([one.n_points for one in found], axis=0),
        converged=np.all([one.converged for one in found], axis=0),
        method=found[0].method if len({one.method for one in found}) == 1 else "mixed",
    )


def softmax_label_volumes(
    probabilities: np.ndarray, count: int, *, correlation_length: float, seed: int = 0
) -> Iterator[np.ndarray]:
    """Label volumes drawn from class probabilities, with errors that hold together over a length.

    Parameters
    ----------
    probabilities : (label, z, y, x) float, softmax output, sum 1 over labels
    count : int, volumes to draw
    correlation_length : float [voxels], standard deviation of the smoothing; 0 draws each voxel alone, inf the whole
        volume at once: every boundary of a draw lies too far out, or every one too far in
    seed : int

    Yields
    ------
    (z, y, x) uint8. Each voxel carries a label with just its probability.

    Notes: a smooth normal field, turned into a number 0 … 1 at each voxel, picks the label whose share of the
    cumulated probabilities it falls in. Where two labels meet, the boundary moves to and fro as one piece.
    The field wraps around the volume's edges.

    Raises InputError for probabilities that do not sum to 1, or a count or length that makes no sense.
    """
    array = np.asarray(probabilities)
    if array.ndim != 4 or not 1 <= len(array) <= 256:
        raise InputError(f"probabilities must be (label, z, y, x), got shape {array.shape}")
    if not (np.all(array >= 0) and np.allclose(array.sum(axis=0), 1, atol=1e-3)):
        raise InputError("probabilities must be ≥ 0 and sum to 1 over labels; are they logits?")
    if count < 1 or not correlation_length >= 0:
        raise InputError(
            f"count must be ≥ 1 and correlation_length ≥ 0 voxels, got {count}, {correlation_length!r}"
        )
    return (_draw(array, correlation_length, seed, number) for number in range(count))


def _draw(probabilities: np.ndarray, correlation_length: float, seed: int, number: int) -> np.ndarray:
    rng = component_rng(seed, "absorption.softmax", number)
    shape = probabilities.shape[1:]
    whole = np.isinf(correlation_length)
    field = np.full(shape, rng.standard_normal()) if whole else rng.standard_normal(shape)
    if correlation_length > 0 and not whole:
        # The same filter on one voxel tells the variance that is left.
        pulse = np.zeros(field.shape)
        pulse.flat[0] = 1.0
        field = gaussian_filter(field, correlation_length, mode="wrap")
        field /= np.sqrt((gaussian_filter(pulse, correlation_length, mode="wrap") ** 2).sum())
    level = ndtr(field)
    labels = np.zeros(field.shape, dtype=np.uint8)
    reached = np.zeros(field.shape)
    for probability in probabilities[:-1]:
        reached += probability
        labels += level > reached
    return labels
