"""Several exit planes through the depth of a sample, against many, and the automatic choice."""

from dataclasses import replace

import numpy as np
import pytest

from tomoforge.errors import InputError
from tomoforge.geometry import ScanGeometry
from tomoforge.optics.forward import SpectralLine, spectral_intensity, transmitted_intensity
from tomoforge.optics.materials import RefractiveIndex, find_material
from tomoforge.optics.planes import automatic_planes, choose_planes, planes_error, sample_depth
from tomoforge.units import kev_to_wavelength

VACUUM = RefractiveIndex(0.0, 0.0, 0.0)
NAMES = ("ammonium_sulfate_liquor", "nylon", "ammonium_sulfate_crystal")


def section(n: int, voxel: float) -> np.ndarray:
    """One row of a 290 µm crystal in liquor in a loop: (1, y, x) uint8."""
    y, x = (np.indices((n, n)) - (n - 1) / 2) * voxel * 1e6
    labels = np.zeros((n, n), np.uint8)
    labels[(x / 145) ** 2 + (y / 120) ** 2 < 1] = 1
    for cx, cy in ((-138, 0), (100, 85)):
        labels[(x - cx) ** 2 + (y - cy) ** 2 < 10**2] = 2
    u, v = x * np.cos(0.3) + y * np.sin(0.3), y * np.cos(0.3) - x * np.sin(0.3)
    labels[(np.abs(u - 20) < 80) & (np.abs(v + 10) < 60)] = 3
    return labels[None]


def line_at(energy_kev: float) -> SpectralLine:
    constants = (VACUUM, *(find_material(name).refractive_index(energy_kev) for name in NAMES))
    return SpectralLine(kev_to_wavelength(energy_kev), 1.0, constants)


@pytest.mark.parametrize("energy_kev", [3.0, 5.0, 12.0])
@pytest.mark.parametrize(
    ("voxel", "columns", "distance"), [(0.3e-6, 1024, 5e-3), (1e-6, 320, 5e-3), (1e-6, 320, 0.05)]
)
def test_automatic_planes__stay_within_half_a_per_cent_of_300_planes(energy_kev, voxel, columns, distance):
    labels, line = section(columns, voxel), line_at(energy_kev)
    geometry = ScanGeometry(np.array([0.0, 0.7, 1.4]), voxel, distance)
    depth = sample_depth(labels, voxel)
    planes = automatic_planes(labels, voxel, [line], geometry, distance=distance, depth=depth)
    assert planes < 20

    def intensity(count: int) -> np.ndarray:
        # Another angle than those of the check.
        return spectral_intensity(
            labels, voxel, [line], geometry, np.array([1.1]), 0.0, planes=count, depth_extent=depth
        )

    reference = intensity(300)
    error = np.sqrt(np.mean((intensity(planes) - reference) ** 2)) / reference.std()
    assert error < 5e-3


def test_choose_planes__follows_depth_and_wavelength():
    def chosen(energy_kev: float, pixel: float, distance: float) -> int:
        return choose_planes(300e-6, pixel, kev_to_wavelength(energy_kev), distance)

    assert [chosen(e, 0.3e-6, 5e-3) for e in (3.0, 5.0, 12.0)] == [9, 7, 5]
    assert [chosen(e, 1e-6, 0.05) for e in (3.0, 5.0, 12.0)] == [1, 1, 1]
    # Near the sample its depth asks for planes, with fine pixels diffraction, either alone.
    assert chosen(12.0, 1e-6, 5e-3) == chosen(12.0, 0.3e-6, 0.05) == 5
    assert chosen(1.0, 0.3e-6, 5e-3) > 20
    assert choose_planes(300e-6, 1e-6, 1e-10, 0.0) == 1  # contact
    assert choose_planes(0.0, 1e-6, 1e-10, 0.1) == 1
    with pytest.raises(InputError, match="distance must be zero or positive"):
        choose_planes(300e-6, 1e-6, 1e-10, -1.0)
    with pytest.raises(InputError, match="wavelength must be positive"):
        choose_planes(300e-6, 1e-6, np.nan, 1.0)


