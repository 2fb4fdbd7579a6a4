"""What is installed here and what of it works, as plain data."""

import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import onnx
from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

import onnxprune
from onnxprune.errors import OnnxPruneError
from onnxprune.runtime.engine import cuda_of_the_wheel, engine, reason, repair_hint, usable_cpus, wheels
from onnxprune.runtime.providers import CPU, failure, listed, relu, short

PACKAGES = ("onnx", "numpy", "scipy", "protobuf", "onnx-graphsurgeon", "click", "rich", "pillow")
OPTIONAL = {"pillow": "needed for folders of images", "rich": "needed for tables and progress bars"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `level` is `ok`, `note` or `problem`; `advice` says what to do about it."""

    subject: str
    level: str
    text: str
    advice: str = ""


def versions() -> dict[str, str]:
    """Versions of all that decides the bytes of a pruned model, the machine and its linear algebra among them."""
    packages = {name: metadata.version(name) for name in ("onnx", "numpy", "scipy", "protobuf")}
    blas = {f"{lib['internal_api']} {lib.get('version')} {lib.get('architecture', '')}".strip() for lib in _blas()}
    return {
        "onnxprune": onnxprune.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **packages,
        **wheels(),
        "blas": ", ".join(sorted(blas)),
    }


def _blas() -> list[dict[str, Any]]:
    return [lib for lib in threadpool_info() if lib["user_api"] == "blas"]


def diagnose() -> list[Finding]:
    """Versions, installed onnxruntime wheels, providers that are listed against those that really load, opsets, CPU."""
    return [
        Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Finding("onnxprune", "ok", onnxprune.__version__),
        *map(_package, PACKAGES),
        *_wheels(),
        *_runtime(),
        Finding("cpu", "ok", f"{usable_cpus()} cores may be used"),
    ]


def _package(name: str) -> Finding:
    try:
        return Finding(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
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
    findings = [Finding("onnxruntime", "ok", version), _opsets()]
    if (cuda := cuda_of_the_wheel()) is not None:
        text = f"the wheel is built for CUDA {cuda}, and loads with no other major version"
        findings.append(Finding("cuda", "ok", text))
    for provider in listed():
        why = failure(provider)
        level = "ok" if why is None else "note" if provider != CPU else "problem"
        text = f"listed, but does not load: {why}" if why else "loads"
        mended = why is not None and short(provider) == "CUDA"
        advice = f"pip install 'onnxruntime-gpu[cuda,cudnn]=={version}' brings the libraries of CUDA" if mended else ""
        findings.append(Finding(f"provider {short(provider).lower()}", level, text, advice))
    return findings


def _opsets() -> Finding:
    """The newest opset that both can handle, found by making sessions."""
    newest = onnx.defs.onnx_opset_version()
    for opset in range(newest, 6, -1):
        try:
            engine().InferenceSession(relu(opset), _silent(), providers=[CPU])
        except Exception as error:  # onnxruntime's exception classes have no base of their own
            last = reason(error)
            continue
        text = f"7 to {opset}"
        if opset < newest:
            return Finding("opsets", "note", f"{text}; onnx knows {newest} ({last})", "later ones need --no-verify")
        return Finding("opsets", "ok", text)
    return Finding("opsets", "problem", "no opset can be run")


def _silent() -> object:
    settings = engine().SessionOptions()
    settings.log_severity_level = 4
    return settings
