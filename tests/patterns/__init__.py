"""Networks whose channels are coupled in every way that is known, by name."""

from importlib import import_module

from patterns.builder import PATTERNS

for kind in "blocks convolutions exported flow fused moves quantized rarer sequences structures".split():
    import_module(f"patterns.{kind}")  # registers its networks

__all__ = ["PATTERNS"]
