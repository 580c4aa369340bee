"""Volumes for programs that read no OME-Zarr: the same voxels, their size said, whole or not at all."""

import json

import nrrd
import numpy as np
import pytest
import tifffile

from tomoforge.errors import InputError, StorageError
from tomoforge.exports import NAMES, SPACING, export_volume
from tomoforge.volumes import write_volume

VOXEL = 0.65e-6


@pytest.fixture
def volume(tmp_path):
    """A stored volume of more than one chunk in z, and its values."""
    values = np.random.default_rng(2).normal(1000, 300, (37, 20, 24)).astype(np.float32)
    write_volume(tmp_path / "volume.ome.zarr", values, VOXEL)
    return tmp_path / "volume.ome.zarr", values


def test_export_volume__tiff_slices_hold_the_voxels_and_their_size(volume, tmp_path):
    path, values = volume
    folder = export_volume(path, tmp_path / "out", "tiff", VOXEL)
    files = sorted(folder.glob("*.tif"))
    assert len(files) == 37
    assert np.array_equal(tifffile.imread(files), values)
    with tifffile.TiffFile(files[5]) as tiff:
        tags = tiff.pages[0].tags
        numerator, denominator = tags["XResolution"].value
        assert tags["ResolutionUnit"].value == 3  # centimetres
        # TIFF keeps a ratio of two 32 bit integers.
        assert 1e4 / (numerator / denominator) == pytest.approx(0.65, rel=1e-6)
        assert json.loads(tiff.pages[0].description)["spacing_um"] == 0.65
    spacing = json.loads((folder / SPACING).read_text())
    assert spacing == {"axes": "zyx", "shape": [37, 20, 24], "spacing_um": [0.65] * 3, "unit": "1/m"}


def test_export_volume__nrrd_is_read_by_pynrrd(volume, tmp_path):
    path, values = volume
    read, header = nrrd.read(str(export_volume(path, tmp_path / "out", "nrrd", VOXEL)), index_order="C")
    assert np.array_equal(read, values) and read.dtype == np.float32
    assert np.array_equal(header["space directions"], 0.65 * np.eye(3))
    assert header["space units"] == ["um"] * 3


@pytest.mark.parametrize("format", NAMES)
def test_export_volume__gives_the_same_bytes_each_time(volume, tmp_path, format):
    made = [export_volume(volume[0], tmp_path / name, format, VOXEL) for name in ("one", "two")]
    contents = [
        [file.read_bytes() for file in sorted(path.rglob("*"))] if path.is_dir() else [path.read_bytes()]
        for path in made
    ]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("format", NAMES)
def test_export_volume__leaves_nothing_when_it_is_stopped(volume, tmp_path, format):
    def stop(done: int, total: int) -> None:
        assert (done, total) == (32, 37)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_volume(volume[0], tmp_path / "out", format, VOXEL, progress=stop)
    assert list((tmp_path / "out").iterdir()) == []


def test_export_volume__says_what_is_wrong(volume, tmp_path):
    with pytest.raises(InputError, match="format must be one of tiff, nrrd, got 'png'"):
        export_volume(volume[0], tmp_path / "out", "png", VOXEL)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="voxel_size must be positive"):
        export_volume(volume[0], tmp_path / "out", "nrrd", 0.0)
    with pytest.raises(StorageError, match="no OME-Zarr volume"):
        export_volume(tmp_path / "missing", tmp_path / "out", "nrrd", VOXEL)
    export_volume(volume[0], tmp_path / "out", "nrrd", VOXEL)
    with pytest.raises(InputError, match="never rewritten"):
        export_volume(volume[0], tmp_path / "out", "nrrd", VOXEL)
