"""Spectra: SpekPy's mean energy, filters that harden, undulator peaks, few energies that stand for many."""

import math
import sys

import numpy as np
import pytest

from tomoforge.errors import InputError, MaterialError, MissingComponentError
from tomoforge.optics.materials import find_material
from tomoforge.optics.spectrum import (
    Spectrum,
    filtered,
    monochromatic,
    normalised_spectrum,
    rebinned,
    tube_spectrum,
    undulator_spectrum,
)

WATER, ALUMINIUM, COPPER = find_material("water"), find_material("aluminium"), find_material("copper")


@pytest.fixture(scope="module")
def spekpy():
    return pytest.importorskip("spekpy", reason="SpekPy, which makes tube spectra, is not installed")


@pytest.fixture(scope="module")
def bremsstrahlung():
    """Kramers' law for 140 kV behind 2 mm aluminium, in bins of 0.5 keV."""
    energies = np.arange(5.25, 140.0, 0.5)
    return filtered(normalised_spectrum(energies, 140.0 / energies - 1), ALUMINIUM, 2e-3)


def moment(spectrum, order, centre=0.0):
    return float(np.dot(spectrum.weights, (np.array(spectrum.energies_kev) - centre) ** order))


# --- the record


def test_monochromatic__is_one_energy():
    beam = monochromatic(5.0)
    assert beam == Spectrum((5.0,), (1.0,))
    assert (beam.mean_energy_kev, beam.rms_width_kev) == (5.0, 0.0)


def test_spectrum__is_hashable_and_plain():
    beam = normalised_spectrum(np.array([5, 6]), np.array([1, 3], np.float32))
    assert beam in {beam}
    assert all(type(value) is float for value in beam.energies_kev + beam.weights)


def test_spectrum__mean_and_width_of_two_lines():
    beam = Spectrum((10.0, 20.0), (0.75, 0.25))
    assert beam.mean_energy_kev == pytest.approx(12.5)
    assert beam.rms_width_kev == pytest.approx(10 * math.sqrt(0.75 * 0.25))


def test_normalised_spectrum__sorts_joins_and_drops():
    beam = normalised_spectrum([20.0, 10.0, 15.0, 10.0], [2.0, 1.0, 0.0, 1.0])
    assert beam == Spectrum((10.0, 20.0), (0.5, 0.5))


@pytest.mark.parametrize(
    ("energies", "weights", "message"),
    [
        ((), (), "as many, at least one"),
        ((5.0, 6.0), (1.0,), "as many"),
        ((6.0, 5.0), (0.5, 0.5), "ascending"),
        ((5.0, 5.0), (0.5, 0.5), "ascending"),
        ((-5.0,), (1.0,), "positive"),
        ((math.nan,), (1.0,), "positive"),
        ((5.0, math.inf), (0.5, 0.5), "positive"),
        ((5.0, 6.0), (1.5, -0.5), "weights must be positive"),
        ((5.0, 6.0), (1.0, 0.0), "weights must be positive"),
        ((5.0, 6.0), (1.0, math.nan), "weights must be positive"),
        ((5.0, 6.0), (1.0, 1.0), "weights must sum to 1, got 2; normalised_spectrum"),
    ],
)
def test_spectrum__refuses_what_is_none(energies, weights, message):
    with pytest.raises(InputError, match=message):
        Spectrum(energies, weights)


@pytest.mark.parametrize(
    ("energies", "photons"),
    [([5.0], [0.0]), ([5.0], [-1.0]), ([5.0], [math.nan]), ([], []), ([5.0, 6.0], [1.0])],
)
def test_normalised_spectrum__refuses_no_photons(energies, photons):
    with pytest.raises(InputError):
        normalised_spectrum(energies, photons)


# --- filters


def test_transmission__of_one_energy_is_beer_lambert():
    mu = WATER.refractive_index(8.0).mu
    assert monochromatic(8.0).transmission(WATER, 1e-3) == pytest.approx(math.exp(-1e-3 * mu), rel=1e-12)


