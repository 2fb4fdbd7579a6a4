"""Sums, means and extremes over axes."""

from collections.abc import Callable

import torch
from torch import Tensor

from onnxprune.training.operators.shapes import axes_of
from onnxprune.training.operators.table import Node, differentiable, without_gradient

Reduce = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keep)
    count = x.numel() // max(1, x.sum(axes).numel())
    return torch.div(x.sum(axes, keep), count, rounding_mode="trunc").to(x.dtype)


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keep, dtype=x.dtype)
    return x


REDUCE: dict[str, Reduce] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keep),
    "ReduceMean": _mean,
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keep),
    "ReduceProd": _product,
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keep),
}


def _register(name: str, reduce: Reduce) -> None:
    @differentiable(name, into=(0,), host=(1,))
    def reduced(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
        """Over all axes where none are named, or over none."""
        found = axes_of(node, axes)
        if not found:
            if node.get("noop_with_empty_axes"):
                return x
            found = list(range(x.dim()))
        return reduce(x, tuple(k % x.dim() for k in found), bool(node.get("keepdims", 1))) if x.dim() else x


for _name, _reduce in REDUCE.items():
    _register(_name, _reduce)


def _extreme(node: Node, x: Tensor, find: Callable[..., Tensor]) -> Tensor:
    axis, keep = node.get("axis", 0), bool(node.get("keepdims", 1))
    if node.get("select_last_index"):
        return x.shape[axis] - 1 - find(x.flip(axis), axis, keepdim=keep)
    return find(x, axis, keepdim=keep)


@without_gradient("ArgMax")
def arg_max(node: Node, x: Tensor) -> Tensor:
    return _extreme(node, x, torch.argmax)


@without_gradient("ArgMin")
def arg_min(node: Node, x: Tensor) -> Tensor:
    return _extreme(node, x, torch.argmin)
