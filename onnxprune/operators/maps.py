"""Operators on maps that sample, crop, reverse or fold them."""

import math
from typing import Any

import numpy as np

from onnxprune.operators.convolution import padded
from onnxprune.operators.facts import Facts, NothingKnown, expanded, facts, reduced
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.intervals import homogeneous_rows
from onnxprune.operators.labels import Axes
from onnxprune.operators.lazy_torch import Tensor, functional, torch
from onnxprune.operators.op import Op
from onnxprune.operators.patches import padding
from onnxprune.operators.registry import Alike, Arrays, Attributes, Shape, Trait, define
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import mix
from onnxprune.operators.zeros import first


def reverse(op: Op, x: Axes, *_: Axes | None, time_axis: int = 0, batch_axis: int = 1, **__: Any) -> Axes:
    op.freeze(x[time_axis], x[batch_axis], why="reverses it")
    return x


def forward_reverse_sequence(node: TorchCall, x: Tensor, lengths: Tensor) -> Tensor:
    """The first steps of each sample backwards, as many as its length."""
    time, batch = node.get("time_axis", 0), node.get("batch_axis", 1)
    steps = torch.arange(x.shape[time], device=x.device)
    ends = lengths.long().unsqueeze(-1)
    index = torch.where(steps < ends, ends - 1 - steps, steps)  # (batch, time)
    index = index if batch < time else index.T
    view = [x.shape[k] if k in (time, batch) else 1 for k in range(x.dim())]
    return x.gather(time, index.reshape(view).expand(x.shape))


define(
    "ReverseSequence", couple=reverse, channelwise=True, traits=Trait.SELECTS,
    forward=Forward(forward_reverse_sequence, into=(0,)),
    bound=lambda site: homogeneous_rows(
        site, [site.attributes.get("time_axis", 0), site.attributes.get("batch_axis", 1)]
    ),
)  # fmt: skip
define("Reverse", couple=reverse)


def trilu(op: Op, x: Axes, *_: Axes | None, **__: Any) -> Axes:
    op.freeze(*x[-2:], why="keeps a triangle of it")
    return x


def forward_trilu(node: TorchCall, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = 0 if k is None else int(k)
    return torch.triu(x, diagonal) if node.get("upper", 1) else torch.tril(x, diagonal)


define(
    "Trilu", couple=trilu, zero=first, channelwise=True, traits=Trait.SELECTS,
    forward=Forward(forward_trilu, into=(0,), host=(1,)),
    bound=lambda site: homogeneous_rows(site, (-2, -1), with_zero=True),
)  # fmt: skip
define("com.microsoft:Trilu", shape=Alike(), forward=Forward(forward_trilu, into=(0,), host=(1,)))


def grid_sample(op: Op, x: Axes, grid: Axes, **_: Any) -> Axes:
    op.freeze(*x[2:], *grid[1:], why="samples it")
    return (op.tie(x[0], grid[0]), x[1], ...)  # type: ignore[return-value]


def bound_grid_sample(site: Site) -> Facts:
    """Means of neighbours, and of zeros outside of a map."""
    (grid, sizes), space = site.fact(1), range(2, len(site.shape()))
    if site.attributes.get("mode", b"linear") in (b"cubic", b"bicubic"):
        raise NothingKnown
    flat = reduced(site.data(), space)
    where = expanded(reduced(grid, [1, *space]), sizes, [0] if flat.shape[0] > 1 else [])
    names = mix(flat.identity, *where.exact, site.kind)
    return facts(np.minimum(flat.low, 0), np.maximum(flat.high, 0), names, flat.scale)


SAMPLING = {"linear": "bilinear", "cubic": "bicubic"}


def forward_grid_sample(node: TorchCall, x: Tensor, grid: Tensor) -> Tensor:
    """Places in [−1, 1].  Jaderberg et al. 2015, Spatial transformer networks, arXiv 1506.02025."""
    mode = node.get("mode", "bilinear")
    edges = node.get("padding_mode", "zeros")
    corners = bool(node.get("align_corners", 0))
    return functional.grid_sample(x, grid, SAMPLING.get(mode, mode), edges, align_corners=corners)


_SAMPLES = Forward(forward_grid_sample, into=lambda node: (0,) if node.get("mode") == "nearest" else (0, 1))
define(
    "GridSample", couple=grid_sample, zero=first, statistics=lambda op: range(2, len(op.shapes[0] or ())),
    bound=bound_grid_sample, channelwise=True, forward=_SAMPLES,
)  # fmt: skip
define("com.microsoft:GridSample", shape=Alike("GridSample", (0, 1)), forward=_SAMPLES)


def columns_to_image(op: Op, x: Axes, *_: Axes | None, **__: Any) -> Axes:
    """Columns (samples, channels · places in a block, blocks) become maps again."""
    grid = x[1].reshape(-1, math.prod(op.required_ints(2)))
    op.freeze(x[2], why="puts blocks of it into their places")
    op.tie(grid[:, :1], grid)
    return (x[0], grid[:, 0], ...)  # type: ignore[return-value]


def forward_col2im(node: TorchCall, x: Tensor, image: Tensor, block: Tensor) -> Tensor:
    """Columns of blocks of an image (two axes) added up."""
    size, kernel = image.tolist(), block.tolist()
    before, after = padding(node.attributes, size, kernel)
    ones = [1] * len(size)
    whole = [n + p + q for n, p, q in zip(size, before, after, strict=True)]
    y = functional.fold(
        x, tuple(whole), tuple(kernel), tuple(node.get("dilations", ones)), 0, tuple(node.get("strides", ones))
    )
    return padded(y, [-n for n in before], [-n for n in after])


define(
    "Col2Im", couple=columns_to_image, channel=1, zero=first, forward=Forward(forward_col2im, into=(0,), host=(1, 2)),
)  # fmt: skip


def crop(op: Op, x: Axes, **_: Any) -> Axes:
    """Of early Windows exports: crops height and width."""
    op.freeze(*x[2:], why="crops it")
    return (*x[:2], op.fixed_out(2), op.fixed_out(3))


def _crop_shape(x: Arrays, a: Attributes) -> list[Shape | None]:
    left, top, right, bottom = a.get("border", (0, 0, 0, 0))
    height, width = a.get("scale", (x[0][2] - top - bottom, x[0][3] - left - right))
    return [(*x[0][:2], height, width)]


def forward_crop(node: TorchCall, x: Tensor) -> Tensor:
    """Images; the border to the left, top, right and bottom, or the size of what stays (`scale`)."""
    left, top, right, bottom = node.get("border", (0, 0, 0, 0))
    height, width = node.get("scale", (x.shape[2] - top - bottom, x.shape[3] - left - right))
    return x[:, :, top : top + height, left : left + width]


define(
    "Crop", couple=crop, zero=first, channelwise=True, shape=_crop_shape, forward=Forward(forward_crop),
    bound=lambda site: reduced(site.data(), range(2, len(site.shape()))).named(site.kind),
)  # fmt: skip
