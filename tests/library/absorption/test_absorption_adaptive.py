"""Points where the light is: exact means of voxel bodies, honest errors under strong absorption, fair cells."""

import numba
import numpy as np
import pytest

from tomoforge.absorption.adaptive import adaptive_estimates
from tomoforge.absorption.direct import direct_estimate
from tomoforge.absorption.factors import absorption_factors
from tomoforge.absorption.illumination import BeamProfile
from tomoforge.absorption.octree import crystal_octree
from tomoforge.absorption.sampling import crystal_strata
from tomoforge.absorption.traced_sample import TracedSample, traced_sample

VOXEL = 1e-6
BEAM = np.array([[0.0, 1.0, 0.0]])


def _ball(radius: float) -> np.ndarray:
    grid = np.indices((2 * int(radius) + 4,) * 3) - (2 * int(radius) + 3) / 2
    return np.where((grid**2).sum(axis=0) <= radius**2, 3, 0).astype(np.uint8)


def _sample(labels: np.ndarray, mu: float, profile: BeamProfile | None = None) -> TracedSample:
    """``mu`` per voxel length."""
    return traced_sample(labels, VOXEL, {3: mu / VOXEL}, 3, profile)


def _units(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("mu_r", [1.0, 3.0, 5.0])
def test_adaptive_estimates__are_the_sums_over_columns_of_a_voxel_body(mu_r):
    # Along an axis a column of n voxels has the same way through everywhere, n; backwards its exact mean is
    # (1 − e^(−2µn))/(2µn). At µR = 5 a rim of 1 % of the crystal makes all of the first.
    labels, mu = _ball(24.0), mu_r / 24
    column = (labels == 3).sum(axis=1)
    want = np.array(
        [np.sum(column * np.exp(-mu * column)), np.sum((1 - np.exp(-2 * mu * column)) / (2 * mu))]
    )
    got = adaptive_estimates(
        _sample(labels, mu), np.repeat(BEAM, 2, axis=0), np.concatenate([BEAM, -BEAM]), 5e-4, 2**17, seed=0
    )
    assert np.all(got.standard_error <= 5e-4 * got.a)
    assert np.all(np.abs(got.a - want / column.sum()) < 4 * got.standard_error)


@pytest.mark.parametrize(("mu_r", "target"), [(2.0, 1e-2), (5.0, 1.5e-2)])
def test_adaptive_estimates__95_percent_intervals_cover_92_to_98(mu_r, target):
    # 200 seeds, three pairs of rays: 600 intervals, whose share is good to 0.9 %.
    sample, beams, exits = _sample(_ball(12.0), mu_r / 12), _units(3, seed=1), _units(3)
    truth = adaptive_estimates(sample, beams, exits, 1e-9, 2**18, seed=10**6)
    assert np.all(truth.standard_error < 5e-4 * truth.a)  # a fifteenth of what is tested
    covered, errors = [], []
    for seed in range(200):
        got = adaptive_estimates(sample, beams, exits, target, 2**17, seed)
        covered.append(np.abs(got.a - truth.a) < 1.96 * got.standard_error)
        errors.append(got.a / truth.a - 1)
    assert 0.92 < np.mean(covered) < 0.98
    # Unbiased: four standard errors of the mean, 0.3 of one draw's, and what the truth is off.
    bias, scatter = np.mean(errors, axis=0), np.std(errors, axis=0)
    assert np.all(np.abs(bias) < 4 * scatter / np.sqrt(200) + 3 * truth.standard_error / truth.a)


def test_adaptive_estimates__cover_and_agree_with_even_points_where_voxels_are_crystal_in_part():
    sample = traced_sample(_ball(8.0), 1.0, {3: 2 / 8}, 3, surface="smooth")
    beams, exits = _units(3, seed=1), _units(3)
    draws = [adaptive_estimates(sample, beams, exits, 1.5e-2, 2**17, seed) for seed in range(60)]
    a, error = np.array([d.a for d in draws]), np.array([d.standard_error for d in draws])
    mean = a.mean(axis=0)
    # 180 intervals, whose share is good to 1.6 %, about the mean of all draws.
    assert 0.90 < np.mean(np.abs(a - mean) < 1.96 * error) <= 0.995
    even, even_error = direct_estimate(sample, beams, exits, sample.quadrature(2**16, 0))
    assert np.all(np.abs(mean - even) < 4 * np.hypot(even_error, a.std(axis=0) / np.sqrt(60)))


def test_adaptive_estimates__points_that_agree_by_chance_claim_no_certainty():
    # Few columns of few voxels: the four points of a cell often have the very same way, and others are missed.
    labels, mu = _ball(7.0), 5 / 7
    column = (labels == 3).sum(axis=1)
    want = np.sum(column * np.exp(-mu * column)) / column.sum()
    sample = _sample(labels, mu)
    found = [adaptive_estimates(sample, BEAM, BEAM, 1e-2, 2**17, seed) for seed in range(60)]
    covered = [abs(one.a[0] - want) < 1.96 * one.standard_error[0] for one in found]
    assert np.mean(covered) > 0.85  # 95 % less 3.5 binomial standard errors


def test_adaptive_estimates__depend_on_their_own_rays_and_seed_alone():
    sample, beams, exits = _sample(_ball(10.0), 0.3), _units(5, seed=2), _units(5)
    together = adaptive_estimates(sample, beams, exits, 4e-3, 2**15, seed=3)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        some = adaptive_estimates(sample, beams[3:0:-2], exits[3:0:-2], 4e-3, 2**15, seed=3)
    finally:
        numba.set_num_threads(before)
    assert some.a.tobytes() == together.a[3:0:-2].tobytes()
    other = adaptive_estimates(sample, beams, exits, 4e-3, 2**15, seed=4)
    assert not np.any(other.a == together.a)


def test_adaptive_estimates__stop_at_the_cap():
    got = adaptive_estimates(_sample(_ball(10.0), 0.5), BEAM, _units(1), 1e-6, 4000, seed=0)
    assert 3000 < got.n_points[0] <= 4000
    assert got.standard_error[0] > 1e-6 * got.a[0]


def test_adaptive_estimates__of_a_beam_that_lights_a_part_are_its_weighted_mean():
    # A cube and a beam along an axis, Gaussian across: A = e^(−µn) whatever is lit, and the lit share is the profile's.
    labels = np.full((16, 16, 16), 3, dtype=np.uint8)
    profile = BeamProfile("gaussian", height=4 * VOXEL, width=6 * VOXEL)
    sample = _sample(labels, 0.2, profile)
    got = adaptive_estimates(
        sample, np.repeat(BEAM, 2, axis=0), np.concatenate([BEAM, -BEAM]), 1e-3, 2**16, 0
    )
    np.testing.assert_allclose(got.a, [np.exp(-3.2), (1 - np.exp(-6.4)) / 6.4], rtol=4e-3)
    points = np.random.default_rng(0).random((40000, 3)) * 16
    mean = sample.beam_weights(BEAM, points).mean()
    np.testing.assert_allclose(got.illuminated, mean, rtol=0.03)  # 40,000 points: 0.5 %; four draws to a cell


def test_absorption_factors__hard_reflections_get_points_of_their_own():
    labels, exits = _ball(20.0), np.concatenate([_units(6), BEAM])
    mu = {3: 5 / (20 * VOXEL)}
    got = absorption_factors(labels, VOXEL, mu, BEAM[0], exits)
    assert got.method == "direct" and got.converged.all()
    # Spread evenly, 2¹⁶ points leave these at 1 % and more.
    assert got.n_points.max() < 2**17
    few = absorption_factors(labels, VOXEL, mu, BEAM[0], exits, max_points=2**12)
    assert np.all(few.n_points <= 2**12) and not few.converged.any()
    np.testing.assert_array_less(np.abs(few.a - got.a), 5 * np.hypot(few.standard_error, got.standard_error))


def test_crystal_octree__cells_hold_the_crystal_once_and_points_lie_in_them():
    labels = np.zeros((13, 21, 9), dtype=np.uint8)
    labels[2:12, 1:20, 3:8] = 3
    labels[5:7, 4:9, :] = 1
    octree, rng = crystal_octree(crystal_strata(labels, 3)), np.random.default_rng(0)
    cells = octree.cells(100)
    for _ in range(3):
        assert cells.volume.sum() == pytest.approx((labels == 3).sum(), rel=1e-12)
        points = octree.draw(cells, rng)
        assert np.all(labels[tuple(np.floor(points.reshape(-1, 3)).astype(int).T)] == 3)
        # The two of a pair are mirror images in a box: their middle is the box's, for both pairs alike.
        middle = (points[0] + points[1] - points[2] - points[3])[cells.is_full]
        np.testing.assert_allclose(middle, 0, atol=1e-9)
        cells = octree.split(cells, rng.integers(0, 7, len(cells.code)))
    assert cells.edge.min() < 1  # also inside voxels


def test_crystal_octree__points_of_a_partial_cell_are_uniform_in_its_crystal():
    labels = np.zeros((4, 4, 4), dtype=np.uint8)
    labels[0, 0, 0] = labels[3, 1, 2] = labels[1, 3, 3] = 3
    octree, rng = crystal_octree(crystal_strata(labels, 3)), np.random.default_rng(1)
    cells = octree.cells(1)
    assert len(cells.code) == 1 and not cells.is_full[0]
    hits = np.zeros(labels.shape)
    for _ in range(1000):
        np.add.at(hits, tuple(np.floor(octree.draw(cells, rng)[:, 0]).astype(int).T), 1)
    # 4000 points in three voxels, pairs opposed: at most binomial, deviation 30; four.
    np.testing.assert_allclose(hits[labels == 3], 4000 / 3, atol=120)
