"""Activations, and the fused ones of onnxruntime."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.training.operators.table import TABLE, Node, differentiable, without_gradient


@differentiable("ParametricSoftplus")
def parametric_softplus(node: Node, x: Tensor) -> Tensor:
    return node.get("alpha", 1.0) * functional.softplus(x * node.get("beta", 1.0))


@differentiable("ScaledTanh")
def scaled_tanh(node: Node, x: Tensor) -> Tensor:
    return node.get("alpha", 1.0) * torch.tanh(x * node.get("beta", 1.0))


@differentiable("Swish")
def swish(node: Node, x: Tensor) -> Tensor:
    return x * torch.sigmoid(node.get("alpha", 1.0) * x)


@differentiable("com.microsoft:QuickGelu")
def quick_gelu(node: Node, x: Tensor) -> Tensor:
    return x * torch.sigmoid(node.get("alpha", 1.702) * x)


@differentiable("HardSigmoid")
def hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    return (node.get("alpha", 0.2) * x + node.get("beta", 0.5)).clamp(0, 1)


@differentiable("LeakyRelu")
def leaky_relu(node: Node, x: Tensor) -> Tensor:
    return functional.leaky_relu(x, node.get("alpha", 0.01))


@differentiable("Elu")
def elu(node: Node, x: Tensor) -> Tensor:
    return functional.elu(x, node.get("alpha", 1.0))


@differentiable("Celu")
def celu(node: Node, x: Tensor) -> Tensor:
    alpha = node.get("alpha", 1.0)
    return x.clamp(min=0) + (alpha * torch.expm1(x / alpha)).clamp(max=0)


@differentiable("Selu")
def selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.get("alpha", 1.6732632423543772), node.get("gamma", 1.0507009873554805)
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))


@differentiable("ThresholdedRelu")
def thresholded_relu(node: Node, x: Tensor) -> Tensor:
    return torch.where(x > node.get("alpha", 1.0), x, torch.zeros_like(x))


@differentiable("Shrink")
def shrink(node: Node, x: Tensor) -> Tensor:
    edge, bias, zero = node.get("lambd", 0.5), node.get("bias", 0.0), torch.zeros_like(x)
    return torch.where(x < -edge, x + bias, torch.where(x > edge, x - bias, zero))


@differentiable("PRelu")
def prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    """Before opset 7 a slope of one axis belongs to the channels."""
    if node.opset < 7 and slope.dim() == 1 and x.dim() > 2:
        slope = slope.reshape(-1, *[1] * (x.dim() - 2))
    return torch.where(x < 0, slope * x, x)


@differentiable("Gelu", "com.microsoft:Gelu")
def gelu(node: Node, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=node.get("approximate", "none"))


@differentiable("com.microsoft:FastGelu")
def fast_gelu(node: Node, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


@differentiable("com.microsoft:BiasGelu")
def bias_gelu(node: Node, x: Tensor, bias: Tensor) -> Tensor:
    return functional.gelu(x + bias)


def _coerced(node: Node, x: Tensor) -> tuple[Tensor, int]:
    """Before opset 13 all axes from the given one on are one axis together."""
    if node.opset >= 13:
        return x, node.get("axis", -1)
    axis = node.get("axis", 1) % max(1, x.dim())
    return x.flatten(axis) if x.dim() else x.reshape(1), axis


@differentiable("Softmax")
def softmax(node: Node, x: Tensor) -> Tensor:
    flat, axis = _coerced(node, x)
    return torch.softmax(flat, axis).reshape(x.shape)


@differentiable("LogSoftmax")
def log_softmax(node: Node, x: Tensor) -> Tensor:
    flat, axis = _coerced(node, x)
    return torch.log_softmax(flat, axis).reshape(x.shape)


@without_gradient("Hardmax")
def hardmax(node: Node, x: Tensor) -> Tensor:
    flat, axis = _coerced(node, x)
    best = flat.argmax(axis, keepdim=True)
    return torch.zeros_like(flat).scatter(axis, best, 1.0).reshape(x.shape)


@differentiable("Dropout", into=(0,))
def dropout(node: Node, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> object:
    """As in inference: everything stays."""
    return (x, torch.ones_like(x, dtype=torch.bool)) if node.outputs > 1 else x


def activation(name: str, told: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """An activation that another operator names, with its parameters, which were attributes in the first opset."""
    return partial(TABLE[name].function, Node(name, 1, told))


def fused(node: Node, x: Tensor) -> Tensor:
    """The activation that onnxruntime has fused into a node, with its parameters."""
    name = node.get("activation", "")
    if not name:
        return x
    given = node.get("activation_params", [])
    names = ("min", "max") if name == "Clip" else ("alpha", "beta")
    told = dict(zip(names, given, strict=False)) | {
        k.removeprefix("activation_"): v
        for k, v in node.attributes.items()
        if k in ("activation_alpha", "activation_beta")
    }
    if name in ("Selu",) and "beta" in told:
        told["gamma"] = told.pop("beta")
    return activation(name, told)(x)
