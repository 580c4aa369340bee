"""Voxel traversal against closed forms and an independent implementation."""

import numba
import numpy as np
import pytest

from tomoforge.absorption.paths import optical_depths, path_lengths
from tomoforge.compilation import compiled
from tomoforge.errors import InputError

VOXEL = 2e-6


def _random_units(rng, count):
    vectors = rng.normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _points_inside(rng, shape, count):
    return rng.random((count, 3)) * shape - 0.5


def _chord(point, direction, shape):
    """Distance from a point inside to the volume's edge, in voxels."""
    with np.errstate(divide="ignore", invalid="ignore"):
        faces = np.where(direction > 0, np.array(shape) - 0.5, -0.5)
        t = np.where(direction != 0, (faces - point) / direction, np.inf)
    return t.min()


def _siddon(labels, point, direction, n_materials):
    """Siddon (Med. Phys. 12 (1985) 252): sort all plane crossings, look up the middles. In voxels."""
    end = _chord(point, direction, labels.shape)
    crossings = [np.array([0.0, end])]
    for axis, n in enumerate(labels.shape):
        if direction[axis] != 0:
            crossings.append((np.arange(n + 1) - 0.5 - point[axis]) / direction[axis])
    t = np.sort(np.concatenate(crossings))
    t = t[(t >= 0) & (t <= end)]
    middle = point + 0.5 * (t[1:] + t[:-1])[:, None] * direction
    index = np.clip(np.floor(middle + 0.5).astype(int), 0, np.array(labels.shape) - 1)
    return np.bincount(labels[tuple(index.T)], np.diff(t), minlength=n_materials)


def test_path_lengths__uniform_cube_along_axes_is_distance_to_face():
    labels = np.full((5, 6, 7), 3, dtype=np.uint8)
    point = np.array([[1.25, 2.0, 3.75]])
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    got = path_lengths(labels, VOXEL, point, axes, 4)[0]
    want = np.array([4.5 - 1.25, 5.5 - 2, 6.5 - 3.75, 1.25 + 0.5, 2 + 0.5, 3.75 + 0.5]) * VOXEL
    np.testing.assert_allclose(got[:, 3], want, rtol=1e-12)  # double precision, a handful of sums
    assert np.all(got[:, :3] == 0)


def test_path_lengths__slanted_ray_through_slab_is_thickness_over_cosine():
    labels = np.zeros((40, 12, 40), dtype=np.uint8)
    labels[:, 4:9, :] = 2
    angle = np.radians(37.0)
    direction = np.array([[np.sin(angle) * 0.6, np.cos(angle), np.sin(angle) * 0.8]])
    got = path_lengths(labels, VOXEL, np.array([[12.0, 0.3, 13.0]]), direction, 3)[0, 0]
    assert got[2] == pytest.approx(5 * VOXEL / np.cos(angle), rel=1e-12)
    assert got[0] == pytest.approx((11.5 - 0.3 - 5) * VOXEL / np.cos(angle), rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 2), (9, 8, 7), (16, 5, 11)])
def test_path_lengths__agrees_with_sorted_plane_crossings(shape):
    rng = np.random.default_rng(sum(shape))
    labels = rng.integers(0, 4, shape).astype(np.uint8)
    labels[0] *= rng.integers(0, 2)  # an empty face, so that the crop has something to do
    points, directions = _points_inside(rng, shape, 12), _random_units(rng, 15)
    got = path_lengths(labels, 1.0, points, directions, 4)
    want = [[_siddon(labels, p, d, 4) for d in directions] for p in points]
    np.testing.assert_allclose(got, want, atol=1e-12)  # rounding of some forty crossings


def test_path_lengths__rays_from_the_air_outside_the_crop_agree_with_plane_crossings():
    rng = np.random.default_rng(5)
    labels = np.zeros((12, 13, 14), dtype=np.uint8)
    labels[4:7, 5:9, 6:8] = rng.integers(0, 3, (3, 4, 2))
    points, directions = _points_inside(rng, labels.shape, 40), _random_units(rng, 40)
    directions = np.concatenate([directions, np.eye(3), -np.eye(3)])
    got = path_lengths(labels, 1.0, points, directions, 3)
    want = [[_siddon(labels, p, d, 3) for d in directions] for p in points]
    assert np.any(got[..., 1] > 0)
    np.testing.assert_allclose(got, want, atol=1e-12)  # rounding


def test_path_lengths__sum_over_materials_is_the_chord():
    rng = np.random.default_rng(1)
    labels = np.zeros((20, 18, 16), dtype=np.uint8)
    labels[5:15, 3:12, 6:10] = rng.integers(0, 4, (10, 9, 4))
    points, directions = _points_inside(rng, labels.shape, 30), _random_units(rng, 30)
    got = path_lengths(labels, 1.0, points, directions, 4).sum(axis=2)
    want = [[_chord(p, d, labels.shape) for d in directions] for p in points]
    np.testing.assert_allclose(got, want, atol=1e-12)  # rounding


