"""True intensities of the twin: Wilson's distributions, symmetry, Friedel mates, sums over atoms."""

import gemmi
import numpy as np
import pytest
from scipy import stats

from tomoforge.absorption.structure_factors import (
    canonical_indices,
    model_intensities,
    wilson_intensities,
)
from tomoforge.errors import InputError

CELL = (41.0, 53.0, 67.0, 90.0, 90.0, 90.0)
GROUP = "P 21 21 21"
TETRAGONAL = (58.0, 58.0, 80.0, 90.0, 90.0, 90.0)


def _all_hkl(cell=CELL, group=GROUP, d_min=2.2) -> np.ndarray:
    found = gemmi.make_miller_array(
        gemmi.UnitCell(*cell), gemmi.find_spacegroup_by_name(group), d_min, 0, True
    )
    return np.asarray(found)


def _centric(hkl: np.ndarray, group: str = GROUP) -> np.ndarray:
    return np.asarray(gemmi.find_spacegroup_by_name(group).operations().centric_flag_array(hkl))


def test_wilson_intensities__acentric_are_exponential_and_centric_chi_squared():
    hkl = _all_hkl()
    flat = wilson_intensities(hkl, CELL, GROUP, mean_intensity=7.0, b_factor_a2=0.0, anomalous_ratio=0.08)
    centric = _centric(hkl)
    # Kolmogorov–Smirnov: a p of 1e-3 would come once in a thousand seeds.
    assert stats.kstest(flat[~centric] / 7.0, stats.expon.cdf).pvalue > 1e-3
    epsilon = gemmi.find_spacegroup_by_name(GROUP).operations().epsilon_factor_without_centering_array(hkl)
    assert stats.kstest((flat / epsilon)[centric] / 7.0, stats.chi2(1).cdf).pvalue > 1e-3
    # Wilson's ratios ⟨I²⟩/⟨I⟩² are 2 and 3; their standard errors are √(20/n) and √(96/n)·…, five allowed.
    for part, want in ((~centric, 2), (centric, 3)):
        values = (flat / epsilon)[part]
        assert np.mean(values**2) / np.mean(values) ** 2 == pytest.approx(
            want, abs=5 * 2 * want / np.sqrt(part.sum())
        )


def test_wilson_intensities__special_reflections_are_stronger_by_epsilon():
    # 0 0 l of P 4: the fourfold axis leaves them alone, ε = 4. Many seeds, few reflections.
    hkl = np.array([[0, 0, n] for n in range(1, 11)])
    mean = np.mean([wilson_intensities(hkl, TETRAGONAL, "P 4", mean_intensity=1.0, b_factor_a2=0, seed=s)
                    for s in range(400)])  # fmt: skip
    assert mean == pytest.approx(4, abs=5 * 4 / np.sqrt(4000))  # exponential: spread is the mean


@pytest.mark.parametrize("group", ["P 41 21 2", "P 4", "P 1", "P 6 2 2", "C 1 2 1", "F 2 3", "P m", "P -1"])
def test_wilson_intensities__equivalents_agree_and_mates_differ_as_the_point_group_says(group):
    system = gemmi.find_spacegroup_by_name(group).crystal_system_str()
    cell = {
        "hexagonal": (58, 58, 80, 90, 90, 120), "cubic": (60, 60, 60, 90, 90, 90),
        "monoclinic": (31, 37, 45, 90, 103, 90), "triclinic": (31, 37, 45, 80, 103, 95),
    }.get(system, TETRAGONAL)  # fmt: skip
    rng = np.random.default_rng(3)
    hkl = rng.integers(-9, 10, (400, 3))
    operations = gemmi.find_spacegroup_by_name(group).operations()
    hkl = hkl[hkl.any(axis=1) & ~operations.systematic_absences(hkl.astype(np.int32))]
    arguments = (cell, group)
    first = wilson_intensities(hkl, *arguments, anomalous_ratio=0.1)
    for operation in operations.sym_ops:
        turned = np.array([operation.apply_to_hkl(h) for h in hkl.tolist()])
        # The same draw: only ε, d and absences are worked out anew, to rounding.
        np.testing.assert_allclose(
            wilson_intensities(turned, *arguments, anomalous_ratio=0.1), first, rtol=1e-12
        )
    mates = wilson_intensities(-hkl, *arguments, anomalous_ratio=0.1)
    centric = _centric(hkl.astype(np.int32), group)
    np.testing.assert_allclose(mates[centric], first[centric], rtol=1e-12)
    if (~centric).any():
        assert np.all(np.abs(mates / first - 1)[~centric] > 1e-9)
    np.testing.assert_array_equal(
        wilson_intensities(hkl, *arguments), wilson_intensities(-hkl, *arguments)
    )  # no anomalous signal


