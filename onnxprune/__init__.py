"""Structured pruning of ONNX models: whole channels removed, and the surgery proven exact."""

__version__ = "0.1.0"
