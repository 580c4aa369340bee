"""Path lengths against chords, conservation and an independent projector."""

import numba
import numpy as np
import pytest

from tomoforge.errors import InputError
from tomoforge.geometry import uniform_angles
from tomoforge.optics.thickness import fraction_columns, label_runs, project_thickness

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


OBLIQUE = np.array([0.0, 0.3, np.pi / 4, 1.0, np.pi / 2, 2.9, 4.0])


def supersampled(inside, shape: tuple[int, int, int], samples: int = 4) -> np.ndarray:
    """Occupied fractions (1, z, y, x) of a body given as inside(z, y, x), from samples³ points a voxel."""
    points = [(np.arange(n * samples) + 0.5) / samples - n / 2 for n in shape]  # voxels from the middle
    mask = inside(*np.meshgrid(*points, indexing="ij", sparse=True))
    mask = np.broadcast_to(mask, tuple(n * samples for n in shape))
    nz, ny, nx = shape
    return mask.reshape(nz, samples, ny, samples, nx, samples).mean(axis=(1, 3, 5), dtype=np.float32)[None]


def ball_chord(u, z, radius, u0=0.0):
    return 2 * np.sqrt(np.maximum(radius**2 - (u - u0) ** 2 - z**2, 0))


def cylinder_chord(u, z, radius, u0):
    return 2 * np.sqrt(np.maximum(radius**2 - (u - u0) ** 2, 0)) + 0 * z


SHAPE = (40, 64, 64)
U = np.arange(64) - 31.5
Z = np.arange(40)[:, None] - 19.5


def pixel_means(chord, samples: int = 8):
    """Chords averaged over each pixel: at a rim their slope is infinite, and a ray is no measure of its pixel."""
    offsets = (np.arange(samples) + 0.5) / samples - 0.5
    return np.mean([chord(U + du, Z + dz) for du in offsets for dz in offsets], axis=0)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


# What the issue asks of fractions is 0.3 voxel. Worst measured over the angles: means of the pixels that the body
# touches 0.25 (ball) and 0.27 (cylinder, most of it in the rim's pixels, since voxels blur the rim), rays with chords
# beyond 8 voxels 0.20 and 0.24. Labels give such rays 0.55 (ball) and 0.62 (cylinder).
@pytest.mark.parametrize("angle", OBLIQUE)
def test_project_thickness__fractions_give_chords_of_an_off_axis_ball(angle):
    x0, y0, radius = 7.3, -4.6, 16.4
    volume = supersampled(lambda z, y, x: (x - x0) ** 2 + (y - y0) ** 2 + z**2 < radius**2, SHAPE)
    u0 = x0 * np.cos(angle) + y0 * np.sin(angle)
    path = project_thickness(volume, 1.0, np.array([angle]), 2, oversampling=8)[0, 1]
    expected = pixel_means(lambda u, z: ball_chord(u, z, radius, u0))
    assert rms((path.reshape(40, 64, 8).mean(axis=2) - expected)[expected > 0]) < 0.3
    chord = ball_chord(U, Z, radius, u0)
    rays = project_thickness(volume, 1.0, np.array([angle]), 2)[0, 1]
    assert rms((rays - chord)[chord > 8]) < 0.3


@pytest.mark.parametrize("angle", OBLIQUE)
def test_project_thickness__fractions_give_chords_of_an_off_axis_cylinder(angle):
    x0, y0, radius = -2.2, 4.7, 23.3
    volume = supersampled(lambda z, y, x: ((x - x0) ** 2 + (y - y0) ** 2 < radius**2) | (z > 99), SHAPE)
    u0 = x0 * np.cos(angle) + y0 * np.sin(angle)
    path = project_thickness(volume, 2e-6, np.array([angle]), 2, oversampling=8)[0, 1] / 2e-6
    expected = pixel_means(lambda u, z: cylinder_chord(u, z, radius, u0))
    assert rms((path.reshape(40, 64, 8).mean(axis=2) - expected)[expected > 0]) < 0.3
    chord = cylinder_chord(U, Z, radius, u0)
    rays = project_thickness(volume, 2e-6, np.array([angle]), 2)[0, 1] / 2e-6
    assert rms((rays - chord)[chord > 8]) < 0.3


@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 4, 0.9, 2.5])
@pytest.mark.parametrize("kind", ["labels", "fractions"])
def test_project_thickness__chords_of_a_tilted_slab(angle, kind):
    lean, thickness = 0.35, 11.3  # its normal lies at `lean` from y towards x
    volume = supersampled(
        lambda z, y, x: (np.abs(x * np.sin(lean) + y * np.cos(lean)) < thickness / 2) | (z > 99), (2, 64, 64)
    )
    chord = thickness / abs(np.cos(angle + lean))
    slant = abs(np.tan(angle + lean))
    middle = np.abs(U) < (30 - thickness / 2 * slant) * abs(np.cos(angle + lean))  # both faces in the field
    if kind == "labels":
        volume = (volume[0] > 0.5).astype(np.uint8)
    error = (project_thickness(volume, 1.0, np.array([angle]), 2)[0, 1] - chord)[:, middle]
    assert middle.sum() > 5
    # A face lies up to half a voxel off in labels, along a shallow ray by 1/cos of its slope more.
    assert rms(error) < (1.0 if kind == "labels" else 0.3)