def test_path_lengths__there_and_back_are_the_same():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, (10, 11, 12)).astype(np.uint8)
    point, directions = np.array([[4.3, 5.1, 6.7]]), _random_units(rng, 20)
    for direction in directions:
        whole = path_lengths(labels, 1.0, point, np.stack([direction, -direction]), 4)[0].sum(axis=0)
        # A hair inside the face, so that rounding does not leave the volume.
        exit_point = point + (_chord(point[0], direction, labels.shape) - 1e-13) * direction
        back = path_lengths(labels, 1.0, exit_point, -direction[None], 4)[0, 0]
        np.testing.assert_allclose(back, whole, atol=1e-11)  # the exit point is off by 1e-13 and rounding


def test_path_lengths__air_gap_counts_as_background():
    labels = np.zeros((3, 3, 10), dtype=np.uint8)
    labels[:, :, 2:4] = 1
    labels[:, :, 7:9] = 2
    got = path_lengths(labels, 1.0, np.array([[1.0, 1.0, 1.5]]), np.array([[0, 0, 1.0]]), 3)[0, 0]
    np.testing.assert_allclose(got, [4, 2, 2], rtol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_path_lengths__points_on_faces_and_in_the_last_voxel(axis, sign):
    labels = np.full((4, 4, 4), 1, dtype=np.uint8)
    direction = np.zeros((1, 3))
    direction[0, axis] = sign
    for coordinate in (-0.5, 0.5, 1.5, 2.5, 3.5, 3.0, 3.25):
        point = np.full((1, 3), 3.5)  # the far edge on the other axes as well
        point[0, axis] = coordinate
        got = path_lengths(labels, 1.0, point, direction, 2)[0, 0, 1]
        assert got == pytest.approx(3.5 - coordinate if sign > 0 else coordinate + 0.5, abs=1e-12)


def test_path_lengths__almost_parallel_rays_stay_finite():
    labels = np.full((8, 8, 8), 1, dtype=np.uint8)
    directions = np.array([[1e-300, 1.0, 0], [-1e-18, 1.0, 1e-18], [0.0, -0.0, 1.0], [5e-324, -1.0, 0]])
    got = path_lengths(labels, 1.0, np.full((1, 3), 3.5), directions, 2)[0, :, 1]
    np.testing.assert_allclose(got, 4.0, rtol=1e-12)


def test_optical_depths__is_path_lengths_times_mu():
    rng = np.random.default_rng(3)
    labels = np.zeros((9, 10, 11), dtype=np.uint8)
    labels[2:7, 3:9, 4:8] = rng.integers(0, 4, (5, 6, 4))
    mu = np.array([0.0, 3e4, 0.0, 5e4])
    points, directions = _points_inside(rng, labels.shape, 25), _random_units(rng, 9)
    lengths = path_lengths(labels, VOXEL, points, directions, 4)
    got = optical_depths(labels, VOXEL, mu, points, directions)
    np.testing.assert_allclose(got, (lengths @ mu).T, atol=1e-13)  # another order of sums


def test_path_lengths__same_bytes_for_any_number_of_threads():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 4, (15, 15, 15)).astype(np.uint8)
    points, directions = _points_inside(rng, labels.shape, 50), _random_units(rng, 7)
    before = numba.get_num_threads()
    results = []
    try:
        for threads in (1, numba.config.NUMBA_NUM_THREADS):
            numba.set_num_threads(threads)
            results.append(path_lengths(labels, VOXEL, points, directions, 4).tobytes())
    finally:
        numba.set_num_threads(before)
    assert results[0] == results[1]


def test_path_lengths__no_points_or_no_directions_give_empty():
    labels = np.ones((3, 3, 3), dtype=np.uint8)
    assert path_lengths(labels, 1.0, np.zeros((0, 3)), np.eye(3), 2).shape == (0, 3, 2)
    assert path_lengths(labels, 1.0, np.zeros((2, 3)), np.zeros((0, 3)), 2).shape == (2, 0, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"directions": np.array([[0, 0, 2.0]])}, "unit vectors"),
        ({"directions": np.array([[0, np.nan, 1.0]])}, "unit vectors"),
        ({"directions": np.array([0, 0, 1.0])}, r"\(n, 3\)"),
        ({"points": np.array([[0, 0, 2.6]])}, "inside the volume"),
        ({"points": np.array([[0, 0, np.nan]])}, "inside the volume"),
        ({"labels": np.full((3, 3, 3), 2)}, "n_materials"),
        ({"labels": np.ones((3, 3, 3))}, "integers"),
        ({"labels": np.full((3, 3, 3), -1)}, "0 … 255"),
        ({"labels": np.ones((3, 3), dtype=np.uint8)}, "volume"),
        ({"voxel_size": 0.0}, "voxel_size"),
        ({"voxel_size": np.nan}, "voxel_size"),
    ],
)
def test_path_lengths__refuses(change, message):
    arguments = {
        "labels": np.ones((3, 3, 3), dtype=np.uint8),
        "voxel_size": VOXEL,
        "points": np.ones((1, 3)),
        "directions": np.array([[0, 0, 1.0]]),
        "n_materials": 2,
    }
    with pytest.raises(InputError, match=message):
        path_lengths(**(arguments | change))


def test_compiled__works_where_no_cache_can_be_written():
    # Source without a file has nowhere to be cached, as on a read-only disk without a home.
    scope: dict = {}
    exec(compile("def double(x):\n    return 2 * x\n", "<nowhere>", "exec"), scope)
    assert compiled()(scope["double"])(21) == 42
