"""Largest components: what stays, and what the freed voxels become."""

import numpy as np
import pytest

from tomoforge.errors import InputError
from tomoforge.segmentation.postprocess import largest_components


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