@pytest.mark.parametrize("wished", [0.01, 0.06, 0.3, 0.6])
def test_wilson_intensities__anomalous_ratio_is_the_one_wished_for(wished):
    hkl = _all_hkl(d_min=1.9)
    hkl = hkl[~_centric(hkl)]
    plus = np.sqrt(wilson_intensities(hkl, CELL, GROUP, b_factor_a2=0, anomalous_ratio=wished, seed=2))
    minus = np.sqrt(wilson_intensities(-hkl, CELL, GROUP, b_factor_a2=0, anomalous_ratio=wished, seed=2))
    got = np.sqrt(2 * np.mean((plus - minus) ** 2) / np.mean(plus**2 + minus**2))
    # (ΔF)² of near normal differences has a relative spread of √2 or a little more: half of it on the root.
    assert got == pytest.approx(wished, rel=5 * 1.0 / np.sqrt(len(hkl)))


def test_wilson_intensities__fall_off_is_b():
    hkl = _all_hkl()
    b = 25.0
    falling = wilson_intensities(hkl, CELL, GROUP, b_factor_a2=b)
    flat = wilson_intensities(hkl, CELL, GROUP, b_factor_a2=0)
    stol2 = 1 / (4 * np.array([gemmi.UnitCell(*CELL).calculate_d(h) for h in hkl.tolist()]) ** 2)
    np.testing.assert_allclose(falling, flat * np.exp(-2 * b * stol2), rtol=1e-10)


def test_wilson_intensities__do_not_depend_on_company_but_on_the_seed():
    hkl = _all_hkl()
    hkl = hkl[~_centric(hkl)]  # ε and the distribution are then the same for all
    whole = wilson_intensities(hkl, CELL, GROUP, b_factor_a2=0, seed=4)
    part = wilson_intensities(hkl[100:3:-7], CELL, GROUP, b_factor_a2=0, seed=4)
    np.testing.assert_array_equal(part, whole[100:3:-7])
    other = wilson_intensities(hkl, CELL, GROUP, b_factor_a2=0, seed=5)
    # Independent: the correlation of n pairs is 0 ± 1/√n.
    assert abs(np.corrcoef(whole, other)[0, 1]) < 5 / np.sqrt(len(hkl))


def test_wilson_intensities__neighbouring_reflections_are_independent():
    hkl = _all_hkl()
    hkl = hkl[~_centric(hkl)]
    values = np.log(wilson_intensities(hkl, CELL, GROUP, b_factor_a2=0))
    for step in ([1, 0, 0], [0, 1, 0], [0, 0, 1]):
        beside = np.log(wilson_intensities(hkl + 2 * np.array(step), CELL, GROUP, b_factor_a2=0))
        keep = np.isfinite(beside)
        assert abs(np.corrcoef(values[keep], beside[keep])[0, 1]) < 5 / np.sqrt(keep.sum())


def test_wilson_intensities__absences_are_zero():
    got = wilson_intensities(np.array([[0, 0, 3], [0, 0, 4], [5, 0, 0]]), CELL, GROUP)
    assert got[0] == 0 and got[1] > 0 and got[2] == 0


def test_canonical_indices__one_for_each_class_as_gemmis_asymmetric_unit_counts():
    rng = np.random.default_rng(0)
    hkl = rng.integers(-12, 13, (3000, 3))
    hkl = hkl[hkl.any(axis=1)]
    group = gemmi.find_spacegroup_by_name("P 41 21 2")
    unit, operations = gemmi.ReciprocalAsu(group), group.operations()
    reduced = [unit.to_asu(h, operations) for h in hkl.tolist()]
    asu = np.array([h for h, _ in reduced])
    plus = np.array([number % 2 == 1 for _, number in reduced])
    representative, is_plus = canonical_indices(hkl, "P 41 21 2")
    pairs = np.unique(np.hstack([asu, representative]), axis=0)
    assert len(pairs) == len(np.unique(asu, axis=0)) == len(np.unique(representative, axis=0))
    # Which of two mates is called + is free, but the same for a whole class.
    acentric = ~_centric(hkl.astype(np.int32), "P 41 21 2")
    agree = (is_plus == plus)[acentric]
    classes = np.unique(representative[acentric], axis=0, return_inverse=True)[1].reshape(-1)
    share = np.bincount(classes, agree) / np.bincount(classes)
    assert set(share.tolist()) <= {0.0, 1.0}


