"""Each rule finds what it is for and nothing in a good scan."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.library.beamline.nxtomo_files import write
from tomoforge.beamline import read_nxtomo, read_scan, validate_scan
from tomoforge.geometry import uniform_angles
from tomoforge.scan import Scan

COUNT = 60


def good_scan() -> Scan:
    """Half a turn of a small absorbing sample with air on both sides."""
    rng = np.random.default_rng(9)
    sample = np.zeros((20, 30))
    sample[:, 8:22] = 1.0
    counts = 100 + rng.poisson(10000 * np.exp(-sample), (COUNT, 20, 30))
    return Scan(
        counts.astype(np.uint16),
        (100 + rng.poisson(10000, (4, 20, 30))).astype(np.uint16),
        rng.integers(98, 103, (4, 20, 30)).astype(np.uint16),
        uniform_angles(COUNT),
        5.0,
        5e-7,
    )


def found(scan: Scan) -> tuple[set[str], set[str]]:
    report = validate_scan(scan)
    assert report.passed == (not report.refusals)
    for finding in (*report.warnings, *report.refusals):
        assert finding.reason
        assert finding.remedy
    return {f.rule for f in report.warnings}, {f.rule for f in report.refusals}


def test_validate_scan__finds_nothing_in_a_good_scan() -> None:
    scan = good_scan()
    assert found(scan) == (set(), set())
    assert found(replace(scan, angles=uniform_angles(COUNT, 2 * np.pi))) == (set(), set())
    assert found(replace(scan, angles=scan.angles[::-1])) == (set(), set())
    assert found(replace(scan, projections=scan.projections.astype(np.float32))) == (set(), set())


@pytest.mark.parametrize(
    ("angles", "rule", "refused"),
    [
        (uniform_angles(COUNT) * 180 / np.pi, "angular span", True),  # degrees taken for radians
        (uniform_angles(COUNT) * np.pi / 180, "angular span", True),  # converted twice
        (uniform_angles(COUNT, np.radians(150)), "angular span", False),
        (np.sort(np.r_[uniform_angles(COUNT - 2), uniform_angles(COUNT)[3:5] * COUNT / (COUNT - 2)]),
         "duplicate angles", False),
        (np.r_[np.zeros(COUNT - 20), np.linspace(0.1, 3.1, 20)], "duplicate angles", True),
        (np.roll(uniform_angles(COUNT), 7), "angle order", False),
        (np.delete(uniform_angles(COUNT + 12), np.s_[30:42]), "angle gap", False),
    ],
)  # fmt: skip
def test_validate_scan__angles(angles: np.ndarray, rule: str, refused: bool) -> None:
    warnings, refusals = found(replace(good_scan(), angles=angles))
    assert rule in (refusals if refused else warnings)


def test_validate_scan__references() -> None:
    scan = good_scan()
    none = scan.flats[:0]
    assert found(replace(scan, flats=none, darks=none)) == ({"flats", "darks"}, set())
    assert "flats above darks" in found(replace(scan, flats=scan.darks, darks=scan.flats))[1]
    dead = scan.flats.copy()
    dead[:, 0, 0] = 0
    assert found(replace(scan, flats=dead)) == ({"bad pixels"}, set())
    closed = scan.flats.copy()
    closed[2] = scan.darks[0]
    assert "flats" in found(replace(scan, flats=closed))[0]
    full = scan.flats.copy()
    full[:, :1, :10] = 65535
    assert "saturated flats" in found(replace(scan, flats=full))[0]
    full[:] = 65535
    full[:, 0, 0] = 20
    assert "saturated flats" in found(replace(scan, flats=full))[1]
    spoilt = scan.flats.astype(np.float32)
    spoilt[1, 2, 3] = np.nan
    assert found(replace(scan, flats=spoilt))[0] >= {"flats", "bad pixels"}


def test_validate_scan__unsigned_counts_read_as_signed() -> None:
    scan = good_scan()
    bright = (scan.flats.astype(np.int64) * 4).astype(np.uint16).view(np.int16)
    projections = (scan.projections.astype(np.int64) * 4).astype(np.uint16).view(np.int16)
    assert "signed counts" in found(replace(scan, flats=bright, projections=projections))[1]
    # Honest signed counts are fine.
    signed = replace(scan, flats=scan.flats.astype(np.int16), projections=scan.projections.astype(np.int16))
    assert found(signed) == (set(), set())


def test_validate_scan__projections() -> None:
    scan = good_scan()
    counts = scan.projections.copy()
    counts[0] = 0  # never written
    assert "empty frames" in found(replace(scan, projections=counts))[1]
    counts = scan.projections.copy()
    counts[-1] = scan.darks[0]
    assert "lost beam" in found(replace(scan, projections=counts))[1]
    counts = scan.projections.copy()
    counts[:, :2] = 65535
    assert "saturated projections" in found(replace(scan, projections=counts))[1]
    values = scan.projections.astype(np.float32)
    values[0, 3, 3] = np.nan
    assert found(replace(scan, projections=values)) == ({"finite counts"}, set())
    values[0, :5] = np.inf
    assert "finite counts" in found(replace(scan, projections=values))[1]
    dimmed = ((scan.projections - 100.0) * 0.7 + 100).astype(np.uint16)
    assert found(replace(scan, projections=dimmed)) == ({"air level"}, set())


def test_validate_scan__looks_at_every_frame_if_asked() -> None:
    counts = good_scan().projections.copy()
    counts[1] = 0
    scan = replace(good_scan(), projections=counts)
    assert validate_scan(scan, frames=4).passed
    assert not validate_scan(scan, frames=None).passed


def test_validate_scan__implausible_energy_and_pixel_size() -> None:
    warnings, _ = found(replace(good_scan(), energy_kev=5000.0, pixel_size=0.5))
    assert warnings == {"energy", "pixel size"}


def test_validate_scan__a_file_that_vanished_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nxs")
    scan = read_nxtomo(path)
    path.unlink()
    assert "readable frames" in found(scan)[1]


def test_validate_scan__real_scan(shared_data: Path) -> None:
    scan = read_scan(shared_data / "scans" / "diamond_24737.nxs", energy_kev=20.0, pixel_size_um=5.0)
    report = validate_scan(scan, frames=None)
    assert report.passed
    by_rule = {finding.rule: finding.reason for finding in report.warnings}
    assert "(0, 0)" in by_rule["bad pixels"]
    # Its single flat is brighter than the beam during the scan: air transmits 0.73.
    assert set(by_rule) == {"bad pixels", "air level"}
