"""Unmerged MTZ files: indices as measured, and written back corrected."""

import gemmi
import numpy as np
import pytest

from tomoforge.absorption.mtz import read_mtz, write_corrected_mtz
from tomoforge.errors import InputError

CELL = (40.0, 50.0, 60.0, 90.0, 90.0, 90.0)
TYPES = {
    "H": "H",
    "K": "H",
    "L": "H",
    "M/ISYM": "Y",
    "BATCH": "B",
    "I": "J",
    "SIGI": "Q",
    "IPR": "J",
    "SIGIPR": "Q",
}
ANGLES = np.array([10.0, 20.0, 30.0, 40.0])
HKL = np.array([[1, 2, 3], [-1, 2, -3], [1, -2, -3], [-1, -2, -3]])  # four equivalents in P 2 2 2


def _write(
    path,
    *,
    drop=(),
    isym_offset=0,
    rot=True,
    batches=False,
    intensities=None,
    cell=CELL,
    batch=(11, 12, 13, 14),
):
    mtz = gemmi.Mtz(with_base=False)
    mtz.title = "made by hand"
    mtz.spacegroup = gemmi.SpaceGroup("P 2 2 2")
    mtz.set_cell_for_all(gemmi.UnitCell(*cell))
    mtz.add_dataset("HKL_base")
    dataset = mtz.add_dataset("sweep")
    dataset.wavelength = 3.1
    dataset.id = 1
    asu = gemmi.ReciprocalAsu(mtz.spacegroup)
    reduced = [asu.to_asu(hkl, mtz.spacegroup.operations()) for hkl in HKL.tolist()]
    unique = np.array([hkl for hkl, _ in reduced])
    columns = {
        "H": unique[:, 0],
        "K": unique[:, 1],
        "L": unique[:, 2],
        "M/ISYM": [isym + isym_offset for _, isym in reduced],
        "BATCH": batch,
        "I": [5.0, 6, 7, 8] if intensities is None else intensities,
        "SIGI": [1.0, 1, 1, 2],
        "IPR": [50.0, 60, 70, 80],
        "SIGIPR": [10.0, 10, 10, 20],
        "LP": [0.1, 0.2, 0.3, 0.4],
    }
    if rot:
        columns["ROT"] = ANGLES
    for label in columns:
        if label not in drop:
            mtz.add_column(label, TYPES.get(label, "R"), dataset_id=0 if label in "HKL" else 1)
    mtz.set_data(np.column_stack([v for k, v in columns.items() if k not in drop]).astype(np.float32))
    if batches:
        for number, angle in zip((11, 12, 13, 14), ANGLES, strict=True):
            batch = gemmi.Mtz.Batch()
            batch.number, batch.dataset_id, batch.wavelength = number, 1, 3.1
            batch.floats[36], batch.floats[37] = angle - 0.5, angle + 0.5
            mtz.batches.append(batch)
    mtz.write_to_file(str(path))
    return path


def test_read_mtz__indices_are_those_measured(tmp_path):
    path = _write(tmp_path / "a.mtz")
    reduced = np.asarray(gemmi.read_mtz_file(str(path)).make_miller_array())
    np.testing.assert_array_equal(reduced, [[1, 2, 3]] * 4)  # what lies in the file
    found = read_mtz(path)
    np.testing.assert_array_equal(found.observations[["h", "k", "l"]], HKL)
    assert (found.cell, found.space_group, found.title) == (CELL, "P 2 2 2", "made by hand")
    assert found.wavelength == pytest.approx(3.1e-10, rel=1e-6, abs=0)  # float32 in the file
    np.testing.assert_allclose(found.observations["angle_rad"], np.radians(ANGLES), rtol=1e-6)
    np.testing.assert_allclose(
        found.observations["d_angstrom"], 1 / np.sqrt(1 / 1600 + 4 / 2500 + 9 / 3600), rtol=1e-6
    )
    assert list(found.observations["frame"]) == [11, 12, 13, 14]
    assert list(read_mtz(path, "IPR").observations["intensity"]) == [50, 60, 70, 80]


def test_read_mtz__angles_from_batch_headers_and_none(tmp_path):
    headers = read_mtz(_write(tmp_path / "a.mtz", rot=False, batches=True))
    np.testing.assert_allclose(headers.observations["angle_rad"], np.radians(ANGLES), rtol=1e-6)
    assert "angle_rad" not in read_mtz(_write(tmp_path / "b.mtz", rot=False)).observations


