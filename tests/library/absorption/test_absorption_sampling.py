"""Stratified points: where they lie, that they are fair, that they beat independent ones."""

import numpy as np
import pytest

from tomoforge.absorption.sampling import crystal_strata, morton_code, stratified_crystal_points
from tomoforge.errors import InputError


def _ball(n: int, radius: float) -> np.ndarray:
    grid = np.indices((n, n, n)) - (n - 1) / 2
    return np.where((grid**2).sum(axis=0) <= radius**2, 3, 1).astype(np.uint8)


def test_stratified_points__lie_in_crystal_voxels():
    labels = _ball(21, 8.3)
    points = stratified_crystal_points(labels, 3, 5000, np.random.default_rng(0))
    assert points.shape == (5000, 3)
    assert np.all(labels[tuple(np.floor(points + 0.5).astype(int).T)] == 3)


@pytest.mark.parametrize("count", [1, 7, 100, 1000])
def test_stratified_points__one_in_each_equal_stratum_of_the_sorted_voxels(count):
    labels = _ball(19, 7.0)
    voxels = np.argwhere(labels == 3)
    voxels = voxels[np.argsort(morton_code(voxels))]
    rank_of = {tuple(v): i for i, v in enumerate(voxels.tolist())}
    points = stratified_crystal_points(labels, 3, count, np.random.default_rng(1))
    ranks = np.array([rank_of[tuple(v)] for v in np.floor(points + 0.5).astype(int).tolist()])
    border = np.arange(count + 1) * len(voxels) / count
    # A voxel on a border belongs to both strata: its unit interval must overlap its stratum.
    assert np.all(ranks + 1 > border[:-1])
    assert np.all(ranks < border[1:])


def test_stratified_points__every_voxel_equally_likely_when_strata_are_no_whole_voxels():
    labels = np.zeros((1, 2, 5), dtype=np.uint8)
    labels[0, 0, :] = 3
    labels[0, 1, 1:3] = 3  # 7 voxels in 3 strata
    strata, rng = crystal_strata(labels, 3), np.random.default_rng(2)
    draws = 20000
    hits = np.zeros(labels.shape)
    for _ in range(draws):
        np.add.at(hits, tuple(np.floor(strata.draw(3, rng) + 0.5).astype(int).T), 1)
    expected = 3 * draws / 7
    # Binomial or narrower: 4.5 standard deviations over seven voxels.
    assert np.all(np.abs(hits[labels == 3] - expected) < 4.5 * np.sqrt(expected))
    assert hits[labels != 3].sum() == 0


def test_stratified_points__mean_is_unbiased_and_less_spread_than_independent_points():
    labels = _ball(32, 14.0)
    strata = crystal_strata(labels, 3)
    voxels = np.argwhere(labels == 3)
    field = lambda p: np.exp(-0.15 * p[:, 2]) + 0.01 * p[:, 0] * p[:, 1]  # noqa: E731
    # The mean over a cube of exp is that at the centre times sinh(k/2)/(k/2); the product's is its own.
    centres = voxels.astype(float)
    exact = np.mean(
        np.exp(-0.15 * centres[:, 2]) * np.sinh(0.075) / 0.075 + 0.01 * centres[:, 0] * centres[:, 1]
    )
    rng = np.random.default_rng(3)
    stratified = np.array([field(strata.draw(300, rng)).mean() for _ in range(200)])
    independent = np.array(
        [field(voxels[rng.integers(0, len(voxels), 300)].astype(float)).mean() for _ in range(200)]
    )
    spread = stratified.std()
    assert abs(stratified.mean() - exact) < 4 * spread / np.sqrt(200)  # four standard errors
    # Strata of 1/300 of the volume leave about 300^(−1/3) = 0.15 of the spread; half is ample.
    assert spread < 0.5 * independent.std()


def test_stratified_points__jitter_fills_the_voxel():
    labels = np.zeros((3, 3, 3), dtype=np.uint8)
    labels[1, 1, 1] = 3
    points = stratified_crystal_points(labels, 3, 4000, np.random.default_rng(4)) - 1
    assert np.all(np.abs(points) <= 0.5)
    # Uniform: mean 0 ± 1/√(12·4000) = 0.0046, variance 1/12; five standard errors.
    assert np.all(np.abs(points.mean(axis=0)) < 5 * 0.0046)
    np.testing.assert_allclose(points.var(axis=0), 1 / 12, rtol=0.08)


def test_stratified_points__same_seed_same_points():
    labels = _ball(12, 5.0)
    first, second = (stratified_crystal_points(labels, 3, 64, np.random.default_rng(9)) for _ in "ab")
    assert first.tobytes() == second.tobytes()


def test_morton_code__interleaves_with_the_last_axis_fastest():
    index = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 2], [3, 3, 3]])
    assert morton_code(index).tolist() == [0, 1, 2, 4, 8, 63]


def test_stratified_points__refuses_a_volume_without_crystal_and_no_points():
    with pytest.raises(InputError, match="no voxel of crystal_label 3"):
        stratified_crystal_points(np.ones((4, 4, 4), dtype=np.uint8), 3, 10, np.random.default_rng(0))
    with pytest.raises(InputError, match="count"):
        stratified_crystal_points(_ball(8, 3.0), 3, 0, np.random.default_rng(0))
