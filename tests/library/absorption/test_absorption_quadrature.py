"""Means over the crystal: what is exact, what is fair."""

import numpy as np
import pytest

from tomoforge.absorption.quadrature import crystal_moments, crystal_quadrature
from tomoforge.absorption.sampling import crystal_strata


def _box() -> np.ndarray:
    labels = np.zeros((12, 20, 9), dtype=np.uint8)
    labels[2:9, 3:19, 1:6] = 3
    return labels


def _cubic(points: np.ndarray) -> np.ndarray:
    z, y, x = points.T
    return 2 + z - 3 * y * x + 0.1 * z**2 * x - 0.02 * y**3 + 0.3 * z * y * x


def _exact_mean(low: np.ndarray, high: np.ndarray) -> float:
    # Means of powers over an interval; those of different axes multiply.
    m = lambda axis, p: (high[axis] ** (p + 1) - low[axis] ** (p + 1)) / (p + 1) / (high[axis] - low[axis])  # noqa: E731
    return (
        2 + m(0, 1) - 3 * m(1, 1) * m(2, 1) + 0.1 * m(0, 2) * m(2, 1) - 0.02 * m(1, 3)
        + 0.3 * m(0, 1) * m(1, 1) * m(2, 1)
    )  # fmt: skip


def test_crystal_moments__centre_and_width_of_a_box():
    moments = crystal_moments(crystal_strata(_box(), 3))
    np.testing.assert_allclose(moments.centre, [5.5, 11, 3.5], rtol=1e-12)
    np.testing.assert_allclose(moments.scale, np.array([7, 16, 5]) / np.sqrt(3), rtol=1e-12)  # 2 s/√12
    np.testing.assert_allclose(moments.means[:3], 0, atol=1e-12)


@pytest.mark.parametrize("size", [512, 2048])
def test_quadrature__cubic_polynomials_are_exact(size):
    strata = crystal_strata(_box(), 3)
    quadrature = crystal_quadrature(strata, crystal_moments(strata), size, seed=0)
    values = _cubic(quadrature.points)
    want = _exact_mean(np.array([2, 3, 1.0]), np.array([9, 19, 6.0]))
    mean, error = quadrature.mean(quadrature.sums(values[None, 0::2], values[None, 1::2]))
    assert mean[0] == pytest.approx(want, rel=1e-10)  # nineteen columns made orthogonal twice
    assert error[0] < 1e-6 * values.std()
    weights = quadrature.weights
    assert weights.sum() == pytest.approx(1, rel=1e-12)
    assert (weights * values.reshape(-1, 2).T).sum() == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize(("size", "fitted"), [(2, 0), (48, 3), (200, 9), (512, 19)])
def test_quadrature__fits_no_more_than_the_pairs_bear(size, fitted):
    strata = crystal_strata(_box(), 3)
    quadrature = crystal_quadrature(strata, crystal_moments(strata), size, seed=0)
    assert quadrature.lift.shape == (size // 2, fitted)
    assert quadrature.inflation >= 1
    np.testing.assert_allclose(quadrature.lift.T @ quadrature.lift, np.eye(fitted), atol=1e-12)


def test_quadrature__depends_on_its_seed_and_size_alone():
    strata = crystal_strata(_box(), 3)
    first, second, other = (
        crystal_quadrature(strata, crystal_moments(strata), 64, seed) for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(first.points, second.points)
    assert not np.any(first.points == other.points)


def test_quadrature__a_mean_of_positive_values_stays_positive():
    strata = crystal_strata(_box(), 3)
    for seed in range(40):
        quadrature = crystal_quadrature(strata, crystal_moments(strata), 512, seed)
        values = np.exp(-8 * (quadrature.points - 2).sum(axis=1))  # a corner carries all of it
        sums = quadrature.sums(values[None, 0::2], values[None, 1::2])
        mean, error = quadrature.positive_mean(sums)
        assert mean[0] > 0
        assert error[0] > 0