def test_read_mtz__rows_without_intensity_are_left_out(tmp_path):
    path = _write(tmp_path / "a.mtz", intensities=[5.0, np.nan, 7, 8])
    assert list(read_mtz(path).observations.index) == [0, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": ("BATCH",)}, r"lacks the columns .'BATCH'.*unmerged"),
        ({"drop": ("M/ISYM",)}, r"lacks the columns .'M/ISYM'"),
        ({"drop": ("SIGI",)}, r"no intensities 'I' with errors 'SIGI'; it has .'IPR'"),
        ({"isym_offset": 256}, "holds 4 partials"),
        ({"isym_offset": 8}, r"M/ISYM must be 1 … 8 in P 2 2 2"),
        ({"isym_offset": -1}, "M/ISYM must be 1"),
        ({"batch": [11, np.nan, 13, 14]}, "column BATCH must hold whole numbers"),
        ({"intensities": [np.nan] * 4}, "no row with I"),
        ({"cell": (1, 1, 1, 90, 90, 90)}, "no space group or no cell"),
    ],
)
def test_read_mtz__what_is_missing_is_named(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_mtz(_write(tmp_path / "a.mtz", **changes))


def test_read_mtz__broken_files(tmp_path):
    path = _write(tmp_path / "a.mtz")
    whole = path.read_bytes()
    for content in (b"", b"MTZ ", whole[:100], whole[: len(whole) // 2], b"no mtz at all" * 50):
        path.write_bytes(content)
        with pytest.raises(InputError):
            read_mtz(path)
    with pytest.raises(InputError, match="cannot be read as MTZ"):
        read_mtz(tmp_path / "none.mtz")


def test_write_corrected_mtz__scales_all_intensities_and_nothing_else(tmp_path):
    source = _write(tmp_path / "a.mtz", batches=True)
    factors = np.array([0.5, 0.25, 0.125, 1.0])  # exact in binary
    write_corrected_mtz(tmp_path / "b.mtz", source, [3, 1, 0, 2], factors)
    before, after = (gemmi.read_mtz_file(str(tmp_path / name)) for name in ("a.mtz", "b.mtz"))
    by_row = factors[[2, 1, 3, 0]]
    for column in before.columns:
        now = after.column_with_label(column.label)
        assert (now.type, now.dataset_id) == (column.type, column.dataset_id)
        scale = by_row if column.type in "JQ" else 1
        np.testing.assert_array_equal(np.asarray(now.array), np.asarray(column.array) / scale)
    assert after.title == "made by hand" and len(after.batches) == 4
    assert after.history[0].startswith("From tomoforge")
    np.testing.assert_array_equal(read_mtz(tmp_path / "b.mtz").observations[["h", "k", "l"]], HKL)


def test_write_corrected_mtz__rows_that_were_not_corrected_are_left_out(tmp_path):
    source = _write(tmp_path / "a.mtz")
    write_corrected_mtz(tmp_path / "b.mtz", source, [0, 2], np.array([0.5, 0.5]))
    assert list(read_mtz(tmp_path / "b.mtz").observations["intensity"]) == [10, 14]
    for rows, factors in (([0, 0], [0.5, 0.5]), ([4], [0.5]), ([0], [0.5, 0.5]), ([], []), ([0], [2.0])):
        with pytest.raises(InputError):
            write_corrected_mtz(tmp_path / "c.mtz", source, np.array(rows), np.array(factors))
    assert not (tmp_path / "c.mtz").exists()


def test_read_mtz__real_file_and_its_correction(shared_data, tmp_path):
    source = shared_data / "absorption" / "data_unmerged.mtz"
    found = read_mtz(source)
    table = found.observations
    assert len(table) == 1000 and found.space_group == "P 43 21 2" and found.wavelength is None
    # 1438 batches of half a degree: the batch is the angle.
    np.testing.assert_allclose(np.degrees(table["angle_rad"]), 0.5 * table["frame"], atol=0.75)
    group = gemmi.SpaceGroup(found.space_group)
    asu = gemmi.ReciprocalAsu(group)
    reduced = np.asarray(gemmi.read_mtz_file(str(source)).make_miller_array())
    for row in range(0, 1000, 50):
        hkl = table[["h", "k", "l"]].iloc[row].tolist()
        assert asu.to_asu(hkl, group.operations())[0] == reduced[row].tolist()
    a = np.linspace(0.2, 1.0, 1000)
    write_corrected_mtz(tmp_path / "c.mtz", source, table.index, a)
    again = read_mtz(tmp_path / "c.mtz").observations
    # Stored as float32.
    np.testing.assert_allclose(again["intensity"], table["intensity"] / a, rtol=1e-6)
