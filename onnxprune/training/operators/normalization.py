"""Normalisation: over the batch, over channels, over space."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.training.operators.table import Node, differentiable


def per_channel(v: Tensor, x: Tensor) -> Tensor:
    """A vector along the second axis."""
    return v.reshape(-1, *[1] * (x.dim() - 2))


@differentiable("BatchNormalization", into=(0, 1, 2))
def batch_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Any:
    """By its own statistics; with `training_mode` by those of the batch, which then are given as well.

    Ioffe, Szegedy 2015, arXiv 1502.03167.  The statistics move by `momentum`, the share of the old ones.
    """
    epsilon = node.get("epsilon", 1e-5)
    if not (node.get("training_mode") and node.opset >= 14):
        return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)
    axes = (0, *range(2, x.dim()))
    found = x.var(axes, unbiased=False), x.mean(axes)
    y = functional.batch_norm(x, None, None, scale, bias, True, 0.0, epsilon)
    keep = node.get("momentum", 0.9)
    moved = tuple(old * keep + new.detach() * (1 - keep) for old, new in ((mean, found[1]), (variance, found[0])))
    return (y, *moved)[: max(1, node.outputs)] if node.outputs > 1 else y


@differentiable("InstanceNormalization")
def instance_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    axes = tuple(range(2, x.dim()))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    y = (x - mean) * torch.rsqrt(variance + node.get("epsilon", 1e-5))
    return y * per_channel(scale, x) + per_channel(bias, x)


@differentiable("GroupNormalization")
def group_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Scale and bias of each channel, before opset 21 of each group."""
    groups = node.get("num_groups")
    y = functional.group_norm(x, groups, None, None, node.get("epsilon", 1e-5))
    times = x.shape[1] // scale.shape[0]
    scale, bias = (v.repeat_interleave(times) if times > 1 else v for v in (scale, bias))
    return y * per_channel(scale, x) + per_channel(bias, x)


@differentiable("LayerNormalization")
def layer_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Any:
    """Over the given axis and all behind it.  Ba, Kiros, Hinton 2016, arXiv 1607.06450."""
    axis = node.get("axis", -1) % x.dim()
    epsilon = node.get("epsilon", 1e-5)
    if node.outputs == 1 and scale.shape == x.shape[axis:] and (bias is None or bias.shape == scale.shape):
        return functional.layer_norm(x, x.shape[axis:], scale, bias, epsilon)
    variance, mean = torch.var_mean(x, tuple(range(axis, x.dim())), correction=0, keepdim=True)
    deviation = torch.rsqrt(variance + epsilon)
    y = (x - mean) * deviation * scale
    y = y if bias is None else y + bias
    return (y, mean, deviation) if node.outputs > 1 else y


@differentiable("RMSNormalization", "SimplifiedLayerNormalization")
def rms_normalization(node: Node, x: Tensor, scale: Tensor) -> Any:
    """Zhang, Sennrich 2019, arXiv 1910.07467."""
    axis = node.get("axis", -1) % x.dim()
    mean = x.square().mean(tuple(range(axis, x.dim())), keepdim=True)
    deviation = torch.rsqrt(mean + node.get("epsilon", 1e-5))
    y = x * deviation * scale
    return (y, deviation) if node.outputs > 1 else y


@differentiable("com.microsoft:SkipLayerNormalization")
def skip_layer_normalization(
    node: Node, x: Tensor, skip: Tensor, scale: Tensor, shift: Tensor | None = None, bias: Tensor | None = None
) -> Any:
    """The norm of a sum, and the sum itself as the fourth output."""
    total = x + skip if bias is None else x + skip + bias
    y = functional.layer_norm(total, total.shape[-1:], scale, shift, node.get("epsilon", 1e-12))
    return (y, None, None, total) if node.outputs > 3 else y


@differentiable("com.microsoft:SkipSimplifiedLayerNormalization")
def skip_rms_normalization(node: Node, x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None) -> Any:
    total = x + skip if bias is None else x + skip + bias
    deviation = torch.rsqrt(total.square().mean(-1, keepdim=True) + node.get("epsilon", 1e-12))
    y = total * deviation * scale
    return (y, None, None, total) if node.outputs > 3 else y


@differentiable("MeanVarianceNormalization")
def mean_variance_normalization(node: Node, x: Tensor) -> Tensor:
    axes = node.get("axes", [0, 2, 3])
    variance, mean = torch.var_mean(x, tuple(axes), correction=0, keepdim=True)
    return (x - mean) / (variance.sqrt() + 1e-9)


@differentiable("LpNormalization")
def lp_normalization(node: Node, x: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(x, node.get("p", 2), node.get("axis", -1), keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, torch.ones_like(norm), norm))


@differentiable("LRN")
def lrn(node: Node, x: Tensor) -> Tensor:
    """Krizhevsky, Sutskever, Hinton 2012: divided by a power of a sum of squares over neighbouring channels."""
    size = node.get("size")
    squares = functional.pad(x.square().flatten(2).movedim(1, -1), ((size - 1) // 2, size // 2))
    total = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1).reshape(x.shape)
    return x / (node.get("bias", 1.0) + node.get("alpha", 1e-4) / size * total) ** node.get("beta", 0.75)
