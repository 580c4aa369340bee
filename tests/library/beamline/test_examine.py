"""One bad scan for each rule: refused by that rule, with a remedy, and never with an exception."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.library.beamline.inbox_files import ANGLES, COLUMNS, ROWS, tiny_scan
from tomoforge.beamline import findings, read_scan
from tomoforge.beamline.examine import examine_scan
from tomoforge.errors import InputError
from tomoforge.storage import to_json

DATA = "instrument/detector/data"
KEYS = "instrument/detector/image_key"
ANGLE = "sample/rotation_angle"


def counts(folder: Path) -> np.ndarray:
    """(frame, y, x) the counts of a good scan: 3 darks, 3 flats, projections."""
    with h5py.File(tiny_scan(folder / "good.h5", 1)) as file:
        return file["entry"][DATA][()]


def changed(change: Callable[[np.ndarray], Any]) -> Callable[[Path], dict[str, Any]]:
    """The contents of a scan whose counts ``change`` has edited or returned anew."""

    def contents(folder: Path) -> dict[str, Any]:
        values = counts(folder)
        new = change(values)
        return {DATA: values if new is None else new}

    return contents


def set_to(where: slice, value: float, dtype: str = "uint16") -> Callable[[Path], dict[str, Any]]:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.astype(dtype)
        values[where] = value
        return values

    return changed(change)


def angles(values: np.ndarray) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {ANGLE: np.concatenate([np.zeros(6), values])}


def without_flats(folder: Path) -> dict[str, Any]:
    return {KEYS: np.array([2] * 3 + [3] * 3 + [0] * ANGLES)}


EVEN = np.linspace(0.0, 180.0, ANGLES)
PROJECTIONS, FLATS, DARKS = slice(6, None), slice(3, 6), slice(0, 3)


@pytest.mark.parametrize(
    ("rule", "contents"),
    [
        ("frames against angles", lambda folder: {ANGLE: np.zeros(6 + ANGLES - 1)}),
        ("frames against angles", lambda folder: {ANGLE: np.full(6 + ANGLES, np.nan)}),
        ("frames against image keys", lambda folder: {KEYS: np.zeros(7, int)}),
        ("angular span", angles(EVEN / 60)),
        ("angular span", angles(EVEN * 180 / np.pi)),
        ("duplicate angles", angles(np.r_[np.zeros(ANGLES - 4), 45, 90, 135, 180])),
        ("flats and darks present", without_flats),
        ("flats above darks", changed(lambda v: v[[3, 4, 5, 0, 1, 2, *range(6, 6 + ANGLES)]])),
        ("darks as bright as flats", changed(lambda v: np.where(np.arange(len(v))[:, None, None] < 3, v[3:4] - 40, v))),
        ("flats", set_to(FLATS, np.inf, "float32")),
        ("darks", set_to(DARKS, np.nan, "float32")),
        ("saturated flats", set_to((FLATS, slice(2, 12)), 65535)),
        ("saturated projections", set_to((PROJECTIONS, slice(2, 4)), 65535)),
        ("finite counts", set_to((slice(8, 9), slice(0, 3)), np.nan, "float32")),
        ("empty frames", set_to(slice(9, 10), 0)),
        ("lost beam", changed(lambda v: v.__setitem__(slice(9, 11), v[0:2]))),
        ("repeated frames", changed(lambda v: v.__setitem__(slice(8, None), v[8]))),
        ("signed counts", changed(lambda v: (v.astype(int) * 5).astype(np.uint16).view(np.int16))),
        ("energy and pixel size given", lambda folder: {"beam/incident_energy": None}),
        ("energy and pixel size given", lambda folder: {"instrument/detector/x_pixel_size": None,
                                                       "instrument/detector/y_pixel_size": None}),
        ("square pixels", lambda folder: {"instrument/detector/y_pixel_size": 3.0}),
        ("shapes", lambda folder: {DATA: np.zeros((6 + ANGLES, ROWS), np.uint16)}),
        ("real counts", lambda folder: {DATA: np.zeros((6 + ANGLES, ROWS, COLUMNS), complex)}),
        ("a scan", lambda folder: {"definition": "NXxas"}),
        ("a scan", lambda folder: {KEYS: np.array([2] * 3 + [1] * (3 + ANGLES))}),
        ("missing files", lambda folder: {DATA: h5py.ExternalLink("gone.h5", "/data")}),
    ],
)  # fmt: skip
def test_examine_scan__refuses_by_rule(
    tmp_path: Path, rule: str, contents: Callable[[Path], dict[str, Any]]
) -> None:
    path = tiny_scan(tmp_path / "scan.nxs", 1, **contents(tmp_path))
    _, report = examine_scan(path)
    assert report.verdict == "refused" and not report.passed
    assert rule in {finding.rule for finding in report.refusals}, report.refusals
    for finding in (*report.refusals, *report.warnings):
        assert finding.reason and finding.remedy


def test_examine_scan__a_good_one_passes(tmp_path: Path) -> None:
    scan, report = examine_scan(tiny_scan(tmp_path / "a.nxs", 1))
    assert scan is not None and report.verdict == "passed" and report.passed
    assert to_json(report.record())
    assert report.record() == {"verdict": "passed", "warnings": [], "refusals": []}


def test_examine_scan__what_is_waived_by_name_is_warned_of(tmp_path: Path) -> None:
    path = tiny_scan(tmp_path / "a.nxs", 1, **without_flats(tmp_path))
    scan, report = examine_scan(path, allow_missing=("flats",))
    assert scan is not None and report.verdict == "warned"
    assert {finding.rule for finding in report.warnings} == {"flats"}


def test_examine_scan__given_values_are_used(tmp_path: Path) -> None:
    path = tiny_scan(tmp_path / "a.nxs", 1, **{"beam/incident_energy": None})
    scan, report = examine_scan(path, energy_kev=7.0)
    assert report.passed and scan is not None and scan.energy_kev == 7.0


@pytest.mark.parametrize(
    "order",
    [
        EVEN[::-1],
        np.mod(np.arange(ANGLES) * 180 * (np.sqrt(5) - 1) / 2, 180),
        np.round(np.mod(np.arange(ANGLES) * 180 * (np.sqrt(5) - 1) / 2, 180), 1),
        np.arange(ANGLES) * 180 * (np.sqrt(5) - 1) / 2,  # wound up, as a stage that never turns back has it
        np.mod(np.arange(ANGLES) * 360 * (3 - np.sqrt(5)) / 2, 360),
        np.linspace(0, 360, ANGLES),
        np.linspace(-90, 90, ANGLES),
    ],
)
def test_examine_scan__any_usual_order_is_fine(tmp_path: Path, order: np.ndarray) -> None:
    path = tiny_scan(tmp_path / "a.nxs", 1, **angles(order)(tmp_path))
    assert examine_scan(path)[1].verdict == "passed"


def test_examine_scan__ninety_degrees_are_warned_of(tmp_path: Path) -> None:
    path = tiny_scan(tmp_path / "a.nxs", 1, **angles(EVEN / 2)(tmp_path))
    report = examine_scan(path)[1]
    assert report.verdict == "warned" and {f.rule for f in report.warnings} == {"angular span"}


def test_examine_scan__dead_and_hot_pixels_are_warned_of(tmp_path: Path) -> None:
    values = counts(tmp_path)
    values[FLATS, 3, 4] = values[DARKS, 3, 4]  # dead
    values[:, 5, 6] += 7000  # hot: as bright without beam
    report = examine_scan(tiny_scan(tmp_path / "a.nxs", 1, **{DATA: values}))[1]
    reasons = {finding.rule: finding.reason for finding in report.warnings}
    assert report.verdict == "warned" and set(reasons) == {"bad pixels", "hot pixels"}
    assert "(3, 4)" in reasons["bad pixels"] and "(5, 6)" in reasons["hot pixels"]


def test_examine_scan__a_dark_that_saw_light_is_warned_of(tmp_path: Path) -> None:
    values = counts(tmp_path)
    values[1] = values[4]
    report = examine_scan(tiny_scan(tmp_path / "a.nxs", 1, **{DATA: values}))[1]
    assert "darks" in {finding.rule for finding in report.warnings}


def test_examine_scan__repeated_frames_are_warned_of_while_they_are_few(tmp_path: Path) -> None:
    values = counts(tmp_path)
    values[10] = values[9]
    report = examine_scan(tiny_scan(tmp_path / "a.nxs", 1, **{DATA: values}))[1]
    assert {finding.rule for finding in report.warnings} == {"repeated frames"}


@pytest.mark.parametrize("chunked", [True, False])
def test_examine_scan__frames_never_written(tmp_path: Path, chunked: bool) -> None:
    values = counts(tmp_path)
    path = tiny_scan(tmp_path / "a.nxs", 1, **{DATA: None})
    with h5py.File(path, "a") as file:
        chunks = (1, ROWS, COLUMNS) if chunked else None
        data = file["entry"].create_dataset(DATA, values.shape, values.dtype, chunks=chunks)
        if chunked:
            data[: len(values) - 4] = values[:-4]
    (finding,) = examine_scan(path)[1].refusals
    assert finding.rule == "frames never written"
    assert finding.reason.startswith("4 chunks" if chunked else "1 chunk")


def test_examine_scan__files_that_are_no_scan(tmp_path: Path) -> None:
    good = tiny_scan(tmp_path / "good.nxs", 1).read_bytes()
    for name, content in (
        ("empty", b""), ("zeros", b"\0" * 5000), ("text", b"hello"), ("half", good[: len(good) // 2])
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        scan, report = examine_scan(tmp_path / name)
        assert scan is None and report.verdict == "refused", name
    assert examine_scan(tmp_path / "nowhere")[1].verdict == "refused"


def test_examine_scan__noise_in_a_good_file_never_raises(tmp_path: Path) -> None:
    good = tiny_scan(tmp_path / "good.nxs", 1).read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(40):
        spoilt = bytearray(good)
        for place in rng.integers(0, len(good), 200):
            spoilt[place] = rng.integers(0, 256)
        (tmp_path / "spoilt.nxs").write_bytes(spoilt)
        scan, report = examine_scan(tmp_path / "spoilt.nxs")
        assert scan is not None or report.refusals


def test_examine_scan__a_wrong_argument_is_no_fault_of_the_scan(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="energy_kev"):
        examine_scan(tiny_scan(tmp_path / "a.nxs", 1), energy_kev=-1.0)


def test_examine_scan__reads_what_read_scan_reads(tmp_path: Path) -> None:
    path = tiny_scan(tmp_path / "a.nxs", 1)
    scan, _ = examine_scan(path, root=tmp_path)
    assert scan is not None
    assert np.array_equal(scan.projections[:], read_scan(path).projections[:])
    refused = findings.refusal("a rule", "a reason", "a remedy")
    assert str(refused) == "a rule: a reason; a remedy"
