"""µ measured from forged projections and volumes with known µ, and the three sources side by side."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tomoforge.absorption.mu_comparison import compare_mu
from tomoforge.absorption.mu_fit import robust_fit
from tomoforge.absorption.mu_measurement import (
    MuEstimate,
    alone_fit,
    joint_mu,
    mu_from_alone_rays,
    mu_from_composition,
    mu_from_projections,
)
from tomoforge.absorption.mu_picture import mu_fit_picture
from tomoforge.absorption.mu_rays import Rays, collect_rays
from tomoforge.absorption.mu_volume import mu_from_volume
from tomoforge.errors import InputError, MaterialError
from tomoforge.geometry import uniform_angles

VOXEL = 2e-6
MU = {1: 8e3, 2: 1.6e4, 3: 1.2e4}
PHOTONS = 4000
SEEDS = 50
NAMES = {1: "liquor", 2: "loop", 3: "crystal"}


def _phantom() -> np.ndarray:
    """Liquor around a crystal, and beside them a rod that stands alone."""
    z, y, x = np.indices((34, 46, 44)).astype(float)
    labels = (((z - 13) / 11) ** 2 + ((y - 26) / 16) ** 2 + ((x - 20) / 17) ** 2 <= 1).astype(np.uint8)
    labels[(abs(z - 13) <= 4) & (abs(y - 27) <= 8) & (abs(x - 19) <= 7)] = 3
    labels[(z > 25) & (np.hypot(y - 20, x - 24) <= 10)] = 2
    return labels


@pytest.fixture(scope="module")
def traced() -> Rays:
    """All rays of 30 projections, without absorption as yet."""
    return collect_rays(np.ones((30, 34, 60)), _phantom(), VOXEL, uniform_angles(30), VOXEL)


def _measured(traced: Rays, seed: int, photons: float = PHOTONS, outliers: float = 0.02) -> Rays:
    """Beer–Lambert, Poisson, and a part of the pixels that say anything."""
    rng = np.random.default_rng(seed)
    depth = traced.lengths @ np.array([0.0, *MU.values()])
    transmission = rng.poisson(photons * np.exp(-depth)) / photons
    broken = rng.random(len(transmission)) < outliers
    transmission[broken] *= rng.choice([0.2, 0.4, 2.5], broken.sum())
    usable = transmission > 0
    values = -np.log(np.where(usable, transmission, 1.0))
    return replace(traced, line_integrals=values).select(usable)


def test_mu_from_projections__intervals_cover_the_truth_despite_outliers(traced):
    hits, z = dict.fromkeys(MU, 0), []
    for seed in range(SEEDS):
        found = mu_from_projections(_measured(traced, seed), seed=seed)
        assert set(found.why_joint) == {3}  # the crystal is never seen without its liquor
        for label, estimate in found.estimates.items():
            hits[label] += estimate.low <= MU[label] <= estimate.high
            z.append((estimate.mu - MU[label]) / estimate.standard_error)
    # 95 % of 50 is 47.5 ± 1.5; Student's interval of the wider of two partitions covers a little more.
    for label, count in hits.items():
        assert count >= 43, (label, hits)
    assert 0.6 < np.std(z) < 1.2
    assert abs(np.mean(z)) < 0.5
    # Rarely all hits of three materials: intervals as wide as a barn would have it always.
    assert np.abs(z).max() > 1.5


def test_mu_from_alone_rays__is_within_a_percent_and_counts_the_outliers(traced):
    rays = _measured(traced, 1)
    for label in (1, 2):
        estimate = mu_from_alone_rays(rays, label)
        assert estimate.mu == pytest.approx(MU[label], rel=1e-2)
        assert estimate.count == rays.alone(label).sum()
        assert 0.01 * estimate.count < estimate.outliers < 0.035 * estimate.count  # of 2 %
        assert estimate.low < estimate.mu < estimate.high
        assert estimate.notes == ()


def test_mu_from_alone_rays__outliers_do_not_pull(traced):
    # The same photons with 10 % of one-sided outliers: least squares would be off by tens of per cent.
    rays = _measured(traced, 2, outliers=0.0)
    clean = mu_from_alone_rays(rays, 2)
    values = rays.line_integrals.copy()
    values[::10] += 1.0
    dirty = mu_from_alone_rays(replace(rays, line_integrals=values), 2)
    assert dirty.mu == pytest.approx(clean.mu, abs=3 * clean.standard_error)
    mask = rays.alone(2)
    length = rays.lengths[mask, 2]
    plain = np.sum(length * values[mask]) / np.sum(length**2)
    assert abs(plain / MU[2] - 1) > 0.1


def test_mu_from_alone_rays__without_noise_is_exact(traced):
    depth = traced.lengths @ np.array([0.0, *MU.values()])
    rays = replace(traced, line_integrals=depth)
    assert mu_from_alone_rays(rays, 2).mu == pytest.approx(MU[2], rel=1e-12)
    for label, estimate in joint_mu(rays).estimates.items():
        assert estimate.mu == pytest.approx(MU[label], rel=1e-9)


def test_mu_from_alone_rays__few_photons_do_not_bias_the_logarithm(traced):
    # E(−ln N) lies 1/(2N) above −ln E(N): at 100 photons half a per cent of µL = 1 and more on dark rays.
    found = [mu_from_alone_rays(_measured(traced, s, photons=100, outliers=0), 2) for s in range(20)]
    error = np.mean([e.standard_error for e in found]) / np.sqrt(20)
    bias = np.mean([e.mu for e in found]) / MU[2] - 1
    # What a robust mean of a skewed logarithm leaves is a third of what was taken off, 1/(6N).
    assert abs(bias) < 4e-3 + 4 * error / MU[2]


def test_mu_from_alone_rays__refuses_what_is_never_alone(traced):
    rays = _measured(traced, 0)
    with pytest.raises(InputError, match=r"label 3 must be crossed alone .* 0 of the \d+ rays .* jointly"):
        mu_from_alone_rays(rays, 3)
    one = rays.select(rays.projection == rays.projection[0])
    with pytest.raises(InputError, match="projections"):
        mu_from_alone_rays(one, 2, least_rays=10)


def test_joint_mu__gives_all_materials_their_covariance_and_condition(traced):
    joint = joint_mu(_measured(traced, 3))
    assert joint.labels == (1, 2, 3)
    for place, label in enumerate(joint.labels):
        estimate = joint.estimates[label]
        assert estimate.mu == pytest.approx(MU[label], rel=1e-2)
        assert np.sqrt(joint.covariance[place, place]) == pytest.approx(estimate.standard_error)
    correlation = joint.covariance / np.sqrt(np.outer(np.diag(joint.covariance), np.diag(joint.covariance)))
    assert correlation[0, 2] < -0.3  # liquor and crystal share rays: more of one is less of the other
    assert abs(correlation[0, 1]) < 0.5  # liquor and rod share none
    assert 1 < joint.condition_number < 10


def test_joint_mu__warns_of_materials_in_proportion_and_refuses_the_same_twice():
    rng = np.random.default_rng(0)
    length = rng.uniform(2e-5, 8e-5, 3000)
    other = length * rng.normal(1.0, 0.02, 3000)
    lengths = np.stack([0 * length, length, other], axis=1)
    values = lengths @ [0.0, 8e3, 1.2e4] + rng.normal(0, 0.01, 3000)
    pixel = np.stack([np.arange(3000) // 60, np.arange(3000) % 60], axis=1)
    rays = Rays(lengths, values, np.arange(3000) % 20, pixel, np.zeros(3000, dtype=bool), 0)
    joint = joint_mu(rays)
    assert joint.condition_number > 30
    assert "trade off" in joint.estimates[1].notes[-1]
    for label, true in ((1, 8e3), (2, 1.2e4)):
        estimate = joint.estimates[label]
        assert abs(estimate.mu - true) < 4.5 * estimate.standard_error
        assert estimate.standard_error > 100  # poor, and says so
    lengths[:, 2] = 2 * lengths[:, 1]
    with pytest.raises(InputError, match="cannot be told apart"):
        joint_mu(replace(rays, lengths=lengths))


def test_robust_fit__refuses_too_little():
    ones = np.ones((40, 1))
    with pytest.raises(InputError, match="10 rays or more"):
        robust_fit(ones[:5], np.ones(5), (np.arange(5),))
    with pytest.raises(InputError, match="6 blocks"):
        robust_fit(ones, np.ones(40) + np.linspace(0, 0.1, 40), (np.arange(40) % 3,))
    with pytest.raises(InputError, match="never crossed"):
        robust_fit(np.zeros((40, 1)), np.ones(40), (np.arange(40),))
    with pytest.raises(InputError, match="transmit"):
        robust_fit(ones, np.full(40, 9.0) + np.linspace(0, 0.1, 40), (np.arange(40),))


def test_mu_notes__offset_of_the_background_and_bent_lines_are_told(traced):
    rays = _measured(traced, 4)
    shifted = mu_from_alone_rays(replace(rays, line_integrals=rays.line_integrals + 0.05), 2)
    assert any("offset" in note and "+0.0" in note for note in shifted.notes)
    assert shifted.mu > MU[2] * 1.02
    length = rays.lengths[:, 2]
    hardened = rays.line_integrals - 0.4 * (length * MU[2]) ** 2 / 2
    bent = mu_from_alone_rays(replace(rays, line_integrals=hardened), 2)
    assert any("long rays" in note for note in bent.notes)


def test_mu_notes__phase_fringes_are_told(traced):
    rays = _measured(traced, 5)
    rng = np.random.default_rng(1)
    fringe = np.where(rays.near_edge, rng.choice([-0.15, 0.1], len(rays)), 0.0)
    fringed = mu_from_alone_rays(replace(rays, line_integrals=rays.line_integrals + fringe), 2)
    assert any("phase fringes" in note for note in fringed.notes)
    assert fringed.mu == pytest.approx(MU[2], rel=1e-2)  # the margin keeps them out


def test_mu_fit_picture__is_a_png_with_equal_bytes_for_equal_numbers(traced):
    rays = _measured(traced, 6)
    first, second = (mu_fit_picture(rays, 2, name="loop") for _ in "ab")
    assert first == second
    picture = Image.open(io.BytesIO(first))
    picture.load()
    assert picture.format == "PNG"
    assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 10
    shown, fit = alone_fit(rays, 2)
    assert len(shown) == len(fit.residuals)
    with pytest.raises(InputError, match="crossed alone"):
        mu_fit_picture(rays, 3)


def _volume(seed: int, noise: float = 900.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    clean = np.array([0.0, *MU.values()])[_phantom()]
    return clean + rng.normal(0, noise, clean.shape)


def test_mu_from_volume__intervals_cover_the_truth():
    labels = _phantom()
    hits, z = 0, []
    for seed in range(20):
        volume = _volume(seed)
        volume[np.random.default_rng(seed + 99).random(volume.shape) < 0.02] = 5e4  # and 2 % of sparks
        for label, true in MU.items():
            estimate = mu_from_volume(volume, labels, label, seed=seed, erosion=1)
            # The median of 98 % normal and 2 % far above lies at the quantile 0.5/0.98.
            shifted = true + 900 * 0.0256
            hits += estimate.low <= shifted <= estimate.high
            z.append((estimate.mu - shifted) / estimate.standard_error)
    assert hits >= 52  # of 60: 57 ± 1.7, three of them below
    assert 0.6 < np.std(z) < 1.4


def test_mu_from_volume__refuses_what_erosion_leaves_nothing_of_and_misfits():
    labels, volume = _phantom(), _volume(0)
    with pytest.raises(InputError, match="lower erosion"):
        mu_from_volume(volume, labels, 3, erosion=4)
    with pytest.raises(InputError, match="no voxel of label 5"):
        mu_from_volume(volume, labels, 5)
    with pytest.raises(InputError, match="one shape"):
        mu_from_volume(volume[1:], labels, 1)
    with pytest.raises(InputError, match="finite"):
        mu_from_volume(np.full(labels.shape, np.nan), labels, 1)


def test_mu_from_volume__notes_an_offset_of_the_air_and_fringed_rims():
    labels, volume = _phantom(), _volume(1)
    assert mu_from_volume(volume, labels, 2).notes == ()
    assert any("offset" in note for note in mu_from_volume(volume + 900.0, labels, 2).notes)
    fringed = volume.copy()
    air = np.pad(labels, 1) == 0
    beside = sum(np.roll(air, s, axis) for axis in range(3) for s in (-1, 1))[1:-1, 1:-1, 1:-1] > 0
    fringed[(labels == 2) & beside] += np.random.default_rng(2).choice(
        [-8e3, 9e3], ((labels == 2) & beside).sum()
    )
    assert any("fringes" in note for note in mu_from_volume(fringed, labels, 2).notes)


def test_mu_from_composition__is_what_was_given():
    found = mu_from_composition(MU, relative_error=0.02)
    assert found[2].mu == MU[2] and found[2].standard_error == pytest.approx(320)
    assert (found[2].low, found[2].high) == pytest.approx((1.6e4 - 627.2, 1.6e4 + 627.2))
    with pytest.raises(InputError, match="relative_error"):
        mu_from_composition(MU, relative_error=-1)
    with pytest.raises(MaterialError, match="µ ≥ 0"):
        mu_from_composition({1: -3.0})


def _one(source: str, mu: float, error: float, notes: tuple[str, ...] = ()) -> dict[int, MuEstimate]:
    return {2: MuEstimate(2, mu, mu - 2 * error, mu + 2 * error, error, source, notes=notes)}


def test_compare_mu__numbers_and_sentences():
    table = compare_mu(
        {
            "composition": _one("composition", 1.0e4, 100.0),
            "projections": _one("projections", 1.1e4, 50.0),
            "volume": _one("volume", 1.005e4, 10.0, ("the background has an offset: +3 1/m instead of 0",)),
        },
        names=NAMES,
    )
    assert list(table["reference"]) == ["composition", "composition", "projections"]
    assert list(table["source"]) == ["projections", "volume", "volume"]
    first = table.iloc[0]
    assert first["difference_percent"] == pytest.approx(10)
    assert first["difference_sigma"] == pytest.approx(1000 / np.hypot(100, 50))
    assert list(table["agrees"]) == [False, True, False]
    assert "µ of loop from projections is 10.0 % above that from composition" in first["warning"]
    assert "8.9 standard errors" in first["warning"] and "density" in first["warning"]
    assert table.iloc[1]["warning"] == "The background has an offset: +3 1/m instead of 0."
    assert "Both are measured" in table.iloc[2]["warning"] and "8.6 % below" in table.iloc[2]["warning"]


def test_compare_mu__without_errors_the_tolerance_decides_and_single_sources_have_no_row():
    table = compare_mu(
        {"composition": mu_from_composition({1: 5e3, 2: 1e4}), "volume": _one("volume", 1.005e4, 0.0)}
    )
    assert len(table) == 1 and bool(table["agrees"].iloc[0]) and np.isnan(table["difference_sigma"].iloc[0])
    with pytest.raises(InputError, match="two sources"):
        compare_mu({"volume": _one("volume", 1e4, 1.0)})


def test_sources_agree_on_the_phantom(traced):
    rays, labels, volume = _measured(traced, 8), _phantom(), _volume(8, noise=300.0)
    table = compare_mu(
        {
            "composition": mu_from_composition(MU, 0.01),
            "projections": mu_from_projections(rays).estimates,
            "volume": {label: mu_from_volume(volume, labels, label) for label in MU},
        }
    )
    assert len(table) == 9
    assert table["agrees"].all()
    assert (table["warning"] == "").all()
