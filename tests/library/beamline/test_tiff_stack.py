"""Folders of TIFF files: what is what by names, whose angle is whose, and frames read when indexed."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from tests.library.beamline import nxtomo_files
from tests.library.beamline.nxtomo_files import COUNT, KEYS, frames
from tomoforge.beamline import read_scan
from tomoforge.beamline.angle_lists import moving_rows, read_angles
from tomoforge.beamline.tiff_frames import TiffFrames
from tomoforge.errors import InputError, ScanError, StorageError

ANGLES = np.arange(COUNT) * 180 / COUNT
PROJECTIONS = frames()[KEYS == 0]
BEAM: dict[str, Any] = {"energy_kev": 20.0, "pixel_size_um": 5.0}


def save(path: Path, stack: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, stack, photometric="minisblack", **options)


def stack(folder: Path, angles: np.ndarray | None = ANGLES, sidecar: dict[str, Any] | None = None) -> Path:
    """A scan as a camera writes it: projections in a folder of their own, numbers without leading zeros."""
    for number, frame in enumerate(PROJECTIONS):
        save(folder / "tiffs" / f"raw_20240131_{number}.tif", frame)
    for number, (flat, dark) in enumerate(zip(frames()[2:4], frames()[:2], strict=True)):
        save(folder / f"flat_{number}.tif", flat)
        save(folder / "darks" / f"d{number}.TIFF", dark)
    if angles is not None:
        np.savetxt(folder / "angles.txt", angles, fmt="%.17g")
    if sidecar is not None:
        (folder / "scan.json").write_text(json.dumps(sidecar))
    return folder


def test_read_tiff_stack__everything_by_names(tmp_path: Path) -> None:
    scan = pickle.loads(pickle.dumps(read_scan(stack(tmp_path / "t4"), **BEAM)))
    np.testing.assert_array_equal(scan.projections[:], PROJECTIONS)
    np.testing.assert_array_equal(scan.flats, frames()[2:4])
    np.testing.assert_array_equal(scan.darks, frames()[:2])
    np.testing.assert_array_equal(scan.angles, ANGLES * (np.pi / 180))
    assert (scan.name, scan.energy_kev, scan.pixel_size) == ("t4", 20.0, pytest.approx(5e-6))
    assert scan.projections.dtype == scan.flats.dtype == np.uint16


def test_read_tiff_stack__one_multi_page_file(tmp_path: Path) -> None:
    save(tmp_path / "sample.tif", PROJECTIONS, compression="zlib")
    save(tmp_path / "flats.tif", frames()[2:5])
    save(tmp_path / "darks.tif", frames()[:2])
    np.savetxt(tmp_path / "theta.csv", ANGLES)
    for path, name in ((tmp_path, tmp_path.name), (tmp_path / "sample.tif", "sample")):
        scan = read_scan(path, **BEAM)
        np.testing.assert_array_equal(scan.rows(1, 3), PROJECTIONS[:, 1:3])
        np.testing.assert_array_equal(scan.flats, frames()[2:5])
        assert scan.name == name


def test_read_tiff_stack__the_sidecar_says_all_of_it(tmp_path: Path) -> None:
    sidecar = {
        "energy_kev": 20.0, "pixel_size_um": 5.0, "distance_mm": 7.0, "projections": "tiffs/raw_*.tif",
        "flats": ["flat_*.tif", "flat_0.tif"], "darks": "darks", "angle_start_deg": -90.0, "angle_step_deg": 15.0,
    }  # fmt: skip
    folder = stack(tmp_path / "a", angles=None, sidecar=sidecar)
    save(folder / "alignment" / "align_0.tif", PROJECTIONS[0])
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.projections[:], PROJECTIONS)
    np.testing.assert_array_equal(scan.flats, frames()[[2, 3, 2]])
    np.testing.assert_allclose(np.degrees(scan.angles), -90 + 15 * np.arange(COUNT))
    assert (scan.energy_kev, scan.propagation_distance) == (20.0, pytest.approx(7e-3))
    assert scan.pixel_size == pytest.approx(5e-6)
    (folder / "scan.json").rename(folder / "scan.yaml")  # JSON is YAML
    assert read_scan(folder, energy_kev=21.0).energy_kev == 21.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energy": 20.0}, r"scan\.json: energy: Extra inputs are not permitted, got 20\.0\. The keys are energy_kev"),
        ({"energy_kev": -1.0, "pixel_size_um": "x"}, "energy_kev: .*greater than 0, got -1.0; pixel_size_um: "),
        ({"angle_start_deg": 0.0}, "angle_start_deg and angle_step_deg must be given together"),
        ({"angle_start_deg": 0.0, "angle_step_deg": 0.0}, "angle_step_deg must not be 0"),
        ({"angles": "angles.txt", "angle_start_deg": 0.0, "angle_step_deg": 1.0}, "got both"),
        ({"angles": "gone.txt"}, r"gone\.txt does not exist; name the file"),
        ({"angles": "../angles.txt"}, r"outside root .*; copy the file itself"),
        ({"angles": [0.0, 1.0]}, r"angles in the sidecar has 2 angles for 12 projections.*or restore the lost rows"),
        ({"angle_rows": [0, 5]}, "must choose 12 rows, one for each projection, out of 12, got 0 to 5, 5 rows"),
        ({"angle_rows": [0, 12], "angle_start_deg": 0.0, "angle_step_deg": 1.0}, "leave out angle_rows"),
        ({"projections": "nothing_*.tif"}, r"no projections: no file is called nothing_\*\.tif"),
        ({"projections": "../*.tif"}, r"names in the sidecar must lie below its folder, got '\.\./\*\.tif'"),
        ({"flats": "/etc"}, r"flats must lie inside root"),
        ({"flats": "none_*.tif"}, r"flats: no TIFF file in .* is called none_\*\.tif; correct the sidecar"),
        ({"darks": "../d.h5:/x"}, r"darks must lie inside root"),
    ],
)  # fmt: skip
def test_read_tiff_stack__refuses_a_sidecar_with_the_reason(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ScanError, match=message):
        read_scan(stack(tmp_path / "a", sidecar=change), **BEAM)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("scan.json", "{", "is not valid JSON: .*; correct it"),
        ("scan.yaml", "a: [", "is not valid YAML"),
        ("scan.yaml", "!!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("scan.yaml", "- 1", "must hold keys and values, got list"),
    ],
)
def test_read_tiff_stack__refuses_a_garbled_sidecar(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    folder = stack(tmp_path / "a")
    (folder / name).write_text(text)
    with pytest.raises(ScanError, match=message):
        read_scan(folder, **BEAM)


def test_read_tiff_stack__one_sidecar(tmp_path: Path) -> None:
    folder = stack(tmp_path / "a", sidecar={})
    (folder / "scan.yml").write_text("{}")
    with pytest.raises(
        ScanError, match=r"must have one sidecar, got scan\.json, scan\.yml; remove the old one"
    ):
        read_scan(folder, **BEAM)


def test_read_tiff_stack__lost_files_are_noticed(tmp_path: Path) -> None:
    folder = stack(tmp_path / "a", angles=np.delete(ANGLES, [3, 4]))
    for number in (3, 4):
        (folder / "tiffs" / f"raw_20240131_{number}.tif").unlink()
    with pytest.raises(
        ScanError, match=r"raw_20240131_0\.tif to raw_20240131_11\.tif .* but 3, 4 are missing; copy"
    ):
        read_scan(folder, **BEAM)


def test_read_tiff_stack__numbers_may_count_by_tens_but_not_twice(tmp_path: Path) -> None:
    for number, frame in enumerate(PROJECTIONS):
        save(tmp_path / f"p{number * 10}.tif", frame)
    (tmp_path / "angles.txt").write_text("\n".join(map(str, ANGLES)))
    scan = read_scan(tmp_path, allow_missing=("flats", "darks"), **BEAM)
    np.testing.assert_array_equal(scan.projections[:], PROJECTIONS)
    assert scan.flats.shape == scan.darks.shape == (0, 5, 8)
    save(tmp_path / "p010.tif", PROJECTIONS[1])
    with pytest.raises(ScanError, match="number 10 stands for several files"):
        read_scan(tmp_path, allow_missing=("flats", "darks"), **BEAM)


def test_read_tiff_stack__refuses_with_the_reason(tmp_path: Path) -> None:
    folder = stack(tmp_path / "a", angles=None)
    with pytest.raises(
        ScanError, match=r"must have one file of angles, .* got none; write one angle .* angle_step_deg"
    ):
        read_scan(folder, **BEAM)
    np.savetxt(folder / "angles.txt", ANGLES)
    np.savetxt(folder / "angles2.txt", ANGLES)
    with pytest.raises(ScanError, match=r"got angles\.txt, angles2\.txt"):
        read_scan(folder, **BEAM)
    (folder / "angles2.txt").unlink()
    with pytest.raises(ScanError, match=r"photon energy: give energy_kev=.*pixel size"):
        read_scan(folder)
    save(folder / "other" / "x_0.tif", PROJECTIONS[0])
    with pytest.raises(
        ScanError, match=r"2 series of TIFF files .*other/x_0\.tif, tiffs/raw_20240131_0\.tif; .*scan\.json"
    ):
        read_scan(folder, **BEAM)
    shutil.rmtree(folder / "other")
    shutil.rmtree(folder / "darks")
    with pytest.raises(
        ScanError, match=r"no darks: nothing at .*/dark\*; .*darks=….*allow_missing=\('darks',\)"
    ):
        read_scan(folder, **BEAM)
    assert len(read_scan(folder, darks=folder / "flat_0.tif", **BEAM).darks) == 1
    shutil.rmtree(folder / "tiffs")
    nxtomo_files.write(folder / "scan.nxs")
    with pytest.raises(ScanError, match=r"no projections.*give the file of the scan, as scan\.nxs"):
        read_scan(folder, **BEAM)


def test_read_tiff_stack__labels_beside_it_are_no_projections(tmp_path: Path) -> None:
    folder = stack(tmp_path / "a")
    save(folder / "labels" / "z_000.tif", np.zeros((9, 9), np.uint8))
    (folder / "tiffs" / "._raw_20240131_0.tif").write_bytes(b"what a Mac leaves behind")
    np.testing.assert_array_equal(read_scan(folder, **BEAM).projections[:], PROJECTIONS)


@pytest.mark.parametrize("which", ["file", "folder", "angles", "sidecar"])
def test_read_tiff_stack__symbolic_links_stay_inside(tmp_path: Path, which: str) -> None:
    folder = stack(tmp_path / "a", angles=None if which == "angles" else ANGLES)
    away = tmp_path / "away"
    away.mkdir()
    name = {
        "file": "tiffs/raw_20240131_4.tif",
        "folder": "tiffs",
        "angles": "angles.txt",
        "sidecar": "scan.json",
    }[which]
    (away / "angles.txt").write_text("\n".join(map(str, ANGLES)))
    (away / "scan.json").write_text("{}")
    if which in ("file", "folder"):
        shutil.move(folder / name, away / Path(name).name)
    (folder / name).symlink_to(away / Path(name).name)
    with pytest.raises(
        ScanError, match=rf"{Path(name).name} leads to {away}.*outside root {folder}; copy the file"
    ):
        read_scan(folder, **BEAM)
    np.testing.assert_array_equal(read_scan(folder, root=tmp_path, **BEAM).projections[:], PROJECTIONS)


# --- angles ---------------------------------------------------------------------------------------------


LONG = np.r_[np.full(4, ANGLES[0]), ANGLES, np.full(3, ANGLES[-1])]


def test_read_tiff_stack__a_longer_list_by_the_motor(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = stack(tmp_path / "a", angles=LONG)
    np.testing.assert_allclose(np.degrees(read_scan(folder, **BEAM).angles), ANGLES, atol=1e-12)
    assert "19 angles for 12 projections; rows 4 to 16 are taken" in caplog.text
    assert "angle_rows=(4, 16) says so for certain" in caplog.text


def test_read_tiff_stack__a_longer_list_by_argument_or_sidecar(tmp_path: Path) -> None:
    folder = stack(tmp_path / "a", angles=np.r_[ANGLES, ANGLES], sidecar={"angle_rows": [12, 24]})
    np.testing.assert_allclose(np.degrees(read_scan(folder, **BEAM).angles), ANGLES, atol=1e-12)
    shifted = read_scan(folder, angle_rows=(1, 13), **BEAM).angles
    np.testing.assert_allclose(np.degrees(shifted), np.r_[ANGLES[1:], 0.0], atol=1e-12)
    (folder / "scan.json").unlink()
    with pytest.raises(
        ScanError, match=r"24 angles for 12 projections, and nothing tells .*angle_rows=\(start, stop\)"
    ):
        read_scan(folder, **BEAM)


def test_read_tiff_stack__a_longer_list_by_the_image_keys_beside_it(tmp_path: Path) -> None:
    angles = np.r_[np.zeros(5), ANGLES[::-1]]
    folder = stack(tmp_path / "a", angles=np.random.default_rng(5).permutation(angles))
    keys = np.r_[np.zeros(6, int), 1, 1, 1, 2, 2, np.zeros(6, int)]
    nxtomo_files.write(
        folder / "metadata.nxs", {"instrument/detector/data": None, "instrument/detector/image_key": keys}
    )
    found = np.degrees(read_scan(folder, **BEAM).angles)
    np.testing.assert_allclose(found, np.loadtxt(folder / "angles.txt")[keys == 0], atol=1e-12)


def test_read_tiff_stack__motor_and_image_keys_must_not_disagree(tmp_path: Path) -> None:
    folder = stack(tmp_path / "a", angles=LONG)
    keys = np.r_[np.ones(3, int), np.zeros(COUNT, int), np.full(4, 2)]
    nxtomo_files.write(
        folder / "x.nxs", {"instrument/detector/data": None, "instrument/detector/image_key": keys}
    )
    with pytest.raises(
        ScanError, match=r"moves over rows 4 to 16, but the image keys .* angle_rows=\(start, stop\)"
    ):
        read_scan(folder, **BEAM)
    assert read_scan(folder, angle_rows=(4, 16), **BEAM).angles.size == COUNT


def test_moving_rows__only_what_is_certain() -> None:
    angles = np.radians(LONG)
    assert moving_rows(angles, COUNT) == (4, 16)
    noise = 1e-6 * np.random.default_rng(3).standard_normal(LONG.size)
    assert moving_rows(angles + noise, COUNT) == (4, 16)
    assert moving_rows(angles, COUNT - 1) is None
    assert moving_rows(np.r_[angles, angles], COUNT) is None  # two runs alike
    assert moving_rows(np.zeros(20), COUNT) is None
    # Home again for the flats at the end: a step of its own, not one of the scan's.
    assert moving_rows(np.r_[angles[:16], np.zeros(5)], COUNT) == (4, 16)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0\n1.5\n\n3\n", [0, 1.5, 3]),
        ("# made by hand\n0 # first\n1.5\n3", [0, 1.5, 3]),
        ("angle_deg\n0\n1.5\n3", [0, 1.5, 3]),
        ("frame,theta,exposure\n0,0,9\n1,1.5,9\n2,3,9", [0, 1.5, 3]),
        ("theta [rad]\n0\n0.5\n1", np.degrees([0, 0.5, 1])),
        ("frame;angle_rad\n0;0\n1;0.5", np.degrees([0, 0.5])),
    ],
)
def test_read_angles__as_people_write_them(tmp_path: Path, text: str, expected: list[float]) -> None:
    (tmp_path / "a.txt").write_text(text)
    np.testing.assert_allclose(np.degrees(read_angles(tmp_path / "a.txt")), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\none\n2", r"a\.txt, line 2 must be numbers, got 'one'; correct it"),
        ("−88.2\n1\n2", "line 1 must be numbers"),  # a minus sign that is none
        ("0 1\n2 3", "has 2 columns and no header that calls one of them angle"),
        ("a,b\n0,1", "no header that calls one"),
        ("0\n1 2", "lines of unequal length"),
        ("", "must have one angle a line, got none"),
    ],
)
def test_read_angles__refuses_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ScanError, match=message):
        read_angles(tmp_path / "a.txt")


# --- frames ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"compression": "lzw"}, {"byteorder": ">"}, {"rowsperstrip": 2}, {"bigtiff": True}]
)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_tiff_frames__read_like_the_array(tmp_path: Path, options: dict[str, Any], dtype: str) -> None:
    expected = PROJECTIONS.astype(dtype)
    save(tmp_path / "a.tif", expected[:5], **options)
    save(tmp_path / "b.tif", expected[5], **options)
    save(tmp_path / "c.tif", expected[6:])
    found = TiffFrames.open([tmp_path / name for name in ("a.tif", "b.tif", "c.tif")])
    assert found.shape == expected.shape and found.dtype == expected.dtype
    for key in (
        np.s_[:], np.s_[3], np.s_[-1], np.s_[2:11:3], np.s_[[7, 1, 1]], np.s_[:, 2:4], np.s_[:, 1], np.s_[4, 1:5:2],
        np.s_[::-1, ::-1], np.s_[:, :, 3:5], np.s_[2, 3, 4], np.s_[5:5], np.s_[:, 2:2], np.arange(COUNT) % 3 == 0, ...,
    ):  # fmt: skip
        np.testing.assert_array_equal(found[key], expected[key])
        assert found[key].dtype == expected.dtype
    with pytest.raises(InputError, match="ellipsis"):
        found[..., 0]
    with pytest.raises(IndexError):
        found[COUNT]


def test_tiff_frames__are_lazy_and_say_what_changed(tmp_path: Path) -> None:
    for number, frame in enumerate(PROJECTIONS):
        save(tmp_path / f"{number}.tif", frame)
    found = TiffFrames.open([tmp_path / f"{number}.tif" for number in range(COUNT)])
    assert len(pickle.dumps(found)) < 4000
    whole = (tmp_path / "3.tif").read_bytes()
    (tmp_path / "3.tif").write_bytes(whole[:-9])
    np.testing.assert_array_equal(found[2], PROJECTIONS[2])
    with pytest.raises(
        StorageError, match=r"3\.tif is shorter than when the scan was opened; open the scan again"
    ):
        found[:]
    (tmp_path / "3.tif").unlink()
    with pytest.raises(FileNotFoundError):
        found[3]


def test_tiff_frames__refuse_with_the_reason(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.tif", tmp_path / "bad.tif"
    save(good, PROJECTIONS[0])
    whole = good.read_bytes()
    cases: list[tuple[Any, str]] = [
        (whole[:-9], r"bad\.tif is cut short: page 0 ends at byte"),
        (whole[:6], "cannot be read as TIFF: .* copy it again"),
        (b"", "cannot be read as TIFF"),
        (b"hello", "cannot be read as TIFF"),
        (PROJECTIONS[0, 1:], r"must hold frames of \(5, 8\) uint16 as .*good\.tif does, got \(4, 8\) uint16"),
        (PROJECTIONS[0].astype("f4"), r"got \(5, 8\) float32; do the files belong to one scan"),
        (PROJECTIONS[0].astype("c8"), "one grey"),
    ]
    for content, message in cases:
        bad.unlink(missing_ok=True)
        if isinstance(content, bytes):
            bad.write_bytes(content)
        else:
            save(bad, content)
        with pytest.raises(ScanError, match=message):
            TiffFrames.open([good, bad])
    tifffile.imwrite(bad, np.zeros((5, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(ScanError, match=r"must be one grey \(y, x\) frame of numbers.*minisblack"):
        TiffFrames.open([bad])
    with pytest.raises(ScanError, match="at least one frame"):
        TiffFrames.open([])


def test_tiff_frames__ome_files_do_not_draw_in_others(tmp_path: Path) -> None:
    save(tmp_path / "a.ome.tif", PROJECTIONS[:2])
    found = TiffFrames.open([tmp_path / "a.ome.tif"])
    np.testing.assert_array_equal(found[:], PROJECTIONS[:2])


# --- the real one ---------------------------------------------------------------------------------------


def test_read_scan__the_real_stack_is_the_real_nxtomo(
    shared_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scans = shared_data / "scans"
    expected = read_scan(scans / "diamond_24737.nxs", **BEAM)
    # 111 rows are told apart by the image keys of the NeXus file, which is of another scan on the same motor.
    found = [read_scan(scans / "diamond_24737_tiff", **BEAM)]
    assert "its angles are up to 0.9 degrees from the list's: is it of another scan?" in caplog.text
    copy = shutil.copytree(scans / "diamond_24737_tiff", tmp_path / "copy", copy_function=shutil.copyfile)
    tmp_path.joinpath("copy").chmod(0o755)
    (copy / "24888_metadata_only.nxs").unlink()
    found.append(read_scan(copy, **BEAM))  # by the motor
    assert "111 angles for 91 projections; rows 10 to 101 are taken" in caplog.text
    found.append(read_scan(copy, angle_rows=(10, 101), **BEAM))
    for scan in found:
        for role in ("projections", "flats", "darks", "angles"):
            np.testing.assert_array_equal(getattr(scan, role)[:], getattr(expected, role)[:])
        np.testing.assert_array_equal(scan.rows(40, 43), expected.rows(40, 43))
        assert scan.projections.dtype == expected.projections.dtype
        assert (scan.energy_kev, scan.pixel_size) == (expected.energy_kev, expected.pixel_size)


def test_read_scan__the_real_metadata_file_with_its_frames_beside_it(
    shared_data: Path, tmp_path: Path
) -> None:
    # Its link is /dls/i13/data/2014/mt9396-1/raw/pco1-24888.hdf, its pixel sizes are the scan's identifier.
    folder = shared_data / "scans" / "diamond_24737_tiff"
    expected = read_scan(folder, **BEAM)
    shutil.copyfile(folder / "24888_metadata_only.nxs", tmp_path / "24888.nxs")
    with pytest.raises(
        ScanError, match=r"leads to /dls/i13.*pco1-24888\.hdf, which is outside root .*; copy that file"
    ):
        read_scan(tmp_path / "24888.nxs", **BEAM)
    flats, darks = (np.repeat(stack, 5, axis=0) for stack in (expected.flats, expected.darks))
    with h5py.File(tmp_path / "pco1-24888.hdf", "w") as file:
        frames = [darks, flats, expected.projections[:], flats, darks]
        file["entry/instrument/detector/data"] = np.concatenate(frames).astype(np.uint16)
    scan = read_scan(tmp_path / "24888.nxs", **BEAM)
    np.testing.assert_array_equal(scan.projections[:], expected.projections[:])
    np.testing.assert_allclose(
        np.degrees(scan.angles), -89.1 + 2.0 * np.arange(91), atol=1e-3
    )  # as its command says
    assert (len(scan.flats), len(scan.darks), scan.pixel_size) == (10, 10, expected.pixel_size)
