"""The correction from the command line: the twin through true and wrong labels, and files of a diffraction program."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.samples import LABELS
from tests.flows.running import run_here
from tomoforge.absorption.dials import read_reflections
from tomoforge.absorption.twin_scores import moved_boundary
from tomoforge.results import Published, list_published
from tomoforge.storage import Artefact, Workspace
from tomoforge.volumes import write_labels

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
    assert {"frames", "shells", "histogram"} <= set(shown.pictures)
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
    assert published(workspace.root).summary["data"] == "test_refl.refl"
    assert f"T_min {corrected['absorption_factor'].min():.4f}" in (path.parent / "absorption.cif").read_text()

    pickled = tmp_path / "old.refl"
    pickled.write_bytes(b"\x80\x02cdials_array_family_flex_ext\nreflection_table\nq\x00.")
    refused = ("--labels", forged.key, "--reflections", str(pickled))
    assert run_here(workspace.root, "correct_absorption", *refused, *QUICK) == 2
    assert "pickle" in capsys.readouterr().err
