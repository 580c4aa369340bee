"""Functions follow the array module of their input, and a machine without CuPy works."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import scipy.fft

from tomoforge import backend
from tomoforge.errors import MissingComponentError


@pytest.fixture
def without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)  # import raises ImportError


class DeviceArray:
    """Stands for an array on a device: readable only through ``get``."""

    def get(self) -> np.ndarray:
        return np.arange(3)


def fake_cupy(monkeypatch: pytest.MonkeyPatch, devices: int | None) -> ModuleType:
    class CUDARuntimeError(RuntimeError):
        pass

    def count() -> int:
        if devices is None:
            raise CUDARuntimeError("no driver")
        return devices

    cupy = ModuleType("cupy")
    runtime = SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError)
    vars(cupy).update(ndarray=DeviceArray, cuda=SimpleNamespace(runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy


@pytest.mark.usefixtures("without_cupy")
def test_array_module__numpy_without_cupy() -> None:
    for value in (np.zeros(3), 1.0, [1, 2]):
        assert backend.array_module(value) is np
    assert backend.fft_module(np.zeros(3)) is scipy.fft
    assert backend.gpu_count() == 0


def test_array_module__follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = fake_cupy(monkeypatch, devices=1)
    assert backend.array_module(DeviceArray()) is cupy
    assert backend.array_module(np.zeros(3)) is np
    np.testing.assert_array_equal(backend.to_host(DeviceArray()), [0, 1, 2])


def test_to_host__does_not_copy_host_arrays() -> None:
    array = np.arange(3)
    assert backend.to_host(array) is array


@pytest.mark.usefixtures("without_cupy")
def test_require_gpu__says_what_to_install() -> None:
    with pytest.raises(MissingComponentError, match="EXTRAS=gpu"):
        backend.require_gpu()


@pytest.mark.parametrize("devices", [None, 0])
def test_require_gpu__cupy_without_driver_or_device(monkeypatch: pytest.MonkeyPatch, devices) -> None:
    fake_cupy(monkeypatch, devices)
    assert backend.gpu_count() == 0
    with pytest.raises(MissingComponentError, match="local cluster"):
        backend.require_gpu()


def test_require_gpu__passes_with_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy(monkeypatch, devices=2)
    backend.require_gpu()
    assert backend.gpu_count() == 2
