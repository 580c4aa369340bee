"""The table method against the direct one, kept path lengths, and what they give."""

import numba
import numpy as np
import pytest

from tomoforge.absorption.factors import absorption_factors
from tomoforge.absorption.path_table import path_table
from tomoforge.errors import InputError, MaterialError

VOXEL = 1e-6
MU = {1: 2e4, 2: 6e4, 3: 3e4}


def _sample() -> np.ndarray:
    labels = np.zeros((24, 28, 32), dtype=np.uint8)
    labels[4:20, 6:24, 5:22] = 1
    labels[10:22, 2:9, 18:30] = 2
    labels[7:17, 8:19, 9:18] = 3
    return labels


def _rays(count: int, frames: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    angle = rng.integers(0, frames, count) * (2 * np.pi / frames)
    exits = rng.normal(size=(count, 3))
    beams = np.stack([np.zeros(count), np.cos(angle), -np.sin(angle)], axis=1)
    return beams, exits / np.linalg.norm(exits, axis=1, keepdims=True)


def test_table__agrees_with_the_direct_method_within_both_errors():
    beams, exits = _rays(400)
    table = absorption_factors(_sample(), VOXEL, MU, beams, exits, method="table", seed=1)
    direct = absorption_factors(_sample(), VOXEL, MU, beams, exits, method="direct", seed=2)
    assert table.method in ("table", "mixed")
    assert direct.method == "direct" and direct.interpolation_error == 0
    z = (table.a - direct.a) / np.hypot(table.standard_error, direct.standard_error)
    assert np.sqrt(np.mean(z**2)) < 1.5  # two draws of points for 400 reflections: a fair one is 1 ± 0.2
    assert np.abs(z).max() < 5
    assert np.all(table.converged)
    assert np.abs(table.a / direct.a - 1).max() < 4e-3


def test_table__auto_takes_it_for_many_reflections_and_the_direct_method_for_few():
    beams, exits = _rays(5000)
    many = absorption_factors(_sample(), VOXEL, MU, beams, exits, target_error=5e-3)
    few = absorption_factors(_sample(), VOXEL, MU, beams[:300], exits[:300], target_error=5e-3)
    assert many.method in ("table", "mixed")
    assert few.method == "direct"


def test_table__many_beams_are_interpolated_too():
    rng = np.random.default_rng(4)
    angle = rng.random(3000) * 2 * np.pi
    beams = np.stack([np.zeros(3000), np.cos(angle), -np.sin(angle)], axis=1)
    exits = _rays(3000)[1]
    got = absorption_factors(_sample(), VOXEL, MU, beams, exits, method="table", target_error=4e-3)
    some = slice(0, 60)
    want = absorption_factors(_sample(), VOXEL, MU, beams[some], exits[some], method="direct", seed=9)
    error = np.hypot(got.standard_error[some], want.standard_error)
    assert np.abs((got.a[some] - want.a) / error).max() < 5


def test_table__without_absorption_is_one():
    beams, exits = _rays(60)
    got = absorption_factors(_sample(), VOXEL, {1: 0, 2: 0, 3: 0}, beams, exits, method="table")
    np.testing.assert_allclose(got.a, 1, atol=1e-5)  # sixteen single-precision weights twice


def test_table__same_bytes_for_any_number_of_threads():
    beams, exits = _rays(300)
    arguments = (_sample(), VOXEL, MU, beams, exits)
    together = absorption_factors(*arguments, method="table", target_error=1e-2)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = absorption_factors(*arguments, method="table", target_error=1e-2)
    finally:
        numba.set_num_threads(before)
    assert alone.a.tobytes() == together.a.tobytes()
    assert alone.standard_error.tobytes() == together.standard_error.tobytes()


def test_table__finer_target_takes_a_finer_grid_or_more_points():
    beams, exits = _rays(200)
    coarse = absorption_factors(_sample(), VOXEL, MU, beams, exits, method="table", target_error=2e-2)
    fine = absorption_factors(_sample(), VOXEL, MU, beams, exits, method="table", target_error=2e-3)
    assert fine.interpolation_error <= 1e-3
    assert fine.n_points.sum() > coarse.n_points.sum()


def test_table__hands_dark_reflections_to_the_direct_method():
    labels = np.full((12, 12, 12), 3, dtype=np.uint8)
    mu = {3: 6.0 / VOXEL}  # a cube of 72 absorption lengths: no ray goes through, single precision ends
    beam, exits = np.array([0, 1.0, 0]), np.array([[0, 1.0, 0], [0, -1.0, 0]])
    got = absorption_factors(labels, VOXEL, mu, beam, exits, method="table", max_points=2048)
    assert got.a[0] == pytest.approx(np.exp(-72.0), rel=1e-9)
    assert got.method == "mixed" or got.method == "direct"
    assert abs(got.a[1] - 1 / 144) < 4 * got.standard_error[1]


@pytest.mark.parametrize("count", [40, 2000])
def test_path_table__gives_the_factors_of_any_mu(count):
    beams, exits = _rays(count, frames=12)
    table = path_table(_sample(), VOXEL, beams, exits, n_points=2048)
    assert table.materials == (1, 2, 3)
    for mu in (MU, {1: 0.0, 2: 1e5, 3: 1e4}):
        want = absorption_factors(_sample(), VOXEL, mu, beams[:40], exits[:40], method="direct", seed=5)
        # 2048 points give 0.1 % here, the grid 0.05 %.
        np.testing.assert_allclose(table.factors(mu)[:40], want.a, rtol=5e-3)
    np.testing.assert_allclose(table.factors({1: 0, 2: 0, 3: 0}), 1, atol=1e-5)
    with pytest.raises(MaterialError, match="labels"):
        table.factors({1: 1e4})


@pytest.mark.parametrize("count", [20, 1500])
def test_path_table__derivatives_are_those_of_its_factors(count):
    beams, exits = _rays(count, frames=12)
    table = path_table(_sample(), VOXEL, beams, exits, n_points=512)
    got = table.derivatives(MU)
    assert np.all(got <= 1e-4 * np.abs(got).max())  # interpolation may overshoot where a ray just misses
    for column, label in enumerate(table.materials):
        step = 0.03 * MU[label]
        up, down = (table.factors(MU | {label: MU[label] + sign * step}) for sign in (1, -1))
        # Central differences: (step L)²/6 = 1.4e-3 for the longest way; single precision 3e-7 in A, over 0.06 µ.
        difference = (up - down) / (2 * step)
        np.testing.assert_allclose(got[:, column], difference, rtol=3e-3, atol=1e-5 / MU[label])


def test_path_table__error_of_mu_of_a_uniform_cube_is_the_path():
    labels = np.full((10, 10, 10), 3, dtype=np.uint8)
    beam = np.array([[0, 1.0, 0]])
    table = path_table(labels, VOXEL, beam, beam, n_points=64)
    # Straight through, every point has the whole 10 voxels: A = e^(−µL), dA = L A dµ.
    a = np.exp(-3e4 * 10 * VOXEL)
    assert table.factors({3: 3e4})[0] == pytest.approx(a, rel=1e-6)  # single precision
    assert table.mu_error({3: 3e4}, {3: 1e3})[0] == pytest.approx(10 * VOXEL * a * 1e3, rel=1e-6)


def test_path_table__refuses_to_outgrow_its_memory():
    beams, exits = _rays(50)
    with pytest.raises(InputError, match="max_bytes"):
        path_table(_sample(), VOXEL, beams, exits, max_bytes=1000)
