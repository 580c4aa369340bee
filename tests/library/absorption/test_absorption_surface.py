"""The absorption surface: where directions lie, and its picture."""

import io

import numpy as np
import pytest
from PIL import Image

from tomoforge.absorption.illumination import BeamProfile
from tomoforge.absorption.surface import absorption_surface, surface_directions, surface_picture
from tomoforge.errors import InputError

VOXEL = 1e-6


def test_surface_directions__equal_areas_and_joined_rims():
    directions, inside = surface_directions(41)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1, rtol=1e-12)
    np.testing.assert_allclose(directions[0, 20, 20], [1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(directions[0, 20, 40], [0, 0, 1], atol=1e-15)  # x to the right
    np.testing.assert_allclose(directions[0, 0, 20], [0, 1, 0], atol=1e-15)  # y upwards
    np.testing.assert_allclose(directions[0, 20, 40], directions[1, 20, 40], atol=1e-15)
    # Equal areas: the mean of z over a hemisphere is 1/2. Pixels of 1/20 along the rim: a few per cent.
    disc = inside & (directions[0, ..., 0] >= 0)
    assert directions[0][disc][:, 0].mean() == pytest.approx(0.5, abs=0.02)


def test_absorption_surface__plate_is_dark_in_its_plane():
    labels = np.zeros((15, 15, 15), dtype=np.uint8)
    labels[6:9] = 3
    beam = np.array([1.0, 0, 0])
    surface = absorption_surface(labels, VOXEL, {3: 1e5}, beam, rows=15, target_error=2e-2)
    assert surface.shape == (2, 15, 15)
    assert surface[0, 7, 7] == pytest.approx(np.exp(-0.3), rel=1e-6)  # straight on through three voxels
    assert surface[0, 7, 14] < 0.8 * surface[0, 7, 7]
    assert np.isnan(surface[0, 0, 0])
    first, second = (surface_picture(surface, beam) for _ in "ab")
    assert first == second
    picture = Image.open(io.BytesIO(first))
    assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50
    marked = surface_picture(surface, beam, reach=0.8)
    assert marked != first and marked == surface_picture(surface, beam, reach=0.8)


def test_surface_picture__of_a_flat_surface_has_no_lines_of_noise():
    flat = 0.5 * (1 + 1e-5 * np.random.default_rng(1).standard_normal((2, 15, 15)))
    assert Image.open(io.BytesIO(surface_picture(flat, np.array([0, 1.0, 0]), reach=np.pi / 2))).size[0] > 500


def test_absorption_surface__small_beam_sees_another_part_of_the_crystal():
    labels = np.zeros((15, 15, 15), dtype=np.uint8)
    labels[3:12, 3:12, 3:12] = 3
    arguments = (labels, VOXEL, {3: 1e5}, np.array([0, 1.0, 0]))
    whole = absorption_surface(*arguments, rows=9, target_error=2e-2)
    middle = absorption_surface(
        *arguments, rows=9, target_error=2e-2, profile=BeamProfile("top_hat", 1e-6, 1e-6)
    )
    # Along z the ray leaves the middle by half the cube; from the whole cube by as much only in the mean.
    assert middle[0, 4, 4] < whole[0, 4, 4]


def test_absorption_surface__refuses():
    labels = np.full((4, 4, 4), 3, dtype=np.uint8)
    with pytest.raises(InputError, match="incoming"):
        absorption_surface(labels, VOXEL, {3: 1e4}, np.eye(3))
    with pytest.raises(InputError, match="surface"):
        surface_picture(np.full((2, 3, 3), np.nan), np.array([0, 1.0, 0]))
