"""Operators that move elements without changing them: labels move along."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxprune.channels.boxes import Value
from onnxprune.channels.labels import Axes, Labels, fixed, is_fixed, repeated
from onnxprune.channels.op import Op, on
from onnxprune.channels.promises import first, joined, provided
from onnxprune.channels.tables import repair, rule


@rule("Reshape", "Flatten", "Unsqueeze", quiet=first, tangled=True)
def reshape(op: Op, **_: Any) -> Value:
    return op.reshape(op.shapes[0])


@rule("Squeeze", quiet=first, tangled=True)
def squeeze(op: Op, *, axes: Any = None, **_: Any) -> Value:
    """Where the axes are not told, all of length 1 go: with open lengths not even the rank is known."""
    value = op.values[0]
    if value is not None and op.ints(1, axes) is None and any(op.open_in(0, k) for k in range(len(value.axes))):
        return op.unknown("drops all axes of one position, and the model leaves open which these are")
    return op.reshape(op.shapes[0])


@repair("Reshape")
def repair_reshape(edit: Any, allowzero: int = 0, **_: Any) -> None:
    """Sizes that still come out right (0, −1, computed ones) stay as they are."""
    target = edit.ints(1, "shape")
    shape = edit.shape_out(0)
    if target is None:
        return
    told = [int(v) for v in target]
    copied = [0 if allowzero else size for size in edit.shape_in(0)]
    actual = [copied[k] if v == 0 and not allowzero else v for k, v in enumerate(told)]
    was = edit.original(1, edit.attribute("shape")) or told
    wrong = [k for k, v in enumerate(actual) if v not in (-1, shape[k]) or (told[k] == 0 != was[k])]
    if wrong:
        edit.set_ints(1, "shape", {k: shape[k] for k in wrong})


@repair("Squeeze")
def repair_squeeze(edit: Any, axes: Any = None, **_: Any) -> None:
    """Which axes go must be said where another one has come down to one position."""
    if edit.now(1, axes) is None and 1 in edit.shape_out(0):
        edit.add_ints(1, "axes", [k for k in range(edit.rank_in(0)) if edit.size_in(0, k) == 1])


@rule("Transpose", quiet=first, tangled=True)
def transpose(op: Op, *, perm: Any = None) -> Value:
    value = op.values[0]
    if value is None:
        return op.unknown("has no input")
    return op.transpose(list(perm) if perm is not None else range(len(value.axes))[::-1])


@rule("Concat", quiet=joined)
def concat(op: Op, *xs: Axes, axis: int = 1, **_: Any) -> Axes:
    axis %= len(xs[0])
    columns = zip(*xs, strict=True)
    return tuple(np.concatenate(x) if k == axis else op.coupling.join(x) for k, x in enumerate(columns))


@rule("DepthToSpace", channel=1, quiet=first)
def depth_to_space(op: Op, x: Axes, *, blocksize: int, mode: bytes | str = b"DCR") -> Axes:
    square = blocksize * blocksize
    grid = x[1].reshape(-1, square).T if mode in (b"CRD", "CRD") else x[1].reshape(square, -1)
    op.freeze(*x[2:], why="interleaves it with channels")
    op.tie(grid[:1], grid)
    return (x[0], grid[0], ...)  # type: ignore[return-value]


@rule("SpaceToDepth", channel=1, quiet=first)
def space_to_depth(op: Op, x: Axes, *, blocksize: int) -> Axes:
    op.freeze(*x[2:], why="interleaves it with channels")
    return (x[0], repeated(x[1], blocksize * blocksize), ...)  # type: ignore[return-value]


@rule("Tile", quiet=first)
def tile(op: Op, x: Axes, *_: Axes | None, **attributes: Any) -> Axes:
    repeats = op.some_ints(1, attributes.get("repeats"))
    if repeats is None:
        return op.unknown("repeats it as often as is left out")
    if op.opset < 6:  # one axis, then
        axis = op.told(2)[0] % len(x)
        repeats = [repeats[0] if k == axis else 1 for k in range(len(x))]
    return tuple(_repeated(op, k, labels, times) for k, (labels, times) in enumerate(zip(x, repeats, strict=True)))


def _repeated(op: Op, axis: int, labels: Labels, times: int | None) -> Labels:
    """Repeated labels; a single position makes channels of its own, all alike."""
    if times is None:
        op.freeze(labels, why="repeats it as often as the sizes of the model's inputs say")
        return op.fixed_out(axis)
    if labels.size == 1:
        return labels if times == 1 else op.channels(times)
    return labels if times == 1 else repeated(labels, times)


@repair("Tile")
def repair_tile(edit: Any, repeats: Any = None, **_: Any) -> None:
    told = edit.ints(1, None if repeats is None else "repeats")
    if told is None or edit.draft.opset < 6:
        return
    wanted = [edit.count_out(0, k) // edit.count_in(0, k) for k in range(edit.rank_in(0))]
    edit.set_ints(1, None, {k: n for k, n in enumerate(wanted) if n != told[k]})


@rule("Expand", quiet=first)
def expand(op: Op, x: Axes, _: Axes) -> Axes:
    """An axis that is expanded from one position has channels of its own, all alike."""
    shape = op.shapes[0]
    if shape is None:
        return op.unknown("expands to a shape that is not known")
    padded = (*(fixed(1) for _ in shape[len(x) :]), *x)
    return tuple(
        labels if labels.size == size else fixed(size) if op.open_out(axis) else op.channels(size)
        for axis, (labels, size) in enumerate(zip(padded, shape, strict=True))
    )


@repair("Expand")
def repair_expand(edit: Any, **_: Any) -> None:
    target, shape, given = edit.ints(1), edit.shape_out(0), edit.shape_in(0)
    if target is not None:
        off = len(shape) - len(target)
        given = (*(1 for _ in shape[len(given) :]), *given)
        become = [given[off + k] if v == 1 else v for k, v in enumerate(target)]
        edit.set_ints(1, None, {k: shape[off + k] for k, v in enumerate(become) if v != shape[off + k]})


def _stays_inside(attributes: Mapping[str, Any]) -> bool:
    """Whether every element comes of the input, or is zero."""
    region = attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    return not (region and attributes.get("extrapolation_value", 0.0))


@rule("Resize", "Upsample", channel=1, quiet=provided(_stays_inside))
def resize(op: Op, x: Axes, *told: Axes | None, axes: Any = None, **attributes: Any) -> Axes:
    shape = op.shapes[0]
    op.freeze(*(labels for value in told if value for labels in value), why="resizes by it")
    region = attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    if region or attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        op.freeze(*(x[k] for k in (range(len(x)) if axes is None else axes)), why="resizes a region of it")
    if shape is None:
        return (x[0], x[1], ...)  # type: ignore[return-value]
    out = []
    for k, (labels, size) in enumerate(zip(x, shape, strict=True)):
        same = labels.size == size and (is_fixed(labels) or not op.open_out(k))
        if not same:
            op.freeze(labels, why="resizes it")
        out.append(labels if same else fixed(size))
    return tuple(out)


@repair("Resize")
def repair_resize(edit: Any, axes: Any = None, **_: Any) -> None:
    sizes, shape = edit.ints(3), edit.shape_out(0)
    if sizes is not None and len(sizes):
        dims = [k % len(shape) for k in axes] if axes else range(len(shape))
        edit.set_ints(3, None, {k: shape[d] for k, (d, v) in enumerate(zip(dims, sizes, strict=True)) if v != shape[d]})


@rule("Pad", quiet=lambda op: op.zero_padded() and op.silent(0))
def pad(op: Op, x: Axes, *_: Axes | None, **attributes: Any) -> Axes:
    """Constant padding of a channel axis makes channels of its own; they can go as well."""
    before, after = pads_of(op, len(x), attributes)
    constant = attributes.get("mode", b"constant") in (b"constant", "constant")
    out: list[Labels] = []
    for k, labels in enumerate(x):
        start, end = before[k], after[k]
        if start == end == 0:
            out.append(labels)
        elif start is None or end is None or min(start, end) < 0 or not constant:
            op.freeze(labels, why="pads or crops it")
            out.append(op.fixed_out(k) if start is None or end is None else fixed(labels.size + start + end))
        else:
            fresh = op.coupling.fresh if labels.any() else fixed
            out.append(np.concatenate([fresh(start), labels, fresh(end)]))
    return tuple(out)


def pads_of(op: Op, rank: int, attributes: Any) -> tuple[list[int | None], list[int | None]]:
    """Amounts added before and after each axis; None where they hang on the sizes of the model's inputs."""
    given = op.some_ints(1, attributes.get("pads", attributes.get("paddings")))
    if given is None:
        return op.unknown("pads by amounts that are left out")
    axes = op.ints(3)
    dims = range(rank) if axes is None else [k % rank for k in axes]
    before: list[int | None] = [0] * rank
    after: list[int | None] = [0] * rank
    for j, k in enumerate(dims):
        before[k], after[k] = given[j], given[j + len(given) // 2]
    return before, after


@repair("Pad")
def repair_pad(edit: Any, pads: Any = None, paddings: Any = None, **_: Any) -> None:
    name = "paddings" if paddings is not None else "pads"
    given, original = edit.ints(1, name), edit.original(1, pads or paddings)
    axes = edit.ints(3)
    if given is None or original is None:
        return
    rank = edit.rank_in(0)
    dims = range(rank) if axes is None else [int(k) % rank for k in axes]
    half, changed = len(given) // 2, {}
    for j, k in enumerate(dims):
        inside = edit.size_in(0, k)
        live = edit.live_out(0, k)
        if live.all():
            continue
        before = live.size - inside - original[j + half]
        changed[j] = int(live[:before].sum())
        changed[j + half] = int(live[before + inside :].sum())
    edit.set_ints(1, name, {k: v for k, v in changed.items() if v != given[k]})


@rule("ReverseSequence", "Reverse")
def reverse(op: Op, x: Axes, *_: Axes | None, time_axis: int = 0, batch_axis: int = 1, **__: Any) -> Axes:
    op.freeze(x[time_axis], x[batch_axis], why="reverses it")
    return x


@rule("Trilu", quiet=first)
def trilu(op: Op, x: Axes, *_: Axes | None, **__: Any) -> Axes:
    op.freeze(*x[-2:], why="keeps a triangle of it")
    return x


@rule("GridSample", quiet=first, takes=lambda op: range(2, len(op.shapes[0] or ())))
def grid_sample(op: Op, x: Axes, grid: Axes, **_: Any) -> Axes:
    op.freeze(*x[2:], *grid[1:], why="samples it")
    return (op.tie(x[0], grid[0]), x[1], ...)  # type: ignore[return-value]


@rule("Col2Im", channel=1, quiet=first)
def columns_to_image(op: Op, x: Axes, *_: Axes | None, **__: Any) -> Axes:
    """Columns (samples, channels · places in a block, blocks) become maps again."""
    grid = x[1].reshape(-1, math.prod(op.told(2)))
    op.freeze(x[2], why="puts blocks of it into their places")
    op.tie(grid[:, :1], grid)
    return (x[0], grid[:, 0], ...)  # type: ignore[return-value]


@rule("Crop", quiet=first)
def crop(op: Op, x: Axes, **_: Any) -> Axes:
    """Of early Windows exports: crops height and width."""
    op.freeze(*x[2:], why="crops it")
    return on(on(x, 2, _cropped(op, 2)), 3, _cropped(op, 3))


def _cropped(op: Op, axis: int) -> Any:
    shape = op.shapes[0]
    if shape is None:
        return op.unknown("crops to a size that is not known")
    return fixed(shape[axis])
