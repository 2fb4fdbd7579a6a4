"""Operators that pick elements by indices."""

from typing import Any

import numpy as np

from onnxprune.operators.boxes import Value
from onnxprune.operators.facts import Facts, NothingKnown, aligned, facts, padded, reduced
from onnxprune.operators.forward import Forward, TorchCall
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.labels import Axes, Labels, fixed, is_fixed, line
from onnxprune.operators.lazy_torch import Tensor, torch
from onnxprune.operators.op import Op
from onnxprune.operators.registry import LARGEST_VALUE, Trait, by_reference, define
from onnxprune.operators.site import Site, spread
from onnxprune.operators.value_numbers import mix
from onnxprune.operators.zeros import first


def gather_nd(op: Op, x: Axes, indices: Axes, *, batch_dims: int = 0) -> Axes:
    """Indices (..., k) pick positions of the first k axes; the axes behind these pass.

    Where they are the grid of some positions of each axis, these are what is picked.
    """
    if batch_dims or not indices:
        return op.unknown("picks positions by computed indices")
    k = indices[-1].size
    op.freeze(*indices, why="picks positions of it")
    op.selects = op.weights[0] and len(x) - k > 1 and op.constant(1) is None  # a matrix or filter of each expert
    lines = op.grid_lines(0, 1)
    if lines is None:
        op.freeze(*x[:k], why="picks positions of it")
        return (*(fixed(n.size) for n in indices[:-1]), *x[k:])
    op.freeze(*(x[axis] for axis, line in enumerate(lines) if line.positions is None), why="picks positions of it")
    picked = (
        fixed(indices[axis].size) if line.positions is None else op.part(op.pickable(x[axis], axis)[line.positions])
        for axis, line in enumerate(lines)
    )
    return (*picked, *x[k:])


def bound_gather_nd(site: Site) -> Facts:
    """What is zero in all that may be picked is so in what is picked."""
    indices = site.shape(1)
    if site.attributes.get("batch_dims", 0):
        raise NothingKnown
    vanishing = reduced(site.fact(0)[0], range(indices[-1])).zero
    return zero_where(site, vanishing.reshape(*[1] * (len(indices) - 1), *vanishing.shape[indices[-1] :]))


def upwards(index: Tensor, length: int) -> Tensor:
    """Places counted from the start."""
    index = index.long()
    return torch.where(index < 0, index + length, index)


def index_of(x: Tensor, indices: Tensor, batch: int = 0) -> tuple[Tensor, ...]:
    """The last axis of indices as an index of the axes behind the batch."""
    index = indices.long()
    found = tuple(upwards(index[..., k], x.shape[batch + k]) for k in range(index.shape[-1]))
    rank = index.dim() - 1
    lead = tuple(torch.arange(x.shape[k], device=x.device).reshape(line(rank, k)) for k in range(batch))
    return (*lead, *found)


define(
    "GatherND", couple=gather_nd, zero=first, bound=bound_gather_nd, channelwise=True,
    repair=lambda edit, **_: edit.follow_grid(0, 1, lambda axis: edit.live_out(0, axis)),
    value=by_reference, traits=Trait.MOVES | Trait.PASSES,
    forward=Forward(lambda node, x, indices: x[index_of(x, indices, node.get("batch_dims", 0))], into=(0,)),
)  # fmt: skip


def gather_elements(op: Op, x: Axes, indices: Axes, *, axis: int = 0) -> Axes:
    """Positions of one axis that the indices say, element by element; along the other axes channels pass."""
    axis %= len(x)
    op.freeze(x[axis], indices[axis], why="picks positions of it")
    return tuple(fixed(indices[k].size) if k == axis else passing(op, k, x, indices) for k in range(len(x)))


def passing(op: Op, axis: int, x: Axes, indices: Axes) -> Labels:
    """Channels for each of which there are indices; such as know nothing of channels lose those that go."""
    labels, line = x[axis], indices[axis]
    whole = labels.size == line.size and not (op.open_in(0, axis) or op.open_in(1, axis))
    if not whole:
        op.freeze(labels, line, why="picks some positions of it")
        return fixed(line.size)
    return labels if is_fixed(line) else op.tie(labels, line)


