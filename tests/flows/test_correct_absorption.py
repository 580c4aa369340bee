"""The correction from the command line: the twin through true and wrong labels, and files of a diffraction program."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from tasks.predictions import SOFTMAX
from tasks.samples import LABELS
from tests.flows.running import run_here
from tomoforge.absorption.dials import read_reflections
from tomoforge.absorption.twin_scores import moved_boundary
from tomoforge.results import Published, list_published
from tomoforge.storage import Artefact, Workspace, file_checksum
from tomoforge.volumes import LABEL_NAMES, write_labels, write_volume

pytestmark = pytest.mark.usefixtures("one_server")

VOXEL = 4e-6  # [m]
QUICK = ("--tracing.target-error", "0.003", "--cluster.workers", "1")


def sample() -> np.ndarray:
    """A lopsided crystal (3) in liquor (1) on a loop (2): (z, y, x) uint8."""
    z, y, x = (np.indices((40, 44, 48)) + 0.5) / np.array([40, 44, 48]).reshape(3, 1, 1, 1) - 0.5
    labels = np.zeros((40, 44, 48), np.uint8)
    labels[(z / 0.42) ** 2 + ((y - 0.04) / 0.3) ** 2 + ((x + 0.05) / 0.4) ** 2 < 1] = 1
    labels[np.hypot(np.hypot(z, x / 0.95) - 0.40, y / 0.9) < 0.05] = 2
    labels[(abs(z - 0.05) + abs(x) * 0.8 < 0.27) & (abs(y + 0.02) + 0.3 * abs(x) < 0.17)] = 3
    return labels


def stored(workspace: Workspace, name: str, labels: np.ndarray) -> Artefact:
    with workspace.draft("labels", name) as draft:
        write_labels(draft.path / LABELS, labels, VOXEL)
        return workspace.commit(draft, "labels", {"stage": "labels", "inputs": {}})


def published(workspace: Path) -> Published:
    (found,) = list_published(workspace / "published", "absorption")
    assert isinstance(found, Published)
    return found


@pytest.mark.timeout(400)
def test_correct_absorption__twin_by_true_and_by_eroded_labels(
    tmp_path: Path, in_this_process, capsys
) -> None:
    workspace = Workspace(tmp_path / "w")
    truth = stored(workspace, "labels-truth", sample())
    eroded = stored(workspace, "labels-eroded", moved_boundary(sample(), 3, -2))
    arguments = ("--labels", eroded.key, "--truth", truth.key, "--rotation.reflections", "600")
    assert run_here(workspace.root, "correct_absorption", *arguments, *QUICK) == 0
    said = capsys.readouterr().out
    assert "free of absorption" in said and "against truth: mean |ΔA|/A" in said
    shown = published(workspace.root)
    assert {"frames", "shells", "histogram", "surface"} <= set(shown.pictures)
    assert (
        "goniometer at" in shown.pictures["surface"][1]
        and "frame of the labels" in shown.pictures["surface"][1]
    )
    factors = shown.read_table("factors")["absorption_factor"]
    assert shown.summary["transmission_minimum"] == factors.min()
    assert shown.summary["transmission_maximum"] == factors.max()
    scores = shown.read_table("scores").set_index("source")
    merged = shown.read_table("merging").set_index("statistic").loc["r_meas"]
    # By the true labels the data merge as if nothing had been absorbed, by wrong ones not, without any worst of all.
    assert merged["truth"] == pytest.approx(merged["free of absorption"], rel=0.02)
    assert merged["truth"] < merged["labels"] < merged["not corrected"]
    assert scores.loc["truth", "mean_residual_percent"] < 0.5 < scores.loc["labels", "mean_residual_percent"]
    factors = shown.read_table("factors")
    assert ((factors["absorption_factor"] > 0) & (factors["absorption_factor"] <= 1)).all()


@pytest.mark.timeout(400)
def test_correct_absorption__a_real_reflection_file_through_a_forged_sample(
    tmp_path: Path, shared_data: Path, in_this_process, capsys
) -> None:
    workspace = Workspace(tmp_path / "w")
    forged = stored(workspace, "labels-forged", sample())
    source = shared_data / "absorption" / "test_refl.refl"
    arguments = ("--labels", forged.key, "--reflections", str(source))
    group = ("--diffraction.space-group", "P 43 21 2")
    assert run_here(workspace.root, "correct_absorption", *arguments, *group, *QUICK) == 0
    before = read_reflections(source)
    (path,) = (workspace.root / "corrections").glob("corrected-*/test_refl.refl")
    after = read_reflections(path)
    assert after.columns == (*before.columns, "analytical_correction")
    assert all((before.column(n) == after.column(n)).all() for n in ("miller_index", "intensity.prf.value"))
    a = after.column("analytical_correction")
    corrected = pd.read_csv(path.parent / "corrected.csv")
    assert len(corrected) == 95 and np.allclose(a[corrected["row"]], corrected["absorption_factor"])
    assert ((a > 0) & (a <= 1)).all() and (a == 1).sum() == len(a) - 95  # 1 where nothing was corrected
    shown = published(workspace.root)
    assert shown.summary["data"] == "test_refl.refl"
    # What a page may offer for download: every file, its place within the workspace, and what it must weigh.
    downloads = shown.provenance["downloads"]
    assert (downloads["kind"], downloads["key"]) == ("corrections", path.parent.name)
    assert set(downloads["files"]) == {"absorption.cif", "corrected.csv", "test_refl.refl"}
    for entry in downloads["files"].values():
        file = workspace.root / entry["path"]
        assert file.stat().st_size == entry["bytes"] and file_checksum(file) == entry["sha256"]
    assert f"T_min {corrected['absorption_factor'].min():.4f}" in (path.parent / "absorption.cif").read_text()

    pickled = tmp_path / "old.refl"
    pickled.write_bytes(b"\x80\x02cdials_array_family_flex_ext\nreflection_table\nq\x00.")
    unmerged = shared_data / "absorption" / "data_unmerged.mtz"
    for arguments, wanted in (
        (("--reflections", str(pickled)), "pickle"),
        (
            ("--reflections", str(unmerged)),
            r"have no diffracted rays \(s1\), for an unmerged MTZ does not keep them, and this one says no wavelength "
            r"either\. Give it with --experiment: integrated\.expt",
        ),
        (("--reflections", str(source), "--export", "dials"), "export writes the twin"),
        (("--tracing.segmentation-draws", "8"), "segmentation_draws must be 0 .* come from labels"),
        (("--tracing.segmentation-draws", "1"), "2 at least"),
        (("--tracing.segmentation-draws", "8", "--ensemble", forged.key), "two measures of one error"),
    ):
        capsys.readouterr()
        assert run_here(workspace.root, "correct_absorption", "--labels", forged.key, *arguments, *QUICK) == 2
        assert re.search(wanted, capsys.readouterr().err)


@pytest.mark.timeout(400)
def test_correct_absorption__doubt_that_a_segmentation_kept(tmp_path: Path, in_this_process, capsys) -> None:
    """Labels drawn from the model's probabilities give every factor a further error, and change none."""
    workspace = Workspace(tmp_path / "w")
    true = sample()
    with workspace.draft("labels", "segmentation-1") as draft:
        write_labels(draft.path / LABELS, true, VOXEL)
        for name, label in LABEL_NAMES.items():
            share = gaussian_filter((true == label).astype(np.float32), 1.0)
            write_volume(draft.path / SOFTMAX / f"{name}.ome.zarr", share, VOXEL)
        record = {"stage": "segmentation", "parameters": {"clean": True}, "inputs": {}}
        labels = workspace.commit(draft, "labels", record)
    arguments = ("--labels", labels.key, "--rotation.reflections", "60", "--tracing.segmentation-draws", "3")
    assert run_here(workspace.root, "correct_absorption", *arguments, *QUICK) == 0
    assert "3 draws from the class probabilities" in capsys.readouterr().out
    shown = published(workspace.root)
    table = shown.read_table("factors")
    assert (table["segmentation_error"] > 0).all() and (table["segmentation_error"] < 0.1).all()
    (plain,) = (workspace.root / "corrections").glob("corrected-*/corrected.csv")
    written = pd.read_csv(plain)
    np.testing.assert_allclose(written["standard_error"], table["standard_error"], rtol=1e-9)
    assert (table["standard_error"] >= table["segmentation_error"]).all()
    assert shown.summary["median_segmentation_error_percent"] > 0.05
    assert "networks are surer than they should be" in shown.tables["factors"][1]


