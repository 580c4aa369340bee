"""The page Absorption: the correction as a crystallographer reads it, and its files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from dashboard import data
from dashboard.correction_files import MOST_BYTES, corrected_files
from dashboard.correction_tables import (
    binned,
    change,
    cif_lines,
    error_parts,
    histogram_table,
    readable_merging,
    rotation_edges,
    shell_edges,
)
from tests.dashboard.test_dashboard_pages import open_page, said
from tomoforge.errors import StorageError
from tomoforge.results import Published, Table, publish

FACTORS, CORRECTED = "factors-" + "1a" * 10, "corrected-" + "2b" * 10


def merging_of(at: AppTest) -> pd.DataFrame:
    """The merging table as the page shows it."""
    return next(box.value for box in at.dataframe if "Statistic" in box.value)


def test_absorption__shows_factors_merging_and_the_cif(app: Path, example: Path) -> None:
    at = open_page(app, "absorption")
    assert len(at.get("vega_lite_chart")) >= 5  # A by two sources, their difference, the curve, the errors
    text = merging_of(at)
    rows = text.set_index("Statistic")
    assert rows.at["Rmeas", "Δ Automatic"] == "▲ +5.00 % worse"
    assert rows.at["⟨I/σ(I)⟩", "Δ Uncorrected"] == "▼ −0.72 % worse"
    assert rows.at["Observations", "Δ Automatic"] == "no change"
    (cif,) = [box.value for box in at.code if "_exptl_absorpt" in box.value]
    factors = pd.read_parquet(example / "absorption" / "absorption-61" / "factors.parquet")[
        "absorption_factor"
    ]
    assert f"_exptl_absorpt_correction_T_min   {factors.min():.4f}" in cif
    assert f"_exptl_absorpt_correction_T_max   {factors.max():.4f}" in cif
    assert "_exptl_absorpt_coefficient_mu     6.921" in cif
    assert "These reflections are synthetic" in said(at)
    assert "nobody gave it: errors of µ and of labels" in said(at)


def test_absorption__changes_from_what_the_address_names(app: Path, example: Path) -> None:
    at = open_page(app, "absorption", reference="not corrected", along="resolution")
    text = merging_of(at)
    assert list(text.columns[:2]) == ["Statistic", "Uncorrected"]
    assert text.set_index("Statistic").at["Rmeas", "Δ Automatic"] == "▼ −85.49 % better"
    assert "shells of resolution" in said(at)
    for evil in ("../..", "<script>", "labels: relative difference"):
        assert "wedges of rotation" in said(open_page(app, "absorption", reference=evil, along=evil))


def test_absorption__without_sources_and_errors_it_still_shows_what_there_is(
    app: Path, workspace: Path
) -> None:
    factors = pd.DataFrame({"absorption_factor": [0.5, np.nan], "standard_error": [np.nan, np.nan]})
    for name, table in (
        ("bare", factors),
        ("none", factors.iloc[:0]),
        ("odd", factors[["absorption_factor"]]),
    ):
        publish(
            workspace / "published",
            "absorption",
            name,
            title=name,
            summary={"reflections": 2},
            tables={
                "factors": Table(table, "c"),
                "merging": Table(pd.DataFrame({"statistic": ["r_meas"]}), "c"),
            },
        )
        open_page(app, "absorption", item=name)


@pytest.mark.parametrize(
    ("statistic", "value", "reference", "text"),
    [
        ("r_meas", 0.0168, 0.0160, "▲ +5.00 % worse"),
        ("r_meas", 0.0152, 0.0160, "▼ −5.00 % better"),
        ("i_over_sigma", 12.0, 10.0, "▲ +20.00 % better"),
        ("cc_half", 0.99, 1.0, "▼ −1.00 % worse"),
        ("df_over_f", 0.05, 0.04, "+25.00 %"),  # of the signal's size more is not better
        ("r_meas", 0.0160001, 0.0160, "+0.00 %"),
        ("anomalous_cc", 0.925, -0.037, "▲ +0.962 better"),  # a ratio to a negative number means nothing
        ("anomalous_cc", -0.037, 0.925, "▼ −0.962 worse"),
        ("r_meas", float("nan"), 0.0160, "–"),
        ("r_meas", 0.0160, 0.0, "▲ +0.016 worse"),
        ("something_new", 2.0, 1.0, "+100.00 %"),
        ("observations", 10.0, 10.0, "no change"),
    ],
)
def test_change__is_said_by_sign_number_and_word(
    statistic: str, value: float, reference: float, text: str
) -> None:
    assert change(statistic, value, reference).text == text


def test_readable_merging__marks_agree_with_the_words() -> None:
    table = pd.DataFrame(
        {"statistic": ["r_meas", "i_over_sigma"], "manual": [0.02, 10.0], "labels": [0.03, 11.0]}
    )
    text, marks = readable_merging(table, "manual")
    assert list(text.columns) == ["Statistic", "Manual", "Automatic", "Δ Automatic"]
    assert marks["Δ Automatic"].tolist() == [-1, 1] and (marks["Automatic"] == 0).all()
    assert [t.split()[-1] for t in text["Δ Automatic"]] == ["worse", "better"]


def test_cif_lines__keep_the_dictionarys_order_and_words() -> None:
    lines = cif_lines(0.388, 0.6459, None).splitlines()
    assert [line.split()[0] for line in lines] == [
        "_exptl_absorpt_correction_type",
        "_exptl_absorpt_correction_T_min",
        "_exptl_absorpt_correction_T_max",
        "_exptl_absorpt_process_details",
    ]
    assert lines[0].split()[1] == "numerical"
    assert "coefficient_mu     5.325" in cif_lines(0.3, 0.6, 5324.8)


def test_binned__holds_every_reflection_once() -> None:
    rng = np.random.default_rng(3)
    where, a = rng.uniform(0, 180, 500), rng.uniform(0.3, 0.6, 500)
    for edges, place in ((rotation_edges(where), where), (shell_edges(where + 1), 1 / (where + 1) ** 2)):
        frame = binned(place, {"labels": a, "truth": a * 1.1}, edges, 0.01 * a)
        mine = frame[frame["set"] == "automatic labels"]
        assert mine["reflections"].sum() == 500
        assert np.average(mine["mean"], weights=mine["reflections"]) == pytest.approx(
            a.mean()
        )  # a mean of means
        assert ((mine["low"] <= mine["mean"]) & (mine["mean"] <= mine["high"])).all()


def test_histogram_table__counts_every_source_in_the_same_bins() -> None:
    frame = histogram_table({"truth": np.array([0.1, 0.2, 0.9]), "labels": np.array([0.5, np.nan])})
    assert frame.groupby("set")["reflections"].sum().to_dict() == {"automatic labels": 1, "true labels": 3}
    assert frame["low"].min() == 0.1 and frame["high"].max() == 0.9
    assert len(histogram_table({"labels": np.full(5, 0.4)}))  # all alike
    assert histogram_table({"labels": np.array([np.nan])}).empty


def test_error_parts__a_part_that_nobody_gave_is_not_zero() -> None:
    found = error_parts(
        pd.DataFrame(
            {"absorption_factor": [0.5, 0.5], "standard_error": [0.01, 0.02], "mu_error": [np.nan] * 2}
        )
    )
    assert found["all together"] == pytest.approx(3.0)  # percent: the median of 2 and 4
    assert np.isnan(found["µ"]) and np.isnan(found["labels"])


# --- files ----------------------------------------------------------------------------------------------


@pytest.fixture
def corrected(workspace: Path) -> Path:
    """The folder of corrected files that belong to a published correction."""
    folder = workspace / "corrections" / CORRECTED
    folder.mkdir(parents=True)
    (folder / "corrected.csv").write_text("h,k,l\n1,2,3\n")
    (folder / "absorption.cif").write_text("_exptl_absorpt_correction_T_min 0.3\n")
    recorded(folder)
    factors = workspace / "corrections" / FACTORS
    factors.mkdir()
    (factors / "provenance.json").write_text("{}")
    publish(
        workspace / "published",
        "absorption",
        f"{FACTORS}-12345678",
        title="A correction",
        summary={"reflections": 1},
        provenance={"downloads": {"kind": "corrections", "key": CORRECTED, "files": {}}},
    )
    return folder


def recorded(folder: Path, **more: dict) -> None:
    files = {f.name: {"bytes": f.stat().st_size} for f in folder.iterdir() if f.name != "provenance.json"}
    record = {"stage": "corrected", "inputs": {"factors": {"key": FACTORS}}, "files": {**files, **more}}
    (folder / "provenance.json").write_text(json.dumps(record))


def only_item() -> Published:
    (item,) = data.listing().of("absorption").items
    return item


def names() -> list[str]:
    return [file.name for file in corrected_files(only_item())]


def test_files__are_those_of_the_artefact_that_the_manifest_names(app: Path, corrected: Path) -> None:
    files = corrected_files(only_item())
    assert [file.name for file in files] == ["absorption.cif", "corrected.csv"]
    with files[1].open() as opened:
        assert opened.read() == b"h,k,l\n1,2,3\n"
    at = open_page(app, "absorption")
    labels = [button.proto.label for button in at.get("download_button")]
    assert any("corrected" in label for label in labels)


def test_files__of_older_publications_are_found_by_what_they_were_made_from(corrected: Path) -> None:
    manifest = data.published_root() / "absorption" / f"{FACTORS}-12345678" / "manifest.json"
    stored = json.loads(manifest.read_text())
    stored["provenance"] = {}
    manifest.write_text(json.dumps(stored))
    assert names() == ["absorption.cif", "corrected.csv"]


def test_files__outside_the_folder_are_never_offered(corrected: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (corrected / "link.csv").symlink_to(secret)
    entry = {"bytes": secret.stat().st_size}
    recorded(
        corrected,
        **{"../../../secret": entry, str(secret): entry, "..": entry, "link.csv": entry, ".hidden": entry},
    )
    assert names() == ["absorption.cif", "corrected.csv"]


@pytest.mark.parametrize("key", ["..", "../volumes/x", "/etc", "corrected-" + "9f" * 10, "", "corrected"])
def test_files__of_a_key_that_is_none_are_said_to_be_gone(app: Path, corrected: Path, key: str) -> None:
    manifest = data.published_root() / "absorption" / f"{FACTORS}-12345678" / "manifest.json"
    stored = json.loads(manifest.read_text())
    stored["provenance"]["downloads"]["key"] = key
    manifest.write_text(json.dumps(stored))
    with pytest.raises(StorageError):
        corrected_files(only_item())
    assert "Corrected files" in [box.value for box in open_page(app, "absorption").subheader]


def test_files__changed_cut_or_replaced_since_are_not_sent(corrected: Path, tmp_path: Path) -> None:
    file = {f.name: f for f in corrected_files(only_item())}["corrected.csv"]
    (corrected / "corrected.csv").write_text("h\n")
    with pytest.raises(StorageError, match="changed"):
        file.open()
    assert names() == ["absorption.cif"]
    shutil.rmtree(corrected)
    (tmp_path / "elsewhere").mkdir()
    corrected.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        corrected_files(only_item())


def test_files__too_large_for_a_browser_are_named_where_they_lie(app: Path, corrected: Path) -> None:
    with open(corrected / "integrated.refl", "wb") as file:
        file.truncate(MOST_BYTES + 1)  # sparse: it takes no room
    recorded(corrected)
    at = open_page(app, "absorption")
    assert "too much to send through a browser" in said(at)
    assert any(str(corrected / "integrated.refl") == box.value for box in at.code)
