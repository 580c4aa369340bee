"""NXtomo files, as written by others, by this library, and broken in every way that users report."""

import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from tests.library.beamline.nxtomo_files import COLUMNS, COUNT, KEYS, ROWS, angles_deg, frames, write
from tomoforge.beamline import read_nxtomo, read_scan
from tomoforge.errors import InputError, ScanError
from tomoforge.scan import write_frame_batch, write_nxtomo


def test_read_nxtomo__everything_in_si_and_radians(tmp_path: Path) -> None:
    scan = read_nxtomo(write(tmp_path / "good.nxs"))
    np.testing.assert_array_equal(scan.projections[:], frames()[5:])
    np.testing.assert_array_equal(scan.flats, frames()[2:5])
    np.testing.assert_array_equal(scan.darks, frames()[:2])
    np.testing.assert_allclose(scan.angles, np.arange(COUNT) * np.pi / COUNT)
    assert scan.projections.dtype == np.uint16
    assert scan.energy_kev == 5.0
    assert scan.pixel_size == pytest.approx(0.5e-6)
    assert scan.propagation_distance == pytest.approx(5e-3)
    assert scan.name == "good"


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"beam/incident_energy": (5000.0, "eV")}, "energy_kev", 5.0),
        ({"beam/incident_energy": (np.full(17, 5.0), "keV")}, "energy_kev", 5.0),
        ({"beam/incident_energy": (8.01088317e-16, "J")}, "energy_kev", 5.0),
        ({"beam/incident_energy": None, "instrument/beam/incident_energy": (7.0, "keV")}, "energy_kev", 7.0),
        ({"instrument/detector/x_pixel_size": (5e-4, "mm")}, "pixel_size", 5e-7),
        ({"instrument/detector/x_pixel_size": (5e-7, "m")}, "pixel_size", 5e-7),
        ({"sample/x_pixel_size": (1.0, "µm"), "sample/y_pixel_size": (1.0, "µm")}, "pixel_size", 1e-6),
        ({"instrument/detector/distance": None}, "propagation_distance", None),
        ({"instrument/detector/distance": 5.0}, "propagation_distance", None),  # no unit: not guessed
    ],
)
def test_read_nxtomo__honours_units_and_places(
    tmp_path: Path, change: dict[str, Any], field: str, expected: float | None
) -> None:
    value = getattr(read_nxtomo(write(tmp_path / "a.nxs", change)), field)
    assert value == (None if expected is None else pytest.approx(expected, rel=1e-6))


def test_read_nxtomo__angles_in_radians_are_not_converted_again(tmp_path: Path) -> None:
    change = {"sample/rotation_angle": (np.radians(angles_deg()), "rad")}
    scan = read_nxtomo(write(tmp_path / "a.nxs", change))
    np.testing.assert_allclose(scan.angles, np.arange(COUNT) * np.pi / COUNT)


