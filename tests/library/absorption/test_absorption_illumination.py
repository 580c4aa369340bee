"""Beams smaller than the crystal."""

import numpy as np
import pytest

from tomoforge.absorption.factors import absorption_factors
from tomoforge.absorption.illumination import BeamProfile
from tomoforge.errors import InputError

VOXEL = 1e-6
BEAM = np.array([0.0, 1.0, 0.0])


def _stepped() -> np.ndarray:
    """A crystal plate of 8 voxels along the beam with 20 voxels of liquor before its upper half."""
    labels = np.zeros((20, 40, 20), dtype=np.uint8)
    labels[:, 30:38] = 3
    labels[10:, 5:25] = 1
    return labels


@pytest.mark.parametrize("method", ["direct", "table"])
@pytest.mark.parametrize(("offset", "depth"), [(-5e-6, 0.8), (5e-6, 2.8)])
def test_profile__top_hat_sees_the_half_it_lights(method, offset, depth):
    profile = BeamProfile("top_hat", height=8e-6, width=10e-6, offset=(offset, 0.0))
    got = absorption_factors(
        _stepped(), VOXEL, {1: 1e5, 3: 1e5}, BEAM, BEAM[None], profile=profile, method=method
    )
    # Straight through, all lit points have the same path: no loss by the smaller beam is in A.
    assert got.a[0] == pytest.approx(np.exp(-depth), rel=1e-5)
    # Of 20 × 20 voxels across the beam 8 × 10 are lit; the points know to a few per cent.
    assert got.illuminated_fraction[0] == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("method", ["direct", "table"])
def test_profile__gaussian_weighs_both_halves(method):
    profile = BeamProfile("gaussian", height=10e-6, width=12e-6, offset=(2e-6, 0.0))
    got = absorption_factors(
        _stepped(), VOXEL, {1: 1e5, 3: 1e5}, BEAM, BEAM[None], profile=profile, method=method,
        target_error=4e-3,
    )  # fmt: skip
    z = np.linspace(-10, 10, 20001)
    weight = np.exp2(-4 * ((z - 2) / 10) ** 2)
    want = np.sum(weight * np.where(z > 0, np.exp(-2.8), np.exp(-0.8))) / weight.sum()
    assert abs(got.a[0] - want) < 4 * got.standard_error[0]


def test_profile__wide_beam_is_no_profile():
    exits = np.array([[0.6, 0.8, 0], [0, -1.0, 0]])
    wide = BeamProfile("top_hat", height=1e-3, width=1e-3)
    lit = absorption_factors(_stepped(), VOXEL, {1: 1e5, 3: 1e5}, BEAM, exits, profile=wide)
    bathed = absorption_factors(_stepped(), VOXEL, {1: 1e5, 3: 1e5}, BEAM, exits)
    np.testing.assert_allclose(lit.a, bathed.a, rtol=1e-12)
    np.testing.assert_allclose(lit.illuminated_fraction, 1, rtol=1e-12)
    assert bathed.illuminated_fraction is None


def test_profile__standard_error_is_honest():
    profile = BeamProfile("top_hat", height=8e-6, width=10e-6, offset=(0.0, 3e-6))
    mu, exits = {1: 1e5, 3: 1e5}, np.array([[0.6, 0, 0.8], [0, -1.0, 0]])
    options = {"profile": profile, "target_error": 3e-2}
    truth = absorption_factors(
        _stepped(), VOXEL, mu, BEAM, exits, profile=profile, target_error=2e-3, seed=999
    )
    z = [
        (got.a - truth.a) / got.standard_error
        for got in (
            absorption_factors(_stepped(), VOXEL, mu, BEAM, exits, **options, seed=seed) for seed in range(60)
        )
    ]
    assert 0.7 < np.sqrt(np.mean(np.square(z))) < 1.3  # 60 draws for each of two: 1 ± 0.1


def test_profile__turns_with_the_beam():
    # A crystal at each end of x, a wall between; a beam along +y lit off towards +x meets the one at +x.
    labels = np.zeros((6, 21, 21), dtype=np.uint8)
    labels[:, 10, 2] = labels[:, 10, 18] = 3
    labels[:, 9:12, 19:21] = 1
    profile = BeamProfile("top_hat", height=1e-3, width=6e-6, offset=(0.0, 8e-6))
    beams, exits = np.array([[0, 1.0, 0], [0, -1.0, 0]]), np.array([[0, 0, 1.0], [0, 0, -1.0]])
    got = absorption_factors(labels, VOXEL, {1: 1e5, 3: 0.0}, beams, exits[:1].repeat(2, 0), profile=profile)
    # Out towards +x, the crystal at +x has two voxels of wall before it; so has that at −x, far behind.
    np.testing.assert_allclose(got.a, np.exp(-0.2), rtol=1e-6)
    got = absorption_factors(labels, VOXEL, {1: 1e5, 3: 1e5}, beams, exits[1:].repeat(2, 0), profile=profile)
    # Out towards −x: from the far crystal half its own voxel and then the whole near one.
    own = (1 - np.exp(-0.1)) / 0.1
    assert got.a[0] / got.a[1] == pytest.approx(np.exp(-0.1), rel=5e-3)
    assert got.a[1] < own


@pytest.mark.parametrize(
    ("change", "message"),
    [({"shape": "box"}, "shape"), ({"height": 0.0}, "height"), ({"width": np.nan}, "width"),
     ({"axis": (1.0, 1.0, 0.0)}, "axis"), ({"offset": (np.inf, 0.0)}, "offset")],
)  # fmt: skip
def test_profile__refuses(change, message):
    with pytest.raises(InputError, match=message):
        BeamProfile(**({"shape": "gaussian", "height": 1e-5, "width": 1e-5} | change))


def test_profile__beam_that_misses_or_runs_along_the_axis_is_refused():
    off = BeamProfile("top_hat", height=1e-6, width=1e-6, offset=(1e-3, 0.0))
    for method in ("direct", "table"):
        with pytest.raises(InputError, match="misses"):
            absorption_factors(
                _stepped(), VOXEL, {1: 1e5, 3: 1e5}, BEAM, BEAM[None], profile=off, method=method
            )
    along = BeamProfile("top_hat", height=1e-5, width=1e-5, axis=(0.0, 1.0, 0.0))
    with pytest.raises(InputError, match="across"):
        absorption_factors(_stepped(), VOXEL, {1: 1e5, 3: 1e5}, BEAM, BEAM[None], profile=along)
