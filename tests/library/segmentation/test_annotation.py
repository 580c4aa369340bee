"""Labels from people: taken from every format, refused where they do not fit, asked for where they help most."""

import json

import nibabel
import nrrd
import numpy as np
import pytest
import tifffile

from tests.library.segmentation.phantom import phantom
from tomoforge.errors import InputError
from tomoforge.label_files import LabelFileError
from tomoforge.segmentation.annotation import (
    Candidate,
    better_orientation,
    fingerprint_distance,
    import_labels,
    rank_candidates,
)
from tomoforge.segmentation.annotation_queue import EDITABLE, ITEM, queue_table, write_queue
from tomoforge.segmentation.fingerprint import VolumeFingerprint
from tomoforge.volumes import write_labels, write_volume

VOXEL = 2e-6
TRAINED = {
    "cases": 2,
    "mu": {"0.5": [-300.0, -200.0], "95": [800.0, 950.0], "99.5": [950.0, 1100.0]},
    "noise": [80.0, 120.0],
    "voxel_size": [VOXEL, VOXEL],
}


def write(folder, labels, kind, spacing_um=2.0):
    """The labels as people's tools write them."""
    xyz = labels.transpose(2, 1, 0)
    if kind == "nrrd":
        header = {"space dimension": 3, "space units": ["um"] * 3}
        header["space directions"] = np.diag([spacing_um] * 3)
        nrrd.write(str(folder / "l.nrrd"), xyz, header)
        return folder / "l.nrrd"
    if kind == "nifti":
        image = nibabel.Nifti1Image(xyz, np.diag([spacing_um] * 3 + [1.0]))
        image.header.set_xyzt_units("micron")
        nibabel.save(image, folder / "l.nii.gz")
        return folder / "l.nii.gz"
    if kind == "ome-zarr":
        write_labels(folder / "l.zarr", labels, spacing_um * 1e-6)
        return folder / "l.zarr"
    about = {"axes": "ZYX", "spacing": spacing_um, "unit": "um"}
    tifffile.imwrite(folder / "l.tif", labels, imagej=True, resolution=(1 / spacing_um,) * 2, metadata=about)
    return folder / "l.tif"


@pytest.fixture
def volume(tmp_path):
    grey, labels = phantom(3, 24)
    write_volume(tmp_path / "volume.zarr", grey, VOXEL)
    return tmp_path / "volume.zarr", grey, labels


@pytest.mark.parametrize("kind", ["tiff", "nrrd", "nifti", "ome-zarr"])
def test_import_labels__every_format_and_what_does_not_fit(tmp_path, volume, kind):
    path, _, labels = volume
    found, voxel_size = import_labels(write(tmp_path, labels, kind), path)
    np.testing.assert_array_equal(found, labels)
    assert voxel_size == VOXEL
    (tmp_path / "wrong").mkdir()
    with pytest.raises(LabelFileError, match=r"label spacing: .*2\.5 × 2\.5 × 2\.5 µm"):
        import_labels(write(tmp_path / "wrong", labels, kind, spacing_um=2.5), path)
    (tmp_path / "cut").mkdir()
    with pytest.raises(LabelFileError, match=r"label shape: .*\(23, 24, 24\).*\(24, 24, 24\)"):
        import_labels(write(tmp_path / "cut", labels[1:], kind), path)
    (tmp_path / "turned").mkdir()
    with pytest.raises(LabelFileError, match=r"label orientation: .*order \(x, y, z\)"):
        import_labels(write(tmp_path / "turned", labels.transpose(2, 1, 0), kind), path)


def test_import_labels__refuses_unknown_and_empty_labels(tmp_path, volume):
    path, _, labels = volume
    with pytest.raises(LabelFileError, match="empty labels"):
        import_labels(write(tmp_path, np.zeros_like(labels), "tiff"), path)
    labels[0, 0, 0] = 9
    with pytest.raises(LabelFileError, match=r"known labels: .*\[9\]"):
        import_labels(write(tmp_path, labels, "tiff"), path)


@pytest.mark.parametrize("seed", range(4))
def test_better_orientation__true_labels_pass_and_every_mirror_image_is_named(seed):
    grey, labels = phantom(seed, 24)
    assert better_orientation(grey, labels) is None
    rough = labels.copy()
    rough[labels == 3] = 1  # a person who has not drawn the crystal
    assert better_orientation(grey, rough) is None
    for order in [(0, 2, 1), (2, 1, 0), (1, 0, 2)]:
        turned = better_orientation(grey, labels.transpose(order))
        assert turned is not None
        assert f"order ({', '.join('zyx'[a] for a in order)})" in turned  # a swap undoes itself


def test_fingerprint_distance__nothing_within_and_one_a_contrast_or_a_doubling_outside():
    inside = VolumeFingerprint({"0.5": -250.0, "95": 900.0, "99.5": 1000.0}, 100.0, VOXEL)
    assert fingerprint_distance(inside, TRAINED) == {"total": 0, "mu": 0, "noise": 0, "voxel_size": 0}
    contrast = 1100.0 + 300.0
    outside = VolumeFingerprint({"0.5": -250.0, "95": 900.0, "99.5": 1100.0 + contrast}, 40.0, 4 * VOXEL)
    found = fingerprint_distance(outside, TRAINED)
    assert found == pytest.approx({"total": 6**0.5, "mu": 1, "noise": 1, "voxel_size": 2})