def test_read_nxtomo__the_entry_is_found_by_definition(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", {"definition": "NXmx"}, "entry")
    write(path, {"definition": np.bytes_("NXtomo")}, "whatever/inside")
    assert read_nxtomo(path).projections.dataset == "/whatever/inside/instrument/detector/data"


def test_read_nxtomo__several_entries_must_be_chosen_from(tmp_path: Path) -> None:
    path = write(write(tmp_path / "a.nxs"), {"beam/incident_energy": (9.0, "keV")}, "second")
    with pytest.raises(ScanError, match=r"2 NXtomo entries, /entry, /second; choose with entry="):
        read_nxtomo(path)
    assert read_nxtomo(path, entry="second").energy_kev == 9.0
    with pytest.raises(ScanError, match="not an NXtomo entry"):
        read_nxtomo(path, entry="third")


def test_read_nxtomo__invalid_and_alignment_frames_are_left_out(tmp_path: Path) -> None:
    keys, control = KEYS.copy(), KEYS.copy()
    keys[6] = 3
    control[-1] = -1
    change = {"instrument/detector/image_key": keys, "instrument/detector/image_key_control": control}
    scan = read_nxtomo(write(tmp_path / "a.nxs", change))
    np.testing.assert_array_equal(scan.projections[:], frames()[[5, *range(7, 16)]])
    np.testing.assert_allclose(np.degrees(scan.angles), angles_deg()[[5, *range(7, 16)]])


def test_read_nxtomo__projections_are_lazy_and_travel(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs")
    scan = pickle.loads(pickle.dumps(read_nxtomo(path)))
    np.testing.assert_array_equal(scan.rows(1, 3), frames()[5:, 1:3])
    path.unlink()
    with pytest.raises(OSError, match="open"):
        scan.projections[0]


def test_read_nxtomo__compressed_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", {"instrument/detector/data": None})
    with h5py.File(path, "a") as file:
        file["entry/instrument/detector"].create_dataset("data", data=frames(), **hdf5plugin.Bitshuffle())
    np.testing.assert_array_equal(read_nxtomo(path).projections[:], frames()[5:])


def test_read_nxtomo__given_values_win_and_a_contradiction_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.nxs")
    scan = read_nxtomo(path, energy_kev=5.02, pixel_size_um=0.5)
    assert scan.energy_kev == 5.02
    assert not caplog.records  # within one per cent
    scan = read_nxtomo(path, energy_kev=20.0, pixel_size_um=5.0)
    assert scan.energy_kev == 20.0
    assert scan.pixel_size == pytest.approx(5e-6)
    assert "energy_kev is given as 20, but /entry/beam/incident_energy records 5" in caplog.text
    assert (
        "pixel_size_um is given as 5, but /entry/instrument/detector/x_pixel_size records 0.5" in caplog.text
    )


@pytest.mark.parametrize(
    "stored", [None, 5.0, (0.0, "keV"), (np.nan, "keV")], ids=["absent", "no unit", "zero", "nan"]
)
def test_read_nxtomo__energy_is_never_guessed(tmp_path: Path, stored: Any) -> None:
    path = write(tmp_path / "a.nxs", {"beam/incident_energy": stored})
    with pytest.raises(ScanError, match=r"energy_kev=.*--energy-kev.*ENERGY_KEV="):
        read_nxtomo(path)
    assert read_nxtomo(path, energy_kev=12.0).energy_kev == 12.0


def test_read_nxtomo__pixel_size_is_never_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", {"instrument/detector/x_pixel_size": None, "beam/incident_energy": None})
    with pytest.raises(ScanError, match=r"photon energy.*pixel size.*--pixel-size-um.*PIXEL_SIZE_UM="):
        read_nxtomo(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"definition": "NXmx"}, "no NXtomo entry"),
        ({"definition": None}, "no NXtomo entry"),
        ({"instrument/detector/data": None}, "no frames at instrument/detector/data or data/data"),
        ({"instrument/detector/data": frames()[0]}, r"must be \(frame, y, x\)"),
        ({"instrument/detector/data": frames().astype(complex)}, "real counts"),
        ({"instrument/detector/image_key": None}, "no image keys"),
        ({"instrument/detector/image_key": KEYS[:-3]}, "image_key must have one entry for each of the 17"),
        ({"instrument/detector/image_key": np.full(17, 7)}, r"must be 0, 1, 2 or 3, got also \[7\]"),
        ({"instrument/detector/image_key": np.full(17, 1)}, "no projections"),
        (
            {"instrument/detector/image_key": np.where(KEYS == 1, 3, KEYS)},
            r"no flats.*allow_missing=\('flats',\)",
        ),
        (
            {"instrument/detector/image_key": np.where(KEYS == 2, 3, KEYS)},
            r"no darks.*allow_missing=\('darks',\)",
        ),
        ({"instrument/detector/image_key": np.where(KEYS > 0, 3, 0)}, "no flats and no darks"),
        ({"sample/rotation_angle": None}, "no rotation angles"),
        (
            {"sample/rotation_angle": (angles_deg()[:8], "deg")},
            "fewer entries than there are frames, 8 for 17",
        ),
        ({"sample/rotation_angle": (np.zeros(40), "deg")}, "more entries than there are frames"),
        ({"sample/rotation_angle": (angles_deg(), "turns")}, "units 'turns'"),
        ({"sample/rotation_angle": (np.where(KEYS, 0, np.nan), "deg")}, "angles must be finite"),
        ({"beam/incident_energy": (5.0, "furlong")}, "units 'furlong'"),
        ({"beam/incident_energy": (np.linspace(5, 6, 17), "keV")}, "must be one value, got 17"),
        ({"beam/incident_energy": "five"}, "must be a number"),
        ({"instrument/detector/y_pixel_size": (1.0, "um")}, "pixels must be square, got 0.5 by 1"),
    ],
)
def test_read_nxtomo__refuses_with_the_reason(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ScanError, match=message):
        read_nxtomo(write(tmp_path / "a.nxs", change))