@pytest.mark.parametrize("kind", ["labels", "fractions"])
def test_project_thickness__mass_is_the_same_at_every_angle(kind):
    volume = supersampled(lambda z, y, x: (x / 22) ** 2 + ((y - 5) / 14) ** 2 + (z / 15) ** 2 < 1, SHAPE)
    if kind == "labels":
        volume = (volume[0] > 0.5).astype(np.uint8)
    masses = project_thickness(volume, 1.0, uniform_angles(24, 2 * np.pi), 2)[:, 1].sum(axis=(1, 2))
    assert np.abs(masses / volume.sum() - 1).max() < 1e-3


BRIGHT_ANGLES = np.array([0.0, 0.2, 0.9, np.pi / 2, 2.0, 3.0, 4.0, 5.5, -1.3])


@pytest.mark.parametrize("angle", BRIGHT_ANGLES)
@pytest.mark.parametrize("kind", ["labels", "fractions"])
def test_project_thickness__bright_voxel_lands_where_geometry_says(angle, kind):
    iz, iy, ix = 5, 20, 26
    found = bright_column(angle, kind, (iz, iy, ix))
    x, y = ix - 15.5, iy - 15.5
    assert found == pytest.approx(15.5 + x * np.cos(angle) + y * np.sin(angle), abs=0.1)


def bright_column(angle: float, kind: str, voxel: tuple[int, int, int], mirrored: bool = False) -> float:
    """Mean detector column of a bright voxel, after a check that its row is right."""
    labels = np.zeros((32, 32, 32), np.uint8)
    labels[voxel] = 1
    if mirrored:
        labels = labels[:, :, ::-1]
    volume = labels if kind == "labels" else labels[None].astype(np.float32)
    image = project_thickness(volume, 1.0, np.array([angle]), 2, oversampling=8)[0, 1]
    assert image.sum(axis=1).argmax() == voxel[0] and np.count_nonzero(image.sum(axis=1)) == 1
    columns = (np.arange(32 * 8) + 0.5) / 8 - 0.5
    return float(np.average(columns, weights=image[voxel[0]]))


@pytest.mark.parametrize("angle", BRIGHT_ANGLES)
def test_project_thickness__no_other_handedness_puts_the_bright_voxel_there(angle):
    iz, iy, ix = 5, 20, 26
    x, y = ix - 15.5, iy - 15.5
    c, s = np.cos(angle), np.sin(angle)
    found = bright_column(angle, "labels", (iz, iy, ix)) - 15.5
    # Turning the other way, or seeing the detector from behind, lands elsewhere wherever it can be told.
    for wrong in (x * c - y * s, -x * c - y * s):
        if abs(wrong - (x * c + y * s)) > 0.5:
            assert abs(found - wrong) > 0.4
    reflected = bright_column(angle, "labels", (iz, iy, ix), mirrored=True) - 15.5
    assert reflected == pytest.approx(-x * c + y * s, abs=0.1)


def test_project_thickness__half_a_turn_later_is_the_mirror_image(two_materials):
    angles = np.array([0.0, 0.4, 1.3])
    front, back = (project_thickness(two_materials, 1.0, angles + turn, 4) for turn in (0.0, np.pi))
    np.testing.assert_allclose(front, back[..., ::-1], atol=1e-4)  # cos and sin of θ + π round


def test_project_thickness__tilt_series_with_a_missing_wedge_is_part_of_the_full_turn(two_materials):
    full = np.deg2rad(np.arange(-90, 90, 30))
    kept = np.abs(full) <= np.deg2rad(60)
    runs = label_runs(two_materials)
    whole = project_thickness(runs, 1.0, full, 4)
    assert whole[kept].tobytes() == project_thickness(runs, 1.0, full[kept], 4).tobytes()


def test_project_thickness__whole_fractions_equal_labels(two_materials):
    angles = np.array([0.3, 1.9])
    fractions = np.stack([two_materials == m for m in (1, 2, 3)]).astype(np.float32)
    expected = project_thickness(two_materials, 1.0, angles, 4, planes=3)
    without = project_thickness(fractions, 1.0, angles, 4, planes=3)
    # Shares of planes are rounded to 2⁻²⁰ for labels, 70 steps of them.
    np.testing.assert_allclose(without, expected, atol=1e-4)
    background = np.concatenate([(two_materials == 0).astype(np.float32)[None], fractions])
    assert project_thickness(background, 1.0, angles, 4, planes=3).tobytes() == without.tobytes()
    columns = fraction_columns(fractions, 4)
    assert project_thickness(columns, 1.0, angles, 4, planes=3).tobytes() == without.tobytes()


