"""Pooling over windows or over all of space: (batch, channels, *space)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.training.operators.convolution import CONVOLVE, padded, padding
from onnxprune.training.operators.table import Node, differentiable

MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
AVERAGE: dict[int, Any] = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def windows(node: Node, sizes: Sequence[int]) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Kernel, strides, dilations, padding before, and padding after, so that the last window just fits.

    Under `ceil_mode` a last window counts that starts inside the input or the padding before it.
    """
    kernel, ones = node.get("kernel_shape"), [1] * len(sizes)
    strides, dilations = node.get("strides", ones), node.get("dilations", ones)
    before, after = padding(node, sizes, kernel)
    if not node.get("ceil_mode"):
        return kernel, strides, dilations, before, after
    fitted = []
    for size, k, s, d, p, q in zip(sizes, kernel, strides, dilations, before, after, strict=True):
        reach = (k - 1) * d + 1
        count = -(-(size + p + q - reach) // s) + 1
        count -= (count - 1) * s >= size + p
        fitted.append((count - 1) * s + reach - size - p)
    return kernel, strides, dilations, before, fitted


def _infinite(x: Tensor) -> float:
    return -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min


@differentiable("MaxPool")
def max_pool(node: Node, x: Tensor) -> Any:
    rank = x.dim() - 2
    kernel, strides, dilations, before, after = windows(node, x.shape[2:])
    lopsided = before != after or any(2 * p > k for p, k in zip(before, kernel, strict=True))
    pads = [0] * rank if lopsided else before
    wide = padded(x, before, after, _infinite(x)) if lopsided else x
    wide = wide if wide.is_floating_point() else wide.to(torch.float32)
    y = MAX[rank](wide, kernel, strides, pads, dilations, return_indices=node.outputs > 1)
    if node.outputs == 1:
        return y.to(x.dtype)
    y, found = y
    return y.to(x.dtype), _places(node, x, found, wide.shape[2:], before if lopsided else pads)


def _places(node: Node, x: Tensor, found: Tensor, sizes: Sequence[int], before: Sequence[int]) -> Tensor:
    """Places within the whole tensor of what was found in the (perhaps padded) space, row or column by column."""
    axes, rest = list[Tensor](), found
    for size, pad in zip(reversed(sizes), reversed(before), strict=True):
        axes.insert(0, rest % size - (pad if tuple(sizes) != tuple(x.shape[2:]) else 0))
        rest = rest // size
    order = list(range(len(axes)))[:: -1 if node.get("storage_order") else 1]
    flat = torch.zeros_like(found)
    for k in order:
        flat = flat * x.shape[2 + k] + axes[k]
    first = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], *[1] * len(axes))
    return flat + first * math.prod(x.shape[2:])


@differentiable("MaxUnpool", into=(0,), host=(2,))
def max_unpool(node: Node, x: Tensor, places: Tensor, sizes: Tensor | None = None) -> Tensor:
    kernel, rank = node.get("kernel_shape"), x.dim() - 2
    strides, pads = node.get("strides", [1] * rank), node.get("pads", [0] * 2 * rank)
    shape = [
        (n - 1) * s + k - p - q
        for n, s, k, p, q in zip(x.shape[2:], strides, kernel, pads[:rank], pads[rank:], strict=True)
    ]
    small = [*x.shape[:2], *shape]
    out = x.new_zeros(math.prod(small) if sizes is None else math.prod(sizes.tolist()))
    out = out.scatter(0, places.reshape(-1), x.reshape(-1))
    return out.reshape(small if sizes is None else sizes.tolist())


def _sums(x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]) -> Tensor:
    """Sums over windows."""
    rank, channels = x.dim() - 2, x.shape[1]
    if max(dilations) == 1:
        return AVERAGE[rank](x, kernel, strides) * math.prod(kernel)
    ones = x.new_ones(channels, 1, *kernel)
    return CONVOLVE[rank](x, ones, None, strides, 0, dilations, channels)


@differentiable("AveragePool")
def average_pool(node: Node, x: Tensor) -> Tensor:
    """Means over what lies in the input, with `count_include_pad` over the padding too."""
    kernel, strides, dilations, before, after = windows(node, x.shape[2:])
    wide = padded(x, before, after)
    total = _sums(wide, kernel, strides, dilations)
    if not any(before) and not any(after):
        return total / math.prod(kernel)
    ones = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
    if node.get("count_include_pad"):
        less, more = padding(node, x.shape[2:], kernel)
        ones = padded(ones, less, more, 1.0)
        rest = [n + p - m for n, p, m in zip(after, before, less, strict=True)]
        ones = padded(ones, [0] * len(less), [n - m for n, m in zip(rest, more, strict=True)])
    else:
        ones = padded(ones, before, after)
    return total / _sums(ones, kernel, strides, dilations)


@differentiable("LpPool")
def lp_pool(node: Node, x: Tensor) -> Tensor:
    p = node.get("p", 2)
    kernel, strides, dilations, before, after = windows(node, x.shape[2:])
    return _sums(padded(x.abs() ** p, before, after), kernel, strides, dilations) ** (1 / p)


@differentiable("GlobalAveragePool")
def global_average_pool(node: Node, x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@differentiable("GlobalMaxPool")
def global_max_pool(node: Node, x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


@differentiable("GlobalLpPool")
def global_lp_pool(node: Node, x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, node.get("p", 2), tuple(range(2, x.dim())), keepdim=True)
