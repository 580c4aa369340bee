"""The fidelity report from the command line, on a forged scan that plays the real one: the truth is known."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tomoforge.geometry import ScanGeometry, uniform_angles
from tomoforge.optics.detector import Detector
from tomoforge.optics.materials import find_material, mixture
from tomoforge.optics.scan import Beam, simulate_scan
from tomoforge.scan import write_frame_batch, write_nxtomo

sys.path.insert(0, str(Path(__file__).parent))
from running import finish, log_of, start_flow

pytestmark = pytest.mark.usefixtures("one_server")

VOXEL, DISTANCE, CENTRE, ENERGY_KEV = 2e-6, 10e-3, 19.0, 5.0


def forged_scan(folder: Path) -> Path:
    """A ball of water with a block of quartz, by wave optics, in a beam that is 20 % dimmer than its flats."""
    z, y, x = np.indices((32, 40, 40)) - np.array([15.5, 19.5, 19.5]).reshape(3, 1, 1, 1)
    labels = (x**2 + y**2 + z**2 < 12**2).astype(np.uint8)
    labels[(np.abs(x - 2) < 5) & (np.abs(y) < 4) & (np.abs(z) < 5)] = 2
    detector = Detector(psf_sigma=0.4, column_drift_sigma=0.0)
    materials = {1: find_material("water"), 2: mixture("quartz", {"SiO2": 2200.0})}
    geometry = ScanGeometry(uniform_angles(60), VOXEL, DISTANCE, CENTRE)
    scan = simulate_scan(labels, VOXEL, materials, geometry, Beam(ENERGY_KEV, 2e4), detector, 5)
    dimmed = (100 + 0.8 * (scan.projections[:].astype(float) - 100)).astype(np.uint16)
    write_frame_batch(folder / "frames.h5", dimmed)
    write_nxtomo(
        folder / "forged.nxs",
        darks=scan.darks,
        flats=scan.flats,
        batches=["frames.h5"],
        angles=scan.angles,
        energy_kev=ENERGY_KEV,
        pixel_size=VOXEL,
        propagation_distance=0.0,  # as if not recorded
        title="forged",
    )
    return folder / "forged.nxs"


@pytest.mark.timeout(400)
def test_evaluate_fidelity__finds_the_distance_and_that_wave_optics_is_nearer(tmp_path):
    workspace = tmp_path / "workspace"
    options = [
        "--fidelity.air-margins-px",
        "4,4,0,0",
        "--fidelity.distances-mm",
        "1,10,50",
        "--fidelity.formulas",
        "H2O,SiO2",
    ]
    options += ["--reconstruction.rotation-centre", str(CENTRE), "--cluster.workers", "1"]
    scan = str(forged_scan(tmp_path))
    assert finish(start_flow(workspace, "evaluate_fidelity", "--scan", scan, *options)) == 0, log_of(
        workspace
    )
    (folder,) = (workspace / "published" / "fidelity").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    summary = manifest["summary"]
    assert summary["distance_mm"] == 10.0 and summary["distance_fitted"]
    assert summary["air_before_scaling"] == pytest.approx(0.8, abs=0.01)
    table = pd.read_parquet(folder / "metrics.parquet")
    assert len(table) == 8  # two kinds of images, two models, with and without the one factor
    better = table.pivot(index=["images", "scaling"], columns="model", values=["ssim", "psnr_db"])
    for metric in ("ssim", "psnr_db"):
        assert (better[metric]["wave optics"] > better[metric]["absorption only"]).all(), table.to_string()
    assert {"projection", "slice", "distances"} <= set(manifest["pictures"])
    calibration = pd.read_parquet(folder / "calibration.parquet").set_index("parameter")
    # The flats were forged with 2e4 photons; of few small frames a calibration knows that to some per cent.
    assert calibration.loc["photons", "real"] == pytest.approx(2e4, rel=0.1)
    assert calibration.loc["photons", "simulated"] == pytest.approx(
        calibration.loc["photons", "real"], rel=0.1
    )
    counts = pd.read_parquet(folder / "calibration_counts.parquet")
    assert set(counts["frames"]) == {"flats", "darks"}
    assert any("not recorded" in warning for warning in manifest["warnings"])
    assert not any("worse" in warning for warning in manifest["warnings"])
