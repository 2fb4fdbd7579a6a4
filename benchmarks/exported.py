"""A network with what it is exported with, for `coverage.py`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 37  # a number that no inner layer has


@dataclass(frozen=True)
class Architecture:
    """A network, and what it is exported with.

    inputs: by name, with a first axis that is a batch.
    open: axes that are left open, by input; the batch everywhere.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    open: dict[str, dict[int, str]]


class Outputs(nn.Module):
    """A network whose outputs are tensors, whatever its own are made of."""

    def __init__(self, whole: nn.Module, pick: Callable[..., Any]) -> None:
        super().__init__()
        self.whole = whole
        self.pick = pick

    def forward(self, *x: Tensor) -> Any:
        return self.pick(self.whole, *x)


def pixels(module: nn.Module, size: int = 64, channels: int = 3, sides: bool = True) -> Architecture:
    """A network of images with open sides, where `sides`."""
    axes = {0: "batch"} | ({2: "height", 3: "width"} if sides else {})
    return Architecture(module, {"image": torch.randn(1, channels, size, size)}, {"image": axes})


def tokens(module: nn.Module, length: int = 12, names: str = "ids") -> Architecture:
    """A network of texts."""
    inputs = {name: torch.randint(0, 3, (1, length)) for name in names.split()}
    return Architecture(module, inputs, {name: {0: "batch", 1: f"length of {name}"} for name in inputs})
