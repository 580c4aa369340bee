"""Packings: no overlap by an independent search, fractions, sizes by Kolmogorov–Smirnov, voxels by distance."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.spatial import cKDTree
from scipy.stats import kstest

from tomoforge.errors import InputError
from tomoforge.samples.granular import (
    PackingPlan,
    Phase,
    draw_packing,
    pack,
    packing_slab,
    voxelize_packing,
)

EQUAL = (Phase("active", 1.0, 5e-6),)
LOGNORMAL = (Phase("active", 1.0, 5e-6, "lognormal", 0.3),)
TWO = (
    Phase("active", 0.8, 6e-6, "lognormal", 0.2),
    Phase("additive", 0.2, 2.5e-6, "uniform", 0.3),
)


def worst_overlap(packing):
    """Largest r_i + r_j − distance and r − distance to a wall, by a k-d tree over all near pairs."""
    sides, radii = np.array(packing.box), packing.radii
    corner = packing.centres + sides / 2  # a k-d tree with images counts from the corner
    if packing.periodic:
        assert ((corner >= 0) & (corner <= sides)).all()
        corner = np.where(corner >= sides, 0.0, corner)
        tree = cKDTree(corner, boxsize=sides)
    else:
        tree = cKDTree(corner)
    i, j = tree.query_pairs(2.2 * radii.max(), output_type="ndarray").T
    apart = corner[i] - corner[j]
    if packing.periodic:
        apart -= sides * np.round(apart / sides)
    overlaps = [radii[i] + radii[j] - np.linalg.norm(apart, axis=1)]
    if not packing.periodic:
        overlaps.append((np.abs(packing.centres) + radii[:, None] - sides / 2).ravel())
    return max((float(o.max()) for o in overlaps if len(o)), default=-np.inf)


def labels_by_distance(packing, shape, voxel):
    """Each voxel's label from its distance to each particle and its images, all voxels at once."""
    axes = [(np.arange(n) - (n - 1) / 2) * voxel for n in shape]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    points = (x, y, z)[: packing.dimensions]
    labels = np.zeros(shape, np.uint8)
    for centre, radius, phase in zip(packing.centres, packing.radii, packing.phase, strict=True):
        square = 0.0
        for axis, values in enumerate(points):
            d = values - centre[axis]
            if packing.periodic:
                d = d - packing.box[axis] * np.round(d / packing.box[axis])
            square = square + d**2
        labels[square <= radius**2] = phase + 1
    return labels


# --- sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "phase", [Phase("a", 1.0, 3.0, "lognormal", 0.4), Phase("a", 1.0, 3.0, "uniform", 0.6)]
)
def test_phase__moments_are_integrals_of_its_quantile(phase):
    assert phase.moment(1) == pytest.approx(phase.mean_radius, rel=1e-12)
    for order in (1, 2, 3):
        integral, error = quad(lambda p, n=order: float(phase.quantile(p)) ** n, 0, 1, epsabs=1e-9)
        # quad's own estimate of its error bounds the difference.
        assert phase.moment(order) == pytest.approx(integral, abs=10 * error)


@pytest.mark.parametrize(
    "phase", [Phase("a", 1.0, 3.0, "lognormal", 0.4), Phase("a", 1.0, 3.0, "uniform", 0.6)]
)
def test_phase__cdf_inverts_its_quantile_within_its_limits(phase):
    p = np.linspace(0, 1, 41)
    assert phase.cdf(phase.quantile(p)) == pytest.approx(p, abs=1e-12)
    low, high = phase.limits
    assert phase.cdf([0.0, 0.99 * low, 1.01 * high]).tolist() == [0.0, 0.0, 1.0]
    if phase.kind == "lognormal":  # cut 2.5 standard deviations either side of the median
        assert np.log(high / low) == pytest.approx(5 * phase.spread)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dimensions", [2, 3])
