"""Absorption factors against closed forms, published shapes, and symmetries."""

import json
import math

import numba
import numpy as np
import pytest

from tomoforge.absorption.factors import absorption_factors
from tomoforge.errors import InputError, MaterialError
from tomoforge.geometry import beam_direction

VOXEL = 1e-6
BEAM = np.array([0.0, 1.0, 0.0])


def _ball(n: int, radius: float) -> np.ndarray:
    grid = np.indices((n, n, n)) - (n - 1) / 2
    return np.where((grid**2).sum(axis=0) <= radius**2, 3, 0).astype(np.uint8)


def _equatorial(two_theta: np.ndarray) -> np.ndarray:
    """Outgoing rays at 2θ from BEAM in the plane across z."""
    return np.stack([np.zeros_like(two_theta), np.cos(two_theta), np.sin(two_theta)], axis=1)


def _oracle(shared_data, body: str, mu_r: str) -> tuple[np.ndarray, np.ndarray]:
    table = json.loads((shared_data / "absorption/absorption_oracles.json").read_text())[body][mu_r]
    rows = slice(None, None, 3)
    return 2 * np.radians(table["theta_deg"])[rows], 1 / np.array(table["Astar"])[rows]


# A ball of 40 voxels' radius, kept voxels by their centres, differs from the true one by a volume error of
# 1e-4 and a surface half a voxel rough: the factor is within 0.1 % up to µR = 2 (found with 2·10⁶ points
# at radius 50: 0.013 % at µR = 0.5, 0.06 % at 2); half as much again is allowed, and four standard errors
# of the sampling.
_SHAPE_ERROR = 1.5e-3


@pytest.mark.parametrize("mu_r", ["0.1", "0.5", "1.0", "2.0"])
def test_absorption_factors__sphere_matches_the_tables(shared_data, mu_r):
    two_theta, want = _oracle(shared_data, "sphere_Astar", mu_r)
    mu = {3: float(mu_r) / (40 * VOXEL)}
    got = absorption_factors(_ball(84, 40.0), VOXEL, mu, BEAM, _equatorial(two_theta), target_error=2e-3)
    assert got.converged.all()
    assert np.all(np.abs(got.a / want - 1) < _SHAPE_ERROR + 4 * got.standard_error / got.a)


@pytest.mark.parametrize("mu_r", ["0.5", "1.5"])
def test_absorption_factors__cylinder_across_its_axis_matches_the_tables(shared_data, mu_r):
    two_theta, want = _oracle(shared_data, "cylinder_Astar", mu_r)
    disc = (np.indices((84, 84)) - 41.5) ** 2
    # Rays across the axis see the same disc at any height: three slices are a cylinder without ends.
    labels = np.repeat(np.where(disc.sum(axis=0) <= 1600, 3, 0).astype(np.uint8)[None], 3, axis=0)
    mu = {3: float(mu_r) / (40 * VOXEL)}
    got = absorption_factors(labels, VOXEL, mu, BEAM, _equatorial(two_theta), target_error=2e-3)
    assert np.all(np.abs(got.a / want - 1) < _SHAPE_ERROR + 4 * got.standard_error / got.a)


@pytest.mark.parametrize("mu_r", [0.3, 1.0])
def test_absorption_factors__sphere_forwards_is_the_closed_form(mu_r):
    m = 2 * mu_r
    want = 3 * (2 - math.exp(-m) * (m**2 + 2 * m + 2)) / m**3
    mu = {3: mu_r / (40 * VOXEL)}
    got = absorption_factors(_ball(84, 40.0), VOXEL, mu, BEAM, BEAM[None], target_error=1e-3)
    assert abs(got.a[0] / want - 1) < _SHAPE_ERROR + 4 * got.standard_error[0] / got.a[0]


def _wide_slab() -> np.ndarray:
    """8 voxels thick across y, wide enough for steep rays; crystal in the middle, liquor around it."""
    labels = np.ones((61, 8, 61), dtype=np.uint8)
    labels[25:36, :, 25:36] = 3
    return labels