def test_filtered__weighs_each_energy_by_its_transmission():
    beam = Spectrum((10.0, 30.0), (0.5, 0.5))
    low, high = (math.exp(-1e-3 * ALUMINIUM.refractive_index(energy).mu) for energy in (10.0, 30.0))
    behind = filtered(beam, ALUMINIUM, 1e-3)
    assert behind.weights == pytest.approx((low / (low + high), high / (low + high)), rel=1e-12)
    assert beam.transmission(ALUMINIUM, 1e-3) == pytest.approx((low + high) / 2, rel=1e-12)


def test_filtered__hardens_with_every_layer(bremsstrahlung):
    means = [filtered(bremsstrahlung, COPPER, t).mean_energy_kev for t in (0.0, 1e-4, 1e-3, 3e-3)]
    assert means == sorted(means) and means[-1] > means[0] + 20
    # Attenuation per millimetre falls with depth: beam hardening, which a single energy never shows.
    layers = [filtered(bremsstrahlung, WATER, t).transmission(WATER, 1e-3) for t in (0.0, 0.01, 0.1)]
    assert layers == sorted(layers) and layers[-1] > layers[0] + 1e-3
    assert len({filtered(monochromatic(30.0), WATER, t) for t in (0.0, 0.01, 0.1)}) == 1


def test_filtered__order_and_slicing_do_not_matter(bremsstrahlung):
    one = filtered(filtered(bremsstrahlung, COPPER, 2e-4), ALUMINIUM, 1e-3)
    other = filtered(filtered(filtered(bremsstrahlung, ALUMINIUM, 1e-3), COPPER, 1e-4), COPPER, 1e-4)
    assert one.weights == pytest.approx(other.weights, rel=1e-9)


def test_filtered__refuses_impossible_layers():
    for thickness in (-1e-3, math.nan):
        with pytest.raises(InputError, match="zero or more metres"):
            filtered(monochromatic(8.0), WATER, thickness)
    with pytest.raises(InputError, match="lets nothing"):
        filtered(monochromatic(3.0), find_material("gold"), 1e-3)
    with pytest.raises(MaterialError, match="within the tables"):
        filtered(monochromatic(400.0), WATER, 1e-3)


# --- few energies for many


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 20])
def test_rebinned__conserves_total_mean_and_moments(bremsstrahlung, count):
    few = rebinned(bremsstrahlung, count)
    assert len(few.energies_kev) == count
    assert sum(few.weights) == pytest.approx(1.0, abs=1e-12)
    assert few.mean_energy_kev == pytest.approx(bremsstrahlung.mean_energy_kev, rel=1e-12)
    assert bremsstrahlung.energies_kev[0] <= few.energies_kev[0]
    assert few.energies_kev[-1] <= bremsstrahlung.energies_kev[-1]
    # Gauss quadrature is exact up to the moment 2·count − 1.
    for order in range(2, min(2 * count, 10)):
        assert moment(few, order, 50.0) == pytest.approx(moment(bremsstrahlung, order, 50.0), rel=1e-9)
    if count == 1:
        assert few.rms_width_kev == 0


def test_rebinned__of_a_uniform_spectrum_is_gauss_legendre():
    # Midpoints of 4000 bins from 10 to 30 keV; the bins' own width leaves 1e-7.
    energies = 10 + (np.arange(4000) + 0.5) / 4000 * 20
    few = rebinned(normalised_spectrum(energies, np.ones(4000)), 4)
    nodes, weights = np.polynomial.legendre.leggauss(4)
    assert few.energies_kev == pytest.approx(20 + 10 * nodes, rel=1e-6)
    assert few.weights == pytest.approx(weights / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("material", "thickness"), [(WATER, 1e-3), (WATER, 0.05), (COPPER, 1e-4), (COPPER, 1e-3)]
)
def test_rebinned__attenuates_like_the_whole(bremsstrahlung, material, thickness):
    whole = -math.log(bremsstrahlung.transmission(material, thickness))

    def error(count):
        return abs(-math.log(rebinned(bremsstrahlung, count).transmission(material, thickness)) / whole - 1)

    # What a scan in eight energies costs in accuracy: measured at most 0.05 %; one energy, 14–51 %.
    assert error(8) < 1e-3
    assert error(20) < 1e-4
    assert error(1) > 0.05