def test_pack__sizes_follow_their_distribution(dimensions, seed):
    phases = (Phase("a", 0.6, 5e-6, "lognormal", 0.3), Phase("b", 0.4, 4e-6, "uniform", 0.5))
    side = {2: 350e-6, 3: 90e-6}[dimensions]
    packing = pack(phases, 0.5, (side,) * dimensions, dimensions, seed=seed)
    for i, phase in enumerate(phases):
        radii = packing.radii[packing.phase == i]
        assert len(radii) > 300
        assert kstest(radii, phase.cdf).pvalue > 0.01
        # The share to within half the coarsest particle and its make-up in the finer phase.
        assert packing.phase_shares()[phase.name] == pytest.approx(phase.share, rel=0.03)


@pytest.mark.parametrize(
    ("dimensions", "side", "fraction"), [(3, 60e-6, 0.72), (2, 200e-6, 0.89)], ids=["spheres", "discs"]
)
def test_pack__sizes_follow_their_distribution_where_particles_were_left_out(dimensions, side, fraction):
    packings = [pack(LOGNORMAL, fraction, (side,) * dimensions, dimensions, seed=seed) for seed in range(4)]
    for packing in packings:
        assert packing.left_out > 0.02 * len(packing.radii)
        assert packing.packing_fraction < 0.99 * fraction
        assert worst_overlap(packing) <= 0
    # Together they would show a preference for one size that each alone hides: in those that stayed, and
    # more so in those that did not. A loose packing of the same seed has all that were drawn.
    gone = []
    for seed, packing in enumerate(packings):
        drawn = len(packing.radii) + packing.left_out
        loose = pack(LOGNORMAL, 0.3, (2 * side,) * dimensions, dimensions, seed=seed).radii[:drawn]
        assert len(loose) == drawn
        gone.append(np.setdiff1d(loose, packing.radii))
        assert len(gone[-1]) == packing.left_out
    assert kstest(np.concatenate([packing.radii for packing in packings]), LOGNORMAL[0].cdf).pvalue > 0.01
    assert kstest(np.concatenate(gone), LOGNORMAL[0].cdf).pvalue > 0.01


# --- no overlap, and the fraction -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phases", "fraction", "sides"),
    [
        (EQUAL, 0.60, (80e-6, 80e-6, 80e-6)),
        (EQUAL, 0.30, (40e-6, 90e-6, 60e-6)),
        (LOGNORMAL, 0.64, (80e-6, 80e-6, 80e-6)),
        (TWO, 0.55, (70e-6, 80e-6, 60e-6)),
        (EQUAL, 0.80, (250e-6, 250e-6)),
        (TWO, 0.75, (150e-6, 200e-6)),
    ],
)
def test_pack__reaches_the_fraction_without_overlap(phases, fraction, sides):
    packing = pack(phases, fraction, sides, len(sides))
    assert packing.packing_fraction == pytest.approx(fraction, rel=0.01)
    assert packing.left_out == 0
    volume = {2: np.pi * packing.radii**2, 3: 4 / 3 * np.pi * packing.radii**3}[len(sides)].sum()
    assert packing.packing_fraction == pytest.approx(volume / np.prod(sides), rel=1e-12)
    assert packing.largest_overlap <= 0
    assert worst_overlap(packing) <= 0
    # The reported gap is the smallest one; coordinates of 1e-4 m leave rounding of 1e-20 m.
    assert packing.largest_overlap == pytest.approx(worst_overlap(packing), abs=1e-18)


def test_pack__denser_than_random_packings_go_reports_what_it_reached():
    packing = pack(EQUAL, 0.70, (70e-6, 70e-6, 70e-6), seed=1)
    assert packing.requested_fraction == 0.70
    assert worst_overlap(packing) <= 0
    # Equal spheres jam at random near 0.64; crystalline order would be needed for more.
    assert 0.61 < packing.packing_fraction < 0.66
    drawn = len(packing.radii) + packing.left_out
    assert packing.packing_fraction == pytest.approx(0.70 * len(packing.radii) / drawn, rel=2e-3)
    assert (packing.radii == 5e-6).all()