@pytest.mark.parametrize(("into", "out"), [(0.0, 50.0), (30.0, -55.0), (-20.0, 45.0)])
@pytest.mark.parametrize("side", ["transmission", "reflection"])
def test_absorption_factors__slab_closed_forms(into, out, side):
    mu_t = 1.3
    mu = {1: mu_t / (8 * VOXEL), 3: mu_t / (8 * VOXEL)}
    into, out = np.radians(into), np.radians(out)
    beam = np.array([0, np.cos(into), np.sin(into)])
    exit_ray = np.array([[np.sin(out), np.cos(out) * (1 if side == "transmission" else -1), 0]])
    a, b = 1 / np.cos(into), 1 / np.cos(out)
    if side == "transmission":
        want = (math.exp(-mu_t * b) - math.exp(-mu_t * a)) / (mu_t * (a - b))
    else:
        want = (1 - math.exp(-mu_t * (a + b))) / (mu_t * (a + b))
    got = absorption_factors(_wide_slab(), VOXEL, mu, beam, exit_ray, target_error=1e-3)
    assert abs(got.a[0] - want) < 4.5 * got.standard_error[0]  # the slab is exact: sampling alone
    assert got.standard_error[0] <= 1e-3 * want * 1.01


# One crystal voxel without absorption, walls of 1 … 6 voxels on its six sides.
_WALLS = {(-1, 0): 1, (1, 0): 2, (-1, 1): 3, (1, 1): 4, (-1, 2): 5, (1, 2): 6}


def _walled_crystal() -> np.ndarray:
    labels = np.zeros((21, 21, 21), dtype=np.uint8)
    labels[10, 10, 10] = 3
    for (sign, axis), thickness in _WALLS.items():
        wall = [slice(10, 11)] * 3
        wall[axis] = slice(12, 12 + thickness) if sign > 0 else slice(9 - thickness, 9)
        labels[tuple(wall)] = 2
    return labels


def _axis_vector(sign: int, axis: int) -> np.ndarray:
    vector = np.zeros(3)
    vector[axis] = sign
    return vector


def test_absorption_factors__asymmetric_phantom_tells_all_axes_and_signs_apart():
    labels, mu = _walled_crystal(), {2: 0.1 / VOXEL, 3: 0.0}
    for (into_sign, into_axis), first in _WALLS.items():
        exits = np.array([_axis_vector(*key) for key in _WALLS])
        # A beam that travels towards −x has come through the wall on the +x side.
        beam = _axis_vector(-into_sign, into_axis)
        got = absorption_factors(labels, VOXEL, mu, beam, exits)
        want = [math.exp(-0.1 * (first + second)) for second in _WALLS.values()]
        np.testing.assert_allclose(got.a, want, rtol=1e-12)  # the same path for all points: rounding


def test_absorption_factors__the_beam_turns_as_geometry_says():
    labels, mu = _walled_crystal(), {2: 0.1 / VOXEL, 3: 0.0}
    for degrees, wall in ((0, (-1, 1)), (90, (1, 2)), (180, (1, 1)), (270, (-1, 2))):
        got = absorption_factors(labels, VOXEL, mu, beam_direction(np.radians(degrees)), np.eye(3)[:1])
        # cos 90° is 6e-17, so that rays leave their row by less than rounding.
        assert got.a[0] == pytest.approx(math.exp(-0.1 * (_WALLS[wall] + _WALLS[(1, 0)])), rel=1e-12)


def _lumpy_sample() -> np.ndarray:
    labels = np.zeros((24, 28, 32), dtype=np.uint8)
    labels[4:20, 6:24, 5:22] = 1
    labels[10:22, 2:9, 18:30] = 2
    labels[7:17, 8:19, 9:18] = 3
    return labels