def test_planes_error__tells_one_plane_from_enough():
    voxel, distance = 0.5e-6, 5e-3
    labels, line = section(600, voxel), line_at(3.0)
    geometry = ScanGeometry(np.array([0.4]), voxel, distance)
    depth = sample_depth(labels, voxel)
    fine = spectral_intensity(
        labels, voxel, [line], geometry, geometry.angles, 0.0, planes=101, depth_extent=depth
    )
    for planes in (1, 5, 9):
        got = spectral_intensity(
            labels, voxel, [line], geometry, geometry.angles, 0.0, planes=planes, depth_extent=depth
        )
        true = np.sqrt(np.mean((got - fine) ** 2)) / fine.std()
        found = planes_error(labels, voxel, [line], geometry, geometry.angles, planes, depth_extent=depth)
        assert 0.6 * true < found < 3 * true  # an estimate
    empty = planes_error(np.zeros_like(labels), voxel, [line], geometry, geometry.angles, 5)
    assert empty == 0.0


def test_automatic_planes__serve_the_longest_wavelength_that_matters():
    voxel, distance = 0.5e-6, 5e-3
    labels, soft, hard = section(600, voxel), line_at(2.0), line_at(12.0)
    geometry = ScanGeometry(np.array([0.0, 0.7, 1.4]), voxel, distance)
    depth = sample_depth(labels, voxel)

    def chosen(*lines: SpectralLine) -> int:
        return automatic_planes(labels, voxel, lines, geometry, distance=distance, depth=depth)

    assert chosen(hard, soft) == chosen(soft) > chosen(hard)
    assert chosen(hard, replace(soft, weight=1e-3)) == chosen(hard)  # a trace of it does not count


@pytest.mark.parametrize("side", [-1, 1])
def test_planes__a_bead_downstream_is_nearer_to_the_detector(side):
    # At angle 0 the beam travels towards +y. A bead at depth w must look as one on the axis seen from z − w.
    n, voxel, distance, depth = 200, 1e-6, 4e-3, 80e-6
    z, y, x = np.indices((24, n, n)) - np.array([23, n - 1, n - 1])[:, None, None, None] / 2
    constants = [VACUUM, RefractiveIndex(1e-5, 0.0, 0.0)]
    wavelength = 2.5e-10

    def seen(shift: float, distance: float, planes: int) -> np.ndarray:
        labels = (x**2 + (y - shift / voxel) ** 2 + z**2 < 8**2).astype(np.uint8)
        geometry = ScanGeometry(np.zeros(1), voxel, distance)
        return transmitted_intensity(
            labels, voxel, constants, geometry, np.zeros(1), wavelength, 0.0, planes=planes
        )[0]

    off_axis = seen(side * depth, distance, 41)
    right = seen(0.0, distance - side * depth, 1)
    wrong = seen(0.0, distance + side * depth, 1)
    middle = seen(0.0, distance, 1)
    scale = np.sqrt(np.mean((wrong - right) ** 2))
    assert np.sqrt(np.mean((off_axis - right) ** 2)) < 0.1 * scale  # planes 5 µm apart
    assert np.sqrt(np.mean((off_axis - middle) ** 2)) > 0.4 * scale


def test_planes__refused_where_worse_than_one():
    labels = section(64, 5e-6)
    geometry = ScanGeometry(np.zeros(1), 5e-6, 0.1)
    for planes in (0, 2, 3, 4, 2.5, True):
        with pytest.raises(InputError, match="planes must be 1 or at least 5"):
            spectral_intensity(labels, 5e-6, [line_at(5.0)], geometry, np.zeros(1), 0.0, planes=planes)


def test_sample_depth__is_the_circle_about_the_axis():
    labels = np.zeros((2, 11, 11), np.uint8)
    assert sample_depth(labels, 1e-6) == 0.0
    labels[1, 5, 9] = 1  # four voxels from the axis
    assert sample_depth(labels, 1e-6) == pytest.approx(2e-6 * (4 + np.sqrt(0.5)), rel=1e-12, abs=0)