@pytest.mark.parametrize("case", range(24))
def test_pack__holds_its_promises_over_a_variety(case):
    rng = np.random.default_rng(case)
    dimensions = int(rng.integers(2, 4))
    boundary = ("periodic", "bounded")[int(rng.integers(2))]
    share = rng.uniform(0.1, 0.9)
    phases = (
        Phase("a", share, rng.uniform(1, 2), "lognormal", rng.uniform(0.05, 0.5)),
        Phase("b", 1 - share, rng.uniform(0.4, 3), "uniform", rng.uniform(0.05, 0.9)),
    )
    widest = 2 * max(phase.limits[1] for phase in phases)
    # From boxes that barely hold the largest particle, where cells are fewer than three a side.
    box = rng.uniform(1.2, 4.0, dimensions) * widest
    fraction = rng.uniform(0.05, {2: 0.85, 3: 0.68}[dimensions])
    packing = pack(phases, fraction, box, dimensions, boundary, seed=case)
    assert worst_overlap(packing) <= 0
    assert packing.largest_overlap <= 0
    assert packing.periodic == (boundary == "periodic")
    assert (np.abs(packing.centres) <= np.array(box) / 2).all()
    assert len(packing.centres) == len(packing.radii) == len(packing.phase) > 0
    for i, phase in enumerate(phases):
        low, high = phase.limits
        radii = packing.radii[packing.phase == i]
        assert ((radii >= low * (1 - 1e-12)) & (radii <= high * (1 + 1e-12))).all()
    if packing.left_out == 0:
        # Half of the finest phase's largest particle, or a particle of each if they do not fit.
        finest = min(phases, key=lambda phase: phase.mean_radius)
        largest = {2: np.pi * finest.limits[1] ** 2, 3: 4 / 3 * np.pi * finest.limits[1] ** 3}[dimensions]
        spare = max(0.5 * largest, widest**dimensions)
        assert abs(packing.packing_fraction - fraction) * np.prod(box) <= spare


def test_pack__particles_much_finer_than_others_fill_the_gaps():
    phases = (Phase("coarse", 0.7, 10e-6), Phase("fine", 0.3, 1e-6))
    packing = pack(phases, 0.6, (50e-6,) * 3)
    assert packing.packing_fraction == pytest.approx(0.6, rel=0.01)
    assert worst_overlap(packing) <= 0


@pytest.mark.parametrize("boundary", ["periodic", "bounded"])
def test_pack__where_one_particle_has_room_one_stays(boundary):
    # Two spheres of 10 µm across, whose centres have a cube of 1.2 µm between walls.
    packing = pack(EQUAL, 0.7, (11.2e-6,) * 3, boundary=boundary)
    assert (len(packing.radii), packing.left_out) == (1, 1)
    assert packing.largest_overlap <= 0
    assert worst_overlap(packing) <= 0


def test_pack__same_seed_same_bytes_and_other_seeds_other_packings():
    first, again, other = (pack(TWO, 0.5, (60e-6,) * 3, seed=s) for s in (4, 4, 5))
    assert first.centres.tobytes() == again.centres.tobytes()
    assert first.radii.tobytes() == again.radii.tobytes()
    assert first.radii[:20].tolist() != other.radii[:20].tolist()


def test_pack__a_phase_draws_the_same_radii_beside_others():
    alone = pack((replace(TWO[0], share=1.0),), 0.4, (60e-6,) * 3, seed=2)
    both = pack(TWO, 0.5, (60e-6,) * 3, seed=2)
    active = both.radii[both.phase == 0]
    assert active.tolist() == alone.radii[: len(active)].tolist()


