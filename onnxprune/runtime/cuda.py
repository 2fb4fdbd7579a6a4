"""CUDA and TensorRT as this machine has them: what the onnxruntime wheel wants of them, and what of it loads."""

import contextlib
import ctypes
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.runtime.engine import engine

# Oldest driver for Linux of each CUDA major version: docs.nvidia.com/cuda/cuda-toolkit-release-notes, the table of
# minimum required drivers for minor version compatibility.
DRIVERS = {12: 525, 13: 580}
TENSORRT = "TensorRT 10"  # that the wheels are built for
CUDA_13 = "1.27"  # release of the wheel from which on it is built for CUDA 13; those before are for 12


@dataclass(frozen=True)
class Cuda:
    """What the wheel is built for, and what of it is here.

    built: the version of CUDA that the wheel was built for, "13.0".
    driver: the newest CUDA that the installed driver runs, (13, 0); None where there is no driver.
    loads, missing: libraries by their names in the documentation.
    """

    built: str
    driver: tuple[int, int] | None
    loads: Sequence[str]
    missing: Sequence[str]

    @property
    def major(self) -> int:
        return int(self.built.partition(".")[0])

    @property
    def too_old(self) -> bool:
        """Whether there is a driver, and none that this wheel can use."""
        return self.driver is not None and self.driver[0] < self.major


def cuda_of_the_wheel() -> str | None:
    """The version of CUDA that the installed wheel was built for; None for a wheel without it."""
    with contextlib.suppress(Exception):
        info = importlib.import_module("onnxruntime.capi.build_and_package_info")
        return getattr(info, "cuda_version", None) or None
    return None


def cuda() -> Cuda | None:
    """CUDA as it is here; None for a wheel without it.  The libraries are loaded into this process."""
    engine()  # which loads those that pip has put beside it
    built = cuda_of_the_wheel()
    if built is None:
        return None
    found = {name: _loads(file) for name, file in _libraries(int(built.partition(".")[0])).items()}
    loads = [name for name, there in found.items() if there]
    return Cuda(built, _driver(), loads, [name for name in found if name not in loads])


def _libraries(major: int) -> dict[str, str]:
    """File names of what the providers for CUDA and TensorRT load."""
    windows = sys.platform == "win32"
    versions = {"cudart": major, "cublas": major, "cudnn": 9, "nvinfer": 10}
    infix = {"nvinfer": "_"} if windows else {}
    made = {n: f"{n}{infix.get(n, '64_')}{v}.dll" if windows else f"lib{n}.so.{v}" for n, v in versions.items()}
    return {TENSORRT if name == "nvinfer" else name: file for name, file in made.items()}


def _loads(file: str) -> bool:
    try:
        ctypes.CDLL(file)
    except OSError:
        return False
    return True


def _driver() -> tuple[int, int] | None:
    """The newest CUDA that the driver runs (cuDriverGetVersion gives 13000 for 13.0); None where there is no driver."""
    number = ctypes.c_int()
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        if library.cuDriverGetVersion(ctypes.byref(number)):
            return None
    except (OSError, AttributeError):
        return None
    return number.value // 1000, number.value % 1000 // 10
