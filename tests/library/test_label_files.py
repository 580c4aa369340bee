"""Label volumes of people's tools: axes, spacing and values as written, whatever is unclear refused by a named rule."""

import json
import pickle

import nibabel
import nrrd
import numpy as np
import pytest
import tifffile

from tomoforge.label_files import SPACING, LabelFileError, read_label_file
from tomoforge.volumes import write_labels

VOXEL = 2e-6
SHAPE = (5, 6, 7)


def labels():
    """(z, y, x) one voxel of each label where no two axes could be taken for each other."""
    volume = np.zeros(SHAPE, np.uint8)
    volume[1, 2, 3], volume[4, 0, 6], volume[0, 5, 1] = 1, 2, 3
    return volume


def write_nrrd(path, volume, directions, unit="um"):
    header = {"space directions": directions, "space dimension": 3, "space units": [unit] * 3}
    nrrd.write(str(path), volume.transpose(2, 1, 0), header)
    return path


def write_imagej(path, volume, spacing=2.0, unit="um"):
    about = {"axes": "ZYX", "spacing": spacing, "unit": unit}
    tifffile.imwrite(path, volume, imagej=True, resolution=(1 / spacing, 1 / spacing), metadata=about)
    return path


@pytest.mark.parametrize("kind", ["nrrd", "nifti", "ome-zarr", "tiff", "slices"])
def test_read_label_file__every_format_lands_in_the_same_voxels(tmp_path, kind):
    volume = labels()
    path = tmp_path / {"nrrd": "l.nrrd", "nifti": "l.nii.gz", "tiff": "l.tif"}.get(kind, "l")
    if kind == "nrrd":
        write_nrrd(path, volume, np.diag([2.0] * 3))
    elif kind == "nifti":
        nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), np.eye(4)), path)
    elif kind == "ome-zarr":
        write_labels(path, volume, VOXEL)
    elif kind == "tiff":
        write_imagej(path, volume)
    else:
        path.mkdir()
        for z, page in enumerate(volume):
            tifffile.imwrite(path / f"slice{z}.tif", page)
        tifffile.imwrite(path / ".slice9.tif", volume[0])  # being written: not looked at
    found = read_label_file(path, VOXEL, shape=SHAPE)
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, volume)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32, np.int64])
def test_read_label_file__whole_numbers_of_any_type_are_labels(tmp_path, dtype):
    path = write_nrrd(tmp_path / "l.nrrd", labels().astype(dtype), np.diag([2.0] * 3))
    np.testing.assert_array_equal(read_label_file(path, VOXEL), labels())


@pytest.mark.parametrize(("unit", "step"), [("um", 2.0), ("mm", 0.002), ("nm", 2000.0), ("microns", 2.0)])
def test_read_label_file__spacing_in_any_unit(tmp_path, unit, step):
    path = write_nrrd(tmp_path / "l.nrrd", labels(), np.diag([step] * 3), unit)
    read_label_file(path, VOXEL)
    with pytest.raises(LabelFileError, match=r"label spacing: .*voxels of 2 × 2 × 2 µm"):
        read_label_file(path, 2.1e-6)


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m"])
def test_read_label_file__spacing_that_imagej_wrote(tmp_path, unit):
    path = write_imagej(tmp_path / "l.tif", labels(), 2.0, unit)
    read_label_file(path, VOXEL)
    with pytest.raises(LabelFileError, match="label spacing"):
        read_label_file(path, 4e-6)


def test_read_label_file__spacing_beside_exported_slices(tmp_path):
    for z, page in enumerate(labels()):
        tifffile.imwrite(tmp_path / f"slice_{z}.tif", page)
    (tmp_path / SPACING).write_text(json.dumps({"spacing_um": [3.0, 2.0, 2.0]}))
    with pytest.raises(LabelFileError, match=r"label spacing: .*voxels of 3 × 2 × 2 µm"):
        read_label_file(tmp_path, VOXEL)


def test_read_label_file__reversed_axes_are_named(tmp_path):
    path = write_imagej(tmp_path / "l.tif", np.ascontiguousarray(labels().transpose(2, 1, 0)))
    with pytest.raises(LabelFileError, match=r"label shape: .*\(7, 6, 5\).*its axes are reversed"):
        read_label_file(path, VOXEL, shape=SHAPE)


def test_read_label_file__names_the_rule_that_was_broken(tmp_path):
    def refused(path, **about):
        with pytest.raises(LabelFileError) as caught:
            read_label_file(path, VOXEL, **about)
        return caught.value.rule

    volume = labels()
    good = write_nrrd(tmp_path / "good.nrrd", volume, np.diag([2.0] * 3))
    assert refused(good, shape=(5, 6, 8)) == "label shape"
    assert refused(good, names={"background": 0, "liquor": 1, "loop": 2}) == "known labels"
    half = write_nrrd(tmp_path / "half.nrrd", volume * np.float32(0.5), np.diag([2.0] * 3))
    assert refused(half) == "whole labels"
    below = write_nrrd(tmp_path / "below.nrrd", volume.astype(np.int16) - 1, np.diag([2.0] * 3))
    assert refused(below) == "known labels"
    turned = np.array([[0.0, 2.0, 0.0], [-2.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    assert refused(write_nrrd(tmp_path / "turned.nrrd", volume, turned)) == "label orientation"
    (tmp_path / "broken.nii.gz").write_bytes(b"not a NIfTI file")
    assert refused(tmp_path / "broken.nii.gz") == "label file"
    (tmp_path / "none").mkdir()
    assert refused(tmp_path / "none") == "label file"
    (tmp_path / "huge.nrrd").write_bytes(
        b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 100000 100000 100000\nencoding: raw\n\n"
    )
    assert refused(tmp_path / "huge.nrrd") == "label shape"
    (tmp_path / "detached.nrrd").write_bytes(
        b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: /etc/passwd\n\n"
    )
    assert refused(tmp_path / "detached.nrrd") == "label file"


def test_label_file_error__travels_between_processes():
    error = pickle.loads(pickle.dumps(LabelFileError("label shape", "it is flat", "write a volume")))
    assert (error.rule, error.reason, error.remedy) == ("label shape", "it is flat", "write a volume")
    assert str(error) == "label shape: it is flat; write a volume"
