"""A correction scored on the twin: by true labels as good as no absorption, by labels a voxel off a little worse."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tomoforge.absorption.factors import absorption_factors
from tomoforge.absorption.structure_factors import wilson_intensities
from tomoforge.absorption.twin import random_orientation
from tomoforge.absorption.twin_intensities import Measurement, TwinSweep, observe, sweep_reflections
from tomoforge.absorption.twin_scores import moved_boundary, score_correction, score_table
from tomoforge.errors import InputError

CELL, GROUP = (27.0, 31.0, 36.0, 90.0, 90.0, 90.0), "P 21 21 21"
VOXEL = 4e-6
MU = {1: 7e3, 2: 1.5e4, 3: 1.2e4}
# At 95 % confidence: one standard error is half of it. Truth and correction each have their own.
TARGET = 2e-3


def composite() -> np.ndarray:
    """Crystal in liquor on a loop's stem, nowhere symmetric: (52, 48, 56), labels 0 … 3."""
    z, y, x = np.indices((52, 48, 56)).astype(float)
    dz, dy, dx = z - 25, y - 22, x - 29
    labels = ((dz / 20) ** 2 + (dy / 17) ** 2 + (dx / 23) ** 2 <= 1).astype(np.uint8)
    labels[(np.hypot(dy + 11, dx - 9) <= 4) & (dz < 19)] = 2
    turn = Rotation.from_euler("xyz", [20, 35, -15], degrees=True).as_matrix()
    inside = np.abs(np.stack([dx + 3, dy - 2, dz - 1], axis=-1) @ turn) <= [13, 7, 9]
    labels[inside.all(axis=-1)] = 3
    return labels


@pytest.fixture(scope="module")
def twin() -> SimpleNamespace:
    return forged_twin()


def forged_twin() -> SimpleNamespace:
    """A turn of the twin, its table, and the score of the labels in several states of wrongness."""
    labels, sweep = composite(), TwinSweep()
    rays = sweep_reflections(CELL, GROUP, random_orientation(3), 3.1e-10, 5.5e-10, sweep)

    def factors(grid, seed):
        return absorption_factors(
            grid, VOXEL, MU, rays.incoming, rays.outgoing, target_error=TARGET, seed=seed
        ).a

    true = factors(labels, 101)
    intensity = wilson_intensities(rays.hkl, CELL, GROUP, anomalous_ratio=0.06, seed=5)
    table = observe(rays, sweep, intensity, true, Measurement(), seed=9)
    states = {
        "truth": labels,
        "crystal eroded": moved_boundary(labels, 3, -1),
        "crystal dilated": moved_boundary(labels, 3, 1),
        "sample eroded": moved_boundary(labels, 0, 1),
        "sample dilated": moved_boundary(labels, 0, -1),
    }
    used = {name: factors(grid, 7) for name, grid in states.items()}
    scores = {name: score_correction(table, a, CELL, GROUP) for name, a in used.items()}
    return SimpleNamespace(table=table, used=used, scores=scores)


def test_twin__absorption_matters_and_the_rest_is_quiet(twin):
    score = twin.scores["truth"]
    assert score.count == len(twin.table) > 1000
    assert 0.01 < score.free.rmeas < 0.04
    assert score.measured.rmeas > 4 * score.free.rmeas


def test_twin__true_labels_correct_to_within_one_percent_of_no_absorption(twin):
    score = twin.scores["truth"]
    # The bound. Two A of a standard error of 1e-3 each, in quadrature beside 2 %, cost 0.25 % of it,
    # the photons that absorption took less.
    assert abs(score.rmeas_excess) < 0.01
    # The mean size of a normal error is 0.8 of its standard deviation; so of the difference of two.
    assert score.mean_residual < 0.8 * np.sqrt(2) * TARGET / 2 * 1.1
    assert score.largest_residual < 5 * np.sqrt(2) * TARGET / 2
    assert score.scale == pytest.approx(1, abs=TARGET)


def test_twin__labels_a_voxel_off_lose_and_the_loss_is_reported(twin):
    free, truth = twin.scores["truth"].free.rmeas, twin.scores["truth"]
    for name, score in twin.scores.items():
        if name == "truth":
            continue
        assert score.mean_residual > 2 * truth.mean_residual, name
        assert score.rmeas_excess > 0.01, name  # a voxel is 4 µm of µ = 1e4: some per cent
        assert score.corrected.rmeas < 0.5 * score.measured.rmeas, name  # and far better than none
        assert score.free.rmeas == free
    report = score_table(twin.scores)
    assert list(report["source"]) == ["none (as measured)", *twin.scores, "free of absorption"]
    excess = dict(zip(report["source"], report["rmeas_excess_percent"], strict=True))
    assert excess["free of absorption"] == 0
    assert excess["sample eroded"] == pytest.approx(100 * twin.scores["sample eroded"].rmeas_excess)
    residual = report["mean_residual_percent"]
    assert np.isnan(residual.iloc[0]) and np.isnan(residual.iloc[-1])
    assert residual.iloc[1] == pytest.approx(100 * truth.mean_residual)


