"""The laboratory preset: its beam hardens, its noise is what it says."""

import numpy as np
import pytest

from tomoforge.errors import InputError
from tomoforge.geometry import ScanGeometry, uniform_angles
from tomoforge.optics.detector import Detector
from tomoforge.optics.materials import find_material
from tomoforge.optics.presets import dtu_beam, dtu_slices
from tomoforge.optics.scan import ScanSimulator
from tomoforge.reconstruction import fbp


def test_dtu_beam__has_the_published_mean_energy():
    pytest.importorskip("spekpy")
    beam = dtu_beam()
    assert beam.energy_kev == pytest.approx(38.51, abs=0.01)
    assert len(beam.lines()) == 8


def test_dtu_beam__hardens_so_that_a_nickel_disc_is_cupped():
    pytest.importorskip("spekpy")
    n, voxel = 96, 2e-6
    y, x = np.indices((n, n)) - (n - 1) / 2
    labels = np.repeat((np.hypot(x, y) < 36)[None].astype(np.uint8), 2, axis=0)
    geometry = ScanGeometry(uniform_angles(120), voxel)
    simulator = ScanSimulator(
        labels, voxel, {1: find_material("nickel")}, geometry, dtu_beam(), Detector(), 1, optics="absorption"
    )
    integrals = -np.log(simulator.intensity(slice(0, 120)))
    mu = fbp(integrals, geometry.angles, voxel)[0]
    middle, rim = mu[np.hypot(x, y) < 8].mean(), mu[(np.hypot(x, y) > 26) & (np.hypot(x, y) < 30)].mean()
    # 144 µm of nickel take out the soft light: the middle sees harder light than the rim.
    assert middle < 0.97 * rim


def test_dtu_slices__are_normalised_and_noisy_slice_by_slice():
    volume = np.zeros((3, 200, 200), np.float32)
    volume[:, 50:150, 50:150] = [[[20.0]], [[3000.0]], [[0.0]]]
    clean, noisy = dtu_slices(volume, 3, 0.0), dtu_slices(volume, 3)
    assert clean[:, 100, 100] == pytest.approx([1, 1, 0]) and clean[:, 0, 0] == pytest.approx([0, 0, 0])
    # 40 000 draws: their rms is known to 0.4 % (1 σ).
    assert (noisy - clean).std(axis=(1, 2)) == pytest.approx([0.01] * 3, rel=0.02)
    assert np.array_equal(dtu_slices(volume[:2], 3), noisy[:2])
    assert abs(np.corrcoef((noisy - clean)[0].ravel(), (noisy - clean)[1].ravel())[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("volume", "noise", "message"),
    [
        (np.zeros((4, 4)), 0.01, "volume"),
        (np.full((1, 2, 2), np.nan), 0.01, "finite"),
        (np.zeros((1, 2, 2)), -1.0, "noise"),
    ],
)
def test_dtu_slices__bad_input_is_refused_by_name(volume, noise, message):
    with pytest.raises(InputError, match=message):
        dtu_slices(volume, 1, noise)
