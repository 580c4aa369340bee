"""OME-Zarr volumes and labels: to the bit and back, coarser levels, slabs from several processes, refusals."""

import itertools
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomoforge.errors import InputError, StorageError
from tomoforge.volumes import (
    LABEL_NAMES,
    SLAB,
    create_volume,
    finish_volume,
    open_level,
    read_label_names,
    read_labels,
    read_volume,
    write_labels,
    write_slab,
    write_volume,
)

ROOT = Path(__file__).resolve().parents[2]
VOXEL = 3.6666666666666667e-07  # [m]; does not survive the way to micrometres and back
SIZES = st.integers(1, 70)  # below and above the size from which there are coarser levels


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@settings(max_examples=8, deadline=None)
@given(shape=st.tuples(SIZES, SIZES, SIZES))
def test_write_volume__comes_back_to_the_bit(tmp_path_factory, shape: tuple[int, int, int]) -> None:
    path = tmp_path_factory.mktemp("volume") / "v.ome.zarr"
    volume = noise(*shape)
    volume.ravel()[0] = np.nan
    write_volume(path, volume, VOXEL)
    back, voxel_size = read_volume(path)
    assert back.dtype == np.float32 and voxel_size == VOXEL
    np.testing.assert_array_equal(back, volume)
    coarse = -(-np.array(shape) // 2)
    if max(shape) > 64:
        assert open_level(path, 1).shape == tuple(coarse)
    else:
        with pytest.raises(StorageError, match="no OME-Zarr volume with a level 1"):
            open_level(path, 1)


def test_write_volume__coarser_levels_are_block_means(tmp_path: Path) -> None:
    volume = noise(67, 130, 5)
    write_volume(tmp_path / "v", volume, VOXEL)
    shapes = [open_level(tmp_path / "v", n).shape for n in range(3)]
    assert shapes == [(67, 130, 5), (34, 65, 3), (17, 33, 2)]
    whole = volume[:66, :, :4].reshape(33, 2, 65, 2, 2, 2).mean(axis=(1, 3, 5))
    first, voxel_size = read_volume(tmp_path / "v", 1)
    assert voxel_size == 2 * VOXEL
    np.testing.assert_allclose(first[:33, :, :2], whole, atol=1e-6)  # float32 sums of eight
    # The odd last plane is averaged with itself, not with zeros.
    np.testing.assert_allclose(
        first[33, :, :2], volume[66, :, :4].reshape(65, 2, 2, 2).mean(axis=(1, 3)), atol=1e-6
    )


def test_write_volume__constant_stays_constant_at_every_level(tmp_path: Path) -> None:
    write_volume(tmp_path / "v", np.full((1, 65, 129), 3.5, np.float32), VOXEL)
    for level in range(3):
        assert (read_volume(tmp_path / "v", level)[0] == 3.5).all()


def test_write_labels__names_and_values_come_back(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 4, (66, 7, 9), dtype=np.uint8)
    write_labels(tmp_path / "l", labels, VOXEL)
    back, voxel_size = read_labels(tmp_path / "l")
    assert back.dtype == np.uint8 and voxel_size == VOXEL
    np.testing.assert_array_equal(back, labels)
    assert read_label_names(tmp_path / "l") == LABEL_NAMES
    np.testing.assert_array_equal(
        read_labels(tmp_path / "l", 1)[0], labels[::2, ::2, ::2]
    )  # no invented label


def test_write_labels__names_of_ones_own(tmp_path: Path) -> None:
    names = {"air": 0, "ice": 255}
    write_labels(tmp_path / "l", np.array([[[0, 255]]]), VOXEL, names)
    assert read_label_names(tmp_path / "l") == names
    np.testing.assert_array_equal(read_labels(tmp_path / "l")[0], [[[0, 255]]])


@pytest.mark.parametrize(
    ("value", "names", "message"),
    [
        (4, LABEL_NAMES, r"got also \[4\]; give the new labels a name"),
        (-1, LABEL_NAMES, r"got also \[-1\]"),
        (0.5, LABEL_NAMES, r"got also \[0.5\]"),
        (256, {**LABEL_NAMES, "ice": 256}, r"from 0 to 255.*'ice': 256"),  # would wrap round to background
        (-1, {**LABEL_NAMES, "ice": -1}, "from 0 to 255"),
    ],
)
def test_write_labels__label_out_of_range(tmp_path: Path, value, names, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_labels(tmp_path / "l", np.full((2, 2, 2), value), VOXEL, names)
    assert not (tmp_path / "l").exists()


def test_volume__metadata_says_where_each_level_lies(tmp_path: Path) -> None:
    write_volume(tmp_path / "v.ome.zarr", noise(5, 130, 130), 2e-6)
    metadata = json.loads((tmp_path / "v.ome.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    assert metadata["version"] == "0.5"
    (image,) = metadata["multiscales"]
    assert [(a["name"], a["type"], a["unit"]) for a in image["axes"]] == [
        (n, "space", "micrometer") for n in "zyx"
    ]
    for level, entry in enumerate(image["datasets"]):
        scale, translation = entry["coordinateTransformations"]
        assert scale["scale"] == pytest.approx([2.0 * 2**level] * 3)
        # The first coarse voxel's centre is the mean of the centres of the fine voxels in it.
        assert translation["translation"] == pytest.approx([2.0 * np.mean(range(2**level))] * 3)


@pytest.mark.parametrize("kind", ["volume", "labels"])
def test_volume__is_read_by_ome_zarr(tmp_path: Path, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its own dependencies, as it is imported
        from ome_zarr.io import parse_url
        from ome_zarr.reader import Multiscales, Reader

        path = tmp_path / "v.ome.zarr"
        values = noise(3, 100, 131) if kind == "volume" else np.ones((3, 100, 131), np.uint8)
        write_volume(path, values, 1e-6) if kind == "volume" else write_labels(path, values, 1e-6)
        location = parse_url(path, mode="r")
        assert location is not None
        nodes = [node for node in Reader(location)() if any(isinstance(s, Multiscales) for s in node.specs)]
        levels = [np.asarray(array) for array in nodes[0].data]
    assert [level.shape for level in levels] == [(3, 100, 131), (2, 50, 66), (1, 25, 33)]
    np.testing.assert_array_equal(levels[0], values)


def test_write_slab__from_two_processes_at_once(tmp_path: Path) -> None:
    path, shape = tmp_path / "v", (4 * SLAB + 5, 40, 41)
    create_volume(path, shape, VOXEL)
    program = (
        "import sys, numpy as np; from tomoforge.volumes import SLAB, write_slab\n"
        f"volume = np.arange({np.prod(shape)}, dtype=np.float32).reshape({shape})\n"
        f"for start in range(SLAB * int(sys.argv[2]), {shape[0]}, 2 * SLAB):\n"
        "    write_slab(sys.argv[1], start, volume[start : start + SLAB])\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path), str(n)], env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        for n in range(2)
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    finish_volume(path)
    expected = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.testing.assert_array_equal(read_volume(path)[0], expected)
    whole = tmp_path / "whole"
    write_volume(whole, expected, VOXEL)
    np.testing.assert_array_equal(read_volume(path, 1)[0], read_volume(whole, 1)[0])


@pytest.mark.parametrize(
    ("start", "shape", "message"),
    [
        (1, (32, 8, 8), "start must be a multiple of 32"),
        (-32, (32, 8, 8), "does not fit"),
        (32, (32, 8, 8), "does not fit"),  # zarr would write the first 8 slices and say nothing
        (64, (32, 8, 8), "does not fit"),
        (0, (32, 1, 8), "does not fit"),  # and would repeat this row
        (0, (20, 8, 8), "multiple of 32 slices thick or reach the end"),
    ],
)
def test_write_slab__refuses_what_would_be_clipped_or_share_a_chunk(
    tmp_path: Path, start: int, shape: tuple[int, ...], message: str
) -> None:
    create_volume(tmp_path / "v", (40, 8, 8), VOXEL)
    with pytest.raises(InputError, match=message):
        write_slab(tmp_path / "v", start, np.ones(shape, np.float32))
    assert not read_volume(tmp_path / "v")[0].any()


def test_create_volume__keeps_the_slabs_of_an_interrupted_run(tmp_path: Path) -> None:
    for _ in range(2):
        create_volume(tmp_path / "v", (40, 8, 8), VOXEL)
        assert (tmp_path / "v" / "0" / "c").exists() is bool(_)
        write_slab(tmp_path / "v", 32, np.ones((8, 8, 8), np.float32))
    assert read_volume(tmp_path / "v")[0][32:].all()


@pytest.mark.parametrize("other", [(1, 8, 8), (8, 8, 9), (80, 8, 8)])
def test_create_volume__refuses_to_write_over_another_volume(tmp_path: Path, other) -> None:
    volume = noise(8, 8, 8)
    write_volume(tmp_path / "v", volume, VOXEL)
    with pytest.raises(InputError, match="holds another volume already"):
        write_volume(tmp_path / "v", noise(*other), VOXEL)
    with pytest.raises(InputError, match="holds another volume already"):
        write_labels(tmp_path / "v", np.zeros((8, 8, 8), np.uint8), VOXEL)
    np.testing.assert_array_equal(read_volume(tmp_path / "v")[0], volume)


@pytest.mark.parametrize(
    ("shape", "voxel_size", "name"),
    list(itertools.product([(8, 8, 8)], [0.0, -1.0, np.nan, np.inf], ["voxel_size"]))
    + list(itertools.product([(8, 8), (8, 8, 0)], [VOXEL], ["shape"])),
)
def test_create_volume__refuses(tmp_path: Path, shape, voxel_size: float, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be"):
        create_volume(tmp_path / "v", shape, voxel_size)


@pytest.mark.parametrize("read", [read_volume, read_labels, read_label_names])
def test_read__no_volume_there(tmp_path: Path, read) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none", tmp_path / "folder"):
        with pytest.raises(StorageError, match=path.name):
            read(path)


def test_read_labels__of_a_volume(tmp_path: Path) -> None:
    write_volume(tmp_path / "v", noise(4, 4, 4), VOXEL)
    with pytest.raises(StorageError, match="holds float32, labels are uint8; is it a volume"):
        read_labels(tmp_path / "v")
    assert read_label_names(tmp_path / "v") == {}
