"""The Scan record refuses contradictions; frames stay on disk until read; the NXtomo master can be moved."""

import pickle
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomoforge.beamline import read_nxtomo
from tomoforge.errors import InputError, ScanError
from tomoforge.scan import (
    FRAMES,
    FrameStack,
    Scan,
    batch_name,
    batch_slices,
    write_frame_batch,
    write_nxtomo,
)

COUNT, ROWS, COLUMNS = 10, 20, 6


def frames(count: int = COUNT, start: int = 0) -> np.ndarray:
    size = count * ROWS * COLUMNS
    return (start + np.arange(size, dtype=np.uint16)).reshape(count, ROWS, COLUMNS)


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("frames") / "f.h5"
    write_frame_batch(path, frames())
    return path


def scan(**change) -> Scan:
    parts = {
        "projections": frames(),
        "flats": frames(2),
        "darks": frames(1),
        "angles": np.linspace(0, 3, COUNT),
        "energy_kev": 5.0,
        "pixel_size": 1e-6,
    }
    return Scan(**{**parts, **change})


# --- Scan -----------------------------------------------------------------------------------------------


def test_scan__rows_of_every_projection() -> None:
    np.testing.assert_array_equal(scan().rows(3, 7), frames()[:, 3:7])


def test_scan__references_may_be_missing() -> None:
    empty = np.empty((0, ROWS, COLUMNS))
    assert scan(flats=empty, darks=empty).flats.shape[0] == 0


def test_scan__angles_become_float64() -> None:
    assert scan(angles=list(range(COUNT))).angles.dtype == np.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"projections": frames()[0]}, r"projections must be a non-empty \(angle, y, x\) stack, got shape"),
        ({"projections": frames()[:0]}, "projections must be a non-empty"),
        (
            {"flats": frames(2)[:, ::2]},
            r"flats must be \(n, y, x\) matching projections \(20, 6\), got \(2, 10, 6\); was binning",
        ),
        ({"darks": frames()[0]}, r"darks must be .* got \(20, 6\)"),
        ({"angles": np.zeros(COUNT - 1)}, "each of the 10 projections, got 9; .*frames lost"),
        ({"angles": np.zeros(COUNT + 3)}, "got 13; were the angles of flats and darks left in"),
        ({"angles": np.zeros((COUNT, 1))}, "angles must give one angle for each"),
        ({"angles": np.array([0.0] * 8 + [np.nan, np.inf])}, "angles must be finite, 2 of 10 are not"),
        ({"energy_kev": -5.0}, r"energy_kev must be a positive number of keV, got -5.0"),
        ({"energy_kev": np.nan}, "energy_kev must be"),
        ({"pixel_size": 0.0}, "pixel_size must be a positive number of metres, got 0.0"),
        ({"pixel_size": np.inf}, "pixel_size must be"),
    ],
)
def test_scan__refuses_contradictions(change: dict, message: str) -> None:
    with pytest.raises(ScanError, match=message):
        scan(**change)


# --- FrameStack -------------------------------------------------------------------------------------------


@given(
    chosen=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=2 * COUNT),
    key=st.one_of(
        st.integers(-1, 0),
        st.slices(COUNT),
        st.lists(st.integers(-1, 0), max_size=4),
        st.tuples(st.slices(COUNT), st.slices(ROWS).filter(lambda s: (s.step or 1) > 0)),
        st.tuples(
            st.just(slice(None)),
            st.integers(0, ROWS - 1),
            st.slices(COLUMNS).filter(lambda s: (s.step or 1) > 0),
        ),
    ),
)
def test_frame_stack__reads_like_the_array(stored: Path, chosen: list[int], key) -> None:
    stack = FrameStack.open(stored, FRAMES, np.array(chosen))
    expected = frames()[chosen]
    assert stack.shape == expected.shape and stack.dtype == expected.dtype
    if isinstance(key, list):
        key = np.array(key, dtype=int)
    found = stack[key]
    np.testing.assert_array_equal(found, expected[key])
    assert found.dtype == expected.dtype


def test_frame_stack__all_frames_and_masks(stored: Path) -> None:
    stack = FrameStack.open(stored, FRAMES)
    np.testing.assert_array_equal(stack[...], frames())
    mask = np.arange(COUNT) % 3 == 0
    np.testing.assert_array_equal(stack[mask, 2:4], frames()[mask, 2:4])
    with pytest.raises(IndexError):
        stack[COUNT]


def test_frame_stack__ellipsis_is_not_taken_for_the_frames(stored: Path) -> None:
    with pytest.raises(InputError, match="ellipsis"):
        FrameStack.open(stored, FRAMES)[..., 0]


def test_frame_stack__runs_are_read_in_one_call(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = FrameStack.open(stored, FRAMES, np.array([0, 1, 2, 5, 6, 9, 3, 4]))
    calls = []
    read = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda self, key: calls.append(key) or read(self, key))
    stack[:]
    assert [(key[0].start, key[0].stop) for key in calls] == [(0, 3), (5, 7), (9, 10), (3, 5)]


def test_frame_stack__is_lazy_and_travels_small(stored: Path, tmp_path: Path) -> None:
    moved = tmp_path / "f.h5"
    moved.write_bytes(stored.read_bytes())
    stack = FrameStack.open(moved, FRAMES)
    text = pickle.dumps(stack)
    assert len(text) < 2000 < frames().nbytes
    np.testing.assert_array_equal(pickle.loads(text)[2:4], frames()[2:4])
    moved.unlink()
    with pytest.raises(FileNotFoundError):
        stack[0]


