"""A stand-in for CuPy on machines without a GPU: CUDA sources run on the host, compiled by its C++ compiler.

Arrays "on the device" are refused wherever CuPy refuses them, so that a host array that was not copied, or a device
array that was not fetched, fails here too. Threads run one after another: a kernel must not wait for its neighbours.
"""

import ctypes
import shutil
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

COMPILER = shutil.which("g++") or shutil.which("c++")

# The names that CUDA gives for free.
_BEFORE = """
#include <cmath>
#include <cstddef>
struct dim3_t { unsigned x, y, z; };
struct alignas(4) uchar4 { unsigned char x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
static dim3_t blockIdx, threadIdx, blockDim, gridDim;
#define __global__
#define __device__
#define __forceinline__ inline
"""
# A loop over the grid, and the sizes of the kernel's arguments.
_AFTER = """
template <auto kernel> struct Launch;
template <class... Arguments, void (*kernel)(Arguments...)> struct Launch<kernel> {
    static constexpr int count = sizeof...(Arguments);
    static constexpr int sizes[] = {(int)sizeof(Arguments)...};
    static void run(const unsigned* grid, const unsigned* block, Arguments... arguments)
    {
        gridDim = {grid[0], grid[1], grid[2]};
        blockDim = {block[0], block[1], block[2]};
        for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x)
        for (threadIdx.z = 0; threadIdx.z < block[2]; ++threadIdx.z)
        for (threadIdx.y = 0; threadIdx.y < block[1]; ++threadIdx.y)
        for (threadIdx.x = 0; threadIdx.x < block[0]; ++threadIdx.x) kernel(arguments...);
    }
};
extern "C" {
    extern void* const launcher = (void*)&Launch<&KERNEL>::run;
    extern const int count = Launch<&KERNEL>::count;
    extern const int* const sizes = Launch<&KERNEL>::sizes;
}
"""
_SCALARS = {np.int32: ctypes.c_int, np.int64: ctypes.c_longlong, np.float64: ctypes.c_double}
_MOST_BLOCKS = (2**31 - 1, 65535, 65535)


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """Values that only ``get`` brings back."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    shape = property(lambda self: self.values.shape)
    size = property(lambda self: self.values.size)
    ndim = property(lambda self: self.values.ndim)
    dtype = property(lambda self: self.values.dtype)

    def get(self) -> np.ndarray:
        return self.values.copy()

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("a device array does not turn into a host array by itself; fetch it")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        assert method == "__call__"
        out = options.pop("out", None)
        result = ufunc(*(_values(value) for value in inputs), **options)
        if out is None:
            return DeviceArray(result)
        _values(out[0])[...] = result
        return out[0]

    def __bool__(self) -> bool:
        return bool(self.values)

    def __int__(self) -> int:
        return int(self.values)

    def __float__(self) -> float:
        return float(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Any:
        return (DeviceArray(row) for row in self.values)

    def __getitem__(self, index: Any) -> "DeviceArray":
        parts = index if isinstance(index, tuple) else (index,)
        return DeviceArray(self.values[tuple(_values(part) for part in parts)])

    def __setitem__(self, index: Any, value: Any) -> None:
        parts = index if isinstance(index, tuple) else (index,)
        self.values[tuple(_values(part) for part in parts)] = _values(value)

    def __getattr__(self, name: str) -> Any:
        # Methods of an array; what they give is on the device as well.
        if name.startswith("_") or name not in _METHODS:
            raise AttributeError(name)
        method = getattr(self.values, name)
        return lambda *arguments, **options: DeviceArray(method(*arguments, **options))


_METHODS = ("all", "any", "astype", "max", "min", "reshape", "sum", "swapaxes", "transpose")


def _values(value: Any) -> Any:
    if isinstance(value, DeviceArray):
        return value.values
    if isinstance(value, np.ndarray):
        raise TypeError(f"a host array of shape {value.shape} met one on the device")
    return value


def host_cupy(folder: Path) -> ModuleType:
    """A module to put into ``sys.modules`` as ``cupy``; kernels are built in ``folder``, once each."""

    class RawKernel:
        def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
            built = folder / ("-".join((name, *options)).replace("=", "") + ".so")
            if not built.exists():
                source = built.with_suffix(".cpp")
                source.write_text(_BEFORE + code + _AFTER.replace("KERNEL", name))
                # No fused multiply-add and no reordering, so that a difference is the source's.
                flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off"]
                flags += ["-Wall", "-Werror", "-Wno-unknown-pragmas"]
                assert COMPILER is not None
                subprocess.run(
                    [COMPILER, *flags, *options, "-o", str(built), str(source)], check=True, timeout=120
                )
            library = ctypes.CDLL(str(built))
            self._launch = ctypes.CFUNCTYPE(None)(ctypes.c_void_p.in_dll(library, "launcher").value)
            count = ctypes.c_int.in_dll(library, "count").value
            self._sizes = ctypes.POINTER(ctypes.c_int).in_dll(library, "sizes")[:count]

        def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple) -> None:
            assert np.prod(block) <= 1024
            assert all(0 < n <= most for n, most in zip(grid, _MOST_BLOCKS, strict=True))
            given = [_as_c(value) for value in arguments]
            assert [ctypes.sizeof(value) for value in given] == self._sizes
            sizes = [(ctypes.c_uint * 3)(*size) for size in (grid, block)]
            self._launch(*sizes, *given)

    def on_device(function: Any) -> Any:
        return lambda *arguments, **options: DeviceArray(function(*arguments, **options))

    def ascontiguousarray(array: DeviceArray) -> DeviceArray:
        return DeviceArray(np.ascontiguousarray(array.values))

    def asarray(array: Any) -> DeviceArray:
        return array if isinstance(array, DeviceArray) else DeviceArray(np.array(array))

    def empty(shape: Any, dtype: Any = np.float64) -> DeviceArray:
        return DeviceArray(np.full(shape, 77, dtype))  # a kernel that leaves some out is seen

    cupy = ModuleType("cupy")
    runtime = SimpleNamespace(getDeviceCount=lambda: 1, CUDARuntimeError=RuntimeError)
    vars(cupy).update(
        ndarray=DeviceArray, asarray=asarray, ascontiguousarray=ascontiguousarray, RawKernel=RawKernel, exp=np.exp,
        empty=empty, ones=on_device(np.ones), zeros=on_device(np.zeros),
        cuda=SimpleNamespace(runtime=runtime),
    )  # fmt: skip
    return cupy


def _as_c(value: Any) -> Any:
    if isinstance(value, DeviceArray):
        assert value.values.flags.c_contiguous, "a kernel was given an array that is not contiguous"
        return ctypes.c_void_p(value.values.ctypes.data)
    return _SCALARS[type(value)](value)
