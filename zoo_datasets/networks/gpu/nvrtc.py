"""CUDA C++ and constants → kernels of this process, compiled by the library that comes with PyTorch.

NVRTC compiles in memory: no compiler, no cache on disk. Kernels are launched on PyTorch's current
stream, so that its CUDA graphs record them.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from zoo_datasets.core import libraries

with libraries.needed():
    import torch

FOLDER = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Source:
    """A file of kernels beside this one, how it is compiled, and the files that it includes."""

    name: str
    options: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()


class Launching(Protocol):
    """What compiled kernels do: `Kernels`."""

    def launch(
        self, name: str, grid: tuple[int, int, int], threads: int, *arguments: torch.Tensor | int | None
    ) -> None: ...


class Compiler(Protocol):
    """Who makes kernels: this module; a test compiles them for the CPU."""

    def compiled(self, source: Source, constants: Mapping[str, int], device: torch.device) -> Launching: ...


class Kernels:
    """The kernels of one source under one set of constants."""

    def __init__(self, code: bytes) -> None:
        self._module = ctypes.c_void_p()
        _ask(_driver().cuModuleLoadData(ctypes.byref(self._module), code), "cuModuleLoadData")
        self._functions: dict[str, ctypes.c_void_p] = {}

    def launch(self, name: str, grid: tuple[int, int, int], threads: int, *arguments: Any) -> None:
        """Run on the current stream: tensors by their address (None is 0), whole numbers as 64 bits."""
        if name not in self._functions:
            found = ctypes.c_void_p()
            _ask(_driver().cuModuleGetFunction(ctypes.byref(found), self._module, name.encode()), name)
            self._functions[name] = found
        values = [ctypes.c_longlong(a.data_ptr() if isinstance(a, torch.Tensor) else a or 0) for a in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        _ask(_driver().cuLaunchKernel(self._functions[name], *grid, threads, 1, 1, 0, stream, pointers, None), name)


def compiled(source: Source, constants: Mapping[str, int], device: torch.device) -> Kernels:
    """The kernels of a source under these constants, for the device. Raises RuntimeError with the log."""
    return _kernels(source, tuple(sorted(constants.items())), torch.cuda.get_device_capability(device), device.index)


def obstacle() -> str | None:
    """Why nothing can be compiled here, or None."""
    try:
        _library()
        _driver()
    except OSError as error:
        return f"NVRTC was not found ({error})"
    return None


@functools.cache  # modules stay loaded: CUDA graphs may still run them
def _kernels(
    source: Source, constants: tuple[tuple[str, int], ...], capability: tuple[int, int], index: int | None
) -> Kernels:  # fmt: skip
    library, program = _library(), ctypes.c_void_p()
    text, count = (FOLDER / source.name).read_bytes(), len(source.includes)
    names = (ctypes.c_char_p * count)(*(name.encode() for name in source.includes))
    included = (ctypes.c_char_p * count)(*((FOLDER / name).read_bytes() for name in source.includes))
    made = library.nvrtcCreateProgram(ctypes.byref(program), text, source.name.encode(), count, included, names)
    _check(made, "create")
    options = ["--std=c++17", "--gpu-architecture=sm_{}{}".format(*capability), *source.options]
    options += [f"-D{name}={value}" for name, value in constants]
    given = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    try:
        if library.nvrtcCompileProgram(program, len(options), given):
            raise RuntimeError(f"{source.name} does not compile under {dict(constants)}:\n{_log(program)}")
        size = ctypes.c_size_t()
        _check(library.nvrtcGetCUBINSize(program, ctypes.byref(size)), "size")
        code = ctypes.create_string_buffer(size.value)
        _check(library.nvrtcGetCUBIN(program, code), "code")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    return Kernels(code.raw)


def _log(program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _library().nvrtcGetProgramLogSize(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    _library().nvrtcGetProgramLog(program, text)
    return text.value.decode(errors="replace")


@functools.cache
def _library() -> Any:
    """NVRTC of the CUDA that PyTorch was built for. Raises OSError."""
    major = (torch.version.cuda or "0").split(".")[0]
    names = [f"libnvrtc.so.{major}"] if sys.platform != "win32" else [f"nvrtc64_{major}0_0.dll"]
    # Beside PyTorch, where its wheels put it; else wherever the system finds it.
    folders = [p for base in sys.path for p in Path(base).glob("nvidia/*/lib") if p.is_dir()]
    places = [str(f / name) for name in names for f in folders if (f / name).exists()] + names
    for place in places[:-1]:
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    return ctypes.CDLL(places[-1])


@functools.cache
def _driver() -> Any:
    torch.cuda.init()
    torch.cuda.current_stream()
    return ctypes.CDLL("libcuda.so.1" if sys.platform != "win32" else "nvcuda.dll")


def _check(status: int, what: str) -> None:
    if status:
        raise RuntimeError(f"NVRTC: {what} failed with status {status}.")


def _ask(status: int, what: str) -> None:
    if status:
        raise RuntimeError(f"The CUDA driver refused {what} with status {status}.")
