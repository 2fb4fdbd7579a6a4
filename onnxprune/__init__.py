"""Structured pruning of ONNX models: whole channels removed, and the surgery proven exact."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from onnxprune.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from onnxprune.channels import Dependencies, analyse
    from onnxprune.errors import CheckFailed, FileError, ModelError, OnnxPruneError, UsageError
    from onnxprune.pipeline.apply import apply
    from onnxprune.pipeline.finetune import finetune
    from onnxprune.pipeline.group_losses import Sensitivity
    from onnxprune.pipeline.inspect import inspect, sensitivity
    from onnxprune.pipeline.prune import Result, prune
    from onnxprune.pipeline.request import Request
    from onnxprune.pipeline.verify import verify
    from onnxprune.report import Report
    from onnxprune.report.tradeoff import Sweep
    from onnxprune.surgery import Plan
    from onnxprune.sweeps.sweep import sweep

# Where the public names live. They are imported when they are first used: onnx, scipy and onnxruntime take their time,
# and the command line answers --help, and Ctrl-C, without them.
_HOMES = {
    "CheckFailed": "errors",
    "Dependencies": "channels",
    "FileError": "errors",
    "ModelError": "errors",
    "OnnxPruneError": "errors",
    "Plan": "surgery",
    "Report": "report",
    "Request": "pipeline.request",
    "Result": "pipeline.prune",
    "Sensitivity": "pipeline.group_losses",
    "Sweep": "report.tradeoff",
    "UsageError": "errors",
    "analyse": "channels",
    "apply": "pipeline.apply",
    "finetune": "pipeline.finetune",
    "inspect": "pipeline.inspect",
    "prune": "pipeline.prune",
    "sensitivity": "pipeline.inspect",
    "sweep": "sweeps.sweep",
    "verify": "pipeline.verify",
}

__all__ = [
    "CheckFailed",
    "Dependencies",
    "FileError",
    "ModelError",
    "OnnxPruneError",
    "Plan",
    "Report",
    "Request",
    "Result",
    "Sensitivity",
    "Sweep",
    "UsageError",
    "analyse",
    "apply",
    "finetune",
    "inspect",
    "prune",
    "sensitivity",
    "sweep",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'onnxprune' has no attribute {name!r}")
    return getattr(import_module(f"onnxprune.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
