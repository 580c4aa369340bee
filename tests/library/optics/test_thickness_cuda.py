"""The GPU's kernel on the CPU: its own source, compiled for the host, one thread after another."""

import sys
from types import ModuleType

import numpy as np
import pytest

from tests.library.host_cupy import COMPILER, host_cupy
from tomoforge import backend
from tomoforge.errors import InputError
from tomoforge.optics.thickness import prepare_volume, project_thickness


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> ModuleType:
    if COMPILER is None:
        pytest.skip("no C++ compiler to build the GPU's kernel for the host")
    return host_cupy(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def device(kernels, monkeypatch):
    """Copies an array to the device that the kernel's source stands for."""
    monkeypatch.setitem(sys.modules, "cupy", kernels)
    return kernels.asarray


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
    theirs = backend.to_host(project_thickness(device(volume), 1e-6, ANGLES, 4, **options))
    assert theirs.shape == ours.shape and theirs.dtype == np.float32
    # float32 sums of 32 steps; relative to the longest path.
    assert np.abs(theirs - ours).max() < 1e-5 * ours.max()


def test_kernel__has_the_right_handedness(device):
    labels = np.zeros((8, 32, 32), np.uint8)
    labels[5, 20, 26] = 1
    paths = project_thickness(device(labels), 1.0, ANGLES, 2).get()[:, 1]
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
    np.testing.assert_array_equal(volume.values.get()[..., :29], sample().transpose(1, 2, 0))
    assert (volume.values.get()[..., 29:] == 0).all()
    expected = project_thickness(device(sample()), 1.0, ANGLES, 4).get()
    assert project_thickness(volume, 1.0, ANGLES, 4).get().tobytes() == expected.tobytes()
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
