"""Operators that put elements where indices say, and what gives a shape that the data says."""

from typing import Any

import numpy as np

from onnxprune.operators.facts import Facts, reduced
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.gathering import index_of, passing, repair_elements, upwards
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.labels import Axes, fixed, line
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.native import native
from onnxprune.operators.op import Op
from onnxprune.operators.registry import LARGEST_VALUE, Trait, by_reference, define
from onnxprune.operators.roles import ZeroWhereDead
from onnxprune.operators.site import Site


def _zero_among_zeros(op: Op) -> ZeroWhereDead:
    given = op.zero_where_dead(0)
    return given & op.zero_where_dead(2) if given.holds else given


def scatter_nd(op: Op, x: Axes, indices: Axes, updates: Axes, **_: Any) -> Axes:
    """Indices (..., k) name positions on the first k axes; the axes behind these pass.

    Where they are the grid of some positions of each axis, the updates stand in for these positions.
    """
    if not indices:
        return op.unknown("scatters by indices of unknown shape")
    k = indices[-1].size
    op.freeze(*indices, why="scatters by it")
    op.broadcast(x[k:], updates[len(indices) - 1 :])
    lines = op.grid_lines(0, 1)
    if lines is None:
        op.freeze(*x[:k], *updates[: len(indices) - 1], why="scatters into it by computed indices")
    for axis, (labels, replaced, named) in enumerate(zip(x, updates, lines or (), strict=False)):
        if named.positions is None:
            op.freeze(labels, replaced, why="scatters into it by computed indices")
        else:
            op.tie(op.pickable(labels, axis)[named.positions], replaced)
            op.part(replaced)
    return x


def bound_scatter_nd(site: Site) -> Facts:
    """Zeros among zeros stay zeros, apart along the axes that pass and those of which a grid names positions."""
    given, shape, indices = [site.fact(0), site.fact(2)], site.shape(), site.shape(1)
    k, passing = indices[-1], range(indices[-1], len(shape))
    lines = site.arithmetic.grid(site.node.input[0], site.node.input[1]) or []
    named = {axis: line.positions for axis, line in enumerate(lines) if line.positions is not None}
    named = {axis: at for axis, at in named.items() if not site.open_in(0, axis)}
    places = [*named, *(axis - k + len(indices) - 1 for axis in passing)]
    x, updates = (
        reduced(found, [d for d in range(len(own)) if d not in kept])
        for (found, own), kept in zip(given, ([*named, *passing], places), strict=True)
    )
    sizes = [shape[axis] if axis in named else n for axis, n in enumerate(x.shape)]
    still, new = np.broadcast_to(x.zero, sizes).copy(), updates.zero
    new = new.reshape(*([new.shape[d] if d in named else 1 for d in range(k)]), *new.shape[len(indices) - 1 :])
    grid = np.ix_(*(named.get(axis, np.arange(n)) for axis, n in enumerate(sizes)))
    still[grid] &= new
    return zero_where(site, still)


SCATTERED = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def forward_scatter_nd(node: TorchCall, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Slices of x at the places that the last axis of indices names are replaced, or reduced with the updates."""
    reduction = node.get("reduction", "none")
    places = index_of(x, indices)
    if reduction in ("none", "add"):
        return x.index_put(places, updates.to(x.dtype), accumulate=reduction == "add")
    depth = indices.shape[-1]
    flat = torch.zeros_like(places[0])
    for axis, place in enumerate(places):
        flat = flat * x.shape[axis] + place
    rows = x.reshape(-1, *x.shape[depth:])
    index = flat.reshape(-1, *[1] * (rows.dim() - 1)).expand(-1, *rows.shape[1:])
    found = updates.to(x.dtype).reshape(-1, *rows.shape[1:])
    return rows.scatter_reduce(0, index, found, SCATTERED[reduction]).reshape(x.shape)


define(
    "ScatterND", couple=scatter_nd, zero=_zero_among_zeros, bound=bound_scatter_nd,
    repair=lambda edit, **_: edit.follow_grid(0, 1, lambda axis: edit.live_in(2, axis)), channelwise=True,
    value=by_reference, forward=Forward(forward_scatter_nd, into=(0, 2)),
)  # fmt: skip


def scatter_elements(op: Op, x: Axes, indices: Axes, updates: Axes, *, axis: int = 0, **_: Any) -> Axes:
    """Elements go to the positions of one axis that the indices say; along the other axes channels pass."""
    axis %= len(x)
    op.freeze(x[axis], indices[axis], updates[axis], why="scatters into it")
    for k in range(len(x)):
        if k != axis and passing(op, k, x, indices).size == x[k].size:
            op.tie(x[k], updates[k])
        elif k != axis:
            op.freeze(updates[k], why="scatters into some positions of it")
    return tuple(fixed(labels.size) if k == axis else labels for k, labels in enumerate(x))


def bound_scatter_elements(site: Site) -> Facts:
    """Zeros among zeros stay zeros."""
    given, shape = [site.fact(0), site.fact(2)], site.shape()
    axis = site.attributes.get("axis", 0) % len(shape)
    x, updates = (reduced(f, [k for k, n in enumerate(own) if k == axis or n != shape[k]]) for f, own in given)
    return zero_where(site, x.zero & updates.zero)


def forward_scatter_elements(node: TorchCall, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis, reduction = node.get("axis", 0), node.get("reduction", "none")
    index = upwards(indices, x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, index, updates.to(x.dtype))
    return x.scatter_reduce(axis, index, updates.to(x.dtype), SCATTERED[reduction])


_SCATTER: dict[str, Any] = {
    "couple": scatter_elements, "zero": _zero_among_zeros, "repair": repair_elements, "bound": bound_scatter_elements,
    "channelwise": True, "forward": Forward(forward_scatter_elements, into=(0, 2)),
}  # fmt: skip
define("ScatterElements", **_SCATTER, value=by_reference)
define("Scatter", **_SCATTER)


def by_data(op: Op, *_: Axes | None, **__: Any) -> Axes:
    return op.unknown("gives a shape that depends on the data")


def forward_compress(node: TorchCall, x: Tensor, condition: Tensor) -> Tensor:
    axis = node.get("axis")
    index = condition.nonzero().reshape(-1)
    return x.reshape(-1)[index] if axis is None else x.index_select(axis, index)


define("Compress", couple=by_data, forward=Forward(forward_compress, into=(0,)))


def forward_one_hot(node: TorchCall, places: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """Values: what stands elsewhere, and what stands at the places."""
    length, axis = int(depth), node.get("axis", -1)
    axis %= places.dim() + 1
    index = places.long().unsqueeze(axis)
    index = torch.where(index < 0, index + length, index)
    hot = index == torch.arange(length, device=places.device).reshape(line(index.dim(), axis))
    return torch.where(hot, values[1], values[0])


define(
    "OneHot", couple=by_data, value=by_reference, small=lambda x: x[0].size * int(np.ravel(x[1])[0]) <= LARGEST_VALUE,
    traits=Trait.NUMBERS | Trait.PLACES, forward=Forward(forward_one_hot, into=(), host=(1,)),
)  # fmt: skip
define("NonMaxSuppression", couple=by_data, traits=Trait.DECIDES | Trait.NUMBERS, forward=Forward(native, into=()))
define(
    "NonZero", couple=by_data, value=by_reference, traits=Trait.DECIDES,
    forward=Forward(lambda node, x: x.nonzero().T, into=()),
)  # fmt: skip
define("Unique", couple=by_data, traits=Trait.DECIDES, forward=Forward(native, into=()))
