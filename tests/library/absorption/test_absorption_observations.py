"""The shared table: types, refusals, and files of it."""

import numpy as np
import pandas as pd
import pytest

from tomoforge.absorption.observations import (
    apply_absorption,
    checked_observations,
    read_observations,
    write_observations,
)
from tomoforge.errors import InputError


def _table(n: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "h": np.arange(1, n + 1),
            "k": np.zeros(n),
            "l": -np.ones(n),
            "intensity": rng.normal(100, 30, n),
            "sigma": rng.uniform(1, 2, n),
            "angle_rad": rng.uniform(0, 6, n),
            "frame": np.arange(n),
            "absorption_factor": rng.uniform(0.1, 1, n),
            "note": list("abcde")[:n],
        }
    )


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_write_observations__comes_back_to_the_last_bit(tmp_path, ending):
    table = checked_observations(_table())
    write_observations(tmp_path / f"t.{ending}", table)
    pd.testing.assert_frame_equal(read_observations(tmp_path / f"t.{ending}"), table, check_exact=True)


def test_checked_observations__types_and_other_columns():
    table = checked_observations(_table())
    assert table[["h", "k", "l"]].dtypes.eq(np.int32).all() and table["frame"].dtype == np.int64
    assert list(table["note"]) == list("abcde")


def test_read_observations__other_names(tmp_path):
    _table().rename(columns={"intensity": "I", "sigma": "sigI"}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match=r"t\.csv: observations lack the columns"):
        read_observations(tmp_path / "t.csv")
    assert "sigma" in read_observations(tmp_path / "t.csv", {"I": "intensity", "sigI": "sigma"})
    with pytest.raises(InputError, match=r"has no columns .'J'"):
        read_observations(tmp_path / "t.csv", {"J": "intensity"})


def test_apply_absorption__divides_intensity_and_sigma():
    table = _table()
    corrected = apply_absorption(table)
    np.testing.assert_array_equal(corrected["intensity"], table["intensity"] / table["absorption_factor"])
    np.testing.assert_array_equal(corrected["sigma"], table["sigma"] / table["absorption_factor"])
    np.testing.assert_array_equal(apply_absorption(table, np.full(5, 0.5))["sigma"], table["sigma"] / 0.5)
    with pytest.raises(InputError, match="one for each of 5"):
        apply_absorption(table, np.ones(4))
    with pytest.raises(InputError, match=r"lack the columns .'absorption_factor'"):
        apply_absorption(table.drop(columns="absorption_factor"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"intensity": [1, np.nan, 3, 4, 5]},
            "'intensity' must be finite, 1 of 5 rows are not, the first row 1",
        ),
        ({"sigma": [1, 1, 1, 0, 1]}, "sigma must be positive"),
        ({"h": [0.5, 1, 2, 3, 4]}, "'h' must hold whole numbers"),
        ({"h": [0, 1, 2, 3, 4], "l": 0}, "0 0 0 occurs"),
        ({"absorption_factor": 1.2}, "0 < A ≤ 1.*was 1/A given"),
        ({"angle_rad": list("abcde")}, "'angle_rad' must hold numbers"),
        ({"frame": [np.inf] * 5}, "'frame' must be finite"),
    ],
)
def test_checked_observations__what_is_wrong_is_named(change, message):
    with pytest.raises(InputError, match=message):
        checked_observations(_table().assign(**change))


def test_read_observations__files_that_are_no_tables(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"no parquet at all")
    (tmp_path / "a.csv").write_bytes(b"")
    for name in ("a.parquet", "a.csv", "missing.csv"):
        with pytest.raises(InputError, match="cannot be read as a table"):
            read_observations(tmp_path / name)
    with pytest.raises(InputError, match="must end in"):
        read_observations(tmp_path / "a.pickle")
    with pytest.raises(InputError, match="must end in"):
        write_observations(tmp_path / "a.xlsx", _table())
