"""Planes along the beam and a leaning axis: what they add up to, where they stand, which way they point."""

import numpy as np
import pytest

from tomoforge.errors import InputError
from tomoforge.geometry import uniform_angles
from tomoforge.optics.thickness import label_runs, plane_depths, project_thickness

SHAPE = (24, 48, 48)
Z, Y, X = (
    axis - (n - 1) / 2
    for axis, n in zip(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), SHAPE, strict=True)
)


def ball(radius: float, x0: float, y0: float, z0: float = 0.0) -> np.ndarray:
    return ((X - x0) ** 2 + (Y - y0) ** 2 + (Z - z0) ** 2 < radius**2).astype(np.uint8)


@pytest.fixture(scope="module")
def bodies() -> np.ndarray:
    labels = ball(11, 0, 0)
    labels[ball(6, 9, -10) == 1] = 3
    return labels


def test_plane_depths__lie_symmetric_about_the_axis():
    np.testing.assert_array_equal(plane_depths((9, 20, 30), 2e-6, 1), [0.0])
    depths = plane_depths((9, 20, 30), 2e-6, 4)
    np.testing.assert_allclose(
        depths, np.array([-30, -10, 10, 30]) * 1e-6, rtol=1e-12
    )  # the larger side, 60 µm
    np.testing.assert_allclose(
        plane_depths((9, 20, 30), 2e-6, 3, depth_extent=1e-5), [-5e-6, 0, 5e-6], rtol=1e-12
    )
    tall = plane_depths((90, 20, 30), 2e-6, 2)
    np.testing.assert_allclose(tall, [-30e-6, 30e-6], rtol=1e-12)  # height is no depth
    for planes in (0, -1, 2.5):
        with pytest.raises(InputError, match="planes must be a whole number"):
            plane_depths((9, 20, 30), 2e-6, planes)


@pytest.mark.parametrize("planes", [2, 5, 9])
@pytest.mark.parametrize("kind", ["labels", "fractions"])
def test_planes__sum_to_the_whole(bodies, planes, kind):
    volume = (
        bodies if kind == "labels" else np.stack([bodies == m for m in (1, 2, 3)]).astype(np.float32) * 0.8
    )
    angles = np.array([0.0, 0.5, np.pi / 4, 2.0, 3.6, 5.2])
    whole = project_thickness(volume, 1.0, angles, 4)
    parts = project_thickness(volume, 1.0, angles, 4, planes=planes)
    assert parts.shape == (6, planes, 4, 24, 48)
    assert parts.min() >= 0
    # Shares add up exactly before each plane is rounded to float32 (paths up to 60 voxels: 4e-6 each).
    np.testing.assert_allclose(parts.sum(axis=1, dtype=np.float64), whole, atol=2e-5)


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.1, np.pi / 2, 2.4, 3.9, 5.4])
@pytest.mark.parametrize(("extent", "kind"), [(None, "labels"), (72e-6, "labels"), (None, "fractions")])
def test_planes__centre_of_mass_is_the_depth_of_an_off_axis_body(angle, extent, kind):
    voxel, x0, y0 = (
        2e-6,
        8.5,
        -6.5,
    )  # between voxel centres: the ball's voxels have their centre of mass there
    volume = ball(6, x0, y0) if kind == "labels" else ball(6, x0, y0)[None].astype(np.float32)
    parts = project_thickness(volume, voxel, np.array([angle]), 2, planes=5, depth_extent=extent)
    masses = parts[0, :, 1].sum(axis=(1, 2), dtype=np.float64)
    depth = np.average(plane_depths(SHAPE, voxel, 5, depth_extent=extent), weights=masses) / voxel
    # Linear shares keep the first moment; the sampling of rays leaves 0.02 voxel.
    assert depth == pytest.approx(-x0 * np.sin(angle) + y0 * np.cos(angle), abs=0.05)


def test_planes__material_between_two_planes_is_on_no_other():
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 30, 20] = 1  # y = 6.5: at angle 0 its depth
    parts = project_thickness(labels, 1.0, np.array([0.0]), 2, planes=5)[0, :, 1, 0, 20]
    # planes at −24, −12, 0, 12, 24
    np.testing.assert_allclose(parts, [0, 0, 1 - 6.5 / 12, 6.5 / 12, 0], atol=2e-6)  # shares are 2⁻²⁰ apart


def test_planes__what_lies_outside_counts_with_the_end_plane():
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 45, 20] = 1
    parts = project_thickness(labels, 1.0, np.array([0.0]), 2, planes=3, depth_extent=10.0)[0, :, 1, 0, 20]
    np.testing.assert_allclose(parts, [0, 0, 1], atol=1e-6)


