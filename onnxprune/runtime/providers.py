"""Execution providers: which ones were asked for, and which of them really load on this machine."""

import functools
import re
from collections.abc import Sequence

from onnx import TensorProto, helper

from onnxprune.errors import UsageError, spelled
from onnxprune.runtime.engine import Caught, engine, quiet, reason

SUFFIX = "ExecutionProvider"
CPU = "CPU" + SUFFIX

# What `auto` tries, in this order. Left out on purpose: TensorRT and OpenVINO compile for minutes,
# CoreML and QNN compute in half precision.
AUTO = ("CUDA" + SUFFIX, "ROCM" + SUFFIX, "Dml" + SUFFIX, CPU)

# TF32 keeps 10 bits of a float32's mantissa: enough to make a correct pruning look wrong.
OPTIONS = {"CUDA" + SUFFIX: {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}}

# Other providers of onnxruntime, so that a name that this wheel lacks is told apart from a typing error.
KNOWN = ("TensorRT", "NvTensorRTRTX", "CUDA", "MIGraphX", "ROCM", "OpenVINO", "Dnnl", "Dml", "CoreML", "QNN", "XNNPACK")


def listed() -> tuple[str, ...]:
    """The providers that this onnxruntime was built with, best first; they need not load."""
    return tuple(engine().get_available_providers())


def short(provider: str) -> str:
    """`CUDAExecutionProvider` → `CUDA`."""
    return provider.removesuffix(SUFFIX)


def choose(request: str | Sequence[str] = "auto") -> tuple[str, ...]:
    """The providers to make a session with: those asked for that load, in that order, and the CPU last.

    `request` is `auto`, or names separated by commas (or a sequence of names), in any case, with or without
    `ExecutionProvider`, shortened as far as they stay unambiguous: `cuda,cpu`. One that does not load is
    passed over as long as another one in the list does.

    Raises `UsageError` for unknown or ambiguous names, and when none of the named ones loads.
    """
    words = request.split(",") if isinstance(request, str) else list(request)
    words = [w.strip() for w in words if w.strip()]
    if not words:
        raise UsageError(f"no provider named; this onnxruntime has {_names(listed())}, or use 'auto'")
    if [w.lower() for w in words] == ["auto"]:
        chosen = [p for p in AUTO if p in listed() and failure(p) is None]
    else:
        wanted = [match(w) for w in words]
        chosen = [p for p in dict.fromkeys(wanted) if failure(p) is None]
        if not chosen:
            why = "; ".join(f"{short(p)} does not load here: {failure(p)}" for p in dict.fromkeys(wanted))
            raise UsageError(f"{spelled('providers')}: {why}")
    return (*(p for p in chosen if p != CPU), CPU)


def match(word: str) -> str:
    """The one provider that `word` means: an exact name, else the one that starts with it, else that holds it."""
    key = word.strip().lower().removesuffix(SUFFIX.lower())
    have = {short(p).lower(): p for p in listed()}
    tests = (lambda n: n == key, lambda n: n.startswith(key), lambda n: key in n)
    for test in tests:
        hits = [p for n, p in have.items() if test(n)]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise UsageError(f"provider '{word}' may mean {_names(hits)}; write more of the name")
    lacking = [k for k in KNOWN if key and k.lower().startswith(key)]
    what = f"this onnxruntime is built without {lacking[0]}" if lacking else f"no provider is called '{word}'"
    raise UsageError(f"{what}; it has {_names(listed())}, or use 'auto'")


def _names(providers: Sequence[str]) -> str:
    return ", ".join(short(p).lower() for p in providers)


@functools.cache
def failure(provider: str) -> str | None:
    """Why a session of one Relu cannot be made and run with `provider`; None when it can.

    A GPU wheel lists CUDA on machines that have no CUDA, so nothing but trying tells.
    """
    if provider == CPU:
        return None
    ort = engine()
    caught = Caught()
    try:
        with quiet() as caught:
            settings = ort.SessionOptions()
            session = ort.InferenceSession(relu(), settings, providers=configured([provider]), enable_fallback=0)
            loaded = provider in session.get_providers()
            if loaded:
                session.run(None, {"x": [1.0, -1.0]})
    except Exception as error:  # each provider fails with its own classes
        return _why(caught.text) or reason(error)
    return None if loaded else _why(caught.text) or "onnxruntime gave no reason"


def _why(text: str) -> str | None:
    """The reason in what the loader printed: the library that is missing, else the first error line."""
    missing = re.search(r"with error: (.+)", text) or re.search(r"(\S+: cannot open shared object file[^\n]*)", text)
    if missing:
        return reason(missing[1])
    lines = [line for line in text.splitlines() if ":onnxruntime:" in line]
    return reason(re.sub(r"^.*?\] ", "", lines[0])) if lines else None


def configured(providers: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Providers with the options that make their arithmetic comparable with the CPU's."""
    return [(p, OPTIONS.get(p, {})) for p in providers]


@functools.cache
def relu(opset: int = 13) -> bytes:
    """A model of one Relu, to try things with."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8).SerializeToString()
