"""Path lengths against chords, conservation and an independent projector."""

import numpy as np
import pytest

from tomoforge.errors import InputError
from tomoforge.geometry import uniform_angles
from tomoforge.optics.thickness import project_thickness

N = 96
GRID = np.indices((N, N, N)) - (N - 1) / 2


def ball(radius: float, centre=(0.0, 0.0, 0.0)) -> np.ndarray:
    z, y, x = (axis - offset for axis, offset in zip(GRID, centre, strict=True))
    return x**2 + y**2 + z**2 < radius**2


@pytest.fixture(scope="module")
def two_materials() -> np.ndarray:
    labels = np.zeros((N, N, N), np.uint8)
    labels[ball(40)] = 1
    labels[ball(20, (4, -8, 6))] = 3
    return labels


def test_project_thickness__sphere_chords_at_oblique_angles():
    radius = 40.0
    angles = np.array([0.0, 0.3, np.pi / 4, 1.0, 2.9])
    paths = project_thickness(ball(radius).astype(np.uint8), 1.0, angles, 2)[:, 1]
    u = np.arange(N) - (N - 1) / 2
    chord = 2 * np.sqrt(np.maximum(radius**2 - u[:, None] ** 2 - u[None, :] ** 2, 0))
    inside = chord > 8  # the rim of a hard-edged voxel ball is rough by a voxel
    for path in paths:
        # Each end of a chord is rounded to a voxel (rms 0.29); the ball is symmetric, so both ends are rounded
        # alike at 0°, and obliquely towards the rim: twice that and a little more.
        assert np.sqrt(np.mean((path - chord)[inside] ** 2)) < 0.7
        assert abs(np.mean((path - chord)[inside])) < 0.05


def test_project_thickness__conserves_volume_over_angle(two_materials):
    totals = project_thickness(two_materials, 1.0, uniform_angles(36), 4).sum(axis=(2, 3))
    for label in (1, 3):
        volume = np.count_nonzero(two_materials == label)
        assert np.abs(totals[:, label] / volume - 1).max() < 1e-3


def test_project_thickness__materials_sum_to_the_way_through_the_volume(two_materials):
    paths = project_thickness(two_materials, 2.0, np.array([0.0, 0.4]), 4)
    np.testing.assert_allclose(paths[0].sum(axis=0), 2.0 * N, rtol=1e-5)
    assert (paths[:, 2] == 0).all()


@pytest.mark.parametrize("angle", [0.0, 0.2, 0.9, np.pi / 2, 2.0, 3.0, 4.0, 5.5])
def test_project_thickness__bright_voxel_lands_where_geometry_says(angle):
    labels = np.zeros((32, 32, 32), np.uint8)
    iz, iy, ix = 5, 20, 26
    labels[iz, iy, ix] = 1
    image = project_thickness(labels, 1.0, np.array([angle]), 2, oversampling=8)[0, 1]
    x, y = ix - 15.5, iy - 15.5
    expected = 15.5 + x * np.cos(angle) + y * np.sin(angle)
    columns = (np.arange(32 * 8) + 0.5) / 8 - 0.5
    assert image.sum(axis=1).argmax() == iz
    assert np.average(columns, weights=image[iz]) == pytest.approx(expected, abs=0.1)


def test_project_thickness__rotation_centre_shifts_columns(two_materials):
    middle = project_thickness(two_materials, 1.0, np.array([0.7]), 4)
    shifted = project_thickness(two_materials, 1.0, np.array([0.7]), 4, rotation_centre=(N - 1) / 2 + 3)
    np.testing.assert_array_equal(shifted[..., 3:], middle[..., :-3])


def test_project_thickness__batches_do_not_change_a_bit(two_materials):
    angles = uniform_angles(5)
    together = project_thickness(two_materials, 1e-6, angles, 4)
    alone = np.concatenate([project_thickness(two_materials, 1e-6, angles[n : n + 1], 4) for n in range(5)])
    assert together.tobytes() == alone.tobytes()


def test_project_thickness__agrees_with_astra(two_materials):
    astra = pytest.importorskip("astra")
    angles = np.array([0.2, 1.1, 2.4])
    geometry = astra.create_proj_geom("parallel", 1.0, N, angles)
    plane = astra.create_vol_geom(N, N)
    projector = astra.create_projector("linear", geometry, plane)
    z = N // 2
    # ASTRA's image rows run against y: turn the slice, not the angle.
    mask = (two_materials[z, ::-1] == 1).astype(np.float32)
    handle, sinogram = astra.create_sino(mask, projector)
    ours = project_thickness(two_materials, 1.0, angles, 4)[:, 1, z]
    # Both interpolate linearly between voxel centres; the rest is float32 summation.
    np.testing.assert_allclose(ours, sinogram, atol=2e-3)
    astra.data2d.delete(handle)
    astra.projector.delete(projector)


def test_project_thickness__refuses_bad_input():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1, 1, 1] = 7
    with pytest.raises(InputError, match=r"labels must lie in 0…3.*labels from 0 to 7"):
        project_thickness(labels, 1.0, np.array([0.0]), 4)
    fine = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(InputError, match="angles must be a non-empty list of finite radians"):
        project_thickness(fine, 1.0, np.array([np.nan]), 4)
    with pytest.raises(InputError, match="voxel_size"):
        project_thickness(fine, -1.0, np.array([0.0]), 4)
    with pytest.raises(InputError, match="labels must be integers"):
        project_thickness(np.zeros((4, 4, 4)), 1.0, np.array([0.0]), 4)
    with pytest.raises(InputError, match="non-empty"):
        project_thickness(np.zeros((0, 4, 4), np.uint8), 1.0, np.array([0.0]), 4)
