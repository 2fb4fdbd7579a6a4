"""Transposed convolutions: each element is spread over an area by filters."""

import math
from typing import Any

from onnxprune.operators.convolution import SLIDES, bound_conv, padded, transposed_filters_of
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.labels import Axes, repeated
from onnxprune.operators.lazy_torch import Tensor, functional
from onnxprune.operators.op import Op
from onnxprune.operators.patches import linear_conv_transpose
from onnxprune.operators.registry import Taken, Trait, define
from onnxprune.operators.zeros import made


def _batch(x: Axes) -> int:
    return x[0].size


def conv_transpose(op: Op, x: Axes, w: Axes, b: Axes | None = None, *, group: int = 1, **_: Any) -> Axes:
    """Weights are (in, out / group, ...): the first axis reads."""
    op.freeze(*x[2:], *w[2:], why=SLIDES)
    per_group = w[0].size // group
    op.writes(w[1])
    op.reads(w[0])
    if group > 1 and per_group == 1:  # depthwise, with w[1] outputs for each channel
        out = repeated(x[1], w[1].size, each=True)
        op.freeze(*(w[1:2] if w[1].size > 1 else ()), why="gives every channel the same number of outputs")
        op.tie(x[1], w[0])
        op.writes(w[0])
        op.follows(w[0])
    else:
        grid = x[1].reshape(group, -1)
        op.contract(w[0], x[1], op.weights[1] or op.zero_inputs[0])
        op.tie(grid[:1], grid)
        out = repeated(w[1], group)
    if b is not None:
        op.tie(out, *b)
        op.adds(*b)
    kernel = math.prod(k.size for k in w[2:])
    op.macs(_batch(x) * math.prod(a.size for a in x[2:]) * kernel, w[0], w[1])
    return (x[0], out, ...)  # type: ignore[return-value]


def repair_conv_transpose(edit: Any, group: int = 1, **_: Any) -> None:
    if group > 1:
        edit.set_attribute("group", edit.count_out(0, 1) // edit.count_in(1, 1))


def _one_channel_each(taken: Taken) -> bool:
    shape, group = taken.shapes[1], taken.attributes.get("group", 1)
    return shape is not None and group > 1 and shape[0] == group


def forward_conv_transpose(node: TorchCall, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """Filters (inputs, outputs per group, *kernel).  What lies beyond the padding is cut off the full result."""
    rank = x.dim() - 2
    ones, zeros = [1] * rank, [0] * rank
    strides, dilations = node.get("strides", ones), node.get("dilations", ones)
    more = node.get("output_padding", zeros)
    y = getattr(functional, f"conv_transpose{rank}d")(x, w, b, strides, 0, more, node.get("group", 1), dilations)
    wanted, auto = node.get("output_shape"), node.get("auto_pad", "NOTSET")
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    if wanted is None:
        pads = node.get("pads", [0] * 2 * rank) if auto != "VALID" else [0] * 2 * rank
        before, after = pads[:rank], pads[rank:]
    else:
        cut = [size - want for size, want in zip(y.shape[2:], wanted[-rank:], strict=True)]
        less, rest = [max(0, n) // 2 for n in cut], [n - max(0, n) // 2 for n in cut]
        before, after = (less, rest) if auto == "SAME_UPPER" else (rest, less)
    return padded(y, [-n for n in before], [-n for n in after])


define(
    "ConvTranspose", couple=conv_transpose, channel=1, zero=made(2), repair=repair_conv_transpose, bound=bound_conv,
    apart=_one_channel_each, filters=transposed_filters_of, linear=linear_conv_transpose, bias=2,
    work=lambda y, x, w: math.prod(x) * math.prod(w[1:]),
    traits=Trait.LINEAR | Trait.LAYER | Trait.CONVOLVES | Trait.SPREADS, forward=Forward(forward_conv_transpose),
)  # fmt: skip