def test_read_nxtomo__missing_references_can_be_waived_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", {"instrument/detector/image_key": np.where(KEYS > 0, 3, 0)})
    with pytest.raises(ScanError, match="no flats"):
        read_nxtomo(path, allow_missing=("darks",))
    scan = read_scan(path, allow_missing=("darks", "flats"))
    assert scan.darks.shape == scan.flats.shape == (0, ROWS, COLUMNS)
    for wrong in ("darks", ("dark",)):
        with pytest.raises(InputError, match="allow_missing must hold names"):
            read_nxtomo(path, allow_missing=wrong)


@pytest.mark.parametrize("name", ["energy_kev", "pixel_size_um"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_read_nxtomo__refuses_given_values_that_are_not_positive(
    tmp_path: Path, name: str, value: float
) -> None:
    with pytest.raises(InputError, match=f"{name} must be a positive number"):
        read_nxtomo(write(tmp_path / "a.nxs"), **{name: value})


def test_read_nxtomo__names_every_dangling_link(tmp_path: Path) -> None:
    change = {
        "instrument/detector/data": h5py.ExternalLink("gone.h5", "/entry/data"),
        "instrument/detector/image_key": h5py.ExternalLink("lost.h5", "/keys"),
    }
    with pytest.raises(ScanError, match=r"gone\.h5:/entry/data.*lost\.h5:/keys"):
        read_nxtomo(write(tmp_path / "a.nxs", change))


def test_read_nxtomo__follows_links_that_hold(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["frames"] = frames()
    change = {
        "instrument/detector/data": h5py.ExternalLink("raw.h5", "/frames"),
        "data/data": h5py.SoftLink("/entry/instrument/detector/data"),
        "data/circle": h5py.SoftLink("/entry"),
    }
    scan = read_nxtomo(write(tmp_path / "a.nxs", change))
    np.testing.assert_array_equal(scan.projections[3:5], frames()[8:10])


def forged(folder: Path) -> Path:
    """A scan as this library forges it: a virtual dataset over batches."""
    stack = frames()
    (folder / "batches").mkdir()
    names = ["batches/0.h5", "batches/1.h5"]
    for name, part in zip(names, np.array_split(stack[5:], 2), strict=True):
        write_frame_batch(folder / name, part)
    write_nxtomo(
        folder / "scan.nxs",
        darks=stack[:2],
        flats=stack[2:5],
        batches=names,
        angles=np.arange(COUNT) * np.pi / COUNT,
        energy_kev=4.0,
        pixel_size=3e-7,
        propagation_distance=0.005,
        title="forged",
    )
    return folder / "scan.nxs"


def test_read_nxtomo__reads_what_the_library_writes(tmp_path: Path) -> None:
    scan = read_scan(forged(tmp_path))
    np.testing.assert_array_equal(scan.projections[:], frames()[5:])
    np.testing.assert_array_equal(scan.flats, frames()[2:5])
    np.testing.assert_allclose(scan.angles, np.arange(COUNT) * np.pi / COUNT)
    assert (scan.energy_kev, scan.propagation_distance) == (4.0, 0.005)
    assert scan.pixel_size == pytest.approx(3e-7)


def test_read_nxtomo__a_missing_batch_is_no_fill_value(tmp_path: Path) -> None:
    path = forged(tmp_path)
    (tmp_path / "batches" / "1.h5").unlink()
    with pytest.raises(ScanError, match=r"virtual dataset.*batches/1\.h5 is missing"):
        read_nxtomo(path)


def test_read_nxtomo__a_short_or_broken_batch_is_no_fill_value(tmp_path: Path) -> None:
    path = forged(tmp_path)
    write_frame_batch(tmp_path / "batches" / "1.h5", frames()[:2])
    (tmp_path / "batches" / "0.h5").write_bytes(b"not HDF5")
    with pytest.raises(ScanError, match=r"0\.h5 cannot be opened.*1\.h5:frames is \(2, 5, 8\), shorter"):
        read_nxtomo(path)


def test_read_nxtomo__a_virtual_dataset_with_holes_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", {"instrument/detector/data": None})
    write_frame_batch(tmp_path / "part.h5", frames()[:10])
    layout = h5py.VirtualLayout((KEYS.size, ROWS, COLUMNS), dtype="uint16")
    layout[:10] = h5py.VirtualSource("part.h5", "frames", shape=(10, ROWS, COLUMNS))[:]
    with h5py.File(path, "a") as file:
        file["entry/instrument/detector"].create_virtual_dataset("data", layout)
    with pytest.raises(ScanError, match="only in part"):
        read_nxtomo(path)


def test_read_nxtomo__refuses_truncated_and_foreign_files(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.nxs").read_bytes()
    for name, data in (("cut.nxs", whole[: len(whole) // 2]), ("text.nxs", b"hello"), ("empty.nxs", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ScanError, match=r"cannot be opened as HDF5.*copy it again"):
            read_nxtomo(tmp_path / name)
    with pytest.raises(ScanError, match="does not exist"):
        read_nxtomo(tmp_path / "absent.nxs")


def test_read_nxtomo__refuses_damage_inside(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", {"instrument/detector/data": None})
    with h5py.File(path, "a") as file:
        data = file["entry/instrument/detector"].create_dataset(
            "data", data=frames(), chunks=(1, ROWS, COLUMNS), compression="gzip"
        )
        chunk = data.id.get_chunk_info(3)  # a flat
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(content)
    with pytest.raises(ScanError, match="is damaged, HDF5 says"):
        read_nxtomo(path)


def test_read_scan__whatever_h5py_raises_over_a_damaged_file_is_a_scan_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", {"instrument/detector/x_pixel_size": None})
    with h5py.File(path, "a") as file:
        # A float of a precision that NumPy does not have: h5py raises ValueError as the type is asked for.
        odd = h5py.h5t.IEEE_F64LE.copy()
        odd.set_fields(63, 52, 11, 0, 52)
        odd.set_precision(64)
        odd.set_ebias(40000)
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        h5py.h5d.create(file["entry/instrument/detector"].id, b"x_pixel_size", odd, space)
        entry = file["entry"]
        entry.id.links.create_soft(b"\xff\xfe", b"\xff")  # a name that is no text
    with pytest.raises(ScanError, match="is damaged, HDF5 says: Insufficient precision"):
        read_scan(path)


def test_read_scan__the_format_is_told_by_the_content(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.tif")  # whatever its name
    with h5py.File(path, "a") as file:
        file["exchange/data"] = frames()  # and NXtomo wins, which says of each frame what it is
    np.testing.assert_array_equal(read_scan(path).projections[:], frames()[5:])
    with h5py.File(tmp_path / "other.nxs", "w") as file:
        file["exchange/data"] = frames()
    with pytest.raises(ScanError, match="exchange/theta"):
        read_scan(tmp_path / "other.nxs")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScanError, match="no projections"):
        read_scan(tmp_path / "empty")


def test_read_nxtomo__an_entry_at_any_reasonable_depth(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", root="entry1/tomo_entry")
    assert read_nxtomo(path).energy_kev == 5.0
    path = write(tmp_path / "b.nxs", root="raw/entry1/scans/tomo_entry")
    assert read_nxtomo(path, entry="raw/entry1/scans/tomo_entry").energy_kev == 5.0


def test_read_nxtomo__entries_that_are_the_same_scan_are_no_choice(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", root="entry1/tomo_entry")
    with h5py.File(path, "a") as file:
        file["alias"] = h5py.SoftLink("/entry1/tomo_entry")
        second = file.create_group("entry2")
        second["definition"] = "NXtomo"
        for name in ("instrument", "sample", "beam"):
            second[name] = file[f"entry1/tomo_entry/{name}"]
    assert read_nxtomo(path).energy_kev == 5.0
    assert read_nxtomo(path, entry="alias").energy_kev == 5.0


@pytest.mark.parametrize(
    "change",
    [
        {"definition": np.zeros(3)},  # a dataset of that name need not be the definition
        {"definition": np.array([b"NXtomo", b"NXtomo"])},
    ],
)
def test_read_nxtomo__the_definition_is_one_text(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ScanError, match="no NXtomo entry"):
        read_nxtomo(write(tmp_path / "a.nxs", change))


def test_read_nxtomo__frames_and_keys_are_found_by_class(tmp_path: Path) -> None:
    moved = {
        "instrument/detector/data": None,
        "instrument/detector/image_key": None,
        "instrument/pco1_hw_hdf/image_key": KEYS,
        "sample/rotation_angle": None,
        "pco1/rotation_angle": (angles_deg(), "degree"),
        "pco1/image": frames(),
        "pco1/data": np.zeros(3),
    }
    path = write(tmp_path / "a.nxs", moved)
    with h5py.File(path, "a") as file:
        file["entry/instrument"].attrs["NX_class"] = "NXinstrument"
        file["entry/instrument/pco1_hw_hdf"].attrs["NX_class"] = "NXdetector"
        file["entry/pco1"].attrs["NX_class"] = "NXdata"
        file["entry/pco1"].attrs["signal"] = "image"
    scan = read_nxtomo(path)
    np.testing.assert_array_equal(scan.projections[:], frames()[5:])
    np.testing.assert_allclose(scan.angles, np.arange(COUNT) * np.pi / COUNT)
    with h5py.File(path, "a") as file:
        file["entry/pco2/data"] = frames()
        file["entry/pco2"].attrs["NX_class"] = "NXdata"
    with pytest.raises(
        ScanError, match=r"frames at 2 places, /entry/pco1/image, /entry/pco2/data; leave one"
    ):
        read_nxtomo(path)


def test_read_nxtomo__control_keys_alone_are_enough(tmp_path: Path) -> None:
    control = KEYS.copy()
    control[-1] = -1
    change = {
        "instrument/detector/image_key": None,
        "instrument/detector/image_key_control": control.astype(float),
    }
    np.testing.assert_array_equal(
        read_nxtomo(write(tmp_path / "a.nxs", change)).projections[:], frames()[5:-1]
    )
    change["instrument/detector/image_key_control"] = control + 0.5
    with pytest.raises(ScanError, match=r"must hold whole numbers, got 2\.5"):
        read_nxtomo(write(tmp_path / "b.nxs", change))


def test_read_nxtomo__angle_rows_choose_out_of_a_longer_list(tmp_path: Path) -> None:
    change = {"sample/rotation_angle": (np.r_[np.full(20, -1.0), angles_deg()[5:], 7.0], "degree")}
    path = write(tmp_path / "a.nxs", change)
    with pytest.raises(
        ScanError, match=r"more entries.*33 for 17.*angle_rows=\(start, stop\) which 12 of them"
    ):
        read_nxtomo(path)
    scan = read_scan(path, angle_rows=(20, 32))
    np.testing.assert_allclose(scan.angles, np.arange(COUNT) * np.pi / COUNT)
    with pytest.raises(ScanError, match=r"must choose 12 rows, .* out of 33, got 20 to 31, 11 rows"):
        read_scan(path, angle_rows=(20, 31))
    for rows in ((5, 3), (-1, 11), (0.5, 12.5)):
        with pytest.raises(InputError, match="angle_rows must be"):
            read_scan(path, angle_rows=rows)  # type: ignore[arg-type]


def test_read_nxtomo__a_given_value_spares_one_that_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Old files of Diamond have the scan's identifier where its numbers should be.
    change = {
        f"instrument/detector/{name}": "b2017b74-c39d"
        for name in ("x_pixel_size", "y_pixel_size", "distance")
    }
    path = write(tmp_path / "a.nxs", change)
    with pytest.raises(ScanError, match="must be a number"):
        read_nxtomo(path)
    scan = read_nxtomo(path, pixel_size_um=2.0)
    assert (scan.pixel_size, scan.propagation_distance) == (pytest.approx(2e-6), None)
    assert "pixel_size_um is given; what is recorded cannot be read" in caplog.text
    assert "propagation distance is not read" in caplog.text


@pytest.mark.parametrize("kind", ["chunked", "virtual"])
def test_read_scan__a_large_scan_opens_without_being_read(tmp_path: Path, kind: str) -> None:
    shape = (1806, 2048, 2048)
    keys = np.r_[2, 2, 1, 1, 1, 1, np.zeros(1800, int)]
    change = {
        "instrument/detector/data": None,
        "instrument/detector/image_key": keys,
        "sample/rotation_angle": (np.linspace(0, 180, 1806), "deg"),
    }
    path = write(tmp_path / "a.nxs", change)
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("frames", shape, "u2", chunks=(1, 64, 2048))
    with h5py.File(path, "a") as file:
        detector = file["entry/instrument/detector"]
        if kind == "chunked":
            detector.create_dataset("data", shape, "u2", chunks=(1, 64, 2048))
        else:
            layout = h5py.VirtualLayout(shape, "u2")
            layout[:] = h5py.VirtualSource("raw.h5", "frames", shape)[:]
            detector.create_virtual_dataset("data", layout)
    tracemalloc.start()
    try:
        scan = read_scan(path)
        assert scan.projections.shape == (1800, 2048, 2048)
        assert scan.rows(1000, 1001).shape == (1800, 1, 2048)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The scan is 15 GB. Six references, gathered once, take 6 · 8 MiB twice over; a row of all frames 7 MiB.
    assert peak < 130 << 20


def test_read_scan__references_that_memory_cannot_hold_are_refused(tmp_path: Path) -> None:
    change = {
        "instrument/detector/data": None,
        "instrument/detector/image_key": np.r_[np.ones(9, int), 2, 0],
        "sample/rotation_angle": (np.zeros(11), "deg"),
    }
    path = write(tmp_path / "a.nxs", change)
    with h5py.File(path, "a") as file:
        detector = file["entry/instrument/detector"]
        detector.create_dataset("data", (11, 30000, 30000), "u2", chunks=(1, 64, 2048))
    with pytest.raises(ScanError, match=r"flats must fit into 4 GiB, .* claims .*15\.1 GiB; average them"):
        read_scan(path)


def test_read_scan__a_list_that_claims_too_much_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs", {"sample/rotation_angle": None})
    with h5py.File(path, "a") as file:
        file.create_dataset("entry/sample/rotation_angle", (10**10,), "f8", chunks=(1024,))
    with pytest.raises(ScanError, match="at most one value for each frame, got 10000000000"):
        read_scan(path)


def test_read_nxtomo__reads_what_nxtomo_the_library_writes(tmp_path: Path) -> None:
    nxtomo = pytest.importorskip("nxtomo")
    import pint

    unit = pint.get_application_registry()
    theirs = nxtomo.NXtomo()
    theirs.instrument.detector.data = frames()
    theirs.instrument.detector.image_key_control = KEYS
    theirs.instrument.detector.x_pixel_size = theirs.instrument.detector.y_pixel_size = 0.5 * unit.micrometer
    theirs.sample.rotation_angle = angles_deg() * unit.degree
    theirs.energy = 5.0 * unit.keV
    path = tmp_path / "theirs.nx"
    theirs.save(str(path), data_path="entry0000")
    scan = read_nxtomo(path)
    np.testing.assert_array_equal(scan.projections[:], frames()[5:])
    np.testing.assert_allclose(scan.angles, np.arange(COUNT) * np.pi / COUNT)
    assert scan.energy_kev == pytest.approx(5.0)
    assert scan.pixel_size == pytest.approx(5e-7)


def test_read_scan__real_scan(shared_data: Path) -> None:
    path = shared_data / "scans" / "diamond_24737.nxs"
    scan = read_scan(path, energy_kev=20.0, pixel_size_um=5.0)
    assert scan.projections.shape == (91, 135, 160)
    # Nominal angles; the motor's own differ in the fourth decimal.
    np.testing.assert_allclose(np.degrees(scan.angles[[0, -1]]), [-88.2, 91.8], atol=1e-3)
    assert len(scan.flats) == len(scan.darks) == 1
    with pytest.raises(ScanError, match=r"photon energy.*pixel size"):
        read_scan(path)


def test_read_scan__real_broken_scan_names_its_dangling_links(shared_data: Path) -> None:
    with pytest.raises(ScanError) as caught:
        read_scan(
            shared_data / "scans" / "diad_k11_18014" / "k11-18014.nxs", energy_kev=20.0, pixel_size_um=5.0
        )
    for name in (
        "/entry/EtherCAT/data -> k11-18014/k11-18014-EtherCAT.h5:/entry/detector/detector",
        "/entry/imaging/gts_theta_value_set",
        "/entry/LinkamTemp/data -> k11-18014/k11-18014-detectorPanda.h5",
        "/entry/instrument/gts_theta/value_set",
    ):
        assert name in str(caught.value)
    assert "/entry/imaging/data" not in str(caught.value)  # that link holds
