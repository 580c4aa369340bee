"""Standard errors: of sampling over many seeds, of µ, of the labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomoforge.absorption.ensemble import ensemble_factors, softmax_label_volumes
from tomoforge.absorption.factors import absorption_factors
from tomoforge.errors import InputError, MaterialError

VOXEL = 1e-6
BEAM = np.array([0.0, 1.0, 0.0])


def _ball(n: int = 22, radius: float = 10.0) -> np.ndarray:
    grid = np.indices((n, n, n)) - (n - 1) / 2
    return np.where((grid**2).sum(axis=0) <= radius**2, 3, 0).astype(np.uint8)


def _units(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize(("method", "target"), [("direct", 1.2e-2), ("table", 1.2e-2), ("direct", 6e-3)])
def test_standard_error__95_percent_intervals_cover_92_to_98(method, target):
    # Reflections share a seed's points: more than eight of them would add little to 200 seeds.
    labels, mu, exits = _ball(), {3: 1 / (10 * VOXEL)}, _units(8)
    truth = absorption_factors(
        labels, VOXEL, mu, BEAM, exits, target_error=1e-9, max_points=2**17, seed=10**6
    )
    assert np.all(truth.standard_error < 2e-4 * truth.a)  # a tenth of what is tested
    covered = [
        np.abs(got.a - truth.a) < 1.96 * got.standard_error
        for got in (
            absorption_factors(labels, VOXEL, mu, BEAM, exits, target_error=target, method=method, seed=seed)
            for seed in range(200)
        )
    ]
    assert 0.92 < np.mean(covered) < 0.98


def test_mu_error__is_the_change_of_a_with_mu():
    labels, exits = _ball(), _units(12)
    labels[:, :6] = np.where(labels[:, :6] > 0, 1, 0)
    mu, sigma = {1: 2e4, 3: 6e4}, {1: 2e3, 3: 1e3}
    got = absorption_factors(labels, VOXEL, mu, BEAM, exits, mu_standard_error=sigma)
    parts = []
    for label, error in sigma.items():
        up, down = (
            absorption_factors(labels, VOXEL, mu | {label: mu[label] + s * error}, BEAM, exits).a
            for s in (1, -1)
        )
        parts.append((up - down) / 2)
    # 0.1 % of A in each difference of some 5 %, and another 512 points: a few per cent.
    np.testing.assert_allclose(got.mu_error, np.hypot(*parts), rtol=0.06)
    np.testing.assert_allclose(got.standard_error, np.hypot(got.sampling_error, got.mu_error), rtol=1e-12)


def test_standard_error__is_sampling_alone_when_nothing_else_is_given():
    got = absorption_factors(_ball(), VOXEL, {3: 5e4}, BEAM, _units(5))
    assert got.mu_error is None and got.segmentation_error is None
    np.testing.assert_array_equal(got.standard_error, got.sampling_error)


@pytest.mark.parametrize("sigma", [{3: -1.0}, {3: np.nan}])
def test_mu_error__refuses_what_is_no_error(sigma):
    with pytest.raises(MaterialError, match="mu_standard_error"):
        absorption_factors(_ball(), VOXEL, {3: 5e4}, BEAM, _units(2), mu_standard_error=sigma)


def test_air_path__is_one_more_factor_with_its_error():
    labels, exits = np.pad(_ball(), 2), _units(4)
    mu = {0: 1e3, 3: 5e4}
    inside = absorption_factors(labels, VOXEL, mu, BEAM, exits)
    more = absorption_factors(
        labels, VOXEL, mu, BEAM, exits, air_path=np.array([0, 1e-4, 2e-4, 5e-4]), mu_standard_error={0: 10.0}
    )
    np.testing.assert_allclose(more.a, inside.a * np.exp([0, -0.1, -0.2, -0.5]), rtol=1e-12)
    assert more.mu_error[3] > 5e-3 * more.a[3]  # 10 /m over 0.5 mm, and a little inside
    with pytest.raises(InputError, match="air_path"):
        absorption_factors(labels, VOXEL, mu, BEAM, exits, air_path=-1.0)


def test_transmission_range__is_least_and_greatest():
    got = absorption_factors(_ball(), VOXEL, {3: 5e4}, BEAM, _units(9))
    assert got.transmission_range == (got.a.min(), got.a.max())
    with pytest.raises(InputError, match="no reflection"):
        _ = absorption_factors(_ball(), VOXEL, {3: 5e4}, BEAM, np.zeros((0, 3))).transmission_range


def test_several_crystal_labels__are_one_body():
    labels = _ball()
    two = labels.copy()
    two[:11][labels[:11] == 3] = 4
    one = absorption_factors(labels, VOXEL, {3: 5e4}, BEAM, _units(6))
    both = absorption_factors(two, VOXEL, {3: 5e4, 4: 5e4}, BEAM, _units(6), crystal_label=(3, 4))
    assert both.a.tobytes() == one.a.tobytes()
    upper = absorption_factors(two, VOXEL, {3: 5e4, 4: 5e4}, BEAM, _units(6), crystal_label=4)
    assert upper.crystal_voxels < both.crystal_voxels


def test_ensemble__spread_is_that_of_the_volumes():
    exits = _units(8)
    # Cubes of 9 and 11 voxels, straight through: A = e^(−9m) and e^(−11m), whose deviation is known.
    cubes = [np.full((n, n, n), 3, dtype=np.uint8) for n in (9, 11)]
    got = ensemble_factors(cubes, VOXEL, {3: 2e4}, BEAM, BEAM[None])
    pair = np.exp(-2e-2 * np.array([9, 11]))
    assert got.a[0] == pytest.approx(pair.mean(), rel=1e-12)
    assert got.segmentation_error[0] == pytest.approx(pair.std(ddof=1), rel=1e-9)
    assert got.standard_error[0] == pytest.approx(pair.std(ddof=1), rel=1e-9)
    # The same volume over and over has no spread beyond its sampling.
    same = ensemble_factors([_ball()] * 6, VOXEL, {3: 5e4}, BEAM, exits, mu_standard_error={3: 1e3})
    assert np.median(same.segmentation_error) < np.median(same.sampling_error) * np.sqrt(6)
    assert np.all(same.mu_error > 0)
    with pytest.raises(InputError, match="two at least"):
        ensemble_factors([_ball()], VOXEL, {3: 5e4}, BEAM, exits)


def test_softmax_volumes__carry_each_label_with_its_probability():
    probabilities = np.zeros((3, 6, 7, 8))
    probabilities[:] = np.array([0.2, 0.5, 0.3])[:, None, None, None]
    # Lumps of (2√π s)³ = 150 voxels at s = 1.5: 300 draws hold 600 of them, deviation 0.5/√600 = 0.02; four.
    for length, tolerance in ((0.0, 0.01), (1.5, 0.08)):
        drawn = np.stack(list(softmax_label_volumes(probabilities, 300, correlation_length=length)))
        shares = [(drawn == label).mean() for label in range(3)]
        np.testing.assert_allclose(shares, [0.2, 0.5, 0.3], atol=tolerance)


def test_softmax_volumes__errors_hold_together_over_the_length():
    probabilities = np.full((2, 12, 12, 12), 0.5)
    together = [
        np.mean(
            [np.mean(v[:-1] == v[1:]) for v in softmax_label_volumes(probabilities, 5, correlation_length=s)]
        )
        for s in (0.0, 3.0)
    ]
    assert abs(together[0] - 0.5) < 0.05
    assert together[1] > 0.85
    first, second = (next(softmax_label_volumes(probabilities, 2, correlation_length=1.0)) for _ in "ab")
    np.testing.assert_array_equal(first, second)
    # Over the whole volume: every draw is of one label here, about as often as the other, a slab like the whole.
    whole = list(softmax_label_volumes(probabilities, 40, correlation_length=np.inf))
    assert all(np.ptp(volume) == 0 for volume in whole)
    assert 8 <= sum(int(volume.flat[0]) for volume in whole) <= 32  # 20 ± 3.2, four
    slab = list(softmax_label_volumes(probabilities[:, :3], 40, correlation_length=np.inf))
    np.testing.assert_array_equal([v.flat[0] for v in slab], [v.flat[0] for v in whole])
    with pytest.raises(InputError, match="correlation_length"):
        softmax_label_volumes(probabilities, 1, correlation_length=np.nan)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [(np.ones((2, 3, 3, 3)), "logits"), (np.ones((3, 3, 3)), "shape"), (-np.ones((2, 3, 3, 3)), "logits")],
)
def test_softmax_volumes__refuse(probabilities, message):
    with pytest.raises(InputError, match=message):
        softmax_label_volumes(probabilities, 1, correlation_length=1.0)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.sampled_from([1, -1])] * 3),
    seed=st.integers(0, 1000),
)
def test_absorption_factors__moving_sample_and_rays_together_changes_nothing(order, flips, seed):
    rng = np.random.default_rng(seed)
    labels = np.zeros((9, 11, 13), dtype=np.uint8)
    labels[1:8, 2:9, 3:12] = rng.integers(1, 3, (7, 7, 9))
    labels[3:7, 4:8, 5:9] = 3
    mu, rays = {1: 3e4, 2: 1e5, 3: 6e4}, np.stack([_units(4, seed), _units(4, seed + 1)])
    moved = labels.transpose(order)[tuple(slice(None, None, f) for f in flips)]
    turned = rays[..., list(order)] * np.array(flips)
    still = absorption_factors(labels, VOXEL, mu, *rays, target_error=1e-2)
    after = absorption_factors(moved, VOXEL, mu, *turned, target_error=1e-2)
    error = np.hypot(still.standard_error, after.standard_error)
    assert np.all(np.abs(still.a - after.a) < 5 * error)  # 48 comparisons in all
