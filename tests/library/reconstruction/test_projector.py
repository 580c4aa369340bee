"""The projector against closed forms, its adjoint and the filtered back-projection."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.library.reconstruction.phantoms import disc_image, disc_sinogram
from tomoforge.errors import InputError
from tomoforge.geometry import uniform_angles
from tomoforge.reconstruction.fbp import fbp
from tomoforge.reconstruction.projector import back_project, project


@given(n=st.integers(8, 41), n_angles=st.integers(1, 20), offset=st.floats(-3, 3), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_project__is_the_adjoint_of_the_back_projection(
    n: int, n_angles: int, offset: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    angles, centre = rng.uniform(-7, 7, n_angles), (n - 1) / 2 + offset
    volume = rng.normal(size=(1, n, n)).astype(np.float32)
    lines = rng.normal(size=(n_angles, 1, n)).astype(np.float32)
    forward = np.vdot(project(volume, angles, centre).astype(float), lines.astype(float))
    backward = np.vdot(volume.astype(float), back_project(lines, angles, centre).astype(float))
    # Float32 rounding: the transforms are each other's transpose, whatever their tolerance.
    size = np.linalg.norm(project(volume, angles, centre)) * np.linalg.norm(lines)
    assert abs(forward - backward) < 1e-5 * size


@pytest.mark.parametrize("n", [96, 97])
@pytest.mark.parametrize("offset", [0.0, 0.5, -9.0])
def test_project__of_a_disc_is_its_chords(n: int, offset: float) -> None:
    angles, centre = uniform_angles(24, 2 * np.pi), (n - 1) / 2 + offset
    discs = [(8, -15, 14, 1.0)]
    found = project(disc_image(n, discs).astype(np.float32)[np.newaxis], angles, centre)[:, 0]
    expected = disc_sinogram(n, angles, centre, discs)
    # Chords of 28 pixels, whose ends are smeared over a pixel in the image and ring (measured 0.63 and 0.08);
    # half a pixel's error would be off by 3.7 at the ends and by 0.6 rms.
    assert np.abs(found - expected).max() < 0.9
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.12


def test_project__one_bright_voxel_follows_the_convention() -> None:
    n, x, y = 64, 17, -9
    volume = np.zeros((3, n, n), np.float32)
    volume[1, n // 2 + y, n // 2 + x] = 1.0
    angles = np.array([0.0, np.pi / 2, 0.7])
    lines = project(volume, angles)
    assert not lines[:, [0, 2]].any()
    for values, angle in zip(lines[:, 1], angles, strict=True):
        # Even grid: the voxel's middle is half a pixel beyond the index.
        u = (x + 0.5) * np.cos(angle) + (y + 0.5) * np.sin(angle)
        assert abs(values.argmax() - (n - 1) / 2 - u) <= 0.5 + 1e-6
        # A whole sample, spread by a sinc: the detector's end cuts off its tail.
        assert values.sum() == pytest.approx(1.0, abs=0.02)


def test_project__gives_back_what_was_reconstructed() -> None:
    n, angles, centre = 128, uniform_angles(200), 60.25
    measured = disc_sinogram(n, angles, centre, [(5, 12, 30, 1.0), (-20, -8, 12, 0.5)])[:, np.newaxis]
    again = project(fbp(measured, angles, 2.0, centre), angles, centre) * 2.0
    # The sharp discs ring at their edges by a twentieth of a pixel's chord; a wrong level would be 1 % of 60.
    assert np.sqrt(np.mean((again - measured) ** 2)) < 0.004 * measured.max()


def test_project__refuses_with_the_reason() -> None:
    with pytest.raises(InputError, match="square slices"):
        project(np.zeros((1, 4, 5), np.float32), uniform_angles(3))
    with pytest.raises(InputError, match="rotation_centre"):
        project(np.zeros((1, 4, 4), np.float32), uniform_angles(3), 4.0)
    with pytest.raises(InputError, match="one entry for each projection"):
        back_project(np.zeros((4, 1, 5), np.float32), uniform_angles(3))
    with pytest.raises(InputError, match="non-empty"):
        back_project(np.zeros((4, 5), np.float32), uniform_angles(4))


def test_project__reports_progress() -> None:
    seen: list[tuple[int, int]] = []
    project(np.zeros((2, 8, 8), np.float32), uniform_angles(3), progress=lambda *step: seen.append(step))
    back_project(np.zeros((3, 1, 8), np.float32), uniform_angles(3), progress=lambda *step: seen.append(step))
    assert seen == [(1, 2), (2, 2), (1, 1)]
