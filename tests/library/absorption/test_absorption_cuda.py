"""Absorption's GPU kernels on the CPU: their own source, compiled for the host, against the CPU's kernels."""

import sys

import numpy as np
import pytest

from tests.library.host_cupy import COMPILER, DeviceArray, host_cupy
from tomoforge import backend
from tomoforge.absorption import kernels_cuda
from tomoforge.absorption.direction_grid import exact_stencils, grid_stencils
from tomoforge.absorption.factors import absorption_factors
from tomoforge.absorption.illumination import BeamProfile
from tomoforge.absorption.path_kernels import depth_table, length_table, pair_sums, transmission_table
from tomoforge.absorption.path_table import path_table
from tomoforge.absorption.paths import optical_depths, path_lengths
from tomoforge.absorption.quadrature import no_sums
from tomoforge.absorption.table_kernels import add_table_sums, add_weighted_sums, mixed_rows
from tomoforge.errors import InputError

VOXEL = 1e-6
MU = {1: 2e4, 2: 6e4, 3: 3e4}
EXACT = 1e-12  # float64 sums of some forty pieces in another order
SINGLE = 1e-6  # float32 tables and sixteen float32 weights


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    if COMPILER is None:
        pytest.skip("no C++ compiler to build the GPU's kernels for the host")
    return host_cupy(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def device(kernels, monkeypatch):
    """Copies an array to the device that the kernels' source stands for."""
    monkeypatch.setitem(sys.modules, "cupy", kernels)
    return kernels.asarray


def _units(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _sample() -> np.ndarray:
    labels = np.zeros((24, 28, 32), dtype=np.uint8)
    labels[4:20, 6:24, 5:22] = 1
    labels[10:22, 2:9, 18:30] = 2
    labels[7:17, 8:19, 9:18] = 3
    return labels


def _reflections(count: int, frames: int = 40) -> tuple[np.ndarray, np.ndarray]:
    angle = np.random.default_rng(0).integers(0, frames, count) * (2 * np.pi / frames)
    return np.stack([np.zeros(count), np.cos(angle), -np.sin(angle)], axis=1), _units(count, 1)


def _rays() -> np.ndarray:
    """Any direction; along the axes; in the planes of faces; all but parallel to an axis; through edges and corners."""
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    flat = _units(12, 5)
    flat[np.arange(12), np.arange(12) % 3] = 0.0
    grazing = np.repeat(axes, 3, axis=0)
    grazing[np.arange(18), (np.argmax(np.abs(grazing), axis=1) + 1) % 3] = np.tile([1e-12, -1e-18, 5e-324], 6)
    diagonal = np.indices((3, 3, 3)).reshape(3, -1).T - 1.0
    diagonal = diagonal[np.abs(diagonal).sum(axis=1) > 1]
    rays = np.concatenate([_units(20, 6), axes, -0.0 * axes + axes, flat, grazing, diagonal])
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _points(shape: tuple[int, int, int]) -> np.ndarray:
    """Corner coordinates inside, on faces, edges and corners, on the volume's faces, outside: an even number."""
    rng = np.random.default_rng(7)
    inside = rng.random((20, 3)) * shape
    on_faces = inside.copy()
    on_faces[np.arange(20), np.arange(20) % 3] = np.round(on_faces[np.arange(20), np.arange(20) % 3])
    corners = np.round(inside[:10])
    ends = np.where(rng.random((10, 3)) < 0.4, np.where(rng.random((10, 3)) < 0.5, 0.0, shape), inside[:10])
    outside = (rng.random((30, 3)) * 3 - 1) * shape
    return np.concatenate([inside, on_faces, corners, ends, outside])


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 2), (9, 8, 7), (16, 5, 11)])
def test_traversal__source_agrees_with_the_cpu(device, shape):
    grid = np.random.default_rng(sum(shape)).integers(0, 4, shape).astype(np.uint8)
    mu, points, rays = np.array([0.1, 0.3, 0.0, 0.7]), _points(shape), _rays()
    ours, theirs = depth_table(grid, mu, points, rays), depth_table(device(grid), mu, points, rays)
    assert isinstance(theirs, DeviceArray) and theirs.dtype == np.float64
    assert ours.max() > 0 and np.any(ours == 0)
    np.testing.assert_allclose(theirs.get(), ours, rtol=EXACT, atol=EXACT)
    used = np.array([3, 1])
    ours, theirs = length_table(grid, used, points, rays), length_table(device(grid), used, points, rays)
    assert theirs.shape == ours.shape and theirs.dtype == np.float32
    np.testing.assert_allclose(theirs.get(), ours, rtol=SINGLE, atol=EXACT)
    ours, theirs = (
        transmission_table(grid, mu, points, rays),
        transmission_table(device(grid), mu, points, rays),
    )
    assert theirs.shape == ours.shape and theirs.dtype == np.float32
    np.testing.assert_allclose(theirs.get(), ours, rtol=SINGLE)