def test_label_runs__give_the_same_bytes_as_labels_and_stay_small(two_materials):
    runs = label_runs(two_materials)
    angles = np.array([0.3, 1.9])
    expected = project_thickness(two_materials, 1.0, angles, 5)
    assert project_thickness(runs, 1.0, angles, 5).tobytes() == expected.tobytes()
    assert project_thickness(two_materials[:, ::-1][:, ::-1], 1.0, angles, 5).tobytes() == expected.tobytes()
    # 8 bytes for each run, of which a column has about one, and 8 for the column.
    assert runs.nbytes < 0.2 * two_materials.nbytes


def test_label_runs__hold_every_label_of_noise():
    labels = np.random.default_rng(5).integers(0, 4, (23, 17, 19)).astype(np.uint8)
    angles = np.array([0.0, 0.7, 2.2])
    paths = project_thickness(labels, 1.0, angles, 4)
    fractions = np.stack([labels == m for m in (1, 2, 3)]).astype(np.float32)
    # Both are exact to their float32 output.
    np.testing.assert_allclose(paths, project_thickness(fractions, 1.0, angles, 4), atol=2e-5)
    np.testing.assert_array_equal(
        project_thickness(labels, 1.0, np.array([0.0]), 4)[0],
        np.stack([(labels == m).sum(axis=1) for m in range(4)]),
    )


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="numba was started with one thread")
@pytest.mark.parametrize("kind", ["labels", "fractions"])
def test_project_thickness__the_same_bytes_for_one_and_two_threads(two_materials, kind):
    volume = two_materials if kind == "labels" else (two_materials == 1)[None].astype(np.float32) * 0.7
    threads = numba.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            numba.set_num_threads(count)
            results.append(
                project_thickness(volume, 1e-6, np.array([0.2, 1.2]), 4 if kind == "labels" else 2, planes=3)
            )
    finally:
        numba.set_num_threads(threads)
    assert results[0].tobytes() == results[1].tobytes()


def test_project_thickness__wide_and_narrow_detectors(two_materials):
    angle = np.array([0.6])
    middle = project_thickness(two_materials, 1.0, angle, 4)
    wide = project_thickness(two_materials, 1.0, angle, 4, n_columns=N + 40)
    np.testing.assert_array_equal(wide[..., 20:-20], middle)
    narrow = project_thickness(two_materials, 1.0, angle, 4, n_columns=N - 40)
    np.testing.assert_array_equal(narrow, middle[..., 20:-20])
    fine = project_thickness(two_materials, 1.0, angle, 4, oversampling=3)
    np.testing.assert_allclose(fine[..., 1::3], middle, atol=1e-5)  # the middle third's ray is the pixel's


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
    runs = label_runs(labels)
    with pytest.raises(InputError, match=r"labels must lie in 0…3.*to 7"):
        project_thickness(runs, 1.0, np.array([0.0]), 4)
    with pytest.raises(InputError, match="angles must be a non-empty list"):
        project_thickness(fine, 1.0, np.array([]), 4)
    with pytest.raises(InputError, match="rotation_centre must be a finite"):
        project_thickness(fine, 1.0, np.array([0.0]), 4, rotation_centre=np.nan)
    with pytest.raises(InputError, match="planes must be a whole number"):
        project_thickness(fine, 1.0, np.array([0.0]), 4, planes=0)
    with pytest.raises(InputError, match="depth_extent must be positive"):
        project_thickness(fine, 1.0, np.array([0.0]), 4, planes=3, depth_extent=-1.0)
    with pytest.raises(InputError, match="axis_tilt must be two leans"):
        project_thickness(fine, 1.0, np.array([0.0]), 4, axis_tilt=(0.0, 0.5))


def test_project_thickness__refuses_fractions_that_are_none():
    good = np.full((2, 4, 4, 4), 0.4, np.float32)
    angle = np.array([0.0])
    with pytest.raises(InputError, match=r"an entry for each material, 4 without the background.*got 2"):
        project_thickness(good, 1.0, angle, 5)
    with pytest.raises(InputError, match=r"add up to at most 1.*sum of 1\.2"):
        project_thickness(good * 1.5, 1.0, angle, 3)
    with pytest.raises(InputError, match="at least 0"):
        project_thickness(-good, 1.0, angle, 3)
    with pytest.raises(InputError, match="at least 0"):
        project_thickness(good * np.nan, 1.0, angle, 3)
    with pytest.raises(InputError, match="were labels stacked"):
        project_thickness(good.astype(np.uint8), 1.0, angle, 3)
    with pytest.raises(InputError, match="n_materials must be the 3 that"):
        project_thickness(fraction_columns(good, 3), 1.0, angle, 4)
