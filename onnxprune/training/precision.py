"""Mixed precision: products in bfloat16, weights, losses and what is judged in float32.

Micikevicius et al. 2018, Mixed precision training, arXiv 1710.03740; Kalamkar et al. 2019, A study of bfloat16 for deep
learning training, arXiv 1905.12322.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from onnxprune.errors import ModelError
from onnxprune.training.module import TorchModule

APART = 0.05  # root mean square of what rounding does to a value, in units of that of the value, at the most


def fits(network: TorchModule, feeds: Iterable[Mapping[str, Tensor]], names: Sequence[str]) -> bool:
    """Whether a network can be trained in mixed precision.

    The CPU has instructions for it, all operators take it, and the named values stay what they are on these samples,
    but for `APART`.
    """
    if network.device.type != "cpu" or not getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)():
        return False
    with torch.no_grad():
        for feed in feeds:
            exact = network(feed, names)
            try:
                with products(True):
                    rounded = network(feed, names)
            except ModelError:
                return False
            if not all(_close(rounded[n], exact[n]) for n in names):
                return False
    return True


def products(mixed: bool) -> AbstractContextManager[None]:
    """Inside, convolutions and products of matrices take and give bfloat16, if `mixed`."""
    return torch.autocast("cpu", torch.bfloat16, enabled=mixed)


def _close(rounded: Tensor, exact: Tensor) -> bool:
    off, size = (x.double().square().mean().sqrt() for x in (rounded.double() - exact, exact))
    return bool(off <= APART * size)