@pytest.mark.parametrize("plane", [(0, 1), (0, 2), (1, 2)])
def test_absorption_factors__turning_sample_and_rays_together_changes_nothing(plane):
    rng = np.random.default_rng(6)
    labels, mu = _lumpy_sample(), {1: 2e4, 2: 9e4, 3: 3e4}
    rays = rng.normal(size=(2, 12, 3))
    rays /= np.linalg.norm(rays, axis=2, keepdims=True)
    first, second = plane
    turned = rays.copy()
    # np.rot90: new index along `first` is n − 1 − (old along `second`), along `second` the old `first`.
    turned[..., first], turned[..., second] = -rays[..., second], rays[..., first]
    still = absorption_factors(labels, VOXEL, mu, *rays)
    moved = absorption_factors(np.rot90(labels, axes=plane), VOXEL, mu, *turned)
    error = np.hypot(still.standard_error, moved.standard_error)
    assert np.all(np.abs(still.a - moved.a) < 4.5 * error)
    wrong = absorption_factors(np.rot90(labels, axes=plane), VOXEL, mu, *rays)
    assert np.any(np.abs(still.a - wrong.a) > 20 * error)  # the test can fail


def test_absorption_factors__swapping_reversed_rays_changes_nothing():
    # Reciprocity: light that retraces its way loses as much.
    rng = np.random.default_rng(7)
    rays = rng.normal(size=(2, 8, 3))
    rays /= np.linalg.norm(rays, axis=2, keepdims=True)
    mu = {1: 2e4, 2: 9e4, 3: 3e4}
    there = absorption_factors(_lumpy_sample(), VOXEL, mu, rays[0], rays[1])
    back = absorption_factors(_lumpy_sample(), VOXEL, mu, -rays[1], -rays[0])
    # Summed depths round differently; a reflection at the edge of its target may take other points.
    same = there.n_points == back.n_points
    assert same.any()
    np.testing.assert_allclose(there.a[same], back.a[same], rtol=1e-12)


def test_absorption_factors__one_exactly_without_absorption():
    got = absorption_factors(_ball(12, 5.0), VOXEL, {3: 0.0}, BEAM, _equatorial(np.linspace(0, 3, 7)))
    assert np.all(got.a == 1.0)
    assert np.all(got.standard_error == 0.0)


def test_absorption_factors__thin_sample_is_one_minus_mean_path():
    # To first order in µ, A = 1 − µ ⟨L⟩; for a cube of side s along its axis, in and out, ⟨L⟩ = s.
    labels = np.full((10, 10, 10), 3, dtype=np.uint8)
    got = absorption_factors(labels, VOXEL, {3: 1.0}, BEAM, BEAM[None])
    assert got.a[0] == pytest.approx(1 - 10 * VOXEL, abs=1e-10)  # (µs)²/2 = 5e-11


def test_absorption_factors__standard_error_is_honest():
    labels, mu = _lumpy_sample(), {1: 2e4, 2: 9e4, 3: 3e4}
    exits = _equatorial(np.linspace(0.2, 2.8, 6))
    truth = absorption_factors(labels, VOXEL, mu, BEAM, exits, target_error=1e-9, max_points=2**18, seed=99)
    z = []
    for seed in range(40):
        got = absorption_factors(labels, VOXEL, mu, BEAM, exits, target_error=1e-2, seed=seed)
        z.append((got.a - truth.a) / got.standard_error)
    # 40 draws, correlated among six reflections: the rms of a fair z is 1 ± 0.11 for each.
    assert 0.7 < np.sqrt(np.mean(np.square(z))) < 1.35
    assert abs(np.mean(z)) < 4 / np.sqrt(40)


def test_absorption_factors__smaller_target_takes_more_points_and_the_cap_is_reported():
    labels, mu = _lumpy_sample(), {1: 2e4, 2: 9e4, 3: 3e4}
    exits = _equatorial(np.linspace(0.2, 2.8, 5))
    coarse = absorption_factors(labels, VOXEL, mu, BEAM, exits, target_error=1e-2)
    fine = absorption_factors(labels, VOXEL, mu, BEAM, exits, target_error=1e-3)
    assert np.all(fine.n_points >= coarse.n_points)
    assert np.any(fine.n_points > coarse.n_points)
    assert np.all(fine.standard_error <= 1e-3 * fine.a)
    capped = absorption_factors(labels, VOXEL, mu, BEAM, exits, target_error=1e-6, max_points=1001)
    assert not capped.converged.any()
    assert np.all(capped.n_points == 1000)
    assert capped.max_points == 1000


