"""Data Exchange files as tomoscan, dxfile and this library write them, and what is missing from them."""

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.library.beamline.nxtomo_files import COUNT, KEYS, frames
from tomoforge.beamline import read_data_exchange, read_scan
from tomoforge.errors import InputError, ScanError

ANGLES = np.arange(COUNT) * 180 / COUNT
CAMERA = "measurement/instrument/detector/pixel_size"
ACTUAL = "measurement/instrument/detector/actual_pixel_size"
RESOLUTION = "measurement/instrument/detection_system/objective/resolution"
MAGNIFICATION = "measurement/instrument/detection_system/objective/magnification"
ENERGY = "measurement/instrument/monochromator/energy"


def write(path: Path, change: dict[str, Any] | None = None) -> Path:
    """A Data Exchange file with the datasets of ``change`` replaced; None leaves one out, a pair has units."""
    contents: dict[str, Any] = {
        "implements": "exchange:measurement",
        "exchange/data": frames()[KEYS == 0],
        "exchange/data_white": frames()[KEYS == 1],
        "exchange/data_dark": frames()[KEYS == 2],
        "exchange/theta": (ANGLES, "deg"),
        ENERGY: (np.array([25.0]), "keV"),
        RESOLUTION: (np.array([0.69]), "um"),
    } | (change or {})
    with h5py.File(path, "w") as file:
        for name, value in contents.items():
            if value is None:
                continue
            if isinstance(value, h5py.ExternalLink):
                file[name] = value
                continue
            data, unit = value if isinstance(value, tuple) else (value, None)
            file[name] = data
            if unit is not None:
                file[name].attrs["units"] = unit
    return path


def test_read_data_exchange__everything_in_si_and_radians(tmp_path: Path) -> None:
    scan = pickle.loads(pickle.dumps(read_scan(write(tmp_path / "good.h5"))))
    np.testing.assert_array_equal(scan.projections[:], frames()[KEYS == 0])
    np.testing.assert_array_equal(scan.flats, frames()[KEYS == 1])
    np.testing.assert_array_equal(scan.darks, frames()[KEYS == 2])
    np.testing.assert_allclose(scan.angles, np.radians(ANGLES))
    assert (scan.energy_kev, scan.propagation_distance, scan.name) == (25.0, None, "good")
    assert scan.pixel_size == pytest.approx(0.69e-6)


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({ENERGY: (25000.0, "eV")}, "energy_kev", 25.0),
        ({"exchange/theta": ANGLES}, "angles", np.radians(ANGLES)),  # degrees where there is no unit
        ({"exchange/theta": (np.radians(ANGLES), "rad")}, "angles", np.radians(ANGLES)),
        ({RESOLUTION: None, f"{ACTUAL}_x": (1.2e-6, "m"), f"{ACTUAL}_y": (1.2e-6, "m")}, "pixel_size", 1.2e-6),
        ({f"{ACTUAL}_x": (1.2e-6, "m"), CAMERA: (3.45, "um")}, "pixel_size", 1.2e-6),
        # The camera's pixel is not the sample's: 3.45 µm behind an objective of five.
        ({RESOLUTION: None, CAMERA: (3.45, "microns"), MAGNIFICATION: 5.0}, "pixel_size", 0.69e-6),
        ({RESOLUTION: None, CAMERA: (3.45, "um"), MAGNIFICATION: "5x"}, "pixel_size", 0.69e-6),
        ({CAMERA: (3.45, "um"), MAGNIFICATION: 5.0}, "pixel_size", 0.69e-6),
        ({"measurement/instrument/detector_motor_stack/setup/camera_distance": (60.0, "mm")},
         "propagation_distance", 0.06),
        ({"implements": None}, "energy_kev", 25.0),
    ],
)  # fmt: skip
def test_read_data_exchange__honours_units_and_places(
    tmp_path: Path, change: dict[str, Any], field: str, expected: Any
) -> None:
    value = getattr(read_data_exchange(write(tmp_path / "a.h5", change)), field)
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_read_data_exchange__a_pixel_without_magnification_is_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scan = read_scan(write(tmp_path / "a.h5", {RESOLUTION: None, CAMERA: (1.5, "um")}))
    assert scan.pixel_size == pytest.approx(1.5e-6)
    assert "taken as the pixel at the sample, since no magnification is recorded" in caplog.text


