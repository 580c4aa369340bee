"""Rays of a scan through labels: which pixel crosses what, and what is left out."""

import numpy as np
import pytest

from tomoforge.absorption.mu_rays import collect_rays
from tomoforge.errors import InputError

VOXEL = 2e-6
QUARTERS = np.array([0.0, 0.5, 1.0, 1.5]) * np.pi


def _lumps() -> np.ndarray:
    """Nothing symmetric: a slab of 1, a bar of 2, a block of 3 inside the slab. (8, 12, 10)"""
    labels = np.zeros((8, 12, 10), dtype=np.uint8)
    labels[1:5, 2:9, 1:6] = 1
    labels[2:4, 4:6, 2:4] = 3
    labels[5:8, 1:3, 6:9] = 2
    return labels


def _image(rays, projection: int, label: int, shape: tuple[int, int]) -> np.ndarray:
    image = np.full(shape, np.nan)
    mine = rays.projection == projection
    image[tuple(rays.pixel[mine].T)] = rays.lengths[mine, label]
    return np.nan_to_num(image)


def test_collect_rays__quarter_turns_are_sums_along_the_axes():
    # Odd numbers of columns and voxels differ by half a pixel, so the detector is as wide as y and x are even.
    labels = _lumps()
    rays = collect_rays(np.ones((4, 8, 16)), labels, VOXEL, QUARTERS, VOXEL, margin=0)
    for label in (1, 2, 3):
        mask = (labels == label).astype(float) * VOXEL
        along_y, along_x = mask.sum(axis=1), mask.sum(axis=2)
        # u = x cos θ + y sin θ: at 0° column ∝ x, at 90° ∝ y, then both the other way round.
        wanted = [along_y, along_x, along_y[:, ::-1], along_x[:, ::-1]]
        for projection, image in enumerate(wanted):
            side = (16 - image.shape[1]) // 2
            want = np.pad(image, ((0, 0), (side, side)))
            # cos 90° is 6e-17: rays leave their column by less than rounding.
            got = _image(rays, projection, label, (8, 16))
            np.testing.assert_allclose(got, want, atol=1e-9 * VOXEL)


def test_collect_rays__a_ball_is_crossed_along_its_chords_at_any_angle():
    n, radius = 48, 17.0
    grid = np.indices((n, n, n)) - (n - 1) / 2
    offset = np.array([3.0, 4.0, -5.0])[:, None, None, None]
    labels = (((grid - offset) ** 2).sum(axis=0) <= radius**2).astype(np.uint8)
    angles = np.array([0.2, 1.1, 2.9])
    # Half the pixel size, and an axis off the middle of the detector.
    rays = collect_rays(
        np.ones((3, 96, 120)), labels, VOXEL, angles, VOXEL / 2, rotation_centre=63.0, margin=0
    )
    turn = angles[rays.projection]
    x, y, z = -5.0, 4.0, 3.0
    u = (rays.pixel[:, 1] - 63.0) / 2 - (x * np.cos(turn) + y * np.sin(turn))
    v = (rays.pixel[:, 0] - 47.5) / 2 - z
    chord = 2 * np.sqrt(np.maximum(radius**2 - u**2 - v**2, 0)) * VOXEL
    difference = rays.lengths[:, 1] - chord
    inside = u**2 + v**2 < (0.8 * radius) ** 2
    # A surface of voxels is half a voxel rough at either end; on average it is the ball's.
    assert np.abs(difference[inside]).max() < 2.0 * VOXEL
    assert abs(difference[inside].mean()) < 0.05 * VOXEL
    assert np.all(rays.lengths[u**2 + v**2 > (radius + 1) ** 2, 1] == 0)


def test_collect_rays__line_integrals_are_of_their_own_pixels():
    rng = np.random.default_rng(0)
    transmission = rng.uniform(0.2, 1.0, (4, 8, 16))
    rays = collect_rays(transmission, _lumps(), VOXEL, QUARTERS, VOXEL)
    want = -np.log(transmission[rays.projection, rays.pixel[:, 0], rays.pixel[:, 1]])
    np.testing.assert_array_equal(rays.line_integrals, want)


