"""Reshape and transpose of labelled values: every axis is split, merged and moved with its labels.

A value can be cut only to a *box* (some positions of each axis).  When an axis of channels is split into several
factors and its labels vary along more than one of them, they are kept as one
labelled array for as long as they only move, so that a channel shuffle is an exact permutation; the first operator
that needs a box picks the factor that carries the labels and ties the others over (`choose_factor`).

An example: a shuffle of six channels a b c d e f in two groups.

    Reshape to (2, 3)         a b c      both factors vary: split, labels (2, 3), order 0 1 2 / 3 4 5
                              d e f
    Transpose                 a d        labels and order are turned alike
                              b e
                              c f
    Reshape to (6,)           a d b e c f: one axis again, and no label was tied.  Once b and f are gone, a d e c is no
                              reshape of a box any more: it becomes Gather(a c d e, [0, 2, 3, 1]), a `FoldedShuffle`.

Were there an operator that needs the value (2, 3) as a box, `choose_factor` would choose: if the second factor carries,
a = d, b = e and c = f go together.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from onnxprune.operators import large_blocks
from onnxprune.operators.coupling import Coupling
from onnxprune.operators.labels import (
    LARGEST_AXIS,
    Axes,
    Factor,
    Kind,
    LabelError,
    Labels,
    Product,
    fixed,
    is_fixed,
    line,
)
from onnxprune.operators.split_axes import (
    LARGEST_SPLIT,
    FoldedShuffle,
    Origin,
    SplitAxis,
    Value,
    blocks,
    factored,
    keeps,
    regrouped,
)


def choose_factor(coupling: Coupling, value: Value, avoid: Collection[int] = (), heads: bool = True) -> Axes:
    """Make a box of a value: one split factor carries the labels, and they are tied over the others.

    `avoid` names axes that should not carry.  Of the rest the last but one carries where `heads` is set (whole
    attention heads), else the last one (a share of every head); a factor that carries elsewhere does so here too, and
    one that was chosen does so in any case.  Gives the labels of each axis, (size,) each.
    """
    split = value.split_axis
    if split is None:
        return value.axes
    if (product := coupling.products.get(split.root)) is not None:
        return factored(coupling, value, product)
    wide = [d for d in split.dims if value.axes[d].size > 1] or list(split.dims)
    free = [d for d in wide if d not in avoid] or wide
    if split.root in coupling.chosen.factors:
        free = wide
    before = [d for d in free if _related(split.factors[split.axis(d)], coupling.factors.get(split.root))]
    carrier = before[0] if before else free[-2] if heads and len(free) > 1 else free[-1]
    k = split.axis(carrier)
    coupling.factors.setdefault(split.root, split.factors[k])
    coupling.splits.setdefault(split.root, (split.factors, split.labels))
    edge = _edge(split.labels, k)
    coupling.tie(np.broadcast_to(edge, split.labels.shape), split.labels)
    return tuple(
        edge.ravel() if d == carrier else fixed(value.axes[d].size) if d in split.dims else x
        for d, x in enumerate(value.axes)
    )


def factor(coupling: Coupling, value: Value) -> Axes:
    """Make a box of filters that were computed in one axis, of which every factor has channels of its own.

    Where its labels have met others before, one factor carries as in `choose_factor`.
    """
    split = value.split_axis
    if split is None or split.root in coupling.products or np.unique(split.labels).size < split.labels.size:
        return choose_factor(coupling, value)
    parts = tuple(map(coupling.label, split.labels.shape))
    coupling.products[split.root] = product = Product(split.factors, split.labels, parts)
    return factored(coupling, value, product)


def _related(factor: Factor, carrier: Factor | None) -> bool:
    """Whether a factor carries, is part of the one that carries, or has it for a part."""
    return carrier is not None and all(a == b for a, b in zip(factor, carrier, strict=False))


def transpose(value: Value, perm: Sequence[int]) -> Value:
    """Move the axes; a split axis moves along, and forgets its origin when other axes change their order."""
    axes = tuple(value.axes[k] for k in perm)
    if (split := value.split_axis) is None:
        return Value(axes)
    where = {old: new for new, old in enumerate(perm)}
    order = sorted(range(len(split.dims)), key=lambda k: where[split.dims[k]])
    others = [k for k in perm if k not in split.dims and value.axes[k].size > 1]
    moved = replace(
        split,
        dims=tuple(where[split.dims[k]] for k in order),
        labels=split.labels.transpose(order),
        order=split.order.transpose(order),
        factors=tuple(split.factors[k] for k in order),
        origin=split.origin if others == sorted(others) else None,
    )
    return Value(axes, moved)


def pick(value: Value, axis: int, positions: np.ndarray) -> Value:
    """Positions, (n,), of an axis that is a factor of the split one; a single position, (), drops the axis."""
    split = value.split_axis
    assert split is not None
    k, dropped = split.axis(axis), positions.ndim == 0
    axes = (*value.axes[:axis], *(() if dropped else (fixed(positions.size),)), *value.axes[axis + 1 :])
    stay = [j for j in range(len(split.dims)) if j != k or positions.size > 1]
    if not stay:
        return Value(axes)
    sizes = [positions.size if j == k else split.labels.shape[j] for j in stay]
    picked = replace(
        split,
        dims=tuple(split.dims[j] - (dropped and split.dims[j] > axis) for j in stay),
        labels=split.labels.take(positions, k).reshape(sizes),
        order=split.order.take(positions, k).reshape(sizes),
        factors=tuple(split.factors[j] for j in stay),
    )
    return Value(axes, picked)


def arrived(value: Value) -> tuple[Value, FoldedShuffle | None]:
    """A value, as a plain one where the factor that is left of its split axis stands where the axis did that was split.

    The folded shuffle gives it in one step.
    """
    split = value.split_axis
    if split is None or len(split.dims) != 1 or not _stands(split, value.shape) or split.origin is None:
        return value, None
    axes = tuple(split.labels if d == split.dims[0] else x for d, x in enumerate(value.axes))
    return Value(axes), FoldedShuffle(split.origin, split.order)


def spread(coupling: Coupling, labels: np.ndarray, heads: bool) -> Axes:
    """The axes of an array of labels, of any shape, as a box: the labels of each axis, (size,) each."""
    parts, split = _split(coupling, labels.ravel(), labels.shape, 0, None)
    return choose_factor(coupling, Value(tuple(parts), split), (), heads)


def _stands(split: SplitAxis, shape: tuple[int, ...]) -> bool:
    """Whether all that is left of a split axis fits into the place of the axis that it was split from."""
    if (origin := split.origin) is None or len(origin.shape) != len(shape):
        return False
    if split.order.max(initial=0) >= origin.shape[origin.axis]:
        return False  # samples are still told apart
    return shape == (*origin.shape[: origin.axis], split.labels.size, *origin.shape[origin.axis + 1 :])


def reshape(
    coupling: Coupling, name: str, value: Value, shape: Sequence[int], heads: bool
) -> tuple[Value, Value, FoldedShuffle | None]:
    """Row-major reshape of value `name` to `shape`.  Raises LabelError where these hold other numbers of elements.

    Gives the value itself (made a box where it had to be), the reshaped one, and the folded shuffle that stands
    for the chain of moves where a split axis has come back to the axis that it was split from.
    """
    shape = tuple(shape)
    if math.prod(shape) != math.prod(value.shape) or 0 in shape:
        raise LabelError(f"it reshapes {value.shape} to {shape}")
    if value.split_axis is not None:
        if (anew := regrouped(value, shape)) is not None:
            return value, *reshape(coupling, name, anew, shape, heads)[1:]
        pairs = list(blocks(value.shape, shape))
        avoid = {d for old, new in pairs for d in _torn(value, old, shape[new])}
        if avoid or not all(keeps(value, old, shape[new]) or _returns(value, old, new, shape) for old, new in pairs):
            value = Value(choose_factor(coupling, value, avoid, heads))
    axes, folded_shuffle, splits = list[Labels](), None, [_moved(value, shape)]
    for old, new in blocks(value.shape, shape):
        if keeps(value, old, shape[new]):
            kept = iter(x for x in value.axes[old] if x.size != 1)
            axes += [fixed(1) if s == 1 else next(kept) for s in shape[new]]
        elif (gone := value.split_axis) is not None and _is_split(value, old):
            assert gone.origin is not None
            axes += [gone.labels.ravel() if s > 1 else fixed(1) for s in shape[new]]
            folded_shuffle = FoldedShuffle(gone.origin, gone.order.ravel())
        elif (large := large_blocks.reshaped(coupling, value.axes[old], shape[new])) is not None:
            axes += large
        else:
            labels, origin = _merge(coupling, name, value, old)
            parts, split = _split(coupling, labels, shape[new], 0 if any(splits) else new.start, origin)
            if split is not None and any(splits):
                parts, split = choose_factor(coupling, Value(tuple(parts), split), (), heads), None
            axes += parts
            splits.append(split)
    out = Value(tuple(axes), next(filter(None, splits), None))
    if out.split_axis is not None:
        out, folded_shuffle = arrived(out)
    return value, out, folded_shuffle


def _is_split(value: Value, old: slice) -> bool:
    return value.split_axis is not None and any(old.start <= d < old.stop for d in value.split_axis.dims)


def _torn(value: Value, old: slice, new: tuple[int, ...]) -> set[int]:
    """Split axes of a block that a reshape merges with other axes or splits again."""
    assert value.split_axis is not None
    inside = {d for d in value.split_axis.dims if old.start <= d < old.stop}
    mixed = any(d not in inside and value.shape[d] > 1 for d in range(old.start, old.stop))
    return inside if not keeps(value, old, new) and (mixed or inside != set(value.split_axis.dims)) else set()


def _returns(value: Value, old: slice, new: slice, shape: tuple[int, ...]) -> bool:
    """Whether a block has no split axes, or merges them back into the axis that they were split from."""
    if (split := value.split_axis) is None or not _is_split(value, old):
        return True
    wide = [d for d in range(new.start, new.stop) if shape[d] > 1]
    return _stands(split, shape) and split.origin is not None and wide == [split.origin.axis]


def _moved(value: Value, shape: tuple[int, ...]) -> SplitAxis | None:
    """The split axis of a value whose split axes a reshape keeps."""
    split = value.split_axis
    if split is None:
        return None
    where: dict[int, int] = {}
    for old, new in blocks(value.shape, shape):
        if keeps(value, old, shape[new]):
            wide = [d for d in range(old.start, old.stop) if value.shape[d] != 1]
            where |= dict(zip(wide, [d for d in range(new.start, new.stop) if shape[d] != 1], strict=True))
    if not all(d in where for d in split.dims):
        return None
    return replace(split, dims=tuple(where[d] for d in split.dims))


def _merge(coupling: Coupling, name: str, value: Value, old: slice) -> tuple[Labels, Origin | None]:
    """Labels of the product of some axes, of which at most one may carry them; and where they came from."""
    axes = value.axes[old]
    free = [k for k, x in enumerate(axes) if not is_fixed(x)]
    for k in free[1:]:
        coupling.freeze(axes[k], kind=Kind.MERGES)
    shape = [x.size for x in axes]
    if not free:
        return fixed(math.prod(shape)), None
    if math.prod(shape) > LARGEST_AXIS:
        coupling.freeze(axes[free[0]], why="merges it into an axis of more positions than can be followed")
        return fixed(math.prod(shape)), None
    column = axes[free[0]].reshape(line(len(axes), free[0]))
    alone = sum(s > 1 for s in shape) == 1
    repeated = old.start == 0 and all(s == 1 for s in shape[free[0] + 1 :])  # for each sample
    origin = Origin(name, old.start + free[0], value.shape) if alone or repeated else None
    return np.broadcast_to(column, shape).ravel(), origin


def _split(
    coupling: Coupling, labels: Labels, shape: tuple[int, ...], start: int, origin: Origin | None
) -> tuple[Sequence[Labels], SplitAxis | None]:
    """Labels of the factors of an axis that lie at `start`: one carries them, or else they are split."""
    sizes = [fixed(size) for size in shape]
    wide = [k for k, size in enumerate(shape) if size > 1]
    if not wide or is_fixed(labels):
        return sizes, None
    grid = labels.reshape(shape)
    for k in wide:
        edge = _edge(grid, k)
        if (grid == edge).all():
            sizes[k] = edge.ravel()
            return sizes, None
    if labels.size > LARGEST_SPLIT:
        coupling.freeze(labels, why="splits it over too many positions")
        return sizes, None
    narrow = tuple(shape[k] for k in wide)
    order = np.arange(labels.size).reshape(narrow)
    dims, factors = tuple(start + k for k in wide), tuple((k,) for k in range(len(wide)))
    return sizes, SplitAxis(dims, labels.reshape(narrow), order, origin, coupling.node, factors)


def _edge(grid: np.ndarray, k: int) -> np.ndarray:
    """The first line of a grid along axis k, with all axes kept."""
    return grid[tuple(slice(None) if j == k else slice(1) for j in range(grid.ndim))]