def candidate(folder, name, seed, doubt, scale=1.0):
    """A phantom whose uncertainty is ``doubt`` in one voxel of nine, most in slice (5, 6, 7)."""
    grey, labels = phantom(seed, 16)
    unsure = np.zeros(labels.shape, np.float32)
    unsure.ravel()[::9] = doubt
    unsure[5, 6, 7] = unsure[5, 6, :] = unsure[5, :, 7] = unsure[:, 6, 7] = doubt
    write_volume(folder / f"{name}.zarr", grey * np.float32(scale), VOXEL)
    write_labels(folder / f"{name}-labels.zarr", labels, VOXEL)
    write_volume(folder / f"{name}-uncertainty.zarr", unsure, VOXEL)
    return Candidate(name, *(folder / f"{name}{end}.zarr" for end in ("", "-labels", "-uncertainty")))


def test_rank_candidates__the_unsure_and_the_strange_come_first(tmp_path):
    known = candidate(tmp_path, "known", 0, 0.1)
    unsure = candidate(tmp_path, "unsure", 1, 0.6)
    strange = candidate(tmp_path, "strange", 2, 0.1, scale=3.0)
    both = candidate(tmp_path, "both", 3, 0.7, scale=4.0)
    items = rank_candidates([known, unsure, strange, both], TRAINED)
    assert [item.position for item in items] == [1, 2, 3, 4]
    assert items[0].subject == "both" and items[0].priority == 1
    assert items[-1].subject == "known"
    order = [i.subject for i in rank_candidates([known, unsure, strange], TRAINED, distance_weight=0.0)]
    assert order[0] == "unsure"
    order = [i.subject for i in rank_candidates([known, unsure, strange], TRAINED, distance_weight=1.0)]
    assert order[0] == "strange"
    assert items[0].slices == (5, 6, 7)
    left = rank_candidates([known, both], TRAINED, decided={items[0].labels_sha256})
    assert [item.subject for item in left] == ["known"]
    assert list(queue_table(items)["subject"]) == [item.subject for item in items]
    assert rank_candidates([], TRAINED) == [] and queue_table([]).empty


def test_rank_candidates__refuses_what_does_not_belong_together(tmp_path):
    one, other = candidate(tmp_path, "one", 0, 0.5), candidate(tmp_path, "other", 1, 0.5)
    with pytest.raises(InputError, match="more than once"):
        rank_candidates([one, one], TRAINED)
    with pytest.raises(InputError, match="distance_weight"):
        rank_candidates([one], TRAINED, distance_weight=2)
    write_volume(tmp_path / "large.zarr", np.full((16,) * 3, 7.0, np.float32), VOXEL)
    with pytest.raises(InputError, match="candidate other: uncertainty must be 0 to 1"):
        rank_candidates([Candidate("other", other.volume, other.labels, tmp_path / "large.zarr")], TRAINED)
    write_volume(tmp_path / "small.zarr", np.zeros((8,) * 3, np.float32), VOXEL)
    with pytest.raises(
        InputError, match="candidate one: volume, labels and uncertainty must be of one shape"
    ):
        rank_candidates([Candidate("one", one.volume, one.labels, tmp_path / "small.zarr")], TRAINED)


def test_write_queue__what_a_person_is_given_comes_back_through_the_import(tmp_path):
    items = rank_candidates([candidate(tmp_path, "a", 0, 0.5), candidate(tmp_path, "b", 1, 0.2)], TRAINED)
    record = json.loads(write_queue(tmp_path / "queue", items).read_text())
    assert [item["subject"] for item in record["items"]] == [item.subject for item in items]
    first = record["items"][0]
    place = tmp_path / "queue" / first["folder"]
    assert (place / "slices.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((place / ITEM).read_text()) == first
    program, _, _, volume, _, editable = first["napari"]
    assert program == "napari"
    labels = tifffile.imread(editable)
    labels[0, 0, :3] = 1  # corrected with a brush
    about = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(editable, labels, imagej=True, resolution=(0.5, 0.5), metadata=about)
    found, _ = import_labels(editable, volume)
    np.testing.assert_array_equal(found, labels)


def test_write_queue__never_loses_what_somebody_drew(tmp_path):
    one, other = candidate(tmp_path, "a", 0, 0.5), candidate(tmp_path, "b", 1, 0.2)
    folder = tmp_path / "queue"
    write_queue(folder, rank_candidates([one, other], TRAINED))
    (place,) = folder.glob("a-*")
    labels = tifffile.imread(place / EDITABLE)
    labels[0, 0, :3] = 1
    tifffile.imwrite(place / EDITABLE, labels)
    write_queue(folder, rank_candidates([one, other], TRAINED))
    np.testing.assert_array_equal(tifffile.imread(place / EDITABLE), labels)
    write_queue(folder, [])
    assert [path.name for path in folder.iterdir() if path.is_dir()] == [place.name]  # "b" was not touched
