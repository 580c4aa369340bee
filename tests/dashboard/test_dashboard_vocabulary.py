"""How stored names and numbers are said."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import vocabulary
from dashboard.vocabulary import flat, is_severe, label, literal, moment, number_text, value_text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("energy_kev", "Energy [keV]"),
        ("pixel_size_um", "Pixel size [µm]"),
        ("mu_true_per_m", "µ put in [m⁻¹]"),
        ("mu_crystal", "µ crystal [m⁻¹]"),
        ("mu_relative_error", "µ relative error"),
        ("difference_percent", "Difference [%]"),
        ("mean_relative_difference", "Mean relative difference [%]"),
        ("iou", "IoU"),
        ("h", "h"),
        ("centre_px", "Rotation centre [px]"),
        ("_m", "m"),
        ("", ""),
    ],
)
def test_label__suffix_becomes_the_unit(name: str, said: str) -> None:
    assert label(name) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0"),
        (10800, "10\u202f800"),
        (6890.23, "6\u202f890"),
        (0.5, "0.5"),
        (-0.00451, "-0.00451"),
        (1.2344e-9, "1.234 × 10⁻⁹"),
        (3e8, "3 × 10⁸"),
        (float("nan"), "–"),
        (float("inf"), "–"),
    ],
)
def test_number_text__four_significant_digits(number: float, said: str) -> None:
    assert number_text(number) == said


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_number_text__reads_back_within_its_digits(number: float) -> None:
    superscripts = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    text = number_text(number).replace("\u202f", "").translate(superscripts).replace(" × 10", "e")
    # Half a unit of the fourth digit is at most 5e-4 of the number.
    assert float(text) == pytest.approx(number, rel=6e-4)


def test_value_text__fractions_of_difference_are_percent_and_seeds_are_names() -> None:
    assert value_text("mean_relative_difference", 0.0045) == "0.45"
    assert value_text("seed", 20260101) == "20260101"
    assert value_text("passed", False) == "no"
    assert value_text("shape", [96, 96]) == "96, 96"
    assert value_text("x", None) == "–"


def test_flat__keeps_the_unit_at_the_end() -> None:
    nested = {"mu_per_m": {"crystal": 1.0}, "fractions": {"loop": {"a": 2}}, "n": 3}
    assert flat(nested) == {"mu_crystal_per_m": 1.0, "fractions_loop_a": 2, "n": 3}


def test_literal__escapes_all_ascii_punctuation_and_joins_lines() -> None:
    assert literal("a_b\n# *c*") == r"a\_b \# \*c\*"
    assert literal(3) == "3"


@pytest.mark.parametrize("text", ["https://a.org", "www.a.org", "WWW.a.org", "me@a.org"])
def test_literal__breaks_what_markdown_would_make_a_link(text: str) -> None:
    assert not re.search(r"(?i)(https?://|www\.)[-.\w]|@\w", literal(text).replace("\\", ""))
    assert literal(text).replace("\\", "").replace("\u2060", "") == text


def test_is_severe__knows_what_must_not_be_missed() -> None:
    assert is_severe("Outside the training domain: pixel size")
    assert not is_severe("the loop touches the border")


def test_moment__is_utc_and_survives_nonsense() -> None:
    assert moment("2026-01-02T06:30:00+02:00") == "2026-01-02 04:30 UTC"
    assert moment("2026-01-02T06:30:00") == "2026-01-02 06:30 UTC"
    assert moment(None) == "time unknown"
    assert moment("soon") == "time unknown"


def test_kinds__lead_to_pages_that_exist(app) -> None:
    for kind in vocabulary.KINDS.values():
        assert (app.parent / kind.page).is_file()
