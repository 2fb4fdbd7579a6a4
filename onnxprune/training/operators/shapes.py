"""Operators that give elements another place, repeat them, or tell how many there are."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from onnxprune.training.arrays import constant
from onnxprune.training.operators.table import Node, differentiable, numbers, without_gradient


def axes_of(node: Node, given: Tensor | None) -> list[int] | None:
    """Axes from the attribute or, in later opsets, from an input; None where there are none."""
    found = node.get("axes")
    return numbers(given) if found is None and given is not None else found


@without_gradient("Shape")
def shape(node: Node, x: Tensor) -> Tensor:
    sizes = list(x.shape)
    return torch.tensor(sizes[node.get("start", 0) : node.get("end", len(sizes))], dtype=torch.int64)


@without_gradient("Size")
def size(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.numel())


@differentiable("Reshape", into=(0,), host=(1,))
def reshape(node: Node, x: Tensor, target: Tensor | None = None) -> Tensor:
    """A 0 in the target is the size that is there, unless `allowzero`; before opset 5 the target is an attribute."""
    sizes = node.get("shape") if target is None else numbers(target)
    if not node.get("allowzero"):
        sizes = [x.shape[k] if n == 0 else n for k, n in enumerate(sizes)]
    return x.reshape(sizes)


@differentiable("Flatten")
def flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    rows = math.prod(x.shape[: axis if axis >= 0 else axis + x.dim()])
    return x.reshape(rows, math.prod(x.shape) // rows if rows else -1)


@differentiable("Squeeze", into=(0,), host=(1,))
def squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    found = axes_of(node, axes)
    return x.squeeze() if found is None else x.squeeze(tuple(found))


@differentiable("Unsqueeze", into=(0,), host=(1,))
def unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    found = axes_of(node, axes) or []
    rank = x.dim() + len(found)
    for axis in sorted(a % rank for a in found):
        x = x.unsqueeze(axis)
    return x


@differentiable("Transpose")
def transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.get("perm", list(range(x.dim()))[::-1]))


@differentiable("Concat")
def concat(node: Node, *x: Tensor) -> Tensor:
    return torch.cat(x, node.get("axis", 1))


@differentiable("Split", into=(0,), host=(1,))
def split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """Into parts of given sizes or as equal as can be: the last one is smaller (opset 18)."""
    axis = node.get("axis", 0)
    parts = node.get("split") if sizes is None else numbers(sizes)
    if parts is None:
        length, count = x.shape[axis], node.get("num_outputs", node.outputs)
        each = -(-length // count)
        parts = [min(each, max(0, length - k * each)) for k in range(count)]
    return x.split(parts, axis)


@differentiable("Expand", into=(0,), host=(1,))
def expand(node: Node, x: Tensor, target: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(numbers(target))))


@differentiable("Tile", into=(0,), host=(1, 2))
def tile(node: Node, x: Tensor, repeats: Tensor, axis: Tensor | None = None) -> Tensor:
    """Before opset 6: how often along one axis."""
    if axis is None:
        return x.repeat(numbers(repeats))
    times = [1] * x.dim()
    times[int(axis)] = int(repeats)
    return x.repeat(times)


@differentiable("DepthToSpace")
def depth_to_space(node: Node, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = node.get("blocksize")
    if node.get("mode", "DCR") == "DCR":
        parts, order = x.reshape(n, b, b, c // b**2, h, w), (0, 3, 4, 1, 5, 2)
    else:
        parts, order = x.reshape(n, c // b**2, b, b, h, w), (0, 1, 4, 2, 5, 3)
    return parts.permute(order).reshape(n, c // b**2, h * b, w * b)


@differentiable("SpaceToDepth")
def space_to_depth(node: Node, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = node.get("blocksize")
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


@differentiable("Trilu", "com.microsoft:Trilu", into=(0,), host=(1,))
def trilu(node: Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = 0 if k is None else int(k)
    return torch.triu(x, diagonal) if node.get("upper", 1) else torch.tril(x, diagonal)


@differentiable("Crop")
def crop(node: Node, x: Tensor) -> Tensor:
    """Images; the border to the left, top, right and bottom, or the size of what stays (`scale`)."""
    left, top, right, bottom = node.get("border", (0, 0, 0, 0))
    height, width = node.get("scale", (x.shape[2] - top - bottom, x.shape[3] - left - right))
    return x[:, :, top : top + height, left : left + width]


@without_gradient("ConstantOfShape", host=(0,))
def constant_of_shape(node: Node, sizes: Tensor) -> Tensor:
    value = node.get("value")
    fill = torch.zeros(1) if value is None else constant(value)
    return fill.reshape(1).expand(math.prod(numbers(sizes))).reshape(numbers(sizes)).clone()


@without_gradient("Range", host=(0, 1, 2))
def span(node: Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    first, end, step = (x.item() for x in (start, limit, delta))
    count = max(0, math.ceil((end - first) / step))
    return torch.arange(count, dtype=start.dtype) * step + first


@without_gradient("EyeLike")
def eye_like(node: Node, x: Tensor) -> Tensor:
    from onnxprune.training.arrays import carrier

    dtype = carrier(node.get("dtype")) if node.get("dtype") else x.dtype
    rows, columns = x.shape
    return torch.ones(rows, columns, dtype=dtype, device=x.device).tril(node.get("k", 0)).triu(node.get("k", 0))


@without_gradient("OneHot", host=(1,))
def one_hot(node: Node, places: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """Values: what stands elsewhere, and what stands at the places."""
    length, axis = int(depth), node.get("axis", -1)
    axis %= places.dim() + 1
    index = places.long().unsqueeze(axis)
    index = torch.where(index < 0, index + length, index)
    view: Sequence[int] = [-1 if k == axis else 1 for k in range(places.dim() + 1)]
    hot = index == torch.arange(length, device=places.device).reshape(view)
    return torch.where(hot, values[1], values[0])
