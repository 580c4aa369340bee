"""Scans written here: back without loss, the same bytes each time, and open to other people's readers."""

import warnings
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from tomoforge.beamline import read_scan, write_scan, writers
from tomoforge.errors import InputError
from tomoforge.scan import Scan

FORMATS = ("nxtomo", "data-exchange")


def scan(**change: object) -> Scan:
    """A scan whose numbers are as awkward as they come."""
    rng = np.random.default_rng(11)
    frames = {"projections": 37, "flats": 3, "darks": 2}
    stacks = {
        role: rng.integers(0, 65536, (count, 21, 13)).astype(np.uint16) for role, count in frames.items()
    }
    # Many of these are not the radians of any float64 in degrees.
    angles = rng.uniform(-np.pi, np.pi, 37)
    return replace(Scan(**stacks, angles=angles, energy_kev=4.7, pixel_size=0.33e-6, name="t4"), **change)


def assert_same(a: Scan, b: Scan) -> None:
    for role in ("projections", "flats", "darks", "angles"):
        np.testing.assert_array_equal(getattr(a, role)[:], getattr(b, role)[:])
    for role in ("energy_kev", "pixel_size", "propagation_distance"):
        assert getattr(a, role) == getattr(b, role)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("distance", [None, 0.0123])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_write_scan__comes_back_exactly(
    tmp_path: Path, format: str, distance: float | None, dtype: str
) -> None:
    before = scan(propagation_distance=distance)
    before = replace(before, **{
        role: getattr(before, role).astype(dtype) for role in ("projections", "flats", "darks")
    })  # fmt: skip
    write_scan(tmp_path / "t4.h5", before, format)
    after = read_scan(tmp_path / "t4.h5")
    assert_same(before, after)
    assert after.projections.dtype == after.flats.dtype == after.darks.dtype == dtype
    assert after.name == "t4"


def test_write_scan__degrees_alone_would_lose_angles() -> None:
    # The reason for the second list of angles: without it the round trip is not exact.
    angles = scan().angles
    assert np.any(np.degrees(angles) * (np.pi / 180) != angles)


