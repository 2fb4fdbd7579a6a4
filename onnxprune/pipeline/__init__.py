"""The stages in a row: load → analyse → score → allocate → plan → compensate → rewrite → verify → save → report."""

from onnxprune.pipeline.apply import apply
from onnxprune.pipeline.curves import sensitivity
from onnxprune.pipeline.prune import Result, prune
from onnxprune.pipeline.request import Request
from onnxprune.pipeline.sensitivity import Sensitivity
from onnxprune.pipeline.verify import verify

__all__ = ["Request", "Result", "Sensitivity", "apply", "prune", "sensitivity", "verify"]