def test_rebinned__leaves_few_energies_alone():
    beam = Spectrum((10.0, 20.0), (0.75, 0.25))
    assert rebinned(beam, 2) is beam and rebinned(beam, 50) is beam
    assert rebinned(monochromatic(5.0), 1) == monochromatic(5.0)
    for count in (0, -1, 2.5, True):
        with pytest.raises(InputError, match="whole number from 1"):
            rebinned(beam, count)


# --- undulator


def full_width(spectrum):
    """Full width at half maximum, by linear interpolation."""
    energies, weights = np.array(spectrum.energies_kev), np.array(spectrum.weights) / max(spectrum.weights)
    top = int(np.argmax(weights))
    low = np.interp(0.5, weights[: top + 1], energies[: top + 1])
    high = np.interp(0.5, weights[top:][::-1], energies[top:][::-1])
    return high - low


@pytest.mark.parametrize("energy_kev", [4.0, 18.0])
@pytest.mark.parametrize("bandwidth", [0.002, 0.01, 0.05])
def test_undulator_spectrum__peak_and_bandwidth(energy_kev, bandwidth):
    beam = undulator_spectrum(energy_kev, bandwidth, samples=401)
    assert beam.energies_kev[int(np.argmax(beam.weights))] == pytest.approx(energy_kev, rel=1e-12)
    assert full_width(beam) == pytest.approx(bandwidth * energy_kev, rel=1e-3)  # of the interpolation
    assert beam.mean_energy_kev == pytest.approx(energy_kev, rel=1e-12)
    # The tails end at 3.5 σ: 0.4 % of the variance.
    sigma = bandwidth * energy_kev / 2.3548
    assert beam.rms_width_kev == pytest.approx(sigma, rel=5e-3)


def test_undulator_spectrum__samples_do_not_move_it():
    coarse, fine = (undulator_spectrum(8.0, 0.02, samples=n) for n in (21, 401))
    assert coarse.mean_energy_kev == pytest.approx(fine.mean_energy_kev, rel=1e-9)
    assert coarse.rms_width_kev == pytest.approx(fine.rms_width_kev, rel=1e-2)


def test_undulator_spectrum__aperture_smears_to_the_red():
    # Photons spread evenly over energies from (1 − s)E to E, convolved with the peak.
    shift, bandwidth = 0.1, 0.01
    beam = undulator_spectrum(10.0, bandwidth, aperture_shift=shift, samples=2001)
    sigma = bandwidth * 10.0 / 2.3548
    assert beam.mean_energy_kev == pytest.approx(10.0 * (1 - shift / 2), rel=1e-4)
    assert beam.rms_width_kev == pytest.approx(math.hypot(sigma, shift * 10.0 / math.sqrt(12)), rel=1e-3)


@pytest.mark.parametrize("shift", [0.0, 0.05])
def test_undulator_spectrum__harmonics_have_their_shares(shift):
    beam = undulator_spectrum(6.0, 0.01, harmonics={1: 1.0, 3: 0.05}, aperture_shift=shift, samples=401)
    third = np.array(beam.energies_kev) > 12.0
    assert np.array(beam.weights)[third].sum() == pytest.approx(0.05 / 1.05, rel=1e-12)
    # The ends of the sampled smear leave 1e-4 of the mean.
    assert beam.mean_energy_kev == pytest.approx((6.0 + 0.05 * 18.0) / 1.05 * (1 - shift / 2), rel=2e-4)


