"""Cleaning of labels and their surfaces: what stays, what the freed voxels become, what encloses them."""

import io
import struct

import numpy as np
import pytest

from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError
from tomoforge.samples.forge import forge_sample
from tomoforge.samples.recipe import draw_recipe
from tomoforge.segmentation.mesh import SurfaceMesh, surface_mesh, write_mesh
from tomoforge.segmentation.postprocess import clean_labels, largest_components


def _boxes() -> np.ndarray:
    labels = np.zeros((12, 12, 12), dtype=np.uint8)
    labels[1:9, 1:9, 1:9] = 1
    labels[3:6, 3:6, 3:6] = 3
    return labels


def test_largest_components__clean_labels_pass_unchanged():
    labels = _boxes()
    np.testing.assert_array_equal(largest_components(labels), labels)


def test_largest_components__stray_fragment_in_air_becomes_background():
    labels = _boxes()
    labels[10:12, 10:12, 10:12] = 3
    np.testing.assert_array_equal(largest_components(labels), _boxes())


def test_largest_components__fragment_enclosed_by_liquor_becomes_liquor():
    labels = _boxes()
    labels[7, 7, 7] = 3
    labels[7, 4:6, 7] = 2  # the only loop: it stays
    expected = _boxes()
    expected[7, 4:6, 7] = 2
    np.testing.assert_array_equal(largest_components(labels), expected)


def test_largest_components__fragment_takes_the_class_on_most_of_its_faces():
    labels = _boxes()
    labels[9, 4, 4] = 3  # sits on the drop: one face liquor, five air
    np.testing.assert_array_equal(largest_components(labels), _boxes())


def test_largest_components__diagonal_voxels_are_one_component():
    labels = np.zeros((4, 4, 4), dtype=np.uint8)
    for i in range(4):
        labels[i, i, i] = 2
    np.testing.assert_array_equal(largest_components(labels), labels)


def test_largest_components__air_bubbles_stay():
    labels = _boxes()
    labels[7, 7, 7] = 0
    np.testing.assert_array_equal(largest_components(labels), labels)


def test_largest_components__is_idempotent_and_keeps_one_component_a_class():
    import cc3d

    labels = np.random.default_rng(0).integers(0, 4, (9, 10, 11), dtype=np.uint8)
    once = largest_components(labels)
    for label in (1, 2, 3):
        # Absorbed fragments touch a kept component by a face, directly or through other fragments of
        # the same fate, so they never start a component of their own.
        assert cc3d.connected_components(once == label, connectivity=26).max() <= 1
    np.testing.assert_array_equal(largest_components(once), once)


def test_largest_components__input_is_left_alone():
    labels = _boxes()
    labels[11, 11, 11] = 3
    before = labels.copy()
    largest_components(labels)
    np.testing.assert_array_equal(labels, before)


@pytest.mark.parametrize("labels", [np.zeros((3, 3), np.uint8), np.zeros((3, 3, 3), np.int64)])
def test_largest_components__refuses_other_arrays(labels):
    with pytest.raises(InputError, match=r"\(z, y, x\) uint8"):
        largest_components(labels)


# --- clean_labels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_clean_labels__true_labels_of_forged_samples_pass_unchanged(seed):
    """Up to three crystals, bubbles, cracks, satellites: none of it is debris."""
    labels = forge_sample(draw_recipe(seed, field_of_view=64 * 5e-6), 64, 5e-6, engine="lens").labels
    np.testing.assert_array_equal(clean_labels(labels), labels)


@pytest.mark.parametrize("seed", range(3))
def test_clean_labels__speckles_of_a_network_go_and_the_sample_stays(seed):
    """Single voxels of crystal and loop in the drop, and of all classes in the air."""
    _, truth = phantom(seed, 40)
    rng, noisy = np.random.default_rng(seed), truth.copy()
    inner = np.zeros(truth.shape, bool)
    inner[1:-1:3, 1:-1:3, 1:-1:3] = True  # alone: no two of them touch
    for inside, classes in ((0, (1, 2, 3)), (1, (2, 3))):
        # Only where the class is all around, so that no speckle lengthens the loop or the crystal.
        alone = inner & np.all([np.roll(truth, (a, b, c), (0, 1, 2)) == inside
                                for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)], axis=0)  # fmt: skip
        noisy[alone] = rng.choice(classes, np.count_nonzero(alone))
    assert np.count_nonzero(noisy != truth) > 100
    np.testing.assert_array_equal(clean_labels(noisy), truth)


def test_clean_labels__several_crystals_stay():
    labels = _boxes()
    labels[6:8, 6:8, 2:4] = 3  # 8 voxels beside one of 27
    labels[9, 4, 4] = 2
    np.testing.assert_array_equal(clean_labels(labels), labels)


