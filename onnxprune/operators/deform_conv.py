"""Deformable convolutions: the taps are moved by offsets that the data says."""

import math
from typing import Any

import numpy as np

from onnxprune.operators.convolution import SLIDES, convolve, repair_groups
from onnxprune.operators.facts import Facts
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.labels import Axes, Kind, line
from onnxprune.operators.lazy_torch import Tensor, functional, torch
from onnxprune.operators.op import Op
from onnxprune.operators.patches import padding
from onnxprune.operators.registry import Trait, define
from onnxprune.operators.site import Site
from onnxprune.operators.sums import bias_of
from onnxprune.operators.zeros import made


def deform_conv(
    op: Op, x: Axes, w: Axes, offset: Axes, b: Axes | None = None, mask: Axes | None = None, *,
    group: int = 1, offset_group: int = 1, **_: Any,
) -> Axes:  # fmt: skip
    """A convolution whose taps are moved, for each offset group of channels in its own way."""
    for moves in filter(None, (offset, mask)):
        op.freeze(*moves[1:], why="moves its kernel by it")
        op.tie(x[0], moves[0])
    op.freeze(*x[2:], why=SLIDES)
    grid = x[1].reshape(offset_group, -1)
    op.coupling.tie(np.broadcast_to(grid[:1], grid.shape), grid, kind=Kind.BALANCES)
    return convolve(op, x, w, (b,), group)


def bound_deform_conv(site: Site) -> Facts:
    """Filters of zeros give the bias, wherever they look."""
    w, at = site.weight(1), line(len(site.shape()), 1)
    vanishing = ~w.any(axis=tuple(range(1, w.ndim)), keepdims=True)
    return zero_where(site, vanishing.reshape(at), bias_of(site, 3, len(w)).reshape(at))


def forward_deform_conv(
    node: TorchCall, x: Tensor, w: Tensor, offset: Tensor, b: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Images; offsets (batch, groups · kernel · 2, height, width) in rows and columns, masks alike without the 2.

    Dai et al. 2017, Deformable convolutional networks, arXiv 1703.06211; with masks Zhu et al. 2018, arXiv 1811.11168.
    """
    n, _, height, width = x.shape
    kernel = w.shape[2:]
    taps, groups = kernel[0] * kernel[1], node.get("offset_group", 1)
    (top, left), _ = padding(node.attributes, (height, width), kernel)
    (down, right), (tall, wide) = node.get("strides", [1, 1]), node.get("dilations", [1, 1])
    rows, columns = offset.shape[2:]
    like: dict[str, Any] = {"device": x.device, "dtype": x.dtype}
    at_y = torch.arange(kernel[0], **like).mul(tall).repeat_interleave(kernel[1]).reshape(taps, 1, 1)
    at_x = torch.arange(kernel[1], **like).mul(wide).repeat(kernel[0]).reshape(taps, 1, 1)
    y0 = torch.arange(rows, **like).mul(down).sub(top).reshape(rows, 1)
    x0 = torch.arange(columns, **like).mul(right).sub(left)
    moved = offset.reshape(n * groups, taps, 2, rows, columns)
    places = torch.stack((moved[:, :, 1] + at_x + x0, moved[:, :, 0] + at_y + y0), -1)  # pixels
    scale = torch.tensor([2 / width, 2 / height], **like)
    grid = ((places + 0.5) * scale - 1).reshape(n * groups, taps * rows, columns, 2)
    parts = functional.grid_sample(x.reshape(n * groups, -1, height, width), grid, align_corners=False)
    parts = parts.reshape(n, groups, -1, taps, rows, columns)
    if mask is not None:
        parts = parts * mask.reshape(n, groups, 1, taps, rows, columns)
    group = node.get("group", 1)
    parts = parts.reshape(n, group, -1, rows * columns)  # (channels of the group · taps)
    out = w.reshape(group, w.shape[0] // group, -1) @ parts
    out = out.reshape(n, -1, rows, columns)
    return out if b is None else out + b.reshape(-1, 1, 1)


define(
    "DeformConv", couple=deform_conv, channel=1, zero=made(3), repair=repair_groups, bound=bound_deform_conv,
    traits=Trait.LAYER | Trait.CONVOLVES, work=lambda y, x, w: math.prod(y) * math.prod(w[1:]),
    forward=Forward(forward_deform_conv),
)  # fmt: skip