@pytest.mark.parametrize(
    ("format", "name"), [("nxtomo", "entry/sample/rotation_angle"), ("data-exchange", "exchange/theta")]
)
def test_write_scan__angles_corrected_by_hand_are_believed(
    tmp_path: Path, format: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_scan(tmp_path / "a.h5", scan(), format)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file[name][...] += 1.0
    np.testing.assert_allclose(read_scan(tmp_path / "a.h5").angles, scan().angles + np.radians(1.0))
    assert "contradicts the angles in degrees" in caplog.text


@pytest.mark.parametrize("format", FORMATS)
def test_write_scan__without_references(tmp_path: Path, format: str) -> None:
    none = np.empty((0, 21, 13), np.float32)
    write_scan(tmp_path / "a.h5", scan(flats=none, darks=none), format)
    after = read_scan(tmp_path / "a.h5", allow_missing=("flats", "darks"))
    assert_same(scan(flats=none, darks=none), after)
    assert after.projections.dtype == np.uint16  # absent flats widen nothing


@pytest.mark.parametrize("format", FORMATS)
def test_write_scan__averaged_references_keep_their_fractions(tmp_path: Path, format: str) -> None:
    before = scan(flats=scan().flats.mean(axis=0, keepdims=True, dtype=np.float32))
    write_scan(tmp_path / "a.h5", before, format)
    assert_same(before, read_scan(tmp_path / "a.h5"))


def test_write_scan__refuses_what_one_dataset_cannot_hold(tmp_path: Path) -> None:
    mixed = scan(projections=np.full((37, 21, 13), 2**60 + 1), flats=scan().flats.astype(np.float32))
    with pytest.raises(InputError, match=r'holds them all exactly, got .*int64.*format="data-exchange"'):
        write_scan(tmp_path / "a.nxs", mixed)
    assert not list(tmp_path.iterdir())
    write_scan(tmp_path / "a.h5", mixed, "data-exchange")
    assert_same(mixed, read_scan(tmp_path / "a.h5"))
    with pytest.raises(InputError, match="format must be one of nxtomo, data-exchange, got 'tiff'"):
        write_scan(tmp_path / "a.nxs", mixed, "tiff")


@pytest.mark.parametrize("format", FORMATS)
def test_write_scan__same_scan_same_bytes(tmp_path: Path, format: str) -> None:
    for name in ("a.h5", "b.h5"):
        write_scan(tmp_path / name, scan(), format)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


class Watched:
    """Frames that remember how many were read at once."""

    def __init__(self, stack: np.ndarray) -> None:
        self.stack, self.shape, self.dtype, self.reads = stack, stack.shape, stack.dtype, []  # type: ignore[var-annotated]

    def __getitem__(self, key: slice) -> np.ndarray:
        self.reads.append(key.stop - key.start)
        return self.stack[key]


@pytest.mark.parametrize("format", FORMATS)
def test_write_scan__streams_in_batches_and_says_how_far(
    tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "_BATCH_BYTES", 10 * 21 * 13 * 2)
    monkeypatch.setattr(writers, "_CHUNK_BYTES", 5 * 21 * 13 * 2)
    watched, told = Watched(scan().projections[:]), []
    write_scan(
        tmp_path / "a.h5",
        scan(projections=watched),
        format,
        progress=lambda done, total: told.append((done, total)),
    )
    assert sum(watched.reads) == 37
    assert max(watched.reads) <= 12
    total = 42 if format == "nxtomo" else 37
    assert told[-1] == (total, total) and len(told) > 3
    assert_same(scan(), read_scan(tmp_path / "a.h5"))


def test_write_scan__whole_or_not_at_all(tmp_path: Path) -> None:
    class Broken(Watched):
        def __getitem__(self, key: slice) -> np.ndarray:
            raise OSError("the disk went away")

    write_scan(tmp_path / "a.nxs", scan())
    kept = (tmp_path / "a.nxs").read_bytes()
    with pytest.raises(OSError, match="went away"):
        write_scan(tmp_path / "a.nxs", scan(projections=Broken(scan().projections[:])))
    assert [path.name for path in tmp_path.iterdir()] == ["a.nxs"]
    assert (tmp_path / "a.nxs").read_bytes() == kept


def test_write_scan__a_slab_of_rows_reads_few_chunks(tmp_path: Path) -> None:
    tall = np.zeros((64, 256, 128), np.uint16)
    write_scan(tmp_path / "a.nxs", Scan(tall, tall[:1], tall[:1], np.zeros(64), 5.0, 1e-6))
    with h5py.File(tmp_path / "a.nxs") as file:
        frames, rows, columns = file["entry/instrument/detector/data"].chunks
    assert rows <= 16 and columns == 128
    assert frames * rows * columns * 2 <= 1 << 20


def test_write_scan__opens_in_nxtomos_own_reader(tmp_path: Path) -> None:
    before = scan(propagation_distance=0.05)
    write_scan(tmp_path / "a.nxs", before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its own dependencies, as it is imported
        nxtomo = pytest.importorskip("nxtomo.application.nxtomo")
        record = nxtomo.NXtomo().load(str(tmp_path / "a.nxs"), "entry", detector_data_as="as_numpy_array")
    detector = record.instrument.detector
    np.testing.assert_array_equal(
        detector.data, np.concatenate([before.darks, before.flats, before.projections])
    )
    assert [int(key.value) for key in detector.image_key_control] == [2] * 2 + [1] * 3 + [0] * 37
    np.testing.assert_allclose(
        record.sample.rotation_angle.to("degree").magnitude[5:], np.degrees(before.angles), rtol=1e-15
    )
    assert detector.x_pixel_size.to("m").magnitude == before.pixel_size
    assert detector.distance.to("m").magnitude == 0.05
    assert record.instrument.beam.incident_energy.to("keV").magnitude == before.energy_kev
    assert record.title == "t4"


def test_write_scan__follows_the_application_definition(tmp_path: Path) -> None:
    # What NXtomo 1.x requires, and where httomo, Savu and tomopy look for it.
    write_scan(tmp_path / "a.nxs", scan())
    with h5py.File(tmp_path / "a.nxs") as file:
        entry = file["entry"]
        assert entry["definition"].asstr()[()] == "NXtomo"
        for path, nexus_class in (
            ("", "NXentry"),
            ("instrument", "NXinstrument"),
            ("instrument/source", "NXsource"),
            ("instrument/detector", "NXdetector"),
            ("sample", "NXsample"),
            ("data", "NXdata"),
        ):
            group = entry[path] if path else entry
            assert group.attrs["NX_class"] == nexus_class
        assert entry["data/data"].shape == (42, 21, 13)
        assert entry["data/rotation_angle"].shape == entry["data/image_key"].shape == (42,)
        assert entry["sample/rotation_angle"].attrs["units"] == "degree"
        assert entry["sample/name"].asstr()[()] == "t4"
        assert entry["instrument/source/probe"].asstr()[()] == "x-ray"


def test_write_scan__data_exchange_is_as_the_schema_says(tmp_path: Path) -> None:
    write_scan(tmp_path / "a.h5", scan(), "data-exchange")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["implements"].asstr()[()] == "exchange:measurement"
        assert [file[f"exchange/{name}"].shape[0] for name in ("data", "data_white", "data_dark")] == [
            37,
            3,
            2,
        ]
        assert file["exchange/theta"].attrs["units"] == "deg"
        assert file["exchange/data"].attrs["axes"] == "theta:y:x"
        np.testing.assert_allclose(file["exchange/theta"][()], np.degrees(scan().angles), rtol=1e-15)


@pytest.mark.parametrize("format", FORMATS)
def test_write_scan__a_real_scan_comes_back(tmp_path: Path, format: str, shared_data: Path) -> None:
    real = read_scan(shared_data / "scans" / "diamond_24737.nxs", energy_kev=20.0, pixel_size_um=5.0)
    write_scan(tmp_path / "a.h5", real, format)
    assert_same(real, read_scan(tmp_path / "a.h5"))
