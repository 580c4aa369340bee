"""Flags on labels: silent where all is well, one for each upset, the same however the labels are stored."""

import dataclasses

import cc3d
import numpy as np
import pytest

from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError
from tomoforge.segmentation.plausibility import Flag, Limits, check_labels, label_statistics
from tomoforge.volumes import LABEL_NAMES, open_level, write_labels, write_volume

VOXEL = 2.5e-6  # [m]


def rules(labels: np.ndarray, **options) -> set[str]:
    return {flag.rule for flag in check_labels(labels, VOXEL, **options)}


def sample(size: int = 40) -> np.ndarray:
    return phantom(1, size)[1]


@pytest.mark.parametrize("seed", range(5))
def test_check_labels__nothing_to_say_of_a_sample(seed):
    assert check_labels(phantom(seed, 40)[1], VOXEL) == ()


@pytest.mark.parametrize("name", ["crystal", "liquor", "loop"])
def test_check_labels__names_a_class_that_is_missing(name):
    labels = sample()
    labels[labels == LABEL_NAMES[name]] = 0
    assert f"no_{name}" in rules(labels)


def test_check_labels__nothing_but_background_is_one_flag():
    assert rules(np.zeros((8, 8, 8), np.uint8)) == {"empty"}


def test_check_labels__crystal_in_air():
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[5:15, 5:15, 5:15] = 3
    labels[20:30, 20:30, 20:30] = 1
    labels[30, 20:30, 20:30] = 2
    (flag,) = check_labels(labels, VOXEL)
    assert flag.rule == "crystal_dry" and "0.0%" in flag.reason


def test_check_labels__crystal_at_the_edge_of_the_field_says_which():
    labels = np.roll(sample(), 20, axis=2)  # its middle now lies on both sides
    (flag,) = [f for f in check_labels(labels, VOXEL) if f.rule == "crystal_cut"]
    assert "(x-, x+)" in flag.reason


@pytest.mark.parametrize("voxel_size", [2.5e-7, 2.5e-4])
def test_check_labels__size_shows_a_wrong_voxel_size(voxel_size):
    (flag,) = check_labels(sample(), voxel_size)
    assert flag.rule == "crystal_size" and "voxel size" in flag.remedy


def test_check_labels__shares_out_of_range():
    labels = sample()
    assert "crystal_share" in rules(np.where(labels, 3, labels).astype(np.uint8))
    assert "loop_share" in rules(np.where(labels == 1, 2, labels).astype(np.uint8))
    assert "sample_share" in rules(np.where(labels == 0, 1, labels).astype(np.uint8))


def test_check_labels__many_pieces():
    labels = sample(48)
    labels[labels == 3] = 1
    labels[16:32:4, 16:32:4, 22:26:2] = 3
    assert "crystal_pieces" in rules(labels)


def test_check_labels__uncertainty_of_the_crystal():
    labels = sample()
    unsure = np.where(labels == 3, 0.4, 0.0).astype(np.float32)
    assert rules(labels, uncertainty=unsure) == {"crystal_unsure"}
    assert rules(labels, uncertainty=1 - unsure - 0.6) == set()  # unsure elsewhere only
    assert rules(labels, uncertainty=unsure, limits=Limits(uncertainty=0.5)) == set()


def test_check_labels__other_samples_are_not_judged():
    grains = np.ones((8, 8, 8), np.uint8)
    assert check_labels(grains, VOXEL, {"background": 0, "quartz": 1}) == ()


def test_check_labels__refuses_what_it_cannot_count():
    labels = sample()
    with pytest.raises(InputError, match="uint8"):
        check_labels(labels.astype(int), VOXEL)
    with pytest.raises(InputError, match="voxel_size"):
        check_labels(labels, 0.0)
    with pytest.raises(InputError, match="labels' shape"):
        check_labels(labels, VOXEL, uncertainty=np.zeros((2, 2, 2), np.float32))


def test_flag__is_frozen_and_reads_as_a_sentence():
    flag = Flag("rule", "reason", "remedy")
    assert str(flag) == "rule: reason; remedy"
    with pytest.raises(dataclasses.FrozenInstanceError):
        flag.rule = "other"


def test_label_statistics__counts_by_hand():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1:3, 1:3, 1:3] = 3  # 24 faces
    labels[3, 1:3, 1:3] = 1  # on four of them
    labels[1, 1, 0] = 2  # on one
    found = label_statistics(labels, VOXEL)
    assert found.faces == {"background": 19, "liquor": 4, "loop": 1, "crystal": 0, "outside": 0}
    assert (found.voxels["crystal"], found.crystals, found.sides) == (8, 1, ())


def test_label_statistics__stored_slabs_give_the_same_as_the_array(tmp_path):
    """37 slices: faces, pieces and sides lie across and at the end of slabs of 32."""
    labels = np.random.default_rng(3).integers(0, 4, (37, 9, 8), dtype=np.uint8)
    unsure = np.random.default_rng(4).random(labels.shape).astype(np.float32)
    write_labels(tmp_path / "l.zarr", labels, VOXEL)
    write_volume(tmp_path / "u.zarr", unsure, VOXEL)
    stored = label_statistics(
        open_level(tmp_path / "l.zarr"), VOXEL, uncertainty=open_level(tmp_path / "u.zarr")
    )
    crystal = labels == 3
    faces = sum(
        np.count_nonzero(crystal & (np.roll(labels, step, axis) == 1))
        - np.count_nonzero((crystal & (np.roll(labels, step, axis) == 1)).take(0 if step > 0 else -1, axis))
        for axis in range(3)
        for step in (-1, 1)
    )
    assert stored.faces["liquor"] == faces
    assert stored.crystals == cc3d.connected_components(crystal, connectivity=26).max()
    assert stored.sides == ("z-", "z+", "y-", "y+", "x-", "x+")
    assert stored.uncertainty == pytest.approx(unsure[crystal].mean(), rel=1e-6)  # sums in another order
