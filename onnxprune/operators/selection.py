"""Operators that pick positions of an axis: Split, Slice."""

from typing import Any

import numpy as np

from onnxprune.operators.boxes import Value
from onnxprune.operators.facts import Facts, NothingKnown
from onnxprune.operators.forward import Forward, TorchCall, numbers, take
from onnxprune.operators.labels import Axes, LabelError
from onnxprune.operators.lazy_torch import Tensor
from onnxprune.operators.op import Op, on
from onnxprune.operators.registry import Arrays, Attributes, Shape, Trait, by_reference, define
from onnxprune.operators.site import Site, numbers_name, spread
from onnxprune.operators.zeros import first

ALL = np.iinfo(np.int64).max
_PART = Trait.MOVES | Trait.RANGE | Trait.MAPS | Trait.PASSES


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


def repair_split(edit: Any, axis: int = 0, **_: Any) -> None:
    """What is split evenly goes on being so, unless channels are gone: lengths of other axes hold at one size alone."""
    counts = [edit.count_out(k, axis) for k in range(len(edit.node.output))]
    told = edit.ints(1, "split")
    if told is not None:
        edit.set_ints(1, "split", dict(enumerate(counts)))
    elif len(set(counts)) > 1 and not all(edit.live_out(k, axis).all() for k in range(len(counts))):
        edit.add_ints(1, "split", counts)
        edit.drop_attribute("num_outputs")


def bound_split(site: Site) -> list[Facts]:
    axis = site.attributes.get("axis", 0) % len(site.shape())
    ends = np.cumsum([site.shape_out(k)[axis] for k in range(len(site.shapes))])
    pieces = [np.split(a, ends[:-1], axis) for a in spread(site, axis).columns]
    return [Facts(*piece) for piece in zip(*pieces, strict=True)]


def _split_shape(x: Arrays, a: Attributes) -> list[Shape | None]:
    """Before opset 2 sizes may be left to the operator, which is of no use here."""
    axis = a.get("axis", 0) % len(x[0])
    return [tuple(size if k == axis else n for k, n in enumerate(x[0])) for size in a.get("split", ())]


def forward_split(node: TorchCall, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """Into parts of given sizes or as equal as can be: the last one is smaller (opset 18)."""
    axis = node.get("axis", 0)
    parts = node.get("split") if sizes is None else numbers(sizes)
    if parts is None:
        length, count = x.shape[axis], node.get("num_outputs", node.outputs)
        each = -(-length // count)
        parts = [min(each, max(0, length - k * each)) for k in range(count)]
    return x.split(parts, axis)


define(
    "Split", couple=split, takes_split=True, zero=first, repair=repair_split, follows=frozenset({1}), bound=bound_split,
    channelwise=True, value=by_reference, shape=_split_shape, traits=_PART | Trait.SPLITS,
    forward=Forward(forward_split, into=(0,), host=(1,)),
)  # fmt: skip


def slice_(op: Op, **attributes: Any) -> Axes | Value:
    value = op.values[0]
    if value is not None and value.split_axis is not None:
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
        picked = _picked(len(x[axis]), int(start), int(end), int(step))
        found.append((int(axis) % len(x), np.arange(picked.start, picked.stop, picked.step)))
    return found


def _picked(length: int, start: int, end: int, step: int) -> range:
    """Positions of one axis: a bound that is beyond an end of it is there."""
    return range(*slice(max(start, -length), None if step < 0 and end < -length else end, step).indices(length))


def repair_slice(edit: Any, **attributes: Any) -> None:
    """Bounds follow the positions that stay; what is no slice of them any more becomes a Gather behind it."""
    sizes = [range(n) for n in edit.shape_in(0)]
    now = slices(edit.now, sizes, attributes)
    before = slices(edit.original, [range(edit.size_in(0, k)) for k in range(len(sizes))], attributes)
    starts, ends, steps, whole, given = {}, {}, {}, list[int](), edit.now(4)
    for j, ((axis, told), (_, picked)) in enumerate(zip(now, before, strict=True)):
        if edit.live_in(0, axis).all():  # its bounds may be computed from the number of channels
            whole.append(j)
            continue
        wanted = edit.renumber(0, axis)[picked[edit.live_out(0, axis)]]
        if np.array_equal(told, wanted):
            continue
        run = np.array_equal(wanted, np.arange(wanted[0], wanted[0] + wanted.size))
        starts[j], ends[j] = (int(wanted[0]), int(wanted[-1]) + 1) if run else (0, ALL)
        if given is not None and given[j] != 1:
            steps[j] = 1
        if not run:
            edit.then_gather(axis, wanted)
    for k, name, changes in ((1, "starts", starts), (2, "ends", ends), (4, "", steps)):
        was = edit.original(k, attributes.get(name))
        edit.set_ints(k, name or None, changes | {j: was[j] for j in whole if was is not None})


def bound_slice(site: Site) -> Facts:
    found = site.data()
    told = [site.some_numbers(k, name) for k, name in ((1, "starts"), (2, "ends"), (3, "axes"), (4, ""))]
    if any(site.has(k) and (told[k - 1] is None or None in (told[k - 1] or ())) for k in (3, 4)):
        raise NothingKnown
    picks = slices(lambda k, _=None: told[k - 1], [range(n) for n in site.shape()], {})
    for axis, positions in picks:
        if found.shape[axis] > 1:
            if positions is None:
                raise NothingKnown
            found = found.map(lambda a, k=axis, p=positions: a.take(p, k))
    return found.named(*(numbers_name(site, k, t) for k, t in enumerate(told, 1) if t is not None), site.kind)


def _sliced_value(x: Arrays, a: Attributes) -> np.ndarray:
    data, given = x[0], dict(enumerate(x))
    picks = slices(lambda k, told=None: given.get(k) if told is None else told, [range(n) for n in data.shape], a)
    for axis, positions in picks:
        data = data.take(positions, axis)
    return data


def forward_slices(
    node: TorchCall, x: Tensor, starts: Tensor | None = None, ends: Tensor | None = None, axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Bounds are attributes before opset 10."""
    given = [node.get(n) if t is None else numbers(t) for n, t in (("starts", starts), ("ends", ends), ("axes", axes))]
    first, last = given[0], given[1]
    along = range(len(first)) if given[2] is None else given[2]
    by = [1] * len(first) if steps is None else numbers(steps)
    for start, end, axis, step in zip(first, last, along, by, strict=True):
        places = _picked(x.shape[axis], start, end, step)
        if step > 0:
            x = x[(slice(None),) * (axis % x.dim()) + (slice(places.start, max(places.start, places.stop), step),)]
        else:
            x = take(x, axis, list(places))
    return x


_SLICE: dict[str, Any] = {
    "couple": slice_, "takes_split": True, "zero": first, "repair": repair_slice,
    "forward": Forward(forward_slices, into=(0,), host=(1, 2, 3, 4)),
}  # fmt: skip
define(
    "Slice", **_SLICE, follows=frozenset({1, 2, 3, 4}), bound=bound_slice, channelwise=True, value=_sliced_value,
    traits=_PART | Trait.NUMBERS | Trait.SLICES,
)  # fmt: skip
define("DynamicSlice", **_SLICE, traits=Trait.MOVES)