# --- batches and NXtomo -----------------------------------------------------------------------------------


@given(count=st.integers(0, 200), size=st.integers(1, 50))
def test_batch_slices__cover_everything_once(count: int, size: int) -> None:
    batches = batch_slices(count, size)
    assert [n for b in batches for n in range(b.start, b.stop)] == list(range(count))
    assert all(0 < b.stop - b.start <= size for b in batches)
    names = [batch_name(b) for b in batches]
    assert names == sorted(set(names))  # by name as by angle


@pytest.mark.parametrize(("count", "size"), [(-1, 5), (5, 0)])
def test_batch_slices__refuses(count: int, size: int) -> None:
    with pytest.raises(InputError, match="count must be at least 0 and size at least 1"):
        batch_slices(count, size)


def test_write_frame_batch__complete_or_not_at_all(tmp_path: Path) -> None:
    write_frame_batch(tmp_path / "f.h5", frames())
    with pytest.raises(ValueError, match="not enough values"):
        write_frame_batch(tmp_path / "f.h5", frames()[0])
    assert list(tmp_path.iterdir()) == [tmp_path / "f.h5"]
    np.testing.assert_array_equal(FrameStack.open(tmp_path / "f.h5", FRAMES)[:], frames())


def write_scan(folder: Path, **change) -> Path:
    """A scan of three batches, the last smaller, in ``folder``."""
    batches = batch_slices(COUNT, 4)
    for batch in batches:
        write_frame_batch(folder / batch_name(batch), frames()[batch])
    parts = {
        "darks": frames(1, 100),
        "flats": frames(2, 200),
        "batches": [batch_name(b) for b in batches],
        "angles": np.linspace(0, np.pi, COUNT, endpoint=False),
        "energy_kev": 3.5,
        "pixel_size": 0.65e-6,
        "propagation_distance": 5e-3,
        "title": "a forged scan",
    }
    write_nxtomo(folder / "scan.nxs", **{**parts, **change})
    return folder / "scan.nxs"


def test_write_nxtomo__comes_back_through_the_reader(tmp_path: Path) -> None:
    back = read_nxtomo(write_scan(tmp_path))
    np.testing.assert_array_equal(back.projections[:], frames())
    np.testing.assert_array_equal(back.rows(5, 9), frames()[:, 5:9])
    np.testing.assert_array_equal(back.flats, frames(2, 200))
    np.testing.assert_array_equal(back.darks, frames(1, 100))
    # Degrees in the file and back: two roundings.
    np.testing.assert_allclose(back.angles, np.arange(COUNT) * np.pi / COUNT, rtol=1e-15)
    assert (back.energy_kev, back.pixel_size, back.propagation_distance) == (3.5, 0.65e-6, 5e-3)
    assert back.projections.dtype == np.uint16


def test_write_nxtomo__its_folder_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    write_scan(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    # Files of the same names in the current folder must not be taken for the scan's own.
    decoy = tmp_path / "decoy"
    for batch in batch_slices(COUNT, 4):
        write_frame_batch(decoy / batch_name(batch), np.zeros_like(frames()[batch]))
    monkeypatch.chdir(decoy)
    np.testing.assert_array_equal(read_nxtomo(tmp_path / "there" / "scan.nxs").projections[:], frames())
    with h5py.File(tmp_path / "there" / "scan.nxs") as file:
        sources = file["entry/instrument/detector/data"].virtual_sources()
    assert [source.file_name for source in sources] == [
        "references.h5",
        *(batch_name(b) for b in batch_slices(COUNT, 4)),
    ]


def test_write_nxtomo__is_read_by_the_nxtomo_library(tmp_path: Path) -> None:
    path = write_scan(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its own dependencies, as it is imported
        nxtomo = pytest.importorskip("nxtomo.application.nxtomo")
        record = nxtomo.NXtomo().load(str(path), "entry", detector_data_as="as_numpy_array")
    detector = record.instrument.detector
    np.testing.assert_array_equal(detector.data, np.concatenate([frames(1, 100), frames(2, 200), frames()]))
    assert [int(getattr(k, "value", k)) for k in detector.image_key_control] == [2, 1, 1] + [0] * COUNT
    energy = record.instrument.beam.incident_energy
    assert float(getattr(energy, "magnitude", energy)) == 3.5
    assert record.sample.rotation_angle.magnitude[3:] == pytest.approx(np.arange(COUNT) * 180 / COUNT)
    assert detector.x_pixel_size.to("m").magnitude == pytest.approx(0.65e-6)
    assert record.title == "a forged scan"


def test_write_nxtomo__one_angle_for_each_projection(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="angles has 9 entries, the batches hold 10 projections"):
        write_scan(tmp_path, angles=np.zeros(9))
    assert not (tmp_path / "scan.nxs").exists()


def test_write_nxtomo__same_scan_same_bytes(tmp_path: Path) -> None:
    first, second = (write_scan(tmp_path / name) for name in ("a", "b"))
    for one in [*sorted(first.parent.rglob("*.h5")), first]:
        other = second.parent / one.relative_to(first.parent)
        assert one.read_bytes() == other.read_bytes(), one.name