def test_path_lengths__of_labels_on_a_device_agree_with_the_cpu(device):
    labels, rays = _sample(), _rays()
    points = np.random.default_rng(8).random((30, 3)) * labels.shape - 0.5
    ours = path_lengths(labels, VOXEL, points, rays, 5)
    theirs = path_lengths(device(labels), VOXEL, points, rays, 5)
    # The CPU takes the background outside the crop as the rest of the chord: the difference of two lengths of forty.
    np.testing.assert_allclose(theirs.get(), ours, rtol=EXACT, atol=40 * EXACT * VOXEL)
    assert theirs.shape == (30, len(rays), 5)
    mu = np.array([0.0, 2e4, 6e4, 3e4])
    depths = optical_depths(device(labels.astype(np.int64)), VOXEL, mu, points, rays)
    np.testing.assert_allclose(
        depths.get(), optical_depths(labels, VOXEL, mu, points, rays), rtol=EXACT, atol=EXACT
    )


def test_path_lengths__of_every_label_there_is(device):
    labels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    points, rays = np.random.default_rng(9).random((6, 3)) * 3, _units(5, 9)
    for n_materials in (256, 300):
        theirs = path_lengths(device(labels), 1.0, points, rays, n_materials)
        ours = path_lengths(labels, 1.0, points, rays, n_materials)
        np.testing.assert_allclose(theirs.get(), ours, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bytes_at_once", [2**28, 1000])
def test_pair_sums__agree_with_the_cpu(device, monkeypatch, weighted, bytes_at_once):
    monkeypatch.setattr(kernels_cuda, "_BYTES", bytes_at_once)
    rng = np.random.default_rng(10)
    grid, mu = _sample(), np.array([0.0, 0.02, 0.06, 0.03])
    points, rays = rng.random((40, 3)) * grid.shape, _rays()
    into, lift, row = rng.random((3, 40)), rng.normal(size=(20, 9)), rng.integers(0, 3, len(rays))
    weight = rng.random((3, 40)) if weighted else np.zeros((0, 0))
    ours = pair_sums(grid, mu, points, into, weight, row, rays, lift)
    theirs = pair_sums(device(grid), mu, points, device(into), weight, row, rays, lift)
    for mine, yours in zip(ours, theirs, strict=True):
        assert yours.dtype == np.float64
        np.testing.assert_allclose(yours, mine, rtol=EXACT, atol=40 * EXACT)
    assert weighted == bool(ours[3].any())


@pytest.mark.parametrize("bytes_at_once", [2**28, 5000])
@pytest.mark.parametrize(
    "stencils_of", [exact_stencils, lambda exits: grid_stencils(exits, 5)], ids=["exact", "grid"]
)
def test_interpolation__agrees_with_the_cpu(device, monkeypatch, bytes_at_once, stencils_of):
    monkeypatch.setattr(kernels_cuda, "_BYTES", bytes_at_once)
    rng = np.random.default_rng(11)
    out, row = stencils_of(_units(70, 12)), rng.integers(0, 4, 70)
    table = rng.random((len(out.nodes), 2, 150), dtype=np.float32)
    ours, theirs = mixed_rows(table, out), mixed_rows(device(table), out)
    assert theirs.dtype == np.float32
    np.testing.assert_allclose(
        theirs.get(), ours, atol=2 * SINGLE
    )  # the weights' magnitudes sum to 1.6 at most
    into, weights = rng.random((4, 2, 150), dtype=np.float32), rng.random((2, 150), dtype=np.float32) / 150
    ours, theirs = np.ones(70), np.ones(70)
    add_weighted_sums(ours, table, out, into, row, weights)
    add_weighted_sums(theirs, device(table), out, device(into), row, weights)
    assert ours.min() > 1.1
    np.testing.assert_allclose(theirs, ours, rtol=SINGLE)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bytes_at_once", [2**28, 5000])
def test_table_sums__agree_with_the_cpu(device, monkeypatch, weighted, bytes_at_once):
    monkeypatch.setattr(kernels_cuda, "_BYTES", bytes_at_once)
    rng = np.random.default_rng(13)
    out, pairs, beams = grid_stencils(_units(70, 14), 5), 150, 4
    table = rng.random((len(out.nodes), 2, pairs), dtype=np.float32)
    into, lift = (
        rng.random((beams, 2, pairs), dtype=np.float32),
        rng.normal(size=(9, pairs)).astype(np.float32),
    )
    weight = rng.random((beams, 2, pairs), dtype=np.float32) if weighted else np.zeros((0, 0, 0), np.float32)
    row, rows = rng.integers(0, beams, 70), rng.permutation(70)[:60]
    ours, theirs = no_sums(70, 9, np.float32), no_sums(70, 9, np.float32)
    for _ in range(2):
        add_table_sums(ours, rows, table, out, into, weight, row, lift)
        add_table_sums(theirs, rows, device(table), out, device(into), weight, row, lift)
    # The CPU sums 150 pairs in float32; the sums with a sign cancel, so their errors are of the largest.
    np.testing.assert_allclose(theirs.total, ours.total, rtol=SINGLE)
    np.testing.assert_allclose(theirs.squares, ours.squares, rtol=2 * SINGLE)
    np.testing.assert_allclose(theirs.lifted, ours.lifted, atol=2 * SINGLE * np.abs(ours.lifted).max())
    np.testing.assert_allclose(theirs.cross, ours.cross, atol=2 * SINGLE * pairs)
    assert weighted == bool(ours.cross.any())


PROFILE = BeamProfile("gaussian", 8e-6, 5e-6, offset=(1e-6, 0.0))


@pytest.mark.parametrize("profile", [None, PROFILE], ids=["bathed", "profile"])
@pytest.mark.parametrize(("method", "count"), [("direct", 25), ("table", 300)])
def test_absorption_factors__of_labels_on_a_device_agree_with_the_cpu(device, method, count, profile):
    options = {
        "method": method, "target_error": 1e-2, "profile": profile, "air_path": 1e-4,
        "mu_standard_error": {0: 0.5, 1: 200.0, 3: 500.0}, "max_points": 1024,
    }  # fmt: skip
    mu = MU | {0: 10.0}
    ours = absorption_factors(_sample(), VOXEL, mu, *_reflections(count), **options)
    theirs = absorption_factors(device(_sample()), VOXEL, mu, *_reflections(count), **options)
    tolerance = {"direct": 10 * EXACT, "table": SINGLE}[ours.method]
    np.testing.assert_allclose(theirs.a, ours.a, rtol=tolerance)
    # A small difference of large sums, float32 where a table is: a part in a thousand of an error does no harm.
    np.testing.assert_allclose(theirs.standard_error, ours.standard_error, rtol=1e-3)
    np.testing.assert_allclose(theirs.mu_error, ours.mu_error, rtol=1e-5)  # float32 lengths and exponentials
    np.testing.assert_array_equal(theirs.n_points, ours.n_points)
    assert theirs.method == ours.method and isinstance(theirs.a, np.ndarray)
    if profile is not None:
        np.testing.assert_array_equal(theirs.illuminated_fraction, ours.illuminated_fraction)


def test_absorption_factors__with_points_of_their_own_on_a_device_agree_with_the_cpu(device):
    labels = np.full((12, 12, 12), 3, dtype=np.uint8)
    # Reflected by a cube of 72 absorption lengths: a few voxels at its face carry all of A.
    arguments = (VOXEL, {3: 6 / VOXEL}, np.array([0, 1.0, 0]), np.array([[0, -1.0, 0], [0.6, -0.8, 0]]))
    ours = absorption_factors(labels, *arguments, method="direct", max_points=2**14)
    theirs = absorption_factors(device(labels), *arguments, method="direct", max_points=2**14)
    np.testing.assert_allclose(theirs.a, ours.a, rtol=10 * EXACT)
    np.testing.assert_array_equal(theirs.n_points, ours.n_points)


def test_path_table__of_labels_on_a_device_agrees_with_the_cpu(device):
    arguments = (VOXEL, *_reflections(400))
    ours = path_table(_sample(), *arguments, n_points=256, profile=PROFILE)
    theirs = path_table(device(_sample()), *arguments, n_points=256, profile=PROFILE)
    assert isinstance(theirs.into, DeviceArray)
    np.testing.assert_allclose(
        theirs.factors(MU), ours.factors(MU), rtol=3 * SINGLE
    )  # float32 depths as well
    derivatives = ours.derivatives(MU)
    np.testing.assert_allclose(theirs.derivatives(MU), derivatives, atol=1e-5 * np.abs(derivatives).max())


def test_absorption_factors__refuse_on_a_device_what_the_cpu_refuses(device):
    with pytest.raises(InputError, match="crystal_label"):
        absorption_factors(device(np.ones((3, 3, 3), np.uint8)), VOXEL, MU, *_reflections(2))
    with pytest.raises(InputError, match="integers"):
        absorption_factors(device(np.ones((3, 3, 3))), VOXEL, MU, *_reflections(2))
    with pytest.raises(InputError, match="0 … 255"):
        absorption_factors(device(np.full((3, 3, 3), -1)), VOXEL, MU, *_reflections(2))


def test_absorption_factors__no_reflections_on_a_device(device):
    got = absorption_factors(device(_sample()), VOXEL, MU, np.array([0, 1.0, 0]), np.zeros((0, 3)))
    assert got.a.shape == (0,)


@pytest.mark.gpu
@pytest.mark.skipif(backend.gpu_count() == 0, reason="no GPU here")
@pytest.mark.parametrize(("method", "count"), [("direct", 200), ("table", 3000)])
def test_absorption_factors__on_a_gpu_agree_with_the_cpu(method, count):
    cupy = pytest.importorskip("cupy")
    labels, rays = _sample(), _rays()
    mu, points = np.array([0.1, 0.3, 0.0, 0.7]), _points(labels.shape)
    depths = backend.to_host(depth_table(cupy.asarray(labels), mu, points, rays))
    np.testing.assert_allclose(depths, depth_table(labels, mu, points, rays), rtol=EXACT, atol=10 * EXACT)
    options = {"method": method, "target_error": 5e-3, "mu_standard_error": {1: 200.0}, "profile": PROFILE}
    ours = absorption_factors(labels, VOXEL, MU, *_reflections(count), **options)
    theirs = absorption_factors(cupy.asarray(labels), VOXEL, MU, *_reflections(count), **options)
    # Rounding may send a reflection that just reached its target, or just did not, to other points.
    alike = theirs.n_points == ours.n_points
    assert alike.mean() > 0.98
    np.testing.assert_allclose(theirs.a[alike], ours.a[alike], rtol=SINGLE)
    np.testing.assert_allclose(theirs.mu_error, ours.mu_error, rtol=1e-5)