@pytest.mark.timeout(400)
def test_correct_absorption__the_twin_through_files_of_dials(tmp_path: Path, in_this_process) -> None:
    """Written as DIALS files and read again, the twin has the same factors: nothing of the geometry is lost."""
    workspace = Workspace(tmp_path / "w")
    forged = stored(workspace, "labels-forged", sample())
    arguments = ("--labels", forged.key, "--rotation.reflections", "300")
    assert run_here(workspace.root, "correct_absorption", *arguments, "--export", "dials", *QUICK) == 0
    twin = published(workspace.root)
    files = {
        name: workspace.root / entry["path"] for name, entry in twin.provenance["downloads"]["files"].items()
    }
    assert {"twin.refl", "twin.expt"} <= set(files)
    again = Workspace(tmp_path / "again")
    forged = stored(again, "labels-forged", sample())
    arguments = (
        "--labels",
        forged.key,
        "--reflections",
        str(files["twin.refl"]),
        "--experiment",
        str(files["twin.expt"]),
    )
    assert run_here(again.root, "correct_absorption", *arguments, *QUICK) == 0
    first, second = twin.read_table("factors"), published(again.root).read_table("factors")
    assert (first[["row", "h", "k", "l"]] == second[["row", "h", "k", "l"]]).all(axis=None)
    # The same sampling along rays that differ in their last digits.
    np.testing.assert_allclose(second["absorption_factor"], first["absorption_factor"], rtol=1e-9)
    table = read_reflections(files["twin.refl"])
    np.testing.assert_array_equal(table.column("analytical_correction"), first["absorption_factor"])
    np.testing.assert_allclose(table.column("tomoforge.true_factor"), first["absorption_factor"], rtol=1e-12)
    for statistic in ("r_meas_corrected", "r_meas_uncorrected"):
        assert published(again.root).summary[statistic] == pytest.approx(twin.summary[statistic], rel=1e-6)
