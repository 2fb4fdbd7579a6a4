"""What is installed here and what of it works, as plain data."""

import platform
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata

import onnx
from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

from onnxprune.errors import OnnxPruneError
from onnxprune.runtime.cuda import CUDA_13, DRIVERS, TENSORRT, cuda
from onnxprune.runtime.engine import engine, repair_hint, usable_cpus, wheels
from onnxprune.runtime.providers import CPU, failure, listed, relu, short
from onnxprune.version import VERSION

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
