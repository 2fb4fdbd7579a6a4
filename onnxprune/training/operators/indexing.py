"""Operators that pick elements by their places, or put them there."""

import torch
from torch import Tensor

from onnxprune.training.operators.table import Node, differentiable, numbers, without_gradient


def upwards(index: Tensor, length: int) -> Tensor:
    """Places counted from the start."""
    index = index.long()
    return torch.where(index < 0, index + length, index)


def picked(x: Tensor, axis: int, places: list[int]) -> Tensor:
    """Positions of one axis."""
    return x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))


@differentiable("Slice", "DynamicSlice", into=(0,), host=(1, 2, 3, 4))
def slices(
    node: Node,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Bounds are attributes before opset 10."""
    given = [node.get(n) if t is None else numbers(t) for n, t in (("starts", starts), ("ends", ends), ("axes", axes))]
    first, last = given[0], given[1]
    along = range(len(first)) if given[2] is None else given[2]
    by = [1] * len(first) if steps is None else numbers(steps)
    for start, end, axis, step in zip(first, last, along, by, strict=True):
        length = x.shape[axis]
        end = None if step < 0 and end < -length else end
        places = range(*slice(start, end, step).indices(length))
        if step > 0:
            x = x[(slice(None),) * (axis % x.dim()) + (slice(places.start, max(places.start, places.stop), step),)]
        else:
            x = picked(x, axis, list(places))
    return x


@differentiable("Gather", into=(0,))
def gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0) % x.dim()
    index = upwards(indices, x.shape[axis])
    return x.index_select(axis, index.reshape(-1)).reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


@differentiable("GatherElements", into=(0,))
def gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0)
    return x.gather(axis, upwards(indices, x.shape[axis]))


def _places(x: Tensor, indices: Tensor, batch: int = 0) -> tuple[Tensor, ...]:
    """The last axis of indices as an index of the axes behind the batch."""
    index = indices.long()
    found = tuple(upwards(index[..., k], x.shape[batch + k]) for k in range(index.shape[-1]))
    rank = index.dim() - 1
    lead = tuple(
        torch.arange(x.shape[k], device=x.device).reshape([-1 if j == k else 1 for j in range(rank)])
        for k in range(batch)
    )
    return (*lead, *found)


@differentiable("GatherND", into=(0,))
def gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    return x[_places(x, indices, node.get("batch_dims", 0))]


REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@differentiable("ScatterElements", "Scatter", into=(0, 2))
def scatter_elements(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis, reduction = node.get("axis", 0), node.get("reduction", "none")
    index = upwards(indices, x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, index, updates.to(x.dtype))
    return x.scatter_reduce(axis, index, updates.to(x.dtype), REDUCTIONS[reduction])


@differentiable("ScatterND", into=(0, 2))
def scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Slices of x at the places that the last axis of indices names are replaced, or reduced with the updates."""
    reduction = node.get("reduction", "none")
    places = _places(x, indices)
    if reduction in ("none", "add"):
        return x.index_put(places, updates.to(x.dtype), accumulate=reduction == "add")
    depth = indices.shape[-1]
    flat = torch.zeros_like(places[0])
    for axis, place in enumerate(places):
        flat = flat * x.shape[axis] + place
    rows = x.reshape(-1, *x.shape[depth:])
    index = flat.reshape(-1, *[1] * (rows.dim() - 1)).expand(-1, *rows.shape[1:])
    found = updates.to(x.dtype).reshape(-1, *rows.shape[1:])
    return rows.scatter_reduce(0, index, found, REDUCTIONS[reduction]).reshape(x.shape)


@differentiable("Compress", into=(0,))
def compress(node: Node, x: Tensor, condition: Tensor) -> Tensor:
    axis = node.get("axis")
    index = condition.nonzero().reshape(-1)
    return x.reshape(-1)[index] if axis is None else x.index_select(axis, index)


@without_gradient("NonZero")
def non_zero(node: Node, x: Tensor) -> Tensor:
    return x.nonzero().T


@differentiable("TopK", into=(0,), host=(1,))
def top_k(node: Node, x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The largest or smallest elements and their places; of equal ones the first."""
    count = node.get("k") if k is None else int(k)
    axis, largest = node.get("axis", -1), bool(node.get("largest", 1))
    places = x.detach().sort(dim=axis, descending=largest, stable=True).indices.narrow(axis, 0, count)
    return x.gather(axis, places), places


@differentiable("ReverseSequence", into=(0,))
def reverse_sequence(node: Node, x: Tensor, lengths: Tensor) -> Tensor:
    """The first steps of each sample backwards, as many as its length."""
    time, batch = node.get("time_axis", 0), node.get("batch_axis", 1)
    steps = torch.arange(x.shape[time], device=x.device)
    ends = lengths.long().unsqueeze(-1)
    index = torch.where(steps < ends, ends - 1 - steps, steps)  # (batch, time)
    index = index if batch < time else index.T
    view = [x.shape[k] if k in (time, batch) else 1 for k in range(x.dim())]
    return x.gather(time, index.reshape(view).expand(x.shape))


@differentiable("CumSum", into=(0,), host=(1,))
def cum_sum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    along = int(axis)
    y = x.flip(along) if node.get("reverse") else x
    y = y.cumsum(along, dtype=x.dtype) - (y if node.get("exclusive") else 0)
    return y.flip(along) if node.get("reverse") else y