def test_twin__the_anomalous_signal_comes_back(twin):
    score = twin.scores["truth"]
    # Eight observations of 2 % on each mate leave 1 % on ΔI, beside a signal of 6 % in F, so 12 % in I.
    assert score.corrected.anomalous_correlation > 0.97
    assert score.corrected.anomalous_correlation == pytest.approx(score.free.anomalous_correlation, abs=5e-3)
    assert score.measured.anomalous_correlation < score.corrected.anomalous_correlation - 0.02
    assert score.corrected.anomalous_slope == pytest.approx(1, abs=0.05)
    assert score.corrected.pairs > 50


def test_score_correction__a_common_factor_costs_nothing(twin):
    a = twin.used["truth"]
    plain, scaled = twin.scores["truth"], score_correction(twin.table, 0.8 * a, CELL, GROUP)
    assert scaled.scale == pytest.approx(plain.scale / 0.8, rel=1e-12)
    assert scaled.mean_residual == pytest.approx(plain.mean_residual, rel=1e-9)
    assert scaled.corrected.rmeas == pytest.approx(plain.corrected.rmeas, rel=1e-9)
    assert scaled.corrected.anomalous_slope == pytest.approx(plain.corrected.anomalous_slope, rel=1e-9)


def test_score_correction__exact_factors_have_no_residual_and_known_frame_scales_do_not_count(twin):
    table = twin.table.assign(frame_scale=2.0)
    for name in ("intensity", "sigma", "free_intensity", "free_sigma"):
        table[name] *= 2.0
    exact = score_correction(table, table["true_factor"].to_numpy(), CELL, GROUP)
    assert (exact.mean_residual, exact.largest_residual) == pytest.approx((0, 0), abs=1e-12)
    assert exact.free.rmeas == pytest.approx(twin.scores["truth"].free.rmeas, rel=1e-9)
    assert abs(exact.rmeas_excess) < 0.01  # lost photons alone


def test_score_correction__hand_made_residual(twin):
    rows = twin.table.iloc[:400]
    wobble = np.where(np.arange(400) % 2 == 0, 1.1, 0.9)
    score = score_correction(rows, rows["true_factor"].to_numpy() * wobble, CELL, GROUP)
    k = 1 / 1.01  # mean of the ratio over that of its square
    assert score.scale == pytest.approx(k, rel=1e-12)
    assert score.largest_residual == pytest.approx(1 - 0.9 * k, rel=1e-9)
    assert score.mean_residual == pytest.approx((1.1 * k - 1 + 1 - 0.9 * k) / 2, rel=1e-9)


def test_score_correction__refuses_a_table_without_the_truth(twin):
    with pytest.raises(InputError, match="lacks"):
        score_correction(twin.table.drop(columns="true_factor"), twin.used["truth"], CELL, GROUP)
    with pytest.raises(InputError, match="equally long"):
        score_correction(twin.table, twin.used["truth"][1:], CELL, GROUP)
    with pytest.raises(InputError, match="at least one"):
        score_table({})


def test_moved_boundary__a_block_grows_and_shrinks_by_whole_steps():
    labels = np.zeros((9, 9, 9), dtype=np.uint8)
    labels[1:8, 1:8, 1:8] = 1
    labels[3:6, 3:6, 3:6] = 3
    grown = moved_boundary(labels, 3, 1)
    assert (grown == 3).sum() == 27 + 6 * 9  # a face each way, no corners
    assert (grown == 0).sum() == (labels == 0).sum()
    shrunk = moved_boundary(labels, 3, -1)
    assert (shrunk == 3).sum() == 1
    assert (shrunk == 1).sum() == 343 - 1  # the liquor takes what the crystal leaves
    np.testing.assert_array_equal(moved_boundary(labels, 3, 0), labels)
    # By its background the whole sample is worn down, and built up again by what is nearest.
    worn = moved_boundary(labels, 0, 1)
    assert (worn > 0).sum() == 125 and (worn == 3).sum() == 27
    built = moved_boundary(labels, 0, -1)
    assert (built > 0).sum() == 343 + 6 * 49 and set(built[built != labels].tolist()) == {1}


def test_moved_boundary__refuses_what_leaves_nothing():
    labels = np.zeros((5, 5, 5), dtype=np.uint8)
    with pytest.raises(InputError, match="label 3"):
        moved_boundary(labels, 3, 1)
    labels[2, 2, 2] = 3
    with pytest.raises(InputError, match="nothing is left"):
        moved_boundary(labels, 3, -1)