def repair_elements(edit: Any, axis: int = 0, **_: Any) -> None:
    for k, size in enumerate(edit.sizes_in(1)):
        if k != axis % edit.rank_in(0) and size != edit.count_in(0, k):
            edit.gather_input(1, k, np.flatnonzero(edit.live_in(0, k)))


def bound_gather_elements(site: Site) -> Facts:
    """Elements along one axis that the indices name; positions of the others stay apart."""
    shape = site.shape()
    axis = site.attributes.get("axis", 0) % len(shape)
    x, where = aligned([(reduced(site.data(), [axis]), (*shape[:axis], 1, *shape[axis + 1 :])), site.fact(1)])
    return facts(x.low, x.high, mix(x.identity, *where.exact, site.kind), x.scale)


def forward_gather_elements(node: TorchCall, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0)
    return x.gather(axis, upwards(indices, x.shape[axis]))


define(
    "GatherElements", couple=gather_elements, zero=first, statistics=lambda op: [op.attributes.get("axis", 0)],
    repair=repair_elements, bound=bound_gather_elements, channelwise=True, traits=Trait.MOVES,
    forward=Forward(forward_gather_elements, into=(0,)),
)  # fmt: skip


def gather(op: Op, *, axis: int = 0) -> Axes | Value:
    picks, rank = op.constant(1), len(op.values[0].axes) if op.values[0] is not None else 0
    axis %= rank
    if picks is not None and (picked := op.pick(axis, picks)) is not None:
        return op.arrived(picked)
    x, indices = op.axes(0), op.axes(1)
    if x is None or indices is None:
        return op.unknown("has no input")
    if picks is None:
        if axis != 0 or not op.weights[0]:
            op.freeze(x[axis], why="picks positions that the data says")
        else:
            op.freeze(x[axis], why="is looked up by the data")
        if op.weights[0] and len(x) > 1:
            op.writes(x[-1])
            op.selects = axis == 0 and len(x) > 2
        return (*x[:axis], *indices, *x[axis + 1 :])
    return (*x[:axis], *op.picked(op.pickable(x[axis], axis)[picks]), *x[axis + 1 :])


def repair_gather(edit: Any, axis: int = 0, **_: Any) -> None:
    picks = edit.tensor(1)
    if picks is None or edit.live_in(0, axis).all():
        return
    axis %= edit.rank_in(0)
    kept = [edit.live_out(0, axis + k) for k in range(picks.ndim)]
    edit.set_tensor(1, edit.renumber(0, axis)[picks[np.ix_(*kept)] if kept else picks])


def bound_gather(site: Site) -> Facts:
    array = site.array(1)
    if (picks := site.constant(1) if array is None else array) is None:
        return _looked_up(site)
    if picks.size > 1 << 16:
        raise NothingKnown
    axis = site.attributes.get("axis", 0) % len(site.shape())
    return spread(site, axis).map(lambda a: a.take(picks.astype(np.int64), axis))


def _looked_up(site: Site) -> Facts:
    """Rows of a table that the data picks: a column of one number is a constant."""
    table, picks = site.weight(0), site.shape(1)
    if site.attributes.get("axis", 0) % table.ndim or table.dtype.kind != "f":
        raise NothingKnown
    low, high = (fn(axis=0).astype(np.float64) for fn in (table.min, table.max))
    place = mix(site.token, np.arange(low.size, dtype=np.uint64)).reshape(low.shape)
    return padded(facts(low, high, place), len(picks) + low.ndim)


def forward_gather(node: TorchCall, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.get("axis", 0) % x.dim()
    index = upwards(indices, x.shape[axis])
    return x.index_select(axis, index.reshape(-1)).reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


define(
    "Gather", couple=gather, takes_split=True, zero=first, repair=repair_gather, bound=bound_gather, channelwise=True,
    value=lambda x, a: np.take(x[0], x[1].astype(np.int64), axis=a.get("axis", 0)),
    small=lambda x: x[0].size * x[1].size <= LARGEST_VALUE * max(1, x[0].shape[0] if x[0].ndim else 1),
    traits=Trait.MOVES | Trait.RANGE | Trait.MAPS | Trait.LOOKS_UP | Trait.PASSES,
    forward=Forward(forward_gather, into=(0,)),
)  # fmt: skip