def test_collect_rays__alone_near_edge_and_air():
    rays = collect_rays(np.ones((1, 8, 16)), _lumps(), VOXEL, [0.0], VOXEL, margin=1)
    row, column = rays.pixel.T
    x = column - 3  # 16 columns over 10 voxels
    # In rows 2 and 3 the block of 3 covers x = 2, 3; the slab x = 1 … 5 in rows 1 … 4.
    alone = rays.alone(1)
    inside = ((x == 2) | (x == 3) | (x == 4)) & (row == 4)
    assert not alone[row == 4].any()  # its neighbour below is the bar or air
    assert not alone[inside].any()
    assert np.all(rays.air == (rays.lengths.sum(axis=1) == 0))
    assert rays.near_edge[(row == 2) & (x == 1)].all()
    wide = collect_rays(np.ones((1, 8, 16)), _lumps(), VOXEL, [0.0], VOXEL, margin=0)
    assert not wide.near_edge.any()
    assert set(zip(*wide.pixel[wide.alone(3)].T.tolist(), strict=True)) == set()  # the slab is around it
    beside = wide.alone(1)
    assert beside.sum() == 4 * 5 - 2 * 2
    assert wide.alone(2).sum() == 3 * 3
    with pytest.raises(InputError, match="label must be"):
        rays.alone(0)


def test_collect_rays__unusable_values_are_counted_not_kept():
    transmission = np.ones((2, 8, 16))
    transmission[0, 2, 5] = 0.0
    transmission[1, 3, 7] = -0.2
    transmission[1, 4, 7] = np.nan
    rays = collect_rays(transmission, _lumps(), VOXEL, [0.0, 1.0], VOXEL)
    assert rays.unusable == 3
    assert np.isfinite(rays.line_integrals).all()


def test_collect_rays__a_region_and_a_number_limit_the_rays():
    region = np.zeros((8, 16), dtype=bool)
    region[1:4, 5:9] = True
    rays = collect_rays(np.ones((4, 8, 16)), _lumps(), VOXEL, QUARTERS, VOXEL, region=region)
    assert len(rays) == 4 * 12
    drawn = np.zeros((4, 8, 16), dtype=bool)
    drawn[2, 1:4, 5:9] = True
    rays = collect_rays(np.ones((4, 8, 16)), _lumps(), VOXEL, QUARTERS, VOXEL, region=drawn)
    assert set(rays.projection.tolist()) == {2}
    few = collect_rays(np.ones((4, 8, 16)), _lumps(), VOXEL, QUARTERS, VOXEL, most_rays=40, projections=2)
    assert len(few) == 40 and len(np.unique(few.projection)) == 2
    again = collect_rays(np.ones((4, 8, 16)), _lumps(), VOXEL, QUARTERS, VOXEL, most_rays=40, projections=2)
    np.testing.assert_array_equal(few.pixel, again.pixel)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"angles": [0.0]}, "angles"),
        ({"labels": np.zeros((8, 12, 10), dtype=np.uint8)}, "background alone"),
        ({"pixel_size": 0.0}, "positive"),
        ({"most_rays": 0}, "at least 1"),
        ({"region": np.zeros((8, 16), dtype=bool)}, "region leaves no ray"),
        ({"region": np.ones((8, 15), dtype=bool)}, "region must be"),
        ({"region": np.ones((8, 16))}, "region must be"),
        ({"rotation_centre": 500.0}, "misses"),
    ],
)
def test_collect_rays__refuses(change, message):
    arguments = {
        "transmission": np.ones((4, 8, 16)), "labels": _lumps(), "voxel_size": VOXEL, "angles": QUARTERS,
        "pixel_size": VOXEL,
    }  # fmt: skip
    with pytest.raises(InputError, match=message):
        collect_rays(**(arguments | change))
