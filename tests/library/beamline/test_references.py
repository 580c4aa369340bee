"""Flats and darks that were recorded into files of their own."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from tests.library.beamline import nxtomo_files
from tests.library.beamline.nxtomo_files import COLUMNS, KEYS, ROWS, frames
from tomoforge.beamline import load_references, read_scan
from tomoforge.errors import InputError, ScanError

STACK = frames()[:4]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["tomo/data"] = STACK
        file["tomo/again"] = file["tomo/data"]  # another name for the same
        file["tomo/frame"] = STACK[0]
        file["tomo/energy"] = 5.0
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a"], file["b"] = STACK[:1], STACK[1:3]
    (tmp_path / "tiffs").mkdir()
    for number in (1, 2, 10):
        tifffile.imwrite(tmp_path / "tiffs" / f"f_{number}.tif", STACK[0] + number)
    tifffile.imwrite(tmp_path / "many.tif", STACK, photometric="minisblack")
    nxtomo_files.write(tmp_path / "scan.nxs")
    return tmp_path


def test_load_references__from_every_kind_of_source(folder: Path) -> None:
    for source, expected in (
        ("one.h5", STACK),
        ("one.h5:/tomo/data", STACK),
        ("one.h5:/tomo/frame", STACK[:1]),
        ("two.h5:/b", STACK[1:3]),
        ("many.tif", STACK),
        ("tiffs", np.stack([STACK[0] + n for n in (1, 2, 10)])),
        ("scan.nxs", frames()[KEYS == 1]),
    ):
        found = load_references(str(folder / source), "flats")
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.uint16
    np.testing.assert_array_equal(load_references(folder / "scan.nxs", "darks"), frames()[KEYS == 2])


def test_load_references__several_are_put_one_after_another(folder: Path) -> None:
    with h5py.File(folder / "float.h5", "w") as file:
        file["x"] = STACK[:1] + np.float32(0.5)
    found = load_references([folder / "two.h5:/a", folder / "float.h5", folder / "many.tif"], "darks")
    np.testing.assert_array_equal(found, np.concatenate([STACK[:1], STACK[:1] + np.float32(0.5), STACK]))
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone.h5", r"flats: .*gone\.h5 does not exist; name the file"),
        ("two.h5", r"two\.h5 has 2 3-D datasets, expected one; its 3-D datasets are /a \(1, 5, 8\), /b \(2, 5, 8\)"),
        ("two.h5:/c", r'no dataset at /c, expected a 2-D or 3-D one; .*choose one by "file:/path"'),
        ("one.h5:/tomo/energy", r"has a dataset of shape \(\) at /tomo/energy"),
        ("empty.h5", "has 0 3-D datasets.*it has no 3-D datasets, so name another file"),
        ("none", "has no TIFF files; name the file or folder that holds the flats"),
        ("text.txt", "cannot be opened as HDF5"),
        ("dark_only.nxs", "has no frames with image_key 1; name another file"),
        (["many.tif", "small.tif"], r"one frame shape, got \[\(3, 8\), \(5, 8\)\] .* was binning"),
        ([], "flats must name at least one file"),
    ],
)  # fmt: skip
def test_load_references__refuses_with_the_reason(
    folder: Path, source: str | list[str], message: str
) -> None:
    h5py.File(folder / "empty.h5", "w").close()
    (folder / "none").mkdir()
    (folder / "text.txt").write_text("hello")
    tifffile.imwrite(folder / "small.tif", STACK[0, :3])
    nxtomo_files.write(
        folder / "dark_only.nxs", {"instrument/detector/image_key": np.where(KEYS == 1, 3, KEYS)}
    )
    with pytest.raises(ScanError, match=message):
        load_references(source, "flats", folder=folder)  # type: ignore[arg-type]


def test_load_references__knows_two_roles(folder: Path) -> None:
    with pytest.raises(InputError, match='role must be "flats" or "darks", got \'flat\''):
        load_references(folder / "one.h5", "flat")


def test_load_references__stay_inside_root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "x.h5"
    with h5py.File(outside, "w") as file:
        file["x"] = STACK
    with pytest.raises(ScanError, match=r"flats must lie inside root .*, got .*x\.h5; copy the file there"):
        load_references(outside, "flats", root=folder)
    with h5py.File(folder / "link.h5", "w") as file:
        file["x"] = h5py.ExternalLink(str(outside), "/x")
    with pytest.raises(ScanError, match=r"leads to .* which is outside root"):
        load_references(folder / "link.h5:/x", "flats")
    (folder / "tiffs" / "f_3.tif").symlink_to(outside)
    with pytest.raises(ScanError, match=r"f_3\.tif leads to .* outside root"):
        load_references(folder / "tiffs", "flats")


def test_read_scan__references_of_other_files_replace_its_own(folder: Path) -> None:
    scan = read_scan(folder / "scan.nxs", flats=folder / "one.h5", darks=[folder / "two.h5:/b"])
    np.testing.assert_array_equal(scan.flats, STACK)
    np.testing.assert_array_equal(scan.darks, STACK[1:3])
    path = nxtomo_files.write(folder / "bare.nxs", {"instrument/detector/image_key": np.where(KEYS, 3, 0)})
    with pytest.raises(
        ScanError, match=r"no flats and no darks: .*image_key 1 or .*image_key 2; .*\(flats=…, darks=…\)"
    ):
        read_scan(path)
    assert read_scan(path, flats=folder / "one.h5", darks=folder / "one.h5").darks.shape == (4, ROWS, COLUMNS)
    tifffile.imwrite(folder / "small.tif", STACK[0, :3])
    with pytest.raises(
        ScanError, match=r"flats must be \(n, y, x\) matching projections \(5, 8\), got \(1, 3, 8\)"
    ):
        read_scan(path, flats=folder / "small.tif", darks=folder / "one.h5")


def test_load_references__real_files(shared_data: Path) -> None:
    folder = shared_data / "scans" / "i12_flats_darks"
    flats = load_references(folder / "flat_field.h5", "flats")
    darks = load_references(
        [folder / "dark_field.h5", f"{folder}/dark_field_different_path.h5:/tomo/data"], "darks"
    )
    assert (flats.shape, darks.shape) == ((20, 10, 192), (40, 10, 192))
    assert flats.mean() > darks.mean()
