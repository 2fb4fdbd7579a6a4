"""What is installed here and what of it works, as plain data; of CUDA and TensorRT, what the wheel wants and loads."""

import contextlib
import ctypes
import importlib
import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata

import onnx
from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

from onnxprune.errors import OnnxPruneError
from onnxprune.runtime.engine import engine, repair_hint, usable_cpus, wheels
from onnxprune.runtime.providers import CPU, failure, listed, relu, short
from onnxprune.version import VERSION

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


DECIDING = ("onnx", "numpy", "scipy", "protobuf", "torch")  # the last one where something is trained
PACKAGES = ("onnx", "numpy", "scipy", "protobuf", "onnx-graphsurgeon", "click", "rich", "pillow")
OPTIONAL = {"pillow": "needed for folders of images", "rich": "needed for tables and progress bars"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `level` is `ok`, `note` or `problem`; `advice` says what to do about it."""

    subject: str
    level: str
    text: str
    advice: str = ""


def installed_versions() -> dict[str, str]:
    """Versions of all that decides the bytes of a pruned model, the machine and its linear algebra among them."""
    packages = {name: found for name in DECIDING if (found := _version(name)) is not None}
    libraries = [lib for lib in threadpool_info() if lib["user_api"] == "blas"]
    blas = {f"{lib['internal_api']} {lib.get('version')} {lib.get('architecture', '')}".strip() for lib in libraries}
    return {
        "onnxprune": VERSION,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **packages,
        **wheels(),
        "blas": ", ".join(sorted(blas)),
    }


def diagnose() -> list[Finding]:
    """Versions, installed onnxruntime wheels, providers that are listed against those that really load, opsets, CPU."""
    return [
        Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Finding("onnxprune", "ok", VERSION),
        *map(_package, PACKAGES),
        *_wheels(),
        *_runtime(),
        Finding("cpu", "ok", f"{usable_cpus()} cores may be used"),
    ]


def _version(name: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def _package(name: str) -> Finding:
    if (found := _version(name)) is not None:
        return Finding(name, "ok", found)
    level = "note" if name in OPTIONAL else "problem"
    return Finding(name, level, "not installed", OPTIONAL.get(name) or f"pip install {name}")


def _wheels() -> list[Finding]:
    found = wheels()
    text = ", ".join(f"{n} {v}" for n, v in found.items()) or "none installed"
    if len(found) == 1:
        return [Finding("onnxruntime wheels", "ok", text)]
    why = "they are installed over one another and break each other" if found else "nothing can be verified without it"
    return [Finding("onnxruntime wheels", "problem", f"{text}: {why}" if found else text, repair_hint())]


def _runtime() -> list[Finding]:
    """What the runtime says of itself, and each provider tried with a session of one node."""
    try:
        version = str(engine().__version__)
    except OnnxPruneError as error:
        return [Finding("onnxruntime", "problem", str(error), repair_hint())]
    return [Finding("onnxruntime", "ok", version), _opsets(), *_cuda(version), *map(_provider, listed())]


def _cuda(version: str) -> list[Finding]:
    """What the wheel wants of CUDA against what is here, and the line that mends it; nothing for a wheel without."""
    found = cuda()
    if found is None:
        return []
    text = f"the wheel is built for CUDA {found.built}, and runs on no other major version"
    if found.driver is None:
        return [Finding("cuda", "note", f"{text}; no driver of NVIDIA's is here, so the CPU does all of it")]
    least = DRIVERS.get(found.major)
    wanted = f"driver {least} or newer" if least else "a newer driver"
    text += f"; the driver runs CUDA {found.driver[0]}.{found.driver[1]}"
    if found.too_old:
        older = f", or pip install 'onnxruntime-gpu<{CUDA_13}', which is built for CUDA 12" * (found.major == 13)
        return [Finding("cuda", "note", text, f"it takes {wanted}{older}")]
    text += f"; here {', '.join(found.loads)}" * bool(found.loads)
    if not found.missing:
        return [Finding("cuda", "ok", text)]
    advice = f"pip install 'onnxruntime-gpu[cuda,cudnn]=={version}' brings the libraries of CUDA"
    advice = advice if list(found.missing) != [TENSORRT] else "onnxprune does without TensorRT"
    return [Finding("cuda", "note", f"{text}; missing {', '.join(found.missing)}", advice)]


def _provider(name: str) -> Finding:
    """A provider, tried with a session of one node."""
    why = failure(name)
    level = "ok" if why is None else "note" if name != CPU else "problem"
    text = f"listed, but does not load: {why}" if why else "loads"
    return Finding(f"provider {short(name).lower()}", level, text, repair_hint() if level == "problem" else "")


def _opsets() -> Finding:
    """The newest opset that both can handle, found by making sessions."""
    newest = onnx.defs.onnx_opset_version()
    for opset in range(newest, 6, -1):
        try:
            engine().InferenceSession(relu(opset), _silent(), providers=[CPU])
        except Exception:  # onnxruntime's exception classes have no base of their own
            continue
        text = f"7 to {opset}"
        if opset < newest:
            text += f"; onnx knows {newest}, which this onnxruntime does not run"
            return Finding("opsets", "note", text, "later ones need --no-verify")
        return Finding("opsets", "ok", text)
    return Finding("opsets", "problem", "no opset can be run")


def _silent() -> object:
    settings = engine().SessionOptions()
    settings.log_severity_level = 4
    return settings
