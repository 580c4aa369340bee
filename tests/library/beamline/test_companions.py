"""Companions: label volumes as other tools write them land in the same voxels, and nothing unsafe is opened."""

import json
import pickle
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
import tifffile
import zarr

from tomoforge.beamline.companions import check_dials, companion_kind, read_label_companion
from tomoforge.beamline.findings import Refused
from tomoforge.volumes import write_labels

VOXEL = 2e-6
SHAPE = (5, 6, 7)


def labels() -> np.ndarray:
    """(z, y, x) one voxel of each label where no two axes could be taken for each other."""
    volume = np.zeros(SHAPE, np.uint8)
    volume[1, 2, 3], volume[4, 0, 6], volume[0, 5, 1] = 1, 2, 3
    return volume


def write(path: Path, volume: np.ndarray, kind: str) -> Path:
    """The volume as the tools of each format write it; NRRD and NIfTI have x as the first axis."""
    if kind == "nrrd":
        header = {
            "space directions": np.diag([2.0, 2.0, 2.0]),
            "space dimension": 3,
            "space units": ["um"] * 3,
        }
        nrrd.write(str(path / "labels.nrrd"), volume.transpose(2, 1, 0), header)
        return path / "labels.nrrd"
    if kind == "nifti":
        image = nibabel.Nifti1Image(volume.transpose(2, 1, 0), np.diag([-2.0, -2.0, 2.0, 1.0]))
        image.header.set_xyzt_units("micron")
        nibabel.save(image, path / "labels.nii.gz")
        return path / "labels.nii.gz"
    if kind == "ome-zarr":
        write_labels(path / "labels.ome.zarr", volume, VOXEL)
        return path / "labels.ome.zarr"
    if kind == "tiff":
        tifffile.imwrite(path / "labels.tif", volume, photometric="minisblack")
        return path / "labels.tif"
    (path / "labels").mkdir()
    for z, page in enumerate(volume):
        tifffile.imwrite(path / "labels" / f"slice{z}.tif", page)
    return path / "labels"


@pytest.mark.parametrize("kind", ["nrrd", "nifti", "ome-zarr", "tiff", "tiffs"])
def test_read_label_companion__every_format_lands_in_the_same_voxels(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, labels(), kind)
    found = read_label_companion(path, VOXEL, shape=SHAPE)
    assert found.dtype == np.uint8
    assert np.array_equal(found, labels())
    assert companion_kind(path) == "labels"


def test_read_label_companion__pages_are_in_natural_order(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for z in range(12):
        tifffile.imwrite(tmp_path / "labels" / f"{z}.tif", np.full((2, 3), z % 4, np.uint8))
    found = read_label_companion(tmp_path / "labels", VOXEL)
    assert found[:, 0, 0].tolist() == [z % 4 for z in range(12)]


@pytest.mark.parametrize("kind", ["nrrd", "nifti", "ome-zarr"])
def test_read_label_companion__spacing_must_fit(tmp_path: Path, kind: str) -> None:
    with pytest.raises(Refused, match=r"label spacing.*2 × 2 × 2 µm"):
        read_label_companion(write(tmp_path, labels(), kind), 2.1e-6)


def test_read_label_companion__shape_and_labels_must_fit(tmp_path: Path) -> None:
    path = write(tmp_path, labels(), "nrrd")
    with pytest.raises(Refused, match="label shape"):
        read_label_companion(path, VOXEL, shape=(7, 6, 5))
    with pytest.raises(Refused, match=r"known labels: .*\[7\]"):
        tifffile.imwrite(tmp_path / "seven.tif", np.full(SHAPE, 7, np.uint8), photometric="minisblack")
        read_label_companion(tmp_path / "seven.tif", VOXEL)
    with pytest.raises(Refused, match=r"known labels: .*-1"):
        tifffile.imwrite(tmp_path / "minus.tif", np.full(SHAPE, -1, np.int16), photometric="minisblack")
        read_label_companion(tmp_path / "minus.tif", VOXEL)
    with pytest.raises(Refused, match=r"whole labels: .*0\.5"):
        tifffile.imwrite(tmp_path / "half.tif", np.full(SHAPE, 0.5, np.float32), photometric="minisblack")
        read_label_companion(tmp_path / "half.tif", VOXEL)
    tifffile.imwrite(tmp_path / "whole.tif", labels().astype(np.float32), photometric="minisblack")
    assert np.array_equal(read_label_companion(tmp_path / "whole.tif", VOXEL), labels())


def test_read_label_companion__a_turned_grid_is_refused(tmp_path: Path) -> None:
    affine = np.array([[0.0, 2, 0, 0], [2, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(labels().transpose(2, 1, 0), affine), tmp_path / "turned.nii")
    with pytest.raises(Refused, match="label orientation"):
        read_label_companion(tmp_path / "turned.nii", VOXEL)


def test_read_label_companion__does_not_leave_its_file(tmp_path: Path) -> None:
    (tmp_path / "secret.raw").write_bytes(labels().tobytes())
    sizes = " ".join(str(n) for n in SHAPE[::-1])
    (tmp_path / "detached.nrrd").write_text(
        f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: {sizes}\nencoding: raw\ndata file: ../secret.raw\n\n"
    )
    with pytest.raises(Refused, match="keeps its data in another file"):
        read_label_companion(tmp_path / "detached.nrrd", VOXEL)
    group = zarr.open_group(str(tmp_path / "labels.zarr"), mode="w")
    group.attrs["ome"] = {
        "multiscales": [{"axes": [{"name": n} for n in "zyx"], "datasets": [{"path": "../../elsewhere"}]}]
    }
    with pytest.raises(Refused, match="has its data at"):
        read_label_companion(tmp_path / "labels.zarr", VOXEL)


@pytest.mark.parametrize("name", ["labels.nrrd", "labels.nii", "labels.tif", "labels.nii.gz"])
def test_read_label_companion__damage_is_a_refusal(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"garbage" * 100)
    with pytest.raises(Refused, match="label file"):
        read_label_companion(tmp_path / name, VOXEL)


class Bomb:
    """Whoever unpickles it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("protocol", range(6))
def test_check_dials__a_pickle_is_refused_and_not_opened(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "a.refl").write_bytes(pickle.dumps(Bomb(tmp_path / "boom"), protocol=protocol))
    with pytest.raises(Refused, match="pickled reflections"):
        check_dials(tmp_path / "a.refl")
    assert not (tmp_path / "boom").exists()


def test_check_dials__what_dials_writes_is_taken(tmp_path: Path, shared_data: Path) -> None:
    check_dials(shared_data / "absorption" / "test_refl.refl")
    (tmp_path / "a.expt").write_text(json.dumps({"__id__": "ExperimentList", "experiment": []}))
    check_dials(tmp_path / "a.expt")
    assert companion_kind(tmp_path / "a.expt") == "dials"


@pytest.mark.parametrize(
    ("name", "content"), [("a.refl", b""), ("a.refl", b"text"), ("a.expt", b"[1]"), ("a.expt", b"\xff")]
)
def test_check_dials__anything_else_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refused, match="dials file"):
        check_dials(tmp_path / name)
