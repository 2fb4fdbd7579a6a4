"""Convolutions: (batch, channels, *space) with filters (outputs, inputs per group, *kernel)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.training.operators.activations import fused
from onnxprune.training.operators.table import Node, differentiable

CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def padding(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """Padding before and after each axis, from `pads` or `auto_pad`.

    Args:
        node: with `strides` and `dilations` where they are not 1.
        sizes: of the axes of space.
        kernel: as large.
    """
    rank = len(sizes)
    auto = node.get("auto_pad", "NOTSET") or "NOTSET"
    if auto in ("NOTSET", "VALID"):
        pads = node.get("pads", [0] * 2 * rank) if auto == "NOTSET" else [0] * 2 * rank
        return list(pads[:rank]), list(pads[rank:])
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    needed = [
        max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
        for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    less, more = [n // 2 for n in needed], [n - n // 2 for n in needed]
    return (less, more) if auto == "SAME_UPPER" else (more, less)


def padded(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    """The axes of space (the last ones) padded, or cut where a number is negative."""
    pads = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    return functional.pad(x, pads, value=value) if any(pads) else x


@differentiable("Conv", layer=True)
def conv(node: Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    rank = x.dim() - 2
    before, after = padding(node, x.shape[2:], w.shape[2:])
    if before != after or min(before, default=0) < 0:
        x, before = padded(x, before, after), [0] * rank
    ones = [1] * rank
    strides, dilations = node.get("strides", ones), node.get("dilations", ones)
    return CONVOLVE[rank](x, w, b, strides, before, dilations, node.get("group", 1))


@differentiable("com.microsoft:FusedConv", layer=True)
def fused_conv(node: Node, x: Tensor, w: Tensor, b: Tensor | None = None, z: Tensor | None = None) -> Tensor:
    y = conv(node, x, w, b)
    return fused(node, y if z is None else y + z)


@differentiable("ConvTranspose", layer=True)
def conv_transpose(node: Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """Filters (inputs, outputs per group, *kernel).  What lies beyond the padding is cut off the full result."""
    rank = x.dim() - 2
    ones, zeros = [1] * rank, [0] * rank
    strides, dilations = node.get("strides", ones), node.get("dilations", ones)
    more = node.get("output_padding", zeros)
    y = TRANSPOSED[rank](x, w, b, strides, 0, more, node.get("group", 1), dilations)
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


@differentiable("DeformConv", layer=True)
def deform_conv(
    node: Node, x: Tensor, w: Tensor, offset: Tensor, b: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Images; offsets (batch, groups · kernel · 2, height, width) in rows and columns, masks alike without the 2.

    Dai et al. 2017, Deformable convolutional networks, arXiv 1703.06211; with masks Zhu et al. 2018, arXiv 1811.11168.
    """
    n, _, height, width = x.shape
    kernel = w.shape[2:]
    taps, groups = kernel[0] * kernel[1], node.get("offset_group", 1)
    (top, left), _ = padding(node, (height, width), kernel)
    (down, right), (tall, wide) = node.get("strides", [1, 1]), node.get("dilations", [1, 1])
    rows, columns = offset.shape[2:]
    like = {"device": x.device, "dtype": x.dtype}
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


@differentiable("Col2Im", into=(0,), host=(1, 2))
def col2im(node: Node, x: Tensor, image: Tensor, block: Tensor) -> Tensor:
    """Columns of blocks of an image (two axes) added up."""
    size, kernel = image.tolist(), block.tolist()
    before, after = padding(node, size, kernel)
    ones = [1] * len(size)
    whole = [n + p + q for n, p, q in zip(size, before, after, strict=True)]
    y = functional.fold(x, whole, kernel, node.get("dilations", ones), 0, node.get("strides", ones))
    return padded(y, [-n for n in before], [-n for n in after])