def test_pack__tells_progress_up_to_all():
    told = []
    packing = pack(LOGNORMAL, 0.5, (60e-6,) * 3, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (len(packing.radii),) * 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"packing_fraction": 0.74}, "packing_fraction must lie in"),
        ({"packing_fraction": 0.90, "dimensions": 2, "box": (1e-4, 1e-4)}, "packing_fraction must lie in"),
        ({"packing_fraction": float("nan")}, "packing_fraction must lie in"),
        ({"packing_fraction": 0.0}, "packing_fraction must lie in"),
        ({"phases": (Phase("a", 0.5, 5e-6), Phase("b", 0.4, 5e-6))}, "shares of the phases must sum to 1"),
        ({"phases": (Phase("a", 0.5, 5e-6), Phase("a", 0.5, 4e-6))}, "different names"),
        ({"phases": ()}, "phases must be"),
        ({"phases": (Phase("a", 1.0, 60e-6),)}, "mean_radius of phase a"),
        ({"phases": (Phase("a", 0.99999, 5e-6), Phase("b", 1e-5, 8e-6))}, "enough for a particle"),
        ({"box": (1e-4, 1e-4)}, "box must be 3 positive sides"),
        ({"box": 1e-4}, "box must be 3 positive sides"),
        ({"box": (1e-4, 1e-4, -1e-4)}, "box must be 3 positive sides"),
        ({"box": (1.0, 1.0, 1.0)}, "box must hold at most"),
        ({"dimensions": 4}, "dimensions must be"),
        ({"boundary": "open"}, "boundary must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_pack__refuses_what_cannot_be(changed, words):
    arguments = {"phases": EQUAL, "packing_fraction": 0.4, "box": (1e-4,) * 3, **changed}
    with pytest.raises(InputError, match=words):
        pack(**arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("background", 1.0, 1e-6), "name of a phase"),
        (("a", 0.0, 1e-6), "share of phase a"),
        (("a", 1.0, float("inf")), "mean_radius of phase a"),
        (("a", 1.0, 1e-6, "normal"), "kind of phase a"),
        (("a", 1.0, 1e-6, "lognormal"), "spread of the lognormal phase a"),
        (("a", 1.0, 1e-6, "monodisperse", 0.1), "spread of the monodisperse phase a"),
        (("a", 1.0, 1e-6, "uniform", 1.0), "spread of the uniform phase a"),
    ],
)
def test_phase__refuses_what_cannot_be(arguments, words):
    with pytest.raises(InputError, match=words):
        Phase(*arguments)


# --- voxels ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed():
    """Small packings by (dimensions, boundary)."""
    return {
        (dimensions, boundary): pack(
            TWO, 0.5, (60e-6, 48e-6, 54e-6)[:dimensions], dimensions, boundary, seed=7
        )
        for dimensions in (2, 3)
        for boundary in ("periodic", "bounded")
    }


@pytest.mark.parametrize("boundary", ["periodic", "bounded"])
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize(
    ("shape", "voxel"),
    [
        ((27, 24, 30), 2e-6),
        ((9, 12, 15), 1.5e-6),
        ((31, 40, 37), 3e-6),
        ((1, 1, 1), 1e-6),
        ((2, 33, 1), 2e-6),
    ],
    ids=["the box", "within it", "beyond it", "one voxel", "a thread"],
)
def test_voxelize_packing__each_voxel_by_its_distance(packed, dimensions, boundary, shape, voxel):
    packing = packed[dimensions, boundary]
    expected = labels_by_distance(packing, shape, voxel)
    np.testing.assert_array_equal(voxelize_packing(packing, shape, voxel), expected)


def test_voxelize_packing__slabs_are_slices_of_the_whole(packed):
    shape, voxel = (75, 40, 37), 0.8e-6
    for packing in packed.values():
        whole = voxelize_packing(packing, shape, voxel)
        for z0, z1 in ((0, 1), (0, 75), (13, 29), (74, 75)):
            np.testing.assert_array_equal(packing_slab(packing, shape, voxel, z0, z1), whole[z0:z1])


