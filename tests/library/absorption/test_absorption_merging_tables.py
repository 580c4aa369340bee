"""Sources side by side, frames, and their pictures."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tomoforge.absorption.frames import frame_statistics
from tomoforge.absorption.merging import merging_statistics
from tomoforge.absorption.merging_definitions import COLUMNS
from tomoforge.absorption.merging_pictures import frame_picture, shell_picture
from tomoforge.absorption.merging_tables import (
    ROWS,
    compare_sources,
    comparison_markdown,
    difference_column,
    table_caption,
)
from tomoforge.errors import InputError

CELL, GROUP = (20.0, 25.0, 30.0, 90.0, 90.0, 90.0), "P 21 21 21"


@pytest.fixture(scope="module")
def absorbed():
    """Observations over 36 frames, dimmed by an A that goes twice up and down over the turn."""
    rng = np.random.default_rng(0)
    hkl = rng.integers(-6, 7, (6000, 3))
    hkl = hkl[(hkl != 0).all(axis=1)]
    true = 50 + 400 * np.abs(np.sin(np.abs(hkl) @ [12.9, 78.2, 37.7]))
    frame = rng.integers(36, size=len(hkl))
    factor = 0.6 + 0.2 * np.cos(2 * np.pi * frame / 18)
    noise = rng.normal(0, 2, len(hkl))
    return pd.DataFrame(hkl, columns=["h", "k", "l"]).assign(
        intensity=(true + noise) * factor, sigma=2 * factor, frame=frame, absorption_factor=factor
    )


@pytest.fixture(scope="module")
def sources(absorbed):
    wrong = absorbed.assign(absorption_factor=absorbed["absorption_factor"] ** 0.8)
    return {
        "none": merging_statistics(absorbed, CELL, GROUP, shells=5),
        "truth": merging_statistics(absorbed, CELL, GROUP, shells=5, corrected=True),
        "model": merging_statistics(wrong, CELL, GROUP, shells=5, corrected=True),
    }


def test_compare_sources__holds_every_statistic_and_its_difference_from_the_first(sources):
    table = compare_sources(sources)
    assert list(table.index) == [column for column, _, _ in ROWS] and set(table.index) <= set(COLUMNS)
    assert list(table.columns) == ["none", "truth", "model", *map(difference_column, ["truth", "model"])]
    for name, statistics in sources.items():
        assert list(table[name]) == pytest.approx(list(statistics.overall[table.index]), rel=0, nan_ok=True)
    r_meas = table.loc["r_meas"]
    assert r_meas[difference_column("truth")] == pytest.approx(
        r_meas["truth"] / r_meas["none"] - 1, rel=1e-12
    )
    assert table.at["observations", difference_column("model")] == 0
    # The true factors bring back the agreement; wrong ones part of it.
    assert r_meas["truth"] < 0.02 < r_meas["model"] < r_meas["none"]


def test_compare_sources__takes_a_shell_from_either_end(sources):
    last = compare_sources(sources, shell=-1)
    pd.testing.assert_frame_equal(last, compare_sources(sources, shell=5))
    assert last.at["d_min_angstrom", "none"] == sources["none"].shells["d_min_angstrom"].iloc[-1]
    assert "one resolution shell" in last.attrs["caption"]


def test_compare_sources__of_one_source_has_no_differences(sources):
    table = compare_sources({"truth": sources["truth"]})
    assert list(table.columns) == ["truth"] and "differences" not in table.attrs["caption"]


def test_compare_sources__difference_from_nothing_is_not_a_number(sources):
    first = sources["none"]
    changed = first.overall.copy()
    changed["r_meas"] = 0.0
    zero = type(first)(**{**first.__dict__, "overall": changed})
    table = compare_sources({"zero": zero, "truth": sources["truth"]})
    assert np.isnan(table.at["r_meas", difference_column("truth")])
    assert "| Rmeas | 0.0000 |" in comparison_markdown(table) and "| – |" in comparison_markdown(table)


def test_compare_sources__refuses_what_cannot_be_compared(sources, absorbed):
    with pytest.raises(InputError, match="at least one"):
        compare_sources({})
    for settings in ({"definition": "xds"}, {"anomalous": True}, {"sigma_definition": "larger"}):
        other = merging_statistics(absorbed, CELL, GROUP, shells=5, **settings)
        with pytest.raises(InputError, match=f"merged alike, but {next(iter(settings))}"):
            compare_sources({**sources, "other": other})
    for shell in (0, 6, -6):
        with pytest.raises(InputError, match="shell must be 1 to 5"):
            compare_sources(sources, shell=shell)


def test_table_caption__names_the_definitions_and_what_was_left_out(sources, absorbed):
    caption = compare_sources(sources).attrs["caption"]
    for words in ("P 21 21 21", "Aimless", "propagated", "0.9", "mean over 5 random halvings", "'none'"):
        assert words in caption
    broken = absorbed.assign(sigma=np.where(absorbed.index < 3, 0.0, absorbed["sigma"]))
    caption = table_caption(merging_statistics(broken, CELL, GROUP))
    assert "left out: 3 sigma not positive." in caption


def test_comparison_markdown__is_a_table_with_per_cents(sources):
    text = comparison_markdown(compare_sources(sources))
    lines = text.splitlines()
    assert lines[0].count("|") == lines[1].count("|") == 7
    assert len([line for line in lines if line.startswith("|")]) == len(ROWS) + 2
    count = int(sources["none"].overall["observations"])
    assert f"| Observations | {count} | {count} | {count} | +0.00 % | +0.00 % |" in lines
    assert lines[-1].startswith("Merging statistics, overall")


def test_frame_statistics__relative_scale_follows_the_absorption(absorbed):
    plain = frame_statistics(absorbed, CELL, GROUP)
    corrected = frame_statistics(absorbed, CELL, GROUP, corrected=True)
    assert list(plain.index) == list(range(36)) and plain["observations"].sum() > 4000
    # Weights 1/σ² favour absorbed observations (σ ∝ A), which scales all frames alike: the shape is A's. Each
    # frame's 130 observations compare with means of some 20 that the same wave dims at random.
    factor = corrected["mean_absorption_factor"]
    ratio = plain["relative_scale"] / factor
    assert ratio.std() / ratio.mean() < 0.03 < factor.std() / factor.mean()
    # Noise of 2 on some 300, averaged over 100 observations and more: 0.1 % and below.
    assert corrected["relative_scale"].to_numpy() == pytest.approx(np.ones(36), abs=0.004)
    assert corrected["r_merge"].max() < 0.02 < plain["r_merge"].min()
    assert "mean_absorption_factor" not in plain


def test_frame_statistics__two_frames_by_hand():
    table = pd.DataFrame(
        {
            "h": [1, 1, 2, 2, 3],
            "k": [1, 1, 1, 1, 1],
            "l": [1, 1, 1, 1, 1],
            "intensity": [90.0, 110.0, 180.0, 220.0, 7.0],
            "sigma": [1.0, 1.0, 1.0, 1.0, 1.0],
            "frame": [4, 7, 4, 7, 7],
        }
    )
    got = frame_statistics(table, CELL, "P 1")
    assert list(got.index) == [4, 7] and list(got["observations"]) == [
        2,
        2,
    ]  # a lone one compares with itself
    assert list(got["relative_scale"]) == pytest.approx([0.9, 1.1], rel=1e-14)
    assert list(got["r_merge"]) == pytest.approx([30 / 270, 30 / 330], rel=1e-14)
    assert list(got["i_over_sigma"]) == pytest.approx([135, 165], rel=1e-14)
    only = frame_statistics(table[4:], CELL, "P 1")
    assert only["relative_scale"].isna().all() and list(only["observations"]) == [0]


def test_frame_statistics__refuses_frames_that_are_none(absorbed):
    with pytest.raises(InputError, match="must have the column 'batch'"):
        frame_statistics(absorbed, CELL, GROUP, frame_column="batch")
    with pytest.raises(InputError, match="whole numbers"):
        frame_statistics(absorbed.assign(frame=0.5), CELL, GROUP)


def test_pictures__are_png_with_equal_bytes_for_equal_numbers(sources, absorbed):
    frames = {
        "no correction": frame_statistics(absorbed, CELL, GROUP),
        "true labels": frame_statistics(absorbed, CELL, GROUP, corrected=True),
    }
    for draw in (
        lambda: shell_picture(sources, columns=["r_meas", "multiplicity"], title="sources"),
        lambda: frame_picture(frames, title="frames"),
        lambda: frame_picture({"no correction": frames["no correction"]}),
    ):
        first, second = draw(), draw()
        assert first == second
        picture = Image.open(io.BytesIO(first))
        picture.load()
        assert picture.format == "PNG" and "Software" not in picture.info
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 10  # not blank


def test_pictures__draw_statistics_that_are_not_numbers(sources):
    empty = sources["none"].shells.copy()
    empty["anomalous_cc"] = np.nan
    first = sources["none"]
    assert shell_picture({"none": type(first)(**{**first.__dict__, "shells": empty})}, ["anomalous_cc"])


def test_pictures__refuse_too_many_sources_and_unknown_columns(sources):
    with pytest.raises(InputError, match="one to 6"):
        shell_picture({})
    with pytest.raises(InputError, match="one to 6"):
        shell_picture({str(n): sources["none"] for n in range(7)})
    with pytest.raises(InputError, match="columns must be"):
        shell_picture(sources, columns=["r_free"])
    with pytest.raises(InputError, match="frame_statistics"):
        frame_picture({"none": sources["none"].shells})
