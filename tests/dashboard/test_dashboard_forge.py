"""The Forge page: what it draws of sets and fidelity reports, and the arithmetic behind it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from dashboard.sample_tables import (
    QUANTITIES,
    bin_edges,
    calibration_ratios,
    calibration_text,
    countable,
    counts,
    drawable,
    histogram,
    in_readable_units,
    reasons,
    side_by_side,
    spread,
)
from tests.dashboard.methods_example import samples_table
from tests.dashboard.opening import open_stage, said

SIZE = QUANTITIES[0]
OLDER, NEWER = "samples-1-abcdef012345-00000001", "samples-2-abcdef012345-00000002"


def open_forge(app: Path, **address: str) -> AppTest:
    return open_stage(app, "forge", **address)


def drawn(at: AppTest) -> list[str]:
    """The titles of the axes along x of all charts."""
    found = []
    for chart in at.get("vega_lite_chart"):
        spec = json.loads(chart.proto.spec)
        parts = [spec, *spec.get("layer", []), *spec.get("spec", {}).get("layer", [])]
        titles = [part.get("encoding", {}).get("x", {}).get("title") for part in parts]
        found += [next(t for t in titles if t)]
    return found


def test_set__shows_gallery_distributions_and_rejections(app: Path, example: Path) -> None:
    at = open_forge(app)
    assert "Set of 18 of 18 samples, seed 2" in said(at)
    headings = [box.value for box in at.subheader]
    assert ["Gallery", "How the set is spread", "Rejected samples", "All samples"] == headings[1:5]
    axes = drawn(at)
    assert axes[:3] == [
        "crystal size [µm]",
        "crystal, share of the field [%]",
        "liquor, share of the field [%]",
    ]
    assert "rejected tries" in axes
    assert "3 of 21 tries (14.3 %)" in said(at)
    # A share that is nought in every sample is offered nowhere.
    assert not any("on the loop" in option for option in at.multiselect[0].options)
    samples = next(box.value for box in at.dataframe if "crystal_size_um" in box.value)
    assert samples["crystal_size_um"].between(20, 300).all() and samples["tilt_deg"].max() < 9


def test_set__beside_another_by_an_address_that_can_be_sent(app: Path, example: Path) -> None:
    at = open_forge(app, kind="sample_sets", item=NEWER, **{"with": OLDER}, shown="tilt~mount")
    assert drawn(at)[:2] == ["share of the set [%]", "tilt of the stem [°]"]  # in the order of the page
    assert f"Other set: Set of 30 of 30 samples, seed 1, {OLDER}" in said(at)
    assert "No try was rejected" in said(open_forge(app, item=OLDER))


@pytest.mark.parametrize("wanted", ["../../etc/passwd", "nothing", NEWER])
def test_set__compared_with_nothing_published_is_compared_with_nothing(
    app: Path, example: Path, wanted: str
) -> None:
    at = open_forge(
        app, item=NEWER, shown=wanted, habit=wanted, order=wanted, cards=wanted, **{"with": wanted}
    )
    assert drawn(at)[0] == "crystal size [µm]"
    assert "Other set" not in said(at)


def test_set__cards_are_ordered_chosen_and_linked(app: Path, example: Path) -> None:
    at = open_forge(app, item=OLDER, order="crystal_size", habit="myoglobin")
    table = samples_table(30, 1)
    largest = table[table["habit"] == "myoglobin"].sort_values("crystal_size").iloc[-1]
    cards = [box.value for box in at.markdown if box.value.startswith("**Sample ")]
    assert cards[0] == f"**Sample {largest['sample']}**" and len(cards) <= 12


def test_fidelity__wave_optics_beside_absorption_and_the_calibration(app: Path, example: Path) -> None:
    at = open_forge(app, kind="fidelity")
    axes = drawn(at)
    assert axes[:2] == ["SSIM, 1 is the same", "PSNR [dB]"]
    assert "assumed propagation distance [mm]" in axes and "simulated over real, 1 is the same" in axes
    assert {"counts in flats", "counts in darks"} <= set(axes)
    pairs = next(box.value for box in at.dataframe if "ssim_gain" in box.value)
    assert pairs["ssim_gain"].tolist() == pytest.approx([0.3] * 4)
    assert len(at.get("image")) + len(at.get("imgs")) >= 2


def test_fidelity__without_calibration_says_how_to_get_one(app: Path, example: Path) -> None:
    folder = next((example / "fidelity").iterdir())
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("calibration", "calibration_counts"):
        del manifest["tables"][name]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "evaluate_fidelity" in said(open_forge(app, kind="fidelity"))


def test_forge__each_kind_says_which_command_makes_it(app: Path, example: Path) -> None:
    shutil.rmtree(example / "fidelity")
    assert "python -m flows evaluate_fidelity" in open_forge(app, kind="fidelity").info[0].value


# --- arithmetic -----------------------------------------------------------------------------------------


def test_histogram__two_sets_over_the_same_bins_and_every_sample_once() -> None:
    sets = {"a": samples_table(40, 1), "b": samples_table(25, 2)}
    frame = histogram(sets, SIZE)
    first, second = (frame[frame["set"] == name] for name in sets)
    assert first["low"].tolist() == second["low"].tolist()
    assert (first["samples"].sum(), second["samples"].sum()) == (40, 25)
    assert frame.groupby("set")["percent"].sum().tolist() == pytest.approx([100, 100])
    assert first["low"].min() == pytest.approx(1e6 * min(t["crystal_size"].min() for t in sets.values()))


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0], [5.0, 5.0, 5.0], [1.0, np.nextafter(1.0, 2)]])
def test_bin_edges__of_few_or_equal_values_have_a_width(values: list[float]) -> None:
    edges = bin_edges(np.array(values))
    assert (np.diff(edges) > 0).all()
    assert not values or edges[0] <= min(values) <= max(values) <= edges[-1]


def test_drawable__leaves_out_what_is_nought_missing_or_no_number() -> None:
    table = pd.DataFrame(
        {"crystal_size": [np.nan, np.inf], "tilt": ["x", None], "crystal_loop_share": [0.0, 0.0]}
    )
    assert drawable(table) == []
    assert [q.column for q in drawable(table, samples_table(3, 1))][:2] == ["crystal_size", "crystal_aspect"]
    assert "habit" in [c.column for c in countable(samples_table(3, 1))]


def test_counts__the_rest_is_summed_up() -> None:
    table = pd.DataFrame({"habit": [f"h_{n}" for n in range(20)] + ["h_0"]})
    found = counts({"a": table}, countable(table)[0])
    assert len(found) == 14 and found["samples"].sum() == 21
    assert found["value"].tolist()[0] == "h 0" and found["value"].tolist()[-1] == "7 others"


def test_spread_and_units__in_the_units_that_are_said() -> None:
    table = samples_table(50, 3)
    row = spread({"a": table}, [SIZE]).iloc[0]
    assert row["median"] == pytest.approx(1e6 * table["crystal_size"].median()) and row["unit"] == "µm"
    readable = in_readable_units(table)
    assert readable["tilt_deg"].tolist() == pytest.approx(np.degrees(table["tilt"]).tolist())
    assert readable["fraction_crystal_percent"].iloc[0] == pytest.approx(
        100 * table["fraction_crystal"].iloc[0]
    )
    assert readable["voxel_size_um"].iloc[0] == pytest.approx(1.0) and "seed" in readable


def test_reasons__counted_by_try_and_by_sample() -> None:
    table = pd.DataFrame({"sample": [1, 1, 2], "reason": ["too_small", "too_small", "dry"]})
    assert reasons(table).to_dict("records")[0] == {"reason": "too small", "tries": 2, "samples": 1}
    assert reasons(table.iloc[:0]).empty


def test_side_by_side__needs_both_models() -> None:
    one = pd.DataFrame(
        {
            "images": ["slices"],
            "scaling": ["none"],
            "model": ["wave optics"],
            "ssim": [0.9],
            "psnr_db": [20.0],
        }
    )
    assert side_by_side(one).empty
    both = pd.concat([one, one.assign(model="absorption only", ssim=0.7, psnr_db=21.0)])
    row = side_by_side(both).iloc[0]
    assert (row["ssim_gain"], row["psnr_gain_db"]) == pytest.approx((0.2, -1.0))


def test_calibration__ratios_have_the_errors_of_both_and_leave_out_what_is_nought() -> None:
    table = pd.DataFrame(
        [
            ("gain", "u", 2.0, 0.02, 2.2, 0.0),
            ("beam_motion", "px", 0.01, 0.01, 0.0, 0.01),
            ("x", "", np.nan, 0, 1, 0),
        ],
        columns=["parameter", "unit", "real", "real_error", "simulated", "simulated_error"],
    )
    (row,) = calibration_ratios(table).to_dict("records")
    assert (row["value"], row["low"], row["high"]) == pytest.approx((1.1, 1.089, 1.111))
    assert calibration_text(table)["real"].tolist() == ["2 ± 0.02", "0.01 ± 0.01", "not told"]