def test_clean_labels__air_within_a_crystal_is_crystal_and_bubbles_and_inclusions_stay():
    labels = _boxes()
    labels[2:7, 2:7, 2:7] = 3
    labels[9, 4, 4] = 2
    expected = labels.copy()
    labels[4, 4, 4] = 0  # within crystal
    for at, label in (((3, 3, 3), 1), ((7, 7, 7), 0)):  # liquor in the crystal, a bubble in the liquor
        labels[at] = expected[at] = label
    labels[2, 4, 4] = expected[2, 4, 4] = 0  # a bubble that touches both
    np.testing.assert_array_equal(clean_labels(labels), expected)


def test_clean_labels__samples_without_a_loop_are_left_alone():
    grains = np.random.default_rng(0).integers(0, 3, (9, 9, 9), dtype=np.uint8)
    cleaned = clean_labels(grains, {"background": 0, "quartz": 1, "clay": 2})
    np.testing.assert_array_equal(cleaned, grains)
    assert not np.shares_memory(cleaned, grains)


def test_clean_labels__is_idempotent_and_leaves_its_input_and_nothing_alone():
    labels = _boxes()
    labels[10:12, 10:12, 10:12] = 3
    before = labels.copy()
    once = clean_labels(labels)
    np.testing.assert_array_equal(labels, before)
    np.testing.assert_array_equal(clean_labels(once), once)
    assert not clean_labels(np.zeros((3, 3, 3), np.uint8)).any()


# --- surface ------------------------------------------------------------------------------------------------


def _edges(mesh: SurfaceMesh) -> np.ndarray:
    """Directed edges (edge, 2) of all faces."""
    return mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)


def test_surface_mesh__encloses_the_ball_and_points_outward():
    z, y, x = np.indices((30, 32, 34))
    ball = (((z - 12) ** 2 + (y - 15) ** 2 + (x - 18) ** 2) < 9.5**2).astype(np.uint8)
    mesh = surface_mesh(ball, 1, 2e-6)
    # Marching cubes cut the corners of the steps: somewhat below the voxels' own 8 µm³ each.
    assert mesh.volume_um3() == pytest.approx(8 * ball.sum(), rel=0.02)
    np.testing.assert_allclose((mesh.vertices.min(0) + mesh.vertices.max(0)) / 2, [36, 30, 24], atol=1e-3)


@pytest.mark.parametrize("label", [1, 2, 3])
def test_surface_mesh__is_watertight(label):
    mesh = surface_mesh(phantom(2, 32)[1], label, 1e-6)
    edges = {
        tuple(edge): n for edge, n in zip(*np.unique(_edges(mesh), axis=0, return_counts=True), strict=True)
    }
    assert all(edges.get(edge[::-1]) == n for edge, n in edges.items())
    assert mesh.volume_um3() > 0


def test_surface_mesh__is_closed_where_the_field_ends():
    full = np.ones((3, 4, 5), np.uint8)
    mesh = surface_mesh(full, 1, 1e-6)
    np.testing.assert_allclose([mesh.vertices.min(0), mesh.vertices.max(0)], [[-0.5] * 3, [4.5, 3.5, 2.5]])
    edges = _edges(mesh)
    assert {tuple(e) for e in edges} == {tuple(e[::-1]) for e in edges}


def test_write_mesh__ply_and_stl_hold_the_surface(tmp_path):
    mesh = surface_mesh(_boxes(), 3, 1e-6)
    for format in ("ply", "stl"):
        write_mesh(tmp_path / f"m.{format}", mesh, format)
    head, _, body = (tmp_path / "m.ply").read_bytes().partition(b"end_header\n")
    assert b"comment unit: micrometre" in head and f"element face {len(mesh.faces)}\n".encode() in head
    n = mesh.vertices.nbytes
    np.testing.assert_array_equal(np.frombuffer(body[:n], "<f4").reshape(-1, 3), mesh.vertices)
    faces = np.frombuffer(body[n:], np.dtype([("n", "u1"), ("f", "<i4", 3)]))
    np.testing.assert_array_equal(faces["f"], mesh.faces)
    file = io.BytesIO((tmp_path / "m.stl").read_bytes())
    file.seek(80)
    (count,) = struct.unpack("<I", file.read(4))
    assert count == len(mesh.faces) and len(file.read()) == 50 * count
    file.seek(84)
    triangle = np.array(struct.unpack("<12f", file.read(48))).reshape(4, 3)
    np.testing.assert_array_equal(triangle[1:], mesh.vertices[mesh.faces[0]])
    middle = mesh.vertices.mean(axis=0)
    assert (triangle[1:].mean(axis=0) - middle) @ triangle[0] > 0  # outward, and the box is convex
    with pytest.raises(InputError, match="ply or stl"):
        write_mesh(tmp_path / "m.obj", mesh, "obj")


def test_surface_mesh__refuses_what_has_no_surface():
    with pytest.raises(InputError, match="label 3"):
        surface_mesh(np.zeros((3, 3, 3), np.uint8), 3, 1e-6)
    with pytest.raises(InputError, match="uint8"):
        surface_mesh(np.ones((3, 3, 3)), 1, 1e-6)
    with pytest.raises(InputError, match="voxel_size"):
        surface_mesh(np.ones((3, 3, 3), np.uint8), 1, 0.0)