def test_read_data_exchange__given_values_win(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.h5")
    scan = read_scan(path, energy_kev=30.0, pixel_size_um=2.0)
    assert (scan.energy_kev, scan.pixel_size) == (30.0, pytest.approx(2e-6))
    assert f"energy_kev is given as 30, but /{ENERGY} records 25" in caplog.text
    with pytest.raises(InputError, match="energy_kev must be a positive number, got -1"):
        read_scan(path, energy_kev=-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exchange/theta": None},
         r"no exchange/theta, and angles are not guessed; write one angle in degrees for each of the 12"),
        ({"exchange/theta": (ANGLES[:-2], "deg")}, "each of the 12 projections, got 10; frames or angles were lost"),
        ({"exchange/theta": (np.r_[ANGLES, 180.0], "deg")}, r"got 13; say by angle_rows=\(start, stop\)"),
        ({"exchange/theta": (ANGLES, "turns")}, "units 'turns', expected one of deg"),
        ({"exchange/data": None}, "no exchange/data; was the scan interrupted"),
        ({"exchange/data": h5py.ExternalLink("gone.h5", "/d")},
         r"no exchange/data; 1 links lead to nothing that may be read: /exchange/data -> gone\.h5:/d"),
        ({"exchange/data": h5py.ExternalLink("/gone.h5", "/d")},
         r"/exchange/data leads to /gone\.h5, which is outside root .*; copy that file beside the scan, or give"),
        ({"exchange/data": frames()[0]}, r"exchange/data must be \(frame, y, x\) counts, got \(5, 8\) uint16"),
        ({"exchange/data_white": frames()[:2, 1:]}, r"flats must be \(n, y, x\) matching .* was binning"),
        ({"exchange/data_white": None}, r"no flats: nothing at exchange/data_white; .*flats=….*\('flats',\)"),
        ({"exchange/data_dark": np.empty((0, 5, 8))}, r"no darks: nothing at exchange/data_dark"),
        ({ENERGY: 25.0}, "does not record, with a unit, the photon energy: give energy_kev="),
        ({RESOLUTION: None}, "the pixel size at the sample: give pixel_size_um="),
        ({RESOLUTION: None, CAMERA: (3.45, "um"), MAGNIFICATION: 5.0,
          "measurement/instrument/detector/binning_x": 2}, "the pixel size at the sample"),
        ({RESOLUTION: None, f"{CAMERA}_x": (3.0, "um"), f"{CAMERA}_y": (4.0, "um")}, "pixels must be square"),
    ],
)  # fmt: skip
def test_read_data_exchange__refuses_with_the_reason(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ScanError, match=message):
        read_scan(write(tmp_path / "a.h5", change))


def test_read_data_exchange__what_is_missing_can_be_given(tmp_path: Path) -> None:
    change = {"exchange/data_white": None, "exchange/data_dark": None,
              "exchange/theta": (np.r_[0.0, 0.0, ANGLES], "deg")}  # fmt: skip
    path = write(tmp_path / "a.h5", change)
    other = write(tmp_path / "other.h5")
    scan = read_scan(path, angle_rows=(2, 14), flats=other, allow_missing=("darks",))
    np.testing.assert_array_equal(scan.flats, frames()[KEYS == 1])
    assert scan.darks.shape == (0, 5, 8)
    np.testing.assert_allclose(scan.angles, np.radians(ANGLES))


def test_read_data_exchange__sinogram_order_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["exchange/data"].attrs["axes"] = "y:theta:x"
    with pytest.raises(ScanError, match=r"must have the axes theta:y:x, got y:theta:x; write it again"):
        read_scan(path)
