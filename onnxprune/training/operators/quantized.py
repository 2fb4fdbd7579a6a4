"""Operators on whole numbers: what they stand for is computed in float32 and quantised again."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from onnxprune.training.operators.convolution import conv
from onnxprune.training.operators.normalization import per_channel
from onnxprune.training.operators.pooling import average_pool, global_average_pool
from onnxprune.training.operators.quantization import along, dynamic, limits, quantised, real
from onnxprune.training.operators.table import Node, Scaling, differentiable

Inputs = Sequence[Tensor | None]


def _out(node: Node, y: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    return quantised(y, scale, zero, limits(node, zero))


def _conv_scaling(node: Node, position: int, inputs: Inputs) -> Scaling | None:
    """Filters have scales of their own; a bias is in units of input times filter."""
    x_scale, w, w_scale, w_zero = inputs[1], inputs[3], inputs[4], inputs[5]
    if w_scale is None:
        return None
    if position == 8 and x_scale is not None:
        return x_scale * w_scale.reshape(-1), torch.zeros(())
    if position != 3 or w is None or w_zero is None:
        return None
    return along(w_scale, w, 0), along(w_zero, w, 0)


@differentiable("QLinearConv", into=(0, 3, 8), layer=True, scaling=_conv_scaling)
def qlinear_conv(
    node: Node, x: Tensor, x_scale: Tensor, x_zero: Tensor, w: Tensor, w_scale: Tensor, w_zero: Tensor,
    scale: Tensor, zero: Tensor, b: Tensor | None = None,
) -> Tensor:  # fmt: skip
    ones = torch.ones((), dtype=x_scale.dtype, device=x_scale.device)
    sums = conv(node, real(x, ones, x_zero), real(w, ones, along(w_zero, w, 0)))
    sums = sums if b is None else sums + per_channel(b.to(sums.dtype), sums)
    return _out(node, sums * (per_channel(w_scale, sums) if w_scale.numel() > 1 else w_scale) * x_scale, scale, zero)


def _columns(v: Tensor, w: Tensor) -> Tensor:
    """One number, or one per column of a matrix."""
    return v.reshape(()) if v.numel() == 1 else v if v.dim() > 1 else v.reshape(1, -1)


def _matrix_scaling(places: tuple[int, int, int]) -> Callable[[Node, int, Inputs], Scaling | None]:
    weight, scale, zero = places

    def scaling(node: Node, position: int, inputs: Inputs) -> Scaling | None:
        w, s = inputs[weight], inputs[scale]
        z = inputs[zero] if zero < len(inputs) else None
        if position != weight or w is None or s is None:
            return None
        return _columns(s, w), torch.zeros(()) if z is None else _columns(z, w)

    return scaling


@differentiable("QLinearMatMul", into=(0, 3), layer=True, scaling=_matrix_scaling((3, 4, 5)))
def qlinear_matmul(
    node: Node, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor,
    scale: Tensor, zero: Tensor,
) -> Tensor:  # fmt: skip
    y = real(a, _rows(a_scale), _rows(a_zero)) @ real(b, _columns(b_scale, b), _columns(b_zero, b))
    return _out(node, y, scale, zero)


def _rows(v: Tensor) -> Tensor:
    return v.reshape(()) if v.numel() == 1 else v if v.dim() > 1 else v.reshape(-1, 1)


def _gemm_scaling(node: Node, position: int, inputs: Inputs) -> Scaling | None:
    a_scale, b, b_scale, b_zero = inputs[1], inputs[3], inputs[4], inputs[5]
    if a_scale is None or b is None or b_scale is None or b_zero is None:
        return None
    axis = 0 if node.get("transB") else 1
    if position == 6:
        return a_scale * b_scale.reshape(-1) * node.get("alpha", 1.0), torch.zeros(())
    return (along(b_scale, b, axis), along(b_zero, b, axis)) if position == 3 else None


@differentiable("com.microsoft:QGemm", into=(0, 3, 6), layer=True, scaling=_gemm_scaling)
def qgemm(
    node: Node, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor,
    c: Tensor | None = None, scale: Tensor | None = None, zero: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """In float32 where no scale of the output is given."""
    axis = 0 if node.get("transB") else 1
    left = real(a, a_scale, a_zero)
    right = real(b, along(b_scale, b, axis), along(b_zero, b, axis))
    y = node.get("alpha", 1.0) * ((left.T if node.get("transA") else left) @ (right.T if node.get("transB") else right))
    if c is not None:
        y = y + c.to(y.dtype) * (a_scale * b_scale.reshape(-1) * node.get("alpha", 1.0))
    return y if scale is None else _out(node, y, scale, zero)


UNIT = 1 / 127  # of weights whose scale the node is not told


def _whole_scaling(node: Node, position: int, inputs: Inputs) -> Scaling | None:
    w, zero = inputs[1], inputs[3] if len(inputs) > 3 else None
    if position != 1 or w is None:
        return None
    if zero is None:
        return torch.tensor(UNIT), torch.zeros(())
    return torch.tensor(UNIT), along(zero, w, 0) if node.op == "ConvInteger" else _columns(zero, w)


@differentiable("ConvInteger", into=(0, 1), layer=True, scaling=_whole_scaling)
def conv_integer(
    node: Node, x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
) -> Tensor:
    one = torch.ones((), device=x.device)
    return conv(node, real(x, one, x_zero), real(w, one, None if w_zero is None else along(w_zero, w, 0)))


@differentiable("MatMulInteger", into=(0, 1), layer=True, scaling=_whole_scaling)
def matmul_integer(
    node: Node, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    one = torch.ones((), device=a.device)
    left = real(a, one, None if a_zero is None else _rows(a_zero))
    return left @ real(b, one, None if b_zero is None else _columns(b_zero, b))


@differentiable("com.microsoft:MatMulIntegerToFloat", into=(0, 1, 6), layer=True, scaling=_matrix_scaling((1, 3, 5)))
def matmul_integer_to_float(
    node: Node, a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, a_zero: Tensor | None = None,
    b_zero: Tensor | None = None, bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    y = real(a, a_scale, a_zero) @ real(b, _columns(b_scale, b), None if b_zero is None else _columns(b_zero, b))
    return y if bias is None else y + bias


@differentiable("com.microsoft:DynamicQuantizeMatMul", into=(0, 1, 4), layer=True, scaling=_matrix_scaling((1, 2, 3)))
def dynamic_quantize_matmul(
    node: Node, a: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    scale, zero = dynamic(a)
    whole = quantised(a, scale, zero, (0.0, 255.0))
    return matmul_integer_to_float(node, whole, b, scale, b_scale, zero, b_zero, bias)


@differentiable("com.microsoft:QLinearAdd", into=(0, 3))
def qlinear_add(
    node: Node, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor,
    scale: Tensor, zero: Tensor | None = None,
) -> Tensor:  # fmt: skip
    return _out(node, real(a, a_scale, a_zero) + real(b, b_scale, b_zero), scale, _typed(zero, a_zero))


@differentiable("com.microsoft:QLinearMul", into=(0, 3))
def qlinear_mul(
    node: Node, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor,
    scale: Tensor, zero: Tensor | None = None,
) -> Tensor:  # fmt: skip
    return _out(node, real(a, a_scale, a_zero) * real(b, b_scale, b_zero), scale, _typed(zero, a_zero))


def _typed(zero: Tensor | None, like: Tensor | None) -> Tensor | None:
    """A zero point that is left out is 0, of the type of another one."""
    return torch.zeros_like(like) if zero is None and like is not None else zero


def _pointwise(name: str, function: Callable[[Node, Tensor], Tensor]) -> None:
    @differentiable(f"com.microsoft:{name}", into=(0,))
    def quantised_function(
        node: Node, x: Tensor, x_scale: Tensor, x_zero: Tensor | None, scale: Tensor, zero: Tensor | None = None
    ) -> Tensor:
        return _out(node, function(node, real(x, x_scale, x_zero)), scale, _typed(zero, x_zero))


def _last(node: Node, x: Tensor) -> bool:
    return bool(node.get("channels_last"))


_pointwise("QLinearLeakyRelu", lambda node, x: torch.nn.functional.leaky_relu(x, node.get("alpha", 0.01)))
_pointwise("QLinearSigmoid", lambda node, x: torch.sigmoid(x))
_pointwise("QLinearSoftmax", lambda node, x: _softmax(node, x))
_pointwise(
    "QLinearGlobalAveragePool",
    lambda node, x: (
        x.mean(tuple(range(1, x.dim() - 1)), keepdim=True) if _last(node, x) else global_average_pool(node, x)
    ),
)
_pointwise(
    "QLinearAveragePool",
    lambda node, x: average_pool(node, x.movedim(-1, 1)).movedim(1, -1) if _last(node, x) else average_pool(node, x),
)


def _softmax(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", -1)
    if node.get("opset", 13) >= 13:
        return torch.softmax(x, axis)
    return torch.softmax(x.flatten(axis % x.dim()), -1).reshape(x.shape)


@differentiable("com.microsoft:QLinearConcat", into=range(2, 1 << 16, 3))
def qlinear_concat(node: Node, scale: Tensor, zero: Tensor, *parts: Tensor) -> Tensor:
    """Parts: (values, scale, zero point) of each."""
    found = [real(parts[k], parts[k + 1], parts[k + 2]) for k in range(0, len(parts), 3)]
    return _out(node, torch.cat(found, node.get("axis")), scale, zero)


@differentiable("com.microsoft:QLinearWhere", into=(1, 4))
def qlinear_where(
    node: Node, condition: Tensor, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor,
    b_zero: Tensor, scale: Tensor, zero: Tensor,
) -> Tensor:  # fmt: skip
    return _out(node, torch.where(condition, real(a, a_scale, a_zero), real(b, b_scale, b_zero)), scale, zero)