def _structure(atoms, group: str = "P 1") -> gemmi.Structure:
    structure = gemmi.Structure()
    structure.cell = gemmi.UnitCell(*CELL)
    structure.spacegroup_hm = group
    model, chain, residue = gemmi.Model(1), gemmi.Chain("A"), gemmi.Residue()
    for element, fractional, b_factor in atoms:
        atom = gemmi.Atom()
        atom.element, atom.occ, atom.b_iso = gemmi.Element(element), 0.9, b_factor
        atom.pos = structure.cell.orthogonalize(gemmi.Fractional(*fractional))
        residue.add_atom(atom)
    chain.add_residue(residue)
    model.add_chain(chain)
    structure.add_model(model)
    return structure


def test_model_intensities__one_atom_has_no_phase():
    hkl = _all_hkl(d_min=6.0)
    got = model_intensities(hkl, _structure([("S", (0.13, 0.27, 0.41), 12.0)]), 4.5)
    stol2 = 1 / (4 * np.array([gemmi.UnitCell(*CELL).calculate_d(h) for h in hkl.tolist()]) ** 2)
    sulphur = gemmi.Element("S")
    f_prime, f_second = gemmi.cromer_liberman(z=16, energy=4500)
    form = np.array([sulphur.it92.calculate_sf(s) for s in stol2])
    want = 0.81 * ((form + f_prime) ** 2 + f_second**2) * np.exp(-2 * 12.0 * stol2)
    np.testing.assert_allclose(got, want, rtol=1e-6)  # gemmi keeps occupancies and B in single precision
    assert f_second > 0.5  # the test can tell f″ from nothing


def test_model_intensities__agree_with_gemmi_but_for_the_anomalous_part():
    atoms = [("C", (0.1, 0.2, 0.3), 9.0), ("O", (0.31, 0.12, 0.43), 15.0), ("N", (0.2, 0.4, 0.1), 11.0)]
    structure, hkl = _structure(atoms, GROUP), _all_hkl(d_min=5.0)
    structure.setup_cell_images()
    calculator = gemmi.StructureFactorCalculatorX(structure.cell)
    energy_kev = 17.0  # light atoms far above their edges: f″ below 0.01 electrons
    for element in ("C", "O", "N"):
        z = gemmi.Element(element).atomic_number
        calculator.addends.set(gemmi.Element(element), gemmi.cromer_liberman(z=z, energy=1e3 * energy_kev)[0])
    want = np.array([abs(calculator.calculate_sf_from_model(structure[0], h)) ** 2 for h in hkl.tolist()])
    got = model_intensities(hkl, structure, energy_kev)
    # f″ of 0.01 beside 6 electrons, squared or in products with as small a phase; on weak ones absolutely.
    np.testing.assert_allclose(got, want, rtol=5e-3, atol=1e-3 * want.mean())


def test_model_intensities__symmetry_holds_and_only_mixed_elements_tell_mates_apart():
    rng = np.random.default_rng(1)
    places = rng.uniform(0, 1, (6, 3))
    mixed = _structure([(e, tuple(p), 10.0) for e, p in zip("CCNOSS", places, strict=True)], GROUP)
    alike = _structure([("S", tuple(p), 10.0) for p in places], GROUP)
    hkl = _all_hkl(d_min=6.0)
    first = model_intensities(hkl, mixed, 4.0)
    np.testing.assert_allclose(model_intensities(hkl * [-1, -1, 1], mixed, 4.0), first, rtol=1e-8, atol=1e-6)
    mates = model_intensities(-hkl, mixed, 4.0)
    centric = _centric(hkl)
    np.testing.assert_allclose(mates[centric], first[centric], rtol=1e-8, atol=1e-6)
    assert np.median(np.abs(mates / first - 1)[~centric]) > 5e-3
    np.testing.assert_allclose(
        model_intensities(-hkl, alike, 4.0), model_intensities(hkl, alike, 4.0), rtol=1e-8, atol=1e-6
    )


def test_model_intensities__refuses_a_model_without_atoms():
    with pytest.raises(InputError, match="atoms"):
        model_intensities(np.array([[1, 2, 3]]), gemmi.Structure(), 4.0)


@pytest.mark.parametrize(
    ("hkl", "change", "message"),
    [
        ([[1.0, 2.0, 3.0]], {}, "integers"),
        ([[1, 2]], {}, "integers"),
        ([[1 << 20, 0, 0]], {}, "below"),
        ([[1, 2, 3]], {"mean_intensity": 0.0}, "mean_intensity"),
        ([[1, 2, 3]], {"b_factor_a2": -1.0}, "b_factor"),
        ([[1, 2, 3]], {"anomalous_ratio": 0.7}, "anomalous_ratio"),
        ([[1, 2, 3]], {"anomalous_ratio": float("nan")}, "anomalous_ratio"),
    ],
)
def test_wilson_intensities__refuses(hkl, change, message):
    with pytest.raises(InputError, match=message):
        wilson_intensities(np.array(hkl), CELL, GROUP, **change)