def test_undulator_spectrum__harmonics_have_one_width():
    beam = undulator_spectrum(6.0, 0.01, harmonics={1: 1.0, 3: 0.05}, samples=201)
    energies, weights = np.array(beam.energies_kev), np.array(beam.weights)
    parts = (energies < 12.0, energies > 12.0)
    widths = [full_width(normalised_spectrum(energies[part], weights[part])) for part in parts]
    assert widths == pytest.approx([0.06, 0.06], rel=2e-3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"energy_kev": -1.0, "bandwidth": 0.01},
        {"energy_kev": math.nan, "bandwidth": 0.01},
        {"energy_kev": 5.0, "bandwidth": 0.0},
        {"energy_kev": 5.0, "bandwidth": 50.0},
        {"energy_kev": 5.0, "bandwidth": 0.01, "harmonics": {}},
        {"energy_kev": 5.0, "bandwidth": 0.01, "harmonics": {-1: 1.0}},
        {"energy_kev": 5.0, "bandwidth": 0.01, "harmonics": {1: 0.0}},
        {"energy_kev": 5.0, "bandwidth": 0.01, "aperture_shift": 2.0},
        {"energy_kev": 5.0, "bandwidth": 0.01, "samples": 1},
    ],
)
def test_undulator_spectrum__refuses_what_is_out_of_range(arguments):
    with pytest.raises(InputError):
        undulator_spectrum(**arguments)


# --- tube


def test_tube_spectrum__mean_energy_of_the_published_source(spekpy):
    # 140 kV, 12 degrees: the 38.51 keV of a publication that calls the 12 a thickness.
    assert tube_spectrum(140, 12).mean_energy_kev == pytest.approx(38.51, abs=0.005)


def test_tube_spectrum__ends_at_the_voltage_and_has_the_lines_of_its_target(spekpy):
    beam = tube_spectrum(100, 12)
    energies, weights = np.array(beam.energies_kev), np.array(beam.weights)
    assert 99 < energies[-1] < 100
    # Tungsten's Kα1 at 59.32 keV stands out of the bremsstrahlung beside it.
    line = int(np.argmin(abs(energies - 59.32)))
    assert weights[line - 1 : line + 2].max() > 3 * weights[line - 8]


def test_tube_spectrum__filters_as_spekpy_does(spekpy):
    # SpekPy's own attenuation tables: mean energies within 0.1 %.
    ours = tube_spectrum(140, 12, [(ALUMINIUM, 2.0), (COPPER, 0.1)])
    theirs = spekpy.Spek(kvp=140, th=12).filter("Al", 2.0).filter("Cu", 0.1)
    assert ours.mean_energy_kev == pytest.approx(theirs.get_emean(), rel=1e-3)
    assert ours.mean_energy_kev > tube_spectrum(140, 12).mean_energy_kev + 10


def test_tube_spectrum__angle_is_that_of_the_anode(spekpy):
    # A steeper anode shades itself less: softer light.
    assert tube_spectrum(60, 20).mean_energy_kev < tube_spectrum(60, 6).mean_energy_kev


def test_tube_spectrum__rebins_to_a_few(spekpy):
    beam = tube_spectrum(140, 12, [(ALUMINIUM, 2.0)])
    few = rebinned(beam, 8)
    assert few.mean_energy_kev == pytest.approx(beam.mean_energy_kev, rel=1e-12)
    for thickness in (1e-3, 1e-2, 5e-2):
        whole = math.log(beam.transmission(WATER, thickness))
        assert math.log(few.transmission(WATER, thickness)) == pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kvp": 140, "anode_angle_deg": 0.21}, "in radians"),
        ({"kvp": 5, "anode_angle_deg": 12}, "kvp"),
        ({"kvp": 300, "anode_angle_deg": 12}, "kvp"),
        ({"kvp": math.nan, "anode_angle_deg": 12}, "kvp"),
        ({"kvp": 60, "anode_angle_deg": 12, "target": "Cu"}, "target"),
        ({"kvp": 60, "anode_angle_deg": 12, "bin_kev": 0.0}, "bin_kev"),
    ],
)
def test_tube_spectrum__refuses_what_is_out_of_range(arguments, message):
    with pytest.raises(InputError, match=message):
        tube_spectrum(**arguments)


def test_tube_spectrum__says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "spekpy", None)  # an import of it now fails
    with pytest.raises(MissingComponentError, match="pip install spekpy"):
        tube_spectrum(140, 12)
