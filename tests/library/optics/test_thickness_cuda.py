"""The GPU's kernel on the CPU: its own source, compiled for the host, one thread after another."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tomoforge import backend
from tomoforge.errors import InputError
from tomoforge.optics import thickness
from tomoforge.optics.thickness import prepare_volume, project_thickness

COMPILER = shutil.which("g++") or shutil.which("c++")

# The names that CUDA gives for free, and a loop over the grid.
BEFORE = """
#include <cmath>
#include <cstddef>
struct dim3_t { unsigned x, y, z; };
struct alignas(4) uchar4 { unsigned char x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
static dim3_t blockIdx, threadIdx, blockDim;
#define __global__
#define __device__
#define __forceinline__ inline
"""
AFTER = """
extern "C" void launch(const unsigned* grid, const unsigned* block, const voxel_t* volume, int nz, int ny, int nx,
                       const double* turns, const double* fine, int n_columns, double first_depth, double spacing,
                       double voxel_size, float* out)
{
    blockDim = {block[0], block[1], block[2]};
    for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x)
    for (threadIdx.z = 0; threadIdx.z < block[2]; ++threadIdx.z)
    for (threadIdx.y = 0; threadIdx.y < block[1]; ++threadIdx.y)
    for (threadIdx.x = 0; threadIdx.x < block[0]; ++threadIdx.x)
        project(volume, nz, ny, nx, turns, fine, n_columns, first_depth, spacing, voxel_size, out);
}
"""


class OnDevice(np.ndarray):
    """Stands for an array on a GPU."""


def host_module(folder: Path) -> SimpleNamespace:
    """What ``thickness_cuda`` uses of CuPy, on the host."""

    class RawKernel:
        def __init__(self, code: str, name: str, options: tuple[str, ...]) -> None:
            assert name == "project"
            built = folder / ("-".join(options).replace("=", "") + ".so")
            if not built.exists():
                source = built.with_suffix(".cpp")
                source.write_text(BEFORE + code + AFTER)
                # No fused multiply-add and no reordering, so that a difference is the source's.
                flags = ["-O1", "-shared", "-fPIC", "-ffp-contract=off"]
                flags += ["-Wall", "-Werror", "-Wno-unknown-pragmas"]
                subprocess.run(
                    [COMPILER, *flags, *options, "-o", str(built), str(source)], check=True, timeout=120
                )
            self._launch = ctypes.CDLL(str(built)).launch

        def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple) -> None:
            assert np.prod(block) <= 1024
            sizes = [np.array(size, dtype=np.uint32) for size in (grid, block)]
            self._launch(*(as_c(value) for value in (*sizes, *arguments)))

    def as_c(value):
        if isinstance(value, np.ndarray):
            assert value.flags.c_contiguous
            return ctypes.c_void_p(value.ctypes.data)
        return {np.int32: ctypes.c_int, np.float64: ctypes.c_double}[type(value)](value)

    def zeros(*arguments, **options):
        return np.zeros(*arguments, **options).view(OnDevice)

    return SimpleNamespace(
        RawKernel=RawKernel, zeros=zeros, asarray=np.asarray, ascontiguousarray=np.ascontiguousarray
    )


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> SimpleNamespace:
    if COMPILER is None:
        pytest.skip("no C++ compiler to build the GPU's kernel for the host")
    return host_module(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def device(kernels, monkeypatch):
    """Makes OnDevice arrays go the GPU's way, down to the source of its kernel."""

    def module(array):
        return kernels if isinstance(array, OnDevice) else np

    monkeypatch.setattr(thickness, "array_module", module)
    return lambda array: np.ascontiguousarray(array).view(OnDevice)


def sample() -> np.ndarray:
    rng = np.random.default_rng(3)
    labels = np.repeat(np.repeat(rng.integers(0, 4, (6, 7, 8)), 3, axis=1), 4, axis=2).astype(np.uint8)
    return np.repeat(labels, 5, axis=0)[:-1]  # 29 × 21 × 32: rows that are no multiple of four


