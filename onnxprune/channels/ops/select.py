"""Operators that pick positions of an axis: Split, Slice, Gather, and what scatters into it."""

from typing import Any

import numpy as np

from onnxprune.channels.boxes import Value
from onnxprune.channels.labels import Axes, LabelError, Labels, fixed, is_fixed
from onnxprune.channels.op import Op, on
from onnxprune.channels.promises import first
from onnxprune.channels.tables import repair, rule

ALL = np.iinfo(np.int64).max


@rule("Split", quiet=first, tangled=True)
def split(op: Op, *, axis: int = 0, **_: Any) -> list[Axes] | list[Value]:
    sizes = [shape[axis] for shape in op.shapes if shape is not None]
    if len(sizes) < len(op.shapes):
        return op.unknown("splits into sizes that are not known")
    ends, rank = np.cumsum(sizes), len(op.values[0].axes) if op.values[0] is not None else 0
    axis %= rank
    told = op.some_ints(1) if op.opset >= 13 else None
    if op.values[0] is not None and (None in (told or ()) or any(op.open_out(axis, k) for k in range(len(sizes)))):
        op.freeze(op.values[0].along(axis), why="splits it into sizes that hang on those of the model's inputs")
    picked = [op.pick(axis, np.arange(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
    if None not in picked:
        return [value for value in picked if value is not None]
    x = op.axes(0)
    assert x is not None
    parts = np.split(op.pickable(x[axis], axis), ends[:-1])
    return [on(x, axis, op.part(part)) for part in parts]


@repair("Split")
def repair_split(edit: Any, axis: int = 0, num_outputs: int | None = None, **_: Any) -> None:
    counts = [edit.count_out(k, axis) for k in range(len(edit.node.output))]
    told = edit.ints(1, "split")
    if told is not None:
        edit.set_ints(1, "split", {k: v for k, v in enumerate(counts) if v != told[k]})
    elif len(set(counts)) > 1 or any(not edit.live_out(k, axis).all() for k in range(len(counts))):
        even = len(set(counts)) == 1
        if not even:
            edit.add_ints(1, "split", counts)
            edit.drop_attribute("num_outputs")


@rule("Slice", "DynamicSlice", quiet=first, tangled=True)
def slice_(op: Op, **attributes: Any) -> Axes | Value:
    value = op.values[0]
    if value is not None and value.tangle is not None:
        found = slices(op.some_ints, [range(n) for n in value.shape], attributes)
        if len(found) == 1 and found[0][1] is not None and (picked := op.pick(*found[0])) is not None:
            return op.arrived(picked)
    if (x := op.axes(0)) is None:
        return op.unknown("has no input")
    out = list(x)
    for axis, positions in slices(op.some_ints, x, attributes):
        if positions is None:
            op.freeze(x[axis], why="picks positions of it that hang on the sizes of the model's inputs")
            out[axis] = op.fixed_out(axis)
        else:
            out[axis] = op.part(op.pickable(x[axis], axis)[positions])
    return tuple(out)


def slices(ints: Any, x: Any, attributes: Any) -> list[tuple[int, Any]]:
    """Positions (positions,) that a Slice picks, axis by axis, for axes given as sequences of their length.

    None where its bounds are other ones at other sizes of the input.  Raises LabelError where its axes are.
    """
    starts, ends = ints(1, attributes.get("starts")), ints(2, attributes.get("ends"))
    axes, steps = ints(3, attributes.get("axes")), ints(4)
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    found: list[tuple[int, Any]] = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if axis is None:
            raise LabelError("its axes hang on the sizes of the model's inputs")
        if start is None or end is None or step is None:
            found.append((int(axis) % len(x), None))
            continue
        size = len(x[axis])
        stop = None if step < 0 and end < -size else int(end)
        found.append((int(axis) % len(x), np.arange(size)[slice(int(start), stop, int(step))]))
    return found


@repair("Slice", "DynamicSlice")
def repair_slice(edit: Any, **attributes: Any) -> None:
    """Bounds follow the positions that stay; what is no slice of them any more becomes a Gather behind it."""
    sizes = [range(n) for n in edit.shape_in(0)]
    now = slices(edit.now, sizes, attributes)
    before = slices(edit.original, [range(edit.size_in(0, k)) for k in range(len(sizes))], attributes)
    starts, ends, steps, given = {}, {}, {}, edit.now(4)
    for j, ((axis, told), (_, picked)) in enumerate(zip(now, before, strict=True)):
        wanted = edit.renumber(0, axis)[picked[edit.live_out(0, axis)]]
        if np.array_equal(told, wanted):
            continue
        run = np.array_equal(wanted, np.arange(wanted[0], wanted[0] + wanted.size))
        starts[j], ends[j] = (int(wanted[0]), int(wanted[-1]) + 1) if run else (0, ALL)
        if given is not None and given[j] != 1:
            steps[j] = 1
        if not run:
            edit.then_gather(axis, wanted)
    edit.set_ints(1, "starts", starts)
    edit.set_ints(2, "ends", ends)
    edit.set_ints(4, None, steps)


@rule("Gather", quiet=first, tangled=True)
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


@repair("Gather")
def repair_gather(edit: Any, axis: int = 0, **_: Any) -> None:
    picks = edit.tensor(1)
    if picks is None or edit.live_in(0, axis).all():
        return
    axis %= edit.rank_in(0)
    kept = [edit.live_out(0, axis + k) for k in range(picks.ndim)]
    edit.set_tensor(1, edit.renumber(0, axis)[picks[np.ix_(*kept)] if kept else picks])


@rule("ScatterND", quiet=lambda op: op.silent(0) and op.silent(2))
def scatter_nd(op: Op, x: Axes, indices: Axes, updates: Axes, **_: Any) -> Axes:
    """Indices (..., k) name positions on the first k axes; the axes behind these pass.

    Where they are the grid of some positions of each axis, the updates stand in for these positions.
    """
    if not indices:
        return op.unknown("scatters by indices of unknown shape")
    k, known = indices[-1].size, op.constant(1)
    op.freeze(*indices, why="scatters by it")
    op.broadcast(x[k:], updates[len(indices) - 1 :])
    lines = None if known is None else grid_lines(known)
    if lines is None:
        op.freeze(*x[:k], *updates[: len(indices) - 1], why="scatters into it by computed indices")
        return x
    for axis, (labels, replaced, line) in enumerate(zip(x, updates, lines, strict=False)):
        op.tie(op.pickable(labels, axis)[line], replaced)
        op.part(replaced)
    return x


def grid_lines(indices: np.ndarray) -> list[np.ndarray] | None:
    """Positions on each axis of a grid of indices (n1, n2, ..., k) with k axes; None where it is no grid."""
    k = indices.shape[-1]
    if indices.ndim != k + 1 or indices.size == 0:
        return None
    lines = [np.moveaxis(indices[..., j], j, 0).reshape(indices.shape[j], -1)[:, 0] for j in range(k)]
    return lines if np.array_equal(np.stack(np.meshgrid(*lines, indexing="ij"), -1), indices) else None


@repair("ScatterND")
def repair_scatter_nd(edit: Any, **_: Any) -> None:
    indices = edit.tensor(1)
    lines = None if indices is None else grid_lines(indices)
    if lines is None or all(edit.live_in(0, j).all() for j in range(len(lines))):
        return
    new = [edit.renumber(0, j)[line[edit.live_in(2, j)]] for j, line in enumerate(lines)]
    edit.set_tensor(1, np.stack(np.meshgrid(*new, indexing="ij"), -1))


@rule("GatherND", quiet=first)
def gather_nd(op: Op, x: Axes, indices: Axes, *, batch_dims: int = 0) -> Axes:
    """Indices (..., k) pick positions of the first k axes; the axes behind these pass."""
    if batch_dims or not indices:
        return op.unknown("picks positions by computed indices")
    k = indices[-1].size
    op.freeze(*x[:k], *indices, why="picks positions of it")
    op.selects = op.weights[0] and len(x) - k > 1  # a matrix or filter of each expert
    return (*(fixed(n.size) for n in indices[:-1]), *x[k:])


@rule("GatherElements", quiet=first, takes=lambda op: [op.attributes.get("axis", 0)])
def gather_elements(op: Op, x: Axes, indices: Axes, *, axis: int = 0) -> Axes:
    """Positions of one axis that the indices say, element by element; along the other axes channels pass."""
    axis %= len(x)
    op.freeze(x[axis], indices[axis], why="picks positions of it")
    return tuple(fixed(indices[k].size) if k == axis else _passing(op, k, x, indices) for k in range(len(x)))


@rule("ScatterElements", "Scatter", quiet=lambda op: op.silent(0) and op.silent(2))
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


@repair("GatherElements", "ScatterElements", "Scatter")
def repair_elements(edit: Any, axis: int = 0, **_: Any) -> None:
    for k, size in enumerate(edit.sizes_in(1)):
        if k != axis % edit.rank_in(0) and size != edit.count_in(0, k):
            edit.gather_input(1, k, np.flatnonzero(edit.live_in(0, k)))


@rule("Compress", "OneHot", "NonMaxSuppression", "NonZero", "Unique")
def by_data(op: Op, *_: Axes | None, **__: Any) -> Axes:
    return op.unknown("gives a shape that depends on the data")