def test_planes__runs_and_batches_change_no_byte(bodies):
    angles = uniform_angles(4, 2 * np.pi)
    together = project_thickness(label_runs(bodies), 1e-6, angles, 4, planes=5)
    alone = [project_thickness(bodies, 1e-6, angles[n : n + 1], 4, planes=5) for n in range(4)]
    assert together.tobytes() == np.concatenate(alone).tobytes()


# ---------------------------------------------------------------- leaning axis


def centroid(image: np.ndarray, oversampling: int) -> tuple[float, float]:
    """Mean (u, z) of an image [voxels from the middle]."""
    rows, columns = image.shape
    u = (np.arange(columns) + 0.5) / oversampling - columns / oversampling / 2
    z = np.arange(rows) - (rows - 1) / 2
    return float(np.average(u, weights=image.sum(0))), float(np.average(z, weights=image.sum(1)))


@pytest.mark.parametrize("tilt", [(0.06, 0.0), (-0.06, 0.0), (0.0, 0.08), (0.0, -0.08), (0.05, -0.07)])
@pytest.mark.parametrize("angle", [0.4, 2.0, 4.4])
@pytest.mark.parametrize("kind", ["labels", "fractions"])
def test_axis_tilt__a_body_lands_where_the_turned_frame_says(tilt, angle, kind):
    x0, y0, z0 = 10.5, -7.5, 5.0
    labels = ball(4, x0, y0, z0)
    volume = labels if kind == "labels" else labels[None].astype(np.float32)
    image = project_thickness(volume, 1.0, np.array([angle]), 2, axis_tilt=tilt, oversampling=2)[0, 1]
    x0, y0, z0 = (float(np.average(axis, weights=labels)) for axis in (X, Y, Z))
    u, w = x0 * np.cos(angle) + y0 * np.sin(angle), -x0 * np.sin(angle) + y0 * np.cos(angle)
    roll, pitch = tilt
    z = z0 * np.cos(pitch) - w * np.sin(pitch)  # the upper end has gone downstream, what is downstream down
    expected = (u * np.cos(roll) + z * np.sin(roll), z * np.cos(roll) - u * np.sin(roll))
    assert centroid(image, 2) == pytest.approx(expected, abs=0.03)
    assert image.sum() / 2 == pytest.approx(labels.sum(), rel=5e-3)  # mass: bilinear on a turned grid


@pytest.mark.parametrize("kind", ["labels", "fractions"])
def test_axis_tilt__a_lean_along_the_beam_lengthens_paths_and_shortens_heights(kind):
    lean = 0.1  # the largest: half a per cent
    slab = (np.abs(Y) < 5).astype(np.uint8)
    volume = slab if kind == "labels" else slab[None].astype(np.float32)
    paths = project_thickness(volume, 1.0, np.array([0.0]), 2, axis_tilt=(0.0, lean))[0, 1]
    np.testing.assert_allclose(paths[4:-4], 10 / np.cos(lean), rtol=1e-5)
    for z0 in (-7.5, 7.5):  # at depth 0 on the average
        labels = ball(3, 0, 0, z0)
        volume = labels if kind == "labels" else labels[None].astype(np.float32)
        image = project_thickness(volume, 1.0, np.array([0.6]), 2, axis_tilt=(0.0, lean))[0, 1]
        assert centroid(image, 1)[1] == pytest.approx(z0 * np.cos(lean), abs=0.01)  # 0.04 less than z0


def test_axis_tilt__planes_sum_to_the_whole_and_the_background_fills_the_field(bodies):
    angles, tilt = np.array([0.3, 2.2]), (0.02, -0.03)
    whole = project_thickness(bodies, 1.0, angles, 4, axis_tilt=tilt)
    parts = project_thickness(bodies, 1.0, angles, 4, axis_tilt=tilt, planes=4)
    np.testing.assert_allclose(parts.sum(axis=1, dtype=np.float64), whole, atol=3e-5)
    empty = project_thickness(np.zeros(SHAPE, np.uint8), 1.0, angles, 2, axis_tilt=tilt)[:, 0]
    np.testing.assert_allclose(whole.sum(axis=1)[:, 5:-5], empty[:, 5:-5], rtol=1e-5)
    np.testing.assert_allclose(empty[:, 12, 24], 48 / np.cos([0.3, 2.2 - np.pi / 2]), rtol=2e-2)


def test_axis_tilt__none_changes_nothing_and_little_changes_little(bodies):
    angles = np.array([0.3, 2.2])
    upright = project_thickness(bodies, 1.0, angles, 4)
    assert project_thickness(bodies, 1.0, angles, 4, axis_tilt=(0, 0)).tobytes() == upright.tobytes()
    nearly = project_thickness(bodies, 1.0, angles, 4, axis_tilt=(1e-7, -1e-7))
    np.testing.assert_allclose(nearly[:, 1:], upright[:, 1:], atol=1e-4)
