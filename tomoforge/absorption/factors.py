"""Absorption factors: what a reflection keeps of its intensity on the way in and out of the sample.

A_h = (1/V) ∫ exp(−Σ_m µ_m (L_in,m + L_out,m)) dV over the crystal, the mean of the product and never the
product of means: a point deep on the way in may be shallow on the way out.

References: W. R. Busing, H. A. Levy, Acta Cryst. 10 (1957) 180–182, eq. (1).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tomoforge.absorption import paths
from tomoforge.absorption.illumination import BeamProfile
from tomoforge.absorption.path_table import path_table
from tomoforge.absorption.refinement import CONFIDENCE, Estimates, refine
from tomoforge.absorption.smooth_surface import Surface
from tomoforge.absorption.traced_sample import Attenuation, traced_sample
from tomoforge.errors import InputError, MaterialError

MAX_POINTS = 2**17
_MU_POINTS = 512  # crystal points for dA/dµ: an error of an error needs no more than per cents

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class AbsorptionFactors:
    """Absorption factors and how well they are known.

    a : (reflection,) float64, 0 < A ≤ 1 (under a table's interpolation errors, a hair more at most)
    standard_error : (reflection,) float64, of A: all the parts below that are known, in quadrature. Without
        errors of µ and without segmentation errors it is the numerical part alone: a wrong µ, wrong
        labels or voxels that miss the true shape are not in it.
    sampling_error : (reflection,) float64, from the crystal points
    interpolation_error : float, relative to A, from the table's directions; 0 for the direct method
    mu_error, segmentation_error : (reflection,) float64, or None where nothing was said of them
    n_points : (reflection,) int64, crystal points of the estimate
    converged : (reflection,) bool, two standard errors of sampling and interpolation ≤ target_error · A
    target_error : float, relative, at 95 % confidence; max_points : int, the cap on points; crystal_voxels : int
    method : "table", "direct", or "mixed" where the table left some reflections to the direct method
    illuminated_fraction : (reflection,) float64, mean weight of the beam's profile over the crystal, by which
        the intensity falls besides A; None without a profile
    """

    a: np.ndarray
    standard_error: np.ndarray
    n_points: np.ndarray
    converged: np.ndarray
    target_error: float
    max_points: int
    crystal_voxels: int
    sampling_error: np.ndarray
    interpolation_error: float = 0.0
    mu_error: np.ndarray | None = None
    segmentation_error: np.ndarray | None = None
    method: Literal["table", "direct", "mixed"] = "direct"
    illuminated_fraction: np.ndarray | None = None

    @property
    def transmission_range(self) -> tuple[float, float]:
        """Least and greatest A: ``_exptl_absorpt_correction_T_min`` and ``_T_max`` of a CIF.

        Raises InputError if there are no reflections.
        """
        if len(self.a) == 0:
            raise InputError("factors hold no reflection, so there is no least or greatest transmission")
        return float(self.a.min()), float(self.a.max())


def absorption_factors(
    labels: np.ndarray,
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
    profile: BeamProfile | None = None,
    air_path: float | np.ndarray = 0.0,
    max_points: int = MAX_POINTS,
    surface: Surface = "voxels",
    progress: Progress | None = None,
) -> AbsorptionFactors:
    """A_h = mean over crystal points of exp(−Σ µ_m (L_in,m + L_out,m)) for each reflection.

    Parameters
    ----------
    labels : (z, y, x) integers 0 … 255; on a GPU (CuPy) the rays are traced and summed there, in float64
    voxel_size : float [m]
    mu : label → µ [1/m], or a sequence indexed by label; background (0) is 0 unless given, and with a µ of
        its own it counts exactly to the volume's edge
    incoming : (reflection, 3) or (3,) unit vectors (z, y, x) in the sample frame, the way the beam travels
    outgoing : (reflection, 3) unit vectors (z, y, x) in the sample frame, the way the diffracted ray travels
    crystal_label : int, or several for crystals that diffract together
    target_error : float, numerical error relative to A that two standard errors are to stay within
    seed : int
    method : "direct" traces every ray; "table" traces a grid of directions and interpolates; "auto" takes the
        table where it needs fewer rays
    mu_standard_error : label → standard error of µ [1/m], independent of each other; labels left out are exact
    profile : of a beam smaller than the crystal: A is then Σ w T / Σ w over the lit part
    air_path : float or (reflection,) [m], way through label 0 beyond the volume, in and out together
    max_points : int, crystal points at most for one reflection; an odd number is rounded down
    surface : "voxels" traces the labels as they are, steps and all; "smooth" a body with smooth surfaces of which the
        labels say where voxel centres lie (``tomoforge.absorption.smooth_surface``)
    progress : called with (reflections finished, reflections)

    Returns
    -------
    AbsorptionFactors; reflections that reach ``max_points`` first have ``converged`` False.

    Raises
    ------
    InputError
        for labels without crystal, vectors that are not finite and of unit length, sizes that do not
        match, a voxel size or target that is not positive, a beam that misses the crystal, a transmission
        that vanishes altogether.
    MaterialError
        for a label without µ, a µ that is negative or not finite.

    Notes
    -----
    Points come in pairs from strata of equal volume, with the crystal's moments as control variates
    (``tomoforge.absorption.quadrature``); a pilot of 512 points tells how many each reflection needs. Where these would
    be more than a few thousand for rays traced one by one, as under strong absorption, it gets points of its own
    where its light is (``tomoforge.absorption.adaptive``). By the direct
    method a factor depends on the seed and on nothing else in the call, neither on the other reflections
    nor on the number of threads. By the table it depends on the other reflections within its errors, through
    the grid that they need. Reflections with equally many points share them, so that the errors
    within one call go together like one draw.
    """
    beams, exits = _ray_pairs(incoming, outgoing)
    if not (np.isfinite(target_error) and target_error > 0):
        raise InputError(f"target_error must be a positive relative error, got {target_error!r}")
    if max_points < 2:
        raise InputError(f"max_points must be at least 2 (a pair), got {max_points}")
    if method not in ("auto", "table", "direct"):
        raise InputError(f'method must be "auto", "table" or "direct", got {method!r}')
    sample = traced_sample(labels, voxel_size, mu, crystal_label, profile, surface)
    outside = _air_depth(air_path, sample.mu[0] / sample.voxel_size, len(exits))
    cap = max_points - max_points % 2
    found = refine(sample, beams, exits, target_error / CONFIDENCE, cap, seed, method, progress)
    air = np.exp(-outside)
    if mu_standard_error is None:
        return _factors(found, air, None, target_error, cap, sample.strata.voxels)
    sigma = _sigmas(mu_standard_error)
    table = path_table(
        labels, voxel_size, incoming, outgoing,
        crystal_label=crystal_label, n_points=min(_MU_POINTS, cap), background=bool(sample.mu[0] > 0), seed=seed,
        profile=profile, surface=surface,
    )  # fmt: skip
    error = table.mu_error(mu, sigma)
    outside_error = air * found.a * sigma.get(0, 0.0) * np.broadcast_to(air_path, air.shape)
    return _factors(found, air, np.hypot(air * error, outside_error), target_error, cap, sample.strata.voxels)


def _factors(
    found: Estimates,
    air: np.ndarray,
    mu_error: np.ndarray | None,
    target_error: float,
    cap: int,
    voxels: int,
) -> AbsorptionFactors:
    """The estimates seen through ``air`` (reflection,), with their errors together."""
    a, sampling = found.a * air, found.sampling_error * air
    numerical = np.hypot(sampling, found.bias * a)
    return AbsorptionFactors(
        a=a,
        standard_error=numerical if mu_error is None else np.hypot(numerical, mu_error),
        n_points=found.n_points,
        converged=CONFIDENCE * numerical <= target_error * a,
        target_error=target_error,
        max_points=cap,
        crystal_voxels=voxels,
        sampling_error=sampling,
        interpolation_error=float(found.bias.max(initial=0.0)),
        mu_error=mu_error,
        method=found.method,
        illuminated_fraction=found.illuminated_fraction,
    )


def _sigmas(given: Attenuation) -> dict[int, float]:
    pairs = given.items() if isinstance(given, Mapping) else enumerate(given)
    sigma = {int(label): float(value) for label, value in pairs}
    wrong = {label: value for label, value in sigma.items() if not (np.isfinite(value) and value >= 0)}
    if wrong:
        raise MaterialError(f"mu_standard_error must be finite and ≥ 0 in 1/m, got {wrong} (label: error)")
    return sigma


def _air_depth(air_path: float | np.ndarray, mu_air: float, count: int) -> np.ndarray:
    path = np.asarray(air_path, dtype=np.float64)
    if path.shape not in ((), (count,)) or not np.all(np.isfinite(path) & (path >= 0)):
        raise InputError(
            f"air_path must be one length [m] ≥ 0 or one for each of {count} reflections, got "
            f"{path.shape if path.ndim else air_path!r}"
        )
    return np.broadcast_to(path * mu_air, (count,))


def _ray_pairs(incoming: np.ndarray, outgoing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    exits = paths.unit_vectors("outgoing", outgoing)
    beams = np.asarray(incoming, dtype=np.float64)
    beams = paths.unit_vectors("incoming", beams[None] if beams.ndim == 1 else beams)
    if len(beams) not in (1, len(exits)):
        raise InputError(
            f"incoming must be one vector or as many as outgoing ({len(exits)}), got {len(beams)}"
        )
    return np.broadcast_to(beams, exits.shape), exits
