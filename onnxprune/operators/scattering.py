"""Operators that pick or replace elements by indices, and what gives a shape that the data says."""

from typing import Any

import numpy as np

from onnxprune.operators.facts import Facts, aligned, facts, reduced
from onnxprune.operators.intervals import zero_where
from onnxprune.operators.labels import Axes, Labels, fixed, is_fixed
from onnxprune.operators.op import Op
from onnxprune.operators.registry import Trait, by_reference, define
from onnxprune.operators.roles import Silence
from onnxprune.operators.site import Site
from onnxprune.operators.value_numbers import bits, mix
from onnxprune.operators.zeros import first


def _zero_among_zeros(op: Op) -> Silence:
    given = op.silent(0)
    return given & op.silent(2) if given.holds else given


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
    for axis, (labels, replaced, line) in enumerate(zip(x, updates, lines or (), strict=False)):
        if line.positions is None:
            op.freeze(labels, replaced, why="scatters into it by computed indices")
        else:
            op.tie(op.pickable(labels, axis)[line.positions], replaced)
            op.part(replaced)
    return x


def repair_scatter_nd(edit: Any, **_: Any) -> None:
    edit.follow_grid(0, 1, lambda axis: edit.live_in(2, axis))


def bound_scatter_nd(site: Site) -> Facts | None:
    """Zeros among zeros stay zeros, apart along the axes that pass and those of which a grid names positions."""
    given, shape, indices = [site.fact(0), site.fact(2)], site.shapes[0], site.shapes[1]
    if shape is None or not indices or given[0] is None or given[1] is None:
        return None
    k, passing = indices[-1], range(indices[-1], len(shape))
    lines = site.arithmetic.grid(site.node.input[0], site.node.input[1]) or []
    named = {axis: line.positions for axis, line in enumerate(lines) if line.positions is not None}
    named = {axis: at for axis, at in named.items() if not site.open_in(axis)}
    places = [*named, *(axis - k + len(indices) - 1 for axis in passing)]
    x, updates = (
        reduced(found[0], [d for d in range(len(found[1])) if d not in kept])
        for found, kept in zip(given, ([*named, *passing], places), strict=True)
        if found is not None
    )
    sizes = [shape[axis] if axis in named else n for axis, n in enumerate(x.shape)]
    still = np.broadcast_to((x.low == 0) & (x.high == 0), sizes).copy()
    new = (updates.low == 0) & (updates.high == 0)
    new = new.reshape(*([new.shape[d] if d in named else 1 for d in range(k)]), *new.shape[len(indices) - 1 :])
    grid = np.ix_(*(named.get(axis, np.arange(n)) for axis, n in enumerate(sizes)))
    still[grid] &= new
    return zero_where(site, still)


define(
    "ScatterND", couple=scatter_nd, zero=_zero_among_zeros, repair=repair_scatter_nd, bound=bound_scatter_nd,
    apart=True, value=by_reference,
)  # fmt: skip


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


def repair_gather_nd(edit: Any, **_: Any) -> None:
    edit.follow_grid(0, 1, lambda axis: edit.live_out(0, axis))


def bound_gather_nd(site: Site) -> Facts | None:
    """What is zero in all that may be picked is so in what is picked."""
    given, indices = site.fact(0), site.shapes[1]
    if given is None or not indices or site.attributes.get("batch_dims", 0):
        return None
    whole = reduced(given[0], range(indices[-1]))
    silent = (whole.low == 0) & (whole.high == 0)
    return zero_where(site, silent.reshape(*[1] * (len(indices) - 1), *silent.shape[indices[-1] :]))


define(
    "GatherND", couple=gather_nd, zero=first, repair=repair_gather_nd, bound=bound_gather_nd, apart=True,
    value=by_reference, traits=Trait.MOVES,
)  # fmt: skip


def gather_elements(op: Op, x: Axes, indices: Axes, *, axis: int = 0) -> Axes:
    """Positions of one axis that the indices say, element by element; along the other axes channels pass."""
    axis %= len(x)
    op.freeze(x[axis], indices[axis], why="picks positions of it")
    return tuple(fixed(indices[k].size) if k == axis else _passing(op, k, x, indices) for k in range(len(x)))


def scatter_elements(op: Op, x: Axes, indices: Axes, updates: Axes, *, axis: int = 0, **_: Any) -> Axes:
    """Elements go to the positions of one axis that the indices say; along the other axes channels pass."""
    axis %= len(x)
    op.freeze(x[axis], indices[axis], updates[axis], why="scatters into it")
    for k in range(len(x)):
        if k != axis and _passing(op, k, x, indices).size == x[k].size:
            op.tie(x[k], updates[k])
        elif k != axis:
            op.freeze(updates[k], why="scatters into some positions of it")
    return tuple(fixed(labels.size) if k == axis else labels for k, labels in enumerate(x))


def _passing(op: Op, axis: int, x: Axes, indices: Axes) -> Labels:
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


def bound_gather_elements(site: Site) -> Facts | None:
    """Elements along one axis that the indices name; positions of the others stay apart."""
    found, shape, picks = site.inputs[0], site.shapes[0], site.fact(1)
    if found is None or shape is None or picks is None:
        return None
    axis = site.attributes.get("axis", 0) % len(shape)
    both = aligned([(reduced(found, [axis]), (*shape[:axis], 1, *shape[axis + 1 :])), picks])
    if both is None:
        return None
    x, where = both
    names = mix(x.identity, where.identity, bits(where.scale), site.kind)
    return facts(x.low, x.high, names, x.scale)


def bound_scatter_elements(site: Site) -> Facts | None:
    """Zeros among zeros stay zeros."""
    given, shape = [site.fact(0), site.fact(2)], site.shapes[0]
    if shape is None or given[0] is None or given[1] is None:
        return None
    axis = site.attributes.get("axis", 0) % len(shape)
    x, updates = (reduced(f[0], [k for k, n in enumerate(f[1]) if k == axis or n != shape[k]]) for f in given if f)
    return zero_where(site, (x.low == 0) & (x.high == 0) & (updates.low == 0) & (updates.high == 0))


define(
    "GatherElements", couple=gather_elements, zero=first, statistics=lambda op: [op.attributes.get("axis", 0)],
    repair=repair_elements, bound=bound_gather_elements, apart=True, traits=Trait.MOVES,
)  # fmt: skip
define(
    "ScatterElements", couple=scatter_elements, zero=_zero_among_zeros, repair=repair_elements,
    bound=bound_scatter_elements, apart=True, value=by_reference,
)  # fmt: skip
define(
    "Scatter", couple=scatter_elements, zero=_zero_among_zeros, repair=repair_elements, bound=bound_scatter_elements,
    apart=True,
)  # fmt: skip


def by_data(op: Op, *_: Axes | None, **__: Any) -> Axes:
    return op.unknown("gives a shape that depends on the data")


define("Compress", couple=by_data)
define("OneHot", couple=by_data, traits=Trait.NUMBERS)
define("NonMaxSuppression", couple=by_data, traits=Trait.DECIDES | Trait.NUMBERS)
define("NonZero", couple=by_data, value=by_reference, traits=Trait.DECIDES)
define("Unique", couple=by_data, traits=Trait.DECIDES)
