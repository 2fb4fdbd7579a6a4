"""Training of a network from its file: an ONNX graph is run, and differentiated, by torch.

torch is an extra: nothing here is imported before somebody trains.
"""

import importlib.util

from onnxprune.errors import UsageError


def require_torch() -> None:
    """Raises UsageError with what to install where torch is missing."""
    if importlib.util.find_spec("torch") is None:
        raise UsageError("training needs torch: pip install 'onnxprune[train]'")