ANGLES = np.array([0.0, 0.4, np.pi / 4, 1.3, np.pi / 2, 2.5, 3.9, 5.5, -0.7])


@pytest.mark.parametrize("planes", [1, 2, 5])
@pytest.mark.parametrize("kind", ["labels", "fractions", "fractions with background"])
def test_kernel__source_agrees_with_the_cpu(device, planes, kind):
    labels = sample()
    if kind == "labels":
        volume = labels
    else:
        share = np.random.default_rng(4).random((4, *labels.shape), dtype=np.float32)
        share /= share.sum(axis=0)
        volume = share if kind.endswith("background") else share[1:]
    options = {"n_columns": 37, "rotation_centre": 17.3, "oversampling": 2, "planes": planes}
    ours = project_thickness(volume, 1e-6, ANGLES, 4, **options)
    theirs = np.asarray(project_thickness(device(volume), 1e-6, ANGLES, 4, **options))
    assert theirs.shape == ours.shape and theirs.dtype == np.float32
    # float32 sums of 32 steps; relative to the longest path.
    assert np.abs(theirs - ours).max() < 1e-5 * ours.max()


def test_kernel__has_the_right_handedness(device):
    labels = np.zeros((8, 32, 32), np.uint8)
    labels[5, 20, 26] = 1
    paths = project_thickness(device(labels), 1.0, ANGLES, 2)[:, 1]
    columns = np.average(np.broadcast_to(np.arange(32), (len(ANGLES), 32)), axis=1, weights=paths[:, 5])
    expected = 15.5 + 10.5 * np.cos(ANGLES) + 4.5 * np.sin(ANGLES)
    np.testing.assert_allclose(columns, expected, atol=0.25)  # one ray a pixel
    assert paths[:, :5].max() == 0 and paths[:, 6:].max() == 0


def test_kernel__refuses_what_the_cpu_refuses_and_a_leaning_axis(device):
    labels = device(sample())
    with pytest.raises(InputError, match=r"labels must lie in 0…2"):
        project_thickness(labels, 1.0, ANGLES, 3)
    with pytest.raises(InputError, match="pass host arrays"):
        project_thickness(labels, 1.0, ANGLES, 4, axis_tilt=(0.01, 0.0))
    with pytest.raises(InputError, match="were labels stacked"):
        project_thickness(device(np.zeros((3, 4, 4, 4), np.uint8)), 1.0, ANGLES, 4)


def test_device_columns__fill_with_background_and_serve_many_calls(device):
    volume = prepare_volume(device(sample()), 4)
    assert volume.values.shape == (21, 32, 32) and volume.shape == (29, 21, 32)
    np.testing.assert_array_equal(volume.values[..., :29], sample().transpose(1, 2, 0))
    assert (volume.values[..., 29:] == 0).all()
    expected = project_thickness(device(sample()), 1.0, ANGLES, 4)
    assert project_thickness(volume, 1.0, ANGLES, 4).tobytes() == expected.tobytes()
    with pytest.raises(InputError, match="n_materials must be the 4 that the volume was prepared for"):
        project_thickness(volume, 1.0, ANGLES, 5)


@pytest.mark.gpu
@pytest.mark.skipif(backend.gpu_count() == 0, reason="no GPU here")
@pytest.mark.parametrize("planes", [1, 5])
@pytest.mark.parametrize("kind", ["labels", "fractions"])
def test_kernel__on_a_device_agrees_with_the_cpu(planes, kind):
    cupy = pytest.importorskip("cupy")
    volume = sample()
    if kind == "fractions":
        volume = np.stack([volume == m for m in (1, 2, 3)]).astype(np.float32) * 0.9
    ours = project_thickness(volume, 1e-6, ANGLES, 4, planes=planes)
    theirs = backend.to_host(project_thickness(cupy.asarray(volume), 1e-6, ANGLES, 4, planes=planes))
    assert np.abs(theirs - ours).max() < 1e-5 * ours.max()
