"""Every number of quality answers to its own defect, and keeps still for the others."""

from dataclasses import fields, replace

import numpy as np
import pytest

from tests.library.reconstruction.phantoms import disc_sinogram
from tomoforge.errors import InputError
from tomoforge.geometry import uniform_angles
from tomoforge.reconstruction import CentreEstimate, fbp
from tomoforge.reconstruction.quality import ReconstructionQuality, reconstruction_quality

N, ANGLES = 128, uniform_angles(210)
MIDDLE = (N - 1) / 2
DISCS = [(6.0, 3.0, 38.0, 1 / 40), (14.0, 12.0, 9.0, 0.02), (-16.0, -6.0, 8.0, -0.015)]
SURE = CentreEstimate(MIDDLE, 0.0, True, (0,), (MIDDLE,), MIDDLE, (48.0, 80.0))


def measured(
    noise: float = 0.008,
    gain: float = 0.0,
    discs: list[tuple[float, float, float, float]] = DISCS,
    angles: np.ndarray = ANGLES,
    estimate: CentreEstimate | None = SURE,
) -> ReconstructionQuality:
    row = disc_sinogram(N, angles, MIDDLE, discs)
    rng = np.random.default_rng(17)
    integrals = row[:, np.newaxis].repeat(2, axis=1) + rng.normal(0, noise, (angles.size, 2, N))
    for column in (40, 70, 85, 98):
        integrals[:, :, column] += gain
    integrals = integrals.astype(np.float32)
    return reconstruction_quality(fbp(integrals, angles, 1.0), integrals, angles, MIDDLE, estimate)


def test_quality__noise_is_that_of_the_projections() -> None:
    alone = np.random.default_rng(18).normal(0, 0.02, (ANGLES.size, 1, N)).astype(np.float32)
    true = fbp(alone, ANGLES, 1.0)[0, 32:-32, 32:-32].std()
    # 5 % of it is too smooth to be told from the sample, which in turn leaves a little of its edges.
    assert measured(0.02).noise == pytest.approx(true, rel=0.1)
    assert measured(0.06).noise == pytest.approx(3 * true, rel=0.1)


def test_quality__rings_are_counted_as_rings_and_not_as_noise() -> None:
    clean, striped = measured(), measured(gain=0.04)
    assert striped.ring_strength > 2.5 * clean.ring_strength
    assert striped.noise == pytest.approx(clean.noise, rel=0.1)
    assert measured(0.02).ring_strength < measured(0.02).noise / 4


def test_quality__a_sample_that_leaves_the_field_shows_at_its_edge() -> None:
    assert measured().edge_residual < 0.02
    wide = measured(discs=[(6.0, 3.0, 75.0, 1 / 75)])
    assert wide.edge_residual > 0.3


def test_quality__angles_that_are_missing_are_counted() -> None:
    assert measured().angular_completeness == pytest.approx(1, abs=1e-6)
    wedge = np.linspace(0, np.radians(120), 140, endpoint=False)
    # 60 of 180 degrees, less the step that a gap has anyway
    assert measured(angles=wedge).angular_completeness == pytest.approx(2 / 3, abs=0.02)
    turn = uniform_angles(360, 2 * np.pi)
    assert measured(angles=turn).angular_completeness == pytest.approx(1, abs=1e-6)
    few = measured(angles=uniform_angles(50))
    assert few.angular_sampling == pytest.approx(50 / (np.pi / 2 * N))
    assert few.angular_completeness == pytest.approx(1, abs=1e-6)
    assert measured().angular_sampling == 1.0


def test_quality__the_axis_is_trusted_as_its_witnesses_agree() -> None:
    assert measured().centre_confidence == 1.0
    assert measured(estimate=replace(SURE, spread=1.0)).centre_confidence == pytest.approx(0.5)
    assert measured(estimate=replace(SURE, opposite=MIDDLE + 3)).centre_confidence == pytest.approx(0.1)
    assert measured(estimate=replace(SURE, centre=80.0, opposite=80.0)).centre_confidence == 0.0
    assert np.isnan(measured(estimate=None).centre_confidence)


def test_quality__each_number_keeps_still_for_the_defects_of_others() -> None:
    clean = measured()
    defects = {
        "noise": measured(0.016),
        "ring_strength": measured(gain=0.04),
        "centre_confidence": measured(estimate=replace(SURE, spread=2.0)),
    }
    allowed = {"ring_strength": clean.noise}  # noise leaves a little in the mean over a ring
    for own, broken in defects.items():
        for field in fields(ReconstructionQuality):
            if field.name != own:
                before, after = getattr(clean, field.name), getattr(broken, field.name)
                assert after == pytest.approx(before, rel=0.1, abs=allowed.get(field.name, 0.01)), (
                    own,
                    field,
                )


def test_quality__refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="same rows"):
        reconstruction_quality(np.zeros((2, 8, 8)), np.zeros((5, 3, 8)), uniform_angles(5), 3.5)
