"""torch for functions that may never be called: it is an extra, takes seconds to load, and does so when it is used.

At import time there is only the name, so that no default, table or decorator may take anything from it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import functional
else:

    class _Lazy:
        """A module that is loaded upon the first question for something in it."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            found = getattr(import_module(self._name), name)
            setattr(self, name, found)
            return found

    torch, functional = _Lazy("torch"), _Lazy("torch.nn.functional")
    Tensor = Any

__all__ = ["Tensor", "functional", "torch"]
