"""Plan, compensate, rewrite: from kept channels to a smaller model."""

from onnxprune.surgery.plan import Plan
from onnxprune.surgery.rewrite import cut, mask

__all__ = ["Plan", "cut", "mask"]
