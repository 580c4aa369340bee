"""What the columns of a reflection table mean."""

import numpy as np
import pytest

from tests.library.absorption.diffraction_files import integrated_columns, refl_bytes
from tomoforge.absorption.dials import (
    observations,
    read_reflections,
    with_analytical_correction,
    write_reflections,
)
from tomoforge.absorption.refl_file import unpacked
from tomoforge.errors import InputError

FLAGS = "std::size_t"


def _table(n: int = 6, without: tuple[str, ...] = (), **columns):
    every = integrated_columns(n) | columns
    return unpacked(refl_bytes({k: v for k, v in every.items() if k not in without}, n))


def test_observations__factors_of_profile_and_summation():
    # As dials.export: profile intensities × lp/qe; summation ones also / partiality.
    profile, summation = observations(_table()), observations(_table(), "summation")
    # Products and quotients in another order: a rounding or two.
    np.testing.assert_allclose(profile["intensity"], np.linspace(10, 20, 6) * 0.5 / 0.8, rtol=1e-14)
    np.testing.assert_allclose(profile["sigma"], 2 * 0.5 / 0.8, rtol=1e-14)
    np.testing.assert_allclose(summation["intensity"], np.linspace(11, 21, 6) * 0.5 / 0.8 / 0.96, rtol=1e-14)
    np.testing.assert_allclose(summation["sigma"], 3 * 0.5 / 0.8 / 0.96, rtol=1e-14)
    assert list(profile["frame"]) == [11, 29, 47, 65, 83, 101]  # images count from 1
    np.testing.assert_allclose(profile["angle_rad"], np.linspace(0.1, 1.0, 6))
    assert profile[["h", "k", "l"]].dtypes.eq(np.int32).all()


def test_observations__scaled_ones_are_divided_by_the_inverse_scale():
    scale = np.linspace(0.5, 2, 6)
    columns = {
        "intensity.scale.value": ("double", np.full(6, 8.0)),
        "intensity.scale.variance": ("double", np.full(6, 4.0)),
        "inverse_scale_factor": ("double", scale),
        "flags": (FLAGS, np.array([0, 0, 1 << 23, 0, 1 << 24, 1 << 22], dtype="<u8")),
    }
    table = observations(_table(**columns), "scaled")
    assert list(table.index) == [0, 1, 3]  # outliers and excluded ones left out
    np.testing.assert_allclose(table["intensity"], 8 / scale[[0, 1, 3]], rtol=1e-14)
    np.testing.assert_allclose(table["sigma"], 2 / scale[[0, 1, 3]], rtol=1e-14)


def test_observations__rows_that_are_not_usable_are_left_out_and_the_index_says_which():
    hkl = np.arange(1, 19, dtype="<i4").reshape(6, 3)
    hkl[1] = 0  # never indexed
    columns = {
        "miller_index": ("cctbx::miller::index<>", hkl),
        "flags": (FLAGS, np.array([512, 512, 256, 512, 512, 512], dtype="<u8")),  # row 2: no profile
        "partiality": ("double", np.array([1, 1, 1, 0.4, 1, 1.0])),
        "intensity.prf.variance": ("double", np.array([4, 4, 4, 4, -1, 4.0])),
    }
    assert list(observations(_table(**columns)).index) == [0, 5]
    assert list(observations(_table(**columns), minimum_partiality=0.3).index) == [0, 3, 5]


def test_observations__without_prediction_the_observed_angle_serves():
    observed = ("vec3<double>", np.full((6, 3), 0.7))
    zero = ("vec3<double>", np.zeros((6, 3)))
    table = observations(_table(**{"xyzobs.mm.value": observed, "xyzcal.mm": zero}))
    assert (table["angle_rad"] == 0.7).all()
    assert "angle_rad" not in observations(_table(without=("xyzcal.mm",))).columns


@pytest.mark.parametrize(
    ("name", "kind"),
    [("intensity.prf.value", "double"), ("intensity.prf.variance", "double"), ("lp", "double")],
)
def test_observations__nan_in_a_good_row_is_refused(name, kind):
    values = np.ones(6)
    values[4] = np.nan
    with pytest.raises(InputError, match=r"must be finite, 1 of 6 rows are not, the first row 4"):
        observations(_table(**{name: (kind, values)}))


def test_observations__s1_that_was_never_predicted_is_refused():
    s1 = integrated_columns()["s1"][1].copy()
    for value in (0.0, np.nan):
        s1[3] = value
        with pytest.raises(
            InputError, match=r"s1 is zero or not a number in 1 of 6 usable reflections.* row 3"
        ):
            observations(_table(s1=("vec3<double>", s1)))


def test_observations__missing_columns_say_what_to_do():
    with pytest.raises(InputError, match=r"no column 'intensity.prf.value'.*are they integrated"):
        observations(_table(without=("intensity.prf.value",)))
    with pytest.raises(InputError, match="intensity must be one of profile, summation, scaled"):
        observations(_table(), "best")
    with pytest.raises(InputError, match="none of 6 reflections"):
        observations(_table(flags=(FLAGS, np.zeros(6, dtype="<u8"))))
    assert not {"s1_x", "s1_y", "s1_z"} & set(observations(_table(without=("s1",))).columns)


def test_with_analytical_correction__holds_a_and_one_elsewhere():
    # dials.scale multiplies the column into the inverse scale, by which it divides: A, neutral value 1.
    table = _table()
    factors = np.array([0.25, 0.5])
    new = with_analytical_correction(table, [4, 1], factors)
    assert new.column_type("analytical_correction") == "double"
    assert list(new.column("analytical_correction")) == [1, 0.5, 1, 1, 0.25, 1]
    assert list(observations(new)["absorption_factor"]) == [1, 0.5, 1, 1, 0.25, 1]


@pytest.mark.parametrize(
    ("rows", "factors", "message"),
    [
        ([0, 1], [0.5], "of one length"),
        ([0], [1.5], "0 < A ≤ 1.*was 1/A given"),
        ([0], [0.0], "0 < A ≤ 1"),
        ([0], [np.nan], "0 < A ≤ 1"),
        ([6], [0.5], "rows of the 6"),
        ([-1], [0.5], "rows of the 6"),
        ([2, 2], [0.5, 0.5], "different rows"),
        ([0.5], [0.5], "different rows"),
    ],
)
def test_with_analytical_correction__wrong_rows_and_factors_are_refused(rows, factors, message):
    with pytest.raises(InputError, match=message):
        with_analytical_correction(_table(), rows, np.array(factors))


def test_observations__real_file_and_its_correction(shared_data, tmp_path):
    table = read_reflections(shared_data / "absorption" / "test_refl.refl")
    found = observations(table)
    assert len(found) == 95  # five of 100 are recorded to less than 0.95
    # |s1| = 1/λ for all, to the last digits.
    lengths = np.linalg.norm(found[["s1_x", "s1_y", "s1_z"]], axis=1)
    np.testing.assert_allclose(1 / lengths, 1.03752, rtol=1e-6)
    factors = np.linspace(0.2, 0.9, len(found))
    write_reflections(tmp_path / "a.refl", with_analytical_correction(table, found.index, factors))
    again = observations(read_reflections(tmp_path / "a.refl"))
    np.testing.assert_array_equal(again["absorption_factor"], factors)
