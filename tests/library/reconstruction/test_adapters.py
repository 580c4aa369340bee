"""Other reconstructors give the same slice as ours."""

import importlib.util

import numpy as np
import pytest

from tests.library.reconstruction.phantoms import disc_sinogram, within
from tomoforge.errors import InputError, MissingComponentError
from tomoforge.geometry import uniform_angles
from tomoforge.reconstruction import fbp
from tomoforge.reconstruction.adapters import astra_fbp, tomopy_reconstruct

PIXEL = 2e-6
DISCS = [(0, 0, 20, 1.0), (6, 4, 6, 0.5), (-8, 3, 5, -0.6), (2, -10, 4, 0.8)]


@pytest.mark.parametrize("n", [64, 65])
@pytest.mark.parametrize("offset", [0.0, 3.3, -5.5])
def test_astra_fbp__agrees_with_fbp(n: int, offset: float) -> None:
    angles, centre = uniform_angles(90), (n - 1) / 2 + offset
    integrals = disc_sinogram(n, angles, centre, DISCS)[:, np.newaxis] * np.float32(PIXEL)
    ours = fbp(integrals, angles, PIXEL, centre)[0]
    theirs = astra_fbp(integrals, angles, PIXEL, centre)[0]
    for x, y, radius, _ in DISCS:
        inside = within(n, x, y, radius - 2)
        # ASTRA's filter misses a little of zero frequency on 64 columns.
        assert theirs[inside].mean() == pytest.approx(ours[inside].mean(), abs=0.03)
    assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.99
    np.testing.assert_array_equal(theirs == 0, ours == 0)


def test_astra_fbp__uneven_angles_and_full_turns_keep_mu() -> None:
    n = 64
    uneven = np.sort(np.random.default_rng(16).uniform(0, np.pi, 200))
    for angles in (uneven, uniform_angles(180, 2 * np.pi)):
        integrals = disc_sinogram(n, angles, (n - 1) / 2, DISCS[:1])[:, np.newaxis]
        level = astra_fbp(integrals, angles, 1.0)[0][within(n, 0, 0, 17)].mean()
        assert level == pytest.approx(1.0, abs=0.02)


def test_tomopy__says_how_to_get_it_or_agrees() -> None:
    angles, n = uniform_angles(90), 64
    integrals = disc_sinogram(n, angles, 33.0, DISCS)[:, np.newaxis] * np.float32(PIXEL)
    if importlib.util.find_spec("tomopy") is None:
        with pytest.raises(MissingComponentError, match="conda install -c conda-forge tomopy"):
            tomopy_reconstruct(integrals, angles, PIXEL, 33.0)
        return
    theirs, ours = (
        tomopy_reconstruct(integrals, angles, PIXEL, 33.0)[0],
        fbp(integrals, angles, PIXEL, 33.0)[0],
    )
    inside = within(n, 0, 0, 22)
    assert (
        np.corrcoef(theirs[inside], ours[inside])[0, 1] > 0.98
    )  # gridrec's level is off, its picture is not


def test_adapters__refuse_with_the_reason() -> None:
    values, angles = np.zeros((10, 1, 16), np.float32), uniform_angles(10)
    with pytest.raises(InputError, match="filter"):
        astra_fbp(values, angles, PIXEL, filter="boxcar")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="algorithm"):
        tomopy_reconstruct(values, angles, PIXEL, algorithm="fbp")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rotation_centre"):
        astra_fbp(values, angles, PIXEL, 40.0)