@pytest.mark.parametrize("boundary", ["periodic", "bounded"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_voxelize_packing__volumes_are_those_of_the_particles(packed, dimensions, boundary):
    packing = packed[dimensions, boundary]
    voxel = 0.5e-6
    shape = (108 if dimensions == 3 else 1, 96, 120)  # the box exactly
    labels = voxelize_packing(packing, shape, voxel)
    parts = np.bincount(labels.ravel(), minlength=3) / labels.size
    # A particle of 5 to 12 voxels is counted to a few per cent; over tens of discs or more that averages
    # to under 1 %, over hundreds of spheres to under 0.3 %.
    tolerance = {2: 1e-2, 3: 3e-3}[dimensions]
    assert parts[1:].sum() == pytest.approx(packing.packing_fraction, rel=tolerance)
    for i, phase in enumerate(packing.phases):
        share = packing.phase_shares()[phase.name] * packing.packing_fraction
        assert parts[i + 1] == pytest.approx(share, rel=3 * tolerance)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_voxelize_packing__moving_a_periodic_packing_rolls_its_voxels(packed, dimensions):
    packing, voxel = packed[dimensions, "periodic"], 2e-6
    shape = (27, 24, 30)  # the box exactly
    steps = np.array([7, -11, 5])[:dimensions]  # voxels along x, y, z
    moved = packing.centres + steps * voxel
    sides = np.array(packing.box)
    moved -= sides * np.floor(moved / sides + 0.5)
    rolled = np.roll(voxelize_packing(packing, shape, voxel), steps[::-1], axis=(0, 1, 2)[-dimensions:])
    labels = voxelize_packing(replace(packing, centres=moved), shape, voxel)
    # Rounding may decide a centre that lies on a surface to 1e-16 the other way: none does here.
    np.testing.assert_array_equal(labels, rolled)


def test_voxelize_packing__an_off_centre_sphere_lands_at_its_z_y_x():
    packing = replace(
        pack(EQUAL, 0.1, (60e-6,) * 3, boundary="bounded"),
        centres=np.array([[20e-6, -10e-6, 5e-6]]),
        radii=np.array([4.1e-6]),
        phase=np.array([0]),
    )
    where = np.argwhere(voxelize_packing(packing, (61, 61, 61), 1e-6))
    assert where.mean(axis=0) == pytest.approx([30 + 5, 30 - 10, 30 + 20])
    # Lattice points with x² + y² + z² of at most 16 number 257 (OEIS A000605); 4.1² is short of 17.
    assert len(where) == 257


def test_voxelize_packing__refuses_what_cannot_be(packed):
    packing = packed[3, "periodic"]
    with pytest.raises(InputError, match="shape must be"):
        voxelize_packing(packing, (4, 4, 0), 1e-6)
    with pytest.raises(InputError, match="voxel_size must be"):
        voxelize_packing(packing, (4, 4, 4), 0.0)
    with pytest.raises(InputError, match="range of slices"):
        packing_slab(packing, (4, 4, 4), 1e-6, 3, 5)


# --- plans ----------------------------------------------------------------------------------------------


def test_draw_packing__plans_are_plain_seeded_and_named():
    plan = draw_packing(11, 200e-6)
    assert plan == draw_packing(11, 200e-6) != draw_packing(12, 200e-6)
    assert plan.label_names() == {"background": 0, "active": 1, "additive": 2}
    plain = json.loads(json.dumps(asdict(plan)))
    phases = tuple(Phase(**phase) for phase in plain.pop("phases"))
    assert PackingPlan(phases=phases, box=tuple(plain.pop("box")), **plain) == plan


def test_draw_packing__sizes_suit_the_field_and_the_boundary_changes_only_the_box():
    for seed in range(20):
        free = draw_packing(seed)
        assert 3e-6 <= free.phases[0].mean_radius <= 10e-6
        given = draw_packing(seed, 1e-3)
        assert 0.022 <= given.phases[0].mean_radius / 1e-3 <= 0.05
        assert np.hypot(*given.box[:2]) <= 0.92e-3 * (1 + 1e-9)
        assert given.box[2] < 1e-3
        full = draw_packing(seed, 1e-3, boundary="periodic")
        assert full.box == (1e-3,) * 3
        assert full.phases == given.phases and full.packing_fraction == given.packing_fraction


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("seed", [1, 5])
def test_draw_packing__packs_to_its_fraction(dimensions, seed):
    plan = draw_packing(seed, dimensions=dimensions)
    packing = plan.pack(seed)
    # Thirty discs, the fewest, come as near as half of one of the finer; spheres in hundreds much nearer.
    assert packing.packing_fraction == pytest.approx(plan.packing_fraction, rel=0.01)
    assert worst_overlap(packing) <= 0


def test_draw_packing__refuses_what_cannot_be():
    with pytest.raises(InputError, match="field_of_view must be"):
        draw_packing(1, -1.0)
    with pytest.raises(InputError, match="boundary must be"):
        draw_packing(1, 1e-3, boundary="open")
    with pytest.raises(InputError, match="dimensions must be"):
        draw_packing(1, 1e-3, dimensions=1)
