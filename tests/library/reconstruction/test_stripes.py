"""Stripes of columns whose gain drifted: the ring goes, the sample stays."""

import numpy as np
import pytest

from tests.library.reconstruction.phantoms import disc_sinogram, within
from tomoforge.errors import InputError
from tomoforge.geometry import uniform_angles
from tomoforge.reconstruction import fbp
from tomoforge.reconstruction.stripes import StripeMethod, remove_stripes

N, ANGLES = 128, uniform_angles(180)
DISC = [(3.0, 2.0, 50.0, 1 / 50)]
COLUMNS = (50, 71, 84)
METHODS = ("sorting", "filtering", "fitting", "large", "all")


def sinogram(gain: float) -> np.ndarray:
    """(angle, x) line integrals of a disc with noise; the gain of three columns is off and drifts by a third."""
    noise = np.random.default_rng(5).normal(0, 0.005, (ANGLES.size, N))
    values = disc_sinogram(N, ANGLES, (N - 1) / 2, DISC) + noise
    for column in COLUMNS:
        values[:, column] -= np.log(1 + gain * (1 + 0.3 * np.sin(np.linspace(0, 3, ANGLES.size))))
    return values.astype(np.float32)


def image(values: np.ndarray) -> np.ndarray:
    return fbp(values[:, np.newaxis], ANGLES, 1.0)[0]


def ring_strength(difference: np.ndarray) -> float:
    """Rms over the three rings of their mean all round, over that of the pixels beside them."""
    axis = np.arange(N) - (N - 1) / 2
    distance = np.hypot(axis, axis[:, np.newaxis])
    steps = []
    for column in COLUMNS:
        off = np.abs(distance - abs(column - (N - 1) / 2))
        steps.append(difference[off < 0.5].mean() - difference[(off > 2) & (off < 5)].mean())
    return float(np.sqrt(np.mean(np.square(steps))))


@pytest.mark.parametrize("method", METHODS)
def test_remove_stripes__takes_the_ring_and_leaves_the_disc(method: StripeMethod) -> None:
    clean, striped = image(sinogram(0.0)), image(sinogram(0.15))
    mended = image(remove_stripes(sinogram(0.15), method))
    # The agreed factor of three, and half a percent of the disc's level.
    assert ring_strength(mended - clean) < ring_strength(striped - clean) / 3
    inside = within(N, *DISC[0][:2], 46.0)
    assert mended[inside].mean() == pytest.approx(clean[inside].mean(), rel=0.005)


@pytest.mark.parametrize("method", METHODS)
def test_remove_stripes__leaves_a_sinogram_without_stripes_quantitative(method: StripeMethod) -> None:
    clean = sinogram(0.0)
    inside = within(N, *DISC[0][:2], 46.0)
    level = image(remove_stripes(clean, method))[inside].mean()
    assert level == pytest.approx(image(clean)[inside].mean(), rel=0.005)


@pytest.mark.parametrize("method", METHODS)
def test_remove_stripes__is_deterministic_and_does_not_touch_its_argument(method: StripeMethod) -> None:
    values = sinogram(0.1)
    kept = values.copy()
    first = remove_stripes(values, method)
    # A view into a slab has other strides: the bytes must not follow them.
    slab = np.repeat(values[:, np.newaxis], 3, axis=1)
    assert remove_stripes(slab[:, 1], method).tobytes() == first.tobytes()
    np.testing.assert_array_equal(values, kept)
    assert first.dtype == np.float32 and first.shape == values.shape


@pytest.mark.parametrize("method", METHODS)
def test_remove_stripes__air_without_noise_passes(method: StripeMethod) -> None:
    air = np.zeros((40, 64), np.float32)
    np.testing.assert_allclose(remove_stripes(air, method), 0, atol=1e-5)


def test_remove_stripes__none_changes_nothing() -> None:
    np.testing.assert_array_equal(remove_stripes(sinogram(0.1), "none"), sinogram(0.1))


def test_remove_stripes__refuses_with_the_reason() -> None:
    with pytest.raises(InputError, match="method"):
        remove_stripes(np.zeros((40, 64), np.float32), "wavelet")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"\(angle, x\)"):
        remove_stripes(np.zeros((40, 2, 64), np.float32), "sorting")
    with pytest.raises(InputError, match="columns to tell stripes"):
        remove_stripes(np.zeros((40, 10), np.float32), "sorting")