def test_absorption_factors__a_reflection_does_not_depend_on_its_company_or_on_threads():
    rng = np.random.default_rng(8)
    rays = rng.normal(size=(2, 30, 3))
    rays /= np.linalg.norm(rays, axis=2, keepdims=True)
    mu = {1: 2e4, 2: 9e4, 3: 3e4}
    together = absorption_factors(_lumpy_sample(), VOXEL, mu, *rays)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        some = absorption_factors(_lumpy_sample(), VOXEL, mu, rays[0][20:3:-4], rays[1][20:3:-4])
    finally:
        numba.set_num_threads(before)
    assert some.a.tobytes() == together.a[20:3:-4].tobytes()


def test_absorption_factors__mu_by_sequence_is_mu_by_label_and_background_counts_if_given():
    exits = _equatorial(np.linspace(0.2, 2.8, 5))
    labels = _lumpy_sample()
    by_label = absorption_factors(labels, VOXEL, {1: 2e4, 2: 9e4, 3: 3e4}, BEAM, exits)
    by_order = absorption_factors(labels, VOXEL, [0.0, 2e4, 9e4, 3e4], BEAM, exits)
    assert by_label.a.tobytes() == by_order.a.tobytes()
    in_gas = absorption_factors(labels, VOXEL, {0: 1e4, 1: 2e4, 2: 9e4, 3: 3e4}, BEAM, exits)
    assert np.all(in_gas.a < by_label.a * 0.95)  # ten voxels or so of 1 % each


def test_absorption_factors__reports_progress():
    seen = []
    absorption_factors(
        _ball(14, 6.0), VOXEL, {3: 1e5}, BEAM, _equatorial(np.linspace(0, 3, 7)),
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen[-1] == (7, 7)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_absorption_factors__no_reflections_give_none():
    got = absorption_factors(_ball(8, 3.0), VOXEL, {3: 1e4}, BEAM, np.zeros((0, 3)))
    assert got.a.shape == (0,)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": np.ones((4, 4, 4), dtype=np.uint8)}, InputError, "no voxel of crystal_label"),
        ({"mu": {3: 1e4}}, MaterialError, r"labels \[1\] have none"),
        ({"mu": [0.0, 1e4]}, MaterialError, r"labels \[3\] have none"),
        ({"mu": {1: -1.0, 3: 1e4}}, MaterialError, "µ ≥ 0"),
        ({"mu": {1: np.nan, 3: 1e4}}, MaterialError, "µ ≥ 0"),
        ({"mu": {1: 1e4, 3: 1e4, 300: 1.0}}, MaterialError, "0 … 255"),
        ({"mu": {"crystal": 1e4}}, MaterialError, "is it a name"),
        ({"mu": {1: 1e4, 3: 1e12}}, InputError, "1/m"),
        ({"incoming": np.array([0, 1.1, 0])}, InputError, "incoming"),
        ({"incoming": np.tile(BEAM, (3, 1))}, InputError, "as many as outgoing"),
        ({"outgoing": np.array([[0, np.nan, 0]])}, InputError, "outgoing"),
        ({"outgoing": BEAM}, InputError, "outgoing"),
        ({"labels": np.full((4, 4, 4), 300)}, InputError, "0 … 255"),
        ({"voxel_size": -1e-6}, InputError, "voxel_size"),
        ({"target_error": 0.0}, InputError, "target_error"),
        ({"max_points": 1}, InputError, "max_points"),
    ],
)
def test_absorption_factors__refuses(change, error, message):
    labels = np.ones((4, 4, 4), dtype=np.uint8)
    labels[1:3, 1:3, 1:3] = 3
    arguments = {
        "labels": labels,
        "voxel_size": VOXEL,
        "mu": {1: 1e4, 3: 1e4},
        "incoming": BEAM,
        "outgoing": np.array([[0, 0, 1.0]]),
    }
    with pytest.raises(error, match=message):
        absorption_factors(**(arguments | change))
