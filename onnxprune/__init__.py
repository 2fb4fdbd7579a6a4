"""Structured pruning of ONNX models: whole channels removed, and the surgery proven exact."""

__version__ = "0.1.0"

from onnxprune.channels import Dependencies, analyse
from onnxprune.errors import CheckFailed, FileError, ModelError, OnnxPruneError, UsageError
from onnxprune.pipeline import Request, Result, apply, prune, verify
from onnxprune.report import Report
from onnxprune.surgery import Plan

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
    "UsageError",
    "analyse",
    "apply",
    "prune",
    "verify",
]
